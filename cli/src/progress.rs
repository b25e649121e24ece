//! How far a long reading of Bitcoin has come: a bar on a terminal, a line now and then elsewhere, with
//! `--json` as JSON. On stderr, and never with `--quiet`.

use crate::output::{Output, count};
use crate::reading::Readers;
use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use serde_json::json;
use sortie::follower::{Applied, ChainEvent};
use sortie::primitives::BtcHeight;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Blocks behind the tip from which on a person wants to know why it takes so long.
const WORTH_A_NOTE: u32 = 200;
/// Between two lines.
const PAUSE: Duration = Duration::from_secs(10);
const STYLE: &str = "{bar:24} {heights}, {rate}, {eta_precise} left, {msg}";

/// The progress of one reading.
pub struct Progress<'a> {
    out: &'a Output,
    from: BtcHeight,
    to: BtcHeight,
    at: BtcHeight,
    bytes: u64,
    items: u64,
    began: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl<'a> Progress<'a> {
    /// Reading from the block above `from` to `to`; `None` if that is not worth telling.
    ///
    /// `readers`: what is read, if that is to be told as well.
    pub fn begin(out: &'a Output, from: BtcHeight, to: BtcHeight, readers: Option<&Readers>) -> Option<Self> {
        if to.saturating_sub(from) < WORTH_A_NOTE || out.is_quiet() {
            return None;
        }
        let source = readers.map_or(String::new(), |readers| format!(" from {readers}"));
        out.note(format_args!("reading Bitcoin blocks {} to {to}{source}", from + 1));
        let now = Instant::now();
        let bar = (out.notes_are_on_terminal() && !out.is_json()).then(|| bar(from, to));
        Some(Self { out, from, to, at: from, bytes: 0, items: 0, began: now, told: now, bar })
    }

    /// A block was applied or taken back.
    pub fn saw(&mut self, event: &ChainEvent) {
        match event {
            ChainEvent::Applied(applied) => self.applied(applied),
            ChainEvent::Reverted(block) => self.reverted(block.height),
        }
    }

    /// All above it is yet to be read.
    fn reverted(&mut self, height: BtcHeight) {
        self.at = height.saturating_sub(1);
        if self.at < self.from {
            self.from = self.at;
            self.bar.iter().for_each(|bar| bar.set_length(self.to.saturating_sub(self.from).into()));
        }
    }

    fn applied(&mut self, applied: &Applied) {
        self.at = applied.block.height;
        self.bytes += applied.len as u64;
        self.items += applied.queued.len() as u64;
        match &self.bar {
            Some(bar) => {
                bar.set_position((self.at - self.from).into());
                if !applied.queued.is_empty() {
                    bar.set_message(count(self.items, "item"));
                }
            }
            None if self.told.elapsed() >= PAUSE => {
                self.told = Instant::now();
                self.line();
            }
            None => {}
        }
    }

    /// Tells of an event without tearing the bar.
    pub fn around<T>(&self, event: &ChainEvent, tell: impl FnOnce() -> T) -> T {
        match (&self.bar, event) {
            // Nothing is printed, and drawing the bar anew for each block would take longer than reading it.
            (Some(_), ChainEvent::Applied(applied)) if applied.is_empty() => tell(),
            (Some(bar), _) => bar.suspend(tell),
            (None, _) => tell(),
        }
    }

    fn line(&self) {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let done = f64::from(self.at - self.from);
        let blocks_per_s = done / seconds;
        let bytes_per_s = self.bytes as f64 / seconds;
        let eta_s = f64::from(self.to.saturating_sub(self.at)) / blocks_per_s.max(0.001);
        if self.out.is_json() {
            self.out.aside_json(&json!({ "progress": {
                "height": self.at, "target": self.to, "blocks_per_s": blocks_per_s as u64,
                "bytes_per_s": bytes_per_s as u64, "eta_s": eta_s as u64, "items": self.items,
            } }));
            return;
        }
        self.out.note(format_args!(
            "at Bitcoin block {} of {}, {blocks_per_s:.0} blocks/s, {:.0} MB/s, {} left, {}",
            self.at,
            self.to,
            bytes_per_s / 1e6,
            HumanDuration(Duration::from_secs(eta_s as u64)),
            count(self.items, "item")
        ));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None if self.at > self.from => self.line(),
            None => {}
        }
    }
}

fn bar(from: BtcHeight, to: BtcHeight) -> ProgressBar {
    let bar = ProgressBar::new((to - from).into());
    let heights = move |state: &ProgressState, out: &mut dyn Write| {
        let from = u64::from(to).saturating_sub(state.len().unwrap_or(0));
        let _ = write!(out, "block {} of {to}", from + state.pos());
    };
    let rate = |state: &ProgressState, out: &mut dyn Write| {
        let _ = write!(out, "{:.0} blocks/s", state.per_sec());
    };
    // The template is a constant; without it there is a plainer bar.
    let style = ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.with_key("heights", heights).with_key("rate", rate));
    bar.with_message(count(0, "item"))
}
