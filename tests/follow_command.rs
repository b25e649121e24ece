//! `sortie follow` as it is run: on a terminal, in a pipe, and where Bitcoin reorganised deeper than it can take back.

use crate::support::{Window, World, said};
use anyhow::{Context, Result, ensure};
use regtest::hostile::{Envelope, Miner};
use regtest::{Bitcoind, Proc};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use sortie::envelope::{Body, Carrier};
use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

const WINDOW: Window = Window { window: 6, max_lag: 4 };
const LIMIT: Duration = Duration::from_secs(60);

/// Mines a block with one item of this byte.
fn force(world: &World, byte: u8) -> Result<()> {
    let payload = world.payload(Body::Tx(vec![byte; 70]))?;
    world.bitcoind.mine_envelopes(&[Envelope { carrier: Carrier::OpReturn, payload }])?;
    Ok(())
}

/// The events of one kind among JSON lines.
fn events(output: &Output, kind: &str) -> Result<Vec<Value>> {
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut events = lines.map(serde_json::from_slice::<Value>).collect::<Result<Vec<_>, _>>()?;
    events.retain(|event| event["event"] == kind);
    Ok(events)
}

#[test]
fn a_reorganisation_as_deep_as_was_asked_for_is_taken_back_and_a_deeper_one_names_the_command_that_rebuilds()
-> Result<()> {
    const DEPTH: u32 = 20;
    let world = World::new(WINDOW)?;
    for byte in 0..4 {
        force(&world, byte)?;
    }
    world.bitcoind.mine(40)?;
    force(&world, 4)?;
    world.bitcoind.mine(DEPTH - 1)?;
    let follow = |more: &[&str]| -> Result<Output> {
        let common = ["--json", "--data-dir", "data", "--max-reorg-depth", "20", "follow", "--once"];
        Ok(world.sortie(&[&common[..], more].concat())?.output()?)
    };
    let first = follow(&[])?;
    ensure!(first.status.success(), "{}", said(&first));

    // The item's block is the last one that goes, and its transaction waits again.
    world.bitcoind.reorg(DEPTH)?;
    let taken_back = follow(&[])?;
    ensure!(taken_back.status.success(), "{}", said(&taken_back));
    assert_eq!(events(&taken_back, "reverted")?.len(), DEPTH as usize);

    world.bitcoind.reorg(DEPTH + 5)?;
    let deeper = follow(&[])?;
    assert_eq!(deeper.status.code(), Some(1), "{}", said(&deeper));
    let told = "Bitcoin reorganised below height 165, deeper than what was kept to take back (--max-reorg-depth)";
    assert!(said(&deeper).contains(told) && said(&deeper).contains("`sortie follow --rebuild`"), "{}", said(&deeper));
    // Whatever else is asked of it says the same.
    let root = ["--json", "--data-dir", "data", "--max-reorg-depth", "20", "queue", "root"];
    let refused = world.sortie(&root)?.output()?;
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("`sortie follow --rebuild`"), "{}", said(&refused));

    let rebuilt = follow(&["--rebuild"])?;
    ensure!(rebuilt.status.success(), "{}", said(&rebuilt));
    let root = world.sortie(&root)?.output()?;
    let clean = world.sortie(&["--json", "--data-dir", "clean", "queue", "root"])?.output()?;
    ensure!(clean.status.success(), "{}", said(&clean));
    assert_eq!(root.stdout, clean.stdout);
    Ok(())
}

/// What a command shows on a terminal of 100 columns: its stderr.
fn on_a_terminal(mut command: Command) -> Result<String> {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&terminal)?;
    unlockpt(&terminal)?;
    tcsetwinsize(&terminal, Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 })?;
    let screen = open(ptsname(&terminal, Vec::new())?, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
    let mut terminal = File::from(terminal);
    let reader = thread::spawn(move || {
        let mut shown = Vec::new();
        let mut chunk = [0; 4096];
        // Reading ends with an error once nobody has the other side.
        while let Ok(len @ 1..) = terminal.read(&mut chunk) {
            shown.extend_from_slice(&chunk[..len]);
        }
        String::from_utf8_lossy(&shown).into_owned()
    });
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(screen).status()?;
    // With its copy of the terminal.
    drop(command);
    let shown = reader.join().ok().context("the reader panicked")?;
    ensure!(status.success(), "{shown}");
    Ok(shown)
}

