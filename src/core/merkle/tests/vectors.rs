//! `tests/vectors/roots.json`, written by the independent implementation in Python.

use super::*;
use crate::envelope::Carrier;
use crate::envelope::tests::vector_file::{Hex, read};
use crate::queue::{Place, QueueLeaf};
use alloc::string::String;
use bitcoin::{BlockHash, Txid, hashes::Hash};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
    inclusion: Vec<Inclusion>,
    consistency: Vec<Consistency>,
    queue_leaves: Vec<Leaf>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    leaves: Vec<Hex>,
    root: Hash32,
    inclusion: Vec<InclusionOf>,
    consistency: Vec<ConsistencyFrom>,
}

#[derive(Deserialize)]
struct InclusionOf {
    index: u64,
    proof: Vec<Hash32>,
}

#[derive(Deserialize)]
struct ConsistencyFrom {
    old: u64,
    proof: Vec<Hash32>,
}

#[derive(Deserialize)]
struct Inclusion {
    name: String,
    leaf: Hex,
    index: u64,
    size: u64,
    root: Hash32,
    proof: Vec<Hash32>,
    holds: bool,
}

#[derive(Deserialize)]
struct Consistency {
    name: String,
    old: u64,
    old_root: Hash32,
    new: u64,
    new_root: Hash32,
    proof: Vec<Hash32>,
    holds: bool,
}

#[derive(Deserialize)]
struct Leaf {
    name: String,
    height: u32,
    block_hash: Hash32,
    transaction_index: u32,
    txid: Hash32,
    from_output: bool,
    index: u32,
    position: u32,
    tx: Hex,
    leaf: Hex,
}

#[test]
fn the_vectors_hold() {
    let file: File = read("roots.json");
    file.cases.iter().for_each(check_list);
    for claim in file.inclusion {
        let head = TreeHead { size: claim.size, root: claim.root };
        let holds = verify_inclusion(&leaf_hash(&claim.leaf.0), claim.index, &head, &claim.proof);
        assert_eq!(holds, claim.holds, "{}", claim.name);
    }
    for claim in file.consistency {
        let old = TreeHead { size: claim.old, root: claim.old_root };
        let new = TreeHead { size: claim.new, root: claim.new_root };
        assert_eq!(verify_consistency(&old, &new, &claim.proof), claim.holds, "{}", claim.name);
    }
    file.queue_leaves.iter().for_each(check_leaf);
}

fn check_list(Case { name, leaves, root, inclusion, consistency }: &Case) {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(&leaf.0));
    let head = tree.head(tree.size()).unwrap();
    assert_eq!((head.root, merkle_root(leaves.iter().map(|leaf| &leaf.0))), (*root, *root), "{name}");
    for InclusionOf { index, proof } in inclusion {
        assert_eq!(tree.inclusion(*index, head.size).as_ref(), Some(proof), "{name}: {index}");
        assert!(verify_inclusion(&leaf_hash(&leaves[*index as usize].0), *index, &head, proof), "{name}: {index}");
    }
    for ConsistencyFrom { old, proof } in consistency {
        assert_eq!(tree.consistency(*old, head.size).as_ref(), Some(proof), "{name}: from {old}");
        assert!(verify_consistency(&tree.head(*old).unwrap(), &head, proof), "{name}: from {old}");
    }
}

fn check_leaf(leaf: &Leaf) {
    let carrier = if leaf.from_output { Carrier::OpReturn } else { Carrier::Taproot };
    let txid = Txid::from_byte_array(leaf.txid.0);
    let entry = QueueLeaf {
        height: leaf.height,
        block_hash: BlockHash::from_byte_array(leaf.block_hash.0),
        tx_index: leaf.transaction_index,
        place: Place { txid, carrier, index: leaf.index, position: leaf.position },
        tx_hash: crate::primitives::sha256(&leaf.tx.0),
    };
    assert_eq!(entry.bytes(), leaf.leaf.0, "{}", leaf.name);
}
