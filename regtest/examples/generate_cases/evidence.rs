//! Evidence that was made for the purpose: statements changed first and signed then, about one small world.

use super::fuzz::rollup::Signers;
use super::fuzz::seeds::Numbers;
use super::fuzz::world::World;
use super::proofs::Scene;
use super::trees::near;
use super::{Case, hash, pick, wide};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use sortie::l2::L2Header;
use sortie::merkle::Tree;
use sortie::primitives::{Hash32, sha256};
use sortie::proof::{
    BrokenReceipt, Censored, CensoredCase, ConflictingState, Consistency, Equivocation, File, Included, LeafRange,
    Proof, ProvenLeaf, QueueLeaf, Raw, RawBytes, Receipt, ReceiptBlock, Signed, SignedBy, SoftHeader, SoftState,
    Statement,
};

/// Items in the world's queue.
const ITEMS: u64 = 5;

/// Evidence of any type, judged in the world's scene.
pub fn evidence(numbers: &mut Numbers, world: &World, scene: &Scene) -> Case {
    let maker = Maker { world, signers: [Signers::new([1, 2, 3], 2), Signers::new([4, 5], 1)] };
    let proof = match numbers.below(12) {
        0..=5 => maker.censored(numbers),
        6 | 7 => maker.equivocation(numbers),
        8 => maker.conflicting_state(numbers),
        9 => maker.broken_receipt(numbers),
        10 => maker.included(numbers),
        _ => maker.consistency(numbers),
    };
    let file = File { rollup_id: world.manifest.rollup_id(), proof };
    scene.ask(file.to_json().expect("a short file"))
}

struct Maker<'a> {
    world: &'a World,
    /// By handovers.
    signers: [Signers; 2],
}

