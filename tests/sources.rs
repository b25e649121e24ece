//! One chain by every way to a real bitcoind's blocks: RPC, REST, its files, an Esplora server; and what goes wrong
//! with a node.

use crate::support::{Window, World, said};
use anyhow::{Context, Result, ensure};
use bitcoin::Network;
use bitcoin::hex::DisplayHex;
use regtest::hostile::{Alteration, Envelope, Fault, HostileSource, LyingReader, Miner};
use regtest::{Bitcoind, EsploraServer, Proc};
use serde_json::Value;
use sortie::chain::{BlkFiles, BlockReader, BlockSource, ChainError, Esplora, RestNode};
use sortie::envelope::{Body, Carrier};
use sortie::follower::{ChainEvent, DataDir, Follower, FollowerError};
use sortie::primitives::Hash32;
use sortie::scanner::{MAX_HEADERS, ScanError, Scanner};
use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const WINDOW: Window = Window { window: 6, max_lag: 4 };

fn blocks_dir(bitcoind: &Bitcoind) -> PathBuf {
    bitcoind.datadir().join("regtest/blocks")
}

fn rest(world: &World) -> Result<Box<dyn BlockReader>> {
    Ok(Box::new(RestNode::connect(&world.bitcoind.rpc_url(), Network::Regtest)?))
}

fn blk(world: &World) -> Result<Box<dyn BlockReader>> {
    Ok(Box::new(BlkFiles::open(&blocks_dir(&world.bitcoind), Network::Regtest)?))
}

/// Blocks with envelopes of both carriers, blocks with none, and a branch that lost.
fn live(world: &World) -> Result<()> {
    for round in 0..6u8 {
        let envelope = |carrier, byte: u8| -> Result<Envelope> {
            Ok(Envelope { carrier, payload: world.payload(Body::Tx(vec![byte; 70]))? })
        };
        let both = [envelope(Carrier::OpReturn, round)?, envelope(Carrier::Taproot, round + 100)?];
        world.bitcoind.mine_envelopes(&both)?;
        world.bitcoind.mine(3)?;
        if round % 3 == 1 {
            world.bitcoind.reorg(5)?;
        }
    }
    Ok(())
}

/// Bitcoin's tip, the queue's size and root, the L2 head and the state after it.
#[derive(Debug, PartialEq, Eq)]
struct Digest(bitcoin::BlockHash, u64, Hash32, Hash32, Hash32);

fn digest(node: &Follower) -> Result<Digest> {
    let tip = node.derivation().tip();
    let safe = node.heads(1)?.safe;
    Ok(Digest(tip.block.hash, tip.queue_size, tip.queue_root, safe.head.hash, safe.state_root))
}

#[test]
fn every_way_to_the_same_chain_gives_the_same_digest() -> Result<()> {
    let world = World::new(WINDOW)?;
    live(&world)?;
    let rpc = world.rpc()?;
    let expected = digest(&world.follower("expected")?.node)?;
    ensure!(expected.1 >= 8, "only {} items", expected.1);
    let ways: [(&str, Vec<Box<dyn BlockReader>>); 4] = [
        ("rpc", Vec::new()),
        ("rest", vec![rest(&world)?]),
        ("blk", vec![blk(&world)?]),
        ("blk, then rest", vec![blk(&world)?, rest(&world)?]),
    ];
    for (name, readers) in &ways {
        for verify_all in [false, true] {
            let scanner = Scanner::from(&rpc).readers(readers).verify_all_blocks(verify_all);
            let mut node = Follower::open(
                &DataDir::new(world.path(&format!("{name}-{verify_all}")), world.manifest.clone()),
                &rpc,
            )?;
            let mut refused = Vec::new();
            node.sync(scanner, |event| {
                if let ChainEvent::Applied(applied) = event {
                    refused.extend(applied.refused.clone());
                }
            })?;
            assert_eq!(digest(&node)?, expected, "{name}, all blocks verified: {verify_all}");
            assert_eq!(refused, [], "{name}");
        }
    }

    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    let mut node = Follower::open(&DataDir::new(world.path("esplora"), world.manifest.clone()), &esplora)?;
    node.sync(&esplora, |_| ())?;
    assert_eq!(digest(&node)?, expected, "Esplora");

    // As they are with a liar in each place, and an honest source behind it.
    for alteration in Alteration::ALL {
        let liars: [Box<dyn BlockReader>; 2] = [
            Box::new(LyingReader::new(BlkFiles::open(&blocks_dir(&world.bitcoind), Network::Regtest)?, *alteration)),
            Box::new(LyingReader::new(RestNode::connect(&world.bitcoind.rpc_url(), Network::Regtest)?, *alteration)),
        ];
        let path = world.path(&format!("{alteration:?}"));
        let mut node = Follower::open(&DataDir::new(path, world.manifest.clone()), &rpc)?;
        node.sync(Scanner::from(&rpc).readers(&liars).verify_all_blocks(true), |_| ())?;
        assert_eq!(digest(&node)?, expected, "{alteration:?}");
    }
    Ok(())
}

