//! A transaction in a Bitcoin block, shown to who has the block's header only.
//!
//! Always with the coinbase and its branch. A transaction of 64 bytes can be read as two nodes, and two
//! nodes as a transaction (CVE-2017-12842): such ones are refused, and the depth of the tree is that of the
//! coinbase, which cannot be forged in either direction. A list can be repeated at its end without changing
//! the root (CVE-2012-2459): what stands right of itself is refused.

use super::Refutation;
use super::raw::Raw;
use alloc::vec::Vec;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{Block, Transaction, TxMerkleNode, Wtxid};
use serde::{Deserialize, Serialize};

/// Bytes of two hashes, and of no transaction that can be proven.
const NODE_LEN: usize = 64;

/// Nodes in the longest branch: more transactions than any block can hold.
const MAX_BRANCH: usize = 31;

/// What a coinbase output that commits to the witnesses begins with (BIP141).
const COMMITMENT: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// A block's two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxTree {
    /// Under the header's Merkle root; commits to no witness.
    Txid,
    /// Under the coinbase's commitment (BIP141).
    Wtxid,
}

/// A transaction, the coinbase, and both branches to the block's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransactionProof {
    /// The transaction; in the txid tree without witnesses, as that tree does not show them.
    pub transaction: Raw<Transaction>,
    /// Its index in the block. The bits are the directions of the branch, lowest first: 1 where the branch's
    /// node stands left.
    pub index: u32,
    /// The nodes beside the transaction's path in its tree, lowest first.
    pub branch: Vec<sha256d::Hash>,
    /// The block's coinbase, with its witness.
    pub coinbase: Raw<Transaction>,
    /// The nodes beside the coinbase's path in the txid tree, lowest first.
    pub coinbase_branch: Vec<sha256d::Hash>,
}

impl TransactionProof {
    /// The proof for a block's transaction; `None` if it has none at the index.
    pub fn make(block: &Block, index: u32, tree: TxTree) -> Option<Self> {
        let at = usize::try_from(index).ok()?;
        let mut transaction = block.txdata.get(at)?.clone();
        let txids: Vec<_> = block.txdata.iter().map(|tx| tx.compute_txid().to_raw_hash()).collect();
        let coinbase_branch = branch(txids.clone(), 0);
        let branch = match tree {
            TxTree::Txid => {
                transaction.input.iter_mut().for_each(|input| input.witness.clear());
                branch(txids, at)
            }
            TxTree::Wtxid => {
                let others = block.txdata.iter().skip(1).map(|tx| tx.compute_wtxid());
                branch(core::iter::once(Wtxid::all_zeros()).chain(others).map(Wtxid::to_raw_hash).collect(), at)
            }
        };
        let coinbase = Raw(block.coinbase()?.clone());
        Some(Self { transaction: Raw(transaction), index, branch, coinbase, coinbase_branch })
    }

    /// Checks that the transaction stands at its index of the block with this Merkle root.
    pub(super) fn check(&self, tree: TxTree, merkle_root: &TxMerkleNode) -> Result<(), Refutation> {
        let (Raw(transaction), Raw(coinbase)) = (&self.transaction, &self.coinbase);
        if [transaction, coinbase].iter().any(|tx| tx.base_size() == NODE_LEN) {
            return Err(Refutation::SixtyFourBytes);
        }
        if !coinbase.is_coinbase() {
            return Err(Refutation::NotCoinbase);
        }
        if self.branch.len() != self.coinbase_branch.len() {
            return Err(Refutation::UnequalBranches);
        }
        if self.branch.len() > MAX_BRANCH || self.index >> self.branch.len() != 0 {
            return Err(Refutation::IndexBeyondBranch);
        }
        if self.index == 0 {
            return Err(Refutation::CoinbaseCarriesNothing);
        }
        let coinbase_root = climb(coinbase.compute_txid().to_raw_hash(), 0, &self.coinbase_branch)?;
        if coinbase_root != merkle_root.to_raw_hash() {
            return Err(Refutation::CoinbaseNotInBlock);
        }
        let commitment = commitment(coinbase)?;
        match tree {
            TxTree::Txid => self.check_txid(merkle_root),
            TxTree::Wtxid => self.check_wtxid(commitment.ok_or(Refutation::NoWitnessCommitment)?),
        }
    }

