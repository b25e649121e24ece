//! The journal of publications: what is settled when a job is planned, and its events, append-only.
//!
//! Guarantees: an event is on disk, in one SQLite transaction with the wallet's knowledge of it, before
//! the act that it names; nothing is broadcast that is not here; no row is ever changed or removed (the
//! database refuses it); a key index is used by one job at most. An event that cannot follow those
//! before it is an error. A file of another version is refused and not touched.

use super::job::{Event, Job, JobId, JobState, JobTerms, Payer};
use super::{Caps, WalletError};
use crate::envelope::Carrier;
use crate::primitives::{BtcHeight, Hash32};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, FeeRate, ScriptBuf, TapNodeHash};
use rusqlite::{Connection, Row, params};

/// Blocks after which a confirmed job is no longer watched for reorganisations.
pub const FINAL_DEPTH: u32 = 144;

/// Version of the tables below, in the database's `user_version`.
pub(crate) const VERSION: i64 = 2;

/// An event with its place in the job's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its number in the job's log, from 1.
    pub sequence: u32,
    /// When it was written down, in seconds since 1970.
    pub at: u64,
    /// What happened.
    pub event: Event,
}

pub(crate) fn create_tables(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE TABLE sortie_job (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            created_at INTEGER NOT NULL,
            payer TEXT NOT NULL CHECK (payer IN ('wallet', 'anywhere', 'psbt')),
            carrier TEXT NOT NULL CHECK (carrier IN ('op-return', 'taproot')),
            payload BLOB NOT NULL,
            payload_hash BLOB NOT NULL,
            key_index INTEGER UNIQUE,
            merkle_root BLOB,
            refund BLOB,
            asked_sat INTEGER,
            fee_rate_sat_kwu INTEGER NOT NULL,
            max_fee_sat INTEGER,
            max_fee_rate_sat_kwu INTEGER
        ) STRICT;
        CREATE INDEX sortie_job_payload ON sortie_job (payload_hash);
        CREATE TABLE sortie_event (
            job INTEGER NOT NULL REFERENCES sortie_job (id),
            sequence INTEGER NOT NULL,
            at INTEGER NOT NULL,
            kind TEXT NOT NULL,
            data TEXT NOT NULL CHECK (data ->> 'kind' = kind),
            PRIMARY KEY (job, sequence)
        ) STRICT;
        CREATE INDEX sortie_event_closing ON sortie_event (job) WHERE kind = 'final';
        CREATE TRIGGER sortie_job_kept BEFORE UPDATE ON sortie_job
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
        CREATE TRIGGER sortie_job_stays BEFORE DELETE ON sortie_job
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
        CREATE TRIGGER sortie_event_kept BEFORE UPDATE ON sortie_event
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
        CREATE TRIGGER sortie_event_stays BEFORE DELETE ON sortie_event
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;",
    )?;
    db.pragma_update(None, "user_version", VERSION)
}

/// Makes what is missing of a journal that an earlier program of this version made.
pub(crate) fn complete_tables(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("CREATE INDEX IF NOT EXISTS sortie_event_amended ON sortie_event (job) WHERE kind = 'amended'")
}

/// The version of a database's journal; 0 for one that was made before versions were counted.
pub(crate) fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Writes a job down, with its first events. The caller commits.
pub(crate) fn begin(db: &Connection, terms: &JobTerms, events: &[Event], now: u64) -> Result<JobId, WalletError> {
    let cap = |rate: Option<FeeRate>| rate.map(|rate| integer(rate.to_sat_per_kwu())).transpose();
    // A cap above all money is none.
    let sat = |amount: Option<Amount>| amount.map(|amount| integer(amount.min(Amount::MAX_MONEY).to_sat())).transpose();
    db.execute(
        "INSERT INTO sortie_job (created_at, payer, carrier, payload, payload_hash, key_index, merkle_root,
            refund, asked_sat, fee_rate_sat_kwu, max_fee_sat, max_fee_rate_sat_kwu)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            integer(now)?,
            terms.payer.name(),
            carrier_name(terms.carrier),
            terms.payload,
            terms.payload_hash.0,
            terms.key_index,
            terms.merkle_root.map(|root| root.to_byte_array()),
            terms.refund.as_ref().map(|script| script.as_bytes()),
            sat(terms.asked)?,
            integer(terms.fee_rate.to_sat_per_kwu())?,
            sat(terms.caps.max_fee)?,
            cap(terms.caps.max_fee_rate)?,
        ],
    )?;
    let id = JobId(db.last_insert_rowid());
    for event in events {
        append(db, id, event, now)?;
    }
    Ok(id)
}

