//! A small Bitcoin with one rollup on it: mines whole blocks, reorganises, and checks after every step
//! what must hold after every step.

use super::*;
use crate::envelope::tests::blocks;
use crate::envelope::{Carrier, Payload, scan_block};
use crate::manifest::tests::signers::Signers;
use crate::manifest::{ExecutorKind, ExecutorSpec, Fields};
use alloc::rc::Rc;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::p2p::Magic;
use bitcoin::{Transaction, TxOut};

pub(super) const START_HEIGHT: BtcHeight = 100;
pub(super) const START_TIME: u32 = 1_700_000_000;
/// Seconds between blocks, unless a test says otherwise.
pub(super) const SPACING: u32 = 600;

/// A manifest's parameters that tests differ in.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    pub window: u16,
    pub max_lag: u16,
    pub max_forced: u16,
    pub signers: Signers,
    pub executor: ExecutorSpec,
    /// Header times of the start block and its ancestors, oldest first.
    pub times: Vec<u32>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            window: 10,
            max_lag: 3,
            max_forced: 100,
            signers: Signers::new([1, 2, 3], 2),
            executor: ExecutorSpec { kind: ExecutorKind::Opaque, parameters: Vec::new() },
            times: start_times(),
        }
    }
}

/// A payload and how it is carried; every one in a transaction of its own.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub carrier: Carrier,
    pub payload: Vec<u8>,
}

struct Mined {
    raw: Vec<u8>,
    time: u32,
    step: Rc<Step>,
    before: Derivation,
}

pub(super) struct Rig {
    pub manifest: Manifest,
    pub derivation: Derivation,
    /// Who signs; tests change it after a handover.
    pub signers: Signers,
    pub times: Vec<u32>,
    /// Every block ever applied, other branches' too, in order.
    pub raws: Vec<Vec<u8>>,
    active: Vec<Mined>,
    origins: Vec<Origin>,
    salt: u32,
}

/// Header times of the start block and its ten ancestors, oldest first.
pub(super) fn start_times() -> Vec<u32> {
    (0..11).rev().map(|blocks_before| START_TIME - blocks_before * SPACING).collect()
}

impl Rig {
    pub fn new(parameters: Parameters) -> Self {
        let Parameters { window, max_lag, max_forced, signers, executor, times } = parameters;
        let manifest = Manifest::new(Fields {
            name: "rig".into(),
            network: Magic::REGTEST,
            start: BlockRef { height: START_HEIGHT, hash: BlockHash::from_byte_array([0xaa; 32]) },
            sequencing_window: window,
            max_lag,
            max_forced_per_block: max_forced,
            sequencers: signers.set(),
            executor,
            predecessor: None,
        })
        .unwrap();
        let derivation = Derivation::genesis(&manifest, &times);
        let origins = vec![derivation.tip()];
        Self { manifest, derivation, signers, times, raws: Vec::new(), active: Vec::new(), origins, salt: 0 }
    }

    /// The tip's height.
    pub fn height(&self) -> BtcHeight {
        self.derivation.tip().block.height
    }

    pub fn head(&self) -> crate::l2::L2Header {
        self.derivation.head().header
    }

    /// The header time of the next block, unless a test says otherwise.
    pub fn next_time(&self) -> u32 {
        self.active.last().map_or(self.times[self.times.len() - 1], |mined| mined.time) + SPACING
    }

    pub fn envelope(&self, carrier: Carrier, body: Body) -> Envelope {
        let payload = Payload { namespace: self.manifest.rollup_id().namespace(), body };
        Envelope { carrier, payload: payload.encode().unwrap() }
    }

    /// A forced transaction.
    pub fn force(&self, tx: &[u8]) -> Envelope {
        self.envelope(Carrier::OpReturn, Body::Tx(tx.to_vec()))
    }

    pub fn post(&self, batch: &Draft) -> Envelope {
        self.envelope(Carrier::Taproot, Body::Batch(batch.body()))
    }

    /// A batch on the derived head, without blocks yet.
    pub fn draft(&self) -> Draft {
        Draft::new(&self.derivation, &self.manifest, &self.signers, self.next_time())
    }

    pub fn mine(&mut self, envelopes: impl IntoIterator<Item = Envelope>) -> Rc<Step> {
        self.mine_at(self.next_time(), envelopes)
    }

    /// Mines empty blocks until the tip has this height; gives the last one's step.
    pub fn mine_to(&mut self, height: BtcHeight) -> Rc<Step> {
        assert!(self.height() < height);
        loop {
            let step = self.mine([]);
            if self.height() == height {
                return step;
            }
        }
    }

    /// Mines a block with this header time.
    pub fn mine_at(&mut self, time: u32, envelopes: impl IntoIterator<Item = Envelope>) -> Rc<Step> {
        let txs = envelopes.into_iter().map(|Envelope { carrier, payload }| {
            self.salt += 1;
            blocks::carry(carrier, &payload, self.salt)
        });
        let txs = txs.collect();
        self.mine_whole(time, Vec::new(), txs)
    }

