//! Scenarios 10 to 17: a sequencer that leaves out, cuts, reorders or postpones what was forced.

use super::*;
use crate::envelope::Carrier;
use crate::l2::L2Header;
use DropReason as R;
use history::{executed_at, history, waits};
use rig::START_HEIGHT;

const EMPTY: &[&[u8]] = &[];
const WINDOW: u16 = 6;

/// What a sequencer would like its block to have been.
type Lie = fn(&mut L2Header);

/// Items 0, 1, 2 in block 101; 3, 4 in block 102.
fn rig() -> Rig {
    let mut rig = Rig::new(Parameters { window: WINDOW, max_lag: 4, ..Parameters::default() });
    rig.mine([0u8, 1, 2].map(|i| rig.force(&[i])));
    rig.mine([3u8, 4].map(|i| rig.force(&[i])));
    rig
}

/// A batch that goes on from the last block of `told` as the sequencer would like it to have been.
fn on_the_lie(rig: &Rig, told: &Draft, lie: Lie) -> Draft {
    let mut header = told.head().header;
    lie(&mut header);
    let mut next = told.next().block(false, EMPTY);
    next.terms.parent = header.hash(&rig.manifest.rollup_id());
    assert_ne!(header, told.head().header, "no lie");
    next
}

// Scenarios 10, censor_never_included; 11, censor_partial; 12, censor_second_epoch_only; 13, reorder_forced;
// 17, filter_cannot_censor.
#[test]
fn a_chain_that_leaves_out_cuts_or_reorders_items_is_nobodys_chain() {
    let lies: [(&str, Lie); 9] = [
        ("nothing was ever forced", |header| (header.forced_end, header.queue_size) = (0, 0)),
        ("it was forced and not executed", |header| header.forced_end = 0),
        ("two of three", |header| header.forced_end = 2),
        ("the first block's and not the second's", |header| header.forced_end = 3),
        ("all but the last", |header| header.forced_end -= 1),
        ("one more than there is", |header| header.forced_end += 1),
        ("the same in another order", |header| header.queue_root.0.rotate_left(1)),
        ("a shorter queue", |header| header.queue_size -= 1),
        ("an older origin", |header| header.origin.height -= 1),
    ];
    for (name, lie) in lies {
        let mut rig = rig();
        let told = rig.draft().adopt(START_HEIGHT + 2);
        let next = on_the_lie(&rig, &told, lie);
        let step = rig.mine([rig.post(&told), rig.post(&next)]);
        // There is no field for what it executes: its first batch means what everyone derives from it.
        assert_eq!(verdicts(&step), [Verdict::Accept, Verdict::Drop(R::WrongParent)], "{name}");
        assert_eq!(step.blocks, told.expected(), "{name}");
        assert_eq!(waits(&rig), [2, 2, 2, 1, 1], "{name}");
    }
}

// Scenario 13, skip_then_include_later: the first item comes back behind the second, on the sequencer's chain.
#[test]
fn an_item_that_was_skipped_cannot_be_put_behind_another_later() {
    let mut rig = rig();
    let told = rig.draft().block(true, EMPTY);
    let skipped = on_the_lie(&rig, &told, |header| header.forced_end = 2);
    let included = on_the_lie(&rig, &skipped, |header| header.txs_root.0[0] ^= 1);
    let step = rig.mine([&told, &skipped, &included].map(|draft| rig.post(draft)));
    let expected = [Verdict::Accept, Verdict::Drop(R::WrongParent), Verdict::Drop(R::WrongNumber)];
    assert_eq!(verdicts(&step), expected);
    rig.mine_to(START_HEIGHT + 10);
    assert_eq!(waits(&rig).len(), 5, "in order, whatever it said");
}

// Scenarios 10 and 17, without any batch that counts: the deny list has the last word nowhere.
#[test]
fn a_sequencer_that_would_rather_post_nothing_that_counts_delays_an_item_by_the_window_and_no_more() {
    let mut rig = rig();
    while rig.height() < START_HEIGHT + 12 {
        let told = rig.draft().block(false, EMPTY);
        let lie = on_the_lie(&rig, &told, |header| header.forced_end += 1);
        rig.mine([rig.post(&lie)]);
    }
    assert_eq!(executed_at(&rig, 0), START_HEIGHT + 1 + u32::from(WINDOW));
    assert_eq!(waits(&rig).len(), 5);
}

