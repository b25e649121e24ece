//! The `sortie` command: arguments, settings and output around the library.

#![warn(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

mod args;
mod bitcoin;
mod commands;
mod config;
mod escape;
mod failure;
mod follower;
mod input;
mod mend;
mod outage;
mod output;
mod passphrase;
mod progress;
mod reading;
mod secret;
mod vouched;

use args::Cli;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches};
use config::{Given, Settings};
use failure::{Code, Failure};
use output::{Output, unwritten};
use std::process::ExitCode;

fn main() -> ExitCode {
    let parsed = args::command().try_get_matches().and_then(|matches| {
        Cli::from_arg_matches(&matches).map(|cli| (cli, named_wallet(&matches), Given::new(&matches)))
    });
    let (cli, wallet, given) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return ExitCode::from(bad_usage(&error)),
    };
    let out = Output::new(cli.globals.json, cli.globals.quiet).of_wallet(wallet);
    out.clone().tell_of_panics();
    let done = Settings::load(cli.globals, given).and_then(|settings| commands::run(cli.command, &settings, &out));
    ExitCode::from(done.map_or_else(|failure| out.end(&failure), |()| 0))
}

/// The wallet that a command is given by a flag, not by a variable or file that the next one sees, too.
fn named_wallet(matches: &ArgMatches) -> Option<String> {
    let (_, command) = matches.subcommand()?;
    let is_named = command.try_contains_id("wallet").is_ok_and(|is_known| is_known)
        && command.value_source("wallet") == Some(ValueSource::CommandLine);
    match is_named {
        true => command.try_get_one("wallet").ok().flatten().cloned(),
        false => named_wallet(command),
    }
}

/// Help and version as clap prints them; an error as the one line that every error is.
fn bad_usage(error: &clap::Error) -> u8 {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        return match error.print() {
            Err(error) => Output::new(false, false).end(&unwritten(&error)),
            Ok(()) if error.use_stderr() => Code::Usage as u8,
            Ok(()) => 0,
        };
    }
    let json = std::env::args_os().any(|argument| argument == "--json");
    let shown = error.render().to_string();
    let said = shown.split("\n\nUsage:").next().unwrap_or(&shown);
    let said = said.split("\n\nFor more information").next().unwrap_or(said);
    let words: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let words = words.join("; ").replace(":; ", ": ");
    let message = words.strip_prefix("error: ").unwrap_or(&words);
    let failure = Failure::usage(format_args!("{message}; --help tells more"));
    Output::new(json, false).end(&failure)
}
