//! `sortie jobs`, `resume`, `bump` and `reclaim`: what became of a publication, and what can be done about it.

use super::super::wallet::{TARGET_BLOCKS, open_synced, open_to_look, open_to_sign, rate};
use super::anywhere::{PaymentReport, ShowCode};
use super::deadline::{self, DeadlineBump};
use super::report::{name, sat_per_vb, transactions};
use crate::bitcoin::Bitcoin;
use crate::config::{DEFAULT_MAX_FEE, Fees, Settings, WalletName};
use crate::failure::Failure;
use crate::input::{job_number, sats};
use crate::output::{Output, field, utc};
use crate::passphrase::unlock;
use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, BlockHash, FeeRate, Network, TapNodeHash, Transaction, Txid};
use clap::Args;
use serde::Serialize;
use sortie::envelope::Carrier;
use sortie::primitives::{BtcHeight, Hash32};
use sortie::publish::anywhere::{self, Payment, is_unsigned};
use sortie::publish::{
    self, Amendment, Backup, Bump as How, Bumped, Caps, Event, Generation, Job, JobId, JobState, Outcome, Payer,
    PublishError, Reclaimed, Recorded, Resumed,
};
use sortie::queue::Place;
use sortie::sequencer::Carried;
use sortie::wallet::{Orders, PaymentOutcome, SatPerVb, Settled, Wallet, WalletError};
use std::fmt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a process that uses the wallet is given to take an order up.
const ORDER_LIMIT: Duration = Duration::from_secs(30);
/// Time between two looks at what came of it.
const ORDER_LOOK: Duration = Duration::from_millis(200);

/// List what was forced from this wallet, or tell one job's story
///
/// Each publication is a job in the wallet's journal. With a job's number, every event in its log, with its time (UTC):
/// what was signed and sent, and what the chain made of it. Looks at Bitcoin first; where it cannot be asked, it tells
/// what was known before.
///
/// A job is planned, signed, sent (commit_sent, reveal_sent), confirmed, and final 144 blocks later; or reclaiming and
/// reclaimed; or abandoned. What the rollup makes of it is told by `sortie status JOB`.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:\n  sortie jobs\n  sortie jobs 3 --json")]
pub struct Jobs {
    /// The job's number, as `force` and `jobs` print it
    #[arg(value_parser = job_number)]
    job: Option<i64>,
    #[command(flatten)]
    wallet: WalletName,
}

/// Send again what was signed and is neither in the mempool nor mined
///
/// After a crash, or when the node has forgotten a transaction. The same bytes leave again; nothing is paid twice. What
/// was paid to an address of `force --pay-from-anywhere` is revealed; what is still to be paid is shown. Exit code 1 if
/// the node refuses something for now.
///
/// With --deadline-bump it goes on from where `force --deadline-bump` was stopped: it waits until everything is mined,
/// and pays more, block after block and within the caps that were set then, for what would be mined too late.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Examples:\n  sortie resume --wallet alice\n  sortie resume --deadline-bump --max-fee 50000"
)]
pub struct Resume {
    #[command(flatten)]
    deadline: DeadlineBump,
    #[command(flatten)]
    code: ShowCode,
    /// Pay at most this many satoshis for one job, instead of what was set when it was forced
    #[arg(long, value_name = "SATS", value_parser = sats)]
    max_fee: Option<u64>,
    /// Pay at most this rate, in sat/vB, instead of what was set when it was forced
    #[arg(long, value_name = "SAT_VB")]
    max_fee_rate: Option<SatPerVb>,
    /// Fee rate in sat/vB where no estimate is to be had or believed [default: refuse on mainnet, elsewhere the least
    /// that is relayed]
    #[arg(long, env = "SORTIE_FALLBACK_FEE_RATE", value_name = "SAT_VB", hide_env_values = true)]
    fallback_fee_rate: Option<SatPerVb>,
    /// Tell how each fee rate was chosen
    #[arg(long, requires = "deadline_bump")]
    explain: bool,
    #[command(flatten)]
    wallet: WalletName,
}

