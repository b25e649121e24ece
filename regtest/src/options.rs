//! How a node is started: folder, ports, arguments.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bitcoincore_rpc::{Auth, Client, RpcApi};
use serde_json::Value;
use tempfile::TempDir;

use crate::bitcoind::Bitcoind;
use crate::child::Process;
use crate::wait::wait_until;

const START_LIMIT: Duration = Duration::from_secs(60);
/// Another process can take a free port between our look and bitcoind's bind.
const PORT_ATTEMPTS: u32 = 8;
const STDERR: &str = "stderr.log";

/// A node to be started; from [`Bitcoind::options`].
#[derive(Debug, Default)]
#[must_use = "nothing runs before `start`"]
pub struct Options {
    datadir: Option<PathBuf>,
    persistent: bool,
    peers: bool,
    args: Vec<OsString>,
}

/// Where a node listens and keeps its files.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) datadir: PathBuf,
    pub(crate) rpc: SocketAddr,
    pub(crate) p2p: Option<SocketAddr>,
}

impl Place {
    pub(crate) fn cookie(&self) -> PathBuf {
        self.datadir.join("regtest").join(".cookie")
    }

    pub(crate) fn rpc_url(&self) -> String {
        format!("http://{}", self.rpc)
    }

    pub(crate) fn client(&self) -> Result<Client> {
        let cookie = self.cookie();
        Client::new(&self.rpc_url(), Auth::CookieFile(cookie.clone()))
            .with_context(|| format!("no RPC client with the cookie {}", cookie.display()))
    }
}

impl Options {
    /// Keeps the chain in this folder, which is created if missing and never deleted.
    pub fn datadir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.datadir = Some(folder.into());
        self
    }

    /// Leaves the temporary folder on disk, to look at it after a test.
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Accepts peers on a free port of 127.0.0.1.
    pub fn peers(mut self) -> Self {
        self.peers = true;
        self
    }

    /// One more bitcoind argument; it comes last, so it wins over the harness's own.
    /// Folder and ports are the harness's business: it would look for the node elsewhere.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Starts the node and waits until its RPC answers.
    ///
    /// # Errors
    /// No bitcoind found; bitcoind refused to start (with its own words).
    pub fn start(self) -> Result<Bitcoind> {
        let (datadir, temporary) = match &self.datadir {
            Some(folder) => (created(folder)?, None),
            None => {
                let folder = tempfile::Builder::new().prefix("regtest-").tempdir()?;
                if self.persistent { (folder.keep(), None) } else { (folder.path().to_owned(), Some(folder)) }
            }
        };
        let (mut process, place) = self.spawn_on_free_ports(&datadir, None, |child| {
            Process::guarded(child, temporary.as_ref().map(TempDir::path))
        })?;
        process.remove_at_exit(temporary);
        Bitcoind::connected(place, Some(process))
    }

    /// Starts a node that outlives this process, at the ports of `last` if they are free; until it answers, it dies
    /// with the returned value.
    pub(crate) fn start_detached(self, datadir: &Path, last: Option<Place>) -> Result<(Process, Place)> {
        let datadir = created(datadir)?;
        self.spawn_on_free_ports(&datadir, last, |child| Ok(Process::unguarded(child)))
    }

    /// `own` takes responsibility for the child before anything else can fail.
    fn spawn_on_free_ports(
        &self,
        datadir: &Path,
        mut last: Option<Place>,
        own: impl Fn(Child) -> Result<Process>,
    ) -> Result<(Process, Place)> {
        let bitcoind = Bitcoind::find()?;
        let mut refusal = String::new();
        for _ in 0..PORT_ATTEMPTS {
            // Both are held at once, so that they differ.
            let last = last.take();
            let rpc = free_port(last.as_ref().map(|last| last.rpc))?;
            let p2p = free_port(last.and_then(|last| last.p2p))?;
            let place = Place {
                datadir: datadir.to_owned(),
                rpc: rpc.local_addr()?,
                p2p: self.peers.then(|| p2p.local_addr()).transpose()?,
            };
            drop((rpc, p2p));
            let mut process = own(self.spawn(&bitcoind, &place)?)?;
            match answers_or_exits(&mut process, &place)? {
                None => return Ok((process, place)),
                Some(status) => refusal = self.refusal(&place, status),
            }
            if !refusal.contains("Unable to bind") && !refusal.contains("Unable to start HTTP") {
                break;
            }
        }
        bail!("{refusal}")
    }

    fn spawn(&self, bitcoind: &Path, place: &Place) -> Result<Child> {
        let mut command = Command::new(bitcoind);
        command
            .arg(datadir_arg(&place.datadir))
            .args(["-regtest", "-server=1", "-rest=1", "-txindex=0", "-daemon=0"])
            .args(["-printtoconsole=0", "-par=1"])
            // On regtest bitcoind looks through all its blocks and all its mempool at each of them.
            .args(["-checkblockindex=0", "-checkmempool=0"])
            // Without -rpcallowip bitcoind ignores -rpcbind, also listens on ::1, and stays up
            // with that alone when our port is taken.
            .args(["-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1"])
            .arg(format!("-rpcport={}", place.rpc.port()))
            // No name is looked up and nobody is called unless a test says so.
            .args(["-connect=0", "-dnsseed=0", "-fixedseeds=0", "-natpmp=0"])
            .args(["-listenonion=0", "-discover=0"]);
        match place.p2p {
            Some(p2p) => command.arg("-listen=1").arg(format!("-bind={p2p}")),
            None => command.arg("-listen=0"),
        };
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(place.datadir.join(STDERR))?)
            // Ctrl-C at the terminal is for the parent, or a node from `up` would end with it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", bitcoind.display()))
    }

    fn refusal(&self, place: &Place, status: ExitStatus) -> String {
        let words = fs::read_to_string(place.datadir.join(STDERR)).unwrap_or_default();
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("bitcoind did not start ({status}): {words}")
    }
}

/// `None`: the RPC answers. `Some`: bitcoind ended before it did.
fn answers_or_exits(process: &mut Process, place: &Place) -> Result<Option<ExitStatus>> {
    let mut last = anyhow!("never asked");
    wait_until("bitcoind's RPC to answer", START_LIMIT, || {
        if let Some(status) = process.exit_status()? {
            return Ok(Some(Some(status)));
        }
        // Our cookie opens only our node: another one on this port refuses it.
        match place.client().and_then(|client| {
            let answer: Value = client.call("getblockchaininfo", &[])?;
            Ok(answer)
        }) {
            Ok(_) => Ok(Some(None)),
            Err(error) => {
                last = error;
                Ok(None)
            }
        }
    })
    .map_err(|late| late.context(format!("the last answer was: {last:#}")))
}

/// The argument by which a running node is recognized.
pub(crate) fn datadir_arg(datadir: &Path) -> OsString {
    let mut arg = OsString::from("-datadir=");
    arg.push(datadir);
    arg
}

/// The wanted one, if it is free.
fn free_port(wanted: Option<SocketAddr>) -> Result<TcpListener> {
    let wanted = wanted.and_then(|wanted| TcpListener::bind(wanted).ok());
    wanted.map_or_else(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), Ok).context("no free port on 127.0.0.1")
}

/// bitcoind wants an existing folder and resolves relative paths in its own way.
fn created(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder)
        .and_then(|()| folder.canonicalize())
        .with_context(|| format!("cannot create {}", folder.display()))
}
