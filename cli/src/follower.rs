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
use crate::reading::{Readers, Reading, Refusals};
use bitcoin::Network;
use sortie::chain::BlockSource;
use sortie::durable::{self, Access};
use sortie::follower::{ChainEvent, Follower, FollowerError};
use sortie::manifest::Manifest;
use sortie::primitives::{BlockRef, BtcHeight};
use sortie::scanner::{MAX_HEADERS, ScanError};
use std::fs::{File, OpenOptions, TryLockError};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long another process is waited for that has the file.
const PATIENCE: Duration = Duration::from_secs(3);
const NAP: Duration = Duration::from_millis(50);
/// Between two looks at what another process has written.
const PAUSE: Duration = Duration::from_millis(500);
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

/// A follower that this process may write, as long as it holds the lock.
pub struct Writer {
    pub node: Follower,
    file: PathBuf,
    reading: Reading,
    /// Once opened, and whether it was told which they are.
    readers: Option<Readers>,
    told: bool,
    refusals: Refusals,
}

/// What [`Writer::advance`] ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the tip, or as far as was asked.
    There,
    /// It was told to.
    Told,
}

/// A follower for commands that only read: its state at one moment, whatever is written meanwhile.
pub struct Reader {
    place: Place,
    pub node: Follower,
    /// A connection of our own, or why there is none.
    pub source: Result<Bitcoin, Failure>,
}

/// What was derived here of the configured rollup, if anything was, however old it is. Bitcoin is not asked.
pub fn derived_before(settings: &Settings) -> Result<Option<Follower>, Failure> {
    Ok(Place::new(settings)?.as_it_is().ok())
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
        durable::make_folder(&self.dir, Access::Umask).map_err(|error| Failure::file(&self.dir, &error))?;
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

    /// Forgets everything that was derived, once Bitcoin shows that it can be derived again.
    pub fn clear(&self, _held: &Lock, source: &Bitcoin, out: &Output) -> Result<(), Failure> {
        let readers = self.reading.open(source, out)?;
        Follower::check_source(&self.manifest, &readers.scanner(source))?;
        // One after the other, also on the disk: a database without its log may not be whole.
        for name in ["node.sqlite", "node.sqlite-wal", "node.sqlite-shm"] {
            let path = self.path(name);
            durable::remove(&path).map_err(|error| Failure::file(&path, &error))?;
        }
        Ok(())
    }

    /// Opens the file for writing, or begins one.
    pub fn open(&self, _held: &Lock, source: &Bitcoin) -> Result<Writer, Ended> {
        let file = self.file();
        let mut node = Follower::open(&file, self.manifest.clone(), source).map_err(|error| Ended::at(&file, error))?;
        let reading = self.reading.clone();
        reading.max_reorg_depth.into_iter().for_each(|depth| node.set_max_reorg_depth(depth));
        Ok(Writer { node, file, reading, readers: None, told: false, refusals: Refusals::default() })
    }

    /// The file as it is now, which another process may go on writing.
    fn as_it_is(&self) -> Result<Follower, Failure> {
        let file = self.file();
        let beginning =
            || Failure::failed("another process is just beginning to follow this rollup; try again in a moment");
        if !file.exists() {
            return Err(beginning());
        }
        match Follower::open_offline(&file, self.manifest.clone()) {
            Err(FollowerError::NotBegun) => Err(beginning()),
            opened => Ok(opened.map_err(|error| Ended::at(&file, error))?),
        }
    }
}

impl Writer {
    /// Follows Bitcoin to its tip.
    pub fn sync(&mut self, source: &Bitcoin, out: &Output) -> Result<(), Ended> {
        let mut tries = 1;
        loop {
            match self.advance(source, None, out, |_, _| Ok(ControlFlow::Continue(()))) {
                // The chain changed while it was read.
                Err(Ended::Follower(error))
                    if tries < TRIES
                        && error.is_temporary()
                        && !matches!(error, FollowerError::Scan(ScanError::Chain(_))) =>
                {
                    tries += 1;
                    sleep(Duration::from_millis(200));
                }
                ended => return ended.map(drop),
            }
        }
    }

    /// Opens what blocks are read from anew: the source is another one from now on.
    pub fn close_readers(&mut self) {
        (self.readers, self.told) = (None, false);
    }

    /// Says what blocks are read from, and why that, however few they are.
    pub fn tell_source(&mut self, source: &Bitcoin, out: &Output) -> Result<(), Failure> {
        let readers = self.reading.open(source, out)?;
        out.note(format_args!("reading Bitcoin blocks from {readers}"));
        (self.readers, self.told) = (Some(readers), true);
        Ok(())
    }

