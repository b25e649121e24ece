//! What everyone must derive: the judge that a follower or a sequencer under test is held against.

use anyhow::{Context, Result, bail, ensure};
use bitcoin::Block;
use bitcoin::consensus::encode::deserialize;
use sortie::batch::batch_message;
use sortie::chain::BlockSource;
use sortie::derive::{Derivation, MEDIAN_TIME_SPAN, Step, Verdict};
use sortie::envelope::{Body, scan_block};
use sortie::l2::L2Head;
use sortie::manifest::{Manifest, SIGNATURE_ENTRY_LEN};
use sortie::primitives::{BlockRef, BtcHeight, Hash32, L2Number};
use std::collections::BTreeMap;

/// Derives a rollup's chain in memory from a Bitcoin that it believes.
///
/// It keeps every step, executes nothing and writes nothing. Give it the honest source, and the follower
/// under test the hostile one.
pub struct Observer {
    manifest: Manifest,
    derivation: Derivation,
    seen: Vec<Seen>,
}

/// A Bitcoin block and what it did.
pub struct Seen {
    /// Items, verdicts, L2 blocks.
    pub step: Step,
    /// The batches in it, dropped ones too, in order.
    pub batches: Vec<PostedBatch>,
}

/// A batch on Bitcoin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostedBatch {
    /// Its body, signatures included.
    pub body: Vec<u8>,
    /// Number of its first block, as it states it.
    pub first_number: L2Number,
    /// The block that it goes on from, as it states it.
    pub parent: Hash32,
    /// Whether the set that was in force signed it, whatever else is wrong with it.
    pub signed: bool,
    /// What everyone makes of it.
    pub verdict: Verdict,
}

impl Observer {
    /// Begins at the manifest's start block, and follows to the tip.
    ///
    /// # Errors
    /// The source cannot answer, or does not have the start block.
    pub fn new(manifest: Manifest, source: &impl BlockSource) -> Result<Self> {
        let start = manifest.start;
        let shown = source.block_hash(start.height)?;
        ensure!(shown == Some(start.hash), "the start block {start} is not on the source's chain");
        let mut times = Vec::new();
        let mut hash = start.hash;
        for _ in 0..MEDIAN_TIME_SPAN.min(start.height as usize + 1) {
            let header = source.header(&hash)?;
            times.push(header.time);
            hash = header.prev_blockhash;
        }
        times.reverse();
        let derivation = Derivation::genesis(&manifest, &times);
        let mut observer = Self { manifest, derivation, seen: Vec::new() };
        observer.follow(source)?;
        Ok(observer)
    }

    /// Takes back what left the source's chain and applies what joined it.
    ///
    /// # Errors
    /// The source cannot answer, serves bytes that are not the block, or reorganised the start away.
    pub fn follow(&mut self, source: &impl BlockSource) -> Result<()> {
        loop {
            let tip = self.derivation.tip().block;
            if source.block_hash(tip.height)? != Some(tip.hash) {
                let seen = self.seen.pop().context("the start block left the chain")?;
                self.derivation.revert(seen.step.undo);
                continue;
            }
            let Some(hash) = source.block_hash(tip.height + 1)? else { return Ok(()) };
            let raw = source.block(&hash)?;
            let block: Block = deserialize(&raw)?;
            let whole = block.check_merkle_root() && block.check_witness_commitment();
            ensure!(whole && block.block_hash() == hash, "what the source serves is not block {hash}");
            let scanned = scan_block(&raw, Some(self.manifest.rollup_id().namespace()))?;
            let before = self.derivation.clone();
            let step = self.derivation.apply(&scanned.header, &scanned.found)?;
            let bodies = scanned.found.into_iter().filter_map(|found| match found.payload.ok()?.body {
                Body::Batch(body) => Some(body),
                _ => None,
            });
            let batches = step.judged.iter().filter(|judged| judged.kind == 0x10).zip(bodies);
            let batches = batches.map(|(judged, body)| PostedBatch::new(body, judged.verdict, &before)).collect();
            self.seen.push(Seen { step, batches });
        }
    }

