//! As `money_crash`, for what is no job of its own: plain payments, sweeps of late payments, commits with two
//! outputs, and bumps that a deadline asks for. Killed at a point, run again until it is done, counted.

use crate::support::money::{Cli, Purse, answers, payload, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::{Amount, Network, ScriptBuf};
use regtest::{Bitcoind, Proc, wait_until};
use serde_json::Value;
use sortie::chain::Mempool;
use sortie::envelope::Carrier;
use sortie::publish::{Caps, JobId, JobState, anywhere, confirm_by, job};
use sortie::wallet::Wallet;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

const KILLED: i32 = 9;
/// Every how many points one is tried in the sample.
const SAMPLE: usize = 9;
/// More restarts than this, and it does not come to an end.
const RESTARTS: u32 = 3;
const LONG: Duration = Duration::from_secs(60);

/// Tries `run` with one point after the other until it says that there are no more.
fn at_any_point(name: &str, mut run: impl FnMut(&World, u64) -> Result<Option<Amount>>) -> Result<()> {
    let every = match std::env::var("SORTIE_CRASH_MATRIX").as_deref() {
        Ok("all") => 1,
        _ => SAMPLE,
    };
    let world = World::new(Window { window: 30_000, max_lag: 20_000 })?;
    let (mut killed, mut fees) = (0, Amount::ZERO);
    for at in (1..).step_by(every) {
        let Some(paid) = run(&world, at).with_context(|| format!("{name}, killed at point {at}"))? else { break };
        killed += 1;
        fees += paid;
    }
    ensure!(killed > 0, "{name}: never killed");
    println!("| {name} | {killed} | {killed} | {killed} | 0 | {} |", fees.to_sat());
    Ok(())
}

/// Runs a command that is killed at a point, and again until it has answered. The answer, and whether it was killed.
fn killed_and_repeated(cli: &Cli<'_>, command: &[&str], at: u64) -> Result<(Value, bool)> {
    let mut output = cli.command(command).env("SORTIE_CRASH_AT", at.to_string()).output()?;
    let was_killed = output.status.signal() == Some(KILLED);
    let mut restarts = 0;
    while answers(&output)?.is_empty() {
        restarts += 1;
        ensure!(restarts <= RESTARTS, "no end: {}", String::from_utf8_lossy(&output.stderr));
        output = cli.command(command).output()?;
    }
    Ok((answers(&output)?.into_iter().next_back().context("an answer")?, was_killed))
}

/// How often the mempool pays this amount to this script.
fn payments(world: &World, script: &ScriptBuf, amount: Amount) -> Result<usize> {
    let rpc = world.rpc()?;
    let mut count = 0;
    for txid in world.bitcoind.mempool()? {
        let tx = rpc.transaction(&txid)?.context("a transaction of the mempool")?;
        count += tx.output.iter().filter(|out| out.script_pubkey == *script && out.value == amount).count();
    }
    Ok(count)
}

/// Mines what waits; what the wallet has lost since must be `fee`, and what left it.
fn settled(world: &World, dir: &str, before: Amount, spent: Amount) -> Result<Wallet> {
    world.bitcoind.mine(1)?;
    ensure!(world.bitcoind.mempool()?.is_empty(), "something is left in the mempool");
    let mut wallet = Wallet::open(&world.path(dir), Network::Regtest)?;
    wallet.sync(&world.rpc()?)?;
    let after = wallet.balance().total();
    ensure!(before - spent == after, "{before} before, {spent} spent, {after} after");
    Ok(wallet)
}

#[test]
fn a_payment_is_made_once() -> Result<()> {
    at_any_point("wallet send", |world, at| {
        let cli = Cli::new(world)?;
        let name = format!("send-{at}");
        let dir = Cli::wallet_dir(&name);
        let before = Purse::new(world, &dir, &[300_000, 400_000])?.before;
        let to = Bitcoind::anyone_address();
        let amount = Amount::from_sat(100_000 + at);
        let (sats, address) = (amount.to_sat().to_string(), to.to_string());
        let send = ["wallet", "send", "--wallet", &name, "--to", &address, "--amount", &sats, "--fee-rate", "2"];
        let (answer, was_killed) = killed_and_repeated(&cli, &send, at)?;
        ensure!(payments(world, &to.script_pubkey(), amount)? == 1, "paid more than once: {answer}");
        let fee = Amount::from_sat(answer["fee_sat"].as_u64().context("a fee")?);
        settled(world, &dir, before, fee + amount)?;
        Ok(was_killed.then_some(fee))
    })
}

#[test]
fn a_commit_with_two_outputs_loses_nothing() -> Result<()> {
    at_any_point("force taproot, two outputs", |world, at| {
        let cli = Cli::new(world)?;
        let name = format!("split-{at}");
        let dir = Cli::wallet_dir(&name);
        let before = Purse::new(world, &dir, &[50_000_000])?.before;
        let tx = name.bytes().cycle().take(150).collect::<Vec<_>>().to_lower_hex_string();
        let force = ["force", &tx, "--unchecked", "--wallet", &name, "--carrier", "taproot", "--fee-rate", "2"];
        let (answer, was_killed) = killed_and_repeated(&cli, &force, at)?;
        ensure!(world.bitcoind.mempool()?.len() == 2, "published more than once: {answer}");
        let fee = Amount::from_sat(answer["fee_sat"].as_u64().context("a fee")?);
        let wallet = settled(world, &dir, before, fee)?;
        let job = job(&wallet, JobId(1))?;
        ensure!(job.commit().is_some_and(|commit| commit.output.len() == 2), "one output");
        Ok(was_killed.then_some(fee))
    })
}

#[test]
fn a_late_payment_is_swept_once() -> Result<()> {
    at_any_point("reclaim of a late payment", |world, at| {
        let cli = Cli::new(world)?;
        let name = format!("late-{at}");
        let dir = Cli::wallet_dir(&name);
        let refund = Bitcoind::anyone_address();
        {
            let mut purse = Purse::new(world, &dir, &[])?;
            let payload = payload(world, 100 + at as usize)?;
            let caps = Caps::default();
            let asked = anywhere::ask(&mut purse.wallet, &purse.rpc, &payload, rate(2), &caps, &refund, false)?;
            let address = anywhere::address(&purse.wallet, &asked)?;
            let missing = anywhere::payment(&purse.wallet, &purse.rpc, &asked)?.missing;
            world.bitcoind.fund_and_mine(&address, missing)?;
            purse.wallet.sync(&purse.rpc)?;
            anywhere::reveal(&mut purse.wallet, &purse.rpc, asked.id)?;
            world.bitcoind.fund(&address, Amount::from_sat(20_000))?;
            world.bitcoind.mine(1)?;
            ensure!(matches!(purse.job(asked.id)?.state, JobState::Confirmed(_)));
        }
        let reclaim = ["reclaim", "1", "--wallet", &name, "--fee-rate", "2"];
        let (answer, was_killed) = killed_and_repeated(&cli, &reclaim, at)?;
        let amount = Amount::from_sat(answer["amount_sat"].as_u64().context("an amount")?);
        ensure!(payments(world, &refund.script_pubkey(), amount)? == 1, "not swept once: {answer}");
        ensure!(world.bitcoind.mempool()?.len() == 1);
        settled(world, &dir, Amount::ZERO, Amount::ZERO)?;
        Ok(was_killed.then_some(Amount::from_sat(20_000) - amount))
    })
}

#[test]
fn a_deadline_raises_the_fee_once_a_block() -> Result<()> {
    // It waits for blocks, and asks for them, for ever: there is always another point.
    const POINTS: u64 = 50;
    at_any_point("resume --deadline-bump", |world, at| {
        if at > POINTS {
            return Ok(None);
        }
        let cli = Cli::new(world)?;
        let name = format!("deadline-{at}");
        let dir = Cli::wallet_dir(&name);
        let (before, first) = {
            let mut purse = Purse::new(world, &dir, &[300_000])?;
            let first = purse.publish(&payload(world, 200 + at as usize)?, Carrier::Taproot, 2)?;
            confirm_by(&mut purse.wallet, first.job, world.bitcoind.height()? + 1)?;
            (purse.before, first)
        };
        world.bitcoind.mine_empty(1)?;
        let resume = ["resume", "--deadline-bump", "--wallet", &name];
        let killed = cli.command(&resume).env("SORTIE_CRASH_AT", at.to_string()).output()?;
        ensure!(killed.status.signal() == Some(KILLED), "{:?}", killed.status);
        let mut again = Proc::spawn(&mut cli.command(&resume))?;
        wait_until("the replacement", LONG, || {
            Ok((!world.bitcoind.mempool()?.contains(&first.place.txid)).then_some(()))
        })?;
        wait_until("both transactions", LONG, || Ok((world.bitcoind.mempool()?.len() == 2).then_some(())))?;
        world.bitcoind.mine(1)?;
        ensure!(again.wait_exit(LONG)?.success(), "{:?}", again.stderr());
        let mut wallet = Wallet::open(&world.path(&dir), Network::Regtest)?;
        let known = job(&wallet, first.job)?;
        ensure!(known.generations.len() == 2, "raised {} times", known.generations.len() - 1);
        let fee = known.current().context("signed")?.fee;
        ensure!(fee > first.fee, "not raised");
        wallet.sync(&world.rpc()?)?;
        ensure!(before - fee == wallet.balance().total(), "something is missing");
        Ok(Some(fee))
    })
}
