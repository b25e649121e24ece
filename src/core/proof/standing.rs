//! What a Bitcoin block hangs on: the anchors around it, and the work behind it.

use super::bitcoin_headers::LinkedHeaders;
use super::difficulty::{BitsChecked, HeaderRules, WorkRules};
use super::{Anchors, NeededAnchor, Refutation, Verdict};
use crate::primitives::{BlockRef, BtcHeight, Hash32};
use bitcoin::Work;
use serde::Serialize;

/// What binds a block to an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is one.
    IsAnchor,
    /// It is an ancestor of one, by hashes.
    UnderAnchor,
    /// It is a descendant of one, by work.
    OverAnchor,
}

/// What a file shows about a Bitcoin block. It never shows that the block is on the best chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BitcoinFacts {
    /// The block.
    pub block: BlockRef,
    /// The anchor that it hangs on.
    pub anchor: BlockRef,
    /// And how.
    pub standing: Standing,
    /// Number of headers from the block on, its own among them: all of the file's where they show work, else
    /// those up to the highest anchor.
    pub depth: u32,
    /// Expected number of hashes behind these headers, 256 bits, most significant byte first; none where work
    /// proves nothing (regtest, signets).
    pub work: Option<Hash32>,
    /// How well the nBits of all the file's headers could be checked, where work counts.
    pub bits: Option<BitsChecked>,
}

/// Judges where the block at `height` stands.
pub(super) fn stand(
    chain: &LinkedHeaders<'_>,
    height: BtcHeight,
    anchors: &Anchors,
    rules: &HeaderRules,
) -> Result<BitcoinFacts, Verdict> {
    let (block, _) = chain.at(height).ok_or(Refutation::NotInHeaders)?;
    let (anchor, top_anchor) = nearest(chain, height, anchors)?.ok_or(NeededAnchor::Bitcoin(block))?;
    let standing = match anchor.height {
        above if above > height => Standing::UnderAnchor,
        below if below < height => Standing::OverAnchor,
        _ => Standing::IsAnchor,
    };
    let (work, bits) = match rules {
        HeaderRules::Work(rules) => {
            let (work, bits) = check_work(chain, height, anchors, rules, top_anchor)?;
            (Some(Hash32(work.to_be_bytes())), Some(bits))
        }
        HeaderRules::Constant(demanded) => match chain.iter().find(|(_, header)| header.bits != *demanded) {
            Some((block, _)) => return Err(Refutation::Bits { height: block.height }.into()),
            None => (None, None),
        },
        HeaderRules::Linkage => (None, None),
    };
    if work.is_none() && standing != Standing::IsAnchor {
        return Err(NeededAnchor::Bitcoin(block).into());
    }
    let top = if work.is_some() { chain.top() } else { top_anchor };
    Ok(BitcoinFacts { block, anchor, standing, depth: top.height - height + 1, work, bits })
}

/// The anchor that decides about `height`, and the highest of all that the headers touch: the block itself;
/// else the lowest anchor above it; else the highest one below.
fn nearest(
    chain: &LinkedHeaders<'_>,
    height: BtcHeight,
    anchors: &Anchors,
) -> Result<Option<(BlockRef, BlockRef)>, Refutation> {
    let (mut below, mut above, mut top) = (None, None, None);
    let blocks = chain.parent().into_iter().chain(chain.iter().map(|(block, _)| block));
    for block in blocks {
        if anchors.bitcoin_height(&block.hash).is_some_and(|height| height != block.height) {
            return Err(Refutation::WrongHeight { height: block.height });
        }
        match anchors.bitcoin_hash(block.height) {
            None => continue,
            Some(hash) if hash != block.hash => return Err(Refutation::OtherBranch { height: block.height }),
            Some(_) if block.height < height => below = Some(block),
            Some(_) => above = above.or(Some(block)),
        }
        top = Some(block);
    }
    Ok(above.or(below).zip(top))
}

fn check_work(
    chain: &LinkedHeaders<'_>,
    height: BtcHeight,
    anchors: &Anchors,
    rules: &WorkRules,
    top_anchor: BlockRef,
) -> Result<(Work, BitsChecked), Verdict> {
    // Above an anchor of which nothing but the hash is known, the first header could be of any difficulty.
    if chain.at(top_anchor.height).is_none() && anchors.bitcoin_header(top_anchor.height).is_none() {
        return Err(NeededAnchor::BitcoinHeader(top_anchor).into());
    }
    let bits = rules
        .check(chain, |height| chain.at(height).map(|(_, header)| header).or_else(|| anchors.bitcoin_header(height)))?;
    let work = chain.iter().filter(|(block, _)| block.height >= height).map(|(_, header)| header.work());
    // Each of these was met by a hash: their sum is far from 256 bits.
    let work = work.reduce(|sum, work| sum + work).ok_or(Refutation::NotInHeaders)?;
    Ok((work, bits))
}
