//! Derivation over made-up Bitcoin chains: blocks with whatever in them, reorgs, restarts.
//!
//! Every block is held against what must follow from it (section 6.3 of the protocol, written down here a
//! second time), and every way to get to a state against the straight one.

use super::input::Input;
use super::made;
use super::posts::is_judged;
use super::rollup::{
    self, Draft, Parameters, SPACING, START_HEIGHT, START_TIME, Signers, batch_body, genesis, handover_body,
};
use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use sortie::derive::{Derivation, Step, Undo, Verdict};
use sortie::envelope::{Body, Carrier, Found, MAGIC, MIN_SHARED_TX, Payload, scan_block};
use sortie::l2::{L2Block, L2Head, Origin};
use sortie::manifest::Manifest;
use sortie::primitives::BtcHeight;

/// Blocks, reorgs and restarts in one input.
const MAX_EVENTS: usize = 48;

/// Bitcoin blocks with envelopes of every kind, reorgs and restarts, chosen by the bytes.
pub fn derive(data: &[u8]) {
    let mut input = Input::new(data);
    let mut chain = Chain::new(&mut input);
    for _ in 0..MAX_EVENTS {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0..=4 => chain.mine(&mut input),
            5 | 6 => chain.disconnect(input.below(12)),
            _ => chain.restart(),
        }
    }
    chain.check_clean_run();
    chain.disconnect(usize::MAX);
    assert_eq!(chain.derivation, genesis(&chain.manifest));
}

struct Mined {
    header: Header,
    found: Vec<Found>,
    before: Derivation,
    undo: Undo,
}

struct Chain {
    manifest: Manifest,
    derivation: Derivation,
    /// Every set that can ever be in force.
    sets: [Signers; 3],
    mined: Vec<Mined>,
    /// Of the best chain, the start block's first.
    origins: Vec<Origin>,
    salt: u32,
}

/// What stands in a Bitcoin block and what is to become of it, as far as that is known.
struct Plan {
    envelopes: Vec<(Carrier, Vec<u8>)>,
    verdicts: Vec<Option<Verdict>>,
    /// The accepted blocks, unless there was something of which nobody knows whether it counts.
    blocks: Option<Vec<L2Block>>,
    draft: Draft,
}

impl Chain {
    fn new(input: &mut Input<'_>) -> Self {
        let sets = [Signers::new([1], 1), Signers::new([2, 3, 4], 2), Signers::new([1, 5], 2)];
        let window = 2 + input.byte() % 8;
        let manifest = rollup::manifest(Parameters {
            start_height: [START_HEIGHT, 0, 1, 7][input.below(4)],
            window: window.into(),
            max_lag: u16::from(1 + input.byte() % window),
            max_forced: u16::from(1 + input.byte() % 8),
            sequencers: sets[input.below(sets.len())].set(),
        });
        let derivation = genesis(&manifest);
        let origins = vec![derivation.tip()];
        Self { manifest, derivation, sets, mined: Vec::new(), origins, salt: 0 }
    }

    /// What the Bitcoin block at a height contributes.
    fn at(&self, height: BtcHeight) -> &Origin {
        &self.origins[(height - self.manifest.start.height) as usize]
    }

    fn signers(&self) -> &Signers {
        let in_force = |set: &&Signers| set.set() == *self.derivation.sequencers();
        self.sets.iter().find(in_force).expect("nobody else can sign")
    }

    fn next_time(&self, input: &mut Input<'_>) -> u32 {
        let last = self.mined.last().map_or(START_TIME, |mined| mined.header.time);
        last.saturating_add(SPACING).saturating_add_signed(i32::from(input.i16()))
    }

    fn mine(&mut self, input: &mut Input<'_>) {
        let time = self.next_time(input);
        let mut plan = Plan {
            envelopes: Vec::new(),
            verdicts: Vec::new(),
            blocks: Some(Vec::new()),
            draft: Draft::new(self.derivation.head()),
        };
        let mut handed_over = false;
        for _ in 0..input.below(6) {
            let carrier = if input.flip() { Carrier::Taproot } else { Carrier::OpReturn };
            let body = match input.below(8) {
                0 | 1 => Body::Tx(input.some_bytes()),
                2 => Body::Txs(vec![vec![input.byte(); MIN_SHARED_TX + input.below(3)]; 1 + input.below(4)]),
                3 | 4 => Body::Batch(self.sound_batch(input, time, &mut plan)),
                5 => Body::Batch(self.other_batch(input, time, &mut plan)),
                6 => {
                    let next = &self.sets[input.below(self.sets.len())];
                    let (id, seq) = (self.manifest.rollup_id(), self.derivation.handovers());
                    plan.verdicts.push((!handed_over).then_some(Verdict::Accept));
                    handed_over = true;
                    Body::Handover(handover_body(&id, seq, self.signers(), &next.set()))
                }
                _ => {
                    plan.envelopes.push((carrier, self.garbage(input, &mut plan.verdicts)));
                    continue;
                }
            };
            let payload = Payload { namespace: self.manifest.rollup_id().namespace(), body };
            plan.envelopes.push((carrier, payload.encode().expect("a body of a payload")));
        }
        self.apply(time, plan);
    }

