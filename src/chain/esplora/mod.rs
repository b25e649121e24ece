//! [`Esplora`]: Bitcoin from an Esplora HTTP server, where there is no node.
//!
//! Guarantees that each answer has a limit in time and length, and all answers about a wallet's history one together;
//! that headers and transactions are the ones asked for; that no redirect is followed; and that with a [`Proxy`] no
//! name is resolved and no connection made but by it, except on this machine. Trusts the server, as a node is trusted,
//! for which chain is best and for what its mempool has. It learns which addresses and transactions are asked for.

mod error;
#[cfg(feature = "wallet")]
mod history;
mod mempool;
#[cfg(feature = "wallet")]
mod merkle;

pub use error::EsploraError;

use super::bounded::Bounded;
use super::http::{Http, HttpError, Limits, Transport, words};
use super::mempool::adds_up;
use super::rpc::{HEIGHTS, MAX_BLOCK};
use super::{BlockSource, ChainError, ServerUrl};
use crate::crash;
use crate::patience::Patience;
use crate::primitives::{BlockRef, BtcHeight};
use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, Network, TxMerkleNode, TxOut};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Time limit of a request: Tor is slow, and a block has megabytes.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// Interval of polls: public servers do not like to be asked every second.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// On regtest, where blocks come when somebody asks for them.
const REGTEST_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// A hash, a height, an error's words.
const SHORT: usize = 4_096;
/// The JSON of the largest transaction: its bytes in hex, its inputs with their outputs, twice over.
const MAX_JSON: usize = 32_000_000;
/// An answer that may be read beside others.
const USUAL: usize = 4_000_000;
/// What is answered to a transaction, or to a few.
const SENT: usize = 1 << 20;
/// A list of blocks, in bytes and in blocks: servers show 10 to 15.
const BLOCK_LIST: usize = 1 << 20;
const MAX_LISTED: usize = 100;

/// Blocks in a list of them.
const LISTED: u32 = 10;

/// A block in a list of them.
#[derive(Debug, Deserialize)]
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
pub struct Esplora {
    /// Scheme, host and port, for errors: the path of a private server may be a secret.
    server: String,
    network: Network,
    checked: OnceLock<()>,
    http: Http,
    patience: Arc<Patience>,
    /// Held while a long answer is read.
    long: Mutex<()>,
}

