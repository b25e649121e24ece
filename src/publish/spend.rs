//! Spending an envelope's outputs: by the leaf, which reveals the payload, or by key, which sweeps them back.

use super::PublishError;
use super::plan::Envelope;
use crate::chain::{ChainError, Mempool};
use crate::primitives::BlockRef;
use crate::wallet::{Job, Wallet, fee_for, rate_of, vsize};
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::secp256k1::Message;
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash};
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, TapNodeHash, Transaction, TxIn, TxOut, Txid, Witness, taproot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Signs a transaction whose first input reveals an envelope's payload; other inputs of the envelope and those of the
/// wallet are spent by key.
pub(super) fn sign_reveal(
    wallet: &Wallet,
    tx: &mut Transaction,
    spent: &[TxOut],
    envelope: &Envelope,
) -> Result<(), PublishError> {
    let key_index = envelope.key_index;
    sign_by_key(wallet, tx, spent, key_index, envelope.merkle_root())?;
    let leaf = TapLeafHash::from_script(&envelope.leaf, LeafVersion::TapScript);
    let hash = SighashCache::new(&*tx)
        .taproot_script_spend_signature_hash(0, &Prevouts::All(spent), leaf, TapSighashType::Default)
        .map_err(|_| PublishError::Broken("the reveal cannot be hashed"))?;
    let keys = wallet.keys()?;
    let signature = keys.secp().sign_schnorr(&Message::from(hash), &keys.reveal(key_index)?);
    let witness = envelope.witness(signature.as_ref())?;
    if let Some(input) = tx.input.first_mut() {
        input.witness = witness;
    }
    Ok(())
}

/// Signs every input by key: the envelope's with the tweaked reveal key, and the wallet's own.
pub(super) fn sign_by_key(
    wallet: &Wallet,
    tx: &mut Transaction,
    spent: &[TxOut],
    key_index: u32,
    merkle_root: Option<TapNodeHash>,
) -> Result<(), PublishError> {
    wallet.sign(tx, spent)?;
    let keys = wallet.keys()?;
    let key: Keypair = keys.reveal(key_index)?.tap_tweak(keys.secp(), merkle_root).to_keypair();
    let script = output_script(wallet, key_index, merkle_root)?;
    for (input, _) in spent.iter().enumerate().filter(|(_, output)| output.script_pubkey == script) {
        let hash = SighashCache::new(&*tx)
            .taproot_key_spend_signature_hash(input, &Prevouts::All(spent), TapSighashType::Default)
            .map_err(|_| PublishError::Broken("the spend cannot be hashed"))?;
        let signature = keys.secp().sign_schnorr(&Message::from(hash), &key);
        let signature = taproot::Signature { signature, sighash_type: TapSighashType::Default };
        if let Some(input) = tx.input.get_mut(input) {
            input.witness = Witness::p2tr_key_spend(&signature);
        }
    }
    Ok(())
}

/// The script of an envelope's output.
pub(super) fn output_script(
    wallet: &Wallet,
    key_index: u32,
    merkle_root: Option<TapNodeHash>,
) -> Result<ScriptBuf, PublishError> {
    Ok(ScriptBuf::new_p2tr(wallet.secp(), wallet.reveal_key(key_index)?, merkle_root))
}

/// Fee and virtual size of the unconfirmed transactions that a spend hangs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ancestors {
    pub fee: Amount,
    pub vsize: u64,
}

impl Ancestors {
    /// Those of `tx`; `among` are the job's own. The node is asked only about others': what ours weigh and pay is
    /// known, and no server can make them dearer.
    pub fn of(
        wallet: &Wallet,
        node: &impl Mempool,
        confirmed: &BTreeMap<Txid, BlockRef>,
        among: &[Transaction],
        tx: &Transaction,
    ) -> Result<Self, ChainError> {
        let parents = |tx: &Transaction| tx.input.iter().map(|input| input.previous_output.txid).collect::<Vec<_>>();
        let mut sum = Self::default();
        let mut seen = BTreeSet::new();
        let mut next = parents(tx);
        while let Some(txid) = next.pop() {
            if confirmed.contains_key(&txid) || !seen.insert(txid) {
                continue;
            }
            let own = among.iter().find(|tx| tx.compute_txid() == txid).cloned();
            let known = own.map(Arc::new).or_else(|| wallet.transaction(txid));
            let paid = known.as_deref().and_then(|tx| paid_by(wallet, among, tx));
            if let Some((tx, fee)) = known.zip(paid) {
                sum.fee += fee;
                sum.vsize += vsize(&tx);
                next.extend(parents(&tx));
            } else if let Some(entry) = node.entry(&txid)? {
                sum.fee += entry.ancestors_fee;
                sum.vsize += entry.ancestors_vsize;
            }
        }
        Ok(sum)
    }

    /// The fee with which a transaction of `size` vbytes brings itself and these to `rate`.
    pub fn fee_with(&self, rate: FeeRate, size: u64) -> Amount {
        let together = fee_for(rate, self.vsize + size).checked_sub(self.fee).unwrap_or(Amount::ZERO);
        together.max(fee_for(rate, size))
    }
}

/// What `tx` pays, if everything is known that it spends: whole transactions, and not what somebody says of them.
pub(super) fn paid_by(wallet: &Wallet, among: &[Transaction], tx: &Transaction) -> Option<Amount> {
    let output = |input: &TxIn| {
        let OutPoint { txid, vout } = input.previous_output;
        let own = among.iter().find(|parent| parent.compute_txid() == txid).cloned();
        let parent = own.map(Arc::new).or_else(|| wallet.transaction(txid))?;
        parent.output.get(usize::try_from(vout).ok()?).cloned()
    };
    fee_of(tx, &tx.input.iter().map(output).collect::<Option<Vec<_>>>()?)
}

/// The highest rate that one of these transactions, which the wallet built, pays: the node may accept that, and no
/// more.
pub(super) fn highest_rate(wallet: &Wallet, transactions: &[Transaction]) -> FeeRate {
    let output = |input: &TxIn| {
        let OutPoint { txid, vout } = input.previous_output;
        let own = transactions.iter().find(|parent| parent.compute_txid() == txid);
        own.map_or_else(|| wallet.output(&input.previous_output), |own| own.output.get(vout as usize).cloned())
    };
    let fee = |tx: &Transaction| fee_of(tx, &tx.input.iter().map(output).collect::<Option<Vec<_>>>()?);
    let rates = transactions.iter().filter_map(|tx| Some(rate_of(fee(tx)?, vsize(tx))));
    rates.max().unwrap_or(FeeRate::ZERO)
}

/// What `tx` pays, which spends `spent`; `None` if that is less than it gives.
pub(super) fn fee_of(tx: &Transaction, spent: &[TxOut]) -> Option<Amount> {
    sum(spent)?.checked_sub(sum(&tx.output)?)
}

fn sum(outputs: &[TxOut]) -> Option<Amount> {
    outputs.iter().try_fold(Amount::ZERO, |sum, output| sum.checked_add(output.value))
}

/// What of a job's spends is in the mempool, and the fee that a replacement has to exceed.
pub(super) fn to_replace(node: &impl Mempool, job: &Job) -> Result<Option<(Txid, Amount)>, ChainError> {
    let carriers = job.generations.iter().rev().filter_map(|generation| generation.carrier_tx());
    for tx in carriers.chain(job.reclaims.iter().rev()) {
        let txid = tx.compute_txid();
        if let Some(entry) = node.entry(&txid)? {
            return Ok(Some((txid, entry.descendants_fee)));
        }
    }
    Ok(None)
}
