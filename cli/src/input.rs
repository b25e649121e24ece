//! What people type: hexadecimal bytes, from the command line, a file or stdin, and keys.

use crate::failure::Failure;
use bitcoin::address::NetworkUnchecked;
use bitcoin::hex::FromHex;
use bitcoin::{Address, Amount, Network, XOnlyPublicKey};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// Reads hexadecimal bytes from an argument: the digits, `-` for stdin, or `@FILE`.
///
/// White space in stdin and in a file does not count.
pub fn hex_argument(argument: &str) -> Result<Vec<u8>, Failure> {
    let (text, source) = match argument.strip_prefix('@') {
        _ if argument == "-" => {
            let mut text = Vec::new();
            io::stdin().read_to_end(&mut text).map_err(|error| Failure::failed(format_args!("stdin: {error}")))?;
            (text, "stdin".to_owned())
        }
        Some(file) => {
            let text = fs::read(file).map_err(|error| Failure::usage(format_args!("{argument}: {error}")))?;
            (text, file.to_owned())
        }
        None => {
            return hex(argument.trim()).map_err(|reason| {
                let hint = if Path::new(argument).is_file() { "; a file? write @ in front of it" } else { "" };
                Failure::usage(format_args!("hex argument: {reason}{hint}"))
            });
        }
    };
    let digits: String = String::from_utf8_lossy(&text).split_whitespace().collect();
    hex(&digits).map_err(|reason| Failure::usage(format_args!("hex in {source}: {reason}")))
}

/// Reads a file (`-` is stdin) of hexadecimal lines, each with its place in the file; empty ones and those with `#` in
/// front do not count.
pub fn hex_lines(path: &Path) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let (text, source) = match path.to_str() {
        Some("-") => {
            let text = io::read_to_string(io::stdin());
            (text.map_err(|error| Failure::failed(format_args!("stdin: {error}")))?, "stdin".into())
        }
        _ => (text_file(path)?, path.display().to_string()),
    };
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(at, line)| {
            let at = format!("{source}:{}", at + 1);
            let bytes = hex(line).map_err(|reason| Failure::usage(format_args!("{at}: {reason}")))?;
            Ok((at, bytes))
        })
        .collect()
}

/// Reads hexadecimal digits; positions are counted from 1.
pub fn hex(digits: &str) -> Result<Vec<u8>, String> {
    if digits.is_empty() {
        return Err("it is empty: nothing at position 1".into());
    }
    if digits.starts_with("0x") {
        return Err("`x` at position 2 is not a hexadecimal digit; write it without 0x".into());
    }
    if let Some((at, bad)) = digits.chars().enumerate().find(|(_, digit)| !digit.is_ascii_hexdigit()) {
        return Err(format!("`{}` at position {} is not a hexadecimal digit", bad.escape_debug(), at + 1));
    }
    let len = digits.len();
    Vec::from_hex(digits)
        .map_err(|_| format!("{len} digits are an odd number: the last byte, at position {len}, is cut in half"))
}

/// An x-only public key, for clap.
pub fn xonly(text: &str) -> Result<XOnlyPublicKey, String> {
    let bytes = hex(text)?;
    if bytes.len() != 32 {
        return Err(format!("an x-only public key has 64 hexadecimal digits, this has {}", text.len()));
    }
    XOnlyPublicKey::from_slice(&bytes).map_err(|_| "it is not a point of the curve: no key has this public key".into())
}

/// `KEY=SATS`, for clap.
pub fn key_and_sats(text: &str) -> Result<(XOnlyPublicKey, u64), String> {
    let (key, sats) = text.split_once('=').ok_or("expected KEY=SATS")?;
    let sats = sats.parse().map_err(|_| format!("`{sats}` is not a number of satoshis"))?;
    Ok((xonly(key)?, sats))
}

/// An address of any network, for clap.
pub fn address(text: &str) -> Result<Address<NetworkUnchecked>, String> {
    text.parse().map_err(|_| "it is not a Bitcoin address".into())
}

/// A job's number, for clap.
pub fn job_number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "it is not a job's number; `sortie jobs` lists them".into())
}

/// A number of satoshis, no more than all money.
pub fn sats(text: &str) -> Result<u64, String> {
    let most = Amount::MAX_MONEY.to_sat();
    let sats = text.parse().ok().filter(|sats| *sats <= most);
    sats.ok_or_else(|| format!("it is not a number of satoshis up to {most}"))
}

/// An address that must be for `network`.
pub fn address_on(network: Network, address: Address<NetworkUnchecked>) -> Result<Address, Failure> {
    if address.is_valid_for_network(network) {
        return Ok(address.assume_checked());
    }
    let address = address.assume_checked();
    Err(Failure::refused(format_args!(
        "the address {address} is not for {network}; set --network, or ask for another address"
    )))
}

/// A file's text.
pub fn text_file(path: &Path) -> Result<String, Failure> {
    text_of("", path)
}

/// The text of a file that an option or a setting names; `what` it is, with a blank behind it, is told if it cannot be
/// read.
pub fn text_of(what: &str, path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::usage(format_args!("{what}{}: {error}", path.display())))
}

/// What is wrong with a TOML file, in one line with the place.
pub fn toml_error(path: &Path, text: &str, error: &toml::de::Error) -> Failure {
    let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    let line = line.map_or(String::new(), |line| format!(":{line}"));
    Failure::usage(format_args!("{}{line}: {}", path.display(), without_value(error.message())))
}

/// A message without the value that it is about, which may be a password.
fn without_value(message: &str) -> String {
    let message = message.trim_end();
    match (message.starts_with("invalid ") && message.contains(": "), message.rsplit_once(", expected ")) {
        (true, Some((_, expected))) => format!("a value of the wrong type; expected {expected}"),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_hex_names_the_position() {
        for (text, expected) in [
            ("", "position 1"),
            ("00zz", "`z` at position 3"),
            ("0x00", "`x` at position 2 is not a hexadecimal digit; write it without 0x"),
            ("00é0", "`é` at position 3"),
            ("012", "position 3"),
        ] {
            let reason = hex(text).expect_err(text);
            assert!(reason.contains(expected), "{text}: {reason}");
        }
        assert_eq!(hex("00fF"), Ok(vec![0, 255]));
    }

    #[test]
    fn keys_must_be_points() {
        let generator = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        assert!(xonly(generator).is_ok());
        assert!(xonly(&"f".repeat(64)).expect_err("no point").contains("curve"));
        assert!(xonly("00").expect_err("short").contains("64"));
        assert_eq!(key_and_sats(&format!("{generator}=7")).map(|(_, sats)| sats), Ok(7));
        assert!(key_and_sats(&format!("{generator}=-7")).is_err());
    }
}
