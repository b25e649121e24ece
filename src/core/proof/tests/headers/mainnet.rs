//! Mainnet's retarget at block 554,400, judged.

mod blocks;

use super::*;
use bitcoin::consensus::encode::deserialize_hex;
use blocks::{FIRST, HEADERS, PERIOD};

pub(super) fn cases() -> Vec<HeaderCase> {
    let headers = HEADERS.map(|hex| deserialize_hex(hex).unwrap());
    let first: Header = deserialize_hex(PERIOD.1).unwrap();
    let over = |name: &str, period: Option<Header>, result: &str| {
        let mut case = case(name, Rules::Mainnet, FIRST, &headers, FIRST + 5, &[FIRST + 1], result);
        case.anchor_headers = period.map(|header| (PERIOD.0, Raw(header))).into_iter().collect();
        case.shown = case.judge().1;
        case
    };
    let later = Header { time: first.time + 600, ..first };
    let mut eased = headers;
    eased[4].bits = eased[3].bits;
    vec![
        over("mainnet: through the retarget of block 554400", Some(first), "ok"),
        over("mainnet: through it without the period's first header", None, "ok"),
        over("mainnet: through it after a period ten minutes shorter", Some(later), "refuted/bits"),
        case(
            "mainnet: other nBits than the retarget's",
            Rules::Mainnet,
            FIRST,
            &eased[..5],
            FIRST + 4,
            &[FIRST],
            "refuted/work",
        ),
        case("mainnet: under an anchor behind it", Rules::Mainnet, FIRST, &headers, FIRST + 2, &[FIRST + 7], "ok"),
    ]
}

#[test]
fn a_header_that_stands_alone_has_at_least_the_work_of_its_time() {
    use crate::proof::check_work;
    use bitcoin::p2p::Magic;
    let header: Header = deserialize_hex(HEADERS[0]).unwrap();
    let check = |height, header: &Header| check_work(Magic::BITCOIN, height, header);
    assert_eq!(check(FIRST, &header), Ok(()));
    assert_eq!(check(600_000, &header), Err(Refutation::Bits { height: 600_000 }), "it has become harder since");
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Bitcoin).header;
    assert_eq!(check(0, &genesis), Ok(()));
    assert_eq!(check(350_000, &genesis), Err(Refutation::Bits { height: 350_000 }));
    let unworked = Header { nonce: 0, ..header };
    assert_eq!(check(FIRST, &unworked), Err(Refutation::Work { height: FIRST }));
}
