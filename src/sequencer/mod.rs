//! The lightweight sequencer: soft blocks in order of arrival, forced items first, batches to Bitcoin.
//!
//! Guarantees: what it acknowledged or signed is on disk first; killed at any moment it goes on where it
//! was; it never signs a second batch for a parent while the first can still be accepted. It cannot
//! choose which forced items it executes: the section comes from the same function that every follower
//! derives by. Nothing that it signs convicts it, whatever Bitcoin does, and whatever becomes of its files
//! (`history` says what cannot be helped). Trusts its Bitcoin node.

mod admission;
mod api;
mod budget;
mod connections;
mod history;
mod in_flight;
mod limits;
mod order;
mod post;
mod sign;
mod soft;
mod store;
mod twin;
mod watermark;

pub use api::{Refusal, Submit, serve};
pub use in_flight::InFlight;
pub use limits::{Limits, MAX_POOL, MAX_TX_LEN, Rate};
pub use order::Carried;
pub use soft::{SoftBlock, SoftChain};
pub use store::{SequencerStore, StoredBlock};
pub use watermark::{Watermark, WatermarkError};

use crate::api::wire::HeadView;
use crate::chain::{BlockReader, RpcNode};
use crate::database::{OpenError, is_full};
use crate::derive::{DropReason, MAX_FUTURE_SECONDS};
use crate::follower::{ChainEvent, Follower, FollowerError};
use crate::l2::Origin;
use crate::manifest::Manifest;
use crate::primitives::{BlockRef, BtcHeight, L2Number, RollupId};
use crate::publish::{Bumped, Publication, PublishError, RateTerms};
use crate::queue::Place;
use crate::scanner::{ScanError, Scanner};
use crate::wallet::{Caps, JobId, Wallet, WalletError};
use admission::Price;
use bitcoin::secp256k1::Keypair;
use bitcoin::{Amount, BlockHash, Network, XOnlyPublicKey};
use history::{History, Start, Turn};
use serde::Serialize;
use sign::Signer;
use soft::Next;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use twin::Look;

/// Bitcoin blocks that a batch may need until it is mined, at least.
const POSTING_DELAY: u32 = 1;

/// Most soft blocks that are not derived: what a sequencer promises in four hours and a half.
const MAX_PROMISED_BLOCKS: u64 = 16_384;

/// Bitcoin blocks that are looked at again for batches, as they may have been replaced.
const LOOK_BACK: u32 = 144;

/// Why the sequencer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SequencerError {
    /// The follower in it.
    #[error(transparent)]
    Follower(#[from] FollowerError),
    /// Its wallet.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// Posting a batch.
    #[error("posting a batch: {0}")]
    Publish(#[from] PublishError),
    /// Its file cannot be read or written.
    #[error("the sequencer's database: {_0}{}", if is_full(_0) { "; make room on its disk" } else { "" })]
    Store(#[from] rusqlite::Error),
    /// Its file holds something that this code did not write.
    #[error(
        "the sequencer's database is damaged; move it away, and the sequencer begins another: what it had acknowledged and not posted is lost. An older copy knows less than what was signed since, and brings back nothing more"
    )]
    Damaged,
    /// Its file was made by another version.
    #[error("the sequencer's database has schema version {0}, which this sortie does not know")]
    Schema(i64),
    /// Too many transactions wait.
    #[error("{0} transactions are waiting; try again later")]
    PoolFull(u64),
    /// Too many transactions of one sender wait.
    #[error("{} transactions of this sender are waiting; try again later", store::MAX_WAITING)]
    SenderFull,
    /// The key is not one that may sign.
    #[error("key {0} is not in the rollup's sequencer set")]
    NotInSet(XOnlyPublicKey),
    /// More than one signature is needed.
    #[error("the rollup needs {0} signatures for a batch; this sequencer signs alone")]
    Threshold(u8),
    /// No batch could ever be accepted.
    #[error(
        "max_lag {max_lag} and sequencing_window {window} leave no time to post: with {confirmations} confirmations every batch would be stale"
    )]
    NoTimeToPost {
        /// The manifest's.
        max_lag: u16,
        /// The manifest's.
        window: u16,
        /// The policy's.
        confirmations: u32,
    },
    /// The file beside the key.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    /// A batch of this key that this sequencer did not make.
    #[error(
        "this sequencer's key signed the batch at {place}, and this sequencer did not: another one runs with the same key, or its files were rolled back (a copy, a backup, a snapshot). Make sure that no other one runs, then delete {} and start again: it signs nothing that could contradict what was signed before", watermark.display()
    )]
    Twin {
        /// Where the batch stands.
        place: Place,
        /// The file beside the key.
        watermark: PathBuf,
    },
    /// A batch reached Bitcoin and will never count.
    #[error("the batch at {place} was dropped: {reason}; its blocks are made anew once they are stale")]
    BatchDropped {
        /// Where it stands.
        place: Place,
        /// Why.
        reason: DropReason,
    },
    /// It was told to stop while a batch does not get to Bitcoin.
    #[error("stopped while a batch is stuck since Bitcoin block {}: {_0}; started again, it goes on with it", _0.stuck_since.unwrap_or_default())]
    StoppedStuck(Box<InFlight>),
    /// The HTTP server.
    #[error("the HTTP server: {0}")]
    Http(#[from] std::io::Error),
}