/// Pay more for a publication that waits too long
///
/// A sequencer that runs with the wallet does it in its place: the order is written into the wallet's database, and
/// what came of it is told here.
///
/// Replaces the Bitcoin transaction that carries the payload by one that pays more, from its own change, or from
/// another coin of the wallet as well; where the node does not let it be replaced, a child transaction pays for it. Its
/// place changes with the replacement. Refused above the caps on fees, before anything is signed; with --fee-rate also
/// above three times that rate in all, unless --max-fee or --max-fee-rate is given: a replacement outbids what others
/// built on it.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie bump 3 --fee-rate 12")]
pub struct Bump {
    /// The job's number, as `force` and `jobs` print it
    #[arg(value_parser = job_number)]
    job: i64,
    #[command(flatten)]
    fees: Fees,
    #[command(flatten)]
    wallet: WalletName,
}

/// Take back the coins of a Taproot envelope that was not revealed
///
/// Sweeps the commit's coins back into the wallet (those of --pay-from-anywhere to the refund address), also when the
/// reveal waits in the mempool or was refused. The L2 transaction is not forced then; one that is mined already cannot
/// be taken back. What came to an envelope after its job was closed comes back, too.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie reclaim 3 --fee-rate 5")]
pub struct Reclaim {
    /// The job's number, as `force` and `jobs` print it
    #[arg(value_parser = job_number)]
    job: i64,
    #[command(flatten)]
    fees: Fees,
    #[command(flatten)]
    wallet: WalletName,
}

/// A job that somebody names.
fn job(wallet: &Wallet, number: i64) -> Result<Job, Failure> {
    publish::job(wallet, JobId(number)).map_err(|error| match error {
        PublishError::NoJob(id) => {
            let name = wallet.dir().file_name().unwrap_or_default().to_string_lossy();
            Failure::usage(format_args!(
                "there is no job {id} in the journal of the wallet {name}; `sortie jobs` lists them"
            ))
        }
        error => error.into(),
    })
}

/// Runs `jobs`.
pub fn jobs(command: &Jobs, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let wallet = open_to_look(settings, &command.wallet, out)?;
    let Some(id) = command.job else {
        let jobs = publish::jobs(&wallet)?;
        if jobs.is_empty() {
            out.note("nothing was forced from this wallet");
        }
        return jobs.iter().try_for_each(|job| out.print(&JobReport::of(&wallet, job)?));
    };
    let job = job(&wallet, id)?;
    let report = JobReport::of(&wallet, &job)?;
    match out.is_json() {
        true => out.print(&report)?,
        false => out.print(&JobDetails(&report))?,
    }
    let events = publish::events(&wallet, job.id)?;
    events.iter().try_for_each(|event| out.print(&EventReport::new(event, &job, wallet.network())))
}

/// Runs `resume`.
pub fn resume(command: &Resume, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let (mut wallet, node) = open_synced(settings, &command.wallet)?;
    // Bumps are signed, too.
    if command.deadline.is_wanted() {
        wallet = unlock(wallet, settings)?;
    }
    // Only what others pay for is signed when it is resumed, within these caps.
    let max_fee_rate = command.max_fee_rate.map(|SatPerVb(rate)| rate);
    let caps = Amendment::of_caps(Caps { max_fee_rate, max_fee: command.max_fee.map(Amount::from_sat) });
    let mut is_to_sign = false;
    for job in publish::open_jobs(&wallet)? {
        if is_unsigned(&wallet, &node, &job)? {
            is_to_sign = true;
            match anywhere::amend(&mut wallet, job, caps.clone()) {
                Err(error @ PublishError::FeeCap(_)) => out.warn(error),
                amended => drop(amended?),
            }
        }
    }
    if is_to_sign {
        wallet = unlock(wallet, settings)?;
    }
    let settled = wallet.settle_payments(&node)?;
    for settled in &settled {
        out.print(&SettledReport::from(settled))?;
        wallet.acknowledge(&settled.payment)?;
    }
    let resumed = publish::resume(&mut wallet, &node)?;
    let mut unrevealed = publish::open_jobs(&wallet)?;
    unrevealed.retain(|job| job.state == JobState::Planned && job.payload.is_empty());
    for job in &unrevealed {
        out.note(format_args!(
            "job {0} was found by its backup line: `sortie recover --backup LINE --tx HEX` reveals it, `sortie reclaim {0}` takes it back",
            job.id
        ));
    }
    if resumed.is_empty() && settled.is_empty() && unrevealed.is_empty() {
        out.note("nothing is unfinished");
    }
    for resumed in &resumed {
        out.print(&ResumeReport::from(resumed))?;
        if let Outcome::Unpaid(payment) = resumed.outcome {
            let job = publish::job(&wallet, resumed.job)?;
            out.print(&PaymentReport::new(&wallet, &job, payment, command.code, out)?)?;
        }
    }
    if command.deadline.is_wanted() {
        return command.hold(wallet, &node, settings, out);
    }
    let unpaid = settled.iter().filter(|settled| settled.outcome != PaymentOutcome::Sent);
    let unpaid = unpaid.map(|settled| Failure::failed(SettledReport::from(settled)));
    let failures = resumed.into_iter().filter_map(|resumed| match resumed.outcome {
        Outcome::Failed(error) => Some(Failure::from(error)),
        _ => None,
    });
    unpaid.chain(failures).max_by_key(Failure::code).map_or(Ok(()), Err)
}

