//! What can be wrong with a Bitcoin node, each on a real one: one line that says it, and how to mend it.
//!
//! A node that pruned is in `sources.rs`, with REST that is off; a command's line and exit code for each error that a
//! node can give is in `scenarios_service.rs`.

use crate::support::{Window, World, said};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Network, Script};
use regtest::hostile::{Envelope, Miner};
use regtest::{Bitcoind, Proc};
use serde_json::{Value, json};
use sortie::chain::{BlockReader, BlockSource, ChainError, Credentials, RestNode, RpcNode};
use sortie::envelope::{Body, Carrier};
use sortie::follower::{DataDir, Follower, FollowerError};
use sortie::scanner::Scanner;
use sortie::wallet::Wallet;
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::ops::{ControlFlow, RangeInclusive};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const WINDOW: Window = Window { window: 6, max_lag: 4 };
const LIMIT: Duration = Duration::from_secs(60);

/// A bitcoind as an operator has it: at an address that stays when it is restarted.
struct Operated {
    dir: PathBuf,
    address: SocketAddr,
    process: Proc,
}

impl Operated {
    fn start(dir: &Path) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let process = Self::spawn(dir, address, &[])?;
        let node = Self { dir: dir.to_owned(), address, process };
        node.ready()?;
        Ok(node)
    }

    fn spawn(dir: &Path, address: SocketAddr, more: &[&str]) -> Result<Proc> {
        let mut command = Command::new(Bitcoind::find()?);
        command.arg(format!("-datadir={}", dir.display())).arg(format!("-rpcport={}", address.port())).args(more);
        command.args(["-regtest", "-rest=1", "-printtoconsole=0", "-listen=0", "-connect=0", "-rpcallowip=127.0.0.1"]);
        Proc::spawn(command.arg("-rpcbind=127.0.0.1"))
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn cookie(&self) -> PathBuf {
        self.dir.join("regtest/.cookie")
    }

    fn connect(&self) -> Result<RpcNode, ChainError> {
        RpcNode::connect(&self.url(), Credentials::Cookie(self.cookie()), Network::Regtest)
    }

    /// What it said before it answered.
    fn ready(&self) -> Result<Vec<ChainError>> {
        let (began, mut said) = (Instant::now(), Vec::new());
        loop {
            match self.connect() {
                Ok(_) => return Ok(said),
                Err(error) => said.push(error),
            }
            ensure!(began.elapsed() < LIMIT, "not ready: {said:?}");
        }
    }

    /// Stops it and starts it again, without waiting until it answers.
    fn restart(&mut self, more: &[&str]) -> Result<()> {
        self.process.terminate()?;
        self.process.wait_exit(LIMIT)?;
        self.process = Self::spawn(&self.dir, self.address, more)?;
        Ok(())
    }
}

#[test]
fn a_node_that_is_restarted_in_mid_run_is_waited_for_while_it_starts_and_its_new_cookie_is_read() -> Result<()> {
    let world = World::new(WINDOW)?;
    let dir = tempfile::tempdir()?;
    let mut operated = Operated::start(dir.path())?;
    // The same chain as the world's, and long enough that checking it all takes its time.
    world.bitcoind.mine(1_500)?;
    let rpc = operated.connect()?;
    copy_blocks(&world.bitcoind, &rpc)?;
    let rest: Vec<Box<dyn BlockReader>> = vec![Box::new(RestNode::connect(&operated.url(), Network::Regtest)?)];
    let mut node = Follower::open(&DataDir::new(world.path("node"), world.manifest.clone()), &rpc)?;
    let _more = node.advance(&Scanner::from(&rpc).readers(&rest), 100, |_, _| ControlFlow::Continue(()))?;
    let mut follower =
        Proc::spawn(&mut world.sortie_on(&operated.url(), &operated.cookie(), &["--json", "follow"])?)?;
    follower.wait_line("the tip", LIMIT, |line| line.contains("\"heads\""))?;

    let cookie = fs::read(operated.cookie())?;
    operated.restart(&["-checkblocks=0", "-checklevel=4"])?;
    let warm = operated.ready()?;
    let told: Vec<_> = warm.iter().filter(|error| matches!(error, ChainError::WarmingUp { .. })).collect();
    ensure!(!told.is_empty(), "it never said that it was starting: {warm:?}");
    assert!(told[0].to_string().contains("still starting (") && told[0].to_string().contains("try again"));
    let others = |error: &&ChainError| !error.is_temporary() && !matches!(error, ChainError::Auth { .. });
    assert_eq!(warm.iter().find(others).map(ToString::to_string), None);
    assert_ne!(fs::read(operated.cookie())?, cookie);

    // The same connections go on: the old cookie is refused, and the new one read.
    node.sync(Scanner::from(&rpc).readers(&rest), |_| ())?;
    assert_eq!(node.derivation().tip().block, world.rpc()?.tip()?);
    // The command survives it too, and sees the next block.
    world.bitcoind.mine(1)?;
    copy_blocks(&world.bitcoind, &rpc)?;
    let tip = world.bitcoind.tip()?.to_string();
    follower.wait_line("the next block", LIMIT, |line| line.contains("\"heads\"") && line.contains(&tip))?;
    Ok(())
}