/// Writes down what is about to happen to a job. The caller commits.
///
/// # Errors
/// [`WalletError::Journal`] if the job does not exist, or the event cannot follow.
pub(crate) fn append(db: &Connection, id: JobId, event: &Event, now: u64) -> Result<(), WalletError> {
    let mut job = find(db, id)?.ok_or_else(|| WalletError::Journal(format!("no job {id}")))?;
    job.apply(event).map_err(|reason| WalletError::Journal(format!("job {id}: {reason}")))?;
    let data = serde_json::to_string(event).map_err(|error| WalletError::Journal(error.to_string()))?;
    db.execute(
        "INSERT INTO sortie_event (job, sequence, at, kind, data)
         VALUES (?1, (SELECT coalesce(max(sequence), 0) + 1 FROM sortie_event WHERE job = ?1), ?2, ?3, ?4)",
        params![id.0, integer(now)?, event.kind(), data],
    )?;
    Ok(())
}

pub(crate) fn find(db: &Connection, id: JobId) -> Result<Option<Job>, WalletError> {
    Ok(list(db, "SELECT * FROM sortie_job WHERE id = ?1", [id.0])?.pop())
}

/// All jobs, oldest first.
pub(crate) fn all(db: &Connection) -> Result<Vec<Job>, WalletError> {
    list(db, "SELECT * FROM sortie_job ORDER BY id", [])
}

/// The latest job of this payload that is not given up.
pub(crate) fn of_payload(db: &Connection, hash: Hash32) -> Result<Option<Job>, WalletError> {
    // That of an envelope which was found by its backup line may be known later.
    let sql = "SELECT * FROM sortie_job WHERE payload_hash = ?1
               OR id IN (SELECT job FROM sortie_event WHERE kind = 'amended') ORDER BY id DESC";
    let jobs = list(db, sql, [hash.0])?;
    Ok(jobs.into_iter().find(|job| job.payload_hash == hash && job.state.is_publishing()))
}

/// The jobs of this payload that were given up or taken back, oldest first.
pub(crate) fn given_up(db: &Connection, hash: Hash32) -> Result<Vec<Job>, WalletError> {
    let mut jobs = list(db, "SELECT * FROM sortie_job WHERE payload_hash = ?1 ORDER BY id", [hash.0])?;
    jobs.retain(|job| !job.state.is_publishing());
    Ok(jobs)
}

/// Opens the jobs again that were final in a block above `height`, which a reorganisation took, and all that were given
/// up. The caller commits. Returns whether there are any.
pub(crate) fn reopen(db: &Connection, height: BtcHeight, now: u64) -> Result<bool, WalletError> {
    let sql = "SELECT * FROM sortie_job WHERE id IN (SELECT job FROM sortie_event WHERE kind = 'final') ORDER BY id";
    let is_gone = |job: &Job| match &job.state {
        JobState::Final(block) | JobState::Reclaimed(block) => block.height > height,
        state => matches!(state, JobState::Abandoned(_)),
    };
    let mut gone = list(db, sql, [])?;
    gone.retain(is_gone);
    gone.iter().try_for_each(|job| append(db, job.id, &Event::Undone, now))?;
    Ok(!gone.is_empty())
}

