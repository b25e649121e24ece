//! The sequencer's SQLite file: transactions in order of arrival, soft blocks, signed batches.
//!
//! Guarantees that each method is one transaction, on disk before it returns: what was acknowledged,
//! soft-confirmed or signed is there before anybody hears of it.

use super::SequencerError;
use crate::database;
use crate::executor::NoOpReason;
use crate::l2::{L2Block, L2Header};
use crate::primitives::{Hash32, L2Number, sha256};
use crate::proof::{Receipt, Signed, SoftHeader, SoftState};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;

const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE pool (seq INTEGER PRIMARY KEY AUTOINCREMENT, tx BLOB NOT NULL, tx_hash BLOB NOT NULL UNIQUE,
    block BLOB, rejected TEXT, receipt TEXT);
CREATE INDEX pool_block ON pool (block);
CREATE INDEX pool_waiting ON pool (seq) WHERE block IS NULL AND rejected IS NULL;
CREATE INDEX pool_owed ON pool (seq) WHERE receipt IS NOT NULL AND block IS NULL;
CREATE INDEX pool_rejected ON pool (seq) WHERE rejected IS NOT NULL;
CREATE TABLE soft_block (seq INTEGER PRIMARY KEY AUTOINCREMENT, hash BLOB NOT NULL UNIQUE, parent BLOB NOT NULL,
    number INTEGER NOT NULL, header BLOB NOT NULL, forced_start INTEGER NOT NULL, own_txs BLOB NOT NULL,
    live INTEGER NOT NULL, signed TEXT);
CREATE INDEX soft_block_parent ON soft_block (parent);
CREATE INDEX soft_block_number ON soft_block (number);
CREATE INDEX soft_block_live ON soft_block (live, number);
CREATE TABLE batch (id INTEGER PRIMARY KEY AUTOINCREMENT, parent BLOB NOT NULL, last_hash BLOB NOT NULL,
    payload BLOB NOT NULL);
CREATE INDEX batch_parent ON batch (parent);
";

/// Transactions that may wait at once.
pub const MAX_POOL: u64 = 10_000;

/// Rejected transactions that are remembered, so that their senders can ask why.
const MAX_REJECTED: u32 = 10_000;

/// A soft block with what was signed for it.
#[derive(Clone, Debug)]
pub struct StoredBlock {
    /// The block.
    pub block: L2Block,
    /// Header and state root, if they were signed.
    pub signed: Option<SignedBlock>,
}

/// What a sequencer signs for a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBlock {
    /// The header.
    pub header: Signed<SoftHeader>,
    /// The state after it.
    pub state: Signed<SoftState>,
}

/// What became of a transaction that was sent to the sequencer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum TxStatus {
    /// Waits for a block.
    Pending,
    /// In a soft block.
    Included {
        /// The L2 block.
        number: L2Number,
        /// Its hash.
        block: Hash32,
        /// The signed promise, if one was given.
        #[serde(skip_serializing_if = "Option::is_none")]
        receipt: Option<Box<Signed<Receipt>>>,
    },
    /// Would have no effect; it can be sent again.
    Rejected {
        /// Why.
        reason: String,
    },
}

/// A signed batch: its payload's bytes are never made twice.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// Hash of its last block.
    pub last_hash: Hash32,
    /// The payload, ready for Bitcoin.
    pub payload: Vec<u8>,
}

/// A transaction that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Order of arrival.
    pub seq: i64,
    /// The transaction.
    pub tx: Vec<u8>,
    /// A receipt was given for it: it has to go into a block, whatever it does there.
    pub owed: bool,
}

/// A transaction that goes into a block.
#[derive(Clone, Debug)]
pub(super) struct Included {
    /// Order of arrival.
    pub seq: i64,
    /// The promise that goes out with it, if none was given before.
    pub receipt: Option<Signed<Receipt>>,
}

/// A connection to the file.
pub struct SequencerStore {
    db: Connection,
}

fn damaged<E>(_: E) -> SequencerError {
    SequencerError::Damaged
}

fn to_json<T: Serialize>(value: Option<&T>) -> Result<Option<String>, SequencerError> {
    value.map(serde_json::to_string).transpose().map_err(damaged)
}

fn from_json<T: DeserializeOwned>(text: Option<String>) -> Result<Option<T>, SequencerError> {
    text.as_deref().map(serde_json::from_str).transpose().map_err(damaged)
}

fn read_block(row: &Row<'_>) -> Result<L2Block, SequencerError> {
    let header: L2Header = postcard::from_bytes(&row.get::<_, Vec<u8>>("header")?).map_err(damaged)?;
    let own_txs = postcard::from_bytes(&row.get::<_, Vec<u8>>("own_txs")?).map_err(damaged)?;
    let forced = row.get("forced_start")?..header.forced_end;
    Ok(L2Block { header, hash: Hash32(row.get("hash")?), forced, own_txs })
}

