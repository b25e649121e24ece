//! From a file and anchors to a verdict.

use super::difficulty::HeaderRules;
use super::statement::{Signed, SoftHeader, Statement};
use super::{AnchorName, Anchors, BlockName, Fact, File, NeededAnchor, Proof, Proven, Refutation, Verdict};
use crate::manifest::SequencerSet;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bitcoin::XOnlyPublicKey;

/// Judges a file by the anchors alone: total, in time linear in the file.
pub fn judge(file: &File, anchors: &Anchors) -> Verdict {
    judge_by(file, anchors, HeaderRules::of(anchors.manifest().network))
}

/// [`judge`], with a network's rules that tests can change.
pub(super) fn judge_by(file: &File, anchors: &Anchors, rules: HeaderRules) -> Verdict {
    let mut judge = Judge { anchors, rules, used: Vec::new() };
    match judge.decide(file) {
        Ok(fact) => Verdict::Proven(Proven { fact: Box::new(fact), anchors: judge.used }),
        Err(verdict) => verdict,
    }
}

/// A file at hand, and which anchors were used for it.
pub(super) struct Judge<'a> {
    pub anchors: &'a Anchors,
    pub rules: HeaderRules,
    used: Vec<AnchorName>,
}

impl<'a> Judge<'a> {
    fn decide(&mut self, file: &File) -> Result<Fact, Verdict> {
        let rollup_id = self.anchors.manifest().rollup_id();
        if file.rollup_id != rollup_id {
            return Err(Refutation::OtherRollup.into());
        }
        self.name(AnchorName::Manifest { rollup_id });
        match &file.proof {
            Proof::Forced(proof) => self.forced(proof),
            Proof::Included(proof) => self.included(proof),
            Proof::Censored(proof) => self.censored(proof),
            Proof::Consistency(proof) => self.consistency(proof),
            Proof::Equivocation(proof) => self.equivocation(proof),
            Proof::ConflictingState(proof) => self.conflicting_state(proof),
            Proof::BrokenReceipt(proof) => self.broken_receipt(proof),
        }
    }

    /// Writes down that an anchor was used.
    pub fn name(&mut self, anchor: AnchorName) {
        if !self.used.contains(&anchor) {
            self.used.push(anchor);
        }
    }

    /// Number and hash of a block.
    pub fn block(&self, header: &SoftHeader) -> BlockName {
        BlockName { number: header.number, hash: header.hash(&self.anchors.manifest().rollup_id()) }
    }

    /// The set after a number of handovers.
    pub fn sequencers(&mut self, handovers: u32) -> Result<&'a SequencerSet, NeededAnchor> {
        let set = self.anchors.sequencers(handovers).ok_or(NeededAnchor::Sequencers { handovers })?;
        self.name(AnchorName::Sequencers { handovers });
        Ok(set)
    }

    /// Who signed: one key or more, all signatures valid.
    pub fn signers<T: Statement>(&mut self, signed: &Signed<T>) -> Result<Vec<XOnlyPublicKey>, Verdict> {
        let set = self.sequencers(signed.handovers)?;
        Ok(signed.signers(&self.anchors.manifest().rollup_id(), set).map_err(Refutation::from)?)
    }
}

/// The keys of both.
pub(super) fn in_both(
    mut some: Vec<XOnlyPublicKey>,
    others: &[XOnlyPublicKey],
) -> Result<Vec<XOnlyPublicKey>, Refutation> {
    some.retain(|key| others.contains(key));
    if some.is_empty() { Err(Refutation::OtherSigners) } else { Ok(some) }
}
