//! The file `consistency`: an earlier queue is how a later one begins.

use super::judge::Judge;
use super::statement::SoftHeader;
use super::{AnchorName, BlockName, Fact, NeededAnchor, Refutation, Verdict};
use crate::merkle::{TreeHead, verify_consistency};
use crate::primitives::Hash32;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Two sizes and roots of the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consistency {
    /// The earlier queue.
    pub old: TreeHead,
    /// The later queue.
    pub new: TreeHead,
    /// RFC 6962 consistency proof.
    pub proof: Vec<Hash32>,
    /// An L2 block with the earlier queue, for a checker that holds its hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_block: Option<SoftHeader>,
    /// An L2 block with the later queue, for a checker that holds its hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_block: Option<SoftHeader>,
}

impl Judge<'_> {
    pub(super) fn consistency(&mut self, proof: &Consistency) -> Result<Fact, Verdict> {
        let Consistency { old, new, .. } = *proof;
        if old.size > new.size {
            return Err(Refutation::Shrunk.into());
        }
        if !verify_consistency(&old, &new, &proof.proof) {
            return Err(Refutation::ConsistencyProof.into());
        }
        let old_block = self.queue_of(proof.old_block.as_ref(), &old)?;
        let new_block = self.queue_of(proof.new_block.as_ref(), &new)?;
        Ok(Fact::Consistent { old, new, old_block, new_block })
    }

    /// The derived block that has adopted this queue.
    fn queue_of(&mut self, block: Option<&SoftHeader>, queue: &TreeHead) -> Result<Option<BlockName>, Verdict> {
        let Some(header) = block else { return Ok(None) };
        if header.queue() != *queue {
            return Err(Refutation::OtherQueue.into());
        }
        let block = self.block(header);
        let BlockName { number, hash } = block;
        if !self.anchors.has_l2_block(&hash) {
            return Err(NeededAnchor::L2Block { number, hash }.into());
        }
        self.name(AnchorName::L2Block { hash });
        Ok(Some(block))
    }
}
