//! The wallet follows the chain: new blocks, reorganisations, the mempool.
//!
//! A node's mempool of more than [`SMALL_MEMPOOL`] transactions is not read whole. What spends the wallet's coins and
//! envelopes there is asked for; while a payment to an envelope is awaited, it is looked for among [`LOOKED_AT`]
//! transactions by each sync. Other payments to the wallet appear when they are confirmed.

use super::watch::Watch;
use super::{Job, Payer, Wallet, WalletError, inputs_of, journal, unix_now};
use crate::chain::ChainError;
use crate::chain::Esplora;
use crate::chain::{BlockSource, Mempool, RpcNode, adds_up};
use crate::primitives::BlockRef;
use crate::primitives::BtcHeight;
use bdk_wallet::chain::TxUpdate;
use bdk_wallet::chain::{
    CheckPoint,
    spk_client::{SyncRequest, SyncResponse},
};
use bitcoin::consensus::deserialize;
use bitcoin::{OutPoint, Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Blocks by which a server may be late.
const LATE: BtcHeight = 2;
/// Transactions that are asked for to know what a payment hangs on; more hang together in no mempool.
const TRACED: usize = 100;
/// Bytes of them: with their witnesses, a hundred of the largest would take 400 MB.
const TRACED_BYTES: usize = 16_000_000;
/// Transactions in a mempool that is read whole by each sync.
pub(super) const SMALL_MEMPOOL: u32 = 5_000;
/// And their bytes: in memory they take up to four times as much.
const MEMPOOL_BYTES: usize = 32_000_000;
/// Transactions of a larger one that each sync looks at while a payment is awaited.
const LOOKED_AT: usize = 5_000;

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
    Esplora(&'a Esplora),
}

impl<'a> From<&'a RpcNode> for WalletSource<'a> {
    fn from(node: &'a RpcNode) -> Self {
        Self::Node(node)
    }
}

impl<'a> From<&'a Esplora> for WalletSource<'a> {
    fn from(server: &'a Esplora) -> Self {
        Self::Esplora(server)
    }
}

