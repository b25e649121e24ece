//! The journal of publications: what was signed, written down before it leaves.
//!
//! Guarantees: a job's transactions and the wallet's knowledge of them are stored in one SQLite
//! transaction (flushed to disk), and nothing is broadcast that is not here. A key index is used by
//! one job at most. States only move along [`JobState::may_become`]; the chain has the last word.

use super::WalletError;
use crate::envelope::Carrier;
use crate::primitives::{BtcHeight, Hash32};
use crate::queue::Place;
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, Txid};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::fmt;

/// Blocks after which a confirmed job is no longer watched for reorganisations.
const BURIED: BtcHeight = 144;

/// A job's number in this wallet's journal, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How far a publication has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Written down; whether it left is not known.
    Signed,
    /// The node has taken it.
    Sent,
    /// The payload is in the best chain's block at this height.
    Confirmed(BtcHeight),
    /// It will not be published: nothing of it left, or its coins were spent otherwise.
    Abandoned(String),
    /// The commit is being swept back by key, without the payload.
    Reclaiming,
    /// The commit was swept back at this height.
    Reclaimed(BtcHeight),
}

impl JobState {
    /// Whether a publication may go from this state to `next`.
    pub fn may_become(&self, next: &Self) -> bool {
        use JobState::{Abandoned, Confirmed, Reclaimed, Reclaiming, Sent, Signed};
        match (self, next) {
            (Signed, Sent | Abandoned(_)) | (Sent, Abandoned(_) | Reclaiming) => true,
            // What the chain shows is so, whatever we believed; and a reorganisation undoes it.
            (_, Confirmed(_)) | (Confirmed(_), Sent) => true,
            (Reclaiming | Reclaimed(_), Reclaimed(_)) | (Reclaimed(_), Reclaiming) => true,
            _ => self == next,
        }
    }

    /// Whether there is something left to send or to wait for.
    pub fn is_unfinished(&self) -> bool {
        matches!(self, Self::Signed | Self::Sent | Self::Reclaiming)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Sent => "sent",
            Self::Confirmed(_) => "confirmed",
            Self::Abandoned(_) => "abandoned",
            Self::Reclaiming => "reclaiming",
            Self::Reclaimed(_) => "reclaimed",
        }
    }

    fn height(&self) -> Option<BtcHeight> {
        match self {
            Self::Confirmed(height) | Self::Reclaimed(height) => Some(*height),
            _ => None,
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirmed(height) | Self::Reclaimed(height) => {
                write!(f, "{} at height {height}", self.name())
            }
            Self::Abandoned(reason) => write!(f, "abandoned: {reason}"),
            other => f.write_str(other.name()),
        }
    }
}

/// What is known before a job has a number.
#[derive(Clone, Debug)]
pub(crate) struct NewJob {
    pub carrier: Carrier,
    pub payload: Vec<u8>,
    pub payload_hash: Hash32,
    pub key_index: Option<u32>,
    pub fee_rate: FeeRate,
    pub fee: Amount,
    pub vsize: u64,
    pub transactions: Vec<Transaction>,
    pub change: Option<OutPoint>,
}

/// One publication.
#[derive(Clone, Debug)]
pub struct Job {
    /// Number in the journal.
    pub id: JobId,
    /// When it was written down, in seconds since 1970.
    pub created_at: u64,
    /// How the payload is carried.
    pub carrier: Carrier,
    /// The payload.
    pub payload: Vec<u8>,
    /// SHA-256 of the payload.
    pub payload_hash: Hash32,
    /// Index of the reveal key, for a Taproot envelope.
    pub key_index: Option<u32>,
    /// The rate that was asked for.
    pub fee_rate: FeeRate,
    /// Fee of all its transactions.
    pub fee: Amount,
    /// Virtual size of all its transactions.
    pub vsize: u64,
    /// Signed: the one that carries the payload is the last.
    pub transactions: Vec<Transaction>,
    /// The output that pays the wallet back.
    pub change: Option<OutPoint>,
    /// Signed: sweeps the commit back by key.
    pub reclaim: Option<Transaction>,
    /// How far it has come.
    pub state: JobState,
}

impl Job {
    /// The ids of its transactions, in order.
    pub fn txids(&self) -> Vec<Txid> {
        self.transactions.iter().map(Transaction::compute_txid).collect()
    }

    /// Where the payload stands.
    pub fn place(&self) -> Option<Place> {
        let txid = self.transactions.last()?.compute_txid();
        Some(Place { txid, carrier: self.carrier, index: 0, position: 0 })
    }

