//! How far an L2 transaction has come: `mempool -> confirmed(n) -> queued(index, due height) ->
//! executed(L2 block, ok | no-op(reason))`.

use crate::config::Settings;
use crate::failure::Failure;
use serde::Serialize;
use sortie::executor::Outcome;
use sortie::follower::{DerivedBlock, Fate, Follower, QueuedItem};
use sortie::primitives::{BtcHeight, Hash32, L2Number};
use sortie::queue::Place;
use std::fmt;

/// The furthest stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Mempool,
    Confirmed,
    Queued,
    Executed,
}

/// Which way into its L2 block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    Forced,
    Own,
}

/// What executing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// `ok` or `no-op`.
    pub outcome: &'static str,
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

/// Where it was executed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Execution {
    pub l2_number: L2Number,
    pub l2_hash: Hash32,
    /// The Bitcoin block that settled it.
    pub derived_at: BtcHeight,
    #[serde(flatten)]
    pub effect: Effect,
    /// Whether that Bitcoin block is `finality_depth` deep.
    #[serde(rename = "final")]
    pub is_final: bool,
}

/// Where it stands in the queue.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Queued {
    pub height: BtcHeight,
    pub block_hash: bitcoin::BlockHash,
    pub confirmations: u32,
    pub index: u64,
    pub due_height: u64,
}

/// One transaction's life.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Life {
    pub state: Stage,
    pub route: Route,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    pub tx_hash: Hash32,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub queued: Option<Queued>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
}

/// What a life is told from.
pub struct Teller<'a> {
    node: &'a Follower,
    confirmations: u32,
    finality_depth: u32,
}

impl<'a> Teller<'a> {
    /// Tells from a follower's store.
    pub fn new(node: &'a Follower, settings: &Settings) -> Result<Self, Failure> {
        let confirmations = settings.confirmations(settings.network()?);
        Ok(Self { node, confirmations, finality_depth: settings.finality_depth() })
    }

    /// The life of an item of the queue.
    pub fn forced(&self, queued: &QueuedItem) -> Result<Life, Failure> {
        let height = queued.item.block.height;
        let tip = tip(self.node)?;
        let confirmations = (tip + 1).saturating_sub(height);
        let execution = queued.fate.map(|fate| self.execution(fate)).transpose()?;
        let state = match execution {
            Some(_) => Stage::Executed,
            // What the sequencer does not look at yet may still move.
            None if confirmations < self.confirmations => Stage::Confirmed,
            None => Stage::Queued,
        };
        Ok(Life {
            state,
            route: Route::Forced,
            place: Some(queued.item.place),
            tx_hash: queued.item.tx_hash(),
            queued: Some(Queued {
                height,
                block_hash: queued.item.block.hash,
                confirmations,
                index: queued.index,
                due_height: due_height(self.node, height),
            }),
            execution,
        })
    }

    /// The lives of all that has this SHA-256: items of the queue, then what sequencers took.
    pub fn lives(&self, tx_hash: &Hash32) -> Result<Vec<Life>, Failure> {
        let store = self.node.store();
        let forced = store.items_with_hash(tx_hash)?;
        let own = store.own_txs_with_hash(tx_hash)?;
        let forced = forced.iter().map(|item| self.forced(item));
        forced.chain(own.into_iter().map(|fate| self.own(*tx_hash, fate))).collect()
    }

    /// The life of a transaction that a sequencer took.
    pub fn own(&self, tx_hash: Hash32, fate: Fate) -> Result<Life, Failure> {
        let execution = Some(self.execution(fate)?);
        Ok(Life { state: Stage::Executed, route: Route::Own, place: None, tx_hash, queued: None, execution })
    }

    /// The life of an item that waits in the mempool.
    pub fn mempool(place: Place, tx_hash: Hash32) -> Life {
        let place = Some(place);
        Life { state: Stage::Mempool, route: Route::Forced, place, tx_hash, queued: None, execution: None }
    }

    /// The Bitcoin height at which it is final.
    pub fn final_at(&self, execution: &Execution) -> u64 {
        u64::from(execution.derived_at) + u64::from(self.finality_depth) - 1
    }

    fn execution(&self, fate: Fate) -> Result<Execution, Failure> {
        let block = self.node.store().block(fate.l2_number)?;
        let block: DerivedBlock = block.ok_or_else(|| {
            Failure::failed(format_args!(
                "L2 block {} has just been taken back by a reorganisation; try again",
                fate.l2_number
            ))
        })?;
        let depth = (tip(self.node)? + 1).saturating_sub(block.derived_at);
        Ok(Execution {
            l2_number: fate.l2_number,
            l2_hash: block.head.hash,
            derived_at: block.derived_at,
            effect: fate.outcome.into(),
            is_final: depth >= self.finality_depth,
        })
    }
}

/// The last Bitcoin block in the store, which another process may be writing.
pub fn tip(node: &Follower) -> Result<BtcHeight, Failure> {
    let mut height = node.derivation().tip().block.height;
    while height > 0 && node.store().bitcoin_block(height)?.is_none() {
        height -= 1;
    }
    while node.store().bitcoin_block(height + 1)?.is_some() {
        height += 1;
    }
    Ok(height)
}

/// The Bitcoin height at which an item is executed at the latest.
pub fn due_height(node: &Follower, height: BtcHeight) -> u64 {
    u64::from(height) + u64::from(node.manifest().sequencing_window)
}

impl fmt::Display for Life {
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
