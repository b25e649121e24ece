//! `tests/vectors/envelope.json`, written by the independent implementation in Python.

use super::vector_file::{Hex, read};
use super::*;
use crate::envelope::taproot;
use crate::primitives::{Hash32, sha256};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
    txs: Vec<List>,
    hostile: Vec<Hostile>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    namespace: Namespace,
    kind: u8,
    payload: Bytes,
    payload_sha256: Hash32,
    key: Hash32,
    op_return: Script,
    taproot_leaf: Script,
}

/// Bytes in full, or made up of a size.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Full(Hex),
    Sized { size: usize },
}

#[derive(Deserialize)]
struct Script {
    script: Option<Hex>,
    length: usize,
    sha256: Hash32,
}

#[derive(Deserialize)]
struct List {
    name: String,
    namespace: Namespace,
    items: Vec<Hex>,
    payload: Hex,
}

#[derive(Deserialize)]
struct Hostile {
    name: String,
    carrier: Carrier,
    result: String,
    namespace: Option<Namespace>,
    script: Option<Hex>,
    witness: Option<Vec<Hex>>,
    payload: Option<Bytes>,
    key: Option<Hash32>,
}

impl Bytes {
    fn payload(self, namespace: Namespace) -> Vec<u8> {
        match self {
            Bytes::Full(Hex(bytes)) => bytes,
            Bytes::Sized { size } => {
                let body = (0..size - HEADER_LEN).map(|i| (i.wrapping_mul(7).wrapping_add(3) & 0xff) as u8);
                [&MAGIC, &namespace.0, &[1][..]].concat().into_iter().chain(body).collect()
            }
        }
    }
}

impl Script {
    fn check(&self, name: &str, script: &[u8]) {
        assert_eq!(script.len(), self.length, "{name}");
        assert_eq!(sha256(script), self.sha256, "{name}");
        assert!(self.script.as_ref().is_none_or(|shown| shown.0 == script), "{name}");
    }
}

impl Hostile {
    fn transaction(&self) -> bitcoin::Transaction {
        if let Some(witness) = &self.witness {
            return blocks::spend_with_witness(witness.iter().map(|element| element.0.clone()));
        }
        let payload = self.payload.clone().map(|payload| payload.payload(NAMESPACE));
        match (self.carrier, &self.script, payload, self.key) {
            (Carrier::OpReturn, Some(script), ..) => blocks::spend_to_script(&script.0),
            (Carrier::OpReturn, None, Some(payload), _) => {
                blocks::spend_to_script(op_return_script(&payload).as_bytes())
            }
            (Carrier::Taproot, Some(script), ..) => blocks::spend_leaf(&script.0),
            (Carrier::Taproot, None, Some(payload), Some(key)) => {
                blocks::spend_leaf(&taproot::encode(&payload, &key.0))
            }
            _ => panic!("{}: no script, witness or payload with its key", self.name),
        }
    }
}

#[test]
fn both_carriers_of_a_payload_are_those_of_the_second_implementation() {
    for case in read::<File>("envelope.json").cases {
        let payload = case.payload.payload(case.namespace);
        assert_eq!(sha256(&payload), case.payload_sha256, "{}", case.name);
        let op_return = op_return_script(&payload);
        let leaf = taproot::encode(&payload, &case.key.0);
        case.op_return.check(&case.name, op_return.as_bytes());
        case.taproot_leaf.check(&case.name, &leaf);

        let expected = Payload::decode(&payload).unwrap();
        assert_eq!(expected.encode().as_ref(), Ok(&payload), "{}", case.name);
        assert_eq!((expected.namespace, expected.body.kind()), (case.namespace, case.kind), "{}", case.name);
        for tx in [blocks::spend_to_script(op_return.as_bytes()), blocks::spend_leaf(&leaf)] {
            let found = scan_transaction(&tx, Some(case.namespace));
            let payloads: Vec<_> = found.into_iter().map(|found| found.payload).collect();
            assert_eq!(payloads, [Ok(expected.clone())], "{}", case.name);
        }
    }
}

#[test]
fn a_list_is_read_in_order_and_written_in_one_way() {
    for List { name, namespace, items, payload } in read::<File>("envelope.json").txs {
        let body = Body::Txs(items.into_iter().map(|item| item.0).collect());
        let expected = Payload { namespace, body };
        assert_eq!(Payload::decode(&payload.0).as_ref(), Ok(&expected), "{name}");
        assert_eq!(expected.encode(), Ok(payload.0), "{name}");
    }
}

#[test]
fn every_hostile_script_and_witness_has_the_flaw_that_its_vector_names() {
    let mut wrong = Vec::new();
    for case in read::<File>("envelope.json").hostile {
        let found = scan_transaction(&case.transaction(), case.namespace);
        let results: Vec<_> = found
            .iter()
            .map(|found| found.payload.as_ref().map_or_else(|flaw| flaw_name(*flaw), |_| "valid".into()))
            .collect();
        let expected: &[String] = if case.result == "absent" { &[] } else { &[case.result] };
        if results != expected {
            wrong.push(alloc::format!("{}: {results:?}, expected {expected:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
