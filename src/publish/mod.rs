//! A payload onto Bitcoin: plan, sign, write down, test, send; and again until it is there.
//!
//! Guarantees: caps are checked before anything is signed; both transactions are tested as a package
//! before anything leaves; what leaves is in the journal first, so that a crash or a lost answer ends
//! in sending the same bytes again, never in paying twice. A commit is never replaced: only what spends
//! it is, and the chain decides which of that counts. Trusts the node to say what it has.

pub mod anywhere;
mod bump;
mod deadline;
mod error;
mod fees;
mod plan;
pub mod psbt;
mod reclaim;
mod recover;
mod send;
mod spend;
mod spent;

pub use crate::wallet::{
    Amendment, Caps, Deadline, Event, FINAL_DEPTH, FeeCap, Generation, Job, JobId, JobState, JobTerms, Payer, Recorded,
    Shortfall,
};
pub use bump::{Bump, Bumped, bump};
pub use deadline::{Act, FURTHEST_TARGET, Held, confirm_by, hold, look};
pub use error::PublishError;
pub use fees::{ChosenRate, HIGHEST_ESTIMATE, RateSource, RateTerms, fee_rate, relay};
pub use plan::{CarrierCost, LOCK_AT_MOST, MAX_STANDARD_WEIGHT, NotRelayed, Profile};
pub use reclaim::{Reclaimed, reclaim};
pub use recover::{Backup, KEYS_TRIED, Lead, Suspect, recover, suspects};
pub use send::{Outcome, Resumed, broadcast, give_up_absent, resume, stranded};
pub use spent::{Spent, fees_of};

use crate::chain::{Mempool, RelayFacts, lacks_inputs};
use crate::envelope::{Carrier, MAX_PAYLOAD, MIN_PAYLOAD};
use crate::primitives::{BtcHeight, sha256};
use crate::queue::Place;
use crate::wallet::{OTHER_COINS, Wallet, inputs_of, journal, outputs_of, unix_now};
use bitcoin::{Amount, FeeRate, OutPoint, Txid};
use plan::{Envelope, Plan};
use std::fmt;
use std::str::FromStr;

/// Which carrier to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CarrierChoice {
    /// The cheaper one that is relayed.
    #[default]
    Auto,
    /// This one.
    Only(Carrier),
}

impl fmt::Display for CarrierChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Only(Carrier::OpReturn) => "op-return",
            Self::Only(Carrier::Taproot) => "taproot",
        })
    }
}

impl FromStr for CarrierChoice {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "auto" => Ok(Self::Auto),
            "op-return" => Ok(Self::Only(Carrier::OpReturn)),
            "taproot" => Ok(Self::Only(Carrier::Taproot)),
            _ => Err("a carrier is auto, op-return or taproot"),
        }
    }
}

/// How to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which carrier.
    pub carrier: CarrierChoice,
    /// Rate of all transactions together; see [`fee_rate`].
    pub fee_rate: FeeRate,
    /// A coin that must be spent: one that other transactions around the same bytes spend, so that never both are
    /// mined.
    pub fund_from: Option<OutPoint>,
    /// Publishes the same payload once more, although a job for it exists.
    pub again: bool,
    /// What may be paid at most.
    pub caps: Caps,
    /// What a commit may lock beyond what it and its reveal need: of more, the rest comes back at once, by a
    /// second output. `None` is no limit, and always the smaller commit.
    pub lock_at_most: Option<Amount>,
    /// The height by which it is to be in the chain; see [`hold`].
    pub confirm_by: Option<BtcHeight>,
    /// What nodes relay behind OP_RETURN, if not what the node's version tells.
    pub profile: Option<Profile>,
}

impl Request {
    /// The cheaper carrier at `fee_rate`, from any coin, without caps; a commit locks [`LOCK_AT_MOST`] more than it
    /// needs.
    pub fn at(fee_rate: FeeRate) -> Self {
        Self {
            carrier: CarrierChoice::Auto,
            fee_rate,
            fund_from: None,
            again: false,
            caps: Caps::default(),
            lock_at_most: Some(LOCK_AT_MOST),
            confirm_by: None,
            profile: None,
        }
    }
}

