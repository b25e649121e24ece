//! The process is killed at every write of the wallet's database and every question to the node or server, on either
//! side of it; the same command is run again until it is done. Each payload is published exactly once, and
//! no satoshi is lost but for fees.
//!
//! Runs a fixed sample of the points; with `SORTIE_CRASH_MATRIX=all`, every one (`scripts/crash_matrix.sh`).

use crate::support::money::{Cli, Purse, Signer, answers, near, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Amount, Network, Transaction};
use regtest::{Bitcoind, EsploraServer};
use serde_json::Value;
use sortie::envelope::{Body, Carrier, scan_block};
use sortie::publish::{Backup, CarrierChoice, Request, prepare};
use sortie::wallet::Wallet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

const KILLED: i32 = 9;
/// Every how many points one is tried in the sample.
const SAMPLE: u64 = 9;
/// More restarts than this, and it does not come to an end.
const RESTARTS: u32 = 3;

/// What is done until it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Force,
    Bump,
    Reclaim,
    /// Shows an address that anybody can pay.
    Ask,
    /// Reveals what was paid to it.
    Paid,
    /// Writes down what is to be signed elsewhere.
    Draft,
    /// Publishes what was signed there.
    Finish,
    /// Reveals a mined commit whose journal is lost.
    Recover,
}

/// What the owner of a PSBT does with it.
fn sign_file(signer: &Signer, path: &Path) -> Result<()> {
    let psbt = fs::read_to_string(path)?.parse()?;
    Ok(fs::write(path, signer.sign(&psbt)?.to_string())?)
}

struct Case {
    act: Act,
    carrier: Carrier,
    /// Instead of the node.
    server: Option<EsploraServer>,
}

impl Case {
    fn name(&self) -> String {
        let over = if self.server.is_some() { " over esplora" } else { "" };
        format!("{:?} {:?}{over}", self.act, self.carrier).to_lowercase()
    }

    /// The options that lead the command to the server.
    fn source(&self) -> Vec<String> {
        self.server.iter().flat_map(|server| ["--esplora-url".to_owned(), server.url()]).collect()
    }
}

/// What a case added up to.
#[derive(Default)]
struct Sum {
    killed: u64,
    restarts: u32,
    fees: u64,
}

fn killed_at_any_point(act: Act, carrier: Carrier) -> Result<()> {
    let world = World::new(Window { window: 30_000, max_lag: 20_000 })?;
    all_points(&world, &Case { act, carrier, server: None })
}

fn all_points(world: &World, case: &Case) -> Result<()> {
    let every = match std::env::var("SORTIE_CRASH_MATRIX").as_deref() {
        Ok("all") => 1,
        _ => SAMPLE,
    };
    let name = case.name();
    let mut sum = Sum::default();
    let mut at = 1;
    while run(world, case, at, &mut sum).with_context(|| format!("{name}, killed at point {at}"))? {
        at += every;
    }
    ensure!(sum.killed > 0, "{name}: never killed");
    let Sum { killed, restarts, fees } = sum;
    println!("| {name} | {killed} | {restarts} | {killed} | 0 | {fees} |");
    Ok(())
}

#[test]
fn force_by_op_return_publishes_once_and_loses_nothing() -> Result<()> {
    killed_at_any_point(Act::Force, Carrier::OpReturn)
}

#[test]
fn force_by_taproot_publishes_once_and_loses_nothing() -> Result<()> {
    killed_at_any_point(Act::Force, Carrier::Taproot)
}

#[test]
fn bump_by_op_return_publishes_once_and_loses_nothing() -> Result<()> {
    killed_at_any_point(Act::Bump, Carrier::OpReturn)
}

#[test]
fn bump_by_taproot_publishes_once_and_loses_nothing() -> Result<()> {
    killed_at_any_point(Act::Bump, Carrier::Taproot)
}

#[test]
fn an_address_that_was_asked_for_is_paid_once_and_reveals() -> Result<()> {
    killed_at_any_point(Act::Ask, Carrier::Taproot)
}

#[test]
fn what_anybody_paid_is_revealed_once_and_the_rest_comes_back() -> Result<()> {
    killed_at_any_point(Act::Paid, Carrier::Taproot)
}

#[test]
fn reclaim_publishes_nothing_and_loses_nothing() -> Result<()> {
    killed_at_any_point(Act::Reclaim, Carrier::Taproot)
}

