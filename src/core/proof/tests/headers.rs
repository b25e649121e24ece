//! Header chains: what hangs on which anchor by how much work, on networks as hard as a test can mine.

mod cases;
mod mainnet;

pub(super) use cases::cases;

use super::*;
use crate::primitives::BlockRef;
use crate::proof::difficulty::{HeaderRules, WorkRules};
use crate::proof::judge::judge_by;
use crate::proof::standing::stand;
use bitcoin::block::Version;
use bitcoin::consensus::Params;
use bitcoin::hashes::Hash;
use bitcoin::p2p::Magic;
use bitcoin::{BlockHash, CompactTarget, Target, TxMerkleNode, Work};

/// The easiest nBits of the tests' network: 32 hashes.
const LIMIT: u32 = 0x2007_ffff;
/// A sixteenth of the limit's target, and half of that.
const REAL: u32 = 0x1f7f_fff0;
const HARDER: u32 = 0x1f3f_fff8;

/// Mainnet's rules or testnet4's with periods of four blocks, a second between them.
fn rules(is_bip94: bool) -> HeaderRules {
    let mut params = if is_bip94 { Params::TESTNET4 } else { Params::MAINNET };
    (params.pow_target_spacing, params.pow_target_timespan) = (1, 4);
    params.max_attainable_target = Target::from_compact(CompactTarget::from_consensus(LIMIT));
    HeaderRules::Work(WorkRules { params, is_bip94 })
}

fn with_work(mut header: Header, bits: u32) -> Header {
    header.bits = CompactTarget::from_consensus(bits);
    while !header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    header
}

/// Headers from height 100, the first of a period, with these times and nBits.
fn mine(blocks: &[(u32, u32)]) -> Vec<Header> {
    let mut headers: Vec<Header> = Vec::new();
    for (time, bits) in blocks {
        let prev_blockhash = headers.last().map_or(BlockHash::all_zeros(), Header::block_hash);
        let (version, merkle_root) = (Version::TWO, TxMerkleNode::all_zeros());
        let bits_field = CompactTarget::from_consensus(*bits);
        let header = Header { version, prev_blockhash, merkle_root, time: 1000 + time, bits: bits_field, nonce: 0 };
        headers.push(with_work(header, *bits));
    }
    headers
}

