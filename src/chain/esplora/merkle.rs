//! What is mined, as far as a server can show it: the work of headers, and transactions below them.

use super::Esplora;
use crate::chain::{BlockSource, ChainError};
use crate::primitives::{BlockRef, BtcHeight};
use crate::proof::{check_work, root_above};
use bitcoin::Transaction;
use bitcoin::block::Header;
use bitcoin::hashes::sha256d;
use serde::Deserialize;

/// The way from a transaction to its block's Merkle root, as Electrum writes it.
#[derive(Deserialize)]
struct Path {
    block_height: BtcHeight,
    /// Lowest first.
    merkle: Vec<sha256d::Hash>,
    pos: u32,
}

impl Esplora {
    /// The header of a block of the best chain.
    ///
    /// # Errors
    /// It has less work than the network has demanded for years: it was made up.
    pub(crate) fn worked_header(&self, block: &BlockRef) -> Result<Header, ChainError> {
        let header = self.header(&block.hash)?;
        let checked = check_work(self.network().magic(), block.height, &header);
        checked.map_err(|why| self.malformed(&format!("/block/{}/header", block.hash), why))?;
        Ok(header)
    }

    /// Whether a block holds a transaction. If not, a reorganisation has just taken the block.
    ///
    /// # Errors
    /// The server cannot show what it has told.
    pub(crate) fn shows(&self, tx: &Transaction, block: &BlockRef, header: &Header) -> Result<bool, ChainError> {
        let route = format!("/tx/{}/merkle-proof", tx.compute_txid());
        let path: Option<Path> = self.json(&route)?;
        let path = path.filter(|path| path.block_height == block.height);
        let root = path.map(|path| root_above(tx, path.pos, &path.merkle));
        if root.is_some_and(|root| root == Ok(header.merkle_root)) {
            return Ok(true);
        }
        match self.block_hash(block.height)? == Some(block.hash) {
            true => Err(self.malformed(&route, format_args!("no proof that it is in block {}", block.hash))),
            false => Ok(false),
        }
    }
}
