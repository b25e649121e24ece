//! Branches: drop blocks, mine others, return to the first ones.
//!
//! A block is dropped with `invalidateblock`. As soon as another branch has more work, the mark is
//! taken back, so the node ends as one that has seen both branches and follows the longer. While
//! the new branch grows, whoever polls the node sees a shorter chain for some milliseconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{BlockHash, ScriptBuf, Transaction, Txid};
use serde_json::{Value, json};

use crate::bitcoind::{Bitcoind, parsed};
use crate::mining::Minable;

/// A change of the active chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reorg {
    /// Blocks that left the active chain, lowest first.
    pub old: Vec<BlockHash>,
    /// Blocks that took their place, lowest first; always more than `old`.
    pub new: Vec<BlockHash>,
}

impl Bitcoind {
    /// Replaces the last `depth` blocks with `depth + 1` empty ones.
    ///
    /// The transactions of the dropped blocks are in the mempool afterwards, as far as they are
    /// still valid.
    ///
    /// # Errors
    /// `depth` is 0 or reaches genesis.
    pub fn reorg(&self, depth: u32) -> Result<Reorg> {
        self.reorg_with(depth, |_| Ok(Vec::<Txid>::new()))
    }

    /// Replaces the last `depth` blocks with `depth + 1` that contain what `block` says.
    ///
    /// `block` is asked before each block is mined, with 0 for the lowest. Ids must be in the
    /// mempool, where the dropped transactions are; a double spend comes as a [`Transaction`].
    ///
    /// # Errors
    /// As [`reorg`](Self::reorg), and when a block is invalid; then the old branch is active again.
    pub fn reorg_with<T: Minable>(&self, depth: u32, mut block: impl FnMut(u32) -> Result<Vec<T>>) -> Result<Reorg> {
        let height = self.height()?;
        ensure!(depth > 0, "a reorg of no blocks");
        ensure!(depth <= height, "only {height} blocks above genesis");
        let fork = height - depth;
        let old = self.hashes(fork + 1)?;
        let dropped = self.transactions(&old)?;

        let branch = Branch::new();
        let mut marked = Vec::new();
        let mined = self
            .drop_above(&self.block_hash(fork)?, &mut marked)
            .and_then(|()| self.resubmit(&dropped))
            .and_then(|()| (0..=depth).map(|i| self.mine_exactly(branch.output(), &block(i)?)).collect::<Result<_>>());
        self.reconsider(&marked)?;
        let new = mined?;
        Ok(Reorg { old, new })
    }

    /// Makes the old branch of an earlier reorg active again: A, B, A.
    ///
    /// The old branch needs more work than the active one, so empty blocks are mined on it until
    /// it has one block more. The answer can be flipped back in turn.
    ///
    /// # Errors
    /// The blocks of `reorg` are not this node's, or the old branch is active.
    pub fn flip_back(&self, reorg: &Reorg) -> Result<Reorg> {
        let first = reorg.old.first().context("a reorg of no blocks")?;
        let target = reorg.old.last().context("a reorg of no blocks")?;
        self.reconsider(std::slice::from_ref(first))?;
        let header = self.header(first)?;
        let fork = header.height.checked_sub(1).context("genesis")?;
        ensure!(self.block_hash(fork)? == header.parent, "the branches no longer part at height {fork}");
        ensure!(self.block_hash(fork + 1)? != *first, "the old branch is active");
        let old = self.hashes(fork + 1)?;
        let dropped = self.transactions(&old)?;
        let height = self.height()?;

        let branch = Branch::new();
        let mut marked = Vec::new();
        let mined = self.follow(target, &mut marked).and_then(|()| self.resubmit(&dropped)).and_then(|()| {
            while self.height()? <= height {
                self.mine_exactly::<Txid>(branch.output(), &[])?;
            }
            Ok(())
        });
        self.reconsider(&marked)?;
        mined?;
        let new = self.hashes(fork + 1)?;
        Ok(Reorg { old, new })
    }

    /// Until `fork` is the tip. Other branches that step in are dropped too.
    fn drop_above(&self, fork: &BlockHash, marked: &mut Vec<BlockHash>) -> Result<()> {
        self.follow(fork, marked)?;
        let height = self.header(fork)?.height;
        while self.height()? > height {
            self.invalidate(height + 1, marked)?;
            self.follow(fork, marked)?;
        }
        Ok(())
    }

    /// Until `target` is in the active chain.
    fn follow(&self, target: &BlockHash, marked: &mut Vec<BlockHash>) -> Result<()> {
        loop {
            let tip = self.height()?;
            let mut common = self.header(target)?;
            while common.height > tip || self.block_hash(common.height)? != common.hash {
                common = self.header(&common.parent)?;
            }
            if common.hash == *target {
                return Ok(());
            }
            ensure!(common.height < tip, "the node refuses {target}");
            self.invalidate(common.height + 1, marked)?;
        }
    }

    fn invalidate(&self, height: u32, marked: &mut Vec<BlockHash>) -> Result<()> {
        let hash = self.block_hash(height)?;
        marked.push(hash);
        self.call("invalidateblock", &[json!(hash)]).map(drop)
    }

    fn reconsider(&self, marked: &[BlockHash]) -> Result<()> {
        for hash in marked {
            self.call("reconsiderblock", &[json!(hash)])?;
        }
        Ok(())
    }

    /// The active chain from this height to the tip.
    fn hashes(&self, from: u32) -> Result<Vec<BlockHash>> {
        (from..=self.height()?).map(|h| self.block_hash(h)).collect()
    }

    fn transactions(&self, blocks: &[BlockHash]) -> Result<Vec<Transaction>> {
        let mut txs = Vec::new();
        for hash in blocks {
            txs.extend(self.block(hash)?.txdata.into_iter().skip(1));
        }
        Ok(txs)
    }

    /// `invalidateblock` returns the transactions of ten blocks to the mempool and forgets the
    /// rest; a real reorg returns them all.
    fn resubmit(&self, dropped: &[Transaction]) -> Result<()> {
        for tx in dropped {
            // Already there, or no longer valid: both as in a real reorg.
            let _ = self.send(tx);
        }
        Ok(())
    }

    fn header(&self, hash: &BlockHash) -> Result<Header> {
        let header = self.call("getblockheader", &[json!(hash)])?;
        let height = header["height"].as_u64().context("no height")?;
        Ok(Header {
            hash: *hash,
            parent: match header.get("previousblockhash") {
                Some(parent) => parsed(parent)?,
                None => BlockHash::all_zeros(),
            },
            height: height.try_into()?,
        })
    }
}

struct Header {
    hash: BlockHash,
    parent: BlockHash,
    height: u32,
}

/// Pays the subsidy to a script that no other branch uses. Two empty blocks on one parent in the
/// same second would else be the same block, and a reorg to it none.
struct Branch(ScriptBuf);

impl Branch {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_nanos());
        let name = format!("{now} {} {count}", std::process::id());
        let program = sha256::Hash::hash(name.as_bytes());
        Self(ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_byte_array(program.to_byte_array())))
    }

    fn output(&self) -> Value {
        json!(format!("raw({})", self.0.to_hex_string()))
    }
}
