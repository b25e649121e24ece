//! `sortie send`: the fast way, while the sequencer is willing.
//!
//! Guarantees exit code 0 only for what the sequencer has signed, or only taken in (`--no-wait`), and that what it
//! signed is on disk before that is told.

use crate::config::Settings;
use crate::failure::Failure;
use crate::follower::data_dir;
use crate::input::hex_argument;
use crate::mend::Mended;
use crate::output::Output;
use crate::vouched::{Doubt, Included, Shown, Signers};
use bitcoin::hex::DisplayHex;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use sortie::api::wire::{BlockAnswer, TxAnswer, TxStatus};
use sortie::durable::{Access, make_folder, replace};
use sortie::primitives::{Hash32, L2Number, sha256};
use sortie::proof::{Receipt, Signed};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

const EXAMPLE: &str = "\
Example:
  sortie send --sequencer http://127.0.0.1:8645 \\
    $(sortie ledger transfer --key alice.key --to $BOB --amount 1000)

Exit codes: 0 in a block, as the sequencer has signed, or with --no-wait taken in; 1 refused, no
effect, or in no block in time; 2 bad usage or input; 4 the sequencer of another rollup; 5 the
sequencer says that it is in a block, and has signed nothing that shows it.";

/// Between two looks at what became of it.
const PAUSE: Duration = Duration::from_millis(100);
/// And while a signature is waited for.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// Send a transaction to a sequencer
///
/// The fast way, while the sequencer is willing: waits until the transaction is in an unsafe block, and the sequencer
/// has signed that it is: a receipt, or the block's header. What it signed is kept in the data folder, where `prove
/// broken-receipt` finds it. A sequencer that only says so is not believed (exit code 5), nor is any without a
/// manifest, which names its keys. What the sequencer has no time for is sent again for as long as --timeout says. If
/// the sequencer refuses, or the transaction would have no effect, the exit code is 1; `sortie force` needs no
/// sequencer.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLE)]
pub struct Send {
    /// The signed L2 transaction; `-` reads it from stdin, `@FILE` from a file
    #[arg(value_name = "HEX")]
    tx: String,
    /// The sequencer
    #[arg(long, env = "SORTIE_SEQUENCER", value_name = "URL", hide_env_values = true)]
    sequencer: String,
    /// Return as soon as it is acknowledged
    #[arg(long)]
    no_wait: bool,
    /// Give up waiting after this many seconds; it stays acknowledged
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
}

/// What became of a transaction that was sent.
#[derive(Serialize)]
struct Sent {
    tx_hash: Hash32,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<L2Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<Hash32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Box<Signed<Receipt>>>,
    /// What shows it: `receipt` or `header`.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<&'static str>,
    /// The file that keeps that: the receipt, or the block with the signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<PathBuf>,
}

impl Sent {
    fn pending(tx_hash: Hash32) -> Self {
        Self { tx_hash, status: "pending", number: None, block: None, receipt: None, signed: None, kept: None }
    }

    fn included(tx_hash: Hash32, included: &Included) -> Self {
        let Included { number, block, .. } = *included;
        Self { status: "included", number: Some(number), block: Some(block), ..Self::pending(tx_hash) }
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(number) = self.number else { return write!(f, "{} is {}", self.tx_hash, self.status) };
        write!(f, "{} is in unsafe L2 block {number}", self.tx_hash)?;
        self.signed.map_or(Ok(()), |signed| write!(f, ", by the sequencer's signed {signed}"))
    }
}

