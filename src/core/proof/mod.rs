//! Files that anyone can check: what Bitcoin holds, what a sequencer signed, and where the two differ
//! (specification, sections 7 and 8).
//!
//! [`judge`] guarantees an answer for every file: [`Verdict::Proven`], with the anchors that it rests on;
//! [`Verdict::Refuted`]; [`Verdict::NeedsAnchor`]; [`Verdict::NeedsNode`]. It trusts the [`Anchors`] and
//! nothing else, opens nothing, takes time linear in the file and never panics. It never says "best chain":
//! of Bitcoin headers it says how much work stands behind them, and what they hang on.

mod anchors;
mod bitcoin_headers;
mod bitcoin_transaction;
mod broken_receipt;
mod censored;
mod consistency;
mod difficulty;
mod evidence;
mod file;
mod included;
mod item;
mod judge;
mod leaf;
mod raw;
mod refutation;
mod standing;
mod statement;
mod verdict;

pub use crate::queue::QueueLeaf;
pub use anchors::{AnchorName, Anchors, ConflictingAnchors};
pub use bitcoin_headers::HeaderChain;
pub use bitcoin_transaction::{TransactionProof, TxTree, root_above};
pub use broken_receipt::{BrokenReceipt, ReceiptBlock};
pub use censored::{CaseName, Censored, CensoredCase};
pub use consistency::Consistency;
pub use difficulty::{BitsChecked, check_headers, check_work, difficulty_period};
pub use evidence::{ConflictingState, Equivocation};
pub use file::{File, FileError, MAX_FILE, Proof, VERSION};
pub use included::{Included, Level};
pub use item::{ItemProof, NotInBlock};
pub use judge::judge;
pub use leaf::{LeafRange, ProvenLeaf};
pub use raw::{Raw, RawBytes};
pub use refutation::Refutation;
pub use standing::{BitcoinFacts, Standing};
pub use statement::{
    Receipt, Signed, SignedBlock, SignedBy, SoftHeader, SoftState, Statement, header_message, receipt_message,
    state_message,
};
pub use verdict::{BlockName, Fact, NeededAnchor, NodeNeed, Proven, Verdict};

#[cfg(test)]
pub(crate) mod tests;
