//! Bitcoin as the rest of Sortie sees it: three traits and the errors a Bitcoin node can give.
//!
//! Guarantees that every failure says what went wrong, where, and how to mend it, and never carries a
//! password or a cookie. Trusts the node for the chain it shows; what a block *means* is decided
//! elsewhere, from its raw bytes.

mod blk_files;
mod bounded;
mod esplora;
mod http;
mod mempool;
mod rest;
mod rpc;
mod url;

pub use blk_files::BlkFiles;
pub use esplora::{Esplora, EsploraError, Proxy};
pub use http::{Authorities, Transport};
#[cfg(feature = "wallet")]
pub(crate) use mempool::adds_up;
pub use rest::RestNode;
pub use rpc::{Credentials, NodeInfo, RpcNode, Utxo};
pub use url::{ServerUrl, UrlError};

use crate::primitives::{BlockRef, BtcHeight};
use bitcoin::block::Header;
use bitcoin::{Amount, BlockHash, FeeRate, Network, OutPoint, Transaction, TxOut, Txid};
use std::time::Duration;
use thiserror::Error;

/// Where the chain comes from: what scanning and following need.
pub trait BlockSource: Sync {
    /// The best block.
    fn tip(&self) -> Result<BlockRef, ChainError>;

    /// The hash of the best chain's block at `height`; `None` above the tip.
    fn block_hash(&self, height: BtcHeight) -> Result<Option<BlockHash>, ChainError>;

    /// A block's header, on any branch.
    fn header(&self, hash: &BlockHash) -> Result<Header, ChainError>;

    /// Headers of the best chain from `first` on, each the child of the one before: at most `count`, fewer if
    /// the tip comes first.
    fn headers(&self, first: BtcHeight, count: u32) -> Result<Vec<Header>, ChainError> {
        let mut headers: Vec<Header> = Vec::new();
        let mut parent = None;
        for height in first..first.saturating_add(count) {
            let Some(hash) = self.block_hash(height)? else { break };
            let header = self.header(&hash)?;
            // The chain may change between two calls.
            if parent.is_some_and(|parent| parent != header.prev_blockhash) {
                break;
            }
            headers.push(header);
            parent = Some(hash);
        }
        Ok(headers)
    }

    /// A block's consensus serialisation, on any branch.
    ///
    /// # Errors
    /// [`ChainError::Pruned`] if the node deleted it, [`ChainError::NotFound`] if it never had it.
    fn block(&self, hash: &BlockHash) -> Result<Vec<u8>, ChainError>;

    /// As [`block`](Self::block), in place of whatever `raw` holds: for those who read many.
    fn read_block(&self, hash: &BlockHash, raw: &mut Vec<u8>) -> Result<(), ChainError> {
        *raw = self.block(hash)?;
        Ok(())
    }

    /// How many blocks are best asked for at a time.
    fn lanes(&self) -> usize {
        1
    }

    /// Whether whoever reads from it runs it as well, and so believes that it leaves nothing out of a block.
    fn is_own(&self) -> bool {
        false
    }

    /// Returns the tip as soon as it is not `current`, or the unchanged tip after `timeout`.
    fn wait_for_tip(&self, current: &BlockHash, timeout: Duration) -> Result<BlockRef, ChainError>;
}

/// A faster way to the bytes of blocks that a [`BlockSource`] names: from the user's own node, too.
pub trait BlockReader: Send + Sync {
    /// What it is and where, for people.
    fn name(&self) -> String;

    /// How many blocks are best asked for at a time.
    fn lanes(&self) -> usize;

    /// Puts a block's consensus serialisation in place of whatever `raw` holds.
    ///
    /// # Errors
    /// [`ChainError::NotFound`] if another source may have the block and nothing is wrong with this one.
    fn read_block(&self, hash: &BlockHash, raw: &mut Vec<u8>) -> Result<(), ChainError>;

