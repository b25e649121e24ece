//! One module for each command.

pub mod envelope;
pub mod follow;
pub mod ledger;
pub mod money;
pub mod prove;
pub mod queue;
#[cfg(feature = "regtest")]
pub mod regtest;
pub mod rollup;
pub mod scan;
pub mod send;
pub mod sequencer;
pub mod status;
pub mod verify;
pub mod wallet;

use crate::args::Command;
use crate::config::Settings;
use crate::failure::Failure;
use crate::output::Output;

/// Runs a command.
pub fn run(command: Command, settings: &Settings, out: &Output) -> Result<(), Failure> {
    match command {
        Command::Rollup(command) => rollup::run(command, settings, out),
        Command::Wallet(command) => wallet::run(command, settings, out),
        Command::Ledger(command) => ledger::run(command, settings, out),
        Command::Envelope(command) => envelope::run(command, settings, out),
        Command::Quote(quote) => money::quote(&quote, settings, out),
        Command::Force(force) => money::force(&force, settings, out),
        Command::Finish(finish) => money::finish(&finish, settings, out),
        Command::Jobs(jobs) => money::jobs(&jobs, settings, out),
        Command::Resume(resume) => money::resume(&resume, settings, out),
        Command::Bump(bump) => money::bump(&bump, settings, out),
        Command::Reclaim(reclaim) => money::reclaim(&reclaim, settings, out),
        Command::Recover(recover) => money::recover(&recover, settings, out),
        Command::Status(status) => status::run(&status, settings, out),
        Command::Scan(scan) => scan::run(&scan, settings, out),
        Command::Queue(command) => queue::run(&command, settings, out),
        Command::Follow(follow) => follow::run(&follow, settings, out),
        Command::Prove(command) => prove::run(&command, settings, out),
        Command::Verify(verify) => verify::run(&verify, settings, out),
        Command::Sequencer(sequencer) => sequencer::run(&sequencer, settings, out),
        Command::Send(send) => send::run(&send, settings, out),
        #[cfg(feature = "regtest")]
        Command::Regtest(command) => regtest::run(command, settings, out),
    }
}
