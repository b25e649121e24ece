//! `sortie sequencer` as a real process, killed with SIGKILL at ten different moments.

use crate::support::{GENESIS_BALANCE, Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use regtest::{Proc, wait_until};
use serde_json::Value;
use sortie::executor::Outcome;
use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

pub const LIMIT: Duration = Duration::from_secs(60);

/// A rollup whose sequencer is driven from the command line.
pub struct Operated {
    pub world: World,
    manifest: String,
    key: String,
}

impl Operated {
    pub fn new() -> Result<Self> {
        let world = World::new(Window { window: 30, max_lag: 20 })?;
        drop(world.wallet("data/regtest/wallets/sequencer", 1)?);
        let manifest = world.path("rollup.toml");
        fs::write(&manifest, world.manifest.to_toml())?;
        let key = world.path("sequencer.key");
        fs::write(&key, world.sequencer_key.keypair.secret_bytes().to_lower_hex_string())?;
        Ok(Self { manifest: manifest.display().to_string(), key: key.display().to_string(), world })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sortie"));
        command
            .args(["--json", "--network", "regtest", "--manifest", &self.manifest])
            .arg("--data-dir")
            .arg(self.world.path("data"))
            .args(["--bitcoin-url", &self.world.bitcoind.rpc_url()])
            .arg("--bitcoin-cookie")
            .arg(self.world.bitcoind.cookie())
            .args(arguments);
        command
    }

    /// Starts it, and waits until it serves.
    fn start(&self) -> Result<(Proc, String)> {
        self.start_as(|_| Ok(()))
    }

    /// As [`start`](Self::start), with its command changed.
    pub fn start_as(&self, change: impl FnOnce(&mut Command) -> Result<()>) -> Result<(Proc, String)> {
        let listen = ["sequencer", "--wallet", "sequencer", "--listen", "127.0.0.1:0"];
        let mut command = self.command(&listen);
        change(command.args(["--key", &self.key]))?;
        let mut process = Proc::spawn(&mut command)?;
        let line = process.wait_line("its start", LIMIT, |line| line.contains("\"started\""))?;
        let url = serde_json::from_str::<Value>(&line)?["url"].as_str().context("a url")?.to_owned();
        Ok((process, url))
    }

    pub fn send(&self, tx: &[u8], url: &str) -> Result<Output> {
        let sent = self.command(&["send", &tx.to_lower_hex_string(), "--no-wait", "--sequencer", url]).output()?;
        ensure!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
        Ok(sent)
    }
}

/// What it has just done when it is killed: an event of its log, or nothing yet.
const MOMENTS: [Option<&str>; 10] = [
    None,
    Some("\"block\""),
    Some("\"posted\""),
    None,
    Some("\"posted\""),
    Some("\"bitcoin\""),
    Some("\"block\""),
    Some("\"posted\""),
    None,
    Some("\"bitcoin\""),
];

#[test]
fn killed_at_ten_moments_it_keeps_every_acknowledged_transaction_and_every_promise() -> Result<()> {
    let operated = Operated::new()?;
    let world = &operated.world;
    let mut promised = Vec::new();
    for (nonce, moment) in (0u64..).zip(MOMENTS) {
        let (mut process, url) = operated.start()?;
        operated.send(&world.transfer(&world.alice, &world.bob, 1_000, nonce), &url)?;
        if nonce % 2 == 1 {
            world.bitcoind.mine(1)?;
        }
        if let Some(event) = moment {
            process.wait_line(event, LIMIT, |line| line.contains(&format!("\"event\":{event}")))?;
        }
        process.kill9()?;
        promised.extend(process.stdout().into_iter().filter(|line| line.contains("\"event\":\"block\"")));
    }

    let (process, _) = operated.start()?;
    let mut follower = world.follower("follower")?;
    wait_until("every transfer to be derived", LIMIT, || {
        // Bitcoin waits for the batches: a window that passes without them would void what was promised.
        if !world.bitcoind.mempool()?.is_empty() {
            world.bitcoind.mine(1)?;
        }
        follower.sync()?;
        Ok((follower.holding(&world.alice).nonce == MOMENTS.len() as u64).then_some(()))
    })?;
    promised.extend(process.stdout().into_iter().filter(|line| line.contains("\"event\":\"block\"")));
    let sent = MOMENTS.len() as u64 * 1_001;
    assert_eq!(follower.holding(&world.alice).balance, GENESIS_BALANCE - sent, "each exactly once");

    // Bitcoin was fast enough for every batch, so that every soft block must have been derived as promised.
    let derived_to = follower.safe()?.head.header.number;
    let mut checked = 0;
    for line in promised {
        let line: Value = serde_json::from_str(&line)?;
        let number = line["number"].as_u64().context("a number")?;
        if let Some(block) = follower.node.store().block(number)?.filter(|_| number <= derived_to) {
            assert_eq!(line["hash"], block.head.hash.to_string(), "block {number}");
            assert_eq!(line["state_root"], block.state_root.to_string(), "block {number}");
            let own = follower.node.store().own_txs(number)?;
            assert!(own.iter().all(|(_, outcome)| *outcome == Outcome::Ok));
            checked += 1;
        }
    }
    // A process that is killed between storing a block and telling of it leaves a promise that is not in this list.
    assert!(checked > MOMENTS.len() / 2, "only {checked} promises were checked");
    Ok(())
}
