//! What a wallet makes of a chain that is not the one it knew: deep reorganisations, another chain, a node that is
//! behind.

use crate::support::money::{Purse, payload, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::{Amount, Network};
use regtest::{Bitcoind, EsploraServer};
use serde_json::json;
use sortie::chain::{ChainError, Credentials, Esplora, RpcNode};
use sortie::envelope::Carrier;
use sortie::publish::{FINAL_DEPTH, JobId, JobState, job, resume};
use sortie::wallet::{Caps, Search, Wallet, WalletError};

const WINDOW: Window = Window { window: 30, max_lag: 20 };
const COIN: Amount = Amount::from_sat(100_000);

fn connect(node: &Bitcoind) -> Result<RpcNode> {
    Ok(RpcNode::connect(&node.rpc_url(), Credentials::Cookie(node.cookie()), Network::Regtest)?)
}

/// Gives a node the blocks of another one, from its own height on up to this one.
fn copy_blocks(from: &Bitcoind, to: &Bitcoind, height: u32) -> Result<()> {
    for height in to.height()? + 1..=height {
        let raw = from.call("getblock", &[json!(from.block_hash(height)?), json!(0)])?;
        let refused = to.call("submitblock", &[raw])?;
        ensure!(refused.is_null(), "{refused}");
    }
    Ok(())
}

#[test]
fn a_young_wallet_follows_a_reorganisation_to_below_its_birthday() -> Result<()> {
    let world = World::new(WINDOW)?;
    // What pays the wallets is itself deeper than the reorganisations, and no coinbase that is young after them.
    world.bitcoind.fund_and_mine(&Bitcoind::anyone_address(), Amount::from_int_btc(100))?;
    world.bitcoind.mine(30)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    let rpc = world.rpc()?;
    let (mut over_node, _) = Wallet::create(&world.path("node"), Network::Regtest, world.bitcoind.height()?, None)?;
    let (mut over_server, _) = Wallet::create(&world.path("server"), Network::Regtest, world.bitcoind.height()?, None)?;
    let paid = [&mut over_node, &mut over_server]
        .map(|wallet| -> Result<_> { Ok(world.bitcoind.fund_and_mine(&wallet.address()?, COIN)?.txid) });
    let paid = paid.into_iter().collect::<Result<Vec<_>>>()?;
    let synced = |over_node: &mut Wallet, over_server: &mut Wallet| -> Result<_> {
        over_node.sync(&rpc)?;
        over_server.sync(&esplora)?;
        Ok([over_node.balance(), over_server.balance()].map(|balance| balance.confirmed))
    };
    assert_eq!(synced(&mut over_node, &mut over_server)?, [COIN; 2]);
    // What paid them is in the lowest block of the new chain, far below the birthday.
    for depth in [13, 17] {
        let mut paid = Some(paid.clone());
        world.bitcoind.reorg_with(depth, |_| Ok(paid.take().unwrap_or_default()))?;
        for _ in 0..2 {
            assert_eq!(synced(&mut over_node, &mut over_server)?, [COIN; 2], "after {depth} blocks");
            world.bitcoind.mine(1)?;
        }
    }
    world.bitcoind.reorg(21)?;
    assert_eq!(synced(&mut over_node, &mut over_server)?, [Amount::ZERO; 2], "they wait again");
    let to = over_node.address()?;
    world.bitcoind.mine(1)?;
    assert_eq!(synced(&mut over_node, &mut over_server)?, [COIN; 2]);
    over_node.send(&rpc, &to, Amount::from_sat(10_000), rate(2), &Caps::default())?;
    Ok(())
}

#[test]
fn a_final_job_whose_block_is_gone_is_no_longer_told_as_confirmed_and_is_sent_again() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let done = purse.publish(&payload(&world, 200)?, Carrier::Taproot, 2)?;
    world.bitcoind.mine(FINAL_DEPTH)?;
    assert!(matches!(purse.job(done.job)?.state, JobState::Final(_)));
    // The same wallet again, over a server from now on.
    let copy = world.path("copy");
    std::fs::create_dir(&copy)?;
    for file in ["seed", "wallet.sqlite"] {
        std::fs::copy(world.path("alice").join(file), copy.join(file))?;
    }
    let mut over_server = Wallet::open(&copy, Network::Regtest)?;

    world.bitcoind.reorg(FINAL_DEPTH)?;
    let state = |wallet: &Wallet, id: JobId| -> Result<JobState> { Ok(job(wallet, id)?.state) };
    assert_eq!(purse.job(done.job)?.state, JobState::RevealSent);
    over_server.sync(&esplora)?;
    assert_eq!(state(&over_server, done.job)?, JobState::RevealSent);
    resume(&mut purse.wallet, &purse.rpc)?;
    world.bitcoind.mine(1)?;
    over_server.sync(&esplora)?;
    let block = purse.job(done.job)?.state.confirmed().context("mined again")?;
    assert_eq!((block.height, state(&over_server, done.job)?), (world.bitcoind.height()?, JobState::Confirmed(block)));
    world.bitcoind.mine(FINAL_DEPTH - 1)?;
    assert_eq!(purse.job(done.job)?.state, JobState::Final(block));
    Ok(())
}

