//! A publication that waits too long pays more.
//!
//! In this order: the transaction that carries the payload is replaced (BIP 125), paid from its own
//! change; from its change and another coin of the wallet; and where replacing it is not possible, a child
//! that spends its change pays for both. The commit is never replaced, because its reveal would be lost
//! with it; its rate counts together with its reveal's.

use super::plan::Envelope;
use super::send::{absent, objection, push, replace, stand};
use super::spend::{Ancestors, fee_of, paid_by, sign_reveal, to_replace};
use super::{PublishError, fees, load, short};
use crate::chain::Mempool;
use crate::primitives::BlockRef;
use crate::queue::Place;
use crate::wallet::{
    Caps, Coin, Event, FeeCap, Generation, Job, JobId, JobState, Shortfall, Wallet, fee_for, inputs_of, journal,
    key_spend, outputs_of, rate_of, select, transaction, vsize,
};
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How a publication was made to pay more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bump {
    /// It paid the rate already; what was missing in the mempool was sent again.
    Enough,
    /// Replaced, paid from its own change.
    Replaced,
    /// Replaced, paid from another coin as well.
    ReplacedWithCoin,
    /// A child that spends its change pays for it.
    Child,
}

/// A publication that pays more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bumped {
    /// The job.
    pub job: JobId,
    /// How.
    pub how: Bump,
    /// Fee of all its transactions before.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub fee_before: Amount,
    /// Fee of all its transactions now.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub fee: Amount,
    /// Virtual size of all its transactions now.
    pub vsize: u64,
    /// The transaction that was replaced.
    pub replaced: Option<Txid>,
    /// All transactions now, in order.
    pub txids: Vec<Txid>,
    /// Where the payload stood.
    pub place_before: Place,
    /// Where it stands now: another place if its transaction was replaced.
    pub place: Place,
}

/// Brings a publication to `rate`, together with everything unconfirmed that it hangs on. Sync first.
///
/// # Errors
/// [`PublishError::NotBumpable`] if there is nothing to bump, [`PublishError::FeeCap`] before anything is
/// signed, [`PublishError::Stuck`] if the node refuses every way: then, where it can be told before, it stands as it
/// stood.
pub fn bump(
    wallet: &mut Wallet,
    node: &impl Mempool,
    id: JobId,
    rate: FeeRate,
    caps: &Caps,
) -> Result<Bumped, PublishError> {
    raise(wallet, node, id, rate, caps, &[])
}

/// As [`bump`]; `also` is written down together with what is signed, if anything is.
pub(super) fn raise(
    wallet: &mut Wallet,
    node: &impl Mempool,
    id: JobId,
    rate: FeeRate,
    caps: &Caps,
    also: &[Event],
) -> Result<Bumped, PublishError> {
    let job = load(wallet, id)?;
    let job = stand(wallet, &job)?.unwrap_or(job);
    let refuse = |why: String| Err(PublishError::NotBumpable { job: id, why });
    let (JobState::Signed | JobState::CommitSent | JobState::RevealSent, Some(current)) = (&job.state, job.current())
    else {
        let hint = if job.state == JobState::Reclaiming { "; `sortie reclaim` again with a higher rate" } else { "" };
        return refuse(format!("it is {}{hint}", job.state));
    };
    let relay = fees::relay(node)?;
    fees::check_floor(rate, relay.floor)?;
    let stage = Stage { node, rate, job: &job, current, confirmed: wallet.confirmed() };
    if stage.pays_enough(wallet)? {
        return leave(wallet, node, &job, current, Bump::Enough, None);
    }
    let child = current.child().map(Transaction::compute_txid);
    let built_on = current.change.filter(|_| child.is_none()).and_then(|change| wallet.spender(change));
    if let Some(spender) = built_on {
        return refuse(match job_of(wallet, spender)? {
            Some(id) => format!("job {id} is paid from its change; `sortie bump {id}`: its fee counts for both"),
            None => {
                format!("transaction {spender}, which is no job's, is paid from its change: its fee counts for both")
            }
        });
    }
    let replaced = to_replace(node, &job)?;
    let mut refused = None;
    if child.is_none() {
        let least = replaced.map(|(_, fee)| (fee, relay.incremental));
        let (generation, how) = loop {
            let (generation, how) = stage.replacement(wallet, least, caps).map_err(|error| short(wallet, error))?;
            if wallet.are_there(node, &stage.added(&generation))? {
                break (generation, how);
            }
        };
        match stage.refusal(wallet, &generation)? {
            None => return adopt(wallet, node, &job, (generation, also), how, replaced.map(|(txid, _)| txid)),
            refusal => refused = refusal,
        }
    }
    let stuck = |(txid, reason)| PublishError::Stuck { job: id, txid, reason };
    let Some(change) = stage.change_outpoint().filter(|_| job.refund.is_none()) else {
        return Err(refused.map_or(
            PublishError::NotBumpable {
                job: id,
                why: "it has no change of this wallet that a child could spend".into(),
            },
            stuck,
        ));
    };
    if child.is_none() && !wallet.are_there(node, &[change])? {
        return refuse("a transaction that is not in this journal spends its change".into());
    }
    let generation = loop {
        let generation =
            stage.with_child(wallet, change, relay.incremental, caps).map_err(|error| short(wallet, error))?;
        if wallet.are_there(node, &stage.added(&generation))? {
            break generation;
        }
    };
    match stage.refusal(wallet, &generation)? {
        None => adopt(wallet, node, &job, (generation, also), Bump::Child, child),
        Some(refusal) => Err(stuck(refused.unwrap_or(refusal))),
    }
}

