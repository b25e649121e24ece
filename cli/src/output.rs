//! The only way out: answers on stdout, for people or as JSON lines; notes, warnings and the error on
//! stderr.
//!
//! Guarantees that an answer is printed whole or the command ends, that a reader who goes away ends it
//! quietly, and that no control or invisible character leaves the process, nor a line break that is not
//! ours: a node, a server, a sequencer, a manifest or a file may hold anything. Nothing else writes to
//! stdout or stderr (clippy.toml).

use crate::escape;
use crate::failure::{Code, Failure};
use crate::secret::without_logins;
use serde::Serialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::time::{Duration, UNIX_EPOCH};

/// Commands that a text may advise, and that act on the wallet they are given.
const OF_A_WALLET: [&str; 12] = [
    "bump",
    "finish",
    "force",
    "jobs",
    "reclaim",
    "recover",
    "resume",
    "status",
    "wallet address",
    "wallet balance",
    "wallet passphrase",
    "wallet send",
];

/// How to talk.
#[derive(Clone, Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
    /// The wallet that was named on the command line, and has to be named again.
    wallet: Option<String>,
}

impl Output {
    /// `json`: every answer is one JSON object a line. `quiet`: no notes.
    pub fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet, wallet: None }
    }

    /// Advises commands on this wallet.
    pub fn of_wallet(self, wallet: Option<String>) -> Self {
        Self { wallet, ..self }
    }

    fn advice<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(wallet) = &self.wallet else { return Cow::Borrowed(text) };
        Cow::Owned(OF_A_WALLET.iter().fold(text.to_owned(), |text, command| {
            text.replace(&format!("sortie {command}"), &format!("sortie {command} --wallet {wallet}"))
        }))
    }

    /// Whether answers are JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether notes are not wanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Prints an answer: its JSON form, or what it shows to people, if that is anything.
    pub fn print<T: Serialize + fmt::Display>(&self, answer: &T) -> Result<(), Failure> {
        if self.json {
            return self.json_line(answer);
        }
        let mut text = answer.to_string();
        text.truncate(text.trim_end_matches('\n').len());
        if text.is_empty() {
            return Ok(());
        }
        if text.contains('\n') {
            one_line_each(&mut text, &serde_json::to_value(answer).map_err(Failure::failed)?);
        }
        self.line(&text)
    }

    /// Prints an answer that is JSON for everybody.
    pub fn json_line<T: Serialize>(&self, answer: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(answer).map_err(Failure::failed)?;
        write_line(stdout().lock(), &escape::json(&self.advice(&text)))
    }

    /// Prints lines for people, or for a program that reads no JSON.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        write_line(stdout().lock(), &escape::lines(&self.advice(text)))
    }

    /// Something worth knowing; not with `--quiet`.
    pub fn note(&self, text: impl fmt::Display) {
        if !self.quiet {
            self.aside("note", text);
        }
    }

    /// Something that a person should read before going on.
    pub fn warn(&self, text: impl fmt::Display) {
        self.aside("warning", text);
    }

    /// An error that the command survives: the one line that it would end with.
    pub fn survived(&self, failure: &Failure, what_next: &str) {
        self.aside("warning", format_args!("{failure}; {what_next}"));
    }

    /// Something that is JSON for everybody, beside the answers.
    pub fn aside_json(&self, value: &Value) {
        // Nobody can be told that stderr is gone.
        let _ = write_line(stderr().lock(), &escape::json(&value.to_string()));
    }

    fn aside(&self, kind: &str, text: impl fmt::Display) {
        let text = one_line(&text);
        let text = without_logins(&text);
        let text = self.advice(&text);
        if self.json {
            self.aside_json(&json!({ kind: text }));
        } else {
            let _ = write_line(stderr().lock(), &escape::line(&format!("{kind}: {text}")));
        }
    }

    /// Tells why the command ends, and gives the exit code.
    pub fn end(&self, failure: &Failure) -> u8 {
        match failure {
            Failure::ClosedPipe => 0,
            Failure::Error { code, message, .. } => self.error(*code, message),
        }
    }

    /// The error line.
    pub fn error(&self, code: Code, message: &str) -> u8 {
        let number = code as u8;
        if self.json {
            // In this order since the first release.
            let message = one_line(message);
            let message = without_logins(&message);
            let message = self.advice(&message);
            let text = format!(r#"{{"error":{},"code":{number}}}"#, json!(message));
            let _ = write_line(stderr().lock(), &escape::json(&text));
        } else {
            self.aside("error", message);
        }
        number
    }

    /// Whether answers are seen at once by a person.
    pub fn is_on_terminal(&self) -> bool {
        stdout().is_terminal()
    }

    /// Whether notes are.
    pub fn notes_are_on_terminal(&self) -> bool {
        stderr().is_terminal()
    }

    /// Tells of a panic in one line like any error: its words may be a node's.
    pub fn tell_of_panics(self) {
        panic::set_hook(Box::new(move |panic| {
            self.error(Code::Failed, &words_of(panic));
        }));
    }
}

