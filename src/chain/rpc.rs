//! [`RpcNode`]: a Bitcoin Core node over JSON-RPC.
//!
//! Each call has its own time limit, and a connection for itself while it lasts, so a long poll never holds up
//! another call. A refused cookie is read again once, because bitcoind makes a new one each time it starts.

use super::http::{Http, unavailable};
use super::{BlockSource, ChainError};
use crate::crash;
use crate::primitives::{BlockRef, BtcHeight};
use bitcoin::base64::prelude::{BASE64_STANDARD, Engine};
use bitcoin::block::Header;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::constants::genesis_block;
use bitcoin::hex::FromHex;
use bitcoin::{BlockHash, Network, OutPoint, ScriptBuf, TxOut, Txid};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;
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

impl Utxo {
    fn read(coin: &Value) -> Result<Self, ChainError> {
        const METHOD: &str = "scantxoutset";
        let script = Vec::<u8>::from_hex(text(coin, "scriptPubKey", METHOD)?);
        let script_pubkey = ScriptBuf::from_bytes(script.map_err(|error| malformed(METHOD, error))?);
        Ok(Self {
            outpoint: OutPoint::new(parse(text(coin, "txid", METHOD)?, METHOD)?, number(coin, "vout", METHOD)?),
            output: TxOut { value: super::mempool::amount(coin, "amount", METHOD)?, script_pubkey },
            height: number(coin, "height", METHOD)?,
        })
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
struct AnyAnswer {
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Option<RpcError>,
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
        if url.contains('@') {
            return Err(ChainError::Url {
                reason: "it holds credentials; pass the user and the password on their own",
            });
        }
        if url.starts_with("https://") {
            return Err(ChainError::Url { reason: "bitcoind does not speak TLS; use http://" });
        }
        let url = match url.split_once("://") {
            Some(("http", _)) => url.trim_end_matches('/').to_owned(),
            None => return Err(ChainError::Url { reason: "its scheme is missing" }),
            Some(_) => return Err(ChainError::Url { reason: "its scheme is not http" }),
        };
        let secret = Mutex::new(credentials.read()?);
        let http = Http::new(&url);
        let answers = Mutex::default();
        let mut node = Self { url, credentials, secret, network, version: 0, http, answers };
        let chain: Value = node.call("getblockchaininfo", &[])?;
        let chain = text(&chain, "chain", "getblockchaininfo")?;
        if Network::from_core_arg(chain) != Ok(network) {
            return Err(ChainError::WrongNetwork { expected: network, got: chain.to_owned() });
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

    /// Facts about the node and its chain.
    pub fn info(&self) -> Result<NodeInfo, ChainError> {
        const METHOD: &str = "getblockchaininfo";
        let info: Value = self.call(METHOD, &[])?;
        let pruned = info.get("pruned").and_then(Value::as_bool).unwrap_or(false);
        Ok(NodeInfo {
            chain: text(&info, "chain", METHOD)?.to_owned(),
            tip: BlockRef {
                height: number(&info, "blocks", METHOD)?,
                hash: parse(text(&info, "bestblockhash", METHOD)?, METHOD)?,
            },
            headers: number(&info, "headers", METHOD)?,
            initial_download: info.get("initialblockdownload").and_then(Value::as_bool).unwrap_or(false),
            prune_height: match pruned {
                true => Some(number(&info, "pruneheight", METHOD).unwrap_or(0)),
                false => None,
            },
            version: self.version,
        })
    }

    /// Calls any method, within the ordinary time limit.
    pub fn call<T: DeserializeOwned>(&self, method: &str, params: &[Value]) -> Result<T, ChainError> {
        self.call_within(CALL_LIMIT, method, params)
    }

    /// All unspent outputs in the chain that pay one of `scripts`.
    ///
    /// Reads the whole UTXO set, which takes minutes on mainnet, once for 300,000 scripts.
    pub fn scan_utxo_set(&self, scripts: &[ScriptBuf]) -> Result<Vec<Utxo>, ChainError> {
        const METHOD: &str = "scantxoutset";
        let mut coins = Vec::new();
        for scripts in scripts.chunks(SCRIPTS_AT_ONCE) {
            // Of a descriptor, the node would take ten times as long to derive them.
            let objects: Vec<Value> = scripts.iter().map(|script| json!(format!("raw({script:x})"))).collect();
            let found: Value = self.call_within(UTXO_SCAN_LIMIT, METHOD, &[json!("start"), json!(objects)])?;
            let found = found.get("unspents").and_then(Value::as_array);
            for coin in found.ok_or_else(|| malformed(METHOD, "no unspents"))? {
                coins.push(Utxo::read(coin)?);
            }
        }
        Ok(coins)
    }

    /// How many transactions the mempool holds.
    pub fn mempool_size(&self) -> Result<u32, ChainError> {
        let info: Value = self.call("getmempoolinfo", &[])?;
        number(&info, "size", "getmempoolinfo")
    }

    fn call_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
        method: &str,
        params: &[Value],
    ) -> Result<T, ChainError> {
        let value = self.request(limit, method, params)?;
        serde_json::from_value(value).map_err(|error| malformed(method, error))
    }

    fn request(&self, limit: Duration, method: &str, params: &[Value]) -> Result<Value, ChainError> {
        let mut answer = Vec::new();
        crash::point();
        let posted = self.post(limit, method, &call(method, params), &mut answer);
        crash::point();
        posted?;
        let answer: AnyAnswer = serde_json::from_slice(&answer).map_err(|error| malformed(method, error))?;
        answer.error.map_or(Ok(answer.result), |error| Err(self.refusal(method, Some(error))))
    }

    /// One request; a refused cookie is read again once.
    fn post(&self, limit: Duration, method: &str, request: &Value, answer: &mut Vec<u8>) -> Result<(), ChainError> {
        let json = request.to_string();
        let post = |secret: &str, answer: &mut Vec<u8>| self.http.post(&basic(secret), limit, json.as_bytes(), answer);
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
            StatusCode::UNAUTHORIZED => Err(ChainError::Auth { url }),
            StatusCode::SERVICE_UNAVAILABLE => Err(unavailable(url, answer)),
            // Of a server between us and bitcoind.
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(ChainError::Unreachable { url, reason: format!("HTTP status {status}") })
            }
            StatusCode::FORBIDDEN => Err(self.not_served(method, status, "-rpcallowip or -rpcwhitelist forbids it")),
            status => Err(self.not_served(method, status, "is --bitcoin-url bitcoind's own address, without a path?")),
        }
    }