impl Wallet {
    /// Brings the wallet to the source's tip, and every job to the state that the chain shows.
    pub fn sync<'a>(&mut self, source: impl Into<WalletSource<'a>>) -> Result<Synced, WalletError> {
        let source = source.into();
        self.check_network(source)?;
        self.missing.clone_from(&self.unread.spent);
        if let WalletSource::Node(node) = source {
            self.reopen(node)?;
        }
        // The journal remembers what is to be sent again; only others' absence frees their coins.
        let jobs = journal::watched(self.db())?;
        let kept = jobs.iter().flat_map(|job| job.active().into_iter().chain(job.standing_sweeps().cloned()));
        let payments = self.waiting_payments()?.into_iter().map(|payment| payment.tx);
        let kept = kept.chain(payments).map(|tx| tx.compute_txid()).collect();
        let mut watch = self.watch(&jobs)?;
        let (blocks, is_reopened) = match source {
            WalletSource::Node(node) => {
                let blocks = self.read_blocks(node, &mut watch)?;
                self.look_again(node)?;
                self.read_mempool(node, &kept, &mut watch)?;
                self.trace_payments(node, &jobs)?;
                self.look_for_ancestors(node)?;
                // A server that was asked before may have hidden what spent them.
                let coins = self.unspent().into_iter().filter(|coin| coin.confirmations > 0);
                let coins: Vec<OutPoint> = coins.map(|coin| coin.outpoint).collect();
                self.are_there(node, &coins)?;
                (blocks, false)
            }
            WalletSource::Esplora(server) => {
                let is_reopened = self.read_histories(server, &kept, watch)?;
                self.trace_payments(server, &jobs)?;
                self.look_for_ancestors(server)?;
                (0, is_reopened)
            }
        };
        let is_other = self.take_over(&jobs)? || is_reopened;
        let jobs = if is_other { journal::watched(self.db())? } else { jobs };
        self.settle_jobs(&jobs)?;
        Ok(Synced { tip: self.synced_to(), blocks })
    }

    pub(super) fn check_network(&self, source: WalletSource<'_>) -> Result<(), WalletError> {
        let expected = match source {
            WalletSource::Node(node) => node.network(),
            WalletSource::Esplora(server) => server.network(),
        };
        match expected == self.network() {
            true => Ok(()),
            false => Err(WalletError::WrongNetwork { expected, got: self.network() }),
        }
    }

    /// Reads a node's mempool, as far as it matters; `kept` are not missed there.
    fn read_mempool(&mut self, node: &RpcNode, kept: &BTreeSet<Txid>, watch: &mut Watch) -> Result<(), WalletError> {
        if node.mempool_size()? <= self.small_mempool && self.read_whole_mempool(node, kept, watch)? {
            return Ok(());
        }
        for txid in self.unconfirmed().iter().map(|tx| tx.compute_txid()).filter(|txid| !kept.contains(txid)) {
            if node.entry(&txid)?.is_none() {
                self.bdk_mut().apply_evicted_txs([(txid, unix_now())]);
            }
        }
        self.read_spends(node, kept, watch)?;
        if watch.awaits_payment {
            self.look_for_payments(node, kept, watch)?;
        }
        Ok(())
    }

    /// Reads all of it; `false` if it is larger than the node said, in number or in bytes.
    fn read_whole_mempool(
        &mut self,
        node: &RpcNode,
        kept: &BTreeSet<Txid>,
        watch: &mut Watch,
    ) -> Result<bool, WalletError> {
        let (here, seen) = (node.mempool_txids()?, unix_now());
        if here.len() / 2 > usize::try_from(self.small_mempool).unwrap_or(usize::MAX) {
            return Ok(false);
        }
        let present: BTreeSet<Txid> = here.iter().copied().collect();
        let mut known: BTreeMap<Txid, Arc<Transaction>> =
            self.unconfirmed().into_iter().map(|tx| (tx.compute_txid(), tx)).collect();
        // What has left it may be in a block that came since.
        if node.tip()? == self.synced_to() {
            let gone = known.keys().filter(|txid| !present.contains(*txid) && !kept.contains(*txid));
            self.bdk_mut().apply_evicted_txs(gone.map(|txid| (*txid, seen)));
        }
        let new: Vec<Txid> = here.iter().copied().filter(|txid| !known.contains_key(txid)).collect();
        let mut bytes = 0;
        node.raw_transactions(&new, |txid, raw| {
            bytes += raw.len();
            known.extend(read_waiting(raw, txid).map(|tx| (txid, Arc::new(tx))));
            if bytes <= MEMPOOL_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if bytes > MEMPOOL_BYTES {
            return Ok(false);
        }
        // Parents first, as the node lists them.
        let waiting = here.iter().filter_map(|txid| known.remove(txid)).map(|tx| (tx, seen)).collect();
        self.take_in(waiting, kept, watch);
        Ok(true)
    }

    /// Looks for payments to envelopes in a mempool that is not read whole: [`LOOKED_AT`] of the transactions that were
    /// not looked at before, those first that are mined first.
    fn look_for_payments(
        &mut self,
        node: &RpcNode,
        kept: &BTreeSet<Txid>,
        watch: &mut Watch,
    ) -> Result<(), WalletError> {
        let (here, now) = (node.mempool_txids()?, unix_now());
        let unseen = here.iter().copied().filter(|txid| !self.seen.contains(txid));
        let new: Vec<Txid> = unseen.take(LOOKED_AT).collect();
        let mut paid = Vec::new();
        node.raw_transactions(&new, |txid, raw| {
            let tx = read_waiting(raw, txid).filter(|tx| watch.concerns(tx));
            paid.extend(tx.map(|tx| (Arc::new(tx), now)));
            ControlFlow::Continue(())
        })?;
        self.learn_waiting(paid.clone());
        self.forget_replaced(paid.iter().map(|(tx, _)| tx), kept);
        self.seen.extend(new);
        self.unseen = here.iter().filter(|txid| !self.seen.contains(*txid)).count();
        self.seen = here.into_iter().filter(|txid| self.seen.contains(txid)).collect();
        Ok(())
    }

    /// Takes in what spends the wallet's coins, or what jobs watch, in a mempool that is not read whole: another copy
    /// of the wallet may have sent it.
    fn read_spends(&mut self, node: &RpcNode, kept: &BTreeSet<Txid>, watch: &mut Watch) -> Result<(), WalletError> {
        let mut asked = BTreeSet::new();
        loop {
            let waiting = self.unconfirmed();
            let mut open: BTreeSet<OutPoint> = self.bdk.list_unspent().map(|coin| coin.outpoint).collect();
            open.extend(waiting.iter().flat_map(|tx| inputs_of(tx)).chain(watch.outpoints.iter().copied()));
            // An envelope that another copy has paid is revealed to the wallet's change.
            open.extend(waiting.iter().flat_map(|tx| outpoints_of(tx)));
            let open: Vec<OutPoint> = open.into_iter().filter(|outpoint| asked.insert(*outpoint)).collect();
            if open.is_empty() {
                return Ok(());
            }
            let mut spenders = node.spenders(&open)?;
            let view = self.view();
            spenders.retain(|txid| !view.transactions.contains_key(txid));
            let (mut found, seen) = (Vec::new(), unix_now());
            node.raw_transactions(&spenders.into_iter().collect::<Vec<_>>(), |txid, raw| {
                found.extend(read_waiting(raw, txid).map(|tx| (Arc::new(tx), seen)));
                ControlFlow::Continue(())
            })?;
            self.take_in(found, kept, watch);
        }
    }

    /// Takes in what of these transactions of the mempool matters, with the times at which they were seen there.
    fn take_in(&mut self, waiting: Vec<(Arc<Transaction>, u64)>, kept: &BTreeSet<Txid>, watch: &mut Watch) {
        let matter = waiting.iter().filter(|(tx, _)| watch.concerns(tx)).cloned().collect();
        self.learn_waiting(matter);
        self.forget_replaced(waiting.iter().map(|(tx, _)| tx), kept);
        self.bdk_mut().apply_unconfirmed_txs(waiting);
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
                let (mut at, mut bytes) = (0, 0);
                while let Some(tx) = before.get(at).cloned() {
                    for parent in tx.input.iter().map(|input| input.previous_output.txid) {
                        let is_few = asked.len() < TRACED && bytes < TRACED_BYTES;
                        if is_few && asked.insert(parent) && source.is_waiting(&parent)? {
                            let tx = source.transaction(&parent)?;
                            bytes += tx.as_ref().map_or(0, Transaction::total_size);
                            before.extend(tx.map(Arc::new));
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

    /// How many transactions of a large mempool were not looked at yet, of which one may be an awaited payment.
    pub fn unseen_in_mempool(&self) -> usize {
        self.unseen
    }

    /// How many transactions a node's mempool may have that each [`sync`](Self::sync) reads whole: 5,000 unless told.
    pub fn read_mempools_up_to(&mut self, transactions: u32) {
        self.small_mempool = transactions;
    }

    /// Asks a server for the histories of all addresses handed out and of all that jobs watch; `kept` are not
    /// missed there. Returns whether jobs that were final are watched again.
    fn read_histories(
        &mut self,
        server: &Esplora,
        kept: &BTreeSet<Txid>,
        mut watch: Watch,
    ) -> Result<bool, WalletError> {
        let before = self.bdk.latest_checkpoint();
        let found = server.sync(self.bdk.start_sync_with_revealed_spks().build())?;
        let tip = found.chain_update.as_ref().map_or(self.synced_to(), block_ref);
        let is_known = before.floor_at(tip.height).zip(found.chain_update.as_ref());
        let is_known =
            is_known.is_some_and(|(block, now)| now.get(block.height()).is_some_and(|now| now.hash() == block.hash()));
        // One of several servers behind one address may lack the last blocks.
        if is_known && tip.height + LATE < before.height() {
            return Err(ChainError::Behind { tip: tip.height, known: before.height() }.into());
        }
        self.take_in_histories(server, found, kept)?;
        self.forget_unread()?;
        let is_reopened = self.save_chain(&before)?;
        if is_reopened {
            watch = self.watch(&journal::watched(self.db())?)?;
        }
        if !watch.is_empty() {
            let chain = self.bdk.latest_checkpoint();
            let waiting = self.unconfirmed();
            let paid = waiting.iter().flat_map(|tx| tx.output.iter().map(|output| (output, tx.compute_txid())));
            let expected = paid.map(|(output, txid)| (output.script_pubkey.clone(), txid));
            let expected: Vec<_> = expected.filter(|(script, _)| watch.scripts.contains(script)).collect();
            let request = SyncRequest::builder().chain_tip(chain).spks(watch.scripts).outpoints(watch.outpoints);
            let found = server.sync(request.expected_spk_txids(expected).build())?;
            let seen: BTreeSet<Txid> = found.tx_update.seen_ats.iter().map(|(txid, _)| *txid).collect();
            let mut waiting = found.tx_update.txs.clone();
            waiting.retain(|tx| seen.contains(&tx.compute_txid()));
            self.take_in_histories(server, found, kept)?;
            self.forget_replaced(waiting.iter(), kept);
        }
        Ok(is_reopened)
    }

    /// Takes in what a server has told, of what is mined as much as it shows; `kept` are not missed.
    fn take_in_histories(
        &mut self,
        server: &Esplora,
        mut found: SyncResponse,
        kept: &BTreeSet<Txid>,
    ) -> Result<(), WalletError> {
        found.tx_update.evicted_ats.retain(|(txid, _)| !kept.contains(txid));
        // Of an address with many waiting transactions a server shows the first 50.
        for missed in std::mem::take(&mut found.tx_update.evicted_ats) {
            if !server.is_waiting(&missed.0)? {
                found.tx_update.evicted_ats.insert(missed);
            }
        }
        // Nobody has shown these outputs.
        found.tx_update.txouts.clear();
        let chain = found.chain_update.clone().unwrap_or_else(|| self.bdk.latest_checkpoint());
        self.keep_shown(server, &mut found.tx_update, &chain)?;
        self.bdk_mut().apply_update(found).map_err(|_| WalletError::Disconnected(block_ref(&chain)))
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

fn outpoints_of(tx: &Transaction) -> impl Iterator<Item = OutPoint> {
    let txid = tx.compute_txid();
    (0..).zip(&tx.output).map(move |(vout, _)| OutPoint::new(txid, vout))
}

/// A transaction of the mempool, if it is the one of that name and could be there: BDK takes that for granted.
fn read_waiting(raw: &[u8], txid: Txid) -> Option<Transaction> {
    let tx: Transaction = deserialize(raw).ok()?;
    (tx.compute_txid() == txid && !tx.is_coinbase() && adds_up(&tx.output)).then_some(tx)
}

fn block_ref(checkpoint: &CheckPoint) -> BlockRef {
    BlockRef { height: checkpoint.height(), hash: checkpoint.hash() }
}
