//! What a follower asks of its source, and what it refuses to believe.
//!
//! Guarantees that a block is used whole or not at all, that a height without a block is never taken for
//! the end of the chain, and that no step is taken back for a source that is only behind or on a chain
//! without the rollup's start.

use super::{NodeError, Store};
use crate::chain::BlockSource;
use crate::derive::MEDIAN_TIME_SPAN;
use crate::envelope::{ScannedBlock, check_block, scan_block};
use crate::primitives::{BlockRef, BtcHeight, Namespace};
use bitcoin::BlockHash;

/// How the source's chain goes on from the last block applied.
pub(super) enum Next {
    /// It does not: that block is the tip.
    Nothing,
    /// With this block.
    Block(BlockHash),
    /// That block is not in it.
    Left,
}

/// Looks where the source's chain goes from `tip`, the last block applied.
pub(super) fn next(
    source: &impl BlockSource,
    store: &Store,
    start: BlockRef,
    tip: BlockRef,
) -> Result<Next, NodeError> {
    match source.block_hash(tip.height)? {
        Some(hash) if hash == tip.hash => after(source, tip.height),
        Some(_) => left(source, start),
        None => {
            // Less of our own chain is a source that is behind; of another one, it is a reorganisation.
            let shown = source.tip()?;
            match store.bitcoin_block(shown.height)? {
                Some((hash, ..)) if hash != shown.hash => left(source, start),
                _ => Err(NodeError::Missing { height: tip.height, tip: shown.height }),
            }
        }
    }
}

fn after(source: &impl BlockSource, height: BtcHeight) -> Result<Next, NodeError> {
    let next = height + 1;
    if let Some(hash) = source.block_hash(next)? {
        return Ok(Next::Block(hash));
    }
    let tip = source.tip()?.height;
    if tip <= height {
        return Ok(Next::Nothing);
    }
    // It may have come in between the two calls.
    source.block_hash(next)?.map(Next::Block).ok_or(NodeError::Missing { height: next, tip })
}

fn left(source: &impl BlockSource, start: BlockRef) -> Result<Next, NodeError> {
    check_start(source, start)?;
    Ok(Next::Left)
}

/// Checks that the source's chain holds the manifest's start block.
pub(super) fn check_start(source: &impl BlockSource, start: BlockRef) -> Result<(), NodeError> {
    match source.block_hash(start.height)? {
        Some(hash) if hash == start.hash => Ok(()),
        Some(_) => Err(NodeError::StartNotOnChain(start)),
        None => Err(NodeError::Missing { height: start.height, tip: source.tip()?.height }),
    }
}

/// The block with this hash and what is in it for a rollup, once every byte was checked against its header.
pub(super) fn fetch(
    source: &impl BlockSource,
    hash: BlockHash,
    namespace: Namespace,
) -> Result<ScannedBlock, NodeError> {
    let raw = source.block(&hash)?;
    let scanned = scan_block(&raw, Some(namespace))?;
    check_hash(hash, scanned.header.block_hash())?;
    if scanned.found.is_empty() {
        // Only now is it known that nothing was hidden or cut off.
        check_block(&raw)?;
    }
    Ok(scanned)
}

fn check_hash(expected: BlockHash, got: BlockHash) -> Result<(), NodeError> {
    if got == expected { Ok(()) } else { Err(NodeError::OtherBlock { expected, got }) }
}

/// Header times of a block and up to ten ancestors, oldest first.
pub(super) fn times_up_to(source: &impl BlockSource, block: BlockRef) -> Result<Vec<u32>, NodeError> {
    let mut times = Vec::new();
    let mut hash = block.hash;
    for _ in 0..MEDIAN_TIME_SPAN.min(block.height as usize + 1) {
        let header = source.header(&hash)?;
        check_hash(hash, header.block_hash())?;
        times.push(header.time);
        hash = header.prev_blockhash;
    }
    times.reverse();
    Ok(times)
}
