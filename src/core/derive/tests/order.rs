//! Scenarios 1 to 9: what was forced is included, in Bitcoin's order, and touches nothing else.

use super::*;
use crate::envelope::tests::blocks;
use crate::envelope::{Carrier, leaf_script, op_return_script};
use DropReason as R;
use history::{ALICE, BOB, accounts, executed_at, history, outcomes, pay, pay_with_fee, waits};
use rig::START_HEIGHT;

const EMPTY: &[&[u8]] = &[];

fn short() -> Parameters {
    Parameters { window: 4, max_lag: 2, ..Parameters::default() }
}

// Scenario 1, force_single_included.
#[test]
fn a_forced_transaction_is_in_the_honest_sequencers_next_batch() {
    let mut rig = Rig::new(short());
    let step = rig.mine([rig.force(b"forced")]);
    assert_eq!((step.items.len(), step.blocks.len()), (1, 0), "queued, not executed yet");
    let step = rig.mine([rig.post(&rig.draft().adopt(rig.height()).block(false, &[b"own"]))]);
    assert_eq!(shape(&step), [(START_HEIGHT + 1, 0..1, 0), (START_HEIGHT + 1, 1..1, 1)]);
    assert_eq!(waits(&rig), [1]);
}

// Scenario 1, the hostile variant; 4, force_at_exact_deadline.
#[test]
fn a_forced_transaction_is_executed_at_its_deadline_though_every_batch_ignores_it() {
    let mut rig = Rig::new(short());
    for i in 0..12u8 {
        let ignoring = rig.draft().block(false, EMPTY);
        let step = rig.mine([rig.force(&[i]), rig.post(&ignoring)]);
        assert_eq!(verdicts(&step), [Verdict::Accept]);
    }
    assert_eq!(executed_at(&rig, 0), START_HEIGHT + 1 + 4);
    assert_eq!(waits(&rig).into_iter().max(), Some(4));
}

// Scenario 3, force_one_after_another and force_three_at_once.
#[test]
fn items_are_included_as_a_prefix_one_by_one_and_in_bulk() {
    for (max_forced, expected) in [(1, vec![1, 2, 3]), (2, vec![2, 3]), (3, vec![3])] {
        let mut rig = Rig::new(Parameters { max_forced, ..short() });
        rig.mine([0u8, 1, 2].map(|i| rig.force(&[i])));
        let step = rig.mine([rig.post(&rig.draft().block(true, EMPTY).drain())]);
        let ends: Vec<_> = step.blocks.iter().map(|block| block.header.forced_end).collect();
        assert_eq!(ends, expected, "{max_forced} in a block");

        // The hostile variant: it stops after the first block, and everyone goes on where it stopped.
        rig.disconnect(1);
        rig.mine([rig.post(&rig.draft().block(true, EMPTY))]);
        rig.mine_to(START_HEIGHT + 5);
        assert_eq!(waits(&rig).len(), 3, "{max_forced} in a block");
    }
}

// Scenario 4, force_too_early_rejected.
#[test]
fn a_block_before_the_deadline_nothing_is_forced_and_at_the_deadline_everything() {
    for window in [2, 3, 7] {
        let mut rig = Rig::new(Parameters { window, max_lag: 1, ..Parameters::default() });
        let window = BtcHeight::from(window);
        // The sequencer is up to date in the block that holds the item, and silent after it.
        rig.mine([]);
        rig.mine([rig.force(b"item"), rig.post(&rig.draft().adopt(START_HEIGHT + 1))]);
        let deadline = START_HEIGHT + 2 + window;
        assert_eq!(rig.mine_to(deadline - 1).blocks, [], "window {window}");
        assert_eq!(rig.head().forced_end, 0);
        rig.mine([]);
        assert_eq!(executed_at(&rig, 0), deadline, "window {window}");
    }
}

/// Items `0`, `1`, ... in inputs, outputs and lists of two blocks, four in each.
fn busy(rig: &mut Rig) {
    for first in [0u8, 4] {
        let payload = |body| rig.envelope(Carrier::Taproot, body).payload;
        let tx = |i: u8| payload(Body::Tx(vec![first + i]));
        let leaf = |payload: &[u8]| blocks::leaf_witness(leaf_script(payload, &blocks::leaf_key()).as_bytes());
        let list = payload(Body::Txs(vec![vec![first + 1; 64], vec![first + 2; 64]]));
        let inputs =
            vec![blocks::input(first.into(), []), blocks::input(90, leaf(&tx(0))), blocks::input(91, leaf(&list))];
        let outputs = vec![blocks::output(&[0x51]), blocks::output(op_return_script(&tx(3)).as_bytes())];
        rig.mine_whole(rig.next_time(), vec![], vec![blocks::transaction(inputs, outputs)]);
    }
}

