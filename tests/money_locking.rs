//! A commit that would lock much more than it needs returns the rest at once: on a real bitcoind.

use crate::support::money::{Cli, Purse, in_mempool, near, payload, rate};
use crate::support::nodes::Unasked;
use crate::support::{Window, World};
use anyhow::{Context, Result};
use bitcoin::hex::DisplayHex;
use bitcoin::{Amount, Network, OutPoint, Transaction};
use sortie::chain::Mempool;
use sortie::envelope::{Body, Carrier};
use sortie::publish::{
    Backup, Bump, Caps, CarrierChoice, JobState, LOCK_AT_MOST, Outcome, Publication, PublishError, Reclaimed, Request,
    Resumed, bump, job, prepare, psbt, publish, quote, reclaim, resume,
};
use sortie::sequencer::Done;
use sortie::wallet::{Wallet, fee_for};

const WINDOW: Window = Window { window: 30, max_lag: 20 };
const BITCOIN: u64 = 100_000_000;

fn taproot(sat_per_vb: u64) -> Request {
    Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(sat_per_vb)) }
}

fn commit(purse: &Purse, publication: &Publication) -> Result<Transaction> {
    let job = job(&purse.wallet, publication.job)?;
    Ok(job.commit().context("a commit")?.clone())
}

#[test]
fn the_rest_of_a_large_coin_is_spent_again_before_the_next_block() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[BITCOIN])?;
    let mut done = Vec::new();
    for length in [200, 500, 300] {
        purse.wallet.sync(&purse.rpc)?;
        let payload = payload(&world, length)?;
        let quoted = quote(&purse.wallet, &payload, &taproot(2), purse.rpc.relay()?)?;
        let quoted = quoted.into_iter().find(|cost| cost.carrier == Carrier::Taproot).context("a quote")?;
        let publication = publish(&mut purse.wallet, &purse.rpc, &payload, &taproot(2))?;
        assert_eq!((quoted.fee, quoted.vsize), (publication.fee, publication.vsize), "{length}");
        assert_eq!(purse.in_pool(&publication.txids)?, (quoted.fee, quoted.vsize), "as the node has it");
        let commit = commit(&purse, &publication)?;
        assert_eq!(commit.output.len(), 2);
        assert_eq!(commit.output[0].value, quoted.locked);
        assert!(quoted.locked < fee_for(rate(20), quoted.vsize) + Amount::from_sat(331), "{}", quoted.locked);
        assert_ne!(commit.output[1].script_pubkey, commit.output[0].script_pubkey);
        if let Some(before) = done.last() {
            let before: &Transaction = before;
            let change = OutPoint::new(before.compute_txid(), 1);
            assert_eq!(commit.input[0].previous_output, change, "paid from the rest, not from what is locked");
        }
        done.push(commit);
    }
    world.bitcoind.mine(1)?;
    let jobs = sortie::publish::jobs(&purse.wallet)?;
    let fees: Amount = jobs.iter().filter_map(|job| Some(job.current()?.fee)).sum();
    assert_eq!(purse.spent()?, fees, "to the satoshi");
    for known in jobs {
        assert!(matches!(purse.job(known.id)?.state, JobState::Confirmed(_)));
    }
    assert_eq!(world.follower("follower")?.items()?.len(), 3);
    Ok(())
}

