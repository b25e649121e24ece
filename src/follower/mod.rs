//! The follower: derives and executes a rollup's chain from Bitcoin alone.
//!
//! Guarantees that after [`Follower::sync`] queue, L2 chain and state are those of the Bitcoin chain that the
//! source shows, whatever was shown before; that a block which is missing or unreadable stops it in
//! front of that block; and that each step is on disk, whole, before the next. Trusts its source for
//! which chain has the most work. Imports no sequencer.

mod data_dir;
mod lifecycle;
mod source;
mod store;
#[cfg(test)]
mod tests;
mod view;

use store::Writer;

pub use data_dir::{DataDir, KeptBy, LockedDir};
pub use lifecycle::{Effect, Entry, Execution, Lifecycle, Lifecycles, Queued, TxStage};
pub use store::{DerivedBlock, Fate, QueuedItem, Store, Tally};
pub use view::ChainView;

use crate::chain::{BlockSource, ChainError};
use crate::database::{OpenError, is_full};
use crate::derive::{Derivation, Judged, NotChild, Step};
use crate::executor::{Executor, ExecutorError, Outcome, Route, State, StateUndo, execute};
use crate::l2::{L2Block, Origin};
use crate::manifest::{Manifest, network_of};
use crate::primitives::{BlockRef, BtcHeight, Hash32, L2Number, RollupId};
use crate::scanner::{MAX_HEADERS, NextBlock, Refusal, ScanError, Scanned, Scanner};
use bitcoin::Network;
use rusqlite::ErrorCode;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

/// Steps that can be taken back, at least: deeper reorganisations need a rebuild.
pub const MIN_UNDO_BLOCKS: u32 = 144;

/// Bitcoin blocks in one transaction of the database while many are behind.
const STEP_BLOCKS: usize = 64;

/// Bytes of blocks with envelopes after which a step has enough.
const STEP_BYTES: usize = 4 << 20;

/// How deep a manifest's start block must lie before a rollup is followed (regtest excepted).
pub const MIN_START_DEPTH: u32 = 100;

/// Why the follower cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FollowerError {
    /// Bitcoin cannot be read, or what was read cannot be believed.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The file cannot be read or written.
    #[error("the node's database: {_0}{}", if is_full(_0) { "; make room on its disk" } else { "" })]
    Store(#[from] rusqlite::Error),
    /// The file holds something that this code did not write.
    #[error("the node's database is damaged ({0})")]
    Corrupt(Damage),
    /// Nothing was written to the file yet: another process has just made it.
    #[error("another process is just beginning to follow this rollup; try again in a moment")]
    NotBegun,
    /// A block that was read a moment ago is no longer derived.
    #[error("L2 block {0} has just been taken back by a reorganisation; try again")]
    BlockGone(L2Number),
    /// The file was made by another version.
    #[error("the node's database has schema version {0}, which this sortie does not know")]
    Schema(i64),
    /// The data folder, its lock or a file to delete cannot be reached.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Another process writes this follower.
    #[error("another process follows this rollup in {}", _0.display())]
    Locked(PathBuf),
    /// The file belongs to another rollup.
    #[error("the node's database is of rollup {found}, the manifest's is {expected}")]
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
    #[error("the manifest's start block {0} is not on the best chain of this Bitcoin node")]
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
    #[error("Bitcoin reorganised below height {height}, deeper than what was kept to take back")]
    ReorgTooDeep {
        /// The height that cannot be taken back.
        height: BtcHeight,
    },
    /// The manifest's executor cannot be run.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
}

/// The part of a follower's file that cannot be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A value that has no encoding.
    #[error("a value does not fit its encoding")]
    Unencodable,
    /// A value that does not decode.
    #[error("a stored value cannot be read")]
    Undecodable,
    /// An item's place that is none.
    #[error("a place")]
    Place,
    /// No L2 block where at least the genesis block must be.
    #[error("no L2 block at or below a height")]
    NoHead,
    /// A step that is recent enough to be taken back, without its undo.
    #[error("an undo is missing")]
    NoUndo,
}

