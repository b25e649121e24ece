//! The follower behind a Bitcoin source that fails, lies, or changes its mind between two calls: missing
//! data is waited for, wrong data is refused, and nothing of either is ever derived from.

use crate::support::hostile_paper::{ALICE, BOB, Paper, START, everything, refusal};
use anyhow::{Context, Result, ensure};
use regtest::hostile::{Alteration, Fault, HostileSource, Miner, PaperBitcoin};
use sortie::chain::{BlockSource, ChainError};
use sortie::envelope::Carrier;
use sortie::follower::{Follower, FollowerError};
use sortie::scanner::ScanError;

/// Follows with each call failing in turn, as often as it takes; every failure must be one that passes.
fn struggle(node: &mut Follower, source: &HostileSource<'_, PaperBitcoin>) -> Result<()> {
    for number in 0.. {
        source.heal();
        source.give(Fault::TimeOutAt(number));
        let before = node.derivation().tip().block;
        let Err(error) = node.sync(source, |_| ()) else { break };
        ensure!(error.is_temporary(), "call {number} after block {before}: {error}");
    }
    source.heal();
    Ok(())
}

// Scenario 46, l1_error_mid_epoch; 21, crash_mid_epoch_resume.
#[test]
fn a_call_that_fails_at_any_moment_is_made_again_and_leaves_no_trace() -> Result<()> {
    let paper = Paper::lived()?;
    let source = paper.hostile_source();
    // Also the calls of the very first start.
    let mut number = 0;
    let mut node = loop {
        source.heal();
        source.give(Fault::TimeOutAt(number));
        number += 1;
        match paper.open("node", &source) {
            Ok(node) => break node,
            Err(error) => ensure!(error.is_temporary(), "call {number}: {error}"),
        }
    };
    ensure!(number > 5, "only {number} calls");
    struggle(&mut node, &source)?;
    assert_eq!(everything(&node)?, paper.clean("clean")?);

    // And those of a reorganisation.
    paper.bitcoin.reorg(4, vec![Vec::new(); 6]);
    struggle(&mut node, &source)?;
    assert_eq!(everything(&node)?, paper.clean("clean-after")?);
    Ok(())
}

/// A chain whose last three blocks hold envelopes in outputs only, in witnesses only, and none.
fn three_kinds() -> Result<Paper> {
    let mut paper = Paper::lived()?;
    for carrier in [Carrier::OpReturn, Carrier::Taproot] {
        paper.mine(&[paper.force_by(carrier, b"first"), paper.force_by(carrier, b"second")])?;
    }
    let elsewhere = PaperBitcoin::new(0);
    elsewhere.mine_envelopes(&[paper.force(b"never in this chain"), paper.force(b"nor this")])?;
    let hash = elsewhere.tip()?.hash;
    let mut plain = elsewhere.whole_block(&hash)?.txdata.split_off(1);
    plain.iter_mut().for_each(|tx| tx.output[0].script_pubkey = regtest::Bitcoind::anyone_address().script_pubkey());
    paper.bitcoin.mine(plain);
    Ok(paper)
}

// Scenario 46: the hostile variant.
#[test]
fn bytes_that_are_not_the_block_are_refused_whatever_was_done_to_them() -> Result<()> {
    let paper = three_kinds()?;
    let tip = paper.bitcoin.tip()?.height;
    let source = paper.hostile_source();
    let mut taken = Vec::new();
    for (height, kind) in [(tip - 2, "envelopes in outputs"), (tip - 1, "envelopes in witnesses"), (tip, "neither")] {
        let hash = paper.bitcoin.block_hash(height)?.context("a block")?;
        let mut node = paper.open(kind, &source)?;
        let mut refused = 0;
        for alteration in Alteration::ALL {
            source.give(Fault::Altered(height, *alteration));
            // There may be nothing to alter.
            if source.block(&hash)? != paper.bitcoin.block(&hash)? {
                match node.sync(&source, |_| ()) {
                    Err(error) => {
                        assert!(error.is_temporary(), "{kind}, {alteration:?}: {error}");
                        assert_eq!(node.derivation().tip().block.height, height - 1, "{kind}, {alteration:?}");
                        refused += 1;
                    }
                    Ok(()) => {
                        taken.push(format!("{kind}, {alteration:?}"));
                        node = paper.open(&format!("{kind} without {alteration:?}"), &source)?;
                    }
                }
            }
            source.heal();
        }
        assert!(refused > 10 || !taken.is_empty(), "{kind}: only {refused} alterations");
    }
    assert!(taken.is_empty(), "taken for the block: {taken:#?}");
    Ok(())
}

