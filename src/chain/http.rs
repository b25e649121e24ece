//! HTTP to bitcoind with connections that are kept, each request with its own time limit.

use super::ChainError;
use std::io::{self, Read};
use std::time::Duration;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

/// Longest answer that is read, in bytes: the largest are blocks in hexadecimal (8 MB) and the list of a full
/// mempool's transactions (33 MB at 600 bytes of memory each).
const MAX_ANSWER: u64 = 64 << 20;

/// Connections that are kept between requests.
const KEPT: usize = 8;

/// A client of one server.
#[derive(Clone, Debug)]
pub(super) struct Http {
    agent: Agent,
    /// Address without credentials.
    url: String,
}

impl Http {
    pub fn new(url: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // bitcoind sends nobody elsewhere, where our password would go along; nor does that go through a proxy
            // because the environment names one.
            .max_redirects(0)
            .proxy(None)
            .max_idle_connections(KEPT)
            .max_idle_connections_per_host(KEPT)
            .build();
        Self { agent: config.new_agent(), url: url.to_owned() }
    }

    /// Address without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `GET` of a path; the answer takes the place of whatever `body` holds.
    pub fn get(&self, path: &str, limit: Duration, body: &mut Vec<u8>) -> Result<StatusCode, ChainError> {
        self.answer(body, || {
            let request = self.agent.get(format!("{}{path}", self.url));
            request.config().timeout_global(Some(limit)).build().call()
        })
    }

    /// `POST` of JSON with an `Authorization`; the answer takes the place of whatever `body` holds.
    pub fn post(
        &self,
        authorization: &str,
        limit: Duration,
        json: &[u8],
        body: &mut Vec<u8>,
    ) -> Result<StatusCode, ChainError> {
        self.answer(body, || {
            let request = self.agent.post(&self.url).header("Authorization", authorization);
            request.content_type("application/json").config().timeout_global(Some(limit)).build().send(json)
        })
    }

    fn answer(
        &self,
        body: &mut Vec<u8>,
        ask: impl Fn() -> Result<Response<Body>, ureq::Error>,
    ) -> Result<StatusCode, ChainError> {
        // A connection that was kept may have been closed meanwhile: one more, with a new connection.
        let answer = self.once(body, &ask).or_else(|error| match timed_out(&error) {
            true => Err(error),
            false => self.once(body, &ask),
        });
        answer.map_err(|error| ChainError::Unreachable { url: self.url.clone(), reason: reason(&error) })
    }

    fn once(
        &self,
        body: &mut Vec<u8>,
        ask: &impl Fn() -> Result<Response<Body>, ureq::Error>,
    ) -> Result<StatusCode, ureq::Error> {
        body.clear();
        let mut response = ask()?;
        if let Some(len) = response.body().content_length() {
            body.reserve(usize::try_from(len.min(MAX_ANSWER)).unwrap_or(0));
        }
        response.body_mut().with_config().limit(MAX_ANSWER).reader().read_to_end(body)?;
        Ok(response.status())
    }
}

fn timed_out(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Timeout(_) => true,
        ureq::Error::Io(error) => matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock),
        _ => false,
    }
}

/// What happened, without the operating system's number.
fn reason(error: &ureq::Error) -> String {
    match error {
        error if timed_out(error) => "timed out".into(),
        ureq::Error::Io(error) => plain(error),
        error => error.to_string(),
    }
}

/// An I/O error without the operating system's number.
pub(super) fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timed out".into(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "it closed the connection".into(),
        _ => error.to_string(),
    }
}

/// What bitcoind means by an HTTP status 503, which its words tell.
pub(super) fn unavailable(url: String, words: &[u8]) -> ChainError {
    let words = String::from_utf8_lossy(words);
    match words.trim() {
        "Work queue depth exceeded" => ChainError::Busy { url },
        // REST, while the block index is loaded, with the step that it is at.
        words => match words.strip_prefix("Service temporarily unavailable: ") {
            Some(step) => ChainError::WarmingUp { url, message: step.into() },
            None => ChainError::Unreachable { url, reason: format!("HTTP status 503 {words}") },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_only_who_says_so() {
        for (words, expected) in [
            ("Work queue depth exceeded", "bitcoind at u is busy"),
            ("Service temporarily unavailable: Verifying blocks…\r\n", "still starting (Verifying blocks…)"),
            ("Request rejected during server shutdown", "at u: HTTP status 503 Request rejected during server"),
        ] {
            let error = unavailable("u".into(), words.as_bytes());
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.is_temporary());
        }
    }
}
