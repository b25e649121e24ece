//! Death on demand: for the tests of what a killed process leaves behind (feature `crash-points`).
//!
//! Every write of the wallet's database and every question to the Bitcoin node or to an Esplora server
//! has a point before and a point after it. They are counted, and at number `SORTIE_CRASH_AT` the process kills itself
//! with SIGKILL.

/// Dies here, if this is the point that was asked for. Without the feature, nothing.
#[inline]
pub(crate) fn point() {
    #[cfg(feature = "crash-points")]
    count();
}

#[cfg(feature = "crash-points")]
fn count() {
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    static PASSED: AtomicU64 = AtomicU64::new(0);
    static LAST: LazyLock<Option<u64>> = LazyLock::new(|| std::env::var("SORTIE_CRASH_AT").ok()?.parse().ok());
    if Some(PASSED.fetch_add(1, SeqCst) + 1) == *LAST {
        let _ = kill_process(getpid(), Signal::KILL);
    }
}
