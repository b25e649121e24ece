//! The wallet follows the chain: new blocks, reorganisations, the mempool; and restores from words.
//!
//! A node's mempool of more than [`SMALL_MEMPOOL`] transactions is not read: only our own transactions are
//! looked up in it, so that a foreign payment appears when it is confirmed.

use super::seed::{Branch, SeedFile};
use super::{Job, JobState, Mnemonic, Passphrase, Wallet, WalletError, journal, unix_now};
#[cfg(feature = "esplora")]
use crate::chain::Esplora;
use crate::chain::{BlockSource, ChainError, Mempool, RpcNode};
use crate::primitives::{BlockRef, BtcHeight};
use bdk_bitcoind_rpc::Emitter;
use bdk_wallet::KeychainKind;
#[cfg(feature = "esplora")]
use bdk_wallet::chain::CheckPoint;
use bitcoin::{Network, ScriptBuf, Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Blocks before the birthday that are read as well, in case the chain's end is reorganised.
const MARGIN: BtcHeight = 10;
/// How often a long sync is written to disk.
const SAVE_EVERY_BLOCKS: u32 = 500;
/// Transactions in a mempool that is still read whole.
const SMALL_MEMPOOL: u32 = 5_000;
/// Addresses of each kind that `restore` looks for.
const RESTORE_RANGE: u32 = 1_000;
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
    /// A node's UTXO set is searched (minutes on mainnet) for coins of the first thousand addresses of
    /// each kind; the lowest of them gives the birthday, and the chain is read from there. Transactions
    /// that were spent before it stay unknown. An Esplora server is asked for address after address, until
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
        let source = source.into();
        let folder = Self::vacant(dir)?;
        let keys = super::Keys::new(&mnemonic, network)?.public();
        let descriptors = [Branch::Receive, Branch::Change].map(|branch| keys.descriptor(branch));
        let life = match source {
            WalletSource::Node(node) => on_node(node, dir, descriptors)?,
            #[cfg(feature = "esplora")]
            WalletSource::Esplora(server) => on_server(server, dir, descriptors)?,
        };
        let seed = SeedFile { network, birthday: life.birthday, mnemonic };
        let mut wallet = Self::found(folder, dir, &seed, passphrase, |bdk| {
            for (keychain, index) in life.used {
                let _ = bdk.reveal_addresses_to(keychain, index).count();
            }
            // Far beyond the keys of the wallet's former life, and the same for the same height.
            Ok(life.tip.height.saturating_mul(KEYS_PER_BLOCK) & 0x7fff_ffff)
        })?;
        wallet.sync(source)?;
        Ok(wallet)
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
        let watched = journal::watched(self.db(), self.synced_to().height)?;
        let kept = watched.iter().flat_map(|job| job.active()).map(|tx| tx.compute_txid()).collect();
        let blocks = match source {
            WalletSource::Node(node) => self.read_blocks(node, &kept)?,
            #[cfg(feature = "esplora")]
            WalletSource::Esplora(server) => {
                self.read_histories(server, &kept)?;
                0
            }
        };
        self.save()?;
        self.settle_jobs()?;
        Ok(Synced { tip: self.synced_to(), blocks })
    }

    /// Reads a node's new blocks and its mempool; `kept` are not missed there. Returns how many blocks.
    fn read_blocks(&mut self, node: &RpcNode, kept: &BTreeSet<Txid>) -> Result<u32, WalletError> {
        let info = node.info()?;
        let kept_from = info.prune_height.unwrap_or(0).min(self.birthday());
        let start = self.birthday().saturating_sub(MARGIN).max(kept_from).min(info.tip.height);
        let unconfirmed: Vec<Arc<Transaction>> = self
            .bdk
            .transactions()
            .filter(|tx| tx.chain_position.is_unconfirmed())
            .map(|tx| tx.tx_node.tx.clone())
            .collect();
        let mut emitter = Emitter::new(node, self.bdk.latest_checkpoint(), start, unconfirmed.clone());
        let mut blocks = 0;
        let reached = self.synced_to().height;
        let explain = |error| match (node.explain_call("getblock", error), info.prune_height) {
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
            blocks += 1;
            if blocks % SAVE_EVERY_BLOCKS == 0 {
                self.save()?;
            }
        }

        if node.mempool_size()? <= SMALL_MEMPOOL {
            let event = emitter.mempool().map_err(explain)?;
            let evicted = event.evicted.into_iter().filter(|(txid, _)| !kept.contains(txid));
            self.bdk.apply_evicted_txs(evicted);
            self.bdk.apply_unconfirmed_txs(event.update);
        } else {
            let confirmed = self.confirmed();
            for tx in unconfirmed {
                let txid = tx.compute_txid();
                let known = kept.contains(&txid) || confirmed.contains_key(&txid);
                if !known && node.entry(&txid)?.is_none() {
                    self.bdk.apply_evicted_txs([(txid, unix_now())]);
                }
            }
        }
        Ok(blocks)
    }

    /// Asks a server for the histories of all addresses handed out; `kept` are not missed there.
    #[cfg(feature = "esplora")]
    fn read_histories(&mut self, server: &Esplora, kept: &BTreeSet<Txid>) -> Result<(), WalletError> {
        let mut found = server.sync(self.bdk.start_sync_with_revealed_spks().build())?;
        found.tx_update.evicted_ats.retain(|(txid, _)| !kept.contains(txid));
        let tip = found.chain_update.as_ref().map_or(self.synced_to(), block_ref);
        self.bdk.apply_update(found).map_err(|_| WalletError::Disconnected(tip))
    }

    /// Heights of the wallet's transactions in the best chain.
    pub(crate) fn confirmed(&self) -> BTreeMap<Txid, BtcHeight> {
        let height = |tx: bdk_wallet::WalletTx<'_>| {
            let height = tx.chain_position.confirmation_height_upper_bound()?;
            Some((tx.tx_node.txid, height))
        };
        self.bdk.transactions().filter_map(height).collect()
    }

    /// Whether another confirmed transaction spends a coin of `tx`: then `tx` can never confirm.
    pub(crate) fn is_conflicted(&self, tx: &Transaction, confirmed: &BTreeMap<Txid, BtcHeight>) -> bool {
        let graph = self.bdk.tx_graph();
        graph.direct_conflicts(tx).any(|(_, txid)| confirmed.contains_key(&txid))
    }

    /// Moves each watched job to where the chain shows it.
    fn settle_jobs(&mut self) -> Result<(), WalletError> {
        let jobs = journal::watched(self.db(), self.synced_to().height)?;
        if jobs.is_empty() {
            return Ok(());
        }
        let confirmed = self.confirmed();
        let changed: Vec<(Job, JobState)> = jobs
            .into_iter()
            .filter_map(|job| {
                let next = shown(&job, &confirmed)?;
                (next != job.state).then_some((job, next))
            })
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        self.save_with(|db| changed.iter().try_for_each(|(job, next)| journal::set_state(db, job.id, next)))
    }
}

