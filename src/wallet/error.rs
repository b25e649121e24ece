//! Why the wallet could not do it.

use super::{BadDescriptor, FeeCap, Shortfall};
use crate::chain::ChainError;
use crate::database::is_full;
use crate::primitives::BlockRef;
use bitcoin::{Amount, Network, OutPoint, Txid};
use std::fmt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why the wallet could not do it.
#[derive(Debug, Error)]
pub enum WalletError {
    /// There is none.
    #[error("there is no wallet in {}", dir.display())]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// There is one already.
    #[error("there is a wallet in {} already; nothing was changed", dir.display())]
    Exists {
        /// Where it is.
        dir: PathBuf,
    },
    /// Another process has it open.
    #[error("the wallet in {} is in use by another process; stop that one first", dir.display())]
    InUse {
        /// Where it is.
        dir: PathBuf,
    },
    /// It belongs to another network.
    #[error("this wallet is for {got}, but {expected} is wanted")]
    WrongNetwork {
        /// What we were told to use.
        expected: Network,
        /// What the wallet is for.
        got: Network,
    },
    /// A file of the wallet could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Seed and database do not fit together, or one of them is damaged.
    #[error("the wallet in {} is damaged ({what})", dir.display())]
    Damaged {
        /// Where it is.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The words are not a BIP39 mnemonic. They are not repeated here.
    #[error("these words are not a BIP39 mnemonic in English; check their spelling, number and order")]
    Mnemonic,
    /// A descriptor is not taken.
    #[error("this descriptor cannot be used: {0}")]
    Descriptor(#[from] BadDescriptor),
    /// The keys of the wallet's coins are elsewhere.
    #[error("the wallet in {} watches coins whose keys are elsewhere", dir.display())]
    WatchOnly {
        /// Where it is.
        dir: PathBuf,
    },
    /// The seed file is encrypted, and nobody gave its passphrase.
    #[error("the wallet in {} is locked", dir.display())]
    Locked {
        /// Where it is.
        dir: PathBuf,
    },
    /// The seed file does not open with this passphrase.
    #[error("this passphrase does not open the wallet in {}; nothing was changed", dir.display())]
    WrongPassphrase {
        /// Where it is.
        dir: PathBuf,
    },
    /// An empty passphrase protects nothing.
    #[error("the passphrase is empty; nothing was changed")]
    EmptyPassphrase,
    /// The seed file could not be encrypted.
    #[error("the seed file could not be encrypted; nothing was changed")]
    NotEncrypted,
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness; no wallet was made")]
    NoRandomness,
    /// SQLite failed.
    #[error("the wallet's database: {_0}{}", if is_full(_0) { "; make room on its disk" } else { "" })]
    Database(#[from] rusqlite::Error),
    /// The journal was written by another version of this program.
    #[error(
        "the journal in {} is of version {found}, and this program keeps version {expected}; finish its jobs with the program that wrote it, then restore the wallet from its words into another folder", dir.display()
    )]
    JournalVersion {
        /// Where it is.
        dir: PathBuf,
        /// The file's.
        found: i64,
        /// Ours.
        expected: i64,
    },
    /// The journal cannot be used as it stands.
    #[error("the wallet's journal: {0}; nothing was sent")]
    Journal(String),
    /// A key could not be derived.
    #[error("cannot derive a key: {0}")]
    Key(#[from] bitcoin::bip32::Error),
    /// A transaction could not be signed.
    #[error("cannot sign: {0}")]
    Sign(String),
    /// The node could not answer.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A block does not connect to what the wallet knows.
    #[error("block {0} does not connect to the wallet's chain; run the command again")]
    Disconnected(BlockRef),
    /// Too few coins.
    #[error(transparent)]
    Funds(#[from] Shortfall),
    /// Too few coins, since some are spent already.
    #[error(
        "not enough coins: {} sat needed, {} sat spendable; {} sat more are spent by transactions that are not in this journal (does another copy of this wallet run?)", shortfall.needed.to_sat(), shortfall.available.to_sat(), spent.to_sat()
    )]
    SpentElsewhere {
        /// What is missing.
        shortfall: Shortfall,
        /// What the wallet held besides.
        spent: Amount,
    },
    /// Too high a fee.
    #[error(transparent)]
    FeeCap(#[from] FeeCap),
    /// This outpoint is no spendable coin of the wallet.
    #[error("{0} is not a spendable coin of this wallet; sync first, or choose another")]
    UnknownCoin(OutPoint),
    /// The amount is below what nodes relay.
    #[error("{} sat is below the dust limit of {} sat for that address", amount.to_sat(), limit.to_sat())]
    Dust {
        /// What was to be sent.
        amount: Amount,
        /// The least that can be.
        limit: Amount,
    },
    /// The node's answer to a payment was lost.
    #[error("payment {txid} is signed and written down, but the node did not answer: {source}")]
    Unsent {
        /// The payment.
        txid: Txid,
        /// What happened.
        source: ChainError,
    },
    /// The node refused the transaction; nothing left.
    #[error("the node refused transaction {txid}: {reason}; nothing was sent")]
    Refused {
        /// Which.
        txid: Txid,
        /// The node's words.
        reason: String,
    },
}

/// Whether a node refuses a transaction because too much that is not mined yet hangs together with it.
pub fn is_crowded(reason: &str) -> bool {
    ["too-large-cluster", "too-long-mempool-chain", "package-mempool-limits"].iter().any(|words| reason.contains(words))
}

pub(super) fn damaged(dir: &Path, what: impl fmt::Display) -> WalletError {
    WalletError::Damaged { dir: dir.to_owned(), what: what.to_string() }
}
