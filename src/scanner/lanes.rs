//! Several at a time, in order, in little memory.

use std::sync::mpsc::sync_channel;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Results that a lane has ready before it waits.
const AHEAD: usize = 2;

/// Bytes of results that are ready, from which on a lane that has one waits.
const MOST_BYTES: usize = 8 << 20;

/// Does `work` on each of `all`, in as many threads as there are lanes, each with a buffer of its own that it
/// uses again; and hands the results to `each`, in the order of `all`, until that gives an error.
///
/// `weigh` gives a result's bytes. No more than [`MOST_BYTES`] of them wait, and one result of each lane.
pub(super) fn in_order<A: Sync, T: Send, E>(
    lanes: usize,
    all: &[A],
    work: impl Fn(&A, &mut Vec<u8>) -> T + Sync,
    weigh: impl Fn(&T) -> usize + Sync,
    mut each: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let lanes = lanes.min(all.len());
    if lanes < 2 {
        let mut buffer = Vec::new();
        return all.iter().try_for_each(|a| each(work(a, &mut buffer)));
    }
    let gate = Gate::new(lanes);
    thread::scope(|scope| {
        // However this ends, nobody waits any more.
        let _end = End(&gate);
        let (work, weigh, gate) = (&work, &weigh, &gate);
        let results = (0..lanes).map(|lane| {
            let (sender, receiver) = sync_channel(AHEAD);
            scope.spawn(move || {
                let mut buffer = Vec::new();
                for a in all.iter().skip(lane).step_by(lanes) {
                    gate.wait(lane);
                    let result = work(a, &mut buffer);
                    gate.ready(lane, weigh(&result));
                    // Whoever waited has seen an error.
                    if sender.send(result).is_err() {
                        return;
                    }
                }
            });
            receiver
        });
        let results: Vec<_> = results.collect();
        for (lane, receiver) in results.iter().enumerate().cycle().take(all.len()) {
            // A lane ends early only by a panic, which the scope passes on.
            let Ok(result) = receiver.recv() else { break };
            gate.taken(lane, weigh(&result));
            each(result)?;
        }
        Ok(())
    })
}

/// Holds up lanes that run ahead with large results; never one that has none ready, for which somebody may wait.
struct Gate {
    waiting: Mutex<Waiting>,
    taken: Condvar,
}

struct Waiting {
    bytes: usize,
    /// Results, by lane.
    results: Vec<usize>,
    ended: bool,
}

impl Gate {
    fn new(lanes: usize) -> Self {
        let waiting = Waiting { bytes: 0, results: vec![0; lanes], ended: false };
        Self { waiting: Mutex::new(waiting), taken: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, lane: usize) {
        let ahead = |waiting: &mut Waiting| !waiting.ended && waiting.bytes > MOST_BYTES && waiting.results[lane] > 0;
        drop(self.taken.wait_while(self.lock(), ahead).unwrap_or_else(PoisonError::into_inner));
    }

    fn ready(&self, lane: usize, bytes: usize) {
        let mut waiting = self.lock();
        waiting.bytes += bytes;
        waiting.results[lane] += 1;
    }

    fn taken(&self, lane: usize, bytes: usize) {
        let mut waiting = self.lock();
        waiting.bytes -= bytes;
        waiting.results[lane] -= 1;
        self.taken.notify_all();
    }
}

struct End<'a>(&'a Gate);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.taken.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn results_come_in_order_and_nobody_runs_far_ahead() {
        let all: Vec<usize> = (0..1000).collect();
        for lanes in [0, 1, 2, 3, 8, 2000] {
            let (begun, mut seen) = (AtomicUsize::new(0), 0);
            let work = |a: &usize, _: &mut Vec<u8>| {
                begun.fetch_add(1, Ordering::SeqCst);
                *a
            };
            let done: Result<(), ()> = in_order(
                lanes,
                &all,
                work,
                |_| 1,
                |a| {
                    assert_eq!(a, seen);
                    seen += 1;
                    // In each lane: one at work, those that are ready, and one that waits to be.
                    assert!(begun.load(Ordering::SeqCst) <= seen + lanes.max(1) * (AHEAD + 2));
                    Ok(())
                },
            );
            assert_eq!((done, seen), (Ok(()), 1000), "{lanes} lanes");
        }
    }

    #[test]
    fn what_was_taken_holds_nobody_up_any_more() {
        let gate = Gate::new(2);
        gate.ready(0, MOST_BYTES + 1);
        gate.ready(1, 1);
        gate.taken(0, MOST_BYTES + 1);
        let waiting = gate.lock();
        assert_eq!((waiting.bytes, &waiting.results[..]), (1, &[0, 1][..]));
    }

    #[test]
    fn an_error_ends_it_for_every_lane() {
        let all: Vec<usize> = (0..1000).collect();
        let mut seen = Vec::new();
        let take = |a| {
            if a == 17 {
                return Err(a);
            }
            seen.push(a);
            Ok(())
        };
        let done = in_order(4, &all, |a, _| *a, |_| MOST_BYTES, take);
        assert_eq!(done, Err(17));
        assert_eq!(seen, (0..17).collect::<Vec<_>>());
    }

    #[test]
    fn of_large_results_no_lane_has_more_than_one() {
        let all: Vec<usize> = (0..1000).collect();
        for lanes in [2, 4, 8] {
            let (begun, mut seen) = (AtomicUsize::new(0), 0);
            let work = |a: &usize, _: &mut Vec<u8>| {
                begun.fetch_add(1, Ordering::SeqCst);
                *a
            };
            let done: Result<(), ()> = in_order(
                lanes,
                &all,
                work,
                |_| MOST_BYTES + 1,
                |a| {
                    assert_eq!(a, seen);
                    seen += 1;
                    assert!(begun.load(Ordering::SeqCst) <= seen + lanes);
                    Ok(())
                },
            );
            assert_eq!((done, seen), (Ok(()), 1000), "{lanes} lanes");
        }
    }
}
