//! `sortie ledger`: keys, transfers and accounts of the ledger executor.

use crate::config::Settings;
use crate::failure::Failure;
use crate::follower::Reader;
use crate::input::{text_file, xonly};
use crate::output::{Output, count, field};
use bitcoin::XOnlyPublicKey;
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::secp256k1::rand::RngCore;
use bitcoin::secp256k1::rand::rngs::OsRng;
use bitcoin::secp256k1::{All, Keypair, Secp256k1, SecretKey};
use clap::{Args, Subcommand};
use serde::Serialize;
use sortie::durable::{self, Access};
use sortie::executor::ledger::{Account, Holding, TRANSFER_LEN, Transfer, holding};
use sortie::follower::ChainView;
use sortie::manifest::{ExecutorKind, Manifest};
use sortie::primitives::{Hash32, L2Number, sha256};
use sortie::sequencer::Watermark;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Keys, transfers and accounts of a ledger rollup
///
/// The ledger moves satoshis between accounts; an account is an x-only public key.
#[derive(Subcommand, Debug)]
pub enum LedgerCommand {
    Key(Key),
    Transfer(TransferArgs),
    Account(AccountArgs),
}

const KEY_EXAMPLE: &str = "\
Examples:
  sortie ledger key --out alice.key         make one
  sortie ledger key --show alice.key        show its public key";

/// Make a key, or show a key's public part
///
/// A key is a BIP340 key, kept as hexadecimal in a file that only its owner can read; a file that exists is never
/// overwritten. FILE.watermark beside it says that it never signed: a sequencer writes there how far it has. The x-only
/// public key that is printed is the account, and what `rollup new --sequencer` takes.
#[derive(Args, Debug)]
#[command(after_long_help = KEY_EXAMPLE)]
#[group(required = true, multiple = false)]
pub struct Key {
    /// Make a key in this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show the public key of the one in this file
    #[arg(long, value_name = "FILE")]
    show: Option<PathBuf>,
}

const TRANSFER_EXAMPLE: &str = "\
Examples:
  sortie ledger transfer --key alice.key --to $BOB --amount 1000 --nonce 0
  sortie ledger transfer --key alice.key --to $BOB --amount 1000 --sequencer http://127.0.0.1:8645
  sortie force $(sortie ledger transfer --key alice.key --to $BOB --amount 1000)";

/// Sign a transfer
///
/// Prints the L2 transaction in hexadecimal; sends nothing. Without --nonce it follows Bitcoin to the tip and takes the
/// account's next nonce there, behind the transfers of that account that already wait in the queue.
#[derive(Args, Debug)]
#[command(after_long_help = TRANSFER_EXAMPLE)]
pub struct TransferArgs {
    /// File of the sender's key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The receiver's account: an x-only public key
    #[arg(long, value_name = "XONLY", value_parser = xonly)]
    to: XOnlyPublicKey,
    /// What the receiver gets, in satoshis
    #[arg(long, value_name = "SATS")]
    amount: u64,
    /// What the fee account gets, in satoshis [default: 0; with --sequencer the least that it takes]
    #[arg(long, value_name = "SATS")]
    fee: Option<u64>,
    /// The sequencer that it is meant for, to pay the fee that it asks at present
    #[arg(long, value_name = "URL")]
    sequencer: Option<String>,
    /// The sender's nonce; the first is 0 [default: the account's next one]
    #[arg(long, value_name = "N")]
    nonce: Option<u64>,
}

/// The highest fee that is signed on a sequencer's word, in satoshis: a transfer's share of a batch at 100 sat/vB.
const MOST_ASKED: u64 = 20_000;

const ACCOUNT_EXAMPLE: &str = "\
Example:
  sortie ledger account $(sortie ledger key --show alice.key)";

/// Show an account's balance and nonce
///
/// As derived from Bitcoin alone, at the safe head.
#[derive(Args, Debug)]
#[command(after_long_help = ACCOUNT_EXAMPLE)]
pub struct AccountArgs {
    /// The account: an x-only public key
    #[arg(value_name = "XONLY", value_parser = xonly)]
    account: XOnlyPublicKey,
}

#[derive(Serialize)]
struct PublicKey {
    public_key: XOnlyPublicKey,
    file: PathBuf,
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.public_key)
    }
}

#[derive(Serialize)]
struct Signed {
    tx: String,
    tx_hash: Hash32,
    from: Hash32,
    to: Hash32,
    amount_sat: u64,
    fee_sat: u64,
    nonce: u64,
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tx)
    }
}

#[derive(Serialize)]
struct AccountShown {
    account: Hash32,
    balance_sat: u64,
    nonce: u64,
    l2_number: L2Number,
    state_root: Hash32,
}

impl fmt::Display for AccountShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        field(f, "balance", format_args!("{} sat", self.balance_sat))?;
        field(f, "next nonce", self.nonce)?;
        field(f, "as of", format_args!("L2 block {}, state root {}", self.l2_number, self.state_root))
    }
}

/// Runs a command.
pub fn run(command: LedgerCommand, settings: &Settings, out: &Output) -> Result<(), Failure> {
    match command {
        LedgerCommand::Key(key) => out.print(&key.run(settings)?),
        LedgerCommand::Transfer(transfer) => out.print(&transfer.run(settings, out)?),
        LedgerCommand::Account(AccountArgs { account }) => {
            ledger_manifest(settings)?;
            let reader = Reader::open_at_least(settings, out)?;
            let head = reader.view().heads(settings.finality_depth())?.safe;
            let Holding { balance, nonce } = holding(&reader.view().load_state()?, &account.serialize());
            out.print(&AccountShown {
                account: Hash32(account.serialize()),
                balance_sat: balance,
                nonce,
                l2_number: head.head.header.number,
                state_root: head.state_root,
            })
        }
    }
}

