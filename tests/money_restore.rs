//! How far a search for a wallet's coins goes, and what it says.

use crate::support::money::{Cli, payload, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::{Address, Amount, Network, address::NetworkUnchecked};
use regtest::EsploraServer;
use serde_json::{Value, json};
use sortie::chain::{Esplora, RpcNode};
use sortie::publish::{anywhere, resume};
use sortie::wallet::{Caps, Looked, Mnemonic, Search, Wallet};
use std::io::Write;
use std::process::Stdio;

const WINDOW: Window = Window { window: 30, max_lag: 20 };
const RECEIVE: usize = 0;
const CHANGE: usize = 1;
const COIN: Amount = Amount::from_sat(50_000);

/// A wallet that nobody has paid yet, and its words.
fn empty(world: &World) -> Result<(Wallet, Mnemonic)> {
    Ok(Wallet::create(&world.path("wallet"), Network::Regtest, world.bitcoind.height()?, None)?)
}

/// One of its addresses, however far.
fn address(world: &World, wallet: &Wallet, keychain: usize, index: u32) -> Result<Address> {
    let descriptor = &wallet.descriptors().texts()[keychain];
    let derived = world.bitcoind.call("deriveaddresses", &[json!(descriptor), json!([index, index])])?;
    let derived: [Address<NetworkUnchecked>; 1] = serde_json::from_value(derived)?;
    let [address] = derived;
    Ok(address.require_network(Network::Regtest)?)
}

fn restored<'a>(
    world: &World,
    name: &str,
    words: &Mnemonic,
    search: impl Into<Search<'a>>,
) -> Result<(Amount, Looked)> {
    let wallet = Wallet::restore(&world.path(name), Network::Regtest, words.clone(), None, search)?;
    Ok((wallet.balance().total(), wallet.looked().context("it has looked")?))
}

fn within<'a>(gap: u32, search: impl Into<Search<'a>>) -> Search<'a> {
    Search { gap: Some(gap), ..search.into() }
}

fn looked(addresses: u32, last_receive: Option<u32>, last_change: Option<u32>) -> Looked {
    Looked { receive: addresses, change: addresses, last_receive, last_change }
}

#[test]
fn a_node_is_searched_far_enough_for_a_batch_a_block_and_further_behind_what_is_found() -> Result<()> {
    let world = World::new(WINDOW)?;
    let rpc: RpcNode = world.rpc()?;
    let (wallet, words) = empty(&world)?;
    assert_eq!(restored(&world, "none", &words, within(16, &rpc))?, (Amount::ZERO, looked(18, None, None)));
    for (keychain, index) in [(RECEIVE, 0), (CHANGE, 17), (CHANGE, 2_600)] {
        world.bitcoind.fund_and_mine(&address(&world, &wallet, keychain, index)?, COIN)?;
    }
    // What is found at the end of the first range shows that there may be more; a gap of that size ends it.
    assert_eq!(
        restored(&world, "near", &words, within(16, &rpc))?,
        (COIN * 2, Looked { receive: 19, ..looked(36, Some(0), Some(17)) })
    );
    let (total, all) = restored(&world, "all", &words, &rpc)?;
    assert_eq!((total, all.last_receive, all.last_change), (COIN * 3, Some(0), Some(2_600)));
    assert!(all.change > 60_000, "a batch a block for a year");
    Ok(())
}

#[test]
fn a_server_is_asked_on_while_anything_is_found_on_either_keychain() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    let (wallet, words) = empty(&world)?;
    for (keychain, index) in [(CHANGE, 15), (RECEIVE, 30), (CHANGE, 50), (CHANGE, 71)] {
        world.bitcoind.fund_and_mine(&address(&world, &wallet, keychain, index)?, COIN)?;
    }
    assert_eq!(restored(&world, "near", &words, within(20, &esplora))?, (COIN * 3, looked(71, Some(30), Some(50))));
    let all = restored(&world, "all", &words, &esplora)?;
    assert_eq!(all, (COIN * 4, looked(172, Some(30), Some(71))));
    Ok(())
}

