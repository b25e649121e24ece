//! What the wallet holds, and what of it may be spent.
//!
//! Guarantees: a coin that a job or a payment has taken is not offered to another, whether or not anything of it has
//! left; of what is unconfirmed, only change of transactions that nobody else can take back.

use super::seed::Branch;
use super::{Coin, Job, JobId, JobState, Shortfall, Wallet, WalletError, check_witness, inputs_of, journal, payment};
use crate::chain::{ChainError, Mempool};
use bdk_wallet::KeychainKind;
use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid};
use std::collections::BTreeSet;

/// Confirmations before a coinbase output can be spent.
pub(super) const COINBASE_MATURITY: u32 = 100;

/// What the wallet holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Confirmed and spendable.
    pub confirmed: Amount,
    /// Unconfirmed change of our own transactions: spendable.
    pub change: Amount,
    /// Unconfirmed payments by others: spendable once confirmed.
    pub incoming: Amount,
    /// Mined coins younger than 100 blocks.
    pub immature: Amount,
}

impl Balance {
    /// Everything.
    pub fn total(&self) -> Amount {
        total([self.confirmed, self.change, self.incoming, self.immature])
    }
}

/// The sum, but no more than all money: somebody may have made the amounts up.
pub(crate) fn total(amounts: impl IntoIterator<Item = Amount>) -> Amount {
    let add = |sum: Amount, more| sum.checked_add(more).map_or(Amount::MAX_MONEY, |sum| sum.min(Amount::MAX_MONEY));
    amounts.into_iter().fold(Amount::ZERO, add)
}

/// What is to be signed elsewhere spends its coins already.
fn reserved_by(job: &Job) -> BTreeSet<OutPoint> {
    let draft = job.draft.as_ref().filter(|_| job.state == JobState::Planned);
    draft.into_iter().flat_map(|draft| &draft.transactions).flat_map(inputs_of).collect()
}

impl Wallet {
    /// What the wallet holds.
    pub fn balance(&self) -> Balance {
        let mut balance = Balance::default();
        for coin in self.unspent() {
            let part = match (coin.confirmations, coin.branch) {
                _ if !coin.is_mature => &mut balance.immature,
                (0, Branch::Change) => &mut balance.change,
                (0, _) => &mut balance.incoming,
                _ => &mut balance.confirmed,
            };
            *part = total([*part, coin.value]);
        }
        balance
    }

    /// What jobs whose transactions are to be signed elsewhere hold back, by job: part of the balance, and not
    /// spendable.
    pub fn reserved(&self) -> Result<Vec<(JobId, Amount)>, WalletError> {
        let (jobs, coins) = (journal::watched(&self.db)?, self.unspent());
        let held = |job: &Job| -> Amount {
            let inputs = reserved_by(job);
            total(coins.iter().filter(|coin| inputs.contains(&coin.outpoint)).map(|coin| coin.value))
        };
        Ok(jobs.iter().map(|job| (job.id, held(job))).filter(|(_, held)| *held > Amount::ZERO).collect())
    }

    /// The coins that may be spent: confirmed ones, and unconfirmed change of what was sent.
    pub fn coins(&self) -> Result<Vec<Coin>, WalletError> {
        let jobs = journal::watched(&self.db)?;
        // Change of a transaction that has perhaps not left cannot pay for another.
        let mut unsent: BTreeSet<Txid> = jobs.iter().filter(|job| !job.has_left).flat_map(Job::txids).collect();
        unsent.extend(payment::pending(&self.db)?.iter().map(|pending| pending.tx.compute_txid()));
        let reserved: BTreeSet<OutPoint> = jobs.iter().flat_map(reserved_by).collect();
        let for_bump = jobs.iter().filter(|job| job.state.is_unfinished()).filter_map(|job| job.current()?.change);
        let for_bump: BTreeSet<OutPoint> = for_bump.collect();
        // Anybody can pay to a change address, and take that back until it is mined. Whoever shows it may have made it
        // up.
        let signed: BTreeSet<Txid> = jobs
            .iter()
            .flat_map(|job| job.all_txids().chain(job.sweeps.iter().map(Transaction::compute_txid)))
            .collect();
        let spends_own_only = |tx: &Transaction| {
            let spent: Option<Vec<_>> = tx.input.iter().map(|input| self.output(&input.previous_output)).collect();
            let is_signed = |spent: &[TxOut]| {
                let mut inputs = tx.input.iter().enumerate();
                inputs.all(|(n, input)| check_witness(self.secp(), tx, n, spent, &input.witness).is_ok())
            };
            tx.input.iter().all(|input| self.is_own(input)) && spent.is_some_and(|spent| is_signed(&spent))
        };
        let is_ours =
            |txid: &Txid| signed.contains(txid) || self.transaction(*txid).is_some_and(|tx| spends_own_only(&tx));
        let mut coins = self.unspent();
        coins.iter_mut().for_each(|coin| coin.for_bump = for_bump.contains(&coin.outpoint));
        coins.retain(|coin| {
            let ours = coin.confirmations > 0 || (coin.branch == Branch::Change && is_ours(&coin.outpoint.txid));
            let has_left = coin.confirmations > 0 || !unsent.contains(&coin.outpoint.txid);
            ours && has_left && coin.is_mature && !reserved.contains(&coin.outpoint)
        });
        coins.sort_by_key(|coin| coin.outpoint);
        Ok(coins)
    }

