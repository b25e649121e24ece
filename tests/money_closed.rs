//! Money that comes to light when a job is closed: paid too late, or sent after it was given up.

use crate::support::money::{Cli, Purse, in_mempool, payload, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result};
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Amount};
use regtest::Bitcoind;
use sortie::envelope::{Body, Carrier};
use sortie::publish::{
    Caps, CarrierChoice, FINAL_DEPTH, Job, JobId, JobState, PublishError, Reclaimed, Request, anywhere, events, job,
    prepare, reclaim,
};

const WINDOW: Window = Window { window: 30, max_lag: 20 };
const PAID: Amount = Amount::from_sat(3_000);

/// A publication whose address was paid too little; that was taken back, and is mined.
fn underpaid(world: &World, purse: &mut Purse, payload: &[u8]) -> Result<(Job, Address)> {
    let refund = Bitcoind::anyone_address();
    let job = anywhere::ask(&mut purse.wallet, &purse.rpc, payload, rate(2), &Caps::default(), &refund, false)?;
    let address = anywhere::address(&purse.wallet, &job)?;
    world.bitcoind.fund_and_mine(&address, PAID)?;
    swept(world, purse, job.id, PAID)?;
    assert!(matches!(purse.job(job.id)?.state, JobState::Reclaimed(_)));
    Ok((job, address))
}

/// Takes back what is there, all of it, and mines that.
fn swept(world: &World, purse: &mut Purse, job: JobId, expected: Amount) -> Result<()> {
    purse.wallet.sync(&purse.rpc)?;
    let swept = reclaim(&mut purse.wallet, &purse.rpc, job, rate(2), &Caps::default())?;
    let Reclaimed::Sweeping { txid, fee, amount } = swept else { panic!("{swept:?}") };
    assert_eq!(amount + fee, expected);
    assert!(in_mempool(world, txid)?);
    world.bitcoind.mine(1)?;
    Ok(())
}

fn kinds(purse: &Purse, job: JobId) -> Result<Vec<&'static str>> {
    Ok(events(&purse.wallet, job)?.into_iter().map(|recorded| recorded.event.kind()).collect())
}

#[test]
fn what_is_paid_after_it_was_taken_back_comes_back_too() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[])?;
    let (asked, address) = underpaid(&world, &mut purse, &payload(&world, 10_000)?)?;
    let state = purse.job(asked.id)?.state;
    for _ in 0..2 {
        world.bitcoind.fund(&address, PAID)?;
        swept(&world, &mut purse, asked.id, PAID)?;
        assert_eq!(purse.job(asked.id)?.state, state, "what came later decides nothing");
    }
    let error = reclaim(&mut purse.wallet, &purse.rpc, asked.id, rate(2), &Caps::default()).expect_err("nothing left");
    assert!(matches!(error, PublishError::NotReclaimable { .. }), "{error}");
    assert_eq!(kinds(&purse, asked.id)?, ["planned", "reclaiming", "reclaimed", "swept", "swept"]);
    // Undone with all that came after it, they are sent again together.
    world.bitcoind.reorg(3)?;
    assert_eq!(purse.job(asked.id)?.state, JobState::Reclaiming);
    world.bitcoind.mine(1)?;
    assert!(matches!(purse.job(asked.id)?.state, JobState::Reclaimed(_)));
    Ok(())
}

#[test]
fn what_is_paid_to_a_job_that_is_no_longer_watched_is_recovered() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let mut purse = Purse::new(&world, &Cli::wallet_dir("default"), &[])?;
    let tx = vec![7; 10_000];
    let (asked, address) = underpaid(&world, &mut purse, &world.payload(Body::Tx(tx.clone()))?)?;
    world.bitcoind.mine(FINAL_DEPTH)?;
    purse.wallet.sync(&purse.rpc)?;
    assert_eq!(kinds(&purse, asked.id)?.last(), Some(&"final"));
    drop(purse);
    world.bitcoind.fund_and_mine(&address, PAID)?;

    let (code, error) = cli.fails(&["reclaim", &asked.id.to_string(), "--fee-rate", "2"])?;
    assert!(code == 1 && error.contains("sortie recover"), "{code}: {error}");
    let tx = tx.to_lower_hex_string();
    let recover = ["recover", "--tx", &tx, "--fee-rate", "2"];
    let (code, error) = cli.fails(&recover)?;
    assert!(code == 2 && error.contains("reclaimed at height") && error.contains("--reclaim"), "{code}: {error}");
    assert!(world.bitcoind.mempool()?.is_empty(), "what was given up is not revealed");
    let recovered = cli.run(&[&recover[..], &["--reclaim"]].concat())?;
    let txid = recovered["txids"][0].as_str().context("a transaction")?.parse()?;
    assert!(in_mempool(&world, txid)?);
    world.bitcoind.mine(1)?;
    cli.fails(&[&recover[..], &["--reclaim"]].concat())?;
    Ok(())
}

