//! `sortie recover`: unrevealed commits, on a machine that has the wallet's words and no journal.

use super::super::wallet::{TARGET_BLOCKS, open_to_sign, rate};
use super::Transactions;
use crate::config::{Fees, Settings, WalletName};
use crate::failure::Failure;
use crate::output::{Output, field};
use bitcoin::{OutPoint, Txid};
use clap::Args;
use serde::Serialize;
use sortie::primitives::BtcHeight;
use sortie::publish::{self, Backup, JobId, KEYS_TRIED, Lead, Reclaimed, Suspect};
use std::fmt;

/// Reveal keys that are tried at most: their addresses are all in memory, and in one question to the node.
const MOST_KEYS: i64 = 100_000;

const EXAMPLES: &str = "\
Examples:
  sortie recover --backup 3:1f5c... --reclaim
  sortie recover --tx @tx.hex
  sortie recover --since 870000";

/// Bring back the coins of an unrevealed commit on a new machine
///
/// With the wallet restored from its words. The backup line that `force` printed, or the L2 transaction, finds the
/// commit and spends it: revealed, so that the transaction is forced after all, or taken back with --reclaim. With the
/// words alone it lists what looks like an unrevealed commit: those words do not suffice to spend it.
///
/// The backup line names the key. With the L2 transaction alone, the wallet's first reveal keys are tried one after
/// another; a wallet that had been restored before has used others, and only the backup line names them.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Recover {
    /// The backup line, INDEX:MERKLE_ROOT
    #[arg(long, value_name = "LINE")]
    backup: Option<Backup>,
    /// The signed L2 transaction; `-` reads stdin, `@FILE` a file; once for each that shares the envelope
    #[arg(long, value_name = "HEX")]
    tx: Vec<String>,
    /// Take the coins back instead of revealing
    #[arg(long)]
    reclaim: bool,
    /// How many reveal keys are tried where only the L2 transaction is given, 100000 at most
    #[arg(long, value_name = "N", default_value_t = KEYS_TRIED, value_parser = clap::value_parser!(u32).range(1..=MOST_KEYS), conflicts_with = "backup", requires = "tx")]
    keys: u32,
    /// Search the chain from this height [default: the wallet's birthday, if it is known]
    #[arg(long, value_name = "HEIGHT", conflicts_with_all = ["backup", "tx"])]
    since: Option<BtcHeight>,
    #[command(flatten)]
    fees: Fees,
    #[command(flatten)]
    wallet: WalletName,
}

/// Runs `recover`.
pub fn recover(command: &Recover, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let payload = match command.tx.as_slice() {
        [] => None,
        txs => {
            let txs = Transactions { txs: txs.to_vec(), txs_file: None, unchecked: true };
            Some(txs.payload(&settings.manifest()?)?.0)
        }
    };
    let (mut wallet, bitcoin) = open_to_sign(settings, &command.wallet)?;
    if payload.is_none() && command.backup.is_none() {
        if command.since.is_none() && wallet.is_without_past() {
            return Err(Failure::usage(
                "restoring found no coin of this wallet, so it is not known when it began; say from which height on, with --since",
            ));
        }
        let since = command.since.unwrap_or(wallet.birthday());
        let suspects = publish::suspects(&wallet, &bitcoin, since)?;
        match suspects.is_empty() {
            true => out.note(format_args!("nothing since block {since} looks like an unrevealed commit")),
            false => out.note(
                "payments to others look the same; to spend a commit, give its backup line (--backup) or its L2 transaction (--tx)",
            ),
        }
        return suspects.iter().try_for_each(|suspect| out.print(&SuspectReport::from(suspect)));
    }
    if payload.is_none() && !command.reclaim {
        return Err(Failure::usage(
            "to reveal it, give the L2 transaction, too (--tx); or take it back with --reclaim",
        ));
    }
    let rate = rate(&bitcoin, &command.fees, TARGET_BLOCKS, settings, out)?.rate;
    let caps = settings.caps(&command.fees);
    let lead = Lead { backup: command.backup, payload: payload.as_deref(), keys: command.keys };
    if lead.backup.is_none() {
        out.note(format_args!("searching Bitcoin for the envelopes of {} keys", lead.keys));
    }
    let found = publish::recover(&mut wallet, &bitcoin, lead, rate, &caps)?;
    let job = found.id;
    let can_be_revealed = found.state.is_unfinished() && found.state.is_publishing();
    if !command.reclaim && !can_be_revealed {
        return Err(Failure::usage(format_args!(
            "job {job} is {}, and is not revealed again; take back what was found with --reclaim",
            found.state
        )));
    }
    let (outcome, txids) = if command.reclaim {
        match publish::reclaim(&mut wallet, &bitcoin, job, rate, &caps)? {
            Reclaimed::Sweeping { txid, .. } => ("reclaiming", vec![txid]),
            Reclaimed::Freed => ("freed", Vec::new()),
        }
    } else {
        ("revealed", publish::go_on(&mut wallet, &bitcoin, found)?.txids)
    };
    out.print(&RecoverReport { job, outcome, txids })
}

/// A commit that was found again.
#[derive(Serialize)]
struct RecoverReport {
    job: JobId,
    outcome: &'static str,
    txids: Vec<Txid>,
}

impl fmt::Display for RecoverReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        field(f, "job", format_args!("{}, {}", self.job, self.outcome))?;
        self.txids.iter().try_for_each(|txid| field(f, "transaction", txid))
    }
}

/// An output that may be an unrevealed commit.
#[derive(Serialize)]
struct SuspectReport {
    outpoint: OutPoint,
    amount_sat: u64,
    height: BtcHeight,
}

impl From<&Suspect> for SuspectReport {
    fn from(suspect: &Suspect) -> Self {
        let Suspect { outpoint, amount, height } = *suspect;
        Self { outpoint, amount_sat: amount.to_sat(), height }
    }
}

impl fmt::Display for SuspectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {} sat, in block {}", self.outpoint, self.amount_sat, self.height)
    }
}
