//! Bumps that the operator asks for while the sequencer has the wallet.

use super::post::Batch;
use super::{Done, Sequencer, SequencerError};
use crate::publish::{Act, Bumped, JobId, PublishError, bump, job, look};
use crate::wallet::{Order, Wallet, WalletError};
use serde::{Deserialize, Serialize};

/// What came of an order, as the wallet's database keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carried {
    /// It pays what was asked for.
    Bumped(Bumped),
    /// It cannot be done.
    Refused {
        /// Why.
        reason: String,
        /// Whether a cap forbids it.
        is_cap: bool,
    },
}

impl Sequencer {
    /// Carries an order out, and writes down what came of it.
    pub(super) fn carry_out(
        &mut self,
        order: &Order,
        live: &[Batch],
        on_done: &mut impl FnMut(Done),
    ) -> Result<(), SequencerError> {
        if !self.wallet.take_order(order.id)? {
            return Ok(());
        }
        let carried = match bump(&mut self.wallet, &self.rpc, order.job, order.rate, &order.caps) {
            Ok(bumped) => Carried::Bumped(bumped),
            // Asked again, the node may answer: the order stays.
            Err(error @ (PublishError::Chain(_) | PublishError::Unsent { .. })) => return Err(error.into()),
            Err(error @ PublishError::Wallet(WalletError::Database(_))) => return Err(error.into()),
            Err(error) => {
                let is_cap = matches!(error, PublishError::FeeCap(_));
                Carried::Refused { reason: error.to_string(), is_cap }
            }
        };
        let outcome = serde_json::to_string(&carried).map_err(|_| SequencerError::Damaged)?;
        self.wallet.end_order(order.id, &outcome)?;
        match carried {
            Carried::Refused { reason, .. } => on_done(Done::OrderRefused { job: order.job, reason }),
            Carried::Bumped(bumped) => {
                let raised = job(&self.wallet, order.job)?;
                let batch = live.iter().find(|batch| batch.payload == raised.payload);
                on_done(Done::Raised { blocks: batch.map(|batch| batch.blocks), bumped });
                if let Some(batch) = batch {
                    let held = look(&self.wallet, &self.rpc, &raised, None, Act::Waits)?;
                    self.show_in_flight(batch, &raised, held, on_done);
                }
            }
        }
        Ok(())
    }
}

/// Whether a job carries one of these batches.
pub(super) fn is_of(wallet: &Wallet, id: JobId, live: &[Batch]) -> Result<bool, SequencerError> {
    let payload = &job(wallet, id)?.terms.payload;
    Ok(live.iter().any(|batch| batch.payload == *payload))
}