// Scenario 46: the block is named, but its bytes are not there.
#[test]
fn a_block_whose_bytes_are_missing_is_waited_for_and_never_taken_for_an_empty_one() -> Result<()> {
    let paper = Paper::lived()?;
    let expected = paper.clean("clean")?;
    let source = paper.hostile_source();
    let mut node = paper.open("node", &source)?;
    for height in START + 1..=paper.bitcoin.tip()?.height {
        source.give(Fault::Lost(height));
        let error = refusal(node.sync(&source, |_| ()))?;
        assert!(matches!(error, FollowerError::Scan(ScanError::Chain(ChainError::NotFound(_)))), "{error}");
        assert_eq!(node.derivation().tip().block.height, height - 1);
        source.heal();
        source.give(Fault::OtherBlock(height));
        let error = refusal(node.sync(&source, |_| ()))?;
        assert!(matches!(error, FollowerError::Scan(ScanError::OtherBlock { .. })) && error.is_temporary(), "{error}");
        assert_eq!(node.derivation().tip().block.height, height - 1);
        source.heal();
        node.step(&source)?;
    }
    node.sync(&source, |_| ())?;
    assert_eq!(everything(&node)?, expected);
    Ok(())
}

// Scenario 49, pruning_does_not_forget: what was derived stays, what was not says why it cannot be.
#[test]
fn a_pruned_source_stops_the_follower_with_the_height_it_needs() -> Result<()> {
    let mut paper = Paper::lived()?;
    let source = paper.hostile_source();
    let mut node = paper.open("node", &source)?;
    node.sync(&source, |_| ())?;
    let before = everything(&node)?;
    paper.mine(&[paper.force(b"one more")])?;
    let at = paper.bitcoin.tip()?.height;
    source.give(Fault::Pruned(at));
    let error = refusal(node.sync(&source, |_| ()))?;
    assert!(
        matches!(&error, FollowerError::Scan(ScanError::Chain(ChainError::Pruned { height, .. })) if *height == at),
        "{error}"
    );
    assert!(!error.is_temporary(), "somebody has to mend it");
    assert_eq!(everything(&node)?, before);
    // Blocks that were derived already may be gone.
    source.heal();
    source.give(Fault::Pruned(at - 1));
    node.sync(&source, |_| ())?;
    assert_eq!(everything(&node)?, paper.clean("clean")?);
    Ok(())
}

// Scenario 46 and 47, height_from_future_waits.
#[test]
fn a_gap_in_the_heights_is_neither_the_tip_nor_a_reorganisation() -> Result<()> {
    let paper = Paper::lived()?;
    let expected = paper.clean("clean")?;
    let source = paper.hostile_source();
    let mut node = paper.open("node", &source)?;
    let tip = paper.bitcoin.tip()?.height;
    for height in START + 1..=tip {
        source.give(Fault::Gap(height));
        let error = refusal(node.sync(&source, |_| ()))?;
        assert!(error.is_temporary(), "block {height} is missing: {error}");
        assert_eq!(node.derivation().tip().block.height, height - 1);
        source.heal();
        node.step(&source)?;
        // The same height, once it was applied.
        source.give(Fault::Gap(height));
        let outcome = node.sync(&source, |_| ());
        assert!(outcome.is_err_and(|error| error.is_temporary()), "block {height} went missing");
        assert_eq!(node.derivation().tip().block.height, height, "nothing was taken back");
        source.heal();
    }
    node.sync(&source, |_| ())?;
    assert_eq!(everything(&node)?, expected);
    Ok(())
}

// Scenario 30, no_reorg_to_shorter_chain; 23, wait_for_l1_tip_on_restart.
#[test]
fn a_source_that_is_behind_takes_nothing_back() -> Result<()> {
    let paper = Paper::lived()?;
    let expected = paper.clean("clean")?;
    let source = paper.hostile_source();
    let above_start = paper.bitcoin.tip()?.height - START;
    let mut node = paper.open("node", &source)?;
    node.sync(&source, |_| ())?;
    for behind in [1, 2, above_start, above_start + 1, START + above_start] {
        source.give(Fault::Behind(behind));
        let error = refusal(node.sync(&source, |_| ()))?;
        assert!(error.is_temporary(), "{behind} behind: {error}");
        assert_eq!(everything(&node)?, expected, "{behind} behind");
        // Nor on a restart.
        drop(node);
        node = paper.open("node", &source)?;
        assert!(refusal(node.sync(&source, |_| ()))?.is_temporary(), "{behind} behind, after a restart");
        assert_eq!(everything(&node)?, expected, "{behind} behind, after a restart");
        source.heal();
        node.sync(&source, |_| ())?;
    }
    Ok(())
}

