//! HTTP around the engine: transactions in, status out; and the thread that ticks.
//!
//! Guarantees that a request's body, the pool and the rate of submissions are bounded. Everything that
//! it answers comes from the store or from the status that the engine shows; no request waits for
//! Bitcoin.

use super::store::{MAX_WAITING, Terms};
use super::{Done, MAX_POOL, Sequencer, SequencerError, SequencerStore, Status, StoredBlock, TxStatus, lock};
use crate::executor::ledger::{Account, Transfer};
use crate::executor::{self as state, Executor, NoOpReason};
use crate::primitives::{Hash32, L2Number, sha256};
use crate::proof::SoftHeader;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bitcoin::hex::{DisplayHex, FromHex};
use serde_json::json;
use std::collections::BTreeSet;
use std::future::{Future, IntoFuture};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;

/// Longest transaction that is taken in, in bytes.
pub const MAX_TX_LEN: usize = 65_536;

/// Time between ticks: a block a second.
const TICK: Duration = Duration::from_secs(1);

/// Longest time that a request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Time that requests under way are given when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Submissions in a second, on average; and how many may come at once.
const SUBMISSIONS_PER_SECOND: f64 = 200.0;
const SUBMISSION_BURST: f64 = 1_000.0;

/// Takes transactions in.
#[derive(Clone)]
pub struct Submit {
    store: Arc<Mutex<SequencerStore>>,
    executor: Arc<dyn Executor>,
    denied: Arc<BTreeSet<Account>>,
    allowance: Arc<Mutex<Allowance>>,
    status: Arc<RwLock<Status>>,
    /// The state after the unsafe head.
    state: Arc<RwLock<state::State>>,
}

/// A token bucket.
struct Allowance {
    tokens: f64,
    refilled: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.refilled).as_secs_f64() * SUBMISSIONS_PER_SECOND;
        self.tokens = (self.tokens + earned).min(SUBMISSION_BURST);
        self.refilled = now;
        let allowed = self.tokens >= 1.0;
        self.tokens -= if allowed { 1.0 } else { 0.0 };
        allowed
    }
}

/// Why a transaction was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not hexadecimal.
    #[error("the body must be one transaction in hexadecimal")]
    NotHex,
    /// No byte.
    #[error("the transaction is missing: the body must be one, in hexadecimal")]
    Empty,
    /// More than [`MAX_TX_LEN`] bytes.
    #[error("a transaction has at most {MAX_TX_LEN} bytes, this one {0}")]
    Length(usize),
    /// In whatever state, it would have no effect.
    #[error("the transaction would have no effect ({})", .0.name())]
    NoEffect(NoOpReason),
    /// The sender is on the deny list.
    #[error("this sequencer refuses the sender's transactions")]
    Denied,
    /// Above the rate that is served.
    #[error("too many submissions; try again in a moment")]
    TooMany,
    /// Too many wait already.
    #[error("{MAX_POOL} transactions are waiting, all of which pay more or as much; try again later")]
    PoolFull,
    /// Too many of its sender's wait already.
    #[error("{MAX_WAITING} transactions of this sender are waiting; try again when they are in blocks")]
    SenderFull,
    /// It pays less than putting it on Bitcoin costs.
    #[error("the transaction pays {fee} sat, and this sequencer asks {least} sat for one of its length at present")]
    FeeTooLow {
        /// What it pays.
        fee: u64,
        /// The least that is taken.
        least: u64,
    },
    /// It could not be stored. What went wrong inside is for the operator's log, not for the network.
    #[error("the sequencer could not store it")]
    Failed(#[source] SequencerError),
}

impl From<SequencerError> for Refusal {
    fn from(error: SequencerError) -> Self {
        match error {
            SequencerError::PoolFull => Refusal::PoolFull,
            SequencerError::SenderFull => Refusal::SenderFull,
            error => Refusal::Failed(error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Refusal::NotHex | Refusal::Empty | Refusal::NoEffect(_) => StatusCode::BAD_REQUEST,
            Refusal::Length(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Denied => StatusCode::FORBIDDEN,
            Refusal::FeeTooLow { .. } => StatusCode::PAYMENT_REQUIRED,
            Refusal::TooMany | Refusal::SenderFull => StatusCode::TOO_MANY_REQUESTS,
            Refusal::PoolFull => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "error": self.to_string() }))).into_response()
    }
}

