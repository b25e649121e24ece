//! What roots and proofs promise; `ct-merkle` is the judge.

mod vectors;

use super::*;
use alloc::vec;
use bitcoin::hashes::sha256::Hash as Sha256;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use proptest::prelude::*;

type Library = MemoryBackedTree<sha2::Sha256, Vec<u8>>;

/// Sizes that every proof is tried under.
const SIZES: u64 = 71;

fn entry(i: u64) -> Vec<u8> {
    i.to_le_bytes().to_vec()
}

fn library(size: u64) -> Library {
    let mut tree = Library::new();
    (0..size).for_each(|i| tree.push(entry(i)));
    tree
}

fn tree(size: u64) -> Tree {
    (0..size).map(|i| leaf_hash(&entry(i))).collect()
}

fn concat(proof: &[Hash32]) -> Vec<u8> {
    proof.iter().flat_map(|hash| hash.0).collect()
}

fn library_root(head: &TreeHead) -> RootHash<sha2::Sha256> {
    RootHash::new(head.root.0.into(), head.size)
}

#[test]
fn compact_range_and_tree_agree_with_the_library_at_every_size() {
    let mut library = Library::new();
    let (mut range, mut tree) = (CompactRange::default(), Tree::default());
    assert_eq!(range.root().0, Sha256::hash(&[]).to_byte_array());
    assert_eq!(tree.head(0), Some(TreeHead { size: 0, root: range.root() }));
    for i in 0..300 {
        range.push(&entry(i));
        tree.push(&entry(i));
        library.push(entry(i));
        assert_eq!(range.root().0[..], library.root().as_bytes()[..], "size {}", i + 1);
        assert_eq!((range.size(), tree.size()), (i + 1, i + 1));
        assert_eq!(tree.head(i + 1), Some(TreeHead { size: i + 1, root: range.root() }));
    }
    assert_eq!(tree, self::tree(300));
}

#[test]
fn inclusion_proofs_are_the_librarys_under_every_size_that_the_list_had() {
    let tree = tree(SIZES);
    for size in 1..=SIZES {
        let (library, head) = (library(size), tree.head(size).unwrap());
        for index in 0..size {
            let proof = tree.inclusion(index, size).unwrap();
            assert_eq!(concat(&proof), library.prove_inclusion(index as usize).as_bytes(), "{index} in {size}");
            assert!(verify_inclusion(&leaf_hash(&entry(index)), index, &head, &proof), "{index} in {size}");
        }
        assert_eq!(tree.inclusion(size, size), None);
    }
    assert_eq!(tree.inclusion(0, SIZES + 1), None);
}

#[test]
fn consistency_proofs_are_the_librarys_between_every_two_sizes() {
    let tree = tree(SIZES);
    for new in 0..=SIZES {
        let library = library(new);
        for old in 0..=new {
            let proof = tree.consistency(old, new).unwrap();
            let heads = (tree.head(old).unwrap(), tree.head(new).unwrap());
            if old == 0 || old == new {
                assert!(proof.is_empty(), "{old} to {new}");
            } else {
                assert_eq!(
                    concat(&proof),
                    library.prove_consistency((new - old) as usize).as_bytes(),
                    "{old} to {new}"
                );
            }
            assert!(verify_consistency(&heads.0, &heads.1, &proof), "{old} to {new}");
        }
        assert_eq!(tree.consistency(new + 1, new), None);
    }
    assert_eq!(tree.consistency(1, SIZES + 1), None);
}

