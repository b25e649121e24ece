mod spent;
mod words;

use super::*;
use crate::wallet::tests::{FakeNode, funded};
use crate::wallet::{WalletError, is_crowded};
use bitcoin::Network;

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 + 7) as u8).collect()
}

fn rate(per_kwu: u64) -> FeeRate {
    FeeRate::from_sat_per_kwu(per_kwu)
}

fn request(carrier: CarrierChoice) -> Request {
    Request { carrier, ..Request::at(rate(250)) }
}

const OP_RETURN: CarrierChoice = CarrierChoice::Only(Carrier::OpReturn);
const TAPROOT: CarrierChoice = CarrierChoice::Only(Carrier::Taproot);

#[test]
fn what_is_quoted_is_what_is_signed() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[600, 700, 800, 90_000, 5_000_000]);
    let node = FakeNode::default();
    let mut shapes = std::collections::BTreeSet::new();
    for (length, per_kwu) in [
        (10, 250),
        (32, 25),
        (75, 26),
        (76, 251),
        (255, 999),
        (256, 250),
        (257, 250),
        (1_000, 12_345),
        (65_536, 250),
        (99_000, 250),
        (395_000, 251),
    ] {
        for carrier in [Carrier::OpReturn, Carrier::Taproot] {
            let payload = payload(length);
            let request = Request { carrier: CarrierChoice::Only(carrier), again: true, ..Request::at(rate(per_kwu)) };
            let quoted = quote(&wallet, &payload, &request, node.relay().expect("facts")).expect("quoted");
            let quoted = quoted.into_iter().find(|cost| cost.carrier == carrier).expect("both");
            let job = match prepare(&mut wallet, &node, &payload, &request) {
                Ok(job) => job,
                Err(error) => {
                    assert!(quoted.relayed.is_err(), "{length} {carrier:?}: {error}");
                    continue;
                }
            };
            let signed = job.current().expect("signed");
            assert_eq!((signed.fee, signed.vsize), (quoted.fee, quoted.vsize), "{length} {carrier:?}");
            let real: u64 = signed.transactions.iter().map(crate::wallet::vsize).sum();
            assert_eq!(real, signed.vsize);
            shapes.insert(signed.transactions.iter().map(|tx| tx.output.len()).collect::<Vec<_>>());
            assert!(signed.fee >= crate::wallet::fee_for(rate(per_kwu), real));
            broadcast(&mut wallet, &node, job.id).expect("sent");
        }
    }
    for shape in [&[2][..], &[1, 1], &[2, 1]] {
        assert!(shapes.contains(shape), "{shapes:?}");
    }
}

#[test]
fn sizes_are_those_of_the_design() {
    let dir = tempfile::tempdir().expect("dir");
    let wallet = funded(dir.path(), &[5_000_000]);
    let relay = FakeNode::default().relay().expect("facts");
    for (length, op_return, taproot) in
        [(32, 154, 248), (80, 203, 260), (200, 323, 290), (1_000, 1_126, 493), (10_000, 10_126, 2_765)]
    {
        // Nothing comes back from the commit, or one more output of 43 bytes.
        for (lock_at_most, more) in [(None, 0), (Some(LOCK_AT_MOST), 43)] {
            let request = Request { lock_at_most, ..Request::at(rate(250)) };
            let costs = quote(&wallet, &payload(length), &request, relay).expect("quoted");
            let sizes: Vec<u64> = costs.iter().map(|cost| cost.vsize).collect();
            assert_eq!(sizes, [op_return, taproot + more], "{length}");
        }
    }
}

