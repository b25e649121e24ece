//! A node that outlives the process that started it, for people at a terminal.
//!
//! The state file is written after the node answers and moved away after it has ended. What it says is
//! checked against the running process, so a file left by a crash is only a stale file.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bitcoincore_rpc::RpcApi;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::bitcoind::{Bitcoind, STOP_LIMIT, text};
use crate::options::{Place, datadir_arg};
use crate::wait::wait_until;
use crate::watchdog::signal;

const STATE: &str = "regtest.json";
/// What the state file becomes when the node is taken down.
const LAST: &str = "regtest.last.json";
const DATADIR: &str = "bitcoind";
const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Bitcoind {
    /// Starts a node that keeps running: chain in `dir/bitcoind`, state in `dir/regtest.json`.
    /// It accepts peers on 127.0.0.1.
    ///
    /// A chain from an earlier `up` goes on where it was, at the same ports if they are free.
    ///
    /// # Errors
    /// A node runs there already; see also [`Options::start`](crate::Options::start).
    pub fn up(dir: &Path) -> Result<Self> {
        let state = State::read(&dir.join(STATE))?;
        if let Some(state) = state.as_ref().filter(|state| state.runs()) {
            let (dir, pid, url) = (dir.display(), state.pid, state.place.rpc_url());
            bail!("a node is already running in {dir} (pid {pid}, {url})");
        }
        // They are a convenience: a file that cannot be read is none.
        let last = state.or_else(|| State::read(&dir.join(LAST)).ok().flatten()).map(|state| state.place);
        let (process, place) = Self::options().peers().start_detached(&dir.join(DATADIR), last)?;
        let node = Self::connected(place.clone(), None)?;
        let pid = process.pid();
        State { pid, place }.write(dir)?;
        process.release();
        Ok(node)
    }

    /// The node that [`up`](Self::up) started in `dir`.
    ///
    /// # Errors
    /// No node runs there.
    pub fn attach(dir: &Path) -> Result<Self> {
        match State::read(&dir.join(STATE))? {
            Some(state) if state.runs() => Self::connected(state.place, None),
            Some(state) => bail!("the node in {} is gone (pid {}): start it again", dir.display(), state.pid),
            None => bail!("no node is running in {}", dir.display()),
        }
    }

    /// Stops the node that [`up`](Self::up) started in `dir`, waits for its end and moves the
    /// state file away; the chain stays. `false`: none was running.
    ///
    /// # Errors
    /// It does not end, not even after a kill.
    pub fn down(dir: &Path) -> Result<bool> {
        let Some(state) = State::read(&dir.join(STATE))? else {
            return Ok(false);
        };
        let running = state.runs();
        if running {
            state.stop()?;
        }
        fs::rename(dir.join(STATE), dir.join(LAST)).context("cannot move the state file away")?;
        Ok(running)
    }
}

struct State {
    pid: u32,
    place: Place,
}

impl State {
    fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(path.display().to_string()),
        };
        serde_json::from_slice(&bytes)
            .map_err(Into::into)
            .and_then(|json| Self::from_json(&json))
            .with_context(|| format!("{} is not a state file", path.display()))
            .map(Some)
    }

    fn from_json(json: &Value) -> Result<Self> {
        let pid = json["pid"].as_u64().context("no pid")?;
        let rpc_url = text(&json["rpc_url"]).context("rpc_url")?;
        let rpc = rpc_url.strip_prefix("http://").context("rpc_url")?;
        let p2p = json["p2p"].as_str().map(str::parse::<SocketAddr>);
        Ok(Self {
            pid: pid.try_into()?,
            place: Place {
                datadir: PathBuf::from(text(&json["datadir"]).context("datadir")?),
                rpc: rpc.parse()?,
                p2p: p2p.transpose()?,
            },
        })
    }

    /// Readers see the old file or the new one, never half of one.
    fn write(&self, dir: &Path) -> Result<()> {
        let json = json!({
            "pid": self.pid,
            "rpc_url": self.place.rpc_url(),
            "cookie": self.place.cookie(),
            "datadir": self.place.datadir,
            "p2p": self.place.p2p,
        });
        let mut file = NamedTempFile::new_in(dir)?;
        writeln!(file, "{json:#}")?;
        file.persist(dir.join(STATE)).context("cannot write the state file")?;
        Ok(())
    }

    /// Process numbers are reused, so the number alone proves nothing.
    fn runs(&self) -> bool {
        arguments(self.pid).is_some_and(|arguments| {
            let arg = datadir_arg(&self.place.datadir);
            let wanted = arg.as_encoded_bytes();
            arguments.windows(wanted.len()).any(|window| window == wanted)
        })
    }

    fn stop(&self) -> Result<()> {
        let ended = |limit| wait_until("bitcoind to end", limit, || Ok((!self.runs()).then_some(())));
        let asked = self.place.client().is_ok_and(|client| client.call::<Value>("stop", &[]).is_ok());
        if !asked {
            signal(self.pid, "TERM")?;
        }
        if ended(STOP_LIMIT).is_err() {
            signal(self.pid, "KILL")?;
            ended(KILL_LIMIT)?;
        }
        Ok(())
    }
}

/// The command line of a living process; a zombie has none.
#[cfg(target_os = "linux")]
fn arguments(pid: u32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/cmdline")).ok()
}

#[cfg(not(target_os = "linux"))]
fn arguments(pid: u32) -> Option<Vec<u8>> {
    let output = std::process::Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid.to_string()]).output().ok()?;
    Some(output.stdout)
}