/// A header chain, what the checker holds, and what comes of it for the block at `height`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct HeaderCase {
    name: String,
    rules: Rules,
    headers: HeaderChain,
    height: u32,
    /// Blocks of which the checker holds the hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    anchors: Vec<BlockRef>,
    /// Blocks of which it holds the header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    anchor_headers: Vec<(u32, Raw<Header>)>,
    /// `ok`, or the verdict.
    result: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shown: Option<Shown>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rules {
    Mainnet,
    Testnet4,
    Regtest,
    Signet,
    /// Mainnet's, with periods of four blocks, a second between them, and the limit `2007ffff`.
    EasyMainnet,
    /// Testnet4's, likewise.
    EasyTestnet4,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Shown {
    anchor: u32,
    depth: u32,
    work: Option<Hash32>,
    /// Exactly checked, bounded, unchecked.
    bits: Option<(u32, u32, u32)>,
}

impl HeaderCase {
    /// The result and what is shown, as the library has it.
    pub(super) fn judge(&self) -> (String, Option<Shown>) {
        let rules = match self.rules {
            Rules::Mainnet => HeaderRules::of(Magic::BITCOIN),
            Rules::Testnet4 => HeaderRules::of(Magic::TESTNET4),
            Rules::Regtest => HeaderRules::of(Magic::REGTEST),
            Rules::Signet => HeaderRules::of(Magic::SIGNET),
            Rules::EasyMainnet => rules(false),
            Rules::EasyTestnet4 => rules(true),
        };
        let mut fields = (*World::example().manifest).clone();
        // The start block is an anchor as well: one that no case has.
        fields.start.height = 1_000_000;
        let mut anchors = Anchors::new(Manifest::new(fields).unwrap());
        self.anchors.iter().for_each(|block| anchors.add_bitcoin_block(*block).unwrap());
        self.anchor_headers
            .iter()
            .for_each(|(height, Raw(header))| anchors.add_bitcoin_header(*height, *header).unwrap());
        let facts = self
            .headers
            .link()
            .map_err(Verdict::from)
            .and_then(|headers| stand(&headers, self.height, &anchors, &rules));
        match facts {
            Err(verdict) => (verdict_name(&verdict), None),
            Ok(BitcoinFacts { anchor, depth, work, bits, .. }) => {
                let bits = bits.map(|bits| (bits.exact, bits.bounded, bits.unchecked));
                ("ok".into(), Some(Shown { anchor: anchor.height, depth, work, bits }))
            }
        }
    }

    /// Judges it again.
    pub(super) fn check(&self) {
        assert_eq!(self.judge(), (self.result.clone(), self.shown.clone()), "{}", self.name);
    }
}

/// A case whose `shown` is what the library says; the tests below look at what that is.
fn case(
    name: &str,
    rules: Rules,
    first_height: u32,
    headers: &[Header],
    height: u32,
    anchors: &[u32],
    result: &str,
) -> HeaderCase {
    let at = |height: u32| &headers[(height - first_height) as usize];
    let anchors = anchors.iter().map(|height| BlockRef { height: *height, hash: at(*height).block_hash() }).collect();
    let headers = HeaderChain::new(first_height, headers.iter().copied());
    let result = result.into();
    let mut case = HeaderCase {
        name: name.into(),
        rules,
        headers,
        height,
        anchors,
        anchor_headers: Vec::new(),
        result,
        shown: None,
    };
    case.shown = case.judge().1;
    case
}

#[test]
fn work_is_checked_wherever_it_shows_something() {
    cases().iter().for_each(HeaderCase::check);
}

#[test]
fn work_depth_and_what_could_be_checked_are_shown() {
    let shown = |name: &str| cases().into_iter().find(|case| case.name == name).unwrap().shown.unwrap();
    let work = |bits: &[u32]| {
        let works = bits.iter().map(|bits| Target::from_compact(CompactTarget::from_consensus(*bits)).to_work());
        works.reduce(|sum: Work, work| sum + work).map(|work| Hash32(work.to_be_bytes()))
    };
    let second = 0x2000_bfff;
    let table = [
        (
            "over an anchor, through a retarget",
            Shown { anchor: 100, depth: 2, work: work(&[second, second]), bits: Some((5, 0, 1)) },
        ),
        (
            "an anchor itself, and work over it",
            Shown { anchor: 102, depth: 4, work: work(&[REAL, REAL, second, second]), bits: Some((5, 0, 1)) },
        ),
        (
            "between anchors",
            Shown { anchor: 103, depth: 4, work: work(&[REAL, REAL, second, second]), bits: Some((5, 0, 1)) },
        ),
        (
            "over an anchor whose header the checker holds",
            Shown { anchor: 100, depth: 2, work: work(&[second, second]), bits: Some((5, 0, 0)) },
        ),
        (
            "through a retarget without the period's first header",
            Shown { anchor: 101, depth: 2, work: work(&[second, second]), bits: Some((3, 1, 1)) },
        ),
        (
            "what the period's difficulty is not known",
            Shown { anchor: 101, depth: 3, work: work(&[LIMIT, LIMIT, REAL]), bits: Some((0, 0, 3)) },
        ),
        (
            "a retarget from a difficulty once seen",
            Shown { anchor: 102, depth: 3, work: work(&[HARDER, HARDER, 0x2000_ffff]), bits: Some((1, 1, 1)) },
        ),
        (
            "a retarget from nothing known",
            Shown { anchor: 103, depth: 2, work: work(&[LIMIT, LIMIT]), bits: Some((0, 0, 2)) },
        ),
        (
            "mainnet: through the retarget of block 554400",
            // 5,106,422,924,659 times the least difficulty, three times.
            Shown { anchor: 554_397, depth: 3, work: work(&[0x1737_1ef4; 3]), bits: Some((7, 0, 1)) },
        ),
        (
            "mainnet: through it without the period's first header",
            Shown { anchor: 554_397, depth: 3, work: work(&[0x1737_1ef4; 3]), bits: Some((6, 1, 1)) },
        ),
        ("the block an anchor", Shown { anchor: 101, depth: 1, work: None, bits: None }),
        (
            "blocks 0 and 1",
            Shown {
                anchor: 0,
                depth: 1,
                work: Some("0000000000000000000000000000000000000000000000000000000100010001".parse().unwrap()),
                bits: Some((1, 0, 1)),
            },
        ),
    ];
    for (name, expected) in table {
        assert_eq!(shown(name), expected, "{name}");
    }
}

#[test]
fn retargets_are_those_that_bitcoin_core_computes() {
    // Bitcoin Core, src/test/pow_tests.cpp, the four tests get_next_work...: nBits, time of the period's first block
    // and of its last, next nBits.
    let table = [
        (0x1d00_ffff, 1_261_130_161, 1_262_152_739, 0x1d00_d86a),
        (0x1d00_ffff, 1_231_006_505, 1_233_061_996, 0x1d00_ffff),
        (0x1c05_a3f4, 1_279_008_237, 1_279_297_671, LOWEST),
        (0x1c38_7f6f, 1_263_163_443, 1_269_211_443, HIGHEST),
    ];
    // There, one less and one more are no permitted transition.
    const LOWEST: u32 = 0x1c01_68fd;
    const HIGHEST: u32 = 0x1d00_e1fd;
    let HeaderRules::Work(rules) = HeaderRules::of(Magic::BITCOIN) else { panic!() };
    let next = |bits, timespan| rules.next_bits(CompactTarget::from_consensus(bits), timespan).to_consensus();
    for (bits, first, last, expected) in table {
        assert_eq!(next(bits, last - first), expected, "{bits:x}");
    }
    assert_eq!((next(0x1c05_a3f4, 0), next(0x1c38_7f6f, u64::MAX)), (LOWEST, HIGHEST));
    assert_eq!(rules.interval(), 2016);
}

#[test]
fn nbits_that_bitcoin_core_refuses_are_no_target() {
    let HeaderRules::Work(mainnet) = HeaderRules::of(Magic::BITCOIN) else { panic!() };
    let target = |bits: u32| mainnet.target(CompactTarget::from_consensus(bits));
    // Bitcoin Core, src/test/pow_tests.cpp, CheckProofOfWork_test_...: negative, overflow, too easy, zero.
    for bits in [0x1d80_ffff, !0x0080_0000, 0x1d01_fffe, 0] {
        assert_eq!(target(bits), None, "{bits:x}");
    }
    // Zero, negative, past 256 bits (which would wrap), easier than the limit.
    for bits in [0x1d00_0000, 0x0100_0000, 0x1d80_0001, 0x2300_0001, 0x4300_0001, 0xff12_3456, 0x1d01_0000, 0x2100_0001]
    {
        assert_eq!(target(bits), None, "{bits:x}");
    }
    assert_eq!(target(0x1d00_ffff), Some(Target::MAX_ATTAINABLE_MAINNET));
    assert!(target(0x0101_0000).is_some(), "a target of 1");
}

#[test]
fn a_file_is_proven_by_work_over_an_anchor() {
    let mut world = World::example();
    for at in 0..world.blocks.len() {
        let mut header = world.blocks[at].header;
        if at > 0 {
            header.prev_blockhash = world.blocks[at - 1].block_hash();
        }
        world.blocks[at].header = with_work(header, LIMIT);
    }
    let file = |heights| File { rollup_id: world.manifest.rollup_id(), proof: Proof::Forced(world.item(4, heights)) };
    let mut anchors = Anchors::new(world.manifest.clone());
    let needed = Verdict::NeedsAnchor(NeededAnchor::BitcoinHeader(world.manifest.start));
    assert_eq!(judge_by(&file(101..=103), &anchors, rules(false)), needed, "the start block's header is not known");
    anchors.add_bitcoin_header(101, world.blocks[0].header).unwrap();
    for heights in [101..=104, 102..=104] {
        let Verdict::Proven(Proven { fact, anchors: used }) = judge_by(&file(heights), &anchors, rules(false)) else {
            panic!()
        };
        let Fact::Forced { bitcoin, .. } = *fact else { panic!() };
        assert_eq!((bitcoin.standing, bitcoin.anchor.height, bitcoin.depth), (Standing::OverAnchor, 101, 2));
        assert_eq!(used[1], AnchorName::Bitcoin(bitcoin.anchor));
    }
}
