//! The watermark: a file beside the sequencer's key that says how far the key has signed.
//!
//! Guarantees that the file is on disk, with its folder, before a signature that it covers leaves; that a key
//! that never signed can be told from one of which nothing is known; and that one process at a time signs
//! with a key file, whichever data folder it uses. It is written ahead, once for many signatures.
//!
//! Does not guarantee that it was not rolled back together with everything else: what is done about that is
//! in `history`.

use crate::durable::{self, Access};
use crate::primitives::{L2Number, RollupId};
use bitcoin::XOnlyPublicKey;
use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::rand::{RngCore, rngs::OsRng};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Numbers that one write covers ahead of the block that is signed.
const AHEAD: u64 = 64;

const ABOUT: &str = "How far the key beside this file has signed. Never restore this file from a backup, and never \
    copy it: without it the key counts as used, and the sequencer signs nothing that could contradict what it signed.";

/// Why a watermark cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WatermarkError {
    /// Another process holds the key's lock.
    #[error("another process signs with the key {}; two sequencers with one key would contradict each other", .0.display())]
    InUse(PathBuf),
    /// The file cannot be read as what this code writes.
    #[error("{} is damaged; delete it: without it the key counts as used, and signs receipts again after a window", .0.display())]
    Damaged(PathBuf),
    /// The file belongs to another key.
    #[error("{} is the watermark of the key {key}, and not of this one; move it to where its key is", path.display())]
    OtherKey {
        /// The file.
        path: PathBuf,
        /// The key that it names.
        key: XOnlyPublicKey,
    },
    /// The file system's error.
    #[error("{}: {error}; the sequencer writes how far it has signed beside its key, before it signs", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}

/// What was signed for one rollup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Names the last start that may have signed; the store holds the same if it is not older.
    pub session: String,
    /// The start before, as long as nothing was signed since this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// No block above this number was signed.
    pub signed_up_to: L2Number,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Content {
    about: String,
    key: XOnlyPublicKey,
    /// Whether the file is as old as the key: what it does not name was never signed.
    whole: bool,
    rollups: BTreeMap<String, Mark>,
}

/// A key's watermark, locked for this process as long as this value lives.
#[derive(Debug)]
pub struct Watermark {
    path: PathBuf,
    content: Content,
    _lock: File,
}

impl Watermark {
    /// Writes the watermark of a key that was just made: it never signed.
    ///
    /// # Errors
    /// [`WatermarkError::File`], also if there is one already.
    pub fn create(key_file: &Path, key: XOnlyPublicKey) -> Result<(), WatermarkError> {
        let path = beside(key_file, ".watermark");
        let written = Content::new(key, true).to_bytes();
        let written = written.and_then(|bytes| durable::write_new(&path, &bytes, Access::Owner));
        written.map_err(|error| WatermarkError::File { path, error })
    }

    /// Takes the lock of a key file, and reads its watermark; a key without one counts as used.
    ///
    /// # Errors
    /// [`WatermarkError`].
    pub fn open(key_file: &Path, key: XOnlyPublicKey) -> Result<Self, WatermarkError> {
        // By its own name: a link to it is the same key.
        let key_file = fs::canonicalize(key_file).unwrap_or_else(|_| key_file.to_owned());
        let lock = lock(&key_file)?;
        let path = beside(&key_file, ".watermark");
        let content = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| WatermarkError::Damaged(path.clone()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Content::new(key, false),
            Err(error) => return Err(WatermarkError::File { path, error }),
        };
        if content.key != key {
            return Err(WatermarkError::OtherKey { path, key: content.key });
        }
        Ok(Self { path, content, _lock: lock })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it says that nothing was ever signed for a rollup.
    pub(super) fn never_signed(&self, rollup: &RollupId) -> bool {
        self.content.whole && self.mark(rollup).is_none()
    }

    /// What was signed for a rollup, as far as is known.
    pub(super) fn mark(&self, rollup: &RollupId) -> Option<&Mark> {
        self.content.rollups.get(&rollup.to_string())
    }

    /// Replaces what is said of a rollup; on disk when it returns.
    pub(super) fn set(&mut self, rollup: &RollupId, mark: Mark) -> Result<(), WatermarkError> {
        let mut content = self.content.clone();
        content.rollups.insert(rollup.to_string(), mark);
        let written = content.to_bytes().and_then(|bytes| durable::replace(&self.path, &bytes, Access::Owner));
        written.map_err(|error| WatermarkError::File { path: self.path.clone(), error })?;
        self.content = content;
        Ok(())
    }

    /// Makes sure that a block's signatures are covered in this session; on disk when it returns.
    pub(super) fn reserve(&mut self, rollup: &RollupId, session: &str, number: L2Number) -> Result<(), WatermarkError> {
        let up_to = match self.mark(rollup) {
            Some(mark) if mark.session == session && mark.before.is_none() && number <= mark.signed_up_to => {
                return Ok(());
            }
            Some(mark) if number <= mark.signed_up_to => mark.signed_up_to,
            _ => number.saturating_add(AHEAD),
        };
        self.set(rollup, Mark { session: session.to_owned(), before: None, signed_up_to: up_to })
    }
}

impl Content {
    fn new(key: XOnlyPublicKey, whole: bool) -> Self {
        Self { about: ABOUT.to_owned(), key, whole, rollups: BTreeMap::new() }
    }

    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
    }
}

