//! The files in `tests/vectors`, which a second implementation reads too.

extern crate std;

use alloc::string::String;
use alloc::vec::Vec;
use bitcoin::hex::{DisplayHex, FromHex};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;

/// A byte string, in JSON hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hex(pub Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.as_hex())
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::from_hex(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

/// A file that is a list of cases.
#[derive(Serialize, Deserialize)]
pub(crate) struct Cases<T> {
    /// One for each promise.
    pub cases: Vec<T>,
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(file)
}

/// Reads a file.
pub(crate) fn read<T: DeserializeOwned>(file: &str) -> T {
    let text = std::fs::read_to_string(path(file))
        .unwrap_or_else(|error| panic!("{file}: {error}; SORTIE_WRITE_VECTORS=1 writes those that Rust generates"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The cases of a file, written first from `generate` if the environment has `SORTIE_WRITE_VECTORS`.
pub(crate) fn cases<T: Serialize + DeserializeOwned>(file: &str, generate: impl FnOnce() -> Vec<T>) -> Vec<T> {
    if std::env::var_os("SORTIE_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&Cases { cases: generate() }).unwrap();
        std::fs::write(path(file), text + "\n").unwrap();
    }
    read::<Cases<T>>(file).cases
}
