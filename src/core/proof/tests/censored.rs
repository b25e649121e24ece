//! `censored`: every way to leave an item out, and every file that says so of an honest block.

use super::*;
use crate::l2::L2Header;
use crate::merkle::Tree;
use crate::queue::Item;

/// A world and what a sequencer could say about block 3, whose origin is 103.
struct Scene {
    world: World,
    /// Block 2 of the honest chain.
    parent: L2Header,
    /// Block 3 of the honest chain.
    honest: L2Header,
}

impl Scene {
    fn new() -> Self {
        let world = World::example();
        let chain = world.chain();
        Self { world, parent: chain[1].header, honest: chain[2].header }
    }

    /// The honest header with a lie in it.
    fn lie(&self, lie: impl FnOnce(&mut L2Header)) -> L2Header {
        let mut header = self.honest;
        lie(&mut header);
        header
    }

    /// A header over a queue of these items, true in everything else, and the tree of it.
    fn queue(&self, items: &[Item]) -> (L2Header, Tree) {
        let tree: Tree = items.iter().map(|item| crate::merkle::leaf_hash(&item.leaf())).collect();
        let head = tree.head(tree.size()).unwrap();
        let header = self.lie(|header| {
            (header.queue_size, header.queue_root) = (head.size, head.root);
            header.forced_end = (self.parent.forced_end + 2).min(head.size);
        });
        (header, tree)
    }

    fn file(&self, header: &L2Header, case: CensoredCase) -> Censored {
        Censored { block: self.world.sign(header, [1]), parent: SoftHeader(self.parent), case }
    }

    fn case(&self, name: &str, header: &L2Header, case: CensoredCase, verdict: &str) -> Case {
        self.case_with(name, &self.world.anchors(), self.file(header, case), verdict)
    }

    fn case_with(&self, name: &str, anchors: &AnchorList, file: Censored, verdict: &str) -> Case {
        case(&format!("censored: {name}"), anchors, &self.world, Proof::Censored(file), verdict)
    }
}

fn leaf(tree: &Tree, items: &[Item], index: usize) -> ProvenLeaf {
    ProvenLeaf::make(tree, tree.size(), index as u64, &items[index]).unwrap()
}

pub(super) fn cases() -> Vec<Case> {
    let scene = Scene::new();
    [
        not_executed(&scene),
        left_out(&scene),
        replaced(&scene),
        false_header(&scene),
        out_of_order(&scene),
        signed(&scene),
    ]
    .concat()
}

fn not_executed(scene: &Scene) -> Vec<Case> {
    let item = |index| CensoredCase::NotExecuted { item: scene.world.leaf(index, 5) };
    let nothing_done = scene.lie(|header| header.forced_end = 1);
    let one_done = scene.lie(|header| header.forced_end = 2);
    let undone = scene.lie(|header| header.forced_end = 0);
    let mut other_leaf = scene.world.leaf(2, 5);
    other_leaf.leaf.tx_hash = Hash32([7; 32]);
    vec![
        scene.case("the first item not executed", &nothing_done, item(1), "proven/censored"),
        scene.case("the second item not executed", &nothing_done, item(2), "proven/censored"),
        scene.case("one of two items executed", &one_done, item(2), "proven/censored"),
        scene.case("an item taken back", &undone, item(0), "proven/censored"),
        scene.case("an honest block, an executed item", &scene.honest, item(2), "refuted/executed"),
        scene.case("an honest block, an item beyond its room", &scene.honest, item(3), "refuted/no_room"),
        scene.case("an item beyond the block's room", &nothing_done, item(3), "refuted/no_room"),
        scene.case(
            "an item that is not in the queue",
            &nothing_done,
            CensoredCase::NotExecuted { item: other_leaf },
            "refuted/inclusion_proof",
        ),
    ]
}