/// Jobs that something may still happen to: all that are not final, and those of which a late payment was swept, or
/// whose block was reorganised away, after that.
pub(crate) fn watched(db: &Connection) -> Result<Vec<Job>, WalletError> {
    let sql = "SELECT * FROM sortie_job WHERE id NOT IN
               (SELECT job FROM sortie_event AS closing WHERE kind = 'final' AND NOT EXISTS
                (SELECT 1 FROM sortie_event WHERE job = closing.job AND sequence > closing.sequence AND kind IN ('swept', 'undone')))
               ORDER BY id";
    list(db, sql, [])
}

/// What was signed for payloads that begin so, of which anything was signed since a time: job, time and fee of all its
/// transactions, in order. Of what was given up and was not mined all the same, nothing.
pub(crate) fn fees(db: &Connection, since: u64, prefix: &[u8]) -> Result<Vec<(JobId, u64, Amount)>, WalletError> {
    let sql = "SELECT job, at, data ->> '$.generation.fee' FROM sortie_event WHERE kind = 'signed'
               AND job IN (SELECT job FROM sortie_event WHERE kind = 'signed' AND at >= ?1)
               AND job IN (SELECT id FROM sortie_job WHERE substr(payload, 1, length(?2)) = ?2)
               AND (job NOT IN (SELECT job FROM sortie_event WHERE kind = 'abandoned')
                    OR job IN (SELECT job FROM sortie_event WHERE kind = 'confirmed')) ORDER BY job, sequence";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params![integer(since)?, prefix], |row| {
        let [at, fee] = [row.get::<_, i64>(1)?, row.get(2)?].map(|n| u64::try_from(n).unwrap_or(0));
        Ok((JobId(row.get(0)?), at, Amount::from_sat(fee)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A job's log, oldest first.
pub(crate) fn events(db: &Connection, id: JobId) -> Result<Vec<Recorded>, WalletError> {
    let mut statement =
        db.prepare_cached("SELECT sequence, at, data FROM sortie_event WHERE job = ?1 ORDER BY sequence")?;
    let rows = statement
        .query_map([id.0], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?)))?;
    let read = |(sequence, at, data): (u32, i64, String)| {
        let event = serde_json::from_str(&data)
            .map_err(|error| WalletError::Journal(format!("event {sequence} of job {id} cannot be read: {error}")))?;
        Ok(Recorded { sequence, at: at.try_into().unwrap_or(0), event })
    };
    rows.map(|row| read(row?)).collect()
}

/// The lowest key index from `base` on that no job has used.
pub(crate) fn next_key_index(db: &Connection, base: u32) -> Result<u32, WalletError> {
    let last: Option<u32> = db.query_row("SELECT max(key_index) FROM sortie_job", [], |row| row.get(0))?;
    Ok(last.map_or(base, |last| base.max(last.saturating_add(1))))
}

fn list(db: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Job>, WalletError> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params, read)?;
    rows.map(|row| {
        // A journal that cannot be read stops the program: guessing here costs money.
        let (id, planned) = row?;
        let mut job = planned.ok_or_else(|| WalletError::Journal(format!("job {id} cannot be read")))?;
        for (recorded, expected) in events(db, id)?.iter().zip(1..) {
            let refused = |reason| WalletError::Journal(format!("job {id}, event {expected}: {reason}"));
            if recorded.sequence != expected {
                return Err(refused("it is missing".to_owned()));
            }
            job.apply(&recorded.event).map_err(refused)?;
        }
        Ok(job)
    })
    .collect()
}

