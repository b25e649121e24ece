//! `tests/vectors/derivation.json`: whole Bitcoin blocks in, the L2 chain out.

use super::*;
use crate::envelope::scan_block;
use crate::envelope::tests::vector_file::{Hex, cases};
use crate::executor::{self, Executor, Outcome, Route, StateUndo, execute};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

extern crate std;

#[derive(Serialize, Deserialize)]
struct Case {
    name: String,
    manifest: Hex,
    ancestor_times: Vec<u32>,
    start_time: u32,
    blocks: Vec<RawBlock>,
    expect: Vec<Expect>,
}

#[derive(Serialize, Deserialize)]
struct RawBlock {
    raw: Hex,
}

/// What is there after a Bitcoin block, and what came with it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Expect {
    height: BtcHeight,
    queue_size: u64,
    pub queue_root: Hash32,
    verdicts: Vec<String>,
    pub new_blocks: Vec<Hash32>,
    /// Of the new blocks' transactions, in order; none without an executor.
    pub outcomes: Vec<String>,
    head_number: u64,
    head_hash: Hash32,
    pub state_root: Option<Hash32>,
}

impl Case {
    fn node(&self) -> Node {
        let times = [&self.ancestor_times[..], &[self.start_time]].concat();
        Node::start(Manifest::decode(&self.manifest.0).unwrap(), &times)
    }
}

/// A node in small: derives, executes, and rolls back when a block's parent is not its tip.
pub(super) struct Node {
    manifest: Manifest,
    pub derivation: Derivation,
    executor: Option<(Box<dyn Executor>, executor::State)>,
    pub items: Vec<Item>,
    applied: Vec<(Undo, usize, StateUndo)>,
}

impl Node {
    pub fn start(manifest: Manifest, times: &[u32]) -> Self {
        let executor = executor::of_manifest(&manifest).ok().map(|executor| {
            let state = executor.genesis();
            (executor, state)
        });
        let derivation = Derivation::genesis(&manifest, times);
        Self { manifest, derivation, executor, items: Vec::new(), applied: Vec::new() }
    }

    pub fn see(&mut self, raw: &[u8]) -> Expect {
        let scanned = scan_block(raw, Some(self.manifest.rollup_id().namespace())).unwrap();
        while self.derivation.tip().block.hash != scanned.header.prev_blockhash {
            self.roll_back();
        }
        let step = self.derivation.apply(&scanned.header, &scanned.found).unwrap();
        let item_count = self.items.len();
        self.items.extend(step.items.iter().cloned());
        let outcomes = step.blocks.iter().flat_map(|block| self.execute(block)).collect();
        let state_undo = self.executor.as_mut().map(|(_, state)| state.take_undo()).unwrap_or_default();
        let head = self.derivation.head();
        let expect = Expect {
            height: step.origin.block.height,
            queue_size: step.origin.queue_size,
            queue_root: step.origin.queue_root,
            verdicts: verdicts(&step).into_iter().map(verdict_name).collect(),
            new_blocks: step.blocks.iter().map(|block| block.hash).collect(),
            outcomes,
            head_number: head.header.number,
            head_hash: head.hash,
            state_root: self.executor.as_ref().map(|(executor, state)| executor.state_root(state)),
        };
        self.applied.push((step.undo, item_count, state_undo));
        expect
    }

    fn execute(&mut self, block: &L2Block) -> Vec<String> {
        let Some((executor, state)) = &mut self.executor else { return Vec::new() };
        let forced = self.items[block.forced.start as usize..block.forced.end as usize].iter();
        let forced = forced.map(|item| (&item.tx, Route::Forced));
        let own = block.own_txs.iter().map(|tx| (tx, Route::Own));
        forced.chain(own).map(|(tx, route)| outcome_name(execute(&**executor, state, tx, route))).collect()
    }

    fn roll_back(&mut self) {
        let (undo, item_count, state_undo) = self.applied.pop().expect("a block whose parent was never seen");
        self.derivation.revert(undo);
        self.items.truncate(item_count);
        if let Some((_, state)) = &mut self.executor {
            state.revert(state_undo);
        }
    }
}

fn verdict_name(verdict: Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".into(),
        Verdict::Drop(reason) => alloc::format!("{reason:?}"),
    }
}

fn outcome_name(outcome: Outcome) -> String {
    match outcome {
        Outcome::Ok => "ok".into(),
        Outcome::NoOp(reason) => reason.name().into(),
    }
}

fn generate() -> Vec<Case> {
    let case = |(name, rig): (String, Rig)| {
        let (start_time, ancestor_times) = rig.times.split_last().unwrap();
        let mut case = Case {
            name,
            manifest: Hex(rig.manifest.encode()),
            ancestor_times: ancestor_times.to_vec(),
            start_time: *start_time,
            blocks: rig.raws.iter().map(|raw| RawBlock { raw: Hex(raw.clone()) }).collect(),
            expect: Vec::new(),
        };
        let mut node = case.node();
        case.expect = case.blocks.iter().map(|block| node.see(&block.raw.0)).collect();
        case
    };
    scenarios::all().into_iter().map(case).collect()
}

#[test]
fn the_vectors_hold() {
    let mut seen = BTreeSet::new();
    for case in cases("derivation.json", generate) {
        let mut node = case.node();
        assert_eq!(case.blocks.len(), case.expect.len(), "{}", case.name);
        for (i, (block, expect)) in case.blocks.iter().zip(&case.expect).enumerate() {
            assert_eq!(&node.see(&block.raw.0), expect, "{}, block {i}", case.name);
            seen.extend(expect.verdicts.iter().cloned());
        }
    }
    let reasons = verdicts::ALL_REASONS.iter().map(|reason| alloc::format!("{reason:?}"));
    let every = reasons.chain(["accept".to_string()]).collect();
    assert_eq!(seen, every, "the vectors have every verdict");
}
