//! The file `censored`: a signed header that cannot become part of the chain, because its forced section or
//! its queue is not Bitcoin's.
//!
//! Everything is judged on the branch that the header itself names: a block that an honest sequencer signed
//! before Bitcoin reorganised is never convicted by an item of another branch.

use super::item::ItemProof;
use super::judge::Judge;
use super::raw::Raw;
use super::statement::{Signed, SoftHeader};
use super::{AnchorName, Fact, NodeNeed, ProvenLeaf, QueueLeaf, Refutation, Verdict};
use crate::primitives::BlockRef;
use bitcoin::block::Header;
use serde::{Deserialize, Serialize};

/// A signed header, the one before it, and what is wrong between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Censored {
    /// The header that cannot be derived.
    pub block: Signed<SoftHeader>,
    /// The header before it; bound by its hash, it needs no signature.
    pub parent: SoftHeader,
    /// What is wrong.
    pub case: CensoredCase,
}

/// What is wrong with a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CensoredCase {
    /// The next items of its own queue are not executed.
    NotExecuted {
        /// The first of them, or another that the block had room for.
        item: ProvenLeaf,
    },
    /// An item that Bitcoin holds is not in its queue.
    LeftOut {
        /// The item, with headers that lead to the header's origin.
        item: ItemProof,
        /// The leaf before its place, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<ProvenLeaf>,
        /// The leaf after its place, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<ProvenLeaf>,
    },
    /// Another leaf stands at an item's place.
    Replaced {
        /// The item, with headers that lead to the header's origin.
        item: ItemProof,
        /// The leaf at its place.
        leaf: ProvenLeaf,
    },
    /// The header contradicts the one before it.
    FalseHeader {
        /// If it is the origin that does: the Bitcoin header of the origin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<Raw<Header>>,
    },
    /// Two neighbours in its queue are out of order.
    OutOfOrder {
        /// A leaf.
        first: ProvenLeaf,
        /// The next one.
        second: ProvenLeaf,
    },
}

/// What was shown to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CaseName {
    /// An item of its own queue was not executed.
    NotExecuted,
    /// An item was left out of the queue.
    LeftOut,
    /// Another leaf stands at an item's place.
    Replaced,
    /// `forced_end` is not what follows from the parent and the queue.
    FalseForcedEnd,
    /// The number is not the one after the parent's.
    FalseNumber,
    /// The origin is neither the parent's nor its child.
    FalseOrigin,
    /// The queue is not in Bitcoin's order.
    OutOfOrder,
}

impl Judge<'_> {
    pub(super) fn censored(&mut self, proof: &Censored) -> Result<Fact, Verdict> {
        let header = &proof.block.statement;
        if self.block(&proof.parent).hash != header.parent {
            return Err(Refutation::OtherParent.into());
        }
        let signers = self.signers(&proof.block)?;
        let (case, item) = match &proof.case {
            CensoredCase::NotExecuted { item } => {
                self.check_not_executed(header, &proof.parent, item)?;
                (CaseName::NotExecuted, Some(item.leaf))
            }
            CensoredCase::LeftOut { item, before, after } => {
                let leaf = QueueLeaf::from(&self.item_under(item, header.origin)?);
                check_left_out(header, &leaf, before.as_ref(), after.as_ref())?;
                (CaseName::LeftOut, Some(leaf))
            }
            CensoredCase::Replaced { item, leaf: other } => {
                let leaf = QueueLeaf::from(&self.item_under(item, header.origin)?);
                other.check(&header.queue())?;
                if other.leaf.order() != leaf.order() {
                    return Err(Refutation::OtherPlace.into());
                }
                if other.leaf == leaf {
                    return Err(Refutation::SameLeaf.into());
                }
                (CaseName::Replaced, Some(leaf))
            }
            CensoredCase::FalseHeader { origin } => {
                let origin = origin.as_ref().map(|Raw(header)| header);
                (self.falsehood(header, &proof.parent, origin)?, None)
            }
            CensoredCase::OutOfOrder { first, second } => {
                first.check(&header.queue())?;
                second.check(&header.queue())?;
                if first.index.checked_add(1) != Some(second.index) {
                    return Err(Refutation::NotNeighbours.into());
                }
                if first.leaf.order() < second.leaf.order() {
                    return Err(Refutation::InOrder.into());
                }
                (CaseName::OutOfOrder, None)
            }
        };
        Ok(Fact::Censored { case, signers, block: self.block(header), item })
    }

    fn max_forced(&self) -> u64 {
        self.anchors.manifest().max_forced_per_block.into()
    }

    fn check_not_executed(
        &self,
        header: &SoftHeader,
        parent: &SoftHeader,
        item: &ProvenLeaf,
    ) -> Result<(), Refutation> {
        item.check(&header.queue())?;
        if item.index < header.forced_end {
            return Err(Refutation::Executed);
        }
        let has_room = item.index < parent.forced_end.saturating_add(self.max_forced());
        if has_room { Ok(()) } else { Err(Refutation::NoRoom) }
    }

    /// What a header says that its parent contradicts.
    fn falsehood(
        &mut self,
        header: &SoftHeader,
        parent: &SoftHeader,
        origin: Option<&Header>,
    ) -> Result<CaseName, Verdict> {
        let forced_end = parent.forced_end.saturating_add(self.max_forced()).min(header.queue_size);
        if header.forced_end != forced_end {
            return Ok(CaseName::FalseForcedEnd);
        }
        if parent.number.checked_add(1) != Some(header.number) {
            return Ok(CaseName::FalseNumber);
        }
        let BlockRef { height, hash } = header.origin;
        if header.origin == parent.origin {
            return Err(Refutation::TrueHeader.into());
        }
        if hash == parent.origin.hash || parent.origin.height.checked_add(1) != Some(height) {
            return Ok(CaseName::FalseOrigin);
        }
        if origin.is_some_and(|origin| origin.block_hash() != hash) {
            return Err(Refutation::OtherBitcoinHeader.into());
        }
        let known = self.anchors.bitcoin_header(height).filter(|known| known.block_hash() == hash);
        if origin.is_none() && known.is_some() {
            self.name(AnchorName::Bitcoin(header.origin));
        }
        match origin.or(known) {
            Some(origin) if origin.prev_blockhash == parent.origin.hash => Err(Refutation::TrueHeader.into()),
            Some(_) => Ok(CaseName::FalseOrigin),
            None => Err(NodeNeed::OriginWithheld { origin: header.origin }.into()),
        }
    }
}

/// Checks that the leaves around an item's place are neighbours, and the item not one of them.
fn check_left_out(
    header: &SoftHeader,
    item: &QueueLeaf,
    before: Option<&ProvenLeaf>,
    after: Option<&ProvenLeaf>,
) -> Result<(), Verdict> {
    let queue = header.queue();
    for leaf in before.iter().chain(&after) {
        leaf.check(&queue)?;
    }
    let is_enclosed = match (before, after) {
        (None, None) if queue.size > 0 => {
            return Err(NodeNeed::LeavesWithheld { queue, origin: header.origin }.into());
        }
        (None, None) => true,
        (Some(before), None) => before.index == queue.size - 1,
        (None, Some(after)) => after.index == 0,
        (Some(before), Some(after)) => before.index.checked_add(1) == Some(after.index),
    };
    let is_between = before.is_none_or(|before| before.leaf.order() < item.order())
        && after.is_none_or(|after| item.order() < after.leaf.order());
    if is_enclosed && is_between { Ok(()) } else { Err(Refutation::NotEnclosed.into()) }
}
