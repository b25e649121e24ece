//! A small Bitcoin with a rollup on it, and everything that a node and a sequencer make of it.

use super::*;
use crate::envelope::tests::blocks;
use crate::envelope::{Body, Carrier, Payload, scan_block};
use crate::l2::{BlockRules, L2Block, L2Head, Origin};
use crate::manifest::tests::signers::Signers;
use crate::manifest::{ExecutorKind, ExecutorSpec, Fields};
use crate::merkle::{Tree, TreeHead};
use crate::queue::{Item, items_of};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::p2p::Magic;
use bitcoin::{Block, BlockHash, Transaction};
use core::ops::{Range, RangeInclusive};

pub(super) const START: u32 = 100;
const START_TIME: u32 = 1_700_000_000;

/// One branch of Bitcoin above the start block, with the queue of it.
#[derive(Clone)]
pub(super) struct World {
    pub manifest: Manifest,
    pub signers: Signers,
    pub blocks: Vec<Block>,
    pub items: Vec<Item>,
    pub tree: Tree,
    /// Of the start block and every one above.
    origins: Vec<Origin>,
    salt: u32,
}

impl World {
    /// Nothing but the start block, of a rollup with these signers that executes two items in a block.
    pub fn new(signers: Signers, network: Magic) -> Self {
        let start = BlockRef { height: START, hash: BlockHash::from_byte_array([0xaa; 32]) };
        let fields = Fields {
            name: "proof".into(),
            network,
            start,
            sequencing_window: 10,
            max_lag: 3,
            max_forced_per_block: 2,
            sequencers: signers.set(),
            executor: ExecutorSpec { kind: ExecutorKind::Opaque, parameters: Vec::new() },
            predecessor: None,
        };
        let manifest = Manifest::new(fields).unwrap();
        let tree = Tree::default();
        let TreeHead { size, root } = tree.head(0).unwrap();
        let origin = Origin { block: start, median_time: START_TIME, queue_size: size, queue_root: root };
        Self { manifest, signers, blocks: Vec::new(), items: Vec::new(), tree, origins: vec![origin], salt: 0 }
    }

    /// Five items in three blocks, of a 2-of-3: 101 holds item 0 in an output; 102 none; 103 items 1 to 3 in an
    /// input and item 4 in an output, behind a transaction without; 104 none.
    pub fn example() -> Self {
        let mut world = Self::new(Signers::new([1, 2, 3], 2), Magic::REGTEST);
        let first = world.carry(Carrier::OpReturn, Body::Tx(b"item 0".to_vec()));
        world.mine([first]);
        let plain = world.plain();
        world.mine([plain]);
        let list = (1..4u8).map(|item| [&b"item "[..], &[b'0' + item; 60]].concat()).collect();
        let txs = [
            world.plain(),
            world.carry(Carrier::Taproot, Body::Txs(list)),
            world.plain(),
            world.carry(Carrier::OpReturn, Body::Tx(b"item 4".to_vec())),
        ];
        world.mine(txs);
        world.mine([]);
        world
    }

    /// A Bitcoin transaction that carries a payload of the rollup.
    pub fn carry(&mut self, carrier: Carrier, body: Body) -> Transaction {
        self.salt += 1;
        let payload = Payload { namespace: self.manifest.rollup_id().namespace(), body }.encode().unwrap();
        blocks::carry(carrier, &payload, self.salt)
    }

    /// A Bitcoin transaction that carries nothing, with a witness.
    pub fn plain(&mut self) -> Transaction {
        self.salt += 1;
        blocks::transaction(vec![blocks::input(self.salt, [vec![7; 71]])], vec![blocks::output(&[0x51])])
    }

    /// Mines a block.
    pub fn mine(&mut self, txs: impl IntoIterator<Item = Transaction>) -> BlockRef {
        self.salt += 1;
        let parent = self.tip();
        let time = START_TIME + 600 * (parent.height + 1 - START);
        let block = blocks::block(parent.hash, time, self.salt, Vec::new(), txs.into_iter().collect());
        self.connect(block)
    }

    /// Takes up a block after the tip.
    pub fn connect(&mut self, block: Block) -> BlockRef {
        let scanned = scan_block(&serialize(&block), Some(self.manifest.rollup_id().namespace())).unwrap();
        let at = BlockRef { height: self.tip().height + 1, hash: block.block_hash() };
        for item in items_of(at, &scanned.found) {
            self.tree.push(&item.leaf());
            self.items.push(item);
        }
        let TreeHead { size, root } = self.tree.head(self.tree.size()).unwrap();
        self.origins.push(Origin { block: at, median_time: block.header.time, queue_size: size, queue_root: root });
        self.blocks.push(block);
        at
    }

