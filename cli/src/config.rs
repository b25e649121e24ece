//! Settings: flags, then `SORTIE_*`, then a file of the user's own, then defaults.
//!
//! Guarantees that a setting comes from the first of these that has it, that a key which nobody knows is
//! an error, and that a manifest and a network which contradict each other stop the command.
//!
//! Does not trust the folder that it runs in, which may have come in an archive: a `sortie.toml` there names the
//! manifest, inside that folder, and the network. Whose wallet pays, who is asked and where a password or a cookie goes
//! is the user's own to say.

mod file;
mod given;
mod listener;

use crate::bitcoin::{Bitcoin, Source};
use crate::failure::Failure;
use crate::input::{sats, text_of, toml_error};
use crate::output::Output;
use crate::reading::Reading;
use crate::secret::{is_public, server};
use bitcoin::{Amount, FeeRate, Network};
use clap::Args;
use file::ConfigFile;
pub use given::Given;
use sortie::api::SequencerClient;
use sortie::chain::{Authorities, Credentials, Esplora, NodeInfo, Proxy, RpcNode, ServerUrl, Transport, is_loopback};
use sortie::follower::{ChainView, Lifecycles};
use sortie::manifest::{Manifest, TomlError, network_of};
use sortie::patience::Patience;
use sortie::publish::{LOCK_AT_MOST, RateTerms};
use sortie::wallet::{Caps, SatPerVb};
use std::env::{self, VarError};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

/// The highest fee rate that is paid unless another cap is set: 1,000 sat/vB.
const DEFAULT_MAX_FEE_RATE: FeeRate = FeeRate::from_sat_per_kwu(250_000);
/// The highest fee that is paid unless another cap is set: whatever estimators and servers say, a mistake is no
/// disaster.
pub const DEFAULT_MAX_FEE: Amount = Amount::from_sat(200_000);
/// How long a command waits for a node or server that does not answer, in seconds.
const DEFAULT_PATIENCE: u32 = 30;
/// The same, where it can answer without.
const BRIEF_PATIENCE: u32 = 5;
/// What a bump may pay of what its own size at the rate that was asked for comes to.
const BUMP_MULTIPLE: u64 = 3;

/// What [`Settings::tell_whose`] tells.
const TOLD: [&str; 12] = [
    "wallet",
    "data_dir",
    "bitcoin_url",
    "bitcoin_cookie",
    "bitcoin_user",
    "esplora_url",
    "broadcast_url",
    "proxy",
    "max_fee",
    "max_fee_rate",
    "fallback_fee_rate",
    "lock_at_most",
];

/// Options of every command; shown in one table by `sortie --help` (see `args`).
#[derive(Args, Clone, Debug, Default)]
pub struct Globals {
    #[arg(long, global = true, hide = true, env = "SORTIE_NETWORK", value_name = "NAME", value_parser = network)]
    pub network: Option<Network>,
    #[arg(long, global = true, hide = true, env = "SORTIE_MANIFEST", value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    #[arg(long, global = true, hide = true, env = "SORTIE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    #[arg(long, global = true, hide = true, env = "SORTIE_BITCOIN_URL", value_name = "URL")]
    pub bitcoin_url: Option<String>,
    #[arg(long, global = true, hide = true, env = "SORTIE_BITCOIN_COOKIE", value_name = "FILE")]
    pub bitcoin_cookie: Option<PathBuf>,
    #[arg(long, global = true, hide = true, env = "SORTIE_BITCOIN_USER", value_name = "NAME")]
    #[arg(conflicts_with = "bitcoin_cookie")]
    pub bitcoin_user: Option<String>,
    #[arg(long, global = true, hide = true, env = "SORTIE_BITCOIN_CA", value_name = "FILE")]
    pub bitcoin_ca: Option<PathBuf>,
    #[arg(long, global = true, hide = true, env = "SORTIE_PATIENCE", value_name = "SECONDS")]
    pub patience: Option<u32>,
    #[arg(long, global = true, hide = true, env = "SORTIE_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    #[arg(long, global = true, hide = true, env = "SORTIE_ESPLORA_URL", value_name = "URL", value_delimiter = ',')]
    pub esplora_url: Vec<String>,
    #[arg(long, global = true, hide = true, env = "SORTIE_BROADCAST_URL", value_name = "URL", value_delimiter = ',')]
    pub broadcast_url: Vec<String>,
    #[arg(long, global = true, hide = true, env = "SORTIE_PROXY", value_name = "URL")]
    pub proxy: Option<Proxy>,
    #[arg(long, global = true, hide = true, env = "SORTIE_CONFIRMATIONS", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub confirmations: Option<u32>,
    #[arg(long, global = true, hide = true, env = "SORTIE_FINALITY_DEPTH", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub finality_depth: Option<u32>,
    #[command(flatten)]
    pub reading: Reading,
    #[arg(long, global = true, hide = true, env = "SORTIE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[arg(long, global = true, hide = true)]
    pub json: bool,
    #[arg(short, long, global = true, hide = true)]
    pub quiet: bool,
}