impl From<OpenError> for SequencerError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Sqlite(error) => SequencerError::Store(error),
            OpenError::Schema(version) => SequencerError::Schema(version),
        }
    }
}

impl SequencerError {
    /// Whether the same call may succeed later without anybody mending anything.
    pub fn is_temporary(&self) -> bool {
        match self {
            // It has served us before.
            SequencerError::Follower(FollowerError::Scan(ScanError::Chain(error))) => error.may_pass(),
            SequencerError::Follower(error) => error.is_temporary(),
            // Nothing is acknowledged, signed or sent that is not on disk: it waits for room.
            error => error.is_of_full_disk(),
        }
    }

    /// Whether one of its files could not grow.
    fn is_of_full_disk(&self) -> bool {
        match self {
            SequencerError::Store(error)
            | SequencerError::Follower(FollowerError::Store(error))
            | SequencerError::Wallet(WalletError::Database(error))
            | SequencerError::Publish(PublishError::Wallet(WalletError::Database(error))) => is_full(error),
            SequencerError::Watermark(WatermarkError::File { error, .. }) => {
                matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
            }
            _ => false,
        }
    }
}

/// The sequencer's policy: nothing here is part of the protocol.
#[derive(Clone)]
pub struct Policy {
    /// Signs batches.
    pub key: Keypair,
    /// An origin is adopted once it has this many.
    pub confirmations: u32,
    /// Senders whose transactions are refused, by the bytes that the executor names them by: the cheat that demos and
    /// tests need.
    pub denied: BTreeSet<Vec<u8>>,
    /// What decides the rate of a new batch.
    pub rate: RateTerms,
    /// What a batch may cost.
    pub caps: Caps,
    /// What own transactions may cost on Bitcoin in 24 hours, all their batches together.
    pub max_fee_per_day: Option<Amount>,
    /// How much of what posting it costs a transaction has to pay, in percent, where the executor knows fees.
    pub least_fee_percent: u32,
    /// The operator's word that this key signed no block above this number, on whatever machine.
    pub signed_up_to: Option<L2Number>,
    /// What it lets itself be asked for.
    pub limits: Limits,
    /// Time since whenever, for the rates of clients.
    pub clock: Clock,
}

/// A clock that only goes on.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

impl Policy {
    /// Nobody is refused, and fees are the node's, within the usual caps.
    pub fn new(key: Keypair, confirmations: u32, network: Network) -> Self {
        let begun = Instant::now();
        Self {
            key,
            confirmations,
            denied: BTreeSet::new(),
            rate: RateTerms { network, explicit: None, fallback: None, target_blocks: 2 },
            caps: Caps::default(),
            max_fee_per_day: None,
            least_fee_percent: 0,
            signed_up_to: None,
            limits: Limits::default(),
            clock: Arc::new(move || begun.elapsed()),
        }
    }
}

