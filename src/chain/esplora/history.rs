//! The histories of a wallet's scripts, as an Esplora server tells them.
//!
//! Guarantees that each transaction is the one named and adds up, that it has to do with the script it was asked for,
//! that a server which goes on for ever is stopped, and that blocks stand where BDK can put them: hashes hang together
//! and heights are heights.

use super::mempool::{MAX_INPUTS, Spend, Status};
use super::{Esplora, Listed, MAX_JSON};
use crate::chain::ChainError;
use crate::chain::bounded::Bounded;
use crate::chain::rpc::HEIGHTS;
use crate::primitives::BtcHeight;
use bdk_wallet::KeychainKind;
use bdk_wallet::chain::spk_client::{
    FullScanRequest, FullScanResponse, SpkWithExpectedTxids, SyncRequest, SyncResponse,
};
use bdk_wallet::chain::{BlockId, CheckPoint, ConfirmationBlockTime, TxUpdate};
use bitcoin::absolute::LockTime;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::FromHex;
use bitcoin::transaction::Version;
use bitcoin::{Amount, BlockHash, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// What people are told was asked.
const HISTORY: &str = "a wallet's history";
/// Requests at one time.
const PARALLEL: usize = 4;
/// Transactions on a full page; the first has those that wait as well, 50 at most.
const PAGE: usize = 25;
const MAX_PAGE: usize = 200;
/// What all transactions of a wallet may take in memory, in bytes: more than a hundred thousand usual ones.
const MAX_HISTORY: usize = 160_000_000;
/// The same, of one script.
const MAX_SCRIPT_HISTORY: usize = 20_000_000;
/// What a transaction takes in memory beside its own bytes, and an input or output.
const TRANSACTION_OVERHEAD: usize = 400;
const OVERHEAD: usize = 100;
/// As many outputs as fit into a block.
const MAX_OUTPUTS: usize = 112_000;

/// A transaction as the server writes it.
#[derive(Deserialize)]
struct Written {
    txid: Txid,
    version: i64,
    locktime: u32,
    vin: Bounded<Vin, MAX_INPUTS>,
    vout: Bounded<Vout, MAX_OUTPUTS>,
    status: Status,
}

#[derive(Deserialize)]
struct Vin {
    txid: Txid,
    vout: u32,
    #[serde(default)]
    prevout: Option<Vout>,
    #[serde(default)]
    scriptsig: ScriptBuf,
    #[serde(default, deserialize_with = "witness")]
    witness: Witness,
    sequence: u32,
}

#[derive(Deserialize)]
struct Vout {
    value: u64,
    scriptpubkey: ScriptBuf,
}

/// A witness of as many elements as it likes: each takes little more memory here than in the answer.
fn witness<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Witness, D::Error> {
    struct Elements;
    impl<'de> Visitor<'de> for Elements {
        type Value = Witness;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of hexadecimal strings")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Witness, A::Error> {
            let mut witness = Witness::new();
            while let Some(element) = elements.next_element::<String>()? {
                witness.push(Vec::<u8>::from_hex(&element).map_err(A::Error::custom)?);
            }
            Ok(witness)
        }
    }
    deserializer.deserialize_seq(Elements)
}

impl Written {
    /// Whether it pays or spends what belongs to `script`.
    fn concerns(&self, script: &Script) -> bool {
        let spent = self.vin.0.iter().filter_map(|input| input.prevout.as_ref());
        self.vout.0.iter().chain(spent).any(|output| output.scriptpubkey.as_script() == script)
    }

    /// The transaction, if that has the name it is given.
    fn read(self) -> Option<(Transaction, Status)> {
        let input = |input: Vin| TxIn {
            previous_output: OutPoint::new(input.txid, input.vout),
            script_sig: input.scriptsig,
            sequence: Sequence(input.sequence),
            witness: input.witness,
        };
        let output = |output: Vout| TxOut { value: Amount::from_sat(output.value), script_pubkey: output.scriptpubkey };
        let tx = Transaction {
            // Some give it with its sign, some without.
            version: Version(self.version as i32),
            lock_time: LockTime::from_consensus(self.locktime),
            input: self.vin.0.into_iter().map(input).collect(),
            output: self.vout.0.into_iter().map(output).collect(),
        };
        (tx.compute_txid() == self.txid).then_some((tx, self.status))
    }
}

/// What has been told so far.
struct History<'a> {
    server: &'a Esplora,
    start_time: u64,
    update: TxUpdate<ConfirmationBlockTime>,
    known: BTreeSet<Txid>,
    bytes: usize,
}

impl<'a> History<'a> {
    fn new(server: &'a Esplora, start_time: u64) -> Self {
        Self { server, start_time, update: TxUpdate::default(), known: BTreeSet::new(), bytes: 0 }
    }

