//! What was written down leaves, as often as it must; and commits are swept back.

use super::plan::Envelope;
use super::{PublishError, fees, load};
use crate::chain::{Answer, Mempool, Verdict};
use crate::envelope::Carrier;
use crate::primitives::BtcHeight;
use crate::wallet::{
    Caps, Job, JobId, JobState, Shortfall, Wallet, fee_for, journal, key_spend, rate_of, transaction, vsize,
};
use bitcoin::key::TapTweak;
use bitcoin::secp256k1::Message;
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, TxOut, Txid, Witness, taproot};
use std::collections::BTreeMap;

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
}

/// Sends every unfinished job's transactions that are neither in the mempool nor in the chain.
///
/// Sync the wallet first: it is what tells which of them are in the chain.
pub fn resume(wallet: &mut Wallet, node: &impl Mempool) -> Result<Vec<Resumed>, PublishError> {
    let unfinished =
        journal::watched(wallet.db(), wallet.synced_to().height)?.into_iter().filter(|job| job.state.is_unfinished());
    let mut done = Vec::new();
    for job in unfinished {
        done.push(Resumed { job: job.id, outcome: push(wallet, node, &job)? });
    }
    Ok(done)
}

/// Sends one job's missing transactions, and returns it in its new state.
pub fn broadcast(wallet: &mut Wallet, node: &impl Mempool, id: JobId) -> Result<Job, PublishError> {
    let job = load(wallet, id)?;
    if !job.state.is_unfinished() {
        return Ok(job);
    }
    match push(wallet, node, &job)? {
        Outcome::InPlace | Outcome::Sent(_) => load(wallet, id),
        Outcome::Refused { txid, reason } => Err(PublishError::Stuck { job: id, txid, reason }),
        Outcome::Abandoned => {
            let reason = "its coins were spent by another transaction".to_owned();
            let txid = job.txids().first().copied();
            let txid = txid.ok_or(PublishError::Broken("a job without transactions"))?;
            Err(PublishError::Refused { job: id, txid, reason })
        }
    }
}

/// Sends a job that has just been written down; gives it up if the node refuses and nothing left.
pub(super) fn first(wallet: &mut Wallet, node: &impl Mempool, job: &Job) -> Result<(), PublishError> {
    let Outcome::Refused { txid, reason } = push(wallet, node, job)? else { return Ok(()) };
    let id = job.id;
    if load(wallet, id)?.state == JobState::Signed {
        give_up(wallet, job, &reason)?;
        return Err(PublishError::Refused { job: id, txid, reason });
    }
    Err(PublishError::Stuck { job: id, txid, reason })
}

/// Tests, sends, and asks what the node has; the answers decide the state.
fn push(wallet: &mut Wallet, node: &impl Mempool, job: &Job) -> Result<Outcome, PublishError> {
    let unsent = |source| PublishError::Unsent { job: job.id, source };
    let confirmed = wallet.confirmed();
    let active = job.active();
    let reclaiming = job.state == JobState::Reclaiming;
    if !reclaiming && active.iter().any(|tx| wallet.is_conflicted(tx, &confirmed)) {
        give_up(wallet, job, "its coins were spent by another transaction")?;
        return Ok(Outcome::Abandoned);
    }
    let missing = absent(node, &active, &confirmed).map_err(unsent)?;
    if missing.is_empty() {
        mark_sent(wallet, job)?;
        return Ok(Outcome::InPlace);
    }
    let limit = highest_rate(job);
    let nothing_left = job.state == JobState::Signed && missing.len() == active.len();
    if nothing_left {
        let verdicts = node.test_accept(&missing, limit).map_err(unsent)?;
        if let Some((txid, reason)) = refusal(verdicts) {
            return Ok(Outcome::Refused { txid, reason });
        }
    }
    let verdicts = node.submit(&missing, limit).map_err(unsent)?;
    // Whatever the answer: what counts is what the node has now.
    let still_missing = match refusal(verdicts) {
        None => None,
        Some((txid, reason)) => {
            let absent = absent(node, &missing, &confirmed).map_err(unsent)?;
            if absent.len() < active.len() {
                mark_sent(wallet, job)?;
            }
            (!absent.is_empty()).then_some((txid, reason))
        }
    };
    match still_missing {
        Some((txid, reason)) => Ok(Outcome::Refused { txid, reason }),
        None => {
            mark_sent(wallet, job)?;
            Ok(Outcome::Sent(missing.iter().map(Transaction::compute_txid).collect()))
        }
    }
}

/// Those of `transactions` that are neither in the chain nor in the mempool.
fn absent(
    node: &impl Mempool,
    transactions: &[Transaction],
    confirmed: &BTreeMap<Txid, BtcHeight>,
) -> Result<Vec<Transaction>, crate::chain::ChainError> {
    let mut absent = Vec::new();
    for tx in transactions {
        let txid = tx.compute_txid();
        if !confirmed.contains_key(&txid) && node.entry(&txid)?.is_none() {
            absent.push(tx.clone());
        }
    }
    Ok(absent)
}

fn refusal(verdicts: Vec<Verdict>) -> Option<(Txid, String)> {
    verdicts.into_iter().find_map(|verdict| match verdict.answer {
        Answer::Refused(reason) => Some((verdict.txid, reason)),
        _ => None,
    })
}

fn mark_sent(wallet: &mut Wallet, job: &Job) -> Result<(), PublishError> {
    if job.state == JobState::Signed {
        wallet.save_with(|db| journal::set_state(db, job.id, &JobState::Sent))?;
    }
    Ok(())
}

/// Abandons a job and frees its coins.
fn give_up(wallet: &mut Wallet, job: &Job, reason: &str) -> Result<(), PublishError> {
    wallet.forget(&job.txids());
    let state = JobState::Abandoned(reason.to_owned());
    Ok(wallet.save_with(|db| journal::set_state(db, job.id, &state))?)
}

