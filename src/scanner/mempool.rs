//! What waits in a node's mempool for a rollup.

use crate::chain::{BlockSource, ChainError, Mempool, MempoolEntry, RpcNode};
use crate::envelope::{MAGIC, scan_transaction};
use crate::primitives::{BlockRef, BtcHeight, Namespace};
use crate::queue::{Item, items_of};
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, FeeRate, Transaction, Txid};
use memchr::memmem::Finder;
use std::collections::HashSet;
use std::ops::ControlFlow;

/// Blocks ahead that a node has estimates for.
const TARGETS: [u16; 9] = [2, 3, 6, 12, 24, 72, 144, 504, 1008];

/// Transactions in one request: the largest that are relayed, all together, are still one answer.
const BATCH: usize = 16;

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
    /// What was in it when it was listed last, and was read.
    seen: HashSet<Txid>,
    /// What was, too, and was not.
    unread: Vec<Txid>,
    /// What was read, and was not told.
    found: Vec<(Txid, Vec<Item>)>,
}

impl MempoolWatch {
    /// Nothing was looked at yet.
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace, seen: HashSet::new(), unread: Vec::new(), found: Vec::new() }
    }

    /// What has come in since the last look. Batches and handovers are left out: they are no items.
    ///
    /// A large mempool takes long to read. So `go_on` is asked before each request; where it says no, the next look
    /// goes on.
    ///
    /// # Errors
    /// The node cannot be asked.
    pub fn look(&mut self, node: &RpcNode, go_on: impl Fn() -> bool) -> Result<Vec<Unconfirmed>, ChainError> {
        if self.is_done() {
            let here: HashSet<Txid> = node.mempool_txids()?.into_iter().collect();
            self.unread = here.difference(&self.seen).copied().collect();
            self.seen.retain(|txid| here.contains(txid));
        }
        self.read(node, &go_on)?;
        let mut unconfirmed = Vec::new();
        let mut outlook = None;
        while let Some((txid, items)) = self.found.last().filter(|_| go_on()) {
            // It may have left between two calls.
            if let Some(entry) = node.entry(txid)? {
                let (items, txid, fee_rate) = (items.clone(), *txid, entry.fee_rate());
                let outlook = match &mut outlook {
                    Some(outlook) => outlook,
                    none => none.insert(Outlook::of(node)?),
                };
                let expected_height = outlook.height(fee_rate);
                unconfirmed.push(Unconfirmed { txid, items, fee_rate, expected_height });
            }
            self.found.pop();
        }
        Ok(unconfirmed)
    }

    /// Whether the last look saw all that there was.
    pub fn is_done(&self) -> bool {
        self.unread.is_empty() && self.found.is_empty()
    }

    fn read(&mut self, node: &RpcNode, go_on: impl Fn() -> bool) -> Result<(), ChainError> {
        let nowhere = BlockRef { height: 0, hash: BlockHash::all_zeros() };
        let needle = [&MAGIC[..], &self.namespace.0].concat();
        let needle = Finder::new(&needle);
        while !self.unread.is_empty() && go_on() {
            let batch = &self.unread[self.unread.len().saturating_sub(BATCH)..];
            node.raw_transactions(batch, |txid, raw| {
                // As with blocks: what does not hold the needle is not parsed.
                if needle.find(raw).is_some()
                    && let Ok(transaction) = deserialize::<Transaction>(raw)
                {
                    let items = items_of(nowhere, &scan_transaction(&transaction, Some(self.namespace)));
                    self.found.extend((!items.is_empty()).then_some((txid, items)));
                }
                ControlFlow::Continue(())
            })?;
            self.seen.extend(batch);
            self.unread.truncate(self.unread.len().saturating_sub(BATCH));
        }
        Ok(())
    }
}

impl MempoolEntry {
    /// Its own rate, or that of it and its unconfirmed ancestors together if that is lower: a miner takes all or none.
    fn fee_rate(&self) -> FeeRate {
        let rate = |fee: bitcoin::Amount, vsize: u64| FeeRate::from_sat_per_kwu(fee.to_sat() * 250 / vsize.max(1));
        rate(self.fee, self.vsize).min(rate(self.ancestors_fee, self.ancestors_vsize))
    }
}

/// What a fee rate buys now.
struct Outlook {
    tip: BtcHeight,
    /// Rates, by the blocks ahead that they are enough for; the nearest first.
    estimates: Vec<(u16, FeeRate)>,
}

impl Outlook {
    fn of(node: &RpcNode) -> Result<Self, ChainError> {
        let tip = node.tip()?.height;
        if node.mempool_vsize()? <= BLOCK_VSIZE {
            return Ok(Self { tip, estimates: vec![(1, FeeRate::ZERO)] });
        }
        let mut estimates = Vec::new();
        for target in TARGETS {
            estimates.extend(node.estimate(target)?.map(|rate| (target, rate)));
        }
        Ok(Self { tip, estimates })
    }

    /// The next block, if the whole mempool fits into it; else by the node's estimates.
    fn height(&self, rate: FeeRate) -> Option<BtcHeight> {
        let enough = self.estimates.iter().find(|(_, estimate)| *estimate <= rate);
        enough.map(|(target, _)| self.tip + u32::from(*target))
    }
}
