//! Why a payload was not published.

use super::{CarrierChoice, FeeCap, JobId, JobState, NotRelayed, Profile, Shortfall};
use crate::chain::ChainError;
use crate::envelope::{Carrier, MAX_PAYLOAD, MIN_PAYLOAD};
use crate::primitives::BtcHeight;
use crate::wallet::{SatPerVb, WalletError};
use bitcoin::{Address, Amount, FeeRate, Txid};
use thiserror::Error;

/// Why a payload was not published.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The wallet could not do its part.
    #[error(transparent)]
    Wallet(WalletError),
    /// The node could not answer; nothing was written down.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Too few coins.
    #[error(transparent)]
    Funds(#[from] Shortfall),
    /// It would cost more than the caps allow; nothing was signed.
    #[error(transparent)]
    FeeCap(#[from] FeeCap),
    /// There is no fee estimate, and guessing on mainnet costs money.
    #[error("there is no fee estimate; say --fee-rate SAT_PER_VB, or --fallback-fee-rate for whenever that happens")]
    NoFeeData,
    /// The estimate is not believable.
    #[error("a fee estimate of {} is not believed (above {}); say --fee-rate SAT_PER_VB if you mean it", SatPerVb(*rate), SatPerVb(*cap))]
    MadEstimate {
        /// What the node said.
        rate: FeeRate,
        /// What is believed.
        cap: FeeRate,
    },
    /// What the node asks for at least is not believable.
    #[error(
        "the node takes {} and more, and above {} that is not believed (ten times what recent blocks paid, 100 sat/vB where that is not known); use another node",
        SatPerVb(*floor),
        SatPerVb(*cap)
    )]
    MadFloor {
        /// What the node said.
        floor: FeeRate,
        /// What is believed.
        cap: FeeRate,
    },
    /// The node would not relay at this rate.
    #[error("{} is below the node's minimum of {}; raise --fee-rate", SatPerVb(*rate), SatPerVb(*floor))]
    BelowFloor {
        /// What was asked for.
        rate: FeeRate,
        /// The least that enters the mempool.
        floor: FeeRate,
    },
    /// No payload has this length.
    #[error("a payload has {MIN_PAYLOAD} to {MAX_PAYLOAD} bytes, this one {length}")]
    PayloadLength {
        /// Its length.
        length: usize,
    },
    /// The carrier asked for, or every carrier, is not relayed for this payload.
    #[error("{why}; {}", not_relayed_hint(*asked, why))]
    NotRelayed {
        /// What was asked for.
        asked: CarrierChoice,
        /// Why not.
        why: NotRelayed,
    },
    /// The node refused the transactions before anything left; the coins are free again.
    #[error(
        "the node refused transaction {txid}: {reason}; nothing was sent (job {job} is abandoned){}",
        way_left(reason)
    )]
    Refused {
        /// The job, now abandoned.
        job: JobId,
        /// Which transaction.
        txid: Txid,
        /// The node's words.
        reason: String,
    },
    /// The node refuses a transaction of a job whose coins stay reserved.
    #[error(
        "job {job} is not through: the node refuses {txid}: {reason}; `sortie resume` tries again, `sortie bump {job} --fee-rate SAT_VB` pays more, `sortie reclaim {job}` takes it back"
    )]
    Stuck {
        /// The job.
        job: JobId,
        /// Which transaction.
        txid: Txid,
        /// The node's words.
        reason: String,
    },
    /// Its coins are spent, perhaps by its own transactions, in blocks that the node does not have.
    #[error(
        "what became of job {job} is not known: its coins are spent, and blocks {first} to {last} are not on this node (pruned, or not downloaded yet); an Esplora server shows it (`sortie resume --esplora-url URL`)"
    )]
    Unread {
        /// The job.
        job: JobId,
        /// The first block that was not read.
        first: BtcHeight,
        /// The last one.
        last: BtcHeight,
    },
    /// Another transaction, deep in the chain, spends the job's coins: it was given up.
    #[error("job {job} is given up: its coins were spent by another transaction; `sortie force` it again")]
    Lost {
        /// The job, now abandoned.
        job: JobId,
    },
    /// It is written down, but whether it left is not known.
    #[error("job {job} is signed and written down, but the node did not answer: {source}")]
    Unsent {
        /// The job.
        job: JobId,
        /// The node's error.
        source: ChainError,
    },
    /// The journal has no such job.
    #[error("there is no job {0} in this wallet's journal")]
    NoJob(JobId),
    /// Too little was paid to the envelope's address so far.
    #[error(
        "job {job}: {} sat arrived, and {} sat more are needed; pay them to the same address, then run `sortie resume`", received.to_sat(), missing.to_sat()
    )]
    Unpaid {
        /// The job.
        job: JobId,
        /// What has arrived.
        received: Amount,
        /// What is missing, in one more payment.
        missing: Amount,
    },
    /// The payload has a job with nothing to be signed elsewhere.
    #[error(
        "it is forced already in job {job}, which is {state}; `--again` forces it once more, and is paid for again"
    )]
    AlreadyForced {
        /// The job.
        job: JobId,
        /// Where it stands.
        state: JobState,
    },
    /// The payload has a job that was taken back, and may be published all the same.
    #[error(
        "job {job}, which forced it before, is {state}, and can still be mined: wait until what took it back is six blocks deep; `--again` forces it at once, perhaps a second time"
    )]
    MayComeBack {
        /// The job.
        job: JobId,
        /// Where it stands.
        state: JobState,
    },
    /// The payload has a job that was given away to be signed.
    #[error("job {0} waits for its signatures; `sortie finish` it, or `sortie reclaim` it first")]
    WaitsForSignatures(JobId),
    /// The payload has a job that whoever is shown its address pays for.
    #[error("job {0} waits for a payment to its address (`sortie jobs {0}`); `sortie reclaim {0}` first")]
    WaitsForPayment(JobId),
    /// A PSBT is not what this wallet gave away to be signed.
    #[error("this PSBT cannot be used: {0}")]
    ForeignPsbt(String),
    /// There is nothing to bring back.
    #[error("nothing to recover: {0}")]
    NothingToRecover(String),
    /// The job's transactions cannot be made to pay more.
    #[error("job {job} cannot be bumped: {why}")]
    NotBumpable {
        /// The job.
        job: JobId,
        /// Why not.
        why: String,
    },
    /// What is signed goes to another refund address.
    #[error(
        "job {job} is {state}: what its payments hold beyond the fee goes to {refund}, and that cannot be changed any more"
    )]
    RefundSettled {
        /// The job.
        job: JobId,
        /// Where it stands.
        state: JobState,
        /// Where the rest goes.
        refund: Address,
    },
    /// The job has nothing to sweep back.
    #[error("job {job} cannot be reclaimed: {why}")]
    NotReclaimable {
        /// The job.
        job: JobId,
        /// Why not.
        why: String,
    },
    /// A mistake in this program, noticed before anything was signed or sent.
    #[error("internal error: {0}; nothing was sent, please report it")]
    Broken(&'static str),
}

