//! The file `included`: an item was executed by a block that is derived, or that a threshold vouches for.

use super::judge::Judge;
use super::statement::{Signed, SoftHeader};
use super::{AnchorName, BlockName, Fact, NeededAnchor, ProvenLeaf, Refutation, Verdict};
use serde::{Deserialize, Serialize};

/// An item under an L2 block's queue root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Included {
    /// The item's leaf in the block's queue.
    pub item: ProvenLeaf,
    /// The block; signatures may be left out for a checker that has derived it.
    pub block: Signed<SoftHeader>,
}

/// Who says that an L2 block is one of the chain's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The threshold of the sequencer set.
    Claimed,
    /// The checker.
    Derived,
}

impl Judge<'_> {
    pub(super) fn included(&mut self, proof: &Included) -> Result<Fact, Verdict> {
        let Included { item, block } = proof;
        let header = &block.statement;
        item.check(&header.queue())?;
        if item.index >= header.forced_end {
            return Err(Refutation::NotExecuted.into());
        }
        let level = self.level(block)?;
        Ok(Fact::Included { level, block: self.block(header), index: item.index, leaf: item.leaf })
    }

    fn level(&mut self, block: &Signed<SoftHeader>) -> Result<Level, Verdict> {
        let BlockName { number, hash } = self.block(&block.statement);
        if self.anchors.has_l2_block(&hash) {
            self.name(AnchorName::L2Block { hash });
            return Ok(Level::Derived);
        }
        if block.signatures.is_empty() {
            return Err(NeededAnchor::L2Block { number, hash }.into());
        }
        let signers = self.signers(block)?;
        let set = self.sequencers(block.handovers)?;
        if signers.len() < usize::from(set.threshold()) {
            return Err(Refutation::BelowThreshold.into());
        }
        Ok(Level::Claimed)
    }
}
