//! The one batch that is on its way to Bitcoin, until it is mined.
//!
//! Guarantees: it is held to a height as a user's transaction is ([`hold`]), within the caps; nothing new is posted
//! behind it; what the node has forgotten and does not take at its rate is posted anew, around the same bytes, from a
//! coin that the forgotten transactions spend, so that never both are mined.

use super::post::{Batch, Sending};
use super::{Done, Sequencer, SequencerError};
use crate::derive::{DropReason, Verdict};
use crate::envelope::{Body, Payload};
use crate::primitives::{BtcHeight, L2Number};
use crate::publish::{
    Act, Held, Job, JobId, Outcome, PublishError, Resumed, confirm_by, give_up_absent, hold, job, job_of_payload,
};
use crate::wallet::SatPerVb;
use bitcoin::{FeeRate, OutPoint, Txid};
use serde::{Serialize, Serializer};
use std::fmt;

/// Why a batch's transactions are given up.
const FORGOTTEN: &str = "the node has forgotten it, and does not take it at its rate any more";

/// A batch that waits to be mined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InFlight {
    /// Its job in the wallet's journal; of several that hang on each other, the last one, whose fee counts for all.
    pub job: JobId,
    /// Its first L2 block.
    pub first: L2Number,
    /// Its last L2 block.
    pub last: L2Number,
    /// Its transactions.
    pub txids: Vec<Txid>,
    /// When it was first sent, in seconds since 1970.
    pub posted_at: u64,
    /// The Bitcoin height by which it is to be mined.
    pub confirm_by: BtcHeight,
    /// What it pays, with everything unconfirmed that it hangs on.
    #[serde(rename = "fee_rate_sat_vb", serialize_with = "sat_per_vb")]
    pub pays: FeeRate,
    /// What it would have to pay to be mined by that height, when that was last asked.
    #[serde(rename = "asked_fee_rate_sat_vb", serialize_with = "sat_per_vb")]
    pub asked: FeeRate,
    /// The Bitcoin height at which it was first seen to be stuck: it pays less than is asked, or is late.
    pub stuck_since: Option<BtcHeight>,
    /// Why it does not pay more.
    pub reason: Option<String>,
}

impl fmt::Display for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, first, last, confirm_by, pays, asked, reason, .. } = self;
        write!(
            f,
            "blocks {first} to {last} (job {job}) are to be mined by height {confirm_by} and pay {}",
            SatPerVb(*pays)
        )?;
        if asked > pays {
            write!(f, ", {} is asked", SatPerVb(*asked))?;
        }
        reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
    }
}

/// A rate as a JSON number of sat/vB.
fn sat_per_vb<S: Serializer>(rate: &FeeRate, serializer: S) -> Result<S::Ok, S::Error> {
    // 250 sat/kwu are 1 sat/vB.
    serializer.serialize_f64(rate.to_sat_per_kwu() as f64 / 250.0)
}

impl Sequencer {
    /// Keeps the first of the signed batches that is not mined on its way; the others wait for it.
    ///
    /// Returns whether there is one.
    pub(super) fn keep(&mut self, live: &[Batch], on_done: &mut impl FnMut(Done)) -> Result<bool, SequencerError> {
        for (n, batch) in live.iter().enumerate() {
            let Some(found) = job_of_payload(&self.wallet, &batch.payload)? else {
                self.send(batch, Sending::default(), on_done)?;
                return Ok(true);
            };
            match found.state.confirmed() {
                None => {
                    let mut jobs = vec![found];
                    // After a reorganisation several may wait, each paid from the change of the one before.
                    for behind in &live[n + 1..] {
                        match job_of_payload(&self.wallet, &behind.payload)? {
                            Some(job) if job.state.is_unfinished() => jobs.push(job),
                            _ => break,
                        }
                    }
                    self.hold_to_height(batch, &jobs, on_done)?;
                    return Ok(true);
                }
                Some(_) if self.came_too_early(&found)? => {
                    self.send(batch, Sending { again: true, ..Sending::default() }, on_done)?;
                    return Ok(true);
                }
                Some(_) => {}
            }
        }
        Ok(false)
    }

    /// Whether a mined batch was dropped for a reason that does not hold for the same bytes in a later block.
    fn came_too_early(&self, mined: &Job) -> Result<bool, SequencerError> {
        let (Some(block), Some(place)) = (mined.state.confirmed(), mined.place()) else { return Ok(false) };
        let judged = self.node.store().judged(block.height)?;
        match judged.iter().find(|judged| judged.place == place).map(|judged| judged.verdict) {
            None | Some(Verdict::Accept) => Ok(false),
            Some(Verdict::Drop(
                DropReason::WrongNumber
                | DropReason::OverBudget
                | DropReason::OriginNotBelow
                | DropReason::TimestampHigh,
            )) => Ok(true),
            // Paying for the same bytes again would change nothing.
            Some(Verdict::Drop(reason)) => Err(SequencerError::BatchDropped { place, reason }),
        }
    }

