//! A small Bitcoin with a rollup on it, and the proof files that can be made of it.
//!
//! Two sets of sequencers sign: one that keeps the rules, in force from the start, and one that breaks them,
//! said to be in force after one handover. No evidence can ever name the honest ones.

use super::made;
use super::rollup::{self, Parameters, SPACING, START_HEIGHT, START_TIME, Signers};
use bitcoin::consensus::serialize;
use bitcoin::{Block, Transaction, Witness, XOnlyPublicKey};
use sortie::derive::Derivation;
use sortie::envelope::{Body, Carrier, Payload, scan_block};
use sortie::l2::{L2Block, L2Head, L2Header, Origin};
use sortie::manifest::Manifest;
use sortie::merkle::{Tree, TreeHead};
use sortie::primitives::{Hash32, sha256};
use sortie::proof::{
    Anchors, BrokenReceipt, Censored, CensoredCase, ConflictingState, Consistency, Equivocation, File, HeaderChain,
    Included, ItemProof, LeafRange, Proof, ProvenLeaf, QueueLeaf, Receipt, ReceiptBlock, Signed, SignedBy, SoftHeader,
    SoftState, Statement,
};
use sortie::queue::Item;
use std::ops::RangeInclusive;

/// Handovers behind the set that breaks the rules.
const GUILTY: u32 = 1;

/// One Bitcoin chain and its queue.
pub struct World {
    /// The rollup.
    pub manifest: Manifest,
    /// Bitcoin blocks above the start block.
    pub blocks: Vec<Block>,
    /// The queue.
    pub items: Vec<Item>,
    /// The queue's tree.
    pub tree: Tree,
    honest: Signers,
    guilty: Signers,
    derivation: Derivation,
    genesis: L2Head,
    origins: Vec<Origin>,
    salt: u32,
}

impl World {
    /// Nothing but the start block.
    pub fn new() -> Self {
        let (honest, guilty) = (Signers::new([1, 2, 3], 2), Signers::new([4, 5], 1));
        // Nothing is due in any of these worlds: the sequencers' blocks are what there is.
        let parameters = Parameters {
            start_height: START_HEIGHT,
            window: 60_000,
            max_lag: 3,
            max_forced: 1000,
            sequencers: honest.set(),
        };
        let manifest = rollup::manifest(parameters);
        let derivation = rollup::genesis(&manifest);
        Self {
            blocks: Vec::new(),
            items: Vec::new(),
            tree: Tree::default(),
            honest,
            guilty,
            genesis: derivation.head(),
            origins: vec![derivation.tip()],
            derivation,
            manifest,
            salt: 0,
        }
    }

    /// Five items in three blocks: 101 holds item 0 in an output; 102 none; 103 items 1 to 3 in a list in an
    /// input, and item 4 in an output.
    pub fn example() -> Self {
        let mut world = Self::new();
        let first = world.carry(Carrier::OpReturn, Body::Tx(b"item 0".to_vec()));
        world.mine(vec![first]);
        let plain = world.plain();
        world.mine(vec![plain]);
        let list = (1..4u8).map(|item| [&b"item "[..], &[b'0' + item; 60]].concat()).collect();
        let txs = vec![
            world.plain(),
            world.carry(Carrier::Taproot, Body::Txs(list)),
            world.carry(Carrier::OpReturn, Body::Tx(b"item 4".to_vec())),
        ];
        world.mine(txs);
        world.mine(Vec::new());
        world
    }

    /// A Bitcoin transaction that carries a payload of the rollup.
    pub fn carry(&mut self, carrier: Carrier, body: Body) -> Transaction {
        self.salt += 1;
        let payload = Payload { namespace: self.manifest.rollup_id().namespace(), body };
        made::carry(carrier, &payload.encode().expect("a body of a payload"), self.salt)
    }

    /// A Bitcoin transaction that carries nothing, with a witness.
    pub fn plain(&mut self) -> Transaction {
        self.salt += 1;
        let input = made::input(self.salt, Witness::from_slice(&[[7; 71]]));
        made::transaction(vec![input], vec![made::output(&[0x51; 34])])
    }

