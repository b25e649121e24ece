//! A wallet made from words or descriptors, and what is found of its former life.

use super::seed::SeedFile;
use super::{Descriptors, Keys, Mnemonic, Passphrase, Wallet, WalletError, WalletSource};
use crate::chain::Esplora;
use crate::chain::{BlockSource, RpcNode};
use crate::primitives::{BlockRef, BtcHeight};
use bdk_wallet::KeychainKind;
use bdk_wallet::chain::SpkIterator;
use bdk_wallet::chain::spk_client::FullScanRequest;
use bdk_wallet::descriptor::ExtendedDescriptor;
use bdk_wallet::miniscript::Descriptor;
use bdk_wallet::miniscript::descriptor::{DescriptorPublicKey, Wildcard};
use bitcoin::bip32::{ChildNumber, Xpub};
use bitcoin::secp256k1::{Secp256k1, Verification};
use bitcoin::{Network, ScriptBuf};
use bitcoin::{OutPoint, Transaction, TxIn};
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread;

/// Receive and change addresses that are looked for in a node's UTXO set at least: a wallet that paid for a batch in
/// each block of a year has no other coin left than on its last change address.
const LEAST_ON_NODE: [u32; 2] = [2_000, 60_000];
/// Those in a row without a coin, after which the search ends.
const GAPS_ON_NODE: [u32; 2] = [2_000, 10_000];
/// Addresses in a row that were never used, after which a server is asked for no more: it is asked for each of them.
const GAP_ON_SERVER: u32 = 100;
/// Addresses of each kind that a server is asked for before it is known what they hold.
const ASKED_AT_ONCE: u32 = 1_000;
/// Change addresses beyond those that were looked at which are recognised in what was paid.
const RECOGNISED: u32 = 20_000;
/// The highest index of an address (BIP 32), and one more.
const END: u32 = 1 << 31;
/// Reveal keys that a wallet may have used per Bitcoin block without a restored one meeting them.
const KEYS_PER_BLOCK: u32 = 1_000;

/// Where and how far a wallet's coins are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// Who is asked.
    pub source: WalletSource<'a>,
    /// Addresses in a row behind the last one that was found, after which the search ends. Found is what holds a coin,
    /// on a node; what of either kind was ever used, over a server. `None`: 2,000 receive and 10,000 change addresses
    /// on a node, where 60,000 of the latter are looked at in any case; 100 over a server.
    pub gap: Option<u32>,
}

impl<'a> From<WalletSource<'a>> for Search<'a> {
    fn from(source: WalletSource<'a>) -> Self {
        Self { source, gap: None }
    }
}

impl<'a> From<&'a RpcNode> for Search<'a> {
    fn from(node: &'a RpcNode) -> Self {
        WalletSource::from(node).into()
    }
}

impl<'a> From<&'a Esplora> for Search<'a> {
    fn from(server: &'a Esplora) -> Self {
        WalletSource::from(server).into()
    }
}

/// How far a search went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Receive addresses that were looked at.
    pub receive: u32,
    /// Change addresses that were looked at.
    pub change: u32,
    /// Index of the last receive address that was found.
    pub last_receive: Option<u32>,
    /// Index of the last change address that was found.
    pub last_change: Option<u32>,
}

impl Looked {
    /// Makes a wallet know all addresses up to those that were found.
    pub(super) fn reveal(&self, bdk: &mut bdk_wallet::Wallet) {
        let last = [(KeychainKind::External, self.last_receive), (KeychainKind::Internal, self.last_change)];
        for (keychain, index) in last.into_iter().filter_map(|(keychain, last)| Some((keychain, last?))) {
            let _ = bdk.reveal_addresses_to(keychain, index).count();
        }
    }

    /// The index behind the last one that was found of either kind.
    fn reach(&self) -> u32 {
        self.last_receive.max(self.last_change).map_or(0, |last| last.saturating_add(1))
    }
}

/// What is left on the chain of a wallet whose words are all that is known.
pub(super) struct FormerLife {
    tip: BlockRef,
    pub birthday: BtcHeight,
    pub looked: Looked,
}

