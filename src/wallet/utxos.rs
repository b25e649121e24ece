//! What a node's UTXO set shows, where it lacks the blocks that the wallet needs: it has pruned them, or began with a
//! UTXO snapshot.
//!
//! Guarantees: the wallet's coins are right; which blocks were not read is written down, until a source shows whole
//! histories. What else happened in them is known only as far as the outputs are still unspent.

use super::watch::Watch;
use super::{Coin, Wallet, WalletError};
use crate::chain::{BlockSource, RpcNode, Utxo};
use crate::primitives::BtcHeight;
use bdk_wallet::chain::{BlockId, CheckPoint, ConfirmationBlockTime, TxUpdate};
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// Addresses beyond the last one handed out that are searched for.
const BEYOND: u32 = 1_000;

/// Blocks that the wallet has not read, and its coins that were spent in them.
#[derive(Clone, Debug, Default)]
pub(super) struct Unread {
    pub blocks: Option<RangeInclusive<BtcHeight>>,
    pub spent: BTreeSet<OutPoint>,
}

impl Unread {
    /// Makes the tables if they are missing.
    pub fn create_tables(db: &Connection) -> rusqlite::Result<()> {
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS sortie_unread (
                first INTEGER NOT NULL,
                last INTEGER NOT NULL
            ) STRICT;
            CREATE TABLE IF NOT EXISTS sortie_unread_spend (
                txid BLOB NOT NULL,
                vout INTEGER NOT NULL,
                PRIMARY KEY (txid, vout)
            ) STRICT;",
        )
    }

    pub fn read(db: &Connection) -> rusqlite::Result<Self> {
        let blocks = db.query_row("SELECT min(first), max(last) FROM sortie_unread", [], |row| {
            Ok(row.get::<_, Option<BtcHeight>>(0)?.zip(row.get(1)?))
        });
        let blocks = blocks.optional()?.flatten().map(|(first, last)| first..=last);
        let mut statement = db.prepare("SELECT txid, vout FROM sortie_unread_spend")?;
        let spent = statement
            .query_map([], |row| Ok(OutPoint::new(Txid::from_byte_array(row.get(0)?), row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        Ok(Self { blocks, spent })
    }

    /// The caller commits.
    fn write(&self, db: &Connection) -> rusqlite::Result<()> {
        db.execute_batch("DELETE FROM sortie_unread; DELETE FROM sortie_unread_spend")?;
        if let Some(blocks) = &self.blocks {
            db.execute("INSERT INTO sortie_unread VALUES (?1, ?2)", [blocks.start(), blocks.end()])?;
        }
        for coin in &self.spent {
            let row = params![coin.txid.to_byte_array(), coin.vout];
            db.execute("INSERT INTO sortie_unread_spend VALUES (?1, ?2)", row)?;
        }
        Ok(())
    }
}

impl Wallet {
    /// The blocks that were never read, because a node did not have them: the coins are right all the same, but what
    /// became of payments and jobs in these blocks may be unknown.
    pub fn unread_blocks(&self) -> Option<RangeInclusive<BtcHeight>> {
        self.unread.blocks.clone()
    }

    /// Takes the coins of the node's UTXO set in place of what the blocks from `first` up to `kept`, which it has,
    /// would have shown. Returns the chain on which reading goes on.
    pub(super) fn step_over(
        &mut self,
        node: &RpcNode,
        mut chain: CheckPoint,
        first: BtcHeight,
        kept: BtcHeight,
        watch: &Watch,
    ) -> Result<CheckPoint, WalletError> {
        let scripts: Vec<_> = self.scripts(BEYOND).into_iter().chain(watch.scripts.iter().cloned()).collect();
        let found = node.scan_utxo_set(&scripts)?;
        let mut update = TxUpdate::default();
        for Utxo { outpoint, output, height } in found.iter().filter(|coin| coin.height < kept).cloned() {
            let hash = node.block_hash(height)?.ok_or(WalletError::Disconnected(self.synced_to()))?;
            let block_id = BlockId { height, hash };
            chain = chain.insert(block_id);
            let confirmation_time = node.header(&hash)?.time.into();
            update.anchors.insert((ConfirmationBlockTime { block_id, confirmation_time }, outpoint.txid));
            update.txouts.insert(outpoint, output);
        }
        let last = kept - 1;
        let hash = node.block_hash(last)?.ok_or(WalletError::Disconnected(self.synced_to()))?;
        chain = chain.insert(BlockId { height: last, hash });
        self.learn(update);

        let found: BTreeSet<OutPoint> = found.iter().map(|coin| coin.outpoint).collect();
        let gone = self.unspent().into_iter().filter(|coin| coin.confirmations > 0 && !found.contains(&coin.outpoint));
        let mut unread = self.unread.clone();
        unread.spent.extend(gone.map(|coin| coin.outpoint));
        unread.spent.retain(|coin| !found.contains(coin));
        let first = unread.blocks.map_or(first, |blocks| first.min(*blocks.start()));
        unread.blocks = Some(first..=last);
        self.save_with(|db| Ok(unread.write(db)?))?;
        self.missing.extend(&unread.spent);
        self.unread = unread;
        Ok(chain)
    }

    /// Histories are read that are whole.
    pub(super) fn forget_unread(&mut self) -> Result<(), WalletError> {
        if self.unread.blocks.take().is_some() {
            self.missing.retain(|coin| !self.unread.spent.contains(coin));
            self.unread = Unread::default();
            self.save_with(|db| Ok(Unread::default().write(db)?))?;
        }
        Ok(())
    }

    /// The coins of which only the output is known, from a UTXO set.
    pub(super) fn bare_coins(&self) -> Vec<Coin> {
        let (graph, chain, tip) = (self.bdk.tx_graph(), self.bdk.local_chain().tip(), self.synced_to().height);
        let view = self.view();
        let mut heights: BTreeMap<Txid, Option<BtcHeight>> = BTreeMap::new();
        let in_chain = |block: &BlockId| chain.get(block.height).is_some_and(|known| known.hash() == block.hash);
        let mut coins = Vec::new();
        for (outpoint, output) in graph.floating_txouts() {
            let Some((keychain, _)) = self.bdk.derivation_of_spk(output.script_pubkey.clone()) else { continue };
            let height = *heights.entry(outpoint.txid).or_insert_with(|| {
                let anchors = graph.all_anchors().get(&outpoint.txid).into_iter().flatten();
                anchors.map(|anchor| anchor.block_id).find(in_chain).map(|block| block.height)
            });
            let is_spent = graph.outspends(outpoint).iter().any(|txid| view.transactions.contains_key(txid));
            if let Some(height) = height.filter(|_| !is_spent) {
                coins.push(self.coin_of(outpoint, output.clone(), keychain, (tip + 1).saturating_sub(height), true));
            }
        }
        coins
    }
}
