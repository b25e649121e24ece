//! `sortie rollup`: manifests.

use crate::config::{Settings, manifest_network, read_manifest};
use crate::escape::is_hidden;
use crate::failure::Failure;
use crate::input::{key_and_sats, xonly};
use crate::output::{Output, field};
use bitcoin::hex::DisplayHex;
use bitcoin::{Network, XOnlyPublicKey};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};
use sortie::chain::BlockSource;
use sortie::durable::{self, Access};
use sortie::follower::MIN_START_DEPTH;
use sortie::manifest::LedgerParameters;
use sortie::manifest::{
    DEFAULT_MAX_FORCED, DEFAULT_WINDOW, ExecutorKind, ExecutorSpec, Fields, Manifest, SequencerSet,
};
use sortie::primitives::{BlockRef, BtcHeight, Hash32};
use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Make a rollup's manifest, or show one
///
/// The manifest holds every parameter of a rollup; its hash is the rollup's id, and the id's first four bytes are the
/// namespace of its envelopes. Nothing is registered anywhere: whoever has the file can follow.
#[derive(Subcommand, Debug)]
pub enum Rollup {
    New(New),
    Show(Show),
}

const NEW_EXAMPLE: &str = "\
Example:
  sortie rollup new --network regtest --name demo --out rollup.toml \\
    --sequencer $SEQUENCER --account $ALICE=1000000 --account $BOB=500000";

/// Make a manifest
///
/// Takes the start block from the Bitcoin node and writes a TOML file; a file that exists is never overwritten. The
/// parameters cannot be changed later: another parameter is another rollup. On networks with real reorganisations the
/// start block has to be 100 deep.
#[derive(Args, Debug)]
#[command(after_long_help = NEW_EXAMPLE)]
pub struct New {
    /// A name for people, 1 to 32 bytes
    #[arg(long)]
    name: String,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Public key of a sequencer; may be repeated
    #[arg(long = "sequencer", value_name = "XONLY", value_parser = xonly, required = true)]
    sequencers: Vec<XOnlyPublicKey>,
    /// How many sequencers must sign a batch
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: u8,
    /// Bitcoin blocks after which a forced transaction is executed without the sequencer
    #[arg(long, value_name = "BLOCKS", default_value_t = DEFAULT_WINDOW)]
    window: u16,
    /// Bitcoin blocks that the sequencer may lag behind [default: half the window]
    #[arg(long, value_name = "BLOCKS")]
    max_lag: Option<u16>,
    /// Forced transactions in one L2 block
    #[arg(long, alias = "max-forced-per-block", value_name = "N", default_value_t = DEFAULT_MAX_FORCED)]
    max_forced: u16,
    /// The Bitcoin block whose descendants are read [default: 100 below the tip; on regtest the tip]
    #[arg(long, value_name = "H")]
    start_height: Option<BtcHeight>,
    /// What executes the transactions: signed transfers, or nothing at all
    #[arg(long, value_enum, default_value = "ledger")]
    executor: ExecutorName,
    /// Ledger: an account's balance at the start; may be repeated
    #[arg(long = "account", value_name = "KEY=SATS", value_parser = key_and_sats)]
    accounts: Vec<(XOnlyPublicKey, u64)>,
    /// Ledger: who gets the fees [default: the first --sequencer]
    #[arg(long, value_name = "KEY", value_parser = xonly)]
    fee_account: Option<XOnlyPublicKey>,
    /// Ledger: cost units that one byte of a forced transaction pays for
    #[arg(long, value_name = "N", default_value_t = 1)]
    forced_cost_per_byte: u32,
}

const SHOW_EXAMPLE: &str = "\
Examples:
  sortie rollup show rollup.toml
  sortie rollup show rollup.toml --json | jq -r .rollup_id";

/// Show a manifest's id, namespace and parameters
///
/// With --json also its binary form, which the id is the hash of.
#[derive(Args, Debug)]
#[command(after_long_help = SHOW_EXAMPLE)]
pub struct Show {
    /// The manifest [default: the one that --manifest names]
    file: Option<PathBuf>,
}

/// Forced transactions in a block from which on a full Bitcoin block of them is derived at once.
const COMFORTABLE_FORCED: u16 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExecutorName {
    Ledger,
    Opaque,
}

