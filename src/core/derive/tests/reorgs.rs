//! Reorganisations: nothing of a branch that was left may stay.

use super::*;
use crate::envelope::Carrier;
use DropReason as R;
use bitcoin::consensus::deserialize;
use rig::START_HEIGHT;

const EMPTY: &[&[u8]] = &[];

#[test]
fn a_block_that_is_no_child_of_the_tip_changes_nothing() {
    let mut rig = Rig::new(Parameters::default());
    rig.mine([rig.force(b"one")]);
    rig.mine([rig.force(b"two")]);
    let before = rig.derivation.clone();
    for raw in rig.best_chain() {
        let block: bitcoin::Block = deserialize(&raw).unwrap();
        let refusal = rig.derivation.apply(&block.header, &[]);
        let (expected, got) = (before.tip().block.hash, block.header.prev_blockhash);
        assert_eq!(refusal, Err(NotChild { expected, got }));
        assert_eq!(rig.derivation, before);
    }
}

#[test]
fn a_batch_that_names_the_other_branch_is_ignored() {
    let mut rig = Rig::new(Parameters::default());
    rig.mine([rig.force(b"item")]);
    let batch = rig.draft().block(true, &[b"own"]);
    let post = rig.post(&batch);
    assert_eq!(verdicts(&rig.mine([post.clone()])), [Verdict::Accept]);
    rig.disconnect(2);
    rig.mine([]);
    let step = rig.mine([post]);
    assert_eq!(verdicts(&step), [Verdict::Drop(R::OriginWrongBranch)]);
    // The same blocks on the origin that is there now.
    assert_eq!(verdicts(&rig.mine([rig.post(&rig.draft().block(true, EMPTY))])), [Verdict::Accept]);
}

#[test]
fn a_batch_whose_origin_survives_is_accepted_on_both_branches() {
    let mut rig = Rig::new(Parameters::default());
    rig.mine([rig.force(b"item")]);
    let batch = rig.draft().block(true, &[b"own"]);
    let post = rig.post(&batch);
    let step = rig.mine([post.clone()]);
    rig.disconnect(1);
    rig.mine([]);
    let again = rig.mine([post]);
    assert_eq!(step.blocks, again.blocks, "what is included does not depend on where the batch stands");
}

#[test]
fn an_item_that_moves_is_due_a_window_after_its_new_height() {
    let mut rig = Rig::new(Parameters { window: 4, ..Parameters::default() });
    let item = rig.envelope(Carrier::Taproot, Body::Tx(b"moved".to_vec()));
    let first = rig.mine([item.clone()]);
    rig.mine_to(START_HEIGHT + 5);
    assert_eq!(rig.head().forced_end, 1);
    rig.disconnect(5);
    assert_eq!((rig.derivation.tip().queue_size, rig.head().number), (0, 0));
    rig.mine_to(START_HEIGHT + 3);
    let second = rig.mine([item]);
    assert_eq!(first.items[0].tx_hash(), second.items[0].tx_hash());
    assert_ne!(first.items[0].leaf(), second.items[0].leaf());
    rig.mine_to(START_HEIGHT + 7);
    assert_eq!(rig.head().forced_end, 0, "not due before 108");
    rig.mine([]);
    assert_eq!(rig.head().forced_end, 1);
}

#[test]
fn going_back_and_forth_ends_where_staying_ends() {
    let mut rig = Rig::new(Parameters { window: 4, ..Parameters::default() });
    rig.mine([rig.force(b"common")]);
    rig.mine([rig.force(b"a")]);
    rig.mine([rig.post(&rig.draft().adopt(START_HEIGHT + 2))]);
    rig.mine_to(START_HEIGHT + 9);
    let at_a = rig.derivation.clone();
    let branch_a = rig.disconnect(8);
    rig.mine([rig.force(b"b")]);
    rig.mine_to(START_HEIGHT + 10);
    let at_b = rig.derivation.clone();
    let branch_b = rig.disconnect(9);
    for _ in 0..2 {
        branch_a.iter().for_each(|raw| drop(rig.apply(raw.clone())));
        assert_eq!(rig.derivation, at_a);
        rig.disconnect(8);
        branch_b.iter().for_each(|raw| drop(rig.apply(raw.clone())));
        assert_eq!(rig.derivation, at_b);
        rig.disconnect(9);
    }
    assert_ne!(at_a.head(), at_b.head());
}

#[test]
fn a_reorganisation_deeper_than_the_window_derives_everything_again() {
    let mut rig = Rig::new(Parameters { window: 3, max_lag: 1, max_forced: 1, ..Parameters::default() });
    let start = rig.derivation.clone();
    for i in 0..15u8 {
        rig.mine([rig.force(&[i]), rig.force(&[i])]);
    }
    assert!(rig.head().number > 20);
    rig.disconnect(15);
    assert_eq!(rig.derivation, start);
    for i in 0..16u8 {
        let batch = rig.draft().adopt(rig.height()).drain();
        let posted = if batch.blocks.is_empty() { None } else { Some(rig.post(&batch)) };
        let forced = rig.force(&[i]);
        rig.mine(posted.into_iter().chain([forced]).collect::<Vec<_>>());
    }
    assert_eq!(rig.head().forced_end, 15);
    assert_eq!(rig.derivation, rig.clean_run());
}

#[test]
fn a_snapshot_goes_on_as_if_it_had_never_stopped() {
    let mut rig = Rig::new(Parameters { window: 4, ..Parameters::default() });
    for i in 0..12u8 {
        let forced = rig.force(&[i]);
        let batch = (i % 3 == 1).then(|| rig.post(&rig.draft().block(true, &[[i]])));
        rig.mine(batch.into_iter().chain([forced]).collect::<Vec<_>>());
    }
    let chain = rig.best_chain();
    for stop in 0..=chain.len() {
        let mut derivation = Derivation::genesis(&rig.manifest, &rig::start_times());
        for (i, raw) in chain.iter().enumerate() {
            if i == stop {
                let bytes = postcard::to_allocvec(&derivation.snapshot()).unwrap();
                derivation = Derivation::from_snapshot(&rig.manifest, postcard::from_bytes(&bytes).unwrap());
            }
            let scanned = crate::envelope::scan_block(raw, None).unwrap();
            let _ = derivation.apply(&scanned.header, &scanned.found).unwrap();
        }
        assert_eq!(derivation, rig.derivation, "stopped after {stop} blocks");
    }
}

#[test]
fn a_snapshot_without_bitcoin_blocks_in_a_row_is_none() {
    let mut rig = Rig::new(Parameters::default());
    rig.mine_to(START_HEIGHT + 3);
    let good = rig.derivation.snapshot();
    let origins = &good.origins;
    let (first, rest) = origins.split_first().unwrap();
    let read = |origins: Vec<Origin>| {
        let bytes = postcard::to_allocvec(&Snapshot { state: good.state.clone(), origins }).unwrap();
        postcard::from_bytes::<Snapshot>(&bytes).ok()
    };
    assert_eq!(read(origins.clone()), Some(good.clone()));
    let backwards = origins.iter().rev().copied().collect();
    for (what, origins) in [
        ("none", Vec::new()),
        ("a gap", [&[*first], &rest[1..]].concat()),
        ("one twice", [&[*first], &origins[..]].concat()),
        ("backwards", backwards),
    ] {
        assert_eq!(read(origins), None, "{what}");
    }
}
