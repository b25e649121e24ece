//! Whatever stands in a publication's way, some command gets it out; and nothing is published twice on the way.

use crate::support::money::{Cli, Purse, Signer, in_mempool, near, payload, rate};
use crate::support::nodes::Unasked;
use crate::support::{Window, World};
use anyhow::{Context, Result};
use bitcoin::script::PushBytesBuf;
use bitcoin::{
    Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute, transaction,
};
use regtest::Bitcoind;
use sortie::chain::{Credentials, Mempool, RpcNode};
use sortie::envelope::Carrier;
use sortie::publish::{
    Act, CarrierChoice, Job, JobState, Outcome, PublishError, RateTerms, Reclaimed, Request, anywhere, bump, hold, job,
    prepare, psbt, publish, reclaim, resume, stranded,
};
use sortie::wallet::{Caps, PaymentOutcome, Wallet};

const WINDOW: Window = Window { window: 30, max_lag: 20 };
const SAT: Amount = Amount::from_sat(1);

fn taproot(sat_per_vb: u64) -> Request {
    Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(sat_per_vb)) }
}

fn connect(node: &Bitcoind) -> Result<RpcNode> {
    Ok(RpcNode::connect(&node.rpc_url(), Credentials::Cookie(node.cookie()), Network::Regtest)?)
}

/// A transaction of coins that anybody can spend.
fn spend(from: &[OutPoint], output: Vec<TxOut>) -> Transaction {
    let input = |previous_output: &OutPoint| TxIn {
        previous_output: *previous_output,
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(&[[0x51]]),
        ..TxIn::default()
    };
    let input = from.iter().map(input).collect();
    Transaction { version: transaction::Version::TWO, lock_time: absolute::LockTime::ZERO, input, output }
}

fn paying(address: &Address, value: Amount) -> TxOut {
    TxOut { value, script_pubkey: address.script_pubkey() }
}

/// Others' transactions at some 8 sat/vB: so many that a small mempool has no room for anything cheaper.
fn heavy(node: &Bitcoind) -> Result<Vec<Transaction>> {
    const LARGE: usize = 60;
    let anyone = Bitcoind::anyone_address();
    let coin = node.fund_and_mine(&anyone, Amount::ONE_BTC)?;
    let many = spend(&[coin], vec![paying(&anyone, SAT * 800_000); LARGE]);
    node.mine_block_with(std::slice::from_ref(&many))?;
    let data = ScriptBuf::new_op_return(PushBytesBuf::try_from(vec![7; 98_000])?);
    let txid = many.compute_txid();
    let heavy =
        |vout| spend(&[OutPoint::new(txid, vout)], vec![TxOut { value: Amount::ZERO, script_pubkey: data.clone() }]);
    Ok((0..LARGE as u32).map(heavy).collect())
}

#[test]
fn what_rising_fees_evicted_is_bumped_or_taken_back() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let datadir = dir.path().join("node");
    let node = Bitcoind::options().datadir(&datadir).start()?;
    let rpc = connect(&node)?;
    let mut jobs = Vec::new();
    for name in ["bump", "reclaim", "hold"] {
        let (mut wallet, _) = Wallet::create(&dir.path().join(name), Network::Regtest, 0, None)?;
        node.fund_and_mine(&wallet.address()?, Amount::from_sat(1_000_000))?;
        wallet.sync(&rpc)?;
        jobs.push((name, wallet));
    }
    let heavy = heavy(&node)?;
    let confirm_by = Some(node.height()? + 30);
    let mut published = Vec::new();
    for (name, mut wallet) in jobs {
        let payload = [name.as_bytes(), &[7; 500]].concat();
        wallet.sync(&rpc)?;
        let done = publish(&mut wallet, &rpc, &payload, &Request { confirm_by, ..taproot(2) })?;
        published.push((name, wallet, done));
    }
    node.stop()?;
    let node = Bitcoind::options().datadir(&datadir).arg("-maxmempool=5").start()?;
    let rpc = connect(&node)?;
    // Until it is full, and more.
    heavy.iter().try_for_each(|tx| node.send(tx).map(drop)).expect_err("they do not fit");
    node.mine_empty(1)?;
    let floor = rpc.relay()?.floor;
    assert!(floor > rate(5), "{floor}");
    for (name, mut wallet, done) in published {
        wallet.sync(&rpc)?;
        let state = job(&wallet, done.job)?.state;
        assert_eq!(state, JobState::RevealSent, "{name}");
        let waiting = node.mempool()?;
        assert!(done.txids.iter().all(|txid| !waiting.contains(txid)), "{name}: evicted");
        let resumed = resume(&mut wallet, &rpc)?;
        let Outcome::Failed(error @ PublishError::Stuck { .. }) = &resumed[0].outcome else { panic!("{resumed:?}") };
        let way_out = format!("`sortie bump {} --fee-rate", done.job);
        assert!(error.to_string().contains(&way_out), "{error}");
        let caps = Caps::default();
        let txids = match name {
            "bump" => bump(&mut wallet, &rpc, done.job, rate(20), &caps)?.txids,
            "reclaim" => match reclaim(&mut wallet, &rpc, done.job, rate(20), &caps)? {
                Reclaimed::Sweeping { txid, .. } => vec![done.txids[0], txid],
                freed => panic!("{freed:?}"),
            },
            _ => {
                let network = Network::Regtest;
                let terms = RateTerms { network, explicit: None, fallback: None, target_blocks: 1 };
                let held = hold(&mut wallet, &rpc, &[&rpc], done.job, &terms, &caps)?;
                let Act::Bumped(bumped) = held.act else { panic!("{held:?}") };
                assert!(held.pays >= floor, "{}", held.pays);
                bumped.txids
            }
        };
        let waiting = node.mempool()?;
        assert!(txids.iter().all(|txid| waiting.contains(txid)), "{name}: {txids:?}");
    }
    node.stop()?;
    Ok(())
}