/// What helps a payload that is not relayed.
fn not_relayed_hint(asked: CarrierChoice, why: &NotRelayed) -> &'static str {
    match (asked, why) {
        (CarrierChoice::Auto, _) => "no carrier is relayed",
        (_, NotRelayed::OpReturnTooLong { bytes, profile: Profile::Legacy, .. })
            if *bytes <= Profile::Core30.op_return_limit() =>
        {
            "choose another carrier, or `--profile core30` where the nodes on the way are Bitcoin Core 30 or later"
        }
        (CarrierChoice::Only(Carrier::OpReturn), _) => "choose another carrier (--carrier taproot)",
        _ => "choose another carrier",
    }
}

/// The way that is left when a node does not take a transaction for what is in it.
fn way_left(reason: &str) -> &'static str {
    // Bitcoin Core's words for OP_RETURN outputs that are too many or too long, of version 30 and before.
    const DATA: [&str; 3] = ["datacarrier", "multi-op-return", "scriptpubkey"];
    let is_data = DATA.iter().any(|words| reason.contains(words));
    if is_data { "; the way that is left is `--carrier taproot`" } else { "" }
}

impl From<WalletError> for PublishError {
    fn from(error: WalletError) -> Self {
        match error {
            WalletError::Funds(error) => Self::Funds(error),
            WalletError::FeeCap(error) => Self::FeeCap(error),
            WalletError::Chain(error) => Self::Chain(error),
            other => Self::Wallet(other),
        }
    }
}
