//! `sortie.toml`: the user's own, and what one in a folder may say.

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
    /// Where it was read.
    #[serde(skip)]
    pub path: PathBuf,
    /// What was read.
    #[serde(skip)]
    table: toml::Table,
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

    /// These settings with the manifest and the network of the file in the folder we run in; `own` is where all else
    /// belongs.
    ///
    /// # Errors
    /// It says anything else, or names a manifest outside of its folder.
    pub fn in_folder(self, path: &Path, own: Option<&Path>) -> Result<Self, Failure> {
        let own = own.map_or("a settings file of your own".into(), |path| path.display().to_string());
        let text = text_file(path)?;
        let table: toml::Table = toml::from_str(&text).map_err(|error| toml_error(path, &text, &error))?;
        if let Some(key) = table.keys().find(|key| !matches!(key.as_str(), "manifest" | "network")) {
            return Err(Failure::refused(format_args!(
                "{} sets `{key}`: the file of a folder may name the manifest and the network and nothing else, or whoever made the folder would choose your wallet and your node; `{key}` belongs in {own}",
                path.display()
            )));
        }
        let Self { manifest, network, .. } = Self::parse(path, &text)?;
        if let Some(manifest) = manifest.as_deref().filter(|manifest| leads_out(path, manifest)) {
            return Err(Failure::refused(format_args!(
                "{} names the manifest {}, which is no file in its folder; name it with --manifest, or in {own}",
                path.display(),
                manifest.display()
            )));
        }
        Ok(Self { manifest: manifest.or(self.manifest), network: network.or(self.network), ..self })
    }

    /// Whether others must not read it: a password, or an address with one.
    pub fn holds_secret(&self) -> bool {
        let servers = self.esplora_url.iter().chain(&self.broadcast_url);
        self.bitcoin_password.is_some() || servers.into_iter().any(|url| url.contains('@'))
    }

    /// What it says of a key.
    pub fn text(&self, key: &str) -> Option<String> {
        Some(match self.table.get(key)? {
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(list) => list.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(","),
            other => other.to_string(),
        })
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        let table = toml::from_str(text).map_err(|error| toml_error(path, text, &error))?;
        let mut file: Self = toml::from_str(text).map_err(|error| toml_error(path, text, &error))?;
        (file.path, file.table) = (path.to_owned(), table);
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

/// Whether a file, if it is there, is outside of another's folder, or no file: a link or a pipe.
fn leads_out(of: &Path, to: &Path) -> bool {
    let folder = of.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), to.canonicalize()) {
        (Ok(folder), Ok(to)) => !to.starts_with(folder) || !to.is_file(),
        _ => false,
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
