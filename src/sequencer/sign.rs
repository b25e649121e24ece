//! Pre-confirmations: what the sequencer signs beside batches (specification, section 7).
//!
//! Guarantees that an honest sequencer never signs anything that convicts it, whatever Bitcoin does:
//! - a header only while no receipt is open: a chain of signed headers that leaves out a promised
//!   transaction does not come about;
//! - a second header for one parent only once the first one's origin left the best chain, and then with an
//!   origin at the same height;
//! - a receipt whose last number lies above every number signed so far: no chain signed earlier, on another
//!   branch of Bitcoin, can break it.
//!
//! A block that may not be signed is made all the same, without signatures.

use super::store::{Included, Waiting};
use super::{SequencerError, SequencerStore, SignedBlock, SoftBlock};
use crate::derive::Derivation;
use crate::l2::L2Block;
use crate::primitives::sha256;
use crate::proof::{Receipt, Signed, SignedBy, SoftHeader, SoftState, Statement};
use bitcoin::secp256k1::Keypair;

/// L2 blocks beyond the last signed one within which a promised transaction is executed.
const RECEIPT_SPAN: u64 = 64;

/// The sequencer's key, for everything but batches.
pub(super) struct Signer {
    key: Keypair,
}

impl Signer {
    pub(super) fn new(key: Keypair) -> Self {
        Self { key }
    }

    /// What goes out with a new block: its header and state, and receipts for its own transactions.
    pub(super) fn sign(
        &self,
        derivation: &Derivation,
        store: &SequencerStore,
        soft: &SoftBlock,
        taken: &[Waiting],
    ) -> Result<(Option<SignedBlock>, Vec<Included>), SequencerError> {
        let included = |waiting: &Waiting| Included { seq: waiting.seq, receipt: None };
        let mut included: Vec<_> = taken.iter().map(included).collect();
        let block = &soft.block;
        let Some(index) = derivation.sequencers().index_of(&self.key.x_only_public_key().0) else {
            return Ok((None, included));
        };
        if store.owes_beside(taken)? || self.would_equivocate(derivation, store, block)? {
            return Ok((None, included));
        }
        let last_number = store.highest_signed()?.max(block.header.number).saturating_add(RECEIPT_SPAN);
        for (included, tx) in included.iter_mut().zip(&block.own_txs) {
            let receipt = Receipt { tx_hash: sha256(tx), first_number: block.header.number, last_number };
            included.receipt = Some(self.statement(derivation, index, receipt));
        }
        let state = SoftState { block: block.hash, state_root: soft.state_root };
        let signed = SignedBlock {
            header: self.statement(derivation, index, SoftHeader(block.header)),
            state: self.statement(derivation, index, state),
        };
        Ok((Some(signed), included))
    }

    fn statement<T: Statement>(&self, derivation: &Derivation, index: u8, statement: T) -> Signed<T> {
        let handovers = derivation.handovers();
        let message = statement.message(&derivation.rules().rollup_id, handovers);
        Signed { statement, handovers, signatures: vec![SignedBy::sign(index, &self.key, message)] }
    }

    /// Whether a header for this parent was signed that a second one would contradict.
    fn would_equivocate(
        &self,
        derivation: &Derivation,
        store: &SequencerStore,
        block: &L2Block,
    ) -> Result<bool, SequencerError> {
        let origin = block.header.origin;
        let siblings = store.children(&block.header.parent)?;
        Ok(siblings.iter().filter(|stored| stored.signed.is_some() && stored.block.hash != block.hash).any(|stored| {
            let first = stored.block.header.origin;
            let on_chain = derivation.origin(first.height).is_none_or(|known| known.block == first);
            on_chain || first.height != origin.height
        }))
    }
}