impl Submit {
    pub(super) fn new(
        store: Arc<Mutex<SequencerStore>>,
        executor: Arc<dyn Executor>,
        denied: BTreeSet<Account>,
        status: Arc<RwLock<Status>>,
        state: Arc<RwLock<state::State>>,
    ) -> Self {
        let allowance = Allowance { tokens: SUBMISSION_BURST, refilled: Instant::now() };
        Self { store, executor, denied: Arc::new(denied), allowance: Arc::new(Mutex::new(allowance)), status, state }
    }

    /// Takes a transaction into the pool; sending it again is harmless.
    ///
    /// # Errors
    /// [`Refusal`], and nothing was stored.
    pub fn submit(&self, tx: &[u8]) -> Result<TxStatus, Refusal> {
        match tx.len() {
            0 => return Err(Refusal::Empty),
            1..=MAX_TX_LEN => {}
            more => return Err(Refusal::Length(more)),
        }
        if !self.allowance.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) {
            return Err(Refusal::TooMany);
        }
        if Transfer::decode(tx).is_some_and(|transfer| self.denied.contains(&transfer.from)) {
            return Err(Refusal::Denied);
        }
        let fee = self.executor.fee_of(tx);
        let least = self.status.read().unwrap_or_else(PoisonError::into_inner).least_fee(tx.len());
        if let Some(fee) = fee.filter(|fee| *fee < least) {
            return Err(Refusal::FeeTooLow { fee, least });
        }
        self.executor.check_static(tx).map_err(Refusal::NoEffect)?;
        let sender = self.executor.sender_and_nonce(tx).map(|(sender, _)| sender);
        // A fee that its sender cannot pay puts nothing in front of others.
        let affords = self.executor.affords(&self.state.read().unwrap_or_else(PoisonError::into_inner), tx);
        let fee = fee.map(|fee| if affords { fee } else { 0 });
        Ok(lock(&self.store).submit(tx, Terms { sender: sender.as_deref(), fee })?)
    }

    /// A soft block with what was signed for it.
    ///
    /// # Errors
    /// [`Refusal::Failed`].
    pub fn block(&self, number: L2Number) -> Result<Option<StoredBlock>, Refusal> {
        Ok(lock(&self.store).block(number)?)
    }

    /// What became of a transaction, by its SHA-256.
    ///
    /// # Errors
    /// [`Refusal::Failed`].
    pub fn status(&self, hash: &Hash32) -> Result<Option<TxStatus>, Refusal> {
        Ok(lock(&self.store).status(hash)?)
    }
}

#[derive(Clone)]
struct Shared {
    submit: Submit,
    status: Arc<RwLock<Status>>,
}

/// Answers with a transaction's hash and what became of it.
fn tx_answer(code: StatusCode, hash: Hash32, status: &TxStatus) -> Response {
    let mut answer = json!(status);
    answer["tx_hash"] = json!(hash);
    (code, Json(answer)).into_response()
}