/// Which wallet.
#[derive(Args, Clone, Debug, Default)]
pub struct WalletName {
    /// The wallet: a folder below <data-dir>/<network>/wallets [default: default]
    #[arg(long, env = "SORTIE_WALLET", value_name = "NAME", hide_env_values = true)]
    pub wallet: Option<String>,
}

/// What may be paid.
#[derive(Args, Clone, Debug, Default)]
pub struct Fees {
    /// Fee rate in sat/vB [default: what node or servers estimate; on regtest 1]
    #[arg(long, value_name = "SAT_VB")]
    pub fee_rate: Option<SatPerVb>,

    /// Fee rate in sat/vB where no estimate is to be had or believed [default: refuse on mainnet, elsewhere the least
    /// that is relayed]
    #[arg(long, env = "SORTIE_FALLBACK_FEE_RATE", value_name = "SAT_VB", hide_env_values = true)]
    pub fallback_fee_rate: Option<SatPerVb>,

    /// Tell how the fee rate was chosen
    #[arg(long)]
    pub explain: bool,

    /// Refuse to pay more than this many satoshis, all transactions together [default: 200000; for a sequencer's
    /// batches none]
    #[arg(long, env = "SORTIE_MAX_FEE", value_name = "SATS", value_parser = sats, hide_env_values = true)]
    pub max_fee: Option<u64>,

    /// Refuse to pay a higher rate, in sat/vB [default: 1000]
    #[arg(long, env = "SORTIE_MAX_FEE_RATE", value_name = "SAT_VB", hide_env_values = true)]
    pub max_fee_rate: Option<SatPerVb>,
}

/// How much may wait for a reveal.
#[derive(Args, Clone, Debug, Default)]
pub struct Locking {
    /// Lock at most so many satoshis more than are needed until a reveal is mined; the rest comes back at once
    /// [default: 1000000]
    #[arg(long, env = "SORTIE_LOCK_AT_MOST", value_name = "SATS", value_parser = sats, hide_env_values = true)]
    pub lock_at_most: Option<u64>,
}

/// What holds for this command.
#[derive(Debug)]
pub struct Settings {
    flags: Globals,
    given: Given,
    file: ConfigFile,
    data_dir: PathBuf,
    password: Option<String>,
    /// Whether it was said that a password leaves this machine in clear.
    clear_text: Once,
}

impl Settings {
    /// Reads the settings files and the environment.
    pub fn load(flags: Globals, given: Given) -> Result<Self, Failure> {
        let password = match env::var("SORTIE_BITCOIN_PASSWORD") {
            Err(VarError::NotUnicode(_)) => return Err(Failure::usage("SORTIE_BITCOIN_PASSWORD is not UTF-8")),
            password => password.ok(),
        };
        let file = Self::files(flags.config.as_deref())?;
        let settings = Self::merge(flags, given, password, file, default_data_dir())?;
        if settings.file.holds_secret() {
            settings.check_private(&settings.file.path)?;
        }
        Ok(settings)
    }

