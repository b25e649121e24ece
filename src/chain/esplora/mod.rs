//! [`Esplora`]: Bitcoin from an Esplora HTTP server, where there is no node.
//!
//! Guarantees that each request has a time limit; that an answer is read up to a limit of its own (the
//! wallet's histories, which BDK reads, are limited in time only); that headers and transactions are the
//! ones asked for; that no redirect is followed; and that with a [`Proxy`] no name is resolved and no
//! connection made but by it, except on this machine. Trusts the server, as a node is trusted, for which chain is best and for what its
//! mempool has. It learns which addresses and transactions are asked for.

mod error;
mod mempool;
mod merkle;

pub use error::EsploraError;

use super::{BlockSource, ChainError, is_loopback};
use crate::crash;
use crate::primitives::{BlockRef, BtcHeight};
use bdk_esplora::EsploraAsyncExt;
use bdk_esplora::esplora_client::{self, AsyncClient};
use bdk_wallet::KeychainKind;
use bdk_wallet::chain::spk_client::{FullScanRequest, FullScanResponse, SyncRequest, SyncResponse};
use bdk_wallet::chain::{ConfirmationBlockTime, TxUpdate};
use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, TxMerkleNode, TxOut, Txid};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// Time limit of a request: Tor is slow, and a block has megabytes.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// How often a busy server is asked again, each time after twice the time. BDK's own requests are repeated six times.
const RETRIES: usize = 3;
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// Requests at one time while the wallet's histories are fetched.
const PARALLEL: usize = 4;
/// Interval of polls: public servers do not like to be asked every second.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// On regtest, where blocks come when somebody asks for them.
const REGTEST_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// What is asked for by BDK, in many requests.
const HISTORY: &str = "a wallet's history";
/// A hash, a height, an error's words.
const SHORT: usize = 4_096;
/// The largest block, in bytes.
const MAX_BLOCK: usize = 4_000_000;
/// The JSON of the largest transaction: its bytes in hex, its inputs with their outputs, twice over.
const MAX_JSON: usize = 32_000_000;

/// Blocks in a list of them.
const LISTED: u32 = 10;

/// A block in a list of them.
#[derive(Deserialize)]
struct Listed {
    id: BlockHash,
    height: BtcHeight,
    version: i64,
    timestamp: u32,
    bits: u32,
    nonce: u32,
    merkle_root: TxMerkleNode,
    previousblockhash: Option<BlockHash>,
}

/// A SOCKS5 proxy, such as Tor's, which also resolves names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy(String);

impl FromStr for Proxy {
    type Err = EsploraError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let fail = |reason: &str| Err(EsploraError::Proxy { reason: reason.into() });
        match url.split_once("://") {
            Some(("socks5h", address)) if address.contains('@') => fail("it holds credentials"),
            Some(("socks5h", address)) => match address.trim_end_matches('/').rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                    Ok(Self(format!("socks5h://{host}:{port}")))
                }
                _ => fail("it needs a host and a port"),
            },
            Some(("socks5" | "socks4" | "socks4a", _)) => {
                fail("with another scheme than socks5h, names could be resolved on this side of it")
            }
            _ => fail("its scheme is not socks5h"),
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A connection to one Esplora server on one network.
///
/// Its calls block; none may be made from a thread that runs asynchronous code.
pub struct Esplora {
    /// Scheme, host and port, for errors: the path of a private server may be a secret.
    server: String,
    base: String,
    network: Network,
    checked: OnceLock<()>,
    client: AsyncClient,
    runtime: Runtime,
}

impl fmt::Debug for Esplora {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Esplora").field("server", &self.server).field("network", &self.network).finish_non_exhaustive()
    }
}

impl Esplora {
    /// Connects, and checks that the server is on `network`.
    ///
    /// A server on this machine is reached without `proxy`.
    ///
    /// # Errors
    /// [`EsploraError::WrongNetwork`] if it is not; any other error means that it could not be asked.
    pub fn connect(url: &str, network: Network, proxy: Option<&Proxy>) -> Result<Self, ChainError> {
        let esplora = Self::new(url, network, proxy)?;
        esplora.check_network()?;
        Ok(esplora)
    }

    /// Checks, once, that the server is on its network.
    fn check_network(&self) -> Result<(), ChainError> {
        if self.checked.get().is_some() {
            return Ok(());
        }
        let server = self.server.clone();
        let Some(genesis) = self.block_hash(0)? else {
            let reason = format!("{server} knows no block-height/0 below its path (is the path right?)");
            return Err(EsploraError::Url { reason }.into());
        };
        if genesis != genesis_block(self.network).block_hash() {
            let (expected, genesis) = (self.network, genesis.to_string());
            return Err(EsploraError::WrongNetwork { server, expected, genesis }.into());
        }
        let _ = self.checked.set(());
        Ok(())
    }

