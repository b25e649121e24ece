//! Where the bytes of blocks come from, when it lies; and block files as bitcoind writes them.

use super::alter::{Alteration, alter};
use anyhow::Result;
use bitcoin::BlockHash;
use bitcoin::p2p::Magic;
use sortie::chain::{BlockReader, ChainError};
use std::fs;
use std::path::Path;

/// A reader around another one that alters every block in the same way.
pub struct LyingReader<R> {
    inner: R,
    alteration: Alteration,
}

impl<R: BlockReader> LyingReader<R> {
    /// Alters what `inner` reads.
    pub fn new(inner: R, alteration: Alteration) -> Self {
        Self { inner, alteration }
    }
}

impl<R: BlockReader> BlockReader for LyingReader<R> {
    fn name(&self) -> String {
        format!("a liar in front of {}", self.inner.name())
    }

    fn lanes(&self) -> usize {
        self.inner.lanes()
    }

    fn read_block(&self, hash: &BlockHash, raw: &mut Vec<u8>) -> Result<(), ChainError> {
        self.inner.read_block(hash, raw)?;
        *raw = alter(std::mem::take(raw), self.alteration);
        Ok(())
    }
}

/// Writes blocks into `blk*.dat` in this order, so many in each, under a key; the last file goes on with zeros, as
/// space that bitcoind takes in advance.
///
/// # Errors
/// The folder cannot be written.
pub fn write_block_files<'a>(
    dir: &Path,
    magic: Magic,
    key: [u8; 8],
    blocks: impl IntoIterator<Item = &'a [u8]>,
    per_file: usize,
) -> Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("xor.dat"), key)?;
    let (mut number, mut count, mut bytes) = (0, 0, Vec::new());
    let write = |number: u32, mut bytes: Vec<u8>, ahead: usize| {
        bytes.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        bytes.resize(bytes.len() + ahead, 0);
        fs::write(dir.join(format!("blk{number:05}.dat")), bytes)
    };
    for block in blocks {
        if count == per_file {
            write(number, std::mem::take(&mut bytes), 0)?;
            (number, count) = (number + 1, 0);
        }
        bytes.extend_from_slice(&magic.to_bytes());
        bytes.extend_from_slice(&u32::try_from(block.len())?.to_le_bytes());
        bytes.extend_from_slice(block);
        count += 1;
    }
    write(number, bytes, 10_000)?;
    Ok(())
}