/// An envelope that others pay for.
fn asked(world: &World, purse: &mut Purse, length: usize, caps: &Caps) -> Result<(Job, Address, Amount)> {
    let payload = payload(world, length)?;
    let refund = Bitcoind::anyone_address();
    let job = anywhere::ask(&mut purse.wallet, &purse.rpc, &payload, rate(2), caps, &refund, false)?;
    let address = anywhere::address(&purse.wallet, &job)?;
    let missing = job.asked.context("an amount")?;
    Ok((job, address, missing))
}

#[test]
fn what_stands_in_the_way_of_one_job_keeps_no_other_and_decides_the_exit_code() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let mut purse = Purse::new(&world, &Cli::wallet_dir("default"), &[1_000_000])?;
    let dust = Bitcoind::anyone_address().script_pubkey().minimal_non_dust();
    let (_, _, missing) = asked(&world, &mut purse, 301, &Caps::default())?;
    let caps = Caps { max_fee: Some(missing - dust), max_fee_rate: None };
    let (first, address, missing) = asked(&world, &mut purse, 300, &caps)?;
    // In two parts it costs more than in one.
    for _ in 0..2 {
        world.bitcoind.fund_and_mine(&address, missing / 2 + SAT * 200)?;
    }
    let second = prepare(&mut purse.wallet, &purse.rpc, &payload(&world, 400)?, &taproot(2))?;
    drop(purse);
    let (code, error) = cli.fails(&["resume"])?;
    assert!(code == 4 && error.contains("--max-fee"), "{error}");
    assert!(in_mempool(&world, second.txids()[1])?, "it was sent all the same");
    assert!(first.id < second.id);
    Ok(())
}

#[test]
fn a_payload_that_was_taken_back_is_never_published_twice() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[400_000, 600_000])?;
    let payload = payload(&world, 500)?;
    let first = purse.publish(&payload, Carrier::Taproot, 2)?;
    let Reclaimed::Sweeping { txid, .. } =
        reclaim(&mut purse.wallet, &purse.rpc, first.job, rate(5), &Caps::default())?
    else {
        panic!("it was out")
    };
    let second = purse.publish(&payload, Carrier::Taproot, 5)?;
    assert_ne!(second.job, first.job);
    let commit = job(&purse.wallet, second.job)?.commit().context("a commit")?.clone();
    let spent: Vec<_> = commit.input.iter().map(|input| input.previous_output).collect();
    assert!(spent.contains(&OutPoint::new(txid, 0)), "what was taken back is spent: {spent:?}");
    // Raised, the sweep would take the second one with it.
    let error = reclaim(&mut purse.wallet, &purse.rpc, first.job, rate(50), &Caps::default()).expect_err("built on");
    assert!(error.to_string().contains(&format!("job {} is paid from", second.job)), "{error}");

    // A miner who saw the first one only.
    let old = job(&purse.wallet, first.job)?.generations[0].transactions.clone();
    world.bitcoind.mine_block_with(&old)?;
    world.bitcoind.mine(5)?;
    assert!(matches!(purse.job(first.job)?.state, JobState::Confirmed(_)));
    let resumed = resume(&mut purse.wallet, &purse.rpc)?;
    assert!(matches!(resumed[0].outcome, Outcome::Failed(PublishError::Lost { .. })), "{resumed:?}");
    assert_eq!(world.follower("follower")?.items()?.len(), 1);
    Ok(())
}

