//! Without a node: a wallet, its payloads and a follower over an Esplora server alone.

use crate::support::nodes::Unasked;
use crate::support::{Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::hex::DisplayHex;
use bitcoin::{Amount, FeeRate, Network, Txid};
use regtest::esplora::Fault;
use regtest::{EsploraServer, SocksProxy, Wanted, wait_until};
use serde_json::Value;
use sortie::chain::{BlockSource, ChainError, Esplora, EsploraError, Mempool, Proxy, RestNode};
use sortie::envelope::{Body, Carrier};
use sortie::follower::{DataDir, Follower};
use sortie::publish::{
    Backup, CarrierChoice, JobState, Outcome, PublishError, Reclaimed, Request, jobs, prepare, publish, reclaim, resume,
};
use sortie::wallet::{Caps, Mnemonic, Wallet, WalletError};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::spawn;
use std::time::Duration;

const WINDOW: Window = Window { window: 6, max_lag: 3 };
const COIN: u64 = 1_000_000;

fn connect(server: &EsploraServer) -> Result<Esplora> {
    Ok(Esplora::connect(&server.url(), Network::Regtest, None)?)
}

/// A wallet that was made and funded over the server, with this many coins.
fn funded(world: &World, server: &Esplora, coins: u32) -> Result<(Wallet, Mnemonic)> {
    let birthday = server.tip()?.height;
    let (mut wallet, words) = Wallet::create(&world.path("wallet"), Network::Regtest, birthday, None)?;
    for _ in 0..coins {
        world.bitcoind.fund_and_mine(&wallet.address()?, Amount::from_sat(COIN))?;
        wallet.sync(server)?;
    }
    Ok((wallet, words))
}

fn request(carrier: Carrier) -> Request {
    Request { carrier: CarrierChoice::Only(carrier), ..Request::at(FeeRate::from_sat_per_kwu(500)) }
}

fn states(wallet: &Wallet) -> Result<Vec<JobState>> {
    Ok(jobs(wallet)?.into_iter().map(|job| job.state).collect())
}

#[test]
fn both_carriers_are_forced_confirmed_reorganised_and_restored() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = connect(&server)?;
    let (mut wallet, words) = funded(&world, &esplora, 2)?;
    assert_eq!(wallet.balance().confirmed, Amount::from_sat(2 * COIN));

    let txs = [vec![7; 32], world.transfer(&world.alice, &world.bob, 500, 0)];
    for (tx, carrier) in txs.iter().zip([Carrier::OpReturn, Carrier::Taproot]) {
        let payload = world.payload(Body::Tx(tx.clone()))?;
        let publication = publish(&mut wallet, &esplora, &payload, &request(carrier))?;
        assert_eq!(publication.carrier, carrier);
        let waiting = world.bitcoind.mempool()?;
        assert!(publication.txids.iter().all(|txid| waiting.contains(txid)));
        let entry = esplora.entry(&publication.txids[0])?.context("it waits")?;
        let on_node = world.rpc()?.entry(&publication.txids[0])?.context("it waits there, too")?;
        assert_eq!((entry.vsize, entry.fee), (on_node.vsize, on_node.fee), "as the node has it");
        assert!(publish(&mut wallet, &esplora, &payload, &request(carrier))?.resumed, "and is not paid twice");
    }
    assert_eq!(states(&wallet)?, [JobState::RevealSent, JobState::RevealSent]);

    world.bitcoind.mine(1)?;
    wallet.sync(&esplora)?;
    let block = world.rpc()?.tip()?;
    assert_eq!(states(&wallet)?, [JobState::Confirmed(block), JobState::Confirmed(block)]);

    // Two empty blocks in place of one: everything waits again, then is mined higher up.
    world.bitcoind.reorg(1)?;
    wallet.sync(&esplora)?;
    assert_eq!(states(&wallet)?, [JobState::RevealSent, JobState::RevealSent]);
    assert!(resume(&mut wallet, &esplora)?.iter().all(|resumed| matches!(resumed.outcome, Outcome::InPlace)));
    world.bitcoind.mine(1)?;
    wallet.sync(&esplora)?;
    let block = world.rpc()?.tip()?;
    assert_eq!(states(&wallet)?, [JobState::Confirmed(block), JobState::Confirmed(block)]);

    // The words alone bring back the same coins; and a node, afterwards, sees what the server saw.
    let mut restored = Wallet::restore(&world.path("restored"), Network::Regtest, words, None, &esplora)?;
    assert_eq!(restored.balance(), wallet.balance());
    assert_eq!(restored.coins()?, wallet.coins()?);
    restored.sync(&world.rpc()?)?;
    assert_eq!(restored.balance(), wallet.balance());
    assert_eq!(restored.synced_to(), wallet.synced_to());

    // And a follower derives the same from here as from the node.
    let mut node = Follower::open(&DataDir::new(world.path("follower"), world.manifest.clone()), &esplora)?;
    node.sync(&esplora, |_| ())?;
    let follower = world.follower("rpc")?;
    assert_eq!(node.derivation().tip(), follower.node.derivation().tip());
    assert_eq!(node.derivation().tip().queue_size, 2);
    Ok(())
}

