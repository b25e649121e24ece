//! What of the chain is believed.
//!
//! Guarantees: a transaction counts as mined if the user's own node had it in a block, or if a server shows it by a
//! Merkle proof, under a header that has the network's work and stands in the chain that the wallet follows. What
//! earlier versions of this program took from a server without that counts once it is shown, and is forgotten
//! otherwise.

use super::store::{self, Anchored};
use super::{FINAL_DEPTH, Wallet, WalletError, journal};
use crate::chain::{BlockSource, ChainError, Mempool, RpcNode};
use bdk_wallet::chain::TxUpdate;
use bdk_wallet::chain::{CheckPoint, ConfirmationBlockTime};
use bitcoin::consensus::deserialize;
use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use std::collections::BTreeSet;

use crate::{chain::Esplora, primitives::BlockRef};
use std::{collections::BTreeMap, sync::Arc};

/// What is mined because something deep that was shown hangs on it: so deep that its own block does not matter.
#[derive(Default)]
struct Below {
    txids: BTreeSet<Txid>,
}

impl Below {
    /// Takes a transaction in that was shown, with as many blocks as its own and those above are.
    fn add(&mut self, tx: &Transaction, blocks: u32) {
        if blocks >= FINAL_DEPTH {
            self.txids.extend(tx.input.iter().map(|input| input.previous_output.txid));
        }
    }
}

/// The ids of the last block that was read.
type LastBlock = Option<(BlockHash, BTreeSet<Txid>)>;

impl Wallet {
    /// Leaves of what a server says is mined only what is in the wallet's chain, with `chain` as its end, and what the
    /// server can show.
    ///
    /// # Errors
    /// It says what it cannot show.
    pub(super) fn keep_shown(
        &self,
        server: &Esplora,
        found: &mut TxUpdate<ConfirmationBlockTime>,
        chain: &CheckPoint,
    ) -> Result<(), WalletError> {
        let tip = BlockRef { height: chain.height(), hash: chain.hash() };
        if tip != self.synced_to() {
            server.worked_header(&tip)?;
        }
        let mut anchors: Vec<Anchored> = std::mem::take(&mut found.anchors).into_iter().collect();
        anchors.sort_by_key(|(anchor, _)| std::cmp::Reverse(anchor.block_id.height));
        let (mut below, mut headers) = (Below::default(), BTreeMap::new());
        let txs: BTreeMap<Txid, Arc<Transaction>> =
            found.txs.iter().map(|tx| (tx.compute_txid(), tx.clone())).collect();
        for (anchor, txid) in anchors {
            let block = BlockRef { height: anchor.block_id.height, hash: anchor.block_id.hash };
            let is_in_chain = chain.get(block.height).is_some_and(|known| known.hash() == block.hash);
            let Some(tx) = txs.get(&txid).filter(|_| is_in_chain) else { continue };
            if !below.txids.contains(&txid) && !self.is_known_in(&txid, &block) {
                let header = match headers.get(&block.hash) {
                    Some(header) => *header,
                    None => server.worked_header(&block)?,
                };
                headers.insert(block.hash, header);
                if !server.shows(tx, &block, &header)? {
                    continue;
                }
            }
            below.add(tx, tip.height + 1 - block.height);
            found.anchors.insert((anchor, txid));
        }
        Ok(())
    }

    /// Whether it was shown before that a transaction is in this block.
    fn is_known_in(&self, txid: &Txid, block: &BlockRef) -> bool {
        let known = self.bdk.tx_graph().all_anchors().get(txid);
        known.is_some_and(|anchors| anchors.iter().any(|anchor| anchor.block_id.hash == block.hash))
    }

    /// Looks for what was stored and never shown in the blocks and unspent outputs of the user's own node, and forgets
    /// what is not there.
    pub(super) fn look_again(&mut self, node: &RpcNode) -> Result<(), WalletError> {
        if self.is_shown {
            return Ok(());
        }
        let store::Unshown { anchors, outputs } = store::unshown(&self.db)?;
        let (chain, tip) = (self.bdk.latest_checkpoint(), self.synced_to().height);
        let (mut update, mut below, mut last) = (TxUpdate::default(), Below::default(), None);
        for (anchor, txid) in anchors {
            let (height, hash) = (anchor.block_id.height, anchor.block_id.hash);
            let is_in_chain = chain.get(height).is_some_and(|known| known.hash() == hash);
            let Some(tx) = self.transaction(txid).filter(|_| is_in_chain) else { continue };
            if below.txids.contains(&txid) || self.has(node, &hash, &tx, &mut last)? {
                below.add(&tx, (tip + 1).saturating_sub(height));
                update.anchors.insert((anchor, txid));
            }
        }
        let jobs = journal::all(&self.db)?;
        let scripts = jobs.iter().map(|job| self.envelope_script(job)).collect::<Result<Vec<_>, _>>()?;
        let scripts: BTreeSet<ScriptBuf> = scripts.into_iter().flatten().collect();
        for (outpoint, output) in outputs.into_iter().filter(|(_, output)| scripts.contains(&output.script_pubkey)) {
            if node.unspent(&outpoint)?.is_some_and(|(found, blocks)| found == output && blocks > 0) {
                update.txouts.insert(outpoint, output);
            }
        }
        self.learn(update);
        self.save_with(|db| Ok(store::forget_unshown(db)?))?;
        self.is_shown = true;
        Ok(())
    }

    /// Whether a block of the node has a transaction; where the block is pruned, whether the unspent outputs fit to
    /// that.
    fn has(
        &self,
        node: &RpcNode,
        hash: &BlockHash,
        tx: &Transaction,
        last: &mut LastBlock,
    ) -> Result<bool, WalletError> {
        let txid = tx.compute_txid();
        if let Some((_, txids)) = last.as_ref().filter(|(known, _)| known == hash) {
            return Ok(txids.contains(&txid));
        }
        let raw = match node.block(hash) {
            Ok(raw) => raw,
            Err(ChainError::Pruned { .. } | ChainError::NotDownloaded { .. }) => return self.fits(node, tx),
            Err(error) => return Err(error.into()),
        };
        let block: Block = deserialize(&raw).map_err(|error| {
            let (method, reason) = ("getblock".into(), error.to_string());
            ChainError::Malformed { method, reason }
        })?;
        let txids: BTreeSet<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
        let is_there = txids.contains(&txid);
        *last = Some((*hash, txids));
        Ok(is_there)
    }

    /// Whether the wallet's coins that a transaction spends are gone, and those that it makes are there, or known to be
    /// spent.
    fn fits(&self, node: &RpcNode, tx: &Transaction) -> Result<bool, WalletError> {
        let txid = tx.compute_txid();
        let is_there = |outpoint: &OutPoint| node.unspent(outpoint).map(|found| found.is_some());
        for input in tx.input.iter().filter(|input| self.is_own(input)) {
            if is_there(&input.previous_output)? {
                return Ok(false);
            }
        }
        for (vout, output) in (0..).zip(&tx.output) {
            let outpoint = OutPoint::new(txid, vout);
            let is_spent = !self.bdk.tx_graph().outspends(outpoint).is_empty();
            if self.bdk.is_mine(output.script_pubkey.clone()) && !is_spent && !is_there(&outpoint)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
