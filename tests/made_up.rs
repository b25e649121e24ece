//! An Esplora server that makes things up: what it cannot show is not believed, and nothing of it lasts.

use crate::support::money::{Purse, near, payload, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result};
use bitcoin::absolute::LockTime;
use bitcoin::address::NetworkUnchecked;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use regtest::EsploraServer;
use regtest::esplora::Fault;
use serde_json::json;
use sortie::chain::{BlockSource, ChainError, Esplora, EsploraError, RpcNode};
use sortie::envelope::Carrier;
use sortie::publish::{CarrierChoice, JobState, Publication, Request, anywhere, job, jobs, publish, resume};
use sortie::wallet::{Caps, Wallet, WalletError};

const WINDOW: Window = Window { window: 30, max_lag: 20 };
const COIN: u64 = 1_000_000;

/// A wallet with one coin, known from a node; and a server that says what it is told to.
struct Liar {
    world: World,
    server: EsploraServer,
    esplora: Esplora,
    purse: Purse,
}

impl Liar {
    fn new() -> Result<Self> {
        let world = World::new(WINDOW)?;
        let server = EsploraServer::start(&world.bitcoind)?;
        let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
        let purse = Purse::new(&world, "wallet", &[COIN])?;
        Ok(Self { world, server, esplora, purse })
    }

    fn rpc(&self) -> &RpcNode {
        &self.purse.rpc
    }

    /// The height of the block that is said to hold what was made up.
    fn height(&self) -> Result<u32> {
        Ok(self.rpc().tip()?.height - 3)
    }
}

/// The `n`th transaction that was made up: it pays `sat` to `script`, out of nothing.
fn made_up(n: u32, script: &ScriptBuf, sat: u64) -> Transaction {
    let from = OutPoint::new(Txid::from_byte_array([0xee; 32]), n);
    spending(from, script, sat)
}

fn spending(previous_output: OutPoint, script: &ScriptBuf, sat: u64) -> Transaction {
    let input =
        TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness: Witness::new() };
    let output = TxOut { value: Amount::from_sat(sat), script_pubkey: script.clone() };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] }
}

fn force(wallet: &mut Wallet, world: &World, rpc: &RpcNode, length: usize) -> Result<Publication> {
    wallet.sync(rpc)?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::OpReturn), ..Request::at(rate(2)) };
    Ok(publish(wallet, rpc, &payload(world, length)?, &request)?)
}

fn is_odd(error: &WalletError) -> bool {
    matches!(error, WalletError::Chain(ChainError::Esplora(EsploraError::Malformed { .. })))
}

#[test]
fn a_coin_that_a_server_says_is_mined_and_cannot_show_is_refused() -> Result<()> {
    let mut liar = Liar::new()?;
    let script = liar.purse.wallet.address()?.script_pubkey();
    for count in [1, 30] {
        let all_money = Amount::MAX_MONEY.to_sat();
        liar.server.make_up((0..count).map(|n| made_up(n, &script, all_money)), Some(liar.height()?));
        let error = liar.purse.wallet.sync(&liar.esplora).expect_err("there is no proof");
        assert!(is_odd(&error), "{error}");
        liar.server.heal();
        liar.purse.wallet.sync(&liar.esplora)?;
        assert_eq!(liar.purse.wallet.balance().total(), Amount::from_sat(COIN));
    }
    force(&mut liar.purse.wallet, &liar.world, &liar.purse.rpc, 60)?;
    Ok(())
}

#[test]
fn coins_that_a_server_says_wait_add_up_pay_for_nothing_and_vanish() -> Result<()> {
    let mut liar = Liar::new()?;
    let wallet = &mut liar.purse.wallet;
    let script = wallet.address()?.script_pubkey();
    // The change of what looks like a payment by the wallet itself, from a coin that was made up.
    let paid = made_up(100, &script, COIN);
    let [_, change] = wallet.descriptors().texts();
    let change = liar.world.bitcoind.call("deriveaddresses", &[json!(change), json!([0, 0])])?;
    let change: Address<NetworkUnchecked> = change[0].as_str().context("an address")?.parse()?;
    let change = change.assume_checked().script_pubkey();
    let ours = spending(OutPoint::new(paid.compute_txid(), 0), &change, COIN - 1_000);
    let rich = (0..20).map(|n| made_up(n, &script, Amount::MAX_MONEY.to_sat()));
    liar.server.make_up(rich.chain([paid, ours]), None);
    wallet.sync(&liar.esplora)?;
    assert_eq!(wallet.balance().total(), Amount::MAX_MONEY, "more is nowhere");
    assert_eq!(wallet.coins()?.len(), 1, "the one that is mined");
    liar.server.heal();
    wallet.sync(&liar.esplora)?;
    assert_eq!(wallet.balance().total(), Amount::from_sat(COIN));

    liar.server.make_up([made_up(0, &script, COIN)], None);
    wallet.sync(&liar.esplora)?;
    assert_eq!(wallet.balance().incoming, Amount::from_sat(COIN));
    wallet.sync(&liar.purse.rpc)?;
    assert_eq!(wallet.balance().total(), Amount::from_sat(COIN), "a node does not know it");
    Ok(())
}

