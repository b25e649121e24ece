//! A sequencer that is dead, slow or hostile: what everyone derives without it, and when.

use super::*;
use DropReason as R;
use rig::START_HEIGHT;

const EMPTY: &[&[u8]] = &[];

#[test]
fn without_a_sequencer_an_item_is_executed_when_its_window_closes_and_not_before() {
    for window in [2, 3, 4, 5, 10, 36] {
        let mut rig = Rig::new(Parameters { window, max_lag: 1, ..Parameters::default() });
        let window = u32::from(window);
        rig.mine([rig.force(b"forced")]);
        let deadline = START_HEIGHT + 1 + window;
        while rig.height() < deadline - 1 {
            assert!(rig.mine([]).blocks.is_empty(), "window {window}: too early, at {}", rig.height());
        }
        // The origin jumps to half a window below the tip, one empty block for each Bitcoin block.
        let step = rig.mine([]);
        let origins = START_HEIGHT + 1..=deadline - window / 2;
        let forced = |origin| if origin == START_HEIGHT + 1 { 0..1 } else { 1..1 };
        assert_eq!(
            shape(&step),
            origins.map(|origin| (origin, forced(origin), 0)).collect::<Vec<_>>(),
            "window {window}"
        );
        for (block, above) in step.blocks.iter().skip(1).zip(&step.blocks) {
            let origin = rig.derivation.origin(block.header.origin.height);
            assert_eq!(Some(block.header.timestamp), origin.map(|origin| above.header.child_lower_bound(origin)));
        }
        // Then the head stands still until the next origin is a window old.
        let next = rig.head().origin.height + 1 + window;
        while rig.height() < next - 1 {
            assert!(rig.mine([]).blocks.is_empty(), "window {window}: the head moves at {}", rig.height());
        }
        assert!(!rig.mine([]).blocks.is_empty(), "window {window}: the head stands still too long");
    }
}

#[test]
fn from_genesis_on_without_any_sequencer_the_chain_goes_on_for_ever() {
    let mut rig = Rig::new(Parameters { window: 4, ..Parameters::default() });
    let mut heads = Vec::new();
    for i in 0..20u8 {
        rig.mine([rig.force(&[i])]);
        heads.push((rig.head().origin.height - START_HEIGHT, rig.head().forced_end));
    }
    // From 105 on in steps of three: half a window, rounded up, and one.
    let expected = [(4, 0), (3, 3), (3, 6), (3, 9), (3, 12), (3, 15), (1, 18)];
    let expected =
        expected.into_iter().flat_map(|(times, origin)| core::iter::repeat_n((origin, u64::from(origin)), times));
    assert_eq!(heads, expected.collect::<Vec<_>>());
}

#[test]
fn a_due_item_is_executed_even_if_the_origin_is_recent() {
    let mut rig = Rig::new(Parameters { window: 4, max_forced: 1, ..Parameters::default() });
    rig.mine((0..3u8).map(|i| rig.force(&[i])).collect::<Vec<_>>());
    // The sequencer adopts the items' block, takes one of them, and no more.
    let step = rig.mine([rig.post(&rig.draft().block(true, EMPTY))]);
    assert_eq!(shape(&step), [(101, 0..1, 0)]);
    assert_eq!(shape(&rig.mine_to(104)), []);
    // 101 + 1 + 4 > 105: no origin is overdue, but the items are due.
    let step = rig.mine([]);
    assert_eq!(shape(&step), [(101, 1..2, 0), (101, 2..3, 0), (102, 3..3, 0), (103, 3..3, 0)]);
}

#[test]
fn a_flood_in_front_of_an_item_does_not_delay_it() {
    for max_forced in [1, 2, 7] {
        let mut rig = Rig::new(Parameters { window: 3, max_forced, ..Parameters::default() });
        let flood = |rig: &Rig| (0..20u8).map(|i| rig.force(&[i])).collect::<Vec<_>>();
        rig.mine(flood(&rig));
        rig.mine([flood(&rig), vec![rig.force(b"victim")], flood(&rig)].concat());
        let victim = 40;
        rig.mine_to(104);
        let step = rig.mine([]);
        let executed = rig.head().forced_end;
        assert!(executed > victim, "due at 105, executed up to {executed}");
        assert!(step.blocks.iter().all(|block| block.own_txs.is_empty()));
    }
}