impl SequencerStore {
    /// Opens the file, making it if it is not there.
    ///
    /// # Errors
    /// [`SequencerError`], if it cannot be opened or was made by another version.
    pub fn open(path: &Path) -> Result<Self, SequencerError> {
        Ok(Self { db: database::open(path, SCHEMA_VERSION, SCHEMA)? })
    }

    /// Takes a transaction into the pool; one that is there already keeps its place, one that was
    /// rejected is tried again.
    ///
    /// # Errors
    /// [`SequencerError::PoolFull`].
    pub fn submit(&mut self, tx: &[u8]) -> Result<TxStatus, SequencerError> {
        let hash = sha256(tx);
        let db = self.db.transaction()?;
        db.execute("DELETE FROM pool WHERE tx_hash = ? AND rejected IS NOT NULL", [hash.0])?;
        let waiting: u64 =
            db.query_row("SELECT COUNT(*) FROM pool WHERE block IS NULL AND rejected IS NULL", [], |row| row.get(0))?;
        if waiting >= MAX_POOL {
            return Err(SequencerError::PoolFull);
        }
        db.execute("INSERT OR IGNORE INTO pool (tx, tx_hash) VALUES (?, ?)", params![tx, hash.0])?;
        db.commit()?;
        Ok(self.status(&hash)?.unwrap_or(TxStatus::Pending))
    }

    /// What became of a transaction, by its SHA-256.
    ///
    /// # Errors
    /// [`SequencerError`], if the file cannot be read.
    pub fn status(&self, hash: &Hash32) -> Result<Option<TxStatus>, SequencerError> {
        let sql = "SELECT pool.block, soft_block.number, pool.rejected, pool.receipt FROM pool
            LEFT JOIN soft_block ON soft_block.hash = pool.block WHERE tx_hash = ?";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let row = self.db.query_row(sql, [hash.0], read).optional()?;
        row.map(|row| {
            Ok(match row {
                (Some(block), Some(number), _, receipt) => {
                    let receipt = from_json(receipt)?.map(Box::new);
                    TxStatus::Included { number, block: Hash32(block), receipt }
                }
                (_, _, Some(reason), _) => TxStatus::Rejected { reason },
                _ => TxStatus::Pending,
            })
        })
        .transpose()
    }

    /// The oldest waiting transactions: as many as fit `max_bytes`.
    pub(super) fn waiting(&self, max_bytes: usize) -> Result<Vec<Waiting>, SequencerError> {
        let sql = "SELECT seq, tx, receipt IS NOT NULL FROM pool
            WHERE block IS NULL AND rejected IS NULL ORDER BY seq";
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        let (mut waiting, mut room) = (Vec::new(), max_bytes);
        while let Some(row) = rows.next()? {
            let tx: Vec<u8> = row.get(1)?;
            let Some(left) = room.checked_sub(tx.len()) else { break };
            room = left;
            waiting.push(Waiting { seq: row.get(0)?, tx, owed: row.get(2)? });
        }
        Ok(waiting)
    }

    /// Writes a new soft block down, with what is signed for it, the transactions that it takes and those
    /// that it refused.
    pub(super) fn append(
        &mut self,
        block: &L2Block,
        signed: Option<&SignedBlock>,
        included: &[Included],
        rejected: &[(i64, NoOpReason)],
    ) -> Result<(), SequencerError> {
        let db = self.db.transaction()?;
        let header = postcard::to_allocvec(&block.header).map_err(damaged)?;
        let own_txs = postcard::to_allocvec(&block.own_txs).map_err(damaged)?;
        db.execute(
            "INSERT INTO soft_block (hash, parent, number, header, forced_start, own_txs, live, signed)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7)
                ON CONFLICT (hash) DO UPDATE SET live = 1, signed = coalesce(signed, ?7)",
            params![
                block.hash.0,
                block.header.parent.0,
                block.header.number,
                header,
                block.forced.start,
                own_txs,
                to_json(signed)?
            ],
        )?;
        for Included { seq, receipt } in included {
            db.execute(
                "UPDATE pool SET block = ?, receipt = coalesce(receipt, ?) WHERE seq = ?",
                params![block.hash.0, to_json(receipt.as_ref())?, seq],
            )?;
        }
        reject_all(&db, rejected)?;
        Ok(db.commit()?)
    }

    /// Whether a receipt was given for a transaction that waits again, other than those `taken` now.
    pub(super) fn owes_beside(&self, taken: &[Waiting]) -> Result<bool, SequencerError> {
        let sql = "SELECT count(*) FROM pool WHERE receipt IS NOT NULL AND block IS NULL";
        let owed: usize = self.db.query_row(sql, [], |row| row.get(0))?;
        Ok(owed > taken.iter().filter(|waiting| waiting.owed).count())
    }

