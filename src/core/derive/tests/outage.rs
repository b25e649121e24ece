//! Scenarios 18 to 26: without a sequencer, until it comes back, and with one of another version.

use super::*;
use crate::envelope::{Carrier, MAGIC};
use crate::manifest::ManifestError;
use DropReason as R;
use history::{history, waits};
use rig::START_HEIGHT;

const EMPTY: &[&[u8]] = &[];

fn short() -> Parameters {
    Parameters { window: 6, max_lag: 3, ..Parameters::default() }
}

/// Junk of every kind: what reaches Bitcoin from a sequencer that has lost its mind.
fn junk(rig: &Rig) -> Vec<Envelope> {
    let flaws = verdicts::flaws_of_any_batch().into_iter();
    let spoilt = flaws.map(|(_, _, spoil)| {
        let mut draft = rig.draft().block(false, EMPTY);
        spoil(&mut draft);
        rig.post(&draft)
    });
    spoilt.collect()
}

// Scenario 18, window_expires_forced_only_blocks.
#[test]
fn two_windows_without_a_sequencer_bring_in_every_origin_and_every_item() {
    let mut rig = Rig::new(Parameters { max_forced: 2, ..short() });
    for i in 0..13u8 {
        rig.mine([0, 1, 2].map(|j| rig.force(&[i, j])));
    }
    let blocks: Vec<_> = history(&rig).into_iter().flat_map(|step| step.blocks).collect();
    assert!(blocks.iter().all(|block| block.own_txs.is_empty()));
    let mut origins: Vec<_> = blocks.iter().map(|block| block.header.origin.height).collect();
    origins.dedup();
    assert_eq!(origins, (START_HEIGHT + 1..=rig.head().origin.height).collect::<Vec<_>>(), "none is left out");
    let through = waits(&rig).len() as u64;
    assert_eq!(through, 3 * u64::from(rig.head().origin.height - START_HEIGHT), "and nothing of any");
}

// Scenario 18, the hostile variant; 19, dont_force_empty_early.
#[test]
fn a_sequencer_that_posts_junk_is_as_good_as_a_dead_one() {
    let [quiet, busy] = [false, true].map(|posts| {
        let mut rig = Rig::new(short());
        let mut shapes = Vec::new();
        for i in 0..20u8 {
            let item = (i % 3 == 0).then(|| rig.force(&[i]));
            let envelopes = if posts && i % 5 == 2 { junk(&rig) } else { Vec::new() };
            shapes.push(shape(&rig.mine(envelopes.into_iter().chain(item).collect::<Vec<_>>())));
        }
        assert!(waits(&rig).len() > 4);
        shapes
    });
    assert_eq!(quiet, busy);
    assert!(quiet[..6].iter().all(Vec::is_empty), "nothing before the window has closed");
}

// Scenario 20, catchup: uses_l1_time, monotonic_time, skips_mempool, multi_epoch, empty_epoch.
#[test]
fn catching_up_takes_its_time_from_bitcoin_and_never_goes_back() {
    let mut rig = Rig::new(short());
    // Bitcoin's header times go back and forth; its median does not.
    let erratic = [0, 9000, 100, 7000, 7000, 20, 15_000, 0, 1, 30_000, 2, 3, 50_000, 4];
    let base = rig.next_time();
    for (i, seconds) in erratic.into_iter().enumerate() {
        let item = (i % 2 == 0).then(|| rig.force(&[i as u8]));
        rig.mine_at(base + seconds, item);
    }
    let blocks: Vec<_> = history(&rig).into_iter().flat_map(|step| step.blocks).collect();
    assert!(blocks.len() > 5);
    assert!(blocks.is_sorted_by_key(|block| block.header.timestamp));
    assert!(blocks.iter().all(|block| block.own_txs.is_empty()), "nothing but what Bitcoin has");
    let last = blocks.last().unwrap();
    assert!(last.header.timestamp < u64::from(base) + 50_000, "no single header decides");
}

