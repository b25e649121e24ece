//! A publication that waits too long pays more, or is taken back: on a real bitcoind.

use crate::support::money::{Cli, Purse, in_mempool, near, payload, rate};
use crate::support::nodes::{Altered, Exaggerating, NoReplacing, Unasked};
use crate::support::{Window, World};
use anyhow::{Context, Result};
use bitcoin::{Amount, Network, Txid};
use sortie::chain::Mempool;
use sortie::envelope::Carrier;
use sortie::publish::{
    Bump, Bumped, Caps, Event, JobId, JobState, PublishError, Reclaimed, bump, events, job, prepare, publish, reclaim,
    resume,
};
use sortie::publish::{CarrierChoice, Request};
use sortie::wallet::{Wallet, fee_for};

const WINDOW: Window = Window { window: 30, max_lag: 20 };
const BOTH: [Carrier; 2] = [Carrier::OpReturn, Carrier::Taproot];

fn raised(purse: &mut Purse, id: JobId, sat_per_vb: u64) -> Result<Bumped> {
    purse.wallet.sync(&purse.rpc)?;
    Ok(bump(&mut purse.wallet, &purse.rpc, id, rate(sat_per_vb), &Caps::default())?)
}

#[test]
fn a_bump_replaces_the_payloads_transaction_from_its_own_change() -> Result<()> {
    let world = World::new(WINDOW)?;
    for carrier in BOTH {
        let mut purse = Purse::new(&world, &format!("{carrier:?}"), &[1_000_000])?;
        let first = purse.publish(&payload(&world, 200)?, carrier, 2)?;
        let bumped = raised(&mut purse, first.job, 10)?;
        assert_eq!((bumped.how, bumped.replaced), (Bump::Replaced, Some(first.place.txid)));
        assert_ne!(bumped.place, bumped.place_before, "the item's place moves with it");
        assert_eq!(bumped.place_before.to_string(), first.place.to_string());
        assert!(!in_mempool(&world, first.place.txid)?);
        let (fee, vsize) = purse.in_pool(&bumped.txids)?;
        assert_eq!((fee, vsize), (bumped.fee, bumped.vsize), "what is told is what the node has");
        assert_eq!(fee, fee_for(rate(10), vsize), "{carrier:?}: exactly the rate that was asked for");

        let again = raised(&mut purse, first.job, 10)?;
        assert_eq!((again.how, &again.txids), (Bump::Enough, &bumped.txids), "the same command pays once");
        world.bitcoind.mine(1)?;
        let done = purse.job(first.job)?;
        assert!(matches!(done.state, JobState::Confirmed(_)), "{}", done.state);
        assert_eq!(done.place().map(|place| place.to_string()), Some(bumped.place.to_string()));
        assert_eq!(purse.spent()?, bumped.fee, "to the satoshi");
        let mut follower = world.follower(&format!("follower-{carrier:?}"))?;
        let places: Vec<_> = follower.items()?.iter().map(|queued| queued.item.place.txid).collect();
        assert_eq!(places.iter().filter(|txid| **txid == bumped.place.txid).count(), 1);
        assert!(!places.contains(&first.place.txid));
    }
    Ok(())
}

#[test]
fn a_bump_takes_another_coin_when_the_change_does_not_suffice() -> Result<()> {
    let world = World::new(WINDOW)?;
    for carrier in BOTH {
        let mut purse = Purse::new(&world, &format!("{carrier:?}"), &[1_500, 1_000_000])?;
        let first = purse.publish(&payload(&world, 200)?, carrier, 2)?;
        let bumped = raised(&mut purse, first.job, 30)?;
        assert_eq!(bumped.how, Bump::ReplacedWithCoin, "{carrier:?}");
        let (fee, vsize) = purse.in_pool(&bumped.txids)?;
        assert_eq!((fee, vsize), (bumped.fee, bumped.vsize));
        assert_eq!(fee, fee_for(rate(30), vsize), "{carrier:?}");
        world.bitcoind.mine(1)?;
        assert_eq!(purse.spent()?, bumped.fee);
    }
    Ok(())
}

