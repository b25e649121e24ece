//! Every reason to drop a batch or handover, alone and in front of every later one.

use super::*;
use crate::batch::{BatchBlock, MAX_DATA};
use crate::envelope::Carrier;
use crate::manifest::tests::signers::Signers;
use DropReason as R;
use alloc::collections::BTreeSet;
use miniz_oxide::deflate::compress_to_vec;
use sequencer::{HandoverDraft, stored_then};

/// Where a batch's body has the length of its data.
const DATA_LEN_AT: usize = 77;
const EMPTY: &[&[u8]] = &[];

/// A flaw: the reason it is found for, its name, and how to put it into a sound batch.
pub(super) type BatchFlaw = (DropReason, &'static str, fn(&mut Draft));
pub(super) type HandoverFlaw = (DropReason, &'static str, fn(&mut HandoverDraft));

/// Every reason: those of batches in the order of the checks, then those that only handovers have.
pub(super) const ALL_REASONS: [DropReason; 18] = [
    R::Malformed,
    R::Replay,
    R::WrongNumber,
    R::WrongParent,
    R::UnknownCodec,
    R::SignatureCount,
    R::Signer,
    R::BadSignature,
    R::MalformedData,
    R::OriginMismatch,
    R::OriginNotBelow,
    R::OriginWrongBranch,
    R::TimestampHigh,
    R::TimestampLow,
    R::StaleOrigin,
    R::WrongSeq,
    R::HandoverPending,
    R::OverBudget,
];

/// A rig in which a batch can go wrong in every way: some L2 blocks, some origins to adopt.
pub(super) fn rig() -> Rig {
    let mut rig = Rig::new(Parameters { max_lag: 2, ..Parameters::default() });
    rig.mine([rig.force(b"one")]);
    rig.mine([rig.post(&rig.draft().block(false, &[b"own"]).block(true, EMPTY))]);
    assert_eq!(rig.head().number, 2);
    rig.mine([rig.force(b"two")]);
    rig.mine_to(rig::START_HEIGHT + 7);
    rig
}

/// A sound batch with own transactions as old as they may be.
pub(super) fn sound(rig: &Rig) -> Draft {
    rig.draft().adopt(rig.height() - 2).block(true, &[b"own one", b"own two"])
}

fn extend_to_carrier(draft: &mut Draft) {
    let carrier = draft.carrier_height();
    for _ in draft.terms.last_origin.height..carrier {
        draft.blocks.push(BatchBlock { advances: true, seconds: 0, txs: Vec::new() });
    }
    draft.terms.last_origin = BlockRef { height: carrier, hash: bitcoin::hashes::Hash::all_zeros() };
}

fn one_second_too_late(draft: &mut Draft) {
    let latest = u64::from(draft.carrier_time) + 7200;
    let last = draft.last_timestamp();
    if let Some(block) = draft.blocks.last_mut() {
        block.seconds += latest + 1 - last;
    }
}

fn stale(draft: &mut Draft, below_lag: u32) {
    let origin = draft.head().header.origin.height;
    let height = draft.carrier_height() - 2 - below_lag;
    let at = draft.blocks.len() - 1 - (origin - height) as usize;
    draft.blocks[at].txs.push(b"late".to_vec());
}

fn deflate(draft: &mut Draft, data: fn(Vec<u8>) -> Vec<u8>) {
    (draft.codec, draft.data) = (1, Some(data));
}

/// In the order of the checks.
pub(super) fn batch_flaws() -> Vec<BatchFlaw> {
    vec![
        (R::Malformed, "a body of one byte", |draft| draft.len = 1),
        (R::Malformed, "cut before the length of the data", |draft| draft.len = DATA_LEN_AT),
        (R::Malformed, "cut in the data", |draft| {
            draft.tamper = Some(|body| body[DATA_LEN_AT] = 9);
            draft.len = DATA_LEN_AT + 9;
        }),
        (R::Malformed, "a length that has a shorter form", |draft| {
            draft.tamper = Some(|body| body.splice(DATA_LEN_AT.., [0xfd, 2, 0, 1, 1]).for_each(drop));
        }),
        (R::Malformed, "a length of 2^64 - 1", |draft| {
            draft.tamper = Some(|body| body.splice(DATA_LEN_AT.., [0xff; 9]).for_each(drop));
        }),
        (R::Replay, "the head's number", |draft| draft.terms.first_number = draft.number() - 1),
        (R::Replay, "a number before the head's", |draft| draft.terms.first_number = draft.number().saturating_sub(2)),
        (R::Replay, "number 0", |draft| draft.terms.first_number = 0),
        (R::WrongNumber, "a number left out", |draft| draft.terms.first_number = draft.number() + 1),
        (R::WrongNumber, "the last number", |draft| draft.terms.first_number = u64::MAX),
        (R::WrongParent, "no parent", |draft| draft.terms.parent = Hash32::default()),
        (R::WrongParent, "a changed parent", |draft| draft.terms.parent.0[31] ^= 1),
        (R::UnknownCodec, "codec 2", |draft| draft.codec = 2),
        (R::UnknownCodec, "codec 255", |draft| draft.codec = 255),
        (R::SignatureCount, "no signature", |draft| draft.entries.push(Vec::clear)),
        (R::SignatureCount, "one of two", |draft| draft.entries.push(|entries| entries.truncate(1))),
        (R::SignatureCount, "three of two", |draft| draft.entries.push(|entries| entries.push([2; 65]))),
        (R::SignatureCount, "a byte after the last", |draft| draft.tail.push(0)),
        (R::SignatureCount, "the last one cut", |draft| draft.len = draft.body().len() - 1),
        (R::Signer, "descending", |draft| draft.entries.push(|entries| entries.reverse())),
        (R::Signer, "one signer twice", |draft| draft.entries.push(|entries| entries[1] = entries[0])),
        (R::Signer, "an index out of range", |draft| draft.entries.push(|entries| entries[1][0] = 3)),
        (R::Signer, "index 255", |draft| draft.entries.push(|entries| entries[1][0] = 255)),
        (R::BadSignature, "the last one forged", |draft| draft.entries.push(|entries| entries[1][64] ^= 1)),
        (R::BadSignature, "the first one of zeros", |draft| draft.entries.push(|entries| entries[0][1..].fill(0))),
        (R::BadSignature, "under another signer's index", |draft| draft.entries.push(|entries| entries[1][0] = 2)),
        (R::BadSignature, "of strangers", |draft| draft.signers = Signers::new([8, 9], 2)),
        (R::BadSignature, "for another number of handovers", |draft| draft.handovers += 1),
        (R::BadSignature, "for another rollup of this namespace", |draft| draft.rollup_id.0[31] ^= 1),
        (R::BadSignature, "over another last origin", |draft| draft.tamper = Some(|body| body[44] ^= 1)),
        (R::MalformedData, "no data", |draft| draft.data = Some(|_| vec![])),
        (R::MalformedData, "no block", |draft| draft.data = Some(|_| vec![0])),
        (R::MalformedData, "4097 blocks", |draft| {
            draft.data = Some(|_| [&[0xfd, 0x01, 0x10], &[0; 3 * 4097][..]].concat());
        }),
        (R::MalformedData, "an advance of 2", |draft| draft.data = Some(|_| vec![1, 2, 0, 0])),
        (R::MalformedData, "an empty transaction", |draft| draft.data = Some(|_| vec![1, 0, 0, 1, 0])),
        (R::MalformedData, "a count that has a shorter form", |draft| draft.data = Some(|_| vec![1, 0, 0, 0xfd, 0, 0])),
        (R::MalformedData, "more transactions than bytes", |draft| draft.data = Some(|_| vec![1, 0, 0, 9, 1, 1])),
        (R::MalformedData, "a byte after the last block", |draft| {
            draft.data = Some(|plain| [&plain[..], &[0]].concat());
        }),
        (R::MalformedData, "the last byte missing", |draft| {
            draft.data = Some(|mut plain| {
                plain.pop();
                plain
            });
        }),
        (R::MalformedData, "a timestamp of 65 bits", |draft| draft.blocks[0].seconds = u64::MAX),
        (R::MalformedData, "DEFLATE of no bytes", |draft| deflate(draft, |_| vec![])),
        (R::MalformedData, "DEFLATE with a block of type 3", |draft| deflate(draft, |_| vec![0b111])),
        (R::MalformedData, "DEFLATE with a byte after it", |draft| {
            deflate(draft, |plain| [&compress_to_vec(&plain, 6)[..], &[0]].concat());
        }),
        (R::MalformedData, "DEFLATE with its end missing", |draft| {
            deflate(draft, |plain| {
                let mut stream = compress_to_vec(&plain, 6);
                stream.pop();
                stream
            });
        }),
        (R::MalformedData, "DEFLATE in a zlib stream", |draft| {
            deflate(draft, |plain| miniz_oxide::deflate::compress_to_vec_zlib(&plain, 6));
        }),
        (R::MalformedData, "DEFLATE with a stored length that its complement denies", |draft| {
            deflate(draft, |plain| stored_then(&plain, &[1, 1, 0, 0xff, 0xff, 0]));
        }),
        (R::MalformedData, "DEFLATE with the reserved literal 286", |draft| {
            deflate(draft, |plain| stored_then(&plain, &[0x1b, 0x03, 0x00]));
        }),
        (R::MalformedData, "DEFLATE with the reserved distance 30", |draft| {
            deflate(draft, |plain| stored_then(&plain, &[0x03, 0x3e, 0x00]));
        }),
        (R::MalformedData, "DEFLATE with a distance beyond the beginning", |draft| {
            deflate(draft, |plain| stored_then(&plain, &[0x03, 0xde, 0xff, 0x0f, 0x00]));
        }),
        (R::MalformedData, "DEFLATE with too many code lengths", |draft| {
            deflate(draft, |plain| stored_then(&plain, &[0x05, 0x00, 0x92, 0x04]));
        }),
        (R::MalformedData, "DEFLATE with too few code lengths", |draft| {
            deflate(draft, |plain| stored_then(&plain, &[0x05, 0x00, 0x80, 0, 0, 0]));
        }),
        (R::MalformedData, "DEFLATE with 287 literals", |draft| {
            deflate(draft, |plain| stored_then(&plain, &[0xf5, 0, 0, 0, 0, 0, 0]));
        }),
        (R::MalformedData, "DEFLATE with 31 distances", |draft| {
            deflate(draft, |plain| stored_then(&plain, &[0x05, 0x1e, 0, 0, 0, 0, 0]));
        }),
        (R::MalformedData, "DEFLATE without an end-of-block code", |draft| {
            deflate(draft, |plain| stored_then(&plain, &[0x05, 0xc0, 0x81, 0x08, 0, 0, 0, 0, 0x20, 0x7f, 0xeb, 0x06]));
        }),
        (R::MalformedData, "DEFLATE of plain data", |draft| deflate(draft, |plain| plain)),
        (R::MalformedData, "DEFLATE of a byte too many", |draft| {
            deflate(draft, |plain| compress_to_vec(&[plain, vec![0; MAX_DATA]].concat(), 6));
        }),
        (R::OriginMismatch, "an origin above the advances", |draft| draft.terms.last_origin.height += 1),
        (R::OriginMismatch, "an origin below the advances", |draft| draft.terms.last_origin.height -= 1),
        (R::OriginMismatch, "origin 0", |draft| draft.terms.last_origin.height = 0),
        (R::OriginMismatch, "the last origin", |draft| draft.terms.last_origin.height = u32::MAX),
        (R::OriginMismatch, "an advance too many", |draft| {
            draft.blocks.push(BatchBlock { advances: true, seconds: 0, txs: Vec::new() });
        }),
        (R::OriginNotBelow, "the carrying block as origin", extend_to_carrier),
        (R::OriginNotBelow, "an origin above the carrying block", |draft| {
            extend_to_carrier(draft);
            draft.blocks.push(BatchBlock { advances: true, seconds: 0, txs: Vec::new() });
            draft.terms.last_origin.height += 1;
        }),
        (R::OriginWrongBranch, "an unknown origin", |draft| {
            draft.terms.last_origin.hash = bitcoin::hashes::Hash::all_zeros();
        }),
        (R::OriginWrongBranch, "the origin before", |draft| {
            draft.terms.last_origin.hash = draft.expected()[draft.expected().len() - 2].header.origin.hash;
        }),
        (R::TimestampHigh, "a second too late", one_second_too_late),
        (R::TimestampHigh, "the end of time", |draft| {
            let last = draft.last_timestamp();
            if let Some(block) = draft.blocks.last_mut() {
                block.seconds += u64::MAX - last;
            }
        }),
        (R::TimestampLow, "a second too early", |draft| draft.blocks[0].seconds -= 1),
        (R::TimestampLow, "the parent's time", |draft| draft.blocks[0].seconds = 0),
        (R::StaleOrigin, "own transactions a block too old", |draft| stale(draft, 1)),
        (R::StaleOrigin, "own transactions at the first origin", |draft| stale(draft, 3)),
    ]
}

/// In the order of the checks; the second handover of a block is pending whatever else it is not.
pub(super) fn handover_flaws() -> Vec<HandoverFlaw> {
    vec![
        (R::Malformed, "a body of one byte", |draft| draft.len = 1),
        (R::Malformed, "a set cut", |draft| draft.len = 40),
        (R::Malformed, "no key", |draft| draft.set = vec![0, 0]),
        (R::Malformed, "a key off the curve", |draft| draft.set = [&[1], &[0; 32][..], &[1]].concat()),
        (R::Malformed, "descending keys", |draft| draft.set[1..65].rotate_left(32)),
        (R::Malformed, "threshold 0", |draft| *draft.set.last_mut().unwrap() = 0),
        (R::Malformed, "threshold 65", |draft| *draft.set.last_mut().unwrap() = 65),
        (R::WrongSeq, "the next number", |draft| draft.seq += 1),
        (R::WrongSeq, "the last number", |draft| draft.seq = u32::MAX),
        (R::SignatureCount, "one of two", |draft| draft.entries.push(|entries| entries.truncate(1))),
        (R::SignatureCount, "a byte after the last", |draft| draft.tail.push(0)),
        (R::Signer, "descending", |draft| draft.entries.push(|entries| entries.reverse())),
        (R::Signer, "an index out of range", |draft| draft.entries.push(|entries| entries[1][0] = 3)),
        (R::BadSignature, "of the new set", |draft| draft.signers = Signers::new([4, 5], 2)),
        (R::BadSignature, "for another rollup", |draft| draft.rollup_id.0[31] ^= 1),
        (R::BadSignature, "the last one forged", |draft| draft.entries.push(|entries| entries[1][64] ^= 1)),
    ]
}

/// Flaws that a batch of one block can have, whatever it holds and whatever Bitcoin's times are.
pub(super) fn flaws_of_any_batch() -> Vec<BatchFlaw> {
    let flaws = batch_flaws().into_iter();
    let needs_more = |reason| matches!(reason, R::TimestampHigh | R::TimestampLow | R::StaleOrigin);
    flaws.filter(|(reason, name, _)| !needs_more(*reason) && *name != "the origin before").collect()
}

/// The verdict on each envelope when it stands alone in the next block.
fn verdict_on(rig: &Rig, body: Body) -> Verdict {
    let mut derivation = rig.derivation.clone();
    let envelope = rig.envelope(Carrier::Taproot, body);
    let tx = crate::envelope::tests::blocks::carry(envelope.carrier, &envelope.payload, 0);
    let parent = derivation.tip().block.hash;
    let block = crate::envelope::tests::blocks::block(parent, rig.next_time(), 0, Vec::new(), vec![tx]);
    let found = crate::envelope::scan_transaction(&block.txdata[1], None);
    let step = derivation.apply(&block.header, &found).unwrap();
    let [verdict] = verdicts(&step)[..] else { panic!("{} verdicts", step.judged.len()) };
    if verdict != Verdict::Accept {
        assert_eq!((step.blocks, derivation.head()), (vec![], rig.derivation.head()), "a dropped batch has no effect");
    }
    verdict
}

fn sound_handover(rig: &Rig) -> HandoverDraft {
    HandoverDraft::new(rig, &Signers::new([4, 5], 2))
}

#[test]
fn a_batch_is_dropped_for_its_flaw() {
    let rig = rig();
    assert_eq!(verdict_on(&rig, Body::Batch(sound(&rig).body())), Verdict::Accept);
    for (reason, name, spoil) in batch_flaws() {
        let mut draft = sound(&rig);
        spoil(&mut draft);
        assert_eq!(verdict_on(&rig, Body::Batch(draft.body())), Verdict::Drop(reason), "{name}");
    }
}

#[test]
fn of_two_flaws_the_earlier_check_is_the_reason() {
    let rig = rig();
    let flaws = batch_flaws();
    for (at, (reason, first, spoil)) in flaws.iter().enumerate() {
        for (later, second, spoil_later) in flaws[at..].iter().filter(|(later, ..)| later != reason) {
            let mut draft = sound(&rig);
            spoil_later(&mut draft);
            spoil(&mut draft);
            let verdict = verdict_on(&rig, Body::Batch(draft.body()));
            assert_eq!(verdict, Verdict::Drop(*reason), "{first}, and {later:?}: {second}");
        }
    }
}

#[test]
fn a_handover_is_dropped_for_its_first_flaw() {
    let rig = rig();
    assert_eq!(verdict_on(&rig, Body::Handover(sound_handover(&rig).body())), Verdict::Accept);
    let flaws = handover_flaws();
    for (at, (reason, first, spoil)) in flaws.iter().enumerate() {
        let mut draft = sound_handover(&rig);
        spoil(&mut draft);
        assert_eq!(verdict_on(&rig, Body::Handover(draft.body())), Verdict::Drop(*reason), "{first}");
        for (later, second, spoil_later) in flaws[at..].iter().filter(|(later, ..)| later != reason) {
            let mut draft = sound_handover(&rig);
            spoil_later(&mut draft);
            spoil(&mut draft);
            let verdict = verdict_on(&rig, Body::Handover(draft.body()));
            assert_eq!(verdict, Verdict::Drop(*reason), "{first}, and {later:?}: {second}");
        }
    }
}

#[test]
fn flawed_batches_in_front_of_a_sound_one_do_not_keep_it_out() {
    let mut rig = rig();
    let flawed = batch_flaws().into_iter().map(|(_, _, spoil)| {
        let mut draft = sound(&rig);
        spoil(&mut draft);
        rig.post(&draft)
    });
    let envelopes: Vec<_> = flawed.chain([rig.post(&sound(&rig))]).collect();
    let expected = sound(&rig);
    let step = rig.mine(envelopes);
    let flaws = batch_flaws().into_iter().map(|(reason, ..)| Verdict::Drop(reason));
    assert_eq!(verdicts(&step), flaws.chain([Verdict::Accept]).collect::<Vec<_>>());
    assert_eq!(step.blocks, expected.expected());
}

#[test]
fn every_reason_has_a_flaw_in_these_tables_in_the_order_of_the_checks() {
    let mut of_batches: Vec<_> = batch_flaws().into_iter().map(|(reason, ..)| reason).collect();
    of_batches.dedup();
    assert_eq!(of_batches, ALL_REASONS[..15]);
    let mut of_handovers: Vec<_> = handover_flaws().into_iter().map(|(reason, ..)| reason).collect();
    of_handovers.dedup();
    // Between the second and the third stands HandoverPending, which no handover has alone.
    assert_eq!(of_handovers, [R::Malformed, R::WrongSeq, R::SignatureCount, R::Signer, R::BadSignature]);
}

#[test]
fn a_verdict_is_told_with_its_reason_in_words_of_its_own() {
    assert_eq!(Verdict::Accept.to_string(), "accept");
    assert_eq!(Verdict::Drop(R::Malformed).to_string(), "dropped: its fields cannot be read");
    let told: BTreeSet<_> = ALL_REASONS.iter().map(|reason| Verdict::Drop(*reason).to_string()).collect();
    assert_eq!(told.len(), ALL_REASONS.len(), "{told:?}");
}
