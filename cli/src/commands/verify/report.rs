//! A verdict for people and for scripts.

use super::Anchor;
use crate::output::{count, field};
use bitcoin::XOnlyPublicKey;
use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use sortie::primitives::{Hash32, RollupId};
use sortie::proof::{
    AnchorName, BitcoinFacts, BlockName, CaseName, Fact, File, Level, Proven, QueueLeaf, Receipt, Standing, Verdict,
};
use std::fmt;

/// What a file says, and what became of it. People see it only if it is proven: all else is an error.
pub struct Report<'a> {
    what: &'static str,
    rollup_id: RollupId,
    verdict: &'a Verdict,
}

impl<'a> Report<'a> {
    pub fn new(file: &File, verdict: &'a Verdict) -> Self {
        Self { what: file.proof.type_name(), rollup_id: file.rollup_id, verdict }
    }
}

impl Serialize for Report<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serde_json::to_value(self.verdict).map_err(S::Error::custom)?;
        report["what"] = json!(self.what);
        report["message"] = json!(self.verdict.to_string());
        report["rollup_id"] = json!(self.rollup_id);
        if let Some(work) = rests_on_work(self.verdict) {
            report["work_log2"] = json!(log2(&work));
            report["cheap"] = json!(is_cheap(&work));
        }
        match self.verdict {
            Verdict::Proven(_) | Verdict::Refuted(_) => {}
            Verdict::NeedsAnchor(needed) => report["option"] = json!(format!("--anchor {}", Anchor::wanted(needed))),
            Verdict::NeedsNode(_) => report["reason"] = report.get_mut("why").map_or(Value::Null, Value::take),
        }
        if let (Verdict::NeedsNode(_), Some(fields)) = (self.verdict, report.as_object_mut()) {
            fields.remove("why");
        }
        report.serialize(serializer)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict::Proven(Proven { fact, anchors }) = self.verdict else { return Ok(()) };
        writeln!(f, "{}", self.verdict)?;
        show_fact(f, fact)?;
        if let Some(work) = rests_on_work(self.verdict).filter(is_cheap) {
            field(
                f,
                "beware",
                format_args!(
                    "2^{} hashes are cheap: anybody can make such headers; give an anchor above them",
                    log2(&work)
                ),
            )?;
        }
        anchors.iter().try_for_each(|anchor| field(f, "rests on", words_of(anchor)))
    }
}

fn show_fact(f: &mut fmt::Formatter<'_>, fact: &Fact) -> fmt::Result {
    match fact {
        Fact::Forced { leaf, tx, bitcoin } => {
            show_leaf(f, leaf)?;
            field(f, "length", count(tx.0.len() as u64, "byte"))?;
            show_bitcoin(f, bitcoin)
        }
        Fact::Included { level, block, index, leaf } => {
            show_leaf(f, leaf)?;
            field(f, "queue index", index)?;
            show_block(f, "L2 block", block)?;
            field(
                f,
                "level",
                match level {
                    Level::Claimed => "claimed: as many sequencers as it takes signed the block",
                    Level::Derived => "derived: the block is an anchor",
                },
            )
        }
        Fact::Consistent { old, new, old_block, new_block } => {
            for (name, head, block) in [("old", old, old_block), ("new", new, new_block)] {
                field(f, &format!("{name} queue"), format_args!("{}, root {}", count(head.size, "item"), head.root))?;
                if let Some(block) = block {
                    show_block(f, &format!("{name} L2 block"), block)?;
                }
            }
            Ok(())
        }
        Fact::Censored { case, signers, block, item } => {
            field(f, "fault", words_of_case(*case))?;
            if let Some(leaf) = item {
                show_leaf(f, leaf)?;
            }
            show_block(f, "L2 block", block)?;
            show_signers(f, signers)
        }
        Fact::Equivocation { signers, number, parent, blocks } => {
            field(f, "L2 number", format_args!("{number}, after {parent}"))?;
            show_both(f, "L2 block", blocks)?;
            show_signers(f, signers)
        }
        Fact::ConflictingState { signers, block, state_roots } => {
            field(f, "L2 block", block)?;
            show_both(f, "state root", state_roots)?;
            show_signers(f, signers)
        }
        Fact::BrokenReceipt { signers, receipt } => {
            let Receipt { tx_hash, first_number, last_number } = receipt;
            field(f, "transaction", tx_hash)?;
            field(f, "promised in", format_args!("L2 blocks {first_number} to {last_number}"))?;
            show_signers(f, signers)
        }
    }
}

