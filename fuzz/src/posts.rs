//! Batches and handovers, through judging: what is accepted has one encoding and obeys every rule.

use super::input::Input;
use super::made;
use super::rollup::{
    self, Draft, Parameters, SPACING, START_HEIGHT, START_TIME, Signers, batch_body, genesis, handover_body,
    signed_handover,
};
use bitcoin::Txid;
use bitcoin::hashes::Hash;
use sortie::batch::{BatchBlock, MAX_BLOCKS, MAX_DATA, encode_blocks, encode_handover};
use sortie::derive::{Derivation, DropReason, Step, Verdict};
use sortie::envelope::{Body, Carrier, Found, Payload};
use sortie::l2::L2Block;
use sortie::manifest::Manifest;
use std::sync::LazyLock;

const BATCH: u8 = 0x10;
const HANDOVER: u8 = 0x11;
/// Height of the tip above the start block.
const TIP: u32 = 6;

/// A rollup with a few items and one L2 block behind it.
struct Scene {
    manifest: Manifest,
    signers: Signers,
    derivation: Derivation,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let signers = Signers::new([1, 2, 3], 2);
    let parameters =
        Parameters { start_height: START_HEIGHT, window: 8, max_lag: 3, max_forced: 2, sequencers: signers.set() };
    let manifest = rollup::manifest(parameters);
    let mut scene = Scene { derivation: genesis(&manifest), manifest, signers };
    for height in 1..=TIP {
        let mut bodies = vec![Body::Tx(vec![height as u8; 3])];
        if height == TIP {
            let draft = Draft::new(scene.derivation.head()).block(&scene.derivation, true, 0, Vec::new());
            bodies.push(Body::Batch(scene.sign_batch(&draft, 0, &draft.data())));
        }
        let step = scene.apply(bodies);
        assert!(step.judged.iter().all(|judged| judged.verdict == Verdict::Accept));
    }
    scene
});

impl Scene {
    fn sign_batch(&self, draft: &Draft, codec: u8, data: &[u8]) -> Vec<u8> {
        let handovers = self.derivation.handovers();
        batch_body(&self.manifest.rollup_id(), handovers, &self.signers, &draft.terms, codec, data)
    }

    /// The next Bitcoin block, with an envelope for each of the bodies.
    fn apply(&mut self, bodies: Vec<Body>) -> Step {
        let tip = self.derivation.tip().block;
        let time = START_TIME + (tip.height + 1 - START_HEIGHT) * SPACING;
        let namespace = self.manifest.rollup_id().namespace();
        let found = (0u32..).zip(bodies).map(|(index, body)| Found {
            tx_index: 1,
            txid: Txid::all_zeros(),
            carrier: Carrier::OpReturn,
            index,
            namespace,
            payload: Ok(Payload { namespace, body }),
        });
        let found: Vec<_> = found.collect();
        self.derivation.apply(&made::header(tip.hash, time), &found).expect("a child of the tip")
    }

    /// Applies one body and takes it back; gives the derivation with it and what happened.
    fn judge(&self, body: Body) -> (Derivation, Step) {
        let kind = body.kind();
        let mut scene = Scene {
            manifest: self.manifest.clone(),
            signers: self.signers.clone(),
            derivation: self.derivation.clone(),
        };
        let step = scene.apply(vec![body]);
        assert_eq!(step.judged.len(), 1);
        assert_eq!(step.judged[0].kind, kind);
        let after = scene.derivation.clone();
        scene.derivation.revert(step.undo.clone());
        assert_eq!(scene.derivation, self.derivation, "a reverted step left a trace");
        (after, step)
    }
}

/// A batch's body as it comes, or data that the set in force has signed as a batch on the head.
pub fn batch(data: &[u8]) {
    let scene = &*SCENE;
    let mut input = Input::new(data);
    let mode = input.below(4);
    if mode == 0 {
        let _ = scene.judge(Body::Batch(input.rest().to_vec()));
        return;
    }
    let mut draft = Draft::new(scene.derivation.head());
    let advances = input.below(8) as u32;
    if let Some(origin) = scene.derivation.origin(draft.terms.last_origin.height + advances) {
        draft.terms.last_origin = origin.block;
    }
    let mut body = match mode {
        1 => scene.sign_batch(&draft, input.byte(), input.rest()),
        // Past the compression, at what is under it.
        2 => scene.sign_batch(&draft, 1, &miniz_oxide::deflate::compress_to_vec(input.rest(), 1)),
        _ => {
            let (at, xor) = (input.u64(), input.byte());
            let mut body = scene.sign_batch(&draft, input.byte(), input.rest());
            let at = usize::try_from(at % body.len() as u64).expect("below a length");
            body[at] ^= xor;
            body
        }
    };
    body.truncate(sortie::envelope::MAX_PAYLOAD);
    check_batch(scene, &body);
}