/// What the sequencer shows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The rollup.
    pub rollup_id: RollupId,
    /// The soft head.
    #[serde(rename = "unsafe")]
    pub unsafe_head: HeadView,
    /// The derived head.
    #[serde(rename = "safe")]
    pub safe_head: HeadView,
    /// The last Bitcoin block seen.
    pub bitcoin: BlockRef,
    /// Whether transactions go into blocks: not while batches do not reach Bitcoin in time.
    pub accepting: bool,
    /// Why the last attempt to post failed, if it did.
    pub posting_error: Option<String>,
    /// The batch that waits to be mined.
    pub in_flight: Option<InFlight>,
    /// The least that a transaction has to pay, in millisatoshis for each of its bytes.
    pub least_fee_msat_per_byte: u64,
    /// What was paid for batches in the last 24 hours, in satoshis.
    pub paid_per_day_sat: u64,
    /// What own transactions may cost in 24 hours, in satoshis.
    pub max_fee_per_day_sat: Option<u64>,
    /// Why own transactions wait, while they do.
    pub paused: Option<String>,
    /// Why nothing goes on at all, while nothing does: Bitcoin does not answer, or the disk is full.
    pub trouble: Option<String>,
    /// Bitcoin height from which receipts are given again, while they are not: what this key promised before
    /// is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts_from: Option<BtcHeight>,
}

impl Status {
    /// The least that a transaction of this length has to pay, in satoshis.
    pub fn least_fee(&self, length: usize) -> u64 {
        Price(self.least_fee_msat_per_byte).of(length as u64)
    }
}

/// One thing that a [`Sequencer::tick`] did.
#[derive(Clone, Debug)]
pub enum Done {
    /// The Bitcoin chain moved.
    Bitcoin(ChainEvent),
    /// A soft block was made.
    Made(SoftBlock),
    /// Soft blocks were orphaned; their transactions wait again.
    Orphaned(usize),
    /// A batch was sent to Bitcoin, or sent again.
    Posted {
        /// First and last block.
        blocks: (L2Number, L2Number),
        /// Its transactions.
        publication: Publication,
    },
    /// Posting failed and is tried again.
    PostingFailed(String),
    /// A batch on its way, or another job of the wallet, pays more now.
    Raised {
        /// A batch's first and last block.
        blocks: Option<(L2Number, L2Number)>,
        /// How.
        bumped: Bumped,
    },
    /// The batch on its way pays less than is asked, or is late.
    Stuck(InFlight),
    /// What somebody asked for cannot be done, for this reason.
    OrderRefused {
        /// The job that was to be bumped.
        job: JobId,
        /// Why not.
        reason: String,
    },
    /// Own transactions wait from now on, for this reason; or do not wait any more.
    Paused(Option<String>),
    /// Something stands in the way of another transaction of the wallet.
    Trouble(String),
    /// How a rate was chosen, one sentence each.
    Explained(Vec<String>),
}

/// The sequencer's engine; [`serve`] puts HTTP and a clock around it.
pub struct Sequencer {
    policy: Policy,
    node: Follower,
    rpc: RpcNode,
    readers: Vec<Box<dyn BlockReader>>,
    verify_all_blocks: bool,
    wallet: Wallet,
    store: Arc<Mutex<SequencerStore>>,
    /// One for all: its clients have one allowance each.
    submit: Submit,
    status: Arc<RwLock<Status>>,
    soft: SoftChain,
    signer: Signer,
    posting: post::Posting,
    budget: budget::Budget,
    /// The soft chain may not be what the store holds: an error came between them.
    must_reload: bool,
}