    /// The highest number that a header was signed for; 0 if none was.
    pub(super) fn highest_signed(&self) -> Result<L2Number, SequencerError> {
        let sql = "SELECT coalesce(max(number), 0) FROM soft_block WHERE signed IS NOT NULL";
        Ok(self.db.query_row(sql, [], |row| row.get(0))?)
    }

    /// The soft block with a number that is in the chain, as far as is known.
    ///
    /// # Errors
    /// [`SequencerError`], if the file cannot be read.
    pub fn block(&self, number: L2Number) -> Result<Option<StoredBlock>, SequencerError> {
        // Beyond what SQLite can hold there is none.
        let Ok(number) = i64::try_from(number) else { return Ok(None) };
        let sql = "SELECT * FROM soft_block WHERE number = ? AND live > 0 ORDER BY seq DESC LIMIT 1";
        Ok(self.blocks(sql, number)?.into_iter().next())
    }

    /// Marks transactions that would have no effect.
    pub(super) fn reject(&mut self, rejected: &[(i64, NoOpReason)]) -> Result<(), SequencerError> {
        let db = self.db.transaction()?;
        reject_all(&db, rejected)?;
        Ok(db.commit()?)
    }

    /// The soft blocks that were made on a parent, the newest first.
    pub(super) fn children(&self, parent: &Hash32) -> Result<Vec<StoredBlock>, SequencerError> {
        self.blocks("SELECT * FROM soft_block WHERE parent = ? ORDER BY seq DESC", parent.0)
    }

    fn blocks(&self, sql: &str, parameter: impl ToSql) -> Result<Vec<StoredBlock>, SequencerError> {
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query([parameter])?;
        let mut blocks = Vec::new();
        while let Some(row) = rows.next()? {
            blocks.push(StoredBlock { block: read_block(row)?, signed: from_json(row.get("signed")?)? });
        }
        Ok(blocks)
    }

    /// The soft blocks that are believed to be in the chain: number and hash.
    pub(super) fn live(&self) -> Result<Vec<(L2Number, Hash32)>, SequencerError> {
        let mut statement = self.db.prepare_cached("SELECT number, hash FROM soft_block WHERE live = 1")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, Hash32(row.get(1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// After the chain changed: transactions of `orphaned` blocks wait again, in their old order; those
    /// of `chain` do not.
    pub(super) fn realign(&mut self, orphaned: &[Hash32], chain: &[&L2Block]) -> Result<(), SequencerError> {
        let db = self.db.transaction()?;
        for hash in orphaned {
            db.execute("UPDATE soft_block SET live = 0 WHERE hash = ?", [hash.0])?;
            db.execute("UPDATE pool SET block = NULL WHERE block = ?", [hash.0])?;
        }
        for block in chain {
            db.execute("UPDATE soft_block SET live = 1 WHERE hash = ?", [block.hash.0])?;
            for tx in &block.own_txs {
                // A rejected one may have been forgotten since.
                db.execute(
                    "INSERT INTO pool (tx, tx_hash, block) VALUES (?1, ?2, ?3)
                        ON CONFLICT (tx_hash) DO UPDATE SET block = ?3, rejected = NULL",
                    params![tx, sha256(tx).0, block.hash.0],
                )?;
            }
        }
        Ok(db.commit()?)
    }

    /// Stops watching soft blocks up to a final number.
    pub(super) fn settle(&mut self, number: L2Number) -> Result<(), SequencerError> {
        self.db.execute("UPDATE soft_block SET live = 2 WHERE live = 1 AND number <= ?", [number])?;
        Ok(())
    }

    /// The batches that were signed for a parent, the newest first.
    pub(super) fn batches(&self, parent: &Hash32) -> Result<Vec<StoredBatch>, SequencerError> {
        let sql = "SELECT last_hash, payload FROM batch WHERE parent = ? ORDER BY id DESC";
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement
            .query_map([parent.0], |row| Ok(StoredBatch { last_hash: Hash32(row.get(0)?), payload: row.get(1)? }))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Writes a signed batch down; only then may it leave.
    pub(super) fn put_batch(&mut self, parent: &Hash32, batch: &StoredBatch) -> Result<(), SequencerError> {
        self.db.execute(
            "INSERT INTO batch (parent, last_hash, payload) VALUES (?, ?, ?)",
            params![parent.0, batch.last_hash.0, batch.payload],
        )?;
        Ok(())
    }
}

fn reject_all(db: &Connection, rejected: &[(i64, NoOpReason)]) -> Result<(), SequencerError> {
    for (seq, reason) in rejected {
        db.execute("UPDATE pool SET rejected = ? WHERE seq = ?", params![reason.name(), seq])?;
    }
    if !rejected.is_empty() {
        let oldest_kept = "SELECT seq FROM pool WHERE rejected IS NOT NULL ORDER BY seq DESC LIMIT 1 OFFSET ?";
        db.execute(&format!("DELETE FROM pool WHERE rejected IS NOT NULL AND seq <= ({oldest_kept})"), [MAX_REJECTED])?;
    }
    Ok(())
}
