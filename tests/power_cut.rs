//! The power goes at each flush, and what was not flushed is lost or torn: nothing that was promised may be lost or
//! contradicted then. The same with flushes that do nothing shows that the loss would be noticed.

use crate::sequencer_kill::{LIMIT, Operated};
use crate::support::disk::{Disk, Fate, Unflushed};
use crate::support::money::{Cli, Purse, answers};
use crate::support::{GENESIS_BALANCE, Window, World, said};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::psbt::Psbt;
use bitcoin::{Amount, Network};
use regtest::{Bitcoind, wait_until};
use serde_json::Value;
use sortie::envelope::{Body, Carrier, scan_block};
use sortie::primitives::sha256;
use sortie::proof::{File, Receipt, Signed};
use sortie::wallet::Wallet;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

const KILLED: i32 = 9;
const WINDOW: Window = Window { window: 30_000, max_lag: 20_000 };

fn was_killed(output: &Output) -> bool {
    output.status.signal() == Some(KILLED)
}

/// Cuts the power at every `step`th flush, until `run` says that there are not so many; at last after the end.
fn at_flushes(step: usize, mut run: impl FnMut(usize, Fate, Unflushed) -> Result<bool>) -> Result<()> {
    let mut killed = 0;
    for at in (1..).step_by(step) {
        let unflushed = if killed % 2 == 0 { Unflushed::Lost } else { Unflushed::Torn(at as u64) };
        if !run(at, Fate::DiesAt(at), unflushed).with_context(|| format!("flush {at}, {unflushed:?}"))? {
            break;
        }
        killed += 1;
    }
    ensure!(killed > 0, "it flushes nothing");
    run(0, Fate::Runs, Unflushed::Lost).context("after the end")?;
    Ok(())
}

/// Its first answer, if it came so far.
fn told(output: &Output) -> Option<Value> {
    answers(output).ok()?.into_iter().next()
}

#[test]
fn words_that_were_shown_are_those_of_the_wallet() -> Result<()> {
    let world = World::new(WINDOW)?;
    let command = |home: &Path| -> Result<Command> {
        let mut command = world.sortie(&["--json", "wallet", "create"])?;
        command.env("SORTIE_DATA_DIR", home);
        Ok(command)
    };
    let Some(disk) = Disk::of(world.dir.path())? else { return Ok(()) };
    let run = |name: &str, fate, unflushed| -> Result<bool> {
        // A new folder each time: those above the wallet are made, too.
        let home = world.path(name);
        let output = disk.under(&mut command(&home)?, fate)?.output()?;
        disk.cut(unflushed)?;
        let wallet = home.join("regtest/wallets/default");
        if let Some(told) = told(&output) {
            let words = told["words"].as_str().context("words")?;
            ensure!(fs::read_to_string(wallet.join("seed"))?.contains(words), "other words");
        } else if !Wallet::exists(&wallet) {
            let again = command(&home)?.output()?;
            ensure!(again.status.success(), "{}", said(&again));
        }
        Wallet::open(&wallet, Network::Regtest)?.address()?;
        Ok(was_killed(&output))
    };
    at_flushes(2, |at, fate, unflushed| run(&format!("home-{at}"), fate, unflushed))?;
    for skipped in ["files", "folders"] {
        let lost = run(skipped, Fate::Skips(skipped), Unflushed::Lost);
        assert!(lost.is_err(), "without flushing {skipped} nothing was lost");
    }
    Ok(())
}

/// A wallet on a disk that forgets.
struct Payer<'a> {
    world: &'a World,
    cli: Cli<'a>,
    disk: Disk,
}

impl Payer<'_> {
    const NAME: &'static str = "payer";

    /// Runs a command, cuts the power, and runs it again if it was killed. Whether it was.
    fn run(&self, arguments: &[&str], fate: Fate, unflushed: Unflushed) -> Result<bool> {
        let arguments = [arguments, &["--wallet", Self::NAME]].concat();
        let before = self.world.bitcoind.mempool()?;
        let output = self.disk.under(&mut self.cli.command(&arguments), fate)?.output()?;
        ensure!(was_killed(&output) || output.status.success(), "{}", said(&output));
        self.disk.cut(unflushed)?;
        let mut sent = self.world.bitcoind.mempool()?;
        sent.retain(|txid| !before.contains(txid));
        let known = self.known()?;
        // Payments are counted in the end.
        sent.retain(|_| arguments[0] != "wallet");
        ensure!(sent.iter().all(|txid| known.contains(&txid.to_string())), "{sent:?} was sent, {known:?} is known");
        if let Some(job) = told(&output).map(|told| told["job"].clone()).filter(|job| !job.is_null()) {
            ensure!(known.contains(&job.to_string()), "job {job} is lost");
        }
        if was_killed(&output) {
            self.cli.lines(&arguments)?;
        }
        Ok(was_killed(&output))
    }

    /// Jobs in the wallet's file, and the transactions that were signed for them.
    fn known(&self) -> Result<BTreeSet<String>> {
        let wallet = self.open()?;
        let jobs = sortie::publish::jobs(&wallet)?;
        let of_jobs = jobs.iter().flat_map(|job| &job.generations).flat_map(|generation| &generation.transactions);
        let txids = of_jobs.map(|tx| tx.compute_txid().to_string());
        Ok(txids.chain(jobs.iter().map(|job| job.id.to_string())).collect())
    }

    fn open(&self) -> Result<Wallet> {
        Ok(Wallet::open(&self.world.path(&Cli::wallet_dir(Self::NAME)), Network::Regtest)?)
    }
}

