//! Promises that hold for every payload and for every script.

use super::*;
use crate::envelope::taproot;
use proptest::collection::vec;
use proptest::prelude::*;

/// Leaf or output script, as a carrier's decoder reads it.
fn decode(carrier: Carrier, script: &[u8]) -> Vec<Found> {
    let tx = match carrier {
        Carrier::Taproot => blocks::spend_leaf(script),
        Carrier::OpReturn => blocks::spend_to_script(script),
    };
    scan_transaction(&tx, None)
}

fn encode(carrier: Carrier, payload: &[u8]) -> Vec<u8> {
    match carrier {
        Carrier::Taproot => leaf_script(payload, &blocks::leaf_key()).into_bytes(),
        Carrier::OpReturn => op_return_script(payload).into_bytes(),
    }
}

/// What a script that was read as `payload` must be, byte for byte; a leaf's key is its own.
fn canonical(carrier: Carrier, payload: &[u8], script: &[u8]) -> Vec<u8> {
    match carrier {
        Carrier::OpReturn => op_return_script(payload).into_bytes(),
        Carrier::Taproot => {
            let key = script[script.len() - 33..script.len() - 1].try_into().unwrap();
            taproot::encode(payload, key)
        }
    }
}

fn assert_canonical_if_valid(carrier: Carrier, script: &[u8]) -> Result<(), TestCaseError> {
    for found in decode(carrier, script) {
        if let Ok(payload) = found.payload {
            let payload = payload.encode().map_err(|flaw| TestCaseError::fail(flaw_name(flaw)))?;
            prop_assert_eq!(canonical(carrier, &payload, script), script);
        }
    }
    Ok(())
}

fn carrier() -> impl Strategy<Value = Carrier> {
    prop_oneof![Just(Carrier::Taproot), Just(Carrier::OpReturn)]
}

/// Bodies of every length around the chunks' borders, and some long ones.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let border = (1usize..5, 0usize..6).prop_map(|(chunks, more)| chunks * 255 + more - HEADER_LEN - 3);
    let len = prop_oneof![4 => 1usize..90, 4 => border, 1 => 1usize..3000, 1 => 65_520usize..65_540];
    len.prop_flat_map(|len| vec(any::<u8>(), len))
}

fn payload() -> impl Strategy<Value = Payload> {
    let txs = vec(vec(any::<u8>(), MIN_SHARED_TX..300), 1..6).prop_map(Body::Txs);
    let body = prop_oneof![
        body().prop_map(Body::Tx),
        txs,
        body().prop_map(Body::Batch),
        body().prop_map(Body::Handover),
        (0x12u8.., body()).prop_map(|(kind, body)| Body::Unsupported(kind, body)),
    ];
    (any::<[u8; 4]>(), body).prop_map(|(namespace, body)| Payload { namespace: Namespace(namespace), body })
}

/// Bytes that look like a script of ours as often as like noise.
fn script() -> impl Strategy<Value = Vec<u8>> {
    let opcode =
        proptest::sample::select([0x00, 0x20, 0x4c, 0x4d, 0x4e, 0x50, 0x6a, 0x6d, 0x75, 0xac, 0xc0, 0xff].as_slice());
    let small_push = vec(any::<u8>(), 1..90).prop_map(|data| {
        let mut script = Vec::new();
        put_push(&mut script, &data);
        script
    });
    let piece = prop_oneof![
        3 => vec(any::<u8>(), 0..40),
        3 => vec(opcode, 1..4),
        3 => Just(tx_payload(b"hello")),
        3 => small_push,
        2 => Just(encode(Carrier::Taproot, &tx_payload(b"hello"))),
        1 => Just(MAGIC.to_vec()),
    ];
    vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn what_was_encoded_is_decoded_and_found_once(payload in payload(), carrier in carrier()) {
        let bytes = payload.encode().unwrap();
        let found = decode(carrier, &encode(carrier, &bytes));
        prop_assert_eq!(found.len(), 1);
        prop_assert_eq!((found[0].carrier, found[0].index, found[0].namespace), (carrier, 0, payload.namespace));
        prop_assert_eq!(found[0].payload.as_ref(), Ok(&payload));
    }

    #[test]
    fn a_changed_byte_is_another_payload_or_none(
        payload in payload(), carrier in carrier(), at in any::<prop::sample::Index>(), change in 1u8..,
    ) {
        let bytes = payload.encode().unwrap();
        let mut script = encode(carrier, &bytes);
        let at = at.index(script.len());
        script[at] ^= change;
        assert_canonical_if_valid(carrier, &script)?;
    }

    #[test]
    fn a_cut_or_longer_script_is_no_envelope(
        payload in payload(), carrier in carrier(), cut in any::<prop::sample::Index>(), more in vec(any::<u8>(), 1..4),
    ) {
        let script = encode(carrier, &payload.encode().unwrap());
        let cut = &script[..cut.index(script.len())];
        for script in [cut, &[&script[..], &more].concat()] {
            prop_assert!(decode(carrier, script).iter().all(|found| found.payload.is_err()));
        }
    }

    #[test]
    fn no_script_makes_a_decoder_panic_or_take_a_second_form(script in script(), carrier in carrier()) {
        assert_canonical_if_valid(carrier, &script)?;
        let _ = Payload::decode(&script);
    }

    #[test]
    fn no_witness_makes_a_decoder_panic(elements in vec(script(), 0..5)) {
        for found in scan_transaction(&blocks::spend_with_witness(elements), None) {
            prop_assert_eq!(found.carrier, Carrier::Taproot);
        }
    }

    #[test]
    fn no_bytes_make_the_search_in_a_block_panic(start in any::<bool>(), bytes in script()) {
        let header = if start { [1; 80].to_vec() } else { Vec::new() };
        let _ = scan_block(&[header, bytes].concat(), None);
    }
}

#[test]
fn every_change_of_one_byte_of_a_short_script_is_seen() {
    let payload = tx_payload(b"hello");
    for carrier in [Carrier::Taproot, Carrier::OpReturn] {
        let sound = encode(carrier, &payload);
        for at in 0..sound.len() {
            for byte in (0..=u8::MAX).filter(|byte| *byte != sound[at]) {
                let mut script = sound.clone();
                script[at] = byte;
                assert_canonical_if_valid(carrier, &script).unwrap();
            }
        }
    }
}
