//! The wallet's folder: a lock for one process, and files that are there whole or not at all.

use super::WalletError;
use crate::durable::{self, Access};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[cfg(unix)]
use std::os::unix::fs::OpenOptionsExt;

/// A wallet's folder, locked for this process as long as this value lives.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The lock goes with the file handle, and with the process, however it ends.
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is missing (readable by its owner only), and locks it.
    pub fn make(path: &Path) -> Result<Self, WalletError> {
        durable::make_folder(path, Access::Owner).map_err(|source| file_error(path, source))?;
        Self::lock(path)
    }

    /// Locks a folder that holds a wallet.
    pub fn lock(path: &Path) -> Result<Self, WalletError> {
        let file = path.join("lock");
        let lock = private().truncate(false).open(&file).map_err(|e| file_error(&file, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(WalletError::InUse { dir: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(file_error(&file, source)),
        }
    }

    pub fn seed(&self) -> PathBuf {
        self.path.join("seed")
    }

    pub fn database(&self) -> PathBuf {
        Self::database_in(&self.path)
    }

    /// Where the database of a wallet is, whoever has its folder.
    pub fn database_in(path: &Path) -> PathBuf {
        path.join("wallet.sqlite")
    }

    /// Name under which a database is prepared.
    pub fn unfinished_database(&self) -> PathBuf {
        self.path.join("wallet.sqlite.new")
    }

    /// Clears away what a killed `create` left. A database without a seed is never deleted.
    pub fn clear_unfinished(&self) -> Result<(), WalletError> {
        for name in ["seed.new", "wallet.sqlite.new", "wallet.sqlite.new-journal"] {
            let path = self.path.join(name);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(file_error(&path, e)),
                _ => {}
            }
        }
        let database = self.database();
        if database.exists() {
            let kept = (0..u32::MAX)
                .map(|n| self.path.join(format!("wallet.sqlite.orphan-{n}")))
                .find(|path| !path.exists())
                .ok_or_else(|| file_error(&database, io::ErrorKind::AlreadyExists.into()))?;
            fs::rename(&database, kept).map_err(|e| file_error(&database, e))?;
        }
        Ok(())
    }

    /// Makes an empty file that only its owner can read, for SQLite to fill.
    pub fn touch(&self, path: &Path) -> Result<(), WalletError> {
        private().truncate(false).open(path).map(|_| ()).map_err(|e| file_error(path, e))
    }

    /// Puts a prepared file in its place.
    pub fn settle(&self, from: &Path, to: &Path) -> Result<(), WalletError> {
        durable::settle(from, to).map_err(|source| file_error(to, source))
    }

    /// Writes the seed file in one step, readable by its owner only.
    pub fn write_seed(&self, text: &str) -> Result<(), WalletError> {
        let temporary = self.path.join("seed.new");
        let write = || private().truncate(true).open(&temporary)?.write_all(text.as_bytes());
        write().map_err(|source| file_error(&temporary, source))?;
        self.settle(&temporary, &self.seed())
    }

    pub fn read_seed(&self) -> Result<String, WalletError> {
        let path = self.seed();
        fs::read_to_string(&path).map_err(|source| file_error(&path, source))
    }
}

/// Options for a file that only its owner reads and writes.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    options.mode(0o600);
    options
}

fn file_error(path: &Path, source: io::Error) -> WalletError {
    WalletError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().expect("dir");
        let first = Folder::make(dir.path()).expect("first");
        assert!(matches!(Folder::lock(dir.path()), Err(WalletError::InUse { .. })));
        drop(first);
        Folder::lock(dir.path()).expect("free again");
    }

    #[test]
    fn a_killed_create_leaves_no_seed_and_no_database_is_deleted() {
        let dir = tempfile::tempdir().expect("dir");
        let folder = Folder::make(dir.path()).expect("folder");
        fs::write(dir.path().join("seed.new"), "half").expect("write");
        fs::write(dir.path().join("wallet.sqlite.new"), "half").expect("write");
        fs::write(folder.database(), "coins").expect("write");
        folder.clear_unfinished().expect("cleared");
        assert!(!dir.path().join("seed.new").exists());
        assert!(!folder.database().exists());
        let kept = fs::read_to_string(dir.path().join("wallet.sqlite.orphan-0")).expect("kept");
        assert_eq!(kept, "coins");
    }

    #[cfg(unix)]
    #[test]
    fn the_seed_file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("dir");
        let folder = Folder::make(&dir.path().join("wallet")).expect("folder");
        folder.write_seed("words").expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&folder.seed()), 0o600);
        assert_eq!(mode(&dir.path().join("wallet")), 0o700);
        assert_eq!(folder.read_seed().expect("read"), "words");
    }
}