#[test]
fn what_was_given_away_to_be_signed_and_what_follows_it_are_never_both_mined() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[600_000])?;
    let payload = payload(&world, 500)?;
    let (drafted, unsigned) = psbt::draft(&mut purse.wallet, &purse.rpc, &payload, &taproot(2))?;
    let freed = reclaim(&mut purse.wallet, &purse.rpc, drafted.id, rate(2), &Caps::default())?;
    assert_eq!(freed, Reclaimed::Freed);
    // A coin that would be chosen otherwise: it is smaller, and suffices.
    world.bitcoind.fund_and_mine(&purse.wallet.address()?, Amount::from_sat(300_000))?;
    let done = purse.publish(&payload, Carrier::Taproot, 2)?;
    let commit = job(&purse.wallet, done.job)?.commit().context("a commit")?.clone();
    assert_eq!(commit.input[0].previous_output, unsigned.unsigned_tx.input[0].previous_output);
    Ok(())
}

#[test]
fn others_do_not_pay_for_a_payload_that_can_still_come_back() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[])?;
    let (first, address, missing) = asked(&world, &mut purse, 300, &Caps::default())?;
    world.bitcoind.fund(&address, missing + SAT * 20_000)?;
    purse.wallet.sync(&purse.rpc)?;
    anywhere::reveal(&mut purse.wallet, &purse.rpc, first.id)?;
    reclaim(&mut purse.wallet, &purse.rpc, first.id, rate(9), &Caps::default())?;
    for blocks in [0, 1, 4] {
        world.bitcoind.mine(blocks)?;
        purse.wallet.sync(&purse.rpc)?;
        let error = asked(&world, &mut purse, 300, &Caps::default()).expect_err("it may come back");
        assert!(error.to_string().contains(&format!("job {}, which forced it before", first.id)), "{error}");
    }
    world.bitcoind.mine(1)?;
    purse.wallet.sync(&purse.rpc)?;
    let (second, ..) = asked(&world, &mut purse, 300, &Caps::default())?;
    assert_ne!(second.id, first.id);
    Ok(())
}

#[test]
fn an_envelope_that_nobody_pays_is_given_up_and_what_comes_later_is_told_and_comes_back() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let mut purse = Purse::new(&world, &Cli::wallet_dir("default"), &[])?;
    let (first, address, _) = asked(&world, &mut purse, 300, &Caps::default())?;
    // So little that it does not pay for its own way back.
    world.bitcoind.fund_and_mine(&address, SAT * 340)?;
    purse.wallet.sync(&purse.rpc)?;
    let freed = reclaim(&mut purse.wallet, &purse.rpc, first.id, rate(2), &Caps::default())?;
    assert_eq!(freed, Reclaimed::Freed);
    let (second, other, missing) = asked(&world, &mut purse, 300, &Caps::default())?;
    assert!(second.id != first.id && other != address);

    world.bitcoind.fund_and_mine(&other, missing)?;
    purse.wallet.sync(&purse.rpc)?;
    anywhere::reveal(&mut purse.wallet, &purse.rpc, second.id)?;
    // Both are paid once more: the one that was given up, and the one that is mined.
    for address in [&address, &other] {
        world.bitcoind.fund_and_mine(address, SAT * 77_777)?;
    }
    for (id, held) in [(first.id, 77_777 + 340), (second.id, 77_777)] {
        let job = purse.job(id)?;
        assert_eq!(stranded(&purse.wallet, &job)?, SAT * held);
    }
    drop(purse);
    let told = cli.lines(&["resume"])?;
    let told: Vec<_> = told.iter().map(|line| (&line["job"], &line["outcome"])).collect();
    assert_eq!(told, [(&1.into(), &"stranded".into()), (&2.into(), &"stranded".into())]);
    let jobs = cli.lines(&["jobs"])?;
    assert_eq!(jobs[1]["stranded_sat"], 77_777, "{jobs:?}");
    let status = cli.run(&["status", "1"])?;
    assert!(status["next"].as_str().is_some_and(|next| next.contains("78117 sat: `sortie reclaim 1`")), "{status}");
    for id in ["1", "2"] {
        assert_eq!(cli.run(&["reclaim", id, "--fee-rate", "2"])?["outcome"], "sweeping");
    }
    assert!(cli.lines(&["jobs"])?.iter().all(|job| job["stranded_sat"].is_null()), "on its way back");
    world.bitcoind.mine(1)?;
    assert!(cli.lines(&["jobs"])?.iter().all(|job| job["stranded_sat"].is_null()));
    assert_eq!(world.follower("follower")?.items()?.len(), 1);
    Ok(())
}

