//! Spending an envelope's outputs: by the leaf, which reveals the payload, or by key, which sweeps them back.

use super::PublishError;
use super::plan::Envelope;
use super::send::fee_of;
use crate::chain::{ChainError, Mempool};
use crate::primitives::BlockRef;
use crate::wallet::{Job, Wallet, fee_for, vsize};
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::secp256k1::Message;
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash};
use bitcoin::{Amount, FeeRate, ScriptBuf, TapNodeHash, Transaction, TxOut, Txid, Witness, taproot};
use std::collections::{BTreeMap, BTreeSet};

/// Signs a transaction whose first input reveals `payload`; other inputs of the envelope and those of the
/// wallet are spent by key.
pub(super) fn sign_reveal(
    wallet: &Wallet,
    tx: &mut Transaction,
    spent: &[TxOut],
    payload: &[u8],
    key_index: u32,
) -> Result<(), PublishError> {
    let envelope = Envelope::of(wallet, payload, key_index)?;
    sign_by_key(wallet, tx, spent, key_index, envelope.tree.merkle_root())?;
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
    fee: Amount,
    vsize: u64,
}

impl Ancestors {
    /// Those of `tx`; `among` are the job's own, which the node may not have.
    pub fn of(
        wallet: &Wallet,
        node: &impl Mempool,
        confirmed: &BTreeMap<Txid, BlockRef>,
        among: &[Transaction],
        tx: &Transaction,
    ) -> Result<Self, ChainError> {
        let parents: BTreeSet<Txid> = tx.input.iter().map(|input| input.previous_output.txid).collect();
        let mut sum = Self::default();
        for parent in parents.iter().filter(|parent| !confirmed.contains_key(*parent)) {
            if let Some(entry) = node.entry(parent)? {
                sum.fee += entry.ancestors_fee;
                sum.vsize += entry.ancestors_vsize;
            } else if let Some(absent) = among.iter().find(|tx| tx.compute_txid() == *parent) {
                sum.fee += fee_of(wallet, among, absent);
                sum.vsize += vsize(absent);
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
