//! Fees rise, the node forgets, the wallet is empty: what a sequencer has promised gets to Bitcoin all the same, within
//! the caps, or everybody is told that it does not.

use crate::support::money::{Cli, rate};
use crate::support::{Operator, RATE, Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::{Amount, FeeRate};
use regtest::{Bitcoind, Proc};
use serde_json::Value;
use sortie::chain::Mempool;
use sortie::derive::Verdict;
use sortie::publish::{JobId, JobState, RateTerms};
use sortie::sequencer::{Done, InFlight, Policy, SequencerError};
use sortie::wallet::{Caps, Orders, Wallet, rate_of};
use std::time::Duration;

const WINDOW: Window = Window { window: 12, max_lag: 6 };
const LIMIT: Duration = Duration::from_secs(60);

/// A policy for whose node this is the estimate, which a regtest node has not.
fn estimates(sat_per_vb: u64) -> impl FnOnce(&mut Policy) {
    move |policy| policy.rate = RateTerms { fallback: Some(rate(sat_per_vb)), ..RATE }
}

/// One more Bitcoin block that holds nothing, and what the sequencer does then.
fn passed_by(world: &World, operator: &mut Operator) -> Result<Vec<Done>> {
    world.bitcoind.mine_empty(1)?;
    operator.tick()
}

/// What all that waits pays.
fn pool_rate(world: &World) -> Result<FeeRate> {
    let rpc = world.rpc()?;
    let mut sum = (Amount::ZERO, 0);
    for txid in world.bitcoind.mempool()? {
        let entry = rpc.entry(&txid)?.context("in the mempool")?;
        sum = (sum.0 + entry.fee, sum.1 + entry.vsize);
    }
    Ok(rate_of(sum.0, sum.1))
}

fn posted(done: &[Done]) -> usize {
    done.iter().filter(|done| matches!(done, Done::Posted { .. })).count()
}

fn raised(done: &[Done]) -> bool {
    done.iter().any(|done| matches!(done, Done::Raised { .. }))
}

fn in_flight(operator: &Operator) -> Result<InFlight> {
    operator.status().in_flight.context("a batch on its way")
}

/// A sequencer whose first batch waits at this rate.
fn with_batch(world: &World, policy: impl FnOnce(&mut Policy)) -> Result<Operator> {
    let mut operator = world.sequencer_with(policy)?;
    world.bitcoind.mine(1)?;
    operator.tick_well()?;
    operator.send(&world.transfer(&world.alice, &world.bob, 700, 0))?;
    ensure!(posted(&operator.tick_well()?) == 1, "the first batch");
    Ok(operator)
}

/// The verdicts of the next Bitcoin block, mined from the mempool.
fn verdicts(world: &World) -> Result<Vec<Verdict>> {
    world.bitcoind.mine(1)?;
    let mut follower = world.follower("follower")?;
    follower.sync()?;
    let judged = follower.node.store().judged(follower.height())?;
    Ok(judged.into_iter().map(|judged| judged.verdict).collect())
}

#[test]
fn when_fees_rise_the_batch_on_its_way_pays_more_and_nothing_is_added_behind_it() -> Result<()> {
    let world = World::new(WINDOW)?;
    drop(with_batch(&world, estimates(1))?);
    assert_eq!(pool_rate(&world)?, rate(1));
    // Killed before it could act, and the rates are others when it is back.
    let mut operator = world.sequencer_with(estimates(30))?;
    operator.send(&world.transfer(&world.bob, &world.alice, 5, 0))?;
    let done = passed_by(&world, &mut operator)?;
    assert!(raised(&done), "{done:?}");
    assert_eq!(posted(&done), 0, "{done:?}");
    assert_eq!(pool_rate(&world)?, rate(30));
    let shown = in_flight(&operator)?;
    assert_eq!((shown.pays, shown.asked, shown.stuck_since), (rate(30), rate(30), None));
    let due = shown.confirm_by;
    // What comes meanwhile waits, and is promised all the same: a block that is merely slow stops nobody.
    let done = passed_by(&world, &mut operator)?;
    assert!(posted(&done) == 0 && operator.status().accepting, "{done:?}");
    assert_eq!(in_flight(&operator)?.confirm_by, due);
    assert_eq!(verdicts(&world)?, [Verdict::Accept]);
    let done = operator.tick_well()?;
    assert!(posted(&done) == 1 && !done.iter().any(|done| matches!(done, Done::Orphaned(_))), "{done:?}");
    assert_eq!(verdicts(&world)?, [Verdict::Accept]);
    Ok(())
}

#[test]
fn a_batch_that_the_caps_hold_back_is_told_of_once_by_status_and_by_the_end() -> Result<()> {
    let world = World::new(WINDOW)?;
    drop(with_batch(&world, estimates(1))?);
    let mut operator = world.sequencer_with(|policy| {
        estimates(30)(policy);
        policy.caps = Caps { max_fee_rate: Some(rate(20)), max_fee: None };
    })?;
    let mut told = 0;
    for n in 0..3 {
        let done = passed_by(&world, &mut operator)?;
        told += done.iter().filter(|done| matches!(done, Done::Stuck(_))).count();
        assert_eq!(raised(&done), n == 0, "what the cap allows, and no more: {done:?}");
    }
    let shown = in_flight(&operator)?;
    assert_eq!((shown.pays, shown.asked), (rate(20), rate(30)));
    assert!(shown.reason.is_some_and(|reason| reason.contains("cap")) && told <= 2, "{told}");
    let since = shown.stuck_since.context("stuck")?;
    assert_eq!(since, world.bitcoind.height()? - 2);
    let stopped = operator.sequencer.stop().expect_err("it is stuck");
    assert!(matches!(stopped, SequencerError::StoppedStuck(_)), "{stopped}");
    // Without the cap it gets through.
    let mut operator = world.sequencer_with(estimates(30))?;
    assert!(raised(&passed_by(&world, &mut operator)?));
    assert_eq!(verdicts(&world)?, [Verdict::Accept]);
    operator.tick_well()?;
    operator.sequencer.stop()?;
    Ok(())
}

#[test]
fn a_batch_that_the_node_has_forgotten_is_posted_at_what_it_takes_now() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = || Bitcoind::options().datadir(folder.path()).persistent();
    let mut world = World::on(node().start()?, WINDOW)?;
    // Several wait since a reorganisation, each paid from the change of the one before.
    let mut operator = with_batch(&world, estimates(1))?;
    for nonce in 1..3 {
        world.bitcoind.mine(1)?;
        operator.send(&world.transfer(&world.alice, &world.bob, 700, nonce))?;
        operator.tick_well()?;
    }
    drop(operator);
    let hashes = world.bitcoind.height()?;
    world.bitcoind.call("invalidateblock", &[world.bitcoind.block_hash(hashes - 1)?.to_string().into()])?;
    ensure!(world.bitcoind.mempool()?.len() > 2, "a chain of batches");
    world.bitcoind.mine_empty(3)?;
    world.bitcoind.stop()?;
    world.bitcoind = node().arg("-persistmempool=0").arg("-minrelaytxfee=0.0001").start()?;
    let mut operator = world.sequencer_with(estimates(1))?;
    let mut accepted = 0;
    for _ in 0..12 {
        operator.tick()?;
        accepted += verdicts(&world)?.iter().filter(|verdict| **verdict == Verdict::Accept).count();
    }
    assert!(accepted > 0, "{:?}", operator.status());
    let mut follower = world.follower("follower")?;
    follower.sync()?;
    assert_eq!(follower.holding(&world.alice).nonce, 3, "each transfer once");
    Ok(())
}