    /// Holds the first of `jobs`, and with it those that hang on it, to the batch's height.
    fn hold_to_height(
        &mut self,
        batch: &Batch,
        jobs: &[Job],
        on_done: &mut impl FnMut(Done),
    ) -> Result<(), SequencerError> {
        // The last one's fee counts for all that it hangs on.
        let Some(last) = jobs.last() else { return Ok(()) };
        confirm_by(&mut self.wallet, last.id, batch.confirm_by)?;
        let caps = self.caps_of(batch)?;
        let rpc = &self.rpc;
        let mut held = hold(&mut self.wallet, rpc, &[rpc], last.id, &self.policy.rate, &caps)?;
        on_done(Done::Explained(std::mem::take(&mut held.steps)));
        if let Act::Stopped(PublishError::Stuck { .. } | PublishError::NotBumpable { .. }) = held.act
            && let Some(sending) = self.give_up_forgotten(jobs)?
        {
            return self.send(batch, sending, on_done);
        }
        if let Act::Bumped(bumped) = &held.act {
            on_done(Done::Raised { blocks: Some(batch.blocks), bumped: bumped.clone() });
        }
        let last = job(&self.wallet, last.id)?;
        self.show_in_flight(batch, &last, held, on_done);
        Ok(())
    }

    /// Gives up those of `jobs`, from the last one on, of which the node has nothing. When none is left, returns how
    /// the first is posted anew: from a coin that it spends.
    fn give_up_forgotten(&mut self, jobs: &[Job]) -> Result<Option<Sending>, SequencerError> {
        for job in jobs.iter().rev() {
            if !give_up_absent(&mut self.wallet, &self.rpc, job.id, FORGOTTEN)? {
                return Ok(None);
            }
        }
        let coins = self.wallet.coins()?;
        let is_ours = |outpoint: &OutPoint| coins.iter().any(|coin| coin.outpoint == *outpoint);
        let first = jobs.first().and_then(Job::current).and_then(|current| current.transactions.first());
        let mut spent = first.into_iter().flat_map(|tx| &tx.input).map(|input| input.previous_output);
        Ok(Some(Sending { fund_from: spent.find(is_ours), again: false }))
    }

    /// Gives up batches that no longer count and that the node neither has nor takes: their coins pay for others.
    pub(super) fn give_up_dead(&mut self, live: &[Batch], resumed: &[Resumed]) -> Result<(), SequencerError> {
        let namespace = self.node.derivation().rules().rollup_id.namespace();
        for resumed in resumed.iter().filter(|resumed| matches!(resumed.outcome, Outcome::Failed(_))) {
            let job = job(&self.wallet, resumed.job)?;
            let is_batch = Payload::decode(&job.payload)
                .is_ok_and(|payload| payload.namespace == namespace && matches!(payload.body, Body::Batch(_)));
            let is_live = live.iter().any(|batch| batch.payload == job.payload);
            if is_batch && !is_live && job.current().is_some() {
                give_up_absent(&mut self.wallet, &self.rpc, job.id, FORGOTTEN)?;
            }
        }
        Ok(())
    }

    /// Shows how the batch on its way is doing; that it is stuck, and why, is told when it is news.
    pub(super) fn show_in_flight(&mut self, batch: &Batch, job: &Job, held: Held, on_done: &mut impl FnMut(Done)) {
        let tip = self.wallet.synced_to().height;
        let before = self.posting.in_flight.take().filter(|before| before.job == job.id);
        // Where nobody was asked this time, the last answer holds.
        let asked = held.asked.or(before.as_ref().map(|before| before.asked)).unwrap_or(held.pays);
        let reason = match &held.act {
            Act::Stopped(error) => Some(error.to_string()),
            _ if held.remaining == 0 => Some(format!("it was to be mined by height {}", held.confirm_by)),
            _ if held.pays < asked => {
                let known = before.as_ref().and_then(|before| before.reason.clone());
                known.or(Some("the caps forbid more".to_owned()))
            }
            _ => None,
        };
        let stuck_since = reason.is_some().then(|| before.as_ref().and_then(|b| b.stuck_since).unwrap_or(tip));
        let in_flight = InFlight {
            job: job.id,
            first: batch.blocks.0,
            last: batch.blocks.1,
            txids: job.txids(),
            posted_at: job.created_at,
            confirm_by: held.confirm_by,
            pays: held.pays,
            asked,
            stuck_since,
            reason,
        };
        let was_told = before.is_some_and(|before| before.reason == in_flight.reason);
        if stuck_since.is_some() && !was_told {
            on_done(Done::Stuck(in_flight.clone()));
        }
        self.posting.in_flight = Some(in_flight);
    }
}
