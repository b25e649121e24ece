//! A running node: who owns its process, how to talk to it, how it ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Block, BlockHash, Transaction, Txid};
use bitcoincore_rpc::{Client, RpcApi};
use serde_json::{Value, json};

use crate::child::Process;
use crate::options::{Options, Place};
use crate::wait::wait_until;

/// bitcoind writes its chain state on exit.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A bitcoind on regtest.
///
/// One from [`start`](Self::start) or [`Options::start`] ends with this value, at the latest with
/// this process; one from [`up`](Self::up) or [`attach`](Self::attach) keeps running.
pub struct Bitcoind {
    place: Place,
    client: Client,
    process: Option<Process>,
    /// Two fundings at once would choose the same coin.
    pub(crate) funding: Mutex<()>,
}

impl Bitcoind {
    /// Starts a node in a temporary folder, without peers.
    ///
    /// # Errors
    /// See [`Options::start`].
    pub fn start() -> Result<Self> {
        Self::options().start()
    }

    /// A node with another folder, with peers, with more arguments.
    pub fn options() -> Options {
        Options::default()
    }

    pub(crate) fn connected(place: Place, process: Option<Process>) -> Result<Self> {
        let client = place.client()?;
        Ok(Self { place, client, process, funding: Mutex::new(()) })
    }

    /// `http://127.0.0.1:<port>`, for RPC; REST is at the same port under `/rest`.
    pub fn rpc_url(&self) -> String {
        self.place.rpc_url()
    }

    /// The file with user and password for RPC.
    pub fn cookie(&self) -> PathBuf {
        self.place.cookie()
    }

    /// The node's folder; blocks are in `regtest/blocks` below it.
    pub fn datadir(&self) -> &Path {
        &self.place.datadir
    }

    /// Where peers connect, if the node was started with [`Options::peers`].
    pub fn p2p(&self) -> Option<SocketAddr> {
        self.place.p2p
    }

    /// The node's process, if this value owns it.
    pub fn pid(&self) -> Option<u32> {
        Some(self.process.as_ref()?.pid())
    }

    /// A client of its own, with the typed calls of `bitcoincore_rpc::RpcApi`.
    ///
    /// # Errors
    /// The cookie cannot be read: the node has stopped.
    pub fn client(&self) -> Result<Client> {
        self.place.client()
    }

    /// Any RPC.
    ///
    /// # Errors
    /// The node's own words, or no connection.
    pub fn call(&self, method: &str, params: &[Value]) -> Result<Value> {
        self.client.call(method, params).map_err(own_words).with_context(|| format!("bitcoind: {method}"))
    }

    /// An RPC that answers with a string that stands for a `T`.
    pub(crate) fn call_for<T>(&self, method: &str, params: &[Value]) -> Result<T>
    where
        T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
    {
        parsed(&self.call(method, params)?).with_context(|| format!("bitcoind: {method}"))
    }

    /// Height of the tip.
    ///
    /// # Errors
    /// See [`call`](Self::call).
    pub fn height(&self) -> Result<u32> {
        let height = self.call("getblockcount", &[])?;
        Ok(height.as_u64().context("a height")?.try_into()?)
    }

    /// Hash of the tip.
    ///
    /// # Errors
    /// See [`call`](Self::call).
    pub fn tip(&self) -> Result<BlockHash> {
        self.call_for("getbestblockhash", &[])
    }

    /// The active chain's block at this height.
    ///
    /// # Errors
    /// Above the tip; see [`call`](Self::call).
    pub fn block_hash(&self, height: u32) -> Result<BlockHash> {
        self.call_for("getblockhash", &[json!(height)])
    }

    /// A block of any branch.
    ///
    /// # Errors
    /// Unknown hash; see [`call`](Self::call).
    pub fn block(&self, hash: &BlockHash) -> Result<Block> {
        let hex = self.call("getblock", &[json!(hash), json!(0)])?;
        Ok(deserialize_hex(text(&hex)?)?)
    }

    /// Hands a transaction to the mempool, whatever its fee.
    ///
    /// # Errors
    /// The mempool refuses it.
    pub fn send(&self, tx: &Transaction) -> Result<Txid> {
        self.call_for("sendrawtransaction", &[json!(serialize_hex(tx)), json!(0)])
    }

    /// What waits in the mempool, in no particular order.
    ///
    /// # Errors
    /// See [`call`](Self::call).
    pub fn mempool(&self) -> Result<Vec<Txid>> {
        let ids = self.call("getrawmempool", &[])?;
        ids.as_array().context("a list")?.iter().map(parsed).collect()
    }

    /// The node's clock stands still at this Unix time from now on; 0 gives it the system's time.
    ///
    /// Block times follow it, but never fall below the median time past.
    ///
    /// # Errors
    /// See [`call`](Self::call).
    pub fn set_mocktime(&self, unix_seconds: u64) -> Result<()> {
        self.call("setmocktime", &[json!(unix_seconds)]).map(drop)
    }

    /// Connects to a node that accepts peers, and waits until they have greeted each other.
    ///
    /// # Errors
    /// `other` was started without [`Options::peers`], or does not answer.
    pub fn connect(&self, other: &Self) -> Result<()> {
        let address = other.p2p().context("the other node accepts no peers")?;
        let address = address.to_string();
        self.call("addnode", &[json!(address), json!("onetry")])?;
        wait_until("the peer's greeting", Duration::from_secs(30), || {
            let peers = self.call("getpeerinfo", &[])?;
            let peers = peers.as_array().context("a list of peers")?;
            let greeted = |peer: &Value| peer["addr"] == *address && peer["version"] != 0;
            Ok(peers.iter().any(greeted).then_some(()))
        })
    }

    /// Stops a node that this value owns, and says whether it ended well. Dropping does the same.
    ///
    /// # Errors
    /// bitcoind had to be killed, or ended with an error; not owned.
    pub fn stop(mut self) -> Result<()> {
        let mut process = self.process.take().context("not ours: see `down`")?;
        let status = self.stop_process(&mut process)?;
        ensure!(status.success(), "bitcoind ended with {status}");
        Ok(())
    }

    fn stop_process(&self, process: &mut Process) -> Result<ExitStatus> {
        if process.exit_status()?.is_none() {
            self.call("stop", &[])?;
        }
        wait_until("bitcoind to end", STOP_LIMIT, || process.exit_status())
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Dropping the process kills what did not stop.
            let _ = self.stop_process(&mut process);
        }
    }
}

/// What the node says of a refusal, without the client's wrapping.
fn own_words(error: bitcoincore_rpc::Error) -> anyhow::Error {
    use bitcoincore_rpc::jsonrpc::Error::Rpc;
    match error {
        bitcoincore_rpc::Error::JsonRpc(Rpc(refusal)) => anyhow!("{} (code {})", refusal.message, refusal.code),
        other => other.into(),
    }
}

pub(crate) fn text(value: &Value) -> Result<&str> {
    value.as_str().context("not a string")
}

pub(crate) fn parsed<T>(value: &Value) -> Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    Ok(text(value)?.parse()?)
}
