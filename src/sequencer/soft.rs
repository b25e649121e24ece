//! The soft chain: what the sequencer has promised beyond the derived head.
//!
//! Guarantees that it always starts at the derived head and holds only blocks whose batch Bitcoin can
//! still accept: their origins are on the best chain, and none with own transactions is stale.

use super::sign::Signer;
use super::store::Waiting;
use super::{HeadView, SequencerError, SequencerStore};
use crate::derive::Derivation;
use crate::executor::{NoOpReason, Outcome, Route, State, execute};
use crate::l2::{L2Block, L2Head, Origin};
use crate::node::{Node, execute_block};
use crate::primitives::Hash32;
use std::collections::{BTreeSet, VecDeque};

/// Most bytes of own transactions in one block: a block always fits a batch.
const MAX_OWN_BYTES: usize = 100_000;

/// A block that is not derived yet.
#[derive(Clone, Debug)]
pub struct SoftBlock {
    /// The block.
    pub block: L2Block,
    /// Commitment to the state after it.
    pub state_root: Hash32,
}

/// The derived head, the soft blocks after it, and the state after them.
pub struct SoftChain {
    base: L2Head,
    base_state_root: Hash32,
    blocks: VecDeque<SoftBlock>,
    state: State,
}

/// What a new block is made with.
pub(super) struct Next<'a> {
    /// Its origin.
    pub origin: &'a Origin,
    /// Its time, seconds since 1970.
    pub timestamp: u64,
    /// Whether waiting transactions go in.
    pub with_own: bool,
}

/// A block's own transactions, and those that were left out.
struct Own {
    taken: Vec<Waiting>,
    txs: Vec<Vec<u8>>,
    rejected: Vec<(i64, NoOpReason)>,
}

/// Whether a block's batch could still be accepted in the next Bitcoin block.
fn is_acceptable(block: &L2Block, derivation: &Derivation, max_lag: u32) -> bool {
    let origin = block.header.origin;
    let on_chain = derivation.origin(origin.height).is_some_and(|known| known.block == origin);
    let next = derivation.tip().block.height + 1;
    on_chain && (block.own_txs.is_empty() || next.saturating_sub(origin.height) <= max_lag)
}

impl SoftChain {
    /// The chain as the two stores hold it.
    pub(super) fn load(node: &Node, store: &mut SequencerStore) -> Result<Self, SequencerError> {
        let derivation = node.derivation();
        let state = node.state().clone();
        let mut chain = Self {
            base: derivation.head(),
            base_state_root: node.executor().state_root(&state),
            blocks: VecDeque::new(),
            state,
        };
        let max_lag = node.manifest().max_lag.into();
        while let Some(block) = store
            .children(&chain.head().hash)?
            .into_iter()
            .map(|stored| stored.block)
            .find(|block| is_acceptable(block, derivation, max_lag))
        {
            let forced = node.store().items(block.forced.clone())?;
            let done = execute_block(node.executor(), &mut chain.state, block, &forced);
            chain.state.take_undo();
            chain.blocks.push_back(SoftBlock { block: done.block, state_root: done.state_root });
        }
        let kept: BTreeSet<Hash32> = chain.blocks.iter().map(|soft| soft.block.hash).collect();
        let mut orphaned = Vec::new();
        for (number, hash) in store.live()? {
            let derived = node.store().block(number)?.is_some_and(|derived| derived.head.hash == hash);
            if !derived && !kept.contains(&hash) {
                orphaned.push(hash);
            }
        }
        let blocks: Vec<_> = chain.blocks.iter().map(|soft| &soft.block).collect();
        store.realign(&orphaned, &blocks)?;
        Ok(chain)
    }

    /// Follows the derived chain. Gives the number of soft blocks that were orphaned.
    pub(super) fn realign(&mut self, node: &Node, store: &mut SequencerStore) -> Result<usize, SequencerError> {
        let derived = node.derivation().head();
        let max_lag = node.manifest().max_lag.into();
        let accepted = if derived == self.base {
            Some(0)
        } else {
            self.blocks.iter().position(|soft| soft.block.hash == derived.hash).map(|index| index + 1)
        };
        let still_good = |soft: &SoftBlock| is_acceptable(&soft.block, node.derivation(), max_lag);
        match accepted {
            Some(accepted) if self.blocks.iter().skip(accepted).all(still_good) => {
                if self.base != derived {
                    self.base = derived;
                    self.base_state_root = node.executor().state_root(node.state());
                }
                self.blocks.drain(..accepted);
                Ok(0)
            }
            _ => {
                let before = std::mem::take(&mut self.blocks);
                *self = Self::load(node, store)?;
                let kept: BTreeSet<Hash32> = self.blocks.iter().map(|soft| soft.block.hash).collect();
                let mut lost = 0;
                for soft in before {
                    let derived = node.store().block(soft.block.header.number)?;
                    let is_derived = derived.is_some_and(|derived| derived.head.hash == soft.block.hash);
                    lost += usize::from(!is_derived && !kept.contains(&soft.block.hash));
                }
                Ok(lost)
            }
        }
    }

