//! Bitcoin blocks in order, searched for one rollup's envelopes: what a follower and `sortie scan` read.
//!
//! The one gate between what a source says and what is derived from it. Guarantees, of every source:
//!
//! - a header is used only if it names the one before, back to a block that is known, and has the work that
//!   the network demands of it;
//! - bytes are used only for the block whose header they begin with;
//! - of a block that holds the needle nothing is believed before its Merkle root and its witness commitment
//!   match: nobody adds an item, alters one, or moves it.
//!
//! That nobody *hides* an item can only be known by checking the blocks in which there is nothing to find,
//! too, and that costs fifty times as much. So it is done for sources of other people. The user's own node
//! (its RPC, its REST, its block files) is believed to serve whole blocks: whoever can make it lie can as
//! well change the follower, or the node's own choice of the best chain, against which no check helps. Of
//! its blocks without the needle only header and coinbase are looked at, so that one which lost its
//! witnesses is noticed, and a sample every 64 KiB, so that one which was never written whole is.
//! [`Scanner::verify_all_blocks`] is for those who want the check all the same.
//!
//! What the gate refuses is asked of the next source, and the refusal is told.

mod lanes;
mod mempool;

pub use mempool::{MempoolWatch, Unconfirmed};

use crate::chain::{BlockReader, BlockSource, ChainError};
use crate::derive::NotChild;
use crate::envelope::{BadBlock, Found, check_block, scan_block};
use crate::primitives::{BlockRef, BtcHeight, Namespace};
use crate::proof::{HeaderChain, Refutation, check_headers, difficulty_period};
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::p2p::Magic;
use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;

/// Headers taken at a time.
pub const MAX_HEADERS: u32 = 2_000;

/// Headers taken at a time from sources of other people, which are slow to give them: the first block is not to wait
/// for many, nor are many to be lost by one answer that does not come.
const MAX_HEADERS_OF_OTHERS: u32 = 100;

/// How far apart the samples are that show holes, in bytes, and how long. Each costs a miss of the cache: at 4 KiB a
/// tenth of the time that reading block files takes.
const STRIDE: usize = 64 << 10;
const SAMPLE: usize = 64;

/// Why a block cannot be read.
#[derive(Debug, Error)]
pub enum ScanError {
    /// The source cannot answer.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Headers without their work, or that do not hang together: wait for a source that has others.
    #[error("{0}; the source showed headers that are not Bitcoin's, nothing of it was used")]
    BadHeaders(#[from] Refutation),
    /// A block's bytes do not match its header: wait for a source that has it.
    #[error("Bitcoin block {}: {reason}; the source served a damaged block, nothing of it was used", block.height)]
    BadBlock {
        /// The block that was asked for.
        block: BlockRef,
        /// What is wrong with the bytes.
        reason: BadBlock,
    },
    /// The chain changed between two questions: try again.
    #[error(transparent)]
    NotChild(#[from] NotChild),
    /// Another block than the one asked for.
    #[error("asked for Bitcoin block {expected}, got {got}")]
    OtherBlock {
        /// What was asked for.
        expected: BlockHash,
        /// What came.
        got: BlockHash,
    },
}

impl ScanError {
    /// Whether the same question may be answered later without anybody mending anything.
    pub fn is_temporary(&self) -> bool {
        match self {
            ScanError::Chain(error) => error.is_temporary(),
            _ => true,
        }
    }
}

/// A block's place in the chain, with its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextBlock {
    /// Where it stands.
    pub at: BlockRef,
    /// Its header.
    pub header: Header,
}

/// A block that passed the gate.
#[derive(Debug)]
pub struct Scanned {
    /// The block.
    pub block: NextBlock,
    /// The block's length, in bytes.
    pub len: usize,
    /// What it holds for the rollup, in Bitcoin order.
    pub found: Vec<Found>,
    /// Sources whose answer was refused before another one's was taken.
    pub refused: Vec<Refusal>,
}

impl Scanned {
    /// At most how many bytes of the block are kept in it.
    pub(crate) fn weight(&self) -> usize {
        if self.found.is_empty() { 0 } else { self.len }
    }
}

/// What a source did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The source.
    pub source: String,
    /// The block that was asked for.
    pub block: BlockRef,
    /// What came, or why nothing came.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: Bitcoin block {}: {}; asked the next source", self.source, self.block.height, self.reason)
    }
}