    /// Follows Bitcoin to its tip or to a height, telling of each event, until one of them says that it is enough.
    pub fn advance(
        &mut self,
        source: &Bitcoin,
        until: Option<BtcHeight>,
        out: &Output,
        on_event: impl FnMut(&Follower, &ChainEvent) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<End, Ended> {
        let readers = match self.readers.take() {
            Some(readers) => readers,
            None => self.reading.open(source, out)?,
        };
        let end = self.advance_by(&readers, source, until, out, on_event);
        self.readers = Some(readers);
        end
    }

    fn advance_by(
        &mut self,
        readers: &Readers,
        source: &Bitcoin,
        until: Option<BtcHeight>,
        out: &Output,
        mut on_event: impl FnMut(&Follower, &ChainEvent) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<End, Ended> {
        let scanner = readers.scanner(source);
        let (from, shown) = (self.node.derivation().tip().block.height, source.tip().map_err(Failure::from)?.height);
        let to = until.map_or(shown, |until| until.min(shown));
        let mut progress = Progress::begin(out, from, to, (!self.told).then_some(readers));
        self.told |= progress.is_some();
        let mut failed = None;
        loop {
            let at = self.node.derivation().tip().block.height;
            // Also with none left it is seen whether Bitcoin has left the blocks there are.
            let left = until.map_or(MAX_HEADERS, |until| until.saturating_sub(at).min(MAX_HEADERS));
            let refusals = &mut self.refusals;
            let mut told = false;
            let flow = self.node.advance(&scanner, left, |node, event| {
                progress.iter_mut().for_each(|progress| progress.saw(event));
                if let ChainEvent::Applied(applied) = event {
                    refusals.tell(&applied.refused, out);
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
            let flow = flow.map_err(|error| Ended::at(&self.file, error))?;
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
    Follower(FollowerError),
    /// Anything else.
    Failure(Failure),
}

impl Ended {
    /// An error with the file's name, where it is the file's.
    fn at(file: &Path, error: FollowerError) -> Self {
        match error {
            FollowerError::Store(_) | FollowerError::Corrupt(_) | FollowerError::Schema(_) => {
                let failure = Failure::failed(format_args!("{}: {error}", file.display()));
                Self::Failure(if error.is_temporary() { failure.temporary() } else { failure })
            }
            error => Self::Follower(error),
        }
    }

    /// Whether Bitcoin cannot be read (now), rather than that something is wrong here.
    fn is_of_bitcoin(&self) -> bool {
        match self {
            Self::Follower(FollowerError::Scan(ScanError::Chain(_))) => true,
            Self::Follower(error) => error.is_temporary(),
            Self::Failure(failure) => failure.is_unreachable(),
        }
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<FollowerError> for Ended {
    fn from(error: FollowerError) -> Self {
        Self::Follower(error)
    }
}

impl From<Ended> for Failure {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Follower(error) => error.into(),
            Ended::Failure(failure) => failure,
        }
    }
}

/// How Bitcoin is reached.
type Connect = fn(&Settings, Network) -> Result<Bitcoin, Failure>;

impl Reader {
    /// Brings the configured rollup to the tip; or opens what another process keeps there, and says on
    /// stderr how fresh that is.
    pub fn open(settings: &Settings, out: &Output) -> Result<Self, Failure> {
        Ok(Self::try_open(settings, Settings::connect, out)?)
    }

    /// As [`open`](Self::open); but where Bitcoin cannot be read, what was derived before will do, with a warning that
    /// says why and as of which block.
    pub fn open_at_least(settings: &Settings, out: &Output) -> Result<Self, Failure> {
        match Self::try_open(settings, Settings::connect_briefly, out) {
            Err(ended) if ended.is_of_bitcoin() => {
                let (place, failure) = (Place::new(settings)?, Failure::from(ended));
                let Ok(node) = place.as_it_is() else { return Err(failure) };
                let tip = node.derivation().tip().block;
                out.survived(&failure, &format!("what is told here is as of Bitcoin block {tip}"));
                Ok(Self { place, node, source: Err(failure) })
            }
            opened => Ok(opened?),
        }
    }

    fn try_open(settings: &Settings, connect: Connect, out: &Output) -> Result<Self, Ended> {
        let place = Place::new(settings)?;
        let source = connect(settings, place.network());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(lock) = place.lock()? {
                let source = source?;
                place.open(&lock, &source)?.sync(&source, out)?;
                let node = place.as_it_is()?;
                return Ok(Self { place, node, source: Ok(source) });
            }
            // Another process holds it. A short one ends soon, and one that follows reaches the tip soon:
            // either way a moment's patience gives the newest state.
            let tip = source.as_ref().ok().and_then(|source| source.tip().ok());
            let patient = Instant::now() < deadline;
            match place.as_it_is() {
                Ok(node) if !patient || tip.is_none_or(|tip| tip == node.derivation().tip().block) => {
                    out.note(freshness(node.derivation().tip().block, tip));
                    return Ok(Self { place, node, source });
                }
                Err(failure) if !patient => return Err(failure.into()),
                _ => sleep(NAP),
            }
        }
    }

    /// The follower.
    pub fn node(&self) -> &Follower {
        &self.node
    }

    /// Bitcoin.
    ///
    /// # Errors
    /// It could not be reached.
    pub fn source(&self) -> Result<&Bitcoin, Failure> {
        self.source.as_ref().map_err(Failure::clone)
    }

    /// Waits a moment for a new block, and looks again: follows Bitcoin, or lets another process do that.
    pub fn wait(&mut self, out: &Output) -> Result<(), Failure> {
        let known = self.node.derivation().tip().block.hash;
        match &self.source {
            Ok(source) if source.wait_for_tip(&known, source.look())?.hash == known => return Ok(()),
            Ok(source) => match self.place.lock()? {
                Some(lock) => self.place.open(&lock, source)?.sync(source, out)?,
                // It is the other process that everybody waits for.
                None => sleep(PAUSE),
            },
            Err(_) => sleep(PAUSE),
        }
        self.node = self.place.as_it_is()?;
        Ok(())
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
