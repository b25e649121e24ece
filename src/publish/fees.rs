//! Which fee rate to pay: what was asked for, else the node's estimate, else what the network allows.
//!
//! An estimator that has no data or has gone mad is an error on mainnet, never a silent guess.

use super::PublishError;
use crate::chain::Mempool;
use crate::wallet::SatPerVb;
use bitcoin::{FeeRate, Network};

/// Above this an estimate is not believed: 1,000 sat/vB.
pub const HIGHEST_ESTIMATE: FeeRate = FeeRate::from_sat_per_kwu(250_000);
/// Our own floor on regtest, where nobody competes: 1 sat/vB.
const REGTEST_FLOOR: FeeRate = FeeRate::from_sat_per_kwu(250);

/// Where a rate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateSource {
    /// It was asked for.
    Explicit,
    /// The node's estimate for this many blocks.
    Estimate(u16),
    /// The lowest rate that the node relays; there was no data for an estimate.
    Floor,
}

/// A rate, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenRate {
    /// The rate.
    pub rate: FeeRate,
    /// Its source.
    pub source: RateSource,
    /// Something that a person should read before paying it.
    pub warning: Option<String>,
}

/// Chooses a rate with the node's help.
///
/// # Errors
/// [`PublishError::NoFeeData`] on mainnet without an estimate, [`PublishError::MadEstimate`],
/// [`PublishError::BelowFloor`] for an explicit rate that the node would not relay.
pub fn fee_rate(
    node: &impl Mempool,
    network: Network,
    explicit: Option<FeeRate>,
    target_blocks: u16,
) -> Result<ChosenRate, PublishError> {
    let floor = node.relay()?.floor;
    let estimate = match explicit {
        Some(_) => None,
        None => node.estimate(target_blocks)?,
    };
    choose(network, explicit, estimate, floor, target_blocks)
}

/// As [`fee_rate`], from the facts.
fn choose(
    network: Network,
    explicit: Option<FeeRate>,
    estimate: Option<FeeRate>,
    floor: FeeRate,
    target_blocks: u16,
) -> Result<ChosenRate, PublishError> {
    let chosen = |rate, source, warning| Ok(ChosenRate { rate, source, warning });
    if let Some(rate) = explicit {
        check_floor(rate, floor)?;
        return chosen(rate, RateSource::Explicit, None);
    }
    if let Some(rate) = estimate {
        if rate > HIGHEST_ESTIMATE {
            return Err(PublishError::MadEstimate { rate, cap: HIGHEST_ESTIMATE });
        }
        return chosen(rate.max(floor), RateSource::Estimate(target_blocks), None);
    }
    match network {
        Network::Bitcoin => Err(PublishError::NoFeeData),
        Network::Regtest => chosen(floor.max(REGTEST_FLOOR), RateSource::Floor, None),
        _ => {
            let rate = SatPerVb(floor);
            let warning = format!("no fee estimate: paying the node's minimum of {rate}");
            chosen(floor, RateSource::Floor, Some(warning))
        }
    }
}

pub(crate) fn check_floor(rate: FeeRate, floor: FeeRate) -> Result<(), PublishError> {
    if rate < floor { Err(PublishError::BelowFloor { rate, floor }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kwu(rate: u64) -> FeeRate {
        FeeRate::from_sat_per_kwu(rate)
    }

    fn chosen(
        network: Network,
        explicit: Option<u64>,
        estimate: Option<u64>,
        floor: u64,
    ) -> Result<(u64, bool), PublishError> {
        choose(network, explicit.map(kwu), estimate.map(kwu), kwu(floor), 6)
            .map(|chosen| (chosen.rate.to_sat_per_kwu(), chosen.warning.is_some()))
    }

    #[test]
    fn mainnet_without_data_is_refused_not_guessed() {
        let error = chosen(Network::Bitcoin, None, None, 25).expect_err("no data");
        assert!(matches!(error, PublishError::NoFeeData));
        assert!(error.to_string().contains("--fee-rate"));
    }

    #[test]
    fn a_mad_estimate_is_refused_on_every_network() {
        for network in [Network::Bitcoin, Network::Signet, Network::Regtest] {
            let error = chosen(network, None, Some(19_000 * 250), 25).expect_err("mad");
            assert!(matches!(error, PublishError::MadEstimate { .. }));
        }
    }

    #[test]
    fn rates_come_from_the_stated_sources_in_order() {
        for (network, explicit, estimate, floor, rate, warned) in [
            (Network::Bitcoin, Some(600), Some(900), 25, 600, false),
            (Network::Bitcoin, None, Some(900), 25, 900, false),
            (Network::Bitcoin, None, Some(20), 25, 25, false),
            (Network::Signet, None, None, 25, 25, true),
            (Network::Testnet4, None, None, 250, 250, true),
            (Network::Regtest, None, None, 25, 250, false),
            (Network::Regtest, None, None, 500, 500, false),
            (Network::Regtest, Some(25), None, 25, 25, false),
        ] {
            let got = chosen(network, explicit, estimate, floor).expect("a rate");
            assert_eq!(got, (rate, warned), "{network} {explicit:?} {estimate:?} {floor}");
        }
    }

    #[test]
    fn an_explicit_rate_below_the_floor_is_refused() {
        let error = chosen(Network::Regtest, Some(24), None, 25).expect_err("too low");
        assert!(matches!(error, PublishError::BelowFloor { .. }));
    }
}
