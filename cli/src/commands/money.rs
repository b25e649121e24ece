//! `sortie quote` and `force`: an L2 transaction onto Bitcoin; and what is done about it later.

mod anywhere;
mod deadline;
mod jobs;
mod psbt;
mod recover;
mod report;
mod waiting;

pub use jobs::{Bump, BumpReport, Jobs, Reclaim, Resume, bump, jobs, reclaim, resume};
pub use psbt::{Finish, finish};
pub use recover::{Recover, recover};

use super::wallet::{TARGET_BLOCKS, open_synced, open_to_sign, open_to_spend, rate, rate_telling_once};
use crate::bitcoin::Bitcoin;
use crate::config::{Fees, Locking, Settings, WalletName};
use crate::failure::Failure;
use crate::follower::{Reader, derived_before};
use crate::input::{hex_argument, hex_lines};
use crate::output::Output;
use clap::{Args, ValueEnum};
use deadline::DeadlineBump;
use report::{Expected, ForceReport, QuoteReport, QuoteTable};
use sortie::envelope::{Body, Carrier, MIN_SHARED_TX, Payload};
use sortie::executor::{Executor, of_manifest};
use sortie::follower::{Effect, Lifecycle};
use sortie::manifest::Manifest;
use sortie::primitives::sha256;
use sortie::publish::{
    self, Amendment, Backup, CarrierChoice, ChosenRate, FURTHEST_TARGET, Job, Payer, Profile, Publication, RateTerms,
    Request, fee_rate, publish_telling,
};
use sortie::queue::Place;
use sortie::wallet::Wallet;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use waiting::Awaited;

/// Before the same is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Bitcoin blocks within which to confirm: what `quote` has a price for.
const QUOTED_TARGETS: [u16; 4] = [1, 3, 6, 24];

const QUOTE_EXAMPLE: &str = "\
Example:
  sortie quote $(sortie ledger transfer --key alice.key --to $BOB --amount 1000)";

/// Say what forcing an L2 transaction would cost
///
/// Plans both carriers with the wallet's coins, down to the last byte, for confirmation in the next, 3, 6 and 24
/// blocks, and sends nothing. Tells what it costs in satoshis, when it would be in the queue, and when it is executed
/// at the latest, as Bitcoin heights and at ten minutes a block. An OP_RETURN output is cheaper for short transactions,
/// a Taproot envelope (commit and reveal) for long ones; the cheaper one has a star. Locked is what its commit holds
/// until the reveal is mined: it comes back, less the reveal's fee.
#[derive(Args, Debug)]
#[command(after_long_help = QUOTE_EXAMPLE)]
pub struct Quote {
    #[command(flatten)]
    txs: Transactions,
    #[command(flatten)]
    relaying: Relaying,
    #[command(flatten)]
    fees: Fees,
    #[command(flatten)]
    locking: Locking,
    #[command(flatten)]
    wallet: WalletName,
}

/// What the nodes on the way relay.
#[derive(Args, Debug)]
struct Relaying {
    /// What is relayed behind OP_RETURN: core30 (100,000 bytes) or legacy (83) [default: as the node's version does;
    /// legacy over Esplora]. A node that says that it relays less itself is believed
    #[arg(long, value_name = "PROFILE")]
    profile: Option<Profile>,
}

/// The L2 transactions, which share one envelope: each further one costs little.
#[derive(Args, Debug)]
struct Transactions {
    /// Signed L2 transactions; `-` reads one from stdin, `@FILE` from a file
    #[arg(value_name = "HEX", required_unless_present = "txs_file")]
    txs: Vec<String>,
    /// More of them, one a line in hexadecimal; `-` is stdin
    #[arg(long, value_name = "FILE")]
    txs_file: Option<PathBuf>,
    /// Also what is sure to have no effect, such as the same transaction twice: it is paid for all the same
    #[arg(long)]
    unchecked: bool,
}

/// One of them, and where it was given.
struct Given {
    at: String,
    tx: Vec<u8>,
}

