//! Checking proofs: total, and linear in a proof whose length the sizes bound.

use super::tree::split;
use super::{TreeHead, node_hash};
use crate::primitives::{Hash32, sha256};
use core::ops::Range;
use core::slice;

/// Whether the entry with this [`leaf_hash`](super::leaf_hash) is the one at `index` of a list (RFC 9162
/// section 2.1.3.2).
pub fn verify_inclusion(leaf_hash: &Hash32, index: u64, head: &TreeHead, proof: &[Hash32]) -> bool {
    if index >= head.size {
        return false;
    }
    let mut path = Path { at: index, last: head.size - 1 };
    let mut root = *leaf_hash;
    for node in proof {
        match path.up() {
            None => return false,
            Some(Side::Left) => root = node_hash(node, &root),
            Some(Side::Right) => root = node_hash(&root, node),
        }
    }
    path.last == 0 && root == head.root
}

/// Whether entries with these [`leaf_hash`](super::leaf_hash)es stand side by side in a list, the first of them at
/// index `first`; of no entries, whether the proof is empty.
pub fn verify_range(leaf_hashes: &[Hash32], first: u64, head: &TreeHead, proof: &[Hash32]) -> bool {
    if leaf_hashes.is_empty() {
        return proof.is_empty();
    }
    let Some(end) = first.checked_add(leaf_hashes.len() as u64).filter(|end| *end <= head.size) else { return false };
    let mut nodes = RangeNodes { entries: first..end, leaf_hashes: leaf_hashes.iter(), rest: proof.iter() };
    nodes.root(0..head.size) == Some(head.root) && nodes.rest.next().is_none()
}

/// What a tree is put together from, both in the list's order.
struct RangeNodes<'a> {
    entries: Range<u64>,
    leaf_hashes: slice::Iter<'a, Hash32>,
    /// Roots over what lies outside.
    rest: slice::Iter<'a, Hash32>,
}

impl RangeNodes<'_> {
    /// The root over a subtree; no more than 64 calls deep, as each halves the subtree.
    fn root(&mut self, over: Range<u64>) -> Option<Hash32> {
        if over.end <= self.entries.start || self.entries.end <= over.start {
            return self.rest.next().copied();
        }
        if over.end - over.start == 1 {
            return self.leaf_hashes.next().copied();
        }
        let (left, right) = split(&over);
        Some(node_hash(&self.root(left)?, &self.root(right)?))
    }
}

/// Whether the old list is how the new one begins (RFC 9162 section 2.1.4.2).
///
/// From size 0 (whose root is that of nothing) and between equal sizes (equal roots) the proof is empty.
pub fn verify_consistency(old: &TreeHead, new: &TreeHead, proof: &[Hash32]) -> bool {
    if old.size > new.size || (old.size == 0 && old.root != sha256(&[])) {
        return false;
    }
    if old.size == new.size {
        return proof.is_empty() && old.root == new.root;
    }
    if old.size == 0 {
        return proof.is_empty();
    }
    // A perfect old tree is a node of the new one that the proof leaves out.
    let (first, rest) = match proof {
        _ if old.size.is_power_of_two() => (old.root, proof),
        [first, rest @ ..] => (*first, rest),
        [] => return false,
    };
    let shift = (old.size - 1).trailing_ones();
    let mut path = Path { at: (old.size - 1) >> shift, last: (new.size - 1) >> shift };
    let (mut old_root, mut new_root) = (first, first);
    for node in rest {
        match path.up() {
            None => return false,
            Some(Side::Left) => {
                old_root = node_hash(node, &old_root);
                new_root = node_hash(node, &new_root);
            }
            Some(Side::Right) => new_root = node_hash(&new_root, node),
        }
    }
    path.last == 0 && old_root == old.root && new_root == new.root
}

/// Where a path up the tree is: a node's index and that of the last node beside it.
struct Path {
    at: u64,
    last: u64,
}

/// Where the proof's next node stands.
enum Side {
    Left,
    Right,
}

impl Path {
    /// One node up; `None` at the root.
    fn up(&mut self) -> Option<Side> {
        if self.last == 0 {
            return None;
        }
        let is_right = self.at % 2 == 1;
        let side = if is_right || self.at == self.last { Side::Left } else { Side::Right };
        if !is_right && self.at == self.last {
            // A last node without a sibling is the node above as well.
            let shift = self.at.trailing_zeros();
            self.at >>= shift;
            self.last >>= shift;
        }
        self.at >>= 1;
        self.last >>= 1;
        Some(side)
    }
}
