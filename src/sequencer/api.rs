//! HTTP around the engine: transactions in, status out; and the thread that ticks.
//!
//! Guarantees that a request's body, the pool and the rate of each client are bounded; a client is the sender
//! of a valid transaction, the address for everything else, so that nobody uses up the allowance of others.
//! Everything that it answers comes from the store or from the status that the engine shows; no request waits
//! for Bitcoin, and one that only reads does not wait for the engine.

use super::connections::{serve_all, within_files};
use super::limits::{Client, Limiter, Limits};
use super::store::{MAX_WAITING, Terms};
use super::{Clock, Done, Sequencer, SequencerError, SequencerStore, Status, StoredBlock, lock};
use crate::api::wire::{BlockAnswer, ErrorAnswer, ForcedSection, FullBlockAnswer, TxAnswer, TxStatus};
use crate::executor::{self as state, Executor, NoOpReason};
use crate::primitives::{Hash32, L2Number, sha256};
use crate::proof::{RawBytes, SoftHeader};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bitcoin::hex::FromHex;
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;

/// Time between ticks: a block a second.
const TICK: Duration = Duration::from_secs(1);

/// Connections for reading that are kept for the next request.
const READERS: usize = 4;

/// When to come back where the pool is full: after the next block.
const NEXT_BLOCK: Duration = Duration::from_secs(1);

/// Takes transactions in.
#[derive(Clone)]
pub struct Submit {
    store: Arc<Mutex<SequencerStore>>,
    readers: Arc<Readers>,
    executor: Arc<dyn Executor>,
    denied: Arc<BTreeSet<Vec<u8>>>,
    limits: Arc<Limits>,
    clock: Clock,
    limiters: Arc<Mutex<Limiters>>,
    status: Arc<RwLock<Status>>,
    /// The state after the unsafe head.
    state: Arc<RwLock<state::State>>,
}

/// One for each kind of request.
struct Limiters {
    senders: Limiter<Client>,
    refused: Limiter<Client>,
    questions: Limiter<Client>,
}

/// Connections that only read the store: they wait for nobody who writes.
struct Readers {
    path: PathBuf,
    kept: Mutex<Vec<SequencerStore>>,
}

impl Readers {
    fn read<T>(&self, read: impl FnOnce(&SequencerStore) -> Result<T, SequencerError>) -> Result<T, SequencerError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let store = match kept {
            Some(store) => store,
            None => SequencerStore::open_to_read(&self.path)?,
        };
        let answer = read(&store)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < READERS {
            kept.push(store);
        }
        Ok(answer)
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
    /// Too long.
    #[error("a transaction has at most {most} bytes, this one {len}")]
    Length {
        /// The limit, in bytes.
        most: usize,
        /// Its length, in bytes.
        len: usize,
    },
    /// In whatever state, it would have no effect.
    #[error("the transaction would have no effect ({})", .0.name())]
    NoEffect(NoOpReason),
    /// The sender is on the deny list.
    #[error("this sequencer refuses the sender's transactions")]
    Denied,
    /// Above the rate that a client is served.
    #[error("too many requests; try again in {} s", whole_seconds(*.0))]
    TooMany(Duration),
    /// Too many wait already.
    #[error("{0} transactions are waiting, all of which pay more or as much; try again later")]
    PoolFull(u64),
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
    /// The disk is full.
    #[error("the sequencer's disk is full, and it takes nothing that it cannot keep; try again later")]
    NoRoom,
    /// It could not be stored. What went wrong inside is for the operator's log, not for the network.
    #[error("the sequencer could not store it")]
    Failed(#[source] SequencerError),
}

impl From<SequencerError> for Refusal {
    fn from(error: SequencerError) -> Self {
        match error {
            SequencerError::PoolFull(most) => Refusal::PoolFull(most),
            SequencerError::SenderFull => Refusal::SenderFull,
            error if error.is_of_full_disk() => Refusal::NoRoom,
            error => Refusal::Failed(error),
        }
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// An answer that is no answer: its reason as JSON, and when to come back if that may help.
fn refused(status: StatusCode, reason: impl fmt::Display, come_back: Option<Duration>) -> Response {
    let mut response = (status, Json(ErrorAnswer { error: reason.to_string() })).into_response();
    if let Some(time) = come_back {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(time)));
    }
    response
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, come_back) = match self {
            Refusal::NotHex | Refusal::Empty | Refusal::NoEffect(_) => (StatusCode::BAD_REQUEST, None),
            Refusal::Length { .. } => (StatusCode::PAYLOAD_TOO_LARGE, None),
            Refusal::Denied => (StatusCode::FORBIDDEN, None),
            Refusal::FeeTooLow { .. } => (StatusCode::PAYMENT_REQUIRED, None),
            Refusal::SenderFull => (StatusCode::TOO_MANY_REQUESTS, Some(NEXT_BLOCK)),
            Refusal::TooMany(time) => (StatusCode::TOO_MANY_REQUESTS, Some(time)),
            Refusal::PoolFull(_) | Refusal::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, Some(NEXT_BLOCK)),
            Refusal::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        refused(status, self, come_back)
    }
}

