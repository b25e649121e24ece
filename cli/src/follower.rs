//! The follower's file, opened for a command: brought to the tip by us, or read while another process
//! writes it.
//!
//! Guarantees one writer: whoever holds the lock beside the file. The lock goes with the process, however
//! it ends.

use crate::bitcoin::Bitcoin;
use crate::config::{Settings, manifest_network};
use crate::failure::Failure;
use crate::output::{Output, count};
use crate::progress::Progress;
use crate::reading::{Readers, Reading};
use bitcoin::Network;
use sortie::chain::BlockSource;
use sortie::manifest::Manifest;
use sortie::node::{Event, Node, NodeError};
use sortie::primitives::{BlockRef, BtcHeight};
use sortie::scanner::MAX_HEADERS;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long another process is waited for that has the file.
const PATIENCE: Duration = Duration::from_secs(3);
const NAP: Duration = Duration::from_millis(50);
/// Tries to catch a chain that changes under our hands.
const TRIES: u32 = 5;

/// Where a rollup's follower keeps its files.
pub struct Place {
    manifest: Manifest,
    network: Network,
    dir: PathBuf,
    reading: Reading,
}

/// A lock that this process holds.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, never read")] File);

/// A follower that this process may write, with its source.
pub struct Writer {
    pub node: Node,
    pub source: Bitcoin,
    reading: Reading,
    /// Opened, until something goes wrong.
    readers: Option<Readers>,
    /// Sources that were refused something, and were told of.
    refused: BTreeSet<String>,
    lock: Lock,
}

/// What [`Writer::advance`] ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the tip, or as far as was asked.
    There,
    /// It was told to.
    Told,
}

/// A follower for commands that only read.
pub enum Reader {
    /// Brought to the tip by this process.
    Own(Box<Writer>),
    /// What another process has written so far.
    Other(Box<Beside>),
}

/// A follower that another process writes.
pub struct Beside {
    pub node: Node,
    /// A connection of our own, or why there is none.
    source: Result<Bitcoin, Failure>,
}

impl Place {
    /// The place of the configured manifest's rollup.
    pub fn new(settings: &Settings) -> Result<Self, Failure> {
        let manifest = settings.manifest()?;
        let network = manifest_network(&manifest)?;
        let name = manifest.rollup_id().to_string();
        let dir = settings.network_dir(network).join("rollups").join(&name[..16]);
        Ok(Self { manifest, network, dir, reading: settings.reading() })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its network.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The same rollup's place for a sequencer: with a follower of its own, beside which `sortie follow`
    /// and all other commands work as ever.
    pub fn sequencer(mut self) -> Self {
        self.dir.push("sequencer");
        self
    }

    /// A file in this place.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn file(&self) -> PathBuf {
        self.path("node.sqlite")
    }

    /// The lock, or `None` if another process holds it.
    pub fn lock(&self) -> Result<Option<Lock>, Failure> {
        fs::create_dir_all(&self.dir).map_err(|error| Failure::file(&self.dir, &error))?;
        let path = self.path("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| Failure::file(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Failure::file(&path, &error)),
        }
    }

