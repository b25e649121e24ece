//! `consistency`: a queue only grows.

use super::*;
use crate::merkle::TreeHead;

fn consistency(world: &World, old: u64, new: u64) -> Consistency {
    let head = |size| world.tree.head(size).unwrap();
    let proof = world.tree.consistency(old, new).unwrap();
    Consistency { old: head(old), new: head(new), proof, old_block: None, new_block: None }
}

pub(super) fn cases() -> Vec<Case> {
    let world = World::example();
    let chain = world.chain();
    let blocks = |mut proof: Consistency| {
        proof.old_block = Some(SoftHeader(chain[0].header));
        proof.new_block = Some(SoftHeader(chain[2].header));
        proof
    };
    let anchors = |blocks: &[usize]| {
        let l2_blocks = blocks.iter().map(|block| chain[*block].hash).collect();
        AnchorList { l2_blocks, ..world.anchors() }
    };
    let make = |name: &str, anchors: AnchorList, proof: Consistency, verdict: &str| {
        case(&format!("consistency: {name}"), &anchors, &world, Proof::Consistency(proof), verdict)
    };
    let changed = |name: &str, verdict: &str, change: &dyn Fn(&mut Consistency)| {
        let mut proof = consistency(&world, 3, 5);
        change(&mut proof);
        make(name, anchors(&[]), proof, verdict)
    };
    let nothing = consistency(&world, 0, 0).old;
    vec![
        make(
            "1 to 5, both in derived blocks",
            anchors(&[0, 2]),
            blocks(consistency(&world, 1, 5)),
            "proven/consistent",
        ),
        make("the old block not known", anchors(&[2]), blocks(consistency(&world, 1, 5)), "needs_anchor/l2_block"),
        make("the new block not known", anchors(&[0]), blocks(consistency(&world, 1, 5)), "needs_anchor/l2_block"),
        make("a block with another queue", anchors(&[0, 2]), blocks(consistency(&world, 2, 5)), "refuted/other_queue"),
        changed("3 to 5", "proven/consistent", &|_| {}),
        changed("0 to 5", "proven/consistent", &|proof| *proof = consistency(&world, 0, 5)),
        changed("4 to 4", "proven/consistent", &|proof| *proof = consistency(&world, 4, 4)),
        changed("0 to 5 with a node", "refuted/consistency_proof", &|proof| proof.old = nothing),
        changed("from a false root of nothing", "refuted/consistency_proof", &|proof| {
            *proof = consistency(&world, 0, 5);
            proof.old.root = proof.new.root;
        }),
        changed("equal sizes with other roots", "refuted/consistency_proof", &|proof| {
            *proof = consistency(&world, 4, 4);
            proof.old.root = proof.proof.first().copied().unwrap_or_default();
        }),
        changed("a queue that shrank", "refuted/shrunk", &|proof| core::mem::swap(&mut proof.old, &mut proof.new)),
        changed("no proof", "refuted/consistency_proof", &|proof| proof.proof.clear()),
        changed("another size", "refuted/consistency_proof", &|proof| proof.old.size = 2),
        changed("sizes of 64 bits", "refuted/consistency_proof", &|proof| {
            proof.old = TreeHead { size: u64::MAX - 1, ..proof.old };
            proof.new = TreeHead { size: u64::MAX, ..proof.new };
        }),
    ]
}

#[test]
fn a_queue_only_grows() {
    check(&cases());
}

#[test]
fn the_derived_blocks_of_both_queues_are_named() {
    let world = World::example();
    let chain = world.chain();
    let mut proof = consistency(&world, 1, 5);
    (proof.old_block, proof.new_block) = (Some(SoftHeader(chain[0].header)), Some(SoftHeader(chain[2].header)));
    let anchors = AnchorList { l2_blocks: vec![chain[0].hash, chain[2].hash], ..world.anchors() };
    let (fact, used) = proven(&world, Proof::Consistency(proof.clone()), &anchors);
    let name = |block: &crate::l2::L2Block| Some(BlockName { number: block.header.number, hash: block.hash });
    let Consistency { old, new, .. } = proof;
    assert_eq!(fact, Fact::Consistent { old, new, old_block: name(&chain[0]), new_block: name(&chain[2]) });
    let blocks = anchors.l2_blocks.iter().map(|hash| AnchorName::L2Block { hash: *hash });
    let manifest = AnchorName::Manifest { rollup_id: world.manifest.rollup_id() };
    assert_eq!(used, [manifest].into_iter().chain(blocks).collect::<Vec<_>>());
}
