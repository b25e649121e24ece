//! A sequencer that does what it likes, with the keys of the set.

use super::carry::Envelope;
use super::draft::{Draft, Signer, payload, signatures};
use super::observer::Observer;
use anyhow::{Context, Result, ensure};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Keypair, Secp256k1, SecretKey};
use sortie::batch::{BatchBlock, MAX_BLOCKS, MAX_DATA, encode_handover, handover_message};
use sortie::chain::BlockSource;
use sortie::derive::{DropReason as R, Verdict};
use sortie::envelope::{Body, Carrier};
use sortie::manifest::{Manifest, SequencerSet};
use sortie::primitives::Hash32;

const EMPTY: &[&[u8]] = &[];
/// Further in front of Bitcoin's time than any batch may be, in seconds.
const FAR_FUTURE: u64 = 1_000_000;
const A_WEEK: u64 = 604_800;

macro_rules! acts {
    ($($(#[$doc:meta])* $act:ident,)*) => {
        /// One thing that a hostile sequencer does; most are a single dropped batch.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Act {
            $($(#[$doc])* $act,)*
        }

        impl Act {
            /// Every act, in an order in which each can follow the one before.
            pub const ALL: &[Act] = &[$(Act::$act,)*];
        }
    };
}

acts! {
    /// Behaves: adopts every origin that it can, with two own transactions.
    Behave,
    /// Posts nothing.
    Stall,
    /// Signs a sound batch and keeps it.
    Withhold,
    /// Keeps the sequence going without adopting a new origin: items wait as long as they can.
    Delay,
    /// Goes on from a block whose forced section it pretends to have left out.
    Deny,
    /// ... whose forced section it pretends to have cut by one item.
    DenyOne,
    /// ... whose queue it pretends to be another: items in another order.
    Reorder,
    /// ... whose own transactions it pretends to be others than it posted.
    Swap,
    /// Posts two batches in the order opposite to the one they follow each other in.
    OutOfOrder,
    /// Posts a batch for a number further on.
    SkipNumber,
    /// Posts a batch for a parent that never was.
    WrongParent,
    /// Posts a batch twice in one Bitcoin block.
    Replay,
    /// Posts every batch it has withheld, too late or not.
    Release,
    /// Posts two sound batches for one parent.
    Equivocate,
    /// Names a last origin one below what its blocks adopt.
    OriginHeight,
    /// Names the Bitcoin block that will carry the batch as its origin.
    OriginAbove,
    /// Names a last origin that is on no branch.
    OriginBranch,
    /// A timestamp far in front of Bitcoin's.
    TimeHigh,
    /// A timestamp a second below its lower bound.
    TimeLow,
    /// Own transactions at an origin older than the lag.
    Stale,
    /// A codec of a later version.
    UnknownCodec,
    /// A batch without signatures.
    Unsigned,
    /// One signer more than the threshold.
    OneTooMany,
    /// A signer that is not in the set.
    Outsider,
    /// A signature with a changed bit.
    Forge,
    /// Signed for another rollup with the same namespace.
    OtherRollup,
    /// Signed for another number of handovers.
    OtherHandovers,
    /// A body of one byte.
    Garbage,
    /// Data that ends in the middle, signed.
    MalformedData,
    /// A batch without blocks, signed.
    NoBlocks,
    /// One block more than a batch may have, signed.
    TooManyBlocks,
    /// A few bytes that decompress to more than the limit, signed.
    Bomb,
    /// Two sound batches that together have more in them than a Bitcoin block may add.
    Overload,
    /// A block of own transactions that are garbage: sound, and no-ops.
    OwnGarbage,
    /// A handover signed by strangers.
    ForgedHandover,
}

/// What an act puts on Bitcoin, and what everyone must make of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Post {
    /// In this order, in one block.
    pub envelopes: Vec<Envelope>,
    /// The verdict on each.
    pub verdicts: Vec<Verdict>,
}

/// A sequencer that signs and posts whatever a test wants; it shares no code with `sortie::sequencer`.
pub struct HostileSequencer {
    observer: Observer,
    keys: Vec<Keypair>,
    withheld: Vec<Draft>,
    carried: u32,
}

impl Post {
    fn add(mut self, carrier: Carrier, payload: Vec<u8>, verdict: Verdict) -> Self {
        self.envelopes.push(Envelope { carrier, payload });
        self.verdicts.push(verdict);
        self
    }
}

impl HostileSequencer {
    /// A sequencer with these keys; as many as the threshold must be of the set.
    ///
    /// # Errors
    /// As [`Observer::new`].
    pub fn new(manifest: Manifest, keys: Vec<Keypair>, source: &impl BlockSource) -> Result<Self> {
        Ok(Self { observer: Observer::new(manifest, source)?, keys, withheld: Vec::new(), carried: 0 })
    }

    /// What everyone derives.
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Follows Bitcoin to its tip.
    ///
    /// # Errors
    /// As [`Observer::follow`].
    pub fn follow(&mut self, source: &impl BlockSource) -> Result<()> {
        self.observer.follow(source)
    }

    /// A sound batch on the derived head, without blocks yet, to be made as wrong as a test wants.
    pub fn draft(&self) -> Draft {
        Draft::new(self.observer.derivation(), self.signers())
    }

    /// A payload of the rollup: to force transactions, to hand over, or garbage.
    pub fn payload(&self, body: Body) -> Vec<u8> {
        payload(&self.observer.manifest().rollup_id(), body)
    }

    /// A handover to another set, signed by this one.
    pub fn handover(&self, to: &SequencerSet) -> Vec<u8> {
        self.handover_by(&self.signers(), to)
    }

    fn handover_by(&self, signers: &[Signer], to: &SequencerSet) -> Vec<u8> {
        let mut body = encode_handover(self.observer.derivation().handovers(), to);
        let message = handover_message(&self.observer.manifest().rollup_id(), &body);
        body.extend(signatures(signers, message));
        self.payload(Body::Handover(body))
    }

    /// As many keys of the set in force as it needs.
    fn signers(&self) -> Vec<Signer> {
        let set = self.observer.derivation().sequencers();
        let index = |keypair: &Keypair| set.index_of(&keypair.x_only_public_key().0);
        let mut signers: Vec<_> = self
            .keys
            .iter()
            .filter_map(|keypair| index(keypair).map(|index| Signer { index, keypair: *keypair }))
            .collect();
        signers.sort_by_key(|signer| signer.index);
        signers.truncate(set.threshold().into());
        signers
    }

    /// How many Bitcoin blocks must be mined before [`prepare`](Self::prepare) can do this.
    pub fn must_wait(&self, act: Act) -> u32 {
        let derivation = self.observer.derivation();
        let behind = self.observer.tip().height - derivation.head().header.origin.height;
        match act {
            Act::OriginHeight | Act::Deny | Act::DenyOne | Act::Reorder => 1u32.saturating_sub(behind),
            Act::TimeLow => u32::from(self.too_early().is_none()),
            Act::Stale => u32::from(self.observer.manifest().max_lag).saturating_sub(behind),
            _ => 0,
        }
    }

    /// What this act is in the next Bitcoin block, given what is on Bitcoin now.
    ///
    /// # Errors
    /// It must [wait](Self::must_wait); or the keys are fewer than the threshold.
    pub fn prepare(&mut self, act: Act) -> Result<Post> {
        ensure!(self.must_wait(act) == 0, "{act:?} needs {} Bitcoin blocks more", self.must_wait(act));
        let threshold = self.observer.derivation().sequencers().threshold();
        ensure!(self.signers().len() == usize::from(threshold), "fewer keys than the threshold, {threshold}");
        // Every carrier has its turn.
        self.carried += 1;
        let carrier = if self.carried.is_multiple_of(2) { Carrier::OpReturn } else { Carrier::Taproot };
        let post = |batches: Vec<(Vec<u8>, Verdict)>| {
            batches.into_iter().fold(Post::default(), |post, (payload, verdict)| post.add(carrier, payload, verdict))
        };
        let drop_for = |draft: Draft, reason| post(vec![(draft.payload(), Verdict::Drop(reason))]);
        let sound = self.fresh().block(false, &[b"own"]);
        let spoilt = |spoil: fn(&mut Draft)| {
            let mut draft = sound.clone();
            spoil(&mut draft);
            draft
        };
        Ok(match act {
            Act::Behave => post(vec![(self.honest().payload(), Verdict::Accept)]),
            Act::Stall => Post::default(),
            Act::Withhold => {
                self.withheld.push(self.honest());
                Post::default()
            }
            Act::Delay => post(vec![(self.draft().block(false, EMPTY).payload(), Verdict::Accept)]),
            Act::Deny | Act::DenyOne | Act::Reorder | Act::Swap => post(self.lie(act)),
            Act::OutOfOrder => {
                let next = sound.next().block(false, EMPTY);
                post(vec![(next.payload(), Verdict::Drop(R::WrongNumber)), (sound.payload(), Verdict::Accept)])
            }
            Act::SkipNumber => drop_for(spoilt(|draft| draft.terms.first_number += 1), R::WrongNumber),
            Act::WrongParent => drop_for(spoilt(|draft| draft.terms.parent = Hash32([7; 32])), R::WrongParent),
            Act::Replay => {
                let payload = sound.payload();
                post(vec![(payload.clone(), Verdict::Accept), (payload, Verdict::Drop(R::Replay))])
            }
            Act::Release => post(self.release()),
            Act::Equivocate => {
                let twin = self.fresh().block(false, &[b"to someone else"]);
                post(vec![(sound.payload(), Verdict::Accept), (twin.payload(), Verdict::Drop(R::Replay))])
            }
            Act::OriginHeight => {
                let mut draft = self.draft().block(true, EMPTY);
                draft.terms.last_origin.height -= 1;
                drop_for(draft, R::OriginMismatch)
            }
            Act::OriginAbove => drop_for(self.at_the_carrier(), R::OriginNotBelow),
            Act::OriginBranch => drop_for(
                spoilt(|draft| draft.terms.last_origin.hash = BlockHash::from_byte_array([7; 32])),
                R::OriginWrongBranch,
            ),
            Act::TimeHigh => drop_for(spoilt(|draft| draft.blocks[0].seconds += A_WEEK + FAR_FUTURE), R::TimestampHigh),
            Act::TimeLow => {
                drop_for(self.too_early().context("Bitcoin's median time has not gone on")?, R::TimestampLow)
            }
            Act::Stale => drop_for(self.draft().block(false, &[b"own"]), R::StaleOrigin),
            Act::UnknownCodec => drop_for(spoilt(|draft| draft.data = Some((2, vec![1, 2, 3]))), R::UnknownCodec),
            Act::Unsigned => drop_for(spoilt(|draft| draft.signers.clear()), R::SignatureCount),
            Act::OneTooMany => {
                drop_for(spoilt(|draft| draft.signers.push(draft.signers[0].clone())), R::SignatureCount)
            }
            Act::Outsider => drop_for(spoilt(|draft| draft.signers[0].keypair = outsider()), R::BadSignature),
            Act::Forge => drop_for(
                spoilt(|draft| draft.tamper = Some(|body| body.iter_mut().rev().take(1).for_each(|byte| *byte ^= 1))),
                R::BadSignature,
            ),
            Act::OtherRollup => drop_for(spoilt(|draft| draft.rollup_id.0[31] ^= 1), R::BadSignature),
            Act::OtherHandovers => drop_for(spoilt(|draft| draft.handovers += 1), R::BadSignature),
            Act::Garbage => drop_for(spoilt(|draft| draft.tamper = Some(|body| body.truncate(1))), R::Malformed),
            Act::MalformedData => drop_for(spoilt(|draft| draft.data = Some((0, vec![1, 0]))), R::MalformedData),
            Act::NoBlocks => drop_for(spoilt(|draft| draft.blocks.clear()), R::MalformedData),
            Act::TooManyBlocks => {
                let many = |draft: &mut Draft| draft.blocks = vec![empty_block(); MAX_BLOCKS as usize + 1];
                drop_for(spoilt(many), R::MalformedData)
            }
            Act::Bomb => drop_for(spoilt(|draft| draft.blocks[0].txs = vec![vec![0; MAX_DATA]]), R::MalformedData),
            Act::Overload => {
                let full = self.fresh().block(false, &[vec![0; MAX_DATA - 10_000]]);
                let over = full.next().block(false, &[vec![0; 20_000]]);
                post(vec![(full.payload(), Verdict::Accept), (over.payload(), Verdict::Drop(R::OverBudget))])
            }
            Act::OwnGarbage => {
                let garbage: [&[u8]; 3] = [&[0], &[0xff; 153], b"58259701"];
                post(vec![(self.fresh().block(false, &garbage).payload(), Verdict::Accept)])
            }
            Act::ForgedHandover => {
                let mut signers = self.signers();
                signers[0].keypair = outsider();
                let to = self.observer.derivation().sequencers().clone();
                post(vec![(self.handover_by(&signers, &to), Verdict::Drop(R::BadSignature))])
            }
        })
    }

    /// A batch that adopts what it can, and has own transactions where that is allowed.
    fn honest(&self) -> Draft {
        self.draft().adopt(self.observer.tip().height).block(false, &[b"one", b"two"])
    }

    /// A batch that adopts no more than own transactions in the next block need.
    fn fresh(&self) -> Draft {
        let max_lag = u32::from(self.observer.manifest().max_lag);
        self.draft().adopt((self.observer.tip().height + 1).saturating_sub(max_lag))
    }

    /// A batch whose last block is a second below its lower bound, if Bitcoin's time has gone on at all.
    fn too_early(&self) -> Option<Draft> {
        let mut draft = self.draft();
        while draft.head().header.origin.height < self.observer.tip().height {
            let behind = draft.lower_bound(true) > draft.head().header.timestamp;
            draft = draft.block(true, EMPTY);
            if behind {
                draft.blocks.last_mut()?.seconds -= 1;
                return Some(draft);
            }
        }
        None
    }

    /// A batch, and one on top of it that goes on from another block than everyone derives.
    fn lie(&self, act: Act) -> Vec<(Vec<u8>, Verdict)> {
        let told = if act == Act::Swap {
            self.fresh().block(false, &[b"shown"])
        } else {
            self.draft().adopt(self.observer.tip().height)
        };
        let before = self.observer.head().header.forced_end;
        let believed = told.clone().pretend(|header| match act {
            // Where nothing was forced there is nothing to leave out: then it claims one that is not there.
            Act::Deny if header.forced_end == before => header.forced_end += 1,
            Act::Deny => header.forced_end = before,
            Act::DenyOne => header.forced_end = header.forced_end.checked_sub(1).unwrap_or(1),
            Act::Reorder => header.queue_root.0.reverse(),
            _ => header.txs_root = Hash32([7; 32]),
        });
        let next = believed.next().block(false, EMPTY);
        vec![(told.payload(), Verdict::Accept), (next.payload(), Verdict::Drop(R::WrongParent))]
    }

    fn release(&mut self) -> Vec<(Vec<u8>, Verdict)> {
        let head = self.observer.head();
        let mut accepted = false;
        let verdict = |draft: &Draft| {
            if accepted || draft.terms.first_number <= head.header.number {
                Verdict::Drop(R::Replay)
            } else if draft.terms.parent == head.hash {
                accepted = true;
                Verdict::Accept
            } else {
                Verdict::Drop(R::WrongParent)
            }
        };
        let withheld = std::mem::take(&mut self.withheld);
        let verdicts: Vec<_> = withheld.iter().map(verdict).collect();
        withheld.iter().map(Draft::payload).zip(verdicts).collect()
    }

    /// A batch that adopts origins up to the Bitcoin block which carries it.
    fn at_the_carrier(&self) -> Draft {
        let mut draft = self.draft().adopt(self.observer.tip().height);
        draft.blocks.push(BatchBlock { advances: true, ..empty_block() });
        draft.terms.last_origin.height = self.observer.tip().height + 1;
        draft
    }
}

fn empty_block() -> BatchBlock {
    BatchBlock { advances: false, seconds: 0, txs: Vec::new() }
}

/// A key of nobody's set.
fn outsider() -> Keypair {
    let secret = SecretKey::from_slice(&[0xee; 32]).expect("a small number is a secret key");
    Keypair::from_secret_key(&Secp256k1::new(), &secret)
}
