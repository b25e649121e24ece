//! What `follow` prints: one struct for each event, as JSON and for people.

use crate::failure::Failure;
use crate::output::count;
use serde::Serialize;
use sortie::api::wire::HeadView;
use sortie::derive::{Judged, Verdict};
use sortie::follower::{Applied, ChainView, DerivedBlock, Effect, ExecutedBlock, Heads, QueuedItem};
use sortie::primitives::{BlockRef, BtcHeight, Hash32, L2Number, sha256};
use sortie::queue::{Item, Place};
use sortie::scanner::Unconfirmed;
use sortie::wallet::SatPerVb;
use std::fmt;

/// A Bitcoin block was applied.
#[derive(Serialize)]
pub struct AppliedReport {
    event: &'static str,
    #[serde(flatten)]
    block: BlockRef,
    queued: Vec<QueuedLine>,
    judged: Vec<JudgedLine>,
    blocks: Vec<BlockLine>,
}

#[derive(Serialize)]
struct QueuedLine {
    index: u64,
    place: Place,
    due_height: u64,
    tx_hash: Hash32,
}

#[derive(Serialize)]
struct JudgedLine {
    place: Place,
    kind: &'static str,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip)]
    shown: Verdict,
}

#[derive(Serialize)]
struct BlockLine {
    number: L2Number,
    hash: Hash32,
    origin_height: BtcHeight,
    timestamp: u64,
    state_root: Hash32,
    forced: Vec<ForcedLine>,
    own: Vec<OwnLine>,
}

#[derive(Serialize)]
struct ForcedLine {
    index: u64,
    place: Place,
    tx_hash: Hash32,
    #[serde(flatten)]
    effect: Effect,
}

#[derive(Serialize)]
struct OwnLine {
    tx_hash: Hash32,
    #[serde(flatten)]
    effect: Effect,
}

impl AppliedReport {
    pub fn new(applied: &Applied, view: &ChainView) -> Result<Self, Failure> {
        let queued = |queued: &QueuedItem| QueuedLine {
            index: queued.index,
            place: queued.item.place,
            due_height: view.due_height(queued.item.block.height),
            tx_hash: queued.item.tx_hash(),
        };
        let blocks = applied.blocks.iter().map(|block| BlockLine::new(block, view)).collect::<Result<_, _>>()?;
        Ok(Self {
            event: "applied",
            block: applied.block,
            queued: applied.queued.iter().map(queued).collect(),
            judged: applied.judged.iter().map(JudgedLine::from).collect(),
            blocks,
        })
    }
}

impl From<&Judged> for JudgedLine {
    fn from(judged: &Judged) -> Self {
        let (verdict, reason) = match judged.verdict {
            Verdict::Accept => ("accept", None),
            // The specification's own name for it.
            Verdict::Drop(reason) => ("drop", Some(format!("{reason:?}"))),
        };
        Self { place: judged.place, kind: judged.name(), verdict, reason, shown: judged.verdict }
    }
}

impl BlockLine {
    fn new(executed: &ExecutedBlock, view: &ChainView) -> Result<Self, Failure> {
        let block = &executed.block;
        let items = view.store().items(block.forced.clone())?;
        let forced = items.iter().zip(&executed.forced).map(|(queued, outcome)| ForcedLine {
            index: queued.index,
            place: queued.item.place,
            tx_hash: queued.item.tx_hash(),
            effect: (*outcome).into(),
        });
        let own = block.own_txs.iter().zip(&executed.own);
        Ok(Self {
            number: block.header.number,
            hash: block.hash,
            origin_height: block.header.origin.height,
            timestamp: block.header.timestamp,
            state_root: executed.state_root,
            forced: forced.collect(),
            own: own.map(|(tx, outcome)| OwnLine { tx_hash: sha256(tx), effect: (*outcome).into() }).collect(),
        })
    }
}

