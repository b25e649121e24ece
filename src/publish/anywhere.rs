//! An envelope that anybody pays: its address is shown, and whoever pays it funds the reveal.
//!
//! Guarantees: the job, with its key, is in the journal before the address is shown; every payment to the
//! address that is worth its input is spent by the reveal or can be swept back; what the reveal does not cost
//! goes to the refund address; a reveal is signed anew only if it and those before it can never both be mined.
//! A payment in the mempool counts like one in the chain, as long as it is there.

use super::plan::{Envelope, MAX_STANDARD_WEIGHT, check_weight};
use super::send::objection;
use super::spend::{Ancestors, sign_reveal};
use super::{CarrierChoice, PublishError, begin, check_length, fees, instead_of, load};
use crate::chain::Mempool;
use crate::envelope::Carrier;
use crate::primitives::sha256;
use crate::wallet::{
    Amendment, Caps, Event, Generation, Job, JobId, JobState, JobTerms, Paid, Payer, SIGNATURE_LEN, Wallet, fee_for,
    journal, key_spend, total, transaction, vsize,
};
use bitcoin::{Address, Amount, FeeRate, OutPoint, ScriptBuf, TapNodeHash, Transaction, TxOut, Txid, VarInt, Weight};
use std::cmp::Reverse;

/// The most that a reveal pays, in multiples of what it costs alone: the rest helps payments that pay too little.
const HELPED: u64 = 3;
/// Unconfirmed payments that are spent together, the largest first: they hang together in the mempool then.
const MOST_UNCONFIRMED: usize = 16;

/// What an envelope's address has received, and what its reveal needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// What was paid so far, of what is there and worth its input.
    pub received: Amount,
    /// What is still missing, if it comes in one more payment.
    pub missing: Amount,
}

/// Plans a publication that others pay for, or finds the one that this payload has; writes it down. With `again` it
/// plans another one.
///
/// # Errors
/// [`PublishError::FeeCap`] if the reveal alone would cost more than the caps allow,
/// [`PublishError::WaitsForSignatures`] or [`PublishError::AlreadyForced`] if this wallet pays for that payload.
pub fn ask(
    wallet: &mut Wallet,
    node: &impl Mempool,
    payload: &[u8],
    rate: FeeRate,
    caps: &Caps,
    refund: &Address,
    again: bool,
) -> Result<Job, PublishError> {
    match journal::of_payload(wallet.db(), sha256(payload))?.filter(|_| !again) {
        Some(job) if job.payer == Payer::Anywhere => return Ok(job),
        Some(job) if job.state == JobState::Planned => return Err(PublishError::WaitsForSignatures(job.id)),
        Some(job) => return Err(PublishError::AlreadyForced { job: job.id, state: job.state }),
        None => {}
    }
    check_length(payload)?;
    // Nothing ties what others pay to the coins of one that was taken back.
    if !again
        && instead_of(wallet, payload)?.is_some()
        && let Some(job) = journal::given_up(wallet.db(), sha256(payload))?.pop()
    {
        return Err(PublishError::MayComeBack { job: job.id, state: job.state });
    }
    fees::check_floor(rate, fees::relay(node)?.floor)?;
    let envelope = Envelope::of(wallet, payload, wallet.next_key_index()?)?;
    let refund = refund.script_pubkey();
    let terms = JobTerms {
        key_index: Some(envelope.key_index),
        merkle_root: envelope.merkle_root(),
        asked: Some(asked(&envelope, rate, caps, &refund)?),
        refund: Some(refund),
        ..JobTerms::new(Payer::Anywhere, Carrier::Taproot, payload, rate, *caps)
    };
    begin(wallet, &terms, &[Event::Planned { draft: None }])
}

/// What an envelope's address is to be paid in one payment.
fn asked(envelope: &Envelope, rate: FeeRate, caps: &Caps, refund: &ScriptBuf) -> Result<Amount, PublishError> {
    let reveal = draft(envelope, &[OutPoint::null()], refund)?;
    check_weight(&reveal)
        .map_err(|why| PublishError::NotRelayed { asked: CarrierChoice::Only(Carrier::Taproot), why })?;
    let fee = fee_for(rate, vsize(&reveal));
    caps.check(fee, vsize(&reveal))?;
    Ok(fee + refund.minimal_non_dust())
}

