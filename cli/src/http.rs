//! What a sequencer says over HTTP. Nothing that it says is believed where money is at stake.

use crate::failure::Failure;
use serde::Deserialize;
use serde_json::Value;
use sortie::chain::{Proxy, ServerUrl};
use sortie::primitives::RollupId;
use std::io::ErrorKind;
use std::time::Duration;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

/// A sequencer answers from memory or from disk: at once.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// But not through Tor.
const PROXIED_TIME_LIMIT: Duration = Duration::from_secs(60);

/// Longest answer that is read, in bytes: as a tree it takes 20 times as much memory.
const MAX_ANSWER: u64 = 1 << 20;
/// Longest words of a sequencer that are repeated, in characters.
const WORDS: usize = 500;

/// Refuses another rollup than the manifest's.
pub fn check_served(served: RollupId, ours: RollupId) -> Result<(), Failure> {
    if served == ours {
        return Ok(());
    }
    Err(Failure::refused(format_args!("the sequencer serves rollup {served}, the manifest's is {ours}")))
}

/// A sequencer's address.
#[derive(Clone, Debug)]
pub struct SequencerUrl {
    base: String,
    agent: Agent,
}

impl SequencerUrl {
    /// Checks the URL; asks nothing yet.
    ///
    /// A `proxy` is used for all but this machine, and resolves the name.
    pub fn new(url: &str, proxy: Option<&Proxy>) -> Result<Self, Failure> {
        let url: ServerUrl = url.parse().map_err(|error| {
            let example = "it looks like http://127.0.0.1:8645";
            Failure::usage(format_args!("the sequencer's URL is not usable: {error}; {example}"))
        })?;
        // No redirects: from this machine they would lead past the proxy.
        let mut config =
            Agent::config_builder().timeout_global(Some(TIME_LIMIT)).http_status_as_error(false).max_redirects(0);
        if let Some(proxy) = proxy.filter(|_| !url.is_loopback()) {
            let proxy = ureq::Proxy::new(&proxy.to_string()).map_err(Failure::usage)?;
            config = config.proxy(Some(proxy)).timeout_global(Some(PROXIED_TIME_LIMIT));
        }
        let config = config.build();
        Ok(Self { base: url.base(), agent: config.new_agent() })
    }

    /// `GET /v1/status`.
    pub fn status(&self) -> Result<Value, Failure> {
        self.answer(self.agent.get(format!("{}/v1/status", self.base)).call())
    }

    /// Refuses a sequencer of another rollup.
    pub fn check_serves(&self, ours: RollupId) -> Result<(), Failure> {
        let served = RollupId::deserialize(&self.status()?["rollup_id"]);
        let served =
            served.map_err(|_| Failure::failed(format_args!("{} does not answer as a sequencer does", self.base)))?;
        check_served(served, ours)
    }

    /// The least fee that it takes for a transaction of this length, in satoshis; a rollup of another id is refused.
    pub fn least_fee(&self, ours: RollupId, length: usize) -> Result<u64, Failure> {
        self.check_serves(ours)?;
        // One that does not name any asks for none.
        let msat_per_byte = self.status()?["least_fee_msat_per_byte"].as_u64().unwrap_or(0);
        Ok(msat_per_byte.saturating_mul(length as u64).div_ceil(1_000))
    }

    /// `POST /v1/tx`.
    pub fn submit(&self, tx_hex: &str) -> Result<Value, Failure> {
        self.answer(self.agent.post(format!("{}/v1/tx", self.base)).send(tx_hex))
    }

    /// `GET /v1/tx/{hash}`.
    pub fn tx(&self, hash: &str) -> Result<Value, Failure> {
        self.answer(self.agent.get(format!("{}/v1/tx/{hash}", self.base)).call())
    }

    /// `GET /v1/block/{number}`; `None` if it shows no such block.
    pub fn block(&self, number: u64) -> Result<Option<Value>, Failure> {
        let answer = self.agent.get(format!("{}/v1/block/{number}", self.base)).call();
        if answer.as_ref().is_ok_and(|response| response.status() == StatusCode::NOT_FOUND) {
            return Ok(None);
        }
        self.answer(answer).map(Some)
    }

    fn answer(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Value, Failure> {
        let base = &self.base;
        let mut response = answer.map_err(|error| {
            let why = match &error {
                ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    "nothing listens there".into()
                }
                error => error.to_string(),
            };
            Failure::failed(format_args!(
                "the sequencer at {base} does not answer ({why}); without it, use `sortie force`"
            ))
        })?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_json::<Value>();
        if status.is_success() {
            return body.map_err(|_| Failure::failed(format_args!("{base} does not answer as a sequencer does")));
        }
        let said = body.ok().and_then(|body| Some(body.get("error")?.as_str()?.to_owned()));
        let said = said.map(|words| words.chars().take(WORDS).collect());
        let said: String = said.unwrap_or_else(|| status.to_string());
        Err(match status {
            _ if status.is_redirection() => Failure::failed(format_args!(
                "the sequencer at {base} redirects to another address, which is not followed; give that one"
            )),
            StatusCode::FORBIDDEN => Failure::failed(format_args!("{said}; it cannot stop `sortie force`")),
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Failure::usage(said),
            _ => Failure::failed(format_args!("the sequencer at {base} says: {said}")),
        })
    }
}
