//! A publication that is to confirm by a height pays more as that height nears.
//!
//! An item's due height counts from the block that confirms it: what was quoted holds only if it confirms
//! in time. Guarantees: the height is in the journal; nothing is paid above the caps; a block is acted upon
//! once, however often the process is killed, because what it led to and that it did are one event log entry
//! in one write.

use super::anywhere::is_unsigned;
use super::bump::{Bump, Bumped, raise, weigh};
use super::{PublishError, RateTerms, broadcast, fee_rate, load};
use crate::chain::Mempool;
use crate::envelope::Carrier;
use crate::primitives::BtcHeight;
use crate::wallet::{Caps, Deadline, Event, Job, JobId, JobState, Payer, SatPerVb, Wallet, WalletError};
use bitcoin::FeeRate;

/// The furthest target that estimators know, in blocks.
pub const FURTHEST_TARGET: u16 = 1_008;

/// What a look at a publication came to.
#[derive(Debug)]
pub struct Held {
    /// The height by which it is to confirm.
    pub confirm_by: BtcHeight,
    /// Blocks that remain until then.
    pub remaining: u32,
    /// What its transactions pay, together with everything unconfirmed that they hang on, after whatever was done.
    pub pays: FeeRate,
    /// What it has to pay for that, if anybody was asked.
    pub asked: Option<FeeRate>,
    /// What was asked and decided, in order; one sentence each.
    pub steps: Vec<String>,
    /// What was done.
    pub act: Act,
}

/// What was done about a publication.
#[derive(Debug)]
pub enum Act {
    /// Nothing is left to do: it confirmed, was taken back, or was given up.
    Settled,
    /// It pays what it needs, or this block has been acted upon; what was missing was sent again.
    Waits,
    /// It pays more now.
    Bumped(Bumped),
    /// It should pay more, and this is why it does not.
    Stopped(PublishError),
}

/// Writes down by which height a publication is to confirm, counted from the wallet's tip. Sync first.
///
/// # Errors
/// [`PublishError::NotBumpable`] if it could not be made to pay more here.
pub fn confirm_by(wallet: &mut Wallet, id: JobId, height: BtcHeight) -> Result<Job, PublishError> {
    let job = load(wallet, id)?;
    let why = match (&job.state, job.payer, job.carrier) {
        (JobState::Planned, Payer::Psbt, _) => "it waits for its signatures; `sortie finish` it first".to_owned(),
        (_, Payer::Psbt, Carrier::OpReturn) => "its transaction is signed elsewhere".to_owned(),
        (state, ..) if !waits(state) && *state != JobState::Planned => format!("it is {state}"),
        _ => String::new(),
    };
    if !why.is_empty() {
        return Err(PublishError::NotBumpable { job: id, why });
    }
    if job.deadline.is_none_or(|deadline| deadline.confirm_by != height) {
        // Another height is no reason to act upon a block twice, or not at all.
        let seen = job.deadline.map_or(wallet.synced_to().height, |deadline| deadline.seen);
        wallet.record(id, &[Event::Deadline { deadline: Deadline { confirm_by: height, seen } }])?;
    }
    load(wallet, id)
}

