//! The small types that everything else is written in: ids, heights, hashes.
//!
//! Guarantees that each is shown to people in one way only: Bitcoin hashes reversed, as Bitcoin Core
//! shows them (they are `bitcoin`'s own types); rollup ids, L2 hashes and roots as plain hexadecimal.

use alloc::string::String;
use bitcoin::BlockHash;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::hex::{DisplayHex, FromHex, HexToArrayError};
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A height in the Bitcoin chain, in blocks; genesis is 0.
pub type BtcHeight = u32;

/// A block number in the L2 chain; genesis is 0.
pub type L2Number = u64;

/// A Bitcoin block: where it stands and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRef {
    /// Height in the Bitcoin chain.
    pub height: BtcHeight,
    /// Block hash.
    pub hash: BlockHash,
}

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.height, self.hash)
    }
}

macro_rules! bytes_type {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0.as_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = HexToArrayError;
            fn from_str(hex: &str) -> Result<Self, Self::Err> {
                <[u8; $len]>::from_hex(hex).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; $len]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

bytes_type! {
    /// The first four bytes of a [`RollupId`]: they filter envelopes, they do not authenticate them.
    Namespace, 4
}
bytes_type! {
    /// Tagged hash of a manifest's binary form (specification, section 2).
    RollupId, 32
}
bytes_type! {
    /// A SHA-256 based value without a type of its own: Merkle root, leaf, L2 block hash, state root,
    /// transaction hash.
    Hash32, 32
}

impl RollupId {
    /// The rollup's namespace: the id's first four bytes.
    pub fn namespace(&self) -> Namespace {
        let [a, b, c, d, ..] = self.0;
        Namespace([a, b, c, d])
    }
}

/// SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> Hash32 {
    Hash32(sha256::Hash::hash(data).to_byte_array())
}

/// The BIP340 tagged hash of the concatenated `parts`.
pub fn tagged_hash(tag: &str, parts: &[&[u8]]) -> Hash32 {
    let tag = sha256(tag.as_bytes());
    let mut engine = sha256::Hash::engine();
    engine.input(tag.as_ref());
    engine.input(tag.as_ref());
    for part in parts {
        engine.input(part);
    }
    Hash32(sha256::Hash::from_engine(engine).to_byte_array())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_bitcoin_block_is_shown_by_its_height_and_its_hash_as_bitcoin_core_shows_it() {
        let mut hash = [0; 32];
        hash[0] = 0xab;
        let block = BlockRef { height: 7, hash: bitcoin::hashes::Hash::from_byte_array(hash) };
        assert_eq!(block.to_string(), alloc::format!("7 ({}ab)", "00".repeat(31)));
    }
}
