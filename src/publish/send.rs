//! What was written down leaves, as often as it must.

use super::anywhere::{Payment, sign, sweepable, unsigned};
use super::{HIGHEST_ESTIMATE, PublishError, load};
use crate::chain::{Answer, ChainError, Mempool, Verdict};
use crate::primitives::BlockRef;
use crate::wallet::{Event, Generation, Job, JobId, JobState, Payer, Wallet, inputs_of, journal, rate_of, vsize};
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, Txid};
use std::collections::BTreeMap;

const SPENT: &str = "its coins were spent by another transaction";

/// What resuming did about one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The job.
    pub job: JobId,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of resuming a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node has all of it.
    InPlace,
    /// These were missing and have been sent.
    Sent(Vec<Txid>),
    /// The node refuses this transaction for now; try again later.
    Refused {
        /// Which.
        txid: Txid,
        /// The node's words.
        reason: String,
    },
    /// Its coins were spent by another confirmed transaction: it can never confirm.
    Abandoned,
    /// Its address has not been paid enough yet.
    Unpaid(Payment),
    /// It was given up, and somebody sent its commit all the same: `reclaim` brings back what that holds.
    Stranded(Amount),
}

/// Sends every unfinished job's transactions that are neither in the mempool nor in the chain.
///
/// Sync the wallet first: it is what tells which of them are in the chain.
pub fn resume(wallet: &mut Wallet, node: &impl Mempool) -> Result<Vec<Resumed>, PublishError> {
    let mut done = Vec::new();
    for job in journal::watched(wallet.db())?.into_iter().filter(|job| job.state.is_unfinished()) {
        let is_planned = job.state == JobState::Planned;
        // Recovered from its backup line alone: it can only be reclaimed.
        if is_planned && job.payload.is_empty() {
            continue;
        }
        let outcome = match unsigned(wallet, node, &job)? {
            Some(unsigned) => match sign(wallet, node, &job, unsigned) {
                Ok(job) => Outcome::Sent(job.txids()),
                Err(PublishError::Unpaid { received, missing, .. }) => Outcome::Unpaid(Payment { received, missing }),
                Err(PublishError::Stuck { txid, reason, .. }) => Outcome::Refused { txid, reason },
                Err(error) => return Err(error),
            },
            None if is_planned => continue,
            None => push(wallet, node, &job)?,
        };
        done.push(Resumed { job: job.id, outcome });
    }
    let confirmed = wallet.confirmed();
    for job in journal::watched(wallet.db())? {
        if matches!(job.state, JobState::Abandoned(_)) {
            let held: Amount =
                sweepable(wallet, node, &job, FeeRate::ZERO)?.into_iter().map(|(_, output)| output.value).sum();
            let held = Some(held).filter(|held| *held > Amount::ZERO);
            done.extend(held.map(|held| Resumed { job: job.id, outcome: Outcome::Stranded(held) }));
        }
        if wallet.unsettled_sweeps(&job, &confirmed).next().is_some() {
            done.push(Resumed { job: job.id, outcome: push_sweeps(wallet, node, &job)? });
        }
    }
    Ok(done)
}

/// Sends one job's missing transactions, and returns it in its new state.
pub fn broadcast(wallet: &mut Wallet, node: &impl Mempool, id: JobId) -> Result<Job, PublishError> {
    let job = load(wallet, id)?;
    let outcome = match job.state.is_unfinished() && job.state != JobState::Planned {
        true => push(wallet, node, &job)?,
        false => push_sweeps(wallet, node, &job)?,
    };
    match outcome {
        Outcome::InPlace | Outcome::Sent(_) | Outcome::Unpaid(_) | Outcome::Stranded(_) => load(wallet, id),
        Outcome::Refused { txid, reason } => Err(PublishError::Stuck { job: id, txid, reason }),
        Outcome::Abandoned => Err(PublishError::Refused { job: id, txid: first_txid(&job)?, reason: SPENT.to_owned() }),
    }
}