/// A payload that is on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its job in the journal.
    pub job: JobId,
    /// How far it has come.
    pub state: JobState,
    /// How it is carried.
    pub carrier: Carrier,
    /// All its transactions, in order.
    pub txids: Vec<Txid>,
    /// Where the payload stands.
    pub place: Place,
    /// The output that pays the wallet back, if there is change.
    pub change: Option<OutPoint>,
    /// Fee of all its transactions.
    pub fee: Amount,
    /// Virtual size of all its transactions.
    pub vsize: u64,
    /// What brings an unrevealed commit back on a machine without this journal, with the wallet's words.
    pub backup: Option<Backup>,
    /// Whether the job existed before: then nothing new was paid.
    pub resumed: bool,
}

impl Publication {
    /// A job's, once it is signed.
    ///
    /// # Errors
    /// The job is only planned.
    pub fn new(job: &Job, resumed: bool) -> Result<Self, PublishError> {
        let current = job.current().ok_or(PublishError::Broken("a job without transactions"))?;
        Ok(Self {
            job: job.id,
            state: job.state.clone(),
            carrier: job.carrier,
            txids: current.txids(),
            place: job.place().ok_or(PublishError::Broken("a job without transactions"))?,
            change: current.change,
            fee: current.fee,
            vsize: current.vsize,
            backup: Backup::of(job),
            resumed,
        })
    }
}

/// What each carrier would cost, now and with this wallet's coins, on a node that relays so.
pub fn quote(
    wallet: &Wallet,
    payload: &[u8],
    request: &Request,
    relay: RelayFacts,
) -> Result<Vec<CarrierCost>, PublishError> {
    check_length(payload)?;
    let both = plan::both(wallet, payload, request, relay)?;
    Ok(both.into_iter().map(|(cost, _)| cost).collect())
}

/// Publishes `payload`. Sync the wallet first.
///
/// A payload that has a job already, unfinished or confirmed, is not paid for again: an unfinished
/// job is resumed with the same bytes. One that was taken back is paid for from what was, so that never both are
/// mined. [`Request::again`] makes a new one on purpose.
///
/// # Errors
/// [`PublishError::Refused`]: nothing left. [`PublishError::Unsent`]: calling again is safe.
/// [`PublishError::MayComeBack`]: what was taken back holds no coin of this wallet.
pub fn publish(
    wallet: &mut Wallet,
    node: &impl Mempool,
    payload: &[u8],
    request: &Request,
) -> Result<Publication, PublishError> {
    publish_telling(wallet, node, payload, request, |_| ())
}

/// As [`publish`]; `signed` is told of a new job that is written down, before anything of it leaves.
pub fn publish_telling(
    wallet: &mut Wallet,
    node: &impl Mempool,
    payload: &[u8],
    request: &Request,
    mut signed: impl FnMut(&Job),
) -> Result<Publication, PublishError> {
    if !request.again
        && let Some(job) = job_of_payload(wallet, payload)?
    {
        return go_on(wallet, node, job);
    }
    let mut asked = 0;
    loop {
        let job = prepare(wallet, node, payload, request)?;
        signed(&job);
        match send::first(wallet, node, &job) {
            // It is given up, and other coins may pay.
            Err(PublishError::Refused { reason, .. })
                if lacks_inputs(&reason) && request.fund_from.is_none() && asked < OTHER_COINS =>
            {
                let paid_from = job.active().first().map(inputs_of).unwrap_or_default();
                wallet.set_aside(node, &paid_from.into_iter().collect::<Vec<_>>())?;
                asked += 1;
            }
            sent => {
                sent?;
                return Publication::new(&load(wallet, job.id)?, false);
            }
        }
    }
}

/// Sends again what is missing of a job that [`job_of_payload`] found; pays nothing new, so that no rate is needed.
///
/// # Errors
/// [`PublishError::WaitsForSignatures`].
pub fn go_on(wallet: &mut Wallet, node: &impl Mempool, job: Job) -> Result<Publication, PublishError> {
    let job = if job.state.is_unfinished() { broadcast(wallet, node, job.id)? } else { job };
    Publication::new(&job, true)
}

