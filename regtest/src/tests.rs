//! Promises of the harness, on a real bitcoind.

use std::cell::Cell;
use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bitcoin::{Amount, BlockHash, Txid};
use bitcoincore_rpc::RpcApi;
use serde_json::json;

use crate::{Bitcoind, Proc, wait_until};

const SOON: Duration = Duration::from_secs(30);
const PARENT_DIES: &str = "REGTEST_PARENT_DIES";

fn sats(sats: u64) -> Amount {
    Amount::from_sat(sats)
}

/// Zombies have ended; in a container nobody may collect them.
fn lives(pid: u32) -> Result<bool> {
    let pid = pid.to_string();
    let output = Command::new("ps").args(["-o", "stat=", "-p", &pid]).output()?;
    let state = String::from_utf8(output.stdout)?;
    Ok(!state.trim().is_empty() && !state.trim().starts_with('Z'))
}

fn ends(pid: u32) -> Result<()> {
    wait_until("the process to end", SOON, || Ok((!lives(pid)?).then_some(())))
}

fn refusal<T>(result: Result<T>) -> String {
    result.err().map_or(String::new(), |error| format!("{error:#}"))
}

#[test]
fn a_node_starts_mines_and_leaves_nothing() -> Result<()> {
    let node = Bitcoind::start()?;
    let datadir = node.datadir().to_owned();
    let pid = node.pid().context("no process")?;
    let mined = node.mine(3)?;
    assert_eq!(node.height()?, 3);
    assert_eq!(node.tip()?, mined[2]);
    assert_eq!(node.block_hash(1)?, mined[0]);
    assert_eq!(node.block(&mined[2])?.block_hash(), mined[2]);
    assert_eq!(node.client()?.get_block_count()?, 3);
    assert!(node.p2p().is_none());
    assert!(lives(pid)?);

    node.stop()?;
    assert!(!lives(pid)?);
    assert!(!datadir.exists());
    Ok(())
}

#[test]
fn a_given_datadir_keeps_the_chain() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Bitcoind::options().datadir(folder.path()).start()?;
    let tip = node.mine(2)?[1];
    drop(node);
    let node = Bitcoind::options().datadir(folder.path()).arg("-txindex=1").start()?;
    assert_eq!(node.tip()?, tip);
    assert!(node.call("getindexinfo", &[])?.get("txindex").is_some());
    Ok(())
}

#[test]
fn a_refused_start_says_why() {
    let refused = refusal(Bitcoind::options().arg("-nonsense=1").start());
    assert!(refused.contains("Invalid parameter -nonsense"), "{refused}");
}

#[test]
fn a_taken_port_is_refused_in_bitcoinds_words() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let arg = format!("-rpcport={}", taken.local_addr()?.port());
    let refused = refusal(Bitcoind::options().arg(arg).start());
    assert!(refused.contains("Unable to start HTTP server"), "{refused}");
    Ok(())
}

#[test]
fn two_nodes_live_in_parallel_and_can_meet() -> Result<()> {
    let start = || Bitcoind::options().peers().start();
    let other = thread::spawn(start);
    let a = start()?;
    let b = other.join().map_err(|_| anyhow::anyhow!("panic"))??;
    assert_ne!(a.rpc_url(), b.rpc_url());
    a.connect(&b)?;
    let tip = a.mine(2)?[1];
    wait_until("the block", SOON, || Ok((b.tip()? == tip).then_some(())))?;

    // A reorg reaches the peer as a reorg.
    let new = a.reorg(1)?.new[1];
    wait_until("the reorg", SOON, || Ok((b.tip()? == new).then_some(())))
}

#[test]
fn a_block_holds_what_the_test_decides() -> Result<()> {
    let node = Bitcoind::start()?;
    let address = Bitcoind::anyone_address();
    let a = node.fund(&address, sats(10_000))?.txid;
    let b = node.fund(&address, sats(20_000))?.txid;
    let before = node.height()?;
    let ids = |hash: BlockHash| -> Result<Vec<Txid>> {
        let block = node.block(&hash)?;
        Ok(block.txdata[1..].iter().map(|tx| tx.compute_txid()).collect())
    };
    assert!(ids(node.mine_empty(1)?[0])?.is_empty());
    assert_eq!(node.mempool()?.len(), 2);
    assert_eq!(ids(node.mine_block_with(&[b])?)?, [b]);
    assert_eq!(node.mempool()?, [a]);
    assert_eq!(ids(node.mine(1)?[0])?, [a]);
    assert_eq!(node.height()?, before + 3);
    Ok(())
}

