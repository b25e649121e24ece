//! `sortie wallet`: the coins that pay Bitcoin for what is forced.

use crate::bitcoin::Bitcoin;
use crate::config::{Fees, Settings, WalletName};
use crate::failure::Failure;
use crate::input::{address, address_on, sats};
use crate::output::{Output, field};
use crate::passphrase;
use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, Network, Txid};
use clap::{Args, Subcommand};
use serde::Serialize;
use sortie::chain::BlockSource;
use sortie::durable;
use sortie::primitives::{BlockRef, BtcHeight};
use sortie::publish::{ChosenRate, JobId, fee_rate};
use sortie::wallet::{Descriptors, Looked, Mnemonic, Passphrase, Search, Wallet, WalletError};
use std::collections::BTreeSet;
use std::fmt;
use std::io::{IsTerminal, Read, stdin};
use std::path::{Path, PathBuf};

const SEARCHING: &str = "searching Bitcoin for its coins";

/// Blocks within which a payment is to confirm, for the estimate of its rate.
pub const TARGET_BLOCKS: u16 = 6;

/// The coins that pay Bitcoin for what is forced
///
/// A small wallet of its own (BIP86, twelve words), in a folder below <data-dir>/<network>/wallets. Its seed file is
/// encrypted with a passphrase, which signing asks for; still keep in it what you need for fees, not your savings.
#[derive(Subcommand, Debug)]
pub enum WalletCommand {
    Create(Create),
    Restore(Restore),
    Address(AddressArgs),
    Balance(BalanceArgs),
    Rescan(RescanArgs),
    Descriptors(DescriptorsArgs),
    Send(SendArgs),
    Passphrase(PassphraseArgs),
}

const CREATE_EXAMPLES: &str = "\
Examples:
  sortie wallet create --wallet alice
  sortie wallet create --wallet vault --watch-only \\
    --descriptor \"wpkh([d34db33f/84'/0'/0']xpub.../<0;1>/*)\"";

/// Make a wallet and show its twelve words
///
/// They are shown once: write them down on paper, for whoever knows them owns the coins. Where the output is not a
/// terminal, they are shown with --json only. The seed file is encrypted with a passphrase, asked for on the terminal
/// or read from --passphrase-file; on regtest it is not, unless that option is given.
///
/// With --watch-only the wallet's coins are those of public descriptors, searched for as `restore` does, and their keys
/// stay where they are: `force --psbt` writes what is to be signed there. The words are then for envelopes only: they
/// reveal a commit or take it back.
#[derive(Args, Debug)]
#[command(after_long_help = CREATE_EXAMPLES)]
pub struct Create {
    #[command(flatten)]
    watched: Watched,
    /// Look on until this many addresses in a row hold no coin (over Esplora: were never used) [2000, change 10000;
    /// 100]
    #[arg(long, requires = "watch_only", value_name = "ADDRESSES", value_parser = clap::value_parser!(u32).range(1..=MOST_ADDRESSES))]
    gap: Option<u32>,
    #[command(flatten)]
    protection: Protection,
    #[command(flatten)]
    name: WalletName,
}

/// Whose the coins are, if not the seed's.
#[derive(Args, Debug)]
struct Watched {
    /// Watch coins whose keys are elsewhere, and have them signed for there
    #[arg(long, requires = "descriptor")]
    watch_only: bool,
    /// Their public descriptor, of tr(), wpkh() or wsh(); with <0;1> for receive and change addresses
    #[arg(long, value_name = "DESCRIPTOR", requires = "watch_only")]
    descriptor: Option<String>,
    /// The descriptor of change, if the other one is for receive addresses only
    #[arg(long, value_name = "DESCRIPTOR", requires = "watch_only")]
    change_descriptor: Option<String>,
}

/// Those of one keychain in a row that a search may pass over.
const MOST_ADDRESSES: i64 = 1_000_000;

impl Watched {
    fn descriptors(&self, network: Network) -> Result<Option<Descriptors>, Failure> {
        let Some(receive) = &self.descriptor else { return Ok(None) };
        let change = self.change_descriptor.as_deref();
        Ok(Some(Descriptors::parse(receive, change, network).map_err(WalletError::from)?))
    }
}

