//! What a sequencer says over HTTP. Nothing that it says is believed where money is at stake.

use crate::failure::Failure;
use crate::output::Output;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sortie::chain::{Proxy, is_loopback};
use sortie::primitives::{BtcHeight, Hash32, L2Number, RollupId};
use sortie::proof::{RawBytes, Receipt, Signed, SoftHeader};
use sortie::sequencer::SignedBlock;
use std::io::ErrorKind;
use std::thread::sleep;
use std::time::{Duration, Instant};
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

/// A sequencer answers from memory or from disk: at once.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// But not through Tor.
const PROXIED_TIME_LIMIT: Duration = Duration::from_secs(60);

/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// How long a sequencer is waited for where nothing listens: it may be starting again.
const RESTART_LIMIT: Duration = Duration::from_secs(5);

/// First and longest pause between two attempts where the sequencer does not say when to come back.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(4)];

/// Refuses another rollup than the manifest's.
pub fn check_served(served: RollupId, ours: RollupId) -> Result<(), Failure> {
    if served == ours {
        return Ok(());
    }
    Err(Failure::refused(format_args!("the sequencer serves rollup {served}, the manifest's is {ours}")))
}

/// Of an answer of `GET /v1/status`, whose rollup it is.
#[derive(Deserialize)]
pub struct Served {
    pub rollup_id: RollupId,
}

/// And the least fee. One that does not name any asks for none.
#[derive(Deserialize)]
struct LeastFee {
    #[serde(flatten)]
    served: Served,
    #[serde(default)]
    least_fee_msat_per_byte: u64,
}

/// And the head.
#[derive(Deserialize)]
pub struct ServedHead {
    #[serde(flatten)]
    pub served: Served,
    #[serde(rename = "unsafe")]
    pub head: HeadAnswer,
}

/// A head that a sequencer claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadAnswer {
    pub number: L2Number,
    pub hash: Hash32,
    pub state_root: Hash32,
    pub origin_height: BtcHeight,
    pub timestamp: u64,
}

/// An answer of `POST /v1/tx` or `GET /v1/tx/SHA256`.
#[derive(Deserialize)]
pub struct TxAnswer {
    pub tx_hash: Hash32,
    #[serde(flatten)]
    pub status: TxStatus,
}

/// What a sequencer says became of a transaction.
#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum TxStatus {
    Pending,
    Included(Included),
    Rejected { reason: String },
}

/// The block that a sequencer says holds a transaction.
#[derive(Deserialize)]
pub struct Included {
    pub number: L2Number,
    pub block: Hash32,
    #[serde(default)]
    pub receipt: Option<Box<Signed<Receipt>>>,
}

/// An answer of `GET /v1/block/NUMBER`.
#[derive(Clone, Serialize, Deserialize)]
pub struct BlockAnswer {
    pub header: SoftHeader,
    pub own_txs: Vec<RawBytes>,
    pub signed: Option<SignedBlock>,
}

/// A sequencer's address.
#[derive(Clone, Debug)]
pub struct SequencerUrl {
    base: String,
    agent: Agent,
    /// How long a request is tried again, and whom to tell.
    patience: Option<(Duration, Output)>,
}

/// Why there is no answer.
enum Unanswered {
    /// It is as good as one.
    Finally(Failure),
    /// It may come later.
    NotNow {
        failure: Failure,
        /// When to come back, if it said so.
        come_back: Option<Duration>,
        /// How long it makes sense to try.
        limit: Duration,
    },
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Finally(failure) | Unanswered::NotNow { failure, .. } => failure,
        }
    }
}

