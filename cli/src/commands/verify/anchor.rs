//! Anchors as people write them.

use crate::input::{hex, xonly};
use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize, serialize_hex};
use sortie::manifest::SequencerSet;
use sortie::primitives::{BlockRef, BtcHeight, Hash32};
use sortie::proof::{AnchorName, Anchors, ConflictingAnchors, NeededAnchor};
use std::fmt;
use std::str::FromStr;

/// Something that a checker knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchor {
    Bitcoin(BlockRef),
    BitcoinHeader(BtcHeight, Header),
    L2(Hash32),
    Sequencers(u32, SequencerSet),
}

impl Anchor {
    /// Adds it to those that are held already.
    pub fn add_to(&self, anchors: &mut Anchors) -> Result<(), ConflictingAnchors> {
        match self {
            Self::Bitcoin(block) => anchors.add_bitcoin_block(*block),
            Self::BitcoinHeader(height, header) => anchors.add_bitcoin_header(*height, *header),
            Self::L2(hash) => {
                anchors.add_l2_block(*hash);
                Ok(())
            }
            Self::Sequencers(handovers, set) => anchors.add_sequencers(*handovers, set.clone()),
        }
    }

    /// The anchors of a verdict that a checker has to hold besides the manifest; `held` are those that were used.
    pub fn beside_manifest(used: &[AnchorName], held: &Anchors) -> Vec<String> {
        let named = used.iter().filter_map(|name| match *name {
            AnchorName::Manifest { .. } | AnchorName::Sequencers { handovers: 0 } => None,
            AnchorName::Sequencers { handovers } => {
                Some(Self::Sequencers(handovers, held.sequencers(handovers)?.clone()))
            }
            AnchorName::Bitcoin(block) => Some(Self::Bitcoin(block)),
            AnchorName::L2Block { hash } => Some(Self::L2(hash)),
        });
        named.map(|anchor| anchor.to_string()).collect()
    }

    /// The form in which a missing anchor can be given.
    pub fn wanted(needed: &NeededAnchor) -> String {
        match *needed {
            NeededAnchor::Bitcoin(block) => Self::Bitcoin(block).to_string(),
            NeededAnchor::BitcoinHeader(block) => format!("bitcoin-header:{}:HEX", block.height),
            NeededAnchor::L2Block { hash, .. } => Self::L2(hash).to_string(),
            NeededAnchor::Sequencers { handovers } => format!("sequencers:{handovers}:THRESHOLD:KEY,..."),
        }
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bitcoin(BlockRef { height, hash }) => write!(f, "bitcoin:{height}:{hash}"),
            Self::BitcoinHeader(height, header) => write!(f, "bitcoin-header:{height}:{}", serialize_hex(header)),
            Self::L2(hash) => write!(f, "l2:{hash}"),
            Self::Sequencers(handovers, set) => {
                write!(f, "sequencers:{handovers}:{}:", set.threshold())?;
                let keys: Vec<_> = set.keys().iter().map(ToString::to_string).collect();
                f.write_str(&keys.join(","))
            }
        }
    }
}

impl FromStr for Anchor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(':').collect();
        match parts[..] {
            ["bitcoin", height, hash] => {
                let hash = hash.parse().map_err(|_| format!("`{hash}` is not a Bitcoin block hash"))?;
                Ok(Self::Bitcoin(BlockRef { height: number(height)?, hash }))
            }
            ["bitcoin-header", height, header] => {
                let header = deserialize(&hex(header)?).map_err(|_| "a Bitcoin header has 80 bytes, 160 digits")?;
                Ok(Self::BitcoinHeader(number(height)?, header))
            }
            ["l2", hash] => hash.parse().map(Self::L2).map_err(|_| format!("`{hash}` is not the hash of an L2 block")),
            ["sequencers", handovers, threshold, keys] => {
                let keys = keys.split(',').map(xonly).collect::<Result<_, _>>()?;
                let set = SequencerSet::new(keys, number(threshold)?).map_err(|error| error.to_string())?;
                Ok(Self::Sequencers(number(handovers)?, set))
            }
            _ => Err("expected bitcoin:HEIGHT:HASH, bitcoin-header:HEIGHT:HEX, l2:HASH or \
                sequencers:HANDOVERS:THRESHOLD:KEY,..."
                .into()),
        }
    }
}

fn number<T: FromStr>(digits: &str) -> Result<T, String> {
    digits.parse().map_err(|_| format!("`{digits}` is not a number that fits here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 2] = [
        "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
        "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5",
    ];

    #[test]
    fn what_is_shown_is_what_is_read() {
        let [one, two] = KEYS;
        let table = [
            format!("bitcoin:7:{}", "0a".repeat(32)),
            format!("bitcoin-header:7:{}", "00".repeat(80)),
            format!("l2:{}", "0a".repeat(32)),
            format!("sequencers:0:1:{one}"),
            format!("sequencers:3:2:{one},{two}"),
        ];
        for text in table {
            assert_eq!(text.parse::<Anchor>().map(|anchor| anchor.to_string()), Ok(text));
        }
    }

    #[test]
    fn what_is_no_anchor_is_refused_with_the_reason() {
        let [one, two] = KEYS;
        let table = [
            (String::new(), "expected bitcoin:"),
            ("bitcoin:7".into(), "expected bitcoin:"),
            (format!("bitcoin:-7:{}", "0a".repeat(32)), "`-7` is not a number"),
            (format!("bitcoin:4294967296:{}", "0a".repeat(32)), "is not a number that fits"),
            ("bitcoin:7:0a".into(), "is not a Bitcoin block hash"),
            (format!("bitcoin-header:7:{}", "00".repeat(79)), "80 bytes"),
            (format!("bitcoin-header:7:{}", "00".repeat(81)), "80 bytes"),
            ("l2:zz".into(), "is not the hash of an L2 block"),
            ("sequencers:0:1:00".into(), "64"),
            (format!("sequencers:0:2:{one}"), "threshold 2 of 1"),
            (format!("sequencers:0:1:{two},{one}"), "ascending"),
        ];
        for (text, reason) in table {
            let said = text.parse::<Anchor>().expect_err(&text);
            assert!(said.contains(reason), "{text}: {said}");
        }
    }
}