    /// Headers of the best chain from this block on, its own first, at most `count`; none if it is not in that chain.
    ///
    /// # Errors
    /// [`ChainError::NotFound`] if it serves no headers, as most do not.
    fn headers_from(&self, hash: &BlockHash, count: u32) -> Result<Vec<Header>, ChainError> {
        let _ = count;
        Err(ChainError::NotFound(format!("headers from {hash} on")))
    }
}

/// Where transactions go: what the wallet and the publisher need of a node.
pub trait Mempool {
    /// The node's policy, as far as it decides how transactions are built.
    fn relay(&self) -> Result<RelayFacts, ChainError>;

    /// Asks whether `package` (parents before children) would be accepted; nothing leaves the node.
    ///
    /// `max_fee_rate` is the highest rate any one of the transactions may pay.
    fn test_accept(&self, package: &[Transaction], max_fee_rate: FeeRate) -> Result<Vec<Verdict>, ChainError>;

    /// Broadcasts one transaction, or several as a package (parents before the one child).
    ///
    /// The answer has one verdict for each transaction, in order. No output may burn coins.
    fn submit(&self, package: &[Transaction], max_fee_rate: FeeRate) -> Result<Vec<Verdict>, ChainError>;

    /// What the transaction, and whatever hangs together with it, pays in the mempool now, if it is there.
    fn entry(&self, txid: &Txid) -> Result<Option<MempoolEntry>, ChainError>;

    /// Whether the transaction is in the mempool now.
    fn is_waiting(&self, txid: &Txid) -> Result<bool, ChainError> {
        Ok(self.entry(txid)?.is_some())
    }

    /// A transaction of the mempool (or of the chain, if the node keeps a transaction index).
    fn transaction(&self, txid: &Txid) -> Result<Option<Transaction>, ChainError>;

    /// An unspent output, the mempool's included, with its confirmations (0 in the mempool).
    fn unspent(&self, outpoint: &OutPoint) -> Result<Option<(TxOut, u32)>, ChainError>;

    /// Those of `outpoints` that cannot be spent any more, or never could: a transaction spends them, which may be in
    /// the mempool, or nobody knows them.
    fn missing(&self, outpoints: &[OutPoint]) -> Result<Vec<OutPoint>, ChainError> {
        let mut missing = Vec::new();
        for outpoint in outpoints {
            if self.unspent(outpoint)?.is_none() {
                missing.push(*outpoint);
            }
        }
        Ok(missing)
    }

    /// The node's estimate for confirmation within `target_blocks`; `None` without enough data.
    fn estimate(&self, target_blocks: u16) -> Result<Option<FeeRate>, ChainError>;

    /// What one of the last blocks paid, the highest of them, rounded up to a whole sat/vB: nine tenths of it at most,
    /// or on average where only that can be known; `None` if they are empty, or where it cannot be known.
    fn recently_paid(&self) -> Result<Option<FeeRate>, ChainError> {
        Ok(None)
    }

    /// Whether it is a node of one's own, whose estimate is taken without asking anybody else.
    fn is_own_node(&self) -> bool {
        true
    }

    /// What to call it where several are asked.
    fn name(&self) -> &str {
        "bitcoind"
    }
}

/// What a node relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayFacts {
    /// Bitcoin Core's version number, such as 310000; 0 if it is not known.
    pub version: u32,
    /// The lowest rate that enters the mempool now, rounded up.
    pub floor: FeeRate,
    /// What a replacement pays more than what it replaces, for its own size.
    pub incremental: FeeRate,
    /// Whether a parent below its peers' floor travels with its child (Core 28 and later).
    pub packages: bool,
    /// Bytes of OP_RETURN output scripts in one transaction, if it says (Core 30 and later): 0 if it relays none.
    pub data_carrier: Option<u32>,
}

