//! The blocks that a sequencer signed: as it shows them, or as somebody saved its answers.

use super::{EvidenceError, Prover};
use crate::api::SequencerClient;
use crate::api::wire::{BlockAnswer, ServedHeight};
use crate::follower::QueuedItem;
use crate::merkle::Tree;
use crate::primitives::{L2Number, sha256};
use crate::proof::{BrokenReceipt, LeafRange, RawBytes, Receipt, ReceiptBlock, Signed, SoftHeader};
use std::collections::BTreeMap;

/// Blocks of a sequencer that are searched for one that executes an item.
const MAX_SEARCHED: usize = 1_000;

/// A sequencer's blocks.
pub enum ShownBlocks {
    /// From the sequencer.
    Client(SequencerClient),
    /// From saved answers of `GET /v1/block/NUMBER`, by number.
    Saved(BTreeMap<L2Number, BlockAnswer>),
}

impl ShownBlocks {
    /// The block under a number, if one is shown.
    ///
    /// # Errors
    /// [`EvidenceError::Client`].
    pub fn get(&self, number: L2Number) -> Result<Option<BlockAnswer>, EvidenceError> {
        match self {
            Self::Saved(saved) => Ok(saved.get(&number).cloned()),
            Self::Client(client) => Ok(client.block(number)?),
        }
    }

    /// The signed header under a number, and the block's own transactions.
    pub(super) fn signed(&self, number: L2Number) -> Result<(Signed<SoftHeader>, Vec<RawBytes>), EvidenceError> {
        let block = self.get(number)?.ok_or(EvidenceError::NoBlock(number))?;
        let signed = block.signed.ok_or(EvidenceError::Unsigned(number))?;
        Ok((signed.header, block.own_txs))
    }

    /// The header that another names as its parent: as shown under the number before, or as derived.
    pub(super) fn parent(
        &self,
        prover: &Prover,
        number: L2Number,
        child: &SoftHeader,
    ) -> Result<SoftHeader, EvidenceError> {
        let rollup_id = prover.view.manifest().rollup_id();
        let before = number.checked_sub(1).ok_or(EvidenceError::Genesis)?;
        let derived = prover.view.store().block(before)?.map(|block| SoftHeader(block.head.header));
        if let Some(derived) = derived.filter(|derived| derived.hash(&rollup_id) == child.parent) {
            return Ok(derived);
        }
        let shown = self.get(before)?.map(|block| block.header);
        let parent = child.parent;
        shown.filter(|shown| shown.hash(&rollup_id) == parent).ok_or(EvidenceError::NoParent { number, parent, before })
    }
}

/// The first signed block of a sequencer that executes an item, or comes after one that did.
///
/// # Errors
/// [`EvidenceError::NotClaimed`], [`EvidenceError::ClaimedQueue`], or something cannot be read.
pub fn claimed_block(
    prover: &Prover,
    client: &SequencerClient,
    queued: &QueuedItem,
) -> Result<Signed<SoftHeader>, EvidenceError> {
    let first = match queued.fate {
        Some(fate) => fate.l2_number,
        None => prover.view.heads(1)?.safe.head.header.number.saturating_add(1),
    };
    // It only says where to stop looking.
    let last = client.status::<ServedHeight>()?.head.number;
    for number in (first..=last).take(MAX_SEARCHED) {
        let signed = client.block(number)?.and_then(|block| block.signed).map(|signed| signed.header);
        let Some(signed) = signed.filter(|signed| signed.statement.forced_end > queued.index) else { continue };
        if !prover.has_queue(&signed.statement)? {
            return Err(EvidenceError::ClaimedQueue(number));
        }
        return Ok(signed);
    }
    Err(EvidenceError::NotClaimed { first, last })
}

/// A receipt with every block that it names, none of which holds the transaction.
///
/// # Errors
/// [`EvidenceError`], if the receipt is kept or still open, or a block is missing or unsigned.
pub fn broken_receipt(
    prover: &Prover,
    blocks: &ShownBlocks,
    receipt: Signed<Receipt>,
) -> Result<BrokenReceipt, EvidenceError> {
    let Receipt { tx_hash, first_number, last_number } = receipt.statement;
    let mut tree = None;
    let mut parent = None;
    let mut shown = Vec::new();
    for number in first_number..=last_number {
        let open = EvidenceError::ReceiptOpen { number, first: first_number, last: last_number };
        let block = blocks.get(number)?.ok_or(open)?;
        let header = block.signed.map(|signed| signed.header).ok_or(EvidenceError::ReceiptUnsigned(number))?;
        let before = match parent {
            Some(before) => before,
            None => blocks.parent(prover, number, &header.statement)?,
        };
        parent = Some(header.statement);
        let forced = forced_section(prover, &mut tree, &before, &header.statement)?;
        let own = block.own_txs.iter().map(|RawBytes(tx)| sha256(tx));
        if own.chain(forced.leaves.iter().map(|leaf| leaf.tx_hash)).any(|hash| hash == tx_hash) {
            return Err(EvidenceError::ReceiptKept(number));
        }
        shown.push((before, ReceiptBlock { header, own_txs: block.own_txs, forced }));
    }
    let (parents, blocks): (Vec<_>, Vec<_>) = shown.into_iter().unzip();
    let parent = parents.first().copied().ok_or(EvidenceError::ReceiptEmpty)?;
    Ok(BrokenReceipt { receipt, parent, blocks })
}

/// The leaves that a block executes.
fn forced_section(
    prover: &Prover,
    tree: &mut Option<Tree>,
    parent: &SoftHeader,
    block: &SoftHeader,
) -> Result<LeafRange, EvidenceError> {
    if block.forced_end <= parent.forced_end {
        return Ok(LeafRange { leaves: Vec::new(), proof: Vec::new() });
    }
    let tree = match tree {
        Some(tree) => tree,
        None => tree.insert(prover.tree(prover.size())?),
    };
    if tree.head(block.queue_size) != Some(block.queue()) || block.forced_end > block.queue_size {
        return Err(EvidenceError::OtherQueue(block.number));
    }
    let items = prover.view.store().items(parent.forced_end..block.forced_end)?;
    let items = items.iter().map(|queued| &queued.item);
    LeafRange::make(tree, block.queue_size, parent.forced_end, items).ok_or(EvidenceError::Changed)
}
