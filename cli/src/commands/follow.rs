//! `sortie follow`: derives the rollup's chain from Bitcoin, and tells.

mod report;

use crate::bitcoin::Bitcoin;
use crate::config::{Settings, manifest_network};
use crate::failure::Failure;
use crate::follower::{Writer, clear, data_dir};
use crate::outage::Outage;
use crate::output::Output;
use crate::vouched::Signers;
use clap::Args;
pub use report::UnconfirmedLine;
use report::{AppliedReport, HeadsReport, RevertedReport, UnsafeHead};
use sortie::api::wire::ServedHead;
use sortie::api::{SequencerClient, check_served};
use sortie::chain::{BlockSource, ChainError, RpcNode};
use sortie::follower::ChainEvent;
use sortie::primitives::{BtcHeight, RollupId};
use sortie::scanner::{MempoolWatch, Unconfirmed};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

/// How long the mempool is read before anything else is looked at.
const SLICE: Duration = Duration::from_millis(300);
/// After a first Ctrl-C, how long until it is said that there is a second.
const GRACE: Duration = Duration::from_secs(1);

const EXAMPLE: &str = "\
Examples:
  sortie follow --manifest rollup.toml
  sortie follow --once --json | tail -1 | jq -r .safe.state_root
  sortie follow --sequencer http://127.0.0.1:8645";

/// Derive the rollup's chain from Bitcoin alone, and tell what happens
///
/// Reads every Bitcoin block since the manifest's start, executes what was forced and what sequencers posted, and
/// prints new items, their fate, verdicts on batches, reorganisations, and the heads: safe (derived), final (derived
/// and finality-depth deep), and with --sequencer also unsafe (what the sequencer says). Keeps what it derived, and
/// goes on from there. Ctrl-C ends it.
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

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Next {
    Again,
    End,
}

