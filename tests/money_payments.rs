//! Which payments to an envelope count: those that are there, are worth what they cost, and fit.

use crate::support::money::{in_mempool, payload, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result};
use bitcoin::{Address, Amount, Network, OutPoint, Sequence, Transaction, TxIn, TxOut, Witness, absolute, transaction};
use regtest::{Bitcoind, EsploraServer};
use sortie::chain::{Esplora, Mempool};
use sortie::publish::{Caps, Job, JobState, Outcome, PublishError, Reclaimed, anywhere, bump, job, reclaim, resume};
use sortie::wallet::{Wallet, WalletSource, fee_for};

const WINDOW: Window = Window { window: 30, max_lag: 20 };
const COIN: Amount = Amount::from_sat(5_000_000);

/// Others' coins, their transactions, and an envelope that they pay for.
struct Others {
    world: World,
    wallet: Wallet,
}

impl Others {
    fn new() -> Result<Self> {
        let world = World::new(WINDOW)?;
        let wallet = world.wallet("alice", 0)?;
        Ok(Self { world, wallet })
    }

    fn asked(&mut self, node: &impl Mempool, length: usize, sat_per_vb: u64) -> Result<(Job, Address, Amount)> {
        let payload = payload(&self.world, length)?;
        let refund = Bitcoind::anyone_address();
        let job = anywhere::ask(&mut self.wallet, node, &payload, rate(sat_per_vb), &Caps::default(), &refund, false)?;
        let address = anywhere::address(&self.wallet, &job)?;
        let asked = job.asked.context("an amount")?;
        Ok((job, address, asked))
    }

    /// A mined coin that anybody can spend.
    fn coin(&self) -> Result<OutPoint> {
        self.world.bitcoind.fund_and_mine(&Bitcoind::anyone_address(), COIN)
    }

    fn send(&self, tx: &Transaction) -> Result<OutPoint> {
        Ok(OutPoint::new(self.world.bitcoind.send(tx)?, 0))
    }
}

/// A transaction that spends one of their coins, with what is left as its last output.
fn spend(from: (OutPoint, Amount), outputs: &[(&Address, Amount)], fee: u64) -> Transaction {
    let paid: Amount = outputs.iter().map(|(_, value)| *value).sum();
    let rest = from.1 - paid - Amount::from_sat(fee);
    let rest = (&Bitcoind::anyone_address(), rest);
    let output =
        |(address, value): &(&Address, Amount)| TxOut { value: *value, script_pubkey: address.script_pubkey() };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: from.0,
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::from_slice(&[[0x51]]),
            ..TxIn::default()
        }],
        output: outputs.iter().chain([&rest]).map(output).collect(),
    }
}

/// The output that holds what is left.
fn rest(tx: &Transaction) -> (OutPoint, Amount) {
    let vout = tx.output.len() - 1;
    (OutPoint::new(tx.compute_txid(), vout as u32), tx.output[vout].value)
}

/// An exchange pays from unconfirmed change, then raises the transaction before that.
fn parent_replaced<'a>(
    others: &mut Others,
    node: &'a (impl Mempool + 'a),
    source: impl Into<WalletSource<'a>> + Copy,
) -> Result<()> {
    let (asked, address, missing) = others.asked(node, 300, 2)?;
    let coin = (others.coin()?, COIN);
    let elsewhere = Bitcoind::anyone_address();
    let parent = spend(coin, &[(&elsewhere, Amount::from_sat(10_000))], 1_000);
    others.send(&parent)?;
    others.send(&spend(rest(&parent), &[(&address, missing)], 1_000))?;
    others.wallet.sync(source)?;
    let first = anywhere::reveal(&mut others.wallet, node, asked.id)?.txids()[0];
    assert!(in_mempool(&others.world, first)?);

    let raised = spend(coin, &[(&elsewhere, Amount::from_sat(10_000))], 50_000);
    others.send(&raised)?;
    assert!(!in_mempool(&others.world, first)?);
    others.wallet.sync(source)?;
    let waits = resume(&mut others.wallet, node)?;
    assert!(
        matches!(waits[0].outcome, Outcome::Failed(PublishError::Stuck { .. })),
        "nothing is there to be revealed: {waits:?}"
    );
    let again = others.send(&spend(rest(&raised), &[(&address, missing)], 1_000))?;
    others.wallet.sync(source)?;
    let resumed = resume(&mut others.wallet, node)?;
    assert!(matches!(resumed[0].outcome, Outcome::Sent(_)), "{resumed:?}");
    let revealed = job(&others.wallet, asked.id)?.current().context("signed")?.transactions[0].clone();
    assert_eq!(revealed.input.len(), 1);
    assert_eq!(revealed.input[0].previous_output, again);
    others.world.bitcoind.mine(1)?;
    others.wallet.sync(source)?;
    assert!(matches!(job(&others.wallet, asked.id)?.state, JobState::Confirmed(_)));
    assert_eq!(others.world.follower("follower")?.items()?.len(), 1, "published once");
    Ok(())
}

