//! What the money commands print.

use crate::output::{count, field};
use bitcoin::{FeeRate, Txid};
use serde::Serialize;
use sortie::envelope::Carrier;
use sortie::primitives::{BtcHeight, Hash32};
use sortie::publish::{
    CarrierChoice, CarrierCost, ChosenRate, JobId, JobState, Outcome, Publication, RateSource, Resumed,
};
use sortie::queue::Place;
use sortie::wallet::SatPerVb;
use std::fmt;

/// What both carriers would cost.
#[derive(Serialize)]
pub struct QuoteReport {
    payload_bytes: usize,
    fee_rate_sat_vb: f64,
    rate_source: &'static str,
    carriers: Vec<CarrierLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cheapest: Option<Carrier>,
    #[serde(skip)]
    rate: FeeRate,
}

#[derive(Serialize)]
struct CarrierLine {
    carrier: Carrier,
    vsize_vb: u64,
    fee_sat: u64,
    locked_sat: u64,
    relayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shortfall: Option<ShortfallLine>,
}

#[derive(Serialize)]
struct ShortfallLine {
    needed_sat: u64,
    available_sat: u64,
}

impl QuoteReport {
    pub fn new(payload: &[u8], rate: &ChosenRate, costs: &[CarrierCost]) -> Self {
        let carriers: Vec<_> = costs.iter().map(CarrierLine::from).collect();
        let relayed = carriers.iter().filter(|line| line.relayed);
        Self {
            payload_bytes: payload.len(),
            fee_rate_sat_vb: sat_per_vb(rate.rate),
            rate_source: match rate.source {
                RateSource::Explicit => "explicit",
                RateSource::Estimate(_) => "estimate",
                RateSource::Floor => "floor",
            },
            cheapest: relayed.min_by_key(|line| line.fee_sat).map(|line| line.carrier),
            carriers,
            rate: rate.rate,
        }
    }

    /// Why this carrier was taken.
    fn why(&self, taken: Carrier, asked: CarrierChoice) -> String {
        if asked != CarrierChoice::Auto {
            return "as asked".into();
        }
        let other = self.carriers.iter().find(|line| line.carrier != taken);
        let taken = self.carriers.iter().find(|line| line.carrier == taken);
        match (taken, other) {
            (_, Some(CarrierLine { why_not: Some(_), .. })) => "the other one is not relayed".into(),
            (_, Some(CarrierLine { shortfall: Some(_), .. })) => "the coins do not suffice for the other one".into(),
            (Some(taken), Some(other)) if taken.fee_sat < other.fee_sat => {
                format!("{} sat cheaper", other.fee_sat - taken.fee_sat)
            }
            _ => "not dearer than the other one".into(),
        }
    }
}

impl From<&CarrierCost> for CarrierLine {
    fn from(cost: &CarrierCost) -> Self {
        Self {
            carrier: cost.carrier,
            vsize_vb: cost.vsize,
            fee_sat: cost.fee.to_sat(),
            locked_sat: cost.locked.to_sat(),
            relayed: cost.relayed.is_ok(),
            why_not: cost.relayed.err().map(|why| why.to_string()),
            shortfall: cost.shortfall.map(|shortfall| ShortfallLine {
                needed_sat: shortfall.needed.to_sat(),
                available_sat: shortfall.available.to_sat(),
            }),
        }
    }
}

impl fmt::Display for CarrierLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat for {} vB", self.fee_sat, self.vsize_vb)?;
        if self.locked_sat > 0 {
            write!(f, ", {} sat locked until it is revealed", self.locked_sat)?;
        }
        if let Some(why) = &self.why_not {
            write!(f, "; not relayed: {why}")?;
        }
        if let Some(ShortfallLine { needed_sat, available_sat }) = self.shortfall {
            write!(f, "; the wallet has {available_sat} of {needed_sat} sat")?;
        }
        Ok(())
    }
}

impl fmt::Display for QuoteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.rate_source {
            "explicit" => "as asked",
            "estimate" => "the node's estimate",
            _ => "no estimate: the floor",
        };
        field(f, "payload", format_args!("{} bytes at {} ({source})", self.payload_bytes, SatPerVb(self.rate)))?;
        self.carriers.iter().try_for_each(|line| field(f, name(line.carrier), line))
    }
}