#[test]
fn funding_works_many_times_without_a_block_between() -> Result<()> {
    let node = Bitcoind::start()?;
    // One mature subsidy: the second funding lives on the change of the first.
    node.mine(100)?;
    let address = Bitcoind::anyone_address();
    for i in 1..=20 {
        let coin = node.fund(&address, sats(i * 1_000))?;
        let params = [json!(coin.txid), json!(coin.vout), json!(true)];
        let value = node.call("gettxout", &params)?["value"].as_f64();
        assert_eq!(value.map(Amount::from_btc).transpose()?, Some(sats(i * 1_000)));
    }
    assert_eq!(node.height()?, 100);
    assert_eq!(node.mempool()?.len(), 20);

    // More than may hang together: the harness makes another coin, and confirms nothing for it.
    for _ in 20..66 {
        node.fund(&address, sats(1_000))?;
    }
    assert_eq!((node.height()?, node.mempool()?.len()), (120, 66));
    for txid in node.mempool()? {
        let entry = node.call("getmempoolentry", &[json!(txid)])?;
        let fee = Amount::from_btc(entry["fees"]["base"].as_f64().context("fee")?)?;
        assert_eq!(Some(fee.to_sat()), entry["vsize"].as_u64());
    }
    Ok(())
}

#[test]
fn a_fresh_chain_is_mined_to_maturity_and_large_sums_take_many_coins() -> Result<()> {
    let node = Bitcoind::start()?;
    let address = Bitcoind::anyone_address();
    let small = node.fund_and_mine(&address, sats(1_000))?;
    assert_eq!(node.height()?, 121);
    assert!(node.mempool()?.is_empty());
    let large = node.fund(&address, Amount::from_int_btc(120))?;
    assert_ne!(small.txid, large.txid);
    assert_eq!(node.height()?, 121);
    let refused = refusal(node.fund(&address, sats(1)));
    assert!(refused.contains("dust"), "{refused}");
    Ok(())
}

#[test]
fn a_reorg_returns_transactions_to_the_mempool() -> Result<()> {
    let node = Bitcoind::start()?;
    let coin = node.fund_and_mine(&Bitcoind::anyone_address(), sats(50_000))?;
    node.mine(12)?;
    let (height, tip) = (node.height()?, node.tip()?);

    // Deeper than the ten blocks of which bitcoind keeps the transactions.
    let reorg = node.reorg(13)?;
    assert_eq!((reorg.old.len(), reorg.new.len()), (13, 14));
    assert_eq!(reorg.old.last(), Some(&tip));
    assert_eq!(node.height()?, height + 1);
    assert_eq!(reorg.new.last(), Some(&node.tip()?));
    assert_eq!(node.mempool()?, [coin.txid]);
    assert!(refusal(node.reorg(0)).contains("no blocks"));
    assert!(refusal(node.reorg(height + 2)).contains("above genesis"));
    Ok(())
}

#[test]
fn reorgs_of_empty_blocks_in_the_same_second_differ() -> Result<()> {
    let node = Bitcoind::start()?;
    node.set_mocktime(2_000_000_000)?;
    node.mine_empty(2)?;
    let mut seen = node.reorg(1)?.new;
    for _ in 0..3 {
        // Longer branches of before must not come back.
        let reorg = node.reorg(2)?;
        assert!(reorg.new.iter().all(|hash| !seen.contains(hash)));
        seen.extend(reorg.new);
    }
    // The clock stands, the median time past pushes on.
    let time = node.block(&node.tip()?)?.header.time;
    assert!((2_000_000_000..2_000_000_010).contains(&time), "{time}");
    Ok(())
}

#[test]
fn a_reorg_can_double_spend() -> Result<()> {
    let node = Bitcoind::start()?;
    let coin = node.fund_and_mine(&Bitcoind::anyone_address(), sats(50_000))?;
    let dropped = node.block(&node.tip()?)?.txdata[1].clone();
    let mut rival = dropped.clone();
    rival.output[0].value -= sats(500);
    let calls = Cell::new(0);
    let reorg = node.reorg_with(1, |i| {
        assert_eq!(i, calls.replace(i + 1));
        let txs = [vec![], vec![rival.clone()]];
        Ok(txs[i as usize].clone())
    })?;
    assert_eq!(calls.get(), 2);
    let txdata = node.block(&reorg.new[1])?.txdata;
    assert_eq!(txdata[1].compute_txid(), rival.compute_txid());
    assert!(!node.mempool()?.contains(&coin.txid));

    // Back on A, and on B once more: each branch confirms its own.
    let back = node.flip_back(&reorg)?;
    assert_eq!(back.old, reorg.new);
    assert_eq!(back.new[0], reorg.old[0]);
    assert_eq!((back.new.len(), node.tip()?), (3, back.new[2]));
    let again = node.flip_back(&back)?;
    assert_eq!(again.new[..2], reorg.new);
    assert_eq!(again.new.len(), 4);
    assert!(refusal(node.flip_back(&back)).contains("is active"));
    Ok(())
}

#[test]
fn a_failed_reorg_leaves_the_old_branch() -> Result<()> {
    let node = Bitcoind::start()?;
    let tip = node.mine(2)?[1];
    let unknown: Txid = "11".repeat(32).parse()?;
    let failed = node.reorg_with(1, |i| Ok(vec![unknown; i as usize]));
    assert!(refusal(failed).contains("not in mempool"));
    assert_eq!(node.tip()?, tip);
    Ok(())
}

