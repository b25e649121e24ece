//! The routes of Esplora's HTTP interface, as Blockstream's documentation has them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use axum::http::{Method, StatusCode};
use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::hashes::sha256;
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::{Address, Network, OutPoint, Transaction, Txid};
use bitcoincore_rpc::{Client, RpcApi, jsonrpc};
use serde_json::{Value, json};

use super::index::{Index, script_hash};

/// Confirmed transactions of a script per answer.
const PAGE: usize = 25;
/// Waiting transactions of a script per answer.
const WAITING: usize = 50;
/// Blocks per answer of `/blocks`.
const BLOCKS: u32 = 10;

/// What goes back.
pub struct Answer {
    pub status: StatusCode,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn new(status: StatusCode, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into() }
    }

    /// The same, if it is of one transaction, but for its fee.
    pub fn with_fee(self, fee: u64) -> Self {
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(mut answer) if answer.get("fee").is_some() => {
                answer["fee"] = json!(fee);
                Self { body: answer.to_string().into(), ..self }
            }
            _ => self,
        }
    }

    fn text(body: impl ToString) -> Self {
        Self::new(StatusCode::OK, body.to_string())
    }

    fn json(body: &Value) -> Self {
        Self::new(StatusCode::OK, body.to_string())
    }

    fn absent(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{what} not found"))
    }
}

/// What a request is answered from.
pub struct View<'a> {
    pub node: &'a Client,
    pub index: &'a Index,
    pub fee_estimates: &'a BTreeMap<u16, f64>,
}