/// How the seed file is written.
#[derive(Args, Debug)]
struct Protection {
    /// Leave the seed file unencrypted: whoever reads it owns the coins
    #[arg(long)]
    no_passphrase: bool,
}

impl Protection {
    fn passphrase(&self, settings: &Settings, network: Network) -> Result<Option<Passphrase>, Failure> {
        match self.no_passphrase || (network == Network::Regtest && settings.passphrase_file().is_none()) {
            true => Ok(None),
            false => passphrase::choose(settings).map(Some),
        }
    }
}

/// Make a wallet from its words
///
/// Reads them from stdin and searches for its coins: among all coins of the Bitcoin node, which takes minutes on
/// mainnet, or address after address on an Esplora server. It says how far it looked; --gap makes it look further. A
/// watch-only wallet needs its descriptors as well as its words.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie wallet restore --wallet alice < words.txt")]
pub struct Restore {
    #[command(flatten)]
    watched: Watched,
    /// Look on until this many addresses in a row hold no coin (over Esplora: were never used) [2000, change 10000;
    /// 100]
    #[arg(long, value_name = "ADDRESSES", value_parser = clap::value_parser!(u32).range(1..=MOST_ADDRESSES))]
    gap: Option<u32>,
    #[command(flatten)]
    protection: Protection,
    #[command(flatten)]
    name: WalletName,
}

/// Show an address to pay to
///
/// The next one that nobody has paid yet; it is the same until somebody does.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie regtest fund $(sortie wallet address) 1000000")]
pub struct AddressArgs {
    #[command(flatten)]
    name: WalletName,
}

/// Show what the wallet holds
///
/// In satoshis. Confirmed coins and unconfirmed change can be spent, but for those that a transaction from `force
/// --psbt` reserves until it is signed; what others pay can be once it is confirmed.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie wallet balance --wallet alice --json | jq .spendable_sat")]
pub struct BalanceArgs {
    #[command(flatten)]
    name: WalletName,
}

/// Show the public descriptors of the wallet's coins
///
/// One for the addresses that others pay, one for change. Whoever has them sees every coin and can spend none: a
/// watch-only wallet can be made of them, here or in other software.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie wallet descriptors --wallet alice")]
pub struct DescriptorsArgs {
    #[command(flatten)]
    name: WalletName,
}

/// Pay somebody
///
/// Refused above the caps on fees, and if the node does not take it: then nothing was sent. After a crash or an answer
/// that was lost, run it again: the same payment is sent, not a second one. Once it has printed a transaction it is
/// done: the same command pays a second time then.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie wallet send --to bc1p... --amount 25000 --fee-rate 2.5")]
pub struct SendArgs {
    /// The Bitcoin address that gets it
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    to: Address<NetworkUnchecked>,
    /// How much, in satoshis; the fee comes on top
    #[arg(long, value_name = "SATS", value_parser = sats)]
    amount: u64,
    #[command(flatten)]
    fees: Fees,
    #[command(flatten)]
    name: WalletName,
}

/// Set or change the passphrase
///
/// Encrypts the seed file anew in one step. The passphrase that it has is read from --passphrase-file or asked for; the
/// new one is asked for, or read from --new-passphrase-file. The words stay the same.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie wallet passphrase --wallet alice")]
pub struct PassphraseArgs {
    /// A file whose first line is the new passphrase
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    name: WalletName,
}

#[derive(Serialize)]
struct Encrypted {
    dir: PathBuf,
}

impl fmt::Display for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the seed file in {} is encrypted with the new passphrase", self.dir.display())
    }
}

#[derive(Serialize)]
struct Made {
    /// Its name: the last part of its folder.
    wallet: String,
    dir: PathBuf,
    network: Network,
    birthday: BtcHeight,
    watch_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    searched: Option<Searched>,
}

/// How far a search for a wallet's coins went, and what it found.
#[derive(Serialize)]
struct Searched {
    receive: u32,
    change: u32,
    last_receive: Option<u32>,
    last_change: Option<u32>,
    found_sat: u64,
}

