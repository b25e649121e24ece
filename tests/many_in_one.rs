//! Several transactions in one envelope, what each costs, and what the blocks before paid.

use crate::support::money::Cli;
use crate::support::{Window, World, said};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::{Amount, FeeRate};
use serde_json::Value;
use sortie::chain::Mempool;
use sortie::wallet::Caps;
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

fn sortie(world: &World, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sortie"));
    command.args(["--network", "regtest", "--json", "--data-dir"]).arg(world.path("data"));
    command.arg("--manifest").arg(world.path("rollup.toml"));
    command.args(["--bitcoin-url", &world.bitcoind.rpc_url(), "--bitcoin-cookie"]).arg(world.bitcoind.cookie());
    Ok(command.args(arguments).current_dir(world.dir.path()).output()?)
}

fn answer(world: &World, arguments: &[&str]) -> Result<Value> {
    let output = sortie(world, arguments)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn several_transactions_share_an_envelope_and_each_is_told_its_part() -> Result<()> {
    let world = World::new(Window { window: 6, max_lag: 3 })?;
    fs::write(world.path("rollup.toml"), world.manifest.to_toml())?;
    drop(world.wallet("data/regtest/wallets/default", 1)?);
    let tx = |nonce| world.transfer(&world.alice, &world.bob, 1_000, nonce);
    let hex = |nonce| tx(nonce).to_lower_hex_string();
    fs::write(world.path("txs"), format!("# two more\n{}\n\n{}\n", hex(1), hex(2)))?;

    let one = answer(&world, &["quote", &hex(0)])?;
    let all = answer(&world, &["quote", &hex(0), "--txs-file", "txs"])?;
    assert_eq!((&one["transactions"], &all["transactions"]), (&1.into(), &3.into()));
    let targets: Vec<_> = all["quotes"].as_array().context("quotes")?.iter().map(|row| &row["target_blocks"]).collect();
    assert_eq!(targets, [1, 3, 6, 24]);
    let taproot = |quote: &Value| quote["quotes"][0]["carriers"][1]["vsize_vb"].as_u64().context("a size");
    let (one, three) = (taproot(&one)?, taproot(&all)?);
    assert!((three - one).div_ceil(2) <= tx(0).len() as u64 / 4 + 2, "{one} vB, {three} vB");

    let forced = answer(&world, &["force", &hex(0), "--txs-file", "txs", "--carrier", "taproot"])?;
    assert_eq!(forced["vsize_vb"], three, "what was quoted is what was sent");
    let items = forced["items"].as_array().context("items")?;
    let parts: u64 = items.iter().filter_map(|item| item["fee_sat"].as_u64()).sum();
    assert_eq!(forced["fee_sat"], parts);
    let tip = u64::from(world.bitcoind.height()?);
    let expected = &all["quotes"][0];
    assert_eq!((&expected["confirmed_height"], &expected["due_height"]), (&(tip + 1).into(), &(tip + 7).into()));
    world.bitcoind.mine(7)?;
    for (item, nonce) in items.iter().zip(0..) {
        let place = item["place"].as_str().context("a place")?;
        let status = answer(&world, &["status", place])?;
        assert_eq!(status["outcome"], "ok", "{status}");
        assert_eq!(status["tx_hash"], sortie::primitives::sha256(&tx(nonce)).to_string());
        assert_eq!(status["due_height"], tip + 7);
    }
    Ok(())
}

#[test]
fn what_would_have_no_effect_is_not_paid_for() -> Result<()> {
    let world = World::new(Window { window: 6, max_lag: 3 })?;
    fs::write(world.path("rollup.toml"), world.manifest.to_toml())?;
    drop(world.wallet("data/regtest/wallets/default", 1)?);
    let good = world.transfer(&world.alice, &world.bob, 1_000, 0).to_lower_hex_string();
    let mut bad = world.transfer(&world.alice, &world.bob, 1_000, 1);
    *bad.last_mut().context("a byte")? ^= 1;
    let bad = bad.to_lower_hex_string();
    let refused = sortie(&world, &["force", &good, &bad])?;
    let said = String::from_utf8(refused.stderr)?;
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("transaction 2") && said.contains("bad_signature"), "{said}");
    assert!(world.bitcoind.mempool()?.is_empty());
    answer(&world, &["force", &good, &bad, "--unchecked"])?;
    assert!(!world.bitcoind.mempool()?.is_empty());
    fs::write(world.path("cut"), format!("{good}\n{}\n", &good[1..]))?;
    let cut = sortie(&world, &["force", "--txs-file", "cut"])?;
    let said = String::from_utf8(cut.stderr)?;
    assert!(cut.status.code() == Some(2) && said.contains("cut:2:"), "{said}");
    Ok(())
}

