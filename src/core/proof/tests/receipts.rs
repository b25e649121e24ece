//! `broken_receipt`: all the blocks, all that they execute, and no way to hide a kept promise.

use super::*;
use crate::l2::L2Block;
use crate::primitives::sha256;
use crate::queue::Place;

/// The own transactions of every block of the example's chain.
const OWN: [&[u8]; 2] = [b"own 1", b"own 2"];

fn block(world: &World, block: &L2Block, own_txs: &[&[u8]], signers: &[u8]) -> ReceiptBlock {
    ReceiptBlock {
        header: world.sign(&block.header, signers.iter().copied()),
        own_txs: own_txs.iter().map(|tx| RawBytes(tx.to_vec())).collect(),
        forced: world.leaves(block.forced.clone(), block.header.queue_size),
    }
}

fn receipt(world: &World, tx: &[u8], first_number: u64, last_number: u64, signers: &[u8]) -> Signed<Receipt> {
    world.state(Receipt { tx_hash: sha256(tx), first_number, last_number }, signers.iter().copied())
}

pub(super) fn cases() -> Vec<Case> {
    let world = World::example();
    let chain = world.chain();
    // Blocks 2 and 3 execute items 1 and 2 between them.
    let broken = |tx: &[u8]| BrokenReceipt {
        receipt: receipt(&world, tx, 2, 3, &[0]),
        parent: SoftHeader(chain[0].header),
        blocks: chain[1..].iter().map(|of| block(&world, of, &OWN, &[0])).collect(),
    };
    let make = |name: &str, proof: BrokenReceipt, verdict: &str| {
        case(&format!("broken receipt: {name}"), &world.anchors(), &world, Proof::BrokenReceipt(proof), verdict)
    };
    let changed = |name: &str, verdict: &str, change: &dyn Fn(&mut BrokenReceipt)| {
        let mut proof = broken(b"promised");
        change(&mut proof);
        make(name, proof, verdict)
    };
    let first = BrokenReceipt {
        receipt: receipt(&world, b"promised", 1, 1, &[0]),
        parent: SoftHeader(world.genesis().header),
        blocks: vec![block(&world, &chain[0], &OWN, &[0])],
    };
    // A list of one whose only "transaction" is the two nodes of the true list.
    let nodes = OWN.map(crate::merkle::leaf_hash);
    let two_nodes = [&[1][..], &nodes[0].0, &nodes[1].0].concat();
    vec![
        make("promised for two blocks, in neither", broken(b"promised"), "proven/broken_receipt"),
        make("promised for the first block, not there", first, "proven/broken_receipt"),
        make("kept as an own transaction", broken(OWN[1]), "refuted/receipt_kept"),
        make("kept as a forced item", broken(&world.items[2].tx), "refuted/receipt_kept"),
        make("kept before its time", broken(&world.items[0].tx), "proven/broken_receipt"),
        make("kept after its time", broken(&world.items[3].tx), "proven/broken_receipt"),
        changed("a block left out at the end", "refuted/not_covered", &|proof| drop(proof.blocks.pop())),
        changed("a block left out at the beginning", "refuted/not_covered", &|proof| drop(proof.blocks.remove(0))),
        changed("a block too many", "refuted/not_covered", &|proof| {
            proof.receipt = receipt(&world, b"promised", 2, 2, &[0])
        }),
        changed("no blocks", "refuted/not_covered", &|proof| proof.blocks.clear()),
        changed("blocks backwards", "refuted/not_covered", &|proof| proof.blocks.reverse()),
        changed("all numbers promised", "refuted/not_covered", &|proof| {
            proof.receipt = receipt(&world, b"promised", 2, u64::MAX, &[0]);
        }),
        changed("promised for block 0", "refuted/empty_receipt", &|proof| {
            proof.receipt = receipt(&world, b"promised", 0, 3, &[0]);
        }),
        changed("promised for no number", "refuted/empty_receipt", &|proof| {
            proof.receipt = receipt(&world, b"promised", 3, 2, &[0]);
            proof.blocks.clear();
        }),
        changed("an own transaction left out", "refuted/other_own_transactions", &|proof| {
            drop(proof.blocks[1].own_txs.pop())
        }),
        changed("own transactions in another order", "refuted/other_own_transactions", &|proof| {
            proof.blocks[0].own_txs.reverse()
        }),
        changed("two nodes as an own transaction", "refuted/other_own_transactions", &|proof| {
            proof.blocks[1].own_txs = vec![RawBytes(two_nodes.clone())];
        }),
        changed("an item of the forced section left out", "refuted/other_forced_section", &|proof| {
            proof.blocks[1].forced.leaves.pop();
        }),
        changed("an item too many", "refuted/other_forced_section", &|proof| {
            proof.blocks[1].forced = world.leaves(1..4, 5);
        }),
        changed("an item of the forced section twice", "refuted/inclusion_proof", &|proof| {
            proof.blocks[1].forced.leaves[1] = proof.blocks[1].forced.leaves[0];
        }),
        changed("another item in the forced section", "refuted/inclusion_proof", &|proof| {
            proof.blocks[1].forced.leaves[0] = proof.blocks[1].forced.leaves[1];
        }),
        changed("the items before the forced section", "refuted/inclusion_proof", &|proof| {
            proof.blocks[1].forced = world.leaves(0..2, 5);
        }),
        changed("the items behind the forced section", "refuted/inclusion_proof", &|proof| {
            proof.blocks[1].forced = world.leaves(3..5, 5);
        }),
        changed("the forced section under another queue", "refuted/inclusion_proof", &|proof| {
            proof.blocks[1].forced = world.leaves(1..3, 4);
        }),
        changed("a node of the forced section left out", "refuted/inclusion_proof", &|proof| {
            proof.blocks[1].forced.proof.pop();
        }),
        changed("a node of the forced section too many", "refuted/inclusion_proof", &|proof| {
            proof.blocks[1].forced.proof.push(Hash32([7; 32]));
        }),
        changed("a node for a section without items", "refuted/inclusion_proof", &|proof| {
            proof.blocks[0].forced.proof.push(Hash32([7; 32]));
        }),
        changed("a header that is not the parent", "refuted/other_parent", &|proof| proof.parent.0.forced_end = 3),
        changed("a block of another branch", "refuted/other_parent", &|proof| {
            let other = world.child(&chain[0].head(), 102, &[]);
            proof.blocks[0] = block(&world, &other, &[], &[0]);
        }),
        changed("a block by another signer", "refuted/other_signers", &|proof| {
            proof.blocks[1] = block(&world, &chain[2], &OWN, &[1])
        }),
        changed("a receipt by another signer", "refuted/other_signers", &|proof| {
            proof.receipt = receipt(&world, b"promised", 2, 3, &[2]);
        }),
        changed("one signer of several signed all", "proven/broken_receipt", &|proof| {
            proof.receipt = receipt(&world, b"promised", 2, 3, &[0, 1]);
            proof.blocks[0] = block(&world, &chain[1], &OWN, &[0, 2]);
        }),
        changed("a receipt that nobody signed", "refuted/unsigned", &|proof| proof.receipt.signatures.clear()),
        changed("a block that nobody signed: a derived one convicts nobody", "refuted/unsigned", &|proof| {
            proof.blocks[1].header.signatures.clear();
        }),
        changed("a receipt by another signer, and a block that nobody signed", "refuted/unsigned", &|proof| {
            proof.receipt = receipt(&world, b"promised", 2, 3, &[2]);
            proof.blocks[1].header.signatures.clear();
        }),
        changed("another transaction than was promised", "refuted/bad_signature", &|proof| {
            proof.receipt.statement.tx_hash = sha256(b"never promised");
        }),
        changed("a longer promise than was signed", "refuted/bad_signature", &|proof| {
            proof.receipt.statement.first_number = 3;
            proof.parent = proof.blocks.remove(0).header.statement;
        }),
        changed("a receipt for a set that is not known", "needs_anchor/sequencers", &|proof| {
            proof.receipt.handovers = 2
        }),
    ]
}

