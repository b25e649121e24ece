//! Places, lists and proofs about them, leaves, headers of L2 blocks.

use super::fuzz::seeds::{Numbers, mutate};
use super::{Case, hash, hex, hexes, pick, wide};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Txid};
use serde_json::json;
use sortie::envelope::Carrier;
use sortie::l2::L2Header;
use sortie::merkle::{Tree, TreeHead, leaf_hash, merkle_root, verify_consistency, verify_inclusion, verify_range};
use sortie::primitives::{BlockRef, Hash32, RollupId};
use sortie::queue::{Place, QueueLeaf};
use std::ops::Range;

/// The text of a place.
pub fn place(numbers: &mut Numbers) -> Case {
    let mut text = hex(hash(numbers));
    if numbers.below(8) == 0 {
        text = text.to_uppercase();
    }
    text += pick(numbers, &[":in:", ":out:", ":in:", ":out:", ":In:", ":"]);
    for part in 0..=numbers.below(3) {
        if part > 0 {
            text.push(':');
        }
        text += &match numbers.below(8) {
            0 => {
                pick(numbers, &["", "+1", "-1", "00", "007", "4294967295", "4294967296", " 1", "1_0", "٣"]).to_string()
            }
            _ => (numbers.below(300)).to_string(),
        };
    }
    if numbers.below(6) == 0 {
        let mut bytes = text.into_bytes();
        mutate(numbers, &mut bytes, b":out:0:in");
        text = String::from_utf8_lossy(&bytes).into_owned();
    }
    let expected = match text.parse::<Place>() {
        Ok(place) => json!({ "result": "ok", "shown": place.to_string() }),
        Err(_) => json!({ "result": "bad" }),
    };
    Case { input: json!({ "text": text }), expected }
}

fn entries(numbers: &mut Numbers, least: usize) -> Vec<Vec<u8>> {
    let most = pick(numbers, &[3, 10, 34, 70]);
    (0..least + numbers.below(most)).map(|_| entry(numbers)).collect()
}

fn entry(numbers: &mut Numbers) -> Vec<u8> {
    let len = pick(numbers, &[0, 1, 3, 8]);
    numbers.bytes(len)
}

fn tree(entries: &[Vec<u8>]) -> Tree {
    entries.iter().map(|entry| leaf_hash(entry)).collect()
}

/// A list, its root, and proofs in it.
pub fn list(numbers: &mut Numbers) -> Case {
    let entries = entries(numbers, 0);
    let tree = tree(&entries);
    let (size, index, old) =
        (tree.size(), numbers.below(entries.len()) as u64, numbers.below(entries.len() + 1) as u64);
    let range = part(numbers, size);
    let expected = json!({
        "result": "ok",
        "range": tree.range(range.clone(), size).map(|proof| hexes(&proof)),
        "root": merkle_root(&entries),
        "inclusion": tree.inclusion(index, size).map(|proof| hexes(&proof)),
        "consistency": tree.consistency(old, size).map(|proof| hexes(&proof)),
    });
    Case {
        input: json!({ "leaves": hexes(&entries), "index": index, "old": old, "range": [range.start, range.end] }),
        expected,
    }
}

fn change(numbers: &mut Numbers, proof: &mut Vec<Hash32>) {
    let at = numbers.below(proof.len());
    match numbers.below(5) {
        0 => proof.push(Hash32(hash(numbers))),
        1 => drop(proof.pop()),
        2 if !proof.is_empty() => proof[at].0[31] ^= 1,
        3 if !proof.is_empty() => drop(proof.remove(at)),
        _ => proof.reverse(),
    }
}

/// Another number, most often close by.
pub fn near(numbers: &mut Numbers, number: u64) -> u64 {
    match numbers.below(5) {
        0 => number.wrapping_sub(1),
        1 => number.wrapping_add(1),
        2 => number ^ 1 << numbers.below(8),
        3 => number.wrapping_mul(2),
        _ => wide(numbers),
    }
}

/// A claim that an entry is in a list.
pub fn inclusion(numbers: &mut Numbers) -> Case {
    let entries = entries(numbers, 1);
    let tree = tree(&entries);
    let mut index = numbers.below(entries.len()) as u64;
    let size = index + 1 + numbers.below(entries.len() - index as usize) as u64;
    let mut proof = tree.inclusion(index, size).expect("below the size");
    let (mut leaf, mut head) = (entries[index as usize].clone(), tree.head(size).expect("it had this size"));
    for _ in 0..pick(numbers, &[0, 0, 1, 1, 2]) {
        match numbers.below(5) {
            0 => index = near(numbers, index),
            1 => head.size = near(numbers, head.size),
            2 => leaf = entry(numbers),
            3 => head.root = Hash32(hash(numbers)),
            _ => change(numbers, &mut proof),
        }
    }
    let holds = verify_inclusion(&leaf_hash(&leaf), index, &head, &proof);
    let input = json!({
        "leaf": hex(&leaf), "index": index, "size": head.size, "root": head.root, "proof": hexes(&proof),
    });
    Case { input, expected: json!({ "result": if holds { "holds" } else { "fails" } }) }
}