/// Looks at a publication that is to confirm by a height, and bumps it if it has to pay more for that: to what
/// the sources ask for confirmation within the blocks that remain; in the last of them and after it by one step
/// of the node at least; and to what the caps allow at most. Sync first, and call it once for each block.
///
/// # Errors
/// The node could not answer; calling again is safe.
pub fn hold(
    wallet: &mut Wallet,
    node: &impl Mempool,
    sources: &[&dyn Mempool],
    id: JobId,
    terms: &RateTerms,
    caps: &Caps,
) -> Result<Held, PublishError> {
    let job = load(wallet, id)?;
    let tip = wallet.synced_to().height;
    let confirm_by = job.deadline.map_or(tip, |deadline| deadline.confirm_by);
    let remaining = confirm_by.saturating_sub(tip);
    let package = weigh(wallet, node, &job)?;
    let pays = package.rate();
    let mut steps = Vec::new();
    let held = |act, pays, asked, steps| Ok(Held { confirm_by, remaining, pays, asked, steps, act });
    let Some(deadline) = job.deadline.filter(|_| waits(&job.state)) else {
        return held(Act::Settled, pays, None, steps);
    };
    if tip <= deadline.seen || is_unsigned(wallet, node, &job)? {
        return held(sent_again(wallet, node, id)?, pays, None, steps);
    }
    let left = if remaining == 1 { "1 block remains".into() } else { format!("{remaining} blocks remain") };
    steps.push(format!("job {id} pays {}; {left} until height {confirm_by}", SatPerVb(pays)));
    let target_blocks = u16::try_from(remaining).unwrap_or(FURTHEST_TARGET).clamp(1, FURTHEST_TARGET);
    let mut wanted = match fee_rate(sources, &RateTerms { explicit: None, target_blocks, ..*terms }) {
        Ok(chosen) => {
            steps.extend(chosen.steps);
            chosen.rate
        }
        Err(error @ (PublishError::NoFeeData | PublishError::MadEstimate { .. })) => {
            steps.push(error.to_string());
            pays
        }
        Err(error) => return Err(error),
    };
    // What enters no mempool is mined by nobody.
    let relay = super::relay(node)?;
    wanted = wanted.max(relay.floor);
    if remaining <= 1 {
        let step = relay.incremental;
        wanted = wanted.max(FeeRate::from_sat_per_kwu(pays.to_sat_per_kwu().saturating_add(step.to_sat_per_kwu())));
        steps.push(format!("it is about to be late: {} more at least", SatPerVb(step)));
    }
    let rate = package.highest_rate(caps).map_or(wanted, |highest| wanted.min(highest));
    let capped = package.check(caps, wanted);
    if rate <= pays || rate < relay.floor {
        let act = match capped {
            Err(cap) if wanted > pays => Act::Stopped(cap.into()),
            _ => sent_again(wallet, node, id)?,
        };
        return held(act, pays, Some(wanted), steps);
    }
    steps.push(format!("job {id} is to pay {}", SatPerVb(rate)));
    let acted = Event::Deadline { deadline: Deadline { seen: tip, ..deadline } };
    let act = match raise(wallet, node, id, rate, caps, &[acted]) {
        Ok(bumped) if bumped.how == Bump::Enough => Act::Waits,
        Ok(bumped) => Act::Bumped(bumped),
        Err(error) => stopped(error)?,
    };
    let pays = weigh(wallet, node, &load(wallet, id)?)?.rate();
    held(act, pays, Some(wanted), steps)
}

/// How a publication is doing, without asking anybody: what it has to pay and what was done is the caller's to say.
pub fn look(
    wallet: &Wallet,
    node: &impl Mempool,
    job: &Job,
    asked: Option<FeeRate>,
    act: Act,
) -> Result<Held, PublishError> {
    let tip = wallet.synced_to().height;
    let confirm_by = job.deadline.map_or(tip, |deadline| deadline.confirm_by);
    let (remaining, pays) = (confirm_by.saturating_sub(tip), weigh(wallet, node, job)?.rate());
    Ok(Held { confirm_by, remaining, pays, asked, steps: Vec::new(), act })
}

/// Whether something of it has perhaps left, and nothing is in the chain.
fn waits(state: &JobState) -> bool {
    matches!(state, JobState::Signed | JobState::CommitSent | JobState::RevealSent)
}

fn sent_again(wallet: &mut Wallet, node: &impl Mempool, id: JobId) -> Result<Act, PublishError> {
    match broadcast(wallet, node, id) {
        Ok(job) if waits(&job.state) => Ok(Act::Waits),
        Ok(_) => Ok(Act::Settled),
        Err(error) => stopped(error),
    }
}

/// What stands in the way; that a node could not answer is an error, and not that.
fn stopped(error: PublishError) -> Result<Act, PublishError> {
    match error {
        PublishError::Chain(_) | PublishError::Unsent { .. } | PublishError::Broken(_) => Err(error),
        PublishError::Wallet(WalletError::Database(_)) => Err(error),
        _ => Ok(Act::Stopped(error)),
    }
}