#[test]
fn where_replacing_is_refused_a_child_pays_and_is_itself_replaced_by_the_next_bump() -> Result<()> {
    let world = World::new(WINDOW)?;
    for carrier in BOTH {
        let mut purse = Purse::new(&world, &format!("{carrier:?}"), &[1_000_000])?;
        let first = purse.publish(&payload(&world, 200)?, carrier, 2)?;
        let rpc = world.rpc()?;
        let refusing = Altered(&rpc, NoReplacing(first.place.txid));
        let bumped = bump(&mut purse.wallet, &refusing, first.job, rate(10), &Caps::default())?;
        assert_eq!((bumped.how, bumped.replaced), (Bump::Child, None));
        assert_eq!(bumped.place, bumped.place_before, "the payload has not moved");
        let (fee, vsize) = purse.in_pool(&bumped.txids)?;
        assert_eq!((fee, vsize), (bumped.fee, bumped.vsize));
        assert_eq!(fee, fee_for(rate(10), vsize), "together they pay the rate");

        let again = raised(&mut purse, first.job, 20)?;
        assert_eq!((again.how, again.replaced), (Bump::Child, bumped.txids.last().copied()));
        let (fee, vsize) = purse.in_pool(&again.txids)?;
        assert_eq!((fee, vsize), (again.fee, again.vsize));
        assert!(fee >= fee_for(rate(20), vsize));
        world.bitcoind.mine(1)?;
        assert_eq!(purse.spent()?, again.fee);
    }
    Ok(())
}

#[test]
fn caps_stop_a_bump_before_anything_is_signed() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let first = purse.publish(&payload(&world, 200)?, Carrier::Taproot, 2)?;
    let log = events(&purse.wallet, first.job)?;
    for caps in [
        Caps { max_fee: Some(Amount::from_sat(2_000)), max_fee_rate: None },
        Caps { max_fee: None, max_fee_rate: Some(rate(9)) },
    ] {
        let error = bump(&mut purse.wallet, &purse.rpc, first.job, rate(10), &caps).expect_err("too dear");
        assert!(matches!(error, PublishError::FeeCap(_)), "{error}");
    }
    assert_eq!(events(&purse.wallet, first.job)?, log);
    assert!(in_mempool(&world, first.place.txid)?);
    Ok(())
}

#[test]
fn a_publication_that_another_is_paid_from_is_not_replaced_under_it() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let first = purse.publish(&payload(&world, 200)?, Carrier::Taproot, 2)?;
    let second = purse.publish(&payload(&world, 201)?, Carrier::OpReturn, 2)?;
    let error = bump(&mut purse.wallet, &purse.rpc, first.job, rate(10), &Caps::default()).expect_err("built on");
    assert!(error.to_string().contains(&format!("`sortie bump {}`", second.job)), "{error}");
    for error in
        [error, reclaim(&mut purse.wallet, &purse.rpc, first.job, rate(10), &Caps::default()).expect_err("built on")]
    {
        assert!(error.to_string().contains(&format!("job {} is paid from its change", second.job)), "{error}");
    }
    // The one on top pays for what it hangs on.
    let bumped = raised(&mut purse, second.job, 10)?;
    let all = [first.txids.clone(), bumped.txids.clone()].concat();
    let (fee, vsize) = purse.in_pool(&all)?;
    assert!(fee >= fee_for(rate(10), vsize), "{fee} for {vsize}");
    world.bitcoind.mine(1)?;
    assert_eq!(purse.spent()?, fee);
    Ok(())
}

#[test]
fn whichever_generation_confirms_is_the_one_that_counts() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let first = purse.publish(&payload(&world, 200)?, Carrier::Taproot, 2)?;
    let signed = job(&purse.wallet, first.job)?.generations[0].clone();
    let bumped = raised(&mut purse, first.job, 10)?;
    // A miner who never saw the replacement.
    world.bitcoind.mine_block_with(&signed.transactions)?;
    let done = purse.job(first.job)?;
    assert!(matches!(done.state, JobState::Confirmed(_)), "{}", done.state);
    assert_eq!(done.confirmed_by, Some(first.place.txid));
    assert_eq!(done.place().map(|place| place.to_string()), Some(first.place.to_string()));
    assert_eq!(purse.spent()?, first.fee);
    // And the other way round after a reorganisation.
    let replacement = job(&purse.wallet, first.job)?.generations[1].clone();
    world.bitcoind.reorg_with(1, |n| Ok(if n == 0 { replacement.transactions.clone() } else { Vec::new() }))?;
    let done = purse.job(first.job)?;
    assert_eq!(done.confirmed_by, Some(bumped.place.txid));
    assert_eq!(purse.spent()?, bumped.fee);
    Ok(())
}