impl Submit {
    pub(super) fn new(
        store: Arc<Mutex<SequencerStore>>,
        executor: Arc<dyn Executor>,
        policy: &super::Policy,
        status: Arc<RwLock<Status>>,
        state: Arc<RwLock<state::State>>,
    ) -> Self {
        let limits = policy.limits.clone();
        let limiters = Limiters {
            senders: Limiter::new(limits.sender, limits.clients),
            refused: Limiter::new(limits.refused, limits.clients),
            questions: Limiter::new(limits.questions, limits.clients),
        };
        let readers = Readers { path: lock(&store).path().to_owned(), kept: Mutex::default() };
        Self {
            store,
            readers: Arc::new(readers),
            executor,
            denied: Arc::new(policy.denied.clone()),
            limits: Arc::new(limits),
            clock: Arc::clone(&policy.clock),
            limiters: Arc::new(Mutex::new(limiters)),
            status,
            state,
        }
    }

    /// Takes a transaction into the pool; sending it again is harmless.
    ///
    /// # Errors
    /// [`Refusal`], and nothing was stored.
    pub fn submit(&self, tx: &[u8]) -> Result<TxStatus, Refusal> {
        self.submit_from(tx, None)
    }

    /// The same, of a client at an address: its allowance is used where no sender's is.
    fn submit_from(&self, tx: &[u8], address: Option<IpAddr>) -> Result<TxStatus, Refusal> {
        match tx.len() {
            0 => return Err(Refusal::Empty),
            len if len > self.limits.tx_len => return Err(Refusal::Length { most: self.limits.tx_len, len }),
            _ => {}
        }
        let sender = self.executor.sender_and_nonce(tx).map(|(sender, _)| sender);
        if sender.as_ref().is_some_and(|sender| self.denied.contains(sender)) {
            return Err(Refusal::Denied);
        }
        let fee = self.executor.fee_of(tx);
        let least = self.status.read().unwrap_or_else(PoisonError::into_inner).least_fee(tx.len());
        if let Some(fee) = fee.filter(|fee| *fee < least) {
            return Err(Refusal::FeeTooLow { fee, least });
        }
        self.executor.check_static(tx).map_err(Refusal::NoEffect)?;
        // Only now is the sender who it says that it is.
        if let Some(client) = sender.as_deref().map(Client::of_sender).or(address.map(Client::at)) {
            self.take(client, |limiters| &mut limiters.senders)?;
        }
        // A fee that its sender cannot pay puts nothing in front of others.
        let affords = self.executor.affords(&self.state.read().unwrap_or_else(PoisonError::into_inner), tx);
        let fee = fee.map(|fee| if affords { fee } else { 0 });
        Ok(lock(&self.store).submit(tx, Terms { sender: sender.as_deref(), fee, most: self.limits.pool })?)
    }

    fn take(&self, client: Client, of: impl FnOnce(&mut Limiters) -> &mut Limiter<Client>) -> Result<(), Refusal> {
        let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        of(&mut limiters).take(client, (self.clock)()).map_err(Refusal::TooMany)
    }

    /// What a client is told who sent something that is not taken: that, as long as its address has an allowance.
    fn refuse(&self, refusal: Refusal, address: IpAddr) -> Refusal {
        match refusal {
            Refusal::TooMany(_) | Refusal::PoolFull(_) | Refusal::SenderFull | Refusal::Failed(_) => refusal,
            refusal => match self.take(Client::at(address), |limiters| &mut limiters.refused) {
                Ok(()) => refusal,
                Err(too_many) => too_many,
            },
        }
    }

    /// A soft block with what was signed for it.
    ///
    /// # Errors
    /// [`Refusal::Failed`].
    pub fn block(&self, number: L2Number) -> Result<Option<StoredBlock>, Refusal> {
        Ok(self.readers.read(|store| store.block(number))?)
    }

    /// What became of a transaction, by its SHA-256.
    ///
    /// # Errors
    /// [`Refusal::Failed`].
    pub fn status(&self, hash: &Hash32) -> Result<Option<TxStatus>, Refusal> {
        Ok(self.readers.read(|store| store.status(hash))?)
    }
}

#[derive(Clone)]
struct Shared {
    submit: Submit,
    status: Arc<RwLock<Status>>,
}

/// Answers with a transaction's hash and what became of it.
fn tx_answer(code: StatusCode, tx_hash: Hash32, status: TxStatus) -> Response {
    (code, Json(TxAnswer { tx_hash, status })).into_response()
}