impl Searched {
    fn of(wallet: &Wallet) -> Option<Self> {
        let Looked { receive, change, last_receive, last_change } = wallet.looked()?;
        Some(Self { receive, change, last_receive, last_change, found_sat: wallet.balance().total().to_sat() })
    }

    /// What to say if there was nothing.
    fn warning(&self) -> Option<String> {
        let is_empty = self.found_sat == 0 && self.last_receive.is_none() && self.last_change.is_none();
        is_empty.then(|| {
            format!(
                "nothing was found on the first {} receive and {} change addresses: are these the right words (or descriptors) and the right --network, and is the node or server in step with the chain? For coins farther on, remove this wallet's folder and restore it with a larger --gap",
                self.receive, self.change
            )
        })
    }
}

impl Made {
    fn new(wallet: &Wallet, words: Option<String>) -> Self {
        let dir = wallet.dir().to_owned();
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (network, birthday, watch_only) = (wallet.network(), wallet.birthday(), wallet.is_watch_only());
        Self { wallet: name, dir, network, birthday, watch_only, words, searched: Searched::of(wallet) }
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(words) = &self.words {
            match self.watch_only {
                false => {
                    writeln!(f, "These words are the wallet. Write them down now: they are not shown again,")?;
                    writeln!(f, "and whoever knows them can take its coins.")?;
                }
                true => {
                    writeln!(
                        f,
                        "These words open this wallet's Taproot envelopes, and nothing else: with a backup line"
                    )?;
                    writeln!(
                        f,
                        "or the L2 transaction they reveal a commit or take it back. The coins need the keys of"
                    )?;
                    writeln!(f, "their descriptors. Write the words down now: they are not shown again.")?;
                }
            }
            writeln!(f, "\n    {words}\n")?;
        }
        field(f, "wallet", self.dir.display())?;
        field(f, "network", self.network)?;
        field(f, "birthday", format_args!("Bitcoin block {}", self.birthday))?;
        let Some(searched) = &self.searched else { return Ok(()) };
        let Searched { receive, change, .. } = searched;
        field(f, "searched", format_args!("the first {receive} receive and {change} change addresses"))?;
        let last = [("receive", searched.last_receive), ("change", searched.last_change)];
        let last: Vec<String> =
            last.into_iter().filter_map(|(kind, index)| Some(format!("{kind} address {}", index?))).collect();
        let last = if last.is_empty() { String::new() } else { format!("; the last used: {}", last.join(", ")) };
        field(f, "found", format_args!("{} sat{last}", searched.found_sat))
    }
}

#[derive(Serialize)]
struct AddressShown {
    address: Address,
}

impl fmt::Display for AddressShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

#[derive(Serialize)]
struct DescriptorsShown {
    receive: String,
    change: String,
    watch_only: bool,
}

impl fmt::Display for DescriptorsShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        field(f, "receive", &self.receive)?;
        field(f, "change", &self.change)?;
        field(f, "keys", if self.watch_only { "elsewhere" } else { "of this wallet's seed" })
    }
}

/// Ask for everything that the wallet knows of the chain again
///
/// From the block before which it had no coin, at the node or the Esplora server: for a wallet that shows other coins
/// than it should, as after a server that hid or made up some. Words, addresses and jobs stay as they are. A pruned
/// node has to have the blocks since then.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  sortie wallet rescan --wallet alice")]
pub struct RescanArgs {
    /// Read a node's blocks from this height on, where that is lower: the server by which the wallet was restored may
    /// have hidden older coins
    #[arg(long, value_name = "HEIGHT")]
    since: Option<BtcHeight>,
    /// Look for coins on further addresses, too, until this many in a row hold none (over Esplora: were never used)
    #[arg(long, value_name = "ADDRESSES", value_parser = clap::value_parser!(u32).range(1..=MOST_ADDRESSES))]
    gap: Option<u32>,
    #[command(flatten)]
    name: WalletName,
}

#[derive(Serialize)]
struct Rescanned {
    blocks: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    searched: Option<Searched>,
    #[serde(flatten)]
    balance: BalanceShown,
}