/// How Bitcoin is read: whose chain, whose bytes, and what is checked of them.
#[derive(Clone, Copy)]
pub struct Scanner<'a> {
    chain: &'a dyn BlockSource,
    readers: &'a [Box<dyn BlockReader>],
    verify_all: bool,
}

impl<'a, S: BlockSource> From<&'a S> for Scanner<'a> {
    fn from(chain: &'a S) -> Self {
        Self { chain, readers: &[], verify_all: false }
    }
}

impl<'a> Scanner<'a> {
    /// Takes blocks from these first, in this order, and from the chain's own source where all of them fail.
    pub fn readers(self, readers: &'a [Box<dyn BlockReader>]) -> Self {
        Self { readers, ..self }
    }

    /// Checks every block whole, also those of the user's own node.
    pub fn verify_all_blocks(self, verify_all: bool) -> Self {
        Self { verify_all, ..self }
    }

    /// Whose chain it is.
    pub fn chain(&self) -> &'a dyn BlockSource {
        self.chain
    }

    /// The blocks above `parent` that the source shows, at most [`MAX_HEADERS`], if their headers can be believed.
    ///
    /// `known` gives the hashes of earlier blocks of the same chain. The first change of the difficulty above them
    /// takes the header that the period begins with from the source, which `parent` commits to; with a source of other
    /// people it is only checked within its bounds.
    ///
    /// # Errors
    /// [`ScanError::BadHeaders`]; [`ScanError::NotChild`] if `parent` is not in the source's chain (any more); and the
    /// error of `known`: a hash that cannot be read is not one that there is not.
    pub fn headers_above<E: From<ScanError>>(
        &self,
        network: Magic,
        parent: BlockRef,
        known: impl Fn(BtcHeight) -> Result<Option<BlockHash>, E>,
        count: u32,
    ) -> Result<Vec<NextBlock>, E> {
        let first = parent.height + 1;
        let most = if self.chain.is_own() { MAX_HEADERS } else { MAX_HEADERS_OF_OTHERS };
        let headers = self.headers(parent, count.min(most))?;
        match headers.first().map(|header| header.prev_blockhash) {
            None => return Ok(Vec::new()),
            Some(got) if got != parent.hash => {
                return Err(ScanError::from(NotChild { expected: parent.hash, got }).into());
            }
            Some(_) => {}
        }
        let mut below = BTreeMap::new();
        if let Some(period) = difficulty_period(network) {
            below.insert(parent.height, header_of(self.chain, parent.hash)?);
            let period_start = parent.height - parent.height % period;
            let retargets = parent.height + headers.len() as u32 >= period_start + period;
            match known(period_start)? {
                Some(hash) => below.insert(period_start, header_of(self.chain, hash)?),
                // To a server of other people these would be thousands of questions.
                None if retargets && self.chain.is_own() => {
                    below.insert(period_start, self.ancestor(period_start, parent)?)
                }
                None => None,
            };
        }
        let chain = HeaderChain::new(first, headers);
        check_headers(network, &chain, &below).map_err(ScanError::from)?;
        let blocks = (first..).zip(chain.raw).map(|(height, header)| NextBlock {
            at: BlockRef { height, hash: header.0.block_hash() },
            header: header.0,
        });
        Ok(blocks.collect())
    }

    /// Headers above a block: from a reader that serves many at a time, if the chain's own source names the last of
    /// them; else from that source.
    fn headers(&self, parent: BlockRef, count: u32) -> Result<Vec<Header>, ScanError> {
        for reader in self.readers {
            let Ok(found) = reader.headers_from(&parent.hash, count.saturating_add(1)) else { continue };
            let Some((own, above)) = found.split_first() else { continue };
            let (Some(last), true) = (above.last(), own.block_hash() == parent.hash) else { continue };
            if self.chain.block_hash(parent.height + above.len() as u32)? == Some(last.block_hash()) {
                return Ok(above.to_vec());
            }
        }
        Ok(self.chain.headers(parent.height + 1, count)?)
    }

    /// The header at a height below a block that is known, which commits to it.
    fn ancestor(&self, height: BtcHeight, block: BlockRef) -> Result<Header, ScanError> {
        let mut headers = self.chain.headers(height, 1)?;
        while let Some(last) = headers.last() {
            let at = BlockRef { height: height + headers.len() as u32 - 1, hash: last.block_hash() };
            let left = block.height.saturating_sub(at.height);
            let more = if left > 0 { self.headers(at, left.min(MAX_HEADERS))? } else { Vec::new() };
            if more.is_empty() {
                break;
            }
            headers.extend(more);
        }
        let is_linked = headers.windows(2).all(|pair| pair[0].block_hash() == pair[1].prev_blockhash);
        let got = headers.last().map_or_else(BlockHash::all_zeros, Header::block_hash);
        match headers.first() {
            Some(first) if is_linked && got == block.hash => Ok(*first),
            _ => Err(ScanError::OtherBlock { expected: block.hash, got }),
        }
    }

    /// Hands out what each of these blocks holds for a rollup, in their order, while those behind it are read.
    ///
    /// At most some megabytes of blocks with envelopes wait at a time, and one such block for each lane.
    ///
    /// # Errors
    /// The first error, of a block or of `each`: it got every block before that one, and none behind it.
    pub fn scan<E: From<ScanError>>(
        &self,
        blocks: &[NextBlock],
        namespace: Namespace,
        mut each: impl FnMut(Scanned) -> Result<(), E>,
    ) -> Result<(), E> {
        let lanes = self.readers.iter().map(|reader| reader.lanes()).max().unwrap_or_else(|| self.chain.lanes());
        let fetch = |block: &NextBlock, raw: &mut Vec<u8>| self.fetch(block, namespace, raw);
        lanes::in_order(lanes, blocks, fetch, |scanned| scanned.as_ref().map_or(0, Scanned::weight), |one| each(one?))
    }

    fn fetch(&self, block: &NextBlock, namespace: Namespace, raw: &mut Vec<u8>) -> Result<Scanned, ScanError> {
        let mut refused = Vec::new();
        for reader in self.readers {
            let found = reader.read_block(&block.at.hash, raw).map_err(ScanError::from);
            match found.and_then(|()| judge(raw, block, namespace, self.verify_all)) {
                Ok(found) => return Ok(Scanned { block: *block, len: raw.len(), found, refused }),
                Err(ScanError::Chain(ChainError::NotFound(_))) => {}
                Err(error) => {
                    let reason = match error {
                        ScanError::BadBlock { reason, .. } => reason.to_string(),
                        error => error.to_string(),
                    };
                    refused.push(Refusal { source: reader.name(), block: block.at, reason });
                }
            }
        }
        self.chain.read_block(&block.at.hash, raw)?;
        let found = judge(raw, block, namespace, self.verify_all || !self.chain.is_own())?;
        Ok(Scanned { block: *block, len: raw.len(), found, refused })
    }
}

