//! The wallet follows the chain: new blocks, reorganisations, the mempool.
//!
//! A node's mempool of more than [`SMALL_MEMPOOL`] transactions is not read whole. What spends the wallet's coins and
//! envelopes there is asked for; payments to envelopes are looked for while one is awaited, each transaction once. Other
//! payments to the wallet appear when they are confirmed.

use super::watch::Watch;
use super::{Job, Payer, Wallet, WalletError, inputs_of, journal, unix_now};
#[cfg(feature = "esplora")]
use crate::chain::Esplora;
use crate::chain::{ChainError, Mempool, RpcNode};
use crate::primitives::{BlockRef, BtcHeight};
use bdk_bitcoind_rpc::Emitter;
use bdk_wallet::chain::{BlockId, ConfirmationBlockTime, TxUpdate};
#[cfg(feature = "esplora")]
use bdk_wallet::chain::{CheckPoint, spk_client::SyncRequest};
use bitcoin::consensus::deserialize;
use bitcoin::{OutPoint, Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Blocks before the birthday that are read as well, in case the chain's end is reorganised.
const MARGIN: BtcHeight = 10;
/// How often a long sync is written to disk.
const SAVE_EVERY_BLOCKS: u32 = 500;
/// Transactions that are asked for to know what a payment hangs on; more hang together in no mempool.
const TRACED: usize = 100;
/// Transactions in a mempool that is read whole by each sync.
pub(super) const SMALL_MEMPOOL: u32 = 5_000;

/// What a sync did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The wallet's tip now.
    pub tip: BlockRef,
    /// Blocks read; an Esplora server spares them.
    pub blocks: u32,
}

/// A chain that a wallet can follow.
#[derive(Clone, Copy, Debug)]
pub enum WalletSource<'a> {
    /// Bitcoin Core: whole blocks, and the mempool where it is small.
    Node(&'a RpcNode),
    /// An Esplora server: the histories of the wallet's addresses.
    #[cfg(feature = "esplora")]
    Esplora(&'a Esplora),
}

impl<'a> From<&'a RpcNode> for WalletSource<'a> {
    fn from(node: &'a RpcNode) -> Self {
        Self::Node(node)
    }
}

#[cfg(feature = "esplora")]
impl<'a> From<&'a Esplora> for WalletSource<'a> {
    fn from(server: &'a Esplora) -> Self {
        Self::Esplora(server)
    }
}