impl FormerLife {
    pub fn of(descriptors: &Descriptors, Search { source, gap }: Search<'_>) -> Result<Self, WalletError> {
        match source {
            WalletSource::Node(node) => on_node(node, descriptors, gap),
            WalletSource::Esplora(server) => on_server(server, descriptors, gap),
        }
    }
}

impl Wallet {
    /// Makes a wallet from words and finds its coins.
    ///
    /// A node's UTXO set is searched (minutes on mainnet); the lowest coin's block gives the birthday, and the chain is
    /// read from there. Transactions that were spent before it stay unknown. An Esplora server is asked for address
    /// after address. [`looked`](Self::looked) tells how far that went.
    pub fn restore<'a>(
        dir: &Path,
        network: Network,
        mnemonic: Mnemonic,
        passphrase: Option<&Passphrase>,
        search: impl Into<Search<'a>>,
    ) -> Result<Self, WalletError> {
        Self::search(dir, network, mnemonic, passphrase, None, search.into(), former_keys)
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
        search: impl Into<Search<'a>>,
    ) -> Result<(Self, Mnemonic), WalletError> {
        let first_key = if mnemonic.is_some() { former_keys } else { |_| 0 };
        let mnemonic = mnemonic.map_or_else(Mnemonic::generate, Ok)?;
        let search = search.into();
        let wallet = Self::search(dir, network, mnemonic.clone(), passphrase, Some(descriptors), search, first_key)?;
        Ok((wallet, mnemonic))
    }

    /// Makes a wallet of the coins that a source finds. `first_key`: the index from which reveal keys are new.
    fn search(
        dir: &Path,
        network: Network,
        mnemonic: Mnemonic,
        passphrase: Option<&Passphrase>,
        watched: Option<&Descriptors>,
        Search { source, gap }: Search<'_>,
        first_key: fn(BtcHeight) -> u32,
    ) -> Result<Self, WalletError> {
        let folder = Self::vacant(dir)?;
        let own = Keys::new(&mnemonic, network)?.descriptors()?;
        let descriptors = watched.unwrap_or(&own);
        let life = FormerLife::of(descriptors, Search { source, gap })?;
        let seed = SeedFile { network, birthday: life.birthday, mnemonic };
        let mut wallet = Self::found(folder, dir, &seed, passphrase, watched, |bdk| {
            life.looked.reveal(bdk);
            first_key(life.tip.height)
        })?;
        wallet.sync(source)?;
        wallet.looked = Some(life.looked);
        Ok(wallet)
    }

    /// How far the search went that made this wallet; `None` once it is opened again.
    pub fn looked(&self) -> Option<Looked> {
        self.looked
    }

    /// Whether a search for a former life's coins found none: then the birthday tells nothing about that life.
    pub fn is_without_past(&self) -> bool {
        let is_later = self.confirmed().values().all(|block| block.height > self.birthday());
        self.key_base > 0 && is_later && self.bare_coins().is_empty()
    }
}

/// Far beyond the reveal keys of a wallet's former life, and the same for the same height.
fn former_keys(tip: BtcHeight) -> u32 {
    tip.saturating_mul(KEYS_PER_BLOCK) & 0x7fff_ffff
}

/// Searches a node's coins, further as long as there may be more of them.
fn on_node(node: &RpcNode, descriptors: &Descriptors, gap: Option<u32>) -> Result<FormerLife, WalletError> {
    let tip = node.tip()?;
    let mut life = FormerLife { tip, birthday: tip.height, looked: Looked::default() };
    let (least, gaps) = gap.map_or((LEAST_ON_NODE, GAPS_ON_NODE), |gap| ([gap; 2], [gap; 2]));
    loop {
        let looked = life.looked;
        let reach = [looked.last_receive, looked.last_change].map(|last| last.map_or(0, |last| last.saturating_add(1)));
        let wanted = [0, 1].map(|n| reach[n].saturating_add(gaps[n]).max(least[n]).min(END));
        if looked.receive >= wanted[0] && looked.change >= wanted[1] {
            return Ok(life);
        }
        // Each search reads the whole set: a bit further at once, in place of another one.
        let end = |n: usize, looked: u32| wanted[n].saturating_add(gaps[n] / 8).min(END).max(looked);
        let [receive, change] = [end(0, looked.receive), end(1, looked.change)];
        let receiving = derived(&descriptors.receive, looked.receive..receive);
        let changing = derived(&descriptors.change, looked.change..change);
        let scripts: Vec<ScriptBuf> = receiving.iter().chain(&changing).map(|(_, script)| script.clone()).collect();
        let found = node.scan_utxo_set(&scripts)?;
        let paid: BTreeSet<&ScriptBuf> = found.iter().map(|coin| &coin.output.script_pubkey).collect();
        let last = |of: &[(u32, ScriptBuf)]| {
            of.iter().rev().find(|(_, script)| paid.contains(script)).map(|(index, _)| *index)
        };
        let [last_receive, last_change] = [last(&receiving), last(&changing)];
        life.birthday = found.iter().map(|coin| coin.height).fold(life.birthday, BtcHeight::min);
        life.looked = Looked {
            receive,
            change,
            last_receive: last_receive.or(looked.last_receive),
            last_change: last_change.or(looked.last_change),
        };
    }
}

