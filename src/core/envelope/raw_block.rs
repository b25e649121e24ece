//! A serialised block as slices of its bytes: checked against its header without decoding or copying.

use super::BadBlock;
use crate::codec::{Malformed, Reader};
use alloc::vec::Vec;
use bitcoin::consensus::encode;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{Block, Transaction, TxMerkleNode, TxOut, WitnessMerkleNode, block, merkle_tree};

/// What a coinbase output that commits to the witnesses begins with (BIP141).
const COMMITMENT: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
const COMMITMENT_LEN: usize = 38;
const RESERVED_LEN: usize = 32;

/// Bytes of an input in front of its script, and behind it.
const OUTPOINT_LEN: usize = 36;
const SEQUENCE_LEN: usize = 4;
const VALUE_LEN: usize = 8;
const VERSION_LEN: usize = 4;
const LOCK_TIME_LEN: usize = 4;
/// What stands where the number of inputs is expected, if witnesses follow the outputs (BIP144).
const MARKER_AND_FLAG: [u8; 2] = [0, 1];

/// A block's header and its transactions.
#[derive(Clone, Debug)]
pub(super) struct RawBlock<'a> {
    pub header: block::Header,
    /// In their order; the coinbase is the first.
    pub txs: Vec<RawTx<'a>>,
}

/// A transaction's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawTx<'a> {
    /// All of them.
    pub bytes: &'a [u8],
    /// Its inputs and outputs, without the witnesses.
    body: &'a [u8],
    has_witness: bool,
}

impl<'a> RawBlock<'a> {
    /// Finds the transactions of a block that ends where the bytes end.
    pub fn read(raw: &'a [u8]) -> Result<Self, encode::Error> {
        let (header, at) = encode::deserialize_partial(raw)?;
        let mut reader = Reader::new(&raw[at..]);
        let count = reader.varint().map_err(malformed)?;
        let txs = (0..count).map(|_| RawTx::read(&mut reader)).collect::<Result<_, _>>().map_err(malformed)?;
        match reader.is_empty() {
            true => Ok(Self { header, txs }),
            false => Err(encode::Error::ParseFailed("there are bytes behind its last transaction")),
        }
    }

    /// Checks that it is the block which its header names, with its own witnesses.
    ///
    /// # Errors
    /// [`BadBlock`].
    pub fn check(&self) -> Result<(), BadBlock> {
        let mut txids: Vec<_> = self.txs.iter().map(RawTx::txid).collect();
        let root = merkle_tree::calculate_root(txids.iter().copied()).map(TxMerkleNode::from_raw_hash);
        txids.sort_unstable();
        // The root can be that of the block without the second of two (CVE-2012-2459).
        let repeats = txids.windows(2).any(|pair| pair[0] == pair[1]);
        let Some(coinbase) = self.txs.first().filter(|_| root == Some(self.header.merkle_root) && !repeats) else {
            return Err(BadBlock::MerkleRoot(self.header.block_hash()));
        };
        let coinbase = coinbase.decode().map_err(BadBlock::Encoding)?;
        if !coinbase.is_coinbase() {
            // Two hashes of the tree can be made to read as a transaction, but not as a coinbase (CVE-2017-12842).
            return Err(BadBlock::MerkleRoot(self.header.block_hash()));
        }
        let is_whole = match self.txs.iter().any(|tx| tx.has_witness) {
            true => self.commits_to_witnesses(&coinbase),
            false => !lost_its_witness(&coinbase),
        };
        if is_whole { Ok(()) } else { Err(BadBlock::WitnessCommitment(self.header.block_hash())) }
    }

    /// Whether the coinbase commits to the witnesses (BIP141).
    fn commits_to_witnesses(&self, coinbase: &Transaction) -> bool {
        let wtxids = self.txs.iter().skip(1).map(RawTx::wtxid);
        // The coinbase's own counts as zeros.
        let root = merkle_tree::calculate_root([sha256d::Hash::all_zeros()].into_iter().chain(wtxids));
        let commitment = coinbase.output.iter().rev().find_map(commitment);
        let reserved = match &coinbase.input[..] {
            [input] if input.witness.len() == 1 => input.witness.nth(0),
            _ => None,
        };
        let (Some(root), Some(commitment), Some(reserved)) = (root, commitment, reserved) else { return false };
        let root = WitnessMerkleNode::from_raw_hash(root);
        reserved.len() == RESERVED_LEN
            && Block::compute_witness_commitment(&root, reserved).as_byte_array().as_slice() == commitment
    }
}

impl<'a> RawTx<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let start = reader.rest();
        reader.bytes(VERSION_LEN)?;
        let has_witness = reader.rest().first() == Some(&MARKER_AND_FLAG[0]);
        if has_witness && reader.array()? != MARKER_AND_FLAG {
            return Err(Malformed);
        }
        let body = reader.rest();
        let inputs = reader.varint()?;
        for _ in 0..inputs {
            reader.bytes(OUTPOINT_LEN)?;
            reader.var_bytes()?;
            reader.bytes(SEQUENCE_LEN)?;
        }
        for _ in 0..reader.varint()? {
            reader.bytes(VALUE_LEN)?;
            reader.var_bytes()?;
        }
        let body = &body[..body.len() - reader.rest().len()];
        if has_witness {
            let mut items = 0u64;
            for _ in 0..inputs {
                let count = reader.varint()?;
                for _ in 0..count {
                    reader.var_bytes()?;
                }
                items = items.saturating_add(count);
            }
            // Without any, the transaction has another serialisation.
            if items == 0 {
                return Err(Malformed);
            }
        }
        reader.bytes(LOCK_TIME_LEN)?;
        Ok(Self { bytes: &start[..start.len() - reader.rest().len()], body, has_witness })
    }

    pub fn decode(&self) -> Result<Transaction, encode::Error> {
        encode::deserialize(self.bytes)
    }

    fn txid(&self) -> sha256d::Hash {
        if !self.has_witness {
            return self.wtxid();
        }
        let mut engine = sha256d::Hash::engine();
        engine.input(&self.bytes[..VERSION_LEN]);
        engine.input(self.body);
        engine.input(&self.bytes[self.bytes.len() - LOCK_TIME_LEN..]);
        sha256d::Hash::from_engine(engine)
    }

    fn wtxid(&self) -> sha256d::Hash {
        sha256d::Hash::hash(self.bytes)
    }
}

fn malformed(Malformed: Malformed) -> encode::Error {
    encode::Error::ParseFailed("its transactions are cut off or not serialised as Bitcoin does")
}

/// A block's header and its coinbase; what follows is not looked at.
pub(super) fn header_and_coinbase(raw: &[u8]) -> Result<(block::Header, Transaction), encode::Error> {
    let (header, at) = encode::deserialize_partial(raw)?;
    let mut reader = Reader::new(&raw[at..]);
    let coinbase = reader.varint().and_then(|_count| RawTx::read(&mut reader)).map_err(malformed)?;
    Ok((header, coinbase.decode()?))
}

/// Whether a coinbase with a witness commitment has no witness: a block served without its witnesses, in
/// which no Taproot envelope can be seen. Whoever commits must have one (BIP141).
pub(super) fn lost_its_witness(coinbase: &Transaction) -> bool {
    coinbase.input.iter().all(|input| input.witness.is_empty())
        && coinbase.output.iter().any(|output| commitment(output).is_some())
}

fn commitment(output: &TxOut) -> Option<&[u8]> {
    output.script_pubkey.as_bytes().get(..COMMITMENT_LEN)?.strip_prefix(&COMMITMENT)
}
