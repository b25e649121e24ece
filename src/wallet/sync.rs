//! The wallet follows the chain: new blocks, reorganisations, the mempool; and restores from words.
//!
//! A node's mempool of more than [`SMALL_MEMPOOL`] transactions is read only for payments to envelopes, each
//! transaction once, while one is awaited. Others to the wallet appear there when they are confirmed.

use super::seed::SeedFile;
use super::{
    Descriptors, Event, Generation, Job, JobState, Keys, Mnemonic, Passphrase, Payer, Wallet, WalletError,
    check_witness, journal, payment, unix_now,
};
#[cfg(feature = "esplora")]
use crate::chain::Esplora;
use crate::chain::{BlockSource, ChainError, Mempool, RpcNode};
use crate::envelope::Carrier;
use crate::primitives::{BlockRef, BtcHeight};
use bdk_bitcoind_rpc::Emitter;
use bdk_wallet::KeychainKind;
use bdk_wallet::chain::{BlockId, ChainPosition, ConfirmationBlockTime, TxUpdate};
#[cfg(feature = "esplora")]
use bdk_wallet::chain::{CheckPoint, spk_client::SyncRequest};
use bitcoin::consensus::deserialize;
use bitcoin::{Network, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

/// Blocks before the birthday that are read as well, in case the chain's end is reorganised.
const MARGIN: BtcHeight = 10;
/// How often a long sync is written to disk.
const SAVE_EVERY_BLOCKS: u32 = 500;
/// Blocks after which what a transaction spends is spent for good.
const BURIED: u32 = 6;
/// Transactions that are asked for to know what a payment hangs on; more hang together in no mempool.
const TRACED: usize = 100;
/// Transactions in a mempool that is read whole by each sync.
pub(super) const SMALL_MEMPOOL: u32 = 5_000;
/// Addresses of each kind that `restore` looks for: in the first range; in the second, if it finds nothing in the
/// first; and in the next, if what it finds is in the second half of the last.
const RESTORE_RANGES: [u32; 4] = [1_000, 4_000, 20_000, 100_000];
/// Addresses in a row that were never used, after which a search ends (BIP44).
#[cfg(feature = "esplora")]
const STOP_GAP: usize = 20;
/// Reveal keys that a wallet may have used per Bitcoin block without a restored one meeting them.
const KEYS_PER_BLOCK: u32 = 1_000;

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

/// What is left on the chain of a wallet whose words are all that is known.
struct FormerLife {
    tip: BlockRef,
    birthday: BtcHeight,
    /// The highest index of each keychain that was used.
    used: BTreeMap<KeychainKind, u32>,
}

impl Wallet {
    /// Makes a wallet from words and finds its coins.
    ///
    /// A node's UTXO set is searched (minutes on mainnet) for coins of the first thousand addresses of each kind, or
    /// of four thousand if there is none, and further while some are in the second half; the lowest of them gives the
    /// birthday, and the chain is read from there. Transactions that were spent before it stay unknown. An Esplora server is asked for address after address, until
    /// twenty in a row were never used.
    ///
    /// # Errors
    /// [`ChainError::Pruned`] if the node no longer has the blocks since the birthday.
    pub fn restore<'a>(
        dir: &Path,
        network: Network,
        mnemonic: Mnemonic,
        passphrase: Option<&Passphrase>,
        source: impl Into<WalletSource<'a>>,
    ) -> Result<Self, WalletError> {
        Self::search(dir, network, mnemonic, passphrase, None, source.into(), former_keys)
    }

    /// Makes a wallet of coins whose keys are elsewhere, and finds them as [`restore`](Self::restore) does.
    ///
    /// Its words are for envelopes only: those of a former wallet, or new ones, which the caller shows to their
    /// owner once.
    pub fn watch_only<'a>(
        dir: &Path,
        network: Network,
        descriptors: &Descriptors,
        mnemonic: Option<Mnemonic>,
        passphrase: Option<&Passphrase>,
        source: impl Into<WalletSource<'a>>,
    ) -> Result<(Self, Mnemonic), WalletError> {
        let first_key = if mnemonic.is_some() { former_keys } else { |_| 0 };
        let mnemonic = mnemonic.map_or_else(Mnemonic::generate, Ok)?;
        let source = source.into();
        let wallet = Self::search(dir, network, mnemonic.clone(), passphrase, Some(descriptors), source, first_key)?;
        Ok((wallet, mnemonic))
    }

    /// Makes a wallet of the coins that a source finds. `first_key`: the index from which reveal keys are new.
    fn search(
        dir: &Path,
        network: Network,
        mnemonic: Mnemonic,
        passphrase: Option<&Passphrase>,
        watched: Option<&Descriptors>,
        source: WalletSource<'_>,
        first_key: fn(BtcHeight) -> u32,
    ) -> Result<Self, WalletError> {
        let folder = Self::vacant(dir)?;
        let own = Keys::new(&mnemonic, network)?.descriptors()?;
        let descriptors = watched.unwrap_or(&own);
        let life = match source {
            WalletSource::Node(node) => on_node(node, dir, descriptors)?,
            #[cfg(feature = "esplora")]
            WalletSource::Esplora(server) => on_server(server, dir, descriptors)?,
        };
        let seed = SeedFile { network, birthday: life.birthday, mnemonic };
        let mut wallet = Self::found(folder, dir, &seed, passphrase, watched, |bdk| {
            for (keychain, index) in life.used {
                let _ = bdk.reveal_addresses_to(keychain, index).count();
            }
            first_key(life.tip.height)
        })?;
        wallet.sync(source)?;
        Ok(wallet)
    }

    /// Whether a search for a former life's coins found none: then the birthday tells nothing about that life.
    pub fn is_without_past(&self) -> bool {
        self.key_base > 0 && self.confirmed().values().all(|block| block.height > self.birthday())
    }

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
        // The journal remembers what is to be sent again; only others' absence frees their coins.
        let jobs = journal::watched(self.db())?;
        let kept = jobs.iter().flat_map(|job| job.active().into_iter().chain(job.standing_sweeps().cloned()));
        let pending = payment::pending(self.db())?.into_iter().map(|pending| pending.tx);
        let kept = kept.chain(pending).map(|tx| tx.compute_txid()).collect();
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
            self.bdk
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
            self.bdk.apply_evicted_txs(evicted);
            let matter = event.update.iter().filter(|(tx, _)| watch.concerns(tx)).cloned().collect();
            self.learn_waiting(matter);
            self.forget_replaced(event.update.iter().map(|(tx, _)| tx), kept);
            self.bdk.apply_unconfirmed_txs(event.update);
            return Ok(blocks);
        }
        let confirmed = self.confirmed();
        for tx in unconfirmed {
            let txid = tx.compute_txid();
            let known = kept.contains(&txid) || confirmed.contains_key(&txid);
            if !known && node.entry(&txid)?.is_none() {
                self.bdk.apply_evicted_txs([(txid, unix_now())]);
            }
        }
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
        self.bdk.apply_update(found).map_err(|_| WalletError::Disconnected(tip))?;
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

    /// What of the chain matters to jobs, beside the wallet's own transactions.
    pub(crate) fn watch(&self, jobs: &[Job]) -> Result<Watch, WalletError> {
        let mut watch = Watch::default();
        let confirmed = self.confirmed();
        for job in jobs {
            let locked = self.locked(job)?;
            if job.payer == Payer::Anywhere {
                watch.awaits_payment |= job.state.is_unfinished();
                watch.scripts.extend(self.envelope_script(job)?);
                // Until it is mined, a payment can be replaced by one to somebody else.
                let unconfirmed = locked.iter().filter(|paid| !confirmed.contains_key(&paid.txid));
                // So can what it hangs on.
                let graph = self.bdk.tx_graph();
                let inputs = |tx: &Transaction| tx.input.iter().map(|i| i.previous_output).collect::<Vec<_>>();
                for tx in unconfirmed.filter_map(|paid| graph.get_tx(paid.txid)) {
                    let waits = |tx: &Arc<Transaction>| !confirmed.contains_key(&tx.compute_txid());
                    let before = graph.walk_ancestors(tx.clone(), |_, tx| waits(&tx).then(|| inputs(&tx)));
                    watch.outpoints.extend(before.flatten().chain(inputs(&tx)));
                }
            }
            watch.outpoints.extend(locked);
        }
        Ok(watch)
    }

    /// The outputs that a job's envelope locks, as far as the wallet knows them.
    pub(crate) fn locked(&self, job: &Job) -> Result<Vec<OutPoint>, WalletError> {
        if let Some(commit) = job.commit() {
            let is_taproot = job.carrier == Carrier::Taproot;
            return Ok(is_taproot.then(|| OutPoint::new(commit.compute_txid(), 0)).into_iter().collect());
        }
        let Some(script) = self.envelope_script(job)? else { return Ok(Vec::new()) };
        let paid = self.bdk.tx_graph().all_txouts().filter(|(_, output)| output.script_pubkey == script);
        Ok(paid.map(|(outpoint, _)| outpoint).collect())
    }

    /// What was paid to a job's envelope and is not spent in the chain, as far as the wallet knows.
    pub(crate) fn payments(&self, job: &Job) -> Result<Vec<Paid>, WalletError> {
        let graph = self.bdk.tx_graph();
        let known: BTreeMap<Txid, Option<BlockRef>> =
            self.canonical().map(|(tx, block)| (tx.compute_txid(), block)).collect();
        let own: BTreeSet<Txid> = job.all_txids().chain(job.sweeps.iter().map(Transaction::compute_txid)).collect();
        let mut payments = Vec::new();
        for outpoint in self.locked(job)? {
            // What is known of a transaction by an output alone is in the chain.
            let is_whole = graph.get_tx(outpoint.txid).is_some();
            let block = known.get(&outpoint.txid);
            let spenders = graph.outspends(outpoint);
            let is_spent = spenders.iter().any(|spender| known.get(spender).is_some_and(Option::is_some));
            if is_spent || (is_whole && block.is_none()) {
                continue;
            }
            let output = self.output(&outpoint);
            payments.extend(output.map(|output| Paid {
                outpoint,
                output,
                is_confirmed: block.is_none_or(Option::is_some),
                is_taken: !own.is_disjoint(&spenders.iter().copied().collect()),
            }));
        }
        Ok(payments)
    }

    /// The output script of a job's envelope.
    pub(crate) fn envelope_script(&self, job: &Job) -> Result<Option<ScriptBuf>, WalletError> {
        let Some(index) = job.key_index else { return Ok(None) };
        Ok(Some(ScriptBuf::new_p2tr(self.secp(), self.reveal_key(index)?, job.merkle_root)))
    }

    /// The transactions that wait for a block, as the wallet sees it; of conflicting ones the latest.
    fn unconfirmed(&self) -> Vec<Arc<Transaction>> {
        self.canonical().filter(|(_, block)| block.is_none()).map(|(tx, _)| tx).collect()
    }

    /// The wallet's transactions in the best chain, with their blocks.
    pub(crate) fn confirmed(&self) -> BTreeMap<Txid, BlockRef> {
        self.canonical().filter_map(|(tx, block)| Some((tx.compute_txid(), block?))).collect()
    }

    /// The mined transactions that spent coins of the wallet, with their heights, as far as it knows them.
    #[cfg(feature = "esplora")]
    pub(crate) fn spends(&self) -> Vec<(Transaction, BtcHeight)> {
        let is_own = |input: &TxIn| {
            let output = self.output(&input.previous_output);
            output.is_some_and(|output| self.bdk.is_mine(output.script_pubkey))
        };
        let spends = self.canonical().filter(|(tx, _)| tx.input.iter().any(is_own));
        spends.filter_map(|(tx, block)| Some((tx.as_ref().clone(), block?.height))).collect()
    }

    pub(crate) fn canonical(&self) -> impl Iterator<Item = (Arc<Transaction>, Option<BlockRef>)> + '_ {
        let chain = self.bdk.local_chain();
        let all = self.bdk.tx_graph().list_canonical_txs(chain, chain.tip().block_id(), Default::default());
        all.map(|tx| {
            let block = match tx.chain_position {
                ChainPosition::Confirmed { anchor, .. } => Some(anchor.block_id),
                ChainPosition::Unconfirmed { .. } => None,
            };
            (tx.tx_node.tx, block.map(|block| BlockRef { height: block.height, hash: block.hash }))
        })
    }

    /// Whether another confirmed transaction spends a coin of `tx`, or of what it hangs on: then `tx` can never
    /// confirm.
    pub(crate) fn is_conflicted(&self, tx: &Transaction, confirmed: &BTreeMap<Txid, BlockRef>) -> bool {
        let graph = self.bdk.tx_graph();
        let is_lost = |tx: &Transaction| graph.direct_conflicts(tx).any(|(_, txid)| confirmed.contains_key(&txid));
        let waits = |tx: &Arc<Transaction>| !confirmed.contains_key(&tx.compute_txid());
        is_lost(tx) || graph.walk_ancestors(tx.clone(), |_, tx| waits(&tx).then(|| is_lost(&tx))).any(|lost| lost)
    }

    /// What has to be mined before any of `transactions` can be, as far as the wallet knows it whole; parents first.
    pub(crate) fn hangs_on(
        &self,
        transactions: &[Transaction],
        confirmed: &BTreeMap<Txid, BlockRef>,
    ) -> Vec<Transaction> {
        let waits = |_: usize, tx: Arc<Transaction>| {
            let txid = tx.compute_txid();
            (!confirmed.contains_key(&txid)).then_some((txid, tx))
        };
        let before = transactions.iter().flat_map(|tx| self.bdk.tx_graph().walk_ancestors(tx.clone(), waits));
        let mut left: BTreeMap<Txid, Arc<Transaction>> = before.collect();
        transactions.iter().for_each(|tx| drop(left.remove(&tx.compute_txid())));
        let mut ordered = Vec::new();
        let is_first = |tx: &Transaction, left: &BTreeMap<Txid, Arc<Transaction>>| {
            !tx.input.iter().any(|input| left.contains_key(&input.previous_output.txid))
        };
        while let Some((txid, tx)) = left.iter().find(|(_, tx)| is_first(tx, &left)).map(|(id, tx)| (*id, tx.clone())) {
            left.remove(&txid);
            ordered.push(tx.as_ref().clone());
        }
        ordered
    }

    /// Whether `tx` can never be mined in a chain that has a transaction which spends all of `by`: because it, or
    /// what it hangs on, spends a coin which that one spends, or what that one hangs on, or which is long gone.
    pub(crate) fn is_excluded(&self, tx: &Transaction, by: &[OutPoint], confirmed: &BTreeMap<Txid, BlockRef>) -> bool {
        if tx.input.iter().any(|input| by.contains(&input.previous_output)) {
            return true;
        }
        let graph = self.bdk.tx_graph();
        let paid = by.iter().filter_map(|outpoint| graph.get_tx(outpoint.txid));
        let family = |tx: Arc<Transaction>| {
            let before = graph.walk_ancestors(tx.clone(), |_, tx| Some(tx.compute_txid()));
            before.chain([tx.compute_txid()]).collect::<Vec<_>>()
        };
        let needed: BTreeSet<Txid> = paid.flat_map(family).collect();
        let tip = self.synced_to().height;
        let is_certain = |txid: &Txid| {
            needed.contains(txid) || confirmed.get(txid).is_some_and(|block| tip + 1 >= block.height + BURIED)
        };
        let is_lost = |tx: &Transaction| graph.direct_conflicts(tx).any(|(_, txid)| is_certain(&txid));
        let waits = |tx: &Arc<Transaction>| !confirmed.contains_key(&tx.compute_txid());
        is_lost(tx) || graph.walk_ancestors(tx.clone(), |_, tx| waits(&tx).then(|| is_lost(&tx))).any(|lost| lost)
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

    /// Takes over what was given away to be signed, and was sent by whoever signed it. Returns whether there was any.
    ///
    /// Its signatures are checked, whoever showed them: they are written down to be sent again.
    fn take_over(&mut self, jobs: &[Job]) -> Result<bool, WalletError> {
        let mut taken = Vec::new();
        for job in jobs.iter().filter(|job| job.generations.is_empty()) {
            let Some(draft) = &job.draft else { continue };
            let txid = draft.transactions[0].compute_txid();
            let Some(tx) = self.transaction(txid).filter(|_| self.is_current(&txid)) else { continue };
            let spent: Option<Vec<TxOut>> = tx.input.iter().map(|input| self.output(&input.previous_output)).collect();
            let Some(spent) = spent else { continue };
            let is_signed =
                |(n, input): (usize, &TxIn)| check_witness(self.secp(), &tx, n, &spent, &input.witness).is_ok();
            if !tx.input.iter().enumerate().all(is_signed) {
                continue;
            }
            let generation = draft.signed(tx.as_ref().clone());
            let sent = if generation.carrying == 0 { Event::RevealSent } else { Event::CommitSent };
            taken.push((job.id, Event::Signed { generation }));
            taken.extend((job.state == JobState::Planned).then_some((job.id, sent)));
        }
        if taken.is_empty() {
            return Ok(false);
        }
        self.save_with(|db| taken.iter().try_for_each(|(job, event)| journal::append(db, *job, event, unix_now())))?;
        Ok(true)
    }

    /// Moves each watched job to where the chain shows it, and saves all that was learnt.
    pub(crate) fn settle_jobs(&mut self, jobs: &[Job]) -> Result<(), WalletError> {
        let confirmed = self.confirmed();
        let tip = self.synced_to().height;
        let mut buried = confirmed.clone();
        buried.retain(|_, block| tip + 1 >= block.height + journal::FINAL_DEPTH);
        let mut shown = Vec::new();
        for job in jobs.iter().filter(|job| !matches!(job.state, JobState::Final(_))) {
            let (event, block) = match self.fate(job, &confirmed)? {
                Some(Fate::Revealed(txid, block)) => {
                    let is_news = job.state.confirmed() != Some(block) || job.confirmed_by != Some(txid);
                    (is_news.then_some(Event::Confirmed { txid, block }), Some(block))
                }
                Some(Fate::Swept(txid, block)) => {
                    let is_news = job.state != JobState::Reclaimed(block);
                    (is_news.then_some(Event::Reclaimed { txid, block }), Some(block))
                }
                None => {
                    let was_in_chain = matches!(job.state, JobState::Confirmed(_) | JobState::Reclaimed(_));
                    (was_in_chain.then_some(Event::Undone), None)
                }
            };
            shown.extend(event.map(|event| (job.id, event)));
            let is_over = match (block, &job.state) {
                (Some(block), _) => tip + 1 >= block.height + journal::FINAL_DEPTH,
                (None, JobState::Abandoned(_)) => {
                    let first = job.current().and_then(|current| current.transactions.first());
                    first.is_some_and(|tx| self.is_conflicted(tx, &buried))
                }
                _ => false,
            };
            if is_over && self.unsettled_sweeps(job, &buried).next().is_none() {
                shown.push((job.id, Event::Final));
            }
        }
        self.save_with(|db| shown.iter().try_for_each(|(job, event)| journal::append(db, *job, event, unix_now())))
    }

    /// The sweeps of late payments that are not in the chain, and can still get there.
    pub(crate) fn unsettled_sweeps<'a>(
        &self,
        job: &'a Job,
        confirmed: &BTreeMap<Txid, BlockRef>,
    ) -> impl Iterator<Item = &'a Transaction> {
        let is_settled =
            |tx: &Transaction| confirmed.contains_key(&tx.compute_txid()) || self.is_conflicted(tx, confirmed);
        job.standing_sweeps().filter(move |tx| !is_settled(tx))
    }

    /// What the chain has made of a job. The outputs that its envelope locks decide: spent by the leaf, it
    /// is revealed, whichever of its transactions that was; spent by key, it was swept back. Sweeps of what was paid
    /// too late decide nothing.
    fn fate(&self, job: &Job, confirmed: &BTreeMap<Txid, BlockRef>) -> Result<Option<Fate>, WalletError> {
        let carried = job.generations.iter().filter_map(Generation::carrier_tx).map(Transaction::compute_txid);
        if let Some((txid, block)) = carried.filter_map(|txid| Some((txid, *confirmed.get(&txid)?))).next() {
            return Ok(Some(Fate::Revealed(txid, block)));
        }
        let graph = self.bdk.tx_graph();
        let late: BTreeSet<Txid> = job.sweeps.iter().map(Transaction::compute_txid).collect();
        let mut swept = None;
        for outpoint in self.locked(job)? {
            for txid in graph.outspends(outpoint).iter().filter(|txid| !late.contains(*txid)) {
                let (Some(block), Some(tx)) = (confirmed.get(txid), graph.get_tx(*txid)) else { continue };
                let by_key = |input: &TxIn| input.witness.len() == 1;
                match tx.input.iter().find(|input| input.previous_output == outpoint).map(by_key) {
                    Some(false) => return Ok(Some(Fate::Revealed(*txid, *block))),
                    _ => swept = Some(Fate::Swept(*txid, *block)),
                }
            }
        }
        Ok(swept)
    }
}

