//! Scanning against the plainest thing that reads the same bytes, side by side in one run.
//!
//! The chain of the block files is mainnet block 702,861 again and again under headers of its own; the one of the node
//! is a regtest's full blocks, filled with that block's bytes, with 0, 1 and 1,000 envelopes in each. Every figure
//! stands there twice: by the clock, and by the processor time of this process, which others on the machine hardly
//! touch.
//!
//! `SCAN_BLOCKS`: copies in the block files, 700 unless told (1 GB).

use anyhow::{Context, Result, ensure};
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Amount, Block, BlockHash, CompactTarget, Network, ScriptBuf, TxOut};
use regtest::Bitcoind;
use regtest::hostile::{Envelope, write_block_files};
use rustix::time::{ClockId, clock_gettime};
use sortie::chain::{BlkFiles, BlockReader, BlockSource, ChainError, RestNode};
use sortie::envelope::{Body, Carrier, MAGIC, Payload, check_block, scan_block};
use sortie::primitives::{BlockRef, BtcHeight, Namespace};
use sortie::scanner::{MAX_HEADERS, ScanError, Scanned, Scanner};
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const NAMESPACE: Namespace = Namespace([0xa1, 0xb2, 0xc3, 0xd4]);
const KEY: [u8; 8] = [0x5a, 0x11, 0x9c, 0x27, 0xee, 0x03, 0x84, 0x6d];
const PER_FILE: usize = 96;
const CONNECTIONS: usize = 4;
/// Blocks of each kind on the regtest, and how often they are read.
const EACH: usize = 16;
const TIMES: usize = 5;

/// What a run took.
#[derive(Clone, Copy)]
struct Took {
    bytes: u64,
    clock: Duration,
    processor: Duration,
}

impl Took {
    fn clock_rate(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.clock.as_secs_f64()
    }

    fn processor_rate(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.processor.as_secs_f64()
    }
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

fn timed(bytes: u64, run: impl FnOnce() -> Result<()>) -> Result<Took> {
    let (clock, processor) = (Instant::now(), processor_time());
    run()?;
    Ok(Took { bytes, clock: clock.elapsed(), processor: processor_time().saturating_sub(processor) })
}

/// The best of three: what disturbs a run makes it slower.
fn best(bytes: u64, mut run: impl FnMut() -> Result<()>) -> Result<Took> {
    let mut runs = (0..3).map(|_| timed(bytes, &mut run)).collect::<Result<Vec<_>>>()?;
    let clock = runs.iter().map(|took| took.clock).min().unwrap_or_default();
    let processor = runs.iter().map(|took| took.processor).min().unwrap_or_default();
    runs.truncate(1);
    Ok(Took { bytes, clock, processor })
}

/// Of another process only the clock tells.
fn compare_by_clock(what: &str, goal: &str, ours: Took, reference: Took) {
    let (a, b) = (ours.clock_rate(), reference.clock_rate());
    println!(
        "| {what:<52} | {a:>6.0} | {b:>6.0} | {:>6.2} | {:>6} | {:>6} | {:>6} | {goal:<8} |",
        a / b,
        "-",
        "-",
        "-"
    );
}

fn compare(what: &str, goal: &str, ours: Took, reference: Took) {
    println!(
        "| {what:<52} | {:>6.0} | {:>6.0} | {:>6.2} | {:>6.0} | {:>6.0} | {:>6.2} | {goal:<8} |",
        ours.clock_rate(),
        reference.clock_rate(),
        ours.clock_rate() / reference.clock_rate(),
        ours.processor_rate(),
        reference.processor_rate(),
        ours.processor_rate() / reference.processor_rate(),
    );
}

/// Private memory of this process, in KiB.
fn rss_anon() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// The most private memory that a run has, in KiB.
fn peak_of(run: impl FnOnce() -> Result<()>) -> Result<u64> {
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(rss_anon()));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(rss_anon(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
        });
        let result = run();
        done.store(true, Ordering::Relaxed);
        result
    })?;
    Ok(peak.into_inner())
}

/// Headers over one body.
struct MadeChain(Vec<Header>);

