//! An ordered key-value state that remembers what it overwrote.
//!
//! Guarantees that reverting what [`State::take_undo`] gave restores every entry, in any number of steps
//! taken back in reverse order.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

type Key = Vec<u8>;
type Value = Vec<u8>;

/// An executor's world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    entries: BTreeMap<Key, Value>,
    /// Values from before, since the last [`take_undo`](Self::take_undo), oldest first.
    overwritten: Vec<(Key, Option<Value>)>,
}

/// The entries that a block wrote, as they were before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateUndo(Vec<(Key, Option<Value>)>);

impl StateUndo {
    /// The keys that were written, each once, ascending.
    pub fn keys(&self) -> BTreeSet<&[u8]> {
        self.0.iter().map(|(key, _)| key.as_slice()).collect()
    }
}

/// A point to roll back to.
#[derive(Clone, Copy, Debug)]
pub struct Savepoint(usize);

impl FromIterator<(Key, Value)> for State {
    fn from_iter<I: IntoIterator<Item = (Key, Value)>>(entries: I) -> Self {
        Self { entries: entries.into_iter().collect(), overwritten: Vec::new() }
    }
}

impl State {
    /// The value at a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.entries.get(key).map(Vec::as_slice)
    }

    /// Every entry, by ascending key.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// Writes a value, or removes the entry.
    pub fn set(&mut self, key: &[u8], value: Option<Value>) {
        let before = self.put(key.to_vec(), value);
        self.overwritten.push((key.to_vec(), before));
    }

    fn put(&mut self, key: Key, value: Option<Value>) -> Option<Value> {
        match value {
            Some(value) => self.entries.insert(key, value),
            None => self.entries.remove(&key),
        }
    }

    /// Marks where a transaction begins.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint(self.overwritten.len())
    }

    /// Takes back everything since the savepoint.
    pub fn roll_back(&mut self, savepoint: Savepoint) {
        let undo = self.overwritten.split_off(savepoint.0.min(self.overwritten.len()));
        self.revert(StateUndo(undo));
    }

    /// What was overwritten since the last call: the undo of a block.
    pub fn take_undo(&mut self) -> StateUndo {
        StateUndo(core::mem::take(&mut self.overwritten))
    }

    /// Takes back a block.
    pub fn revert(&mut self, undo: StateUndo) {
        for (key, before) in undo.0.into_iter().rev() {
            self.put(key, before);
        }
    }
}