/// What the chain has made of a job, by which transaction and in which block.
enum Fate {
    Revealed(Txid, BlockRef),
    Swept(Txid, BlockRef),
}

/// A payment to an envelope.
#[derive(Clone, Debug)]
pub(crate) struct Paid {
    pub outpoint: OutPoint,
    pub output: TxOut,
    pub is_confirmed: bool,
    /// Whether a transaction of the job spends it.
    pub is_taken: bool,
}

/// What of the chain matters to jobs: envelopes' outputs, and whatever spends them.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub scripts: BTreeSet<ScriptBuf>,
    pub outpoints: BTreeSet<OutPoint>,
    /// Whether one of the scripts may be paid at any moment.
    pub awaits_payment: bool,
}

impl Watch {
    pub fn is_empty(&self) -> bool {
        self.scripts.is_empty() && self.outpoints.is_empty()
    }

    /// Whether a transaction matters; what spends its outputs will, then.
    pub fn concerns(&mut self, tx: &Transaction) -> bool {
        if self.is_empty() {
            return false;
        }
        let spends = tx.input.iter().any(|input| self.outpoints.contains(&input.previous_output));
        let paid: Vec<u32> = (0..)
            .zip(&tx.output)
            .filter(|(_, out)| self.scripts.contains(&out.script_pubkey))
            .map(|(n, _)| n)
            .collect();
        if paid.is_empty() {
            return spends;
        }
        let txid = tx.compute_txid();
        self.outpoints.extend(paid.into_iter().map(|vout| OutPoint::new(txid, vout)));
        true
    }
}

