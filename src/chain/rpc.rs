//! [`RpcNode`]: a Bitcoin Core node over JSON-RPC.
//!
//! Each call has its own time limit, and a connection for itself while it lasts, so a long poll never holds up
//! another call. A refused cookie is read again once, because bitcoind makes a new one each time it starts. An answer
//! is read up to the length that its method may have, and into a type, not a tree, wherever that length is large.

use super::bounded::Bounded;
use super::http::{Http, Limits, Transport, unavailable, words};
use super::{BlockSource, ChainError, RestNode, ServerUrl};
use crate::crash;
use crate::patience::Patience;
use crate::primitives::{BlockRef, BtcHeight};
use bitcoin::base64::prelude::{BASE64_STANDARD, Engine};
use bitcoin::block::Header;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::constants::genesis_block;
use bitcoin::{Amount, BlockHash, Network, OutPoint, ScriptBuf, TxOut, Txid};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};
use ureq::http::StatusCode;

/// Time limit of an ordinary call.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// How much longer than the poll itself we wait for its answer.
const POLL_MARGIN: Duration = Duration::from_secs(15);
/// Interval of the fallback where the node has no race-free long poll.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Blocks asked for at a time: the node's own encoding of them in hexadecimal is the limit.
const LANES: usize = 4;
/// Calls in one request.
pub(super) const BATCH: usize = 500;
/// Scripts in one search through the UTXO set: a request has 32 MB at most.
const SCRIPTS_AT_ONCE: usize = 300_000;
/// Transactions in one request.
const TRANSACTIONS: usize = 16;
/// Transactions that a node named and then does not have, after which it is not asked for more: a block or two take as
/// many out of its mempool.
const MISSING: usize = 20_000;

/// The longest answer of a method that answers briefly, in bytes: as a tree it takes 20 times as much memory.
pub(super) const SMALL: usize = 1 << 20;
/// The largest block, in bytes.
pub(super) const MAX_BLOCK: usize = 4_000_000;
/// A block or a transaction in hexadecimal, with what stands around it.
const HEX: usize = 2 * MAX_BLOCK + 1_024;
/// The largest transactions that are relayed, as many as there are in a request, in hexadecimal.
const TRANSACTIONS_HEX: usize = TRANSACTIONS * 1_000_000;
/// The largest of all: the ids of a mempool's transactions, a wallet's coins.
const LONG: usize = 64 << 20;
/// Ids or coins in it, which have 67 bytes and more.
const LONG_ENTRIES: usize = 1_000_000;
/// From here on a lock time is no height; no chain will be that long.
pub(super) const HEIGHTS: u32 = 500_000_000;
/// Time limit of a search through the whole UTXO set.
const UTXO_SCAN_LIMIT: Duration = Duration::from_secs(3 * 60 * 60);

const NOT_FOUND: i32 = -5;
const OUT_OF_RANGE: i32 = -8;
const WARMING_UP: i32 = -28;

/// How to identify ourselves to bitcoind. `Debug` shows no secret.
#[derive(Clone)]
pub enum Credentials {
    /// The cookie file in bitcoind's data directory.
    Cookie(PathBuf),
    /// `rpcuser` and `rpcpassword`, or an `rpcauth` pair.
    UserPassword {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cookie(path) => write!(f, "Cookie({})", path.display()),
            Self::UserPassword { user, .. } => write!(f, "UserPassword({user}, [redacted])"),
        }
    }
}

impl Credentials {
    /// `user:password`.
    fn read(&self) -> Result<String, ChainError> {
        match self {
            Self::UserPassword { user, password } => Ok(format!("{user}:{password}")),
            Self::Cookie(path) => read_cookie(path),
        }
    }
}

