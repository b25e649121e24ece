//! `sortie follow`: derives the rollup's chain from Bitcoin, and tells.

mod report;

use crate::config::Settings;
use crate::failure::Failure;
use crate::follower::{Place, Writer};
use crate::http::SequencerUrl;
use crate::output::Output;
use clap::Args;
pub use report::UnconfirmedLine;
use report::{AppliedReport, HeadsReport, RevertedReport, UnsafeHead};
use serde::Deserialize;
use sortie::chain::BlockSource;
use sortie::node::Event;
use sortie::primitives::{BtcHeight, RollupId};
use sortie::scanner::MempoolWatch;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// First and longest pause after a temporary error.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

const EXAMPLE: &str = "\
Examples:
  sortie follow --manifest rollup.toml
  sortie follow --once --json | tail -1 | jq -r .safe.state_root
  sortie follow --sequencer http://127.0.0.1:8645";

/// Derive the rollup's chain from Bitcoin alone, and tell what happens
///
/// Reads every Bitcoin block since the manifest's start, executes what was forced and what sequencers posted, and prints
/// new items, their fate, verdicts on batches, reorganisations, and the heads: safe (derived), final (derived and
/// finality-depth deep), and with --sequencer also unsafe (what the sequencer says). Keeps what it derived, and goes on
/// from there. Ctrl-C ends it.
///
/// At the tip it also tells what waits in the node's mempool: its fee rate, and the block it is expected in.
///
/// While it reads many blocks, a bar on stderr shows how far it is, or a line now and then if that is no terminal.
///
/// With --json each line has an `event`: applied, reverted, heads or unconfirmed; `progress` comes on stderr.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLE)]
pub struct Follow {
    /// End at the tip; errors are final
    #[arg(long)]
    once: bool,
    /// Also show the head that this sequencer claims
    #[arg(long, value_name = "URL")]
    sequencer: Option<String>,
    /// Forget what was derived, and derive it again
    #[arg(long)]
    rebuild: bool,
    /// Go no further than this Bitcoin block, and end there
    #[arg(long, value_name = "H")]
    until_height: Option<BtcHeight>,
}

/// What a sequencer's /v1/status says, as far as it matters here.
#[derive(Deserialize)]
struct SequencerStatus {
    rollup_id: RollupId,
    #[serde(rename = "unsafe")]
    head: UnsafeHead,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Next {
    Again,
    End,
}

/// Runs the command.
pub fn run(follow: &Follow, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let sequencer = follow.sequencer.as_deref().map(|url| settings.sequencer(url)).transpose()?;
    let stop = stop_signal()?;
    let place = Place::new(settings)?;
    let mut lock = place.lock_soon()?.ok_or_else(|| {
        Failure::failed("another process follows this rollup already; stop it, or use another --data-dir")
    })?;
    if follow.rebuild {
        place.clear(&lock)?;
    }
    let mut pauses = Pauses::default();
    let writer = loop {
        let failure = match settings.connect(place.network()) {
            Ok(source) => match place.open(lock, source) {
                Ok(writer) => break writer,
                Err((failure, held)) => {
                    lock = held;
                    failure
                }
            },
            Err(failure) => failure,
        };
        if pauses.after(failure, follow.once, &stop, out)? == Next::End {
            return Ok(());
        }
    };
    let mut session = Session {
        follow,
        out,
        writer,
        sequencer,
        rollup_id: place.manifest().rollup_id(),
        told: None,
        deaf: false,
        mempool: MempoolWatch::new(place.manifest().rollup_id().namespace()),
        waiting: BTreeSet::new(),
        next_look: Instant::now(),
    };
    let finality_depth = settings.finality_depth();
    while !stop.load(Ordering::Relaxed) {
        let next = match session.round(finality_depth, &stop) {
            Ok(next) => {
                pauses = Pauses::default();
                next
            }
            Err(failure) => {
                let next = pauses.after(failure, follow.once, &stop, out)?;
                // A node that was started anew may listen elsewhere.
                if let Ok(source) = settings.connect(place.network()) {
                    session.writer.reconnect(source);
                }
                next
            }
        };
        if next == Next::End {
            break;
        }
    }
    Ok(())
}

struct Session<'a> {
    follow: &'a Follow,
    out: &'a Output,
    writer: Writer,
    sequencer: Option<SequencerUrl>,
    rollup_id: RollupId,
    /// The heads that were printed last.
    told: Option<HeadsReport>,
    /// Whether the sequencer's silence has been told.
    deaf: bool,
    mempool: MempoolWatch,
    /// Items of the mempool that were told, and when the next look at it is due.
    waiting: BTreeSet<sortie::queue::Place>,
    next_look: Instant,
}

