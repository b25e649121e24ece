//! The chains of `tests/vectors/derivation.json`: each a promise of the specification, played on a rig.

use super::*;
use crate::envelope::tests::blocks;
use crate::envelope::{Carrier, leaf_script, op_return_script};
use crate::executor::ledger::Transfer;
use crate::manifest::tests::signers::{SECP, Signers, keypair, public_key};
use crate::manifest::{ExecutorKind, ExecutorSpec, LedgerParameters};
use alloc::string::String;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use random::Game;
use rig::START_HEIGHT;
use sequencer::HandoverDraft;

const EMPTY: &[&[u8]] = &[];
const ALICE: u8 = 1;
const BOB: u8 = 2;
const FEES: u8 = 3;

type Scenario = (&'static str, Parameters, fn(&mut Rig));

fn short() -> Parameters {
    Parameters { window: 4, max_lag: 2, max_forced: 2, ..Parameters::default() }
}

/// A name and the rig that every scenario was played on.
pub(super) fn all() -> Vec<(String, Rig)> {
    let played = scenarios().into_iter().map(|(name, parameters, play)| {
        let mut rig = Rig::new(parameters);
        play(&mut rig);
        (name.into(), rig)
    });
    let flaws = [
        ("batches_dropped_for_every_reason", batch_flaws as fn(&mut Rig)),
        ("handovers_dropped_for_every_reason", handover_flaws),
    ];
    let flawed = flaws.into_iter().map(|(name, play)| {
        let mut rig = verdicts::rig();
        play(&mut rig);
        (name.into(), rig)
    });
    played.chain(flawed).chain(random_chains()).collect()
}

fn scenarios() -> Vec<Scenario> {
    let window = |window| Parameters { window, ..short() };
    let wide = Parameters { window: 20, max_lag: 3, ..Parameters::default() };
    let young = Parameters { times: vec![rig::START_TIME - 7, rig::START_TIME + 9, rig::START_TIME], ..short() };
    let evm = ExecutorSpec { kind: ExecutorKind::Evm, parameters: vec![1, 2, 3] };
    vec![
        ("silence_with_a_window_of_2", Parameters { max_lag: 1, ..window(2) }, silence),
        ("silence_with_a_window_of_3", window(3), silence),
        ("silence_with_a_window_of_4", window(4), silence),
        ("silence_with_a_window_of_5", window(5), silence),
        ("a_flood_in_front_of_an_item", Parameters { max_forced: 1, ..short() }, flood),
        ("due_though_the_origin_is_recent", Parameters { max_forced: 1, ..short() }, due_at_a_recent_origin),
        ("a_batch_at_the_deadline", short(), deadline),
        ("a_sequencer_that_comes_back", short(), come_back),
        ("an_honest_sequencer_in_both_codecs_and_carriers", short(), honest),
        ("several_blocks_at_one_origin", short(), backlog),
        ("batches_of_one_bitcoin_block", Parameters { max_lag: 4, ..short() }, batches_in_a_row),
        ("more_blocks_than_one_bitcoin_block_may_add", Parameters { max_lag: 4, ..short() }, budget::too_many_blocks),
        ("thresholds", short(), thresholds),
        ("timestamps_at_their_bounds", wide.clone(), timestamps),
        ("time_that_goes_back", short(), time_goes_back),
        ("a_start_with_two_ancestors", young, silence),
        ("own_transactions_at_the_lag", wide.clone(), lag),
        ("encodings_of_deflate", wide, encodings),
        ("handovers", short(), handovers),
        ("a_batch_of_another_branch", short(), other_branch),
        ("an_item_that_moves", short(), moved_item),
        ("back_and_forth", short(), back_and_forth),
        ("deeper_than_the_window", Parameters { window: 3, ..short() }, deep),
        ("envelopes_of_every_kind_and_none", short(), every_envelope),
        ("ledger", ledger_parameters(), ledger_transfers),
        ("an_executor_that_is_not_there", Parameters { executor: evm, ..short() }, honest),
    ]
}

fn random_chains() -> Vec<(String, Rig)> {
    let mut runner = TestRunner::deterministic();
    let strategy = (random::parameters(), random::events(12..24));
    let chain = |number| {
        let (parameters, events) = strategy.new_tree(&mut runner).unwrap().current();
        let mut game = Game::new(parameters);
        events.into_iter().for_each(|event| game.play(event));
        (alloc::format!("random_{number}"), game.rig)
    };
    (1..=8).map(chain).collect()
}

fn silence(rig: &mut Rig) {
    let window = BtcHeight::from(rig.manifest.sequencing_window);
    let taproot = rig.envelope(Carrier::Taproot, Body::Tx(b"in a leaf".to_vec()));
    rig.mine([rig.force(b"in an output"), taproot]);
    rig.mine([rig.envelope(Carrier::Taproot, Body::Txs(vec![vec![1; 64], vec![2; 65], vec![1; 64]]))]);
    rig.mine([rig.envelope(Carrier::OpReturn, Body::Txs(vec![vec![3; 300]]))]);
    rig.mine_to(START_HEIGHT + 3 * window + 4);
}

fn flood(rig: &mut Rig) {
    for height in 0..4u8 {
        rig.mine((0..3u8).map(|i| rig.force(&[height, i])).collect::<Vec<_>>());
    }
    rig.mine_to(START_HEIGHT + 12);
}

fn due_at_a_recent_origin(rig: &mut Rig) {
    rig.mine((0..3u8).map(|i| rig.force(&[i])).collect::<Vec<_>>());
    rig.mine([rig.post(&rig.draft().block(true, EMPTY))]);
    rig.mine_to(START_HEIGHT + 6);
}

fn deadline(rig: &mut Rig) {
    rig.mine((0..3u8).map(|i| rig.force(&[i])).collect::<Vec<_>>());
    rig.mine_to(START_HEIGHT + 4);
    let drafts =
        [rig.draft().block(true, EMPTY).drain(), rig.draft().block(true, EMPTY), rig.draft().block(false, EMPTY)];
    for draft in drafts {
        rig.mine([rig.post(&draft)]);
        rig.mine([]);
        rig.disconnect(2);
    }
}

fn come_back(rig: &mut Rig) {
    let never_posted = rig.draft().block(false, &[b"never posted in time"]);
    rig.mine_to(START_HEIGHT + 5);
    let back = rig.draft().block(true, EMPTY);
    rig.mine([rig.post(&never_posted)]);
    rig.mine([rig.post(&back)]);
    rig.mine([rig.post(&back)]);
    rig.disconnect(2);
    rig.mine_to(START_HEIGHT + 8);
    rig.mine([rig.post(&back)]);
}

fn honest(rig: &mut Rig) {
    for i in 0..9u8 {
        let mut batch = rig.draft().adopt(rig.height()).block(false, &[[i; 40], [i; 40]]);
        batch.codec = i % 2;
        let carrier = if i % 4 < 2 { Carrier::Taproot } else { Carrier::OpReturn };
        let step = rig.mine([rig.force(&[i]), rig.envelope(carrier, Body::Batch(batch.body()))]);
        assert_eq!((verdicts(&step), &step.blocks[..]), (vec![Verdict::Accept], batch.expected()));
    }
}

fn backlog(rig: &mut Rig) {
    rig.mine((0..5u8).map(|i| rig.force(&[i])).collect::<Vec<_>>());
    rig.mine([rig.force(b"later")]);
    rig.mine(
        [rig.post(&rig.draft().block(true, &[b"own"]).drain().block(false, EMPTY).block(true, &[b"own", b"own"]))],
    );
    rig.disconnect(1);
    rig.mine([rig.post(&rig.draft().block(true, EMPTY).block(true, EMPTY))]);
    rig.mine_to(START_HEIGHT + 7);
}

fn batches_in_a_row(rig: &mut Rig) {
    rig.mine_to(START_HEIGHT + 2);
    let first = rig.draft().block(false, &[b"1"]);
    let second = first.next().block(true, &[b"2"]).block(false, &[b"3"]);
    let third = second.next().block(true, &[b"4"]);
    let twin = first.next().block(true, &[b"twin"]);
    let on_twin = twin.next().block(false, EMPTY);
    let order = [&second, &first, &third, &second, &first, &twin, &third, &on_twin];
    let step = rig.mine(order.map(|draft| rig.post(draft)));
    assert_eq!(verdicts(&step).into_iter().filter(|verdict| *verdict == Verdict::Accept).count(), 3);
    rig.mine([rig.post(&on_twin)]);
}

fn thresholds(rig: &mut Rig) {
    for by in [&[0, 1][..], &[0, 2], &[1, 2], &[0], &[], &[0, 1, 2], &[1, 0], &[2, 2], &[2, 1]] {
        let mut draft = rig.draft().block(false, EMPTY);
        draft.by = by.to_vec();
        rig.mine([rig.post(&draft)]);
    }
}

fn timestamps(rig: &mut Rig) {
    rig.mine_to(START_HEIGHT + 3);
    let lower = rig.derivation.origin(START_HEIGHT + 1).unwrap().median_time.into();
    let latest = u64::from(rig.next_time()) + 7200;
    for timestamp in [lower - 1, lower, lower + 1, latest, latest + 1, u64::MAX] {
        rig.mine([rig.post(&rig.draft().block_at(true, timestamp, EMPTY))]);
        rig.disconnect(1);
    }
}

fn time_goes_back(rig: &mut Rig) {
    let latest = u64::from(rig.next_time()) + 7200;
    rig.mine([rig.post(&rig.draft().block_at(false, latest, EMPTY))]);
    let earlier = rig.next_time() - 2 * rig::SPACING;
    for timestamp in [latest + 1, latest] {
        let draft = rig.draft().block_at(true, timestamp, EMPTY);
        rig.mine_at(earlier, [rig.post(&draft)]);
        rig.disconnect(1);
    }
    for time in [earlier, 5, u32::MAX, 0, 7, 7, rig::START_TIME, 1, 2] {
        rig.mine_at(time, [rig.force(b"timeless")]);
    }
}

fn lag(rig: &mut Rig) {
    rig.mine_to(START_HEIGHT + 8);
    for below in [5, 4, 3, 2, 1] {
        let origin = rig.height() + 1 - below;
        rig.mine([rig.post(&rig.draft().adopt(origin - 1).block(true, &[b"own"]))]);
        rig.disconnect(1);
    }
}

fn encodings(rig: &mut Rig) {
    rig.mine([]);
    for (_, codec, data) in batches::encodings() {
        let mut draft = rig.draft().block(true, &[[7; 300], [8; 300]]).block(false, &[[9; 100]]);
        (draft.codec, draft.data) = (codec, data);
        rig.mine([rig.post(&draft)]);
        rig.disconnect(1);
    }
}

fn hand_over(rig: &Rig, to: &Signers) -> Envelope {
    rig.envelope(Carrier::Taproot, Body::Handover(HandoverDraft::new(rig, to).body()))
}

fn handovers(rig: &mut Rig) {
    let old_signers = rig.signers.clone();
    let next = Signers::new([4, 5, 6, 7], 3);
    rig.mine_to(START_HEIGHT + 2);
    let before = rig.draft().block(false, EMPTY);
    let after = before.next().block(true, EMPTY);
    let handover = hand_over(rig, &next);
    rig.mine([rig.post(&before), handover.clone(), rig.post(&after), hand_over(rig, &Signers::new([8], 1))]);
    let too_late = rig.draft().block(false, EMPTY);
    rig.signers = next;
    let mut old_count = rig.draft().block(false, EMPTY);
    old_count.handovers = 0;
    let in_time = rig.draft().block(false, EMPTY);
    rig.mine([handover, rig.post(&too_late), rig.post(&old_count), rig.post(&in_time), hand_over(rig, &old_signers)]);
    rig.signers = old_signers;
    rig.mine([rig.post(&rig.draft().block(true, EMPTY))]);
    // Out of force again in a branch without it.
    rig.disconnect(3);
    rig.mine([rig.post(&before)]);
    rig.mine([rig.force(b"forced"), hand_over(rig, &rig.signers)]);
    rig.mine_to(START_HEIGHT + 10);
}

fn other_branch(rig: &mut Rig) {
    rig.mine([rig.force(b"item")]);
    let batch = rig.draft().block(true, &[b"own"]);
    rig.mine([rig.post(&batch)]);
    rig.disconnect(1);
    rig.mine([]);
    rig.mine([rig.post(&batch)]);
    rig.disconnect(3);
    rig.mine([]);
    rig.mine([rig.post(&batch), rig.post(&rig.draft().block(true, EMPTY))]);
}

fn moved_item(rig: &mut Rig) {
    let item = rig.force(b"moved");
    rig.mine([item.clone()]);
    rig.mine_to(START_HEIGHT + 5);
    rig.disconnect(5);
    rig.mine_to(START_HEIGHT + 3);
    rig.mine([item]);
    rig.mine_to(START_HEIGHT + 8);
}

fn back_and_forth(rig: &mut Rig) {
    rig.mine([rig.force(b"common")]);
    rig.mine([rig.force(b"a")]);
    rig.mine([rig.post(&rig.draft().adopt(START_HEIGHT + 2))]);
    rig.mine_to(START_HEIGHT + 8);
    let branch_a = rig.disconnect(7);
    rig.mine([rig.force(b"b")]);
    rig.mine_to(START_HEIGHT + 8);
    rig.disconnect(7);
    branch_a.into_iter().for_each(|raw| drop(rig.apply(raw)));
}

fn deep(rig: &mut Rig) {
    for i in 0..9u8 {
        rig.mine([rig.force(&[i]), rig.force(&[i]), rig.force(&[i])]);
    }
    rig.disconnect(9);
    for i in 0..9u8 {
        let batch = rig.draft().adopt(rig.height()).block(false, EMPTY).drain();
        rig.mine([rig.force(&[i]), rig.post(&batch)]);
    }
}

/// Inputs and outputs of one transaction, flawed envelopes, other namespaces, and a coinbase that tries.
fn every_envelope(rig: &mut Rig) {
    let payload = |body| rig.envelope(Carrier::Taproot, body).payload;
    let tx = |text: &[u8]| payload(Body::Tx(text.to_vec()));
    let leaf = |payload: &[u8]| blocks::leaf_witness(leaf_script(payload, &blocks::leaf_key()).as_bytes());
    let output = |payload: &[u8]| blocks::output(op_return_script(payload).as_bytes());
    let flawed =
        blocks::output(&[&[0x6a, 0x4c], op_return_script(&tx(b"not minimal")).as_bytes().split_at(1).1].concat());
    let mut elsewhere = tx(b"elsewhere");
    elsewhere[4] ^= 1;
    let annexed = [leaf(&tx(b"2")), vec![vec![0x50, 1]]].concat();
    let inputs = vec![blocks::input(1, []), blocks::input(2, leaf(&tx(b"1"))), blocks::input(3, annexed)];
    let unsupported = payload(Body::Unsupported(0x77, vec![1]));
    let outputs = vec![output(&tx(b"3")), flawed, output(&elsewhere), output(&unsupported), output(&tx(b"4"))];
    let coinbase = vec![output(&tx(b"coinbase"))];
    let garbage = [Body::Batch(vec![0]), Body::Handover(vec![0]), Body::Batch(vec![0xff; 700])];
    let garbage = garbage.map(|body| output(&payload(body))).to_vec();
    let txs = vec![
        blocks::transaction(inputs, outputs),
        blocks::transaction(vec![blocks::input(4, [])], garbage),
        blocks::carry(Carrier::OpReturn, &tx(&[6; 70_000]), 5),
        blocks::carry(Carrier::Taproot, &tx(&[7; 502]), 6),
    ];
    let step = rig.mine_whole(rig.next_time(), coinbase, txs);
    assert_eq!(step.items.iter().map(|item| item.tx[0]).collect::<Vec<_>>(), *b"1234\x06\x07");
    rig.mine_to(START_HEIGHT + 6);
}

fn ledger_parameters() -> Parameters {
    let mut accounts = vec![(public_key(ALICE), 1000), (public_key(BOB), 10)];
    accounts.sort_unstable();
    let parameters = LedgerParameters { forced_cost_per_byte: 1, fee_account: public_key(FEES), accounts };
    let executor = ExecutorSpec { kind: ExecutorKind::Ledger, parameters: parameters.encode() };
    Parameters { executor, ..short() }
}

fn ledger_transfers(rig: &mut Rig) {
    let rollup_id = rig.manifest.rollup_id();
    let pay = |from, to, amount, nonce| {
        let transfer = Transfer { from: public_key(from), to: public_key(to), amount, fee: 1, nonce };
        transfer.sign(&SECP, &rollup_id, &keypair(from))
    };
    let shared = Body::Txs(vec![pay(ALICE, BOB, 100, 0), vec![0xba; 64], pay(BOB, ALICE, 105, 0)]);
    rig.mine([rig.envelope(Carrier::Taproot, shared), rig.force(b"garbage")]);
    // The sequencer's own come after the forced section, whatever it would like.
    let own = [pay(ALICE, BOB, 1, 0), pay(ALICE, BOB, 2, 1), pay(BOB, FEES, 3, 1), pay(FEES, FEES, 1, 0)];
    let batch = rig.draft().block(true, &own).block(false, &[pay(ALICE, BOB, 5000, 2)]);
    rig.mine([rig.post(&batch), rig.force(&pay(ALICE, BOB, 4, 2))]);
    // On a branch without the batch everyone derives another state, and later.
    rig.disconnect(1);
    rig.mine([rig.force(&pay(ALICE, BOB, 7, 1)), rig.force(&pay(ALICE, BOB, 7, 1))]);
    rig.mine_to(START_HEIGHT + 8);
}

fn batch_flaws(rig: &mut Rig) {
    let all: Vec<_> = verdicts::batch_flaws();
    let post = |spoil: &[fn(&mut Draft)]| {
        let mut draft = verdicts::sound(rig);
        spoil.iter().for_each(|spoil| spoil(&mut draft));
        rig.post(&draft)
    };
    let alone = all.iter().map(|(_, _, spoil)| post(&[*spoil]));
    let borders = all.windows(2).filter(|pair| pair[0].0 != pair[1].0);
    let in_pairs = borders.map(|pair| post(&[pair[1].2, pair[0].2]));
    let envelopes: Vec<_> = alone.chain(in_pairs).chain([post(&[])]).collect();
    assert_eq!(verdicts(&rig.mine(envelopes)).last(), Some(&Verdict::Accept));
}

fn handover_flaws(rig: &mut Rig) {
    let next = Signers::new([4, 5], 2);
    let all = verdicts::handover_flaws();
    let post = |spoil: &[fn(&mut HandoverDraft)]| {
        let mut draft = HandoverDraft::new(rig, &next);
        spoil.iter().for_each(|spoil| spoil(&mut draft));
        rig.envelope(Carrier::OpReturn, Body::Handover(draft.body()))
    };
    let alone = all.iter().map(|(_, _, spoil)| post(&[*spoil]));
    let borders = all.windows(2).filter(|pair| pair[0].0 != pair[1].0);
    let in_pairs = borders.map(|pair| post(&[pair[1].2, pair[0].2]));
    let pending = all.iter().map(|(_, _, spoil)| post(&[*spoil]));
    let envelopes: Vec<_> = alone.chain(in_pairs).chain([post(&[])]).chain(pending).collect();
    assert!(verdicts(&rig.mine(envelopes)).contains(&Verdict::Accept));
    rig.signers = next;
    rig.mine([rig.post(&rig.draft().block(false, EMPTY))]);
}