fn read_cookie(path: &Path) -> Result<String, ChainError> {
    let fail = |reason: String| ChainError::Cookie { path: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let line = text.lines().next().unwrap_or_default();
    if !line.contains(':') {
        return Err(fail("it does not hold user:password".into()));
    }
    Ok(line.to_owned())
}

/// What `getblockchaininfo` and `getnetworkinfo` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Network, by Bitcoin Core's name for it: main, test, testnet4, signet, regtest.
    pub chain: String,
    /// Best block.
    pub tip: BlockRef,
    /// Best header's height: above the tip while the node catches up.
    pub headers: BtcHeight,
    /// Whether the node is in its initial block download.
    pub initial_download: bool,
    /// Lowest height whose block is on disk, if the node prunes.
    pub prune_height: Option<BtcHeight>,
    /// Bitcoin Core's version number, such as 310000.
    pub version: u32,
}

impl NodeInfo {
    /// Whether there are newer blocks that the node does not have: its tip is not the chain's.
    ///
    /// By bitcoind's own word a node downloads as long as its tip is more than a day old. On a network for tests that
    /// may be all there is, so there it counts only if the node has headers of newer blocks.
    pub fn is_behind(&self) -> bool {
        self.initial_download && (self.headers > self.tip.height || self.chain == Network::Bitcoin.to_core_arg())
    }
}

/// A coin of a UTXO set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Utxo {
    /// Which output.
    pub outpoint: OutPoint,
    /// What it holds, and who can spend it.
    pub output: TxOut,
    /// The height of its block.
    pub height: BtcHeight,
}

impl From<Unspent> for Utxo {
    fn from(coin: Unspent) -> Self {
        let output = TxOut { value: coin.amount, script_pubkey: coin.script_pubkey };
        Self { outpoint: OutPoint::new(coin.txid, coin.vout), output, height: coin.height }
    }
}

/// A connection to one Bitcoin Core node on one network.
pub struct RpcNode {
    url: String,
    credentials: Credentials,
    /// `user:password` as read last.
    secret: Mutex<String>,
    network: Network,
    version: u32,
    http: Http,
    transport: Transport,
    /// Answers in hexadecimal go here: their memory is used again.
    answers: Mutex<Vec<Vec<u8>>>,
}

/// Text in an answer stands there as it came.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    result: Option<&'a str>,
    #[serde(default)]
    error: Option<RpcError>,
}

/// Any other answer; a result may be null.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Reply<T> {
    #[serde(default = "Option::default")]
    result: Option<T>,
    #[serde(default)]
    error: Option<RpcError>,
}

/// What `scantxoutset` finds.
#[derive(Deserialize)]
struct Unspents {
    unspents: Bounded<Unspent, LONG_ENTRIES>,
}

#[derive(Deserialize)]
struct Unspent {
    txid: Txid,
    vout: u32,
    #[serde(rename = "scriptPubKey")]
    script_pubkey: ScriptBuf,
    #[serde(with = "bitcoin::amount::serde::as_btc")]
    amount: Amount,
    height: BtcHeight,
}

#[derive(Deserialize)]
struct RpcError {
    code: i32,
    message: String,
}