impl Resume {
    /// Holds everything that waits to its deadline, until it is mined.
    fn hold(&self, mut wallet: Wallet, node: &Bitcoin, settings: &Settings, out: &Output) -> Result<(), Failure> {
        let mut held = Vec::new();
        let mut refused = None;
        let is_on_its_way = |job: &Job| match job.state {
            JobState::Signed | JobState::CommitSent | JobState::RevealSent => true,
            JobState::Planned => job.payer == Payer::Psbt,
            _ => false,
        };
        for job in publish::open_jobs(&wallet)?.into_iter().filter(is_on_its_way) {
            let height = match job.deadline.filter(|_| !self.deadline.names_a_height()) {
                Some(deadline) => deadline.confirm_by,
                None => {
                    let window = || Ok(settings.manifest()?.sequencing_window);
                    let height = self.deadline.confirm_by(wallet.synced_to().height, TARGET_BLOCKS, window)?;
                    height.ok_or_else(|| Failure::usage("no deadline"))?
                }
            };
            match publish::confirm_by(&mut wallet, job.id, height) {
                Ok(job) => {
                    let max_fee = self.max_fee.map(Amount::from_sat).or(job.caps.max_fee).or(Some(DEFAULT_MAX_FEE));
                    let max_fee_rate = self.max_fee_rate.map(|SatPerVb(rate)| rate).or(job.caps.max_fee_rate);
                    held.push((job.id, Caps { max_fee_rate, max_fee }));
                }
                Err(error @ PublishError::NotBumpable { .. }) => {
                    out.warn(&error);
                    refused = refused.or(Some(error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(refused) = refused.filter(|_| held.is_empty()) {
            return Err(refused.into());
        }
        let fees = Fees { explain: self.explain, fallback_fee_rate: self.fallback_fee_rate, ..Fees::default() };
        let wallet = deadline::hold(wallet, node, &held, &fees, settings, out)?;
        for (id, _) in held {
            out.print(&JobReport::from(&publish::job(&wallet, id)?))?;
        }
        Ok(())
    }
}

/// Runs `bump`.
pub fn bump(command: &Bump, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let network = settings.network()?;
    let dir = settings.wallet_dir(network, &command.wallet)?;
    let caps = settings.caps_of_bump(&command.fees);
    let bumped = match Wallet::open(&dir, network) {
        Err(WalletError::InUse { .. }) => {
            let rate = rate(&settings.connect(network)?, &command.fees, TARGET_BLOCKS, settings, out)?.rate;
            order(&dir, JobId(command.job), rate, &caps, out)?
        }
        opened => {
            let mut wallet = unlock(opened?, settings)?;
            let node = settings.connect(network)?;
            wallet.sync(&node)?;
            let job = job(&wallet, command.job)?;
            let rate = rate(&node, &command.fees, TARGET_BLOCKS, settings, out)?.rate;
            publish::bump(&mut wallet, &node, job.id, rate, &caps)?
        }
    };
    let report = BumpReport::from(bumped);
    if report.place != report.place_before {
        out.warn(format_args!("the place has changed: from now on it is `sortie status {}`", report.place));
    }
    out.print(&report)
}

/// Has the process that uses the wallet do it: a sequencer takes such orders up.
fn order(dir: &Path, job: JobId, rate: FeeRate, caps: &Caps, out: &Output) -> Result<Bumped, Failure> {
    let orders = Orders::open(dir)?;
    let id = orders.place(job, rate, caps)?;
    out.note("the wallet is in use by another process; a sequencer takes this up, and tells here what came of it");
    let deadline = Instant::now() + ORDER_LIMIT;
    loop {
        if let Some(outcome) = orders.outcome(id)? {
            return match serde_json::from_str(&outcome).map_err(Failure::failed)? {
                Carried::Bumped(bumped) => Ok(bumped),
                Carried::Refused { reason, is_cap: true } => Err(Failure::refused(reason)),
                Carried::Refused { reason, .. } => Err(Failure::failed(reason)),
            };
        }
        if Instant::now() >= deadline && orders.withdraw(id)? {
            return Err(WalletError::InUse { dir: dir.to_owned() }.into());
        }
        sleep(ORDER_LOOK);
    }
}

/// Runs `reclaim`.
pub fn reclaim(command: &Reclaim, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let (mut wallet, node) = open_to_sign(settings, &command.wallet)?;
    let job = job(&wallet, command.job)?;
    let rate = rate(&node, &command.fees, TARGET_BLOCKS, settings, out)?.rate;
    let reclaimed = publish::reclaim(&mut wallet, &node, job.id, rate, &settings.caps(&command.fees))?;
    let to = anywhere::refund_address(&wallet, &job).map(Address::into_unchecked);
    out.print(&ReclaimReport::new(job.id, reclaimed, to))
}

/// A job of the journal.
#[derive(Serialize)]
struct JobReport {
    job: JobId,
    state: &'static str,
    created_at: u64,
    payer: Payer,
    carrier: Carrier,
    payload_hash: Hash32,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    merkle_root: Option<TapNodeHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
    /// What is still to be paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Address<NetworkUnchecked>>,
    /// What has arrived there.
    #[serde(skip_serializing_if = "Option::is_none")]
    received_sat: Option<u64>,
    /// Where the rest goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    refund: Option<Address<NetworkUnchecked>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<Place>,
    txids: Vec<Txid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fee_sat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vsize_vb: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm_by: Option<BtcHeight>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<BtcHeight>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_hash: Option<BlockHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What is at its envelope, although it is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    stranded_sat: Option<u64>,
    #[serde(skip)]
    words: String,
}

impl From<&Job> for JobReport {
    fn from(job: &Job) -> Self {
        let block = match &job.state {
            JobState::Reclaimed(block) => Some(*block),
            state => state.confirmed(),
        };
        let current = job.current();
        Self {
            job: job.id,
            state: job.state.name(),
            created_at: job.created_at,
            payer: job.payer,
            carrier: job.carrier,
            payload_hash: job.payload_hash,
            key_index: job.key_index,
            merkle_root: job.merkle_root,
            backup: Backup::of(job).map(|backup| backup.to_string()),
            address: None,
            received_sat: None,
            refund: None,
            place: job.place(),
            txids: job.txids(),
            fee_sat: current.map(|current| current.fee.to_sat()),
            vsize_vb: current.map(|current| current.vsize),
            confirm_by: job.deadline.map(|deadline| deadline.confirm_by),
            height: block.map(|block| block.height),
            block_hash: block.map(|block| block.hash),
            reason: match &job.state {
                JobState::Abandoned(reason) => Some(reason.clone()),
                _ => None,
            },
            stranded_sat: None,
            words: job.state.to_string(),
        }
    }
}

impl JobReport {
    /// With what its address was paid, as long as it waits for that.
    fn of(wallet: &Wallet, job: &Job) -> Result<Self, Failure> {
        let waits = job.payer == Payer::Anywhere && job.state == JobState::Planned;
        let address = waits.then(|| anywhere::address(wallet, job)).transpose()?.map(Address::into_unchecked);
        let received_sat = waits.then(|| anywhere::received(wallet, job)).transpose()?.map(Amount::to_sat);
        let refund = anywhere::refund_address(wallet, job).map(Address::into_unchecked);
        let stranded_sat = Some(publish::stranded(wallet, job)?.to_sat()).filter(|held| *held > 0);
        let report = Self::from(job);
        let words = match received_sat {
            Some(sat) => format!("{}, {sat} sat arrived", report.words),
            None => report.words.clone(),
        };
        Ok(Self { address, received_sat, refund, stranded_sat, words, ..report })
    }
}

impl fmt::Display for JobReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4}  {}", self.job, self.words)?;
        if let Some(place) = self.place {
            write!(f, "  {place}")?;
        }
        if let Some(fee) = self.fee_sat {
            write!(f, "  {fee} sat")?;
        }
        match self.stranded_sat {
            Some(held) => write!(f, "  {held} sat at its envelope: `sortie reclaim {}`", self.job),
            None => Ok(()),
        }
    }
}

/// One job, in full.
#[derive(Serialize)]
struct JobDetails<'a>(&'a JobReport);

impl fmt::Display for JobDetails<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(job) = self;
        field(f, "job", format_args!("{}, {}", job.job, job.words))?;
        let payer = match job.payer {
            Payer::Wallet => "this wallet",
            Payer::Anywhere => "whoever pays to its address",
            Payer::Psbt => "this wallet, signed elsewhere",
        };
        field(f, "carried by", format_args!("{}, paid by {payer}", name(job.carrier)))?;
        field(f, "payload's SHA256", job.payload_hash)?;
        if let Some(backup) = &job.backup {
            field(f, "backup", backup)?;
        }
        if let Some(address) = &job.address {
            field(f, "to be paid", address.clone().assume_checked())?;
        }
        if let Some(refund) = &job.refund {
            field(f, "refund", format_args!("the rest goes to {}", refund.clone().assume_checked()))?;
        }
        if let Some(place) = job.place {
            field(f, "place", place)?;
        }
        if let Some(height) = job.confirm_by {
            field(f, "to be mined by", format_args!("height {height}"))?;
        }
        if let (Some(fee), Some(vsize)) = (job.fee_sat, job.vsize_vb) {
            field(f, "fee", format_args!("{fee} sat for {vsize} vB"))?;
        }
        if let Some(held) = job.stranded_sat {
            field(f, "at its envelope", format_args!("{held} sat; `sortie reclaim {}` brings that back", job.job))?;
        }
        job.place.iter().try_for_each(|place| transactions(f, &job.txids, place))
    }
}

