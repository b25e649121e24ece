//! Derivation of up to a million items: what an item costs must not grow with the items before it.
//!
//! The sequencer is silent, so that every item is executed by force. Reference: SHA-256 over as many bytes
//! as an item makes a queue hash, which no derivation can do without.

mod support;

use bitcoin::Txid;
use bitcoin::hashes::Hash;
use sortie::derive::Derivation;
use sortie::envelope::{Body, Carrier, Found, MIN_SHARED_TX, Payload};
use sortie::manifest::{DEFAULT_MAX_FORCED, DEFAULT_MAX_LAG, DEFAULT_WINDOW, Manifest};
use sortie::primitives::sha256;
use std::hint::black_box;
use std::time::Duration;
use support::rollup::{self, Parameters, SPACING, START_HEIGHT, START_TIME, Signers};
use support::{Cost, Meter, Table, made, timed};

/// Items in one envelope.
const LIST: usize = 100;
/// A queue's leaf and an inner node, with the byte that tells them apart.
const LEAF_LEN: usize = 114;
const NODE_LEN: usize = 65;
/// A silent sequencer's blocks are made by force every half window.
const ROUND: usize = DEFAULT_WINDOW as usize / 2;
/// Rounds that are looked at in one place.
const ROUNDS: usize = 3;
/// The first windows differ: nothing is due yet.
const BEGIN: usize = 2 * DEFAULT_WINDOW as usize;

/// Envelopes with so many items of 64 bytes in all.
fn envelopes(manifest: &Manifest, items: usize) -> Vec<Found> {
    let namespace = manifest.rollup_id().namespace();
    let lists = (0..items.div_ceil(LIST)).map(|list| LIST.min(items - list * LIST));
    let found = (1u32..).zip(lists).map(|(tx_index, len)| Found {
        tx_index,
        txid: Txid::from_byte_array([tx_index as u8; 32]),
        carrier: Carrier::Taproot,
        index: 0,
        namespace,
        payload: Ok(Payload { namespace, body: Body::Txs(vec![vec![7; MIN_SHARED_TX]; len]) }),
    });
    found.collect()
}

fn items_in(found: &Found) -> usize {
    match &found.payload {
        Ok(Payload { body: Body::Txs(txs), .. }) => txs.len(),
        _ => 0,
    }
}

/// What deriving from so many Bitcoin blocks takes, each with these envelopes: block by block.
fn derive(genesis: &Derivation, found: &[Found], blocks: usize) -> Vec<Duration> {
    let mut derivation = genesis.clone();
    let mut times = Vec::with_capacity(blocks);
    for number in 1..=blocks as u32 {
        let header = made::header(derivation.tip().block.hash, START_TIME + number * SPACING);
        times.push(timed(|| derivation.apply(&header, found).expect("a child of the tip")));
    }
    let items: usize = found.iter().map(items_in).sum();
    let due = blocks.saturating_sub(DEFAULT_WINDOW.into()) * items;
    assert!(derivation.head().header.forced_end >= due as u64, "a due item was not executed");
    times
}

/// What so many blocks took behind the first `from`: whole rounds of the silent sequencer's clock, the median
/// of them.
fn window(times: &[Duration], from: usize) -> Option<Cost> {
    let mut rounds: Vec<Duration> =
        times.get(from..)?.chunks_exact(ROUND).take(ROUNDS).map(|round| round.iter().sum()).collect();
    rounds.sort_unstable();
    Some(Cost { time: *rounds.get(rounds.len() / 2)?, units: ROUND as u64 })
}

/// The better of two.
fn better(one: Option<Cost>, other: Option<Cost>) -> Option<Cost> {
    one.into_iter().chain(other).min_by_key(|cost| cost.time)
}

fn reference(items: usize) -> Duration {
    let hashed = [vec![7; MIN_SHARED_TX], vec![7; LEAF_LEN], vec![7; NODE_LEN]];
    let hash_all = || {
        for bytes in &hashed {
            black_box(sha256(black_box(bytes)));
        }
    };
    timed(|| (0..items).for_each(|_| hash_all()))
}

fn main() {
    let mut meter = Meter::from_args();
    let signers = Signers::new([1, 2, 3], 2);
    let manifest = rollup::manifest(Parameters {
        start_height: START_HEIGHT,
        window: DEFAULT_WINDOW,
        max_lag: DEFAULT_MAX_LAG,
        max_forced: DEFAULT_MAX_FORCED,
        sequencers: signers.set(),
    });
    let genesis = rollup::genesis(&manifest);
    let items = meter.size(100_000);
    let hashing = meter.measure("derivation", "reference", items as u64, || reference(items));

    let shapes =
        [("10,000 blocks x 1", 10_000, 1), ("10,000 blocks x 100", 10_000, 100), ("200 blocks x 5,000", 200, 5_000)];
    let mut table = Table::new(&[
        "derivation, ns per item",
        "at the start",
        "behind 10 %",
        "behind half",
        "at the end",
        "end / start",
        "all",
        "all / reference",
    ]);
    for (name, blocks, per_block) in shapes {
        let found = envelopes(&manifest, per_block);
        let blocks = meter.size(blocks);
        let end = blocks.saturating_sub(ROUND * ROUNDS);
        let places = [BEGIN, BEGIN.max(blocks / 10), BEGIN.max(blocks / 2), BEGIN.max(end)];
        let mut windows = places.map(|_| None);
        let all = meter.measure("derivation", name, (blocks * per_block) as u64, || {
            let times = derive(&genesis, &found, blocks);
            for (best, from) in windows.iter_mut().zip(places) {
                *best = better(*best, window(&times, from));
            }
            times.iter().sum()
        });
        let per_item = |cost: &Cost| cost.per_unit() / per_block as f64;
        if let ([Some(start), Some(tenth), Some(half), Some(end)], Some(all), Some(hashing)) = (windows, all, hashing) {
            table.row(&[
                &name,
                &format!("{:.0}", per_item(&start)),
                &format!("{:.0}", per_item(&tenth)),
                &format!("{:.0}", per_item(&half)),
                &format!("{:.0}", per_item(&end)),
                &format!("{:.2}", end.ratio(&start)),
                &format!("{:.0}", all.per_unit()),
                &format!("{:.2}", all.ratio(&hashing)),
            ]);
        }
    }
    table.print();
}
