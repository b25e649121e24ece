//! [`ServerUrl`]: the address of a server, read once and the same way for all of them.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use thiserror::Error;

/// The URL of a server over HTTP, with or without TLS, and with nothing in it that must not be printed but its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    is_tls: bool,
    /// In lower case, without brackets.
    host: String,
    /// Host and port, as they stand in a URL.
    authority: String,
    /// Without a slash at its end.
    path: String,
}

/// Why a URL cannot be used. None of these repeats the URL: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UrlError {
    /// `127.0.0.1:8332`
    #[error("its scheme is missing")]
    NoScheme,
    /// `ftp://host`
    #[error("its scheme is neither https nor http")]
    OtherScheme,
    /// `http://user:password@host`
    #[error("it holds credentials; pass the user and the password on their own")]
    Credentials,
    /// `http://`
    #[error("it names no host")]
    NoHost,
    /// `http://::1`
    #[error("its host is no name or address (an IPv6 address goes in brackets: http://[::1]:8332)")]
    Host,
    /// `http://host:port`
    #[error("its port is no number from 1 to 65535")]
    Port,
    /// `http://host/?a=b`
    #[error("it has a query, a fragment or white space")]
    Extra,
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = url.trim().split_once("://").ok_or(UrlError::NoScheme)?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(UrlError::OtherScheme),
        };
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(UrlError::Credentials);
        }
        if path.contains(['?', '#', '\\']) || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(UrlError::Extra);
        }
        let (host, port) = split_authority(authority)?;
        let host = host.to_ascii_lowercase();
        if !port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(UrlError::Port);
        }
        let authority = authority.to_ascii_lowercase();
        Ok(Self { is_tls, host, authority, path: path.trim_end_matches('/').to_owned() })
    }
}

/// Host, without the brackets of an IPv6 address, and port.
fn split_authority(authority: &str) -> Result<(&str, Option<&str>), UrlError> {
    if let Some(inside) = authority.strip_prefix('[') {
        let (host, port) = inside.split_once(']').ok_or(UrlError::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| UrlError::Host)?;
        return match port.strip_prefix(':') {
            None if port.is_empty() => Ok((host, None)),
            None => Err(UrlError::Host),
            port => Ok((host, port)),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match host {
        host if !host.chars().all(is_plain) || port.is_some_and(|port| port.contains(':')) => Err(UrlError::Host),
        "" => Err(UrlError::NoHost),
        host => Ok((host, port)),
    }
}

impl ServerUrl {
    /// Scheme, host and port, for people: the path of a private server may be a secret.
    pub fn server(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    /// What paths are appended to.
    pub fn base(&self) -> String {
        self.server() + &self.path
    }

    /// Whether it is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether it is this machine: what is sent there does not leave it. In doubt it is not.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_whatever_its_case_and_slashes() {
        for (url, base, is_loopback) in [
            ("HTTP://127.0.0.1:8332/", "http://127.0.0.1:8332", true),
            ("https://Blockstream.Info/Api//", "https://blockstream.info/Api", false),
            (" http://[::1]:8332", "http://[::1]:8332", true),
            ("Https://[2001:db8::1]/a@b", "https://[2001:db8::1]/a@b", false),
            ("http://LOCALHOST", "http://localhost", true),
            ("http://127.0.0.1.example.com", "http://127.0.0.1.example.com", false),
        ] {
            let read: ServerUrl = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((read.base().as_str(), read.is_loopback()), (base, is_loopback), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_told_without_repeating_it() {
        for (url, error) in [
            ("127.0.0.1:8332", UrlError::NoScheme),
            ("hunter2:hunter2@host", UrlError::NoScheme),
            ("ftp://host", UrlError::OtherScheme),
            ("http://u:hunter2@host:8332", UrlError::Credentials),
            ("http://127.0.0.1:80@example.com", UrlError::Credentials),
            ("http://", UrlError::NoHost),
            ("http:///path", UrlError::NoHost),
            ("http://:8332", UrlError::NoHost),
            ("http://::1", UrlError::Host),
            ("http://[::1", UrlError::Host),
            ("http://[::1]8332", UrlError::Host),
            ("http://[1.2.3.4]", UrlError::Host),
            ("http://ho st", UrlError::Extra),
            ("http://host:port", UrlError::Port),
            ("http://host:0", UrlError::Port),
            ("http://host:70000", UrlError::Port),
            ("http://host:8332/?password=hunter2", UrlError::Extra),
            ("http://host\\hunter2", UrlError::Extra),
        ] {
            assert_eq!(url.parse::<ServerUrl>(), Err(error), "{url}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