#[test]
fn a_coin_that_another_transaction_takes_in_a_reorganisation_gives_the_job_up() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = connect(&server)?;
    let (mut wallet, words) = funded(&world, &esplora, 1)?;
    let mut twin = Wallet::restore(&world.path("twin"), Network::Regtest, words, None, &esplora)?;
    let payload = world.payload(Body::Tx(vec![7; 32]))?;
    publish(&mut wallet, &esplora, &payload, &request(Carrier::OpReturn))?;
    // The same words elsewhere spend the same coin, at a higher rate.
    let to = regtest::Bitcoind::anyone_address();
    let rate = FeeRate::from_sat_per_kwu(5_000);
    twin.send(&Unasked(&esplora), &to, Amount::from_sat(10_000), rate, &Caps::default())?;
    world.bitcoind.mine(6)?;
    wallet.sync(&esplora)?;
    let resumed = resume(&mut wallet, &esplora)?;
    assert!(matches!(resumed[0].outcome, Outcome::Failed(PublishError::Lost { .. })), "{resumed:?}");
    twin.sync(&esplora)?;
    assert_eq!(wallet.balance().total(), twin.balance().total());
    Ok(())
}

#[test]
fn an_unconfirmed_envelope_is_reclaimed() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = connect(&server)?;
    let (mut wallet, _) = funded(&world, &esplora, 1)?;
    let payload = world.payload(Body::Tx(vec![7; 300]))?;
    let publication = publish(&mut wallet, &esplora, &payload, &request(Carrier::Taproot))?;
    let rate = FeeRate::from_sat_per_kwu(2_500);
    let reclaimed = reclaim(&mut wallet, &esplora, publication.job, rate, &Caps::default())?;
    let Reclaimed::Sweeping { txid, .. } = reclaimed else { panic!("{reclaimed:?}") };
    assert!(world.bitcoind.mempool()?.contains(&txid));
    world.bitcoind.mine(1)?;
    wallet.sync(&esplora)?;
    assert_eq!(states(&wallet)?, [JobState::Reclaimed(world.rpc()?.tip()?)]);
    Ok(())
}

#[test]
fn an_answer_that_is_lost_is_paid_for_once() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = connect(&server)?;
    let (mut wallet, _) = funded(&world, &esplora, 1)?;
    let payload = world.payload(Body::Tx(vec![7; 32]))?;
    server.fail("/tx", Fault::Lost);
    server.fail("/tx/", Fault::Status(404));
    let lost = publish(&mut wallet, &esplora, &payload, &request(Carrier::OpReturn));
    assert!(matches!(lost, Err(PublishError::Unsent { .. })), "{lost:?}");
    assert_eq!(world.bitcoind.mempool()?.len(), 1, "it has left");
    server.heal();
    let again = publish(&mut wallet, &esplora, &payload, &request(Carrier::OpReturn))?;
    assert!(again.resumed);
    assert_eq!(world.bitcoind.mempool()?, again.txids);
    // The server has it, and says so as an error: that is success.
    let tx = esplora.transaction(&again.txids[0])?.context("it waits")?;
    assert!(esplora.submit(std::slice::from_ref(&tx), FeeRate::MAX)?[0].answer.is_ok());
    world.bitcoind.mine(1)?;
    assert!(esplora.submit(&[tx], FeeRate::MAX)?[0].answer.is_ok());
    Ok(())
}

