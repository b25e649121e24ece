//! `sortie quote`, `force`, `resume` and `reclaim`: an L2 transaction onto Bitcoin.

mod report;

use super::life::{Effect, Life, Teller};
use super::wallet::{open_synced, open_to_sign, rate};
use crate::config::{Fees, Settings, WalletName};
use crate::failure::Failure;
use crate::follower::Reader;
use crate::input::hex_argument;
use crate::output::Output;
use clap::{Args, ValueEnum};
use report::{ForceReport, QuoteReport, ReclaimReport, ResumeReport};
use sortie::chain::{BlockSource, Mempool};
use sortie::envelope::{Body, Payload};
use sortie::manifest::Manifest;
use sortie::primitives::sha256;
use sortie::publish::{self, CarrierChoice, JobId, Outcome, Policy, Request, publish};
use sortie::queue::Place;
use std::thread::sleep;
use std::time::Duration;

/// How long one look at an unchanged chain lasts.
const LOOK: Duration = Duration::from_secs(1);

const QUOTE_EXAMPLE: &str = "\
Example:
  sortie quote $(sortie ledger transfer --key alice.key --to $BOB --amount 1000)";

/// Say what forcing an L2 transaction would cost
///
/// Plans both carriers with the wallet's coins at the current fee rate, down to the last byte, and sends nothing. An
/// OP_RETURN output is cheaper for short transactions, a Taproot envelope (commit and reveal) for long ones.
#[derive(Args, Debug)]
#[command(after_long_help = QUOTE_EXAMPLE)]
pub struct Quote {
    /// The signed L2 transaction; `-` reads stdin, `@FILE` a file
    #[arg(value_name = "HEX")]
    tx: String,
    #[command(flatten)]
    fees: Fees,
    #[command(flatten)]
    wallet: WalletName,
}

const FORCE_EXAMPLE: &str = "\
Examples:
  sortie force $(sortie ledger transfer --key alice.key --to $BOB --amount 1000)
  sortie force @tx.hex --fee-rate 4 --max-fee 2000 --wait executed";

