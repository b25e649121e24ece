//! Bitcoin headers in a row.

use super::Refutation;
use super::raw::Raw;
use crate::primitives::{BlockRef, BtcHeight};
use alloc::vec::Vec;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use serde::{Deserialize, Serialize};

/// Headers of consecutive blocks, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderChain {
    /// Height of the first.
    pub first_height: BtcHeight,
    /// One or more.
    pub raw: Vec<Raw<Header>>,
}

/// Headers of which each names the one before as its parent.
#[derive(Debug)]
pub(super) struct LinkedHeaders<'a> {
    first_height: BtcHeight,
    headers: &'a [Raw<Header>],
    hashes: Vec<BlockHash>,
    top: BlockRef,
}

impl HeaderChain {
    /// Headers as a node has them.
    pub fn new(first_height: BtcHeight, headers: impl IntoIterator<Item = Header>) -> Self {
        Self { first_height, raw: headers.into_iter().map(Raw).collect() }
    }

    pub(super) fn link(&self) -> Result<LinkedHeaders<'_>, Refutation> {
        let hashes: Vec<_> = self.raw.iter().map(|Raw(header)| header.block_hash()).collect();
        let hash = *hashes.last().ok_or(Refutation::NoHeaders)?;
        let height = u32::try_from(hashes.len() - 1)
            .ok()
            .and_then(|above| self.first_height.checked_add(above))
            .ok_or(Refutation::HeightOverflow)?;
        let links = hashes.iter().zip(self.raw.iter().skip(1));
        for (height, (hash, Raw(header))) in (self.first_height..=height).skip(1).zip(links) {
            if header.prev_blockhash != *hash {
                return Err(Refutation::Unlinked { height });
            }
        }
        let top = BlockRef { height, hash };
        Ok(LinkedHeaders { first_height: self.first_height, headers: &self.raw, hashes, top })
    }
}

impl<'a> LinkedHeaders<'a> {
    /// The block at a height and its header.
    pub fn at(&self, height: BtcHeight) -> Option<(BlockRef, &'a Header)> {
        let index = usize::try_from(height.checked_sub(self.first_height)?).ok()?;
        let Raw(header) = self.headers.get(index)?;
        Some((BlockRef { height, hash: *self.hashes.get(index)? }, header))
    }

    /// Every block with its header, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = (BlockRef, &'a Header)> {
        let heights = self.first_height..=self.top.height;
        heights
            .zip(&self.hashes)
            .zip(self.headers)
            .map(|((height, &hash), Raw(header))| (BlockRef { height, hash }, header))
    }

    /// The block before the first; `None` if that is Bitcoin's genesis.
    pub fn parent(&self) -> Option<BlockRef> {
        let height = self.first_height.checked_sub(1)?;
        let Raw(first) = self.headers.first()?;
        Some(BlockRef { height, hash: first.prev_blockhash })
    }

    /// The last block.
    pub fn top(&self) -> BlockRef {
        self.top
    }
}