impl fmt::Debug for RpcNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcNode")
            .field("url", &self.url)
            .field("credentials", &self.credentials)
            .field("network", &self.network)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl RpcNode {
    /// Connects, and checks that the node is on `network`.
    ///
    /// # Errors
    /// [`ChainError::WrongNetwork`] if it is not; any other error means that it could not be asked.
    pub fn connect(url: &str, credentials: Credentials, network: Network) -> Result<Self, ChainError> {
        Self::connect_over(url, credentials, network, &Transport::new(Patience::none()))
    }

    /// As [`connect`](Self::connect), with more patience or other authorities.
    pub fn connect_over(
        url: &str,
        credentials: Credentials,
        network: Network,
        transport: &Transport,
    ) -> Result<Self, ChainError> {
        let url: ServerUrl = url.parse().map_err(|reason| ChainError::Url { reason })?;
        let secret = Mutex::new(transport.patience.ask(ChainError::is_brief, || credentials.read())?);
        let http = Http::new(url.clone(), transport, None);
        let (url, transport, answers) = (url.server(), transport.clone(), Mutex::default());
        let mut node = Self { url, credentials, secret, network, version: 0, http, transport, answers };
        let chain: Value = node.call("getblockchaininfo", &[])?;
        let chain = text(&chain, "chain", "getblockchaininfo")?;
        if Network::from_core_arg(chain) != Ok(network) {
            return Err(ChainError::WrongNetwork { expected: network, got: words(chain.as_bytes()) });
        }
        let genesis: BlockHash = node.call("getblockhash", &[json!(0)])?;
        if genesis != genesis_block(network).block_hash() {
            return Err(ChainError::WrongNetwork {
                expected: network,
                got: format!("a chain whose genesis is {genesis}"),
            });
        }
        let info: Value = node.call("getnetworkinfo", &[])?;
        node.version = number(&info, "version", "getnetworkinfo")?;
        Ok(node)
    }

    /// The network that was checked on connecting.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Bitcoin Core's version number, such as 310000.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Address without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its REST interface, reached in the same way.
    ///
    /// # Errors
    /// As of [`RestNode::connect`].
    pub fn rest(&self) -> Result<RestNode, ChainError> {
        RestNode::over(self.http.url().clone(), self.network, &self.transport)
    }

    /// Facts about the node and its chain.
    pub fn info(&self) -> Result<NodeInfo, ChainError> {
        const METHOD: &str = "getblockchaininfo";
        let info: Value = self.call(METHOD, &[])?;
        let pruned = info.get("pruned").and_then(Value::as_bool).unwrap_or(false);
        Ok(NodeInfo {
            chain: text(&info, "chain", METHOD)?.to_owned(),
            tip: BlockRef {
                height: height(&info, "blocks", METHOD)?,
                hash: parse(text(&info, "bestblockhash", METHOD)?, METHOD)?,
            },
            headers: height(&info, "headers", METHOD)?,
            initial_download: info.get("initialblockdownload").and_then(Value::as_bool).unwrap_or(false),
            prune_height: match pruned {
                true => Some(number(&info, "pruneheight", METHOD).unwrap_or(0)),
                false => None,
            },
            version: self.version,
        })
    }

    /// Calls any method that answers briefly: up to a megabyte, within the ordinary time limit.
    pub fn call<T: DeserializeOwned>(&self, method: &str, params: &[Value]) -> Result<T, ChainError> {
        self.call_within(Limits { time: CALL_LIMIT, bytes: SMALL }, method, params)
    }

    /// All unspent outputs in the chain that pay one of `scripts`.
    ///
    /// Reads the whole UTXO set, which takes minutes on mainnet, once for 300,000 scripts.
    pub fn scan_utxo_set(&self, scripts: &[ScriptBuf]) -> Result<Vec<Utxo>, ChainError> {
        const METHOD: &str = "scantxoutset";
        let limits = Limits { time: UTXO_SCAN_LIMIT, bytes: LONG };
        let mut coins = Vec::new();
        for scripts in scripts.chunks(SCRIPTS_AT_ONCE) {
            // Of a descriptor, the node would take ten times as long to derive them.
            let objects: Vec<Value> = scripts.iter().map(|script| json!(format!("raw({script:x})"))).collect();
            let Unspents { unspents: Bounded(found) } =
                self.call_within(limits, METHOD, &[json!("start"), json!(objects)])?;
            coins.extend(found.into_iter().map(Utxo::from));
        }
        if coins.iter().any(|coin| coin.height >= HEIGHTS) {
            return Err(malformed(METHOD, "a height that is none"));
        }
        let sum = coins.iter().try_fold(Amount::ZERO, |sum, coin| sum.checked_add(coin.output.value));
        match sum.filter(|sum| *sum <= Amount::MAX_MONEY) {
            Some(_) => Ok(coins),
            None => Err(malformed(METHOD, "coins of more than all money")),
        }
    }

    /// The transactions in the mempool.
    pub(crate) fn mempool_txids(&self) -> Result<Vec<Txid>, ChainError> {
        let limits = Limits { time: CALL_LIMIT, bytes: LONG };
        let Bounded(txids): Bounded<Txid, LONG_ENTRIES> = self.call_within(limits, "getrawmempool", &[])?;
        Ok(txids)
    }

    /// Calls a method that answers with a block or a transaction in hexadecimal.
    pub(super) fn call_for_hex(&self, method: &str, params: &[Value]) -> Result<String, ChainError> {
        self.call_within(Limits { time: CALL_LIMIT, bytes: HEX }, method, params)
    }

    /// How many transactions the mempool holds.
    pub fn mempool_size(&self) -> Result<u32, ChainError> {
        let info: Value = self.call("getmempoolinfo", &[])?;
        number(&info, "size", "getmempoolinfo")
    }

    fn call_within<T: DeserializeOwned>(
        &self,
        limits: Limits,
        method: &str,
        params: &[Value],
    ) -> Result<T, ChainError> {
        let mut answer = Vec::new();
        crash::point();
        let read = self.ask(limits, method, &call(method, params), &mut answer, |answer| {
            let Reply { result, error } = self.parse(method, answer)?;
            match (result, error) {
                (_, Some(error)) => Err(self.refusal(method, Some(error))),
                (Some(result), None) => Ok(result),
                // Some methods answer with null.
                (None, None) => serde_json::from_str("null").map_err(|_| malformed(method, "nothing")),
            }
        });
        crash::point();
        read
    }

    /// One question; again, while what is wrong with its answer may pass.
    fn ask<T>(
        &self,
        limits: Limits,
        method: &str,
        request: &Value,
        answer: &mut Vec<u8>,
        read: impl Fn(&[u8]) -> Result<T, ChainError>,
    ) -> Result<T, ChainError> {
        self.transport.patience.ask(ChainError::is_brief, || {
            self.post(limits, method, request, answer)?;
            read(answer)
        })
    }

    fn parse<'a, T: Deserialize<'a>>(&self, method: &str, answer: &'a [u8]) -> Result<T, ChainError> {
        serde_json::from_slice(answer).map_err(|error| match error.is_data() {
            true => malformed(method, error),
            false => self.garbled(method),
        })
    }

    /// One request; a refused cookie is read again once.
    fn post(&self, limits: Limits, method: &str, request: &Value, answer: &mut Vec<u8>) -> Result<(), ChainError> {
        let json = request.to_string();
        let post = |secret: &str, answer: &mut Vec<u8>| {
            let status = self.http.post("", Some(&basic(secret)), json.as_bytes(), limits, answer);
            status.map_err(|error| error.of_node(&self.url, method))
        };
        let secret = self.secret.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut status = post(&secret, answer)?;
        if status == StatusCode::UNAUTHORIZED
            && let Some(fresh) = self.credentials.read().ok().filter(|fresh| *fresh != secret)
        {
            self.secret.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&fresh);
            status = post(&fresh, answer)?;
        }
        let url = self.url.clone();
        let is_json = answer.first().is_some_and(|first| b"{[".contains(first));
        match status {
            // An error comes with one of the last three.
            StatusCode::OK | StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR
                if is_json =>
            {
                Ok(())
            }
            StatusCode::OK => Err(self.garbled(method)),
            StatusCode::UNAUTHORIZED => Err(ChainError::Auth { url }),
            StatusCode::SERVICE_UNAVAILABLE => Err(unavailable(url, answer)),
            // Of a server between us and bitcoind.
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(ChainError::Unreachable { url, reason: format!("HTTP status {status}") })
            }
            status => Err(ChainError::NotServed { url, method: method.into(), status: status.as_u16() }),
        }
    }

    fn garbled(&self, method: &str) -> ChainError {
        ChainError::Garbled { url: self.url.clone(), method: method.into() }
    }

    /// The texts that one method answers for each of these parameters, until it answers with an error.
    fn texts<const N: usize>(
        &self,
        method: &str,
        params: impl Iterator<Item = [Value; N]>,
    ) -> Result<Vec<String>, ChainError> {
        let calls: Vec<Value> = params.map(|params| call(method, &params)).collect();
        let limits = Limits { time: CALL_LIMIT, bytes: SMALL };
        self.ask(limits, method, &json!(calls), &mut Vec::new(), |answer| {
            let Bounded(answers): Bounded<Answer<'_>, BATCH> = self.parse(method, answer)?;
            if answers.len() > calls.len() {
                return Err(malformed(method, "more answers than questions"));
            }
            let mut texts = Vec::with_capacity(answers.len());
            for answer in answers {
                match (answer.result, answer.error) {
                    (Some(text), _) => texts.push(text.to_owned()),
                    (None, Some(error)) if error.code == OUT_OF_RANGE => break,
                    (None, error) => return Err(self.refusal(method, error)),
                }
            }
            Ok(texts)
        })
    }

    /// What one method answers for each of these parameters, in as few requests as are sensible; `None` for null.
    pub(super) fn each<T: DeserializeOwned>(
        &self,
        method: &str,
        params: &[Vec<Value>],
    ) -> Result<Vec<Option<T>>, ChainError> {
        let (mut answer, mut results) = (Vec::new(), Vec::with_capacity(params.len()));
        let limits = Limits { time: CALL_LIMIT, bytes: TRANSACTIONS_HEX };
        for params in params.chunks(BATCH) {
            let calls: Vec<Value> = params.iter().map(|params| call(method, params)).collect();
            results.extend(self.ask(limits, method, &json!(calls), &mut answer, |answer| {
                let Bounded(answers): Bounded<Reply<T>, BATCH> = self.parse(method, answer)?;
                if answers.len() != calls.len() {
                    return Err(malformed(method, "another number of answers than questions"));
                }
                let read = |Reply { result, error }| match error {
                    Some(error) => Err(self.refusal(method, Some(error))),
                    None => Ok(result),
                };
                answers.into_iter().map(read).collect::<Result<Vec<_>, _>>()
            })?);
        }
        Ok(results)
    }

    /// Hands out these transactions of the mempool, as bytes, until `each` breaks; those that have left it are left
    /// out.
    ///
    /// # Errors
    /// Also if most of them are not there, after the node has just named them.
    pub(crate) fn raw_transactions(
        &self,
        txids: &[Txid],
        mut each: impl FnMut(Txid, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ChainError> {
        const METHOD: &str = "getrawtransaction";
        let (mut answer, mut raw) = (Vec::new(), Vec::new());
        let (mut found, mut missing) = (0_usize, 0_usize);
        let limits = Limits { time: CALL_LIMIT, bytes: TRANSACTIONS_HEX };
        for txids in txids.chunks(TRANSACTIONS) {
            let calls: Vec<Value> = txids.iter().map(|txid| call(METHOD, &[json!(txid)])).collect();
            self.ask(limits, METHOD, &json!(calls), &mut answer, |answer| {
                self.parse::<Bounded<Answer<'_>, TRANSACTIONS>>(METHOD, answer).map(drop)
            })?;
            let Bounded(answers): Bounded<Answer<'_>, TRANSACTIONS> = self.parse(METHOD, &answer)?;
            for (txid, answer) in txids.iter().zip(answers) {
                match (answer.result, answer.error) {
                    (Some(hex), _) => {
                        found += 1;
                        decode_hex(METHOD, hex, &mut raw)?;
                        if each(*txid, &raw).is_break() {
                            return Ok(());
                        }
                    }
                    (None, Some(error)) if error.code == NOT_FOUND => missing += 1,
                    (None, error) => return Err(self.refusal(METHOD, error)),
                }
            }
            if missing > MISSING && missing > found {
                return Err(malformed("getrawmempool", "transactions that it does not have"));
            }
        }
        Ok(())
    }

    /// What an answer without a result says.
    fn refusal(&self, method: &str, error: Option<RpcError>) -> ChainError {
        match error {
            Some(RpcError { code, message }) => {
                let message = words(message.as_bytes());
                match code {
                    WARMING_UP => ChainError::WarmingUp { url: self.url.clone(), message },
                    NOT_FOUND => ChainError::NotFound(format!("it: {message} ({method})")),
                    code => ChainError::Rpc { method: method.into(), code, message },
                }
            }
            None => malformed(method, "neither a result nor an error"),
        }
    }

    /// Names the height of a block that is no longer on disk.
    fn explain_block(&self, hash: &BlockHash, error: ChainError) -> ChainError {
        match error {
            ChainError::NotFound(_) => ChainError::NotFound(format!("block {hash}")),
            ChainError::Rpc { ref message, .. } if message.contains("pruned") => {
                let (Ok(height), Ok(info)) = (self.height(hash), self.info()) else { return error };
                let first_available = info.prune_height.unwrap_or(0);
                ChainError::Pruned { height, first_available }
            }
            ChainError::Rpc { ref message, .. } if message.contains("not fully downloaded") => {
                match self.height(hash) {
                    Ok(height) => ChainError::NotDownloaded { height, snapshot: self.snapshot_height().ok().flatten() },
                    Err(_) => error,
                }
            }
            other => other,
        }
    }

    /// The height of a block on any branch.
    fn height(&self, hash: &BlockHash) -> Result<BtcHeight, ChainError> {
        const METHOD: &str = "getblockheader";
        let header: Value = self.call(METHOD, &[json!(hash)])?;
        height(&header, "height", METHOD)
    }

    /// The height of the UTXO snapshot that the node began with, while it still lacks blocks below.
    fn snapshot_height(&self) -> Result<Option<BtcHeight>, ChainError> {
        const METHOD: &str = "getchainstates";
        let states: Value = self.call(METHOD, &[])?;
        let active = states.get("chainstates").and_then(Value::as_array).and_then(|states| states.last());
        match active.and_then(|state| state.get("snapshot_blockhash")?.as_str()) {
            Some(base) => self.height(&parse(base, METHOD)?).map(Some),
            None => Ok(None),
        }
    }
}

impl BlockSource for RpcNode {
    fn tip(&self) -> Result<BlockRef, ChainError> {
        self.info().map(|info| info.tip)
    }

    fn block_hash(&self, height: BtcHeight) -> Result<Option<BlockHash>, ChainError> {
        match self.call("getblockhash", &[json!(height)]) {
            Ok(hash) => Ok(Some(hash)),
            Err(ChainError::Rpc { code: OUT_OF_RANGE, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn header(&self, hash: &BlockHash) -> Result<Header, ChainError> {
        const METHOD: &str = "getblockheader";
        let hex: String =
            self.call(METHOD, &[json!(hash), json!(false)]).map_err(|error| self.explain_block(hash, error))?;
        deserialize_hex(&hex).map_err(|error| malformed(METHOD, error))
    }

    fn headers(&self, first: BtcHeight, count: u32) -> Result<Vec<Header>, ChainError> {
        let heights: Vec<BtcHeight> = (first..first.saturating_add(count)).collect();
        let mut headers: Vec<Header> = Vec::new();
        for heights in heights.chunks(BATCH) {
            let hashes = self.texts("getblockhash", heights.iter().map(|height| [json!(height)]))?;
            let complete = hashes.len() == heights.len();
            for hex in self.texts("getblockheader", hashes.into_iter().map(|hash| [json!(hash), json!(false)]))? {
                let header: Header = deserialize_hex(&hex).map_err(|error| malformed("getblockheader", error))?;
                // The chain may change between the two requests.
                if headers.last().is_some_and(|parent| parent.block_hash() != header.prev_blockhash) {
                    return Ok(headers);
                }
                headers.push(header);
            }
            if !complete {
                break;
            }
        }
        Ok(headers)
    }

    fn block(&self, hash: &BlockHash) -> Result<Vec<u8>, ChainError> {
        let mut raw = Vec::new();
        BlockSource::read_block(self, hash, &mut raw)?;
        Ok(raw)
    }

    fn read_block(&self, hash: &BlockHash, raw: &mut Vec<u8>) -> Result<(), ChainError> {
        const METHOD: &str = "getblock";
        let pool = || self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = pool().pop().unwrap_or_default();
        let limits = Limits { time: CALL_LIMIT, bytes: HEX };
        let read = self.ask(limits, METHOD, &call(METHOD, &[json!(hash), json!(0)]), &mut answer, |answer| {
            let read: Answer<'_> = self.parse(METHOD, answer)?;
            match (read.result, read.error) {
                (Some(_), _) => Ok(()),
                (None, error) => Err(self.refusal(METHOD, error)),
            }
        });
        read.map_err(|error| self.explain_block(hash, error))?;
        let read: Answer<'_> = self.parse(METHOD, &answer)?;
        decode_hex(METHOD, read.result.unwrap_or_default(), raw)?;
        pool().push(answer);
        Ok(())
    }

    fn lanes(&self) -> usize {
        LANES
    }

    /// Whoever has the password of its RPC.
    fn is_own(&self) -> bool {
        true
    }

    fn wait_for_tip(&self, current: &BlockHash, timeout: Duration) -> Result<BlockRef, ChainError> {
        const METHOD: &str = "waitfornewblock";
        // Since Core 30 the node compares with the block we know: nothing is missed in between.
        if self.version >= 300_000 && timeout >= Duration::from_millis(1) {
            let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            let params = [json!(millis), json!(current)];
            let limits = Limits { time: timeout + POLL_MARGIN, bytes: SMALL };
            let found: Value = self.call_within(limits, METHOD, &params)?;
            return Ok(BlockRef {
                height: height(&found, "height", METHOD)?,
                hash: parse(text(&found, "hash", METHOD)?, METHOD)?,
            });
        }
        let deadline = Instant::now() + timeout;
        loop {
            let tip = self.tip()?;
            if tip.hash != *current || Instant::now() >= deadline {
                return Ok(tip);
            }
            sleep(POLL_INTERVAL.min(deadline.saturating_duration_since(Instant::now())));
        }
    }
}

/// A request in JSON-RPC 1.0, which every version of Core speaks; its answers come in the order of the calls.
fn call(method: &str, params: &[Value]) -> Value {
    json!({ "jsonrpc": "1.0", "id": 0, "method": method, "params": params })
}

fn basic(secret: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(secret))
}

pub(super) fn malformed(method: &str, reason: impl fmt::Display) -> ChainError {
    ChainError::Malformed { method: method.into(), reason: words(reason.to_string().as_bytes()) }
}

pub(super) fn text<'a>(value: &'a Value, key: &str, method: &str) -> Result<&'a str, ChainError> {
    let found = value.get(key).and_then(Value::as_str);
    found.ok_or_else(|| malformed(method, format_args!("no text under {key}")))
}

pub(super) fn number(value: &Value, key: &str, method: &str) -> Result<u32, ChainError> {
    let found = value.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    found.ok_or_else(|| malformed(method, format_args!("no number under {key}")))
}

/// A number that can be a block's height: everybody may add to it.
fn height(value: &Value, key: &str, method: &str) -> Result<BtcHeight, ChainError> {
    let height = number(value, key, method)?;
    if height < HEIGHTS { Ok(height) } else { Err(malformed(method, format_args!("{height} as {key}"))) }
}

fn decode_hex(method: &str, hex: &str, raw: &mut Vec<u8>) -> Result<(), ChainError> {
    raw.resize(hex.len() / 2, 0);
    faster_hex::hex_decode(hex.as_bytes(), raw).map_err(|error| malformed(method, error))
}

fn parse<T: std::str::FromStr<Err: fmt::Display>>(text: &str, method: &str) -> Result<T, ChainError> {
    text.parse().map_err(|error| malformed(method, error))
}

#[cfg(test)]
mod tests;