#[test]
fn a_node_that_is_behind_changes_nothing_and_another_chain_is_followed_and_left_again() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[100_000])?;
    let done = purse.publish(&payload(&world, 200)?, Carrier::OpReturn, 2)?;
    world.bitcoind.mine(3)?;
    let (confirmed, total) = (purse.job(done.job)?.state, purse.wallet.balance());
    let late = Bitcoind::start()?;
    copy_blocks(&world.bitcoind, &late, world.bitcoind.height()? - 5)?;
    let rpc = connect(&late)?;
    for _ in 0..2 {
        let error = purse.wallet.sync(&rpc).expect_err("it is behind");
        assert!(
            matches!(&error, WalletError::Chain(error @ ChainError::Behind { .. }) if error.is_temporary()),
            "{error}"
        );
        assert_eq!((job(&purse.wallet, done.job)?.state, purse.wallet.balance()), (confirmed.clone(), total));
    }
    let server = EsploraServer::start(&late)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    let error = purse.wallet.sync(&esplora).expect_err("so is this one");
    assert!(matches!(error, WalletError::Chain(ChainError::Behind { .. })), "{error}");
    copy_blocks(&world.bitcoind, &late, world.bitcoind.height()?)?;
    purse.wallet.sync(&rpc)?;
    assert_eq!((job(&purse.wallet, done.job)?.state, purse.wallet.balance()), (confirmed.clone(), total));

    // Another chain of the same network, longer or shorter: nothing of the wallet's is there.
    for blocks in [60, 300] {
        let other = Bitcoind::start()?;
        other.mine_to(&Bitcoind::anyone_address(), blocks)?;
        purse.wallet.sync(&connect(&other)?)?;
        assert_eq!(purse.wallet.balance().confirmed, Amount::ZERO);
        assert_eq!(job(&purse.wallet, done.job)?.state, JobState::RevealSent);
        purse.wallet.sync(&purse.rpc)?;
        assert_eq!((job(&purse.wallet, done.job)?.state, purse.wallet.balance()), (confirmed.clone(), total));
    }
    Ok(())
}

#[test]
fn a_node_without_the_blocks_that_are_needed_shows_the_coins_all_the_same() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Bitcoind::options().datadir(dir.path().join("node")).arg("-prune=1").arg("-fastprune").start()?;
    node.mine(110)?;
    let rpc = connect(&node)?;
    let (mut wallet, words) = Wallet::create(&dir.path().join("wallet"), Network::Regtest, node.height()?, None)?;
    for sat in [100_000, 50_000] {
        node.fund_and_mine(&wallet.address()?, Amount::from_sat(sat))?;
        wallet.sync(&rpc)?;
    }
    let search = Search { gap: Some(50), ..Search::from(&rpc) };
    let mut twin = Wallet::restore(&dir.path().join("twin"), Network::Regtest, words.clone(), None, search)?;
    // The twin spends the larger coin, and this wallet has not seen it when the blocks are gone.
    twin.send(&rpc, &Bitcoind::anyone_address(), Amount::from_sat(60_000), rate(2), &Caps::default())?;
    node.mine(800)?;
    let pruned = node.call("pruneblockchain", &[json!(node.height()? - 300)])?.as_u64().context("a height")?;
    ensure!(pruned > 150, "nothing was pruned");
    twin.sync(&rpc)?;
    wallet.sync(&rpc)?;
    assert_eq!((wallet.balance(), wallet.coins()?.len()), (twin.balance(), 2));
    let unread = wallet.unread_blocks().context("not all was read")?;
    assert_eq!((*unread.start(), u64::from(*unread.end())), (113, pruned));
    drop(wallet);
    // Opened again, restored, and paid from.
    let mut wallet = Wallet::open(&dir.path().join("wallet"), Network::Regtest)?;
    assert_eq!(wallet.balance(), twin.balance());
    let search = Search { gap: Some(50), ..Search::from(&rpc) };
    let restored = Wallet::restore(&dir.path().join("restored"), Network::Regtest, words, None, search)?;
    assert_eq!(restored.balance(), twin.balance());
    let all = wallet.balance().total() - Amount::from_sat(1_000);
    wallet.send(&rpc, &Bitcoind::anyone_address(), all, rate(2), &Caps::default())?;
    node.mine(1)?;
    wallet.sync(&rpc)?;
    assert!(wallet.balance().total() < Amount::from_sat(1_000));
    node.stop()?;
    Ok(())
}
