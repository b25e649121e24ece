//! What the wallet knows of transactions: which are mined, which wait, which hang on which, which exclude each other.

use super::Wallet;
use crate::primitives::BlockRef;
use crate::primitives::BtcHeight;
use bdk_wallet::chain::ChainPosition;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Blocks after which what a transaction spends is spent for good.
pub(super) const BURIED: u32 = 6;

/// The transactions that count, in the chain and waiting for it; and the outputs that the wallet has heard of.
pub(crate) struct View {
    pub transactions: BTreeMap<Txid, (Arc<Transaction>, Option<BlockRef>)>,
    confirmed: Arc<BTreeMap<Txid, BlockRef>>,
    /// By script: of transactions that count no more, too.
    pub outputs: BTreeMap<ScriptBuf, BTreeSet<OutPoint>>,
}

impl View {
    fn of(bdk: &bdk_wallet::Wallet) -> Self {
        let (chain, graph) = (bdk.local_chain(), bdk.tx_graph());
        let canonical = graph.list_canonical_txs(chain, chain.tip().block_id(), Default::default());
        let transactions: BTreeMap<_, _> = canonical
            .map(|tx| {
                let block = match tx.chain_position {
                    ChainPosition::Confirmed { anchor, .. } => Some(anchor.block_id),
                    ChainPosition::Unconfirmed { .. } => None,
                };
                let block = block.map(|block| BlockRef { height: block.height, hash: block.hash });
                (tx.tx_node.txid, (tx.tx_node.tx, block))
            })
            .collect();
        let confirmed = transactions.iter().filter_map(|(txid, (_, block))| Some((*txid, (*block)?))).collect();
        let mut outputs: BTreeMap<ScriptBuf, BTreeSet<OutPoint>> = BTreeMap::new();
        for (outpoint, output) in graph.all_txouts() {
            outputs.entry(output.script_pubkey.clone()).or_default().insert(outpoint);
        }
        Self { transactions, confirmed: Arc::new(confirmed), outputs }
    }
}

