//! What [`judge`](super::judge) answers.

use super::raw::RawBytes;
use super::{AnchorName, BitcoinFacts, CaseName, Level, QueueLeaf, Receipt, Refutation};
use crate::merkle::TreeHead;
use crate::primitives::{BlockRef, Hash32, L2Number};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bitcoin::XOnlyPublicKey;
use core::fmt;
use serde::Serialize;

/// What became of a file. A change of the anchors can turn the last two into one of the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
#[must_use]
pub enum Verdict {
    /// What the file says is true, if the anchors are.
    Proven(Proven),
    /// The file does not show what it says.
    Refuted(Refutation),
    /// The checker does not hold what the file hangs on.
    NeedsAnchor(NeededAnchor),
    /// No file can show this; a node that has the Bitcoin chain can tell.
    NeedsNode(NodeNeed),
}

/// A fact, and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proven {
    /// What is proven.
    #[serde(flatten)]
    pub fact: Box<Fact>,
    /// Every anchor that was used.
    pub anchors: Vec<AnchorName>,
}

/// An L2 block, by what it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BlockName {
    /// Its number.
    pub number: L2Number,
    /// Its hash.
    pub hash: Hash32,
}

/// What a file can show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// A Bitcoin block holds a forced item.
    Forced {
        /// The item, as its leaf in the queue.
        leaf: QueueLeaf,
        /// The L2 transaction.
        tx: RawBytes,
        /// What the block hangs on.
        bitcoin: BitcoinFacts,
    },
    /// The item is executed in an L2 block or before it.
    Included {
        /// Who says that the block is one of the chain's.
        level: Level,
        /// The block.
        block: BlockName,
        /// The item's index in the queue.
        index: u64,
        /// The item.
        leaf: QueueLeaf,
    },
    /// The old queue is how the new one begins.
    Consistent {
        /// The old queue.
        old: TreeHead,
        /// The new queue.
        new: TreeHead,
        /// A derived block that has adopted the old one.
        old_block: Option<BlockName>,
        /// A derived block that has adopted the new one.
        new_block: Option<BlockName>,
    },
    /// Signers vouched for a block that cannot be derived.
    Censored {
        /// What is wrong with it.
        case: CaseName,
        /// Who signed it.
        signers: Vec<XOnlyPublicKey>,
        /// The block.
        block: BlockName,
        /// The item that it wronged, if the file shows one.
        item: Option<QueueLeaf>,
    },
    /// Signers vouched for two blocks of one place that exclude each other.
    Equivocation {
        /// Who signed both.
        signers: Vec<XOnlyPublicKey>,
        /// The blocks' number.
        number: L2Number,
        /// The blocks' parent.
        parent: Hash32,
        /// The blocks.
        blocks: [Hash32; 2],
    },
    /// Signers vouched for two states after one block.
    ConflictingState {
        /// Who signed both.
        signers: Vec<XOnlyPublicKey>,
        /// The block.
        block: Hash32,
        /// The states.
        state_roots: [Hash32; 2],
    },
    /// Signers promised a transaction and made every block that could hold it, without it.
    BrokenReceipt {
        /// Who signed the receipt and all the blocks.
        signers: Vec<XOnlyPublicKey>,
        /// The promise.
        receipt: Receipt,
    },
}

/// An anchor that would decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "anchor", rename_all = "snake_case")]
pub enum NeededAnchor {
    /// A Bitcoin block, or one that the file's headers link it to.
    #[error("is Bitcoin block {0} on the best chain?")]
    Bitcoin(BlockRef),
    /// The header of a Bitcoin block.
    #[error("what is the header of Bitcoin block {0}?")]
    BitcoinHeader(BlockRef),
    /// An L2 block.
    #[error("is L2 block {number} ({hash}) derived?")]
    L2Block {
        /// Its number.
        number: L2Number,
        /// Its hash.
        hash: Hash32,
    },
    /// A sequencer set.
    #[error("which sequencer set is in force after {handovers} handovers?")]
    Sequencers {
        /// The number of handovers.
        handovers: u32,
    },
}

/// What only a node can decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum NodeNeed {
    /// The leaves under a queue root are not shown.
    #[error(
        "the signer's leaves are not shown: a node must compare its queue at Bitcoin block {origin} with {} items \
         under root {}",
        queue.size, queue.root
    )]
    LeavesWithheld {
        /// The queue that the signer states.
        queue: TreeHead,
        /// The Bitcoin block that it is stated for.
        origin: BlockRef,
    },
    /// The header of an origin is not shown, and may not exist.
    #[error("the header of the origin is not shown: a node must look whether Bitcoin has block {origin}")]
    OriginWithheld {
        /// The origin.
        origin: BlockRef,
    },
}

impl From<Refutation> for Verdict {
    fn from(reason: Refutation) -> Self {
        Verdict::Refuted(reason)
    }
}

impl From<NeededAnchor> for Verdict {
    fn from(anchor: NeededAnchor) -> Self {
        Verdict::NeedsAnchor(anchor)
    }
}

impl From<NodeNeed> for Verdict {
    fn from(need: NodeNeed) -> Self {
        Verdict::NeedsNode(need)
    }
}

impl Fact {
    /// The fact in a few words, without its particulars.
    fn name(&self) -> &'static str {
        match self {
            Fact::Forced { .. } => "a Bitcoin block holds the item",
            Fact::Included { level: Level::Claimed, .. } => "sequencers say that the item is executed",
            Fact::Included { level: Level::Derived, .. } => "the item is executed",
            Fact::Consistent { .. } => "the old queue is how the new one begins",
            Fact::Censored { .. } => "a signed block cannot be derived",
            Fact::Equivocation { .. } => "two signed blocks exclude each other",
            Fact::ConflictingState { .. } => "two signed states exclude each other",
            Fact::BrokenReceipt { .. } => "the receipt was not kept",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Proven(Proven { fact, .. }) => write!(f, "proven: {}", fact.name()),
            Verdict::Refuted(reason) => write!(f, "refuted: {reason}"),
            Verdict::NeedsAnchor(anchor) => write!(f, "an anchor is missing: {anchor}"),
            Verdict::NeedsNode(need) => write!(f, "needs a node: {need}"),
        }
    }
}
