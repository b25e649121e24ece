//! What publications have cost, from the journal.

use super::PublishError;
use crate::wallet::{Wallet, journal};
use bitcoin::Amount;
use std::collections::BTreeMap;

/// What was paid for publications since a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// The fees: of what was given up, nothing; of what was bumped, what it costs more than before.
    pub fee: Amount,
    /// When the first of them was paid, in seconds since 1970.
    pub first_at: Option<u64>,
}

/// Sums up what was signed since a time, in seconds since 1970, for payloads that begin so.
pub fn fees_of(wallet: &Wallet, since: u64, payload_prefix: &[u8]) -> Result<Spent, PublishError> {
    let mut spent = Spent::default();
    let mut before = BTreeMap::new();
    for (job, at, fee) in journal::fees(wallet.db(), since, payload_prefix)? {
        let paid = before.entry(job).or_insert(Amount::ZERO);
        let more = fee.checked_sub(*paid).unwrap_or(Amount::ZERO);
        *paid = fee.max(*paid);
        if at >= since && more > Amount::ZERO {
            spent.fee += more;
            spent.first_at = Some(spent.first_at.map_or(at, |first| first.min(at)));
        }
    }
    Ok(spent)
}