#[test]
fn two_transactions_of_which_only_one_can_be_executed_are_named_and_not_paid_for() -> Result<()> {
    let world = World::new(Window { window: 6, max_lag: 3 })?;
    let cli = Cli::new(&world)?;
    drop(world.wallet(&Cli::wallet_dir("default"), 1)?);
    let tx = |amount, nonce| world.transfer(&world.alice, &world.bob, amount, nonce).to_lower_hex_string();
    let other = world.transfer(&world.bob, &world.alice, 1, 0).to_lower_hex_string();
    for (file, content) in
        [("a.hex", tx(1, 0)), ("b.hex", tx(1, 0)), ("all", format!("# all\n{other}\n{}\n", tx(1, 0)))]
    {
        fs::write(world.path(file), content)?;
    }
    for (arguments, names, mend) in [
        (vec!["@a.hex", "@b.hex"], "1 (a.hex) and 2 (b.hex)", "leave one out"),
        (vec!["@a.hex", "--txs-file", "all"], "1 (a.hex) and 3 (all:3)", "leave one out"),
        (vec![&other, &tx(2, 0), "@a.hex"], "2 (argument 2) and 3 (a.hex) of one account", "the same nonce 0"),
        (vec![&tx(2, 3), &other, "@a.hex"], "1 (argument 1) and 3 (a.hex) of one account", "the lower nonce first"),
    ] {
        let (code, error) = cli.fails(&[&["force"], arguments.as_slice()].concat())?;
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(names) && error.contains(mend) && error.contains("nothing was paid"), "{error}");
    }
    let mut piped = cli.command(&["force", "-", "@a.hex"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    piped.stdin.take().context("stdin")?.write_all(tx(1, 0).as_bytes())?;
    let piped = piped.wait_with_output()?;
    assert_eq!(piped.status.code(), Some(2));
    assert!(said(&piped).contains("1 (stdin) and 2 (a.hex) are the same"), "{}", said(&piped));
    assert!(cli.lines(&["jobs"])?.is_empty(), "nothing is in the journal");

    // In order, and with room for what others put between them.
    cli.run(&["force", &tx(2, 3), &other, &tx(1, 5)])?;
    cli.run(&["force", "@a.hex", "@b.hex", "--unchecked"])?;
    assert_eq!(cli.lines(&["jobs"])?.len(), 2);
    Ok(())
}

#[test]
fn what_recent_blocks_paid_is_read_from_the_node() -> Result<()> {
    let world = World::new(Window { window: 6, max_lag: 3 })?;
    let rpc = world.rpc()?;
    let mut wallet = world.wallet("payer", 1)?;
    world.bitcoind.mine(6)?;
    assert_eq!(rpc.recently_paid()?, None, "empty blocks tell nothing");
    wallet.sync(&rpc)?;
    let to = wallet.address()?;
    let rate = FeeRate::from_sat_per_vb(7).context("a rate")?;
    wallet.send(&rpc, &to, Amount::from_sat(10_000), rate, &Caps::default())?;
    world.bitcoind.mine(1)?;
    assert_eq!(rpc.recently_paid()?, FeeRate::from_sat_per_vb(8), "7 sat/vB, rounded up");
    world.bitcoind.mine(6)?;
    assert_eq!(rpc.recently_paid()?, None, "six blocks ago is not now");
    Ok(())
}
