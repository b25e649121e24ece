//! A Bitcoin in memory: whole blocks with true Merkle roots and witness commitments, without work.

use anyhow::Result;
use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Txid, Witness, WitnessMerkleNode, transaction,
};
use sortie::chain::{BlockSource, ChainError};
use sortie::primitives::{BlockRef, BtcHeight};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const REGTEST_BITS: u32 = 0x207f_ffff;
const RESERVED: [u8; 32] = [0; 32];
/// Header time of block 0.
const FIRST_TIME: u32 = 1_700_000_000;
const SPACING: u32 = 600;
/// Where the coins and coinbases of another chain begin.
const ANOTHER: u32 = 1 << 30;

/// A Bitcoin that costs nothing: no process, no work, no coins; a block has what it is given, valid or not.
///
/// It serves followers through [`BlockSource`], and keeps every branch. Blocks are ten minutes apart. A clone
/// is another handle on the same chain.
#[derive(Clone, Default)]
pub struct PaperBitcoin(Arc<Paper>);

#[derive(Default)]
struct Paper {
    chain: Mutex<Chain>,
    changed: Condvar,
}

#[derive(Default)]
struct Chain {
    blocks: BTreeMap<BlockHash, Kept>,
    /// The best chain, by height.
    best: Vec<BlockHash>,
    /// Makes coins and coinbases differ.
    salt: u32,
}

struct Kept {
    at: BlockRef,
    block: Block,
}

impl PaperBitcoin {
    /// A chain of blocks without transactions, up to this height.
    pub fn new(height: BtcHeight) -> Self {
        Self::default().up_to(height)
    }

    /// As [`new`](Self::new), but no block of it is one of that.
    pub fn another(height: BtcHeight) -> Self {
        let paper = Self::default();
        paper.chain().salt = ANOTHER;
        paper.up_to(height)
    }

    fn up_to(self, height: BtcHeight) -> Self {
        self.mine_empty(height + 1);
        self
    }

    fn chain(&self) -> MutexGuard<'_, Chain> {
        // Every change is one assignment at its end.
        self.0.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A coin that was never spent and never made.
    pub fn new_coin(&self) -> OutPoint {
        let mut chain = self.chain();
        chain.salt += 1;
        OutPoint { txid: Txid::from_byte_array([0xc0; 32]), vout: chain.salt }
    }

    /// Mines a block with these transactions, in this order, on the tip.
    pub fn mine(&self, txs: Vec<Transaction>) -> BlockRef {
        let mut chain = self.chain();
        let parent = chain.best.last().copied();
        let at = chain.add(parent, txs);
        chain.best.push(at.hash);
        self.0.changed.notify_all();
        at
    }

    /// Mines this many blocks without transactions.
    pub fn mine_empty(&self, count: u32) {
        for _ in 0..count {
            self.mine(Vec::new());
        }
    }

    /// Replaces the last `depth` blocks with blocks of these transactions; gives the tip that was left.
    ///
    /// Like every branch, the old one is kept: [`show`](Self::show) brings it back.
    pub fn reorg(&self, depth: u32, blocks: Vec<Vec<Transaction>>) -> BlockHash {
        let mut chain = self.chain();
        let left = chain.best.last().copied().unwrap_or_else(BlockHash::all_zeros);
        let keep = chain.best.len().saturating_sub(depth as usize);
        let mut best = chain.best[..keep].to_vec();
        for txs in blocks {
            let parent = best.last().copied();
            best.push(chain.add(parent, txs).hash);
        }
        chain.best = best;
        self.0.changed.notify_all();
        left
    }

    /// Makes the chain that ends in this block the best one, however long it is.
    ///
    /// # Errors
    /// The block is not one of this chain's.
    pub fn show(&self, tip: &BlockHash) -> Result<(), ChainError> {
        let mut chain = self.chain();
        let mut best = vec![*tip];
        loop {
            let kept = chain.kept(&best[best.len() - 1])?;
            if kept.at.height == 0 {
                break;
            }
            best.push(kept.block.header.prev_blockhash);
        }
        best.reverse();
        chain.best = best;
        self.0.changed.notify_all();
        Ok(())
    }

    /// A block of any branch, whole.
    ///
    /// # Errors
    /// The block is not one of this chain's.
    pub fn whole_block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        self.chain().kept(hash).map(|kept| kept.block.clone())
    }
}

impl Chain {
    fn kept(&self, hash: &BlockHash) -> Result<&Kept, ChainError> {
        self.blocks.get(hash).ok_or_else(|| ChainError::NotFound(format!("block {hash}")))
    }

    fn tip(&self) -> Option<&Kept> {
        self.blocks.get(self.best.last()?)
    }

    fn add(&mut self, parent: Option<BlockHash>, txs: Vec<Transaction>) -> BlockRef {
        let above = parent.and_then(|hash| self.blocks.get(&hash));
        let (height, time) =
            above.map_or((0, FIRST_TIME), |kept| (kept.at.height + 1, kept.block.header.time + SPACING));
        self.salt += 1;
        let block = block(parent.unwrap_or_else(BlockHash::all_zeros), time, self.salt, txs);
        let at = BlockRef { height, hash: block.block_hash() };
        self.blocks.insert(at.hash, Kept { at, block });
        at
    }
}

impl BlockSource for PaperBitcoin {
    fn tip(&self) -> Result<BlockRef, ChainError> {
        let chain = self.chain();
        chain.tip().map(|kept| kept.at).ok_or_else(|| ChainError::NotFound("a block".into()))
    }

    fn block_hash(&self, height: BtcHeight) -> Result<Option<BlockHash>, ChainError> {
        Ok(self.chain().best.get(height as usize).copied())
    }

    fn header(&self, hash: &BlockHash) -> Result<Header, ChainError> {
        self.chain().kept(hash).map(|kept| kept.block.header)
    }

    fn block(&self, hash: &BlockHash) -> Result<Vec<u8>, ChainError> {
        self.chain().kept(hash).map(|kept| serialize(&kept.block))
    }

    fn wait_for_tip(&self, current: &BlockHash, timeout: Duration) -> Result<BlockRef, ChainError> {
        let unchanged = |chain: &mut Chain| chain.best.last() == Some(current);
        let waited = self.0.changed.wait_timeout_while(self.chain(), timeout, unchanged);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.tip()
    }
}

/// A block whose coinbase commits to the witnesses; `salt` stands in the coinbase.
fn block(parent: BlockHash, time: u32, salt: u32, txs: Vec<Transaction>) -> Block {
    let input = TxIn {
        previous_output: OutPoint::null(),
        script_sig: ScriptBuf::from_bytes([&[4], &salt.to_le_bytes()[..]].concat()),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[RESERVED]),
    };
    let coinbase = Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: Vec::new(),
    };
    let header = Header {
        version: Version::TWO,
        prev_blockhash: parent,
        merkle_root: TxMerkleNode::all_zeros(),
        time,
        bits: CompactTarget::from_consensus(REGTEST_BITS),
        nonce: 0,
    };
    let mut block = Block { header, txdata: [coinbase].into_iter().chain(txs).collect() };
    let root = block.witness_root().unwrap_or(WitnessMerkleNode::all_zeros());
    let commitment = Block::compute_witness_commitment(&root, &RESERVED);
    let script = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed], &commitment.to_byte_array()[..]].concat();
    block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) });
    block.header.merkle_root = block.compute_merkle_root().unwrap_or_else(TxMerkleNode::all_zeros);
    block
}