// Scenario 14, within_grace_ok, smoothing_across_blocks and grace_capped.
#[test]
fn a_late_sequencer_is_tolerated_up_to_the_window_for_each_item_and_never_beyond() {
    for lateness in 1..=8u32 {
        let mut rig = Rig::new(Parameters { window: WINDOW, max_lag: WINDOW, ..Parameters::default() });
        for i in 0..40u8 {
            // It adopts everything that it has seen, but only in every so many blocks, and always a bit late.
            let late = rig.height().saturating_sub(lateness / 2);
            let due = rig.height().is_multiple_of(lateness) && late > rig.head().origin.height;
            let batch = due.then(|| rig.post(&rig.draft().adopt(late)));
            let step = rig.mine(batch.into_iter().chain([rig.force(&[i])]).collect::<Vec<_>>());
            assert!(verdicts(&step).iter().all(|verdict| *verdict == Verdict::Accept), "late is legal");
        }
        let longest = waits(&rig).into_iter().max().unwrap();
        let expected = (lateness + lateness / 2).min(WINDOW.into());
        assert_eq!(longest, expected, "lateness {lateness}");
    }
}

// Scenario 15: there is no delay buffer to deplete or replenish. What is left of it:
#[test]
fn a_sequencers_past_neither_shortens_nor_lengthens_an_items_window() {
    type Past = fn(&mut Rig);
    let pasts: [(&str, Past); 4] = [
        ("none", |_| ()),
        ("silence", |rig| drop(rig.mine_to(START_HEIGHT + 30))),
        ("junk", |rig| {
            for _ in 0..30 {
                let mut junk = rig.draft().block(false, EMPTY);
                junk.tail.push(0);
                rig.mine([rig.post(&junk)]);
            }
        }),
        ("an honest one", |rig| {
            for _ in 0..30 {
                rig.mine([rig.post(&rig.draft().adopt(rig.height()).block(false, EMPTY))]);
            }
        }),
    ];
    for (name, past) in pasts {
        let mut rig = Rig::new(Parameters { window: WINDOW, max_lag: WINDOW, ..Parameters::default() });
        past(&mut rig);
        // Up to date in the item's block, and never again.
        rig.mine([]);
        rig.mine([rig.post(&rig.draft().adopt(rig.height())), rig.force(b"item")]);
        let at = rig.height();
        rig.mine_to(at + 2 * u32::from(WINDOW));
        assert_eq!(executed_at(&rig, 0), at + u32::from(WINDOW), "{name}");
    }
}

// Scenario 16, forced_type_in_batch_dropped.
#[test]
fn what_looks_like_an_item_in_a_batch_is_an_own_transaction() {
    let mut rig = Rig::new(Parameters { window: WINDOW, ..Parameters::default() });
    let item = rig.force(b"an item");
    rig.mine([item.clone()]);
    // Its bytes, and its whole envelope, as own transactions; neither carrier shows a second item.
    let forger = rig.draft().block(true, &[b"an item".to_vec(), item.payload.clone()]);
    for carrier in [Carrier::OpReturn, Carrier::Taproot] {
        let step = rig.mine([rig.envelope(carrier, Body::Batch(forger.body()))]);
        assert_eq!((verdicts(&step), step.items.len()), (vec![Verdict::Accept], 0));
        assert_eq!(shape(&step), [(START_HEIGHT + 1, 0..1, 2)]);
        rig.disconnect(1);
    }
    // Nor does the envelope of an item make a batch, or the other way round.
    let swapped = [Body::Batch(item.payload), Body::Tx(forger.body())];
    let step = rig.mine(swapped.map(|body| rig.envelope(Carrier::OpReturn, body)));
    assert_eq!(verdicts(&step), [Verdict::Drop(R::Malformed)]);
    let forced: Vec<_> = history(&rig).into_iter().flat_map(|step| step.items).map(|item| item.tx).collect();
    assert_eq!(forced, [b"an item".to_vec(), forger.body()], "bytes of a batch, forced, are a transaction");
}
