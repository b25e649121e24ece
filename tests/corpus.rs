//! The fuzz targets on stable Rust: every file of `fuzz/corpus`, every byte string of `tests/vectors`, and
//! 20,000 pseudo-random inputs a target, the same in every run, as far as they get in the time allowed.
//!
//! The long run is `scripts/fuzz.sh`, which says how the corpus was made, too.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use targets::seeds::{self, Numbers, mutate};

const RANDOM_INPUTS: usize = 20_000;
const TIME_FOR_RANDOM_INPUTS: Duration = Duration::from_secs(5);
/// Longest input made up here.
const MAX_LEN: usize = 2048;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a folder's entry").path()).collect();
    files.sort();
    files
}

fn vector_seeds(target: &str) -> Vec<Vec<u8>> {
    let vectors = seeds::vectors(&root().join("tests/vectors")).expect("vectors in JSON");
    seeds::seeds(target, &vectors)
}

/// Shows the input under which a target panicked, in the form that a corpus file is made of.
struct Shown<'a> {
    target: &'a str,
    input: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.input.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{} panicked under: {hex}", self.target);
        }
    }
}

fn replay(target: &str, run: fn(&[u8])) {
    let run = |input: &[u8]| {
        let shown = Shown { target, input };
        run(shown.input);
    };
    let corpus = files(&root().join("fuzz/corpus").join(target));
    let mut seeds: Vec<_> = corpus.iter().map(|file| std::fs::read(file).expect("a corpus file")).collect();
    assert!(!seeds.is_empty(), "a target without a corpus");
    seeds.extend(vector_seeds(target));
    seeds.iter().for_each(|seed| run(seed));

    let (start, mut numbers) = (Instant::now(), Numbers::of(target));
    for _ in 0..RANDOM_INPUTS {
        if start.elapsed() > TIME_FOR_RANDOM_INPUTS {
            break;
        }
        run(&random_input(&mut numbers, &seeds));
    }
}

/// Nothing but noise, or a seed that has been changed in a few places.
fn random_input(numbers: &mut Numbers, seeds: &[Vec<u8>]) -> Vec<u8> {
    if numbers.below(8) == 0 {
        let len = numbers.below(300);
        return numbers.bytes(len);
    }
    let mut input = seeds[numbers.below(seeds.len())].clone();
    input.truncate(MAX_LEN);
    for _ in 0..=numbers.below(4) {
        let other = numbers.below(seeds.len());
        mutate(numbers, &mut input, &seeds[other]);
    }
    input.truncate(MAX_LEN);
    input
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        const TARGETS: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                replay(stringify!($name), targets::$name);
            }
        )*
    };
}

targets! {
    batch,
    block,
    derive,
    handover,
    ledger,
    manifest,
    output_script,
    payload,
    place,
    proof,
    toml,
    transaction,
    witness,
}

#[test]
fn every_target_is_replayed() {
    let names = |folder: &str| -> Vec<String> {
        let stem = |file: &PathBuf| file.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        files(&root().join(folder)).iter().map(stem).collect()
    };
    assert_eq!(names("fuzz/fuzz_targets"), TARGETS);
    assert_eq!(names("fuzz/corpus"), TARGETS);
}