    /// Mines a block of these transactions, with these outputs in its coinbase.
    pub fn mine_whole(&mut self, time: u32, coinbase_outputs: Vec<TxOut>, txs: Vec<Transaction>) -> Rc<Step> {
        self.salt += 1;
        let block = blocks::block(self.derivation.tip().block.hash, time, self.salt, coinbase_outputs, txs);
        self.apply(serialize(&block))
    }

    /// Applies a block, and checks what every step promises.
    pub fn apply(&mut self, raw: Vec<u8>) -> Rc<Step> {
        let scanned = scan_block(&raw, Some(self.manifest.rollup_id().namespace())).unwrap();
        let before = self.derivation.clone();
        let step = Rc::new(self.derivation.apply(&scanned.header, &scanned.found).unwrap());
        self.origins.push(step.origin);
        self.check_blocks(&before.head(), &step);
        self.check_state(&before, &step);
        self.raws.push(raw.clone());
        self.active.push(Mined { raw, time: scanned.header.time, step: step.clone(), before });
        step
    }

    /// Disconnects the last blocks; gives their bytes, lowest first.
    pub fn disconnect(&mut self, count: usize) -> Vec<Vec<u8>> {
        let cut = self.active.split_off(self.active.len() - count);
        self.origins.truncate(self.origins.len() - count);
        for mined in cut.iter().rev() {
            self.derivation.revert(mined.step.undo.clone());
            assert_eq!(self.derivation, mined.before, "a reverted step left a trace");
        }
        cut.into_iter().map(|mined| mined.raw).collect()
    }

    /// The bytes of the best chain's blocks, lowest first.
    pub fn best_chain(&self) -> Vec<Vec<u8>> {
        self.active.iter().map(|mined| mined.raw.clone()).collect()
    }

    /// What a node has that starts now and sees the best chain only.
    pub fn clean_run(&self) -> Derivation {
        let mut derivation = Derivation::genesis(&self.manifest, &self.times);
        for Mined { raw, .. } in &self.active {
            let scanned = scan_block(raw, None).unwrap();
            let mine = |found: &Found| found.namespace == self.manifest.rollup_id().namespace();
            let found: Vec<_> = scanned.found.into_iter().filter(mine).collect();
            let _ = derivation.apply(&scanned.header, &found).unwrap();
        }
        derivation
    }

    fn check_blocks(&self, before: &L2Head, step: &Step) {
        let mut parent = *before;
        for block in &step.blocks {
            let (header, above) = (&block.header, &parent.header);
            let origin = &self.origins[(header.origin.height - START_HEIGHT) as usize];
            assert_eq!((header.number, header.parent), (above.number + 1, parent.hash));
            assert!(header.origin.height - above.origin.height <= 1, "the origin goes back or skips");
            assert_eq!(
                (header.origin, header.queue_size, header.queue_root),
                (origin.block, origin.queue_size, origin.queue_root)
            );
            assert!(header.timestamp >= above.timestamp.max(origin.median_time.into()));
            let most = above.forced_end + u64::from(self.manifest.max_forced_per_block);
            assert_eq!(block.forced, above.forced_end..most.min(origin.queue_size), "the forced section is no choice");
            assert_eq!(header.forced_end, block.forced.end);
            assert_eq!(block.hash, header.hash(&self.manifest.rollup_id()));
            parent = block.head();
        }
        assert_eq!(self.derivation.head(), parent);
    }

    fn check_state(&self, before: &Derivation, step: &Step) {
        let head = self.head();
        let window = usize::from(self.manifest.sequencing_window);
        let due = (self.origins.len() - 1).checked_sub(window).map_or(0, |at| self.origins[at].queue_size);
        assert!(head.forced_end >= due, "a due item was not executed");
        for origin in &self.origins[(head.origin.height - START_HEIGHT) as usize..] {
            assert_eq!(self.derivation.origin(origin.block.height), Some(origin), "a later batch needs it");
        }
        // What no later step can ask for is forgotten.
        let next_due = (self.height() + 1).saturating_sub(self.manifest.sequencing_window.into());
        let needed = next_due.min(head.origin.height).max(START_HEIGHT);
        assert_eq!(self.derivation.origin(needed - 1), None);
        assert_eq!(self.derivation.tip(), step.origin);
        assert_eq!(step.first_item + step.items.len() as u64, step.origin.queue_size);

        // A store keeps states and undos as bytes.
        let snapshot = postcard::to_allocvec(&self.derivation.snapshot()).unwrap();
        let mut restored = Derivation::from_snapshot(&self.manifest, postcard::from_bytes(&snapshot).unwrap());
        assert_eq!(restored, self.derivation);
        restored.revert(postcard::from_bytes(&postcard::to_allocvec(&step.undo).unwrap()).unwrap());
        assert_eq!(&restored, before);
    }
}