    /// A certain coin, whether or not the wallet would choose it by itself.
    pub(crate) fn coin(&self, outpoint: OutPoint) -> Result<Coin, WalletError> {
        let found = self.unspent().into_iter().find(|coin| coin.outpoint == outpoint && coin.is_mature);
        found.ok_or(WalletError::UnknownCoin(outpoint))
    }

    /// Asks whether coins can still be spent, and sets those aside that cannot. Returns whether all can.
    ///
    /// The wallet may not have seen it: another copy of it spends them in a mempool that was not read whole, and what
    /// spends them once more would replace that.
    pub(crate) fn are_there(&mut self, node: &impl Mempool, coins: &[OutPoint]) -> Result<bool, ChainError> {
        let confirmed = self.confirmed();
        let before = self.missing.len();
        for coin in node.missing(coins)? {
            // Change that was forgotten together with what pays it is there again once that is.
            let is_mined = confirmed.contains_key(&coin.txid) || self.transaction(coin.txid).is_none();
            if is_mined || node.is_waiting(&coin.txid)? {
                self.missing.insert(coin);
            }
        }
        Ok(self.missing.len() == before)
    }

    /// Sets aside those of a refused transaction's coins that are not there; all of them, if nobody says which.
    pub(crate) fn set_aside(&mut self, node: &impl Mempool, coins: &[OutPoint]) -> Result<(), ChainError> {
        let missing = node.missing(coins)?;
        self.missing.extend(if missing.is_empty() { coins.to_vec() } else { missing });
        Ok(())
    }

    /// Why a payment is not possible: coins that were set aside may be all that it lacks.
    pub(crate) fn short(&self, shortfall: Shortfall) -> WalletError {
        let values = self.missing.iter().filter_map(|coin| self.output(coin)).map(|output| output.value);
        match total(values) {
            Amount::ZERO => shortfall.into(),
            spent => WalletError::SpentElsewhere { shortfall, spent },
        }
    }

    /// All coins, spendable now or not.
    pub(super) fn unspent(&self) -> Vec<Coin> {
        let tip = self.synced_to().height;
        let whole = self.bdk.list_unspent().map(|output| {
            let height = output.chain_position.confirmation_height_upper_bound();
            let confirmations = height.map_or(0, |h| (tip + 1).saturating_sub(h));
            let coinbase = self.transaction(output.outpoint.txid).is_some_and(|tx| tx.is_coinbase());
            let is_mature = !coinbase || confirmations >= COINBASE_MATURITY;
            self.coin_of(output.outpoint, output.txout, output.keychain, confirmations, is_mature)
        });
        whole.chain(self.bare_coins()).filter(|coin| !self.missing.contains(&coin.outpoint)).collect()
    }

    pub(super) fn coin_of(
        &self,
        outpoint: OutPoint,
        output: TxOut,
        keychain: KeychainKind,
        confirmations: u32,
        is_mature: bool,
    ) -> Coin {
        Coin {
            outpoint,
            value: output.value,
            confirmations,
            is_mature,
            for_bump: false,
            script_pubkey: output.script_pubkey,
            placeholder: self.placeholder.clone(),
            branch: Branch::of(keychain),
        }
    }
}
