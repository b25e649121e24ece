//! An envelope's coins back by key, without the payload.

use super::anywhere::{refund, sweepable};
use super::bump::job_of;
use super::send::{absent, give_up, highest_rate, push, push_sweeps, refusal};
use super::spend::{Ancestors, sign_by_key, to_replace};
use super::{Outcome, PublishError, fees, load};
use crate::chain::Mempool;
use crate::wallet::{
    Caps, Event, Job, JobId, JobState, Payer, Shortfall, Wallet, fee_for, inputs_of, key_spend, transaction, vsize,
};
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, TxOut, Txid};

/// What came of taking a publication back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reclaimed {
    /// Nothing of it had left: its coins are free.
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
/// Replaces a reveal or an earlier sweep that is in the mempool, by paying more than it did.
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
    let mut job = load(wallet, id)?;
    let refuse = |why: String| Err(PublishError::NotReclaimable { job: id, why });
    // What was given up is taken back as if it never had been, should somebody have sent it all the same.
    if !job.state.is_unfinished() && !matches!(job.state, JobState::Abandoned(_)) {
        return sweep_late(wallet, node, &job, rate, caps);
    }
    let confirmed = wallet.confirmed();
    if matches!(job.state, JobState::Planned | JobState::Signed) && job.payer != Payer::Anywhere {
        // We have sent nothing of it; whoever signed it may have.
        let first = job.current().and_then(|current| current.transactions.first());
        let is_out = first.map(|tx| absent(node, std::slice::from_ref(tx), &confirmed)).transpose()?;
        if is_out.is_none_or(|absent| !absent.is_empty()) {
            give_up(wallet, &job, "taken back before anything was sent")?;
            job = load(wallet, id)?;
            // Somebody may have paid to its envelope all the same.
            if sweepable(wallet, node, &job, rate)?.is_empty() {
                return Ok(Reclaimed::Freed);
            }
        } else if job.state == JobState::Planned {
            return refuse(
                "whoever signed it has sent it; `sortie finish` what was signed, or wait for a block".into(),
            );
        }
    }
    let Some(key_index) = job.key_index else {
        let hint = if job.state.is_unfinished() { "; bump it, or let it confirm" } else { "" };
        return refuse(format!("it is {}, and an OP_RETURN publication locks no coins{hint}", job.state));
    };
    let (inputs, spent): (Vec<OutPoint>, Vec<TxOut>) = sweepable(wallet, node, &job, rate)?.into_iter().unzip();
    if inputs.is_empty() {
        return refuse(format!(
            "it is {}, and its envelope holds nothing that is worth its fee at this rate",
            job.state
        ));
    }
    let change = job.current().filter(|_| job.state != JobState::Reclaiming).and_then(|current| current.change);
    let child = job.current().and_then(|current| current.child()).map(Transaction::compute_txid);
    if let Some(spender) = change.and_then(|change| wallet.spender(change)).filter(|spender| Some(*spender) != child) {
        let owner = job_of(wallet, spender)?.map_or(format!("transaction {spender}"), |id| format!("job {id}"));
        return refuse(format!("{owner} is paid from its change, and would be lost with it"));
    }
    let relay = node.relay()?;
    fees::check_floor(rate, relay.floor)?;

    let tx = draft(wallet, &job, inputs);
    let size = vsize(&tx);
    let parents: Vec<Transaction> = job.commit_of(&tx).cloned().into_iter().collect();
    let wanted = Ancestors::of(wallet, node, &confirmed, &parents, &tx)?.fee_with(rate, size);
    if let Some(paid) = sweeping(job.reclaims.last(), &tx, &spent).filter(|swept| swept.fee >= wanted) {
        return sent(push(wallet, node, &job)?, &job, paid);
    }
    let replaced = to_replace(node, &job)?;
    let least = replaced.map_or(Amount::ZERO, |(_, fee)| fee + fee_for(relay.incremental, size));
    let (tx, sweep) = signed(wallet, &job, key_index, tx, &spent, wanted.max(least), caps)?;

    let package = [parents, vec![tx.clone()]].concat();
    let package = absent(node, &package, &confirmed)?;
    let limit = highest_rate(wallet, &package);
    if let Some((txid, reason)) = refusal(node.test_accept(&package, limit)?) {
        return Err(PublishError::Stuck { job: id, txid, reason });
    }
    let signed: Vec<Txid> =
        job.generations.iter().filter_map(|g| g.carrier_tx()).map(Transaction::compute_txid).collect();
    wallet.forget(&signed);
    wallet.forget(&job.reclaims.iter().map(Transaction::compute_txid).collect::<Vec<_>>());
    wallet.note(std::slice::from_ref(&tx));
    wallet.record(id, &[Event::Reclaiming { transactions: vec![tx] }])?;
    let job = load(wallet, id)?;
    sent(push(wallet, node, &job)?, &job, sweep)
}

