//! How a command ends badly: one clear line, and an exit code that a script can act on.
//!
//! Guarantees that the code follows from the typed error of the layer that failed, never from its words.

use crate::mend::Mended;
use crate::output::one_line;
use sortie::api::ClientError;
use sortie::chain::{ChainError, EsploraError};
use sortie::evidence::EvidenceError;
use sortie::follower::FollowerError;
use sortie::publish::PublishError;
use sortie::scanner::ScanError;
use sortie::wallet::WalletError;
use std::fmt;
use std::io;

/// What the process returns; 0 is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// It was tried and did not work.
    Failed = 1,
    /// Bad usage or bad input.
    Usage = 2,
    /// Bitcoin cannot be reached.
    Unreachable = 3,
    /// Refused for safety.
    Refused = 4,
    /// Somebody says so, and nothing shows it.
    Claimed = 5,
}

/// Why a command ended.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Whoever read our output has gone: the end, and nobody to tell.
    ClosedPipe,
    /// An error for people.
    Error {
        /// The exit code.
        code: Code,
        /// One line: what, where, how to mend it.
        message: String,
        /// Whether the same command may succeed later without anybody mending anything.
        temporary: bool,
        /// Whether a source that has answered rightly before may do so again.
        may_pass: bool,
    },
}

impl Failure {
    fn new(code: Code, message: impl fmt::Display) -> Self {
        Self::Error { code, message: one_line(&message), temporary: false, may_pass: false }
    }

    /// It was tried and did not work.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(Code::Failed, message)
    }

    /// Bad usage or input.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Code::Usage, message)
    }

    /// Bitcoin cannot be reached.
    pub fn unreachable(message: impl fmt::Display) -> Self {
        Self::new(Code::Unreachable, message)
    }

    /// Refused for safety.
    pub fn refused(message: impl fmt::Display) -> Self {
        Self::new(Code::Refused, message)
    }

    /// Somebody says so, and nothing shows it.
    pub fn claimed(message: impl fmt::Display) -> Self {
        Self::new(Code::Claimed, message)
    }

    /// A file that cannot be read or written: with its name.
    pub fn file(path: &std::path::Path, error: &io::Error) -> Self {
        Self::failed(format_args!("{}: {error}", path.display()))
    }

    /// Whether Bitcoin could not be reached.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Error { code: Code::Unreachable, .. })
    }

    /// Whether trying again later may help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Error { temporary: true, .. })
    }

    /// Whether a process that has worked before, with the same source, should wait for it.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Error { temporary: true, .. } | Self::Error { may_pass: true, .. })
    }

    /// The exit code; `None` if there is nobody to tell.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::ClosedPipe => None,
            Self::Error { code, .. } => Some(*code),
        }
    }

    /// Marks an error that may go away by itself.
    pub fn temporary(self) -> Self {
        self.temporary_if(true)
    }

    fn temporary_if(mut self, condition: bool) -> Self {
        if let Self::Error { temporary, .. } = &mut self {
            *temporary = condition;
        }
        self
    }

    /// What the source of Bitcoin's word says of its error.
    fn of_source(self, error: Option<&ChainError>) -> Self {
        let mut failure = self.temporary_if(error.is_some_and(ChainError::is_temporary));
        if let Self::Error { may_pass, .. } = &mut failure {
            *may_pass = error.is_some_and(ChainError::may_pass);
        }
        failure
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedPipe => f.write_str("the reader of the output has gone"),
            Self::Error { message, .. } => f.write_str(message),
        }
    }
}

fn chain_code(error: &ChainError) -> Code {
    match error {
        ChainError::Unreachable { .. }
        | ChainError::WarmingUp { .. }
        | ChainError::Busy { .. }
        | ChainError::Tls { .. }
        | ChainError::Auth { .. }
        | ChainError::Cookie { .. } => Code::Unreachable,
        ChainError::Esplora(
            EsploraError::Unreachable { .. } | EsploraError::Busy { .. } | EsploraError::Tls { .. },
        ) => Code::Unreachable,
        ChainError::Esplora(EsploraError::Url { .. } | EsploraError::Proxy { .. }) => Code::Usage,
        ChainError::Esplora(EsploraError::WrongNetwork { .. }) => Code::Refused,
        ChainError::Url { .. } | ChainError::BlockFiles { .. } => Code::Usage,
        ChainError::WrongNetwork { .. } => Code::Refused,
        _ => Code::Failed,
    }
}

/// What the source of Bitcoin's word said, where that is why.
fn source_of(error: &WalletError) -> Option<&ChainError> {
    match error {
        WalletError::Chain(error) | WalletError::Unsent { source: error, .. } => Some(error),
        _ => None,
    }
}

