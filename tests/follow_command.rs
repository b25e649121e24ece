//! `sortie follow` as it is run: on a terminal, in a pipe, and where Bitcoin reorganised deeper than it can take back.

use crate::support::{Window, World, said};
use anyhow::{Context, Result, ensure};
use regtest::hostile::{Envelope, Miner};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use sortie::envelope::{Body, Carrier};
use std::fs::File;
use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::thread;

const WINDOW: Window = Window { window: 6, max_lag: 4 };

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
    let told = "Bitcoin reorganised deeper than 20 blocks";
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
