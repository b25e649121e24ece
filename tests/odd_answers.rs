//! A node, or what stands in front of it, answers oddly: for a moment, for good, or without end; and over TLS.

use crate::support::front::{AUTHORITY, Front, http};
use crate::support::{Window, World, said};
use anyhow::{Context, Result, ensure};
use bitcoin::Network;
use regtest::Proc;
use sortie::chain::{Authorities, BlockSource, ChainError, Credentials, Esplora, EsploraError, RpcNode, Transport};
use sortie::patience::Patience;
use sortie::wallet::{Wallet, WalletError};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const WINDOW: Window = Window { window: 6, max_lag: 3 };
const LIMIT: Duration = Duration::from_secs(60);

fn node_of(world: &World) -> Result<SocketAddr> {
    Ok(world.bitcoind.rpc_url().trim_start_matches("http://").parse()?)
}

#[test]
fn a_command_waits_a_little_for_a_busy_node_and_says_so() -> Result<()> {
    let world = World::new(WINDOW)?;
    // More than the half second after which it still says nothing.
    const BUSY: usize = 4;
    let asked = AtomicUsize::new(0);
    let front = Front::new(node_of(&world)?, move |_| {
        let is_busy = asked.fetch_add(1, Ordering::SeqCst) < BUSY;
        is_busy.then(|| http("503 Service Unavailable", "Work queue depth exceeded"))
    })?;
    let create = |patience: &str| -> Result<_> {
        let mut command = world.sortie_on(&front.url(), &world.bitcoind.cookie(), &["wallet", "create"])?;
        Ok(command.env("SORTIE_PATIENCE", patience).output()?)
    };
    let impatient = create("0")?;
    assert_eq!(impatient.status.code(), Some(3), "{}", said(&impatient));
    assert!(said(&impatient).contains("is busy"), "{}", said(&impatient));
    let patient = create("30")?;
    assert!(patient.status.success(), "{}", said(&patient));
    assert!(said(&patient).contains("trying again for up to"), "{}", said(&patient));
    assert_eq!(front.given.load(Ordering::SeqCst), BUSY);
    Ok(())
}

