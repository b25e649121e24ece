//! What the ledger promises: no failure has an effect, no undo leaves a trace, no satoshi is made.

mod vectors;

use super::*;
use crate::executor::{Outcome, execute, of_manifest};
use crate::manifest::tests::signers::{SECP, keypair, public_key};
use crate::manifest::tests::sound_manifest;
use alloc::vec;
use proptest::collection::vec as list;
use proptest::prelude::*;

const ROLLUP: RollupId = RollupId([0x5a; 32]);

/// Named by the byte that the secret is made of.
const ALICE: u8 = 1;
const BOB: u8 = 2;
const FEES: u8 = 3;

fn transfer(from: u8, to: u8, amount: u64, fee: u64, nonce: u64) -> Transfer {
    Transfer { from: public_key(from), to: public_key(to), amount, fee, nonce }
}

/// Signed by the secret behind `from`, for `ROLLUP`.
fn signed(from: u8, to: u8, amount: u64, fee: u64, nonce: u64) -> Vec<u8> {
    transfer(from, to, amount, fee, nonce).sign(&SECP, &ROLLUP, &keypair(from))
}

fn parameters(balances: &[(u8, u64)]) -> LedgerParameters {
    let mut accounts: Vec<_> = balances.iter().map(|(name, balance)| (public_key(*name), *balance)).collect();
    accounts.sort_unstable();
    LedgerParameters { forced_cost_per_byte: 1, fee_account: public_key(FEES), accounts }
}

fn ledger(balances: &[(u8, u64)]) -> Ledger {
    Ledger::new(ROLLUP, parameters(balances))
}

fn supply(state: &State) -> u128 {
    state.entries().map(|(account, _)| u128::from(holding(state, account.try_into().unwrap()).balance)).sum()
}

#[test]
fn a_balance_that_would_not_fit_64_bits_undoes_the_whole_transfer() {
    // LedgerParameters that `LedgerParameters::decode` refuses: with its bound on the sum this cannot happen.
    let table = [
        ("at the receiver", [(ALICE, 10), (BOB, u64::MAX), (FEES, 0)]),
        ("at the fee account", [(ALICE, 10), (BOB, 0), (FEES, u64::MAX)]),
    ];
    for (name, balances) in table {
        let ledger = ledger(&balances);
        let mut state = ledger.genesis();
        let outcome = execute(&ledger, &mut state, &signed(ALICE, BOB, 1, 1, 0), Route::Own);
        assert_eq!(outcome, Outcome::NoOp(NoOpReason::Overflow), "{name}");
        assert_eq!(state, ledger.genesis(), "{name}");
        assert_eq!(LedgerParameters::decode(&parameters(&balances).encode()), None, "{name}");
    }
}

#[test]
fn what_no_state_makes_valid_is_known_without_one() {
    let ledger = ledger(&[]);
    let good = signed(ALICE, BOB, 1, 1, 7);
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let table =
        [(&good[..], Ok(())), (&good[1..], Err(NoOpReason::Malformed)), (&forged, Err(NoOpReason::BadSignature))];
    for (tx, expected) in table {
        assert_eq!(ledger.check_static(tx), expected);
    }
}

#[test]
fn an_undo_names_each_account_that_was_written_once() {
    let ledger = ledger(&[(ALICE, 10)]);
    let mut state = ledger.genesis();
    for nonce in 0..2 {
        assert_eq!(execute(&ledger, &mut state, &signed(ALICE, BOB, 1, 1, nonce), Route::Own), Outcome::Ok);
    }
    let undo = state.take_undo();
    let mut written = [ALICE, BOB, FEES].map(public_key);
    written.sort_unstable();
    assert_eq!(undo.keys().into_iter().collect::<Vec<_>>(), written);
}

