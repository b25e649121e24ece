//! The follower: derives and executes a rollup's chain from Bitcoin alone.
//!
//! Guarantees that after [`Node::sync`] queue, L2 chain and state are those of the Bitcoin chain that the
//! source shows, whatever was shown before; that a block which is missing or unreadable stops it in
//! front of that block; and that each step is on disk, whole, before the next. Trusts its source for
//! which chain has the most work. Imports no sequencer.

mod source;
mod store;

use store::Writer;

pub use store::{DerivedBlock, Fate, QueuedItem, Store, Tally};

use crate::chain::{BlockSource, ChainError};
use crate::database::{OpenError, is_full};
use crate::derive::{Derivation, Judged, NotChild, Step};
use crate::executor::{Executor, ExecutorError, Outcome, Route, State, StateUndo, execute, of_manifest};
use crate::l2::{L2Block, Origin};
use crate::manifest::{Manifest, network_of};
use crate::primitives::{BlockRef, BtcHeight, Hash32, RollupId};
use crate::scanner::{MAX_HEADERS, NextBlock, Refusal, ScanError, Scanned, Scanner};
use bitcoin::Network;
use rusqlite::ErrorCode;
use std::ops::ControlFlow;
use std::path::Path;

/// Steps that can be taken back, at least: deeper reorganisations need a rebuild.
pub const MIN_UNDO_BLOCKS: u32 = 144;

/// Bitcoin blocks in one transaction of the database while many are behind.
const STEP_BLOCKS: usize = 64;

/// Bytes of blocks with envelopes after which a step has enough.
const STEP_BYTES: usize = 4 << 20;

/// How deep a manifest's start block must lie before a rollup is followed (regtest excepted).
pub const MIN_START_DEPTH: u32 = 100;

/// The cure for a file that cannot be gone on with: all that it held is on Bitcoin.
const REBUILD: &str = "derive it anew with `sortie follow --rebuild`, a sequencer's with `sortie sequencer --rebuild`";

/// Why the follower cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Bitcoin cannot be read, or what was read cannot be believed.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The file cannot be read or written.
    #[error("the node's database: {_0}{cure}", cure = cure(_0))]
    Store(#[from] rusqlite::Error),
    /// The file holds something that this code did not write.
    #[error("the node's database is damaged ({0}); {REBUILD}")]
    Corrupt(&'static str),
    /// The file was made by another version.
    #[error("the node's database has schema version {0}, which this sortie does not know; {REBUILD}")]
    Schema(i64),
    /// The file belongs to another rollup.
    #[error("the node's database is of rollup {found}, the manifest's is {expected}; use another --data-dir")]
    OtherRollup {
        /// The manifest's id.
        expected: RollupId,
        /// The file's id.
        found: RollupId,
    },
    /// The source names no block at a height that it must have: it is behind, or has a gap.
    #[error("the Bitcoin node has no block at height {height}, its tip is at {tip}; wait until it has caught up")]
    Missing {
        /// The height that was asked for.
        height: BtcHeight,
        /// The height of the source's tip.
        tip: BtcHeight,
    },
    /// The manifest's start is not there.
    #[error(
        "the manifest's start block {0} is not on the best chain of this Bitcoin node; check --network and the manifest"
    )]
    StartNotOnChain(BlockRef),
    /// The manifest's start may still be reorganised away.
    #[error(
        "the manifest's start block is {depth} deep, must be {MIN_START_DEPTH} deep or more; wait, or choose an earlier start"
    )]
    StartTooShallow {
        /// Its confirmations.
        depth: u32,
    },
    /// More blocks were reorganised away than can be taken back.
    #[error(
        "Bitcoin reorganised below height {height}, deeper than what was kept to take back (--max-reorg-depth); {REBUILD}"
    )]
    ReorgTooDeep {
        /// The height that cannot be taken back.
        height: BtcHeight,
    },
    /// The manifest's executor cannot be run.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
}

/// What mends a database, where SQLite's words do not say it.
fn cure(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::ConstraintViolation) => {
            format!("; {REBUILD}")
        }
        _ if is_full(error) => "; make room on its disk".into(),
        _ => String::new(),
    }
}

