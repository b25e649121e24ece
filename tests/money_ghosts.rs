//! Coins whose ancestors are gone: out of the balance at once, lost after six blocks, and there again if those return.

use crate::support::money::{Purse, payload, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result};
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use regtest::{Bitcoind, EsploraServer};
use sortie::chain::{Esplora, Mempool};
use sortie::envelope::Carrier;
use sortie::publish::{JobId, JobState, Outcome, PublishError, anywhere, job, resume};
use sortie::wallet::{Caps, PaymentOutcome, Wallet, WalletSource};

const WINDOW: Window = Window { window: 30, max_lag: 20 };
const COIN: u64 = 100_000;
const OTHER: u64 = 90_000;

/// Spends a coin that anybody may spend.
fn spend(previous_output: OutPoint, outputs: &[(&Address, u64)]) -> Transaction {
    let witness = Witness::from_slice(&[[0x51]]);
    let input = TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness };
    let output = |(address, sat): &(&Address, u64)| TxOut {
        value: Amount::from_sat(*sat),
        script_pubkey: address.script_pubkey(),
    };
    let output = outputs.iter().map(output).collect();
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output }
}

/// A coin that hangs on two transactions of others in the last block, and what excludes them.
struct Ghost {
    family: [Transaction; 2],
    rival: Transaction,
}

impl Ghost {
    /// Pays `address` in the next block.
    fn mine(world: &World, address: &Address) -> Result<Self> {
        let anyone = Bitcoind::anyone_address();
        let coin = world.bitcoind.fund_and_mine(&anyone, Amount::from_sat(COIN + 2_000))?;
        let middle = spend(coin, &[(&anyone, COIN + 1_000)]);
        let paid = spend(OutPoint::new(middle.compute_txid(), 0), &[(address, COIN)]);
        let rival = spend(coin, &[(&anyone, COIN)]);
        world.bitcoind.mine_block_with(&[middle.clone(), paid.clone()])?;
        Ok(Self { family: [middle, paid], rival })
    }

    /// Takes the last block, and with it the coin, out of the chain; two blocks are in its place.
    fn vanish(&self, world: &World) -> Result<()> {
        world.bitcoind.reorg_with(1, |n| Ok(if n == 0 { vec![self.rival.clone()] } else { Vec::new() }))?;
        Ok(())
    }
}

/// Who is asked: a node, one whose mempool is not read whole, a server.
fn sources(world: &World) -> Result<(EsploraServer, Esplora)> {
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    Ok((server, esplora))
}

fn total(wallet: &Wallet) -> u64 {
    wallet.balance().total().to_sat()
}

fn state(wallet: &Wallet, id: JobId) -> Result<JobState> {
    Ok(job(wallet, id)?.state)
}

/// Publishes from a ghost, lets it vanish, and looks what comes of that.
fn gives_up<'a, S: Mempool>(world: &World, purse: &mut Purse, source: &'a S, carrier: Carrier, n: usize) -> Result<()>
where
    &'a S: Into<WalletSource<'a>>,
{
    let ghost = Ghost::mine(world, &purse.wallet.address()?)?;
    let first = purse.publish(&payload(world, 60 + n)?, carrier, 2)?.job;
    // Change pays for the next.
    let second = purse.publish(&payload(world, 80 + n)?, Carrier::OpReturn, 2)?.job;
    ghost.vanish(world)?;
    purse.wallet.sync(source)?;
    assert_eq!(total(&purse.wallet), 0, "right at once");
    let failed = resume(&mut purse.wallet, source)?;
    assert!(failed.iter().all(|one| matches!(one.outcome, Outcome::Failed(_))), "{failed:?}");
    assert_eq!(state(&purse.wallet, first)?.name(), "reveal_sent", "it may come back");

    world.bitcoind.mine(6)?;
    purse.wallet.sync(source)?;
    let lost = resume(&mut purse.wallet, source)?;
    for id in [first, second] {
        let outcome = lost.iter().find(|one| one.job == id).map(|one| &one.outcome);
        assert!(matches!(outcome, Some(Outcome::Failed(PublishError::Lost { .. }))), "{lost:?}");
        assert_eq!(state(&purse.wallet, id)?.name(), "abandoned");
    }
    purse.wallet.sync(source)?;
    assert_eq!(total(&purse.wallet), 0);
    Ok(())
}

