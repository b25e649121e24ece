//! What the wallet's own transactions hang on, and is there no more.
//!
//! Guarantees: what hangs on somebody else's transaction that is neither mined nor in the mempool is no part of the
//! balance, and what else it spends is free; after six blocks it is lost, whether or not anybody shows what took its
//! place; and all of it is there again as soon as the transaction is.

use super::graph::BURIED;
use super::{Wallet, WalletError, inputs_of, journal, payment};
use crate::chain::Mempool;
use crate::primitives::{BlockRef, BtcHeight};
use bitcoin::{Transaction, Txid};
use rusqlite::{Connection, params};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Transactions of others that own ones hang on, and that are absent.
#[derive(Debug, Default)]
pub(super) struct Absent {
    /// At which height each was missed first.
    since: BTreeMap<Txid, BtcHeight>,
    /// Own transactions that hang on them.
    hanging: BTreeSet<Txid>,
}

/// Makes the table if it is missing.
pub(super) fn create_table(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS sortie_absent (
            txid TEXT PRIMARY KEY NOT NULL,
            since INTEGER NOT NULL
        ) STRICT;",
    )
}

impl Absent {
    pub fn load(db: &Connection) -> rusqlite::Result<Self> {
        let mut statement = db.prepare("SELECT txid, since FROM sortie_absent")?;
        let rows = statement.query_map([], |row| Ok((super::store::parsed(row, 0)?, row.get(1)?)))?;
        Ok(Self { since: rows.collect::<Result<_, _>>()?, ..Self::default() })
    }
}

impl Wallet {
    /// Asks for others' transactions that own ones hang on; those that hang on absent ones leave the balance, and those
    /// whose ancestors have come back are in it again.
    pub(super) fn look_for_ancestors(&mut self, node: &impl Mempool) -> Result<(), WalletError> {
        let own = self.own_waiting()?;
        let confirmed = self.confirmed();
        let mut absent = BTreeSet::new();
        let parents = own.iter().flat_map(|(txid, tx)| inputs_of(tx).into_iter().map(move |coin| (coin.txid, txid)));
        for (parent, child) in parents {
            let is_foreign = !own.contains_key(&parent) && !confirmed.contains_key(&parent);
            let is_known = self.transaction(parent).is_some() && !absent.contains(&parent);
            // What has just been mined is not absent: what spends it still waits.
            if is_foreign && is_known && !node.is_waiting(&parent)? && !node.is_waiting(child)? {
                absent.insert(parent);
            }
        }
        let before: BTreeSet<Txid> = self.absent.since.keys().copied().collect();
        if absent.is_empty() && before.is_empty() {
            return Ok(());
        }
        let hanging = hanging_on(&own, &absent);
        self.forget(&absent.union(&hanging).copied().collect::<Vec<_>>());
        let back: BTreeSet<Txid> = before.difference(&absent).copied().collect();
        let is_whole = |txid: &&Txid| !hanging.contains(*txid);
        let revived: Vec<Transaction> = match back.is_empty() {
            true => Vec::new(),
            false => {
                hanging_on(&own, &back).iter().filter(is_whole).filter_map(|txid| own.get(txid).cloned()).collect()
            }
        };
        self.note(&revived);

        let tip = self.synced_to().height;
        let old = std::mem::take(&mut self.absent.since);
        let since = |txid: &Txid| old.get(txid).map_or(tip, |since| tip.min(*since));
        self.absent.since = absent.iter().map(|txid| (*txid, since(txid))).collect();
        self.absent.hanging = hanging;
        let rows = self.absent.since.clone();
        self.save_with(|db| {
            db.execute("DELETE FROM sortie_absent", [])?;
            for (txid, since) in rows {
                db.execute("INSERT INTO sortie_absent VALUES (?1, ?2)", params![txid.to_string(), since])?;
            }
            Ok(())
        })
    }

    /// The transactions of jobs and payments that are to be in the mempool.
    fn own_waiting(&self) -> Result<BTreeMap<Txid, Transaction>, WalletError> {
        let (confirmed, buried) = (self.confirmed(), self.buried());
        let jobs = journal::watched(self.db())?;
        let of_jobs = jobs.iter().flat_map(|job| job.active().into_iter().chain(job.standing_sweeps().cloned()));
        let payments = payment::signed(self.db())?.into_iter().map(|payment| payment.tx);
        let waiting = of_jobs.chain(payments).map(|tx| (tx.compute_txid(), tx));
        let is_open =
            |(txid, tx): &(Txid, Transaction)| !confirmed.contains_key(txid) && !self.is_conflicted(tx, &buried);
        Ok(waiting.filter(is_open).collect())
    }

    /// Whether an own transaction hangs on something that is absent.
    pub(super) fn hangs(&self, txid: &Txid) -> bool {
        self.absent.hanging.contains(txid)
    }

    /// Whether `tx` cannot be mined in the chain as it is: another confirmed transaction spends a coin of it, or of
    /// what it hangs on, or that was gone for six blocks.
    pub(crate) fn is_lost(&self, tx: &Transaction, confirmed: &BTreeMap<Txid, BlockRef>) -> bool {
        self.is_conflicted(tx, confirmed) || self.is_gone(tx, confirmed)
    }

    /// Whether `tx` hangs on somebody else's transaction that was neither mined nor in the mempool for six blocks.
    pub(crate) fn is_gone(&self, tx: &Transaction, confirmed: &BTreeMap<Txid, BlockRef>) -> bool {
        self.is_gone_for(tx, BURIED, confirmed)
    }

    /// As [`is_gone`](Self::is_gone), for this many blocks.
    pub(super) fn is_gone_for(&self, tx: &Transaction, blocks: u32, confirmed: &BTreeMap<Txid, BlockRef>) -> bool {
        let tip = self.synced_to().height;
        let is_gone = |txid: &Txid| self.absent.since.get(txid).is_some_and(|since| tip >= since + blocks);
        if !self.absent.since.keys().any(is_gone) {
            return false;
        }
        let waits = |_: usize, tx: Arc<Transaction>| {
            let txid = tx.compute_txid();
            (!confirmed.contains_key(&txid)).then_some(txid)
        };
        self.bdk.tx_graph().walk_ancestors(tx.clone(), waits).any(|txid| is_gone(&txid))
    }
}

/// Those of `own` that spend an output of one of `roots`, or of another that does.
fn hanging_on(own: &BTreeMap<Txid, Transaction>, roots: &BTreeSet<Txid>) -> BTreeSet<Txid> {
    let mut hanging: BTreeSet<Txid> = BTreeSet::new();
    loop {
        let hangs = |tx: &Transaction| {
            tx.input
                .iter()
                .map(|input| input.previous_output.txid)
                .any(|txid| roots.contains(&txid) || hanging.contains(&txid))
        };
        let more: Vec<Txid> =
            own.iter().filter(|(txid, tx)| !hanging.contains(*txid) && hangs(tx)).map(|(txid, _)| *txid).collect();
        if more.is_empty() {
            return hanging;
        }
        hanging.extend(more);
    }
}