fn show_leaf(f: &mut fmt::Formatter<'_>, leaf: &QueueLeaf) -> fmt::Result {
    field(f, "item", leaf.place)?;
    field(f, "transaction", leaf.tx_hash)?;
    field(f, "in bitcoin block", format_args!("{} ({})", leaf.height, leaf.block_hash))
}

fn show_bitcoin(f: &mut fmt::Formatter<'_>, facts: &BitcoinFacts) -> fmt::Result {
    field(
        f,
        "which",
        match facts.standing {
            Standing::IsAnchor => "is the anchor itself",
            Standing::UnderAnchor => "is an ancestor of the anchor, by hashes",
            Standing::OverAnchor => "comes after the anchor, by work",
        },
    )?;
    field(f, "depth", count(facts.depth.into(), "header"))?;
    match facts.work {
        None => field(f, "work", "not counted: on this network it proves nothing"),
        Some(work) => field(f, "work", format_args!("2^{} hashes or more", log2(&work))),
    }?;
    let Some(bits) = facts.bits else { return Ok(()) };
    let (exact, bounded, unchecked) = (bits.exact, bits.bounded, bits.unchecked);
    field(f, "nBits", format_args!("{exact} exact, {bounded} within bounds, {unchecked} not easier than the limit"))
}

/// Below this power of two a few thousand machines make the headers in a day. One block of Bitcoin has needed more
/// since 2020; testnet4 takes blocks of 2^32 hashes, which is seconds of work.
const CHEAP: u32 = 75;

fn is_cheap(work: &Hash32) -> bool {
    log2(work) < CHEAP
}

/// The work that a verdict rests on, where it is that alone: above the last block that the checker knows.
fn rests_on_work(verdict: &Verdict) -> Option<Hash32> {
    let Verdict::Proven(Proven { fact, .. }) = verdict else { return None };
    match &**fact {
        Fact::Forced { bitcoin, .. } if bitcoin.standing == Standing::OverAnchor => bitcoin.work,
        _ => None,
    }
}

/// The highest power of two that is in a number.
fn log2(number: &Hash32) -> u32 {
    let first = number.0.iter().enumerate().find(|(_, byte)| **byte != 0);
    first.map_or(0, |(at, byte)| 8 * (31 - at as u32) + byte.ilog2())
}

fn show_block(f: &mut fmt::Formatter<'_>, name: &str, block: &BlockName) -> fmt::Result {
    field(f, name, format_args!("{} ({})", block.number, block.hash))
}

fn show_both(f: &mut fmt::Formatter<'_>, name: &str, both: &[Hash32; 2]) -> fmt::Result {
    both.iter().try_for_each(|one| field(f, name, one))
}

fn show_signers(f: &mut fmt::Formatter<'_>, signers: &[XOnlyPublicKey]) -> fmt::Result {
    signers.iter().try_for_each(|signer| field(f, "signed by", signer))
}

fn words_of_case(case: CaseName) -> &'static str {
    match case {
        CaseName::NotExecuted => "an item of its own queue had room and was not executed",
        CaseName::LeftOut => "an item that Bitcoin holds was left out of the queue",
        CaseName::Replaced => "another leaf stands at the item's place",
        CaseName::FalseForcedEnd => "its forced section does not end where the one before and the queue say",
        CaseName::FalseNumber => "its number is not the one after its parent's",
        CaseName::FalseOrigin => "its origin is neither its parent's nor the Bitcoin block after that",
        CaseName::OutOfOrder => "its queue is not in Bitcoin's order",
    }
}

