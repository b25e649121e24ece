//! Batches and handovers in a scene, each with a rule broken or none.

use super::chains::Scene;
use super::fuzz::rollup::{Draft, Signers, batch_body, handover_body, signed_handover};
use super::fuzz::seeds::{Numbers, mutate};
use super::{Case, pick, wide};
use miniz_oxide::deflate::compress_to_vec;
use sortie::batch::{BatchBlock, MAX_BLOCKS, MAX_DATA, encode_batch_data, encode_handover};
use sortie::envelope::Body;
use sortie::manifest::SIGNATURE_ENTRY_LEN;

/// Of so many batches one is so large that only one fits a Bitcoin block.
const LARGE_EVERY: usize = 150;
/// The others are dropped before a signature is looked at, which is what takes a slow verifier its time.
const SIGNED_OF_TEN: usize = 3;

/// A Bitcoin block with a batch, or two.
pub fn batch(numbers: &mut Numbers, scenes: &[Scene]) -> Case {
    let mut scene = scenes[numbers.below(scenes.len())].clone();
    let time = scene.next_time(numbers);
    let draft = scene.draft(numbers, time, Draft::new(scene.node.derivation.head()));
    let bodies = match numbers.below(10) {
        _ if numbers.below(LARGE_EVERY) == 0 => large(numbers, &scene),
        0..SIGNED_OF_TEN => signed(numbers, &scene, time, draft),
        _ => vec![unsigned(numbers, &scene, draft)],
    };
    let mut bodies: Vec<_> = bodies.into_iter().map(Body::Batch).collect();
    if numbers.below(4) == 0 {
        bodies.insert(0, scene.forced(numbers));
    }
    let raw = scene.block(numbers, time, bodies);
    scene.ask(&[raw])
}

/// A batch that is dropped before a signature is looked at.
fn unsigned(numbers: &mut Numbers, scene: &Scene, mut draft: Draft) -> Vec<u8> {
    let set = scene.node.derivation.sequencers();
    let threshold = usize::from(set.threshold());
    let mut indexes: Vec<_> = (0..set.threshold()).collect();
    let (mut codec, mut rest) = (0, Vec::new());
    match numbers.below(8) {
        0 => {
            let data = draft.data();
            let mut body = encode_batch_data(&draft.terms, 0, &data);
            body.truncate(1 + numbers.below(body.len() - 1));
            return body;
        }
        1 => draft.terms.first_number = wide(numbers).min(scene.node.derivation.head().header.number),
        2 => draft.terms.first_number += 1 + wide(numbers) / 2,
        3 => draft.terms.parent.0[numbers.below(32)] ^= 1,
        4 => codec = pick(numbers, &[2, 3, 0xff]),
        5 => rest = numbers.bytes(pick(&mut Numbers::of("lengths"), &[1, 64, 65])),
        6 => drop(indexes.pop()),
        _ if threshold > 1 => indexes.reverse(),
        _ => indexes[0] = pick(numbers, &[3, 64, 0xff]),
    }
    let entries = indexes.iter().flat_map(|index| [&[*index][..], &[7; SIGNATURE_ENTRY_LEN - 1]].concat());
    let entries: Vec<_> = entries.chain(rest).collect();
    [encode_batch_data(&draft.terms, codec, &draft.data()), entries].concat()
}

/// Batches with true signatures, most of them.
fn signed(numbers: &mut Numbers, scene: &Scene, time: u32, mut draft: Draft) -> Vec<Vec<u8>> {
    let derivation = &scene.node.derivation;
    let carrier_height = derivation.tip().block.height + 1;
    let manifest = &scene.node.manifest;
    match numbers.below(22) {
        0..=2 => {}
        3..=6 => {
            let mut data = compress_to_vec(&draft.data(), pick(numbers, &[0, 1, 6, 10]));
            if numbers.below(3) > 0 {
                mutate(numbers, &mut data, &[]);
            }
            return vec![scene.sign(&draft, 1, &data)];
        }
        7 => return vec![scene.sign(&draft, pick(numbers, &[0, 1]), &numbers.bytes(40))],
        8 => {
            let mut data = draft.data();
            mutate(numbers, &mut data, &[]);
            return vec![scene.sign(&draft, 0, &data)];
        }
        9 => return vec![forged(numbers, scene, &draft)],
        10 => {
            draft.terms.last_origin.height =
                draft.terms.last_origin.height.wrapping_add(pick(numbers, &[1, u32::MAX, 9]))
        }
        11 => {
            let missing = carrier_height - draft.terms.last_origin.height + numbers.below(2) as u32;
            let block = BatchBlock { advances: true, seconds: 0, txs: Vec::new() };
            draft.blocks.extend(core::iter::repeat_n(block, missing as usize));
            draft.terms.last_origin.height += missing;
        }
        12 => draft.terms.last_origin.hash = manifest.start.hash,
        13 => {
            let late = u64::from(time) + 7200 + numbers.below(2) as u64;
            let first = &mut draft.blocks[0];
            first.seconds = late.saturating_sub(derivation.head().header.timestamp);
        }
        14 => draft.blocks[0].seconds = wide(numbers),
        15 | 16 => draft.blocks.iter_mut().for_each(|block| block.seconds = numbers.below(2) as u64),
        17 | 18 => {
            // As late as they may be, or later: own transactions on whatever origin the head has.
            let stay = Draft::new(derivation.head()).block(derivation, false, 0, vec![vec![1]]);
            return vec![scene.sign(&stay, 0, &stay.data())];
        }
        19 => {
            let body = scene.sign(&draft, 0, &draft.data());
            return vec![body.clone(), body];
        }
        _ => {
            let next = scene.draft(numbers, time, Draft::new(draft.head));
            return vec![scene.sign(&draft, 0, &draft.data()), scene.sign(&next, 0, &next.data())];
        }
    }
    vec![scene.sign(&draft, 0, &draft.data())]
}