/// A name for a start that no other has.
pub(super) fn new_session() -> String {
    let mut bytes = [0; 16];
    OsRng.fill_bytes(&mut bytes);
    bytes.to_lower_hex_string()
}

fn beside(key_file: &Path, ending: &str) -> PathBuf {
    let mut name = key_file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn lock(key_file: &Path) -> Result<File, WatermarkError> {
    let path = beside(key_file, ".lock");
    let file = match OpenOptions::new().create(true).truncate(false).write(true).open(&path) {
        Ok(file) => file,
        Err(error) => return Err(WatermarkError::File { path, error }),
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(WatermarkError::InUse(key_file.to_owned())),
        Err(TryLockError::Error(error)) => Err(WatermarkError::File { path, error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::secp256k1::{Keypair, Secp256k1, SecretKey};

    fn key(seed: u8) -> XOnlyPublicKey {
        let secret = SecretKey::from_slice(&[seed; 32]).expect("a small number is a key");
        Keypair::from_secret_key(&Secp256k1::new(), &secret).x_only_public_key().0
    }

    const ROLLUP: RollupId = RollupId([7; 32]);

    #[test]
    fn what_is_covered_is_on_disk_and_is_written_once_for_many_blocks() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("key");
        fs::write(&file, "").expect("a key file");
        Watermark::create(&file, key(1)).expect("created");
        let mut watermark = Watermark::open(&file, key(1)).expect("opened");
        assert!(watermark.never_signed(&ROLLUP));
        watermark.reserve(&ROLLUP, "one", 5).expect("written");
        let written = fs::read(watermark.path()).expect("read");
        watermark.reserve(&ROLLUP, "one", 5 + AHEAD).expect("covered");
        assert_eq!(fs::read(watermark.path()).expect("read"), written, "one write for what it covers");
        watermark.reserve(&ROLLUP, "one", 6 + AHEAD).expect("written");
        drop(watermark);

        let mut watermark = Watermark::open(&file, key(1)).expect("opened again");
        let mark = watermark.mark(&ROLLUP).expect("a mark").clone();
        assert_eq!((mark.session.as_str(), mark.signed_up_to), ("one", 6 + 2 * AHEAD));
        assert!(!watermark.never_signed(&ROLLUP) && watermark.never_signed(&RollupId([8; 32])));
        // The first signature of another session is written down, though its number was covered before.
        let begun = Mark { session: "two".into(), before: Some("one".into()), ..mark };
        watermark.set(&ROLLUP, begun).expect("written");
        watermark.reserve(&ROLLUP, "two", 1).expect("written");
        assert_eq!(watermark.mark(&ROLLUP).and_then(|mark| mark.before.clone()), None);
    }

    #[test]
    fn a_key_without_a_watermark_counts_as_used_and_one_of_another_key_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("key");
        fs::write(&file, "").expect("a key file");
        let watermark = Watermark::open(&file, key(1)).expect("opened");
        assert!(!watermark.never_signed(&ROLLUP));
        assert!(matches!(Watermark::open(&file, key(1)), Err(WatermarkError::InUse(_))));
        #[cfg(unix)]
        {
            let link = dir.path().join("link");
            std::os::unix::fs::symlink(&file, &link).expect("a link");
            assert!(
                matches!(Watermark::open(&link, key(1)), Err(WatermarkError::InUse(_))),
                "the same key by another name"
            );
        }
        drop(watermark);
        Watermark::create(&file, key(1)).expect("created");
        assert!(Watermark::create(&file, key(1)).is_err(), "never overwritten");
        assert!(matches!(Watermark::open(&file, key(2)), Err(WatermarkError::OtherKey { .. })));
        fs::write(beside(&file, ".watermark"), "{").expect("written");
        assert!(matches!(Watermark::open(&file, key(1)), Err(WatermarkError::Damaged(_))));
    }
}