    /// The transactions that are to be in the mempool or in the chain now.
    pub(crate) fn active(&self) -> Vec<Transaction> {
        match (&self.state, &self.reclaim) {
            (JobState::Reclaiming | JobState::Reclaimed(_), Some(reclaim)) => {
                self.transactions.first().into_iter().chain([reclaim]).cloned().collect()
            }
            _ => self.transactions.clone(),
        }
    }
}

pub(crate) fn create_table(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS sortie_job (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            created_at INTEGER NOT NULL,
            carrier TEXT NOT NULL CHECK (carrier IN ('op-return', 'taproot')),
            payload BLOB NOT NULL,
            payload_hash BLOB NOT NULL,
            key_index INTEGER UNIQUE,
            fee_rate_sat_kwu INTEGER NOT NULL,
            fee_sat INTEGER NOT NULL,
            vsize_vb INTEGER NOT NULL,
            first_tx BLOB NOT NULL,
            second_tx BLOB,
            change_txid BLOB,
            change_vout INTEGER,
            reclaim_tx BLOB,
            state TEXT NOT NULL,
            height INTEGER,
            reason TEXT
        ) STRICT;
        CREATE INDEX IF NOT EXISTS sortie_job_payload ON sortie_job (payload_hash);
        CREATE INDEX IF NOT EXISTS sortie_job_state ON sortie_job (state, height);",
    )
}

/// Writes a job down as `Signed`. The caller commits.
pub(crate) fn append(db: &Connection, job: &NewJob, now: u64) -> Result<JobId, WalletError> {
    let carrier = match job.carrier {
        Carrier::OpReturn => "op-return",
        Carrier::Taproot => "taproot",
    };
    db.execute(
        "INSERT INTO sortie_job (created_at, carrier, payload, payload_hash, key_index,
            fee_rate_sat_kwu, fee_sat, vsize_vb, first_tx, second_tx, change_txid, change_vout, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 'signed')",
        params![
            integer(now)?,
            carrier,
            job.payload,
            job.payload_hash.0,
            job.key_index,
            integer(job.fee_rate.to_sat_per_kwu())?,
            integer(job.fee.to_sat())?,
            integer(job.vsize)?,
            job.transactions.first().map(serialize),
            job.transactions.get(1).map(serialize),
            job.change.map(|out| serialize(&out.txid)),
            job.change.map(|out| out.vout),
        ],
    )?;
    Ok(JobId(db.last_insert_rowid()))
}

/// Moves a job to another state. The caller commits.
///
/// # Errors
/// [`WalletError::Journal`] if the job does not exist or may not take that step.
pub(crate) fn set_state(db: &Connection, id: JobId, next: &JobState) -> Result<(), WalletError> {
    let job = find(db, id)?.ok_or_else(|| WalletError::Journal(format!("no job {id}")))?;
    if !job.state.may_become(next) {
        let words = format!("job {id} is {} and cannot become {next}", job.state);
        return Err(WalletError::Journal(words));
    }
    let reason = match next {
        JobState::Abandoned(reason) => Some(reason),
        _ => None,
    };
    db.execute(
        "UPDATE sortie_job SET state = ?2, height = ?3, reason = ?4 WHERE id = ?1",
        params![id.0, next.name(), next.height(), reason],
    )?;
    Ok(())
}

/// Keeps the transaction that sweeps a commit back. The caller commits.
pub(crate) fn set_reclaim(db: &Connection, id: JobId, reclaim: &Transaction) -> Result<(), WalletError> {
    let sql = "UPDATE sortie_job SET reclaim_tx = ?2 WHERE id = ?1";
    db.execute(sql, params![id.0, serialize(reclaim)])?;
    set_state(db, id, &JobState::Reclaiming)
}

pub(crate) fn find(db: &Connection, id: JobId) -> Result<Option<Job>, WalletError> {
    let row = db.query_row("SELECT * FROM sortie_job WHERE id = ?1", [id.0], read).optional()?;
    row.transpose()
}

/// All jobs, oldest first.
pub(crate) fn all(db: &Connection) -> Result<Vec<Job>, WalletError> {
    list(db, "SELECT * FROM sortie_job ORDER BY id", [])
}

