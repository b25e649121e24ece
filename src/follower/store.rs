//! The follower's SQLite file: queue, verdicts, L2 chain, executor state and what undoes each step.
//!
//! Guarantees that one step is one transaction, on disk before it returns: a process killed at any
//! moment finds the state after some whole step.

use super::{Damage, FollowerError};
use crate::database;
use crate::derive::{Derivation, Judged, Snapshot, Undo, Verdict};
use crate::executor::{Outcome, State, StateUndo};
use crate::l2::{L2Head, L2Header};
use crate::manifest::SequencerSet;
use crate::primitives::{BlockRef, BtcHeight, Hash32, L2Number, RollupId, sha256};
use crate::queue::{Item, Place};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Txid};
use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::path::Path;

const SCHEMA_VERSION: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE rollup (id BLOB NOT NULL, snapshot BLOB NOT NULL);
CREATE TABLE bitcoin_block (height INTEGER PRIMARY KEY, hash BLOB NOT NULL, queue_size INTEGER NOT NULL,
    queue_root BLOB NOT NULL, undo BLOB);
CREATE TABLE item (idx INTEGER PRIMARY KEY, height INTEGER NOT NULL, block_hash BLOB NOT NULL,
    tx_index INTEGER NOT NULL, txid BLOB NOT NULL, place TEXT NOT NULL UNIQUE, tx BLOB NOT NULL,
    tx_hash BLOB NOT NULL, l2_number INTEGER, outcome TEXT);
CREATE INDEX item_height ON item (height);
CREATE INDEX item_txid ON item (txid);
CREATE INDEX item_tx_hash ON item (tx_hash);
CREATE INDEX item_l2 ON item (l2_number);
CREATE TABLE judged (height INTEGER NOT NULL, seq INTEGER NOT NULL, place TEXT NOT NULL, kind INTEGER NOT NULL,
    verdict TEXT NOT NULL, PRIMARY KEY (height, seq));
CREATE TABLE sequencers (handovers INTEGER PRIMARY KEY, height INTEGER NOT NULL, members BLOB NOT NULL);
CREATE TABLE l2_block (number INTEGER PRIMARY KEY, hash BLOB NOT NULL, header BLOB NOT NULL,
    derived_at INTEGER NOT NULL, state_root BLOB NOT NULL, state_undo BLOB);
CREATE INDEX l2_block_derived_at ON l2_block (derived_at);
CREATE TABLE own_tx (l2_number INTEGER NOT NULL, position INTEGER NOT NULL, tx BLOB NOT NULL, tx_hash BLOB NOT NULL,
    outcome TEXT NOT NULL, PRIMARY KEY (l2_number, position));
CREATE INDEX own_tx_hash ON own_tx (tx_hash);
CREATE TABLE state (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
";

/// An item with its index in the queue and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedItem {
    /// Index in the queue.
    pub index: u64,
    /// The item.
    pub item: Item,
    /// The derived L2 block that executed it, if one has.
    pub fate: Option<Fate>,
}

/// Items of the queue with one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// What they did; `None` while they wait.
    pub outcome: Option<Outcome>,
    /// How many there are.
    pub items: u64,
    /// Length of all their transactions together, in bytes.
    pub bytes: u64,
    /// The first one's Bitcoin block.
    pub first_height: BtcHeight,
    /// The last one's.
    pub last_height: BtcHeight,
}

/// Where and how a transaction was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The L2 block.
    pub l2_number: L2Number,
    /// What it did.
    pub outcome: Outcome,
}

/// A derived L2 block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DerivedBlock {
    /// Header and hash.
    pub head: L2Head,
    /// The Bitcoin block that appended it.
    pub derived_at: BtcHeight,
    /// Commitment to the state after it.
    pub state_root: Hash32,
}

/// A connection to the file.
pub struct Store {
    db: Connection,
}

/// One step's transaction.
pub(super) struct Writer<'a> {
    tx: Transaction<'a>,
}

fn to_blob<T: Serialize>(value: &T) -> Result<Vec<u8>, FollowerError> {
    postcard::to_allocvec(value).map_err(|_| FollowerError::Corrupt(Damage::Unencodable))
}

