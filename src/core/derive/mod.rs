//! From Bitcoin blocks to the canonical L2 chain (specification, section 6).
//!
//! Guarantees: the state after a Bitcoin block is a pure function of the manifest and of the Bitcoin
//! chain up to it; [`Derivation::revert`] of what [`Derivation::apply`] gave restores the state before,
//! to the bit. No clock, no executor, no memory of another branch. What is missing or unreadable is not
//! handed in: the caller stops before that block and retries.

mod judge;

use judge::Budget;

pub use judge::{DropReason, MAX_FUTURE_SECONDS, Verdict};

use crate::envelope::{Body, Found};
use crate::l2::{BlockRules, L2Block, L2Head, Origin};
use crate::manifest::{Manifest, SequencerSet};
use crate::merkle::CompactRange;
use crate::primitives::{BlockRef, BtcHeight};
use crate::queue::{Item, Place, items_of};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// Block times that a median is taken over, the block's own among them.
pub const MEDIAN_TIME_SPAN: usize = 11;

/// A Bitcoin block that does not follow the last one applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a child of Bitcoin block {expected} was expected, got a child of {got}")]
pub struct NotChild {
    /// The last block applied.
    pub expected: BlockHash,
    /// The parent of the block at hand.
    pub got: BlockHash,
}

/// The derived chain's head and everything that decides how it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    rules: BlockRules,
    window: u32,
    max_lag: u32,
    state: State,
    /// Bitcoin blocks from the head's origin or the last due height, whichever is lower, to the tip.
    origins: VecDeque<Origin>,
}

/// The part of the state that a step replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    head: L2Head,
    queue: CompactRange,
    /// Header times of the last Bitcoin blocks, oldest first, at most [`MEDIAN_TIME_SPAN`].
    times: Vec<u32>,
    set: SequencerSet,
    /// Handovers in force.
    handovers: u32,
}

/// A batch or handover and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Where its envelope stands.
    pub place: Place,
    /// 0x10 batch, 0x11 handover.
    pub kind: u8,
    /// The verdict.
    pub verdict: Verdict,
}

impl Judged {
    /// `batch` or `handover`.
    pub fn name(&self) -> &'static str {
        if self.kind == 0x11 { "handover" } else { "batch" }
    }
}

/// What one Bitcoin block did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "without the undo the step cannot be reverted"]
pub struct Step {
    /// The Bitcoin block.
    pub origin: Origin,
    /// Items that joined the queue, in order; the first has index `first_item`.
    pub items: Vec<Item>,
    /// Index of the first of the items.
    pub first_item: u64,
    /// Verdicts on batches and handovers, in order.
    pub judged: Vec<Judged>,
    /// L2 blocks that joined the chain, in order.
    pub blocks: Vec<L2Block>,
    /// What [`Derivation::revert`] needs.
    pub undo: Undo,
}

/// The state before a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    before: State,
    pruned: Vec<Origin>,
}

/// A [`Derivation`] as data: what a store keeps, beside the manifest, to go on later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    state: State,
    #[serde(deserialize_with = "in_a_row")]
    origins: Vec<Origin>,
}

/// Origins as a derivation keeps them: one or more, at consecutive heights.
fn in_a_row<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Origin>, D::Error> {
    let origins = Vec::<Origin>::deserialize(deserializer)?;
    let follows = |(a, b): (&Origin, &Origin)| a.block.height.checked_add(1) == Some(b.block.height);
    match origins.iter().zip(origins.iter().skip(1)).all(follows) && !origins.is_empty() {
        true => Ok(origins),
        false => Err(D::Error::custom("a snapshot needs Bitcoin blocks in a row")),
    }
}

impl Derivation {
    /// The state at the manifest's start block.
    ///
    /// `times` are the header times of the start block and up to ten ancestors, oldest first.
    pub fn genesis(manifest: &Manifest, times: &[u32]) -> Self {
        let rules = block_rules(manifest);
        let times = times[times.len().saturating_sub(MEDIAN_TIME_SPAN)..].to_vec();
        let median_time = median(&times);
        let genesis = rules.genesis(manifest.start, median_time);
        let origin =
            Origin { block: manifest.start, median_time, queue_size: 0, queue_root: genesis.header.queue_root };
        let state = State {
            head: genesis.head(),
            queue: CompactRange::default(),
            times,
            set: manifest.sequencers.clone(),
            handovers: 0,
        };
        Self::from_snapshot(manifest, Snapshot { state, origins: [origin].into() })
    }

    /// Takes up a state that [`snapshot`](Self::snapshot) gave, for the same manifest.
    pub fn from_snapshot(manifest: &Manifest, snapshot: Snapshot) -> Self {
        Self {
            rules: block_rules(manifest),
            window: manifest.sequencing_window.into(),
            max_lag: manifest.max_lag.into(),
            state: snapshot.state,
            origins: snapshot.origins.into(),
        }
    }