/// Runs the command.
pub fn run(follow: &Follow, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let sequencer = follow.sequencer.as_deref().map(|url| settings.sequencer(url)).transpose()?;
    let stop = stop_signal(out.clone())?;
    let dir = data_dir(settings)?;
    let network = manifest_network(dir.manifest())?;
    let lock = dir.lock_soon()?.ok_or_else(|| {
        Failure::failed("another process follows this rollup already; stop it, or use another --data-dir")
    })?;
    let mut outage = Outage::default();
    let open = || -> Result<(Bitcoin, Writer), Failure> {
        let source = settings.connect_for_service(network)?;
        if follow.rebuild {
            clear(&lock, &source, settings, out)?;
        }
        let mut writer = Writer::open(&lock, settings.reading(), &source)?;
        writer.tell_source(&source, out)?;
        Ok((source, writer))
    };
    let (source, writer) = loop {
        match open() {
            Ok(opened) => break opened,
            Err(failure) if follow.once || !failure.is_temporary() => return Err(failure),
            Err(failure) => {
                if wait_out(&mut outage, &failure, &stop, out) == Next::End {
                    return Ok(());
                }
            }
        }
    };
    let mut session = Session {
        follow,
        out,
        source,
        writer,
        sequencer,
        rollup_id: dir.manifest().rollup_id(),
        told: None,
        deaf: false,
        mempool: MempoolWatch::new(dir.manifest().rollup_id().namespace()),
        next_look: Instant::now(),
        blind: false,
    };
    let finality_depth = settings.finality_depth();
    while !stop.load(Ordering::Relaxed) {
        let next = match session.round(finality_depth, &stop) {
            Ok(next) => {
                outage.ends(out);
                next
            }
            // It has answered rightly before: at least when it was opened.
            Err(failure) if follow.once || !failure.may_pass() => return Err(failure),
            Err(failure) => {
                let next = wait_out(&mut outage, &failure, &stop, out);
                // A node that was started anew may listen elsewhere.
                if let Ok(source) = settings.connect_for_service(network) {
                    session.reconnect(source);
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
    source: Bitcoin,
    writer: Writer,
    sequencer: Option<SequencerClient>,
    rollup_id: RollupId,
    /// The heads that were printed last.
    told: Option<HeadsReport>,
    /// Whether the sequencer's silence has been told.
    deaf: bool,
    mempool: MempoolWatch,
    /// When the next look at the mempool is due.
    next_look: Instant,
    /// Whether it has been told that the mempool cannot be looked at.
    blind: bool,
}

impl Session<'_> {
    /// To the tip, tell the heads if they are new, and wait for the next block.
    fn round(&mut self, finality_depth: u32, stop: &AtomicBool) -> Result<Next, Failure> {
        let (follow, out) = (self.follow, self.out);
        let followed = self.writer.follow(&self.source, follow.until_height, out, |view, event| {
            match event {
                ChainEvent::Applied(applied) => out.print(&AppliedReport::new(applied, view)?)?,
                ChainEvent::Reverted(block) => out.print(&RevertedReport::new(*block))?,
            }
            Ok(if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        followed?;
        let heads = self.writer.follower.heads(finality_depth)?;
        let report = HeadsReport::new(heads, self.unsafe_head()?);
        if self.told.as_ref() != Some(&report) {
            self.out.print(&report)?;
            self.told = Some(report);
        }
        if self.follow.once || self.is_far_enough() || stop.load(Ordering::Relaxed) {
            return Ok(Next::End);
        }
        let looked = self.look_at_mempool(stop);
        let unseen = match looked {
            Ok(found) => {
                self.blind = false;
                found.into_iter().flat_map(UnconfirmedLine::of).try_for_each(|line| out.print(&line))?;
                None
            }
            error => error.err().filter(|_| !self.blind),
        };
        // While there is more to read there, a new block is only looked for.
        let wait = if self.mempool.is_done() || unseen.is_some() { self.source.look() } else { Duration::ZERO };
        self.source.wait_for_tip(&heads.bitcoin.hash, wait)?;
        // Not a node that is down, which is told of as that: all else goes on without the mempool.
        if let Some(error) = unseen {
            out.survived(&error.into(), "what waits in the mempool is not told");
            self.blind = true;
        }
        Ok(Next::Again)
    }

    /// Takes another connection from now on.
    fn reconnect(&mut self, source: Bitcoin) {
        if source.node().map(RpcNode::url) != self.source.node().map(RpcNode::url) {
            self.writer.close_readers();
        }
        self.source = source;
    }

    /// What is new in the mempool, as far as a moment reaches. One that takes long is looked at less often.
    fn look_at_mempool(&mut self, stop: &AtomicBool) -> Result<Vec<Unconfirmed>, ChainError> {
        let began = Instant::now();
        let Some(node) = self.source.node().filter(|_| began >= self.next_look) else { return Ok(Vec::new()) };
        let found = self.mempool.look(node, || began.elapsed() < SLICE && !stop.load(Ordering::Relaxed));
        if found.is_err() || self.mempool.is_done() {
            self.next_look = Instant::now() + began.elapsed() * 10;
        }
        found
    }

    fn is_far_enough(&self) -> bool {
        let height = self.writer.follower.derivation().tip().block.height;
        self.follow.until_height.is_some_and(|until| height >= until)
    }

    /// `None`: nobody asked. `Some(None)`: the sequencer does not answer, which is told once.
    fn unsafe_head(&mut self) -> Result<Option<Option<UnsafeHead>>, Failure> {
        let Some(url) = &self.sequencer else { return Ok(None) };
        match url.status::<ServedHead>() {
            Ok(status) => {
                check_served(status.rollup_id, self.rollup_id)?;
                self.deaf = false;
                let signed = Signers::of(self.writer.follower.view())?.has_signed(url, &status.head);
                Ok(Some(Some(UnsafeHead { head: status.head, signed })))
            }
            Err(error) => {
                if !self.deaf {
                    self.out.survived(&error.into(), "the unsafe head is not known");
                    self.deaf = true;
                }
                Ok(Some(None))
            }
        }
    }
}

/// Waits for what may pass, as long as nobody says stop.
fn wait_out(outage: &mut Outage, failure: &Failure, stop: &AtomicBool, out: &Output) -> Next {
    let mut left = outage.goes_on(failure, out);
    while !left.is_zero() && !stop.load(Ordering::Relaxed) {
        let nap = left.min(Duration::from_millis(100));
        sleep(nap);
        left -= nap;
    }
    if stop.load(Ordering::Relaxed) { Next::End } else { Next::Again }
}

/// Set by Ctrl-C or SIGTERM. A second one ends the process at once, which no step minds: each is on disk
/// whole, or not at all.
fn stop_signal(out: Output) -> Result<Arc<AtomicBool>, Failure> {
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
            let mut signalled = async || {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            };
            signalled().await;
            asked.store(true, Ordering::Relaxed);
            if timeout(GRACE, signalled()).await.is_err() {
                out.note("ending after this step; again to end at once");
                signalled().await;
            }
            std::process::exit(130);
        });
    });
    Ok(stop)
}
