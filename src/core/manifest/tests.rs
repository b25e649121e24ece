//! What a manifest, its id and a sequencer set promise.

pub(crate) mod signers;
mod vectors;

use super::*;
use crate::primitives::Hash32;
use alloc::vec;
use proptest::prelude::*;
use signers::{Signers, entry, keypair, public_key};
use vectors::Parts;

/// On no point of the curve (BIP340, test vector 5).
const NOT_A_POINT: [u8; 32] = [
    0xee, 0xfd, 0xea, 0x4c, 0xdb, 0x67, 0x77, 0x50, 0xa4, 0x20, 0xfe, 0xe8, 0x07, 0xea, 0xcf, 0x21, 0xeb, 0x98, 0x98,
    0xae, 0x79, 0xb9, 0x76, 0x87, 0x66, 0xe4, 0xfa, 0xa0, 0x4a, 0x2d, 0x4a, 0x34,
];

/// A manifest to change the fields of.
pub(crate) fn sound_manifest() -> Manifest {
    Manifest::decode(&Parts::default().bytes()).unwrap()
}

#[test]
fn a_cut_manifest_is_refused_wherever_it_is_cut() {
    let whole = Parts { predecessor: [&[1], &[7; 36][..]].concat(), ..Parts::default() }.bytes();
    assert!(Manifest::decode(&whole).is_ok());
    for len in 0..whole.len() {
        assert_eq!(Manifest::decode(&whole[..len]), Err(ManifestError::Encoding), "{len} bytes");
    }
}

#[test]
fn fields_out_of_bounds_make_no_manifest() {
    let good = sound_manifest();
    assert_eq!(Manifest::new((*good).clone()).as_ref(), Ok(&good));
    type Change = fn(&mut Fields);
    let table: [(&str, Change, ManifestError); 6] = [
        ("no name", |fields| fields.name.clear(), ManifestError::Name),
        ("a window of 1", |fields| fields.sequencing_window = 1, ManifestError::Window(1)),
        ("no lag", |fields| fields.max_lag = 0, ManifestError::MaxLag { max_lag: 0, sequencing_window: 36 }),
        ("no parameters", |fields| fields.executor.kind = ExecutorKind::Ledger, ManifestError::Parameters),
        ("too high a start", |fields| fields.start.height = 1 << 31, ManifestError::StartHeight(1 << 31)),
        ("no forced item", |fields| fields.max_forced_per_block = 0, ManifestError::MaxForced),
    ];
    for (name, change, error) in table {
        let mut fields = (*good).clone();
        change(&mut fields);
        assert_eq!(Manifest::new(fields), Err(error), "{name}");
    }
}

#[test]
fn every_parameter_is_in_the_id() {
    let id = |parts: Parts| Manifest::decode(&parts.bytes()).unwrap().rollup_id();
    let parts = Parts::default;
    let ids = [
        id(parts()),
        id(Parts { name: vec![1, b'x'], ..parts() }),
        id(Parts { network: [0; 4], ..parts() }),
        id(Parts { start_height: 101, ..parts() }),
        id(Parts { start_hash: [9; 32], ..parts() }),
        id(Parts { window: 37, ..parts() }),
        id(Parts { max_lag: 17, ..parts() }),
        id(Parts { max_forced: 999, ..parts() }),
        id(Parts { set: Parts::set_of(&[public_key(2)], 1), ..parts() }),
        id(Parts { executor: 2, ..parts() }),
        id(Parts { executor: 2, parameters: vec![1, 0], ..parts() }),
        id(Parts { predecessor: [&[1], &[7; 36][..]].concat(), ..parts() }),
    ];
    for (i, id) in ids.iter().enumerate() {
        assert!(!ids[..i].contains(id), "the change of parameter {i} did not change the id");
        assert_eq!(id.namespace().0, id.0[..4]);
    }
}

#[test]
fn signatures_count_only_whole_in_order_and_from_the_set() {
    let message = Hash32([3; 32]);
    let signers = Signers::new([1, 2, 3], 2);
    let (set, by) = (signers.set(), |index| signers.entry(index, message));
    let forged = entry(1, &keypair(9), message);
    let other_message = signers.entry(1, Hash32([4; 32]));
    let out_of_range = entry(3, &signers.keypairs[2], message);
    let another_index = entry(2, &signers.keypairs[1], message);
    let table: [(&str, Vec<u8>, Result<(), BadSignatures>); 16] = [
        ("nothing", vec![], Err(BadSignatures::Count)),
        ("one of two", by(0).to_vec(), Err(BadSignatures::Count)),
        ("three of two", [by(0), by(1), by(2)].concat(), Err(BadSignatures::Count)),
        ("a byte too many", [&by(0)[..], &by(1), &[0]].concat(), Err(BadSignatures::Count)),
        ("a byte too few", [&by(0)[..], &by(1)[..64]].concat(), Err(BadSignatures::Count)),
        ("one signer twice", [by(1), by(1)].concat(), Err(BadSignatures::Signer)),
        ("descending", [by(1), by(0)].concat(), Err(BadSignatures::Signer)),
        ("an index out of range", [by(0), out_of_range].concat(), Err(BadSignatures::Signer)),
        ("an index out of range, signature bad", [by(0), [0xff; 65]].concat(), Err(BadSignatures::Signer)),
        ("a stranger", [by(0), forged].concat(), Err(BadSignatures::Signature)),
        ("another message", [by(0), other_message].concat(), Err(BadSignatures::Signature)),
        ("another signer's index", [by(0), another_index].concat(), Err(BadSignatures::Signature)),
        ("the first bad", [&[0; 65], &by(1)[..]].concat(), Err(BadSignatures::Signature)),
        ("0 and 1", [by(0), by(1)].concat(), Ok(())),
        ("0 and 2", [by(0), by(2)].concat(), Ok(())),
        ("1 and 2", [by(1), by(2)].concat(), Ok(())),
    ];
    for (name, signatures, verdict) in table {
        assert_eq!(set.verify(message, &signatures), verdict, "{name}");
    }
}

#[test]
fn a_set_from_a_store_keeps_its_bounds() {
    let set = Signers::new([1, 2, 3], 2).set();
    assert_eq!(set.threshold(), 2);
    let bytes = postcard::to_allocvec(&set).unwrap();
    assert_eq!(postcard::from_bytes::<SequencerSet>(&bytes), Ok(set.clone()));
    let raised = [&bytes[..bytes.len() - 1], &[4]].concat();
    assert!(postcard::from_bytes::<SequencerSet>(&raised).is_err(), "threshold 4 of 3");

    let json = serde_json::to_string(&set).unwrap();
    assert_eq!(serde_json::from_str::<SequencerSet>(&json).unwrap(), set);
    assert_eq!(set.keys().iter().map(|key| set.index_of(key)).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    assert_eq!(set.index_of(&keypair(9).x_only_public_key().0), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn what_decodes_has_no_other_encoding(
        mut at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), predecessor in any::<bool>(),
    ) {
        let mut parts = Parts::default();
        if predecessor {
            parts.predecessor = [&[1], &[7; 36][..]].concat();
        }
        let mut bytes = parts.bytes();
        for (at, byte) in at.drain(..) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(manifest.encode(), bytes);
        }
    }
}
