//! What the key may have signed before this start, and what it may sign now without contradicting that.
//!
//! The key's signatures outlive everything on this machine. So each start but the first of a key is taken for
//! one that has lost some of its past, whatever store and [`Watermark`] say: both may be copies, or have been
//! rolled back together (the snapshot of a virtual machine). A clock that jumps counts as a start. What holds:
//!
//! - *Headers and state roots.* No header is signed on a parent that could have existed before the start. A
//!   start opens with two empty unsigned blocks: the first differs from all before it by its second, the
//!   second from one that another machine makes in the same second by a random number of seconds. What stands
//!   on them exists nowhere else. So two headers of this key have never one parent. A state root follows from
//!   its block, and two of one block are equal.
//! - *Receipts of before, which may be forgotten:* each names 65 numbers or more. Up to the highest that may
//!   have been signed, each block whose number is a multiple of 64 stays empty and unsigned, so that no chain
//!   of signed headers covers a forgotten promise.
//! - *Receipts from now on* end above the highest number that may have been signed, so that no forgotten
//!   header breaks them. If store and watermark do not belong together, none is given until a window has passed.
//! - *Batches.* The key covers what it posts before it signs. A batch of this key on Bitcoin that the store
//!   does not know is another sequencer's, or the trace of a rollback: it stops this one (`twin`). A store that
//!   is known to be new or older takes those before the start for its own past.
//! - *Handovers.* The sequencer signs none.
//!
//! The highest number is the watermark's; and at least what one sequencer can have made since the head's time:
//! a block of own transactions a second, up to the limit of what may be promised, and the blocks that Bitcoin
//! caused. `--signed-up-to N` takes the operator's word for it.
//!
//! What cannot be helped: a clock that repeats itself while store and watermark are rolled back; a copy of a
//! key that never signed, started as its original before either has posted a batch; two machines that start in
//! the same second, once in 256; and an operator whose `--signed-up-to` is too low.

use super::store::SequencerStore;
use super::watermark::{Mark, Watermark, WatermarkError, new_session};
use super::{MAX_PROMISED_BLOCKS, SequencerError};
use crate::l2::{L2Block, L2Head, Origin};
use crate::primitives::{BtcHeight, Hash32, L2Number, RollupId};
use bitcoin::secp256k1::rand::{Rng, rngs::OsRng};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// L2 blocks beyond the last signed one within which a promised transaction is executed.
pub(super) const RECEIPT_SPAN: u64 = 64;

/// Longest time between two ticks that is not taken for a machine that was stopped and went on, in seconds.
const LONGEST_PAUSE: u64 = 60;

/// Seconds among which the second opening block's are drawn.
const SPREAD: u64 = 256;

/// How this start relates to what the key has signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// The key never signed.
    First,
    /// Store and watermark belong together.
    Again,
    /// The store is new, or older than what was signed, or nothing is known of the key.
    Lost,
}

/// What the store keeps of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The start that wrote last, as in the watermark.
    pub session: Option<String>,
    /// No block above this number was signed before the session.
    pub signed_up_to: L2Number,
    /// Receipts are given from this Bitcoin height on.
    pub receipts_from: BtcHeight,
    /// The store knows the batches whose last origin lies above this height.
    pub known_since: BtcHeight,
    /// The height up to which batches on Bitcoin were compared with it.
    pub compared: BtcHeight,
}

/// What the next block has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// No block before the next second.
    Wait,
    /// An empty one, unsigned, with this timestamp.
    Empty(u64),
    /// Any.
    Any,
}

/// The rules above, with what they need to remember.
pub(super) struct History {
    watermark: Watermark,
    rollup: RollupId,
    start: Start,
    record: Record,
    /// The operator's word that no block above was signed.
    declared: Option<L2Number>,
    /// When this start began, and the last tick, by the clock on the wall.
    started: Option<u64>,
    ticked: u64,
    /// The first of the two opening blocks.
    opening: Option<Hash32>,
    /// Blocks of this start that cannot have existed before it.
    unique: BTreeSet<(L2Number, Hash32)>,
}

impl History {
    pub(super) fn new(
        watermark: Watermark,
        rollup: RollupId,
        declared: Option<L2Number>,
        store: &SequencerStore,
    ) -> Result<Self, SequencerError> {
        let record = store.history()?;
        let start = match watermark.mark(&rollup) {
            _ if declared.is_some() => Start::Lost,
            None if watermark.never_signed(&rollup) && !store.has_signed()? => Start::First,
            Some(mark) if record.session.is_some() && mark.is_of(record.session.as_ref()) => Start::Again,
            _ => Start::Lost,
        };
        Ok(Self {
            watermark,
            rollup,
            start,
            record,
            declared,
            started: None,
            ticked: 0,
            opening: None,
            unique: BTreeSet::new(),
        })
    }

