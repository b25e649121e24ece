//! `equivocation` and `conflicting_state`: two stories by one signer, and what looks like it but is no fault.

use super::*;
use crate::l2::L2Header;
use crate::manifest::tests::signers::Signers;

/// A world that has reorganised: block 103 and what is above it is gone, another 103 and 104 are there.
fn reorganised() -> (World, World) {
    let before = World::example();
    let mut after = before.clone();
    after.disconnect(2);
    after.mine([]);
    after.mine([]);
    (before, after)
}

pub(super) fn cases() -> Vec<Case> {
    let (before, after) = reorganised();
    let chain = before.chain();
    let parent = chain[1].head();
    let header = |world: &World, height: u32, own: &[&[u8]]| world.child(&parent, height, own).header;
    let first = header(&before, 103, &[b"a"]);
    let other = header(&before, 103, &[b"b"]);
    let earlier = header(&before, 102, &[b"a"]);
    let pair = |first: &L2Header, second: &L2Header, child: Option<u32>| Equivocation {
        first: before.sign(first, [0]),
        second: before.sign(second, [0]),
        child_origin: child.map(|height| Raw(before.block(height).header)),
    };
    let make = |name: &str, anchors: &AnchorList, proof: Equivocation, verdict: &str| {
        case(&format!("equivocation: {name}"), anchors, &before, Proof::Equivocation(proof), verdict)
    };
    let none = before.anchors();
    let known = AnchorList { bitcoin_headers: vec![(103, Raw(before.block(103).header))], ..none.clone() };
    let changed = |name: &str, verdict: &str, change: &dyn Fn(&mut Equivocation)| {
        let mut proof = pair(&first, &other, None);
        change(&mut proof);
        make(name, &none, proof, verdict)
    };
    let with = |change: &dyn Fn(&mut L2Header)| {
        let mut header = other;
        change(&mut header);
        header
    };
    let (number, elsewhere) = (with(&|header| header.number += 1), with(&|header| header.parent.0[0] ^= 1));
    let grandchild = with(&|header| header.origin = before.origin(104).block);
    let far_below = with(&|header| header.origin = before.origin(101).block);
    let after_reorg = header(&after, 103, &[b"b"]);
    let after_reorg_child = with(&|header| header.origin = after.origin(103).block);
    vec![
        make("two blocks at one origin", &none, pair(&first, &other, None), "proven/equivocation"),
        make("an origin and its child", &none, pair(&earlier, &first, Some(103)), "proven/equivocation"),
        make("a child and its parent", &none, pair(&first, &earlier, Some(103)), "proven/equivocation"),
        make(
            "an origin and its child, both anchors",
            &before.bitcoin_anchors([102, 103]),
            pair(&earlier, &first, None),
            "proven/equivocation",
        ),
        make(
            "an origin and its child, whose header is an anchor",
            &known,
            pair(&earlier, &first, None),
            "proven/equivocation",
        ),
        make(
            "an origin and the next, without its header",
            &none,
            pair(&earlier, &first, None),
            "needs_anchor/bitcoin_header",
        ),
        make(
            "an origin and the next, one an anchor",
            &before.bitcoin_anchors([103]),
            pair(&earlier, &first, None),
            "needs_anchor/bitcoin_header",
        ),
        make(
            "an origin and the next, with another header",
            &none,
            pair(&earlier, &first, Some(104)),
            "refuted/other_bitcoin_header",
        ),
        make(
            "no fault: after a reorg, at the same height",
            &none,
            pair(&first, &after_reorg, None),
            "refuted/unrelated_origins",
        ),
        make(
            "no fault: after a reorg, with the header of one",
            &none,
            pair(&first, &after_reorg, Some(103)),
            "refuted/unrelated_origins",
        ),
        make(
            "an origin and its grandchild",
            &none,
            pair(&earlier, &grandchild, Some(104)),
            "refuted/unrelated_origins",
        ),
        make("origins two apart", &none, pair(&first, &far_below, Some(103)), "refuted/unrelated_origins"),
        make(
            "an origin and a child of its rival",
            &none,
            {
                let mut child = with(&|header| header.origin = after.origin(104).block);
                child.number = first.number;
                let mut proof = pair(&first, &child, None);
                proof.child_origin = Some(Raw(after.block(104).header));
                proof
            },
            "refuted/unrelated_origins",
        ),
        make(
            "an origin and its rival's height",
            &none,
            pair(&after_reorg_child, &first, None),
            "refuted/unrelated_origins",
        ),
        make("another number", &none, pair(&first, &number, None), "refuted/other_place"),
        make("another parent", &none, pair(&first, &elsewhere, None), "refuted/other_place"),
        make("one block twice", &none, pair(&first, &first, None), "refuted/same_block"),
        changed("two signers", "refuted/other_signers", &|proof| proof.second = before.sign(&other, [1])),
        changed("two signers, and one who signed both", "proven/equivocation", &|proof| {
            proof.first = before.sign(&first, [0, 2]);
            proof.second = before.sign(&other, [1, 2]);
        }),
        changed("one not signed", "refuted/unsigned", &|proof| proof.second.signatures.clear()),
        changed("one falsely signed", "refuted/bad_signature", &|proof| {
            proof.second.signatures = proof.first.signatures.clone()
        }),
        changed("one signed for a set that is not known", "needs_anchor/sequencers", &|proof| {
            proof.second.handovers = 1
        }),
    ]
    .into_iter()
    .chain(handover_cases(&before, &first, &other))
    .chain(state_cases(&before))
    .collect()
}