    /// The file that was named; else the user's own, with what the folder's may say.
    fn files(named: Option<&Path>) -> Result<ConfigFile, Failure> {
        if let Some(path) = named {
            return ConfigFile::read(path);
        }
        let own = config_dir().map(|dir| dir.join("sortie.toml"));
        let file = own.as_deref().filter(|path| path.is_file()).map(ConfigFile::read).transpose()?.unwrap_or_default();
        let folder = Path::new("sortie.toml");
        let is_own = || folder.canonicalize().ok() == own.as_deref().and_then(|path| path.canonicalize().ok());
        match folder.is_file() && !is_own() {
            true => file.in_folder(folder, own.as_deref()),
            false => Ok(file),
        }
    }

    fn merge(
        flags: Globals,
        given: Given,
        password: Option<String>,
        file: ConfigFile,
        default_data_dir: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let data_dir = flags.data_dir.clone().or_else(|| file.data_dir.clone()).or(default_data_dir);
        let data_dir = data_dir.ok_or_else(|| Failure::usage("HOME is not set; set --data-dir"))?;
        let data_dir = std::path::absolute(&data_dir).map_err(|error| Failure::file(&data_dir, &error))?;
        Ok(Self { flags, given, file, data_dir, password, clear_text: Once::new() })
    }

    /// Says whose wallet, node and caps these are, where a variable or a file chose them: money goes by them.
    pub fn tell_whose(&self) {
        if !self.given.is_of_money() {
            return;
        }
        let unused = match self.servers() {
            [] => &["esplora_url"][..],
            _ => &["bitcoin_url", "bitcoin_cookie", "bitcoin_user"],
        };
        let told = |key: &&str| {
            let (words, from) = match self.given.option(key) {
                // It stands in the command that was typed.
                Some((_, None)) => return None,
                Some((words, Some(variable))) => (words.to_owned(), variable.to_owned()),
                None => (self.file.text(key)?, self.file.path.display().to_string()),
            };
            let words = match key.ends_with("_url") {
                true => words.split(',').map(server).collect::<Vec<_>>().join(","),
                false => words,
            };
            Some(format!("{key} {words} ({from})"))
        };
        let told: Vec<_> = TOLD.iter().filter(|key| !unused.contains(key)).filter_map(told).collect();
        if !told.is_empty() {
            self.output().note(told.join(", "));
        }
    }

    /// Refuses a file with a secret that every user of the machine can read; on regtest, where no secret is worth
    /// anything, warns.
    pub fn check_private(&self, path: &Path) -> Result<(), Failure> {
        if !is_public(path) {
            return Ok(());
        }
        let path = path.display();
        let message = format!("every user of this machine can read {path}, which holds a secret: chmod 600 {path}");
        match self.network().unwrap_or_else(|_| self.network_without_manifest()) {
            Network::Regtest => self.output().warn(message),
            _ => return Err(Failure::refused(message)),
        }
        Ok(())
    }

    fn named_network(&self) -> Option<Network> {
        self.flags.network.or(self.file.network)
    }

    fn manifest_path(&self) -> Option<&Path> {
        self.flags.manifest.as_deref().or(self.file.manifest.as_deref())
    }

    /// The manifest.
    ///
    /// # Errors
    /// None is configured, it is not one, or it is for another network than the one that was named.
    pub fn manifest(&self) -> Result<Manifest, Failure> {
        self.optional_manifest()?.ok_or_else(|| {
            Failure::usage(
                "no manifest; give --manifest FILE, set SORTIE_MANIFEST, or write `manifest` into sortie.toml",
            )
        })
    }

    /// The manifest, if one is configured.
    pub fn optional_manifest(&self) -> Result<Option<Manifest>, Failure> {
        let Some(path) = self.manifest_path() else { return Ok(None) };
        let manifest = read_manifest(path)?;
        let got = manifest_network(&manifest)?;
        match self.named_network() {
            Some(expected) if expected != got => Err(Failure::refused(format_args!(
                "the manifest {} is for {got}, but the network is set to {expected}; set --network {got} or use another manifest",
                path.display()
            ))),
            _ => Ok(Some(manifest)),
        }
    }