impl From<OpenError> for NodeError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Sqlite(error) => NodeError::Store(error),
            OpenError::Schema(version) => NodeError::Schema(version),
        }
    }
}

impl From<ChainError> for NodeError {
    fn from(error: ChainError) -> Self {
        ScanError::from(error).into()
    }
}

impl From<NotChild> for NodeError {
    fn from(error: NotChild) -> Self {
        ScanError::from(error).into()
    }
}

impl NodeError {
    /// Whether the same call may succeed later without anybody mending anything.
    pub fn is_temporary(&self) -> bool {
        match self {
            NodeError::Scan(error) => error.is_temporary(),
            NodeError::Missing { .. } => true,
            NodeError::Store(error) => is_full(error),
            _ => false,
        }
    }
}

/// One thing that [`Node::sync`] did.
#[derive(Clone, Debug)]
pub enum Event {
    /// A Bitcoin block was applied.
    Applied(Applied),
    /// A Bitcoin block left the best chain and was taken back.
    Reverted(BlockRef),
}

/// What applying a Bitcoin block did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The Bitcoin block.
    pub block: BlockRef,
    /// Its length, in bytes.
    pub len: usize,
    /// Sources whose answer was refused before another one's was taken.
    pub refused: Vec<Refusal>,
    /// Items that joined the queue.
    pub queued: Vec<QueuedItem>,
    /// Verdicts on batches and handovers.
    pub judged: Vec<Judged>,
    /// L2 blocks that were derived and executed.
    pub blocks: Vec<ExecutedBlock>,
}

impl Applied {
    /// Whether the block brought nothing for the rollup.
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.judged.is_empty() && self.blocks.is_empty()
    }
}

/// A derived block with what its transactions did.
#[derive(Clone, Debug)]
pub struct ExecutedBlock {
    /// The block.
    pub block: L2Block,
    /// Commitment to the state after it.
    pub state_root: Hash32,
    /// Outcomes of its forced section, in order.
    pub forced: Vec<Outcome>,
    /// Outcomes of its own transactions, in order.
    pub own: Vec<Outcome>,
}

/// The heads of a followed chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// The last Bitcoin block applied.
    pub bitcoin: BlockRef,
    /// The derived head.
    pub safe: DerivedBlock,
    /// The derived head `finality_depth` deep.
    pub finalized: DerivedBlock,
}

/// Why a run over blocks ended early.
enum Stop {
    Asked,
    Failed(NodeError),
}

impl<E: Into<NodeError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Failed(error.into())
    }
}

/// A follower with its store.
pub struct Node {
    manifest: Manifest,
    executor: Box<dyn Executor>,
    store: Store,
    derivation: Derivation,
    state: State,
    max_reorg_depth: u32,
}

impl Node {
    /// Opens a follower's file, or begins one at the manifest's start block.
    ///
    /// # Errors
    /// [`NodeError`]; on the first start, the start block must be on the source's chain and deep enough.
    pub fn open(path: &Path, manifest: Manifest, source: &impl BlockSource) -> Result<Self, NodeError> {
        let executor = of_manifest(&manifest)?;
        let mut store = Store::open(path)?;
        if store.load()?.is_none() {
            write_genesis(&mut store, &manifest, executor.as_ref(), source)?;
        }
        let (derivation, state) = load(&store, &manifest)?;
        Ok(Self { manifest, executor, store, derivation, state, max_reorg_depth: MIN_UNDO_BLOCKS })
    }

    /// Opens a follower's file that is there already, without a Bitcoin node: to read it as it is at this moment,
    /// whatever another process writes meanwhile.
    ///
    /// # Errors
    /// [`NodeError::Corrupt`], if nothing was ever written to it.
    pub fn open_offline(path: &Path, manifest: Manifest) -> Result<Self, NodeError> {
        let executor = of_manifest(&manifest)?;
        let store = Store::open(path)?;
        store.hold()?;
        let (derivation, state) = load(&store, &manifest)?;
        Ok(Self { manifest, executor, store, derivation, state, max_reorg_depth: MIN_UNDO_BLOCKS })
    }

