//! An honest sequencer is never convicted: whatever Bitcoin does, nothing that it signed shows a fault.

use super::*;
use crate::envelope::{Body, Carrier};
use crate::l2::{L2Block, L2Head, L2Header};
use crate::manifest::tests::signers::Signers;
use crate::primitives::sha256;
use bitcoin::p2p::Magic;
use proptest::prelude::*;
use world::START;

/// What happens, and how much of it.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A Bitcoin block with so many items.
    Mine(u8),
    /// So many Bitcoin blocks are replaced by one more, with items.
    Reorg(u8),
    /// The branch that was left comes back, longer.
    ComeBack,
    /// The sequencer makes a block; it adopts the next origin if it may.
    Make(bool),
    /// The sequencer promises a transaction.
    Promise,
    /// The derived chain replaces so many soft blocks by one that nobody signed.
    Expire(u8),
}

/// A block as the sequencer signed it.
struct SignedBlock {
    block: L2Block,
    parent: L2Head,
}

/// A sequencer that keeps the rules, and every branch of Bitcoin that it has seen.
struct Honest {
    world: World,
    left: Vec<World>,
    soft: Vec<L2Block>,
    signed: Vec<SignedBlock>,
    promises: Vec<(u64, Vec<u8>)>,
    salt: u8,
}

impl Honest {
    fn new() -> Self {
        let world = World::new(Signers::new([1], 1), Magic::REGTEST);
        let (left, soft, signed, promises) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { world, left, soft, signed, promises, salt: 0 }
    }

    fn live(&mut self, event: Event) {
        match event {
            Event::Mine(items) => self.mine(items),
            Event::Reorg(depth) => {
                let depth = usize::from(depth).min(self.world.blocks.len());
                self.left.push(self.world.clone());
                self.world.disconnect(depth);
                (0..=depth).for_each(|items| self.mine(items as u8 % 2));
            }
            Event::ComeBack => {
                if let Some(world) = self.left.pop() {
                    let height = self.world.tip().height;
                    self.left.insert(0, core::mem::replace(&mut self.world, world));
                    while self.world.tip().height <= height {
                        self.mine(1);
                    }
                }
            }
            Event::Make(advance) => self.make(advance),
            Event::Promise => {
                // Only for numbers for which it has signed nothing: an older block without the transaction
                // would break the promise.
                self.salt += 1;
                let number = self.signed.iter().map(|signed| signed.block.header.number).max().unwrap_or(0) + 1;
                self.promises.push((number, vec![self.salt, 0xbb]));
            }
            Event::Expire(count) => {
                self.follow();
                self.soft.truncate(self.soft.len().saturating_sub(count.into()));
                let (parent, height) = self.head();
                let block = self.world.child(&parent, (height + 1).min(self.world.tip().height), &[]);
                self.soft.push(block);
            }
        }
    }

    fn mine(&mut self, items: u8) {
        let txs: Vec<_> = (0..items)
            .map(|_| {
                self.salt += 1;
                self.world.carry(Carrier::OpReturn, Body::Tx(vec![self.salt, 0xcc]))
            })
            .collect();
        // Every branch is another one.
        self.salt += 1;
        let mut txs = txs;
        (0..self.salt % 3).for_each(|_| txs.push(self.world.plain()));
        self.world.mine(txs);
    }

    fn is_on_best_chain(&self, header: &L2Header) -> bool {
        let origin = header.origin;
        origin.height <= self.world.tip().height && self.world.origin(origin.height).block == origin
    }

    /// Forgets soft blocks whose origin has left the best chain.
    fn follow(&mut self) {
        let kept = self.soft.iter().take_while(|block| self.is_on_best_chain(&block.header)).count();
        self.soft.truncate(kept);
    }

    fn head(&self) -> (L2Head, u32) {
        let head = self.soft.last().map_or(self.world.genesis(), L2Block::head);
        (head, head.header.origin.height)
    }

