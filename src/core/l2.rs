//! L2 blocks: what is included and when, decidable without executing anything (specification, section 5).

use crate::codec::Write;
use crate::merkle::merkle_root;
use crate::primitives::{BlockRef, Hash32, L2Number, RollupId, tagged_hash};
use alloc::vec::Vec;
use core::ops::Range;
use serde::{Deserialize, Serialize};

/// Everything that an L2 block's hash binds. State roots are not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2Header {
    /// 0 for genesis.
    pub number: L2Number,
    /// Hash of the block before; zero for genesis.
    pub parent: Hash32,
    /// The Bitcoin block up to which the queue is adopted.
    pub origin: BlockRef,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Number of queue items executed up to and with this block.
    pub forced_end: u64,
    /// Number of queue items at heights up to the origin's.
    pub queue_size: u64,
    /// Merkle Tree Hash of those items.
    pub queue_root: Hash32,
    /// Merkle Tree Hash of the block's own transactions.
    pub txs_root: Hash32,
}

/// What a Bitcoin block contributes to the L2 blocks whose origin it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The Bitcoin block.
    pub block: BlockRef,
    /// Median of its and its ten ancestors' times (Bitcoin Core's `mediantime`), seconds since 1970.
    pub median_time: u32,
    /// Number of queue items at heights up to this one.
    pub queue_size: u64,
    /// Merkle Tree Hash of those items.
    pub queue_root: Hash32,
}

/// A block's header with its hash: what the next block is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2Head {
    /// What the hash binds.
    pub header: L2Header,
    /// The header's hash.
    pub hash: Hash32,
}

/// An L2 block: its header, the hash of it, and its own transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L2Block {
    /// What the hash binds.
    pub header: L2Header,
    /// The header's hash.
    pub hash: Hash32,
    /// The queue's items that it executes first, by index.
    pub forced: Range<u64>,
    /// Its own transactions, executed after the forced section.
    pub own_txs: Vec<Vec<u8>>,
}

/// The parameters that decide what a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRules {
    /// What every hash binds.
    pub rollup_id: RollupId,
    /// Longest forced section, in items.
    pub max_forced_per_block: u64,
}

impl L2Header {
    /// `block_hash` of the specification.
    pub fn hash(&self, rollup_id: &RollupId) -> Hash32 {
        let mut bytes = Vec::with_capacity(240);
        bytes.put(rollup_id.as_ref());
        bytes.put(&self.number.to_le_bytes());
        bytes.put(self.parent.as_ref());
        bytes.put(&self.origin.height.to_le_bytes());
        bytes.put(self.origin.hash.as_ref());
        bytes.put(&self.timestamp.to_le_bytes());
        bytes.put(&self.forced_end.to_le_bytes());
        bytes.put(&self.queue_size.to_le_bytes());
        bytes.put(self.queue_root.as_ref());
        bytes.put(self.txs_root.as_ref());
        tagged_hash("sortie/block", &[&bytes])
    }

    /// The earliest time that a block after this one with the given origin may bear.
    pub fn child_lower_bound(&self, origin: &Origin) -> u64 {
        self.timestamp.max(u64::from(origin.median_time))
    }
}

impl L2Block {
    /// The header and its hash.
    pub fn head(&self) -> L2Head {
        L2Head { header: self.header, hash: self.hash }
    }
}

impl BlockRules {
    /// Block 0, at the manifest's start block.
    pub fn genesis(&self, start: BlockRef, median_time: u32) -> L2Block {
        let empty = merkle_root::<&[u8]>([]);
        let header = L2Header {
            number: 0,
            parent: Hash32::default(),
            origin: start,
            timestamp: u64::from(median_time),
            forced_end: 0,
            queue_size: 0,
            queue_root: empty,
            txs_root: empty,
        };
        L2Block { header, hash: header.hash(&self.rollup_id), forced: 0..0, own_txs: Vec::new() }
    }

    /// The forced section of a block after `parent` with the given origin: the one function that the
    /// sequencer builds by and that everyone derives by.
    pub fn forced_section(&self, parent: &L2Header, origin: &Origin) -> Range<u64> {
        let end = parent.forced_end.saturating_add(self.max_forced_per_block).min(origin.queue_size);
        parent.forced_end..end
    }

    /// The block after `parent` with the given origin, timestamp and own transactions.
    ///
    /// `None` if the number would overflow.
    pub fn child(&self, parent: &L2Head, origin: &Origin, timestamp: u64, own_txs: Vec<Vec<u8>>) -> Option<L2Block> {
        let forced = self.forced_section(&parent.header, origin);
        let header = L2Header {
            number: parent.header.number.checked_add(1)?,
            parent: parent.hash,
            origin: origin.block,
            timestamp,
            forced_end: forced.end,
            queue_size: origin.queue_size,
            queue_root: origin.queue_root,
            txs_root: merkle_root(&own_txs),
        };
        Some(L2Block { header, hash: header.hash(&self.rollup_id), forced, own_txs })
    }
}