/// Plans, signs and writes down; sends nothing. [`broadcast`] does.
pub fn prepare(
    wallet: &mut Wallet,
    node: &impl Mempool,
    payload: &[u8],
    request: &Request,
) -> Result<Job, PublishError> {
    let (terms, generation) = plan_for(Payer::Wallet, wallet, node, payload, request)?;
    wallet.note(&generation.transactions);
    let seen = wallet.synced_to().height;
    let deadline = request.confirm_by.map(|confirm_by| Event::Deadline { deadline: Deadline { confirm_by, seen } });
    let mut events = vec![Event::Planned { draft: None }];
    events.extend(deadline);
    events.push(Event::Signed { generation });
    begin(wallet, &terms, &events)
}

/// The cheapest transactions within the caps that the wallet's coins pay for, and the terms of their job. Where the
/// coins are signed for elsewhere, placeholders are in the place of those signatures.
fn plan_for(
    payer: Payer,
    wallet: &mut Wallet,
    node: &impl Mempool,
    payload: &[u8],
    request: &Request,
) -> Result<(JobTerms, Generation), PublishError> {
    check_length(payload)?;
    let relay = fees::relay(node)?;
    fees::check_floor(request.fee_rate, relay.floor)?;
    let fund_from = match (request.fund_from, request.again) {
        (None, false) => instead_of(wallet, payload)?,
        (given, _) => given,
    };
    let request = &Request { fund_from, ..*request };
    let plan = loop {
        let plan = choose(plan::both(wallet, payload, request, relay)?, request.carrier);
        let plan = plan.map_err(|error| short(wallet, error))?;
        let coins: Vec<OutPoint> = plan.coins.iter().map(|coin| coin.outpoint).collect();
        if wallet.are_there(node, &coins)? {
            break plan;
        }
    };
    request.caps.check(plan.fee, plan.vsize)?;
    let terms = JobTerms {
        key_index: plan.envelope.as_ref().map(|envelope| envelope.key_index),
        merkle_root: plan.envelope.as_ref().and_then(Envelope::merkle_root),
        ..JobTerms::new(payer, plan.carrier, payload, request.fee_rate, request.caps)
    };
    Ok((terms, sign(payer, wallet, plan)?))
}

/// Too few coins, and why.
fn short(wallet: &Wallet, error: PublishError) -> PublishError {
    match error {
        PublishError::Funds(shortfall) => wallet.short(shortfall).into(),
        error => error,
    }
}

/// What another job of a payload has to spend, so that never both it and one that was taken back are mined.
///
/// # Errors
/// [`PublishError::MayComeBack`] if there is no such coin.
fn instead_of(wallet: &Wallet, payload: &[u8]) -> Result<Option<OutPoint>, PublishError> {
    let mut jobs = journal::given_up(wallet.db(), sha256(payload))?;
    // Of what was given up, nothing left, but what was given away to be signed may have.
    jobs.retain(|job| !matches!(job.state, JobState::Abandoned(_)) || job.draft.is_some());
    let confirmed = wallet.confirmed();
    let are_excluded = |by: &[OutPoint]| {
        let is_excluded =
            |generation: &Generation| generation.transactions.iter().any(|tx| wallet.is_excluded(tx, by, &confirmed));
        jobs.iter().flat_map(|job| job.generations.iter().chain(&job.draft)).all(is_excluded)
    };
    if are_excluded(&[]) {
        return Ok(None);
    }
    let taking = |job: &Job| -> Vec<OutPoint> {
        match (&job.state, &job.draft) {
            (JobState::Abandoned(_), Some(draft)) => {
                draft.transactions[0].input.iter().map(|input| input.previous_output).collect()
            }
            _ => job.reclaims.iter().map(|sweep| OutPoint::new(sweep.compute_txid(), 0)).collect(),
        }
    };
    let is_ours = |outpoint: &OutPoint| wallet.coin(*outpoint).is_ok() && are_excluded(&[*outpoint]);
    let found = jobs.iter().rev().flat_map(taking).find(is_ours);
    match (found, jobs.last()) {
        (None, Some(job)) => Err(PublishError::MayComeBack { job: job.id, state: job.state.clone() }),
        (found, _) => Ok(found),
    }
}

