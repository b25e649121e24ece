//! Receipts, headers and state roots: what is signed, and whose signature counts.

use super::*;
use crate::manifest::BadSignatures;
use crate::manifest::tests::signers::Signers;
use crate::primitives::{RollupId, sha256, tagged_hash};

/// What is signed, by its fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StatementCase {
    kind: String,
    handovers: u32,
    rollup_id: RollupId,
    #[serde(flatten)]
    fields: Value,
    message: Hash32,
}

fn json(fields: impl Serialize) -> Value {
    serde_json::to_value(fields).unwrap()
}

pub(super) fn cases() -> Vec<StatementCase> {
    let rollup_id = RollupId([0x11; 32]);
    let [block, state_root, tx_hash] = [0x22, 0x33, 0x44].map(|byte| Hash32([byte; 32]));
    let make = |kind: &str, handovers, fields, message| StatementCase {
        kind: kind.into(),
        handovers,
        rollup_id,
        fields,
        message,
    };
    [0, 1, u32::MAX]
        .into_iter()
        .flat_map(|handovers| {
            let receipt = Receipt { tx_hash, first_number: 5, last_number: 0x0102_0304_0506_0708 };
            let state = SoftState { block, state_root };
            [
                make("receipt", handovers, json(receipt), receipt_message(&rollup_id, handovers, &receipt)),
                make("header", handovers, serde_json::json!({ "block": block }), header_message(handovers, &block)),
                make("state", handovers, json(state), state_message(handovers, &block, &state_root)),
            ]
        })
        .collect()
}

impl StatementCase {
    /// Computes the message from the fields alone.
    pub(super) fn check(&self) {
        let hash = |name: &str| self.fields[name].as_str().unwrap().parse::<Hash32>().unwrap();
        let number = |name: &str| self.fields[name].as_u64().unwrap().to_le_bytes();
        let handovers = self.handovers.to_le_bytes();
        let message = match self.kind.as_str() {
            "receipt" => {
                let (tx_hash, first, last) = (hash("tx_hash"), number("first_number"), number("last_number"));
                tagged_hash("sortie/receipt", &[&self.rollup_id.0, &handovers, &tx_hash.0, &first, &last])
            }
            "header" => tagged_hash("sortie/header", &[&handovers, &hash("block").0]),
            "state" => tagged_hash("sortie/state", &[&handovers, &hash("block").0, &hash("state_root").0]),
            other => panic!("{other}"),
        };
        assert_eq!(message, self.message, "{} after {} handovers", self.kind, self.handovers);
    }
}

#[test]
fn every_message_binds_every_field() {
    cases().iter().for_each(StatementCase::check);
    let messages: Vec<_> = cases().into_iter().map(|case| case.message).collect();
    for (at, message) in messages.iter().enumerate() {
        assert!(!messages[..at].contains(message));
    }
    let receipt = Receipt { tx_hash: Hash32([1; 32]), first_number: 1, last_number: 2 };
    let id = RollupId([2; 32]);
    let message = receipt_message(&id, 0, &receipt);
    let others = [
        receipt_message(&RollupId([3; 32]), 0, &receipt),
        receipt_message(&id, 0, &Receipt { tx_hash: Hash32([2; 32]), ..receipt }),
        receipt_message(&id, 0, &Receipt { first_number: 2, ..receipt }),
        receipt_message(&id, 0, &Receipt { last_number: 1, ..receipt }),
    ];
    assert!(!others.contains(&message));
}

#[test]
fn a_signature_counts_for_its_signer_its_message_and_nothing_else() {
    let signers = Signers::new([1, 2, 3], 2);
    let (set, message) = (signers.set(), sha256(b"message"));
    let signed = SignedBy::sign(1, &signers.keypairs[1], message);
    let by = |index: u8| SignedBy { index, ..signed };
    assert_eq!(signed, SignedBy::sign(1, &signers.keypairs[1], message), "signing again gives other bytes");
    assert_eq!(signed.verify(&set, message), Ok(set.keys()[1]));
    assert_eq!(signed.verify(&set, sha256(b"another")), Err(BadSignatures::Signature));
    assert_eq!(by(0).verify(&set, message), Err(BadSignatures::Signature));
    assert_eq!(by(3).verify(&set, message), Err(BadSignatures::Signer));
    assert_eq!(by(255).verify(&set, message), Err(BadSignatures::Signer));
}

#[test]
fn a_statement_is_signed_by_all_who_are_named() {
    let signers = Signers::new([1, 2, 3], 2);
    let (set, id) = (signers.set(), RollupId([5; 32]));
    let state = SoftState { block: Hash32([6; 32]), state_root: Hash32([7; 32]) };
    let by = |index: u8| Signed::by(state, &id, 4, index, &signers.keypairs[usize::from(index)]);
    let all = |indexes: &[u8]| Signed {
        signatures: indexes.iter().flat_map(|index| by(*index).signatures).collect(),
        ..by(0)
    };
    let keys = |indexes: &[usize]| Ok(indexes.iter().map(|index| set.keys()[*index]).collect::<Vec<_>>());
    assert_eq!(all(&[]).signers(&id, &set), Err(BadSignatures::Count));
    assert_eq!(all(&[1, 1]).signers(&id, &set), Err(BadSignatures::Signer));
    assert_eq!(all(&[2, 0]).signers(&id, &set), Err(BadSignatures::Signer));
    assert_eq!(Signed { handovers: 5, ..by(0) }.signers(&id, &set), Err(BadSignatures::Signature));
    assert_eq!(by(2).signers(&id, &set), keys(&[2]));
    assert_eq!(all(&[0, 1, 2]).signers(&id, &set), keys(&[0, 1, 2]));
}