#[test]
fn a_connection_that_is_closed_without_an_answer_is_told_as_that() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let closing = std::thread::spawn(move || -> std::io::Result<()> {
        // It is asked once more, over a new connection.
        for stream in listener.incoming().take(2) {
            let mut stream = stream?;
            let mut asked = Vec::new();
            // The whole question, or the system answers the rest of it with a reset.
            while !asked.ends_with(b"}") {
                let mut part = [0; 1024];
                let length = stream.read(&mut part)?;
                asked.extend_from_slice(&part[..length]);
            }
        }
        Ok(())
    });
    let credentials = Credentials::UserPassword { user: "u".into(), password: "p".into() };
    let error = RpcNode::connect(&url, credentials, Network::Regtest).expect_err("no answer");
    closing.join().expect("it ends")?;
    assert!(matches!(error, ChainError::Unreachable { .. }) && error.is_temporary(), "{error}");
    assert!(error.to_string().contains("it closed the connection"), "{error}");
    Ok(())
}

/// Gives a node the blocks that it does not have.
fn copy_blocks(from: &Bitcoind, to: &RpcNode) -> Result<()> {
    for height in to.tip()?.height + 1..=from.height()? {
        let raw = from.call("getblock", &[json!(from.block_hash(height)?), json!(0)])?;
        let refused: Value = to.call("submitblock", &[raw])?;
        ensure!(refused.is_null(), "block {height}: {refused}");
    }
    Ok(())
}

/// Gives a node the headers of blocks, without the blocks.
fn copy_headers(from: &Bitcoind, to: &RpcNode, heights: RangeInclusive<u32>) -> Result<()> {
    for height in heights {
        let header = from.call("getblockheader", &[json!(from.block_hash(height)?), json!(false)])?;
        let _: Value = to.call("submitheader", &[header])?;
    }
    Ok(())
}

fn rpc(bitcoind: &Bitcoind) -> Result<RpcNode> {
    Ok(RpcNode::connect(&bitcoind.rpc_url(), Credentials::Cookie(bitcoind.cookie()), Network::Regtest)?)
}

#[test]
fn a_node_in_its_initial_block_download_is_told_of_with_how_far_it_is_and_a_quiet_regtest_is_not() -> Result<()> {
    let mut world = World::new(WINDOW)?;
    // Last week's blocks: to a node that has no newer ones its download is not over.
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    let source = Bitcoind::start()?;
    source.set_mocktime((SystemTime::now() - week).duration_since(UNIX_EPOCH)?.as_secs())?;
    source.mine(120)?;
    world.bitcoind = source;
    world.start_here()?;
    let catching_up = Bitcoind::start()?;
    let node = rpc(&catching_up)?;
    world.bitcoind.mine(80)?;
    copy_blocks(&world.bitcoind, &node)?;
    assert!(node.info()?.initial_download && !node.info()?.is_behind(), "nobody has more");
    let quiet =
        world.sortie_on(&catching_up.rpc_url(), &catching_up.cookie(), &["queue", "root", "--json"])?.output()?;
    assert_eq!((quiet.status.code(), said(&quiet).contains("downloading")), (Some(0), false), "{}", said(&quiet));

    world.bitcoind.mine(100)?;
    copy_headers(&world.bitcoind, &node, 201..=300)?;
    let behind =
        world.sortie_on(&catching_up.rpc_url(), &catching_up.cookie(), &["queue", "root", "--json"])?.output()?;
    let told = "bitcoind is still downloading the chain, and is at block 200 of 300; wait until it has it, or use another node";
    assert!(said(&behind).contains(told), "{}", said(&behind));
    let root: Value = serde_json::from_slice(&behind.stdout)?;
    assert_eq!(root["height"], 200);

    // A rollup that starts above it.
    world.start_here()?;
    let error = Follower::open(&DataDir::new(world.path("above"), world.manifest.clone()), &node)
        .err()
        .context("not there yet")?;
    assert!(matches!(error, FollowerError::Missing { height: 300, tip: 200 }) && error.is_temporary(), "{error}");

    // A promise on an old chain might be broken on the new one.
    let key = world.path("key");
    fs::write(&key, [0x5e; 32].to_lower_hex_string())?;
    let wallet = world.path("data/regtest/wallets/default");
    fs::create_dir_all(wallet.parent().context("a folder")?)?;
    Wallet::create(&wallet, Network::Regtest, 0, None)?;
    let key = key.to_str().context("a path")?;
    let sequencer = world.sortie_on(&catching_up.rpc_url(), &catching_up.cookie(), &["sequencer", "--key", key])?;
    let sequencer = { sequencer }.output()?;
    assert_eq!(sequencer.status.code(), Some(4), "{}", said(&sequencer));
    assert!(said(&sequencer).contains("at block 200 of 300"), "{}", said(&sequencer));

    copy_blocks(&world.bitcoind, &node)?;
    let done =
        world.sortie_on(&catching_up.rpc_url(), &catching_up.cookie(), &["queue", "root", "--json"])?.output()?;
    assert_eq!((done.status.code(), said(&done).contains("downloading")), (Some(0), false), "{}", said(&done));
    Ok(())
}