impl Session<'_> {
    /// To the tip, tell the heads if they are new, and wait for the next block.
    fn round(&mut self, finality_depth: u32, stop: &AtomicBool) -> Result<Next, Failure> {
        let (follow, out) = (self.follow, self.out);
        let end = self.writer.advance(follow.until_height, out, |node, event| {
            match event {
                Event::Applied(applied) => out.print(&AppliedReport::new(applied, node)?)?,
                Event::Reverted(block) => out.print(&RevertedReport::new(*block))?,
            }
            Ok(if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        end?;
        let heads = self.writer.node.heads(finality_depth)?;
        let report = HeadsReport::new(heads, self.unsafe_head()?);
        if self.told.as_ref() != Some(&report) {
            self.out.print(&report)?;
            self.told = Some(report);
        }
        if self.follow.once || self.is_far_enough() || stop.load(Ordering::Relaxed) {
            return Ok(Next::End);
        }
        self.tell_unconfirmed()?;
        let source = &self.writer.source;
        source.wait_for_tip(&heads.bitcoin.hash, source.look())?;
        Ok(Next::Again)
    }

    /// Tells of items that are new in the mempool. A large mempool takes long to look at, so it is looked at less often.
    fn tell_unconfirmed(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        let Some(node) = self.writer.source.node().filter(|_| began >= self.next_look) else { return Ok(()) };
        let lines: Vec<_> = self.mempool.look(node)?.into_iter().flat_map(UnconfirmedLine::of).collect();
        self.next_look = Instant::now() + began.elapsed() * 10;
        for line in lines.iter().filter(|line| !self.waiting.contains(&line.place)) {
            self.out.print(line)?;
        }
        self.waiting = lines.into_iter().map(|line| line.place).collect();
        Ok(())
    }

    fn is_far_enough(&self) -> bool {
        let height = self.writer.node.derivation().tip().block.height;
        self.follow.until_height.is_some_and(|until| height >= until)
    }

    /// `None`: nobody asked. `Some(None)`: the sequencer does not answer, which is told once.
    fn unsafe_head(&mut self) -> Result<Option<Option<UnsafeHead>>, Failure> {
        let Some(url) = &self.sequencer else { return Ok(None) };
        let status = url.status().and_then(|status| {
            serde_json::from_value::<SequencerStatus>(status)
                .map_err(|error| Failure::failed(format_args!("the sequencer's status cannot be read: {error}")))
        });
        match status {
            Ok(status) if status.rollup_id != self.rollup_id => Err(Failure::refused(format_args!(
                "the sequencer serves rollup {}, the manifest's is {}",
                status.rollup_id, self.rollup_id
            ))),
            Ok(status) => {
                self.deaf = false;
                Ok(Some(Some(status.head)))
            }
            Err(failure) => {
                if !self.deaf {
                    self.out.survived(&failure, "the unsafe head is not known");
                    self.deaf = true;
                }
                Ok(Some(None))
            }
        }
    }
}

/// Pauses after temporary errors, each twice as long as the one before.
struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: PAUSE[0] }
    }
}

impl Pauses {
    fn after(&mut self, failure: Failure, once: bool, stop: &AtomicBool, out: &Output) -> Result<Next, Failure> {
        if once || !failure.is_temporary() {
            return Err(failure);
        }
        out.survived(&failure, &format!("trying again in {} s", self.next.as_secs()));
        let mut left = self.next;
        while !left.is_zero() && !stop.load(Ordering::Relaxed) {
            let nap = left.min(Duration::from_millis(100));
            sleep(nap);
            left -= nap;
        }
        self.next = (self.next * 2).min(PAUSE[1]);
        Ok(if stop.load(Ordering::Relaxed) { Next::End } else { Next::Again })
    }
}

/// Set by Ctrl-C or SIGTERM. A second one ends the process at once, which no step minds: each is on disk
/// whole, or not at all.
fn stop_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let fail = |error: std::io::Error| Failure::failed(format_args!("cannot listen for Ctrl-C: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(fail)?, signal(SignalKind::terminate()).map_err(fail)?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if asked.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(stop)
}