impl fmt::Display for Rescanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.blocks > 0 {
            field(f, "blocks read", self.blocks)?;
        }
        if let Some(Searched { receive, change, .. }) = &self.searched {
            field(f, "searched", format_args!("the first {receive} receive and {change} change addresses"))?;
        }
        self.balance.fmt(f)
    }
}

#[derive(Serialize)]
struct BalanceShown {
    spendable_sat: u64,
    reserved_sat: u64,
    confirmed_sat: u64,
    change_sat: u64,
    incoming_sat: u64,
    immature_sat: u64,
    total_sat: u64,
    synced_to: BlockRef,
    /// The first and the last block that no node showed.
    #[serde(skip_serializing_if = "Option::is_none")]
    unread_blocks: Option<[BtcHeight; 2]>,
    #[serde(skip)]
    reserved: Vec<(JobId, Amount)>,
}

impl BalanceShown {
    fn of(wallet: &Wallet) -> Result<Self, WalletError> {
        let (balance, reserved) = (wallet.balance(), wallet.reserved()?);
        let reserved_sat = reserved.iter().map(|(_, held)| held.to_sat()).sum();
        Ok(Self {
            spendable_sat: (balance.confirmed + balance.change).to_sat().saturating_sub(reserved_sat),
            reserved_sat,
            confirmed_sat: balance.confirmed.to_sat(),
            change_sat: balance.change.to_sat(),
            incoming_sat: balance.incoming.to_sat(),
            immature_sat: balance.immature.to_sat(),
            total_sat: balance.total().to_sat(),
            synced_to: wallet.synced_to(),
            unread_blocks: wallet.unread_blocks().map(|blocks| [*blocks.start(), *blocks.end()]),
            reserved,
        })
    }
}

impl fmt::Display for BalanceShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        field(f, "spendable", format_args!("{} sat", self.spendable_sat))?;
        for (job, held) in &self.reserved {
            let sats = held.to_sat();
            field(f, "reserved", format_args!("{sats} sat by job {job} (`sortie reclaim {job}` frees them)"))?;
        }
        for (name, sats) in [("incoming", self.incoming_sat), ("immature", self.immature_sat)] {
            if sats > 0 {
                field(f, name, format_args!("{sats} sat"))?;
            }
        }
        field(f, "as of block", self.synced_to)?;
        let Some([first, last]) = self.unread_blocks else { return Ok(()) };
        let told = format_args!(
            "blocks {first} to {last}, which the node lacks: the coins are right; an Esplora server (--esplora-url) shows what became of payments and jobs there"
        );
        field(f, "not read", told)
    }
}

#[derive(Serialize)]
struct Paid {
    txid: Txid,
    amount_sat: u64,
    fee_sat: u64,
    vsize_vb: u64,
    resumed: bool,
}

impl fmt::Display for Paid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        field(f, "transaction", self.txid)?;
        field(f, "paid", format_args!("{} sat", self.amount_sat))?;
        field(f, "fee", format_args!("{} sat for {} vB", self.fee_sat, self.vsize_vb))?;
        match self.resumed {
            true => field(f, "signed", "before: nothing new was paid"),
            false => Ok(()),
        }
    }
}

/// Runs a command.
pub fn run(command: WalletCommand, settings: &Settings, out: &Output) -> Result<(), Failure> {
    match command {
        WalletCommand::Create(create) => create.run(settings, out),
        WalletCommand::Restore(restore) => out.print(&restore.run(settings, out)?),
        WalletCommand::Address(AddressArgs { name }) => {
            let mut wallet = open_to_look(settings, &name, out)?;
            out.print(&AddressShown { address: wallet.address()? })
        }
        WalletCommand::Balance(BalanceArgs { name }) => {
            let (wallet, _) = open_synced(settings, &name)?;
            out.print(&BalanceShown::of(&wallet)?)
        }
        WalletCommand::Rescan(RescanArgs { since, gap, name }) => {
            let mut wallet = open(settings, &name)?;
            let node = settings.connect(wallet.network())?;
            let blocks = wallet.rescan(Search { source: (&node).into(), gap }, since)?.blocks;
            let searched = Searched::of(&wallet);
            out.print(&Rescanned { blocks, searched, balance: BalanceShown::of(&wallet)? })
        }
        WalletCommand::Descriptors(DescriptorsArgs { name }) => {
            let wallet = open(settings, &name)?;
            let [receive, change] = wallet.descriptors().texts();
            out.print(&DescriptorsShown { receive, change, watch_only: wallet.is_watch_only() })
        }
        WalletCommand::Send(send) => send.run(settings, out),
        WalletCommand::Passphrase(change) => out.print(&change.run(settings)?),
    }
}