#[test]
fn a_payment_is_made_anew_after_what_it_hung_on_was_replaced() -> Result<()> {
    let mut others = Others::new()?;
    let rpc = others.world.rpc()?;
    parent_replaced(&mut others, &rpc, &rpc)
}

#[test]
fn the_same_on_a_node_with_a_large_mempool() -> Result<()> {
    let mut others = Others::new()?;
    others.wallet.read_mempools_up_to(0);
    let rpc = others.world.rpc()?;
    parent_replaced(&mut others, &rpc, &rpc)
}

#[test]
fn the_same_over_esplora() -> Result<()> {
    let mut others = Others::new()?;
    let server = EsploraServer::start(&others.world.bitcoind)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    parent_replaced(&mut others, &esplora, &esplora)
}

/// An honest payment, and another one that is double-spent two transactions before it once the reveal has it.
fn poisoned(others: &mut Others, node: &impl Mempool) -> Result<(Job, OutPoint)> {
    let (asked, address, missing) = others.asked(node, 300, 2)?;
    let coin = (others.coin()?, COIN);
    let elsewhere = Bitcoind::anyone_address();
    let honest = others.world.bitcoind.fund_and_mine(&address, missing + Amount::from_sat(3_000))?;
    let first = spend(coin, &[(&elsewhere, Amount::from_sat(10_000))], 1_000);
    let second = spend(rest(&first), &[(&elsewhere, Amount::from_sat(10_000))], 1_000);
    let third = spend(rest(&second), &[(&address, Amount::from_sat(1_000))], 1_000);
    for tx in [&first, &second, &third] {
        others.send(tx)?;
    }
    let rpc = others.world.rpc()?;
    others.wallet.sync(&rpc)?;
    anywhere::reveal(&mut others.wallet, node, asked.id)?;
    let revealed = job(&others.wallet, asked.id)?;
    assert_eq!(revealed.generations[0].transactions[0].input.len(), 2, "both are worth it");
    others.send(&spend(coin, &[(&elsewhere, Amount::from_sat(10_000))], 90_000))?;
    assert!(!in_mempool(&others.world, revealed.txids()[0])?);
    others.wallet.sync(&rpc)?;
    Ok((revealed, honest))
}

#[test]
fn a_payment_that_vanishes_does_not_hold_up_an_honest_one() -> Result<()> {
    let mut others = Others::new()?;
    let rpc = others.world.rpc()?;
    let (asked, honest) = poisoned(&mut others, &rpc)?;
    let resumed = resume(&mut others.wallet, &rpc)?;
    assert!(matches!(resumed[0].outcome, Outcome::Sent(_)), "{resumed:?}");
    let current = job(&others.wallet, asked.id)?.current().context("signed")?.transactions[0].clone();
    assert_eq!(current.input.iter().map(|input| input.previous_output).collect::<Vec<_>>(), [honest]);
    bump(&mut others.wallet, &rpc, asked.id, rate(4), &Caps::default())?;
    others.world.bitcoind.mine(1)?;
    others.wallet.sync(&rpc)?;
    assert!(matches!(job(&others.wallet, asked.id)?.state, JobState::Confirmed(_)));
    Ok(())
}

#[test]
fn nor_is_what_was_paid_kept_from_coming_back() -> Result<()> {
    let mut others = Others::new()?;
    let rpc = others.world.rpc()?;
    let (asked, honest) = poisoned(&mut others, &rpc)?;
    let swept = reclaim(&mut others.wallet, &rpc, asked.id, rate(3), &Caps::default())?;
    let Reclaimed::Sweeping { txid, .. } = swept else { panic!("{swept:?}") };
    let sweep = rpc.transaction(&txid)?.context("it waits")?;
    assert_eq!(sweep.input.iter().map(|input| input.previous_output).collect::<Vec<_>>(), [honest]);
    Ok(())
}

#[test]
fn a_reveal_waits_until_the_one_before_can_never_come_back() -> Result<()> {
    let mut others = Others::new()?;
    let rpc = others.world.rpc()?;
    let (asked, address, missing) = others.asked(&rpc, 300, 2)?;
    let coin = (others.coin()?, COIN);
    let elsewhere = Bitcoind::anyone_address();
    let parent = spend(coin, &[(&elsewhere, Amount::from_sat(10_000))], 1_000);
    others.send(&parent)?;
    others.send(&spend(rest(&parent), &[(&address, missing)], 1_000))?;
    others.wallet.sync(&rpc)?;
    anywhere::reveal(&mut others.wallet, &rpc, asked.id)?;
    others.send(&spend(coin, &[(&elsewhere, Amount::from_sat(10_000))], 50_000))?;
    // Nothing ties this payment to the first one: both reveals could be mined.
    others.world.bitcoind.fund(&address, missing)?;
    for blocks in [0, 1, 4] {
        others.world.bitcoind.mine(blocks)?;
        others.wallet.sync(&rpc)?;
        let resumed = resume(&mut others.wallet, &rpc)?;
        assert!(matches!(resumed[0].outcome, Outcome::Failed(PublishError::Stuck { .. })), "{resumed:?}");
        assert_eq!(job(&others.wallet, asked.id)?.generations.len(), 1);
    }
    others.world.bitcoind.mine(1)?;
    others.wallet.sync(&rpc)?;
    let resumed = resume(&mut others.wallet, &rpc)?;
    assert!(matches!(resumed[0].outcome, Outcome::Sent(_)), "{resumed:?}");
    Ok(())
}