#[test]
fn an_inclusion_proof_shows_nothing_else_than_its_entry_at_its_index() {
    let tree = tree(SIZES);
    for size in 1..=33 {
        let head = tree.head(size).unwrap();
        for index in 0..size {
            let leaf = leaf_hash(&entry(index));
            let proof = tree.inclusion(index, size).unwrap();
            let verify = |leaf: &Hash32, index, proof: &[Hash32]| verify_inclusion(leaf, index, &head, proof);
            for other in (0..2 * size).filter(|other| *other != index) {
                assert!(!verify(&leaf, other, &proof), "{index} in {size} as {other}");
            }
            assert!(!verify(&leaf_hash(&entry(index + 1)), index, &proof), "another entry");
            assert!(!verify(&leaf, index, &[&proof[..], &[leaf]].concat()), "a node too many");
            for at in 0..proof.len() {
                let mut changed = proof.clone();
                changed[at].0[31] ^= 1;
                assert!(!verify(&leaf, index, &changed), "node {at} changed");
                changed.remove(at);
                assert!(!verify(&leaf, index, &changed), "node {at} left out");
            }
            // A root above the entries is not an entry.
            let inner = proof.first().filter(|_| index % 2 == 0).map(|sibling| node_hash(&leaf, sibling));
            assert!(inner.is_none_or(|inner| !verify(&inner, index, &proof[1..])), "an inner node as an entry");
        }
    }
    let nothing = tree.head(0).unwrap();
    assert!(!verify_inclusion(&nothing.root, 0, &nothing, &[]), "an entry of nothing");
}

#[test]
fn a_consistency_proof_shows_nothing_else_than_its_two_lists() {
    let tree = tree(SIZES);
    let mut other = Tree::default();
    (0..SIZES).for_each(|i| other.push(&entry(i + 1)));
    for new in 1..=33 {
        for old in 1..new {
            let heads = (tree.head(old).unwrap(), tree.head(new).unwrap());
            let proof = tree.consistency(old, new).unwrap();
            let is_shown = |proof: &[Hash32]| verify_consistency(&heads.0, &heads.1, proof);
            assert!(!verify_consistency(&other.head(old).unwrap(), &heads.1, &proof), "another old list");
            assert!(!verify_consistency(&heads.0, &other.head(new).unwrap(), &proof), "another new list");
            assert!(!verify_consistency(&heads.1, &heads.0, &proof), "backwards");
            assert!(!is_shown(&[&proof[..], &[heads.0.root]].concat()), "a node too many");
            assert!(!is_shown(&[]), "nothing shown");
            for at in 0..proof.len() {
                let mut changed = proof.clone();
                changed[at].0[0] ^= 0x80;
                assert!(!is_shown(&changed), "{old} to {new}: node {at} changed");
                changed.remove(at);
                assert!(!is_shown(&changed), "{old} to {new}: node {at} left out");
            }
        }
    }
}

