//! HTTP to nodes and servers, with connections that are kept.
//!
//! Guarantees that each answer has a time limit and a length limit of its own, headers included, that nothing is
//! decompressed, and that no redirect is followed.

use super::{ChainError, ServerUrl};
use crate::patience::Patience;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

/// Connections that are kept between requests.
const KEPT: usize = 8;
/// Longest words of somebody else that are repeated, in characters.
const WORDS: usize = 200;

/// How nodes and servers are reached: the patience with them, and whose certificates they may show.
#[derive(Clone, Debug)]
pub struct Transport {
    /// How long they are waited for.
    pub patience: Arc<Patience>,
    /// Authorities that replace those of the Web.
    pub authorities: Option<Authorities>,
}

impl Transport {
    /// With this patience, and certificates of the Web's authorities.
    pub fn new(patience: Patience) -> Self {
        Self { patience: Arc::new(patience), authorities: None }
    }
}

/// Certificates that may sign a server's.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<Vec<Certificate<'static>>>);

impl Authorities {
    /// Those of a PEM file; `None` if it holds no certificate, or something broken.
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        let mut certificates = Vec::new();
        for item in parse_pem(pem) {
            if let PemItem::Certificate(certificate) = item.ok()? {
                certificates.push(certificate);
            }
        }
        (!certificates.is_empty()).then(|| Self(Arc::new(certificates)))
    }
}

/// What an answer may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From the first byte that is sent to the last that is read.
    pub time: Duration,
    /// Bytes of the body.
    pub bytes: usize,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum HttpError {
    /// Nobody listens, or the connection broke or ran out of time.
    #[error("{0}")]
    Unreachable(String),
    /// The server cannot show who it is.
    #[error("{0}")]
    Tls(String),
    /// The body is longer than anything that could be meant.
    #[error("more than {0} bytes")]
    TooLong(usize),
}

impl HttpError {
    /// Whose node it is.
    pub fn of_node(self, url: &str, method: &str) -> ChainError {
        let url = url.to_owned();
        match self {
            Self::Unreachable(reason) => ChainError::Unreachable { url, reason },
            Self::Tls(reason) => ChainError::Tls { url, reason },
            Self::TooLong(_) => ChainError::Malformed { method: method.into(), reason: self.to_string() },
        }
    }
}

/// A client of one server.
#[derive(Clone, Debug)]
pub(super) struct Http {
    agent: Agent,
    url: ServerUrl,
    base: String,
}

impl Http {
    /// Connects to nobody yet.
    pub fn new(url: ServerUrl, transport: &Transport, proxy: Option<ureq::Proxy>) -> Self {
        let roots = match &transport.authorities {
            Some(Authorities(certificates)) => RootCerts::Specific(Arc::clone(certificates)),
            None => RootCerts::WebPki,
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Neither bitcoind nor an Esplora server sends anybody elsewhere, where a password would go along; nor does
            // that go through a proxy because the environment names one.
            .max_redirects(0)
            .proxy(proxy)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .max_idle_connections(KEPT)
            .max_idle_connections_per_host(KEPT)
            .build();
        Self { agent: config.new_agent(), base: url.base(), url }
    }

    /// The address.
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// `GET` of a path; the answer takes the place of whatever `body` holds.
    pub fn get(&self, path: &str, limits: Limits, body: &mut Vec<u8>) -> Result<StatusCode, HttpError> {
        self.answer(limits, body, || {
            let request = self.agent.get(format!("{}{path}", self.base));
            request.config().timeout_global(Some(limits.time)).build().call()
        })
    }

    /// `POST` of JSON or text; the answer takes the place of whatever `body` holds.
    pub fn post(
        &self,
        path: &str,
        authorization: Option<&str>,
        sent: &[u8],
        limits: Limits,
        body: &mut Vec<u8>,
    ) -> Result<StatusCode, HttpError> {
        self.answer(limits, body, || {
            let mut request = self.agent.post(format!("{}{path}", self.base)).content_type("application/json");
            if let Some(authorization) = authorization {
                request = request.header("Authorization", authorization);
            }
            request.config().timeout_global(Some(limits.time)).build().send(sent)
        })
    }

    fn answer(
        &self,
        limits: Limits,
        body: &mut Vec<u8>,
        ask: impl Fn() -> Result<Response<Body>, ureq::Error>,
    ) -> Result<StatusCode, HttpError> {
        // A connection that was kept may have been closed meanwhile: one more, with a new connection.
        let answer = self.once(limits, body, &ask).or_else(|error| match is_final(&error) {
            true => Err(error),
            false => self.once(limits, body, &ask),
        });
        answer.map_err(|error| explain(&error, limits))
    }

    fn once(
        &self,
        limits: Limits,
        body: &mut Vec<u8>,
        ask: &impl Fn() -> Result<Response<Body>, ureq::Error>,
    ) -> Result<StatusCode, ureq::Error> {
        body.clear();
        let mut response = ask()?;
        let limit = u64::try_from(limits.bytes).unwrap_or(u64::MAX);
        match response.body().content_length() {
            Some(length) if length > limit => return Err(ureq::Error::BodyExceedsLimit(limit)),
            Some(length) => body.reserve(usize::try_from(length).unwrap_or(0)),
            None => {}
        }
        response.body_mut().with_config().limit(limit).reader().read_to_end(body)?;
        Ok(response.status())
    }
}

/// Whether the same request over another connection would end alike.
fn is_final(error: &ureq::Error) -> bool {
    timed_out(error) || is_too_long(error) || tls_error(error).is_some()
}

fn timed_out(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Timeout(_) => true,
        ureq::Error::Io(error) => matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock),
        _ => false,
    }
}

fn is_too_long(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::BodyExceedsLimit(_))
}

/// What is wrong with a server's TLS.
fn tls_error(error: &ureq::Error) -> Option<String> {
    match error {
        ureq::Error::Rustls(error) => Some(error.to_string()),
        ureq::Error::Tls(words) => Some((*words).to_owned()),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref::<rustls::Error>().map(ToString::to_string),
        _ => None,
    }
}

fn explain(error: &ureq::Error, limits: Limits) -> HttpError {
    if is_too_long(error) {
        return HttpError::TooLong(limits.bytes);
    }
    match (tls_error(error), error) {
        (Some(words), _) => HttpError::Tls(words),
        (None, error) if timed_out(error) => HttpError::Unreachable("timed out".into()),
        (None, ureq::Error::Io(error)) => HttpError::Unreachable(plain(error)),
        (None, error) => HttpError::Unreachable(error.to_string()),
    }
}

/// An I/O error without the operating system's number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timed out".into(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "it closed the connection".into(),
        _ => error.to_string(),
    }
}

/// Somebody else's words, cut to a length that fits a line.
pub(super) fn words(body: &[u8]) -> String {
    // Four bytes a character, at most.
    let start = body.get(..body.len().min(4 * WORDS)).unwrap_or_default();
    String::from_utf8_lossy(start).trim().chars().take(WORDS).collect()
}

/// What bitcoind means by an HTTP status 503, which its words tell.
pub(super) fn unavailable(url: String, body: &[u8]) -> ChainError {
    let words = words(body);
    match words.as_str() {
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

    #[test]
    fn words_of_others_are_cut() {
        assert_eq!(words("é".repeat(100_000).as_bytes()).chars().count(), WORDS);
    }
}
