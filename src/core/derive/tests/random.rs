//! Random chains: whatever happens on them, what is left after it is a function of the best chain.

use super::*;
use crate::envelope::Carrier;
use crate::manifest::tests::signers::Signers;
use core::ops::Range;
use proptest::collection::vec as list;
use proptest::prelude::*;
use sequencer::HandoverDraft;

/// What happens next on Bitcoin.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A block; its header time is the one before plus `seconds`.
    Block { seconds: i32, contents: Vec<Content> },
    /// The last blocks are disconnected.
    Reorg { depth: usize },
    /// The blocks that were disconnected last come back, as far as they connect.
    Back,
}

/// One transaction of a block.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Forced(Vec<u8>),
    Shared(Vec<Vec<u8>>),
    /// A batch on the head as the batches before it leave it, flawed if there is a flaw.
    Batch {
        blocks: Vec<ModelBlock>,
        codec: u8,
        flaw: Option<usize>,
    },
    Handover {
        to: u8,
        flaw: Option<usize>,
    },
    /// A payload of any kind with any body.
    Garbage(u8, Vec<u8>),
}

#[derive(Clone, Debug)]
pub(super) struct ModelBlock {
    advances: bool,
    txs: Vec<Vec<u8>>,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    list(any::<u8>(), 1..20)
}

fn content() -> impl Strategy<Value = Content> {
    let model = (any::<bool>(), list(bytes(), 0..3)).prop_map(|(advances, txs)| ModelBlock { advances, txs });
    let flaw = || prop_oneof![4 => Just(None), 1 => any::<usize>().prop_map(Some)];
    prop_oneof![
        4 => bytes().prop_map(Content::Forced),
        1 => list(list(any::<u8>(), 64..70), 1..4).prop_map(Content::Shared),
        5 => (list(model, 1..5), 0..2u8, flaw()).prop_map(|(blocks, codec, flaw)| Content::Batch { blocks, codec, flaw }),
        1 => (1..9u8, flaw()).prop_map(|(to, flaw)| Content::Handover { to, flaw }),
        1 => (any::<u8>(), bytes()).prop_map(|(kind, body)| Content::Garbage(kind, body)),
    ]
}

pub(super) fn events(count: Range<usize>) -> impl Strategy<Value = Vec<Event>> {
    let block =
        (-3000i32..9000, list(content(), 0..6)).prop_map(|(seconds, contents)| Event::Block { seconds, contents });
    let event =
        prop_oneof![8 => block, 1 => (1usize..9).prop_map(|depth| Event::Reorg { depth }), 1 => Just(Event::Back)];
    list(event, count)
}

pub(super) fn parameters() -> impl Strategy<Value = Parameters> {
    (2..8u16, 1..5u16, any::<prop::sample::Index>()).prop_map(|(window, max_forced, lag)| {
        let max_lag = 1 + lag.index(usize::from(window)) as u16;
        Parameters { window, max_lag, max_forced, ..Parameters::default() }
    })
}

/// Plays events, and holds every verdict against what the model sequencer expects.
pub(super) struct Game {
    pub rig: Rig,
    /// The signers in force after each block of the best chain, and before the first.
    signers: Vec<Signers>,
    disconnected: Vec<(Vec<u8>, Signers)>,
}

impl Game {
    pub fn new(parameters: Parameters) -> Self {
        let rig = Rig::new(parameters);
        let signers = vec![rig.signers.clone()];
        Self { rig, signers, disconnected: Vec::new() }
    }

    pub fn play(&mut self, event: Event) {
        match event {
            Event::Block { seconds, contents } => self.block(seconds, contents),
            Event::Reorg { depth } => {
                let depth = depth.min(self.signers.len() - 1);
                let signers = self.signers.split_off(self.signers.len() - depth);
                self.disconnected = self.rig.disconnect(depth).into_iter().zip(signers).collect();
            }
            Event::Back => {
                for (raw, signers) in core::mem::take(&mut self.disconnected) {
                    let block: bitcoin::Block = bitcoin::consensus::deserialize(&raw).unwrap();
                    if block.header.prev_blockhash == self.rig.derivation.tip().block.hash {
                        self.rig.apply(raw);
                        self.signers.push(signers);
                    }
                }
            }
        }
        self.rig.signers = self.signers[self.signers.len() - 1].clone();
    }