#[test]
fn far_behind_it_shows_rate_height_time_left_and_items_as_a_bar_on_a_terminal_and_as_lines_elsewhere() -> Result<()> {
    let world = World::new(WINDOW)?;
    for byte in 0..5 {
        force(&world, byte)?;
    }
    world.bitcoind.mine(1_500)?;
    let tip = world.bitcoind.height()?.to_string();
    let shown = on_a_terminal(world.sortie(&["--data-dir", "terminal", "queue", "root"])?)?;
    // How much is left, also where most of the chain is below the rollup's start.
    assert!(shown.contains("░░░░░░░░░░ block 1"), "{shown}");
    let bars: Vec<_> = shown.split(['\r', '\n']).filter(|line| line.contains("blocks/s")).collect();
    let bar = bars.last().context(format!("no bar: {shown}"))?;
    for part in [&format!("of {tip}, "), " blocks/s, ", " left, ", "5 items"] {
        assert!(bar.contains(part), "no {part:?}: {bar}");
    }
    assert!(shown.contains("reading Bitcoin blocks 121 to"), "{shown}");
    // It is wiped away at the end.
    let end = shown.rsplit("blocks/s").next().context("an end")?;
    assert!(end.contains("\u{1b}[2K"), "{end:?}");

    let piped = world.sortie(&["--data-dir", "pipe", "queue", "root"])?.output()?;
    let lines = said(&piped);
    assert!(!lines.contains('\u{1b}') && !lines.contains('\r'), "{lines:?}");
    let line = lines.lines().find(|line| line.contains("blocks/s")).context(format!("no line: {lines}"))?;
    for part in [&format!("at Bitcoin block {tip} of {tip}, "), " MB/s, ", " left, ", "5 items"] {
        assert!(line.contains(part), "no {part:?}: {line}");
    }
    let json = world.sortie(&["--json", "--data-dir", "json", "queue", "root"])?.output()?;
    let progress = said(&json).lines().find(|line| line.contains("\"progress\"")).map(str::to_owned);
    let progress: Value = serde_json::from_str(&progress.context(said(&json))?)?;
    let progress = &progress["progress"];
    assert_eq!((progress["height"].to_string(), &progress["items"]), (tip, &Value::from(5)));
    for field in ["target", "blocks_per_s", "bytes_per_s", "eta_s"] {
        assert!(progress[field].is_u64(), "{field}: {progress}");
    }
    let quiet = world.sortie(&["-q", "--data-dir", "quiet", "queue", "root"])?.output()?;
    assert_eq!(said(&quiet), "");
    Ok(())
}

#[test]
fn reorganised_while_it_was_far_behind_its_bar_begins_lower() -> Result<()> {
    let world = World::new(WINDOW)?;
    world.bitcoind.mine(20)?;
    let first = world.sortie(&["--data-dir", "terminal", "follow", "--once"])?.output()?;
    ensure!(first.status.success(), "{}", said(&first));
    // However little there is to read.
    let told = "reading Bitcoin blocks from REST at";
    assert!(said(&first).contains(told) && said(&first).contains("(the node serves REST)"), "{}", said(&first));
    world.bitcoind.reorg(10)?;
    world.bitcoind.mine(300)?;
    let shown = on_a_terminal(world.sortie(&["--data-dir", "terminal", "follow", "--once"])?)?;
    assert!(shown.contains(" blocks/s, ") && !shown.contains("panicked"), "{shown}");
    Ok(())
}

#[test]
fn told_to_end_at_a_height_that_it_has_it_first_takes_back_what_left_the_chain() -> Result<()> {
    let world = World::new(WINDOW)?;
    world.bitcoind.mine(10)?;
    let height = world.bitcoind.height()?;
    let until = height.to_string();
    for reorg in [0, 3, 1] {
        if reorg > 0 {
            world.bitcoind.reorg(reorg)?;
        }
        let output = world.sortie(&["--json", "follow", "--until-height", &until])?.output()?;
        ensure!(output.status.success(), "{}", said(&output));
        let heads = events(&output, "heads")?.pop().context("heads")?;
        assert_eq!(heads["bitcoin"]["hash"], world.bitcoind.block_hash(height)?.to_string(), "{reorg}");
    }
    Ok(())
}

#[test]
fn what_was_derived_is_only_forgotten_once_it_can_be_derived_again() -> Result<()> {
    let world = World::new(WINDOW)?;
    force(&world, 1)?;
    let root = world.sortie(&["--json", "queue", "root"])?.output()?;
    ensure!(root.status.success(), "{}", said(&root));
    let nowhere = "http://127.0.0.1:1";
    for command in [&["follow", "--once", "--rebuild"][..], &["sequencer", "--rebuild", "--key", "key"]] {
        let failed = world.sortie_on(nowhere, &world.bitcoind.cookie(), command)?.output()?;
        assert!(!failed.status.success());
    }
    let down = world.sortie_on(nowhere, &world.bitcoind.cookie(), &["--json", "queue", "root"])?.output()?;
    ensure!(down.status.success(), "{}", said(&down));
    assert_eq!(down.stdout, root.stdout);
    let told = format!("what is told here is as of Bitcoin block {}", world.bitcoind.height()?);
    assert!(said(&down).contains("connection refused") && said(&down).contains(&told), "{}", said(&down));
    // Where nothing was derived there is nothing to tell.
    let nothing = ["--data-dir", "nothing", "queue", "root"];
    let nothing = world.sortie_on(nowhere, &world.bitcoind.cookie(), &nothing)?.output()?;
    assert_eq!(nothing.status.code(), Some(3), "{}", said(&nothing));
    Ok(())
}