impl SequencerUrl {
    /// Checks the URL; asks nothing yet.
    ///
    /// A `proxy` is used for all but this machine, and resolves the name.
    pub fn new(url: &str, proxy: Option<&Proxy>) -> Result<Self, Failure> {
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            let message = "is not a sequencer's address; it looks like http://127.0.0.1:8645";
            return Err(Failure::usage(format_args!("`{}` {message}", url.escape_debug())));
        }
        // No redirects: from this machine they would lead past the proxy.
        let mut config =
            Agent::config_builder().timeout_global(Some(TIME_LIMIT)).http_status_as_error(false).max_redirects(0);
        if let Some(proxy) = proxy.filter(|_| !is_loopback(url)) {
            let proxy = ureq::Proxy::new(&proxy.to_string()).map_err(Failure::usage)?;
            config = config.proxy(Some(proxy)).timeout_global(Some(PROXIED_TIME_LIMIT));
        }
        let config = config.build();
        Ok(Self { base: url.trim_end_matches('/').to_owned(), agent: config.new_agent(), patience: None })
    }

    /// Tries again for so long what the sequencer has no time for, and while it is being started again.
    pub fn patient(self, limit: Duration, out: &Output) -> Self {
        Self { patience: Some((limit, out.clone())), ..self }
    }

    /// `GET /v1/status`, as far as it matters.
    pub fn status<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        self.ask(|| self.agent.get(format!("{}/v1/status", self.base)).call())
    }

    /// Refuses a sequencer of another rollup.
    pub fn check_serves(&self, ours: RollupId) -> Result<(), Failure> {
        check_served(self.status::<Served>()?.rollup_id, ours)
    }

    /// The least fee that it takes for a transaction of this length, in satoshis; a rollup of another id is refused.
    pub fn least_fee(&self, ours: RollupId, length: usize) -> Result<u64, Failure> {
        let LeastFee { served, least_fee_msat_per_byte: msat_per_byte } = self.status()?;
        check_served(served.rollup_id, ours)?;
        Ok(msat_per_byte.saturating_mul(length as u64).div_ceil(1_000))
    }

    /// `POST /v1/tx`.
    pub fn submit(&self, tx_hex: &str) -> Result<TxAnswer, Failure> {
        self.ask(|| self.agent.post(format!("{}/v1/tx", self.base)).send(tx_hex))
    }

    /// `GET /v1/tx/{hash}`.
    pub fn tx(&self, hash: &Hash32) -> Result<TxAnswer, Failure> {
        self.ask(|| self.agent.get(format!("{}/v1/tx/{hash}", self.base)).call())
    }

    /// `GET /v1/block/{number}`; `None` if it shows no such block.
    pub fn block(&self, number: L2Number) -> Result<Option<BlockAnswer>, Failure> {
        let answer = self.agent.get(format!("{}/v1/block/{number}", self.base)).call();
        if answer.as_ref().is_ok_and(|response| response.status() == StatusCode::NOT_FOUND) {
            return Ok(None);
        }
        Ok(Some(self.answer(answer)?))
    }

    fn ask<T: DeserializeOwned>(
        &self,
        request: impl Fn() -> Result<Response<Body>, ureq::Error>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        let [mut pause, longest] = PAUSES;
        let mut is_told = false;
        loop {
            let (failure, come_back, limit) = match self.answer(request()) {
                Ok(answer) => return Ok(answer),
                Err(Unanswered::Finally(failure)) => return Err(failure),
                Err(Unanswered::NotNow { failure, come_back, limit }) => (failure, come_back, limit),
            };
            let Some((patience, out)) = &self.patience else { return Err(failure) };
            let wait = come_back.unwrap_or(pause).clamp(PAUSES[0], longest);
            if begun.elapsed() + wait > limit.min(*patience) {
                return Err(failure);
            }
            if !is_told {
                out.note(format_args!("{failure}; trying again"));
            }
            (is_told, pause) = (true, (pause * 2).min(longest));
            sleep(wait);
        }
    }

    fn answer<T: DeserializeOwned>(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<T, Unanswered> {
        let base = &self.base;
        let mut response = answer.map_err(|error| {
            let kind = match &error {
                ureq::Error::Io(error) => Some(error.kind()),
                _ => None,
            };
            let why = match &error {
                ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    "nothing listens there".into()
                }
                error => error.to_string(),
            };
            let failure = Failure::failed(format_args!(
                "the sequencer at {base} does not answer ({why}); without it, use `sortie force`"
            ));
            match kind {
                // It is not there, or has closed a connection that it kept too long.
                Some(ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    Unanswered::NotNow { failure, come_back: None, limit: RESTART_LIMIT }
                }
                _ => Unanswered::Finally(failure),
            }
        })?;
        let come_back = response.headers().get(header::RETRY_AFTER);
        let come_back = come_back.and_then(|time| time.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let status = response.status();
        let body = response.body_mut().with_config().limit(MAX_ANSWER);
        if status.is_success() {
            let failure = |_| Failure::failed(format_args!("{base} does not answer as a sequencer does"));
            return body.read_json::<T>().map_err(failure).map_err(Unanswered::Finally);
        }
        let said = body.read_json::<Value>().ok().and_then(|body| Some(body.get("error")?.as_str()?.to_owned()));
        let said = said.unwrap_or_else(|| status.to_string());
        Err(Unanswered::Finally(match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let failure = Failure::failed(format_args!("the sequencer at {base} says: {said}"));
                return Err(Unanswered::NotNow { failure, come_back, limit: Duration::MAX });
            }
            _ if status.is_redirection() => Failure::failed(format_args!(
                "the sequencer at {base} redirects to another address, which is not followed; give that one"
            )),
            StatusCode::FORBIDDEN => Failure::failed(format_args!("{said}; it cannot stop `sortie force`")),
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Failure::usage(said),
            _ => Failure::failed(format_args!("the sequencer at {base} says: {said}")),
        }))
    }
}