    fn odd(&self, reason: impl fmt::Display) -> ChainError {
        self.server.malformed(HISTORY, reason)
    }

    /// Takes in one transaction.
    fn add(&mut self, tx: Transaction, status: Status) -> Result<(), ChainError> {
        let txid = tx.compute_txid();
        self.server.check_amounts(HISTORY, &tx.output)?;
        self.stands(&tx, status)?;
        self.place(txid, status)?;
        if self.known.insert(txid) {
            self.bytes += memory(&tx);
            if self.bytes > MAX_HISTORY {
                return Err(self.odd(format_args!("more than {MAX_HISTORY} bytes of transactions")));
            }
            self.update.txs.push(Arc::new(tx));
        }
        Ok(())
    }

    /// A coinbase is in a block, or nowhere.
    fn stands(&self, tx: &Transaction, status: Status) -> Result<(), ChainError> {
        match tx.is_coinbase() && status.block().is_none() {
            true => Err(self.odd("a coinbase that waits")),
            false => Ok(()),
        }
    }

    /// Notes where a transaction is: in a block, or in the mempool.
    fn place(&mut self, txid: Txid, status: Status) -> Result<(), ChainError> {
        match status.block() {
            Some(anchor) if (1..HEIGHTS).contains(&anchor.block_id.height) => {
                self.update.anchors.insert((anchor, txid));
            }
            Some(anchor) => return Err(self.odd(format_args!("{} as a height", anchor.block_id.height))),
            None => {
                self.update.seen_ats.insert((txid, self.start_time));
            }
        }
        Ok(())
    }

    /// Asks for the histories of scripts, as many at a time as servers like. Returns which of them were used.
    fn ask_scripts(&mut self, scripts: Vec<SpkWithExpectedTxids>) -> Result<Vec<bool>, ChainError> {
        let server = self.server;
        let pages = in_parallel(scripts, |script| {
            let found = server.history(&script.spk)?;
            Ok((script, found))
        })?;
        let mut used = Vec::with_capacity(pages.len());
        for (script, found) in pages {
            used.push(!found.is_empty());
            let mut missing = script.expected_txids;
            for (tx, status) in found {
                missing.remove(&tx.compute_txid());
                self.add(tx, status)?;
            }
            self.update.evicted_ats.extend(missing.into_iter().map(|txid| (txid, self.start_time)));
        }
        Ok(used)
    }

    /// Asks for transactions by their names.
    fn ask_transactions(&mut self, txids: impl IntoIterator<Item = Txid>) -> Result<(), ChainError> {
        let new: Vec<Txid> = txids.into_iter().filter(|txid| !self.known.contains(txid)).collect();
        let server = self.server;
        for txids in new.chunks(PARALLEL) {
            let found = in_parallel(txids.to_vec(), |txid| server.written(&txid))?;
            for (tx, status) in found.into_iter().flatten() {
                self.add(tx, status)?;
            }
        }
        Ok(())
    }

    /// Asks what spent these outputs.
    fn ask_spends(&mut self, outpoints: Vec<OutPoint>) -> Result<(), ChainError> {
        self.ask_transactions(outpoints.iter().map(|outpoint| outpoint.txid))?;
        let (server, mut spenders) = (self.server, BTreeSet::new());
        for outpoints in outpoints.chunks(PARALLEL) {
            for spend in in_parallel(outpoints.to_vec(), |outpoint| server.spend(&outpoint))?.into_iter().flatten() {
                spenders.extend(spend.txid.filter(|_| spend.spent));
            }
        }
        self.ask_transactions(spenders)
    }
}

impl Status {
    /// The block that it is in.
    fn block(&self) -> Option<ConfirmationBlockTime> {
        let (height, hash) = (self.block_height?, self.block_hash?);
        let confirmation_time = self.block_time?.into();
        self.confirmed.then_some(ConfirmationBlockTime { block_id: BlockId { height, hash }, confirmation_time })
    }
}