fn wallet_code(error: &WalletError) -> Code {
    match error {
        WalletError::Chain(error) | WalletError::Unsent { source: error, .. } => chain_code(error),
        WalletError::Missing { .. }
        | WalletError::Mnemonic
        | WalletError::Descriptor(_)
        | WalletError::WatchOnly { .. }
        | WalletError::Locked { .. }
        | WalletError::WrongPassphrase { .. }
        | WalletError::EmptyPassphrase
        | WalletError::UnknownCoin(_)
        | WalletError::Dust { .. } => Code::Usage,
        WalletError::Exists { .. }
        | WalletError::WrongNetwork { .. }
        | WalletError::JournalVersion { .. }
        | WalletError::FeeCap(_) => Code::Refused,
        _ => Code::Failed,
    }
}

impl From<ChainError> for Failure {
    fn from(error: ChainError) -> Self {
        Self::new(chain_code(&error), Mended(&error)).of_source(Some(&error))
    }
}

impl From<FollowerError> for Failure {
    fn from(error: FollowerError) -> Self {
        let code = match &error {
            FollowerError::Scan(ScanError::Chain(error)) => chain_code(error),
            FollowerError::StartNotOnChain(_)
            | FollowerError::StartTooShallow { .. }
            | FollowerError::OtherRollup { .. } => Code::Refused,
            FollowerError::Executor(_) => Code::Usage,
            _ => Code::Failed,
        };
        match &error {
            FollowerError::Scan(ScanError::Chain(source)) => Self::new(code, Mended(&error)).of_source(Some(source)),
            error => Self::new(code, Mended(error)).temporary_if(error.is_temporary()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Url(_) | ClientError::Proxy(_) | ClientError::BadRequest { .. } => Code::Usage,
            ClientError::OtherRollup { .. } => Code::Refused,
            _ => Code::Failed,
        };
        Self::new(code, Mended(&error))
    }
}

impl From<EvidenceError> for Failure {
    fn from(error: EvidenceError) -> Self {
        match error {
            EvidenceError::Follower(error) => error.into(),
            EvidenceError::Chain(error) => error.into(),
            EvidenceError::Client(error) => error.into(),
            EvidenceError::Changed => Self::failed(error).temporary(),
            EvidenceError::Genesis => Self::usage(error),
            EvidenceError::ForeignLeaf { .. } => Self::usage(format_args!("--shown: {error}")),
            error => Self::failed(Mended(&error)),
        }
    }
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        FollowerError::from(error).into()
    }
}

impl From<WalletError> for Failure {
    fn from(error: WalletError) -> Self {
        Self::new(wallet_code(&error), Mended(&error)).of_source(source_of(&error))
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let code = match &error {
            PublishError::Wallet(error) => wallet_code(error),
            PublishError::Chain(error) | PublishError::Unsent { source: error, .. } => chain_code(error),
            PublishError::FeeCap(_)
            | PublishError::NoFeeData
            | PublishError::MadEstimate { .. }
            | PublishError::MadFloor { .. } => Code::Refused,
            PublishError::BelowFloor { .. }
            | PublishError::PayloadLength { .. }
            | PublishError::NotRelayed { .. }
            | PublishError::NothingToRecover(_)
            | PublishError::AlreadyForced { .. }
            | PublishError::MayComeBack { .. }
            | PublishError::WaitsForSignatures(_)
            | PublishError::WaitsForPayment(_)
            | PublishError::RefundSettled { .. }
            | PublishError::ForeignPsbt(_)
            | PublishError::NoJob(_) => Code::Usage,
            _ => Code::Failed,
        };
        let source = match &error {
            PublishError::Chain(error) | PublishError::Unsent { source: error, .. } => Some(error),
            PublishError::Wallet(error) => source_of(error),
            _ => None,
        };
        Self::new(code, Mended(&error)).of_source(source)
    }
}

/// The regtest harness speaks in prose only.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format_args!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn code(failure: impl Into<Failure>) -> Code {
        failure.into().code().expect("an error was made")
    }

    #[test]
    fn exit_codes_follow_from_the_typed_error() {
        let unreachable = || ChainError::Unreachable { url: "u".into(), reason: "r".into() };
        let wrong = || ChainError::WrongNetwork { expected: bitcoin::Network::Signet, got: "main".into() };
        assert_eq!(code(unreachable()), Code::Unreachable);
        assert_eq!(code(FollowerError::from(unreachable())), Code::Unreachable);
        assert_eq!(code(WalletError::from(unreachable())), Code::Unreachable);
        assert_eq!(code(PublishError::from(unreachable())), Code::Unreachable);
        assert_eq!(code(FollowerError::from(wrong())), Code::Refused);
        assert_eq!(code(WalletError::from(wrong())), Code::Refused);
        assert_eq!(code(FollowerError::StartTooShallow { depth: 7 }), Code::Refused);
        assert_eq!(code(WalletError::Missing { dir: PathBuf::new() }), Code::Usage);
        assert_eq!(code(PublishError::NoFeeData), Code::Refused);
    }

    #[test]
    fn an_error_has_one_line() {
        assert_eq!(Failure::usage("line 1\n  line 2\n").to_string(), "line 1 line 2");
    }
}
