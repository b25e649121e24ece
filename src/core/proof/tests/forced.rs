//! `forced`: what hangs on which anchor, and what does not.

use super::*;
use crate::envelope::tests::blocks;
use crate::envelope::{Body, Carrier};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::p2p::Magic;
use world::START;

pub(super) fn cases() -> Vec<Case> {
    let world = World::example();
    let anchor = |heights: &[u32]| world.bitcoin_anchors(heights.iter().copied());
    let make = |name: &str, anchors: &AnchorList, proof: ItemProof, verdict: &str| {
        case(&format!("forced: {name}"), anchors, &world, Proof::Forced(proof), verdict)
    };
    let changed = |name: &str, verdict: &str, change: &dyn Fn(&mut ItemProof)| {
        let mut proof = world.item(2, 102..=104);
        change(&mut proof);
        make(name, &anchor(&[103]), proof, verdict)
    };
    let good = || world.item(2, 102..=104);
    let mut other_branch = anchor(&[103]);
    other_branch.bitcoin_blocks.push(BlockRef { height: 104, hash: BlockHash::all_zeros() });
    let mut wrong_height = anchor(&[103]);
    wrong_height.bitcoin_blocks.push(BlockRef { height: 105, hash: world.origin(104).block.hash });
    let mut other_start = world.item(0, 101..=101);
    other_start.headers.raw[0].0.prev_blockhash = world.origin(102).block.hash;
    vec![
        make("in an output, whose block is an anchor", &anchor(&[101]), world.item(0, 101..=101), "proven/forced"),
        make("in a list in an input, whose block is an anchor", &anchor(&[103]), good(), "proven/forced"),
        make("the last transaction of an odd number", &anchor(&[103]), world.item(4, 103..=103), "proven/forced"),
        make("without an anchor", &anchor(&[]), good(), "needs_anchor/bitcoin"),
        make("under an anchor where work proves nothing", &anchor(&[104]), good(), "needs_anchor/bitcoin"),
        make("over an anchor where work proves nothing", &anchor(&[102]), good(), "needs_anchor/bitcoin"),
        make(
            "on the start block where work proves nothing",
            &anchor(&[]),
            world.item(0, 101..=103),
            "needs_anchor/bitcoin",
        ),
        make("on another branch than an anchor above", &other_branch, good(), "refuted/other_branch"),
        make("on another branch than the start block", &anchor(&[]), other_start, "refuted/other_branch"),
        make("an anchor at another height", &wrong_height, good(), "refuted/wrong_height"),
        changed("shifted by a height", "refuted/other_branch", &|proof| {
            proof.headers.first_height -= 1;
            proof.height -= 1;
        }),
        changed("no header", "refuted/no_headers", &|proof| proof.headers.raw.clear()),
        changed("heights past 32 bits", "refuted/height_overflow", &|proof| proof.headers.first_height = u32::MAX - 1),
        changed("the highest height of all", "refuted/wrong_height", &|proof| {
            proof.headers.first_height = u32::MAX - 2;
            proof.height = u32::MAX - 1;
        }),
        changed("a header left out", "refuted/unlinked", &|proof| {
            proof.headers.raw.remove(1);
        }),
        changed("headers downwards", "refuted/unlinked", &|proof| proof.headers.raw.reverse()),
        changed("a height below the headers", "refuted/not_in_headers", &|proof| proof.height = 101),
        changed("a height above the headers", "refuted/not_in_headers", &|proof| proof.height = 105),
        changed("the block before", "refuted/coinbase_not_in_block", &|proof| proof.height = 102),
        changed("nBits of another network", "refuted/bits", &|proof| {
            let Raw(top) = proof.headers.raw.last_mut().unwrap();
            top.bits = bitcoin::CompactTarget::from_consensus(0x1d00_ffff);
        }),
        changed("a position behind the list", "refuted/no_item", &|proof| proof.place.position = 3),
        changed("the largest position", "refuted/no_item", &|proof| proof.place.position = u32::MAX),
        changed("another input", "refuted/no_envelope", &|proof| proof.place.index = 1),
        changed("another transaction's place", "refuted/other_transaction", &|proof| {
            proof.place.txid = world.items[0].place.txid;
        }),
        changed("an output in place of the input", "refuted/unproven_witness", &|proof| {
            proof.place.carrier = Carrier::OpReturn;
        }),
    ]
}

