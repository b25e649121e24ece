//! What work a network demands of its headers.
//!
//! As Bitcoin Core's `CheckProofOfWork`, `GetNextWorkRequired` and, where the header that a period begins
//! with is not at hand, `PermittedDifficultyTransition`.

use super::Refutation;
use super::bitcoin_headers::HeaderChain;
use super::bitcoin_headers::LinkedHeaders;
use crate::primitives::BtcHeight;
use alloc::collections::BTreeMap;
use bitcoin::block::Header;
use bitcoin::consensus::Params;
use bitcoin::p2p::Magic;
use bitcoin::{CompactTarget, Target};
use serde::Serialize;

const REGTEST_BITS: u32 = 0x207f_ffff;

/// How far behind its parent's time a period's first block may be on testnet4, in seconds (BIP94).
const MAX_TIMEWARP: u32 = 600;

/// What a network's headers must show.
pub(super) enum HeaderRules {
    /// Proof of work, with nBits that follow from the headers before.
    Work(WorkRules),
    /// These nBits; the work proves nothing.
    Constant(CompactTarget),
    /// Nothing but linkage: a signet's blocks are made by signatures, an unknown network's by unknown rules.
    Linkage,
}

/// The rules of mainnet or testnet4.
pub(super) struct WorkRules {
    pub params: Params,
    /// Testnet4: blocks of least difficulty after twenty minutes, retargets from a period's first block.
    pub is_bip94: bool,
}

/// How well the nBits of headers could be checked with the headers at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BitsChecked {
    /// Exactly as the network demands.
    pub exact: u32,
    /// A new period whose length is unknown, as the last period's first header is not there: within the
    /// factor 4 that a retarget may change.
    pub bounded: u32,
    /// Only that they are not easier than the network's limit.
    pub unchecked: u32,
}

/// What nBits a header may have.
enum Demand {
    Exactly(CompactTarget),
    Between { hardest: CompactTarget, easiest: CompactTarget },
    Unknown,
}

/// Checks headers that a Bitcoin source shows above blocks which are believed already: each names the one before,
/// and has the work that the network demands of it. `below` gives headers of those blocks, as far as they are known.
pub fn check_headers(
    network: Magic,
    chain: &HeaderChain,
    below: &BTreeMap<BtcHeight, Header>,
) -> Result<(), Refutation> {
    let linked = chain.link()?;
    match HeaderRules::of(network) {
        HeaderRules::Work(rules) => {
            let known = |height| linked.at(height).map(|(_, header)| header).or_else(|| below.get(&height));
            rules.check(&linked, known).map(drop)
        }
        HeaderRules::Constant(bits) => match linked.iter().find(|(_, header)| header.bits != bits) {
            Some((block, _)) => Err(Refutation::Bits { height: block.height }),
            None => Ok(()),
        },
        HeaderRules::Linkage => Ok(()),
    }
}

/// Mainnet's difficulty has never been as low as these nBits say, from these heights on: a tenth of what it is, or
/// less.
const MAINNET_LOWEST: [(BtcHeight, u32); 2] = [(600_000, 0x171c_25a6), (350_000, 0x181b_7cd3)];

/// Checks the work of a header whose chain is not shown: that it costs a fortune to make one up.
pub fn check_work(network: Magic, height: BtcHeight, header: &Header) -> Result<(), Refutation> {
    check_headers(network, &HeaderChain::new(height, [*header]), &BTreeMap::new())?;
    let lowest = MAINNET_LOWEST.iter().find(|(from, _)| network == Magic::BITCOIN && height >= *from);
    match lowest {
        Some((_, bits)) if header.target() > Target::from_compact(CompactTarget::from_consensus(*bits)) => {
            Err(Refutation::Bits { height })
        }
        _ => Ok(()),
    }
}

/// How many blocks have the same difficulty, on a network whose headers show work.
pub fn difficulty_period(network: Magic) -> Option<u32> {
    match HeaderRules::of(network) {
        HeaderRules::Work(rules) => Some(rules.interval()),
        HeaderRules::Constant(_) | HeaderRules::Linkage => None,
    }
}

impl HeaderRules {
    pub fn of(network: Magic) -> Self {
        match network {
            Magic::BITCOIN => HeaderRules::Work(WorkRules { params: Params::MAINNET, is_bip94: false }),
            Magic::TESTNET4 => HeaderRules::Work(WorkRules { params: Params::TESTNET4, is_bip94: true }),
            Magic::REGTEST => HeaderRules::Constant(CompactTarget::from_consensus(REGTEST_BITS)),
            _ => HeaderRules::Linkage,
        }
    }
}

