//! A ledger rollup on a Bitcoin in memory, and the real follower with its file: what the scenarios of data
//! sources and restarts start from.

use anyhow::{Context, Result};
use bitcoin::p2p::Magic;
use bitcoin::secp256k1::{Keypair, Secp256k1, SecretKey};
use regtest::hostile::{Act, Envelope, HostileSequencer, HostileSource, Miner, PaperBitcoin};
use sortie::chain::BlockSource;
use sortie::derive::Judged;
use sortie::envelope::{Body, Carrier, Payload};
use sortie::executor::State;
use sortie::executor::ledger::Transfer;
use sortie::follower::{ChainView, DataDir, DerivedBlock, Follower, FollowerError, QueuedItem};
use sortie::manifest::{ExecutorKind, ExecutorSpec, Fields, LedgerParameters, Manifest, SequencerSet};
use sortie::primitives::{BlockRef, BtcHeight};
use std::path::PathBuf;
use tempfile::TempDir;

pub const START: BtcHeight = 20;
pub const WINDOW: u16 = 6;
pub const BALANCE: u64 = 1_000;

pub fn keypair(seed: u8) -> Keypair {
    let secret = SecretKey::from_slice(&[seed; 32]).expect("a small number is a secret key");
    Keypair::from_secret_key(&Secp256k1::new(), &secret)
}

pub fn account(seed: u8) -> [u8; 32] {
    keypair(seed).x_only_public_key().0.serialize()
}

pub const ALICE: u8 = 0xa1;
pub const BOB: u8 = 0xb0;
const SEQUENCERS: [u8; 3] = [0x51, 0x52, 0x53];

/// Two of three sequencers.
pub fn sequencers() -> Vec<Keypair> {
    SEQUENCERS.map(keypair).to_vec()
}

/// A rollup that starts at this Bitcoin block.
pub fn manifest(start: BlockRef) -> Result<Manifest> {
    let mut accounts = vec![(account(ALICE), BALANCE), (account(BOB), BALANCE)];
    accounts.sort_unstable();
    let parameters = LedgerParameters { forced_cost_per_byte: 1, fee_account: [0xfe; 32], accounts };
    let mut keys: Vec<_> = sequencers().iter().map(|keypair| keypair.x_only_public_key().0).collect();
    keys.sort_unstable_by_key(|key| key.serialize());
    Ok(Manifest::new(Fields {
        name: "paper".into(),
        network: Magic::REGTEST,
        start,
        sequencing_window: WINDOW,
        max_lag: 3,
        max_forced_per_block: 2,
        sequencers: SequencerSet::new(keys, 2)?,
        executor: ExecutorSpec { kind: ExecutorKind::Ledger, parameters: parameters.encode() },
        predecessor: None,
    })?)
}

/// A Bitcoin, a rollup on it, and a folder for followers.
pub struct Paper {
    pub bitcoin: PaperBitcoin,
    pub manifest: Manifest,
    pub hostile: HostileSequencer,
    dir: TempDir,
}

/// Everything that a follower's file holds and shows.
#[derive(PartialEq, Eq)]
pub struct Everything {
    pub tip: BlockRef,
    pub items: Vec<QueuedItem>,
    pub blocks: Vec<DerivedBlock>,
    pub judged: Vec<Vec<Judged>>,
    own_txs: Vec<String>,
    state: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Short enough to be read where two of them differ.
impl std::fmt::Debug for Everything {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tip, items, blocks, judged, own_txs, state } = self;
        let fates: Vec<_> = items.iter().map(|queued| queued.fate).collect();
        let verdicts: Vec<_> = judged.iter().flatten().map(|judged| judged.verdict.to_string()).collect();
        let head = blocks.last().map(|block| (block.head.header.number, block.head.hash, block.derived_at));
        let rest = sortie::primitives::sha256(format!("{items:?}{blocks:?}{judged:?}{own_txs:?}{state:?}").as_bytes());
        write!(f, "at {tip}: head {head:?}, fates {fates:?}, verdicts {verdicts:?}, hash of all {rest}")
    }
}

