//! What a person can do about an error of the library, in the words of this command line.
//!
//! Guarantees that advice follows from an error's variant, never from its words: the library knows no option and no
//! command.

use sortie::api::ClientError;
use sortie::chain::{ChainError, EsploraError};
use sortie::evidence::EvidenceError;
use sortie::follower::FollowerError;
use sortie::publish::PublishError;
use sortie::scanner::ScanError;
use sortie::sequencer::SequencerError;
use sortie::wallet::{WalletError, is_crowded};
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
    fn advice(&self) -> String;
}

impl Mend for ChainError {
    fn advice(&self) -> String {
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
            Self::Esplora(error) => return error.advice(),
            _ => "",
        }
        .into()
    }
}

impl Mend for EsploraError {
    fn advice(&self) -> String {
        match self {
            Self::Unreachable { .. } => "; try again, or set --esplora-url to another",
            Self::Busy { .. } => "; try again in a moment, or set --esplora-url to another",
            Self::WrongNetwork { .. } => "; set --network, or --esplora-url to another",
            Self::Redirected { .. } => "; set --esplora-url to that one",
            Self::Tls { .. } | Self::Malformed { .. } => "; set --esplora-url to another",
            Self::Garbled { .. } => "; is the path of --esplora-url right?",
            Self::Url { .. } | Self::Proxy { .. } | Self::Refused { .. } => "",
        }
        .into()
    }
}

/// All that a follower's file held is on Bitcoin.
macro_rules! rebuild {
    () => {
        "; derive it anew with `sortie follow --rebuild`, a sequencer's with `sortie sequencer --rebuild`"
    };
}

impl Mend for FollowerError {
    fn advice(&self) -> String {
        match self {
            Self::Scan(ScanError::Chain(error)) => return error.advice(),
            Self::OtherRollup { .. } => "; use another --data-dir",
            Self::StartNotOnChain(_) => "; check --network and the manifest",
            Self::ReorgTooDeep { .. } => concat!(" (--max-reorg-depth)", rebuild!()),
            error if error.needs_rebuild() => rebuild!(),
            _ => "",
        }
        .into()
    }
}

const CROWDED: &str = "; too much that is not mined yet hangs together with it: once a block has taken the transactions before it, try again; if they pay too little to be taken soon, bump those first (`sortie jobs`), or pay the wallet another coin (`sortie wallet address`) and let it confirm";

impl Mend for WalletError {
    fn advice(&self) -> String {
        match self {
            Self::Chain(error) => return error.advice(),
            Self::Unsent { source, .. } => {
                let source = source.advice();
                return format!("{source}; run the same command again, or `sortie resume`: neither pays twice");
            }
            Self::Missing { .. } => "; make one with `sortie wallet create` or `restore`",
            Self::WrongNetwork { .. } => "; choose another folder or set --network",
            Self::Damaged { .. } => {
                "; keep that folder, for its journal has what unrevealed commits need beside the words; restore the wallet from its words into another folder, then `sortie recover`"
            }
            Self::WatchOnly { .. } => {
                ": payments are made there, `sortie force --psbt FILE` writes what is to be signed there, and what waits too long is helped by spending its change there"
            }
            Self::Locked { .. } => {
                "; run it on a terminal to be asked for the passphrase, or give --passphrase-file FILE"
            }
            Self::SpentElsewhere { .. } => {
                ": wait until they are mined, or pay the wallet (sortie wallet address)"
            }
            Self::Refused { reason, .. } if is_crowded(reason) => CROWDED,
            _ => "",
        }
        .into()
    }
}

impl Mend for PublishError {
    fn advice(&self) -> String {
        match self {
            Self::Chain(error) => error.advice(),
            Self::Unsent { source, .. } => {
                let source = source.advice();
                format!("{source}; run `sortie resume` or the same command again: neither pays twice")
            }
            Self::Wallet(error) => error.advice(),
            Self::Refused { reason, .. } | Self::Stuck { reason, .. } if is_crowded(reason) => CROWDED.into(),
            _ => String::new(),
        }
    }
}

impl Mend for SequencerError {
    fn advice(&self) -> String {
        match self {
            Self::NotInSet(_) => "; give --key the file of a key that is",
            Self::NoTimeToPost { .. } => "; lower --confirmations",
            _ => "",
        }
        .into()
    }
}

impl Mend for ClientError {
    fn advice(&self) -> String {
        match self {
            Self::Url(_) => "; it looks like http://127.0.0.1:8645",
            Self::Unreachable { .. } => "; without it, use `sortie force`",
            Self::Denied { .. } => "; it cannot stop `sortie force`",
            _ => "",
        }
        .into()
    }
}

impl Mend for EvidenceError {
    fn advice(&self) -> String {
        match self {
            Self::Follower(error) => error.advice(),
            Self::Chain(error) => error.advice(),
            Self::Client(error) => error.advice(),
            Self::OtherQueue(number) | Self::ClaimedQueue(number) => format!("; see `sortie prove censored {number}`"),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn a_line_is_the_fact_and_then_the_advice_of_the_cause_and_of_what_failed() {
        let dead = || ChainError::Unreachable { url: "http://node".into(), reason: "connection refused".into() };
        let told = "cannot reach bitcoind at http://node: connection refused; start it or set --bitcoin-url";
        assert_eq!(Failure::from(dead()).to_string(), told);
        assert_eq!(Failure::from(FollowerError::from(dead())).to_string(), told);
        let unsent = PublishError::Unsent { job: sortie::publish::JobId(1), source: dead() };
        assert_eq!(
            Failure::from(unsent).to_string(),
            format!(
                "job 1 is signed and written down, but the node did not answer: {told}; run `sortie resume` or the same command again: neither pays twice"
            )
        );
        let crowded =
            WalletError::Refused { txid: "00".repeat(32).parse().expect("an id"), reason: "too-large-cluster".into() };
        assert!(crowded.advice().contains("once a block has taken the transactions before it"));
        let deep = FollowerError::ReorgTooDeep { height: 7 };
        assert_eq!(
            Mended(&deep).to_string(),
            "Bitcoin reorganised below height 7, deeper than what was kept to take back (--max-reorg-depth); derive it anew with `sortie follow --rebuild`, a sequencer's with `sortie sequencer --rebuild`"
        );
        assert_eq!(Mended(&ChainError::NotFound("me".into())).to_string(), "the node does not know me");
    }
}