/// A job as it was planned, without its events.
fn read(row: &Row<'_>) -> rusqlite::Result<(JobId, Option<Job>)> {
    let id = JobId(row.get("id")?);
    let created_at: i64 = row.get("created_at")?;
    let payer: String = row.get("payer")?;
    let carrier: String = row.get("carrier")?;
    let merkle_root: Option<[u8; 32]> = row.get("merkle_root")?;
    let refund: Option<Vec<u8>> = row.get("refund")?;
    let fee_rate: i64 = row.get("fee_rate_sat_kwu")?;
    let rates = [Some(fee_rate), row.get("max_fee_rate_sat_kwu")?];
    let sats: [Option<i64>; 2] = [row.get("asked_sat")?, row.get("max_fee_sat")?];
    let (payload, payload_hash, key_index) = (row.get("payload")?, row.get("payload_hash")?, row.get("key_index")?);
    let parse = || -> Option<Job> {
        let whole = |number: Option<i64>| number.map(u64::try_from).transpose().ok();
        let [fee_rate, max_fee_rate] = rates.map(|rate| whole(rate).map(|r| r.map(FeeRate::from_sat_per_kwu)));
        let [asked, max_fee] = sats.map(|amount| whole(amount).map(|a| a.map(Amount::from_sat)));
        let terms = JobTerms {
            payer: Payer::ALL.into_iter().find(|known| known.name() == payer)?,
            carrier: [Carrier::OpReturn, Carrier::Taproot].into_iter().find(|c| carrier_name(*c) == carrier)?,
            payload,
            payload_hash: Hash32(payload_hash),
            key_index,
            merkle_root: merkle_root.map(TapNodeHash::from_byte_array),
            refund: refund.map(ScriptBuf::from_bytes),
            asked: asked?,
            fee_rate: fee_rate??,
            caps: Caps { max_fee_rate: max_fee_rate?, max_fee: max_fee? },
        };
        Some(Job::new(id, created_at.try_into().ok()?, terms))
    };
    Ok((id, parse()))
}

fn carrier_name(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::OpReturn => "op-return",
        Carrier::Taproot => "taproot",
    }
}

fn integer(value: u64) -> Result<i64, WalletError> {
    value.try_into().map_err(|_| WalletError::Journal("a number does not fit".into()))
}

#[cfg(test)]
mod tests {
    use super::super::coins::{key_spend, transaction};
    use super::super::job::{Amendment, Deadline, Generation};
    use super::*;
    use crate::primitives::BlockRef;
    use bitcoin::{BlockHash, OutPoint, Transaction, TxOut, Txid};

    fn open() -> Connection {
        let db = Connection::open_in_memory().expect("database");
        create_tables(&db).expect("tables");
        db
    }

    fn job(payload: &[u8], key_index: Option<u32>) -> JobTerms {
        let [rate, highest] = [250, 2_500].map(FeeRate::from_sat_per_kwu);
        let caps = Caps { max_fee: None, max_fee_rate: Some(highest) };
        JobTerms {
            key_index,
            merkle_root: Some(TapNodeHash::from_byte_array([7; 32])),
            refund: Some(ScriptBuf::from_bytes(vec![1, 2, 3])),
            asked: Some(Amount::from_sat(777)),
            ..JobTerms::new(Payer::Anywhere, Carrier::Taproot, payload, rate, caps)
        }
    }

    fn tx(n: u8) -> Transaction {
        let from = OutPoint::new(Txid::from_byte_array([n; 32]), 0);
        transaction(vec![key_spend(from)], vec![output()])
    }

    fn output() -> TxOut {
        TxOut { value: Amount::from_sat(9), script_pubkey: ScriptBuf::new() }
    }

    fn generation(n: u8) -> Generation {
        Generation {
            transactions: vec![tx(0), tx(n)],
            carrying: 1,
            spent: vec![output()],
            fee: Amount::from_sat(249),
            vsize: 249,
            change: Some(OutPoint::new(tx(n).compute_txid(), 0)),
        }
    }

    fn planned() -> Event {
        Event::Planned { draft: None }
    }

    fn signed(n: u8) -> Event {
        Event::Signed { generation: generation(n) }
    }

    fn block(height: u32) -> BlockRef {
        BlockRef { height, hash: BlockHash::all_zeros() }
    }

