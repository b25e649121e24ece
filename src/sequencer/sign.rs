//! Pre-confirmations: what the sequencer signs beside batches (specification, section 7).
//!
//! Guarantees that an honest sequencer never signs anything that convicts it, whatever Bitcoin does:
//! - a header only while no receipt is open: a chain of signed headers that leaves out a promised
//!   transaction does not come about;
//! - a second header for one parent only once the first one's origin left the best chain, and then with an
//!   origin at the same height;
//! - a receipt whose last number lies above every number signed so far: no chain signed earlier, on another
//!   branch of Bitcoin, can break it;
//! - nothing that could contradict what the key signed before this start, known or not (`history`).
//!
//! A block that may not be signed is made all the same, without signatures.

use super::history::{History, Turn};
use super::store::{Included, Waiting};
use super::{SequencerError, SequencerStore, SoftBlock};
use crate::derive::Derivation;
use crate::l2::{L2Block, L2Head};
use crate::primitives::sha256;
use crate::proof::{Receipt, Signed, SignedBlock, SignedBy, SoftHeader, SoftState, Statement};
use bitcoin::secp256k1::Keypair;

/// The sequencer's key, for everything but batches.
pub(super) struct Signer {
    key: Keypair,
    pub(super) history: History,
}

impl Signer {
    pub(super) fn new(key: Keypair, history: History) -> Self {
        Self { key, history }
    }

    /// What the block on `parent` has to be, with a timestamp from the first to the second of `bounds`.
    pub(super) fn turn(&self, derivation: &Derivation, parent: &L2Head, now: u64, bounds: (u64, u64)) -> Turn {
        match derivation.sequencers().index_of(&self.key.x_only_public_key().0) {
            Some(_) => self.history.turn(parent, now, bounds.0, bounds.1),
            // It signs nothing at all.
            None => Turn::Any,
        }
    }

    /// What goes out with a new block: its header and state, and receipts for its own transactions.
    pub(super) fn sign(
        &mut self,
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
        if !self.history.may_sign(block)
            || store.owes_beside(taken)?
            || self.would_equivocate(derivation, store, block)?
        {
            return Ok((None, included));
        }
        self.history.reserve(block.header.number)?;
        let last_number = self.history.last_number(block.header.number, store.highest_signed()?);
        let gives_receipts = self.history.receipts_from(derivation.tip().block.height).is_none();
        let promised = if gives_receipts { &block.own_txs[..] } else { &[] };
        for (included, tx) in included.iter_mut().zip(promised) {
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
