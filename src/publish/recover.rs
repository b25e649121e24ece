//! Envelopes that this journal does not know, found again from the wallet's words.
//!
//! The words alone cannot spend them: the script tree is needed, too, from the backup line that was shown
//! when the commit was signed, or from the payload itself. Trusts the node's UTXO set, or the server's histories.

use super::anywhere::{adopt, amend};
use super::plan::Envelope;
use super::{PublishError, spend};
use crate::chain::{BlockSource, Mempool, RpcNode};
use crate::primitives::BtcHeight;
use crate::wallet::{Amendment, Caps, Job, Payer, Wallet, WalletSource, journal};
use bdk_wallet::chain::TxUpdate;
use bitcoin::consensus::encode::deserialize;
use bitcoin::{Amount, Block, FeeRate, OutPoint, ScriptBuf, TapNodeHash, Transaction};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Keys that are tried where only the payload is known, unless told otherwise.
pub const KEYS_TRIED: u32 = 1_000;
/// Addresses of each kind, beyond those handed out, that are known as the wallet's own while blocks are searched.
const OWN_ADDRESSES: u32 = 1_000;
/// Addresses that a server is asked for before the next are.
const ASKED_AT_ONCE: usize = 20;

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
    /// How many of the wallet's first reveal keys are tried where only the payload is known.
    pub keys: u32,
}