impl Sequencer {
    /// Checks that this sequencer can do its work, and takes up what the store holds.
    ///
    /// # Errors
    /// [`SequencerError::NotInSet`], [`SequencerError::Threshold`], [`SequencerError::NoTimeToPost`],
    /// [`SequencerError::Twin`]; else what the node or the store say.
    pub fn new(
        policy: Policy,
        mut node: Follower,
        rpc: RpcNode,
        wallet: Wallet,
        store: SequencerStore,
        watermark: Watermark,
    ) -> Result<Self, SequencerError> {
        check_time_to_post(node.manifest(), policy.confirmations)?;
        let executor = Arc::clone(node.executor());
        node.sync(&rpc, |_| ())?;
        let key = policy.key.x_only_public_key().0;
        let set = node.derivation().sequencers();
        if set.threshold() != 1 {
            return Err(SequencerError::Threshold(set.threshold()));
        }
        set.index_of(&key).ok_or(SequencerError::NotInSet(key))?;
        let rollup_id = node.manifest().rollup_id();
        let mut history = History::new(watermark, rollup_id, policy.signed_up_to, &store)?;
        let store = Arc::new(Mutex::new(store));
        begin(&mut history, &Look { node: &node, rpc: &rpc, store: &store, key })?;
        let soft = SoftChain::load(&node, &mut lock(&store))?;
        let status = Status {
            rollup_id,
            unsafe_head: soft.head_view(),
            safe_head: soft.base_view(),
            bitcoin: node.derivation().tip().block,
            accepting: true,
            posting_error: None,
            in_flight: None,
            least_fee_msat_per_byte: 0,
            paid_per_day_sat: 0,
            max_fee_per_day_sat: policy.max_fee_per_day.map(Amount::to_sat),
            paused: None,
            trouble: None,
            receipts_from: history.receipts_from(node.derivation().tip().block.height),
        };
        let status = Arc::new(RwLock::new(status));
        Ok(Self {
            node,
            rpc,
            readers: Vec::new(),
            verify_all_blocks: false,
            wallet,
            submit: Submit::new(Arc::clone(&store), executor, &policy, Arc::clone(&status), soft.state()),
            store,
            status,
            soft,
            signer: Signer::new(policy.key, history),
            policy,
            posting: post::Posting::default(),
            budget: budget::Budget::default(),
            must_reload: false,
        })
    }

    /// Takes blocks from these first, as [`Scanner`] does, and checks each whole if that is asked for.
    pub fn read_by(self, readers: Vec<Box<dyn BlockReader>>, verify_all_blocks: bool) -> Self {
        Self { readers, verify_all_blocks, ..self }
    }

    /// What it shows of itself, kept up to date by [`tick`](Self::tick).
    pub fn status(&self) -> Arc<RwLock<Status>> {
        Arc::clone(&self.status)
    }

    /// What takes transactions in while the engine runs.
    pub fn submit(&self) -> Submit {
        self.submit.clone()
    }

    /// Follows Bitcoin, makes the blocks that are due and posts them; `now` in seconds since 1970.
    ///
    /// # Errors
    /// [`SequencerError`]: everything done before it is kept, and calling again goes on from there. A
    /// batch that cannot be posted is no error: it is told and tried again.
    pub fn tick(&mut self, now: u64, mut on_done: impl FnMut(Done)) -> Result<(), SequencerError> {
        let outcome = self.try_tick(now, &mut on_done);
        self.must_reload = outcome.is_err();
        let mut status = self.status.write().unwrap_or_else(PoisonError::into_inner);
        status.trouble = outcome.as_ref().err().map(ToString::to_string);
        status.accepting &= !outcome.as_ref().is_err_and(SequencerError::is_of_full_disk);
        outcome
    }

    fn try_tick(&mut self, now: u64, on_done: &mut impl FnMut(Done)) -> Result<(), SequencerError> {
        let scanner = Scanner::from(&self.rpc).readers(&self.readers).verify_all_blocks(self.verify_all_blocks);
        self.node.sync(scanner, |event| on_done(Done::Bitcoin(event.clone())))?;
        self.follow(on_done)?;
        self.look_back(now)?;
        self.count_costs(now, on_done)?;
        let room = if self.may_promise() { self.room() } else { 0 };
        self.make_blocks(now, room, on_done)?;
        self.show(room > 0);
        self.post(now, on_done)?;
        self.show(room > 0);
        // What no reorganisation that the follower can take back could orphan need not be watched.
        let settled = self.node.settled_head()?.head.header.number;
        self.signer.history.settle(settled);
        lock(&self.store).settle(settled)
    }

