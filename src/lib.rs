//! Forced inclusion for rollups on Bitcoin: a censored user writes the signed L2 transaction into a Bitcoin
//! transaction, every node derives the same queue from it, and no sequencer can skip it.
//!
//! What is pure (envelopes, queue, derivation, executors, proofs) is the package `sortie-core`, which this one
//! re-exports: take that alone where there is no `std`. The rooms here talk to bitcoind and keep files.
//! `docs/PROTOCOL.md` is the specification, `docs/ARCHITECTURE.md` the map.

pub use sortie_core::{batch, derive, envelope, executor, l2, manifest, merkle, primitives, proof, queue};

#[cfg(feature = "node")]
pub mod api;
#[cfg(feature = "node")]
pub mod chain;
#[cfg(feature = "node")]
mod crash;
#[cfg(feature = "node")]
mod database;
#[cfg(feature = "node")]
pub mod durable;
#[cfg(feature = "node")]
pub mod evidence;
#[cfg(feature = "node")]
pub mod follower;
#[cfg(feature = "node")]
pub mod patience;
#[cfg(feature = "wallet")]
pub mod publish;
#[cfg(feature = "node")]
pub mod scanner;
#[cfg(feature = "sequencer")]
pub mod sequencer;
#[cfg(feature = "wallet")]
pub mod wallet;

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