    /// The network: as named, else the manifest's, else bitcoin.
    pub fn network(&self) -> Result<Network, Failure> {
        match self.optional_manifest()? {
            Some(manifest) => manifest_network(&manifest),
            None => Ok(self.network_without_manifest()),
        }
    }

    /// The network where no manifest plays a part yet.
    pub fn network_without_manifest(&self) -> Network {
        self.named_network().unwrap_or(Network::Bitcoin)
    }

    /// The folder for everything that sortie keeps.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The folder of a network's wallets, rollups and, on regtest, its node.
    pub fn network_dir(&self, network: Network) -> PathBuf {
        self.data_dir.join(network.to_string())
    }

    /// A wallet's folder.
    pub fn wallet_dir(&self, network: Network, name: &WalletName) -> Result<PathBuf, Failure> {
        let name = name.wallet.as_deref().or(self.file.wallet.as_deref()).unwrap_or("default");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            let message = "a wallet's name has letters, digits, `-`, `_` and `.`, and begins with no dot";
            return Err(Failure::usage(format_args!("wallet `{}`: {message}", name.escape_debug())));
        }
        Ok(self.network_dir(network).join("wallets").join(name))
    }

    /// The file that holds the wallet's passphrase, if there is one.
    pub fn passphrase_file(&self) -> Option<&Path> {
        self.flags.passphrase_file.as_deref().or(self.file.passphrase_file.as_deref())
    }

    /// Fee caps: what was given, else 200,000 sat and a rate of 1,000 sat/vB.
    pub fn caps(&self, fees: &Fees) -> Caps {
        let Caps { max_fee, max_fee_rate } = self.caps_of_batches(fees);
        Caps { max_fee: max_fee.or(Some(DEFAULT_MAX_FEE)), max_fee_rate }
    }

    /// A sequencer's fee caps: what was given, else a rate of 1,000 sat/vB; its node is its own, and its batches long.
    pub fn caps_of_batches(&self, fees: &Fees) -> Caps {
        let rate = fees.max_fee_rate.or(self.file.max_fee_rate).map_or(DEFAULT_MAX_FEE_RATE, |SatPerVb(rate)| rate);
        let max_fee = fees.max_fee.or(self.file.max_fee).map(Amount::from_sat);
        Caps { max_fee_rate: Some(rate), max_fee }
    }

    /// A bump's fee caps: with a rate that was asked for, three times that is the most, unless a cap was given.
    pub fn caps_of_bump(&self, fees: &Fees) -> Caps {
        let caps = self.caps(fees);
        let asked = fees.fee_rate.filter(|_| fees.max_fee.is_none() && fees.max_fee_rate.is_none());
        let most = asked.map(|SatPerVb(rate)| rate.to_sat_per_kwu().saturating_mul(BUMP_MULTIPLE));
        let most = most.map(FeeRate::from_sat_per_kwu);
        Caps { max_fee_rate: caps.max_fee_rate.into_iter().chain(most).min(), ..caps }
    }

    /// What a commit may lock beyond what it needs.
    pub fn lock_at_most(&self, locking: &Locking) -> Amount {
        locking.lock_at_most.or(self.file.lock_at_most).map_or(LOCK_AT_MOST, Amount::from_sat)
    }

    /// What decides the fee rate, beside the sources of estimates.
    pub fn rate_terms(&self, fees: &Fees, network: Network, target_blocks: u16) -> RateTerms {
        let rate = |rate: Option<SatPerVb>| rate.map(|SatPerVb(rate)| rate);
        RateTerms {
            network,
            explicit: rate(fees.fee_rate),
            fallback: rate(fees.fallback_fee_rate.or(self.file.fallback_fee_rate)),
            target_blocks,
        }
    }

    /// Bitcoin blocks until something counts as settled.
    pub fn confirmations(&self, network: Network) -> u32 {
        let default = if network == Network::Regtest { 1 } else { 3 };
        self.flags.confirmations.or(self.file.confirmations).unwrap_or(default)
    }

    /// Reads lifecycles by the configured depths.
    pub fn lifecycles<'a>(&self, view: &'a ChainView) -> Result<Lifecycles<'a>, Failure> {
        Ok(Lifecycles::new(view, self.confirmations(self.network()?), self.finality_depth()))
    }

    /// Bitcoin blocks until the derived chain counts as final.
    pub fn finality_depth(&self) -> u32 {
        self.flags.finality_depth.or(self.file.finality_depth).unwrap_or(6)
    }

    /// Connects to an Esplora server where one is named, else to the Bitcoin node. Waits a little for one that does not
    /// answer, then and later.
    pub fn connect(&self, network: Network) -> Result<Bitcoin, Failure> {
        let transport = Transport::new(self.patience(DEFAULT_PATIENCE));
        self.connect_over(network, &transport, &transport)
    }

    /// As [`connect`](Self::connect), for a command that can also answer without Bitcoin: it waits less.
    pub fn connect_briefly(&self, network: Network) -> Result<Bitcoin, Failure> {
        let transport = Transport::new(self.patience(BRIEF_PATIENCE));
        self.connect_over(network, &transport, &transport)
    }

    /// As [`connect`](Self::connect), for a process that runs on and tells by itself what it waits for.
    pub fn connect_for_service(&self, network: Network) -> Result<Bitcoin, Failure> {
        // Public servers limit the rate of questions: to begin anew each time would lead nowhere.
        self.connect_over(network, &Transport::new(Patience::none()), &Transport::new(Patience::brief()))
    }

    fn connect_over(&self, network: Network, to_node: &Transport, to_server: &Transport) -> Result<Bitcoin, Failure> {
        let servers = self.servers();
        let others = match &self.flags.broadcast_url {
            urls if !urls.is_empty() => urls,
            _ => &self.file.broadcast_url,
        };
        let proxy = self.proxy();
        let source = match servers.first() {
            Some(url) => Source::Esplora(Box::new(Esplora::connect_over(url, network, proxy, to_server)?)),
            None => {
                let node = self.connect_node(network, to_node)?;
                let info = node.info()?;
                if info.is_behind() {
                    self.output().warn(format_args!("{}; what is told here is as of that block", behind(&info)));
                }
                Source::Node(Box::new(node))
            }
        };
        // What gets a copy holds up nobody: another one has it.
        let copied = |url: &String| Esplora::over(url, network, proxy, &Transport::new(Patience::brief()));
        let also = servers.iter().skip(1).chain(others).map(copied);
        Ok(Bitcoin::new(source, also.collect::<Result<_, _>>()?))
    }

    /// How to talk, as the flags say.
    pub fn output(&self) -> Output {
        Output::new(self.flags.json, self.flags.quiet)
    }

    /// The Esplora servers to use: the file's give way to a node that flags or environment name.
    fn servers(&self) -> &[String] {
        let Globals { esplora_url, bitcoin_url, bitcoin_cookie, bitcoin_user, .. } = &self.flags;
        let names_a_node = bitcoin_url.is_some() || bitcoin_cookie.is_some() || bitcoin_user.is_some();
        if esplora_url.is_empty() && !names_a_node { &self.file.esplora_url } else { esplora_url }
    }

    /// A sequencer, by its URL.
    pub fn sequencer(&self, url: &str) -> Result<SequencerClient, Failure> {
        Ok(SequencerClient::new(url, self.proxy())?)
    }

    /// Through which everything goes that leaves this machine.
    fn proxy(&self) -> Option<&Proxy> {
        self.flags.proxy.as_ref().or(self.file.proxy.as_ref())
    }

    /// How blocks are read.
    pub fn reading(&self) -> Reading {
        let Reading { source, blocks_dir, verify_all_blocks, max_reorg_depth } = self.flags.reading.clone();
        Reading {
            source: source.or(self.file.source),
            blocks_dir: blocks_dir.or_else(|| self.file.blocks_dir.clone()),
            verify_all_blocks: verify_all_blocks || self.file.verify_all_blocks,
            max_reorg_depth: max_reorg_depth.or(self.file.max_reorg_depth),
        }
    }

    /// The node that `sortie regtest up` started; `None` if none runs there and another one may be running on this
    /// machine.
    #[cfg(feature = "regtest")]
    fn playground(&self, transport: &Transport) -> Result<Option<RpcNode>, Failure> {
        let dir = self.network_dir(Network::Regtest);
        if let Ok(node) = regtest::Bitcoind::attach(&dir) {
            let cookie = Credentials::Cookie(node.cookie());
            return Ok(Some(RpcNode::connect_over(&node.rpc_url(), cookie, Network::Regtest, transport)?));
        }
        if default_cookie(Network::Regtest).is_some_and(|cookie| cookie.exists()) {
            return Ok(None);
        }
        let dir = dir.display();
        Err(Failure::unreachable(format_args!(
            "no regtest node is running in {dir}; start one with `sortie regtest up`, or set --bitcoin-url"
        ))
        .temporary())
    }

    /// Connects to the Bitcoin node.
    ///
    /// On regtest, when nothing else is said, that is the node which `sortie regtest up` started.
    fn connect_node(&self, network: Network, transport: &Transport) -> Result<RpcNode, Failure> {
        let url = self.flags.bitcoin_url.clone().or_else(|| self.file.bitcoin_url.clone());
        let credentials = self.credentials()?;
        #[cfg(feature = "regtest")]
        if network == Network::Regtest
            && url.is_none()
            && credentials.is_none()
            && let Some(node) = self.playground(transport)?
        {
            return Ok(node);
        }
        let is_named = url.is_some();
        let url = url.unwrap_or_else(|| format!("http://127.0.0.1:{}", default_port(network)));
        if self.proxy().is_some() && !is_loopback(&url) {
            return Err(Failure::refused(
                "the Bitcoin node is on another machine, and its RPC cannot go through --proxy; use --esplora-url, a node on this machine, or a tunnel to it",
            ));
        }
        let credentials = match credentials {
            Some(credentials) => credentials,
            None => default_cookie(network).map(Credentials::Cookie).ok_or_else(|| {
                Failure::usage("HOME is not set, so bitcoind's cookie cannot be found; set --bitcoin-cookie")
            })?,
        };
        if let Credentials::Cookie(cookie) = &credentials
            && !is_named
            && let Some(user) = listener::stranger(default_port(network), cookie)
        {
            return Err(Failure::refused(format_args!(
                "another user of this machine (uid {user}) listens at {url}, and bitcoind's cookie is not for everybody; if it is your node, name it: --bitcoin-url {url}"
            )));
        }
        self.warn_of_clear_text(&url);
        let authorities = self.authorities()?;
        Ok(RpcNode::connect_over(&url, credentials, network, &Transport { authorities, ..transport.clone() })?)
    }

    /// Who may sign the node's certificate, where it is not one of the Web's authorities.
    fn authorities(&self) -> Result<Option<Authorities>, Failure> {
        let Some(path) = self.flags.bitcoin_ca.as_ref().or(self.file.bitcoin_ca.as_ref()) else { return Ok(None) };
        let pem = std::fs::read(path).map_err(|error| Failure::file(path, &error))?;
        Authorities::from_pem(&pem).map(Some).ok_or_else(|| {
            let path = path.display();
            Failure::usage(format_args!("{path}: no certificate in PEM form (-----BEGIN CERTIFICATE-----)"))
        })
    }

    /// Says, once, that a node's password goes over the network for everybody to read.
    fn warn_of_clear_text(&self, url: &str) {
        let Ok(url) = url.parse::<ServerUrl>() else { return };
        if !url.is_tls() && !url.is_loopback() {
            self.clear_text.call_once(|| {
                let server = url.server();
                self.output().warn(format_args!(
                    "whoever is on the way to {server} can read the Bitcoin node's password, and change its answers; use https:// or a tunnel (ssh -L 8332:127.0.0.1:8332 HOST) with http://127.0.0.1:8332"
                ));
            });
        }
    }

    /// How long a command waits for a node or server that does not answer, `most` unless told; it says so.
    fn patience(&self, most: u32) -> Patience {
        let total = Duration::from_secs(self.flags.patience.or(self.file.patience).unwrap_or(most).into());
        let out = self.output();
        Patience::new(total, move |error, left| {
            out.note(format_args!("{error}; trying again for up to {} s", left.as_secs()));
        })
    }

    /// What flags and environment say, else what the file says.
    fn credentials(&self) -> Result<Option<Credentials>, Failure> {
        let layers = [
            (&self.flags.bitcoin_cookie, &self.flags.bitcoin_user),
            (&self.file.bitcoin_cookie, &self.file.bitcoin_user),
        ];
        for (cookie, user) in layers {
            if let Some(cookie) = cookie {
                return Ok(Some(Credentials::Cookie(cookie.clone())));
            }
            if let Some(user) = user {
                let password = self.password.clone().or_else(|| self.file.bitcoin_password.clone());
                let password = password.ok_or_else(|| {
                    Failure::usage(
                        "a Bitcoin RPC user without a password; set SORTIE_BITCOIN_PASSWORD, or `bitcoin_password` in your settings file",
                    )
                })?;
                return Ok(Some(Credentials::UserPassword { user: user.clone(), password }));
            }
        }
        Ok(None)
    }
}

