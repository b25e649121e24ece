//! Scripts, witnesses and whole Bitcoin blocks, sound and not.

use super::fuzz::made;
use super::fuzz::seeds::{Numbers, mutate};
use super::{Case, hash, hex, hexes, pick};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Transaction, Witness};
use serde_json::{Value, json};
use sortie::envelope::{
    Carrier, Found, MAGIC, MAX_PAYLOAD, check_block, leaf_script, op_return_script, scan_block, scan_transaction,
};
use sortie::merkle::merkle_root;
use sortie::primitives::{BlockRef, Namespace, sha256};
use sortie::queue::items_of;

const NAMESPACE: Namespace = Namespace([0xa1, 0xb2, 0xc3, 0xd4]);
/// Lengths of payloads at which an encoding changes.
const LENGTHS: [usize; 24] = [
    10, 11, 12, 75, 76, 77, 254, 255, 256, 257, 258, 508, 509, 510, 511, 512, 513, 764, 765, 766, 767, 1020, 1021, 1275,
];
const LONG: [usize; 6] = [65_535, 65_536, 65_537, MAX_PAYLOAD, MAX_PAYLOAD + 1, MAX_PAYLOAD + 1];
/// Of so many payloads one is long.
const LONG_EVERY: usize = 300;
const CHUNK: usize = 255;

/// Any bytes that begin as a payload does.
pub fn payload(numbers: &mut Numbers) -> Vec<u8> {
    let namespace = match numbers.below(12) {
        0 => numbers.bytes(4),
        _ => NAMESPACE.0.to_vec(),
    };
    let kind = pick(numbers, &[1, 1, 2, 2, 2, 0x10, 0x11, 0, 3, 0xff]);
    let body = if kind == 2 { list(numbers) } else { body(numbers) };
    [&MAGIC[..], &namespace, &[kind], &body].concat()
}

fn body(numbers: &mut Numbers) -> Vec<u8> {
    let len = match numbers.below(LONG_EVERY) {
        0 => pick(numbers, &LONG),
        1..=700 => pick(numbers, &LENGTHS),
        _ => 10 + numbers.below(700),
    };
    let mut body = numbers.bytes(len - 9);
    // What begins as a candidate does, inside of one.
    if body.len() >= 8 && numbers.below(10) == 0 {
        let namespace = pick(numbers, &[NAMESPACE.0, [1, 2, 3, 4]]);
        let at = numbers.below(body.len() - 7);
        body[at..at + 4].copy_from_slice(&MAGIC);
        body[at + 4..at + 8].copy_from_slice(&namespace);
    }
    body
}

fn list(numbers: &mut Numbers) -> Vec<u8> {
    let mut list = Vec::new();
    for _ in 0..numbers.below(5) {
        let len = pick(numbers, &[64, 64, 65, 100, 252, 253, 254]);
        let length = u8::try_from(len).expect("below 256");
        match length {
            ..253 => list.push(length),
            _ => list.extend([0xfd, length, 0]),
        }
        list.extend(numbers.bytes(len));
    }
    match numbers.below(12) {
        0 => list.extend([&[63][..], &[0; 63]].concat()),
        1 => list.extend([&[0xfd, 64, 0][..], &[0; 64]].concat()),
        2 => drop(list.pop()),
        3 => list.push(0),
        _ => {}
    }
    list
}

fn wanted(numbers: &mut Numbers) -> Option<Namespace> {
    match numbers.below(8) {
        0 | 1 => None,
        2 => Some(Namespace([1, 2, 3, 4])),
        _ => Some(NAMESPACE),
    }
}

/// What a transaction's one place holds.
fn answer(found: &[Found]) -> Value {
    let Some(found) = found.first() else { return json!({ "result": "absent" }) };
    match &found.payload {
        Err(flaw) => json!({ "result": flaw }),
        Ok(payload) => {
            let bytes = payload.encode().expect("it was decoded");
            let block = BlockRef { height: 1, hash: BlockHash::all_zeros() };
            let txs: Vec<_> = items_of(block, core::slice::from_ref(found)).iter().map(|item| hex(&item.tx)).collect();
            json!({ "result": "valid", "payload": sha256(&bytes), "txs": txs })
        }
    }
}

