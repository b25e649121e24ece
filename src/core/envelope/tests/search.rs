//! Envelopes in whole blocks: what is found, in which order, and which bytes are refused.

use super::*;
use crate::primitives::BlockRef;
use crate::queue::items_of;
use alloc::collections::BTreeSet;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, BlockHash, Transaction};

const OTHER: Namespace = Namespace([9; 4]);

fn block_of(txs: Vec<Transaction>) -> Block {
    blocks::block(BlockHash::all_zeros(), 1_700_000_000, 0, Vec::new(), txs)
}

fn leaf(body: &[u8]) -> Vec<Vec<u8>> {
    blocks::leaf_witness(leaf_script(&tx_payload(body), &blocks::leaf_key()).as_bytes())
}

fn op_return(body: &[u8]) -> bitcoin::TxOut {
    blocks::output(op_return_script(&tx_payload(body)).as_bytes())
}

/// Envelopes `1`, `2`, ... in Bitcoin order, among inputs and outputs that hold none.
fn busy_block() -> Block {
    let key_path = || blocks::input(90, [[0x51; 64].to_vec()]);
    let plain = || blocks::output(&[0x51]);
    let first = blocks::transaction(
        [key_path(), blocks::input(1, leaf(b"1")), blocks::input(2, leaf(b"2"))].into(),
        [op_return(b"3"), plain(), op_return(b"4")].into(),
    );
    let silent = blocks::transaction([key_path()].into(), [plain()].into());
    let last = blocks::transaction([blocks::input(3, leaf(b"6"))].into(), [op_return(b"7")].into());
    block_of([first, silent, blocks::carry(Carrier::OpReturn, &tx_payload(b"5"), 4), last].into())
}

#[test]
fn envelopes_are_found_in_bitcoin_order_with_their_places() {
    let block = busy_block();
    let scanned = scan_block(&serialize(&block), Some(NAMESPACE)).unwrap();
    assert_eq!(scanned.header, block.header);
    let found: Vec<_> = scanned
        .found
        .iter()
        .map(|found| (found.tx_index, found.carrier, found.index, found.payload.clone().unwrap().body))
        .collect();
    let body = |text: &[u8]| Body::Tx(text.to_vec());
    let expected = [
        (1, Carrier::Taproot, 1, body(b"1")),
        (1, Carrier::Taproot, 2, body(b"2")),
        (1, Carrier::OpReturn, 0, body(b"3")),
        (1, Carrier::OpReturn, 2, body(b"4")),
        (3, Carrier::OpReturn, 0, body(b"5")),
        (4, Carrier::Taproot, 0, body(b"6")),
        (4, Carrier::OpReturn, 0, body(b"7")),
    ];
    assert_eq!(found, expected);
    for found in &scanned.found {
        assert_eq!(found.txid, block.txdata[found.tx_index as usize].compute_txid());
    }
}

#[test]
fn a_flawed_envelope_is_shown_but_joins_no_queue() {
    let flawed = [&[0x6a, 0x4c, 14], &tx_payload(b"hello")[..]].concat();
    let shared = Payload { namespace: NAMESPACE, body: Body::Txs([[1; 64].to_vec(), [1; 64].to_vec()].into()) };
    let block = block_of(
        [blocks::spend_to_script(&flawed), blocks::carry(Carrier::Taproot, &shared.encode().unwrap(), 1)].into(),
    );
    let scanned = scan_block(&serialize(&block), None).unwrap();
    assert_eq!(scanned.found[0].payload, Err(Flaw::NonMinimalPush));
    assert_eq!(scanned.found[0].namespace, NAMESPACE);

    let items = items_of(BlockRef { height: 7, hash: block.block_hash() }, &scanned.found);
    let places: Vec<_> = items.iter().map(|item| (item.tx_index, item.place.position, item.tx.len())).collect();
    assert_eq!(places, [(2, 0, 64), (2, 1, 64)], "the same bytes twice are two items");
    assert_ne!(items[0].leaf(), items[1].leaf());
}

