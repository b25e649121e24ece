//! Paid from any wallet, and found again on a machine that has nothing but the words.

use crate::support::money::{Cli, Purse, in_mempool, near, payload, rate};
use crate::support::nodes::{Altered, Cut};
use crate::support::{Window, World};
use anyhow::{Context, Result};
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Amount, Network, OutPoint, Transaction};
use regtest::Bitcoind;
use sortie::envelope::{Body, Carrier};
use sortie::publish::anywhere::Payment;
use sortie::publish::{
    Backup, Bump, Caps, CarrierChoice, FINAL_DEPTH, JobId, JobState, Outcome, PublishError, Reclaimed, Request,
    Resumed, anywhere, broadcast, bump, job, prepare, reclaim, resume,
};
use sortie::wallet::Wallet;

const WINDOW: Window = Window { window: 30, max_lag: 20 };

/// What the mempool or the tip has of a transaction.
fn transaction(world: &World, txid: bitcoin::Txid) -> Result<Transaction> {
    let rpc = world.rpc()?;
    if let Some(tx) = sortie::chain::Mempool::transaction(&rpc, &txid)? {
        return Ok(tx);
    }
    let block = world.bitcoind.block(&world.bitcoind.tip()?)?;
    block.txdata.into_iter().find(|tx| tx.compute_txid() == txid).context("neither in the mempool nor in the tip")
}

fn asked(world: &World, purse: &mut Purse, length: usize) -> Result<(sortie::publish::Job, Address, Amount)> {
    let refund = Bitcoind::anyone_address();
    let payload = payload(world, length)?;
    let job = anywhere::ask(&mut purse.wallet, &purse.rpc, &payload, rate(2), &Caps::default(), &refund, false)?;
    let address = anywhere::address(&purse.wallet, &job)?;
    let missing = anywhere::payment(&purse.wallet, &purse.rpc, &job)?.missing;
    Ok((job, address, missing))
}

#[test]
fn paid_exactly_or_over_confirmed_or_not_it_is_revealed_and_the_rest_comes_back() -> Result<()> {
    let world = World::new(WINDOW)?;
    // No coin of its own.
    let mut purse = Purse::new(&world, "alice", &[])?;
    for (length, over, mined) in [(100, 0, true), (101, 50_000, false), (102, 0, false)] {
        let (asked, address, missing) = asked(&world, &mut purse, length)?;
        assert_eq!(asked.state, JobState::Planned, "written down before anybody sees the address");
        assert_eq!(asked.asked, Some(missing));
        let unpaid = anywhere::reveal(&mut purse.wallet, &purse.rpc, asked.id).expect_err("not paid");
        assert!(matches!(unpaid, PublishError::Unpaid { received: Amount::ZERO, .. }), "{unpaid}");
        let paid = missing + Amount::from_sat(over);
        match mined {
            true => world.bitcoind.fund_and_mine(&address, paid)?,
            false => world.bitcoind.fund(&address, paid)?,
        };
        purse.wallet.sync(&purse.rpc)?;
        let revealed = anywhere::reveal(&mut purse.wallet, &purse.rpc, asked.id)?;
        let signed = revealed.generations[0].clone();
        assert!(signed.fee >= sortie::wallet::fee_for(rate(2), signed.vsize));
        assert!(in_mempool(&world, revealed.txids()[0])?);
        let back = &signed.transactions[0].output[0];
        assert_eq!(back.script_pubkey, Bitcoind::anyone_address().script_pubkey());
        assert_eq!(back.value, paid - signed.fee, "to the satoshi");
        let again = anywhere::reveal(&mut purse.wallet, &purse.rpc, asked.id)?;
        assert_eq!(again.txids(), revealed.txids());
        world.bitcoind.mine(1)?;
        assert!(matches!(purse.job(asked.id)?.state, JobState::Confirmed(_)));
    }
    let mut follower = world.follower("follower")?;
    assert_eq!(follower.items()?.len(), 3);
    world.bitcoind.reorg(1)?;
    let last = sortie::publish::jobs(&purse.wallet)?.last().context("a job")?.id;
    assert_eq!(purse.job(last)?.state, JobState::RevealSent, "a reorganisation is seen, though no coin is ours");
    Ok(())
}