/// An output script.
pub fn output_script(numbers: &mut Numbers) -> Case {
    let payload = payload(numbers);
    let mut script = op_return_script(&payload).into_bytes();
    match numbers.below(16) {
        0..=5 => {}
        6 => script = [&[0x6a, 0x4c, payload.len() as u8][..], &payload].concat(),
        7 => script = [&[0x6a, 0x4d][..], &(payload.len() as u16).to_le_bytes(), &payload].concat(),
        8 => script = [&[0x6a, 0x4e][..], &(payload.len() as u32).to_le_bytes(), &payload].concat(),
        9 => script.insert(0, pick(numbers, &[0x00, 0x51, 0x6a])),
        10 => {
            let junk = 1 + numbers.below(9);
            let shifted = [numbers.bytes(junk), payload].concat();
            script = op_return_script(&shifted).into_bytes();
        }
        11 => script = op_return_script(&payload[..pick(numbers, &[8, 9])]).into_bytes(),
        12 => {
            let more = 1 + numbers.below(4);
            script.extend(numbers.bytes(more));
        }
        13 => script.truncate(script.len() - 1 - numbers.below(3)),
        14 => script[1] = pick(numbers, &[0x00, 0x4f, 0x50, 0x51, 0x60, 0x61]),
        _ => (0..=numbers.below(3)).for_each(|_| mutate(numbers, &mut script, &payload)),
    }
    let wanted = wanted(numbers);
    let tx = made::transaction(vec![made::input(0, Witness::new())], vec![made::output(&script)]);
    Case {
        input: json!({ "script": hex(&script), "namespace": wanted.map(|namespace| hex(namespace.0)) }),
        expected: answer(&scan_transaction(&tx, wanted)),
    }
}

fn push(bytes: &[u8]) -> Vec<u8> {
    // The script that pushes them, without its first opcode.
    op_return_script(bytes).as_bytes()[1..].to_vec()
}

/// A leaf of these pushes, as the drops would have them.
fn leaf(pushes: &[Vec<u8>], key: &[u8]) -> Vec<u8> {
    let groups = pushes.chunks(2).flat_map(|pair| [&pair.concat()[..], &[[0x75, 0x6d][pair.len() - 1]]].concat());
    groups.chain([0x20]).chain(key.to_vec()).chain([0xac]).collect()
}

fn any_leaf(numbers: &mut Numbers) -> Vec<u8> {
    let payload = payload(numbers);
    let key = made::leaf_key().serialize();
    let pushes: Vec<_> = payload.chunks(CHUNK).map(push).collect();
    let mut sound = leaf_script(&payload, &made::leaf_key()).into_bytes();
    let (end, at) = (sound.len(), numbers.below(pushes.len()));
    match numbers.below(22) {
        0..=9 => {}
        10 => sound = leaf(&pushes, &key),
        11 => {
            let len = 2 + numbers.below(400);
            sound = leaf(&payload.chunks(len).map(push).collect::<Vec<_>>(), &key);
        }
        12 => {
            let mut pushes = pushes;
            let chunk = payload.chunks(CHUNK).nth(at).expect("a chunk for each push");
            pushes[at] = [&[0x4d][..], &(chunk.len() as u16).to_le_bytes(), chunk].concat();
            sound = leaf(&pushes, &key);
        }
        13 => {
            let shifted = [numbers.bytes(3), payload].concat();
            sound = leaf_script(&shifted, &made::leaf_key()).into_bytes();
        }
        14 => sound = leaf_script(&payload[..pick(numbers, &[8, 9])], &made::leaf_key()).into_bytes(),
        15 => sound[end - 35] = pick(numbers, &[0x6d, 0x75, 0x51, 0xac, 0x61]),
        16 => sound[end - 34] = pick(numbers, &[0x1f, 0x21, 0x00, 0x4c]),
        17 => sound[end - 1] = pick(numbers, &[0xad, 0x75, 0x20]),
        18 => sound.truncate(end - 1 - numbers.below(40)),
        19 => {
            let single = pick(numbers, &[0x00, 0x4f, 0x51, 0x60, 0x01]);
            sound.insert(0, single);
        }
        20 => sound = leaf(&[push(&payload[..payload.len() - 1]), push(&payload[payload.len() - 1..])], &key),
        _ => (0..=numbers.below(3)).for_each(|_| mutate(numbers, &mut sound, &payload)),
    }
    sound
}

