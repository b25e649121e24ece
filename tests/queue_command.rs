//! `sortie queue` and `sortie follow` on a real bitcoind: what waits in the mempool, what is written out for audits.

use crate::support::{Window, World, said};
use anyhow::{Context, Result, ensure};
use regtest::Proc;
use regtest::hostile::{Envelope, Miner};
use serde_json::Value;
use sortie::envelope::{Body, Carrier};
use sortie::scanner::MempoolWatch;
use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

const WINDOW: Window = Window { window: 6, max_lag: 4 };
const LIMIT: Duration = Duration::from_secs(60);

fn lines(world: &World, arguments: &[&str]) -> Result<Vec<String>> {
    let output = world.sortie(arguments)?.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

#[test]
fn an_item_is_seen_in_the_mempool_with_its_rate_and_the_block_it_is_expected_in() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 2)?;
    let mut follower = Proc::spawn(&mut world.sortie(&["--json", "follow"])?)?;
    follower.wait_line("the tip", LIMIT, |line| line.contains("\"heads\""))?;
    assert_eq!(lines(&world, &["--json", "queue", "list", "--unconfirmed"])?, Vec::<String>::new());

    for carrier in [Carrier::OpReturn, Carrier::Taproot] {
        let sent = world.force(&mut wallet, &[world.transfer(&world.alice, &world.bob, 5, 0)], carrier)?;
        let next = world.bitcoind.height()? + 1;
        let txid = sent.place.txid.to_string();
        let told =
            follower.wait_line("the item", LIMIT, |line| line.contains("unconfirmed") && line.contains(&txid))?;
        let told: Value = serde_json::from_str(&told)?;
        assert_eq!(told["event"], "unconfirmed");
        assert_eq!(told["expected_height"], next);
        let rate = told["fee_rate_sat_vb"].as_f64().context("a rate")?;
        assert!((1.9..2.5).contains(&rate), "{told}");
        let listed = lines(&world, &["queue", "list", "--unconfirmed"])?;
        assert!(listed.len() == 1 && listed[0].contains(&format!("expected in block {next}")), "{listed:?}");

        world.bitcoind.mine(1)?;
        let mined = follower.wait_line("its block", LIMIT, |line| line.contains("applied") && line.contains(&txid))?;
        assert_eq!(serde_json::from_str::<Value>(&mined)?["height"], next);
    }
    assert_eq!(lines(&world, &["queue", "list", "--unconfirmed"])?, Vec::<String>::new());
    Ok(())
}

#[test]
fn the_exported_queue_gives_the_root_and_every_fate_in_every_format() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 1)?;
    let good = world.transfer(&world.alice, &world.bob, 5, 0);
    let bad = world.transfer(&world.alice, &world.bob, 5, 9);
    world.force(&mut wallet, &[good, bad], Carrier::Taproot)?;
    world.bitcoind.mine(u32::from(WINDOW.window) + 1)?;
    world.force(&mut wallet, &[b"waits for its window".to_vec()], Carrier::OpReturn)?;
    world.bitcoind.mine(1)?;

    let exported: Vec<Value> = lines(&world, &["queue", "export"])?
        .iter()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect::<Result<_>>()?;
    let fates: Vec<_> = exported.iter().map(|line| (line["outcome"].as_str(), line["reason"].as_str())).collect();
    assert_eq!(fates, [(Some("ok"), None), (Some("no-op"), Some("bad_nonce")), (None, None)]);
    // The root over the leaves that are written there is the queue's.
    let mut tree = sortie::merkle::Tree::default();
    for line in &exported {
        let leaf = line["leaf"].as_str().context("a leaf")?.parse()?;
        tree.push_hash(leaf);
    }
    let head = tree.head(3).context("three leaves")?;
    let root: Value = serde_json::from_str(&lines(&world, &["--json", "queue", "root"])?[0])?;
    assert_eq!((root["size"].as_u64(), root["root"].as_str()), (Some(3), Some(&*head.root.to_string())));

    let csv = lines(&world, &["queue", "export", "--format", "csv"])?;
    let names: Vec<_> = csv[0].split(',').collect();
    assert_eq!(csv.len(), 4);
    for (row, line) in csv[1..].iter().zip(&exported) {
        let values: Vec<_> = row.split(',').collect();
        assert_eq!(values.len(), names.len());
        for (name, value) in names.iter().zip(values) {
            let expected = match &line[*name] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert_eq!(value, expected, "{name}");
        }
    }

    let output = world.sortie(&["queue", "export", "--format", "parquet"])?.output()?;
    #[cfg(feature = "parquet")]
    assert_eq!(parquet_rows(&output.stdout)?, exported);
    #[cfg(not(feature = "parquet"))]
    {
        let said = String::from_utf8(output.stderr)?;
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains("--features parquet"), "{said}");
    }

    let stats: Value = serde_json::from_str(&lines(&world, &["--json", "queue", "stats"])?[0])?;
    assert_eq!(stats["items"], 3);
    let tally: Vec<_> = stats["tally"].as_array().context("a list")?.iter().collect();
    assert!(tally.iter().any(|line| line["outcome"] == "waiting" && line["items"] == 1), "{stats}");
    assert!(tally.iter().any(|line| line["reason"] == "bad_nonce" && line["items"] == 1), "{stats}");
    Ok(())
}

