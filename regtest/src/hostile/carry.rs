//! Envelopes into blocks, paid with coins that belong to anyone.

use super::paper::PaperBitcoin;
use crate::Bitcoind;
use crate::bitcoind::text;
use crate::mining::anyone_script;
use anyhow::{Context, Result};
use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::key::UntweakedPublicKey;
use bitcoin::secp256k1::{All, Keypair, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TaprootBuilder, TaprootSpendInfo};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, TapSighashType, Transaction, TxIn, TxOut, Txid, Witness, WitnessProgram,
};
use serde_json::json;
use sortie::envelope::{Carrier, leaf_script, op_return_script};
use sortie::primitives::BlockRef;
use std::sync::LazyLock;

static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// Below this a Taproot output is dust.
const LEAST_OUTPUT: u64 = 330;
/// Seconds that Bitcoin's clock goes on with each block that holds envelopes.
const SPACING: u64 = 600;

/// A payload, and how a Bitcoin transaction of its own carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// In an input or in an output.
    pub carrier: Carrier,
    /// The payload, whole: magic bytes, namespace, kind, body.
    pub payload: Vec<u8>,
}

/// A Bitcoin whose next block the kit decides.
pub trait Miner {
    /// Mines one block with these envelopes in this order, ten minutes after the block before.
    ///
    /// # Errors
    /// The block would not be valid, or the node does not answer.
    fn mine_envelopes(&self, envelopes: &[Envelope]) -> Result<BlockRef>;
}

impl Miner for Bitcoind {
    /// The node's clock stands still at the block's time afterwards; see [`Bitcoind::set_mocktime`].
    fn mine_envelopes(&self, envelopes: &[Envelope]) -> Result<BlockRef> {
        let txs = if envelopes.is_empty() { Vec::new() } else { self.carry(envelopes)? };
        let before = self.call("getblockheader", &[json!(self.tip()?)])?;
        let time = before["time"].as_u64().context("a block's time")?;
        self.set_mocktime(time + SPACING)?;
        let hash = self.mine_block_with(&txs)?;
        Ok(BlockRef { height: self.height()?, hash })
    }
}

impl Miner for PaperBitcoin {
    fn mine_envelopes(&self, envelopes: &[Envelope]) -> Result<BlockRef> {
        let carry = |envelope| carriers(std::slice::from_ref(envelope), |_| (self.new_coin(), Amount::from_sat(1)));
        Ok(self.mine(envelopes.iter().flat_map(carry).collect()))
    }
}

impl Bitcoind {
    /// Transactions that carry these envelopes, one each, behind the two that pay for them.
    ///
    /// They are valid and relayed in this order, at 1 sat/vB: hand them to
    /// [`mine_block_with`](Self::mine_block_with) or, one by one, to [`send`](Self::send). The first is in the
    /// mempool already.
    ///
    /// # Errors
    /// As [`fund`](Self::fund).
    pub fn carry(&self, envelopes: &[Envelope]) -> Result<Vec<Transaction>> {
        let costs: Vec<_> = envelopes.iter().map(cost).collect();
        let mut split = spend_anyones(OutPoint::null(), Vec::new());
        split.output = envelopes.iter().zip(&costs).map(|(envelope, cost)| coin_for(envelope, *cost)).collect();
        let sum: Amount = split.output.iter().map(|output| output.value).sum();
        let total = sum + Amount::from_sat(split.vsize() as u64).max(Amount::from_sat(LEAST_OUTPUT));
        let funded = self.fund(&Self::anyone_address(), total)?;
        split.input[0].previous_output = funded;
        let txid = split.compute_txid();
        let values: Vec<_> = split.output.iter().map(|output| output.value).collect();
        let coin = |at: usize| (OutPoint::new(txid, u32::try_from(at).unwrap_or(u32::MAX)), values[at]);
        let mut txs = vec![self.mempool_transaction(&funded.txid)?, split];
        txs.extend(carriers(envelopes, coin));
        Ok(txs)
    }