/// Signatures of others, over other things, or changed.
fn forged(numbers: &mut Numbers, scene: &Scene, draft: &Draft) -> Vec<u8> {
    let (id, handovers) = (scene.node.manifest.rollup_id(), scene.node.derivation.handovers());
    let threshold = scene.node.derivation.sequencers().threshold();
    match numbers.below(3) {
        0 => batch_body(&id, handovers + 1, scene.signers(), &draft.terms, 0, &draft.data()),
        1 => batch_body(&id, handovers, &Signers::new([8, 9], threshold), &draft.terms, 0, &draft.data()),
        _ => {
            let mut body = scene.sign(draft, 0, &draft.data());
            let at = body.len() - 1 - numbers.below(64);
            body[at] ^= 1 << numbers.below(8);
            body
        }
    }
}

/// Two batches, or one, with as much in them as a Bitcoin block may add, or a little more.
fn large(numbers: &mut Numbers, scene: &Scene) -> Vec<Vec<u8>> {
    let derivation = &scene.node.derivation;
    let more = numbers.below(2);
    let mut draft = Draft::new(derivation.head());
    if numbers.below(2) == 0 {
        let half = MAX_BLOCKS as usize / 2;
        let bodies = [half, half + more].map(|count| {
            for _ in 0..count {
                draft = draft.clone().block(derivation, false, 0, Vec::new());
            }
            let body = scene.sign(&draft, 0, &draft.data());
            draft = Draft::new(draft.head);
            body
        });
        return bodies.into();
    }
    let mut room = MAX_DATA + more;
    let bodies = [MAX_DATA / 2, MAX_DATA].map(|most| {
        let with_tx = |len| draft.clone().block(derivation, false, 0, vec![vec![0; len]]);
        let around = with_tx(most / 4).data().len() - most / 4;
        draft = with_tx(most.min(room) - around);
        let data = draft.data();
        room -= data.len();
        let body = scene.sign(&draft, 1, &compress_to_vec(&data, 6));
        draft = Draft::new(draft.head);
        body
    });
    bodies.into()
}

/// Bitcoin blocks with a handover, or two, and a batch after it.
pub fn handover(numbers: &mut Numbers, scenes: &[Scene]) -> Case {
    let mut scene = scenes[numbers.below(scenes.len())].clone();
    let (id, seq) = (scene.node.manifest.rollup_id(), scene.node.derivation.handovers());
    let next = scene.sets[numbers.below(3)].set();
    let signers = scene.signers().clone();
    let threshold = usize::from(scene.node.derivation.sequencers().threshold());
    let zeros = |count: usize| (0..count as u8).flat_map(|index| [&[index][..], &[7; 64]].concat()).collect::<Vec<_>>();
    let sound = handover_body(&id, seq, &signers, &next);
    let mut bodies = match numbers.below(20) {
        0..=3 => {
            let mut body = encode_handover(seq, &next);
            match numbers.below(4) {
                0 => body.truncate(numbers.below(body.len()).max(1)),
                1 => body[4] = pick(numbers, &[0, 65, 3]),
                2 => *body.last_mut().expect("a threshold") = pick(numbers, &[0, 4, 0xff]),
                _ => body[5..37].copy_from_slice(&[0xff; 32]),
            }
            vec![[body, zeros(threshold)].concat()]
        }
        4..=7 => vec![[encode_handover(wide(numbers) as u32 | 1 << 30, &next), zeros(threshold)].concat()],
        8..=10 => vec![[encode_handover(seq, &next), zeros(pick(numbers, &[0, threshold + 1]))].concat()],
        11..=13 => vec![
            [encode_handover(seq, &next), [&[pick(numbers, &[3, 64])][..], &[7; 64]].concat(), zeros(threshold - 1)]
                .concat(),
        ],
        14 => vec![sound],
        15 => vec![sound.clone(), sound],
        16 => vec![signed_handover(&id, &Signers::new([8, 9], threshold as u8), encode_handover(seq, &next))],
        17 => {
            let mut body = sound;
            let at = numbers.below(body.len());
            body[at] ^= 1 << numbers.below(8);
            vec![body]
        }
        18 => vec![zeros(1), sound],
        _ => {
            let draft = scene.draft(numbers, 0, Draft::new(scene.node.derivation.head()));
            let before = Body::Batch(scene.sign(&draft, 0, &draft.data()));
            let time = scene.next_time(numbers);
            let first = scene.block(numbers, time, vec![Body::Handover(sound), before]);
            let mut after = scene.clone();
            after.node.see(&first);
            let draft = after.draft(numbers, 0, Draft::new(after.node.derivation.head()));
            let signed = Body::Batch(after.sign(&draft, 0, &draft.data()));
            let second = after.block(numbers, time.saturating_add(1), vec![signed]);
            return scene.ask(&[first, second]);
        }
    };
    bodies.truncate(2);
    let time = scene.next_time(numbers);
    let raw = scene.block(numbers, time, bodies.into_iter().map(Body::Handover).collect());
    scene.ask(&[raw])
}