    /// Checks that a rollup can be followed from its start block on: that it is in this chain, and that the block above
    /// it, if there is one, can be read.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn check_source(manifest: &Manifest, scanner: &Scanner<'_>) -> Result<(), NodeError> {
        let start = manifest.start;
        source::check_start(scanner.chain(), start)?;
        let known = |height| (height == start.height).then_some(start.hash);
        let first = scanner.headers_above(manifest.network, start, known, 1)?;
        scanner.scan(&first, manifest.rollup_id().namespace(), |_| Ok(()))
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The stored queue, chain and verdicts.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The derivation after the last Bitcoin block.
    pub fn derivation(&self) -> &Derivation {
        &self.derivation
    }

    /// The executor.
    pub fn executor(&self) -> &dyn Executor {
        self.executor.as_ref()
    }

    /// The state after the derived head.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The heads, with `finality_depth` in Bitcoin blocks.
    ///
    /// # Errors
    /// [`NodeError`], if the store cannot be read.
    pub fn heads(&self, finality_depth: u32) -> Result<Heads, NodeError> {
        Ok(Heads {
            bitcoin: self.derivation.tip().block,
            safe: self.head_at_depth(1)?,
            finalized: self.head_at_depth(finality_depth)?,
        })
    }

    /// The derived head that is this many Bitcoin blocks deep; the tip's own is 1 deep.
    fn head_at_depth(&self, depth: u32) -> Result<DerivedBlock, NodeError> {
        let height = (self.derivation.tip().block.height + 1).saturating_sub(depth).max(self.manifest.start.height);
        self.store.head_at(height)?.ok_or(NodeError::Corrupt("no L2 block at or below a height"))
    }

    /// The derived head that no reorganisation can orphan which [`sync`](Self::sync) could take back.
    ///
    /// # Errors
    /// [`NodeError`], if the store cannot be read.
    pub fn settled_head(&self) -> Result<DerivedBlock, NodeError> {
        self.head_at_depth(self.undo_blocks().saturating_add(1))
    }

    /// Keeps what is needed to take back this many blocks, or two windows if that is more; from the next
    /// block on. Without it, [`MIN_UNDO_BLOCKS`].
    pub fn set_max_reorg_depth(&mut self, blocks: u32) {
        self.max_reorg_depth = blocks;
    }

