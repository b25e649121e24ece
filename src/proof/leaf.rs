//! The queue's leaves as a file states them, and their places in it.

use crate::codec::Write;
use crate::envelope::Carrier;
use crate::merkle::{Tree, TreeHead, leaf_hash, verify_inclusion};
use crate::primitives::{BlockRef, Hash32};
use crate::proof::Refutation;
use crate::queue::{Item, Place};
use alloc::vec::Vec;
use bitcoin::BlockHash;
use serde::{Deserialize, Serialize};

/// The queue's list entry of one item: what its leaf is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueLeaf {
    /// Height of the Bitcoin block.
    pub height: u32,
    /// The Bitcoin block.
    pub block_hash: BlockHash,
    /// Index of the Bitcoin transaction in it.
    pub tx_index: u32,
    /// Where in the transaction the item stands.
    pub place: Place,
    /// SHA-256 of the L2 transaction.
    pub tx_hash: Hash32,
}

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

impl From<&Item> for QueueLeaf {
    fn from(item: &Item) -> Self {
        let Item { block: BlockRef { height, hash: block_hash }, tx_index, place, .. } = *item;
        Self { height, block_hash, tx_index, place, tx_hash: item.tx_hash() }
    }
}

impl QueueLeaf {
    /// The leaf's 113 bytes (specification, section 4).
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(113);
        bytes.put(&self.height.to_le_bytes());
        bytes.put(self.block_hash.as_ref());
        bytes.put(&self.tx_index.to_le_bytes());
        bytes.put(self.place.txid.as_ref());
        bytes.push(match self.place.carrier {
            Carrier::Taproot => 0,
            Carrier::OpReturn => 1,
        });
        bytes.put(&self.place.index.to_le_bytes());
        bytes.put(&self.place.position.to_le_bytes());
        bytes.put(self.tx_hash.as_ref());
        bytes
    }

    /// What the queue is ordered by; no two items of one queue have the same.
    pub fn order(&self) -> (u32, u32, Carrier, u32, u32) {
        (self.height, self.tx_index, self.place.carrier, self.place.index, self.place.position)
    }
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
