//! The sequencer's SQLite file: transactions in order of arrival, soft blocks, signed batches.
//!
//! Guarantees that each method is one transaction, on disk before it returns: what was acknowledged,
//! soft-confirmed or signed is there before anybody hears of it.

use super::SequencerError;
use super::admission::Candidate;
use super::history::Record;
use crate::api::wire::TxStatus;
use crate::database;
use crate::executor::NoOpReason;
use crate::l2::{L2Block, L2Header};
use crate::primitives::{Hash32, L2Number, sha256};
use crate::proof::{Receipt, Signed, SignedBlock};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, ToSql, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// Also in files of before: whose a transaction that waits is, what it pays, and how long it is.
const TERMS: &str = "
ALTER TABLE pool ADD COLUMN sender BLOB;
ALTER TABLE pool ADD COLUMN fee INTEGER;
ALTER TABLE pool ADD COLUMN size INTEGER;
UPDATE pool SET size = length(tx);
CREATE INDEX pool_terms ON pool (sender, size, fee, seq, receipt) WHERE block IS NULL AND rejected IS NULL;
";

/// Also in files of before: what the key may have signed before this start.
const HISTORY: &str =
    "CREATE TABLE IF NOT EXISTS history (id INTEGER PRIMARY KEY CHECK (id = 0), record TEXT NOT NULL)";

/// How long a reader waits where SQLite has to put the file in order first.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Bytes of transactions that may wait at once.
const MAX_POOL_BYTES: u64 = 64 << 20;

/// Transactions of one sender that may wait at once.
pub const MAX_WAITING: u64 = 256;

/// Why a transaction was dropped from the pool, beside an executor's reasons.
const OUTBID: &str = "outbid";

/// Settled L2 blocks that are remembered with their transactions, so that people can ask for them.
const KEPT_BLOCKS: L2Number = 50_000;

/// Settled L2 blocks that are forgotten in one step.
const FORGOTTEN_AT_ONCE: L2Number = 1_000;

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

/// A signed batch: its payload's bytes are never made twice.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// Hash of its last block.
    pub last_hash: Hash32,
    /// The payload, ready for Bitcoin.
    pub payload: Vec<u8>,
}

