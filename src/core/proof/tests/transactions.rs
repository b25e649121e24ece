//! The known traps of showing a transaction in a Bitcoin block, each in a block that is whole otherwise.

use super::*;
use crate::envelope::tests::blocks;
use crate::envelope::{Body, Carrier, Payload, op_return_script};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Block, ScriptBuf, Transaction, TxMerkleNode, Witness};

const COMMITMENT: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

fn double(left: &[u8], right: &[u8]) -> sha256d::Hash {
    sha256d::Hash::hash(&[left, right].concat())
}

/// Puts a changed block on top of the world, with a true Merkle root: what a miner could make.
fn mine(world: &World, block: &mut Block) -> (AnchorList, HeaderChain) {
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    anchored(world, block)
}

fn anchored(world: &World, block: &Block) -> (AnchorList, HeaderChain) {
    let height = world.tip().height;
    let bitcoin_blocks = vec![BlockRef { height, hash: block.block_hash() }];
    (AnchorList { bitcoin_blocks, ..world.anchors() }, HeaderChain::new(height, [block.header]))
}

/// A block with an OP_RETURN item at index 1 and a taproot item at index 2, and the world below it.
fn world_and_block() -> (World, Block) {
    let mut world = World::example();
    let txs = [
        world.carry(Carrier::OpReturn, Body::Tx(b"in an output".to_vec())),
        world.carry(Carrier::Taproot, Body::Tx(b"in an input".to_vec())),
    ];
    let at = world.mine(txs);
    let block = world.block(at.height).clone();
    (world, block)
}

fn item_proof(headers: HeaderChain, block: &Block, carrier: Carrier) -> ItemProof {
    let index = if carrier == Carrier::OpReturn { 1 } else { 2 };
    let place = crate::queue::Place { txid: block.txdata[index].compute_txid(), carrier, index: 0, position: 0 };
    ItemProof::make(headers.clone(), headers.first_height, block, place).unwrap()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = changed_proofs();
    cases.extend(changed_blocks());
    cases.push(two_nodes_as_a_transaction());
    cases.push(a_transaction_as_two_nodes());
    cases.extend(repeated_transactions());
    cases
}

