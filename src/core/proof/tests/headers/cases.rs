//! Tables of header chains.

use super::*;
use bitcoin::Network;
use bitcoin::constants::genesis_block;

/// A case without its first headers.
fn without_first(case: &HeaderCase, count: u32, name: &str, result: &str) -> HeaderCase {
    let mut cut = case.clone();
    cut.headers.raw.drain(..count as usize);
    cut.headers.first_height += count;
    (cut.name, cut.result) = (name.into(), result.into());
    cut.shown = cut.judge().1;
    cut
}

/// Two periods: the first takes 6 seconds, two too many, so that the second is easier; see the test of numbers.
fn two_periods() -> Vec<Header> {
    mine(&[(0, REAL), (2, REAL), (4, REAL), (6, REAL), (8, 0x2000_bfff), (9, 0x2000_bfff)])
}

pub(in crate::proof::tests) fn cases() -> Vec<HeaderCase> {
    [mainnet_cases(), testnet4_cases(), other_cases(), mainnet::cases()].concat()
}

fn mainnet_cases() -> Vec<HeaderCase> {
    use Rules::{EasyMainnet, Mainnet};
    let headers = two_periods();
    let genesis = genesis_block(Network::Bitcoin).header;
    let one = Header {
        version: Version::ONE,
        prev_blockhash: genesis.block_hash(),
        merkle_root: "0e3e2357e806b6cdb1f70b54c3a3a17b6714ee1f0e68bebb44a74b1efd512098".parse().unwrap(),
        time: 1_231_469_665,
        bits: genesis.bits,
        nonce: 2_573_394_689,
    };
    let whole = case("over an anchor, through a retarget", EasyMainnet, 100, &headers, 104, &[100], "ok");
    let mut known_parent =
        without_first(&whole, 1, "over an anchor that the headers do not hold", "needs_anchor/bitcoin_header");
    let needs_header = known_parent.clone();
    known_parent.anchors.clear();
    known_parent.anchor_headers = vec![(100, Raw(headers[0]))];
    known_parent.name = "over an anchor whose header the checker holds".into();
    known_parent.result = "ok".into();
    known_parent.shown = known_parent.judge().1;
    let altered = |name: &str, blocks: &[(u32, u32)], result: &str| {
        case(name, EasyMainnet, 100, &mine(blocks), 101, &[100], result)
    };
    let mut no_work = headers.clone();
    while no_work[5].target().is_met_by(no_work[5].block_hash()) {
        no_work[5].nonce += 1;
    }
    let bounded = |name: &str, bits: u32, result: &str| {
        case(name, EasyMainnet, 102, &mine(&[(0, HARDER), (1, HARDER), (2, bits)]), 104, &[102], result)
    };
    vec![
        case("blocks 0 and 1", Mainnet, 0, &[genesis, one], 1, &[0], "ok"),
        case("block 0 under block 1", Mainnet, 0, &[genesis, one], 0, &[1], "ok"),
        case("block 1 without its work", Mainnet, 0, &[genesis, Header { nonce: 1, ..one }], 1, &[0], "refuted/work"),
        case(
            "block 1 easier than mainnet allows",
            Mainnet,
            0,
            &[genesis, Header { bits: CompactTarget::from_consensus(0x1d01_0000), ..one }],
            1,
            &[0],
            "refuted/bits",
        ),
        case("no anchor", EasyMainnet, 100, &headers, 104, &[], "needs_anchor/bitcoin"),
        whole.clone(),
        case("an anchor itself, and work over it", EasyMainnet, 100, &headers, 102, &[102], "ok"),
        case("under an anchor", EasyMainnet, 100, &headers, 102, &[103], "ok"),
        case("between anchors", EasyMainnet, 100, &headers, 102, &[101, 103, 105], "ok"),
        needs_header,
        known_parent,
        without_first(
            &case("", EasyMainnet, 100, &headers, 104, &[101], ""),
            1,
            "through a retarget without the period's first header",
            "ok",
        ),
        without_first(&case("", EasyMainnet, 100, &headers, 105, &[104], ""), 4, "from a period's first header", "ok"),
        case("work left out", EasyMainnet, 100, &no_work, 101, &[100], "refuted/work"),
        case("work left out under an anchor", EasyMainnet, 100, &no_work, 101, &[100, 105], "refuted/work"),
        altered("easier within a period", &[(0, REAL), (1, LIMIT)], "refuted/bits"),
        altered("harder within a period", &[(0, REAL), (1, HARDER)], "refuted/bits"),
        altered("late and easier, as on testnets", &[(0, REAL), (3, LIMIT)], "refuted/bits"),
        altered("a retarget left out", &[(0, REAL), (2, REAL), (4, REAL), (6, REAL), (8, REAL)], "refuted/bits"),
        altered(
            "a retarget by a little too much",
            &[(0, REAL), (2, REAL), (4, REAL), (6, REAL), (8, 0x2000_c000)],
            "refuted/bits",
        ),
        altered(
            "a retarget by more than 4",
            &[(0, HARDER), (40, HARDER), (41, HARDER), (42, HARDER), (43, 0x2001_0000)],
            "refuted/bits",
        ),
        altered(
            "a retarget by 4 after a long period",
            &[(0, HARDER), (40, HARDER), (41, HARDER), (42, HARDER), (43, 0x2000_ffff)],
            "ok",
        ),
        altered(
            "a period that ended before it began",
            &[(9, 0x2000_ffff), (8, 0x2000_ffff), (7, 0x2000_ffff), (6, 0x2000_ffff), (5, 0x1f3f_ffc0)],
            "ok",
        ),
        altered(
            "no easier than the limit after a long period",
            &[(0, LIMIT), (40, LIMIT), (41, LIMIT), (42, LIMIT), (43, LIMIT)],
            "ok",
        ),
        bounded("a retarget by 4 after an unknown period", 0x2000_ffff, "ok"),
        bounded("a retarget by more than 4 after an unknown period", 0x2001_0000, "refuted/bits"),
        bounded("a retarget by a quarter after an unknown period", 0x1f0f_fffe, "ok"),
        bounded("a retarget by less than a quarter after an unknown period", 0x1f0f_fffd, "refuted/bits"),
    ]
}

