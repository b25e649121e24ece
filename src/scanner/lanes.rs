//! Several at a time, in order.

use std::sync::mpsc::sync_channel;
use std::thread;

/// Results that a lane has ready before it waits.
const AHEAD: usize = 2;

/// Does `work` on each of `all`, in as many threads as there are lanes, each with a buffer of its own that it
/// uses again; and hands the results to `each`, in the order of `all`, until that gives an error.
pub(super) fn in_order<A: Sync, T: Send, E>(
    lanes: usize,
    all: &[A],
    work: impl Fn(&A, &mut Vec<u8>) -> T + Sync,
    mut each: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let lanes = lanes.min(all.len());
    if lanes < 2 {
        let mut buffer = Vec::new();
        return all.iter().try_for_each(|a| each(work(a, &mut buffer)));
    }
    thread::scope(|scope| {
        let work = &work;
        let results = (0..lanes).map(|lane| {
            let (sender, receiver) = sync_channel(AHEAD);
            scope.spawn(move || {
                let mut buffer = Vec::new();
                for a in all.iter().skip(lane).step_by(lanes) {
                    // Whoever waited has seen an error.
                    if sender.send(work(a, &mut buffer)).is_err() {
                        return;
                    }
                }
            });
            receiver
        });
        let results: Vec<_> = results.collect();
        for receiver in results.iter().cycle().take(all.len()) {
            // A lane ends early only by a panic, which the scope passes on.
            let Ok(result) = receiver.recv() else { break };
            each(result)?;
        }
        Ok(())
    })
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
            let done: Result<(), ()> = in_order(lanes, &all, work, |a| {
                assert_eq!(a, seen);
                seen += 1;
                // In each lane: one at work, those that are ready, and one that waits to be.
                assert!(begun.load(Ordering::SeqCst) <= seen + lanes.max(1) * (AHEAD + 2));
                Ok(())
            });
            assert_eq!((done, seen), (Ok(()), 1000), "{lanes} lanes");
        }
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
        let done = in_order(4, &all, |a, _| *a, take);
        assert_eq!(done, Err(17));
        assert_eq!(seen, (0..17).collect::<Vec<_>>());
    }
}