fn words_of(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map_or(String::new(), |place| format!(" at {place}"));
    let payload = panic.payload();
    let why = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let why = why.unwrap_or("no reason given");
    format!("a fault in sortie itself{place}, please report it: {why}")
}

/// Errors of libraries, nodes and servers may have several lines; ours have one.
pub fn one_line(text: &(impl fmt::Display + ?Sized)) -> String {
    text.to_string().lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Makes one line of each field of an answer where its text repeats it: only the breaks between them are ours.
fn one_line_each(text: &mut String, answer: &Value) {
    match answer {
        Value::String(field) if field.contains('\n') => *text = text.replace(field, &escape::line(field)),
        Value::Array(fields) => fields.iter().for_each(|field| one_line_each(text, field)),
        Value::Object(fields) => fields.values().for_each(|field| one_line_each(text, field)),
        _ => {}
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place")]
fn stdout() -> io::Stdout {
    io::stdout()
}

#[expect(clippy::disallowed_methods, reason = "the one place")]
fn stderr() -> io::Stderr {
    io::stderr()
}

/// Stdout for bytes that are no text.
///
/// # Errors
/// It is a terminal.
#[cfg(feature = "parquet")]
pub fn stdout_for_bytes(refusal: &str) -> Result<io::Stdout, Failure> {
    let stdout = stdout();
    if stdout.is_terminal() { Err(Failure::usage(refusal)) } else { Ok(stdout) }
}

/// An answer that could not be written.
pub fn unwritten(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::ClosedPipe,
        _ => Failure::failed(format_args!("cannot write to stdout: {error}")),
    }
}

fn write_line(mut stream: impl Write, text: &str) -> Result<(), Failure> {
    let written = stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(b"\n"));
    written.and_then(|()| stream.flush()).map_err(|error| unwritten(&error))
}

/// A line of an answer for people: a name in a column of its own, and a value.
pub fn field(f: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<16}  {value}")
}

/// A time in seconds since 1970, for people.
pub fn utc(seconds: u64) -> String {
    // Whatever comes behind it has no date in four digits.
    const LAST: u64 = 253_402_300_799;
    let time = UNIX_EPOCH + Duration::from_secs(seconds.min(LAST));
    humantime::format_rfc3339_seconds(time).to_string().replace('T', " ").replace('Z', " UTC")
}

/// `1 block`, `2 blocks`.
pub fn count(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_advised_on_the_wallet_that_was_named() {
        let said = "`sortie bump 2`, (sortie wallet address), sortie follow";
        let out = Output::new(false, false);
        assert_eq!(out.advice(said), said);
        let advice = out.of_wallet(Some("cold".into())).advice(said);
        assert_eq!(advice, "`sortie bump --wallet cold 2`, (sortie wallet address --wallet cold), sortie follow");
    }

    #[test]
    fn a_field_from_outside_forges_no_line() {
        #[derive(Serialize)]
        struct Answer {
            fields: Vec<String>,
        }
        let evil = "mine\nrollup id         00ff";
        let mut text = format!("name              {evil}\nnetwork           regtest");
        let answer = serde_json::to_value(Answer { fields: vec!["regtest".into(), evil.into()] }).expect("plain");
        one_line_each(&mut text, &answer);
        assert_eq!(text, "name              mine\\nrollup id         00ff\nnetwork           regtest");
        assert_eq!(one_line("it failed\n\n  error: all is well\r\n"), "it failed error: all is well");
    }

    #[test]
    fn a_time_is_a_date() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(1_709_210_096), "2024-02-29 12:34:56 UTC");
        assert_eq!(utc(u64::MAX), "9999-12-31 23:59:59 UTC");
    }
}