fn changed_proofs() -> Vec<Case> {
    let (world, block) = world_and_block();
    let (anchors, headers) = anchored(&world, &block);
    let changed = |name: &str, carrier, verdict: &str, change: &dyn Fn(&mut TransactionProof)| {
        let mut proof = item_proof(headers.clone(), &block, carrier);
        change(&mut proof.inclusion);
        case(&format!("transaction: {name}"), &anchors, &world, Proof::Forced(proof), verdict)
    };
    let (output, input) = (Carrier::OpReturn, Carrier::Taproot);
    let other_witness = |proof: &mut TransactionProof| {
        let witness = &mut proof.transaction.0.input[0].witness;
        let mut elements = witness.to_vec();
        elements[0][0] ^= 1;
        *witness = Witness::from_slice(&elements);
    };
    vec![
        changed("in the txid tree", output, "proven/forced", &|_| {}),
        changed("in the wtxid tree", input, "proven/forced", &|_| {}),
        changed("another index", output, "refuted/not_in_block", &|proof| proof.index = 3),
        changed("the index of the coinbase", output, "refuted/coinbase_carries_nothing", &|proof| proof.index = 0),
        changed("an index with more bits than the branch", output, "refuted/index_beyond_branch", &|proof| {
            proof.index |= 4
        }),
        changed("an index of 32 bits", input, "refuted/index_beyond_branch", &|proof| proof.index = u32::MAX),
        changed("branches of 32 nodes", output, "refuted/index_beyond_branch", &|proof| {
            proof.branch.resize(32, proof.branch[0]);
            proof.coinbase_branch.resize(32, proof.branch[0]);
        }),
        changed("branches of 31 nodes", output, "refuted/coinbase_not_in_block", &|proof| {
            proof.branch.resize(31, proof.branch[0]);
            proof.coinbase_branch.resize(31, proof.branch[0]);
        }),
        changed("a branch cut short", output, "refuted/unequal_branches", &|proof| proof.branch.truncate(1)),
        changed("a longer coinbase branch", input, "refuted/unequal_branches", &|proof| {
            proof.coinbase_branch.push(proof.branch[0]);
        }),
        changed("both branches cut short", output, "refuted/coinbase_not_in_block", &|proof| {
            proof.branch.pop();
            proof.coinbase_branch.pop();
        }),
        changed("another node", output, "refuted/not_in_block", &|proof| proof.branch[0] = double(&[], &[])),
        changed("another node in the wtxid tree", input, "refuted/not_in_block", &|proof| {
            proof.branch[1] = double(&[], &[]);
        }),
        changed("another coinbase node", output, "refuted/coinbase_not_in_block", &|proof| {
            proof.coinbase_branch[0] = double(&[], &[]);
        }),
        changed("another coinbase", input, "refuted/coinbase_not_in_block", &|proof| {
            proof.coinbase.0.lock_time = bitcoin::absolute::LockTime::from_consensus(1)
        }),
        changed("a coinbase that is none", input, "refuted/not_coinbase", &|proof| {
            proof.coinbase = proof.transaction.clone()
        }),
        changed("another witness", input, "refuted/not_in_block", &other_witness),
        changed("no witness", input, "refuted/not_in_block", &|proof| proof.transaction.0.input[0].witness.clear()),
        changed("a witness in the txid tree", output, "refuted/unproven_witness", &|proof| {
            proof.transaction.0.input[0].witness = Witness::from_slice(&[[1]]);
        }),
        changed("the coinbase without its witness", input, "refuted/coinbase_witness", &|proof| {
            proof.coinbase.0.input[0].witness.clear();
        }),
        changed("the coinbase without its witness, in the txid tree", output, "refuted/coinbase_witness", &|proof| {
            proof.coinbase.0.input[0].witness.clear();
        }),
        changed("a reserved value of 31 bytes", input, "refuted/coinbase_witness", &|proof| {
            proof.coinbase.0.input[0].witness = Witness::from_slice(&[[0; 31]]);
        }),
        changed("two reserved values", input, "refuted/coinbase_witness", &|proof| {
            proof.coinbase.0.input[0].witness = Witness::from_slice(&[[0; 32]; 2]);
        }),
        changed("another reserved value", input, "refuted/not_in_block", &|proof| {
            proof.coinbase.0.input[0].witness = Witness::from_slice(&[[1; 32]]);
        }),
    ]
}

fn changed_blocks() -> Vec<Case> {
    let (world, block) = world_and_block();
    let changed = |name: &str, carrier, verdict: &str, change: &dyn Fn(&mut Block)| {
        let mut block = block.clone();
        change(&mut block);
        let (anchors, headers) = mine(&world, &mut block);
        let proof = Proof::Forced(item_proof(headers, &block, carrier));
        case(&format!("transaction: {name}"), &anchors, &world, proof, verdict)
    };
    let commitment = |hash: [u8; 32]| blocks::output(&[&COMMITMENT[..], &hash].concat());
    let true_one = block.txdata[0].output.last().unwrap().clone();
    let no_commitment = |block: &mut Block| drop(block.txdata[0].output.pop());
    let more = blocks::output(&[true_one.script_pubkey.as_bytes(), &[1, 2, 3]].concat());
    vec![
        changed("no commitment", Carrier::Taproot, "refuted/no_witness_commitment", &no_commitment),
        changed("no commitment, in the txid tree", Carrier::OpReturn, "proven/forced", &no_commitment),
        changed("a false commitment behind the true one", Carrier::Taproot, "refuted/not_in_block", &|block| {
            block.txdata[0].output.push(commitment([9; 32]));
        }),
        changed("a false commitment before the true one", Carrier::Taproot, "proven/forced", &|block| {
            block.txdata[0].output.insert(0, commitment([9; 32]));
        }),
        changed("a commitment of 31 bytes behind the true one", Carrier::Taproot, "proven/forced", &|block| {
            block.txdata[0].output.push(blocks::output(&[&COMMITMENT[..], &[9; 31]].concat()));
        }),
        changed("a commitment with bytes behind it", Carrier::Taproot, "proven/forced", &|block| {
            *block.txdata[0].output.last_mut().unwrap() = more.clone();
        }),
        changed("a coinbase of 64 bytes", Carrier::OpReturn, "refuted/sixty_four_bytes", &|block| {
            let coinbase = &mut block.txdata[0];
            coinbase.output = vec![blocks::output(&[])];
            coinbase.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51; 4]);
            assert_eq!(coinbase.base_size(), 64);
        }),
    ]
}