/// The highest rate that one of the job's transactions pays: the node may accept that, and no more.
fn highest_rate(job: &Job) -> FeeRate {
    match job.active().as_slice() {
        [commit, child] => {
            let child_fee = first_value(commit).checked_sub(first_value(child));
            let child_rate = rate_of(child_fee.unwrap_or(Amount::ZERO), vsize(child));
            child_rate.max(rate_of(commit_fee(job), vsize(commit)))
        }
        _ => rate_of(job.fee, job.vsize),
    }
}

/// What the commit itself pays: the job's fee less the reveal's.
fn commit_fee(job: &Job) -> Amount {
    match job.transactions.as_slice() {
        [commit, reveal] => {
            let reveal_fee = first_value(commit).checked_sub(first_value(reveal));
            job.fee.checked_sub(reveal_fee.unwrap_or(Amount::ZERO)).unwrap_or(Amount::ZERO)
        }
        _ => job.fee,
    }
}

fn first_value(tx: &Transaction) -> Amount {
    tx.output.first().map_or(Amount::ZERO, |output| output.value)
}

/// Sweeps the coins of an unconfirmed envelope's commit back by key: the payload is given up.
///
/// Replaces a reveal that is in the mempool, by paying more than it did.
///
/// # Errors
/// [`PublishError::NotReclaimable`] if the payload is confirmed, or no commit has left.
pub fn reclaim(
    wallet: &mut Wallet,
    node: &impl Mempool,
    id: JobId,
    rate: FeeRate,
    caps: &Caps,
) -> Result<Txid, PublishError> {
    let job = load(wallet, id)?;
    let refuse = |why: &str| Err(PublishError::NotReclaimable { job: id, why: why.into() });
    let (Carrier::Taproot, Some(key_index), [commit, reveal]) =
        (job.carrier, job.key_index, job.transactions.as_slice())
    else {
        return refuse("an OP_RETURN publication locks no coins");
    };
    if !matches!(job.state, JobState::Signed | JobState::Sent) {
        return refuse(&format!("it is {}", job.state));
    }
    let confirmed = wallet.confirmed();
    let commit_confirmed = confirmed.contains_key(&commit.compute_txid());
    if !commit_confirmed && node.entry(&commit.compute_txid())?.is_none() {
        return match job.state {
            JobState::Signed => {
                give_up(wallet, &job, "given up before anything was sent")?;
                refuse("nothing of it was sent; its coins are free again")
            }
            _ => refuse("its commit is neither in the mempool nor in the chain; resume it first"),
        };
    }
    let relay = node.relay()?;
    fees::check_floor(rate, relay.floor)?;
    let replaced = node.entry(&reveal.compute_txid())?.map(|entry| entry.fee);
    let (change_index, script_pubkey) = wallet.next_change();
    let dust = script_pubkey.minimal_non_dust();
    let input = key_spend(OutPoint::new(commit.compute_txid(), 0));
    let mut tx = transaction(vec![input], vec![TxOut { value: dust, script_pubkey }]);
    let size = vsize(&tx);
    let mut fee = fee_for(rate, size);
    if !commit_confirmed {
        let together = fee_for(rate, size + vsize(commit));
        fee = fee.max(together.checked_sub(commit_fee(&job)).unwrap_or(Amount::ZERO));
    }
    if let Some(replaced) = replaced {
        fee = fee.max(replaced + fee_for(relay.floor, size));
    }
    caps.check(fee, size)?;
    let available = first_value(commit);
    match available.checked_sub(fee).filter(|value| *value >= dust) {
        Some(value) => tx.output.iter_mut().for_each(|output| output.value = value),
        None => return Err(Shortfall { needed: fee + dust, available }.into()),
    }
    sign_reclaim(wallet, &job, commit, &mut tx, key_index)?;

    let limit = rate_of(fee, size);
    if let Some((txid, reason)) = refusal(node.test_accept(std::slice::from_ref(&tx), limit)?) {
        return Err(PublishError::Stuck { job: id, txid, reason });
    }
    mark_sent(wallet, &job)?;
    wallet.forget(&[reveal.compute_txid()]);
    wallet.note(std::slice::from_ref(&tx), Some(change_index));
    wallet.save_with(|db| journal::set_reclaim(db, id, &tx))?;
    let reclaiming = load(wallet, id)?;
    match push(wallet, node, &reclaiming)? {
        Outcome::Refused { txid, reason } => Err(PublishError::Stuck { job: id, txid, reason }),
        _ => Ok(tx.compute_txid()),
    }
}

fn sign_reclaim(
    wallet: &Wallet,
    job: &Job,
    commit: &Transaction,
    tx: &mut Transaction,
    key_index: u32,
) -> Result<(), PublishError> {
    let keys = wallet.keys()?;
    let key = keys.reveal(key_index)?;
    let envelope = Envelope::new(keys.secp(), &job.payload, key.x_only_public_key().0)?;
    let key = key.tap_tweak(keys.secp(), envelope.tree.merkle_root()).to_keypair();
    let hash = SighashCache::new(&*tx)
        .taproot_key_spend_signature_hash(0, &Prevouts::All(&commit.output), TapSighashType::Default)
        .map_err(|_| PublishError::Broken("the reclaim cannot be hashed"))?;
    let signature = taproot::Signature {
        signature: keys.secp().sign_schnorr(&Message::from(hash), &key),
        sighash_type: TapSighashType::Default,
    };
    if let [input] = tx.input.as_mut_slice() {
        input.witness = Witness::p2tr_key_spend(&signature);
    }
    Ok(())
}
