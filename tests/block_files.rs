//! Block files as they are found on disks: out of order, with blocks that lost their place, growing, damaged.

use crate::support::hostile_paper::{Paper, START, everything};
use anyhow::{Context, Result};
use bitcoin::{BlockHash, Network};
use regtest::hostile::{Alteration, LyingReader, PaperBitcoin, write_block_files};
use sortie::chain::{BlkFiles, BlockReader, BlockSource, ChainError};
use sortie::envelope::MAGIC;
use sortie::follower::ChainEvent;
use sortie::scanner::Scanner;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const KEY: [u8; 8] = [1, 2, 3, 0, 255, 6, 7, 8];
const MAGIC_BYTES: bitcoin::p2p::Magic = bitcoin::p2p::Magic::REGTEST;

/// The best chain's blocks from genesis on.
fn blocks(bitcoin: &PaperBitcoin) -> Result<Vec<(BlockHash, Vec<u8>)>> {
    let tip = bitcoin.tip()?.height;
    let block = |height| -> Result<_> {
        let hash = bitcoin.block_hash(height)?.context("a block")?;
        Ok((hash, bitcoin.block(&hash)?))
    };
    (0..=tip).map(block).collect()
}

fn write(dir: &Path, blocks: &[(BlockHash, Vec<u8>)], key: [u8; 8]) -> Result<()> {
    write_block_files(dir, MAGIC_BYTES, key, blocks.iter().map(|(_, raw)| &raw[..]), 7)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<_> = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.to_string_lossy().contains("blk"));
    files.sort();
    Ok(files)
}

/// A reader that nobody stands behind: the chain's own source has lost the blocks.
fn follow(paper: &Paper, name: &str, readers: &[Box<dyn BlockReader>]) -> Result<sortie::follower::Follower> {
    let source = paper.hostile_source();
    let mut node = paper.open(name, &source)?;
    for height in START + 1..=paper.bitcoin.tip()?.height {
        source.give(regtest::hostile::Fault::Lost(height));
    }
    node.sync(Scanner::from(&source).readers(readers).verify_all_blocks(true), |_| ())?;
    Ok(node)
}

#[test]
fn blocks_are_found_in_any_order_among_stale_ones_with_a_key_and_without() -> Result<()> {
    let paper = Paper::lived()?;
    let stale = blocks(&paper.bitcoin)?.split_off(START as usize + 4);
    paper.bitcoin.reorg(3, vec![Vec::new(); 5]);
    let expected = paper.clean("clean")?;
    let mut all = blocks(&paper.bitcoin)?;
    all.extend(stale);
    // Genesis stays in front: there is always a block of the network at the first file's beginning.
    let rest = &mut all[1..];
    rest.reverse();
    rest.rotate_left(3);
    for (name, key) in [("with a key", KEY), ("without a key", [0; 8])] {
        let dir = tempfile::tempdir()?;
        write(dir.path(), &all, key)?;
        let readers: Vec<Box<dyn BlockReader>> = vec![Box::new(BlkFiles::open(dir.path(), Network::Regtest)?)];
        assert_eq!(everything(&follow(&paper, name, &readers)?)?, expected, "{name}");
    }
    Ok(())
}

#[test]
fn a_file_that_grows_is_read_on_and_a_block_that_is_half_written_is_not_there_yet() -> Result<()> {
    let paper = Paper::lived()?;
    let all = blocks(&paper.bitcoin)?;
    let dir = tempfile::tempdir()?;
    write(dir.path(), &all, KEY)?;
    let files = files(dir.path())?;
    let last = files.last().context("a file")?;
    let whole = fs::read(last)?;
    let (hash, raw) = all.last().context("a block")?;
    // Behind the last block there are 10,000 bytes of space.
    let end = whole.len() - 10_000;
    let reader = BlkFiles::open(dir.path(), Network::Regtest)?;
    let mut found = Vec::new();
    for written in [end - raw.len() - 8, end - raw.len() - 1, end - raw.len() + 80, end - 1] {
        fs::write(last, &whole[..written])?;
        let answer = reader.read_block(hash, &mut found);
        assert!(matches!(answer, Err(ChainError::NotFound(_))), "{written} of {end}: {answer:?}");
    }
    fs::write(last, &whole)?;
    reader.read_block(hash, &mut found)?;
    assert_eq!(&found, raw);
    // A file that was not there before.
    let mut grown = all.clone();
    paper.bitcoin.mine_empty(9);
    grown.extend(blocks(&paper.bitcoin)?.split_off(all.len()));
    write(dir.path(), &grown, KEY)?;
    for (hash, raw) in &grown {
        reader.read_block(hash, &mut found)?;
        assert_eq!(&found, raw);
    }
    Ok(())
}