fn left_out(scene: &Scene) -> Vec<Case> {
    let world = &scene.world;
    let absent = |index: usize, before: Option<ProvenLeaf>, after: Option<ProvenLeaf>| CensoredCase::LeftOut {
        item: world.item(index, world.items[index].block.height..=103),
        before,
        after,
    };
    let without = |index: usize| {
        let items: Vec<_> =
            world.items.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, item)| item.clone()).collect();
        let (header, tree) = scene.queue(&items);
        let leaves: Vec<_> = (0..items.len()).map(|at| leaf(&tree, &items, at)).collect();
        (header, leaves)
    };
    let (no_first, after_first) = without(0);
    let (no_second, around_second) = without(2);
    let (no_last, before_last) = without(4);
    let (empty, _) = scene.queue(&[]);
    let at = |leaves: &[ProvenLeaf], index: usize| Some(leaves[index].clone());
    let honest = |index| Some(world.leaf(index, 5));
    let top_of =
        |index: usize, top| CensoredCase::LeftOut { item: world.item(index, 101..=top), before: None, after: None };
    let mut forged_block = world.item(2, 103..=103);
    forged_block.headers.raw[0].0.time += 1;
    let forged =
        CensoredCase::LeftOut { item: forged_block, before: at(&around_second, 1), after: at(&around_second, 2) };
    let mut wrong_place = world.item(2, 103..=103);
    wrong_place.place.position = 3;
    let nowhere = CensoredCase::LeftOut { item: wrong_place, before: None, after: None };
    vec![
        scene.case("the first item left out", &no_first, absent(0, None, at(&after_first, 0)), "proven/censored"),
        scene.case(
            "an item of a list left out",
            &no_second,
            absent(2, at(&around_second, 1), at(&around_second, 2)),
            "proven/censored",
        ),
        scene.case("the last item left out", &no_last, absent(4, at(&before_last, 3), None), "proven/censored"),
        scene.case("all items left out", &empty, absent(1, None, None), "proven/censored"),
        scene.case("left out, the leaves withheld", &no_second, absent(2, None, None), "needs_node/leaves_withheld"),
        scene.case(
            "an honest block, the leaves not shown",
            &scene.honest,
            absent(2, None, None),
            "needs_node/leaves_withheld",
        ),
        scene.case(
            "an honest block, the item between its neighbours",
            &scene.honest,
            absent(2, honest(1), honest(3)),
            "refuted/not_enclosed",
        ),
        scene.case(
            "an honest block, the item as its own neighbour",
            &scene.honest,
            absent(2, honest(1), honest(2)),
            "refuted/not_enclosed",
        ),
        scene.case(
            "an honest block, the item as the one before",
            &scene.honest,
            absent(2, honest(2), honest(3)),
            "refuted/not_enclosed",
        ),
        scene.case(
            "an honest block, the last item behind the one before",
            &scene.honest,
            absent(4, honest(3), None),
            "refuted/not_enclosed",
        ),
        scene.case(
            "an honest block, the last item behind itself",
            &scene.honest,
            absent(4, honest(4), None),
            "refuted/not_enclosed",
        ),
        scene.case(
            "an honest block, the first item before the second",
            &scene.honest,
            absent(0, None, honest(1)),
            "refuted/not_enclosed",
        ),
        scene.case(
            "an honest block, a later item before the first",
            &scene.honest,
            absent(1, None, honest(0)),
            "refuted/not_enclosed",
        ),
        scene.case(
            "neighbours that are not",
            &no_second,
            absent(2, at(&around_second, 0), at(&around_second, 2)),
            "refuted/not_enclosed",
        ),
        scene.case(
            "neighbours in the wrong order",
            &no_second,
            absent(2, at(&around_second, 2), at(&around_second, 1)),
            "refuted/not_enclosed",
        ),
        scene.case(
            "neighbours of another place",
            &no_second,
            absent(2, at(&around_second, 0), at(&around_second, 1)),
            "refuted/not_enclosed",
        ),
        scene.case("leaves of another queue", &no_second, absent(2, honest(1), honest(3)), "refuted/inclusion_proof"),
        scene.case("an item above the origin", &scene.honest, top_of(0, 104), "refuted/other_origin"),
        scene.case("headers that end below the origin", &scene.honest, top_of(0, 102), "refuted/other_origin"),
        scene.case("a block that the origin does not name", &no_second, forged, "refuted/other_origin"),
        scene.case("an item that Bitcoin does not hold", &empty, nowhere, "refuted/no_item"),
    ]
}

