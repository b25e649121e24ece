//! The follower's file: what it keeps through restarts, what a reorganisation takes out of it, and how far
//! back it can be asked. On a Bitcoin in memory.

use crate::support::hostile_paper::{ALICE, BOB, Paper, START, WINDOW, everything, everything_in, refusal};
use anyhow::{Context, Result, ensure};
use regtest::hostile::{Act, Envelope};
use sortie::chain::BlockSource;
use sortie::derive::Verdict;
use sortie::envelope::{Body, Carrier};
use sortie::executor::{NoOpReason, Outcome};
use sortie::follower::{FollowerError, MIN_UNDO_BLOCKS};
use sortie::manifest::SequencerSet;
use sortie::primitives::sha256;

// Scenario 48, follower_restart_keeps_verdict; 21, checkpoint_persist; 23, rehydrate_inflight_items.
#[test]
fn restarted_after_every_block_a_follower_keeps_every_verdict_and_every_item_in_flight() -> Result<()> {
    let paper = Paper::lived()?;
    let expected = paper.clean("clean")?;
    let mut seen = 0;
    loop {
        let mut node = paper.open("node", &paper.bitcoin)?;
        let stepped = node.step(&paper.bitcoin)?.is_some();
        let before = everything(&node)?;
        drop(node);
        // Read again from the file, once with a source and once without any.
        assert_eq!(everything(&paper.open("node", &paper.bitcoin)?)?, before);
        let offline = sortie::follower::DataDir::new(paper.path("node"), paper.manifest.clone()).view()?;
        assert_eq!(everything_in(&offline, &offline.load_state()?)?, before);
        if !stepped {
            assert_eq!(before, expected);
            break;
        }
        seen += before.judged.last().map_or(0, Vec::len);
    }
    ensure!(seen >= 8, "only {seen} verdicts");
    Ok(())
}

// Scenario 36, verdict_not_final_until_sealed and stale_selection_cleared.
#[test]
fn a_reorganisation_takes_fates_and_verdicts_back_and_gives_new_ones() -> Result<()> {
    let mut paper = Paper::new()?;
    let mut node = paper.open("node", &paper.bitcoin)?;
    // Bob cannot pay, unless he is paid first.
    let item = paper.force(&paper.transfer(BOB, ALICE, 1_500, 0));
    let at = paper.mine(std::slice::from_ref(&item))?;
    paper.perform(Act::Behave)?;
    node.sync(&paper.bitcoin, |_| ())?;
    let fate = node.store().items(0..1)?[0].fate.context("executed")?;
    assert_eq!(fate.outcome, Outcome::NoOp(NoOpReason::InsufficientBalance));
    assert_eq!(node.store().judged(at.height + 1)?.len(), 1);

    // The same item, with Alice's payment in front of it.
    paper.bitcoin.reorg(2, Vec::new());
    paper.mine(&[paper.force(&paper.transfer(ALICE, BOB, 600, 0)), item])?;
    paper.bitcoin.mine_empty(2);
    node.sync(&paper.bitcoin, |_| ())?;
    let items = node.store().items(0..2)?;
    assert!(items.iter().all(|queued| queued.fate.is_none()), "nothing is left of what it was: {items:?}");
    assert_eq!(node.store().judged(at.height + 1)?, []);
    assert_eq!(node.store().blocks_from(1)?, []);
    paper.bitcoin.mine_empty(WINDOW.into());
    node.sync(&paper.bitcoin, |_| ())?;
    let fates = node.store().items(0..2)?.into_iter().filter_map(|queued| queued.fate);
    assert_eq!(fates.map(|fate| fate.outcome).collect::<Vec<_>>(), [Outcome::Ok; 2]);
    assert_eq!(everything(&node)?, paper.clean("clean")?);
    Ok(())
}

