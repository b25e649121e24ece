//! What derivation promises, on a Bitcoin made up here: whole blocks without work.

mod appendix;
mod batches;
mod branches;
mod budget;
mod censorship;
mod handovers;
mod history;
mod invalid;
mod limits;
mod order;
mod outage;
mod random;
mod reorgs;
mod rig;
mod scenarios;
mod sequencer;
mod silence;
mod vectors;
mod verdicts;

use super::*;
use crate::primitives::Hash32;
use alloc::vec;
use rig::{Envelope, Parameters, Rig};
use sequencer::Draft;

/// The verdicts of a step, in order.
fn verdicts(step: &Step) -> Vec<Verdict> {
    step.judged.iter().map(|judged| judged.verdict).collect()
}

/// What a step's blocks are: height of the origin, items executed, own transactions.
fn shape(step: &Step) -> Vec<(BtcHeight, core::ops::Range<u64>, usize)> {
    let blocks = step.blocks.iter();
    blocks.map(|block| (block.header.origin.height, block.forced.clone(), block.own_txs.len())).collect()
}
