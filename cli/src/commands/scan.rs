//! `sortie scan`: the queue straight from a Bitcoin node.

use crate::config::{Settings, manifest_network};
use crate::failure::Failure;
use crate::output::Output;
use crate::reading::Refusals;
use bitcoin::BlockHash;
use bitcoin::hex::DisplayHex;
use clap::Args;
use serde::Serialize;
use sortie::chain::BlockSource;
use sortie::primitives::{BlockRef, BtcHeight, Hash32};
use sortie::queue::{Item, Place, items_of};
use sortie::scanner::{ScanError, Scanned};

const EXAMPLE: &str = "\
Examples:
  sortie scan --manifest rollup.toml
  sortie scan --from 850000 --to 850100 | jq -r .place";

/// List forced transactions straight from Bitcoin
///
/// Reads blocks from the node, keeps nothing, and prints one JSON line for each item of the rollup's queue, in Bitcoin
/// order: place, height, block_hash, tx_index, tx_hash (SHA256 of the transaction) and tx.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLE)]
pub struct Scan {
    /// First Bitcoin block [default: the one after the manifest's start]
    #[arg(long, value_name = "H")]
    from: Option<BtcHeight>,
    /// Last Bitcoin block [default: the tip]
    #[arg(long, value_name = "H")]
    to: Option<BtcHeight>,
}

#[derive(Serialize)]
struct Line {
    place: Place,
    height: BtcHeight,
    block_hash: BlockHash,
    tx_index: u32,
    tx_hash: Hash32,
    tx: String,
}

impl From<&Item> for Line {
    fn from(item: &Item) -> Self {
        Self {
            place: item.place,
            height: item.block.height,
            block_hash: item.block.hash,
            tx_index: item.tx_index,
            tx_hash: item.tx_hash(),
            tx: item.tx.to_lower_hex_string(),
        }
    }
}

fn reorganised() -> Failure {
    Failure::failed("the Bitcoin chain was reorganised while it was read; run the command again")
}

/// Runs the command.
pub fn run(scan: &Scan, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let manifest = settings.manifest()?;
    let node = settings.connect(manifest_network(&manifest)?)?;
    let tip = node.tip()?.height;
    // Nothing at or below the start block is in the queue.
    let first = manifest.start.height.saturating_add(1);
    let from = scan.from.map_or(first, |from| from.max(first));
    let to = scan.to.map_or(tip, |to| to.min(tip));
    if scan.from > scan.to && scan.to.is_some() {
        return Err(Failure::usage("--from is above --to"));
    }
    if from > tip.saturating_add(1) {
        return Err(Failure::usage(format_args!("--from {from} is above Bitcoin's tip, block {tip}")));
    }
    let reading = settings.reading().open(&node, out)?;
    let scanner = reading.scanner(&node);
    let namespace = manifest.rollup_id().namespace();
    let start = manifest.start;
    let known = |height| Ok::<_, ScanError>((height == start.height).then_some(start.hash));
    let mut parent = match from - 1 {
        height if height == start.height => start,
        height => BlockRef { height, hash: node.block_hash(height)?.ok_or_else(reorganised)? },
    };
    let mut refusals = Refusals::default();
    while parent.height < to {
        let blocks = scanner.headers_above(manifest.network, parent, known, to - parent.height)?;
        parent = blocks.last().ok_or_else(reorganised)?.at;
        scanner.scan(&blocks, namespace, |Scanned { block, found, refused, .. }| {
            refusals.tell(&refused, out);
            items_of(block.at, &found).iter().try_for_each(|item| out.json_line(&Line::from(item)))
        })?;
    }
    Ok(())
}
