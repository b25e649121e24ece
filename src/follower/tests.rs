//! A file whose contents cannot be read is not taken for one without them.

mod errors;

use super::*;
use crate::manifest::{ExecutorKind, ExecutorSpec, Fields, SequencerSet};
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash as _;
use bitcoin::p2p::Magic;
use bitcoin::secp256k1::{Keypair, Secp256k1, SecretKey};
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode};
use std::time::Duration;

/// Blocks in a difficulty period of mainnet.
const PERIOD: BtcHeight = 2_016;
const START: BtcHeight = 100 * PERIOD + 7;

/// Two blocks of other people's Bitcoin: the manifest's start and the one above it.
struct TwoBlocks([Header; 2]);

impl TwoBlocks {
    fn new() -> Self {
        let header = |prev_blockhash| Header {
            version: Version::ONE,
            prev_blockhash,
            merkle_root: TxMerkleNode::all_zeros(),
            time: 1,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        let start = header(BlockHash::all_zeros());
        Self([start, header(start.block_hash())])
    }

    fn start(&self) -> BlockRef {
        BlockRef { height: START, hash: self.0[0].block_hash() }
    }
}

impl BlockSource for TwoBlocks {
    fn tip(&self) -> Result<BlockRef, ChainError> {
        Ok(BlockRef { height: START + 1, hash: self.0[1].block_hash() })
    }

    fn block_hash(&self, height: BtcHeight) -> Result<Option<BlockHash>, ChainError> {
        Ok(height.checked_sub(START).and_then(|at| self.0.get(at as usize)).map(Header::block_hash))
    }

    fn header(&self, hash: &BlockHash) -> Result<Header, ChainError> {
        let found = self.0.iter().find(|header| header.block_hash() == *hash);
        found.copied().ok_or_else(|| ChainError::NotFound(hash.to_string()))
    }

    fn block(&self, hash: &BlockHash) -> Result<Vec<u8>, ChainError> {
        Err(ChainError::NotFound(hash.to_string()))
    }

    fn is_own(&self) -> bool {
        false
    }

    fn wait_for_tip(&self, _: &BlockHash, _: Duration) -> Result<BlockRef, ChainError> {
        self.tip()
    }
}

fn manifest(start: BlockRef) -> Manifest {
    let secret = SecretKey::from_slice(&[7; 32]).expect("a secret key");
    let key = Keypair::from_secret_key(&Secp256k1::new(), &secret).x_only_public_key().0;
    let fields = Fields {
        name: "damaged".into(),
        network: Magic::BITCOIN,
        start,
        sequencing_window: 6,
        max_lag: 3,
        max_forced_per_block: 2,
        sequencers: SequencerSet::new(vec![key], 1).expect("a set"),
        executor: ExecutorSpec { kind: ExecutorKind::Opaque, parameters: Vec::new() },
        predecessor: None,
    };
    Manifest::new(fields).expect("a manifest")
}

#[test]
fn a_hash_that_cannot_be_read_does_not_weaken_the_check_of_the_difficulty() {
    let dir = tempfile::tempdir().expect("a folder");
    let source = TwoBlocks::new();
    let manifest = manifest(source.start());
    let folder = DataDir::new(dir.path(), manifest.clone());
    assert!(matches!(folder.view(), Err(FollowerError::NotBegun)), "no file");

    let mut store = Store::open(&folder.database()).expect("made");
    assert!(matches!(folder.view(), Err(FollowerError::NotBegun)), "an empty file");
    let derivation = Derivation::genesis(&manifest, &[1]);
    let genesis = DerivedBlock { head: derivation.head(), derived_at: START, state_root: Hash32([0; 32]) };
    let writer = store.writer().expect("nobody else writes");
    writer.put_genesis(&manifest.rollup_id(), &derivation.snapshot()).expect("written");
    writer.put_block(&genesis, None).expect("written");
    writer.commit().expect("on disk");
    let mut follower = Follower::open(&folder, &source).expect("it has a genesis");
    let mut advance = || follower.advance(&(&source).into(), 1, |_, _| ControlFlow::Continue(())).err();
    assert!(matches!(advance(), Some(FollowerError::Scan(ScanError::BadHeaders(_)))), "no hash: bounded, then work");

    // The disk lost most of the hash of the block that the difficulty's period begins with.
    let other = rusqlite::Connection::open(folder.database()).expect("opened");
    let damaged = "INSERT INTO bitcoin_block VALUES (?, x'00', 0, x'00', NULL)";
    other.execute(damaged, [START - START % PERIOD]).expect("damaged");
    let refused = advance();
    assert!(matches!(refused, Some(FollowerError::Store(_))), "{refused:?}");
}

#[test]
fn who_writes_holds_the_lock_and_who_reads_needs_none() {
    let dir = tempfile::tempdir().expect("a folder");
    let source = TwoBlocks::new();
    let folder = DataDir::new(dir.path(), manifest(source.start()));
    let lock = folder.lock().expect("a folder").expect("nobody else");
    assert!(folder.lock().expect("a folder").is_none());
    assert!(matches!(Follower::open(&folder, &source), Err(FollowerError::Locked(_))));
    let child = folder.clone().child("sequencer");
    assert!(child.lock().expect("a folder").is_some(), "its lock is its own");
    drop(lock);
    assert!(folder.lock().expect("a folder").is_some());
}