/// A source that alters a block in every way there is: each is refused, and the true block taken in the end.
fn altered(world: &World, name: &str, source: impl BlockSource) -> Result<()> {
    let at = world.bitcoind.height()? - 3;
    let hostile = HostileSource::new(source);
    let mut node = Follower::open(&DataDir::new(world.path(name), world.manifest.clone()), &hostile)?;
    for alteration in Alteration::ALL {
        hostile.give(Fault::Altered(at, *alteration));
        let error =
            node.sync(&hostile, |_| ()).err().with_context(|| format!("{name}: {alteration:?} was believed"))?;
        let refused = matches!(error, FollowerError::Scan(ScanError::BadBlock { .. } | ScanError::OtherBlock { .. }));
        assert!(refused && error.is_temporary(), "{name}, {alteration:?}: {error}");
        assert_eq!(node.derivation().tip().block.height, at - 1, "{name}, {alteration:?}");
        hostile.heal();
    }
    node.sync(&hostile, |_| ())?;
    assert_eq!(digest(&node)?, digest(&world.follower("expected")?.node)?, "{name}");
    Ok(())
}

#[test]
fn a_block_that_a_node_or_a_server_alters_is_refused_and_the_true_one_taken_later() -> Result<()> {
    let world = World::new(WINDOW)?;
    live(&world)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    altered(&world, "rpc", world.rpc()?)?;
    altered(&world, "esplora", Esplora::connect(&server.url(), Network::Regtest, None)?)
}

// A source of other people is checked whole without being asked to.
#[test]
fn a_remote_source_cannot_hide_an_item_and_an_own_one_cannot_either_if_all_is_verified() -> Result<()> {
    let world = World::new(WINDOW)?;
    live(&world)?;
    let at = world.bitcoind.height()? - 3;
    let hostile = HostileSource::new(world.rpc()?);
    for alteration in [Alteration::HiddenOutputs, Alteration::HiddenWitnesses, Alteration::Emptied] {
        hostile.give(Fault::Altered(at, alteration));
        let mut node =
            Follower::open(&DataDir::new(world.path(&format!("{alteration:?}")), world.manifest.clone()), &hostile)?;
        let error = node.sync(&hostile, |_| ()).err().context("taken for the block")?;
        assert!(
            matches!(error, FollowerError::Scan(ScanError::BadBlock { block, .. }) if block.height == at),
            "{error}"
        );
        assert_eq!(node.derivation().tip().block.height, at - 1);
        hostile.heal();
        node.sync(&hostile, |_| ())?;
        assert_eq!(digest(&node)?, digest(&world.follower("expected")?.node)?);
    }
    Ok(())
}

// One question for up to 1,999 of them, and one to the chain's own source; over RPC alone two batches for 500 of them.
#[test]
fn headers_over_rest_are_those_over_rpc() -> Result<()> {
    let world = World::new(WINDOW)?;
    world.bitcoind.mine(2_500)?;
    let rpc = world.rpc()?;
    let readers = [rest(&world)?];
    let (mut parent, mut all) = (world.manifest.start, Vec::new());
    while parent != rpc.tip()? {
        let magic = world.manifest.network;
        let by_rpc = Scanner::from(&rpc).headers_above(magic, parent, |_| Ok::<_, ScanError>(None), MAX_HEADERS)?;
        let by_rest = Scanner::from(&rpc).readers(&readers).headers_above(
            magic,
            parent,
            |_| Ok::<_, ScanError>(None),
            MAX_HEADERS,
        )?;
        assert_eq!(by_rest[..], by_rpc[..by_rest.len()]);
        assert!(by_rest.len() == 1_999 || by_rest.len() == by_rpc.len());
        parent = by_rest.last().context("a block")?.at;
        all.extend(by_rest);
    }
    assert_eq!(all.len(), 2_500);
    // A parent that is no longer in the chain.
    world.bitcoind.reorg(3)?;
    let gone = Scanner::from(&rpc).readers(&readers).headers_above(
        world.manifest.network,
        all[2_498].at,
        |_| Ok::<_, ScanError>(None),
        9,
    );
    assert!(matches!(gone, Err(ScanError::NotChild(_))), "{gone:?}");
    Ok(())
}

