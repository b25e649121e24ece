//! The wallet follows a node's chain, wherever a reorganisation leads: below the wallet's birthday, too.
//!
//! Guarantees: the chain that is written down is one whose blocks were read, from where it parted from the one before;
//! jobs that were final in blocks that are gone are watched again before; a node that is behind the wallet changes
//! nothing.

use super::watch::Watch;
use super::{FINAL_DEPTH, Wallet, WalletError, journal, unix_now};
use crate::chain::{BlockSource, ChainError, NodeInfo, RpcNode, adds_up};
use crate::primitives::{BlockRef, BtcHeight};
use bdk_wallet::Update;
use bdk_wallet::chain::{BlockId, CheckPoint, ConfirmationBlockTime, Indexer, TxUpdate};
use bitcoin::consensus::deserialize;
use bitcoin::{Block, BlockHash};
use std::sync::Arc;

/// Blocks before the birthday that are read as well, in case the chain's end is reorganised.
const MARGIN: BtcHeight = 10;
/// How often a long sync is written to disk.
const SAVE_EVERY_BLOCKS: u32 = 500;
/// Hashes that are asked for at a time.
const HASHES: BtcHeight = 500;
/// How often the chain may change while it is read.
const ATTEMPTS: u32 = 5;

/// Where the wallet's chain and the node's part.
struct Fork {
    node: NodeInfo,
    /// The last block that both have, as far as the wallet knows the chain.
    common: CheckPoint,
    /// The lowest height at which the node has another block than the wallet knew.
    replaced: Option<BtcHeight>,
}

impl Wallet {
    /// Reads a node's new blocks. Returns how many.
    pub(super) fn read_blocks(&mut self, node: &RpcNode, watch: &mut Watch) -> Result<u32, WalletError> {
        let mut blocks = 0;
        let mut kept = 0;
        for _ in 0..ATTEMPTS {
            kept = match self.read_to_tip(node, watch, kept, &mut blocks) {
                Ok(true) => return Ok(blocks),
                Ok(false) => kept,
                Err(WalletError::Chain(ChainError::Pruned { height, first_available })) if height < first_available => {
                    first_available
                }
                Err(WalletError::Chain(ChainError::NotDownloaded { height, snapshot: Some(at) })) if height <= at => {
                    at + 1
                }
                Err(error) => return Err(error),
            };
        }
        Err(WalletError::Disconnected(self.synced_to()))
    }

    /// Reads blocks from `kept` on; of those below, which the node does not have, its UTXO set tells. Returns whether
    /// the chain stayed as it was in the meantime.
    fn read_to_tip(
        &mut self,
        node: &RpcNode,
        watch: &mut Watch,
        kept: BtcHeight,
        blocks: &mut u32,
    ) -> Result<bool, WalletError> {
        let Fork { node: info, common, replaced } = self.fork(node)?;
        let tip = info.tip.height;
        let oldest_kept = info.prune_height.unwrap_or(0).min(self.birthday());
        let birthday = self.birthday().saturating_sub(MARGIN).max(oldest_kept).min(tip);
        let (mut next, mut chain) = (common.height() + 1, common);
        if replaced.is_none() {
            next = next.max(birthday);
            chain = self.with_landmarks(node, chain, next)?;
        }
        if next < kept {
            chain = self.step_over(node, chain, next, kept, watch)?;
            next = kept;
            if replaced.is_none_or(|replaced| next > replaced) {
                self.adopt(&chain)?;
            }
        }
        while next <= tip {
            let hashes = node.block_hashes(next, HASHES.min(tip - next + 1))?;
            if hashes.is_empty() {
                return Ok(false);
            }
            for hash in hashes {
                let block: Block = deserialize(&node.block(&hash)?).map_err(|_| Self::unreadable(next))?;
                if !is_sound(&block, &hash) {
                    return Err(Self::unreadable(next));
                }
                if chain.height() + 1 == next && block.header.prev_blockhash != chain.hash() {
                    return Ok(false);
                }
                self.learn_block(block, BlockRef { height: next, hash }, watch);
                chain = chain.push(BlockId { height: next, hash }).map_err(|_| Self::unreadable(next))?;
                *blocks += 1;
                // Until what the new chain has in its place is read, the old one stands.
                if replaced.is_none_or(|replaced| next >= replaced) {
                    self.adopt(&chain)?;
                    if blocks.is_multiple_of(SAVE_EVERY_BLOCKS) {
                        self.save()?;
                    }
                }
                next += 1;
            }
        }
        self.save()?;
        Ok(true)
    }

    fn unreadable(height: BtcHeight) -> WalletError {
        let reason = format!("block {height} cannot be read");
        ChainError::Malformed { method: "getblock".into(), reason }.into()
    }

    /// # Errors
    /// [`ChainError::Behind`] if the node's chain ends where the wallet's goes on.
    fn fork(&self, node: &RpcNode) -> Result<Fork, WalletError> {
        let info = node.info()?;
        let tip = info.tip.height;
        let known = self.bdk.latest_checkpoint();
        let mut replaced = None;
        for common in known.range(..=tip) {
            if node.block_hash(common.height())? != Some(common.hash()) {
                replaced = Some(common.height());
                continue;
            }
            return match replaced {
                None if known.height() > tip => Err(ChainError::Behind { tip, known: known.height() }.into()),
                _ => Ok(Fork { node: info, common, replaced }),
            };
        }
        // Another network's; or the chain changed in between.
        Err(WalletError::Disconnected(self.synced_to()))
    }