impl MadeChain {
    fn new(first: Header, count: usize) -> Self {
        let mut headers: Vec<Header> = Vec::with_capacity(count);
        let mut parent = BlockHash::all_zeros();
        for time in (first.time..).take(count) {
            let bits = CompactTarget::from_consensus(0x207f_ffff);
            let header = Header { prev_blockhash: parent, time, bits, ..first };
            parent = header.block_hash();
            headers.push(header);
        }
        Self(headers)
    }

    fn missing(hash: &BlockHash) -> ChainError {
        ChainError::NotFound(format!("block {hash}"))
    }
}

impl BlockSource for MadeChain {
    fn tip(&self) -> Result<BlockRef, ChainError> {
        let last = self.0.last().map(Header::block_hash).unwrap_or_else(BlockHash::all_zeros);
        Ok(BlockRef { height: self.0.len() as u32 - 1, hash: last })
    }

    fn block_hash(&self, height: BtcHeight) -> Result<Option<BlockHash>, ChainError> {
        Ok(self.0.get(height as usize).map(Header::block_hash))
    }

    fn header(&self, hash: &BlockHash) -> Result<Header, ChainError> {
        Err(Self::missing(hash))
    }

    fn headers(&self, first: BtcHeight, count: u32) -> Result<Vec<Header>, ChainError> {
        Ok(self.0.iter().skip(first as usize).take(count as usize).copied().collect())
    }

    fn block(&self, hash: &BlockHash) -> Result<Vec<u8>, ChainError> {
        Err(Self::missing(hash))
    }

    fn wait_for_tip(&self, _: &BlockHash, _: Duration) -> Result<BlockRef, ChainError> {
        self.tip()
    }
}

/// Everything above genesis, through the gate; answers how many envelopes there are.
fn scan(scanner: Scanner<'_>, mut parent: BlockRef, to: BtcHeight) -> Result<usize> {
    let mut found = 0;
    while parent.height < to {
        let left = (to - parent.height).min(MAX_HEADERS);
        let blocks = scanner.headers_above(Network::Regtest.magic(), parent, |_| Ok::<_, ScanError>(None), left)?;
        parent = blocks.last().context("a block")?.at;
        scanner.scan(&blocks, NAMESPACE, |scanned: Scanned| {
            found += scanned.found.len();
            Ok::<_, ScanError>(())
        })?;
    }
    Ok(found)
}

fn needle() -> Vec<u8> {
    [&MAGIC[..], &NAMESPACE.0].concat()
}

fn undo(bytes: &mut [u8], phase: usize) {
    let mut key = KEY;
    key.rotate_left(phase % 8);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    let word = u64::from_ne_bytes(key);
    words.iter_mut().for_each(|bytes| *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes());
    rest.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
}

/// Reads, takes the key off, and searches: in pieces of a block's length, in one thread.
fn plain_loop(dir: &Path, piece: usize) -> Result<()> {
    let needle = needle();
    let finder = memchr::memmem::Finder::new(&needle);
    let mut buffer = vec![0; piece];
    for number in 0.. {
        let Ok(file) = File::open(dir.join(format!("blk{number:05}.dat"))) else { break };
        let end = file.metadata()?.len();
        let mut at = 0;
        while at < end {
            let len = (end - at).min(piece as u64) as usize;
            file.read_exact_at(&mut buffer[..len], at)?;
            undo(&mut buffer[..len], at as usize);
            ensure!(black_box(finder.find(&buffer[..len])).is_none(), "nothing is there");
            at += len as u64;
        }
    }
    Ok(())
}

/// Reads, takes the key off, and decodes every block, in one thread.
fn decode_loop(dir: &Path, count: usize, len: usize) -> Result<()> {
    let mut buffer = vec![0; len];
    for number in 0..count {
        let file = File::open(dir.join(format!("blk{:05}.dat", number / PER_FILE)))?;
        let at = (number % PER_FILE) * (len + 8) + 8;
        file.read_exact_at(&mut buffer, at as u64)?;
        undo(&mut buffer, at);
        black_box(deserialize::<Block>(&buffer)?);
    }
    Ok(())
}

