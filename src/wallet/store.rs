//! BDK's change sets in the wallet's database.
//!
//! Guarantees that what is loaded adds up to what was stored, change set by change set, and that storing one costs
//! what changed, not what is there. The tables are those of BDK's own SQLite support, which would fix the version of
//! SQLite: files that it wrote open as they are. But versions before 0.2 stored whatever a server said was mined; that
//! is told apart, and not loaded before it is [shown](super::Wallet::sync).

use bdk_wallet::ChangeSet;
use bdk_wallet::chain::{BlockId, ConfirmationBlockTime};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, RowIndex, params};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::str::FromStr;
use std::sync::Arc;

/// Makes the tables.
pub(super) fn create_tables(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE TABLE bdk_wallet (
            id INTEGER PRIMARY KEY NOT NULL CHECK (id = 0),
            descriptor TEXT,
            change_descriptor TEXT,
            network TEXT
        ) STRICT;
        CREATE TABLE bdk_wallet_locked_outpoints (
            txid TEXT NOT NULL,
            vout INTEGER NOT NULL,
            PRIMARY KEY (txid, vout)
        ) STRICT;
        CREATE TABLE bdk_blocks (
            block_height INTEGER PRIMARY KEY NOT NULL,
            block_hash TEXT NOT NULL
        ) STRICT;
        CREATE TABLE bdk_txs (
            txid TEXT PRIMARY KEY NOT NULL,
            raw_tx BLOB,
            last_seen INTEGER,
            last_evicted INTEGER,
            first_seen INTEGER
        ) STRICT;
        CREATE TABLE bdk_txouts (
            txid TEXT NOT NULL,
            vout INTEGER NOT NULL,
            value INTEGER NOT NULL,
            script BLOB NOT NULL,
            shown INTEGER DEFAULT 0 NOT NULL,
            PRIMARY KEY (txid, vout)
        ) STRICT;
        CREATE TABLE bdk_anchors (
            txid TEXT NOT NULL REFERENCES bdk_txs (txid),
            block_height INTEGER NOT NULL,
            block_hash TEXT NOT NULL,
            confirmation_time INTEGER DEFAULT -1 NOT NULL,
            shown INTEGER DEFAULT 0 NOT NULL,
            PRIMARY KEY (txid, block_height, block_hash)
        ) STRICT;
        CREATE TABLE bdk_descriptor_last_revealed (
            descriptor_id TEXT PRIMARY KEY NOT NULL,
            last_revealed INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE bdk_descriptor_derived_spks (
            descriptor_id TEXT NOT NULL,
            spk_index INTEGER NOT NULL,
            spk BLOB NOT NULL,
            PRIMARY KEY (descriptor_id, spk_index)
        ) STRICT;",
    )
}

/// Gives tables that BDK made the columns that say what was shown: nothing yet.
pub(super) fn complete_tables(db: &Connection) -> rusqlite::Result<()> {
    for table in ["bdk_txouts", "bdk_anchors"] {
        if !db.column_exists(None::<&str>, table, "shown")? {
            db.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN shown INTEGER DEFAULT 0 NOT NULL"))?;
        }
    }
    Ok(())
}

/// What was stored of the chain, and never shown.
#[derive(Default)]
pub(super) struct Unshown {
    /// Transactions and the blocks that they are said to be in, the highest first.
    pub anchors: Vec<Anchored>,
    /// Outputs that are said to be in the chain.
    pub outputs: Vec<(OutPoint, TxOut)>,
}

impl Unshown {
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty() && self.outputs.is_empty()
    }
}

pub(super) type Anchored = (ConfirmationBlockTime, Txid);

/// Reads what was never shown.
pub(super) fn unshown(db: &Connection) -> rusqlite::Result<Unshown> {
    let mut unshown = Unshown::default();
    each(db, &format!("{ANCHORS} WHERE shown = 0 ORDER BY block_height DESC"), |row| {
        unshown.anchors.push(anchored(row)?);
        Ok(())
    })?;
    each(db, &format!("{OUTPUTS} WHERE shown = 0"), |row| {
        unshown.outputs.push((outpoint(row)?, output(row)?));
        Ok(())
    })?;
    Ok(unshown)
}

/// Forgets what was never shown.
pub(super) fn forget_unshown(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("DELETE FROM bdk_anchors WHERE shown = 0; DELETE FROM bdk_txouts WHERE shown = 0")
}