#[test]
fn a_bad_record_ends_its_file_by_name_and_nothing_is_guessed_until_it_is_mended() -> Result<()> {
    let paper = Paper::lived()?;
    let all = blocks(&paper.bitcoin)?;
    let dir = tempfile::tempdir()?;
    write(dir.path(), &all, KEY)?;
    let path = files(dir.path())?[1].clone();
    let whole = fs::read(&path)?;
    let second = 8 + all[7].1.len();
    let lengths = [(second, "magic"), (second + 4 + 3, "length")];
    for (at, name) in lengths {
        let mut bad = whole.clone();
        bad[at] ^= 0x55;
        fs::write(&path, &bad)?;
        let reader = BlkFiles::open(dir.path(), Network::Regtest)?;
        let mut raw = Vec::new();
        reader.read_block(&all[7].0, &mut raw)?;
        let error = reader.read_block(&all[8].0, &mut raw).expect_err(name);
        assert!(error.to_string().contains("blk00001.dat: the record at byte"), "{name}: {error}");
        // The other files are as good as ever, and so is this one once it is mended.
        reader.read_block(&all[20].0, &mut raw)?;
        fs::write(&path, &whole)?;
        reader.read_block(&all[8].0, &mut raw)?;
        assert_eq!(raw, all[8].1);
    }
    Ok(())
}

#[test]
fn a_folder_that_is_no_blocks_folder_of_the_network_is_refused_by_name() -> Result<()> {
    let paper = Paper::new()?;
    let dir = tempfile::tempdir()?;
    let refused = |network| BlkFiles::open(dir.path(), network).expect_err("not usable").to_string();
    assert!(refused(Network::Regtest).contains("there is no blk*.dat"));
    write(dir.path(), &blocks(&paper.bitcoin)?, KEY)?;
    assert!(refused(Network::Bitcoin).contains("does not begin with a block of bitcoin"));
    fs::remove_file(dir.path().join("xor.dat"))?;
    assert!(refused(Network::Regtest).contains("or the xor.dat beside it is missing"));
    fs::write(&files(dir.path())?[0], [])?;
    assert!(refused(Network::Regtest).contains("blk00000.dat: it is empty"));
    fs::write(dir.path().join("xor.dat"), [1; 7])?;
    assert!(refused(Network::Regtest).contains("7 bytes instead of a key of 8"));
    Ok(())
}

/// The place of a payload's last bytes in one of the files, under the key.
fn find(files: &[PathBuf], wanted: &[u8], key: [u8; 8]) -> Result<(PathBuf, usize)> {
    for path in files {
        let mut bytes = fs::read(path)?;
        bytes.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
            return Ok((path.clone(), at + wanted.len() - 1));
        }
    }
    anyhow::bail!("not in the files")
}

// Whoever checks only the blocks that hold a needle sees this all the same.
#[test]
fn one_byte_of_an_item_altered_in_the_files_is_refused_named_and_read_elsewhere() -> Result<()> {
    let paper = Paper::lived()?;
    let expected = paper.clean("clean")?;
    let dir = tempfile::tempdir()?;
    write(dir.path(), &blocks(&paper.bitcoin)?, KEY)?;
    let files = files(dir.path())?;
    for (number, queued) in expected.items.iter().enumerate() {
        let payload = [&MAGIC[..], &paper.manifest.rollup_id().namespace().0, &[1], &queued.item.tx].concat();
        let (path, at) = find(&files, &payload[..payload.len().min(60)], KEY)?;
        let whole = fs::read(&path)?;
        let mut altered = whole.clone();
        altered[at] ^= 1;
        fs::write(&path, &altered)?;
        let readers: Vec<Box<dyn BlockReader>> = vec![Box::new(BlkFiles::open(dir.path(), Network::Regtest)?)];
        let mut node = paper.open(&format!("node {number}"), &paper.bitcoin)?;
        let mut refused = Vec::new();
        node.sync(Scanner::from(&paper.bitcoin).readers(&readers), |event| {
            if let ChainEvent::Applied(applied) = event {
                refused.extend(applied.refused.clone());
            }
        })?;
        assert_eq!(everything(&node)?, expected);
        let [refusal] = &refused[..] else { panic!("{refused:?}") };
        assert_eq!(refusal.block, queued.item.block);
        assert!(refusal.to_string().contains("block files in"), "{refusal}");
        assert!(refusal.reason.contains("do not match"), "{refusal}");
        fs::write(&path, &whole)?;
    }
    assert!(expected.items.len() >= 3);
    Ok(())
}