fn words_of(anchor: &AnchorName) -> String {
    match anchor {
        AnchorName::Manifest { rollup_id } => format!("the manifest of rollup {rollup_id}"),
        AnchorName::Sequencers { handovers: 0 } => "the manifest's sequencers".into(),
        AnchorName::Sequencers { handovers } => {
            format!("the sequencers after {}", count((*handovers).into(), "handover"))
        }
        AnchorName::Bitcoin(block) => format!("Bitcoin block {block}"),
        AnchorName::L2Block { hash } => format!("L2 block {hash}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sortie::merkle::TreeHead;
    use sortie::primitives::BlockRef;
    use sortie::proof::{NeededAnchor, NodeNeed, Refutation};

    fn shown(verdict: Verdict) -> (Value, String) {
        let report = Report { what: "forced", rollup_id: RollupId([7; 32]), verdict: &verdict };
        (serde_json::to_value(&report).expect("JSON"), report.to_string())
    }

    #[test]
    fn every_verdict_has_its_name_and_says_how_to_go_on() {
        let block = BlockRef { height: 9, hash: bitcoin::hashes::Hash::from_byte_array([3; 32]) };
        let (json, text) = shown(Verdict::Refuted(Refutation::Bits { height: 9 }));
        assert_eq!(
            (&json["verdict"], &json["reason"], &json["height"]),
            (&json!("refuted"), &json!("bits"), &json!(9))
        );
        assert_eq!((&json["what"], text.as_str()), (&json!("forced"), ""));
        let (json, _) = shown(Verdict::NeedsAnchor(NeededAnchor::Bitcoin(block)));
        assert_eq!((&json["verdict"], &json["anchor"]), (&json!("needs_anchor"), &json!("bitcoin")));
        assert_eq!(json["option"], json!(format!("--anchor bitcoin:9:{}", block.hash)));
        let queue = TreeHead { size: 1, root: Hash32([1; 32]) };
        let (json, _) = shown(Verdict::NeedsNode(NodeNeed::LeavesWithheld { queue, origin: block }));
        assert_eq!((&json["verdict"], &json["reason"]), (&json!("needs_node"), &json!("leaves_withheld")));
        let fact = Box::new(Fact::Consistent { old: queue, new: queue, old_block: None, new_block: None });
        let anchors = vec![AnchorName::Manifest { rollup_id: RollupId([7; 32]) }];
        let (json, text) = shown(Verdict::Proven(Proven { fact, anchors }));
        assert_eq!((&json["verdict"], &json["fact"]), (&json!("proven"), &json!("consistent")));
        assert_eq!(json["anchors"][0]["anchor"], json!("manifest"));
        assert!(text.contains("rests on          the manifest of rollup 0707"), "{text}");
    }

    #[test]
    fn a_proof_by_work_that_anybody_can_do_says_so() {
        let block = BlockRef { height: 9, hash: bitcoin::hashes::Hash::from_byte_array([3; 32]) };
        let place: sortie::queue::Place = format!("{}:in:0", "0".repeat(64)).parse().expect("a place");
        let forced = |standing, byte: usize| {
            let mut work = Hash32([0; 32]);
            work.0[31 - byte] = 8;
            let leaf = QueueLeaf { height: 9, block_hash: block.hash, tx_index: 1, place, tx_hash: Hash32([1; 32]) };
            let bitcoin = BitcoinFacts { block, anchor: block, standing, depth: 1, work: Some(work), bits: None };
            let fact = Box::new(Fact::Forced { leaf, tx: sortie::proof::RawBytes(vec![1]), bitcoin });
            shown(Verdict::Proven(Proven { fact, anchors: Vec::new() }))
        };
        let (json, text) = forced(Standing::OverAnchor, 4);
        assert_eq!((&json["cheap"], &json["work_log2"]), (&json!(true), &json!(35)));
        assert!(text.contains("2^35 hashes are cheap"), "{text}");
        let (json, text) = forced(Standing::OverAnchor, 9);
        assert_eq!((&json["cheap"], text.contains("cheap")), (&json!(false), false));
        let (json, text) = forced(Standing::UnderAnchor, 4);
        assert_eq!((&json["cheap"], text.contains("cheap")), (&Value::Null, false));
    }

    #[test]
    fn work_is_told_in_powers_of_two() {
        let mut number = Hash32([0; 32]);
        assert_eq!(log2(&number), 0);
        number.0[31] = 3;
        assert_eq!(log2(&number), 1);
        number.0[22] = 0x10;
        assert_eq!(log2(&number), 76);
    }
}
