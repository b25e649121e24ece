//! What an honest sequencer signs never convicts it, whatever becomes of its files: each way to lose, copy or
//! roll back what it knows, and an observer who keeps everything that the key ever signed.

use crate::evidence::Observer;
use crate::support::{Operator, Person, Window, World};
use anyhow::{Context, Result};
use sortie::api::wire::TxStatus;
use sortie::chain::BlockSource;
use sortie::primitives::sha256;
use sortie::sequencer::SequencerError;
use std::fs;
use std::path::{Path, PathBuf};

const WINDOW: Window = Window { window: 8, max_lag: 6 };

/// Blocks with transactions: more than a receipt has numbers.
const LONG: usize = 70;
const SHORT: usize = 3;

/// What becomes of the sequencer's files between two starts; `Early` is a copy that was made before the most
/// of what it signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Nothing,
    StoreEarly,
    StoreGone,
    WatermarkEarly,
    WatermarkGone,
    /// A virtual machine's snapshot, or a copy of the whole folder and the key: what was signed since is nowhere on
    /// Bitcoin.
    BothEarly,
    /// The same, where Bitcoin shows it.
    BothEarlyPosted,
    /// The same, of before its first start, when a batch is in the mempool or on Bitcoin.
    BothUnused,
    BothUnusedMined,
    /// Of a store and a watermark that were copied while it ran.
    BothLive,
    /// With the operator's word for the last number.
    Declared,
}

/// What is expected of the second start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Headers and receipts are there again soon.
    GoesOn,
    /// Headers are there again soon, receipts after a window.
    Waits,
    /// It says that a batch is not its own.
    Twin,
}

/// A rollup of its own on the world's node, with one clock for all machines.
struct Life<'a> {
    world: &'a World,
    name: String,
    now: u64,
    nonces: [u64; 2],
    observer: Observer,
}

#[derive(Clone, Copy)]
enum By {
    Alice,
    Bob,
}

impl<'a> Life<'a> {
    fn new(world: &'a mut World, name: String) -> Result<Self> {
        world.bitcoind.mine(1)?;
        world.start_here()?;
        fs::create_dir_all(world.path(&name))?;
        let tip = world.rpc()?.header(&world.bitcoind.tip()?)?;
        Ok(Self { world, name, now: u64::from(tip.time) + 100, nonces: [0, 0], observer: Observer::default() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path(&self.name).join(name)
    }

    fn start(&self, data: &str, key: &str, signed_up_to: Option<u64>) -> Result<Operator> {
        fs::create_dir_all(self.path(data))?;
        fs::create_dir_all(self.path(key))?;
        let (data, key) = (format!("{}/{data}/", self.name), format!("{}/{key}/key", self.name));
        self.world.sequencer_on(&data, &key, |policy| policy.signed_up_to = signed_up_to)
    }

    fn tick(&mut self, operator: &mut Operator) -> Result<()> {
        self.now += 1;
        operator.now = self.now;
        operator.tick()?;
        Ok(())
    }

    /// Sends transfers, one a second; the last one's number is told, and whether its block is signed and it got a
    /// receipt.
    fn send(&mut self, operator: &mut Operator, by: By, transfers: usize) -> Result<(u64, bool, bool)> {
        let (from, to): (&Person, &Person) = match by {
            By::Alice => (&self.world.alice, &self.world.bob),
            By::Bob => (&self.world.bob, &self.world.alice),
        };
        let mut last = None;
        for _ in 0..transfers {
            let tx = self.world.transfer(from, to, 1, self.nonces[by as usize]);
            self.nonces[by as usize] += 1;
            self.observer.send(operator, &tx)?;
            self.tick(operator)?;
            last = operator.submit.status(&sha256(&tx))?;
        }
        self.observer.look(self.world, operator)?;
        let Some(TxStatus::Included { number, receipt, .. }) = last else { anyhow::bail!("not included: {last:?}") };
        let block = operator.submit.block(number)?.context("its block")?;
        Ok((number, block.signed.is_some(), receipt.is_some()))
    }

    fn assert_innocent(&self) -> Result<()> {
        self.observer.assert_no_equivocation(self.world)?;
        self.observer.assert_no_broken_receipt();
        Ok(())
    }
}

/// Replaces the files of a folder by those of another. A wallet in it stays: it signs nothing of the rollup.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let files = |folder: &Path| -> Result<Vec<PathBuf>> {
        fs::create_dir_all(folder)?;
        let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        Ok(entries.into_iter().filter(|path| path.is_file()).collect())
    };
    files(to)?.iter().try_for_each(fs::remove_file)?;
    for file in files(from)? {
        fs::copy(&file, to.join(file.file_name().context("a name")?))?;
    }
    Ok(())
}

