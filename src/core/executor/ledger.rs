//! The ledger: signed transfers between accounts (specification, section 10).

use super::{Executor, NoOpReason, Route, State};
use crate::codec::{Malformed, Reader, Write};
use crate::manifest::LedgerParameters;
use crate::merkle::merkle_root;
use crate::primitives::{Hash32, RollupId, tagged_hash};
use alloc::vec::Vec;
use bitcoin::XOnlyPublicKey;
use bitcoin::secp256k1::{Keypair, Message, Secp256k1, Signing, schnorr};

/// Length of a transfer, in bytes.
pub const TRANSFER_LEN: usize = 153;

const VERSION: u8 = 1;
const UNSIGNED_LEN: usize = TRANSFER_LEN - 64;

/// An account: the x-only public key that may spend from it.
pub type Account = [u8; 32];

/// What an account holds. Amounts are in satoshis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Balance.
    pub balance: u64,
    /// The nonce that its next transfer must bear.
    pub nonce: u64,
}

/// A transfer before it is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The sender.
    pub from: Account,
    /// The receiver.
    pub to: Account,
    /// Satoshis to the receiver.
    pub amount: u64,
    /// Satoshis to the fee account.
    pub fee: u64,
    /// The sender's nonce; the first is 0.
    pub nonce: u64,
}

/// The ledger of one rollup.
#[derive(Clone, Debug)]
pub struct Ledger {
    rollup_id: RollupId,
    parameters: LedgerParameters,
}

impl Transfer {
    fn unsigned(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TRANSFER_LEN);
        bytes.push(VERSION);
        bytes.put(&self.from);
        bytes.put(&self.to);
        bytes.put(&self.amount.to_le_bytes());
        bytes.put(&self.fee.to_le_bytes());
        bytes.put(&self.nonce.to_le_bytes());
        bytes
    }

    /// The signed transaction's bytes; `keypair` must be the sender's.
    ///
    /// Signs without auxiliary randomness (BIP340's default is optional), so that the same transfer has
    /// the same bytes.
    pub fn sign<C: Signing>(&self, secp: &Secp256k1<C>, rollup_id: &RollupId, keypair: &Keypair) -> Vec<u8> {
        let mut bytes = self.unsigned();
        let signature = secp.sign_schnorr_no_aux_rand(&message(rollup_id, &bytes), keypair);
        bytes.put(&signature.serialize());
        bytes
    }

    /// Reads a transaction's fields, without judging its signature.
    pub fn decode(tx: &[u8]) -> Option<Self> {
        if tx.len() != TRANSFER_LEN {
            return None;
        }
        Self::read(tx).ok()
    }

    fn read(tx: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(tx);
        match reader.u8()? {
            VERSION => Ok(Self {
                from: reader.array()?,
                to: reader.array()?,
                amount: reader.u64()?,
                fee: reader.u64()?,
                nonce: reader.u64()?,
            }),
            _ => Err(Malformed),
        }
    }
}

fn message(rollup_id: &RollupId, unsigned: &[u8]) -> Message {
    Message::from_digest(tagged_hash("sortie/ledger", &[rollup_id.as_ref(), unsigned]).0)
}

impl Ledger {
    /// The ledger of a rollup.
    pub fn new(rollup_id: RollupId, parameters: LedgerParameters) -> Self {
        Self { rollup_id, parameters }
    }

    fn check_signature(&self, transfer: &Transfer, tx: &[u8]) -> Result<(), NoOpReason> {
        let key = XOnlyPublicKey::from_slice(&transfer.from).map_err(|_| NoOpReason::BadKey)?;
        let (unsigned, signature) = tx.split_at(UNSIGNED_LEN);
        let signature = schnorr::Signature::from_slice(signature).map_err(|_| NoOpReason::BadSignature)?;
        Secp256k1::verification_only()
            .verify_schnorr(&signature, &message(&self.rollup_id, unsigned), &key)
            .map_err(|_| NoOpReason::BadSignature)
    }
}

/// What an account holds in a ledger's state.
pub fn holding(state: &State, account: &Account) -> Holding {
    let mut reader = Reader::new(state.get(account).unwrap_or_default());
    match (reader.u64(), reader.u64()) {
        (Ok(balance), Ok(nonce)) => Holding { balance, nonce },
        _ => Holding::default(),
    }
}

fn set_holding(state: &mut State, account: &Account, holding: Holding) {
    let Holding { balance, nonce } = holding;
    let value = (holding != Holding::default()).then(|| [balance.to_le_bytes(), nonce.to_le_bytes()].concat());
    state.set(account, value);
}

fn credit(state: &mut State, account: &Account, amount: u64) -> Result<(), NoOpReason> {
    let Holding { balance, nonce } = holding(state, account);
    let balance = balance.checked_add(amount).ok_or(NoOpReason::Overflow)?;
    set_holding(state, account, Holding { balance, nonce });
    Ok(())
}

impl Executor for Ledger {
    fn genesis(&self) -> State {
        let mut state = State::default();
        for (account, balance) in &self.parameters.accounts {
            set_holding(&mut state, account, Holding { balance: *balance, nonce: 0 });
        }
        state.take_undo();
        state
    }

    fn check_static(&self, tx: &[u8]) -> Result<(), NoOpReason> {
        let transfer = Transfer::decode(tx).ok_or(NoOpReason::Malformed)?;
        self.check_signature(&transfer, tx)
    }

    fn sender_and_nonce(&self, tx: &[u8]) -> Option<(Vec<u8>, u64)> {
        Transfer::decode(tx).map(|transfer| (transfer.from.to_vec(), transfer.nonce))
    }

    fn fee_of(&self, tx: &[u8]) -> Option<u64> {
        Transfer::decode(tx).map(|transfer| transfer.fee)
    }

    fn affords(&self, state: &State, tx: &[u8]) -> bool {
        let spent = |transfer: Transfer| Some((transfer.from, transfer.amount.checked_add(transfer.fee)?));
        Transfer::decode(tx).and_then(spent).is_some_and(|(from, spent)| holding(state, &from).balance >= spent)
    }

    fn run(&self, state: &mut State, tx: &[u8], route: Route) -> Result<(), NoOpReason> {
        let transfer = Transfer::decode(tx).ok_or(NoOpReason::Malformed)?;
        // A transfer's cost is 1; its length is fixed, so that only a price of 0 leaves it unpaid.
        if route == Route::Forced && self.parameters.forced_cost_per_byte == 0 {
            return Err(NoOpReason::UnpaidCost);
        }
        self.check_signature(&transfer, tx)?;
        let Holding { balance, nonce } = holding(state, &transfer.from);
        let next_nonce = nonce.checked_add(1).filter(|_| transfer.nonce == nonce).ok_or(NoOpReason::BadNonce)?;
        let left = transfer
            .amount
            .checked_add(transfer.fee)
            .and_then(|spent| balance.checked_sub(spent))
            .ok_or(NoOpReason::InsufficientBalance)?;
        set_holding(state, &transfer.from, Holding { balance: left, nonce: next_nonce });
        credit(state, &transfer.to, transfer.amount)?;
        credit(state, &self.parameters.fee_account, transfer.fee)
    }

    /// Merkle Tree Hash of `account [32] | balance u64 | nonce u64` by ascending account.
    fn state_root(&self, state: &State) -> Hash32 {
        merkle_root(state.entries().map(|(account, holding)| [account, holding].concat()))
    }
}

#[cfg(test)]
mod tests;