#[cfg(feature = "esplora")]
fn block_ref(checkpoint: &CheckPoint) -> BlockRef {
    BlockRef { height: checkpoint.height(), hash: checkpoint.hash() }
}

/// Searches a node's coins.
fn on_node(node: &RpcNode, dir: &Path, descriptors: [String; 2]) -> Result<FormerLife, WalletError> {
    let tip = node.tip()?;
    let found = node.scan_utxo_set(&descriptors.clone().map(|descriptor| (descriptor, RESTORE_RANGE - 1)))?;
    let birthday = found.iter().map(|(_, height)| *height).min().unwrap_or(tip.height);
    if let Some(first_available) = node.info()?.prune_height.filter(|first| *first > birthday) {
        return Err(ChainError::Pruned { height: birthday, first_available }.into());
    }
    let used = last_used(&blank(node.network(), dir, descriptors)?, &found);
    Ok(FormerLife { tip, birthday, used })
}

/// Asks a server for address after address.
#[cfg(feature = "esplora")]
fn on_server(server: &Esplora, dir: &Path, descriptors: [String; 2]) -> Result<FormerLife, WalletError> {
    let tip = server.tip()?;
    let blank = blank(server.network(), dir, descriptors)?;
    let found = server.full_scan(blank.start_full_scan().build(), STOP_GAP)?;
    let heights = found.tx_update.anchors.iter().map(|(anchor, _)| anchor.block_id.height);
    let birthday = heights.min().unwrap_or(tip.height).min(tip.height);
    Ok(FormerLife { tip, birthday, used: found.last_active_indices })
}

/// A wallet that knows its scripts and nothing else.
fn blank(network: Network, dir: &Path, descriptors: [String; 2]) -> Result<bdk_wallet::Wallet, WalletError> {
    let [receive, change] = descriptors;
    let blank = bdk_wallet::Wallet::create(receive, change).network(network).create_wallet_no_persist();
    blank.map_err(|error| super::damaged(dir, error))
}

/// The state that the chain shows; `None` if it says nothing new.
fn shown(job: &Job, confirmed: &BTreeMap<Txid, BtcHeight>) -> Option<JobState> {
    let height = |tx: &Transaction| confirmed.get(&tx.compute_txid()).copied();
    if let Some(height) = job.transactions.last().and_then(height) {
        return Some(JobState::Confirmed(height));
    }
    if let Some(height) = job.reclaim.as_ref().and_then(height) {
        return Some(JobState::Reclaimed(height));
    }
    match job.state {
        JobState::Confirmed(_) => Some(JobState::Sent),
        JobState::Reclaimed(_) => Some(JobState::Reclaiming),
        // The commit alone is in the chain: it left, whatever the journal knows.
        JobState::Signed if job.transactions.first().and_then(height).is_some() => Some(JobState::Sent),
        _ => None,
    }
}

/// The highest index of each keychain among the scripts found.
fn last_used(bdk: &bdk_wallet::Wallet, found: &[(ScriptBuf, BtcHeight)]) -> BTreeMap<KeychainKind, u32> {
    let mut last = BTreeMap::new();
    if found.is_empty() {
        return last;
    }
    let scripts: BTreeSet<&ScriptBuf> = found.iter().map(|(script, _)| script).collect();
    for keychain in [KeychainKind::External, KeychainKind::Internal] {
        let used = bdk
            .unbounded_spk_iter(keychain)
            .take(RESTORE_RANGE as usize)
            .filter(|(_, script)| scripts.contains(script))
            .map(|(index, _)| index)
            .max();
        if let Some(index) = used {
            last.insert(keychain, index);
        }
    }
    last
}
