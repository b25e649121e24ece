//! What a follower asks of its source, and what it refuses to believe.
//!
//! Guarantees that a height without a block is never taken for the end of the chain, and that no step is taken back for
//! a source that is only behind or on a chain without the rollup's start.

use super::{FollowerError, Store};
use crate::chain::BlockSource;
use crate::derive::MEDIAN_TIME_SPAN;
use crate::primitives::{BlockRef, BtcHeight};
use crate::scanner::header_of;

/// How the source's chain goes on from the last block applied.
pub(super) enum Next {
    /// It does not: that block is the tip.
    Nothing,
    /// With a block above it.
    Block,
    /// That block is not in it.
    Left,
}

/// Looks where the source's chain goes from `tip`, the last block applied.
pub(super) fn next(
    source: &dyn BlockSource,
    store: &Store,
    start: BlockRef,
    tip: BlockRef,
) -> Result<Next, FollowerError> {
    match source.block_hash(tip.height)? {
        Some(hash) if hash == tip.hash => after(source, tip.height),
        Some(_) => left(source, start),
        None => {
            // Less of our own chain is a source that is behind; of another one, it is a reorganisation.
            let shown = source.tip()?;
            match store.bitcoin_block(shown.height)? {
                Some((hash, ..)) if hash != shown.hash => left(source, start),
                _ => Err(FollowerError::Missing { height: tip.height, tip: shown.height }),
            }
        }
    }
}

fn after(source: &dyn BlockSource, height: BtcHeight) -> Result<Next, FollowerError> {
    let next = height + 1;
    if source.block_hash(next)?.is_some() {
        return Ok(Next::Block);
    }
    let tip = source.tip()?.height;
    if tip <= height {
        return Ok(Next::Nothing);
    }
    // It may have come in between the two calls.
    source.block_hash(next)?.map(|_| Next::Block).ok_or(FollowerError::Missing { height: next, tip })
}

fn left(source: &dyn BlockSource, start: BlockRef) -> Result<Next, FollowerError> {
    check_start(source, start)?;
    Ok(Next::Left)
}

/// Checks that the source's chain holds the manifest's start block.
pub(super) fn check_start(source: &dyn BlockSource, start: BlockRef) -> Result<(), FollowerError> {
    match source.block_hash(start.height)? {
        Some(hash) if hash == start.hash => Ok(()),
        Some(_) => Err(FollowerError::StartNotOnChain(start)),
        None => Err(FollowerError::Missing { height: start.height, tip: source.tip()?.height }),
    }
}

/// Header times of a block and up to ten ancestors, oldest first.
pub(super) fn times_up_to(source: &dyn BlockSource, block: BlockRef) -> Result<Vec<u32>, FollowerError> {
    let mut times = Vec::new();
    let mut hash = block.hash;
    for _ in 0..MEDIAN_TIME_SPAN.min(block.height as usize + 1) {
        let header = header_of(source, hash)?;
        times.push(header.time);
        hash = header.prev_blockhash;
    }
    times.reverse();
    Ok(times)
}
