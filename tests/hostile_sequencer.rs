//! Sequencers that lie, on a real bitcoind: what they post changes nothing that anyone else derives.

use crate::support::{FollowerRig, Window, World};
use anyhow::{Context, Result, ensure};
use regtest::hostile::{Act, Envelope, HostileSequencer, Miner, Observer, Post};
use sortie::chain::RpcNode;
use sortie::derive::{DropReason, Verdict};
use sortie::envelope::{Body, Carrier};
use sortie::executor::Outcome;
use sortie::sequencer::{Done, SequencerError};

const WINDOW: Window = Window { window: 8, max_lag: 4 };

fn hostile(world: &World, source: &RpcNode) -> Result<HostileSequencer> {
    HostileSequencer::new(world.manifest.clone(), vec![world.sequencer_key.keypair], source)
}

/// A follower that executes and stores must be where everyone is who only counts.
fn agrees(follower: &mut FollowerRig, observer: &Observer) -> Result<()> {
    let safe = follower.safe()?;
    ensure!(safe.head == observer.head(), "follower {:?}, everyone {:?}", safe.head, observer.head());
    ensure!(follower.node.derivation() == observer.derivation(), "the follower will go on differently");
    observer.check_guarantee().map(drop)
}

// Scenarios 2, full_node_sees_forced; 10 to 13 and 17 on Bitcoin; 18, a sequencer that stalls.
#[test]
fn every_hostile_act_leaves_each_follower_with_the_chain_that_everyone_derives() -> Result<()> {
    let world = World::new(WINDOW)?;
    let source = world.rpc()?;
    let mut hostile = hostile(&world, &source)?;
    let mut follower = world.follower("follower")?;
    for (number, act) in Act::ALL.iter().enumerate() {
        hostile.perform(*act, &world.bitcoind, &source)?;
        agrees(&mut follower, hostile.observer()).with_context(|| format!("{act:?}"))?;
        // Scenario 21: nor does it matter when the follower was restarted.
        if number % 4 == 0 {
            drop(follower);
            follower = world.follower("follower")?;
        }
    }
    let mut late = world.follower("late")?;
    agrees(&mut late, hostile.observer())?;
    assert_eq!(late.items()?, follower.items()?);
    // What a signer did is on Bitcoin for all to see: it equivocated.
    assert!(!hostile.observer().equivocations().is_empty());
    Ok(())
}

// Scenario 28, reorg_flip_flop; 27 and 31, batches and items that leave and come back.
#[test]
fn branches_full_of_lies_are_left_and_taken_up_again_without_a_trace() -> Result<()> {
    let world = World::new(WINDOW)?;
    let source = world.rpc()?;
    let mut hostile = hostile(&world, &source)?;
    let mut follower = world.follower("follower")?;
    let acts = [Act::Behave, Act::Deny, Act::Equivocate, Act::Behave, Act::Release, Act::OutOfOrder];
    for act in [&[Act::Withhold][..], &acts].concat() {
        hostile.perform(act, &world.bitcoind, &source)?;
    }
    follower.sync()?;
    let on_a = follower.safe()?;
    // B begins empty; then it takes up what A had, as far as Bitcoin still can, and lies of its own.
    let reorg = world.bitcoind.reorg(5)?;
    hostile.follow(&source)?;
    agrees(&mut follower, hostile.observer())?;
    world.bitcoind.mine(1)?;
    hostile.follow(&source)?;
    agrees(&mut follower, hostile.observer())?;
    let verdicts = hostile.observer().verdicts();
    assert!(verdicts.len() > 3, "A's batches are on B: {verdicts:?}");
    assert!(verdicts.iter().any(|verdict| *verdict != Verdict::Accept), "not all can count here: {verdicts:?}");
    for act in [Act::Equivocate, Act::Deny] {
        hostile.perform(act, &world.bitcoind, &source)?;
        agrees(&mut follower, hostile.observer())?;
    }
    // A again, one block longer than it was.
    world.bitcoind.flip_back(&reorg)?;
    hostile.follow(&source)?;
    agrees(&mut follower, hostile.observer())?;
    let again = follower.node.store().block(on_a.head.header.number)?;
    assert_eq!(again, Some(on_a), "A's chain is what it was");
    Ok(())
}

