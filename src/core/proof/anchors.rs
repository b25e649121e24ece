//! What a checker already holds: the only things that a verdict rests on.

use crate::manifest::{Manifest, SequencerSet};
use crate::primitives::{BlockRef, BtcHeight, Hash32, RollupId};
use alloc::collections::{BTreeMap, BTreeSet};
use bitcoin::BlockHash;
use bitcoin::block::Header;
use serde::Serialize;

/// A rollup's manifest, Bitcoin blocks of the checker's best chain, L2 blocks that it has derived, and the
/// sequencer sets that it knows.
///
/// The manifest's start block is a Bitcoin anchor, its set the one after 0 handovers.
#[derive(Clone, Debug)]
pub struct Anchors {
    manifest: Manifest,
    heights: BTreeMap<BlockHash, BtcHeight>,
    blocks: BTreeMap<BtcHeight, (BlockHash, Option<Header>)>,
    l2_blocks: BTreeSet<Hash32>,
    sets: BTreeMap<u32, SequencerSet>,
}

/// An anchor, by what it is called in a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "anchor", rename_all = "snake_case")]
pub enum AnchorName {
    /// The rollup's manifest.
    Manifest {
        /// Its id.
        rollup_id: RollupId,
    },
    /// A sequencer set.
    Sequencers {
        /// Handovers that put it in force.
        handovers: u32,
    },
    /// A Bitcoin block.
    Bitcoin(BlockRef),
    /// A derived L2 block.
    L2Block {
        /// Its hash.
        hash: Hash32,
    },
}

/// Two anchors that cannot both be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConflictingAnchors {
    /// Two blocks at one height, or one at two.
    #[error("Bitcoin block {0} contradicts another anchor")]
    Bitcoin(BlockRef),
    /// Two sets after one number of handovers.
    #[error("the sequencer set after {handovers} handovers contradicts another anchor")]
    Sequencers {
        /// The number of handovers.
        handovers: u32,
    },
}

impl Anchors {
    /// What the manifest gives.
    pub fn new(manifest: Manifest) -> Self {
        let start = manifest.start;
        let sets = [(0, manifest.sequencers.clone())].into();
        Self {
            manifest,
            heights: [(start.hash, start.height)].into(),
            blocks: [(start.height, (start.hash, None))].into(),
            l2_blocks: BTreeSet::new(),
            sets,
        }
    }

    /// Adds a Bitcoin block of which only the hash is known.
    ///
    /// # Errors
    /// [`ConflictingAnchors::Bitcoin`].
    pub fn add_bitcoin_block(&mut self, block: BlockRef) -> Result<(), ConflictingAnchors> {
        let agrees = self.bitcoin_height(&block.hash).is_none_or(|height| height == block.height)
            && self.bitcoin_hash(block.height).is_none_or(|hash| hash == block.hash);
        if !agrees {
            return Err(ConflictingAnchors::Bitcoin(block));
        }
        self.heights.insert(block.hash, block.height);
        self.blocks.entry(block.height).or_insert((block.hash, None));
        Ok(())
    }

    /// Adds a Bitcoin block with its header.
    ///
    /// # Errors
    /// [`ConflictingAnchors::Bitcoin`].
    pub fn add_bitcoin_header(&mut self, height: BtcHeight, header: Header) -> Result<(), ConflictingAnchors> {
        let hash = header.block_hash();
        self.add_bitcoin_block(BlockRef { height, hash })?;
        self.blocks.insert(height, (hash, Some(header)));
        Ok(())
    }

    /// Adds a derived L2 block.
    pub fn add_l2_block(&mut self, hash: Hash32) {
        self.l2_blocks.insert(hash);
    }

    /// Adds the sequencer set that a number of handovers put in force.
    ///
    /// # Errors
    /// [`ConflictingAnchors::Sequencers`].
    pub fn add_sequencers(&mut self, handovers: u32, set: SequencerSet) -> Result<(), ConflictingAnchors> {
        let known = self.sets.entry(handovers).or_insert_with(|| set.clone());
        if *known == set { Ok(()) } else { Err(ConflictingAnchors::Sequencers { handovers }) }
    }

    /// The rollup's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The sequencer set after a number of handovers.
    pub fn sequencers(&self, handovers: u32) -> Option<&SequencerSet> {
        self.sets.get(&handovers)
    }

    /// The hash at a height of the best chain.
    pub fn bitcoin_hash(&self, height: BtcHeight) -> Option<BlockHash> {
        self.blocks.get(&height).map(|(hash, _)| *hash)
    }

    /// The header at a height of the best chain.
    pub fn bitcoin_header(&self, height: BtcHeight) -> Option<&Header> {
        self.blocks.get(&height).and_then(|(_, header)| header.as_ref())
    }

    /// The height of a block of the best chain.
    pub fn bitcoin_height(&self, hash: &BlockHash) -> Option<BtcHeight> {
        self.heights.get(hash).copied()
    }

    /// Whether an L2 block is known to be derived.
    pub fn has_l2_block(&self, hash: &Hash32) -> bool {
        self.l2_blocks.contains(hash)
    }
}
