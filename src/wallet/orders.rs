//! What another process asks of the one that has the wallet open: to bump a job.
//!
//! Guarantees: an order is a row in the wallet's database, carried out at most once by whoever has the wallet, and
//! again after a crash in between (a bump to a rate that is paid already changes nothing); what came of it is there for
//! whoever asked. One that was not taken up can be withdrawn.

use super::files::Folder;
use super::open::open_database;
use super::{Caps, JobId, Wallet, WalletError, unix_now};
use bitcoin::{Amount, FeeRate};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use std::path::Path;

/// A bump that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its number.
    pub id: i64,
    /// The job.
    pub job: JobId,
    /// The rate that it is to pay.
    pub rate: FeeRate,
    /// What that may cost.
    pub caps: Caps,
}

/// The wallet's orders, for a process that does not have the wallet.
pub struct Orders {
    db: Connection,
}

/// Makes the table if it is missing.
pub(super) fn create_tables(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS sortie_order (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at INTEGER NOT NULL,
            job INTEGER NOT NULL,
            fee_rate_sat_kwu INTEGER NOT NULL,
            max_fee_sat INTEGER,
            max_fee_rate_sat_kwu INTEGER,
            state TEXT NOT NULL CHECK (state IN ('placed', 'taken', 'done', 'withdrawn')),
            outcome TEXT
        ) STRICT;",
    )
}

fn read(row: &Row<'_>) -> rusqlite::Result<Order> {
    let rate = |per_kwu: i64| FeeRate::from_sat_per_kwu(per_kwu.cast_unsigned());
    let sat = |sat: i64| Amount::from_sat(sat.cast_unsigned());
    Ok(Order {
        id: row.get(0)?,
        job: JobId(row.get(1)?),
        rate: rate(row.get(2)?),
        caps: Caps {
            max_fee: row.get::<_, Option<i64>>(3)?.map(sat),
            max_fee_rate: row.get::<_, Option<i64>>(4)?.map(rate),
        },
    })
}

impl Orders {
    /// Opens the database of a wallet that another process may have.
    ///
    /// # Errors
    /// [`WalletError::Database`].
    pub fn open(dir: &Path) -> Result<Self, WalletError> {
        let mut db = open_database(&Folder::database_in(dir))?;
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        create_tables(&tx)?;
        tx.commit()?;
        Ok(Self { db })
    }

    /// Asks for a bump. Returns the order's number.
    ///
    /// # Errors
    /// [`WalletError::Database`].
    pub fn place(&self, job: JobId, rate: FeeRate, caps: &Caps) -> Result<i64, WalletError> {
        let per_kwu = |rate: FeeRate| rate.to_sat_per_kwu().cast_signed();
        self.db.execute(
            "INSERT INTO sortie_order (at, job, fee_rate_sat_kwu, max_fee_sat, max_fee_rate_sat_kwu, state)
             VALUES (?1, ?2, ?3, ?4, ?5, 'placed')",
            params![
                unix_now().cast_signed(),
                job.0,
                per_kwu(rate),
                caps.max_fee.map(|sat| sat.to_sat().cast_signed()),
                caps.max_fee_rate.map(per_kwu),
            ],
        )?;
        Ok(self.db.last_insert_rowid())
    }

    /// What came of an order, once it is carried out.
    ///
    /// # Errors
    /// [`WalletError::Database`].
    pub fn outcome(&self, id: i64) -> Result<Option<String>, WalletError> {
        let sql = "SELECT outcome FROM sortie_order WHERE id = ?1 AND state = 'done'";
        Ok(self.db.query_row(sql, [id], |row| row.get(0)).optional()?)
    }

    /// Takes an order back, if nobody has taken it up; returns whether it did.
    ///
    /// # Errors
    /// [`WalletError::Database`].
    pub fn withdraw(&self, id: i64) -> Result<bool, WalletError> {
        let sql = "UPDATE sortie_order SET state = 'withdrawn' WHERE id = ?1 AND state = 'placed'";
        Ok(self.db.execute(sql, [id])? == 1)
    }
}

impl Wallet {
    /// The orders to carry out, oldest first; one that a crash interrupted is among them.
    ///
    /// # Errors
    /// [`WalletError::Database`].
    pub fn orders(&self) -> Result<Vec<Order>, WalletError> {
        let sql = "SELECT id, job, fee_rate_sat_kwu, max_fee_sat, max_fee_rate_sat_kwu FROM sortie_order
                   WHERE state IN ('placed', 'taken') ORDER BY id";
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map([], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Takes an order up, so that it cannot be withdrawn any more; returns whether it is still wanted.
    ///
    /// # Errors
    /// [`WalletError::Database`].
    pub fn take_order(&self, id: i64) -> Result<bool, WalletError> {
        let sql = "UPDATE sortie_order SET state = 'taken' WHERE id = ?1 AND state IN ('placed', 'taken')";
        Ok(self.db.execute(sql, [id])? == 1)
    }

    /// Records an order's outcome.
    ///
    /// # Errors
    /// [`WalletError::Database`].
    pub fn end_order(&self, id: i64, outcome: &str) -> Result<(), WalletError> {
        self.db.execute("UPDATE sortie_order SET state = 'done', outcome = ?2 WHERE id = ?1", params![id, outcome])?;
        Ok(())
    }
}
