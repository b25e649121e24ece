//! `sortie.toml`.

use super::{home, network};
use crate::failure::Failure;
use crate::input::{text_file, toml_error};
use crate::reading::SourceName;
use bitcoin::Network;
use serde::{Deserialize, Deserializer, de::Error};
use sortie::chain::Proxy;
use sortie::wallet::SatPerVb;
use std::fmt;
use std::path::{Path, PathBuf};

/// The settings file: every key may be left out, none may be unknown.
///
/// Paths are relative to the file's own folder; `~/` is the home folder.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    #[serde(default, deserialize_with = "network_name")]
    pub network: Option<Network>,
    pub manifest: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub bitcoin_url: Option<String>,
    pub bitcoin_cookie: Option<PathBuf>,
    pub bitcoin_user: Option<String>,
    pub bitcoin_password: Option<String>,
    pub bitcoin_ca: Option<PathBuf>,
    pub patience: Option<u32>,
    pub passphrase_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "urls")]
    pub esplora_url: Vec<String>,
    #[serde(default, deserialize_with = "urls")]
    pub broadcast_url: Vec<String>,
    #[serde(default, deserialize_with = "proxy")]
    pub proxy: Option<Proxy>,
    pub source: Option<SourceName>,
    pub blocks_dir: Option<PathBuf>,
    #[serde(default)]
    pub verify_all_blocks: bool,
    pub max_reorg_depth: Option<u32>,
    pub confirmations: Option<u32>,
    pub finality_depth: Option<u32>,
    pub wallet: Option<String>,
    pub max_fee: Option<u64>,
    pub lock_at_most: Option<u64>,
    #[serde(default, deserialize_with = "rate")]
    pub max_fee_rate: Option<SatPerVb>,
    #[serde(default, deserialize_with = "rate")]
    pub fallback_fee_rate: Option<SatPerVb>,
}

/// Without the password.
impl fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigFile").field("network", &self.network).finish_non_exhaustive()
    }
}

impl ConfigFile {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = text_file(path)?;
        Self::parse(path, &text)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        let mut file: Self = toml::from_str(text).map_err(|error| toml_error(path, text, &error))?;
        for depth in [&file.confirmations, &file.finality_depth] {
            if *depth == Some(0) {
                let path = path.display();
                return Err(Failure::usage(format_args!("{path}: confirmations and finality_depth are 1 or more")));
            }
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let ConfigFile { manifest, data_dir, bitcoin_cookie, bitcoin_ca, passphrase_file, blocks_dir, .. } = &mut file;
        let paths = [manifest, data_dir, bitcoin_cookie, bitcoin_ca, passphrase_file, blocks_dir];
        for path in paths.into_iter().flatten() {
            *path = match (path.strip_prefix("~"), home()) {
                (Ok(rest), Some(home)) => home.join(rest),
                _ => folder.join(&path),
            };
        }
        Ok(file)
    }
}

fn network_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Network>, D::Error> {
    let name = String::deserialize(deserializer)?;
    network(&name).map(Some).map_err(|expected| D::Error::custom(format_args!("network `{name}`: {expected}")))
}

/// One URL or a list of them.
fn urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    match toml::Value::deserialize(deserializer)? {
        toml::Value::String(url) => Ok(vec![url]),
        list => list.try_into().map_err(D::Error::custom),
    }
}

fn proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Proxy>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

/// A number or a text.
fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SatPerVb>, D::Error> {
    let text = match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => text,
        number => number.to_string(),
    };
    text.parse().map(Some).map_err(D::Error::custom)
}