#[test]
fn a_payment_that_the_node_forgets_stays_paid_and_is_sent_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let datadir = dir.path().join("node");
    let start = || Bitcoind::options().datadir(&datadir).arg("-persistmempool=0").start();
    let node = start()?;
    let rpc = connect(&node)?;
    let (mut wallet, words) = Wallet::create(&dir.path().join("wallet"), Network::Regtest, 0, None)?;
    node.fund_and_mine(&wallet.address()?, Amount::from_sat(1_000_000))?;
    wallet.sync(&rpc)?;
    let mut twin = Wallet::restore(&dir.path().join("twin"), Network::Regtest, words, None, near(&rpc))?;
    let pay = |wallet: &mut Wallet, rpc: &RpcNode, sat, fee_rate| -> Result<_> {
        let paid = wallet.send(rpc, &Bitcoind::anyone_address(), SAT * sat, rate(fee_rate), &Caps::default())?;
        wallet.acknowledge(&paid)?;
        Ok(paid.txid)
    };
    let sent = [pay(&mut wallet, &rpc, 9_000, 2)?, pay(&mut wallet, &rpc, 9_001, 2)?];
    let left = wallet.balance().total();
    node.stop()?;
    let node = start()?;
    let rpc = connect(&node)?;
    assert!(node.mempool()?.is_empty(), "it has forgotten them");
    wallet.sync(&rpc)?;
    assert_eq!(wallet.balance().total(), left, "what they spend stays spent");
    let settled = wallet.settle_payments(&rpc)?;
    let told: Vec<_> = settled.iter().map(|settled| (settled.payment.txid, &settled.outcome)).collect();
    assert_eq!(told, sent.map(|txid| (txid, &PaymentOutcome::Sent)));
    assert!(sent.iter().all(|txid| node.mempool().is_ok_and(|waiting| waiting.contains(txid))));
    assert!(wallet.settle_payments(&rpc)?.is_empty());

    // Once more; then the same words elsewhere spend the same coin.
    node.stop()?;
    let node = start()?;
    let rpc = connect(&node)?;
    twin.sync(&rpc)?;
    pay(&mut twin, &rpc, 30_000, 9)?;
    wallet.sync(&rpc)?;
    let settled = wallet.settle_payments(&rpc)?;
    assert!(settled.iter().all(|settled| matches!(settled.outcome, PaymentOutcome::Stuck(_))), "{settled:?}");
    node.mine(1)?;
    wallet.sync(&rpc)?;
    let settled = wallet.settle_payments(&rpc)?;
    assert_eq!(settled.len(), 2);
    assert!(settled.iter().all(|settled| settled.outcome == PaymentOutcome::Lost), "{settled:?}");
    node.mine(5)?;
    wallet.sync(&rpc)?;
    assert!(wallet.settle_payments(&rpc)?.is_empty(), "for good");
    twin.sync(&rpc)?;
    assert_eq!(wallet.balance().total(), twin.balance().total());
    node.stop()?;
    Ok(())
}

/// A purse with one coin, and another wallet with the same words.
fn twins(world: &World, name: &str) -> Result<(Purse, Wallet)> {
    let purse = Purse::new(world, name, &[1_000_000])?;
    let twin = world.path(&format!("{name}-twin"));
    let twin = Wallet::restore(&twin, Network::Regtest, purse.words.clone(), None, near(&purse.rpc))?;
    Ok((purse, twin))
}