/// Forgets all that is stored of the chain, and every transaction that is not one of `own`. Outputs by which envelopes
/// were found are to be shown again.
pub(super) fn forget_chain(db: &Connection, own: &BTreeSet<Txid>) -> rusqlite::Result<()> {
    db.execute_batch(
        "DELETE FROM bdk_anchors; DELETE FROM bdk_blocks WHERE block_height > 0; UPDATE bdk_txouts SET shown = 0",
    )?;
    let mut others = Vec::new();
    each(db, "SELECT txid FROM bdk_txs", |row| {
        let txid: Txid = parsed(row, 0)?;
        others.extend((!own.contains(&txid)).then(|| txid.to_string()));
        Ok(())
    })?;
    others.iter().try_for_each(|txid| put(db, "DELETE FROM bdk_txs WHERE txid = ?1", [txid]))
}

const ANCHORS: &str = "SELECT txid, block_height, block_hash, confirmation_time FROM bdk_anchors";
const OUTPUTS: &str = "SELECT txid, vout, value, script FROM bdk_txouts";

fn anchored(row: &Row<'_>) -> rusqlite::Result<Anchored> {
    let block_id = BlockId { height: row.get(1)?, hash: parsed(row, 2)? };
    Ok((ConfirmationBlockTime { block_id, confirmation_time: row.get(3)? }, parsed(row, 0)?))
}

fn output(row: &Row<'_>) -> rusqlite::Result<TxOut> {
    Ok(TxOut { value: Amount::from_sat(row.get(2)?), script_pubkey: ScriptBuf::from_bytes(row.get(3)?) })
}

/// Reads what all stored change sets add up to, without what was never shown.
pub(super) fn load(db: &Connection) -> rusqlite::Result<ChangeSet> {
    let mut changes = ChangeSet::default();
    let mut wallet = db.prepare("SELECT descriptor, change_descriptor, network FROM bdk_wallet")?;
    let terms = wallet.query_row([], |row| Ok((optional(row, 0)?, optional(row, 1)?, optional(row, 2)?)));
    if let Some((receive, change, network)) = terms.optional()? {
        (changes.descriptor, changes.change_descriptor, changes.network) = (receive, change, network);
    }
    each(db, "SELECT txid, vout FROM bdk_wallet_locked_outpoints", |row| {
        changes.locked_outpoints.outpoints.insert(outpoint(row)?, true);
        Ok(())
    })?;
    each(db, "SELECT block_height, block_hash FROM bdk_blocks", |row| {
        changes.local_chain.blocks.insert(row.get(0)?, Some(parsed(row, 1)?));
        Ok(())
    })?;
    load_graph(db, &mut changes)?;
    each(db, "SELECT descriptor_id, last_revealed FROM bdk_descriptor_last_revealed", |row| {
        changes.indexer.last_revealed.insert(parsed(row, 0)?, row.get(1)?);
        Ok(())
    })?;
    each(db, "SELECT descriptor_id, spk_index, spk FROM bdk_descriptor_derived_spks", |row| {
        let scripts = changes.indexer.spk_cache.entry(parsed(row, 0)?).or_default();
        scripts.insert(row.get(1)?, ScriptBuf::from_bytes(row.get(2)?));
        Ok(())
    })?;
    Ok(changes)
}

/// Reads the transactions, what is known of others' outputs, and in which blocks they are.
fn load_graph(db: &Connection, changes: &mut ChangeSet) -> rusqlite::Result<()> {
    let graph = &mut changes.tx_graph;
    each(db, "SELECT txid, raw_tx, first_seen, last_seen, last_evicted FROM bdk_txs", |row| {
        let txid = parsed(row, 0)?;
        if let Some(raw) = row.get_ref(1)?.as_blob_or_null()? {
            let tx: Transaction = deserialize(raw).map_err(|error| unreadable(Type::Blob, error.into()))?;
            graph.txs.insert(Arc::new(tx));
        }
        let times: [(&mut BTreeMap<Txid, u64>, usize); 3] =
            [(&mut graph.first_seen, 2), (&mut graph.last_seen, 3), (&mut graph.last_evicted, 4)];
        for (times, column) in times {
            if let Some(time) = row.get(column)? {
                times.insert(txid, time);
            }
        }
        Ok(())
    })?;
    each(db, &format!("{OUTPUTS} WHERE shown = 1"), |row| {
        graph.txouts.insert(outpoint(row)?, output(row)?);
        Ok(())
    })?;
    each(db, &format!("{ANCHORS} WHERE shown = 1"), |row| {
        graph.anchors.insert(anchored(row)?);
        Ok(())
    })
}

