//! The reasons for which a file cannot be made.

use crate::api::ClientError;
use crate::chain::ChainError;
use crate::follower::FollowerError;
use crate::primitives::{BlockRef, Hash32, L2Number};
use crate::proof::{ConflictingAnchors, Verdict};
use crate::queue::Place;
use bitcoin::consensus::encode;

/// No file can be made: it would show nothing, or a part of it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The derived chain cannot be read.
    #[error(transparent)]
    Follower(#[from] FollowerError),
    /// Bitcoin cannot be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The sequencer did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Two sets of sequencers for one number of handovers.
    #[error(transparent)]
    Anchors(#[from] ConflictingAnchors),
    /// A Bitcoin block that does not decode.
    #[error(transparent)]
    Block(#[from] encode::Error),
    /// A reorganisation came between two readings.
    #[error("the chain changed while it was read; try again")]
    Changed,
    /// The queue is shorter than the part of it that is asked for.
    #[error("the queue has {size} items, not {wanted}")]
    QueueSize {
        /// Items in the queue.
        size: u64,
        /// Items asked for.
        wanted: u64,
    },
    /// The item's Bitcoin transaction can be taken for a node of the block's Merkle tree.
    #[error(
        "the Bitcoin transaction of {0} has 64 bytes without its witness, like two nodes of the block's tree: no file can prove it (specification, 8.3), though every node that reads the block executes the item"
    )]
    LikeATreeNode(Place),
    /// No block is shown under a number.
    #[error("there is no block {0}")]
    NoBlock(L2Number),
    /// A block is shown without signatures.
    #[error("block {0} is not signed: there is nothing to hold against anybody")]
    Unsigned(L2Number),
    /// The genesis block.
    #[error("block 0 is the manifest's, nobody signs it")]
    Genesis,
    /// The block before is not the one that a block names as its parent.
    #[error(
        "block {number} is built on {parent}, and block {before} is not that one: without its parent it cannot be judged"
    )]
    NoParent {
        /// The block.
        number: L2Number,
        /// The hash that it names.
        parent: Hash32,
        /// Number of the block before it.
        before: L2Number,
    },
    /// A leaf that is said to be of a block's queue is not.
    #[error("{place} does not stand in block {number}'s queue")]
    ForeignLeaf {
        /// The leaf's place on Bitcoin.
        place: Place,
        /// The block.
        number: L2Number,
    },
    /// The judge cannot decide about a block.
    #[error("block {number} cannot be judged: {verdict}")]
    Unjudged {
        /// The block.
        number: L2Number,
        /// The judge's verdict.
        verdict: Box<Verdict>,
    },
    /// A block is as it has to be.
    #[error(
        "nothing is wrong with block {number}: it follows from its parent, its queue is Bitcoin's at {origin}, and it executes what it has to"
    )]
    Innocent {
        /// The block.
        number: L2Number,
        /// Its origin.
        origin: BlockRef,
    },
    /// A block's origin was reorganised away.
    #[error(
        "nothing can be shown against block {number}: its origin {origin} is not on the best chain, and after a reorganisation that is no fault"
    )]
    OriginGone {
        /// The block.
        number: L2Number,
        /// Its origin.
        origin: BlockRef,
    },
    /// A block's queue holds items, and Bitcoin's holds none.
    #[error("the block's queue is not Bitcoin's, which holds no item so far: every node sees it, no file shows it")]
    EmptyQueue,
    /// A block's queue is not how Bitcoin's begins.
    #[error("block {0} has another queue than Bitcoin")]
    OtherQueue(L2Number),
    /// The same of a block that a sequencer shows now.
    #[error("the sequencer's block {0} has another queue than Bitcoin")]
    ClaimedQueue(L2Number),
    /// No block in a range executes an item.
    #[error("the sequencer has signed no block from {first} to {last} that executes the item")]
    NotClaimed {
        /// The first block that was looked at.
        first: L2Number,
        /// The sequencer's head.
        last: L2Number,
    },
    /// A receipt names a block that does not exist yet.
    #[error(
        "there is no block {number}, and the receipt names {first} to {last}: it is not broken as far as can be seen"
    )]
    ReceiptOpen {
        /// The block.
        number: L2Number,
        /// The first block that the receipt names.
        first: L2Number,
        /// The last block that the receipt names.
        last: L2Number,
    },
    /// A block that a receipt names is not signed.
    #[error("block {0} is not signed: it proves nothing against the receipt's signer")]
    ReceiptUnsigned(L2Number),
    /// A block holds the transaction that a receipt promised.
    #[error("the receipt is kept: block {0} holds the transaction")]
    ReceiptKept(L2Number),
    /// A receipt names no block.
    #[error("the receipt names no block")]
    ReceiptEmpty,
}
