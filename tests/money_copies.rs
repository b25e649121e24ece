//! Two copies of one wallet on a node whose mempool is too large to be read whole: neither replaces what the other has
//! sent.

use crate::support::money::{Purse, in_mempool, near, payload, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result};
use bitcoin::{Amount, Network};
use regtest::Bitcoind;
use sortie::envelope::Carrier;
use sortie::publish::{CarrierChoice, Publication, PublishError, Request, bump, jobs, publish};
use sortie::wallet::{Caps, Wallet, WalletError};

const WINDOW: Window = Window { window: 30, max_lag: 20 };

/// A wallet, and one that was restored from its words.
fn copies(world: &World, sats: &[u64]) -> Result<(Purse, Wallet)> {
    let mut purse = Purse::new(world, "first", sats)?;
    let mut copy = Wallet::restore(&world.path("copy"), Network::Regtest, purse.words.clone(), None, near(&purse.rpc))?;
    purse.wallet.read_mempools_up_to(0);
    copy.read_mempools_up_to(0);
    Ok((purse, copy))
}

fn op_return(sat_per_vb: u64) -> Request {
    Request { carrier: CarrierChoice::Only(Carrier::OpReturn), ..Request::at(rate(sat_per_vb)) }
}

fn are_waiting(world: &World, sent: &Publication) -> Result<bool> {
    sent.txids.iter().try_fold(true, |all, txid| Ok(all && in_mempool(world, *txid)?))
}

#[test]
fn what_another_copy_has_sent_is_seen_and_its_change_pays_for_the_next() -> Result<()> {
    let world = World::new(WINDOW)?;
    for (n, carrier) in [Carrier::OpReturn, Carrier::Taproot].into_iter().enumerate() {
        let mut purse = Purse::new(&world, &format!("first {n}"), &[100_000])?;
        let folder = world.path(&format!("copy {n}"));
        let mut copy = Wallet::restore(&folder, Network::Regtest, purse.words.clone(), None, near(&purse.rpc))?;
        purse.wallet.read_mempools_up_to(0);
        copy.read_mempools_up_to(0);
        let first = purse.publish(&payload(&world, 100)?, carrier, 12)?;
        copy.sync(&purse.rpc)?;
        assert_eq!(
            copy.balance().total(),
            Amount::from_sat(100_000) - first.fee,
            "of all that is spent, and its change"
        );
        let second = publish(&mut copy, &purse.rpc, &payload(&world, 101)?, &op_return(30));
        assert!(are_waiting(&world, &first)?, "{second:?}");
        let third =
            copy.send(&purse.rpc, &Bitcoind::anyone_address(), Amount::from_sat(10_000), rate(40), &Caps::default());
        assert!(are_waiting(&world, &first)?, "{third:?}");
        world.bitcoind.mine(1)?;
    }
    Ok(())
}

#[test]
fn what_is_spent_after_the_wallet_has_looked_is_noticed_when_it_is_chosen() -> Result<()> {
    let world = World::new(WINDOW)?;
    let (mut purse, mut copy) = copies(&world, &[100_000])?;
    let first = purse.publish(&payload(&world, 100)?, Carrier::OpReturn, 12)?;
    let error = publish(&mut copy, &purse.rpc, &payload(&world, 101)?, &op_return(30)).expect_err("spent");
    let spent = Amount::from_sat(100_000);
    assert!(
        matches!(&error, PublishError::Wallet(WalletError::SpentElsewhere { spent: told, .. }) if *told == spent),
        "{error}"
    );
    let to = Bitcoind::anyone_address();
    let error = copy.send(&purse.rpc, &to, Amount::from_sat(10_000), rate(40), &Caps::default()).expect_err("spent");
    assert!(matches!(error, WalletError::SpentElsewhere { .. }), "{error}");
    assert!(jobs(&copy)?.is_empty() && are_waiting(&world, &first)?);
    // With another coin it pays from that.
    world.bitcoind.fund_and_mine(&copy.address()?, Amount::from_sat(200_000))?;
    copy.sync(&purse.rpc)?;
    let next = purse.publish(&payload(&world, 102)?, Carrier::OpReturn, 5)?;
    let sent = publish(&mut copy, &purse.rpc, &payload(&world, 101)?, &op_return(30))?;
    assert!(are_waiting(&world, &next)? && are_waiting(&world, &sent)?);
    Ok(())
}

#[test]
fn a_bump_adds_no_coin_that_another_copy_has_spent() -> Result<()> {
    let world = World::new(WINDOW)?;
    let (mut purse, mut copy) = copies(&world, &[3_000, 50_000])?;
    // All but the larger coin goes into what is bumped.
    let small = Request { fund_from: Some(coin(&copy, 3_000)?), ..op_return(5) };
    let waiting = publish(&mut copy, &purse.rpc, &payload(&world, 100)?, &small)?;
    let large = Request { fund_from: Some(coin(&purse.wallet, 50_000)?), ..op_return(12) };
    let taken = publish(&mut purse.wallet, &purse.rpc, &payload(&world, 101)?, &large)?;
    let error = bump(&mut copy, &purse.rpc, waiting.job, rate(60), &Caps::default()).expect_err("no coin for that");
    assert!(matches!(error, PublishError::Wallet(WalletError::SpentElsewhere { .. })), "{error}");
    assert!(are_waiting(&world, &taken)? && are_waiting(&world, &waiting)?);
    Ok(())
}

fn coin(wallet: &Wallet, sat: u64) -> Result<bitcoin::OutPoint> {
    let found = wallet.coins()?.into_iter().find(|coin| coin.value.to_sat() == sat);
    Ok(found.context("the coin")?.outpoint)
}
