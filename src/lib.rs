//! Forced inclusion for rollups on Bitcoin: a censored user writes the signed L2 transaction into a Bitcoin
//! transaction, every node derives the same queue from it, and no sequencer can skip it.
//!
//! The upper half of the modules is pure: bytes, heights and times in, values out, `no_std` with `alloc`. The
//! lower half talks to bitcoind and keeps files. `docs/PROTOCOL.md` is the specification,
//! `docs/ARCHITECTURE.md` the map.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod batch;
mod codec;
pub mod derive;
pub mod envelope;
pub mod executor;
pub mod l2;
pub mod manifest;
pub mod merkle;
pub mod primitives;
pub mod proof;
pub mod queue;

#[cfg(feature = "node")]
pub mod chain;
#[cfg(feature = "node")]
mod crash;
#[cfg(feature = "node")]
mod database;
#[cfg(feature = "node")]
pub mod durable;
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
