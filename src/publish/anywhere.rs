//! An envelope that anybody pays: its address is shown, and whoever pays it funds the reveal.
//!
//! Guarantees: the job, with its key, is in the journal before the address is shown; every payment to the
//! address is spent by the reveal or can be swept back; what the reveal does not cost goes to the refund
//! address. A payment in the mempool counts like one in the chain.

use super::plan::{Envelope, check_weight};
use super::send::{highest_rate, push, refusal};
use super::spend::{Ancestors, sign_reveal};
use super::{CarrierChoice, Outcome, PublishError, check_length, fees, load};
use crate::chain::Mempool;
use crate::envelope::Carrier;
use crate::primitives::sha256;
use crate::wallet::journal::{self, NewJob};
use crate::wallet::{
    Caps, Event, Generation, Job, JobId, JobState, Payer, SIGNATURE_LEN, Wallet, fee_for, key_spend, transaction,
    unix_now, vsize,
};
use bitcoin::{Address, Amount, FeeRate, OutPoint, ScriptBuf, TapNodeHash, Transaction, TxOut, Txid};
use std::collections::BTreeSet;

/// What an envelope's address has received, and what its reveal needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// What was paid so far.
    pub received: Amount,
    /// What is still missing, if it comes in one more payment.
    pub missing: Amount,
}

/// Plans a publication that others pay for, or finds the one that this payload has; writes it down.
///
/// # Errors
/// [`PublishError::FeeCap`] if the reveal alone would cost more than the caps allow.
pub fn ask(
    wallet: &mut Wallet,
    node: &impl Mempool,
    payload: &[u8],
    rate: FeeRate,
    caps: &Caps,
    refund: &Address,
) -> Result<Job, PublishError> {
    if let Some(job) = journal::of_payload(wallet.db(), sha256(payload))? {
        return Ok(job);
    }
    check_length(payload)?;
    fees::check_floor(rate, node.relay()?.floor)?;
    let key_index = wallet.next_key_index()?;
    let envelope = Envelope::of(wallet, payload, key_index)?;
    let refund = refund.script_pubkey();
    let reveal = draft(&envelope, &[OutPoint::null()], &refund)?;
    check_weight(&reveal)
        .map_err(|why| PublishError::NotRelayed { asked: CarrierChoice::Only(Carrier::Taproot), why })?;
    caps.check(fee_for(rate, vsize(&reveal)), vsize(&reveal))?;
    let job = NewJob {
        payer: Payer::Anywhere,
        carrier: Carrier::Taproot,
        payload: payload.to_vec(),
        payload_hash: sha256(payload),
        key_index: Some(key_index),
        merkle_root: envelope.tree.merkle_root(),
        asked: Some(fee_for(rate, vsize(&reveal)) + refund.minimal_non_dust()),
        refund: Some(refund),
        fee_rate: rate,
        caps: *caps,
    };
    let events = [Event::Planned { draft: None }];
    let id = wallet.save_with(|db| journal::begin(db, &job, &events, unix_now()))?;
    load(wallet, id)
}

/// Writes down an envelope that this journal does not know, by its key and script tree.
pub(super) fn adopt(
    wallet: &mut Wallet,
    payload: &[u8],
    key_index: u32,
    merkle_root: Option<TapNodeHash>,
    rate: FeeRate,
    caps: &Caps,
) -> Result<Job, PublishError> {
    let job = NewJob {
        payer: Payer::Anywhere,
        carrier: Carrier::Taproot,
        payload: payload.to_vec(),
        payload_hash: sha256(payload),
        key_index: Some(key_index),
        merkle_root,
        refund: None,
        asked: None,
        fee_rate: rate,
        caps: *caps,
    };
    let id = wallet.save_with(|db| journal::begin(db, &job, &[Event::Planned { draft: None }], unix_now()))?;
    load(wallet, id)
}

/// The address that is to be paid.
pub fn address(wallet: &Wallet, job: &Job) -> Result<Address, PublishError> {
    let script = wallet.envelope_script(job)?.ok_or(PublishError::Broken("an envelope without an address"))?;
    Address::from_script(&script, wallet.network()).map_err(|_| PublishError::Broken("a script without an address"))
}

/// What has been paid to it. Sync the wallet first.
pub fn payment(wallet: &Wallet, job: &Job) -> Result<Payment, PublishError> {
    let paid = unspent(wallet, job)?;
    let received = paid.iter().map(|(_, output)| output.value).sum();
    let missing = match needed(wallet, job, paid.len().max(1))? > received {
        false => Amount::ZERO,
        true => {
            let inputs = paid.len() + 1;
            needed(wallet, job, inputs)?.checked_sub(received).unwrap_or(Amount::ZERO)
        }
    };
    Ok(Payment { received, missing })
}