fn files() -> Result<()> {
    let count = std::env::var("SCAN_BLOCKS").map_or(Ok(700), |text| text.parse())?;
    let body = bitcoin_test_data::blocks::mainnet_702861();
    let first: Block = deserialize(body)?;
    let chain = MadeChain::new(first.header, count);
    drop(first);
    let dir = tempfile::tempdir()?;
    {
        let raws: Vec<Vec<u8>> = (0..PER_FILE).map(|_| body.to_vec()).collect();
        // One file at a time, so that the files need no memory of their size.
        for (number, headers) in chain.0.chunks(PER_FILE).enumerate() {
            let mut raws = raws.clone();
            raws.iter_mut().zip(headers).for_each(|(raw, header)| raw[..80].copy_from_slice(&serialize(header)));
            let part = dir.path().join("part");
            let blocks = raws.iter().take(headers.len()).map(Vec::as_slice);
            write_block_files(&part, Network::Regtest.magic(), KEY, blocks, PER_FILE)?;
            std::fs::rename(part.join("blk00000.dat"), dir.path().join(format!("blk{number:05}.dat")))?;
            std::fs::rename(part.join("xor.dat"), dir.path().join("xor.dat"))?;
        }
    }
    let bytes = (body.len() * count) as u64;
    let tip = chain.tip()?.height;
    let genesis = BlockRef { height: 0, hash: chain.0[0].block_hash() };
    let run = || {
        let readers: [Box<dyn BlockReader>; 1] = [Box::new(BlkFiles::open(dir.path(), Network::Regtest)?)];
        ensure!(scan(Scanner::from(&chain).readers(&readers), genesis, tip)? == 0, "nothing is there");
        Ok(())
    };
    plain_loop(dir.path(), body.len())?;
    let before = rss_anon();
    let peak = peak_of(run)?;
    let ours = best(bytes, run)?;
    compare(
        "block files / plain loop: read, un-XOR, search",
        ">= 0.9",
        ours,
        best(bytes, || plain_loop(dir.path(), body.len()))?,
    );
    let decoded = best(bytes, || decode_loop(dir.path(), count, body.len()))?;
    compare("block files / decode-everything loop, end to end", ">= 8 *", ours, decoded);
    drop(dir);

    // On bytes in memory, more of them than any cache holds.
    let copies: Vec<Vec<u8>> = (0..64).map(|_| body.to_vec()).collect();
    let bytes = (64 * body.len()) as u64;
    let searched = best(bytes, || {
        copies.iter().try_for_each(|raw| scan_block(raw, Some(NAMESPACE)).map(black_box).map(drop).map_err(Into::into))
    })?;
    let decoded = best(bytes, || {
        copies.iter().try_for_each(|raw| deserialize::<Block>(raw).map(black_box).map(drop).map_err(Into::into))
    })?;
    compare("search / decode-everything loop, in memory", ">= 20 *", searched, decoded);
    let checked = best(bytes, || copies.iter().try_for_each(|raw| check_block(raw).map_err(Into::into)))?;
    let decoded = best(bytes, || {
        copies.iter().try_for_each(|raw| {
            let block = deserialize::<Block>(raw)?;
            ensure!(block.check_merkle_root() && block.check_witness_commitment(), "it is mainnet's");
            Ok(())
        })
    })?;
    compare("whole check / the same by rust-bitcoin, in memory", "", checked, decoded);
    // A block's transactions are hashed with their witnesses and without.
    let hashed = best(bytes, || {
        copies.iter().chain(&copies).for_each(|raw| {
            black_box(sha256::Hash::hash(raw));
        });
        Ok(())
    })?;
    compare("whole check / SHA-256 of the same bytes, twice", "", checked, hashed);
    println!(
        "| RssAnon at its peak while {count} blocks ({} MB) were scanned: {:.1} MiB, {:.1} MiB before |",
        ours.bytes / 1_000_000,
        peak as f64 / 1024.0,
        before as f64 / 1024.0
    );
    Ok(())
}

