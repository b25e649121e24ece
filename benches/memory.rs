//! What a node must hold: in the derivation, in a step, in a scanned block.
//!
//! Counted in the process's resident memory (Linux: `RssAnon` of `/proc/self/status`), before and after.
//! Reference: the bytes on Bitcoin that it came from.

mod support;

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{Txid, Witness};
use sortie::batch::{BatchBlock, batch_message, encode_batch};
use sortie::derive::{Derivation, Step};
use sortie::envelope::{Body, Carrier, Found, MIN_SHARED_TX, Payload, op_return_script, scan_block};
use sortie::manifest::Manifest;
use support::rollup::{self, Draft, Parameters, SPACING, START_HEIGHT, START_TIME, Signers};
use support::{Table, made};

/// Items in one Bitcoin block.
const PER_BLOCK: usize = 1000;

/// Anonymous memory in use, in bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// What `make` leaves behind, in bytes; what it gave is dropped.
fn held<T>(make: impl FnOnce() -> T) -> Option<u64> {
    let before = resident()?;
    let made = std::hint::black_box(make());
    let after = resident()?;
    drop(made);
    Some(after.saturating_sub(before))
}

struct Scene {
    manifest: Manifest,
    signers: Signers,
    genesis: Derivation,
}

impl Scene {
    fn new() -> Self {
        let signers = Signers::new([1], 1);
        let manifest = rollup::manifest(Parameters {
            start_height: START_HEIGHT,
            window: 36,
            max_lag: 18,
            max_forced: 1000,
            sequencers: signers.set(),
        });
        Self { genesis: rollup::genesis(&manifest), manifest, signers }
    }

    fn payload(&self, body: Body) -> Vec<u8> {
        let namespace = self.manifest.rollup_id().namespace();
        Payload { namespace, body }.encode().expect("a body of a payload")
    }

    fn found(&self, body: Body) -> Found {
        let namespace = self.manifest.rollup_id().namespace();
        Found {
            tx_index: 1,
            txid: Txid::all_zeros(),
            carrier: Carrier::Taproot,
            index: 0,
            namespace,
            payload: Ok(Payload { namespace, body }),
        }
    }

    /// Applies so many Bitcoin blocks of the same envelope; what to do with each step is the caller's.
    fn derive(&self, found: &Found, blocks: usize, mut keep: impl FnMut(Step)) -> Derivation {
        let mut derivation = self.genesis.clone();
        for number in 0..blocks as u32 {
            let header = made::header(derivation.tip().block.hash, START_TIME + (number + 1) * SPACING);
            keep(derivation.apply(&header, core::slice::from_ref(found)).expect("a child of the tip"));
        }
        derivation
    }

    /// A batch that the set has signed.
    fn batch(&self, blocks: &[BatchBlock]) -> Vec<u8> {
        let body = encode_batch(&Draft::new(self.genesis.head()).terms, blocks);
        let signatures = self.signers.sign(batch_message(&self.manifest.rollup_id(), 0, &body));
        [body, signatures].concat()
    }
}

fn main() {
    // Under `cargo test` it is enough that it runs.
    let blocks = if std::env::args().any(|arg| arg == "--bench") { 1000 } else { 2 };
    let scene = Scene::new();
    let items = scene.found(Body::Txs(vec![vec![7; MIN_SHARED_TX]; PER_BLOCK]));
    let mut table =
        Table::new(&["memory held", "of them", "bytes in all", "bytes for one", "bytes on Bitcoin for one"]);
    let mut row = |name: &str, count: usize, bytes: Option<u64>, on_bitcoin: usize| match bytes {
        Some(bytes) => {
            table.row(&[&name, &count, &bytes, &format!("{:.1}", bytes as f64 / count as f64), &on_bitcoin]);
        }
        None => println!("no /proc/self/status: {name} was not measured"),
    };
    // Once before it counts: the allocator keeps what a step needed.
    let _ = scene.derive(&items, 50.min(blocks), drop);
    let count = blocks * PER_BLOCK;
    let bytes = held(|| scene.derive(&items, blocks, drop));
    row("items, in the derivation", count, bytes, MIN_SHARED_TX + 1);
    let snapshot = postcard::to_allocvec(&scene.derive(&items, blocks, drop).snapshot()).expect("plain data");
    row("items, in its snapshot", count, Some(snapshot.len() as u64), MIN_SHARED_TX + 1);
    let kept = blocks / 10 + 1;
    let bytes = held(|| {
        let mut steps = Vec::new();
        let derivation = scene.derive(&items, kept, |step| steps.push(step));
        (derivation, steps)
    });
    row("items, in the steps", kept * PER_BLOCK, bytes, MIN_SHARED_TX + 1);

    // The smallest envelope that there is, in the outputs of one transaction.
    let script = op_return_script(&scene.payload(Body::Tx(vec![7])));
    let (envelopes, output) = (47 * blocks, made::output(script.as_bytes()));
    let on_bitcoin = output.size();
    let tx = made::transaction(vec![made::input(0, Witness::new())], vec![output; envelopes]);
    let raw = serialize(&made::block(scene.genesis.tip().block.hash, START_TIME + SPACING, 0, vec![tx]));
    let bytes = held(|| scan_block(&raw, Some(scene.manifest.rollup_id().namespace())).expect("a whole block"));
    row("smallest envelopes, in a scanned block", envelopes, bytes, on_bitcoin);
    drop(raw);

    let empty = BatchBlock { advances: false, seconds: 0, txs: Vec::new() };
    let crowded = BatchBlock { advances: false, seconds: 0, txs: vec![vec![7]; 2 * blocks * PER_BLOCK] };
    for (name, stated) in [
        ("signed batch of 4,096 empty blocks", vec![empty; 4096]),
        ("signed batch of 2,000,000 transactions", vec![crowded]),
    ] {
        let body = scene.batch(&stated);
        let on_bitcoin = body.len();
        let batch = scene.found(Body::Batch(body));
        let bytes = held(|| {
            let mut steps = Vec::new();
            scene.derive(&batch, 1, |step| steps.push(step));
            assert_eq!(steps[0].blocks.len(), stated.len());
            steps
        });
        row(name, 1, bytes, on_bitcoin);
    }
    table.print();
}