    /// Bytes of own transactions that are not derived yet.
    pub fn own_bytes(&self) -> usize {
        self.blocks.iter().flat_map(|soft| &soft.block.own_txs).map(Vec::len).sum()
    }

    /// The unsafe head.
    pub fn head(&self) -> L2Head {
        self.blocks.back().map_or(self.base, |soft| soft.block.head())
    }

    /// The unsafe head, to be shown.
    pub fn head_view(&self) -> HeadView {
        let state_root = self.blocks.back().map_or(self.base_state_root, |soft| soft.state_root);
        HeadView::new(self.head(), state_root)
    }

    /// The derived head, to be shown.
    pub fn base_view(&self) -> HeadView {
        HeadView::new(self.base, self.base_state_root)
    }

    /// The soft blocks after the one with this hash (or after the derived head).
    pub fn after(&self, hash: &Hash32) -> impl Iterator<Item = &SoftBlock> {
        let from = self.blocks.iter().position(|soft| soft.block.hash == *hash).map_or(0, |index| index + 1);
        self.blocks.iter().skip(from)
    }

    /// The soft blocks after the one with the first hash (or after the derived head), up to the one with the second.
    pub fn between(&self, parent: &Hash32, last: &Hash32) -> impl Iterator<Item = &SoftBlock> {
        let count = self.after(parent).position(|soft| soft.block.hash == *last).map_or(0, |index| index + 1);
        self.after(parent).take(count)
    }

    /// The soft block with this hash; else the derived head.
    pub fn head_with(&self, hash: &Hash32) -> L2Head {
        let found = self.blocks.iter().find(|soft| soft.block.hash == *hash);
        found.map_or(self.base, |soft| soft.block.head())
    }

    /// Whether a soft block has this hash.
    pub fn contains(&self, hash: &Hash32) -> bool {
        self.blocks.iter().any(|soft| soft.block.hash == *hash)
    }

    /// Makes the next block at `origin`: the forced section, then waiting transactions if `with_own`.
    ///
    /// `None`, and nothing has changed, if there is nothing to put in and no origin to adopt.
    pub(super) fn make_block(
        &mut self,
        node: &Node,
        store: &mut SequencerStore,
        signer: &Signer,
        next: Next<'_>,
    ) -> Result<Option<SoftBlock>, SequencerError> {
        let Next { origin, timestamp, with_own } = next;
        let parent = self.head();
        let rules = node.derivation().rules();
        let executor = node.executor();
        for queued in node.store().items(rules.forced_section(&parent.header, origin))? {
            execute(executor, &mut self.state, &queued.item.tx, Route::Forced);
        }
        let waiting = if with_own { store.waiting(MAX_OWN_BYTES)? } else { Vec::new() };
        let Own { taken, txs, rejected } = self.take_own(node, waiting);
        let block = rules.child(&parent, origin, timestamp, txs).ok_or(SequencerError::Damaged)?;
        self.state.take_undo();
        if block.forced.is_empty() && block.own_txs.is_empty() && block.header.origin == parent.header.origin {
            store.reject(&rejected)?;
            return Ok(None);
        }
        let soft = SoftBlock { state_root: executor.state_root(&self.state), block };
        let (signed, included) = signer.sign(node.derivation(), store, &soft, &taken)?;
        store.append(&soft.block, signed.as_ref(), &included, &rejected)?;
        self.blocks.push_back(soft.clone());
        Ok(Some(soft))
    }

    /// Executes waiting transactions, oldest first.
    fn take_own(&mut self, node: &Node, waiting: Vec<Waiting>) -> Own {
        let mut own = Own { taken: Vec::new(), txs: Vec::new(), rejected: Vec::new() };
        for waiting in waiting {
            match self.try_own(node, &waiting.tx) {
                Err(reason) if !waiting.owed => own.rejected.push((waiting.seq, reason)),
                _ => {
                    own.txs.push(waiting.tx.clone());
                    own.taken.push(waiting);
                }
            }
        }
        own
    }

    fn try_own(&mut self, node: &Node, tx: &[u8]) -> Result<(), NoOpReason> {
        match execute(node.executor(), &mut self.state, tx, Route::Own) {
            Outcome::Ok => Ok(()),
            Outcome::NoOp(reason) => Err(reason),
        }
    }
}
