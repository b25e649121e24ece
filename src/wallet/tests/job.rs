use super::super::job::{Amendment, Event, Generation, Job, JobId, JobState, JobTerms, Payer};
use super::super::orders::{Order, Orders};
use super::*;
use crate::envelope::Carrier;
use crate::primitives::{BlockRef, sha256};
use bitcoin::BlockHash;

fn terms() -> JobTerms {
    JobTerms::new(Payer::Anywhere, Carrier::Taproot, b"payload", rate(), Caps::default())
}

fn generation() -> Generation {
    let tx = transaction(vec![key_spend(OutPoint::null())], Vec::new());
    Generation { transactions: vec![tx], carrying: 0, spent: Vec::new(), fee: Amount::ZERO, vsize: 1, change: None }
}

#[test]
fn a_signed_job_keeps_its_terms_but_for_the_caps_and_a_planned_one_takes_any() {
    let (payload, script) = (b"another".to_vec(), ScriptBuf::from_bytes(vec![0x51]));
    let (sat, rate) = (Amount::from_sat(9), FeeRate::from_sat_per_kwu(9));
    let nothing = Amendment::default;
    let of_signed = [
        Amendment { payload: Some(payload.clone()), ..nothing() },
        Amendment { refund: Some(script.clone()), ..nothing() },
        Amendment { asked: Some(sat), ..nothing() },
        Amendment { fee_rate: Some(rate), ..nothing() },
    ];
    let caps = Caps { max_fee: Some(sat), max_fee_rate: Some(rate) };
    for amendment in of_signed.clone() {
        let mut job = Job::new(JobId(1), 0, terms());
        job.apply(&Event::Signed { generation: generation() }).expect("signed");
        let before = job.terms.clone();
        job.apply(&Event::Amended { amendment }).expect_err("it is signed");
        job.apply(&Event::Amended { amendment: Amendment::of_caps(caps) }).expect("caps");
        assert_eq!((job.terms, job.state), (JobTerms { caps, ..before }, JobState::Signed));
    }
    let mut job = Job::new(JobId(1), 0, terms());
    for amendment in [of_signed.to_vec(), vec![Amendment::of_caps(caps), nothing()]].concat() {
        job.apply(&Event::Amended { amendment }).expect("planned");
    }
    let changed = (Some(script), Some(sat), rate, caps);
    let JobTerms { payload_hash, refund, asked, fee_rate, caps, .. } = job.terms.clone();
    assert_eq!((&job.payload, payload_hash), (&payload, sha256(&payload)));
    assert_eq!((refund, asked, fee_rate, caps), changed);
    // What is so already is no news.
    let [payload, refund, asked, fee_rate] = of_signed;
    for amendment in [payload, refund, asked, fee_rate, Amendment::of_caps(caps)] {
        assert_ne!(amendment.clone().news(&terms()), nothing());
        assert_eq!(amendment.news(&job.terms), nothing());
    }
}

#[test]
fn each_state_says_what_is_left_to_do_and_what_the_chain_has() {
    let block = BlockRef { height: 7, hash: BlockHash::all_zeros() };
    for (state, name, is_unfinished, is_publishing, confirmed) in [
        (JobState::Planned, "planned", true, true, None),
        (JobState::Signed, "signed", true, true, None),
        (JobState::CommitSent, "commit_sent", true, true, None),
        (JobState::RevealSent, "reveal_sent", true, true, None),
        (JobState::Confirmed(block), "confirmed", false, true, Some(block)),
        (JobState::Final(block), "final", false, true, Some(block)),
        (JobState::Reclaiming, "reclaiming", true, false, None),
        (JobState::Reclaimed(block), "reclaimed", false, false, None),
        (JobState::Abandoned("no".into()), "abandoned", false, false, None),
    ] {
        let told = (state.name(), state.is_unfinished(), state.is_publishing(), state.confirmed());
        assert_eq!(told, (name, is_unfinished, is_publishing, confirmed));
        let height = matches!(state, JobState::Confirmed(_) | JobState::Final(_) | JobState::Reclaimed(_));
        assert_eq!(state.to_string().contains('7'), height, "{state}");
    }
}

#[test]
fn an_order_is_carried_out_once_and_withdrawn_as_long_as_nobody_has_taken_it() {
    let dir = tempfile::tempdir().expect("dir");
    let (wallet, _) = Wallet::create(dir.path(), Network::Regtest, 0, None).expect("created");
    let orders = Orders::open(dir.path()).expect("opened");
    let caps = Caps { max_fee: Some(Amount::from_sat(900)), max_fee_rate: Some(FeeRate::from_sat_per_kwu(700)) };
    let first = orders.place(JobId(4), rate(), &caps).expect("placed");
    let second = orders.place(JobId(5), FeeRate::from_sat_per_kwu(999), &Caps::default()).expect("placed");
    let placed = [
        Order { id: first, job: JobId(4), rate: rate(), caps },
        Order { id: second, job: JobId(5), rate: FeeRate::from_sat_per_kwu(999), caps: Caps::default() },
    ];
    assert_eq!(wallet.orders().expect("read"), placed);
    assert!(wallet.take_order(first).expect("taken"));
    assert!(!orders.withdraw(first).expect("asked"), "it is under way");
    assert!(wallet.take_order(first).expect("taken"), "again after a crash");
    assert!(orders.withdraw(second).expect("withdrawn"));
    assert!(!orders.withdraw(second).expect("asked") && !wallet.take_order(second).expect("asked"));
    assert_eq!(wallet.orders().expect("read"), placed[..1]);
    assert_eq!(orders.outcome(first).expect("read"), None);
    wallet.end_order(first, "done").expect("written");
    assert_eq!(orders.outcome(first).expect("read").as_deref(), Some("done"));
    assert!(wallet.orders().expect("read").is_empty() && !wallet.take_order(first).expect("asked"));
}

#[test]
fn a_job_is_planned_once_and_its_sweep_stands_together_with_the_commit_that_it_spends() {
    let draft = || Event::Planned { draft: Some(generation()) };
    let mut job = Job::new(JobId(1), 0, terms());
    job.apply(&draft()).expect("planned");
    job.apply(&draft()).expect_err("it has a draft");
    let mut job = Job::new(JobId(1), 0, terms());
    job.apply(&Event::Signed { generation: generation() }).expect("signed");
    job.apply(&draft()).expect_err("it is signed");

    let output = TxOut { value: Amount::from_sat(9_000), script_pubkey: ScriptBuf::new() };
    let commit = transaction(vec![key_spend(OutPoint::null())], vec![output]);
    let spend = |sequence: u64| {
        let output = TxOut { value: Amount::from_sat(sequence), script_pubkey: ScriptBuf::new() };
        transaction(vec![key_spend(OutPoint::new(commit.compute_txid(), 0))], vec![output])
    };
    let (reveal, sweep) = (spend(1), spend(2));
    let both = Generation { transactions: vec![commit.clone(), reveal.clone()], carrying: 1, ..generation() };
    let mut job = Job::new(JobId(1), 0, terms());
    job.apply(&Event::Signed { generation: both }).expect("signed");
    assert_eq!(job.active(), [commit.clone(), reveal]);
    assert_eq!(job.commit_of(&sweep), Some(&commit));
    assert_eq!(job.commit_of(&commit), None, "it does not spend itself");
    job.apply(&Event::Reclaiming { transactions: vec![sweep.clone()] }).expect("swept");
    assert_eq!(job.active(), [commit, sweep]);
}

#[test]
fn time_is_counted_from_1970() {
    // Sunday, 1 January 2023.
    assert!(crate::wallet::unix_now() > 1_672_531_200);
}
