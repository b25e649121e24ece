use super::super::store::{Included, Terms};
use super::*;
use crate::api::wire::TxStatus;
use crate::executor::NoOpReason;
use crate::primitives::sha256;
use crate::proof::{Receipt, Signed};

fn terms(fee: u64) -> Terms<'static> {
    Terms { sender: Some(b"bob"), fee: Some(fee), most: MAX_POOL }
}

fn receipt(tx: &[u8]) -> Signed<Receipt> {
    let statement = Receipt { tx_hash: sha256(tx), first_number: 11, last_number: 75 };
    Signed { statement, handovers: 0, signatures: Vec::new() }
}

#[test]
fn what_has_no_effect_is_told_with_its_reason_and_can_be_sent_again() {
    let files = Files::new();
    let mut store = files.store("store");
    let status = |store: &SequencerStore, tx: &[u8]| store.status(&sha256(tx)).expect("read").expect("known");
    let rejected = |reason: NoOpReason| TxStatus::Rejected { reason: reason.name().into() };
    for tx in [b"one", b"two"] {
        assert_eq!(store.submit(tx, terms(5)).expect("taken"), TxStatus::Pending);
    }
    let waiting = store.candidates().expect("read");
    assert_eq!(waiting.iter().map(|waiting| waiting.fee).collect::<Vec<_>>(), [Some(5), Some(5)]);
    store.reject(&[(waiting[0].seq, NoOpReason::BadSignature)]).expect("written");
    let left_out = [(waiting[1].seq, NoOpReason::Malformed)];
    store.append(&block_on(head()), None, &[], &left_out).expect("written");
    assert_eq!(status(&store, b"one"), rejected(NoOpReason::BadSignature));
    assert_eq!(status(&store, b"two"), rejected(NoOpReason::Malformed));
    assert!(store.candidates().expect("read").is_empty());
    assert_eq!(store.submit(b"one", terms(6)).expect("again"), TxStatus::Pending);
    assert_eq!(store.candidates().expect("read").len(), 1);
}

#[test]
fn a_promise_whose_block_is_orphaned_is_owed_until_it_is_taken_again() {
    let files = Files::new();
    let mut store = files.store("store");
    let block = L2Block { own_txs: vec![b"one".to_vec()], ..block_on(head()) };
    store.submit(b"one", terms(5)).expect("taken");
    let seq = store.candidates().expect("read")[0].seq;
    assert!(!store.owes_beside(&[]).expect("read"), "nothing was promised");
    let included = Included { seq, receipt: Some(receipt(b"one")) };
    store.append(&block, None, &[included], &[]).expect("written");
    assert!(!store.owes_beside(&[]).expect("read"), "it is kept");
    store.realign(&[block.hash], &[]).expect("orphaned");
    assert!(store.owes_beside(&[]).expect("read"));
    let waiting = store.waiting(&[seq]).expect("read");
    assert!(waiting[0].owed && !store.owes_beside(&waiting).expect("read"), "it is taken now");
}

#[test]
fn what_is_settled_is_watched_no_more_and_two_long_transactions_have_room() {
    let files = Files::new();
    let mut store = files.store("store");
    for fill in [1, 2] {
        store.submit(&[fill; 20_000], terms(5)).expect("taken");
    }
    let block = block_on(head());
    store.append(&block, None, &[], &[]).expect("written");
    assert_eq!(store.live().expect("read"), [(block.header.number, block.hash)]);
    store.settle(block.header.number).expect("settled");
    assert!(store.live().expect("read").is_empty());
}

#[test]
fn a_watermark_that_cannot_be_read_is_an_error_and_what_it_covers_is_kept() {
    let files = Files::new();
    let (mark, covered) = (|watermark: &Watermark| watermark.mark(&ROLLUP).expect("marked").signed_up_to, 900);
    let mut watermark = files.watermark();
    let path = watermark.path().to_owned();
    let begun = watermark::Mark { session: "two".into(), before: Some("one".into()), signed_up_to: covered };
    watermark.set(&ROLLUP, begun).expect("written");
    for (number, up_to) in [(1, covered), (covered, covered), (covered + 1, covered + 1 + 64)] {
        watermark.reserve(&ROLLUP, "two", number).expect("written");
        assert_eq!(mark(&watermark), up_to, "{number}");
    }
    drop(watermark);
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir(&path).expect("a folder in its place");
    let opened = Watermark::open(&files.dir.path().join("key"), files.key);
    assert!(matches!(opened, Err(WatermarkError::File { .. })), "{opened:?}");
}
