//! A wallet that waits: its folder is free for other processes, and its keys stay in memory.

use super::{Keys, Wallet, WalletError};
use bitcoin::Network;
use std::path::PathBuf;

/// A wallet that other processes may use; what signs stays in memory.
#[derive(Debug)]
pub struct Closed {
    dir: PathBuf,
    network: Network,
    secret: Option<Keys>,
}

impl Closed {
    /// Opens it again, unlocked if it was.
    ///
    /// # Errors
    /// [`WalletError::InUse`] while another process has it: then this may be called again.
    pub fn open(&mut self) -> Result<Wallet, WalletError> {
        let wallet = Wallet::open(&self.dir, self.network)?;
        match self.secret.take() {
            Some(keys) if wallet.is_locked() => wallet.with_keys(keys),
            _ => Ok(wallet),
        }
    }
}

impl Wallet {
    /// Lets other processes use the wallet for a while.
    pub fn close(self) -> Closed {
        Closed { dir: self.dir, network: self.network, secret: self.secret }
    }
}
