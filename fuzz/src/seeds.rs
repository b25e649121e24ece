//! What fuzzing starts from: every byte string of the test vectors in the form that a target reads, and a
//! few inputs of our own where the vectors have none.

use super::made;
use super::rollup::{Draft, Parameters, START_HEIGHT, Signers, genesis, manifest};
use bitcoin::Witness;
use bitcoin::consensus::serialize;
use bitcoin::hex::FromHex;
use serde_json::Value;
use sortie::envelope::{Carrier, Payload};
use sortie::manifest::Manifest;
use std::path::Path;

/// Longer strings slow fuzzing down and teach it nothing.
const MAX_LEN: usize = 4096;

/// A generator of numbers that are the same in every run (xorshift64*).
pub struct Numbers(u64);

impl Numbers {
    /// Numbers for a name.
    pub fn of(name: &str) -> Self {
        let fnv = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv) | 1)
    }

    /// The next one.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next one, below `bound`; 0 if there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() >> 32) as usize % bound.max(1)
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.number() >> 56) as u8).collect()
    }
}

/// Changes a byte string in one place; `other` is what may be spliced in.
pub fn mutate(numbers: &mut Numbers, input: &mut Vec<u8>, other: &[u8]) {
    let at = numbers.below(input.len() + 1);
    let end = (at + numbers.below(16)).min(input.len());
    match numbers.below(7) {
        0 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << numbers.below(8)),
        1 => {
            input.iter_mut().skip(at).take(1).for_each(|byte| *byte = [0, 1, 0x7f, 0xfc, 0xfd, 0xff][numbers.below(6)])
        }
        2 => drop(input.drain(at..end)),
        3 => input.truncate(at),
        4 => {
            let len = 1 + numbers.below(12);
            input.splice(at..at, numbers.bytes(len));
        }
        5 => {
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        _ => {
            let from = numbers.below(other.len() + 1);
            input.truncate(at);
            input.extend(&other[from..]);
        }
    }
}

/// The byte strings of every file in `tests/vectors`, each once, in the order of the files.
///
/// # Errors
/// A file that cannot be read or is not JSON.
pub fn vectors(folder: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let mut files: Vec<_> =
        folder.read_dir()?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.sort();
    let mut strings = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "json")) {
        collect(&serde_json::from_slice(&std::fs::read(file)?)?, &mut strings);
    }
    let mut seen = std::collections::BTreeSet::new();
    strings.retain(|string| seen.insert(string.clone()));
    Ok(strings)
}

fn collect(value: &Value, strings: &mut Vec<Vec<u8>>) {
    match value {
        Value::String(text) => strings.extend(bytes_of(text)),
        Value::Array(values) => {
            // A witness stands in vectors as a list of its elements.
            let elements: Option<Vec<_>> = values.iter().map(|value| bytes_of(value.as_str()?)).collect();
            let witness = elements.filter(|elements| elements.len() > 1).map(|elements| Witness::from_slice(&elements));
            strings.extend(witness.map(|witness| serialize(&witness)).filter(|bytes| bytes.len() <= MAX_LEN));
            values.iter().for_each(|value| collect(value, strings));
        }
        Value::Object(fields) => fields.values().for_each(|value| collect(value, strings)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    Vec::from_hex(text).ok().filter(|bytes| (1..=MAX_LEN).contains(&bytes.len()))
}

/// A target's seeds.
pub fn seeds(target: &str, vectors: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = vectors.iter().flat_map(|bytes| in_form(target, bytes)).collect();
    seeds.extend(own(target));
    seeds
}

/// A byte string of the vectors, as a target's input.
fn in_form(target: &str, bytes: &[u8]) -> Vec<Vec<u8>> {
    let with = |prefix: &[u8]| [prefix, bytes].concat();
    match target {
        "toml" => Manifest::decode(bytes).iter().map(|manifest| manifest.to_toml().into_bytes()).collect(),
        "transaction" => carriers(bytes).into_iter().chain([bytes.to_vec()]).collect(),
        "block" => carriers(bytes).iter().map(|tx| with_prefix(&[1; 10], tx)).chain([with(&[0])]).collect(),
        "batch" => vec![with(&[0]), with(&[1, 0, 0]), with(&[1, 0, 1]), with(&[2, 0])],
        "handover" => vec![with(&[0]), with(&[1]), with(&[2])],
        "place" | "derive" | "proof" => Vec::new(),
        _ => vec![bytes.to_vec()],
    }
}

fn with_prefix(prefix: &[u8], bytes: &[u8]) -> Vec<u8> {
    [prefix, bytes].concat()
}

/// Transactions that carry a payload.
fn carriers(bytes: &[u8]) -> Vec<Vec<u8>> {
    match Payload::decode(bytes) {
        Ok(_) => [Carrier::Taproot, Carrier::OpReturn].map(|carrier| serialize(&made::carry(carrier, bytes, 0))).into(),
        Err(_) => Vec::new(),
    }
}

/// Seeds that no vector gives.
fn own(target: &str) -> Vec<Vec<u8>> {
    let mut numbers = Numbers::of(target);
    let txid = "00000000000000000000000000000000000000000000000000000000000000ab";
    match target {
        "place" => ["in:0", "out:7:3", "in:4294967295", "out:0:0", "in:4294967296", "out"]
            .map(|tail| format!("{txid}:{tail}").into_bytes())
            .into(),
        "batch" => batches(),
        "handover" => (1..8).map(|n| with_prefix(&[3], &numbers.bytes(n * 3))).collect(),
        "ledger" => (0..8).map(|_| numbers.bytes(400)).collect(),
        "proof" => {
            let edits = (0..40).map(|n| with_prefix(&[0, n], &numbers.bytes(12)));
            super::examples().into_iter().map(String::into_bytes).chain(edits).collect()
        }
        "derive" => (0..24).map(|n| numbers.bytes(60 + 30 * n)).collect(),
        _ => Vec::new(),
    }
}

/// Batches that are sound, signed by the target itself.
fn batches() -> Vec<Vec<u8>> {
    let signers = Signers::new([1], 1);
    let manifest = manifest(Parameters {
        start_height: START_HEIGHT,
        window: 8,
        max_lag: 3,
        max_forced: 2,
        sequencers: signers.set(),
    });
    let derivation = genesis(&manifest);
    let empty = Draft::new(derivation.head()).block(&derivation, false, 700, Vec::new());
    let full = empty.clone().block(&derivation, false, 1, vec![vec![1; 30], vec![2]]);
    let mut advancing = full.clone();
    advancing.blocks[1].advances = true;
    let drafts = [(0, empty), (0, full), (1, advancing)];
    let forms = drafts.iter().flat_map(|(advances, draft)| {
        let plain = with_prefix(&[1, *advances, 0], &draft.data());
        let deflated = miniz_oxide::deflate::compress_to_vec(&draft.data(), 6);
        let deflated = with_prefix(&[1, *advances, 1], &deflated);
        [plain, deflated, with_prefix(&[2, *advances], &draft.data())]
    });
    forms.collect()
}
