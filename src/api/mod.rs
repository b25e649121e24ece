//! The sequencer's HTTP interface: the messages, and a client.

mod client;
pub mod wire;

pub use client::{ClientError, SequencerClient, check_served};
