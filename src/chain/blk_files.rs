//! [`BlkFiles`]: blocks out of Bitcoin Core's own files, at the speed of the disk.
//!
//! Guarantees that a block is found by its hash, wherever it stands: the files hold blocks as they came,
//! out of order and with those that lost their place. A record that cannot be read ends its file for now and
//! is looked at again later; nothing behind it is guessed at. Trusts the files for what a block holds, as
//! far as nobody checks that: bitcoind has written a block whole before it names it as part of its chain. So
//! the folder must be the one that the node itself works on. From a copy, which may be damaged or not be
//! whole, read with [`Scanner::verify_all_blocks`](crate::scanner::Scanner::verify_all_blocks).

use super::{BlockReader, ChainError};
use bitcoin::block::Header;
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use bitcoin::p2p::Magic;
use bitcoin::{BlockHash, Network};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Magic and length, in front of each block.
const FRAME_LEN: usize = 8;
const BLOCK_HEADER_LEN: usize = 80;
/// Longest block, in bytes.
const MAX_BLOCK: u32 = 4_000_000;
const LANES: usize = 2;
/// The last files, which grow.
const GROWING: usize = 2;

/// The folder with a Bitcoin Core node's `blk*.dat` and `xor.dat`.
#[derive(Debug)]
pub struct BlkFiles {
    dir: PathBuf,
    magic: Magic,
    key: Key,
    index: Mutex<Index>,
}

/// What the files' bytes are XORed with (since Core 28), by their offset modulo 8.
#[derive(Clone, Copy, Debug)]
struct Key([u8; 8]);

/// Where the blocks stand that were seen so far.
#[derive(Debug, Default)]
struct Index {
    places: HashMap<Prefix, Place>,
    /// How far each file was read, by its number.
    read: HashMap<u32, u64>,
    /// Each file's length and time of change when it was read last.
    stamps: HashMap<u32, Stamp>,
    open: Option<(u32, Arc<File>)>,
    /// Records that could not be read, by file.
    bad: BTreeMap<u32, String>,
}

/// The first bytes of a block's hash, in Bitcoin's order: enough to find it by, a quarter of the memory.
type Prefix = [u8; 8];

type Stamp = (u64, Option<SystemTime>);

#[derive(Clone, Copy, Debug)]
struct Place {
    file: u32,
    /// Of the block's first byte.
    offset: u32,
    len: u32,
}

fn prefix(hash: &BlockHash) -> Prefix {
    let [a, b, c, d, e, f, g, h, ..] = hash.to_byte_array();
    [a, b, c, d, e, f, g, h]
}

impl Key {
    /// The key of the folder; zeros where there is none, as before Core 28.
    fn read(dir: &Path) -> Result<Self, ChainError> {
        let path = dir.join("xor.dat");
        match fs::read(&path) {
            Ok(bytes) => match bytes.try_into() {
                Ok(key) => Ok(Self(key)),
                Err(bytes) => Err(unusable(&path, format_args!("{} bytes instead of a key of 8", bytes.len()))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self([0; 8])),
            Err(error) => Err(unusable(&path, error)),
        }
    }

    /// Takes the key off bytes that stand at `offset`.
    fn undo(self, bytes: &mut [u8], offset: u64) {
        if self.0 == [0; 8] {
            return;
        }
        let mut key = self.0;
        key.rotate_left((offset % 8) as usize);
        let (words, rest) = bytes.as_chunks_mut::<8>();
        let key_word = u64::from_ne_bytes(key);
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ key_word).to_ne_bytes();
        }
        rest.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    }
}

fn unusable(path: &Path, reason: impl std::fmt::Display) -> ChainError {
    ChainError::BlockFiles { path: path.display().to_string(), reason: reason.to_string() }
}

