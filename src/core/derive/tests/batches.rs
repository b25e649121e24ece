//! Batches that are accepted, and the bounds at which they no longer are.

use super::*;
use crate::envelope::{Carrier, Payload};
use DropReason as R;
use sequencer::stored_then;

const EMPTY: &[&[u8]] = &[];

#[test]
fn any_threshold_of_the_set_signs_and_nothing_else_does() {
    let mut rig = Rig::new(Parameters::default());
    let table: [(&[u8], Verdict); 9] = [
        (&[0], Verdict::Drop(R::SignatureCount)),
        (&[], Verdict::Drop(R::SignatureCount)),
        (&[0, 1, 2], Verdict::Drop(R::SignatureCount)),
        (&[1, 0], Verdict::Drop(R::Signer)),
        (&[2, 2], Verdict::Drop(R::Signer)),
        (&[0, 1], Verdict::Accept),
        (&[0, 2], Verdict::Accept),
        (&[1, 2], Verdict::Accept),
        (&[2, 1], Verdict::Drop(R::Signer)),
    ];
    for (by, verdict) in table {
        let mut draft = rig.draft().block(false, EMPTY);
        draft.by = by.to_vec();
        assert_eq!(verdicts(&rig.mine([rig.post(&draft)])), [verdict], "{by:?}");
    }
}

#[test]
fn a_batch_executes_every_item_of_the_origins_it_adopts_in_order() {
    let mut rig = Rig::new(Parameters { max_forced: 2, ..Parameters::default() });
    rig.mine((0..5u8).map(|i| rig.force(&[i])).collect::<Vec<_>>());
    rig.mine([rig.force(b"later")]);
    // Several blocks at one origin, as many as the backlog needs; then one that needs none.
    let draft = rig.draft().block(true, &[b"own"]).drain().block(false, EMPTY).block(true, &[b"own", b"own"]);
    let step = rig.mine([rig.post(&draft)]);
    let [first, second] = [rig::START_HEIGHT + 1, rig::START_HEIGHT + 2];
    let expected = [(first, 0..2, 1), (first, 2..4, 0), (first, 4..5, 0), (first, 5..5, 0), (second, 5..6, 2)];
    assert_eq!(shape(&step), expected);
    assert_eq!(step.blocks, draft.expected());
}

#[test]
fn what_one_origin_leaves_is_carried_over_to_the_next_in_front_of_its_items() {
    let mut rig = Rig::new(Parameters { max_forced: 2, ..Parameters::default() });
    rig.mine((0..3u8).map(|i| rig.force(&[i])).collect::<Vec<_>>());
    rig.mine([rig.force(b"later")]);
    let step = rig.mine([rig.post(&rig.draft().block(true, EMPTY).block(true, EMPTY))]);
    assert_eq!(shape(&step), [(rig::START_HEIGHT + 1, 0..2, 0), (rig::START_HEIGHT + 2, 2..4, 0)]);
}

#[test]
fn batches_of_one_bitcoin_block_follow_each_other() {
    let mut rig = Rig::new(Parameters::default());
    rig.mine_to(rig::START_HEIGHT + 2);
    let first = rig.draft().block(false, &[b"1"]);
    let second = first.next().block(true, &[b"2"]).block(false, &[b"3"]);
    let third = second.next().block(true, &[b"4"]);
    let envelopes = [&second, &first, &third, &second, &first, &third].map(|draft| rig.post(draft));
    let step = rig.mine(envelopes);
    let expected = [
        Verdict::Drop(R::WrongNumber),
        Verdict::Accept,
        Verdict::Drop(R::WrongNumber),
        Verdict::Accept,
        Verdict::Drop(R::Replay),
        Verdict::Accept,
    ];
    assert_eq!(verdicts(&step), expected);
    assert_eq!(step.blocks, [first.expected(), second.expected(), third.expected()].concat());
}

#[test]
fn a_twin_of_the_head_is_no_parent() {
    let mut rig = Rig::new(Parameters::default());
    let (head, twin) = (rig.draft().block(false, &[b"head"]), rig.draft().block(false, &[b"twin"]));
    let on_twin = twin.next().block(false, EMPTY);
    let step = rig.mine([rig.post(&head), rig.post(&twin), rig.post(&on_twin)]);
    assert_eq!(verdicts(&step), [Verdict::Accept, Verdict::Drop(R::Replay), Verdict::Drop(R::WrongParent)]);
}

