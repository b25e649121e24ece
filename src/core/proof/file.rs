//! Files: one JSON document, of which the type and the version are read before anything else.

use super::{BrokenReceipt, Censored, ConflictingState, Consistency, Equivocation, Included, ItemProof};
use crate::primitives::RollupId;
use alloc::string::String;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

/// Most bytes of a file.
pub const MAX_FILE: usize = 33_554_432;

/// The version of the files that this code reads and writes.
pub const VERSION: u64 = 1;

/// What a file says, about a rollup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The rollup.
    pub rollup_id: RollupId,
    /// What it shows.
    pub proof: Proof,
}

/// What a file shows, by its type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one of them at a time")]
pub enum Proof {
    /// `forced`: a Bitcoin block holds an item.
    Forced(ItemProof),
    /// `included`: an item is executed.
    Included(Included),
    /// `censored`: a signed block cannot be derived.
    Censored(Censored),
    /// `consistency`: a queue grew from another.
    Consistency(Consistency),
    /// `equivocation`: two blocks for one place.
    Equivocation(Equivocation),
    /// `conflicting_state`: two states after one block.
    ConflictingState(ConflictingState),
    /// `broken_receipt`: a promised transaction is missing.
    BrokenReceipt(BrokenReceipt),
}

impl Proof {
    /// The file's type, as written in it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Proof::Forced(_) => "forced",
            Proof::Included(_) => "included",
            Proof::Censored(_) => "censored",
            Proof::Consistency(_) => "consistency",
            Proof::Equivocation(_) => "equivocation",
            Proof::ConflictingState(_) => "conflicting_state",
            Proof::BrokenReceipt(_) => "broken_receipt",
        }
    }
}

/// Why bytes are no file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// More than [`MAX_FILE`] bytes.
    #[error("{0} bytes, must be {MAX_FILE} or less")]
    TooLong(usize),
    /// Not JSON, or a field too many, missing, or of another form.
    #[error("not a proof file: {0}")]
    Json(#[from] serde_json::Error),
    /// A type that this code does not know.
    #[error("a file of type `{0}`, which this version does not know")]
    Type(String),
    /// A version that this code does not know.
    #[error("a file of version {0}, expected {VERSION}")]
    Version(u64),
}

/// What is read before the rest is believed to be of any form.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    name: String,
    version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<T> {
    #[serde(rename = "type")]
    _name: IgnoredAny,
    #[serde(rename = "version")]
    _version: IgnoredAny,
    rollup_id: RollupId,
    proof: T,
}

#[derive(Serialize)]
struct Written<'a, T> {
    #[serde(rename = "type")]
    name: &'a str,
    version: u64,
    rollup_id: RollupId,
    proof: &'a T,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// [`FileError`]: such bytes say nothing, true or false.
    pub fn from_json(bytes: &[u8]) -> Result<Self, FileError> {
        if bytes.len() > MAX_FILE {
            return Err(FileError::TooLong(bytes.len()));
        }
        let Kind { name, version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(FileError::Version(version));
        }
        match name.as_str() {
            "forced" => read(bytes, Proof::Forced),
            "included" => read(bytes, Proof::Included),
            "censored" => read(bytes, Proof::Censored),
            "consistency" => read(bytes, Proof::Consistency),
            "equivocation" => read(bytes, Proof::Equivocation),
            "conflicting_state" => read(bytes, Proof::ConflictingState),
            "broken_receipt" => read(bytes, Proof::BrokenReceipt),
            _ => Err(FileError::Type(name)),
        }
    }

    /// The file's text.
    ///
    /// # Errors
    /// [`FileError::TooLong`]: nobody could read it.
    pub fn to_json(&self) -> Result<String, FileError> {
        let text = match &self.proof {
            Proof::Forced(proof) => self.write(proof),
            Proof::Included(proof) => self.write(proof),
            Proof::Censored(proof) => self.write(proof),
            Proof::Consistency(proof) => self.write(proof),
            Proof::Equivocation(proof) => self.write(proof),
            Proof::ConflictingState(proof) => self.write(proof),
            Proof::BrokenReceipt(proof) => self.write(proof),
        }?;
        within_limit(text)
    }

    fn write<T: Serialize>(&self, proof: &T) -> Result<String, FileError> {
        let Self { rollup_id, .. } = *self;
        let name = self.proof.type_name();
        let written = Written { name, version: VERSION, rollup_id, proof };
        // For people; but the blocks of a receipt can be long enough as they are.
        let text = match self.proof {
            Proof::BrokenReceipt(_) => serde_json::to_string(&written),
            _ => serde_json::to_string_pretty(&written),
        }?;
        Ok(text + "\n")
    }
}

pub(super) fn within_limit(text: String) -> Result<String, FileError> {
    if text.len() > MAX_FILE { Err(FileError::TooLong(text.len())) } else { Ok(text) }
}

fn read<T: DeserializeOwned>(bytes: &[u8], proof_of: fn(T) -> Proof) -> Result<File, FileError> {
    let Read { rollup_id, proof, .. } = serde_json::from_slice(bytes)?;
    Ok(File { rollup_id, proof: proof_of(proof) })
}