// Scenario 30, conflicting_l2_blocks: somebody with the same key posts first.
#[test]
fn a_twin_with_the_same_key_orphans_soft_blocks_and_loses_no_transaction() -> Result<()> {
    let world = World::new(WINDOW)?;
    let source = world.rpc()?;
    let mut operator = world.sequencer(&[])?;
    let mut twin = hostile(&world, &source)?;
    let mut follower = world.follower("follower")?;
    world.bitcoind.mine(1)?;
    operator.tick_well()?;
    let tx = world.transfer(&world.alice, &world.bob, 5, 0);
    operator.send(&tx)?;
    let made = operator.tick_well()?;
    ensure!(made.iter().any(|done| matches!(done, Done::Made(soft) if soft.block.own_txs == [tx.clone()])));

    // Its batch waits in the mempool; the twin's is mined.
    twin.follow(&source)?;
    let post = Envelope { carrier: Carrier::OpReturn, payload: twin.draft().block(false, &[b"the twin's"]).payload() };
    twin.mine(&Post { envelopes: vec![post], verdicts: vec![Verdict::Accept] }, &world.bitcoind, &source)?;
    let stopped = operator.tick().err().context("it sees that it is not alone")?;
    assert!(matches!(stopped.downcast_ref(), Some(SequencerError::Twin { .. })), "{stopped}");
    assert_eq!(follower.safe()?.head, twin.observer().head());

    // As it says: with no other one, and without the watermark, it goes on.
    drop(operator);
    std::fs::remove_file(world.path("sequencer.key.watermark"))?;
    let mut operator = world.sequencer(&[])?;
    for _ in 0..6 {
        world.bitcoind.mine(1)?;
        operator.tick()?;
    }
    twin.follow(&source)?;
    agrees(&mut follower, twin.observer())?;
    assert_eq!(follower.holding(&world.alice).nonce, 1, "the transaction of the orphaned block");
    let fates = follower.node.store().own_txs_with_hash(&sortie::primitives::sha256(&tx))?;
    assert_eq!(fates.iter().map(|fate| fate.outcome).collect::<Vec<_>>(), [Outcome::Ok], "once");
    Ok(())
}

// Scenarios 18 and 24: withheld until the window has closed, and posted again and again after that.
#[test]
fn a_batch_that_comes_after_its_window_is_dropped_however_often_it_is_posted() -> Result<()> {
    let world = World::new(WINDOW)?;
    let source = world.rpc()?;
    let mut hostile = hostile(&world, &source)?;
    let mut follower = world.follower("follower")?;
    hostile.perform(Act::Stall, &world.bitcoind, &source)?;
    let late = hostile.draft().adopt(hostile.observer().tip().height).block(false, &[b"late"]).payload();
    let window = u32::from(WINDOW.window);
    for _ in 0..window {
        world.bitcoind.mine_envelopes(&[])?;
    }
    hostile.follow(&source)?;
    agrees(&mut follower, hostile.observer())?;
    let item = follower.items()?.first().cloned().context("an item of the stalled block")?;
    let derived = follower.node.store().block(item.fate.context("executed")?.l2_number)?.context("a block")?;
    assert!(derived.derived_at <= item.item.block.height + window);
    for carrier in [Carrier::Taproot, Carrier::OpReturn, Carrier::Taproot] {
        let envelope = Envelope { carrier, payload: late.clone() };
        let verdicts = vec![Verdict::Drop(DropReason::Replay)];
        hostile.mine(&Post { envelopes: vec![envelope], verdicts }, &world.bitcoind, &source)?;
        agrees(&mut follower, hostile.observer())?;
    }
    // People are told in words, programs by the specification's name.
    let told = |more: &[&str]| -> Result<String> {
        Ok(String::from_utf8(world.sortie(&[&["follow", "--once"], more].concat())?.output()?.stdout)?)
    };
    let [people, programs] = [told(&[])?, told(&["--rebuild", "--json"])?];
    assert_eq!(people.matches(": dropped: it begins at a block that the chain has already\n").count(), 3, "{people}");
    assert_eq!(programs.matches(r#""verdict":"drop","reason":"Replay""#).count(), 3, "{programs}");
    Ok(())
}

// Scenario 16: only a user's envelope makes an item.
#[test]
fn envelopes_inside_a_batch_and_items_posted_as_batches_force_nothing() -> Result<()> {
    let world = World::new(WINDOW)?;
    let source = world.rpc()?;
    let mut hostile = hostile(&world, &source)?;
    let mut follower = world.follower("follower")?;
    let inner = hostile.payload(Body::Tx(b"an item in disguise".to_vec()));
    let draft = hostile.draft().block(false, std::slice::from_ref(&inner));
    let envelopes = vec![
        Envelope { carrier: Carrier::Taproot, payload: draft.payload() },
        Envelope { carrier: Carrier::OpReturn, payload: hostile.payload(Body::Batch(inner)) },
    ];
    let verdicts = vec![Verdict::Accept, Verdict::Drop(DropReason::Malformed)];
    hostile.mine(&Post { envelopes, verdicts }, &world.bitcoind, &source)?;
    agrees(&mut follower, hostile.observer())?;
    assert_eq!(follower.items()?.len(), 2, "the two of the block around it");
    Ok(())
}
