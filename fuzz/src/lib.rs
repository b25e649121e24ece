//! The bodies of the fuzz targets: one function per decoder over a byte string, and one for derivation.
//! Each panics when a promise is broken, and at nothing else.
//!
//! `fuzz_targets/` hands them to libFuzzer (`scripts/fuzz.sh`; needs nightly). `tests/corpus.rs` of the main
//! workspace takes this file in as a module and replays the corpus on stable Rust; benches and the maker of
//! cases for the second implementation (`regtest/examples/generate_cases`) take the made-up Bitcoin from here too.

mod carriers;
mod chain;
mod decoders;
pub mod input;
pub mod made;
mod posts;
pub mod proofs;
pub mod rollup;
pub mod seeds;
pub mod world;

pub use carriers::{block, output_script, transaction, witness};
pub use chain::derive;
pub use decoders::{ledger, manifest, payload, place, toml};
pub use posts::{batch, handover};
pub use proofs::{examples, proof};