/// What a job's transactions weigh and pay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Package {
    /// Fee and virtual size of the job's own, mined or not: what caps are about.
    own: (Amount, u64),
    /// Fee and virtual size of those that are not mined, with everything unconfirmed that they hang on: what miners
    /// look at.
    waiting: (Amount, u64),
}

impl Package {
    /// What miners see it pay.
    pub fn rate(&self) -> FeeRate {
        let (fee, vsize) = self.waiting;
        rate_of(fee, vsize)
    }

    /// The highest rate to which the caps let it be raised.
    pub fn highest_rate(&self, caps: &Caps) -> Option<FeeRate> {
        let ((own_fee, own), (fee, vsize)) = (self.own, self.waiting);
        if vsize == own {
            return caps.highest_rate(own);
        }
        let by_rate = caps.max_fee_rate.map(|rate| fee_for(rate, own));
        let most = [by_rate, caps.max_fee].into_iter().flatten().min()?;
        let more = most.checked_sub(own_fee).unwrap_or(Amount::ZERO);
        Caps { max_fee: Some(fee + more), max_fee_rate: None }.highest_rate(vsize)
    }

    /// Checks what it would pay when it is raised to `rate`.
    pub fn check(&self, caps: &Caps, rate: FeeRate) -> Result<(), FeeCap> {
        let ((own_fee, own), (fee, vsize)) = (self.own, self.waiting);
        let more = fee_for(rate, vsize).checked_sub(fee).unwrap_or(Amount::ZERO);
        caps.check(own_fee + more, own)
    }
}

/// What a job's transactions weigh and pay; nothing, before they are signed.
pub(super) fn weigh(wallet: &Wallet, node: &impl Mempool, job: &Job) -> Result<Package, PublishError> {
    let nothing = (Amount::ZERO, 0);
    let Some((current, last)) = job.current().and_then(|current| Some((current, current.transactions.last()?))) else {
        return Ok(Package { own: nothing, waiting: nothing });
    };
    let ancestors = Ancestors::of(wallet, node, &wallet.confirmed(), &current.transactions, last)?;
    let fee = last_fee(wallet, current).unwrap_or(Amount::ZERO);
    Ok(Package { own: (current.fee, current.vsize), waiting: (ancestors.fee + fee, ancestors.vsize + vsize(last)) })
}

/// What the last transaction of a generation pays.
fn last_fee(wallet: &Wallet, current: &Generation) -> Option<Amount> {
    match current.child() {
        Some(child) => paid_by(wallet, &current.transactions, child),
        None => fee_of(current.transactions.last()?, &current.spent),
    }
}