    fn follow(&mut self, on_done: &mut impl FnMut(Done)) -> Result<(), SequencerError> {
        let mut store = lock(&self.store);
        if self.must_reload {
            self.soft.reload(&self.node, &mut store)?;
        }
        let orphaned = self.soft.realign(&self.node, &mut store)?;
        if orphaned > 0 {
            on_done(Done::Orphaned(orphaned));
        }
        Ok(())
    }

    /// Looks at what this key has signed before, and elsewhere.
    fn look_back(&mut self, now: u64) -> Result<(), SequencerError> {
        let Self { node, rpc, soft, signer, .. } = self;
        let (key, tip) = (self.policy.key.x_only_public_key().0, node.derivation().tip());
        let history = &mut signer.history;
        history.tick(now, &soft.head(), &tip, &mut lock(&self.store))?;
        let record = history.record();
        let look = Look { node, rpc, store: &self.store, key };
        let mut twin = None;
        if record.compared != tip.block.height {
            let above = record.compared.min(tip.block.height).saturating_sub(LOOK_BACK);
            twin = look.on_bitcoin(above, record.known_since)?;
        }
        if twin.is_none() && history.never_signed() {
            twin = look.in_mempool(record.known_since)?;
        }
        match twin {
            Some(place) => Err(SequencerError::Twin { place, watermark: history.watermark().path().to_owned() }),
            None => history.compared(tip.block.height, &mut lock(&self.store)),
        }
    }

    /// Whether own transactions put into a block now would reach Bitcoin in time: the key may sign, what is
    /// promised already fits a few batches, and the oldest of it is not about to go stale.
    fn may_promise(&self) -> bool {
        let key = self.policy.key.x_only_public_key().0;
        if self.node.derivation().sequencers().index_of(&key).is_none()
            || self.soft.own_bytes() > self.policy.limits.promised_bytes
            || self.soft.len() as u64 > self.policy.limits.promised_blocks
        {
            return false;
        }
        let max_lag = u32::from(self.node.manifest().max_lag);
        let base = self.node.derivation().head();
        let oldest = self.soft.after(&base.hash).find(|soft| !soft.block.own_txs.is_empty());
        oldest.is_none_or(|soft| self.lag(soft.block.header.origin.height) + self.posting_margin() <= max_lag)
    }

    /// Bitcoin blocks before its end by which a batch is to be mined.
    fn posting_margin(&self) -> u32 {
        u32::from(self.node.manifest().max_lag) / self.policy.limits.posting_margin.max(1)
    }

    /// How far an origin lies behind the Bitcoin block that could carry a batch at the earliest.
    fn lag(&self, origin: BtcHeight) -> u32 {
        (self.node.derivation().tip().block.height + 1).saturating_sub(origin)
    }

    fn make_blocks(&mut self, now: u64, room: usize, on_done: &mut impl FnMut(Done)) -> Result<(), SequencerError> {
        let adopted = (self.node.derivation().tip().block.height + 1).saturating_sub(self.policy.confirmations);
        loop {
            let parent = self.soft.head().header;
            let Some(current) = self.node.derivation().origin(parent.origin.height).copied() else { return Ok(()) };
            let behind = parent.origin.height < adopted;
            let next = self.node.derivation().origin(parent.origin.height + 1).copied();
            let has_backlog = parent.forced_end < current.queue_size;
            let (origin, last) = match next {
                Some(next) if behind && !has_backlog => (next, next.block.height == adopted),
                _ => (current, !behind),
            };
            let max_lag = u32::from(self.node.manifest().max_lag);
            // Own transactions wait for the freshest origin: there they have the most time to reach Bitcoin.
            let is_fresh = last && self.lag(origin.block.height) <= max_lag;
            let room = if is_fresh { room.min(self.policy.limits.block_bytes) } else { 0 };
            let (earliest, latest) = self.timestamps(&origin);
            let turn = self.signer.turn(self.node.derivation(), &self.soft.head(), now, (earliest, latest));
            let price = self.budget.price;
            let next = match turn {
                Turn::Wait => return Ok(()),
                Turn::Empty(timestamp) => Next { origin: &origin, timestamp, room: 0, price, turn },
                Turn::Any => Next { origin: &origin, timestamp: now.clamp(earliest, latest), room, price, turn },
            };
            let mut store = lock(&self.store);
            let made = self.soft.make_block(&self.node, &mut store, &mut self.signer, next)?;
            drop(store);
            let Some(made) = made else { return Ok(()) };
            let is_last = turn == Turn::Any && last && made.block.header.forced_end == origin.queue_size;
            on_done(Done::Made(made));
            if is_last {
                return Ok(());
            }
        }
    }