/// Settles anew what others are to pay for and where the rest goes, as far as it is not so already. Once it is signed,
/// only the caps can be changed; its rate is, by [`bump`](super::bump).
///
/// # Errors
/// [`PublishError::RefundSettled`]; [`PublishError::FeeCap`] as [`ask`]: then nothing is changed.
pub fn amend(wallet: &mut Wallet, job: Job, wanted: Amendment) -> Result<Job, PublishError> {
    let mut news = wanted.news(&job);
    if job.state != JobState::Planned {
        if let (Some(_), Some(refund)) = (&news.refund, &job.refund) {
            let refund = Address::from_script(refund, wallet.network());
            let refund = refund.map_err(|_| PublishError::Broken("a refund without an address"))?;
            return Err(PublishError::RefundSettled { job: job.id, state: job.state, refund });
        }
        news = Amendment::of_caps(Caps { max_fee: news.max_fee, max_fee_rate: news.max_fee_rate });
    }
    if news == Amendment::default() || !job.state.is_unfinished() {
        return Ok(job);
    }
    let mut amended = job.terms.clone();
    amended.amend(news.clone());
    if let (JobState::Planned, Some(key_index), false) = (&job.state, job.key_index, amended.payload.is_empty()) {
        let envelope = Envelope::of(wallet, &amended.payload, key_index)?;
        let refund = amended.refund.clone().unwrap_or_else(|| wallet.next_change());
        news.asked = Some(asked(&envelope, amended.fee_rate, &amended.caps, &refund)?);
    }
    wallet.record(job.id, &[Event::Amended { amendment: news }])?;
    load(wallet, job.id)
}

/// The address that what is left of the payments goes to; `None` if that is the wallet's.
pub fn refund_address(wallet: &Wallet, job: &Job) -> Option<Address> {
    Address::from_script(job.refund.as_ref()?, wallet.network()).ok()
}

/// What has come to the envelope's address and is not spent in the chain, as far as the wallet knows; worth its input
/// or not.
pub fn received(wallet: &Wallet, job: &Job) -> Result<Amount, PublishError> {
    Ok(total(wallet.payments(job)?.into_iter().map(|payment| payment.output.value)))
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
    let terms = JobTerms {
        key_index: Some(key_index),
        merkle_root,
        ..JobTerms::new(Payer::Anywhere, Carrier::Taproot, payload, rate, *caps)
    };
    begin(wallet, &terms, &[Event::Planned { draft: None }])
}

/// The address that is to be paid.
pub fn address(wallet: &Wallet, job: &Job) -> Result<Address, PublishError> {
    let script = wallet.envelope_script(job)?.ok_or(PublishError::Broken("an envelope without an address"))?;
    Address::from_script(&script, wallet.network()).map_err(|_| PublishError::Broken("a script without an address"))
}

/// What has been paid to it, of what can be spent now or soon. Sync the wallet first.
pub fn payment(wallet: &Wallet, node: &impl Mempool, job: &Job) -> Result<Payment, PublishError> {
    let reveal = Reveal::of(wallet, job)?;
    Ok(reveal.payment(&reveal.chosen(wallet, node, job)?))
}

/// Whether the job is to be signed, again or for the first time, before it can go on.
///
/// Again if a payment that the reveal spends is there no more, because whoever paid has replaced it, or something
/// that it hung on. Only where no two of the reveals can ever be mined.
pub fn is_unsigned(wallet: &Wallet, node: &impl Mempool, job: &Job) -> Result<bool, PublishError> {
    let is_first = job.payer == Payer::Anywhere && job.state == JobState::Planned;
    Ok(is_first || unsigned(wallet, node, job)?.is_some())
}

/// A reveal that is to be signed, and the payments that it spends.
pub(super) struct Unsigned {
    reveal: Reveal,
    payments: Vec<Payable>,
}

