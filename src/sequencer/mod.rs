//! The lightweight sequencer: soft blocks in order of arrival, forced items first, batches to Bitcoin.
//!
//! Guarantees: what it acknowledged or signed is on disk first; killed at any moment it goes on where it
//! was; it never signs a second batch for a parent while the first can still be accepted. It cannot
//! choose which forced items it executes: the section comes from the same function that every follower
//! derives by. Nothing that it signs convicts it, whatever Bitcoin does. Trusts its Bitcoin node.

mod admission;
mod api;
mod budget;
mod in_flight;
mod order;
mod post;
mod sign;
mod soft;
mod store;

pub use api::{MAX_TX_LEN, Refusal, Submit, serve};
pub use in_flight::InFlight;
pub use order::Carried;
pub use soft::{SoftBlock, SoftChain};
pub use store::{MAX_POOL, SequencerStore, SignedBlock, StoredBlock, TxStatus};

use crate::chain::{BlockReader, RpcNode};
use crate::database::OpenError;
use crate::derive::DropReason;
use crate::executor::ledger::Account;
use crate::executor::{Executor, of_manifest};
use crate::l2::{L2Head, Origin};
use crate::manifest::Manifest;
use crate::node::{Event, Node, NodeError};
use crate::primitives::{BlockRef, BtcHeight, Hash32, L2Number, RollupId};
use crate::publish::{Bumped, Publication, PublishError, RateTerms};
use crate::queue::Place;
use crate::scanner::{ScanError, Scanner};
use crate::wallet::{Caps, JobId, Wallet, WalletError};
use admission::Price;
use bitcoin::secp256k1::Keypair;
use bitcoin::{Amount, BlockHash, XOnlyPublicKey};
use serde::Serialize;
use sign::Signer;
use soft::Next;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Bitcoin blocks that a batch may need until it is mined, at least.
const POSTING_DELAY: u32 = 1;

/// Most bytes of own transactions that are promised and not derived: what a few batches hold.
const MAX_PROMISED: usize = 4 * post::MAX_PLAIN_DATA;

/// How far in front of Bitcoin's median time a timestamp may be, in seconds.
const MAX_FUTURE_SECONDS: u64 = 7200;

/// Why the sequencer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SequencerError {
    /// The follower in it.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Its wallet.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// Posting a batch.
    #[error("posting a batch: {0}")]
    Publish(#[from] PublishError),
    /// Its file cannot be read or written.
    #[error("the sequencer's database: {0}")]
    Store(#[from] rusqlite::Error),
    /// Its file holds something that this code did not write.
    #[error("the sequencer's database is damaged; restore it from a backup")]
    Damaged,
    /// Its file was made by another version.
    #[error("the sequencer's database has schema version {0}, which this sortie does not know")]
    Schema(i64),
    /// Too many transactions wait.
    #[error("{MAX_POOL} transactions are waiting; try again later")]
    PoolFull,
    /// Too many transactions of one sender wait.
    #[error("{} transactions of this sender are waiting; try again later", store::MAX_WAITING)]
    SenderFull,
    /// The key is not one that may sign.
    #[error("key {0} is not in the rollup's sequencer set; give --key the file of a key that is")]
    NotInSet(XOnlyPublicKey),
    /// More than one signature is needed.
    #[error("the rollup needs {0} signatures for a batch; this sequencer signs alone")]
    Threshold(u8),
    /// No batch could ever be accepted.
    #[error(
        "max_lag {max_lag} and sequencing_window {window} leave no time to post: with {confirmations} confirmations every batch would be stale; lower --confirmations"
    )]
    NoTimeToPost {
        /// The manifest's.
        max_lag: u16,
        /// The manifest's.
        window: u16,
        /// The policy's.
        confirmations: u32,
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
            SequencerError::Node(NodeError::Scan(ScanError::Chain(error))) => error.may_pass(),
            SequencerError::Node(error) => error.is_temporary(),
            _ => false,
        }
    }

    /// Whether one of its files could not be read or written.
    fn is_of_disk(&self) -> bool {
        use WalletError::Database;
        matches!(
            self,
            SequencerError::Store(_)
                | SequencerError::Node(NodeError::Store(_))
                | SequencerError::Wallet(Database(_))
                | SequencerError::Publish(PublishError::Wallet(Database(_)))
        )
    }
}

/// The sequencer's policy: nothing here is part of the protocol.
#[derive(Clone)]
pub struct Policy {
    /// Signs batches.
    pub key: Keypair,
    /// An origin is adopted once it has this many.
    pub confirmations: u32,
    /// Accounts whose transactions are refused: the cheat that demos and tests need.
    pub denied: BTreeSet<Account>,
    /// What decides the rate of a new batch.
    pub rate: RateTerms,
    /// What a batch may cost.
    pub caps: Caps,
    /// What own transactions may cost on Bitcoin in 24 hours, all their batches together.
    pub max_fee_per_day: Option<Amount>,
    /// How much of what posting it costs a transaction has to pay, in percent, where the executor knows fees.
    pub least_fee_percent: u32,
}

/// A head, for people and for [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeadView {
    /// Number of the L2 block.
    pub number: L2Number,
    /// Its hash.
    pub hash: Hash32,
    /// Commitment to the state after it.
    pub state_root: Hash32,
    /// Height of its origin.
    pub origin_height: BtcHeight,
    /// Its time, seconds since 1970.
    pub timestamp: u64,
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
    Bitcoin(Event),
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
    node: Node,
    rpc: RpcNode,
    readers: Vec<Box<dyn BlockReader>>,
    verify_all_blocks: bool,
    wallet: Wallet,
    executor: Arc<dyn Executor>,
    store: Arc<Mutex<SequencerStore>>,
    status: Arc<RwLock<Status>>,
    soft: SoftChain,
    signer: Signer,
    posting: post::Posting,
    budget: budget::Budget,
    /// The soft chain may not be what the store holds: an error came between them.
    must_reload: bool,
}

