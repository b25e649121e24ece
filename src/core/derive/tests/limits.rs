//! Scenarios 40 to 45: size, floods, padding. What an attacker pays for does not delay who paid too.

use super::*;
use crate::batch::{MAX_DATA, encode_blocks};
use crate::envelope::tests::blocks;
use crate::envelope::{Carrier, Flaw, HEADER_LEN, MAX_PAYLOAD, leaf_script, op_return_script};
use DropReason as R;
use history::{executed_at, waits};
use rig::START_HEIGHT;

const EMPTY: &[&[u8]] = &[];

// Scenario 40, oversized_item and exceeds_max_bytes.
#[test]
fn an_item_of_the_longest_length_is_included_and_a_longer_one_is_none_and_hides_none() {
    let mut rig = Rig::new(Parameters { window: 3, max_lag: 1, ..Parameters::default() });
    let longest = MAX_PAYLOAD - HEADER_LEN;
    for carrier in [Carrier::OpReturn, Carrier::Taproot] {
        let small = rig.envelope(carrier, Body::Tx(vec![1]));
        let with_tx = |tx: Vec<u8>| Envelope { carrier, payload: [&small.payload[..HEADER_LEN], &tx].concat() };
        let envelopes = [small.clone(), with_tx(vec![2; longest + 1]), with_tx(vec![3; longest]), small.clone()];
        let found = crate::envelope::scan_transaction(&blocks::carry(carrier, &envelopes[1].payload, 0), None);
        assert_eq!(found[0].payload, Err(Flaw::TooLong));
        let step = rig.mine(envelopes);
        assert_eq!(step.items.iter().map(|item| item.tx.len()).collect::<Vec<_>>(), [1, longest, 1]);
    }
    rig.mine_to(START_HEIGHT + 7);
    assert_eq!(waits(&rig).len(), 6);
}

// Scenario 40, forced+mempool over max and gas_filter_preserves_rest.
#[test]
fn what_is_forced_leaves_a_batch_as_much_room_as_it_had() {
    for items in [0u8, 1, 200] {
        let mut rig = Rig::new(Parameters::default());
        rig.mine((0..items).map(|i| rig.force(&[i; 70])).collect::<Vec<_>>());
        // One own transaction that fills the data to its limit, and one that is a byte longer.
        let own = |rig: &Rig, len| rig.draft().block(true, &[vec![0; len]]);
        let around = encode_blocks(&own(&rig, MAX_DATA / 2).blocks).len() - MAX_DATA / 2;
        let table = [(0, Verdict::Accept), (1, Verdict::Drop(R::MalformedData))];
        for (longer, verdict) in table {
            let mut batch = own(&rig, MAX_DATA - around + longer);
            batch.codec = 1;
            let step = rig.mine([rig.post(&batch)]);
            assert_eq!(verdicts(&step), [verdict], "{longer} more, behind {items} items");
            if verdict == Verdict::Accept {
                assert_eq!(shape(&step), [(START_HEIGHT + 1, 0..u64::from(items.min(100)), 1)]);
            }
            rig.disconnect(1);
        }
    }
}

// Scenario 42, item_cap_per_block and queue_carry_over.
#[test]
fn the_cap_that_fills_a_block_is_the_cap_that_empties_the_queue() {
    for (items, max_forced, blocks) in [(10u8, 1, 10), (10, 3, 4), (10, 10, 1), (11, 10, 2), (1, 100, 1)] {
        let mut rig = Rig::new(Parameters { window: 4, max_lag: 2, max_forced, ..Parameters::default() });
        rig.mine((0..items).map(|i| rig.force(&[i])).collect::<Vec<_>>());
        let drained = rig.draft().block(true, EMPTY).drain();
        assert_eq!(drained.blocks.len(), blocks, "{items} with a cap of {max_forced}");
        // With the sequencer or without it: the same blocks at the items' origin.
        let with = rig.mine([rig.post(&drained)]);
        rig.disconnect(1);
        let without = rig.mine_to(START_HEIGHT + 5);
        let at_first = |step: &Step| {
            let first = step.blocks.iter().filter(|block| block.header.origin.height == START_HEIGHT + 1);
            first.map(|block| block.forced.clone()).collect::<Vec<_>>()
        };
        assert_eq!(at_first(&with), at_first(&without), "{items} with a cap of {max_forced}");
    }
}