/// Nothing for a block in which nothing happened.
impl fmt::Display for AppliedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.queued.is_empty() && self.judged.is_empty() && self.blocks.is_empty() {
            return Ok(());
        }
        writeln!(f, "bitcoin {}", self.block)?;
        for QueuedLine { index, place, due_height, .. } in &self.queued {
            writeln!(f, "  queued    item {index}, due at {due_height}: {place}")?;
        }
        for JudgedLine { place, kind, shown, .. } in &self.judged {
            writeln!(f, "  {kind:<8}  {place}: {shown}")?;
        }
        for block in &self.blocks {
            let own = count(block.own.len() as u64, "own transaction");
            writeln!(
                f,
                "  derived   L2 block {}, origin {}, {own}, state root {}",
                block.number, block.origin_height, block.state_root
            )?;
            for ForcedLine { index, place, effect, .. } in &block.forced {
                writeln!(f, "  executed  item {index}, {effect}: {place}")?;
            }
        }
        Ok(())
    }
}

/// An item that waits in the mempool.
#[derive(Serialize)]
pub struct UnconfirmedLine {
    event: &'static str,
    pub place: Place,
    tx_hash: Hash32,
    fee_rate_sat_vb: f64,
    /// `null`, if the node cannot tell.
    expected_height: Option<BtcHeight>,
    #[serde(skip)]
    shown_rate: SatPerVb,
}

impl UnconfirmedLine {
    /// The lines of one Bitcoin transaction.
    pub fn of(unconfirmed: Unconfirmed) -> Vec<Self> {
        let Unconfirmed { items, fee_rate, expected_height, .. } = unconfirmed;
        let line = |item: &Item| Self {
            event: "unconfirmed",
            place: item.place,
            tx_hash: item.tx_hash(),
            fee_rate_sat_vb: fee_rate.to_sat_per_kwu() as f64 / 250.0,
            expected_height,
            shown_rate: SatPerVb(fee_rate),
        };
        items.iter().map(line).collect()
    }
}

impl fmt::Display for UnconfirmedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = match self.expected_height {
            Some(height) => format!("expected in block {height}"),
            None => "not expected soon".into(),
        };
        write!(f, "unconfirmed  {}, {}, {expected}", self.place, self.shown_rate)
    }
}

/// A Bitcoin block was taken back.
#[derive(Serialize)]
pub struct RevertedReport {
    event: &'static str,
    #[serde(flatten)]
    block: BlockRef,
}

impl RevertedReport {
    pub fn new(block: BlockRef) -> Self {
        Self { event: "reverted", block }
    }
}

impl fmt::Display for RevertedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bitcoin {} left the best chain: what it brought is taken back", self.block)
    }
}

/// The head that a sequencer claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UnsafeHead {
    #[serde(flatten)]
    pub head: HeadView,
    /// Whether the sequencer has signed it.
    pub signed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct DerivedHead {
    number: L2Number,
    hash: Hash32,
    state_root: Hash32,
    origin_height: BtcHeight,
    timestamp: u64,
    derived_at: BtcHeight,
}

impl From<DerivedBlock> for DerivedHead {
    fn from(block: DerivedBlock) -> Self {
        Self {
            number: block.head.header.number,
            hash: block.head.hash,
            state_root: block.state_root,
            origin_height: block.head.header.origin.height,
            timestamp: block.head.header.timestamp,
            derived_at: block.derived_at,
        }
    }
}

/// The heads.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct HeadsReport {
    event: &'static str,
    bitcoin: BlockRef,
    safe: DerivedHead,
    #[serde(rename = "final")]
    finalized: DerivedHead,
    /// `null`, if the sequencer does not answer; absent without `--sequencer`.
    #[serde(rename = "unsafe", skip_serializing_if = "Option::is_none")]
    claimed: Option<Option<UnsafeHead>>,
}

impl HeadsReport {
    pub fn new(heads: Heads, claimed: Option<Option<UnsafeHead>>) -> Self {
        Self {
            event: "heads",
            bitcoin: heads.bitcoin,
            safe: heads.safe.into(),
            finalized: heads.finalized.into(),
            claimed,
        }
    }
}

impl fmt::Display for HeadsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "heads     bitcoin {}, safe {}, final {}",
            self.bitcoin.height, self.safe.number, self.finalized.number
        )?;
        match &self.claimed {
            Some(Some(UnsafeHead { head, signed: true })) => write!(f, ", unsafe {}", head.number)?,
            Some(Some(UnsafeHead { head, .. })) => write!(f, ", unsafe {} (claimed, unsigned)", head.number)?,
            Some(None) => f.write_str(", unsafe not known")?,
            None => {}
        }
        write!(f, ", state root {}", self.safe.state_root)
    }
}
