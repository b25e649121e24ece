//! A source as a bitcoind: JSON-RPC for programs that cannot be handed a Rust value.
//!
//! What a [`BlockSource`] answers (blocks, headers, hashes, the tip) comes from the source, with all its
//! faults; every other call goes to the real node unchanged, with the caller's credentials.

use crate::Bitcoind;
use anyhow::{Context, Result};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hex::DisplayHex;
use bitcoin::{BlockHash, Network};
use serde_json::{Value, json};
use sortie::chain::{BlockSource, ChainError, Credentials, RpcNode};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longest request that is read, in bytes: a batch of the largest size, in hex, twice over.
const MAX_REQUEST: u64 = 16_000_000;
const MISC_ERROR: i32 = -1;
const NOT_FOUND: i32 = -5;
const OUT_OF_RANGE: i32 = -8;
const WARMING_UP: i32 = -28;

/// A JSON-RPC server in front of a bitcoind; it ends with this value.
pub struct RpcFront {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

/// What becomes of a call.
enum Answer {
    /// The real node answers.
    Pass,
    Result(Value),
    Error(i32, String),
    /// An HTTP status, without a body.
    Status(&'static str),
    /// The connection is closed without a word.
    Nothing,
}

struct Request {
    /// The lines above the body, as they came.
    head: String,
    body: Vec<u8>,
}

impl Bitcoind {
    /// The honest source: this node over RPC.
    ///
    /// # Errors
    /// The node does not answer.
    pub fn source(&self) -> Result<RpcNode> {
        Ok(RpcNode::connect(&self.rpc_url(), Credentials::Cookie(self.cookie()), Network::Regtest)?)
    }
}

impl RpcFront {
    /// Serves `source` in front of `bitcoind`, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port.
    pub fn start(source: Arc<impl BlockSource + Send + 'static>, bitcoind: &Bitcoind) -> Result<Self> {
        let upstream: SocketAddr = bitcoind.rpc_url().trim_start_matches("http://").parse()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let server = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let source = Arc::clone(&source);
                // A caller that goes away is its own business.
                thread::spawn(move || drop(serve(stream, source.as_ref(), upstream)));
            }
        });
        Ok(Self { address, stopping, server: Some(server) })
    }

    /// `http://127.0.0.1:<port>`; user and password are those of the node behind it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for RpcFront {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the server; it looks at the flag first.
        let woken = TcpStream::connect(self.address).is_ok();
        if let Some(server) = self.server.take().filter(|_| woken) {
            drop(server.join());
        }
    }
}

fn serve(mut stream: TcpStream, source: &impl BlockSource, upstream: SocketAddr) -> Result<()> {
    let request = read_request(&stream)?;
    let call: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let method = call["method"].as_str().unwrap_or_default();
    let answer = answer(source, method, &call["params"]).unwrap_or_else(refusal);
    let (status, body) = match answer {
        Answer::Nothing => return Ok(()),
        Answer::Pass => return pass(&request, &mut stream, upstream),
        Answer::Status(status) => (status, Value::Null),
        Answer::Result(result) => ("200 OK", json!({ "result": result, "error": null, "id": call["id"] })),
        Answer::Error(code, message) => {
            let error = json!({ "code": code, "message": message });
            ("500 Internal Server Error", json!({ "result": null, "error": error, "id": call["id"] }))
        }
    };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}

/// Answers what a source can answer.
fn answer(source: &impl BlockSource, method: &str, params: &Value) -> Result<Answer, ChainError> {
    let hash = || params[0].as_str().and_then(|hash| hash.parse::<BlockHash>().ok());
    Ok(match method {
        "getblockcount" => Answer::Result(json!(source.tip()?.height)),
        "getbestblockhash" => Answer::Result(json!(source.tip()?.hash)),
        "getblockhash" => match params[0].as_u64().and_then(|height| u32::try_from(height).ok()) {
            None => Answer::Pass,
            Some(height) => match source.block_hash(height)? {
                Some(hash) => Answer::Result(json!(hash)),
                None => Answer::Error(OUT_OF_RANGE, "Block height out of range".into()),
            },
        },
        "getblockheader" if params[1] == json!(false) => match hash() {
            Some(hash) => Answer::Result(json!(serialize_hex(&source.header(&hash)?))),
            None => Answer::Pass,
        },
        "getblock" if params[1] == json!(0) => match hash() {
            Some(hash) => Answer::Result(json!(source.block(&hash)?.to_lower_hex_string())),
            None => Answer::Pass,
        },
        "waitfornewblock" => {
            let timeout = Duration::from_millis(params[0].as_u64().unwrap_or(0));
            let current = params[1].as_str().and_then(|hash| hash.parse().ok());
            let tip = source.wait_for_tip(&current.map_or_else(|| source.tip().map(|tip| tip.hash), Ok)?, timeout)?;
            Answer::Result(json!({ "height": tip.height, "hash": tip.hash }))
        }
        "getblockchaininfo" => {
            let tip = source.tip()?;
            // What a client needs to know of a node on regtest; the real one says the rest of itself.
            Answer::Result(json!({
                "chain": "regtest", "blocks": tip.height, "headers": tip.height, "bestblockhash": tip.hash,
                "initialblockdownload": false, "pruned": false, "verificationprogress": 1.0,
            }))
        }
        _ => Answer::Pass,
    })
}

/// A source's errors in bitcoind's words.
fn refusal(error: ChainError) -> Answer {
    match error {
        ChainError::NotFound(_) => Answer::Error(NOT_FOUND, "Block not found".into()),
        ChainError::Pruned { .. } => Answer::Error(MISC_ERROR, "Block not available (pruned data)".into()),
        ChainError::WarmingUp { message, .. } => Answer::Error(WARMING_UP, message),
        ChainError::Busy { .. } => Answer::Status("503 Service Unavailable"),
        ChainError::Auth { .. } => Answer::Status("401 Unauthorized"),
        ChainError::Rpc { code, message, .. } => Answer::Error(code, message),
        ChainError::Unreachable { .. } => Answer::Nothing,
        other => Answer::Error(MISC_ERROR, other.to_string()),
    }
}

fn read_request(stream: &TcpStream) -> Result<Request> {
    let mut reader = BufReader::new(stream.take(MAX_REQUEST));
    let mut head = String::new();
    let mut len = 0;
    loop {
        let from = head.len();
        if reader.read_line(&mut head)? == 0 {
            anyhow::bail!("the caller went away");
        }
        let line = head[from..].trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            len = value.trim().parse().context("a content length")?;
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    Ok(Request { head, body })
}

/// Hands a request to the real node and its answer back, byte for byte.
fn pass(request: &Request, stream: &mut TcpStream, upstream: SocketAddr) -> Result<()> {
    let mut node = TcpStream::connect(upstream)?;
    let (first, rest) = request.head.split_once("\r\n").context("a request line")?;
    let kept = rest.lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !line.is_empty() && !name.eq_ignore_ascii_case("connection")
    });
    let head: String = kept.map(|line| format!("{line}\r\n")).collect();
    write!(node, "{first}\r\n{head}Connection: close\r\n\r\n")?;
    node.write_all(&request.body)?;
    std::io::copy(&mut node, stream)?;
    Ok(())
}