/// A status, and the body behind it.
struct Answer<'a> {
    status: u16,
    body: Vec<u8>,
    /// Only one of them is long at a time.
    _alone: Option<MutexGuard<'a, ()>>,
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
        Self::connect_over(url, network, proxy, &Transport::new(Patience::brief()))
    }

    /// As [`connect`](Self::connect), with more patience.
    pub fn connect_over(
        url: &str,
        network: Network,
        proxy: Option<&Proxy>,
        transport: &Transport,
    ) -> Result<Self, ChainError> {
        let esplora = Self::over(url, network, proxy, transport)?;
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
        Self::over(url, network, proxy, &Transport::new(Patience::brief()))
    }

    /// As [`new`](Self::new), with more patience.
    pub fn over(url: &str, network: Network, proxy: Option<&Proxy>, transport: &Transport) -> Result<Self, ChainError> {
        let url: ServerUrl = url.parse().map_err(|error| unusable(&error))?;
        // A server on this machine is asked directly.
        let proxy = proxy.filter(|_| !url.is_loopback()).map(|Proxy(proxy)| ureq::Proxy::new(proxy)).transpose();
        let proxy = proxy.map_err(|error| EsploraError::Proxy { reason: error.to_string() })?;
        let (server, patience) = (url.server(), Arc::clone(&transport.patience));
        let http = Http::new(url, transport, proxy);
        Ok(Self { server, network, checked: OnceLock::new(), http, patience, long: Mutex::new(()) })
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

    /// No transaction holds more than all money; what does would not add up.
    fn check_amounts(&self, route: &str, outputs: &[TxOut]) -> Result<(), ChainError> {
        match adds_up(outputs) {
            true => Ok(()),
            false => Err(self.malformed(route, "a transaction of more than all money")),
        }
    }

    /// `GET`; `None` for what the server does not have.
    fn get(&self, route: &str, limit: usize) -> Result<Option<Vec<u8>>, ChainError> {
        let found = |body: &[u8]| Ok(body.to_vec());
        self.question(|| self.found(route, limit, found))
    }

    /// One question to the server, however many requests that takes.
    fn question<T>(&self, ask: impl FnOnce() -> Result<T, ChainError>) -> Result<T, ChainError> {
        crash::point();
        let answer = ask();
        crash::point();
        answer
    }

    /// `GET`, again while what is wrong may pass; `None` for what the server does not have.
    fn found<T>(
        &self,
        route: &str,
        limit: usize,
        read: impl Fn(&[u8]) -> Result<T, ChainError>,
    ) -> Result<Option<T>, ChainError> {
        self.patience.ask(ChainError::is_brief, || {
            let answer = self.request(route, None, limit)?;
            match answer.status {
                200..=299 => read(&answer.body).map(Some),
                404 => Ok(None),
                status => Err(self.failed(route, status, &answer.body)),
            }
        })
    }

    /// `POST`, again while what is wrong may pass.
    fn post(&self, route: &str, body: &str) -> Result<Answer<'_>, ChainError> {
        self.question(|| {
            self.patience.ask(ChainError::is_brief, || match self.request(route, Some(body), SENT)? {
                Answer { status: status @ (429 | 502..=504), body, .. } => Err(self.failed(route, status, &body)),
                answer => Ok(answer),
            })
        })
    }

    /// The status and up to `limit` bytes of the answer.
    fn request(&self, route: &str, sent: Option<&str>, limit: usize) -> Result<Answer<'_>, ChainError> {
        let mut body = Vec::new();
        let mut ask = |limit| {
            let limits = Limits { time: REQUEST_LIMIT, bytes: limit };
            match sent {
                Some(sent) => self.http.post(route, None, sent.as_bytes(), limits, &mut body),
                None => self.http.get(route, limits, &mut body),
            }
        };
        let mut alone = None;
        let status = match ask(limit.min(USUAL)) {
            Err(HttpError::TooLong(_)) if limit > USUAL => {
                alone = Some(self.long.lock().unwrap_or_else(PoisonError::into_inner));
                ask(limit)
            }
            status => status,
        };
        let server = self.server.clone();
        match status {
            Ok(status) => Ok(Answer { status: status.as_u16(), body, _alone: alone }),
            Err(HttpError::Unreachable(reason)) => Err(EsploraError::Unreachable { server, reason }.into()),
            Err(HttpError::Tls(reason)) => Err(EsploraError::Tls { server, reason }.into()),
            Err(error @ HttpError::TooLong(_)) => Err(self.malformed(route, error)),
        }
    }

    fn text(&self, route: &str) -> Result<Option<String>, ChainError> {
        let Some(bytes) = self.get(route, SHORT)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|error| self.malformed(route, error))?;
        Ok(Some(text.trim().to_owned()))
    }

    fn json<T: DeserializeOwned>(&self, route: &str) -> Result<Option<T>, ChainError> {
        self.json_up_to(MAX_JSON, route)
    }

    /// JSON of at most `limit` bytes. `T` must not take much more memory than what it is read from.
    fn json_up_to<T: DeserializeOwned>(&self, limit: usize, route: &str) -> Result<Option<T>, ChainError> {
        self.question(|| self.found(route, limit, |body| self.parse(route, body)))
    }

    fn parse<T: DeserializeOwned>(&self, route: &str, body: &[u8]) -> Result<T, ChainError> {
        serde_json::from_slice(body).map_err(|error| match error.is_data() {
            true => self.malformed(route, error),
            false => EsploraError::Garbled { server: self.server.clone(), route: route.into() }.into(),
        })
    }

    fn malformed(&self, route: &str, reason: impl fmt::Display) -> ChainError {
        let (server, route, reason) = (self.server.clone(), route.into(), words(reason.to_string().as_bytes()));
        EsploraError::Malformed { server, route, reason }.into()
    }

    fn busy(&self, status: u16) -> ChainError {
        EsploraError::Busy { server: self.server.clone(), status }.into()
    }

    /// An HTTP status that is not success.
    fn failed(&self, route: &str, status: u16, body: &[u8]) -> ChainError {
        let server = self.server.clone();
        match status {
            // Whoever limits rates may also say that it is forbidden to ask so often.
            403 | 429 | 500.. => self.busy(status),
            300..=399 => EsploraError::Redirected { server }.into(),
            // Servers answer with pages, too.
            _ => EsploraError::Refused { server, route: route.into(), message: words(body), status }.into(),
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
            let Some(listed) = self.listed(&route)? else { return Ok(headers) };
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
        #[derive(Deserialize)]
        struct Block {
            height: BtcHeight,
        }
        // There may be several servers behind one address, of which one has not seen the block yet.
        let Block { height } = self.json_up_to(BLOCK_LIST, &route)?.ok_or_else(|| self.busy(404))?;
        if height >= HEIGHTS {
            return Err(self.malformed(&route, "a height that is none"));
        }
        Ok(BlockRef { height, hash })
    }

    fn listed(&self, route: &str) -> Result<Option<Vec<Listed>>, ChainError> {
        let listed: Option<Bounded<Listed, MAX_LISTED>> = self.json_up_to(BLOCK_LIST, route)?;
        Ok(listed.map(|Bounded(listed)| listed))
    }
}

fn unusable(reason: &impl fmt::Display) -> EsploraError {
    EsploraError::Url { reason: reason.to_string() }
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
        assert_eq!(error.to_string(), "cannot reach the Esplora server http://127.0.0.1:1: connection refused");
    }
}
