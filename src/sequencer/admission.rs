//! Whose transactions go into a block, while every one of them costs the operator satoshis on Bitcoin.
//!
//! Guarantees: whoever pays what posting costs is limited by room alone; whoever pays less, or nothing, is given a
//! ration for as long as Bitcoin has not mined what was given before, and a part of it that cheaper ones cannot use up.
//! So neither a sender nor many of them can make the operator pay without bound, and none can keep out a sender who
//! pays more. Where the executor knows no fees there is nothing to tell them apart by: then room and what may be paid
//! in a day are the only limits. Pure.

use bitcoin::FeeRate;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

/// Bytes of transactions that pay less than posting them costs, promised and not derived.
const RATION: u64 = 128 * 1024;

/// What a byte of a transaction weighs in an envelope, in percent of a weight unit: the pushes around it, and its part
/// of what surrounds them.
const WEIGHT_PERCENT: u64 = 110;

/// What posting costs: the satoshis of 1,000 bytes of transactions, which are millisatoshis a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Price(pub u64);

impl Price {
    /// At a rate. In an envelope a byte weighs one unit, and rates are satoshis of 1,000 units.
    pub fn at(rate: FeeRate) -> Self {
        Self(rate.to_sat_per_kwu().saturating_mul(WEIGHT_PERCENT).div_ceil(100))
    }

    /// What so many bytes cost, in satoshis, rounded up.
    pub fn of(self, bytes: u64) -> u64 {
        self.0.saturating_mul(bytes).div_ceil(1_000)
    }

    /// How many bytes so many satoshis pay for.
    pub fn bytes(self, sat: u64) -> u64 {
        sat.saturating_mul(1_000).checked_div(self.0).unwrap_or(u64::MAX)
    }

    /// A part of it.
    pub fn percent(self, percent: u32) -> Self {
        Self(self.0.saturating_mul(percent.into()).div_ceil(100))
    }
}

/// What a transaction pays for each 1,000 bytes, in satoshis.
fn density(fee: u64, size: usize) -> u64 {
    fee.saturating_mul(1_000) / (size as u64).max(1)
}

/// A transaction that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Order of arrival.
    pub seq: i64,
    /// Whose it is, if the executor knows.
    pub sender: Option<Vec<u8>>,
    /// What it pays in satoshis, if the executor knows fees.
    pub fee: Option<u64>,
    /// Its length.
    pub size: usize,
    /// A receipt was given for it.
    pub owed: bool,
}

/// What of a ration is used up: bytes that pay less than they cost, promised and not derived.
#[derive(Clone, Debug, Default)]
pub(super) struct Used {
    all: u64,
    by_sender: BTreeMap<Vec<u8>, u64>,
}

impl Used {
    /// Counts a transaction in, if it pays less than it costs.
    pub fn add(&mut self, sender: Option<&[u8]>, fee: Option<u64>, size: usize, price: Price) {
        if fee.is_some_and(|fee| fee < price.of(size as u64)) {
            self.all += size as u64;
            *self.by_sender.entry(sender.unwrap_or_default().to_vec()).or_default() += size as u64;
        }
    }

    /// Whether a transaction is in its ration: those that pay nothing share a quarter of it, those that pay nearly what
    /// they cost nearly all; half of that is one sender's.
    fn allows(&self, sender: Option<&[u8]>, fee: Option<u64>, size: usize, price: Price) -> bool {
        let Some(fee) = fee.filter(|fee| *fee < price.of(size as u64)) else { return true };
        let paid = density(fee, size).min(price.0);
        let share =
            u128::from(RATION) * (u128::from(price.0) + 3 * u128::from(paid)) / (4 * u128::from(price.0)).max(1);
        let own = self.by_sender.get(sender.unwrap_or_default()).copied().unwrap_or(0);
        let size = size as u64;
        u128::from(self.all + size) <= share && u128::from(own + size) <= share / 2
    }
}