    /// The chain with hashes of blocks before the wallet's first, ever farther apart, if it has none yet: when the
    /// birthday is reorganised away, they tell from where on to read.
    fn with_landmarks(
        &mut self,
        node: &RpcNode,
        mut chain: CheckPoint,
        first: BtcHeight,
    ) -> Result<CheckPoint, WalletError> {
        let lowest = self.bdk.latest_checkpoint().iter().map(|block| block.height()).filter(|height| *height > 0).min();
        let first = lowest.unwrap_or(first);
        if first < self.birthday().saturating_sub(MARGIN) {
            return Ok(chain);
        }
        let landmarks = (0..BtcHeight::BITS).map_while(|power| first.checked_sub(1 << power));
        for height in landmarks.chain([1]).filter(|height| *height > 0 && *height < first) {
            let Some(hash) = node.block_hash(height)? else { break };
            chain = chain.insert(BlockId { height, hash });
        }
        self.adopt(&chain)?;
        Ok(chain)
    }

    /// Takes in what of a block matters to the wallet and to jobs.
    fn learn_block(&mut self, block: Block, BlockRef { height, hash }: BlockRef, watch: &mut Watch) {
        let confirmation_time = block.header.time.into();
        let anchor = ConfirmationBlockTime { block_id: BlockId { height, hash }, confirmation_time };
        for tx in block.txdata {
            // One after the other: each may use an address beyond those that were known.
            let is_ours = self.bdk.spk_index().is_tx_relevant(&tx);
            if watch.concerns(&tx) || is_ours {
                let mut update = TxUpdate::default();
                update.anchors.insert((anchor, tx.compute_txid()));
                update.txs.push(Arc::new(tx));
                self.learn(update);
            }
        }
    }

    fn adopt(&mut self, chain: &CheckPoint) -> Result<(), WalletError> {
        let tip = BlockRef { height: chain.height(), hash: chain.hash() };
        let update = Update { chain: Some(chain.clone()), ..Update::default() };
        self.bdk_mut().apply_update(update).map_err(|_| WalletError::Disconnected(tip))
    }

    /// Watches jobs again that were final in what a reorganisation has taken; the blocks in its place are to be read
    /// with an eye on them.
    pub(super) fn reopen(&mut self, node: &RpcNode) -> Result<(), WalletError> {
        let common = self.fork(node)?.common.height();
        self.reopen_above(common, self.synced_to().height).map(drop)
    }

    /// Writes down the chain as it is now, and all that was learnt. Jobs that were final in what a reorganisation took
    /// from the chain `before` are watched again; returns whether there are any.
    pub(super) fn save_chain(&mut self, before: &CheckPoint) -> Result<bool, WalletError> {
        let now = self.bdk.latest_checkpoint();
        let is_kept = |block: &CheckPoint| now.get(block.height()).is_some_and(|now| now.hash() == block.hash());
        let kept = before.iter().find(is_kept).map_or(0, |block| block.height());
        self.reopen_above(kept, before.height())
    }

    fn reopen_above(&mut self, common: BtcHeight, tip: BtcHeight) -> Result<bool, WalletError> {
        // What is final has so many blocks.
        let is_deep = common + FINAL_DEPTH <= tip;
        self.save_with(|db| if is_deep { journal::reopen(db, common, unix_now()) } else { Ok(false) })
    }
}

/// Whether it is the block asked for, and its sums are sums: BDK takes that for granted.
fn is_sound(block: &Block, hash: &BlockHash) -> bool {
    let adds_up = || block.txdata.iter().all(|tx| adds_up(&tx.output));
    block.block_hash() == *hash && block.check_merkle_root() && adds_up()
}

impl RpcNode {
    /// The hashes of `count` blocks of the best chain from `first` on; fewer if the tip comes first.
    fn block_hashes(&self, first: BtcHeight, count: BtcHeight) -> Result<Vec<BlockHash>, ChainError> {
        let headers = self.headers(first, count)?;
        Ok(headers.iter().map(bitcoin::block::Header::block_hash).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::{Amount, Network, constants};

    #[test]
    fn a_block_is_sound_if_it_is_the_one_asked_for_and_whole_and_its_sums_are_sums() {
        let block = constants::genesis_block(Network::Regtest);
        let hash = block.block_hash();
        assert!(is_sound(&block, &hash));
        let another = constants::genesis_block(Network::Signet);
        assert!(!is_sound(&another, &hash), "another block");
        let mut altered = block.clone();
        altered.txdata[0].output[0].value = Amount::ZERO;
        assert!(!is_sound(&altered, &hash), "another transaction");
        let mut too_much = block;
        let output = too_much.txdata[0].output[0].clone();
        too_much.txdata[0].output = vec![bitcoin::TxOut { value: Amount::MAX, ..output }; 2];
        too_much.header.merkle_root = too_much.compute_merkle_root().expect("a transaction");
        assert!(!is_sound(&too_much, &too_much.block_hash()), "more than there can be");
    }
}