/// Reads a manifest's file.
pub fn read_manifest(path: &Path) -> Result<Manifest, Failure> {
    let text = text_of("the manifest ", path)?;
    Manifest::from_toml(&text).map_err(|error| match error {
        TomlError::Syntax(error) => toml_error(path, &text, &error),
        TomlError::OtherId { .. } => Failure::refused(format_args!("{}: {error}", path.display())),
        error => Failure::usage(format_args!("{}: {error}", path.display())),
    })
}

/// That a node's tip is not the chain's, and what to do about it.
pub fn behind(info: &NodeInfo) -> String {
    let NodeInfo { tip, headers, .. } = info;
    let (at, of) = (tip.height, tip.height.max(*headers));
    format!(
        "bitcoind is still downloading the chain, and is at block {at} of {of}; wait until it has it, or use another node"
    )
}

/// The network that a manifest is for.
pub fn manifest_network(manifest: &Manifest) -> Result<Network, Failure> {
    network_of(manifest.network).ok_or_else(|| {
        let magic = manifest.network;
        Failure::usage(format_args!(
            "the manifest's network magic {magic} is none of bitcoin, signet, testnet4, regtest"
        ))
    })
}

/// A network's name, for clap and for the settings file.
fn network(name: &str) -> Result<Network, String> {
    match name {
        "bitcoin" => Ok(Network::Bitcoin),
        "signet" => Ok(Network::Signet),
        "testnet4" => Ok(Network::Testnet4),
        "regtest" => Ok(Network::Regtest),
        _ => Err("expected bitcoin, signet, testnet4 or regtest".into()),
    }
}