impl Paper {
    pub fn new() -> Result<Self> {
        let bitcoin = PaperBitcoin::new(START);
        let manifest = manifest(bitcoin.tip()?)?;
        let hostile = HostileSequencer::new(manifest.clone(), sequencers(), &bitcoin)?;
        Ok(Self { bitcoin, manifest, hostile, dir: tempfile::tempdir()? })
    }

    /// The same with a life behind it: batches accepted and dropped, items of all kinds, a silence.
    pub fn lived() -> Result<Self> {
        let mut paper = Self::new()?;
        paper.mine(&[paper.force(&paper.transfer(ALICE, BOB, 10, 0)), paper.force(b"garbage")])?;
        for act in [Act::Behave, Act::Equivocate, Act::Deny, Act::Forge, Act::Stale, Act::Behave] {
            paper.perform(act)?;
        }
        paper.mine(&[paper.force(&paper.transfer(BOB, ALICE, 3, 0))])?;
        Ok(paper)
    }

    pub fn perform(&mut self, act: Act) -> Result<()> {
        self.hostile.perform(act, &self.bitcoin, &self.bitcoin).map(drop)
    }

    /// This Bitcoin, to be given faults.
    pub fn hostile_source<'a>(&self) -> HostileSource<'a, PaperBitcoin> {
        HostileSource::new(self.bitcoin.clone())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Opens (or opens again) a follower's file.
    pub fn open(&self, name: &str, source: &impl BlockSource) -> Result<Follower, FollowerError> {
        Follower::open(&DataDir::new(self.path(name), self.manifest.clone()), source)
    }

    /// What one derives who sees this Bitcoin only, and without faults.
    pub fn clean(&self, name: &str) -> Result<Everything> {
        let mut node = self.open(name, &self.bitcoin)?;
        node.sync(&self.bitcoin, |_| ())?;
        everything(&node)
    }

    /// A transfer with a fee of 1 satoshi.
    pub fn transfer(&self, from: u8, to: u8, amount: u64, nonce: u64) -> Vec<u8> {
        let transfer = Transfer { from: account(from), to: account(to), amount, fee: 1, nonce };
        transfer.sign(&Secp256k1::new(), &self.manifest.rollup_id(), &keypair(from))
    }

    pub fn force(&self, tx: &[u8]) -> Envelope {
        self.force_by(Carrier::OpReturn, tx)
    }

    pub fn force_by(&self, carrier: Carrier, tx: &[u8]) -> Envelope {
        let payload = Payload { namespace: self.manifest.rollup_id().namespace(), body: Body::Tx(tx.to_vec()) };
        Envelope { carrier, payload: payload.encode().expect("neither empty nor too long") }
    }

    /// Mines a block with these envelopes.
    pub fn mine(&mut self, envelopes: &[Envelope]) -> Result<BlockRef> {
        let at = self.bitcoin.mine_envelopes(envelopes)?;
        self.hostile.follow(&self.bitcoin)?;
        Ok(at)
    }
}

/// Everything that a follower has.
pub fn everything(node: &Follower) -> Result<Everything> {
    everything_in(node.view(), node.state())
}

/// The same of a chain and the state after it.
pub fn everything_in(view: &ChainView, state: &State) -> Result<Everything> {
    let tip = view.derivation().tip().block;
    let store = view.store();
    let blocks = store.blocks_from(0)?;
    let (mut judged, mut own_txs) = (Vec::new(), Vec::new());
    for height in view.manifest().start.height..=tip.height {
        let (hash, size, root) = store.bitcoin_block(height)?.context("every Bitcoin block")?;
        own_txs.push(format!("{hash} {size} {root}"));
        judged.push(store.judged(height)?);
    }
    for block in &blocks {
        own_txs.push(format!("{:?}", store.own_txs(block.head.header.number)?));
    }
    own_txs.push(format!("{:?}", store.sequencers()?));
    let items = store.items(0..view.derivation().tip().queue_size)?;
    let state = state.entries().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    Ok(Everything { tip, items, blocks, judged, own_txs, state })
}

/// The error of something that must fail.
pub fn refusal<T>(result: Result<T, FollowerError>) -> Result<FollowerError> {
    result.err().context("it did not fail")
}
