//! What a sequencer has signed of what it says.
//!
//! Guarantees that a block, a head or a receipt is called signed only if a sequencer in force put its key to it: by the
//! manifest, and by the handovers that this machine has derived. Everything else that it says is a claim.

use crate::config::Settings;
use crate::failure::Failure;
use crate::follower::derived_before;
use sortie::api::SequencerClient;
use sortie::api::wire::{BlockAnswer, HeadView};
use sortie::follower::ChainView;
use sortie::manifest::{Manifest, SequencerSet};
use sortie::merkle::merkle_root;
use sortie::primitives::{Hash32, L2Number, RollupId, sha256};
use sortie::proof::{RawBytes, Receipt, Signed, SoftState, Statement};

/// Blocks that a receipt may leave a sequencer to keep it: a day of them. One without end promises nothing.
const MAX_SPAN: u64 = 100_000;
/// Blocks above a transaction's that are looked at for a signature.
const MAX_ABOVE: u64 = 100;

/// The sequencers in force, as far as this machine knows.
pub struct Signers {
    rollup_id: RollupId,
    handovers: u32,
    set: SequencerSet,
}

/// The block that a sequencer says holds a transaction.
pub struct Included {
    pub number: L2Number,
    pub block: Hash32,
    pub receipt: Option<Box<Signed<Receipt>>>,
}

/// What shows that a transaction is in a block.
pub enum Shown {
    /// A promise that it is.
    Receipt(Box<Signed<Receipt>>),
    /// The block that holds it, and those above it up to one that is signed.
    Blocks(Vec<BlockAnswer>),
}

/// Why nothing shows it.
pub struct Doubt {
    pub reason: String,
    /// Whether a signature may still come.
    pub may_pass: bool,
}

impl Signers {
    /// By the manifest, and by what was derived of it here.
    pub fn known(manifest: &Manifest, settings: &Settings) -> Result<Self, Failure> {
        match derived_before(settings)? {
            Some(view) => Self::of(&view),
            None => Ok(Self { rollup_id: manifest.rollup_id(), handovers: 0, set: manifest.sequencers.clone() }),
        }
    }

    /// As a follower has derived them.
    pub fn of(view: &ChainView) -> Result<Self, Failure> {
        let last = view.store().sequencers()?.into_iter().max_by_key(|(handovers, _)| *handovers);
        let manifest = view.manifest();
        let (handovers, set) = last.unwrap_or_else(|| (0, manifest.sequencers.clone()));
        Ok(Self { rollup_id: manifest.rollup_id(), handovers, set })
    }

    /// Whether one of them signed a statement. Keys that were replaced count no more: they may be anybody's.
    fn signed<T: Statement>(&self, statement: &Signed<T>) -> bool {
        statement.handovers == self.handovers && statement.signers(&self.rollup_id, &self.set).is_ok()
    }

    fn hash(&self, block: &BlockAnswer) -> Hash32 {
        block.header.hash(&self.rollup_id)
    }

    /// Whether a head, with the state after it, is a block that the sequencer shows and has signed.
    pub fn has_signed(&self, url: &SequencerClient, head: &HeadView) -> bool {
        let Ok(Some(block)) = url.block(head.number) else { return false };
        let state = block.signed.as_ref().map(|signed| &signed.state).filter(|state| self.signed(state));
        let header = &block.header;
        let fields = (header.number, self.hash(&block), header.origin.height, header.timestamp);
        fields == (head.number, head.hash, head.origin_height, head.timestamp)
            && state.is_some_and(|state| state.statement == SoftState { block: head.hash, state_root: head.state_root })
            && self.signed_header(&block)
    }

    fn signed_header(&self, block: &BlockAnswer) -> bool {
        let header = block.signed.as_ref().map(|signed| &signed.header);
        header.is_some_and(|header| header.statement == block.header && self.signed(header))
    }

    /// What shows that a transaction is in the block that the sequencer names.
    pub fn shown(&self, url: &SequencerClient, tx_hash: &Hash32, included: &Included) -> Result<Shown, Doubt> {
        let receipt = match &included.receipt {
            Some(receipt) => self.receipt(tx_hash, included.number, receipt).map(|()| receipt),
            None => Err("it gave no receipt"),
        };
        match receipt {
            Ok(receipt) => Ok(Shown::Receipt(receipt.clone())),
            Err(why) => self
                .blocks(url, tx_hash, included)
                .map(Shown::Blocks)
                .map_err(|doubt| Doubt { reason: format!("{why}, and {}", doubt.reason), ..doubt }),
        }
    }

    fn receipt(&self, tx_hash: &Hash32, number: u64, receipt: &Signed<Receipt>) -> Result<(), &'static str> {
        let Receipt { tx_hash: of, first_number, last_number } = receipt.statement;
        if of != *tx_hash {
            return Err("its receipt is for another transaction");
        }
        if first_number == 0 || !(first_number..=last_number).contains(&number) || last_number - number > MAX_SPAN {
            return Err("its receipt names blocks that nobody could hold it to");
        }
        if !self.signed(receipt) {
            return Err("its receipt is not signed by the sequencers that this machine knows");
        }
        Ok(())
    }

    /// The block of a transaction, and the chain above it to the first that is signed: that signature binds all of
    /// them.
    fn blocks(&self, url: &SequencerClient, tx_hash: &Hash32, included: &Included) -> Result<Vec<BlockAnswer>, Doubt> {
        let no = |reason: String| Doubt { reason, may_pass: false };
        let number = included.number;
        let get = |number| url.block(number).map_err(|error| no(Failure::from(error).to_string()));
        let first = get(number)?.ok_or_else(|| no(format!("it does not show block {number}")))?;
        if first.header.number != number || self.hash(&first) != included.block {
            return Err(no(format!("what it shows as block {number} is another one")));
        }
        let holds = first.own_txs.iter().any(|RawBytes(tx)| sha256(tx) == *tx_hash);
        if !holds || merkle_root(first.own_txs.iter().map(|RawBytes(tx)| tx)) != first.header.txs_root {
            return Err(no(format!("what it shows as block {number} does not hold the transaction")));
        }
        let (mut top, mut blocks) = (self.hash(&first), vec![first]);
        while !blocks.last().is_some_and(|block| self.signed_header(block)) {
            let above = number.saturating_add(blocks.len() as u64);
            let unsigned = || Doubt { reason: format!("block {number} is not signed"), may_pass: true };
            let next = match blocks.len() as u64 {
                0..=MAX_ABOVE => get(above)?.ok_or_else(unsigned)?,
                _ => return Err(unsigned()),
            };
            if next.header.parent != top || next.header.number != above {
                return Err(unsigned());
            }
            top = self.hash(&next);
            blocks.push(next);
        }
        Ok(blocks)
    }
}
