//! Envelopes that this journal does not know, found again from the wallet's words.
//!
//! The words alone cannot spend them: the script tree is needed, too, from the backup line that was shown
//! when the commit was signed, or from the payload itself. Trusts the node's UTXO set.

use super::anywhere::adopt;
use super::plan::Envelope;
use super::{PublishError, spend};
use crate::chain::{BlockSource, RpcNode};
use crate::primitives::BtcHeight;
use crate::wallet::{Caps, Job, Wallet, journal};
use bdk_wallet::chain::TxUpdate;
use bitcoin::consensus::encode::deserialize;
use bitcoin::{Amount, Block, FeeRate, OutPoint, ScriptBuf, TapNodeHash, TxOut, Txid};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// Keys that are tried where only the payload is known.
const KEYS_TRIED: u32 = 1_000;

/// What spends an envelope's output together with the wallet's words: one line, `INDEX:MERKLE_ROOT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Index of the reveal key.
    pub key_index: u32,
    /// Root of the script tree.
    pub merkle_root: TapNodeHash,
}

impl Backup {
    /// A job's; `None` for an OP_RETURN publication, which locks nothing.
    pub fn of(job: &Job) -> Option<Self> {
        Some(Self { key_index: job.key_index?, merkle_root: job.merkle_root? })
    }
}

impl fmt::Display for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key_index, self.merkle_root)
    }
}

impl FromStr for Backup {
    type Err = &'static str;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "a backup line is INDEX:MERKLE_ROOT, as `sortie force` and `sortie jobs JOB` show it";
        let (index, root) = line.trim().split_once(':').ok_or(SHAPE)?;
        let key_index = index.parse().map_err(|_| SHAPE)?;
        let merkle_root = root.parse().map_err(|_| SHAPE)?;
        Ok(Self { key_index, merkle_root })
    }
}

/// What is known of an envelope.
#[derive(Clone, Copy, Debug)]
pub struct Lead<'a> {
    /// Its backup line.
    pub backup: Option<Backup>,
    /// Its payload.
    pub payload: Option<&'a [u8]>,
}

/// Finds an unrevealed envelope and writes it down as a job, ready to be revealed or reclaimed.
///
/// Searches the node's UTXO set (minutes on mainnet).
///
/// # Errors
/// [`PublishError::NothingToRecover`] if no unspent output belongs to it.
pub fn recover(
    wallet: &mut Wallet,
    node: &RpcNode,
    lead: Lead<'_>,
    rate: FeeRate,
    caps: &Caps,
) -> Result<Job, PublishError> {
    let candidates: Vec<Backup> = match (lead.backup, lead.payload) {
        (Some(backup), Some(payload)) => {
            let root = Envelope::of(wallet, payload, backup.key_index)?.tree.merkle_root();
            if root != Some(backup.merkle_root) {
                return Err(PublishError::NothingToRecover("the payload does not belong to this backup line".into()));
            }
            vec![backup]
        }
        (Some(backup), None) => vec![backup],
        (None, Some(payload)) => (0..KEYS_TRIED)
            .filter_map(|key_index| {
                let root = Envelope::of(wallet, payload, key_index).map(|envelope| envelope.tree.merkle_root());
                root.map(|root| root.map(|merkle_root| Backup { key_index, merkle_root })).transpose()
            })
            .collect::<Result<_, _>>()?,
        (None, None) => {
            return Err(PublishError::NothingToRecover("neither a backup line nor a payload is given".into()));
        }
    };
    let mut scripts = BTreeMap::new();
    for backup in candidates {
        scripts.insert(spend::output_script(wallet, backup.key_index, Some(backup.merkle_root))?, backup);
    }
    let found = node.unspent_of(&scripts.keys().cloned().collect::<Vec<_>>())?;
    let Some(backup) = found.first().and_then(|(_, output)| scripts.get(&output.script_pubkey)).copied() else {
        let hint = match lead.backup {
            None => format!("none of the first {KEYS_TRIED} keys has an unspent commit of this payload in the chain"),
            Some(_) => {
                "no unspent output in the chain belongs to it: it was revealed, swept back, or never mined".into()
            }
        };
        return Err(PublishError::NothingToRecover(hint));
    };
    let known = journal::all(wallet.db())?.into_iter().find(|job| job.key_index == Some(backup.key_index));
    let job = match known {
        Some(job) if job.merkle_root == Some(backup.merkle_root) => job,
        Some(job) => {
            return Err(PublishError::NothingToRecover(format!(
                "job {} of this journal has that key for another envelope",
                job.id
            )));
        }
        None => {
            adopt(wallet, lead.payload.unwrap_or_default(), backup.key_index, Some(backup.merkle_root), rate, caps)?
        }
    };
    let mut update = TxUpdate::default();
    update.txouts = found.into_iter().collect();
    wallet.learn(update);
    wallet.save()?;
    Ok(job)
}

/// An output that may be an unrevealed commit of this wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Which output.
    pub outpoint: OutPoint,
    /// How much it holds.
    pub amount: Amount,
    /// The height of its block.
    pub height: BtcHeight,
}

/// Unspent Taproot outputs, not the wallet's own, of transactions that spent the wallet's coins since
/// `since`: payments to others look the same.
pub fn suspects(wallet: &Wallet, node: &RpcNode, since: BtcHeight) -> Result<Vec<Suspect>, PublishError> {
    let own: BTreeSet<ScriptBuf> = wallet.scripts(KEYS_TRIED);
    let mut coins: BTreeSet<OutPoint> = BTreeSet::new();
    let mut seen: Vec<(OutPoint, TxOut, BtcHeight)> = Vec::new();
    let tip = node.tip()?.height;
    for height in since..=tip {
        let Some(hash) = node.block_hash(height)? else { break };
        let block: Block = deserialize(&node.block(&hash)?)
            .map_err(|_| PublishError::Broken("the node gave a block that cannot be read"))?;
        for tx in &block.txdata {
            let txid: Txid = tx.compute_txid();
            let ours = tx.input.iter().any(|input| coins.contains(&input.previous_output));
            for (vout, output) in (0..).zip(&tx.output) {
                let outpoint = OutPoint::new(txid, vout);
                if own.contains(&output.script_pubkey) {
                    coins.insert(outpoint);
                } else if ours && output.script_pubkey.is_p2tr() {
                    seen.push((outpoint, output.clone(), height));
                }
            }
        }
    }
    let known: BTreeSet<OutPoint> = {
        let mut known = BTreeSet::new();
        for job in journal::all(wallet.db())? {
            known.extend(wallet.locked(&job)?);
        }
        known
    };
    let mut suspects = Vec::new();
    for (outpoint, output, height) in seen.into_iter().filter(|(outpoint, ..)| !known.contains(outpoint)) {
        if crate::chain::Mempool::unspent(node, &outpoint)?.is_some() {
            suspects.push(Suspect { outpoint, amount: output.value, height });
        }
    }
    Ok(suspects)
}