    /// The lock, even if another process needs a moment to give it back; `None` if it does not.
    pub fn lock_soon(&self) -> Result<Option<Lock>, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lock()? {
                None if Instant::now() < deadline => sleep(NAP),
                lock => return Ok(lock),
            }
        }
    }

    /// Forgets everything that was derived; all of it is on Bitcoin.
    pub fn clear(&self, _held: &Lock) -> Result<(), Failure> {
        for name in ["node.sqlite", "node.sqlite-wal", "node.sqlite-shm"] {
            let path = self.path(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Failure::file(&path, &error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens the file for writing, or begins one.
    pub fn open(&self, lock: Lock, source: Bitcoin) -> Result<Writer, (Failure, Lock)> {
        match Node::open(&self.file(), self.manifest.clone(), &source) {
            Ok(mut node) => {
                let reading = self.reading.clone();
                reading.max_reorg_depth.into_iter().for_each(|depth| node.set_max_reorg_depth(depth));
                Ok(Writer { node, source, reading, readers: None, refused: BTreeSet::new(), lock })
            }
            Err(error) => Err((error.into(), lock)),
        }
    }

    /// Opens the file that another process writes.
    fn open_beside(&self) -> Result<Node, Failure> {
        let file = self.file();
        let beginning =
            || Failure::failed("another process is just beginning to follow this rollup; try again in a moment");
        if !file.exists() {
            return Err(beginning());
        }
        match Node::open_offline(&file, self.manifest.clone()) {
            Err(NodeError::Corrupt("nothing was written yet")) => Err(beginning()),
            opened => Ok(opened?),
        }
    }
}

impl Writer {
    /// The follower, its source, and the lock, which has to be held as long as the follower is used.
    pub fn into_parts(self) -> (Node, Bitcoin, Lock) {
        (self.node, self.source, self.lock)
    }

    /// Follows Bitcoin to its tip.
    pub fn sync(&mut self, out: &Output) -> Result<(), Failure> {
        let mut tries = 1;
        loop {
            match self.advance(None, out, |_, _| Ok(ControlFlow::Continue(()))) {
                // The chain changed while it was read.
                Err(Ended::Node(error))
                    if tries < TRIES && error.is_temporary() && !matches!(error, NodeError::Chain(_)) =>
                {
                    tries += 1;
                    sleep(Duration::from_millis(200));
                }
                ended => return Ok(ended.map(drop)?),
            }
        }
    }

    /// Takes another connection from now on.
    pub fn reconnect(&mut self, source: Bitcoin) {
        self.source = source;
        self.readers = None;
    }

    /// Follows Bitcoin to its tip or to a height, telling of each event, until one of them says that it is enough.
    pub fn advance(
        &mut self,
        until: Option<BtcHeight>,
        out: &Output,
        on_event: impl FnMut(&Node, &Event) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<End, Ended> {
        let readers = match self.readers.take() {
            Some(readers) => readers,
            None => self.reading.open(&self.source, out)?,
        };
        let end = self.advance_by(&readers, until, out, on_event)?;
        self.readers = Some(readers);
        Ok(end)
    }

    fn advance_by(
        &mut self,
        readers: &Readers,
        until: Option<BtcHeight>,
        out: &Output,
        mut on_event: impl FnMut(&Node, &Event) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<End, Ended> {
        let scanner = readers.scanner(&self.source);
        let (from, shown) =
            (self.node.derivation().tip().block.height, self.source.tip().map_err(Failure::from)?.height);
        let to = until.map_or(shown, |until| until.min(shown));
        let mut progress = Progress::begin(out, from, to, (&readers.first, &readers.why));
        let mut failed = None;
        loop {
            let at = self.node.derivation().tip().block.height;
            let left = until.map_or(MAX_HEADERS, |until| until.saturating_sub(at).min(MAX_HEADERS));
            if left == 0 {
                return Ok(End::There);
            }
            let refused = &mut self.refused;
            let mut told = false;
            let flow = self.node.advance(&scanner, left, |node, event| {
                if let Event::Applied(applied) = event {
                    progress.iter_mut().for_each(|progress| progress.applied(applied));
                    for refusal in &applied.refused {
                        // Once for each source: it may be wrong about every block.
                        if refused.insert(refusal.source.clone()) {
                            out.warn(refusal);
                        }
                    }
                }
                let mut tell = || on_event(node, event);
                let flow = match &progress {
                    Some(progress) => progress.around(event, tell),
                    None => tell(),
                };
                let flow = flow.unwrap_or_else(|failure| {
                    failed.get_or_insert(failure);
                    ControlFlow::Break(())
                });
                told |= flow.is_break();
                flow
            });
            let flow = flow.map_err(Ended::Node)?;
            if let Some(failure) = failed.take() {
                return Err(failure.into());
            }
            if flow.is_break() {
                return Ok(if told { End::Told } else { End::There });
            }
        }
    }
}

/// Why following ended early.
pub enum Ended {
    /// Bitcoin or the database.
    Node(NodeError),
    /// Anything else.
    Failure(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Ended> for Failure {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Node(error) => error.into(),
            Ended::Failure(failure) => failure,
        }
    }
}

impl Reader {
    /// Brings the configured rollup to the tip; or opens what another process keeps there, and says on
    /// stderr how fresh that is.
    pub fn open(settings: &Settings, out: &Output) -> Result<Self, Failure> {
        let place = Place::new(settings)?;
        let deadline = Instant::now() + PATIENCE;
        let mut connection = None;
        loop {
            if let Some(lock) = place.lock()? {
                let source = settings.connect(place.network())?;
                let mut writer = place.open(lock, source).map_err(|(failure, _)| failure)?;
                writer.sync(out)?;
                return Ok(Self::Own(Box::new(writer)));
            }
            // Another process holds it. A short one ends soon, and one that follows reaches the tip soon:
            // either way a moment's patience gives the newest state.
            let source = connection.take().unwrap_or_else(|| settings.connect(place.network()));
            let tip = source.as_ref().ok().and_then(|source| source.tip().ok());
            let patient = Instant::now() < deadline;
            match place.open_beside() {
                Ok(node) if !patient || tip.is_none_or(|tip| tip == node.derivation().tip().block) => {
                    out.note(freshness(node.derivation().tip().block, tip));
                    return Ok(Self::Other(Box::new(Beside { node, source })));
                }
                Err(failure) if !patient => return Err(failure),
                _ => sleep(NAP),
            }
            connection = Some(source);
        }
    }

    /// The follower.
    pub fn node(&self) -> &Node {
        match self {
            Self::Own(writer) => &writer.node,
            Self::Other(beside) => &beside.node,
        }
    }

    /// Bitcoin.
    ///
    /// # Errors
    /// It could not be reached, and another process follows it.
    pub fn source(&self) -> Result<&Bitcoin, Failure> {
        match self {
            Self::Own(writer) => Ok(&writer.source),
            Self::Other(beside) => beside.source.as_ref().map_err(Failure::clone),
        }
    }

    /// The follower and Bitcoin, with the lock if it is this process that writes.
    pub fn into_parts(self) -> Result<(Node, Bitcoin, Option<Lock>), Failure> {
        match self {
            Self::Own(writer) => {
                let (node, source, lock) = writer.into_parts();
                Ok((node, source, Some(lock)))
            }
            Self::Other(beside) => Ok((beside.node, beside.source?, None)),
        }
    }

    /// Looks again: follows Bitcoin, or lets the other process do that.
    pub fn refresh(&mut self, out: &Output) -> Result<(), Failure> {
        match self {
            Self::Own(writer) => writer.sync(out),
            Self::Other(_) => Ok(()),
        }
    }
}

/// How fresh another process's state is.
fn freshness(block: BlockRef, tip: Option<BlockRef>) -> String {
    let lag = match tip.map(|tip| tip.height.saturating_sub(block.height)) {
        Some(0) => "at Bitcoin's tip".to_owned(),
        Some(n) => format!("{} behind Bitcoin's tip", count(n.into(), "block")),
        None => "and Bitcoin cannot be asked how far behind that is".to_owned(),
    };
    format!("another process follows this rollup; its state is as of Bitcoin block {block}, {lag}")
}