#[test]
fn a_history_of_many_pages_is_read_whole() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = connect(&server)?;
    let (mut wallet, words) = funded(&world, &esplora, 0)?;
    let address = wallet.address()?;
    for payments in [30, 25, 5] {
        for _ in 0..payments {
            world.bitcoind.fund(&address, Amount::from_sat(1_000))?;
        }
        world.bitcoind.mine(1)?;
    }
    wallet.sync(&esplora)?;
    assert_eq!(wallet.balance().confirmed, Amount::from_sat(60_000));
    let restored = Wallet::restore(&world.path("restored"), Network::Regtest, words, None, &esplora)?;
    assert_eq!(restored.coins()?, wallet.coins()?);

    // What others than us may ask such a server for.
    let get = |route: &str| -> Result<Value> {
        Ok(ureq::get(format!("{}{route}", server.url())).call()?.body_mut().read_json()?)
    };
    let coins = get(&format!("/address/{address}/utxo"))?;
    assert_eq!(coins.as_array().map(Vec::len), Some(60));
    let txid = coins[0]["txid"].as_str().context("a transaction")?;
    let proof = get(&format!("/tx/{txid}/merkle-proof"))?;
    let (mut at, mut hash) = (proof["pos"].as_u64().context("a position")?, txid.parse::<Txid>()?.to_byte_array());
    for next in proof["merkle"].as_array().context("a path")? {
        let next = next.as_str().context("a hash")?.parse::<Txid>()?.to_byte_array();
        let pair = if at % 2 == 0 { [hash, next] } else { [next, hash] };
        hash = sha256d::Hash::hash(&pair.concat()).to_byte_array();
        at /= 2;
    }
    let block = esplora.block_hash(proof["block_height"].as_u64().context("a height")?.try_into()?)?;
    let header = esplora.header(&block.context("a block")?)?;
    assert_eq!(header.merkle_root.to_byte_array(), hash);
    Ok(())
}

#[test]
fn outputs_and_estimates_are_what_the_server_says() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let (esplora, rpc) = (connect(&server)?, world.rpc()?);
    let (wallet, _) = funded(&world, &esplora, 1)?;
    let coin = wallet.coins()?[0].outpoint;
    world.bitcoind.mine(2)?;
    assert_eq!(esplora.unspent(&coin)?, rpc.unspent(&coin)?);
    assert_eq!(esplora.unspent(&coin)?.context("unspent")?.1, 3);
    let tip = world.bitcoind.tip()?;
    assert_eq!(esplora.tip()?, rpc.tip()?);
    assert_eq!(esplora.header(&tip)?, rpc.header(&tip)?);
    assert_eq!(esplora.block(&tip)?, rpc.block(&tip)?);
    assert_eq!(esplora.block_hash(world.bitcoind.height()? + 1)?, None);
    assert!(matches!(esplora.block(&bitcoin::BlockHash::all_zeros()), Err(ChainError::NotFound(_))));
    assert_eq!(esplora.wait_for_tip(&tip, Duration::ZERO)?.hash, tip);

    assert_eq!(esplora.estimate(6)?, None, "no data is no estimate");
    server.set_fee_estimates(&[(2, 9.5), (6, 3.25), (144, 1.0)]);
    assert_eq!(esplora.estimate(6)?, Some(FeeRate::from_sat_per_kwu(813)));
    Ok(())
}

