//! A full disk: sequencer and follower wait and say so, and go on when there is room. Nothing is lost or contradicted.

use crate::support::money::Cli;
use crate::support::{Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use regtest::{Proc, wait_until};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Starts a command that hears of a write that does not fit, instead of being ended by it.
fn spawn(command: &Command) -> Result<Proc> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    Proc::spawn(&mut shell)
}

/// No file of the process can be longer than this, whatever is written to it.
fn limit_files(process: &Proc, bytes: &str) -> Result<()> {
    let limit = format!("--fsize={bytes}:unlimited");
    let set = Command::new("prlimit").args(["--pid", &process.pid().to_string(), &limit]).status()?;
    ensure!(set.success(), "prlimit {limit}");
    Ok(())
}

fn status(url: &str) -> Result<Value> {
    Ok(serde_json::from_str(&ureq::get(&format!("{url}/v1/status")).call()?.body_mut().read_to_string()?)?)
}

#[test]
fn a_sequencer_waits_for_room_and_keeps_what_it_acknowledged() -> Result<()> {
    let world = World::new(Window { window: 30, max_lag: 20 })?;
    let cli = Cli::new(&world)?;
    drop(world.wallet(&Cli::wallet_dir("sequencer"), 1)?);
    let key = world.path("sequencer.key").display().to_string();
    std::fs::write(&key, world.sequencer_key.keypair.secret_bytes().to_lower_hex_string())?;
    let flags = ["sequencer", "--wallet", "sequencer", "--key", &key, "--listen", "127.0.0.1:0"];
    let mut process = spawn(&cli.command(&flags))?;
    let started = process.wait_line("its start", LIMIT, |line| line.contains("\"started\""))?;
    let url = serde_json::from_str::<Value>(&started)?["url"].as_str().context("a url")?.to_owned();
    let send = |nonce, timeout| {
        let tx = world.transfer(&world.alice, &world.bob, 5, nonce).to_lower_hex_string();
        cli.command(&["send", &tx, "--timeout", timeout, "--sequencer", &url]).output()
    };
    ensure!(send(0, "60")?.status.success());
    process.wait_line("its batch", LIMIT, |line| line.contains("\"posted\""))?;

    limit_files(&process, "0")?;
    let refused = send(1, "1")?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("disk is full"), "{said}");
    world.bitcoind.mine(1)?;
    let trouble = wait_until("its trouble", LIMIT, || Ok(status(&url)?["trouble"].as_str().map(str::to_owned)))?;
    assert!(trouble.contains("make room on its disk"), "{trouble}");
    assert_eq!(status(&url)?["accepting"], false);
    process.wait_line("nothing", Duration::from_millis(1), |_| false).expect_err("it runs on, and says nothing new");

    limit_files(&process, "unlimited")?;
    wait_until("it to go on", LIMIT, || Ok(status(&url)?["trouble"].is_null().then_some(())))?;
    ensure!(send(1, "60")?.status.success());
    let mut follower = world.follower("follower")?;
    wait_until("both transfers to be derived", LIMIT, || {
        if !world.bitcoind.mempool()?.is_empty() {
            world.bitcoind.mine(1)?;
        }
        follower.sync()?;
        Ok((follower.holding(&world.alice).nonce == 2).then_some(()))
    })?;
    assert!(!process.stdout().iter().any(|line| line.contains("\"orphaned\"")), "no promise was broken");
    process.terminate()?;
    assert!(process.wait_exit(LIMIT)?.success());
    Ok(())
}

#[test]
fn a_follower_waits_for_room_and_derives_what_it_would_have() -> Result<()> {
    let world = World::new(Window { window: 30, max_lag: 20 })?;
    let cli = Cli::new(&world)?;
    let mut process = spawn(&cli.command(&["follow"]))?;
    process.wait_line("its heads", LIMIT, |line| line.contains("\"heads\""))?;
    limit_files(&process, "0")?;
    world.bitcoind.mine(3)?;
    wait_until("its trouble", LIMIT, || {
        Ok(process.stderr().iter().any(|line| line.contains("make room on its disk")).then_some(()))
    })?;
    limit_files(&process, "unlimited")?;
    let height = format!("\"height\":{}", world.bitcoind.height()?);
    process.wait_line("the last block", LIMIT, |line| line.contains("\"applied\"") && line.contains(&height))?;
    let heads = process.wait_line("its heads", LIMIT, |line| line.contains("\"heads\""))?;
    let mut follower = world.follower("follower")?;
    let safe = follower.safe()?;
    assert!(heads.contains(&safe.state_root.to_string()), "{heads}");
    process.terminate()?;
    process.wait_exit(LIMIT)?;
    Ok(())
}