// Its reader takes its time, and Bitcoin reorganises meanwhile.
#[test]
fn an_export_is_of_one_moment_and_keeps_nobody_from_following() -> Result<()> {
    const BLOCKS: u8 = 6;
    const EACH: u8 = 20;
    let world = World::new(WINDOW)?;
    for block in 0..BLOCKS {
        let envelope = |item: u8| -> Result<Envelope> {
            let payload = world.payload(Body::Tx(vec![block * EACH + item; 1_000]))?;
            Ok(Envelope { carrier: Carrier::OpReturn, payload })
        };
        world.bitcoind.mine_envelopes(&(0..EACH).map(envelope).collect::<Result<Vec<_>>>()?)?;
    }
    let mut export = world.sortie(&["queue", "export"])?.stdout(Stdio::piped()).spawn()?;
    let mut written = BufReader::new(export.stdout.take().context("its output")?).lines();
    let first = written.next().context("a line")??;

    world.bitcoind.reorg(3)?;
    let followed = world.sortie(&["--json", "follow", "--once"])?.output()?;
    ensure!(followed.status.success(), "{}", said(&followed));
    let left: Value = serde_json::from_str(&lines(&world, &["--json", "queue", "root"])?[0])?;
    assert_eq!(left["size"], u64::from((BLOCKS - 3) * EACH));

    let rest = written.collect::<Result<Vec<_>, _>>()?;
    assert!(export.wait()?.success());
    assert_eq!(1 + rest.len(), usize::from(BLOCKS * EACH));
    for (index, line) in std::iter::once(&first).chain(&rest).enumerate() {
        assert_eq!(serde_json::from_str::<Value>(line)?["index"], index);
    }
    Ok(())
}

// As `follow` looks, which has other things to do in between.
#[test]
fn a_large_mempool_is_looked_at_in_parts_and_each_item_is_told_once() -> Result<()> {
    let world = World::new(WINDOW)?;
    for group in 0..3u8 {
        let envelope = |item: u8| -> Result<Envelope> {
            let payload = world.payload(Body::Tx(vec![group * 20 + item; 70]))?;
            Ok(Envelope { carrier: Carrier::OpReturn, payload })
        };
        for tx in world.bitcoind.carry(&(0..20).map(envelope).collect::<Result<Vec<_>>>()?)? {
            world.bitcoind.send(&tx)?;
        }
    }
    let rpc = world.rpc()?;
    let mut watch = MempoolWatch::new(world.manifest.rollup_id().namespace());
    let (mut looks, mut found) = (0, Vec::new());
    while looks == 0 || !watch.is_done() {
        // One request, and no more.
        let left = Cell::new(1);
        found.extend(watch.look(&rpc, || left.replace(0) > 0)?.into_iter().flat_map(|one| one.items));
        looks += 1;
    }
    assert!(looks > 60, "{looks}");
    let mut txs: Vec<_> = found.iter().map(|item| item.tx[0]).collect();
    txs.sort_unstable();
    assert_eq!(txs, (0..60).collect::<Vec<u8>>());
    assert!(watch.look(&rpc, || true)?.is_empty(), "there is nothing new");
    Ok(())
}

/// The rows of a Parquet file as JSON, without what is null.
#[cfg(feature = "parquet")]
fn parquet_rows(file: &[u8]) -> Result<Vec<Value>> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    use serde_json::{Map, json};
    let path = tempfile::NamedTempFile::new()?;
    std::fs::write(&path, file)?;
    let file = SerializedFileReader::new(std::fs::File::open(&path)?)?;
    let row = |row: parquet::record::Row| -> Result<Value> {
        let mut object = Map::new();
        for (name, field) in row.get_column_iter() {
            let value = match field {
                Field::Null => continue,
                Field::Str(text) => json!(text),
                Field::UInt(number) => json!(number),
                Field::ULong(number) => json!(number),
                other => anyhow::bail!("{name}: {other:?}"),
            };
            object.insert(name.clone(), value);
        }
        Ok(Value::Object(object))
    };
    file.get_row_iter(None)?.map(|found| row(found?)).collect()
}
