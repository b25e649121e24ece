//! What publications have cost, from the journal.

use super::PublishError;
use crate::wallet::{Event, JobState, Wallet, journal};
use bitcoin::Amount;

/// What was paid for publications since a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// The fees: of what was given up, nothing; of what was bumped, what it costs more than before.
    pub fee: Amount,
    /// When the first of them was paid, and a day later: in seconds since 1970.
    pub eases_at: Option<u64>,
}

/// Sums up what was signed since a time, in seconds since 1970, for payloads that are `counted`.
pub fn fees_of(wallet: &Wallet, since: u64, counted: impl Fn(&[u8]) -> bool) -> Result<Spent, PublishError> {
    let mut spent = Spent::default();
    for job in journal::signed_since(wallet.db(), since)? {
        if matches!(job.state, JobState::Abandoned(_)) || !counted(&job.payload) {
            continue;
        }
        let mut before = Amount::ZERO;
        for recorded in journal::events(wallet.db(), job.id)? {
            let Event::Signed { generation } = recorded.event else { continue };
            let more = generation.fee.checked_sub(before).unwrap_or(Amount::ZERO);
            before = before.max(generation.fee);
            if recorded.at >= since && more > Amount::ZERO {
                spent.fee += more;
                let eases_at = recorded.at.saturating_add(86_400);
                spent.eases_at = Some(spent.eases_at.map_or(eases_at, |first| first.min(eases_at)));
            }
        }
    }
    Ok(spent)
}
