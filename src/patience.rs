//! How long a trouble that may pass is waited for, and how often people are told of it.
//!
//! Whether an error may pass is the error's own word:
//! [`ChainError::is_temporary`](crate::chain::ChainError::is_temporary) is the one list. A command that ends waits a
//! little ([`Patience`]); a process that runs on waits for ever ([`Backoff`]), and tells when the trouble begins, at
//! growing intervals while it lasts, and when it is over ([`Trouble`]).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// First and longest pause of a process that runs on.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// First and longest pause of a command that ends.
const SHORT_PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(4)];
/// A pause from which on people are told why nothing happens.
const NOTICED: Duration = Duration::from_secs(1);
/// First and longest time after which a trouble that lasts is told of again.
const REMINDERS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(3600)];

/// Pauses between attempts, each twice as long as the one before, up to a longest.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    bounds: [Duration; 2],
}

impl Default for Backoff {
    /// For a process that runs on: a second, up to half a minute.
    fn default() -> Self {
        Self::new(PAUSES)
    }
}

impl Backoff {
    fn new(bounds: [Duration; 2]) -> Self {
        Self { next: bounds[0], bounds }
    }

    /// For a command that ends: a quarter of a second, up to four.
    pub fn short() -> Self {
        Self::new(SHORT_PAUSES)
    }

    /// The pause before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.bounds[1]);
        pause
    }

    /// The pause that the other side asks for, if it does, within the bounds of this backoff; else as
    /// [`pause`](Self::pause).
    pub fn pause_or(&mut self, asked: Option<Duration>) -> Duration {
        let [first, longest] = self.bounds;
        let pause = self.pause();
        asked.map_or(pause, |asked| asked.clamp(first, longest))
    }
}

/// A trouble that begins, lasts and ends: it says when to tell of it.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// When it began, and how long after that the next reminder is due.
    lasting: Option<(Instant, Duration)>,
}

impl Trouble {
    /// It is there at `now`; `true` if people are to be told: at its beginning, and after 10 s, 20 s, 40 s, ... up to
    /// once an hour.
    pub fn is_told(&mut self, now: Instant) -> bool {
        let [first, longest] = REMINDERS;
        let Some((began, due)) = &mut self.lasting else {
            self.lasting = Some((now, first));
            return true;
        };
        let lasted = now.saturating_duration_since(*began);
        let is_due = lasted >= *due;
        if is_due {
            *due = lasted + lasted.min(longest);
        }
        is_due
    }

    /// It is over at `now`: how long it lasted, if there was one.
    pub fn end(&mut self, now: Instant) -> Option<Duration> {
        self.lasting.take().map(|(began, _)| now.saturating_duration_since(began))
    }
}

/// Whom to tell that a command waits: what went wrong, and for how long it is tried again at most.
type OnWait = dyn Fn(&dyn fmt::Display, Duration) + Send + Sync;

/// How long others are waited for while none of them answers, whatever is asked of whom.
pub struct Patience {
    total: Duration,
    left: Mutex<Duration>,
    is_told: AtomicBool,
    on_wait: Box<OnWait>,
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Patience {
    /// Waits this long for an answer, and says so once through `on_wait`.
    pub fn new(total: Duration, on_wait: impl Fn(&dyn fmt::Display, Duration) + Send + Sync + 'static) -> Self {
        Self { total, left: Mutex::new(total), is_told: AtomicBool::new(false), on_wait: Box::new(on_wait) }
    }

    /// Waits for nobody: each error is told at once.
    pub fn none() -> Self {
        Self::new(Duration::ZERO, |_, _| ())
    }

    /// Waits two seconds, without a word: for servers that limit the rate of questions.
    pub fn brief() -> Self {
        Self::new(Duration::from_secs(2), |_, _| ())
    }

    /// Attempts it, and again after each error that may pass, while there is patience left. The time that an
    /// attempt took before it failed counts, too; an answer restores all patience.
    pub fn ask<T, E: fmt::Display>(
        &self,
        is_temporary: impl Fn(&E) -> bool,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut backoff = Backoff::short();
        loop {
            let began = Instant::now();
            let error = match attempt() {
                Err(error) if is_temporary(&error) => error,
                answer => {
                    *self.left() = self.total;
                    return answer;
                }
            };
            let pause = backoff.pause();
            let Some(left) = self.spend(began.elapsed() + pause) else { return Err(error) };
            if pause >= NOTICED && !self.is_told.swap(true, Ordering::Relaxed) {
                (self.on_wait)(&error, left + pause);
            }
            sleep(pause);
        }
    }

    /// Takes this much of what is left; `None` if that was not enough.
    fn spend(&self, time: Duration) -> Option<Duration> {
        let mut left = self.left();
        let rest = left.checked_sub(time);
        *left = rest.unwrap_or_default();
        rest
    }

    fn left(&self) -> MutexGuard<'_, Duration> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_then_at_growing_intervals_and_its_end_with_its_length() {
        let (mut trouble, began) = (Trouble::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let told: Vec<u64> = (0..10_000).filter(|second| trouble.is_told(at(*second))).collect();
        assert_eq!(told, [0, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120, 8_720]);
        assert_eq!(trouble.end(at(10_001)), Some(Duration::from_secs(10_001)));
        assert_eq!(trouble.end(at(10_002)), None, "it is over");
        assert!(trouble.is_told(at(10_003)), "another one");
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..7).map(|_| backoff.pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        let mut short = Backoff::short();
        let asked =
            [None, Some(0), Some(2), Some(60), None].map(|asked| short.pause_or(asked.map(Duration::from_secs)));
        assert_eq!(asked.map(|pause| pause.as_millis()), [250, 250, 2_000, 4_000, 4_000]);
    }

    #[test]
    fn patience_is_for_all_questions_together_until_one_is_answered_and_only_what_may_pass_is_asked_again() {
        let patience = Patience::new(Duration::from_millis(1_200), |_, _| ());
        let asked = std::cell::Cell::new(0);
        let fail = |words: &'static str| {
            asked.set(asked.get() + 1);
            Err::<(), _>(words)
        };
        let ask = |words| patience.ask(|error| *error == "busy", || fail(words));
        assert_eq!((ask("forbidden"), asked.get()), (Err("forbidden"), 1), "at once");
        assert_eq!(
            (ask("busy"), asked.get()),
            (Err("busy"), 4),
            "again after 250 and 500 ms, and a second is not left"
        );
        assert_eq!((ask("busy"), asked.get()), (Err("busy"), 5), "nothing is left");
        assert_eq!(patience.ask(|_: &&str| true, || Ok(())), Ok(()));
        assert_eq!((ask("busy"), asked.get()), (Err("busy"), 8), "all of it again, once somebody has answered");
    }
}
