//! A wallet made from words or descriptors, and what is found of its former life.

use super::error::damaged;
use super::seed::SeedFile;
use super::{Descriptors, Keys, Mnemonic, Passphrase, Wallet, WalletError, WalletSource};
#[cfg(feature = "esplora")]
use crate::chain::Esplora;
use crate::chain::{BlockSource, ChainError, RpcNode};
use crate::primitives::{BlockRef, BtcHeight};
use bdk_wallet::KeychainKind;
use bitcoin::{Network, ScriptBuf};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Addresses of each kind that `restore` looks for: in the first range; in the second, if it finds nothing in the
/// first; and in the next, if what it finds is in the second half of the last.
const RESTORE_RANGES: [u32; 4] = [1_000, 4_000, 20_000, 100_000];
/// Addresses in a row that were never used, after which a search ends (BIP44).
#[cfg(feature = "esplora")]
const STOP_GAP: usize = 20;
/// Reveal keys that a wallet may have used per Bitcoin block without a restored one meeting them.
const KEYS_PER_BLOCK: u32 = 1_000;

/// What is left on the chain of a wallet whose words are all that is known.
struct FormerLife {
    tip: BlockRef,
    birthday: BtcHeight,
    /// The highest index of each keychain that was used.
    used: BTreeMap<KeychainKind, u32>,
}

impl Wallet {
    /// Makes a wallet from words and finds its coins.
    ///
    /// A node's UTXO set is searched (minutes on mainnet) for coins of the first thousand addresses of each kind, or
    /// of four thousand if there is none, and further while some are in the second half; the lowest of them gives the
    /// birthday, and the chain is read from there. Transactions that were spent before it stay unknown. An Esplora
    /// server is asked for address after address, until twenty in a row were never used.
    ///
    /// # Errors
    /// [`ChainError::Pruned`] if the node no longer has the blocks since the birthday.
    pub fn restore<'a>(
        dir: &Path,
        network: Network,
        mnemonic: Mnemonic,
        passphrase: Option<&Passphrase>,
        source: impl Into<WalletSource<'a>>,
    ) -> Result<Self, WalletError> {
        Self::search(dir, network, mnemonic, passphrase, None, source.into(), former_keys)
    }

    /// Makes a wallet of coins whose keys are elsewhere, and finds them as [`restore`](Self::restore) does.
    ///
    /// Its words are for envelopes only: those of a former wallet, or new ones, which the caller shows to their
    /// owner once.
    pub fn watch_only<'a>(
        dir: &Path,
        network: Network,
        descriptors: &Descriptors,
        mnemonic: Option<Mnemonic>,
        passphrase: Option<&Passphrase>,
        source: impl Into<WalletSource<'a>>,
    ) -> Result<(Self, Mnemonic), WalletError> {
        let first_key = if mnemonic.is_some() { former_keys } else { |_| 0 };
        let mnemonic = mnemonic.map_or_else(Mnemonic::generate, Ok)?;
        let source = source.into();
        let wallet = Self::search(dir, network, mnemonic.clone(), passphrase, Some(descriptors), source, first_key)?;
        Ok((wallet, mnemonic))
    }

    /// Makes a wallet of the coins that a source finds. `first_key`: the index from which reveal keys are new.
    fn search(
        dir: &Path,
        network: Network,
        mnemonic: Mnemonic,
        passphrase: Option<&Passphrase>,
        watched: Option<&Descriptors>,
        source: WalletSource<'_>,
        first_key: fn(BtcHeight) -> u32,
    ) -> Result<Self, WalletError> {
        let folder = Self::vacant(dir)?;
        let own = Keys::new(&mnemonic, network)?.descriptors()?;
        let descriptors = watched.unwrap_or(&own);
        let life = match source {
            WalletSource::Node(node) => on_node(node, dir, descriptors)?,
            #[cfg(feature = "esplora")]
            WalletSource::Esplora(server) => on_server(server, dir, descriptors)?,
        };
        let seed = SeedFile { network, birthday: life.birthday, mnemonic };
        let mut wallet = Self::found(folder, dir, &seed, passphrase, watched, |bdk| {
            for (keychain, index) in life.used {
                let _ = bdk.reveal_addresses_to(keychain, index).count();
            }
            first_key(life.tip.height)
        })?;
        wallet.sync(source)?;
        Ok(wallet)
    }

    /// Whether a search for a former life's coins found none: then the birthday tells nothing about that life.
    pub fn is_without_past(&self) -> bool {
        self.key_base > 0 && self.confirmed().values().all(|block| block.height > self.birthday())
    }
}