    /// Mines a block.
    pub fn mine(&mut self, txs: Vec<Transaction>) {
        self.salt += 1;
        let tip = self.derivation.tip().block;
        let time = START_TIME + (tip.height + 1 - START_HEIGHT) * SPACING;
        let block = made::block(tip.hash, time, self.salt, txs);
        let raw = serialize(&block);
        let scanned = scan_block(&raw, Some(self.manifest.rollup_id().namespace())).expect("a whole block");
        let step = self.derivation.apply(&scanned.header, &scanned.found).expect("a child of the tip");
        step.items.iter().for_each(|item| self.tree.push(&item.leaf()));
        self.items.extend(step.items);
        self.origins.push(step.origin);
        self.blocks.push(block);
    }

    /// Everything that there is to know about this world.
    pub fn anchors(&self) -> Anchors {
        let mut anchors = Anchors::new(self.manifest.clone());
        for (origin, block) in self.origins.iter().skip(1).zip(&self.blocks) {
            anchors.add_bitcoin_header(origin.block.height, block.header).expect("one chain");
        }
        self.chain().iter().for_each(|block| anchors.add_l2_block(block.hash));
        anchors.add_sequencers(GUILTY, self.guilty.set()).expect("one set");
        anchors
    }

    /// The keys that evidence may name.
    pub fn guilty_keys(&self) -> Vec<XOnlyPublicKey> {
        self.guilty.set().keys().to_vec()
    }

    /// The honest chain: one block for each Bitcoin block.
    pub fn chain(&self) -> Vec<L2Block> {
        let mut parent = self.genesis;
        let blocks = self.origins.iter().skip(1).map(|origin| {
            let block = self.child(&parent, origin);
            parent = block.head();
            block
        });
        blocks.collect()
    }

    fn child(&self, parent: &L2Head, origin: &Origin) -> L2Block {
        let timestamp = parent.header.child_lower_bound(origin);
        let own_txs = vec![b"own 1".to_vec(), b"own 2".to_vec()];
        self.derivation.rules().child(parent, origin, timestamp, own_txs).expect("a small number")
    }

    /// The proof that Bitcoin holds an item, with headers of these heights.
    pub fn item(&self, index: usize, heights: RangeInclusive<u32>) -> ItemProof {
        let block = |height: u32| &self.blocks[(height - START_HEIGHT - 1) as usize];
        let headers = HeaderChain::new(*heights.start(), heights.map(|height| block(height).header));
        let Item { block: at, place, .. } = self.items[index];
        ItemProof::make(headers, at.height, block(at.height), place).expect("it is there")
    }

    /// An item in the queue of its first `size` items.
    pub fn leaf(&self, index: u64, size: u64) -> ProvenLeaf {
        ProvenLeaf::make(&self.tree, size, index, &self.items[index as usize]).expect("it is there")
    }

    fn signed<T: Statement>(&self, statement: T, signers: &Signers, handovers: u32) -> Signed<T> {
        let message = statement.message(&self.manifest.rollup_id(), handovers);
        let keypairs = (0u8..).zip(signers.keypairs());
        let signatures = keypairs.map(|(index, keypair)| SignedBy::sign(index, keypair, message)).collect();
        Signed { statement, handovers, signatures }
    }

    fn by_guilty<T: Statement>(&self, statement: T) -> Signed<T> {
        self.signed(statement, &self.guilty, GUILTY)
    }

    fn file(&self, proof: Proof) -> File {
        File { rollup_id: self.manifest.rollup_id(), proof }
    }

    /// An item's place in a derived block.
    pub fn included(&self, index: u64, block: &L2Block) -> File {
        let header = block.header;
        let block = Signed { statement: SoftHeader(header), handovers: 0, signatures: Vec::new() };
        self.file(Proof::Included(Included { item: self.leaf(index, header.queue_size), block }))
    }

    /// An item that Bitcoin holds.
    pub fn forced(&self, index: usize, heights: RangeInclusive<u32>) -> File {
        self.file(Proof::Forced(self.item(index, heights)))
    }

    /// The queue of `old` items is how that of `new` begins.
    pub fn consistency(&self, old: u64, new: u64) -> File {
        let proof = self.tree.consistency(old, new).expect("it had these sizes");
        let head = |size| self.tree.head(size).expect("it had this size");
        let proof = Consistency { old: head(old), new: head(new), proof, old_block: None, new_block: None };
        self.file(Proof::Consistency(proof))
    }

