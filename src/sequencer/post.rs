//! Batches to Bitcoin: signed once, written down, and the same bytes sent until they are there.

use super::in_flight::InFlight;
use super::order::is_of;
use super::{Done, Seen, Sequencer, SequencerError, SoftBlock, lock};
use crate::batch::{BatchBlock, BatchTerms, MAX_BLOCKS, batch_message, encode_batch, encode_blocks};
use crate::envelope::{Body, Payload};
use crate::patience::Backoff;
use crate::primitives::{BtcHeight, Hash32, L2Number};
use crate::publish::{
    Act, FeeCap, Outcome, Publication, PublishError, RateTerms, Request, bump, fee_rate, job, look, publish, relay,
    resume,
};
use crate::sequencer::store::StoredBatch;
use crate::wallet::{Order, PaymentOutcome, WalletError};
use bitcoin::secp256k1::{Message, Secp256k1};
use bitcoin::{FeeRate, OutPoint};

/// Most bytes of plain data in one batch: its payload stays within what Bitcoin nodes relay.
pub(super) const MAX_PLAIN_DATA: usize = 380_000;

/// What posting remembers between ticks; all of it can be lost.
#[derive(Debug, Default)]
pub(super) struct Posting {
    /// The Bitcoin tip at which everything was last looked at.
    checked_at: Seen,
    /// Why the last attempt failed.
    pub(super) error: Option<String>,
    /// How long it is waited before the next one, and until when; a new Bitcoin block ends that.
    backoff: Backoff,
    retry_at: u64,
    /// The batch that waits to be mined.
    pub(super) in_flight: Option<InFlight>,
    /// What stands in the way of other transactions of the wallet.
    troubles: Vec<String>,
}

/// A signed batch that can still be accepted.
pub(super) struct Batch {
    pub payload: Vec<u8>,
    /// Its first and last L2 block.
    pub blocks: (L2Number, L2Number),
    /// The Bitcoin height by which it is to be mined.
    pub confirm_by: BtcHeight,
    /// Whether it holds own transactions only: what it costs is limited by the day's limit.
    pub is_rationed: bool,
}

/// How a batch's transactions are made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sending {
    /// A coin that they have to spend.
    pub fund_from: Option<OutPoint>,
    /// Whether they are made although there are others around the same bytes.
    pub again: bool,
}

impl Sequencer {
    /// Keeps what is signed on its way to Bitcoin, and posts what is new when nothing waits; once for each Bitcoin tip,
    /// and when an attempt has failed.
    pub(super) fn post(&mut self, now: u64, on_done: &mut impl FnMut(Done)) -> Result<(), SequencerError> {
        let tip = self.node.derivation().tip().block.hash;
        let mut parent = self.node.derivation().head().hash;
        let live = self.live_batches(&mut parent)?;
        let is_due = live.is_empty() && self.is_due(&parent);
        let orders = self.wallet.orders()?;
        let is_wanted = match self.posting.error {
            None => is_due,
            Some(_) => now >= self.posting.retry_at,
        };
        if self.posting.checked_at == Some(tip) && !is_wanted && orders.is_empty() {
            return Ok(());
        }
        self.posting.checked_at = Some(tip);
        let outcome = self.try_to_post(parent, &live, &orders, on_done);
        self.count_spent()?;
        match outcome {
            Ok(()) => {
                (self.posting.error, self.posting.backoff) = (None, Backoff::default());
                Ok(())
            }
            // Money or relay trouble does not stop soft blocks; the disk's would.
            Err(error) if error.is_of_disk() => Err(error),
            Err(error) => {
                let error = error.to_string();
                if self.posting.error.as_ref() != Some(&error) {
                    on_done(Done::PostingFailed(error.clone()));
                }
                self.posting.error = Some(error);
                self.posting.retry_at = now + self.posting.backoff.pause().as_secs();
                Ok(())
            }
        }
    }

    fn try_to_post(
        &mut self,
        parent: Hash32,
        live: &[Batch],
        orders: &[Order],
        on_done: &mut impl FnMut(Done),
    ) -> Result<(), SequencerError> {
        self.wallet.sync(&self.rpc)?;
        self.watch_others(live, on_done)?;
        for order in orders {
            self.carry_out(order, live, on_done)?;
        }
        if self.keep(live, on_done)? {
            return Ok(());
        }
        self.posting.in_flight = None;
        if live.is_empty() && self.is_due(&parent) {
            let signed = self.sign_batch(&parent)?;
            lock(&self.store).put_batch(&parent, &signed)?;
            let batch = self.batch(&parent, signed);
            self.send(&batch, Sending::default(), on_done)?;
        }
        Ok(())
    }

    /// Sends again whatever of the wallet's transactions the node has forgotten, and tells what stands in their way.
    fn watch_others(&mut self, live: &[Batch], on_done: &mut impl FnMut(Done)) -> Result<(), SequencerError> {
        let mut troubles = Vec::new();
        match self.wallet.settle_payments(&self.rpc) {
            Ok(settled) => troubles.extend(settled.iter().filter_map(|settled| {
                let name = settled.outcome.name();
                (settled.outcome != PaymentOutcome::Sent).then(|| format!("payment {} is {name}", settled.payment.txid))
            })),
            Err(WalletError::Database(error)) => return Err(WalletError::Database(error).into()),
            Err(error) => troubles.push(error.to_string()),
        }
        let resumed = resume(&mut self.wallet, &self.rpc)?;
        self.give_up_dead(live, &resumed)?;
        for resumed in resumed {
            let is_live = is_of(&self.wallet, resumed.job, live)?;
            if let (Outcome::Failed(error), false) = (resumed.outcome, is_live) {
                troubles.push(error.to_string());
            }
        }
        troubles.iter().filter(|trouble| !self.posting.troubles.contains(trouble)).for_each(|trouble| {
            on_done(Done::Trouble(trouble.clone()));
        });
        self.posting.troubles = troubles;
        Ok(())
    }

