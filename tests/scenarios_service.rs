//! Scenario 50: the services as programs meet them. The sequencer's HTTP under everything that may be sent
//! to it, and the follower's process behind a Bitcoin node that fails.

use crate::support::{Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use regtest::hostile::{Alteration, Fault, HostileSource, RpcFront};
use serde_json::Value;
use sortie::chain::{BlockSource, RpcNode};
use sortie::envelope::Carrier;
use sortie::primitives::sha256;
use sortie::sequencer::{MAX_TX_LEN, serve};
use std::fs;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use ureq::Agent;

const WINDOW: Window = Window { window: 8, max_lag: 4 };

/// Runs `client` against a sequencer's server, which ends with it.
fn with_server(world: &World, client: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let operator = world.sequencer(&[&world.bob])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let server = runtime.spawn(serve(operator.sequencer, listener, stopped, |_| (), |_| ()));
    let outcome = client(&url);
    drop(stop);
    runtime.block_on(server)??;
    outcome
}

fn agent() -> Agent {
    let config = Agent::config_builder().timeout_global(Some(Duration::from_secs(20))).http_status_as_error(false);
    // The server closes a connection on which it refused a body unread; the next request must not meet that.
    config.max_idle_connections(0).build().new_agent()
}

/// Sends a request; gives the status and the answer, which is JSON if there is any.
fn ask(agent: &Agent, method: &str, url: &str, body: &[u8]) -> Result<(u16, Value)> {
    let mut response = match method {
        "GET" => agent.get(url).call()?,
        "PUT" => agent.put(url).send(body)?,
        _ => agent.post(url).send(body)?,
    };
    let text = response.body_mut().read_to_string()?;
    Ok((response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

#[test]
fn whatever_is_sent_to_the_sequencer_is_answered_and_only_transactions_are_taken_in() -> Result<()> {
    let world = World::new(WINDOW)?;
    with_server(&world, |url| {
        let agent = agent();
        let tx = world.transfer(&world.alice, &world.bob, 1, 0);
        let hex = tx.to_lower_hex_string();
        let denied = world.transfer(&world.bob, &world.alice, 1, 0).to_lower_hex_string();
        let longest = vec![7; MAX_TX_LEN].to_lower_hex_string();
        let longer = vec![7; MAX_TX_LEN + 1].to_lower_hex_string();
        let far_longer = vec![b'0'; 4 * MAX_TX_LEN];
        let unknown = "00".repeat(32);
        let table: [(&str, &str, &str, &[u8], u16); 21] = [
            ("a transaction", "POST", "/v1/tx", hex.as_bytes(), 202),
            ("the same again", "POST", "/v1/tx", hex.as_bytes(), 202),
            ("with white space around it", "POST", "/v1/tx", &[b" ", hex.as_bytes(), b"\n"].concat(), 202),
            ("the longest, which is none", "POST", "/v1/tx", longest.as_bytes(), 400),
            ("one byte more", "POST", "/v1/tx", longer.as_bytes(), 413),
            ("more than is read", "POST", "/v1/tx", &far_longer, 413),
            ("no byte", "POST", "/v1/tx", b"", 400),
            ("white space only", "POST", "/v1/tx", b" \n", 400),
            ("odd hexadecimal", "POST", "/v1/tx", b"abc", 400),
            ("not hexadecimal", "POST", "/v1/tx", b"zz", 400),
            ("JSON", "POST", "/v1/tx", b"{\"tx\":\"00\"}", 400),
            ("not text", "POST", "/v1/tx", &[0xff, 0xfe], 400),
            ("of a denied sender", "POST", "/v1/tx", denied.as_bytes(), 403),
            ("another method", "PUT", "/v1/tx", hex.as_bytes(), 405),
            ("no such path", "GET", "/v1/unknown", b"", 404),
            ("no such path either", "POST", "/", hex.as_bytes(), 404),
            ("not a hash", "GET", "/v1/tx/zz", b"", 400),
            ("a hash that nobody sent", "GET", &format!("/v1/tx/{unknown}"), b"", 404),
            ("not a number", "GET", "/v1/block/x", b"", 400),
            ("a number of 65 bits", "GET", "/v1/block/18446744073709551616", b"", 400),
            ("a block that nobody made", "GET", "/v1/block/9223372036854775807", b"", 404),
        ];
        for (what, method, path, body, expected) in table {
            let (status, answer) = ask(&agent, method, &format!("{url}{path}"), body)?;
            assert_eq!(status, expected, "{what}: {answer}");
            assert!(expected != 202 || answer["tx_hash"].is_string(), "{what}: {answer}");
        }
        let (status, answer) = ask(&agent, "GET", &format!("{url}/v1/tx/{}", sha256(&tx)), b"")?;
        assert_eq!(status, 200, "{answer}");
        let (status, answer) = ask(&agent, "GET", &format!("{url}/v1/status"), b"")?;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["rollup_id"], world.manifest.rollup_id().to_string());
        Ok(())
    })
}

#[test]
fn a_block_number_that_no_store_can_hold_is_one_that_nobody_made() -> Result<()> {
    let world = World::new(WINDOW)?;
    with_server(&world, |url| {
        for number in [1u64 << 63, u64::MAX] {
            let (status, answer) = ask(&agent(), "GET", &format!("{url}/v1/block/{number}"), b"")?;
            assert_eq!(status, 404, "block {number}: {answer}");
        }
        Ok(())
    })
}

// Concurrent requests, and connections that say nothing, stop in the middle, or go away.
#[test]
fn many_callers_at_once_lose_no_transaction_and_a_rude_one_holds_up_nobody() -> Result<()> {
    const CALLERS: u64 = 8;
    const EACH: u64 = 10;
    let world = World::new(WINDOW)?;
    with_server(&world, |url| {
        let address = url.trim_start_matches("http://");
        let mut rude = Vec::new();
        for words in [&b""[..], b"POST /v1/tx HT", b"POST /v1/tx HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n00"]
        {
            let mut connection = std::net::TcpStream::connect(address)?;
            std::io::Write::write_all(&mut connection, words)?;
            rude.push(connection);
        }
        let send = |caller: u64| -> Result<()> {
            let agent = agent();
            for number in 0..EACH {
                // Of no account's next nonce but one: taken in all the same, and judged later.
                let tx = world.transfer(&world.alice, &world.bob, 1, caller * EACH + number);
                let (status, answer) =
                    ask(&agent, "POST", &format!("{url}/v1/tx"), tx.to_lower_hex_string().as_bytes())?;
                ensure!(status == 202, "{answer}");
                let (status, answer) = ask(&agent, "GET", &format!("{url}/v1/tx/{}", sha256(&tx)), b"")?;
                ensure!(status == 200, "{answer}");
            }
            Ok(())
        };
        let send = &send;
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS).map(|caller| scope.spawn(move || send(caller))).collect();
            callers.into_iter().try_for_each(|caller| caller.join().expect("no caller panics"))
        })?;
        drop(rude);
        let (status, _) = ask(&agent(), "GET", &format!("{url}/v1/status"), b"")?;
        assert_eq!(status, 200);
        Ok(())
    })
}

