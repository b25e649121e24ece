//! The only way out: answers on stdout, for people or as JSON lines; notes, warnings and the error on
//! stderr.
//!
//! Guarantees that an answer is printed whole or the command ends, and that a reader who goes away ends
//! it quietly.

use crate::failure::{Code, Failure};
use serde::Serialize;
use serde_json::json;
use std::fmt;
use std::io::{self, ErrorKind, Write};
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

    fn advice(&self, text: &str) -> String {
        let Some(wallet) = &self.wallet else { return text.to_owned() };
        OF_A_WALLET.iter().fold(text.to_owned(), |text, command| {
            text.replace(&format!("sortie {command}"), &format!("sortie {command} --wallet {wallet}"))
        })
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
        match answer.to_string() {
            text if text.is_empty() => Ok(()),
            text => line(&self.advice(text.trim_end_matches('\n'))),
        }
    }

    /// Prints an answer that is JSON for everybody.
    pub fn json_line<T: Serialize>(&self, answer: &T) -> Result<(), Failure> {
        line(&self.advice(&serde_json::to_string(answer).map_err(Failure::failed)?))
    }

    /// Prints a line that is the same for everybody.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        line(text)
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
    pub fn aside_json(&self, value: &serde_json::Value) {
        let _ = writeln!(io::stderr(), "{value}");
    }

    fn aside(&self, kind: &str, text: impl fmt::Display) {
        let text = self.advice(&text.to_string());
        // Nobody can be told that stderr is gone.
        let _ = match self.json {
            true => writeln!(io::stderr(), "{}", json!({ kind: text })),
            false => writeln!(io::stderr(), "{kind}: {text}"),
        };
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
        let message = self.advice(message);
        let _ = match self.json {
            true => writeln!(io::stderr(), r#"{{"error":{},"code":{number}}}"#, json!(message)),
            false => writeln!(io::stderr(), "error: {message}"),
        };
        number
    }
}

fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush()).map_err(
        |error| match error.kind() {
            ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => Failure::failed(format_args!("cannot write to stdout: {error}")),
        },
    )
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
    fn a_time_is_a_date() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(1_709_210_096), "2024-02-29 12:34:56 UTC");
        assert_eq!(utc(u64::MAX), "9999-12-31 23:59:59 UTC");
    }
}
