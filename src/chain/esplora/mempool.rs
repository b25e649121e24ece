//! An Esplora server's mempool: sending, looking up; and what it does not tell.
//!
//! The server does not tell its policy, so the strictest is assumed that is in use: 1 sat/vB, short OP_RETURN
//! outputs, no packages. Whatever is built for that is relayed by every node between here and the miners, and
//! not only by this server; and a replacement pays enough for each of them.

use super::{Answer as HttpAnswer, BLOCK_LIST, Esplora, MAX_LISTED};
use crate::chain::bounded::Bounded;
use crate::chain::mempool::{judge_words, read_package};
use crate::chain::rpc::MAX_BLOCK;
use crate::chain::{Answer, BlockSource, ChainError, Mempool, MempoolEntry, RelayFacts, Verdict};
use crate::primitives::BtcHeight;
use bitcoin::consensus::encode::{deserialize, serialize_hex};
use bitcoin::constants::SUBSIDY_HALVING_INTERVAL;
use bitcoin::{Amount, BlockHash, FeeRate, Network, OutPoint, Transaction, TxOut, Txid, Weight};
use serde::Deserialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// What Bitcoin Core relayed at least, before version 29.1 and 30: 1 sat/vB.
const FLOOR: FeeRate = FeeRate::from_sat_per_kwu(250);
/// No version of Bitcoin Core: its policy is not known.
const UNKNOWN_VERSION: u32 = 0;
/// Relatives that a server is asked for in each direction: more than hang together in a mempool (64 in Bitcoin
/// Core 31), but a transaction with many inputs has as many parents.
const LOOKUPS: usize = 100;
/// Blocks whose fees tell what is paid now.
const RECENT_BLOCKS: usize = 6;
/// Of these, the blocks that are asked for: each takes two requests.
const ASKED_BLOCKS: usize = 3;
/// Above this, in sat/vB, a number is not a rate.
const HIGHEST_RATE: f64 = 1e9;

impl Mempool for Esplora {
    fn relay(&self) -> Result<RelayFacts, ChainError> {
        Ok(RelayFacts {
            version: UNKNOWN_VERSION,
            floor: FLOOR,
            incremental: FLOOR,
            packages: false,
            data_carrier: None,
        })
    }

    fn test_accept(&self, package: &[Transaction], _: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        let untested = |tx: &Transaction| Verdict { txid: tx.compute_txid(), answer: Answer::Untested };
        Ok(package.iter().map(untested).collect())
    }

    /// The server has a limit of its own for rates; ours holds for packages only.
    fn submit(&self, package: &[Transaction], max_fee_rate: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        if package.len() > 1
            && let Some(verdicts) = self.submit_package(package, max_fee_rate)?
        {
            return Ok(verdicts);
        }
        package.iter().map(|tx| self.submit_one(tx)).collect()
    }

    /// The server does not tell what hangs together: it is asked for one relative after the other.
    fn entry(&self, txid: &Txid) -> Result<Option<MempoolEntry>, ChainError> {
        let Some(tx) = self.waiting(txid)? else { return Ok(None) };
        let ancestors = self.family(&tx, |tx| Ok(tx.vin.0.iter().map(|input| input.txid).collect()))?;
        let descendants = self.family(&tx, |tx| {
            let spends: Option<Bounded<Spend, MAX_SPENDS>> = self.json(&format!("/tx/{}/outspends", tx.txid))?;
            Ok(spends.unwrap_or_default().0.into_iter().filter_map(|spend| spend.txid).collect())
        })?;
        Ok(Some(MempoolEntry {
            vsize: vsize(&tx),
            fee: fee(&tx),
            ancestors_vsize: ancestors.iter().map(vsize).sum(),
            ancestors_fee: ancestors.iter().map(fee).sum(),
            descendants_fee: descendants.iter().map(fee).sum(),
        }))
    }

    fn is_waiting(&self, txid: &Txid) -> Result<bool, ChainError> {
        // Its status says `unconfirmed` of what the server has never heard of, too.
        Ok(self.waiting(txid)?.is_some())
    }

