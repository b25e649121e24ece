//! The built-in wallet: BIP86 coins in SQLite, over a Bitcoin Core node or an Esplora server; or the coins of
//! public descriptors, whose keys are elsewhere, beside a seed of its own for envelopes.
//!
//! Guarantees: one process per wallet; the seed file is whole or absent; whatever is about to be
//! broadcast is first on disk, together with the fact that it spends its coins; keys stay out of
//! BDK, of the database, of `Debug` and of errors; an encrypted seed is decrypted only to sign.
//! Trusts node or server for the chain, and sees foreign payments in a node's mempool only where that is
//! small (see `sync`).

mod closed;
mod coins;
mod descriptors;
mod fee;
mod files;
mod job;
pub(crate) mod journal;
mod payment;
mod seed;
mod sync;

pub use closed::Closed;
pub use coins::{Coin, Shortfall};
pub use descriptors::{BadDescriptor, Descriptors};
pub use fee::{BadRate, Caps, FeeCap, SatPerVb, fee_for, rate_of, vsize};
pub use job::{Deadline, Event, Generation, Job, JobId, JobState, JobTerms, Payer};
pub use journal::{FINAL_DEPTH, Recorded};
pub use payment::{Payment, PaymentOutcome, Settled};
pub use seed::{Mnemonic, Passphrase};
pub use sync::{Synced, WalletSource};

pub(crate) use coins::{Draft, SIGNATURE_LEN, key_spend, pay, select, transaction, unsigned};
pub(crate) use descriptors::{BadSignature, check_witness, witness};
pub(crate) use seed::Keys;
pub(crate) use sync::Paid;

use crate::chain::ChainError;
use crate::crash;
use crate::primitives::{BlockRef, BtcHeight};
use bdk_wallet::chain::{ConfirmationBlockTime, TxUpdate};
use bdk_wallet::miniscript::Descriptor;
use bdk_wallet::miniscript::descriptor::DefiniteDescriptorKey;
use bdk_wallet::{ChangeSet, KeychainKind, Update};
use bitcoin::key::{Secp256k1, TapTweak};
use bitcoin::secp256k1::{All, Message};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::{
    Address, Amount, Network, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, Witness, XOnlyPublicKey, taproot,
};
use files::Folder;
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, OpenFlags, Row, params};
use seed::{Branch, PublicKeys, SeedFile};
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// Addresses beyond the last one handed out that are recognised.
const LOOKAHEAD: u32 = 50;
/// Confirmations before a coinbase output can be spent.
const COINBASE_MATURITY: u32 = 100;

const DIFFERENT: &str = "seed and wallet.sqlite are of different wallets";
const HOW_TO_UNLOCK: &str = "run it on a terminal to be asked for the passphrase, or give --passphrase-file FILE";