#[test]
fn headers_of_an_esplora_server_come_ten_at_a_time_and_few_before_the_first_block() -> Result<()> {
    let world = World::new(WINDOW)?;
    world.bitcoind.mine(250)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    for (first, count) in [(0, 1), (0, 33), (121, 100), (365, 20), (370, 1), (371, 1), (5, 0)] {
        assert_eq!(esplora.headers(first, count)?, world.rpc()?.headers(first, count)?, "{count} from {first}");
    }
    let mut node = Follower::open(&DataDir::new(world.path("esplora"), world.manifest.clone()), &esplora)?;
    let before = server.requests().len();
    node.sync(&esplora, |_| ())?;
    assert_eq!(node.derivation().tip().block, esplora.tip()?);
    let asked = server.requests().split_off(before);
    let first = asked.iter().position(|asked| asked.ends_with("/raw")).context("a block")?;
    assert!(first < 20, "{first} questions before the first block: {asked:?}");
    assert!(!asked.iter().any(|asked| asked.ends_with("/header")), "{asked:?}");
    Ok(())
}

// Several servers behind one address, one of which is behind; and those that limit rates in their own ways.
#[test]
fn what_passes_at_an_esplora_server_is_waited_for() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    let tip = format!("/block/{}", world.bitcoind.tip()?);
    for status in [404, 403, 429, 502, 504] {
        server.fail(&tip, regtest::esplora::Fault::Status(status));
        let error = esplora.tip().err().with_context(|| format!("{status}"))?;
        assert!(error.is_temporary(), "{error}");
        server.heal();
    }
    assert_eq!(esplora.tip()?, world.rpc()?.tip()?);
    Ok(())
}

#[test]
fn the_command_says_which_source_it_reads_and_why_and_refuses_one_that_is_not_there() -> Result<()> {
    let world = World::new(WINDOW)?;
    world.bitcoind.mine(250)?;
    let blocks = blocks_dir(&world.bitcoind);
    let blocks = blocks.to_str().context("a path")?;
    let cases: [(&[&str], &str); 4] = [
        (&["--blocks-dir", blocks], "block files in"),
        (&["--source", "auto"], "the node serves REST"),
        (&["--source", "rpc"], "from RPC at"),
        (&["--source", "rest"], "from REST at"),
    ];
    let mut roots = Vec::new();
    for (number, (arguments, words)) in cases.iter().enumerate() {
        let data = format!("data-{number}");
        let arguments = [*arguments, &["--data-dir", &data, "queue", "root", "--json"]].concat();
        let output = world.sortie(&arguments)?.output()?;
        ensure!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
        assert!(said(&output).contains("\"progress\""), "{}", said(&output));
        roots.push(output.stdout);
    }
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));

    let nowhere = world.sortie(&["--source", "blk", "--data-dir", "d", "follow", "--once"])?.output()?;
    assert_eq!(nowhere.status.code(), Some(2), "{}", said(&nowhere));
    assert!(said(&nowhere).contains("needs --blocks-dir"), "{}", said(&nowhere));
    let elsewhere = world.sortie(&["--source", "blk", "--blocks-dir", ".", "--data-dir", "d", "follow", "--once"])?;
    let elsewhere = { elsewhere }.output()?;
    assert_eq!(elsewhere.status.code(), Some(2), "{}", said(&elsewhere));
    assert!(said(&elsewhere).contains("there is no blk*.dat"), "{}", said(&elsewhere));
    Ok(())
}

