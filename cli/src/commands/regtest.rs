//! `sortie regtest`: a Bitcoin node of one's own, to play with.

use crate::config::Settings;
use crate::failure::Failure;
use crate::input::{address, address_on};
use crate::output::{Output, count, field};
use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, BlockHash, Network, Txid};
use clap::{Args, Subcommand};
use regtest::{Bitcoind, EsploraServer};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// Run a Bitcoin node of one's own on regtest
///
/// Blocks come when you ask for them, coins cost nothing. While the node runs in the data folder, every other command
/// with --network regtest finds it by itself. bitcoind comes from $BITCOIND, or from PATH.
#[derive(Subcommand, Debug)]
pub enum Regtest {
    Up(Up),
    Mine(Mine),
    Fund(Fund),
    Reorg(Reorg),
    Esplora(Esplora),
    Down(Down),
    Info(Info),
}

/// Which node.
#[derive(Args, Debug)]
struct Dir {
    /// The node's folder [default: <data-dir>/regtest]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Start a node that keeps running
///
/// Prints its address and its cookie file, and the variables that point sortie at it from anywhere. A chain from an
/// earlier time goes on where it was.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie regtest up")]
pub struct Up {
    #[command(flatten)]
    dir: Dir,
}

/// Mine blocks
///
/// With what waits in the mempool, or empty: then whatever waits goes on waiting, as if it were censored.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:\n  sortie regtest mine 1\n  sortie regtest mine 6 --empty")]
pub struct Mine {
    /// How many blocks
    #[arg(value_name = "N")]
    blocks: u32,
    /// Address that gets the subsidy [default: an output that anyone can spend]
    #[arg(long, value_name = "ADDRESS", value_parser = address, conflicts_with = "empty")]
    to: Option<Address<NetworkUnchecked>>,
    /// Leave out what waits in the mempool
    #[arg(long)]
    empty: bool,
    #[command(flatten)]
    dir: Dir,
}

/// Pay coins to an address
///
/// Unconfirmed: mine a block to confirm them. On a fresh chain this mines the blocks that the coins come from.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Example:\n  sortie regtest fund $(sortie wallet address) 1000000 && sortie regtest mine 1"
)]
pub struct Fund {
    /// The Bitcoin address that gets them
    #[arg(value_parser = address)]
    address: Address<NetworkUnchecked>,
    /// How much, in satoshis
    sats: u64,
    #[command(flatten)]
    dir: Dir,
}

/// Reorganise the chain
///
/// Replaces the last blocks with empty ones, one more than there were. Their transactions wait in the mempool again.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie regtest reorg 2")]
pub struct Reorg {
    /// How many blocks are replaced
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    depth: u32,
    #[command(flatten)]
    dir: Dir,
}

/// Serve the node's chain as an Esplora server does
///
/// For what works without a node: --esplora-url. On 127.0.0.1, until it is interrupted.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie regtest esplora --port 3002")]
pub struct Esplora {
    /// Port on 127.0.0.1 [default: a free port]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    port: u16,
    #[command(flatten)]
    dir: Dir,
}

#[derive(Serialize)]
struct Serving {
    url: String,
}

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        field(f, "url", &self.url)?;
        write!(f, "\nexport SORTIE_NETWORK=regtest\nexport SORTIE_ESPLORA_URL={}", self.url)
    }
}

/// Stop the node
///
/// The chain stays: `up` goes on with it. Delete the folder to begin anew.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie regtest down")]
pub struct Down {
    #[command(flatten)]
    dir: Dir,
}

/// Show where the node is and how far its chain
///
/// Address, cookie file, folder, tip, and what waits in the mempool.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie regtest info --json | jq .mempool")]
pub struct Info {
    #[command(flatten)]
    dir: Dir,
}

#[derive(Serialize)]
struct NodeShown {
    url: String,
    cookie: PathBuf,
    datadir: PathBuf,
    height: u32,
    tip: BlockHash,
    mempool: Vec<Txid>,
    #[serde(skip)]
    just_started: bool,
}