// Scenario 20: exits_at_head, not_when_recent.
#[test]
fn catching_up_stops_half_a_window_below_the_tip_and_begins_again_a_window_later() {
    for window in [2u16, 3, 6, 7, 36] {
        let mut rig = Rig::new(Parameters { window, max_lag: 1, ..Parameters::default() });
        let window = BtcHeight::from(window);
        let mut jumps = Vec::new();
        while rig.height() < START_HEIGHT + 4 * window {
            if !rig.mine([]).blocks.is_empty() {
                jumps.push(rig.height());
                assert_eq!(rig.head().origin.height, rig.height() - window / 2, "window {window}");
            }
        }
        assert_eq!(jumps[0], START_HEIGHT + window + 1);
        let apart: Vec<_> = jumps.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(apart.iter().all(|blocks| *blocks == window + 1 - window / 2), "window {window}: {apart:?}");
    }
}

// Scenarios 20, restart equals the chain of one that was there; 21, crash_mid_epoch_resume.
#[test]
fn who_comes_late_catches_up_to_what_those_have_who_were_there() {
    let mut rig = Rig::new(Parameters { max_forced: 1, ..short() });
    for i in 0..24u8 {
        let batch = (i % 9 == 8).then(|| rig.post(&rig.draft().block(true, &[[i]])));
        let forced = (i % 2 == 0).then(|| rig.force(&[i]));
        rig.mine(batch.into_iter().chain(forced).collect::<Vec<_>>());
    }
    assert_eq!(rig.clean_run(), rig.derivation);
    waits(&rig);
}

// Scenario 24, expired_batch_after_recovery.
#[test]
fn an_expired_batch_has_no_effect_however_often_it_is_posted_and_the_next_one_counts() {
    let mut rig = Rig::new(short());
    rig.mine([rig.force(b"item")]);
    let expired = rig.draft().adopt(rig.height()).block(false, &[b"own"]);
    let on_it = expired.next().block(false, EMPTY);
    rig.mine_to(START_HEIGHT + 7);
    let head = rig.head();
    assert!(head.number > 0, "the chain went on without it");
    for _ in 0..3 {
        let step = rig.mine([rig.post(&expired), rig.post(&on_it), rig.post(&expired)]);
        assert_eq!(verdicts(&step), [Verdict::Drop(R::Replay); 3]);
        assert_eq!(rig.head(), head);
    }
    let recovered = rig.draft().adopt(rig.height() - 1).block(false, &[b"own"]);
    assert_eq!(verdicts(&rig.mine([rig.post(&recovered), rig.post(&expired)]))[0], Verdict::Accept);
}

// Scenario 25, sequencer_upgrade_old_client.
#[test]
fn what_another_version_posts_is_dropped_by_name_and_halts_nothing() {
    let mut rig = Rig::new(short());
    let mut later_codec = rig.draft().block(false, EMPTY);
    later_codec.codec = 2;
    let mut later_payload = rig.force(b"a transaction of version 2");
    assert_eq!(later_payload.payload[..4], MAGIC);
    later_payload.payload[3] = 2;
    let later_kinds = [0x03, 0x12, 0xff].map(|kind| rig.envelope(Carrier::Taproot, Body::Unsupported(kind, vec![1])));
    let sound = rig.draft().block(false, &[b"own"]);
    let envelopes = [&[rig.post(&later_codec), later_payload][..], &later_kinds, &[rig.post(&sound)]].concat();
    let step = rig.mine(envelopes);
    assert_eq!(verdicts(&step), [Verdict::Drop(R::UnknownCodec), Verdict::Accept]);
    assert_eq!((step.items.len(), &step.blocks[..]), (0, sound.expected()));

    // A rollup of another version is another rollup, and says so.
    let mut bytes = rig.manifest.encode();
    bytes[0] = 2;
    assert_eq!(Manifest::decode(&bytes), Err(ManifestError::Version(2)));
}