impl Esplora {
    /// Everything about a wallet's scripts, until `stop_gap` of them in a row were never used.
    pub(crate) fn full_scan(
        &self,
        mut request: FullScanRequest<KeychainKind>,
        stop_gap: usize,
    ) -> Result<FullScanResponse<KeychainKind>, ChainError> {
        self.question(|| {
            let latest = self.latest_blocks()?;
            let mut history = History::new(self, request.start_time());
            let mut last_active_indices = BTreeMap::new();
            for keychain in request.keychains() {
                let last_revealed = request.last_revealed(&keychain);
                let mut scripts = request.iter_spks(keychain);
                let mut unused = 0;
                while unused < stop_gap.max(1) {
                    let some: Vec<_> = scripts.by_ref().take(PARALLEL).collect();
                    if some.is_empty() {
                        break;
                    }
                    let (indices, scripts): (Vec<u32>, Vec<_>) =
                        some.into_iter().map(|(index, script)| (index, script.into())).unzip();
                    for (index, is_used) in indices.into_iter().zip(history.ask_scripts(scripts)?) {
                        if is_used {
                            last_active_indices.insert(keychain, index);
                            unused = 0;
                        } else if last_revealed.is_none_or(|last| index > last) {
                            unused += 1;
                        }
                    }
                }
            }
            let chain_update = self.chain_update(request.chain_tip(), &latest, &history.update)?;
            Ok(FullScanResponse { chain_update, tx_update: history.update, last_active_indices })
        })
    }

    /// Everything new about a wallet's revealed scripts.
    pub(crate) fn sync<I: Send>(&self, mut request: SyncRequest<I>) -> Result<SyncResponse, ChainError> {
        self.question(|| {
            let latest = self.latest_blocks()?;
            let mut history = History::new(self, request.start_time());
            let scripts: Vec<_> = request.iter_spks_with_expected_txids().collect();
            for scripts in scripts.chunks(PARALLEL) {
                history.ask_scripts(scripts.to_vec())?;
            }
            history.ask_transactions(request.iter_txids().collect::<Vec<_>>())?;
            history.ask_spends(request.iter_outpoints().collect())?;
            let chain_update = self.chain_update(request.chain_tip(), &latest, &history.update)?;
            Ok(SyncResponse { chain_update, tx_update: history.update })
        })
    }

    /// All outputs in the chain that pay one of `scripts` and are not spent there.
    pub(crate) fn unspent_of(&self, scripts: &[ScriptBuf]) -> Result<Vec<(OutPoint, TxOut)>, ChainError> {
        let request = SyncRequest::builder().spks(scripts.iter().cloned());
        let TxUpdate { txs, anchors, .. } = self.sync::<()>(request.build())?.tx_update;
        let mined: BTreeSet<Txid> = anchors.into_iter().map(|(_, txid)| txid).collect();
        let mut unspent = BTreeMap::new();
        let mut spent = BTreeSet::new();
        for tx in txs {
            let txid = tx.compute_txid();
            if mined.contains(&txid) {
                spent.extend(tx.input.iter().map(|input| input.previous_output));
                let paid = (0..).zip(&tx.output).filter(|(_, output)| scripts.contains(&output.script_pubkey));
                unspent.extend(paid.map(|(vout, output)| (OutPoint::new(txid, vout), output.clone())));
            }
        }
        unspent.retain(|outpoint, _| !spent.contains(outpoint));
        Ok(unspent.into_iter().collect())
    }

    /// All transactions of a script.
    fn history(&self, script: &Script) -> Result<Vec<(Transaction, Status)>, ChainError> {
        let base = format!("/scripthash/{:x}/txs", sha256::Hash::hash(script.as_bytes()));
        let (mut route, mut found, mut known, mut bytes) = (base.clone(), Vec::new(), BTreeSet::new(), 0);
        loop {
            let page = self.found(&route, MAX_JSON, |body| self.parse::<Bounded<Written, MAX_PAGE>>(&route, body))?;
            // A script that nobody used has an empty history, not none.
            let Bounded(page) = page.ok_or_else(|| self.malformed(&route, "nothing; is this an Esplora server?"))?;
            let (count, before) = (page.len(), known.len());
            for written in page {
                let (is_of_script, txid) = (written.concerns(script), written.txid);
                let (tx, status) = written
                    .read()
                    .filter(|_| is_of_script)
                    .ok_or_else(|| self.malformed(&route, format_args!("{txid}, which is another transaction")))?;
                bytes += memory(&tx);
                if known.insert(txid) {
                    found.push((tx, status));
                }
                route = format!("{base}/chain/{txid}");
            }
            if count < PAGE {
                return Ok(found);
            }
            if known.len() == before || bytes > MAX_SCRIPT_HISTORY {
                return Err(self.malformed(&base, "a history without end"));
            }
        }
    }

    /// A transaction and where it is.
    fn written(&self, txid: &Txid) -> Result<Option<(Transaction, Status)>, ChainError> {
        let route = format!("/tx/{txid}");
        let written = self.found(&route, MAX_JSON, |body| self.parse::<Written>(&route, body))?;
        let Some(written) = written else { return Ok(None) };
        let read = written.read().filter(|(tx, _)| tx.compute_txid() == *txid);
        read.map(Some).ok_or_else(|| self.malformed(&route, "another transaction"))
    }