#[test]
fn a_server_that_fails_is_told_from_one_that_is_wrong() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let other = Esplora::connect(&server.url(), Network::Signet, None).expect_err("another chain");
    assert!(matches!(&other, ChainError::Esplora(EsploraError::WrongNetwork { .. })), "{other}");
    assert!(!other.is_temporary());

    let esplora = connect(&server)?;
    let (mut wallet, _) = funded(&world, &esplora, 1)?;
    for (path, fault, temporary) in [
        ("/blocks", Fault::Status(504), true),
        ("/scripthash", Fault::Status(502), true),
        // What is no JSON is the word of something in front of the server, and passes.
        ("/scripthash", Fault::Garbage, true),
        ("/blocks", Fault::Garbage, true),
        ("/scripthash", Fault::Status(403), true),
    ] {
        server.fail(path, fault);
        let error = wallet.sync(&esplora).expect_err("a fault");
        let WalletError::Chain(error) = error else { anyhow::bail!("{error}") };
        assert_eq!(error.is_temporary(), temporary, "{fault:?} at {path}: {error}");
        assert!(error.to_string().contains(&server.url()) && !error.to_string().contains("bitcoind"), "{error}");
        server.heal();
    }
    for (path, fault) in [("/block-height", Fault::Garbage), ("/block-height", Fault::Flood(10_000))] {
        server.fail(path, fault);
        let error = esplora.block_hash(1).expect_err("a fault");
        assert!(matches!(&error, ChainError::Esplora(EsploraError::Malformed { .. })), "{error}");
        server.heal();
    }
    wallet.sync(&esplora)?;
    assert_eq!(wallet.balance().confirmed, Amount::from_sat(COIN));
    Ok(())
}

#[test]
fn an_unrevealed_commit_is_found_and_brought_back_without_a_node() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = connect(&server)?;
    settled(&world, &server)?;
    let run = |arguments: &[&str]| sortie(world.dir.path(), arguments);
    for name in ["line", "payload"] {
        let tx = [vec![9; 200], name.as_bytes().to_vec()].concat();
        let birthday = esplora.tip()?.height;
        let lost = world.path(&format!("{name}-lost"));
        let (mut lost, words) = Wallet::create(&lost, Network::Regtest, birthday, None)?;
        world.bitcoind.fund_and_mine(&lost.address()?, Amount::from_sat(COIN))?;
        lost.sync(&esplora)?;
        let prepared = prepare(&mut lost, &esplora, &world.payload(Body::Tx(tx.clone()))?, &request(Carrier::Taproot))?;
        let commit = prepared.commit().context("a commit")?.clone();
        world.bitcoind.mine_block_with(std::slice::from_ref(&commit))?;
        drop(lost);
        let restored = world.path(&format!("data/regtest/wallets/{name}"));
        let before = Wallet::restore(&restored, Network::Regtest, words, None, &esplora)?.balance().total();

        let outpoint = format!("{}:0", commit.compute_txid());
        let listed = answer(run(&["recover", "--wallet", name])?)?;
        assert_eq!((&listed["outpoint"], &listed["height"]), (&outpoint.into(), &world.bitcoind.height()?.into()));
        let wrong = run(&["recover", "--wallet", name, "--tx", "0a0a0a0a", "--keys", "30"])?;
        assert_eq!(wrong.status.code(), Some(2));
        let said = String::from_utf8(wrong.stderr)?;
        assert!(said.contains("none of the first 30 keys") && said.contains("backup line"), "{said}");

        let line = Backup::of(&prepared).context("a backup line")?.to_string();
        let hex = tx.to_lower_hex_string();
        let recover = match name {
            "line" => vec!["recover", "--wallet", name, "--fee-rate", "3", "--backup", &line, "--reclaim"],
            _ => vec!["recover", "--wallet", name, "--fee-rate", "3", "--tx", &hex],
        };
        let done = answer(run(&recover)?)?;
        assert_eq!(done["outcome"], if name == "line" { "reclaiming" } else { "revealed" });
        assert_eq!(answer(run(&recover)?)?["txids"], done["txids"], "the same command pays once");
        world.bitcoind.mine(1)?;
        let spend = world.bitcoind.block(&world.bitcoind.tip()?)?.txdata.remove(1);
        assert_eq!(done["txids"][0], spend.compute_txid().to_string());
        let total = answer(run(&["wallet", "balance", "--wallet", name])?)?["total_sat"].as_u64();
        assert_eq!(total, Some((before + spend.output[0].value).to_sat()), "to the satoshi");
        let state = answer(run(&["jobs", "--wallet", name])?)?["state"].clone();
        assert_eq!(state, if name == "line" { "reclaimed" } else { "confirmed" });
        let again = run(&["recover", "--wallet", name])?;
        assert!(again.status.success() && again.stdout.is_empty(), "nothing looks like one any more");
    }
    assert_eq!(world.follower("follower")?.items()?.len(), 1, "one was revealed, one was taken back");
    Ok(())
}

