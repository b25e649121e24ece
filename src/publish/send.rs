//! What was written down leaves, as often as it must.

use super::anywhere::{Payment, sign, unsigned};
use super::spend::highest_rate;
use super::{HIGHEST_ESTIMATE, PublishError, load};
use crate::chain::{ChainError, Mempool, refusal};
use crate::primitives::BlockRef;
use crate::wallet::{Event, Generation, Job, JobId, JobState, Payer, Wallet, inputs_of, journal, total};
use bitcoin::{Amount, OutPoint, Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet};

/// What resuming did about one job.
#[derive(Debug)]
pub struct Resumed {
    /// The job.
    pub job: JobId,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of resuming a job.
#[derive(Debug)]
pub enum Outcome {
    /// The node has all of it.
    InPlace,
    /// These were missing and have been sent.
    Sent(Vec<Txid>),
    /// Its address has not been paid enough yet.
    Unpaid(Payment),
    /// It is closed, and its envelope holds this all the same: `reclaim` brings it back.
    Stranded(Amount),
    /// This stands in its way.
    Failed(PublishError),
}

impl From<Result<Vec<Txid>, PublishError>> for Outcome {
    fn from(sent: Result<Vec<Txid>, PublishError>) -> Self {
        match sent {
            Ok(sent) if sent.is_empty() => Self::InPlace,
            Ok(sent) => Self::Sent(sent),
            Err(PublishError::Unpaid { received, missing, .. }) => Self::Unpaid(Payment { received, missing }),
            Err(error) => Self::Failed(error),
        }
    }
}

/// Sends every unfinished job's transactions that are neither in the mempool nor in the chain. What stands in the way
/// of one job keeps none of the others.
///
/// Sync the wallet first: it is what tells which of them are in the chain.
pub fn resume(wallet: &mut Wallet, node: &impl Mempool) -> Result<Vec<Resumed>, PublishError> {
    let mut done = Vec::new();
    for job in journal::watched(wallet.db())? {
        // Whoever signs elsewhere brings it back; recovered from its backup line alone, it can only be reclaimed.
        let waits_for_its_owner = job.state == JobState::Planned && (job.draft.is_some() || job.payload.is_empty());
        let is_unsettled = wallet.unsettled_sweeps(&job, &wallet.confirmed()).next().is_some();
        if (job.state.is_unfinished() && !waits_for_its_owner) || is_unsettled {
            done.push(Resumed { job: job.id, outcome: advance(wallet, node, &job).into() });
        }
        let job = load(wallet, job.id)?;
        let held = stranded(wallet, &job)?;
        if held > Amount::ZERO {
            done.push(Resumed { job: job.id, outcome: Outcome::Stranded(held) });
        }
    }
    Ok(done)
}

/// Signs what one job has been paid for, sends what of it is missing, and returns it in its new state.
///
/// # Errors
/// [`PublishError::Unpaid`] if too little has arrived at its address; it may be called again.
/// [`PublishError::WaitsForSignatures`].
pub fn broadcast(wallet: &mut Wallet, node: &impl Mempool, id: JobId) -> Result<Job, PublishError> {
    let job = load(wallet, id)?;
    advance(wallet, node, &job)?;
    load(wallet, id)
}

/// Brings a job on, whatever it waits for, and returns what was missing and has been sent.
pub(super) fn advance(wallet: &mut Wallet, node: &impl Mempool, job: &Job) -> Result<Vec<Txid>, PublishError> {
    let mut sent = match unsigned(wallet, node, job)? {
        Some(unsigned) => {
            let job = sign(wallet, node, job, unsigned)?;
            push(wallet, node, &job)?
        }
        None if job.state == JobState::Planned => return Err(PublishError::WaitsForSignatures(job.id)),
        None if job.state.is_unfinished() => push(wallet, node, job)?,
        None => Vec::new(),
    };
    sent.extend(push_sweeps(wallet, node, job)?);
    Ok(sent)
}

/// What is at the envelope of a job that is closed, and nothing takes back.
pub fn stranded(wallet: &Wallet, job: &Job) -> Result<Amount, PublishError> {
    match job.state {
        JobState::Confirmed(_) | JobState::Reclaimed(_) | JobState::Abandoned(_) => {
            let left = wallet.payments(job)?.into_iter().filter(|paid| !paid.is_leaving);
            Ok(total(left.map(|paid| paid.output.value)))
        }
        _ => Ok(Amount::ZERO),
    }
}

fn first_txid(job: &Job) -> Result<Txid, PublishError> {
    job.txids().first().copied().ok_or(PublishError::Broken("a job without transactions"))
}

/// Sends a job that has just been written down; gives it up if it is refused and nothing left.
pub(super) fn first(wallet: &mut Wallet, node: &impl Mempool, job: &Job) -> Result<(), PublishError> {
    let Attempt::Refused { txid, reason, taken } = attempt(wallet, node, job)? else { return Ok(()) };
    let id = job.id;
    let unsent = |source| PublishError::Unsent { job: id, source };
    // Whoever answers now may be another than who took it.
    if !taken && absent(node, &job.active(), &wallet.confirmed()).map_err(unsent)?.len() == job.active().len() {
        give_up(wallet, job, &reason)?;
        return Err(PublishError::Refused { job: id, txid, reason });
    }
    Err(PublishError::Stuck { job: id, txid, reason })
}

/// Tests, writes down what is about to leave, sends, and asks what the node has. Returns what was sent.
pub(super) fn push(wallet: &mut Wallet, node: &impl Mempool, job: &Job) -> Result<Vec<Txid>, PublishError> {
    match attempt(wallet, node, job)? {
        Attempt::Sent(sent) => Ok(sent),
        Attempt::Refused { txid, reason, .. } => Err(PublishError::Stuck { job: job.id, txid, reason }),
    }
}

/// What came of sending.
enum Attempt {
    /// The node has all of it; these had been missing.
    Sent(Vec<Txid>),
    Refused {
        txid: Txid,
        reason: String,
        /// Whether anybody took a part of it, whatever there is of it now.
        taken: bool,
    },
}

fn attempt(wallet: &mut Wallet, node: &impl Mempool, job: &Job) -> Result<Attempt, PublishError> {
    let unsent = |source| PublishError::Unsent { job: job.id, source };
    let confirmed = wallet.confirmed();
    let Some(job) = stand(wallet, job)? else { return Err(conflicted(wallet, job)?) };
    let active = job.active();
    let own = absent(node, &active, &confirmed).map_err(unsent)?;
    if own.is_empty() {
        leaving(wallet, &job, true)?;
        return Ok(Attempt::Sent(Vec::new()));
    }
    // What they hang on may be forgotten, too; what the node does not take alone goes with them.
    let before = absent(node, &wallet.hangs_on(&own, &confirmed), &confirmed).map_err(unsent)?;
    if let Some(blocks) = wallet.unread_blocks().filter(|_| before.is_empty()) {
        let made: BTreeSet<Txid> = own.iter().map(Transaction::compute_txid).collect();
        let spent: Vec<OutPoint> = own.iter().flat_map(inputs_of).filter(|coin| !made.contains(&coin.txid)).collect();
        if !node.missing(&spent).map_err(unsent)?.is_empty() {
            return Err(PublishError::Unread { job: job.id, first: *blocks.start(), last: *blocks.end() });
        }
    }
    for tx in &before {
        node.submit(std::slice::from_ref(tx), HIGHEST_ESTIMATE).map_err(unsent)?;
    }
    let sent: Vec<Txid> = before.iter().chain(&own).map(Transaction::compute_txid).collect();
    let is_whole = own.len() == active.len();
    let missing = [absent(node, &before, &confirmed).map_err(unsent)?, own].concat();
    if is_whole && let Some((txid, reason)) = objection(wallet, node, &missing).map_err(unsent)? {
        return Ok(Attempt::Refused { txid, reason, taken: false });
    }
    let (mut refused, mut taken) = (None, false);
    for part in parts(&missing) {
        leaving(wallet, &job, part.iter().any(|tx| Some(tx) != job.commit()))?;
        let verdicts = node.submit(part, highest_rate(wallet, &missing)).map_err(unsent)?;
        taken |= verdicts.iter().any(|verdict| verdict.answer.is_ok());
        refused = refused.or(refusal(verdicts));
    }
    // Whatever the answers: what counts is what the node has now.
    match refused {
        Some((txid, reason)) if !absent(node, &missing, &confirmed).map_err(unsent)?.is_empty() => {
            Ok(Attempt::Refused { txid, reason, taken })
        }
        _ => Ok(Attempt::Sent(sent)),
    }
}

/// What the node says against sending `missing`, parents first.
pub(super) fn objection(
    wallet: &Wallet,
    node: &impl Mempool,
    missing: &[Transaction],
) -> Result<Option<(Txid, String)>, ChainError> {
    let refused = refusal(node.test_accept(missing, highest_rate(wallet, missing))?);
    // Testing judges each transaction by its own rate; sent as a package, the package's counts.
    let by_rate = |reason: &str| reason.contains("min fee not met") || reason.contains("min relay fee not met");
    match refused {
        Some((_, reason)) if missing.len() > 1 && by_rate(&reason) && node.relay()?.packages => Ok(None),
        refused => Ok(refused),
    }
}

/// What is to be said of a job that cannot confirm in the chain as it is; gives it up once it never can.
fn conflicted(wallet: &mut Wallet, job: &Job) -> Result<PublishError, PublishError> {
    // Whoever paid may pay again.
    if job.payer != Payer::Anywhere && is_lost(wallet, job) {
        give_up(wallet, job, SPENT_OTHERWISE)?;
        return Ok(PublishError::Lost { job: job.id });
    }
    let reason = "another mined transaction spends its coins, which is final when it is six blocks deep".to_owned();
    Ok(PublishError::Stuck { job: job.id, txid: first_txid(job)?, reason })
}

/// Why a job is given up that [`is_lost`].
pub(super) const SPENT_OTHERWISE: &str = "its coins were spent by another transaction";

/// Whether none of the transactions that were signed for a job can be mined any more: others, deep in the chain, spend
/// what they do.
pub(super) fn is_lost(wallet: &Wallet, job: &Job) -> bool {
    let buried = wallet.buried();
    let signed = job.generations.iter().chain(&job.draft).map(|generation| generation.transactions.as_slice());
    let mut ways = signed.chain(job.reclaims.iter().map(std::slice::from_ref)).peekable();
    ways.peek().is_some() && ways.all(|way| way.iter().any(|tx| wallet.is_lost(tx, &buried)))
}

/// The job with the transactions that stand for it, if they can confirm in the chain as it is. Where another confirmed
/// transaction spends a coin that a bump added, what stood before the bump is made to stand again.
///
/// Only one of them can ever be mined: each spends what the first does.
pub(super) fn stand(wallet: &mut Wallet, job: &Job) -> Result<Option<Job>, PublishError> {
    let confirmed = wallet.confirmed();
    let (JobState::Signed | JobState::CommitSent | JobState::RevealSent, Some(current)) = (&job.state, job.current())
    else {
        let is_lost = job.active().iter().any(|tx| wallet.is_lost(tx, &confirmed));
        return Ok((!is_lost).then(|| job.clone()));
    };
    let inputs = |generation: &Generation| generation.carrier_tx().map(inputs_of).unwrap_or_default();
    let now = inputs(current);
    let mut excluding = job.generations.iter().rev().take_while(|generation| !inputs(generation).is_disjoint(&now));
    let can_confirm =
        |generation: &&Generation| !generation.transactions.iter().any(|tx| wallet.is_lost(tx, &confirmed));
    match excluding.find(can_confirm) {
        None => Ok(None),
        Some(standing) if standing == current => Ok(Some(job.clone())),
        Some(standing) => Ok(Some(replace(wallet, job, standing.clone(), &[])?)),
    }
}

/// Writes a generation down as the one that stands, and `also` with it; frees what only the others spend.
pub(super) fn replace(
    wallet: &mut Wallet,
    job: &Job,
    generation: Generation,
    also: &[Event],
) -> Result<Job, PublishError> {
    let kept = generation.txids();
    let dropped: Vec<Txid> = job.all_txids().filter(|txid| !kept.contains(txid)).collect();
    wallet.forget(&dropped);
    wallet.note(&generation.transactions);
    wallet.record(job.id, &[&[Event::Signed { generation }], also].concat())?;
    load(wallet, job.id)
}

/// Sends the sweeps of late payments that are neither in the mempool nor in the chain; they are written down.
fn push_sweeps(wallet: &Wallet, node: &impl Mempool, job: &Job) -> Result<Vec<Txid>, PublishError> {
    let unsent = |source| PublishError::Unsent { job: job.id, source };
    let confirmed = wallet.confirmed();
    let mut sent = Vec::new();
    for tx in wallet.unsettled_sweeps(job, &confirmed) {
        let missing = absent(node, std::slice::from_ref(tx), &confirmed).map_err(unsent)?;
        if missing.is_empty() {
            continue;
        }
        let verdicts = node.submit(&missing, highest_rate(wallet, &missing)).map_err(unsent)?;
        if let Some((txid, reason)) = refusal(verdicts) {
            return Err(PublishError::Stuck { job: job.id, txid, reason });
        }
        sent.push(tx.compute_txid());
    }
    Ok(sent)
}

/// What leaves in one act: a parent with its one child. Where packages are not relayed, they go one by one.
fn parts(missing: &[Transaction]) -> Vec<&[Transaction]> {
    match missing.len() {
        // A package has two generations at most; what the node has already does no harm in it.
        n if n > 2 => missing.windows(2).collect(),
        _ => vec![missing],
    }
}

/// Writes down that the commit is about to leave, and with `carrier` that the payload is.
fn leaving(wallet: &mut Wallet, job: &Job, carrier: bool) -> Result<(), PublishError> {
    let job = load(wallet, job.id)?;
    let mut events = Vec::new();
    if job.state == JobState::Signed && job.commit().is_some() {
        events.push(Event::CommitSent);
    }
    if carrier && !job.has_left && matches!(job.state, JobState::Signed | JobState::CommitSent | JobState::RevealSent) {
        events.push(Event::RevealSent);
    }
    if !events.is_empty() {
        wallet.record(job.id, &events)?;
    }
    Ok(())
}

/// Those of `transactions`, parents first, that are neither in the chain nor in the mempool.
pub(super) fn absent(
    node: &impl Mempool,
    transactions: &[Transaction],
    confirmed: &BTreeMap<Txid, BlockRef>,
) -> Result<Vec<Transaction>, ChainError> {
    let mut absent = Vec::new();
    for tx in transactions.iter().rev() {
        let txid = tx.compute_txid();
        if confirmed.contains_key(&txid) || node.is_waiting(&txid)? {
            continue;
        }
        // A block that the wallet has not seen yet; it holds the parents, too.
        if is_unspent(node, tx)? {
            break;
        }
        absent.push(tx.clone());
    }
    absent.reverse();
    Ok(absent)
}

fn is_unspent(node: &impl Mempool, tx: &Transaction) -> Result<bool, ChainError> {
    let txid = tx.compute_txid();
    for (vout, _) in (0..).zip(&tx.output).filter(|(_, output)| !output.script_pubkey.is_op_return()) {
        if node.unspent(&OutPoint::new(txid, vout))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Gives an unfinished job up if neither chain nor mempool has anything of it, so that another can be made from its
/// coins; returns whether it did. Sync first.
///
/// Somebody else may send it all the same: whoever must not see both mined spends one of its coins.
pub fn give_up_absent(wallet: &mut Wallet, node: &impl Mempool, id: JobId, reason: &str) -> Result<bool, PublishError> {
    let job = load(wallet, id)?;
    let active = job.active();
    let is_absent = absent(node, &active, &wallet.confirmed())?.len() == active.len();
    let gives_up = job.state.is_unfinished() && is_absent;
    if gives_up {
        give_up(wallet, &job, reason)?;
    }
    Ok(gives_up)
}

/// Abandons a job and frees its coins.
pub(super) fn give_up(wallet: &mut Wallet, job: &Job, reason: &str) -> Result<(), PublishError> {
    wallet.forget(&job.all_txids().collect::<Vec<_>>());
    Ok(wallet.record(job.id, &[Event::Abandoned { reason: reason.to_owned() }])?)
}