impl NodeShown {
    fn new(node: &Bitcoind, just_started: bool) -> Result<Self, Failure> {
        Ok(Self {
            url: node.rpc_url(),
            cookie: node.cookie(),
            datadir: node.datadir().to_owned(),
            height: node.height()?,
            tip: node.tip()?,
            mempool: node.mempool()?,
            just_started,
        })
    }
}

impl fmt::Display for NodeShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        field(f, "url", &self.url)?;
        field(f, "cookie", self.cookie.display())?;
        field(f, "tip", format_args!("{} ({})", self.height, self.tip))?;
        field(f, "mempool", count(self.mempool.len() as u64, "transaction"))?;
        if self.just_started {
            writeln!(f, "\nexport SORTIE_NETWORK=regtest")?;
            writeln!(f, "export SORTIE_BITCOIN_URL={}", self.url)?;
            writeln!(f, "export SORTIE_BITCOIN_COOKIE={}", quoted(&self.cookie))?;
        }
        Ok(())
    }
}

/// For a shell.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[derive(Serialize)]
struct Mined {
    hashes: Vec<BlockHash>,
    height: u32,
}

impl fmt::Display for Mined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks = count(self.hashes.len() as u64, "block");
        write!(f, "mined {blocks}; the tip is at {}", self.height)
    }
}

#[derive(Serialize)]
struct Funded {
    txid: Txid,
    vout: u32,
    amount_sat: u64,
}

impl fmt::Display for Funded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "paid {} sat, unconfirmed: {}:{}", self.amount_sat, self.txid, self.vout)
    }
}

#[derive(Serialize)]
struct Reorged {
    old: Vec<BlockHash>,
    new: Vec<BlockHash>,
    height: u32,
}

impl fmt::Display for Reorged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = (count(self.old.len() as u64, "block"), self.new.len());
        write!(f, "replaced {old} with {new} empty ones; the tip is at {}", self.height)
    }
}

#[derive(Serialize)]
struct Stopped {
    was_running: bool,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.was_running { "stopped; the chain is kept" } else { "no node was running" })
    }
}

/// Runs a command.
pub fn run(command: Regtest, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let folder = |dir: Dir| dir.dir.unwrap_or_else(|| settings.network_dir(Network::Regtest));
    match command {
        Regtest::Up(Up { dir }) => out.print(&NodeShown::new(&Bitcoind::up(&folder(dir))?, true)?),
        Regtest::Info(Info { dir }) => out.print(&NodeShown::new(&attach(&folder(dir))?, false)?),
        Regtest::Mine(Mine { blocks, to, empty, dir }) => {
            let node = attach(&folder(dir))?;
            let hashes = match to {
                Some(to) => node.mine_to(&address_on(Network::Regtest, to)?, blocks)?,
                None if empty => node.mine_empty(blocks)?,
                None => node.mine(blocks)?,
            };
            out.print(&Mined { hashes, height: node.height()? })
        }
        Regtest::Fund(Fund { address, sats, dir }) => {
            let address = address_on(Network::Regtest, address)?;
            let coin = attach(&folder(dir))?.fund(&address, Amount::from_sat(sats))?;
            out.print(&Funded { txid: coin.txid, vout: coin.vout, amount_sat: sats })
        }
        Regtest::Reorg(Reorg { depth, dir }) => {
            let node = attach(&folder(dir))?;
            let regtest::Reorg { old, new } = node.reorg(depth)?;
            out.print(&Reorged { old, new, height: node.height()? })
        }
        Regtest::Esplora(Esplora { port, dir }) => {
            let server = EsploraServer::start_at(&attach(&folder(dir))?, port)?;
            out.print(&Serving { url: server.url() })?;
            loop {
                std::thread::park();
            }
        }
        Regtest::Down(Down { dir }) => out.print(&Stopped { was_running: Bitcoind::down(&folder(dir))? }),
    }
}

fn attach(dir: &Path) -> Result<Bitcoind, Failure> {
    Bitcoind::attach(dir)
        .map_err(|error| Failure::unreachable(format_args!("{error:#}; start one with `sortie regtest up`")))
}