/// The command, without any variable or folder that could lead it to a node.
fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sortie"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("SORTIE_") || name.to_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.arg("--data-dir").arg(dir.join("data")).arg("--json").args(arguments).env("HOME", dir).current_dir(dir);
    // What is out of order here stays so.
    command.env("XDG_CONFIG_HOME", dir.join("config")).env("SORTIE_PATIENCE", "0");
    command
}

/// Settings of the user's own.
fn settings(world: &World, text: &str) -> Result<()> {
    std::fs::create_dir_all(world.path("config/sortie"))?;
    Ok(std::fs::write(world.path("config/sortie/sortie.toml"), text)?)
}

fn sortie(dir: &Path, arguments: &[&str]) -> Result<Output> {
    Ok(command(dir, arguments).output()?)
}

fn answer(output: Output) -> Result<Value> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(serde_json::from_str(text.lines().last().context("an answer")?)?)
}

#[test]
fn every_command_works_without_a_node_and_one_of_several_servers_is_enough() -> Result<()> {
    let world = World::new(WINDOW)?;
    let (reading, sending) = (EsploraServer::start(&world.bitcoind)?, EsploraServer::start(&world.bitcoind)?);
    std::fs::write(world.path("rollup.toml"), world.manifest.to_toml())?;
    let (first, second) = (reading.url(), sending.url());
    let config = format!(
        "manifest = '~/rollup.toml'\nesplora_url = ['{first}', '{second}']\nbroadcast_url = 'http://127.0.0.1:1'\n"
    );
    settings(&world, &config)?;
    let run = |arguments: &[&str]| sortie(world.dir.path(), arguments);

    let created = answer(run(&["wallet", "create"])?)?;
    let address = answer(run(&["wallet", "address"])?)?;
    let address = address["address"].as_str().context("an address")?.parse::<bitcoin::Address<_>>()?.assume_checked();
    world.bitcoind.fund_and_mine(&address, Amount::from_sat(COIN))?;
    assert_eq!(answer(run(&["wallet", "balance"])?)?["spendable_sat"], COIN);
    let tx = world.transfer(&world.alice, &world.bob, 500, 0).to_lower_hex_string();
    assert_eq!(answer(run(&["quote", &tx])?)?["quotes"][0]["cheapest"], "taproot");

    // The one that is read takes no transactions now, and the third is dead.
    reading.fail("/txs/package", Fault::Status(503));
    let forced = answer(run(&["force", &tx])?)?;
    reading.heal();
    assert!(sending.requests().iter().any(|request| request.starts_with("POST /txs/package")));
    let place = forced["place"].as_str().context("a place")?;
    assert_eq!(answer(run(&["status", place])?)?["state"], "mempool");
    assert!(run(&["resume"])?.status.success());
    world.bitcoind.mine(7)?;
    assert_eq!(answer(run(&["status", place])?)?["outcome"], "ok");
    assert_eq!(answer(run(&["queue", "root"])?)?["size"], 1);
    assert!(run(&["follow", "--once"])?.status.success());
    assert_eq!(answer(run(&["scan"])?)?["place"], place);
    answer(run(&["wallet", "send", "--to", &address.to_string(), "--amount", "1000"])?)?;
    world.bitcoind.mine(1)?;
    let left = answer(run(&["wallet", "balance"])?)?["total_sat"].clone();

    let words = created["words"].as_str().context("the words")?;
    std::fs::write(world.path("words.txt"), words)?;
    let restored = Command::new(env!("CARGO_BIN_EXE_sortie"))
        .args(["--esplora-url", &first, "--network", "regtest", "wallet", "restore", "--wallet", "again"])
        .arg("--data-dir")
        .arg(world.path("data"))
        .stdin(std::fs::File::open(world.path("words.txt"))?)
        .output()?;
    ensure!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert_eq!(answer(run(&["wallet", "balance", "--wallet", "again"])?)?["total_sat"], left);

    // What is said when none answers, or one of another chain does.
    let dead = run(&["wallet", "balance", "--esplora-url", "http://127.0.0.1:1/secret"])?;
    assert_eq!(dead.status.code(), Some(3));
    let said = String::from_utf8(dead.stderr)?;
    assert!(said.contains("the Esplora server http://127.0.0.1:1: connection refused"), "{said}");
    assert!(!said.contains("bitcoind") && !said.contains("secret"), "{said}");
    std::fs::write(world.path("empty.toml"), "")?;
    let other = ["--config", "empty.toml", "--network", "signet", "--esplora-url", &first, "wallet", "create"];
    assert_eq!(run(&other)?.status.code(), Some(4));
    Ok(())
}

