//! `sortie queue`: the followed queue.

#[cfg(feature = "parquet")]
mod parquet;

use crate::commands::follow::UnconfirmedLine;
use crate::config::Settings;
use crate::failure::Failure;
use crate::follower::Reader;
use crate::output::{Output, count, field};
use bitcoin::hex::DisplayHex;
use bitcoin::{BlockHash, Txid};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use sortie::follower::{ChainView, Effect, QueuedItem, Tally};
use sortie::merkle::leaf_hash;
use sortie::primitives::{BtcHeight, Hash32, L2Number};
use sortie::scanner::MempoolWatch;
use std::fmt;

/// Show the queue of forced transactions
///
/// Everybody who reads Bitcoin has the same queue: the same items, at the same indexes, under the same Merkle root.
#[derive(Subcommand, Debug)]
pub enum Queue {
    List(List),
    Root(Root),
    Stats(Stats),
    Export(Export),
}

const LIST_EXAMPLE: &str = "\
Examples:
  sortie queue list
  sortie queue list --from 100 --limit 10 --json
  sortie queue list --unconfirmed";

/// List items with their due heights and what became of them
///
/// Follows Bitcoin to the tip first. An item without an L2 block waits; it is executed at the latest when Bitcoin
/// reaches its due height.
#[derive(Args, Debug)]
#[command(after_long_help = LIST_EXAMPLE)]
pub struct List {
    /// Index of the first item shown
    #[arg(long, value_name = "I", default_value_t = 0)]
    from: u64,
    /// How many items are shown at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
    /// What waits in the Bitcoin node's mempool instead, with its fee rate and the block it is expected in
    #[arg(long, conflicts_with_all = ["from", "limit"])]
    unconfirmed: bool,
}

const EXPORT_EXAMPLE: &str = "\
Examples:
  sortie queue export > queue.jsonl
  sortie queue export --format csv | head
  sortie queue export --format parquet > queue.parquet";

/// Write out the whole queue, for audits
///
/// One line for each item, from the first, with everything that the queue's root and the derived chain follow from:
/// place, Bitcoin block, due height, hashes, the transaction itself, and what became of it. Needs no more memory for
/// more items.
///
/// Parquet, a binary format with the same columns, needs a sortie that was built with `--features parquet`.
#[derive(Args, Debug)]
#[command(after_long_help = EXPORT_EXAMPLE)]
pub struct Export {
    /// JSON lines, comma-separated values with a line of names, or Apache Parquet
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
}

/// Count the items: those that wait, and those that were executed, by what they did
///
/// Follows Bitcoin to the tip first, and reads the whole queue once.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie queue stats --json")]
pub struct Stats {}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Jsonl,
    Csv,
    Parquet,
}

const ROOT_EXAMPLE: &str = "\
Examples:
  sortie queue root
  sortie queue root --height 850000 --json";

/// Show the queue's size and Merkle root
///
/// The root is the RFC 6962 tree hash over the leaves of all items at heights up to the given one.
#[derive(Args, Debug)]
#[command(after_long_help = ROOT_EXAMPLE)]
pub struct Root {
    /// Bitcoin height [default: the tip]
    #[arg(long, value_name = "H")]
    height: Option<BtcHeight>,
}

#[derive(Serialize)]
struct Line {
    index: u64,
    place: String,
    height: BtcHeight,
    block_hash: BlockHash,
    tx_index: u32,
    due_height: u64,
    tx_hash: Hash32,
    tx: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    l2_number: Option<L2Number>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    effect: Option<Effect>,
}

impl Line {
    fn new(queued: &QueuedItem, due_height: u64) -> Self {
        let item = &queued.item;
        Self {
            index: queued.index,
            place: item.place.to_string(),
            height: item.block.height,
            block_hash: item.block.hash,
            tx_index: item.tx_index,
            due_height,
            tx_hash: item.tx_hash(),
            tx: item.tx.to_lower_hex_string(),
            l2_number: queued.fate.map(|fate| fate.l2_number),
            effect: queued.fate.map(|fate| fate.outcome.into()),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6}  {}  block {}, due at {}", self.index, self.place, self.height, self.due_height)?;
        match (self.l2_number, self.effect) {
            (Some(number), Some(effect)) => write!(f, ", executed in L2 block {number} ({effect})"),
            _ => f.write_str(", waiting"),
        }
    }
}

#[derive(Serialize)]
struct RootLine {
    height: BtcHeight,
    block_hash: BlockHash,
    size: u64,
    root: Hash32,
}

impl fmt::Display for RootLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        field(f, "bitcoin block", format_args!("{} ({})", self.height, self.block_hash))?;
        field(f, "size", self.size)?;
        field(f, "root", self.root)
    }
}

/// An item with everything that an audit asks for.
#[derive(Serialize)]
struct ExportLine {
    #[serde(flatten)]
    line: Line,
    txid: Txid,
    leaf: Hash32,
    #[serde(skip_serializing_if = "Option::is_none")]
    l2_hash: Option<Hash32>,
}

/// Columns of [`ExportLine::csv`].
const COLUMNS: &str =
    "index,place,txid,height,block_hash,tx_index,due_height,tx_hash,leaf,l2_number,l2_hash,outcome,reason,tx";

impl ExportLine {
    fn new(queued: &QueuedItem, view: &ChainView) -> Result<Self, Failure> {
        let l2_hash = match queued.fate {
            Some(fate) => view.store().block(fate.l2_number)?.map(|block| block.head.hash),
            None => None,
        };
        Ok(Self {
            line: Line::new(queued, view.due_height(queued.item.block.height)),
            txid: queued.item.place.txid,
            leaf: leaf_hash(&queued.item.leaf()),
            l2_hash,
        })
    }

