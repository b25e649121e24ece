//! Secrets: what is not repeated, and files that are not for everybody.

use std::borrow::Cow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Whether every user of the machine can read a file.
pub fn is_public(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
}

/// A text whose URLs have lost their user names and passwords: `http://***@host`.
pub fn without_logins(text: &str) -> Cow<'_, str> {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || "/?#'\"`".contains(c)).unwrap_or(part.len());
        let host = part[..end].rfind('@').map_or("", |_| "***");
        let rest = part[..end].rfind('@').map_or(part, |at| &part[at..]);
        shown.extend(["://", host, rest]);
    }
    if shown == text { Cow::Borrowed(text) } else { Cow::Owned(shown) }
}

/// A server without what may be its password: scheme, host and port.
pub fn server(url: &str) -> String {
    let url = without_logins(url);
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    url[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_login_is_repeated() {
        for (text, shown) in [
            ("invalid value 'socks5h://u:hunter2@h:1' for", "invalid value 'socks5h://***@h:1' for"),
            ("http://u:p@ss@h/a@b, then https://x:y@z", "http://***@h/a@b, then https://***@z"),
            ("at http://127.0.0.1:8332/wallet: mail me@home", "at http://127.0.0.1:8332/wallet: mail me@home"),
            ("no address :// @", "no address :// @"),
        ] {
            assert_eq!(without_logins(text), shown);
        }
        assert_eq!(server("https://u:p@host:1/key"), "https://***@host:1");
        assert_eq!(server("host"), "host");
    }
}
