//! Opening a SQLite file in the way that every store here needs it.
//!
//! Guarantees that what a transaction committed is on disk (write-ahead log, `synchronous = FULL`), and that
//! a file of another version is refused and not touched.

use rusqlite::{Connection, TransactionBehavior};
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

/// Opens a file, making it with `schema` if it is not there.
pub(crate) fn open(path: &Path, version: i64, schema: &str) -> Result<Connection, OpenError> {
    let mut db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    // Taken at once: of two processes that make the file, one waits for the other.
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match tx.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? {
        0 => {
            tx.execute_batch(schema)?;
            tx.pragma_update(None, "user_version", version)?;
        }
        found if found == version => {}
        found => return Err(OpenError::Schema(found)),
    }
    tx.commit()?;
    Ok(db)
}
