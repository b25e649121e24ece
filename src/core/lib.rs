//! Forced inclusion for rollups on Bitcoin, the pure part: bytes, heights and times in, values out; `no_std` with
//! `alloc`.
//!
//! A rollup team takes this to import the queue into its own node, an auditor or a light client to judge proofs. It
//! opens no socket and no file. The package `sortie` adds nodes, wallets and a sequencer, and re-exports all of it.
//! `docs/PROTOCOL.md` is the specification.
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

pub use codec::Malformed;
