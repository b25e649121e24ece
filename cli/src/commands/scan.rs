//! `sortie scan`: the queue straight from a Bitcoin node.

use crate::config::{Settings, manifest_network};
use crate::failure::Failure;
use crate::output::Output;
use bitcoin::BlockHash;
use bitcoin::hex::DisplayHex;
use clap::Args;
use serde::Serialize;
use sortie::chain::BlockSource;
use sortie::envelope::scan_block;
use sortie::primitives::{BlockRef, BtcHeight, Hash32};
use sortie::queue::{Item, Place, items_of};

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
    let namespace = manifest.rollup_id().namespace();
    let reorganised = || Failure::failed("the Bitcoin chain was reorganised while it was read; run the command again");
    let mut parent = None;
    for height in from..=to {
        let hash = node.block_hash(height)?.ok_or_else(reorganised)?;
        let scanned = scan_block(&node.block(&hash)?, Some(namespace)).map_err(Failure::failed)?;
        if scanned.header.block_hash() != hash {
            return Err(Failure::failed(format_args!("the node served another block than {hash}")));
        }
        if parent.is_some_and(|parent| parent != scanned.header.prev_blockhash) {
            return Err(reorganised());
        }
        parent = Some(hash);
        for item in items_of(BlockRef { height, hash }, &scanned.found) {
            out.json_line(&Line::from(&item))?;
        }
    }
    Ok(())
}
