//! The sequencer on a real bitcoind: honest, denying, killed, and under reorganisations.

use crate::support::{FollowerRig, GENESIS_BALANCE, Operator, Window, World};
use anyhow::{Context, Result, ensure};
use sortie::derive::Verdict;
use sortie::envelope::Carrier;
use sortie::executor::Outcome;
use sortie::sequencer::Done;

const WINDOW: Window = Window { window: 12, max_lag: 6 };

/// Mines a block, lets the sequencer follow it, and checks the follower's derived head against it.
fn bitcoin_block(world: &World, operator: &mut Operator) -> Result<Vec<Done>> {
    world.bitcoind.mine(1)?;
    operator.tick_well()
}

/// Mines until everything that the sequencer said is derived, and checks that a follower agrees.
fn settle(world: &World, operator: &mut Operator, follower: &mut FollowerRig) -> Result<()> {
    for _ in 0..20 {
        bitcoin_block(world, operator)?;
        let status = operator.status();
        let safe = follower.safe()?;
        ensure!(safe.head.hash == status.safe_head.hash, "the sequencer derives another head");
        ensure!(safe.state_root == status.safe_head.state_root, "the sequencer derives another state");
        if status.unsafe_head.origin_height <= safe.head.header.origin.height + 2
            && world.bitcoind.mempool()?.is_empty()
        {
            return Ok(());
        }
    }
    anyhow::bail!("the chain did not settle: {:?}", operator.status())
}

#[test]
fn own_transactions_are_soft_confirmed_at_once_and_derived_once_posted() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut operator = world.sequencer(&[])?;
    let mut follower = world.follower("follower")?;
    bitcoin_block(&world, &mut operator)?;
    operator.send(&world.transfer(&world.alice, &world.bob, 700, 0))?;
    operator.send(&world.transfer(&world.bob, &world.alice, 200, 0))?;
    let done = operator.tick_well()?;
    assert!(done.iter().any(|done| matches!(done, Done::Made(made) if made.block.own_txs.len() == 2)), "{done:?}");
    assert!(done.iter().any(|done| matches!(done, Done::Posted { .. })), "{done:?}");
    let promised = operator.status().unsafe_head;

    world.bitcoind.mine(1)?;
    follower.sync()?;
    let judged = follower.node.store().judged(follower.height())?;
    assert_eq!(judged.iter().map(|judged| judged.verdict).collect::<Vec<_>>(), [Verdict::Accept]);
    let derived = follower.node.store().block(promised.number)?.context("derived")?;
    assert_eq!((derived.head.hash, derived.state_root), (promised.hash, promised.state_root));
    assert_eq!(follower.holding(&world.alice).balance, GENESIS_BALANCE - 701 + 200);
    Ok(())
}

#[test]
fn a_denied_account_is_refused_and_its_forced_transaction_is_executed_by_the_same_sequencer() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 1)?;
    let mut operator = world.sequencer(&[&world.alice])?;
    let mut follower = world.follower("follower")?;
    let tx = world.transfer(&world.alice, &world.bob, 1_000, 0);
    assert!(operator.send(&tx).is_err(), "a denied sender");
    operator.send(&world.transfer(&world.bob, &world.alice, 10, 0))?;

    world.force(&mut wallet, &[tx], Carrier::OpReturn)?;
    settle(&world, &mut operator, &mut follower)?;
    let item = follower.items()?.into_iter().next().context("an item")?;
    let fate = item.fate.context("executed")?;
    assert_eq!(fate.outcome, Outcome::Ok);
    let block = follower.node.store().block(fate.l2_number)?.context("a block")?;
    let due = item.item.block.height + u32::from(WINDOW.window);
    assert!(block.derived_at < due, "the sequencer's own batch executed it, before the window closed");
    assert_eq!(follower.holding(&world.alice).nonce, 1);
    assert_eq!(follower.holding(&world.bob).nonce, 1);
    Ok(())
}

#[test]
fn a_dead_sequencer_comes_back_after_the_window_and_the_chain_goes_on() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 1)?;
    let mut operator = world.sequencer(&[])?;
    let mut follower = world.follower("follower")?;
    operator.send(&world.transfer(&world.bob, &world.alice, 10, 0))?;
    settle(&world, &mut operator, &mut follower)?;
    // Promised, and never posted: it dies before Bitcoin hears of it.
    world.bitcoind.mine(1)?;
    drop(operator);

    world.force(&mut wallet, &[world.transfer(&world.alice, &world.bob, 1_000, 0)], Carrier::Taproot)?;
    world.bitcoind.mine(u32::from(WINDOW.window) + 1)?;
    let fate = follower.items()?[0].fate.context("executed without any sequencer")?;
    assert_eq!(fate.outcome, Outcome::Ok);

    let mut operator = world.sequencer(&[])?;
    operator.send(&world.transfer(&world.bob, &world.alice, 20, 1))?;
    settle(&world, &mut operator, &mut follower)?;
    assert_eq!(follower.holding(&world.bob).nonce, 2);
    Ok(())
}

#[test]
fn reorganisations_of_any_depth_leave_sequencer_and_followers_with_one_chain() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 3)?;
    let mut operator = world.sequencer(&[])?;
    let mut follower = world.follower("follower")?;
    for (round, depth) in [1u32, 3, u32::from(WINDOW.window) + 3].into_iter().enumerate() {
        let nonce = round as u64;
        world.force(&mut wallet, &[world.transfer(&world.alice, &world.bob, 100, nonce)], Carrier::OpReturn)?;
        operator.send(&world.transfer(&world.bob, &world.alice, 7, nonce))?;
        for _ in 0..depth + 1 {
            bitcoin_block(&world, &mut operator)?;
        }
        follower.sync()?;
        world.bitcoind.reorg(depth)?;
        operator.tick()?;
        follower.sync()?;
        settle(&world, &mut operator, &mut follower)?;
        // One who comes late and has seen no reorganisation at all.
        let mut late = world.follower(&format!("late-{round}"))?;
        assert_eq!(late.safe()?, follower.safe()?, "depth {depth}");
        assert_eq!(late.items()?, follower.items()?, "depth {depth}");
    }
    let items = follower.items()?;
    assert_eq!(items.len(), 3);
    assert!(items.iter().all(|queued| queued.fate.is_some()), "{items:?}");
    Ok(())
}