    /// The signed batches that can still be accepted, in order; moves `parent` behind the last one.
    fn live_batches(&self, parent: &mut Hash32) -> Result<Vec<Batch>, SequencerError> {
        let store = lock(&self.store);
        let mut live = Vec::new();
        while let Some(batch) = store.batches(parent)?.into_iter().find(|batch| self.soft.contains(&batch.last_hash)) {
            let last_hash = batch.last_hash;
            live.push(self.batch(parent, batch));
            *parent = last_hash;
        }
        Ok(live)
    }

    fn batch(&self, parent: &Hash32, signed: StoredBatch) -> Batch {
        let blocks = self.soft.between(parent, &signed.last_hash);
        let first = self.soft.head_with(parent).header.number + 1;
        let last = self.soft.head_with(&signed.last_hash).header.number;
        let (mut has_own, mut has_forced) = (false, false);
        let blocks = blocks.inspect(|soft| {
            has_own |= !soft.block.own_txs.is_empty();
            has_forced |= !soft.block.forced.is_empty();
        });
        let confirm_by = self.confirm_by(blocks);
        Batch { payload: signed.payload, blocks: (first, last), confirm_by, is_rationed: has_own && !has_forced }
    }

    /// Bytes of own transactions that are promised and in no signed batch.
    pub(super) fn unposted_bytes(&self) -> usize {
        let mut parent = self.node.derivation().head().hash;
        // The store can be read, or the tick fails anyway.
        let _ = self.live_batches(&mut parent);
        self.soft.after(&parent).flat_map(|soft| &soft.block.own_txs).map(Vec::len).sum()
    }

    /// The height by which a batch with these blocks is to be mined: a posting margin before it could count no more,
    /// because own transactions are stale or everyone has gone on without them.
    fn confirm_by<'a>(&self, blocks: impl Iterator<Item = &'a SoftBlock>) -> BtcHeight {
        let (manifest, derivation) = (self.node.manifest(), self.node.derivation());
        let with_own = blocks.filter(|soft| !soft.block.own_txs.is_empty());
        let stale = with_own.map(|soft| soft.block.header.origin.height.saturating_add(manifest.max_lag.into())).min();
        let window = derivation.head().header.origin.height.saturating_add(manifest.sequencing_window.into());
        let last = stale.map_or(window, |stale| stale.min(window));
        last.saturating_sub(self.posting_margin()).max(derivation.tip().block.height + 1)
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

    /// Signs and sends what carries a batch; nothing of it is on its way.
    pub(super) fn send(
        &mut self,
        batch: &Batch,
        sending: Sending,
        on_done: &mut impl FnMut(Done),
    ) -> Result<(), SequencerError> {
        let rpc = &self.rpc;
        // What enters no mempool is mined by nobody: a rate that was asked for gives way to the node's minimum.
        let floor = relay(rpc)?.floor;
        let explicit = self.policy.rate.explicit.map(|rate| rate.max(floor));
        let chosen = fee_rate(&[rpc], &RateTerms { explicit, ..self.policy.rate })?;
        on_done(Done::Explained(chosen.steps));
        let caps = self.caps_of(batch)?;
        let Sending { fund_from, again } = sending;
        let confirm_by = Some(batch.confirm_by);
        let request = |rate| Request { fund_from, again, caps, confirm_by, lock_at_most: None, ..Request::at(rate) };
        // Rather late than never: where a cap forbids the rate, it is posted at the highest that is allowed.
        let capped = |rate: FeeRate| caps.max_fee_rate.map_or(rate, |highest| rate.min(highest)).max(floor);
        let rate = capped(chosen.rate);
        let sent = match publish(&mut self.wallet, rpc, &batch.payload, &request(rate)) {
            Err(PublishError::FeeCap(FeeCap::Total { fee, cap })) if fee > cap => {
                let less = rate.to_sat_per_kwu().saturating_mul(cap.to_sat()) / fee.to_sat().max(1);
                publish(&mut self.wallet, rpc, &batch.payload, &request(FeeRate::from_sat_per_kwu(less)))
            }
            sent => sent,
        };
        let publication = sent?;
        // What it hangs on may pay less, as what carries a batch that no longer counts.
        let raised = bump(&mut self.wallet, rpc, publication.job, rate, &caps);
        let sent = job(&self.wallet, publication.job)?;
        let publication = Publication::new(&sent, false)?;
        let act = raised.map_or_else(Act::Stopped, |_| Act::Waits);
        let held = look(&self.wallet, rpc, &sent, Some(chosen.rate), act)?;
        on_done(Done::Posted { blocks: batch.blocks, publication });
        self.show_in_flight(batch, &sent, held, on_done);
        Ok(())
    }
}