#[test]
fn auto_takes_the_cheaper_carrier_that_is_relayed() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000, 200_000, 300_000, 400_000, 500_000]);
    let old = FakeNode { version: Some(290_000), ..Default::default() };
    let new = FakeNode::default();
    for (node, length, carrier) in [
        (&new, 140, Carrier::OpReturn),
        (&new, 180, Carrier::Taproot),
        (&old, 80, Carrier::OpReturn),
        (&old, 81, Carrier::Taproot),
    ] {
        let done = publish(&mut wallet, node, &payload(length), &request(CarrierChoice::Auto));
        assert_eq!(done.expect("published").carrier, carrier, "{length}");
    }
    // What the node says of itself counts, whatever its version and the profile: here up to 42 bytes, or none.
    for (says, length, carrier) in [(42, 40, Carrier::OpReturn), (42, 41, Carrier::Taproot), (0, 10, Carrier::Taproot)]
    {
        let node = FakeNode { data_carrier: Some(says), ..Default::default() };
        let request = Request { profile: Some(Profile::Core30), again: true, ..request(CarrierChoice::Auto) };
        let costs = quote(&wallet, &payload(length), &request, node.relay().expect("facts")).expect("quoted");
        let first = costs.iter().find(|cost| cost.relayed.is_ok()).map(|cost| cost.carrier);
        let why = costs.iter().find_map(|cost| cost.relayed.err());
        assert_eq!(why.is_none(), carrier == Carrier::OpReturn, "{why:?}");
        assert!(why.is_none() || first == Some(Carrier::Taproot));
    }
    let less = FakeNode { data_carrier: Some(0), ..Default::default() };
    let error = publish(&mut wallet, &less, &payload(30), &request(OP_RETURN)).expect_err("not relayed").to_string();
    assert!(error.ends_with("the node relays none (its -datacarriersize); choose another carrier (--carrier taproot)"));
    let error = publish(&mut wallet, &old, &payload(82), &request(OP_RETURN)).expect_err("long");
    assert!(matches!(error, PublishError::NotRelayed { why: NotRelayed::OpReturnTooLong { bytes: 85, .. }, .. }));
    let error = publish(&mut wallet, &new, &payload(400_000), &request(CarrierChoice::Auto));
    assert!(matches!(error, Err(PublishError::NotRelayed { .. })), "{error:?}");
    for length in [9, 400_001] {
        let error = publish(&mut wallet, &new, &payload(length), &request(TAPROOT));
        assert!(matches!(error, Err(PublishError::PayloadLength { .. })));
    }
}

#[test]
fn the_package_reaches_the_rate_and_no_transaction_is_below_the_floor() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000]);
    let node = FakeNode::default();
    let asked = Request { carrier: TAPROOT, ..Request::at(rate(2_500)) };
    let job = prepare(&mut wallet, &node, &payload(500), &asked).expect("prepared");
    let signed = job.current().expect("signed");
    let [commit, reveal] = signed.transactions.as_slice() else { panic!("two transactions") };
    let commit_fee = Amount::from_sat(100_000) - commit.output[0].value;
    let reveal_fee = commit.output[0].value - reveal.output[0].value;
    assert_eq!(commit_fee.to_sat(), 111, "1 sat/vB: no node refuses it");
    assert_eq!(commit_fee + reveal_fee, signed.fee);
    assert_eq!(signed.fee.to_sat(), signed.vsize * 10);
}

#[test]
fn caps_stop_it_before_anything_is_signed_or_written() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000]);
    let node = FakeNode::default();
    for caps in [
        Caps { max_fee: Some(Amount::from_sat(100)), max_fee_rate: None },
        Caps { max_fee: None, max_fee_rate: Some(rate(240)) },
    ] {
        let request = Request { caps, ..request(CarrierChoice::Auto) };
        let error = publish(&mut wallet, &node, &payload(50), &request).expect_err("too dear");
        assert!(matches!(error, PublishError::FeeCap(_)), "{error}");
    }
    assert!(jobs(&wallet).expect("jobs").is_empty());
}

#[test]
fn a_rate_that_nobody_can_pay_is_a_shortfall() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[5_000_000]);
    let node = FakeNode::default();
    for carrier in [OP_RETURN, TAPROOT] {
        let request = Request { carrier, ..Request::at(rate(u64::MAX)) };
        let error = publish(&mut wallet, &node, &payload(90_000), &request).expect_err("too dear");
        assert!(matches!(error, PublishError::Funds(_)), "{error}");
    }
}

#[test]
fn a_refusal_abandons_the_job_and_frees_its_coins() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000]);
    let before = wallet.coins().expect("coins");
    let node = FakeNode::default();
    *node.refuse.borrow_mut() = Some("min relay fee not met");
    let error = publish(&mut wallet, &node, &payload(500), &request(TAPROOT)).expect_err("refused");
    assert!(matches!(error, PublishError::Refused { .. }));
    assert!(node.has.borrow().is_empty(), "nothing was submitted");
    let jobs = jobs(&wallet).expect("jobs");
    assert_eq!(jobs[0].state, JobState::Abandoned("min relay fee not met".into()));
    assert_eq!(wallet.coins().expect("coins"), before);
    *node.refuse.borrow_mut() = None;
    let done = publish(&mut wallet, &node, &payload(500), &request(TAPROOT)).expect("published");
    assert_eq!(done.job, JobId(2), "a new job, with a new key");
    assert_eq!(job(&wallet, done.job).expect("job").key_index, Some(1));
}

