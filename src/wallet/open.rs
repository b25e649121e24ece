//! A wallet is made, opened, unlocked.
//!
//! Guarantees: a folder without a whole seed file is no wallet; the database of another wallet, another network or
//! another version of the journal is refused, and not touched.

use super::error::damaged;
use super::files::Folder;
use super::seed::{PublicKeys, Sealed, SeedFile};
use super::utxos::Unread;
use super::{
    Descriptors, Keys, Mnemonic, Passphrase, Wallet, WalletError, descriptors_of, journal, orders, payment, store, sync,
};
use crate::primitives::BtcHeight;
use bdk_wallet::{ChangeSet, KeychainKind};
use bitcoin::Network;
use bitcoin::key::Secp256k1;
use rusqlite::{Connection, OpenFlags, params};
use std::cell::OnceCell;
use std::collections::HashSet;
use std::path::Path;

/// Addresses beyond the last one handed out that are recognised.
const LOOKAHEAD: u32 = 50;

const DIFFERENT: &str = "seed and wallet.sqlite are of different wallets";

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
            (true, Some(passphrase)) => SeedFile::unseal(&text, passphrase).map_err(|sealed| match sealed {
                Sealed::WrongPassphrase => WalletError::WrongPassphrase { dir: dir() },
                Sealed::Damaged => damaged(&self.dir, "the seed file is cut or was changed"),
            }),
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

    pub(super) fn with_keys(self, keys: Keys) -> Result<Self, WalletError> {
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
    pub(super) fn vacant(dir: &Path) -> Result<Folder, WalletError> {
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
    pub(super) fn found(
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
        store::create_tables(&tx)?;
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
            store::append(&tx, &changes)?;
        }
        tx.commit()?;
        db.close().map_err(|(_, error)| error)?;
        folder.settle(&unfinished, &folder.database())?;
        folder.write_seed(&sealed)?;
        Self::load(folder, dir)?.unlocked(seed)
    }

    fn load(folder: Folder, dir: &Path) -> Result<Self, WalletError> {
        Self::read(folder, dir).map_err(|error| match error {
            WalletError::Database(error) if is_damage(&error) => damaged(dir, format_args!("wallet.sqlite: {error}")),
            error => error,
        })
    }

    fn read(folder: Folder, dir: &Path) -> Result<Self, WalletError> {
        let path = folder.database();
        if !path.exists() {
            return Err(damaged(dir, "wallet.sqlite is missing"));
        }
        let mut db = open_database(&path)?;
        if db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, u32>(0))? == 0 {
            return Err(damaged(dir, "wallet.sqlite is empty"));
        }
        let (found, expected) = (journal::version(&db)?, journal::VERSION);
        if found != expected {
            return Err(WalletError::JournalVersion { dir: dir.to_owned(), found, expected });
        }
        let tx = db.transaction()?;
        journal::complete_tables(&tx)?;
        payment::create_tables(&tx)?;
        orders::create_tables(&tx)?;
        Unread::create_tables(&tx)?;
        let unread = Unread::read(&tx)?;
        let changes = store::load(&tx)?;
        let (network, birthday, key_base, public) = tx.query_row("SELECT * FROM sortie_wallet", [], |row| {
            Ok((
                store::parsed::<Network>(row, "network")?,
                row.get("birthday")?,
                row.get("key_base")?,
                PublicKeys {
                    fingerprint: store::parsed(row, "fingerprint")?,
                    coins: store::optional(row, "coins_xpub")?,
                    reveals: store::parsed(row, "reveals_xpub")?,
                },
            ))
        })?;
        tx.commit()?;
        let bdk = stored(changes, network, &public, dir)?;
        Ok(Self {
            folder,
            dir: dir.to_owned(),
            db,
            placeholder: descriptors_of(&bdk).placeholder(),
            bdk,
            view: OnceCell::new(),
            missing: unread.spent.clone(),
            unread,
            looked: None,
            secp: Secp256k1::new(),
            public,
            secret: None,
            network,
            birthday,
            key_base,
            seen: HashSet::new(),
            unseen: 0,
            traced: HashSet::new(),
            small_mempool: sync::SMALL_MEMPOOL,
        })
    }
}

/// The wallet that change sets add up to.
pub(super) fn stored(
    changes: ChangeSet,
    network: Network,
    public: &PublicKeys,
    dir: &Path,
) -> Result<bdk_wallet::Wallet, WalletError> {
    let expected = bdk_wallet::Wallet::load().check_network(network).lookahead(LOOKAHEAD);
    let expected = match public.descriptors()? {
        Some(Descriptors { receive, change }) => {
            expected.descriptor(KeychainKind::External, Some(receive)).descriptor(KeychainKind::Internal, Some(change))
        }
        None => expected,
    };
    let wallet = expected.load_wallet_no_persist(changes).map_err(|error| damaged(dir, error))?;
    wallet.ok_or_else(|| damaged(dir, "wallet.sqlite is empty"))
}

/// Opens a database that exists; each commit is on the disk, its directory entry included.
pub(super) fn open_database(path: &Path) -> Result<Connection, WalletError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.pragma_update(None, "journal_mode", "DELETE")?;
    // As FULL, and after each commit the folder is flushed too.
    db.pragma_update(None, "synchronous", "EXTRA")?;
    Ok(db)
}

/// Whether the file is not what this program wrote, and not merely out of reach for now.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, Unknown};
    matches!(error.sqlite_error_code(), None | Some(DatabaseCorrupt | NotADatabase | Unknown))
}