#[test]
fn a_spend_that_a_server_makes_up_takes_no_coin_away() -> Result<()> {
    let mut liar = Liar::new()?;
    let coin = liar.purse.wallet.coins()?[0].outpoint;
    let foreign = regtest::Bitcoind::anyone_address().script_pubkey();
    liar.server.make_up([spending(coin, &foreign, COIN)], Some(liar.height()?));
    let error = liar.purse.wallet.sync(&liar.esplora).expect_err("there is no proof");
    assert!(is_odd(&error), "{error}");
    liar.server.heal();
    for _ in 0..2 {
        liar.server.make_up([spending(coin, &foreign, COIN)], None);
        liar.purse.wallet.sync(&liar.esplora)?;
        liar.server.heal();
        liar.purse.wallet.sync(&liar.esplora)?;
        assert_eq!(liar.purse.wallet.balance().confirmed, Amount::from_sat(COIN));
    }
    Ok(())
}

#[test]
fn a_spend_that_a_server_hid_is_noticed_by_the_node() -> Result<()> {
    let mut liar = Liar::new()?;
    let words = liar.purse.words.clone();
    let mut copy = Wallet::restore(&liar.world.path("copy"), Network::Regtest, words, None, near(&liar.purse.rpc))?;
    liar.purse.publish(&payload(&liar.world, 60)?, Carrier::OpReturn, 2)?;
    liar.world.bitcoind.mine(1)?;
    // Whatever the copy asks for has no history: the server says that nothing was ever paid to it or spent.
    liar.server.fail("/scripthash", Fault::Empty);
    copy.sync(&liar.esplora)?;
    assert_eq!(copy.balance().total(), Amount::from_sat(COIN));
    copy.sync(&liar.purse.rpc)?;
    assert_eq!(
        copy.balance().total(),
        Amount::ZERO,
        "the coin is gone, and its change is in a block that was not read"
    );
    liar.purse.wallet.sync(&liar.purse.rpc)?;
    copy.rescan(&liar.purse.rpc, None)?;
    assert_eq!(copy.balance(), liar.purse.wallet.balance());
    Ok(())
}

/// A publication that others are to pay for, and its address.
fn asked(liar: &mut Liar) -> Result<(sortie::publish::JobId, Address)> {
    let refund = liar.purse.wallet.address()?;
    let payload = payload(&liar.world, 60)?;
    let wallet = &mut liar.purse.wallet;
    let asked = anywhere::ask(wallet, &liar.purse.rpc, &payload, rate(2), &Caps::default(), &refund, false)?;
    let address = anywhere::address(wallet, &asked)?;
    Ok((asked.id, address))
}

#[test]
fn a_payment_that_a_server_makes_up_does_not_strand_the_real_one() -> Result<()> {
    let mut liar = Liar::new()?;
    let (id, address) = asked(&mut liar)?;
    let script = address.script_pubkey();
    liar.server.make_up([made_up(0, &script, 50_000)], Some(liar.height()?));
    assert!(is_odd(&liar.purse.wallet.sync(&liar.esplora).expect_err("there is no proof")));
    liar.server.heal();
    liar.server.make_up([made_up(0, &script, 50_000)], None);
    liar.purse.wallet.sync(&liar.esplora)?;
    resume(&mut liar.purse.wallet, &liar.esplora)?;
    liar.server.heal();

    liar.world.bitcoind.fund_and_mine(&address, Amount::from_sat(60_000))?;
    for _ in 0..7 {
        liar.purse.wallet.sync(&liar.esplora)?;
        resume(&mut liar.purse.wallet, &liar.esplora)?;
        liar.world.bitcoind.mine(1)?;
    }
    liar.purse.wallet.sync(&liar.esplora)?;
    let job = job(&liar.purse.wallet, id)?;
    assert!(matches!(job.state, JobState::Confirmed(_)), "{}", job.state);
    assert_eq!(jobs(&liar.purse.wallet)?.len(), 1);
    Ok(())
}

#[test]
fn a_rescan_finds_everything_again_from_a_node_and_from_a_server() -> Result<()> {
    let mut liar = Liar::new()?;
    let (mut confirmed, mut sent) = (Vec::new(), Vec::new());
    for (n, carrier) in [Carrier::OpReturn, Carrier::Taproot].into_iter().enumerate() {
        confirmed.push(liar.purse.publish(&payload(&liar.world, 60 + n)?, carrier, 2)?.job);
        liar.world.bitcoind.mine(1)?;
    }
    sent.push(liar.purse.publish(&payload(&liar.world, 70)?, Carrier::Taproot, 2)?.job);
    let Liar { server, esplora, mut purse, .. } = liar;
    purse.wallet.sync(&purse.rpc)?;
    let before = (purse.wallet.balance(), purse.wallet.coins()?, purse.wallet.address()?);
    let states =
        |wallet: &Wallet| Ok::<_, anyhow::Error>(jobs(wallet)?.into_iter().map(|job| job.state).collect::<Vec<_>>());
    let jobs_before = states(&purse.wallet)?;
    let blocks = purse.wallet.rescan(&purse.rpc, None)?.blocks;
    assert!(blocks >= 3, "{blocks}");
    assert_eq!((purse.wallet.balance(), purse.wallet.coins()?, purse.wallet.address()?), before);
    assert_eq!(states(&purse.wallet)?, jobs_before);
    purse.wallet.rescan(&esplora, Some(1))?;
    assert_eq!(purse.wallet.birthday(), 1);
    assert_eq!((purse.wallet.balance(), purse.wallet.coins()?, purse.wallet.address()?), before);
    assert_eq!(states(&purse.wallet)?, jobs_before);
    // What a server says, and nobody shows, is not forgotten for it.
    server.make_up([made_up(0, &purse.wallet.address()?.script_pubkey(), COIN)], Some(2));
    purse.wallet.rescan(&esplora, None).expect_err("there is no proof").to_string();
    server.heal();
    purse.wallet.sync(&esplora).context("gone on with")?;
    assert_eq!(purse.wallet.balance(), before.0);
    Ok(())
}
