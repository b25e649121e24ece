//! What a person can do about an error of the library, in the words of this command line.
//!
//! Guarantees that advice follows from an error's variant, never from its words: the library knows no option and no
//! command.

use sortie::chain::{ChainError, EsploraError};
use sortie::follower::FollowerError;
use sortie::publish::PublishError;
use sortie::scanner::ScanError;
use sortie::wallet::WalletError;
use std::fmt;

/// An error's own line, and advice behind it.
#[derive(Debug)]
pub struct Mended<'a, E>(pub &'a E);

impl<E: Mend + fmt::Display> fmt::Display for Mended<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, self.0.advice())
    }
}

/// An error that may be mended.
pub trait Mend {
    /// What to append to the error's line; empty if there is nothing to advise.
    fn advice(&self) -> &'static str;
}

impl Mend for ChainError {
    fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "; start it or set --bitcoin-url",
            Self::Tls { .. } => {
                "; name the authority that signed its certificate (--bitcoin-ca), or use a tunnel to the node and http:// on this machine"
            }
            Self::Auth { .. } => "; set the cookie file or --bitcoin-user and its password",
            Self::Cookie { .. } => "; start bitcoind, name its cookie file (--bitcoin-cookie), or a --bitcoin-user",
            Self::WrongNetwork { .. } => "; set --network or point --bitcoin-url at another node",
            Self::Pruned { .. } => {
                "; use a node that has it or an Esplora server (--esplora-url), or raise -prune and reindex"
            }
            Self::RestDisabled { .. } => "; start it with -rest, or use --source rpc",
            Self::BlockFiles { .. } => "; --blocks-dir is the folder with blk00000.dat of a node on this network",
            Self::NotServed { status: 403, .. } => "; -rpcallowip or -rpcwhitelist forbids it",
            Self::NotServed { .. } => "; is --bitcoin-url bitcoind's own address, without a path?",
            Self::Garbled { .. } => "; is --bitcoin-url its own address, without a path?",
            Self::Esplora(error) => error.advice(),
            _ => "",
        }
    }
}

impl Mend for EsploraError {
    fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "; try again, or set --esplora-url to another",
            Self::Busy { .. } => "; try again in a moment, or set --esplora-url to another",
            Self::WrongNetwork { .. } => "; set --network, or --esplora-url to another",
            Self::Redirected { .. } => "; set --esplora-url to that one",
            Self::Tls { .. } | Self::Malformed { .. } => "; set --esplora-url to another",
            Self::Garbled { .. } => "; is the path of --esplora-url right?",
            Self::Url { .. } | Self::Proxy { .. } | Self::Refused { .. } => "",
        }
    }
}

/// All that a follower's file held is on Bitcoin.
macro_rules! rebuild {
    () => {
        "; derive it anew with `sortie follow --rebuild`, a sequencer's with `sortie sequencer --rebuild`"
    };
}

impl Mend for FollowerError {
    fn advice(&self) -> &'static str {
        match self {
            Self::Scan(ScanError::Chain(error)) => error.advice(),
            Self::OtherRollup { .. } => "; use another --data-dir",
            Self::StartNotOnChain(_) => "; check --network and the manifest",
            Self::ReorgTooDeep { .. } => concat!(" (--max-reorg-depth)", rebuild!()),
            error if error.needs_rebuild() => rebuild!(),
            _ => "",
        }
    }
}

impl Mend for WalletError {
    fn advice(&self) -> &'static str {
        match self {
            Self::Chain(error) | Self::Unsent { source: error, .. } => error.advice(),
            _ => "",
        }
    }
}

impl Mend for PublishError {
    fn advice(&self) -> &'static str {
        match self {
            Self::Chain(error) | Self::Unsent { source: error, .. } => error.advice(),
            Self::Wallet(error) => error.advice(),
            _ => "",
        }
    }
}