/// A descriptor's scripts with these indices, in order; on all of the machine's processors.
fn derived(descriptor: &ExtendedDescriptor, range: Range<u32>) -> Vec<(u32, ScriptBuf)> {
    let secp = Secp256k1::verification_only();
    let parent = parent_of(&secp, descriptor);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = range.len().div_ceil(threads).max(1);
    let part = |start: u32| start..range.end.min(start.saturating_add(share as u32));
    let derive = |part: Range<u32>| -> Vec<(u32, ScriptBuf)> {
        let Some(parent) = &parent else { return SpkIterator::new_with_range(descriptor, part).collect() };
        let keys = part.filter_map(|index| Some((index, parent.ckd_pub(&secp, ChildNumber::Normal { index }).ok()?)));
        let script = |key: Xpub| ScriptBuf::new_p2tr(&secp, key.public_key.x_only_public_key().0, None);
        keys.map(|(index, key)| (index, script(key))).collect()
    };
    thread::scope(|scope| {
        let parts = range.clone().step_by(share).map(|start| scope.spawn(move || derive(part(start))));
        let parts: Vec<_> = parts.collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// The key whose children are the keys of a descriptor like the wallet's own (BIP 86).
fn parent_of<C: Verification>(secp: &Secp256k1<C>, descriptor: &ExtendedDescriptor) -> Option<Xpub> {
    match descriptor {
        Descriptor::Tr(tr) if tr.tap_tree().is_none() => match tr.internal_key() {
            DescriptorPublicKey::XPub(key) if key.wildcard == Wildcard::Unhardened => {
                key.xkey.derive_pub(secp, &key.derivation_path).ok()
            }
            _ => None,
        },
        _ => None,
    }
}

/// Asks a server for address after address.
fn on_server(server: &Esplora, descriptors: &Descriptors, gap: Option<u32>) -> Result<FormerLife, WalletError> {
    let tip = server.tip()?;
    let gap = gap.unwrap_or(GAP_ON_SERVER);
    let mut life = FormerLife { tip, birthday: tip.height, looked: Looked::default() };
    let mut trail = Trail::default();
    loop {
        let first = life.looked.change;
        let wanted = life.looked.reach().saturating_add(gap).min(END);
        let end = wanted.min(first.saturating_add(ASKED_AT_ONCE));
        if end <= first {
            match trail.end(server, &descriptors.change, first)? {
                Some(index) => life.looked.last_change = Some(index),
                None => return Ok(life),
            }
            continue;
        }
        let [receiving, changing] =
            [&descriptors.receive, &descriptors.change].map(|descriptor| derived(descriptor, first..end));
        trail.own.extend(receiving.iter().chain(&changing).map(|(_, script)| script.clone()));
        let [receive, change] = [KeychainKind::External, KeychainKind::Internal];
        let request =
            FullScanRequest::builder().spks_for_keychain(receive, receiving).spks_for_keychain(change, changing);
        let found = server.full_scan(request.build(), usize::MAX)?;
        let heights = found.tx_update.anchors.iter().map(|(anchor, _)| anchor.block_id.height);
        life.birthday = heights.fold(life.birthday, BtcHeight::min);
        let last = |keychain, before: Option<u32>| before.max(found.last_active_indices.get(&keychain).copied());
        life.looked = Looked {
            receive: end,
            change: end,
            last_receive: last(receive, life.looked.last_receive),
            last_change: last(change, life.looked.last_change),
        };
        for tx in &found.tx_update.txs {
            let txid = tx.compute_txid();
            let outputs = (0..).zip(&tx.output).map(|(vout, output)| (OutPoint::new(txid, vout), output));
            trail.outputs.extend(outputs.map(|(coin, output)| (coin, output.script_pubkey.clone())));
        }
        trail.transactions.extend(found.tx_update.txs);
    }
}

/// Where the wallet's coins went, as far as its own transactions show it.
#[derive(Default)]
struct Trail {
    own: BTreeSet<ScriptBuf>,
    outputs: BTreeMap<OutPoint, ScriptBuf>,
    transactions: Vec<Arc<Transaction>>,
}

impl Trail {
    /// The last change address from `first` on that a coin came back to through a transaction which seemed to pay
    /// others only: it returns what is left there, or to an envelope whose reveal does.
    fn end(&mut self, server: &Esplora, change: &ExtendedDescriptor, first: u32) -> Result<Option<u32>, WalletError> {
        let is_own = |script: &ScriptBuf| self.own.contains(script);
        let mut paid: BTreeSet<ScriptBuf> = BTreeSet::new();
        for tx in std::mem::take(&mut self.transactions) {
            let spends = |input: &TxIn| self.outputs.get(&input.previous_output).is_some_and(is_own);
            if !tx.input.iter().any(spends) || tx.output.iter().any(|output| is_own(&output.script_pubkey)) {
                continue;
            }
            let spenders = server.spenders(&tx.compute_txid())?;
            let outputs = spenders.iter().flat_map(|spender| &spender.output).chain(&tx.output);
            paid.extend(outputs.map(|output| output.script_pubkey.clone()).filter(|script| !is_own(script)));
        }
        let count = if paid.is_empty() { 0 } else { RECOGNISED };
        let further = derived(change, first..first.saturating_add(count).min(END).max(first));
        Ok(further.iter().rev().find(|(_, script)| paid.contains(script)).map(|(index, _)| *index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_those_of_the_descriptor_whichever_way_they_are_derived() {
        const KEY: &str = "tpubD6NzVbkrYhZ4WaWSyoBvQwbpLkojyoTZPRsgXELWz3Popb3qkjcJyJUGLnL4qHHoQvao8ESaAstxYSnhyswJ76uZPStJRJCTKvosUCJZL5B";
        for (kind, is_fast) in [("tr", true), ("wpkh", false)] {
            let text = format!("{kind}([d34db33f/86'/1'/0']{KEY}/<0;1>/*)");
            let descriptors = Descriptors::parse(&text, None, Network::Regtest).expect("public");
            assert_eq!(parent_of(&Secp256k1::new(), &descriptors.change).is_some(), is_fast, "{kind}");
            for range in [0..0, 0..1, 3..20, END - 2..END] {
                let scripts: Vec<_> = SpkIterator::new_with_range(&descriptors.change, range.clone()).collect();
                assert_eq!(scripts.len(), range.len());
                assert_eq!(derived(&descriptors.change, range), scripts, "{kind}");
            }
        }
    }

    #[test]
    fn reveal_keys_of_a_restored_wallet_begin_far_beyond_those_of_before_and_stay_in_range() {
        let keys = [0, 3, 2_147_483, 2_200_000, BtcHeight::MAX].map(former_keys);
        assert_eq!(keys, [0, 3_000, 2_147_483_000, 2_200_000_000 - (1 << 31), 0x7fff_ffff]);
    }

    #[test]
    fn a_search_reaches_as_far_as_the_last_address_that_was_found_of_either_kind() {
        let looked = |last_receive, last_change| Looked { last_receive, last_change, ..Looked::default() };
        let reach = [(None, None), (Some(0), None), (Some(4), Some(9)), (Some(9), Some(4)), (None, Some(u32::MAX))]
            .map(|(receive, change)| looked(receive, change).reach());
        assert_eq!(reach, [0, 1, 10, 10, u32::MAX]);
    }
}