    /// Follows the source to its tip, telling of each block once it is on disk.
    ///
    /// # Errors
    /// [`NodeError`]: every step before it is kept, and calling again goes on from there.
    pub fn sync<'a>(
        &mut self,
        source: impl Into<Scanner<'a>>,
        mut on_event: impl FnMut(&Event),
    ) -> Result<(), NodeError> {
        let scanner = source.into();
        let mut tell = |_: &Self, event: &Event| {
            on_event(event);
            ControlFlow::Continue(())
        };
        while self.advance(&scanner, MAX_HEADERS, &mut tell)?.is_continue() {}
        Ok(())
    }

    /// Takes one block, or takes one back, towards the source's tip: `None` once it is there.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn step<'a>(&mut self, source: impl Into<Scanner<'a>>) -> Result<Option<Event>, NodeError> {
        let mut told = None;
        let tell = |_: &Self, event: &Event| {
            told = Some(event.clone());
            ControlFlow::Break(())
        };
        let _at_the_tip_or_told = self.advance(&source.into(), 1, tell)?;
        Ok(told)
    }

    /// Goes at most `max_blocks` towards the source's tip, or takes one block back; tells of each block once it is
    /// on disk, and ends early if it is told to break. Breaks if it was, or if there is no block to take (any more).
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn advance(
        &mut self,
        scanner: &Scanner<'_>,
        max_blocks: u32,
        mut on_event: impl FnMut(&Self, &Event) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, NodeError> {
        let tip = self.derivation.tip().block;
        match source::next(scanner.chain(), &self.store, self.manifest.start, tip)? {
            source::Next::Nothing => return Ok(ControlFlow::Break(())),
            source::Next::Left => {
                self.or_reload(|node| node.revert(tip))?;
                return Ok(on_event(self, &Event::Reverted(tip)));
            }
            source::Next::Block if max_blocks == 0 => return Ok(ControlFlow::Break(())),
            source::Next::Block => {}
        }
        let known = |height| self.store.bitcoin_block(height).ok().flatten().map(|(hash, ..)| hash);
        let blocks = scanner.headers_above(self.manifest.network, tip, known, max_blocks)?;
        let Some(last) = blocks.last().map(|block| block.at.height) else {
            return Err(NodeError::Missing { height: tip.height + 1, tip: scanner.chain().tip()?.height });
        };

        let mut step = Vec::new();
        let mut told = ControlFlow::Continue(());
        let scanned = scanner.scan(&blocks, self.manifest.rollup_id().namespace(), |scanned| {
            let at = scanned.block.at.height;
            step.push(scanned);
            let bytes: usize = step.iter().map(Scanned::weight).sum();
            if at == last || step.len() >= STEP_BLOCKS || bytes >= STEP_BYTES {
                told = self.take(std::mem::take(&mut step), last, &mut on_event)?;
            }
            if told.is_break() { Err(Stop::Asked) } else { Ok(()) }
        });
        match scanned {
            Ok(()) => Ok(told),
            Err(Stop::Asked) => Ok(ControlFlow::Break(())),
            Err(Stop::Failed(error)) => {
                // What came before the error is as good as ever.
                let _told = self.take(step, last, &mut on_event)?;
                Err(error)
            }
        }
    }

    /// Applies blocks, of a chain that is known up to `last`, in one transaction; then tells of each.
    fn take(
        &mut self,
        step: Vec<Scanned>,
        last: BtcHeight,
        on_event: &mut impl FnMut(&Self, &Event) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, NodeError> {
        let applied = self.or_reload(|node| node.apply(step, last))?;
        let mut told = ControlFlow::Continue(());
        for applied in applied {
            if on_event(self, &Event::Applied(applied)).is_break() {
                told = ControlFlow::Break(());
            }
        }
        Ok(told)
    }

    /// Runs a step; if it fails, goes back to what is on disk.
    fn or_reload<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, NodeError>) -> Result<T, NodeError> {
        step(self).inspect_err(|_| {
            if let Ok((derivation, state)) = load(&self.store, &self.manifest) {
                self.derivation = derivation;
                self.state = state;
            }
        })
    }

    fn undo_blocks(&self) -> u32 {
        self.max_reorg_depth.max(2 * u32::from(self.manifest.sequencing_window))
    }

    fn apply(&mut self, step: Vec<Scanned>, last: BtcHeight) -> Result<Vec<Applied>, NodeError> {
        let undo_blocks = self.undo_blocks();
        let writer = self.store.writer()?;
        let mut all = Vec::new();
        for scanned in step {
            let NextBlock { at: BlockRef { height, .. }, header } = scanned.block;
            let step = self.derivation.apply(&header, &scanned.found)?;
            // Far below a tip that has shown its work, nothing is going to be taken back.
            let keep_undo = height.saturating_add(undo_blocks) > last;
            all.push(record(&writer, self.executor.as_ref(), &mut self.state, scanned, step, keep_undo)?);
            writer.put_sequencers(height, &self.derivation)?;
            if let Some(old) = height.checked_sub(undo_blocks) {
                writer.forget_undo(old)?;
            }
        }
        writer.put_snapshot(&self.derivation.snapshot())?;
        writer.commit()?;
        Ok(all)
    }

    fn revert(&mut self, tip: BlockRef) -> Result<(), NodeError> {
        if tip == self.manifest.start {
            return Err(NodeError::StartNotOnChain(tip));
        }
        let too_deep = NodeError::ReorgTooDeep { height: tip.height };
        let undo = self.store.undo(tip.height)?.ok_or(too_deep)?;
        let state_undos = self.store.state_undos(tip.height)?;
        self.derivation.revert(undo);
        let writer = self.store.writer()?;
        for undo in state_undos {
            self.state.revert(undo.clone());
            writer.put_state(&self.state, &undo)?;
        }
        writer.remove_step(tip.height)?;
        writer.put_snapshot(&self.derivation.snapshot())?;
        writer.commit()
    }
}

