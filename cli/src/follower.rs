//! The follower, opened for a command: brought to the tip by us, or read while another process writes it.

use crate::bitcoin::Bitcoin;
use crate::config::{Settings, manifest_network};
use crate::failure::Failure;
use crate::mend::Mended;
use crate::output::{Output, count};
use crate::progress::Progress;
use crate::reading::{Readers, Reading, Refusals};
use bitcoin::Network;
use sortie::chain::BlockSource;
use sortie::follower::{ChainEvent, ChainView, DataDir, Follower, FollowerError, KeptBy, LockedDir};
use sortie::primitives::{BlockRef, BtcHeight};
use sortie::scanner::ScanError;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// Between two looks at another process's file.
const PAUSE: Duration = Duration::from_millis(500);
/// Attempts to follow a chain that changes meanwhile.
const TRIES: u32 = 5;

/// A follower that this process writes, with the settings and notes of a command.
pub struct Writer {
    pub follower: Follower,
    database: PathBuf,
    reading: Reading,
    /// Once opened.
    readers: Option<Readers>,
    /// Whether a note has named the readers.
    is_noted: bool,
    refusals: Refusals,
}

/// A derived chain for commands that only read: at one moment, whatever is written meanwhile.
pub struct Reader {
    dir: DataDir,
    reading: Reading,
    pub view: ChainView,
    /// A connection of our own, or why there is none.
    pub source: Result<Bitcoin, Failure>,
}

/// The folder of the configured rollup's follower.
pub fn data_dir(settings: &Settings) -> Result<DataDir, Failure> {
    let manifest = settings.manifest()?;
    let network = manifest_network(&manifest)?;
    let name = manifest.rollup_id().to_string();
    Ok(DataDir::new(settings.network_dir(network).join("rollups").join(&name[..16]), manifest))
}

/// The chain that was derived here before, if there is one, however old. Bitcoin is not asked.
pub fn derived_before(settings: &Settings) -> Result<Option<ChainView>, Failure> {
    Ok(data_dir(settings)?.view().ok())
}

/// Forgets everything that was derived, once Bitcoin shows that it can be derived again.
pub fn clear(lock: &LockedDir, source: &Bitcoin, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let readers = settings.reading().open(source, out)?;
    Ok(lock.clear(&readers.scanner(source))?)
}

impl Writer {
    /// Opens the follower of a locked folder, or begins one.
    pub fn open(lock: &LockedDir, reading: Reading, source: &Bitcoin) -> Result<Self, Ended> {
        let database = lock.dir().database();
        let mut follower = lock.open(source).map_err(|error| Ended::at(&database, error))?;
        reading.max_reorg_depth.into_iter().for_each(|depth| follower.set_max_reorg_depth(depth));
        Ok(Self { follower, database, reading, readers: None, is_noted: false, refusals: Refusals::default() })
    }

    /// Follows Bitcoin to its tip.
    pub fn sync(&mut self, source: &Bitcoin, out: &Output) -> Result<(), Ended> {
        let mut tries = 1;
        loop {
            match self.follow(source, None, out, |_, _| Ok(ControlFlow::Continue(()))) {
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
        (self.readers, self.is_noted) = (None, false);
    }

    /// Says what blocks are read from, and why that, however few they are.
    pub fn tell_source(&mut self, source: &Bitcoin, out: &Output) -> Result<(), Failure> {
        let readers = self.reading.open(source, out)?;
        out.note(format_args!("reading Bitcoin blocks from {readers}"));
        (self.readers, self.is_noted) = (Some(readers), true);
        Ok(())
    }

    /// Follows Bitcoin to its tip or to a height. `on_event` is called for each event, and may end it early.
    pub fn follow(
        &mut self,
        source: &Bitcoin,
        until: Option<BtcHeight>,
        out: &Output,
        mut on_event: impl FnMut(&ChainView, &ChainEvent) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Ended> {
        let readers = match &mut self.readers {
            Some(readers) => readers,
            readers => readers.insert(self.reading.open(source, out)?),
        };
        let from = self.follower.derivation().tip().block.height;
        let shown = source.tip().map_err(Failure::from)?.height;
        let to = until.map_or(shown, |until| until.min(shown));
        let mut progress = Progress::begin(out, from, to, (!self.is_noted).then_some(&*readers));
        self.is_noted |= progress.is_some();
        let refusals = &mut self.refusals;
        let followed = self.follower.follow(&readers.scanner(source), until, |view, event| {
            progress.iter_mut().for_each(|progress| progress.saw(event));
            if let ChainEvent::Applied(applied) = event {
                refusals.tell(&applied.refused, out);
            }
            let mut on_event = || on_event(view, event).map_err(Ended::from);
            match &progress {
                Some(progress) => progress.around(event, on_event),
                None => on_event(),
            }
        });
        followed.map_err(|ended| ended.in_file(&self.database))
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
                let failure = Failure::failed(format_args!("{}: {}", file.display(), Mended(&error)));
                Self::Failure(if error.is_temporary() { failure.temporary() } else { failure })
            }
            error => Self::Follower(error),
        }
    }

    fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Follower(error) => Self::at(file, error),
            ended => ended,
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
    /// Brings the configured rollup to the tip; or opens the file that another process writes, and notes how fresh it
    /// is.
    pub fn open(settings: &Settings, out: &Output) -> Result<Self, Failure> {
        Ok(Self::try_open(settings, Settings::connect, out)?)
    }

    /// As [`open`](Self::open); but where Bitcoin cannot be read, the chain that was derived before will do, with a
    /// warning that says why and as of which block.
    pub fn open_at_least(settings: &Settings, out: &Output) -> Result<Self, Failure> {
        match Self::try_open(settings, Settings::connect_briefly, out) {
            Err(ended) if ended.is_of_bitcoin() => {
                let (dir, failure) = (data_dir(settings)?, Failure::from(ended));
                let Ok(view) = dir.view() else { return Err(failure) };
                let tip = view.derivation().tip().block;
                out.survived(&failure, &format!("what is told here is as of Bitcoin block {tip}"));
                Ok(Self { dir, reading: settings.reading(), view, source: Err(failure) })
            }
            opened => Ok(opened?),
        }
    }

    fn try_open(settings: &Settings, connect: Connect, out: &Output) -> Result<Self, Ended> {
        let dir = data_dir(settings)?;
        let reading = settings.reading();
        let source = connect(settings, manifest_network(dir.manifest())?);
        let asked = source.as_ref().ok().map(|source| source as &dyn BlockSource);
        let opened = dir.view_at_tip(asked, |lock| {
            let source = source.as_ref().map_err(Failure::clone)?;
            Writer::open(lock, reading.clone(), source)?.sync(source, out)
        });
        let (view, kept_by) = opened.map_err(|ended| ended.in_file(&dir.database()))?;
        if let KeptBy::Another(tip) = kept_by {
            out.note(freshness(view.derivation().tip().block, tip));
        }
        Ok(Self { dir, reading, view, source })
    }

    /// The derived chain.
    pub fn view(&self) -> &ChainView {
        &self.view
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
        let known = self.view.derivation().tip().block.hash;
        match &self.source {
            Ok(source) if source.wait_for_tip(&known, source.look())?.hash == known => return Ok(()),
            Ok(source) => match self.dir.lock()? {
                Some(lock) => Writer::open(&lock, self.reading.clone(), source)?.sync(source, out)?,
                // Everybody waits for that other process.
                None => sleep(PAUSE),
            },
            Err(_) => sleep(PAUSE),
        }
        self.view = self.dir.view().map_err(|error| Ended::at(&self.dir.database(), error))?;
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