#[test]
fn the_last_nonce_is_never_used() {
    let ledger = ledger(&[]);
    let spent = |nonce: u64| [&5u64.to_le_bytes()[..], &nonce.to_le_bytes()].concat();
    for (nonce, outcome) in [(u64::MAX, Outcome::NoOp(NoOpReason::BadNonce)), (u64::MAX - 1, Outcome::Ok)] {
        let mut state: State = [(public_key(ALICE).to_vec(), spent(nonce))].into_iter().collect();
        assert_eq!(execute(&ledger, &mut state, &signed(ALICE, BOB, 1, 0, nonce), Route::Own), outcome, "{nonce}");
    }
}

#[test]
fn a_changed_byte_makes_a_transfer_a_no_op() {
    let ledger = ledger(&[(ALICE, 100), (BOB, 100)]);
    let tx = signed(ALICE, BOB, 1, 1, 0);
    assert_eq!(tx.len(), TRANSFER_LEN);
    for at in 0..tx.len() {
        let mut state = ledger.genesis();
        let mut changed = tx.clone();
        changed[at] ^= 1;
        let outcome = execute(&ledger, &mut state, &changed, Route::Forced);
        let expected = match at {
            0 => &[NoOpReason::Malformed][..],
            1..=32 => &[NoOpReason::BadKey, NoOpReason::BadSignature],
            _ => &[NoOpReason::BadSignature],
        };
        assert!(expected.iter().any(|reason| outcome == Outcome::NoOp(*reason)), "byte {at}: {outcome}");
        assert_eq!(state, ledger.genesis(), "byte {at}");
    }
}

#[test]
fn parameters_have_one_encoding() {
    let parameters = parameters(&[(ALICE, 5), (BOB, 0)]);
    let bytes = parameters.encode();
    assert_eq!(LedgerParameters::decode(&bytes), Some(parameters));
    for len in 0..bytes.len() {
        assert_eq!(LedgerParameters::decode(&bytes[..len]), None, "{len} bytes");
    }
    assert_eq!(LedgerParameters::decode(&[&bytes[..], &[0]].concat()), None);
}

#[test]
fn every_reason_has_the_same_name_everywhere() {
    use NoOpReason as R;
    let reasons =
        [R::Malformed, R::UnpaidCost, R::BadKey, R::BadSignature, R::BadNonce, R::InsufficientBalance, R::Overflow];
    for reason in reasons {
        assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
        assert_eq!(alloc::format!("{}", Outcome::NoOp(reason)), alloc::format!("no-op ({})", reason.name()));
    }
}

#[test]
fn a_manifest_names_the_ledger_that_it_gets() {
    use crate::manifest::{ExecutorKind, ExecutorSpec, Manifest};
    let spec = |kind, parameters| {
        let mut fields = (*sound_manifest()).clone();
        fields.executor = ExecutorSpec { kind, parameters };
        Manifest::new(fields).unwrap()
    };
    let manifest = spec(ExecutorKind::Ledger, parameters(&[(ALICE, 5)]).encode());
    let executor = of_manifest(&manifest).unwrap();
    let mut state = executor.genesis();
    assert_eq!(state, ledger(&[(ALICE, 5)]).genesis());
    // The signature binds the manifest's whole id.
    let tx = transfer(ALICE, BOB, 1, 0, 0).sign(&SECP, &manifest.rollup_id(), &keypair(ALICE));
    assert_eq!(execute(&*executor, &mut state, &tx, Route::Own), Outcome::Ok);

    let opaque = of_manifest(&spec(ExecutorKind::Opaque, vec![])).unwrap();
    let mut state = opaque.genesis();
    assert_eq!(execute(&*opaque, &mut state, &[0], Route::Forced), Outcome::Ok);
    assert_eq!(execute(&*opaque, &mut state, &[], Route::Own), Outcome::NoOp(NoOpReason::Malformed));
    assert_eq!(opaque.state_root(&state), merkle_root::<&[u8]>([]));
    assert!(matches!(of_manifest(&spec(ExecutorKind::Evm, vec![])), Err(crate::executor::ExecutorError::Evm)));
}