/// A block's header, if it is the one that was asked for.
pub(crate) fn header_of(chain: &dyn BlockSource, hash: BlockHash) -> Result<Header, ScanError> {
    let header = chain.header(&hash)?;
    let got = header.block_hash();
    if got == hash { Ok(header) } else { Err(ScanError::OtherBlock { expected: hash, got }) }
}

/// What a block's bytes hold, if they can be believed.
fn judge(raw: &[u8], block: &NextBlock, namespace: Namespace, verify_all: bool) -> Result<Vec<Found>, ScanError> {
    let bad = |reason| ScanError::BadBlock { block: block.at, reason };
    let scanned = scan_block(raw, Some(namespace)).map_err(bad)?;
    if scanned.header != block.header {
        return Err(ScanError::OtherBlock { expected: block.at.hash, got: scanned.header.block_hash() });
    }
    if (verify_all || looks_unwritten(raw)) && scanned.found.is_empty() {
        // Only then is it known that nothing was hidden or cut off.
        check_block(raw).map_err(bad)?;
    }
    Ok(scanned.found)
}

/// Whether there may be a hole in a block: in a file that was copied in part, bytes that nobody wrote are zeros, and
/// below bitcoind's key a pattern of eight bytes. Some blocks look so by chance, or because somebody likes zeros.
fn looks_unwritten(raw: &[u8]) -> bool {
    let starts = raw.chunks(STRIDE).skip(1).filter_map(|chunk| chunk.first_chunk());
    starts.chain(raw.last_chunk()).any(|sample: &[u8; SAMPLE]| sample[..SAMPLE - 8] == sample[8..])
}

#[cfg(test)]
mod tests;