    fn make(&mut self, advance: bool) {
        self.follow();
        let (parent, parent_height) = self.head();
        let number = parent.header.number + 1;
        let here = |signed: &&SignedBlock| (signed.parent.hash, signed.block.header.number) == (parent.hash, number);
        let earlier: Vec<_> = self.signed.iter().filter(here).collect();
        if let Some(signed) = earlier.iter().find(|signed| self.is_on_best_chain(&signed.block.header)) {
            let again = signed.block.clone();
            self.soft.push(again);
            return;
        }
        let height =
            earlier.first().map_or(parent_height + u32::from(advance), |signed| signed.block.header.origin.height);
        if height > self.world.tip().height {
            return;
        }
        self.salt += 1;
        let own = [self.salt, 0xaa];
        let promised = self.promises.iter().filter(|(of, _)| *of == number).map(|(_, tx)| &tx[..]);
        let own_txs: Vec<_> = promised.chain([&own[..]]).collect();
        let block = self.world.child(&parent, height, &own_txs);
        self.soft.push(block.clone());
        self.signed.push(SignedBlock { block, parent });
    }

    /// A branch that holds a Bitcoin block.
    fn branch_of(&self, block: BlockRef) -> &World {
        let holds = |world: &&World| block.height <= world.tip().height && world.origin(block.height).block == block;
        self.left.iter().chain([&self.world]).find(holds).unwrap()
    }

    fn acquitted(&self, proof: Proof) {
        let file = File { rollup_id: self.world.manifest.rollup_id(), proof };
        let verdict = judge(&file, &Anchors::new(self.world.manifest.clone()));
        assert!(!matches!(verdict, Verdict::Proven(_)), "{:?}: {verdict}", file.proof);
    }

    /// Accuses the sequencer of everything that can be put together from what was signed.
    fn accuse(&self) {
        for (at, first) in self.signed.iter().enumerate() {
            self.signed[..at].iter().for_each(|second| self.accuse_of_equivocation(first, second));
            self.accuse_of_censoring(first);
            for (number, tx) in self.promises.iter().filter(|(number, _)| *number == first.block.header.number) {
                self.accuse_of_breaking(*number, tx, first);
            }
        }
    }

    fn accuse_of_equivocation(&self, first: &SignedBlock, second: &SignedBlock) {
        let (first, second) = (first.block.header, second.block.header);
        let higher = if first.origin.height > second.origin.height { first.origin } else { second.origin };
        let header = (higher.height > START).then(|| Raw(self.branch_of(higher).block(higher.height).header));
        for child_origin in [None, header] {
            let (first, second) = (self.world.sign(&first, [0]), self.world.sign(&second, [0]));
            self.acquitted(Proof::Equivocation(Equivocation { first, second, child_origin }));
        }
    }

    fn accuse_of_censoring(&self, SignedBlock { block, parent }: &SignedBlock) {
        let header = &block.header;
        let world = self.branch_of(header.origin);
        let accuse = |case| {
            let block = self.world.sign(header, [0]);
            self.acquitted(Proof::Censored(Censored { block, parent: SoftHeader(parent.header), case }));
        };
        let origin = (header.origin.height > START).then(|| Raw(world.block(header.origin.height).header));
        accuse(CensoredCase::FalseHeader { origin });
        let leaves: Vec<_> = (0..header.queue_size).map(|index| world.leaf(index, header.queue_size)).collect();
        for pair in leaves.windows(2) {
            accuse(CensoredCase::OutOfOrder { first: pair[0].clone(), second: pair[1].clone() });
        }
        leaves.iter().for_each(|leaf| accuse(CensoredCase::NotExecuted { item: leaf.clone() }));
        for branch in self.left.iter().chain([&self.world]) {
            let top = header.origin.height.min(branch.tip().height);
            for (index, item) in branch.items.iter().enumerate().filter(|(_, item)| item.block.height <= top) {
                let order = QueueLeaf::from(item).order();
                let before = leaves.iter().rev().find(|leaf| leaf.leaf.order() < order).cloned();
                let after = leaves.iter().find(|leaf| leaf.leaf.order() > order).cloned();
                let item = branch.item(index, item.block.height..=top);
                for leaf in leaves.iter().filter(|leaf| leaf.leaf.order() == order) {
                    accuse(CensoredCase::Replaced { item: item.clone(), leaf: leaf.clone() });
                }
                accuse(CensoredCase::LeftOut { item, before, after });
            }
        }
    }

