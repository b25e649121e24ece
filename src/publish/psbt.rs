//! A publication that another signer pays for, out of this wallet's coins: a PSBT out, and signed in again.
//!
//! Guarantees: what is to be signed is in the journal, and its coins are reserved, before the PSBT is given
//! away; a PSBT that comes back is taken for its signatures only, each of which is checked, and only if it
//! is the transaction that was given away. The reveal is signed here, before that.

use super::{Publication, PublishError, Request, begin, load, plan_for, send};
use crate::chain::Mempool;
use crate::primitives::sha256;
use crate::wallet::{BadSignature, Event, Job, JobState, Payer, Wallet, check_witness, journal, witness};
use bdk_wallet::miniscript::psbt::PsbtExt;
use bitcoin::psbt::Psbt;
use bitcoin::{Transaction, TxOut, Witness};

/// Plans a publication and makes the PSBT of the transaction that spends the wallet's coins (BIP 174, BIP 371).
///
/// A payload that has such a job already gets the same PSBT again.
pub fn draft(
    wallet: &mut Wallet,
    node: &impl Mempool,
    payload: &[u8],
    request: &Request,
) -> Result<(Job, Psbt), PublishError> {
    if let Some(job) = journal::of_payload(wallet.db(), sha256(payload))?.filter(|_| !request.again) {
        let psbt = psbt(wallet, &job)?;
        return Ok((job, psbt));
    }
    let (terms, mut draft) = plan_for(Payer::Psbt, wallet, node, payload, request)?;
    // The placeholders go: segregated witnesses change no txid.
    draft.transactions[0].input.iter_mut().for_each(|input| input.witness = Witness::new());
    let job = begin(wallet, &terms, &[Event::Planned { draft: Some(draft) }])?;
    let psbt = psbt(wallet, &job)?;
    Ok((job, psbt))
}

/// Takes the signatures of a PSBT that [`draft`] gave away, writes them down and publishes. Of several jobs with the
/// same transaction it is for the one that waits for it, else for the last.
///
/// # Errors
/// [`PublishError::ForeignPsbt`] if it is another transaction, or that of a job that was given up, or a signature is
/// missing or wrong.
pub fn finish(wallet: &mut Wallet, node: &impl Mempool, signed: &Psbt) -> Result<Publication, PublishError> {
    let txid = signed.unsigned_tx.compute_txid();
    let is_it = |job: &Job| job.payer == Payer::Psbt && job.txids().first() == Some(&txid);
    let job =
        journal::all(wallet.db())?.into_iter().filter(is_it).max_by_key(|job| (job.state == JobState::Planned, job.id));
    let job = job.ok_or_else(|| PublishError::ForeignPsbt("no job of this wallet waits for it".into()))?;
    if !job.state.is_publishing() {
        return Err(PublishError::ForeignPsbt(format!("its job {} is {}; plan it anew", job.id, job.state)));
    }
    if job.state != JobState::Planned {
        let job = super::broadcast(wallet, node, job.id)?;
        return Publication::new(&job, true);
    }
    let draft = job.draft.as_ref().ok_or(PublishError::Broken("a PSBT's job without its transaction"))?;
    let mut tx = draft.transactions[0].clone();
    let witnesses = witnesses(wallet, &tx, signed)?;
    for (input, witness) in tx.input.iter_mut().zip(witnesses) {
        input.witness = witness;
    }
    let generation = draft.signed(tx);
    wallet.note(&generation.transactions);
    wallet.record(job.id, &[Event::Signed { generation }])?;
    let job = load(wallet, job.id)?;
    send::first(wallet, node, &job)?;
    Publication::new(&load(wallet, job.id)?, false)
}

/// What of a job is to be signed, once more.
///
/// # Errors
/// [`PublishError::AlreadyForced`] or [`PublishError::WaitsForPayment`], if nothing is.
pub fn psbt(wallet: &Wallet, job: &Job) -> Result<Psbt, PublishError> {
    if job.payer == Payer::Anywhere && job.state == JobState::Planned {
        return Err(PublishError::WaitsForPayment(job.id));
    }
    let draft = job.draft.as_ref().filter(|_| job.state == JobState::Planned);
    let tx = draft.and_then(|draft| draft.transactions.first());
    let tx = tx.ok_or_else(|| PublishError::AlreadyForced { job: job.id, state: job.state.clone() })?;
    let mut psbt = Psbt::from_unsigned_tx(tx.clone())
        .map_err(|_| PublishError::Broken("the transaction to be signed has signatures"))?;
    for (n, (input, output)) in tx.input.iter().zip(spent(wallet, tx)?).enumerate() {
        let descriptor = wallet.descriptor_of(&output.script_pubkey);
        let descriptor = descriptor.ok_or(PublishError::Broken("a coin that is not the wallet's"))?;
        // Signers of version 0 want to see for themselves what the coin holds.
        let whole = wallet.transaction(input.previous_output.txid).filter(|_| !output.script_pubkey.is_p2tr());
        psbt.inputs[n].non_witness_utxo = whole.map(|tx| tx.as_ref().clone());
        psbt.inputs[n].witness_utxo = Some(output);
        psbt.update_input_with_descriptor(n, &descriptor)
            .map_err(|_| PublishError::Broken("a coin without its descriptor"))?;
    }
    for (n, output) in tx.output.iter().enumerate() {
        if let Some(descriptor) = wallet.descriptor_of(&output.script_pubkey) {
            psbt.update_output_with_descriptor(n, &descriptor)
                .map_err(|_| PublishError::Broken("change without its descriptor"))?;
        }
    }
    Ok(psbt)
}

fn spent(wallet: &Wallet, tx: &Transaction) -> Result<Vec<TxOut>, PublishError> {
    let output = |input: &bitcoin::TxIn| wallet.output(&input.previous_output);
    let outputs: Option<Vec<TxOut>> = tx.input.iter().map(output).collect();
    outputs.ok_or(PublishError::Broken("a coin that the wallet does not know"))
}

/// What spends each input of `tx`, out of what the signers of a PSBT put there, checked.
fn witnesses(wallet: &Wallet, tx: &Transaction, signed: &Psbt) -> Result<Vec<Witness>, PublishError> {
    let spent = spent(wallet, tx)?;
    let taken = |(n, output): (usize, &TxOut)| -> Result<Witness, PublishError> {
        let foreign = |bad: BadSignature| PublishError::ForeignPsbt(format!("input {n}: {bad}"));
        let descriptor = wallet.descriptor_of(&output.script_pubkey);
        let descriptor = descriptor.ok_or(PublishError::Broken("a coin that is not the wallet's"))?;
        let witness = witness(&descriptor, signed, n).map_err(foreign)?;
        check_witness(wallet.secp(), tx, n, &spent, &witness).map_err(foreign)?;
        Ok(witness)
    };
    spent.iter().enumerate().map(taken).collect()
}
