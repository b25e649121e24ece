//! The manifest as people edit it.

use super::{ExecutorKind, ExecutorSpec, Fields, LedgerParameters, Manifest, ManifestError, Predecessor, SequencerSet};
use crate::primitives::{BlockRef, BtcHeight, Hash32, RollupId};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::p2p::Magic;
use bitcoin::{BlockHash, Network, XOnlyPublicKey};
use serde::{Deserialize, Serialize};

/// Why a text is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum TomlError {
    /// Not TOML, a field missing, unknown, or of another type.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// Neither a network's name nor four bytes of magic.
    #[error("network `{0}` is unknown: expected bitcoin, signet, testnet4, regtest or 8 hex digits of magic")]
    Network(String),
    /// Ledger parameters out of bounds.
    #[error("executor: accounts must be different and their balances must fit 64 bits together")]
    Accounts,
    /// Parameters that are not hexadecimal.
    #[error("executor: parameters must be hexadecimal")]
    Parameters,
    /// The id that the text names is not the id of what it says.
    #[error(
        "it says rollup_id {said}, and what it says makes {made}: it was changed; get it from the rollup's team anew"
    )]
    OtherId {
        /// The id in the text.
        said: RollupId,
        /// The id of everything else in it.
        made: RollupId,
    },
    /// A bound of the specification.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    /// Checked, never believed; left out of the hash that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollup_id: Option<RollupId>,
    name: String,
    network: String,
    start_height: BtcHeight,
    start_hash: BlockHash,
    #[serde(default = "default_window")]
    sequencing_window: u16,
    #[serde(default = "default_lag")]
    max_lag: u16,
    #[serde(default = "default_cap")]
    max_forced_per_block: u16,
    sequencers: Sequencers,
    executor: Executor,
    #[serde(skip_serializing_if = "Option::is_none")]
    predecessor: Option<PredecessorTable>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sequencers {
    keys: Vec<XOnlyPublicKey>,
    #[serde(default = "default_threshold")]
    threshold: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Executor {
    Opaque,
    Ledger {
        forced_cost_per_byte: u32,
        fee_account: Hash32,
        #[serde(default)]
        accounts: Vec<LedgerAccount>,
    },
    Evm {
        parameters: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerAccount {
    account: Hash32,
    balance: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PredecessorTable {
    rollup_id: RollupId,
    last_height: BtcHeight,
}

/// Default of `sequencing_window`, in Bitcoin blocks.
pub const DEFAULT_WINDOW: u16 = 36;
/// Default of `max_lag`, in Bitcoin blocks.
pub const DEFAULT_MAX_LAG: u16 = 18;
/// Default of `max_forced_per_block`, in items.
pub const DEFAULT_MAX_FORCED: u16 = 1000;

fn default_window() -> u16 {
    DEFAULT_WINDOW
}
fn default_lag() -> u16 {
    DEFAULT_MAX_LAG
}
fn default_cap() -> u16 {
    DEFAULT_MAX_FORCED
}
fn default_threshold() -> u8 {
    1
}

impl Manifest {
    /// Reads a manifest from TOML. Keys and accounts may stand in any order.
    ///
    /// # Errors
    /// What is wrong with the text, the first bound that does not hold, or a `rollup_id` of another manifest.
    pub fn from_toml(text: &str) -> Result<Self, TomlError> {
        let document: Document = toml::from_str(text)?;
        let mut keys = document.sequencers.keys;
        keys.sort_unstable_by_key(XOnlyPublicKey::serialize);
        let set = SequencerSet::new(keys, document.sequencers.threshold).map_err(ManifestError::Set)?;
        let manifest = Self::new(Fields {
            name: document.name,
            network: parse_magic(&document.network)?,
            start: BlockRef { height: document.start_height, hash: document.start_hash },
            sequencing_window: document.sequencing_window,
            max_lag: document.max_lag,
            max_forced_per_block: document.max_forced_per_block,
            sequencers: set,
            executor: document.executor.spec()?,
            predecessor: document
                .predecessor
                .map(|PredecessorTable { rollup_id, last_height }| Predecessor { rollup_id, last_height }),
        })?;
        match document.rollup_id {
            Some(said) if said != manifest.rollup_id => Err(TomlError::OtherId { said, made: manifest.rollup_id }),
            _ => Ok(manifest),
        }
    }

    /// The manifest as TOML, with its id.
    pub fn to_toml(&self) -> String {
        let document = Document {
            rollup_id: Some(self.rollup_id),
            name: self.name.clone(),
            network: show_magic(self.network),
            start_height: self.start.height,
            start_hash: self.start.hash,
            sequencing_window: self.sequencing_window,
            max_lag: self.max_lag,
            max_forced_per_block: self.max_forced_per_block,
            sequencers: Sequencers { keys: self.sequencers.keys().to_vec(), threshold: self.sequencers.threshold() },
            executor: Executor::of_spec(&self.executor),
            predecessor: self
                .predecessor
                .map(|Predecessor { rollup_id, last_height }| PredecessorTable { rollup_id, last_height }),
        };
        toml::to_string(&document).unwrap_or_else(|_| unreachable!("a manifest is plain data"))
    }
}

impl Executor {
    fn spec(self) -> Result<ExecutorSpec, TomlError> {
        let (kind, parameters) = match self {
            Executor::Opaque => (ExecutorKind::Opaque, Vec::new()),
            Executor::Ledger { forced_cost_per_byte, fee_account, accounts } => {
                let mut accounts: Vec<_> =
                    accounts.into_iter().map(|LedgerAccount { account, balance }| (account.0, balance)).collect();
                accounts.sort_unstable();
                let parameters =
                    LedgerParameters { forced_cost_per_byte, fee_account: fee_account.0, accounts }.encode();
                LedgerParameters::decode(&parameters).ok_or(TomlError::Accounts)?;
                (ExecutorKind::Ledger, parameters)
            }
            Executor::Evm { parameters } => {
                (ExecutorKind::Evm, Vec::from_hex(&parameters).map_err(|_| TomlError::Parameters)?)
            }
        };
        Ok(ExecutorSpec { kind, parameters })
    }

    fn of_spec(spec: &ExecutorSpec) -> Self {
        match spec.ledger() {
            Some(parameters) => Executor::Ledger {
                forced_cost_per_byte: parameters.forced_cost_per_byte,
                fee_account: Hash32(parameters.fee_account),
                accounts: parameters
                    .accounts
                    .into_iter()
                    .map(|(account, balance)| LedgerAccount { account: Hash32(account), balance })
                    .collect(),
            },
            None if spec.kind == ExecutorKind::Opaque => Executor::Opaque,
            None => Executor::Evm { parameters: spec.parameters.to_lower_hex_string() },
        }
    }
}

/// The network that a magic belongs to, if it is one of the four that Sortie names.
pub fn network_of(magic: Magic) -> Option<Network> {
    [Network::Bitcoin, Network::Signet, Network::Testnet4, Network::Regtest]
        .into_iter()
        .find(|network| network.magic() == magic)
}

fn parse_magic(text: &str) -> Result<Magic, TomlError> {
    let by_name = text.parse::<Network>().ok().map(|network| network.magic());
    let magic = by_name.or_else(|| <[u8; 4]>::from_hex(text).ok().map(Magic::from_bytes));
    magic.ok_or_else(|| TomlError::Network(text.into()))
}

fn show_magic(magic: Magic) -> String {
    match network_of(magic) {
        Some(network) => network.to_string(),
        None => magic.to_bytes().to_lower_hex_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::signers::Signers;
    use crate::manifest::tests::sound_manifest;

    fn ledger() -> ExecutorSpec {
        let parameters = LedgerParameters {
            forced_cost_per_byte: 3,
            fee_account: [9; 32],
            accounts: vec![([1; 32], 10), ([2; 32], u64::from(u32::MAX))],
        };
        ExecutorSpec { kind: ExecutorKind::Ledger, parameters: parameters.encode() }
    }

    #[test]
    fn every_manifest_reads_back_from_its_toml() {
        let executors = [
            ExecutorSpec { kind: ExecutorKind::Opaque, parameters: Vec::new() },
            ledger(),
            ExecutorSpec { kind: ExecutorKind::Evm, parameters: vec![1, 2, 0xff] },
        ];
        let predecessor = Predecessor { rollup_id: RollupId([7; 32]), last_height: 40 };
        let magics = ["f9beb4d9", "0a03cf40", "1c163f28", "fabfb5da", "01020304"];
        for (executor, magic) in executors.iter().flat_map(|executor| magics.map(|magic| (executor, magic))) {
            for predecessor in [None, Some(predecessor)] {
                let manifest = Manifest::new(Fields {
                    network: Magic::from_bytes(<[u8; 4]>::from_hex(magic).unwrap()),
                    sequencers: Signers::new([1, 2, 3], 2).set(),
                    executor: executor.clone(),
                    predecessor,
                    ..(*sound_manifest()).clone()
                });
                let manifest = manifest.unwrap();
                let text = manifest.to_toml();
                assert_eq!(Manifest::from_toml(&text).unwrap(), manifest, "{text}");
            }
        }
    }

    #[test]
    fn a_manifest_that_was_changed_is_another_than_it_says() {
        let manifest = sound_manifest();
        let text = manifest.to_toml();
        let changed = text.replacen("sequencing_window = ", "sequencing_window = 1", 1);
        let without = changed.lines().filter(|line| !line.starts_with("rollup_id")).collect::<Vec<_>>().join("\n");
        let other = Manifest::from_toml(&without).unwrap();
        match Manifest::from_toml(&changed) {
            Err(TomlError::OtherId { said, made }) => {
                assert_eq!((said, made), (manifest.rollup_id(), other.rollup_id()));
            }
            read => panic!("{read:?}"),
        }
    }

    #[test]
    fn networks_have_their_names_and_other_magics_stay_numbers() {
        for (network, name) in [
            (Network::Bitcoin, "bitcoin"),
            (Network::Signet, "signet"),
            (Network::Testnet4, "testnet4"),
            (Network::Regtest, "regtest"),
        ] {
            assert_eq!(network_of(network.magic()), Some(network));
            assert_eq!(show_magic(network.magic()), name);
        }
        assert_eq!(network_of(Network::Testnet.magic()), None);
        assert_eq!(show_magic(Magic::from_bytes([1, 2, 3, 4])), "01020304");
    }

    #[test]
    fn what_is_left_out_has_the_stated_value() {
        let set = Signers::new([1], 1).set();
        let [key] = set.keys() else { panic!("one key") };
        let text = format!(
            "name = 'x'\nnetwork = 'regtest'\nstart_height = 5\nstart_hash = '{:064}'\n[sequencers]\nkeys = ['{key}']\n[executor]\nkind = 'opaque'\n",
            0
        );
        let manifest = Manifest::from_toml(&text).unwrap();
        assert_eq!((manifest.sequencing_window, manifest.max_lag, manifest.max_forced_per_block), (36, 18, 1000));
        assert_eq!(manifest.sequencers, set);
    }
}