#[test]
fn one_is_bumped_and_another_taken_back_and_a_third_stands_on_both() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[BITCOIN])?;
    let [first, second, third] = {
        let mut published = |length| -> Result<Publication> {
            purse.wallet.sync(&purse.rpc)?;
            Ok(publish(&mut purse.wallet, &purse.rpc, &payload(&world, length)?, &taproot(2))?)
        };
        [published(200)?, published(500)?, published(300)?]
    };
    // Ten times the rate, from its own change: that is what is left in it.
    let bumped = bump(&mut purse.wallet, &purse.rpc, first.job, rate(20), &Caps::default())?;
    assert_eq!((bumped.how, bumped.fee), (Bump::Replaced, fee_for(rate(20), bumped.vsize)));
    assert!(in_mempool(&world, bumped.place.txid)? && !in_mempool(&world, first.place.txid)?);
    // More than that needs another coin: the last one's rest is none that may be added.
    let error = bump(&mut purse.wallet, &purse.rpc, first.job, rate(40), &Caps::default()).expect_err("no coin");
    assert!(error.to_string().contains("not enough coins"), "{error}");
    let further = bump(&mut purse.wallet, &purse.rpc, third.job, rate(60), &Caps::default())?;
    assert_eq!(further.how, Bump::ReplacedWithCoin, "with the rest of its own commit");

    let swept = reclaim(&mut purse.wallet, &purse.rpc, second.job, rate(10), &Caps::default())?;
    let Reclaimed::Sweeping { txid, .. } = swept else { panic!("{swept:?}") };
    assert!(in_mempool(&world, txid)? && !in_mempool(&world, second.place.txid)?);
    assert!(in_mempool(&world, further.place.txid)?, "it hangs on the commit, not on the reveal");
    let waiting = world.bitcoind.mempool()?;
    assert_eq!(waiting.len(), 6);
    let mut fees = Amount::ZERO;
    for txid in &waiting {
        fees += purse.rpc.entry(txid)?.context("an entry")?.fee;
    }
    world.bitcoind.mine(1)?;
    let mut states = Vec::new();
    for publication in [&first, &second, &third] {
        states.push(purse.job(publication.job)?.state.name());
    }
    assert_eq!(states, ["confirmed", "reclaimed", "confirmed"]);
    assert_eq!(purse.spent()?, fees, "to the satoshi");
    Ok(())
}

#[test]
fn a_reorganisation_undoes_both_and_a_double_spend_ends_both() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[BITCOIN])?;
    // The same words elsewhere, before anything is spent.
    let mut other =
        Wallet::restore(&world.path("other"), Network::Regtest, purse.words.clone(), None, near(&purse.rpc))?;
    let first = publish(&mut purse.wallet, &purse.rpc, &payload(&world, 200)?, &taproot(2))?;
    let second = publish(&mut purse.wallet, &purse.rpc, &payload(&world, 300)?, &taproot(2))?;
    world.bitcoind.mine(1)?;
    assert!(matches!(purse.job(second.job)?.state, JobState::Confirmed(_)));
    world.bitcoind.reorg(1)?;
    for publication in [&first, &second] {
        assert_eq!(purse.job(publication.job)?.state, JobState::RevealSent);
    }
    let resumed = resume(&mut purse.wallet, &purse.rpc)?;
    assert!(resumed.iter().all(|resumed| matches!(resumed.outcome, Outcome::InPlace)), "{resumed:?}");

    // The other wallet's payment of the same coin is mined: neither of them can be, then.
    let rival = prepare(&mut other, &Unasked(&purse.rpc), &payload(&world, 400)?, &taproot(9))?;
    world.bitcoind.mine_block_with(&rival.generations[0].transactions)?;
    world.bitcoind.mine_empty(5)?;
    purse.wallet.sync(&purse.rpc)?;
    let resumed = resume(&mut purse.wallet, &purse.rpc)?;
    assert_eq!(resumed.len(), 2);
    let is_lost = |resumed: &Resumed| matches!(resumed.outcome, Outcome::Failed(PublishError::Lost { .. }));
    assert!(resumed.iter().all(is_lost), "{resumed:?}");
    assert_eq!(purse.spent()?, rival.generations[0].fee);
    Ok(())
}

