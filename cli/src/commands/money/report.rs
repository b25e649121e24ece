//! What the money commands print.

use crate::output::{count, field};
use bitcoin::{FeeRate, Txid};
use serde::Serialize;
use sortie::envelope::Carrier;
use sortie::primitives::{BtcHeight, Hash32, sha256};
use sortie::publish::{CarrierChoice, CarrierCost, ChosenRate, JobId, Publication, RateSource};
use sortie::queue::Place;
use sortie::wallet::SatPerVb;
use std::cmp::Ordering;
use std::fmt;

/// Seconds between Bitcoin blocks, as the difficulty makes them on average.
const BLOCK_SECONDS: u64 = 600;

/// What forcing would cost, by the time within which it is to confirm.
#[derive(Serialize)]
pub struct QuoteTable {
    pub payload_bytes: usize,
    pub transactions: usize,
    pub quotes: Vec<QuoteReport>,
}

/// What both carriers would cost at one rate.
#[derive(Serialize)]
pub struct QuoteReport {
    fee_rate_sat_vb: f64,
    rate_source: &'static str,
    carriers: Vec<CarrierLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cheapest: Option<Carrier>,
    #[serde(flatten)]
    expected: Option<Expected>,
    #[serde(skip)]
    rate: FeeRate,
}

/// When it would be in the queue, and executed at the latest; seconds from now, at ten minutes a block.
#[derive(Clone, Copy, Serialize)]
pub struct Expected {
    target_blocks: u16,
    confirmed_height: u64,
    confirmed_in_s: u64,
    due_height: u64,
    due_in_s: u64,
}

impl Expected {
    pub fn new(target_blocks: u16, tip: BtcHeight, window: u16) -> Self {
        let blocks = u64::from(target_blocks);
        let confirmed_height = u64::from(tip) + blocks;
        Self {
            target_blocks,
            confirmed_height,
            confirmed_in_s: blocks * BLOCK_SECONDS,
            due_height: confirmed_height + u64::from(window),
            due_in_s: (blocks + u64::from(window)) * BLOCK_SECONDS,
        }
    }
}

impl fmt::Display for QuoteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transactions = count(self.transactions as u64, "transaction");
        field(f, "payload", format_args!("{} bytes, {transactions}", self.payload_bytes))?;
        writeln!(
            f,
            "{:<12} {:<10} {:>7} {:>9} {:>10} {:>11}  {:<22} executed at the latest",
            "within", "carrier", "vbytes", "sat/vB", "fee sat", "locked sat", "in the queue"
        )?;
        for quote in &self.quotes {
            for line in &quote.carriers {
                quote.row(line, f)?;
            }
        }
        [Carrier::OpReturn, Carrier::Taproot].into_iter().try_for_each(|carrier| self.note(carrier, f))
    }
}

impl QuoteTable {
    /// Why this carrier cannot be taken: once, whatever there is to say of it for each target.
    fn note(&self, carrier: Carrier, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.quotes.iter().flat_map(|quote| quote.carriers.iter().map(move |line| (quote, line)));
        let rows: Vec<_> = rows.filter(|(_, line)| line.carrier == carrier).collect();
        if let Some(why) = rows.iter().find_map(|(_, line)| line.why_not.as_ref()) {
            return field(f, "note", format_args!("{} is not relayed: {why}", name(carrier)));
        }
        let short = |(quote, line): &(&QuoteReport, &CarrierLine)| Some((quote.within(), line.shortfall?));
        let short: Vec<_> = rows.iter().filter_map(short).collect();
        let needed = || short.iter().map(|(_, shortfall)| shortfall.needed_sat);
        let (Some(least), Some(most), Some((_, shortfall))) = (needed().min(), needed().max(), short.first()) else {
            return Ok(());
        };
        let needed = if least == most { least.to_string() } else { format!("{least} to {most}") };
        let available = shortfall.available_sat;
        let within: Vec<_> = short.iter().map(|(within, _)| within.as_str()).collect();
        let within = if short.len() < rows.len() { format!(" ({})", within.join(", ")) } else { String::new() };
        field(f, "note", format_args!("{}: the wallet has {available} of {needed} sat{within}", name(carrier)))
    }
}

impl QuoteReport {
    /// The target, for people.
    fn within(&self) -> String {
        match self.expected.map(|expected| expected.target_blocks) {
            None => "-".into(),
            Some(1) => "next block".into(),
            Some(blocks) => format!("{blocks} blocks"),
        }
    }