// Scenario 5, order_preserved_multi_height_epoch.
#[test]
fn however_a_sequencer_cuts_its_blocks_the_items_are_executed_in_bitcoins_order() {
    type Cut = fn(Draft, BtcHeight) -> Draft;
    let cuts: [(&str, Cut); 5] = [
        ("it stays silent", |draft, _| draft),
        ("one block for each origin", |draft, tip| draft.adopt(tip)),
        ("as many as the backlog needs", |draft, tip| draft.adopt(tip).drain()),
        ("one at a time, with its own between them", |mut draft, tip| {
            while draft.head().header.origin.height < tip {
                draft = draft.block(true, &[b"own"]).drain().block(false, &[b"own"]);
            }
            draft
        }),
        ("one origin and no more", |draft, _| draft.block(true, EMPTY)),
    ];
    for (name, cut) in cuts {
        let mut rig = Rig::new(Parameters { max_forced: 3, max_lag: 4, ..short() });
        busy(&mut rig);
        let draft = cut(rig.draft(), rig.height());
        rig.mine((!draft.blocks.is_empty()).then(|| rig.post(&draft)));
        rig.mine_to(START_HEIGHT + 8);
        assert_eq!(waits(&rig).len(), 8, "{name}");
        let items = history(&rig).into_iter().flat_map(|step| step.items);
        assert_eq!(items.map(|item| item.tx[0]).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7], "{name}");
    }
}

// Scenario 6, forced_before_mempool.
#[test]
fn in_a_block_the_forced_come_before_the_sequencers_own() {
    let mut rig = Rig::new(accounts(short()));
    rig.mine([rig.force(&pay(&rig, ALICE, BOB, 1, 0))]);
    // The sequencer would like its own to be first: both have Alice's nonce 0.
    rig.mine([rig.post(&rig.draft().block(true, &[pay(&rig, ALICE, BOB, 900, 0)]))]);
    assert_eq!(outcomes(&rig), ["ok", "bad_nonce"]);
}

// Scenario 6, the hostile variant: what a sequencer may do in front of an item, and for how long.
#[test]
fn own_transactions_may_go_before_an_item_only_while_the_sequencer_may_lag() {
    for (carrier, verdict, expected) in
        [(102, Verdict::Accept, &["ok", "bad_nonce"][..]), (103, Verdict::Drop(R::StaleOrigin), &["ok"])]
    {
        let mut rig = Rig::new(accounts(Parameters { window: 6, max_lag: 2, ..Parameters::default() }));
        rig.mine([rig.force(&pay(&rig, BOB, ALICE, 9, 0))]);
        // At the origin below the item's: Bob's other transaction, which he sent to the sequencer.
        let in_front = rig.draft().block(false, &[pay(&rig, BOB, ALICE, 5, 0)]);
        if rig.height() < carrier - 1 {
            rig.mine_to(carrier - 1);
        }
        assert_eq!(verdicts(&rig.mine([rig.post(&in_front)])), [verdict], "in block {carrier}");
        rig.mine_to(START_HEIGHT + 8);
        assert_eq!(outcomes(&rig), expected, "in block {carrier}");
    }
}

// Scenario 7, force_does_not_touch_seq_counter.
#[test]
fn forcing_changes_no_number_that_the_sequencer_counts_by() {
    let mut rig = Rig::new(Parameters { window: 10, ..Parameters::default() });
    let before = (rig.head(), rig.derivation.handovers());
    let in_flight = rig.draft().block(false, &[b"signed before the flood"]);
    let flood = |rig: &Rig| (0..100u8).map(|i| rig.force(&[i])).collect::<Vec<_>>();
    rig.mine(flood(&rig));
    assert_eq!((rig.head(), rig.derivation.handovers()), before);
    // The hostile variant: more of it in front of the batch, in its own block.
    let envelopes = [flood(&rig), vec![rig.post(&in_flight)], flood(&rig)].concat();
    let step = rig.mine(envelopes);
    assert_eq!((verdicts(&step), &step.blocks[..]), (vec![Verdict::Accept], in_flight.expected()));
    assert_eq!((rig.head().number, rig.head().forced_end), (1, 0));
}

// Scenario 8, underpriced_ok_when_forced: a sequencer would not take it, for its fee or for its sender.
#[test]
fn a_transaction_that_pays_the_sequencer_nothing_is_executed_when_forced() {
    let mut rig = Rig::new(accounts(short()));
    let free = pay_with_fee(&rig, (ALICE, BOB), (7, 0), 0);
    rig.mine([rig.force(&free)]);
    rig.mine_to(START_HEIGHT + 5);
    assert_eq!(outcomes(&rig), ["ok"]);
}

// Scenario 9, second_party_can_force and payer_not_signer.
#[test]
fn it_does_not_matter_who_pays_bitcoin_for_a_signed_transaction() {
    for carrier in [Carrier::OpReturn, Carrier::Taproot] {
        let mut rig = Rig::new(accounts(short()));
        let (first, second) = (pay(&rig, ALICE, BOB, 1, 0), pay(&rig, ALICE, BOB, 2, 1));
        // Every envelope of the rig is paid with another coin; Bob sends Alice's, with one of his own behind.
        let list = Body::Txs(vec![second.clone(), pay(&rig, BOB, ALICE, 3, 0)]);
        rig.mine([rig.envelope(carrier, Body::Tx(first.clone())), rig.envelope(carrier, list)]);
        // The hostile variant: a stranger forces what was executed already, and what Alice never signed.
        let mut forged = pay(&rig, ALICE, BOB, 4, 2);
        forged[70] ^= 1;
        rig.mine([first, second, forged].map(|tx| rig.envelope(carrier, Body::Tx(tx))));
        rig.mine_to(START_HEIGHT + 8);
        assert_eq!(outcomes(&rig), ["ok", "ok", "ok", "bad_nonce", "bad_nonce", "bad_signature"]);
    }
}
