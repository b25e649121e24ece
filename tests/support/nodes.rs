//! A real node some of whose answers are not its own: what goes wrong between a wallet and Bitcoin.

use bitcoin::{FeeRate, OutPoint, Transaction, TxOut, Txid};
use sortie::chain::{Answer, ChainError, Mempool, MempoolEntry, RelayFacts, RpcNode, Verdict};

/// What is changed of a node's answers; the others are the node's own.
pub trait Alteration {
    /// Whether the node tells what it has.
    const TELLS: bool = true;

    fn relay(&self, node: &RpcNode) -> Result<RelayFacts, ChainError> {
        node.relay()
    }

    fn test_accept(&self, node: &RpcNode, package: &[Transaction], limit: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        node.test_accept(package, limit)
    }

    fn submit(&self, node: &RpcNode, package: &[Transaction], limit: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        node.submit(package, limit)
    }

    fn entry(&self, entry: MempoolEntry) -> MempoolEntry {
        entry
    }

    fn estimate(&self, node: &RpcNode, target: u16) -> Result<Option<FeeRate>, ChainError> {
        node.estimate(target)
    }
}

/// A real node, altered. What recent blocks paid is not known.
pub struct Altered<'a, A>(pub &'a RpcNode, pub A);

impl<A: Alteration> Mempool for Altered<'_, A> {
    fn relay(&self) -> Result<RelayFacts, ChainError> {
        self.1.relay(self.0)
    }

    fn test_accept(&self, package: &[Transaction], limit: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        self.1.test_accept(self.0, package, limit)
    }

    fn submit(&self, package: &[Transaction], limit: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        self.1.submit(self.0, package, limit)
    }

    fn entry(&self, txid: &Txid) -> Result<Option<MempoolEntry>, ChainError> {
        let entry = if A::TELLS { self.0.entry(txid)? } else { None };
        Ok(entry.map(|entry| self.1.entry(entry)))
    }

    fn transaction(&self, txid: &Txid) -> Result<Option<Transaction>, ChainError> {
        if A::TELLS { self.0.transaction(txid) } else { Ok(None) }
    }

    fn unspent(&self, outpoint: &OutPoint) -> Result<Option<(TxOut, u32)>, ChainError> {
        if A::TELLS { self.0.unspent(outpoint) } else { Ok(None) }
    }

    fn missing(&self, outpoints: &[OutPoint]) -> Result<Vec<OutPoint>, ChainError> {
        self.0.missing(outpoints)
    }

    fn estimate(&self, target: u16) -> Result<Option<FeeRate>, ChainError> {
        self.1.estimate(self.0, target)
    }
}

/// A node or server that does not tell of any coin that it is spent: as it was a moment earlier.
pub struct Unasked<'a, M>(pub &'a M);

impl<M: Mempool> Mempool for Unasked<'_, M> {
    fn relay(&self) -> Result<RelayFacts, ChainError> {
        self.0.relay()
    }

    fn test_accept(&self, package: &[Transaction], limit: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        self.0.test_accept(package, limit)
    }

    fn submit(&self, package: &[Transaction], limit: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        self.0.submit(package, limit)
    }

    fn entry(&self, txid: &Txid) -> Result<Option<MempoolEntry>, ChainError> {
        self.0.entry(txid)
    }

    fn transaction(&self, txid: &Txid) -> Result<Option<Transaction>, ChainError> {
        self.0.transaction(txid)
    }

    fn unspent(&self, outpoint: &OutPoint) -> Result<Option<(TxOut, u32)>, ChainError> {
        self.0.unspent(outpoint)
    }

    fn missing(&self, _: &[OutPoint]) -> Result<Vec<OutPoint>, ChainError> {
        Ok(Vec::new())
    }

    fn estimate(&self, target: u16) -> Result<Option<FeeRate>, ChainError> {
        self.0.estimate(target)
    }
}

/// It does not take replacements of this transaction.
pub struct NoReplacing(pub Txid);

impl NoReplacing {
    fn conflicts(&self, node: &RpcNode, package: &[Transaction]) -> Result<Option<Verdict>, ChainError> {
        let Some(kept) = node.transaction(&self.0)? else { return Ok(None) };
        let inputs: Vec<OutPoint> = kept.input.iter().map(|input| input.previous_output).collect();
        let conflict = package.iter().find(|tx| {
            tx.compute_txid() != self.0 && tx.input.iter().any(|input| inputs.contains(&input.previous_output))
        });
        Ok(conflict.map(|tx| refused(tx, "too many potential replacements")))
    }
}

impl Alteration for NoReplacing {
    fn test_accept(&self, node: &RpcNode, package: &[Transaction], limit: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        match self.conflicts(node, package)? {
            Some(refused) => Ok(vec![refused]),
            None => node.test_accept(package, limit),
        }
    }

    fn submit(&self, node: &RpcNode, package: &[Transaction], limit: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        match self.conflicts(node, package)? {
            Some(refused) => Ok(vec![refused]),
            None => node.submit(package, limit),
        }
    }
}

/// It has no package relay, such as those before Core 28.
pub struct NoPackages;

impl Alteration for NoPackages {
    fn relay(&self, node: &RpcNode) -> Result<RelayFacts, ChainError> {
        Ok(RelayFacts { packages: false, ..node.relay()? })
    }

    fn submit(&self, node: &RpcNode, package: &[Transaction], limit: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        let one_by_one = package.iter().map(|tx| node.submit(std::slice::from_ref(tx), limit));
        Ok(one_by_one.collect::<Result<Vec<_>, _>>()?.concat())
    }
}

/// It is behind a server that hands it the first transaction of a package only, and asks another node about it.
pub struct TakesFirst;

impl Alteration for TakesFirst {
    const TELLS: bool = false;

    fn test_accept(&self, _: &RpcNode, package: &[Transaction], _: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        let untested = |tx: &Transaction| Verdict { txid: tx.compute_txid(), answer: Answer::Untested };
        Ok(package.iter().map(untested).collect())
    }

    fn submit(&self, node: &RpcNode, package: &[Transaction], limit: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        let mut verdicts = node.submit(&package[..1], limit)?;
        verdicts.extend(package[1..].iter().map(|tx| refused(tx, "bad-txns-inputs-missingorspent")));
        Ok(verdicts)
    }
}

/// It is asked just before somebody else sends it the same: what it has shows in its answers only.
pub struct Overtaken;

impl Alteration for Overtaken {
    const TELLS: bool = false;
}

/// Nothing gets through to it that is sent.
pub struct Cut;

impl Alteration for Cut {
    fn submit(&self, _: &RpcNode, _: &[Transaction], _: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        Err(ChainError::Unreachable { url: "nowhere".into(), reason: "cut off".into() })
    }
}

/// Its answers about the mempool claim much more than is there.
pub struct Exaggerating;

impl Alteration for Exaggerating {
    fn entry(&self, entry: MempoolEntry) -> MempoolEntry {
        MempoolEntry { vsize: 90_000, ancestors_vsize: 90_000, ..entry }
    }
}

fn refused(tx: &Transaction, reason: &str) -> Verdict {
    Verdict { txid: tx.compute_txid(), answer: Answer::Refused(reason.into()) }
}

/// It does not say how much it relays behind OP_RETURN.
pub struct Silent;

impl Alteration for Silent {
    fn relay(&self, node: &RpcNode) -> Result<RelayFacts, ChainError> {
        Ok(RelayFacts { data_carrier: None, ..node.relay()? })
    }
}