    fn confirmed(n: u8, height: u32) -> Event {
        Event::Confirmed { txid: tx(n).compute_txid(), block: block(height) }
    }

    fn abandoned() -> Event {
        Event::Abandoned { reason: "refused".into() }
    }

    #[test]
    fn a_job_reads_back_as_it_was_written() {
        let db = open();
        let terms = job(b"payload", Some(4));
        let deadline = Deadline { confirm_by: 20, seen: 7 };
        let noted = Event::Deadline { deadline };
        let events = [planned(), noted, signed(1), Event::RevealSent, signed(2), confirmed(1, 7)];
        let id = begin(&db, &terms, &events, 77).expect("written");
        let read = find(&db, id).expect("readable").expect("there");
        assert_eq!(read.terms, terms);
        assert_eq!(read.generations, [generation(1), generation(2)]);
        assert_eq!(read.deadline, Some(deadline));
        assert_eq!((read.created_at, &read.state), (77, &JobState::Confirmed(block(7))));
        assert_eq!(read.current(), Some(&generation(1)), "the one that the chain has, not the last one");
        let log: Vec<Event> = super::events(&db, id).expect("log").into_iter().map(|recorded| recorded.event).collect();
        assert_eq!(log, events);
    }

    #[test]
    fn what_was_paid_is_counted_by_time_and_payload_and_a_bump_by_what_it_adds() {
        let db = open();
        let with_fee = |fee| Event::Signed { generation: Generation { fee: Amount::from_sat(fee), ..generation(1) } };
        for (payload, events) in [
            (&b"ab1"[..], vec![planned(), with_fee(100), Event::RevealSent, with_fee(250)]),
            (b"ab2", vec![planned(), with_fee(7), abandoned()]),
            (b"ab3", vec![planned(), with_fee(9), abandoned(), confirmed(1, 8)]),
            (b"ac", vec![planned(), with_fee(11)]),
        ] {
            begin(&db, &job(payload, None), &events, 1_000).expect("written");
        }
        let paid = |since, prefix: &[u8]| -> Vec<u64> {
            fees(&db, since, prefix).expect("read").into_iter().map(|(_, _, fee)| fee.to_sat()).collect()
        };
        assert_eq!(paid(1_000, b"ab"), [100, 250, 9]);
        assert_eq!(paid(0, b"ac"), [11]);
        assert_eq!(paid(1_001, b"a"), Vec::<u64>::new());
    }

    #[test]
    fn the_journal_only_grows() {
        let db = open();
        begin(&db, &job(b"a", None), &[planned()], 0).expect("written");
        for sql in [
            "UPDATE sortie_event SET at = 1",
            "DELETE FROM sortie_event",
            "UPDATE sortie_job SET created_at = 1",
            "DELETE FROM sortie_job",
        ] {
            let error = db.execute(sql, []).expect_err(sql);
            assert!(error.to_string().contains("append-only"), "{error}");
        }
    }

    #[test]
    fn a_key_index_is_never_used_twice() {
        let db = open();
        assert_eq!(next_key_index(&db, 5).ok(), Some(5));
        begin(&db, &job(b"a", Some(5)), &[planned(), abandoned()], 0).expect("written");
        assert_eq!(next_key_index(&db, 5).ok(), Some(6), "an abandoned job keeps its key");
        assert!(begin(&db, &job(b"b", Some(5)), &[planned()], 0).is_err(), "the database refuses it, too");
    }

