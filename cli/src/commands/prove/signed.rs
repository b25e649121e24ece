//! A sequencer's saved answers, as arguments.

use crate::bitcoin::Bitcoin;
use crate::commands::verify::read_file;
use crate::config::Settings;
use crate::failure::Failure;
use crate::input::text_file;
use crate::output::Output;
use bitcoin::block::Header;
use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sortie::api::wire::BlockAnswer;
use sortie::evidence::{ShownBlocks, header_on_any_branch};
use sortie::proof::{Proof, ProvenLeaf, Raw, Receipt, Signed, SignedBlock, SoftHeader};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where signed blocks come from.
#[derive(Args, Clone, Debug)]
pub struct SignedBy {
    /// The sequencer that signed
    #[arg(long, env = "SORTIE_SEQUENCER", value_name = "URL", hide_env_values = true)]
    #[arg(required_unless_present = "blocks")]
    sequencer: Option<String>,
    /// Ask nobody: a saved answer of GET /v1/block/NUMBER; may be repeated
    #[arg(long, value_name = "FILE")]
    blocks: Vec<PathBuf>,
}

/// A saved answer of `GET /v1/tx/SHA256`, of which only the receipt counts.
#[derive(Deserialize)]
struct ReceiptAnswer {
    receipt: Signed<Receipt>,
}

impl SignedBy {
    /// The blocks: from the sequencer, unless there are saved ones.
    pub fn blocks(&self, settings: &Settings) -> Result<ShownBlocks, Failure> {
        if let (Some(url), []) = (&self.sequencer, &self.blocks[..]) {
            return Ok(ShownBlocks::Client(settings.sequencer(url)?));
        }
        let mut saved = BTreeMap::new();
        for path in &self.blocks {
            let block = read_block(path)?;
            saved.insert(block.header.number, block);
        }
        Ok(ShownBlocks::Saved(saved))
    }
}

fn read_answer<T: DeserializeOwned>(path: &Path, of: &str) -> Result<T, Failure> {
    serde_json::from_str(&text_file(path)?)
        .map_err(|error| Failure::usage(format_args!("{}: no answer of GET {of}: {error}", path.display())))
}

fn read_block(path: &Path) -> Result<BlockAnswer, Failure> {
    read_answer(path, "/v1/block/NUMBER")
}

/// What was signed for a block, from a saved answer.
pub fn read_signed(path: &Path) -> Result<SignedBlock, Failure> {
    read_block(path)?.signed.ok_or_else(|| Failure::usage(format_args!("{}: the block is not signed", path.display())))
}

/// The leaf of a sequencer's queue that an `included` file shows.
pub fn read_leaf(path: &Path) -> Result<ProvenLeaf, Failure> {
    match read_file(path)?.proof {
        Proof::Included(included) => Ok(included.item),
        other => Err(Failure::usage(format_args!(
            "{}: a file of type {}, expected one that shows an item in the block's queue (included)",
            path.display(),
            other.type_name()
        ))),
    }
}

/// A receipt, from a saved answer.
pub fn read_receipt(path: &Path) -> Result<Signed<Receipt>, Failure> {
    read_answer::<ReceiptAnswer>(path, "/v1/tx/SHA256 with a receipt").map(|answer| answer.receipt)
}

/// The Bitcoin header that shows one origin to be the parent of the other, if heights allow that.
pub fn child_origin(
    first: &SoftHeader,
    second: &SoftHeader,
    settings: &Settings,
    out: &Output,
) -> Result<Option<Raw<Header>>, Failure> {
    let (low, high) = match first.origin.height <= second.origin.height {
        true => (first.origin, second.origin),
        false => (second.origin, first.origin),
    };
    if low.height.checked_add(1) != Some(high.height) {
        return Ok(None);
    }
    let source: Bitcoin = settings.connect(settings.network()?)?;
    let found = header_on_any_branch(&source, &high)?;
    if found.is_none() {
        out.note(format_args!(
            "this Bitcoin node does not know block {high}, whose header would show what comes before it"
        ));
    }
    Ok(found.map(Raw))
}