/// Why the wallet could not do it.
#[derive(Debug, Error)]
pub enum WalletError {
    /// There is none.
    #[error("there is no wallet in {}; make one with `sortie wallet create` or `restore`", dir.display())]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// There is one already.
    #[error("there is a wallet in {} already; nothing was changed", dir.display())]
    Exists {
        /// Where it is.
        dir: PathBuf,
    },
    /// Another process has it open.
    #[error("the wallet in {} is in use by another process; stop that one first", dir.display())]
    InUse {
        /// Where it is.
        dir: PathBuf,
    },
    /// It belongs to another network.
    #[error("this wallet is for {got}, but {expected} is wanted; choose another folder or set --network")]
    WrongNetwork {
        /// What we were told to use.
        expected: Network,
        /// What the wallet is for.
        got: Network,
    },
    /// A file of the wallet could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Seed and database do not fit together, or one of them is damaged.
    #[error("the wallet in {} is damaged ({what}); restore it from its words into another folder", dir.display())]
    Damaged {
        /// Where it is.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The words are not a BIP39 mnemonic. They are not repeated here.
    #[error("these words are not a BIP39 mnemonic in English; check their spelling, number and order")]
    Mnemonic,
    /// A descriptor is not taken.
    #[error("this descriptor cannot be used: {0}")]
    Descriptor(#[from] BadDescriptor),
    /// The keys of the wallet's coins are elsewhere.
    #[error(
        "the wallet in {} watches coins whose keys are elsewhere: payments are made there, `sortie force --psbt FILE` writes what is to be signed there, and what waits too long is helped by spending its change there", dir.display()
    )]
    WatchOnly {
        /// Where it is.
        dir: PathBuf,
    },
    /// The seed file is encrypted, and nobody gave its passphrase.
    #[error("the wallet in {} is locked; {HOW_TO_UNLOCK}", dir.display())]
    Locked {
        /// Where it is.
        dir: PathBuf,
    },
    /// The seed file does not open with this passphrase.
    #[error("this passphrase does not open the wallet in {}; nothing was changed", dir.display())]
    WrongPassphrase {
        /// Where it is.
        dir: PathBuf,
    },
    /// An empty passphrase protects nothing.
    #[error("the passphrase is empty; nothing was changed")]
    EmptyPassphrase,
    /// The seed file could not be encrypted.
    #[error("the seed file could not be encrypted; nothing was changed")]
    NotEncrypted,
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness; no wallet was made")]
    NoRandomness,
    /// SQLite failed.
    #[error("the wallet's database: {0}")]
    Database(#[from] rusqlite::Error),
    /// The journal was written by another version of this program.
    #[error(
        "the journal in {} is of version {found}, and this program keeps version {expected}; finish its jobs with the program that wrote it, then restore the wallet from its words into another folder", dir.display()
    )]
    JournalVersion {
        /// Where it is.
        dir: PathBuf,
        /// The file's.
        found: i64,
        /// Ours.
        expected: i64,
    },
    /// The journal cannot be used as it stands.
    #[error("the wallet's journal: {0}; nothing was sent")]
    Journal(String),
    /// A key could not be derived.
    #[error("cannot derive a key: {0}")]
    Key(#[from] bitcoin::bip32::Error),
    /// A transaction could not be signed.
    #[error("cannot sign: {0}")]
    Sign(String),
    /// The node could not answer.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A block does not connect to what the wallet knows.
    #[error("block {0} does not connect to the wallet's chain; run the command again")]
    Disconnected(BlockRef),
    /// Too few coins.
    #[error(transparent)]
    Funds(#[from] Shortfall),
    /// Too high a fee.
    #[error(transparent)]
    FeeCap(#[from] FeeCap),
    /// This outpoint is no spendable coin of the wallet.
    #[error("{0} is not a spendable coin of this wallet; sync first, or choose another")]
    UnknownCoin(OutPoint),
    /// The amount is below what nodes relay.
    #[error("{} sat is below the dust limit of {} sat for that address", amount.to_sat(), limit.to_sat())]
    Dust {
        /// What was to be sent.
        amount: Amount,
        /// The least that can be.
        limit: Amount,
    },
    /// The node's answer to a payment was lost.
    #[error(
        "payment {txid} is signed and written down, but the node did not answer: {source}; run the same command again, or `sortie resume`: neither pays twice"
    )]
    Unsent {
        /// The payment.
        txid: Txid,
        /// What happened.
        source: ChainError,
    },
    /// The node refused the transaction; nothing left.
    #[error("the node refused transaction {txid}: {reason}; nothing was sent")]
    Refused {
        /// Which.
        txid: Txid,
        /// The node's words.
        reason: String,
    },
}

/// What the wallet holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Confirmed and spendable.
    pub confirmed: Amount,
    /// Unconfirmed change of our own transactions: spendable.
    pub change: Amount,
    /// Unconfirmed payments by others: spendable once confirmed.
    pub incoming: Amount,
    /// Mined coins younger than 100 blocks.
    pub immature: Amount,
}

impl Balance {
    /// Everything.
    pub fn total(&self) -> Amount {
        self.confirmed + self.change + self.incoming + self.immature
    }
}

/// An open wallet; its folder is locked as long as this value lives.
pub struct Wallet {
    /// Holds the lock.
    folder: Folder,
    dir: PathBuf,
    db: Connection,
    bdk: bdk_wallet::Wallet,
    secp: Secp256k1<All>,
    public: PublicKeys,
    /// Only while the wallet is unlocked.
    secret: Option<Keys>,
    network: Network,
    birthday: BtcHeight,
    key_base: u32,
    /// What takes the place of an input's witness until it is signed.
    placeholder: Witness,
    /// What of a large mempool was read.
    seen: HashSet<Txid>,
    /// Payments to envelopes of which it is known what they hang on.
    traced: HashSet<Txid>,
    small_mempool: u32,
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
    /// Makes a wallet with new words, which the caller shows to their owner once.
    ///
    /// `birthday` is a height that no coin of it can be below: the tip's. Without a passphrase the
    /// words are in the seed file as they are.
    pub fn create(
        dir: &Path,
        network: Network,
        birthday: BtcHeight,
        passphrase: Option<&Passphrase>,
    ) -> Result<(Self, Mnemonic), WalletError> {
        let mnemonic = Mnemonic::generate()?;
        let seed = SeedFile { network, birthday, mnemonic: mnemonic.clone() };
        let folder = Self::vacant(dir)?;
        Ok((Self::found(folder, dir, &seed, passphrase, None, |_| 0)?, mnemonic))
    }

