//! What a rig's best chain adds up to, counted from its steps and not from the derivation's own numbers.

use super::*;
use crate::envelope::scan_block;
use crate::executor::ledger::Transfer;
use crate::manifest::tests::signers::{SECP, keypair, public_key};
use crate::manifest::{ExecutorKind, ExecutorSpec, LedgerParameters};
use alloc::string::String;
use vectors::Node;

pub(super) const ALICE: u8 = 1;
pub(super) const BOB: u8 = 2;
pub(super) const FEES: u8 = 3;

/// The steps of the best chain, as one derives them who sees nothing else.
pub(super) fn history(rig: &Rig) -> Vec<Step> {
    let mut derivation = Derivation::genesis(&rig.manifest, &rig.times);
    let namespace = rig.manifest.rollup_id().namespace();
    let apply = |raw: Vec<u8>| {
        let scanned = scan_block(&raw, Some(namespace)).unwrap();
        derivation.apply(&scanned.header, &scanned.found).unwrap()
    };
    rig.best_chain().into_iter().map(apply).collect()
}

/// How many Bitcoin blocks each executed item waited, by index: each once, in order, none longer than the
/// window; and no item that is left has waited as long as that.
pub(super) fn waits(rig: &Rig) -> Vec<BtcHeight> {
    let steps = history(rig);
    let window = BtcHeight::from(rig.manifest.sequencing_window);
    let heights: Vec<_> = steps.iter().flat_map(|step| &step.items).map(|item| item.block.height).collect();
    let mut waits = Vec::new();
    for step in &steps {
        for index in step.blocks.iter().flat_map(|block| block.forced.clone()) {
            assert_eq!(index, waits.len() as u64, "each once and in order");
            waits.push(step.origin.block.height - heights[waits.len()]);
        }
    }
    assert!(waits.iter().all(|wait| *wait <= window), "{waits:?} with a window of {window}");
    assert!(heights[waits.len()..].iter().all(|height| rig.height() - height < window), "due and not executed");
    waits
}

/// Number of the executed items that came with a batch or a forced-only block, by Bitcoin block.
pub(super) fn executed_at(rig: &Rig, index: u64) -> BtcHeight {
    let steps = history(rig);
    let holds = |step: &&Step| step.blocks.iter().any(|block| block.forced.contains(&index));
    steps.iter().find(holds).map(|step| step.origin.block.height).expect("an executed item")
}

/// A rollup of accounts: Alice has 1000, Bob 10.
pub(super) fn accounts(parameters: Parameters) -> Parameters {
    let mut accounts = vec![(public_key(ALICE), 1000), (public_key(BOB), 10)];
    accounts.sort_unstable();
    let ledger = LedgerParameters { forced_cost_per_byte: 1, fee_account: public_key(FEES), accounts };
    let executor = ExecutorSpec { kind: ExecutorKind::Ledger, parameters: ledger.encode() };
    Parameters { executor, ..parameters }
}

/// A signed transfer with a fee of 1.
pub(super) fn pay(rig: &Rig, from: u8, to: u8, amount: u64, nonce: u64) -> Vec<u8> {
    pay_with_fee(rig, (from, to), (amount, 1), nonce)
}

/// A signed transfer: from whom to whom, amount and fee.
pub(super) fn pay_with_fee(rig: &Rig, (from, to): (u8, u8), (amount, fee): (u64, u64), nonce: u64) -> Vec<u8> {
    let transfer = Transfer { from: public_key(from), to: public_key(to), amount, fee, nonce };
    transfer.sign(&SECP, &rig.manifest.rollup_id(), &keypair(from))
}

/// What every transaction of the best chain did, in the order of execution.
pub(super) fn outcomes(rig: &Rig) -> Vec<String> {
    let mut node = Node::start(rig.manifest.clone(), &rig.times);
    rig.best_chain().iter().flat_map(|raw| node.see(raw).outcomes).collect()
}