    /// What became of an output.
    fn spend(&self, OutPoint { txid, vout }: &OutPoint) -> Result<Option<Spend>, ChainError> {
        let route = format!("/tx/{txid}/outspend/{vout}");
        self.found(&route, super::SHORT, |body| self.parse(&route, body))
    }

    /// The last blocks, each the child of the one before.
    fn latest_blocks(&self) -> Result<BTreeMap<BtcHeight, BlockHash>, ChainError> {
        const ROUTE: &str = "/blocks";
        let odd = || self.malformed(ROUTE, "blocks that do not hang together");
        let listed = self
            .found(ROUTE, super::BLOCK_LIST, |body| self.parse::<Bounded<Listed, { super::MAX_LISTED }>>(ROUTE, body));
        let Bounded(mut listed) = listed?.unwrap_or_default();
        listed.sort_by_key(|block| block.height);
        let mut blocks = BTreeMap::new();
        let mut parent: Option<&Listed> = None;
        for block in &listed {
            let header = block.header().filter(|_| block.height < HEIGHTS).ok_or_else(odd)?;
            let follows = |parent: &Listed| parent.height + 1 == block.height && parent.id == header.prev_blockhash;
            if !parent.is_none_or(follows) || (block.height == 0 && block.id != self.genesis()) {
                return Err(odd());
            }
            blocks.insert(block.height, block.id);
            parent = Some(block);
        }
        if blocks.is_empty() { Err(odd()) } else { Ok(blocks) }
    }

    fn genesis(&self) -> BlockHash {
        genesis_block(self.network).block_hash()
    }

    /// What the server's chain changes in the wallet's, up to the last of `latest`.
    fn chain_update(
        &self,
        local: Option<CheckPoint>,
        latest: &BTreeMap<BtcHeight, BlockHash>,
        update: &TxUpdate<ConfirmationBlockTime>,
    ) -> Result<Option<CheckPoint>, ChainError> {
        let Some(local) = local else { return Ok(None) };
        let tip = latest.keys().next_back().copied().unwrap_or_default();
        let hash_at = |height: BtcHeight| match latest.get(&height) {
            Some(hash) => Ok(Some(*hash)),
            None if height > tip => Ok(None),
            None => self.hash_at(height),
        };
        // Down to the last block that both have; the genesis block at the latest.
        let (mut agreed, mut differing) = (None, Vec::new());
        for known in local.iter() {
            match hash_at(known.height())? {
                Some(hash) if hash == known.hash() => {
                    agreed = Some(known);
                    break;
                }
                Some(hash) if known.height() > 0 => differing.push(BlockId { height: known.height(), hash }),
                _ => {}
            }
        }
        let disconnected = || self.malformed(HISTORY, "a chain that has nothing in common with the one known");
        let mut chain = agreed.ok_or_else(disconnected)?;
        let mined = update.anchors.iter().map(|(anchor, _)| anchor.block_id.height);
        let mut heights: BTreeSet<BtcHeight> = mined.filter(|height| *height <= tip).collect();
        heights.retain(|height| chain.get(*height).is_none() && !latest.contains_key(height));
        let mut blocks: BTreeMap<BtcHeight, BlockHash> = differing.iter().map(|id| (id.height, id.hash)).collect();
        for height in heights {
            blocks.extend(hash_at(height)?.map(|hash| (height, hash)));
        }
        blocks.extend(latest);
        for (height, hash) in blocks {
            if height > 0 {
                chain = chain.insert(BlockId { height, hash });
            }
        }
        Ok(Some(chain))
    }

    fn hash_at(&self, height: BtcHeight) -> Result<Option<BlockHash>, ChainError> {
        let route = format!("/block-height/{height}");
        let text = self.found(&route, super::SHORT, |body| Ok(String::from_utf8_lossy(body).trim().to_owned()))?;
        text.map(|text| text.parse().map_err(|error| self.malformed(&route, error))).transpose()
    }
}

/// What a transaction takes in memory, in bytes, about.
fn memory(tx: &Transaction) -> usize {
    tx.total_size() + TRANSACTION_OVERHEAD + OVERHEAD * (tx.input.len() + tx.output.len())
}

/// Answers to several questions at a time, in their order.
fn in_parallel<Q: Send, A: Send>(
    questions: Vec<Q>,
    ask: impl Fn(Q) -> Result<A, ChainError> + Sync,
) -> Result<Vec<A>, ChainError> {
    let ask = &ask;
    std::thread::scope(|scope| {
        let asked: Vec<_> = questions.into_iter().map(|question| scope.spawn(move || ask(question))).collect();
        let answers =
            asked.into_iter().map(|answer| answer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        // All of them end before the first error is told.
        answers.collect::<Vec<_>>().into_iter().collect()
    })
}