/// One key in two sets.
fn handover_cases(world: &World, first: &L2Header, other: &L2Header) -> Vec<Case> {
    let next = Signers::new([3, 4], 1);
    let mut set = Vec::new();
    next.set().write(&mut set);
    let anchors = AnchorList { sequencers: vec![(1, Hex(set))], ..world.anchors() };
    let rollup_id = world.manifest.rollup_id();
    let by = |secret: u8| {
        let keypair = crate::manifest::tests::signers::keypair(secret);
        let index = next.set().index_of(&keypair.x_only_public_key().0).unwrap();
        Signed::by(SoftHeader(*other), &rollup_id, 1, index, &keypair)
    };
    let old_index =
        world.manifest.sequencers.index_of(&crate::manifest::tests::signers::keypair(3).x_only_public_key().0);
    let make = |name: &str, anchors: &AnchorList, second, verdict: &str| {
        let proof = Equivocation { first: world.sign(first, old_index), second, child_origin: None };
        case(&format!("equivocation: {name}"), anchors, world, Proof::Equivocation(proof), verdict)
    };
    vec![
        make("one signer, before and after a handover", &anchors, by(3), "proven/equivocation"),
        make("one signer, after a handover to an unknown set", &world.anchors(), by(3), "needs_anchor/sequencers"),
        make("a newcomer of a handover", &anchors, by(4), "refuted/other_signers"),
    ]
}

fn state_cases(world: &World) -> Vec<Case> {
    let block = world.chain()[0].hash;
    let state = |root: u8, signers: &[u8]| {
        world.state(SoftState { block, state_root: Hash32([root; 32]) }, signers.iter().copied())
    };
    let elsewhere = world.state(SoftState { block: Hash32([9; 32]), state_root: Hash32([2; 32]) }, [0]);
    let make = |name: &str, first, second, verdict: &str| {
        let proof = Proof::ConflictingState(ConflictingState { first, second });
        case(&format!("conflicting state: {name}"), &world.anchors(), world, proof, verdict)
    };
    let mut forged = state(2, &[0]);
    forged.statement.state_root = Hash32([3; 32]);
    vec![
        make("two states after one block", state(1, &[0]), state(2, &[0]), "proven/conflicting_state"),
        make("two states, one signer in common", state(1, &[0, 1]), state(2, &[1, 2]), "proven/conflicting_state"),
        make("one state twice", state(1, &[0]), state(1, &[0]), "refuted/same_state"),
        make("two blocks", state(1, &[0]), elsewhere, "refuted/other_place"),
        make("two signers", state(1, &[0]), state(2, &[1]), "refuted/other_signers"),
        make("one forged", state(1, &[0]), forged, "refuted/bad_signature"),
        make("one not signed", state(1, &[0]), state(2, &[]), "refuted/unsigned"),
    ]
}

#[test]
fn one_signer_with_two_stories_is_convicted_and_nobody_else() {
    check(&cases());
}

#[test]
fn the_verdict_names_who_told_both_stories() {
    let (world, _) = reorganised();
    let parent = world.chain()[1].head();
    let blocks = [&b"a"[..], b"b"].map(|own| world.child(&parent, 103, &[own]));
    let proof = Equivocation {
        first: world.sign(&blocks[0].header, [0, 1]),
        second: world.sign(&blocks[1].header, [1, 2]),
        child_origin: None,
    };
    let (fact, used) = proven(&world, Proof::Equivocation(proof), &world.anchors());
    let signers = vec![world.signers.keypairs[1].x_only_public_key().0];
    let blocks = blocks.map(|block| block.hash);
    assert_eq!(fact, Fact::Equivocation { signers, number: 3, parent: parent.hash, blocks });
    let rollup_id = world.manifest.rollup_id();
    assert_eq!(used, [AnchorName::Manifest { rollup_id }, AnchorName::Sequencers { handovers: 0 }]);
}

#[test]
fn a_bitcoin_anchor_is_named_where_the_file_leans_on_it() {
    let (world, _) = reorganised();
    let parent = world.chain()[1].head();
    let [first, second] = [(102, &b"a"[..]), (103, b"b")].map(|(height, own)| world.child(&parent, height, &[own]));
    let proof = |child_origin: Option<u32>| {
        Proof::Equivocation(Equivocation {
            first: world.sign(&first.header, [0]),
            second: world.sign(&second.header, [0]),
            child_origin: child_origin.map(|height| Raw(world.block(height).header)),
        })
    };
    let header = AnchorList { bitcoin_headers: vec![(103, Raw(world.block(103).header))], ..world.anchors() };
    let table = [
        ("the header in the file", Some(103), &header, &[][..]),
        ("the header an anchor", None, &header, &[103]),
        ("both hashes anchors", None, &world.bitcoin_anchors([102, 103]), &[102, 103]),
    ];
    for (name, child_origin, anchors, leaned_on) in table {
        let (_, used) = proven(&world, proof(child_origin), anchors);
        let bitcoin: Vec<_> = used.into_iter().filter(|name| matches!(name, AnchorName::Bitcoin(_))).collect();
        let expected: Vec<_> =
            leaned_on.iter().map(|height| AnchorName::Bitcoin(world.origin(*height).block)).collect();
        assert_eq!(bitcoin, expected, "{name}");
    }
}