#[test]
fn own_transactions_may_be_as_old_as_the_lag_and_no_older() {
    for max_lag in [1, 2, 5, 10] {
        let lag = u32::from(max_lag);
        let mut rig = Rig::new(Parameters { window: 20, max_lag, ..Parameters::default() });
        rig.mine_to(rig::START_HEIGHT + 12);
        let table = [(lag + 1, Verdict::Drop(R::StaleOrigin)), (lag, Verdict::Accept)];
        for (below, verdict) in table {
            let origin = rig.height() + 1 - below;
            let draft = rig.draft().adopt(origin - 1).block(true, &[b"own"]);
            let step = rig.mine([rig.post(&draft)]);
            assert_eq!(verdicts(&step), [verdict], "{below} below with a lag of {lag}");
            rig.disconnect(1);
        }
        // Without own transactions no origin is too old.
        let step = rig.mine([rig.post(&rig.draft().block(true, EMPTY))]);
        assert_eq!(verdicts(&step), [Verdict::Accept]);
    }
}

#[test]
fn timestamps_keep_their_bounds_to_the_second() {
    let mut rig = Rig::new(Parameters::default());
    rig.mine_to(rig::START_HEIGHT + 3);
    let origin = rig.derivation.origin(rig::START_HEIGHT + 1).unwrap();
    let lower = rig.head().child_lower_bound(origin);
    assert_eq!(lower, u64::from(origin.median_time));
    let latest = u64::from(rig.next_time()) + 7200;
    let table = [
        (lower - 1, Verdict::Drop(R::TimestampLow)),
        (lower, Verdict::Accept),
        (lower + 1, Verdict::Accept),
        (latest, Verdict::Accept),
        (latest + 1, Verdict::Drop(R::TimestampHigh)),
        (u64::MAX, Verdict::Drop(R::TimestampHigh)),
    ];
    for (timestamp, verdict) in table {
        let step = rig.mine([rig.post(&rig.draft().block_at(true, timestamp, EMPTY))]);
        assert_eq!(verdicts(&step), [verdict], "{timestamp}");
        rig.disconnect(1);
    }
}

#[test]
fn time_may_stand_still_but_not_go_on_while_bitcoins_time_is_behind() {
    let mut rig = Rig::new(Parameters::default());
    let latest = u64::from(rig.next_time()) + 7200;
    rig.mine([rig.post(&rig.draft().block_at(false, latest, EMPTY))]);
    // A header time may be lower than the one before; then no block may be later than its lower bound.
    let earlier = rig.next_time() - 2 * rig::SPACING;
    for (timestamp, verdict) in [(latest + 1, Verdict::Drop(R::TimestampHigh)), (latest, Verdict::Accept)] {
        let draft = rig.draft().block_at(true, timestamp, EMPTY);
        assert_eq!(verdicts(&rig.mine_at(earlier, [rig.post(&draft)])), [verdict], "{timestamp}");
        rig.disconnect(1);
    }
    // Each check goes over all blocks before the next one begins.
    let low_then_high = {
        let mut draft = rig.draft().block(true, EMPTY).block_at(false, latest + 7200, EMPTY);
        draft.blocks[0].seconds = 0;
        draft
    };
    assert_eq!(verdicts(&rig.mine_at(earlier, [rig.post(&low_then_high)])), [Verdict::Drop(R::TimestampHigh)]);
}

#[test]
fn the_median_time_is_bitcoins() {
    let mut rig = Rig::new(Parameters::default());
    assert_eq!(rig.derivation.tip().median_time, rig::START_TIME - 5 * rig::SPACING);
    let mut times = rig::start_times();
    for time in [5, u32::MAX, 0, 7, 7, rig::START_TIME, 1, 2, 3, 4, 5, 6] {
        let step = rig.mine_at(time, []);
        times.push(time);
        let mut last = times[times.len() - 11..].to_vec();
        last.sort_unstable();
        assert_eq!(step.origin.median_time, last[5]);
    }
    // More than ten ancestors change nothing.
    let more = [&[0; 5], &rig::start_times()[..]].concat();
    let genesis = |times: &[u32]| Derivation::genesis(&rig.manifest, times);
    assert_eq!(genesis(&more), genesis(&rig::start_times()));
    // Near Bitcoin's genesis there are fewer.
    for (times, median) in [(&[9, 1][..], 9), (&[3], 3), (&[4, 2, 3], 3), (&[1, 2, 4, 3], 3)] {
        assert_eq!(genesis(times).tip().median_time, median);
    }
}