impl Maker<'_> {
    /// Signed by one sequencer of one of the sets, now and then by more.
    fn signed<T: Statement>(&self, numbers: &mut Numbers, statement: T) -> Signed<T> {
        let handovers = usize::from(numbers.below(10) > 0);
        let keypairs = self.signers[handovers].keypairs();
        let (first, more) = (usize::from(numbers.below(4) == 0), usize::from(numbers.below(4) == 0));
        let message = statement.message(&self.world.manifest.rollup_id(), handovers as u32);
        let signatures = (0u8..).zip(keypairs).skip(first).take(1 + more);
        let signatures = signatures.map(|(index, keypair)| SignedBy::sign(index, keypair, message)).collect();
        Signed { statement, handovers: handovers as u32, signatures }
    }

    /// A header of the honest chain, the one before it, and the first with some of its fields changed.
    fn headers(&self, numbers: &mut Numbers) -> (L2Header, L2Header) {
        let chain = self.world.chain();
        let at = pick(numbers, &[1, 2, 2, 2, 3]);
        let (parent, mut header) = (chain[at - 1].header, chain[at].header);
        for _ in 0..pick(numbers, &[0, 1, 1, 2]) {
            self.change(numbers, &mut header);
        }
        (parent, header)
    }

    fn change(&self, numbers: &mut Numbers, header: &mut L2Header) {
        match numbers.below(9) {
            0..=2 => header.forced_end = numbers.below(7) as u64,
            3 => {
                let head = self.world.tree.head(numbers.below(6) as u64).expect("it had this size");
                (header.queue_size, header.queue_root) = (head.size, head.root);
            }
            4 => header.number = near(numbers, header.number),
            5 => header.origin.height = near(numbers, header.origin.height.into()) as u32,
            6 => {
                let block = pick(numbers, &[0, 1, 2, 3]);
                header.origin.hash = self.world.blocks[block].block_hash();
            }
            7 => header.origin.hash = BlockHash::from_byte_array(hash(numbers)),
            _ => header.timestamp = wide(numbers),
        }
    }

    fn leaf(&self, numbers: &mut Numbers, header: &L2Header) -> ProvenLeaf {
        let size = header.queue_size.clamp(1, ITEMS);
        let mut leaf = self.world.leaf(numbers.below(size as usize) as u64, size);
        match numbers.below(12) {
            0 => leaf.index = wide(numbers),
            1 => leaf.leaf.tx_hash = Hash32(hash(numbers)),
            _ => {}
        }
        leaf
    }

    fn censored(&self, numbers: &mut Numbers) -> Proof {
        let (parent, mut header) = self.headers(numbers);
        let index = numbers.below(ITEMS as usize);
        let last = pick(numbers, &[header.origin.height, header.origin.height, 104]).clamp(103, 104);
        let item =
            self.world.item(index, pick(numbers, &[101, 101, 102]).min(if index == 0 { 101 } else { 103 })..=last);
        let case = match numbers.below(6) {
            0 => CensoredCase::NotExecuted { item: self.leaf(numbers, &header) },
            1 | 2 => {
                let leaves = self.queue_without(numbers, index, &mut header);
                let at = index.min(leaves.len());
                let shown = |at: Option<usize>| at.and_then(|at| leaves.get(at).cloned());
                let before = shown(at.checked_sub(1)).filter(|_| numbers.below(8) > 0);
                let after = shown(Some(at)).filter(|_| numbers.below(8) > 0);
                CensoredCase::LeftOut { item, before, after }
            }
            3 => {
                let mut leaves: Vec<_> = self.world.items.iter().map(QueueLeaf::from).collect();
                match numbers.below(4) {
                    0 => leaves[index].block_hash = BlockHash::from_byte_array(hash(numbers)),
                    1 => leaves[index].place.position += 1,
                    2 => {}
                    _ => leaves[index].tx_hash = Hash32(hash(numbers)),
                }
                let leaves = put_queue(&leaves, &mut header);
                CensoredCase::Replaced { item, leaf: leaves[index].clone() }
            }
            4 => {
                let blocks = &self.world.blocks;
                let origin = blocks.get(numbers.below(6)).map(|block| Raw(block.header));
                CensoredCase::FalseHeader { origin }
            }
            _ => {
                let mut leaves: Vec<_> = self.world.items.iter().map(QueueLeaf::from).collect();
                match numbers.below(3) {
                    0 => leaves.swap(index, numbers.below(ITEMS as usize)),
                    1 => leaves.insert(index, leaves[index]),
                    _ => {}
                }
                let leaves = put_queue(&leaves, &mut header);
                let [first, second] = [index, index + 1].map(|at| leaves[at.min(leaves.len() - 1)].clone());
                CensoredCase::OutOfOrder { first, second }
            }
        };
        let block = self.signed(numbers, SoftHeader(header));
        Proof::Censored(Censored { block, parent: SoftHeader(parent), case })
    }

    /// The header's queue becomes one that lacks an item, or more, or none.
    fn queue_without(&self, numbers: &mut Numbers, index: usize, header: &mut L2Header) -> Vec<ProvenLeaf> {
        let mut leaves: Vec<_> = self.world.items.iter().map(QueueLeaf::from).collect();
        match numbers.below(6) {
            0 => leaves.clear(),
            1 => {}
            2 => leaves.truncate(index),
            _ => drop(leaves.remove(index)),
        }
        put_queue(&leaves, header)
    }

    fn equivocation(&self, numbers: &mut Numbers) -> Proof {
        let (_, first) = self.headers(numbers);
        let mut second = first;
        for _ in 0..=numbers.below(2) {
            self.change(numbers, &mut second);
        }
        let child_origin = self.world.blocks.get(numbers.below(6)).map(|block| Raw(block.header));
        let [first, second] = [first, second].map(|header| self.signed(numbers, SoftHeader(header)));
        Proof::Equivocation(Equivocation { first, second, child_origin })
    }

    fn conflicting_state(&self, numbers: &mut Numbers) -> Proof {
        let [first, second] = [0, 1].map(|_| {
            let [block, state_root] = [7, 8].map(|byte| Hash32([byte + u8::from(numbers.below(3) == 0); 32]));
            self.signed(numbers, SoftState { block, state_root })
        });
        Proof::ConflictingState(ConflictingState { first, second })
    }

    fn broken_receipt(&self, numbers: &mut Numbers) -> Proof {
        let chain = self.world.chain();
        let first = 1 + numbers.below(2);
        let last = (first + numbers.below(2)).min(3);
        let promised = match numbers.below(3) {
            0 => self.world.items[numbers.below(ITEMS as usize)].tx_hash(),
            1 => sha256(b"own 1"),
            _ => sha256(b"promised"),
        };
        let mut receipt = Receipt { tx_hash: promised, first_number: first as u64 + 1, last_number: last as u64 + 1 };
        if numbers.below(6) == 0 {
            receipt.last_number = pick(numbers, &[0, 1, 3, u64::MAX]);
        }
        let blocks = chain[first..=last].iter().map(|block| {
            let mut header = block.header;
            if numbers.below(6) == 0 {
                self.change(numbers, &mut header);
            }
            let (first, last) = (block.forced.start, block.forced.end);
            let items = &self.world.items[first as usize..last as usize];
            let size = header.queue_size.clamp(last, ITEMS);
            let mut forced = LeafRange::make(&self.world.tree, size, first, items).expect("they are there");
            match numbers.below(16) {
                0 => drop(forced.leaves.pop()),
                1 => drop(forced.proof.pop()),
                2 => forced.proof.push(Hash32([7; 32])),
                3 => forced.leaves.reverse(),
                _ => {}
            }
            let own_txs =
                block.own_txs.iter().cloned().map(RawBytes).skip(usize::from(numbers.below(8) == 0)).collect();
            ReceiptBlock { header: self.signed(numbers, SoftHeader(header)), own_txs, forced }
        });
        let blocks = blocks.collect();
        let parent = SoftHeader(chain[first - 1].header);
        Proof::BrokenReceipt(BrokenReceipt { receipt: self.signed(numbers, receipt), parent, blocks })
    }

    fn included(&self, numbers: &mut Numbers) -> Proof {
        let (_, header) = self.headers(numbers);
        let item = self.leaf(numbers, &header);
        Proof::Included(Included { item, block: self.signed(numbers, SoftHeader(header)) })
    }

    fn consistency(&self, numbers: &mut Numbers) -> Proof {
        let chain = self.world.chain();
        let mut block = || chain.get(numbers.below(12)).map(|block| SoftHeader(block.header));
        let (old_block, new_block) = (block(), block());
        let mut sizes = [numbers.below(6) as u64, numbers.below(6) as u64];
        if numbers.below(6) > 0 {
            sizes.sort_unstable();
        }
        let proof = self.world.tree.consistency(sizes[0], sizes[1]).unwrap_or_default();
        let [mut old, new] = sizes.map(|size| self.world.tree.head(size).expect("it had this size"));
        if numbers.below(8) == 0 {
            old.root = new.root;
        }
        Proof::Consistency(Consistency { old, new, proof, old_block, new_block })
    }
}

/// Puts a queue of these leaves into a header, and proves each of them under it.
fn put_queue(leaves: &[QueueLeaf], header: &mut L2Header) -> Vec<ProvenLeaf> {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(&leaf.bytes()));
    let head = tree.head(tree.size()).expect("its size");
    (header.queue_size, header.queue_root) = (head.size, head.root);
    let proven = (0u64..).zip(leaves).map(|(index, leaf)| {
        let proof = tree.inclusion(index, head.size).expect("below the size");
        ProvenLeaf { index, leaf: *leaf, proof }
    });
    proven.collect()
}
