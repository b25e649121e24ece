//! The sequencer under more than it is made for: each limit, made small, with a clock that the test turns.

use crate::support::{Operator, Window, World, hostile_paper};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::p2p::Magic;
use regtest::hostile::PaperBitcoin;
use regtest::wait_until;
use sortie::api::wire::TxStatus;
use sortie::chain::BlockSource;
use sortie::follower::{DataDir, Follower, FollowerError, MIN_START_DEPTH};
use sortie::manifest::{Fields, Manifest};
use sortie::primitives::sha256;
use sortie::sequencer::{Done, Limits, Rate, Refusal, serve};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use ureq::Agent;

const WINDOW: Window = Window { window: 12, max_lag: 6 };
const LONG: Duration = Duration::from_secs(3_600);
const LIMIT: Duration = Duration::from_secs(30);

/// Nothing of what a test does not look at.
fn wide() -> Limits {
    Limits { idle: LONG, request: LONG, farewell: Duration::from_millis(50), ..Limits::default() }
}

/// A sequencer with these limits, of a rollup of its own, and its clock in seconds.
fn operator(world: &mut World, name: &str, limits: Limits) -> Result<(Operator, Arc<AtomicU64>)> {
    world.bitcoind.mine(1)?;
    world.start_here()?;
    let clock = Arc::new(AtomicU64::new(0));
    let shown = Arc::clone(&clock);
    let operator = world.sequencer_on(&format!("{name}-"), &format!("{name}.key"), |policy| {
        policy.limits = limits;
        policy.clock = Arc::new(move || Duration::from_secs(shown.load(Ordering::SeqCst)));
    })?;
    Ok((operator, clock))
}

/// Runs `client` against the server of a sequencer; the server has to end.
fn with_server<T>(operator: Operator, client: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?.to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = runtime.spawn(serve(operator.sequencer, listener, async { drop(stopped.await) }, |_| (), |_| ()));
    let outcome = client(&address);
    drop(stop);
    runtime.block_on(async { tokio::time::timeout(LIMIT, server).await }).context("it ends")???;
    outcome
}

/// Posts a body; gives the status and the header `Retry-After`.
fn post(address: &str, body: &str) -> Result<(u16, Option<String>)> {
    let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(LIMIT)).build();
    let mut response = config.new_agent().post(format!("http://{address}/v1/tx")).send(body)?;
    let come_back = response.headers().get("retry-after").map(|time| time.to_str().map(str::to_owned)).transpose()?;
    let answer: serde_json::Value = response.body_mut().read_json()?;
    ensure!(response.status().is_success() || answer["error"].is_string(), "{answer}");
    Ok((response.status().as_u16(), come_back))
}