// Scenario 31, delayed_item_removed_then_readded, with the state that it changes; 30, restart_engine.
#[test]
fn an_item_that_comes_back_after_a_restart_in_the_middle_of_a_reorganisation_is_executed_once() -> Result<()> {
    let mut paper = Paper::new()?;
    let item = paper.force_by(Carrier::Taproot, &paper.transfer(ALICE, BOB, 10, 0));
    paper.mine(std::slice::from_ref(&item))?;
    paper.perform(Act::Behave)?;
    paper.bitcoin.mine_empty(2);
    let mut node = paper.open("node", &paper.bitcoin)?;
    node.sync(&paper.bitcoin, |_| ())?;
    let executed = everything(&node)?;
    paper.bitcoin.reorg(4, vec![Vec::new(); 3]);
    paper.mine(&[item])?;
    paper.bitcoin.mine_empty(WINDOW.into());
    // One step at a time, with a restart between any two: also while blocks are taken back.
    let mut reverted = 0;
    while let Some(event) = node.step(&paper.bitcoin)? {
        reverted += usize::from(matches!(event, sortie::follower::ChainEvent::Reverted(_)));
        drop(node);
        node = paper.open("node", &paper.bitcoin)?;
    }
    assert_eq!(reverted, 4);
    let now = everything(&node)?;
    assert_eq!(now, paper.clean("clean")?);
    assert_eq!(now.items.len(), 1);
    assert_ne!(now.items[0].item.block, executed.items[0].item.block);
    assert_eq!(now.items[0].fate.context("executed")?.outcome, Outcome::Ok);
    Ok(())
}

// Scenarios 51, finds_eligible, ignores_non_eligible, finds_item_older_than_search_range; 49,
// pruning_does_not_forget; 29, deep_reorg_past_origin, at the depth where it has to be done anew.
#[test]
fn an_item_is_found_however_old_it_is_and_a_reorganisation_beyond_memory_says_what_to_do() -> Result<()> {
    let mut paper = Paper::new()?;
    let tx = paper.transfer(ALICE, BOB, 10, 0);
    paper.mine(&[paper.force(&tx), paper.force(b"another")])?;
    let list = paper.hostile.payload(Body::Txs(vec![vec![7; 64], tx.clone()]));
    paper.mine(&[regtest::hostile::Envelope { carrier: Carrier::Taproot, payload: list }])?;
    let old = paper.bitcoin.tip()?;
    paper.bitcoin.mine_empty(MIN_UNDO_BLOCKS + 1);
    let mut node = paper.open("node", &paper.bitcoin)?;
    node.sync(&paper.bitcoin, |_| ())?;

    let store = node.store();
    let by_hash = store.items_with_hash(&sha256(&tx))?;
    assert_eq!(by_hash.iter().map(|queued| queued.index).collect::<Vec<_>>(), [0, 3], "twice the same bytes");
    for queued in &by_hash {
        assert_eq!(store.item_at(&queued.item.place)?.as_ref(), Some(queued));
        assert!(store.items_of_transaction(&queued.item.place.txid)?.contains(queued));
        assert_eq!(queued.item.tx, tx);
        assert!(queued.fate.is_some());
    }
    assert_eq!(store.items_with_hash(&sha256(b"never forced"))?, []);
    let nowhere = sortie::queue::Place { position: 9, ..by_hash[0].item.place };
    assert_eq!(store.item_at(&nowhere)?, None);
    // A finalised block is not looked for again, and what it derived is there.
    assert!(node.heads(6)?.finalized.head.header.number > 0);

    let before = node.derivation().tip().block;
    paper.bitcoin.reorg(MIN_UNDO_BLOCKS + 2, vec![Vec::new(); 200]);
    let error = refusal(node.sync(&paper.bitcoin, |_| ()))?;
    assert!(matches!(error, FollowerError::ReorgTooDeep { height, .. } if height == old.height + 1), "{error}");
    assert!(!error.is_temporary() && error.needs_rebuild(), "{error}");
    assert!(node.derivation().tip().block.height < before.height);
    assert_eq!(node.store().items_with_hash(&sha256(&tx))?.len(), 2, "what is below is still there");
    Ok(())
}