#[test]
fn drafting_by_op_return_reserves_once_and_loses_nothing() -> Result<()> {
    killed_at_any_point(Act::Draft, Carrier::OpReturn)
}

#[test]
fn drafting_by_taproot_reserves_once_and_loses_nothing() -> Result<()> {
    killed_at_any_point(Act::Draft, Carrier::Taproot)
}

#[test]
fn finishing_by_op_return_publishes_once_and_loses_nothing() -> Result<()> {
    killed_at_any_point(Act::Finish, Carrier::OpReturn)
}

#[test]
fn finishing_by_taproot_publishes_once_and_loses_nothing() -> Result<()> {
    killed_at_any_point(Act::Finish, Carrier::Taproot)
}

#[test]
fn recover_reveals_once_and_loses_nothing() -> Result<()> {
    killed_at_any_point(Act::Recover, Carrier::Taproot)
}

#[test]
fn force_over_a_server_publishes_once_and_loses_nothing() -> Result<()> {
    let world = World::new(Window { window: 30_000, max_lag: 20_000 })?;
    let server = Some(EsploraServer::start(&world.bitcoind)?);
    all_points(&world, &Case { act: Act::Force, carrier: Carrier::Taproot, server })
}

/// Mines the commit of a publication and loses the machine: its words are restored into the same folder.
fn strand(world: &World, mut purse: Purse, payload: &[u8]) -> Result<(Backup, Transaction)> {
    let payload = world.payload(Body::Tx(payload.to_vec()))?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(2)) };
    let prepared = prepare(&mut purse.wallet, &purse.rpc, &payload, &request)?;
    let (backup, commit) = Backup::of(&prepared).zip(prepared.commit().cloned()).context("a commit")?;
    world.bitcoind.mine_block_with(std::slice::from_ref(&commit))?;
    let dir = purse.wallet.dir().to_owned();
    drop(purse.wallet);
    fs::remove_dir_all(&dir)?;
    drop(Wallet::restore(&dir, Network::Regtest, purse.words, None, near(&purse.rpc))?);
    Ok((backup, commit))
}

