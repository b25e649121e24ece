//! Bytes in files, in hexadecimal.

use alloc::string::String;
use alloc::vec::Vec;
use bitcoin::consensus::{Decodable, Encodable, encode};
use bitcoin::hex::{DisplayHex, FromHex};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Something of Bitcoin's in its wire encoding, with nothing after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw<T>(pub T);

/// A byte string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawBytes(pub Vec<u8>);

impl<T: Encodable> Serialize for Raw<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode::serialize_hex(&self.0))
    }
}

impl<'de, T: Decodable> Deserialize<'de> for Raw<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let RawBytes(bytes) = RawBytes::deserialize(deserializer)?;
        encode::deserialize(&bytes).map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for RawBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.as_hex())
    }
}

impl<'de> Deserialize<'de> for RawBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::from_hex(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}
