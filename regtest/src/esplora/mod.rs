//! An Esplora server over a bitcoind of ours, for wallets and followers that have no node.
//!
//! It speaks what `esplora-client` and BDK ask for, indexes by itself, keeps everything in memory, and
//! fails on demand. For regtest only: it reads the whole chain.

mod index;
mod routes;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bitcoin::Transaction;
use bitcoincore_rpc::Client;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::Bitcoind;
use index::Index;
use routes::{Answer, View};

/// Longest request that is read, in bytes: a package of the heaviest transactions, in hex.
const MAX_REQUEST: usize = 16_000_000;

/// How a request goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This HTTP status, and nothing is done.
    Status(u16),
    /// It is done, but the answer is lost on its way.
    Lost,
    /// The answer takes this long.
    Slow(Duration),
    /// Bytes that are no answer.
    Garbage,
    /// A list of nothing.
    Empty,
    /// An answer that does not end: this many bytes.
    Flood(usize),
    /// It is done, and the answer says that each of its transactions pays this fee.
    Fee(u64),
}

/// An Esplora server; it ends with this value.
pub struct EsploraServer {
    address: SocketAddr,
    state: Arc<Shared>,
    /// `None` only while dropping.
    runtime: Option<Runtime>,
}

struct Shared {
    node: Client,
    index: Mutex<Index>,
    script: Mutex<Script>,
}

/// What tests tell the server, and what it tells them.
#[derive(Default)]
struct Script {
    faults: Vec<(String, Fault)>,
    made_up: Vec<(Transaction, Option<u32>)>,
    fee_estimates: BTreeMap<u16, f64>,
    requests: Vec<String>,
    peers: Vec<SocketAddr>,
}

impl EsploraServer {
    /// Serves `bitcoind`'s chain and mempool on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port, or the node does not answer.
    pub fn start(bitcoind: &Bitcoind) -> Result<Self> {
        Self::start_at(bitcoind, 0)
    }

    /// As [`start`](Self::start), on this port.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_at(bitcoind: &Bitcoind, port: u16) -> Result<Self> {
        let state = Shared { node: bitcoind.client()?, index: Mutex::default(), script: Mutex::default() };
        state.index().refresh(&state.node)?;
        let state = Arc::new(state);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port)))?;
        let address = listener.local_addr()?;
        let app =
            Router::new().fallback(serve).layer(DefaultBodyLimit::max(MAX_REQUEST)).with_state(Arc::clone(&state));
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        runtime.spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, state, runtime: Some(runtime) })
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, requests whose path begins with `path` go wrong in this way; later words come first.
    pub fn fail(&self, path: &str, fault: Fault) {
        self.state.script().faults.insert(0, (path.to_owned(), fault));
    }

    /// From now on, transactions that are in no block and no mempool are shown as mined in the block at `height`, or as
    /// waiting.
    pub fn make_up(&self, transactions: impl IntoIterator<Item = Transaction>, height: Option<u32>) {
        self.state.script().made_up.extend(transactions.into_iter().map(|tx| (tx, height)));
    }

    /// From now on, nothing goes wrong, and nothing is made up.
    pub fn heal(&self) {
        let mut script = self.state.script();
        script.faults.clear();
        if !std::mem::take(&mut script.made_up).is_empty() {
            *self.state.index() = Index::default();
        }
    }

    /// What `/fee-estimates` answers: rates in sat/vB by blocks. A regtest node has none of its own.
    pub fn set_fee_estimates(&self, estimates: &[(u16, f64)]) {
        self.state.script().fee_estimates = estimates.iter().copied().collect();
    }

    /// All requests so far, such as `GET /blocks/tip/hash`.
    pub fn requests(&self) -> Vec<String> {
        self.state.script().requests.clone()
    }

    /// Where they came from, in the same order.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.state.script().peers.clone()
    }
}

impl Drop for EsploraServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, method: &Method, uri: &Uri, body: &[u8]) -> Answer {
        let (fault, fee_estimates, made_up) = {
            let script = self.script();
            let fault = script.faults.iter().find(|(path, _)| uri.path().starts_with(path)).map(|(_, fault)| *fault);
            (fault, script.fee_estimates.clone(), script.made_up.clone())
        };
        match fault {
            Some(Fault::Status(status)) => {
                return Answer::new(StatusCode::from_u16(status).unwrap_or_default(), "as the test wishes");
            }
            Some(Fault::Empty) => return Answer::new(StatusCode::OK, "[]"),
            Some(Fault::Garbage) => return Answer::new(StatusCode::OK, "<html>as the test wishes"),
            Some(Fault::Flood(bytes)) => return Answer::new(StatusCode::OK, vec![b'0'; bytes]),
            Some(Fault::Slow(delay)) => sleep(delay),
            Some(Fault::Lost | Fault::Fee(_)) | None => {}
        }
        let mut index = self.index();
        let answer = index.refresh(&self.node).and_then(|()| {
            made_up.iter().for_each(|(tx, height)| index.make_up(tx, *height));
            let view = View { node: &self.node, index: &index, fee_estimates: &fee_estimates };
            view.answer(method, uri.path(), uri.query().unwrap_or_default(), body)
        });
        match answer {
            _ if fault == Some(Fault::Lost) => Answer::new(StatusCode::GATEWAY_TIMEOUT, "as the test wishes"),
            Ok(answer) => match fault {
                Some(Fault::Fee(fee)) => answer.with_fee(fee),
                _ => answer,
            },
            Err(error) => Answer::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
        }
    }
}

async fn serve(
    State(state): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    {
        let mut script = state.script();
        script.requests.push(format!("{method} {uri}"));
        script.peers.push(peer);
    }
    let answered = tokio::task::spawn_blocking(move || state.answer(&method, &uri, &body)).await;
    match answered {
        Ok(Answer { status, body }) => (status, body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