#[test]
fn a_lost_answer_ends_in_the_same_bytes_never_in_a_second_payment() {
    for carrier in [OP_RETURN, TAPROOT] {
        let dir = tempfile::tempdir().expect("dir");
        let mut wallet = funded(dir.path(), &[100_000, 200_000]);
        let node = FakeNode::default();
        *node.lose_answers.borrow_mut() = true;
        let request = request(carrier);
        let error = publish(&mut wallet, &node, &payload(60), &request).expect_err("answer lost");
        assert!(matches!(error, PublishError::Unsent { job: JobId(1), .. }));
        drop(wallet);

        let mut wallet = crate::wallet::Wallet::open(dir.path(), Network::Regtest).expect("opened");
        *node.lose_answers.borrow_mut() = false;
        let written = job(&wallet, JobId(1)).expect("job");
        let again = publish(&mut wallet, &node, &payload(60), &request).expect("resumed");
        assert!(again.resumed && again.state == JobState::RevealSent);
        assert_eq!(again.txids, written.txids());
        assert_eq!(*node.tested.borrow(), 1, "what has left is not tested again");
        let once_more = Request { again: true, ..request };
        let other = publish(&mut wallet, &node, &payload(60), &once_more).expect("published");
        assert_ne!(other.txids, again.txids);
    }
}

#[test]
fn coins_of_a_job_that_was_only_signed_are_not_spent_by_another() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000]);
    let node = FakeNode::default();
    let paid_from = wallet.coins().expect("coins")[0].outpoint.txid;
    let first = prepare(&mut wallet, &node, &payload(60), &request(OP_RETURN)).expect("prepared");
    drop(wallet);
    let mut wallet = crate::wallet::Wallet::open(dir.path(), Network::Regtest).expect("opened");
    assert!(wallet.coins().expect("coins").is_empty(), "neither its coin nor its change");
    let error = publish(&mut wallet, &node, &payload(61), &request(OP_RETURN)).expect_err("none");
    assert!(matches!(error, PublishError::Funds(_)));
    let resumed = resume(&mut wallet, &node).expect("resumed");
    let [Resumed { job, outcome: Outcome::Sent(sent) }] = resumed.as_slice() else { panic!("{resumed:?}") };
    assert_eq!((*job, sent), (first.id, &[vec![paid_from], first.txids()].concat()));
    assert_eq!(wallet.coins().expect("coins").len(), 1, "its change pays for the next");
}

#[test]
fn a_dropped_reveal_is_sent_again_alone() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000]);
    let node = FakeNode::default();
    let done = publish(&mut wallet, &node, &payload(500), &request(TAPROOT)).expect("published");
    let reveal = done.place.txid;
    node.has.borrow_mut().remove(&reveal);
    let resumed = resume(&mut wallet, &node).expect("resumed");
    assert!(matches!(&resumed[0].outcome, Outcome::Sent(sent) if *sent == [reveal]), "{resumed:?}");
    assert!(matches!(resume(&mut wallet, &node).expect("resumed")[0].outcome, Outcome::InPlace));
}

#[test]
fn a_sequencers_batches_spend_each_others_change() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000, 50_000]);
    let node = FakeNode::default();
    let mut fund_from = None;
    for length in 500..504 {
        let request = Request { fund_from, ..request(CarrierChoice::Auto) };
        let done = publish(&mut wallet, &node, &payload(length), &request).expect("published");
        let first = &job(&wallet, done.job).expect("job").generations[0].transactions[0];
        if let Some(previous) = fund_from {
            assert_eq!(first.input[0].previous_output, previous);
        }
        fund_from = done.change;
        assert!(fund_from.is_some());
    }
    let unknown = Request { fund_from: Some(OutPoint::null()), ..request(TAPROOT) };
    let error = publish(&mut wallet, &node, &payload(600), &unknown).expect_err("not ours");
    assert!(matches!(error, PublishError::Wallet(WalletError::UnknownCoin(_))));
}

