//! Scenarios 27 to 32: what a reorganisation takes away and gives back.

use super::*;
use crate::envelope::Carrier;
use DropReason as R;
use history::{ALICE, BOB, accounts, executed_at, outcomes, pay, waits};
use rig::START_HEIGHT;

const EMPTY: &[&[u8]] = &[];

fn short() -> Parameters {
    Parameters { window: 5, max_lag: 3, ..Parameters::default() }
}

// Scenario 27, reorg_orphan_block.
#[test]
fn a_block_that_is_orphaned_and_mined_again_leaves_the_same_chain() {
    let mut rig = Rig::new(short());
    rig.mine([rig.force(b"before")]);
    let batch = rig.post(&rig.draft().adopt(rig.height()).block(false, &[b"own"]));
    rig.mine([rig.force(b"with it"), batch]);
    rig.mine_to(START_HEIGHT + 7);
    for depth in 1..=7 {
        let before = rig.derivation.clone();
        let orphaned = rig.disconnect(depth);
        // In between, something else has its place.
        rig.mine([rig.force(b"elsewhere")]);
        rig.disconnect(1);
        orphaned.into_iter().for_each(|raw| drop(rig.apply(raw)));
        assert_eq!(rig.derivation, before, "depth {depth}");
    }
}

// Scenario 27: mined again in another block, as the mempool has it.
#[test]
fn items_and_batches_that_are_mined_again_elsewhere_count_where_they_stand_then() {
    let mut rig = Rig::new(short());
    let (item, batch) = (rig.force(b"item"), rig.post(&rig.draft().block(false, &[b"own"])));
    let first = rig.mine([item.clone(), batch.clone()]);
    assert_eq!(verdicts(&first), [Verdict::Accept]);
    rig.disconnect(1);
    // The batch one block later, the item another one later.
    rig.mine([]);
    let second = rig.mine([batch]);
    assert_eq!(first.blocks, second.blocks, "its origin is below the fork");
    let step = rig.mine([item]);
    assert_eq!(step.items[0].tx_hash(), first.items[0].tx_hash());
    assert_eq!(step.items[0].block.height, START_HEIGHT + 3);
    // Up to date there, so that only the item's own window decides.
    rig.mine([rig.post(&rig.draft().adopt(START_HEIGHT + 2))]);
    rig.mine_to(START_HEIGHT + 12);
    assert_eq!(executed_at(&rig, 0), START_HEIGHT + 3 + 5);
}

// Scenario 28, reorg_flip_flop, the hostile variant: one batch for each branch, posted on both.
#[test]
fn on_each_of_two_branches_the_batches_of_the_other_are_ignored_as_often_as_bitcoin_changes() {
    let mut rig = Rig::new(short());
    rig.mine([rig.force(b"a")]);
    let for_a = rig.post(&rig.draft().block(true, &[b"a"]));
    let orphaned = rig.disconnect(1);
    rig.mine([rig.force(b"b"), rig.force(b"b")]);
    let for_b = rig.post(&rig.draft().block(true, &[b"b"]));
    let mut other = [rig.disconnect(1), orphaned];
    for round in 0..4 {
        let here = other[round % 2].clone();
        here.into_iter().for_each(|raw| drop(rig.apply(raw)));
        let step = rig.mine([for_a.clone(), for_b.clone()]);
        let (wrong, right) = (Verdict::Drop(R::OriginWrongBranch), Verdict::Accept);
        let expected = if round % 2 == 0 { [wrong, right] } else { [right, Verdict::Drop(R::Replay)] };
        assert_eq!(verdicts(&step), expected, "round {round}");
        assert_eq!(rig.derivation, rig.clean_run());
        other[round % 2] = vec![rig.disconnect(2).remove(0)];
    }
}

// Scenario 31, delayed_item_removed_then_readded.
#[test]
fn an_item_that_leaves_and_comes_back_is_executed_once_and_moves_no_batch() {
    let mut rig = Rig::new(accounts(short()));
    let item = rig.force(&pay(&rig, ALICE, BOB, 5, 0));
    let batch = rig.draft().block(false, &[pay(&rig, BOB, ALICE, 2, 0)]);
    let first = rig.mine([item.clone(), rig.post(&batch)]);
    rig.mine([rig.post(&rig.draft().block(true, EMPTY))]);
    assert_eq!(outcomes(&rig), ["ok", "ok"]);
    rig.disconnect(2);
    // The hostile variant: on the way back somebody puts another in front of it.
    let step = rig.mine([rig.force(&pay(&rig, BOB, ALICE, 1, 1)), rig.post(&batch), item]);
    assert_eq!(step.blocks, first.blocks);
    rig.mine_to(START_HEIGHT + 8);
    assert_eq!(outcomes(&rig), ["ok", "ok", "ok"]);
    assert_eq!(waits(&rig), [5, 5]);
}

// Scenario 32, item_moves_height_in_reorg: earlier, later, to another place in its transaction.
#[test]
fn wherever_an_item_lands_its_deadline_is_counted_from_there() {
    for landing in [1, 2, 4] {
        for carrier in [Carrier::OpReturn, Carrier::Taproot] {
            let mut rig = Rig::new(short());
            rig.mine([]);
            rig.mine([rig.envelope(carrier, Body::Tx(b"item".to_vec()))]);
            rig.mine([]);
            rig.disconnect(3);
            for _ in 1..landing {
                rig.mine([rig.post(&rig.draft().adopt(rig.height()).block(false, EMPTY))]);
            }
            let up_to_date = rig.post(&rig.draft().adopt(rig.height()).block(false, EMPTY));
            let step = rig.mine([up_to_date, rig.envelope(carrier, Body::Tx(b"item".to_vec()))]);
            assert_eq!(step.items[0].block.height, START_HEIGHT + landing);
            rig.mine_to(START_HEIGHT + 12);
            assert_eq!(executed_at(&rig, 0), START_HEIGHT + landing + 5, "landed at {landing}");
        }
    }
}
