//! Every reason for which a file is refuted.

use crate::envelope::Flaw;
use crate::manifest::BadSignatures;
use crate::primitives::BtcHeight;
use serde::Serialize;

/// Why a file does not show what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Refutation {
    /// Another rollup than the manifest's.
    #[error("the file is about another rollup than the manifest")]
    OtherRollup,

    /// An empty header chain.
    #[error("there is no Bitcoin header")]
    NoHeaders,
    /// Heights that do not fit in 32 bits.
    #[error("the headers' heights do not fit in 32 bits")]
    HeightOverflow,
    /// A header does not name the one before it.
    #[error("the header at height {height} is not a child of the one before it")]
    Unlinked {
        /// Its height.
        height: BtcHeight,
    },
    /// No header at the height of the item's block.
    #[error("the headers do not hold the item's block")]
    NotInHeaders,
    /// An anchor stands at another height.
    #[error("the block at height {height} is an anchor at another height")]
    WrongHeight {
        /// The height that the file gives it.
        height: BtcHeight,
    },
    /// The checker's chain has another block there.
    #[error("the block at height {height} is not the anchor at that height")]
    OtherBranch {
        /// The height.
        height: BtcHeight,
    },
    /// nBits that the network does not allow there.
    #[error("the header at height {height} has nBits that the network does not allow there")]
    Bits {
        /// Its height.
        height: BtcHeight,
    },
    /// A hash above the target.
    #[error("the header at height {height} is without its work")]
    Work {
        /// Its height.
        height: BtcHeight,
    },
    /// A period that begins too far before the last one ended (BIP94).
    #[error("the header at height {height} is more than ten minutes behind its parent (BIP94)")]
    TimeWarp {
        /// Its height.
        height: BtcHeight,
    },

    /// An item in the start block or below.
    #[error("the item's block is not above the rollup's start block")]
    NotAboveStart,
    /// The transaction is not the one that the place names.
    #[error("the transaction is not the one of the item's place")]
    OtherTransaction,
    /// A transaction that could be two nodes of a tree.
    #[error("a transaction of 64 bytes can be taken for two nodes of the tree")]
    SixtyFourBytes,
    /// What is given as coinbase is none.
    #[error("the coinbase is not a coinbase")]
    NotCoinbase,
    /// The transaction's branch and the coinbase's have different lengths.
    #[error("the transaction's branch is not as long as the coinbase's")]
    UnequalBranches,
    /// An index with more bits than the branch has nodes, or a branch longer than any block's.
    #[error("the transaction's index does not fit its branch")]
    IndexBeyondBranch,
    /// The item is said to be in the coinbase.
    #[error("the coinbase carries no items")]
    CoinbaseCarriesNothing,
    /// The coinbase's branch leads to another root.
    #[error("the coinbase is not in the block")]
    CoinbaseNotInBlock,
    /// A node stands right of itself.
    #[error("a node of the tree stands right of itself")]
    RepeatedNode,
    /// The transaction's branch leads to another root.
    #[error("the transaction is not in the block")]
    NotInBlock,
    /// A witness where nothing commits to it.
    #[error("an OP_RETURN's transaction must be without witnesses, which its tree does not show")]
    UnprovenWitness,
    /// The coinbase does not commit to the witnesses.
    #[error("the coinbase does not commit to the block's witnesses")]
    NoWitnessCommitment,
    /// The coinbase commits but its witness is not one element of 32 bytes.
    #[error("the coinbase's witness is not one element of 32 bytes")]
    CoinbaseWitness,
    /// Nothing of this rollup's at the place.
    #[error("there is no envelope of this rollup at the item's place")]
    NoEnvelope,
    /// The candidate at the place is no envelope.
    #[error("what stands at the item's place is no envelope: {flaw}")]
    FlawedEnvelope {
        /// Why.
        flaw: Flaw,
    },
    /// The envelope holds no item at the position.
    #[error("the envelope holds no item at the position")]
    NoItem,

    /// A leaf is not at its index of the queue.
    #[error("a leaf is not at its index of the queue")]
    InclusionProof,
    /// The block does not reach the item.
    #[error("the block's forced section ends before the item")]
    NotExecuted,
    /// The later queue is shorter.
    #[error("the old queue is longer than the new one")]
    Shrunk,
    /// The earlier queue is not how the later begins.
    #[error("the old queue is not how the new one begins")]
    ConsistencyProof,
    /// An L2 block has adopted another queue.
    #[error("the L2 block has another queue")]
    OtherQueue,

    /// Nobody signed.
    #[error("there is no signature")]
    Unsigned,
    /// An index out of the set, or out of order.
    #[error("the signers' indexes are not in the set, or not in order")]
    Signer,
    /// A signature does not verify.
    #[error("a signature is not valid")]
    BadSignature,
    /// Less signatures than the threshold.
    #[error("there are less signatures than the threshold")]
    BelowThreshold,
    /// No signer in common.
    #[error("nobody signed all of it")]
    OtherSigners,
    /// The second is not about the same place in the chain, or the leaf not at the item's place.
    #[error("these are about different places")]
    OtherPlace,
    /// A header is not the parent of the next.
    #[error("a header is not the parent of the next one")]
    OtherParent,
    /// A Bitcoin header is not the one of the origin.
    #[error("the Bitcoin header is not the origin's")]
    OtherBitcoinHeader,

    /// The item was executed.
    #[error("the block executes the item, or one before it did")]
    Executed,
    /// The block is full without the item.
    #[error("the block had no room for the item")]
    NoRoom,
    /// The item's headers do not lead to the block's origin.
    #[error("the item's headers do not lead to the block's origin")]
    OtherOrigin,
    /// The leaves do not enclose the item's place.
    #[error("the leaves do not enclose the item's place")]
    NotEnclosed,
    /// The item itself stands at its place.
    #[error("the leaf is the item's own")]
    SameLeaf,
    /// The header follows from its parent.
    #[error("the header agrees with its parent")]
    TrueHeader,
    /// The leaves do not follow each other.
    #[error("the leaves are not neighbours")]
    NotNeighbours,
    /// The leaves are in order.
    #[error("the leaves are in order")]
    InOrder,

    /// Both are the same block.
    #[error("both headers are one block")]
    SameBlock,
    /// Blocks after a reorg: no fault.
    #[error("the origins are neither one Bitcoin block nor parent and child: after a reorg this is no fault")]
    UnrelatedOrigins,
    /// Both are the same state.
    #[error("both state roots are one")]
    SameState,
    /// A range without numbers, or with block 0.
    #[error("the receipt's range is empty or begins with block 0")]
    EmptyReceipt,
    /// Not every block that the receipt names, in order.
    #[error("the blocks are not all that the receipt names")]
    NotCovered,
    /// The own transactions are not the block's.
    #[error("the own transactions are not the block's")]
    OtherOwnTransactions,
    /// The forced leaves are not the block's forced section.
    #[error("the leaves are not the block's forced section")]
    OtherForcedSection,
    /// The transaction is there.
    #[error("the blocks hold the transaction")]
    ReceiptKept,
}

impl From<BadSignatures> for Refutation {
    fn from(bad: BadSignatures) -> Self {
        match bad {
            BadSignatures::Count => Refutation::Unsigned,
            BadSignatures::Signer => Refutation::Signer,
            BadSignatures::Signature => Refutation::BadSignature,
        }
    }
}