    fn check_txid(&self, merkle_root: &TxMerkleNode) -> Result<(), Refutation> {
        let Raw(transaction) = &self.transaction;
        if transaction.input.iter().any(|input| !input.witness.is_empty()) {
            return Err(Refutation::UnprovenWitness);
        }
        let root = climb(transaction.compute_txid().to_raw_hash(), self.index, &self.branch)?;
        if root == merkle_root.to_raw_hash() { Ok(()) } else { Err(Refutation::NotInBlock) }
    }

    fn check_wtxid(&self, commitment: Commitment<'_>) -> Result<(), Refutation> {
        let root = climb(self.transaction.0.compute_wtxid().to_raw_hash(), self.index, &self.branch)?;
        let committed = hash_pair(root.as_byte_array(), commitment.reserved);
        if committed.as_byte_array() == commitment.hash { Ok(()) } else { Err(Refutation::NotInBlock) }
    }
}

/// What a coinbase commits its block's witnesses with.
struct Commitment<'a> {
    hash: &'a [u8; 32],
    reserved: &'a [u8; 32],
}

/// The commitment in the last output that matches; `None` if none does.
fn commitment(coinbase: &Transaction) -> Result<Option<Commitment<'_>>, Refutation> {
    let hash = coinbase.output.iter().rev().find_map(|output| committed_hash(output.script_pubkey.as_bytes()));
    let Some(hash) = hash else { return Ok(None) };
    let mut reserved = coinbase.input.first().map(|input| input.witness.iter()).into_iter().flatten();
    match (reserved.next().map(<&[u8; 32]>::try_from), reserved.next()) {
        (Some(Ok(reserved)), None) => Ok(Some(Commitment { hash, reserved })),
        _ => Err(Refutation::CoinbaseWitness),
    }
}

fn committed_hash(script: &[u8]) -> Option<&[u8; 32]> {
    script.strip_prefix(&COMMITMENT)?.first_chunk()
}

fn hash_pair(left: &[u8; 32], right: &[u8; 32]) -> sha256d::Hash {
    let mut engine = sha256d::Hash::engine();
    engine.input(left);
    engine.input(right);
    sha256d::Hash::from_engine(engine)
}

/// The root above a leaf.
fn climb(leaf: sha256d::Hash, index: u32, branch: &[sha256d::Hash]) -> Result<sha256d::Hash, Refutation> {
    branch.iter().enumerate().try_fold(leaf, |node, (level, beside)| {
        if index >> level & 1 == 0 {
            return Ok(hash_pair(node.as_byte_array(), beside.as_byte_array()));
        }
        // A left node may equal its right one, where a level's last node stands in for its missing sibling.
        if node == *beside {
            return Err(Refutation::RepeatedNode);
        }
        Ok(hash_pair(beside.as_byte_array(), node.as_byte_array()))
    })
}

/// The Merkle root that a branch leads to from a transaction, for whom the coinbase is not shown.
///
/// # Errors
/// Where the transaction, or two nodes together, can be read as the other of the two (CVE-2017-12842): the tree could
/// be shown deeper or shallower than it is.
pub fn root_above(tx: &Transaction, index: u32, branch: &[sha256d::Hash]) -> Result<TxMerkleNode, Refutation> {
    if tx.base_size() == NODE_LEN {
        return Err(Refutation::SixtyFourBytes);
    }
    if branch.len() > MAX_BRANCH || index >> branch.len() != 0 {
        return Err(Refutation::IndexBeyondBranch);
    }
    let mut node = tx.compute_txid().to_raw_hash();
    for (level, beside) in branch.iter().enumerate() {
        let (left, right) = if index >> level & 1 == 0 { (node, *beside) } else { (*beside, node) };
        let pair = [left.to_byte_array(), right.to_byte_array()].concat();
        if bitcoin::consensus::deserialize::<Transaction>(&pair).is_ok() {
            return Err(Refutation::SixtyFourBytes);
        }
        node = climb(node, index >> level & 1, core::slice::from_ref(beside))?;
    }
    Ok(TxMerkleNode::from_raw_hash(node))
}

/// The nodes beside the path from a leaf to the root, lowest first.
fn branch(mut level: Vec<sha256d::Hash>, mut index: usize) -> Vec<sha256d::Hash> {
    let mut branch = Vec::new();
    while level.len() > 1 {
        // A level's last node stands in for its missing sibling.
        branch.extend(level.get(index ^ 1).or(level.last()).copied());
        let pairs = level.chunks(2).map(|pair| (pair[0], pair[pair.len() - 1]));
        level = pairs.map(|(left, right)| hash_pair(left.as_byte_array(), right.as_byte_array())).collect();
        index /= 2;
    }
    branch
}