/// Finds an unrevealed envelope and writes it down as a job, ready to be revealed or reclaimed.
///
/// Searches the node's UTXO set (minutes on mainnet), or asks the server for one address after another.
///
/// # Errors
/// [`PublishError::NothingToRecover`] if no unspent output belongs to it.
pub fn recover<'a>(
    wallet: &mut Wallet,
    source: impl Into<WalletSource<'a>>,
    lead: Lead<'_>,
    rate: FeeRate,
    caps: &Caps,
) -> Result<Job, PublishError> {
    let candidates: Vec<Backup> = match (lead.backup, lead.payload) {
        (Some(backup), Some(payload)) => {
            let root = Envelope::of(wallet, payload, backup.key_index)?.merkle_root();
            if root != Some(backup.merkle_root) {
                return Err(PublishError::NothingToRecover("the payload does not belong to this backup line".into()));
            }
            vec![backup]
        }
        (Some(backup), None) => vec![backup],
        (None, Some(payload)) => (0..lead.keys)
            .filter_map(|key_index| {
                let root = Envelope::of(wallet, payload, key_index).map(|envelope| envelope.merkle_root());
                root.map(|root| root.map(|merkle_root| Backup { key_index, merkle_root })).transpose()
            })
            .collect::<Result<_, _>>()?,
        (None, None) => {
            return Err(PublishError::NothingToRecover("neither a backup line nor a payload is given".into()));
        }
    };
    let script = |backup: &Backup| spend::output_script(wallet, backup.key_index, Some(backup.merkle_root));
    let scripts = candidates.iter().map(script).collect::<Result<Vec<_>, _>>()?;
    let source = source.into();
    let found = match source {
        WalletSource::Node(node) => {
            let found = node.scan_utxo_set(&scripts)?.into_iter();
            found.map(|coin| (coin.outpoint, coin.output)).collect::<Vec<_>>()
        }
        WalletSource::Esplora(server) => {
            let mut found = scripts.chunks(ASKED_AT_ONCE).map(|scripts| server.unspent_of(scripts));
            found.find(|found| !matches!(found, Ok(none) if none.is_empty())).transpose()?.unwrap_or_default()
        }
    };
    let position =
        found.first().and_then(|(_, output)| scripts.iter().position(|script| *script == output.script_pubkey));
    let Some(backup) = position.and_then(|n| candidates.get(n)).copied() else {
        let hint = match lead.backup {
            None => format!(
                "none of the first {} keys has an unspent commit of this payload in the chain; if it is still in the mempool, wait until it is mined; a wallet that was restored before used others: give the backup line, or more --keys",
                lead.keys
            ),
            Some(_) => {
                "no unspent output in the chain belongs to it: it is not mined yet (then wait until it is), it was revealed or swept back, or the backup line has a mistake or is of another wallet".into()
            }
        };
        return Err(PublishError::NothingToRecover(hint));
    };
    let known = journal::all(wallet.db())?.into_iter().find(|job| job.key_index == Some(backup.key_index));
    let job = match known {
        Some(job) if job.merkle_root == Some(backup.merkle_root) => match job.payer == Payer::Anywhere {
            // By its backup line alone it can be taken back only; and it is to pay what is wanted now.
            true => {
                let payload = lead.payload.map(<[u8]>::to_vec);
                amend(wallet, job, Amendment { payload, fee_rate: Some(rate), ..Amendment::of_caps(*caps) })?
            }
            false => job,
        },
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
    match source {
        WalletSource::Node(_) => {
            let mut update = TxUpdate::default();
            update.txouts = found.into_iter().collect();
            wallet.learn(update);
            wallet.save()?;
        }
        // What a server has found, it also has to show.
        WalletSource::Esplora(_) => drop(wallet.sync(source)?),
    }
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
/// `since`: payments to others look the same. Sync the wallet first.
///
/// A node's blocks are searched, for the wallet may not know what its coins were spent on before it was restored;
/// a server's histories are whole.
pub fn suspects<'a>(
    wallet: &Wallet,
    source: impl Into<WalletSource<'a>>,
    since: BtcHeight,
) -> Result<Vec<Suspect>, PublishError> {
    let source = source.into();
    let spends = match source {
        WalletSource::Node(node) => spends_in_blocks(wallet, node, since)?,
        WalletSource::Esplora(_) => wallet.spends().into_iter().filter(|(_, height)| *height >= since).collect(),
    };
    let own = wallet.scripts(OWN_ADDRESSES);
    let mut known = BTreeSet::new();
    for job in journal::all(wallet.db())? {
        known.extend(wallet.locked(&job)?);
    }
    let mut suspects = Vec::new();
    for (tx, height) in spends {
        let txid = tx.compute_txid();
        for (outpoint, output) in (0..).map(|vout| OutPoint::new(txid, vout)).zip(&tx.output) {
            let is_foreign = output.script_pubkey.is_p2tr() && !own.contains(&output.script_pubkey);
            if is_foreign && !known.contains(&outpoint) && is_unspent(source, &outpoint)? {
                suspects.push(Suspect { outpoint, amount: output.value, height });
            }
        }
    }
    Ok(suspects)
}

fn is_unspent(source: WalletSource<'_>, outpoint: &OutPoint) -> Result<bool, PublishError> {
    let output = match source {
        WalletSource::Node(node) => node.unspent(outpoint)?,
        WalletSource::Esplora(server) => server.unspent(outpoint)?,
    };
    Ok(output.is_some())
}

/// The transactions that spent the wallet's coins, with their heights, out of a node's blocks.
fn spends_in_blocks(
    wallet: &Wallet,
    node: &RpcNode,
    since: BtcHeight,
) -> Result<Vec<(Transaction, BtcHeight)>, PublishError> {
    let own: BTreeSet<ScriptBuf> = wallet.scripts(OWN_ADDRESSES);
    let mut coins: BTreeSet<OutPoint> = BTreeSet::new();
    let mut spends = Vec::new();
    let tip = node.tip()?.height;
    for height in since..=tip {
        let Some(hash) = node.block_hash(height)? else { break };
        let block: Block = deserialize(&node.block(&hash)?)
            .map_err(|_| PublishError::Broken("the node gave a block that cannot be read"))?;
        for tx in block.txdata {
            let txid = tx.compute_txid();
            let paid = (0..).zip(&tx.output).filter(|(_, output)| own.contains(&output.script_pubkey));
            coins.extend(paid.map(|(vout, _)| OutPoint::new(txid, vout)));
            if tx.input.iter().any(|input| coins.contains(&input.previous_output)) {
                spends.push((tx, height));
            }
        }
    }
    Ok(spends)
}