/// Force an L2 transaction through Bitcoin
///
/// Writes it into Bitcoin with the wallet's coins. Mined, it is in the queue, in front of everything that comes later;
/// when the sequencing window has passed, every node executes it, whatever the sequencer does. Running the same command
/// again never pays twice: it sends the same Bitcoin transactions again.
///
/// With --wait confirmed it returns when the transaction is mined, with --wait executed when it is executed; exit
/// code 1 if it had no effect.
#[derive(Args, Debug)]
#[command(after_long_help = FORCE_EXAMPLE)]
pub struct Force {
    /// The signed L2 transaction; `-` reads stdin, `@FILE` a file
    #[arg(value_name = "HEX")]
    tx: String,
    /// How to carry it: auto (the cheaper one), op-return or taproot
    #[arg(long, default_value = "auto", value_name = "CARRIER")]
    carrier: CarrierChoice,
    #[command(flatten)]
    fees: Fees,
    /// Return only when it has come this far
    #[arg(long, value_enum)]
    wait: Option<Until>,
    /// Force it once more, although it has been forced already: that is another item, and is paid for again
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    wallet: WalletName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Until {
    Confirmed,
    Executed,
}

/// Send again what was signed and is neither in the mempool nor mined
///
/// After a crash, or when the node has forgotten a transaction. The same bytes leave again; nothing is paid twice.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie resume --wallet alice")]
pub struct Resume {
    #[command(flatten)]
    wallet: WalletName,
}

/// Take back the coins of a Taproot envelope that was not revealed
///
/// Sweeps the commit's coins back into the wallet. The L2 transaction is not forced then; one that is mined already
/// cannot be taken back.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie reclaim 3 --fee-rate 5")]
pub struct Reclaim {
    /// The job's number, as `force` printed it
    job: i64,
    #[command(flatten)]
    fees: Fees,
    #[command(flatten)]
    wallet: WalletName,
}

/// Runs `quote`.
pub fn quote(command: &Quote, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let (payload, _) = payload(&settings.manifest()?, &command.tx)?;
    let (wallet, node) = open_synced(settings, &command.wallet)?;
    let rate = rate(&node, &command.fees, out)?;
    let policy = Policy::new(node.relay()?, None);
    let costs = publish::quote(&wallet, &payload, rate.rate, &policy)?;
    out.print(&QuoteReport::new(&payload, &rate, &costs))
}

/// Runs `force`.
pub fn force(command: &Force, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let manifest = settings.manifest()?;
    let (payload, tx) = payload(&manifest, &command.tx)?;
    let publication;
    let quote;
    {
        // The wallet is closed before the wait: it is for one process at a time.
        let (mut wallet, node) = open_to_sign(settings, &command.wallet)?;
        let rate = rate(&node, &command.fees, out)?;
        let policy = Policy::new(node.relay()?, None);
        let costs = publish::quote(&wallet, &payload, rate.rate, &policy)?;
        quote = QuoteReport::new(&payload, &rate, &costs);
        let request = Request {
            carrier: command.carrier,
            again: command.again,
            caps: settings.caps(&command.fees),
            ..Request::at(rate.rate)
        };
        publication = publish(&mut wallet, &node, &payload, &request)?;
    }
    let place = Place {
        txid: publication.place.txid,
        carrier: publication.place.carrier,
        index: publication.place.index,
        position: 0,
    };
    let window = manifest.sequencing_window;
    out.print(&ForceReport::new(&publication, place, sha256(&tx), window, command.carrier, quote))?;
    match command.wait {
        None => Ok(()),
        Some(until) => wait(place, until, settings, out),
    }
}

/// Runs `resume`.
pub fn resume(command: &Resume, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let (mut wallet, node) = open_synced(settings, &command.wallet)?;
    let resumed = publish::resume(&mut wallet, &node)?;
    if resumed.is_empty() {
        out.note("nothing is unfinished");
    }
    for resumed in &resumed {
        out.print(&ResumeReport::from(resumed))?;
    }
    match resumed.iter().find(|resumed| matches!(resumed.outcome, Outcome::Refused { .. })) {
        Some(refused) => Err(Failure::failed(format_args!(
            "the node refuses job {} for now; run `sortie resume` again later",
            refused.job
        ))),
        None => Ok(()),
    }
}

/// Runs `reclaim`.
pub fn reclaim(command: &Reclaim, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let (mut wallet, node) = open_to_sign(settings, &command.wallet)?;
    let rate = rate(&node, &command.fees, out)?.rate;
    let job = JobId(command.job);
    let txid = publish::reclaim(&mut wallet, &node, job, rate, &settings.caps(&command.fees))?;
    out.print(&ReclaimReport { job, txid })
}

/// The payload that forces one transaction, and the transaction.
fn payload(manifest: &Manifest, hex: &str) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let tx = hex_argument(hex)?;
    let payload = Payload { namespace: manifest.rollup_id().namespace(), body: Body::Tx(tx.clone()) };
    Ok((payload.encode().map_err(Failure::usage)?, tx))
}

/// Follows Bitcoin until the item at `place` has come as far as is asked.
fn wait(place: Place, until: Until, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let mut reader = Reader::open(settings, out)?;
    let mut told = None;
    loop {
        if let Some(life) = life_at(&place, &reader, settings)? {
            let executed = life.execution.map(|execution| execution.effect);
            let block = life.queued.map(|queued| queued.block_hash);
            if executed.is_some() || told != block {
                out.print(&life)?;
                told = block;
            }
            match (until, executed) {
                (Until::Executed, None) => {}
                (Until::Executed, Some(Effect { reason: Some(reason), .. })) => {
                    return Err(Failure::failed(format_args!("it was executed without any effect: {reason}")));
                }
                _ => return Ok(()),
            }
        }
        match &reader {
            Reader::Own(writer) => {
                let tip = writer.node.derivation().tip().block.hash;
                writer.source.wait_for_tip(&tip, LOOK).map(drop)
            }
            Reader::Other(_) => {
                sleep(LOOK);
                Ok(())
            }
        }
        .map_err(Failure::from)
        .and_then(|()| reader.refresh(out))
        .or_else(|failure| match failure.is_temporary() {
            true => {
                out.survived(&failure, "trying again");
                sleep(LOOK);
                Ok(())
            }
            false => Err(failure),
        })?;
    }
}

fn life_at(place: &Place, reader: &Reader, settings: &Settings) -> Result<Option<Life>, Failure> {
    let item = reader.node().store().item_at(place)?;
    item.map(|item| Teller::new(reader.node(), settings)?.forced(&item)).transpose()
}