/// A block of 4,000,000 weight units with so many envelopes, filled up with mainnet's bytes.
fn full_block(bitcoind: &Bitcoind, envelopes: usize, salt: usize) -> Result<()> {
    let payload = |n: usize| {
        let body = Body::Tx([[7; 40].to_vec(), (salt * 1_000_000 + n).to_le_bytes().to_vec()].concat());
        Payload { namespace: NAMESPACE, body }.encode()
    };
    let envelope = |n| Ok(Envelope { carrier: Carrier::OpReturn, payload: payload(n)? });
    // The last one's output is replaced by what fills the block.
    let envelopes: Vec<Envelope> = (0..=envelopes).map(envelope).collect::<Result<_>>()?;
    let mut txs = bitcoind.carry(&envelopes)?;
    let room = 4_000_000 - 4_000 - txs.iter().map(|tx| tx.weight().to_wu()).sum::<u64>();
    let filler = &bitcoin_test_data::blocks::mainnet_702861()[80..][..(room / 4) as usize - 400];
    let mut script = vec![0x6a, 0x4e];
    script.extend_from_slice(&u32::try_from(filler.len())?.to_le_bytes());
    script.extend_from_slice(filler);
    let last = txs.last_mut().context("a transaction")?;
    last.output = vec![TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) }];
    bitcoind.mine_block_with(&txs)?;
    Ok(())
}

/// Runs curl with one transfer for each block.
fn curl(config: &str) -> Result<()> {
    let mut curl = Command::new("curl")
        .args([
            "--silent",
            "--no-progress-meter",
            "--parallel",
            "--parallel-max",
            &CONNECTIONS.to_string(),
            "--config",
            "-",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    curl.stdin.take().context("a pipe")?.write_all(config.as_bytes())?;
    ensure!(curl.wait()?.success(), "curl failed");
    Ok(())
}

fn node() -> Result<()> {
    let bitcoind = Bitcoind::start()?;
    bitcoind.mine(120)?;
    let rpc = bitcoind.source()?;
    let rest: [Box<dyn BlockReader>; 1] = [Box::new(RestNode::connect(&bitcoind.rpc_url(), Network::Regtest)?)];
    let cookie = std::fs::read_to_string(bitcoind.cookie())?;
    for envelopes in [0, 1, 1_000] {
        let parent = rpc.tip()?;
        for salt in 0..EACH {
            full_block(&bitcoind, envelopes, salt)?;
        }
        let to = rpc.tip()?.height;
        let mut bytes = 0;
        let (mut by_rest, mut by_rpc) = (String::new(), String::new());
        for _ in 0..TIMES {
            for height in parent.height + 1..=to {
                let hash = bitcoind.block_hash(height)?;
                if bytes < (EACH * TIMES) as u64 * 4_000_000 {
                    bytes += rpc.block(&hash)?.len() as u64;
                }
                let url = bitcoind.rpc_url();
                by_rest += &format!("url = \"{url}/rest/block/{hash}.bin\"\noutput = \"/dev/null\"\nnext\n");
                by_rpc += &format!(
                    "url = \"{url}\"\nuser = \"{cookie}\"\noutput = \"/dev/null\"\n\
                     data = \"{{\\\"method\\\":\\\"getblock\\\",\\\"id\\\":0,\\\"params\\\":[\\\"{hash}\\\",0]}}\"\nnext\n"
                );
            }
        }
        let (by_rest, by_rpc) = (by_rest.trim_end_matches("next\n"), by_rpc.trim_end_matches("next\n"));
        let run = |scanner: Scanner<'_>| {
            for _ in 0..TIMES {
                ensure!(scan(scanner, parent, to)? == envelopes * EACH, "not every envelope was found");
            }
            Ok(())
        };
        let name = |what: &str| format!("{what}, {envelopes} envelopes a block / curl");
        let (with_rest, with_rpc) = (Scanner::from(&rpc).readers(&rest), Scanner::from(&rpc));
        run(with_rest)?;
        compare_by_clock(&name("REST"), ">= 0.9", best(bytes, || run(with_rest))?, best(bytes, || curl(by_rest))?);
        compare_by_clock(&name("RPC"), ">= 0.8", best(bytes, || run(with_rpc))?, best(bytes, || curl(by_rpc))?);
        let peak = peak_of(|| run(with_rest).and_then(|()| run(with_rpc)))?;
        println!(
            "| RssAnon at its peak over REST and RPC, {envelopes} envelopes a block: {:.1} MiB |",
            peak as f64 / 1024.0
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        // Under `cargo test` there is nothing to measure.
        return Ok(());
    }
    println!(
        "| MB/s                                                 | ours,  | ref,   | ratio  | ours,  | ref,   | ratio  | goal     |"
    );
    println!(
        "|                                                      | clock  | clock  |        | core   | core   |        | (* core) |"
    );
    node()?;
    files()
}