/// What `force` has done.
#[derive(Serialize)]
pub struct ForceReport {
    quote: QuoteReport,
    state: &'static str,
    job: JobId,
    resumed: bool,
    carrier: Carrier,
    why: String,
    place: Place,
    tx_hash: Hash32,
    txids: Vec<Txid>,
    fee_sat: u64,
    vsize_vb: u64,
    window: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<BtcHeight>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_height: Option<u64>,
}

impl ForceReport {
    pub fn new(
        publication: &Publication,
        place: Place,
        tx_hash: Hash32,
        window: u16,
        asked: CarrierChoice,
        quote: QuoteReport,
    ) -> Self {
        let height = match publication.state {
            JobState::Confirmed(height) => Some(height),
            _ => None,
        };
        let why = match publication.resumed {
            true => "as it was published before".into(),
            false => quote.why(publication.carrier, asked),
        };
        Self {
            state: if height.is_some() { "confirmed" } else { "mempool" },
            job: publication.job,
            resumed: publication.resumed,
            carrier: publication.carrier,
            why,
            place,
            tx_hash,
            txids: publication.txids.clone(),
            fee_sat: publication.fee.to_sat(),
            vsize_vb: publication.vsize,
            window,
            height,
            due_height: height.map(|height| u64::from(height) + u64::from(window)),
            quote,
        }
    }
}

impl fmt::Display for ForceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.quote.fmt(f)?;
        field(f, "carried by", format_args!("{}, {}", name(self.carrier), self.why))?;
        field(f, "fee", format_args!("{} sat for {} vB", self.fee_sat, self.vsize_vb))?;
        for txid in &self.txids {
            field(f, "transaction", txid)?;
        }
        field(f, "place", self.place)?;
        field(f, "SHA256", self.tx_hash)?;
        if self.resumed {
            field(f, "job", format_args!("{}, from before: nothing new was paid", self.job))?;
        } else {
            field(f, "job", self.job)?;
        }
        match (self.height, self.due_height) {
            (Some(height), Some(due)) => field(
                f,
                "state",
                format_args!("confirmed in block {height} and queued: executed at {due} at the latest"),
            ),
            _ => {
                let window = count(self.window.into(), "Bitcoin block");
                field(
                    f,
                    "state",
                    format_args!("in the mempool; queued once mined, executed {window} later at the latest"),
                )
            }
        }
    }
}

/// What became of an unfinished job.
#[derive(Serialize)]
pub struct ResumeReport {
    job: JobId,
    outcome: &'static str,
    txids: Vec<Txid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<&Resumed> for ResumeReport {
    fn from(resumed: &Resumed) -> Self {
        let (outcome, txids, reason) = match &resumed.outcome {
            Outcome::InPlace => ("in_place", Vec::new(), None),
            Outcome::Sent(txids) => ("sent", txids.clone(), None),
            Outcome::Refused { txid, reason } => ("refused", vec![*txid], Some(reason.clone())),
            Outcome::Abandoned => ("abandoned", Vec::new(), None),
        };
        Self { job: resumed.job, outcome, txids, reason }
    }
}

impl fmt::Display for ResumeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let txids = self.txids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match (self.outcome, &self.reason) {
            ("in_place", _) => write!(f, "job {}: the node has all of it", self.job),
            ("sent", _) => write!(f, "job {}: sent {txids}", self.job),
            ("abandoned", _) => write!(f, "job {}: given up, its coins were spent otherwise", self.job),
            (_, reason) => write!(f, "job {}: the node refuses {txids}: {}", self.job, reason.as_deref().unwrap_or("")),
        }
    }
}

/// A commit on its way back.
#[derive(Serialize)]
pub struct ReclaimReport {
    pub job: JobId,
    pub txid: Txid,
}

impl fmt::Display for ReclaimReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}: its coins come back with {}", self.job, self.txid)
    }
}

fn name(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::OpReturn => "op-return",
        Carrier::Taproot => "taproot",
    }
}

/// For JSON, where a rate is a number.
fn sat_per_vb(rate: FeeRate) -> f64 {
    rate.to_sat_per_kwu() as f64 * 4.0 / 1000.0
}