/// Whether the job is to be signed, again or for the first time, before it can go on.
///
/// Again if whoever paid has replaced the payment by another to the same address ("speed up"): the reveal
/// that spends the first is lost with it. Only where no two of the reveals can ever be mined.
pub fn is_unsigned(wallet: &Wallet, job: &Job) -> Result<bool, PublishError> {
    let has_left = match job.state {
        JobState::Planned => return Ok(job.payer == Payer::Anywhere),
        JobState::Signed | JobState::CommitSent | JobState::RevealSent => job.payer == Payer::Anywhere,
        _ => false,
    };
    let Some(reveal) = job.current().and_then(Generation::carrier_tx).filter(|_| has_left) else { return Ok(false) };
    let paid: BTreeSet<Txid> = unspent(wallet, job)?.into_iter().map(|(outpoint, _)| outpoint.txid).collect();
    let confirmed = wallet.confirmed();
    let mut lost = reveal.input.iter().map(|input| input.previous_output.txid).filter(|txid| !wallet.is_current(txid));
    let is_certain = |txid: &Txid| paid.contains(txid) || confirmed.contains_key(txid);
    Ok(lost.any(|txid| wallet.conflicts(&txid).iter().any(is_certain)))
}

/// Reveals an envelope that has been paid for. Sync the wallet first.
///
/// # Errors
/// [`PublishError::Unpaid`] if too little has arrived; it may be called again.
pub fn reveal(wallet: &mut Wallet, node: &impl Mempool, id: JobId) -> Result<Job, PublishError> {
    let job = load(wallet, id)?;
    if !is_unsigned(wallet, &job)? {
        return super::broadcast(wallet, node, id);
    }
    let Payment { received, missing } = payment(wallet, &job)?;
    if missing > Amount::ZERO {
        return Err(PublishError::Unpaid { job: id, received, missing });
    }
    let key_index = job.key_index.ok_or(PublishError::Broken("an envelope without a key"))?;
    let envelope = Envelope::of(wallet, &job.payload, key_index)?;
    if envelope.tree.merkle_root() != job.merkle_root {
        return Err(PublishError::NothingToRecover(format!("the payload of job {id} is not known; reclaim it")));
    }
    let (inputs, spent): (Vec<OutPoint>, Vec<TxOut>) = unspent(wallet, &job)?.into_iter().unzip();
    let refund = refund(wallet, &job);
    let mut tx = draft(&envelope, &inputs, &refund)?;
    let size = vsize(&tx);
    let ancestors = Ancestors::of(wallet, node, &wallet.confirmed(), &[], &tx)?;
    // A payment that itself pays too little is helped along, as far as what was overpaid suffices.
    let least = fee_for(job.fee_rate, size);
    let most = received.checked_sub(refund.minimal_non_dust()).unwrap_or(least);
    let fee = ancestors.fee_with(job.fee_rate, size).min(most).max(least);
    job.caps.check(fee, size)?;
    tx.output.iter_mut().for_each(|output| output.value = received - fee);
    sign_reveal(wallet, &mut tx, &spent, &job.payload, key_index)?;
    if vsize(&tx) != size {
        return Err(PublishError::Broken("a signed transaction is not the planned one"));
    }
    let transactions = vec![tx];
    let limit = highest_rate(wallet, &transactions);
    if let Some((txid, reason)) = refusal(node.test_accept(&transactions, limit)?) {
        return Err(PublishError::Stuck { job: id, txid, reason });
    }
    let change = Some(OutPoint::new(transactions[0].compute_txid(), 0));
    wallet.note(&transactions);
    let generation = Generation { transactions, carrying: 0, spent, fee, vsize: size, change };
    wallet.record(id, &[Event::Signed { generation }])?;
    let job = load(wallet, id)?;
    match push(wallet, node, &job)? {
        Outcome::Refused { txid, reason } => Err(PublishError::Stuck { job: id, txid, reason }),
        _ => load(wallet, id),
    }
}

/// What was paid to the envelope and not spent, as far as the wallet knows.
pub(super) fn unspent(wallet: &Wallet, job: &Job) -> Result<Vec<(OutPoint, TxOut)>, PublishError> {
    let mut paid = Vec::new();
    for outpoint in wallet.locked(job)? {
        let exists = wallet.output(&outpoint).filter(|_| wallet.is_current(&outpoint.txid));
        paid.extend(exists.filter(|_| wallet.spender(outpoint).is_none()).map(|output| (outpoint, output)));
    }
    Ok(paid)
}

fn refund(wallet: &Wallet, job: &Job) -> ScriptBuf {
    job.refund.clone().unwrap_or_else(|| wallet.next_change())
}

/// The least that `inputs` payments must add up to.
fn needed(wallet: &Wallet, job: &Job, inputs: usize) -> Result<Amount, PublishError> {
    let key_index = job.key_index.ok_or(PublishError::Broken("an envelope without a key"))?;
    let envelope = Envelope::of(wallet, &job.payload, key_index)?;
    let refund = refund(wallet, job);
    let reveal = draft(&envelope, &vec![OutPoint::null(); inputs], &refund)?;
    Ok(fee_for(job.fee_rate, vsize(&reveal)) + refund.minimal_non_dust())
}

/// A reveal of final size: the first input by its leaf, the others by key.
fn draft(envelope: &Envelope, inputs: &[OutPoint], refund: &ScriptBuf) -> Result<Transaction, PublishError> {
    let mut inputs: Vec<_> = inputs.iter().copied().map(key_spend).collect();
    if let Some(first) = inputs.first_mut() {
        first.witness = envelope.witness(&[0; SIGNATURE_LEN])?;
    }
    let output = TxOut { value: refund.minimal_non_dust(), script_pubkey: refund.clone() };
    Ok(transaction(inputs, vec![output]))
}