// Scenario 41, tx_gas_above_regular_cap_still_included; 34, oog. No manifest has this price: an evm item can ask for
// more than its bytes pay, a transfer cannot.
#[test]
fn an_item_that_its_bytes_do_not_pay_for_is_a_no_op_and_its_neighbours_bytes_do_not_help_it() {
    let free = Ledger::new(ROLLUP, LedgerParameters { forced_cost_per_byte: 0, ..parameters(&[(ALICE, 1000)]) });
    let mut state = free.genesis();
    let tx = signed(ALICE, BOB, 1, 1, 0);
    for (route, tx, outcome) in [
        (Route::Forced, &tx, Outcome::NoOp(NoOpReason::UnpaidCost)),
        (Route::Forced, &vec![7; 5000], Outcome::NoOp(NoOpReason::Malformed)),
        (Route::Forced, &tx, Outcome::NoOp(NoOpReason::UnpaidCost)),
        // As an own transaction it needs no bytes.
        (Route::Own, &tx, Outcome::Ok),
    ] {
        assert_eq!(execute(&free, &mut state, tx, route), outcome, "{route:?}");
    }
}

/// Transfers among five accounts, most of them sound, some with a changed byte.
fn transactions() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let sound = (1..6u8, 1..6u8, 0..60u64, 0..6u64, 0..3u64)
        .prop_map(|(from, to, amount, fee, nonce)| signed(from, to, amount, fee, nonce));
    let changed = (1..6u8, any::<prop::sample::Index>(), 1u8..).prop_map(|(from, at, change)| {
        let mut tx = signed(from, from, 1, 1, 0);
        tx[at.index(TRANSFER_LEN)] ^= change;
        tx
    });
    list(prop_oneof![8 => sound, 1 => changed, 1 => list(any::<u8>(), 0..200)], 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn the_undo_of_each_block_restores_the_state_and_the_supply_never_changes(
        blocks in list(transactions(), 1..6), forced in any::<bool>(),
    ) {
        let ledger = ledger(&[(ALICE, 100), (BOB, 50), (4, 7)]);
        let route = if forced { Route::Forced } else { Route::Own };
        let mut state = ledger.genesis();
        let mut history = Vec::new();
        for block in blocks {
            let before = state.clone();
            for tx in block {
                let (entries, root) = (state.clone(), ledger.state_root(&state));
                if let Outcome::NoOp(_) = execute(&ledger, &mut state, &tx, route) {
                    prop_assert_eq!(&entries, &state);
                    prop_assert_eq!(root, ledger.state_root(&state));
                }
                prop_assert_eq!(supply(&state), 157);
            }
            let undo = state.take_undo();
            // A store keeps it as bytes.
            let undo = postcard::from_bytes(&postcard::to_allocvec(&undo).unwrap()).unwrap();
            history.push((before, undo));
        }
        for (before, undo) in history.into_iter().rev() {
            state.revert(undo);
            prop_assert_eq!(&state, &before);
        }
    }
}

#[test]
fn a_transfer_tells_its_fee_and_whether_its_sender_has_what_it_spends() {
    let ledger = ledger(&[(ALICE, 100)]);
    let state = ledger.genesis();
    for (from, amount, fee, affords) in [
        (ALICE, 60, 40, true),
        (ALICE, 61, 40, false),
        (BOB, 0, 1, false),
        (BOB, 0, 0, true),
        (ALICE, 1, u64::MAX, false),
    ] {
        let tx = signed(from, BOB, amount, fee, 0);
        assert_eq!((ledger.fee_of(&tx), ledger.affords(&state, &tx)), (Some(fee), affords), "{from} {amount} {fee}");
    }
    assert_eq!((ledger.fee_of(b"none"), ledger.affords(&state, b"none")), (None, false));
}
