//! Which fee rate to pay: what was asked for, else the own node's estimate, else the middle one of the servers',
//! else the fallback, else what the network allows.
//!
//! Guarantees that an estimator without data or gone mad is passed over, that of several servers one that lies does
//! not decide, that the word of a single one is compared with recent blocks or bounded, and that on mainnet nobody's
//! money is spent on a guess. Every step is told, so that a person can see why.

use super::PublishError;
use crate::chain::{ChainError, Mempool, RelayFacts};
use crate::wallet::SatPerVb;
use bitcoin::{FeeRate, Network};

/// Above this an estimate is not believed: 1,000 sat/vB.
pub const HIGHEST_ESTIMATE: FeeRate = FeeRate::from_sat_per_kwu(250_000);
/// Above this the estimate of one server that nothing confirms is not believed, and told of if only its own account of
/// recent blocks does: 100 sat/vB.
const HIGHEST_WORD: FeeRate = FeeRate::from_sat_per_kwu(25_000);
/// An estimate above this multiple of what recent blocks paid is not believed.
const BELIEVED_MULTIPLE: u64 = 10;
/// What nodes have asked for at least, for years: 1 sat/vB.
const USUAL_MINIMUM: FeeRate = FeeRate::from_sat_per_kwu(250);
/// Our own floor on regtest, where nobody competes: 1 sat/vB.
const REGTEST_FLOOR: FeeRate = FeeRate::from_sat_per_kwu(250);

/// Where a rate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateSource {
    /// It was asked for.
    Explicit,
    /// This source's estimate.
    Estimate(String),
    /// The rate that was given for want of an estimate.
    Fallback,
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
    /// What was asked and decided, in order; one sentence each.
    pub steps: Vec<String>,
    /// Something that a person should read before paying it.
    pub warning: Option<String>,
}

/// What decides a rate, beside the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateTerms {
    /// Where the money is real, guessing is refused.
    pub network: Network,
    /// Asked for: then nobody is asked.
    pub explicit: Option<FeeRate>,
    /// Taken where no estimate is believed.
    pub fallback: Option<FeeRate>,
    /// Blocks within which to confirm.
    pub target_blocks: u16,
}

/// What one source said.
type Said = Result<(Option<FeeRate>, Option<FeeRate>), ChainError>;

/// Chooses a rate. The sources are asked in order, each within its own time limit; the first is the one
/// that transactions are sent to. A believed estimate of one's own node ends the search; of those of servers the
/// middle one is taken, the lower of the two if their number is even.
///
/// # Errors
/// [`PublishError::NoFeeData`] on mainnet without an estimate or fallback,
/// [`PublishError::MadEstimate`] if the only estimates are not believed and there is no fallback,
/// [`PublishError::BelowFloor`] for a rate that was asked for and that the node would not relay.
pub fn fee_rate(sources: &[&dyn Mempool], terms: &RateTerms) -> Result<ChosenRate, PublishError> {
    let first = sources.first().ok_or(PublishError::Broken("no source of fee rates"))?;
    let floor = relay(*first)?.floor;
    let ask = |source: &&dyn Mempool| -> Said {
        let estimate = source.estimate(terms.target_blocks)?;
        // Of a server that tells nothing about its blocks less is believed.
        let paid = source.recently_paid().or_else(|error| if source.is_own_node() { Err(error) } else { Ok(None) });
        Ok((estimate, paid?))
    };
    choose(terms, floor, sources.iter().map(|source| (source.name(), source.is_own_node(), ask(source))))
}

/// What a node relays, if what it asks for is believable: whoever wants a wallet to pay much can name a high minimum as
/// well as a high estimate. Up to ten times the usual minimum nobody asks what blocks paid.
///
/// # Errors
/// [`PublishError::MadFloor`].
pub fn relay(node: &(impl Mempool + ?Sized)) -> Result<RelayFacts, PublishError> {
    let facts = node.relay()?;
    let floor = facts.floor.max(facts.incremental);
    if floor <= plausible(USUAL_MINIMUM) {
        return Ok(facts);
    }
    let paid = node.recently_paid()?;
    let cap = paid.map_or(HIGHEST_WORD, |paid| plausible(paid.max(USUAL_MINIMUM)));
    if floor > cap { Err(PublishError::MadFloor { floor, cap }) } else { Ok(facts) }
}

