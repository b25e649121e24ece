//! Acts on a chain, one Bitcoin block each.

use super::carry::{Envelope, Miner};
use super::sequencer::{Act, HostileSequencer, Post};
use anyhow::{Context, Result, ensure};
use sortie::chain::BlockSource;
use sortie::derive::Verdict;
use sortie::envelope::{Body, Carrier};
use sortie::primitives::BlockRef;

impl HostileSequencer {
    /// Does something in the next Bitcoin block, between two forced transactions.
    ///
    /// Mines blocks with one forced transaction each first, as many as the act must
    /// [wait](Self::must_wait) for. Gives the Bitcoin blocks that were mined, so that a follower under test can
    /// be held against [`observer`](Self::observer) at the last one.
    ///
    /// # Errors
    /// Somebody derives another verdict than the act's; an item waited longer than its window; no answer.
    pub fn perform(&mut self, act: Act, miner: &impl Miner, source: &impl BlockSource) -> Result<Vec<BlockRef>> {
        let mut mined = Vec::new();
        while self.must_wait(act) > 0 {
            mined.push(self.mine(&Post::default(), miner, source)?);
        }
        let post = self.prepare(act)?;
        mined.push(self.mine(&post, miner, source).with_context(|| format!("{act:?}"))?);
        Ok(mined)
    }

    /// Mines a block with a post between two forced transactions, and checks what everyone makes of it.
    ///
    /// # Errors
    /// As [`perform`](Self::perform).
    pub fn mine(&mut self, post: &Post, miner: &impl Miner, source: &impl BlockSource) -> Result<BlockRef> {
        let next = self.observer().tip().height + 1;
        let force = |carrier, text: &str| {
            let tx = format!("forced {text} in block {next}").into_bytes();
            Envelope { carrier, payload: self.payload(Body::Tx(tx)) }
        };
        let (first, last) = (force(Carrier::Taproot, "first"), force(Carrier::OpReturn, "last"));
        let envelopes = [&[first][..], &post.envelopes, &[last]].concat();
        let at = miner.mine_envelopes(&envelopes)?;
        self.follow(source)?;
        ensure!(self.observer().tip() == at, "block {at} was mined, {} is the tip", self.observer().tip());
        let verdicts = self.observer().verdicts();
        let shown = |verdicts: &[Verdict]| verdicts.iter().map(Verdict::to_string).collect::<Vec<_>>().join(", ");
        ensure!(
            verdicts == post.verdicts,
            "block {at}: expected {}; derived {}",
            shown(&post.verdicts),
            shown(&verdicts)
        );
        self.observer().check_guarantee()?;
        Ok(at)
    }
}