fn default_port(network: Network) -> u16 {
    match network {
        Network::Signet => 38332,
        Network::Testnet4 => 48332,
        Network::Regtest => 18443,
        _ => 8332,
    }
}

fn default_cookie(network: Network) -> Option<PathBuf> {
    let bitcoin = match cfg!(target_os = "macos") {
        true => home()?.join("Library/Application Support/Bitcoin"),
        false => home()?.join(".bitcoin"),
    };
    let chain = match network {
        Network::Bitcoin => "",
        other => other.to_core_arg(),
    };
    Some(bitcoin.join(chain).join(".cookie"))
}

fn home() -> Option<PathBuf> {
    env::home_dir().filter(|dir| !dir.as_os_str().is_empty())
}

fn default_data_dir() -> Option<PathBuf> {
    platform_dir("XDG_DATA_HOME", ".local/share")
}

fn config_dir() -> Option<PathBuf> {
    platform_dir("XDG_CONFIG_HOME", ".config")
}

/// The XDG folder, else the platform's usual one; with `sortie` below it.
fn platform_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    let named = env::var_os(variable).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let usual = || match cfg!(target_os = "macos") {
        true => home().map(|home| home.join("Library/Application Support")),
        false => home().map(|home| home.join(below_home)),
    };
    named.or_else(usual).map(|dir| dir.join("sortie"))
}

#[cfg(test)]
mod tests;
