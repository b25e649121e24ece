//! Bitcoin Core's mempool: testing, sending, looking up; and what its answers mean.
//!
//! Guarantees that each transaction of a package gets a verdict of its own, and that a transaction
//! the node has already counts as accepted.

use super::http::words;
use super::rpc::{BATCH, malformed, number, text};
use super::{Answer, BlockSource, ChainError, Mempool, MempoolEntry, RelayFacts, RpcNode, Verdict};
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hex::FromHex;
use bitcoin::{Amount, Denomination, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid, Wtxid};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const ALREADY_IN_UTXO_SET: i32 = -27;
/// Blocks whose fees tell what is paid now.
const RECENT_BLOCKS: u32 = 6;
const REJECTED: [i32; 2] = [-25, -26];
/// The highest limit of a rate that it takes, for 1,000 vbytes.
const HIGHEST_LIMIT: Amount = Amount::from_sat(99_999_999);

impl Mempool for RpcNode {
    fn relay(&self) -> Result<RelayFacts, ChainError> {
        const METHOD: &str = "getmempoolinfo";
        let info: Value = self.call(METHOD, &[])?;
        let floor = rate(&info, "mempoolminfee", METHOD)?.max(rate(&info, "minrelaytxfee", METHOD)?);
        let incremental = rate(&info, "incrementalrelayfee", METHOD)?;
        let data_carrier = info.get("maxdatacarriersize").is_some();
        let data_carrier = data_carrier.then(|| number(&info, "maxdatacarriersize", METHOD)).transpose()?;
        let (version, packages) = (self.version(), self.version() >= 280_000);
        Ok(RelayFacts { version, floor, incremental, packages, data_carrier })
    }

    fn test_accept(&self, package: &[Transaction], max_fee_rate: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        const METHOD: &str = "testmempoolaccept";
        let hex: Vec<String> = package.iter().map(serialize_hex).collect();
        let answers: Vec<Value> = self.call(METHOD, &[json!(hex), btc_per_kvb(max_fee_rate)])?;
        if answers.len() != package.len() {
            return Err(malformed(METHOD, "another number of answers than questions"));
        }
        let verdict =
            |(tx, answer): (&Transaction, &Value)| Verdict { txid: tx.compute_txid(), answer: judge_test(answer) };
        Ok(package.iter().zip(&answers).map(verdict).collect())
    }

    fn submit(&self, package: &[Transaction], max_fee_rate: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        let limits = [btc_per_kvb(max_fee_rate), json!("0.00000000")];
        let one_by_one = package.len() < 2 || self.version() < 280_000;
        if one_by_one {
            return package.iter().map(|tx| self.submit_one(tx, &limits)).collect();
        }
        const METHOD: &str = "submitpackage";
        let hex: Vec<String> = package.iter().map(serialize_hex).collect();
        let [rate, burn] = limits;
        match self.call::<Value>(METHOD, &[json!(hex), rate, burn]) {
            Ok(answer) => read_package(package, &answer),
            Err(ChainError::Rpc { code, message, .. }) if REJECTED.contains(&code) => {
                let refused = |tx: &Transaction| Verdict { txid: tx.compute_txid(), answer: judge_words(&message) };
                Ok(package.iter().map(refused).collect())
            }
            Err(error) => Err(error),
        }
    }

