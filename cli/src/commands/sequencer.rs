//! `sortie sequencer`.

use crate::commands::ledger::read_key;
use crate::commands::money::BumpReport;
use crate::commands::wallet;
use crate::config::{Fees, Settings, WalletName, behind, manifest_network};
use crate::failure::Failure;
use crate::follower::{Writer, clear, data_dir};
use crate::input::{sats, xonly};
use crate::mend::Mended;
use crate::outage::Outage;
use crate::output::{Output, count};
use crate::passphrase;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, Network, XOnlyPublicKey};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use sortie::chain::{NodeInfo, RpcNode};
use sortie::executor::of_manifest;
use sortie::follower::ChainEvent;
use sortie::manifest::ExecutorKind;
use sortie::primitives::{L2Number, RollupId};
use sortie::sequencer::{
    Done, Policy, SequencerError, SequencerStore, Watermark, WatermarkError, check_time_to_post, serve,
};
use sortie::wallet::Wallet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::net::TcpListener;

/// Bitcoin blocks within which a new batch is to be mined, for the estimate of its rate.
const CONFIRMATION_TARGET: u16 = 2;

const SEQUENCER_EXAMPLE: &str = "\
Examples:
  sortie ledger key --out sequencer.key
  sortie rollup new --name mine --out mine.toml \\
    --sequencer $(sortie ledger key --show sequencer.key)
  sortie wallet create --manifest mine.toml --wallet sequencer
  sortie sequencer --manifest mine.toml --key sequencer.key --wallet sequencer

It answers POST /v1/tx (a transaction in hexadecimal), GET /v1/tx/SHA256, GET /v1/block/NUMBER
and GET /v1/status.";

/// Run the lightweight sequencer
///
/// Takes transactions over HTTP in order of arrival, makes an L2 block a second if there is something to put in,
/// executes forced transactions first, and posts batches to Bitcoin, paid from its wallet. Everything that it
/// acknowledged is on disk: killed at any moment, it goes on where it was.
#[derive(Args, Debug)]
#[command(after_long_help = SEQUENCER_EXAMPLE)]
pub struct Sequencer {
    /// File of the key that signs batches (see `sortie ledger key`)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where to answer; only this machine unless told otherwise
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8645")]
    listen: SocketAddr,
    /// Refuse this account's transactions, as a cheating sequencer would (may be given several times)
    #[arg(long, value_name = "XONLY", value_parser = xonly)]
    deny: Vec<XOnlyPublicKey>,
    /// Forget what its follower derived, and derive it again; what it promised and signed is kept
    #[arg(long)]
    rebuild: bool,
    /// Take a transaction only if it pays this much of what posting it costs at present, in percent [default: 100; on
    /// regtest 0]
    #[arg(long, env = "SORTIE_LEAST_FEE", value_name = "PERCENT", hide_env_values = true)]
    least_fee: Option<u32>,
    /// Pay at most so many satoshis to Bitcoin in 24 hours for own transactions: then they wait. What is forced does
    /// not
    #[arg(long, env = "SORTIE_MAX_FEE_PER_DAY", value_name = "SATS", value_parser = sats, hide_env_values = true)]
    max_fee_per_day: Option<u64>,
    /// Take my word that this key signed no L2 block above N, on whatever machine, and that no other signs with it
    ///
    /// For a sequencer whose data was lost or moved without the key's watermark. Without it, receipts wait for a
    /// window. With a number that is too low, what is signed now can be proven to contradict what was signed before.
    #[arg(long, value_name = "N")]
    signed_up_to: Option<L2Number>,
    #[command(flatten)]
    wallet: WalletName,
    #[command(flatten)]
    fees: Fees,
}

/// A line of the sequencer's log.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    fields: Value,
    #[serde(skip)]
    text: String,
}