    fn not_served(&self, method: &str, status: StatusCode, hint: &str) -> ChainError {
        let message = format!("HTTP status {status} from {}; {hint}", self.url);
        ChainError::Rpc { method: method.into(), code: status.as_u16().into(), message }
    }

    /// The texts that one method answers for each of these parameters, until it answers with an error.
    fn texts<const N: usize>(
        &self,
        method: &str,
        params: impl Iterator<Item = [Value; N]>,
    ) -> Result<Vec<String>, ChainError> {
        let calls: Vec<Value> = params.map(|params| call(method, &params)).collect();
        let mut answer = Vec::new();
        self.post(CALL_LIMIT, method, &json!(calls), &mut answer)?;
        let answers: Vec<Answer<'_>> = serde_json::from_slice(&answer).map_err(|error| malformed(method, error))?;
        let mut texts = Vec::with_capacity(answers.len());
        for answer in answers {
            match (answer.result, answer.error) {
                (Some(text), _) => texts.push(text.to_owned()),
                (None, Some(error)) if error.code == OUT_OF_RANGE => break,
                (None, error) => return Err(self.refusal(method, error)),
            }
        }
        Ok(texts)
    }

    /// What one method answers for each of these parameters, in as few requests as are sensible.
    #[cfg(feature = "wallet")]
    pub(super) fn each(&self, method: &str, params: &[Vec<Value>]) -> Result<Vec<Value>, ChainError> {
        let (mut answer, mut results) = (Vec::new(), Vec::with_capacity(params.len()));
        for params in params.chunks(BATCH) {
            let calls: Vec<Value> = params.iter().map(|params| call(method, params)).collect();
            self.post(CALL_LIMIT, method, &json!(calls), &mut answer)?;
            let answers: Vec<AnyAnswer> = serde_json::from_slice(&answer).map_err(|error| malformed(method, error))?;
            if answers.len() != params.len() {
                return Err(malformed(method, "another number of answers than questions"));
            }
            for answer in answers {
                results.push(answer.error.map_or(Ok(answer.result), |error| Err(self.refusal(method, Some(error))))?);
            }
        }
        Ok(results)
    }

