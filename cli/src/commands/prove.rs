//! `sortie prove`: makes files that anyone can check with `sortie verify`.
//!
//! Guarantees that a file which does not show what it says is never written: each is judged first, by the
//! code that judges it everywhere else.

mod signed;
mod target;

use crate::commands::send::receipts_of;
use crate::config::Settings;
use crate::failure::Failure;
use crate::follower::Reader;
use crate::output::Output;
use clap::{Args, Subcommand};
use signed::{SignedBy, read_leaf, read_receipt, read_signed};
use sortie::evidence::{EvidenceError, Prover, broken_receipt, claimed_block, find_censored};
use sortie::follower::QueuedItem;
use sortie::merkle::TreeHead;
use sortie::primitives::{BtcHeight, Hash32, L2Number};
use sortie::proof::{self, Anchors, Consistency, File, Proof, ProvenLeaf, Receipt, Signed, SoftHeader};
use sortie::queue::Place;
use std::path::{Path, PathBuf};
use target::Target;

/// Headers that `prove forced` shows above the item's block unless it is told otherwise: two weeks of Bitcoin.
const DEFAULT_HEADERS: BtcHeight = 2_016;

/// Make a file that anyone can check offline: a proof, or evidence against a sequencer
///
/// A proof shows what Bitcoin and the rollup hold: forced, included, consistent. Evidence shows what a sequencer signed
/// and must not have: censored, equivocation, conflicting-state, broken-receipt. Whoever gets such a file checks it
/// with
/// `sortie verify`, without a node and without trust in you. What proves nothing is not written.
#[derive(Subcommand, Debug)]
pub enum Prove {
    Forced(Forced),
    Included(Included),
    Consistent(Consistent),
    Censored(Censored),
    Equivocation(Equivocation),
    ConflictingState(ConflictingState),
    BrokenReceipt(BrokenReceipt),
}

const FORCED_EXAMPLE: &str = "\
Examples:
  sortie prove forced 5f1e...c2:in:0 --out forced.json
  sortie prove forced 5f1e...c2:out:1 --from-height 840000 --to-height 850123 --out forced.json";

/// Prove that a Bitcoin block holds a forced transaction
///
/// The file holds the Bitcoin transaction, its place in the block, and headers. A checker needs one Bitcoin block that
/// it knows: one that the headers hold, or (where work counts) the one before the first of them.
#[derive(Args, Debug)]
#[command(after_long_help = FORCED_EXAMPLE)]
pub struct Forced {
    /// TXID:in:INDEX[:POSITION] or TXID:out:INDEX[:POSITION]
    #[arg(value_name = "PLACE")]
    place: Place,
    /// Height of the first header [default: the item's block]
    #[arg(long, value_name = "H")]
    from_height: Option<BtcHeight>,
    /// Height of the last header [default: the tip, at most 2016 above the item's block]
    #[arg(long, value_name = "H")]
    to_height: Option<BtcHeight>,
    #[command(flatten)]
    target: Target,
}

const INCLUDED_EXAMPLE: &str = "\
Examples:
  sortie prove included 5f1e...c2:in:0 --out included.json
  sortie prove included 5f1e...c2:in:0 --sequencer http://127.0.0.1:8645 --out claimed.json";

/// Prove that a forced transaction is executed
///
/// Without --sequencer for a checker that knows the hash of the L2 block which executed it (level derived). With
/// --sequencer the file holds a block that the sequencer signed, derived or not, and a checker needs nothing but the
/// sequencers' keys (level claimed).
#[derive(Args, Debug)]
#[command(after_long_help = INCLUDED_EXAMPLE)]
pub struct Included {
    /// TXID:in:INDEX[:POSITION] or TXID:out:INDEX[:POSITION]
    #[arg(value_name = "PLACE")]
    place: Place,
    /// Use a block that this sequencer signed
    #[arg(long, value_name = "URL")]
    sequencer: Option<String>,
    #[command(flatten)]
    target: Target,
}

const CONSISTENT_EXAMPLE: &str = "\
Examples:
  sortie prove consistent 1000 1200 --out consistent.json
  sortie prove consistent 1000 1200 --roots-only --out consistent.json";