/// Sweeps back what was paid to an envelope's address too late to be revealed, or to be taken back with the rest; or
/// raises such a sweep.
fn sweep_late(
    wallet: &mut Wallet,
    node: &impl Mempool,
    job: &Job,
    rate: FeeRate,
    caps: &Caps,
) -> Result<Reclaimed, PublishError> {
    let id = job.id;
    let refuse = |why: String| Err(PublishError::NotReclaimable { job: id, why });
    let Some(key_index) = job.key_index else {
        return refuse(format!("it is {}, and an OP_RETURN publication locks no coins", job.state));
    };
    let confirmed = wallet.confirmed();
    let standing: Vec<Transaction> = wallet.unsettled_sweeps(job, &confirmed).cloned().collect();
    let (inputs, spent): (Vec<OutPoint>, Vec<TxOut>) = sweepable(wallet, node, job, rate)?.into_iter().unzip();
    if inputs.is_empty() {
        let hint = "what was paid after it was final is found by `sortie recover`";
        let why = "and nothing else is at its address that is worth its fee at this rate";
        return refuse(format!("it is {}, {why}; {hint}", job.state));
    }
    let relay = node.relay()?;
    fees::check_floor(rate, relay.floor)?;
    let tx = draft(wallet, job, inputs);
    let size = vsize(&tx);
    let wanted = Ancestors::of(wallet, node, &confirmed, &[], &tx)?.fee_with(rate, size);
    if let Some(paid) = sweeping(standing.last(), &tx, &spent).filter(|swept| swept.fee >= wanted) {
        return sent(push_sweeps(wallet, node, job)?, job, paid);
    }
    let mut replaced = Amount::ZERO;
    for sweep in &standing {
        let entry = node.entry(&sweep.compute_txid())?;
        replaced += entry.map_or(Amount::ZERO, |entry| entry.descendants_fee);
    }
    let least = if replaced > Amount::ZERO { replaced + fee_for(relay.incremental, size) } else { replaced };
    let (tx, sweep) = signed(wallet, job, key_index, tx, &spent, wanted.max(least), caps)?;
    let transactions = vec![tx];
    if let Some((txid, reason)) = refusal(node.test_accept(&transactions, highest_rate(wallet, &transactions))?) {
        return Err(PublishError::Stuck { job: id, txid, reason });
    }
    wallet.forget(&standing.iter().map(Transaction::compute_txid).collect::<Vec<_>>());
    wallet.note(&transactions);
    wallet.record(id, &[Event::Swept { transactions }])?;
    let job = load(wallet, id)?;
    sent(push_sweeps(wallet, node, &job)?, &job, sweep)
}

#[derive(Clone, Copy)]
struct Sweep {
    txid: Txid,
    fee: Amount,
    amount: Amount,
}

/// A sweep of final size, which takes back the least that is relayed.
fn draft(wallet: &Wallet, job: &Job, inputs: Vec<OutPoint>) -> Transaction {
    let script_pubkey = refund(wallet, job);
    let output = TxOut { value: script_pubkey.minimal_non_dust(), script_pubkey };
    transaction(inputs.into_iter().map(key_spend).collect(), vec![output])
}

/// Checks the caps, then signs a draft whose inputs hold `spent` and that is to pay `fee`.
fn signed(
    wallet: &Wallet,
    job: &Job,
    key_index: u32,
    mut tx: Transaction,
    spent: &[TxOut],
    fee: Amount,
    caps: &Caps,
) -> Result<(Transaction, Sweep), PublishError> {
    caps.check(fee, vsize(&tx))?;
    let available: Amount = spent.iter().map(|output| output.value).sum();
    let least = tx.output[0].value;
    let amount = available.checked_sub(fee).filter(|amount| *amount >= least);
    let amount = amount.ok_or(Shortfall { needed: fee + least, available })?;
    tx.output[0].value = amount;
    sign_by_key(wallet, &mut tx, spent, key_index, job.merkle_root)?;
    let sweep = Sweep { txid: tx.compute_txid(), fee, amount };
    Ok((tx, sweep))
}

/// What a signed sweep pays, if it takes back just what `wanted` does, whose inputs hold `spent`.
fn sweeping(tx: Option<&Transaction>, wanted: &Transaction, spent: &[TxOut]) -> Option<Sweep> {
    let tx = tx.filter(|tx| inputs_of(tx) == inputs_of(wanted))?;
    let amount: Amount = tx.output.iter().map(|output| output.value).sum();
    let available: Amount = spent.iter().map(|output| output.value).sum();
    Some(Sweep { txid: tx.compute_txid(), fee: available.checked_sub(amount)?, amount })
}

fn sent(outcome: Outcome, job: &Job, sweep: Sweep) -> Result<Reclaimed, PublishError> {
    let Sweep { txid, fee, amount } = sweep;
    match outcome {
        Outcome::Refused { txid, reason } => Err(PublishError::Stuck { job: job.id, txid, reason }),
        _ => Ok(Reclaimed::Sweeping { txid, fee, amount }),
    }
}