    /// Hands out these transactions of the mempool, as bytes; those that have left it are left out.
    pub(crate) fn raw_transactions(&self, txids: &[Txid], mut each: impl FnMut(Txid, &[u8])) -> Result<(), ChainError> {
        const METHOD: &str = "getrawtransaction";
        let (mut answer, mut raw) = (Vec::new(), Vec::new());
        // The largest transactions that are relayed, all together, are still one answer.
        for txids in txids.chunks(16) {
            let calls: Vec<Value> = txids.iter().map(|txid| call(METHOD, &[json!(txid)])).collect();
            self.post(CALL_LIMIT, METHOD, &json!(calls), &mut answer)?;
            let answers: Vec<Answer<'_>> = serde_json::from_slice(&answer).map_err(|error| malformed(METHOD, error))?;
            for (txid, answer) in txids.iter().zip(answers) {
                match (answer.result, answer.error) {
                    (Some(hex), _) => {
                        raw.resize(hex.len() / 2, 0);
                        faster_hex::hex_decode(hex.as_bytes(), &mut raw).map_err(|error| malformed(METHOD, error))?;
                        each(*txid, &raw);
                    }
                    (None, Some(error)) if error.code == NOT_FOUND => {}
                    (None, error) => return Err(self.refusal(METHOD, error)),
                }
            }
        }
        Ok(())
    }