impl HeadView {
    fn new(head: L2Head, state_root: Hash32) -> Self {
        Self {
            number: head.header.number,
            hash: head.hash,
            state_root,
            origin_height: head.header.origin.height,
            timestamp: head.header.timestamp,
        }
    }
}

impl Sequencer {
    /// Checks that this sequencer can do its work, and takes up what the store holds.
    ///
    /// # Errors
    /// [`SequencerError::NotInSet`], [`SequencerError::Threshold`], [`SequencerError::NoTimeToPost`]; else
    /// what the node or the store say.
    pub fn new(
        policy: Policy,
        mut node: Node,
        rpc: RpcNode,
        wallet: Wallet,
        mut store: SequencerStore,
    ) -> Result<Self, SequencerError> {
        check_time_to_post(node.manifest(), policy.confirmations)?;
        let executor = of_manifest(node.manifest()).map_err(NodeError::from)?.into();
        node.sync(&rpc, |_| ())?;
        let key = policy.key.x_only_public_key().0;
        let set = node.derivation().sequencers();
        if set.threshold() != 1 {
            return Err(SequencerError::Threshold(set.threshold()));
        }
        set.index_of(&key).ok_or(SequencerError::NotInSet(key))?;
        let soft = SoftChain::load(&node, &mut store)?;
        let status = Status {
            rollup_id: node.manifest().rollup_id(),
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
        };
        Ok(Self {
            node,
            rpc,
            readers: Vec::new(),
            verify_all_blocks: false,
            wallet,
            executor,
            store: Arc::new(Mutex::new(store)),
            status: Arc::new(RwLock::new(status)),
            soft,
            signer: Signer::new(policy.key),
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
        let (store, executor) = (Arc::clone(&self.store), Arc::clone(&self.executor));
        Submit::new(store, executor, self.policy.denied.clone(), self.status(), self.soft.state())
    }

    /// Follows Bitcoin, makes the blocks that are due and posts them; `now` in seconds since 1970.
    ///
    /// # Errors
    /// [`SequencerError`]: everything done before it is kept, and calling again goes on from there. A
    /// batch that cannot be posted is no error: it is told and tried again.
    pub fn tick(&mut self, now: u64, mut on_done: impl FnMut(Done)) -> Result<(), SequencerError> {
        let outcome = self.try_tick(now, &mut on_done);
        self.must_reload = outcome.is_err();
        outcome
    }

    fn try_tick(&mut self, now: u64, on_done: &mut impl FnMut(Done)) -> Result<(), SequencerError> {
        let scanner = Scanner::from(&self.rpc).readers(&self.readers).verify_all_blocks(self.verify_all_blocks);
        self.node.sync(scanner, |event| on_done(Done::Bitcoin(event.clone())))?;
        self.follow(on_done)?;
        self.count_costs(now, on_done)?;
        let room = if self.may_promise() { self.room() } else { 0 };
        self.make_blocks(now, room, on_done)?;
        self.show(room > 0);
        self.post(now, on_done)?;
        self.show(room > 0);
        // What no reorganisation that the follower can take back could orphan need not be watched.
        let settled = self.node.settled_head()?.head.header.number;
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

    /// Whether own transactions put into a block now would reach Bitcoin in time: the key may sign, what is
    /// promised already fits a few batches, and the oldest of it is not about to go stale.
    fn may_promise(&self) -> bool {
        let key = self.policy.key.x_only_public_key().0;
        if self.node.derivation().sequencers().index_of(&key).is_none() || self.soft.own_bytes() > MAX_PROMISED {
            return false;
        }
        let max_lag = u32::from(self.node.manifest().max_lag);
        let base = self.node.derivation().head();
        let oldest = self.soft.after(&base.hash).find(|soft| !soft.block.own_txs.is_empty());
        oldest.is_none_or(|soft| self.lag(soft.block.header.origin.height) + self.posting_margin() <= max_lag)
    }

    /// Bitcoin blocks before its end by which a batch is to be mined.
    fn posting_margin(&self) -> u32 {
        u32::from(self.node.manifest().max_lag) / 4
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
            let room = if is_fresh { room } else { 0 };
            let timestamp = self.timestamp(now, &origin);
            let mut store = lock(&self.store);
            let next = Next { origin: &origin, timestamp, room, price: self.budget.price };
            let made = self.soft.make_block(&self.node, &mut store, &self.signer, next)?;
            drop(store);
            let Some(made) = made else { return Ok(()) };
            let is_last = last && made.block.header.forced_end == origin.queue_size;
            on_done(Done::Made(made));
            if is_last {
                return Ok(());
            }
        }
    }

    fn timestamp(&self, now: u64, origin: &Origin) -> u64 {
        let lower_bound = self.soft.head().header.child_lower_bound(origin);
        let median_time = u64::from(self.node.derivation().tip().median_time);
        now.clamp(lower_bound, lower_bound.max(median_time + MAX_FUTURE_SECONDS))
    }

    fn show(&self, accepting: bool) {
        let mut status = self.status.write().unwrap_or_else(PoisonError::into_inner);
        status.unsafe_head = self.soft.head_view();
        status.safe_head = self.soft.base_view();
        status.bitcoin = self.node.derivation().tip().block;
        status.accepting = accepting;
        status.posting_error.clone_from(&self.posting.error);
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

fn lock(store: &Mutex<SequencerStore>) -> MutexGuard<'_, SequencerStore> {
    // Every method of the store is one transaction: a panic elsewhere leaves it whole.
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tip at which something was last done.
type Seen = Option<BlockHash>;