fn replaced(scene: &Scene) -> Vec<Case> {
    let world = &scene.world;
    let swapped = |change: &dyn Fn(&mut Item)| {
        let mut items = world.items.clone();
        change(&mut items[2]);
        let (header, tree) = scene.queue(&items);
        let leaf = leaf(&tree, &items, 2);
        (header, CensoredCase::Replaced { item: world.item(2, 103..=103), leaf })
    };
    let other_content = swapped(&|item| item.tx[5] ^= 1);
    let other_block = swapped(&|item| item.block.hash = world.origin(102).block.hash);
    let other_txid = swapped(&|item| item.place.txid = world.items[0].place.txid);
    let other_place = swapped(&|item| item.place.index = 1);
    let honest = |index| CensoredCase::Replaced { item: world.item(2, 103..=103), leaf: world.leaf(index, 5) };
    vec![
        scene.case("another content at the item's place", &other_content.0, other_content.1, "proven/censored"),
        scene.case("another block at the item's place", &other_block.0, other_block.1, "proven/censored"),
        scene.case("another transaction at the item's place", &other_txid.0, other_txid.1, "proven/censored"),
        scene.case("a leaf at another place", &other_place.0, other_place.1, "refuted/other_place"),
        scene.case("an honest block, the item itself", &scene.honest, honest(2), "refuted/same_leaf"),
        scene.case("an honest block, another item", &scene.honest, honest(3), "refuted/other_place"),
    ]
}

fn false_header(scene: &Scene) -> Vec<Case> {
    let world = &scene.world;
    let with = |origin: Option<u32>| CensoredCase::FalseHeader {
        origin: origin.map(|height| Raw(world.block(height).header)),
    };
    let skipped = scene.lie(|header| header.origin = world.origin(104).block);
    let back = scene.lie(|header| header.origin = world.origin(101).block);
    let same_height = scene.lie(|header| header.origin.height = 102);
    let same_hash = scene.lie(|header| header.origin.hash = scene.parent.origin.hash);
    let child_of_another =
        scene.lie(|header| header.origin = BlockRef { height: 103, hash: world.origin(104).block.hash });
    let invented = scene.lie(|header| header.origin.hash = world.origin(101).block.hash);
    let at_parents =
        world.child(&crate::l2::L2Head { header: scene.parent, hash: scene.honest.parent }, 102, &[]).header;
    let known = AnchorList { bitcoin_headers: vec![(103, Raw(world.block(103).header))], ..world.anchors() };
    vec![
        scene.case("too few items executed", &scene.lie(|header| header.forced_end = 2), with(None), "proven/censored"),
        scene.case(
            "too many items executed",
            &scene.lie(|header| header.forced_end = 4),
            with(None),
            "proven/censored",
        ),
        scene.case(
            "more items executed than there are",
            &scene.lie(|header| header.queue_size = 2),
            with(None),
            "proven/censored",
        ),
        scene.case("a number skipped", &scene.lie(|header| header.number = 4), with(None), "proven/censored"),
        scene.case("an origin skipped", &skipped, with(None), "proven/censored"),
        scene.case("an origin below the parent's", &back, with(None), "proven/censored"),
        scene.case("another origin at the parent's height", &same_height, with(None), "proven/censored"),
        scene.case("the parent's origin at another height", &same_hash, with(None), "proven/censored"),
        scene.case("an origin that is another's child", &child_of_another, with(Some(104)), "proven/censored"),
        scene.case("an origin whose header is not shown", &invented, with(None), "needs_node/origin_withheld"),
        scene.case(
            "an honest block, the origin's header not shown",
            &scene.honest,
            with(None),
            "needs_node/origin_withheld",
        ),
        scene.case("an honest block", &scene.honest, with(Some(103)), "refuted/true_header"),
        scene.case("an honest block at its parent's origin", &at_parents, with(None), "refuted/true_header"),
        scene.case(
            "an honest block, another header for the origin's",
            &scene.honest,
            with(Some(104)),
            "refuted/other_bitcoin_header",
        ),
        scene.case_with(
            "an honest block, the origin's header an anchor",
            &known,
            scene.file(&scene.honest, with(None)),
            "refuted/true_header",
        ),
    ]
}

fn out_of_order(scene: &Scene) -> Vec<Case> {
    let items = &scene.world.items;
    let order = |order: [usize; 5], first: usize, second: usize| {
        let items: Vec<_> = order.iter().map(|at| items[*at].clone()).collect();
        let (header, tree) = scene.queue(&items);
        (header, CensoredCase::OutOfOrder { first: leaf(&tree, &items, first), second: leaf(&tree, &items, second) })
    };
    let case =
        |name: &str, (header, case): (L2Header, CensoredCase), verdict: &str| scene.case(name, &header, case, verdict);
    vec![
        case("two items in the wrong order", order([0, 2, 1, 3, 4], 1, 2), "proven/censored"),
        case("an item twice", order([0, 1, 1, 3, 4], 1, 2), "proven/censored"),
        case("neighbours shown backwards", order([0, 1, 2, 3, 4], 2, 1), "refuted/not_neighbours"),
        case("leaves that are not neighbours", order([0, 2, 1, 3, 4], 1, 3), "refuted/not_neighbours"),
        case("an honest block, neighbours", order([0, 1, 2, 3, 4], 1, 2), "refuted/in_order"),
        case("a queue of one with itself", order([0, 1, 2, 3, 4], 1, 1), "refuted/not_neighbours"),
    ]
}

