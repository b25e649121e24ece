//! The manifest: every parameter of a rollup, hashed into its id (specification, section 2).
//!
//! Guarantees that a [`Manifest`] in hand keeps every bound of the specification: there is no other way
//! to make one than [`Manifest::new`], which decoding and TOML go through.

mod ledger;
mod set;
#[cfg(feature = "std")]
mod toml;

#[cfg(feature = "std")]
pub use self::toml::{DEFAULT_MAX_FORCED, DEFAULT_MAX_LAG, DEFAULT_WINDOW, TomlError, network_of};
pub use ledger::LedgerParameters;
pub use set::{BadSignatures, SIGNATURE_ENTRY_LEN, SequencerSet, SetError};

use crate::codec::{Malformed, Reader, Write};
use crate::primitives::{BlockRef, BtcHeight, RollupId, tagged_hash};
use alloc::string::String;
use alloc::vec::Vec;
use bitcoin::hashes::Hash;
use bitcoin::p2p::Magic;

const VERSION: u8 = 1;
const MAX_NAME_LEN: usize = 32;

/// Highest start block: far beyond what Bitcoin will reach, and far enough below 2^32 for all that comes after it.
const MAX_START_HEIGHT: BtcHeight = 0x7fff_ffff;

/// Which virtual machine executes the queue, with its parameters' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorSpec {
    /// The kind's byte: 0 opaque, 1 ledger, 2 evm.
    pub kind: ExecutorKind,
    /// Parameters, in the executor's own encoding.
    pub parameters: Vec<u8>,
}

/// The kinds of executor that a manifest can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutorKind {
    /// Accepts everything and has no state.
    Opaque,
    /// Signed transfers between accounts.
    Ledger,
    /// Ethereum transactions.
    Evm,
}

/// The chain that this rollup goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// Its id.
    pub rollup_id: RollupId,
    /// The genesis state is its state at `head(last_height)`.
    pub last_height: BtcHeight,
}

/// A manifest's fields, not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// 1..=32 bytes of UTF-8 without control characters.
    pub name: String,
    /// Network magic.
    pub network: Magic,
    /// The Bitcoin block whose descendants are read; below height 2^31.
    pub start: BlockRef,
    /// Bitcoin blocks after which a forced item is executed without the sequencer; 2 or more.
    pub sequencing_window: u16,
    /// Bitcoin blocks that the origin of a block with own transactions may lie behind; 1..=window.
    pub max_lag: u16,
    /// Items in one block's forced section; 1 or more.
    pub max_forced_per_block: u16,
    /// The sequencers at genesis.
    pub sequencers: SequencerSet,
    /// The virtual machine.
    pub executor: ExecutorSpec,
    /// The chain before this one, if any.
    pub predecessor: Option<Predecessor>,
}

/// A manifest that keeps every bound, and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    fields: Fields,
    rollup_id: RollupId,
}

/// Why bytes or fields are no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes end early, are not minimal, or go on after the end.
    #[error("the manifest's bytes are cut, not minimal, or too many")]
    Encoding,
    /// A version that this code does not know.
    #[error("manifest version {0}, expected {VERSION}")]
    Version(u8),
    /// The name's length or characters.
    #[error("the name must be 1 to {MAX_NAME_LEN} bytes of text without control characters")]
    Name,
    /// The start block's bound.
    #[error("start_height is {0}, must be {MAX_START_HEIGHT} or less")]
    StartHeight(BtcHeight),
    /// The window's bound.
    #[error("sequencing_window is {0}, must be 2 or more")]
    Window(u16),
    /// The lag's bounds.
    #[error("max_lag is {max_lag}, must be 1 to {sequencing_window} (the sequencing window)")]
    MaxLag {
        /// What was given.
        max_lag: u16,
        /// The upper bound.
        sequencing_window: u16,
    },
    /// The cap's bound.
    #[error("max_forced_per_block is 0, must be 1 or more")]
    MaxForced,
    /// The sequencer set.
    #[error("sequencers: {0}")]
    Set(#[from] SetError),
    /// An executor that this code does not know.
    #[error("executor kind {0} is unknown (0 opaque, 1 ledger, 2 evm)")]
    Executor(u8),
    /// Parameters that are not in their executor's encoding.
    #[error("the executor's parameters are malformed")]
    Parameters,
    /// A price at which no forced item could ever pay.
    #[error("forced_cost_per_byte is 0, must be 1 or more: it would make every forced transaction a no-op")]
    ForcedCost,
}

impl From<Malformed> for ManifestError {
    fn from(_: Malformed) -> Self {
        ManifestError::Encoding
    }
}

impl ExecutorKind {
    fn byte(self) -> u8 {
        match self {
            ExecutorKind::Opaque => 0,
            ExecutorKind::Ledger => 1,
            ExecutorKind::Evm => 2,
        }
    }
}

