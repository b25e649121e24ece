//! A rollup whose sequencers' secrets are known, and batches and handovers made by the rules.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::p2p::Magic;
use bitcoin::secp256k1::{All, Keypair, Message, Secp256k1, SecretKey};
use sortie::batch::{
    BatchBlock, BatchTerms, batch_message, encode_batch_data, encode_blocks, encode_handover, handover_message,
};
use sortie::derive::Derivation;
use sortie::l2::{L2Head, Origin};
use sortie::manifest::{ExecutorKind, ExecutorSpec, Fields, Manifest, SequencerSet};
use sortie::primitives::{BlockRef, BtcHeight, Hash32, RollupId};
use std::sync::LazyLock;

/// Precomputed once.
pub static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// Height of most start blocks.
pub const START_HEIGHT: BtcHeight = 100;
/// Time of the start block.
pub const START_TIME: u32 = 1_700_000_000;
/// Seconds between Bitcoin blocks.
pub const SPACING: u32 = 600;

static KEYPAIRS: LazyLock<Vec<Keypair>> = LazyLock::new(|| {
    let secrets = (1..=254).map(|n| SecretKey::from_slice(&[n; 32]).expect("below the order"));
    secrets.map(|secret| Keypair::from_secret_key(&SECP, &secret)).collect()
});

/// The key pair whose secret is `n` in every byte; `n` from 1 to 254.
pub fn keypair(n: u8) -> Keypair {
    KEYPAIRS[usize::from(n) - 1]
}

/// A set of sequencers with its secrets.
#[derive(Clone, Debug)]
pub struct Signers {
    /// By ascending public key, as the set has them.
    keypairs: Vec<Keypair>,
    threshold: u8,
}

impl Signers {
    /// The sequencers of these secrets.
    pub fn new(secrets: impl IntoIterator<Item = u8>, threshold: u8) -> Self {
        let mut keypairs: Vec<_> = secrets.into_iter().map(keypair).collect();
        keypairs.sort_by_key(|keypair| keypair.x_only_public_key().0.serialize());
        Self { keypairs, threshold }
    }

    /// Their key pairs, as the set has them.
    pub fn keypairs(&self) -> &[Keypair] {
        &self.keypairs
    }

    /// The public side.
    pub fn set(&self) -> SequencerSet {
        let keys = self.keypairs.iter().map(|keypair| keypair.x_only_public_key().0);
        SequencerSet::new(keys.collect(), self.threshold).expect("different keys, a threshold within them")
    }

    /// The signatures of the first `threshold` sequencers, as they stand at the end of a body.
    pub fn sign(&self, message: Hash32) -> Vec<u8> {
        let message = Message::from_digest(message.0);
        let signers = (0u8..).zip(&self.keypairs).take(self.threshold.into());
        signers
            .flat_map(|(index, keypair)| {
                let signature = SECP.sign_schnorr_no_aux_rand(&message, keypair);
                [&[index], &signature.serialize()[..]].concat()
            })
            .collect()
    }
}

/// The parameters that inputs and benches differ in.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// `start_height`.
    pub start_height: BtcHeight,
    /// `sequencing_window`.
    pub window: u16,
    /// `max_lag`.
    pub max_lag: u16,
    /// `max_forced_per_block`.
    pub max_forced: u16,
    /// The sequencers at genesis.
    pub sequencers: SequencerSet,
}

/// A manifest with an opaque executor.
pub fn manifest(parameters: Parameters) -> Manifest {
    Manifest::new(Fields {
        name: "fuzz".into(),
        network: Magic::REGTEST,
        start: BlockRef { height: parameters.start_height, hash: BlockHash::from_byte_array([0xaa; 32]) },
        sequencing_window: parameters.window,
        max_lag: parameters.max_lag,
        max_forced_per_block: parameters.max_forced,
        sequencers: parameters.sequencers,
        executor: ExecutorSpec { kind: ExecutorKind::Opaque, parameters: Vec::new() },
        predecessor: None,
    })
    .expect("every bound holds")
}

/// Derivation at the start block.
pub fn genesis(manifest: &Manifest) -> Derivation {
    let times: Vec<_> = (0..11).rev().map(|blocks_before| START_TIME - blocks_before * SPACING).collect();
    Derivation::genesis(manifest, &times)
}

/// A batch in the making, for the Bitcoin block after the derivation's tip. As long as nothing in it is
/// changed by hand, it is sound.
#[derive(Clone)]
pub struct Draft {
    /// The fields in front of the data.
    pub terms: BatchTerms,
    /// Its blocks, as it states them.
    pub blocks: Vec<BatchBlock>,
    /// The last block's, or the one that the batch goes on from.
    pub head: L2Head,
}

impl Draft {
    /// A batch on this head, without blocks yet.
    pub fn new(head: L2Head) -> Self {
        let terms =
            BatchTerms { first_number: head.header.number + 1, parent: head.hash, last_origin: head.header.origin };
        Self { terms, blocks: Vec::new(), head }
    }

    /// The origin of a next block, if there is one yet.
    pub fn next_origin(&self, derivation: &Derivation, advances: bool) -> Option<Origin> {
        derivation.origin(self.head.header.origin.height + u32::from(advances)).copied()
    }

    /// Adds a block so many seconds after its lower bound.
    pub fn block(mut self, derivation: &Derivation, advances: bool, after: u64, txs: Vec<Vec<u8>>) -> Self {
        let origin = self.next_origin(derivation, advances).expect("an origin below the carrier");
        let parent = self.head.header;
        let timestamp = parent.child_lower_bound(&origin) + after;
        let block = derivation.rules().child(&self.head, &origin, timestamp, txs.clone()).expect("a small number");
        self.blocks.push(BatchBlock { advances, seconds: timestamp - parent.timestamp, txs });
        self.terms.last_origin = origin.block;
        self.head = block.head();
        self
    }

    /// The blocks' plain encoding.
    pub fn data(&self) -> Vec<u8> {
        encode_blocks(&self.blocks)
    }
}

/// A batch's body with signatures over whatever its data is.
pub fn batch_body(
    id: &RollupId,
    handovers: u32,
    signers: &Signers,
    terms: &BatchTerms,
    codec: u8,
    data: &[u8],
) -> Vec<u8> {
    let body = encode_batch_data(terms, codec, data);
    let signatures = signers.sign(batch_message(id, handovers, &body));
    [body, signatures].concat()
}

/// A handover's body with signatures.
pub fn handover_body(id: &RollupId, handovers: u32, signers: &Signers, next: &SequencerSet) -> Vec<u8> {
    signed_handover(id, signers, encode_handover(handovers, next))
}

/// Signs whatever stands in front of a handover's signatures.
pub fn signed_handover(id: &RollupId, signers: &Signers, body: Vec<u8>) -> Vec<u8> {
    let signatures = signers.sign(handover_message(id, &body));
    [body, signatures].concat()
}