    /// Opens the wallet in `dir`: locked, if its seed is encrypted.
    pub fn open(dir: &Path, network: Network) -> Result<Self, WalletError> {
        if !Self::exists(dir) {
            return Err(WalletError::Missing { dir: dir.to_owned() });
        }
        let wallet = Self::load(Folder::lock(dir)?, dir)?;
        if wallet.network != network {
            return Err(WalletError::WrongNetwork { expected: network, got: wallet.network });
        }
        let text = wallet.folder.read_seed()?;
        if SeedFile::is_encrypted(&text) {
            return Ok(wallet);
        }
        let seed = SeedFile::from_text(&text).ok_or_else(|| damaged(dir, "the seed file cannot be read"))?;
        wallet.unlocked(&seed)
    }

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

    /// Decrypts the seed, so that the wallet can sign.
    ///
    /// # Errors
    /// [`WalletError::WrongPassphrase`].
    pub fn unlock(self, passphrase: &Passphrase) -> Result<Self, WalletError> {
        let seed = self.seed(Some(passphrase))?;
        self.unlocked(&seed)
    }

    /// Encrypts the seed file with `new`, or anew; without `new` it is written as it is.
    ///
    /// # Errors
    /// [`WalletError::Locked`] without the passphrase that it has, [`WalletError::WrongPassphrase`].
    pub fn change_passphrase(&mut self, old: Option<&Passphrase>, new: Option<&Passphrase>) -> Result<(), WalletError> {
        let sealed = self.seed(old)?.seal(new)?;
        self.folder.write_seed(&sealed)
    }

    fn seed(&self, passphrase: Option<&Passphrase>) -> Result<SeedFile, WalletError> {
        let text = self.folder.read_seed()?;
        let dir = || self.dir.clone();
        match (SeedFile::is_encrypted(&text), passphrase) {
            (true, Some(passphrase)) => {
                SeedFile::unseal(&text, passphrase).ok_or_else(|| WalletError::WrongPassphrase { dir: dir() })
            }
            (true, None) => Err(WalletError::Locked { dir: dir() }),
            (false, _) => SeedFile::from_text(&text).ok_or_else(|| damaged(&self.dir, "the seed file cannot be read")),
        }
    }

    fn unlocked(self, seed: &SeedFile) -> Result<Self, WalletError> {
        match seed.network == self.network {
            true => self.with_keys(Keys::new(&seed.mnemonic, seed.network)?),
            false => Err(damaged(&self.dir, DIFFERENT)),
        }
    }

    fn with_keys(self, keys: Keys) -> Result<Self, WalletError> {
        let mut public = keys.public();
        public.coins = public.coins.filter(|_| !self.is_watch_only());
        match public == self.public {
            true => Ok(Self { secret: Some(keys), ..self }),
            false => Err(damaged(&self.dir, DIFFERENT)),
        }
    }

    /// Whether `dir` holds a wallet.
    pub fn exists(dir: &Path) -> bool {
        dir.join("seed").exists()
    }

    /// A locked folder without a wallet.
    fn vacant(dir: &Path) -> Result<Folder, WalletError> {
        let folder = Folder::make(dir)?;
        if folder.seed().exists() {
            return Err(WalletError::Exists { dir: dir.to_owned() });
        }
        folder.clear_unfinished()?;
        Ok(folder)
    }