/// A wallet of one coin, made by the command over this server, which a settings file names.
fn settled(world: &World, server: &EsploraServer) -> Result<()> {
    std::fs::write(world.path("rollup.toml"), world.manifest.to_toml())?;
    let config = format!("manifest = '~/rollup.toml'\nesplora_url = ['{}']\n", server.url());
    settings(world, &config)?;
    answer(sortie(world.dir.path(), &["wallet", "create"])?)?;
    let address = answer(sortie(world.dir.path(), &["wallet", "address"])?)?["address"].clone();
    let address = address.as_str().context("an address")?.parse::<bitcoin::Address<_>>()?.assume_checked();
    world.bitcoind.fund_and_mine(&address, Amount::from_sat(COIN))?;
    Ok(())
}

#[test]
fn force_waits_for_execution_and_reclaim_takes_a_commit_back_without_a_node() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    settled(&world, &server)?;
    let run = |arguments: &[&str]| sortie(world.dir.path(), arguments);
    let transfer = |nonce| world.transfer(&world.alice, &world.bob, 500, nonce).to_lower_hex_string();

    let (first, second) = (transfer(0), transfer(1));
    let mut waiting = command(world.dir.path(), &["force", &first, "--wait", "executed"]);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    wait_until("the transaction left", Duration::from_secs(60), || Ok(world.bitcoind.mempool()?.pop()))?;
    world.bitcoind.mine(7)?;
    let executed = answer(waiting.wait_with_output()?)?;
    assert_eq!((&executed["state"], &executed["outcome"]), (&"executed".into(), &"ok".into()));

    let before = answer(run(&["wallet", "balance"])?)?["total_sat"].as_u64().context("a balance")?;
    let forced = answer(run(&["force", &second, "--carrier", "taproot", "--fee-rate", "2"])?)?;
    let commit = forced["txids"][0].clone();
    let swept = answer(run(&["reclaim", "2", "--fee-rate", "9"])?)?;
    assert_eq!(swept["outcome"], "sweeping", "{swept}");
    world.bitcoind.mine(1)?;
    let block = world.bitcoind.block(&world.bitcoind.tip()?)?;
    let mined: Vec<Value> = block.txdata[1..].iter().map(|tx| tx.compute_txid().to_string().into()).collect();
    assert_eq!(mined, [commit, swept["txid"].clone()]);
    let after = answer(run(&["wallet", "balance"])?)?["total_sat"].as_u64().context("a balance")?;
    assert_eq!(before - after, world.fees_of(&block.txdata[1..])?.to_sat(), "to the satoshi");
    let jobs = run(&["jobs"])?;
    assert_eq!(answer(jobs)?["state"], "reclaimed");
    assert_eq!(answer(run(&["queue", "root"])?)?["size"], 1);
    Ok(())
}