    /// A server that is asked nothing yet: for sending to. Before its word is taken on rates, its network is
    /// checked.
    ///
    /// # Errors
    /// [`EsploraError::Url`].
    pub fn new(url: &str, network: Network, proxy: Option<&Proxy>) -> Result<Self, ChainError> {
        let unusable = |reason: &str| EsploraError::Url { reason: reason.into() };
        let base = url.trim_end_matches('/').to_owned();
        let Some((scheme @ ("http" | "https"), rest)) = base.split_once("://") else {
            return Err(unusable("its scheme is neither https nor http").into());
        };
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(unusable("it holds credentials").into());
        }
        let server = format!("{scheme}://{authority}");
        let unbuilt = |error: reqwest::Error| unusable(&root_cause(&error.without_url()));
        // A server on this machine is asked directly, and would lead past the proxy.
        let client = reqwest::Client::builder().timeout(REQUEST_LIMIT).redirect(reqwest::redirect::Policy::none());
        let client = match proxy {
            _ if is_loopback(&base) => client.no_proxy(),
            Some(proxy) => client.proxy(reqwest::Proxy::all(&proxy.0).map_err(unbuilt)?),
            None => client,
        };
        let client = client.build().map_err(unbuilt)?;
        // Also a check of the URL, which the client makes late.
        client.get(&base).build().map_err(unbuilt)?;
        let client = AsyncClient::from_client(base.clone(), client);
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| unusable(&error.to_string()))?;
        Ok(Self { server, base, network, checked: OnceLock::new(), client, runtime })
    }

    /// The network that was checked on connecting.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Scheme, host and port.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// How often a new tip is looked for.
    pub fn poll_interval(&self) -> Duration {
        if self.network == Network::Regtest { REGTEST_POLL_INTERVAL } else { POLL_INTERVAL }
    }

    /// Everything about a wallet's scripts, until `stop_gap` of them in a row were never used.
    pub(crate) fn full_scan(
        &self,
        request: FullScanRequest<KeychainKind>,
        stop_gap: usize,
    ) -> Result<FullScanResponse<KeychainKind>, ChainError> {
        let found = self.ask(self.client.full_scan(request, stop_gap, PARALLEL));
        let found = found.map_err(|error| self.explain(HISTORY, *error))?;
        self.check_history(&found.tx_update)?;
        Ok(found)
    }

    /// Everything new about a wallet's revealed scripts.
    pub(crate) fn sync<I: Send>(&self, request: SyncRequest<I>) -> Result<SyncResponse, ChainError> {
        let found = self.ask(self.client.sync(request, PARALLEL)).map_err(|error| self.explain(HISTORY, *error))?;
        self.check_history(&found.tx_update)?;
        Ok(found)
    }

    fn check_history(&self, found: &TxUpdate<ConfirmationBlockTime>) -> Result<(), ChainError> {
        found.txs.iter().try_for_each(|tx| self.check_amounts(HISTORY, &tx.output))?;
        found.txouts.values().try_for_each(|output| self.check_amounts(HISTORY, std::slice::from_ref(output)))
    }

    /// No transaction holds more than all money; what does would not add up.
    fn check_amounts(&self, route: &str, outputs: &[TxOut]) -> Result<(), ChainError> {
        let sum = outputs.iter().try_fold(Amount::ZERO, |sum, output| sum.checked_add(output.value));
        match sum.filter(|sum| *sum <= Amount::MAX_MONEY) {
            Some(_) => Ok(()),
            None => Err(self.malformed(route, "a transaction of more than all money")),
        }
    }

    /// `GET`; `None` for what the server does not have.
    fn get(&self, route: &str, limit: usize) -> Result<Option<Vec<u8>>, ChainError> {
        let mut wait = FIRST_RETRY;
        for _ in 0..RETRIES {
            match self.request(route, None, limit)? {
                (429 | 500 | 502..=504, _) => sleep(wait),
                answer => return self.found(route, answer),
            }
            wait *= 2;
        }
        let answer = self.request(route, None, limit)?;
        self.found(route, answer)
    }

    fn found(&self, route: &str, (status, body): (u16, Vec<u8>)) -> Result<Option<Vec<u8>>, ChainError> {
        match status {
            200..=299 => Ok(Some(body)),
            404 => Ok(None),
            _ => Err(self.failed(route, status, &String::from_utf8_lossy(&body))),
        }
    }

    /// All outputs in the chain that pay one of `scripts` and are not spent there.
    pub(crate) fn unspent_of(&self, scripts: &[ScriptBuf]) -> Result<Vec<(OutPoint, TxOut)>, ChainError> {
        let request = SyncRequest::builder().spks(scripts.iter().cloned());
        let TxUpdate { txs, anchors, .. } = self.sync::<()>(request.build())?.tx_update;
        let mined: BTreeSet<Txid> = anchors.into_iter().map(|(_, txid)| txid).collect();
        let mut unspent = BTreeMap::new();
        let mut spent = BTreeSet::new();
        for tx in txs {
            let txid = tx.compute_txid();
            if mined.contains(&txid) {
                spent.extend(tx.input.iter().map(|input| input.previous_output));
                let paid = (0..).zip(&tx.output).filter(|(_, output)| scripts.contains(&output.script_pubkey));
                unspent.extend(paid.map(|(vout, output)| (OutPoint::new(txid, vout), output.clone())));
            }
        }
        unspent.retain(|outpoint, _| !spent.contains(outpoint));
        Ok(unspent.into_iter().collect())
    }

    fn ask<T>(&self, question: impl Future<Output = T>) -> T {
        crash::point();
        let answer = self.runtime.block_on(question);
        crash::point();
        answer
    }

    /// The status and up to `limit` bytes of the answer.
    fn request(&self, route: &str, body: Option<String>, limit: usize) -> Result<(u16, Vec<u8>), ChainError> {
        let url = format!("{}{route}", self.base);
        let client = self.client.client();
        let request = match body {
            Some(body) => client.post(url).body(body),
            None => client.get(url),
        };
        let answer = self.ask(async {
            let mut response = request.send().await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > limit {
                    return Ok(Err(bytes.len()));
                }
            }
            Ok(Ok((response.status().as_u16(), bytes)))
        });
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.malformed(route, format_args!("more than {limit} bytes"))),
            Err(error) => Err(self.explain(route, esplora_client::Error::Reqwest(error))),
        }
    }

    fn text(&self, route: &str) -> Result<Option<String>, ChainError> {
        let Some(bytes) = self.get(route, SHORT)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|error| self.malformed(route, error))?;
        Ok(Some(text.trim().to_owned()))
    }

    fn json<T: DeserializeOwned>(&self, route: &str) -> Result<Option<T>, ChainError> {
        let Some(bytes) = self.get(route, MAX_JSON)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| self.malformed(route, error))
    }

    fn malformed(&self, route: &str, reason: impl fmt::Display) -> ChainError {
        let (server, route, reason) = (self.server.clone(), route.into(), reason.to_string());
        EsploraError::Malformed { server, route, reason }.into()
    }

    fn busy(&self, status: u16) -> ChainError {
        EsploraError::Busy { server: self.server.clone(), status }.into()
    }

    /// An HTTP status that is not success.
    fn failed(&self, route: &str, status: u16, message: &str) -> ChainError {
        let server = self.server.clone();
        match status {
            // Whoever limits rates may also say that it is forbidden to ask so often.
            403 | 429 | 500.. => self.busy(status),
            300..=399 => EsploraError::Redirected { server }.into(),
            _ => {
                // Servers answer with pages, too.
                let message = message.trim().chars().take(200).collect();
                EsploraError::Refused { server, route: route.into(), message, status }.into()
            }
        }
    }

    /// Turns the client's errors into ours.
    fn explain(&self, route: &str, error: esplora_client::Error) -> ChainError {
        match error {
            esplora_client::Error::HttpResponse { status, message } => self.failed(route, status, &message),
            esplora_client::Error::Reqwest(error) if error.is_decode() && !error.is_timeout() => {
                self.malformed(route, root_cause(&error))
            }
            esplora_client::Error::Reqwest(error) => {
                let reason = if error.is_timeout() { "timed out".into() } else { root_cause(&error.without_url()) };
                EsploraError::Unreachable { server: self.server.clone(), reason }.into()
            }
            esplora_client::Error::HeaderHashNotFound(_) => {
                self.malformed(route, "a chain that has nothing in common with the one known")
            }
            other => self.malformed(route, other),
        }
    }
}