impl Line {
    fn new(event: &str, mut fields: Value, text: String) -> Self {
        fields["event"] = json!(event);
        Self { fields, text }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<SequencerError> for Failure {
    fn from(error: SequencerError) -> Self {
        match error {
            SequencerError::Follower(error) => error.into(),
            SequencerError::Wallet(error) => error.into(),
            SequencerError::Publish(error) => error.into(),
            SequencerError::NotInSet(_) | SequencerError::Threshold(_) => Failure::usage(Mended(&error)),
            SequencerError::NoTimeToPost { .. } | SequencerError::Twin { .. } => Failure::refused(Mended(&error)),
            SequencerError::Watermark(error) => error.into(),
            error => Failure::failed(error),
        }
    }
}

impl From<WatermarkError> for Failure {
    fn from(error: WatermarkError) -> Self {
        match error {
            WatermarkError::InUse(_) | WatermarkError::OtherKey { .. } => Failure::refused(error),
            WatermarkError::Damaged(_) | WatermarkError::File { .. } => Failure::failed(error),
        }
    }
}

/// Runs the sequencer until it is told to stop.
pub fn run(command: &Sequencer, settings: &Settings, out: &Output) -> Result<(), Failure> {
    // Of its own: beside it `sortie follow` and all other commands work as ever.
    let dir = data_dir(settings)?.child("sequencer");
    let (manifest, network) = (dir.manifest().clone(), manifest_network(dir.manifest())?);
    let confirmations = settings.confirmations(network);
    check_time_to_post(&manifest, confirmations)?;
    of_manifest(&manifest).map_err(Failure::usage)?;
    let key = read_key(&Secp256k1::new(), &command.key, settings)?;
    let lock = dir.lock()?.ok_or_else(|| {
        Failure::failed(format_args!(
            "another sequencer of this rollup runs with this --data-dir ({})",
            settings.data_dir().display()
        ))
    })?;
    let watermark = Watermark::open(&command.key, key.x_only_public_key().0)?;
    let mut wallet = passphrase::unlock(wallet::with_keys(wallet::open(settings, &command.wallet)?)?, settings)?;
    let bitcoin = settings.connect_for_service(network)?;
    if let Some(info) = bitcoin.node().map(RpcNode::info).transpose()?.filter(NodeInfo::is_behind) {
        // What is promised on an old chain might not hold on the newest.
        return Err(Failure::refused(behind(&info)));
    }
    // Only for what is told: it is brought up to date again before it pays.
    if let Err(error) = wallet.sync(&bitcoin) {
        out.note(format_args!("the wallet's balance is as of block {}: {}", wallet.synced_to().height, Mended(&error)));
    }
    let payer = Payer::new(&wallet);
    if payer.spendable_sat == 0 {
        let address = wallet.address()?;
        out.warn(format_args!(
            "the wallet `{}` has no coins, and batches are paid from it: none is posted until you fund {address}",
            payer.wallet
        ));
    }
    if command.rebuild {
        clear(&lock, &bitcoin, settings, out)?;
    }
    let readers = settings.reading().open(&bitcoin, out)?;
    let mut follower = Writer::open(&lock, settings.reading(), &bitcoin)?;
    follower.sync(&bitcoin, out)?;
    let store = SequencerStore::open(&dir.path("sequencer.sqlite"))?;
    let policy = Policy {
        denied: command.deny.iter().map(|account| account.serialize().to_vec()).collect(),
        rate: settings.rate_terms(&command.fees, network, CONFIRMATION_TARGET),
        caps: settings.caps_of_batches(&command.fees),
        max_fee_per_day: command.max_fee_per_day.map(Amount::from_sat),
        least_fee_percent: command.least_fee.unwrap_or(if network == Network::Regtest { 0 } else { 100 }),
        signed_up_to: command.signed_up_to,
        ..Policy::new(key, confirmations, network)
    };
    if manifest.executor.kind == ExecutorKind::Opaque && policy.max_fee_per_day.is_none() && network != Network::Regtest
    {
        out.warn(
            "the executor of this rollup knows neither senders nor fees: whoever reaches the sequencer can have it pay for any bytes; limit that with --max-fee-per-day",
        );
    }
    let sequencer =
        sortie::sequencer::Sequencer::new(policy, follower.follower, bitcoin.into_node()?, wallet, store, watermark)?;
    warn_of_receipts(&sequencer, out);
    let sequencer = sequencer.read_by(readers.readers, readers.verify_all);

    let runtime = tokio::runtime::Runtime::new().map_err(Failure::failed)?;
    let (out, errors, explains) = (out.clone(), out.clone(), command.fees.explain);
    runtime.block_on(async move {
        let listener = TcpListener::bind(command.listen).await.map_err(|error| {
            Failure::failed(format_args!("cannot listen on {}: {error}; choose another --listen", command.listen))
        })?;
        let address = listener.local_addr().map_err(Failure::failed)?;
        started(&out, manifest.rollup_id(), address, &payer)?;
        let mut outage = Outage::default();
        let on_error = move |error: Option<&SequencerError>| match error {
            // It tries again at each of its ticks.
            Some(error) => drop(outage.goes_on(&Failure::failed(error), &errors)),
            None => outage.ends(&errors),
        };
        // A log that nobody reads any more is no reason to stop serving.
        let on_done = move |done| {
            match &done {
                Done::Bitcoin(ChainEvent::Applied(applied)) => {
                    applied.refused.iter().for_each(|refusal| out.warn(refusal))
                }
                Done::Explained(steps) if explains => steps.iter().for_each(|step| out.note(step)),
                _ => {}
            }
            if let Some(line) = log_line(done) {
                drop(out.print(&line));
            }
        };
        Ok(serve(sequencer, listener, stop_signal(), on_done, on_error).await?)
    })
}

/// Says that nothing is known of what the key has signed, if it is so.
fn warn_of_receipts(sequencer: &sortie::sequencer::Sequencer, out: &Output) {
    let from = sequencer.status().read().ok().and_then(|status| status.receipts_from);
    if let Some(from) = from {
        out.warn(format_args!(
            "what this key has signed is not all in this database: its next two blocks stay empty and unsigned, and receipts \
             are given from Bitcoin block {from} on; if you know the last block that it signed, start with --signed-up-to N"
        ));
    }
}

/// Whose coins pay for the batches.
struct Payer {
    wallet: String,
    spendable_sat: u64,
}

impl Payer {
    fn new(wallet: &Wallet) -> Self {
        let name = wallet.dir().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let balance = wallet.balance();
        Self { wallet: name, spendable_sat: (balance.confirmed + balance.change).to_sat() }
    }
}

fn started(out: &Output, rollup_id: RollupId, address: SocketAddr, payer: &Payer) -> Result<(), Failure> {
    let url = format!("http://{address}");
    let Payer { wallet, spendable_sat } = payer;
    let text = format!("sequencing rollup {rollup_id} at {url}, paid by the wallet `{wallet}` ({spendable_sat} sat)");
    let fields = json!({ "rollup_id": rollup_id, "url": url, "wallet": wallet, "spendable_sat": spendable_sat });
    out.print(&Line::new("started", fields, text))
}

/// Ready on Ctrl-C or SIGTERM.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupted = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => tokio::select! {
            _ = interrupted => {}
            _ = terminated.recv() => {}
        },
        Err(_) => drop(interrupted.await),
    }
}