impl BlkFiles {
    /// Looks into a node's `blocks` folder.
    ///
    /// # Errors
    /// [`ChainError::BlockFiles`], if there are no block files of this network, or they cannot be read.
    pub fn open(dir: &Path, network: Network) -> Result<Self, ChainError> {
        let files = Self { dir: dir.to_owned(), magic: network.magic(), key: Key::read(dir)?, index: Mutex::default() };
        let first = files.numbers()?.first().copied().ok_or_else(|| unusable(dir, "there is no blk*.dat"))?;
        let mut magic = [0; 4];
        let path = files.path(first);
        File::open(&path).and_then(|file| file.read_exact_at(&mut magic, 0)).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => unusable(&path, "it is empty"),
            _ => unusable(&path, error),
        })?;
        files.key.undo(&mut magic, 0);
        if magic != files.magic.to_bytes() {
            let key = if files.key.0 == [0; 8] { ", or the xor.dat beside it is missing" } else { "" };
            return Err(unusable(&path, format_args!("it does not begin with a block of {network}{key}")));
        }
        Ok(files)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("blk{number:05}.dat"))
    }

    fn numbers(&self) -> Result<Vec<u32>, ChainError> {
        let failed = |error: io::Error| unusable(&self.dir, error);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number: Option<u32> =
                name.to_str().and_then(|name| name.strip_prefix("blk")?.strip_suffix(".dat")?.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a block, reading files from the newest back until it is there.
    fn place(&self, hash: &BlockHash) -> Result<Place, ChainError> {
        let mut index = self.index();
        let wanted = prefix(hash);
        if let Some(place) = index.places.get(&wanted) {
            return Ok(*place);
        }
        // A node's newest blocks are in its last files; those before grow only where it fills two at a time
        // (assumeutxo).
        for (age, number) in self.numbers()?.iter().rev().enumerate() {
            self.read_on(&mut index, *number, age < GROWING)?;
            if let Some(place) = index.places.get(&wanted) {
                return Ok(*place);
            }
        }
        match index.bad.iter().next() {
            Some((number, reason)) => Err(unusable(&self.path(*number), reason)),
            None => Err(ChainError::NotFound(format!("block {hash}"))),
        }
    }

    /// Notes the blocks of a file that were not there, or not whole, when it was read last; `always`, even if it does
    /// not seem to have changed since: space is taken in advance, and clocks are coarse.
    fn read_on(&self, index: &mut Index, number: u32, always: bool) -> Result<(), ChainError> {
        let path = self.path(number);
        let stamp = fs::metadata(&path).map(|file| (file.len(), file.modified().ok())).ok();
        let is_known = stamp.is_some() && index.stamps.get(&number).copied() == stamp;
        if is_known && !always && !index.bad.contains_key(&number) {
            return Ok(());
        }
        index.stamps.extend(stamp.map(|stamp| (number, stamp)));
        let file = match File::open(&path) {
            // A pruning node deletes files.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(|error| unusable(&path, error))?,
        };
        let end = file.metadata().map_err(|error| unusable(&path, error))?.len();
        let mut at = index.read.get(&number).copied().unwrap_or(0);
        index.bad.remove(&number);
        while at + ((FRAME_LEN + BLOCK_HEADER_LEN) as u64) <= end {
            let mut head = [0; FRAME_LEN + BLOCK_HEADER_LEN];
            file.read_exact_at(&mut head, at).map_err(|error| unusable(&path, error))?;
            // Space that bitcoind took in advance; it is not XORed.
            if head.iter().all(|byte| *byte == 0) {
                break;
            }
            self.key.undo(&mut head, at);
            let start = at + FRAME_LEN as u64;
            let (Some((hash, len)), Ok(offset)) = (self.record(&head), u32::try_from(start)) else {
                index.bad.insert(number, format!("the record at byte {at} is no block of this network"));
                break;
            };
            at = start + u64::from(len);
            if at > end {
                break;
            }
            index.places.insert(prefix(&hash), Place { file: number, offset, len });
            index.read.insert(number, at);
        }
        Ok(())
    }

    /// The block's hash and length that a record begins with.
    fn record(&self, head: &[u8; FRAME_LEN + BLOCK_HEADER_LEN]) -> Option<(BlockHash, u32)> {
        let (magic, rest) = head.split_first_chunk::<4>()?;
        let (len, header) = rest.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*len);
        let plausible = *magic == self.magic.to_bytes() && (BLOCK_HEADER_LEN as u32 + 1..=MAX_BLOCK).contains(&len);
        let header: Header = encode::deserialize(header).ok().filter(|_| plausible)?;
        Some((header.block_hash(), len))
    }

    fn file(&self, number: u32) -> Result<Arc<File>, ChainError> {
        let mut index = self.index();
        if let Some((open, file)) = &index.open
            && *open == number
        {
            return Ok(Arc::clone(file));
        }
        let path = self.path(number);
        let file = Arc::new(File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ChainError::NotFound(format!("{}", path.display())),
            _ => unusable(&path, error),
        })?);
        index.open = Some((number, Arc::clone(&file)));
        Ok(file)
    }
}

impl BlockReader for BlkFiles {
    fn name(&self) -> String {
        format!("block files in {}", self.dir.display())
    }

    fn lanes(&self) -> usize {
        LANES
    }

    fn read_block(&self, hash: &BlockHash, raw: &mut Vec<u8>) -> Result<(), ChainError> {
        let Place { file, offset, len } = self.place(hash)?;
        let opened = self.file(file)?;
        raw.resize(len as usize, 0);
        let read = opened.read_exact_at(raw, offset.into());
        read.map_err(|error| unusable(&self.path(file), error))?;
        self.key.undo(raw, offset.into());
        Ok(())
    }
}