/// A mempool entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolEntry {
    /// Virtual size, in vbytes.
    pub vsize: u64,
    /// The transaction's own fee.
    pub fee: Amount,
    /// Virtual size of it and everything unconfirmed that it hangs on.
    pub ancestors_vsize: u64,
    /// Fee of the same.
    pub ancestors_fee: Amount,
    /// Fee of it and everything unconfirmed that hangs on it: what its replacement has to exceed.
    pub descendants_fee: Amount,
}

/// The node's answer about one transaction of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which transaction.
    pub txid: Txid,
    /// What the node said.
    pub answer: Answer,
}

/// Accepted, known already, not tested, or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Accepted.
    Accepted,
    /// It cannot be tested there, or was not; only sending it will tell.
    Untested,
    /// In the mempool or in the chain before we asked: as good as accepted.
    Known,
    /// Refused, with the node's words.
    Refused(String),
}

impl Answer {
    /// Whether the node has the transaction, or would take it as far as can be told.
    pub fn is_ok(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// The first refusal among verdicts, with the node's words.
#[cfg(feature = "wallet")]
pub(crate) fn refusal(verdicts: Vec<Verdict>) -> Option<(Txid, String)> {
    verdicts.into_iter().find_map(|verdict| match verdict.answer {
        Answer::Refused(reason) => Some((verdict.txid, reason)),
        _ => None,
    })
}

/// Whether a node refuses a transaction because what it spends is not there, or not any more.
#[cfg(feature = "wallet")]
pub(crate) fn lacks_inputs(words: &str) -> bool {
    ["missing-inputs", "missingorspent", "Missing inputs"].iter().any(|known| words.contains(known))
}

/// Why a node could not answer.
#[derive(Debug, Error)]
pub enum ChainError {
    /// Nobody listens there, or the connection broke or ran out of time.
    #[error("cannot reach bitcoind at {url}: {reason}")]
    Unreachable {
        /// Address without credentials.
        url: String,
        /// The transport's words.
        reason: String,
    },
    /// The URL is not one this client can use.
    #[error("the Bitcoin node's URL is not usable: {reason}; it looks like http://127.0.0.1:8332")]
    Url {
        /// What is wrong with it. Never the URL itself: it may hold a password.
        reason: UrlError,
    },
    /// The node, or what stands in front of it, cannot show that it is who it should be.
    #[error("no TLS with bitcoind at {url}: {reason}")]
    Tls {
        /// Address without credentials.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The node is loading its block index.
    #[error("bitcoind at {url} is still starting ({message}); try again in a moment")]
    WarmingUp {
        /// Address without credentials.
        url: String,
        /// What it is doing.
        message: String,
    },
    /// The node's work queue is full.
    #[error("bitcoind at {url} is busy; try again, or raise -rpcworkqueue")]
    Busy {
        /// Address without credentials.
        url: String,
    },
    /// Wrong or missing credentials.
    #[error("bitcoind at {url} refused our credentials")]
    Auth {
        /// Address without credentials.
        url: String,
    },
    /// The cookie file cannot be read.
    #[error("cannot read bitcoind's cookie file {path}: {reason}")]
    Cookie {
        /// The file.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// The node is on another network.
    #[error("bitcoind is on {got}, but {expected} is wanted")]
    WrongNetwork {
        /// What we were told to use.
        expected: Network,
        /// What the node runs.
        got: String,
    },
    /// The node deleted this block.
    #[error("block {height} is pruned on this node (it keeps blocks from {first_available})")]
    Pruned {
        /// The block asked for.
        height: BtcHeight,
        /// Lowest height whose block is on disk.
        first_available: BtcHeight,
    },
    /// The node knows this block's header, and does not have the block yet.
    #[error(
        "block {height} is not on this node yet{}; wait until it is, or use a node that has it",
        snapshot.map_or(String::new(), |at| format!(" (it began with a UTXO snapshot, and has all blocks from {})", at + 1))
    )]
    NotDownloaded {
        /// The block asked for.
        height: BtcHeight,
        /// The height of the UTXO snapshot (assumeutxo) that the node began with.
        snapshot: Option<BtcHeight>,
    },
    /// The chain ends below what was seen of it before.
    #[error(
        "this node (or server) is behind: its chain ends at block {tip}, and the wallet has seen block {known}; wait until it has caught up, or use another; nothing was changed"
    )]
    Behind {
        /// The height of its tip.
        tip: BtcHeight,
        /// The height that was seen before.
        known: BtcHeight,
    },
    /// The node does not know it.
    #[error("the node does not know {0}")]
    NotFound(String),
    /// An Esplora server could not answer.
    #[error(transparent)]
    Esplora(#[from] EsploraError),
    /// The node was started without its REST interface.
    #[error("bitcoind at {url} does not serve REST")]
    RestDisabled {
        /// Address without credentials.
        url: String,
    },
    /// The block files cannot be used.
    #[error("{path}: {reason}")]
    BlockFiles {
        /// The file or folder.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP server there does not let us call a method, or knows no JSON-RPC.
    #[error("bitcoind at {url} did not serve {method} (HTTP status {status})")]
    NotServed {
        /// Address without credentials.
        url: String,
        /// RPC method.
        method: String,
        /// HTTP status.
        status: u16,
    },
    /// Any other error that the node returned.
    #[error("bitcoind refused {method}: {message} (code {code})")]
    Rpc {
        /// RPC method.
        method: String,
        /// Bitcoin Core's error code.
        code: i32,
        /// Bitcoin Core's message.
        message: String,
    },
    /// The answer is no JSON, or only the beginning of it: of a server between us and bitcoind, or of one that is
    /// being stopped.
    #[error("bitcoind at {url} answered {method} with something that is no JSON")]
    Garbled {
        /// Address without credentials.
        url: String,
        /// RPC method.
        method: String,
    },
    /// The answer is not what this method answers.
    #[error("bitcoind answered {method} with something unexpected: {reason}")]
    Malformed {
        /// RPC method.
        method: String,
        /// What was expected.
        reason: String,
    },
}

impl ChainError {
    /// Whether the same question may be answered later without anybody mending anything.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::NotDownloaded { .. } | Self::Behind { .. } => true,
            Self::Esplora(error) => error.is_temporary(),
            error => error.is_brief(),
        }
    }