/// An event of a job's log.
#[derive(Serialize)]
struct EventReport {
    job: JobId,
    sequence: u32,
    at: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    txids: Vec<Txid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fee_sat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm_by: Option<BtcHeight>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<BtcHeight>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_hash: Option<BlockHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    changes: Changes,
}

/// What was settled anew.
#[derive(Default, Serialize)]
struct Changes {
    #[serde(skip_serializing_if = "Option::is_none")]
    refund: Option<Address<NetworkUnchecked>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fee_rate_sat_vb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_fee_sat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_fee_rate_sat_vb: Option<f64>,
}

impl Changes {
    fn new(amendment: &Amendment, network: Network) -> Self {
        let refund = amendment.refund.as_ref().and_then(|script| Address::from_script(script, network).ok());
        Self {
            refund: refund.map(Address::into_unchecked),
            fee_rate_sat_vb: amendment.fee_rate.map(sat_per_vb),
            max_fee_sat: amendment.max_fee.map(Amount::to_sat),
            max_fee_rate_sat_vb: amendment.max_fee_rate.map(sat_per_vb),
        }
    }
}

impl EventReport {
    fn new(recorded: &Recorded, job: &Job, network: Network) -> Self {
        let (txids, block) = match &recorded.event {
            Event::Planned { draft: Some(generation) } | Event::Signed { generation } => (generation.txids(), None),
            Event::Reclaiming { transactions } | Event::Swept { transactions } => {
                (transactions.iter().map(Transaction::compute_txid).collect(), None)
            }
            Event::Confirmed { txid, block } | Event::Reclaimed { txid, block } => (vec![*txid], Some(*block)),
            _ => (Vec::new(), None),
        };
        let signed = match &recorded.event {
            Event::Signed { generation } => Some(generation),
            _ => None,
        };
        Self {
            job: job.id,
            sequence: recorded.sequence,
            at: recorded.at,
            kind: recorded.event.kind(),
            txids,
            fee_sat: signed.map(|Generation { fee, .. }| fee.to_sat()),
            confirm_by: match &recorded.event {
                Event::Deadline { deadline } => Some(deadline.confirm_by),
                _ => None,
            },
            height: block.map(|block| block.height),
            block_hash: block.map(|block| block.hash),
            reason: match &recorded.event {
                Event::Abandoned { reason } => Some(reason.clone()),
                _ => None,
            },
            changes: match &recorded.event {
                Event::Amended { amendment } => Changes::new(amendment, network),
                _ => Changes::default(),
            },
        }
    }
}

