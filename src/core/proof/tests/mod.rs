//! What files and verdicts promise. Most of it is tables of [`Case`]: a file, anchors, the verdict's name. The
//! same cases are the vectors in `tests/vectors/proof.json`.

extern crate std;

mod censored;
mod consistency;
mod evidence;
mod files;
mod forced;
pub(crate) mod headers;
mod honest;
mod included;
mod receipts;
mod statements;
mod transactions;
mod vectors;
mod world;

use super::*;
use crate::envelope::tests::vector_file::Hex;
use crate::manifest::{Manifest, SequencerSet};
use crate::primitives::{BlockRef, Hash32};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::block::Header;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use world::World;

/// A file and what a checker with these anchors makes of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Case {
    name: String,
    anchors: AnchorList,
    file: Value,
    verdict: String,
}

/// [`Anchors`] as vectors state them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct AnchorList {
    manifest: Hex,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bitcoin_blocks: Vec<BlockRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bitcoin_headers: Vec<(u32, Raw<Header>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    l2_blocks: Vec<Hash32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sequencers: Vec<(u32, Hex)>,
}

impl AnchorList {
    fn anchors(&self) -> Anchors {
        let mut anchors = Anchors::new(Manifest::decode(&self.manifest.0).unwrap());
        self.bitcoin_blocks.iter().for_each(|block| anchors.add_bitcoin_block(*block).unwrap());
        self.bitcoin_headers
            .iter()
            .for_each(|(height, Raw(header))| anchors.add_bitcoin_header(*height, *header).unwrap());
        self.l2_blocks.iter().for_each(|hash| anchors.add_l2_block(*hash));
        for (handovers, Hex(set)) in &self.sequencers {
            anchors.add_sequencers(*handovers, read_set(set)).unwrap();
        }
        anchors
    }
}

fn read_set(bytes: &[u8]) -> SequencerSet {
    SequencerSet::read(&mut crate::codec::Reader::new(bytes)).unwrap().unwrap()
}

/// A verdict without its particulars: `proven/forced`, `refuted/unlinked`, `needs_anchor/bitcoin` ...
fn verdict_name(verdict: &Verdict) -> String {
    let value = serde_json::to_value(verdict).unwrap();
    let detail = match verdict {
        Verdict::Proven(_) => "fact",
        Verdict::Refuted(_) => "reason",
        Verdict::NeedsAnchor(_) => "anchor",
        Verdict::NeedsNode(_) => "why",
    };
    format!("{}/{}", value["verdict"].as_str().unwrap(), value[detail].as_str().unwrap())
}

/// Makes a case of a proof, as it is written and read.
fn case(name: &str, anchors: &AnchorList, world: &World, proof: Proof, verdict: &str) -> Case {
    let file = File { rollup_id: world.manifest.rollup_id(), proof };
    let text = file.to_json().unwrap();
    let file = serde_json::from_str(&text).unwrap();
    Case { name: name.into(), anchors: anchors.clone(), file, verdict: verdict.into() }
}

fn judge_case(case: &Case) -> String {
    match File::from_json(case.file.to_string().as_bytes()) {
        Ok(file) => verdict_name(&judge(&file, &case.anchors.anchors())),
        Err(error) => format!("unreadable/{}", files::error_name(&error)),
    }
}

/// Judges every case.
fn check(cases: &[Case]) {
    let wrong: Vec<_> = cases
        .iter()
        .map(|case| (case, judge_case(case)))
        .filter(|(case, verdict)| *verdict != case.verdict)
        .map(|(case, verdict)| format!("{}: {verdict}, expected {}", case.name, case.verdict))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The fact that a file proves, and the anchors that were used.
#[track_caller]
fn proven(world: &World, proof: Proof, anchors: &AnchorList) -> (Fact, Vec<AnchorName>) {
    match judge(&File { rollup_id: world.manifest.rollup_id(), proof }, &anchors.anchors()) {
        Verdict::Proven(Proven { fact, anchors }) => (*fact, anchors),
        other => panic!("{other}"),
    }
}