#[test]
fn a_damaged_file_is_named_with_the_command_that_makes_it_anew() -> Result<()> {
    let world = World::new(WINDOW)?;
    let first = world.sortie(&["follow", "--once"])?.output()?;
    ensure!(first.status.success(), "{}", said(&first));
    let id = world.manifest.rollup_id().to_string();
    let file = world.path(&format!("data/regtest/rollups/{}/node.sqlite", &id[..16]));
    let whole = fs::read(&file)?;
    for (name, bytes) in [("garbage", vec![7; whole.len()]), ("cut off", whole[..whole.len() / 2].to_vec())] {
        fs::write(&file, bytes)?;
        let failed = world.sortie(&["follow", "--once"])?.output()?;
        assert_eq!(failed.status.code(), Some(1), "{name}: {}", said(&failed));
        assert!(said(&failed).contains("node.sqlite: the node's database"), "{name}: {}", said(&failed));
        assert!(said(&failed).contains("`sortie follow --rebuild`"), "{name}: {}", said(&failed));
    }
    let rebuilt = world.sortie(&["follow", "--once", "--rebuild"])?.output()?;
    ensure!(rebuilt.status.success(), "{}", said(&rebuilt));
    Ok(())
}

#[test]
fn what_cannot_be_meant_is_refused_as_usage() -> Result<()> {
    let world = World::new(WINDOW)?;
    for (arguments, words) in [
        (&["--max-reorg-depth", "4294967295", "follow", "--once"][..], "not in 1..=100000"),
        (&["scan", "--from", "2000000000"], "above Bitcoin's tip, block 120"),
        (&["scan", "--from", "4294967295"], "above Bitcoin's tip, block 120"),
    ] {
        let refused = world.sortie(arguments)?.output()?;
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        assert!(said(&refused).contains(words), "{}", said(&refused));
    }
    Ok(())
}

#[test]
fn while_a_node_does_not_answer_the_first_ctrl_c_says_that_the_second_ends_it() -> Result<()> {
    let world = World::new(WINDOW)?;
    // It takes connections, and nobody reads them.
    let hung = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", hung.local_addr()?);
    let mut follower = Proc::spawn(&mut world.sortie_on(&url, &world.bitcoind.cookie(), &["follow"])?)?;
    let (_asking, _) = hung.accept()?;
    follower.terminate()?;
    follower.wait_line("what to do", LIMIT, |line| line.contains("again to end at once"))?;
    follower.terminate()?;
    assert_eq!(follower.wait_exit(LIMIT)?.code(), Some(130));
    Ok(())
}

#[test]
fn a_node_that_does_not_show_its_mempool_is_followed_and_that_is_told_once() -> Result<()> {
    let mut world = World::new(WINDOW)?;
    let methods = "getblockchaininfo,getnetworkinfo,getblockhash,getblockheader,getblock,waitfornewblock";
    world.bitcoind = Bitcoind::options()
        // HMAC-SHA256 of `password` under this salt.
        .arg("-rpcauth=limited:00112233445566778899aabbccddeeff$7435e603f10e091bd39f148d95c2c3f21ecca2488ae14c1e012557949089d628")
        .arg(format!("-rpcwhitelist=limited:{methods}"))
        .arg("-rpcwhitelistdefault=0")
        .start()?;
    world.bitcoind.mine(120)?;
    world.start_here()?;
    let cookie = world.path("cookie");
    fs::write(&cookie, "limited:password")?;
    let mut follower = Proc::spawn(&mut world.sortie_on(&world.bitcoind.rpc_url(), &cookie, &["--json", "follow"])?)?;
    follower.wait_line("a warning", LIMIT, |line| line.contains("what waits in the mempool is not told"))?;
    for _ in 0..2 {
        world.bitcoind.mine(1)?;
        let tip = world.bitcoind.tip()?.to_string();
        follower.wait_line("the block", LIMIT, |line| line.contains("\"heads\"") && line.contains(&tip))?;
    }
    let warnings = follower.stderr().into_iter().filter(|line| line.contains("warning")).collect::<Vec<_>>();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    Ok(())
}
