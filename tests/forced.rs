//! Forced transactions on a real bitcoind: carried, ordered, due, executed.

use crate::support::{GENESIS_BALANCE, Window, World};
use anyhow::{Context, Result};
use sortie::envelope::{Body, Carrier};
use sortie::executor::{NoOpReason, Outcome};
use sortie::publish::{CarrierChoice, Request, publish};

const WINDOW: Window = Window { window: 6, max_lag: 3 };

#[test]
fn each_carrier_brings_a_transaction_through_a_mined_block() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 2)?;
    let mut follower = world.follower("follower")?;
    for (nonce, carrier) in [Carrier::OpReturn, Carrier::Taproot].into_iter().enumerate() {
        let tx = world.transfer(&world.alice, &world.bob, 1_000, nonce as u64);
        let publication = world.force(&mut wallet, std::slice::from_ref(&tx), carrier)?;
        world.bitcoind.mine(1)?;
        let items = follower.items()?;
        let queued = items.last().context("an item")?;
        assert_eq!(queued.item.tx, tx);
        assert_eq!(queued.item.place.carrier, carrier);
        assert_eq!(queued.item.place.to_string(), publication.place.to_string());
        assert_eq!(queued.item.block.hash, world.bitcoind.tip()?);
    }
    Ok(())
}

#[test]
fn order_is_blocks_then_transactions_then_inputs_then_outputs_then_position() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 3)?;
    let mut other_wallet = world.wallet("other", 1)?;
    let tx = |nonce| world.transfer(&world.alice, &world.bob, 1, nonce);
    // Block 1: an envelope with three, then one alone. Block 2: two transactions mined in the order
    // opposite to the one they were sent in.
    let shared = world.force(&mut wallet, &[tx(0), tx(1), tx(2)], Carrier::Taproot)?;
    let alone = world.force(&mut wallet, &[tx(3)], Carrier::OpReturn)?;
    let in_order: Vec<_> = shared.txids.iter().chain(&alone.txids).copied().collect();
    world.bitcoind.mine_block_with(&in_order)?;
    let later = world.force(&mut wallet, &[tx(5)], Carrier::OpReturn)?;
    let first = world.force(&mut other_wallet, &[tx(4)], Carrier::OpReturn)?;
    let independent = first.txids.iter().chain(&later.txids).copied().collect::<Vec<_>>();
    world.bitcoind.mine_block_with(&independent)?;

    let mut follower = world.follower("follower")?;
    let items = follower.items()?;
    let txs: Vec<_> = items.iter().map(|queued| queued.item.tx.clone()).collect();
    assert_eq!(txs, (0..6).map(tx).collect::<Vec<_>>());
    let leaves: Vec<_> = items.iter().map(|queued| queued.item.leaf()).collect();
    assert_eq!(
        sortie::merkle::merkle_root(&leaves),
        follower.node.derivation().tip().queue_root,
        "the root is over the items in this order"
    );

    // Executed in that order, they are six valid transfers in a row.
    world.bitcoind.mine(6)?;
    assert!(follower.items()?.iter().all(|queued| queued.fate.is_some_and(|fate| fate.outcome == Outcome::Ok)));
    assert_eq!(follower.holding(&world.alice).nonce, 6);
    Ok(())
}

#[test]
fn a_payload_of_395_000_bytes_is_mined_and_queued() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 1)?;
    let tx: Vec<u8> = (0..395_000 - 9u32).map(|i| (i * 7 + 3) as u8).collect();
    let publication = world.force(&mut wallet, std::slice::from_ref(&tx), Carrier::Taproot)?;
    world.bitcoind.mine(1)?;
    let mut follower = world.follower("follower")?;
    let items = follower.items()?;
    assert_eq!(items.len(), 1);
    assert!(items[0].item.tx == tx, "the same bytes come out");
    assert_eq!(items[0].item.place.txid, publication.place.txid);
    world.bitcoind.mine(6)?;
    let fate = follower.items()?[0].fate.context("executed")?;
    assert_eq!(fate.outcome, Outcome::NoOp(NoOpReason::Malformed), "garbage is a no-op, not a stop");
    Ok(())
}

#[test]
fn without_a_sequencer_an_item_is_executed_at_its_due_height_and_not_before() -> Result<()> {
    let mut world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 1)?;
    // The item is in the first block of the rollup: its window and the first origin's close together.
    world.start_here()?;
    let mut follower = world.follower("follower")?;
    let tx = world.transfer(&world.alice, &world.bob, 500, 0);
    world.force(&mut wallet, &[tx], Carrier::OpReturn)?;
    world.bitcoind.mine(1)?;
    let height = follower.items()?[0].item.block.height;

    world.bitcoind.mine(u32::from(WINDOW.window) - 1)?;
    assert_eq!(follower.items()?[0].fate, None, "window - 1");
    assert_eq!(follower.safe()?.head.header.number, 0, "nothing was derived early");

    world.bitcoind.mine(1)?;
    let fate = follower.items()?[0].fate.context("window")?;
    assert_eq!(fate.outcome, Outcome::Ok);
    let block = follower.node.store().block(fate.l2_number)?.context("a block")?;
    assert_eq!(block.derived_at, height + u32::from(WINDOW.window));
    assert_eq!(follower.holding(&world.alice).balance, GENESIS_BALANCE - 501);
    assert_eq!(follower.holding(&world.bob).balance, GENESIS_BALANCE + 500);

    world.bitcoind.mine(1)?;
    assert_eq!(follower.items()?[0].fate, Some(fate), "window + 1: once, and for good");
    Ok(())
}

#[test]
fn the_same_bytes_forced_twice_are_two_items_and_the_second_is_a_no_op() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 2)?;
    let tx = world.transfer(&world.alice, &world.bob, 500, 0);
    for carrier in [Carrier::OpReturn, Carrier::Taproot] {
        world.force(&mut wallet, std::slice::from_ref(&tx), carrier)?;
        world.bitcoind.mine(1)?;
    }
    world.bitcoind.mine(6)?;
    let mut follower = world.follower("follower")?;
    let outcomes: Vec<_> = follower.items()?.iter().filter_map(|queued| queued.fate).map(|fate| fate.outcome).collect();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::NoOp(NoOpReason::BadNonce)]);
    Ok(())
}

#[test]
fn a_retry_after_a_lost_answer_pays_once() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 2)?;
    let rpc = world.rpc()?;
    let payload = world.payload(Body::Tx(world.transfer(&world.alice, &world.bob, 5, 0)))?;
    let request = Request { carrier: CarrierChoice::Auto, ..Request::at(bitcoin::FeeRate::BROADCAST_MIN) };
    let first = publish(&mut wallet, &rpc, &payload, &request)?;
    let second = publish(&mut wallet, &rpc, &payload, &request)?;
    assert_eq!(first.txids, second.txids);
    assert!(second.resumed);
    assert_eq!(world.bitcoind.mempool()?.len(), first.txids.len());
    Ok(())
}