// As a copy that was broken off leaves it: bytes that nobody wrote.
#[test]
fn a_block_that_was_not_written_to_its_end_is_refused_and_read_elsewhere() -> Result<()> {
    let paper = Paper::lived()?;
    let expected = paper.clean("clean")?;
    let all = blocks(&paper.bitcoin)?;
    for (name, key) in [("with a key", KEY), ("without a key", [0; 8])] {
        for queued in &expected.items {
            let dir = tempfile::tempdir()?;
            write(dir.path(), &all, key)?;
            let height = queued.item.block.height;
            let raw = &all[height as usize].1;
            let block: bitcoin::Block = bitcoin::consensus::deserialize(raw)?;
            // The header, the number of transactions, and the first of them are whole.
            let kept = 80 + 1 + block.txdata[0].total_size();
            let (path, at) = find(&files(dir.path())?, &raw[..80], key)?;
            let mut bytes = fs::read(&path)?;
            let start = at - 79;
            bytes[start + kept..start + raw.len()].fill(0);
            fs::write(&path, bytes)?;

            let readers: Vec<Box<dyn BlockReader>> = vec![Box::new(BlkFiles::open(dir.path(), Network::Regtest)?)];
            let mut node = paper.open(&format!("{name}, {height} {}", queued.index), &paper.bitcoin)?;
            let mut refused = Vec::new();
            node.sync(Scanner::from(&paper.bitcoin).readers(&readers), |event| {
                if let ChainEvent::Applied(applied) = event {
                    refused.extend(applied.refused.clone());
                }
            })?;
            assert_eq!(everything(&node)?, expected, "{name}");
            assert_eq!(refused.iter().map(|one| one.block.height).collect::<Vec<_>>(), [height], "{name}");
        }
    }
    Ok(())
}

// At the tip of a long chain there are thousands of them.
#[test]
fn a_file_that_has_not_changed_is_not_opened_again_for_a_block_that_is_not_there() -> Result<()> {
    let paper = Paper::lived()?;
    let all = blocks(&paper.bitcoin)?;
    let dir = tempfile::tempdir()?;
    write(dir.path(), &all, KEY)?;
    let reader = BlkFiles::open(dir.path(), Network::Regtest)?;
    let mut raw = Vec::new();
    let unknown = "00".repeat(32).parse()?;
    assert!(matches!(reader.read_block(&unknown, &mut raw), Err(ChainError::NotFound(_))));
    // The first of more than two, with space behind its last block; then with something there that whoever opens it
    // finds to be no block.
    let paths = files(dir.path())?;
    assert!(paths.len() > 2);
    let mut bytes = fs::read(&paths[0])?;
    let end = bytes.len();
    bytes.extend([0; 100]);
    fs::write(&paths[0], &bytes)?;
    assert!(matches!(reader.read_block(&unknown, &mut raw), Err(ChainError::NotFound(_))));
    let stamp = fs::metadata(&paths[0])?.modified()?;
    bytes[end..].fill(0x55);
    fs::write(&paths[0], &bytes)?;
    let file = fs::File::options().write(true).open(&paths[0])?;
    file.set_modified(stamp)?;
    assert!(matches!(reader.read_block(&unknown, &mut raw), Err(ChainError::NotFound(_))), "it is not opened");
    file.set_modified(stamp + Duration::from_secs(1))?;
    let opened = reader.read_block(&unknown, &mut raw).expect_err("a bad record");
    assert!(opened.to_string().contains("blk00000.dat: the record at byte"), "{opened}");
    Ok(())
}

#[test]
fn whatever_a_reader_does_to_its_blocks_the_next_source_makes_good() -> Result<()> {
    let paper = Paper::lived()?;
    let expected = paper.clean("clean")?;
    let dir = tempfile::tempdir()?;
    write(dir.path(), &blocks(&paper.bitcoin)?, KEY)?;
    for alteration in Alteration::ALL {
        let liar = || -> Result<Vec<Box<dyn BlockReader>>> {
            let files = BlkFiles::open(dir.path(), Network::Regtest)?;
            Ok(vec![Box::new(LyingReader::new(files, *alteration))])
        };
        let readers = liar()?;
        let name = format!("{alteration:?}");
        let mut node = paper.open(&name, &paper.bitcoin)?;
        let scanner = Scanner::from(&paper.bitcoin).readers(&readers);
        node.sync(scanner.verify_all_blocks(true), |_| ())?;
        assert_eq!(everything(&node)?, expected, "{alteration:?}");

        // Without the full check an item may be hidden by whoever can write the user's own files; but none is
        // added, altered or moved.
        let mut node = paper.open(&format!("{name}, believed"), &paper.bitcoin)?;
        node.sync(scanner, |_| ())?;
        for queued in everything(&node)?.items {
            assert!(expected.items.iter().any(|true_one| true_one.item == queued.item), "{alteration:?}: {queued:?}");
        }

        // With nobody behind it there is an error, and nothing of the block is used.
        let outcome = follow(&paper, &format!("{name}, alone"), &liar()?);
        if let Ok(node) = outcome {
            assert_eq!(everything(&node)?, expected, "{alteration:?}: nothing was there to alter");
        }
    }
    Ok(())
}