#[test]
fn without_coins_it_says_so_and_goes_on_when_it_is_funded() -> Result<()> {
    let world = World::new(WINDOW)?;
    let dir = world.path("sequencer-wallet");
    let (mut wallet, _) = Wallet::create(&dir, bitcoin::Network::Regtest, world.bitcoind.height()?, None)?;
    let address = wallet.address()?;
    drop(wallet);
    let mut operator = world.sequencer_with(estimates(2))?;
    world.bitcoind.mine(1)?;
    operator.send(&world.transfer(&world.alice, &world.bob, 700, 0))?;
    let mut failures = 0;
    for _ in 0..10 {
        failures += operator.tick()?.iter().filter(|done| matches!(done, Done::PostingFailed(_))).count();
    }
    let error = operator.status().posting_error.context("told")?;
    assert!(error.contains("not enough coins") && failures == 1, "{failures}: {error}");
    world.bitcoind.fund_and_mine(&address, Amount::from_sat(50_000))?;
    assert_eq!(posted(&operator.tick_well()?), 1);
    assert_eq!(operator.status().posting_error, None);
    assert_eq!(verdicts(&world)?, [Verdict::Accept]);
    Ok(())
}

/// A line of its log.
fn event(process: &mut Proc, name: &str) -> Result<Value> {
    let wanted = format!("\"event\":\"{name}\"");
    Ok(serde_json::from_str(&process.wait_line(name, LIMIT, |line| line.contains(&wanted))?)?)
}

