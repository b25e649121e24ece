//! `sortie force --psbt` and `sortie finish`: this wallet's coins, signed by another signer.

use super::super::wallet::open_synced;
use super::report::transactions;
use crate::config::{Settings, WalletName};
use crate::failure::Failure;
use crate::output::{Output, field};
use bitcoin::Txid;
use bitcoin::psbt::Psbt;
use clap::Args;
use serde::Serialize;
use sortie::durable::{self, Access};
use sortie::publish::{Backup, Job, JobId, psbt};
use sortie::queue::Place;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Publish what was signed elsewhere
///
/// Takes the signatures out of a PSBT that `sortie force --psbt` wrote, checks them, and sends.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie force @tx.hex --psbt out.psbt\n  sortie finish signed.psbt")]
pub struct Finish {
    /// The signed PSBT, in base64 or binary
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    wallet: WalletName,
}

/// Writes what is to be signed into a file; `draft` plans it, unless its job is known.
pub fn write(
    file: &Path,
    is_known: bool,
    draft: impl FnOnce() -> Result<(Job, Psbt), Failure>,
    out: &Output,
) -> Result<(), Failure> {
    // Only what stands there already may stand there: from the same command, before it was stopped.
    let before = match std::fs::read(file) {
        Ok(bytes) => Some(read(&bytes).map_err(|_| taken(file))?),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::file(file, &error)),
    };
    if before.is_some() && !is_known {
        return Err(taken(file));
    }
    let (job, psbt) = draft()?;
    super::tell_backup(&job, out);
    match before {
        None => durable::write_new(file, psbt.to_string().as_bytes(), Access::Umask),
        // From a process that was killed, perhaps before it had flushed it.
        Some(before) if before == psbt => durable::flush(file),
        Some(_) => return Err(taken(file)),
    }
    .map_err(|error| Failure::file(file, &error))?;
    let backup = Backup::of(&job).map(|backup| backup.to_string());
    let fee_sat = job.current().map_or(0, |current| current.fee.to_sat());
    out.print(&PsbtReport { state: "planned", job: job.id, fee_sat, file: file.to_owned(), backup })
}

fn taken(file: &Path) -> Failure {
    Failure::refused(format_args!("{} exists already and was not touched; choose another --psbt", file.display()))
}

/// Reads a PSBT in base64 or binary.
fn read(bytes: &[u8]) -> Result<Psbt, bitcoin::psbt::Error> {
    Psbt::deserialize(bytes).or_else(|error| String::from_utf8_lossy(bytes).trim().parse::<Psbt>().map_err(|_| error))
}

/// Runs `finish`.
pub fn finish(command: &Finish, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let file = &command.file;
    let bytes = std::fs::read(file).map_err(|error| Failure::usage(format_args!("{}: {error}", file.display())))?;
    let psbt = read(&bytes).map_err(|error| Failure::usage(format_args!("{}: no PSBT: {error}", file.display())))?;
    let (mut wallet, node) = open_synced(settings, &command.wallet)?;
    let done = psbt::finish(&mut wallet, &node, &psbt)?;
    let backup = done.backup.map(|backup| backup.to_string());
    let fee_sat = done.fee.to_sat();
    out.print(&FinishReport {
        job: done.job,
        state: done.state.name(),
        resumed: done.resumed,
        place: done.place,
        txids: done.txids,
        fee_sat,
        backup,
    })
}

/// A transaction that waits for its signatures.
#[derive(Serialize)]
struct PsbtReport {
    state: &'static str,
    job: JobId,
    fee_sat: u64,
    file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
}

impl fmt::Display for PsbtReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        field(f, "job", format_args!("{}, fee {} sat; its coins are reserved", self.job, self.fee_sat))?;
        if let Some(backup) = &self.backup {
            field(f, "backup", backup)?;
        }
        field(f, "to be signed", self.file.display())?;
        field(f, "then", "sortie finish SIGNED.psbt")
    }
}

/// What was signed elsewhere is on its way.
#[derive(Serialize)]
struct FinishReport {
    job: JobId,
    state: &'static str,
    resumed: bool,
    place: Place,
    txids: Vec<Txid>,
    fee_sat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
}

impl fmt::Display for FinishReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        field(f, "job", format_args!("{}, {}", self.job, self.state))?;
        field(f, "fee", format_args!("{} sat", self.fee_sat))?;
        transactions(f, &self.txids, &self.place)?;
        if let Some(backup) = &self.backup {
            field(f, "backup", backup)?;
        }
        field(f, "place", self.place)
    }
}