impl BlockSource for Esplora {
    fn tip(&self) -> Result<BlockRef, ChainError> {
        self.block_ref(self.tip_hash()?)
    }

    fn block_hash(&self, height: BtcHeight) -> Result<Option<BlockHash>, ChainError> {
        let route = format!("/block-height/{height}");
        let text = self.text(&route)?;
        text.map(|text| text.parse().map_err(|error| self.malformed(&route, error))).transpose()
    }

    fn header(&self, hash: &BlockHash) -> Result<Header, ChainError> {
        let route = format!("/block/{hash}/header");
        let text = self.text(&route)?.ok_or_else(|| ChainError::NotFound(format!("block {hash}")))?;
        let header: Header = deserialize_hex(&text).map_err(|error| self.malformed(&route, error))?;
        match header.block_hash() == *hash {
            true => Ok(header),
            false => Err(self.malformed(&route, "another block's header")),
        }
    }

    fn headers(&self, first: BtcHeight, count: u32) -> Result<Vec<Header>, ChainError> {
        let mut headers: Vec<Header> = Vec::new();
        let Some(last) = first.saturating_add(count).checked_sub(1) else { return Ok(headers) };
        let last = last.min(self.tip()?.height);
        loop {
            let next = first.saturating_add(headers.len() as u32);
            if next > last {
                return Ok(headers);
            }
            // From the highest down; nothing, where that is above the tip.
            let highest = last.min(next.saturating_add(LISTED - 1));
            let route = format!("/blocks/{highest}");
            let Some(listed): Option<Vec<Listed>> = self.json(&route)? else { return Ok(headers) };
            for height in next..=highest {
                let block = listed.iter().find(|block| block.height == height);
                let header = block.and_then(Listed::header).ok_or_else(|| {
                    self.malformed(&route, format_args!("no block at height {height} with the header it is named by"))
                })?;
                // The chain may change between two calls.
                if headers.last().is_some_and(|parent| parent.block_hash() != header.prev_blockhash) {
                    return Ok(headers);
                }
                headers.push(header);
            }
        }
    }

