//! A client of a sequencer's HTTP interface. It believes nothing where money is at stake: the caller checks signatures.

use super::wire::{BlockAnswer, ErrorAnswer, ServedFee, ServedRollup, TxAnswer};
use crate::chain::{Proxy, ServerUrl, UrlError};
use crate::patience::Backoff;
use crate::primitives::{Hash32, L2Number, RollupId};
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

/// A sequencer answers from memory or from disk: at once.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// But not through Tor.
const PROXIED_TIME_LIMIT: Duration = Duration::from_secs(60);

/// Longest answer that is read, in bytes: as a tree it takes 20 times as much memory.
const MAX_ANSWER: u64 = 1 << 20;
/// Longest message of a sequencer that is repeated, in characters.
const MAX_MESSAGE: usize = 500;

/// How long a client waits for a sequencer where nothing listens: it may be starting again.
const RESTART_LIMIT: Duration = Duration::from_secs(5);

/// A question that a sequencer did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL cannot be used.
    #[error("the sequencer's URL is not usable: {0}")]
    Url(UrlError),
    /// The proxy cannot be used.
    #[error("{0}")]
    Proxy(String),
    /// Nothing came back.
    #[error("the sequencer at {url} does not answer ({reason})")]
    Unreachable {
        /// The sequencer.
        url: String,
        /// The transport's reason, for people.
        reason: String,
        /// Whether it may be starting again: it refused the connection, or closed one that it kept too long.
        is_restarting: bool,
    },
    /// An answer of another form.
    #[error("{url} does not answer as a sequencer does")]
    NotASequencer {
        /// The server.
        url: String,
    },
    /// It has no time for the request (429, 503).
    #[error("the sequencer at {url} says: {message}")]
    Busy {
        /// The sequencer.
        url: String,
        /// Its reason.
        message: String,
        /// The pause that it asks for.
        retry_after: Option<Duration>,
    },
    /// A redirect, which could lead past the proxy.
    #[error("the sequencer at {url} redirects to another address, which is not followed; give that one")]
    Redirected {
        /// The sequencer.
        url: String,
    },
    /// It refuses the sender (403).
    #[error("{message}")]
    Denied {
        /// Its reason.
        message: String,
    },
    /// It cannot read the request (400, 413).
    #[error("{message}")]
    BadRequest {
        /// Its reason.
        message: String,
    },
    /// Any other status.
    #[error("the sequencer at {url} says: {message}")]
    Failed {
        /// The sequencer.
        url: String,
        /// The status.
        status: StatusCode,
        /// Its reason.
        message: String,
    },
    /// It serves another rollup.
    #[error("the sequencer serves rollup {served}, the manifest's is {ours}")]
    OtherRollup {
        /// The rollup that it serves.
        served: RollupId,
        /// The manifest's.
        ours: RollupId,
    },
}

impl ClientError {
    /// How long another attempt makes sense; `None` if it makes none.
    fn limit(&self) -> Option<Duration> {
        match self {
            Self::Unreachable { is_restarting: true, .. } => Some(RESTART_LIMIT),
            Self::Busy { .. } => Some(Duration::MAX),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Called once for a question that has to be asked again.
type OnRetry = dyn Fn(&ClientError) + Send + Sync;

/// A sequencer, by its URL.
#[derive(Clone)]
pub struct SequencerClient {
    url: String,
    agent: Agent,
    /// How long a question is asked again, and whom to tell.
    patience: Option<(Duration, Arc<OnRetry>)>,
}

impl fmt::Debug for SequencerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SequencerClient").field("url", &self.url).finish_non_exhaustive()
    }
}

impl SequencerClient {
    /// Checks the URL; asks nothing yet.
    ///
    /// The proxy is used for every host but this machine, and resolves the name.
    ///
    /// # Errors
    /// [`ClientError::Url`], [`ClientError::Proxy`].
    pub fn new(url: &str, proxy: Option<&Proxy>) -> Result<Self, ClientError> {
        let url: ServerUrl = url.parse().map_err(ClientError::Url)?;
        // No redirects: from this machine they would lead past the proxy.
        let mut config =
            Agent::config_builder().timeout_global(Some(TIME_LIMIT)).http_status_as_error(false).max_redirects(0);
        if let Some(proxy) = proxy.filter(|_| !url.is_loopback()) {
            let proxy = ureq::Proxy::new(&proxy.to_string()).map_err(|error| ClientError::Proxy(error.to_string()))?;
            config = config.proxy(Some(proxy)).timeout_global(Some(PROXIED_TIME_LIMIT));
        }
        Ok(Self { url: url.base(), agent: config.build().new_agent(), patience: None })
    }

    /// Asks again, for so long, a sequencer that has no time or is being started again; the first time, `on_wait` hears
    /// why.
    pub fn patient(self, limit: Duration, on_wait: impl Fn(&ClientError) + Send + Sync + 'static) -> Self {
        Self { patience: Some((limit, Arc::new(on_wait))), ..self }
    }

    /// `GET /v1/status`, read as far as `T` needs it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn status<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        self.ask(|| self.get("status"))
    }