impl Transactions {
    fn read(&self) -> Result<Vec<Given>, Failure> {
        let mut given = Vec::new();
        for (argument, n) in self.txs.iter().zip(1..) {
            let at = match argument.strip_prefix('@') {
                Some(file) => file.to_owned(),
                None if argument == "-" => "stdin".to_owned(),
                None => format!("argument {n}"),
            };
            given.push(Given { at, tx: hex_argument(argument)? });
        }
        if let Some(path) = &self.txs_file {
            given.extend(hex_lines(path)?.into_iter().map(|(at, tx)| Given { at, tx }));
        }
        Ok(given)
    }

    /// The payload that forces them, and they themselves.
    fn payload(&self, manifest: &Manifest) -> Result<(Vec<u8>, Vec<Vec<u8>>), Failure> {
        let given = self.read()?;
        if !self.unchecked {
            check(&given, of_manifest(manifest).ok().as_deref())?;
        }
        if let (true, Some(n)) = (given.len() > 1, given.iter().position(|given| given.tx.len() < MIN_SHARED_TX)) {
            let Given { at, tx } = &given[n];
            return Err(Failure::usage(format_args!(
                "transaction {} ({at}) has {} bytes; one that shares an envelope has {MIN_SHARED_TX} or more; force it alone",
                n + 1,
                tx.len()
            )));
        }
        let txs: Vec<_> = given.into_iter().map(|given| given.tx).collect();
        let body = match txs.as_slice() {
            [] => return Err(Failure::usage("no transaction: the file given with --txs-file is empty")),
            [tx] => Body::Tx(tx.clone()),
            _ => Body::Txs(txs.clone()),
        };
        let payload = Payload { namespace: manifest.rollup_id().namespace(), body };
        Ok((payload.encode().map_err(Failure::usage)?, txs))
    }
}

/// That none of them is sure to have no effect, alone or behind one of the others.
fn check(given: &[Given], executor: Option<&dyn Executor>) -> Result<(), Failure> {
    const ALL_THE_SAME: &str = "nothing was paid; --unchecked forces it all the same";
    let (mut seen, mut last) = (BTreeMap::new(), BTreeMap::new());
    for (second, n) in given.iter().zip(1..) {
        let name = |(given, n): (&Given, usize)| format!("{n} ({})", given.at);
        if let Some(Err(reason)) = executor.map(|executor| executor.check_static(&second.tx)) {
            return Err(Failure::refused(format_args!(
                "transaction {} would be executed without any effect ({}); {ALL_THE_SAME}",
                name((second, n)),
                reason.name()
            )));
        }
        if let Some(first) = seen.insert(&second.tx, (second, n)) {
            return Err(Failure::usage(format_args!(
                "transactions {} and {} are the same, and both would be paid for; leave one out; {ALL_THE_SAME}",
                name(first),
                name((second, n))
            )));
        }
        let Some((sender, nonce)) = executor.and_then(|executor| executor.sender_and_nonce(&second.tx)) else {
            continue;
        };
        let Some((first, before)) = last.insert(sender, ((second, n), nonce)) else { continue };
        if nonce <= before {
            let why = match nonce == before {
                true => format!("have the same nonce {nonce}, so that only one can be executed; leave one out"),
                false => format!("have the nonces {before} and {nonce}; give the one with the lower nonce first"),
            };
            return Err(Failure::usage(format_args!(
                "transactions {} and {} of one account {why}; {ALL_THE_SAME}",
                name(first),
                name((second, n))
            )));
        }
    }
    Ok(())
}

/// That none of them is in the queue or executed, whoever brought it there, as far as this machine has followed the
/// rollup.
fn check_not_taken(txs: &[Vec<u8>], settings: &Settings) -> Result<(), Failure> {
    let Some(view) = derived_before(settings)? else { return Ok(()) };
    let lifecycles = settings.lifecycles(&view)?;
    for (tx, n) in txs.iter().zip(1..) {
        let lives = lifecycles.of_hash(&sha256(tx))?;
        let is_taken = |life: &&Lifecycle| life.execution.is_none_or(|execution| execution.effect.reason.is_none());
        if let Some(life) = lives.iter().find(is_taken) {
            return Err(Failure::refused(format_args!(
                "transaction {n} needs no forcing: {life}; nothing was paid; --again forces it all the same"
            )));
        }
    }
    Ok(())
}

