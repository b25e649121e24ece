//! Trouble that a process waits for: told when it begins, now and then while it lasts, and when it is over.

use crate::failure::Failure;
use crate::output::Output;
use sortie::patience::{Backoff, Trouble};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Whatever is waited for, in one place and in the same words.
#[derive(Debug, Default)]
pub struct Outage {
    trouble: Trouble,
    backoff: Backoff,
}

impl Outage {
    /// It is there: tells of it if that is due, and gives the pause before the next attempt.
    pub fn goes_on(&mut self, failure: &Failure, out: &Output) -> Duration {
        if self.trouble.is_told(Instant::now()) {
            out.survived(failure, "trying again until that passes");
        }
        self.backoff.pause()
    }

    /// It is over, if there was one: says so.
    pub fn ends(&mut self, out: &Output) {
        if let Some(lasted) = self.trouble.end(Instant::now()) {
            out.note(format_args!("that has passed, after {} s: going on", lasted.as_secs()));
            self.backoff = Backoff::default();
        }
    }

    /// Gives an error that may pass some time, where all went well before; any other one ends the command.
    pub fn survive(&mut self, failure: Failure, out: &Output) -> Result<(), Failure> {
        if !failure.may_pass() {
            return Err(failure);
        }
        sleep(self.goes_on(&failure, out));
        Ok(())
    }
}
