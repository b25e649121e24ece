//! Proof files from a follower's chain, a Bitcoin source, and the blocks that a sequencer shows or showed.
//!
//! Makes the files that [`proof::judge`](crate::proof::judge) judges, and guarantees nothing about them: the caller
//! judges each before it writes it. Knows no sequencer, only its messages.

mod censored;
mod error;
mod prover;
mod shown;

pub use censored::find_censored;
pub use error::EvidenceError;
pub use prover::{Prover, header_on_any_branch};
pub use shown::{ShownBlocks, broken_receipt, claimed_block};