/// Opens a wallet as it was left.
pub fn open(settings: &Settings, name: &WalletName) -> Result<Wallet, Failure> {
    let network = settings.network()?;
    let dir = settings.wallet_dir(network, name)?;
    let wallet = Wallet::open(&dir, network)?;
    settings.check_private(&dir.join("seed"))?;
    settings.tell_whose();
    Ok(wallet)
}

/// Opens a wallet and brings it up to date, if Bitcoin can be asked: what it knew before is an answer, too.
pub fn open_to_look(settings: &Settings, name: &WalletName, out: &Output) -> Result<Wallet, Failure> {
    let mut wallet = open(settings, name)?;
    let synced = settings.connect_briefly(wallet.network()).and_then(|node| Ok(wallet.sync(&node)?));
    if let Err(failure) = synced {
        let height = wallet.synced_to().height;
        out.note(format_args!("as of block {height}; Bitcoin could not be asked: {failure}"));
    }
    Ok(wallet)
}

/// A wallet that has the keys of its coins.
pub fn with_keys(wallet: Wallet) -> Result<Wallet, Failure> {
    match wallet.is_watch_only() {
        true => Err(WalletError::WatchOnly { dir: wallet.dir().to_owned() }.into()),
        false => Ok(wallet),
    }
}

/// Opens a wallet that is to sign for its coins, and brings it up to date.
pub fn open_to_spend(settings: &Settings, name: &WalletName) -> Result<(Wallet, Bitcoin), Failure> {
    synced(passphrase::unlock(with_keys(open(settings, name)?)?, settings)?, settings)
}

/// Opens a wallet that is to sign, perhaps for envelopes only, and brings it up to date.
pub fn open_to_sign(settings: &Settings, name: &WalletName) -> Result<(Wallet, Bitcoin), Failure> {
    synced(passphrase::unlock(open(settings, name)?, settings)?, settings)
}

/// Opens a wallet and brings it up to date.
pub fn open_synced(settings: &Settings, name: &WalletName) -> Result<(Wallet, Bitcoin), Failure> {
    synced(open(settings, name)?, settings)
}

fn synced(mut wallet: Wallet, settings: &Settings) -> Result<(Wallet, Bitcoin), Failure> {
    let node = settings.connect(wallet.network())?;
    wallet.sync(&node)?;
    Ok((wallet, node))
}

/// The rate to pay for confirmation within `target_blocks`, with its warning told.
pub fn rate(
    node: &Bitcoin,
    fees: &Fees,
    target_blocks: u16,
    settings: &Settings,
    out: &Output,
) -> Result<ChosenRate, Failure> {
    rate_telling_once(node, fees, target_blocks, settings, out, &mut BTreeSet::new())
}

/// As [`rate`]; what is in `told` is not told again.
pub fn rate_telling_once(
    node: &Bitcoin,
    fees: &Fees,
    target_blocks: u16,
    settings: &Settings,
    out: &Output,
    told: &mut BTreeSet<String>,
) -> Result<ChosenRate, Failure> {
    let chosen = fee_rate(&node.sources(), &settings.rate_terms(fees, node.network(), target_blocks))?;
    if fees.explain {
        chosen.steps.iter().filter(|step| told.insert(step.to_string())).for_each(|step| out.note(step));
    }
    if let Some(warning) = chosen.warning.iter().find(|warning| told.insert(format!("warning: {warning}"))) {
        out.warn(warning);
    }
    Ok(chosen)
}