/// Runs what waits for the disk where it holds up no other request.
async fn blocking(work: impl FnOnce() -> Result<Response, Refusal> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer.unwrap_or_else(IntoResponse::into_response),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn post_tx(State(shared): State<Shared>, body: String) -> Response {
    blocking(move || {
        let tx = Vec::from_hex(body.trim()).map_err(|_| Refusal::NotHex)?;
        let status = shared.submit.submit(&tx)?;
        Ok(tx_answer(StatusCode::ACCEPTED, sha256(&tx), &status))
    })
    .await
}

async fn get_tx(State(shared): State<Shared>, Path(hash): Path<String>) -> Response {
    let Ok(hash) = hash.parse::<Hash32>() else {
        let error = "expected the SHA-256 of a transaction in hexadecimal";
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response();
    };
    blocking(move || {
        Ok(match shared.submit.status(&hash)? {
            Some(status) => tx_answer(StatusCode::OK, hash, &status),
            None => not_found("this sequencer has not seen it"),
        })
    })
    .await
}

/// A soft block as it is shown: enough to follow the unsafe chain and to hold the sequencer to it.
fn block_answer(stored: &StoredBlock) -> Response {
    let StoredBlock { block, signed } = stored;
    let own_txs: Vec<_> = block.own_txs.iter().map(|tx| tx.to_lower_hex_string()).collect();
    let forced = json!({ "start": block.forced.start, "end": block.forced.end });
    Json(json!({ "hash": block.hash, "header": SoftHeader(block.header), "forced": forced, "own_txs": own_txs,
        "signed": signed }))
    .into_response()
}

async fn get_block(State(shared): State<Shared>, Path(number): Path<L2Number>) -> Response {
    blocking(move || {
        Ok(match shared.submit.block(number)? {
            Some(stored) => block_answer(&stored),
            None => not_found("this sequencer made no such block"),
        })
    })
    .await
}

fn not_found(error: &str) -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "error": error }))).into_response()
}

async fn get_status(State(shared): State<Shared>) -> Json<Status> {
    Json(shared.status.read().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Ends a request that does not come to its end, such as a body that is never sent.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/tx", post(post_tx))
        .route("/v1/tx/{hash}", get(get_tx))
        .route("/v1/block/{number}", get(get_block))
        .route("/v1/status", get(get_status))
        .layer(middleware::from_fn(in_time))
        // Two hexadecimal digits a byte, and some white space.
        .layer(DefaultBodyLimit::max(2 * MAX_TX_LEN + 64))
        .with_state(shared)
}

/// Runs a sequencer behind `listener` until `stop` is ready, telling of everything that it does.
///
/// Temporary trouble (Bitcoin does not answer) is told through `on_error` at each try, and `None` after each that went
/// well.
///
/// # Errors
/// [`SequencerError`] that somebody has to mend.
pub async fn serve(
    sequencer: Sequencer,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
    on_done: impl FnMut(Done) + Send + 'static,
    on_error: impl FnMut(Option<&SequencerError>) + Send + 'static,
) -> Result<(), SequencerError> {
    let shared = Shared { submit: sequencer.submit(), status: sequencer.status() };
    let (stop_engine, stopped) = channel::<()>();
    let (engine_failed, failure) = tokio::sync::oneshot::channel();
    let engine = std::thread::spawn(move || {
        let outcome = run_engine(sequencer, &stopped, on_done, on_error);
        // The server may have stopped first; then nobody listens.
        let _ = engine_failed.send(());
        outcome
    });
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move {
        tokio::select! {
            () = stop => {}
            _ = failure => {}
        }
        // The engine first: it must not go on behind a client that will not hang up.
        drop::<Sender<()>>(stop_engine);
        let _ = ended.send(());
    };
    let server = axum::serve(listener, router(shared)).with_graceful_shutdown(shutdown);
    let served = tokio::select! {
        served = server.into_future() => served,
        () = async { let _ = end.await; tokio::time::sleep(FAREWELL).await } => Ok(()),
    };
    let outcome = tokio::task::spawn_blocking(move || engine.join()).await;
    served?;
    match outcome {
        Ok(Ok(outcome)) => outcome,
        _ => Err(SequencerError::Http(std::io::Error::other("the engine panicked"))),
    }
}

fn run_engine(
    mut sequencer: Sequencer,
    stopped: &std::sync::mpsc::Receiver<()>,
    mut on_done: impl FnMut(Done),
    mut on_error: impl FnMut(Option<&SequencerError>),
) -> Result<(), SequencerError> {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        match sequencer.tick(now, &mut on_done) {
            Ok(()) => on_error(None),
            Err(error) if error.is_temporary() => on_error(Some(&error)),
            Err(error) => return Err(error),
        }
        match stopped.recv_timeout(TICK) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return sequencer.stop(),
        }
    }
}
