//! The queue: what users forced, in Bitcoin order (specification, section 4).
//!
//! An item's place is its identity, never its content: the same bytes forced twice are two items.

use crate::codec::Write;
use crate::envelope::{Body, Carrier, Found};
use crate::primitives::{BlockRef, Hash32, sha256};
use alloc::string::String;
use alloc::vec::Vec;
use bitcoin::{BlockHash, Txid};
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// Where an L2 transaction stands on Bitcoin: shown as `TXID:in:INDEX[:POSITION]` or
/// `TXID:out:INDEX[:POSITION]`, without the position if it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The Bitcoin transaction.
    pub txid: Txid,
    /// Taproot: an input. OP_RETURN: an output.
    pub carrier: Carrier,
    /// The input's or output's index.
    pub index: u32,
    /// Position in the envelope's list.
    pub position: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.carrier {
            Carrier::Taproot => "in",
            Carrier::OpReturn => "out",
        };
        write!(f, "{}:{side}:{}", self.txid, self.index)?;
        match self.position {
            0 => Ok(()),
            position => write!(f, ":{position}"),
        }
    }
}

/// A text that is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a place: expected TXID:in:INDEX[:POSITION] or TXID:out:INDEX[:POSITION]")]
pub struct BadPlace(String);

impl FromStr for Place {
    type Err = BadPlace;
    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let bad = || BadPlace(text.into());
        let digits =
            |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit()) && (part.len() == 1 || !part.starts_with('0'));
        let number = |part: &str| Some(part).filter(digits).and_then(|part| part.parse::<u32>().ok()).ok_or_else(bad);
        let mut parts = text.split(':');
        let (Some(txid), Some(side), Some(index)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad());
        };
        let carrier = match side {
            "in" => Carrier::Taproot,
            "out" => Carrier::OpReturn,
            _ => return Err(bad()),
        };
        let position = parts.next().map_or(Ok(0), number)?;
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self { txid: txid.parse().map_err(|_| bad())?, carrier, index: number(index)?, position })
    }
}

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Found {
    /// The place of this envelope's transaction at `position`; 0 for the envelope itself.
    pub fn place(&self, position: u32) -> Place {
        Place { txid: self.txid, carrier: self.carrier, index: self.index, position }
    }
}

/// One forced L2 transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The Bitcoin block that holds it.
    pub block: BlockRef,
    /// Index in that block of the Bitcoin transaction that carries it.
    pub tx_index: u32,
    /// Where in the transaction it stands.
    pub place: Place,
    /// The L2 transaction, as forced.
    pub tx: Vec<u8>,
}

impl Item {
    /// SHA-256 of the L2 transaction: what a wallet follows it by.
    pub fn tx_hash(&self) -> Hash32 {
        sha256(&self.tx)
    }

    /// The queue's list entry: [`QueueLeaf::bytes`].
    pub fn leaf(&self) -> Vec<u8> {
        QueueLeaf::from(self).bytes()
    }
}

/// The queue's list entry of one item: what its leaf is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueLeaf {
    /// Height of the Bitcoin block.
    pub height: u32,
    /// The Bitcoin block.
    pub block_hash: BlockHash,
    /// Index of the Bitcoin transaction in it.
    pub tx_index: u32,
    /// Where in the transaction the item stands.
    pub place: Place,
    /// SHA-256 of the L2 transaction.
    pub tx_hash: Hash32,
}

impl From<&Item> for QueueLeaf {
    fn from(item: &Item) -> Self {
        let Item { block: BlockRef { height, hash: block_hash }, tx_index, place, .. } = *item;
        Self { height, block_hash, tx_index, place, tx_hash: item.tx_hash() }
    }
}

impl QueueLeaf {
    /// The list entry, 113 bytes: `height u32 | block hash [32] | transaction index u32 | txid [32] |
    /// 0 input / 1 output u8 | index u32 | position u32 | SHA256(tx) [32]` (specification, section 4).
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(113);
        bytes.put(&self.height.to_le_bytes());
        bytes.put(self.block_hash.as_ref());
        bytes.put(&self.tx_index.to_le_bytes());
        bytes.put(self.place.txid.as_ref());
        bytes.push(match self.place.carrier {
            Carrier::Taproot => 0,
            Carrier::OpReturn => 1,
        });
        bytes.put(&self.place.index.to_le_bytes());
        bytes.put(&self.place.position.to_le_bytes());
        bytes.put(self.tx_hash.as_ref());
        bytes
    }

    /// What the queue is ordered by; no two items of one queue have the same.
    pub fn order(&self) -> (u32, u32, Carrier, u32, u32) {
        (self.height, self.tx_index, self.place.carrier, self.place.index, self.place.position)
    }
}

/// The items of one Bitcoin block's envelopes, in queue order.
pub fn items_of(block: BlockRef, found: &[Found]) -> Vec<Item> {
    found
        .iter()
        .flat_map(|found| {
            let txs: &[Vec<u8>] = match &found.payload {
                Ok(payload) => match &payload.body {
                    Body::Tx(tx) => core::slice::from_ref(tx),
                    Body::Txs(txs) => txs,
                    Body::Batch(_) | Body::Handover(_) | Body::Unsupported(..) => &[],
                },
                Err(_) => &[],
            };
            (0u32..).zip(txs).map(|(position, tx)| Item {
                block,
                tx_index: found.tx_index,
                place: found.place(position),
                tx: tx.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const TXID: &str = "00000000000000000000000000000000000000000000000000000000000000ab";

    #[test]
    fn a_place_is_shown_in_one_way_and_read_in_both() {
        for (text, shown) in [("in:0", "in:0"), ("out:7:3", "out:7:3"), ("in:2:0", "in:2")] {
            let place: Place = alloc::format!("{TXID}:{text}").parse().unwrap();
            assert_eq!(place.to_string(), alloc::format!("{TXID}:{shown}"));
        }
        for bad in [
            "",
            ":in:0",
            "x:in:0",
            "in:0",
            &alloc::format!("{TXID}:in:+1"),
            &alloc::format!("{TXID}:in:"),
            &alloc::format!("{TXID}:in:01"),
            &alloc::format!("{TXID}:out:00"),
            &alloc::format!("{TXID}:in:0:00"),
            &alloc::format!("{TXID}:in:0:07"),
            &alloc::format!("{TXID}:in:4294967296"),
            &alloc::format!("{TXID}:at:0"),
            &alloc::format!("{TXID}:in:0:0:0"),
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