impl Wallet {
    /// Brings the wallet to the source's tip, and every job to the state that the chain shows.
    pub fn sync<'a>(&mut self, source: impl Into<WalletSource<'a>>) -> Result<Synced, WalletError> {
        let source = source.into();
        let expected = match source {
            WalletSource::Node(node) => node.network(),
            #[cfg(feature = "esplora")]
            WalletSource::Esplora(server) => server.network(),
        };
        if expected != self.network() {
            return Err(WalletError::WrongNetwork { expected, got: self.network() });
        }
        self.missing.clear();
        // The journal remembers what is to be sent again; only others' absence frees their coins.
        let jobs = journal::watched(self.db())?;
        let kept = jobs.iter().flat_map(|job| job.active().into_iter().chain(job.standing_sweeps().cloned()));
        let payments = self.waiting_payments()?.into_iter().map(|payment| payment.tx);
        let kept = kept.chain(payments).map(|tx| tx.compute_txid()).collect();
        let watch = self.watch(&jobs)?;
        let blocks = match source {
            WalletSource::Node(node) => {
                let blocks = self.read_blocks(node, &kept, watch)?;
                self.trace_payments(node, &jobs)?;
                blocks
            }
            #[cfg(feature = "esplora")]
            WalletSource::Esplora(server) => {
                self.read_histories(server, &kept, watch)?;
                self.trace_payments(server, &jobs)?;
                0
            }
        };
        let jobs = if self.take_over(&jobs)? { journal::watched(self.db())? } else { jobs };
        self.settle_jobs(&jobs)?;
        Ok(Synced { tip: self.synced_to(), blocks })
    }

    /// Reads a node's new blocks and its mempool; `kept` are not missed there. Returns how many blocks.
    fn read_blocks(&mut self, node: &RpcNode, kept: &BTreeSet<Txid>, mut watch: Watch) -> Result<u32, WalletError> {
        let info = node.info()?;
        let kept_from = info.prune_height.unwrap_or(0).min(self.birthday());
        let start = self.birthday().saturating_sub(MARGIN).max(kept_from).min(info.tip.height);
        let unconfirmed = self.unconfirmed();
        let mut emitter = Emitter::new(node, self.bdk.latest_checkpoint(), start, unconfirmed.clone());
        let mut blocks = 0;
        let reached = self.synced_to().height;
        let explain = |error| match (node.explain("getblock", error), info.prune_height) {
            (ChainError::Rpc { message, .. }, Some(first_available)) if message.contains("pruned") => {
                ChainError::Pruned { height: start.max(reached + 1), first_available }
            }
            (error, _) => error,
        };
        while let Some(event) = emitter.next_block().map_err(explain)? {
            let (height, hash) = (event.block_height(), event.block_hash());
            self.bdk_mut()
                .apply_block_connected_to(&event.block, height, event.connected_to())
                .map_err(|_| WalletError::Disconnected(BlockRef { height, hash }))?;
            let confirmation_time = event.block.header.time.into();
            let anchor = ConfirmationBlockTime { block_id: BlockId { height, hash }, confirmation_time };
            let mut update = TxUpdate::default();
            update.txs = event.block.txdata.into_iter().filter(|tx| watch.concerns(tx)).map(Arc::new).collect();
            update.anchors = update.txs.iter().map(|tx| (anchor, tx.compute_txid())).collect();
            self.learn(update);
            blocks += 1;
            if blocks % SAVE_EVERY_BLOCKS == 0 {
                self.save()?;
            }
        }

        if node.mempool_size()? <= self.small_mempool {
            let event = emitter.mempool().map_err(explain)?;
            let evicted = event.evicted.into_iter().filter(|(txid, _)| !kept.contains(txid));
            self.bdk_mut().apply_evicted_txs(evicted);
            let matter = event.update.iter().filter(|(tx, _)| watch.concerns(tx)).cloned().collect();
            self.learn_waiting(matter);
            self.forget_replaced(event.update.iter().map(|(tx, _)| tx), kept);
            self.bdk_mut().apply_unconfirmed_txs(event.update);
            return Ok(blocks);
        }
        let confirmed = self.confirmed();
        for tx in unconfirmed {
            let txid = tx.compute_txid();
            let known = kept.contains(&txid) || confirmed.contains_key(&txid);
            if !known && node.entry(&txid)?.is_none() {
                self.bdk_mut().apply_evicted_txs([(txid, unix_now())]);
            }
        }
        self.read_spends(node, kept, &mut watch)?;
        if watch.awaits_payment {
            let here: HashSet<Txid> = node.mempool_txids()?.into_iter().collect();
            let new: Vec<Txid> = here.difference(&self.seen).copied().collect();
            let (mut paid, seen) = (Vec::new(), unix_now());
            node.raw_transactions(&new, |_, raw| {
                let tx = deserialize::<Transaction>(raw).ok().filter(|tx| watch.concerns(tx));
                paid.extend(tx.map(|tx| (Arc::new(tx), seen)));
            })?;
            self.learn_waiting(paid.clone());
            self.forget_replaced(paid.iter().map(|(tx, _)| tx), kept);
            self.seen = here;
        }
        Ok(blocks)
    }

    /// Takes in what spends the wallet's coins, or what jobs watch, in a mempool that is not read whole: another copy of
    /// the wallet may have sent it.
    fn read_spends(&mut self, node: &RpcNode, kept: &BTreeSet<Txid>, watch: &mut Watch) -> Result<(), WalletError> {
        let mut asked = BTreeSet::new();
        loop {
            let waiting = self.unconfirmed();
            let mut open: BTreeSet<OutPoint> = self.bdk.list_unspent().map(|coin| coin.outpoint).collect();
            open.extend(waiting.iter().flat_map(|tx| inputs_of(tx)).chain(watch.outpoints.iter().copied()));
            let open: Vec<OutPoint> = open.into_iter().filter(|outpoint| asked.insert(*outpoint)).collect();
            if open.is_empty() {
                return Ok(());
            }
            let mut spenders = node.spenders(&open)?;
            let view = self.view();
            spenders.retain(|txid| !view.transactions.contains_key(txid));
            let (mut found, seen) = (Vec::new(), unix_now());
            node.raw_transactions(&spenders.into_iter().collect::<Vec<_>>(), |_, raw| {
                found.extend(deserialize::<Transaction>(raw).ok().map(|tx| (Arc::new(tx), seen)));
            })?;
            let matter = found.iter().filter(|(tx, _)| watch.concerns(tx)).cloned().collect();
            self.learn_waiting(matter);
            self.forget_replaced(found.iter().map(|(tx, _)| tx), kept);
            self.bdk_mut().apply_unconfirmed_txs(found);
        }
    }

    /// Takes in transactions of the mempool that matter to jobs, with the times at which they were seen there.
    fn learn_waiting(&mut self, waiting: Vec<(Arc<Transaction>, u64)>) {
        let mut update = TxUpdate::default();
        update.seen_ats = waiting.iter().map(|(tx, seen)| (tx.compute_txid(), *seen)).collect();
        update.txs = waiting.into_iter().map(|(tx, _)| tx).collect();
        self.learn(update);
    }

    /// Takes in what unconfirmed payments to envelopes hang on: they are lost with it. Once for each payment.
    fn trace_payments(&mut self, source: &impl Mempool, jobs: &[Job]) -> Result<(), WalletError> {
        let waiting: BTreeMap<Txid, Arc<Transaction>> =
            self.unconfirmed().into_iter().map(|tx| (tx.compute_txid(), tx)).collect();
        for job in jobs.iter().filter(|job| job.payer == Payer::Anywhere && job.state.is_unfinished()) {
            let paid: BTreeSet<Txid> = self.locked(job)?.into_iter().map(|outpoint| outpoint.txid).collect();
            for payment in paid.iter().filter_map(|txid| waiting.get(txid)) {
                if self.traced.contains(&payment.compute_txid()) {
                    continue;
                }
                let (mut before, mut asked) = (vec![payment.clone()], BTreeSet::new());
                let mut at = 0;
                while let Some(tx) = before.get(at).cloned() {
                    for parent in tx.input.iter().map(|input| input.previous_output.txid) {
                        if asked.len() < TRACED && asked.insert(parent) && source.is_waiting(&parent)? {
                            before.extend(source.transaction(&parent)?.map(Arc::new));
                        }
                    }
                    at += 1;
                }
                let mut update = TxUpdate::default();
                update.txs = before;
                self.learn(update);
                self.traced.insert(payment.compute_txid());
            }
        }
        self.save()
    }

    /// How many transactions a node's mempool may have that each [`sync`](Self::sync) reads whole: 5,000 unless told.
    pub fn read_mempools_up_to(&mut self, transactions: u32) {
        self.small_mempool = transactions;
    }

    /// Asks a server for the histories of all addresses handed out and of all that jobs watch; `kept` are not
    /// missed there.
    #[cfg(feature = "esplora")]
    fn read_histories(&mut self, server: &Esplora, kept: &BTreeSet<Txid>, watch: Watch) -> Result<(), WalletError> {
        let mut found = server.sync(self.bdk.start_sync_with_revealed_spks().build())?;
        found.tx_update.evicted_ats.retain(|(txid, _)| !kept.contains(txid));
        let tip = found.chain_update.as_ref().map_or(self.synced_to(), block_ref);
        self.bdk_mut().apply_update(found).map_err(|_| WalletError::Disconnected(tip))?;
        if !watch.is_empty() {
            let chain = self.bdk.latest_checkpoint();
            let waiting = self.unconfirmed();
            let paid = waiting.iter().flat_map(|tx| tx.output.iter().map(|output| (output, tx.compute_txid())));
            let expected = paid.map(|(output, txid)| (output.script_pubkey.clone(), txid));
            let expected: Vec<_> = expected.filter(|(script, _)| watch.scripts.contains(script)).collect();
            let request = SyncRequest::builder().chain_tip(chain).spks(watch.scripts).outpoints(watch.outpoints);
            let mut found = server.sync(request.expected_spk_txids(expected).build())?.tx_update;
            found.evicted_ats.retain(|(txid, _)| !kept.contains(txid));
            let waits = |tx: &&Arc<Transaction>| found.seen_ats.iter().any(|(txid, _)| *txid == tx.compute_txid());
            self.learn(found.clone());
            self.forget_replaced(found.txs.iter().filter(waits), kept);
        }
        Ok(())
    }

    /// Forgets others' payments that were replaced, with all that hangs on them: `present` are in the mempool now.
    fn forget_replaced<'t>(&mut self, present: impl Iterator<Item = &'t Arc<Transaction>>, kept: &BTreeSet<Txid>) {
        let graph = self.bdk.tx_graph();
        let of_others = present.filter(|tx| !kept.contains(&tx.compute_txid()));
        let replaced = of_others.flat_map(|tx| graph.direct_conflicts(tx)).map(|(_, txid)| txid);
        let replaced: BTreeSet<Txid> = replaced.filter(|txid| !kept.contains(txid)).collect();
        let lost = replaced.iter().flat_map(|txid| graph.walk_descendants(*txid, |_, txid| Some(txid)));
        self.forget(&replaced.iter().copied().chain(lost).collect::<Vec<_>>());
    }
}

#[cfg(feature = "esplora")]
fn block_ref(checkpoint: &CheckPoint) -> BlockRef {
    BlockRef { height: checkpoint.height(), hash: checkpoint.hash() }
}
