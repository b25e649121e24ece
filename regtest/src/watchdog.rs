//! Children die with their parent, whatever kills the parent.
//!
//! `Drop` covers a return and a panic; a SIGKILL of the parent runs no destructor. So a shell holds
//! the reading end of a pipe whose only writer is the parent: when the kernel closes it, the shell
//! kills the child. What remains open is the instant between the two spawns.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A line means "stand down", the end of the pipe means that the parent is gone.
/// The pause before the removal lets a killed process close its files.
const SCRIPT: &str = r#"trap '' HUP INT TERM
read -r line && exit
kill -9 "$1" 2>/dev/null
[ -z "$2" ] || { sleep 1; rm -rf -- "$2"; }"#;

/// Kills one child when the process that holds this value is gone.
pub(crate) struct Watchdog {
    shell: Child,
}

impl Watchdog {
    /// Guards the process `pid`; `temporary` is a folder to remove after a kill.
    pub(crate) fn guard(pid: u32, temporary: Option<&Path>) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "watchdog"]).arg(pid.to_string());
        if let Some(folder) = temporary {
            command.arg(folder);
        }
        let shell = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A test runner kills whole process groups; this shell has to survive that.
            .process_group(0)
            .spawn()?;
        Ok(Self { shell })
    }
}

impl Drop for Watchdog {
    /// The child has ended: its number may soon belong to someone else.
    fn drop(&mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            // A shell that is already gone needs no order.
            let _ = pipe.write_all(b"\n");
        }
        let _ = self.shell.wait();
    }
}

/// Sends a signal by name (`TERM`, `KILL`) with the shell's builtin, so that no `unsafe` is needed.
pub(crate) fn signal(pid: u32, name: &str) -> io::Result<()> {
    Command::new("/bin/sh")
        .args(["-c", r#"kill -"$1" "$2" 2>/dev/null"#, "signal", name])
        .arg(pid.to_string())
        .status()
        .map(drop)
}