fn from_blob<T: DeserializeOwned>(blob: &[u8]) -> Result<T, FollowerError> {
    postcard::from_bytes(blob).map_err(|_| FollowerError::Corrupt(Damage::Undecodable))
}

fn to_json<T: Serialize>(value: &T) -> Result<String, FollowerError> {
    serde_json::to_string(value).map_err(|_| FollowerError::Corrupt(Damage::Unencodable))
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, FollowerError> {
    serde_json::from_str(text).map_err(|_| FollowerError::Corrupt(Damage::Undecodable))
}

fn read_item(row: &Row<'_>) -> Result<QueuedItem, FollowerError> {
    let place: Place = row
        .get_ref("place")?
        .as_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(FollowerError::Corrupt(Damage::Place))?;
    let l2_number: Option<L2Number> = row.get("l2_number")?;
    let outcome: Option<String> = row.get("outcome")?;
    let fate = match (l2_number, outcome) {
        (Some(l2_number), Some(outcome)) => Some(Fate { l2_number, outcome: from_json(&outcome)? }),
        _ => None,
    };
    let block = BlockRef { height: row.get("height")?, hash: BlockHash::from_byte_array(row.get("block_hash")?) };
    let item = Item { block, tx_index: row.get("tx_index")?, place, tx: row.get("tx")? };
    Ok(QueuedItem { index: row.get("idx")?, item, fate })
}

fn read_block(row: &Row<'_>) -> Result<DerivedBlock, FollowerError> {
    let header: L2Header = from_blob(row.get_ref("header")?.as_blob().map_err(rusqlite::Error::from)?)?;
    Ok(DerivedBlock {
        head: L2Head { header, hash: Hash32(row.get("hash")?) },
        derived_at: row.get("derived_at")?,
        state_root: Hash32(row.get("state_root")?),
    })
}

fn query<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, FollowerError>,
) -> Result<Vec<T>, FollowerError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn items(db: &Connection, range: Range<u64>) -> Result<Vec<QueuedItem>, FollowerError> {
    let sql = "SELECT * FROM item WHERE idx >= ? AND idx < ? ORDER BY idx";
    query(db, sql, params![range.start, range.end], read_item)
}