const FORCE_EXAMPLE: &str = "\
Examples:
  sortie force --txs-file withdrawals.hex --fee-rate 2
  sortie force $(sortie ledger transfer --key alice.key --to $BOB --amount 1000)
  sortie force @tx.hex --fee-rate 4 --max-fee 2000 --wait executed
  sortie force @tx.hex --target 3 --deadline-bump --max-fee 20000
  sortie force @tx.hex --pay-from-anywhere --refund bc1q...";

/// Force an L2 transaction through Bitcoin
///
/// Writes it into Bitcoin with the wallet's coins. Mined, it is in the queue, in front of everything that comes later;
/// when the sequencing window has passed, every node executes it, whatever the sequencer does. Running the same command
/// again never pays twice: it sends the same Bitcoin transactions again. `sortie status JOB` tells how far it is.
///
/// With --deadline-bump it pays more, block after block and within the caps, if it would be mined later than quoted:
/// then it would be executed later, too.
///
/// It returns when the transactions are sent; with --wait confirmed when they are mined, with --wait executed when it
/// is executed, with exit code 1 if it had no effect. Exit code 4, and nothing is paid: a cap on fees, a transaction
/// that the rollup's executor is sure not to run, or one that is queued or executed already, as far as this machine has
/// followed the rollup.
#[derive(Args, Debug)]
#[command(after_long_help = FORCE_EXAMPLE)]
pub struct Force {
    #[command(flatten)]
    txs: Transactions,
    /// How to carry it: auto (the cheaper one), op-return or taproot
    #[arg(long, default_value = "auto", value_name = "CARRIER")]
    carrier: CarrierChoice,
    #[command(flatten)]
    relaying: Relaying,
    /// Bitcoin blocks within which it is to be mined, for the estimate of the fee rate
    #[arg(long, value_name = "BLOCKS", default_value_t = TARGET_BLOCKS, value_parser = clap::value_parser!(u16).range(1..=i64::from(FURTHEST_TARGET)))]
    target: u16,
    #[command(flatten)]
    fees: Fees,
    #[command(flatten)]
    locking: Locking,
    /// Return only when it has come this far [default: when it is sent]
    #[arg(long, value_enum, value_name = "UNTIL")]
    wait: Option<Until>,
    #[command(flatten)]
    deadline: DeadlineBump,
    #[command(flatten)]
    anywhere: anywhere::Anywhere,
    /// Sign nothing: write what is to be signed elsewhere into this file; then `sortie finish`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["wait", "deadline_bump", "pay_from_anywhere"])]
    psbt: Option<PathBuf>,
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

/// Runs `quote`.
pub fn quote(command: &Quote, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let manifest = settings.manifest()?;
    let (payload, txs) = command.txs.payload(&manifest)?;
    let (wallet, node) = open_synced(settings, &command.wallet)?;
    let relay = publish::relay(&node)?;
    let (profile, lock_at_most) = (command.relaying.profile, Some(settings.lock_at_most(&command.locking)));
    let tip = wallet.synced_to().height;
    let (caps, mut refused) = (settings.caps(&command.fees), BTreeSet::new());
    let mut quote = |rate: &ChosenRate, target: Option<u16>| -> Result<QuoteReport, Failure> {
        let request = Request { profile, lock_at_most, ..Request::at(rate.rate) };
        let costs = publish::quote(&wallet, &payload, &request, relay)?;
        let relayed = costs.iter().filter(|cost| cost.relayed.is_ok()).min_by_key(|cost| cost.fee);
        refused.extend(relayed.and_then(|cost| caps.check(cost.fee, cost.vsize).err()).map(|cap| cap.to_string()));
        let expected = target.map(|target| Expected::new(target, tip, manifest.sequencing_window));
        Ok(QuoteReport::new(rate, &costs, expected))
    };
    let quotes = match command.fees.fee_rate {
        Some(_) => {
            let rate = rate(&node, &command.fees, TARGET_BLOCKS, settings, out)?;
            vec![quote(&rate, reached(&rate, &node, settings, &command.fees))?]
        }
        None => {
            let mut told = BTreeSet::new();
            let priced = |target| {
                let rate = rate_telling_once(&node, &command.fees, target, settings, out, &mut told)?;
                quote(&rate, Some(target))
            };
            QUOTED_TARGETS.into_iter().map(priced).collect::<Result<_, _>>()?
        }
    };
    if let Some(cap) = refused.first() {
        out.note(format_args!("`sortie force` refuses that: {cap}"));
    }
    out.print(&QuoteTable { payload_bytes: payload.len(), transactions: txs.len(), quotes })
}

/// The shortest of the quoted targets whose estimate is not above `rate`; `None` if it is later, or unknown.
fn reached(rate: &ChosenRate, node: &Bitcoin, settings: &Settings, fees: &Fees) -> Option<u16> {
    QUOTED_TARGETS.into_iter().find(|target| {
        let terms = RateTerms { explicit: None, ..settings.rate_terms(fees, node.network(), *target) };
        fee_rate(&node.sources(), &terms).is_ok_and(|estimate| estimate.rate <= rate.rate)
    })
}

/// Runs `force`.
pub fn force(command: &Force, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let manifest = settings.manifest()?;
    let (payload, txs) = command.txs.payload(&manifest)?;
    let window = manifest.sequencing_window;
    let (mut wallet, node) = match command.psbt.is_some() || command.anywhere.is_wanted() {
        true => open_to_sign(settings, &command.wallet)?,
        false => open_to_spend(settings, &command.wallet)?,
    };
    let tip = wallet.synced_to().height;
    let confirm_by = command.deadline.confirm_by(tip, command.target, || Ok(window))?;
    let refund = command.anywhere.refund(settings)?;
    // What is paid for already asks for no rate.
    let known = match command.again {
        true => None,
        false => publish::job_of_payload(&wallet, &payload)?,
    };
    if known.is_none() && !command.again && !command.txs.unchecked {
        check_not_taken(&txs, settings)?;
    }
    let rate = || rate(&node, &command.fees, command.target, settings, out);
    let caps = settings.caps(&command.fees);
    let request = |rate: &ChosenRate| Request {
        carrier: command.carrier,
        again: command.again,
        caps,
        lock_at_most: Some(settings.lock_at_most(&command.locking)),
        profile: command.relaying.profile,
        confirm_by,
        ..Request::at(rate.rate)
    };
    let (publication, quote) = if let Some(file) = &command.psbt {
        let is_known = known.is_some();
        let draft = || match known {
            Some(job) => {
                let psbt = publish::psbt::psbt(&wallet, &job)?;
                Ok((job, psbt))
            }
            None => Ok(publish::psbt::draft(&mut wallet, &node, &payload, &request(&rate()?))?),
        };
        return psbt::write(file, is_known, draft, out);
    } else if let Some(refund) = refund {
        if command.locking.lock_at_most.is_some() {
            out.note("--lock-at-most does not matter here: nothing of this wallet is locked");
        }
        if command.carrier == CarrierChoice::Only(Carrier::OpReturn) {
            return Err(Failure::usage("--carrier op-return: what others pay for is a Taproot envelope; leave it out"));
        }
        let job = match known {
            Some(job) if job.payer == Payer::Anywhere => {
                let Fees { fee_rate, max_fee, max_fee_rate, .. } = &command.fees;
                // What is not given again stays.
                let wanted = Amendment {
                    refund: Some(refund.script_pubkey()),
                    fee_rate: fee_rate.map(|_| rate()).transpose()?.map(|rate| rate.rate),
                    max_fee: max_fee.and(caps.max_fee),
                    max_fee_rate: max_fee_rate.and(caps.max_fee_rate),
                    ..Amendment::default()
                };
                publish::anywhere::amend(&mut wallet, job, wanted)?
            }
            Some(job) => job,
            None => {
                let rate = rate()?.rate;
                publish::anywhere::ask(&mut wallet, &node, &payload, rate, &caps, &refund, command.again)?
            }
        };
        let published;
        (wallet, published) = anywhere::published(wallet, &node, job.id, &command.anywhere, out)?;
        match published {
            Some(publication) => (publication, None),
            None => return Ok(()),
        }
    } else if let Some(job) = known {
        (publish::go_on(&mut wallet, &node, job)?, None)
    } else {
        let rate = rate()?;
        let request = request(&rate);
        let costs = publish::quote(&wallet, &payload, &request, publish::relay(&node)?)?;
        let quote = QuoteReport::new(&rate, &costs, Some(Expected::new(command.target, tip, window)));
        let signed = |job: &Job| tell_backup(job, out);
        (publish_telling(&mut wallet, &node, &payload, &request, signed)?, Some(quote))
    };
    out.print(&ForceReport::new(&publication, &txs, window, tip, command.carrier, quote))?;
    if publication.resumed && publication.state.is_unfinished() && !command.deadline.is_wanted() {
        out.note(format_args!("to pay more for it: `sortie bump {} --fee-rate SAT_VB`", publication.job));
    }
    let until = command.wait.or(command.deadline.is_wanted().then_some(Until::Confirmed));
    if command.deadline.is_wanted() {
        wallet = command.held(wallet, &node, &publication, window, settings, out)?;
    }
    let Some(until) = until else { return Ok(()) };
    let mut awaited = Awaited::new(wallet, node, &publication)?;
    let last = u32::try_from(txs.len().saturating_sub(1)).map_err(Failure::usage)?;
    (0..=last).try_for_each(|position| wait(&mut awaited, position, until, settings, out))
}

impl Force {
    /// Holds a publication to its deadline until it is mined.
    fn held(
        &self,
        mut wallet: Wallet,
        node: &Bitcoin,
        publication: &Publication,
        window: u16,
        settings: &Settings,
        out: &Output,
    ) -> Result<Wallet, Failure> {
        let job = publish::job(&wallet, publication.job)?;
        if job.state.is_unfinished() && (job.deadline.is_none() || self.deadline.names_a_height()) {
            let tip = wallet.synced_to().height;
            let height = self.deadline.confirm_by(tip, self.target, || Ok(window)).unwrap_or_else(|late| {
                // It could be kept when the command began, and then nobody paid.
                out.warn(&late);
                Some(tip + 1)
            });
            height.map(|height| publish::confirm_by(&mut wallet, job.id, height)).transpose()?;
        }
        let jobs = [(job.id, settings.caps(&self.fees))];
        let wallet = deadline::hold(wallet, node, &jobs, &self.fees, settings, out)?;
        let job = publish::job(&wallet, job.id)?;
        match job.state.confirmed() {
            Some(_) => Ok(wallet),
            None => Err(Failure::failed(format_args!("job {} is {}", job.id, job.state))),
        }
    }
}

/// Says how an envelope's coins come back without this machine; before there are any.
fn tell_backup(job: &Job, out: &Output) {
    if let Some(backup) = Backup::of(job) {
        out.note(format_args!(
            "should this machine be lost before the reveal is mined: the wallet's words and this line bring the coins back: sortie recover --backup {backup}"
        ));
    }
}

/// Follows Bitcoin until an item of a publication has come as far as is asked.
fn wait(awaited: &mut Awaited, position: u32, until: Until, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let mut reader = Reader::open(settings, out)?;
    let (mut told, mut looked_at) = (None, None);
    loop {
        let tip = reader.view().derivation().tip().block.hash;
        if looked_at != Some(tip) && awaited.look(out)? {
            looked_at = Some(tip);
        }
        if let Some(life) = life_at(&Place { position, ..awaited.place() }, &reader, settings)? {
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
        match reader.wait(out) {
            Err(failure) => awaited.outage.survive(failure, out)?,
            Ok(()) if looked_at == Some(tip) => awaited.outage.ends(out),
            Ok(()) => {}
        }
    }
}

fn life_at(place: &Place, reader: &Reader, settings: &Settings) -> Result<Option<Lifecycle>, Failure> {
    let item = reader.view().store().item_at(place)?;
    item.map(|item| Ok(settings.lifecycles(reader.view())?.forced(&item)?)).transpose()
}