/// What is believed of rates where recent blocks paid this.
fn plausible(paid: FeeRate) -> FeeRate {
    FeeRate::from_sat_per_kwu(paid.to_sat_per_kwu().saturating_mul(BELIEVED_MULTIPLE)).min(HIGHEST_ESTIMATE)
}

/// As [`fee_rate`], from the facts; a source is asked only when its turn comes.
fn choose<'a>(
    terms: &RateTerms,
    floor: FeeRate,
    sources: impl Iterator<Item = (&'a str, bool, Said)>,
) -> Result<ChosenRate, PublishError> {
    let mut steps = Vec::new();
    if let Some(rate) = terms.explicit {
        check_floor(rate, floor)?;
        steps.push(format!("{} was asked for; the node takes {} and more", SatPerVb(rate), SatPerVb(floor)));
        return Ok(ChosenRate { rate, source: RateSource::Explicit, steps, warning: None });
    }
    let mut mad = None;
    let mut believed = Vec::new();
    // What recent blocks paid, of the last source that could tell.
    let mut known = None;
    for (name, is_own, said) in sources {
        let (estimate, paid) = match said {
            Ok((estimate, paid)) => {
                known = paid.or(known);
                (estimate, known)
            }
            Err(error) => {
                steps.push(format!("{name} gave no answer: {error}"));
                continue;
            }
        };
        let Some(rate) = estimate else {
            steps.push(format!("{name} has too little data for an estimate"));
            continue;
        };
        let highest = paid.map_or(HIGHEST_ESTIMATE, plausible);
        let blocks = terms.target_blocks;
        let mut step = format!("{name} estimates {} for {blocks} blocks", SatPerVb(rate));
        if let Some(paid) = paid {
            step += &format!("; the last blocks paid up to {}", SatPerVb(paid));
        }
        if rate > highest {
            steps.push(format!("{step}; above {} it is not believed", SatPerVb(highest)));
            mad = mad.or(Some(PublishError::MadEstimate { rate, cap: highest }));
            continue;
        }
        steps.push(format!("{step}; the node takes {} and more", SatPerVb(floor)));
        believed.push((rate, name, is_own));
        if is_own {
            break;
        }
    }
    believed.sort();
    let mut warning = None;
    if let [(rate, name, false)] = believed[..]
        && rate > HIGHEST_WORD
    {
        let word = format!("{} is the word of one server, {name}, and nobody else's", SatPerVb(rate));
        match known {
            Some(_) => warning = Some(format!("{word}; compare it, and say --fee-rate or name a second server")),
            None => {
                steps
                    .push(format!("{word}; without recent blocks it is not believed above {}", SatPerVb(HIGHEST_WORD)));
                mad = mad.or(Some(PublishError::MadEstimate { rate, cap: HIGHEST_WORD }));
                believed.clear();
            }
        }
    }
    if let Some((rate, name, _)) = believed.get(believed.len().saturating_sub(1) / 2) {
        if believed.len() > 1 {
            steps.push(format!("of {} estimates {name}'s is the middle one", believed.len()));
        }
        let source = RateSource::Estimate((*name).to_owned());
        return Ok(ChosenRate { rate: floor.max(*rate), source, steps, warning });
    }
    if let Some(rate) = terms.fallback {
        steps.push(format!("no estimate: {} as the fallback says", SatPerVb(rate)));
        return Ok(ChosenRate { rate: rate.max(floor), source: RateSource::Fallback, steps, warning: None });
    }
    match (mad, terms.network) {
        (Some(mad), _) => Err(mad),
        (None, Network::Bitcoin) => Err(PublishError::NoFeeData),
        (None, Network::Regtest) => {
            let rate = floor.max(REGTEST_FLOOR);
            steps.push(format!("no estimate: {} on regtest", SatPerVb(rate)));
            Ok(ChosenRate { rate, source: RateSource::Floor, steps, warning: None })
        }
        (None, _) => {
            let step = format!("no fee estimate: paying the node's minimum of {}", SatPerVb(floor));
            steps.push(step.clone());
            Ok(ChosenRate { rate: floor, source: RateSource::Floor, steps, warning: Some(step) })
        }
    }
}