#[test]
fn reclaim_takes_back_a_commit_whose_reveal_waits_in_the_mempool_and_can_be_raised() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let first = purse.publish(&payload(&world, 500)?, Carrier::Taproot, 5)?;
    let swept = reclaim(&mut purse.wallet, &purse.rpc, first.job, rate(2), &Caps::default())?;
    let Reclaimed::Sweeping { txid, .. } = swept else { panic!("{swept:?}") };
    assert!(in_mempool(&world, txid)? && !in_mempool(&world, first.place.txid)?, "the reveal gave way");
    let same = reclaim(&mut purse.wallet, &purse.rpc, first.job, rate(2), &Caps::default())?;
    assert_eq!(same, swept, "the same command pays once");
    let higher = reclaim(&mut purse.wallet, &purse.rpc, first.job, rate(40), &Caps::default())?;
    let Reclaimed::Sweeping { txid: raised, .. } = higher else { panic!("{higher:?}") };
    assert!(in_mempool(&world, raised)? && !in_mempool(&world, txid)?);
    let (fee, _) = purse.in_pool(&[first.txids[0], raised])?;
    world.bitcoind.mine(1)?;
    let done = purse.job(first.job)?;
    assert!(matches!(done.state, JobState::Reclaimed(_)), "{}", done.state);
    assert_eq!(purse.spent()?, fee);
    assert!(world.follower("follower")?.items()?.is_empty(), "nothing was forced");

    // Taken back, the payload may be published again: as another job, with another key.
    let again = purse.publish(&payload(&world, 500)?, Carrier::Taproot, 5)?;
    assert_ne!(again.job, first.job);
    Ok(())
}

#[test]
fn reclaim_takes_back_a_commit_that_is_mined_without_its_reveal() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let first = purse.publish(&payload(&world, 500)?, Carrier::Taproot, 5)?;
    world.bitcoind.mine_block_with(&first.txids[..1])?;
    assert_eq!(purse.job(first.job)?.state, JobState::RevealSent);
    let swept = reclaim(&mut purse.wallet, &purse.rpc, first.job, rate(50), &Caps::default())?;
    let Reclaimed::Sweeping { txid, fee, .. } = swept else { panic!("{swept:?}") };
    world.bitcoind.mine_block_with(&[txid])?;
    let done = purse.job(first.job)?;
    assert!(matches!(done.state, JobState::Reclaimed(_)), "{}", done.state);
    let commit_fee =
        Amount::from_sat(1_000_000) - job(&purse.wallet, first.job)?.generations[0].transactions[0].output[0].value;
    assert_eq!(purse.spent()?, commit_fee + fee);
    // A reorganisation brings the choice back: then the reveal may win after all.
    let reveal = done.generations[0].transactions[1].clone();
    world.bitcoind.reorg_with(1, |n| Ok(if n == 0 { vec![reveal.clone()] } else { Vec::new() }))?;
    assert!(matches!(purse.job(first.job)?.state, JobState::Confirmed(_)));
    assert_eq!(purse.spent()?, first.fee);
    Ok(())
}

#[test]
fn what_never_left_is_given_up_and_what_is_mined_cannot_be_taken_back() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(2)) };
    let prepared = prepare(&mut purse.wallet, &purse.rpc, &payload(&world, 500)?, &request)?;
    let freed = reclaim(&mut purse.wallet, &purse.rpc, prepared.id, rate(2), &Caps::default())?;
    assert_eq!(freed, Reclaimed::Freed);
    assert_eq!(purse.spent()?, Amount::ZERO);
    let log: Vec<_> = events(&purse.wallet, prepared.id)?.into_iter().map(|recorded| recorded.event.kind()).collect();
    assert_eq!(log, ["planned", "signed", "abandoned"]);

    let done = publish(&mut purse.wallet, &purse.rpc, &payload(&world, 500)?, &request)?;
    world.bitcoind.mine(1)?;
    purse.wallet.sync(&purse.rpc)?;
    let error = reclaim(&mut purse.wallet, &purse.rpc, done.job, rate(9), &Caps::default()).expect_err("mined");
    assert!(matches!(error, PublishError::NotReclaimable { .. }), "{error}");
    let error = bump(&mut purse.wallet, &purse.rpc, done.job, rate(9), &Caps::default()).expect_err("mined");
    assert!(matches!(error, PublishError::NotBumpable { .. }), "{error}");
    let log = events(&purse.wallet, done.job)?;
    assert!(matches!(log.last().map(|recorded| &recorded.event), Some(Event::Confirmed { .. })));
    Ok(())
}