    fn mempool_transaction(&self, txid: &Txid) -> Result<Transaction> {
        let hex = self.call("getrawtransaction", &[json!(txid)])?;
        Ok(deserialize_hex(text(&hex)?)?)
    }
}

/// One transaction for each envelope, which spends the coin at its place in the list.
fn carriers(envelopes: &[Envelope], coin: impl Fn(usize) -> (OutPoint, Amount)) -> Vec<Transaction> {
    let carry = |(at, envelope)| {
        let (outpoint, value) = coin(at);
        carrier(envelope, outpoint, value)
    };
    envelopes.iter().enumerate().map(carry).collect()
}

fn carrier(envelope: &Envelope, coin: OutPoint, value: Amount) -> Transaction {
    let Envelope { carrier, payload } = envelope;
    match carrier {
        Carrier::OpReturn => {
            let output = TxOut { value: Amount::ZERO, script_pubkey: op_return_script(payload) };
            spend_anyones(coin, vec![output])
        }
        Carrier::Taproot => {
            let leaf = Leaf::new(payload);
            // What is left goes to the fee; an output is needed.
            let nothing = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return([0; 4]) };
            let mut tx = spend_anyones(coin, vec![nothing]);
            tx.input[0].witness = leaf.witness(&tx, value);
            tx
        }
    }
}

/// What a carrier pays at 1 sat/vB.
fn cost(envelope: &Envelope) -> u64 {
    carrier(envelope, OutPoint::null(), Amount::ZERO).vsize() as u64
}

fn coin_for(envelope: &Envelope, cost: u64) -> TxOut {
    let script_pubkey = match envelope.carrier {
        Carrier::OpReturn => Bitcoind::anyone_address().script_pubkey(),
        Carrier::Taproot => Leaf::new(&envelope.payload).script_pubkey(),
    };
    TxOut { value: Amount::from_sat(cost.max(LEAST_OUTPUT)), script_pubkey }
}

fn spend_anyones(coin: OutPoint, output: Vec<TxOut>) -> Transaction {
    let input = TxIn {
        previous_output: coin,
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(&[anyone_script()]),
        ..TxIn::default()
    };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output }
}

/// A leaf whose key everyone knows.
struct Leaf {
    keypair: Keypair,
    script: ScriptBuf,
    spend: TaprootSpendInfo,
}

impl Leaf {
    fn new(payload: &[u8]) -> Self {
        let secret = SecretKey::from_slice(&[1; 32]).expect("a small number is a secret key");
        let keypair = Keypair::from_secret_key(&SECP, &secret);
        let key: UntweakedPublicKey = keypair.x_only_public_key().0;
        let script = leaf_script(payload, &key);
        let tree = TaprootBuilder::new().add_leaf(0, script.clone()).expect("one leaf at depth 0");
        let spend = tree.finalize(&SECP, key).expect("a tree of one leaf");
        Self { keypair, script, spend }
    }

    fn script_pubkey(&self) -> ScriptBuf {
        ScriptBuf::new_witness_program(&WitnessProgram::p2tr_tweaked(self.spend.output_key()))
    }

    fn witness(&self, tx: &Transaction, value: Amount) -> Witness {
        let spent = [TxOut { value, script_pubkey: self.script_pubkey() }];
        let leaf = TapLeafHash::from_script(&self.script, LeafVersion::TapScript);
        let hash = SighashCache::new(tx)
            .taproot_script_spend_signature_hash(0, &Prevouts::All(&spent), leaf, TapSighashType::Default)
            .expect("the only input has the only output that it spends");
        let message = Message::from_digest(hash.to_byte_array());
        let signature = SECP.sign_schnorr_no_aux_rand(&message, &self.keypair);
        let control = self.spend.control_block(&(self.script.clone(), LeafVersion::TapScript)).expect("its only leaf");
        let mut witness = Witness::new();
        witness.push(signature.serialize());
        witness.push(&self.script);
        witness.push(control.serialize());
        witness
    }
}
