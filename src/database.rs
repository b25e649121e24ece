//! Opening a SQLite file in the way that every store here needs it.
//!
//! Guarantees that what a transaction committed is on disk (write-ahead log, `synchronous = FULL`), and that
//! a file of another version is refused and not touched.

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::path::Path;
use std::time::Duration;

/// How long a reader or writer waits for the other.
const BUSY: Duration = Duration::from_secs(10);

/// Why a file was not opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// SQLite could not.
    Sqlite(rusqlite::Error),
    /// It has another schema version.
    Schema(i64),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        OpenError::Sqlite(error)
    }
}

/// Whether a file could not grow: the disk is full, or a limit is reached. With room it goes on as if nothing had been.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE};
    let is_short = |code| matches!(code, SQLITE_IOERR_WRITE | SQLITE_IOERR_SHMSIZE);
    error.sqlite_error().is_some_and(|error| error.code == ErrorCode::DiskFull || is_short(error.extended_code))
}

/// Opens a file, making it with `schema` if it is not there.
pub(crate) fn open(path: &Path, version: i64, schema: &str) -> Result<Connection, OpenError> {
    let mut db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    // Whoever only reads waits for nobody who writes.
    if version_of(&db)? == 0 {
        // Taken at once: of two processes that make the file, one waits for the other.
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if version_of(&tx)? == 0 {
            tx.execute_batch(schema)?;
            tx.pragma_update(None, "user_version", version)?;
        }
        tx.commit()?;
    }
    match version_of(&db)? {
        found if found == version => Ok(db),
        found => Err(OpenError::Schema(found)),
    }
}

fn version_of(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_grow_is_told_from_one_that_is_broken() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = open(&dir.path().join("file.sqlite"), 1, "CREATE TABLE t (b BLOB)").expect("made");
        db.pragma_update(None, "max_page_count", 4).expect("a small disk");
        let full = db.execute("INSERT INTO t VALUES (zeroblob(100000))", []).expect_err("no room");
        assert!(is_full(&full), "{full}");
        let broken = db.execute("INSERT INTO t VALUES (1, 2)", []).expect_err("no such column");
        assert!(!is_full(&broken), "{broken}");
        db.pragma_update(None, "max_page_count", 400).expect("room");
        db.execute("INSERT INTO t VALUES (zeroblob(100000))", []).expect("as if nothing had been");
    }

    #[test]
    fn a_file_is_opened_while_somebody_writes_it_and_one_of_another_version_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file.sqlite");
        let mut writer = open(&path, 7, "CREATE TABLE t (n INTEGER)").expect("made");
        let writing = writer.transaction_with_behavior(TransactionBehavior::Immediate).expect("nobody else writes");
        writing.execute("INSERT INTO t VALUES (1)", []).expect("written");
        // Whoever waited for the writer would do so in vain.
        let reader = open(&path, 7, "").expect("opened");
        assert_eq!(reader.query_row("SELECT COUNT(*) FROM t", [], |row| row.get::<_, i64>(0)), Ok(0));
        assert!(matches!(open(&path, 8, ""), Err(OpenError::Schema(7))));
        writing.commit().expect("committed");
    }
}