#[test]
fn what_bitcoin_has_seen_is_in_the_journal_and_nothing_is_paid_twice() -> Result<()> {
    let world = World::new(WINDOW)?;
    let purse = Purse::new(&world, &Cli::wallet_dir(Payer::NAME), &[100_000; 20])?;
    let (start, before) = (world.bitcoind.height()?, purse.before);
    drop(purse.wallet);
    let cli = Cli::new(&world)?;
    let Some(disk) = Disk::of(world.dir.path())? else { return Ok(()) };
    let payer = Payer { world: &world, cli, disk };
    let force = |payload: &str| -> Vec<String> {
        let tx = payload.as_bytes().to_lower_hex_string();
        ["force", &tx, "--unchecked", "--carrier", "taproot", "--fee-rate", "2"].map(str::to_owned).to_vec()
    };

    let mut published = BTreeSet::new();
    at_flushes(6, |at, fate, unflushed| {
        let payload = format!("forced at {at}");
        let was_killed = payer.run(&as_strs(&force(&payload)), fate, unflushed)?;
        published.insert(payload.into_bytes());
        Ok(was_killed)
    })?;
    let mut jobs = 1..=published.len();
    at_flushes(6, |_, fate, unflushed| {
        let Some(job) = jobs.next() else { return Ok(false) };
        payer.run(&["bump", &job.to_string(), "--fee-rate", "6"], fate, unflushed)
    })?;
    let (to, mut paid) = (Bitcoind::anyone_address(), BTreeSet::new());
    at_flushes(3, |at, fate, unflushed| {
        let amount = 5_000 + at as u64;
        paid.insert(amount);
        let (to, amount) = (to.to_string(), amount.to_string());
        payer.run(&["wallet", "send", "--to", &to, "--amount", &amount, "--fee-rate", "2"], fate, unflushed)
    })?;
    at_flushes(3, |at, fate, unflushed| {
        let ask = ["--pay-from-anywhere", "--refund", &to.to_string(), "--no-wait"].map(str::to_owned);
        payer.run(&as_strs(&[force(&format!("asked for at {at}")), ask.to_vec()].concat()), fate, unflushed)
    })?;

    // Each payload is in the chain once, each payment too, and nothing is lost but for fees.
    world.bitcoind.mine(1)?;
    let block = world.bitcoind.block(&world.bitcoind.tip()?)?;
    assert_eq!(world.bitcoind.height()?, start + 1);
    let found = scan_block(&bitcoin::consensus::serialize(&block), Some(world.manifest.rollup_id().namespace()))?.found;
    let bodies: Vec<_> = found.into_iter().filter_map(|found| Some(found.payload.ok()?.body)).collect();
    assert_eq!(bodies.len(), published.len());
    assert!(published.into_iter().all(|payload| bodies.contains(&Body::Tx(payload))));
    let outputs = block.txdata[1..].iter().flat_map(|tx| &tx.output);
    let payments: Vec<_> = outputs.filter(|output| output.script_pubkey == to.script_pubkey()).collect();
    assert_eq!(payments.len(), paid.len());
    assert_eq!(payments.iter().map(|output| output.value.to_sat()).collect::<BTreeSet<_>>(), paid);
    let mut wallet = payer.open()?;
    wallet.sync(&world.rpc()?)?;
    let gone = world.fees_of(&block.txdata[1..])? + Amount::from_sat(paid.iter().sum());
    assert_eq!(before - wallet.balance().total(), gone);
    drop(wallet);

    let lost = payer.run(&as_strs(&force("not flushed")), Fate::Skips("files"), Unflushed::Lost);
    assert!(lost.is_err_and(|error| error.to_string().contains("was sent")), "without a flush nothing was lost");
    Ok(())
}