impl Store {
    /// Opens the file, making it if it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, FollowerError> {
        Ok(Self { db: database::open(path, SCHEMA_VERSION, SCHEMA)? })
    }

    /// From now on this connection reads the file as it is at this moment, and writes nothing.
    pub(super) fn hold(&self) -> Result<(), FollowerError> {
        Ok(self.db.execute_batch("BEGIN")?)
    }

    pub(super) fn writer(&mut self) -> Result<Writer<'_>, FollowerError> {
        Ok(Writer { tx: self.db.transaction()? })
    }

    /// The rollup and the derivation after the last step; `None` if genesis was not written.
    pub(super) fn load_derivation(&self) -> Result<Option<(RollupId, Snapshot)>, FollowerError> {
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?));
        let found = self.db.query_row("SELECT id, snapshot FROM rollup", [], read).optional()?;
        found.map(|(id, snapshot)| Ok((RollupId(id), from_blob(&snapshot)?))).transpose()
    }

    /// The state after the last step.
    pub(super) fn load_state(&self) -> Result<State, FollowerError> {
        let entries = query(&self.db, "SELECT key, value FROM state", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(entries.into_iter().collect())
    }

    /// The queue's items with these indexes.
    pub fn items(&self, range: Range<u64>) -> Result<Vec<QueuedItem>, FollowerError> {
        items(&self.db, range)
    }

    /// How many items there are, by what became of them: waiting ones first.
    pub fn tally(&self) -> Result<Vec<Tally>, FollowerError> {
        let sql = "SELECT outcome, COUNT(*), SUM(LENGTH(tx)), MIN(height), MAX(height) FROM item
            GROUP BY outcome ORDER BY outcome";
        query(&self.db, sql, [], |row| {
            let outcome: Option<String> = row.get(0)?;
            let outcome = outcome.map(|outcome| from_json(&outcome)).transpose()?;
            let (items, bytes) = (row.get(1)?, row.get(2)?);
            Ok(Tally { outcome, items, bytes, first_height: row.get(3)?, last_height: row.get(4)? })
        })
    }

    /// The item at a place.
    pub fn item_at(&self, place: &Place) -> Result<Option<QueuedItem>, FollowerError> {
        let found = query(&self.db, "SELECT * FROM item WHERE place = ?", [place.to_string()], read_item)?;
        Ok(found.into_iter().next())
    }

    /// The items that a Bitcoin transaction carries.
    pub fn items_of_transaction(&self, txid: &Txid) -> Result<Vec<QueuedItem>, FollowerError> {
        let sql = "SELECT * FROM item WHERE txid = ? ORDER BY idx";
        query(&self.db, sql, [txid.to_byte_array()], read_item)
    }

    /// The items that hold a transaction with this SHA-256.
    pub fn items_with_hash(&self, tx_hash: &Hash32) -> Result<Vec<QueuedItem>, FollowerError> {
        query(&self.db, "SELECT * FROM item WHERE tx_hash = ? ORDER BY idx", [tx_hash.0], read_item)
    }

    /// Own transactions with this SHA-256, by the derived block that executed them.
    pub fn own_txs_with_hash(&self, tx_hash: &Hash32) -> Result<Vec<Fate>, FollowerError> {
        let sql = "SELECT l2_number, outcome FROM own_tx WHERE tx_hash = ? ORDER BY l2_number";
        query(&self.db, sql, [tx_hash.0], |row| {
            Ok(Fate { l2_number: row.get(0)?, outcome: from_json(&row.get::<_, String>(1)?)? })
        })
    }

    /// The derived block with this number.
    pub fn block(&self, number: L2Number) -> Result<Option<DerivedBlock>, FollowerError> {
        let found = query(&self.db, "SELECT * FROM l2_block WHERE number = ?", [number], read_block)?;
        Ok(found.into_iter().next())
    }

    /// `head(height)`: the derived head after a Bitcoin block.
    pub fn head_at(&self, height: BtcHeight) -> Result<Option<DerivedBlock>, FollowerError> {
        let sql = "SELECT * FROM l2_block WHERE derived_at <= ? ORDER BY derived_at DESC, number DESC LIMIT 1";
        Ok(query(&self.db, sql, [height], read_block)?.into_iter().next())
    }

    /// Derived blocks from a number on.
    pub fn blocks_from(&self, number: L2Number) -> Result<Vec<DerivedBlock>, FollowerError> {
        query(&self.db, "SELECT * FROM l2_block WHERE number >= ? ORDER BY number", [number], read_block)
    }

    /// A derived block's own transactions, in order.
    pub fn own_txs(&self, number: L2Number) -> Result<Vec<(Vec<u8>, Outcome)>, FollowerError> {
        let sql = "SELECT tx, outcome FROM own_tx WHERE l2_number = ? ORDER BY position";
        query(&self.db, sql, [number], |row| Ok((row.get(0)?, from_json(&row.get::<_, String>(1)?)?)))
    }

    /// Verdicts on the batches and handovers of a Bitcoin block, in order: place, kind, verdict.
    pub fn judged(&self, height: BtcHeight) -> Result<Vec<Judged>, FollowerError> {
        let sql = "SELECT place, kind, verdict FROM judged WHERE height = ? ORDER BY seq";
        query(&self.db, sql, [height], |row| {
            let place: String = row.get(0)?;
            let verdict: Verdict = from_json(&row.get::<_, String>(2)?)?;
            let place = place.parse().map_err(|_| FollowerError::Corrupt(Damage::Place))?;
            Ok(Judged { place, kind: row.get(1)?, verdict })
        })
    }

    /// The heights above one at which a batch was accepted.
    pub fn batch_heights(&self, above: BtcHeight) -> Result<Vec<BtcHeight>, FollowerError> {
        let sql = "SELECT DISTINCT height FROM judged WHERE height > ? AND kind = 16 AND verdict = ? ORDER BY height";
        query(&self.db, sql, params![above, to_json(&Verdict::Accept)?], |row| Ok(row.get(0)?))
    }

    /// The hashes of the L2 blocks that were derived at a height.
    pub fn hashes_at(&self, height: BtcHeight) -> Result<Vec<Hash32>, FollowerError> {
        query(&self.db, "SELECT hash FROM l2_block WHERE derived_at = ?", [height], |row| Ok(Hash32(row.get(0)?)))
    }

    /// Every sequencer set that ever ruled, by the number of handovers that put it in force.
    pub fn sequencers(&self) -> Result<Vec<(u32, SequencerSet)>, FollowerError> {
        query(&self.db, "SELECT handovers, members FROM sequencers ORDER BY handovers", [], |row| {
            Ok((row.get(0)?, from_blob(&row.get::<_, Vec<u8>>(1)?)?))
        })
    }

    /// The Bitcoin block that was applied at a height, with the queue's size and root after it.
    pub fn bitcoin_block(&self, height: BtcHeight) -> Result<Option<(BlockHash, u64, Hash32)>, FollowerError> {
        let sql = "SELECT hash, queue_size, queue_root FROM bitcoin_block WHERE height = ?";
        let found = query(&self.db, sql, [height], |row| {
            Ok((BlockHash::from_byte_array(row.get(0)?), row.get(1)?, Hash32(row.get(2)?)))
        })?;
        Ok(found.into_iter().next())
    }

    /// What takes back the step at a height; `None` if it is too old to be kept.
    pub(super) fn undo(&self, height: BtcHeight) -> Result<Option<Undo>, FollowerError> {
        let blob: Option<Vec<u8>> = self
            .db
            .query_row("SELECT undo FROM bitcoin_block WHERE height = ?", [height], |row| row.get(0))
            .optional()?
            .flatten();
        blob.map(|blob| from_blob(&blob)).transpose()
    }

    /// What takes back the executions of the L2 blocks appended at a height, last first.
    pub(super) fn state_undos(&self, height: BtcHeight) -> Result<Vec<StateUndo>, FollowerError> {
        let sql = "SELECT state_undo FROM l2_block WHERE derived_at = ? AND number > 0 ORDER BY number DESC";
        query(&self.db, sql, [height], |row| {
            let blob: Option<Vec<u8>> = row.get(0)?;
            from_blob(&blob.ok_or(FollowerError::Corrupt(Damage::NoUndo))?)
        })
    }
}