/// Prove that the queue only grew from one size to another
///
/// For who follows the queue by its size and root alone: shows that the old queue is how the new one begins, so that
/// nothing in it was changed, moved or taken away. The file names the L2 blocks that adopted the two queues, where
/// there are such blocks, for a checker that knows their hashes; with --roots-only it does not, for one that knows the
/// roots.
#[derive(Args, Debug)]
#[command(after_long_help = CONSISTENT_EXAMPLE)]
pub struct Consistent {
    /// The old queue's number of items
    #[arg(value_name = "SIZE1")]
    old: u64,
    /// The new queue's number of items
    #[arg(value_name = "SIZE2")]
    new: u64,
    /// Name no L2 blocks
    #[arg(long)]
    roots_only: bool,
    #[command(flatten)]
    target: Target,
}

const CENSORED_EXAMPLE: &str = "\
Examples:
  sortie prove censored 42 --sequencer http://127.0.0.1:8645 --out censored.json
  curl http://127.0.0.1:8645/v1/block/42 > 42.json        # keep what it signed, before it is gone
  sortie prove censored 42 --blocks 41.json --blocks 42.json --out censored.json
  sortie prove censored 42 --blocks 42.json --shown included.json --out censored.json";

/// Prove that a sequencer signed a block that Bitcoin contradicts
///
/// Compares the signed block and the one before with what the follower derives from Bitcoin: the items that were due in
/// it, its queue, its origin. Writes the file of the first thing that is wrong; if nothing is, says so, and the exit
/// code is 1. A sequencer shows the root of its queue and not what the queue is made of: small lies are guessed, and
/// --shown takes what it told somebody. Where that is not enough, no file can show the fault to somebody without a
/// node; then the file is one that needs a node.
#[derive(Args, Debug)]
#[command(after_long_help = CENSORED_EXAMPLE)]
pub struct Censored {
    /// Number of the L2 block
    #[arg(value_name = "NUMBER")]
    number: L2Number,
    #[command(flatten)]
    blocks: SignedBy,
    /// An `included` file with an item of the block's queue, as the sequencer tells it; may be repeated
    #[arg(long, value_name = "FILE")]
    shown: Vec<PathBuf>,
    #[command(flatten)]
    target: Target,
}

const EQUIVOCATION_EXAMPLE: &str = "\
Example:
  curl http://127.0.0.1:8645/v1/block/42 > first.json
  sortie prove equivocation first.json second.json --out equivocation.json";

/// Prove that a sequencer signed two blocks for one place
///
/// Takes two saved answers of GET /v1/block/NUMBER. It is a fault only if both blocks adopt the queue at the same
/// Bitcoin block, or at a block and the one after it: after a reorganisation an honest sequencer signs anew.
#[derive(Args, Debug)]
#[command(after_long_help = EQUIVOCATION_EXAMPLE)]
pub struct Equivocation {
    /// A saved answer of GET /v1/block/NUMBER
    #[arg(value_name = "FIRST.json")]
    first: PathBuf,
    /// Another
    #[arg(value_name = "SECOND.json")]
    second: PathBuf,
    #[command(flatten)]
    target: Target,
}

const CONFLICTING_STATE_EXAMPLE: &str = "\
Example:
  sortie prove conflicting-state first.json second.json --out conflicting-state.json";

/// Prove that a sequencer signed two states after one block
///
/// Takes two saved answers of GET /v1/block/NUMBER with one block and different state roots.
#[derive(Args, Debug)]
#[command(after_long_help = CONFLICTING_STATE_EXAMPLE)]
pub struct ConflictingState {
    /// A saved answer of GET /v1/block/NUMBER
    #[arg(value_name = "FIRST.json")]
    first: PathBuf,
    /// Another
    #[arg(value_name = "SECOND.json")]
    second: PathBuf,
    #[command(flatten)]
    target: Target,
}

const BROKEN_RECEIPT_EXAMPLE: &str = "\
Examples:
  sortie prove broken-receipt SHA256 --sequencer http://127.0.0.1:8645 --out broken.json
  curl http://127.0.0.1:8645/v1/tx/SHA256 > receipt.json
  sortie prove broken-receipt receipt.json --sequencer http://127.0.0.1:8645 --out broken.json";

