//! The built-in wallet: BIP86 coins in SQLite, over a Bitcoin Core node or an Esplora server; or the coins of
//! public descriptors, whose keys are elsewhere, beside a seed of its own for envelopes.
//!
//! Guarantees: one process per wallet; the seed file is whole or absent; whatever is about to be
//! broadcast is first on disk, together with the fact that it spends its coins; keys stay out of
//! BDK, of the database, of `Debug` and of errors; an encrypted seed is decrypted only to sign.
//! Trusts a node for the chain, and a server for which one is best and what waits (see `shown`); sees foreign
//! payments in a node's mempool only where that is small (see `sync`).

mod absent;
mod balance;
mod blocks;
mod closed;
mod coins;
mod descriptors;
mod error;
mod fee;
mod files;
mod graph;
mod job;
pub(crate) mod journal;
mod open;
mod orders;
mod payment;
mod rescan;
mod restore;
mod seed;
mod shown;
mod store;
mod sync;
mod utxos;
mod watch;

pub use balance::Balance;
pub use closed::Closed;
pub use coins::{Coin, Shortfall};
pub use descriptors::{BadDescriptor, Descriptors};
pub use error::{WalletError, is_crowded};
pub use fee::{BadRate, Caps, FeeCap, SatPerVb, fee_for, rate_of, vsize};
pub use job::{Amendment, Deadline, Event, Generation, Job, JobId, JobState, JobTerms, Payer};
pub use journal::{FINAL_DEPTH, Recorded};
pub use orders::{Order, Orders};
pub use payment::{Payment, PaymentOutcome, Settled};
pub use restore::{Looked, Search};
pub use seed::{Mnemonic, Passphrase};
pub use sync::{Synced, WalletSource};

pub(crate) use balance::total;
pub(crate) use coins::{Draft, SIGNATURE_LEN, inputs_of, key_spend, outputs_of, pay, select, transaction, unsigned};
pub(crate) use descriptors::{BadSignature, check_witness, witness};
pub(crate) use payment::OTHER_COINS;
pub(crate) use seed::Keys;
pub(crate) use watch::Paid;

use crate::crash;
use crate::primitives::{BlockRef, BtcHeight};
use absent::Absent;
use bdk_wallet::chain::{ConfirmationBlockTime, TxUpdate};
use bdk_wallet::miniscript::Descriptor;
use bdk_wallet::miniscript::descriptor::DefiniteDescriptorKey;
use bdk_wallet::{KeychainKind, Update};
use bitcoin::key::{Secp256k1, TapTweak};
use bitcoin::secp256k1::{All, Message};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::{
    Address, Network, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, Witness, XOnlyPublicKey, taproot,
};
use files::Folder;
use graph::View;
use rusqlite::Connection;
use seed::{Branch, PublicKeys};
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use utxos::Unread;

/// An open wallet; its folder is locked as long as this value lives.
pub struct Wallet {
    /// Holds the lock.
    folder: Folder,
    dir: PathBuf,
    db: Connection,
    bdk: bdk_wallet::Wallet,
    /// What `bdk` knows, once somebody has asked.
    view: OnceCell<Arc<View>>,
    /// Coins that are no longer there, though nothing is known that spends them.
    missing: BTreeSet<OutPoint>,
    unread: Unread,
    secp: Secp256k1<All>,
    public: PublicKeys,
    /// Only while the wallet is unlocked.
    secret: Option<Keys>,
    network: Network,
    birthday: BtcHeight,
    key_base: u32,
    /// What takes the place of an input's witness until it is signed.
    placeholder: Witness,
    /// How far the search went that made it.
    looked: Option<Looked>,
    /// What of a large mempool was read.
    seen: HashSet<Txid>,
    /// How much of it was not.
    unseen: usize,
    /// Payments to envelopes of which it is known what they hang on.
    traced: HashSet<Txid>,
    small_mempool: u32,
    /// What own transactions hang on, and is not there.
    absent: Absent,
    /// Whether all that is stored of the chain was shown, and not only said.
    is_shown: bool,
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet")
            .field("dir", &self.dir)
            .field("network", &self.network)
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

impl Wallet {
    /// Whether the keys of its coins are elsewhere: the seed is for envelopes only.
    pub fn is_watch_only(&self) -> bool {
        self.public.coins.is_none()
    }

    /// The public descriptors of its coins.
    pub fn descriptors(&self) -> Descriptors {
        descriptors_of(&self.bdk)
    }

    /// Whether the wallet has to be unlocked before it can sign.
    pub fn is_locked(&self) -> bool {
        self.secret.is_none()
    }