/// Entries side by side in a list.
fn part(numbers: &mut Numbers, size: u64) -> Range<u64> {
    let start = numbers.below(size as usize + 1) as u64;
    start..start + numbers.below((size - start) as usize + 1) as u64
}

/// A claim that entries stand side by side in a list.
pub fn range(numbers: &mut Numbers) -> Case {
    let entries = entries(numbers, 0);
    let tree = tree(&entries);
    let part = part(numbers, tree.size());
    let size = part.end + numbers.below((tree.size() - part.end) as usize + 1) as u64;
    let mut proof = tree.range(part.clone(), size).expect("within the size");
    let (mut begin, mut head) = (part.start, tree.head(size).expect("it had this size"));
    let mut leaves = entries[part.start as usize..part.end as usize].to_vec();
    for _ in 0..pick(numbers, &[0, 0, 1, 1, 2]) {
        match numbers.below(6) {
            0 => begin = near(numbers, begin),
            1 => head.size = near(numbers, head.size),
            2 => drop(leaves.pop()),
            3 => leaves.push(entry(numbers)),
            4 => head.root = Hash32(hash(numbers)),
            _ => change(numbers, &mut proof),
        }
    }
    let hashes: Vec<_> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    let holds = verify_range(&hashes, begin, &head, &proof);
    let input = json!({
        "leaves": hexes(&leaves), "begin": begin, "size": head.size, "root": head.root, "proof": hexes(&proof),
    });
    Case { input, expected: json!({ "result": if holds { "holds" } else { "fails" } }) }
}

/// A claim that a list is how another begins.
pub fn consistency(numbers: &mut Numbers) -> Case {
    let entries = entries(numbers, 0);
    let tree = tree(&entries);
    let old = numbers.below(entries.len() + 1) as u64;
    let new = old + numbers.below(entries.len() + 1 - old as usize) as u64;
    let mut proof = tree.consistency(old, new).expect("it had these sizes");
    let [mut old, mut new] = [old, new].map(|size| tree.head(size).expect("it had this size"));
    for _ in 0..pick(numbers, &[0, 0, 1, 1, 2]) {
        match numbers.below(6) {
            0 => old.size = near(numbers, old.size),
            1 => new.size = near(numbers, new.size),
            2 => (old, new) = (new, old),
            3 => old.root = Hash32(hash(numbers)),
            4 => (old.root, new.root) = ([new.root, old.root][numbers.below(2)], new.root),
            _ => change(numbers, &mut proof),
        }
    }
    let holds = verify_consistency(&old, &new, &proof);
    let head = |TreeHead { size, root }: TreeHead| (size, root);
    let ((old, old_root), (new, new_root)) = (head(old), head(new));
    let input = json!({
        "old": old, "old_root": old_root, "new": new, "new_root": new_root, "proof": hexes(&proof),
    });
    Case { input, expected: json!({ "result": if holds { "holds" } else { "fails" } }) }
}

/// The leaf of an item.
pub fn queue_leaf(numbers: &mut Numbers) -> Case {
    let mut number = || wide(numbers) as u32;
    let (height, tx_index, index, position) = (number(), number(), number(), number());
    let carrier = pick(numbers, &[Carrier::Taproot, Carrier::OpReturn]);
    let (txid, block_hash, tx) = (hash(numbers), hash(numbers), entry(numbers));
    let leaf = QueueLeaf {
        height,
        block_hash: BlockHash::from_byte_array(block_hash),
        tx_index,
        place: Place { txid: Txid::from_byte_array(txid), carrier, index, position },
        tx_hash: sortie::primitives::sha256(&tx),
    };
    let input = json!({
        "height": height, "block_hash": hex(block_hash), "transaction_index": tx_index, "txid": hex(txid),
        "from_output": carrier == Carrier::OpReturn, "index": index, "position": position, "tx": hex(&tx),
    });
    Case { input, expected: json!({ "result": "ok", "leaf": hex(leaf.bytes()) }) }
}

/// A header with its hash, over transactions with their root.
pub fn l2_block(numbers: &mut Numbers) -> Case {
    let txs = entries(numbers, 0);
    let id = hash(numbers);
    let header = L2Header {
        number: wide(numbers),
        parent: Hash32(hash(numbers)),
        origin: BlockRef { height: wide(numbers) as u32, hash: BlockHash::from_byte_array(hash(numbers)) },
        timestamp: wide(numbers),
        forced_end: wide(numbers),
        queue_size: wide(numbers),
        queue_root: Hash32(hash(numbers)),
        txs_root: merkle_root(&txs),
    };
    let input = json!({
        "rollup_id": hex(id), "number": header.number, "parent": header.parent, "origin_height": header.origin.height,
        "origin_hash": hex(header.origin.hash.to_byte_array()), "timestamp": header.timestamp,
        "forced_end": header.forced_end, "queue_size": header.queue_size, "queue_root": header.queue_root,
        "txs": hexes(&txs),
    });
    Case { input, expected: json!({ "result": "ok", "hash": header.hash(&RollupId(id)) }) }
}
