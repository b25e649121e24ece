//! [`RestNode`]: blocks and headers of a Bitcoin Core node over REST, in binary.

use super::http::{Http, unavailable};
use super::rpc::malformed;
use super::{BlockReader, ChainError};
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::{BlockHash, Network};
use serde_json::Value;
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
}

impl RestNode {
    /// Asks the node at `url`, without credentials, whether it serves REST, and for which network.
    ///
    /// # Errors
    /// [`ChainError::RestDisabled`]; [`ChainError::WrongNetwork`]; any other error means that it could not be asked.
    pub fn connect(url: &str, network: Network) -> Result<Self, ChainError> {
        let rest = Self { http: Http::new(url) };
        let mut body = Vec::new();
        match rest.http.get("/rest/chaininfo.json", LIMIT, &mut body)? {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => {
                return Err(ChainError::RestDisabled { url: url.to_owned() });
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

    fn refusal(&self, status: StatusCode, body: &[u8]) -> ChainError {
        let url = self.http.url().to_owned();
        let message = String::from_utf8_lossy(body).trim().to_owned();
        match status {
            StatusCode::SERVICE_UNAVAILABLE => unavailable(url, body),
            status => ChainError::Rpc { method: "REST".into(), code: status.as_u16().into(), message },
        }
    }
}

impl BlockReader for RestNode {
    fn name(&self) -> String {
        format!("REST at {}", self.http.url())
    }

    fn lanes(&self) -> usize {
        LANES
    }

    fn read_block(&self, hash: &BlockHash, raw: &mut Vec<u8>) -> Result<(), ChainError> {
        match self.http.get(&format!("/rest/block/{hash}.bin"), LIMIT, raw)? {
            StatusCode::OK => Ok(()),
            // Unknown or pruned: RPC can tell which.
            StatusCode::NOT_FOUND => Err(ChainError::NotFound(format!("block {hash}"))),
            status => Err(self.refusal(status, raw)),
        }
    }

    fn headers_from(&self, hash: &BlockHash, count: u32) -> Result<Vec<Header>, ChainError> {
        let mut body = Vec::new();
        match self.http.get(&format!("/rest/headers/{}/{hash}.bin", count.min(MAX_HEADERS)), LIMIT, &mut body)? {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(ChainError::NotFound(format!("block {hash}"))),
            status => return Err(self.refusal(status, &body)),
        }
        let header = |raw| deserialize(raw).map_err(|error| malformed("headers", error));
        body.chunks(HEADER_LEN).map(header).collect()
    }
}
