//! How far back a follower can go, from how far below it can begin, and what it tells of a block. On a Bitcoin in
//! memory.

use crate::support::hostile_paper::{ALICE, BOB, Paper, START, WINDOW, everything, manifest, refusal};
use anyhow::{Context, Result, ensure};
use regtest::hostile::{Act, PaperBitcoin};
use sortie::chain::BlockSource;
use sortie::follower::{Applied, ChainEvent, DataDir, Follower, FollowerError};
use sortie::scanner::Scanner;

#[test]
fn at_least_two_windows_can_be_taken_back_and_not_one_block_more_than_is_kept() -> Result<()> {
    let kept = 2 * u32::from(WINDOW);
    for (asked, kept) in [(0, kept), (kept + 5, kept + 5)] {
        let paper = Paper::new()?;
        let mut node = paper.open(&format!("{asked}"), &paper.bitcoin)?;
        node.set_max_reorg_depth(asked);
        paper.bitcoin.mine_empty(60);
        node.sync(&paper.bitcoin, |_| ())?;
        paper.bitcoin.reorg(kept, Vec::new());
        paper.bitcoin.mine_empty(kept + 1);
        node.sync(&paper.bitcoin, |_| ())?;
        assert_eq!(node.derivation().tip().block, paper.bitcoin.tip()?);
        paper.bitcoin.reorg(kept + 1, Vec::new());
        paper.bitcoin.mine_empty(kept + 2);
        let FollowerError::ReorgTooDeep { height } = refusal(node.sync(&paper.bitcoin, |_| ()))? else {
            anyhow::bail!("it took back what it had not kept")
        };
        assert_eq!(height, START + 61 - kept);
    }
    Ok(())
}

#[test]
fn the_median_time_of_a_start_near_the_first_block_counts_every_block_below_it() -> Result<()> {
    for height in [0, 1, 2, 5, 9, 10, 11, 12] {
        let bitcoin = PaperBitcoin::new(height);
        let dir = tempfile::tempdir()?;
        let node = Follower::open(&DataDir::new(dir.path(), manifest(bitcoin.tip()?)?), &bitcoin)?;
        let mut times = Vec::new();
        for height in height.saturating_sub(10)..=height {
            let hash = bitcoin.block_hash(height)?.context("a block")?;
            times.push(bitcoin.whole_block(&hash)?.header.time);
        }
        times.sort_unstable();
        assert_eq!(node.derivation().tip().median_time, times[times.len() / 2], "{height}");
    }
    Ok(())
}

#[test]
fn a_block_is_empty_if_it_brought_neither_items_nor_verdicts_nor_blocks() -> Result<()> {
    let mut paper = Paper::new()?;
    paper.mine(&[paper.force(&paper.transfer(ALICE, BOB, 10, 0))])?;
    paper.perform(Act::Behave)?;
    paper.bitcoin.mine_empty(1);
    let mut node = paper.open("node", &paper.bitcoin)?;
    let mut applied = Vec::new();
    node.sync(&paper.bitcoin, |event| {
        if let ChainEvent::Applied(block) = event {
            applied.push(block.clone());
        }
    })?;
    let empty = applied.iter().find(|applied| applied.is_empty()).context("an empty block")?;
    let items = applied.iter().find(|applied| !applied.queued.is_empty()).context("an item")?;
    let batch = applied.iter().find(|applied| !applied.blocks.is_empty()).context("a batch")?;
    ensure!(!batch.judged.is_empty(), "the verdict on it");
    for applied in [
        Applied { queued: items.queued.clone(), ..empty.clone() },
        Applied { judged: batch.judged.clone(), ..empty.clone() },
        Applied { blocks: batch.blocks.clone(), ..empty.clone() },
    ] {
        assert!(!applied.is_empty(), "{applied:?}");
    }
    Ok(())
}

#[test]
fn a_source_is_checked_for_the_start_of_the_rollup_and_the_block_above_it() -> Result<()> {
    let paper = Paper::lived()?;
    Follower::check_source(&paper.manifest, &Scanner::from(&paper.bitcoin))?;
    let alone = PaperBitcoin::new(START);
    Follower::check_source(&manifest(alone.tip()?)?, &Scanner::from(&alone))?;
    let another = PaperBitcoin::another(START + 3);
    let error = refusal(Follower::check_source(&paper.manifest, &Scanner::from(&another)))?;
    assert!(matches!(error, FollowerError::StartNotOnChain(start) if start == paper.manifest.start), "{error}");
    let short = PaperBitcoin::new(START - 1);
    let error = refusal(Follower::check_source(&paper.manifest, &Scanner::from(&short)))?;
    assert!(matches!(error, FollowerError::Missing { height: START, tip } if tip == START - 1), "{error}");
    // What was checked is followed.
    let mut node = paper.open("node", &paper.bitcoin)?;
    node.sync(&paper.bitcoin, |_| ())?;
    ensure!(everything(&node)? == paper.clean("clean")?);
    Ok(())
}
