//! `tests/vectors/ledger.json`: transactions one after the other, with outcomes and state roots.

use super::*;
use crate::envelope::tests::vector_file::{Hex, cases};
use alloc::string::String;
use serde::{Deserialize, Serialize};

const CAROL: u8 = 4;
const POOR: u8 = 5;

#[derive(Serialize, Deserialize)]
struct Case {
    name: String,
    rollup_id: RollupId,
    parameters: Hex,
    genesis_state_root: Hash32,
    steps: Vec<Step>,
}

#[derive(Serialize, Deserialize)]
struct Step {
    tx: Hex,
    forced: bool,
    outcome: String,
    state_root: Hash32,
}

/// A transaction, its route, and what is promised of it.
type Promise = (Vec<u8>, Route, Result<(), NoOpReason>);

fn own(tx: Vec<u8>) -> Promise {
    (tx, Route::Own, Ok(()))
}

fn forced(tx: Vec<u8>) -> Promise {
    (tx, Route::Forced, Ok(()))
}

fn fails((tx, route, _): Promise, reason: NoOpReason) -> Promise {
    (tx, route, Err(reason))
}

fn changed(mut tx: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    tx[at] = byte;
    tx
}

/// Signed by another than `from`.
fn forged(by: u8, transfer: &Transfer) -> Vec<u8> {
    transfer.sign(&SECP, &ROLLUP, &keypair(by))
}

fn rich() -> LedgerParameters {
    parameters(&[(ALICE, 1000), (BOB, 500), (FEES, 20)])
}

fn hostile() -> Vec<(&'static str, LedgerParameters, Vec<Promise>)> {
    use NoOpReason as R;
    let sound = || signed(ALICE, BOB, 10, 1, 0);
    let off_the_curve = Transfer { from: [0; 32], ..transfer(ALICE, BOB, 10, 1, 0) };
    let other_rollup = transfer(ALICE, BOB, 10, 1, 0).sign(&SECP, &RollupId([0x5b; 32]), &keypair(ALICE));
    let same_namespace = {
        let mut id = ROLLUP;
        id.0[31] ^= 1;
        transfer(ALICE, BOB, 10, 1, 0).sign(&SECP, &id, &keypair(ALICE))
    };
    let unpaid = LedgerParameters { forced_cost_per_byte: 0, ..rich() };
    vec![
        (
            "what_is_no_transfer_is_malformed",
            rich(),
            vec![
                fails(forced(vec![1]), R::Malformed),
                fails(own(vec![0xee; 64]), R::Malformed),
                fails(forced(sound()[..152].to_vec()), R::Malformed),
                fails(own([sound(), vec![0]].concat()), R::Malformed),
                fails(own(changed(sound(), 0, 0)), R::Malformed),
                fails(forced(changed(sound(), 0, 2)), R::Malformed),
                own(sound()),
            ],
        ),
        (
            "a_price_of_0_leaves_every_forced_transfer_unpaid",
            unpaid,
            vec![
                fails(forced(sound()), R::UnpaidCost),
                fails(forced(vec![1; 153]), R::UnpaidCost),
                fails(forced(vec![2; 153]), R::Malformed),
                own(sound()),
                fails(forced(sound()), R::UnpaidCost),
            ],
        ),
        (
            "a_sender_must_be_a_point",
            rich(),
            vec![
                fails(own(forged(ALICE, &off_the_curve)), R::BadKey),
                fails(forced(forged(ALICE, &Transfer { from: [0xff; 32], ..off_the_curve })), R::BadKey),
                fails(own(forged(ALICE, &Transfer { nonce: 7, ..off_the_curve })), R::BadKey),
            ],
        ),
        (
            "only_the_sender_signs_and_only_for_this_rollup",
            rich(),
            vec![
                fails(own(forged(BOB, &transfer(ALICE, BOB, 10, 1, 0))), R::BadSignature),
                fails(forced(other_rollup), R::BadSignature),
                fails(forced(same_namespace), R::BadSignature),
                fails(own(changed(sound(), 65, 11)), R::BadSignature),
                fails(own([&sound()[..89], &[0xff; 64]].concat()), R::BadSignature),
                fails(own([&sound()[..89], &[0; 64]].concat()), R::BadSignature),
                fails(own(forged(BOB, &transfer(ALICE, BOB, 5000, 1, 7))), R::BadSignature),
                forced(sound()),
            ],
        ),
        (
            "a_nonce_is_used_once_and_in_order",
            rich(),
            vec![
                fails(own(signed(ALICE, BOB, 10, 1, 1)), R::BadNonce),
                fails(own(signed(ALICE, BOB, 10, 1, u64::MAX)), R::BadNonce),
                own(sound()),
                fails(own(sound()), R::BadNonce),
                fails(forced(sound()), R::BadNonce),
                fails(own(signed(ALICE, BOB, 5000, 1, 0)), R::BadNonce),
                forced(signed(ALICE, BOB, 10, 1, 1)),
                fails(forced(signed(ALICE, BOB, 10, 1, 1)), R::BadNonce),
            ],
        ),
        (
            "nobody_spends_more_than_there_is",
            rich(),
            vec![
                fails(own(signed(ALICE, BOB, 1001, 0, 0)), R::InsufficientBalance),
                fails(own(signed(ALICE, BOB, 1000, 1, 0)), R::InsufficientBalance),
                fails(own(signed(ALICE, BOB, 0, 1001, 0)), R::InsufficientBalance),
                fails(forced(signed(ALICE, BOB, u64::MAX, 1, 0)), R::InsufficientBalance),
                fails(forced(signed(ALICE, BOB, u64::MAX, u64::MAX, 0)), R::InsufficientBalance),
                fails(own(signed(POOR, BOB, 1, 0, 0)), R::InsufficientBalance),
                fails(own(signed(ALICE, ALICE, 1001, 0, 0)), R::InsufficientBalance),
                own(signed(ALICE, BOB, 999, 1, 0)),
                fails(own(signed(ALICE, BOB, 1, 0, 1)), R::InsufficientBalance),
            ],
        ),
        (
            "a_failed_transfer_succeeds_once_there_is_money",
            rich(),
            vec![
                fails(forced(signed(POOR, CAROL, 5, 1, 0)), R::InsufficientBalance),
                own(signed(ALICE, POOR, 6, 0, 0)),
                forced(signed(POOR, CAROL, 5, 1, 0)),
                fails(forced(signed(POOR, CAROL, 5, 1, 0)), R::BadNonce),
            ],
        ),
        (
            "a_failure_does_not_disturb_its_neighbours",
            rich(),
            vec![
                forced(sound()),
                fails(forced(vec![0xba, 0xd1]), R::Malformed),
                forced(signed(ALICE, BOB, 10, 1, 1)),
                fails(forced(forged(BOB, &transfer(ALICE, BOB, 10, 1, 2))), R::BadSignature),
                forced(signed(ALICE, BOB, 10, 1, 2)),
                forced(signed(BOB, ALICE, 530, 0, 0)),
            ],
        ),
    ]
}

