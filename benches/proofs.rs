//! Making and checking proof files.
//!
//! References, in the same run: for checking, one BIP340 signature; for making, rust-bitcoin's decode of the
//! Bitcoin block, which whoever makes a proof must do as well.

mod support;

use bitcoin::Block;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::secp256k1::Message;
use sortie::envelope::{Body, Carrier, MIN_SHARED_TX};
use sortie::merkle::{Tree, leaf_hash};
use sortie::proof::{Anchors, File, Verdict, judge};
use std::time::Duration;
use support::rollup::{SECP, START_HEIGHT, keypair};
use support::world::World;
use support::{Cost, Meter, Table, timed};

/// Bitcoin transactions in a full block of people's.
const TRANSACTIONS: usize = 6_000;
/// Items in one list.
const LIST: usize = 5_000;

/// A Bitcoin block full of other people's transactions, with an item in an output and one in a witness.
fn crowded(transactions: usize) -> World {
    let mut world = World::new();
    let mut txs: Vec<_> = (0..transactions).map(|_| world.plain()).collect();
    txs.push(world.carry(Carrier::OpReturn, Body::Tx(vec![7; 150])));
    txs.push(world.carry(Carrier::Taproot, Body::Tx(vec![7; 150])));
    world.mine(txs);
    world
}

/// So many items in lists, and blocks behind them.
fn long_queue(items: usize, list: usize) -> World {
    let mut world = World::new();
    for _ in 0..items.div_ceil(list) {
        let tx = world.carry(Carrier::Taproot, Body::Txs(vec![vec![7; MIN_SHARED_TX]; list]));
        world.mine(vec![tx]);
    }
    world
}

fn verify_signature() -> Duration {
    let (keypair, message) = (keypair(1), Message::from_digest([7; 32]));
    let signature = SECP.sign_schnorr_no_aux_rand(&message, &keypair);
    let key = keypair.x_only_public_key().0;
    timed(|| SECP.verify_schnorr(&signature, &message, &key).expect("a sound signature"))
}

struct Bench {
    meter: Meter,
    table: Table,
    signature: Option<Cost>,
}

impl Bench {
    /// Checks a file of so many parts, of which the judge must say that it is proven.
    fn check(&mut self, name: &str, file: &File, anchors: &Anchors, parts: (usize, &str)) {
        let verdict = judge(file, anchors);
        assert!(matches!(verdict, Verdict::Proven(_)), "{name}: {verdict}");
        let id = format!("{name}, {} {}", parts.0, parts.1);
        let cost = self.meter.measure("proofs", &id, parts.0 as u64, || timed(|| judge(file, anchors)));
        self.row(name, parts, cost, self.signature, "signatures");
    }

    fn row(&mut self, name: &str, parts: (usize, &str), cost: Option<Cost>, reference: Option<Cost>, what: &str) {
        if let (Some(cost), Some(reference)) = (cost, reference) {
            let micros = cost.time.as_secs_f64() * 1e6;
            let ratio = cost.time.as_secs_f64() / reference.time.as_secs_f64();
            let part = cost.per_unit() / 1e3;
            let parts = format!("{} {}", parts.0, parts.1);
            self.table.row(&[
                &name,
                &parts,
                &format!("{micros:.1}"),
                &format!("{part:.3}"),
                &format!("{ratio:.2}"),
                &what,
            ]);
        }
    }
}

fn main() {
    let mut meter = Meter::from_args();
    let signature = meter.measure("proofs", "one signature", 1, verify_signature);
    let table = Table::new(&["proofs", "of", "µs", "µs for one", "ratio", "to so many"]);
    let mut bench = Bench { meter, table, signature };
    in_a_full_block(&mut bench);
    as_files_grow(&mut bench);
    for items in [10_000, 1_000_000] {
        in_a_long_queue(&mut bench, items);
    }
    bench.table.print();
}

fn in_a_full_block(bench: &mut Bench) {
    let world = crowded(bench.meter.size(TRANSACTIONS));
    let raw = serialize(&world.blocks[0]);
    let decode = bench.meter.measure("proofs", "decode", 1, || timed(|| deserialize::<Block>(&raw)));
    let height = START_HEIGHT + 1;
    let parts = (world.blocks[0].txdata.len(), "transactions");
    for (index, name) in [(0, "make forced, in an output"), (1, "make forced, in a witness")] {
        let cost = bench.meter.measure("proofs", name, parts.0 as u64, || timed(|| world.item(index, height..=height)));
        bench.row(name, parts, cost, decode, "decodes");
    }
    let anchors = world.anchors();
    for (index, name) in [(0, "check forced, in an output"), (1, "check forced, in a witness")] {
        bench.check(name, &world.forced(index, height..=height), &anchors, (1, "file"));
    }
}

/// What grows with the file must grow as the file does, and no faster.
fn as_files_grow(bench: &mut Bench) {
    let counts = [100, 1_000, 10_000].map(|count| bench.meter.size(count));
    let world = long_queue(counts[2], 1);
    let anchors = world.anchors();
    for count in counts {
        let file = world.forced(0, START_HEIGHT + 1..=START_HEIGHT + count as u32);
        bench.check("check forced", &file, &anchors, (count, "headers"));
    }
    for count in counts.map(|count| count.div_ceil(10)) {
        bench.check("check broken receipt", &world.broken_receipt(count), &anchors, (count, "blocks"));
    }
}

fn in_a_long_queue(bench: &mut Bench, items: usize) {
    let world = long_queue(bench.meter.size(items), bench.meter.size(LIST));
    let (count, items) = (world.items.len(), world.items.len() as u64);
    let parts = (count, "items");
    let leaves: Vec<_> = world.items.iter().map(|item| leaf_hash(&item.leaf())).collect();
    let build = || timed(|| leaves.iter().copied().collect::<Tree>());
    let cost = bench.meter.measure("proofs", &format!("build the tree, {count} items"), items, build);
    bench.row("build the queue's tree", parts, cost, bench.signature, "signatures");
    let make = || timed(|| world.leaf(items / 3, items));
    let cost = bench.meter.measure("proofs", &format!("make a leaf's proof, {count} items"), items, make);
    bench.row("make a leaf's proof", parts, cost, bench.signature, "signatures");
    let anchors = world.anchors();
    let chain = world.chain();
    let last = chain.last().expect("a block");
    bench.check("check included", &world.included(last.header.forced_end - 1, last), &anchors, parts);
    bench.check("check consistency", &world.consistency(items / 3, items), &anchors, parts);
}