    /// A promise to the first of `count` blocks' user that none of them keeps; all executed items are shown.
    pub fn broken_receipt(&self, count: usize) -> File {
        let chain = self.chain();
        let receipt = Receipt { tx_hash: sha256(b"promised"), first_number: 1, last_number: count as u64 };
        let blocks = chain.iter().take(count).map(|block| ReceiptBlock {
            header: self.by_guilty(SoftHeader(block.header)),
            own_txs: block.own_txs.iter().cloned().map(sortie::proof::RawBytes).collect(),
            forced: {
                let items = &self.items[block.forced.start as usize..block.forced.end as usize];
                LeafRange::make(&self.tree, block.header.queue_size, block.forced.start, items).expect("they are there")
            },
        });
        self.file(Proof::BrokenReceipt(BrokenReceipt {
            receipt: self.by_guilty(receipt),
            parent: SoftHeader(self.genesis.header),
            blocks: blocks.collect(),
        }))
    }

    /// A file of every type and kind, all of them proven by [`anchors`](Self::anchors); of
    /// [`example`](Self::example).
    pub fn files(&self) -> Vec<File> {
        let chain = self.chain();
        let included = self.included(2, &chain[2]);
        let mut claimed = included.clone();
        if let Proof::Included(included) = &mut claimed.proof {
            included.block = self.signed(included.block.statement, &self.honest, 0);
        }
        let mut consistency = self.consistency(1, 5);
        if let Proof::Consistency(consistency) = &mut consistency.proof {
            consistency.old_block = Some(SoftHeader(chain[0].header));
            consistency.new_block = Some(SoftHeader(chain[3].header));
        }
        let truth = [self.forced(0, 101..=101), self.forced(2, 102..=104), included, claimed, consistency];
        truth.into_iter().chain([self.broken_receipt(3)]).chain(self.censored()).chain(self.two_stories()).collect()
    }

    fn two_stories(&self) -> [File; 2] {
        let header = self.chain()[0].header;
        let later = L2Header { timestamp: header.timestamp + 1, ..header };
        let state = |root| self.by_guilty(SoftState { block: Hash32([7; 32]), state_root: Hash32([root; 32]) });
        let equivocation = Equivocation {
            first: self.by_guilty(SoftHeader(header)),
            second: self.by_guilty(SoftHeader(later)),
            child_origin: None,
        };
        let conflict = ConflictingState { first: state(1), second: state(2) };
        [Proof::Equivocation(equivocation), Proof::ConflictingState(conflict)].map(|proof| self.file(proof))
    }

    /// A header on the genesis block for each thing that can be wrong with one.
    fn censored(&self) -> Vec<File> {
        let honest = self.chain()[0].header;
        let item = self.leaf(0, 1);
        let other = QueueLeaf { tx_hash: Hash32([7; 32]), ..item.leaf };
        let with_queue =
            |head: TreeHead| L2Header { forced_end: head.size, queue_size: head.size, queue_root: head.root, ..honest };
        let (replaced, replaced_leaves) = self.false_queue(&[other]);
        let (disordered, leaves) = self.false_queue(&[self.leaf(1, 5).leaf, item.leaf]);
        let nothing = Tree::default().head(0).expect("every list began empty");
        let [first, second] = [0, 1].map(|index: usize| leaves[index].clone());
        let shown = || self.item(0, 101..=101);
        let cases = [
            (L2Header { forced_end: 0, ..honest }, CensoredCase::NotExecuted { item }),
            (with_queue(nothing), CensoredCase::LeftOut { item: shown(), before: None, after: None }),
            (with_queue(replaced), CensoredCase::Replaced { item: shown(), leaf: replaced_leaves[0].clone() }),
            (L2Header { forced_end: 0, ..honest }, CensoredCase::FalseHeader { origin: None }),
            (with_queue(disordered), CensoredCase::OutOfOrder { first, second }),
        ];
        let parent = SoftHeader(self.genesis.header);
        let files = cases.into_iter().map(|(header, case)| {
            let block = self.by_guilty(SoftHeader(header));
            self.file(Proof::Censored(Censored { block, parent, case }))
        });
        files.collect()
    }

    fn false_queue(&self, leaves: &[QueueLeaf]) -> (TreeHead, Vec<ProvenLeaf>) {
        let mut tree = Tree::default();
        leaves.iter().for_each(|leaf| tree.push(&leaf.bytes()));
        let size = tree.size();
        let proven = (0u64..).zip(leaves).map(|(index, leaf)| ProvenLeaf {
            index,
            leaf: *leaf,
            proof: tree.inclusion(index, size).expect("below the size"),
        });
        (tree.head(size).expect("its size"), proven.collect())
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}