    /// Rows: how a job came to its state; columns: what may follow.
    #[test]
    fn events_follow_in_the_stated_ways_only() {
        let amended = |amendment| Event::Amended { amendment };
        let columns = [
            amended(Amendment { fee_rate: Some(FeeRate::ZERO), ..Amendment::default() }),
            amended(Amendment { max_fee: Some(Amount::ZERO), ..Amendment::default() }),
            Event::Deadline { deadline: Deadline { confirm_by: 20, seen: 7 } },
            signed(2),
            Event::CommitSent,
            Event::RevealSent,
            confirmed(1, 9),
            Event::Reclaiming { transactions: vec![tx(3)] },
            Event::Reclaimed { txid: tx(3).compute_txid(), block: block(9) },
            Event::Undone,
            Event::Final,
            abandoned(),
        ];
        let sweep = || Event::Reclaiming { transactions: vec![tx(3)] };
        let swept = || Event::Reclaimed { txid: tx(3).compute_txid(), block: block(8) };
        let rows: [(&str, Vec<Event>, &str); 9] = [
            ("planned", vec![], "xxxx..xxx..x"),
            ("signed", vec![signed(1)], ".xxxxxxxx..x"),
            ("commit_sent", vec![signed(1), Event::CommitSent], ".xxx.xxxx..x"),
            ("reveal_sent", vec![signed(1), Event::RevealSent], ".xxx.xxxx..x"),
            ("confirmed", vec![signed(1), confirmed(1, 8)], "......x.xxx."),
            ("final", vec![signed(1), confirmed(1, 8), Event::Final], ".........x.."),
            ("reclaiming", vec![signed(1), sweep()], "......xxx..x"),
            ("reclaimed", vec![signed(1), swept()], "......x.xxx."),
            ("abandoned", vec![abandoned()], "......xxxxx."),
        ];
        for (state, events, allowed) in rows {
            for (event, mark) in columns.iter().zip(allowed.chars()) {
                let db = open();
                let events = [vec![planned()], events.clone()].concat();
                let id = begin(&db, &job(b"a", None), &events, 0).expect("written");
                let before = find(&db, id).expect("readable").expect("there").state;
                assert_eq!(before.name(), state);
                let followed = append(&db, id, event, 0);
                assert_eq!(followed.is_ok(), mark == 'x', "{state} -> {}: {followed:?}", event.kind());
                if followed.is_err() {
                    assert_eq!(find(&db, id).expect("readable").expect("there").state, before);
                }
            }
        }
    }

    #[test]
    fn a_reorganisation_leads_back_to_what_was_sent() {
        let db = open();
        let id = begin(&db, &job(b"a", None), &[planned(), signed(1), Event::RevealSent], 0).expect("written");
        for (event, state) in [
            (confirmed(1, 8), JobState::Confirmed(block(8))),
            (confirmed(1, 9), JobState::Confirmed(block(9))),
            (Event::Undone, JobState::RevealSent),
            (Event::Reclaimed { txid: tx(3).compute_txid(), block: block(9) }, JobState::Reclaimed(block(9))),
            (Event::Undone, JobState::Reclaiming),
        ] {
            append(&db, id, &event, 0).expect("follows");
            assert_eq!(find(&db, id).expect("readable").expect("there").state, state);
        }
        assert!(append(&db, JobId(99), &Event::Undone, 0).is_err(), "no such job");
    }

    #[test]
    fn a_payload_finds_its_job_until_that_is_given_up() {
        let db = open();
        let hash = crate::primitives::sha256(b"a");
        assert!(of_payload(&db, hash).expect("readable").is_none());
        let id = begin(&db, &job(b"a", None), &[planned(), signed(1)], 0).expect("written");
        assert_eq!(of_payload(&db, hash).expect("readable").map(|job| job.id), Some(id));
        append(&db, id, &abandoned(), 0).expect("moved");
        assert!(of_payload(&db, hash).expect("readable").is_none());
    }