/// Kills one run at one point, restarts it, and counts. `false`: there are not so many points.
fn run(world: &World, case: &Case, at: u64, sum: &mut Sum) -> Result<bool> {
    let cli = Cli::new(world)?;
    let name = format!("{}-{at}", case.name().replace(' ', "-"));
    let (dir, coins) = (Cli::wallet_dir(&name), [300_000, 400_000]);
    let signer = Signer::new(7)?;
    let purse = match case.act {
        Act::Draft | Act::Finish => {
            let descriptor = format!("tr({})", signer.account(&format!("86'/1'/{at}'"))?);
            Purse::watching(world, &dir, &descriptor, &coins)?
        }
        _ => Purse::new(world, &dir, &coins)?,
    };
    let (start, before) = (world.bitcoind.height()?, purse.before);
    let payload: Vec<u8> = name.bytes().cycle().take(150).collect();
    let tx = payload.to_lower_hex_string();
    let stranded = match case.act {
        Act::Recover => Some(strand(world, purse, &payload)?),
        _ => {
            drop(purse);
            None
        }
    };
    let line = stranded.iter().map(|(backup, _)| backup.to_string()).collect::<String>();
    let recover = ["recover", "--wallet", &name, "--backup", &line, "--tx", &tx, "--fee-rate", "2"];
    let carrier = match case.carrier {
        Carrier::OpReturn => "op-return",
        Carrier::Taproot => "taproot",
    };
    let force = ["force", &tx, "--unchecked", "--wallet", &name, "--carrier", carrier, "--fee-rate", "2"];
    let bump = ["bump", "1", "--wallet", &name, "--fee-rate", "6"];
    let reclaim = ["reclaim", "1", "--wallet", &name, "--fee-rate", "6"];
    let refund = Bitcoind::anyone_address();
    let to = refund.to_string();
    let ask = [
        "force",
        &tx,
        "--unchecked",
        "--wallet",
        &name,
        "--pay-from-anywhere",
        "--refund",
        &to,
        "--fee-rate",
        "2",
        "--no-wait",
    ];
    let file = world.path(&format!("{name}.psbt"));
    let psbt = file.display().to_string();
    let draft = [&force[..], &["--psbt", &psbt]].concat();
    let finish = ["finish", &psbt, "--wallet", &name];
    let command: &[&str] = match case.act {
        Act::Draft => &draft,
        Act::Finish => &finish,
        Act::Force => &force,
        Act::Bump => &bump,
        Act::Reclaim => &reclaim,
        Act::Ask | Act::Paid => &ask,
        Act::Recover => &recover,
    };
    let pay = |answer: &Value| -> Result<Amount> {
        let address = answer["address"].as_str().context("an address")?.parse::<Address<_>>()?.assume_checked();
        let paid = Amount::from_sat(answer["amount_sat"].as_u64().context("an amount")? + 5_000);
        world.bitcoind.fund_and_mine(&address, paid)?;
        Ok(paid)
    };
    let mut paid = Amount::ZERO;
    match case.act {
        Act::Force | Act::Ask | Act::Draft | Act::Recover => {}
        Act::Finish => {
            cli.run(&draft)?;
            sign_file(&signer, &file)?;
        }
        Act::Bump | Act::Reclaim => drop(cli.run(&force)?),
        Act::Paid => paid = pay(&cli.run(&ask)?)?,
    }

    let source = case.source();
    let command = || {
        let mut command = cli.command(command);
        command.args(&source);
        command
    };
    let first = command().env("SORTIE_CRASH_AT", at.to_string()).output()?;
    let was_killed = first.status.signal() == Some(KILLED);
    let mut output: Output = first;
    let mut restarts = 0;
    while !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        restarts += 1;
        ensure!(restarts <= RESTARTS, "it does not come to an end: {said}");
        output = command().output()?;
    }
    let mut answer: Value = answers(&output)?.into_iter().next().context("an answer")?;
    if case.act == Act::Ask {
        paid = pay(&answer)?;
        answer = cli.run(&ask)?;
    }
    if case.act == Act::Draft {
        sign_file(&signer, &file)?;
        answer = cli.run(&finish)?;
    }
    let hash = world.bitcoind.mine(1)?[0];

    // The chain has it once, and the wallet has the rest.
    let block = world.bitcoind.block(&hash)?;
    let mut found = Vec::new();
    for height in start + 1..=world.bitcoind.height()? {
        let raw = bitcoin::consensus::serialize(&world.bitcoind.block(&world.bitcoind.block_hash(height)?)?);
        found.extend(scan_block(&raw, Some(world.manifest.rollup_id().namespace()))?.found);
    }
    let expected = usize::from(case.act != Act::Reclaim);
    let bodies: Vec<_> = found.into_iter().map(|found| found.payload.map(|payload| payload.body)).collect();
    ensure!(bodies == vec![Ok(Body::Tx(payload)); expected], "{bodies:?} in the chain, {answer}");
    let commit = stranded.map(|(_, commit)| commit);
    let fees = world.fees_of(&block.txdata[1..])? + world.fees_of(commit.as_slice())?;
    let mut wallet = Wallet::open(&world.path(&Cli::wallet_dir(&name)), Network::Regtest)?;
    wallet.sync(&world.rpc()?)?;
    let after = wallet.balance().total();
    if paid > Amount::ZERO {
        // None of it was ours: what the reveal did not cost is at the refund address.
        let back: Amount = block.txdata[1..].iter().flat_map(|tx| &tx.output).map(|output| output.value).sum();
        ensure!(before == after && back == paid - fees, "{paid} paid, {fees} of fees, {back} back: {answer}");
        ensure!(block.txdata[1].output[0].script_pubkey == refund.script_pubkey(), "it went elsewhere: {answer}");
    } else {
        ensure!(before - fees == after, "{before} before, {fees} of fees, {after} after: {answer}");
    }
    let jobs = sortie::publish::jobs(&wallet)?;
    let done: Vec<_> = jobs.iter().filter(|job| !job.state.is_unfinished()).map(|job| job.state.name()).collect();
    let wanted = if case.act == Act::Reclaim { "reclaimed" } else { "confirmed" };
    ensure!(done == [wanted] && jobs.len() == 1, "{done:?} of {} jobs", jobs.len());
    ensure!(world.bitcoind.mempool()?.is_empty(), "something is left in the mempool");

    if was_killed {
        sum.killed += 1;
        sum.restarts += restarts;
        sum.fees += fees.to_sat();
    }
    Ok(was_killed)
}
