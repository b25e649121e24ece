//! [`RestNode`]: blocks and headers of a Bitcoin Core node over REST, in binary.

use super::http::{Http, Limits, Transport, unavailable, words};
use super::rpc::{MAX_BLOCK, SMALL, malformed};
use super::{BlockReader, ChainError, ServerUrl};
use crate::patience::Patience;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::{BlockHash, Network};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::StatusCode;

const LIMIT: Duration = Duration::from_secs(60);
const LANES: usize = 4;
/// What bitcoind serves at a time.
const MAX_HEADERS: u32 = 2_000;
const HEADER_LEN: usize = 80;

/// A Bitcoin Core node's REST interface (`-rest`), which stands at the address of its RPC.
#[derive(Debug)]
pub struct RestNode {
    http: Http,
    patience: Arc<Patience>,
}

impl RestNode {
    /// Asks the node at `url`, without credentials, whether it serves REST, and for which network.
    ///
    /// # Errors
    /// [`ChainError::RestDisabled`]; [`ChainError::WrongNetwork`]; any other error means that it could not be asked.
    pub fn connect(url: &str, network: Network) -> Result<Self, ChainError> {
        let url = url.parse().map_err(|reason| ChainError::Url { reason })?;
        Self::over(url, network, &Transport::new(Patience::none()))
    }

    pub(super) fn over(url: ServerUrl, network: Network, transport: &Transport) -> Result<Self, ChainError> {
        let rest = Self { http: Http::new(url, transport, None), patience: Arc::clone(&transport.patience) };
        let mut body = Vec::new();
        match rest.get("/rest/chaininfo.json", SMALL, &mut body)? {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => {
                return Err(ChainError::RestDisabled { url: rest.http.url().server() });
            }
            status => return Err(rest.refusal(status, &body)),
        }
        let info: Value = serde_json::from_slice(&body).map_err(|error| malformed("chaininfo", error))?;
        match info.get("chain").and_then(Value::as_str) {
            Some(chain) if Network::from_core_arg(chain) == Ok(network) => Ok(rest),
            chain => {
                let got = chain.unwrap_or("an unknown chain").to_owned();
                Err(ChainError::WrongNetwork { expected: network, got })
            }
        }
    }

    /// `GET` of a path, again while what is wrong may pass.
    fn get(&self, path: &str, bytes: usize, body: &mut Vec<u8>) -> Result<StatusCode, ChainError> {
        let limits = Limits { time: LIMIT, bytes };
        self.patience.ask(ChainError::is_brief, || {
            let status = self.http.get(path, limits, body);
            let status = status.map_err(|error| error.of_node(&self.http.url().server(), "REST"))?;
            match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                true => Err(self.refusal(status, body)),
                false => Ok(status),
            }
        })
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> ChainError {
        let url = self.http.url().server();
        match status {
            StatusCode::SERVICE_UNAVAILABLE => unavailable(url, body),
            // Of a server between us and bitcoind.
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                ChainError::Unreachable { url, reason: format!("HTTP status {status}") }
            }
            status => ChainError::Rpc { method: "REST".into(), code: status.as_u16().into(), message: words(body) },
        }
    }
}

impl BlockReader for RestNode {
    fn name(&self) -> String {
        format!("REST at {}", self.http.url().server())
    }

    fn lanes(&self) -> usize {
        LANES
    }

    fn read_block(&self, hash: &BlockHash, raw: &mut Vec<u8>) -> Result<(), ChainError> {
        match self.get(&format!("/rest/block/{hash}.bin"), MAX_BLOCK, raw)? {
            StatusCode::OK => Ok(()),
            // Unknown or pruned: RPC can tell which.
            StatusCode::NOT_FOUND => Err(ChainError::NotFound(format!("block {hash}"))),
            status => Err(self.refusal(status, raw)),
        }
    }

    fn headers_from(&self, hash: &BlockHash, count: u32) -> Result<Vec<Header>, ChainError> {
        let (mut body, count) = (Vec::new(), count.min(MAX_HEADERS));
        match self.get(&format!("/rest/headers/{count}/{hash}.bin"), HEADER_LEN * MAX_HEADERS as usize, &mut body)? {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(ChainError::NotFound(format!("block {hash}"))),
            status => return Err(self.refusal(status, &body)),
        }
        let header = |raw| deserialize(raw).map_err(|error| malformed("headers", error));
        body.chunks(HEADER_LEN).map(header).collect()
    }
}