    /// What an answer without a result says.
    fn refusal(&self, method: &str, error: Option<RpcError>) -> ChainError {
        match error {
            Some(RpcError { code: WARMING_UP, message }) => ChainError::WarmingUp { url: self.url.clone(), message },
            Some(RpcError { code: NOT_FOUND, message }) => ChainError::NotFound(format!("it: {message} ({method})")),
            Some(RpcError { code, message }) => ChainError::Rpc { method: method.into(), code, message },
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
        number(&header, "height", METHOD)
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
        self.post(CALL_LIMIT, METHOD, &call(METHOD, &[json!(hash), json!(0)]), &mut answer)?;
        let read: Answer<'_> = serde_json::from_slice(&answer).map_err(|error| malformed(METHOD, error))?;
        let hex = match (read.result, read.error) {
            (Some(hex), _) => hex,
            (None, error) => return Err(self.explain_block(hash, self.refusal(METHOD, error))),
        };
        raw.resize(hex.len() / 2, 0);
        faster_hex::hex_decode(hex.as_bytes(), raw).map_err(|error| malformed(METHOD, error))?;
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
            let found: Value = self.call_within(timeout + POLL_MARGIN, METHOD, &params)?;
            return Ok(BlockRef {
                height: number(&found, "height", METHOD)?,
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
    ChainError::Malformed { method: method.into(), reason: reason.to_string() }
}

pub(super) fn text<'a>(value: &'a Value, key: &str, method: &str) -> Result<&'a str, ChainError> {
    let found = value.get(key).and_then(Value::as_str);
    found.ok_or_else(|| malformed(method, format_args!("no text under {key}")))
}

pub(super) fn number(value: &Value, key: &str, method: &str) -> Result<u32, ChainError> {
    let found = value.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    found.ok_or_else(|| malformed(method, format_args!("no number under {key}")))
}

fn parse<T: std::str::FromStr<Err: fmt::Display>>(text: &str, method: &str) -> Result<T, ChainError> {
    text.parse().map_err(|error| malformed(method, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let password = Credentials::UserPassword { user: "u".into(), password: "hunter2".into() };
        assert!(!format!("{password:?}").contains("hunter2"));
        let node = RpcNode {
            url: "http://127.0.0.1:1".into(),
            credentials: password,
            secret: Mutex::new("u:hunter2".into()),
            network: Network::Regtest,
            version: 0,
            http: Http::new("http://127.0.0.1:1"),
            answers: Mutex::default(),
        };
        assert!(!format!("{node:?}").contains("hunter2"));
    }

    #[test]
    fn credentials_in_the_url_are_refused_without_repeating_them() {
        let login = Credentials::UserPassword { user: "u".into(), password: "p".into() };
        let error = RpcNode::connect("http://u:hunter2@127.0.0.1:1", login, Network::Regtest);
        let error = error.expect_err("credentials belong elsewhere");
        assert!(matches!(error, ChainError::Url { .. }));
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn a_url_without_a_scheme_is_refused_with_its_shape_before_any_cookie_is_read() {
        let cookie = Credentials::Cookie("/nonexistent/.cookie".into());
        let error = RpcNode::connect("127.0.0.1", cookie, Network::Regtest).expect_err("no scheme");
        assert_eq!(
            error.to_string(),
            "the Bitcoin node's URL is not usable: its scheme is missing; it looks like http://127.0.0.1:8332"
        );
    }

    #[test]
    fn nobody_listening_is_temporary_and_says_where() {
        let login = Credentials::UserPassword { user: "u".into(), password: "p".into() };
        let error = RpcNode::connect("http://127.0.0.1:1", login, Network::Regtest).expect_err("no node");
        assert!(error.is_temporary());
        assert_eq!(
            error.to_string(),
            "cannot reach bitcoind at http://127.0.0.1:1: connection refused; start it or set --bitcoin-url"
        );
    }

    #[test]
    fn a_missing_cookie_names_the_file_and_the_options() {
        let cookie = Credentials::Cookie("/nonexistent/.cookie".into());
        let error = RpcNode::connect("http://127.0.0.1:1", cookie, Network::Regtest).expect_err("none");
        assert!(matches!(&error, ChainError::Cookie { path, .. } if path == "/nonexistent/.cookie"));
        assert!(error.to_string().ends_with("name its cookie file (--bitcoin-cookie), or a --bitcoin-user"), "{error}");
    }

    /// A node whose cookie is `u:new`: status and body of its answer to one request after another, as far as it is
    /// authorised.
    fn one_that_was_restarted(answers: &'static [(&'static str, &'static str)]) -> std::net::SocketAddr {
        use std::io::{BufRead, BufReader, Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let mut answers = answers.iter();
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let (mut authorised, mut len) = (false, 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).expect("a line");
                    let line = line.trim().to_lowercase();
                    authorised |= line == format!("authorization: {}", basic("u:new")).to_lowercase();
                    len = line.strip_prefix("content-length:").map_or(len, |len| len.trim().parse().expect("a length"));
                    if line.is_empty() {
                        break;
                    }
                }
                reader.read_exact(&mut vec![0; len]).expect("a body");
                let (status, body) = match authorised {
                    true => *answers.next().expect("one more answer"),
                    false => ("401 Unauthorized", ""),
                };
                let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                reader.get_mut().write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).expect("an answer");
            }
        });
        address
    }