#[test]
fn a_batch_in_the_block_of_the_deadline_is_in_time_if_it_does_enough() {
    let deadline = |max_forced| {
        let mut rig = Rig::new(Parameters { window: 4, max_forced, ..Parameters::default() });
        rig.mine((0..3u8).map(|i| rig.force(&[i])).collect::<Vec<_>>());
        rig.mine_to(START_HEIGHT + 4);
        rig
    };
    let mut rig = deadline(3);
    let step = rig.mine([rig.post(&rig.draft().block(true, EMPTY))]);
    assert_eq!((verdicts(&step), shape(&step)), (vec![Verdict::Accept], vec![(101, 0..3, 0)]));

    // One that takes two of three due items stands, and everyone goes on from it.
    let mut rig = deadline(2);
    let step = rig.mine([rig.post(&rig.draft().block(true, EMPTY))]);
    assert_eq!(verdicts(&step), [Verdict::Accept]);
    assert_eq!(shape(&step), [(101, 0..2, 0), (101, 2..3, 0), (102, 3..3, 0), (103, 3..3, 0)]);

    // One that adopts nothing does not help.
    let mut rig = deadline(3);
    let step = rig.mine([rig.post(&rig.draft().block(false, EMPTY))]);
    assert_eq!(verdicts(&step), [Verdict::Accept]);
    assert_eq!(shape(&step), [(100, 0..0, 0), (101, 0..3, 0), (102, 3..3, 0), (103, 3..3, 0)]);
}

#[test]
fn a_returning_sequencer_has_half_a_window_to_build_on_the_head() {
    let mut rig = Rig::new(Parameters { window: 10, max_lag: 10, ..Parameters::default() });
    let before_silence = rig.draft().block(false, &[b"never posted in time"]);
    rig.mine_to(START_HEIGHT + 11);
    assert_eq!(rig.head().origin.height, START_HEIGHT + 6);
    let draft = rig.draft().block(true, &[b"back"]);
    // What was signed before the silence is void, and says so each time it is posted.
    let step = rig.mine([rig.post(&before_silence)]);
    assert_eq!((verdicts(&step), step.blocks.len()), (vec![Verdict::Drop(R::Replay)], 0));
    rig.mine_to(START_HEIGHT + 15);
    for wait in [0, 1] {
        if wait == 1 {
            rig.mine([]);
        }
        let step = rig.mine([rig.post(&draft)]);
        assert_eq!(verdicts(&step), [Verdict::Accept], "posted in block {}", rig.height());
        rig.disconnect(1);
    }
    // 106 + 1 + 10 = 117: from there on the chain has gone on without it.
    rig.mine([]);
    let step = rig.mine([rig.post(&draft)]);
    assert_eq!((rig.height(), verdicts(&step)), (START_HEIGHT + 18, vec![Verdict::Drop(R::Replay)]));
}

#[test]
fn an_honest_sequencer_leaves_nothing_to_derive_without_it() {
    let mut rig = Rig::new(Parameters { window: 4, max_lag: 2, ..Parameters::default() });
    for i in 0..20u8 {
        let batch = rig.draft().adopt(rig.height()).block(false, &[[i]]);
        let step = rig.mine([rig.force(&[i]), rig.post(&batch)]);
        assert_eq!((verdicts(&step), &step.blocks[..]), (vec![Verdict::Accept], batch.expected()));
        assert_eq!(rig.head().forced_end, u64::from(i), "every item of the block below");
    }
}

#[test]
fn a_sequencer_that_never_adopts_an_origin_cannot_stop_the_queue() {
    let mut rig = Rig::new(Parameters { window: 4, max_lag: 4, ..Parameters::default() });
    for i in 0..20u32 {
        // Posts in every Bitcoin block, always at the origin it has.
        let batch = rig.draft().block(false, EMPTY);
        let step = rig.mine([rig.force(b"forced"), rig.post(&batch)]);
        assert_eq!(verdicts(&step), [Verdict::Accept]);
        assert!(rig.head().forced_end >= u64::from(i.saturating_sub(3)));
    }
}