    /// Refuses a sequencer of another rollup.
    ///
    /// # Errors
    /// [`ClientError::OtherRollup`], or no answer.
    pub fn check_serves(&self, ours: RollupId) -> Result<(), ClientError> {
        check_served(self.status::<ServedRollup>()?.rollup_id, ours)
    }

    /// The least fee that it takes for a transaction of this many bytes, in satoshis; a sequencer of another rollup is
    /// refused.
    ///
    /// # Errors
    /// [`ClientError::OtherRollup`], or no answer.
    pub fn least_fee(&self, ours: RollupId, length: usize) -> Result<u64, ClientError> {
        let ServedFee { rollup_id, least_fee_msat_per_byte } = self.status()?;
        check_served(rollup_id, ours)?;
        Ok(least_fee_msat_per_byte.saturating_mul(length as u64).div_ceil(1_000))
    }

    /// `POST /v1/tx`, with a transaction in hexadecimal.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn submit(&self, tx_hex: &str) -> Result<TxAnswer, ClientError> {
        self.ask(|| self.agent.post(format!("{}/v1/tx", self.url)).send(tx_hex))
    }

    /// `GET /v1/tx/SHA256`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn tx(&self, hash: &Hash32) -> Result<TxAnswer, ClientError> {
        self.ask(|| self.get(&format!("tx/{hash}")))
    }

    /// `GET /v1/block/NUMBER`; `None` if it shows no such block.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn block(&self, number: L2Number) -> Result<Option<BlockAnswer>, ClientError> {
        match self.ask(|| self.get(&format!("block/{number}"))) {
            Err(ClientError::Failed { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            answer => answer.map(Some),
        }
    }

    fn get(&self, path: &str) -> Result<Response<Body>, ureq::Error> {
        self.agent.get(format!("{}/v1/{path}", self.url)).call()
    }

    fn ask<T: DeserializeOwned>(
        &self,
        request: impl Fn() -> Result<Response<Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        let begun = Instant::now();
        let mut backoff = Backoff::short();
        let mut is_told = false;
        loop {
            let error = match self.answer(request()) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let (Some((patience, on_wait)), Some(limit)) = (&self.patience, error.limit()) else { return Err(error) };
            let pause = backoff.pause_or(error.retry_after());
            if begun.elapsed() + pause > limit.min(*patience) {
                return Err(error);
            }
            if !is_told {
                on_wait(&error);
            }
            is_told = true;
            sleep(pause);
        }
    }

    fn answer<T: DeserializeOwned>(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<T, ClientError> {
        let url = self.url.clone();
        let mut response = answer.map_err(|error| self.unreachable(&error))?;
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|time| time.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let status = response.status();
        let body = response.body_mut().with_config().limit(MAX_ANSWER);
        if status.is_success() {
            return body.read_json::<T>().map_err(|_| ClientError::NotASequencer { url });
        }
        let message = match body.read_json::<ErrorAnswer>() {
            Ok(ErrorAnswer { error }) => error.chars().take(MAX_MESSAGE).collect(),
            Err(_) => status.to_string(),
        };
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                ClientError::Busy { url, message, retry_after }
            }
            _ if status.is_redirection() => ClientError::Redirected { url },
            StatusCode::FORBIDDEN => ClientError::Denied { message },
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => ClientError::BadRequest { message },
            status => ClientError::Failed { url, status, message },
        })
    }

    fn unreachable(&self, error: &ureq::Error) -> ClientError {
        let kind = match error {
            ureq::Error::Io(error) => Some(error.kind()),
            _ => None,
        };
        let reason = match kind {
            Some(ErrorKind::ConnectionRefused) => "nothing listens there".into(),
            _ => error.to_string(),
        };
        let is_restarting =
            matches!(kind, Some(ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
        ClientError::Unreachable { url: self.url.clone(), reason, is_restarting }
    }
}

/// Refuses another rollup than the manifest's.
///
/// # Errors
/// [`ClientError::OtherRollup`].
pub fn check_served(served: RollupId, ours: RollupId) -> Result<(), ClientError> {
    if served == ours { Ok(()) } else { Err(ClientError::OtherRollup { served, ours }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Gives these answers to one request each.
    fn server(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            for (answer, stream) in answers.iter().zip(listener.incoming()) {
                let mut stream = stream.expect("a connection");
                let mut lines = BufReader::new(&stream).lines();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                stream.write_all(answer.as_bytes()).expect("sent");
            }
        });
        url
    }

    const BUSY: &str = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nConnection: close\r\nContent-Length: 18\r\n\r\n{\"error\":\"slower\"}";
    const NONE: &str = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";

    #[test]
    fn a_block_is_asked_for_again_while_the_sequencer_has_no_time_and_only_by_the_patient() {
        let hurried = SequencerClient::new(&server(&[BUSY]), None).expect("a URL");
        let refused = hurried.block(7);
        assert!(matches!(&refused, Err(ClientError::Busy { message, .. }) if message == "slower"), "{refused:?}");

        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let patient = SequencerClient::new(&server(&[BUSY, BUSY, NONE]), None).expect("a URL");
        let patient = patient.patient(Duration::from_secs(20), move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        assert!(matches!(patient.block(7), Ok(None)), "there is no such block");
        assert_eq!(told.load(Ordering::SeqCst), 1, "told once");
    }
}