// Scenario 47: the start block is not there yet.
#[test]
fn a_start_in_the_future_waits_and_a_start_elsewhere_does_not() -> Result<()> {
    let paper = Paper::new()?;
    let source = paper.hostile_source();
    source.give(Fault::Behind(1));
    let error = refusal(paper.open("node", &source))?;
    assert!(error.is_temporary(), "the source has yet to reach the start: {error}");
    source.heal();
    source.serve(PaperBitcoin::another(START + 5));
    let error = refusal(paper.open("node", &source))?;
    assert!(matches!(error, FollowerError::StartNotOnChain(_)) && !error.is_temporary(), "{error}");
    source.heal();
    assert_eq!(paper.open("node", &source)?.derivation().tip().block.height, START);
    Ok(())
}

// Scenario 46: a source that was exchanged under the follower.
#[test]
fn another_chain_is_refused_by_name_and_costs_nothing() -> Result<()> {
    let paper = Paper::lived()?;
    let source = paper.hostile_source();
    let mut node = paper.open("node", &source)?;
    node.sync(&source, |_| ())?;
    let before = everything(&node)?;
    for height in [START + 40, START + 1] {
        source.serve(PaperBitcoin::another(height));
        let error = refusal(node.sync(&source, |_| ()))?;
        assert!(matches!(error, FollowerError::StartNotOnChain(_)), "{error}");
        assert_eq!(everything(&node)?, before, "what was derived is still there");
    }
    source.heal();
    node.sync(&source, |_| ())?;
    assert_eq!(everything(&node)?, before);
    Ok(())
}

// Scenario 46: a header is as little to be believed as a block.
#[test]
fn another_header_never_becomes_part_of_the_first_median_time() -> Result<()> {
    let paper = Paper::lived()?;
    let expected = paper.clean("clean")?;
    for height in [START - 9, START - 5, START] {
        let source = paper.hostile_source();
        source.give(Fault::OtherHeader(height));
        let name = format!("node {height}");
        match paper.open(&name, &source) {
            Ok(node) => assert_eq!(everything(&node)?.blocks[0], expected.blocks[0], "the header at {height}"),
            Err(error) => assert!(error.is_temporary(), "{error}"),
        }
        source.heal();
        let mut node = paper.open(&name, &source)?;
        node.sync(&source, |_| ())?;
        assert_eq!(everything(&node)?, expected);
    }
    Ok(())
}

// Scenario 28 and 30, sync_after_reorg, with a reader in the middle of it.
#[test]
fn a_reorganisation_between_any_two_calls_never_mixes_the_branches() -> Result<()> {
    let paper = Paper::lived()?;
    let a = paper.bitcoin.tip()?.hash;
    let on_a = paper.clean("a")?;
    paper.bitcoin.reorg(8, vec![Vec::new(); 9]);
    paper.bitcoin.mine_envelopes(&[paper.force(&paper.transfer(ALICE, BOB, 1, 0))])?;
    let b = paper.bitcoin.tip()?.hash;
    let on_b = paper.clean("b")?;

    let source = paper.hostile_source();
    let mut node = paper.open("node", &source)?;
    node.sync(&source, |_| ())?;
    let mut here = (b, &on_b);
    let mut there = (a, &on_a);
    let mut switches = 0;
    for number in 0.. {
        // From here to there; on the way, before some call, back again, and at last there.
        paper.bitcoin.show(&there.0)?;
        source.heal();
        let back = paper.bitcoin.clone();
        source.before_call(number, move || Ok(back.show(&here.0)?));
        let on = paper.bitcoin.clone();
        source.before_call(number + 5, move || Ok(on.show(&there.0)?));
        let outcome = node.sync(&source, |_| ());
        if let Err(error) = &outcome {
            ensure!(error.is_temporary(), "call {number}: {error}");
        }
        if source.calls() <= number {
            break;
        }
        switches += 1;
        source.heal();
        paper.bitcoin.show(&there.0)?;
        node.sync(&source, |_| ())?;
        assert_eq!(&everything(&node)?, there.1, "the chain changed before call {number}");
        std::mem::swap(&mut here, &mut there);
    }
    ensure!(switches > 30, "only {switches} calls");
    Ok(())
}