    fn transaction(&self, txid: &Txid) -> Result<Option<Transaction>, ChainError> {
        let route = format!("/tx/{txid}/raw");
        let Some(raw) = self.get(&route, MAX_BLOCK)? else { return Ok(None) };
        let tx: Transaction = deserialize(&raw).map_err(|error| self.malformed(&route, error))?;
        if tx.compute_txid() != *txid {
            return Err(self.malformed(&route, "another transaction"));
        }
        self.check_amounts(&route, &tx.output)?;
        Ok(Some(tx))
    }

    fn unspent(&self, outpoint: &OutPoint) -> Result<Option<(TxOut, u32)>, ChainError> {
        let OutPoint { txid, vout } = outpoint;
        let Some(tx) = self.transaction(txid)? else { return Ok(None) };
        let Some(output) = usize::try_from(*vout).ok().and_then(|vout| tx.output.get(vout)) else { return Ok(None) };
        let spent: Option<Spend> = self.json(&format!("/tx/{txid}/outspend/{vout}"))?;
        if spent.is_none_or(|spent| spent.spent) {
            return Ok(None);
        }
        let status: Option<Status> = self.json(&format!("/tx/{txid}/status"))?;
        let height = status.filter(|status| status.confirmed).and_then(|status| status.block_height);
        let confirmations = match height {
            Some(height) => (self.tip()?.height.saturating_add(1)).saturating_sub(height),
            None => 0,
        };
        Ok(Some((output.clone(), confirmations)))
    }

    fn missing(&self, outpoints: &[OutPoint]) -> Result<Vec<OutPoint>, ChainError> {
        let mut missing = Vec::new();
        for outpoint in outpoints {
            let route = format!("/tx/{}/outspend/{}", outpoint.txid, outpoint.vout);
            let spent: Option<Spend> = self.json(&route)?;
            // What the server does not know at all, sending will tell.
            if spent.is_some_and(|spent| spent.spent) {
                missing.push(*outpoint);
            }
        }
        Ok(missing)
    }

    fn estimate(&self, target_blocks: u16) -> Result<Option<FeeRate>, ChainError> {
        const ROUTE: &str = "/fee-estimates";
        self.check_network()?;
        let estimates: Option<BTreeMap<u16, f64>> = self.json(ROUTE)?;
        let rate = within(&estimates.unwrap_or_default(), target_blocks);
        rate.map(|rate| parse_rate(rate).ok_or_else(|| self.malformed(ROUTE, "a rate that is none"))).transpose()
    }

    /// What all transactions of a block paid on average: what its coinbase takes beyond the subsidy.
    fn recently_paid(&self) -> Result<Option<FeeRate>, ChainError> {
        const ROUTE: &str = "/blocks";
        let blocks: Option<Bounded<Block, MAX_LISTED>> = self.json_up_to(BLOCK_LIST, ROUTE)?;
        let mut highest = None;
        let recent = blocks.unwrap_or_default().0.into_iter().take(RECENT_BLOCKS);
        for block in recent.filter(|block| block.tx_count > 1).take(ASKED_BLOCKS) {
            let Some(txid) = self.text(&format!("/block/{}/txid/0", block.id))? else { continue };
            let txid: Txid = txid.parse().map_err(|error| self.malformed(ROUTE, error))?;
            let Some(coinbase) = self.transaction(&txid)? else { continue };
            let taken = coinbase
                .output
                .iter()
                .map(|output| output.value)
                .fold(Amount::ZERO, |sum, value| sum.checked_add(value).unwrap_or(Amount::MAX_MONEY));
            let fees = taken.checked_sub(subsidy(self.network(), block.height)).unwrap_or(Amount::ZERO);
            // Whole sat/vB, rounded up, as a node's are.
            let weight = block.weight.clamp(1, Weight::MAX_BLOCK.to_wu());
            let rate = fees.to_sat().saturating_mul(4).div_ceil(weight);
            highest = highest.max(FeeRate::from_sat_per_vb(rate));
        }
        Ok(highest)
    }

    fn is_own_node(&self) -> bool {
        false
    }

    fn name(&self) -> &str {
        self.server()
    }
}

impl Esplora {
    /// A transaction that waits in the mempool.
    fn waiting(&self, txid: &Txid) -> Result<Option<Waiting>, ChainError> {
        let route = format!("/tx/{txid}");
        let tx: Option<Waiting> = self.json(&route)?;
        match tx {
            Some(tx) if tx.txid != *txid => Err(self.malformed(&route, "another transaction")),
            tx => Ok(tx.filter(|tx| !tx.status.confirmed)),
        }
    }

