//! What of the chain matters to jobs, and what it has made of them.
//!
//! Guarantees: the chain decides, whatever was believed: a job whose envelope was spent by the leaf is published,
//! whoever signed that; signatures that others show are checked before they are taken over.

use super::balance::COINBASE_MATURITY;
use super::{Event, Generation, Job, JobState, Payer, Wallet, WalletError, check_witness, journal, unix_now};
use crate::primitives::BlockRef;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Wallet {
    /// What of the chain matters to jobs, beside the wallet's own transactions.
    pub(crate) fn watch(&self, jobs: &[Job]) -> Result<Watch, WalletError> {
        let mut watch = Watch::default();
        let confirmed = self.confirmed();
        for job in jobs {
            let locked = self.locked(job)?;
            watch.awaits_payment |= job.payer == Payer::Anywhere && job.state.is_unfinished();
            // Whoever was shown an address may pay it, whoever was to pay in the end.
            watch.scripts.extend(self.envelope_script(job)?);
            // Until it is mined, a payment can be replaced by one to somebody else.
            let commit = job.commit().map(Transaction::compute_txid);
            let unconfirmed =
                locked.iter().filter(|paid| Some(paid.txid) != commit && !confirmed.contains_key(&paid.txid));
            // So can what it hangs on.
            let graph = self.bdk.tx_graph();
            let inputs = |tx: &Transaction| tx.input.iter().map(|i| i.previous_output).collect::<Vec<_>>();
            for tx in unconfirmed.filter_map(|paid| graph.get_tx(paid.txid)) {
                let waits = |tx: &Arc<Transaction>| !confirmed.contains_key(&tx.compute_txid());
                let before = graph.walk_ancestors(tx.clone(), |_, tx| waits(&tx).then(|| inputs(&tx)));
                watch.outpoints.extend(before.flatten().chain(inputs(&tx)));
            }
            watch.outpoints.extend(locked);
        }
        Ok(watch)
    }

    /// The output script of a job's envelope.
    pub(crate) fn envelope_script(&self, job: &Job) -> Result<Option<ScriptBuf>, WalletError> {
        let Some(index) = job.key_index else { return Ok(None) };
        Ok(Some(ScriptBuf::new_p2tr(self.secp(), self.reveal_key(index)?, job.merkle_root)))
    }

    /// The outputs that a job's envelope locks, whoever paid them, as far as the wallet knows them.
    pub(crate) fn locked(&self, job: &Job) -> Result<BTreeSet<OutPoint>, WalletError> {
        let Some(script) = self.envelope_script(job)? else { return Ok(BTreeSet::new()) };
        let mut locked = self.view().outputs.get(&script).cloned().unwrap_or_default();
        locked.extend(job.commit().map(|commit| OutPoint::new(commit.compute_txid(), 0)));
        Ok(locked)
    }

    /// Whether the outputs of a transaction in this block can be spent now: a coinbase's 100 blocks later only.
    pub(crate) fn is_mature(&self, txid: &Txid, block: Option<&BlockRef>) -> bool {
        let is_coinbase = self.bdk.tx_graph().get_tx(*txid).is_some_and(|tx| tx.is_coinbase());
        let since = |block: &BlockRef| self.synced_to().height + 1 >= block.height + COINBASE_MATURITY;
        !is_coinbase || block.is_some_and(since)
    }

    /// What was paid to a job's envelope and is not spent in the chain, as far as the wallet knows.
    pub(crate) fn payments(&self, job: &Job) -> Result<Vec<Paid>, WalletError> {
        let (graph, confirmed) = (self.bdk.tx_graph(), self.confirmed());
        let view = self.view();
        let own: BTreeSet<Txid> = job.all_txids().chain(job.sweeps.iter().map(Transaction::compute_txid)).collect();
        let mut payments = Vec::new();
        for outpoint in self.locked(job)? {
            // What is known of a transaction by an output alone is in the chain.
            let is_whole = graph.get_tx(outpoint.txid).is_some();
            let block = view.transactions.get(&outpoint.txid).map(|(_, block)| *block);
            let spenders = graph.outspends(outpoint);
            let is_spent = spenders.iter().any(|spender| confirmed.contains_key(spender));
            let is_mature = self.is_mature(&outpoint.txid, block.flatten().as_ref());
            if is_spent || !is_mature || (is_whole && block.is_none()) {
                continue;
            }
            let output = self.output(&outpoint);
            payments.extend(output.map(|output| Paid {
                outpoint,
                output,
                is_confirmed: block.is_none_or(|block| block.is_some()),
                is_taken: !own.is_disjoint(&spenders.iter().copied().collect()),
                is_leaving: spenders.iter().any(|spender| view.transactions.contains_key(spender)),
            }));
        }
        Ok(payments)
    }

    /// Takes over what was given away to be signed, and was sent by whoever signed it. Returns whether there was any.
    ///
    /// Its signatures are checked, whoever showed them: they are written down to be sent again.
    pub(super) fn take_over(&mut self, jobs: &[Job]) -> Result<bool, WalletError> {
        let mut taken = Vec::new();
        for job in jobs.iter().filter(|job| job.generations.is_empty()) {
            let Some(draft) = &job.draft else { continue };
            let txid = draft.transactions[0].compute_txid();
            let Some(tx) = self.transaction(txid).filter(|_| self.is_current(&txid)) else { continue };
            let spent: Option<Vec<TxOut>> = tx.input.iter().map(|input| self.output(&input.previous_output)).collect();
            let Some(spent) = spent else { continue };
            let is_signed =
                |(n, input): (usize, &TxIn)| check_witness(self.secp(), &tx, n, &spent, &input.witness).is_ok();
            if !tx.input.iter().enumerate().all(is_signed) {
                continue;
            }
            let generation = draft.signed(tx.as_ref().clone());
            let sent = if generation.carrying == 0 { Event::RevealSent } else { Event::CommitSent };
            taken.push((job.id, Event::Signed { generation }));
            taken.extend((job.state == JobState::Planned).then_some((job.id, sent)));
        }
        if taken.is_empty() {
            return Ok(false);
        }
        self.save_with(|db| taken.iter().try_for_each(|(job, event)| journal::append(db, *job, event, unix_now())))?;
        Ok(true)
    }

    /// Moves each watched job to where the chain shows it, and saves all that was learnt.
    pub(crate) fn settle_jobs(&mut self, jobs: &[Job]) -> Result<(), WalletError> {
        let confirmed = self.confirmed();
        let tip = self.synced_to().height;
        let buried = self.confirmed_for(journal::FINAL_DEPTH);
        let mut shown = Vec::new();
        let is_open = |job: &Job| !matches!(job.state, JobState::Final(_));
        for job in jobs.iter().filter(|job| is_open(job)) {
            let locked = self.locked(job)?;
            let (event, block) = match self.fate(job, &locked, &confirmed) {
                Some(Fate::Revealed(txid, block)) => {
                    let is_news = job.state.confirmed() != Some(block) || job.confirmed_by != Some(txid);
                    (is_news.then_some(Event::Confirmed { txid, block }), Some(block))
                }
                Some(Fate::Swept(txid, block)) => {
                    let is_news = job.state != JobState::Reclaimed(block);
                    (is_news.then_some(Event::Reclaimed { txid, block }), Some(block))
                }
                None => {
                    let was_in_chain = matches!(job.state, JobState::Confirmed(_) | JobState::Reclaimed(_));
                    (was_in_chain.then_some(Event::Undone), None)
                }
            };
            shown.extend(event.map(|event| (job.id, event)));
            let is_over = match (block, &job.state) {
                (Some(block), _) => tip + 1 >= block.height + journal::FINAL_DEPTH,
                (None, JobState::Abandoned(_)) => {
                    let first = job.current().and_then(|current| current.transactions.first());
                    first.is_some_and(|tx| self.is_conflicted(tx, &buried))
                }
                _ => false,
            };
            if is_over && self.unsettled_sweeps(job, &buried).next().is_none() {
                shown.push((job.id, Event::Final));
            }
        }
        self.save_with(|db| shown.iter().try_for_each(|(job, event)| journal::append(db, *job, event, unix_now())))
    }

    /// What the chain has made of a job. The outputs that its envelope locks decide: spent by the leaf, it
    /// is revealed, whichever of its transactions that was; spent by key, it was swept back. Sweeps of what was paid
    /// too late decide nothing.
    fn fate(&self, job: &Job, locked: &BTreeSet<OutPoint>, confirmed: &BTreeMap<Txid, BlockRef>) -> Option<Fate> {
        let carried = job.generations.iter().filter_map(Generation::carrier_tx).map(Transaction::compute_txid);
        if let Some((txid, block)) = carried.filter_map(|txid| Some((txid, *confirmed.get(&txid)?))).next() {
            return Some(Fate::Revealed(txid, block));
        }
        let graph = self.bdk.tx_graph();
        let late: BTreeSet<Txid> = job.sweeps.iter().map(Transaction::compute_txid).collect();
        let mut swept = None;
        for outpoint in locked.iter().copied() {
            for txid in graph.outspends(outpoint).iter().filter(|txid| !late.contains(*txid)) {
                let (Some(block), Some(tx)) = (confirmed.get(txid), graph.get_tx(*txid)) else { continue };
                let by_key = |input: &TxIn| input.witness.len() == 1;
                match tx.input.iter().find(|input| input.previous_output == outpoint).map(by_key) {
                    Some(false) => return Some(Fate::Revealed(*txid, *block)),
                    _ => swept = Some(Fate::Swept(*txid, *block)),
                }
            }
        }
        swept
    }

    /// The sweeps of late payments that are not in the chain, and can still get there.
    pub(crate) fn unsettled_sweeps<'a>(
        &self,
        job: &'a Job,
        confirmed: &BTreeMap<Txid, BlockRef>,
    ) -> impl Iterator<Item = &'a Transaction> {
        let is_settled = |tx: &Transaction| confirmed.contains_key(&tx.compute_txid()) || self.is_lost(tx, confirmed);
        job.standing_sweeps().filter(move |tx| !is_settled(tx))
    }
}