#[test]
fn what_was_double_spent_is_given_up_once_that_is_certain_and_told_by_every_command() -> Result<()> {
    let world = World::new(WINDOW)?;
    let caps = Caps::default();
    for (name, length) in [("bump", 300), ("reclaim", 301), ("sweep", 302)] {
        let (mut purse, mut twin) = twins(&world, name)?;
        let id = purse.publish(&payload(&world, length)?, Carrier::Taproot, 2)?.job;
        if name == "sweep" {
            reclaim(&mut purse.wallet, &purse.rpc, id, rate(5), &caps)?;
        }
        let rival = prepare(&mut twin, &Unasked(&purse.rpc), &payload(&world, 400)?, &taproot(3))?;
        world.bitcoind.mine_block_with(&rival.generations[0].transactions)?;
        let tried = |purse: &mut Purse| -> Result<Option<PublishError>> {
            purse.wallet.sync(&purse.rpc)?;
            Ok(match name {
                "bump" => bump(&mut purse.wallet, &purse.rpc, id, rate(2), &caps).err(),
                _ => reclaim(&mut purse.wallet, &purse.rpc, id, rate(9), &caps).err(),
            })
        };
        let error = tried(&mut purse)?.with_context(|| format!("{name}: it is double-spent"))?;
        assert!(purse.job(id)?.state.is_unfinished(), "{name}: a reorganisation may bring it back: {error}");
        world.bitcoind.mine_empty(5)?;
        match tried(&mut purse)? {
            Some(PublishError::Lost { .. }) => assert_eq!(name, "bump"),
            None => assert_ne!(name, "bump"),
            Some(error) => panic!("{name}: {error}"),
        }
        assert!(matches!(purse.job(id)?.state, JobState::Abandoned(_)), "{name}");
        assert_eq!(purse.spent()?, rival.generations[0].fee, "{name}");
    }
    Ok(())
}

#[test]
fn an_envelope_whose_payment_is_gone_for_good_can_be_given_up() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[])?;
    let (asked, address, missing) = asked(&world, &mut purse, 300, &Caps::default())?;
    let coin = world.bitcoind.fund_and_mine(&Bitcoind::anyone_address(), SAT * 1_000_000)?;
    world.bitcoind.send(&spend(&[coin], vec![paying(&address, missing), paying(&address, SAT * 900_000)]))?;
    purse.wallet.sync(&purse.rpc)?;
    anywhere::reveal(&mut purse.wallet, &purse.rpc, asked.id)?;
    let elsewhere = spend(&[coin], vec![paying(&Bitcoind::anyone_address(), SAT * 800_000)]);
    world.bitcoind.mine_block_with(&[elsewhere])?;
    let mut reclaimed = || -> Result<_> {
        purse.wallet.sync(&purse.rpc)?;
        Ok(reclaim(&mut purse.wallet, &purse.rpc, asked.id, rate(2), &Caps::default()))
    };
    let error = reclaimed()?.expect_err("a reorganisation may bring it back");
    assert!(matches!(error, PublishError::NotReclaimable { .. }), "{error}");
    world.bitcoind.mine_empty(5)?;
    assert_eq!(reclaimed()??, Reclaimed::Freed);
    Ok(())
}

#[test]
fn finishing_what_was_double_spent_is_no_success() -> Result<()> {
    let world = World::new(WINDOW)?;
    let signer = Signer::new(7)?;
    let descriptor = format!("tr({})", signer.account("86'/1'/0'")?);
    let mut purse = Purse::watching(&world, "alice", &descriptor, &[500_000])?;
    let mut twin = Purse::watching(&world, "twin", &descriptor, &[])?;
    let (drafted, unsigned) = psbt::draft(&mut purse.wallet, &purse.rpc, &payload(&world, 150)?, &taproot(2))?;
    let (_, rival) = psbt::draft(&mut twin.wallet, &twin.rpc, &payload(&world, 151)?, &taproot(3))?;
    psbt::finish(&mut twin.wallet, &twin.rpc, &signer.sign(&rival)?)?;
    world.bitcoind.mine(1)?;
    let signed = signer.sign(&unsigned)?;
    let mut finish = || -> Result<_> {
        purse.wallet.sync(&purse.rpc)?;
        Ok(psbt::finish(&mut purse.wallet, &purse.rpc, &signed).expect_err("double-spent"))
    };
    let error = finish()?;
    assert!(matches!(error, PublishError::Stuck { job, .. } if job == drafted.id), "{error}");
    world.bitcoind.mine_empty(5)?;
    let error = finish()?;
    assert!(matches!(error, PublishError::Lost { job } if job == drafted.id), "{error}");
    Ok(())
}