#[test]
fn several_payments_add_up_and_a_late_one_is_swept_back() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[])?;
    let (asked, address, missing) = asked(&world, &mut purse, 200)?;
    let half = missing / 2 + Amount::from_sat(400);
    let less = Amount::from_sat(350);
    world.bitcoind.fund(&address, less)?;
    purse.wallet.sync(&purse.rpc)?;
    let resumed = resume(&mut purse.wallet, &purse.rpc)?;
    let payment = anywhere::payment(&purse.wallet, &purse.rpc, &asked)?;
    assert!(matches!(resumed[0].outcome, Outcome::Unpaid(asked) if asked == payment), "{resumed:?}");
    assert_eq!(payment.received, less);
    assert!(payment.missing > missing - less, "a second payment has to pay for its own input, too");
    world.bitcoind.fund(&address, payment.missing)?;
    // The process ended in between.
    drop(purse.wallet);
    purse.wallet = Wallet::open(&world.path("alice"), Network::Regtest)?;
    purse.wallet.sync(&purse.rpc)?;
    resume(&mut purse.wallet, &purse.rpc)?;
    let revealed = job(&purse.wallet, asked.id)?;
    assert_eq!(revealed.generations[0].transactions[0].input.len(), 2, "both are spent");
    let late: OutPoint = world.bitcoind.fund(&address, half + Amount::from_sat(1_000))?;
    world.bitcoind.mine(1)?;
    assert!(matches!(purse.job(asked.id)?.state, JobState::Confirmed(_)));

    let swept = reclaim(&mut purse.wallet, &purse.rpc, asked.id, rate(2), &Caps::default())?;
    let Reclaimed::Sweeping { txid, amount, fee } = swept else { panic!("{swept:?}") };
    assert_eq!(amount + fee, half + Amount::from_sat(1_000));
    let sweep = transaction(&world, txid)?;
    assert_eq!(sweep.input[0].previous_output, late);
    assert_eq!(sweep.output[0].script_pubkey, Bitcoind::anyone_address().script_pubkey());
    world.bitcoind.mine(1)?;
    assert!(matches!(purse.job(asked.id)?.state, JobState::Confirmed(_)), "the publication stands");
    let error = reclaim(&mut purse.wallet, &purse.rpc, asked.id, rate(2), &Caps::default()).expect_err("nothing left");
    assert!(matches!(error, PublishError::NotReclaimable { .. }), "{error}");
    Ok(())
}

/// What a wallet's "speed up" does: the same coins, the same payment, a higher fee.
fn sped_up(world: &World, payment: OutPoint, more: Amount, to: Option<&Address>) -> Result<OutPoint> {
    let mut tx = transaction(world, payment.txid)?;
    let change = tx.output.iter_mut().find(|output| output.value > more + more).context("change")?;
    change.value -= more;
    if let Some(to) = to {
        tx.output[payment.vout as usize].script_pubkey = to.script_pubkey();
    }
    Ok(OutPoint::new(world.bitcoind.send(&tx)?, payment.vout))
}

#[test]
fn a_payment_that_its_sender_replaces_is_revealed_anew_and_once() -> Result<()> {
    replaced(5_000)
}

#[test]
fn the_same_on_a_node_with_a_large_mempool() -> Result<()> {
    replaced(0)
}

/// With a wallet that takes mempools with more transactions for large ones.
fn replaced(small_mempool: u32) -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[])?;
    purse.wallet.read_mempools_up_to(small_mempool);
    let (asked, address, missing) = asked(&world, &mut purse, 300)?;
    let paid = world.bitcoind.fund(&address, missing)?;
    purse.wallet.sync(&purse.rpc)?;
    let first = anywhere::reveal(&mut purse.wallet, &purse.rpc, asked.id)?.txids()[0];
    assert!(in_mempool(&world, first)?);

    // The reveal leaves the mempool together with the payment that it spends.
    let replaced = sped_up(&world, paid, Amount::from_sat(30_000), None)?;
    assert!(!in_mempool(&world, first)? && !in_mempool(&world, paid.txid)?);
    // The process ended in between.
    drop(purse.wallet);
    purse.wallet = Wallet::open(&world.path("alice"), Network::Regtest)?;
    purse.wallet.read_mempools_up_to(small_mempool);
    purse.wallet.sync(&purse.rpc)?;
    resume(&mut purse.wallet, &purse.rpc)?;
    let revealed = job(&purse.wallet, asked.id)?;
    let second = revealed.current().context("signed")?.transactions[0].clone();
    assert_eq!(second.input[0].previous_output, replaced);
    assert!(in_mempool(&world, second.compute_txid())?);
    resume(&mut purse.wallet, &purse.rpc)?;
    assert_eq!(job(&purse.wallet, asked.id)?.generations.len(), 2, "signed anew once");
    world.bitcoind.mine(1)?;
    let done = purse.job(asked.id)?;
    assert!(matches!(done.state, JobState::Confirmed(_)));
    assert_eq!(done.confirmed_by, Some(second.compute_txid()));
    assert_eq!(world.follower("follower")?.items()?.len(), 1, "published once");
    Ok(())
}