/// Writes a job down, with its first events and whatever the wallet has learnt.
fn begin(wallet: &mut Wallet, terms: &JobTerms, events: &[Event]) -> Result<Job, PublishError> {
    let id = wallet.save_with(|db| journal::begin(db, terms, events, unix_now()))?;
    load(wallet, id)
}

/// All jobs, oldest first.
pub fn jobs(wallet: &Wallet) -> Result<Vec<Job>, PublishError> {
    Ok(journal::all(wallet.db())?)
}

/// The jobs that something may still happen to, oldest first.
pub fn open_jobs(wallet: &Wallet) -> Result<Vec<Job>, PublishError> {
    Ok(journal::watched(wallet.db())?)
}

/// The job that publishes `payload`, or has published it; what was given up or taken back does not count.
pub fn job_of_payload(wallet: &Wallet, payload: &[u8]) -> Result<Option<Job>, PublishError> {
    Ok(journal::of_payload(wallet.db(), sha256(payload))?)
}

/// One job.
pub fn job(wallet: &Wallet, id: JobId) -> Result<Job, PublishError> {
    load(wallet, id)
}

/// A job's log, oldest first.
pub fn events(wallet: &Wallet, id: JobId) -> Result<Vec<Recorded>, PublishError> {
    load(wallet, id)?;
    Ok(journal::events(wallet.db(), id)?)
}

fn load(wallet: &Wallet, id: JobId) -> Result<Job, PublishError> {
    journal::find(wallet.db(), id)?.ok_or(PublishError::NoJob(id))
}

fn check_length(payload: &[u8]) -> Result<(), PublishError> {
    match payload.len() {
        MIN_PAYLOAD..=MAX_PAYLOAD => Ok(()),
        length => Err(PublishError::PayloadLength { length }),
    }
}

/// The cheapest plan that is relayed and paid for, among those asked for.
fn choose(both: [(CarrierCost, Option<Plan>); 2], asked: CarrierChoice) -> Result<Plan, PublishError> {
    let wanted = |carrier| match asked {
        CarrierChoice::Auto => true,
        CarrierChoice::Only(only) => only == carrier,
    };
    let mut candidates: Vec<_> = both.into_iter().filter(|(cost, _)| wanted(cost.carrier)).collect();
    candidates.sort_by_key(|(cost, _)| cost.fee);
    let mut unrelayed = None;
    let mut shortfall = None;
    for (cost, plan) in candidates {
        match (cost.relayed, plan) {
            (Ok(()), Some(plan)) => return Ok(plan),
            (Ok(()), None) => shortfall = shortfall.or(cost.shortfall),
            (Err(why), _) => unrelayed = Some(why),
        }
    }
    match (shortfall, unrelayed) {
        (Some(shortfall), _) => Err(shortfall.into()),
        (None, Some(why)) => Err(PublishError::NotRelayed { asked, why }),
        (None, None) => Err(PublishError::Broken("no carrier to choose from")),
    }
}

/// Signs a plan's transactions, which keeps their ids, sizes and fees; the first only if `payer` signs here.
fn sign(payer: Payer, wallet: &Wallet, plan: Plan) -> Result<Generation, PublishError> {
    let mut transactions = plan.transactions.clone();
    let mut spent = outputs_of(&plan.coins);
    if payer == Payer::Wallet {
        wallet.sign(&mut transactions[0], &spent)?;
    }
    if let (Some(envelope), [commit, reveal]) = (&plan.envelope, transactions.as_mut_slice()) {
        spent = commit.output[..1].to_vec();
        spend::sign_reveal(wallet, reveal, &spent, envelope)?;
    }
    for (signed, planned) in transactions.iter().zip(&plan.transactions) {
        let same = signed.weight() == planned.weight() && signed.compute_txid() == planned.compute_txid();
        if !same {
            return Err(PublishError::Broken("a signed transaction is not the planned one"));
        }
    }
    let carrying = transactions.len() - 1;
    Ok(Generation { transactions, carrying, spent, fee: plan.fee, vsize: plan.vsize, change: plan.change })
}

#[cfg(test)]
mod tests;