/// Far beyond the reveal keys of a wallet's former life, and the same for the same height.
fn former_keys(tip: BtcHeight) -> u32 {
    tip.saturating_mul(KEYS_PER_BLOCK) & 0x7fff_ffff
}

/// Searches a node's coins, further as long as there may be more of them.
fn on_node(node: &RpcNode, dir: &Path, descriptors: &Descriptors) -> Result<FormerLife, WalletError> {
    let tip = node.tip()?;
    let blank = blank(node.network(), dir, descriptors)?;
    let [first, ..] = RESTORE_RANGES;
    let (mut found, mut used) = (Vec::new(), BTreeMap::new());
    for range in RESTORE_RANGES {
        found = node.scan_utxo_set(&descriptors.texts().map(|descriptor| (descriptor, range - 1)))?;
        used = last_used(&blank, &found, range);
        let goes_on = used.values().max().map_or(range == first, |last| *last >= range / 2);
        if !goes_on {
            break;
        }
    }
    let birthday = found.iter().map(|(_, height)| *height).min().unwrap_or(tip.height);
    if let Some(first_available) = node.info()?.prune_height.filter(|first| *first > birthday) {
        return Err(ChainError::Pruned { height: birthday, first_available }.into());
    }
    Ok(FormerLife { tip, birthday, used })
}

/// Asks a server for address after address.
#[cfg(feature = "esplora")]
fn on_server(server: &Esplora, dir: &Path, descriptors: &Descriptors) -> Result<FormerLife, WalletError> {
    let tip = server.tip()?;
    let blank = blank(server.network(), dir, descriptors)?;
    let found = server.full_scan(blank.start_full_scan().build(), STOP_GAP)?;
    let heights = found.tx_update.anchors.iter().map(|(anchor, _)| anchor.block_id.height);
    let birthday = heights.min().unwrap_or(tip.height).min(tip.height);
    Ok(FormerLife { tip, birthday, used: found.last_active_indices })
}

/// A wallet that knows its scripts and nothing else.
fn blank(network: Network, dir: &Path, descriptors: &Descriptors) -> Result<bdk_wallet::Wallet, WalletError> {
    let Descriptors { receive, change } = descriptors.clone();
    let blank = bdk_wallet::Wallet::create(receive, change).network(network).create_wallet_no_persist();
    blank.map_err(|error| damaged(dir, error))
}

/// The highest index of each keychain among the scripts found in a range.
fn last_used(bdk: &bdk_wallet::Wallet, found: &[(ScriptBuf, BtcHeight)], range: u32) -> BTreeMap<KeychainKind, u32> {
    let [receive, change] = [KeychainKind::External, KeychainKind::Internal];
    let scripts = |keychain| bdk.unbounded_spk_iter(keychain).map(move |(index, script)| (keychain, index, script));
    let mut left: BTreeSet<&ScriptBuf> = found.iter().map(|(script, _)| script).collect();
    let mut last = BTreeMap::new();
    for pair in scripts(receive).zip(scripts(change)).take(range as usize) {
        if left.is_empty() {
            break;
        }
        for (keychain, index, script) in [pair.0, pair.1] {
            if left.remove(&script) {
                last.insert(keychain, index);
            }
        }
    }
    last
}