pub(crate) fn check_floor(rate: FeeRate, floor: FeeRate) -> Result<(), PublishError> {
    if rate < floor { Err(PublishError::BelowFloor { rate, floor }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{MempoolEntry, Verdict};
    use bitcoin::{OutPoint, Transaction, TxOut, Txid};

    fn kwu(rate: u64) -> FeeRate {
        FeeRate::from_sat_per_kwu(rate)
    }

    fn terms(network: Network, explicit: Option<u64>, fallback: Option<u64>) -> RateTerms {
        RateTerms { network, explicit: explicit.map(kwu), fallback: fallback.map(kwu), target_blocks: 6 }
    }

    fn said(estimate: Option<u64>, paid: Option<u64>) -> Said {
        Ok((estimate.map(kwu), paid.map(kwu)))
    }

    fn silent() -> Said {
        Err(ChainError::Unreachable { url: "http://127.0.0.1:1".into(), reason: "timed out".into() })
    }

    fn chosen(terms: &RateTerms, said: Vec<Said>) -> Result<ChosenRate, PublishError> {
        choose(
            terms,
            kwu(25),
            ["first", "second", "third"].into_iter().zip(said).map(|(name, said)| (name, false, said)),
        )
    }

    #[test]
    fn mainnet_without_data_is_refused_not_guessed() {
        for sources in [vec![said(None, None)], vec![silent(), said(None, Some(500))], vec![]] {
            let error = chosen(&terms(Network::Bitcoin, None, None), sources).expect_err("no data");
            assert!(matches!(error, PublishError::NoFeeData));
            assert!(error.to_string().contains("--fee-rate") && error.to_string().contains("--fallback-fee-rate"));
        }
        let fallback = chosen(&terms(Network::Bitcoin, None, Some(700)), vec![silent()]).expect("the fallback");
        assert_eq!((fallback.rate, fallback.source), (kwu(700), RateSource::Fallback));
    }

    #[test]
    fn a_mad_estimate_is_passed_over_and_refused_if_it_is_the_only_one() {
        let mad = || said(Some(19_000 * 250), None);
        // Ten times what nine tenths of the last blocks paid, and one more.
        let above_recent = || said(Some(2_501), Some(250));
        for network in [Network::Bitcoin, Network::Signet, Network::Regtest] {
            for only in [mad(), above_recent()] {
                let error = chosen(&terms(network, None, None), vec![only, silent()]).expect_err("mad");
                assert!(matches!(error, PublishError::MadEstimate { .. }));
            }
            let other = chosen(&terms(network, None, None), vec![mad(), above_recent(), said(Some(900), None)]);
            let other = other.expect("the third is sane");
            assert_eq!((other.rate, other.source), (kwu(900), RateSource::Estimate("third".into())));
            assert_eq!(other.steps.len(), 3);
        }
        let believed = chosen(&terms(Network::Bitcoin, None, None), vec![said(Some(2_500), Some(250))]);
        assert_eq!(believed.expect("ten times is believed").rate, kwu(2_500));
    }

    #[test]
    fn what_blocks_paid_by_one_source_checks_the_estimate_of_another() {
        let sources = || vec![said(None, Some(250)), said(Some(2_501), None)];
        let error = chosen(&terms(Network::Bitcoin, None, None), sources()).expect_err("eleven times");
        assert!(matches!(error, PublishError::MadEstimate { .. }));
    }

    #[test]
    fn of_several_servers_one_that_lies_does_not_decide() {
        for (estimates, rate, name) in [
            (vec![900, 250_000], 900, "first"),
            (vec![250_000, 900], 900, "second"),
            (vec![250_000, 900, 1_000], 1_000, "third"),
            (vec![1, 900, 1_000], 900, "second"),
        ] {
            let said = estimates.iter().map(|estimate| said(Some(*estimate), None)).collect();
            let got = chosen(&terms(Network::Bitcoin, None, None), said).expect("a rate");
            assert_eq!((got.rate, got.source), (kwu(rate), RateSource::Estimate(name.into())), "{estimates:?}");
            assert!(got.steps.last().is_some_and(|step| step.contains("middle one")), "{:?}", got.steps);
        }
    }

    #[test]
    fn the_word_of_one_server_is_bounded_and_told_of() {
        for (estimate, paid, own, rate) in [
            (25_000, None, false, Some((25_000, false))),
            (25_001, None, false, None),
            (25_001, Some(2_501), false, Some((25_001, true))),
            (25_001, Some(2_500), false, None),
            (25_001, None, true, Some((25_001, false))),
        ] {
            let sources = [("one", own, said(Some(estimate), paid))].into_iter();
            let got = choose(&terms(Network::Bitcoin, None, None), kwu(25), sources);
            let got = got.map(|got| (got.rate.to_sat_per_kwu(), got.warning.is_some())).ok();
            assert_eq!(got, rate, "{estimate} {paid:?} {own}");
        }
        let asked_for = choose(&terms(Network::Bitcoin, Some(99_000), None), kwu(25), std::iter::empty());
        assert_eq!(asked_for.expect("as asked").rate, kwu(99_000), "whatever anybody says");
    }

    #[test]
    fn nobody_is_asked_when_the_own_node_answered() {
        let asked = std::cell::Cell::new(0);
        let sources = (0..3).map(|_| {
            asked.set(asked.get() + 1);
            ("bitcoind", true, said(Some(900), None))
        });
        choose(&terms(Network::Bitcoin, None, None), kwu(25), sources).expect("a rate");
        assert_eq!(asked.get(), 1);
        let explicit = choose(&terms(Network::Bitcoin, Some(600), None), kwu(25), std::iter::empty());
        assert_eq!(explicit.expect("as asked").rate, kwu(600));
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
            let sources = [("bitcoind", true, said(estimate, None))].into_iter();
            let got = choose(&terms(network, explicit, None), kwu(floor), sources).expect("a rate");
            let got = (got.rate.to_sat_per_kwu(), got.warning.is_some());
            assert_eq!(got, (rate, warned), "{network} {explicit:?} {estimate:?} {floor}");
        }
    }

    /// A node that says what it asks for at least, and what blocks paid.
    struct Asks {
        floor: u64,
        incremental: u64,
        paid: Option<u64>,
    }

    impl Mempool for Asks {
        fn relay(&self) -> Result<RelayFacts, ChainError> {
            let (floor, incremental) = (kwu(self.floor), kwu(self.incremental));
            Ok(RelayFacts { version: 310_000, floor, incremental, packages: true, data_carrier: None })
        }

        fn recently_paid(&self) -> Result<Option<FeeRate>, ChainError> {
            Ok(self.paid.map(kwu))
        }

        fn test_accept(&self, _: &[Transaction], _: FeeRate) -> Result<Vec<Verdict>, ChainError> {
            unreachable!()
        }

        fn submit(&self, _: &[Transaction], _: FeeRate) -> Result<Vec<Verdict>, ChainError> {
            unreachable!()
        }

        fn entry(&self, _: &Txid) -> Result<Option<MempoolEntry>, ChainError> {
            unreachable!()
        }

        fn transaction(&self, _: &Txid) -> Result<Option<Transaction>, ChainError> {
            unreachable!()
        }

        fn unspent(&self, _: &OutPoint) -> Result<Option<(TxOut, u32)>, ChainError> {
            unreachable!()
        }

        fn estimate(&self, _: u16) -> Result<Option<FeeRate>, ChainError> {
            Ok(None)
        }
    }

    #[test]
    fn a_minimum_is_held_against_recent_blocks_as_an_estimate_is() {
        for (floor, incremental, paid, is_believed) in [
            (25, 25, Some(250), true),
            // As in a rush: blocks pay more than the minimum.
            (12_500, 250, Some(25_000), true),
            (2_500, 2_500, Some(25), true),
            (2_501, 250, Some(250), false),
            (250, 2_501, Some(250), false),
            (25_000, 250, None, true),
            (25_001, 250, None, false),
            (250_001, 250, Some(250_000), false),
        ] {
            let node = Asks { floor, incremental, paid };
            let facts = relay(&node);
            assert_eq!(facts.is_ok(), is_believed, "{floor} {incremental} {paid:?}");
            let chosen = fee_rate(&[&node], &terms(Network::Signet, None, None));
            assert_eq!(chosen.is_ok(), is_believed, "nothing is paid by it: {chosen:?}");
        }
    }

    #[test]
    fn an_explicit_rate_below_the_floor_is_refused() {
        let error = chosen(&terms(Network::Regtest, Some(24), None), vec![]).expect_err("too low");
        assert!(matches!(error, PublishError::BelowFloor { .. }));
    }
}