impl Create {
    fn run(self, settings: &Settings, out: &Output) -> Result<(), Failure> {
        let network = settings.network()?;
        let dir = settings.wallet_dir(network, &self.name)?;
        let watched = self.watched.descriptors(network)?;
        let node = settings.connect(network)?;
        let passphrase = self.protection.passphrase(settings, network)?;
        let (wallet, mnemonic) = match &watched {
            None => Wallet::create(&dir, network, node.tip()?.height, passphrase.as_ref())?,
            Some(watched) => {
                out.note(SEARCHING);
                Wallet::watch_only(
                    &dir,
                    network,
                    watched,
                    None,
                    passphrase.as_ref(),
                    Search { source: (&node).into(), gap: self.gap },
                )?
            }
        };
        // Not into a file or a pipe that nobody thought of.
        let shown = out.is_json() || out.is_on_terminal();
        if !shown {
            out.warn(format_args!(
                "the output is not a terminal, so the wallet's words are not shown; they are in {}{}",
                dir.join("seed").display(),
                if passphrase.is_some() { ", which `age --decrypt` opens with the passphrase" } else { "" }
            ));
        }
        let made = Made::new(&wallet, shown.then(|| mnemonic.words()));
        drop(wallet);
        out.print(&made).map_err(|failure| if shown { unmade(&dir, &failure) } else { failure })
    }
}

/// Takes back a wallet whose words nobody has seen, before anybody pays to it.
fn unmade(dir: &Path, failure: &Failure) -> Failure {
    let seed = dir.join("seed");
    match durable::remove(&seed) {
        Ok(()) => Failure::failed(format_args!("{failure}; its words could not be shown, so no wallet was made")),
        Err(_) => Failure::failed(format_args!("{failure}; the wallet's words are in {}", seed.display())),
    }
}

impl Restore {
    fn run(self, settings: &Settings, out: &Output) -> Result<Made, Failure> {
        let network = settings.network()?;
        let dir = settings.wallet_dir(network, &self.name)?;
        let watched = self.watched.descriptors(network)?;
        let node = settings.connect(network)?;
        let mut words = String::new();
        let read = if stdin().is_terminal() {
            out.note("type the words, then press Enter");
            stdin().read_line(&mut words)
        } else {
            stdin().read_to_string(&mut words)
        };
        read.map_err(|error| Failure::usage(format_args!("stdin: {error}")))?;
        let mnemonic: Mnemonic = words.parse()?;
        let passphrase = self.protection.passphrase(settings, network)?;
        out.note(SEARCHING);
        let (passphrase, search) = (passphrase.as_ref(), Search { source: (&node).into(), gap: self.gap });
        let wallet = match &watched {
            None => Wallet::restore(&dir, network, mnemonic, passphrase, search)?,
            Some(watched) => Wallet::watch_only(&dir, network, watched, Some(mnemonic), passphrase, search)?.0,
        };
        let made = Made::new(&wallet, None);
        if let Some(warning) = made.searched.as_ref().and_then(Searched::warning) {
            out.warn(warning);
        }
        Ok(made)
    }
}

impl PassphraseArgs {
    fn run(self, settings: &Settings) -> Result<Encrypted, Failure> {
        let mut wallet = open(settings, &self.name)?;
        let old = match wallet.is_locked() {
            true => Some(passphrase::current(settings, &wallet)?),
            false => None,
        };
        let new = match &self.new_passphrase_file {
            Some(path) => passphrase::of_file(path, settings)?,
            None => passphrase::choose_on_terminal()?,
        };
        wallet.change_passphrase(old.as_ref(), Some(&new))?;
        Ok(Encrypted { dir: wallet.dir().to_owned() })
    }
}

impl SendArgs {
    fn run(self, settings: &Settings, out: &Output) -> Result<(), Failure> {
        let to = address_on(settings.network()?, self.to)?;
        let (mut wallet, node) = open_to_spend(settings, &self.name)?;
        let rate = rate(&node, &self.fees, TARGET_BLOCKS, settings, out)?.rate;
        let amount = Amount::from_sat(self.amount);
        let payment = wallet.send(&node, &to, amount, rate, &settings.caps(&self.fees))?;
        out.print(&Paid {
            txid: payment.txid,
            amount_sat: self.amount,
            fee_sat: payment.fee.to_sat(),
            vsize_vb: payment.vsize,
            resumed: payment.resumed,
        })?;
        Ok(wallet.acknowledge(&payment)?)
    }
}