fn follow(world: &World, url: &str) -> Result<Output> {
    let manifest = world.path("rollup.toml");
    fs::write(&manifest, world.manifest.to_toml())?;
    let output = Command::new(env!("CARGO_BIN_EXE_sortie"))
        .args(["--json", "--network", "regtest", "--bitcoin-url", url, "--manifest"])
        .arg(&manifest)
        .arg("--data-dir")
        .arg(world.path("data"))
        .arg("--bitcoin-cookie")
        .arg(world.bitcoind.cookie())
        // The RPC of a node of one's own is believed to hide nothing; this one is another's.
        .args(["--verify-all-blocks", "--source", "rpc", "follow", "--once"])
        .current_dir(world.dir.path())
        .output()?;
    Ok(output)
}

/// The derived head that the last line tells.
fn safe_head(output: &Output) -> Result<Value> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout.clone())?;
    let line: Value = serde_json::from_str(told.lines().last().context("a line")?)?;
    Ok(line["safe"].clone())
}

// Scenario 50, DA down, invalid answers, start and stop; 46 for the program as it is run.
#[test]
fn the_follower_as_a_process_refuses_a_lying_node_and_goes_on_where_it_was() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 1)?;
    let hostile: Arc<HostileSource<'static, RpcNode>> = Arc::new(HostileSource::new(world.rpc()?));
    let front = RpcFront::start(Arc::clone(&hostile), &world.bitcoind)?;
    assert!(safe_head(&follow(&world, &front.url())?)?["number"].is_u64());
    world.force(&mut wallet, &[world.transfer(&world.alice, &world.bob, 5, 0)], Carrier::OpReturn)?;
    world.bitcoind.mine(1)?;
    let at = hostile.inner().tip()?.height;
    world.bitcoind.mine(u32::from(WINDOW.window) + 1)?;
    let faults = [
        (Fault::TimeOut, 3, "bitcoind at"),
        (Fault::WarmingUp, 3, "still starting"),
        (Fault::Altered(at, Alteration::HiddenOutputs), 1, "damaged block"),
        (Fault::Gap(at), 1, "no block at height"),
        (Fault::Lost(at), 1, "does not know block"),
        (Fault::Pruned(at), 1, "pruned"),
    ];
    for (fault, code, words) in faults {
        hostile.give(fault);
        let output = follow(&world, &front.url())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{fault:?}: {said}");
        assert!(said.contains(words), "{fault:?}: {said}");
        hostile.heal();
    }
    let safe = safe_head(&follow(&world, &front.url())?)?;
    let mut follower = world.follower("follower")?;
    let expected = follower.safe()?;
    assert_eq!(safe["hash"], expected.head.hash.to_string(), "{safe}");
    assert_eq!(safe["state_root"], expected.state_root.to_string(), "{safe}");
    assert_eq!(follower.holding(&world.alice).nonce, 1);
    Ok(())
}
