//! Decoders that need no Bitcoin around them: manifests, payloads, places, ledger transactions.

use super::input::Input;
use super::rollup::{SECP, keypair};
use sortie::envelope::{Flaw, MAGIC, MAX_PAYLOAD, MIN_PAYLOAD, Payload};
use sortie::executor::ledger::{Ledger, TRANSFER_LEN, Transfer, holding};
use sortie::executor::{Executor, Outcome, Route, State, execute, of_manifest};
use sortie::manifest::{ExecutorKind, LedgerParameters, Manifest};
use sortie::primitives::{Hash32, RollupId, tagged_hash};
use sortie::queue::Place;

/// A manifest's binary form: one encoding only, and TOML that comes back as the same rollup.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::decode(data) else { return };
    assert_eq!(manifest.encode(), data, "a second encoding");
    assert_eq!(manifest.rollup_id().0, tagged_hash("sortie/rollup", &[data]).0);
    let runs = manifest.executor.kind != ExecutorKind::Evm && manifest.predecessor.is_none();
    assert_eq!(of_manifest(&manifest).is_ok(), runs);
    assert_eq!(Manifest::from_toml(&manifest.to_toml()).ok(), Some(manifest));
}

/// A manifest as people write it.
pub fn toml(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let Ok(manifest) = Manifest::from_toml(text) else { return };
    assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Ok(&manifest));
    assert_eq!(Manifest::from_toml(&manifest.to_toml()).ok(), Some(manifest));
}

/// A payload: one encoding only, and the flaws in the order stated.
pub fn payload(data: &[u8]) {
    let decoded = Payload::decode(data);
    let flaw = if !data.starts_with(&MAGIC) {
        Some(Flaw::NotAtStart)
    } else if data.len() < MIN_PAYLOAD {
        Some(Flaw::TooShort)
    } else if data.len() > MAX_PAYLOAD {
        Some(Flaw::TooLong)
    } else {
        None
    };
    match decoded {
        Ok(payload) => {
            assert_eq!(flaw, None);
            assert_eq!(payload.body.kind(), data[8]);
            assert_eq!(payload.namespace.0, data[4..8]);
            assert_eq!(payload.encode().as_deref(), Ok(data), "a second encoding");
        }
        Err(found) => {
            assert_eq!(found, flaw.unwrap_or(Flaw::TxsMalformed));
            assert!(flaw.is_some() || data[8] == 0x02, "only a list of transactions is looked into");
        }
    }
}

/// A place's text: shown in one way, which is read as the same place.
pub fn place(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let Ok(place) = text.parse::<Place>() else { return };
    assert_eq!(place.to_string().parse(), Ok(place));
}

/// Ledger parameters, then transactions: each whole or without any trace, and no satoshi made or lost.
pub fn ledger(data: &[u8]) {
    if let Some(parameters) = LedgerParameters::decode(data) {
        assert_eq!(parameters.encode(), data, "a second encoding");
    }
    let mut input = Input::new(data);
    let id = RollupId([input.byte(); 32]);
    let ledger = Ledger::new(id, parameters(&mut input));
    let genesis = ledger.genesis();
    let mut state = genesis.clone();
    while !input.is_empty() {
        let (tx, route) = (ledger_tx(&mut input, &id), if input.flip() { Route::Forced } else { Route::Own });
        let readable = tx.len() == TRANSFER_LEN && tx[0] == 1;
        assert_eq!(Transfer::decode(&tx).is_some(), readable);
        let before = entries(&state);
        match execute(&ledger, &mut state, &tx, route) {
            Outcome::Ok => assert!(readable && entries(&state) != before, "a nonce at least has changed"),
            Outcome::NoOp(_) => assert_eq!(entries(&state), before, "a no-op left a trace"),
        }
        assert_eq!(supply(&state), supply(&genesis));
    }
    let _ = ledger.state_root(&state);
    let undo = state.take_undo();
    state.revert(undo);
    assert_eq!(entries(&state), entries(&genesis));
    assert_eq!(ledger.state_root(&state), ledger.state_root(&genesis));
}

/// Three accounts with keys, one of which may be where fees go.
fn parameters(input: &mut Input<'_>) -> LedgerParameters {
    let mut accounts: Vec<_> = (1..=3).map(|n| (public_key(n), input.u64() >> 2)).collect();
    accounts.sort_unstable();
    LedgerParameters {
        forced_cost_per_byte: input.below(2) as u32,
        fee_account: public_key(3 + input.byte() % 2),
        accounts,
    }
}

fn public_key(n: u8) -> [u8; 32] {
    keypair(n).x_only_public_key().0.serialize()
}

/// Any bytes, or a transfer that is signed, or one that was changed after that.
fn ledger_tx(input: &mut Input<'_>, id: &RollupId) -> Vec<u8> {
    let mode = input.below(4);
    if mode == 0 {
        return input.some_bytes();
    }
    let from = 1 + input.byte() % 4;
    let transfer = Transfer {
        from: public_key(from),
        to: if input.flip() { public_key(1 + input.byte() % 5) } else { [input.byte(); 32] },
        amount: input.u64() >> input.below(64),
        fee: u64::from(input.byte()),
        nonce: u64::from(input.byte() % 4),
    };
    let mut tx = transfer.sign(&SECP, id, &keypair(from));
    if mode == 3 {
        tx[usize::from(input.byte()) % TRANSFER_LEN] ^= input.byte();
    }
    tx
}

fn entries(state: &State) -> Vec<(Vec<u8>, Vec<u8>)> {
    state.entries().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn supply(state: &State) -> u128 {
    let accounts = state.entries().filter_map(|(key, _)| key.try_into().ok());
    accounts.map(|account: Hash32Bytes| u128::from(holding(state, &account).balance)).sum()
}

type Hash32Bytes = [u8; size_of::<Hash32>()];
