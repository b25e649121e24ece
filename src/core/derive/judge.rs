//! The checks of batches and handovers, in the order that the specification states: the first that
//! fails is the reason.

use super::Derivation;
use crate::batch::{BatchBlock, BatchBody, HandoverBody, MAX_BLOCKS, MAX_DATA};
use crate::codec::Malformed;
use crate::l2::L2Block;
use crate::manifest::{BadSignatures, SequencerSet};
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// How far an L2 block's time may be ahead of the Bitcoin block that holds its batch, in seconds (section 6.4).
pub const MAX_FUTURE_SECONDS: u64 = 7200;

/// What one Bitcoin block's batches may still add to the chain: a few bytes of DEFLATE on Bitcoin must
/// not become state without bound for everybody who follows. Only accepted batches use it up: what
/// somebody posts again cannot keep a sound batch out.
pub(super) struct Budget {
    blocks: u64,
    bytes: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { blocks: MAX_BLOCKS, bytes: MAX_DATA }
    }

    /// What is left once these blocks are accepted.
    fn without(&self, blocks: usize, bytes: usize) -> Result<Self, DropReason> {
        let blocks = self.blocks.checked_sub(blocks as u64);
        let bytes = self.bytes.checked_sub(bytes);
        blocks.zip(bytes).map(|(blocks, bytes)| Self { blocks, bytes }).ok_or(DropReason::OverBudget)
    }
}

/// What became of a batch or handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Whole part of the chain.
    Accept,
    /// Without any effect, for this reason.
    Drop(DropReason),
}

/// Why a batch or handover has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropReason {
    /// The fields before the data (batch) or the signatures (handover) cannot be read.
    Malformed,
    /// The first block's number is not above the head's.
    Replay,
    /// The first block's number is not the one after the head's.
    WrongNumber,
    /// The parent is not the derived head.
    WrongParent,
    /// The codec is neither 0 nor 1.
    UnknownCodec,
    /// Not exactly `threshold` signatures, or something after them.
    SignatureCount,
    /// Signer indexes out of range or not strictly ascending.
    Signer,
    /// A signature does not verify.
    BadSignature,
    /// The data cannot be read, or a number overflows.
    MalformedData,
    /// The Bitcoin block's batches together have too much in them: this one may count in a later block.
    OverBudget,
    /// The last origin's height is not the parent's plus the advances.
    OriginMismatch,
    /// The last origin is not below the Bitcoin block that carries the batch.
    OriginNotBelow,
    /// The last origin's hash is not this chain's.
    OriginWrongBranch,
    /// A timestamp is too far in front of the carrying Bitcoin block's time.
    TimestampHigh,
    /// A timestamp is below its lower bound.
    TimestampLow,
    /// Own transactions in a block whose origin lies more than `max_lag` behind.
    StaleOrigin,
    /// A handover for another number of handovers than are in force.
    WrongSeq,
    /// Another handover was accepted in the same Bitcoin block.
    HandoverPending,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop(reason) => write!(f, "dropped: {reason}"),
        }
    }
}

/// For people; the specification has the reason's name.
impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropReason::Malformed => "its fields cannot be read",
            DropReason::Replay => "it begins at a block that the chain has already",
            DropReason::WrongNumber => "it begins above the next block of the chain",
            DropReason::WrongParent => "its parent is not the head of the chain",
            DropReason::UnknownCodec => "its codec is not known",
            DropReason::SignatureCount => "it does not have as many signatures as are asked for",
            DropReason::Signer => "its signers are not in order, or not in the set",
            DropReason::BadSignature => "a signature does not verify",
            DropReason::MalformedData => "its data cannot be read",
            DropReason::OverBudget => "the batches of its Bitcoin block have too much in them together",
            DropReason::OriginMismatch => "the height of its last origin is not what its advances add up to",
            DropReason::OriginNotBelow => "its last origin is not below its Bitcoin block",
            DropReason::OriginWrongBranch => "its last origin is not on this Bitcoin chain",
            DropReason::TimestampHigh => "a timestamp is too far in front of its Bitcoin block",
            DropReason::TimestampLow => "a timestamp is too low",
            DropReason::StaleOrigin => "own transactions stand behind an origin that is too old",
            DropReason::WrongSeq => "it is for another number of handovers than are in force",
            DropReason::HandoverPending => "another handover was accepted in the same Bitcoin block",
        })
    }
}

impl From<Malformed> for DropReason {
    fn from(_: Malformed) -> Self {
        DropReason::Malformed
    }
}

impl From<BadSignatures> for DropReason {
    fn from(bad: BadSignatures) -> Self {
        match bad {
            BadSignatures::Count => DropReason::SignatureCount,
            BadSignatures::Signer => DropReason::Signer,
            BadSignatures::Signature => DropReason::BadSignature,
        }
    }
}