impl View<'_> {
    /// Answers one request; an error is one of the node behind.
    pub fn answer(&self, method: &Method, path: &str, query: &str, body: &[u8]) -> Result<Answer> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if method == Method::POST {
            return match parts.as_slice() {
                ["tx"] => self.send(body),
                ["txs", "package"] => self.send_package(query, body),
                _ => Ok(Answer::absent("endpoint")),
            };
        }
        let found = match parts.as_slice() {
            ["blocks", "tip", "hash"] => self.index.chain.last().map(|block| Answer::text(block.hash)),
            ["blocks", "tip", "height"] => Some(Answer::text(self.tip())),
            ["blocks"] => Some(self.blocks(self.tip())?),
            ["blocks", height] => match height.parse() {
                Ok(height) => Some(self.blocks(height)?),
                Err(_) => None,
            },
            ["block-height", height] => {
                let block = height.parse().ok().and_then(|height: usize| self.index.chain.get(height));
                block.map(|block| Answer::text(block.hash))
            }
            ["block", hash, rest @ ..] => self.block(hash, rest)?,
            ["tx", txid, rest @ ..] => match txid.parse() {
                Ok(txid) => self.transaction(&txid, rest)?,
                Err(_) => return Ok(Answer::new(StatusCode::BAD_REQUEST, "Invalid hex string")),
            },
            ["scripthash", hash, rest @ ..] => {
                // The hash's bytes in the order in which SHA-256 gives them.
                hash.parse().ok().map(|hash| self.script(&hash, rest)).transpose()?.flatten()
            }
            ["address", address, rest @ ..] => {
                let address = address.parse::<Address<_>>().ok();
                let address = address.and_then(|address| address.require_network(Network::Regtest).ok());
                let hash = address.map(|address| script_hash(&address.script_pubkey()));
                hash.map(|hash| self.script(&hash, rest)).transpose()?.flatten()
            }
            ["mempool", "txids"] => Some(Answer::json(&json!(self.index.mempool))),
            ["mempool", "recent"] => Some(self.recent()?),
            ["fee-estimates"] => Some(Answer::json(&json!(self.fee_estimates))),
            _ => None,
        };
        Ok(found.unwrap_or_else(|| Answer::absent(parts.first().copied().unwrap_or("endpoint"))))
    }

    fn tip(&self) -> u32 {
        u32::try_from(self.index.chain.len()).unwrap_or(u32::MAX).saturating_sub(1)
    }

    fn blocks(&self, height: u32) -> Result<Answer> {
        let heights = (0..=height.min(self.tip())).rev().take(BLOCKS as usize);
        let blocks = heights.filter_map(|height| self.index.chain.get(height as usize));
        let blocks = blocks.map(|block| self.block_info(&block.hash.to_string())).collect::<Result<Vec<Value>>>()?;
        Ok(Answer::json(&json!(blocks)))
    }

    /// A block of any branch.
    fn block(&self, hash: &str, rest: &[&str]) -> Result<Option<Answer>> {
        let call = |method: &str, format: Value| self.node.call::<Value>(method, &[json!(hash), format]);
        let Ok(header) = call("getblockheader", json!(false)) else { return Ok(None) };
        let height = self.index.chain.iter().position(|block| block.hash.to_string() == hash);
        let block = height.and_then(|height| self.index.chain.get(height));
        Ok(match rest {
            [] => Some(Answer::json(&self.block_info(hash)?)),
            ["header"] => header.as_str().map(Answer::text),
            ["raw"] => {
                let hex = call("getblock", json!(0))?;
                Some(Answer::new(StatusCode::OK, Vec::from_hex(hex.as_str().context("a block")?)?))
            }
            ["status"] => {
                let next = height.and_then(|height| self.index.chain.get(height + 1)).map(|block| block.hash);
                Some(Answer::json(&json!({ "in_best_chain": height.is_some(), "height": height, "next_best": next })))
            }
            ["txids"] => block.map(|block| Answer::json(&json!(block.txids))),
            ["txid", index] => {
                let index: Option<usize> = index.parse().ok();
                block.and_then(|block| block.txids.get(index?)).map(Answer::text)
            }
            _ => None,
        })
    }

    fn block_info(&self, hash: &str) -> Result<Value> {
        let block: Value = self.node.call("getblock", &[json!(hash), json!(1)])?;
        let bits = u32::from_str_radix(block["bits"].as_str().context("bits")?, 16)?;
        Ok(json!({
            "id": hash, "height": block["height"], "version": block["version"], "timestamp": block["time"],
            "tx_count": block["nTx"], "size": block["size"], "weight": block["weight"],
            "merkle_root": block["merkleroot"], "previousblockhash": block["previousblockhash"],
            "mediantime": block["mediantime"], "nonce": block["nonce"], "bits": bits,
            "difficulty": block["difficulty"],
        }))
    }

    fn transaction(&self, txid: &Txid, rest: &[&str]) -> Result<Option<Answer>> {
        let Some(tx) = self.index.tx(txid) else { return Ok(unknown(rest)) };
        let outspend = |vout: u32| self.outspend(&OutPoint { txid: *txid, vout });
        Ok(match rest {
            [] => Some(Answer::json(&self.tx_info(txid, tx)?)),
            ["status"] => Some(Answer::json(&self.status(txid))),
            ["raw"] => Some(Answer::new(StatusCode::OK, serialize(tx))),
            ["hex"] => Some(Answer::text(serialize_hex(tx))),
            ["outspend", vout] => vout.parse().ok().map(|vout| Answer::json(&outspend(vout))),
            ["outspends"] => {
                let outspends: Vec<Value> = (0..tx.output.len() as u32).map(outspend).collect();
                Some(Answer::json(&json!(outspends)))
            }
            ["merkle-proof"] => self.index.merkle_path(txid).and_then(|(pos, merkle)| {
                let (height, _) = self.index.block_of(txid)?;
                Some(Answer::json(&json!({ "block_height": height, "merkle": merkle, "pos": pos })))
            }),
            _ => None,
        })
    }

    fn status(&self, txid: &Txid) -> Value {
        match self.index.block_of(txid) {
            None => json!({ "confirmed": false }),
            Some((height, block)) => json!({
                "confirmed": true, "block_height": height, "block_hash": block.hash, "block_time": block.time,
            }),
        }
    }

    fn outspend(&self, outpoint: &OutPoint) -> Value {
        match self.index.spender(outpoint) {
            None => json!({ "spent": false }),
            Some((txid, vin)) => json!({ "spent": true, "txid": txid, "vin": vin, "status": self.status(&txid) }),
        }
    }

    fn tx_info(&self, txid: &Txid, tx: &Transaction) -> Result<Value> {
        let inputs = tx.input.iter().map(|input| {
            let prevout = self.index.output(&input.previous_output);
            json!({
                "txid": input.previous_output.txid, "vout": input.previous_output.vout,
                "prevout": prevout.map(|output| json!({
                    "scriptpubkey": output.script_pubkey, "value": output.value.to_sat(),
                })),
                "scriptsig": input.script_sig, "sequence": input.sequence.0, "is_coinbase": tx.is_coinbase(),
                "witness": input.witness.iter().map(|item| item.to_lower_hex_string()).collect::<Vec<_>>(),
            })
        });
        let outputs = tx
            .output
            .iter()
            .map(|output| json!({ "scriptpubkey": output.script_pubkey, "value": output.value.to_sat() }));
        Ok(json!({
            "txid": txid, "version": tx.version.0, "locktime": tx.lock_time.to_consensus_u32(),
            "vin": inputs.collect::<Vec<_>>(), "vout": outputs.collect::<Vec<_>>(),
            "size": tx.total_size(), "weight": tx.weight().to_wu(), "fee": self.index.fee(tx)?,
            "status": self.status(txid),
        }))
    }

    fn script(&self, script: &sha256::Hash, rest: &[&str]) -> Result<Option<Answer>> {
        let waiting = || self.index.waiting(script).into_iter().take(WAITING);
        let confirmed = self.index.confirmed(script);
        let page: Vec<Txid> = match rest {
            ["txs"] => waiting().chain(confirmed.into_iter().take(PAGE)).collect(),
            ["txs", "mempool"] => waiting().collect(),
            ["txs", "chain"] => confirmed.into_iter().take(PAGE).collect(),
            ["txs", "chain", last] => {
                let after = confirmed.iter().skip_while(|txid| txid.to_string() != *last).skip(1);
                after.take(PAGE).copied().collect()
            }
            ["utxo"] => return self.utxo(script).map(Some),
            _ => return Ok(None),
        };
        let infos = page.iter().filter_map(|txid| Some((txid, self.index.tx(txid)?)));
        let infos = infos.map(|(txid, tx)| self.tx_info(txid, tx)).collect::<Result<Vec<Value>>>()?;
        Ok(Some(Answer::json(&json!(infos))))
    }

    fn utxo(&self, script: &sha256::Hash) -> Result<Answer> {
        let mut coins = Vec::new();
        for txid in self.index.waiting(script).into_iter().chain(self.index.confirmed(script)) {
            let outputs = self.index.tx(&txid).into_iter().flat_map(|tx| &tx.output);
            for (vout, output) in outputs.enumerate() {
                let outpoint = OutPoint { txid, vout: u32::try_from(vout)? };
                if script_hash(&output.script_pubkey) == *script && self.index.spender(&outpoint).is_none() {
                    let value = output.value.to_sat();
                    coins.push(json!({ "txid": txid, "vout": vout, "value": value, "status": self.status(&txid) }));
                }
            }
        }
        Ok(Answer::json(&json!(coins)))
    }

    fn recent(&self) -> Result<Answer> {
        let txs = self.index.mempool.iter().filter_map(|txid| Some((txid, self.index.tx(txid)?))).take(PAGE);
        let recent = txs.map(|(txid, tx)| {
            let value: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
            Ok(json!({ "txid": txid, "fee": self.index.fee(tx)?, "vsize": tx.vsize(), "value": value }))
        });
        Ok(Answer::json(&json!(recent.collect::<Result<Vec<Value>>>()?)))
    }

    fn send(&self, body: &[u8]) -> Result<Answer> {
        let hex = String::from_utf8_lossy(body);
        passed_on("sendrawtransaction", self.node.call::<Txid>("sendrawtransaction", &[json!(hex.trim())]))
    }

    fn send_package(&self, query: &str, body: &[u8]) -> Result<Answer> {
        let hex: Value = serde_json::from_slice(body)?;
        let given = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map_or(Value::Null, |(_, value)| json!(value))
        };
        let params = [hex, given("maxfeerate"), given("maxburnamount")];
        passed_on("submitpackage", self.node.call::<Value>("submitpackage", &params))
    }
}

/// A node's answer in the words that Esplora has for it.
fn passed_on<T: serde::Serialize>(method: &str, answer: bitcoincore_rpc::Result<T>) -> Result<Answer> {
    match answer {
        Ok(answer) => Ok(match json!(answer) {
            Value::String(text) => Answer::text(text),
            object => Answer::json(&object),
        }),
        Err(bitcoincore_rpc::Error::JsonRpc(jsonrpc::Error::Rpc(error))) => {
            let error = json!({ "code": error.code, "message": error.message });
            Ok(Answer::new(StatusCode::BAD_REQUEST, format!("{method} RPC error: {error}")))
        }
        Err(error) => Err(error.into()),
    }
}

/// What electrs answers about a transaction that it does not know: of some things it tells none from an unconfirmed
/// one.
fn unknown(rest: &[&str]) -> Option<Answer> {
    match rest {
        ["status"] => Some(Answer::json(&json!({ "confirmed": false }))),
        ["outspend", _] => Some(Answer::json(&json!({ "spent": false }))),
        _ => None,
    }
}