/// A miner who knows two hashes that together read as a transaction has an inner node proven as one.
///
/// No such pair is known to this test, so that the transaction is given a block with one leaf less: what is
/// refused is its size, before any hash.
fn two_nodes_as_a_transaction() -> Case {
    let (world, mut block) = world_and_block();
    // Version 2, one input with a script of 2 bytes, an output with one of 2: 64 bytes, OP_RETURN of nothing.
    let mut tx: Transaction = blocks::spend_to_script(&[0x6a, 0x51]);
    tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51, 0x51]);
    assert_eq!(tx.base_size(), 64);
    block.txdata[1] = tx;
    let (anchors, headers) = mine(&world, &mut block);
    let proof = Proof::Forced(item_proof(headers, &block, Carrier::OpReturn));
    case("transaction: one of 64 bytes", &anchors, &world, proof, "refuted/sixty_four_bytes")
}

/// A transaction of 64 bytes whose second half is the txid of one that was never mined.
fn a_transaction_as_two_nodes() -> Case {
    let (world, block) = world_and_block();
    let payload =
        Payload { namespace: world.manifest.rollup_id().namespace(), body: Body::Tx(b"never mined".to_vec()) };
    let forged = blocks::spend_to_script(op_return_script(&payload.encode().unwrap()).as_bytes());
    // The bytes of a mined transaction; that they do not decode as one is of no importance to the tree.
    let left = [2; 32];
    let mined = double(&left, forged.compute_txid().as_byte_array());
    let coinbase = block.txdata[0].compute_txid();
    let mut header = block.header;
    header.merkle_root = TxMerkleNode::from_raw_hash(double(coinbase.as_byte_array(), mined.as_byte_array()));
    let (anchors, headers) = anchored(&world, &Block { header, txdata: Vec::new() });
    let place = crate::queue::Place { txid: forged.compute_txid(), carrier: Carrier::OpReturn, index: 0, position: 0 };
    let inclusion = TransactionProof {
        transaction: Raw(forged),
        index: 3,
        branch: vec![sha256d::Hash::from_byte_array(left), coinbase.to_raw_hash()],
        coinbase: Raw(block.txdata[0].clone()),
        coinbase_branch: vec![mined],
    };
    let proof = ItemProof { height: headers.first_height, headers, place, inclusion };
    case(
        "transaction: under another one of 64 bytes",
        &anchors,
        &world,
        Proof::Forced(proof),
        "refuted/unequal_branches",
    )
}

/// The block with its last transaction once more has the same roots.
fn repeated_transactions() -> Vec<Case> {
    let (world, block) = world_and_block();
    let (anchors, headers) = anchored(&world, &block);
    let mut twice = block.clone();
    twice.txdata.push(block.txdata[2].clone());
    assert_eq!(twice.compute_merkle_root(), block.compute_merkle_root());
    let repeated = |name: &str, carrier| {
        let mut proof = item_proof(headers.clone(), &block, carrier);
        assert_eq!(proof.inclusion.index, 2);
        proof.inclusion.index = 3;
        case(&format!("transaction: {name}"), &anchors, &world, Proof::Forced(proof), "refuted/repeated_node")
    };
    let mut swapped = block.clone();
    swapped.txdata.swap(1, 2);
    blocks::commit(&mut swapped);
    let (swapped_anchors, swapped_headers) = anchored(&world, &swapped);
    let place = crate::queue::Place {
        txid: swapped.txdata[2].compute_txid(),
        carrier: Carrier::OpReturn,
        index: 0,
        position: 0,
    };
    let mut last = ItemProof::make(swapped_headers.clone(), swapped_headers.first_height, &swapped, place).unwrap();
    let whole =
        case("transaction: the last of three", &swapped_anchors, &world, Proof::Forced(last.clone()), "proven/forced");
    last.inclusion.index = 3;
    let again = case(
        "transaction: the last of three once more",
        &swapped_anchors,
        &world,
        Proof::Forced(last),
        "refuted/repeated_node",
    );
    vec![repeated("the last in the wtxid tree once more", Carrier::Taproot), whole, again]
}