// The only UTXO snapshot that every bitcoind takes on regtest: of the chain that its own unit tests mine.
#[test]
fn on_a_node_that_began_with_a_utxo_snapshot_what_starts_above_it_is_followed_and_one_below_told_the_first_height()
-> Result<()> {
    const SNAPSHOT: u32 = 110;
    let mut world = World::new(WINDOW)?;
    world.bitcoind = Bitcoind::start()?;
    let mut low = None;
    for number in 0..SNAPSHOT {
        world.bitcoind.set_mocktime(1_598_887_952 + u64::from(number))?;
        // To the secret key 1.
        let output = "raw(210279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798ac)";
        world.bitcoind.call("generateblock", &[json!(output), json!([])])?;
        if world.bitcoind.height()? == 50 {
            world.start_here()?;
            low = Some(world.manifest.clone());
        }
    }
    let low = low.context("height 50")?;
    world.start_here()?;
    let snapshot = world.path("utxos.dat");
    world.bitcoind.call("dumptxoutset", &[json!(snapshot), json!("latest")])?;

    let began = Bitcoind::start()?;
    let node = rpc(&began)?;
    copy_headers(&world.bitcoind, &node, 1..=SNAPSHOT)?;
    let _: Value = node.call("loadtxoutset", &[json!(snapshot)])?;
    world.bitcoind.mine(110)?;
    for byte in 0..4u8 {
        let payload = world.payload(Body::Tx(vec![byte; 70]))?;
        world.bitcoind.mine_envelopes(&[Envelope { carrier: Carrier::OpReturn, payload }])?;
    }
    world.bitcoind.mine(u32::from(WINDOW.window))?;
    copy_blocks(&world.bitcoind, &node)?;

    let expected = world.follower("expected")?.node;
    assert_eq!(expected.derivation().tip().queue_size, 4);
    let rest: Vec<Box<dyn BlockReader>> = vec![Box::new(RestNode::connect(&began.rpc_url(), Network::Regtest)?)];
    for (name, readers) in [("rpc", Vec::new()), ("rest", rest)] {
        let scanner = Scanner::from(&node).readers(&readers);
        let mut high = Follower::open(&DataDir::new(world.path(name), world.manifest.clone()), &node)?;
        high.sync(scanner, |_| ())?;
        assert_eq!(high.derivation(), expected.derivation(), "{name}");
        let mut low = Follower::open(&DataDir::new(world.path(&format!("{name}-low")), low.clone()), &node)?;
        let error = low.sync(scanner, |_| ()).err().context("the block is not there")?;
        let told = ChainError::NotDownloaded { height: 51, snapshot: Some(SNAPSHOT) };
        assert_eq!(error.to_string(), told.to_string(), "{name}");
        assert!(error.to_string().contains("has all blocks from 111") && error.is_temporary(), "{error}");
    }
    Ok(())
}

#[test]
fn a_node_on_another_network_or_another_chain_is_refused() -> Result<()> {
    let world = World::new(WINDOW)?;
    let (url, cookie) = (world.bitcoind.rpc_url(), world.bitcoind.cookie());
    let mut command = Command::new(env!("CARGO_BIN_EXE_sortie"));
    command.args(["--bitcoin-url", &url, "--bitcoin-cookie"]).arg(&cookie).arg("--data-dir").arg(world.path("data"));
    let signet = ["--network", "signet", "wallet", "create"];
    let network = command.args(signet).current_dir(world.dir.path()).output()?;
    assert_eq!(network.status.code(), Some(4), "{}", said(&network));
    assert!(said(&network).contains("bitcoind is on regtest, but signet is wanted"), "{}", said(&network));

    // Of the same network, with a history of its own.
    let other = Bitcoind::start()?;
    // Mined for the same script in the same second, the blocks could be the same.
    other.mine_to(&Address::p2wsh(Script::from_bytes(&[0x51, 0x51]), Network::Regtest), 130)?;
    let chain = world.sortie_on(&other.rpc_url(), &other.cookie(), &["queue", "root"])?.output()?;
    assert_eq!(chain.status.code(), Some(4), "{}", said(&chain));
    assert!(said(&chain).contains("is not on the best chain of this Bitcoin node"), "{}", said(&chain));
    Ok(())
}