/// What is to be signed of a job that [`is_unsigned`].
pub(super) fn unsigned(wallet: &Wallet, node: &impl Mempool, job: &Job) -> Result<Option<Unsigned>, PublishError> {
    let is_waiting =
        matches!(job.state, JobState::Planned | JobState::Signed | JobState::CommitSent | JobState::RevealSent);
    if job.payer != Payer::Anywhere || !is_waiting {
        return Ok(None);
    }
    let signed = job.current().and_then(Generation::carrier_tx);
    if signed.map(|reveal| stands(wallet, node, reveal)).transpose()? == Some(true) {
        return Ok(None);
    }
    let reveal = Reveal::of(wallet, job)?;
    let payments = reveal.chosen(wallet, node, job)?;
    Ok(is_exclusive(wallet, job, &payments).then_some(Unsigned { reveal, payments }))
}

/// Whether a reveal is in the mempool or the chain, or everything is there that it spends.
fn stands(wallet: &Wallet, node: &impl Mempool, reveal: &Transaction) -> Result<bool, PublishError> {
    let confirmed = wallet.confirmed();
    let is_there = |txid: &Txid| -> Result<bool, PublishError> {
        let is_mined = confirmed.contains_key(txid) || wallet.transaction(*txid).is_none();
        Ok(is_mined || node.is_waiting(txid)?)
    };
    if wallet.is_lost(reveal, &confirmed) {
        return Ok(false);
    }
    if is_there(&reveal.compute_txid())? {
        return Ok(true);
    }
    for input in &reveal.input {
        if !is_there(&input.previous_output.txid)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a reveal of these payments can never be mined in a chain that has one of those signed before.
fn is_exclusive(wallet: &Wallet, job: &Job, payments: &[Payable]) -> bool {
    let confirmed = wallet.confirmed();
    let spent: Vec<OutPoint> = payments.iter().map(|(outpoint, _)| *outpoint).collect();
    job.generations.iter().filter_map(Generation::carrier_tx).all(|tx| wallet.is_excluded(tx, &spent, &confirmed))
}

/// Reveals an envelope that has been paid for. Sync the wallet first.
///
/// # Errors
/// [`PublishError::Unpaid`] if too little has arrived; it may be called again.
pub fn reveal(wallet: &mut Wallet, node: &impl Mempool, id: JobId) -> Result<Job, PublishError> {
    super::broadcast(wallet, node, id)
}

/// Signs a reveal that the node would take, and writes it down.
///
/// # Errors
/// As [`reveal`].
pub(super) fn sign(
    wallet: &mut Wallet,
    node: &impl Mempool,
    job: &Job,
    Unsigned { reveal, payments }: Unsigned,
) -> Result<Job, PublishError> {
    let id = job.id;
    let Payment { received, missing } = reveal.payment(&payments);
    if missing > Amount::ZERO {
        return Err(PublishError::Unpaid { job: id, received, missing });
    }
    if reveal.envelope.merkle_root() != job.merkle_root {
        return Err(PublishError::NothingToRecover(format!("the payload of job {id} is not known; reclaim it")));
    }
    // Many small payments may hang on more than a mempool keeps together: then as few as suffice.
    let enough = (1..=payments.len()).find(|n| reveal.payment(&payments[..*n]).missing == Amount::ZERO);
    let fewest = &payments[..enough.unwrap_or(payments.len())];
    let mut refused = None;
    for payments in [payments.as_slice(), fewest] {
        if refused.is_some() && !is_exclusive(wallet, job, payments) {
            continue;
        }
        let generation = match reveal.signed(wallet, node, job, payments) {
            // A payment less is an input less.
            Err(PublishError::FeeCap(_)) if payments.len() > fewest.len() && is_exclusive(wallet, job, fewest) => {
                continue;
            }
            signed => signed?,
        };
        refused = objection(wallet, node, &generation.transactions)?;
        if refused.is_some() {
            continue;
        }
        wallet.note(&generation.transactions);
        wallet.record(id, &[Event::Signed { generation }])?;
        return load(wallet, id);
    }
    let (txid, reason) = refused.ok_or(PublishError::Broken("nothing was tested"))?;
    Err(PublishError::Stuck { job: id, txid, reason })
}

/// A payment that can be spent.
pub(super) type Payable = (OutPoint, TxOut);

/// What a sweep at `rate` takes back: what the envelope locks, less what is not there or not worth its input.
pub(super) fn sweepable(
    wallet: &Wallet,
    node: &impl Mempool,
    job: &Job,
    rate: FeeRate,
) -> Result<Vec<Payable>, PublishError> {
    if job.commit().is_some() {
        let confirmed = wallet.confirmed();
        let cost = fee_for(rate, key_spend(OutPoint::null()).segwit_weight().to_vbytes_ceil());
        let is_spent = |outpoint| wallet.spender(outpoint).is_some_and(|spender| confirmed.contains_key(&spender));
        let is_there = |txid: &Txid| wallet.is_current(txid) && wallet.is_mature(txid, confirmed.get(txid));
        let locked = wallet.locked(job)?.into_iter().filter(|outpoint| is_there(&outpoint.txid));
        return Ok(locked
            .filter(|outpoint| !is_spent(*outpoint))
            .filter_map(|outpoint| Some((outpoint, wallet.output(&outpoint)?)))
            .filter(|(_, output)| output.value > cost)
            .collect());
    }
    let mut payable = payable(wallet, node, job, rate)?.sound;
    let output = TxOut { value: Amount::ZERO, script_pubkey: refund(wallet, job) };
    payable.truncate(fitting(&transaction(vec![key_spend(OutPoint::null())], vec![output])));
    Ok(payable)
}

/// Payments that are there and worth more than their own input costs, in the order in which they are taken.
struct Payables {
    /// What the job's transactions spend already, so that they and whatever follows cannot both be mined; what is
    /// mined; and the largest that are not.
    sound: Vec<Payable>,
    /// Unconfirmed ones that hang on so much which pays too little that they bring less than it would cost to help.
    lagging: Vec<Payable>,
}

fn payable(wallet: &Wallet, node: &impl Mempool, job: &Job, rate: FeeRate) -> Result<Payables, PublishError> {
    let cost = fee_for(rate, key_spend(OutPoint::null()).segwit_weight().to_vbytes_ceil());
    let mut payments = wallet.payments(job)?;
    payments.retain(|payment| payment.is_taken || payment.output.value > cost);
    payments.sort_by_key(|payment| {
        (!payment.is_taken, !payment.is_confirmed, Reverse(payment.output.value), payment.outpoint)
    });
    let mut payable = Payables { sound: Vec::new(), lagging: Vec::new() };
    let mut unconfirmed = 0;
    for Paid { outpoint, output, is_confirmed, is_taken, .. } in payments {
        if is_confirmed {
            payable.sound.push((outpoint, output));
            continue;
        }
        if unconfirmed >= MOST_UNCONFIRMED && !is_taken {
            continue;
        }
        let entry = node.entry(&outpoint.txid)?;
        // One that was mined since the wallet was synced is unspent.
        if entry.is_none() && node.unspent(&outpoint)?.is_none() {
            continue;
        }
        let deficit = entry.map_or(Amount::ZERO, |entry| {
            fee_for(rate, entry.ancestors_vsize).checked_sub(entry.ancestors_fee).unwrap_or(Amount::ZERO)
        });
        if is_taken || output.value >= cost + deficit {
            payable.sound.push((outpoint, output));
            unconfirmed += 1;
        } else {
            payable.lagging.push((outpoint, output));
        }
    }
    payable.lagging.truncate(MOST_UNCONFIRMED);
    Ok(payable)
}

/// How many payments a transaction can spend that nodes relay, if this one spends one.
fn fitting(with_one: &Transaction) -> usize {
    // Two more bytes count the inputs, if there are many.
    let room = MAX_STANDARD_WEIGHT.checked_sub(with_one.weight() + Weight::from_vb_unwrap(2)).unwrap_or(Weight::ZERO);
    1 + usize::try_from(room / key_spend(OutPoint::null()).segwit_weight()).unwrap_or(0)
}

/// Where the rest goes.
pub(super) fn refund(wallet: &Wallet, job: &Job) -> ScriptBuf {
    job.refund.clone().unwrap_or_else(|| wallet.next_change())
}

/// A reveal of which everything is known but what it spends.
struct Reveal {
    envelope: Envelope,
    rate: FeeRate,
    refund: ScriptBuf,
    /// Spending one payment.
    with_one: Transaction,
}

impl Reveal {
    fn of(wallet: &Wallet, job: &Job) -> Result<Self, PublishError> {
        let key_index = job.key_index.ok_or(PublishError::Broken("an envelope without a key"))?;
        let envelope = Envelope::of(wallet, &job.payload, key_index)?;
        let refund = refund(wallet, job);
        let with_one = draft(&envelope, &[OutPoint::null()], &refund)?;
        Ok(Self { envelope, rate: job.fee_rate, refund, with_one })
    }

    /// The payments that it spends: all that are sound; of those that lag behind, as many as it needs.
    fn chosen(&self, wallet: &Wallet, node: &impl Mempool, job: &Job) -> Result<Vec<Payable>, PublishError> {
        let Payables { sound: mut chosen, lagging } = payable(wallet, node, job, self.rate)?;
        let most = fitting(&self.with_one);
        chosen.truncate(most);
        for payment in lagging {
            if chosen.len() < most && self.payment(&chosen).missing > Amount::ZERO {
                chosen.push(payment);
            }
        }
        Ok(chosen)
    }

    /// The least that this many payments must add up to.
    fn needed(&self, payments: usize) -> Amount {
        let more = key_spend(OutPoint::null()).segwit_weight() * payments.saturating_sub(1) as u64;
        let count = Weight::from_non_witness_data_size((VarInt::from(payments).size() - 1) as u64);
        fee_for(self.rate, (self.with_one.weight() + more + count).to_vbytes_ceil()) + self.refund.minimal_non_dust()
    }

    fn payment(&self, payments: &[Payable]) -> Payment {
        let received = total(payments.iter().map(|(_, output)| output.value));
        let missing = match self.needed(payments.len().max(1)) > received {
            false => Amount::ZERO,
            true => {
                let missing = self.needed(payments.len() + 1).checked_sub(received).unwrap_or(Amount::ZERO);
                // Less cannot be paid.
                missing.max(self.envelope.output_script().minimal_non_dust())
            }
        };
        Payment { received, missing }
    }

    fn signed(
        &self,
        wallet: &Wallet,
        node: &impl Mempool,
        job: &Job,
        payments: &[Payable],
    ) -> Result<Generation, PublishError> {
        let (inputs, spent): (Vec<OutPoint>, Vec<TxOut>) = payments.iter().cloned().unzip();
        let mut tx = draft(&self.envelope, &inputs, &self.refund)?;
        let size = vsize(&tx);
        let received = total(spent.iter().map(|output| output.value));
        let ancestors = Ancestors::of(wallet, node, &wallet.confirmed(), &[], &tx)?;
        // A payment that itself pays too little is helped along: within the caps and the bound, and as far as what was
        // overpaid suffices.
        let least = fee_for(self.rate, size);
        let overpaid = received.checked_sub(self.refund.minimal_non_dust()).unwrap_or(least);
        let capped = job.caps.max_fee_rate.map(|rate| fee_for(rate, size));
        let most = [job.caps.max_fee, capped].into_iter().flatten().fold(overpaid.min(least * HELPED), Amount::min);
        let fee = ancestors.fee_with(self.rate, size).min(most).max(least);
        job.caps.check(fee, size)?;
        tx.output.iter_mut().for_each(|output| output.value = received - fee);
        sign_reveal(wallet, &mut tx, &spent, &self.envelope)?;
        if vsize(&tx) != size {
            return Err(PublishError::Broken("a signed transaction is not the planned one"));
        }
        let change = Some(OutPoint::new(tx.compute_txid(), 0));
        Ok(Generation { transactions: vec![tx], carrying: 0, spent, fee, vsize: size, change })
    }
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
