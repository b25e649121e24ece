//! Scenarios 33 to 39: what cannot succeed is included all the same, with its reason, and harms nobody.

use super::*;
use crate::envelope::Carrier;
use history::{ALICE, BOB, accounts, outcomes, pay, waits};
use rig::START_HEIGHT;

fn short() -> Parameters {
    Parameters { window: 3, max_lag: 2, ..Parameters::default() }
}

/// Transactions that fail, by their reason.
fn failing(rig: &Rig) -> [(Vec<u8>, &'static str); 7] {
    let mut unsigned = pay(rig, ALICE, BOB, 1, 0);
    unsigned[152] ^= 1;
    let mut no_key = pay(rig, ALICE, BOB, 1, 0);
    no_key[1..33].fill(0xff);
    [
        (b"gibberish".to_vec(), "malformed"),
        (vec![1], "malformed"),
        ([&pay(rig, ALICE, BOB, 1, 0)[..], &[0]].concat(), "malformed"),
        (unsigned, "bad_signature"),
        (no_key, "bad_key"),
        (pay(rig, ALICE, BOB, 1, 99), "bad_nonce"),
        (pay(rig, BOB, ALICE, 10, 0), "insufficient_balance"),
    ]
}

// Scenarios 34, bad_nonce, bad_balance, bad_signature; 33, gibberish, truncated, trailing_padding.
#[test]
fn each_failing_item_is_a_no_op_with_its_reason_and_its_neighbours_are_not() {
    let mut rig = Rig::new(accounts(short()));
    let mut expected = Vec::new();
    for (nonce, (tx, reason)) in failing(&rig).into_iter().enumerate() {
        let good = pay(&rig, ALICE, BOB, 0, nonce as u64);
        rig.mine([rig.force(&tx), rig.force(&good), rig.force(&tx)]);
        expected.extend([reason, "ok", reason]);
    }
    rig.mine_to(START_HEIGHT + 14);
    assert_eq!(outcomes(&rig), expected);
}

// Scenario 35, failing_not_blamed_on_neighbour.
#[test]
fn an_outcome_does_not_depend_on_where_in_the_block_its_transaction_stands() {
    let bad = |rig: &Rig| failing(rig)[3].0.clone();
    let good = |rig: &Rig| pay(rig, ALICE, BOB, 1, 0);
    // At the front, in the middle, at the end; alone in its block; two of them in two blocks.
    let table: [(&[&[bool]], &[&str]); 5] = [
        (&[&[false, true, false]], &["bad_signature", "ok", "bad_signature"]),
        (&[&[true, false]], &["ok", "bad_signature"]),
        (&[&[false], &[true]], &["bad_signature", "ok"]),
        (&[&[false], &[false, true]], &["bad_signature", "bad_signature", "ok"]),
        (&[&[true], &[false], &[false]], &["ok", "bad_signature", "bad_signature"]),
    ];
    for max_forced in [1, 2, 100] {
        for (blocks, expected) in table {
            let mut rig = Rig::new(accounts(Parameters { max_forced, ..short() }));
            for block in blocks {
                let txs = block.iter().map(|is_good| if *is_good { good(&rig) } else { bad(&rig) });
                rig.mine(txs.map(|tx| rig.force(&tx)).collect::<Vec<_>>());
            }
            rig.mine_to(START_HEIGHT + 9);
            assert_eq!(outcomes(&rig), expected, "{blocks:?}, {max_forced} in a block");
        }
    }
}

// Scenario 37, one_bad_item_does_not_kill_batch.
#[test]
fn garbage_among_a_batchs_own_transactions_costs_the_batch_nothing() {
    let mut rig = Rig::new(accounts(short()));
    let bad = failing(&rig).map(|(tx, _)| tx);
    let own = [&bad[..], &[pay(&rig, ALICE, BOB, 1, 0)], &bad].concat();
    rig.mine([rig.force(&bad[0]), rig.force(&pay(&rig, BOB, ALICE, 1, 0))]);
    let batch = rig.draft().block(true, &own).block(false, &bad);
    let step = rig.mine([rig.post(&batch)]);
    assert_eq!((verdicts(&step), &step.blocks[..]), (vec![Verdict::Accept], batch.expected()));
    let outcomes = outcomes(&rig);
    assert_eq!((outcomes.len(), &outcomes[0][..], &outcomes[1][..]), (2 + 15 + 7, "malformed", "ok"));
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "ok").count(), 2);
}

// Scenario 38, exact_duplicate_payload_twice, same_tx_sequenced_and_forced, replay_of_executed_tx.
#[test]
fn a_transaction_has_effect_once_however_often_and_by_whatever_way_it_comes() {
    for carrier in [Carrier::OpReturn, Carrier::Taproot] {
        let mut rig = Rig::new(accounts(short()));
        let tx = pay(&rig, ALICE, BOB, 5, 0);
        // Sequenced first, at the origin below the items.
        let sequenced = rig.draft().block(false, &[tx.clone(), tx.clone()]);
        let shared = rig.envelope(carrier, Body::Txs(vec![tx.clone(), tx.clone()]));
        rig.mine([rig.envelope(carrier, Body::Tx(tx.clone())), rig.post(&sequenced), shared]);
        rig.mine_to(START_HEIGHT + 6);
        // And once more, long after it was executed.
        rig.mine([rig.envelope(carrier, Body::Tx(tx))]);
        rig.mine_to(START_HEIGHT + 12);
        assert_eq!(outcomes(&rig), ["ok", "bad_nonce", "bad_nonce", "bad_nonce", "bad_nonce", "bad_nonce"]);
    }
}

// Scenario 39, invalid_filtered_not_counted_as_censorship.
#[test]
fn an_item_that_can_never_succeed_is_executed_in_its_turn_and_delays_nobody() {
    let [with, without] = [true, false].map(|garbage| {
        let mut rig = Rig::new(accounts(short()));
        for i in 0..10u64 {
            let noise = if garbage { failing(&rig).map(|(tx, _)| rig.force(&tx)).to_vec() } else { Vec::new() };
            let good = rig.force(&pay(&rig, ALICE, BOB, 0, i));
            rig.mine(noise.into_iter().chain([good]).collect::<Vec<_>>());
        }
        rig.mine_to(START_HEIGHT + 14);
        let all = if garbage { 8 } else { 1 };
        let good = waits(&rig).into_iter().skip(all - 1).step_by(all);
        (good.collect::<Vec<_>>(), outcomes(&rig).iter().filter(|outcome| *outcome == "ok").count())
    });
    assert_eq!(with, without, "the same waits, the same effects");
    assert_eq!(with.1, 10);
}