    /// The earliest and the latest timestamp that the next block may have.
    fn timestamps(&self, origin: &Origin) -> (u64, u64) {
        let earliest = self.soft.head().header.child_lower_bound(origin);
        let median_time = u64::from(self.node.derivation().tip().median_time);
        (earliest, earliest.max(median_time + MAX_FUTURE_SECONDS))
    }

    fn show(&self, accepting: bool) {
        let mut status = self.status.write().unwrap_or_else(PoisonError::into_inner);
        status.unsafe_head = self.soft.head_view();
        status.safe_head = self.soft.base_view();
        status.bitcoin = self.node.derivation().tip().block;
        status.accepting = accepting;
        status.posting_error.clone_from(&self.posting.error);
        status.receipts_from = self.signer.history.receipts_from(status.bitcoin.height);
        status.in_flight.clone_from(&self.posting.in_flight);
        self.budget.show(&self.policy, &mut status);
    }

    /// What is left undone when it stops now.
    ///
    /// # Errors
    /// [`SequencerError::StoppedStuck`] if a batch does not get to Bitcoin.
    pub fn stop(self) -> Result<(), SequencerError> {
        match self.posting.in_flight.filter(|in_flight| in_flight.stuck_since.is_some()) {
            Some(stuck) => Err(SequencerError::StoppedStuck(Box::new(stuck))),
            None => Ok(()),
        }
    }
}

/// Refuses settings under which every batch would be stale when it is mined.
///
/// # Errors
/// [`SequencerError::NoTimeToPost`].
pub fn check_time_to_post(manifest: &Manifest, confirmations: u32) -> Result<(), SequencerError> {
    let (max_lag, window) = (manifest.max_lag, manifest.sequencing_window);
    let needed = confirmations.saturating_add(POSTING_DELAY);
    if u32::from(window) <= needed || u32::from(max_lag) < needed {
        return Err(SequencerError::NoTimeToPost { max_lag, window, confirmations });
    }
    Ok(())
}

/// Settles how this start relates to what the key has signed, by what is on Bitcoin and in the mempool.
fn begin(history: &mut History, look: &Look<'_>) -> Result<(), SequencerError> {
    let tip = look.node.derivation().tip().block.height;
    let (compared, known_since) = (history.record().compared, history.record().known_since);
    let twin = match history.start() {
        Start::Lost => None,
        _ => match look.on_bitcoin(compared.saturating_sub(LOOK_BACK), known_since)? {
            None => look.in_mempool(known_since)?,
            found => found,
        },
    };
    match (history.start(), twin) {
        (Start::Again, Some(place)) => {
            return Err(SequencerError::Twin { place, watermark: history.watermark().path().to_owned() });
        }
        // The watermark is as old as the key, and the key has signed since.
        (Start::First, Some(_)) | (Start::Lost, _) => history.lose(tip, look.node.manifest().sequencing_window),
        (_, None) => {}
    }
    Ok(())
}

fn lock(store: &Mutex<SequencerStore>) -> MutexGuard<'_, SequencerStore> {
    // Every method of the store is one transaction: a panic elsewhere leaves it whole.
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tip at which something was last done.
type Seen = Option<BlockHash>;

#[cfg(test)]
mod tests;
