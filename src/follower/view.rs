//! The derived chain without the executor's state: what a command or a server that only reads needs.

use super::{Damage, DerivedBlock, FollowerError, Heads, Store, derivation_of};
use crate::derive::Derivation;
use crate::executor::State;
use crate::manifest::Manifest;
use crate::primitives::BtcHeight;
use std::path::Path;

/// Queue, L2 chain and verdicts of a rollup: at the follower's last step, or frozen at the moment of opening.
pub struct ChainView {
    pub(super) manifest: Manifest,
    pub(super) store: Store,
    pub(super) derivation: Derivation,
}

impl ChainView {
    /// Opens a follower's file without a Bitcoin source, and reads it from now on as it is at this moment.
    ///
    /// # Errors
    /// [`FollowerError::NotBegun`], if nothing was written to it yet.
    pub(super) fn open(path: &Path, manifest: Manifest) -> Result<Self, FollowerError> {
        let store = Store::open(path)?;
        store.hold()?;
        let derivation = derivation_of(&store, &manifest)?;
        Ok(Self { manifest, store, derivation })
    }

    /// The rollup's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The stored queue, chain and verdicts.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The derivation after the last Bitcoin block.
    pub fn derivation(&self) -> &Derivation {
        &self.derivation
    }

    /// Reads the whole state after the derived head into memory.
    ///
    /// # Errors
    /// [`FollowerError`], if the store cannot be read.
    pub fn load_state(&self) -> Result<State, FollowerError> {
        self.store.load_state()
    }

    /// The heads, with `finality_depth` in Bitcoin blocks.
    ///
    /// # Errors
    /// [`FollowerError`], if the store cannot be read.
    pub fn heads(&self, finality_depth: u32) -> Result<Heads, FollowerError> {
        Ok(Heads {
            bitcoin: self.derivation.tip().block,
            safe: self.head_at_depth(1)?,
            finalized: self.head_at_depth(finality_depth)?,
        })
    }

    /// The derived head that is this many Bitcoin blocks deep; the tip's own is 1 deep.
    pub(super) fn head_at_depth(&self, depth: u32) -> Result<DerivedBlock, FollowerError> {
        let height = (self.derivation.tip().block.height + 1).saturating_sub(depth).max(self.manifest.start.height);
        self.store.head_at(height)?.ok_or(FollowerError::Corrupt(Damage::NoHead))
    }

    /// The last Bitcoin block in the store, which another process may be writing.
    ///
    /// # Errors
    /// [`FollowerError`], if the store cannot be read.
    pub fn tip_height(&self) -> Result<BtcHeight, FollowerError> {
        let mut height = self.derivation.tip().block.height;
        while height > 0 && self.store.bitcoin_block(height)?.is_none() {
            height -= 1;
        }
        while self.store.bitcoin_block(height + 1)?.is_some() {
            height += 1;
        }
        Ok(height)
    }

    /// The Bitcoin height at which an item of the block at `height` is executed at the latest.
    pub fn due_height(&self, height: BtcHeight) -> u64 {
        u64::from(height) + u64::from(self.manifest.sequencing_window)
    }
}