/// The coin that a bump adds is spent by another machine with the same words.
#[test]
fn a_bump_whose_added_coin_is_gone_gives_way_to_what_stood_before() -> Result<()> {
    let world = World::new(WINDOW)?;
    for (n, carrier, by_child) in
        [(0, Carrier::OpReturn, false), (1, Carrier::Taproot, false), (2, Carrier::Taproot, true)]
    {
        let mut purse = Purse::new(&world, &format!("{n}"), &[20_000, 300_000])?;
        let words = purse.words.clone();
        let mut other =
            Wallet::restore(&world.path(&format!("{n}-other")), Network::Regtest, words, None, near(&purse.rpc))?;
        let coin = other.coins()?.into_iter().find(|coin| coin.value.to_sat() == 300_000).context("the other coin")?;
        let first = purse.publish(&payload(&world, 200)?, carrier, 2)?;
        let rpc = world.rpc()?;
        let added = match by_child {
            true => {
                let refusing = Altered(&rpc, NoReplacing(first.place.txid));
                bump(&mut purse.wallet, &refusing, first.job, rate(150), &Caps::default())?
            }
            false => raised(&mut purse, first.job, 150)?,
        };
        assert_eq!(added.how, if by_child { Bump::Child } else { Bump::ReplacedWithCoin });
        let request = Request { fund_from: Some(coin.outpoint), ..Request::at(rate(2)) };
        let taken = prepare(&mut other, &Unasked(&rpc), &payload(&world, 201)?, &request)?;
        world.bitcoind.mine_block_with(&taken.generations[0].transactions)?;

        purse.wallet.sync(&purse.rpc)?;
        resume(&mut purse.wallet, &purse.rpc)?;
        let stands = job(&purse.wallet, first.job)?;
        assert_eq!((stands.state.name(), stands.txids()), ("reveal_sent", first.txids.clone()));
        assert!(in_mempool(&world, first.place.txid)?);
        let again = raised(&mut purse, first.job, 20)?;
        assert_eq!(again.how, Bump::Replaced, "and can be bumped anew");
        world.bitcoind.mine(1)?;
        assert!(matches!(purse.job(first.job)?.state, JobState::Confirmed(_)));
        let others = taken.current().context("signed")?.fee;
        assert_eq!(purse.spent()?, again.fee + others, "to the satoshi");
        assert_eq!(world.follower(&format!("follower{n}"))?.items()?.len(), 2 * (n + 1));
    }
    Ok(())
}

#[test]
fn what_our_own_transactions_weigh_and_pay_is_nobody_elses_word() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    // The commit is paid from change that waits, too.
    purse.wallet.send(
        &purse.rpc,
        &regtest::Bitcoind::anyone_address(),
        Amount::from_sat(9_000),
        rate(2),
        &Caps::default(),
    )?;
    let first = purse.publish(&payload(&world, 200)?, Carrier::Taproot, 2)?;
    purse.wallet.sync(&purse.rpc)?;
    let bumped = bump(&mut purse.wallet, &Altered(&purse.rpc, Exaggerating), first.job, rate(5), &Caps::default())?;
    let (fee, vsize) = purse.in_pool(&world.bitcoind.mempool()?)?;
    assert_eq!(
        fee,
        fee_for(rate(5), vsize),
        "everything together at the rate that was asked for, and not more: {bumped:?}"
    );
    Ok(())
}

#[test]
fn nothing_is_paid_above_the_default_caps_unless_that_is_said() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    drop(world.wallet(&Cli::wallet_dir("default"), 2)?);
    let tx = "07".repeat(500);
    let refused = |arguments: &[&str], word: &str| -> Result<()> {
        let (code, error) = cli.fails(arguments)?;
        assert!(code == 4 && error.contains(word), "{arguments:?}: {error}");
        Ok(())
    };
    let dear = ["force", &tx, "--unchecked", "--fee-rate", "900"];
    refused(&dear, "above the cap of 200000 sat; raise --max-fee")?;
    let to = regtest::Bitcoind::anyone_address().to_string();
    let send = ["wallet", "send", "--to", &to, "--amount", "1200000", "--fee-rate", "1000"];
    refused(&send, "above the cap of 200000 sat; raise --max-fee")?;

    // Somebody paid for another one's envelope, and builds on the refund at a rate that a replacement has to outbid.
    let refund = regtest::Bitcoind::anyone_address().to_string();
    let force =
        ["force", &tx, "--unchecked", "--pay-from-anywhere", "--refund", &refund, "--fee-rate", "2", "--no-wait"];
    let asked = cli.run(&force)?;
    let address = asked["address"].as_str().context("an address")?.parse::<bitcoin::Address<_>>()?.assume_checked();
    world.bitcoind.fund_and_mine(&address, Amount::from_sat(100_000))?;
    let forced = cli.run(&force)?;
    let reveal: Txid = forced["txids"][0].as_str().context("a reveal")?.parse()?;
    let reveal = world.rpc()?.transaction(&reveal)?.context("it waits")?;
    let mut child = reveal.clone();
    child.input[0].previous_output = bitcoin::OutPoint::new(reveal.compute_txid(), 0);
    child.input[0].witness = bitcoin::Witness::from_slice(&[[0x51]]);
    child.output[0].value -= Amount::from_sat(20_000);
    world.bitcoind.send(&child)?;
    refused(&["bump", "1", "--fee-rate", "4"], "above the cap of 12 sat/vB")?;
    let bumped = cli.run(&["bump", "1", "--fee-rate", "4", "--max-fee", "30000"])?;
    assert!(bumped["fee_sat"].as_u64() > Some(20_000), "{bumped}");
    Ok(())
}