/// Executes what a step derived from a block, and writes all of it.
fn record(
    writer: &Writer<'_>,
    executor: &dyn Executor,
    state: &mut State,
    scanned: Scanned,
    step: Step,
    keep_undo: bool,
) -> Result<Applied, NodeError> {
    let Step { origin: Origin { block, queue_size, queue_root, .. }, first_item, items, judged, blocks, undo } = step;
    writer.put_bitcoin_block(block, (queue_size, queue_root), keep_undo.then_some(&undo))?;
    let queued: Vec<_> =
        (first_item..).zip(items).map(|(index, item)| QueuedItem { index, item, fate: None }).collect();
    for queued in &queued {
        writer.put_item(queued.index, &queued.item)?;
    }
    writer.put_judged(block.height, &judged)?;
    let mut executed = Vec::new();
    for l2_block in blocks {
        let forced_txs = writer.items(l2_block.forced.clone())?;
        let done = execute_block(executor, state, l2_block, &forced_txs);
        let undo = state.take_undo();
        let derived = DerivedBlock { head: done.block.head(), derived_at: block.height, state_root: done.state_root };
        writer.put_block(&derived, keep_undo.then_some(&undo))?;
        writer.put_state(state, &undo)?;
        let l2_number = done.block.header.number;
        for (item, outcome) in forced_txs.iter().zip(&done.forced) {
            writer.put_fate(item.index, Fate { l2_number, outcome: *outcome })?;
        }
        for (position, (tx, outcome)) in done.block.own_txs.iter().zip(&done.own).enumerate() {
            writer.put_own_tx(position, tx, Fate { l2_number, outcome: *outcome })?;
        }
        executed.push(done);
    }
    Ok(Applied { block, len: scanned.len, refused: scanned.refused, queued, judged, blocks: executed })
}

/// Executes a block on a state: its forced section first, then its own transactions.
pub fn execute_block(
    executor: &dyn Executor,
    state: &mut State,
    block: L2Block,
    forced: &[QueuedItem],
) -> ExecutedBlock {
    let mut run = |tx: &[u8], route| execute(executor, state, tx, route);
    let forced = forced.iter().map(|queued| run(&queued.item.tx, Route::Forced)).collect();
    let own = block.own_txs.iter().map(|tx| run(tx, Route::Own)).collect();
    let state_root = executor.state_root(state);
    ExecutedBlock { block, state_root, forced, own }
}

fn load(store: &Store, manifest: &Manifest) -> Result<(Derivation, State), NodeError> {
    let (found, snapshot, state) = store.load()?.ok_or(NodeError::Corrupt("nothing was written yet"))?;
    let expected = manifest.rollup_id();
    if found != expected {
        return Err(NodeError::OtherRollup { expected, found });
    }
    Ok((Derivation::from_snapshot(manifest, snapshot), state))
}

fn write_genesis(
    store: &mut Store,
    manifest: &Manifest,
    executor: &dyn Executor,
    source: &impl BlockSource,
) -> Result<(), NodeError> {
    let start = manifest.start;
    source::check_start(source, start)?;
    let depth = source.tip()?.height.saturating_sub(start.height) + 1;
    if depth < MIN_START_DEPTH && network_of(manifest.network) != Some(Network::Regtest) {
        return Err(NodeError::StartTooShallow { depth });
    }
    let derivation = Derivation::genesis(manifest, &source::times_up_to(source, start)?);
    let state = executor.genesis();
    let head = derivation.head();
    let genesis = DerivedBlock { head, derived_at: start.height, state_root: executor.state_root(&state) };
    let writer = store.writer()?;
    writer.put_genesis(&manifest.rollup_id(), &derivation.snapshot())?;
    writer.put_bitcoin_block(start, (0, head.header.queue_root), None)?;
    writer.put_sequencers(start.height, &derivation)?;
    writer.put_block(&genesis, Some(&StateUndo::default()))?;
    writer.put_genesis_state(&state)?;
    writer.commit()
}

#[cfg(test)]
mod tests;
