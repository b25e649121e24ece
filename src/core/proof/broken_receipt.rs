//! The file `broken_receipt`: the signer's own blocks, every one that the receipt names, without the
//! transaction.

use super::judge::{Judge, in_both};
use super::raw::RawBytes;
use super::statement::{Receipt, Signed, SoftHeader};
use super::{Fact, LeafRange, Refutation, Verdict};
use crate::merkle::merkle_root;
use crate::primitives::{Hash32, sha256};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A receipt and the blocks that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokenReceipt {
    /// The receipt.
    pub receipt: Signed<Receipt>,
    /// The header before the first block; bound by its hash, it needs no signature.
    pub parent: SoftHeader,
    /// A block for every number from the receipt's first to its last.
    pub blocks: Vec<ReceiptBlock>,
}

/// A signed block and everything that it executes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptBlock {
    /// The block.
    pub header: Signed<SoftHeader>,
    /// Its own transactions, whole: a hash in a list could be one of two transactions' node.
    pub own_txs: Vec<RawBytes>,
    /// Its forced section: the leaves from the parent's `forced_end` up to its own.
    pub forced: LeafRange,
}

impl Judge<'_> {
    pub(super) fn broken_receipt(&mut self, proof: &BrokenReceipt) -> Result<Fact, Verdict> {
        let receipt = proof.receipt.statement;
        // Block 0 is nobody's, and a range without numbers promises nothing.
        if receipt.first_number == 0 || receipt.first_number > receipt.last_number {
            return Err(Refutation::EmptyReceipt.into());
        }
        let numbers = receipt.first_number..=receipt.last_number;
        let covers = proof.blocks.iter().map(|block| block.header.statement.number).eq(numbers);
        if !covers {
            return Err(Refutation::NotCovered.into());
        }
        let mut parent = &proof.parent;
        for block in &proof.blocks {
            let header = &block.header.statement;
            if header.parent != self.block(parent).hash {
                return Err(Refutation::OtherParent.into());
            }
            block.check_without(&receipt.tx_hash, parent)?;
            parent = header;
        }
        let mut signers = self.signers(&proof.receipt)?;
        // Every signature is checked before anybody is said to have signed something else.
        let of_blocks: Vec<_> =
            proof.blocks.iter().map(|block| self.signers(&block.header)).collect::<Result<_, _>>()?;
        for others in &of_blocks {
            signers = in_both(signers, others)?;
        }
        Ok(Fact::BrokenReceipt { signers, receipt })
    }
}

impl ReceiptBlock {
    /// Checks that this is all that the block executes, and that the transaction is not among it.
    fn check_without(&self, tx_hash: &Hash32, parent: &SoftHeader) -> Result<(), Refutation> {
        let header = &self.header.statement;
        if merkle_root(self.own_txs.iter().map(|RawBytes(tx)| tx)) != header.txs_root {
            return Err(Refutation::OtherOwnTransactions);
        }
        if self.forced.leaves.len() as u64 != header.forced_end.saturating_sub(parent.forced_end) {
            return Err(Refutation::OtherForcedSection);
        }
        self.forced.check(parent.forced_end, &header.queue())?;
        let own = self.own_txs.iter().map(|RawBytes(tx)| sha256(tx));
        let mut executed = own.chain(self.forced.leaves.iter().map(|leaf| leaf.tx_hash));
        if executed.any(|hash| hash == *tx_hash) { Err(Refutation::ReceiptKept) } else { Ok(()) }
    }
}