#[cfg(feature = "esplora")]
fn block_ref(checkpoint: &CheckPoint) -> BlockRef {
    BlockRef { height: checkpoint.height(), hash: checkpoint.hash() }
}

/// Far beyond the reveal keys of a wallet's former life, and the same for the same height.
fn former_keys(tip: BtcHeight) -> u32 {
    tip.saturating_mul(KEYS_PER_BLOCK) & 0x7fff_ffff
}

/// Searches a node's coins, further as long as there may be more of them.
fn on_node(node: &RpcNode, dir: &Path, descriptors: &Descriptors) -> Result<FormerLife, WalletError> {
    let tip = node.tip()?;
    let blank = blank(node.network(), dir, descriptors)?;
    let [first, ..] = RESTORE_RANGES;
    let (mut found, mut used) = (Vec::new(), BTreeMap::new());
    for range in RESTORE_RANGES {
        found = node.scan_utxo_set(&descriptors.texts().map(|descriptor| (descriptor, range - 1)))?;
        used = last_used(&blank, &found, range);
        let goes_on = used.values().max().map_or(range == first, |last| *last >= range / 2);
        if !goes_on {
            break;
        }
    }
    let birthday = found.iter().map(|(_, height)| *height).min().unwrap_or(tip.height);
    if let Some(first_available) = node.info()?.prune_height.filter(|first| *first > birthday) {
        return Err(ChainError::Pruned { height: birthday, first_available }.into());
    }
    Ok(FormerLife { tip, birthday, used })
}

