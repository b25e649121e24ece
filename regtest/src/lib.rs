//! A bitcoind on regtest for tests: started on free ports, mined, funded, reorganized, cleaned up.
//!
//! # In your own tests
//! [`Bitcoind::start`] is all the setup: a fresh chain in a temporary folder, so tests run in
//! parallel. The node ends when the value is dropped, also in a panic, and a watchdog kills it when
//! the test process itself is killed. bitcoind comes from `$BITCOIND`, from `scripts/bitcoind.sh`
//! of this repository, or from `PATH`.
//!
//! No wallet is needed. The harness mines to an output that anyone can spend
//! ([`Bitcoind::anyone_address`]) and pays from there with [`Bitcoind::fund`]. Your test decides
//! what is in a block:
//!
//! | wish | call |
//! |---|---|
//! | what the mempool offers | [`mine`](Bitcoind::mine) |
//! | exactly these transactions | [`mine_block_with`](Bitcoind::mine_block_with) |
//! | censorship: nothing at all | [`mine_empty`](Bitcoind::mine_empty) |
//! | a reorg, transactions back in the mempool | [`reorg`](Bitcoind::reorg) |
//! | a reorg with a double spend or another order | [`reorg_with`](Bitcoind::reorg_with) |
//! | branch A, then B, then A again | [`flip_back`](Bitcoind::flip_back) |
//!
//! ```no_run
//! use std::process::Command;
//! use std::time::Duration;
//!
//! use bitcoin::Amount;
//! use regtest::{Bitcoind, Proc, wait_until};
//!
//! fn a_follower_survives_a_reorg() -> anyhow::Result<()> {
//!     let node = Bitcoind::start()?;
//!     let address = Bitcoind::anyone_address(); // your wallet's address
//!     let coin = node.fund_and_mine(&address, Amount::from_sat(100_000))?;
//!
//!     // The program under test, as a real process.
//!     let mut follower = Proc::spawn(
//!         Command::new("my-follower")
//!             .arg(node.rpc_url())
//!             .arg(node.cookie()),
//!     )?;
//!     follower.wait_line("the follower's start", Duration::from_secs(10), |line| {
//!         line.contains("synced")
//!     })?;
//!
//!     // The block with the coin is replaced by two empty ones; the coin waits in the mempool.
//!     let reorg = node.reorg(1)?;
//!     assert_eq!((reorg.old.len(), reorg.new.len()), (1, 2));
//!     assert!(node.mempool()?.contains(&coin.txid));
//!     node.mine_block_with(&[coin.txid])?;
//!     node.flip_back(&reorg)?;
//!
//!     wait_until("the tip", Duration::from_secs(10), || {
//!         let tip = node.tip()?.to_string();
//!         let told = follower.stdout().iter().any(|line| line.contains(&tip));
//!         Ok(told.then_some(()))
//!     })
//! }
//! # a_follower_survives_a_reorg().ok();
//! ```
//!
//! # At a terminal
//! [`Bitcoind::up`], [`attach`](Bitcoind::attach) and [`down`](Bitcoind::down) keep a node running
//! between commands.
//!
//! # Without a node
//! [`EsploraServer`] serves the chain as an Esplora server does, and [`SocksProxy`] stands in for Tor's.
//!
//! # Against an adversary
//! [`hostile`] has a sequencer and a Bitcoin that lie, for followers and sequencers under test.
//!
//! # Trust
//! For regtest only: the coins belong to anyone, and errors are meant to be read, not matched.
//! Unix only.

mod binary;
mod bitcoind;
mod child;
mod daemon;
pub mod esplora;
mod funding;
pub mod hostile;
mod mining;
mod options;
mod process;
mod reorg;
mod socks;
mod wait;
mod watchdog;

#[cfg(test)]
mod tests;

pub use bitcoind::Bitcoind;
pub use esplora::EsploraServer;
pub use mining::Minable;
pub use options::Options;
pub use process::Proc;
pub use reorg::Reorg;
pub use socks::{SocksProxy, Wanted};
pub use wait::wait_until;
