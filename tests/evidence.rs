//! What an honest sequencer signs never convicts it: through reorganisations back and forth, restarts,
//! expiry and floods.

use crate::support::{Operator, Window, World};
use anyhow::{Context, Result};
use sortie::api::wire::TxStatus;
use sortie::envelope::Carrier;
use sortie::primitives::{Hash32, sha256};
use sortie::proof::SignedBlock;
use sortie::proof::{Receipt, Signed, Statement};
use std::collections::{BTreeMap, BTreeSet};

const WINDOW: Window = Window { window: 12, max_lag: 6 };

/// Everything that a hostile observer has seen the sequencer sign.
#[derive(Default)]
pub struct Observer {
    pub blocks: BTreeMap<Hash32, (SignedBlock, BTreeSet<Hash32>)>,
    pub receipts: BTreeMap<Hash32, Vec<Signed<Receipt>>>,
    sent: Vec<Hash32>,
}

impl Observer {
    pub fn send(&mut self, operator: &Operator, tx: &[u8]) -> Result<()> {
        operator.send(tx)?;
        self.sent.push(sha256(tx));
        Ok(())
    }

    /// Asks for every block and transaction, as anybody can over HTTP.
    pub fn look(&mut self, world: &World, operator: &Operator) -> Result<()> {
        for number in 1..=operator.status().unsafe_head.number {
            let Some(stored) = operator.submit.block(number)? else { continue };
            let Some(signed) = stored.signed else { continue };
            let key = world.manifest.sequencers.keys()[0];
            for (message, by) in [
                (signed.header.statement.message(&world.manifest.rollup_id(), 0), signed.header.signatures[0]),
                (signed.state.statement.message(&world.manifest.rollup_id(), 0), signed.state.signatures[0]),
            ] {
                assert_eq!(by.verify(&world.manifest.sequencers, message).ok(), Some(key), "block {number}");
            }
            let held = stored.block.own_txs.iter().map(|tx| sha256(tx)).collect();
            if let Some((before, _)) = self.blocks.insert(stored.block.hash, (signed.clone(), held)) {
                assert_eq!(before.state.statement, signed.state.statement, "two states for one block");
            }
        }
        for hash in &self.sent {
            if let Some(TxStatus::Included { receipt: Some(receipt), .. }) = operator.submit.status(hash)? {
                let known = self.receipts.entry(*hash).or_default();
                if !known.contains(&receipt) {
                    known.push(*receipt);
                }
            }
        }
        Ok(())
    }

    /// Section 7: equal number and parent, different blocks, origins the same or parent and child.
    pub fn assert_no_equivocation(&self, world: &World) -> Result<()> {
        let headers: Vec<_> = self.blocks.values().map(|(signed, _)| signed.header.statement).collect();
        for (index, one) in headers.iter().enumerate() {
            for other in &headers[index + 1..] {
                if (one.number, one.parent) != (other.number, other.parent) {
                    continue;
                }
                let rpc = world.rpc()?;
                let parent_of =
                    |hash| sortie::chain::BlockSource::header(&rpc, hash).map(|header| header.prev_blockhash);
                let related = one.origin == other.origin
                    || parent_of(&one.origin.hash)? == other.origin.hash
                    || parent_of(&other.origin.hash)? == one.origin.hash;
                assert!(!related, "two headers for number {}", one.number);
            }
        }
        Ok(())
    }

    /// Section 7: a chain of signed headers over first..=last that holds the transaction nowhere.
    pub fn assert_no_broken_receipt(&self) {
        for receipt in self.receipts.values().flatten() {
            let Receipt { tx_hash, first_number, last_number } = receipt.statement;
            let ends = self.blocks.values().filter(|(signed, _)| signed.header.statement.number == last_number);
            for (end, _) in ends {
                let mut hash = Some(end.state.statement.block);
                let mut held = false;
                let mut covers = false;
                while let Some((signed, txs)) = hash.and_then(|hash| self.blocks.get(&hash)) {
                    held |= txs.contains(&tx_hash);
                    covers |= signed.header.statement.number == first_number;
                    hash = (!covers).then_some(signed.header.statement.parent);
                }
                assert!(held || !covers, "receipt {first_number}..={last_number} is broken");
            }
        }
    }
}

#[test]
fn a_receipt_comes_with_the_block_that_keeps_it() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut operator = world.sequencer(&[])?;
    let tx = world.transfer(&world.alice, &world.bob, 5, 0);
    assert_eq!(operator.send(&tx)?, TxStatus::Pending);
    operator.tick_well()?;
    let Some(TxStatus::Included { number, receipt, .. }) = operator.submit.status(&sha256(&tx))? else {
        anyhow::bail!("not included")
    };
    let receipt = receipt.context("a receipt")?;
    assert_eq!((receipt.statement.tx_hash, receipt.statement.first_number), (sha256(&tx), number));
    let message = receipt.statement.message(&world.manifest.rollup_id(), receipt.handovers);
    assert!(receipt.signatures[0].verify(&world.manifest.sequencers, message).is_ok());
    Ok(())
}

#[test]
fn an_honest_sequencer_signs_nothing_that_convicts_it() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut wallet = world.wallet("alice", 4)?;
    let mut operator = world.sequencer(&[])?;
    let mut observer = Observer::default();
    for round in 0..4u32 {
        let nonce = u64::from(round);
        // Forced and own transactions of one sender compete for a nonce: after a reorganisation the own
        // one may have become a no-op, and is owed all the same.
        let forced = world.transfer(&world.alice, &world.bob, 900 + nonce, nonce);
        observer.send(&operator, &world.transfer(&world.alice, &world.bob, nonce + 1, nonce))?;
        observer.send(&operator, &world.transfer(&world.bob, &world.alice, nonce + 1, nonce))?;
        operator.tick()?;
        observer.look(&world, &operator)?;
        world.force(&mut wallet, &[forced], Carrier::OpReturn)?;
        for _ in 0..2 {
            world.bitcoind.mine(1)?;
            operator.tick()?;
            observer.look(&world, &operator)?;
        }
        // A to B, and with restarts between; every other time back to A.
        let reorg = world.bitcoind.reorg(1 + round)?;
        for turn in 0..3 {
            operator.tick()?;
            observer.look(&world, &operator)?;
            if turn == 1 {
                drop(operator);
                operator = world.sequencer(&[])?;
            }
            world.bitcoind.mine(1)?;
        }
        if round % 2 == 1 {
            world.bitcoind.flip_back(&reorg)?;
            operator.tick()?;
            observer.look(&world, &operator)?;
        }
    }
    // The window expires while it is away, in a flood; then it goes on.
    drop(operator);
    let flood: Vec<_> = (0..30).map(|n| world.transfer(&world.bob, &world.alice, 1, 1_000 + n)).collect();
    world.force(&mut wallet, &flood, Carrier::Taproot)?;
    world.bitcoind.mine(u32::from(WINDOW.window) + 2)?;
    let mut operator = world.sequencer(&[])?;
    for _ in 0..6 {
        operator.tick()?;
        observer.look(&world, &operator)?;
        world.bitcoind.mine(1)?;
    }
    operator.tick()?;
    observer.look(&world, &operator)?;

    observer.assert_no_equivocation(&world)?;
    observer.assert_no_broken_receipt();
    assert!(observer.receipts.len() >= 6, "{} receipts were given", observer.receipts.len());
    let open: Vec<_> = observer
        .receipts
        .keys()
        .filter(|hash| !matches!(operator.submit.status(hash), Ok(Some(TxStatus::Included { .. }))))
        .collect();
    assert!(open.is_empty(), "promised, and in no block: {open:?}");
    Ok(())
}
