//! The hostile kit: a sequencer and a Bitcoin that lie, fail and change their minds, on purpose.
//!
//! For the tests of this repository and of rollup teams; `docs/HOSTILE.md` says how to hold your own
//! follower or sequencer against it. Nothing here uses `sortie`'s follower or its sequencer: what must be
//! derived comes from the pure core, and the verdicts that each act must meet are written down beside it.
//!
//! | part | what it does |
//! |---|---|
//! | [`HostileSequencer`] | signs batches of any shape; [`Act`] has what it can do, with the verdict due |
//! | [`Draft`] | one batch, every field open to change |
//! | [`Miner`] | puts payloads into the next block of a real bitcoind or a [`PaperBitcoin`] |
//! | [`HostileSource`] | a [`BlockSource`](sortie::chain::BlockSource) around another, with [`Fault`]s |
//! | [`RpcFront`] | the same faults as JSON-RPC, for programs in any language |
//! | [`Observer`] | what everyone must derive; counts what the protocol guarantees |
//!
//! # A follower under test
//! ```
//! use anyhow::{Result, ensure};
//! use regtest::hostile::{Act, HostileSequencer, PaperBitcoin};
//! use bitcoin::secp256k1::Keypair;
//! use sortie::manifest::Manifest;
//! use sortie::primitives::{BlockRef, Hash32};
//!
//! /// What your follower must be able to say: its derived head once it has seen this Bitcoin block.
//! trait Follower {
//!     fn head_at(&mut self, bitcoin: BlockRef) -> Result<Hash32>;
//! }
//!
//! fn my_follower_survives(
//!     follower: &mut impl Follower,
//!     manifest: Manifest,
//!     sequencers: Vec<Keypair>,
//!     bitcoin: &PaperBitcoin, // or a `Bitcoind` and the `RpcNode` of `Bitcoind::source`
//! ) -> Result<()> {
//!     let mut hostile = HostileSequencer::new(manifest, sequencers, bitcoin)?;
//!     for act in Act::ALL {
//!         for block in hostile.perform(*act, bitcoin, bitcoin)? {
//!             if block == hostile.observer().tip() {
//!                 let (mine, theirs) = (hostile.observer().head().hash, follower.head_at(block)?);
//!                 ensure!(mine == theirs, "{act:?}: everyone derives {mine}, the follower {theirs}");
//!             }
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # A sequencer under test
//! It runs as it always does, with the front's address instead of its node's. What it posts is judged by an
//! observer that sees the honest chain.
//! ```
//! use anyhow::{Result, ensure};
//! use regtest::hostile::{Fault, HostileSource, Observer, RpcFront};
//! use regtest::{Bitcoind, Proc};
//! use sortie::manifest::Manifest;
//! use std::sync::Arc;
//!
//! fn my_sequencer_survives(
//!     bitcoind: &Bitcoind,
//!     manifest: Manifest,
//!     start: impl Fn(&str) -> Result<Proc>,     // your program, given the address of its Bitcoin node
//!     works: impl Fn(&mut Proc) -> Result<()>,  // sends it a transaction and waits for the next block
//! ) -> Result<()> {
//!     let node = Arc::new(HostileSource::new(bitcoind.source()?));
//!     let front = RpcFront::start(Arc::clone(&node), bitcoind)?;
//!     let mut sequencer = start(&front.url())?;
//!     for fault in [Fault::TimeOut, Fault::WarmingUp, Fault::Behind(2)] {
//!         works(&mut sequencer)?;
//!         node.give(fault);
//!         bitcoind.reorg(1)?;
//!         sequencer.kill9()?;
//!         node.heal();
//!         bitcoind.mine(1)?;
//!         sequencer = start(&front.url())?;
//!     }
//!     works(&mut sequencer)?;
//!     let observer = Observer::new(manifest, &bitcoind.source()?)?;
//!     ensure!(observer.equivocations().is_empty(), "it signed two batches for one parent");
//!     ensure!(observer.check_guarantee()? > 0, "nothing was forced");
//!     Ok(())
//! }
//! ```

mod alter;
mod carry;
mod draft;
mod front;
mod observer;
mod paper;
mod reader;
mod sequencer;
mod source;
mod trial;

#[cfg(test)]
mod tests;

pub use alter::Alteration;
pub use carry::{Envelope, Miner};
pub use draft::{Draft, Signer};
pub use front::RpcFront;
pub use observer::{Observer, PostedBatch, Seen};
pub use paper::PaperBitcoin;
pub use reader::{LyingReader, write_block_files};
pub use sequencer::{Act, HostileSequencer, Post};
pub use source::{Fault, HostileSource};