#[test]
fn the_coinbase_carries_nothing() {
    let block = blocks::block(BlockHash::all_zeros(), 0, 0, [op_return(b"coinbase")].into(), Vec::new());
    assert_eq!(scan_block(&serialize(&block), None).unwrap().found, []);
}

#[test]
fn another_namespace_is_not_found_under_the_filter() {
    let other = Payload { namespace: OTHER, body: Body::Tx([1].into()) }.encode().unwrap();
    let mine = tx_payload(b"mine");
    let raw = serialize(&block_of(
        [blocks::carry(Carrier::OpReturn, &other, 1), blocks::carry(Carrier::Taproot, &mine, 2)].into(),
    ));
    let namespaces =
        |filter| scan_block(&raw, filter).unwrap().found.iter().map(|found| found.namespace).collect::<Vec<_>>();
    assert_eq!(namespaces(None), [OTHER, NAMESPACE]);
    assert_eq!(namespaces(Some(NAMESPACE)), [NAMESPACE]);
    assert_eq!(namespaces(Some(OTHER)), [OTHER]);
    assert_eq!(namespaces(Some(Namespace([8; 4]))), []);
}

#[test]
fn a_block_that_is_not_what_its_header_names_is_refused() {
    type Alter = fn(&mut Block);
    let judged = |raw: &[u8]| [scan_block(raw, None).map(drop), check_block(raw)];
    assert!(judged(&serialize(&busy_block())).iter().all(Result::is_ok));
    let wrong_root: [(&str, Alter); 5] = [
        ("another merkle root in the header", |block| block.header.merkle_root = Hash::all_zeros()),
        ("an output's value", |block| block.txdata[2].output[0].value = Amount::ONE_SAT),
        ("a transaction left out", |block| drop(block.txdata.remove(2))),
        ("two transactions exchanged", |block| block.txdata.swap(1, 2)),
        // The tree of five leaves pairs the last with itself, as often as it takes (CVE-2012-2459).
        ("the last transaction twice", |block| block.txdata.push(block.txdata[4].clone())),
    ];
    for (name, alter) in wrong_root {
        let mut block = busy_block();
        alter(&mut block);
        for result in judged(&serialize(&block)) {
            let is_refused = matches!(result, Err(BadBlock::MerkleRoot(hash)) if hash == block.block_hash());
            assert!(is_refused, "{name}: {result:?}");
        }
    }
    let wrong_witness: [(&str, Alter); 5] = [
        ("a witness", |block| block.txdata[1].input[0].witness.push([1])),
        ("a witness removed", |block| block.txdata[1].input[1].witness.clear()),
        ("the coinbase's witness", |block| block.txdata[0].input[0].witness.push([1; 32])),
        ("the coinbase's witness removed", |block| block.txdata[0].input[0].witness.clear()),
        ("every witness removed", |block| {
            block.txdata.iter_mut().flat_map(|tx| &mut tx.input).for_each(|input| input.witness.clear());
        }),
    ];
    for (name, alter) in wrong_witness {
        let mut block = busy_block();
        alter(&mut block);
        for result in judged(&serialize(&block)) {
            assert!(matches!(result, Err(BadBlock::WitnessCommitment(_))), "{name}: {result:?}");
        }
    }
    let raw = serialize(&busy_block());
    for (name, bytes) in
        [("cut", &raw[..raw.len() - 1]), ("longer", &[&raw[..], &[0]].concat()), ("a header's part", &raw[..79])]
    {
        assert!(judged(bytes).iter().all(|result| matches!(result, Err(BadBlock::Encoding(_)))), "{name}");
    }
}

#[test]
fn a_block_without_its_witnesses_is_never_taken_for_an_empty_one() {
    let mut block = block_of([blocks::carry(Carrier::Taproot, &tx_payload(b"hello"), 1)].into());
    block.txdata.iter_mut().flat_map(|tx| &mut tx.input).for_each(|input| input.witness.clear());
    let result = scan_block(&serialize(&block), Some(NAMESPACE));
    assert!(matches!(result, Err(BadBlock::WitnessCommitment(_))), "{result:?}");
}

