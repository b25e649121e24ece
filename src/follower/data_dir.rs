//! The folder with a follower's files, and the lock that keeps them to one writer.
//!
//! Guarantees that no follower can be opened for writing without the lock, and that the lock lasts as long as the
//! follower. The operating system releases it with the process, however that ends.

use super::{ChainView, Follower, FollowerError};
use crate::chain::BlockSource;
use crate::durable::{self, Access};
use crate::executor::{Executor, of_manifest};
use crate::manifest::Manifest;
use crate::primitives::BlockRef;
use crate::scanner::Scanner;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a process waits for another one that writes.
const PATIENCE: Duration = Duration::from_secs(3);
const NAP: Duration = Duration::from_millis(50);

/// The folder of one rollup's follower.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    manifest: Manifest,
}

/// A data folder that this process alone may write, until the last clone and the last follower opened from it are
/// dropped.
#[derive(Clone, Debug)]
pub struct LockedDir {
    dir: DataDir,
    _lock: Arc<File>,
}

/// Who keeps the files that a [`ChainView`] was opened from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptBy {
    /// This process has just brought them to the tip.
    Us,
    /// Another process writes them; with the source's tip, if there is a source and it answers.
    Another(Option<BlockRef>),
}

impl DataDir {
    /// The follower of the manifest's rollup, with its files in this folder. Touches nothing yet.
    pub fn new(path: impl Into<PathBuf>, manifest: Manifest) -> Self {
        Self { path: path.into(), manifest }
    }

    /// The rollup's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Another follower of the same rollup, in a folder inside this one.
    pub fn child(mut self, name: &str) -> Self {
        self.path.push(name);
        self
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.path("node.sqlite")
    }

    /// Locks the folder, and makes it first if it is missing; `None` while another process holds the lock.
    ///
    /// # Errors
    /// [`FollowerError::File`].
    pub fn lock(&self) -> Result<Option<LockedDir>, FollowerError> {
        durable::make_folder(&self.path, Access::Umask).map_err(|error| FollowerError::file(&self.path, error))?;
        let path = self.path("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| FollowerError::file(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(LockedDir { dir: self.clone(), _lock: Arc::new(file) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(FollowerError::file(&path, error)),
        }
    }

    /// As [`lock`](Self::lock), but gives another process three seconds to release it.
    ///
    /// # Errors
    /// [`FollowerError::File`].
    pub fn lock_soon(&self) -> Result<Option<LockedDir>, FollowerError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lock()? {
                None if Instant::now() < deadline => sleep(NAP),
                lock => return Ok(lock),
            }
        }
    }

    /// The derived chain as the file has it at this moment, whatever another process writes meanwhile.
    ///
    /// # Errors
    /// [`FollowerError::NotBegun`] if there is nothing yet.
    pub fn view(&self) -> Result<ChainView, FollowerError> {
        if !self.database().exists() {
            return Err(FollowerError::NotBegun);
        }
        ChainView::open(&self.database(), self.manifest.clone())
    }

    /// The derived chain at the tip of `source`.
    ///
    /// If nobody else writes the files, `follow` is called once with their lock, to bring them to the tip. Another
    /// process that writes them gets three seconds to arrive there; then its last step counts. `source` is `None` where
    /// Bitcoin cannot be reached.
    ///
    /// # Errors
    /// Those of `follow`, and [`FollowerError`].
    pub fn view_at_tip<E: From<FollowerError>>(
        &self,
        source: Option<&dyn BlockSource>,
        follow: impl FnOnce(&LockedDir) -> Result<(), E>,
    ) -> Result<(ChainView, KeptBy), E> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(lock) = self.lock()? {
                follow(&lock)?;
                return Ok((self.view()?, KeptBy::Us));
            }
            let tip = source.and_then(|source| source.tip().ok());
            let is_patient = Instant::now() < deadline;
            match self.view() {
                Ok(view) if !is_patient || tip.is_none_or(|tip| tip == view.derivation().tip().block) => {
                    return Ok((view, KeptBy::Another(tip)));
                }
                Err(error) if !is_patient => return Err(error.into()),
                _ => sleep(NAP),
            }
        }
    }
}

impl LockedDir {
    /// Opens the follower, or begins one at the manifest's start block, with the executor that the manifest names.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with); [`FollowerError::Executor`] if this library does not have the executor.
    pub fn open(&self, source: &impl BlockSource) -> Result<Follower, FollowerError> {
        self.open_with(of_manifest(&self.dir.manifest)?.into(), source)
    }

    /// The same with an executor of your own.
    ///
    /// # Errors
    /// [`FollowerError`]; on the first start, the start block must be on the source's chain and deep enough.
    pub fn open_with(&self, executor: Arc<dyn Executor>, source: &impl BlockSource) -> Result<Follower, FollowerError> {
        Follower::open_locked(self.clone(), executor, source)
    }

    /// Deletes the database, once Bitcoin shows that the rollup can be derived again.
    ///
    /// # Errors
    /// [`FollowerError`]; unless it is [`FollowerError::File`], nothing was deleted.
    pub fn clear(&self, scanner: &Scanner<'_>) -> Result<(), FollowerError> {
        Follower::check_source(&self.dir.manifest, scanner)?;
        // One after the other, also on the disk: a database without its log may not be whole.
        for name in ["node.sqlite", "node.sqlite-wal", "node.sqlite-shm"] {
            let path = self.dir.path(name);
            durable::remove(&path).map_err(|error| FollowerError::file(&path, error))?;
        }
        Ok(())
    }

    /// The folder.
    pub fn dir(&self) -> &DataDir {
        &self.dir
    }
}

impl FollowerError {
    fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}