impl From<OpenError> for FollowerError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Sqlite(error) => FollowerError::Store(error),
            OpenError::Schema(version) => FollowerError::Schema(version),
        }
    }
}

impl From<ChainError> for FollowerError {
    fn from(error: ChainError) -> Self {
        ScanError::from(error).into()
    }
}

impl From<NotChild> for FollowerError {
    fn from(error: NotChild) -> Self {
        ScanError::from(error).into()
    }
}

impl FollowerError {
    /// Whether the same call may succeed later without anybody mending anything.
    pub fn is_temporary(&self) -> bool {
        match self {
            FollowerError::Scan(error) => error.is_temporary(),
            FollowerError::Missing { .. } => true,
            FollowerError::Store(error) => is_full(error),
            _ => false,
        }
    }

    /// Whether the file cannot be gone on with, and has to be derived anew: all that it held is on Bitcoin.
    pub fn needs_rebuild(&self) -> bool {
        use ErrorCode::{ConstraintViolation, DatabaseCorrupt, NotADatabase};
        match self {
            Self::Store(error) => {
                matches!(error.sqlite_error_code(), Some(NotADatabase | DatabaseCorrupt | ConstraintViolation))
            }
            Self::Corrupt(_) | Self::Schema(_) | Self::ReorgTooDeep { .. } => true,
            _ => false,
        }
    }
}

/// One thing that [`Follower::sync`] did.
#[derive(Clone, Debug)]
pub enum ChainEvent {
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
    Failed(FollowerError),
}

impl<E: Into<FollowerError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Failed(error.into())
    }
}

/// A follower that writes its files.
pub struct Follower {
    view: ChainView,
    executor: Arc<dyn Executor>,
    state: State,
    max_reorg_depth: u32,
    /// Nobody else writes as long as this lives.
    _lock: LockedDir,
}

impl Follower {
    /// Locks a folder, and opens its follower or begins one at the manifest's start block, with the executor that the
    /// manifest names.
    ///
    /// # Errors
    /// [`FollowerError::Locked`] if another one writes there; else as [`LockedDir::open`].
    pub fn open(dir: &DataDir, source: &impl BlockSource) -> Result<Self, FollowerError> {
        dir.lock()?.ok_or_else(|| FollowerError::Locked(dir.database()))?.open(source)
    }

    pub(super) fn open_locked(
        lock: LockedDir,
        executor: Arc<dyn Executor>,
        source: &impl BlockSource,
    ) -> Result<Self, FollowerError> {
        let manifest = lock.dir().manifest().clone();
        let mut store = Store::open(&lock.dir().database())?;
        if store.load_derivation()?.is_none() {
            write_genesis(&mut store, &manifest, executor.as_ref(), source)?;
        }
        let derivation = derivation_of(&store, &manifest)?;
        let state = store.load_state()?;
        let view = ChainView { manifest, store, derivation };
        Ok(Self { view, executor, state, max_reorg_depth: MIN_UNDO_BLOCKS, _lock: lock })
    }

    /// Checks that a rollup can be followed from its start block on: that it is in this chain, and that the block above
    /// it, if there is one, can be read.
    ///
    /// # Errors
    /// [`FollowerError`].
    pub fn check_source(manifest: &Manifest, scanner: &Scanner<'_>) -> Result<(), FollowerError> {
        let start = manifest.start;
        source::check_start(scanner.chain(), start)?;
        let known = |height| Ok::<_, FollowerError>((height == start.height).then_some(start.hash));
        let first = scanner.headers_above(manifest.network, start, known, 1)?;
        scanner.scan(&first, manifest.rollup_id().namespace(), |_| Ok(()))
    }

    /// The derived chain at the last step.
    pub fn view(&self) -> &ChainView {
        &self.view
    }