#[test]
fn a_server_is_asked_for_what_the_wallets_own_transactions_lead_to() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    let rpc = world.rpc()?;
    let (mut wallet, words) = empty(&world)?;
    world.bitcoind.fund_and_mine(&wallet.address()?, COIN)?;
    wallet.sync(&rpc)?;
    // All of it pays an envelope, whose reveal returns the rest to a change address far away; from there it goes
    // farther.
    let [far, farther] = [300, 700].map(|index| address(&world, &wallet, CHANGE, index));
    let asked = anywhere::ask(&mut wallet, &rpc, &payload(&world, 100)?, rate(1), &Caps::default(), &far?, false)?;
    let pay = |wallet: &mut Wallet, to: &Address| -> Result<()> {
        let all = wallet.balance().total() - Amount::from_sat(400);
        wallet.send(&rpc, to, all, rate(1), &Caps::default())?;
        world.bitcoind.mine(1)?;
        wallet.sync(&rpc)?;
        Ok(())
    };
    let envelope = anywhere::address(&wallet, &asked)?;
    pay(&mut wallet, &envelope)?;
    resume(&mut wallet, &rpc)?;
    world.bitcoind.mine(1)?;
    let (left, found) = restored(&world, "once", &words, within(20, &esplora))?;
    assert!(left > COIN - Amount::from_sat(2_000), "{left}");
    assert_eq!(found, looked(321, Some(0), Some(300)));

    let mut wallet = Wallet::open(&world.path("once"), Network::Regtest)?;
    wallet.sync(&rpc)?;
    pay(&mut wallet, &farther?)?;
    let (left, found) = restored(&world, "twice", &words, within(20, &esplora))?;
    assert!(left > COIN - Amount::from_sat(3_000), "{left}");
    assert_eq!(found, looked(721, Some(0), Some(700)));
    Ok(())
}

#[test]
fn a_restore_says_how_far_it_looked_and_what_to_try_if_it_found_nothing() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let (wallet, words) = empty(&world)?;
    let restore = |name: &str, gap: &str| -> Result<(Value, String)> {
        let arguments = ["wallet", "restore", "--wallet", name, "--gap", gap];
        let mut command = cli.command(&arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("piped")?.write_all(words.words().as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{said}");
        Ok((serde_json::from_slice(&output.stdout)?, said))
    };
    let (made, said) = restore("none", "40")?;
    assert_eq!(
        made["searched"],
        json!({ "receive": 45, "change": 45, "last_receive": null, "last_change": null, "found_sat": 0 })
    );
    assert!(
        said.contains("nothing was found on the first 45 receive and 45 change addresses") && said.contains("--gap")
    );
    world.bitcoind.fund_and_mine(&address(&world, &wallet, CHANGE, 44)?, COIN)?;
    let (made, said) = restore("some", "40")?;
    assert_eq!(
        made["searched"],
        json!({ "receive": 45, "change": 90, "last_receive": null, "last_change": 44, "found_sat": 50_000 })
    );
    assert!(!said.contains("nothing was found"), "{said}");
    Ok(())
}

#[test]
fn a_rescan_with_a_gap_finds_coins_on_addresses_that_the_wallet_did_not_know() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    let rpc = world.rpc()?;
    let (mut wallet, _) = empty(&world)?;
    for (index, is_node) in [(150, true), (300, false)] {
        let before = wallet.balance().total();
        world.bitcoind.fund_and_mine(&address(&world, &wallet, CHANGE, index)?, COIN)?;
        wallet.sync(&rpc)?;
        wallet.rescan(&rpc, None)?;
        assert_eq!(wallet.balance().total(), before, "too far away");
        let search = if is_node { within(200, &rpc) } else { within(200, &esplora) };
        wallet.rescan(search, None)?;
        assert_eq!(wallet.balance().total(), before + COIN);
        assert_eq!(wallet.looked().context("it has looked")?.last_change, Some(index));
    }
    Ok(())
}