#[test]
fn the_limit_decides_and_what_is_locked_never_exceeds_it() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_001_000])?;
    let payload = payload(&world, 200)?;
    let relay = purse.rpc.relay()?;
    let planned = |lock_at_most: Option<u64>| -> Result<_> {
        let request = Request { lock_at_most: lock_at_most.map(Amount::from_sat), ..taproot(1) };
        let costs = quote(&purse.wallet, &payload, &request, relay)?;
        costs.into_iter().find(|cost| cost.carrier == Carrier::Taproot).context("a quote")
    };
    let whole = planned(None)?;
    assert_eq!(whole.locked, Amount::from_sat(1_001_000 - 111), "all but the commit's fee");
    // What it holds beyond fees and dust.
    let excess = 1_001_000 - whole.fee.to_sat() - 330;
    assert_eq!(planned(Some(excess))?, whole, "not more than the limit");
    let split = planned(Some(excess - 1))?;
    assert_eq!((split.vsize, split.fee), (whole.vsize + 43, whole.fee + Amount::from_sat(43)));
    assert_eq!(split.locked.to_sat(), 330 + 10 * split.fee.to_sat() - 154, "ten times the fee, less the commit's");
    for (limit, locked) in [(0, 0), (1, 1), (500, 500)] {
        let cost = planned(Some(limit))?;
        let needed = cost.fee - Amount::from_sat(154) + Amount::from_sat(330);
        assert_eq!(cost.locked, needed + Amount::from_sat(locked), "{limit}");
    }
    // What would come back is dust: it is not worth an output.
    let mut small = Purse::new(&world, "bob", &[whole.fee.to_sat() + 330 + 43 + 329])?;
    let request = Request { lock_at_most: Some(Amount::ZERO), ..taproot(1) };
    let publication = publish(&mut small.wallet, &small.rpc, &payload, &request)?;
    assert_eq!(commit(&small, &publication)?.output.len(), 1);
    // Whatever the limit, it is published and nothing is lost.
    let request = Request { lock_at_most: Some(Amount::ZERO), again: true, ..taproot(1) };
    let publication = publish(&mut purse.wallet, &purse.rpc, &payload, &request)?;
    world.bitcoind.mine(1)?;
    assert_eq!(purse.spent()?, publication.fee);
    assert!(matches!(purse.job(publication.job)?.state, JobState::Confirmed(_)));
    Ok(())
}

#[test]
fn the_command_tells_what_is_locked_and_takes_the_limit_from_flag_and_file() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    drop(Purse::new(&world, &Cli::wallet_dir("default"), &[BITCOIN])?);
    let tx = world.transfer(&world.alice, &world.bob, 7, 0).to_lower_hex_string();
    let locked = |arguments: &[&str]| -> Result<u64> {
        let quoted = cli.run(&[&["quote", &tx, "--fee-rate", "2"], arguments].concat())?;
        quoted["quotes"][0]["carriers"][1]["locked_sat"].as_u64().context("locked_sat")
    };
    assert!(locked(&[])? < 10_000);
    assert!(locked(&["--lock-at-most", "100000000"])? > BITCOIN - 1_000);
    std::fs::write(world.path("settings.toml"), "lock_at_most = 700\n")?;
    let by_file = locked(&["--config", "settings.toml"])?;
    assert!(by_file < locked(&["--lock-at-most", &LOCK_AT_MOST.to_sat().to_string()])?);

    let force = ["force", &tx, "--carrier", "taproot", "--fee-rate", "2", "--config", "settings.toml"];
    let forced = cli.run(&force)?;
    assert_eq!(forced["quote"]["carriers"][1]["locked_sat"], by_file);
    assert_eq!(forced["fee_sat"], forced["quote"]["carriers"][1]["fee_sat"]);
    let balance = cli.run(&["wallet", "balance"])?;
    let fee = forced["fee_sat"].as_u64().context("a fee")?;
    assert_eq!(balance["spendable_sat"], BITCOIN - fee, "all of it but the fee can be spent at once");
    let taken = cli.run(&["reclaim", "1", "--fee-rate", "3"])?;
    assert_eq!(taken["outcome"], "sweeping", "{taken}");
    assert!(taken["amount_sat"].as_u64().context("an amount")? < by_file);
    Ok(())
}