fn is_twin(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(SequencerError::Twin { .. }))
}

/// Signs for Alice, loses what it knows, and signs for Bob.
fn lose(world: &mut World, way: Way, signed: usize, again: usize) -> Result<Then> {
    let mut life = Life::new(world, format!("{way:?}-{signed}"))?;
    let [data, key, early_data, early_key] = ["data", "key", "early-data", "early-key"].map(|name| life.path(name));
    let early = || replace(&data, &early_data).and_then(|()| replace(&key, &early_key));
    let is_unused = matches!(way, Way::BothUnused | Way::BothUnusedMined);
    let mut operator = life.start("data", "key", None)?;
    if !is_unused {
        // Its batch is on its way: while it is, and no block comes, no other one follows.
        life.send(&mut operator, By::Alice, 1)?;
    }
    if way == Way::BothLive {
        early()?;
    } else {
        drop(operator);
        early()?;
        operator = life.start("data", "key", None)?;
    }
    let (highest, is_signed, _) = life.send(&mut operator, By::Alice, signed)?;
    assert!(is_signed, "{way:?}: what is at stake is signed");
    if matches!(way, Way::BothUnusedMined | Way::BothEarlyPosted) {
        life.world.bitcoind.mine(1)?;
        life.tick(&mut operator)?;
    }
    drop(operator);

    match way {
        Way::Nothing => {}
        Way::StoreEarly => replace(&early_data, &data)?,
        Way::StoreGone | Way::Declared => replace(&life.path("nothing"), &data)?,
        Way::WatermarkEarly => replace(&early_key, &key)?,
        Way::WatermarkGone => fs::remove_file(key.join("key.watermark"))?,
        Way::BothEarly | Way::BothEarlyPosted | Way::BothLive | Way::BothUnused | Way::BothUnusedMined => {
            replace(&early_data, &data)?;
            replace(&early_key, &key)?;
        }
    }

    let declared = (way == Way::Declared).then_some(highest);
    let mut operator = match life.start("data", "key", declared) {
        Err(error) if is_twin(&error) => return Ok(Then::Twin),
        started => started?,
    };
    life.tick(&mut operator)?;
    let (_, is_signed, has_receipt) = life.send(&mut operator, By::Bob, again)?;
    assert!(is_signed, "{way:?}: soon in signed blocks again");
    for _ in 0..WINDOW.window {
        life.world.bitcoind.mine(1)?;
        life.tick(&mut operator)?;
        life.observer.look(life.world, &operator)?;
    }
    let (_, is_signed, promised) = life.send(&mut operator, By::Bob, 1)?;
    assert!(is_signed && promised, "{way:?}: as ever after a window");
    life.assert_innocent()?;
    Ok(if has_receipt { Then::GoesOn } else { Then::Waits })
}

