//! What a sequencer signed: from its own mouth, or from answers that somebody saved.

use super::followed::{Followed, changed, header};
use crate::commands::verify::read_file;
use crate::config::Settings;
use crate::failure::Failure;
use crate::http::{BlockAnswer, SequencerUrl};
use crate::input::text_file;
use crate::output::Output;
use bitcoin::block::Header;
use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sortie::merkle::Tree;
use sortie::primitives::{L2Number, sha256};
use sortie::proof::{self, LeafRange, Proof, ProvenLeaf, Raw, RawBytes, Receipt, ReceiptBlock, Signed, SoftHeader};
use sortie::sequencer::SignedBlock;
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

/// An answer of `GET /v1/tx/SHA256`, as far as it matters.
#[derive(Deserialize)]
struct TxAnswer {
    receipt: Signed<Receipt>,
}

/// Blocks as a sequencer shows them, or showed them.
pub enum Blocks {
    Url(SequencerUrl),
    Saved(BTreeMap<L2Number, BlockAnswer>),
}

impl From<SequencerUrl> for Blocks {
    fn from(url: SequencerUrl) -> Self {
        Self::Url(url)
    }
}

impl Blocks {
    pub fn new(by: &SignedBy, settings: &Settings) -> Result<Self, Failure> {
        if let (Some(url), []) = (&by.sequencer, &by.blocks[..]) {
            return Ok(Self::Url(settings.sequencer(url)?));
        }
        let mut saved = BTreeMap::new();
        for path in &by.blocks {
            let block = read_block(path)?;
            saved.insert(block.header.number, block);
        }
        Ok(Self::Saved(saved))
    }

    /// The block that is shown under a number.
    pub fn get(&self, number: L2Number) -> Result<Option<BlockAnswer>, Failure> {
        match self {
            Self::Saved(saved) => Ok(saved.get(&number).cloned()),
            Self::Url(url) => url.block(number),
        }
    }

    /// The signed header under a number, and the block's own transactions.
    pub fn signed(&self, number: L2Number) -> Result<(Signed<SoftHeader>, Vec<RawBytes>), Failure> {
        let block = self.get(number)?.ok_or_else(|| Failure::failed(format_args!("there is no block {number}")))?;
        let signed = block.signed.ok_or_else(|| {
            Failure::failed(format_args!("block {number} is not signed: there is nothing to hold against anybody"))
        })?;
        Ok((signed.header, block.own_txs))
    }

    /// The header that another names as its parent: as shown under the number before, or as derived.
    pub fn parent(&self, followed: &Followed, number: L2Number, child: &SoftHeader) -> Result<SoftHeader, Failure> {
        let rollup_id = followed.view.manifest().rollup_id();
        let before =
            number.checked_sub(1).ok_or_else(|| Failure::usage("block 0 is the manifest's, nobody signs it"))?;
        let derived = followed.view.store().block(before)?.map(|block| SoftHeader(block.head.header));
        if let Some(derived) = derived.filter(|derived| derived.hash(&rollup_id) == child.parent) {
            return Ok(derived);
        }
        let shown = self.get(before)?.map(|block| block.header);
        shown.filter(|shown| shown.hash(&rollup_id) == child.parent).ok_or_else(|| {
            let parent = child.parent;
            Failure::failed(format_args!(
                "block {number} is built on {parent}, and block {before} is not that one: without its parent it cannot be judged"
            ))
        })
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
    read_answer::<TxAnswer>(path, "/v1/tx/SHA256 with a receipt").map(|answer| answer.receipt)
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
    let found = header(&settings.connect(settings.network()?)?, &high)?;
    if found.is_none() {
        out.note(format_args!(
            "this Bitcoin node does not know block {high}, whose header would show what comes before it"
        ));
    }
    Ok(found.map(Raw))
}

/// A receipt with every block that it names.
pub fn broken_receipt(
    followed: &Followed,
    blocks: &Blocks,
    receipt: Signed<Receipt>,
) -> Result<proof::BrokenReceipt, Failure> {
    let Receipt { tx_hash, first_number, last_number } = receipt.statement;
    let mut tree = None;
    let mut parent = None;
    let mut shown = Vec::new();
    for number in first_number..=last_number {
        let block = blocks.get(number)?.ok_or_else(|| {
            Failure::failed(format_args!(
                "there is no block {number}, and the receipt names {first_number} to {last_number}: it is not broken as far as can be seen"
            ))
        })?;
        let header = block.signed.map(|signed| signed.header).ok_or_else(|| {
            Failure::failed(format_args!(
                "block {number} is not signed: it proves nothing against the receipt's signer"
            ))
        })?;
        let before = match parent {
            Some(before) => before,
            None => blocks.parent(followed, number, &header.statement)?,
        };
        parent = Some(header.statement);
        let forced = forced_section(followed, &mut tree, &before, &header.statement)?;
        let own = block.own_txs.iter().map(|RawBytes(tx)| sha256(tx));
        if own.chain(forced.leaves.iter().map(|leaf| leaf.tx_hash)).any(|hash| hash == tx_hash) {
            return Err(Failure::failed(format_args!("the receipt is kept: block {number} holds the transaction")));
        }
        shown.push((before, ReceiptBlock { header, own_txs: block.own_txs, forced }));
    }
    let (parents, blocks): (Vec<_>, Vec<_>) = shown.into_iter().unzip();
    let parent = parents.first().copied().ok_or_else(|| Failure::failed("the receipt names no block"))?;
    Ok(proof::BrokenReceipt { receipt, parent, blocks })
}

/// The leaves that a block executes.
fn forced_section(
    followed: &Followed,
    tree: &mut Option<Tree>,
    parent: &SoftHeader,
    block: &SoftHeader,
) -> Result<LeafRange, Failure> {
    if block.forced_end <= parent.forced_end {
        return Ok(LeafRange { leaves: Vec::new(), proof: Vec::new() });
    }
    let tree = match tree {
        Some(tree) => tree,
        None => tree.insert(followed.tree(followed.size())?),
    };
    if tree.head(block.queue_size) != Some(block.queue()) || block.forced_end > block.queue_size {
        let number = block.number;
        return Err(Failure::failed(format_args!(
            "block {number} has another queue than Bitcoin; see `sortie prove censored {number}`"
        )));
    }
    let items = followed.view.store().items(parent.forced_end..block.forced_end)?;
    let items = items.iter().map(|queued| &queued.item);
    LeafRange::make(tree, block.queue_size, parent.forced_end, items).ok_or_else(changed)
}