fn sound() -> Vec<(&'static str, LedgerParameters, Vec<Promise>)> {
    let keyless = Transfer { to: [0; 32], ..transfer(ALICE, BOB, 10, 1, 0) };
    let no_accounts = parameters(&[]);
    let empty_account = parameters(&[(ALICE, 1000), (BOB, 0)]);
    let all_there_is = parameters(&[(ALICE, u64::MAX - 1), (BOB, 1)]);
    vec![
        ("without_accounts_the_state_is_empty", no_accounts, vec![own(signed(POOR, POOR, 0, 0, 0))]),
        ("an_empty_account_is_not_in_the_root", empty_account, vec![own(signed(ALICE, BOB, 0, 0, 0))]),
        (
            "a_spent_account_keeps_its_nonce",
            rich(),
            vec![own(signed(BOB, CAROL, 500, 0, 0)), own(signed(CAROL, BOB, 500, 0, 0))],
        ),
        (
            "a_transfer_to_oneself_costs_the_fee",
            rich(),
            vec![own(signed(ALICE, ALICE, 999, 1, 0)), forced(signed(ALICE, ALICE, 0, 0, 1))],
        ),
        ("a_transfer_to_the_fee_account_adds_both", rich(), vec![own(signed(ALICE, FEES, 30, 3, 0))]),
        (
            "the_fee_account_pays_itself",
            rich(),
            vec![own(signed(FEES, BOB, 5, 2, 0)), forced(signed(FEES, FEES, 10, 5, 1))],
        ),
        ("an_account_need_not_be_a_point", rich(), vec![own(forged(ALICE, &keyless))]),
        (
            "the_largest_amount",
            all_there_is,
            vec![own(signed(ALICE, BOB, u64::MAX - 2, 1, 0)), own(signed(BOB, FEES, u64::MAX - 1, 0, 0))],
        ),
        (
            "own_and_forced_take_turns",
            rich(),
            vec![
                own(signed(ALICE, CAROL, 1, 1, 0)),
                forced(signed(ALICE, CAROL, 2, 0, 1)),
                own(signed(CAROL, BOB, 3, 0, 0)),
                forced(signed(BOB, ALICE, 503, 0, 0)),
            ],
        ),
    ]
}

fn generate() -> Vec<Case> {
    let cases = hostile().into_iter().chain(sound());
    let case = |(name, parameters, promises): (&str, LedgerParameters, Vec<Promise>)| {
        let ledger = Ledger::new(ROLLUP, parameters.clone());
        let mut state = ledger.genesis();
        let genesis_state_root = ledger.state_root(&state);
        let steps = promises.into_iter().map(|(tx, route, promise)| {
            let outcome = execute(&ledger, &mut state, &tx, route);
            assert_eq!(outcome, promise.map_or_else(Outcome::NoOp, |()| Outcome::Ok), "{name}");
            let state_root = ledger.state_root(&state);
            Step { tx: Hex(tx), forced: route == Route::Forced, outcome: outcome_name(outcome).into(), state_root }
        });
        let steps = steps.collect();
        Case { name: name.into(), rollup_id: ROLLUP, parameters: Hex(parameters.encode()), genesis_state_root, steps }
    };
    cases.map(case).collect()
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::NoOp(reason) => reason.name(),
    }
}

#[test]
fn every_transfer_has_the_outcome_that_its_case_promises() {
    let cases = generate();
    for reason in ["malformed", "unpaid_cost", "bad_key", "bad_signature", "bad_nonce", "insufficient_balance"] {
        assert!(cases.iter().flat_map(|case| &case.steps).any(|step| step.outcome == reason), "{reason}");
    }
}

#[test]
fn the_vectors_hold() {
    for case in cases("ledger.json", generate) {
        let ledger = Ledger::new(case.rollup_id, LedgerParameters::decode(&case.parameters.0).unwrap());
        let mut state = ledger.genesis();
        assert_eq!(ledger.state_root(&state), case.genesis_state_root, "{}", case.name);
        for (i, step) in case.steps.iter().enumerate() {
            let route = if step.forced { Route::Forced } else { Route::Own };
            let outcome = execute(&ledger, &mut state, &step.tx.0, route);
            assert_eq!(outcome_name(outcome), step.outcome, "{}, step {i}", case.name);
            assert_eq!(ledger.state_root(&state), step.state_root, "{}, step {i}", case.name);
        }
    }
}
