//! The queue's leaves in files, proven to stand at their indexes: one, or some side by side.

use crate::merkle::{Tree, TreeHead, leaf_hash, verify_inclusion, verify_range};
use crate::primitives::Hash32;
use crate::proof::Refutation;
use crate::queue::{Item, QueueLeaf};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A leaf and the proof that it stands at an index of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenLeaf {
    /// Index in the queue.
    pub index: u64,
    /// The leaf.
    pub leaf: QueueLeaf,
    /// RFC 6962 inclusion proof, from the leaf to the root.
    pub proof: Vec<Hash32>,
}

impl ProvenLeaf {
    /// The proof for the item at `index`, from a tree of leaf hashes, under the queue's first `size` items.
    ///
    /// `None` unless `index < size <= tree.size()`.
    pub fn make(tree: &Tree, size: u64, index: u64, item: &Item) -> Option<Self> {
        Some(Self { index, leaf: item.into(), proof: tree.inclusion(index, size)? })
    }

    pub(super) fn check(&self, queue: &TreeHead) -> Result<(), Refutation> {
        let is_there = verify_inclusion(&leaf_hash(&self.leaf.bytes()), self.index, queue, &self.proof);
        if is_there { Ok(()) } else { Err(Refutation::InclusionProof) }
    }
}

/// Leaves that stand side by side in a queue, and the proof of it: so that a long row takes little more room than
/// its leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeafRange {
    /// The leaves, in order.
    pub leaves: Vec<QueueLeaf>,
    /// Roots over the rest of the queue, as [`Tree::range`] gives them; none if there are no leaves.
    pub proof: Vec<Hash32>,
}

impl LeafRange {
    /// The proof for the items from index `first` on, from a tree of leaf hashes, under the queue's first `size` items.
    ///
    /// `None` unless the items end within `size <= tree.size()`.
    pub fn make<'a>(tree: &Tree, size: u64, first: u64, items: impl IntoIterator<Item = &'a Item>) -> Option<Self> {
        let leaves: Vec<_> = items.into_iter().map(QueueLeaf::from).collect();
        let proof = tree.range(first..first.checked_add(leaves.len() as u64)?, size)?;
        Some(Self { leaves, proof })
    }

    pub(super) fn check(&self, first: u64, queue: &TreeHead) -> Result<(), Refutation> {
        let hashes: Vec<_> = self.leaves.iter().map(|leaf| leaf_hash(&leaf.bytes())).collect();
        if verify_range(&hashes, first, queue, &self.proof) { Ok(()) } else { Err(Refutation::InclusionProof) }
    }
}
