//! Merkle Tree Hash of RFC 6962 section 2.1 with SHA-256: whole, growing, and proofs in it.
//!
//! [`CompactRange`] holds the roots of the perfect subtrees of a list that only grows: logarithmic in
//! size, cheap to copy, so that keeping the one from before is the undo. [`Tree`] holds every such root
//! and makes proofs; [`verify_inclusion`], [`verify_range`] and [`verify_consistency`] check them without any tree.

mod tree;
mod verify;

pub use tree::Tree;
pub use verify::{verify_consistency, verify_inclusion, verify_range};

use crate::primitives::Hash32;
use alloc::vec::Vec;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use serde::{Deserialize, Serialize};

fn hash_parts(prefix: u8, parts: &[&[u8]]) -> Hash32 {
    let mut engine = sha256::Hash::engine();
    engine.input(&[prefix]);
    for part in parts {
        engine.input(part);
    }
    Hash32(sha256::Hash::from_engine(engine).to_byte_array())
}

/// Hash of a list entry: `SHA256(00 | entry)`.
pub fn leaf_hash(entry: &[u8]) -> Hash32 {
    hash_parts(0, &[entry])
}

/// Hash of an inner node: `SHA256(01 | left | right)`.
pub fn node_hash(left: &Hash32, right: &Hash32) -> Hash32 {
    hash_parts(1, &[left.as_ref(), right.as_ref()])
}

/// `MTH(entries)`: the Merkle Tree Hash of a whole list.
pub fn merkle_root<T: AsRef<[u8]>>(entries: impl IntoIterator<Item = T>) -> Hash32 {
    let mut range = CompactRange::default();
    for entry in entries {
        range.push(entry.as_ref());
    }
    range.root()
}

/// What a list's Merkle Tree Hash commits to: how many entries, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeHead {
    /// Number of entries.
    pub size: u64,
    /// `MTH` of them.
    pub root: Hash32,
}

/// The perfect subtrees of a list, largest and leftmost first: one for each set bit of its size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactRange {
    size: u64,
    subtrees: Vec<Hash32>,
}

impl CompactRange {
    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends an entry.
    pub fn push(&mut self, entry: &[u8]) {
        let mut hash = leaf_hash(entry);
        // Each trailing set bit of the size is a perfect subtree as large as the one at hand.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.subtrees.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.subtrees.push(hash);
        self.size += 1;
    }

    /// `MTH` of the entries so far; for none, SHA-256 of the empty string.
    pub fn root(&self) -> Hash32 {
        fold(&self.subtrees)
    }
}

/// The root over perfect subtrees, largest and leftmost first; of none, SHA-256 of the empty string.
fn fold(subtrees: &[Hash32]) -> Hash32 {
    let mut subtrees = subtrees.iter().rev();
    match subtrees.next() {
        None => crate::primitives::sha256(&[]),
        Some(last) => subtrees.fold(*last, |right, left| node_hash(left, &right)),
    }
}

#[cfg(test)]
mod tests;