#[test]
fn long_op_return_outputs_are_taken_for_unrelayed_unless_the_profile_says_otherwise() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    settled(&world, &server)?;
    let run = |arguments: &[&str]| sortie(world.dir.path(), arguments);
    let tx = world.transfer(&world.alice, &world.bob, 500, 0).to_lower_hex_string();
    let cookie = world.bitcoind.cookie().display().to_string();
    let (url, node) = (world.bitcoind.rpc_url(), ["--bitcoin-cookie", &cookie, "--bitcoin-url"]);
    let node = [&node[..], &[&url]].concat();
    for (source, profile, relayed) in [
        (&[][..], &[][..], false),
        (&[], &["--profile", "legacy"], false),
        (&[], &["--profile", "core30"], true),
        (&node, &[], true),
        (&node, &["--profile", "legacy"], false),
    ] {
        let quote = answer(run(&[&["quote", &tx, "--fee-rate", "2"], source, profile].concat())?)?;
        let carriers = quote["quotes"][0]["carriers"].as_array().context("carriers")?;
        let op_return = carriers.iter().find(|cost| cost["carrier"] == "op-return").context("OP_RETURN")?;
        assert_eq!(op_return["relayed"], relayed, "{source:?} {profile:?}");
        if !relayed {
            let force = ["force", &tx, "--fee-rate", "2", "--carrier", "op-return"];
            let refused = run(&[&force, source, profile].concat())?;
            assert_eq!(refused.status.code(), Some(2));
            let said = String::from_utf8(refused.stderr)?;
            assert!(said.contains("legacy nodes relay 83") && said.contains("--profile core30"), "{said}");
        }
    }
    let force = ["force", &tx, "--fee-rate", "2", "--carrier", "op-return", "--profile", "core30"];
    let forced = answer(run(&force)?)?;
    assert_eq!(forced["txids"][0], world.bitcoind.mempool()?[0].to_string());
    assert_eq!(run(&["quote", &tx, "--profile", "core29"])?.status.code(), Some(2));
    Ok(())
}

#[test]
fn a_sequencer_is_refused_without_a_node() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    settled(&world, &server)?;
    std::fs::write(world.path("sequencer.key"), world.sequencer_key.keypair.secret_bytes().to_lower_hex_string())?;
    let refused = sortie(world.dir.path(), &["sequencer", "--key", "sequencer.key", "--listen", "127.0.0.1:0"])?;
    let said = String::from_utf8(refused.stderr)?;
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("needs a Bitcoin node of its own") && said.contains("--bitcoin-url"), "{said}");
    Ok(())
}

/// Answers every request with a redirect to the same path at `target`, as long as the process lives.
fn redirecting(target: SocketAddr) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    spawn(move || {
        for stream in listener.incoming() {
            let answer = |mut stream: TcpStream| -> Result<()> {
                let mut request = String::new();
                BufReader::new(stream.try_clone()?).read_line(&mut request)?;
                let path = request.split(' ').nth(1).context("a path")?;
                let head = format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{target}{path}\r\n");
                Ok(write!(stream, "{head}Content-Length: 0\r\nConnection: close\r\n\r\n")?)
            };
            // Whoever asked may be gone.
            let _ = stream.map_err(Into::into).and_then(answer);
        }
    });
    Ok(url)
}