/// A job that is to pay more, and what is known of it.
struct Stage<'a, N> {
    node: &'a N,
    rate: FeeRate,
    job: &'a Job,
    current: &'a Generation,
    confirmed: Arc<BTreeMap<Txid, BlockRef>>,
}

impl<N: Mempool> Stage<'_, N> {
    fn carrier(&self) -> Result<&Transaction, PublishError> {
        self.current.carrier_tx().ok_or(PublishError::Broken("a generation without its payload"))
    }

    fn ancestors(&self, wallet: &Wallet, tx: &Transaction) -> Result<Ancestors, PublishError> {
        Ok(Ancestors::of(wallet, self.node, &self.confirmed, &self.current.transactions, tx)?)
    }

    /// Whether its last transaction brings everything to the rate that is asked for.
    fn pays_enough(&self, wallet: &Wallet) -> Result<bool, PublishError> {
        let last = self.current.transactions.last().ok_or(PublishError::Broken("a generation without transactions"))?;
        let fee = last_fee(wallet, self.current).unwrap_or(Amount::ZERO);
        Ok(fee >= self.ancestors(wallet, last)?.fee_with(self.rate, vsize(last)))
    }

    /// The coins that a generation spends beside those of the one that stands.
    fn added(&self, generation: &Generation) -> Vec<OutPoint> {
        let inputs = |generation: &Generation| generation.transactions.iter().flat_map(inputs_of).collect();
        let (spent, mut added): (BTreeSet<OutPoint>, BTreeSet<OutPoint>) = (inputs(self.current), inputs(generation));
        // A child's first input is change of the generation itself.
        added.retain(|coin| !spent.contains(coin) && !generation.txids().contains(&coin.txid));
        added.into_iter().collect()
    }

    /// The output of the carrying transaction that pays the wallet back.
    fn change_outpoint(&self) -> Option<OutPoint> {
        let carrier = self.current.carrier_tx()?;
        match self.current.child() {
            Some(child) => child.input.first().map(|input| input.previous_output),
            None => self.current.change.filter(|change| change.txid == carrier.compute_txid()),
        }
    }

    /// The carrying transaction again, paying more: from its change, or from another coin as well.
    ///
    /// `least`: the fee that is replaced, and the rate that a replacement pays on top.
    fn replacement(
        &self,
        wallet: &Wallet,
        least: Option<(Amount, FeeRate)>,
        caps: &Caps,
    ) -> Result<(Generation, Bump), PublishError> {
        let old = self.carrier()?;
        let change = self.change_outpoint().and_then(|change| old.output.get(change.vout as usize)).cloned();
        let fixed: Vec<TxOut> = old.output.iter().filter(|output| Some(*output) != change.as_ref()).cloned().collect();
        let ancestors = self.ancestors(wallet, old)?;
        let fee_for_size = |size| {
            let least = least.map_or(Amount::ZERO, |(replaced, incremental)| replaced + fee_for(incremental, size));
            ancestors.fee_with(self.rate, size).max(least)
        };
        let draft = |coins: &[Coin], back: &[TxOut]| {
            let mut tx = old.clone();
            tx.input.extend(coins.iter().map(|coin| key_spend(coin.outpoint)));
            tx.output = [fixed.as_slice(), back].concat();
            tx
        };
        let spent: Amount = self.current.spent.iter().map(|output| output.value).sum();
        let kept: Amount = fixed.iter().map(|output| output.value).sum();

        // From its own change.
        if let Some(back) = &change {
            let mut tx = draft(&[], std::slice::from_ref(back));
            let value = spent.checked_sub(kept + fee_for_size(vsize(&tx)));
            if let Some(value) = value.filter(|value| *value >= back.script_pubkey.minimal_non_dust()) {
                tx.output.iter_mut().filter(|output| *output == back).for_each(|output| output.value = value);
                return Ok((self.signed(wallet, tx, &[], Some(&back.script_pubkey), caps)?, Bump::Replaced));
            }
        }
        // With another coin. What comes back belongs to the wallet; a refund that was due stays as it is.
        let refund: Vec<TxOut> = change.iter().filter(|_| self.job.refund.is_some()).cloned().collect();
        let refunded: Amount = refund.iter().map(|output| output.value).sum();
        let script = match (&change, &self.job.refund) {
            (Some(back), None) => back.script_pubkey.clone(),
            _ => wallet.next_change(),
        };
        let dust = script.minimal_non_dust();
        let back = |value| [refund.clone(), vec![TxOut { value, script_pubkey: script.clone() }]].concat();
        let fee_with = |coins: usize| fee_for_size(vsize(&draft(&vec![Coin::ample(); coins], &back(dust))));
        let coins = addable(wallet, old)?;
        let needed = |n: usize| kept + refunded + dust + fee_with(n);
        match select(&coins, None, |n| needed(n).checked_sub(spent).unwrap_or(Amount::ZERO).max(Amount::from_sat(1))) {
            Ok(coins) => {
                let added: Amount = coins.iter().map(|coin| coin.value).sum();
                let value = spent + added - kept - refunded - fee_with(coins.len());
                let tx = draft(&coins, &back(value));
                Ok((self.signed(wallet, tx, &coins, Some(&script), caps)?, Bump::ReplacedWithCoin))
            }
            // Without change: all of it goes to the fee.
            Err(shortfall) => {
                let tx = draft(&[], &[]);
                let fee = spent.checked_sub(kept).unwrap_or(Amount::ZERO);
                if tx.output.is_empty() || fee < fee_for_size(vsize(&tx)) {
                    let available = spent + shortfall.available;
                    return Err(Shortfall { needed: needed(coins.len().max(1)), available }.into());
                }
                Ok((self.signed(wallet, tx, &[], None, caps)?, Bump::Replaced))
            }
        }
    }

    /// Checks the caps, then signs.
    fn signed(
        &self,
        wallet: &Wallet,
        mut tx: Transaction,
        coins: &[Coin],
        change: Option<&ScriptBuf>,
        caps: &Caps,
    ) -> Result<Generation, PublishError> {
        let old = self.carrier()?;
        let spent = [self.current.spent.clone(), outputs_of(coins)].concat();
        let mut transactions = self.current.transactions[..self.current.carrying].to_vec();
        let parents: u64 = transactions.iter().map(vsize).sum();
        let fee_of =
            |tx, spent| fee_of(tx, spent).ok_or(PublishError::Broken("a transaction that gives what it has not"));
        let fee = self.current.fee + fee_of(&tx, &spent)? - fee_of(old, &self.current.spent)?;
        let size = parents + vsize(&tx);
        caps.check(fee, size)?;
        match self.job.key_index {
            None => wallet.sign(&mut tx, &spent)?,
            Some(key_index) => {
                sign_reveal(wallet, &mut tx, &spent, &Envelope::of(wallet, &self.job.payload, key_index)?)?;
            }
        }
        if parents + vsize(&tx) != size {
            return Err(PublishError::Broken("a signed transaction is not the planned one"));
        }
        let vout = tx.output.iter().rposition(|output| Some(&output.script_pubkey) == change);
        let change = vout.and_then(|n| u32::try_from(n).ok()).map(|vout| OutPoint::new(tx.compute_txid(), vout));
        transactions.push(tx);
        Ok(Generation { transactions, carrying: self.current.carrying, spent, fee, vsize: size, change })
    }

    /// The same transactions, and a child that spends the change and pays for all.
    fn with_child(
        &self,
        wallet: &Wallet,
        change: OutPoint,
        incremental: FeeRate,
        caps: &Caps,
    ) -> Result<Generation, PublishError> {
        let carrier = self.carrier()?;
        let output = carrier.output.get(change.vout as usize).cloned();
        let output = output.ok_or(PublishError::Broken("change that is no output"))?;
        let before = &self.current.transactions[..=self.current.carrying];
        let replaced = match self.current.child().map(Transaction::compute_txid) {
            Some(child) => self.node.entry(&child)?.map(|entry| entry.descendants_fee),
            None => None,
        };
        let script = match self.current.child().and_then(|child| child.output.first()) {
            Some(output) => output.script_pubkey.clone(),
            None => wallet.next_change(),
        };
        let dust = script.minimal_non_dust();
        let draft = |coins: &[Coin], value| {
            let inputs = std::iter::once(change).chain(coins.iter().map(|coin| coin.outpoint)).map(key_spend);
            transaction(inputs.collect(), vec![TxOut { value, script_pubkey: script.clone() }])
        };
        let ancestors = self.ancestors(wallet, &draft(&[], dust))?;
        let fee_with = |coins: usize| {
            let size = vsize(&draft(&vec![Coin::ample(); coins], dust));
            let least = replaced.map_or(Amount::ZERO, |fee| fee + fee_for(incremental, size));
            ancestors.fee_with(self.rate, size).max(least)
        };
        let coins = addable(wallet, carrier)?;
        let coins = match output.value >= fee_with(0) + dust {
            true => Vec::new(),
            false => select(&coins, None, |n| {
                (fee_with(n) + dust).checked_sub(output.value).unwrap_or(Amount::ZERO).max(Amount::from_sat(1))
            })?,
        };
        let child_fee = fee_with(coins.len());
        let total = output.value + coins.iter().map(|coin| coin.value).sum::<Amount>();
        let mut child = draft(&coins, total - child_fee);
        let old_child = self.current.child().and_then(|child| paid_by(wallet, &self.current.transactions, child));
        let fee = self.current.fee - old_child.unwrap_or(Amount::ZERO) + child_fee;
        let size = before.iter().map(vsize).sum::<u64>() + vsize(&child);
        caps.check(fee, size)?;
        wallet.sign(&mut child, &[vec![output], outputs_of(&coins)].concat())?;
        let change = Some(OutPoint::new(child.compute_txid(), 0));
        let transactions = [before, &[child]].concat();
        let (carrying, spent) = (self.current.carrying, self.current.spent.clone());
        Ok(Generation { transactions, carrying, spent, fee, vsize: size, change })
    }

    /// What the node says against a generation.
    fn refusal(&self, wallet: &Wallet, generation: &Generation) -> Result<Option<(Txid, String)>, PublishError> {
        Ok(objection(wallet, self.node, &absent(self.node, &generation.transactions, &self.confirmed)?)?)
    }
}