    fn block(&mut self, seconds: i32, contents: Vec<Content>) {
        let time = self.rig.next_time().saturating_sub(rig::SPACING).saturating_add_signed(seconds);
        let mut draft = self.rig.draft();
        draft.carrier_time = time;
        let (mut expected, mut next_signers) = (Vec::new(), None);
        let envelopes: Vec<_> = contents
            .into_iter()
            .map(|content| match content {
                Content::Forced(tx) => self.rig.force(&tx),
                Content::Shared(txs) => self.rig.envelope(Carrier::Taproot, Body::Txs(txs)),
                Content::Batch { blocks, codec, flaw } => {
                    let mut batch = model_batch(&draft, &blocks, &self.rig);
                    batch.codec = codec;
                    match flaw.map(|flaw| pick(&verdicts::flaws_of_any_batch(), flaw)) {
                        None => {
                            expected.push(Some(Verdict::Accept));
                            draft = batch.next();
                        }
                        Some((reason, _, spoil)) => {
                            spoil(&mut batch);
                            expected.push(Some(Verdict::Drop(reason)));
                        }
                    }
                    self.rig.post(&batch)
                }
                Content::Handover { to, flaw } => {
                    let to = Signers::new([20 + to, 40 + to, 60 + to], 2);
                    let mut handover = HandoverDraft::new(&self.rig, &to);
                    match flaw.map(|flaw| pick(&verdicts::handover_flaws(), flaw)) {
                        None if next_signers.is_none() => {
                            expected.push(Some(Verdict::Accept));
                            next_signers = Some(to);
                        }
                        None => expected.push(Some(Verdict::Drop(DropReason::HandoverPending))),
                        Some((reason, _, spoil)) => {
                            spoil(&mut handover);
                            let later = !matches!(reason, DropReason::Malformed | DropReason::WrongSeq);
                            let pending = next_signers.is_some() && later;
                            let reason = if pending { DropReason::HandoverPending } else { reason };
                            expected.push(Some(Verdict::Drop(reason)));
                        }
                    }
                    self.rig.envelope(Carrier::OpReturn, Body::Handover(handover.body()))
                }
                Content::Garbage(kind, body) => {
                    let body = match kind {
                        0x10 => Body::Batch(body),
                        0x11 => Body::Handover(body),
                        0x01 | 0x02 => Body::Tx(body),
                        _ => Body::Unsupported(kind, body),
                    };
                    if matches!(body, Body::Batch(_) | Body::Handover(_)) {
                        expected.push(None);
                    }
                    self.rig.envelope(Carrier::OpReturn, body)
                }
            })
            .collect();
        let step = self.rig.mine_at(time, envelopes);
        assert_eq!(step.judged.len(), expected.len());
        for (judged, expected) in step.judged.iter().zip(expected) {
            assert!(expected.is_none_or(|expected| expected == judged.verdict), "{judged:?}, expected {expected:?}");
        }
        let model = draft.chain();
        assert_eq!(step.blocks[..model.len()], *model, "what was accepted is what the sequencer built");
        let signers = next_signers.unwrap_or_else(|| self.rig.signers.clone());
        self.signers.push(signers);
        self.disconnected.clear();
    }
}

/// Blocks as an honest sequencer may make them: no origin that it has not seen, nothing stale.
fn model_batch(draft: &Draft, blocks: &[ModelBlock], rig: &Rig) -> Draft {
    let max_lag = u32::from(rig.manifest.max_lag);
    blocks.iter().fold(draft.clone(), |batch, ModelBlock { advances, txs }| {
        let origin = batch.head().header.origin.height;
        let advances = *advances && origin < rig.height();
        let fresh = batch.carrier_height() - (origin + u32::from(advances)) <= max_lag;
        batch.block(advances, if fresh { txs } else { &[] })
    })
}

fn pick<T: Copy>(from: &[T], at: usize) -> T {
    from[at % from.len()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn the_state_is_a_function_of_the_best_chain(parameters in parameters(), events in events(1..40)) {
        // The rig checks on the way that every revert restores to the bit, and every rule of every block.
        let mut game = Game::new(parameters);
        events.into_iter().for_each(|event| game.play(event));
        prop_assert_eq!(&game.rig.derivation, &game.rig.clean_run());
    }
}
