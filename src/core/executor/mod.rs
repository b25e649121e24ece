//! Executors: what the L2 chain's transactions do (specification, sections 9 and 10).
//!
//! An executor knows neither Bitcoin nor the queue. It is a pure function from a [`State`] and a
//! transaction to the next state; each failure leaves the state as it was, with a reason, and can
//! neither decide a block nor disturb a neighbour.

pub mod ledger;
mod opaque;
mod state;

pub use opaque::Opaque;
pub use state::{State, StateUndo};

use crate::manifest::{ExecutorKind, Manifest};
use crate::primitives::Hash32;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// How a transaction came into its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// From the queue: paid for in bytes on Bitcoin.
    Forced,
    /// The block's own.
    Own,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It took effect.
    Ok,
    /// It has no effect, for this reason.
    NoOp(NoOpReason),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Ok => f.write_str("ok"),
            Outcome::NoOp(reason) => write!(f, "no-op ({})", reason.name()),
        }
    }
}

/// Why a transaction has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoOpReason {
    /// Not a transaction of this executor.
    Malformed,
    /// A forced item's declared cost exceeds what its bytes pay for.
    UnpaidCost,
    /// The sender's key is not a point of the curve.
    BadKey,
    /// The signature does not verify.
    BadSignature,
    /// Not the account's next nonce.
    BadNonce,
    /// Amount and fee exceed the balance.
    InsufficientBalance,
    /// A balance would not fit 64 bits.
    Overflow,
}

impl NoOpReason {
    /// The reason's stable name, as in vectors and JSON.
    pub fn name(self) -> &'static str {
        match self {
            NoOpReason::Malformed => "malformed",
            NoOpReason::UnpaidCost => "unpaid_cost",
            NoOpReason::BadKey => "bad_key",
            NoOpReason::BadSignature => "bad_signature",
            NoOpReason::BadNonce => "bad_nonce",
            NoOpReason::InsufficientBalance => "insufficient_balance",
            NoOpReason::Overflow => "overflow",
        }
    }
}

/// A virtual machine over a [`State`].
pub trait Executor: Send + Sync {
    /// The state before block 0.
    fn genesis(&self) -> State;

    /// What is wrong with `tx` in whatever state: a sequencer need not keep it.
    ///
    /// # Errors
    /// The reason why it never has an effect as own transaction.
    fn check_static(&self, tx: &[u8]) -> Result<(), NoOpReason>;

    /// Whose transaction `tx` is and its number among theirs, if the executor counts them: two of one sender have an
    /// effect only if the second one's number is the higher one.
    fn sender_and_nonce(&self, tx: &[u8]) -> Option<(Vec<u8>, u64)> {
        let _ = tx;
        None
    }

    /// What `tx` pays whoever puts it into a block, in satoshis, if the executor knows fees.
    fn fee_of(&self, tx: &[u8]) -> Option<u64> {
        let _ = tx;
        None
    }

    /// Whether its sender has in this state what `tx` spends: one that has not may have it later, and pays nothing now.
    fn affords(&self, state: &State, tx: &[u8]) -> bool {
        let _ = (state, tx);
        true
    }

    /// What `tx` does to the state.
    ///
    /// # Errors
    /// The reason why it does nothing; what was written until then is undone by [`execute`].
    fn run(&self, state: &mut State, tx: &[u8], route: Route) -> Result<(), NoOpReason>;

    /// The state's commitment.
    fn state_root(&self, state: &State) -> Hash32;
}

/// Executes one transaction: whole, or not at all.
pub fn execute(executor: &dyn Executor, state: &mut State, tx: &[u8], route: Route) -> Outcome {
    let savepoint = state.savepoint();
    match executor.run(state, tx, route) {
        Ok(()) => Outcome::Ok,
        Err(reason) => {
            state.roll_back(savepoint);
            Outcome::NoOp(reason)
        }
    }
}

/// Why a manifest's executor cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecutorError {
    /// The rollup goes on from another, whose state this build does not take over.
    #[error("the manifest names a predecessor, whose state this version of sortie cannot take over")]
    Predecessor,
    /// The kind is known, but this build has no code for it.
    #[error("the manifest names the evm executor, which this version of sortie does not have")]
    Evm,
}

/// The executor that a manifest names.
///
/// # Errors
/// [`ExecutorError`], if this build does not have it.
pub fn of_manifest(manifest: &Manifest) -> Result<Box<dyn Executor>, ExecutorError> {
    if manifest.predecessor.is_some() {
        return Err(ExecutorError::Predecessor);
    }
    match manifest.executor.ledger() {
        Some(parameters) => Ok(Box::new(ledger::Ledger::new(manifest.rollup_id(), parameters))),
        None if manifest.executor.kind == ExecutorKind::Opaque => Ok(Box::new(Opaque)),
        None => Err(ExecutorError::Evm),
    }
}
