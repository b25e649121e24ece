//! The queue's leaves in files, proven to stand at their indexes.

use crate::merkle::{Tree, TreeHead, leaf_hash, verify_inclusion};
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
