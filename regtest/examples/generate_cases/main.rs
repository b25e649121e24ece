//! Cases that a second implementation must answer in the same way: JSON lines on standard output.
//!
//! ```text
//! generate_cases COUNT SEED [PART OF]      of the cases those with a number that is PART modulo OF
//! ```
//!
//! Lines are `{"scene": NAME, ...}`, what later lines refer to, and `{"kind", "number", "input", "expected"}`. The
//! same arguments give the same lines. `scripts/check_vectors.py --generated` reads them.

mod carriers;
mod chains;
mod evidence;
mod judging;
mod node;
mod proofs;
mod rollups;
mod trees;

#[allow(dead_code, unused_imports, reason = "the fuzz targets use more of it")]
#[path = "../../../fuzz/src/lib.rs"]
mod fuzz;

use anyhow::{Context, Result};
use bitcoin::hex::DisplayHex;
use fuzz::seeds::Numbers;
use fuzz::world::World;
use serde_json::{Value, json};
use std::io::{BufWriter, Write};

/// What is asked, and our answer.
struct Case {
    input: Value,
    expected: Value,
}

/// Everything that is made once, with lines of its own.
struct Scenes {
    chains: Vec<chains::Scene>,
    world: World,
    proofs: Vec<proofs::Scene>,
}

type Maker = fn(&mut Numbers, &Scenes) -> Case;

/// Kinds of case, with how many of a thousand there are.
const KINDS: [(&str, usize, Maker); 17] = [
    ("place", 30, |numbers, _| trees::place(numbers)),
    ("output_script", 190, |numbers, _| carriers::output_script(numbers)),
    ("witness", 190, |numbers, _| carriers::witness(numbers)),
    ("bitcoin_block", 60, |numbers, _| carriers::bitcoin_block(numbers)),
    ("manifest", 100, |numbers, _| rollups::manifest(numbers)),
    ("ledger", 40, |numbers, _| rollups::ledger(numbers)),
    ("list", 20, |numbers, _| trees::list(numbers)),
    ("range", 30, |numbers, _| trees::range(numbers)),
    ("inclusion", 50, |numbers, _| trees::inclusion(numbers)),
    ("consistency", 50, |numbers, _| trees::consistency(numbers)),
    ("queue_leaf", 20, |numbers, _| trees::queue_leaf(numbers)),
    ("l2_block", 40, |numbers, _| trees::l2_block(numbers)),
    ("batch", 60, |numbers, scenes| judging::batch(numbers, &scenes.chains)),
    ("handover", 30, |numbers, scenes| judging::handover(numbers, &scenes.chains)),
    ("derivation", 10, |numbers, _| chains::derivation(numbers)),
    ("proof", 60, |numbers, scenes| proofs::proof(numbers, &scenes.proofs)),
    ("proof", 20, |numbers, scenes| evidence::evidence(numbers, &scenes.world, &scenes.proofs[0])),
];

fn main() -> Result<()> {
    let arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>()).collect::<Result<Vec<_>, _>>();
    let (count, seed, part, of) = match arguments.context("COUNT SEED [PART OF], all numbers")?[..] {
        [count, seed] => (count, seed, 0, 1),
        [count, seed, part, of] if part < of => (count, seed, part, of),
        _ => anyhow::bail!("usage: generate_cases COUNT SEED [PART OF]"),
    };
    let world = World::example();
    let scenes = Scenes {
        chains: chains::scenes(&mut Numbers::of(&format!("{seed}: scenes"))),
        proofs: proofs::scenes(&world)?,
        world,
    };
    #[expect(clippy::disallowed_methods, reason = "a program of its own")]
    let mut out = BufWriter::new(std::io::stdout().lock());
    for line in scenes.chains.iter().map(chains::Scene::line).chain(scenes.proofs.iter().map(proofs::Scene::line)) {
        writeln!(out, "{line}")?;
    }
    for number in (part..count).step_by(usize::try_from(of)?) {
        let mut numbers = Numbers::of(&format!("{seed}: {number}"));
        let (kind, maker) = kind_of(numbers.below(1000));
        let Case { input, expected } = maker(&mut numbers, &scenes);
        writeln!(out, "{}", json!({ "kind": kind, "number": number, "input": input, "expected": expected }))?;
    }
    Ok(out.flush()?)
}

fn kind_of(mut at: usize) -> (&'static str, Maker) {
    for (kind, share, maker) in KINDS {
        match at.checked_sub(share) {
            None => return (kind, maker),
            Some(rest) => at = rest,
        }
    }
    unreachable!("the shares are a thousand")
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().to_lower_hex_string()
}

fn hexes<T: AsRef<[u8]>>(list: &[T]) -> Vec<String> {
    list.iter().map(hex).collect()
}

/// One of them.
fn pick<T: Copy>(numbers: &mut Numbers, of: &[T]) -> T {
    of[numbers.below(of.len())]
}

/// A number that may be of any size, often one at a bound.
fn wide(numbers: &mut Numbers) -> u64 {
    match numbers.below(4) {
        0 => pick(numbers, &[0, 1, 252, 253, 65_535, 65_536, u64::from(u32::MAX), u64::MAX - 1, u64::MAX]),
        _ => {
            let shift = numbers.below(64);
            numbers.number() >> shift
        }
    }
}

fn hash(numbers: &mut Numbers) -> [u8; 32] {
    numbers.bytes(32).try_into().expect("32 bytes")
}