    fn entry(&self, txid: &Txid) -> Result<Option<MempoolEntry>, ChainError> {
        const METHOD: &str = "getmempoolentry";
        let entry: Value = match self.call(METHOD, &[json!(txid)]) {
            Ok(entry) => entry,
            Err(ChainError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let fees = entry.get("fees").ok_or_else(|| malformed(METHOD, "no fees"))?;
        Ok(Some(MempoolEntry {
            vsize: number(&entry, "vsize", METHOD)?.into(),
            fee: amount(fees, "base", METHOD)?,
            ancestors_vsize: number(&entry, "ancestorsize", METHOD)?.into(),
            ancestors_fee: amount(fees, "ancestor", METHOD)?,
            descendants_fee: amount(fees, "descendant", METHOD)?,
        }))
    }

    fn transaction(&self, txid: &Txid) -> Result<Option<Transaction>, ChainError> {
        const METHOD: &str = "getrawtransaction";
        let hex = match self.call_for_hex(METHOD, &[json!(txid)]) {
            Ok(hex) => hex,
            Err(ChainError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let tx: Transaction = deserialize_hex(&hex).map_err(|error| malformed(METHOD, error))?;
        match tx.compute_txid() == *txid && adds_up(&tx.output) {
            true => Ok(Some(tx)),
            false => Err(malformed(METHOD, "another transaction, or one of more than all money")),
        }
    }

    fn unspent(&self, outpoint: &OutPoint) -> Result<Option<(TxOut, u32)>, ChainError> {
        const METHOD: &str = "gettxout";
        let found: Option<Value> = self.call(METHOD, &[json!(outpoint.txid), json!(outpoint.vout), json!(true)])?;
        let Some(found) = found else { return Ok(None) };
        let script = found.get("scriptPubKey").ok_or_else(|| malformed(METHOD, "no script"))?;
        let script = Vec::<u8>::from_hex(text(script, "hex", METHOD)?).map_err(|error| malformed(METHOD, error))?;
        let output = TxOut { value: amount(&found, "value", METHOD)?, script_pubkey: ScriptBuf::from_bytes(script) };
        Ok(Some((output, number(&found, "confirmations", METHOD)?)))
    }

    fn missing(&self, outpoints: &[OutPoint]) -> Result<Vec<OutPoint>, ChainError> {
        let params: Vec<Vec<Value>> =
            outpoints.iter().map(|outpoint| vec![json!(outpoint.txid), json!(outpoint.vout), json!(true)]).collect();
        let found: Vec<Option<IgnoredAny>> = self.each("gettxout", &params)?;
        Ok(outpoints.iter().zip(found).filter(|(_, found)| found.is_none()).map(|(outpoint, _)| *outpoint).collect())
    }

    fn estimate(&self, target_blocks: u16) -> Result<Option<FeeRate>, ChainError> {
        const METHOD: &str = "estimatesmartfee";
        let answer: Value = self.call(METHOD, &[json!(target_blocks)])?;
        match answer.get("feerate") {
            Some(_) => rate(&answer, "feerate", METHOD).map(Some),
            None => Ok(None),
        }
    }

    fn recently_paid(&self) -> Result<Option<FeeRate>, ChainError> {
        const METHOD: &str = "getblockstats";
        let tip = self.tip()?.height;
        let mut highest = None;
        for height in tip.saturating_sub(RECENT_BLOCKS - 1).max(1)..=tip {
            let stats: Value = match self.call(METHOD, &[json!(height), json!(["txs", "feerate_percentiles"])]) {
                Ok(stats) => stats,
                // Pruned, or reorganised away since.
                Err(ChainError::Rpc { .. } | ChainError::NotFound(_)) => continue,
                Err(error) => return Err(error),
            };
            if number(&stats, "txs", METHOD)? < 2 {
                continue;
            }
            // Whole sat/vB, rounded down: 0 stands for anything below 1.
            let ninth_tenth = stats.get("feerate_percentiles").and_then(|all| all.get(4)).and_then(Value::as_u64);
            let ninth_tenth = ninth_tenth.ok_or_else(|| malformed(METHOD, "no percentiles"))?.saturating_add(1);
            highest = highest.max(FeeRate::from_sat_per_vb(ninth_tenth));
        }
        Ok(highest)
    }
}

impl RpcNode {
    /// The transactions of the mempool that spend one of `outpoints`; none if the node cannot tell (before Core 24).
    ///
    /// # Errors
    /// [`ChainError`], if the node does not answer.
    pub fn spenders(&self, outpoints: &[OutPoint]) -> Result<BTreeSet<Txid>, ChainError> {
        const METHOD: &str = "gettxspendingprevout";
        #[derive(Deserialize)]
        struct Spent {
            spendingtxid: Option<Txid>,
        }
        let mut spenders = BTreeSet::new();
        for outpoints in outpoints.chunks(BATCH).filter(|_| self.version() >= 240_000) {
            let asked: Vec<Value> =
                outpoints.iter().map(|outpoint| json!({ "txid": outpoint.txid, "vout": outpoint.vout })).collect();
            let spent: Vec<Spent> = self.call(METHOD, &[json!(asked)])?;
            spenders.extend(spent.into_iter().filter_map(|spent| spent.spendingtxid));
        }
        Ok(spenders)
    }

    /// How much the mempool holds, in vbytes.
    pub(crate) fn mempool_vsize(&self) -> Result<u64, ChainError> {
        const METHOD: &str = "getmempoolinfo";
        let info: Value = self.call(METHOD, &[])?;
        info.get("bytes").and_then(Value::as_u64).ok_or_else(|| malformed(METHOD, "no bytes"))
    }

    fn submit_one(&self, tx: &Transaction, limits: &[Value; 2]) -> Result<Verdict, ChainError> {
        let [rate, burn] = limits.clone();
        let sent: Result<Txid, ChainError> = self.call("sendrawtransaction", &[json!(serialize_hex(tx)), rate, burn]);
        let answer = match sent {
            Ok(_) => Answer::Accepted,
            Err(ChainError::Rpc { code: ALREADY_IN_UTXO_SET, .. }) => Answer::Known,
            Err(ChainError::Rpc { code, message, .. }) if REJECTED.contains(&code) => judge_words(&message),
            Err(error) => return Err(error),
        };
        Ok(Verdict { txid: tx.compute_txid(), answer })
    }
}

/// One object of `testmempoolaccept`'s answer.
fn judge_test(answer: &Value) -> Answer {
    if answer.get("allowed").and_then(Value::as_bool) == Some(true) {
        return Answer::Accepted;
    }
    let word = |key| answer.get(key).and_then(Value::as_str);
    match word("reject-reason").or_else(|| word("package-error")) {
        Some(reason) => match (judge_words(reason), word("reject-details")) {
            (Answer::Refused(_), Some(details)) => Answer::Refused(words(details.as_bytes())),
            (answer, _) => answer,
        },
        // Not looked at, because another one of the package was refused or is known.
        None => Answer::Untested,
    }
}

/// A refusal, unless its words say that the node has the transaction.
pub(super) fn judge_words(reason: &str) -> Answer {
    const KNOWN: [&str; 4] = ["txn-already-in-mempool", "txn-already-known", "already in utxo set", "already in block"];
    let known = KNOWN.iter().any(|words| reason.contains(words));
    if known { Answer::Known } else { Answer::Refused(words(reason.as_bytes())) }
}

/// Reads every transaction's own result; the package's message stands in where there is none.
pub(super) fn read_package(package: &[Transaction], answer: &Value) -> Result<Vec<Verdict>, ChainError> {
    const METHOD: &str = "submitpackage";
    let message = text(answer, "package_msg", METHOD)?;
    let results = answer.get("tx-results").and_then(Value::as_object);
    let results: BTreeMap<&str, &Value> =
        results.into_iter().flatten().map(|(wtxid, result)| (wtxid.as_str(), result)).collect();
    let verdict = |tx: &Transaction| {
        let wtxid: Wtxid = tx.compute_wtxid();
        let answer = match results.get(wtxid.to_string().as_str()) {
            Some(result) => match result.get("error").and_then(Value::as_str) {
                Some(error) => judge_words(error),
                None => Answer::Accepted,
            },
            None if message == "success" => Answer::Accepted,
            None => judge_words(message),
        };
        Verdict { txid: tx.compute_txid(), answer }
    };
    Ok(package.iter().map(verdict).collect())
}

/// Whether these are no more than all money together: then nothing overflows where they are added.
pub(crate) fn adds_up(outputs: &[TxOut]) -> bool {
    let sum = outputs.iter().try_fold(Amount::ZERO, |sum, output| sum.checked_add(output.value));
    sum.is_some_and(|sum| sum <= Amount::MAX_MONEY)
}

/// An amount that JSON carries as a number of bitcoins.
pub(super) fn amount(value: &Value, key: &str, method: &str) -> Result<Amount, ChainError> {
    let found = value.get(key).and_then(Value::as_f64);
    let found = found.ok_or_else(|| malformed(method, format_args!("no amount under {key}")))?;
    let amount = Amount::from_btc(found).map_err(|error| malformed(method, error))?;
    match amount <= Amount::MAX_MONEY {
        true => Ok(amount),
        false => Err(malformed(method, format_args!("more than all money under {key}"))),
    }
}

/// A rate that JSON carries in BTC/kvB, rounded up to a whole sat/kwu.
fn rate(value: &Value, key: &str, method: &str) -> Result<FeeRate, ChainError> {
    let per_kvb = amount(value, key, method)?.to_sat();
    Ok(FeeRate::from_sat_per_kwu(per_kvb.div_ceil(4)))
}

/// A limit for Bitcoin Core, which counts in BTC/kvB, takes text for an exact number, and no limit of 1 BTC/kvB or
/// more.
fn btc_per_kvb(rate: FeeRate) -> Value {
    let per_kvb = Amount::from_sat(rate.to_sat_per_kwu().saturating_mul(4)).min(HIGHEST_LIMIT);
    json!(per_kvb.to_string_in(Denomination::Bitcoin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_exact_and_round_up() {
        let answer = json!({ "floor": 0.00000100, "odd": 0.00001001 });
        assert_eq!(rate(&answer, "floor", "m").ok(), Some(FeeRate::from_sat_per_kwu(25)));
        assert_eq!(rate(&answer, "odd", "m").ok(), Some(FeeRate::from_sat_per_kwu(251)));
        assert!(rate(&answer, "absent", "m").is_err());
        assert_eq!(btc_per_kvb(FeeRate::from_sat_per_kwu(25)), json!("0.000001"));
        assert_eq!(btc_per_kvb(FeeRate::MAX), json!("0.99999999"));
    }

    #[test]
    fn what_the_node_has_already_is_success() {
        for words in ["txn-already-in-mempool", "txn-already-known", "Transaction outputs already in utxo set"] {
            assert_eq!(judge_words(words), Answer::Known, "{words}");
        }
        assert!(!judge_words("txn-mempool-conflict").is_ok());
        assert_eq!(judge_test(&json!({ "allowed": false, "reject-reason": "txn-already-in-mempool" })), Answer::Known);
        assert_eq!(judge_test(&json!({ "txid": "not judged" })), Answer::Untested);
    }
}