/// The transactions that go into a block of `room` bytes: those that are owed, then those that pay most for their
/// length, earlier ones first; each sender's in the order in which they came. Candidates come in order of arrival.
pub(super) fn choose(candidates: Vec<Candidate>, mut used: Used, price: Price, room: usize) -> Vec<i64> {
    let (owed, others): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|candidate| candidate.owed);
    let mut left = room;
    let mut chosen = Vec::new();
    for candidate in owed {
        let Some(rest) = left.checked_sub(candidate.size) else { return chosen };
        left = rest;
        chosen.push(candidate.seq);
    }
    // One whose sender is not known is a sender of its own.
    let mut queues: BTreeMap<(Option<Vec<u8>>, i64), VecDeque<Candidate>> = BTreeMap::new();
    for candidate in others {
        let alone = if candidate.sender.is_some() { 0 } else { candidate.seq };
        queues.entry((candidate.sender.clone(), alone)).or_default().push_back(candidate);
    }
    let rank = |first: &Candidate| (density(first.fee.unwrap_or(0), first.size), Reverse(first.seq));
    let mut heads: BinaryHeap<_> =
        queues.iter().filter_map(|(key, queue)| Some((rank(queue.front()?), key.clone()))).collect();
    while let Some((_, key)) = heads.pop() {
        let Some(queue) = queues.get_mut(&key) else { continue };
        let Some(first) = queue.pop_front() else { continue };
        let sender = first.sender.as_deref();
        // What is behind it waits with it.
        if first.size > left || !used.allows(sender, first.fee, first.size, price) {
            continue;
        }
        used.add(sender, first.fee, first.size, price);
        left -= first.size;
        chosen.push(first.seq);
        heads.extend(queue.front().map(|next| (rank(next), key)));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Price = Price(2_750);
    const TRANSFER: usize = 153;
    const COST: u64 = 421;

    fn candidate(seq: i64, sender: u8, fee: u64) -> Candidate {
        Candidate { seq, sender: Some(vec![sender]), fee: Some(fee), size: TRANSFER, owed: false }
    }

    fn many(count: i64, from: i64, sender: impl Fn(i64) -> u8, fee: u64) -> Vec<Candidate> {
        (0..count).map(|n| candidate(from + n, sender(n), fee)).collect()
    }

    fn bytes_of(chosen: &[i64]) -> u64 {
        (chosen.len() * TRANSFER) as u64
    }

    #[test]
    fn a_price_follows_the_rate_and_is_rounded_up() {
        for (sat_per_vb, price, transfer) in [(1, 275, 43), (10, 2_750, COST), (100, 27_500, 4_208)] {
            let at = Price::at(FeeRate::from_sat_per_vb(sat_per_vb).expect("small"));
            assert_eq!((at.0, at.of(TRANSFER as u64)), (price, transfer));
            assert!((TRANSFER as u64..160).contains(&at.bytes(transfer)));
            assert_eq!(at.percent(50).of(2_000), price.div_ceil(2) * 2);
        }
        assert_eq!(Price(0).bytes(1), u64::MAX);
    }

    #[test]
    fn whoever_pays_nothing_gets_a_ration_whoever_pays_the_price_is_limited_by_room_alone() {
        let room = usize::MAX;
        let free = choose(many(11_000, 0, |_| 7, 0), Used::default(), PRICE, room);
        assert!(bytes_of(&free) <= RATION / 8 && free.len() > 100, "{}", free.len());
        let paid = choose(many(11_000, 0, |_| 7, COST), Used::default(), PRICE, room);
        assert_eq!(paid.len(), 11_000);
        // What was given and is not derived counts.
        let mut used = Used::default();
        free.iter().for_each(|_| used.add(Some(&[7]), Some(0), TRANSFER, PRICE));
        assert_eq!(choose(many(9, 0, |_| 7, 0), used.clone(), PRICE, room), Vec::<i64>::new());
        assert_eq!(choose(many(9, 0, |_| 8, 0), used, PRICE, room).len(), 9, "another sender");
    }

    #[test]
    fn many_free_senders_cannot_use_up_what_is_kept_for_one_who_pays() {
        let sybils = many(20_000, 0, |n| (n % 200) as u8, 0);
        let given = choose(sybils, Used::default(), PRICE, usize::MAX);
        assert!(bytes_of(&given) <= RATION / 4, "{}", given.len());
        let mut used = Used::default();
        given.iter().for_each(|_| used.add(Some(&[1]), Some(0), TRANSFER, PRICE));
        for (fee, least) in [(100, 80), (COST - 1, 250), (COST, 1_000)] {
            let served = choose(many(1_000, 0, |_| 250, fee), used.clone(), PRICE, usize::MAX);
            assert!(served.len() >= least, "{fee}: {}", served.len());
        }
    }

    #[test]
    fn those_that_pay_most_come_first_and_each_senders_in_their_order() {
        let waiting = [candidate(1, 1, 10), candidate(2, 2, 50), candidate(3, 1, 900), candidate(4, 3, 50)].to_vec();
        let owed = Candidate { owed: true, ..candidate(5, 9, 0) };
        let waiting = [waiting, vec![owed]].concat();
        assert_eq!(choose(waiting.clone(), Used::default(), PRICE, usize::MAX), [5, 2, 4, 1, 3]);
        assert_eq!(choose(waiting.clone(), Used::default(), PRICE, 3 * TRANSFER), [5, 2, 4]);
        assert_eq!(choose(waiting, Used::default(), PRICE, TRANSFER - 1), Vec::<i64>::new());
    }

    #[test]
    fn without_fees_they_come_in_order_of_arrival_and_room_is_the_limit() {
        let opaque = |seq| Candidate { seq, sender: None, fee: None, size: 1_000, owed: false };
        let chosen = choose((0..500).map(opaque).collect(), Used::default(), PRICE, 300_000);
        assert_eq!(chosen, (0..300).collect::<Vec<i64>>());
    }
}