impl fmt::Display for EventReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{:>4}  {}  {:<11}", self.sequence, utc(self.at), self.kind);
        for txid in &self.txids {
            line += &format!("  {txid}");
        }
        if let Some(fee) = self.fee_sat {
            line += &format!("  {fee} sat");
        }
        if let Some(height) = self.confirm_by {
            line += &format!("  to be mined by height {height}");
        }
        if let Some(height) = self.height {
            line += &format!("  in block {height}");
        }
        let Changes { refund, fee_rate_sat_vb, max_fee_sat, max_fee_rate_sat_vb } = &self.changes;
        if let Some(refund) = refund {
            line += &format!("  refund to {}", refund.clone().assume_checked());
        }
        if let Some(rate) = fee_rate_sat_vb {
            line += &format!("  {rate} sat/vB");
        }
        if let Some(sat) = max_fee_sat {
            line += &format!("  {sat} sat at most");
        }
        if let Some(rate) = max_fee_rate_sat_vb {
            line += &format!("  {rate} sat/vB at most");
        }
        if let Some(reason) = &self.reason {
            line += &format!("  {reason}");
        }
        f.write_str(line.trim_end())
    }
}

/// What became of an unfinished job.
#[derive(Serialize)]
struct ResumeReport {
    job: JobId,
    outcome: &'static str,
    txids: Vec<Txid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<&Resumed> for ResumeReport {
    fn from(resumed: &Resumed) -> Self {
        let (outcome, txids, reason) = match &resumed.outcome {
            Outcome::Failed(PublishError::Stuck { txid, reason, .. }) => ("refused", vec![*txid], Some(reason.clone())),
            Outcome::Failed(PublishError::Lost { .. }) => ("abandoned", Vec::new(), None),
            Outcome::Failed(error) => ("failed", Vec::new(), Some(error.to_string())),
            Outcome::InPlace => ("in_place", Vec::new(), None),
            Outcome::Sent(txids) => ("sent", txids.clone(), None),
            Outcome::Unpaid(Payment { received, missing }) => {
                let reason = format!("{} sat arrived, {} sat are missing", received.to_sat(), missing.to_sat());
                ("unpaid", Vec::new(), Some(reason))
            }
            Outcome::Stranded(held) => ("stranded", Vec::new(), Some(format!("{} sat", held.to_sat()))),
        };
        Self { job: resumed.job, outcome, txids, reason }
    }
}

impl fmt::Display for ResumeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let txids = self.txids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match (self.outcome, &self.reason) {
            ("in_place", _) => write!(f, "job {}: the node has all of it", self.job),
            ("sent", _) => write!(f, "job {}: sent {txids}", self.job),
            ("unpaid", Some(reason)) => write!(f, "job {}: waits for its payment: {reason}", self.job),
            ("abandoned", _) => write!(f, "job {}: given up, its coins were spent otherwise", self.job),
            ("stranded", Some(held)) => {
                write!(
                    f,
                    "job {0}: closed, but its envelope holds {held}; `sortie reclaim {0}` brings that back",
                    self.job
                )
            }
            ("failed", Some(reason)) => write!(f, "job {}: {reason}", self.job),
            (_, reason) => write!(f, "job {}: the node refuses {txids}: {}", self.job, reason.as_deref().unwrap_or("")),
        }
    }
}