#[test]
fn a_job_below_a_vanished_ancestor_is_given_up_and_paid_from_another_coin() -> Result<()> {
    let world = World::new(WINDOW)?;
    let (_server, esplora) = sources(&world)?;
    let rpc = world.rpc()?;
    let mut purse = Purse::new(&world, "wallet", &[])?;
    gives_up(&world, &mut purse, &rpc, Carrier::OpReturn, 0)?;
    gives_up(&world, &mut purse, &esplora, Carrier::Taproot, 1)?;
    purse.wallet.read_mempools_up_to(0);
    gives_up(&world, &mut purse, &rpc, Carrier::Taproot, 2)?;

    world.bitcoind.fund_and_mine(&purse.wallet.address()?, Amount::from_sat(OTHER))?;
    let again = purse.publish(&payload(&world, 60)?, Carrier::OpReturn, 2)?;
    assert!(!again.resumed);
    assert_eq!(purse.wallet.balance().total(), Amount::from_sat(OTHER) - again.fee);
    Ok(())
}

#[test]
fn what_comes_back_revives_what_hangs_on_it() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "wallet", &[])?;
    let ghost = Ghost::mine(&world, &purse.wallet.address()?)?;
    let sent = purse.publish(&payload(&world, 60)?, Carrier::OpReturn, 2)?;
    let left = purse.wallet.balance().total();
    let gone = world.bitcoind.reorg_with(1, |n| Ok(if n == 0 { vec![ghost.rival.clone()] } else { Vec::new() }))?;
    purse.wallet.sync(&purse.rpc)?;
    assert_eq!(total(&purse.wallet), 0);
    world.bitcoind.flip_back(&gone)?;
    purse.wallet.sync(&purse.rpc)?;
    assert_eq!(purse.wallet.balance().total(), left);
    resume(&mut purse.wallet, &purse.rpc)?;
    world.bitcoind.mine(1)?;
    assert_eq!(purse.job(sent.job)?.state.name(), "confirmed");
    Ok(())
}

#[test]
fn a_payment_below_a_vanished_ancestor_is_lost_and_asked_for_again_it_is_another() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "wallet", &[])?;
    let ghost = Ghost::mine(&world, &purse.wallet.address()?)?;
    purse.wallet.sync(&purse.rpc)?;
    let (to, amount) = (Bitcoind::anyone_address(), Amount::from_sat(10_000));
    let lost = purse.wallet.send(&purse.rpc, &to, amount, rate(2), &Caps::default())?;
    ghost.vanish(&world)?;
    purse.wallet.sync(&purse.rpc)?;
    assert_eq!(total(&purse.wallet), 0);
    let settled = purse.wallet.settle_payments(&purse.rpc)?;
    assert!(matches!(settled[0].outcome, PaymentOutcome::Stuck(_)), "{settled:?}");
    world.bitcoind.mine(6)?;
    world.bitcoind.fund_and_mine(&purse.wallet.address()?, Amount::from_sat(OTHER))?;
    purse.wallet.sync(&purse.rpc)?;
    assert_eq!(purse.wallet.settle_payments(&purse.rpc)?[0].outcome, PaymentOutcome::Lost);
    let other = purse.wallet.send(&purse.rpc, &to, amount, rate(2), &Caps::default())?;
    assert!(!other.resumed && other.txid != lost.txid);
    Ok(())
}

#[test]
fn a_reveal_below_a_vanished_payment_is_signed_anew_for_one_that_came() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "wallet", &[])?;
    let refund = purse.wallet.address()?;
    let payload = payload(&world, 60)?;
    let asked = anywhere::ask(&mut purse.wallet, &purse.rpc, &payload, rate(2), &Caps::default(), &refund, false)?;
    let address = anywhere::address(&purse.wallet, &asked)?;
    let ghost = Ghost::mine(&world, &address)?;
    purse.wallet.sync(&purse.rpc)?;
    resume(&mut purse.wallet, &purse.rpc)?;
    let first = job(&purse.wallet, asked.id)?.place().context("signed")?;
    ghost.vanish(&world)?;
    world.bitcoind.fund_and_mine(&address, Amount::from_sat(OTHER))?;
    for _ in 0..7 {
        purse.wallet.sync(&purse.rpc)?;
        resume(&mut purse.wallet, &purse.rpc)?;
        world.bitcoind.mine(1)?;
    }
    let job = purse.job(asked.id)?;
    assert_eq!(job.state.name(), "confirmed");
    assert_ne!(job.place(), Some(first));
    assert!(ghost.family.iter().all(|tx| !matches!(purse.rpc.is_waiting(&tx.compute_txid()), Ok(true))));
    Ok(())
}