#[test]
fn a_block_without_the_needle_is_an_empty_one() {
    let block = block_of([blocks::spend_to_script(&[0x51])].into());
    let scanned = scan_block(&serialize(&block), Some(NAMESPACE)).unwrap();
    assert_eq!((scanned.header, scanned.found), (block.header, Vec::new()));

    // No witness in the block: the coinbase need not commit, and 37 bytes that look like it do not.
    let mut block = block;
    block.txdata[0].input[0].witness.clear();
    block.txdata[0].output.pop();
    let almost = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed], &[7; 31][..]].concat();
    block.txdata[0].output.push(blocks::output(&almost));
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    let raw = serialize(&block);
    assert_eq!(deserialize::<Block>(&raw).unwrap(), block);
    assert_eq!(scan_block(&raw, Some(NAMESPACE)).unwrap().found, []);
}

/// What rust-bitcoin thinks of the bytes, decoding all of them.
fn is_block(raw: &[u8]) -> bool {
    let repeats = |block: &Block| {
        let txids: BTreeSet<_> = block.txdata.iter().map(Transaction::compute_txid).collect();
        txids.len() < block.txdata.len()
    };
    let has_lost_witnesses = |block: &Block| {
        let has_witness = |tx: &Transaction| tx.input.iter().any(|input| !input.witness.is_empty());
        !has_witness(&block.txdata[0])
            && block.txdata[0]
                .output
                .iter()
                .any(|output| output.script_pubkey.as_bytes().starts_with(&[0x6a, 0x24, 0xaa]))
    };
    deserialize::<Block>(raw).is_ok_and(|block| {
        block.check_merkle_root() && block.check_witness_commitment() && !repeats(&block) && !has_lost_witnesses(&block)
    })
}

/// One byte changed, left out or added, at every place: rust-bitcoin takes the same bytes for a block.
#[test]
fn the_same_bytes_are_a_block_as_for_rust_bitcoin() {
    let with_witnesses = busy_block();
    let mut without =
        block_of([blocks::spend_to_script(&[0x51]), blocks::carry(Carrier::OpReturn, &tx_payload(b"1"), 1)].into());
    without.txdata[0].input[0].witness.clear();
    without.txdata[0].output.pop();
    without.header.merkle_root = without.compute_merkle_root().unwrap();
    for block in [with_witnesses, without] {
        let raw = serialize(&block);
        let mut accepted = 0;
        for at in 0..raw.len() {
            for change in [1u8, 0x80, 0xff] {
                let mut changed = raw.clone();
                changed[at] ^= change;
                assert_eq!(check_block(&changed).is_ok(), is_block(&changed), "byte {at} changed by {change}");
                accepted += u32::from(is_block(&changed));
            }
            let shorter = [&raw[..at], &raw[at + 1..]].concat();
            assert_eq!(check_block(&shorter).is_ok(), is_block(&shorter), "without byte {at}");
            let longer = [&raw[..at], &[0], &raw[at..]].concat();
            assert_eq!(check_block(&longer).is_ok(), is_block(&longer), "a zero in front of byte {at}");
        }
        // The header but for its Merkle root: the block's own hash tells.
        assert_eq!(accepted, 3 * (80 - 32));
    }
}

#[test]
fn a_block_of_mainnet_is_whole() {
    let raw = bitcoin_test_data::blocks::mainnet_702861();
    assert!(check_block(raw).is_ok());
    let mut changed = raw.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    assert!(matches!(check_block(&changed), Err(BadBlock::MerkleRoot(_))));
}

/// A tree's inner nodes, read as transactions, have the root of the block whose they are (CVE-2017-12842).
#[test]
fn transactions_that_are_nodes_of_the_tree_are_refused() {
    // 64 bytes each: one input, one output, 4 bytes of script.
    let of_64_bytes = |salt| {
        let mut tx = blocks::spend_to_script(&[0x51; 4]);
        tx.input[0].previous_output.vout = salt;
        tx
    };
    let mut block = block_of(Vec::new());
    block.txdata = [of_64_bytes(1), of_64_bytes(2)].into();
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    let raw = serialize(&block);
    assert_eq!(raw.len(), 81 + 2 * 64);
    assert!(matches!(check_block(&raw), Err(BadBlock::MerkleRoot(_))));
}
