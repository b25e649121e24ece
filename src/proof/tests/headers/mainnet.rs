//! Bitcoin's own headers around a retarget: blocks 554,396 to 554,403 of mainnet, where 554,400 begins a period.
//!
//! They need no source to be believed: no hash is without its work, each names the one before, and the new nBits
//! follow from the times.

use super::*;
use bitcoin::consensus::encode::deserialize_hex;

pub(crate) const FIRST: u32 = 554_396;

pub(crate) const HEADERS: [&str; 8] = [
    "000000208e3d25087f0c1dc73fb5698fb3a21fc27ab5c09a51a4030000000000000000002fe4c18dc554ac199203ac26358814752bc0db76ed72d2673d3d4f6b20d66760737f195c7cd931171e60b26b",
    "00000020b84058dc5f40275d4c880f9cb63ec5e572524518ce180e0000000000000000008a9ec4242c4003dde9ae9ac167dd36614ee00c56b8ffdf63abf1d0dbdcdcb24fc27f195c7cd931173f2077a9",
    "000000203633c1376556de44ddd528d0a6c27244ee5798bdd4e7110000000000000000008a5a4c9ebf9b6b77e3f63e1f4ddbbe1aeec4b7592554cb3c003068f849647b147180195c7cd93117b8c8e83f",
    "000000202da0c39c117f882d54d03df822915a8a6373be4cfa1a01000000000000000000dd6f24bd263432435f0954c59c022cfd8e5190f4615fc2c249815244a3fe09b34683195c7cd931170f68c64a",
    "00004020d3b2d7d61ad2d95ffbd556d9e00f07877423600a8da015000000000000000000d192743a2c190a7421f92fefe92505579d7b8eda568cacee13b25751ac704c669d83195cf41e371721bae3e7",
    "00000020ae67207125404fa8786acaeb7cff69156fe0a01b0b3c04000000000000000000b668f999166662460c4a9717d3c8e72e3b0c24863fccdd90295dfb0b047aa1f3f484195cf41e37176b176d83",
    "00008020f1b333748571d00f25c262706b03313443f1a4424be70f0000000000000000004d7b233c0f561f7e5d57fb1d9bae5c72576787da5c13ec792d1d87eb1a62795eba85195cf41e3717d904e9c3",
    "00000020b12386369f49f8800f47ab7813e3420b511fd4e2de8907000000000000000000026069ddf2c58926646215a8434823226646051ebcb77b6644d9791732763da8c585195cf41e3717689570ae",
];

/// Block 552,384, with which the period before began.
pub(crate) const PERIOD: (u32, &str) = (
    552_384,
    "00000020e2acb3e71e4e443af48e81d381dea7d35e2e8d5e69fe150000000000000000007f2ada224dc4afba6ca37010b099c02322cb5df24fcedb0ff5b87fb3ca64eeaea01a055c7cd9311771f2861e",
);

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

#[cfg(feature = "esplora")]
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
