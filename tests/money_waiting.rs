//! A command that waits: for a block or for a payment, whatever other commands do meanwhile.

use crate::support::money::{Cli, Purse, near, rate};
use crate::support::nodes::Unasked;
use crate::support::{Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Amount, Network};
use regtest::esplora::Fault;
use regtest::{Bitcoind, EsploraServer, Proc, wait_until};
use serde_json::Value;
use sortie::wallet::{Caps, Wallet};
use std::time::Duration;

const WINDOW: Window = Window { window: 30, max_lag: 20 };
const LONG: Duration = Duration::from_secs(60);

fn line(process: &mut Proc, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let is_wanted = |line: &str| serde_json::from_str(line).is_ok_and(|value| wanted(&value));
    Ok(serde_json::from_str(&process.wait_line("its word", LONG, is_wanted)?)?)
}

/// The answer of a command, once the wallet is free for it.
fn when_free(cli: &Cli<'_>, arguments: &[&str]) -> Result<Value> {
    wait_until("the wallet to be free", LONG, || Ok(cli.run(arguments).ok()))
}

#[test]
fn a_bump_by_another_command_is_followed_to_its_block() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    drop(Purse::new(&world, &Cli::wallet_dir("default"), &[500_000])?);
    let tx = world.transfer(&world.alice, &world.bob, 7, 0).to_lower_hex_string();
    let mut waiting = Proc::spawn(&mut cli.command(&["force", &tx, "--fee-rate", "2", "--wait", "confirmed"]))?;
    let forced = line(&mut waiting, |line| line["state"] == "mempool")?;
    let bumped = when_free(&cli, &["bump", "1", "--fee-rate", "9"])?;
    ensure!(bumped["place_before"] == forced["place"] && bumped["place"] != forced["place"], "{bumped}");
    world.bitcoind.mine(1)?;
    let mined = line(&mut waiting, |line| line["state"] != "mempool" && line["place"].is_string())?;
    assert_eq!(mined["place"], bumped["place"]);
    ensure!(waiting.wait_exit(LONG)?.success(), "{:?}", waiting.stderr());
    Ok(())
}

#[test]
fn a_wait_for_what_can_never_be_mined_ends() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let purse = Purse::new(&world, &Cli::wallet_dir("default"), &[500_000])?;
    let (words, rpc) = (purse.words.clone(), world.rpc()?);
    drop(purse);
    let mut twin = Wallet::restore(&world.path("twin"), Network::Regtest, words, None, near(&rpc))?;
    let tx = world.transfer(&world.alice, &world.bob, 7, 0).to_lower_hex_string();
    let mut waiting = Proc::spawn(&mut cli.command(&["force", &tx, "--fee-rate", "2", "--wait", "confirmed"]))?;
    line(&mut waiting, |line| line["state"] == "mempool")?;
    // The same words elsewhere spend the same coin, at a higher rate.
    let to = Bitcoind::anyone_address();
    twin.send(&Unasked(&rpc), &to, Amount::from_sat(10_000), rate(20), &Caps::default())?;
    world.bitcoind.mine(6)?;
    assert_eq!(waiting.wait_exit(LONG)?.code(), Some(1), "{:?}", waiting.stderr());
    ensure!(waiting.stderr().iter().any(|line| line.contains("it is not forced")), "{:?}", waiting.stderr());
    Ok(())
}

#[test]
fn a_wait_for_a_payment_leaves_the_wallet_to_others_and_outlasts_its_server() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let cli = Cli::new(&world)?;
    drop(Purse::new(&world, &Cli::wallet_dir("default"), &[])?);
    let tx = world.transfer(&world.alice, &world.bob, 7, 0).to_lower_hex_string();
    let refund = Bitcoind::anyone_address().to_string();
    let url = server.url();
    let force = ["force", &tx, "--pay-from-anywhere", "--refund", &refund, "--fee-rate", "2", "--esplora-url", &url];
    let mut waiting = Proc::spawn(&mut cli.command(&force))?;
    let asked = line(&mut waiting, |line| line["state"] == "unpaid")?;
    let address = asked["address"].as_str().context("an address")?.parse::<Address<_>>()?.assume_checked();
    assert_eq!(when_free(&cli, &["jobs", "--esplora-url", &url])?["state"], "planned", "others may look");
    world.bitcoind.fund(&address, Amount::from_sat(400))?;
    let asked = line(&mut waiting, |line| line["received_sat"] == 400)?;
    let listed = when_free(&cli, &["jobs", "--esplora-url", &url])?;
    assert_eq!((&listed["state"], &listed["received_sat"]), (&"planned".into(), &400.into()));
    server.fail("/tx/", Fault::Status(502));
    line(&mut waiting, |line| line["warning"].as_str().is_some_and(|warning| warning.contains("trying again")))?;
    server.heal();
    world.bitcoind.fund(&address, Amount::from_sat(asked["amount_sat"].as_u64().context("an amount")?))?;
    assert_eq!(line(&mut waiting, |line| line["state"] == "mempool")?["job"], 1);
    ensure!(waiting.wait_exit(LONG)?.success(), "{:?}", waiting.stderr());
    Ok(())
}
