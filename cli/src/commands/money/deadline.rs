//! `--deadline-bump`: what is to be mined by a height pays more as that height nears.

use super::jobs::BumpReport;
use super::report::sat_per_vb;
use super::waiting::reopened;
use crate::bitcoin::Bitcoin;
use crate::config::{Fees, Settings};
use crate::failure::Failure;
use crate::mend::Mended;
use crate::outage::Outage;
use crate::output::{Output, count};
use bitcoin::FeeRate;
use clap::Args;
use serde::Serialize;
use sortie::chain::BlockSource;
use sortie::primitives::BtcHeight;
use sortie::publish::{self, Act, FURTHEST_TARGET, Held, JobId};
use sortie::wallet::{Caps, SatPerVb, Wallet};
use std::collections::BTreeSet;
use std::fmt;

/// Paying more by itself.
#[derive(Args, Clone, Copy, Debug)]
pub struct DeadlineBump {
    /// Wait until it is mined, and pay more, within the caps, if that would take longer than its target
    #[arg(long)]
    deadline_bump: bool,
    /// Be executed by every node at this Bitcoin height at the latest, instead of a window after the target
    #[arg(long, value_name = "HEIGHT", requires = "deadline_bump")]
    due_by: Option<BtcHeight>,
}

impl DeadlineBump {
    /// Whether it is asked for.
    pub fn is_wanted(&self) -> bool {
        self.deadline_bump
    }

    /// Whether it is asked for with a height.
    pub fn names_a_height(&self) -> bool {
        self.due_by.is_some()
    }

    /// The height by which it has to be mined for that.
    pub fn confirm_by(
        &self,
        tip: BtcHeight,
        target_blocks: u16,
        window: impl FnOnce() -> Result<u16, Failure>,
    ) -> Result<Option<BtcHeight>, Failure> {
        let Some(due_by) = self.due_by else {
            return Ok(self.deadline_bump.then(|| tip.saturating_add(target_blocks.into())));
        };
        let window = u32::from(window()?);
        match due_by.checked_sub(window).filter(|height| *height > tip) {
            Some(height) if height - tip > FURTHEST_TARGET.into() => Err(Failure::usage(format_args!(
                "--due-by {due_by}: nobody estimates fees for more than {FURTHEST_TARGET} blocks; give at most {}, or leave --deadline-bump out",
                u64::from(tip) + u64::from(FURTHEST_TARGET) + u64::from(window)
            ))),
            Some(height) => Ok(Some(height)),
            None => Err(Failure::usage(format_args!(
                "--due-by {due_by}: mined in the next block, it is due at {}, which is {window} blocks later",
                u64::from(tip) + 1 + u64::from(window)
            ))),
        }
    }
}

/// Looks at publications at each new block and bumps them where their deadline asks for it, until none of them waits.
///
/// In between, the wallet is closed: other commands can look at them, bump them or take them back.
pub fn hold(
    mut wallet: Wallet,
    node: &Bitcoin,
    jobs: &[(JobId, Caps)],
    fees: &Fees,
    settings: &Settings,
    out: &Output,
) -> Result<Wallet, Failure> {
    let terms = settings.rate_terms(fees, node.network(), 1);
    let (mut told, mut outage) = (BTreeSet::new(), Outage::default());
    let mut first = true;
    loop {
        let (tip, mut waits) = (wallet.synced_to().hash, false);
        for (id, caps) in jobs {
            let held = loop {
                match publish::hold(&mut wallet, node, &node.sources(), *id, &terms, caps) {
                    Ok(held) => break held,
                    Err(error) => outage.survive(error.into(), out)?,
                }
            };
            waits |= !matches!(held.act, Act::Settled);
            tell(*id, held, &mut told, fees, out)?;
        }
        if !waits {
            return Ok(wallet);
        }
        if first {
            out.note("waiting until it is mined; stopping is safe: go on with `sortie resume --deadline-bump`");
            first = false;
        }
        let closed = wallet.close();
        loop {
            match node.wait_for_tip(&tip, node.look()) {
                Ok(now) if now.hash == tip => {}
                Ok(_) => break,
                Err(error) => outage.survive(error.into(), out)?,
            }
        }
        wallet = reopened(closed, node, &mut outage, out)?;
    }
}

/// Tells what was done; that it cannot pay more, only once.
fn tell(id: JobId, held: Held, told: &mut BTreeSet<JobId>, fees: &Fees, out: &Output) -> Result<(), Failure> {
    let Held { confirm_by, remaining, pays, steps, act, .. } = held;
    if fees.explain {
        steps.iter().for_each(|step| out.note(step));
    }
    match act {
        Act::Settled | Act::Waits => Ok(()),
        Act::Bumped(bumped) => {
            told.remove(&id);
            out.print(&RaiseReport {
                event: "bumped",
                confirm_by,
                remaining_blocks: remaining,
                fee_rate_sat_vb: sat_per_vb(pays),
                bump: bumped.into(),
                rate: pays,
            })
        }
        Act::Stopped(why) => {
            if told.insert(id) {
                out.warn(format_args!(
                    "job {id} stays at {}, with {} until height {confirm_by}: {}",
                    SatPerVb(pays),
                    count(remaining.into(), "block"),
                    Mended(&why)
                ));
            }
            Ok(())
        }
    }
}

/// A publication that pays more, because its height nears.
#[derive(Serialize)]
struct RaiseReport {
    event: &'static str,
    confirm_by: BtcHeight,
    remaining_blocks: u32,
    fee_rate_sat_vb: f64,
    #[serde(flatten)]
    bump: BumpReport,
    #[serde(skip)]
    rate: FeeRate,
}

impl fmt::Display for RaiseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { remaining_blocks, confirm_by, bump, rate, .. } = self;
        let BumpReport { job, fee_before_sat, fee_sat, place, .. } = bump;
        write!(
            f,
            "job {job} pays {} now, {fee_sat} sat instead of {fee_before_sat}, with {} until height {confirm_by}; place {place}",
            SatPerVb(*rate),
            count((*remaining_blocks).into(), "block")
        )
    }
}
