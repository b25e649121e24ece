//! An envelope's coins back by key, without the payload.

use super::anywhere::{refund, sweepable};
use super::bump::job_of;
use super::send::{SPENT_OTHERWISE, absent, advance, give_up, is_lost, objection};
use super::spend::{Ancestors, fee_of, sign_by_key};
use super::{PublishError, fees, load};
use crate::chain::Mempool;
use crate::wallet::{
    Caps, Event, Generation, Job, JobId, JobState, Payer, Wallet, fee_for, inputs_of, key_spend, total, transaction,
    vsize,
};
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, TxOut, Txid};

/// What came of taking a publication back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reclaimed {
    /// Nothing of it is there, or can be: it is given up, and its coins are free.
    Freed,
    /// Its coins come back with this transaction.
    Sweeping {
        /// The transaction.
        txid: Txid,
        /// What it pays.
        fee: Amount,
        /// What comes back.
        amount: Amount,
    },
}

/// Sweeps the coins of an envelope that is not revealed in the chain back by key: the payload is given up. Of a job
/// that is closed, whatever came to its envelope too late.
///
/// Replaces a reveal or an earlier sweep that is in the mempool, by paying more than it did. Of what was never paid
/// for, or can never be mined, nothing is left to be swept: it is given up.
///
/// # Errors
/// [`PublishError::NotReclaimable`] if there is nothing to take back.
pub fn reclaim(
    wallet: &mut Wallet,
    node: &impl Mempool,
    id: JobId,
    rate: FeeRate,
    caps: &Caps,
) -> Result<Reclaimed, PublishError> {
    let (mut job, mut is_freed) = (load(wallet, id)?, false);
    let refuse = |why: String| Err(PublishError::NotReclaimable { job: id, why });
    if matches!(job.state, JobState::Planned | JobState::Signed) && job.payer != Payer::Anywhere {
        // We have sent nothing of it; whoever signed it may have.
        let first = job.current().and_then(|current| current.transactions.first());
        let confirmed = wallet.confirmed();
        let is_out = first.map(|tx| absent(node, std::slice::from_ref(tx), &confirmed)).transpose()?;
        if is_out.is_none_or(|absent| !absent.is_empty()) {
            give_up(wallet, &job, "taken back before anything was sent")?;
            // Somebody may have paid to its envelope all the same.
            (job, is_freed) = (load(wallet, id)?, true);
        } else if job.state == JobState::Planned {
            return refuse(
                "whoever signed it has sent it; `sortie finish` what was signed, or wait for a block".into(),
            );
        }
    }
    let swept = match job.key_index {
        Some(key_index) => sweep(wallet, node, &job, key_index, rate, caps),
        None => {
            let hint = if job.state.is_unfinished() { "; bump it, or let it confirm" } else { "" };
            refuse(format!("it is {}, and an OP_RETURN publication locks no coins{hint}", job.state))
        }
    };
    let Err(PublishError::NotReclaimable { .. }) = swept else { return swept };
    match job.state {
        _ if is_freed => {}
        JobState::Planned => give_up(wallet, &job, "taken back before it was paid for")?,
        _ if job.state.is_unfinished() && is_lost(wallet, &job) => give_up(wallet, &job, SPENT_OTHERWISE)?,
        _ => return swept,
    }
    Ok(Reclaimed::Freed)
}