#[test]
fn whatever_is_lost_or_rolled_back_nothing_convicts_it_and_it_soon_signs_again() -> Result<()> {
    let mut world = World::new(WINDOW)?;
    let table = [
        (Way::Nothing, SHORT, SHORT, Then::GoesOn),
        (Way::StoreEarly, SHORT, LONG, Then::Waits),
        (Way::StoreGone, SHORT, SHORT, Then::Waits),
        (Way::WatermarkEarly, SHORT, SHORT, Then::Waits),
        (Way::WatermarkGone, SHORT, SHORT, Then::Waits),
        (Way::BothEarly, SHORT, SHORT, Then::GoesOn),
        (Way::BothEarlyPosted, SHORT, SHORT, Then::Twin),
        (Way::BothUnused, SHORT, SHORT, Then::Waits),
        (Way::BothUnusedMined, SHORT, SHORT, Then::Waits),
        (Way::BothLive, LONG, SHORT, Then::GoesOn),
        (Way::BothLive, SHORT, LONG, Then::GoesOn),
        (Way::Declared, SHORT, SHORT, Then::GoesOn),
    ];
    for (way, signed, again, then) in table {
        assert_eq!(lose(&mut world, way, signed, again)?, then, "{way:?}");
    }
    Ok(())
}

/// What the second machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copied {
    /// The key alone.
    Key,
    /// Key and watermark, of before the first start; it was started before the first machine signed.
    Unused,
    /// Everything.
    All,
}

/// Two machines with one key sign at the same time; gives how many of them stopped.
fn two_machines(world: &mut World, copied: Copied) -> Result<usize> {
    let mut life = Life::new(world, format!("{copied:?}"))?;
    let [data, key, data2, key2] = ["data", "key", "data2", "key2"].map(|name| life.path(name));
    let mut one = life.start("data", "key", None)?;
    if copied != Copied::Unused {
        life.send(&mut one, By::Alice, 2)?;
    }
    drop(one);
    replace(&key, &key2)?;
    match copied {
        Copied::Key => fs::remove_file(key2.join("key.watermark"))?,
        Copied::Unused => {}
        Copied::All => replace(&data, &data2)?,
    }
    let mut machines = vec![(life.start("data", "key", None)?, By::Alice)];
    life.tick(&mut machines[0].0)?;
    machines.push((life.start("data2", "key2", None)?, By::Bob));
    let mut stopped = 0;
    for _ in 0..WINDOW.window {
        let mut left = Vec::new();
        for (mut operator, by) in machines {
            match life.send(&mut operator, by, 1) {
                Err(error) if is_twin(&error) => stopped += 1,
                // A block of the other one's took its place: the transfer waits again.
                Err(error) if error.to_string().starts_with("not included") => left.push((operator, by)),
                sent => {
                    sent?;
                    left.push((operator, by));
                }
            }
        }
        machines = left;
        life.world.bitcoind.mine(1)?;
    }
    life.assert_innocent()?;
    Ok(stopped)
}

#[test]
fn two_machines_with_one_key_contradict_each_other_in_nothing_and_one_stops() -> Result<()> {
    let mut world = World::new(WINDOW)?;
    for copied in [Copied::Key, Copied::Unused, Copied::All] {
        assert!(two_machines(&mut world, copied)? >= 1, "{copied:?}: one sees that it is not alone");
    }
    Ok(())
}

// A virtual machine that is resumed from a snapshot goes on in the middle of its life; its clock is put right.
#[test]
fn a_clock_that_jumps_counts_as_a_start() -> Result<()> {
    let mut world = World::new(WINDOW)?;
    let mut life = Life::new(&mut world, "jump".into())?;
    let mut operator = life.start("data", "key", None)?;
    let (before, is_signed, _) = life.send(&mut operator, By::Alice, 2)?;
    assert!(is_signed);
    life.now += 1_000;
    life.tick(&mut operator)?;
    let (after, is_signed, has_receipt) = life.send(&mut operator, By::Alice, 1)?;
    assert_eq!((after, is_signed, has_receipt), (before + 3, true, true));
    for number in [before + 1, before + 2] {
        let opening = operator.submit.block(number)?.context("a block")?;
        assert!(opening.signed.is_none() && opening.block.own_txs.is_empty(), "block {number}");
    }
    Ok(())
}