/// An input's witness.
pub fn witness(numbers: &mut Numbers) -> Case {
    let leaf = any_leaf(numbers);
    let mut control = vec![pick(numbers, &[0xc0, 0xc1, 0xc0, 0xc1, 0xc0, 0xc1, 0xc0, 0xc1, 0xc0, 0xc1, 0x50, 0xc2])];
    let depth = match numbers.below(10) {
        0 => pick(numbers, &[127, 128, 129]),
        _ => numbers.below(4),
    };
    control.resize(33 + 32 * depth, 7);
    match numbers.below(20) {
        0 => drop(control.pop()),
        1 => control.push(0),
        2 => control.clear(),
        _ => {}
    }
    let mut elements = vec![vec![1; 64], leaf, control];
    match numbers.below(16) {
        0 => elements.push([&[0x50][..], &numbers.bytes(3)].concat()),
        1 => elements.push(numbers.bytes(2)),
        2 => drop(elements.remove(0)),
        3 => drop(elements.pop()),
        4 => elements.truncate(numbers.below(3)),
        _ => {}
    }
    let wanted = wanted(numbers);
    let tx = made::transaction(vec![made::input(0, Witness::from_slice(&elements))], Vec::new());
    Case {
        input: json!({ "witness": hexes(&elements), "namespace": wanted.map(|namespace| hex(namespace.0)) }),
        expected: answer(&scan_transaction(&tx, wanted)),
    }
}

/// A whole block, as a node serves it or as nobody should.
pub fn bitcoin_block(numbers: &mut Numbers) -> Case {
    let txs: Vec<_> = (1..=numbers.below(6)).map(|salt| carrying(numbers, salt as u32)).collect();
    let parent = BlockHash::from_byte_array(hash(numbers));
    let mut block = made::block(parent, numbers.number() as u32, numbers.number() as u32, txs);
    let plain = |block: &mut bitcoin::Block| block.header.merkle_root = block.compute_merkle_root().expect("a block");
    match numbers.below(14) {
        0 => block.txdata.extend_from_within(block.txdata.len() - 1..),
        1 => {
            block.txdata.extend_from_within(block.txdata.len() - 1..);
            plain(&mut block);
        }
        2 => block.txdata[0].input[0].witness.clear(),
        3 => {
            let at = numbers.below(block.txdata.len());
            block.txdata[at].input[0].witness.push([9]);
        }
        4 => {
            drop(block.txdata[0].output.pop());
            plain(&mut block);
        }
        5 => {
            block.txdata[0].output.push(made::output(op_return_script(&payload(numbers)).as_bytes()));
            plain(&mut block);
        }
        6 => {
            drop(block.txdata.remove(0));
            block.header.merkle_root = block.compute_merkle_root().unwrap_or(block.header.merkle_root);
        }
        _ => {}
    }
    let mut raw = serialize(&block);
    match numbers.below(12) {
        0 => mutate(numbers, &mut raw, &[]),
        1 => raw.push(0),
        _ => {}
    }
    let height = numbers.number() as u32;
    let expected = match check_block(&raw).and_then(|()| scan_block(&raw, Some(NAMESPACE))) {
        Err(_) => json!({ "result": "undecided" }),
        Ok(scanned) => {
            let block = BlockRef { height, hash: scanned.header.block_hash() };
            let leaves: Vec<_> = items_of(block, &scanned.found).iter().map(|item| item.leaf()).collect();
            let hash = hex(block.hash.to_byte_array());
            json!({ "result": "ok", "hash": hash, "leaves": hexes(&leaves), "queue_root": merkle_root(&leaves) })
        }
    };
    Case { input: json!({ "raw": hex(&raw), "height": height, "namespace": hex(NAMESPACE.0) }), expected }
}

/// A transaction with envelopes in some of its inputs and outputs.
fn carrying(numbers: &mut Numbers, salt: u32) -> Transaction {
    let mut tx = made::transaction(Vec::new(), Vec::new());
    for at in 0..=numbers.below(2) as u32 {
        let witness = match numbers.below(3) {
            0 => made::leaf_witness(leaf_script(&payload(numbers), &made::leaf_key()).as_bytes()),
            1 => Witness::from_slice(&[[7; 71]]),
            _ => Witness::new(),
        };
        tx.input.push(made::input(16 * salt + at, witness));
    }
    for _ in 0..=numbers.below(2) {
        let script = match numbers.below(3) {
            0 => op_return_script(&payload(numbers)).into_bytes(),
            _ => vec![0x51; 2],
        };
        tx.output.push(made::output(&script));
    }
    if numbers.below(6) == 0 {
        let bytes = payload(numbers);
        tx = made::carry(pick(numbers, &[Carrier::Taproot, Carrier::OpReturn]), &bytes, 16 * salt);
    }
    tx
}
