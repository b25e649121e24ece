//! A forced item, shown in a Bitcoin block: the file `forced`, and a part of `censored`.

use super::bitcoin_headers::HeaderChain;
use super::bitcoin_transaction::{TransactionProof, TxTree};
use super::raw::{Raw, RawBytes};
use super::standing::stand;
use super::{AnchorName, Fact, QueueLeaf, Refutation, Verdict};
use crate::envelope::{Carrier, scan_transaction};
use crate::manifest::Manifest;
use crate::primitives::{BlockRef, BtcHeight};
use crate::proof::judge::Judge;
use crate::queue::{Item, Place, items_of};
use bitcoin::Block;
use bitcoin::block::Header;
use serde::{Deserialize, Serialize};

/// Headers, the item's transaction in one of their blocks, and the item's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemProof {
    /// The block's header and others that link it to an anchor (`forced`) or to an origin (`censored`).
    pub headers: HeaderChain,
    /// Height of the item's block.
    pub height: BtcHeight,
    /// Where the item stands.
    pub place: Place,
    /// The Bitcoin transaction: taproot in the wtxid tree, OP_RETURN in the txid tree.
    pub inclusion: TransactionProof,
}

/// A block that does not hold the transaction of a place, or headers without the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the block does not hold {0}, or is not the one of the header at its height")]
pub struct NotInBlock(pub Place);

impl ItemProof {
    /// The proof for the item at `place` of `block`, which stands at `height` of `headers`.
    ///
    /// # Errors
    /// [`NotInBlock`]. Whether an item stands there is for [`judge`](crate::proof::judge) to say.
    pub fn make(headers: HeaderChain, height: BtcHeight, block: &Block, place: Place) -> Result<Self, NotInBlock> {
        let not_in_block = NotInBlock(place);
        let at = height.checked_sub(headers.first_height).and_then(|at| headers.raw.get(at as usize));
        let index = block.txdata.iter().position(|tx| tx.compute_txid() == place.txid);
        let index = index.and_then(|index| u32::try_from(index).ok()).ok_or(not_in_block)?;
        if at != Some(&Raw(block.header)) {
            return Err(not_in_block);
        }
        let inclusion = TransactionProof::make(block, index, tree_of(place.carrier)).ok_or(not_in_block)?;
        Ok(Self { headers, height, place, inclusion })
    }

    /// The item, in the block that the caller has found at [`height`](Self::height) of the headers.
    pub(super) fn read(&self, block: BlockRef, header: &Header, manifest: &Manifest) -> Result<Item, Refutation> {
        if block.height <= manifest.start.height {
            return Err(Refutation::NotAboveStart);
        }
        let Raw(transaction) = &self.inclusion.transaction;
        if transaction.compute_txid() != self.place.txid {
            return Err(Refutation::OtherTransaction);
        }
        self.inclusion.check(tree_of(self.place.carrier), &header.merkle_root)?;
        let found = scan_transaction(transaction, Some(manifest.rollup_id().namespace()));
        let mut found = found
            .into_iter()
            .find(|found| (found.carrier, found.index) == (self.place.carrier, self.place.index))
            .ok_or(Refutation::NoEnvelope)?;
        if let Err(flaw) = found.payload {
            return Err(Refutation::FlawedEnvelope { flaw });
        }
        found.tx_index = self.inclusion.index;
        let position = usize::try_from(self.place.position).map_err(|_| Refutation::NoItem)?;
        items_of(block, &[found]).into_iter().nth(position).ok_or(Refutation::NoItem)
    }
}

impl Judge<'_> {
    pub(super) fn forced(&mut self, proof: &ItemProof) -> Result<Fact, Verdict> {
        let headers = proof.headers.link()?;
        let (block, header) = headers.at(proof.height).ok_or(Refutation::NotInHeaders)?;
        let item = proof.read(block, header, self.anchors.manifest())?;
        let bitcoin = stand(&headers, proof.height, self.anchors, &self.rules)?;
        self.name(AnchorName::Bitcoin(bitcoin.anchor));
        Ok(Fact::Forced { leaf: QueueLeaf::from(&item), tx: RawBytes(item.tx), bitcoin })
    }

    /// The item, in a block from which the headers lead to `origin`.
    ///
    /// No work is asked for: whoever signed the origin's hash signed all of its ancestors.
    pub(super) fn item_under(&self, proof: &ItemProof, origin: BlockRef) -> Result<Item, Refutation> {
        let headers = proof.headers.link()?;
        if headers.top() != origin {
            return Err(Refutation::OtherOrigin);
        }
        let (block, header) = headers.at(proof.height).ok_or(Refutation::NotInHeaders)?;
        proof.read(block, header, self.anchors.manifest())
    }
}

fn tree_of(carrier: Carrier) -> TxTree {
    match carrier {
        Carrier::Taproot => TxTree::Wtxid,
        Carrier::OpReturn => TxTree::Txid,
    }
}