fn require(holds: bool, otherwise: DropReason) -> Result<(), DropReason> {
    if holds { Ok(()) } else { Err(otherwise) }
}

impl Derivation {
    /// The blocks that a batch in the tip block appends to the head; `time` is the tip's header time.
    pub(super) fn judge_batch(&self, body: &[u8], time: u32, budget: &mut Budget) -> Result<Vec<L2Block>, DropReason> {
        let head = &self.state.head.header;
        let batch = BatchBody::decode(body)?;
        let terms = &batch.terms;
        require(terms.first_number > head.number, DropReason::Replay)?;
        require(Some(terms.first_number) == head.number.checked_add(1), DropReason::WrongNumber)?;
        require(terms.parent == self.state.head.hash, DropReason::WrongParent)?;
        batch.check_codec().map_err(|_| DropReason::UnknownCodec)?;
        let message = batch.message(&self.rules.rollup_id, self.state.handovers);
        self.state.set.verify(message, batch.signatures())?;

        let (stated, bytes) = batch.blocks().map_err(|Malformed| DropReason::MalformedData)?;
        check_no_overflow(&stated, head.number, head.timestamp)?;
        let left = budget.without(stated.len(), bytes)?;
        let advances = stated.iter().filter(|block| block.advances).count() as u64;
        let last_height = u64::from(head.origin.height) + advances;
        require(u64::from(terms.last_origin.height) == last_height, DropReason::OriginMismatch)?;
        require(terms.last_origin.height < self.tip().block.height, DropReason::OriginNotBelow)?;
        let last_origin = self.origin(terms.last_origin.height).map(|origin| origin.block);
        require(last_origin == Some(terms.last_origin), DropReason::OriginWrongBranch)?;

        let blocks = self.build(stated)?;
        self.check_blocks(&blocks, time)?;
        *budget = left;
        Ok(blocks)
    }

    fn build(&self, stated: Vec<BatchBlock>) -> Result<Vec<L2Block>, DropReason> {
        let mut parent = self.head();
        let mut blocks = Vec::with_capacity(stated.len());
        for BatchBlock { advances, seconds, txs } in stated {
            let height = parent.header.origin.height + u32::from(advances);
            // Known: at most the last origin, which is on this chain and below the tip.
            let origin = self.origin(height).ok_or(DropReason::OriginWrongBranch)?;
            let timestamp = parent.header.timestamp.checked_add(seconds).ok_or(DropReason::MalformedData)?;
            let block = self.rules.child(&parent, origin, timestamp, txs).ok_or(DropReason::MalformedData)?;
            parent = block.head();
            blocks.push(block);
        }
        Ok(blocks)
    }

    fn check_blocks(&self, blocks: &[L2Block], time: u32) -> Result<(), DropReason> {
        let tip = self.tip().block.height;
        let latest = u64::from(time) + MAX_FUTURE_SECONDS;
        let lower_bounds = || {
            let parents = core::iter::once(&self.state.head.header).chain(blocks.iter().map(|block| &block.header));
            parents.zip(blocks).map(|(parent, block)| {
                let origin = self.origin(block.header.origin.height);
                (block.header.timestamp, origin.map_or(u64::MAX, |origin| parent.child_lower_bound(origin)))
            })
        };
        require(lower_bounds().all(|(timestamp, lower)| timestamp <= lower.max(latest)), DropReason::TimestampHigh)?;
        require(lower_bounds().all(|(timestamp, lower)| timestamp >= lower), DropReason::TimestampLow)?;
        let stale = |block: &L2Block| !block.own_txs.is_empty() && tip - block.header.origin.height > self.max_lag;
        require(!blocks.iter().any(stale), DropReason::StaleOrigin)
    }

    /// The set that a handover in the tip block puts in force from the next Bitcoin block on.
    pub(super) fn judge_handover(&self, body: &[u8], pending: bool) -> Result<SequencerSet, DropReason> {
        let handover = HandoverBody::decode(body)?;
        require(handover.seq == self.state.handovers, DropReason::WrongSeq)?;
        require(!pending, DropReason::HandoverPending)?;
        self.state.set.verify(handover.message(&self.rules.rollup_id), handover.signatures())?;
        Ok(handover.set)
    }
}

/// Numbers and timestamps must fit 64 bits, whatever else is wrong with the batch.
fn check_no_overflow(blocks: &[BatchBlock], number: u64, timestamp: u64) -> Result<(), DropReason> {
    let last = blocks.iter().try_fold(timestamp, |sum, block| sum.checked_add(block.seconds));
    let fits = last.is_some() && number.checked_add(blocks.len() as u64).is_some();
    require(fits, DropReason::MalformedData)
}