/// What resuming does about the only job.
fn outcome(purse: &mut Purse) -> Result<Outcome> {
    purse.wallet.sync(&purse.rpc)?;
    Ok(resume(&mut purse.wallet, &purse.rpc)?.remove(0).outcome)
}

/// The payment is asked for again; it comes, and the payload is published once.
fn paid_again(world: &World, purse: &mut Purse, id: JobId, (address, missing): (&Address, Amount)) -> Result<()> {
    let unpaid = outcome(purse)?;
    let expected = Payment { received: Amount::ZERO, missing };
    assert!(matches!(unpaid, Outcome::Unpaid(payment) if payment == expected), "{unpaid:?}");
    world.bitcoind.fund(address, missing)?;
    let sent = outcome(purse)?;
    assert!(matches!(sent, Outcome::Sent(_)), "{sent:?}");
    world.bitcoind.mine(1)?;
    assert!(matches!(purse.job(id)?.state, JobState::Confirmed(_)));
    assert_eq!(world.follower("follower")?.items()?.len(), 1, "published once");
    Ok(())
}

#[test]
fn a_payment_that_its_sender_takes_back_is_asked_for_again() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[])?;
    let (asked, address, missing) = asked(&world, &mut purse, 300)?;
    let paid = world.bitcoind.fund(&address, missing)?;
    purse.wallet.sync(&purse.rpc)?;
    anywhere::reveal(&mut purse.wallet, &purse.rpc, asked.id)?;
    sped_up(&world, paid, Amount::from_sat(30_000), Some(&Bitcoind::anyone_address()))?;
    purse.wallet.sync(&purse.rpc)?;
    // Until that is buried the first payment may come back, and the reveal with it.
    for blocks in [0, 1, 4] {
        world.bitcoind.mine(blocks)?;
        let refused = outcome(&mut purse)?;
        assert!(matches!(refused, Outcome::Failed(PublishError::Stuck { .. })), "{refused:?}");
    }
    world.bitcoind.mine(1)?;
    paid_again(&world, &mut purse, asked.id, (&address, missing))
}

#[test]
fn a_sweep_whose_payment_was_replaced_is_signed_anew() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[])?;
    let (asked, address, missing) = asked(&world, &mut purse, 300)?;
    let paid = world.bitcoind.fund(&address, missing)?;
    let mut swept = || -> Result<Transaction> {
        purse.wallet.sync(&purse.rpc)?;
        let swept = reclaim(&mut purse.wallet, &purse.rpc, asked.id, rate(2), &Caps::default())?;
        let Reclaimed::Sweeping { txid, .. } = swept else { panic!("{swept:?}") };
        transaction(&world, txid)
    };
    assert_eq!(swept()?.input[0].previous_output, paid);
    let paid = sped_up(&world, paid, Amount::from_sat(30_000), None)?;
    assert_eq!(swept()?.input[0].previous_output, paid);
    world.bitcoind.mine(1)?;
    assert!(matches!(purse.job(asked.id)?.state, JobState::Reclaimed(_)));
    Ok(())
}