fn testnet4_cases() -> Vec<HeaderCase> {
    use Rules::EasyTestnet4;
    let easy = |name: &str, blocks: &[(u32, u32)], anchors: &[u32], result: &str| {
        case(name, EasyTestnet4, 100, &mine(blocks), 100 + anchors[0] % 100, anchors, result)
    };
    let from = |first: u32, name: &str, blocks: &[(u32, u32)], result: &str| {
        case(name, EasyTestnet4, first, &mine(blocks), first, &[first], result)
    };
    vec![
        easy(
            "a block of least difficulty after more than two spacings",
            &[(0, REAL), (3, LIMIT), (4, REAL)],
            &[100],
            "ok",
        ),
        easy("least difficulty after two spacings", &[(0, REAL), (2, LIMIT)], &[100], "refuted/bits"),
        easy("full difficulty after more than two spacings", &[(0, REAL), (3, REAL)], &[100], "refuted/bits"),
        easy("another difficulty than the period's", &[(0, REAL), (3, LIMIT), (4, HARDER)], &[100], "refuted/bits"),
        easy(
            "a retarget from the period's first block, behind exceptions",
            &[(0, REAL), (1, REAL), (2, REAL), (6, LIMIT), (7, 0x2000_bfff)],
            &[100],
            "ok",
        ),
        easy(
            "a retarget from an exception",
            &[(0, REAL), (1, REAL), (2, REAL), (6, LIMIT), (7, LIMIT)],
            &[100],
            "refuted/bits",
        ),
        easy(
            "an exception as a period's first block",
            &[(0, REAL), (1, REAL), (2, REAL), (3, REAL), (30, LIMIT)],
            &[100],
            "refuted/bits",
        ),
        from(101, "what the period's difficulty is not known", &[(0, LIMIT), (1, LIMIT), (2, REAL)], "ok"),
        from(101, "a difficulty once seen is the period's", &[(0, LIMIT), (1, REAL), (2, HARDER)], "refuted/bits"),
        from(
            101,
            "a difficulty once seen has no exception in time",
            &[(0, LIMIT), (1, REAL), (2, LIMIT)],
            "refuted/bits",
        ),
        from(102, "a retarget from a difficulty once seen", &[(0, HARDER), (1, HARDER), (2, 0x2000_ffff)], "ok"),
        from(
            102,
            "a retarget by more than 4 from a difficulty once seen",
            &[(0, HARDER), (1, HARDER), (2, 0x2001_0000)],
            "refuted/bits",
        ),
        from(103, "a retarget from nothing known", &[(0, LIMIT), (1, LIMIT)], "ok"),
        easy(
            "a period ten minutes behind",
            &[(1000, REAL), (1001, REAL), (1002, REAL), (1003, REAL), (403, 0x1f5f_fff4)],
            &[100],
            "ok",
        ),
        easy(
            "a period more than ten minutes behind",
            &[(1000, REAL), (1001, REAL), (1002, REAL), (1003, REAL), (402, 0x1f5f_fff4)],
            &[100],
            "refuted/time_warp",
        ),
        case("as easy as regtest", Rules::Testnet4, 100, &mine(&[(0, 0x207f_ffff)]), 100, &[100], "refuted/bits"),
    ]
}

fn other_cases() -> Vec<HeaderCase> {
    use Rules::{Regtest, Signet};
    let regtest = mine(&[(0, 0x207f_ffff), (1, 0x207f_ffff), (2, 0x207f_ffff)]);
    let free = mine(&[(0, LIMIT), (1, 0x207f_ffff), (2, LIMIT)]);
    let mut no_work = free.clone();
    (no_work[2].nonce, no_work[2].bits) = (0, CompactTarget::from_consensus(0xff12_3456));
    vec![
        case("the block an anchor", Regtest, 100, &regtest, 101, &[101], "ok"),
        case("the block under an anchor", Regtest, 100, &regtest, 101, &[102], "needs_anchor/bitcoin"),
        case("the block over an anchor", Regtest, 100, &regtest, 101, &[100], "needs_anchor/bitcoin"),
        case("other nBits than regtest's", Regtest, 100, &free, 101, &[101], "refuted/bits"),
        case("whatever nBits on a signet", Signet, 100, &no_work, 101, &[101], "ok"),
        case("work over an anchor on a signet", Signet, 100, &free, 101, &[100], "needs_anchor/bitcoin"),
    ]
}
