//! Batches to Bitcoin: signed once, written down, and the same bytes sent until they are there.

use super::{Done, Seen, Sequencer, SequencerError, SoftBlock, lock};
use crate::batch::{BatchBlock, BatchTerms, MAX_BLOCKS, batch_message, encode_batch, encode_blocks};
use crate::derive::{DropReason, Verdict};
use crate::envelope::{Body, Payload};
use crate::primitives::Hash32;
use crate::publish::{Publication, RateTerms, Request, fee_rate, publish, resume};
use crate::sequencer::store::StoredBatch;
use bitcoin::OutPoint;
use bitcoin::secp256k1::{Message, Secp256k1};

/// Most bytes of plain data in one batch: its payload stays within what Bitcoin nodes relay.
pub(super) const MAX_PLAIN_DATA: usize = 380_000;

/// Bitcoin blocks that a wallet's fee estimate is asked for.
const CONFIRMATION_TARGET: u16 = 2;

/// What posting remembers between ticks; all of it can be lost.
#[derive(Debug, Default)]
pub(super) struct Posting {
    /// The Bitcoin tip at which every batch was last seen to be on its way.
    checked_at: Seen,
    /// Why the last attempt failed.
    pub(super) error: Option<String>,
}

impl Sequencer {
    /// Keeps signed batches on their way and posts what is new, once for each Bitcoin tip.
    pub(super) fn post(&mut self) -> Result<Vec<Done>, SequencerError> {
        let tip = self.node.derivation().tip().block.hash;
        let mut parent = self.node.derivation().head().hash;
        let live = self.live_batches(&mut parent)?;
        let is_new_tip = self.posting.checked_at != Some(tip);
        if !is_new_tip && !live.is_empty() {
            return Ok(Vec::new());
        }
        let due = self.is_due(&parent);
        if !due && live.is_empty() {
            self.posting.checked_at = Some(tip);
            return Ok(Vec::new());
        }
        self.wallet.sync(&self.rpc)?;
        // Also what carries batches that no longer count: later ones are paid from its change.
        resume(&mut self.wallet, &self.rpc)?;
        let mut done = Vec::new();
        let mut change = None;
        for batch in &live {
            let publication = self.keep_on_its_way(&batch.payload)?;
            change = unconfirmed_change(&publication);
        }
        if due {
            let batch = self.sign_batch(&parent)?;
            let blocks = self.numbers(&parent, &batch.last_hash);
            lock(&self.store).put_batch(&parent, &batch)?;
            // After a reorganisation a batch that no longer counts may have spent it.
            let coins = self.wallet.coins()?;
            let change = change.filter(|change| coins.iter().any(|coin| coin.outpoint == *change));
            let publication = self.send(&batch.payload, change, false)?;
            done.push(Done::Posted { blocks, publication });
        }
        self.posting.checked_at = Some(tip);
        Ok(done)
    }

    /// The signed batches that can still be accepted, in order; moves `parent` behind the last one.
    fn live_batches(&self, parent: &mut Hash32) -> Result<Vec<StoredBatch>, SequencerError> {
        let store = lock(&self.store);
        let mut live = Vec::new();
        while let Some(batch) = store.batches(parent)?.into_iter().find(|batch| self.soft.contains(&batch.last_hash)) {
            *parent = batch.last_hash;
            live.push(batch);
        }
        Ok(live)
    }

    /// Whether the blocks after `parent` are worth a batch: they execute something, or the derived head's
    /// origin has fallen half of `max_lag` behind.
    fn is_due(&self, parent: &Hash32) -> bool {
        let mut blocks = self.soft.after(parent).peekable();
        let head = self.node.derivation().head().header;
        let overdue = self.lag(head.origin.height) * 2 > u32::from(self.node.manifest().max_lag);
        (overdue && blocks.peek().is_some())
            || blocks.any(|SoftBlock { block, .. }| !block.own_txs.is_empty() || !block.forced.is_empty())
    }

