//! A Bitcoin source that fails, lies, or changes its mind between two calls.

use super::alter::{Alteration, alter};
use anyhow::Result;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use sortie::chain::{BlockSource, ChainError};
use sortie::primitives::{BlockRef, BtcHeight};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is wrong with a source, from now until it is [healed](HostileSource::heal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No call is answered in time.
    TimeOut,
    /// The call with this number, counted from 0, is not answered in time; those before and after it are.
    TimeOutAt(u64),
    /// Every call is refused, because the node is still loading its index.
    WarmingUp,
    /// Nothing at this height, though there is something above it.
    Gap(BtcHeight),
    /// The block at this height is named, but its bytes are not there.
    Lost(BtcHeight),
    /// The blocks up to this height were deleted.
    Pruned(BtcHeight),
    /// The chain without its last blocks: a node that is behind.
    Behind(u32),
    /// Other bytes than the block's at this height, under the same header where that is possible.
    Altered(BtcHeight, Alteration),
    /// At this height, the bytes of the block below it.
    OtherBlock(BtcHeight),
    /// At this height, the header of the block below it.
    OtherHeader(BtcHeight),
}

type Hook<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// A source around another one: honest until it is given a [`Fault`].
///
/// Calls are counted over all methods, so that a test can fail each call of a run in turn, or reorganise
/// the chain between two of them.
pub struct HostileSource<'a, S> {
    inner: S,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    faults: Vec<Fault>,
    calls: u64,
    hooks: BTreeMap<u64, Hook<'a>>,
    other: Option<Arc<dyn BlockSource + Send + Sync + 'a>>,
}

impl<'a, S: BlockSource> HostileSource<'a, S> {
    /// A source that is honest so far.
    pub fn new(inner: S) -> Self {
        let state = State { faults: Vec::new(), calls: 0, hooks: BTreeMap::new(), other: None };
        Self { inner, state: Mutex::new(state) }
    }

    /// The honest source within.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a fault to those there are.
    pub fn give(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Answers from another chain from now on.
    pub fn serve(&self, other: impl BlockSource + Send + 'a) {
        self.state().other = Some(Arc::new(other));
    }

    /// Does something just before the call with this number, counted from 0, is answered: a reorganisation
    /// under the reader's hands, a fault that comes or goes.
    pub fn before_call(&self, number: u64, hook: impl FnOnce() -> Result<()> + Send + 'a) {
        self.state().hooks.insert(number, Box::new(hook));
    }

    /// Takes every fault back and counts calls from 0 again.
    pub fn heal(&self) {
        let mut state = self.state();
        *state = State { faults: Vec::new(), calls: 0, hooks: BTreeMap::new(), other: None };
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Counts a call; fails it if it is to fail.
    fn begin(&self) -> Result<Vec<Fault>, ChainError> {
        let (hook, number) = {
            let mut state = self.state();
            let number = state.calls;
            state.calls += 1;
            (state.hooks.remove(&number), number)
        };
        // Not under the lock: what it does may ask this source.
        if let Some(hook) = hook {
            hook().map_err(|error| ChainError::Malformed { method: "a hook".into(), reason: format!("{error:#}") })?;
        }
        let faults = self.state().faults.clone();
        for fault in &faults {
            match fault {
                Fault::TimeOut => return Err(timed_out()),
                Fault::TimeOutAt(at) if *at == number => return Err(timed_out()),
                Fault::WarmingUp => {
                    return Err(ChainError::WarmingUp { url: URL.into(), message: "Loading block index".into() });
                }
                _ => {}
            }
        }
        Ok(faults)
    }

    fn asked<T>(&self, ask: impl FnOnce(&dyn BlockSource) -> Result<T, ChainError>) -> Result<T, ChainError> {
        // The lock is not held while the source answers: a long poll must not stop the other calls.
        let other = self.state().other.clone();
        match other {
            Some(other) => ask(other.as_ref()),
            None => ask(&self.inner),
        }
    }

    /// The hash at a height, whatever the faults are.
    fn true_hash(&self, height: BtcHeight) -> Result<Option<BlockHash>, ChainError> {
        self.asked(|source| source.block_hash(height))
    }

    fn true_block(&self, hash: &BlockHash) -> Result<Vec<u8>, ChainError> {
        self.asked(|source| source.block(hash))
    }

    fn is_at(&self, hash: &BlockHash, height: BtcHeight) -> Result<bool, ChainError> {
        Ok(self.true_hash(height)? == Some(*hash))
    }

    /// The hash of the block below one.
    fn below(&self, hash: &BlockHash) -> Result<BlockHash, ChainError> {
        self.asked(|source| source.header(hash)).map(|header| header.prev_blockhash)
    }

    fn shown_tip(&self, faults: &[Fault]) -> Result<BlockRef, ChainError> {
        let tip = self.asked(|source| source.tip())?;
        let behind = faults.iter().map(|fault| if let Fault::Behind(blocks) = fault { *blocks } else { 0 }).max();
        let height = tip.height.saturating_sub(behind.unwrap_or(0));
        let hash = self.true_hash(height)?.ok_or_else(|| ChainError::NotFound(format!("block {height}")))?;
        Ok(BlockRef { height, hash })
    }
}

const URL: &str = "http://hostile.invalid";

fn timed_out() -> ChainError {
    ChainError::Unreachable { url: URL.into(), reason: "timed out".into() }
}

impl<S: BlockSource> BlockSource for HostileSource<'_, S> {
    fn tip(&self) -> Result<BlockRef, ChainError> {
        let faults = self.begin()?;
        self.shown_tip(&faults)
    }

    fn block_hash(&self, height: BtcHeight) -> Result<Option<BlockHash>, ChainError> {
        let faults = self.begin()?;
        let hidden = faults.contains(&Fault::Gap(height)) || height > self.shown_tip(&faults)?.height;
        if hidden { Ok(None) } else { self.true_hash(height) }
    }

    fn header(&self, hash: &BlockHash) -> Result<Header, ChainError> {
        for fault in self.begin()? {
            match fault {
                Fault::OtherHeader(height) if self.is_at(hash, height)? => {
                    let below = self.below(hash)?;
                    return self.asked(|source| source.header(&below));
                }
                _ => {}
            }
        }
        self.asked(|source| source.header(hash))
    }

    fn block(&self, hash: &BlockHash) -> Result<Vec<u8>, ChainError> {
        for fault in self.begin()? {
            match fault {
                Fault::Lost(height) if self.is_at(hash, height)? => {
                    return Err(ChainError::NotFound(format!("block {hash}")));
                }
                Fault::Pruned(to) => {
                    for height in 0..=to {
                        if self.is_at(hash, height)? {
                            return Err(ChainError::Pruned { height, first_available: to + 1 });
                        }
                    }
                }
                Fault::Altered(height, alteration) if self.is_at(hash, height)? => {
                    return Ok(alter(self.true_block(hash)?, alteration));
                }
                Fault::OtherBlock(height) if self.is_at(hash, height)? => {
                    return self.true_block(&self.below(hash)?);
                }
                _ => {}
            }
        }
        self.true_block(hash)
    }

    fn wait_for_tip(&self, current: &BlockHash, timeout: Duration) -> Result<BlockRef, ChainError> {
        let faults = self.begin()?;
        self.asked(|source| source.wait_for_tip(current, timeout))?;
        self.shown_tip(&faults)
    }
}