    /// A payload of any kind and namespace; nobody's signature is in it.
    fn garbage(&self, input: &mut Input<'_>, verdicts: &mut Vec<Option<Verdict>>) -> Vec<u8> {
        let mut namespace = self.manifest.rollup_id().namespace();
        namespace.0[0] ^= u8::from(input.below(8) == 0);
        let kind = [0x10, 0x11, 0x02, 0x00][input.below(4)];
        let payload = [&MAGIC[..], &namespace.0, &[kind], &input.some_bytes()].concat();
        if is_judged(kind) && namespace == self.manifest.rollup_id().namespace() {
            verdicts.push(None);
        }
        payload
    }

    /// Blocks that the rules allow.
    fn draft(&self, input: &mut Input<'_>, time: u32, mut draft: Draft) -> Draft {
        let carrier_height = self.derivation.tip().block.height + 1;
        for _ in 0..1 + input.below(4) {
            let advances = input.flip() && draft.next_origin(&self.derivation, true).is_some();
            let origin = draft.next_origin(&self.derivation, advances).expect("not above the tip");
            let lower_bound = draft.head.header.child_lower_bound(&origin);
            let room = (u64::from(time) + 7200).saturating_sub(lower_bound);
            let fresh = carrier_height - origin.block.height <= u32::from(self.manifest.max_lag);
            let txs = (0..input.below(3)).map(|_| input.some_bytes()).filter(|_| fresh).collect();
            draft = draft.block(&self.derivation, advances, u64::from(input.byte()).min(room), txs);
        }
        draft
    }

    fn sound_batch(&self, input: &mut Input<'_>, time: u32, plan: &mut Plan) -> Vec<u8> {
        let draft = self.draft(input, time, Draft::new(plan.draft.head));
        let deflated = miniz_oxide::deflate::compress_to_vec(&draft.data(), 6);
        let (codec, data) = if input.flip() { (1, deflated) } else { (0, draft.data()) };
        let (id, handovers) = (self.manifest.rollup_id(), self.derivation.handovers());
        plan.verdicts.push(plan.blocks.is_some().then_some(Verdict::Accept));
        if let Some(blocks) = &mut plan.blocks {
            blocks.extend(self.blocks(plan.draft.head, &draft));
        }
        plan.draft = draft.clone();
        batch_body(&id, handovers, self.signers(), &draft.terms, codec, &data)
    }

    /// A batch that is changed before or after it is signed.
    fn other_batch(&self, input: &mut Input<'_>, time: u32, plan: &mut Plan) -> Vec<u8> {
        let mut draft = self.draft(input, time, Draft::new(plan.draft.head));
        plan.verdicts.push(None);
        plan.blocks = None;
        match input.below(6) {
            0 => draft.terms.first_number = input.u64(),
            1 => draft.terms.parent.0[input.below(32)] ^= 1,
            2 => draft.terms.last_origin.height = draft.terms.last_origin.height.wrapping_add(input.byte().into()),
            3 => draft.blocks[0].seconds = input.u64(),
            4 => draft.blocks[0].advances ^= true,
            _ => {}
        }
        let (id, handovers) = (self.manifest.rollup_id(), self.derivation.handovers());
        let mut body = batch_body(&id, handovers, self.signers(), &draft.terms, input.byte() % 3, &draft.data());
        if input.flip() {
            let at = usize::try_from(input.u64() % body.len() as u64).expect("below a length");
            body[at] ^= input.byte();
        }
        body
    }

    /// The blocks that a draft states.
    fn blocks(&self, mut parent: L2Head, draft: &Draft) -> Vec<L2Block> {
        let blocks = draft.blocks.iter().map(|stated| {
            let height = parent.header.origin.height + u32::from(stated.advances);
            let timestamp = parent.header.timestamp + stated.seconds;
            let block = self.child(&parent, height, timestamp, stated.txs.clone());
            parent = block.head();
            block
        });
        blocks.collect()
    }

    fn child(&self, parent: &L2Head, height: BtcHeight, timestamp: u64, txs: Vec<Vec<u8>>) -> L2Block {
        let origin = self.at(height);
        self.derivation.rules().child(parent, origin, timestamp, txs).expect("a small number")
    }