impl ExecutorSpec {
    fn check(&self) -> Result<(), ManifestError> {
        match self.kind {
            ExecutorKind::Opaque if self.parameters.is_empty() => Ok(()),
            ExecutorKind::Opaque => Err(ManifestError::Parameters),
            ExecutorKind::Ledger => match LedgerParameters::decode(&self.parameters) {
                None => Err(ManifestError::Parameters),
                Some(LedgerParameters { forced_cost_per_byte: 0, .. }) => Err(ManifestError::ForcedCost),
                Some(_) => Ok(()),
            },
            // To be read by an executor that does not exist yet.
            ExecutorKind::Evm => Ok(()),
        }
    }

    /// The parameters of a ledger; `None` of another executor.
    pub fn ledger(&self) -> Option<LedgerParameters> {
        (self.kind == ExecutorKind::Ledger).then(|| LedgerParameters::decode(&self.parameters))?
    }
}

impl TryFrom<u8> for ExecutorKind {
    type Error = ManifestError;
    fn try_from(byte: u8) -> Result<Self, ManifestError> {
        match byte {
            0 => Ok(ExecutorKind::Opaque),
            1 => Ok(ExecutorKind::Ledger),
            2 => Ok(ExecutorKind::Evm),
            unknown => Err(ManifestError::Executor(unknown)),
        }
    }
}

impl Manifest {
    /// Checks every bound and computes the id.
    ///
    /// # Errors
    /// The first bound that does not hold.
    pub fn new(fields: Fields) -> Result<Self, ManifestError> {
        if !(1..=MAX_NAME_LEN).contains(&fields.name.len()) || fields.name.chars().any(char::is_control) {
            return Err(ManifestError::Name);
        }
        if fields.start.height > MAX_START_HEIGHT {
            return Err(ManifestError::StartHeight(fields.start.height));
        }
        if fields.sequencing_window < 2 {
            return Err(ManifestError::Window(fields.sequencing_window));
        }
        if !(1..=fields.sequencing_window).contains(&fields.max_lag) {
            let Fields { max_lag, sequencing_window, .. } = fields;
            return Err(ManifestError::MaxLag { max_lag, sequencing_window });
        }
        if fields.max_forced_per_block == 0 {
            return Err(ManifestError::MaxForced);
        }
        fields.executor.check()?;
        let rollup_id = RollupId(tagged_hash("sortie/rollup", &[&encode(&fields)]).0);
        Ok(Self { fields, rollup_id })
    }

    /// Reads the binary form.
    ///
    /// # Errors
    /// The first field that is malformed or out of bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(ManifestError::Version(version));
        }
        let name = reader.var_bytes()?;
        let fields = Fields {
            name: core::str::from_utf8(name).map_err(|_| ManifestError::Name)?.into(),
            network: Magic::from_bytes(reader.array()?),
            start: read_block_ref(&mut reader)?,
            sequencing_window: reader.u16()?,
            max_lag: reader.u16()?,
            max_forced_per_block: reader.u16()?,
            sequencers: SequencerSet::read(&mut reader)??,
            executor: ExecutorSpec { kind: reader.u8()?.try_into()?, parameters: reader.var_bytes()?.to_vec() },
            predecessor: match reader.u8()? {
                0 => None,
                1 => Some(Predecessor { rollup_id: RollupId(reader.array()?), last_height: reader.u32()? }),
                _ => return Err(ManifestError::Encoding),
            },
        };
        if !reader.is_empty() {
            return Err(ManifestError::Encoding);
        }
        Self::new(fields)
    }

    /// The binary form, which the id hashes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.fields)
    }

    /// The rollup's id.
    pub fn rollup_id(&self) -> RollupId {
        self.rollup_id
    }
}

impl core::ops::Deref for Manifest {
    type Target = Fields;
    fn deref(&self) -> &Fields {
        &self.fields
    }
}

/// Reads `height u32 | hash [32]`.
pub(crate) fn read_block_ref(reader: &mut Reader<'_>) -> Result<BlockRef, Malformed> {
    Ok(BlockRef { height: reader.u32()?, hash: bitcoin::BlockHash::from_byte_array(reader.array()?) })
}

fn encode(fields: &Fields) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.push(VERSION);
    bytes.put_var_bytes(fields.name.as_bytes());
    bytes.put(&fields.network.to_bytes());
    bytes.put(&fields.start.height.to_le_bytes());
    bytes.put(fields.start.hash.as_ref());
    bytes.put(&fields.sequencing_window.to_le_bytes());
    bytes.put(&fields.max_lag.to_le_bytes());
    bytes.put(&fields.max_forced_per_block.to_le_bytes());
    fields.sequencers.write(&mut bytes);
    bytes.push(fields.executor.kind.byte());
    bytes.put_var_bytes(&fields.executor.parameters);
    match fields.predecessor {
        None => bytes.push(0),
        Some(Predecessor { rollup_id, last_height }) => {
            bytes.push(1);
            bytes.put(rollup_id.as_ref());
            bytes.put(&last_height.to_le_bytes());
        }
    }
    bytes
}

#[cfg(test)]
pub(crate) mod tests;