/// Prove that a sequencer broke a receipt
///
/// Takes a transaction's SHA-256, whose receipt `sortie send` kept, or a saved answer of GET /v1/tx/SHA256 with a
/// receipt in it, and the blocks that it names, from the sequencer or from saved answers: shows that every one of them
/// was signed, and that none holds the transaction.
#[derive(Args, Debug)]
#[command(after_long_help = BROKEN_RECEIPT_EXAMPLE)]
pub struct BrokenReceipt {
    /// A transaction's SHA-256, or a saved answer of GET /v1/tx/SHA256
    #[arg(value_name = "SHA256|RECEIPT.json")]
    receipt: PathBuf,
    #[command(flatten)]
    blocks: SignedBy,
    #[command(flatten)]
    target: Target,
}

/// Runs a command.
pub fn run(command: &Prove, settings: &Settings, out: &Output) -> Result<(), Failure> {
    match command {
        Prove::Forced(command) => forced(command, settings, out),
        Prove::Included(command) => included(command, settings, out),
        Prove::Consistent(command) => consistent(command, settings, out),
        Prove::Censored(command) => {
            command.target.check()?;
            let blocks = command.blocks.blocks(settings)?;
            let shown = command.shown.iter().map(|path| read_leaf(path)).collect::<Result<_, _>>()?;
            let prover = prover(settings, out)?;
            let proof = find_censored(&prover, &blocks, shown, command.number)?;
            command.target.finish(prover.file(Proof::Censored(proof)), &prover.anchors()?, out)
        }
        Prove::Equivocation(command) => {
            command.target.check()?;
            let (first, second) = (read_signed(&command.first)?.header, read_signed(&command.second)?.header);
            let child_origin = signed::child_origin(&first.statement, &second.statement, settings, out)?;
            let proof = proof::Equivocation { first, second, child_origin };
            offline(Proof::Equivocation(proof), &command.target, settings, out)
        }
        Prove::ConflictingState(command) => {
            command.target.check()?;
            let (first, second) = (read_signed(&command.first)?.state, read_signed(&command.second)?.state);
            offline(Proof::ConflictingState(proof::ConflictingState { first, second }), &command.target, settings, out)
        }
        Prove::BrokenReceipt(command) => {
            command.target.check()?;
            let receipts = receipts(&command.receipt, settings)?;
            let blocks = command.blocks.blocks(settings)?;
            let prover = prover(settings, out)?;
            // After a reorganisation there may be more than one; each has to be kept.
            let mut proofs = receipts.into_iter().map(|receipt| broken_receipt(&prover, &blocks, receipt));
            let first = proofs.next().ok_or_else(|| Failure::failed("no receipt"))?;
            let proof = first.or_else(|error| proofs.find_map(Result::ok).ok_or(error))?;
            command.target.finish(prover.file(Proof::BrokenReceipt(proof)), &prover.anchors()?, out)
        }
    }
}

/// The rollup's chain at Bitcoin's tip, and Bitcoin.
fn prover(settings: &Settings, out: &Output) -> Result<Prover, Failure> {
    let Reader { view, source, .. } = Reader::open(settings, out)?;
    Ok(Prover::new(view, source?))
}

fn item_at(prover: &Prover, place: &Place) -> Result<QueuedItem, Failure> {
    prover.view.store().item_at(place)?.ok_or_else(|| {
        Failure::failed(format_args!("{place} is not in this rollup's queue; `sortie status` tells how far it is"))
    })
}

/// The receipt in a file, or those that were kept of a transaction.
fn receipts(named: &Path, settings: &Settings) -> Result<Vec<Signed<Receipt>>, Failure> {
    let hash = named.to_str().and_then(|text| text.parse::<Hash32>().ok()).filter(|_| !named.exists());
    let Some(hash) = hash else { return Ok(vec![read_receipt(named)?]) };
    let kept = receipts_of(&hash, settings)?;
    if kept.is_empty() {
        return Err(Failure::usage(format_args!(
            "no receipt for {hash} was kept here; give a saved answer of GET /v1/tx/{hash}"
        )));
    }
    kept.iter().map(|path| read_receipt(path)).collect()
}