    /// The rollup's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.view.manifest
    }

    /// The stored queue, chain and verdicts.
    pub fn store(&self) -> &Store {
        &self.view.store
    }

    /// The derivation after the last Bitcoin block.
    pub fn derivation(&self) -> &Derivation {
        &self.view.derivation
    }

    /// The executor.
    pub fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }

    /// The state after the derived head.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The heads, with `finality_depth` in Bitcoin blocks.
    ///
    /// # Errors
    /// [`FollowerError`], if the store cannot be read.
    pub fn heads(&self, finality_depth: u32) -> Result<Heads, FollowerError> {
        self.view.heads(finality_depth)
    }

    /// The derived head that no reorganisation can orphan which [`sync`](Self::sync) could take back.
    ///
    /// # Errors
    /// [`FollowerError`], if the store cannot be read.
    pub fn settled_head(&self) -> Result<DerivedBlock, FollowerError> {
        self.view.head_at_depth(self.undo_blocks().saturating_add(1))
    }

    /// Keeps what is needed to take back this many blocks, or two windows if that is more; from the next
    /// block on. Without it, [`MIN_UNDO_BLOCKS`].
    pub fn set_max_reorg_depth(&mut self, blocks: u32) {
        self.max_reorg_depth = blocks;
    }

    /// Follows the source to its tip, telling of each block once it is on disk.
    ///
    /// # Errors
    /// [`FollowerError`]: every step before it is kept, and calling again goes on from there.
    pub fn sync<'a>(
        &mut self,
        source: impl Into<Scanner<'a>>,
        mut on_event: impl FnMut(&ChainEvent),
    ) -> Result<(), FollowerError> {
        self.follow(&source.into(), None, |_, event| {
            on_event(event);
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Follows the source to its tip or to a height. `on_event` is called once a block is on disk, and may end it
    /// early.
    ///
    /// # Errors
    /// [`FollowerError`], or the error of `on_event`: every step before it is kept, and calling again goes on from
    /// there.
    pub fn follow<E: From<FollowerError>>(
        &mut self,
        scanner: &Scanner<'_>,
        until: Option<BtcHeight>,
        mut on_event: impl FnMut(&ChainView, &ChainEvent) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let mut failed = None;
        loop {
            let at = self.derivation().tip().block.height;
            // With no block left to take it is still noticed if Bitcoin has left the last ones.
            let left = until.map_or(MAX_HEADERS, |until| until.saturating_sub(at).min(MAX_HEADERS));
            let flow = self.advance(scanner, left, |follower, event| {
                on_event(&follower.view, event).unwrap_or_else(|error| {
                    failed.get_or_insert(error);
                    ControlFlow::Break(())
                })
            })?;
            if let Some(error) = failed.take() {
                return Err(error);
            }
            if flow.is_break() {
                return Ok(());
            }
        }
    }

    /// Takes one block, or takes one back, towards the source's tip: `None` once it is there.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn step<'a>(&mut self, source: impl Into<Scanner<'a>>) -> Result<Option<ChainEvent>, FollowerError> {
        let mut told = None;
        let tell = |_: &Self, event: &ChainEvent| {
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
        mut on_event: impl FnMut(&Self, &ChainEvent) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, FollowerError> {
        let tip = self.view.derivation.tip().block;
        match source::next(scanner.chain(), &self.view.store, self.view.manifest.start, tip)? {
            source::Next::Nothing => return Ok(ControlFlow::Break(())),
            source::Next::Left => {
                self.or_reload(|node| node.revert(tip))?;
                return Ok(on_event(self, &ChainEvent::Reverted(tip)));
            }
            source::Next::Block if max_blocks == 0 => return Ok(ControlFlow::Break(())),
            source::Next::Block => {}
        }
        let known = |height| Ok::<_, FollowerError>(self.view.store.bitcoin_block(height)?.map(|(hash, ..)| hash));
        let blocks = scanner.headers_above(self.view.manifest.network, tip, known, max_blocks)?;
        let Some(last) = blocks.last().map(|block| block.at.height) else {
            return Err(FollowerError::Missing { height: tip.height + 1, tip: scanner.chain().tip()?.height });
        };

        let mut step = Vec::new();
        let mut told = ControlFlow::Continue(());
        let scanned = scanner.scan(&blocks, self.view.manifest.rollup_id().namespace(), |scanned| {
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
        on_event: &mut impl FnMut(&Self, &ChainEvent) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, FollowerError> {
        let applied = self.or_reload(|node| node.apply(step, last))?;
        let mut told = ControlFlow::Continue(());
        for applied in applied {
            if on_event(self, &ChainEvent::Applied(applied)).is_break() {
                told = ControlFlow::Break(());
            }
        }
        Ok(told)
    }

    /// Runs a step; if it fails, goes back to what is on disk.
    fn or_reload<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, FollowerError>) -> Result<T, FollowerError> {
        step(self).inspect_err(|_| {
            let stored = (derivation_of(&self.view.store, &self.view.manifest), self.view.store.load_state());
            if let (Ok(derivation), Ok(state)) = stored {
                self.view.derivation = derivation;
                self.state = state;
            }
        })
    }

    fn undo_blocks(&self) -> u32 {
        self.max_reorg_depth.max(2 * u32::from(self.view.manifest.sequencing_window))
    }

    fn apply(&mut self, step: Vec<Scanned>, last: BtcHeight) -> Result<Vec<Applied>, FollowerError> {
        let undo_blocks = self.undo_blocks();
        let writer = self.view.store.writer()?;
        let mut all = Vec::new();
        for scanned in step {
            let NextBlock { at: BlockRef { height, .. }, header } = scanned.block;
            let step = self.view.derivation.apply(&header, &scanned.found)?;
            // Far below a tip that has shown its work, nothing is going to be taken back.
            let keep_undo = height.saturating_add(undo_blocks) > last;
            all.push(record(&writer, self.executor.as_ref(), &mut self.state, scanned, step, keep_undo)?);
            writer.put_sequencers(height, &self.view.derivation)?;
            if let Some(old) = height.checked_sub(undo_blocks) {
                writer.forget_undo(old)?;
            }
        }
        writer.put_snapshot(&self.view.derivation.snapshot())?;
        writer.commit()?;
        Ok(all)
    }

    fn revert(&mut self, tip: BlockRef) -> Result<(), FollowerError> {
        if tip == self.view.manifest.start {
            return Err(FollowerError::StartNotOnChain(tip));
        }
        let too_deep = FollowerError::ReorgTooDeep { height: tip.height };
        let undo = self.view.store.undo(tip.height)?.ok_or(too_deep)?;
        let state_undos = self.view.store.state_undos(tip.height)?;
        self.view.derivation.revert(undo);
        let writer = self.view.store.writer()?;
        for undo in state_undos {
            self.state.revert(undo.clone());
            writer.put_state(&self.state, &undo)?;
        }
        writer.remove_step(tip.height)?;
        writer.put_snapshot(&self.view.derivation.snapshot())?;
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
) -> Result<Applied, FollowerError> {
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

/// The derivation that a file holds, if it is of the manifest's rollup.
fn derivation_of(store: &Store, manifest: &Manifest) -> Result<Derivation, FollowerError> {
    let (found, snapshot) = store.load_derivation()?.ok_or(FollowerError::NotBegun)?;
    let expected = manifest.rollup_id();
    if found != expected {
        return Err(FollowerError::OtherRollup { expected, found });
    }
    Ok(Derivation::from_snapshot(manifest, snapshot))
}

fn write_genesis(
    store: &mut Store,
    manifest: &Manifest,
    executor: &dyn Executor,
    source: &impl BlockSource,
) -> Result<(), FollowerError> {
    let start = manifest.start;
    source::check_start(source, start)?;
    let depth = source.tip()?.height.saturating_sub(start.height) + 1;
    if depth < MIN_START_DEPTH && network_of(manifest.network) != Some(Network::Regtest) {
        return Err(FollowerError::StartTooShallow { depth });
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
