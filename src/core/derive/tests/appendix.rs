//! The example chain in the appendix of `docs/PROTOCOL.md`, which the second implementation wrote.

use super::*;
use crate::primitives::{RollupId, sha256};
use alloc::string::String;
use bitcoin::hashes::Hash;
use bitcoin::hex::{DisplayHex, FromHex};
use vectors::Node;

extern crate std;

const START_TIME: u32 = 1_700_000_000;

/// What stands under a label, in order; a label may stand there several times.
struct Examples(Vec<(String, String)>);

impl Examples {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/PROTOCOL.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (_, text) = text.split_once("<!-- examples: begin -->").expect("the appendix");
        let lines: Vec<_> = text.lines().collect();
        let labelled = lines.windows(2).filter(|pair| !pair[0].starts_with(' ') && pair[1].starts_with("    "));
        Self(labelled.map(|pair| (pair[0].into(), pair[1].trim().into())).collect())
    }

    fn all(&self, label: &str) -> Vec<&str> {
        self.0.iter().filter(|(name, _)| name == label).map(|(_, value)| value.as_str()).collect()
    }

    fn one(&self, label: &str) -> &str {
        self.all(label).first().copied().unwrap_or_else(|| panic!("no example `{label}`"))
    }

    fn bytes(&self, label: &str) -> Vec<u8> {
        Vec::from_hex(self.one(label)).unwrap()
    }
}

#[test]
fn the_example_chain_of_the_specification_is_what_this_code_derives() {
    let examples = Examples::read();
    let times: Vec<_> = (0..11).rev().map(|before| START_TIME - 600 * before).collect();
    let manifest = Manifest::decode(&examples.bytes("manifest")).unwrap();
    assert_eq!(manifest.rollup_id(), examples.one("rollup id").parse::<RollupId>().unwrap());
    let mut node = Node::start(manifest, &times);
    let genesis = node.derivation.head();
    assert_eq!(genesis.hash, examples.one("genesis: L2 block hash").parse().unwrap());
    assert_eq!(genesis.header.timestamp, examples.one("genesis: timestamp").parse::<u64>().unwrap());

    let mut heights = 0;
    for height in 101.. {
        let label = |what: &str| alloc::format!("{height}: {what}");
        let Some(raw) = examples.all(&alloc::format!("bitcoin block {height}")).first().copied() else { break };
        heights += 1;
        let seen = node.see(&Vec::from_hex(raw).unwrap());
        let hash = node.derivation.tip().block.hash.to_byte_array();
        assert_eq!(hash.to_lower_hex_string(), examples.one(&alloc::format!("hash of bitcoin block {height}")));
        for (i, hash) in seen.new_blocks.iter().enumerate() {
            assert_eq!(
                alloc::format!("{hash}"),
                examples.one(&label(&alloc::format!("L2 block hash {i}"))),
                "{height}"
            );
        }
        let items = node.items.iter().filter(|item| item.block.height == height);
        let leaves: Vec<_> = items.map(|item| item.leaf().to_lower_hex_string()).collect();
        assert_eq!(leaves, examples.all(&label("queue leaf")));
        let shown = [
            ("queue root", alloc::format!("{}", seen.queue_root)),
            ("state root", seen.state_root.map(|root| alloc::format!("{root}")).unwrap_or_default()),
            ("outcomes", seen.outcomes.join(" ")),
            ("timestamp", alloc::format!("{}", node.derivation.head().header.timestamp)),
        ];
        for (what, value) in shown {
            if let Some(expected) = examples.all(&label(what)).first() {
                assert_eq!(&value, expected, "{height}: {what}");
            }
        }
    }
    assert_eq!((heights, node.derivation.handovers()), (7, 1), "blocks 101 to 107, a handover in the last");
}

#[test]
fn the_magic_is_what_the_specification_says_it_is() {
    assert_eq!(sha256(b"sortie/envelope").0[..3], crate::envelope::MAGIC[..3]);
}