impl Writer<'_> {
    pub(super) fn put_genesis(&self, id: &RollupId, snapshot: &Snapshot) -> Result<(), FollowerError> {
        self.tx.execute("INSERT INTO rollup VALUES (?, ?)", params![id.0, to_blob(snapshot)?])?;
        Ok(())
    }

    pub(super) fn put_snapshot(&self, snapshot: &Snapshot) -> Result<(), FollowerError> {
        self.tx.execute("UPDATE rollup SET snapshot = ?", [to_blob(snapshot)?])?;
        Ok(())
    }

    pub(super) fn put_bitcoin_block(
        &self,
        block: BlockRef,
        queue: (u64, Hash32),
        undo: Option<&Undo>,
    ) -> Result<(), FollowerError> {
        let undo = undo.map(to_blob).transpose()?;
        let (size, root) = queue;
        self.tx.execute(
            "INSERT INTO bitcoin_block VALUES (?, ?, ?, ?, ?)",
            params![block.height, block.hash.to_byte_array(), size, root.0, undo],
        )?;
        Ok(())
    }

    pub(super) fn put_item(&self, index: u64, item: &Item) -> Result<(), FollowerError> {
        let mut statement = self.tx.prepare_cached("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)")?;
        statement.execute(params![
            index,
            item.block.height,
            item.block.hash.to_byte_array(),
            item.tx_index,
            item.place.txid.to_byte_array(),
            item.place.to_string(),
            item.tx,
            item.tx_hash().0
        ])?;
        Ok(())
    }

    pub(super) fn items(&self, range: Range<u64>) -> Result<Vec<QueuedItem>, FollowerError> {
        items(&self.tx, range)
    }

    pub(super) fn put_fate(&self, index: u64, fate: Fate) -> Result<(), FollowerError> {
        let mut statement = self.tx.prepare_cached("UPDATE item SET l2_number = ?, outcome = ? WHERE idx = ?")?;
        statement.execute(params![fate.l2_number, to_json(&fate.outcome)?, index])?;
        Ok(())
    }

    pub(super) fn put_own_tx(&self, position: usize, tx: &[u8], fate: Fate) -> Result<(), FollowerError> {
        let mut statement = self.tx.prepare_cached("INSERT INTO own_tx VALUES (?, ?, ?, ?, ?)")?;
        statement.execute(params![fate.l2_number, position, tx, sha256(tx).0, to_json(&fate.outcome)?])?;
        Ok(())
    }

    pub(super) fn put_judged(&self, height: BtcHeight, judged: &[Judged]) -> Result<(), FollowerError> {
        for (seq, judged) in judged.iter().enumerate() {
            let verdict = to_json(&judged.verdict)?;
            self.tx.execute(
                "INSERT INTO judged VALUES (?, ?, ?, ?, ?)",
                params![height, seq, judged.place.to_string(), judged.kind, verdict],
            )?;
        }
        Ok(())
    }

    /// Writes the set in force after the block at a height, unless it was so before.
    pub(super) fn put_sequencers(&self, height: BtcHeight, derivation: &Derivation) -> Result<(), FollowerError> {
        self.tx.execute(
            "INSERT OR IGNORE INTO sequencers VALUES (?, ?, ?)",
            params![derivation.handovers(), height, to_blob(derivation.sequencers())?],
        )?;
        Ok(())
    }

    pub(super) fn put_block(&self, block: &DerivedBlock, undo: Option<&StateUndo>) -> Result<(), FollowerError> {
        let undo = undo.map(to_blob).transpose()?;
        self.tx.execute(
            "INSERT INTO l2_block VALUES (?, ?, ?, ?, ?, ?)",
            params![
                block.head.header.number,
                block.head.hash.0,
                to_blob(&block.head.header)?,
                block.derived_at,
                block.state_root.0,
                undo
            ],
        )?;
        Ok(())
    }

    /// Writes what the state holds at each of the undo's keys.
    pub(super) fn put_state(&self, state: &State, undo: &StateUndo) -> Result<(), FollowerError> {
        for key in undo.keys() {
            match state.get(key) {
                Some(value) => self.tx.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", [key, value])?,
                None => self.tx.execute("DELETE FROM state WHERE key = ?", [key])?,
            };
        }
        Ok(())
    }

    /// Writes every entry of a genesis state.
    pub(super) fn put_genesis_state(&self, state: &State) -> Result<(), FollowerError> {
        for (key, value) in state.entries() {
            self.tx.execute("INSERT INTO state VALUES (?, ?)", [key, value])?;
        }
        Ok(())
    }

    /// Removes everything that the step at `height` wrote, but for the state.
    pub(super) fn remove_step(&self, height: BtcHeight) -> Result<(), FollowerError> {
        let appended = "SELECT number FROM l2_block WHERE derived_at = ?";
        for sql in [
            &format!("UPDATE item SET l2_number = NULL, outcome = NULL WHERE l2_number IN ({appended})"),
            &format!("DELETE FROM own_tx WHERE l2_number IN ({appended})"),
            "DELETE FROM l2_block WHERE derived_at = ?",
            "DELETE FROM item WHERE height = ?",
            "DELETE FROM judged WHERE height = ?",
            "DELETE FROM sequencers WHERE height = ?",
            "DELETE FROM bitcoin_block WHERE height = ?",
        ] {
            self.tx.execute(sql, [height])?;
        }
        Ok(())
    }

    /// Forgets what takes back steps at or below a height.
    pub(super) fn forget_undo(&self, height: BtcHeight) -> Result<(), FollowerError> {
        self.tx.execute("UPDATE bitcoin_block SET undo = NULL WHERE height = ?", [height])?;
        self.tx.execute("UPDATE l2_block SET state_undo = NULL WHERE derived_at = ?", [height])?;
        Ok(())
    }

    pub(super) fn commit(self) -> Result<(), FollowerError> {
        Ok(self.tx.commit()?)
    }
}
