//! The messages of the sequencer's HTTP interface, as they are written and as they are read.
//!
//! A reader takes the fields that it needs and ignores all others, so that sequencers may add some. Nobody believes
//! a message because a sequencer sent it.

use crate::l2::L2Head;
use crate::primitives::{BtcHeight, Hash32, L2Number, RollupId};
use crate::proof::{RawBytes, Receipt, Signed, SignedBlock, SoftHeader};
use serde::{Deserialize, Serialize};

/// A head that a sequencer claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadView {
    /// Number of the L2 block.
    pub number: L2Number,
    /// Hash of the L2 block.
    pub hash: Hash32,
    /// Commitment to the state after it.
    pub state_root: Hash32,
    /// Height of its origin.
    pub origin_height: BtcHeight,
    /// Its time, in seconds since 1970.
    pub timestamp: u64,
}

impl HeadView {
    /// A head with the state after it.
    pub fn of(head: L2Head, state_root: Hash32) -> Self {
        Self {
            number: head.header.number,
            hash: head.hash,
            state_root,
            origin_height: head.header.origin.height,
            timestamp: head.header.timestamp,
        }
    }
}

/// Of `GET /v1/status`: the rollup.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ServedRollup {
    /// The rollup that the sequencer serves.
    pub rollup_id: RollupId,
}

/// Of `GET /v1/status`: the rollup and the least fee.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ServedFee {
    /// The rollup that the sequencer serves.
    pub rollup_id: RollupId,
    /// The least fee of a transaction, in millisatoshis a byte; one that is not named is zero.
    #[serde(default)]
    pub least_fee_msat_per_byte: u64,
}

/// Of `GET /v1/status`: the rollup and the soft head.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ServedHead {
    /// The rollup that the sequencer serves.
    pub rollup_id: RollupId,
    /// The soft head.
    #[serde(rename = "unsafe")]
    pub head: HeadView,
}

/// Of `GET /v1/status`: the number of the soft head.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ServedHeight {
    /// The soft head.
    #[serde(rename = "unsafe")]
    pub head: NumberedHead,
}

/// A head of which only the number counts.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct NumberedHead {
    /// Number of the L2 block.
    pub number: L2Number,
}

/// `POST /v1/tx` and `GET /v1/tx/SHA256`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxAnswer {
    /// SHA-256 of the transaction.
    pub tx_hash: Hash32,
    /// Its status.
    #[serde(flatten)]
    pub status: TxStatus,
}

/// The fate of a transaction that was sent to a sequencer, as that tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum TxStatus {
    /// Waits for a block.
    Pending,
    /// In a soft block.
    Included {
        /// Number of the L2 block.
        number: L2Number,
        /// Hash of the L2 block.
        block: Hash32,
        /// The signed promise, if one was given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<Box<Signed<Receipt>>>,
    },
    /// Would have no effect; it can be sent again.
    Rejected {
        /// The executor's reason, or `outbid`.
        reason: String,
    },
}

/// `GET /v1/block/NUMBER`, as far as a reader can check it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockAnswer {
    /// The header.
    pub header: SoftHeader,
    /// The block's own transactions, in order.
    pub own_txs: Vec<RawBytes>,
    /// Header and state root with the sequencer's signatures, once it has signed them.
    pub signed: Option<SignedBlock>,
}

/// `GET /v1/block/NUMBER`, with the fields that follow from the others.
#[derive(Clone, Debug, Serialize)]
pub struct FullBlockAnswer {
    /// Hash of the L2 block.
    pub hash: Hash32,
    /// The block.
    #[serde(flatten)]
    pub block: BlockAnswer,
    /// Indexes of the items that the block executes.
    pub forced: ForcedSection,
}

/// Items of the queue, from `start` up to but without `end`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ForcedSection {
    /// Index of the first item.
    pub start: u64,
    /// Index behind the last item.
    pub end: u64,
}

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// The reason, for people.
    pub error: String,
}