    fn block(&self, hash: &BlockHash) -> Result<Vec<u8>, ChainError> {
        let raw = self.get(&format!("/block/{hash}/raw"), MAX_BLOCK)?;
        raw.ok_or_else(|| ChainError::NotFound(format!("block {hash}")))
    }

    fn wait_for_tip(&self, current: &BlockHash, timeout: Duration) -> Result<BlockRef, ChainError> {
        let deadline = Instant::now() + timeout;
        loop {
            let hash = self.tip_hash()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if hash != *current || left.is_zero() {
                return self.block_ref(hash);
            }
            sleep(self.poll_interval().min(left));
        }
    }
}

impl Esplora {
    fn tip_hash(&self) -> Result<BlockHash, ChainError> {
        const ROUTE: &str = "/blocks/tip/hash";
        let text = self.text(ROUTE)?.ok_or_else(|| self.malformed(ROUTE, "nothing; is this an Esplora server?"))?;
        text.parse().map_err(|error| self.malformed(ROUTE, error))
    }

    fn block_ref(&self, hash: BlockHash) -> Result<BlockRef, ChainError> {
        let route = format!("/block/{hash}");
        // There may be several servers behind one address, of which one has not seen the block yet.
        let block: Value = self.json(&route)?.ok_or_else(|| self.busy(404))?;
        let height = block.get("height").and_then(Value::as_u64);
        let height = height.and_then(|height| BtcHeight::try_from(height).ok());
        Ok(BlockRef { height: height.ok_or_else(|| self.malformed(&route, "no height"))?, hash })
    }
}

impl Listed {
    /// Its header, if that has its hash.
    fn header(&self) -> Option<Header> {
        let header = Header {
            // Some give it with its sign, some without.
            version: Version::from_consensus(self.version as i32),
            prev_blockhash: self.previousblockhash.unwrap_or_else(BlockHash::all_zeros),
            merkle_root: self.merkle_root,
            time: self.timestamp,
            bits: CompactTarget::from_consensus(self.bits),
            nonce: self.nonce,
        };
        (header.block_hash() == self.id).then_some(header)
    }
}

/// What lies at the bottom of an error, without the layers above.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(error) => super::http::plain(error),
        None => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_proxy_that_resolves_names_is_taken() {
        let proxy: Proxy = "socks5h://127.0.0.1:9050/".parse().expect("Tor's");
        assert_eq!(proxy.to_string(), "socks5h://127.0.0.1:9050");
        for url in
            ["socks5://127.0.0.1:9050", "http://127.0.0.1:8118", "127.0.0.1:9050", "socks5h://tor", "socks5h://u:p@h:1"]
        {
            let error = url.parse::<Proxy>().expect_err(url).to_string();
            assert!(error.ends_with("it looks like socks5h://127.0.0.1:9050"), "{error}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_repeating_its_secrets() {
        for url in ["blockstream.info/api", "ftp://host/api", "https://u:hunter2@host/api", "http://", "http://[::1"] {
            let error = Esplora::connect(url, Network::Bitcoin, None).expect_err(url);
            assert!(matches!(&error, ChainError::Esplora(EsploraError::Url { .. })), "{url}: {error}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn nobody_listening_is_temporary_and_says_where_but_not_the_path() {
        let error = Esplora::connect("http://127.0.0.1:1/hunter2", Network::Regtest, None).expect_err("no server");
        assert!(error.is_temporary());
        assert_eq!(
            error.to_string(),
            "cannot reach the Esplora server http://127.0.0.1:1: connection refused; try again, or set --esplora-url to another"
        );
    }
}