/// What of the chain matters to jobs: envelopes' outputs, and whatever spends them.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub scripts: BTreeSet<ScriptBuf>,
    pub outpoints: BTreeSet<OutPoint>,
    /// Whether one of the scripts may be paid at any moment.
    pub awaits_payment: bool,
}

impl Watch {
    pub fn is_empty(&self) -> bool {
        self.scripts.is_empty() && self.outpoints.is_empty()
    }

    /// Whether a transaction matters; what spends its outputs will, then.
    pub fn concerns(&mut self, tx: &Transaction) -> bool {
        if self.is_empty() {
            return false;
        }
        let spends = tx.input.iter().any(|input| self.outpoints.contains(&input.previous_output));
        let paid: Vec<u32> = (0..)
            .zip(&tx.output)
            .filter(|(_, out)| self.scripts.contains(&out.script_pubkey))
            .map(|(n, _)| n)
            .collect();
        if paid.is_empty() {
            return spends;
        }
        let txid = tx.compute_txid();
        self.outpoints.extend(paid.into_iter().map(|vout| OutPoint::new(txid, vout)));
        true
    }
}

/// What the chain has made of a job, by which transaction and in which block.
enum Fate {
    Revealed(Txid, BlockRef),
    Swept(Txid, BlockRef),
}

/// A payment to an envelope.
#[derive(Clone, Debug)]
pub(crate) struct Paid {
    pub outpoint: OutPoint,
    pub output: TxOut,
    pub is_confirmed: bool,
    /// Whether a transaction of the job spends it.
    pub is_taken: bool,
    /// Whether a transaction that waits for a block spends it.
    pub is_leaving: bool,
}