#[test]
fn a_daemon_outlives_its_handles_until_it_is_taken_down() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path();
    assert!(refusal(Bitcoind::attach(dir)).contains("no node is running"));
    assert!(!Bitcoind::down(dir)?);

    let node = Bitcoind::up(dir)?;
    let (tip, url) = (node.mine(1)?[0], node.rpc_url());
    assert!(node.p2p().is_some());
    drop(node);
    assert!(refusal(Bitcoind::up(dir)).contains("already running"));
    let node = Bitcoind::attach(dir)?;
    assert_eq!((node.tip()?, node.rpc_url()), (tip, url.clone()));
    assert!(refusal(node.stop()).contains("not ours"));

    let pid = state_pid(dir)?;
    assert!(lives(pid)?);
    assert!(Bitcoind::down(dir)?);
    assert!(!lives(pid)?);
    assert!(!dir.join("regtest.json").exists());
    assert!(!Bitcoind::down(dir)?);

    // A crash leaves a stale file; the chain goes on, and at the same address.
    let node = Bitcoind::up(dir)?;
    assert_eq!((node.tip()?, node.rpc_url()), (tip, url));
    let pid = state_pid(dir)?;
    crate::watchdog::signal(pid, "KILL")?;
    ends(pid)?;
    assert!(refusal(Bitcoind::attach(dir)).contains("is gone"));
    assert_eq!(Bitcoind::up(dir)?.tip()?, tip);
    assert!(Bitcoind::down(dir)?);
    Ok(())
}

#[test]
fn a_strangers_process_number_is_left_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path();
    let state = json!({
        "pid": std::process::id(),
        "rpc_url": "http://127.0.0.1:1",
        "datadir": dir.join("bitcoind"),
    });
    fs::write(dir.join("regtest.json"), state.to_string())?;
    assert!(!Bitcoind::down(dir)?);
    assert!(!dir.join("regtest.json").exists());
    Ok(())
}

fn state_pid(dir: &Path) -> Result<u32> {
    let state = fs::read(dir.join("regtest.json"))?;
    let state: serde_json::Value = serde_json::from_slice(&state)?;
    Ok(state["pid"].as_u64().context("no pid")?.try_into()?)
}

/// Not a promise: the process that the two tests below run and watch dying.
#[test]
fn parent_that_dies() -> Result<()> {
    let Some(how) = env::var_os(PARENT_DIES) else {
        return Ok(());
    };
    let node = Bitcoind::start()?;
    let pid = node.pid().context("no process")?;
    eprintln!("child {pid} {}", node.datadir().display());
    assert!(how != "panic", "on purpose");
    loop {
        thread::park();
    }
}

fn dying_parent(how: &str) -> Result<(Proc, u32, PathBuf)> {
    let mut parent = Proc::spawn(
        Command::new(env::current_exe()?)
            .args(["--exact", "tests::parent_that_dies", "--nocapture"])
            .env(PARENT_DIES, how),
    )?;
    let line = parent.wait_line("the child's number", SOON, |line| line.contains("child "))?;
    let words = line.rsplit_once("child ").context("no number")?.1;
    let (pid, datadir) = words.split_once(' ').context("no folder")?;
    Ok((parent, pid.parse()?, PathBuf::from(datadir)))
}

#[test]
fn a_panic_in_a_test_leaves_no_process() -> Result<()> {
    let (mut parent, pid, datadir) = dying_parent("panic")?;
    ensure!(!parent.wait_exit(SOON)?.success());
    assert!(!lives(pid)?);
    assert!(!datadir.exists());
    Ok(())
}

#[test]
fn a_killed_test_leaves_no_process_and_no_folder() -> Result<()> {
    let (mut parent, pid, datadir) = dying_parent("hang")?;
    assert!(lives(pid)?);
    parent.kill9()?;
    ends(pid)?;
    wait_until("the folder to go", SOON, || Ok((!datadir.exists()).then_some(())))
}

#[test]
fn lines_are_found_in_order_and_the_end_is_told() -> Result<()> {
    let script = "echo two >&2; sleep 0.1; echo one; exec sleep 600";
    let mut sleeper = Proc::spawn(Command::new("/bin/sh").args(["-c", script]))?;
    sleeper.wait_line("one", SOON, |line| line == "one")?;
    sleeper.wait_line("two", SOON, |line| line == "two")?;
    assert_eq!((sleeper.stdout(), sleeper.stderr()), (vec!["one".into()], vec!["two".into()]));
    let missing = sleeper.wait_line("a third line", Duration::ZERO, |_| true);
    let missing = refusal(missing);
    assert!(missing.contains("a third line") && missing.contains("two"), "{missing}");
    sleeper.terminate()?;
    assert!(!sleeper.wait_exit(SOON)?.success());

    let mut brief = Proc::spawn(Command::new("/bin/sh").args(["-c", "printf last; exit 3"]))?;
    brief.wait_line("the last line", SOON, |line| line == "last")?;
    let ended = refusal(brief.wait_line("more", SOON, |_| true));
    assert!(ended.contains("exit status: 3"), "{ended}");
    assert_eq!(brief.wait_exit(SOON)?.code(), Some(3));
    Ok(())
}

#[test]
fn a_wait_names_what_it_waited_for() {
    let late = wait_until::<()>("the impossible", Duration::ZERO, || Ok(None));
    assert!(refusal(late).starts_with("the impossible: not within"));
}
