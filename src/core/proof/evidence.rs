//! The files `equivocation` and `conflicting_state`: one signer, two stories.
//!
//! Not here, because no fault: two blocks for one place whose origins are neither the same Bitcoin block nor
//! parent and child. That is what an honest sequencer signs after Bitcoin has reorganised.

use super::judge::{Judge, in_both};
use super::raw::Raw;
use super::statement::{Signed, SoftHeader, SoftState};
use super::{AnchorName, Fact, NeededAnchor, Refutation, Verdict};
use crate::primitives::BlockRef;
use bitcoin::block::Header;
use serde::{Deserialize, Serialize};

/// Two blocks for one place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Equivocation {
    /// One.
    pub first: Signed<SoftHeader>,
    /// The other.
    pub second: Signed<SoftHeader>,
    /// If the origins are not the same: the Bitcoin header of the higher, which names the lower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_origin: Option<Raw<Header>>,
}

/// Two states after one block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConflictingState {
    /// One.
    pub first: Signed<SoftState>,
    /// The other.
    pub second: Signed<SoftState>,
}

impl Judge<'_> {
    pub(super) fn equivocation(&mut self, proof: &Equivocation) -> Result<Fact, Verdict> {
        let (first, second) = (&proof.first.statement, &proof.second.statement);
        if (first.number, first.parent) != (second.number, second.parent) {
            return Err(Refutation::OtherPlace.into());
        }
        let blocks = [self.block(first).hash, self.block(second).hash];
        if blocks[0] == blocks[1] {
            return Err(Refutation::SameBlock.into());
        }
        let signers = in_both(self.signers(&proof.first)?, &self.signers(&proof.second)?)?;
        if first.origin.hash != second.origin.hash {
            let child_origin = proof.child_origin.as_ref().map(|Raw(header)| header);
            match first.origin.height < second.origin.height {
                true => self.check_child(first.origin, second.origin, child_origin)?,
                false => self.check_child(second.origin, first.origin, child_origin)?,
            }
        }
        Ok(Fact::Equivocation { signers, number: first.number, parent: first.parent, blocks })
    }

    pub(super) fn conflicting_state(&mut self, proof: &ConflictingState) -> Result<Fact, Verdict> {
        let (first, second) = (&proof.first.statement, &proof.second.statement);
        if first.block != second.block {
            return Err(Refutation::OtherPlace.into());
        }
        if first.state_root == second.state_root {
            return Err(Refutation::SameState.into());
        }
        let signers = in_both(self.signers(&proof.first)?, &self.signers(&proof.second)?)?;
        Ok(Fact::ConflictingState { signers, block: first.block, state_roots: [first.state_root, second.state_root] })
    }

    /// Checks that `child` comes right after `parent` on Bitcoin, by its header or by the anchors.
    fn check_child(&mut self, parent: BlockRef, child: BlockRef, header: Option<&Header>) -> Result<(), Verdict> {
        if parent.height.checked_add(1) != Some(child.height) {
            return Err(Refutation::UnrelatedOrigins.into());
        }
        if header.is_some_and(|header| header.block_hash() != child.hash) {
            return Err(Refutation::OtherBitcoinHeader.into());
        }
        let is_anchor = |block: BlockRef| self.anchors.bitcoin_hash(block.height) == Some(block.hash);
        let known = self.anchors.bitcoin_header(child.height).filter(|_| is_anchor(child));
        match header.or(known) {
            Some(header) if header.prev_blockhash != parent.hash => return Err(Refutation::UnrelatedOrigins.into()),
            Some(_) if header.is_some() => {}
            Some(_) => self.name(AnchorName::Bitcoin(child)),
            None if is_anchor(child) && is_anchor(parent) => {
                self.name(AnchorName::Bitcoin(parent));
                self.name(AnchorName::Bitcoin(child));
            }
            None => return Err(NeededAnchor::BitcoinHeader(child).into()),
        }
        Ok(())
    }
}