    /// The transactions that spend outputs of this one, as far as the server shows them: 16 MB of them at most.
    ///
    /// # Errors
    /// [`ChainError`], if the server does not answer or makes no sense.
    pub fn spenders(&self, txid: &Txid) -> Result<Vec<Transaction>, ChainError> {
        let spends: Option<Bounded<Spend, MAX_SPENDS>> = self.json(&format!("/tx/{txid}/outspends"))?;
        let Bounded(spends) = spends.unwrap_or_default();
        let spenders: BTreeSet<Txid> = spends.into_iter().filter_map(|spend| spend.txid).collect();
        let (mut found, mut bytes) = (Vec::new(), 0);
        for txid in spenders.iter().take(LOOKUPS) {
            let tx = self.transaction(txid)?;
            bytes += tx.as_ref().map_or(0, Transaction::total_size);
            found.extend(tx);
            // What more of them say is read when they are mined.
            if bytes > SPENDERS_BYTES {
                break;
            }
        }
        Ok(found)
    }

    /// A waiting transaction, and those that wait in one direction from it, as far as [`LOOKUPS`] reach.
    fn family(
        &self,
        tx: &Waiting,
        next: impl Fn(&Waiting) -> Result<Vec<Txid>, ChainError>,
    ) -> Result<Vec<Waiting>, ChainError> {
        let mut family = vec![tx.clone()];
        let mut asked = BTreeSet::from([tx.txid]);
        let mut at = 0;
        while let Some(tx) = family.get(at) {
            for txid in next(tx)? {
                if asked.len() <= LOOKUPS && asked.insert(txid) {
                    family.extend(self.waiting(&txid)?);
                }
            }
            at += 1;
        }
        Ok(family)
    }

    /// `None` if the server does not take packages, or not this one: its transactions go one by one then.
    fn submit_package(&self, package: &[Transaction], limit: FeeRate) -> Result<Option<Vec<Verdict>>, ChainError> {
        // BTC/kvB: 4 sat/kwu are 1 sat/kvB.
        let limit = Amount::from_sat(limit.to_sat_per_kwu().saturating_mul(4)).to_btc();
        let route = format!("/txs/package?maxfeerate={limit}&maxburnamount=0");
        let hex: Vec<String> = package.iter().map(serialize_hex).collect();
        match self.post(&route, &json!(hex).to_string())? {
            HttpAnswer { status: 200..=299, body, .. } => {
                let answer = serde_json::from_slice(&body).map_err(|error| self.malformed(&route, error))?;
                read_package(package, &answer).map(Some)
            }
            HttpAnswer { status: status @ 505.., body, .. } => Err(self.failed(&route, status, &body)),
            _ => Ok(None),
        }
    }

    fn submit_one(&self, tx: &Transaction) -> Result<Verdict, ChainError> {
        const ROUTE: &str = "POST /tx";
        let HttpAnswer { status, body, .. } = self.post("/tx", &serialize_hex(tx))?;
        let words = String::from_utf8_lossy(&body);
        let answer = match status {
            200..=299 => Answer::Accepted,
            // The node's words behind the server's: `sendrawtransaction RPC error: {"code":-26,"message":"..."}`.
            400..=428 | 430..=499 => judge_words(node_words(&words)),
            _ => return Err(self.failed(ROUTE, status, &body)),
        };
        Ok(Verdict { txid: tx.compute_txid(), answer })
    }
}

/// What transactions that spend the outputs of one may take in memory.
const SPENDERS_BYTES: usize = 16_000_000;
/// Outputs of a transaction, whose spends are asked for: more than any that is relayed has.
const MAX_SPENDS: usize = 20_000;
/// As many inputs as fit into a block.
pub(super) const MAX_INPUTS: usize = 25_000;

/// The server's status of a transaction.
#[derive(Clone, Copy, Deserialize)]
pub(super) struct Status {
    pub confirmed: bool,
    pub block_height: Option<BtcHeight>,
    #[cfg(feature = "wallet")]
    pub block_hash: Option<BlockHash>,
    #[cfg(feature = "wallet")]
    pub block_time: Option<u32>,
}