#[test]
fn a_commit_that_somebody_sent_after_it_was_given_up_comes_back() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[500_000])?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(2)) };
    let prepared = prepare(&mut purse.wallet, &purse.rpc, &payload(&world, 300)?, &request)?;
    let freed = reclaim(&mut purse.wallet, &purse.rpc, prepared.id, rate(2), &Caps::default())?;
    assert_eq!(freed, Reclaimed::Freed);
    let error = reclaim(&mut purse.wallet, &purse.rpc, prepared.id, rate(2), &Caps::default()).expect_err("free");
    assert!(matches!(error, PublishError::NotReclaimable { .. }), "{error}");

    let commit = prepared.commit().context("a commit")?.clone();
    world.bitcoind.mine_block_with(std::slice::from_ref(&commit))?;
    purse.wallet.sync(&purse.rpc)?;
    swept(&world, &mut purse, prepared.id, commit.output[0].value)?;
    let done = purse.job(prepared.id)?;
    assert!(matches!(done.state, JobState::Reclaimed(_)), "{:?}", done.state);
    let sweep = world.fees_of(&[commit, done.reclaims[0].clone()])?;
    assert_eq!(purse.spent()?, sweep, "fees, and nothing else");
    Ok(())
}

#[test]
fn what_was_given_up_and_mined_all_the_same_is_published() -> Result<()> {
    let world = World::new(WINDOW)?;
    for carrier in [Carrier::OpReturn, Carrier::Taproot] {
        let mut purse = Purse::new(&world, &format!("{carrier:?}"), &[500_000])?;
        let request = Request { carrier: CarrierChoice::Only(carrier), ..Request::at(rate(2)) };
        let prepared = prepare(&mut purse.wallet, &purse.rpc, &payload(&world, 300)?, &request)?;
        reclaim(&mut purse.wallet, &purse.rpc, prepared.id, rate(2), &Caps::default())?;
        world.bitcoind.mine_block_with(&prepared.generations[0].transactions)?;
        assert!(matches!(purse.job(prepared.id)?.state, JobState::Confirmed(_)));
        assert_eq!(purse.wallet.coins()?.len(), 1, "its change can be spent");
        let again = sortie::publish::publish(&mut purse.wallet, &purse.rpc, &payload(&world, 300)?, &request)?;
        assert!(again.resumed, "it is not paid for twice");
    }
    Ok(())
}

#[test]
fn what_was_given_up_is_watched_until_its_coins_are_gone_for_good() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[500_000])?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(2)) };
    let prepared = prepare(&mut purse.wallet, &purse.rpc, &payload(&world, 300)?, &request)?;
    reclaim(&mut purse.wallet, &purse.rpc, prepared.id, rate(2), &Caps::default())?;
    purse.publish(&payload(&world, 301)?, Carrier::OpReturn, 2)?;
    world.bitcoind.mine(FINAL_DEPTH - 1)?;
    purse.wallet.sync(&purse.rpc)?;
    assert_eq!(kinds(&purse, prepared.id)?.last(), Some(&"abandoned"));
    world.bitcoind.mine(1)?;
    purse.wallet.sync(&purse.rpc)?;
    assert_eq!(kinds(&purse, prepared.id)?.last(), Some(&"final"));
    assert!(matches!(job(&purse.wallet, prepared.id)?.state, JobState::Abandoned(_)));
    Ok(())
}