fn log_line(done: Done) -> Option<Line> {
    Some(match done {
        Done::Bitcoin(ChainEvent::Applied(applied)) => {
            let height = applied.block.height;
            let mut text = format!("bitcoin {height}");
            for (n, noun) in [(applied.queued.len(), "forced item"), (applied.blocks.len(), "block")] {
                if n > 0 {
                    text +=
                        &format!(", {} {}", count(n as u64, noun), if noun == "block" { "derived" } else { "queued" });
                }
            }
            for judged in &applied.judged {
                text += &format!(", {} {}: {}", judged.name(), judged.place, judged.verdict);
            }
            let verdicts: Vec<_> = applied.judged.iter().map(|judged| judged.verdict.to_string()).collect();
            let fields = json!({ "height": height, "hash": applied.block.hash, "queued": applied.queued.len(),
                "derived": applied.blocks.len(), "verdicts": verdicts });
            Line::new("bitcoin", fields, text)
        }
        Done::Bitcoin(ChainEvent::Reverted(block)) => {
            let text = format!("bitcoin {} left the best chain", block.height);
            Line::new("reverted", json!({ "height": block.height, "hash": block.hash }), text)
        }
        Done::Made(made) => {
            let header = &made.block.header;
            let (forced, own) = (made.block.forced.end - made.block.forced.start, made.block.own_txs.len());
            let text = format!("block {}: {forced} forced, {own} own, origin {}", header.number, header.origin.height);
            let fields = json!({ "number": header.number, "hash": made.block.hash, "forced": forced, "own": own,
                "origin_height": header.origin.height, "state_root": made.state_root });
            Line::new("block", fields, text)
        }
        Done::Orphaned(blocks) => {
            let text = format!("{} orphaned; their transactions wait again", count(blocks as u64, "block"));
            Line::new("orphaned", json!({ "blocks": blocks }), text)
        }
        Done::Posted { blocks: (first, last), publication } => {
            let (place, fee) = (publication.place, publication.fee.to_sat());
            let text = format!("posted blocks {first} to {last} at {place} for {fee} sat");
            let fields = json!({ "first": first, "last": last, "job": publication.job, "place": place,
                "txids": publication.txids, "fee_sat": fee });
            Line::new("posted", fields, text)
        }
        Done::PostingFailed(error) => {
            let text = format!("a batch could not be posted ({error}); trying again");
            Line::new("posting_failed", json!({ "error": error }), text)
        }
        Done::Raised { blocks, bumped } => {
            let report = BumpReport::from(bumped);
            let what = blocks.map_or_else(String::new, |(first, last)| format!(" (blocks {first} to {last})"));
            let (job, fee, before) = (report.job, report.fee_sat, report.fee_before_sat);
            let text = format!("job {job}{what} pays {fee} sat now instead of {before}; place {}", report.place);
            let mut fields = json!(report);
            (fields["first"], fields["last"]) = (json!(blocks.map(|all| all.0)), json!(blocks.map(|all| all.1)));
            Line::new("raised", fields, text)
        }
        Done::Stuck(in_flight) => {
            let since = in_flight.stuck_since.unwrap_or_default();
            Line::new("stuck", json!(in_flight), format!("stuck since Bitcoin block {since}: {in_flight}"))
        }
        Done::OrderRefused { job, reason } => {
            let text = format!("job {job} was not bumped: {reason}");
            Line::new("bump_refused", json!({ "job": job, "error": reason }), text)
        }
        Done::Paused(Some(reason)) => {
            let text = format!("{reason}, or for a higher --max-fee-per-day");
            Line::new("paused", json!({ "reason": reason }), text)
        }
        Done::Paused(None) => Line::new("unpaused", json!({}), "own transactions go into blocks again".into()),
        Done::Trouble(error) => Line::new("trouble", json!({ "error": error }), error),
        Done::Explained(_) => return None,
    })
}