    /// Whether it is worth a command's while to wait for it: what is temporary, but for what takes hours.
    pub(crate) fn is_brief(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::WarmingUp { .. }
            | Self::Busy { .. }
            | Self::Garbled { .. }
            | Self::Cookie { .. } => true,
            Self::Esplora(error) => error.is_brief(),
            _ => false,
        }
    }

    /// Whether a source that has answered rightly before may do so again, as far as this error tells: what is in front
    /// of it may answer in its place for a moment, be it with a refusal.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Auth { .. }
            | Self::Tls { .. }
            | Self::NotServed { .. }
            | Self::Rpc { .. }
            | Self::Malformed { .. }
            | Self::NotFound(_) => true,
            Self::Esplora(error) => error.may_pass(),
            error => error.is_temporary(),
        }
    }
}

/// Whether a URL with or without a scheme names this machine: what is sent there does not leave it.
///
/// In doubt it does not.
pub fn is_loopback(url: &str) -> bool {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    url.parse::<ServerUrl>().is_ok_and(|url| url.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_this_machine_and_nothing_that_looks_like_it() {
        for url in ["127.0.0.1:8332", "http://localhost/api", "https://[::1]:3000", "http://127.8.9.1", "LOCALHOST:1"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "http://127.0.0.1.example.com/",
            "http://localhost.example.com",
            "http://127.0.0.1@example.com",
            "http://127.0.0.1:80@example.com",
            "http://10.0.0.1",
            "http://example.com/127.0.0.1",
            "",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
