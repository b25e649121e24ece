//! Envelopes in whole transactions and raw blocks.
//!
//! A raw block is searched for the needle (magic and namespace) as bytes first: most blocks hold none
//! and are not parsed. One that does is checked against its header before anything in it is believed, and
//! only its transactions with a needle are decoded.

use super::raw_block::{RawBlock, header_and_coinbase, lost_its_witness};
use super::{Carrier, Decoded, Flaw, MAGIC, Payload, op_return, taproot};
use crate::primitives::Namespace;
use alloc::vec::Vec;
use bitcoin::consensus::encode;
use bitcoin::{Transaction, Txid, block};
use memchr::memmem;

/// An envelope, or a flawed candidate for one, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The transaction's index in its block; 0 for a transaction looked at alone.
    pub tx_index: u32,
    /// The transaction.
    pub txid: Txid,
    /// In an input or in an output.
    pub carrier: Carrier,
    /// The input's or output's index.
    pub index: u32,
    /// As the candidate states it.
    pub namespace: Namespace,
    /// The payload, or why it is none.
    pub payload: Result<Payload, Flaw>,
}

/// A raw block's header and what was found behind it, in Bitcoin order.
#[derive(Clone, Debug)]
pub struct ScannedBlock {
    /// The block's header.
    pub header: block::Header,
    /// Envelopes and flawed candidates: by transaction index, inputs before outputs, by index.
    pub found: Vec<Found>,
}

/// Bytes that are not the block which their header names: never to be taken for an empty block.
#[derive(Debug, thiserror::Error)]
pub enum BadBlock {
    /// Not a serialised block.
    #[error("not a Bitcoin block: {0}")]
    Encoding(encode::Error),
    /// The transactions do not hash to the header's Merkle root.
    #[error("block {0}: the transactions do not match the header's merkle root")]
    MerkleRoot(bitcoin::BlockHash),
    /// The witnesses do not hash to the coinbase's commitment (BIP141).
    #[error("block {0}: the witnesses do not match the coinbase's commitment")]
    WitnessCommitment(bitcoin::BlockHash),
}

/// Every envelope and flawed candidate of a raw block, of one namespace or of all.
///
/// # Errors
/// [`BadBlock`], if a needle is there and the bytes are not a whole block that matches its header; if none
/// is there, only for bytes that do not begin as a block or that lost their witnesses.
pub fn scan_block(raw: &[u8], namespace: Option<Namespace>) -> Result<ScannedBlock, BadBlock> {
    let mut needle = MAGIC.to_vec();
    if let Some(namespace) = namespace {
        needle.extend_from_slice(&namespace.0);
    }
    if memmem::find(raw, &needle).is_none() {
        let (header, coinbase) = header_and_coinbase(raw).map_err(BadBlock::Encoding)?;
        if lost_its_witness(&coinbase) {
            return Err(BadBlock::WitnessCommitment(header.block_hash()));
        }
        return Ok(ScannedBlock { header, found: Vec::new() });
    }
    let block = whole_block(raw)?;
    let needle = memmem::Finder::new(&needle);
    let mut found = Vec::new();
    // The coinbase, index 0, carries nothing.
    for (index, tx) in (0u32..).zip(&block.txs).skip(1).filter(|(_, tx)| needle.find(tx.bytes).is_some()) {
        found.extend(scan_indexed(index, &tx.decode().map_err(BadBlock::Encoding)?, namespace));
    }
    Ok(ScannedBlock { header: block.header, found })
}

/// Checks that bytes are a whole block that matches its header, transactions and witnesses.
///
/// For whoever must know that nothing is there: where the needle is not found, [`scan_block`] has not looked.
///
/// # Errors
/// [`BadBlock`].
pub fn check_block(raw: &[u8]) -> Result<(), BadBlock> {
    whole_block(raw).map(drop)
}

fn whole_block(raw: &[u8]) -> Result<RawBlock<'_>, BadBlock> {
    let block = RawBlock::read(raw).map_err(BadBlock::Encoding)?;
    block.check()?;
    Ok(block)
}

/// Every envelope and flawed candidate of a transaction that is looked at alone.
pub fn scan_transaction(tx: &Transaction, namespace: Option<Namespace>) -> Vec<Found> {
    scan_indexed(0, tx, namespace)
}

fn scan_indexed(tx_index: u32, tx: &Transaction, wanted: Option<Namespace>) -> Vec<Found> {
    let inputs = tx.input.iter().map(|input| taproot::decode(&input.witness));
    let outputs = tx.output.iter().map(|output| op_return::decode(output.script_pubkey.as_bytes()));
    let inputs = (0u32..).zip(inputs).map(|(index, decoded)| (Carrier::Taproot, index, decoded));
    let outputs = (0u32..).zip(outputs).map(|(index, decoded)| (Carrier::OpReturn, index, decoded));
    let mut txid = None;
    inputs
        .chain(outputs)
        .filter_map(|(carrier, index, decoded)| {
            let (namespace, payload) = match decoded {
                Decoded::Absent => return None,
                Decoded::Invalid(namespace, flaw) => (namespace, Err(flaw)),
                Decoded::Valid(payload) => (payload.namespace, Ok(payload)),
            };
            if wanted.is_some_and(|wanted| wanted != namespace) {
                return None;
            }
            // Only a transaction with a candidate is hashed.
            let txid = *txid.get_or_insert_with(|| tx.compute_txid());
            Some(Found { tx_index, txid, carrier, index, namespace, payload })
        })
        .collect()
}
