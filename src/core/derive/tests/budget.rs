//! What the batches of one Bitcoin block may add to the chain, all together.

use super::*;
use crate::batch::{MAX_BLOCKS, MAX_DATA, encode_blocks};
use DropReason as R;

const EMPTY: &[&[u8]] = &[];
const OVER_BUDGET: Verdict = Verdict::Drop(R::OverBudget);

/// A batch of this many empty blocks at one origin; a few bytes under DEFLATE.
fn blocks(mut draft: Draft, count: u64) -> Draft {
    for _ in 0..count {
        draft = draft.block(false, EMPTY);
    }
    draft.codec = 1;
    draft
}

/// Two batches with more blocks than one Bitcoin block may add; the second one's bytes count in the next.
pub(super) fn too_many_blocks(rig: &mut Rig) {
    rig.mine_to(rig::START_HEIGHT + 2);
    let first = blocks(rig.draft(), MAX_BLOCKS);
    let second = first.next().block(true, &[b"own"]);
    rig.mine([rig.post(&first), rig.post(&second)]);
    rig.mine([rig.post(&second)]);
}

#[test]
fn a_batch_over_the_budget_counts_in_a_later_bitcoin_block() {
    let mut rig = Rig::new(Parameters::default());
    too_many_blocks(&mut rig);
    assert_eq!(rig.head().number, MAX_BLOCKS + 1);
}

#[test]
fn blocks_are_counted_over_all_batches_of_a_bitcoin_block() {
    let mut rig = Rig::new(Parameters::default());
    rig.mine_to(rig::START_HEIGHT + 2);
    let first = blocks(rig.draft(), MAX_BLOCKS - 1);
    let second = blocks(first.next(), 2);
    let fitting = blocks(first.next(), 1);
    let step = rig.mine([rig.post(&first), rig.post(&second), rig.post(&fitting)]);
    assert_eq!(verdicts(&step), [Verdict::Accept, OVER_BUDGET, Verdict::Accept]);
    assert_eq!(step.blocks.len() as u64, MAX_BLOCKS);
}

#[test]
fn decoded_bytes_are_counted_over_all_batches_of_a_bitcoin_block() {
    let mut rig = Rig::new(Parameters::default());
    rig.mine_to(rig::START_HEIGHT + 2);
    let filled = |draft: Draft, len: usize| {
        let around = encode_blocks(&draft.clone().block(false, &[vec![0; len - 32]]).blocks).len() - (len - 32);
        let mut draft = draft.block(false, &[vec![0; len - around]]);
        draft.codec = 1;
        assert_eq!(encode_blocks(&draft.blocks).len(), len);
        draft
    };
    let first = filled(rig.draft(), MAX_DATA - 1000);
    let (over, fitting) = (filled(first.next(), 1001), filled(first.next(), 1000));
    let step = rig.mine([rig.post(&first), rig.post(&over), rig.post(&fitting)]);
    assert_eq!(verdicts(&step), [Verdict::Accept, OVER_BUDGET, Verdict::Accept]);
}
