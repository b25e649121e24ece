//! A node in small: derives, executes, and rolls back when a block's parent is not its tip.

use serde_json::{Value, json};
use sortie::derive::{Derivation, Undo};
use sortie::envelope::scan_block;
use sortie::executor::{self, Executor, Outcome, Route, State, StateUndo, execute};
use sortie::l2::L2Block;
use sortie::manifest::Manifest;
use sortie::queue::Item;
use std::sync::Arc;

#[derive(Clone)]
pub struct Node {
    pub manifest: Manifest,
    pub derivation: Derivation,
    executor: Arc<dyn Executor>,
    state: State,
    items: Vec<Item>,
    applied: Vec<(Undo, usize, StateUndo)>,
}

impl Node {
    pub fn start(manifest: Manifest, times: &[u32]) -> Self {
        let executor: Arc<dyn Executor> = executor::of_manifest(&manifest).expect("an executor that we have").into();
        let derivation = Derivation::genesis(&manifest, times);
        Self { derivation, state: executor.genesis(), executor, items: Vec::new(), applied: Vec::new(), manifest }
    }

    /// How many blocks can be rolled back.
    pub fn depth(&self) -> usize {
        self.applied.len()
    }

    /// Takes a block in; gives what is there after it, and what came with it.
    pub fn see(&mut self, raw: &[u8]) -> Value {
        let scanned = scan_block(raw, Some(self.manifest.rollup_id().namespace())).expect("a whole block");
        while self.derivation.tip().block.hash != scanned.header.prev_blockhash {
            self.roll_back();
        }
        let step = self.derivation.apply(&scanned.header, &scanned.found).expect("a child of the tip");
        let item_count = self.items.len();
        self.items.extend(step.items.iter().cloned());
        let outcomes: Vec<_> = step.blocks.iter().flat_map(|block| self.execute(block)).collect();
        let head = self.derivation.head();
        let verdicts = step.judged.iter().map(|judged| match judged.verdict {
            sortie::derive::Verdict::Accept => "accept".to_string(),
            sortie::derive::Verdict::Drop(reason) => format!("{reason:?}"),
        });
        let seen = json!({
            "height": step.origin.block.height,
            "queue_size": step.origin.queue_size,
            "queue_root": step.origin.queue_root,
            "verdicts": verdicts.collect::<Vec<_>>(),
            "new_blocks": step.blocks.iter().map(|block| block.hash).collect::<Vec<_>>(),
            "outcomes": outcomes,
            "head_number": head.header.number,
            "head_hash": head.hash,
            "state_root": self.executor.state_root(&self.state),
        });
        self.applied.push((step.undo, item_count, self.state.take_undo()));
        seen
    }

    fn execute(&mut self, block: &L2Block) -> Vec<&'static str> {
        let forced = self.items[block.forced.start as usize..block.forced.end as usize].iter();
        let forced = forced.map(|item| (&item.tx, Route::Forced));
        let own = block.own_txs.iter().map(|tx| (tx, Route::Own));
        let (executor, state) = (&*self.executor, &mut self.state);
        let outcomes = forced.chain(own).map(|(tx, route)| match execute(executor, state, tx, route) {
            Outcome::Ok => "ok",
            Outcome::NoOp(reason) => reason.name(),
        });
        outcomes.collect()
    }

    pub fn roll_back(&mut self) {
        let (undo, item_count, state_undo) = self.applied.pop().expect("a block that was seen");
        self.derivation.revert(undo);
        self.items.truncate(item_count);
        self.state.revert(state_undo);
    }
}