#[test]
fn a_sequencer_reads_blocks_where_it_is_told_to() -> Result<()> {
    let world = World::new(WINDOW)?;
    let wallet = world.path("data/regtest/wallets/default");
    fs::create_dir_all(wallet.parent().context("a folder")?)?;
    drop(world.wallet("data/regtest/wallets/default", 1)?);
    fs::write(world.path("key"), [0x5e; 32].to_lower_hex_string())?;
    // Another node's files, which end with a record that cannot be read.
    let copy = world.path("blocks");
    fs::create_dir(&copy)?;
    for name in ["blk00000.dat", "xor.dat"] {
        fs::copy(blocks_dir(&world.bitcoind).join(name), copy.join(name))?;
    }
    let mut blocks = fs::read(copy.join("blk00000.dat"))?;
    let end = blocks.iter().rposition(|byte| *byte != 0).context("a block")? + 1;
    blocks[end..end + 100].fill(0x55);
    fs::write(copy.join("blk00000.dat"), blocks)?;

    let sequencer = ["--json", "--data-dir", "data", "sequencer", "--key", "key", "--listen", "127.0.0.1:0"];
    let nowhere = world.sortie(&[&sequencer[..], &["--source", "blk"]].concat())?.output()?;
    assert_eq!(nowhere.status.code(), Some(2), "{}", said(&nowhere));
    assert!(said(&nowhere).contains("needs --blocks-dir"), "{}", said(&nowhere));

    let mut process = Proc::spawn(&mut world.sortie(&[&sequencer[..], &["--blocks-dir", "blocks"]].concat())?)?;
    let limit = Duration::from_secs(60);
    process.wait_line("the start", limit, |line| line.contains("\"started\""))?;
    world.bitcoind.mine(1)?;
    process.wait_line("a refusal", limit, |line| line.contains("block files in") && line.contains("asked the next"))?;
    let height = format!("\"height\":{}", world.bitcoind.height()?);
    process.wait_line("the block", limit, |line| line.contains("\"bitcoin\"") && line.contains(&height))?;
    Ok(())
}

#[test]
fn a_node_without_rest_is_named_with_the_cure_and_read_over_rpc_otherwise() -> Result<()> {
    let bitcoind = Bitcoind::options().arg("-rest=0").start()?;
    let error = RestNode::connect(&bitcoind.rpc_url(), Network::Regtest).err().context("REST is off")?;
    assert!(matches!(error, ChainError::RestDisabled { .. }), "{error}");
    let elsewhere = RestNode::connect("http://127.0.0.1:1", Network::Regtest).err().context("nobody is there")?;
    assert!(elsewhere.is_temporary(), "{elsewhere}");

    // The command: refused if REST was asked for by name, and told why it is slow if not.
    let mut world = World::new(WINDOW)?;
    world.bitcoind = bitcoind;
    world.bitcoind.mine(120)?;
    world.start_here()?;
    world.bitcoind.mine(250)?;
    let by_name = world.sortie(&["--source", "rest", "--data-dir", "d", "queue", "root"])?.output()?;
    assert_eq!(by_name.status.code(), Some(1), "{}", said(&by_name));
    assert!(said(&by_name).contains("start it with -rest, or use --source rpc"), "{}", said(&by_name));
    let auto = world.sortie(&["--blocks-dir", "nowhere", "--data-dir", "d", "queue", "root"])?.output()?;
    ensure!(auto.status.success(), "{}", said(&auto));
    let told =
        ["nowhere: No such file", "reading blocks elsewhere", "from RPC at", "start it with -rest for more speed"];
    for words in told {
        assert!(said(&auto).contains(words), "{words}: {}", said(&auto));
    }
    let with_rest = Bitcoind::start()?;
    let other = RestNode::connect(&with_rest.rpc_url(), Network::Signet).err().context("another chain")?;
    assert!(matches!(other, ChainError::WrongNetwork { .. }), "{other}");
    Ok(())
}