fn as_strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// A command that writes a file, and what shows that it is whole.
struct Written {
    make: Vec<String>,
    option: &'static str,
    check: fn(&Cli<'_>, &str, &str) -> Result<()>,
    /// How many flushes from one cut to the next.
    step: usize,
}

#[test]
fn a_file_that_was_told_of_is_there_and_whole() -> Result<()> {
    let world = World::new(Window { window: 4, max_lag: 2 })?;
    let mut wallet = world.wallet("alice", 1)?;
    let forced = world.force(&mut wallet, &[b"forced".to_vec()], Carrier::OpReturn)?;
    drop(wallet);
    world.bitcoind.mine(1)?;
    let signer = crate::support::money::Signer::new(7)?;
    let descriptor = format!("tr({})", signer.account("86'/1'/0'")?);
    drop(Purse::watching(&world, &Cli::wallet_dir("watched"), &descriptor, &[100_000; 6])?);
    let cli = Cli::new(&world)?;
    let Some(disk) = Disk::of(world.dir.path())? else { return Ok(()) };

    let key = world.sequencer_key.account().to_lower_hex_string();
    let place = forced.place.to_string();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let new = words(&["rollup", "new", "--name", "new", "--executor", "opaque", "--sequencer", &key]);
    let draft = words(&["force", "--unchecked", "--wallet", "watched", "--fee-rate", "2"]);
    let files = [
        Written {
            make: words(&["ledger", "key"]),
            option: "--out",
            check: |cli, file, _| cli.run(&["ledger", "key", "--show", file]).map(drop),
            step: 1,
        },
        Written {
            make: new,
            option: "--out",
            check: |cli, file, _| cli.run(&["rollup", "show", file]).map(drop),
            step: 1,
        },
        Written {
            make: words(&["prove", "forced", &place]),
            option: "--out",
            check: |_, _, text| File::from_json(text.as_bytes()).map(drop).map_err(Into::into),
            step: 5,
        },
        Written {
            make: draft,
            option: "--psbt",
            check: |_, _, text| text.parse::<Psbt>().map(drop).map_err(Into::into),
            step: 5,
        },
    ];
    for (n, Written { make, option, check, step }) in files.iter().enumerate() {
        let run = |name: &str, fate, unflushed| -> Result<bool> {
            let file = format!("{name}-{n}");
            // Each transaction is another one.
            let tx = file.as_bytes().to_lower_hex_string();
            let mut command = cli.command(&as_strs(make));
            command.args([*option, &file]).args((*option == "--psbt").then_some(&tx));
            let output = disk.under(&mut command, fate)?.output()?;
            ensure!(was_killed(&output) || output.status.success(), "{}", said(&output));
            disk.cut(unflushed)?;
            let path = world.path(&file);
            if path.exists() || told(&output).is_some() {
                check(&cli, &file, &fs::read_to_string(&path)?).context(file)?;
            }
            Ok(was_killed(&output))
        };
        at_flushes(*step, |at, fate, unflushed| run(&format!("file-{at}"), fate, unflushed))
            .with_context(|| format!("{make:?}"))?;
        for skipped in ["files", "folders"] {
            let lost = run(skipped, Fate::Skips(skipped), Unflushed::Lost);
            assert!(lost.is_err(), "{make:?}: without flushing {skipped} nothing was lost");
        }
    }
    Ok(())
}

#[test]
fn a_follower_goes_on_to_the_same_heads() -> Result<()> {
    let world = World::new(Window { window: 4, max_lag: 2 })?;
    let mut wallet = world.wallet("alice", 1)?;
    for nonce in 0..3 {
        let transfer = world.transfer(&world.alice, &world.bob, 1_000, nonce);
        world.force(&mut wallet, &[transfer], Carrier::OpReturn)?;
        world.bitcoind.mine(3)?;
    }
    drop(wallet);
    let Some(disk) = Disk::of(world.dir.path())? else { return Ok(()) };
    let follow = |home: &str| -> Result<Command> {
        let mut command = world.sortie(&["--json", "follow", "--once"])?;
        command.env("SORTIE_DATA_DIR", world.path(home));
        Ok(command)
    };
    let heads = |home: &str| -> Result<Value> {
        let output = follow(home)?.output()?;
        ensure!(output.status.success(), "{}", said(&output));
        answers(&output)?.pop().context("heads")
    };
    let expected = heads("undisturbed")?;
    at_flushes(3, |at, fate, unflushed| {
        let home = format!("home-{at}");
        let output = disk.under(&mut follow(&home)?, fate)?.output()?;
        disk.cut(unflushed)?;
        ensure!(heads(&home)? == expected, "other heads");
        Ok(was_killed(&output))
    })
}

/// What a sequencer has said, as anybody could have heard it.
#[derive(Default)]
struct Heard {
    /// Transactions that it took.
    taken: Vec<String>,
    /// Blocks with a signed header, by their parent.
    signed: BTreeMap<String, Value>,
    /// Receipts, by their transaction.
    receipts: BTreeMap<String, Value>,
}

impl Heard {
    /// Asks for everything, and holds it against what was heard before.
    fn listen(&mut self, url: &str) -> Result<()> {
        let ask =
            |path: &str| -> Result<Value> { Ok(ureq::get(format!("{url}/v1/{path}")).call()?.body_mut().read_json()?) };
        for hash in &self.taken {
            let answer = ask(&format!("tx/{hash}")).with_context(|| format!("{hash} was taken, and is unknown"))?;
            ensure!(answer["status"] != "rejected", "{hash} was taken: {answer}");
            if !answer["receipt"].is_null() {
                self.receipts.entry(hash.clone()).or_insert_with(|| answer["receipt"].clone());
            }
        }
        let head = ask("status")?["unsafe"]["number"].as_u64().context("a head")?;
        for number in 1..=head {
            let Ok(block) = ask(&format!("block/{number}")) else { continue };
            if block["signed"].is_null() {
                continue;
            }
            let parent = block["header"]["parent"].as_str().context("a parent")?.to_owned();
            let before = self.signed.entry(parent).or_insert_with(|| block["hash"].clone());
            ensure!(*before == block["hash"], "block {number}: {before} was signed, now {}", block["hash"]);
        }
        Ok(())
    }
}

/// What it has just done when the power goes: an event of its log, or nothing yet.
const MOMENTS: [Option<&str>; 6] =
    [Some("\"block\""), None, Some("\"posted\""), Some("\"bitcoin\""), Some("\"block\""), Some("\"posted\"")];

#[test]
fn a_sequencer_keeps_what_it_acknowledged_and_contradicts_nothing_that_it_signed() -> Result<()> {
    let operated = Operated::new()?;
    let world = &operated.world;
    let Some(disk) = Disk::of(world.dir.path())? else { return Ok(()) };
    let mut heard = Heard::default();
    let start = |fate| operated.start_as(|command| disk.under(command, fate).map(|_| ()));
    let mut nonces = 0_u64..;
    let mut send = |heard: &mut Heard, url: &str| -> Result<()> {
        let tx = world.transfer(&world.alice, &world.bob, 1_000, nonces.next().context("a number")?);
        operated.send(&tx, url)?;
        heard.taken.push(sha256(&tx).to_string());
        Ok(())
    };
    for (n, moment) in MOMENTS.into_iter().enumerate() {
        let (mut process, url) = start(Fate::Runs)?;
        heard.listen(&url)?;
        send(&mut heard, &url)?;
        // One batch is on its way at a time: the next one is posted once that is mined.
        if n % 2 == 1 || moment == Some("\"posted\"") {
            world.bitcoind.mine(1)?;
        }
        if let Some(event) = moment {
            process.wait_line(event, LIMIT, |line| line.contains(&format!("\"event\":{event}")))?;
        }
        heard.listen(&url)?;
        process.kill9()?;
        disk.cut(if n % 2 == 0 { Unflushed::Lost } else { Unflushed::Torn(n as u64) })?;
    }

    let (mut process, url) = start(Fate::Runs)?;
    heard.listen(&url)?;
    let mut follower = world.follower("follower")?;
    wait_until("every transfer to be derived", LIMIT, || {
        // Bitcoin waits for the batches: a window that passes without them would void what was promised.
        if !world.bitcoind.mempool()?.is_empty() {
            world.bitcoind.mine(1)?;
        }
        follower.sync()?;
        heard.listen(&url)?;
        Ok((follower.holding(&world.alice).nonce == MOMENTS.len() as u64).then_some(()))
    })?;
    let sent = MOMENTS.len() as u64 * 1_001;
    assert_eq!(follower.holding(&world.alice).balance, GENESIS_BALANCE - sent, "each exactly once");
    ensure!(!heard.signed.is_empty(), "it signed nothing that it could contradict");
    for (tx, receipt) in &heard.receipts {
        let Receipt { first_number, last_number, .. } =
            serde_json::from_value::<Signed<Receipt>>(receipt.clone())?.statement;
        let fates = follower.node.store().own_txs_with_hash(&tx.parse()?)?;
        ensure!(
            fates.iter().any(|fate| (first_number..=last_number).contains(&fate.l2_number)),
            "{receipt}: {fates:?}"
        );
    }
    process.kill9()?;

    let (mut process, url) = start(Fate::Skips("files folders"))?;
    send(&mut heard, &url)?;
    process.kill9()?;
    disk.cut(Unflushed::Lost)?;
    let (_process, url) = start(Fate::Runs)?;
    let lost = heard.listen(&url);
    assert!(lost.is_err_and(|error| error.to_string().contains("is unknown")), "without a flush nothing was lost");
    Ok(())
}