type Encode = fn(Vec<u8>) -> Vec<u8>;

/// Ways to write the same data: name, codec, and how, if not as the codec's encoder does.
pub(super) fn encodings() -> [(&'static str, u8, Option<Encode>); 9] {
    fn fixed_codes(plain: Vec<u8>) -> Vec<u8> {
        use miniz_oxide::deflate::core::{
            CompressorOxide, TDEFLFlush, compress_to_output, create_comp_flags_from_zip_params,
        };
        // Strategy 4 is Z_FIXED; window bits below 0 leave out the zlib header.
        let mut state = CompressorOxide::new(create_comp_flags_from_zip_params(6, -15, 4));
        let mut stream = Vec::new();
        compress_to_output(&mut state, &plain, TDEFLFlush::Finish, |bytes| {
            stream.extend(bytes);
            true
        });
        stream
    }
    [
        ("plain", 0, None),
        ("DEFLATE", 1, None),
        ("with fixed codes", 1, Some(fixed_codes)),
        (
            "stored, the bits left of its header set",
            1,
            Some(|plain| {
                let mut stream = stored_then(&plain, &[]);
                stream[0] = 0xf9;
                stream
            }),
        ),
        ("stored twice", 1, Some(|plain| stored_then(&plain[..5], &stored_then(&plain[5..], &[1, 0, 0, 0xff, 0xff])))),
        ("and an empty block of fixed codes", 1, Some(|plain| stored_then(&plain, &[0x03, 0x00]))),
        ("and the bits left of the last byte set", 1, Some(|plain| stored_then(&plain, &[0x03, 0xfc]))),
        (
            "and a block with one code and no distances",
            1,
            Some(|plain| stored_then(&plain, &[0x05, 0xc0, 0x81, 0x08, 0, 0, 0, 0, 0x20, 0x7f, 0xeb, 0x03])),
        ),
        (
            "and a block with one code of each kind",
            1,
            Some(|plain| stored_then(&plain, &[0x05, 0xc0, 0x81, 0x08, 0, 0, 0, 0, 0x20, 0x7f, 0xeb, 0x07])),
        ),
    ]
}

#[test]
fn every_encoding_of_the_data_gives_the_same_blocks() {
    let mut rig = Rig::new(Parameters::default());
    rig.mine([]);
    for (name, codec, data) in encodings() {
        let mut draft = rig.draft().block(true, &[[7; 300], [8; 300]]).block(false, &[[9; 100]]);
        (draft.codec, draft.data) = (codec, data);
        let step = rig.mine([rig.post(&draft)]);
        assert_eq!((verdicts(&step), &step.blocks[..]), (vec![Verdict::Accept], draft.expected()), "{name}");
        rig.disconnect(1);
    }
}

#[test]
fn what_is_not_for_this_rollup_has_no_effect() {
    let mut rig = Rig::new(Parameters::default());
    let elsewhere = |body| {
        let payload = Payload { namespace: crate::primitives::Namespace([0; 4]), body };
        Envelope { carrier: Carrier::OpReturn, payload: payload.encode().unwrap() }
    };
    let batch = rig.draft().block(false, &[b"own"]);
    let envelopes = [
        elsewhere(Body::Tx(b"tx".to_vec())),
        elsewhere(Body::Batch(batch.body())),
        rig.envelope(Carrier::Taproot, Body::Unsupported(0x12, batch.body())),
        rig.envelope(Carrier::Taproot, Body::Unsupported(0x00, b"tx".to_vec())),
    ];
    let step = rig.mine(envelopes);
    assert_eq!((step.items.len(), verdicts(&step), step.blocks.len()), (0, vec![], 0));
}

#[test]
fn the_same_bytes_forced_four_times_and_sequenced_are_five_transactions() {
    let mut rig = Rig::new(Parameters::default());
    let shared = rig.envelope(Carrier::Taproot, Body::Txs(vec![vec![7; 64], vec![7; 64]]));
    let step = rig.mine([shared.clone(), shared]);
    assert_eq!(step.items.len(), 4);
    assert!(step.items.iter().all(|item| item.tx_hash() == step.items[0].tx_hash()));
    let step = rig.mine([rig.post(&rig.draft().block(true, &[[7; 64]]))]);
    assert_eq!(shape(&step), [(rig::START_HEIGHT + 1, 0..4, 1)]);
}