#[test]
fn nothing_but_a_blocks_own_transactions_at_their_own_indexes_is_proven() {
    check(&cases());
}

#[test]
fn every_transaction_of_a_block_of_any_size_is_proven_in_both_trees() {
    for count in 1..=20u32 {
        let txs = (0..count).map(|salt| {
            let mut tx = blocks::spend_with_witness([salt.to_le_bytes().to_vec()]);
            tx.input[0].previous_output.vout = salt;
            tx
        });
        let block = blocks::block(bitcoin::BlockHash::all_zeros(), 0, count, Vec::new(), txs.collect());
        for index in 1..=count {
            for tree in [TxTree::Txid, TxTree::Wtxid] {
                let proof = TransactionProof::make(&block, index, tree).unwrap();
                assert_eq!(proof.check(tree, &block.header.merkle_root), Ok(()), "{index} of {count} in {tree:?}");
            }
        }
        for tree in [TxTree::Txid, TxTree::Wtxid] {
            let coinbase = TransactionProof::make(&block, 0, tree).unwrap();
            assert_eq!(coinbase.check(tree, &block.header.merkle_root), Err(Refutation::CoinbaseCarriesNothing));
            assert_eq!(TransactionProof::make(&block, count + 1, tree), None);
        }
    }
}

#[test]
fn a_branch_alone_leads_to_the_root_unless_it_can_be_read_in_two_ways() {
    use crate::proof::root_above;
    let txs = (0..5).map(|n| blocks::spend_to_script(&[0x51, n]));
    let block = blocks::block(bitcoin::BlockHash::all_zeros(), 0, 1, Vec::new(), txs.collect());
    let root = Ok(block.header.merkle_root);
    for index in 0..6u32 {
        let branch = TransactionProof::make(&block, index, TxTree::Txid).unwrap().branch;
        let tx = &block.txdata[index as usize];
        assert_eq!(root_above(tx, index, &branch), root);
        assert_ne!(root_above(tx, index ^ 1, &branch), root, "elsewhere");
        assert_ne!(root_above(&block.txdata[(index as usize + 1) % 6], index, &branch), root, "another one");
        assert_eq!(root_above(tx, index | 8, &branch), Err(Refutation::IndexBeyondBranch));
        let again = [branch.as_slice(), &[double(&[], &[]); 32]].concat();
        assert_eq!(root_above(tx, index, &again), Err(Refutation::IndexBeyondBranch), "deeper than any block");
    }
    let mut short: Transaction = blocks::spend_to_script(&[0x6a, 0x51]);
    short.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51, 0x51]);
    assert_eq!(root_above(&short, 0, &[]), Err(Refutation::SixtyFourBytes));

    // One whose id is the second half of a transaction of 64 bytes: who has that one mined could show this one below
    // it.
    let forged = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::from_consensus(3_858_538),
        input: vec![bitcoin::TxIn {
            previous_output: bitcoin::OutPoint::new(bitcoin::Txid::from_byte_array([1; 32]), 0),
            ..Default::default()
        }],
        output: vec![bitcoin::TxOut {
            value: bitcoin::Amount::from_sat(1_000),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }],
    };
    let mut left = [7; 32];
    // One input.
    left[4] = 1;
    let beside = [sha256d::Hash::from_byte_array(left)];
    assert_eq!(root_above(&forged, 1, &beside), Err(Refutation::SixtyFourBytes));
    left[4] = 2;
    assert!(root_above(&forged, 1, &[sha256d::Hash::from_byte_array(left)]).is_ok(), "no transaction");
}
