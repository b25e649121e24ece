mod costs;
mod pool;

use super::history::{RECEIPT_SPAN, Record};
use super::*;
use crate::l2::{L2Block, L2Head, L2Header};
use crate::manifest::{ExecutorKind, ExecutorSpec, Fields, SequencerSet};
use crate::primitives::Hash32;
use crate::wallet::SatPerVb;
use bitcoin::hashes::Hash;
use bitcoin::p2p::Magic;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{FeeRate, Txid};
use tempfile::TempDir;

const ROLLUP: RollupId = RollupId([7; 32]);

/// A key file in a folder, and a store beside it.
struct Files {
    dir: TempDir,
    key: XOnlyPublicKey,
}

impl Files {
    /// With the watermark of a key that was just made.
    fn new() -> Self {
        let files = Self::without_watermark();
        Watermark::create(&files.dir.path().join("key"), files.key).expect("created");
        files
    }

    fn without_watermark() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("key"), "").expect("a key file");
        let secret = SecretKey::from_slice(&[1; 32]).expect("a small number is a key");
        let key = Keypair::from_secret_key(&Secp256k1::new(), &secret).x_only_public_key().0;
        Self { dir, key }
    }

    fn store(&self, name: &str) -> SequencerStore {
        SequencerStore::open(&self.dir.path().join(name)).expect("opened")
    }

    fn watermark(&self) -> Watermark {
        Watermark::open(&self.dir.path().join("key"), self.key).expect("opened")
    }

    fn start(&self, store: &SequencerStore, declared: Option<L2Number>) -> History {
        History::new(self.watermark(), ROLLUP, declared, store).expect("read")
    }

    fn session(&self, store: &SequencerStore) -> String {
        store.history().expect("read").session.expect("one has begun")
    }
}

fn hash(n: u64) -> Hash32 {
    Hash32(std::array::from_fn(|i| n.to_le_bytes().get(i).copied().unwrap_or(1)))
}

fn header(number: L2Number, parent: Hash32) -> L2Header {
    L2Header {
        number,
        parent,
        origin: BlockRef { height: 50, hash: BlockHash::all_zeros() },
        timestamp: 1_000,
        forced_end: 3,
        queue_size: 3,
        queue_root: hash(0),
        txs_root: hash(0),
    }
}

/// The block after number 10, whose hash is that of 10.
fn head() -> L2Head {
    L2Head { header: header(10, hash(9)), hash: hash(10) }
}

fn block_on(parent: L2Head) -> L2Block {
    let number = parent.header.number + 1;
    L2Block { header: header(number, parent.hash), hash: hash(number), forced: 3..3, own_txs: Vec::new() }
}

fn tip() -> Origin {
    let block = BlockRef { height: 53, hash: BlockHash::all_zeros() };
    Origin { block, median_time: 1_000, queue_size: 8, queue_root: hash(0) }
}

/// What one sequencer can have made on [`head`] up to the time 1,100: a block a second, three for Bitcoin's blocks and
/// five for the forced items; and what was promised.
const POSSIBLE: L2Number = 10 + 100 + 3 + 5 + RECEIPT_SPAN;

#[test]
fn only_a_key_that_never_signed_is_at_its_first_start() {
    let files = Files::new();
    let mut store = files.store("store");
    assert_eq!(files.start(&store, None).start(), Start::First);
    assert_eq!(files.start(&store, Some(9)).start(), Start::Lost, "the operator says that it has signed");
    let mut history = files.start(&store, None);
    history.tick(1_000, &head(), &tip(), &mut store).expect("begun");
    history.tick(5_000, &head(), &tip(), &mut store).expect("the clock jumped");
    assert!(history.never_signed() && history.start() == Start::First);
    assert_eq!(history.turn(&head(), 5_000, 900, 9_000), Turn::Any);
    assert!(history.may_sign(&block_on(head())));
    history.reserve(11).expect("written");
    assert!(!history.never_signed());
    drop(history);
    assert_eq!(files.start(&store, None).start(), Start::Again);
    assert_eq!(files.start(&files.store("another"), None).start(), Start::Lost, "the store is new");

    let signed = store::StoredBatch { last_hash: hash(11), payload: vec![1] };
    let (old_store, no_watermark) = (Files::new(), Files::without_watermark());
    let mut store = old_store.store("store");
    store.put_batch(&hash(10), &signed).expect("written");
    assert_eq!(old_store.start(&store, None).start(), Start::Lost, "the store has signed, the watermark is new");
    assert_eq!(no_watermark.start(&no_watermark.store("store"), None).start(), Start::Lost, "nothing is known of it");
}

