//! What posting costs now, and what the operator has paid for it in a day.
//!
//! Guarantees that own transactions are promised only while what is paid already, and posting what is promised, stay
//! within `max_fee_per_day`; that it is counted from the wallet's journal, so that a restart changes nothing; and that
//! batches with forced items, or without own transactions, are never kept back by it: what users force, and the chain's
//! going on, is not the operator's to ration.

use super::admission::Price;
use super::post::Batch;
use super::{Done, Policy, Seen, Sequencer, SequencerError, Status};
use crate::envelope::{Body, MAGIC};
use crate::publish::{Caps, PublishError, Spent, fee_rate, fees_of, job_of_payload};
use crate::wallet::unix_now;
use bitcoin::{Amount, FeeRate};

/// A day, in seconds.
const DAY: u64 = 86_400;

/// Seconds after which the price is asked for again, block or not.
const PRICE_LASTS: u64 = 60;

/// Bytes that what surrounds a batch's transactions costs as much as, at most.
const OVERHEAD: u64 = 2_000;

/// The price while it is not known: that of 1 sat/vB.
const UNKNOWN: FeeRate = FeeRate::from_sat_per_kwu(250);

/// What posting costs, and may cost; all of it can be lost.
#[derive(Debug)]
pub(super) struct Budget {
    /// What posting a byte costs now.
    pub price: Price,
    asked_at: u64,
    counted_at: Seen,
    spent: Spent,
    paused: Option<String>,
}

impl Default for Budget {
    fn default() -> Self {
        let (spent, price) = (Spent::default(), Price::at(UNKNOWN));
        Self { price, asked_at: 0, counted_at: None, spent, paused: None }
    }
}

impl Budget {
    /// Puts it into the status.
    pub fn show(&self, policy: &Policy, status: &mut Status) {
        status.least_fee_msat_per_byte = self.price.percent(policy.least_fee_percent).0;
        status.paid_per_day_sat = self.spent.fee.to_sat();
        status.paused.clone_from(&self.paused);
    }
}

impl Sequencer {
    /// Learns what posting costs now, and what was paid for it; tells when that stops own transactions.
    pub(super) fn count_costs(&mut self, now: u64, on_done: &mut impl FnMut(Done)) -> Result<(), SequencerError> {
        let tip = Some(self.node.derivation().tip().block.hash);
        let is_new = self.budget.counted_at != tip;
        if is_new || now >= self.budget.asked_at.saturating_add(PRICE_LASTS) {
            self.budget.asked_at = now;
            // Where it cannot be told, the last one holds.
            if let Ok(chosen) = fee_rate(&[&self.rpc], &self.policy.rate) {
                let caps = self.policy.caps.max_fee_rate;
                self.budget.price = Price::at(caps.map_or(chosen.rate, |highest| chosen.rate.min(highest)));
            }
            self.budget.counted_at = tip;
            self.count_spent()?;
        }
        let paused = self.policy.max_fee_per_day.filter(|_| self.room() == 0).map(|cap| {
            let Spent { fee, first_at } = self.budget.spent;
            let paid = format!("{} of {} sat that may be paid to Bitcoin in a day are", fee.to_sat(), cap.to_sat());
            let wait = first_at.map_or(String::new(), |at| format!(" until {} (seconds since 1970)", at + DAY));
            format!("{paid} used up or promised: own transactions wait{wait}")
        });
        if self.budget.paused.is_some() != paused.is_some() {
            on_done(Done::Paused(paused.clone()));
        }
        self.budget.paused = paused;
        Ok(())
    }

    /// Counts what was paid for batches in the last 24 hours.
    pub(super) fn count_spent(&mut self) -> Result<(), SequencerError> {
        let namespace = self.node.derivation().rules().rollup_id.namespace();
        let batches = [&MAGIC[..], namespace.as_ref(), &[Body::Batch(Vec::new()).kind()]].concat();
        self.budget.spent = fees_of(&self.wallet, unix_now().saturating_sub(DAY), &batches)?;
        Ok(())
    }

    /// What is left of the day.
    fn left(&self) -> Option<Amount> {
        let cap = self.policy.max_fee_per_day?;
        Some(cap.checked_sub(self.budget.spent.fee).unwrap_or(Amount::ZERO))
    }

    /// How many bytes of own transactions may be promised now, so that posting them stays within the day's limit.
    pub(super) fn room(&self) -> usize {
        let Some(left) = self.left() else { return usize::MAX };
        let promised = (self.unposted_bytes() as u64).saturating_add(OVERHEAD);
        usize::try_from(self.budget.price.bytes(left.to_sat()).saturating_sub(promised)).unwrap_or(usize::MAX)
    }

    /// What a batch may cost: with own transactions and nothing else, no more than what is left of the day.
    pub(super) fn caps_of(&self, batch: &Batch) -> Result<Caps, SequencerError> {
        let caps = self.policy.caps;
        let Some(left) = self.left().filter(|_| batch.is_rationed) else { return Ok(caps) };
        // What is paid for it already is counted already.
        let job = job_of_payload(&self.wallet, &batch.payload)?;
        let paid = job.as_ref().and_then(|job| job.current()).map_or(Amount::ZERO, |current| current.fee);
        let most = left + paid;
        Ok(Caps { max_fee: Some(caps.max_fee.map_or(most, |cap| cap.min(most))), ..caps })
    }
}

impl From<crate::chain::ChainError> for SequencerError {
    fn from(error: crate::chain::ChainError) -> Self {
        PublishError::from(error).into()
    }
}