#[test]
fn an_unsent_job_is_given_up_by_reclaim_and_a_sent_one_is_swept() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000]);
    let node = FakeNode::default();
    let caps = Caps::default();
    let first = prepare(&mut wallet, &node, &payload(500), &request(TAPROOT)).expect("prepared");
    let freed = reclaim(&mut wallet, &node, first.id, rate(250), &caps).expect("given up");
    assert_eq!(freed, Reclaimed::Freed);
    assert_eq!(wallet.balance().total(), Amount::from_sat(100_000));

    let done = publish(&mut wallet, &node, &payload(500), &request(TAPROOT)).expect("published");
    let swept = reclaim(&mut wallet, &node, done.job, rate(1_000), &caps).expect("reclaimed");
    let Reclaimed::Sweeping { txid, .. } = swept else { panic!("{swept:?}") };
    let reclaiming = job(&wallet, done.job).expect("job");
    assert_eq!(reclaiming.state, JobState::Reclaiming);
    assert_eq!(reclaiming.reclaims.last().map(|tx| tx.compute_txid()), Some(txid));
    assert!(wallet.coins().expect("coins").iter().any(|coin| coin.outpoint.txid == txid));
    let again = reclaim(&mut wallet, &node, done.job, rate(1_000), &caps).expect("again");
    assert_eq!(again, swept, "the same sweep, not another one");
}

#[test]
fn the_wallet_and_the_journal_agree_after_a_crash_at_any_point() {
    // The journal entry and the wallet's knowledge of it are one SQLite transaction: reopening
    // shows both. Without the entry, nothing is spent.
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000]);
    let node = FakeNode::default();
    let job = prepare(&mut wallet, &node, &payload(500), &request(TAPROOT)).expect("prepared");
    drop(wallet);
    let wallet = crate::wallet::Wallet::open(dir.path(), Network::Regtest).expect("opened");
    assert_eq!(jobs(&wallet).expect("jobs")[0].generations, job.generations);
    assert_eq!(wallet.balance().total(), Amount::from_sat(100_000) - job.generations[0].fee);
}

#[test]
fn refused_attempts_use_up_no_addresses() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000]);
    let (to, before) = (wallet.address().expect("address"), wallet.next_changes());
    let node = FakeNode::default();
    *node.refuse.borrow_mut() = Some("datacarrier");
    for n in 0..30 {
        let carrier = if n % 2 == 0 { OP_RETURN } else { TAPROOT };
        let error = publish(&mut wallet, &node, &payload(500), &request(carrier)).expect_err("refused");
        assert!(matches!(error, PublishError::Refused { .. }), "{error}");
        let amount = Amount::from_sat(10_000);
        wallet.send(&node, &to, amount, rate(250), &Caps::default()).expect_err("refused, too");
    }
    assert_eq!(wallet.next_changes(), before);
    drop(wallet);
    let mut wallet = crate::wallet::Wallet::open(dir.path(), Network::Regtest).expect("opened");
    assert_eq!(wallet.next_changes(), before);
    *node.refuse.borrow_mut() = None;
    publish(&mut wallet, &node, &payload(500), &request(OP_RETURN)).expect("published");
    assert_eq!(wallet.next_changes()[0], before[1], "what has left keeps its address");
}

#[test]
fn resuming_works_out_once_what_the_wallet_knows_however_many_jobs_there_are() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000; 20]);
    let node = FakeNode::default();
    for (n, carrier) in (0..20).zip([OP_RETURN, TAPROOT].into_iter().cycle()) {
        publish(&mut wallet, &node, &payload(60 + n), &request(carrier)).expect("published");
    }
    let known = wallet.view();
    let resumed = resume(&mut wallet, &node).expect("resumed");
    assert_eq!(resumed.len(), 20);
    assert!(resumed.iter().all(|resumed| matches!(resumed.outcome, Outcome::InPlace)), "{resumed:?}");
    assert!(std::sync::Arc::ptr_eq(&known, &wallet.view()));
}

#[test]
fn a_refusal_of_too_much_that_hangs_together_is_known_as_that() {
    for (reason, is_too_much) in
        [("too-large-cluster", true), ("too-long-mempool-chain, too many ancestors", true), ("dust", false)]
    {
        let dir = tempfile::tempdir().expect("dir");
        let mut wallet = funded(dir.path(), &[100_000]);
        let node = FakeNode::default();
        *node.refuse.borrow_mut() = Some(reason);
        let error = publish(&mut wallet, &node, &payload(60), &request(OP_RETURN)).expect_err("refused");
        assert!(matches!(&error, PublishError::Refused { reason, .. } if is_crowded(reason) == is_too_much), "{error}");
    }
}
