//! What a chain and a mempool hold, found again by script, by output and by id.
//!
//! Facts about transactions are only ever added; whether one is confirmed, waits or is gone is looked up
//! last. So a reorganisation changes two small sets, and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Result;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{BlockHash, OutPoint, Script, Transaction, TxOut, Txid};
use bitcoincore_rpc::{Client, RpcApi};

/// A block of the best chain.
pub struct Indexed {
    pub hash: BlockHash,
    pub time: u32,
    pub txids: Vec<Txid>,
}

/// The best chain from genesis on, the mempool, and every transaction ever seen in one of them.
#[derive(Default)]
pub struct Index {
    pub chain: Vec<Indexed>,
    pub mempool: BTreeSet<Txid>,
    txs: HashMap<Txid, Transaction>,
    confirmed: HashMap<Txid, u32>,
    by_script: HashMap<sha256::Hash, BTreeSet<Txid>>,
    by_output: HashMap<OutPoint, BTreeSet<Txid>>,
}

/// Esplora's name for an output script.
pub fn script_hash(script: &Script) -> sha256::Hash {
    sha256::Hash::hash(script.as_bytes())
}

impl Index {
    /// Reads what is new on the node.
    pub fn refresh(&mut self, node: &Client) -> Result<()> {
        let height = node.get_block_count()?;
        while let Some(last) = self.chain.last() {
            let at = self.chain.len() as u64 - 1;
            if at <= height && node.get_block_hash(at)? == last.hash {
                break;
            }
            for txid in self.chain.pop().into_iter().flat_map(|block| block.txids) {
                self.confirmed.remove(&txid);
            }
        }
        for at in self.chain.len() as u64..=height {
            let hash = node.get_block_hash(at)?;
            let block = node.get_block(&hash)?;
            let txids: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
            for (tx, txid) in block.txdata.into_iter().zip(&txids) {
                self.learn(tx);
                self.confirmed.insert(*txid, u32::try_from(at)?);
            }
            self.chain.push(Indexed { hash, time: block.header.time, txids });
        }
        self.mempool = node.get_raw_mempool()?.into_iter().collect();
        let unknown: Vec<Txid> = self.mempool.iter().filter(|txid| !self.txs.contains_key(*txid)).copied().collect();
        for txid in unknown {
            match node.get_raw_transaction(&txid, None) {
                Ok(tx) => self.learn(tx),
                // It left in between.
                Err(_) => drop(self.mempool.remove(&txid)),
            }
        }
        Ok(())
    }

    fn learn(&mut self, tx: Transaction) {
        let txid = tx.compute_txid();
        for output in &tx.output {
            self.by_script.entry(script_hash(&output.script_pubkey)).or_default().insert(txid);
        }
        for input in &tx.input {
            self.by_output.entry(input.previous_output).or_default().insert(txid);
            if let Some(spent) = self.output(&input.previous_output) {
                let script = script_hash(&spent.script_pubkey);
                self.by_script.entry(script).or_default().insert(txid);
            }
        }
        self.txs.insert(txid, tx);
    }

    /// Shows a transaction as mined in the block at `height`, or as waiting, whether or not it is.
    pub fn make_up(&mut self, tx: &Transaction, height: Option<u32>) {
        let txid = tx.compute_txid();
        self.learn(tx.clone());
        match height.and_then(|height| Some((height, self.chain.get_mut(height as usize)?))) {
            None => drop(self.mempool.insert(txid)),
            Some((height, block)) => {
                if self.confirmed.insert(txid, height).is_none() {
                    block.txids.push(txid);
                }
            }
        }
    }

    /// A transaction of the chain or the mempool.
    pub fn tx(&self, txid: &Txid) -> Option<&Transaction> {
        let present = self.confirmed.contains_key(txid) || self.mempool.contains(txid);
        self.txs.get(txid).filter(|_| present)
    }

    /// Where a transaction is confirmed.
    pub fn block_of(&self, txid: &Txid) -> Option<(u32, &Indexed)> {
        let height = *self.confirmed.get(txid)?;
        Some((height, self.chain.get(height as usize)?))
    }

    /// An output, whether or not it is spent or its transaction gone.
    pub fn output(&self, outpoint: &OutPoint) -> Option<&TxOut> {
        self.txs.get(&outpoint.txid)?.output.get(outpoint.vout as usize)
    }

    /// Who spends an output in the chain or the mempool, and with which input.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<(Txid, usize)> {
        let spenders = self.by_output.get(outpoint)?;
        let txid = spenders.iter().find(|txid| self.tx(txid).is_some())?;
        let input = self.tx(txid)?.input.iter().position(|input| input.previous_output == *outpoint)?;
        Some((*txid, input))
    }

    /// What waits for a script.
    pub fn waiting(&self, script: &sha256::Hash) -> Vec<Txid> {
        let txids = self.by_script.get(script).into_iter().flatten();
        txids.filter(|txid| self.mempool.contains(*txid)).copied().collect()
    }

    /// A script's confirmed transactions, newest first.
    pub fn confirmed(&self, script: &sha256::Hash) -> Vec<Txid> {
        let txids = self.by_script.get(script).into_iter().flatten();
        let mut newest: BTreeMap<(u32, usize), Txid> = BTreeMap::new();
        for txid in txids {
            if let Some((height, block)) = self.block_of(txid)
                && let Some(position) = block.txids.iter().position(|other| other == txid)
            {
                newest.insert((height, position), *txid);
            }
        }
        newest.into_values().rev().collect()
    }

    /// Position in its block and the hashes next to its path, as Electrum counts them.
    pub fn merkle_path(&self, txid: &Txid) -> Option<(usize, Vec<Txid>)> {
        let (_, block) = self.block_of(txid)?;
        let position = block.txids.iter().position(|other| other == txid)?;
        let mut layer: Vec<[u8; 32]> = block.txids.iter().map(|txid| txid.to_byte_array()).collect();
        let (mut at, mut path) = (position, Vec::new());
        while layer.len() > 1 {
            if layer.len() % 2 == 1 {
                layer.extend(layer.last().copied());
            }
            path.push(Txid::from_byte_array(*layer.get(at ^ 1)?));
            layer = layer
                .chunks(2)
                .map(|pair| bitcoin::hashes::sha256d::Hash::hash(&pair.concat()).to_byte_array())
                .collect();
            at /= 2;
        }
        Some((position, path))
    }

    /// What a transaction pays.
    pub fn fee(&self, tx: &Transaction) -> Result<u64> {
        if tx.is_coinbase() {
            return Ok(0);
        }
        let spent = tx.input.iter().map(|input| Some(self.output(&input.previous_output)?.value.to_sat()));
        // Of a transaction that was made up, nothing adds up.
        let spent = spent.sum::<Option<u64>>().unwrap_or_default();
        let paid: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
        Ok(spent.saturating_sub(paid))
    }
}