    pub(super) fn start(&self) -> Start {
        self.start
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn watermark(&self) -> &Watermark {
        &self.watermark
    }

    /// Whether not even this start has signed anything.
    pub(super) fn never_signed(&self) -> bool {
        self.start == Start::First && self.watermark.never_signed(&self.rollup)
    }

    /// Takes everything that is on Bitcoin for the past of a store that does not know it.
    pub(super) fn lose(&mut self, tip: BtcHeight, window: u16) {
        self.start = Start::Lost;
        self.record.known_since = tip;
        self.record.compared = tip;
        self.record.receipts_from = if self.declared.is_some() { 0 } else { tip + u32::from(window) };
    }

    /// Batches up to a height were compared with the store.
    pub(super) fn compared(&mut self, tip: BtcHeight, store: &mut SequencerStore) -> Result<(), SequencerError> {
        if self.record.compared != tip {
            self.record.compared = tip;
            store.put_history(&self.record)?;
        }
        Ok(())
    }

    /// Begins a tick; at the first, and after a jump of the clock, a start.
    pub(super) fn tick(
        &mut self,
        now: u64,
        head: &L2Head,
        tip: &Origin,
        store: &mut SequencerStore,
    ) -> Result<(), SequencerError> {
        let last = std::mem::replace(&mut self.ticked, now);
        if self.started.is_some() && (last..=last.saturating_add(LONGEST_PAUSE)).contains(&now) {
            return Ok(());
        }
        if self.started.replace(now).is_some() && !self.never_signed() {
            self.start = Start::Again;
        }
        self.opening = None;
        self.unique.clear();
        let before = self.record.session.replace(new_session());
        if self.start != Start::First {
            self.record.signed_up_to = self.highest_possible(now, head, tip, store)?;
            let mark = Mark {
                session: self.record.session.clone().unwrap_or_default(),
                before: before.filter(|_| self.start == Start::Again),
                signed_up_to: self.record.signed_up_to,
            };
            self.watermark.set(&self.rollup, mark)?;
        }
        store.put_history(&self.record)
    }

    /// The highest number that anything may have been signed for.
    fn highest_possible(
        &self,
        now: u64,
        head: &L2Head,
        tip: &Origin,
        store: &SequencerStore,
    ) -> Result<L2Number, SequencerError> {
        let header = &head.header;
        let known = self.watermark.mark(&self.rollup).map_or(0, |mark| mark.signed_up_to);
        let known = known.max(self.record.signed_up_to).max(store.highest_signed()?);
        Ok(known.max(self.declared.unwrap_or_else(|| {
            let own = now.saturating_sub(header.timestamp).min(MAX_PROMISED_BLOCKS);
            let adopting = u64::from(tip.block.height.saturating_sub(header.origin.height));
            let forced = tip.queue_size.saturating_sub(header.forced_end);
            header.number.saturating_add(own).saturating_add(adopting).saturating_add(forced) + RECEIPT_SPAN
        })))
    }

    /// What the block on `parent` has to be, whose timestamp may lie from `earliest` to `latest`.
    pub(super) fn turn(&self, parent: &L2Head, now: u64, earliest: u64, latest: u64) -> Turn {
        let number = parent.header.number.saturating_add(1);
        if self.is_free(number) {
            return Turn::Any;
        }
        if self.is_unique(parent.header.number, parent.hash) {
            return if self.is_gap(number) { Turn::Empty(now.clamp(earliest, latest)) } else { Turn::Any };
        }
        let started = self.started.unwrap_or(now);
        if self.opening != Some(parent.hash) && earliest < now && now <= latest {
            return if started < now { Turn::Empty(now) } else { Turn::Wait };
        }
        match latest.saturating_sub(earliest).min(SPREAD) {
            // Nothing sets it apart. It may be made with transactions, but not be signed.
            0 => Turn::Any,
            room => Turn::Empty(earliest + OsRng.gen_range(1..=room)),
        }
    }

    /// Remembers a block of this start. One that is `known` was made before.
    pub(super) fn made(&mut self, block: &L2Block, turn: Turn, known: bool) {
        let (number, parent) = (block.header.number, block.header.parent);
        let stands_on_unique = self.is_unique(number.saturating_sub(1), parent);
        if stands_on_unique || (self.opening == Some(parent) && !known) {
            self.unique.insert((number, block.hash));
        } else if matches!(turn, Turn::Empty(_)) {
            self.opening = Some(block.hash);
        }
    }

    /// Forgets blocks below a number that no reorganisation reaches.
    pub(super) fn settle(&mut self, number: L2Number) {
        self.unique = self.unique.split_off(&(number, Hash32::default()));
    }

    /// Whether this block's header may be signed.
    pub(super) fn may_sign(&self, block: &L2Block) -> bool {
        let header = &block.header;
        self.is_free(header.number)
            || (self.is_unique(header.number.saturating_sub(1), header.parent) && !self.is_gap(header.number))
    }

    /// The height from which receipts are given, if that is still to come.
    pub(super) fn receipts_from(&self, tip: BtcHeight) -> Option<BtcHeight> {
        Some(self.record.receipts_from).filter(|from| tip < *from)
    }

    /// A receipt's last number lies above every number that may have been signed.
    pub(super) fn last_number(&self, number: L2Number, highest_signed: L2Number) -> L2Number {
        number.max(highest_signed).max(self.record.signed_up_to).saturating_add(RECEIPT_SPAN)
    }

    /// Makes sure that the watermark covers what is about to be signed.
    pub(super) fn reserve(&mut self, number: L2Number) -> Result<(), WatermarkError> {
        let session = self.record.session.as_deref().unwrap_or_default();
        self.watermark.reserve(&self.rollup, session, number)
    }

    /// Nobody can have signed a block with this number.
    fn is_free(&self, number: L2Number) -> bool {
        self.start == Start::First || self.declared.is_some_and(|_| number > self.record.signed_up_to)
    }

    fn is_unique(&self, number: L2Number, hash: Hash32) -> bool {
        self.unique.contains(&(number, hash))
    }

    fn is_gap(&self, number: L2Number) -> bool {
        number.is_multiple_of(RECEIPT_SPAN) && number <= self.record.signed_up_to.saturating_add(RECEIPT_SPAN)
    }
}

impl Mark {
    /// Whether a store of this session is the one that signed last.
    fn is_of(&self, session: Option<&String>) -> bool {
        Some(&self.session) == session || (self.before.is_some() && self.before.as_ref() == session)
    }
}