    #[test]
    fn what_is_settled_anew_is_read_back_and_the_rest_stays() {
        let db = open();
        let found = JobTerms { payload: Vec::new(), payload_hash: crate::primitives::sha256(b""), ..job(b"", Some(1)) };
        let id = begin(&db, &found, &[planned()], 0).expect("written");
        let refund = ScriptBuf::from_bytes(vec![9; 34]);
        let amendment =
            Amendment { payload: Some(b"payload".to_vec()), refund: Some(refund.clone()), ..Amendment::default() };
        append(&db, id, &Event::Amended { amendment: amendment.clone() }, 0).expect("settled anew");
        let max_fee = Some(Amount::from_sat(5));
        append(&db, id, &Event::Amended { amendment: Amendment { max_fee, ..Amendment::default() } }, 0)
            .expect("again");
        let hash = crate::primitives::sha256(b"payload");
        let read = of_payload(&db, hash).expect("readable").expect("found by the payload that was learnt");
        let caps = Caps { max_fee, ..found.caps };
        let wanted =
            JobTerms { payload: b"payload".to_vec(), payload_hash: hash, refund: Some(refund), caps, ..found.clone() };
        assert_eq!((read.id, &read.terms), (id, &wanted));
        assert_eq!(amendment.news(&read.terms), Amendment::default());
    }

    #[test]
    fn jobs_are_watched_until_nothing_can_follow() {
        let db = open();
        let watched = || watched(&db).expect("readable").len();
        let id = begin(&db, &job(b"a", None), &[planned(), signed(1)], 0).expect("written");
        let given_up = begin(&db, &job(b"b", None), &[planned(), abandoned()], 0).expect("written");
        assert_eq!(watched(), 2, "somebody else may have its transactions");
        append(&db, given_up, &Event::Final, 0).expect("moved");
        assert_eq!(watched(), 1);
        append(&db, id, &confirmed(1, 100), 0).expect("moved");
        assert_eq!(watched(), 1);
        append(&db, id, &Event::Final, 0).expect("moved");
        assert_eq!(watched(), 0);
        append(&db, id, &Event::Swept { transactions: vec![tx(3)] }, 0).expect("swept late");
        assert_eq!(watched(), 1);
        assert_eq!(all(&db).expect("readable").len(), 2);
    }

    #[test]
    fn what_was_final_above_a_fork_is_watched_again_until_it_is_final_anew() {
        let db = open();
        let confirmed_at = |height| [planned(), signed(1), confirmed(1, height), Event::Final];
        let low = begin(&db, &job(b"a", None), &confirmed_at(99), 0).expect("written");
        let high = begin(&db, &job(b"b", None), &confirmed_at(100), 0).expect("written");
        let given_up = begin(&db, &job(b"c", None), &[planned(), abandoned(), Event::Final], 0).expect("written");
        assert!(watched(&db).expect("readable").is_empty());
        assert!(reopen(&db, 99, 0).expect("written"));
        let state = |id| find(&db, id).expect("readable").expect("there").state;
        assert_eq!((state(low).name(), state(high)), ("final", JobState::RevealSent));
        assert!(matches!(state(given_up), JobState::Abandoned(_)));
        let watched_ids = || watched(&db).expect("readable").iter().map(|job| job.id).collect::<Vec<_>>();
        assert_eq!(watched_ids(), [high, given_up]);
        for event in [confirmed(1, 101), Event::Final] {
            append(&db, high, &event, 0).expect("again");
        }
        append(&db, given_up, &Event::Final, 0).expect("again");
        assert!(watched_ids().is_empty());
    }

    #[test]
    fn a_damaged_row_is_an_error_not_a_missing_job() {
        for sql in ["UPDATE sortie_event SET data = '{\"kind\":\"planned\",\"draft\":7}'", "DELETE FROM sortie_event"] {
            let db = open();
            begin(&db, &job(b"a", None), &[planned(), signed(1), signed(2)], 0).expect("written");
            db.execute_batch("DROP TRIGGER sortie_event_kept; DROP TRIGGER sortie_event_stays").expect("dropped");
            db.execute(&format!("{sql} WHERE sequence = 1"), []).expect("damaged");
            assert!(matches!(all(&db), Err(WalletError::Journal(_))), "{sql}");
        }
    }
}
