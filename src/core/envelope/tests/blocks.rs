//! Bitcoin transactions and blocks that spend coins nobody has: whole, with true Merkle roots, without work.

use super::*;
use crate::envelope::{leaf_script, op_return_script};
use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::OP_PUSHNUM_1;
use bitcoin::transaction;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Txid, Witness, WitnessMerkleNode, XOnlyPublicKey,
};

const REGTEST_BITS: u32 = 0x207f_ffff;
const WITNESS_RESERVED: [u8; 32] = [0; 32];
/// The x coordinate of the curve's generator.
const KEY: [u8; 32] = [
    0x79, 0xbe, 0x66, 0x7e, 0xf9, 0xdc, 0xbb, 0xac, 0x55, 0xa0, 0x62, 0x95, 0xce, 0x87, 0x0b, 0x07, 0x02, 0x9b, 0xfc,
    0xdb, 0x2d, 0xce, 0x28, 0xd9, 0x59, 0xf2, 0x81, 0x5b, 0x16, 0xf8, 0x17, 0x98,
];

/// The key that every leaf of these tests ends in.
pub(crate) fn leaf_key() -> XOnlyPublicKey {
    XOnlyPublicKey::from_slice(&KEY).unwrap()
}

/// The witness that spends a leaf: a signature's place, the leaf, a control block without a branch.
pub(crate) fn leaf_witness(leaf: &[u8]) -> Vec<Vec<u8>> {
    let control = [&[0xc0], &KEY[..]].concat();
    [[0x51; 64].to_vec(), leaf.to_vec(), control].into()
}

/// An input that spends output `salt` of a transaction that never was.
pub(crate) fn input(salt: u32, witness: impl IntoIterator<Item = Vec<u8>>) -> TxIn {
    TxIn {
        previous_output: OutPoint { txid: Txid::from_byte_array([0xee; 32]), vout: salt },
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(&witness.into_iter().collect::<Vec<_>>()),
    }
}

/// An output of 0 sat.
pub(crate) fn output(script: &[u8]) -> TxOut {
    TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script.to_vec()) }
}

/// A transaction of these inputs and outputs.
pub(crate) fn transaction(inputs: Vec<TxIn>, outputs: Vec<TxOut>) -> Transaction {
    Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input: inputs, output: outputs }
}

/// A transaction whose only input has this witness.
pub(crate) fn spend_with_witness(witness: impl IntoIterator<Item = Vec<u8>>) -> Transaction {
    transaction([input(0, witness)].into(), [output(&[OP_PUSHNUM_1.to_u8()])].into())
}

/// A transaction whose only input spends this leaf.
pub(crate) fn spend_leaf(leaf: &[u8]) -> Transaction {
    spend_with_witness(leaf_witness(leaf))
}

/// A transaction whose only output has this script.
pub(crate) fn spend_to_script(script: &[u8]) -> Transaction {
    transaction([input(0, [])].into(), [output(script)].into())
}

/// A transaction that carries `payload`, other than those with another salt.
pub(crate) fn carry(carrier: Carrier, payload: &[u8], salt: u32) -> Transaction {
    let mut tx = match carrier {
        Carrier::Taproot => spend_leaf(leaf_script(payload, &leaf_key()).as_bytes()),
        Carrier::OpReturn => spend_to_script(op_return_script(payload).as_bytes()),
    };
    tx.input[0].previous_output.vout = salt;
    tx
}

/// A block after `parent` with a coinbase of these extra outputs, which commits to the witnesses.
///
/// `salt` stands in the coinbase: blocks of two branches differ in it.
pub(crate) fn block(
    parent: BlockHash,
    time: u32,
    salt: u32,
    coinbase_outputs: Vec<TxOut>,
    txs: Vec<Transaction>,
) -> Block {
    let mut coinbase = transaction([input(0, [WITNESS_RESERVED.to_vec()])].into(), coinbase_outputs);
    coinbase.input[0].previous_output = OutPoint::null();
    coinbase.input[0].script_sig = ScriptBuf::from_bytes([&[4], &salt.to_le_bytes()[..]].concat());
    coinbase.output.push(output(&[OP_PUSHNUM_1.to_u8()]));
    let header = Header {
        version: Version::TWO,
        prev_blockhash: parent,
        merkle_root: TxMerkleNode::all_zeros(),
        time,
        bits: CompactTarget::from_consensus(REGTEST_BITS),
        nonce: 0,
    };
    coinbase.output.push(output(&[]));
    let mut block = Block { header, txdata: [coinbase].into_iter().chain(txs).collect() };
    commit(&mut block);
    block
}

/// Makes a block's coinbase, in its last output, commit to the witnesses as they are (BIP 141), and the header to all.
pub(crate) fn commit(block: &mut Block) {
    let witness_root = block.witness_root().unwrap_or(WitnessMerkleNode::all_zeros());
    let commitment = Block::compute_witness_commitment(&witness_root, &WITNESS_RESERVED);
    let script = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed], &commitment.to_byte_array()[..]].concat();
    *block.txdata[0].output.last_mut().unwrap() = output(&script);
    block.header.merkle_root = block.compute_merkle_root().unwrap();
}
