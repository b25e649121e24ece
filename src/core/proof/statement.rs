//! What sequencers sign beside batches: receipts, headers, state roots (specification, section 7).

use crate::l2::L2Header;
use crate::manifest::{BadSignatures, SequencerSet};
use crate::merkle::TreeHead;
use crate::primitives::{BlockRef, Hash32, L2Number, RollupId, tagged_hash};
use alloc::vec::Vec;
use bitcoin::XOnlyPublicKey;
use bitcoin::secp256k1::{Keypair, Message, Secp256k1, Verification, schnorr};
use core::ops::Deref;
use serde::{Deserialize, Serialize};

/// One sequencer's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedBy {
    /// Index of the signer's key in the set.
    pub index: u8,
    /// BIP340 signature.
    pub signature: schnorr::Signature,
}

/// A promise: "executed in an L2 block numbered first to last, as own transaction or as forced item".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// SHA-256 of the L2 transaction.
    pub tx_hash: Hash32,
    /// First block that may hold it.
    pub first_number: L2Number,
    /// Last block that may hold it.
    pub last_number: L2Number,
}

/// An L2 block that a sequencer vouches for, derived or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SoftHeader(#[serde(with = "HeaderFields")] pub L2Header);

/// The state after a block, as a sequencer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftState {
    /// The L2 block's hash.
    pub block: Hash32,
    /// Commitment to the state after it.
    pub state_root: Hash32,
}

/// Something that sequencers sign.
pub trait Statement {
    /// What is signed, by a set that `handovers` handovers put in force.
    fn message(&self, rollup_id: &RollupId, handovers: u32) -> Hash32;
}

/// A statement and who signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed<T> {
    /// What is stated.
    pub statement: T,
    /// Handovers in force when it was signed.
    pub handovers: u32,
    /// By ascending index.
    pub signatures: Vec<SignedBy>,
}

/// Both statements about one L2 block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBlock {
    /// The header.
    pub header: Signed<SoftHeader>,
    /// The state after it.
    pub state: Signed<SoftState>,
}

/// What is signed under a receipt.
pub fn receipt_message(rollup_id: &RollupId, handovers: u32, receipt: &Receipt) -> Hash32 {
    let parts: [&[u8]; 5] = [
        rollup_id.as_ref(),
        &handovers.to_le_bytes(),
        receipt.tx_hash.as_ref(),
        &receipt.first_number.to_le_bytes(),
        &receipt.last_number.to_le_bytes(),
    ];
    tagged_hash("sortie/receipt", &parts)
}

/// What is signed under a header; the block's hash binds the rollup.
pub fn header_message(handovers: u32, block: &Hash32) -> Hash32 {
    tagged_hash("sortie/header", &[&handovers.to_le_bytes(), block.as_ref()])
}

/// What is signed under a state root.
pub fn state_message(handovers: u32, block: &Hash32, state_root: &Hash32) -> Hash32 {
    tagged_hash("sortie/state", &[&handovers.to_le_bytes(), block.as_ref(), state_root.as_ref()])
}

impl Statement for Receipt {
    fn message(&self, rollup_id: &RollupId, handovers: u32) -> Hash32 {
        receipt_message(rollup_id, handovers, self)
    }
}

impl Statement for SoftHeader {
    fn message(&self, rollup_id: &RollupId, handovers: u32) -> Hash32 {
        header_message(handovers, &self.hash(rollup_id))
    }
}

impl Statement for SoftState {
    fn message(&self, _: &RollupId, handovers: u32) -> Hash32 {
        state_message(handovers, &self.block, &self.state_root)
    }
}

impl SoftHeader {
    /// The queue that the block has adopted.
    pub fn queue(&self) -> TreeHead {
        TreeHead { size: self.queue_size, root: self.queue_root }
    }
}

impl Deref for SoftHeader {
    type Target = L2Header;
    fn deref(&self) -> &L2Header {
        &self.0
    }
}

impl SignedBy {
    /// Signs `message` with the key that stands at `index` in the set; the same message, the same bytes.
    pub fn sign(index: u8, keypair: &Keypair, message: Hash32) -> Self {
        let message = Message::from_digest(message.0);
        Self { index, signature: Secp256k1::signing_only().sign_schnorr_no_aux_rand(&message, keypair) }
    }

    /// The signer's key.
    ///
    /// # Errors
    /// [`BadSignatures::Signer`], if the set has no such index; [`BadSignatures::Signature`].
    pub fn verify(&self, set: &SequencerSet, message: Hash32) -> Result<XOnlyPublicKey, BadSignatures> {
        self.verify_with(&Secp256k1::verification_only(), set, message)
    }

    fn verify_with<C: Verification>(
        &self,
        secp: &Secp256k1<C>,
        set: &SequencerSet,
        message: Hash32,
    ) -> Result<XOnlyPublicKey, BadSignatures> {
        let key = set.keys().get(usize::from(self.index)).ok_or(BadSignatures::Signer)?;
        secp.verify_schnorr(&self.signature, &Message::from_digest(message.0), key)
            .map_err(|_| BadSignatures::Signature)?;
        Ok(*key)
    }
}

impl<T: Statement> Signed<T> {
    /// A statement signed by one sequencer.
    pub fn by(statement: T, rollup_id: &RollupId, handovers: u32, index: u8, keypair: &Keypair) -> Self {
        let message = statement.message(rollup_id, handovers);
        Self { statement, handovers, signatures: [SignedBy::sign(index, keypair, message)].into() }
    }

    /// The signers' keys: one or more, by strictly ascending index, all signatures valid.
    ///
    /// `set` is the one that [`handovers`](Self::handovers) handovers put in force.
    ///
    /// # Errors
    /// [`BadSignatures::Count`], if there is none; [`BadSignatures::Signer`], if the indexes do not ascend or
    /// the set has no such; [`BadSignatures::Signature`].
    pub fn signers(&self, rollup_id: &RollupId, set: &SequencerSet) -> Result<Vec<XOnlyPublicKey>, BadSignatures> {
        if self.signatures.is_empty() {
            return Err(BadSignatures::Count);
        }
        // So that there are no more than the set has keys.
        if !self.signatures.is_sorted_by(|a, b| a.index < b.index) {
            return Err(BadSignatures::Signer);
        }
        let secp = Secp256k1::verification_only();
        let message = self.statement.message(rollup_id, self.handovers);
        self.signatures.iter().map(|signed| signed.verify_with(&secp, set, message)).collect()
    }
}

/// [`L2Header`] in files, where a field too many is refused.
#[derive(Serialize, Deserialize)]
#[serde(remote = "L2Header", deny_unknown_fields)]
struct HeaderFields {
    number: L2Number,
    parent: Hash32,
    #[serde(with = "BlockRefFields")]
    origin: BlockRef,
    timestamp: u64,
    forced_end: u64,
    queue_size: u64,
    queue_root: Hash32,
    txs_root: Hash32,
}

/// [`BlockRef`] in files.
#[derive(Serialize, Deserialize)]
#[serde(remote = "BlockRef", deny_unknown_fields)]
struct BlockRefFields {
    height: u32,
    hash: bitcoin::BlockHash,
}
