//! What to do next about something that was forced.

use crate::failure::Failure;
use crate::output::count;
use sortie::follower::{Execution, Lifecycle, Lifecycles, Queued};
use sortie::primitives::BtcHeight;
use sortie::publish::{Job, JobId, JobState, Payer};

/// About an L2 transaction that Bitcoin or its mempool has, at this height.
pub fn of_life(
    life: &Lifecycle,
    job: Option<&Job>,
    tip: BtcHeight,
    lifecycles: &Lifecycles<'_>,
) -> Result<String, Failure> {
    Ok(match (life.execution, life.queued) {
        (Some(execution), _) => executed(life, &execution, lifecycles)?,
        (None, Some(Queued { due_height, .. })) => {
            let left = count(due_height.saturating_sub(tip.into()), "block");
            format!("nothing: every node executes it at Bitcoin block {due_height} at the latest, in {left}")
        }
        (None, None) => match job {
            Some(job) => format!("wait for a block; to pay more for it: `sortie bump {} --fee-rate SAT_VB`", job.id),
            None => "wait for a block; whoever sent it can pay more for it".into(),
        },
    })
}

fn executed(life: &Lifecycle, execution: &Execution, lifecycles: &Lifecycles<'_>) -> Result<String, Failure> {
    if execution.effect.reason.is_some()
        && let Some(done) = done_elsewhere(life, lifecycles)?
    {
        return Ok(format!("nothing: the same transaction was executed in L2 block {}", done.l2_number));
    }
    Ok(match execution.effect.reason {
        None if execution.is_final => "nothing: it is executed for good".into(),
        None => format!("nothing: it is executed, for good at Bitcoin block {}", lifecycles.final_at(execution)),
        Some("bad_nonce") => "it had no effect: sign another one with the account's next nonce, and force that".into(),
        Some("insufficient_balance") => {
            "it had no effect: force it once more (--again) when the balance suffices, or another one".into()
        }
        Some(_) => "it had no effect, and never has: sign another one, and force that".into(),
    })
}

/// Where the same bytes had their effect.
fn done_elsewhere(life: &Lifecycle, lifecycles: &Lifecycles<'_>) -> Result<Option<Execution>, Failure> {
    let executions = lifecycles.of_hash(&life.tx_hash)?.into_iter().filter_map(|life| life.execution);
    Ok(executions.into_iter().find(|execution| execution.effect.reason.is_none()))
}

/// About a job of which neither Bitcoin nor its mempool has anything; which job forces the same again, whether it is of
/// the manifest's rollup, and whether it carries L2 transactions.
pub fn of_job(job: &Job, again: Option<JobId>, is_ours: bool, has_txs: bool) -> String {
    let id = job.id;
    match &job.state {
        JobState::Reclaiming => "wait until its coins are back; it is not forced".into(),
        JobState::Reclaimed(_) | JobState::Abandoned(_) if let Some(again) = again => {
            format!("see job {again}, which forces the same: `sortie status {again}`")
        }
        JobState::Reclaimed(_) => "nothing: its coins are back; `sortie force` forces the same again".into(),
        _ if job.payload.is_empty() => format!("recovered without its L2 transaction: `sortie reclaim {id}`"),
        _ if !is_ours => "nothing here: it is of another rollup; give that one's --manifest".into(),
        _ if !has_txs => format!("nothing here: it is a sequencer's batch, whose story `sortie jobs {id}` tells"),
        JobState::Planned if job.payer == Payer::Anywhere => {
            "pay for it: `sortie resume` shows address and amount, and reveals what was paid".into()
        }
        JobState::Planned => {
            format!("sign its PSBT and `sortie finish` that, or free its coins with `sortie reclaim {id}`")
        }
        JobState::Signed | JobState::CommitSent | JobState::RevealSent => {
            "`sortie resume` sends what the mempool does not have; nothing is paid twice".into()
        }
        JobState::Confirmed(block) | JobState::Final(block) => {
            format!("wait until the follower has read Bitcoin block {}", block.height)
        }
        JobState::Abandoned(_) => "`sortie force` forces the same again".into(),
    }
}
