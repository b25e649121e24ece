//! `included`: who must vouch for the block, and what the block must hold.

use super::*;

pub(super) fn cases() -> Vec<Case> {
    let world = World::example();
    let chain = world.chain();
    // Executes items 1 and 2, of five.
    let block = &chain[2];
    assert_eq!((block.forced.clone(), block.header.queue_size), (1..3, 5));
    let derived = AnchorList { l2_blocks: vec![block.hash], ..world.anchors() };
    let included = |index: u64, signers: &[u8]| Included {
        item: world.leaf(index, 5),
        block: world.sign(&block.header, signers.iter().copied()),
    };
    let make = |name: &str, anchors: &AnchorList, proof: Included, verdict: &str| {
        case(&format!("included: {name}"), anchors, &world, Proof::Included(proof), verdict)
    };
    let changed = |name: &str, verdict: &str, change: &dyn Fn(&mut Included)| {
        let mut proof = included(2, &[0, 2]);
        change(&mut proof);
        make(name, &world.anchors(), proof, verdict)
    };
    vec![
        make("claimed by the threshold", &world.anchors(), included(2, &[0, 2]), "proven/included"),
        make("claimed by all", &world.anchors(), included(1, &[0, 1, 2]), "proven/included"),
        make("executed by an earlier block", &world.anchors(), included(0, &[0, 1]), "proven/included"),
        make("derived", &derived, included(2, &[]), "proven/included"),
        make("derived, signed by one", &derived, included(2, &[1]), "proven/included"),
        make("neither derived nor signed", &world.anchors(), included(2, &[]), "needs_anchor/l2_block"),
        make("claimed by less than the threshold", &world.anchors(), included(2, &[1]), "refuted/below_threshold"),
        make("the item after the last executed", &derived, included(3, &[0, 1]), "refuted/not_executed"),
        changed("the threshold by one signature twice", "refuted/signer", &|proof| {
            proof.block.signatures[1] = proof.block.signatures[0];
        }),
        changed("signatures out of order", "refuted/signer", &|proof| proof.block.signatures.reverse()),
        changed("an index that the set does not have", "refuted/signer", &|proof| proof.block.signatures[1].index = 3),
        changed("another signer's index", "refuted/bad_signature", &|proof| proof.block.signatures[1].index = 1),
        changed("signed for another number of handovers", "needs_anchor/sequencers", &|proof| {
            proof.block.handovers = 1
        }),
        changed("another header than was signed", "refuted/bad_signature", &|proof| {
            proof.block.statement.0.timestamp += 1
        }),
        changed("another item at the index", "refuted/inclusion_proof", &|proof| proof.item.leaf.tx_hash.0[0] ^= 1),
        changed("another index", "refuted/inclusion_proof", &|proof| proof.item.index = 1),
        changed("an index behind the queue", "refuted/inclusion_proof", &|proof| proof.item.index = 5),
        changed("a node left out", "refuted/inclusion_proof", &|proof| proof.item.proof.truncate(1)),
    ]
}

#[test]
fn an_item_is_executed_where_the_threshold_or_the_checker_says_so() {
    check(&cases());
}

#[test]
fn the_level_says_who_vouches() {
    let world = World::example();
    let block = world.chain()[2].clone();
    let proof = |signers: &[u8]| {
        Proof::Included(Included { item: world.leaf(2, 5), block: world.sign(&block.header, signers.iter().copied()) })
    };
    let rollup_id = world.manifest.rollup_id();
    let derived = AnchorList { l2_blocks: vec![block.hash], ..world.anchors() };
    let table = [
        (world.anchors(), Level::Claimed, AnchorName::Sequencers { handovers: 0 }),
        (derived, Level::Derived, AnchorName::L2Block { hash: block.hash }),
    ];
    for (anchors, expected, name) in table {
        let (fact, used) = proven(&world, proof(&[0, 1]), &anchors);
        let Fact::Included { level, block: of, index, leaf } = fact else { panic!("{fact:?}") };
        assert_eq!((level, of.number, of.hash, index), (expected, 3, block.hash, 2));
        assert_eq!(leaf, QueueLeaf::from(&world.items[2]));
        assert_eq!(used, [AnchorName::Manifest { rollup_id }, name]);
    }
}
