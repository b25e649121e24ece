//! The search for envelopes: in scripts, witnesses, transactions and raw blocks.

use super::input::Input;
use super::made;
use bitcoin::consensus::{deserialize, deserialize_partial, serialize};
use bitcoin::hashes::Hash;
use bitcoin::script::Instruction;
use bitcoin::{BlockHash, Script, Transaction, Witness};
use sortie::envelope::{Carrier, Found, MAGIC, Payload, leaf_script, op_return_script, scan_block, scan_transaction};
use sortie::primitives::Namespace;
use std::collections::BTreeSet;

/// An output script.
pub fn output_script(data: &[u8]) {
    let tx = made::transaction(vec![made::input(0, Witness::new())], vec![made::output(data)]);
    let found = check_transaction(&tx);
    let valid = found.first().is_some_and(|found| found.payload.is_ok());
    assert_eq!(valid, is_canonical_op_return(data), "Valid means: the encoding of a payload");
}

/// A witness as Bitcoin serialises it, or else the leaf script in a sound one.
pub fn witness(data: &[u8]) {
    let witness: Witness = deserialize(data).unwrap_or_else(|_| made::leaf_witness(data));
    check_transaction(&made::transaction(vec![made::input(0, witness)], Vec::new()));
    let leaf = made::leaf_witness(data);
    let found = check_transaction(&made::transaction(vec![made::input(0, leaf)], Vec::new()));
    let valid = found.first().is_some_and(|found| found.payload.is_ok());
    assert_eq!(valid, is_canonical_leaf(data), "Valid means: the encoding of a payload");
}

/// A transaction as Bitcoin serialises it.
pub fn transaction(data: &[u8]) {
    if let Ok(tx) = deserialize(data) {
        check_transaction(&tx);
    }
}

/// A raw block as it comes, or transactions in a block that is made whole around them, whose bytes are then
/// changed.
pub fn block(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(3) {
        0 => check_raw_block(input.rest()),
        mode => {
            let (at, xor) = (input.u64(), input.byte());
            let txs = transactions(input.rest());
            let mut raw = check_whole_block(txs);
            if mode == 2 {
                change(&mut raw, at, xor);
            }
        }
    }
}

/// As many transactions as the bytes hold one after another.
fn transactions(mut data: &[u8]) -> Vec<Transaction> {
    let mut txs = Vec::new();
    while let Ok((tx, len)) = deserialize_partial(data) {
        txs.push(tx);
        data = &data[len..];
    }
    txs
}

fn check_raw_block(raw: &[u8]) {
    let Ok(all) = scan_block(raw, None) else { return };
    for namespace in namespaces(&all.found) {
        let one = scan_block(raw, Some(namespace)).expect("it is a block whatever is looked for");
        assert_eq!(one.header, all.header);
        assert_eq!(one.found, of_namespace(&all.found, namespace));
    }
}

/// What the search finds in a whole block is what it finds in each transaction; gives the block's bytes.
fn check_whole_block(txs: Vec<Transaction>) -> Vec<u8> {
    let block = made::block(BlockHash::all_zeros(), 0, 0, txs);
    let raw = serialize(&block);
    let different: BTreeSet<_> = block.txdata.iter().map(Transaction::compute_txid).collect();
    let repeats = different.len() < block.txdata.len();
    let expected: Vec<_> = (0u32..)
        .zip(&block.txdata)
        .skip(1)
        .flat_map(|(tx_index, tx)| check_transaction(tx).into_iter().map(move |found| Found { tx_index, ..found }))
        .collect();
    match scan_block(&raw, None) {
        Ok(scanned) => {
            assert!(!repeats || expected.is_empty(), "a transaction that stands there twice");
            assert_eq!(scanned.found, expected);
        }
        Err(error) => assert!(repeats, "{error}"),
    }
    check_raw_block(&raw);
    raw
}

/// A whole block with one byte changed behind its header is no block, as long as there is something to find.
fn change(raw: &mut [u8], at: u64, xor: u8) {
    const HEADER_LEN: usize = 80;
    let behind = raw.len() - HEADER_LEN;
    raw[HEADER_LEN + usize::try_from(at % behind as u64).expect("below a length")] ^= xor;
    let needle = raw.windows(MAGIC.len()).any(|window| window == MAGIC);
    assert!(xor == 0 || !needle || scan_block(raw, None).is_err(), "not what the header commits to");
}