    fn sign_batch(&self, parent: &Hash32) -> Result<StoredBatch, SequencerError> {
        let before = self.soft.head_with(parent);
        let mut timestamp = before.header.timestamp;
        let mut origin = before.header.origin;
        let mut last_hash = before.hash;
        let mut blocks = Vec::new();
        let mut size = 0;
        for SoftBlock { block, .. } in self.soft.after(parent) {
            let stated = BatchBlock {
                advances: block.header.origin != origin,
                seconds: block.header.timestamp.saturating_sub(timestamp),
                txs: block.own_txs.clone(),
            };
            size += encode_blocks(std::slice::from_ref(&stated)).len();
            let is_full = size > MAX_PLAIN_DATA || blocks.len() as u64 == MAX_BLOCKS;
            if is_full && !blocks.is_empty() {
                break;
            }
            (timestamp, origin, last_hash) = (block.header.timestamp, block.header.origin, block.hash);
            blocks.push(stated);
        }
        let terms = BatchTerms { first_number: before.header.number + 1, parent: *parent, last_origin: origin };
        let mut body = encode_batch(&terms, &blocks);
        let derivation = self.node.derivation();
        let message = batch_message(&derivation.rules().rollup_id, derivation.handovers(), &body);
        let key = self.policy.key.x_only_public_key().0;
        let index = derivation.sequencers().index_of(&key).ok_or(SequencerError::NotInSet(key))?;
        let signature =
            Secp256k1::signing_only().sign_schnorr_no_aux_rand(&Message::from_digest(message.0), &self.policy.key);
        body.push(index);
        body.extend_from_slice(&signature.serialize());
        let namespace = derivation.rules().rollup_id.namespace();
        let payload = Payload { namespace, body: Body::Batch(body) }.encode().map_err(|_| SequencerError::Damaged)?;
        Ok(StoredBatch { last_hash, payload })
    }

    fn numbers(&self, parent: &Hash32, last: &Hash32) -> (u64, u64) {
        let first = self.soft.head_with(parent).header.number + 1;
        (first, self.soft.head_with(last).header.number)
    }

    /// Sends a batch's bytes again if Bitcoin does not have them, or has them where they came too early.
    fn keep_on_its_way(&mut self, payload: &[u8]) -> Result<Publication, SequencerError> {
        let publication = self.send(payload, None, false)?;
        let Some(block) = publication.state.confirmed() else { return Ok(publication) };
        let place = publication.place;
        let judged = self.node.store().judged(block.height)?;
        match judged.iter().find(|judged| judged.place == place).map(|judged| judged.verdict) {
            None | Some(Verdict::Accept) => Ok(publication),
            Some(Verdict::Drop(
                DropReason::WrongNumber
                | DropReason::OverBudget
                | DropReason::OriginNotBelow
                | DropReason::TimestampHigh,
            )) => self.send(payload, None, true),
            // Paying for the same bytes again would change nothing.
            Some(Verdict::Drop(reason)) => Err(SequencerError::BatchDropped { place, reason }),
        }
    }

    fn send(
        &mut self,
        payload: &[u8],
        fund_from: Option<OutPoint>,
        again: bool,
    ) -> Result<Publication, SequencerError> {
        let rate = match self.policy.fee_rate {
            Some(rate) => rate,
            None => {
                let terms = RateTerms {
                    network: self.rpc.network(),
                    explicit: None,
                    fallback: None,
                    target_blocks: CONFIRMATION_TARGET,
                };
                fee_rate(&[&self.rpc], &terms)?.rate
            }
        };
        // One chain of transactions: the next batch is paid from this one's only change.
        let request = Request { fund_from, again, caps: self.policy.caps, lock_at_most: None, ..Request::at(rate) };
        Ok(publish(&mut self.wallet, &self.rpc, payload, &request)?)
    }
}

fn unconfirmed_change(publication: &Publication) -> Option<OutPoint> {
    publication.change.filter(|_| publication.state.is_unfinished())
}
