//! A program under test as a real process: its lines, its end, its death.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::child::Process;
use crate::wait::wait_until;
use crate::watchdog::signal;

/// After the exit, output that is still in the pipes.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How many lines a failure message quotes.
const QUOTED: usize = 20;

/// A child process with captured output. It is killed on drop, and when this process is gone.
pub struct Proc {
    name: String,
    process: Process,
    lines: Arc<Mutex<Vec<Line>>>,
    readers: Vec<JoinHandle<()>>,
    /// Where `wait_line` goes on, on stdout and stderr: between the two there is no order.
    seen: [usize; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

struct Line {
    stream: Stream,
    text: String,
}

impl Proc {
    /// Starts the program, with nothing on its stdin.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {name}"))?;
        let mut process = Process::guarded(child, None)?;
        let lines = Arc::default();
        let stdout = process.child().stdout.take().context("no stdout")?;
        let stderr = process.child().stderr.take().context("no stderr")?;
        let readers = vec![read_lines(stdout, Stream::Out, &lines), read_lines(stderr, Stream::Err, &lines)];
        Ok(Self { name, process, lines, readers, seen: [0; 2] })
    }

    /// The process number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for a line, on stdout or stderr, after those that earlier calls found on its stream.
    ///
    /// # Errors
    /// No such line within `limit`, or the program ended first; the message quotes its last lines.
    pub fn wait_line(&mut self, what: &str, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let found = wait_until(what, limit, || {
            // Looked at before the lines are: what it wrote before its end then counts.
            let ended = self.drained()?;
            let lines = lock(&self.lines);
            let fresh = |(at, line): &(usize, &Line)| *at >= self.seen[line.stream as usize];
            let mut hits = lines.iter().enumerate().filter(fresh);
            match (hits.find(|(_, line)| wanted(&line.text)), ended) {
                (Some((at, line)), _) => Ok(Some((at, line.stream, line.text.clone()))),
                (None, Some(status)) => bail!("{} ended with {status}", self.name),
                (None, None) => Ok(None),
            }
        });
        let (at, stream, text) = found.with_context(|| self.quote())?;
        self.seen[stream as usize] = at + 1;
        Ok(text)
    }

    /// Waits until the program ends by itself and all of its output is here.
    ///
    /// # Errors
    /// Still running after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        let status = wait_until(&what, limit, || self.process.exit_status()).with_context(|| self.quote())?;
        let what = format!("the output of {}", self.name);
        wait_until(&what, DRAIN_LIMIT, || self.drained())?;
        Ok(status)
    }

    /// SIGKILL, as a power cut would: no destructor runs, nothing is flushed. Waits for the end.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill9(&mut self) -> Result<()> {
        if self.process.exit_status()?.is_none() {
            self.process.child().kill()?;
        }
        self.process.child().wait()?;
        Ok(())
    }

    /// SIGTERM, a polite request; see [`wait_exit`](Self::wait_exit).
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn terminate(&mut self) -> Result<()> {
        // An ended child keeps its number until we ask, so the signal cannot hit a stranger.
        if self.process.exit_status()?.is_none() {
            signal(self.pid(), "TERM")?;
        }
        Ok(())
    }

    /// The lines on stdout so far.
    pub fn stdout(&self) -> Vec<String> {
        self.lines_of(Stream::Out)
    }

    /// The lines on stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        self.lines_of(Stream::Err)
    }

    fn lines_of(&self, stream: Stream) -> Vec<String> {
        let lines = lock(&self.lines);
        let of = lines.iter().filter(|line| line.stream == stream);
        of.map(|line| line.text.clone()).collect()
    }

    /// The exit status, once nothing can follow in the pipes.
    fn drained(&mut self) -> Result<Option<ExitStatus>> {
        let drained = self.readers.iter().all(JoinHandle::is_finished);
        Ok(self.process.exit_status()?.filter(|_| drained))
    }

    fn quote(&self) -> String {
        let lines = lock(&self.lines);
        let skipped = lines.len().saturating_sub(QUOTED);
        let last: Vec<_> = lines[skipped..].iter().map(|l| l.text.as_str()).collect();
        format!("{} said last:\n{}\n", self.name, last.join("\n"))
    }
}

fn read_lines(pipe: impl Read + Send + 'static, stream: Stream, lines: &Arc<Mutex<Vec<Line>>>) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for bytes in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_end_matches('\r').to_owned();
            lock(&lines).push(Line { stream, text });
        }
    })
}

/// Lines are only ever appended, so a panic elsewhere leaves them whole.
fn lock(lines: &Mutex<Vec<Line>>) -> MutexGuard<'_, Vec<Line>> {
    lines.lock().unwrap_or_else(|held| held.into_inner())
}
