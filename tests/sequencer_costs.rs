//! What own transactions cost on Bitcoin is paid by whoever sends them, and limited.

use crate::support::money::{Cli, rate};
use crate::support::{RATE, Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::Amount;
use bitcoin::hex::DisplayHex;
use regtest::Proc;
use serde_json::Value;
use sortie::api::wire::TxStatus;
use sortie::envelope::Carrier;
use sortie::publish::RateTerms;
use sortie::sequencer::{Done, Policy};
use std::time::Duration;

const WINDOW: Window = Window { window: 30, max_lag: 20 };
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_least_fee_follows_the_rate_and_a_transfer_for_the_sequencer_pays_it() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    drop(world.wallet(&Cli::wallet_dir("sequencer"), 1)?);
    let key = |name: &str, person: &crate::support::Person| -> Result<String> {
        let path = world.path(name);
        std::fs::write(&path, person.keypair.secret_bytes().to_lower_hex_string())?;
        Ok(path.display().to_string())
    };
    let (sequencer, alice) = (key("sequencer.key", &world.sequencer_key)?, key("alice.key", &world.alice)?);
    let bob = world.bob.keypair.x_only_public_key().0.to_string();
    let mut cheap = String::new();
    for (nonce, rate, least_fee) in [("0", "1", 43), ("1", "10", 421), ("1", "100", 4_208)] {
        let mut process = Proc::spawn(&mut cli.command(&[
            "sequencer",
            "--wallet",
            "sequencer",
            "--key",
            &sequencer,
            "--listen",
            "127.0.0.1:0",
            "--least-fee",
            "100",
            "--fallback-fee-rate",
            rate,
        ]))?;
        let started = process.wait_line("its start", LIMIT, |line| line.contains("\"started\""))?;
        let url = serde_json::from_str::<Value>(&started)?["url"].as_str().context("a url")?.to_owned();
        // The first look at Bitcoin tells what posting costs.
        regtest::wait_until("the least fee", LIMIT, || {
            let mut answer = ureq::get(&format!("{url}/v1/status")).call()?;
            let status: Value = serde_json::from_str(&answer.body_mut().read_to_string()?)?;
            let least = status["least_fee_msat_per_byte"].as_u64().context("named")?;
            Ok((least == rate.parse::<u64>()? * 275).then_some(()))
        })?;
        let transfer = |more: &[&str]| {
            let to = ["ledger", "transfer", "--key", &alice, "--to", &bob, "--amount", "5", "--nonce", nonce];
            cli.run(&[&to[..], more].concat())
        };
        if !cheap.is_empty() {
            let (code, error) = cli.fails(&["send", &cheap, "--sequencer", &url])?;
            assert!(code == 1 && error.contains(&format!("asks {least_fee} sat")), "{error}");
        }
        let signed = transfer(&["--sequencer", &url])?;
        assert_eq!(signed["fee_sat"], least_fee, "at {rate} sat/vB");
        cheap = signed["tx"].as_str().context("a transaction")?.to_owned();
        if nonce == "0" {
            cli.run(&["send", &cheap, "--sequencer", &url])?;
        }
        assert_eq!(transfer(&["--fee", "7", "--sequencer", &url])?["fee_sat"], 7, "what is asked for");
        assert_eq!(transfer(&[])?["fee_sat"], 0);
        process.kill9()?;
    }
    Ok(())
}

#[test]
fn a_days_limit_stops_own_transactions_for_the_day_and_nothing_else() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut user = world.wallet("user", 1)?;
    let limited = |policy: &mut Policy| {
        policy.max_fee_per_day = Some(Amount::from_sat(1_000));
        policy.rate = RateTerms { fallback: Some(rate(1)), ..RATE };
    };
    let mut operator = world.sequencer_with(limited)?;
    let mut paid = 0;
    let fees = |done: &[Done]| -> u64 {
        let fee = |done: &Done| match done {
            Done::Posted { publication, .. } => publication.fee.to_sat(),
            _ => 0,
        };
        done.iter().map(fee).sum()
    };
    let mut told = 0;
    for nonce in 0..6 {
        operator.send(&world.transfer(&world.alice, &world.bob, 5, nonce))?;
        let done = operator.tick_well()?;
        paid += fees(&done);
        told += done.iter().filter(|done| matches!(done, Done::Paused(Some(_)))).count();
        world.bitcoind.mine(1)?;
    }
    operator.tick_well()?;
    let status = operator.status();
    assert!(paid > 300 && paid <= 1_000 && status.paid_per_day_sat == paid, "{paid}: {status:?}");
    let paused = status.paused.context("told")?;
    assert!(
        paused.contains("that may be paid to Bitcoin in a day") && told == 1 && !status.accepting,
        "{told}: {paused}"
    );

    // Not even a restart makes another day of it; what is forced is served all the same.
    drop(operator);
    let mut operator = world.sequencer_with(limited)?;
    world.force(&mut user, &[world.transfer(&world.bob, &world.alice, 9, 0)], Carrier::OpReturn)?;
    for _ in 0..3 {
        world.bitcoind.mine(1)?;
        operator.tick_well()?;
    }
    assert!(operator.status().paid_per_day_sat > paid, "for the batch with what was forced");
    let mut follower = world.follower("follower")?;
    follower.sync()?;
    let bob = follower.holding(&world.bob);
    ensure!(bob.nonce == 1, "executed by the sequencer's batch, long before it is due");
    let alice = follower.holding(&world.alice).nonce;
    assert!((1..6).contains(&alice), "some of hers wait: {alice}");

    drop(operator);
    // Without the limit they are served, in their order.
    let mut operator = world.sequencer_with(|policy| policy.rate = RateTerms { fallback: Some(rate(1)), ..RATE })?;
    operator.tick_well()?;
    let last = world.transfer(&world.alice, &world.bob, 5, 5);
    assert!(matches!(operator.send(&last)?, TxStatus::Included { .. }));
    Ok(())
}