/// A server on this machine is asked past the proxy: where it leads must not be followed.
#[test]
fn no_redirect_is_followed() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let url = redirecting(server.address())?;
    let is_redirect = |error: &ChainError| matches!(error, ChainError::Esplora(EsploraError::Redirected { .. }));
    let error = Esplora::connect(&url, Network::Regtest, None).expect_err("elsewhere");
    assert!(is_redirect(&error), "{error}");
    // The wallet's histories are fetched by BDK, and what is sent is sent otherwise.
    let (mut wallet, _) = funded(&world, &connect(&server)?, 1)?;
    let redirecting = Esplora::new(&url, Network::Regtest, None)?;
    let asked = server.requests().len();
    let WalletError::Chain(error) = wallet.sync(&redirecting).expect_err("elsewhere") else { panic!("another error") };
    assert!(is_redirect(&error), "{error}");
    let tx = world.bitcoind.block(&world.bitcoind.tip()?)?.txdata.remove(0);
    let error = redirecting.submit(&[tx], FeeRate::MAX).expect_err("elsewhere");
    assert!(is_redirect(&error), "{error}");
    let sent = sortie(world.dir.path(), &["send", "00", "--sequencer", &url])?;
    let said = String::from_utf8(sent.stderr)?;
    assert!(sent.status.code() == Some(1) && said.contains("redirects to another address"), "{said}");
    // Nor is one of what says that it is a bitcoind.
    let error = RestNode::connect(&url, Network::Regtest).expect_err("elsewhere");
    assert!(matches!(error, ChainError::Rpc { code: 307, .. }), "{error}");
    assert_eq!(server.requests().len(), asked, "somebody went where they were led");
    Ok(())
}

#[test]
fn with_a_proxy_no_name_is_resolved_and_nothing_contacted_on_this_side() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let names = BTreeMap::from([("nowhere.invalid".to_owned(), server.address())]);
    let proxy = SocksProxy::start(names)?;
    let url = "http://nowhere.invalid:3000/";
    let wanted = || Wanted::Name("nowhere.invalid".into(), 3_000);

    // The library: headers, and the wallet's histories, which another client fetches.
    let through: Proxy = proxy.url().parse()?;
    let esplora = Esplora::connect(url, Network::Regtest, Some(&through))?;
    let (wallet, _) = funded(&world, &esplora, 1)?;
    assert_eq!(wallet.balance().confirmed, Amount::from_sat(COIN));
    drop(esplora);

    // The command.
    let common = ["--network", "regtest", "--proxy", &proxy.url()];
    let run = |arguments: &[&str]| sortie(world.dir.path(), &[&common[..], arguments].concat());
    answer(run(&["--esplora-url", url, "wallet", "create"])?)?;
    answer(run(&["--esplora-url", url, "wallet", "balance"])?)?;
    assert!(!proxy.wanted().is_empty());
    assert!(proxy.wanted().iter().all(|name| *name == wanted()), "{:?}", proxy.wanted());
    let (opened, peers) = (proxy.opened(), server.peers());
    assert!(!peers.is_empty());
    assert!(peers.iter().all(|peer| opened.contains(peer)), "somebody came by another way");

    // A sequencer's name goes the same way, and a node that would not is refused before it is asked.
    let sent = run(&["send", "00", "--sequencer", "http://sequencer.invalid:8645"])?;
    assert_eq!(sent.status.code(), Some(1));
    assert_eq!(proxy.wanted().last(), Some(&Wanted::Name("sequencer.invalid".into(), 8_645)));
    let asked = proxy.wanted().len();
    let remote = ["--bitcoin-url", "http://node.invalid:8332", "--bitcoin-cookie", "none", "wallet", "balance"];
    let refused = run(&remote)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("--proxy"), "{said}");
    assert_eq!(proxy.wanted().len(), asked);

    // Another scheme would resolve names here, and a dead proxy is not gone around.
    let local = ["--network", "regtest", "--proxy", "socks5://127.0.0.1:9050", "wallet", "balance"];
    assert_eq!(sortie(world.dir.path(), &local)?.status.code(), Some(2));
    let dead = ["--network", "regtest", "--proxy", "socks5h://127.0.0.1:1", "--esplora-url", url, "wallet", "balance"];
    let dead = sortie(world.dir.path(), &dead)?;
    assert_eq!(dead.status.code(), Some(3), "{}", String::from_utf8_lossy(&dead.stderr));
    Ok(())
}