fn check_batch(scene: &Scene, body: &[u8]) {
    let (after, step) = scene.judge(Body::Batch(body.to_vec()));
    match step.judged[0].verdict {
        Verdict::Drop(_) => {
            assert_eq!(step.blocks, []);
            assert_eq!(after.head(), scene.derivation.head());
        }
        Verdict::Accept => {
            // Nothing is due yet, so that all blocks are the batch's.
            let stated = stated(scene, &step.blocks);
            let data = encode_blocks(&stated);
            assert!((1..=MAX_BLOCKS).contains(&(stated.len() as u64)) && data.len() <= MAX_DATA);
            let codec_at = 8 + 32 + 36;
            if body[codec_at] == 0 {
                assert!(body.windows(data.len()).any(|window| window == data), "a second encoding");
            }
            assert_eq!(Some(after.head()), step.blocks.last().map(L2Block::head));
        }
    }
}

/// The blocks as a batch must state them; checks each against its parent on the way.
fn stated(scene: &Scene, blocks: &[L2Block]) -> Vec<BatchBlock> {
    let derivation = &scene.derivation;
    let mut parent = derivation.head();
    let stated = blocks.iter().map(|block| {
        let (header, above) = (&block.header, &parent.header);
        let advances = header.origin.height - above.origin.height;
        assert!(advances <= 1, "an origin was skipped");
        let origin = derivation.origin(header.origin.height).expect("an origin on this chain");
        let child = derivation.rules().child(&parent, origin, header.timestamp, block.own_txs.clone());
        assert_eq!(child.as_ref(), Some(block), "not the block that follows by the rules");
        assert!(header.timestamp >= above.child_lower_bound(origin));
        let seconds = header.timestamp - above.timestamp;
        parent = block.head();
        BatchBlock { advances: advances == 1, seconds, txs: block.own_txs.clone() }
    });
    stated.collect()
}

/// A handover's body as it comes, or anything that the set in force has signed as one.
pub fn handover(data: &[u8]) {
    let scene = &*SCENE;
    let id = scene.manifest.rollup_id();
    let mut input = Input::new(data);
    let body = match input.below(4) {
        0 => input.rest().to_vec(),
        1 => signed_handover(&id, &scene.signers, input.rest().to_vec()),
        2 => {
            let seq = scene.derivation.handovers().to_le_bytes();
            signed_handover(&id, &scene.signers, [&seq[..], input.rest()].concat())
        }
        _ => {
            let (first, keys) = (1 + input.byte() % 100, 1 + input.byte() % 64);
            let next = Signers::new(first..first + keys, 1 + input.byte() % keys);
            let mut body = handover_body(&id, scene.derivation.handovers(), &scene.signers, &next.set());
            let at = usize::try_from(input.u64() % body.len() as u64).expect("below a length");
            body[at] ^= input.byte();
            body
        }
    };
    let (after, step) = scene.judge(Body::Handover(body.clone()));
    let unchanged =
        (after.sequencers() == scene.derivation.sequencers()) && after.handovers() == scene.derivation.handovers();
    match step.judged[0].verdict {
        Verdict::Drop(_) => assert!(unchanged),
        Verdict::Accept => {
            assert_eq!(after.handovers(), scene.derivation.handovers() + 1);
            let signed = encode_handover(scene.derivation.handovers(), after.sequencers());
            assert!(body.starts_with(&signed), "a second encoding");
        }
    }
    if step.judged[0].verdict == Verdict::Accept {
        let twice = again(scene, &body);
        assert_eq!(twice, [Verdict::Accept, Verdict::Drop(DropReason::HandoverPending)]);
    }
}

/// The verdicts if the same handover stands in a Bitcoin block twice.
fn again(scene: &Scene, body: &[u8]) -> Vec<Verdict> {
    let mut scene = Scene {
        manifest: scene.manifest.clone(),
        signers: scene.signers.clone(),
        derivation: scene.derivation.clone(),
    };
    let handover = || Body::Handover(body.to_vec());
    let step = scene.apply(vec![handover(), handover()]);
    step.judged.iter().map(|judged| judged.verdict).collect()
}

/// The kinds that are judged.
pub(super) fn is_judged(kind: u8) -> bool {
    matches!(kind, BATCH | HANDOVER)
}
