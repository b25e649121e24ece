use super::super::admission::{Candidate, Used, choose};
use super::*;
use crate::sequencer::limits::Limiter;
use rusqlite::{Error, ffi};
use std::io;

const PRICE: Price = Price(2_750);
const TRANSFER: usize = 153;
const COST: u64 = 421;

fn of_mallory(fee: u64) -> Vec<Candidate> {
    vec![Candidate { seq: 1, sender: Some(vec![7]), fee: Some(fee), size: TRANSFER, owed: false }]
}

#[test]
fn what_pays_exactly_its_price_uses_up_no_ration_and_needs_none() {
    let mut used = Used::default();
    (0..5_000).for_each(|_| used.add(Some(&[7]), Some(COST), TRANSFER, PRICE));
    assert_eq!(choose(of_mallory(0), used.clone(), PRICE, usize::MAX), [1]);
    (0..5_000).for_each(|_| used.add(Some(&[7]), Some(COST - 1), TRANSFER, PRICE));
    assert_eq!(choose(of_mallory(COST - 1), used.clone(), PRICE, usize::MAX), [0; 0]);
    assert_eq!(choose(of_mallory(COST), used, PRICE, usize::MAX), [1]);
}

#[test]
fn an_allowance_that_is_full_again_is_forgotten_and_no_more_clients_are_kept_than_allowed() {
    let second = Duration::from_secs(1);
    let mut limiter = Limiter::new(Rate { burst: 2, per_second: 1 }, 2);
    for client in ['a', 'a', 'b'] {
        assert_eq!(limiter.take(client, second), Ok(()));
    }
    assert_eq!(limiter.take('a', second), Err(second));
    // One that is known is served although there are as many as are kept.
    assert_eq!(limiter.take('b', second), Ok(()));
    assert_eq!(limiter.take('b', second), Err(second));
    assert_eq!(limiter.take('c', 3 * second), Ok(()), "both are full again");
    assert_eq!([limiter.take('a', 3 * second), limiter.take('a', 3 * second)], [Ok(()), Ok(())]);
    assert_eq!(limiter.take('a', 3 * second), Err(second));
}

fn of_sqlite(code: i32) -> Error {
    Error::SqliteFailure(ffi::Error::new(code), None)
}

#[test]
fn on_a_full_disk_whichever_file_it_is_the_sequencer_waits_and_takes_nothing_in() {
    let watermark = |kind: ErrorKind| {
        let error = io::Error::from(kind);
        SequencerError::Watermark(WatermarkError::File { path: "key.watermark".into(), error })
    };
    let errors = |code: i32, kind| {
        [
            SequencerError::Store(of_sqlite(code)),
            SequencerError::Follower(FollowerError::Store(of_sqlite(code))),
            SequencerError::Wallet(WalletError::Database(of_sqlite(code))),
            SequencerError::Publish(PublishError::Wallet(WalletError::Database(of_sqlite(code)))),
            watermark(kind),
        ]
    };
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge] {
        for error in errors(ffi::SQLITE_FULL, kind) {
            assert!(error.is_temporary() && error.is_of_full_disk(), "{error}");
            assert!(matches!(Refusal::from(error), Refusal::NoRoom));
        }
    }
    for error in errors(ffi::SQLITE_CORRUPT, ErrorKind::PermissionDenied) {
        assert!(!error.is_temporary() && !error.is_of_full_disk(), "{error}");
        assert!(matches!(Refusal::from(error), Refusal::Failed(_)));
    }
    assert!(matches!(Refusal::from(SequencerError::PoolFull(9)), Refusal::PoolFull(9)));
    assert!(matches!(Refusal::from(SequencerError::SenderFull), Refusal::SenderFull));
}

#[test]
fn the_least_fee_is_rounded_up_to_a_satoshi() {
    let view = HeadView { number: 1, hash: hash(1), state_root: hash(2), origin_height: 1, timestamp: 1 };
    let status = Status {
        rollup_id: ROLLUP,
        unsafe_head: view,
        safe_head: view,
        bitcoin: tip().block,
        accepting: true,
        posting_error: None,
        in_flight: None,
        least_fee_msat_per_byte: 2_750,
        paid_per_day_sat: 0,
        max_fee_per_day_sat: None,
        paused: None,
        trouble: None,
        receipts_from: None,
    };
    assert_eq!([0, 1, 4, TRANSFER].map(|length| status.least_fee(length)), [0, 3, 11, COST]);
}