impl Key {
    fn run(self, settings: &Settings) -> Result<PublicKey, Failure> {
        let secp = Secp256k1::new();
        match (self.out, self.show) {
            (Some(file), _) => {
                let public_key = make_key(&secp, &file)?.x_only_public_key().0;
                Ok(PublicKey { public_key, file })
            }
            (None, Some(file)) => {
                Ok(PublicKey { public_key: read_key(&secp, &file, settings)?.x_only_public_key().0, file })
            }
            (None, None) => Err(Failure::usage("either --out FILE or --show FILE")),
        }
    }
}

fn make_key(secp: &Secp256k1<All>, path: &Path) -> Result<Keypair, Failure> {
    let mut secret = [0; 32];
    OsRng.try_fill_bytes(&mut secret).map_err(|_| Failure::failed("the operating system gave no randomness"))?;
    // All but one in 2^128 random numbers are keys.
    let key = SecretKey::from_slice(&secret).map_err(Failure::failed)?;
    let text = format!("{}\n", key.secret_bytes().to_lower_hex_string());
    durable::write_new(path, text.as_bytes(), Access::Owner).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::refused(format_args!(
            "{} exists already and was not touched; choose another --out",
            path.display()
        )),
        _ => Failure::file(path, &error),
    })?;
    let keypair = key.keypair(secp);
    Watermark::create(path, keypair.x_only_public_key().0).map_err(Failure::failed)?;
    Ok(keypair)
}

/// Reads a key file. Its content is never repeated in an error.
pub fn read_key(secp: &Secp256k1<All>, path: &Path, settings: &Settings) -> Result<Keypair, Failure> {
    settings.check_private(path)?;
    let bytes = <[u8; 32]>::from_hex(text_file(path)?.trim()).ok();
    let key = bytes.and_then(|bytes| SecretKey::from_slice(&bytes).ok());
    let key = key.ok_or_else(|| {
        Failure::usage(format_args!(
            "{} holds no key: expected 64 hexadecimal digits, as `sortie ledger key` writes",
            path.display()
        ))
    })?;
    Ok(key.keypair(secp))
}

fn ledger_manifest(settings: &Settings) -> Result<Manifest, Failure> {
    let manifest = settings.manifest()?;
    match manifest.executor.kind {
        ExecutorKind::Ledger => Ok(manifest),
        _ => Err(Failure::usage(format_args!("the rollup `{}` has another executor than the ledger", manifest.name))),
    }
}

impl TransferArgs {
    fn run(self, settings: &Settings, out: &Output) -> Result<Signed, Failure> {
        let manifest = ledger_manifest(settings)?;
        let secp = Secp256k1::new();
        let keypair = read_key(&secp, &self.key, settings)?;
        let from = keypair.x_only_public_key().0.serialize();
        let nonce = match self.nonce {
            Some(nonce) => nonce,
            None => match Reader::open(settings, out) {
                Ok(reader) => next_nonce(reader.view(), &from, out)?,
                Err(Failure::Error { code, message, .. }) => {
                    let message =
                        format!("the account's next nonce is not known ({message}); or give it with --nonce N");
                    return Err(Failure::Error { code, message, temporary: false, may_pass: false });
                }
                Err(closed) => return Err(closed),
            },
        };
        let fee = match (self.fee, &self.sequencer) {
            (Some(fee), _) => fee,
            (None, Some(url)) => fair(settings.sequencer(url)?.least_fee(manifest.rollup_id(), TRANSFER_LEN)?)?,
            (None, None) => 0,
        };
        let transfer = Transfer { from, to: self.to.serialize(), amount: self.amount, fee, nonce };
        let tx = transfer.sign(&secp, &manifest.rollup_id(), &keypair);
        Ok(Signed {
            tx_hash: sha256(&tx),
            tx: tx.to_lower_hex_string(),
            from: Hash32(transfer.from),
            to: Hash32(transfer.to),
            amount_sat: self.amount,
            fee_sat: fee,
            nonce,
        })
    }
}

/// A fee that a sequencer asks for by itself, which may be anything.
fn fair(fee: u64) -> Result<u64, Failure> {
    if fee <= MOST_ASKED {
        return Ok(fee);
    }
    Err(Failure::refused(format_args!(
        "the sequencer asks for {fee} sat for this transfer, more than {MOST_ASKED}; if you mean to pay that, give it with --fee {fee}"
    )))
}

/// The nonce at the safe head, and behind the account's transfers that wait in the queue.
fn next_nonce(view: &ChainView, account: &Account, out: &Output) -> Result<u64, Failure> {
    let Holding { nonce: derived, .. } = holding(&view.load_state()?, account);
    let executed = view.derivation().head().header.forced_end;
    let mut nonce = derived;
    for queued in view.store().items(executed..i64::MAX as u64)? {
        let waits =
            Transfer::decode(&queued.item.tx).is_some_and(|waiting| waiting.from == *account && waiting.nonce == nonce);
        nonce += u64::from(waits);
    }
    if nonce > derived {
        let waiting = count(nonce - derived, "transfer");
        out.note(format_args!("nonce {nonce}, behind {waiting} of this account in the queue"));
    }
    Ok(nonce)
}