    /// No value holds a comma or a quote.
    fn csv(&self) -> String {
        let Self { line, txid, leaf, l2_hash } = self;
        let Line { index, place, height, block_hash, tx_index, due_height, tx_hash, tx, l2_number, effect } = line;
        let number = l2_number.map_or(String::new(), |number| number.to_string());
        let hash = l2_hash.map_or(String::new(), |hash| hash.to_string());
        let outcome = effect.map_or("", |effect| effect.outcome);
        let reason = effect.and_then(|effect| effect.reason).unwrap_or("");
        format!(
            "{index},{place},{txid},{height},{block_hash},{tx_index},{due_height},{tx_hash},{leaf},{number},{hash},{outcome},{reason},{tx}"
        )
    }
}

/// Items read from the database at a time.
const PAGE: u64 = 50;

/// Hands out each item of the queue.
fn each_item(view: &ChainView, mut each: impl FnMut(&ExportLine) -> Result<(), Failure>) -> Result<(), Failure> {
    let size = view.derivation().tip().queue_size;
    for from in (0..size).step_by(PAGE as usize) {
        for queued in view.store().items(from..size.min(from + PAGE))? {
            each(&ExportLine::new(&queued, view)?)?;
        }
    }
    Ok(())
}

fn export(format: Format, view: &ChainView, out: &Output) -> Result<(), Failure> {
    match format {
        Format::Jsonl => each_item(view, |line| out.json_line(line)),
        Format::Csv => {
            out.line(COLUMNS)?;
            each_item(view, |line| out.line(&line.csv()))
        }
        #[cfg(feature = "parquet")]
        Format::Parquet => {
            let mut file = parquet::ParquetWriter::stdout()?;
            each_item(view, |line| file.push(line))?;
            file.finish().map(drop)
        }
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => Err(Failure::usage(
            "this sortie was built without Parquet; build it with `cargo install --path cli --features parquet`, or use --format jsonl",
        )),
    }
}

#[derive(Serialize)]
struct StatsLine {
    height: BtcHeight,
    items: u64,
    bytes: u64,
    tally: Vec<TallyLine>,
}

#[derive(Serialize)]
struct TallyLine {
    /// `waiting`, or what they did.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    items: u64,
    bytes: u64,
    first_height: BtcHeight,
    last_height: BtcHeight,
}

impl From<Tally> for TallyLine {
    fn from(tally: Tally) -> Self {
        let effect = tally.outcome.map(Effect::from);
        Self {
            outcome: effect.map_or("waiting", |effect| effect.outcome),
            reason: effect.and_then(|effect| effect.reason),
            items: tally.items,
            bytes: tally.bytes,
            first_height: tally.first_height,
            last_height: tally.last_height,
        }
    }
}

impl fmt::Display for StatsLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        field(f, "bitcoin block", self.height)?;
        field(f, "queue", format_args!("{}, {} bytes", count(self.items, "item"), self.bytes))?;
        for TallyLine { outcome, reason, items, bytes, first_height, last_height } in &self.tally {
            let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
            let text = format_args!(
                "{}{reason}, {bytes} bytes, blocks {first_height} to {last_height}",
                count(*items, "item")
            )
            .to_string();
            field(f, outcome, text)?;
        }
        Ok(())
    }
}

/// Runs a command.
pub fn run(command: &Queue, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let reader = Reader::open_at_least(settings, out)?;
    let view = reader.view();
    match command {
        Queue::List(List { unconfirmed: true, .. }) => {
            let mut watch = MempoolWatch::new(view.manifest().rollup_id().namespace());
            let node = reader.source()?.node().ok_or_else(|| {
                Failure::usage(
                    "only a Bitcoin node shows what waits in its mempool; set --bitcoin-url instead of --esplora-url",
                )
            })?;
            let lines = watch.look(node, || true)?.into_iter().flat_map(UnconfirmedLine::of);
            lines.into_iter().try_for_each(|line| out.print(&line))
        }
        Queue::List(List { from, limit, .. }) => {
            // The database counts in signed numbers.
            let range = (*from).min(i64::MAX as u64)..from.saturating_add(*limit).min(i64::MAX as u64);
            let items = view.store().items(range)?;
            items.iter().try_for_each(|item| out.print(&Line::new(item, view.due_height(item.item.block.height))))
        }
        Queue::Root(Root { height }) => {
            let tip = view.tip_height()?;
            let height = height.unwrap_or(tip);
            let (block_hash, size, root) = view.store().bitcoin_block(height)?.ok_or_else(|| {
                let start = view.manifest().start.height;
                Failure::usage(format_args!(
                    "--height {height} is not between the start block {start} and the tip {tip}"
                ))
            })?;
            out.print(&RootLine { height, block_hash, size, root })
        }
        Queue::Stats(Stats {}) => {
            let tally: Vec<TallyLine> = view.store().tally()?.into_iter().map(TallyLine::from).collect();
            let sum = |value: fn(&TallyLine) -> u64| tally.iter().map(value).sum();
            let (items, bytes) = (sum(|line| line.items), sum(|line| line.bytes));
            out.print(&StatsLine { height: view.tip_height()?, items, bytes, tally })
        }
        Queue::Export(Export { format }) => export(*format, view, out),
    }
}