#[test]
fn a_bump_that_lost_its_payment_and_its_added_coin_is_asked_for_again() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[100_000])?;
    let (asked, address, missing) = asked(&world, &mut purse, 300)?;
    let paid = world.bitcoind.fund(&address, missing)?;
    purse.wallet.sync(&purse.rpc)?;
    anywhere::reveal(&mut purse.wallet, &purse.rpc, asked.id)?;
    let bumped = bump(&mut purse.wallet, &purse.rpc, asked.id, rate(20), &Caps::default())?;
    assert_eq!(bumped.how, Bump::ReplacedWithCoin);
    let elsewhere = Bitcoind::anyone_address();
    sped_up(&world, paid, Amount::from_sat(60_000), Some(&elsewhere))?;
    purse.wallet.sync(&purse.rpc)?;
    let half = Amount::from_sat(50_000);
    let sent = purse.wallet.send(&purse.rpc, &elsewhere, half, rate(2), &Caps::default())?;
    world.bitcoind.mine_block_with(&[sent.txid])?;
    let refused = outcome(&mut purse)?;
    assert!(matches!(refused, Outcome::Failed(PublishError::Stuck { .. })), "{refused:?}");
    // The first reveal may come back until what took its payment is buried.
    world.bitcoind.mine(6)?;
    paid_again(&world, &mut purse, asked.id, (&address, missing))
}

#[test]
fn what_is_missing_is_never_less_than_can_be_paid() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[])?;
    let (asked, address, missing) = asked(&world, &mut purse, 100)?;
    world.bitcoind.fund(&address, missing - Amount::from_sat(1))?;
    purse.wallet.sync(&purse.rpc)?;
    let payment = anywhere::payment(&purse.wallet, &purse.rpc, &asked)?;
    assert_eq!(payment.missing, address.script_pubkey().minimal_non_dust());
    world.bitcoind.fund(&address, payment.missing)?;
    purse.wallet.sync(&purse.rpc)?;
    anywhere::reveal(&mut purse.wallet, &purse.rpc, asked.id)?;
    Ok(())
}

#[test]
fn what_was_paid_can_be_bumped_or_taken_back_to_the_refund_address() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[])?;
    let (first, address, missing) = asked(&world, &mut purse, 300)?;
    let paid = missing + Amount::from_sat(20_000);
    world.bitcoind.fund(&address, paid)?;
    purse.wallet.sync(&purse.rpc)?;
    anywhere::reveal(&mut purse.wallet, &purse.rpc, first.id)?;
    let bumped = bump(&mut purse.wallet, &purse.rpc, first.id, rate(20), &Caps::default())?;
    assert!(bumped.fee >= sortie::wallet::fee_for(rate(20), bumped.vsize));
    let tx = transaction(&world, bumped.txids[0])?;
    assert_eq!(tx.output[0].value, paid - bumped.fee);

    let swept = reclaim(&mut purse.wallet, &purse.rpc, first.id, rate(30), &Caps::default())?;
    let Reclaimed::Sweeping { txid, amount, fee } = swept else { panic!("{swept:?}") };
    assert_eq!(amount + fee, paid);
    let sweep = transaction(&world, txid)?;
    assert_eq!(sweep.output[0].script_pubkey, Bitcoind::anyone_address().script_pubkey());
    world.bitcoind.mine(1)?;
    assert!(matches!(purse.job(first.id)?.state, JobState::Reclaimed(_)));
    Ok(())
}

#[test]
fn the_command_shows_address_uri_and_code_and_goes_on_after_a_restart() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    drop(world.wallet(&Cli::wallet_dir("default"), 0)?);
    let tx = world.transfer(&world.alice, &world.bob, 7, 0).to_lower_hex_string();
    let refund = Bitcoind::anyone_address().to_string();
    let force =
        ["force", &tx, "--unchecked", "--pay-from-anywhere", "--refund", &refund, "--fee-rate", "2", "--no-wait"];
    let shown = cli.run(&force)?;
    let address: Address = shown["address"].as_str().context("an address")?.parse::<Address<_>>()?.assume_checked();
    let amount = Amount::from_sat(shown["amount_sat"].as_u64().context("an amount")?);
    let uri = shown["uri"].as_str().context("a URI")?;
    assert_eq!(uri, format!("bitcoin:{address}?amount={}", amount.to_string_in(bitcoin::Denomination::Bitcoin)));
    assert_eq!(cli.run(&force)?, shown, "the same address until it is paid");
    assert_eq!(cli.lines(&["resume"])?.last(), Some(&shown), "and for whoever comes back later");
    assert_eq!(cli.run(&["jobs", "1"])?["address"], shown["address"]);
    let people = |more: &[&str]| -> Result<String> {
        Ok(String::from_utf8(cli.for_people(&[&force[..], more].concat()).output()?.stdout)?)
    };
    let [file, with_code] = [people(&[])?, people(&["--qr"])?];
    assert!(file.contains(uri) && file.contains(&format!("{} sat", amount.to_sat())), "{file}");
    assert!(scanned(&file).is_err(), "where there is no terminal, nobody scans: {file}");
    // Upper case makes a smaller code; neither scheme nor address depend on it.
    assert_eq!(scanned(&with_code)?.to_lowercase(), uri);
    world.bitcoind.fund(&address, amount)?;
    let forced = cli.run(&force)?;
    assert_eq!((&forced["state"], &forced["carrier"]), (&"mempool".into(), &"taproot".into()));
    world.bitcoind.mine(1)?;
    let status = cli.run(&["status", forced["place"].as_str().context("a place")?])?;
    assert_eq!(status["tx_hash"], forced["items"][0]["tx_hash"]);
    let (code, error) = cli.fails(&["force", &tx, "--unchecked", "--pay-from-anywhere"])?;
    assert!(code == 2 && error.contains("--refund"), "{error}");
    Ok(())
}

