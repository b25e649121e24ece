//! Bitcoin blocks that are made to be expensive for who reads them.
//!
//! References, in the same run on the same bytes: rust-bitcoin's full decode, and its check of both Merkle
//! trees. Everyone who follows Bitcoin pays these or more.

mod support;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Block, Transaction, TxIn, TxOut, Weight, Witness};
use sortie::batch::{BatchBlock, batch_message, encode_batch};
use sortie::derive::{Derivation, DropReason, Judged, Verdict};
use sortie::envelope::{
    Body, Carrier, HEADER_LEN, MAGIC, MAX_PAYLOAD, MIN_SHARED_TX, Payload, leaf_script, op_return_script, scan_block,
};
use sortie::manifest::Manifest;
use std::time::Duration;
use support::rollup::{self, Draft, Parameters, SPACING, START_HEIGHT, START_TIME, Signers, batch_body};
use support::{Meter, Table, made, timed};

/// Most weight of a Bitcoin block, less what header and coinbase need.
const WEIGHT: usize = 4_000_000 - 2_000;
const OUTPUT_SCALE: usize = 4;

/// A rollup and blocks after its start.
struct Scene {
    manifest: Manifest,
    derivation: Derivation,
}

impl Scene {
    fn new(signers: &Signers) -> Self {
        let parameters = Parameters {
            start_height: START_HEIGHT,
            window: 36,
            max_lag: 18,
            max_forced: 1000,
            sequencers: signers.set(),
        };
        let manifest = rollup::manifest(parameters);
        Self { derivation: rollup::genesis(&manifest), manifest }
    }

    fn payload(&self, body: Body) -> Vec<u8> {
        let namespace = self.manifest.rollup_id().namespace();
        Payload { namespace, body }.encode().expect("a body of a payload")
    }

    fn block(&self, txs: Vec<Transaction>) -> Vec<u8> {
        serialize(&made::block(self.derivation.tip().block.hash, START_TIME + SPACING, 0, txs))
    }

    fn scan(&self, raw: &[u8]) -> Duration {
        timed(|| scan_block(raw, Some(self.manifest.rollup_id().namespace())).expect("a whole block"))
    }

    fn apply(&self, raw: &[u8]) -> Duration {
        let scanned = scan_block(raw, Some(self.manifest.rollup_id().namespace())).expect("a whole block");
        let mut derivation = self.derivation.clone();
        timed(|| derivation.apply(&scanned.header, &scanned.found).expect("a child of the tip"))
    }
}

/// A case: what is in the block, the rollup that reads it, and how many things it is full of.
struct Case {
    name: &'static str,
    scene: Scene,
    raw: Vec<u8>,
    count: usize,
    /// What becomes of every batch in it.
    verdict: Option<Verdict>,
}

/// One transaction with so many outputs, filled up to the weight.
fn outputs(weight: usize, script: &[u8]) -> (Vec<Transaction>, usize) {
    let output = made::output(script);
    let count = weight / (OUTPUT_SCALE * output.size());
    (vec![made::transaction(vec![made::input(0, Witness::new())], vec![output; count])], count)
}

/// One transaction with so many inputs that show this leaf.
fn inputs(weight: usize, leaf: &[u8]) -> (Vec<Transaction>, usize) {
    let input = made::input(0, made::leaf_witness(leaf));
    let count = weight / input.segwit_weight().to_wu() as usize;
    let inputs: Vec<TxIn> = (0u32..).take(count).map(|salt| made::input(salt, input.witness.clone())).collect();
    (vec![made::transaction(inputs, vec![made::output(&[0x51])])], count)
}

/// Transactions as people make them: nothing here is ours.
fn ordinary(weight: usize) -> (Vec<Transaction>, usize) {
    let tx = |salt| {
        let outputs: Vec<TxOut> = vec![made::output(&[0x51; 34]); 2];
        made::transaction(vec![made::input(salt, Witness::from_slice(&[[0x30; 64]]))], outputs)
    };
    let count = weight / tx(0).weight().to_wu() as usize;
    ((0u32..).take(count).map(tx).collect(), count)
}

/// The leaf of a batch with one small block, on the head, whose last signature is spoiled: what anybody can
/// make of a batch that is on its way to Bitcoin.
fn spoiled_batch(scene: &Scene, signers: &Signers) -> Vec<u8> {
    let draft = Draft::new(scene.derivation.head()).block(&scene.derivation, false, 0, Vec::new());
    let mut body = batch_body(&scene.manifest.rollup_id(), 0, signers, &draft.terms, 0, &draft.data());
    if let Some(last) = body.last_mut() {
        *last ^= 1;
    }
    leaf_script(&scene.payload(Body::Batch(body)), &made::leaf_key()).into_bytes()
}

