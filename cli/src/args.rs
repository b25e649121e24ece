//! The command line.

#[cfg(feature = "regtest")]
use crate::commands::regtest;
use crate::commands::{
    envelope, follow, ledger, money, prove, queue, rollup, scan, send, sequencer, status, verify, wallet,
};
use crate::config::Globals;
use clap::{CommandFactory, Parser, Subcommand};

/// Columns that help takes at most.
const WIDTH: usize = 100;

const AFTER: &str = "\
Options of every command, each with the variable that can stand in for it:
  --network NAME         SORTIE_NETWORK         bitcoin, signet, testnet4, regtest [the manifest's]
  --manifest FILE        SORTIE_MANIFEST        the rollup
  --data-dir DIR         SORTIE_DATA_DIR        what sortie keeps [~/.local/share/sortie]
  --bitcoin-url URL      SORTIE_BITCOIN_URL     the Bitcoin node's RPC [on 127.0.0.1]
  --bitcoin-cookie FILE  SORTIE_BITCOIN_COOKIE  its cookie file [in bitcoind's own folder]
  --bitcoin-user NAME    SORTIE_BITCOIN_USER    a user instead; see SORTIE_BITCOIN_PASSWORD
  --bitcoin-ca FILE      SORTIE_BITCOIN_CA      the authority that signed the certificate of a node
                                                behind https:// (PEM) [those of the Web]
  --patience SECONDS     SORTIE_PATIENCE        how long a command waits for a node or server
                                                that does not answer [30]
  --passphrase-file FILE SORTIE_PASSPHRASE_FILE the wallet's passphrase [asked for on the terminal]
  --esplora-url URL      SORTIE_ESPLORA_URL     Esplora servers instead of a node; the first is read
  --broadcast-url URL    SORTIE_BROADCAST_URL   Esplora servers that transactions go to as well
  --proxy URL            SORTIE_PROXY           socks5h://HOST:PORT for all that leaves this machine
  --source KIND          SORTIE_SOURCE          where blocks are read: auto, rpc, rest, blk [auto]
  --blocks-dir DIR       SORTIE_BLOCKS_DIR      the running node's folder with blk00000.dat, to
                                                read there; a copy needs --verify-all-blocks
  --verify-all-blocks    SORTIE_VERIFY_ALL_BLOCKS
                                                check blocks without envelopes, too (slow)
  --max-reorg-depth N    SORTIE_MAX_REORG_DEPTH Bitcoin blocks that can be taken back [144]
  --confirmations N      SORTIE_CONFIRMATIONS   Bitcoin blocks to settle [3, on regtest 1]
  --finality-depth N     SORTIE_FINALITY_DEPTH  Bitcoin blocks to be final [6]
  --config FILE          SORTIE_CONFIG          settings [a file of your own, see below]
  --json                                        answers, and errors on stderr, as JSON lines
  -q, --quiet                                   no notes on stderr

Settings come from flags, then these variables, then a file of your own (--config, or else
~/.config/sortie/sortie.toml), then defaults; a sortie.toml in the current folder may name the
manifest, in that folder, and the network. The network is bitcoin where neither it nor a manifest
is named. The file's keys: network, manifest, data_dir,
bitcoin_url, bitcoin_cookie, bitcoin_user, bitcoin_password, bitcoin_ca, patience, source,
blocks_dir, verify_all_blocks, max_reorg_depth, passphrase_file, esplora_url, broadcast_url, proxy,
confirmations, finality_depth, wallet, max_fee, max_fee_rate, fallback_fee_rate, lock_at_most. URLs
are repeated on the command line, separated by commas in a variable, and a list in the file. The
password of --bitcoin-user comes from the variable SORTIE_BITCOIN_PASSWORD or from the file, never
from a flag.";

const ELSEWHERE: &str = "--network, --manifest, --json and the other options of every command: see `sortie --help`.";

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 bad usage or input, 3 cannot reach Bitcoin, 4 refused for safety.";

/// Forced inclusion for rollups on Bitcoin
///
/// A sequencer that refuses your L2 transaction cannot keep it out: write it into Bitcoin yourself, and every node that
/// follows the rollup executes it, in Bitcoin order, at the latest when the sequencing window has passed. `quote` says
/// what that costs, `force` does it, `status` tells how far it has come, `follow` derives the whole chain from Bitcoin
/// alone.
#[derive(Parser, Debug)]
#[command(name = "sortie", version, max_term_width = WIDTH)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    #[command(subcommand)]
    Rollup(rollup::Rollup),
    #[command(subcommand)]
    Wallet(wallet::WalletCommand),
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    #[command(subcommand)]
    Envelope(envelope::Envelope),
    Quote(money::Quote),
    Force(money::Force),
    Finish(money::Finish),
    Jobs(money::Jobs),
    Resume(money::Resume),
    Bump(money::Bump),
    Reclaim(money::Reclaim),
    Recover(money::Recover),
    Status(status::Status),
    Scan(scan::Scan),
    #[command(subcommand)]
    Queue(queue::Queue),
    Follow(follow::Follow),
    #[command(subcommand)]
    Prove(prove::Prove),
    Verify(verify::Verify),
    Sequencer(sequencer::Sequencer),
    Send(send::Send),
    #[cfg(feature = "regtest")]
    #[command(subcommand)]
    Regtest(regtest::Regtest),
}

/// The command line, with the exit codes in every command's help and a pointer to the common options.
pub fn command() -> clap::Command {
    fn pointed(command: clap::Command) -> clap::Command {
        let examples = command.get_after_long_help().map(|examples| format!("{examples}\n\n")).unwrap_or_default();
        // Those that judge have codes of their own.
        let codes = if examples.contains("Exit codes: ") { String::new() } else { format!("{EXIT_CODES}\n") };
        command.after_long_help(format!("{examples}{codes}{ELSEWHERE}")).mut_subcommands(pointed)
    }
    Cli::command().after_long_help(format!("{AFTER}\n\n{EXIT_CODES}")).mut_subcommands(pointed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn the_table_of_common_options_is_complete() {
        for option in Cli::command().get_arguments().filter(|option| option.is_global_set()) {
            let shown = format!("--{}", option.get_long().expect("a long name"));
            let variable = option.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let is_there = AFTER.lines().any(|line| line.contains(&shown) && line.contains(&variable));
            assert!(is_there, "{shown} {variable}");
        }
    }

    /// A summary, a paragraph and an example for everything that can be run.
    #[test]
    fn every_help_teaches() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}: no summary");
            assert!(command.get_long_about().is_some(), "{path}: no paragraph");
            if command.get_subcommands().next().is_none() {
                let example = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
                assert!(example.contains("sortie "), "{path}: no example");
            }
            command.get_subcommands().for_each(|sub| check(sub, &path));
        }
        check(&Cli::command(), "");
    }

    /// Tables and examples are not prose.
    #[test]
    fn no_example_is_wrapped_and_every_help_has_the_exit_codes() {
        fn check(command: &clap::Command) {
            let name = command.get_name();
            let after = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert_eq!(after.lines().find(|line| line.chars().count() > WIDTH), None, "{name}");
            assert_eq!(after.matches("Exit codes: 0 ").count(), 1, "{name}");
            command.get_subcommands().for_each(check);
        }
        check(&command());
    }
}