// Scenario 42, due_cap_not_bypassable: no batch takes more, or fewer, than the cap says.
#[test]
fn a_sequencer_can_neither_exceed_the_cap_nor_undercut_it() {
    let mut rig = Rig::new(Parameters { max_forced: 2, ..Parameters::default() });
    rig.mine((0..5u8).map(|i| rig.force(&[i])).collect::<Vec<_>>());
    // All that it can say is how many blocks it makes.
    for (blocks, expected) in [(1, vec![2]), (2, vec![2, 4]), (4, vec![2, 4, 5, 5])] {
        let draft = (1..blocks).fold(rig.draft().block(true, EMPTY), |draft, _| draft.block(false, EMPTY));
        let step = rig.mine([rig.post(&draft)]);
        assert_eq!(step.blocks.iter().map(|block| block.header.forced_end).collect::<Vec<_>>(), expected);
        rig.disconnect(1);
    }
}

// Scenario 44, padding_attack.
#[test]
fn padding_hides_a_victim_in_no_place_of_a_block_a_transaction_or_a_list() {
    type Place = fn(&Rig, &[u8], &[u8]) -> Vec<bitcoin::Transaction>;
    let places: [(&str, Place); 4] = [
        ("behind transactions", |_, padding, victim| {
            let before = (0..300).map(|salt| blocks::carry(Carrier::OpReturn, padding, salt));
            before.chain([blocks::carry(Carrier::OpReturn, victim, 900)]).collect()
        }),
        ("behind outputs", |_, padding, victim| {
            let outputs = core::iter::repeat_n(padding, 300).chain([victim]);
            let outputs = outputs.map(|payload| blocks::output(op_return_script(payload).as_bytes())).collect();
            vec![blocks::transaction(vec![blocks::input(1, [])], outputs)]
        }),
        ("behind inputs", |_, padding, victim| {
            let leaf = |payload: &[u8]| leaf_script(payload, &blocks::leaf_key());
            let inputs = core::iter::repeat_n(padding, 300).chain([victim]).enumerate();
            let inputs =
                inputs.map(|(i, payload)| blocks::input(i as u32, blocks::leaf_witness(leaf(payload).as_bytes())));
            vec![blocks::transaction(inputs.collect(), vec![blocks::output(&[0x51])])]
        }),
        ("behind a list", |rig, _, victim| {
            let list = Body::Txs(vec![vec![9; 64]; 300]);
            let list = rig.envelope(Carrier::Taproot, list).payload;
            vec![blocks::carry(Carrier::Taproot, &list, 1), blocks::carry(Carrier::OpReturn, victim, 2)]
        }),
    ];
    for max_forced in [1, 7, 1000] {
        for (name, place) in places {
            let mut rig = Rig::new(Parameters { window: 4, max_lag: 2, max_forced, ..Parameters::default() });
            let (padding, victim) = (rig.force(&[0xdd; 30]).payload, rig.force(b"victim").payload);
            // Up to date with everything below, so that only the victim's window counts.
            let txs = place(&rig, &padding, &victim);
            let step = rig.mine_whole(rig.next_time(), Vec::new(), txs);
            assert_eq!((step.items.len(), &step.items[300].tx[..]), (301, &b"victim"[..]), "{name}");
            rig.mine_to(START_HEIGHT + 6);
            assert_eq!(executed_at(&rig, 300), START_HEIGHT + 1 + 4, "{name}, {max_forced} in a block");
        }
    }
}

// Scenario 45, one_slot_per_block_grief: with room for one item in a block, an attacker takes it in each.
#[test]
fn an_attacker_who_fills_every_block_first_delays_nobody_beyond_the_window() {
    for (max_forced, flood) in [(1, 1u8), (1, 5), (3, 20)] {
        let mut rig = Rig::new(Parameters { window: 4, max_lag: 2, max_forced, ..Parameters::default() });
        for i in 0..16u8 {
            // The sequencer is the attacker's: one block for each Bitcoin block, and no more.
            let batch = (rig.height() > rig.head().origin.height).then(|| rig.post(&rig.draft().block(true, EMPTY)));
            let attack = (0..flood).map(|j| rig.force(&[i, j]));
            let envelopes: Vec<_> = batch.into_iter().chain(attack).chain([rig.force(b"victim")]).collect();
            rig.mine(envelopes);
        }
        let executed = waits(&rig).len();
        assert!(executed >= 12 * (usize::from(flood) + 1), "{executed}");
    }
}

// Scenario 45, frontrun_gas_limit_grief: no limit on an item depends on what stands before it.
#[test]
fn a_flood_in_front_changes_when_an_item_is_executed_by_nothing() {
    let at = |flood: usize, max_forced| {
        let mut rig = Rig::new(Parameters { window: 5, max_lag: 2, max_forced, ..Parameters::default() });
        let envelopes: Vec<_> = (0..flood).map(|i| rig.force(&[i as u8; 40])).chain([rig.force(b"victim")]).collect();
        rig.mine(envelopes);
        rig.mine_to(START_HEIGHT + 8);
        executed_at(&rig, flood as u64)
    };
    for max_forced in [1, 4, 1000] {
        assert_eq!(at(0, max_forced), at(500, max_forced));
    }
}
