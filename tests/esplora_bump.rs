//! Without a node: what hangs together in the mempool is asked of an Esplora server, so that a bump pays for it.

use crate::support::money::{payload, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result};
use bitcoin::{Amount, FeeRate, Network, OutPoint, Sequence, Transaction, TxIn, TxOut, Witness, absolute, transaction};
use regtest::{Bitcoind, EsploraServer};
use sortie::chain::{Esplora, Mempool};
use sortie::envelope::Carrier;
use sortie::publish::{
    Bump, Caps, CarrierChoice, RateTerms, Reclaimed, Request, anywhere, bump, hold, job, publish, reclaim,
};
use sortie::wallet::{Wallet, fee_for};

const WINDOW: Window = Window { window: 30, max_lag: 20 };

struct Serverside {
    world: World,
    server: EsploraServer,
    esplora: Esplora,
    wallet: Wallet,
}

/// A wallet with one coin, over a server.
fn serverside(sats: u64) -> Result<Serverside> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let network = bitcoin::Network::Regtest;
    let esplora = Esplora::connect(&server.url(), network, None)?;
    let (mut wallet, _) = Wallet::create(&world.path("wallet"), network, world.bitcoind.height()?, None)?;
    world.bitcoind.fund_and_mine(&wallet.address()?, Amount::from_sat(sats))?;
    wallet.sync(&esplora)?;
    Ok(Serverside { world, server, esplora, wallet })
}

#[test]
fn what_hangs_together_is_what_the_node_says() -> Result<()> {
    let Serverside { world, server: _server, esplora, mut wallet } = serverside(100_000_000)?;
    let rpc = world.rpc()?;
    // Each is paid from the rest of the one before: a tree of six.
    let mut txids = Vec::new();
    for length in [200, 300, 400] {
        let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(2)) };
        txids.extend(publish(&mut wallet, &esplora, &payload(&world, length)?, &request)?.txids);
        wallet.sync(&esplora)?;
    }
    assert_eq!(txids.len(), 6);
    for txid in &txids {
        let entry = rpc.entry(txid)?.context("it waits")?;
        assert_eq!(esplora.entry(txid)?, Some(entry), "{txid}");
        assert!(esplora.is_waiting(txid)?);
    }
    let root = rpc.entry(&txids[0])?.context("it waits")?;
    assert!(root.descendants_fee > root.fee * 5, "{root:?}");
    world.bitcoind.mine(1)?;
    assert_eq!(esplora.entry(&txids[0])?, None);
    assert!(!esplora.is_waiting(&txids[0])?);
    Ok(())
}

#[test]
fn a_bump_pays_for_what_it_hangs_on() -> Result<()> {
    let Serverside { world, server: _server, esplora, mut wallet } = serverside(1_000_000)?;
    let rpc = world.rpc()?;
    let request = |carrier| Request { carrier: CarrierChoice::Only(carrier), ..Request::at(rate(1)) };
    let first = publish(&mut wallet, &esplora, &payload(&world, 60)?, &request(Carrier::OpReturn))?;
    wallet.sync(&esplora)?;
    let second = publish(&mut wallet, &esplora, &payload(&world, 300)?, &request(Carrier::Taproot))?;
    let bumped = bump(&mut wallet, &esplora, second.job, rate(12), &Caps::default())?;
    assert_eq!(bumped.how, Bump::Replaced);
    let last = rpc.entry(bumped.txids.last().context("a reveal")?)?.context("it waits")?;
    assert!(last.ancestors_vsize > bumped.vsize, "it hangs on the first publication, too");
    assert_eq!(last.ancestors_fee, fee_for(rate(12), last.ancestors_vsize), "all of it pays the rate");
    let all: u64 = [&first.txids, &bumped.txids].into_iter().flatten().count() as u64;
    assert_eq!(world.bitcoind.mempool()?.len() as u64, all);
    let again = bump(&mut wallet, &esplora, second.job, rate(12), &Caps::default())?;
    assert_eq!(again.how, Bump::Enough, "and pays once");
    Ok(())
}

#[test]
fn what_others_built_on_a_publication_is_paid_for_when_it_is_replaced() -> Result<()> {
    let Serverside { world, server: _server, esplora, mut wallet } = serverside(10_000)?;
    let refund = Bitcoind::anyone_address();
    let payload = payload(&world, 300)?;
    let asked = anywhere::ask(&mut wallet, &esplora, &payload, rate(2), &Caps::default(), &refund, false)?;
    let paid = anywhere::payment(&wallet, &esplora, &asked)?.missing + Amount::from_sat(100_000);
    world.bitcoind.fund_and_mine(&anywhere::address(&wallet, &asked)?, paid)?;
    wallet.sync(&esplora)?;
    anywhere::reveal(&mut wallet, &esplora, asked.id)?;
    // Whoever paid has spent the refund already, at a rate that the replacement cannot pass over.
    let reveal = job(&wallet, asked.id)?.current().context("signed")?.transactions[0].clone();
    let child = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(reveal.compute_txid(), 0),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::from_slice(&[[0x51]]),
            ..TxIn::default()
        }],
        output: vec![TxOut {
            value: reveal.output[0].value - Amount::from_sat(9_000),
            script_pubkey: refund.script_pubkey(),
        }],
    };
    let child = world.bitcoind.send(&child)?;
    let bumped = bump(&mut wallet, &esplora, asked.id, rate(4), &Caps::default())?;
    assert!(bumped.fee > Amount::from_sat(9_000), "{bumped:?}");
    assert_eq!(world.bitcoind.mempool()?, bumped.txids, "the child is gone: {child}");

    let swept = reclaim(&mut wallet, &esplora, asked.id, rate(4), &Caps::default())?;
    let Reclaimed::Sweeping { txid, .. } = swept else { panic!("{swept:?}") };
    assert_eq!(world.bitcoind.mempool()?, [txid]);
    Ok(())
}

#[test]
fn a_deadline_is_held_by_the_servers_estimates() -> Result<()> {
    let Serverside { world, server, esplora, mut wallet } = serverside(1_000_000)?;
    server.set_fee_estimates(&[(1, 9.0), (2, 3.0)]);
    let confirm_by = Some(world.bitcoind.height()? + 3);
    let carrier = CarrierChoice::Only(Carrier::Taproot);
    let request = Request { carrier, confirm_by, ..Request::at(rate(3)) };
    let id = publish(&mut wallet, &esplora, &payload(&world, 200)?, &request)?.job;
    let terms = RateTerms { network: Network::Regtest, explicit: None, fallback: None, target_blocks: 1 };
    for (remaining, kwu) in [(2, 750), (1, 2_250)] {
        world.bitcoind.mine_empty(1)?;
        wallet.sync(&esplora)?;
        let held = hold(&mut wallet, &esplora, &[&esplora], id, &terms, &Caps::default())?;
        assert_eq!((held.remaining, held.pays), (remaining, FeeRate::from_sat_per_kwu(kwu)), "{held:?}");
    }
    let fee = job(&wallet, id)?.current().context("signed")?.fee;
    world.bitcoind.mine(1)?;
    wallet.sync(&esplora)?;
    assert_eq!(wallet.balance().total(), Amount::from_sat(1_000_000) - fee);
    Ok(())
}
