//! Sequencers with known secrets.

extern crate std;

use crate::manifest::{SIGNATURE_ENTRY_LEN, SequencerSet};
use crate::primitives::Hash32;
use alloc::vec::Vec;
use bitcoin::secp256k1::{All, Keypair, Message, Secp256k1, SecretKey};
use std::sync::LazyLock;

/// Precomputed once for all tests.
pub(crate) static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// The key pair whose secret is `n` in every byte; `n` from 1 to 254.
pub(crate) fn keypair(n: u8) -> Keypair {
    Keypair::from_secret_key(&SECP, &SecretKey::from_slice(&[n; 32]).unwrap())
}

/// The x-only public key of [`keypair`].
pub(crate) fn public_key(n: u8) -> [u8; 32] {
    keypair(n).x_only_public_key().0.serialize()
}

/// One entry of a list of signatures, without auxiliary randomness: the same message, the same bytes.
pub(crate) fn entry(index: u8, keypair: &Keypair, message: Hash32) -> [u8; SIGNATURE_ENTRY_LEN] {
    let signature = SECP.sign_schnorr_no_aux_rand(&Message::from_digest(message.0), keypair);
    let mut entry = [index; SIGNATURE_ENTRY_LEN];
    entry[1..].copy_from_slice(&signature.serialize());
    entry
}

/// A set with its secrets.
#[derive(Clone, Debug)]
pub(crate) struct Signers {
    /// By ascending public key, as the set has them.
    pub keypairs: Vec<Keypair>,
    threshold: u8,
}

impl Signers {
    /// The sequencers of these secrets.
    pub(crate) fn new(secrets: impl IntoIterator<Item = u8>, threshold: u8) -> Self {
        let mut keypairs: Vec<_> = secrets.into_iter().map(keypair).collect();
        keypairs.sort_by_key(|keypair| keypair.x_only_public_key().0.serialize());
        Self { keypairs, threshold }
    }

    /// The public side.
    pub(crate) fn set(&self) -> SequencerSet {
        let keys = self.keypairs.iter().map(|keypair| keypair.x_only_public_key().0);
        SequencerSet::new(keys.collect(), self.threshold).unwrap()
    }

    /// Entries of the first `threshold` sequencers.
    pub(crate) fn sign(&self, message: Hash32) -> Vec<[u8; SIGNATURE_ENTRY_LEN]> {
        (0..self.threshold).map(|index| self.entry(index, message)).collect()
    }

    /// The entry of one sequencer.
    pub(crate) fn entry(&self, index: u8, message: Hash32) -> [u8; SIGNATURE_ENTRY_LEN] {
        entry(index, &self.keypairs[usize::from(index)], message)
    }
}
