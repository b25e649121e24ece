//! Where blocks are read from, and what is checked of them.

use crate::bitcoin::Bitcoin;
use crate::failure::Failure;
use crate::mend::Mended;
use crate::output::Output;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use sortie::chain::{BlkFiles, BlockReader, ChainError, Mempool};
use sortie::scanner::{Refusal, Scanner};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// More than a person ever wants to take back, and what a file is kept small by.
const MAX_REORG_DEPTH: i64 = 100_000;

/// How blocks are read; the settings of every command that follows Bitcoin.
#[derive(Args, Clone, Debug, Default)]
pub struct Reading {
    #[arg(long, global = true, hide = true, env = "SORTIE_SOURCE", value_name = "KIND")]
    pub source: Option<SourceName>,
    #[arg(long, global = true, hide = true, env = "SORTIE_BLOCKS_DIR", value_name = "DIR")]
    pub blocks_dir: Option<PathBuf>,
    #[arg(long, global = true, hide = true, env = "SORTIE_VERIFY_ALL_BLOCKS")]
    pub verify_all_blocks: bool,
    #[arg(long, global = true, hide = true, env = "SORTIE_MAX_REORG_DEPTH", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=MAX_REORG_DEPTH))]
    pub max_reorg_depth: Option<u32>,
}

/// The kinds of source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SourceName {
    /// The fastest that there is.
    #[default]
    Auto,
    /// JSON-RPC.
    Rpc,
    /// REST.
    Rest,
    /// Block files.
    Blk,
}

/// The sources of one command, beside the one whose chain it is.
pub struct Readers {
    pub readers: Vec<Box<dyn BlockReader>>,
    /// Whether blocks without envelopes are checked, too.
    pub verify_all: bool,
    /// Which one is read first.
    first: String,
    /// Why it is that one.
    why: String,
}

impl Reading {
    /// Opens what blocks are read from, the fastest first.
    ///
    /// # Errors
    /// Only what was asked for by name must be there.
    pub fn open(&self, bitcoin: &Bitcoin, out: &Output) -> Result<Readers, Failure> {
        let mut readers: Vec<Box<dyn BlockReader>> = Vec::new();
        let mut why = String::new();
        let name = self.source.unwrap_or_default();
        if matches!(name, SourceName::Auto | SourceName::Blk) {
            match (&self.blocks_dir, name) {
                (Some(dir), _) => match BlkFiles::open(dir, bitcoin.network()) {
                    Ok(files) => {
                        why = "--blocks-dir is readable".into();
                        readers.push(Box::new(files));
                    }
                    Err(error) if name == SourceName::Blk => return Err(error.into()),
                    Err(error) => out.warn(format_args!("{}; reading blocks elsewhere", Mended(&error))),
                },
                (None, SourceName::Blk) => {
                    return Err(Failure::usage("--source blk needs --blocks-dir, the node's folder with blk00000.dat"));
                }
                (None, _) => {}
            }
        }
        match (bitcoin.node(), name) {
            (Some(node), SourceName::Auto | SourceName::Rest) => match node.rest() {
                Ok(rest) => {
                    if why.is_empty() {
                        why = "the node serves REST".into();
                    }
                    readers.push(Box::new(rest));
                }
                Err(error) if name == SourceName::Rest => return Err(error.into()),
                Err(ChainError::RestDisabled { .. }) if why.is_empty() => {
                    why = "the node does not serve REST, start it with -rest for more speed".into();
                }
                Err(_) => {}
            },
            (None, SourceName::Rest | SourceName::Rpc) => {
                return Err(Failure::usage(
                    "--source rest and rpc need a Bitcoin node; leave it out for an Esplora server",
                ));
            }
            _ => {}
        }
        let first = match (readers.first(), bitcoin.node()) {
            (Some(reader), _) => reader.name(),
            (None, Some(node)) => format!("RPC at {}", node.url()),
            (None, None) => bitcoin.name().into(),
        };
        let why = if name == SourceName::Auto { why } else { "--source says so".into() };
        Ok(Readers { readers, verify_all: self.verify_all_blocks, first, why })
    }
}

impl Readers {
    /// Reads the chain by these sources.
    pub fn scanner<'a>(&'a self, bitcoin: &'a Bitcoin) -> Scanner<'a> {
        Scanner::from(bitcoin).readers(&self.readers).verify_all_blocks(self.verify_all)
    }
}

/// What is read first, and why that.
impl fmt::Display for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first)?;
        if self.why.is_empty() { Ok(()) } else { write!(f, " ({})", self.why) }
    }
}

/// Sources that were refused something, and were told of.
#[derive(Debug, Default)]
pub struct Refusals(BTreeSet<String>);

impl Refusals {
    /// Tells of each source once: it may be wrong about every block.
    pub fn tell(&mut self, refused: &[Refusal], out: &Output) {
        for refusal in refused {
            if self.0.insert(refusal.source.clone()) {
                out.warn(refusal);
            }
        }
    }
}
