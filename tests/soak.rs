//! Random reorganisations of a real bitcoind while four followers read it, each by a way of its own: all end with one
//! root.
//!
//! `SORTIE_SOAK_REORGS` says how many; 60 unless told. `SORTIE_SOAK_SEED` repeats a run. `scripts/soak.sh` runs 2,000.

use crate::support::{Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Network, Txid};
use regtest::hostile::Envelope;
use serde_json::json;
use sortie::chain::{BlkFiles, BlockReader, RestNode};
use sortie::envelope::{Body, Carrier};
use sortie::follower::{ChainEvent, DataDir, Follower, FollowerError};
use sortie::scanner::Scanner;
use std::env;
use std::fmt;
use std::time::{Duration, Instant};

const WINDOW: Window = Window { window: 6, max_lag: 4 };
/// Reorganisations between two lines on stderr.
const PROGRESS: u64 = 100;
/// Seconds between blocks with envelopes.
const SPACING: u64 = 600;

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

fn number(variable: &str, default: u64) -> Result<u64> {
    env::var(variable).map_or(Ok(default), |text| text.parse().with_context(|| format!("{variable}={text}")))
}

struct Reader {
    name: &'static str,
    readers: Vec<Box<dyn BlockReader>>,
    /// `None`: opened anew in each round.
    node: Option<Follower>,
}

fn open(world: &World, name: &str) -> Result<Follower> {
    Ok(Follower::open(&DataDir::new(world.path(name), world.manifest.clone()), &world.rpc()?)?)
}

#[test]
fn four_followers_end_with_one_root_whatever_was_reorganised_under_them() -> Result<()> {
    let (reorgs, seed) = (number("SORTIE_SOAK_REORGS", 60)?, number("SORTIE_SOAK_SEED", 7)?);
    let mut random = Random(seed);
    let world = World::new(WINDOW)?;
    let rpc = world.rpc()?;
    let rest = || -> Result<Box<dyn BlockReader>> {
        Ok(Box::new(RestNode::connect(&world.bitcoind.rpc_url(), Network::Regtest)?))
    };
    let blk = || -> Result<Box<dyn BlockReader>> {
        Ok(Box::new(BlkFiles::open(&world.bitcoind.datadir().join("regtest/blocks"), Network::Regtest)?))
    };
    let mut all = [
        Reader { name: "rpc", readers: Vec::new(), node: Some(open(&world, "rpc")?) },
        Reader { name: "rest", readers: vec![rest()?], node: Some(open(&world, "rest")?) },
        Reader { name: "blk", readers: vec![blk()?], node: Some(open(&world, "blk")?) },
        Reader { name: "restarted", readers: vec![blk()?, rest()?], node: None },
    ];
    // No reorganisation reaches the start.
    world.bitcoind.mine(40)?;
    let began = Instant::now();
    let mut done = Done::default();
    for reorg in 0..reorgs {
        let mining = Instant::now();
        for _ in 0..=random.below(2) {
            done.forced += 1;
            let carrier = if random.below(2) == 0 { Carrier::OpReturn } else { Carrier::Taproot };
            mine_forced(&world, done.forced, carrier)?;
        }
        let deepest = if random.below(20) == 0 { 30 } else { 6 };
        let depth = 1 + u32::try_from(random.below(deepest))?;
        // What was dropped comes back in some of the new blocks, and waits in the mempool otherwise.
        let back = random.below(u64::from(depth) + 1);
        world.bitcoind.reorg_with(depth, |at| -> Result<Vec<Txid>> {
            if u64::from(at) == back { mineable(&world) } else { Ok(Vec::new()) }
        })?;
        done.mining += mining.elapsed();
        for Reader { name, readers, node } in &mut all {
            // Each looks at a moment of its own, or misses this one.
            if random.below(3) == 0 {
                continue;
            }
            let steps = random.below(12);
            let mut restarted = None;
            let node = match node {
                Some(node) => node,
                None => restarted.insert(open(&world, name)?),
            };
            for _ in 0..=steps {
                match node.step(Scanner::from(&rpc).readers(readers)) {
                    Ok(Some(ChainEvent::Applied(_))) => done.applied += 1,
                    Ok(Some(ChainEvent::Reverted(_))) => done.reverted += 1,
                    Ok(None) => break,
                    Err(error) => ensure!(error.is_temporary(), "reorganisation {reorg}, {name}: {error}"),
                }
            }
        }
        if (reorg + 1) % PROGRESS == 0 {
            let height = world.bitcoind.height()?;
            eprintln!("{} of {reorgs} reorganisations, height {height}, {done}, {:.0?}", reorg + 1, began.elapsed());
        }
    }
    let fresh = world.follower("fresh")?.node;
    let expected = (fresh.derivation().clone(), fresh.state().clone(), fresh.heads(1)?);
    for Reader { name, readers, node } in all {
        let mut node = node.map_or_else(|| open(&world, name), Ok)?;
        synced(&mut node, &Scanner::from(&rpc).readers(&readers))?;
        assert_eq!((node.derivation().clone(), node.state().clone(), node.heads(1)?), expected, "{name}, seed {seed}");
    }
    let tip = expected.0.tip();
    println!(
        "{reorgs} reorganisations in {:.0} s, {done}, {} items in the queue, root {}",
        began.elapsed().as_secs_f64(),
        tip.queue_size,
        tip.queue_root
    );
    Ok(())
}

/// What was done so far.
#[derive(Default)]
struct Done {
    forced: u64,
    applied: u64,
    reverted: u64,
    mining: Duration,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { forced, applied, reverted, mining } = self;
        let mining = mining.as_secs();
        write!(f, "{forced} items forced, {applied} blocks applied and {reverted} taken back ({mining} s of mining)")
    }
}

/// Mines a block with one item. Its subsidy is nobody's: the harness looks through all the coins that are anybody's
/// whenever it pays for something, and thousands of them would take longer than everything else here.
fn mine_forced(world: &World, number: u64, carrier: Carrier) -> Result<()> {
    let payload = world.payload(Body::Tx([[7; 60].to_vec(), number.to_le_bytes().to_vec()].concat()))?;
    let txs: Vec<_> = world.bitcoind.carry(&[Envelope { carrier, payload }])?.iter().map(serialize_hex).collect();
    let now = world.bitcoind.call("getblockheader", &[json!(world.bitcoind.tip()?)])?["time"].as_u64();
    world.bitcoind.set_mocktime(now.context("a time")? + SPACING)?;
    world.bitcoind.call("generateblock", &[json!("raw(6a)"), json!(txs)])?;
    Ok(())
}

/// The mempool's transactions, in an order in which they can be mined.
fn mineable(world: &World) -> Result<Vec<Txid>> {
    let entries = world.bitcoind.call("getrawmempool", &[true.into()])?;
    let mut entries: Vec<(u64, Txid)> = entries
        .as_object()
        .context("a mempool")?
        .iter()
        .map(|(txid, entry)| Ok((entry["ancestorcount"].as_u64().context("a count")?, txid.parse()?)))
        .collect::<Result<_>>()?;
    entries.sort_unstable();
    entries.truncate(200);
    Ok(entries.into_iter().map(|(_, txid)| txid).collect())
}

fn synced(node: &mut Follower, scanner: &Scanner<'_>) -> Result<(), FollowerError> {
    node.sync(*scanner, |_| ())
}
