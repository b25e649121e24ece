//! Which bitcoind to run.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};

use crate::Bitcoind;

/// Fetches or finds a bitcoind and prints its path. Absent in an installed crate.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/bitcoind.sh");

impl Bitcoind {
    /// The bitcoind to run: `$BITCOIND`, else what the repository's `scripts/bitcoind.sh` answers,
    /// else `bitcoind` in `PATH`.
    ///
    /// # Errors
    /// One line that says what to do, when there is none.
    pub fn find() -> Result<PathBuf> {
        if let Some(path) = env::var_os("BITCOIND").filter(|path| !path.is_empty()) {
            let path = PathBuf::from(path);
            ensure!(path.is_file(), "BITCOIND={}: no such file", path.display());
            return Ok(path);
        }
        if let Some(path) = from_script(Path::new(SCRIPT)).or_else(from_path) {
            return Ok(path);
        }
        bail!("no bitcoind: set BITCOIND=/path/to/bitcoind, or put bitcoind in PATH");
    }
}

fn from_script(script: &Path) -> Option<PathBuf> {
    if !script.is_file() {
        return None;
    }
    // Its progress and its reason to fail go to our stderr.
    let output = Command::new(script).stdin(Stdio::null()).stderr(Stdio::inherit()).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end());
    (output.status.success() && path.is_file()).then_some(path)
}

fn from_path() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join("bitcoind")).find(|path| path.is_file())
}