/// Sweeps what an envelope holds back by key, or raises a sweep that waits.
fn sweep(
    wallet: &mut Wallet,
    node: &impl Mempool,
    job: &Job,
    key_index: u32,
    rate: FeeRate,
    caps: &Caps,
) -> Result<Reclaimed, PublishError> {
    let id = job.id;
    let refuse = |why: String| Err(PublishError::NotReclaimable { job: id, why });
    // What was given up is taken back as if it never had been, should somebody have sent it all the same.
    let is_late = !job.state.is_unfinished() && !matches!(job.state, JobState::Abandoned(_));
    let confirmed = wallet.confirmed();
    let (inputs, spent): (Vec<OutPoint>, Vec<TxOut>) = sweepable(wallet, node, job, rate)?.into_iter().unzip();
    if inputs.is_empty() {
        let hint = if is_late { "; what was paid after it was final is found by `sortie recover`" } else { "" };
        return refuse(format!(
            "it is {}, and its envelope holds nothing that is worth its fee at this rate{hint}",
            job.state
        ));
    }
    let relay = fees::relay(node)?;
    fees::check_floor(rate, relay.floor)?;
    let mut tx = draft(wallet, job, inputs);
    let (size, dust) = (vsize(&tx), tx.output[0].value);
    let parents: Vec<Transaction> = job.commit_of(&tx).into_iter().cloned().collect();
    let wanted = Ancestors::of(wallet, node, &confirmed, &parents, &tx)?.fee_with(rate, size);
    let sweeps: Vec<Transaction> = match is_late {
        true => wallet.unsettled_sweeps(job, &confirmed).cloned().collect(),
        false => job.reclaims.clone(),
    };
    if let Some(standing) = sweeps.last().filter(|standing| inputs_of(standing) == inputs_of(&tx))
        && let Some(fee) = fee_of(standing, &spent).filter(|fee| *fee >= wanted)
    {
        let (txid, amount) = (standing.compute_txid(), total(spent.iter().map(|output| output.value)) - fee);
        advance(wallet, node, job)?;
        return Ok(Reclaimed::Sweeping { txid, fee, amount });
    }

    // What hangs on a transaction is lost when that is replaced.
    let first_output = |tx: &Transaction| OutPoint::new(tx.compute_txid(), 0);
    let change = job.current().filter(|_| !is_late && job.state != JobState::Reclaiming).and_then(|now| now.change);
    let child = job.current().and_then(Generation::child).map(Transaction::compute_txid);
    let spenders = sweeps.iter().map(first_output).chain(change).filter_map(|output| wallet.spender(output));
    if let Some(spender) = spenders.into_iter().find(|spender| Some(*spender) != child) {
        let owner = job_of(wallet, spender)?.map_or(format!("transaction {spender}"), |id| format!("job {id}"));
        return refuse(format!("{owner} is paid from its change, and would be lost with it"));
    }
    let reveals = job.generations.iter().flat_map(|generation| &generation.transactions[generation.carrying..]);
    let rivals: Vec<&Transaction> = reveals.filter(|_| !is_late).chain(&sweeps).collect();
    let mut replaced = Amount::ZERO;
    for rival in rivals.iter().filter(|rival| !inputs_of(rival).is_disjoint(&inputs_of(&tx))) {
        let entry = node.entry(&rival.compute_txid())?;
        replaced += entry.map_or(Amount::ZERO, |entry| entry.descendants_fee);
    }
    let least = if replaced > Amount::ZERO { replaced + fee_for(relay.incremental, size) } else { replaced };
    let fee = wanted.max(least);
    caps.check(fee, size)?;
    let available = total(spent.iter().map(|output| output.value));
    let Some(amount) = available.checked_sub(fee).filter(|amount| *amount >= dust) else {
        return refuse(format!(
            "its envelope holds {} sat, and taking them back costs {} sat at this rate, so that less than {} sat, the least that can be paid, would come back",
            available.to_sat(),
            fee.to_sat(),
            dust.to_sat()
        ));
    };
    tx.output[0].value = amount;
    sign_by_key(wallet, &mut tx, &spent, key_index, job.merkle_root)?;

    let package = absent(node, &[parents, vec![tx.clone()]].concat(), &confirmed)?;
    if let Some((txid, reason)) = objection(wallet, node, &package)? {
        return Err(PublishError::Stuck { job: id, txid, reason });
    }
    wallet.forget(&rivals.iter().map(|tx| tx.compute_txid()).collect::<Vec<_>>());
    wallet.note(std::slice::from_ref(&tx));
    let (txid, transactions) = (tx.compute_txid(), vec![tx]);
    wallet.record(id, &[if is_late { Event::Swept { transactions } } else { Event::Reclaiming { transactions } }])?;
    let job = load(wallet, id)?;
    advance(wallet, node, &job)?;
    Ok(Reclaimed::Sweeping { txid, fee, amount })
}

/// A sweep of final size, which takes back the least that is relayed.
fn draft(wallet: &Wallet, job: &Job, inputs: Vec<OutPoint>) -> Transaction {
    let script_pubkey = refund(wallet, job);
    let output = TxOut { value: script_pubkey.minimal_non_dust(), script_pubkey };
    transaction(inputs.into_iter().map(key_spend).collect(), vec![output])
}