/// Cases whose block holds something else than a sound envelope of this rollup.
pub(super) fn envelope_cases() -> Vec<Case> {
    let mut world = World::example();
    let stranger =
        World::new(crate::manifest::tests::signers::Signers::new([9], 1), Magic::REGTEST).manifest.rollup_id();
    let payload = |namespace, body| crate::envelope::Payload { namespace, body }.encode().unwrap();
    let ours = world.manifest.rollup_id().namespace();
    let long_push = [&[0x6a, 0x4c, 11][..], &payload(ours, Body::Tx(vec![1, 2]))].concat();
    let txs = [
        (
            "of another rollup",
            blocks::carry(Carrier::OpReturn, &payload(stranger.namespace(), Body::Tx(vec![1])), 1),
            "no_envelope",
        ),
        ("without an envelope", world.plain(), "no_envelope"),
        ("a push that is not minimal", blocks::spend_to_script(&long_push), "flawed_envelope"),
        ("a batch", world.carry(Carrier::OpReturn, Body::Batch(vec![1])), "no_item"),
        ("a kind of the future", world.carry(Carrier::OpReturn, Body::Unsupported(0x77, vec![1])), "no_item"),
    ];
    let block = world.mine(txs.iter().map(|(_, tx, _)| tx.clone()));
    let mut cases = Vec::new();
    for (name, tx, reason) in &txs {
        let place = crate::queue::Place { txid: tx.compute_txid(), carrier: Carrier::OpReturn, index: 0, position: 0 };
        let headers = world.headers(block.height..=block.height);
        let proof = ItemProof::make(headers, block.height, world.block(block.height), place).unwrap();
        let anchors = world.bitcoin_anchors([block.height]);
        cases.push(case(
            &format!("forced: {name}"),
            &anchors,
            &world,
            Proof::Forced(proof),
            &format!("refuted/{reason}"),
        ));
    }
    cases
}

/// An item that is older than the rollup, or another rollup's.
pub(super) fn start_cases() -> Vec<Case> {
    let world = World::example();
    let mut fields = (*world.manifest).clone();
    fields.start = world.origin(103).block;
    let late = Manifest::new(fields).unwrap();
    let file = File { rollup_id: late.rollup_id(), proof: Proof::Forced(world.item(4, 103..=103)) };
    let file = serde_json::from_str(&file.to_json().unwrap()).unwrap();
    let anchors = AnchorList { manifest: Hex(late.encode()), ..AnchorList::default() };
    let verdict = "refuted/not_above_start".into();
    let not_above = Case { name: "forced: in the start block".into(), anchors, file, verdict };
    let proof = Proof::Forced(world.item(4, 103..=103));
    let other =
        case("forced: of another rollup than the manifest", &not_above.anchors, &world, proof, "refuted/other_rollup");
    vec![not_above, other]
}

#[test]
fn an_item_is_proven_by_its_block_and_place_and_nothing_less() {
    check(&cases());
    check(&envelope_cases());
    check(&start_cases());
}

#[test]
fn the_verdict_shows_the_item_and_names_what_it_hangs_on() {
    let world = World::example();
    let anchors = world.bitcoin_anchors([103]);
    for (index, item) in world.items.iter().enumerate().skip(1) {
        let (fact, used) = proven(&world, Proof::Forced(world.item(index, 102..=104)), &anchors);
        let Fact::Forced { leaf, tx, bitcoin } = fact else { panic!("{fact:?}") };
        assert_eq!((leaf, tx), (QueueLeaf::from(item), RawBytes(item.tx.clone())));
        let facts = BitcoinFacts {
            block: item.block,
            anchor: item.block,
            standing: Standing::IsAnchor,
            depth: 1,
            work: None,
            bits: None,
        };
        assert_eq!(bitcoin, facts, "headers above the anchor show nothing on regtest");
        let rollup_id = world.manifest.rollup_id();
        assert_eq!(used, [AnchorName::Manifest { rollup_id }, AnchorName::Bitcoin(item.block)]);
    }
    let (fact, _) = proven(&world, Proof::Forced(world.item(2, 102..=104)), &world.bitcoin_anchors([102, 103, 104]));
    let Fact::Forced { bitcoin, .. } = fact else { panic!("{fact:?}") };
    assert_eq!((bitcoin.anchor.height, bitcoin.depth), (103, 2), "headers up to the highest anchor do");
}

#[test]
fn a_leaf_in_a_file_is_the_leaf_in_the_queue() {
    let world = World::example();
    assert_eq!(world.items.len(), 5);
    for item in &world.items {
        assert_eq!(QueueLeaf::from(item).bytes(), item.leaf());
    }
    assert!(world.items.iter().map(|item| QueueLeaf::from(item).order()).is_sorted_by(|a, b| a < b));
}

#[test]
fn a_proof_is_made_from_the_block_that_its_headers_name() {
    let world = World::example();
    let place = world.items[0].place;
    let make = |heights, height, block| ItemProof::make(world.headers(heights), height, world.block(block), place);
    assert!(make(101..=102, 101, 101).is_ok());
    assert_eq!(make(101..=102, 102, 101), Err(NotInBlock(place)), "another height");
    assert_eq!(make(101..=102, START, 101), Err(NotInBlock(place)), "below the headers");
    assert_eq!(make(101..=102, 101, 102), Err(NotInBlock(place)), "another block");
    assert_eq!(make(102..=102, 102, 102), Err(NotInBlock(place)), "a block without the transaction");
}