    fn row(&self, line: &CarrierLine, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let best = if self.cheapest == Some(line.carrier) { "*" } else { "" };
        let carrier = format!("{}{best}", name(line.carrier));
        let rate = SatPerVb(self.rate).to_string();
        let rate = rate.trim_end_matches(" sat/vB");
        let within = self.within();
        let (confirmed, due) = match self.expected {
            None => ("later than in 24 blocks".into(), "-".into()),
            Some(Expected { confirmed_height, confirmed_in_s, due_height, due_in_s, .. }) => (
                format!("{confirmed_height}, in {}", duration(confirmed_in_s)),
                format!("{due_height}, in {}", duration(due_in_s)),
            ),
        };
        let CarrierLine { vsize_vb, fee_sat, locked_sat, .. } = line;
        writeln!(
            f,
            "{within:<12} {carrier:<10} {vsize_vb:>7} {rate:>9} {fee_sat:>10} {locked_sat:>11}  {confirmed:<22} {due}"
        )
    }
}

/// About how long: two units at most.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min"),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
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

#[derive(Clone, Copy, Serialize)]
struct ShortfallLine {
    needed_sat: u64,
    available_sat: u64,
}

impl QuoteReport {
    pub fn new(rate: &ChosenRate, costs: &[CarrierCost], expected: Option<Expected>) -> Self {
        let carriers: Vec<_> = costs.iter().map(CarrierLine::from).collect();
        let relayed = carriers.iter().filter(|line| line.relayed);
        Self {
            fee_rate_sat_vb: sat_per_vb(rate.rate),
            rate_source: match rate.source {
                RateSource::Explicit => "explicit",
                RateSource::Estimate(_) => "estimate",
                RateSource::Fallback => "fallback",
                RateSource::Floor => "floor",
            },
            expected,
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

impl CarrierLine {
    /// Why it cannot be taken, for people.
    fn remark(&self) -> Option<String> {
        if let Some(why) = &self.why_not {
            return Some(format!("not relayed: {why}"));
        }
        let ShortfallLine { needed_sat, available_sat } = self.shortfall?;
        Some(format!("the wallet has {available_sat} of {needed_sat} sat"))
    }
}

impl fmt::Display for QuoteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.rate_source {
            "explicit" => "as asked",
            "estimate" => "an estimate",
            "fallback" => "no estimate: the fallback",
            _ => "no estimate: the floor",
        };
        field(f, "fee rate", format_args!("{} ({source})", SatPerVb(self.rate)))?;
        for line in &self.carriers {
            let CarrierLine { vsize_vb, fee_sat, .. } = line;
            let remark = line.remark().map_or(String::new(), |remark| format!("; {remark}"));
            field(f, name(line.carrier), format_args!("{fee_sat} sat for {vsize_vb} vB{remark}"))?;
        }
        Ok(())
    }
}

/// One forced transaction: where it stands, and its part of the fee by its bytes.
#[derive(Serialize)]
struct ForcedItem {
    place: Place,
    tx_hash: Hash32,
    bytes: usize,
    fee_sat: u64,
}

fn forced_items(publication: &Publication, txs: &[Vec<u8>]) -> Vec<ForcedItem> {
    let total: u128 = txs.iter().map(|tx| tx.len() as u128).sum::<u128>().max(1);
    let fee = u128::from(publication.fee.to_sat());
    // Cut at the running sums, so that the parts add up to the fee.
    let part_before = |bytes: u128| (fee * bytes / total) as u64;
    let mut before = 0;
    let mut items = Vec::new();
    for (tx, position) in txs.iter().zip(0..) {
        let after = before + tx.len() as u128;
        items.push(ForcedItem {
            place: Place { position, ..publication.place },
            tx_hash: sha256(tx),
            bytes: tx.len(),
            fee_sat: part_before(after) - part_before(before),
        });
        before = after;
    }
    items
}

/// What `force` has done.
#[derive(Serialize)]
pub struct ForceReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    quote: Option<QuoteReport>,
    state: &'static str,
    job: JobId,
    resumed: bool,
    carrier: Carrier,
    why: String,
    place: Place,
    items: Vec<ForcedItem>,
    txids: Vec<Txid>,
    fee_sat: u64,
    vsize_vb: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
    window: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<BtcHeight>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_height: Option<u64>,
    #[serde(skip)]
    tip: BtcHeight,
}

impl ForceReport {
    /// `tip`: the height as of which it is told.
    pub fn new(
        publication: &Publication,
        txs: &[Vec<u8>],
        window: u16,
        tip: BtcHeight,
        asked: CarrierChoice,
        quote: Option<QuoteReport>,
    ) -> Self {
        let height = publication.state.confirmed().map(|block| block.height);
        let why = match publication.resumed {
            true => "as it was published before".into(),
            false => quote.as_ref().map_or("as asked".into(), |quote| quote.why(publication.carrier, asked)),
        };
        Self {
            state: if height.is_some() { "confirmed" } else { "mempool" },
            job: publication.job,
            resumed: publication.resumed,
            carrier: publication.carrier,
            why,
            place: publication.place,
            items: forced_items(publication, txs),
            txids: publication.txids.clone(),
            fee_sat: publication.fee.to_sat(),
            vsize_vb: publication.vsize,
            backup: publication.backup.map(|backup| backup.to_string()),
            window,
            height,
            due_height: height.map(|height| u64::from(height) + u64::from(window)),
            tip,
            quote,
        }
    }
}