#[test]
fn a_lost_machines_rest_is_there_at_once_and_the_backup_line_brings_the_other_part() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let mut lost = Purse::new(&world, &Cli::wallet_dir("lost"), &[BITCOIN])?;
    let payload = world.payload(Body::Tx(vec![9; 200]))?;
    let prepared = prepare(&mut lost.wallet, &lost.rpc, &payload, &taproot(20))?;
    let commit = prepared.commit().context("a commit")?.clone();
    world.bitcoind.mine_block_with(std::slice::from_ref(&commit))?;
    let (words, backup) = (lost.words.clone(), Backup::of(&prepared).context("a backup line")?.to_string());
    drop(lost);
    drop(Wallet::restore(&world.path(&Cli::wallet_dir("new")), Network::Regtest, words, None, near(&world.rpc()?))?);
    let total = |what: &str| -> Result<u64> {
        cli.run(&["wallet", "balance", "--wallet", "new"])?[what].as_u64().context("a balance")
    };
    assert_eq!(total("confirmed_sat")?, commit.output[1].value.to_sat());
    let birthday = (world.bitcoind.height()? - 10).to_string();
    let suspects = cli.lines(&["recover", "--wallet", "new", "--since", &birthday])?;
    let suspects: Vec<_> = suspects.iter().filter_map(|suspect| suspect["outpoint"].as_str()).collect();
    assert_eq!(suspects, [OutPoint::new(commit.compute_txid(), 0).to_string()], "and not what is ours");
    let back = cli.run(&["recover", "--wallet", "new", "--backup", &backup, "--reclaim", "--fee-rate", "2"])?;
    assert_eq!(back["outcome"], "reclaiming", "{back}");
    world.bitcoind.mine(1)?;
    let fees = BITCOIN - total("total_sat")?;
    assert!(fees < 600, "{fees} sat of fees: all else is back");
    Ok(())
}

#[test]
fn a_psbt_names_the_wallets_key_of_what_comes_back() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[BITCOIN])?;
    let (drafted, unsigned) = psbt::draft(&mut purse.wallet, &purse.rpc, &payload(&world, 300)?, &taproot(2))?;
    let draft = drafted.current().context("a draft")?;
    assert_eq!(unsigned.outputs.len(), 2);
    assert!(unsigned.outputs[0].tap_internal_key.is_none(), "the envelope's");
    assert!(unsigned.outputs[1].tap_internal_key.is_some(), "the wallet's");
    assert_eq!(draft.spent, draft.transactions[0].output[..1], "the reveal spends the first output");
    let fee = Amount::from_sat(BITCOIN) - draft.transactions[0].output[1].value - draft.transactions[1].output[0].value;
    assert_eq!(fee, draft.fee);
    Ok(())
}

#[test]
fn a_sequencers_batches_have_one_change_and_hang_on_each_other() -> Result<()> {
    let world = World::new(WINDOW)?;
    drop(Purse::new(&world, "sequencer-wallet", &[BITCOIN])?);
    let mut operator = world.sequencer(&[])?;
    world.bitcoind.mine(1)?;
    operator.tick_well()?;
    for nonce in 0..3 {
        operator.send(&world.transfer(&world.alice, &world.bob, 10, nonce))?;
    }
    let done = operator.tick_well()?;
    let posted = done.iter().find_map(|done| match done {
        Done::Posted { publication, .. } => Some(publication),
        _ => None,
    });
    let posted = posted.context("a batch")?;
    assert_eq!(posted.carrier, Carrier::Taproot);
    let commit = world.rpc()?.transaction(&posted.txids[0])?.context("its commit")?;
    assert_eq!(commit.output.len(), 1, "all of it passes through the reveal");
    Ok(())
}