#[test]
fn a_start_that_signed_nothing_leaves_the_store_of_the_one_before_valid() {
    let files = Files::new();
    let mut store = files.store("store");
    let mut history = files.start(&store, None);
    history.tick(1_000, &head(), &tip(), &mut store).expect("begun");
    history.reserve(11).expect("written");
    drop(history);
    let (first, record) = (files.session(&store), store.history().expect("read"));

    let mut history = files.start(&store, None);
    history.tick(1_100, &head(), &tip(), &mut store).expect("begun");
    let mark = history.watermark().mark(&ROLLUP).expect("marked").clone();
    assert_eq!((mark.before.as_ref(), &mark.session), (Some(&first), &files.session(&store)));
    assert_ne!(mark.session, first);
    drop(history);
    // The store's write was lost with the power.
    store.put_history(&record).expect("written");
    assert_eq!(files.start(&store, None).start(), Start::Again);
    let other = Record { session: Some("another".into()), ..record.clone() };
    store.put_history(&other).expect("written");
    assert_eq!(files.start(&store, None).start(), Start::Lost);

    store.put_history(&record).expect("written");
    let mut history = files.start(&store, None);
    history.tick(1_200, &head(), &tip(), &mut store).expect("begun");
    history.reserve(12).expect("written");
    assert_eq!(history.watermark().mark(&ROLLUP).and_then(|mark| mark.before.clone()), None);
    drop(history);
    store.put_history(&record).expect("written");
    assert_eq!(files.start(&store, None).start(), Start::Lost, "it is older than what was signed");
}

#[test]
fn what_may_have_been_signed_is_all_that_can_have_been_made_or_what_the_operator_says() {
    for (now, declared, highest) in [
        (1_100, None, POSSIBLE),
        (900, None, POSSIBLE - 100),
        (u64::MAX, None, POSSIBLE - 100 + MAX_PROMISED_BLOCKS),
        (1_100, Some(500), 500),
    ] {
        let files = Files::without_watermark();
        let mut store = files.store("store");
        let mut history = files.start(&store, declared);
        history.tick(now, &head(), &tip(), &mut store).expect("begun");
        assert_eq!((history.start(), history.record().signed_up_to), (Start::Lost, highest), "{now} {declared:?}");
        let mark = history.watermark().mark(&ROLLUP).expect("marked");
        assert_eq!((mark.signed_up_to, &mark.before), (highest, &None));
        for (number, highest_signed, last) in [(5, 7, highest), (5, 9_999_999, 9_999_999), (9_999_999, 7, 9_999_999)] {
            assert_eq!(history.last_number(number, highest_signed), last + RECEIPT_SPAN);
        }
        assert_eq!(history.may_sign(&block_on(L2Head { header: header(500, hash(0)), ..head() })), declared.is_some());
        assert!(!history.may_sign(&block_on(L2Head { header: header(499, hash(0)), ..head() })));
    }
}

#[test]
fn a_clock_that_jumps_begins_a_start_and_one_that_goes_on_does_not() {
    let files = Files::without_watermark();
    let mut store = files.store("store");
    let mut history = files.start(&store, None);
    let mut sessions = Vec::new();
    for now in [1_000, 1_060, 1_060, 1_120, 1_181, 1_180] {
        history.tick(now, &head(), &tip(), &mut store).expect("ticked");
        sessions.push(files.session(&store));
    }
    assert!(sessions[..4].windows(2).all(|pair| pair[0] == pair[1]), "up to a minute is no jump");
    assert!(sessions[3..].windows(2).all(|pair| pair[0] != pair[1]), "forwards and backwards");
    assert_eq!(history.start(), Start::Again);
}

#[test]
fn a_start_that_may_have_lost_its_past_opens_with_two_empty_blocks_that_nothing_can_have_stood_on() {
    let files = Files::without_watermark();
    let mut store = files.store("store");
    let mut history = files.start(&store, None);
    history.tick(1_000, &head(), &tip(), &mut store).expect("begun");
    assert_eq!(history.turn(&head(), 1_000, 900, 2_000), Turn::Wait, "the second of the start may be another's");
    for latest in [1_001, 2_000] {
        assert_eq!(history.turn(&head(), 1_001, 900, latest), Turn::Empty(1_001));
    }
    for (now, earliest, latest) in [(1_001, 1_001, 2_000), (1_001, 500, 1_000), (1_300, 1_300, 1_301)] {
        let Turn::Empty(time) = history.turn(&head(), now, earliest, latest) else { panic!("{now} {earliest}") };
        assert!((earliest + 1..=latest.min(earliest + 256)).contains(&time), "{time}: a random second");
    }
    assert_eq!(history.turn(&head(), 999, 1_000, 1_000), Turn::Any, "nothing can set it apart");

    let first = block_on(head());
    history.made(&first, Turn::Empty(1_001), false);
    assert!(!history.may_sign(&first) && !history.may_sign(&block_on(first.head())));
    let Turn::Empty(time) = history.turn(&first.head(), 1_500, 1_001, 1_050) else { panic!("empty") };
    assert!((1_002..=1_050).contains(&time), "{time}");
    let second = block_on(first.head());
    history.made(&second, Turn::Empty(time), false);
    assert_eq!(history.turn(&second.head(), 1_100, 1_050, 2_000), Turn::Any);
    let third = block_on(second.head());
    assert!(history.may_sign(&third));
    history.made(&third, Turn::Any, false);
    assert!(history.may_sign(&block_on(third.head())));
    history.settle(third.header.number);
    assert!(!history.may_sign(&third) && history.may_sign(&block_on(third.head())));
    // The same second block as one that was made before sets nothing apart.
    let another = Files::without_watermark();
    let mut again = another.start(&store, None);
    again.tick(1_000, &head(), &tip(), &mut store).expect("begun");
    again.made(&first, Turn::Empty(1_001), false);
    again.made(&second, Turn::Empty(time), true);
    assert!(!again.may_sign(&third));
}