/// The latest job of this payload that is not given up.
pub(crate) fn of_payload(db: &Connection, hash: Hash32) -> Result<Option<Job>, WalletError> {
    let sql = "SELECT * FROM sortie_job WHERE payload_hash = ?1
               AND state IN ('signed', 'sent', 'confirmed') ORDER BY id DESC LIMIT 1";
    db.query_row(sql, [hash.0], read).optional()?.transpose()
}

/// Jobs whose transactions the wallet must keep in mind: unfinished, or not buried deep at `tip`.
pub(crate) fn watched(db: &Connection, tip: BtcHeight) -> Result<Vec<Job>, WalletError> {
    let sql = "SELECT * FROM sortie_job WHERE state IN ('signed', 'sent', 'reclaiming')
               OR (state IN ('confirmed', 'reclaimed') AND height > ?1) ORDER BY id";
    list(db, sql, [tip.saturating_sub(BURIED)])
}

/// The lowest key index from `base` on that no job has used.
pub(crate) fn next_key_index(db: &Connection, base: u32) -> Result<u32, WalletError> {
    let last: Option<u32> = db.query_row("SELECT max(key_index) FROM sortie_job", [], |row| row.get(0))?;
    Ok(last.map_or(base, |last| base.max(last.saturating_add(1))))
}