/// Runs a command.
pub fn run(command: Rollup, settings: &Settings, out: &Output) -> Result<(), Failure> {
    match command {
        Rollup::New(new) => new.run(settings, out),
        Rollup::Show(show) => {
            let manifest = match show.file {
                Some(path) => read_manifest(&path)?,
                None => settings.manifest()?,
            };
            out.print(&Shown::new(&manifest, None))
        }
    }
}

impl New {
    fn run(self, settings: &Settings, out: &Output) -> Result<(), Failure> {
        if self.name.contains(is_hidden) {
            return Err(Failure::usage(
                "--name: it holds a character that is not seen, so that it could pass for another",
            ));
        }
        let network = settings.network_without_manifest();
        let executor = self.executor()?;
        let mut keys = self.sequencers.clone();
        keys.sort_unstable_by_key(XOnlyPublicKey::serialize);
        let sequencers = SequencerSet::new(keys, self.threshold).map_err(Failure::usage)?;
        if self.out.exists() {
            return Err(exists(&self.out));
        }
        let manifest = Manifest::new(Fields {
            start: start(&settings.connect(network)?, network, self.start_height)?,
            name: self.name,
            network: network.magic(),
            sequencing_window: self.window,
            max_lag: self.max_lag.unwrap_or_else(|| (self.window / 2).max(1)),
            max_forced_per_block: self.max_forced,
            sequencers,
            executor,
            predecessor: None,
        })
        .map_err(Failure::usage)?;
        let written = durable::write_new(&self.out, manifest.to_toml().as_bytes(), Access::Umask);
        written.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(&self.out),
            _ => Failure::file(&self.out, &error),
        })?;

        let confirmations = settings.confirmations(network);
        let comfortable = confirmations.saturating_mul(4).saturating_add(6);
        if u32::from(self.window) < comfortable {
            out.warn(format_args!(
                "a window of {} leaves a sequencer little time: {comfortable} or more is safe with --confirmations {confirmations}",
                self.window
            ));
        }
        if self.max_forced < COMFORTABLE_FORCED {
            out.warn(format_args!(
                "with --max-forced {} a list of transactions that any stranger forces becomes thousands of L2 blocks, which every follower then spends minutes on; {COMFORTABLE_FORCED} or more is safe",
                self.max_forced
            ));
        }
        out.print(&Shown::new(&manifest, Some(self.out)))
    }

    fn executor(&self) -> Result<ExecutorSpec, Failure> {
        if self.executor == ExecutorName::Opaque {
            if !self.accounts.is_empty() || self.fee_account.is_some() {
                return Err(Failure::usage("--account and --fee-account are for --executor ledger"));
            }
            return Ok(ExecutorSpec { kind: ExecutorKind::Opaque, parameters: Vec::new() });
        }
        if self.forced_cost_per_byte == 0 {
            return Err(Failure::refused(
                "--forced-cost-per-byte 0 would make every forced transaction a no-op: the forced path would be closed",
            ));
        }
        let fee_account = self.fee_account.or(self.sequencers.first().copied());
        let fee_account = fee_account.ok_or_else(|| Failure::usage("--executor ledger needs --fee-account"))?;
        let mut accounts: Vec<_> = self.accounts.iter().map(|(key, sats)| (key.serialize(), *sats)).collect();
        accounts.sort_unstable();
        if let Some(pair) = accounts.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Failure::usage(format_args!("--account {} is given twice", Hash32(pair[0].0))));
        }
        let parameters = LedgerParameters {
            forced_cost_per_byte: self.forced_cost_per_byte,
            fee_account: fee_account.serialize(),
            accounts,
        };
        let bytes = parameters.encode();
        if LedgerParameters::decode(&bytes).is_none() {
            return Err(Failure::usage("the balances of all --account together do not fit 64 bits"));
        }
        Ok(ExecutorSpec { kind: ExecutorKind::Ledger, parameters: bytes })
    }
}

fn exists(path: &std::path::Path) -> Failure {
    Failure::refused(format_args!("{} exists already and was not touched; choose another --out", path.display()))
}

