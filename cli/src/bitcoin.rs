//! Bitcoin as a command reaches it: a node or an Esplora server, and others that transactions also go to.

use crate::failure::Failure;
use bitcoin::block::Header;
use bitcoin::{BlockHash, FeeRate, Network, OutPoint, Transaction, TxOut, Txid};
use sortie::chain::{BlockSource, ChainError, Esplora, Mempool, MempoolEntry, RelayFacts, RpcNode, Verdict};
use sortie::primitives::{BlockRef, BtcHeight};
use sortie::wallet::WalletSource;
use std::time::Duration;

/// How long one look at an unchanged chain lasts on a node, which tells of a new block at once.
const LOOK: Duration = Duration::from_secs(1);

/// Where the chain is read.
#[derive(Debug)]
pub enum Source {
    Node(Box<RpcNode>),
    Esplora(Box<Esplora>),
}

/// A source, and servers that get a copy of whatever is sent.
#[derive(Debug)]
pub struct Bitcoin {
    source: Source,
    also: Vec<Esplora>,
}

/// Asks the source, whichever it is.
macro_rules! ask {
    ($bitcoin:expr, $source:ident => $answer:expr) => {
        match &$bitcoin.source {
            Source::Node($source) => $answer,
            Source::Esplora($source) => $answer,
        }
    };
}

impl Bitcoin {
    /// Reads from `source`, and broadcasts through it and all of `also`.
    pub fn new(source: Source, also: Vec<Esplora>) -> Self {
        Self { source, also }
    }

    /// The network that was checked on connecting.
    pub fn network(&self) -> Network {
        ask!(self, source => source.network())
    }

    /// How long to wait for a new block before looking at anything else.
    pub fn look(&self) -> Duration {
        match &self.source {
            Source::Node(_) => LOOK,
            Source::Esplora(server) => server.poll_interval(),
        }
    }

    /// Who is asked for fee rates, in this order.
    pub fn sources(&self) -> Vec<&dyn Mempool> {
        std::iter::once(self as &dyn Mempool).chain(self.also.iter().map(|server| server as &dyn Mempool)).collect()
    }

    /// The node, if that is what it is.
    pub fn node(&self) -> Option<&RpcNode> {
        match &self.source {
            Source::Node(node) => Some(node),
            Source::Esplora(_) => None,
        }
    }

    /// The node, for what no server can do.
    pub fn into_node(self) -> Result<RpcNode, Failure> {
        match self.source {
            Source::Node(node) => Ok(*node),
            Source::Esplora(_) => Err(Failure::usage(
                "a sequencer needs a Bitcoin node of its own; set --bitcoin-url instead of --esplora-url",
            )),
        }
    }
}

impl<'a> From<&'a Bitcoin> for WalletSource<'a> {
    fn from(bitcoin: &'a Bitcoin) -> Self {
        match &bitcoin.source {
            Source::Node(node) => node.as_ref().into(),
            Source::Esplora(server) => server.as_ref().into(),
        }
    }
}

impl BlockSource for Bitcoin {
    fn tip(&self) -> Result<BlockRef, ChainError> {
        ask!(self, source => source.tip())
    }

    fn block_hash(&self, height: BtcHeight) -> Result<Option<BlockHash>, ChainError> {
        ask!(self, source => source.block_hash(height))
    }

    fn header(&self, hash: &BlockHash) -> Result<Header, ChainError> {
        ask!(self, source => source.header(hash))
    }

    fn headers(&self, first: BtcHeight, count: u32) -> Result<Vec<Header>, ChainError> {
        ask!(self, source => source.headers(first, count))
    }

    fn block(&self, hash: &BlockHash) -> Result<Vec<u8>, ChainError> {
        ask!(self, source => source.block(hash))
    }

    fn read_block(&self, hash: &BlockHash, raw: &mut Vec<u8>) -> Result<(), ChainError> {
        ask!(self, source => source.read_block(hash, raw))
    }

    fn lanes(&self) -> usize {
        ask!(self, source => source.lanes())
    }

    fn is_own(&self) -> bool {
        ask!(self, source => source.is_own())
    }

