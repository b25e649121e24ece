//! The soft chain: what the sequencer has promised beyond the derived head.
//!
//! Guarantees that it always starts at the derived head and holds only blocks whose batch Bitcoin can
//! still accept: their origins are on the best chain, and none with own transactions is stale.

use super::admission::{Price, Used, choose};
use super::history::Turn;
use super::sign::Signer;
use super::store::Waiting;
use super::{SequencerError, SequencerStore};
use crate::api::wire::HeadView;
use crate::derive::Derivation;
use crate::executor::{Executor, NoOpReason, Outcome, Route, State, execute};
use crate::follower::{Follower, execute_block};
use crate::l2::{L2Block, L2Head, Origin};
use crate::primitives::Hash32;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

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
    /// Shared with whoever takes transactions in.
    state: Arc<RwLock<State>>,
}

/// What a new block is made with.
pub(super) struct Next<'a> {
    /// Its origin.
    pub origin: &'a Origin,
    /// Its time, seconds since 1970.
    pub timestamp: u64,
    /// How many bytes of waiting transactions go in.
    pub room: usize,
    /// What posting them costs.
    pub price: Price,
    /// What it has to be: an empty one is made also where there is nothing to do.
    pub turn: Turn,
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
    pub(super) fn load(node: &Follower, store: &mut SequencerStore) -> Result<Self, SequencerError> {
        let derivation = node.derivation();
        let mut state = node.state().clone();
        let mut chain = Self {
            base: derivation.head(),
            base_state_root: node.executor().state_root(&state),
            blocks: VecDeque::new(),
            state: Arc::default(),
        };
        let max_lag = node.manifest().max_lag.into();
        while let Some(block) = store
            .children(&chain.head().hash)?
            .into_iter()
            .map(|stored| stored.block)
            .find(|block| is_acceptable(block, derivation, max_lag))
        {
            let forced = node.store().items(block.forced.clone())?;
            let done = execute_block(node.executor().as_ref(), &mut state, block, &forced);
            state.take_undo();
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
        *write(&chain.state) = state;
        Ok(chain)
    }

    /// As the two stores hold it now, in place of what it was.
    pub(super) fn reload(&mut self, node: &Follower, store: &mut SequencerStore) -> Result<(), SequencerError> {
        let loaded = Self::load(node, store)?;
        let state = Arc::clone(&self.state);
        *write(&state) = std::mem::take(&mut *write(&loaded.state));
        *self = Self { state, ..loaded };
        Ok(())
    }

    /// The state after the unsafe head.
    pub(super) fn state(&self) -> Arc<RwLock<State>> {
        Arc::clone(&self.state)
    }

    /// Follows the derived chain. Gives the number of soft blocks that were orphaned.
    pub(super) fn realign(&mut self, node: &Follower, store: &mut SequencerStore) -> Result<usize, SequencerError> {
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
                self.reload(node, store)?;
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

    /// The number of soft blocks.
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// The unsafe head.
    pub fn head(&self) -> L2Head {
        self.blocks.back().map_or(self.base, |soft| soft.block.head())
    }

    /// The unsafe head, to be shown.
    pub fn head_view(&self) -> HeadView {
        let state_root = self.blocks.back().map_or(self.base_state_root, |soft| soft.state_root);
        HeadView::of(self.head(), state_root)
    }

    /// The derived head, to be shown.
    pub fn base_view(&self) -> HeadView {
        HeadView::of(self.base, self.base_state_root)
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

    /// Makes the next block at `origin`: the forced section, then waiting transactions.
    ///
    /// `None`, and nothing has changed, if there is nothing to put in and no origin to adopt.
    pub(super) fn make_block(
        &mut self,
        node: &Follower,
        store: &mut SequencerStore,
        signer: &mut Signer,
        next: Next<'_>,
    ) -> Result<Option<SoftBlock>, SequencerError> {
        let Next { origin, timestamp, room, price, turn } = next;
        let parent = self.head();
        let rules = node.derivation().rules();
        let executor = node.executor().as_ref();
        let shared = Arc::clone(&self.state);
        let mut state = write(&shared);
        for queued in node.store().items(rules.forced_section(&parent.header, origin))? {
            execute(executor, &mut state, &queued.item.tx, Route::Forced);
        }
        let waiting = match room {
            0 => Vec::new(),
            room => store.waiting(&choose(store.candidates()?, self.used(executor, price), price, room))?,
        };
        let Own { taken, txs, rejected } = take_own(node, &mut state, waiting);
        let block = rules.child(&parent, origin, timestamp, txs).ok_or(SequencerError::Damaged)?;
        state.take_undo();
        let does_nothing =
            block.forced.is_empty() && block.own_txs.is_empty() && block.header.origin == parent.header.origin;
        if does_nothing && turn == Turn::Any {
            store.reject(&rejected)?;
            return Ok(None);
        }
        let soft = SoftBlock { state_root: executor.state_root(&state), block };
        let known = store.knows(&soft.block.hash)?;
        let (signed, included) = match turn {
            Turn::Any => signer.sign(node.derivation(), store, &soft, &taken)?,
            _ => (None, Vec::new()),
        };
        store.append(&soft.block, signed.as_ref(), &included, &rejected)?;
        signer.history.made(&soft.block, turn, known);
        self.blocks.push_back(soft.clone());
        Ok(Some(soft))
    }

    /// What of the rations of those who pay too little is used up.
    fn used(&self, executor: &dyn Executor, price: Price) -> Used {
        let mut used = Used::default();
        for tx in self.blocks.iter().flat_map(|soft| &soft.block.own_txs) {
            let sender = executor.sender_and_nonce(tx).map(|(sender, _)| sender);
            used.add(sender.as_deref(), executor.fee_of(tx), tx.len(), price);
        }
        used
    }
}

/// Executes waiting transactions in this order.
fn take_own(node: &Follower, state: &mut State, waiting: Vec<Waiting>) -> Own {
    let mut own = Own { taken: Vec::new(), txs: Vec::new(), rejected: Vec::new() };
    for waiting in waiting {
        match execute(node.executor().as_ref(), state, &waiting.tx, Route::Own) {
            Outcome::NoOp(reason) if !waiting.owed => own.rejected.push((waiting.seq, reason)),
            _ => {
                own.txs.push(waiting.tx.clone());
                own.taken.push(waiting);
            }
        }
    }
    own
}

fn write(state: &RwLock<State>) -> RwLockWriteGuard<'_, State> {
    // Whoever panicked while it was written to ends the engine.
    state.write().unwrap_or_else(PoisonError::into_inner)
}