/// What a camera reads of a terminal with light letters on a dark ground.
fn scanned(shown: &str) -> Result<String> {
    const PIXELS: usize = 4;
    let is_code = |line: &&str| !line.trim().is_empty() && line.chars().all(|c| " ▀▄█".contains(c));
    let modules: Vec<[Vec<bool>; 2]> = shown
        .lines()
        .filter(is_code)
        .map(|line| ["▀█", "▄█"].map(|lit| line.chars().map(|c| lit.contains(c)).collect()))
        .collect();
    let rows: Vec<&Vec<bool>> = modules.iter().flatten().collect();
    let (width, height) = (rows.first().context("no code")?.len() * PIXELS, rows.len() * PIXELS);
    let light = |x: usize, y: usize| if rows[y / PIXELS][x / PIXELS] { 255 } else { 0 };
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, light);
    let grids = image.detect_grids();
    Ok(grids.first().context("no code is seen")?.decode()?.1)
}

/// A commit in the chain whose reveal was lost with its machine, and another machine with the same words.
fn stranded(world: &World, name: &str, tx: &[u8]) -> Result<(Backup, OutPoint, Amount)> {
    let mut lost = Purse::new(world, &Cli::wallet_dir(&format!("{name}-lost")), &[500_000])?;
    let payload = world.payload(Body::Tx(tx.to_vec()))?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(2)) };
    let prepared = prepare(&mut lost.wallet, &lost.rpc, &payload, &request)?;
    let commit = prepared.commit().context("a commit")?.clone();
    world.bitcoind.mine_block_with(std::slice::from_ref(&commit))?;
    let words = lost.words.clone();
    let backup = Backup::of(&prepared).context("a backup line")?;
    drop(lost);
    drop(Wallet::restore(&world.path(&Cli::wallet_dir(name)), Network::Regtest, words, None, near(&world.rpc()?))?);
    Ok((backup, OutPoint::new(commit.compute_txid(), 0), commit.output[0].value))
}

