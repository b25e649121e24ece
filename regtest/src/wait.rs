//! The one place where the harness sleeps: a condition loop with a limit.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const POLL: Duration = Duration::from_millis(20);

/// Asks `condition` again and again until it answers `Some`, and returns that answer.
///
/// # Errors
/// `<what>: not within <limit>` when the time is up; the condition's own error, at once.
pub fn wait_until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        // Asked once more after the limit, so that a slow machine gets the last word.
        let late = started.elapsed() >= limit;
        if let Some(answer) = condition().with_context(|| format!("waiting for: {what}"))? {
            return Ok(answer);
        }
        if late {
            bail!("{what}: not within {limit:?}");
        }
        thread::sleep(POLL);
    }
}
