//! Manifests and ledgers.

use super::fuzz::rollup::{SECP, keypair};
use super::fuzz::seeds::{Numbers, mutate};
use super::{Case, hash, hex, pick, wide};
use serde_json::json;
use sortie::executor::ledger::{Ledger, TRANSFER_LEN, Transfer};
use sortie::executor::{Executor, Outcome, Route, execute};
use sortie::manifest::{LedgerParameters, Manifest};
use sortie::primitives::RollupId;

fn key(n: u8) -> [u8; 32] {
    keypair(n).x_only_public_key().0.serialize()
}

/// A manifest's fields, one of which may break a rule, or bytes made of them.
pub fn manifest(numbers: &mut Numbers) -> Case {
    let mut binary = fields(numbers).concat();
    if numbers.below(4) == 0 {
        mutate(numbers, &mut binary, &[]);
    }
    let expected = match Manifest::decode(&binary) {
        Err(_) => json!({ "result": "malformed" }),
        Ok(manifest) => {
            assert_eq!(manifest.encode(), binary, "a second encoding");
            json!({ "result": "ok", "rollup_id": manifest.rollup_id() })
        }
    };
    Case { input: json!({ "binary": hex(&binary) }), expected }
}

fn fields(numbers: &mut Numbers) -> Vec<Vec<u8>> {
    let name = pick(numbers, &["a", "sortie", "Grüße", "例え", "🦀 rollup", "0123456789abcdef0123456789abcdef"]);
    let window = 2 + numbers.below(500) as u16;
    let lag = 1 + numbers.below(window.into()) as u16;
    let count = [1, 1, 2, 3, 64][numbers.below(5)];
    let first = 1 + numbers.below(100) as u8;
    let mut keys: Vec<_> = (first..first + count).map(key).collect();
    keys.sort_unstable();
    let kind = numbers.below(3) as u8;
    let parameters = match kind {
        0 => Vec::new(),
        1 => parameters(numbers).encode(),
        _ => numbers.bytes(5),
    };
    let predecessor = match numbers.below(4) {
        0 => [&[1][..], &hash(numbers), &numbers.bytes(4)].concat(),
        _ => vec![0],
    };
    let mut fields = vec![
        vec![1],
        vec![name.len() as u8],
        name.as_bytes().to_vec(),
        numbers.bytes(4),
        (numbers.number() as u32 >> 1).to_le_bytes().to_vec(),
        hash(numbers).to_vec(),
        window.to_le_bytes().to_vec(),
        lag.to_le_bytes().to_vec(),
        (1 + numbers.below(2000) as u16).to_le_bytes().to_vec(),
        vec![count],
        keys.concat(),
        vec![1 + numbers.below(count.into()) as u8],
        vec![kind],
        vec![parameters.len() as u8],
        parameters,
        predecessor,
    ];
    if numbers.below(2) == 0 {
        spoil(numbers, &mut fields, window);
    }
    fields
}

/// Breaks a rule, or nearly.
fn spoil(numbers: &mut Numbers, fields: &mut [Vec<u8>], window: u16) {
    let mut name = |bytes: &[u8]| {
        fields[1] = vec![bytes.len() as u8];
        fields[2] = bytes.to_vec();
    };
    match numbers.below(21) {
        0 => fields[0] = vec![pick(numbers, &[0, 2, 0xff])],
        1 => name(&[]),
        2 => name(&[b'n'; 33]),
        3 => name(pick(numbers, &["\u{0}", "a\n", "\u{7f}", "\u{80}", "\u{9f}x"]).as_bytes()),
        4 => name(pick(numbers, &["\u{a0}", "\u{ad}", "\u{200b}", "\u{feff}", "\u{2028}", " ", "\u{e000}"]).as_bytes()),
        5 => {
            name(pick(numbers, &[&[0xff][..], &[0xc0, 0x80], &[0xed, 0xa0, 0x80], &[0xf4, 0x90, 0x80, 0x80], &[0xe2]]))
        }
        6 => fields[1] = [&[0xfd][..], &fields[1], &[0]].concat(),
        7 => fields[6] = pick(numbers, &[0u16, 1, 2]).to_le_bytes().to_vec(),
        8 => fields[7] = pick(numbers, &[0, window, window.saturating_add(1), u16::MAX]).to_le_bytes().to_vec(),
        9 => fields[8] = vec![0, 0],
        10 => fields[9] = vec![pick(numbers, &[0, 65, 2])],
        11 => (fields[9], fields[10]) = (vec![65], (1..=65).flat_map(key).collect()),
        12 => {
            let mut keys: Vec<_> = [key(1), key(2)].into();
            keys.sort_unstable();
            keys.swap(0, numbers.below(2));
            (fields[9], fields[10], fields[11]) = (vec![2], keys.concat(), vec![2]);
        }
        13 => (fields[9], fields[10], fields[11]) = (vec![2], [key(1), key(1)].concat(), vec![1]),
        14 => (fields[9], fields[10], fields[11]) = (vec![1], hash(numbers).to_vec(), vec![1]),
        15 => fields[11] = vec![pick(numbers, &[0, fields[9][0], fields[9][0].wrapping_add(1), 0xff])],
        16 => fields[12] = vec![pick(numbers, &[3, 0, 1, 0xff])],
        17 => fields[13][0] = fields[13][0].wrapping_add(1),
        18 => mutate(numbers, &mut fields[14], &[]),
        19 => fields[4] = pick(numbers, &[0, (1u32 << 31) - 1, 1 << 31, u32::MAX]).to_le_bytes().to_vec(),
        _ => fields[15] = pick(numbers, &[&[][..], &[2], &[1], &[0, 0], &[1; 36], &[1; 37], &[1; 38]]).to_vec(),
    }
    if fields[14].len() < 0xfd && numbers.below(3) > 0 {
        fields[13] = vec![fields[14].len() as u8];
    }
}