fn signed(scene: &Scene) -> Vec<Case> {
    let header = scene.lie(|header| header.forced_end = 2);
    let good = || scene.file(&header, CensoredCase::FalseHeader { origin: None });
    let changed = |name: &str, verdict: &str, change: &dyn Fn(&mut Censored)| {
        let mut file = good();
        change(&mut file);
        scene.case_with(name, &scene.world.anchors(), file, verdict)
    };
    vec![
        changed("signed by one", "proven/censored", &|_| {}),
        changed("not signed", "refuted/unsigned", &|file| file.block.signatures.clear()),
        changed("not signed, after a handover that is not known", "needs_anchor/sequencers", &|file| {
            file.block.signatures.clear();
            file.block.handovers = 7;
        }),
        changed("a false signature behind a true one", "refuted/bad_signature", &|file| {
            file.block.signatures.push(SignedBy { index: 2, ..file.block.signatures[0] });
        }),
        changed("another header than was signed", "refuted/bad_signature", &|file| {
            file.block.statement.0.forced_end = 1
        }),
        changed("another header as the parent", "refuted/other_parent", &|file| file.parent.0.forced_end = 0),
        changed("the block as its own parent", "refuted/other_parent", &|file| file.parent = file.block.statement),
    ]
}

#[test]
fn each_way_to_censor_is_shown_and_no_honest_block_convicted() {
    check(&cases());
}

#[test]
fn the_verdict_says_what_is_wrong_and_who_signed_it() {
    let scene = Scene::new();
    let header = scene.lie(|header| header.forced_end = 1);
    let hash = header.hash(&scene.world.manifest.rollup_id());
    let name = BlockName { number: 3, hash };
    let signers = vec![scene.world.signers.keypairs[1].x_only_public_key().0];
    let judged = |header: &L2Header, case| {
        proven(&scene.world, Proof::Censored(scene.file(header, case)), &scene.world.anchors())
    };
    let (fact, used) = judged(&header, CensoredCase::NotExecuted { item: scene.world.leaf(1, 5) });
    let item = Some(QueueLeaf::from(&scene.world.items[1]));
    assert_eq!(fact, Fact::Censored { case: CaseName::NotExecuted, signers: signers.clone(), block: name, item });
    let rollup_id = scene.world.manifest.rollup_id();
    assert_eq!(used, [AnchorName::Manifest { rollup_id }, AnchorName::Sequencers { handovers: 0 }]);

    type Lie = fn(&mut L2Header);
    let table: [(CaseName, Lie); 3] = [
        (CaseName::FalseForcedEnd, |header| header.forced_end = 2),
        (CaseName::FalseNumber, |header| header.number = u64::MAX),
        (CaseName::FalseOrigin, |header| header.origin.height = u32::MAX),
    ];
    for (expected, lie) in table {
        let header = scene.lie(lie);
        let (fact, _) = judged(&header, CensoredCase::FalseHeader { origin: None });
        assert!(matches!(fact, Fact::Censored { case, item: None, .. } if case == expected), "{fact:?}");
    }
}

#[test]
fn the_header_of_a_false_origin_is_named_where_it_is_an_anchor_only() {
    let scene = Scene::new();
    let origin = BlockRef { height: 103, hash: scene.world.origin(104).block.hash };
    let lie = scene.lie(|header| header.origin = origin);
    let header = Raw(scene.world.block(104).header);
    let known = AnchorList { bitcoin_headers: vec![(103, header.clone())], ..scene.world.anchors() };
    for (shown, named) in [(Some(header), false), (None, true)] {
        let file = scene.file(&lie, CensoredCase::FalseHeader { origin: shown });
        let (fact, used) = proven(&scene.world, Proof::Censored(file), &known);
        assert!(matches!(fact, Fact::Censored { case: CaseName::FalseOrigin, .. }), "{fact:?}");
        assert_eq!(used.contains(&AnchorName::Bitcoin(origin)), named);
    }
}
