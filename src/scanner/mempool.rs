//! What waits in a node's mempool for a rollup.

use crate::chain::{ChainError, Mempool, MempoolEntry, RpcNode};
use crate::envelope::{Found, MAGIC, scan_transaction};
use crate::primitives::{BlockRef, BtcHeight, Namespace};
use crate::queue::{Item, items_of};
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, FeeRate, Transaction, Txid};
use std::collections::{BTreeMap, HashSet};

/// Blocks ahead that a node has estimates for.
const TARGETS: [u16; 9] = [2, 3, 6, 12, 24, 72, 144, 504, 1008];

/// What fits into one block, in vbytes.
const BLOCK_VSIZE: u64 = 1_000_000;

/// Items that joined no queue yet: their transaction is not mined.
#[derive(Clone, Debug)]
pub struct Unconfirmed {
    /// The Bitcoin transaction.
    pub txid: Txid,
    /// The items that it carries; their block is not known, and stands there as zeros.
    pub items: Vec<Item>,
    /// What it pays, with its unconfirmed parents if they pay less.
    pub fee_rate: FeeRate,
    /// The block that it is expected in at that rate; `None` if the node cannot tell.
    pub expected_height: Option<BtcHeight>,
}

/// Watches a node's mempool for the items of one rollup; reads each transaction once.
#[derive(Debug)]
pub struct MempoolWatch {
    namespace: Namespace,
    seen: HashSet<Txid>,
    waiting: BTreeMap<Txid, Vec<Found>>,
}

impl MempoolWatch {
    /// Nothing was looked at yet.
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace, seen: HashSet::new(), waiting: BTreeMap::new() }
    }

    /// What waits now. Batches and handovers are left out: they are no items.
    ///
    /// # Errors
    /// The node cannot be asked.
    pub fn look(&mut self, node: &RpcNode) -> Result<Vec<Unconfirmed>, ChainError> {
        let here: HashSet<Txid> = node.mempool_txids()?.into_iter().collect();
        self.waiting.retain(|txid, _| here.contains(txid));
        let new: Vec<Txid> = here.difference(&self.seen).copied().collect();
        let needle = [&MAGIC[..], &self.namespace.0].concat();
        node.raw_transactions(&new, |txid, raw| {
            // As with blocks: what does not hold the needle is not parsed.
            if memchr::memmem::find(raw, &needle).is_some()
                && let Ok(transaction) = deserialize::<Transaction>(raw)
            {
                let found = scan_transaction(&transaction, Some(self.namespace));
                self.waiting.insert(txid, found);
            }
        })?;
        self.seen = here;

        let nowhere = BlockRef { height: 0, hash: BlockHash::all_zeros() };
        let mut unconfirmed = Vec::new();
        for (txid, found) in &self.waiting {
            let items = items_of(nowhere, found);
            // It may have left between two calls.
            let Some(entry) = node.entry(txid)?.filter(|_| !items.is_empty()) else { continue };
            let fee_rate = entry.fee_rate();
            let expected_height = expected_height(node, fee_rate)?;
            unconfirmed.push(Unconfirmed { txid: *txid, items, fee_rate, expected_height });
        }
        Ok(unconfirmed)
    }
}

impl MempoolEntry {
    /// Its own rate, or that of it and its unconfirmed ancestors together if that is lower: a miner takes all or none.
    fn fee_rate(&self) -> FeeRate {
        let rate = |fee: bitcoin::Amount, vsize: u64| FeeRate::from_sat_per_kwu(fee.to_sat() * 250 / vsize.max(1));
        rate(self.fee, self.vsize).min(rate(self.ancestors_fee, self.ancestors_vsize))
    }
}

/// The next block, if the whole mempool fits into it; else by the node's estimates.
fn expected_height(node: &RpcNode, rate: FeeRate) -> Result<Option<BtcHeight>, ChainError> {
    let tip = node.info()?.tip.height;
    if node.mempool_vsize()? <= BLOCK_VSIZE {
        return Ok(Some(tip + 1));
    }
    for target in TARGETS {
        if node.estimate(target)?.is_some_and(|estimate| estimate <= rate) {
            return Ok(Some(tip + u32::from(target)));
        }
    }
    Ok(None)
}