/// Writes evidence that the signatures alone make.
fn offline(proof: Proof, target: &Target, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let manifest = settings.manifest()?;
    let rollup_id = manifest.rollup_id();
    target.finish(File { rollup_id, proof }, &Anchors::new(manifest), out)
}

fn forced(command: &Forced, settings: &Settings, out: &Output) -> Result<(), Failure> {
    command.target.check()?;
    let prover = prover(settings, out)?;
    let item = item_at(&prover, &command.place)?.item;
    let height = item.block.height;
    let tip = prover.view.tip_height()?;
    let first = command.from_height.unwrap_or(height);
    let last = command.to_height.unwrap_or_else(|| tip.min(height.saturating_add(DEFAULT_HEADERS)));
    if !(first <= height && height <= last && last <= tip) {
        let message = format!("the headers must hold the item's block {height} and end at the tip {tip} or below");
        return Err(Failure::usage(format_args!("--from-height {first}, --to-height {last}: {message}")));
    }
    let mut anchors = prover.anchors()?;
    anchors.add_bitcoin_block(item.block).map_err(Failure::failed)?;
    let proof = prover.item_proof(&item, first..=last)?;
    command.target.finish(prover.file(Proof::Forced(proof)), &anchors, out)
}

fn included(command: &Included, settings: &Settings, out: &Output) -> Result<(), Failure> {
    command.target.check()?;
    let url = command.sequencer.as_deref().map(|url| settings.sequencer(url)).transpose()?;
    let prover = prover(settings, out)?;
    let queued = item_at(&prover, &command.place)?;
    let mut anchors = prover.anchors()?;
    let block = match url {
        Some(url) => claimed_block(&prover, &url, &queued)?,
        None => {
            let (header, hash) = derived(&prover, &queued)?;
            anchors.add_l2_block(hash);
            Signed { statement: header, handovers: 0, signatures: Vec::new() }
        }
    };
    let tree = prover.tree(block.statement.queue_size)?;
    let item = ProvenLeaf::make(&tree, tree.size(), queued.index, &queued.item).ok_or(EvidenceError::Changed)?;
    let proof = proof::Included { item, block };
    command.target.finish(prover.file(Proof::Included(proof)), &anchors, out)
}

/// The derived block that executed an item.
fn derived(prover: &Prover, queued: &QueuedItem) -> Result<(SoftHeader, Hash32), Failure> {
    let fate = queued.fate.ok_or_else(|| {
        let due = prover.view.due_height(queued.item.block.height);
        Failure::failed(format_args!(
            "not executed yet: at the latest it is when Bitcoin reaches height {due}; --sequencer URL proves what a sequencer says"
        ))
    })?;
    let block = prover.view.store().block(fate.l2_number)?.ok_or(EvidenceError::Changed)?;
    Ok((SoftHeader(block.head.header), block.head.hash))
}

fn consistent(command: &Consistent, settings: &Settings, out: &Output) -> Result<(), Failure> {
    command.target.check()?;
    if command.old > command.new {
        return Err(Failure::usage(format_args!("SIZE1 {} is more than SIZE2 {}", command.old, command.new)));
    }
    let prover = prover(settings, out)?;
    let tree = prover.tree(command.new)?;
    let heads = tree.head(command.old).zip(tree.head(command.new)).zip(tree.consistency(command.old, command.new));
    let ((old, new), proof) = heads.ok_or(EvidenceError::Changed)?;
    let mut anchors = prover.anchors()?;
    let mut block_of = |queue: &TreeHead| -> Result<Option<SoftHeader>, Failure> {
        let block = if command.roots_only { None } else { prover.adopting(queue)? };
        Ok(block.map(|block| {
            anchors.add_l2_block(block.head.hash);
            SoftHeader(block.head.header)
        }))
    };
    let (old_block, new_block) = (block_of(&old)?, block_of(&new)?);
    let proof = Consistency { old, new, proof, old_block, new_block };
    command.target.finish(prover.file(Proof::Consistency(proof)), &anchors, out)
}