/// The start block: deep enough that it stays, except where the chain is ours.
fn start(node: &impl BlockSource, network: Network, height: Option<BtcHeight>) -> Result<BlockRef, Failure> {
    let tip = node.tip()?;
    if network == Network::Regtest {
        let height = height.unwrap_or(tip.height);
        return block_at(node, height, tip.height);
    }
    let height = match height {
        Some(height) => height,
        None => tip.height.checked_sub(MIN_START_DEPTH).ok_or_else(|| {
            Failure::refused(format_args!(
                "the node's tip is at {}: no block is {MIN_START_DEPTH} deep yet",
                tip.height
            ))
        })?,
    };
    let depth = (tip.height + 1).saturating_sub(height);
    if depth < MIN_START_DEPTH {
        let lowest = (tip.height + 1).saturating_sub(MIN_START_DEPTH);
        return Err(Failure::refused(format_args!(
            "block {height} is {depth} deep and may still be reorganised away; the start must be {MIN_START_DEPTH} deep: --start-height {lowest} or lower"
        )));
    }
    block_at(node, height, tip.height)
}

fn block_at(node: &impl BlockSource, height: BtcHeight, tip: BtcHeight) -> Result<BlockRef, Failure> {
    let hash = node.block_hash(height)?;
    let hash = hash.ok_or_else(|| Failure::usage(format_args!("there is no block {height} yet; the tip is {tip}")))?;
    Ok(BlockRef { height, hash })
}

#[derive(Serialize)]
struct Shown {
    rollup_id: String,
    namespace: String,
    name: String,
    network: String,
    start: BlockRef,
    sequencing_window: u16,
    max_lag: u16,
    max_forced_per_block: u16,
    sequencers: SequencerSet,
    executor: Value,
    predecessor: Value,
    binary: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

impl Shown {
    fn new(manifest: &Manifest, file: Option<PathBuf>) -> Self {
        let network = manifest_network(manifest);
        Self {
            rollup_id: manifest.rollup_id().to_string(),
            namespace: manifest.rollup_id().namespace().to_string(),
            name: manifest.name.clone(),
            network: network.map_or_else(|_| manifest.network.to_string(), |network| network.to_string()),
            start: manifest.start,
            sequencing_window: manifest.sequencing_window,
            max_lag: manifest.max_lag,
            max_forced_per_block: manifest.max_forced_per_block,
            sequencers: manifest.sequencers.clone(),
            executor: executor(&manifest.executor),
            predecessor: manifest.predecessor.map_or(
                Value::Null,
                |predecessor| json!({ "rollup_id": predecessor.rollup_id, "last_height": predecessor.last_height }),
            ),
            binary: manifest.encode().to_lower_hex_string(),
            file,
        }
    }
}

fn executor(spec: &ExecutorSpec) -> Value {
    match spec.ledger() {
        Some(parameters) => {
            let account =
                |(account, balance): &([u8; 32], u64)| json!({ "account": Hash32(*account), "balance_sat": balance });
            json!({
                "kind": "ledger",
                "forced_cost_per_byte": parameters.forced_cost_per_byte,
                "fee_account": Hash32(parameters.fee_account),
                "accounts": parameters.accounts.iter().map(account).collect::<Vec<_>>(),
            })
        }
        None if spec.kind == ExecutorKind::Opaque => json!({ "kind": "opaque" }),
        None => json!({ "kind": "evm", "parameters": spec.parameters.to_lower_hex_string() }),
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        field(f, "rollup id", &self.rollup_id)?;
        field(f, "namespace", &self.namespace)?;
        field(f, "name", &self.name)?;
        field(f, "network", &self.network)?;
        field(f, "start", self.start)?;
        field(f, "window", format_args!("{} Bitcoin blocks", self.sequencing_window))?;
        field(f, "max lag", format_args!("{} Bitcoin blocks", self.max_lag))?;
        field(f, "max forced", format_args!("{} a block", self.max_forced_per_block))?;
        let (threshold, keys) = (self.sequencers.threshold(), self.sequencers.keys());
        field(f, "sequencers", format_args!("{threshold} of {} must sign", keys.len()))?;
        for key in keys {
            field(f, "", key)?;
        }
        let text = |key: &str| self.executor[key].as_str().unwrap_or_default().to_owned();
        field(f, "executor", text("kind"))?;
        if let Some(accounts) = self.executor["accounts"].as_array() {
            field(f, "fee account", text("fee_account"))?;
            field(f, "forced cost", format_args!("{} a byte", self.executor["forced_cost_per_byte"]))?;
            for account in accounts {
                let key = account["account"].as_str().unwrap_or_default();
                field(f, "account", format_args!("{key} {} sat", account["balance_sat"]))?;
            }
        }
        if self.predecessor.is_object() {
            field(f, "predecessor", &self.predecessor)?;
        }
        match &self.file {
            Some(file) => field(f, "written to", file.display()),
            None => Ok(()),
        }
    }
}