// Scenario 25, sequencer_upgrade_old_client: an old program on a new file.
#[test]
fn a_file_of_a_later_version_is_refused_by_name_and_left_alone() -> Result<()> {
    let paper = Paper::lived()?;
    paper.clean("node")?;
    let path = paper.path("node").join("node.sqlite");
    let mut bytes = std::fs::read(&path)?;
    // SQLite keeps `user_version` here, big-endian.
    bytes[60..64].copy_from_slice(&99u32.to_be_bytes());
    std::fs::write(&path, &bytes)?;
    let error = refusal(paper.open("node", &paper.bitcoin))?;
    assert!(matches!(error, FollowerError::Schema(99)) && !error.is_temporary(), "{error}");
    assert!(std::fs::read(&path)? == bytes, "the file was written to");
    let store = sortie::sequencer::SequencerStore::open(&path);
    assert!(matches!(store, Err(sortie::sequencer::SequencerError::Schema(99))));
    Ok(())
}

#[test]
fn every_set_that_ruled_is_known_and_none_of_a_branch_that_was_left() -> Result<()> {
    let mut paper = Paper::new()?;
    let mut node = paper.open("node", &paper.bitcoin)?;
    let genesis = (0, paper.manifest.sequencers.clone());
    assert_eq!(node.store().sequencers()?, std::slice::from_ref(&genesis));
    let next = SequencerSet::new(paper.manifest.sequencers.keys()[..1].to_vec(), 1)?;
    let handover = Envelope { carrier: Carrier::OpReturn, payload: paper.hostile.handover(&next) };
    let at = paper.mine(&[handover])?;
    paper.bitcoin.mine_empty(3);
    node.sync(&paper.bitcoin, |_| ())?;
    assert_eq!(node.store().judged(at.height)?[0].verdict, Verdict::Accept);
    assert_eq!(node.store().sequencers()?, [genesis.clone(), (1, next)]);

    paper.bitcoin.reorg(4, vec![Vec::new(); 5]);
    node.sync(&paper.bitcoin, |_| ())?;
    assert_eq!(node.store().sequencers()?, [genesis]);
    Ok(())
}

// Scenario 47, before_start_height.
#[test]
fn what_stands_in_the_start_block_or_below_it_is_no_item() -> Result<()> {
    let paper = Paper::new()?;
    // Envelopes for the rollup cannot come before its start is known; those of this namespace can.
    let below = paper.force(b"below");
    let mut later = Paper::new()?;
    later.mine(std::slice::from_ref(&below))?;
    let start = later.mine(std::slice::from_ref(&below))?;
    later.mine(&[below])?;
    let fields = sortie::manifest::Fields { start, ..(*paper.manifest).clone() };
    let manifest = sortie::manifest::Manifest::new(fields)?;
    let mut node = sortie::follower::Follower::open(
        &sortie::follower::DataDir::new(later.path("node"), manifest.clone()),
        &later.bitcoin,
    )?;
    let own = |tx: &[u8]| {
        let namespace = manifest.rollup_id().namespace();
        let payload = sortie::envelope::Payload { namespace, body: Body::Tx(tx.to_vec()) }.encode();
        payload.map(|payload| regtest::hostile::Envelope { carrier: Carrier::OpReturn, payload })
    };
    node.sync(&later.bitcoin, |_| ())?;
    assert_eq!(node.derivation().tip().queue_size, 0, "another namespace");
    later.mine(&[own(b"first")?])?;
    node.sync(&later.bitcoin, |_| ())?;
    let items = node.store().items(0..9)?;
    assert_eq!(items.iter().map(|queued| queued.item.tx.clone()).collect::<Vec<_>>(), [b"first"]);
    ensure!(items[0].item.block.height == START + 4);

    // The same file for a rollup that starts with the item's own block: it is not above the start.
    let fields = sortie::manifest::Fields { start: later.bitcoin.tip()?, ..(*manifest).clone() };
    let mut node = sortie::follower::Follower::open(
        &sortie::follower::DataDir::new(later.path("at-start"), sortie::manifest::Manifest::new(fields)?),
        &later.bitcoin,
    )?;
    node.sync(&later.bitcoin, |_| ())?;
    assert_eq!(node.derivation().tip().queue_size, 0);
    Ok(())
}
