//! Flows of the scenarios that need a real bitcoind, a real sequencer, or both.

use crate::support::{Window, World};
use anyhow::{Context, Result, ensure};
use regtest::hostile::{Fault, HostileSource, Observer, RpcFront};
use sortie::chain::{BlockSource, Credentials, RpcNode};
use sortie::envelope::Carrier;
use sortie::executor::Outcome;
use sortie::follower::{DataDir, Follower};
use sortie::sequencer::{Done, Policy, Sequencer, SequencerStore};
use sortie::wallet::Wallet;
use std::collections::BTreeSet;
use std::sync::Arc;

const WINDOW: Window = Window { window: 8, max_lag: 4 };

// Scenario 24, expired_batch_after_recovery: miners leave a batch out until it can no longer count.
#[test]
fn a_sequencer_whose_batch_expired_pays_for_it_once_and_goes_on() -> Result<()> {
    let world = World::new(WINDOW)?;
    let source = world.rpc()?;
    let mut operator = world.sequencer(&[])?;
    world.bitcoind.mine(1)?;
    let tx = world.transfer(&world.alice, &world.bob, 5, 0);
    operator.send(&tx)?;
    let done = operator.tick_well()?;
    ensure!(done.iter().any(|done| matches!(done, Done::Posted { .. })), "{done:?}");
    let posted = world.bitcoind.mempool()?;
    ensure!(!posted.is_empty());
    world.bitcoind.mine_empty(u32::from(WINDOW.window) + 1)?;
    operator.tick()?;
    // Now they are mined, with whatever was sent meanwhile.
    for _ in 0..5 {
        world.bitcoind.mine(1)?;
        operator.tick()?;
    }
    let observer = Observer::new(world.manifest.clone(), &source)?;
    let bodies: Vec<_> = observer.seen().iter().flat_map(|seen| &seen.batches).map(|batch| &batch.body).collect();
    let different: BTreeSet<_> = bodies.iter().collect();
    assert_eq!(bodies.len(), different.len(), "the same bytes were paid for twice");
    assert_eq!(observer.equivocations(), []);
    let mut follower = world.follower("follower")?;
    assert_eq!(follower.safe()?.head, observer.head());
    assert_eq!(follower.holding(&world.alice).nonce, 1, "the transaction came with a later batch");
    Ok(())
}

// Scenario 46 and 30 over RPC: the chain changes just before one of the follower's calls.
#[test]
fn a_reorganisation_under_a_reader_of_a_real_node_is_noticed_or_waited_for() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 1)?;
    world.force(&mut wallet, &[world.transfer(&world.alice, &world.bob, 5, 0)], Carrier::Taproot)?;
    world.bitcoind.mine(3)?;
    let mut follower = world.follower("follower")?;
    for call in 0..6 {
        world.bitcoind.mine(2)?;
        let source = HostileSource::new(world.rpc()?);
        source.before_call(call, || world.bitcoind.reorg(3).map(drop));
        if let Err(error) = follower.node.sync(&source, |_| ()) {
            ensure!(error.is_temporary(), "call {call}: {error}");
        }
        ensure!(source.calls() > call, "no call {call}");
        follower.sync()?;
        let expected = Observer::new(world.manifest.clone(), &world.rpc()?)?;
        assert_eq!(follower.node.derivation(), expected.derivation(), "call {call}");
    }
    // The item was dropped by the first reorganisations, and mined again from the mempool.
    world.bitcoind.mine(u32::from(WINDOW.window) + 1)?;
    let items = follower.items()?;
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].fate.context("executed")?.outcome, Outcome::Ok);
    Ok(())
}

// Scenario 23, wait_for_l1_tip_on_restart, for the one who signs: a second batch for a parent whose first can
// still be accepted would be a fault.
#[test]
fn a_sequencer_whose_node_fell_behind_or_forgot_signs_nothing_new_until_it_is_back() -> Result<()> {
    let world = World::new(WINDOW)?;
    let hostile = Arc::new(HostileSource::new(world.rpc()?));
    let front = RpcFront::start(Arc::clone(&hostile), &world.bitcoind)?;
    let connect = || {
        let cookie = Credentials::Cookie(world.bitcoind.cookie());
        RpcNode::connect(&front.url(), cookie, bitcoin::Network::Regtest)
    };
    drop(world.wallet("sequencer", 1)?);
    let open = || -> Result<Sequencer> {
        let policy = Policy::new(world.sequencer_key.keypair, 1, bitcoin::Network::Regtest);
        let node = Follower::open(&DataDir::new(world.path("node"), world.manifest.clone()), &connect()?)?;
        let wallet = Wallet::open(&world.path("sequencer"), bitcoin::Network::Regtest)?;
        let store = SequencerStore::open(&world.path("sequencer.sqlite"))?;
        Ok(Sequencer::new(policy, node, connect()?, wallet, store, world.watermark("sequencer.key")?)?)
    };
    let mut sequencer = open()?;
    let mut now = 0;
    let mut tick = |sequencer: &mut Sequencer| {
        now += 1;
        let mut done = Vec::new();
        sequencer.tick(now, |what| done.push(what)).map(|()| done)
    };
    let send = |sequencer: &Sequencer, nonce| {
        let tx = world.transfer(&world.alice, &world.bob, 5, nonce);
        sequencer.submit().submit(&tx).map_err(|refusal| anyhow::anyhow!("{refusal}"))
    };
    for nonce in 0..3 {
        world.bitcoind.mine(1)?;
        send(&sequencer, nonce)?;
        tick(&mut sequencer)?;
    }
    world.bitcoind.mine(1)?;
    tick(&mut sequencer)?;

    for fault in [Fault::Behind(1), Fault::Behind(3), Fault::Gap(source_height(&world)?), Fault::TimeOut] {
        hostile.give(fault);
        send(&sequencer, 3)?;
        let error = tick(&mut sequencer).err().with_context(|| format!("{fault:?} was not noticed"))?;
        ensure!(error.is_temporary(), "{fault:?}: {error}");
        hostile.heal();
        // Restarted while the node is behind, it does not start.
        if let Fault::Behind(_) = fault {
            drop(sequencer);
            hostile.give(fault);
            let error = open().err().with_context(|| format!("{fault:?} was not noticed by a restart"))?;
            ensure!(error.to_string().contains("caught up"), "{error}");
            hostile.heal();
            sequencer = open()?;
        }
    }
    for _ in 0..4 {
        world.bitcoind.mine(1)?;
        tick(&mut sequencer)?;
    }
    let observer = Observer::new(world.manifest.clone(), &world.rpc()?)?;
    assert_eq!(observer.equivocations(), []);
    let mut follower = world.follower("follower")?;
    assert_eq!(follower.safe()?.head, observer.head());
    assert_eq!(follower.holding(&world.alice).nonce, 4, "every transaction, once");
    Ok(())
}

fn source_height(world: &World) -> Result<u32> {
    Ok(world.rpc()?.tip()?.height)
}
