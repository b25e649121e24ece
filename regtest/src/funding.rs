//! Coins for anyone, without a wallet.
//!
//! Coins are looked up in the node every time, so this works across processes and reorgs.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use anyhow::{Context, Error, Result, bail, ensure};
use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::transaction::Version;
use bitcoin::{Address, Amount, OutPoint, Sequence, Transaction, TxIn, TxOut, Witness};
use serde_json::json;

use crate::bitcoind::{Bitcoind, parsed, text};
use crate::mining::anyone_script;

/// Subsidies are spendable in the hundredth block after theirs.
const MATURITY: u64 = 100;
/// Twenty-one mature subsidies: so many fundings do not depend on each other.
const FUNDED_HEIGHT: u32 = 120;
/// Below this an output is dust, and bitcoind refuses the transaction.
const LEAST_CHANGE: Amount = Amount::from_sat(330);
/// After some halvings a regtest chain pays nothing.
const MOST_BLOCKS: u32 = 2_000;

struct Coin {
    outpoint: OutPoint,
    amount: Amount,
}

impl Bitcoind {
    /// Sends `amount` to `address` at 1 sat/vB and returns the new output, unconfirmed.
    ///
    /// Takes confirmed coins first, change in the mempool when there are none. When that does not
    /// suffice it mines empty blocks: on a fresh chain up to height 120, later one by one.
    /// An output at [`anyone_address`](Self::anyone_address) may pay a later funding.
    ///
    /// # Errors
    /// More than the chain can pay; the mempool refuses (dust).
    pub fn fund(&self, address: &Address, amount: Amount) -> Result<OutPoint> {
        // The lock guards no data, so a panic elsewhere leaves nothing half done.
        let _one_at_a_time = self.funding.lock().unwrap_or_else(|held| held.into_inner());
        for _ in 0..MOST_BLOCKS {
            if let Some(tx) = payment(&self.coins()?, address, amount) {
                match self.send(&tx) {
                    Err(error) if chain_is_full(&error) => {}
                    sent => return Ok(OutPoint::new(sent?, 0)),
                }
            }
            let missing = FUNDED_HEIGHT.saturating_sub(self.height()?).max(1);
            self.mine_empty(missing)?;
        }
        bail!("{amount} is more than this chain pays")
    }

    /// [`fund`](Self::fund), then one block with everything in the mempool.
    ///
    /// # Errors
    /// As [`fund`](Self::fund).
    pub fn fund_and_mine(&self, address: &Address, amount: Amount) -> Result<OutPoint> {
        let outpoint = self.fund(address, amount)?;
        let block = self.mine(1)?;
        let left = self.mempool()?.contains(&outpoint.txid);
        ensure!(!left, "{block:?} has no room for {}", outpoint.txid);
        Ok(outpoint)
    }

    /// Spendable coins in the order of choice: confirmed first, larger first.
    fn coins(&self) -> Result<Vec<Coin>> {
        let mempool = self.mempool_transactions()?;
        let spent: BTreeSet<_> =
            mempool.iter().flat_map(|tx| tx.input.iter().map(|input| input.previous_output)).collect();
        let mut coins = Vec::new();
        for mut source in [self.mature_coins()?, change(&mempool)] {
            source.retain(|coin| !spent.contains(&coin.outpoint));
            source.sort_by_key(|coin| (Reverse(coin.amount), coin.outpoint));
            coins.append(&mut source);
        }
        Ok(coins)
    }

    fn mature_coins(&self) -> Result<Vec<Coin>> {
        let descriptor = format!("addr({})", Self::anyone_address());
        let found = self.call("scantxoutset", &[json!("start"), json!([descriptor])])?;
        let tip = found["height"].as_u64().context("no height")?;
        let mut coins = Vec::new();
        for entry in found["unspents"].as_array().context("no unspents")? {
            let height = entry["height"].as_u64().context("no height")?;
            let matures = entry["coinbase"].as_bool().unwrap_or(true);
            if matures && tip + 1 < height + MATURITY {
                continue;
            }
            let vout = entry["vout"].as_u64().context("no vout")?.try_into()?;
            // bitcoind writes amounts as decimal numbers of bitcoins.
            let btc = entry["amount"].as_f64().context("no amount")?;
            coins.push(Coin { outpoint: OutPoint::new(parsed(&entry["txid"])?, vout), amount: Amount::from_btc(btc)? });
        }
        Ok(coins)
    }

    fn mempool_transactions(&self) -> Result<Vec<Transaction>> {
        let mut txs = Vec::new();
        for txid in self.mempool()? {
            let hex = self.call("getrawtransaction", &[json!(txid)])?;
            txs.push(deserialize_hex(text(&hex)?)?);
        }
        Ok(txs)
    }
}

/// Outputs in the mempool that anyone may spend.
fn change(mempool: &[Transaction]) -> Vec<Coin> {
    let ours = Bitcoind::anyone_address().script_pubkey();
    let mut coins = Vec::new();
    // Version 3 transactions may only be spent by their like.
    for tx in mempool.iter().filter(|tx| tx.version == Version::TWO) {
        let txid = tx.compute_txid();
        let outputs = (0..).zip(&tx.output);
        coins.extend(
            outputs
                .filter(|(_, output)| output.script_pubkey == ours)
                .map(|(vout, output)| Coin { outpoint: OutPoint::new(txid, vout), amount: output.value }),
        );
    }
    coins
}

/// No more unconfirmed transactions may hang together; the second name is of version 31.
fn chain_is_full(error: &Error) -> bool {
    let reason = format!("{error:#}");
    ["too-long-mempool-chain", "too-large-cluster"].iter().any(|name| reason.contains(name))
}

/// `None`: the coins do not suffice.
fn payment(coins: &[Coin], address: &Address, amount: Amount) -> Option<Transaction> {
    let change = TxOut { value: Amount::ZERO, script_pubkey: Bitcoind::anyone_address().script_pubkey() };
    let output = TxOut { value: amount, script_pubkey: address.script_pubkey() };
    let mut tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: Vec::new(),
        output: vec![output, change],
    };
    let mut taken = Amount::ZERO;
    for coin in coins {
        taken += coin.amount;
        tx.input.push(TxIn {
            previous_output: coin.outpoint,
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::from_slice(&[anyone_script()]),
            ..TxIn::default()
        });
        // 1 sat/vB: the size is the fee. No signature, so the size is exact.
        let fee = Amount::from_sat(tx.vsize() as u64);
        let Some(rest) = taken.checked_sub(fee).and_then(|t| t.checked_sub(amount)) else {
            continue;
        };
        if rest >= LEAST_CHANGE {
            tx.output[1].value = rest;
        } else {
            tx.output.pop();
        }
        return Some(tx);
    }
    None
}
