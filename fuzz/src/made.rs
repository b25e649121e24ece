//! Bitcoin transactions and blocks made up for a purpose: whole, with true Merkle roots, without work.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Txid, Witness, WitnessMerkleNode, XOnlyPublicKey, transaction,
};
use sortie::envelope::{Carrier, leaf_script, op_return_script};

const REGTEST_BITS: u32 = 0x207f_ffff;
const WITNESS_RESERVED: [u8; 32] = [0; 32];
/// `OP_RETURN push36 aa21a9ed`: BIP141.
const COMMITMENT: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
/// The x coordinate of the curve's generator: the key that every leaf ends in.
const KEY: [u8; 32] = [
    0x79, 0xbe, 0x66, 0x7e, 0xf9, 0xdc, 0xbb, 0xac, 0x55, 0xa0, 0x62, 0x95, 0xce, 0x87, 0x0b, 0x07, 0x02, 0x9b, 0xfc,
    0xdb, 0x2d, 0xce, 0x28, 0xd9, 0x59, 0xf2, 0x81, 0x5b, 0x16, 0xf8, 0x17, 0x98,
];

/// The key that every leaf ends in.
pub fn leaf_key() -> XOnlyPublicKey {
    XOnlyPublicKey::from_slice(&KEY).expect("the generator is a point")
}

/// The witness that spends a leaf: a signature's place, the leaf, a control block without a branch.
pub fn leaf_witness(leaf: &[u8]) -> Witness {
    let control = [&[0xc0], &KEY[..]].concat();
    Witness::from_slice(&[&[0x51; 64], leaf, &control])
}

/// An input that spends output `salt` of a transaction that never was.
pub fn input(salt: u32, witness: Witness) -> TxIn {
    TxIn {
        previous_output: OutPoint { txid: Txid::from_byte_array([0xee; 32]), vout: salt },
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness,
    }
}

/// An output of 0 sat.
pub fn output(script: &[u8]) -> TxOut {
    TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script.to_vec()) }
}

/// A transaction of these inputs and outputs.
pub fn transaction(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// A transaction that carries `payload`, other than those with another salt.
pub fn carry(carrier: Carrier, payload: &[u8], salt: u32) -> Transaction {
    match carrier {
        Carrier::Taproot => {
            let witness = leaf_witness(leaf_script(payload, &leaf_key()).as_bytes());
            transaction(vec![input(salt, witness)], vec![output(&[0x51])])
        }
        Carrier::OpReturn => {
            let script = op_return_script(payload);
            transaction(vec![input(salt, Witness::new())], vec![output(script.as_bytes())])
        }
    }
}

/// A block header after `parent` for no transactions in particular.
pub fn header(parent: BlockHash, time: u32) -> Header {
    Header {
        version: Version::TWO,
        prev_blockhash: parent,
        merkle_root: TxMerkleNode::all_zeros(),
        time,
        bits: CompactTarget::from_consensus(REGTEST_BITS),
        nonce: 0,
    }
}

/// A block after `parent` with a coinbase that commits to the witnesses.
///
/// `salt` stands in the coinbase: blocks of two branches differ in it.
pub fn block(parent: BlockHash, time: u32, salt: u32, txs: Vec<Transaction>) -> Block {
    let mut coinbase = transaction(vec![input(0, Witness::from_slice(&[WITNESS_RESERVED]))], vec![output(&[0x51])]);
    coinbase.input[0].previous_output = OutPoint::null();
    coinbase.input[0].script_sig = ScriptBuf::from_bytes([&[4], &salt.to_le_bytes()[..]].concat());
    let mut block = Block { header: header(parent, time), txdata: [vec![coinbase], txs].concat() };
    let witness_root = block.witness_root().unwrap_or(WitnessMerkleNode::all_zeros());
    let commitment = Block::compute_witness_commitment(&witness_root, &WITNESS_RESERVED);
    block.txdata[0].output.push(output(&[&COMMITMENT[..], &commitment.to_byte_array()].concat()));
    block.header.merkle_root = block.compute_merkle_root().expect("a block with a coinbase");
    block
}
