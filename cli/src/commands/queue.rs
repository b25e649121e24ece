//! `sortie queue`: the followed queue.

use super::life::{Effect, due_height, tip};
use crate::config::Settings;
use crate::failure::Failure;
use crate::follower::Reader;
use crate::output::{Output, field};
use bitcoin::BlockHash;
use bitcoin::hex::DisplayHex;
use clap::{Args, Subcommand};
use serde::Serialize;
use sortie::node::QueuedItem;
use sortie::primitives::{BtcHeight, Hash32, L2Number};
use std::fmt;

/// Show the queue of forced transactions
///
/// Everybody who reads Bitcoin has the same queue: the same items, at the same indexes, under the same Merkle root.
#[derive(Subcommand, Debug)]
pub enum Queue {
    List(List),
    Root(Root),
}

const LIST_EXAMPLE: &str = "\
Examples:
  sortie queue list
  sortie queue list --from 100 --limit 10 --json";

/// List items with their due heights and what became of them
///
/// Follows Bitcoin to the tip first. An item without an L2 block waits; it is executed at the latest when Bitcoin reaches
/// its due height.
#[derive(Args, Debug)]
#[command(after_long_help = LIST_EXAMPLE)]
pub struct List {
    /// First index
    #[arg(long, value_name = "I", default_value_t = 0)]
    from: u64,
    /// Most items
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
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

/// Runs a command.
pub fn run(command: &Queue, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let reader = Reader::open(settings, out)?;
    let node = reader.node();
    match command {
        Queue::List(List { from, limit }) => {
            // The database counts in signed numbers.
            let range = (*from).min(i64::MAX as u64)..from.saturating_add(*limit).min(i64::MAX as u64);
            let items = node.store().items(range)?;
            items.iter().try_for_each(|item| out.print(&Line::new(item, due_height(node, item.item.block.height))))
        }
        Queue::Root(Root { height }) => {
            let tip = tip(node)?;
            let height = height.unwrap_or(tip);
            let (block_hash, size, root) = node.store().bitcoin_block(height)?.ok_or_else(|| {
                let start = node.manifest().start.height;
                Failure::usage(format_args!(
                    "--height {height} is not between the start block {start} and the tip {tip}"
                ))
            })?;
            out.print(&RootLine { height, block_hash, size, root })
        }
    }
}