#[test]
fn a_follower_survives_whatever_is_answered_in_its_nodes_place_for_a_moment() -> Result<()> {
    let world = World::new(WINDOW)?;
    let now: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let fault = Arc::clone(&now);
    let front = Front::new(node_of(&world)?, move |_| fault.lock().unwrap_or_else(PoisonError::into_inner).clone())?;
    let arguments = ["--json", "follow"];
    let mut follower = Proc::spawn(&mut world.sortie_on(&front.url(), &world.bitcoind.cookie(), &arguments)?)?;
    follower.wait_line("the tip", LIMIT, |line| line.contains("\"heads\""))?;
    for (what, answer) in [
        ("a page", http("200 OK", "<html>maintenance</html>")),
        ("half an answer", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"result\":{\"chain\"".to_vec()),
        ("nothing", http("200 OK", r#"{"result":null,"error":null,"id":0}"#)),
        ("a refusal", http("401 Unauthorized", "")),
        ("a limit", http("200 OK", r#"{"result":null,"error":{"code":-32005,"message":"daily limit"},"id":0}"#)),
    ] {
        *now.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        follower.wait_line(what, LIMIT, |line| line.contains("trying again until that passes"))?;
        *now.lock().unwrap_or_else(PoisonError::into_inner) = None;
        follower.wait_line(what, LIMIT, |line| line.contains("that has passed"))?;
        world.bitcoind.mine(1)?;
        let tip = world.bitcoind.tip()?.to_string();
        follower.wait_line(what, LIMIT, |line| line.contains("\"heads\"") && line.contains(&tip))?;
    }
    Ok(())
}

#[test]
fn another_block_than_the_one_asked_for_is_an_error_and_changes_nothing() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("wallet", 1)?;
    let (balance, synced) = (wallet.balance(), wallet.synced_to());
    let rpc = world.rpc()?;
    let genesis = rpc.block_hash(0)?.context("the genesis block")?;
    let other = bitcoin::hex::DisplayHex::to_lower_hex_string(rpc.block(&genesis)?.as_slice());
    world.bitcoind.mine(3)?;
    let front = Front::new(node_of(&world)?, move |request| {
        request.contains("\"getblock\"").then(|| http("200 OK", &format!(r#"{{"result":"{other}","error":null}}"#)))
    })?;
    let lying = RpcNode::connect(&front.url(), Credentials::Cookie(world.bitcoind.cookie()), Network::Regtest)?;
    let error = wallet.sync(&lying).expect_err("another block");
    assert!(matches!(&error, WalletError::Chain(ChainError::Malformed { .. })), "{error}");
    assert_eq!((wallet.balance(), wallet.synced_to()), (balance, synced));
    wallet.sync(&rpc)?;
    assert_eq!(wallet.synced_to(), rpc.tip()?);
    Ok(())
}

/// Answers of a node's methods that are too long, too many or no heights.
#[test]
fn answers_without_end_or_sense_are_errors_that_name_their_method() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("wallet", 1)?;
    let ok = |result: &str| http("200 OK", &format!(r#"{{"result":{result},"error":null}}"#));
    let ids = |count: usize| {
        let ids = (0..count).map(|n| format!("\"{n:064x}\"")).collect::<Vec<_>>();
        format!("[{}]", ids.join(","))
    };
    let empty = "[".to_owned() + &"{},".repeat(10_000_000) + "{}]";
    for (method, answer, words) in [
        ("getblockchaininfo", ok(&empty), "more than 1048576 bytes"),
        ("getblockhash", ok(&empty), "more than 1048576 bytes"),
        ("getrawmempool", ok(&empty), "getrawmempool"),
        ("getblock", ok(&format!("\"{}\"", "00".repeat(5_000_000))), "more than 8001024 bytes"),
        ("getblockheader", http("200 OK", &format!("[{}]", vec!["{}"; 501].join(","))), "more than 500 entries"),
        (
            "getblockchaininfo",
            ok(r#"{"chain":"regtest","blocks":4000000000,"headers":1,"bestblockhash":"00"}"#),
            "4000000000",
        ),
        ("getrawtransaction", http("200 OK", &format!("[{}]", vec!["{}"; 17].join(","))), "more than 16 entries"),
    ] {
        world.bitcoind.mine(1)?;
        let named = format!("\"{method}\"");
        let listed = ids(20);
        let front = Front::new(node_of(&world)?, move |request| match request.contains(&named) {
            true => Some(answer.clone()),
            // There is something to ask for.
            false if request.contains("\"getrawmempool\"") => {
                Some(http("200 OK", &format!(r#"{{"result":{listed},"error":null}}"#)))
            }
            false => None,
        })?;
        let node = RpcNode::connect(&front.url(), Credentials::Cookie(world.bitcoind.cookie()), Network::Regtest);
        let error = match node {
            Ok(node) => wallet.sync(&node).expect_err(method).to_string(),
            Err(error) => error.to_string(),
        };
        ensure!(error.contains(words), "{method}: {error}");
        ensure!(error.chars().count() < 500, "{method}: {error}");
    }
    Ok(())
}

/// A wallet's histories from a server whose pages never end, or hold something else.
#[test]
fn a_history_without_end_is_an_error() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = regtest::EsploraServer::start(&world.bitcoind)?;
    let upstream: SocketAddr = server.url().trim_start_matches("http://").parse()?;
    let birthday = Esplora::connect(&server.url(), Network::Regtest, None)?.tip()?.height;
    let (mut wallet, _) = Wallet::create(&world.path("wallet"), Network::Regtest, birthday, None)?;
    let script = wallet.address()?.script_pubkey();
    // A transaction that pays the wallet, made up anew for each place on a page.
    let made_up = move |lock_time: u32| {
        let output = bitcoin::TxOut { value: bitcoin::Amount::from_sat(1_000), script_pubkey: script.clone() };
        let input = bitcoin::TxIn { sequence: bitcoin::Sequence::ZERO, ..Default::default() };
        let lock = bitcoin::absolute::LockTime::from_consensus(lock_time);
        let input = bitcoin::TxIn { previous_output: bitcoin::OutPoint::new(genesis_txid(), 7), ..input };
        let (input, output) = (vec![input], vec![output]);
        let tx = bitcoin::Transaction { version: bitcoin::transaction::Version::TWO, lock_time: lock, input, output };
        format!(
            r#"{{"txid":"{}","version":2,"locktime":{lock_time},"vin":[{{"txid":"{}","vout":7,"sequence":0}}],"vout":[{{"value":1000,"scriptpubkey":"{:x}"}}],"status":{{"confirmed":false}}}}"#,
            tx.compute_txid(),
            genesis_txid(),
            script
        )
    };
    let page = |from: u32, made_up: &dyn Fn(u32) -> String| {
        let txs: Vec<String> = (from..from + 25).map(made_up).collect();
        http("200 OK", &format!("[{}]", txs.join(",")))
    };
    let pages = AtomicUsize::new(0);
    let mine = made_up.clone();
    let endless = Front::new(upstream, move |request| {
        let next = || u32::try_from(pages.fetch_add(25, Ordering::SeqCst)).unwrap_or(0);
        request.contains("/scripthash/").then(|| page(next(), &mine))
    })?;
    let mine = made_up.clone();
    let again = Front::new(upstream, move |request| request.contains("/scripthash/").then(|| page(0, &mine)))?;
    let stranger = made_up(1).replace(r#""value":1000"#, r#""value":1001"#);
    let other = Front::new(upstream, move |request| {
        request.contains("/scripthash/").then(|| http("200 OK", &format!("[{stranger}]")))
    })?;
    for (front, words) in [(again, "without end"), (other, "another transaction"), (endless, "without end")] {
        let esplora = Esplora::connect(&front.url(), Network::Regtest, None)?;
        let error = wallet.sync(&esplora).expect_err(words);
        let is_odd = matches!(&error, WalletError::Chain(ChainError::Esplora(EsploraError::Malformed { .. })));
        ensure!(is_odd && error.to_string().contains(words), "{error}");
    }
    assert_eq!(wallet.balance().total(), bitcoin::Amount::ZERO, "nothing of it is kept");
    Ok(())
}

fn genesis_txid() -> bitcoin::Txid {
    bitcoin::constants::genesis_block(Network::Regtest).txdata[0].compute_txid()
}

#[test]
fn a_node_behind_tls_is_reached_if_its_authority_is_known_and_else_nothing_is_told_to_it() -> Result<()> {
    let world = World::new(WINDOW)?;
    let front = Front::over_tls(node_of(&world)?)?;
    let cookie = || Credentials::Cookie(world.bitcoind.cookie());
    let url = format!("https://{}", front.address);
    let authorities = Some(Authorities::from_pem(AUTHORITY.as_bytes()).context("a certificate")?);
    let transport = Transport { authorities, ..Transport::new(Patience::none()) };
    let node = RpcNode::connect_over(&url, cookie(), Network::Regtest, &transport)?;
    assert_eq!(node.tip()?, world.rpc()?.tip()?);

    // The Web's authorities did not sign it; and a node that speaks no TLS is told from one that does.
    let plain = world.bitcoind.rpc_url().replace("http://", "https://");
    for (url, words) in [(url.as_str(), "UnknownIssuer"), (plain.as_str(), "InvalidContentType")] {
        let error = RpcNode::connect(url, cookie(), Network::Regtest).expect_err(words);
        assert!(matches!(&error, ChainError::Tls { .. }) && !error.is_temporary(), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    std::fs::write(world.path("authority.pem"), AUTHORITY)?;
    let ca = world.path("authority.pem").display().to_string();
    let upper = url.replace("https", "HTTPS") + "/";
    let create = ["wallet", "create", "--bitcoin-ca", &ca];
    let created = world.sortie_on(&upper, &world.bitcoind.cookie(), &create)?.output()?;
    assert!(created.status.success(), "{}", said(&created));
    let refused = world.sortie_on(&upper, &world.bitcoind.cookie(), &["wallet", "create"])?.output()?;
    assert!(refused.status.code() == Some(3) && said(&refused).contains("tunnel"), "{}", said(&refused));
    Ok(())
}