/// The coins that can be added to what pays for `carrier`: its replacement may not hang on anything unconfirmed that
/// `carrier` does not hang on (BIP 125); a commit's own change hangs on nothing else.
fn addable(wallet: &Wallet, carrier: &Transaction) -> Result<Vec<Coin>, PublishError> {
    let is_parent = |txid: Txid| carrier.input.iter().any(|input| input.previous_output.txid == txid);
    let mut coins = wallet.coins()?;
    coins.retain(|coin| coin.confirmations > 0 || is_parent(coin.outpoint.txid));
    Ok(coins)
}

/// Whose transaction it is.
pub(super) fn job_of(wallet: &Wallet, txid: Txid) -> Result<Option<JobId>, PublishError> {
    let jobs = journal::all(wallet.db())?;
    Ok(jobs.into_iter().find(|job| job.txids().contains(&txid)).map(|job| job.id))
}

/// Writes a generation down as the one that stands, and sends it.
fn adopt(
    wallet: &mut Wallet,
    node: &impl Mempool,
    job: &Job,
    (generation, also): (Generation, &[Event]),
    how: Bump,
    replaced: Option<Txid>,
) -> Result<Bumped, PublishError> {
    let old = job.current().ok_or(PublishError::Broken("a job without transactions"))?.clone();
    let job = replace(wallet, job, generation, also)?;
    leave(wallet, node, &job, &old, how, replaced)
}

fn leave(
    wallet: &mut Wallet,
    node: &impl Mempool,
    job: &Job,
    before: &Generation,
    how: Bump,
    replaced: Option<Txid>,
) -> Result<Bumped, PublishError> {
    push(wallet, node, job)?;
    let missing = || PublishError::Broken("a job without transactions");
    let current = job.current().ok_or_else(missing)?;
    let place = job.place().ok_or_else(missing)?;
    let place_before = Place { txid: before.carrier_tx().ok_or_else(missing)?.compute_txid(), ..place };
    Ok(Bumped {
        job: job.id,
        how,
        fee_before: before.fee,
        fee: current.fee,
        vsize: current.vsize,
        replaced,
        txids: current.txids(),
        place_before,
        place,
    })
}