#[test]
fn each_sixty_fourth_block_up_to_what_may_be_promised_stays_empty() {
    let files = Files::without_watermark();
    let mut store = files.store("store");
    let mut history = files.start(&store, None);
    history.tick(1_100, &head(), &tip(), &mut store).expect("begun");
    assert_eq!(history.record().signed_up_to, POSSIBLE);
    let at = |number: L2Number| L2Head { header: header(number, hash(number - 1)), hash: hash(number) };
    history.made(&block_on(at(99)), Turn::Empty(1_101), false);
    let mut head = at(100);
    for _ in 101..400 {
        let block = block_on(head);
        // The first of them makes the others unique.
        let turn = history.turn(&head, 1_200, 1_150, 1_180);
        if block.header.number > 101 {
            let is_gap = block.header.number.is_multiple_of(64) && block.header.number <= POSSIBLE + 64;
            assert_eq!(turn, if is_gap { Turn::Empty(1_180) } else { Turn::Any }, "{}", block.header.number);
            assert_eq!(history.may_sign(&block), !is_gap, "{}", block.header.number);
        }
        history.made(&block, turn, false);
        head = block.head();
    }
}

#[test]
fn a_store_that_lost_its_past_takes_what_is_on_bitcoin_for_it_and_promises_nothing_for_a_window() {
    let files = Files::new();
    let mut store = files.store("store");
    let mut history = files.start(&store, None);
    assert_eq!(history.receipts_from(0), None);
    history.lose(100, 40);
    let Record { receipts_from, known_since, compared, .. } = *history.record();
    assert_eq!((history.start(), receipts_from, known_since, compared), (Start::Lost, 140, 100, 100));
    assert_eq!([139, 140, 141].map(|height| history.receipts_from(height)), [Some(140), None, None]);
    history.compared(105, &mut store).expect("written");
    assert_eq!(store.history().expect("read").compared, 105);
    drop(history);
    let mut declared = files.start(&store, Some(7));
    declared.lose(100, 40);
    assert_eq!(declared.receipts_from(0), None, "the operator's word is taken");
}

#[test]
fn a_batch_on_its_way_is_shown_with_what_it_pays_and_what_is_asked() {
    let rate = |sat_per_kwu| FeeRate::from_sat_per_kwu(sat_per_kwu);
    let waits = InFlight {
        job: JobId(3),
        first: 5,
        last: 9,
        txids: vec![Txid::all_zeros()],
        posted_at: 1_000,
        confirm_by: 120,
        pays: rate(500),
        asked: rate(500),
        stuck_since: None,
        reason: None,
    };
    assert_eq!(waits.to_string(), "blocks 5 to 9 (job 3) are to be mined by height 120 and pay 2 sat/vB");
    let stuck = InFlight { asked: rate(625), reason: Some("a cap".into()), ..waits.clone() };
    assert_eq!(stuck.to_string(), format!("{waits}, {} is asked: a cap", SatPerVb(rate(625))));
    let json = serde_json::to_value(&stuck).expect("written");
    assert_eq!((json["fee_rate_sat_vb"].as_f64(), json["asked_fee_rate_sat_vb"].as_f64()), (Some(2.0), Some(2.5)));
}

#[test]
fn settings_that_leave_no_time_to_post_are_refused() {
    for (max_lag, sequencing_window, confirmations, has_time) in [
        (3, 4, 2, true),
        (3, 3, 2, false),
        (2, 4, 2, false),
        (1, 4, 2, false),
        (1, 2, 0, true),
        (6, 9, u32::MAX, false),
    ] {
        let key = Files::without_watermark().key;
        let manifest = Manifest::new(Fields {
            name: "lag".into(),
            network: Magic::REGTEST,
            start: tip().block,
            sequencing_window,
            max_lag,
            max_forced_per_block: 2,
            sequencers: SequencerSet::new(vec![key], 1).expect("one"),
            executor: ExecutorSpec { kind: ExecutorKind::Opaque, parameters: Vec::new() },
            predecessor: None,
        });
        let checked = check_time_to_post(&manifest.expect("valid"), confirmations);
        assert_eq!(checked.is_ok(), has_time, "{max_lag} {sequencing_window} {confirmations}");
    }
}

#[test]
fn whom_a_limit_holds_up_is_told_to_wait_for_whole_seconds_that_suffice() {
    for (millis, seconds) in [(2_000, 2), (2_001, 3), (2_999, 3), (1, 1)] {
        let refusal = Refusal::TooMany(Duration::from_millis(millis)).to_string();
        assert_eq!(refusal, format!("too many requests; try again in {seconds} s"));
    }
}
