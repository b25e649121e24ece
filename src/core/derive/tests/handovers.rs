//! Handovers: from when, how often, and what they cannot touch.

use super::*;
use crate::envelope::Carrier;
use crate::manifest::tests::signers::Signers;
use DropReason as R;
use sequencer::HandoverDraft;

const EMPTY: &[&[u8]] = &[];

fn next_set() -> Signers {
    Signers::new([4, 5], 1)
}

fn hand_over(rig: &Rig, to: &Signers) -> Envelope {
    rig.envelope(Carrier::Taproot, Body::Handover(HandoverDraft::new(rig, to).body()))
}

#[test]
fn the_next_set_is_in_force_from_the_next_bitcoin_block_on() {
    let mut rig = Rig::new(Parameters::default());
    rig.mine_to(rig::START_HEIGHT + 2);
    let before = rig.draft().block(false, EMPTY);
    let after = before.next().block(true, EMPTY);
    let mut too_early = after.next().block(true, EMPTY);
    (too_early.signers, too_early.by, too_early.handovers) = (next_set(), vec![0], 1);

    // In the handover's own block the old set still signs, before it and after it.
    let envelopes = [rig.post(&before), hand_over(&rig, &next_set()), rig.post(&after), rig.post(&too_early)];
    let step = rig.mine(envelopes);
    let expected = [Verdict::Accept, Verdict::Accept, Verdict::Accept, Verdict::Drop(R::SignatureCount)];
    assert_eq!(verdicts(&step), expected);
    assert_eq!(step.judged.iter().map(|judged| judged.kind).collect::<Vec<_>>(), [0x10, 0x11, 0x10, 0x10]);
    assert_eq!((rig.derivation.handovers(), rig.derivation.sequencers()), (1, &next_set().set()));

    let too_late = rig.draft().block(false, EMPTY);
    let old_signers = core::mem::replace(&mut rig.signers, next_set());
    let mut old_count = rig.draft().block(false, EMPTY);
    old_count.handovers = 0;
    let envelopes = [rig.post(&too_late), rig.post(&old_count), rig.post(&rig.draft().block(false, EMPTY))];
    let step = rig.mine(envelopes);
    assert_eq!(verdicts(&step), [Verdict::Drop(R::SignatureCount), Verdict::Drop(R::BadSignature), Verdict::Accept]);

    // A reorganisation takes the handover back.
    rig.disconnect(2);
    assert_eq!((rig.derivation.handovers(), rig.derivation.sequencers()), (0, &old_signers.set()));
    rig.signers = old_signers;
    assert_eq!(verdicts(&rig.mine([rig.post(&rig.draft().block(true, EMPTY))])), [Verdict::Accept]);
}

#[test]
fn one_handover_is_accepted_in_a_bitcoin_block() {
    let mut rig = Rig::new(Parameters::default());
    let mut next_seq = HandoverDraft::new(&rig, &next_set());
    next_seq.seq = 1;
    let mut forged = HandoverDraft::new(&rig, &next_set());
    forged.signers = Signers::new([8, 9], 2);
    let mut cut = HandoverDraft::new(&rig, &next_set());
    cut.len = 30;
    let raw = |draft: &HandoverDraft| rig.envelope(Carrier::OpReturn, Body::Handover(draft.body()));
    let (other, first) = (hand_over(&rig, &Signers::new([6], 1)), hand_over(&rig, &next_set()));
    let envelopes = [raw(&forged), first.clone(), other, raw(&forged), raw(&next_seq), raw(&cut), first];
    let step = rig.mine(envelopes);
    let reasons = [R::HandoverPending, R::HandoverPending, R::WrongSeq, R::Malformed, R::HandoverPending];
    let expected = [Verdict::Drop(R::BadSignature), Verdict::Accept].into_iter().chain(reasons.map(Verdict::Drop));
    assert_eq!(verdicts(&step), expected.collect::<Vec<_>>());
    assert_eq!((rig.derivation.handovers(), rig.derivation.sequencers()), (1, &next_set().set()));
}

#[test]
fn a_handover_is_good_for_once() {
    let mut rig = Rig::new(Parameters::default());
    let first_signers = rig.signers.clone();
    let first = hand_over(&rig, &next_set());
    rig.mine([first.clone()]);
    rig.signers = next_set();
    let back = hand_over(&rig, &first_signers);
    assert_eq!(verdicts(&rig.mine([first.clone(), back.clone()])), [Verdict::Drop(R::WrongSeq), Verdict::Accept]);
    // The first set is in force again; its first handover is not.
    rig.signers = first_signers;
    assert_eq!(verdicts(&rig.mine([first, back])), [Verdict::Drop(R::WrongSeq), Verdict::Drop(R::WrongSeq)]);
    assert_eq!((rig.derivation.handovers(), rig.derivation.sequencers()), (2, &rig.signers.set()));
}

#[test]
fn a_handover_to_the_same_set_ends_what_it_signed_before() {
    let mut rig = Rig::new(Parameters::default());
    let before = rig.draft().block(false, EMPTY);
    rig.mine([hand_over(&rig, &rig.signers)]);
    let step = rig.mine([rig.post(&before), rig.post(&rig.draft().block(false, EMPTY))]);
    assert_eq!(verdicts(&step), [Verdict::Drop(R::BadSignature), Verdict::Accept]);
}

#[test]
fn handovers_do_not_touch_the_forced_path() {
    let mut shapes = [false, true].map(|hands_over| {
        let mut rig = Rig::new(Parameters { window: 4, max_forced: 1, ..Parameters::default() });
        let mut shapes = Vec::new();
        for i in 0..14u8 {
            let mut envelopes = vec![rig.force(&[i]), rig.force(&[i])];
            if hands_over {
                let next = Signers::new([10 + i], 1);
                envelopes.push(hand_over(&rig, &next));
                rig.signers = next;
            }
            shapes.push(shape(&rig.mine(envelopes)));
        }
        assert_eq!(rig.derivation.handovers(), if hands_over { 14 } else { 0 });
        shapes.into_iter()
    });
    let [quiet, busy] = &mut shapes;
    assert!(quiet.eq(busy));
}