/// What became of a payment whose answer was lost.
#[derive(Serialize)]
struct SettledReport {
    payment: Txid,
    outcome: &'static str,
    amount_sat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<&Settled> for SettledReport {
    fn from(settled: &Settled) -> Self {
        Self {
            payment: settled.payment.txid,
            outcome: settled.outcome.name(),
            amount_sat: settled.amount.to_sat(),
            reason: match &settled.outcome {
                PaymentOutcome::Refused(reason) | PaymentOutcome::Stuck(reason) => Some(reason.clone()),
                _ => None,
            },
        }
    }
}

impl fmt::Display for SettledReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { payment, outcome, amount_sat, reason } = self;
        write!(f, "payment {payment} of {amount_sat} sat: {outcome}")?;
        reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
    }
}

/// A publication that pays more.
#[derive(Serialize)]
pub struct BumpReport {
    pub job: JobId,
    how: &'static str,
    pub fee_before_sat: u64,
    pub fee_sat: u64,
    vsize_vb: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<Txid>,
    txids: Vec<Txid>,
    place_before: Place,
    pub place: Place,
}

impl From<Bumped> for BumpReport {
    fn from(bumped: Bumped) -> Self {
        Self {
            job: bumped.job,
            how: match bumped.how {
                How::Enough => "enough",
                How::Replaced => "replaced",
                How::ReplacedWithCoin => "replaced_with_coin",
                How::Child => "child",
            },
            fee_before_sat: bumped.fee_before.to_sat(),
            fee_sat: bumped.fee.to_sat(),
            vsize_vb: bumped.vsize,
            replaced: bumped.replaced,
            txids: bumped.txids,
            place_before: bumped.place_before,
            place: bumped.place,
        }
    }
}