    /// The network it was made for.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The height that no coin of it is below.
    pub fn birthday(&self) -> BtcHeight {
        self.birthday
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The block up to which the wallet knows the chain.
    pub fn synced_to(&self) -> BlockRef {
        let checkpoint = self.bdk.latest_checkpoint();
        BlockRef { height: checkpoint.height(), hash: checkpoint.hash() }
    }

    /// The next address that nobody has paid yet; the same until somebody does.
    pub fn address(&mut self) -> Result<Address, WalletError> {
        let address = self.bdk_mut().next_unused_address(KeychainKind::External).address;
        self.save()?;
        Ok(address)
    }

    /// The script that the next change goes to. Reserved by `note`.
    pub(crate) fn next_change(&self) -> ScriptBuf {
        let [next, _] = self.next_changes();
        next
    }

    /// The scripts that the next change goes to, for two outputs of it.
    pub(crate) fn next_changes(&self) -> [ScriptBuf; 2] {
        const CHANGE: KeychainKind = KeychainKind::Internal;
        let view = self.view();
        // What only transactions paid that count no more is free again: who restores the wallet meets no gap.
        let is_free = |script: &ScriptBuf| {
            let paid = view.outputs.get(script).into_iter().flatten();
            paid.clone().all(|paid| self.transaction(paid.txid).is_some() && !self.is_current(&paid.txid))
        };
        let scripts = self.bdk.unbounded_spk_iter(CHANGE).map(|(_, script)| script);
        let revealed = self.bdk.spk_index().revealed_keychain_spks(CHANGE).map(|(_, script)| script);
        let fresh = scripts.skip(self.bdk.next_derivation_index(CHANGE) as usize);
        let mut free = revealed.chain(fresh).filter(is_free);
        std::array::from_fn(|_| free.next().unwrap_or_default())
    }

    /// An input like those that spend the wallet's coins, of their final size.
    pub(crate) fn input(&self) -> TxIn {
        TxIn { witness: self.placeholder.clone(), ..key_spend(OutPoint::null()) }
    }

    /// The descriptor of one of the wallet's scripts.
    pub(crate) fn descriptor_of(&self, script: &ScriptBuf) -> Option<Descriptor<DefiniteDescriptorKey>> {
        let (keychain, index) = self.bdk.derivation_of_spk(script.clone())?;
        self.bdk.public_descriptor(keychain).at_derivation_index(index).ok()
    }

    /// The scripts of both kinds, up to `beyond` of each behind the last that was handed out.
    pub(crate) fn scripts(&self, beyond: u32) -> BTreeSet<ScriptBuf> {
        let keychains = [KeychainKind::External, KeychainKind::Internal];
        let scripts = |keychain| {
            let count = self.bdk.next_derivation_index(keychain).saturating_add(beyond);
            self.bdk.unbounded_spk_iter(keychain).take(count as usize).map(|(_, script)| script)
        };
        keychains.into_iter().flat_map(scripts).collect()
    }

    /// The lowest index of a reveal key that was never used.
    pub(crate) fn next_key_index(&self) -> Result<u32, WalletError> {
        journal::next_key_index(&self.db, self.key_base)
    }

    pub(crate) fn secp(&self) -> &Secp256k1<All> {
        &self.secp
    }

    /// The key that is both the internal key of an envelope's output and the key in its leaf.
    pub(crate) fn reveal_key(&self, index: u32) -> Result<XOnlyPublicKey, WalletError> {
        self.public.reveal(&self.secp, index)
    }

    /// What signing needs.
    pub(crate) fn keys(&self) -> Result<&Keys, WalletError> {
        self.secret.as_ref().ok_or_else(|| WalletError::Locked { dir: self.dir.clone() })
    }

    /// To learn something: what was known is to be asked anew.
    fn bdk_mut(&mut self) -> &mut bdk_wallet::Wallet {
        self.view.take();
        &mut self.bdk
    }

    pub(crate) fn db(&self) -> &Connection {
        &self.db
    }

    /// Signs those inputs of `tx`, which spends `spent` in order, that are the wallet's own.
    ///
    /// # Errors
    /// [`WalletError::WatchOnly`] if there are any whose keys are elsewhere.
    pub(crate) fn sign(&self, tx: &mut Transaction, spent: &[TxOut]) -> Result<(), WalletError> {
        let keys = self.keys()?;
        let mut witnesses = Vec::new();
        let mut cache = SighashCache::new(&*tx);
        for (input, output) in spent.iter().enumerate() {
            let Some((keychain, index)) = self.bdk.derivation_of_spk(output.script_pubkey.clone()) else { continue };
            if self.is_watch_only() {
                return Err(WalletError::WatchOnly { dir: self.dir.clone() });
            }
            let hash = cache
                .taproot_key_spend_signature_hash(input, &Prevouts::All(spent), TapSighashType::Default)
                .map_err(|error| WalletError::Sign(error.to_string()))?;
            let secp = keys.secp();
            let key = keys.coin(Branch::of(keychain), index)?.tap_tweak(secp, None).to_keypair();
            let signature = taproot::Signature {
                signature: secp.sign_schnorr(&Message::from(hash), &key),
                sighash_type: TapSighashType::Default,
            };
            witnesses.push((input, Witness::p2tr_key_spend(&signature)));
        }
        for (input, witness) in witnesses {
            if let Some(input) = tx.input.get_mut(input) {
                input.witness = witness;
            }
        }
        Ok(())
    }

    /// Makes the wallet know transactions that are about to leave. `save` stores it.
    pub(crate) fn note(&mut self, transactions: &[Transaction]) {
        for output in transactions.iter().flat_map(|tx| &tx.output) {
            if let Some((keychain, index)) = self.bdk.derivation_of_spk(output.script_pubkey.clone()) {
                let _ = self.bdk_mut().reveal_addresses_to(keychain, index).count();
            }
        }
        // The same bytes may have been given up before, in this very second.
        let seen = |txid| {
            let evicted = self.bdk.tx_graph().get_last_evicted(txid);
            evicted.map_or(unix_now(), |evicted| unix_now().max(evicted + 1))
        };
        let mut tx_update = TxUpdate::default();
        tx_update.seen_ats =
            transactions.iter().map(Transaction::compute_txid).map(|txid| (txid, seen(txid))).collect();
        tx_update.txs = transactions.iter().cloned().map(Arc::new).collect();
        self.learn(tx_update);
    }

    /// Takes in transactions that BDK would not keep of its own accord.
    pub(crate) fn learn(&mut self, tx_update: TxUpdate<ConfirmationBlockTime>) {
        // Only an update of the chain can fail to connect, and this is none.
        let _ = self.bdk_mut().apply_update(Update { tx_update, ..Update::default() });
    }

    /// Makes the wallet forget transactions that never left: their coins are free again.
    pub(crate) fn forget(&mut self, txids: &[Txid]) {
        let seen = |txid| self.bdk.tx_graph().get_tx_node(txid).and_then(|node| node.last_seen).unwrap_or(0);
        let evicted: Vec<_> = txids.iter().map(|txid| (*txid, unix_now().max(seen(*txid)))).collect();
        self.bdk_mut().apply_evicted_txs(evicted);
    }

    /// Writes an event down, with whatever the wallet has learnt, in one step.
    pub(crate) fn record(&mut self, job: JobId, events: &[Event]) -> Result<(), WalletError> {
        self.save_with(|db| events.iter().try_for_each(|event| journal::append(db, job, event, unix_now())))
    }

    /// Stores what changed.
    pub(crate) fn save(&mut self) -> Result<(), WalletError> {
        self.save_with(|_| Ok(()))
    }

    /// Stores what changed, and whatever `more` writes, in one step. If that fails, none of it has happened: the wallet
    /// is what is on disk.
    pub(crate) fn save_with<T>(
        &mut self,
        more: impl FnOnce(&Connection) -> Result<T, WalletError>,
    ) -> Result<T, WalletError> {
        self.try_to_save(more).inspect_err(|_| {
            let changes = store::load(&self.db).map_err(WalletError::from);
            let stored = changes.and_then(|changes| open::load_bdk(&self.dir, changes, self.network, &self.public));
            // Nothing could be read, either: then nothing will be written, until it can.
            if let Ok(bdk) = stored {
                *self.bdk_mut() = bdk;
                self.seen.clear();
                self.traced.clear();
            }
        })
    }

    fn try_to_save<T>(&mut self, more: impl FnOnce(&Connection) -> Result<T, WalletError>) -> Result<T, WalletError> {
        let tx = self.db.transaction()?;
        let value = more(&tx)?;
        if let Some(changes) = self.bdk.staged() {
            store::append(&tx, changes)?;
        }
        crash::point();
        tx.commit()?;
        crash::point();
        let _ = self.bdk.take_staged();
        Ok(value)
    }
}

fn descriptors_of(bdk: &bdk_wallet::Wallet) -> Descriptors {
    let [receive, change] = [KeychainKind::External, KeychainKind::Internal];
    Descriptors { receive: bdk.public_descriptor(receive).clone(), change: bdk.public_descriptor(change).clone() }
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
pub(crate) mod tests;