#[test]
fn a_range_proof_shows_nothing_else_than_its_entries_side_by_side() {
    let tree = tree(SIZES);
    let leaves: Vec<_> = (0..SIZES).map(|i| leaf_hash(&entry(i))).collect();
    let slice = |range: &core::ops::Range<u64>| &leaves[range.start as usize..range.end as usize];
    for size in 0..=33 {
        let head = tree.head(size).unwrap();
        for (first, end) in (0..=size).flat_map(|first| (first..=size).map(move |end| (first, end))) {
            let range = first..end;
            let proof = tree.range(range.clone(), size).unwrap();
            assert!(verify_range(slice(&range), first, &head, &proof), "{range:?} in {size}");
            assert!(
                !verify_range(slice(&range), first, &head, &[&proof[..], &[head.root]].concat()),
                "a node too many"
            );
            if range.is_empty() {
                assert!(proof.is_empty(), "{range:?} in {size}");
                continue;
            }
            if end - first == 1 {
                // One entry: an inclusion proof, its nodes in the list's order.
                let mut inclusion = tree.inclusion(first, size).unwrap();
                let mut sorted = proof.clone();
                inclusion.sort_unstable();
                sorted.sort_unstable();
                assert_eq!(sorted, inclusion, "{first} in {size}");
            }
            let shown = |leaves: &[Hash32], first, proof: &[Hash32]| verify_range(leaves, first, &head, proof);
            for other in (0..=size).filter(|other| *other != first) {
                assert!(!shown(slice(&range), other, &proof), "{range:?} in {size} at {other}");
            }
            assert!(!shown(&slice(&range)[1..], first, &proof) || end - first == 1, "the first entry left out");
            assert!(!shown(&slice(&range)[1..], first + 1, &proof) || end - first == 1, "the first entry not shown");
            assert!(!shown(&[slice(&range), &[head.root]].concat(), first, &proof), "an entry too many");
            for at in 0..proof.len() {
                let mut changed = proof.clone();
                changed[at].0[31] ^= 1;
                assert!(!shown(slice(&range), first, &changed), "node {at} changed");
                changed.remove(at);
                assert!(!shown(slice(&range), first, &changed), "node {at} left out");
            }
            for at in 0..slice(&range).len() {
                let mut changed = slice(&range).to_vec();
                changed[at].0[0] ^= 1;
                assert!(!shown(&changed, first, &proof), "entry {at} changed");
            }
        }
        assert_eq!(tree.range(0..size + 1, size), None);
    }
    assert!(tree.range(0..1, SIZES).is_some());
    assert_eq!(tree.range(0..1, SIZES + 1), None);
    #[expect(clippy::reversed_empty_ranges, reason = "as hostile as it looks")]
    let backwards = 2..1;
    assert_eq!(tree.range(backwards, 3), None);
    let longest = TreeHead { size: u64::MAX, root: Hash32([0; 32]) };
    for first in [0, 1, u64::MAX - 1, u64::MAX] {
        assert!(!verify_range(&leaves[..1], first, &longest, &leaves[..64]), "{first}");
    }
}

#[test]
fn equal_sizes_need_equal_roots_and_size_0_the_root_of_nothing() {
    let tree = tree(3);
    let (nothing, two, three) = (tree.head(0).unwrap(), tree.head(2).unwrap(), tree.head(3).unwrap());
    let false_nothing = TreeHead { size: 0, root: two.root };
    let false_three = TreeHead { size: 3, root: two.root };
    let table: [(&str, TreeHead, TreeHead, Vec<Hash32>, bool); 9] = [
        ("nothing to nothing", nothing, nothing, vec![], true),
        ("nothing under another root to the same", false_nothing, false_nothing, vec![], false),
        ("nothing to three", nothing, three, vec![], true),
        ("nothing to three, with a node", nothing, three, vec![two.root], false),
        ("nothing under another root", false_nothing, three, vec![], false),
        ("nothing under another root to itself", false_nothing, nothing, vec![], false),
        ("three to three", three, three, vec![], true),
        ("three to three, with a node", three, three, vec![two.root], false),
        ("three to another three", three, false_three, vec![], false),
    ];
    for (name, old, new, proof, shown) in table {
        assert_eq!(verify_consistency(&old, &new, &proof), shown, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn verifiers_are_total_and_agree_with_the_library(
        old in any::<u64>(), new in any::<u64>(), shift in 0u32..64, nodes in proptest::collection::vec(any::<u8>(), 0..70),
    ) {
        let (old, new) = ((old >> shift).max(1), (new >> shift) >> 1);
        let proof: Vec<_> = nodes.iter().map(|node| Hash32([*node; 32])).collect();
        let (old, new) = (TreeHead { size: old, root: Hash32([0; 32]) }, TreeHead { size: new, root: Hash32([1; 32]) });
        let leaf = leaf_hash(&[7]);
        let library = InclusionProof::<sha2::Sha256>::from_bytes(concat(&proof));
        let expected = library_root(&new).verify_inclusion(&[7u8].as_slice(), old.size - 1, &library).is_ok();
        prop_assert_eq!(verify_inclusion(&leaf, old.size - 1, &new, &proof), expected);
        let library = ConsistencyProof::<sha2::Sha256>::try_from_bytes(concat(&proof)).unwrap();
        let expected = library_root(&new).verify_consistency(&library_root(&old), &library).is_ok();
        prop_assert_eq!(verify_consistency(&old, &new, &proof), expected);
    }
}
