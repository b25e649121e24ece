//! How far an L2 transaction has come: `mempool -> confirmed(n) -> queued(index, due height) ->
//! executed(L2 block, ok | no-op(reason))`.

use super::{ChainView, Fate, FollowerError, QueuedItem};
use crate::executor::Outcome;
use crate::primitives::{BtcHeight, Hash32, L2Number};
use crate::queue::Place;
use serde::Serialize;
use std::fmt;

/// The furthest stage that a transaction has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TxStage {
    /// In Bitcoin's mempool.
    Mempool,
    /// In a Bitcoin block, with fewer confirmations than a sequencer waits for.
    Confirmed,
    /// In the queue, deep enough for a sequencer to adopt it.
    Queued,
    /// In a derived L2 block.
    Executed,
}

/// The way that a transaction takes into its L2 block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// Through the queue on Bitcoin.
    Forced,
    /// Through a sequencer.
    Own,
}

/// An executor's outcome, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// `ok` or `no-op`.
    pub outcome: &'static str,
    /// The reason for a no-op.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

impl From<Outcome> for Effect {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok => Self { outcome: "ok", reason: None },
            Outcome::NoOp(reason) => Self { outcome: "no-op", reason: Some(reason.name()) },
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            None => f.write_str(self.outcome),
            Some(reason) => write!(f, "{}: {reason}", self.outcome),
        }
    }
}

/// The execution of a transaction.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Execution {
    /// Number of the L2 block.
    pub l2_number: L2Number,
    /// Hash of the L2 block.
    pub l2_hash: Hash32,
    /// The Bitcoin block that settled it.
    pub derived_at: BtcHeight,
    /// The outcome.
    #[serde(flatten)]
    pub effect: Effect,
    /// Whether that Bitcoin block is `finality_depth` deep.
    #[serde(rename = "final")]
    pub is_final: bool,
}

/// An item's position in the queue and on Bitcoin.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Queued {
    /// Height of the Bitcoin block that holds it.
    pub height: BtcHeight,
    /// Hash of that block.
    pub block_hash: bitcoin::BlockHash,
    /// Depth of that block; the tip has one confirmation.
    pub confirmations: u32,
    /// Index in the queue.
    pub index: u64,
    /// The Bitcoin height at which it is executed at the latest.
    pub due_height: u64,
}

/// One transaction on its way from the mempool into an L2 block.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Lifecycle {
    /// The furthest stage.
    #[serde(rename = "state")]
    pub stage: TxStage,
    /// The way into the L2 block.
    #[serde(rename = "route")]
    pub entry: Entry,
    /// Place on Bitcoin; `None` for a sequencer's own transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// SHA-256 of the L2 transaction.
    pub tx_hash: Hash32,
    /// Position in the queue, once Bitcoin has mined it.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub queued: Option<Queued>,
    /// Its execution, if a derived block has executed it.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
}

/// Reads lifecycles from a derived chain, by a user's depths.
pub struct Lifecycles<'a> {
    view: &'a ChainView,
    confirmations: u32,
    finality_depth: u32,
}

impl<'a> Lifecycles<'a> {
    /// `confirmations`: how deep an item's block must lie before sequencers adopt it. `finality_depth`: how deep the
    /// block that settled an execution must lie to be final. Both in Bitcoin blocks.
    pub fn new(view: &'a ChainView, confirmations: u32, finality_depth: u32) -> Self {
        Self { view, confirmations, finality_depth }
    }

    /// An item of the queue.
    ///
    /// # Errors
    /// [`FollowerError`], if the store cannot be read, or has just lost the item's L2 block.
    pub fn forced(&self, queued: &QueuedItem) -> Result<Lifecycle, FollowerError> {
        let height = queued.item.block.height;
        let confirmations = (self.view.tip_height()? + 1).saturating_sub(height);
        let execution = queued.fate.map(|fate| self.execution(fate)).transpose()?;
        let stage = match execution {
            Some(_) => TxStage::Executed,
            // A sequencer does not look at it yet, since it may still move.
            None if confirmations < self.confirmations => TxStage::Confirmed,
            None => TxStage::Queued,
        };
        Ok(Lifecycle {
            stage,
            entry: Entry::Forced,
            place: Some(queued.item.place),
            tx_hash: queued.item.tx_hash(),
            queued: Some(Queued {
                height,
                block_hash: queued.item.block.hash,
                confirmations,
                index: queued.index,
                due_height: self.view.due_height(height),
            }),
            execution,
        })
    }

    /// Every occurrence of a transaction, by its SHA-256: items of the queue first, then sequencers' own transactions.
    ///
    /// # Errors
    /// As [`forced`](Self::forced).
    pub fn of_hash(&self, tx_hash: &Hash32) -> Result<Vec<Lifecycle>, FollowerError> {
        let store = self.view.store();
        let forced = store.items_with_hash(tx_hash)?;
        let own = store.own_txs_with_hash(tx_hash)?;
        let forced = forced.iter().map(|item| self.forced(item));
        forced.chain(own.into_iter().map(|fate| self.own(*tx_hash, fate))).collect()
    }

    fn own(&self, tx_hash: Hash32, fate: Fate) -> Result<Lifecycle, FollowerError> {
        let execution = Some(self.execution(fate)?);
        Ok(Lifecycle { stage: TxStage::Executed, entry: Entry::Own, place: None, tx_hash, queued: None, execution })
    }

    /// An item that waits in the mempool.
    pub fn in_mempool(place: Place, tx_hash: Hash32) -> Lifecycle {
        let place = Some(place);
        Lifecycle { stage: TxStage::Mempool, entry: Entry::Forced, place, tx_hash, queued: None, execution: None }
    }

    /// The Bitcoin height at which an execution is final.
    pub fn final_at(&self, execution: &Execution) -> u64 {
        u64::from(execution.derived_at) + u64::from(self.finality_depth) - 1
    }

    fn execution(&self, fate: Fate) -> Result<Execution, FollowerError> {
        let block = self.view.store().block(fate.l2_number)?.ok_or(FollowerError::BlockGone(fate.l2_number))?;
        let depth = (self.view.tip_height()? + 1).saturating_sub(block.derived_at);
        Ok(Execution {
            l2_number: fate.l2_number,
            l2_hash: block.head.hash,
            derived_at: block.derived_at,
            effect: fate.outcome.into(),
            is_final: depth >= self.finality_depth,
        })
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}  mempool")?,
            None => write!(f, "{}  taken by the sequencer", self.tx_hash)?,
        }
        if let Some(Queued { confirmations, index, due_height, height, .. }) = self.queued {
            let plural = if confirmations == 1 { "" } else { "s" };
            write!(f, " -> confirmed (block {height}, {confirmations} confirmation{plural})")?;
            write!(f, " -> queued (index {index}, due at {due_height})")?;
        }
        if let Some(Execution { l2_number, effect, is_final, .. }) = self.execution {
            write!(f, " -> executed (L2 block {l2_number}, {effect})")?;
            if is_final {
                f.write_str(", final")?;
            }
        }
        Ok(())
    }
}