#[test]
fn recover_brings_an_unrevealed_commit_back_from_the_backup_line_or_the_payload() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    for (name, what) in [("line", "reclaim"), ("payload", "reveal"), ("both", "reveal")] {
        let tx = [vec![9; 200], name.as_bytes().to_vec()].concat();
        let (backup, commit, locked) = stranded(&world, name, &tx)?;
        let (line, tx) = (&backup.to_string(), tx.to_lower_hex_string());

        let birthday = (world.bitcoind.height()? - 10).to_string();
        let suspects = cli.lines(&["recover", "--wallet", name, "--since", &birthday])?;
        let listed = suspects.iter().any(|suspect| suspect["outpoint"] == commit.to_string());
        assert!(listed, "{suspects:?}");

        let wrong = cli.fails(&["recover", "--wallet", name, "--tx", "0a0a0a0a"])?;
        assert!(wrong.0 == 2 && wrong.1.contains("nothing to recover"), "{}", wrong.1);
        let arguments: &[&str] = match name {
            "line" => &["recover", "--wallet", name, "--backup", line, "--reclaim", "--fee-rate", "40"],
            "payload" => &["recover", "--wallet", name, "--tx", &tx, "--fee-rate", "40"],
            _ => &["recover", "--wallet", name, "--tx", &tx, "--backup", line, "--fee-rate", "40"],
        };
        let recovered = cli.run(arguments)?;
        let txid: bitcoin::Txid = recovered["txids"][0].as_str().context("a transaction")?.parse()?;
        let spend = transaction(&world, txid)?;
        assert_eq!(cli.run(arguments)?["txids"], recovered["txids"], "the same command pays once");
        world.bitcoind.mine(1)?;
        let mut wallet = Wallet::open(&world.path(&Cli::wallet_dir(name)), Network::Regtest)?;
        wallet.sync(&world.rpc()?)?;
        let back = spend.output[0].value;
        assert!(back < locked && wallet.balance().total() == back, "{name}: {back} of {locked}");
        let state = sortie::publish::jobs(&wallet)?[0].state.name();
        assert_eq!(state, if what == "reveal" { "confirmed" } else { "reclaimed" });
    }
    let mut follower = world.follower("follower")?;
    let items = follower.items()?;
    assert_eq!(items.len(), 2, "two were revealed, one was taken back");
    assert!(items.iter().all(|queued| queued.item.place.carrier == Carrier::Taproot));
    Ok(())
}

#[test]
fn a_sweep_that_was_written_down_and_not_sent_is_sent_by_resume_and_can_be_raised() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[])?;
    let (asked, address, missing) = asked(&world, &mut purse, 200)?;
    world.bitcoind.fund_and_mine(&address, missing)?;
    purse.wallet.sync(&purse.rpc)?;
    anywhere::reveal(&mut purse.wallet, &purse.rpc, asked.id)?;
    let paid = Amount::from_sat(20_000);
    let late = world.bitcoind.fund(&address, paid)?;
    world.bitcoind.mine(1)?;
    assert!(matches!(purse.job(asked.id)?.state, JobState::Confirmed(_)));
    let told = outcome(&mut purse)?;
    assert!(matches!(told, Outcome::Stranded(held) if held == paid), "{told:?}");

    let rpc = world.rpc()?;
    let cut =
        reclaim(&mut purse.wallet, &Altered(&rpc, Cut), asked.id, rate(2), &Caps::default()).expect_err("cut off");
    assert!(matches!(cut, PublishError::Unsent { .. }), "{cut}");
    assert!(world.bitcoind.mempool()?.is_empty());
    // The process ended there.
    drop(purse.wallet);
    purse.wallet = Wallet::open(&world.path("alice"), Network::Regtest)?;
    let signed = purse.job(asked.id)?.sweeps[0].compute_txid();
    let resumed = resume(&mut purse.wallet, &purse.rpc)?;
    let [Resumed { job, outcome: Outcome::Sent(sent) }] = resumed.as_slice() else { panic!("{resumed:?}") };
    assert_eq!((*job, sent), (asked.id, &vec![signed]));
    assert_eq!(transaction(&world, signed)?.input[0].previous_output, late);
    assert!(matches!(outcome(&mut purse)?, Outcome::InPlace));
    broadcast(&mut purse.wallet, &purse.rpc, asked.id)?;
    let same = reclaim(&mut purse.wallet, &purse.rpc, asked.id, rate(2), &Caps::default())?;
    assert!(matches!(same, Reclaimed::Sweeping { txid, .. } if txid == signed), "{same:?}");

    let raised = reclaim(&mut purse.wallet, &purse.rpc, asked.id, rate(20), &Caps::default())?;
    let Reclaimed::Sweeping { txid, fee, amount } = raised else { panic!("{raised:?}") };
    assert_eq!(world.bitcoind.mempool()?, [txid], "it replaced the one before");
    assert_eq!(fee + amount, paid);
    // As long as it waits, the job is not closed.
    world.bitcoind.mine_empty(FINAL_DEPTH)?;
    world.bitcoind.mine(FINAL_DEPTH - 1)?;
    assert!(matches!(purse.job(asked.id)?.state, JobState::Confirmed(_)));
    world.bitcoind.mine(1)?;
    assert!(matches!(purse.job(asked.id)?.state, JobState::Final(_)));
    assert!(resume(&mut purse.wallet, &purse.rpc)?.is_empty());
    Ok(())
}