/// Runs what waits for the disk where it holds up no other request.
async fn blocking(work: impl FnOnce() -> Result<Response, Refusal> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer.unwrap_or_else(IntoResponse::into_response),
        Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "the sequencer could not answer", None),
    }
}

async fn post_tx(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let address = client.ip();
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return refused(rejection.status(), rejection.body_text(), None),
    };
    blocking(move || {
        let text = std::str::from_utf8(&body).ok();
        let tx = text.and_then(|text| Vec::from_hex(text.trim()).ok()).ok_or(Refusal::NotHex);
        let taken = tx.and_then(|tx| Ok((shared.submit.submit_from(&tx, Some(address))?, sha256(&tx))));
        match taken {
            Ok((status, hash)) => Ok(tx_answer(StatusCode::ACCEPTED, hash, status)),
            Err(refusal) => Err(shared.submit.refuse(refusal, address)),
        }
    })
    .await
}

async fn get_tx(State(shared): State<Shared>, Path(hash): Path<String>) -> Response {
    let Ok(hash) = hash.parse::<Hash32>() else {
        return refused(StatusCode::BAD_REQUEST, "expected the SHA-256 of a transaction in hexadecimal", None);
    };
    blocking(move || {
        Ok(match shared.submit.status(&hash)? {
            Some(status) => tx_answer(StatusCode::OK, hash, status),
            None => not_found("this sequencer has not seen it"),
        })
    })
    .await
}

/// A soft block as it is shown: enough to follow the unsafe chain and to hold the sequencer to it.
fn block_answer(stored: StoredBlock) -> Response {
    let StoredBlock { block, signed } = stored;
    let own_txs = block.own_txs.into_iter().map(RawBytes).collect();
    let forced = ForcedSection { start: block.forced.start, end: block.forced.end };
    let shown = BlockAnswer { header: SoftHeader(block.header), own_txs, signed };
    Json(FullBlockAnswer { hash: block.hash, block: shown, forced }).into_response()
}

async fn get_block(State(shared): State<Shared>, Path(number): Path<String>) -> Response {
    let Ok(number) = number.parse::<L2Number>() else {
        return refused(StatusCode::BAD_REQUEST, "expected the number of an L2 block", None);
    };
    blocking(move || {
        Ok(match shared.submit.block(number)? {
            Some(stored) => block_answer(stored),
            None => not_found("this sequencer made no such block"),
        })
    })
    .await
}

fn not_found(error: &str) -> Response {
    refused(StatusCode::NOT_FOUND, error, None)
}

async fn get_status(State(shared): State<Shared>) -> Json<Status> {
    Json(shared.status.read().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Ends a request that does not come to its end, such as a body that is never sent.
async fn in_time(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(shared.submit.limits.request, next.run(request)).await {
        Ok(response) => response,
        Err(_) => refused(StatusCode::REQUEST_TIMEOUT, "the request did not come to its end in time", None),
    }
}

/// Answers as many questions of one address as it is allowed.
async fn at_its_rate(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match shared.submit.take(Client::at(client.ip()), |limiters| &mut limiters.questions) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn router(shared: Shared) -> Router {
    // Two hexadecimal digits a byte, and some white space.
    let body = 2 * shared.submit.limits.tx_len + 64;
    let questions = Router::new()
        .route("/v1/tx/{hash}", get(get_tx))
        .route("/v1/block/{number}", get(get_block))
        .route("/v1/status", get(get_status))
        .layer(middleware::from_fn_with_state(shared.clone(), at_its_rate));
    Router::new()
        .route("/v1/tx", post(post_tx))
        .merge(questions)
        .fallback(|| async { not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            refused(StatusCode::METHOD_NOT_ALLOWED, "this path answers another method", None)
        })
        .layer(middleware::from_fn_with_state(shared.clone(), in_time))
        .layer(DefaultBodyLimit::max(body))
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
    let limits = within_files(shared.submit.limits.as_ref().clone());
    let (stop_engine, stopped) = channel::<()>();
    let (engine_failed, failure) = tokio::sync::oneshot::channel();
    let engine = std::thread::spawn(move || {
        let outcome = run_engine(sequencer, &stopped, on_done, on_error);
        // The server may have stopped first; then nobody listens.
        let _ = engine_failed.send(());
        outcome
    });
    let shutdown = async move {
        tokio::select! {
            () = stop => {}
            _ = failure => {}
        }
        // The engine first: it must not go on behind a client that will not hang up.
        drop::<Sender<()>>(stop_engine);
    };
    serve_all(listener, router(shared), limits, shutdown).await;
    match tokio::task::spawn_blocking(move || engine.join()).await {
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