/// Whose a transaction is and what it pays, as far as the executor knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terms<'a> {
    /// The sender.
    pub sender: Option<&'a [u8]>,
    /// Satoshis.
    pub fee: Option<u64>,
    /// Transactions that may wait at once, this one among them.
    pub most: u64,
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
    path: PathBuf,
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
        let mut db = database::open(path, SCHEMA_VERSION, SCHEMA)?;
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('pool') WHERE name = 'size')";
        if !tx.query_row(sql, [], |row| row.get::<_, bool>(0))? {
            tx.execute_batch(TERMS)?;
        }
        tx.execute_batch(HISTORY)?;
        tx.commit()?;
        Ok(Self { path: path.to_owned(), db })
    }

    /// A connection that only reads the file, which has been opened before, and waits for nobody who writes.
    pub(super) fn open_to_read(path: &Path) -> Result<Self, SequencerError> {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        db.busy_timeout(READ_LIMIT)?;
        Ok(Self { path: path.to_owned(), db })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is known of the time before this start.
    pub(super) fn history(&self) -> Result<Record, SequencerError> {
        let record = self.db.query_row("SELECT record FROM history", [], |row| row.get(0)).optional()?;
        Ok(from_json(record)?.unwrap_or_default())
    }

    /// Replaces it.
    pub(super) fn put_history(&mut self, record: &Record) -> Result<(), SequencerError> {
        self.db.execute("INSERT OR REPLACE INTO history VALUES (0, ?)", [to_json(Some(record))?])?;
        Ok(())
    }

    /// Whether anything that was signed is in it.
    pub(super) fn has_signed(&self) -> Result<bool, SequencerError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM batch) OR EXISTS (SELECT 1 FROM soft_block WHERE signed IS NOT NULL)";
        Ok(self.db.query_row(sql, [], |row| row.get(0))?)
    }

    /// Whether it has a soft block with this hash.
    pub(super) fn knows(&self, hash: &Hash32) -> Result<bool, SequencerError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM soft_block WHERE hash = ?)";
        Ok(self.db.query_row(sql, [hash.0], |row| row.get(0))?)
    }

    /// Whether these are the bytes of a batch in it, for this parent.
    pub(super) fn has_batch(&self, parent: &Hash32, payload: &[u8]) -> Result<bool, SequencerError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM batch WHERE parent = ? AND payload = ?)";
        Ok(self.db.query_row(sql, params![parent.0, payload], |row| row.get(0))?)
    }

    /// Takes a transaction into the pool; one that is there already keeps its place, one that was
    /// rejected is tried again. Where there is no room, the cheapest gives way to one that pays more.
    ///
    /// # Errors
    /// [`SequencerError::PoolFull`], [`SequencerError::SenderFull`].
    pub(super) fn submit(&mut self, tx: &[u8], terms: Terms<'_>) -> Result<TxStatus, SequencerError> {
        let hash = sha256(tx);
        let Terms { sender, fee, most } = terms;
        let db = self.db.transaction()?;
        db.execute("DELETE FROM pool WHERE tx_hash = ? AND rejected IS NOT NULL", [hash.0])?;
        let is_known: bool =
            db.query_row("SELECT EXISTS (SELECT 1 FROM pool WHERE tx_hash = ?)", [hash.0], |row| row.get(0))?;
        if !is_known {
            if let Some(sender) = sender {
                let sql = "SELECT count(*) FROM pool WHERE sender = ? AND block IS NULL AND rejected IS NULL";
                if db.query_row(sql, [sender], |row| row.get::<_, u64>(0))? >= MAX_WAITING {
                    return Err(SequencerError::SenderFull);
                }
            }
            make_room(&db, most, tx.len(), fee.unwrap_or(0))?;
            db.execute(
                "INSERT INTO pool (tx, tx_hash, sender, fee, size) VALUES (?, ?, ?, ?, ?)",
                params![tx, hash.0, sender, fee.map(sql_integer), tx.len()],
            )?;
        }
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

    /// What waits, in order of arrival.
    pub(super) fn candidates(&self) -> Result<Vec<Candidate>, SequencerError> {
        let sql = "SELECT seq, sender, fee, size, receipt IS NOT NULL FROM pool
            WHERE block IS NULL AND rejected IS NULL ORDER BY seq";
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| {
            Ok(Candidate {
                seq: row.get(0)?,
                sender: row.get(1)?,
                fee: row.get(2)?,
                size: row.get(3)?,
                owed: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Waiting transactions by their numbers, in that order.
    pub(super) fn waiting(&self, chosen: &[i64]) -> Result<Vec<Waiting>, SequencerError> {
        let mut statement = self.db.prepare_cached("SELECT tx, receipt IS NOT NULL FROM pool WHERE seq = ?")?;
        let mut read =
            |seq: &i64| statement.query_row([seq], |row| Ok(Waiting { seq: *seq, tx: row.get(0)?, owed: row.get(1)? }));
        Ok(chosen.iter().map(&mut read).collect::<Result<_, _>>()?)
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
                    "INSERT INTO pool (tx, tx_hash, block, size) VALUES (?1, ?2, ?3, ?4)
                        ON CONFLICT (tx_hash) DO UPDATE SET block = ?3, rejected = NULL",
                    params![tx, sha256(tx).0, block.hash.0, tx.len()],
                )?;
            }
        }
        Ok(db.commit()?)
    }

    /// Stops watching soft blocks up to a final number, and forgets old ones, some at each call.
    pub(super) fn settle(&mut self, number: L2Number) -> Result<(), SequencerError> {
        self.settle_keeping(number, KEPT_BLOCKS)
    }

    fn settle_keeping(&mut self, number: L2Number, kept: L2Number) -> Result<(), SequencerError> {
        let db = self.db.transaction()?;
        db.execute("UPDATE soft_block SET live = 2 WHERE live = 1 AND number <= ?", [number])?;
        let oldest: Option<L2Number> = db.query_row("SELECT min(number) FROM soft_block", [], |row| row.get(0))?;
        let last = oldest.map(|oldest| oldest.saturating_add(FORGOTTEN_AT_ONCE)).zip(number.checked_sub(kept));
        if let Some(last) =
            last.map(|(step, old)| step.min(old)).filter(|last| oldest.is_some_and(|first| first <= *last))
        {
            let old = "(SELECT hash FROM soft_block WHERE number <= ?)";
            db.execute(&format!("DELETE FROM pool WHERE block IN {old}"), [last])?;
            db.execute(&format!("DELETE FROM batch WHERE last_hash IN {old}"), [last])?;
            db.execute("DELETE FROM soft_block WHERE number <= ?", [last])?;
        }
        Ok(db.commit()?)
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

/// Drops what pays least for its length until another of `size` bytes, which pays `fee`, has room in the pool.
fn make_room(db: &Connection, most: u64, size: usize, fee: u64) -> Result<(), SequencerError> {
    let waiting = "FROM pool WHERE block IS NULL AND rejected IS NULL";
    loop {
        let sql = format!("SELECT count(*), coalesce(sum(size), 0) {waiting}");
        let (count, bytes): (u64, u64) = db.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if count < most && bytes + size as u64 <= MAX_POOL_BYTES {
            return Ok(());
        }
        let sql = format!(
            "SELECT seq, sender, coalesce(fee, 0), size {waiting} AND receipt IS NULL
             ORDER BY coalesce(fee, 0) * 1.0 / max(size, 1), seq DESC LIMIT 1"
        );
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<_, u64>(2)?, row.get::<_, u64>(3)?));
        let cheapest: Option<(i64, Option<Vec<u8>>, u64, u64)> = db.query_row(&sql, [], read).optional()?;
        let pays_more = |paid: u64, length: u64| u128::from(fee) * u128::from(length) > u128::from(paid) * size as u128;
        let Some((seq, sender, ..)) = cheapest.filter(|(_, _, paid, length)| pays_more(*paid, *length)) else {
            return Err(SequencerError::PoolFull(most));
        };
        // The sender's last one: those behind the cheapest would have no effect without it.
        let sql = format!("SELECT coalesce(max(seq), ?1) {waiting} AND receipt IS NULL AND sender = ?2");
        let dropped: i64 = db.query_row(&sql, params![seq, sender], |row| row.get(0))?;
        db.execute("UPDATE pool SET rejected = ? WHERE seq = ?", params![OUTBID, dropped])?;
    }
}

/// As SQLite counts.
fn sql_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::BlockRef;
    use crate::sequencer::MAX_POOL;
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;

    fn store() -> (tempfile::TempDir, SequencerStore) {
        let dir = tempfile::tempdir().expect("a folder");
        let store = SequencerStore::open(&dir.path().join("sequencer.sqlite")).expect("made");
        (dir, store)
    }

    fn terms(sender: &[u8], fee: u64) -> Terms<'_> {
        Terms { sender: Some(sender), fee: Some(fee), most: MAX_POOL }
    }

    fn tx(n: u64) -> Vec<u8> {
        n.to_le_bytes().to_vec()
    }

    fn count(store: &SequencerStore, table: &str) -> i64 {
        store.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("counted")
    }

    /// The pool full of transactions of 40 senders, without a call for each.
    fn full() -> (tempfile::TempDir, SequencerStore) {
        let (dir, store) = store();
        let sql = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)
            INSERT INTO pool (tx, tx_hash, sender, fee, size)
            SELECT zeroblob(8), CAST(i AS BLOB), CAST(i % 40 AS BLOB), i % 40, 8 FROM n";
        store.db.execute(sql, [MAX_POOL]).expect("filled");
        (dir, store)
    }

    #[test]
    fn a_sender_has_so_many_waiting_and_others_are_taken_in_all_the_same() {
        let (_dir, mut store) = store();
        for n in 0..MAX_WAITING {
            store.submit(&tx(n), terms(b"mallory", 0)).expect("taken");
        }
        let full = store.submit(&tx(MAX_WAITING), terms(b"mallory", 9)).expect_err("too many");
        assert!(matches!(full, SequencerError::SenderFull), "{full}");
        assert_eq!(store.submit(&tx(0), terms(b"mallory", 0)).expect("known"), TxStatus::Pending);
        store.submit(&tx(9_999), terms(b"bob", 0)).expect("another sender");
    }

    #[test]
    fn in_a_full_pool_the_cheapest_gives_way_to_what_pays_more() {
        let (_dir, mut store) = full();
        let refused = store.submit(&tx(1), terms(b"bob", 0)).expect_err("it pays nothing");
        assert!(matches!(refused, SequencerError::PoolFull(MAX_POOL)), "{refused}");
        for n in 0..3 {
            store.submit(&tx(n), terms(b"bob", 7)).expect("it pays more than others");
        }
        let sql = "SELECT count(*), min(fee), max(fee) FROM pool WHERE rejected = 'outbid'";
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        assert_eq!(store.db.query_row(sql, [], read), Ok((3, 0, 0)), "those without a fee");
        assert_eq!(store.candidates().expect("read").len() as u64, MAX_POOL);
        assert!(matches!(store.status(&sha256(&tx(2))), Ok(Some(TxStatus::Pending))));
    }

    #[test]
    fn what_is_owed_is_never_dropped() {
        let (_dir, mut store) = full();
        store.db.execute("UPDATE pool SET receipt = '{}'", []).expect("promised");
        let refused = store.submit(&tx(1), terms(b"bob", 1_000)).expect_err("no room");
        assert!(matches!(refused, SequencerError::PoolFull(MAX_POOL)), "{refused}");
    }

    fn block(number: L2Number) -> L2Block {
        let hash = |n: u64| Hash32(std::array::from_fn(|i| if i < 8 { n.to_le_bytes()[i] } else { 0 }));
        let header = L2Header {
            number,
            parent: hash(number.saturating_sub(1)),
            origin: BlockRef { height: 1, hash: BlockHash::all_zeros() },
            timestamp: number,
            forced_end: 0,
            queue_size: 0,
            queue_root: hash(0),
            txs_root: hash(0),
        };
        L2Block { header, hash: hash(number), forced: 0..0, own_txs: vec![tx(number)] }
    }

    #[test]
    fn old_rows_are_forgotten_and_those_that_count_are_kept() {
        let (_dir, mut store) = store();
        for number in 1..=60 {
            store.submit(&tx(number), terms(b"bob", 1)).expect("taken");
            let seq = store.candidates().expect("read").last().expect("one").seq;
            store.append(&block(number), None, &[Included { seq, receipt: None }], &[]).expect("made");
            let batch = StoredBatch { last_hash: block(number).hash, payload: vec![1] };
            store.put_batch(&block(number).header.parent, &batch).expect("signed");
        }
        store.submit(&tx(99), terms(b"bob", 1)).expect("taken");
        store.settle_keeping(50, 20).expect("settled");
        for (table, left) in [("soft_block", 30), ("batch", 30), ("pool", 31)] {
            assert_eq!(count(&store, table), left, "{table}");
        }
        assert!(store.status(&sha256(&tx(30))).expect("read").is_none());
        assert!(matches!(store.status(&sha256(&tx(31))), Ok(Some(TxStatus::Included { number: 31, .. }))));
        assert_eq!(store.live().expect("read").len(), 10, "what may be orphaned is watched");
        store.settle_keeping(50, 20).expect("again");
        assert_eq!(count(&store, "soft_block"), 30);
    }

    #[test]
    fn a_file_of_before_is_taken_over_with_what_waits_in_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("sequencer.sqlite");
        let db = database::open(&path, SCHEMA_VERSION, SCHEMA).expect("made");
        db.execute("INSERT INTO pool (tx, tx_hash) VALUES (x'0102', x'03')", []).expect("written");
        drop(db);
        for _ in 0..2 {
            let store = SequencerStore::open(&path).expect("opened");
            let waiting = store.candidates().expect("read");
            assert_eq!(waiting, [Candidate { seq: 1, sender: None, fee: None, size: 2, owed: false }]);
            assert_eq!(store.waiting(&[1]).expect("read")[0].tx, [1, 2]);
        }
    }
}