// Scenario 49, with a node that really pruned.
#[test]
fn on_a_pruned_node_a_rollup_that_starts_above_is_followed_and_one_below_is_told_the_first_height() -> Result<()> {
    let mut world = World::new(WINDOW)?;
    world.bitcoind = Bitcoind::options().arg("-prune=1").arg("-fastprune").start()?;
    world.bitcoind.mine(120)?;
    world.start_here()?;
    let low = world.manifest.clone();
    let early = world.sortie(&["--data-dir", "early", "--json", "queue", "root"])?.output()?;
    ensure!(early.status.success(), "{}", said(&early));
    world.bitcoind.mine(900)?;
    world.start_here()?;
    live(&world)?;
    world.bitcoind.mine(10)?;
    world.bitcoind.call("pruneblockchain", &[serde_json::json!(700)])?;
    let rpc = world.rpc()?;
    let first = rpc.info()?.prune_height.context("it prunes")?;
    ensure!(first > 120, "nothing was pruned");

    for (name, readers) in [("rpc", Vec::new()), ("rest", vec![rest(&world)?]), ("blk", vec![blk(&world)?])] {
        let mut node = Follower::open(&DataDir::new(world.path(name), world.manifest.clone()), &rpc)?;
        node.sync(Scanner::from(&rpc).readers(&readers), |_| ())?;
        assert!(digest(&node)?.1 >= 8, "{name}");
        let mut node = Follower::open(&DataDir::new(world.path(&format!("{name}-low")), low.clone()), &rpc)?;
        let error = node.sync(Scanner::from(&rpc).readers(&readers), |_| ()).err().context("pruned")?;
        let told = matches!(&error, FollowerError::Scan(ScanError::Chain(ChainError::Pruned { height: 121, first_available })) if *first_available == first);
        assert!(told && !error.is_temporary(), "{name}: {error}");
        assert!(error.to_string().contains(&format!("keeps blocks from {first}")), "{error}");
    }

    // What was derived while the blocks were there cannot be derived again: it is not thrown away, and still read.
    world.manifest = low;
    let rebuild = world.sortie(&["--data-dir", "early", "follow", "--once", "--rebuild"])?.output()?;
    assert!(said(&rebuild).contains(&format!("keeps blocks from {first}")), "{}", said(&rebuild));
    let kept = world.sortie(&["--data-dir", "early", "--json", "queue", "root"])?.output()?;
    assert_eq!(kept.stdout, early.stdout, "{}", said(&kept));
    assert!(said(&kept).contains("what is told here is as of Bitcoin block 120"), "{}", said(&kept));
    Ok(())
}

// Each step is many blocks in one transaction here.
#[test]
fn killed_at_any_moment_a_follower_goes_on_without_gap_or_duplicate() -> Result<()> {
    let world = World::new(WINDOW)?;
    for _ in 0..4 {
        live(&world)?;
        world.bitcoind.mine(60)?;
    }
    let expected = world.sortie(&["--json", "--data-dir", "clean", "queue", "list", "--limit", "1000"])?.output()?;
    ensure!(expected.status.success(), "{}", said(&expected));
    let root = world.sortie(&["--json", "--data-dir", "clean", "queue", "root"])?.output()?;
    let tip = world.bitcoind.height()?;
    let mut kills = 0;
    loop {
        let mut process = Proc::spawn(&mut world.sortie(&["--json", "--data-dir", "killed", "follow"])?)?;
        // A few lines further each time: it dies in the middle of something else.
        let left = Cell::new(1 + kills * 7 % 23);
        let line = process.wait_line("a line", Duration::from_secs(60), |line| {
            left.set(left.get() - 1);
            left.get() == 0 || line.contains("\"heads\"")
        })?;
        let done = line.contains("\"heads\"");
        process.kill9()?;
        kills += 1;
        if done || kills > 60 {
            break;
        }
    }
    ensure!(kills > 3, "killed only {kills} times");
    let output = world.sortie(&["--json", "--data-dir", "killed", "follow", "--once"])?.output()?;
    let last: Value = serde_json::from_slice(output.stdout.split(|b| *b == b'\n').rev().nth(1).context("a line")?)?;
    assert_eq!(last["bitcoin"]["height"], tip);
    let killed = world.sortie(&["--json", "--data-dir", "killed", "queue", "list", "--limit", "1000"])?.output()?;
    assert_eq!(String::from_utf8(killed.stdout)?, String::from_utf8(expected.stdout)?);
    let killed_root = world.sortie(&["--json", "--data-dir", "killed", "queue", "root"])?.output()?;
    assert_eq!(killed_root.stdout, root.stdout);
    Ok(())
}