/// The server's answer about the spender of an output.
#[derive(Deserialize)]
pub(super) struct Spend {
    pub spent: bool,
    pub txid: Option<Txid>,
}

/// What a server says of a transaction in the mempool, as far as it matters here.
#[derive(Clone, Deserialize)]
struct Waiting {
    txid: Txid,
    vin: Bounded<Input, MAX_INPUTS>,
    weight: u64,
    fee: u64,
    status: Status,
}

#[derive(Clone, Deserialize)]
struct Input {
    txid: Txid,
}

/// What a server says of a block, as far as it matters here.
#[derive(Deserialize)]
struct Block {
    id: BlockHash,
    height: u32,
    tx_count: u64,
    weight: u64,
}

/// What the coinbase of the block at `height` may take beside the fees.
fn subsidy(network: Network, height: u32) -> Amount {
    const REGTEST_INTERVAL: u32 = 150;
    let interval = if network == Network::Regtest { REGTEST_INTERVAL } else { SUBSIDY_HALVING_INTERVAL };
    Amount::from_sat((50 * Amount::ONE_BTC.to_sat()).checked_shr(height / interval).unwrap_or(0))
}

/// What the server says of it, but no more than a block holds.
fn vsize(tx: &Waiting) -> u64 {
    tx.weight.min(Weight::MAX_BLOCK.to_wu()).div_ceil(4)
}

/// What the server says of it, but no more than all money: that many of them add up.
fn fee(tx: &Waiting) -> Amount {
    Amount::from_sat(tx.fee).min(Amount::MAX_MONEY)
}

/// What the node said, out of what the server made of it.
fn node_words(words: &str) -> &str {
    let message = words.split_once(r#""message":""#).and_then(|(_, rest)| rest.split('"').next());
    message.unwrap_or(words.trim())
}

/// The estimate for the longest time that is not longer than asked for, else the shortest there is.
fn within(estimates: &BTreeMap<u16, f64>, target_blocks: u16) -> Option<f64> {
    let found = estimates.range(..=target_blocks).next_back().or_else(|| estimates.iter().next());
    found.map(|(_, rate)| *rate)
}

/// A rate in sat/vB, rounded up to a whole sat/kwu.
fn parse_rate(rate: f64) -> Option<FeeRate> {
    let sound = rate.is_finite() && rate > 0.0 && rate < HIGHEST_RATE;
    sound.then(|| FeeRate::from_sat_per_kwu((rate * 250.0).ceil() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_the_nearest_that_is_fast_enough_and_round_up() {
        let estimates = BTreeMap::from([(2, 10.0), (6, 5.001), (144, 1.0)]);
        assert_eq!(within(&estimates, 6), Some(5.001));
        assert_eq!(within(&estimates, 100), Some(5.001));
        assert_eq!(within(&estimates, 1), Some(10.0), "nothing faster is known");
        assert_eq!(within(&BTreeMap::new(), 6), None);
        assert_eq!(parse_rate(5.001), Some(FeeRate::from_sat_per_kwu(1_251)));
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e12] {
            assert_eq!(parse_rate(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_subsidy_is_halved() {
        let sat = |network, height| subsidy(network, height).to_sat();
        assert_eq!([0, 209_999].map(|height| sat(Network::Bitcoin, height)), [5_000_000_000; 2]);
        assert_eq!([840_000, 33 * 210_000].map(|height| sat(Network::Bitcoin, height)), [312_500_000, 0]);
        assert_eq!([149, 150, u32::MAX].map(|height| sat(Network::Regtest, height)), [5_000_000_000, 2_500_000_000, 0]);
    }

    #[test]
    fn what_the_server_has_already_is_success() {
        let words = |message| format!(r#"sendrawtransaction RPC error: {{"code":-27,"message":"{message}"}}"#);
        for known in ["Transaction outputs already in utxo set", "txn-already-in-mempool", "txn-already-known"] {
            assert_eq!(judge_words(node_words(&words(known))), Answer::Known, "{known}");
        }
        let refused = judge_words(node_words(&words("min relay fee not met")));
        assert_eq!(refused, Answer::Refused("min relay fee not met".into()));
    }
}