fn list(db: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Job>, WalletError> {
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map(params, read)?;
    rows.map(|row| row?).collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Result<Job, WalletError>> {
    let id = JobId(row.get("id")?);
    let carrier: String = row.get("carrier")?;
    let state: String = row.get("state")?;
    let height: Option<BtcHeight> = row.get("height")?;
    let reason: Option<String> = row.get("reason")?;
    let first: Vec<u8> = row.get("first_tx")?;
    let second: Option<Vec<u8>> = row.get("second_tx")?;
    let reclaim: Option<Vec<u8>> = row.get("reclaim_tx")?;
    let change_txid: Option<Vec<u8>> = row.get("change_txid")?;
    let change_vout: Option<u32> = row.get("change_vout")?;
    let payload = row.get("payload")?;
    let payload_hash = Hash32(row.get("payload_hash")?);
    let key_index = row.get("key_index")?;
    let created_at: i64 = row.get("created_at")?;
    let fee_rate: i64 = row.get("fee_rate_sat_kwu")?;
    let fee: i64 = row.get("fee_sat")?;
    let vsize: i64 = row.get("vsize_vb")?;

    let parse = || -> Option<Job> {
        let tx = |bytes: &Vec<u8>| deserialize::<Transaction>(bytes).ok();
        let txid = |bytes: Vec<u8>| deserialize::<Txid>(&bytes).ok();
        Some(Job {
            id,
            created_at: created_at.try_into().ok()?,
            carrier: match carrier.as_str() {
                "op-return" => Carrier::OpReturn,
                "taproot" => Carrier::Taproot,
                _ => return None,
            },
            payload,
            payload_hash,
            key_index,
            fee_rate: FeeRate::from_sat_per_kwu(fee_rate.try_into().ok()?),
            fee: Amount::from_sat(fee.try_into().ok()?),
            vsize: vsize.try_into().ok()?,
            transactions: [Some(&first), second.as_ref()].into_iter().flatten().map(tx).collect::<Option<_>>()?,
            change: match (change_txid, change_vout) {
                (Some(bytes), Some(vout)) => Some(OutPoint::new(txid(bytes)?, vout)),
                _ => None,
            },
            reclaim: match &reclaim {
                Some(bytes) => Some(tx(bytes)?),
                None => None,
            },
            state: match state.as_str() {
                "signed" => JobState::Signed,
                "sent" => JobState::Sent,
                "confirmed" => JobState::Confirmed(height?),
                "abandoned" => JobState::Abandoned(reason.unwrap_or_default()),
                "reclaiming" => JobState::Reclaiming,
                "reclaimed" => JobState::Reclaimed(height?),
                _ => return None,
            },
        })
    };
    // A journal that cannot be read stops the program: guessing here costs money.
    Ok(parse().ok_or_else(|| WalletError::Journal(format!("job {id} cannot be read"))))
}

fn integer(value: u64) -> Result<i64, WalletError> {
    value.try_into().map_err(|_| WalletError::Journal("a number does not fit".into()))
}

#[cfg(test)]
mod tests {
    use super::super::coins::{key_spend, transaction};
    use super::*;

    fn open() -> Connection {
        let db = Connection::open_in_memory().expect("database");
        create_table(&db).expect("table");
        db
    }

    fn job(payload: &[u8], key_index: Option<u32>) -> NewJob {
        let tx = transaction(vec![key_spend(OutPoint::null())], Vec::new());
        NewJob {
            carrier: Carrier::Taproot,
            payload: payload.to_vec(),
            payload_hash: crate::primitives::sha256(payload),
            key_index,
            fee_rate: FeeRate::from_sat_per_kwu(250),
            fee: Amount::from_sat(249),
            vsize: 249,
            change: Some(OutPoint::new(tx.compute_txid(), 0)),
            transactions: vec![tx.clone(), tx],
        }
    }

    #[test]
    fn a_job_reads_back_as_it_was_written() {
        let db = open();
        let new = job(b"payload", Some(4));
        let id = append(&db, &new, 77).expect("written");
        let read = find(&db, id).expect("readable").expect("there");
        assert_eq!(read.transactions, new.transactions);
        assert_eq!((read.payload, read.key_index), (new.payload, new.key_index));
        assert_eq!((read.fee_rate, read.fee, read.vsize), (new.fee_rate, new.fee, new.vsize));
        assert_eq!((read.change, read.created_at, read.state), (new.change, 77, JobState::Signed));
    }

    #[test]
    fn a_key_index_is_never_used_twice() {
        let db = open();
        assert_eq!(next_key_index(&db, 5).ok(), Some(5));
        let id = append(&db, &job(b"a", Some(5)), 0).expect("written");
        set_state(&db, id, &JobState::Abandoned("refused".into())).expect("moved");
        assert_eq!(next_key_index(&db, 5).ok(), Some(6), "an abandoned job keeps its key");
        assert!(append(&db, &job(b"b", Some(5)), 0).is_err(), "the database refuses it, too");
    }

    #[test]
    fn states_move_along_the_stated_ways_only() {
        use JobState::{Abandoned, Confirmed, Reclaimed, Reclaiming, Sent, Signed};
        let gone = || Abandoned("spent".into());
        let states = [Signed, Sent, Confirmed(7), gone(), Reclaiming, Reclaimed(7)];
        // Rows: from; columns: to, in the same order. x: allowed.
        let allowed = [".xxx..", "..xxx.", ".x....", "..x...", "..x..x", "..x.x."];
        for (from, row) in states.iter().zip(allowed) {
            for (to, mark) in states.iter().zip(row.chars()).filter(|(to, _)| *to != from) {
                assert_eq!(from.may_become(to), mark == 'x', "{from} -> {to}");
            }
        }
        assert!(Confirmed(7).may_become(&Confirmed(8)));
    }

    #[test]
    fn a_forbidden_step_is_an_error_and_changes_nothing() {
        let db = open();
        let id = append(&db, &job(b"a", None), 0).expect("written");
        set_state(&db, id, &JobState::Abandoned("refused".into())).expect("moved");
        assert!(matches!(set_state(&db, id, &JobState::Sent), Err(WalletError::Journal(_))));
        let state = find(&db, id).expect("readable").expect("there").state;
        assert_eq!(state, JobState::Abandoned("refused".into()));
        assert!(set_state(&db, JobId(99), &JobState::Sent).is_err());
    }

    #[test]
    fn a_payload_finds_its_job_until_that_is_given_up() {
        let db = open();
        let hash = crate::primitives::sha256(b"a");
        assert!(of_payload(&db, hash).expect("readable").is_none());
        let id = append(&db, &job(b"a", None), 0).expect("written");
        assert_eq!(of_payload(&db, hash).expect("readable").map(|job| job.id), Some(id));
        set_state(&db, id, &JobState::Abandoned("refused".into())).expect("moved");
        assert!(of_payload(&db, hash).expect("readable").is_none());
    }

    #[test]
    fn confirmed_jobs_are_watched_until_they_are_buried() {
        let db = open();
        let id = append(&db, &job(b"a", None), 0).expect("written");
        assert_eq!(watched(&db, 1_000).expect("readable").len(), 1);
        set_state(&db, id, &JobState::Confirmed(100)).expect("moved");
        assert_eq!(watched(&db, 243).expect("readable").len(), 1);
        assert_eq!(watched(&db, 244).expect("readable").len(), 0);
    }

    #[test]
    fn a_damaged_row_is_an_error_not_a_missing_job() {
        let db = open();
        append(&db, &job(b"a", None), 0).expect("written");
        db.execute("UPDATE sortie_job SET state = 'gone'", []).expect("damaged");
        assert!(matches!(all(&db), Err(WalletError::Journal(_))));
    }
}