fn first_txid(job: &Job) -> Result<Txid, PublishError> {
    job.txids().first().copied().ok_or(PublishError::Broken("a job without transactions"))
}

/// Sends a job that has just been written down; gives it up if it is refused and nothing left.
pub(super) fn first(wallet: &mut Wallet, node: &impl Mempool, job: &Job) -> Result<(), PublishError> {
    let Pushed { outcome: Outcome::Refused { txid, reason }, taken } = attempt(wallet, node, job)? else {
        return Ok(());
    };
    let id = job.id;
    let unsent = |source| PublishError::Unsent { job: id, source };
    // Whoever answers now may be another than who took it.
    if !taken && absent(node, &job.active(), &wallet.confirmed()).map_err(unsent)?.len() == job.active().len() {
        give_up(wallet, job, &reason)?;
        return Err(PublishError::Refused { job: id, txid, reason });
    }
    Err(PublishError::Stuck { job: id, txid, reason })
}

/// Tests, writes down what is about to leave, sends, and asks what the node has.
pub(super) fn push(wallet: &mut Wallet, node: &impl Mempool, job: &Job) -> Result<Outcome, PublishError> {
    Ok(attempt(wallet, node, job)?.outcome)
}

/// What came of sending, and whether anybody took a part of it, whatever there is of it now.
struct Pushed {
    outcome: Outcome,
    taken: bool,
}

fn attempt(wallet: &mut Wallet, node: &impl Mempool, job: &Job) -> Result<Pushed, PublishError> {
    let untaken = |outcome| Ok(Pushed { outcome, taken: false });
    let unsent = |source| PublishError::Unsent { job: job.id, source };
    let confirmed = wallet.confirmed();
    let job = match stand(wallet, job)? {
        Some(job) => job,
        None if unsigned(wallet, node, job)?.is_some() => job.clone(),
        None => {
            // Whoever paid may pay again.
            if job.payer == Payer::Anywhere {
                return untaken(Outcome::Refused { txid: first_txid(job)?, reason: SPENT.to_owned() });
            }
            give_up(wallet, job, SPENT)?;
            return untaken(Outcome::Abandoned);
        }
    };
    let active = job.active();
    let own = absent(node, &active, &confirmed).map_err(unsent)?;
    if own.is_empty() {
        leaving(wallet, &job, true)?;
        return untaken(Outcome::InPlace);
    }
    // What they hang on may be forgotten, too; what the node does not take alone goes with them.
    let before = absent(node, &wallet.hangs_on(&own, &confirmed), &confirmed).map_err(unsent)?;
    for tx in &before {
        node.submit(std::slice::from_ref(tx), HIGHEST_ESTIMATE).map_err(unsent)?;
    }
    let sent: Vec<Txid> = before.iter().chain(&own).map(Transaction::compute_txid).collect();
    let is_whole = own.len() == active.len();
    let missing = [absent(node, &before, &confirmed).map_err(unsent)?, own].concat();
    let limit = highest_rate(wallet, &active);
    let packages = node.relay().map_err(unsent)?.packages;
    if is_whole {
        let refused = refusal(node.test_accept(&missing, limit).map_err(unsent)?);
        // Testing judges each transaction by its own rate; sent as a package, the package's counts.
        let by_rate = |reason: &str| reason.contains("min fee not met") || reason.contains("min relay fee not met");
        if let Some((txid, reason)) = refused.filter(|(_, reason)| !(packages && missing.len() > 1 && by_rate(reason)))
        {
            return untaken(Outcome::Refused { txid, reason });
        }
    }
    let (mut refused, mut taken) = (None, false);
    for part in parts(&missing) {
        leaving(wallet, &job, part.iter().any(|tx| Some(tx) != job.commit()))?;
        let verdicts = node.submit(part, limit).map_err(unsent)?;
        taken |= verdicts.iter().any(|verdict| verdict.answer.is_ok());
        refused = refused.or(refusal(verdicts));
    }
    // Whatever the answers: what counts is what the node has now.
    let still_absent = match &refused {
        None => Vec::new(),
        Some(_) => absent(node, &missing, &confirmed).map_err(unsent)?,
    };
    let outcome = match refused.filter(|_| !still_absent.is_empty()) {
        Some((txid, reason)) => Outcome::Refused { txid, reason },
        None => Outcome::Sent(sent),
    };
    Ok(Pushed { outcome, taken })
}