/// Stores one change set more: whatever BDK was given to know has been shown.
pub(super) fn append(db: &Connection, changes: &ChangeSet) -> rusqlite::Result<()> {
    let ChangeSet { descriptor, change_descriptor, network, local_chain, tx_graph, indexer, locked_outpoints } =
        changes;
    let [receive, change] = [descriptor, change_descriptor].map(|text| text.as_ref().map(ToString::to_string));
    let network = network.map(|network| network.to_string());
    if receive.is_some() || change.is_some() || network.is_some() {
        let sql = "INSERT INTO bdk_wallet VALUES (0, ?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET
                   descriptor = COALESCE(descriptor, ?1), change_descriptor = COALESCE(change_descriptor, ?2),
                   network = COALESCE(network, ?3)";
        db.execute(sql, params![receive, change, network])?;
    }
    for (OutPoint { txid, vout }, is_locked) in &locked_outpoints.outpoints {
        let sql = match is_locked {
            true => "INSERT OR IGNORE INTO bdk_wallet_locked_outpoints VALUES (?1, ?2)",
            false => "DELETE FROM bdk_wallet_locked_outpoints WHERE txid = ?1 AND vout = ?2",
        };
        put(db, sql, params![txid.to_string(), vout])?;
    }
    for (height, hash) in &local_chain.blocks {
        match hash {
            Some(hash) => put(db, "REPLACE INTO bdk_blocks VALUES (?1, ?2)", params![height, hash.to_string()])?,
            None => put(db, "DELETE FROM bdk_blocks WHERE block_height = ?1", [height])?,
        }
    }
    append_graph(db, tx_graph)?;
    for (descriptor, last) in &indexer.last_revealed {
        let sql = "REPLACE INTO bdk_descriptor_last_revealed VALUES (?1, ?2)";
        put(db, sql, params![descriptor.to_string(), last])?;
    }
    for (descriptor, scripts) in &indexer.spk_cache {
        for (index, script) in scripts {
            let sql = "REPLACE INTO bdk_descriptor_derived_spks VALUES (?1, ?2, ?3)";
            put(db, sql, params![descriptor.to_string(), index, script.as_bytes()])?;
        }
    }
    Ok(())
}

fn append_graph(db: &Connection, graph: &GraphChanges) -> rusqlite::Result<()> {
    for tx in &graph.txs {
        let sql = "INSERT INTO bdk_txs (txid, raw_tx) VALUES (?1, ?2) ON CONFLICT (txid) DO UPDATE SET raw_tx = ?2";
        put(db, sql, params![tx.compute_txid().to_string(), serialize(tx.as_ref())])?;
    }
    let times =
        [("first_seen", &graph.first_seen), ("last_seen", &graph.last_seen), ("last_evicted", &graph.last_evicted)];
    for (column, times) in times {
        let sql = format!(
            "INSERT INTO bdk_txs (txid, {column}) VALUES (?1, ?2) ON CONFLICT (txid) DO UPDATE SET {column} = ?2"
        );
        for (txid, time) in times {
            put(db, &sql, params![txid.to_string(), time])?;
        }
    }
    for (OutPoint { txid, vout }, TxOut { value, script_pubkey }) in &graph.txouts {
        let output = params![txid.to_string(), vout, value.to_sat(), script_pubkey.as_bytes()];
        put(db, "REPLACE INTO bdk_txouts (txid, vout, value, script, shown) VALUES (?1, ?2, ?3, ?4, 1)", output)?;
    }
    for (ConfirmationBlockTime { block_id, confirmation_time }, txid) in &graph.anchors {
        let txid = txid.to_string();
        put(db, "INSERT OR IGNORE INTO bdk_txs (txid) VALUES (?1)", [&txid])?;
        let anchor = params![txid, block_id.height, block_id.hash.to_string(), confirmation_time];
        let sql = "REPLACE INTO bdk_anchors (txid, block_height, block_hash, confirmation_time, shown)
                   VALUES (?1, ?2, ?3, ?4, 1)";
        put(db, sql, anchor)?;
    }
    Ok(())
}

type GraphChanges = bdk_wallet::chain::tx_graph::ChangeSet<ConfirmationBlockTime>;

fn put(db: &Connection, sql: &str, row: impl rusqlite::Params) -> rusqlite::Result<()> {
    db.prepare_cached(sql)?.execute(row).map(drop)
}

fn each(db: &Connection, sql: &str, mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        read(row)?;
    }
    Ok(())
}

/// The outpoint in a row's first two columns.
fn outpoint(row: &Row<'_>) -> rusqlite::Result<OutPoint> {
    Ok(OutPoint { txid: parsed(row, 0)?, vout: row.get(1)? })
}

/// A column whose text is parsed.
pub(super) fn parsed<T>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    optional(row, column)?.ok_or_else(|| unreadable(Type::Null, "there is no text".into()))
}

/// A column whose text is parsed, if there is any.
pub(super) fn optional<T>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Option<T>>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    let text = row.get_ref(column)?.as_str_or_null()?;
    text.map(|text| text.parse().map_err(|error: T::Err| unreadable(Type::Text, error.into()))).transpose()
}