    fn wait_for_tip(&self, current: &BlockHash, timeout: Duration) -> Result<BlockRef, ChainError> {
        ask!(self, source => source.wait_for_tip(current, timeout))
    }
}

impl Mempool for Bitcoin {
    fn relay(&self) -> Result<RelayFacts, ChainError> {
        ask!(self, source => source.relay())
    }

    fn test_accept(&self, package: &[Transaction], max_fee_rate: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        ask!(self, source => source.test_accept(package, max_fee_rate))
    }

    /// To all of them; it has left if one of them takes it.
    fn submit(&self, package: &[Transaction], max_fee_rate: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        let first = ask!(self, source => source.submit(package, max_fee_rate));
        self.also.iter().map(|server| server.submit(package, max_fee_rate)).fold(first, better)
    }

    fn entry(&self, txid: &Txid) -> Result<Option<MempoolEntry>, ChainError> {
        ask!(self, source => source.entry(txid))
    }

    fn is_waiting(&self, txid: &Txid) -> Result<bool, ChainError> {
        ask!(self, source => source.is_waiting(txid))
    }

    fn transaction(&self, txid: &Txid) -> Result<Option<Transaction>, ChainError> {
        ask!(self, source => source.transaction(txid))
    }

    fn unspent(&self, outpoint: &OutPoint) -> Result<Option<(TxOut, u32)>, ChainError> {
        ask!(self, source => source.unspent(outpoint))
    }

    fn missing(&self, outpoints: &[OutPoint]) -> Result<Vec<OutPoint>, ChainError> {
        ask!(self, source => source.missing(outpoints))
    }

    fn estimate(&self, target_blocks: u16) -> Result<Option<FeeRate>, ChainError> {
        ask!(self, source => source.estimate(target_blocks))
    }

    fn recently_paid(&self) -> Result<Option<FeeRate>, ChainError> {
        ask!(self, source => source.recently_paid())
    }

    fn is_own_node(&self) -> bool {
        ask!(self, source => source.is_own_node())
    }

    fn name(&self) -> &str {
        ask!(self, source => source.name())
    }
}

/// For each transaction, the answer of whoever took it; else the first answer there was. That one refuses says nothing
/// as long as another has perhaps taken it, and its answer was lost.
fn better(
    first: Result<Vec<Verdict>, ChainError>,
    second: Result<Vec<Verdict>, ChainError>,
) -> Result<Vec<Verdict>, ChainError> {
    match (first, second) {
        (Ok(first), Ok(second)) => {
            let taken = |(first, second): (Verdict, Verdict)| match first.answer.is_ok() {
                false if second.answer.is_ok() => second,
                _ => first,
            };
            Ok(first.into_iter().zip(second).map(taken).collect())
        }
        (Ok(verdicts), Err(error)) | (Err(error), Ok(verdicts)) => {
            let is_taken = verdicts.iter().all(|verdict| verdict.answer.is_ok());
            if is_taken { Ok(verdicts) } else { Err(error) }
        }
        (Err(error), Err(_)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;
    use sortie::chain::Answer;

    fn verdicts(answers: &[Answer]) -> Result<Vec<Verdict>, ChainError> {
        let verdict = |answer: &Answer| Verdict { txid: Txid::all_zeros(), answer: answer.clone() };
        Ok(answers.iter().map(verdict).collect())
    }

    #[test]
    fn what_one_of_them_takes_has_left() {
        let refused = || Answer::Refused("no".into());
        let dead = || Err(ChainError::NotFound("me".into()));
        let both = better(verdicts(&[Answer::Accepted, refused()]), verdicts(&[refused(), Answer::Known]));
        assert_eq!(both.ok(), verdicts(&[Answer::Accepted, Answer::Known]).ok());
        assert_eq!(better(dead(), verdicts(&[Answer::Accepted])).ok(), verdicts(&[Answer::Accepted]).ok());
        assert_eq!(better(verdicts(&[Answer::Accepted]), dead()).ok(), verdicts(&[Answer::Accepted]).ok());
        assert!(better(verdicts(&[Answer::Accepted, refused()]), dead()).is_err(), "nobody knows");
        assert!(better(dead(), dead()).is_err());
    }
}
