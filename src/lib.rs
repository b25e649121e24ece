//! Sortie: forced inclusion for rollups on Bitcoin.
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
pub mod queue;

#[cfg(feature = "node")]
pub mod chain;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "wallet")]
pub mod publish;
#[cfg(feature = "sequencer")]
pub mod sequencer;
#[cfg(feature = "wallet")]
pub mod wallet;
