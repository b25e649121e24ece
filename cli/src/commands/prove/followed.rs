//! What proofs are made from: the follower's store at the tip, and the Bitcoin node for whole blocks.

use crate::bitcoin::Bitcoin;
use crate::config::Settings;
use crate::failure::Failure;
use crate::follower::Reader;
use crate::output::Output;
use bitcoin::Block;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use sortie::chain::{BlockSource, ChainError};
use sortie::follower::{ChainView, DerivedBlock, QueuedItem};
use sortie::merkle::{Tree, TreeHead};
use sortie::primitives::{BlockRef, BtcHeight};
use sortie::proof::{Anchors, File, HeaderChain, ItemProof, Proof, SoftHeader};
use sortie::queue::{Item, Place};
use std::ops::{Range, RangeInclusive};

/// Bytes of two hashes, which a transaction of that length can be taken for.
const NODE_LEN: usize = 64;
/// Items that are read at once.
const PAGE: u64 = 4_096;

/// A follower at the tip and a Bitcoin node.
pub struct Followed {
    pub view: ChainView,
    source: Bitcoin,
}

/// What was read first does not fit what was read later.
pub fn changed() -> Failure {
    Failure::failed("the chain changed while it was read; try again").temporary()
}

impl Followed {
    pub fn open(settings: &Settings, out: &Output) -> Result<Self, Failure> {
        let Reader { view, source, .. } = Reader::open(settings, out)?;
        Ok(Self { view, source: source? })
    }

    /// A file about this rollup.
    pub fn file(&self, proof: Proof) -> File {
        File { rollup_id: self.view.manifest().rollup_id(), proof }
    }

    /// The manifest and every set of sequencers that ever ruled.
    pub fn anchors(&self) -> Result<Anchors, Failure> {
        let mut anchors = Anchors::new(self.view.manifest().clone());
        for (handovers, set) in self.view.store().sequencers()? {
            anchors.add_sequencers(handovers, set).map_err(Failure::failed)?;
        }
        Ok(anchors)
    }

    /// The queue's item at a place.
    pub fn item_at(&self, place: &Place) -> Result<QueuedItem, Failure> {
        self.view.store().item_at(place)?.ok_or_else(|| {
            Failure::failed(format_args!("{place} is not in this rollup's queue; `sortie status` tells how far it is"))
        })
    }

    /// The queue's item at an index.
    pub fn item(&self, index: u64) -> Result<QueuedItem, Failure> {
        self.view.store().items(index..index.saturating_add(1))?.pop().ok_or_else(changed)
    }

    /// Number of items in the queue.
    pub fn size(&self) -> u64 {
        self.view.derivation().tip().queue_size
    }

    /// The queue's first `size` items, as a tree.
    pub fn tree(&self, size: u64) -> Result<Tree, Failure> {
        if size > self.size() {
            return Err(Failure::failed(format_args!("the queue has {} items, not {size}", self.size())));
        }
        let mut tree = Tree::default();
        self.each_item(0..size, |queued| tree.push(&queued.item.leaf()))?;
        Ok(tree)
    }

    /// Reads items in order, some at a time: a queue need not fit in memory.
    pub fn each_item(&self, range: Range<u64>, mut read: impl FnMut(&QueuedItem)) -> Result<(), Failure> {
        let mut from = range.start;
        while from < range.end {
            let items = self.view.store().items(from..range.end.min(from + PAGE))?;
            if items.is_empty() {
                return Err(changed());
            }
            items.iter().for_each(&mut read);
            from += items.len() as u64;
        }
        Ok(())
    }

    /// Whether a block's queue is how Bitcoin's begins.
    pub fn has_queue(&self, header: &SoftHeader) -> Result<bool, Failure> {
        let size = header.queue_size;
        Ok(size <= self.size() && self.tree(size)?.head(size) == Some(header.queue()))
    }

    /// The first derived block with a queue, if one adopted it: a Bitcoin block's items are adopted together.
    pub fn adopting(&self, queue: &TreeHead) -> Result<Option<DerivedBlock>, Failure> {
        let block = |number| self.view.store().block(number)?.ok_or_else(changed);
        // Queues only grow.
        let (mut first, mut last) = (0, self.view.derivation().head().header.number);
        while first < last {
            let middle = first.midpoint(last);
            if block(middle)?.head.header.queue_size < queue.size { first = middle + 1 } else { last = middle }
        }
        Ok(Some(block(first)?).filter(|found| SoftHeader(found.head.header).queue() == *queue))
    }

    /// A Bitcoin header on any branch; `None` if the node does not know it.
    pub fn header(&self, block: &BlockRef) -> Result<Option<Header>, Failure> {
        header(&self.source, block)
    }

    /// The proof that Bitcoin holds an item, with headers of these heights of the best chain.
    pub fn item_proof(&self, item: &Item, heights: RangeInclusive<BtcHeight>) -> Result<ItemProof, Failure> {
        let headers = self.headers(heights)?;
        let block: Block = deserialize(&self.source.block(&item.block.hash)?).map_err(Failure::failed)?;
        let place = item.place;
        if block.txdata.iter().any(|tx| tx.base_size() == NODE_LEN && tx.compute_txid() == place.txid) {
            return Err(Failure::failed(format_args!(
                "the Bitcoin transaction of {place} has 64 bytes without its witness, like two nodes of the block's tree: no file can prove it (specification, 8.3), though every node that reads the block executes the item"
            )));
        }
        ItemProof::make(headers, item.block.height, &block, item.place).map_err(|_| changed())
    }

    fn headers(&self, heights: RangeInclusive<BtcHeight>) -> Result<HeaderChain, Failure> {
        let first = *heights.start();
        let mut headers: Vec<Header> = Vec::new();
        for height in heights {
            let hash = self.source.block_hash(height)?.ok_or_else(changed)?;
            let header = self.source.header(&hash)?;
            if headers.last().is_some_and(|before| before.block_hash() != header.prev_blockhash) {
                return Err(changed());
            }
            headers.push(header);
        }
        Ok(HeaderChain::new(first, headers))
    }
}

/// A Bitcoin header on any branch; `None` if the node does not know it.
pub fn header(source: &Bitcoin, block: &BlockRef) -> Result<Option<Header>, Failure> {
    match source.header(&block.hash) {
        Ok(header) => Ok(Some(header)),
        Err(ChainError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