/// Runs the command.
pub fn run(command: &Send, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let notes = out.clone();
    let url = settings.sequencer(&command.sequencer)?.patient(Duration::from_secs(command.timeout), move |error| {
        notes.note(format_args!("{}; trying again", Mended(error)));
    });
    let tx = hex_argument(&command.tx)?;
    let manifest = settings.optional_manifest()?;
    manifest.iter().try_for_each(|manifest| url.check_serves(manifest.rollup_id()))?;
    let signers = manifest.map(|manifest| Signers::known(&manifest, settings)).transpose()?;
    let hash = sha256(&tx);
    let deadline = Instant::now() + Duration::from_secs(command.timeout);
    let mut answer = url.submit(&tx.to_lower_hex_string())?;
    loop {
        let TxAnswer { tx_hash, status } = answer;
        if tx_hash != hash {
            return Err(Failure::failed(format_args!(
                "the sequencer was sent {hash} and answers about {tx_hash}; if it does not mean to include it, use `sortie force`"
            )));
        }
        let is_over = command.no_wait || Instant::now() >= deadline;
        match status {
            TxStatus::Pending if command.no_wait => return out.print(&Sent::pending(hash)),
            TxStatus::Pending if is_over => {
                return Err(Failure::failed(format_args!(
                    "{hash} was acknowledged but is in no block after {} s; if the sequencer does not mean to include it, use `sortie force`",
                    command.timeout
                )));
            }
            TxStatus::Pending => sleep(PAUSE),
            TxStatus::Rejected { reason } if reason == "outbid" => {
                return Err(Failure::failed(format_args!(
                    "the sequencer dropped {hash}: its pool is full of transactions that pay more; send it again later, or one with a higher fee"
                )));
            }
            TxStatus::Rejected { reason } => {
                return Err(Failure::failed(format_args!(
                    "the sequencer would execute {hash} as a no-op ({reason}) and left it out"
                )));
            }
            TxStatus::Included { number, block, receipt } => {
                let included = Included { number, block, receipt };
                let shown = match &signers {
                    Some(signers) => signers.shown(&url, &hash, &included),
                    None => Err(Doubt { reason: "without a manifest its keys are not known".into(), may_pass: false }),
                };
                let sent = Sent::included(hash, &included);
                match shown {
                    Ok(shown) => return tell(sent, shown, settings, out),
                    Err(Doubt { may_pass: true, .. }) if !is_over => sleep(LONG_PAUSE),
                    Err(Doubt { reason, .. }) => return Err(claimed(sent, &reason, out)),
                }
            }
        }
        answer = url.tx(&hash)?;
    }
}

/// That nothing but its word is there.
fn claimed(sent: Sent, reason: &str, out: &Output) -> Failure {
    let Sent { tx_hash, number, .. } = &sent;
    let message = format!(
        "the sequencer claims that {tx_hash} is in L2 block {}, unsigned: {reason}; `sortie force` needs no sequencer",
        number.unwrap_or_default()
    );
    match if out.is_json() { out.print(&sent) } else { Ok(()) } {
        Ok(()) => Failure::claimed(message),
        Err(failure) => failure,
    }
}

/// Keeps what the sequencer signed, and tells.
fn tell(sent: Sent, shown: Shown, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let folder = data_dir(settings)?.path(RECEIPTS);
    let (receipt, kept) = match shown {
        Shown::Receipt(receipt) => {
            let first = receipt.statement.first_number;
            // The form of the sequencer's answer, which `prove broken-receipt` reads.
            let text = json!({ "tx_hash": sent.tx_hash, "status": "included", "receipt": receipt }).to_string();
            let kept = keep(&folder, &format!("{}-{first}.json", sent.tx_hash), &text)?;
            (Some(receipt), kept)
        }
        Shown::Blocks(blocks) => {
            let keep_block = |block: &BlockAnswer| {
                let text = serde_json::to_string(block).map_err(Failure::failed)?;
                keep(&folder, &format!("{}-block-{}.json", sent.tx_hash, block.header.number), &text)
            };
            let kept = blocks.iter().map(keep_block).collect::<Result<Vec<_>, _>>()?;
            (None, kept.into_iter().next_back().unwrap_or_default())
        }
    };
    let signed = Some(if receipt.is_some() { "receipt" } else { "header" });
    out.print(&Sent { receipt, signed, kept: Some(kept), ..sent })
}

/// Folder in a rollup's place for what sequencers signed of the user's transactions.
const RECEIPTS: &str = "receipts";

/// Writes a file that a power cut does not take back.
fn keep(folder: &Path, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    let kept = make_folder(folder, Access::Umask).and_then(|()| replace(&path, text.as_bytes(), Access::Umask));
    kept.map_err(|error| Failure::file(&path, &error))?;
    Ok(path)
}

/// The receipts that were kept for a transaction, the oldest promise first.
pub fn receipts_of(tx_hash: &Hash32, settings: &Settings) -> Result<Vec<PathBuf>, Failure> {
    let folder = data_dir(settings)?.path(RECEIPTS);
    let first = |name: &str| name.strip_prefix(&format!("{tx_hash}-"))?.strip_suffix(".json")?.parse::<L2Number>().ok();
    let files = match fs::read_dir(&folder) {
        Ok(files) => files.filter_map(Result::ok).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Failure::file(&folder, &error)),
    };
    let mut kept: Vec<_> =
        files.iter().filter_map(|file| Some((first(&file.file_name().to_string_lossy())?, file.path()))).collect();
    kept.sort();
    Ok(kept.into_iter().map(|(_, path)| path).collect())
}
