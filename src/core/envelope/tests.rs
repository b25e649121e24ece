//! What payloads, carriers and the search for them promise.
//!
//! [`blocks`] and [`vector_file`] also serve the tests of other modules.

extern crate std;

pub(crate) mod blocks;
mod properties;
mod search;
pub(crate) mod vector_file;
mod vectors;

use super::*;
use alloc::string::String;

/// The namespace of most tests.
const NAMESPACE: Namespace = Namespace([0xa1, 0xb2, 0xc3, 0xd4]);

fn tx_payload(body: &[u8]) -> Vec<u8> {
    Payload { namespace: NAMESPACE, body: Body::Tx(body.to_vec()) }.encode().unwrap()
}

/// A flaw's name, as in vectors.
fn flaw_name(flaw: Flaw) -> String {
    serde_json::to_value(flaw).unwrap().as_str().unwrap().into()
}

#[test]
fn what_encode_gives_is_a_payload_or_a_flaw() {
    let short_tx = Body::Txs([[7; 63].to_vec()].into());
    let table = [
        ("an empty transaction", Body::Tx(Vec::new()), Flaw::TooShort),
        ("an empty list", Body::Txs(Vec::new()), Flaw::TooShort),
        ("a list with a transaction of 63 bytes", short_tx, Flaw::TxsMalformed),
        ("a batch of 399,992 bytes", Body::Batch([0; MAX_PAYLOAD - HEADER_LEN + 1].to_vec()), Flaw::TooLong),
    ];
    for (name, body, flaw) in table {
        assert_eq!(Payload { namespace: NAMESPACE, body }.encode(), Err(flaw), "{name}");
    }
    let longest = Body::Batch([0; MAX_PAYLOAD - HEADER_LEN].to_vec());
    assert!(Payload { namespace: NAMESPACE, body: longest }.encode().is_ok());
}

#[test]
fn every_kind_has_its_byte_and_its_name() {
    let shared = Vec::from([[1; 64].to_vec()]);
    let table = [
        (Body::Tx([1].into()), 0x01, "tx"),
        (Body::Txs(shared), 0x02, "txs"),
        (Body::Batch([1].into()), 0x10, "batch"),
        (Body::Handover([1].into()), 0x11, "handover"),
        (Body::Unsupported(0x77, [1].into()), 0x77, "unsupported"),
    ];
    for (body, kind, name) in table {
        assert_eq!((body.kind(), body.name()), (kind, name));
        let payload = Payload { namespace: NAMESPACE, body };
        let bytes = payload.encode().unwrap();
        assert_eq!(bytes[8], kind);
        assert_eq!(Payload::decode(&bytes), Ok(payload));
    }
}

#[test]
fn a_push_has_the_only_form_that_its_length_may_have() {
    let direct = |len: usize| [len as u8].to_vec();
    let one = |len: usize| [0x4c, len as u8].to_vec();
    let two = |len: usize| [&[0x4d], &(len as u16).to_le_bytes()[..]].concat();
    let four = |len: usize| [&[0x4e], &(len as u32).to_le_bytes()[..]].concat();
    type Form = fn(usize) -> Vec<u8>;
    let table: [(Form, usize, Option<Flaw>); 10] = [
        (one, 75, Some(Flaw::NonMinimalPush)),
        (two, 75, Some(Flaw::NonMinimalPush)),
        (two, 255, Some(Flaw::NonMinimalPush)),
        (four, 255, Some(Flaw::NonMinimalPush)),
        (four, 65_535, Some(Flaw::NonMinimalPush)),
        (direct, 75, None),
        (one, 76, None),
        (one, 255, None),
        (two, 65_535, None),
        (four, 65_536, None),
    ];
    for (form, len, flaw) in table {
        let payload = tx_payload(&alloc::vec![7; len - HEADER_LEN]);
        let script = [&[0x6a], &form(len)[..], &payload].concat();
        let found = scan_transaction(&blocks::spend_to_script(&script), None);
        assert_eq!(found[0].payload.as_ref().err(), flaw.as_ref(), "{len} bytes behind {:02x}", form(len)[0]);
    }
}