#[test]
fn the_flags_of_fees_are_obeyed_and_the_operator_raises_a_batch_while_it_runs() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    drop(world.wallet(&Cli::wallet_dir("sequencer"), 1)?);
    let key = world.path("sequencer.key").display().to_string();
    std::fs::write(&key, world.sequencer_key.keypair.secret_bytes().to_lower_hex_string())?;
    let flags = ["sequencer", "--wallet", "sequencer", "--key", &key, "--listen", "127.0.0.1:0"];
    let mut process =
        Proc::spawn(&mut cli.command(&[&flags[..], &["--fallback-fee-rate", "7", "--explain"]].concat()))?;
    let url = event(&mut process, "started")?["url"].as_str().context("a url")?.to_owned();
    let tx = world.transfer(&world.alice, &world.bob, 7, 0).to_lower_hex_string();
    cli.run(&["send", &tx, "--sequencer", &url])?;
    let job = event(&mut process, "posted")?["job"].as_i64().context("a job")?.to_string();
    assert_eq!(pool_rate(&world)?, rate(7));
    assert!(process.stderr().iter().any(|line| line.contains("as the fallback says")), "--explain");

    let bumped = cli.run(&["bump", &job, "--fee-rate", "30", "--wallet", "sequencer"])?;
    assert_eq!((&bumped["how"], &bumped["job"]), (&"replaced".into(), &job.parse::<i64>()?.into()));
    assert_eq!(pool_rate(&world)?, rate(30));
    event(&mut process, "raised")?;
    let (code, error) = cli.fails(&["bump", &job, "--fee-rate", "90", "--max-fee", "20", "--wallet", "sequencer"])?;
    assert!(code == 4 && error.contains("above the cap"), "{code} {error}");
    event(&mut process, "bump_refused")?;

    // What is asked for while nobody listens is done by the next process, however the last one ended.
    process.kill9()?;
    let dir = world.path(&Cli::wallet_dir("sequencer"));
    let orders = Orders::open(&dir)?;
    let asked = orders.place(JobId(job.parse()?), rate(40), &Caps::default())?;
    let withdrawn = orders.place(JobId(job.parse()?), rate(99), &Caps::default())?;
    assert!(orders.withdraw(withdrawn)? && !orders.withdraw(withdrawn)?);
    let mut process = Proc::spawn(&mut cli.command(&flags))?;
    event(&mut process, "raised")?;
    assert_eq!(pool_rate(&world)?, rate(40));
    regtest::wait_until("the outcome", LIMIT, || Ok(orders.outcome(asked)?))?;
    assert!(!orders.withdraw(asked)?);
    process.terminate()?;
    process.wait_exit(LIMIT)?;
    let wallet = Wallet::open(&dir, bitcoin::Network::Regtest)?;
    assert_eq!(sortie::publish::job(&wallet, JobId(job.parse()?))?.state, JobState::RevealSent);
    Ok(())
}
