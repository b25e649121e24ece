//! A set of sequencers and the signatures that it gives.

use crate::codec::{Malformed, Reader, Write};
use crate::primitives::Hash32;
use alloc::vec::Vec;
use bitcoin::XOnlyPublicKey;
use bitcoin::secp256k1::{Message, Secp256k1, schnorr};
use serde::{Deserialize, Serialize};

const MAX_KEYS: usize = 64;

/// Bytes of one entry in a list of signatures: index in the set, BIP340 signature.
pub const SIGNATURE_ENTRY_LEN: usize = 65;

/// 1..=64 x-only keys in strictly ascending order, and how many of them must sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawSet", into = "RawSet")]
pub struct SequencerSet {
    keys: Vec<XOnlyPublicKey>,
    threshold: u8,
}

#[derive(Clone, Serialize, Deserialize)]
struct RawSet {
    keys: Vec<XOnlyPublicKey>,
    threshold: u8,
}

impl TryFrom<RawSet> for SequencerSet {
    type Error = SetError;
    fn try_from(raw: RawSet) -> Result<Self, SetError> {
        Self::new(raw.keys, raw.threshold)
    }
}

impl From<SequencerSet> for RawSet {
    fn from(set: SequencerSet) -> Self {
        Self { keys: set.keys, threshold: set.threshold }
    }
}

/// Why keys and a threshold are no set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// No key, or more than 64.
    #[error("{0} keys, must be 1 to {MAX_KEYS}")]
    Count(u64),
    /// Not a point of the curve.
    #[error("a key is not a valid BIP340 public key")]
    Key,
    /// Equal keys, or in the wrong order.
    #[error("the keys must be different and in ascending order")]
    Order,
    /// 0, or more than there are keys.
    #[error("threshold {threshold} of {keys} keys")]
    Threshold {
        /// What was given.
        threshold: u8,
        /// The number of keys.
        keys: usize,
    },
}

/// Why a list of signatures does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSignatures {
    /// Not exactly `threshold` entries.
    Count,
    /// Indexes out of range, or not strictly ascending.
    Signer,
    /// A signature that does not verify.
    Signature,
}

impl SequencerSet {
    /// Checks the bounds.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn new(keys: Vec<XOnlyPublicKey>, threshold: u8) -> Result<Self, SetError> {
        if !(1..=MAX_KEYS).contains(&keys.len()) {
            return Err(SetError::Count(keys.len() as u64));
        }
        if !keys.is_sorted_by(|a, b| a.serialize() < b.serialize()) {
            return Err(SetError::Order);
        }
        if !(1..=keys.len()).contains(&usize::from(threshold)) {
            return Err(SetError::Threshold { threshold, keys: keys.len() });
        }
        Ok(Self { keys, threshold })
    }

    /// The keys, ascending.
    pub fn keys(&self) -> &[XOnlyPublicKey] {
        &self.keys
    }

    /// How many must sign.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// The index of a key in the set.
    pub fn index_of(&self, key: &XOnlyPublicKey) -> Option<u8> {
        self.keys.iter().position(|k| k == key).and_then(|index| u8::try_from(index).ok())
    }

    /// Appends `varint n | n keys | threshold`.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        bytes.put_varint(self.keys.len() as u64);
        for key in &self.keys {
            bytes.put(&key.serialize());
        }
        bytes.push(self.threshold);
    }

    /// Reads what [`write`](Self::write) wrote; the bytes first, then the bounds.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Result<Self, SetError>, Malformed> {
        let count = reader.varint()?;
        if count > MAX_KEYS as u64 {
            return Ok(Err(SetError::Count(count)));
        }
        let raw = (0..count).map(|_| reader.array::<32>()).collect::<Result<Vec<_>, _>>()?;
        let threshold = reader.u8()?;
        let keys = raw.iter().map(|key| XOnlyPublicKey::from_slice(key)).collect::<Result<Vec<_>, _>>();
        Ok(keys.map_err(|_| SetError::Key).and_then(|keys| Self::new(keys, threshold)))
    }

    /// Judges a list of signatures over `message`: exactly `threshold` entries of
    /// `index u8 | BIP340 signature [64]`, indexes strictly ascending, all valid.
    ///
    /// # Errors
    /// The first of the three that does not hold, in that order.
    pub fn verify(&self, message: Hash32, signatures: &[u8]) -> Result<(), BadSignatures> {
        if signatures.len() != SIGNATURE_ENTRY_LEN * usize::from(self.threshold) {
            return Err(BadSignatures::Count);
        }
        let entries = || signatures.chunks_exact(SIGNATURE_ENTRY_LEN).filter_map(|entry| entry.split_first());
        let ascending = entries().is_sorted_by(|(a, _), (b, _)| a < b);
        if !ascending || entries().any(|(index, _)| usize::from(*index) >= self.keys.len()) {
            return Err(BadSignatures::Signer);
        }
        let secp = Secp256k1::verification_only();
        let message = Message::from_digest(message.0);
        let valid = entries().all(|(index, signature)| {
            schnorr::Signature::from_slice(signature).is_ok_and(|signature| {
                secp.verify_schnorr(&signature, &message, &self.keys[usize::from(*index)]).is_ok()
            })
        });
        if valid { Ok(()) } else { Err(BadSignatures::Signature) }
    }
}
