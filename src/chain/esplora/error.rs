//! What can go wrong with an Esplora server.

use bitcoin::Network;
use thiserror::Error;

/// Why an Esplora server could not answer.
#[derive(Debug, Error)]
pub enum EsploraError {
    /// The URL is not one this client can use.
    #[error("the Esplora server's URL is not usable: {reason}; it looks like https://blockstream.info/api")]
    Url {
        /// What is wrong with it. Never the URL itself: it may hold a password.
        reason: String,
    },
    /// The proxy's URL is not one this client can use.
    #[error("the proxy is not usable: {reason}; it looks like socks5h://127.0.0.1:9050")]
    Proxy {
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers there, or the connection broke or ran out of time.
    #[error("cannot reach the Esplora server {server}: {reason}")]
    Unreachable {
        /// Scheme, host and port.
        server: String,
        /// The transport's words.
        reason: String,
    },
    /// It has no time for us, or is out of order.
    #[error("the Esplora server {server} is busy or out of order (HTTP {status})")]
    Busy {
        /// Scheme, host and port.
        server: String,
        /// HTTP status.
        status: u16,
    },
    /// It serves another chain.
    #[error("the Esplora server {server} is not on {expected} (its genesis block is {genesis})")]
    WrongNetwork {
        /// Scheme, host and port.
        server: String,
        /// What we were told to use.
        expected: Network,
        /// The first block of its chain.
        genesis: String,
    },
    /// It names another server.
    #[error("the Esplora server {server} redirects to another address, which is not followed")]
    Redirected {
        /// Scheme, host and port.
        server: String,
    },
    /// It does not do what was asked.
    #[error("the Esplora server {server} refused {route}: {message} (HTTP {status})")]
    Refused {
        /// Scheme, host and port.
        server: String,
        /// What was asked.
        route: String,
        /// The server's words.
        message: String,
        /// HTTP status.
        status: u16,
    },
    /// It cannot show that it is who it should be.
    #[error("no TLS with the Esplora server {server}: {reason}")]
    Tls {
        /// Scheme, host and port.
        server: String,
        /// What is wrong.
        reason: String,
    },
    /// The answer is no JSON, or only the beginning of it.
    #[error("the Esplora server {server} answered {route} with something that is no JSON")]
    Garbled {
        /// Scheme, host and port.
        server: String,
        /// What was asked.
        route: String,
    },
    /// The answer is not what this route answers.
    #[error("the Esplora server {server} answered {route} with something unexpected: {reason}")]
    Malformed {
        /// Scheme, host and port.
        server: String,
        /// What was asked.
        route: String,
        /// What was expected.
        reason: String,
    },
}

impl EsploraError {
    /// Whether the same question may be answered later without anybody mending anything.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. } | Self::Garbled { .. })
    }

    /// Whether it is worth a command's while to wait for it: what is forbidden is so for long.
    pub(crate) fn is_brief(&self) -> bool {
        self.is_temporary() && !matches!(self, Self::Busy { status: 403, .. })
    }

    /// Whether a server that has answered rightly before may do so again, as far as this error tells.
    pub(crate) fn may_pass(&self) -> bool {
        !matches!(self, Self::Url { .. } | Self::Proxy { .. } | Self::WrongNetwork { .. })
    }
}
