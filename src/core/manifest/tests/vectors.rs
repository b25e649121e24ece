//! `tests/vectors/manifest.json`: manifests at their bounds, and each bound violated.

use super::*;
use crate::envelope::tests::vector_file::{Hex, cases};
use crate::primitives::Namespace;
use serde::{Deserialize, Serialize};

const OVER_THE_FIELD: [u8; 32] = {
    // The field's size (BIP340, test vector 14).
    let mut key = [0xff; 32];
    key[27] = 0xfe;
    key[30] = 0xfc;
    key[31] = 0x30;
    key
};

/// A manifest's bytes, field by field, right or wrong.
pub(super) struct Parts {
    pub version: u8,
    /// With its length in front.
    pub name: Vec<u8>,
    pub network: [u8; 4],
    pub start_height: u32,
    pub start_hash: [u8; 32],
    pub window: u16,
    pub max_lag: u16,
    pub max_forced: u16,
    pub set: Vec<u8>,
    pub executor: u8,
    /// With their length in front.
    pub parameters: Vec<u8>,
    pub predecessor: Vec<u8>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            version: 1,
            name: b"\x06sortie".to_vec(),
            network: [0xfa, 0xbf, 0xb5, 0xda],
            start_height: 100,
            start_hash: [0xaa; 32],
            window: 36,
            max_lag: 18,
            max_forced: 1000,
            set: Self::set_of(&[public_key(1)], 1),
            executor: 0,
            parameters: vec![0],
            predecessor: vec![0],
        }
    }
}

impl Parts {
    pub fn set_of(keys: &[[u8; 32]], threshold: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_varint(keys.len() as u64);
        bytes.put(&keys.concat());
        bytes.push(threshold);
        bytes
    }

    pub fn bytes(&self) -> Vec<u8> {
        [
            &[self.version][..],
            &self.name,
            &self.network,
            &self.start_height.to_le_bytes(),
            &self.start_hash,
            &self.window.to_le_bytes(),
            &self.max_lag.to_le_bytes(),
            &self.max_forced.to_le_bytes(),
            &self.set,
            &[self.executor],
            &self.parameters,
            &self.predecessor,
        ]
        .concat()
    }
}

#[derive(Serialize, Deserialize)]
struct Case {
    name: String,
    binary: Hex,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollup_id: Option<RollupId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<Namespace>,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    error: bool,
}

fn named(text: &str) -> Vec<u8> {
    let mut name = Vec::new();
    name.put_var_bytes(text.as_bytes());
    name
}

fn ascending_keys(count: u8) -> Vec<[u8; 32]> {
    let mut keys: Vec<_> = (1..=count).map(public_key).collect();
    keys.sort_unstable();
    keys
}

fn ledger_parameters(accounts: &[([u8; 32], u64)]) -> Vec<u8> {
    LedgerParameters { forced_cost_per_byte: 1, fee_account: [5; 32], accounts: accounts.to_vec() }.encode()
}

fn with_len(bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    field.put_var_bytes(bytes);
    field
}

fn sound() -> Vec<(&'static str, Parts)> {
    let parts = Parts::default;
    let accounts = ledger_parameters(&[([1; 32], 7), ([2; 32], u64::MAX - 7)]);
    vec![
        ("defaults", parts()),
        ("name_of_1_byte", Parts { name: named("x"), ..parts() }),
        ("name_of_32_bytes", Parts { name: named(&"n".repeat(32)), ..parts() }),
        ("name_of_32_bytes_in_8_characters", Parts { name: named(&"\u{1f680}".repeat(8)), ..parts() }),
        ("name_of_a_space", Parts { name: named(" "), ..parts() }),
        ("network_mainnet", Parts { network: [0xf9, 0xbe, 0xb4, 0xd9], ..parts() }),
        ("start_at_height_0", Parts { start_height: 0, ..parts() }),
        ("start_at_the_highest_height", Parts { start_height: 0x7fff_ffff, ..parts() }),
        ("smallest_window_and_lag", Parts { window: 2, max_lag: 1, max_forced: 1, ..parts() }),
        ("largest_window_and_lag", Parts { window: u16::MAX, max_lag: u16::MAX, max_forced: u16::MAX, ..parts() }),
        ("set_2_of_3", Parts { set: Parts::set_of(&ascending_keys(3), 2), ..parts() }),
        ("set_64_of_64", Parts { set: Parts::set_of(&ascending_keys(64), 64), ..parts() }),
        ("executor_ledger", Parts { executor: 1, parameters: with_len(&accounts), ..parts() }),
        (
            "executor_ledger_without_accounts",
            Parts { executor: 1, parameters: with_len(&ledger_parameters(&[])), ..parts() },
        ),
        ("executor_evm_with_253_bytes", Parts { executor: 2, parameters: with_len(&[6; 253]), ..parts() }),
        ("predecessor", Parts { predecessor: [&[1], &[7; 32][..], &[0xff; 4]].concat(), ..parts() }),
    ]
}

