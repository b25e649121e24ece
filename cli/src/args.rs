//! The command line.

use crate::commands::{envelope, follow, ledger, money, queue, regtest, rollup, scan, sequencer, status, wallet};
use crate::config::Globals;
use clap::{Parser, Subcommand};

const AFTER: &str = "\
A first round, all on this machine:
  sortie regtest up                                  a Bitcoin node to play with
  sortie ledger key --out alice.key                  an L2 account
  sortie rollup new --help                           the rollup that it lives on

Settings come from flags, then SORTIE_* variables, then ./sortie.toml (or ~/.config/sortie/sortie.toml), then defaults.
Keys of sortie.toml: network, manifest, data_dir, bitcoin_url, bitcoin_cookie, bitcoin_user, bitcoin_password,
confirmations, finality_depth, wallet, max_fee, max_fee_rate.

Exit codes: 0 done, 1 failed, 2 bad usage or input, 3 cannot reach Bitcoin, 4 refused for safety.";

/// Forced inclusion for rollups on Bitcoin
///
/// A sequencer that refuses your L2 transaction cannot keep it out: write it into Bitcoin yourself, and every node that
/// follows the rollup executes it, in Bitcoin order, at the latest when the sequencing window has passed. `quote` says
/// what that costs, `force` does it, `status` tells how far it has come, `follow` derives the whole chain from Bitcoin
/// alone.
#[derive(Parser, Debug)]
#[command(name = "sortie", version, after_long_help = AFTER, propagate_version = true, max_term_width = 120)]
#[command(infer_subcommands = false, disable_help_subcommand = true)]
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
    Resume(money::Resume),
    Reclaim(money::Reclaim),
    Status(status::Status),
    Scan(scan::Scan),
    #[command(subcommand)]
    Queue(queue::Queue),
    Follow(follow::Follow),
    Sequencer(sequencer::Sequencer),
    Send(sequencer::Send),
    #[command(subcommand)]
    Regtest(regtest::Regtest),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
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
}