fn cases(meter: &Meter) -> Vec<Case> {
    let weight = meter.size(WEIGHT);
    let (few, many) = (Signers::new([1], 1), Signers::new(1..=64, 64));
    let scene = Scene::new(&few);
    let crowd = Scene::new(&many);
    let magic = [&MAGIC[..], &scene.manifest.rollup_id().namespace().0].concat();

    // As many lists as fit, each full of the smallest items.
    let per_list = (MAX_PAYLOAD.min(weight / 4) - HEADER_LEN) / (MIN_SHARED_TX + 1);
    let list = scene.payload(Body::Txs(vec![vec![7; MIN_SHARED_TX]; per_list]));
    let (lists, list_count) = inputs(weight, leaf_script(&list, &made::leaf_key()).as_bytes());
    let smallest = op_return_script(&scene.payload(Body::Tx(vec![7])));

    // A leaf that is sound up to its end but for chunks of one byte; and one of opcodes without any push.
    let push_magic = [&[magic.len() as u8], &magic[..]].concat();
    let pairs = [1, 0, 1, 0, 0x6d].repeat((weight - 500) / 5);
    let torn = [&push_magic[..], &[1, 0, 0x6d], &pairs, &[0x20], &[7; 32], &[0xac]].concat();
    let opcodes = [&push_magic[..], &vec![0x61; weight - 500]].concat();

    let unsigned = Some(Verdict::Drop(DropReason::BadSignature));
    let cases = [
        ("ordinary transactions, nothing to find", &few, ordinary(weight), None),
        ("smallest items, in lists", &few, (lists, list_count * per_list), None),
        ("smallest envelopes, in outputs", &few, outputs(weight, smallest.as_bytes()), None),
        ("flawed outputs", &few, outputs(weight, &magic), None),
        ("flawed leaves", &few, inputs(weight, &magic), None),
        ("one leaf of chunks of one byte", &few, inputs(weight, &torn), None),
        ("one leaf of opcodes", &few, inputs(weight, &opcodes), None),
        ("batches with a bad signature", &few, inputs(weight, &spoiled_batch(&scene, &few)), unsigned),
        ("a tenth full: the last of 64 is bad", &many, inputs(weight / 10, &spoiled_batch(&crowd, &many)), unsigned),
    ];
    let cases = cases.into_iter().map(|(name, signers, (txs, count), verdict)| {
        let scene = Scene::new(signers);
        Case { name, raw: scene.block(txs), scene, count, verdict }
    });
    cases.collect()
}

/// One batch that the sequencer set has signed: small on Bitcoin, large on the L2 chain.
fn signed_cases(meter: &Meter) -> Vec<Case> {
    let signers = Signers::new([1], 1);
    let empty = BatchBlock { advances: false, seconds: 0, txs: Vec::new() };
    let crowded = BatchBlock { advances: false, seconds: 0, txs: vec![vec![7]; meter.size(2_000_000)] };
    let cases = [
        ("one signed batch of 4,096 empty blocks", vec![empty; meter.size(4_096)]),
        ("one signed batch of 2,000,000 transactions", vec![crowded]),
    ];
    let cases = cases.into_iter().map(|(name, blocks)| {
        let scene = Scene::new(&signers);
        let body = encode_batch(&Draft::new(scene.derivation.head()).terms, &blocks);
        let message = batch_message(&scene.manifest.rollup_id(), 0, &body);
        let body = [body, signers.sign(message)].concat();
        let raw = scene.block(vec![made::carry(Carrier::Taproot, &scene.payload(Body::Batch(body)), 0)]);
        Case { name, scene, raw, count: 1, verdict: Some(Verdict::Accept) }
    });
    cases.collect()
}

/// The block is one that Bitcoin allows, and what it is full of meets the end that it was made for.
fn check(Case { name, scene, raw, verdict, .. }: &Case) {
    let block: Block = deserialize(raw).expect("a whole block");
    assert!(block.weight() <= Weight::MAX_BLOCK, "{name} is no Bitcoin block");
    let scanned = scan_block(raw, Some(scene.manifest.rollup_id().namespace())).expect("a whole block");
    let step = scene.derivation.clone().apply(&scanned.header, &scanned.found).expect("a child of the tip");
    let as_expected = |judged: &Judged| Some(judged.verdict) == *verdict;
    assert!(step.judged.iter().all(as_expected), "{name}: {:?}", step.judged.first());
    assert_eq!(step.judged.is_empty(), verdict.is_none(), "{name}");
}

/// What every full node does with a block before it believes it: both Merkle trees.
fn check_trees(block: &Block) -> bool {
    block.check_merkle_root() && block.check_witness_commitment()
}

fn main() {
    let mut meter = Meter::from_args();
    let mut table = Table::new(&[
        "worst block",
        "things",
        "kB",
        "decode, ms",
        "trees / decode",
        "scan / decode",
        "derive / decode",
        "(scan + derive) / (decode + trees)",
    ]);
    let mut cases = cases(&meter);
    cases.extend(signed_cases(&meter));
    for case in &cases {
        check(case);
        let Case { name, scene, raw, count, .. } = case;
        let block: Block = deserialize(raw).expect("a whole block");
        let mut measure = |part: &str, run: &mut dyn FnMut() -> Duration| {
            meter.measure("worst block", &format!("{name}, {part}"), raw.len() as u64, run)
        };
        let decode = measure("decode", &mut || timed(|| deserialize::<Block>(raw)));
        let trees = measure("trees", &mut || timed(|| check_trees(&block)));
        let scan = measure("scan", &mut || scene.scan(raw));
        let derive = measure("derive", &mut || scene.apply(raw));
        if let (Some(decode), Some(trees), Some(scan), Some(derive)) = (decode, trees, scan, derive) {
            let [trees, scan, derive] = [trees, scan, derive].map(|cost| cost.ratio(&decode));
            table.row(&[
                name,
                count,
                &(raw.len() / 1000),
                &format!("{:.3}", decode.time.as_secs_f64() * 1000.0),
                &format!("{trees:.1}"),
                &format!("{scan:.1}"),
                &format!("{derive:.1}"),
                &format!("{:.1}", (scan + derive) / (1.0 + trees)),
            ]);
        }
    }
    table.print();
}