/// Asks a server for address after address.
#[cfg(feature = "esplora")]
fn on_server(server: &Esplora, dir: &Path, descriptors: &Descriptors) -> Result<FormerLife, WalletError> {
    let tip = server.tip()?;
    let blank = blank(server.network(), dir, descriptors)?;
    let found = server.full_scan(blank.start_full_scan().build(), STOP_GAP)?;
    let heights = found.tx_update.anchors.iter().map(|(anchor, _)| anchor.block_id.height);
    let birthday = heights.min().unwrap_or(tip.height).min(tip.height);
    Ok(FormerLife { tip, birthday, used: found.last_active_indices })
}

/// A wallet that knows its scripts and nothing else.
fn blank(network: Network, dir: &Path, descriptors: &Descriptors) -> Result<bdk_wallet::Wallet, WalletError> {
    let Descriptors { receive, change } = descriptors.clone();
    let blank = bdk_wallet::Wallet::create(receive, change).network(network).create_wallet_no_persist();
    blank.map_err(|error| super::damaged(dir, error))
}

/// The highest index of each keychain among the scripts found in a range.
fn last_used(bdk: &bdk_wallet::Wallet, found: &[(ScriptBuf, BtcHeight)], range: u32) -> BTreeMap<KeychainKind, u32> {
    let [receive, change] = [KeychainKind::External, KeychainKind::Internal];
    let scripts = |keychain| bdk.unbounded_spk_iter(keychain).map(move |(index, script)| (keychain, index, script));
    let mut left: BTreeSet<&ScriptBuf> = found.iter().map(|(script, _)| script).collect();
    let mut last = BTreeMap::new();
    for pair in scripts(receive).zip(scripts(change)).take(range as usize) {
        if left.is_empty() {
            break;
        }
        for (keychain, index, script) in [pair.0, pair.1] {
            if left.remove(&script) {
                last.insert(keychain, index);
            }
        }
    }
    last
}