fn violations() -> Vec<(&'static str, Parts, ManifestError)> {
    use ManifestError as E;
    let parts = Parts::default;
    let keys = ascending_keys(3);
    let (swapped, equal) = ([keys[1], keys[0]], [keys[0], keys[0]]);
    let set = |keys: &[[u8; 32]], threshold| Parts { set: Parts::set_of(keys, threshold), ..parts() };
    let set_error = |error: SetError| E::Set(error);
    vec![
        ("version_0", Parts { version: 0, ..parts() }, E::Version(0)),
        ("version_2", Parts { version: 2, ..parts() }, E::Version(2)),
        ("name_empty", Parts { name: named(""), ..parts() }, E::Name),
        ("name_of_33_bytes", Parts { name: named(&"n".repeat(33)), ..parts() }, E::Name),
        ("name_with_a_newline", Parts { name: named("two\nlines"), ..parts() }, E::Name),
        ("name_with_a_nul", Parts { name: named("\0"), ..parts() }, E::Name),
        ("name_with_delete", Parts { name: named("a\x7f"), ..parts() }, E::Name),
        ("name_with_a_c1_control", Parts { name: named("a\u{85}"), ..parts() }, E::Name),
        ("name_not_utf8", Parts { name: vec![2, 0xc3, 0x28], ..parts() }, E::Name),
        ("name_with_a_surrogate", Parts { name: vec![3, 0xed, 0xa0, 0x80], ..parts() }, E::Name),
        ("name_length_not_minimal", Parts { name: b"\xfd\x06\x00sortie".to_vec(), ..parts() }, E::Encoding),
        ("start_above_the_highest_height", Parts { start_height: 1 << 31, ..parts() }, E::StartHeight(1 << 31)),
        ("start_at_the_end_of_32_bits", Parts { start_height: u32::MAX, ..parts() }, E::StartHeight(u32::MAX)),
        ("name_length_beyond_the_end", Parts { name: vec![0xff; 9], ..parts() }, E::Encoding),
        ("window_0", Parts { window: 0, max_lag: 0, ..parts() }, E::Window(0)),
        ("window_1", Parts { window: 1, max_lag: 1, ..parts() }, E::Window(1)),
        ("lag_0", Parts { max_lag: 0, ..parts() }, E::MaxLag { max_lag: 0, sequencing_window: 36 }),
        ("lag_over_the_window", Parts { max_lag: 37, ..parts() }, E::MaxLag { max_lag: 37, sequencing_window: 36 }),
        ("max_forced_0", Parts { max_forced: 0, ..parts() }, E::MaxForced),
        ("set_empty", set(&[], 0), set_error(SetError::Count(0))),
        ("set_empty_threshold_1", set(&[], 1), set_error(SetError::Count(0))),
        ("set_of_65", set(&ascending_keys(65), 1), set_error(SetError::Count(65))),
        ("set_count_not_minimal", Parts { set: [&[0xfd, 1, 0], &keys[0][..], &[1]].concat(), ..parts() }, E::Encoding),
        ("set_with_equal_keys", set(&equal, 1), set_error(SetError::Order)),
        ("set_descending", set(&swapped, 1), set_error(SetError::Order)),
        ("set_with_a_key_off_the_curve", set(&[NOT_A_POINT], 1), set_error(SetError::Key)),
        ("set_with_a_key_over_the_field", set(&[keys[0], OVER_THE_FIELD], 1), set_error(SetError::Key)),
        ("set_with_a_key_of_zeros", set(&[[0; 32]], 1), set_error(SetError::Key)),
        ("threshold_0", set(&keys, 0), set_error(SetError::Threshold { threshold: 0, keys: 3 })),
        ("threshold_over_the_keys", set(&keys, 4), set_error(SetError::Threshold { threshold: 4, keys: 3 })),
        ("executor_3", Parts { executor: 3, ..parts() }, E::Executor(3)),
        ("executor_255", Parts { executor: 255, ..parts() }, E::Executor(255)),
        ("parameters_longer_than_the_rest", Parts { parameters: vec![2, 0], ..parts() }, E::Encoding),
        ("parameters_length_not_minimal", Parts { parameters: vec![0xfd, 0, 0], ..parts() }, E::Encoding),
        ("predecessor_flag_2", Parts { predecessor: vec![2], ..parts() }, E::Encoding),
        ("predecessor_flag_0_and_a_predecessor", Parts { predecessor: vec![0; 37], ..parts() }, E::Encoding),
        ("predecessor_cut", Parts { predecessor: vec![1; 36], ..parts() }, E::Encoding),
        ("predecessor_missing", Parts { predecessor: vec![], ..parts() }, E::Encoding),
        ("a_byte_after_the_end", Parts { predecessor: vec![1; 38], ..parts() }, E::Encoding),
    ]
}