impl fmt::Display for BumpReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            "enough" => "it pays that rate already: nothing new was signed",
            "replaced" => "replaced, paid from its change",
            "replaced_with_coin" => "replaced, paid with another coin of the wallet",
            _ => "a child transaction pays for it",
        };
        field(f, "job", format_args!("{}: {how}", self.job))?;
        let (fee, before) = (self.fee_sat, self.fee_before_sat);
        field(f, "fee", format_args!("{fee} sat for {} vB now, {before} sat before", self.vsize_vb))?;
        if let Some(replaced) = self.replaced {
            field(f, "replaced", replaced)?;
        }
        transactions(f, &self.txids, &self.place)?;
        field(f, "place", self.place)
    }
}

/// A publication that is taken back.
#[derive(Serialize)]
struct ReclaimReport {
    job: JobId,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    txid: Option<Txid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fee_sat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_sat: Option<u64>,
    /// Whose the coins are then, if not the wallet's.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Address<NetworkUnchecked>>,
}

impl ReclaimReport {
    /// `to` is the refund address of what others paid.
    fn new(job: JobId, reclaimed: Reclaimed, to: Option<Address<NetworkUnchecked>>) -> Self {
        match reclaimed {
            Reclaimed::Freed => Self { job, outcome: "freed", txid: None, fee_sat: None, amount_sat: None, to: None },
            Reclaimed::Sweeping { txid, fee, amount } => Self {
                job,
                outcome: "sweeping",
                txid: Some(txid),
                fee_sat: Some(fee.to_sat()),
                amount_sat: Some(amount.to_sat()),
                to,
            },
        }
    }
}

impl fmt::Display for ReclaimReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.txid, self.amount_sat, self.fee_sat) {
            (Some(txid), Some(amount), Some(fee)) => {
                write!(f, "job {}: {amount} sat ", self.job)?;
                match &self.to {
                    Some(refund) => write!(f, "go to the refund address {}", refund.clone().assume_checked())?,
                    None => f.write_str("come back")?,
                }
                write!(f, " with {txid}, which pays {fee} sat")
            }
            _ => write!(f, "job {}: given up; nothing of it is there, and its coins are free again", self.job),
        }
    }
}