    /// Disconnects the last blocks; gives them, lowest first.
    pub fn disconnect(&mut self, count: usize) -> Vec<Block> {
        self.origins.truncate(self.origins.len() - count);
        self.items.truncate(self.origins.last().unwrap().queue_size as usize);
        self.tree = self.items.iter().map(|item| crate::merkle::leaf_hash(&item.leaf())).collect();
        self.blocks.split_off(self.blocks.len() - count)
    }

    pub fn tip(&self) -> BlockRef {
        self.origins.last().unwrap().block
    }

    pub fn origin(&self, height: u32) -> Origin {
        self.origins[(height - START) as usize]
    }

    pub fn block(&self, height: u32) -> &Block {
        &self.blocks[(height - START - 1) as usize]
    }

    pub fn headers(&self, heights: RangeInclusive<u32>) -> HeaderChain {
        HeaderChain::new(*heights.start(), heights.map(|height| self.block(height).header))
    }

    /// The proof for an item, with headers of these heights.
    pub fn item(&self, index: usize, heights: RangeInclusive<u32>) -> ItemProof {
        let Item { block, place, .. } = self.items[index];
        ItemProof::make(self.headers(heights), block.height, self.block(block.height), place).unwrap()
    }

    /// An item in the queue of its first `size` items.
    pub fn leaf(&self, index: u64, size: u64) -> ProvenLeaf {
        ProvenLeaf::make(&self.tree, size, index, &self.items[index as usize]).unwrap()
    }

    /// Items side by side in the queue of its first `size` items.
    pub fn leaves(&self, range: Range<u64>, size: u64) -> LeafRange {
        let items = &self.items[range.start as usize..range.end as usize];
        LeafRange::make(&self.tree, size, range.start, items).unwrap()
    }

    pub fn rules(&self) -> BlockRules {
        let max_forced_per_block = self.manifest.max_forced_per_block.into();
        BlockRules { rollup_id: self.manifest.rollup_id(), max_forced_per_block }
    }

    pub fn genesis(&self) -> L2Head {
        self.rules().genesis(self.manifest.start, START_TIME).head()
    }

    /// An honest block with the origin at this height.
    pub fn child(&self, parent: &L2Head, height: u32, own_txs: &[&[u8]]) -> L2Block {
        let origin = self.origin(height);
        let timestamp = parent.header.child_lower_bound(&origin);
        self.rules().child(parent, &origin, timestamp, own_txs.iter().map(|tx| tx.to_vec()).collect()).unwrap()
    }

    /// The honest chain that reaches 103 with item 4 still to do: one block for each origin.
    pub fn chain(&self) -> Vec<L2Block> {
        let mut parent = self.genesis();
        let blocks = (START + 1..=START + 3).map(|height| {
            let block = self.child(&parent, height, &[b"own 1", b"own 2"]);
            parent = block.head();
            block
        });
        blocks.collect()
    }

    /// A header signed by these sequencers.
    pub fn sign(&self, header: &crate::l2::L2Header, signers: impl IntoIterator<Item = u8>) -> Signed<SoftHeader> {
        self.state(SoftHeader(*header), signers)
    }

    /// A statement signed by these sequencers, before any handover.
    pub fn state<T: Statement>(&self, statement: T, signers: impl IntoIterator<Item = u8>) -> Signed<T> {
        let message = statement.message(&self.manifest.rollup_id(), 0);
        let by = |index: u8| SignedBy::sign(index, &self.signers.keypairs[usize::from(index)], message);
        Signed { statement, handovers: 0, signatures: signers.into_iter().map(by).collect() }
    }

    /// The manifest alone.
    pub fn anchors(&self) -> AnchorList {
        AnchorList { manifest: Hex(self.manifest.encode()), ..AnchorList::default() }
    }

    /// The manifest and these Bitcoin blocks.
    pub fn bitcoin_anchors(&self, heights: impl IntoIterator<Item = u32>) -> AnchorList {
        let bitcoin_blocks = heights.into_iter().map(|height| self.origin(height).block).collect();
        AnchorList { bitcoin_blocks, ..self.anchors() }
    }
}