    /// A connection to it, by a node of an old version.
    fn connected(address: std::net::SocketAddr, credentials: Credentials, secret: &str) -> RpcNode {
        let url = format!("http://{address}");
        RpcNode {
            http: Http::new(&url),
            url,
            credentials,
            secret: Mutex::new(secret.into()),
            network: Network::Regtest,
            version: 0,
            answers: Mutex::default(),
        }
    }

    #[test]
    fn a_node_without_a_long_poll_is_asked_again_until_its_tip_is_another_one() {
        const A: &str = "0000000000000000000000000000000000000000000000000000000000000001";
        let address = one_that_was_restarted(&[
            (
                "200 OK",
                r#"{"result":{"chain":"regtest","blocks":7,"headers":7,"bestblockhash":"0000000000000000000000000000000000000000000000000000000000000001"}}"#,
            ),
            (
                "200 OK",
                r#"{"result":{"chain":"regtest","blocks":8,"headers":8,"bestblockhash":"0000000000000000000000000000000000000000000000000000000000000002"}}"#,
            ),
        ]);
        let login = Credentials::UserPassword { user: "u".into(), password: "new".into() };
        let node = connected(address, login, "u:new");
        let tip = node.wait_for_tip(&A.parse().expect("a hash"), CALL_LIMIT).expect("a tip");
        assert_eq!((tip.height, tip.hash.to_string()), (8, A.replace('1', "2")));
    }

    #[test]
    fn what_is_no_answer_of_bitcoind_is_told_and_asked_again_only_if_it_may_pass() {
        const ANSWERS: [(&str, &str); 7] = [
            ("502 Bad Gateway", "<html>"),
            ("500 Internal Server Error", "<html>"),
            ("429 Too Many Requests", ""),
            ("403 Forbidden", ""),
            ("404 Not Found", "<html>"),
            ("200 OK", "hello"),
            ("302 Found\r\nLocation: http://127.0.0.1:1/", ""),
        ];
        let login = Credentials::UserPassword { user: "u".into(), password: "new".into() };
        let node = connected(one_that_was_restarted(&ANSWERS), login, "u:new");
        for ((status, _), (told, temporary)) in ANSWERS.into_iter().zip([
            ("HTTP status 502", true),
            ("HTTP status 500", true),
            ("HTTP status 429", true),
            ("-rpcallowip or -rpcwhitelist", false),
            ("is --bitcoin-url bitcoind's own address", false),
            ("is --bitcoin-url bitcoind's own address", false),
            ("HTTP status 302", false),
        ]) {
            let error = node.info().expect_err(status);
            assert!(error.to_string().contains(told), "{status}: {error}");
            assert_eq!(error.is_temporary(), temporary, "{status}");
        }
    }

    #[test]
    fn a_cookie_that_was_rotated_is_read_again_for_blocks_and_headers_too() {
        let dir = tempfile::tempdir().expect("a folder");
        let cookie = dir.path().join(".cookie");
        std::fs::write(&cookie, "u:new").expect("written");
        let address = one_that_was_restarted(&[
            ("200 OK", r#"{"result":"00fF10","error":null,"id":0}"#),
            ("200 OK", r#"[{"result":null,"error":{"code":-8,"message":"Block height out of range"},"id":0}]"#),
            ("200 OK", "[]"),
        ]);
        let node = connected(address, Credentials::Cookie(cookie), "u:old");
        let hash = genesis_block(Network::Regtest).block_hash();
        assert_eq!(node.block(&hash).expect("authorised"), [0x00, 0xff, 0x10]);
        "u:old".clone_into(&mut node.secret.lock().expect("no panic"));
        assert_eq!(node.headers(7, 1).expect("authorised"), []);

        "u:old".clone_into(&mut node.secret.lock().expect("no panic"));
        std::fs::write(dir.path().join(".cookie"), "u:older").expect("written");
        assert!(matches!(node.block(&hash), Err(ChainError::Auth { .. })));
    }
}
