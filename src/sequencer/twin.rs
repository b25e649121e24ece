//! Batches of this key on Bitcoin that its store does not know: another sequencer's, or of a time that was
//! rolled back.

use super::{SequencerError, SequencerStore, lock};
use crate::batch::{BatchBody, BatchTerms};
use crate::chain::{BlockSource, RpcNode};
use crate::envelope::{Body, Found, scan_block, scan_transaction};
use crate::follower::Follower;
use crate::primitives::{BtcHeight, Hash32};
use crate::queue::Place;
use bitcoin::consensus::deserialize;
use bitcoin::secp256k1::{Message, Secp256k1, VerifyOnly, schnorr};
use bitcoin::{Transaction, XOnlyPublicKey};
use std::ops::ControlFlow;
use std::sync::Mutex;

/// Transactions of a mempool that are read; a larger one is not.
const MOST_WAITING: usize = 1_000;

/// Length of a signature with its signer's index.
const ENTRY_LEN: usize = 65;

/// Where batches are looked for, and whose.
pub(super) struct Look<'a> {
    pub node: &'a Follower,
    pub rpc: &'a RpcNode,
    pub store: &'a Mutex<SequencerStore>,
    pub key: XOnlyPublicKey,
}

impl Look<'_> {
    /// The first unknown batch that was accepted above a height, and whose last origin lies above another.
    pub(super) fn on_bitcoin(&self, above: BtcHeight, origin: BtcHeight) -> Result<Option<Place>, SequencerError> {
        for height in self.node.store().batch_heights(above)? {
            // What derives to our own blocks is no other's.
            if self.made_all(&self.node.store().hashes_at(height)?)? {
                continue;
            }
            let Some((hash, ..)) = self.node.store().bitcoin_block(height)? else { continue };
            let mut raw = Vec::new();
            // A block that was pruned, or that is gone since, is not held against anybody.
            if self.rpc.read_block(&hash, &mut raw).is_err() {
                continue;
            }
            let namespace = self.node.manifest().rollup_id().namespace();
            let found = scan_block(&raw, Some(namespace)).map(|block| block.found).unwrap_or_default();
            if let Some(place) = self.unknown(&found, origin)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// The first unknown batch in the mempool; a large mempool is not read.
    pub(super) fn in_mempool(&self, origin: BtcHeight) -> Result<Option<Place>, SequencerError> {
        let txids = self.rpc.mempool_txids().map_err(crate::follower::FollowerError::from)?;
        if txids.len() > MOST_WAITING {
            return Ok(None);
        }
        let namespace = self.node.manifest().rollup_id().namespace();
        let mut found = Vec::new();
        let read = self.rpc.raw_transactions(&txids, |_, raw| {
            if let Ok(transaction) = deserialize::<Transaction>(raw) {
                found.extend(scan_transaction(&transaction, Some(namespace)));
            }
            ControlFlow::Continue(())
        });
        read.map_err(crate::follower::FollowerError::from)?;
        self.unknown(&found, origin)
    }

    /// Whether these are soft blocks of our own. The store is not held while Bitcoin is asked.
    fn made_all(&self, hashes: &[Hash32]) -> Result<bool, SequencerError> {
        let store = lock(self.store);
        for hash in hashes {
            if !store.knows(hash)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn unknown(&self, found: &[Found], origin: BtcHeight) -> Result<Option<Place>, SequencerError> {
        let secp = Secp256k1::verification_only();
        for found in found {
            let Ok(payload) = &found.payload else { continue };
            let Body::Batch(body) = &payload.body else { continue };
            let Some(terms) = self.terms_if_signed(&secp, body) else { continue };
            let payload = payload.encode().map_err(|_| SequencerError::Damaged)?;
            if terms.last_origin.height > origin && !lock(self.store).has_batch(&terms.parent, &payload)? {
                return Ok(Some(found.place(0)));
            }
        }
        Ok(None)
    }

    /// A batch's terms, if this key signed it under a set that has ruled.
    fn terms_if_signed(&self, secp: &Secp256k1<VerifyOnly>, body: &[u8]) -> Option<BatchTerms> {
        let batch = BatchBody::decode(body).ok()?;
        let derivation = self.node.derivation();
        let signed = (0..=derivation.handovers()).any(|handovers| {
            let message = Message::from_digest(batch.message(&derivation.rules().rollup_id, handovers).0);
            batch.signatures().chunks_exact(ENTRY_LEN).any(|entry| {
                schnorr::Signature::from_slice(&entry[1..])
                    .is_ok_and(|signature| secp.verify_schnorr(&signature, &message, &self.key).is_ok())
            })
        });
        signed.then_some(batch.terms)
    }
}