    /// The state as data.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { state: self.state.clone(), origins: self.origins.iter().copied().collect() }
    }

    /// The derived head.
    pub fn head(&self) -> L2Head {
        self.state.head
    }

    /// The last Bitcoin block applied.
    pub fn tip(&self) -> Origin {
        // There is always one: the start block, or what `apply` pushed last.
        self.origins.back().copied().unwrap_or_else(|| unreachable!("a derivation without origins"))
    }

    /// What the block at `height` contributes, if it is between the head's origin and the tip.
    pub fn origin(&self, height: BtcHeight) -> Option<&Origin> {
        let first = self.origins.front()?.block.height;
        self.origins.get(usize::try_from(height.checked_sub(first)?).ok()?)
    }

    /// The rules that blocks are made by.
    pub fn rules(&self) -> &BlockRules {
        &self.rules
    }

    /// The sequencer set in force.
    pub fn sequencers(&self) -> &SequencerSet {
        &self.state.set
    }

    /// Handovers in force.
    pub fn handovers(&self) -> u32 {
        self.state.handovers
    }

    /// Applies the next Bitcoin block with the envelopes found in it, in Bitcoin order.
    ///
    /// # Errors
    /// [`NotChild`], and nothing has changed.
    pub fn apply(&mut self, header: &Header, found: &[Found]) -> Result<Step, NotChild> {
        let tip = self.tip();
        if header.prev_blockhash != tip.block.hash {
            return Err(NotChild { expected: tip.block.hash, got: header.prev_blockhash });
        }
        let before = self.state.clone();
        let block = BlockRef { height: tip.block.height + 1, hash: header.block_hash() };
        let items = items_of(block, found);
        let origin = self.push_origin(block, header.time, &items);
        let mut step = Step {
            origin,
            first_item: before.queue.size(),
            items,
            judged: Vec::new(),
            blocks: Vec::new(),
            undo: Undo { before, pruned: Vec::new() },
        };
        let next_set = self.judge_all(header.time, found, &mut step);
        self.append_forced_only(&mut step.blocks);
        if let Some(set) = next_set {
            self.state.set = set;
            self.state.handovers += 1;
        }
        assert!(self.state.head.header.forced_end >= self.due(), "a due item was not executed");
        step.undo.pruned = self.prune();
        Ok(step)
    }

    /// Takes back the last step.
    pub fn revert(&mut self, undo: Undo) {
        self.origins.pop_back();
        for origin in undo.pruned.into_iter().rev() {
            self.origins.push_front(origin);
        }
        self.state = undo.before;
    }

    fn push_origin(&mut self, block: BlockRef, time: u32, items: &[Item]) -> Origin {
        for item in items {
            self.state.queue.push(&item.leaf());
        }
        if self.state.times.len() == MEDIAN_TIME_SPAN {
            self.state.times.remove(0);
        }
        self.state.times.push(time);
        let origin = Origin {
            block,
            median_time: median(&self.state.times),
            queue_size: self.state.queue.size(),
            queue_root: self.state.queue.root(),
        };
        self.origins.push_back(origin);
        origin
    }

    /// Judges batches and handovers; gives the set that is in force from the next Bitcoin block on.
    fn judge_all(&mut self, time: u32, found: &[Found], step: &mut Step) -> Option<SequencerSet> {
        let mut next_set = None;
        let mut budget = Budget::new();
        for found in found {
            let Ok(payload) = &found.payload else { continue };
            let outcome = match &payload.body {
                Body::Batch(body) => {
                    self.judge_batch(body, time, &mut budget).map(|blocks| self.extend(blocks, &mut step.blocks))
                }
                Body::Handover(body) => self.judge_handover(body, next_set.is_some()).map(|set| next_set = Some(set)),
                Body::Tx(_) | Body::Txs(_) | Body::Unsupported(..) => continue,
            };
            let verdict = match outcome {
                Ok(()) => Verdict::Accept,
                Err(reason) => Verdict::Drop(reason),
            };
            step.judged.push(Judged { place: found.place(0), kind: payload.body.kind(), verdict });
        }
        next_set
    }

    fn extend(&mut self, blocks: Vec<L2Block>, chain: &mut Vec<L2Block>) {
        if let Some(last) = blocks.last() {
            self.state.head = last.head();
        }
        chain.extend(blocks);
    }

    /// Number of items whose window has closed at the tip.
    fn due(&self) -> u64 {
        let height = self.tip().block.height.checked_sub(self.window);
        height.and_then(|height| self.origin(height)).map_or(0, |origin| origin.queue_size)
    }

    /// Goes on without the sequencer where the head's origin or an item is overdue.
    fn append_forced_only(&mut self, chain: &mut Vec<L2Block>) {
        let tip = self.tip().block.height;
        let head = &self.state.head.header;
        let origin_overdue = u64::from(head.origin.height) + 1 + u64::from(self.window) <= u64::from(tip);
        if !origin_overdue && head.forced_end >= self.due() {
            return;
        }
        let target = tip.saturating_sub(self.window / 2);
        while let Some(origin) = self.next_forced_only_origin(target) {
            let timestamp = self.state.head.header.child_lower_bound(&origin);
            let Some(block) = self.rules.child(&self.head(), &origin, timestamp, Vec::new()) else { return };
            self.extend(Vec::from([block]), chain);
        }
    }

    /// The origin of the next forced-only block, or `None` if the chain has caught up with `target`.
    fn next_forced_only_origin(&self, target: BtcHeight) -> Option<Origin> {
        let head = &self.state.head.header;
        let current = self.origin(head.origin.height)?;
        if head.forced_end < current.queue_size {
            return Some(*current);
        }
        let next = self.origin(head.origin.height + 1)?;
        (head.origin.height < target).then_some(*next)
    }

    /// Forgets Bitcoin blocks that no later step can ask for; gives them, oldest first.
    fn prune(&mut self) -> Vec<Origin> {
        let next_due = (self.tip().block.height + 1).saturating_sub(self.window);
        let keep = next_due.min(self.state.head.header.origin.height);
        let mut pruned = Vec::new();
        while self.origins.front().is_some_and(|origin| origin.block.height < keep) {
            pruned.extend(self.origins.pop_front());
        }
        pruned
    }
}

fn block_rules(manifest: &Manifest) -> BlockRules {
    BlockRules { rollup_id: manifest.rollup_id(), max_forced_per_block: manifest.max_forced_per_block.into() }
}

/// The element at floor(n/2) of the sorted times, as Bitcoin Core takes its `mediantime`.
fn median(times: &[u32]) -> u32 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