    fn accuse_of_breaking(&self, number: u64, tx: &[u8], SignedBlock { block, parent }: &SignedBlock) {
        let world = self.branch_of(block.header.origin);
        let receipt = Receipt { tx_hash: sha256(tx), first_number: number, last_number: number };
        let without = ReceiptBlock {
            header: self.world.sign(&block.header, [0]),
            own_txs: block.own_txs.iter().cloned().map(RawBytes).collect(),
            forced: world.leaves(block.forced.clone(), block.header.queue_size),
        };
        let receipt = self.world.state(receipt, [0]);
        self.acquitted(Proof::BrokenReceipt(BrokenReceipt {
            receipt,
            parent: SoftHeader(parent.header),
            blocks: vec![without],
        }));
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0u8..3).prop_map(Event::Mine),
        2 => (1u8..4).prop_map(Event::Reorg),
        1 => Just(Event::ComeBack),
        6 => any::<bool>().prop_map(Event::Make),
        1 => Just(Event::Promise),
        1 => (0u8..3).prop_map(Event::Expire),
    ]
}

#[test]
fn bitcoin_that_goes_there_and_back_convicts_nobody() {
    use Event::*;
    let mut honest = Honest::new();
    let (make, next) = (Make(false), Make(true));
    for event in
        [Mine(3), Mine(1), next, next, Promise, make, Reorg(1), next, make, ComeBack, next, make, Reorg(2), next, next]
    {
        honest.live(event);
    }
    let places: Vec<_> = honest.signed.iter().map(|signed| (signed.block.header.number, signed.parent.hash)).collect();
    let twice = places.iter().enumerate().filter(|(at, place)| places[..*at].contains(place)).count();
    assert_eq!(twice, 1, "the run signs a second header for a place: {places:?}");
    honest.accuse();
}

/// A window ran out or a batch was dropped: the derived chain has other blocks there, signed by nobody.
#[test]
fn soft_blocks_that_never_became_derived_convict_nobody() {
    use Event::*;
    let mut honest = Honest::new();
    [Mine(2), Promise, Make(true), Make(false), Mine(1), Make(true)].into_iter().for_each(|event| honest.live(event));
    let signed = honest.signed.len();
    [Expire(3), Expire(0), Mine(0), Expire(0)].into_iter().for_each(|event| honest.live(event));
    assert_eq!(
        (signed, honest.signed.len(), honest.soft.len()),
        (3, 3, 3),
        "three blocks were orphaned by three derived ones"
    );
    honest.accuse();

    let SignedBlock { block: soft, parent } = &honest.signed[0];
    let derived = &honest.soft[0];
    assert_eq!((derived.header.number, derived.header.parent), (soft.header.number, parent.hash));
    let unsigned = honest.world.sign(&derived.header, []);
    let (first, second) = (honest.world.sign(&soft.header, [0]), unsigned.clone());
    honest.acquitted(Proof::Equivocation(Equivocation { first, second, child_origin: None }));
    // The promised transaction is in the signed block 1, and not in the derived one.
    let (number, tx) = &honest.promises[0];
    let receipt = Receipt { tx_hash: sha256(tx), first_number: *number, last_number: *number };
    let forced = honest.world.leaves(derived.forced.clone(), derived.header.queue_size);
    let blocks = vec![ReceiptBlock { header: unsigned, own_txs: Vec::new(), forced }];
    let receipt = honest.world.state(receipt, [0]);
    honest.acquitted(Proof::BrokenReceipt(BrokenReceipt { receipt, parent: SoftHeader(parent.header), blocks }));
}

#[test]
fn the_accuser_of_these_tests_convicts_who_signs_twice_without_a_reorg() {
    let mut dishonest = Honest::new();
    [Event::Mine(1), Event::Make(true)].into_iter().for_each(|event| dishonest.live(event));
    let SignedBlock { parent, .. } = dishonest.signed[0];
    let block = dishonest.world.child(&parent, START + 1, &[b"another"]);
    dishonest.signed.push(SignedBlock { block, parent });
    assert!(std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| dishonest.accuse())).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn an_honest_sequencer_is_never_convicted(events in proptest::collection::vec(event(), 1..24)) {
        let mut honest = Honest::new();
        events.into_iter().for_each(|event| honest.live(event));
        honest.accuse();
    }
}