fn parameters(numbers: &mut Numbers) -> LedgerParameters {
    let mut accounts: Vec<_> = (1..=numbers.below(4) as u8).map(|n| (key(n), wide(numbers) >> 2)).collect();
    accounts.sort_unstable();
    let fee_account = key(1 + numbers.below(5) as u8);
    LedgerParameters { forced_cost_per_byte: pick(numbers, &[0, 1, 1, 1, 2, u32::MAX]), fee_account, accounts }
}

/// Transactions one after the other; a few of the cases have signatures in them.
pub fn ledger(numbers: &mut Numbers) -> Case {
    let id = RollupId(hash(numbers));
    let mut parameters = parameters(numbers);
    let signed = numbers.below(3) == 0;
    if signed {
        parameters.accounts = vec![(key(1), 1000 + wide(numbers) / 4), (key(2), numbers.below(50) as u64)];
        parameters.accounts.sort_unstable();
    }
    let ledger = Ledger::new(id, parameters.clone());
    let mut state = ledger.genesis();
    let (genesis, mut steps, mut outcomes, mut roots) = (ledger.state_root(&state), Vec::new(), Vec::new(), Vec::new());
    let mut nonces = [0; 3];
    for _ in 0..=numbers.below(2) {
        let tx = if signed { transfer(numbers, &id, &mut nonces) } else { unsigned(numbers) };
        let route = pick(numbers, &[Route::Forced, Route::Own]);
        outcomes.push(match execute(&ledger, &mut state, &tx, route) {
            Outcome::Ok => "ok",
            Outcome::NoOp(reason) => reason.name(),
        });
        roots.push(ledger.state_root(&state));
        steps.push(json!({ "tx": hex(&tx), "forced": route == Route::Forced }));
    }
    let input = json!({ "rollup_id": id, "parameters": hex(parameters.encode()), "steps": steps });
    Case { input, expected: json!({ "outcomes": outcomes, "genesis_state_root": genesis, "state_roots": roots }) }
}

fn transfer(numbers: &mut Numbers, id: &RollupId, nonces: &mut [u64; 3]) -> Vec<u8> {
    let from = 1 + numbers.below(2);
    let nonce = match numbers.below(8) {
        0 => wide(numbers),
        _ => nonces[from],
    };
    nonces[from] += 1;
    let mut to = || match numbers.below(3) {
        0 => hash(numbers),
        _ => key(1 + numbers.below(3) as u8),
    };
    let (to, sender) = (to(), keypair(from as u8));
    let amount = match numbers.below(6) {
        0 => wide(numbers),
        _ => numbers.below(40) as u64,
    };
    let fee = if numbers.below(8) == 0 { wide(numbers) } else { numbers.below(9) as u64 };
    let mut tx = Transfer { from: key(from as u8), to, amount, fee, nonce }.sign(&SECP, id, &sender);
    if numbers.below(6) == 0 {
        tx[numbers.below(TRANSFER_LEN)] ^= 1 << numbers.below(8);
    }
    tx
}

/// A transaction that is refused before its signature is looked at.
fn unsigned(numbers: &mut Numbers) -> Vec<u8> {
    let mut tx = numbers.bytes(TRANSFER_LEN);
    tx[0] = 1;
    match numbers.below(4) {
        0 => tx.truncate(numbers.below(TRANSFER_LEN + 1)),
        1 => tx.push(0),
        2 => tx[0] = pick(numbers, &[0, 2]),
        // No x of a point: 5 and its like, and the field's prime and above.
        _ => tx[1..33].copy_from_slice(&pick(numbers, &[[0xff; 32], NO_POINT])),
    }
    tx
}

const NO_POINT: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[31] = 5;
    bytes
};