/// The job with the transactions that stand for it, if they can still confirm. Where another confirmed transaction
/// spends a coin that a bump added, what stood before the bump is made to stand again.
///
/// Only one of them can ever be mined: each spends what the first does.
pub(super) fn stand(wallet: &mut Wallet, job: &Job) -> Result<Option<Job>, PublishError> {
    let (JobState::Signed | JobState::CommitSent | JobState::RevealSent, Some(current)) = (&job.state, job.current())
    else {
        return Ok(Some(job.clone()));
    };
    let confirmed = wallet.confirmed();
    let inputs = |generation: &Generation| generation.carrier_tx().map(inputs_of).unwrap_or_default();
    let now = inputs(current);
    let mut excluding = job.generations.iter().rev().take_while(|generation| !inputs(generation).is_disjoint(&now));
    let can_confirm =
        |generation: &&Generation| !generation.transactions.iter().any(|tx| wallet.is_conflicted(tx, &confirmed));
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
pub(super) fn push_sweeps(wallet: &Wallet, node: &impl Mempool, job: &Job) -> Result<Outcome, PublishError> {
    let unsent = |source| PublishError::Unsent { job: job.id, source };
    let confirmed = wallet.confirmed();
    let mut sent = Vec::new();
    for tx in wallet.unsettled_sweeps(job, &confirmed) {
        let missing = absent(node, std::slice::from_ref(tx), &confirmed).map_err(unsent)?;
        let verdicts = match missing.is_empty() {
            true => continue,
            false => node.submit(&missing, highest_rate(wallet, &missing)).map_err(unsent)?,
        };
        if let Some((txid, reason)) = refusal(verdicts) {
            return Ok(Outcome::Refused { txid, reason });
        }
        sent.push(tx.compute_txid());
    }
    Ok(if sent.is_empty() { Outcome::InPlace } else { Outcome::Sent(sent) })
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

pub(super) fn refusal(verdicts: Vec<Verdict>) -> Option<(Txid, String)> {
    verdicts.into_iter().find_map(|verdict| match verdict.answer {
        Answer::Refused(reason) => Some((verdict.txid, reason)),
        _ => None,
    })
}

/// Abandons a job and frees its coins.
pub(super) fn give_up(wallet: &mut Wallet, job: &Job, reason: &str) -> Result<(), PublishError> {
    wallet.forget(&job.all_txids().collect::<Vec<_>>());
    Ok(wallet.record(job.id, &[Event::Abandoned { reason: reason.to_owned() }])?)
}

/// The highest rate that one of these transactions pays: the node may accept that, and no more.
pub(super) fn highest_rate(wallet: &Wallet, transactions: &[Transaction]) -> FeeRate {
    let rate = |tx| rate_of(fee_of(wallet, transactions, tx), vsize(tx));
    transactions.iter().map(rate).max().unwrap_or(FeeRate::ZERO)
}

/// What `tx` pays; its inputs are known to the wallet or are outputs of `among`.
pub(super) fn fee_of(wallet: &Wallet, among: &[Transaction], tx: &Transaction) -> Amount {
    let value = |input: &bitcoin::TxIn| {
        let from = input.previous_output;
        let parent = among.iter().find(|parent| parent.compute_txid() == from.txid);
        let output = parent.and_then(|parent| parent.output.get(from.vout as usize).cloned());
        output.or_else(|| wallet.output(&from)).map_or(Amount::ZERO, |output| output.value)
    };
    let paid: Amount = tx.input.iter().map(value).sum();
    let kept: Amount = tx.output.iter().map(|output| output.value).sum();
    paid.checked_sub(kept).unwrap_or(Amount::ZERO)
}
