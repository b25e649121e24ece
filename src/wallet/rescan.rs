//! Everything that the wallet was told of the chain, asked for again.

use super::open::load_bdk;
use super::restore::FormerLife;
use super::{Search, Synced, Wallet, WalletError, WalletSource, journal, payment, store};
use crate::chain::BlockSource;
use crate::chain::ChainError;
use crate::primitives::BtcHeight;
use bitcoin::{Transaction, Txid};
use std::collections::BTreeSet;

impl Wallet {
    /// Forgets what any source has told of the chain, and reads it again from the birthday on, or from `since` if that
    /// is lower: whoever was asked when the wallet was restored may have hidden older coins. Keys, addresses and the
    /// journal stay as they are. With a gap it also searches for addresses beyond those that it knows, as
    /// [`restore`](Self::restore) does; [`looked`](Self::looked) tells how far.
    ///
    /// Killed before its end, it is gone on with by the next [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`ChainError::Pruned`] if the node does not have the blocks since the birthday any more: then nothing is
    /// forgotten.
    pub fn rescan<'a>(
        &mut self,
        search: impl Into<Search<'a>>,
        since: Option<BtcHeight>,
    ) -> Result<Synced, WalletError> {
        let Search { source, gap } = search.into();
        self.check_network(source)?;
        let life = gap.map(|_| FormerLife::of(&self.descriptors(), Search { source, gap })).transpose()?;
        let found_at = life.as_ref().map(|life| life.birthday);
        let height = since.into_iter().chain(found_at).fold(self.birthday, BtcHeight::min);
        match source {
            WalletSource::Node(node) => {
                if let Some(first_available) = node.info()?.prune_height.filter(|first| *first > height) {
                    return Err(ChainError::Pruned { height, first_available }.into());
                }
            }
            WalletSource::Esplora(server) => drop(server.tip()?),
        }
        self.save()?;
        let jobs = journal::all(self.db())?;
        let sweeps = jobs.iter().flat_map(|job| &job.sweeps).map(Transaction::compute_txid);
        let mut own: BTreeSet<Txid> = jobs.iter().flat_map(|job| job.all_txids()).chain(sweeps).collect();
        own.extend(payment::signed(self.db())?.iter().map(|payment| payment.tx.compute_txid()));
        let changes = self.save_with(|db| {
            store::forget_chain(db, &own)?;
            db.execute("UPDATE sortie_wallet SET birthday = ?1", [height])?;
            Ok(store::load(db)?)
        })?;
        *self.bdk_mut() = load_bdk(&self.dir, changes, self.network, &self.public)?;
        self.birthday = height;
        self.looked = life.map(|life| life.looked);
        if let Some(looked) = self.looked {
            looked.reveal(self.bdk_mut());
        }
        self.forget_unread()?;
        self.seen.clear();
        self.traced.clear();
        self.is_shown = false;
        self.sync(source)
    }
}