/// Very many payments of 330 sat, mined.
fn dust(others: &Others, address: &Address, payments: usize) -> Result<()> {
    let outputs = vec![(address, Amount::from_sat(330)); payments];
    let tx = spend((others.coin()?, COIN), &outputs, 100_000);
    others.world.bitcoind.mine_block_with(&[tx])?;
    Ok(())
}

#[test]
fn payments_that_are_not_worth_their_input_change_nothing() -> Result<()> {
    let mut others = Others::new()?;
    let rpc = others.world.rpc()?;
    let (asked, address, missing) = others.asked(&rpc, 300, 10)?;
    dust(&others, &address, 1_800)?;
    others.wallet.sync(&rpc)?;
    let payment = anywhere::payment(&others.wallet, &rpc, &asked)?;
    assert_eq!((payment.received, payment.missing), (Amount::ZERO, missing));
    others.world.bitcoind.fund_and_mine(&address, missing)?;
    others.wallet.sync(&rpc)?;
    let revealed = anywhere::reveal(&mut others.wallet, &rpc, asked.id)?;
    assert_eq!(revealed.generations[0].transactions[0].input.len(), 1);
    others.world.bitcoind.mine(1)?;
    others.wallet.sync(&rpc)?;
    let error = reclaim(&mut others.wallet, &rpc, asked.id, rate(10), &Caps::default()).expect_err("dust is left");
    assert!(error.to_string().contains("worth its fee"), "{error}");
    Ok(())
}

#[test]
fn more_payments_than_a_transaction_can_spend_come_back_in_several() -> Result<()> {
    let mut others = Others::new()?;
    let rpc = others.world.rpc()?;
    let (asked, address, _) = others.asked(&rpc, 300, 2)?;
    dust(&others, &address, 1_800)?;
    others.wallet.sync(&rpc)?;
    let revealed = anywhere::reveal(&mut others.wallet, &rpc, asked.id)?;
    let spent = revealed.generations[0].transactions[0].input.len();
    assert!((1_700..1_800).contains(&spent), "{spent}");
    others.world.bitcoind.mine(1)?;
    others.wallet.sync(&rpc)?;
    assert!(matches!(job(&others.wallet, asked.id)?.state, JobState::Confirmed(_)));
    let swept = reclaim(&mut others.wallet, &rpc, asked.id, rate(2), &Caps::default())?;
    let Reclaimed::Sweeping { fee, amount, .. } = swept else { panic!("{swept:?}") };
    assert_eq!(fee + amount, Amount::from_sat(330) * (1_800 - spent) as u64);
    Ok(())
}

#[test]
fn others_transactions_are_not_paid_for_with_what_was_overpaid() -> Result<()> {
    let mut others = Others::new()?;
    let rpc = others.world.rpc()?;
    let heavy = |others: &Others, address: &Address, paid: Amount| -> Result<()> {
        let elsewhere = Bitcoind::anyone_address();
        let parent = spend((others.coin()?, COIN), &vec![(&elsewhere, Amount::from_sat(330)); 600], 30_000);
        others.send(&parent)?;
        others.send(&spend(rest(&parent), &[(address, paid)], 1_000))?;
        Ok(())
    };
    let (asked, address, missing) = others.asked(&rpc, 300, 10)?;
    others.world.bitcoind.fund_and_mine(&address, missing + Amount::from_sat(200_000))?;
    heavy(&others, &address, Amount::from_sat(5_000))?;
    others.wallet.sync(&rpc)?;
    let revealed = anywhere::reveal(&mut others.wallet, &rpc, asked.id)?;
    let signed = revealed.current().context("signed")?;
    assert_eq!(signed.transactions[0].input.len(), 1);
    assert_eq!(signed.fee, fee_for(rate(10), signed.vsize));
    others.world.bitcoind.mine(1)?;

    // What nothing else can stand in for counts all the same.
    let (asked, address, missing) = others.asked(&rpc, 301, 10)?;
    heavy(&others, &address, missing)?;
    others.wallet.sync(&rpc)?;
    let payment = anywhere::payment(&others.wallet, &rpc, &asked)?;
    assert_eq!((payment.received, payment.missing), (missing, Amount::ZERO));
    anywhere::reveal(&mut others.wallet, &rpc, asked.id)?;
    Ok(())
}