impl Wallet {
    /// What the wallet knows now; worked out once, however many ask.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.get_or_init(|| Arc::new(View::of(&self.bdk))).clone()
    }

    /// The wallet's transactions in the best chain, with their blocks.
    pub(crate) fn confirmed(&self) -> Arc<BTreeMap<Txid, BlockRef>> {
        self.view().confirmed.clone()
    }

    /// Those of them that have this many blocks and more, their own included.
    pub(super) fn confirmed_for(&self, blocks: u32) -> BTreeMap<Txid, BlockRef> {
        let tip = self.synced_to().height;
        let confirmed = self.confirmed();
        let deep = confirmed.iter().filter(|(_, block)| tip + 1 >= block.height + blocks);
        deep.map(|(txid, block)| (*txid, *block)).collect()
    }

    /// Those of them that stay there.
    pub(crate) fn buried(&self) -> BTreeMap<Txid, BlockRef> {
        self.confirmed_for(BURIED)
    }

    /// The transactions that wait for a block, as the wallet sees it; of conflicting ones the latest.
    pub(super) fn unconfirmed(&self) -> Vec<Arc<Transaction>> {
        self.view().transactions.values().filter(|(_, block)| block.is_none()).map(|(tx, _)| tx.clone()).collect()
    }

    /// Whether an input spends a coin of the wallet, as far as it knows.
    pub(super) fn is_own(&self, input: &TxIn) -> bool {
        let output = self.output(&input.previous_output);
        output.is_some_and(|output| self.bdk.is_mine(output.script_pubkey))
    }

    /// The mined transactions that spent coins of the wallet, with their heights, as far as it knows them.
    pub(crate) fn spends(&self) -> Vec<(Transaction, BtcHeight)> {
        let view = self.view();
        let spends = view.transactions.values().filter(|(tx, _)| tx.input.iter().any(|input| self.is_own(input)));
        spends.filter_map(|(tx, block)| Some((tx.as_ref().clone(), (*block)?.height))).collect()
    }

    /// Whether another confirmed transaction spends a coin of `tx`, or of what it hangs on: then `tx` can never
    /// confirm.
    pub(crate) fn is_conflicted(&self, tx: &Transaction, confirmed: &BTreeMap<Txid, BlockRef>) -> bool {
        let graph = self.bdk.tx_graph();
        let is_lost = |tx: &Transaction| graph.direct_conflicts(tx).any(|(_, txid)| confirmed.contains_key(&txid));
        let waits = |tx: &Arc<Transaction>| !confirmed.contains_key(&tx.compute_txid());
        is_lost(tx) || graph.walk_ancestors(tx.clone(), |_, tx| waits(&tx).then(|| is_lost(&tx))).any(|lost| lost)
    }

    /// Whether `tx` can never be mined in a chain that has a transaction which spends all of `by`: because it, or
    /// what it hangs on, spends a coin which that one spends, or what that one hangs on, or which is long gone.
    pub(crate) fn is_excluded(&self, tx: &Transaction, by: &[OutPoint], confirmed: &BTreeMap<Txid, BlockRef>) -> bool {
        if tx.input.iter().any(|input| by.contains(&input.previous_output)) {
            return true;
        }
        let graph = self.bdk.tx_graph();
        let paid = by.iter().filter_map(|outpoint| graph.get_tx(outpoint.txid));
        let family = |tx: Arc<Transaction>| {
            let before = graph.walk_ancestors(tx.clone(), |_, tx| Some(tx.compute_txid()));
            before.chain([tx.compute_txid()]).collect::<Vec<_>>()
        };
        let needed: BTreeSet<Txid> = paid.flat_map(family).collect();
        let tip = self.synced_to().height;
        let is_certain = |txid: &Txid| {
            needed.contains(txid) || confirmed.get(txid).is_some_and(|block| tip + 1 >= block.height + BURIED)
        };
        let is_lost = |tx: &Transaction| graph.direct_conflicts(tx).any(|(_, txid)| is_certain(&txid));
        let waits = |tx: &Arc<Transaction>| !confirmed.contains_key(&tx.compute_txid());
        let mut before = graph.walk_ancestors(tx.clone(), |_, tx| waits(&tx).then(|| is_lost(&tx)));
        is_lost(tx) || before.any(|lost| lost) || self.is_gone(tx, confirmed)
    }

    /// What has to be mined before any of `transactions` can be, as far as the wallet knows it whole; parents first.
    pub(crate) fn hangs_on(
        &self,
        transactions: &[Transaction],
        confirmed: &BTreeMap<Txid, BlockRef>,
    ) -> Vec<Transaction> {
        let waits = |_: usize, tx: Arc<Transaction>| {
            let txid = tx.compute_txid();
            (!confirmed.contains_key(&txid)).then_some((txid, tx))
        };
        let before = transactions.iter().flat_map(|tx| self.bdk.tx_graph().walk_ancestors(tx.clone(), waits));
        let mut left: BTreeMap<Txid, Arc<Transaction>> = before.collect();
        transactions.iter().for_each(|tx| drop(left.remove(&tx.compute_txid())));
        let mut ordered = Vec::new();
        let is_first = |tx: &Transaction, left: &BTreeMap<Txid, Arc<Transaction>>| {
            !tx.input.iter().any(|input| left.contains_key(&input.previous_output.txid))
        };
        while let Some((txid, tx)) = left.iter().find(|(_, tx)| is_first(tx, &left)).map(|(id, tx)| (*id, tx.clone())) {
            left.remove(&txid);
            ordered.push(tx.as_ref().clone());
        }
        ordered
    }

    /// The transaction in the mempool or chain that spends an output, as far as the wallet knows.
    pub(crate) fn spender(&self, outpoint: OutPoint) -> Option<Txid> {
        let view = self.view();
        self.bdk.tx_graph().outspends(outpoint).iter().copied().find(|txid| view.transactions.contains_key(txid))
    }

    /// Whether a transaction is in the chain or waits for it, and is no replaced or forgotten one. What is known
    /// of it by an output alone is in the chain.
    pub(crate) fn is_current(&self, txid: &Txid) -> bool {
        self.bdk.tx_graph().get_tx(*txid).is_none() || self.view().transactions.contains_key(txid)
    }

    /// A transaction that the wallet knows whole.
    pub(crate) fn transaction(&self, txid: Txid) -> Option<Arc<Transaction>> {
        self.bdk.tx_graph().get_tx(txid)
    }

    /// An output that the wallet has heard of, its own or not, spent or not.
    pub(crate) fn output(&self, outpoint: &OutPoint) -> Option<TxOut> {
        self.bdk.tx_graph().get_txout(*outpoint).cloned()
    }
}