fn unreadable(kind: Type, error: Box<dyn Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, kind, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bdk_wallet::chain::{DescriptorExt, Merge};
    use bdk_wallet::miniscript::Descriptor;
    use bitcoin::hashes::Hash;
    use bitcoin::{BlockHash, Network, absolute, transaction};

    fn tx(n: u32) -> Transaction {
        let lock_time = absolute::LockTime::from_consensus(n);
        Transaction { version: transaction::Version::TWO, lock_time, input: Vec::new(), output: Vec::new() }
    }

    fn hash(n: u8) -> BlockHash {
        BlockHash::from_byte_array([n; 32])
    }

    /// Change sets that set, set anew and take back whatever one can.
    fn changes() -> [ChangeSet; 3] {
        let [mut first, mut second, mut third] = [(); 3].map(|()| ChangeSet::default());
        let key = "tpubDCpw327uYnw6goLHe8ftd12LAyiRuBAZM3X1XcFJj3xJ2DQKf4X9frDVAJjowXRu714P74yvFLh8Q85EeqhdT63oRbFk2i7nZACJKL8xyZg";
        let [receive, change] =
            [0, 1].map(|keychain| format!("tr({key}/{keychain}/*)").parse::<Descriptor<_>>().expect("a descriptor"));
        let outpoint = |n| OutPoint::new(tx(n).compute_txid(), n);
        let anchor = |n: u8, height| {
            let block_id = BlockId { height, hash: hash(n) };
            (ConfirmationBlockTime { block_id, confirmation_time: u64::from(height) }, tx(u32::from(n)).compute_txid())
        };
        first.network = Some(Network::Regtest);
        first.indexer.last_revealed = [(receive.descriptor_id(), 3), (change.descriptor_id(), 0)].into();
        first.indexer.spk_cache.insert(receive.descriptor_id(), [(0, ScriptBuf::new())].into());
        second.indexer.last_revealed.insert(receive.descriptor_id(), 4);
        second.indexer.spk_cache.insert(receive.descriptor_id(), [(1, ScriptBuf::from_bytes(vec![7; 34]))].into());
        (first.descriptor, second.change_descriptor) = (Some(receive), Some(change));
        first.local_chain.blocks = [(0, Some(hash(0))), (1, Some(hash(1))), (2, Some(hash(2)))].into();
        second.local_chain.blocks = [(1, Some(hash(9))), (2, None), (3, Some(hash(3)))].into();
        first.tx_graph.txs = [Arc::new(tx(1)), Arc::new(tx(2))].into();
        // Of a transaction that nobody has shown yet.
        first.tx_graph.anchors = [anchor(1, 1), anchor(5, 2)].into();
        second.tx_graph.txs = [Arc::new(tx(5))].into();
        second.tx_graph.anchors = [anchor(1, 1), anchor(2, 3)].into();
        first.tx_graph.last_seen = [(tx(1).compute_txid(), 10), (tx(2).compute_txid(), 11)].into();
        first.tx_graph.first_seen = [(tx(1).compute_txid(), 10)].into();
        second.tx_graph.last_seen = [(tx(1).compute_txid(), 20)].into();
        third.tx_graph.last_evicted = [(tx(1).compute_txid(), u64::from(u32::MAX) + 1)].into();
        let output = TxOut { value: Amount::MAX_MONEY, script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
        first.tx_graph.txouts = [(outpoint(7), output)].into();
        first.locked_outpoints.outpoints = [(outpoint(1), true), (outpoint(2), true)].into();
        third.locked_outpoints.outpoints = [(outpoint(1), false), (outpoint(2), true)].into();
        [first, second, third]
    }

    #[test]
    fn what_is_loaded_is_what_all_change_sets_add_up_to() {
        let db = Connection::open_in_memory().expect("database");
        create_tables(&db).expect("made");
        assert_eq!(load(&db).expect("read"), ChangeSet::default());
        let mut sum = ChangeSet::default();
        for changes in changes() {
            append(&db, &changes).expect("stored");
            append(&db, &changes).expect("stored again");
            sum.merge(changes);
        }
        // What is taken back is told as that while it is merged, and not there once it is stored.
        sum.local_chain.blocks.retain(|_, hash| hash.is_some());
        sum.locked_outpoints.outpoints.retain(|_, is_locked| *is_locked);
        assert_eq!(load(&db).expect("read"), sum);
    }

    #[test]
    fn a_row_that_cannot_be_read_is_an_error() {
        for damage in ["UPDATE bdk_txs SET raw_tx = x'00'", "UPDATE bdk_blocks SET block_hash = 'beef'"] {
            let db = Connection::open_in_memory().expect("database");
            create_tables(&db).expect("made");
            append(&db, &changes()[0]).expect("stored");
            db.execute_batch(damage).expect("damaged");
            assert!(load(&db).is_err(), "{damage}");
        }
    }
}