impl fmt::Display for ForceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(quote) = &self.quote {
            quote.fmt(f)?;
        }
        field(f, "carried by", format_args!("{}, {}", name(self.carrier), self.why))?;
        field(f, "fee", format_args!("{} sat for {} vB", self.fee_sat, self.vsize_vb))?;
        transactions(f, &self.txids, &self.place)?;
        for ForcedItem { place, tx_hash, bytes, fee_sat } in &self.items {
            field(f, "place", place)?;
            match self.items.len() {
                1 => field(f, "SHA256", tx_hash)?,
                _ => field(f, "SHA256", format_args!("{tx_hash} ({bytes} bytes, {fee_sat} sat)"))?,
            }
        }
        if let Some(backup) = &self.backup {
            field(f, "backup", backup)?;
        }
        if self.resumed {
            field(f, "job", format_args!("{}, from before: nothing new was paid", self.job))?;
        } else {
            field(f, "job", self.job)?;
        }
        match (self.height, self.due_height) {
            (Some(height), Some(due)) if due <= u64::from(self.tip) => field(
                f,
                "state",
                format_args!(
                    "confirmed in block {height}, executed at {due} at the latest, which has passed: `sortie status {}`",
                    self.place
                ),
            ),
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

/// The transactions of one publication, each with what it is for; the one of its place carries the payload.
pub(super) fn transactions(f: &mut fmt::Formatter<'_>, txids: &[Txid], place: &Place) -> fmt::Result {
    let carrying = txids.iter().position(|txid| *txid == place.txid).unwrap_or(0);
    for (n, txid) in txids.iter().enumerate() {
        let label = match (n.cmp(&carrying), place.carrier) {
            (Ordering::Less, _) => "commit",
            (Ordering::Equal, Carrier::Taproot) => "reveal",
            (Ordering::Equal, Carrier::OpReturn) => "transaction",
            (Ordering::Greater, _) => "child",
        };
        field(f, label, txid)?;
    }
    Ok(())
}

pub(super) fn name(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::OpReturn => "op-return",
        Carrier::Taproot => "taproot",
    }
}

/// For JSON, where a rate is a number.
pub(super) fn sat_per_vb(rate: FeeRate) -> f64 {
    rate.to_sat_per_kwu() as f64 * 4.0 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::Amount;
    use sortie::publish::Shortfall;

    /// A quote for these targets and what each needs; the wallet has 100 sat.
    fn table(needed: &[(u16, u64)]) -> String {
        let quote = |&(target, sat): &(u16, u64)| {
            let needed = Amount::from_sat(sat);
            let available = Amount::from_sat(100);
            let cost = CarrierCost {
                carrier: Carrier::Taproot,
                vsize: 100,
                fee: needed,
                locked: Amount::ZERO,
                shortfall: (needed > available).then_some(Shortfall { needed, available }),
                relayed: Ok(()),
            };
            let (rate, steps) = (FeeRate::BROADCAST_MIN, Vec::new());
            let rate = ChosenRate { rate, source: RateSource::Floor, steps, warning: None };
            QuoteReport::new(&rate, &[cost], Some(Expected::new(target, 800_000, 6)))
        };
        let quotes = needed.iter().map(quote).collect();
        QuoteTable { payload_bytes: 1, transactions: 1, quotes }.to_string()
    }

    #[test]
    fn what_the_wallet_lacks_is_noted_once_whatever_the_number_of_targets() {
        let notes = |needed: &[(u16, u64)]| -> Vec<String> {
            let table = table(needed);
            table.lines().filter_map(|line| line.strip_prefix("note")).map(|note| note.trim().to_owned()).collect()
        };
        assert_eq!(notes(&[(1, 400), (3, 200)]), ["taproot: the wallet has 100 of 200 to 400 sat"]);
        assert_eq!(notes(&[(1, 200), (3, 200)]), ["taproot: the wallet has 100 of 200 sat"]);
        assert_eq!(
            notes(&[(1, 400), (3, 200), (6, 100)]),
            ["taproot: the wallet has 100 of 200 to 400 sat (next block, 3 blocks)"]
        );
        assert!(notes(&[(1, 100)]).is_empty());
    }
}