#[test]
fn a_promise_is_broken_by_all_its_blocks_or_not_at_all() {
    check(&cases());
}

#[test]
fn the_verdict_names_the_signer_and_the_promise() {
    let world = World::example();
    let chain = world.chain();
    let proof = BrokenReceipt {
        receipt: receipt(&world, b"promised", 3, 3, &[0, 1, 2]),
        parent: SoftHeader(chain[1].header),
        blocks: vec![block(&world, &chain[2], &OWN, &[1])],
    };
    let signers = vec![world.signers.keypairs[1].x_only_public_key().0];
    let promise = proof.receipt.statement;
    let (fact, _) = proven(&world, Proof::BrokenReceipt(proof), &world.anchors());
    assert_eq!(fact, Fact::BrokenReceipt { signers, receipt: promise });
}

#[test]
fn the_longest_receipt_of_our_sequencer_fits_in_a_file_with_every_block_full() {
    use crate::envelope::Carrier;
    use crate::proof::file::MAX_FILE;
    use bitcoin::hashes::Hash;
    // A receipt's 65 blocks; the default cap; 100,000 bytes of own transactions; a queue of a thousand million items.
    let (blocks, cap, own_bytes, queue_levels) = (65, crate::manifest::DEFAULT_MAX_FORCED, 100_000, 30);
    let hash = bitcoin::BlockHash::from_byte_array([7; 32]);
    let txid = bitcoin::Txid::from_byte_array([7; 32]);
    let place = Place { txid, carrier: Carrier::OpReturn, index: 99_999, position: 99_999 };
    let leaf = QueueLeaf { height: 9_999_999, block_hash: hash, tx_index: 99_999, place, tx_hash: Hash32([7; 32]) };
    let forced = LeafRange { leaves: vec![leaf; cap.into()], proof: vec![Hash32([7; 32]); 2 * queue_levels] };
    let world = World::example();
    let header = world.sign(&world.chain()[0].header, [0, 1, 2]);
    let block = ReceiptBlock { header, own_txs: vec![RawBytes(vec![7; 100]); own_bytes / 100], forced };
    let parent = block.header.statement;
    let length = |shown: Vec<ReceiptBlock>| {
        let receipt = receipt(&world, b"promised", 1, blocks, &[0, 1, 2]);
        let proof = Proof::BrokenReceipt(BrokenReceipt { receipt, parent, blocks: shown });
        File { rollup_id: world.manifest.rollup_id(), proof }.to_json().unwrap().len()
    };
    let none = length(vec![]);
    let each = length(vec![block]) - none;
    let all = none + blocks as usize * (each + 1);
    assert!(all < MAX_FILE, "{all} bytes, {each} for each block");
}
