//! Who ends a child process, and when.

use std::path::Path;
use std::process::{Child, ExitStatus};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::watchdog::Watchdog;

/// A child that dies with this value. Fields are dropped in this order, after the kill.
pub(crate) struct Process {
    child: Child,
    released: bool,
    watchdog: Option<Watchdog>,
    temporary: Option<TempDir>,
}

impl Process {
    /// Also dies with this process.
    pub(crate) fn guarded(child: Child, temporary: Option<&Path>) -> Result<Self> {
        let pid = child.id();
        let mut process = Self::unguarded(child);
        process.watchdog = Some(Watchdog::guard(pid, temporary).context("no watchdog")?);
        Ok(process)
    }

    pub(crate) fn unguarded(child: Child) -> Self {
        Self { child, released: false, watchdog: None, temporary: None }
    }

    pub(crate) fn remove_at_exit(&mut self, temporary: Option<TempDir>) {
        self.temporary = temporary;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Lets an unguarded child live on.
    pub(crate) fn release(mut self) {
        self.released = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.released {
            // An error means that it has already ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
