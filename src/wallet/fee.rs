//! Fee arithmetic: integers, rounded up; and the caps that nothing may exceed.

use bitcoin::{Amount, FeeRate, Transaction};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The least fee for `vsize` vbytes at `rate`, rounded up; no more than all money, so that a few of them add up.
pub fn fee_for(rate: FeeRate, vsize: u64) -> Amount {
    // sat/kwu * 4 = sat/kvB
    let sat = (u128::from(rate.to_sat_per_kwu()) * 4).saturating_mul(vsize.into()).div_ceil(1000);
    u64::try_from(sat).map_or(Amount::MAX_MONEY, |sat| Amount::from_sat(sat).min(Amount::MAX_MONEY))
}

/// The rate that `fee` for `vsize` vbytes comes to, rounded up.
pub fn rate_of(fee: Amount, vsize: u64) -> FeeRate {
    let per_kwu = (u128::from(fee.to_sat()) * 1000).div_ceil(u128::from(vsize.max(1)) * 4);
    FeeRate::from_sat_per_kwu(u64::try_from(per_kwu).unwrap_or(u64::MAX))
}

/// A transaction's virtual size, from its serialised form.
pub fn vsize(tx: &Transaction) -> u64 {
    tx.weight().to_vbytes_ceil()
}

/// A fee rate as people write it: sat/vB with up to three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SatPerVb(pub FeeRate);

impl fmt::Display for SatPerVb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_kvb = u128::from(self.0.to_sat_per_kwu()) * 4;
        let (whole, rest) = (per_kvb / 1000, per_kvb % 1000);
        if rest == 0 {
            return write!(f, "{whole} sat/vB");
        }
        let digits = format!("{rest:03}");
        write!(f, "{whole}.{} sat/vB", digits.trim_end_matches('0'))
    }
}

/// 1 BTC/kvB, 100,000 sat/vB: Bitcoin Core sends nothing that pays it.
const NOT_SENT: FeeRate = FeeRate::from_sat_per_kwu(25_000_000);

/// Text that is no fee rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a fee rate is a number of sat/vB above 0 and below 100000 with up to three decimals, such as 2.5")]
pub struct BadRate;

impl FromStr for SatPerVb {
    type Err = BadRate;

    /// Reads `2`, `2.5` or `0.125`; rounds up to a whole sat/kwu.
    fn from_str(text: &str) -> Result<Self, BadRate> {
        let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || decimals.len() > 3 || !digits(whole) || !digits(decimals) {
            return Err(BadRate);
        }
        let per_kvb: u64 = format!("{whole}{decimals:0<3}").parse().map_err(|_| BadRate)?;
        match FeeRate::from_sat_per_kwu(per_kvb.div_ceil(4)) {
            rate if rate > FeeRate::ZERO && rate < NOT_SENT => Ok(Self(rate)),
            _ => Err(BadRate),
        }
    }
}

/// Limits that are checked before anything is signed. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Highest rate, over all transactions of one job together.
    pub max_fee_rate: Option<FeeRate>,
    /// Highest fee, all transactions of one job together.
    pub max_fee: Option<Amount>,
}

impl Caps {
    /// The highest rate that may be paid for `vsize` vbytes; `None` without caps.
    pub fn highest_rate(&self, vsize: u64) -> Option<FeeRate> {
        let within = |cap: Amount| {
            let per_kwu = u128::from(cap.to_sat()) * 1000 / (u128::from(vsize.max(1)) * 4);
            FeeRate::from_sat_per_kwu(u64::try_from(per_kwu).unwrap_or(u64::MAX))
        };
        [self.max_fee_rate, self.max_fee.map(within)].into_iter().flatten().min()
    }

    /// Checks what is about to be paid.
    pub fn check(&self, fee: Amount, vsize: u64) -> Result<(), FeeCap> {
        if let Some(cap) = self.max_fee.filter(|cap| fee > *cap) {
            return Err(FeeCap::Total { fee, cap });
        }
        if let Some(cap) = self.max_fee_rate.filter(|cap| fee > fee_for(*cap, vsize)) {
            return Err(FeeCap::Rate { rate: rate_of(fee, vsize), cap });
        }
        Ok(())
    }
}

/// More would be paid than the caps allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FeeCap {
    /// The fee is too high.
    #[error("the fee would be {} sat, above the cap of {} sat; raise --max-fee or wait for lower rates", fee.to_sat(), cap.to_sat())]
    Total {
        /// What it would be.
        fee: Amount,
        /// What is allowed.
        cap: Amount,
    },
    /// The rate is too high.
    #[error("the fee rate would be {}, above the cap of {}; raise --max-fee-rate or wait", SatPerVb(*rate), SatPerVb(*cap))]
    Rate {
        /// What it would be.
        rate: FeeRate,
        /// What is allowed.
        cap: FeeRate,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kwu(rate: u64) -> FeeRate {
        FeeRate::from_sat_per_kwu(rate)
    }

    #[test]
    fn fees_round_up() {
        for (rate, vsize, fee) in [(250, 154, 154), (25, 111, 12), (1, 1, 1), (0, 9, 0), (251, 100, 101), (25, 110, 11)]
        {
            assert_eq!(fee_for(kwu(rate), vsize), Amount::from_sat(fee), "{rate} {vsize}");
        }
        assert_eq!(fee_for(kwu(u64::MAX), u64::MAX), Amount::MAX_MONEY);
    }

    #[test]
    fn a_rate_pays_at_least_the_fee_that_it_came_from() {
        for (fee, vsize) in [(154, 154), (155, 154), (1, 100_000), (330, 111), (7, 3)] {
            let fee = Amount::from_sat(fee);
            assert!(fee_for(rate_of(fee, vsize), vsize) >= fee);
        }
    }

    #[test]
    fn rates_are_read_and_shown_in_sat_per_vb() {
        for (text, per_kwu, shown) in [
            ("1", 250, "1 sat/vB"),
            ("0.1", 25, "0.1 sat/vB"),
            (" 2.5 ", 625, "2.5 sat/vB"),
            ("0.001", 1, "0.004 sat/vB"),
            ("10.", 2500, "10 sat/vB"),
        ] {
            let rate: SatPerVb = text.parse().expect(text);
            assert_eq!(rate, SatPerVb(kwu(per_kwu)), "{text}");
            assert_eq!(rate.to_string(), shown);
        }
        for text in ["", "0", "-1", "1e3", "1.0001", ".5", "0.000", "100000", "99999999999999999999"] {
            assert_eq!(text.parse::<SatPerVb>(), Err(BadRate), "{text}");
        }
    }

    #[test]
    fn caps_refuse_one_satoshi_more() {
        let caps = Caps { max_fee: Some(Amount::from_sat(1000)), max_fee_rate: Some(kwu(500)) };
        assert_eq!(caps.check(Amount::from_sat(1000), 500), Ok(()));
        assert!(matches!(caps.check(Amount::from_sat(1001), 1000), Err(FeeCap::Total { .. })));
        assert!(matches!(caps.check(Amount::from_sat(201), 100), Err(FeeCap::Rate { .. })));
        assert_eq!(Caps::default().check(Amount::MAX_MONEY, 1), Ok(()));
        // What the caps allow at most is allowed, and nothing above it.
        for (vsize, highest) in [(100, 500), (499, 500), (501, 499), (1_000, 250), (7_777, 32)] {
            assert_eq!(caps.highest_rate(vsize), Some(kwu(highest)), "{vsize}");
            assert_eq!(caps.check(fee_for(kwu(highest), vsize), vsize), Ok(()), "{vsize}");
        }
        assert_eq!(Caps::default().highest_rate(9), None);
    }
}