impl WorkRules {
    /// Checks every header; `known` gives headers of the same chain, those of `chain` among them.
    pub fn check<'a>(
        &self,
        chain: &LinkedHeaders<'a>,
        known: impl Fn(BtcHeight) -> Option<&'a Header>,
    ) -> Result<BitsChecked, Refutation> {
        let mut checked = BitsChecked::default();
        let mut real = None;
        for (block, header) in chain.iter() {
            let height = block.height;
            let before = |blocks: u32| height.checked_sub(blocks).and_then(&known);
            let target = self.target(header.bits).ok_or(Refutation::Bits { height })?;
            if !target.is_met_by(block.hash) {
                return Err(Refutation::Work { height });
            }
            let in_period = height % self.interval();
            let (parent, demand) = if in_period == 0 {
                let (parent, first) = (before(1), before(self.interval()));
                (parent, self.demand_of_period(parent, first, real))
            } else {
                // What the period began with is never an exception.
                real = real.or_else(|| before(in_period).map(|first| first.bits));
                (before(1), self.demand_within_period(header, before(1), real))
            };
            let is_warped = |parent: &Header| header.time.saturating_add(MAX_TIMEWARP) < parent.time;
            if self.is_bip94 && in_period == 0 && parent.is_some_and(is_warped) {
                return Err(Refutation::TimeWarp { height });
            }
            self.meet(&demand, header.bits, &mut checked).ok_or(Refutation::Bits { height })?;
            if in_period == 0 || header.bits != self.limit() {
                real = Some(header.bits);
            }
        }
        Ok(checked)
    }

    pub fn interval(&self) -> u32 {
        u32::try_from(self.params.pow_target_timespan / self.params.pow_target_spacing).unwrap_or(u32::MAX)
    }

    /// The easiest nBits.
    fn limit(&self) -> CompactTarget {
        self.params.max_attainable_target.to_compact_lossy()
    }

    /// What nBits stand for, unless that is negative, zero, too large for 256 bits or easier than the limit.
    pub fn target(&self, bits: CompactTarget) -> Option<Target> {
        // A larger exponent is past every network's limit, and past what `Target` can shift by.
        if bits.to_consensus() >> 24 > 32 {
            return None;
        }
        let target = Target::from_compact(bits);
        (target != Target::ZERO && target <= self.params.max_attainable_target).then_some(target)
    }

    /// The nBits after a period with nBits `base` that took `timespan` seconds.
    pub fn next_bits(&self, base: CompactTarget, timespan: u64) -> CompactTarget {
        CompactTarget::from_next_work_required(base, timespan, &self.params)
    }

    /// The nBits of a period's first block.
    fn demand_of_period(&self, parent: Option<&Header>, first: Option<&Header>, real: Option<CompactTarget>) -> Demand {
        let base = match (self.is_bip94, first) {
            (true, Some(first)) => Some(first.bits),
            (true, None) => real,
            (false, _) => parent.map(|parent| parent.bits),
        };
        let Some(base) = base.filter(|base| self.target(*base).is_some()) else { return Demand::Unknown };
        match (parent, first) {
            (Some(parent), Some(first)) => {
                let timespan = parent.time.saturating_sub(first.time);
                Demand::Exactly(self.next_bits(base, timespan.into()))
            }
            _ => Demand::Between { hardest: self.next_bits(base, 0), easiest: self.next_bits(base, u64::MAX) },
        }
    }

    /// The nBits of any other block; `real` are the period's without exceptions, if they are known.
    fn demand_within_period(&self, header: &Header, parent: Option<&Header>, real: Option<CompactTarget>) -> Demand {
        let Some(parent) = parent else { return Demand::Unknown };
        if !self.is_bip94 {
            return Demand::Exactly(parent.bits);
        }
        let is_late = u64::from(header.time) > u64::from(parent.time) + 2 * self.params.pow_target_spacing;
        if is_late { Demand::Exactly(self.limit()) } else { real.map_or(Demand::Unknown, Demand::Exactly) }
    }

    /// Counts a demand that is met.
    fn meet(&self, demand: &Demand, bits: CompactTarget, checked: &mut BitsChecked) -> Option<()> {
        let (is_met, count) = match demand {
            Demand::Exactly(demanded) => (bits == *demanded, &mut checked.exact),
            Demand::Between { hardest, easiest } => {
                let target = self.target(bits)?;
                let is_within = self.target(*hardest)? <= target && target <= self.target(*easiest)?;
                (is_within, &mut checked.bounded)
            }
            Demand::Unknown => (true, &mut checked.unchecked),
        };
        *count += 1;
        is_met.then_some(())
    }
}
