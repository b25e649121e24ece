//! Blocks on demand.
//!
//! Nobody owns the harness's coins: it mines to P2WSH of `OP_TRUE`, whose witness is the script.

use anyhow::{Context, Result};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::script::Builder;
use bitcoin::{Address, BlockHash, Network, ScriptBuf, Transaction, Txid};
use serde_json::{Value, json};

use crate::bitcoind::{Bitcoind, parsed};

/// Blocks per call, far below the client's timeout of 15 seconds.
const BATCH: u32 = 100;

/// What [`Bitcoind::mine_block_with`] puts into a block; `&dyn Minable` mixes them.
pub trait Minable {
    /// A raw transaction in hex, or the id of one in the mempool.
    fn to_param(&self) -> String;
}

impl Minable for Transaction {
    fn to_param(&self) -> String {
        serialize_hex(self)
    }
}

impl Minable for Txid {
    fn to_param(&self) -> String {
        self.to_string()
    }
}

impl<T: Minable + ?Sized> Minable for &T {
    fn to_param(&self) -> String {
        (**self).to_param()
    }
}

/// The script that anyone satisfies.
pub(crate) fn anyone_script() -> ScriptBuf {
    Builder::new().push_opcode(OP_TRUE).into_script()
}

impl Bitcoind {
    /// P2WSH of `OP_TRUE`: where the harness mines to and takes its coins from.
    pub fn anyone_address() -> Address {
        Address::p2wsh(&anyone_script(), Network::Regtest)
    }

    /// Mines `n` blocks with what the mempool offers.
    ///
    /// # Errors
    /// See [`Bitcoind::call`].
    pub fn mine(&self, n: u32) -> Result<Vec<BlockHash>> {
        self.mine_to(&Self::anyone_address(), n)
    }

    /// Mines `n` blocks that pay their subsidy to `address`, spendable 100 blocks later.
    ///
    /// # Errors
    /// See [`Bitcoind::call`].
    pub fn mine_to(&self, address: &Address, n: u32) -> Result<Vec<BlockHash>> {
        let mut hashes = Vec::new();
        let mut left = n;
        while left > 0 {
            let batch = left.min(BATCH);
            let mined = self.call("generatetoaddress", &[json!(batch), json!(address)])?;
            for hash in mined.as_array().context("a list of hashes")? {
                hashes.push(parsed(hash)?);
            }
            left -= batch;
        }
        Ok(hashes)
    }

    /// Mines one block with exactly these transactions, in this order. The mempool has no say.
    ///
    /// # Errors
    /// A transaction is invalid, out of order, or an id is not in the mempool.
    pub fn mine_block_with<T: Minable>(&self, txs: &[T]) -> Result<BlockHash> {
        self.mine_exactly(json!(Self::anyone_address()), txs)
    }

    /// Mines `n` blocks that contain nothing, whatever waits in the mempool.
    ///
    /// # Errors
    /// See [`Bitcoind::call`].
    pub fn mine_empty(&self, n: u32) -> Result<Vec<BlockHash>> {
        (0..n).map(|_| self.mine_block_with::<Txid>(&[])).collect()
    }

    /// `output` is an address or a descriptor.
    pub(crate) fn mine_exactly<T: Minable>(&self, output: Value, txs: &[T]) -> Result<BlockHash> {
        let txs: Vec<_> = txs.iter().map(Minable::to_param).collect();
        let mined = self.call("generateblock", &[output, json!(txs)])?;
        parsed(&mined["hash"])
    }
}