    /// The rollup.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The derivation after the last Bitcoin block.
    pub fn derivation(&self) -> &Derivation {
        &self.derivation
    }

    /// The derived head: what a follower under test must have at [`tip`](Self::tip).
    pub fn head(&self) -> L2Head {
        self.derivation.head()
    }

    /// The last Bitcoin block.
    pub fn tip(&self) -> BlockRef {
        self.derivation.tip().block
    }

    /// Every Bitcoin block above the start, in order, with what it did.
    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// Verdicts on the batches and handovers of the last Bitcoin block, in order.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let last = self.seen.last().map(|seen| seen.step.judged.iter().map(|judged| judged.verdict).collect());
        last.unwrap_or_default()
    }

    /// Batches for one parent that differ, though the set signed each: a sequencer under test must never
    /// post such. Each pair is in Bitcoin's order.
    ///
    /// What a reorganisation took away is not seen here: a set may sign again for a parent once the origin
    /// has left the chain.
    pub fn equivocations(&self) -> Vec<(PostedBatch, PostedBatch)> {
        let mut first: BTreeMap<Hash32, &PostedBatch> = BTreeMap::new();
        let mut pairs = Vec::new();
        for batch in self.seen.iter().flat_map(|seen| &seen.batches).filter(|batch| batch.signed) {
            match first.get(&batch.parent) {
                Some(other) if other.body != batch.body => pairs.push(((*other).clone(), batch.clone())),
                Some(_) => {}
                None => drop(first.insert(batch.parent, batch)),
            }
        }
        pairs
    }

    /// Checks the protocol's second guarantee by counting: every item is executed, in order and once, by
    /// the Bitcoin block in which its window closes. Gives the longest wait there was, in Bitcoin blocks.
    ///
    /// # Errors
    /// The first item of which that is not true.
    pub fn check_guarantee(&self) -> Result<BtcHeight> {
        let window = BtcHeight::from(self.manifest.sequencing_window);
        let heights: Vec<_> =
            self.seen.iter().flat_map(|seen| &seen.step.items).map(|item| item.block.height).collect();
        let mut waits = Vec::new();
        for seen in &self.seen {
            let at = seen.step.origin.block.height;
            for index in seen.step.blocks.iter().flat_map(|block| block.forced.clone()) {
                ensure!(index == waits.len() as u64, "item {index} was executed as number {}", waits.len());
                let height = heights.get(waits.len()).with_context(|| format!("item {index} does not exist"))?;
                waits.push(at.checked_sub(*height).with_context(|| format!("item {index} came too early"))?);
            }
        }
        if let Some(late) = waits.iter().position(|wait| *wait > window) {
            bail!("item {late} waited {} blocks, the window is {window}", waits[late]);
        }
        if let Some(height) = heights.get(waits.len()).filter(|height| self.tip().height - **height >= window) {
            bail!("item {} of block {height} is due and not executed", waits.len());
        }
        Ok(waits.into_iter().max().unwrap_or(0))
    }
}

impl PostedBatch {
    fn new(body: Vec<u8>, verdict: Verdict, before: &Derivation) -> Self {
        let (number, rest) = body.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        let parent = rest.first_chunk::<32>().copied().unwrap_or_default();
        let first_number = u64::from_le_bytes(*number);
        Self { first_number, parent: Hash32(parent), signed: is_signed(&body, before), body, verdict }
    }
}

/// Whether the last bytes of a batch's body are signatures of the set in force over those before.
fn is_signed(body: &[u8], derivation: &Derivation) -> bool {
    let set = derivation.sequencers();
    let signatures_len = SIGNATURE_ENTRY_LEN * usize::from(set.threshold());
    body.split_at_checked(body.len().saturating_sub(signatures_len)).is_some_and(|(signed, signatures)| {
        let message = batch_message(&derivation.rules().rollup_id, derivation.handovers(), signed);
        set.verify(message, signatures).is_ok()
    })
}
