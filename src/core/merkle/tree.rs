//! A tree with all its perfect subtrees, to make proofs from.

use super::{TreeHead, fold, leaf_hash, node_hash};
use crate::primitives::Hash32;
use alloc::vec::Vec;
use core::ops::Range;

/// Every perfect subtree of a list that only grows: two hashes for each entry, any proof under any size
/// that the list ever had in time logarithmic (squared) in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// `levels[k][i]` is the root over the entries `i * 2^k .. (i + 1) * 2^k`.
    levels: Vec<Vec<Hash32>>,
}

impl Tree {
    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Appends an entry.
    pub fn push(&mut self, entry: &[u8]) {
        self.push_hash(leaf_hash(entry));
    }

    /// Appends an entry of which only the [`leaf_hash`] is known.
    pub fn push_hash(&mut self, leaf_hash: Hash32) {
        let mut hash = leaf_hash;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let nodes = &mut self.levels[level];
            nodes.push(hash);
            match nodes.as_slice() {
                [.., left, right] if nodes.len().is_multiple_of(2) => hash = node_hash(left, right),
                _ => return,
            }
        }
    }

    /// Size and root of the list when it had `size` entries; `None` if it never had.
    pub fn head(&self, size: u64) -> Option<TreeHead> {
        Some(TreeHead { size, root: self.root(0..size)? })
    }

    /// `PATH(index, D[size])` of RFC 6962 section 2.1.1; `None` unless `index < size <= self.size()`.
    pub fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash32>> {
        if index >= size || size > self.size() {
            return None;
        }
        let (mut range, mut path) = (0..size, Vec::new());
        while range.end - range.start > 1 {
            let (left, right) = split(&range);
            let (within, sibling) = if index < left.end { (left, right) } else { (right, left) };
            path.push(self.root(sibling)?);
            range = within;
        }
        path.reverse();
        Some(path)
    }

    /// The roots over what lies outside `entries` in the list's first `size`, left to right, each over as much as it
    /// can be: what [`verify_range`](super::verify_range) takes. Empty for no entries; `None` unless they lie in
    /// `0..size`, and `size <= self.size()`.
    pub fn range(&self, entries: Range<u64>, size: u64) -> Option<Vec<Hash32>> {
        if entries.start > entries.end || entries.end > size || size > self.size() {
            return None;
        }
        let mut roots = Vec::new();
        if !entries.is_empty() {
            self.outside(&entries, 0..size, &mut roots)?;
        }
        Some(roots)
    }

    fn outside(&self, entries: &Range<u64>, over: Range<u64>, roots: &mut Vec<Hash32>) -> Option<()> {
        if over.end <= entries.start || entries.end <= over.start {
            roots.push(self.root(over)?);
        } else if over.start < entries.start || entries.end < over.end {
            let (left, right) = split(&over);
            self.outside(entries, left, roots)?;
            self.outside(entries, right, roots)?;
        }
        Some(())
    }

    /// `PROOF(old, D[new])` of RFC 6962 section 2.1.2, empty for `old` 0 and for `old == new`; `None` unless
    /// `old <= new <= self.size()`.
    pub fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash32>> {
        if old > new || new > self.size() {
            return None;
        }
        if old == 0 || old == new {
            return Some(Vec::new());
        }
        let (mut range, mut path) = (0..new, Vec::new());
        while range.end != old {
            let (left, right) = split(&range);
            let (within, sibling) = if old <= left.end { (left, right) } else { (right, left) };
            path.push(self.root(sibling)?);
            range = within;
        }
        // The old tree itself is a root that the verifier has.
        if range.start > 0 {
            path.push(self.root(range)?);
        }
        path.reverse();
        Some(path)
    }

    /// The root over entries that are a subtree of some size's tree, or the whole of it.
    fn root(&self, range: Range<u64>) -> Option<Hash32> {
        let (mut at, mut left, mut subtrees) = (range.start, range.end - range.start, Vec::new());
        while let Some(level) = left.checked_ilog2() {
            let nodes = self.levels.get(level as usize)?;
            subtrees.push(*nodes.get(usize::try_from(at >> level).ok()?)?);
            at += 1 << level;
            left -= 1 << level;
        }
        Some(fold(&subtrees))
    }
}

/// Cuts entries, two or more, at the largest power of two below their number.
pub(super) fn split(range: &Range<u64>) -> (Range<u64>, Range<u64>) {
    let middle = range.start + (1 << (range.end - range.start - 1).ilog2());
    (range.start..middle, middle..range.end)
}

impl FromIterator<Hash32> for Tree {
    fn from_iter<I: IntoIterator<Item = Hash32>>(leaf_hashes: I) -> Self {
        let mut tree = Self::default();
        leaf_hashes.into_iter().for_each(|hash| tree.push_hash(hash));
        tree
    }
}