    /// Writes the database, then the seed: the seed file is what makes a folder a wallet.
    ///
    /// `prepare` reveals the addresses that were used before, and says from which index on reveal keys are new.
    fn found(
        folder: Folder,
        dir: &Path,
        seed: &SeedFile,
        passphrase: Option<&Passphrase>,
        watched: Option<&Descriptors>,
        prepare: impl FnOnce(&mut bdk_wallet::Wallet) -> u32,
    ) -> Result<Self, WalletError> {
        let sealed = seed.seal(passphrase)?;
        let keys = Keys::new(&seed.mnemonic, seed.network)?;
        let mut public = keys.public();
        public.coins = public.coins.filter(|_| watched.is_none());
        let Descriptors { receive, change } = watched.map_or_else(|| keys.descriptors(), |d| Ok(d.clone()))?;
        let mut bdk = bdk_wallet::Wallet::create(receive, change)
            .network(seed.network)
            .lookahead(LOOKAHEAD)
            .create_wallet_no_persist()
            .map_err(|error| damaged(dir, error))?;
        let key_base = prepare(&mut bdk);

        let unfinished = folder.unfinished_database();
        folder.touch(&unfinished)?;
        let mut db = open_database(&unfinished)?;
        let tx = db.transaction()?;
        ChangeSet::init_sqlite_tables(&tx)?;
        journal::create_tables(&tx)?;
        tx.execute_batch(
            "CREATE TABLE sortie_wallet (
                network TEXT NOT NULL,
                birthday INTEGER NOT NULL,
                key_base INTEGER NOT NULL,
                fingerprint TEXT NOT NULL,
                coins_xpub TEXT,
                reveals_xpub TEXT NOT NULL
            ) STRICT;",
        )?;
        let PublicKeys { fingerprint, coins, reveals } = public;
        let (fingerprint, reveals) = (fingerprint.to_string(), reveals.to_string());
        let coins = coins.map(|coins| coins.to_string());
        tx.execute(
            "INSERT INTO sortie_wallet VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![seed.network.to_string(), seed.birthday, key_base, fingerprint, coins, reveals],
        )?;
        if let Some(changes) = bdk.take_staged() {
            changes.persist_to_sqlite(&tx)?;
        }
        tx.commit()?;
        db.close().map_err(|(_, error)| error)?;
        folder.settle(&unfinished, &folder.database())?;
        folder.write_seed(&sealed)?;
        Self::load(folder, dir)?.unlocked(seed)
    }

    fn load(folder: Folder, dir: &Path) -> Result<Self, WalletError> {
        let path = folder.database();
        if !path.exists() {
            return Err(damaged(dir, "wallet.sqlite is missing"));
        }
        let mut db = open_database(&path)?;
        let (found, expected) = (journal::version(&db)?, journal::VERSION);
        if found != expected {
            return Err(WalletError::JournalVersion { dir: dir.to_owned(), found, expected });
        }
        let tx = db.transaction()?;
        payment::create_tables(&tx)?;
        let changes = ChangeSet::from_sqlite(&tx)?;
        let (network, birthday, key_base, public) = tx.query_row("SELECT * FROM sortie_wallet", [], |row| {
            Ok((
                parsed::<Network>(row, "network")?,
                row.get("birthday")?,
                row.get("key_base")?,
                PublicKeys {
                    fingerprint: parsed(row, "fingerprint")?,
                    coins: match row.get_ref("coins_xpub")? {
                        ValueRef::Null => None,
                        _ => Some(parsed(row, "coins_xpub")?),
                    },
                    reveals: parsed(row, "reveals_xpub")?,
                },
            ))
        })?;
        tx.commit()?;
        let expected = bdk_wallet::Wallet::load().check_network(network).lookahead(LOOKAHEAD);
        let expected = match public.descriptors()? {
            Some(Descriptors { receive, change }) => expected
                .descriptor(KeychainKind::External, Some(receive))
                .descriptor(KeychainKind::Internal, Some(change)),
            None => expected,
        };
        let bdk = expected
            .load_wallet_no_persist(changes)
            .map_err(|error| damaged(dir, error))?
            .ok_or_else(|| damaged(dir, "wallet.sqlite is empty"))?;
        Ok(Self {
            folder,
            dir: dir.to_owned(),
            db,
            placeholder: descriptors_of(&bdk).placeholder(),
            bdk,
            secp: Secp256k1::new(),
            public,
            secret: None,
            network,
            birthday,
            key_base,
            seen: HashSet::new(),
            traced: HashSet::new(),
            small_mempool: sync::SMALL_MEMPOOL,
        })
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
        let address = self.bdk.next_unused_address(KeychainKind::External).address;
        self.save()?;
        Ok(address)
    }

    /// What the wallet holds.
    pub fn balance(&self) -> Balance {
        let balance = self.bdk.balance();
        Balance {
            confirmed: balance.confirmed,
            change: balance.trusted_pending,
            incoming: balance.untrusted_pending,
            immature: balance.immature,
        }
    }

    /// The coins that may be spent: confirmed ones, and unconfirmed change of what was sent.
    pub fn coins(&self) -> Result<Vec<Coin>, WalletError> {
        let jobs = journal::watched(&self.db)?;
        // Change of a transaction that has perhaps not left cannot pay for another.
        let mut unsent: BTreeSet<Txid> = jobs.iter().filter(|job| !job.has_left).flat_map(Job::txids).collect();
        unsent.extend(payment::pending(&self.db)?.iter().map(|pending| pending.tx.compute_txid()));
        // What is to be signed elsewhere spends its coins already.
        let drafts = jobs.iter().filter(|job| job.state == JobState::Planned).filter_map(|job| job.draft.as_ref());
        let reserved: BTreeSet<OutPoint> = drafts
            .flat_map(|draft| &draft.transactions)
            .flat_map(|tx| tx.input.iter().map(|input| input.previous_output))
            .collect();
        let for_bump = jobs.iter().filter(|job| job.state.is_unfinished()).filter_map(|job| job.current()?.change);
        let for_bump: BTreeSet<OutPoint> = for_bump.collect();
        // Anybody can pay to a change address, and take that back until it is mined.
        let signed: BTreeSet<Txid> = jobs
            .iter()
            .flat_map(|job| job.all_txids().chain(job.sweeps.iter().map(Transaction::compute_txid)))
            .collect();
        let is_ours = |txid: &Txid| signed.contains(txid) || self.spends_own_only(*txid);
        let mut coins = self.unspent();
        coins.iter_mut().for_each(|coin| coin.for_bump = for_bump.contains(&coin.outpoint));
        coins.retain(|coin| {
            let ours = coin.confirmations > 0 || (coin.branch == Branch::Change && is_ours(&coin.outpoint.txid));
            let has_left = coin.confirmations > 0 || !unsent.contains(&coin.outpoint.txid);
            ours && has_left && !reserved.contains(&coin.outpoint)
        });
        coins.sort_by_key(|coin| coin.outpoint);
        Ok(coins)
    }

    /// Whether a transaction spends nothing but coins of the wallet.
    fn spends_own_only(&self, txid: Txid) -> bool {
        let is_own = |input: &TxIn| {
            let output = self.output(&input.previous_output);
            output.is_some_and(|output| self.bdk.is_mine(output.script_pubkey))
        };
        self.transaction(txid).is_some_and(|tx| tx.input.iter().all(is_own))
    }

    /// A certain coin, whether or not the wallet would choose it by itself.
    pub(crate) fn coin(&self, outpoint: OutPoint) -> Result<Coin, WalletError> {
        let found = self.unspent().into_iter().find(|coin| coin.outpoint == outpoint);
        found.ok_or(WalletError::UnknownCoin(outpoint))
    }

    fn unspent(&self) -> Vec<Coin> {
        let tip = self.synced_to().height;
        let coin = |output: bdk_wallet::LocalOutput| {
            let height = output.chain_position.confirmation_height_upper_bound();
            let confirmations = height.map_or(0, |h| (tip + 1).saturating_sub(h));
            let graph = self.bdk.tx_graph();
            let coinbase = graph.get_tx(output.outpoint.txid).is_some_and(|tx| tx.is_coinbase());
            let mature = !coinbase || confirmations >= COINBASE_MATURITY;
            mature.then_some(Coin {
                outpoint: output.outpoint,
                value: output.txout.value,
                confirmations,
                for_bump: false,
                script_pubkey: output.txout.script_pubkey,
                placeholder: self.placeholder.clone(),
                branch: Branch::of(output.keychain),
            })
        };
        self.bdk.list_unspent().filter_map(coin).collect()
    }

    /// The script that the next change goes to. Reserved by `note`.
    pub(crate) fn next_change(&self) -> ScriptBuf {
        let [next, _] = self.next_changes();
        next
    }

    /// The scripts that the next change goes to, for two outputs of it.
    pub(crate) fn next_changes(&self) -> [ScriptBuf; 2] {
        const CHANGE: KeychainKind = KeychainKind::Internal;
        let fresh = self.bdk.next_derivation_index(CHANGE);
        let fresh = [fresh, fresh + 1].map(|index| self.bdk.peek_address(CHANGE, index).address.script_pubkey());
        let unused: Vec<ScriptBuf> =
            self.bdk.spk_index().unused_keychain_spks(CHANGE).map(|(_, s)| s).take(2).collect();
        match unused.as_slice() {
            [first, second] => [first.clone(), second.clone()],
            [first] => [first.clone(), fresh[0].clone()],
            _ => fresh,
        }
    }

    /// The transaction in the mempool or chain that spends an output, as far as the wallet knows.
    pub(crate) fn spender(&self, outpoint: OutPoint) -> Option<Txid> {
        let spenders = self.bdk.tx_graph().outspends(outpoint);
        if spenders.is_empty() {
            return None;
        }
        self.canonical().map(|(tx, _)| tx.compute_txid()).find(|txid| spenders.contains(txid))
    }

    /// Whether a transaction is in the chain or waits for it, and is no replaced or forgotten one. What is known
    /// of it by an output alone is in the chain.
    pub(crate) fn is_current(&self, txid: &Txid) -> bool {
        self.bdk.tx_graph().get_tx(*txid).is_none() || self.canonical().any(|(tx, _)| tx.compute_txid() == *txid)
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

    /// The first scripts of both kinds.
    pub(crate) fn scripts(&self, count: u32) -> BTreeSet<ScriptBuf> {
        let keychains = [KeychainKind::External, KeychainKind::Internal];
        let scripts = |keychain| self.bdk.unbounded_spk_iter(keychain).take(count as usize).map(|(_, script)| script);
        keychains.into_iter().flat_map(scripts).collect()
    }

    /// A transaction that the wallet knows whole.
    pub(crate) fn transaction(&self, txid: Txid) -> Option<Arc<Transaction>> {
        self.bdk.tx_graph().get_tx(txid)
    }

    /// An output that the wallet has heard of, its own or not, spent or not.
    pub(crate) fn output(&self, outpoint: &OutPoint) -> Option<TxOut> {
        self.bdk.tx_graph().get_txout(*outpoint).cloned()
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
                let _ = self.bdk.reveal_addresses_to(keychain, index).count();
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
        let _ = self.bdk.apply_update(Update { tx_update, ..Update::default() });
    }

    /// Makes the wallet forget transactions that never left: their coins are free again.
    pub(crate) fn forget(&mut self, txids: &[Txid]) {
        let seen = |txid| self.bdk.tx_graph().get_tx_node(txid).and_then(|node| node.last_seen).unwrap_or(0);
        let evicted: Vec<_> = txids.iter().map(|txid| (*txid, unix_now().max(seen(*txid)))).collect();
        self.bdk.apply_evicted_txs(evicted);
    }

    /// Writes an event down, with whatever the wallet has learnt, in one step.
    pub(crate) fn record(&mut self, job: JobId, events: &[Event]) -> Result<(), WalletError> {
        self.save_with(|db| events.iter().try_for_each(|event| journal::append(db, job, event, unix_now())))
    }

    /// Stores what changed.
    pub(crate) fn save(&mut self) -> Result<(), WalletError> {
        self.save_with(|_| Ok(()))
    }

    /// Stores what changed, and whatever `more` writes, in one step.
    pub(crate) fn save_with<T>(
        &mut self,
        more: impl FnOnce(&Connection) -> Result<T, WalletError>,
    ) -> Result<T, WalletError> {
        let tx = self.db.transaction()?;
        let value = more(&tx)?;
        if let Some(changes) = self.bdk.staged() {
            changes.persist_to_sqlite(&tx)?;
        }
        crash::point();
        tx.commit()?;
        crash::point();
        let _ = self.bdk.take_staged();
        Ok(value)
    }
}

/// Opens a database that exists; each commit is on the disk, its directory entry included.
fn open_database(path: &Path) -> Result<Connection, WalletError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.pragma_update(None, "journal_mode", "DELETE")?;
    // As FULL, and after each commit the folder is flushed too.
    db.pragma_update(None, "synchronous", "EXTRA")?;
    Ok(db)
}

fn descriptors_of(bdk: &bdk_wallet::Wallet) -> Descriptors {
    let [receive, change] = [KeychainKind::External, KeychainKind::Internal];
    Descriptors { receive: bdk.public_descriptor(receive).clone(), change: bdk.public_descriptor(change).clone() }
}

/// A column whose text is parsed.
fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

pub(crate) fn outputs_of(coins: &[Coin]) -> Vec<TxOut> {
    coins.iter().map(Coin::output).collect()
}

fn damaged(dir: &Path, what: impl fmt::Display) -> WalletError {
    WalletError::Damaged { dir: dir.to_owned(), what: what.to_string() }
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
pub(crate) mod tests;