/// Waits until the server has closed a connection; gives what it had answered.
fn closed(mut connection: &TcpStream) -> Result<String> {
    let mut answer = Vec::new();
    connection.set_read_timeout(Some(LIMIT))?;
    match connection.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

fn number(operator: &Operator, tx: &[u8]) -> Result<Option<u64>> {
    Ok(match operator.submit.status(&sha256(tx))? {
        Some(TxStatus::Included { number, .. }) => Some(number),
        _ => None,
    })
}

#[test]
fn each_client_has_a_rate_and_a_stranger_s_junk_uses_up_nobody_else_s() -> Result<()> {
    let mut world = World::new(WINDOW)?;
    let few = Rate { burst: 2, per_second: 1 };
    let (sequencer, clock) =
        operator(&mut world, "rates", Limits { sender: few, refused: few, questions: few, ..wide() })?;
    let submit = sequencer.submit.clone();
    let of_alice = |nonce| world.transfer(&world.alice, &world.bob, 1, nonce);
    with_server(sequencer, |address| {
        for expected in [400, 400, 429, 429] {
            let (status, come_back) = post(address, "00")?;
            assert_eq!((status, come_back.is_some()), (expected, expected == 429));
        }
        for nonce in 0..2 {
            assert_eq!(post(address, &of_alice(nonce).to_lower_hex_string())?.0, 202, "from the same address");
        }
        assert_eq!(post(address, &of_alice(2).to_lower_hex_string())?, (429, Some("1".into())));
        let of_bob = world.transfer(&world.bob, &world.alice, 1, 0);
        assert_eq!(post(address, &of_bob.to_lower_hex_string())?.0, 202, "another sender");
        let ask = || -> Result<u16> {
            let config = Agent::config_builder().http_status_as_error(false).build();
            Ok(config.new_agent().get(format!("http://{address}/v1/status")).call()?.status().as_u16())
        };
        assert_eq!([ask()?, ask()?, ask()?], [200, 200, 429]);
        clock.store(1, Ordering::SeqCst);
        assert_eq!((ask()?, ask()?), (200, 429), "one a second");
        assert!(submit.submit(&of_alice(2)).is_ok());
        assert!(matches!(submit.submit(&of_alice(3)), Err(Refusal::TooMany(_))));
        Ok(())
    })
}

#[test]
fn what_is_too_long_or_too_much_or_never_ends_is_ended_and_the_next_one_is_served() -> Result<()> {
    let mut world = World::new(WINDOW)?;
    let mut serve_with = |name: &str, limits: Limits, client: &dyn Fn(&str, &str) -> Result<()>| -> Result<()> {
        let operator = operator(&mut world, name, limits)?.0;
        let tx = world.transfer(&world.alice, &world.bob, 1, 0).to_lower_hex_string();
        with_server(operator, |address| client(address, &tx))
    };

    serve_with("body", Limits { tx_len: 160, ..wide() }, &|address, tx| {
        assert_eq!(post(address, &"00".repeat(161))?.0, 413, "one byte more than a transaction may have");
        assert_eq!(post(address, tx)?.0, 202);
        Ok(())
    })?;
    serve_with("time", Limits { request: Duration::from_millis(100), ..wide() }, &|address, _| {
        let mut endless = TcpStream::connect(address)?;
        endless.write_all(b"POST /v1/tx HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\n00")?;
        assert!(closed(&endless)?.starts_with("HTTP/1.1 408 "));
        Ok(())
    })?;
    serve_with("idle", Limits { idle: Duration::from_millis(100), ..wide() }, &|address, _| {
        let silent = TcpStream::connect(address)?;
        assert_eq!(closed(&silent)?, "");
        let mut slow = TcpStream::connect(address)?;
        slow.write_all(b"POST /v1/tx HTTP/1.1\r\nHost: x\r\n")?;
        assert_eq!(closed(&slow)?, "", "a head that does not come to its end");
        let mut answered = TcpStream::connect(address)?;
        answered.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")?;
        assert!(closed(&answered)?.starts_with("HTTP/1.1 200 "), "kept open, but not for ever");
        Ok(())
    })?;
    let few = Limits { connections: 3, connections_per_address: 2, ..wide() };
    serve_with("connections", few, &|address, tx| {
        let held: Vec<_> = (0..5).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
        for first in &held[..3] {
            assert_eq!(closed(first)?, "", "it gives way");
        }
        assert_eq!(post(address, tx)?.0, 202, "whoever comes is served");
        Ok(())
    })?;
    // The server ends, though this one has all the time of the world.
    let operator = operator(&mut world, "farewell", wide())?.0;
    let endless = with_server(operator, |address| {
        let mut endless = TcpStream::connect(address)?;
        endless.write_all(b"POST /v1/tx HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")?;
        // "HTTP/1.1 100 Continue": the body is waited for.
        endless.read_exact(&mut [0; 25])?;
        Ok(endless)
    })?;
    drop(endless);
    Ok(())
}

#[test]
fn no_more_is_promised_than_will_reach_bitcoin() -> Result<()> {
    let mut world = World::new(WINDOW)?;
    let len = world.transfer(&world.alice, &world.bob, 1, 0).len();

    let (full, _) = operator(&mut world, "pool", Limits { pool: 2, ..wide() })?;
    let txs = transfers(&world, 3);
    full.send(&txs[0])?;
    full.send(&txs[1])?;
    assert!(matches!(full.submit.submit(&txs[2]), Err(Refusal::PoolFull(2))));
    drop(full);

    // A block holds one, and a batch one block.
    let small = Limits { block_bytes: len, batch_bytes: len + 20, ..wide() };
    let (mut operator_of_small, _) = operator(&mut world, "blocks", small)?;
    let txs = transfers(&world, 3);
    txs.iter().try_for_each(|tx| operator_of_small.send(tx).map(drop))?;
    let mut batches = Vec::new();
    for second in 0..8 {
        for done in operator_of_small.tick_well()? {
            if let Done::Posted { blocks: (first, last), .. } = done {
                batches.push(first..=last);
            }
        }
        if second < 3 {
            assert_eq!(held(&operator_of_small, &txs)?, second + 1, "one a second");
        } else {
            world.bitcoind.mine(1)?;
        }
    }
    let batch_of = |tx: &Vec<u8>| -> Result<Option<usize>> {
        let number = number(&operator_of_small, tx)?.context("in a block")?;
        Ok(batches.iter().position(|blocks| blocks.contains(&number)))
    };
    let held_by = txs.iter().map(batch_of).collect::<Result<Vec<_>>>()?;
    assert_eq!(held_by, [Some(0), Some(1), Some(2)], "one in each batch: {batches:?}");
    drop(operator_of_small);

    for (name, limits, most) in [
        ("bytes", Limits { promised_bytes: 2 * len - 1, ..wide() }, 2),
        ("soft-blocks", Limits { promised_blocks: 2, ..wide() }, 3),
        // The whole of max_lag: nothing may be promised above what is not on Bitcoin.
        ("margin", Limits { posting_margin: 1, ..wide() }, 1),
    ] {
        promises_at_most(&mut world, name, limits, most).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn transfers(world: &World, count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|nonce| world.transfer(&world.alice, &world.bob, 1, nonce)).collect()
}

/// How many of them are in blocks.
fn held(operator: &Operator, txs: &[Vec<u8>]) -> Result<usize> {
    let numbers = txs.iter().map(|tx| number(operator, tx)).collect::<Result<Vec<_>>>()?;
    Ok(numbers.into_iter().flatten().count())
}

/// Sends transactions one a second while Bitcoin stands still: so many get into blocks, and the next once those are
/// derived.
fn promises_at_most(world: &mut World, name: &str, limits: Limits, most: usize) -> Result<()> {
    let (mut operator, _) = operator(world, name, limits)?;
    let txs = transfers(world, most as u64 + 1);
    for tx in &txs {
        operator.send(tx)?;
        operator.tick()?;
    }
    operator.tick()?;
    ensure!(held(&operator, &txs)? == most, "{} are in blocks", held(&operator, &txs)?);
    ensure!(!operator.status().accepting, "it says so");
    wait_until("the rest to get in", LIMIT, || {
        world.bitcoind.mine(1)?;
        operator.tick()?;
        Ok((held(&operator, &txs)? == txs.len()).then_some(()))
    })
}

#[test]
fn a_start_that_may_still_be_reorganised_away_is_waited_for() -> Result<()> {
    let bitcoin = PaperBitcoin::new(hostile_paper::START);
    let fields = Fields { network: Magic::SIGNET, ..(*hostile_paper::manifest(bitcoin.tip()?)?).clone() };
    let manifest = Manifest::new(fields)?;
    let dir = tempfile::tempdir()?;
    for depth in 1..MIN_START_DEPTH {
        if depth == 1 || depth == MIN_START_DEPTH - 1 {
            let refused = Follower::open(&DataDir::new(dir.path().join("node"), manifest.clone()), &bitcoin).err();
            assert!(
                matches!(refused, Some(FollowerError::StartTooShallow { depth: told }) if told == depth),
                "{refused:?}"
            );
        }
        bitcoin.mine_empty(1);
    }
    Follower::open(&DataDir::new(dir.path().join("node"), manifest), &bitcoin)?;
    Ok(())
}