    fn apply(&mut self, time: u32, plan: Plan) {
        let txs = plan.envelopes.iter().map(|(carrier, payload)| {
            self.salt += 1;
            made::carry(*carrier, payload, self.salt)
        });
        let txs = txs.collect();
        self.salt += 1;
        let raw = serialize(&made::block(self.derivation.tip().block.hash, time, self.salt, txs));
        let scanned = scan_block(&raw, Some(self.manifest.rollup_id().namespace())).expect("a whole block");
        let before = self.derivation.clone();
        let step = self.derivation.apply(&scanned.header, &scanned.found).expect("a child of the tip");
        self.origins.push(step.origin);
        self.check_verdicts(&plan, &step);
        self.check_blocks(before.head(), &step.blocks);
        self.check_due();
        if let Some(blocks) = plan.blocks {
            assert_eq!(step.blocks.get(..blocks.len()), Some(&blocks[..]), "accepted as it was built");
            let head = blocks.last().map_or(before.head(), L2Block::head);
            assert_eq!(step.blocks[blocks.len()..], self.forced_only(head), "step 2");
        }
        self.mined.push(Mined { header: scanned.header, found: scanned.found, before, undo: step.undo });
    }

    fn check_verdicts(&self, plan: &Plan, step: &Step) {
        assert_eq!(step.judged.len(), plan.verdicts.len());
        for (judged, expected) in step.judged.iter().zip(&plan.verdicts) {
            assert!(expected.is_none_or(|expected| expected == judged.verdict), "{judged:?}, expected {expected:?}");
        }
        let last = self.origins.len() - 1;
        assert_eq!(step.first_item, self.origins[last - 1].queue_size);
        assert_eq!(step.first_item + step.items.len() as u64, step.origin.queue_size);
    }

    /// Section 5, for every block whoever made it.
    fn check_blocks(&self, mut parent: L2Head, blocks: &[L2Block]) {
        for block in blocks {
            let (header, above) = (&block.header, &parent.header);
            assert!((0..=1).contains(&(i64::from(header.origin.height) - i64::from(above.origin.height))));
            let expected = self.child(&parent, header.origin.height, header.timestamp, block.own_txs.clone());
            assert_eq!(*block, expected);
            let origin = self.at(header.origin.height);
            assert!(header.timestamp >= above.timestamp.max(origin.median_time.into()));
            let most = above.forced_end + u64::from(self.manifest.max_forced_per_block);
            assert_eq!(header.forced_end, most.min(origin.queue_size), "the forced section is no choice");
            parent = block.head();
        }
        assert_eq!(self.derivation.head(), parent);
    }

    /// `queue_size(c - sequencing_window)`, 0 at the start and below it.
    fn due(&self) -> u64 {
        let above_start = (self.origins.len() - 1).checked_sub(self.manifest.sequencing_window.into());
        above_start.map_or(0, |at| self.origins[at].queue_size)
    }

    fn check_due(&self) {
        let head = self.derivation.head().header;
        assert!(head.forced_end >= self.due(), "a due item was not executed");
        for origin in self.origins.iter().filter(|origin| origin.block.height >= head.origin.height) {
            assert_eq!(self.derivation.origin(origin.block.height), Some(origin), "a later batch needs it");
        }
    }

    /// Step 2, read from the protocol.
    fn forced_only(&self, mut head: L2Head) -> Vec<L2Block> {
        let window = u32::from(self.manifest.sequencing_window);
        let c = self.derivation.tip().block.height;
        let mut blocks = Vec::new();
        if head.header.origin.height + 1 + window > c && head.header.forced_end >= self.due() {
            return blocks;
        }
        loop {
            let height = head.header.origin.height;
            let executed = head.header.forced_end == self.at(height).queue_size;
            if height >= c - window / 2 && executed {
                return blocks;
            }
            let height = if executed { height + 1 } else { height };
            let origin = self.at(height);
            let block = self.child(&head, height, head.header.child_lower_bound(origin), Vec::new());
            head = block.head();
            blocks.push(block);
        }
    }

    /// Takes back the last blocks, one by one.
    fn disconnect(&mut self, count: usize) {
        for _ in 0..count.min(self.mined.len()) {
            let Some(mined) = self.mined.pop() else { return };
            self.origins.pop();
            self.derivation.revert(mined.undo);
            assert_eq!(self.derivation, mined.before, "a reverted step left a trace");
        }
    }

    /// Stops and goes on from what a store kept.
    fn restart(&mut self) {
        let bytes = postcard::to_allocvec(&self.derivation.snapshot()).expect("plain data");
        let snapshot = postcard::from_bytes(&bytes).expect("what was written");
        let restored = Derivation::from_snapshot(&self.manifest, snapshot);
        assert_eq!(restored, self.derivation);
        self.derivation = restored;
        for mined in &mut self.mined {
            let bytes = postcard::to_allocvec(&mined.undo).expect("plain data");
            mined.undo = postcard::from_bytes(&bytes).expect("what was written");
        }
    }

    /// A node that starts now and sees the best chain only has the same state.
    fn check_clean_run(&self) {
        let mut derivation = genesis(&self.manifest);
        for Mined { header, found, .. } in &self.mined {
            let _ = derivation.apply(header, found).expect("a child of the tip");
        }
        assert_eq!(derivation, self.derivation);
    }
}