/// Scans a transaction and holds the answer against its scripts.
fn check_transaction(tx: &Transaction) -> Vec<Found> {
    let found = scan_transaction(tx, None);
    let place = |found: &Found| (found.carrier == Carrier::OpReturn, found.index);
    assert!(found.is_sorted_by(|a, b| place(a) < place(b)), "inputs before outputs, each once");
    for found in &found {
        assert_eq!((found.tx_index, found.txid), (0, tx.compute_txid()));
        let script = match found.carrier {
            Carrier::Taproot => leaf_of(&tx.input[found.index as usize].witness).expect("a leaf was read"),
            Carrier::OpReturn => tx.output[found.index as usize].script_pubkey.as_bytes(),
        };
        assert_eq!(first_namespace(script), Some(found.namespace));
        if let Ok(payload) = &found.payload {
            assert_eq!(payload.namespace, found.namespace);
            let bytes = payload.encode().expect("it was decoded");
            assert_eq!(script, encode(found.carrier, &bytes, script), "a second encoding");
        }
    }
    let leaves = tx.input.iter().filter_map(|input| leaf_of(&input.witness));
    let scripts = leaves.chain(tx.output.iter().map(|output| output.script_pubkey.as_bytes()));
    assert_eq!(scripts.filter_map(first_namespace).count(), found.len(), "every candidate, and nothing else");
    for namespace in namespaces(&found) {
        assert_eq!(scan_transaction(tx, Some(namespace)), of_namespace(&found, namespace));
    }
    found
}

/// The script that carries a payload; a leaf's key is that of `like`.
fn encode(carrier: Carrier, payload: &[u8], like: &[u8]) -> Vec<u8> {
    match carrier {
        Carrier::OpReturn => op_return_script(payload).into_bytes(),
        Carrier::Taproot => {
            let mut leaf = leaf_script(payload, &made::leaf_key()).into_bytes();
            let (len, like_len) = (leaf.len(), like.len());
            if like_len >= 33 {
                leaf[len - 33..len - 1].copy_from_slice(&like[like_len - 33..like_len - 1]);
            }
            leaf
        }
    }
}

/// Whether any payload's encoding is this output script: the pushes are read by another parser than ours.
fn is_canonical_op_return(script: &[u8]) -> bool {
    is_encoding_of(Carrier::OpReturn, script, &pushes(script).concat())
}

fn is_canonical_leaf(script: &[u8]) -> bool {
    let pushes = pushes(script);
    let chunks = &pushes[..pushes.len().saturating_sub(1)];
    is_encoding_of(Carrier::Taproot, script, &chunks.concat())
}

fn is_encoding_of(carrier: Carrier, script: &[u8], payload: &[u8]) -> bool {
    Payload::decode(payload).is_ok() && encode(carrier, payload, script) == script
}

fn pushes(script: &[u8]) -> Vec<&[u8]> {
    let data = |instruction| match instruction {
        Instruction::PushBytes(push) => Some(push.as_bytes()),
        Instruction::Op(_) => None,
    };
    Script::from_bytes(script).instructions().map_while(Result::ok).filter_map(data).collect()
}

/// The leaf script: the last element but one, an annex not counted.
fn leaf_of(witness: &Witness) -> Option<&[u8]> {
    let mut elements: Vec<_> = witness.iter().collect();
    if elements.len() >= 2 && elements.last().is_some_and(|last| last.starts_with(&[0x50])) {
        elements.pop();
    }
    elements.pop();
    elements.pop()
}

/// The four bytes after the first magic bytes.
fn first_namespace(script: &[u8]) -> Option<Namespace> {
    let at = script.windows(MAGIC.len()).position(|window| window == MAGIC)?;
    script.get(at + 4..at + 8)?.try_into().ok().map(Namespace)
}

fn namespaces(found: &[Found]) -> BTreeSet<Namespace> {
    found.iter().map(|found| found.namespace).take(4).collect()
}

fn of_namespace(found: &[Found], namespace: Namespace) -> Vec<Found> {
    found.iter().filter(|found| found.namespace == namespace).cloned().collect()
}
