//! A batch in the making: sound until somebody changes it.

use bitcoin::secp256k1::{All, Keypair, Message, Secp256k1};
use sortie::batch::{BatchBlock, BatchTerms, batch_message, encode_batch, encode_batch_data};
use sortie::derive::Derivation;
use sortie::envelope::{Body, Payload};
use sortie::l2::{L2Head, L2Header, Origin};
use sortie::primitives::{BtcHeight, Hash32, RollupId};
use std::sync::LazyLock;

static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// A signer and the index that it claims in the set.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Index in the set, ascending by public key.
    pub index: u8,
    /// The secret.
    pub keypair: Keypair,
}

/// A batch on some head, with every field open to change; [`payload`](Self::payload) signs what is there
/// then.
#[derive(Clone)]
pub struct Draft {
    /// Number, parent, last origin.
    pub terms: BatchTerms,
    /// The blocks.
    pub blocks: Vec<BatchBlock>,
    /// A codec and its data, instead of the blocks'.
    pub data: Option<(u8, Vec<u8>)>,
    /// Who signs, in this order.
    pub signers: Vec<Signer>,
    /// The rollup that is signed for.
    pub rollup_id: RollupId,
    /// The number of handovers that is signed for.
    pub handovers: u32,
    /// What is done to the whole body after it was signed.
    pub tamper: Option<fn(&mut Vec<u8>)>,
    derivation: Derivation,
    head: L2Head,
}

impl Draft {
    /// A batch on the derived head, without blocks yet.
    pub fn new(derivation: &Derivation, signers: Vec<Signer>) -> Self {
        let head = derivation.head();
        Self {
            terms: terms(&head),
            blocks: Vec::new(),
            data: None,
            signers,
            rollup_id: derivation.rules().rollup_id,
            handovers: derivation.handovers(),
            tamper: None,
            derivation: derivation.clone(),
            head,
        }
    }

    /// A batch on top of this one, without blocks yet.
    pub fn next(&self) -> Self {
        Self { terms: terms(&self.head), blocks: Vec::new(), ..self.clone() }
    }

    /// The last block, as honest blocks would be; the head that the batch goes on from if it has none.
    pub fn head(&self) -> L2Head {
        self.head
    }

    /// The earliest time that the next block may bear, if it adopts the next origin or stays.
    ///
    /// # Panics
    /// Bitcoin has no such block yet.
    pub fn lower_bound(&self, advances: bool) -> u64 {
        self.head.header.child_lower_bound(&self.origin(advances))
    }

    fn origin(&self, advances: bool) -> Origin {
        let height = self.head.header.origin.height + u32::from(advances);
        *self.derivation.origin(height).expect("a draft adopts no origin that Bitcoin does not have")
    }

    /// Adds a block at its lower bound, with these own transactions.
    ///
    /// # Panics
    /// As [`lower_bound`](Self::lower_bound).
    pub fn block<T: AsRef<[u8]>>(self, advances: bool, txs: &[T]) -> Self {
        let timestamp = self.lower_bound(advances);
        self.block_at(advances, timestamp, txs)
    }

    /// Adds a block with a timestamp, not below its parent's.
    ///
    /// # Panics
    /// As [`lower_bound`](Self::lower_bound).
    pub fn block_at<T: AsRef<[u8]>>(mut self, advances: bool, timestamp: u64, txs: &[T]) -> Self {
        let txs: Vec<_> = txs.iter().map(|tx| tx.as_ref().to_vec()).collect();
        let origin = self.origin(advances);
        let block = self.derivation.rules().child(&self.head, &origin, timestamp, txs.clone());
        let seconds = timestamp.saturating_sub(self.head.header.timestamp);
        self.blocks.push(BatchBlock { advances, seconds, txs });
        self.terms.last_origin = origin.block;
        self.head = block.expect("fewer than 2^64 blocks").head();
        self
    }

    /// Adds blocks without own transactions until the origin has this height.
    pub fn adopt(mut self, height: BtcHeight) -> Self {
        while self.head.header.origin.height < height {
            self = self.block::<&[u8]>(true, &[]);
        }
        self
    }

    /// Pretends that the last block's header were another; what is built on it is built on a lie.
    pub fn pretend(mut self, lie: impl FnOnce(&mut L2Header)) -> Self {
        lie(&mut self.head.header);
        self.head.hash = self.head.header.hash(&self.rollup_id);
        self
    }

    /// The payload, signed.
    pub fn payload(&self) -> Vec<u8> {
        let mut body = match &self.data {
            Some((codec, data)) => encode_batch_data(&self.terms, *codec, data),
            None => encode_batch(&self.terms, &self.blocks),
        };
        let message = batch_message(&self.rollup_id, self.handovers, &body);
        body.extend(signatures(&self.signers, message));
        if let Some(tamper) = self.tamper {
            tamper(&mut body);
        }
        payload(&self.rollup_id, Body::Batch(body))
    }
}

/// A payload of this rollup.
pub(super) fn payload(rollup_id: &RollupId, body: Body) -> Vec<u8> {
    let payload = Payload { namespace: rollup_id.namespace(), body };
    payload.encode().expect("a payload of a byte or more, and below the limit")
}

/// Signature entries over a message, as a batch's or a handover's body ends in.
pub(super) fn signatures(signers: &[Signer], message: Hash32) -> Vec<u8> {
    let message = Message::from_digest(message.0);
    let entries = signers.iter().flat_map(|signer| {
        let signature = SECP.sign_schnorr_no_aux_rand(&message, &signer.keypair);
        [signer.index].into_iter().chain(signature.serialize())
    });
    entries.collect()
}

fn terms(head: &L2Head) -> BatchTerms {
    BatchTerms { first_number: head.header.number + 1, parent: head.hash, last_origin: head.header.origin }
}
