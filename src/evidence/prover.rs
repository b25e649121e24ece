//! A follower's chain and a Bitcoin source, read for the parts of a file.

use super::EvidenceError;
use crate::chain::{BlockSource, ChainError};
use crate::follower::{ChainView, DerivedBlock, QueuedItem};
use crate::merkle::{Tree, TreeHead};
use crate::primitives::{BlockRef, BtcHeight};
use crate::proof::{Anchors, File, HeaderChain, ItemProof, Proof, SoftHeader};
use crate::queue::Item;
use bitcoin::Block;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use std::ops::{Range, RangeInclusive};

/// Bytes of two hashes: a transaction of that length can be taken for a node of the tree above it.
const NODE_LEN: usize = 64;
/// Items that are read at once.
const PAGE: u64 = 4_096;

/// A derived chain, and a Bitcoin source for whole blocks.
pub struct Prover {
    /// The derived chain.
    pub view: ChainView,
    source: Box<dyn BlockSource>,
}

impl Prover {
    /// Proves from a chain that was derived from this source.
    pub fn new(view: ChainView, source: impl BlockSource + 'static) -> Self {
        Self { view, source: Box::new(source) }
    }

    /// A file about this rollup.
    pub fn file(&self, proof: Proof) -> File {
        File { rollup_id: self.view.manifest().rollup_id(), proof }
    }

    /// The manifest and every set of sequencers that ever ruled.
    ///
    /// # Errors
    /// [`EvidenceError`], if a store or a source cannot be read, or the chain changed meanwhile.
    pub fn anchors(&self) -> Result<Anchors, EvidenceError> {
        let mut anchors = Anchors::new(self.view.manifest().clone());
        for (handovers, set) in self.view.store().sequencers()? {
            anchors.add_sequencers(handovers, set)?;
        }
        Ok(anchors)
    }

    /// The queue's item at an index.
    ///
    /// # Errors
    /// [`EvidenceError`], if a store or a source cannot be read, or the chain changed meanwhile.
    pub fn item(&self, index: u64) -> Result<QueuedItem, EvidenceError> {
        self.view.store().items(index..index.saturating_add(1))?.pop().ok_or(EvidenceError::Changed)
    }

    /// Number of items in the queue.
    pub fn size(&self) -> u64 {
        self.view.derivation().tip().queue_size
    }

    /// The queue's first `size` items, as a tree.
    ///
    /// # Errors
    /// [`EvidenceError`], if a store or a source cannot be read, or the chain changed meanwhile.
    pub fn tree(&self, size: u64) -> Result<Tree, EvidenceError> {
        if size > self.size() {
            return Err(EvidenceError::QueueSize { size: self.size(), wanted: size });
        }
        let mut tree = Tree::default();
        self.each_item(0..size, |queued| tree.push(&queued.item.leaf()))?;
        Ok(tree)
    }

    /// Reads items in order, some at a time: a queue need not fit in memory.
    ///
    /// # Errors
    /// [`EvidenceError`], if a store or a source cannot be read, or the chain changed meanwhile.
    pub fn each_item(&self, range: Range<u64>, mut read: impl FnMut(&QueuedItem)) -> Result<(), EvidenceError> {
        let mut from = range.start;
        while from < range.end {
            let items = self.view.store().items(from..range.end.min(from + PAGE))?;
            if items.is_empty() {
                return Err(EvidenceError::Changed);
            }
            items.iter().for_each(&mut read);
            from += items.len() as u64;
        }
        Ok(())
    }

    /// Whether a block's queue is how Bitcoin's begins.
    ///
    /// # Errors
    /// [`EvidenceError`], if a store or a source cannot be read, or the chain changed meanwhile.
    pub fn has_queue(&self, header: &SoftHeader) -> Result<bool, EvidenceError> {
        let size = header.queue_size;
        Ok(size <= self.size() && self.tree(size)?.head(size) == Some(header.queue()))
    }

    /// The first derived block with a queue, if one adopted it: a Bitcoin block's items are adopted together.
    ///
    /// # Errors
    /// [`EvidenceError`], if a store or a source cannot be read, or the chain changed meanwhile.
    pub fn adopting(&self, queue: &TreeHead) -> Result<Option<DerivedBlock>, EvidenceError> {
        let block = |number| self.view.store().block(number)?.ok_or(EvidenceError::Changed);
        // Queues only grow.
        let (mut first, mut last) = (0, self.view.derivation().head().header.number);
        while first < last {
            let middle = first.midpoint(last);
            if block(middle)?.head.header.queue_size < queue.size { first = middle + 1 } else { last = middle }
        }
        Ok(Some(block(first)?).filter(|found| SoftHeader(found.head.header).queue() == *queue))
    }

    /// A Bitcoin header on any branch; `None` if the source does not know it.
    ///
    /// # Errors
    /// [`EvidenceError`], if a store or a source cannot be read, or the chain changed meanwhile.
    pub fn header(&self, block: &BlockRef) -> Result<Option<Header>, EvidenceError> {
        Ok(header_on_any_branch(self.source.as_ref(), block)?)
    }

    /// The proof that Bitcoin holds an item, with headers of these heights of the best chain.
    ///
    /// # Errors
    /// [`EvidenceError`], if a store or a source cannot be read, or the chain changed meanwhile.
    pub fn item_proof(&self, item: &Item, heights: RangeInclusive<BtcHeight>) -> Result<ItemProof, EvidenceError> {
        let headers = self.headers(heights)?;
        let block: Block = deserialize(&self.source.block(&item.block.hash)?)?;
        let place = item.place;
        if block.txdata.iter().any(|tx| tx.base_size() == NODE_LEN && tx.compute_txid() == place.txid) {
            return Err(EvidenceError::LikeATreeNode(place));
        }
        ItemProof::make(headers, item.block.height, &block, item.place).map_err(|_| EvidenceError::Changed)
    }

    fn headers(&self, heights: RangeInclusive<BtcHeight>) -> Result<HeaderChain, EvidenceError> {
        let first = *heights.start();
        let mut headers: Vec<Header> = Vec::new();
        for height in heights {
            let hash = self.source.block_hash(height)?.ok_or(EvidenceError::Changed)?;
            let header = self.source.header(&hash)?;
            if headers.last().is_some_and(|before| before.block_hash() != header.prev_blockhash) {
                return Err(EvidenceError::Changed);
            }
            headers.push(header);
        }
        Ok(HeaderChain::new(first, headers))
    }
}

/// A Bitcoin header on any branch; `None` if the source does not know it.
///
/// # Errors
/// [`ChainError`].
pub fn header_on_any_branch(source: &dyn BlockSource, block: &BlockRef) -> Result<Option<Header>, ChainError> {
    match source.header(&block.hash) {
        Ok(header) => Ok(Some(header)),
        Err(ChainError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