/// Parameters that are not their executor's, or close the forced path.
fn bad_parameters() -> Vec<(&'static str, Parts, ManifestError)> {
    let ledger = |parameters: &[u8]| Parts { executor: 1, parameters: with_len(parameters), ..Parts::default() };
    let account = |n: u8| ([n; 32], 1);
    let good = ledger_parameters(&[account(1), account(2)]);
    let vast_count = [&good[..36], &[0xff; 9]].concat();
    let free = [&[0; 4], &good[4..]].concat();
    let malformed = [
        ("opaque_with_parameters", Parts { parameters: vec![1, 0], ..Parts::default() }),
        ("ledger_without_parameters", ledger(&[])),
        ("ledger_parameters_cut", ledger(&good[..good.len() - 1])),
        ("ledger_parameters_longer", ledger(&[&good[..], &[0]].concat())),
        ("ledger_account_twice", ledger(&ledger_parameters(&[account(1), account(1)]))),
        ("ledger_accounts_descending", ledger(&ledger_parameters(&[account(2), account(1)]))),
        ("ledger_balances_over_64_bits", ledger(&ledger_parameters(&[([1; 32], u64::MAX), account(2)]))),
        ("ledger_accounts_beyond_the_end", ledger(&vast_count)),
    ];
    let malformed = malformed.into_iter().map(|(name, parts)| (name, parts, ManifestError::Parameters));
    malformed.chain([("ledger_where_no_byte_pays", ledger(&free), ManifestError::ForcedCost)]).collect()
}

fn generate() -> Vec<Case> {
    let sound = sound().into_iter().map(|(name, parts)| {
        let id = Manifest::decode(&parts.bytes()).unwrap().rollup_id();
        Case {
            name: name.into(),
            binary: Hex(parts.bytes()),
            rollup_id: Some(id),
            namespace: Some(id.namespace()),
            error: false,
        }
    });
    let bad = violations().into_iter().chain(bad_parameters()).map(|(name, parts, _)| Case {
        name: name.into(),
        binary: Hex(parts.bytes()),
        rollup_id: None,
        namespace: None,
        error: true,
    });
    sound.chain(bad).collect()
}

#[test]
fn each_bound_violated_is_refused_for_its_reason() {
    for (name, parts, error) in violations().into_iter().chain(bad_parameters()) {
        assert_eq!(Manifest::decode(&parts.bytes()), Err(error), "{name}");
    }
}

#[test]
fn the_vectors_hold() {
    let cases = cases("manifest.json", generate);
    assert!(cases.iter().any(|case| case.error) && cases.iter().any(|case| !case.error));
    for Case { name, binary: Hex(binary), rollup_id, namespace, error } in cases {
        let manifest = Manifest::decode(&binary);
        if error {
            assert!(manifest.is_err(), "{name}");
            continue;
        }
        let manifest = manifest.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(manifest.encode(), binary, "{name}");
        assert_eq!(
            (Some(manifest.rollup_id()), Some(manifest.rollup_id().namespace())),
            (rollup_id, namespace),
            "{name}"
        );
    }
}
