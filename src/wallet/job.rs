//! A publication's life as a list of events, and the state that they add up to.
//!
//! Guarantees: a job's state is nothing but the fold of its events ([`Job::apply`]), and an event that
//! does not follow from those before it is an error, never a guess. Pure: no clock, no disk.

use super::{Caps, inputs_of, vsize};
use crate::envelope::Carrier;
use crate::primitives::{BlockRef, BtcHeight, Hash32, sha256};
use crate::queue::Place;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, TapNodeHash, Transaction, TxOut, Txid};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Deref;

/// A job's number in this wallet's journal, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Whose coins pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Payer {
    /// This wallet's, signed here.
    Wallet,
    /// Anybody's, paid to the envelope's address.
    Anywhere,
    /// This wallet's, signed elsewhere.
    Psbt,
}

impl Payer {
    pub(crate) const ALL: [Self; 3] = [Self::Wallet, Self::Anywhere, Self::Psbt];

    /// As the journal writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wallet => "wallet",
            Self::Anywhere => "anywhere",
            Self::Psbt => "psbt",
        }
    }
}

/// Transactions that publish a payload together; a fee bump makes another generation of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Parents first: the commit, if it is ours; the one that carries the payload; a child that pays for it.
    #[serde(with = "raw")]
    pub transactions: Vec<Transaction>,
    /// Which of them carries the payload.
    pub carrying: usize,
    /// What the carrying transaction spends, in order.
    pub spent: Vec<TxOut>,
    /// Fee of all of them.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub fee: Amount,
    /// Virtual size of all of them.
    pub vsize: u64,
    /// The output that pays back what is left.
    pub change: Option<OutPoint>,
}

impl Generation {
    /// The transaction that carries the payload.
    pub fn carrier_tx(&self) -> Option<&Transaction> {
        self.transactions.get(self.carrying)
    }

    /// The commit, if it is one of ours.
    pub fn commit(&self) -> Option<&Transaction> {
        self.transactions[..self.carrying.min(self.transactions.len())].first()
    }

    /// The transaction behind the carrying one that pays for it.
    pub fn child(&self) -> Option<&Transaction> {
        self.transactions.get(self.carrying + 1)
    }

    /// A draft with what was to be signed elsewhere in place. Signatures of ECDSA may be a byte smaller than was
    /// planned.
    pub(crate) fn signed(&self, first: Transaction) -> Self {
        let mut signed = self.clone();
        signed.transactions[0] = first;
        signed.vsize = signed.transactions.iter().map(vsize).sum();
        signed
    }

    /// The ids of its transactions, in order.
    pub fn txids(&self) -> Vec<Txid> {
        self.transactions.iter().map(Transaction::compute_txid).collect()
    }
}

/// By which height a job's payload is to be in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The height.
    pub confirm_by: BtcHeight,
    /// The last height that was acted upon.
    pub seen: BtcHeight,
}

/// What is settled anew of a job that others pay for; what is `None` stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amendment {
    /// The payload of an envelope that was found by its backup line alone.
    #[serde(with = "hex", default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Vec<u8>>,
    /// Where the rest goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund: Option<ScriptBuf>,
    /// What the envelope's address is to be paid.
    #[serde(with = "bitcoin::amount::serde::as_sat::opt", default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Amount>,
    /// The rate that is asked for, in sat/kwu.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee_rate: Option<FeeRate>,
    /// The cap on the fee.
    #[serde(with = "bitcoin::amount::serde::as_sat::opt", default, skip_serializing_if = "Option::is_none")]
    pub max_fee: Option<Amount>,
    /// The cap on the rate, in sat/kwu.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fee_rate: Option<FeeRate>,
}

impl Amendment {
    /// Both caps.
    pub fn of_caps(caps: Caps) -> Self {
        Self { max_fee: caps.max_fee, max_fee_rate: caps.max_fee_rate, ..Self::default() }
    }

    /// What of it is not so already.
    pub(crate) fn news(self, terms: &JobTerms) -> Self {
        fn news<T: PartialEq>(wanted: Option<T>, is: Option<&T>) -> Option<T> {
            wanted.filter(|wanted| is != Some(wanted))
        }
        Self {
            payload: news(self.payload, Some(&terms.payload)),
            refund: news(self.refund, terms.refund.as_ref()),
            asked: news(self.asked, terms.asked.as_ref()),
            fee_rate: news(self.fee_rate, Some(&terms.fee_rate)),
            max_fee: news(self.max_fee, terms.caps.max_fee.as_ref()),
            max_fee_rate: news(self.max_fee_rate, terms.caps.max_fee_rate.as_ref()),
        }
    }

    /// Whether it is about caps at most.
    fn keeps_what_is_signed(&self) -> bool {
        let Self { payload, refund, asked, fee_rate, .. } = self;
        payload.is_none() && refund.is_none() && asked.is_none() && fee_rate.is_none()
    }
}

/// Something that happened to a job; written down before the act that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The job exists: its key is taken. A PSBT's transactions are there, the commit without signatures.
    Planned {
        /// What is to be signed elsewhere.
        draft: Option<Generation>,
    },
    /// Some of its terms are settled anew.
    Amended {
        /// Which.
        #[serde(flatten)]
        amendment: Amendment,
    },
    /// It is to confirm by a height, and the blocks up to another one have been acted upon.
    Deadline {
        /// The heights.
        #[serde(flatten)]
        deadline: Deadline,
    },
    /// These transactions are signed, and stand for the job from now on.
    Signed {
        /// The transactions.
        generation: Generation,
    },
    /// The commit is about to leave.
    CommitSent,
    /// The transaction that carries the payload is about to leave, and with it all that it needs.
    RevealSent,
    /// The payload is in this block of the best chain.
    Confirmed {
        /// The transaction that carries it.
        txid: Txid,
        /// The block.
        block: BlockRef,
    },
    /// The commit's coins are about to be swept back by key.
    Reclaiming {
        /// The signed sweep.
        #[serde(with = "raw")]
        transactions: Vec<Transaction>,
    },
    /// The commit's coins were swept back, without the payload, in this block.
    Reclaimed {
        /// The sweep.
        txid: Txid,
        /// The block.
        block: BlockRef,
    },
    /// What was paid to the envelope's address too late to be revealed is about to be swept back.
    Swept {
        /// The signed sweep.
        #[serde(with = "raw")]
        transactions: Vec<Transaction>,
    },
    /// A reorganisation took the block away; of what was given up, perhaps the block of what spent its coins.
    Undone,
    /// What the chain has made of it is buried deep: the job is no longer watched.
    Final,
    /// Nothing of it can confirm, or nothing of it left; its coins are free. It is watched until they are spent for
    /// good, for somebody else may have its transactions.
    Abandoned {
        /// Why.
        reason: String,
    },
}

impl Event {
    /// The event's name in the journal.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Planned { .. } => "planned",
            Self::Amended { .. } => "amended",
            Self::Deadline { .. } => "deadline",
            Self::Signed { .. } => "signed",
            Self::CommitSent => "commit_sent",
            Self::RevealSent => "reveal_sent",
            Self::Confirmed { .. } => "confirmed",
            Self::Reclaiming { .. } => "reclaiming",
            Self::Reclaimed { .. } => "reclaimed",
            Self::Swept { .. } => "swept",
            Self::Undone => "undone",
            Self::Final => "final",
            Self::Abandoned { .. } => "abandoned",
        }
    }
}

/// How far a publication has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Its key is taken; nothing is signed.
    Planned,
    /// Signed and written down; nothing has left.
    Signed,
    /// The commit has left, perhaps.
    CommitSent,
    /// Everything has left, perhaps.
    RevealSent,
    /// The payload is in this block of the best chain.
    Confirmed(BlockRef),
    /// The same, buried deep.
    Final(BlockRef),
    /// The commit is being swept back by key, without the payload.
    Reclaiming,
    /// The commit was swept back in this block.
    Reclaimed(BlockRef),
    /// It will not be published: nothing of it left, or its coins were spent otherwise.
    Abandoned(String),
}

impl JobState {
    /// Whether there is something left to send or to wait for.
    pub fn is_unfinished(&self) -> bool {
        matches!(self, Self::Planned | Self::Signed | Self::CommitSent | Self::RevealSent | Self::Reclaiming)
    }

    /// Whether it is to be published, or has been.
    pub fn is_publishing(&self) -> bool {
        !matches!(self, Self::Reclaiming | Self::Reclaimed(_) | Self::Abandoned(_))
    }

    /// The block of the best chain that holds the payload.
    pub fn confirmed(&self) -> Option<BlockRef> {
        match self {
            Self::Confirmed(block) | Self::Final(block) => Some(*block),
            _ => None,
        }
    }

    /// The state's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Signed => "signed",
            Self::CommitSent => "commit_sent",
            Self::RevealSent => "reveal_sent",
            Self::Confirmed(_) => "confirmed",
            Self::Final(_) => "final",
            Self::Reclaiming => "reclaiming",
            Self::Reclaimed(_) => "reclaimed",
            Self::Abandoned(_) => "abandoned",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Planned => "planned",
            Self::Signed => "signed, nothing sent",
            Self::CommitSent => "commit sent",
            Self::RevealSent => "sent",
            Self::Confirmed(block) => return write!(f, "confirmed at height {}", block.height),
            Self::Final(block) => return write!(f, "final, in block {}", block.height),
            Self::Reclaiming => "reclaiming",
            Self::Reclaimed(block) => return write!(f, "reclaimed at height {}", block.height),
            Self::Abandoned(reason) => return write!(f, "abandoned: {reason}"),
        })
    }
}

/// What is settled when a job is planned, or by an [`Amendment`] later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobTerms {
    /// Whose coins pay.
    pub payer: Payer,
    /// How the payload is carried.
    pub carrier: Carrier,
    /// The payload.
    pub payload: Vec<u8>,
    /// SHA-256 of the payload.
    pub payload_hash: Hash32,
    /// Index of the reveal key, for a Taproot envelope.
    pub key_index: Option<u32>,
    /// Root of the envelope's script tree, for a Taproot envelope.
    pub merkle_root: Option<TapNodeHash>,
    /// Where the rest goes, if not to this wallet.
    pub refund: Option<ScriptBuf>,
    /// What the envelope's address is to be paid, by [`Payer::Anywhere`].
    pub asked: Option<Amount>,
    /// The rate that was asked for.
    pub fee_rate: FeeRate,
    /// The caps that were set.
    pub caps: Caps,
}

impl JobTerms {
    /// Those of a payload that locks nothing in an envelope, and of which nothing goes elsewhere.
    pub(crate) fn new(payer: Payer, carrier: Carrier, payload: &[u8], fee_rate: FeeRate, caps: Caps) -> Self {
        Self {
            payer,
            carrier,
            payload: payload.to_vec(),
            payload_hash: sha256(payload),
            key_index: None,
            merkle_root: None,
            refund: None,
            asked: None,
            fee_rate,
            caps,
        }
    }

    /// Settles them anew.
    pub(crate) fn amend(&mut self, amendment: Amendment) {
        let Amendment { payload, refund, asked, fee_rate, max_fee, max_fee_rate } = amendment;
        if let Some(payload) = payload {
            self.payload_hash = sha256(&payload);
            self.payload = payload;
        }
        self.refund = refund.or(self.refund.take());
        self.asked = asked.or(self.asked);
        self.fee_rate = fee_rate.unwrap_or(self.fee_rate);
        self.caps.max_fee = max_fee.or(self.caps.max_fee);
        self.caps.max_fee_rate = max_fee_rate.or(self.caps.max_fee_rate);
    }
}

/// One publication: its terms, whose fields it has as if they were its own, and what its events add up to.
#[derive(Clone, Debug)]
pub struct Job {
    /// Number in the journal.
    pub id: JobId,
    /// When it was planned, in seconds since 1970.
    pub created_at: u64,
    /// What was settled then.
    pub terms: JobTerms,
    /// By when it is to confirm, if somebody asked for that.
    pub deadline: Option<Deadline>,
    /// What is to be signed elsewhere.
    pub draft: Option<Generation>,
    /// All signed transactions; the last generation stands for the job.
    pub generations: Vec<Generation>,
    /// Signed sweeps of the commit; the last one stands.
    pub reclaims: Vec<Transaction>,
    /// Signed sweeps of late payments; of those that spend the same, the last one stands.
    pub sweeps: Vec<Transaction>,
    /// The transaction that brought the payload into the chain.
    pub confirmed_by: Option<Txid>,
    /// How far it has come.
    pub state: JobState,
    /// Whether the last generation may have left.
    pub(crate) has_left: bool,
}

impl Deref for Job {
    type Target = JobTerms;

    fn deref(&self) -> &JobTerms {
        &self.terms
    }
}

impl Job {
    /// A job before its first event.
    pub(crate) fn new(id: JobId, created_at: u64, terms: JobTerms) -> Self {
        Self {
            id,
            created_at,
            terms,
            deadline: None,
            draft: None,
            generations: Vec::new(),
            reclaims: Vec::new(),
            sweeps: Vec::new(),
            confirmed_by: None,
            state: JobState::Planned,
            has_left: false,
        }
    }

    /// Takes one more event into account.
    ///
    /// # Errors
    /// The event cannot follow those before it.
    pub(crate) fn apply(&mut self, event: &Event) -> Result<(), String> {
        use JobState::{Abandoned, CommitSent, Confirmed, Final, Planned, Reclaimed, Reclaiming, RevealSent, Signed};
        let next = match (&self.state, event) {
            // Planned is the state that a job begins with.
            (Planned, Event::Planned { draft }) if self.draft.is_none() && self.generations.is_empty() => {
                self.draft.clone_from(draft);
                Planned
            }
            (Planned | Signed | CommitSent | RevealSent, Event::Amended { amendment }) => {
                if self.state != Planned && !amendment.keeps_what_is_signed() {
                    return Err("what is signed keeps its terms, but for the caps".into());
                }
                self.terms.amend(amendment.clone());
                self.state.clone()
            }
            (Planned | Signed | CommitSent | RevealSent, Event::Deadline { deadline }) => {
                self.deadline = Some(*deadline);
                self.state.clone()
            }
            (Planned | Signed | CommitSent | RevealSent, Event::Signed { generation }) => {
                if generation.carrier_tx().is_none() {
                    return Err("it has no transaction that carries the payload".into());
                }
                self.generations.push(generation.clone());
                self.has_left = false;
                if self.state == Planned { Signed } else { self.state.clone() }
            }
            // What was given away to be signed was sent by others after it had been given up.
            (Abandoned(_), Event::Signed { generation }) if self.draft.is_some() && self.generations.is_empty() => {
                self.generations.push(generation.clone());
                self.state.clone()
            }
            (Signed, Event::CommitSent) => CommitSent,
            (Signed | CommitSent | RevealSent, Event::RevealSent) => {
                self.has_left = true;
                RevealSent
            }
            // What was given up may have been sent all the same.
            (
                Planned | Signed | CommitSent | RevealSent | Reclaiming | Abandoned(_),
                Event::Reclaiming { transactions },
            ) => {
                self.reclaims.extend(transactions.iter().cloned());
                Reclaiming
            }
            // What the chain shows is so, whatever we believed.
            (state, Event::Confirmed { txid, block }) if !matches!(state, Final(_)) => {
                self.confirmed_by = Some(*txid);
                Confirmed(*block)
            }
            (state, Event::Reclaimed { block, .. }) if !matches!(state, Final(_)) => Reclaimed(*block),
            (Confirmed(_) | Final(_), Event::Undone) => {
                self.confirmed_by = None;
                RevealSent
            }
            (Reclaimed(_), Event::Undone) => Reclaiming,
            // What took its coins may be gone.
            (Abandoned(_), Event::Undone) => self.state.clone(),
            (Confirmed(_) | Final(_) | Reclaimed(_), Event::Swept { transactions }) => {
                self.sweeps.extend(transactions.iter().cloned());
                self.state.clone()
            }
            (Confirmed(block), Event::Final) => Final(*block),
            (Reclaimed(_) | Abandoned(_), Event::Final) => self.state.clone(),
            (Planned | Signed | CommitSent | RevealSent | Reclaiming, Event::Abandoned { reason }) => {
                Abandoned(reason.clone())
            }
            (state, event) => return Err(format!("it is {state}, and `{}` cannot follow", event.kind())),
        };
        self.state = next;
        Ok(())
    }

    /// The transactions that stand for the job: the generation in the chain, else the last one.
    pub fn current(&self) -> Option<&Generation> {
        let is_confirmed = |generation: &&Generation| {
            generation.carrier_tx().is_some_and(|tx| Some(tx.compute_txid()) == self.confirmed_by)
        };
        self.generations.iter().find(is_confirmed).or(self.generations.last()).or(self.draft.as_ref())
    }

    /// The ids of the transactions that stand for the job, in order.
    pub fn txids(&self) -> Vec<Txid> {
        self.current().map(Generation::txids).unwrap_or_default()
    }

    /// Where the payload stands, if anything is signed; a fee bump moves it.
    pub fn place(&self) -> Option<Place> {
        let txid = match self.confirmed_by {
            Some(txid) => txid,
            None => self.current()?.carrier_tx()?.compute_txid(),
        };
        Some(Place { txid, carrier: self.carrier, index: 0, position: 0 })
    }

    /// The commit, if it is one of ours.
    pub fn commit(&self) -> Option<&Transaction> {
        self.current().and_then(Generation::commit)
    }

    /// The commit, if it is one of ours and `tx` spends it.
    pub(crate) fn commit_of(&self, tx: &Transaction) -> Option<&Transaction> {
        self.commit().filter(|commit| {
            let txid = commit.compute_txid();
            tx.input.iter().any(|input| input.previous_output.txid == txid)
        })
    }

    /// The sweeps of late payments that no later one replaces.
    pub(crate) fn standing_sweeps(&self) -> impl Iterator<Item = &Transaction> {
        let is_replaced = move |n: usize, tx: &Transaction| {
            let spent = inputs_of(tx);
            self.sweeps[n + 1..].iter().any(|later| !inputs_of(later).is_disjoint(&spent))
        };
        self.sweeps.iter().enumerate().filter(move |(n, tx)| !is_replaced(*n, tx)).map(|(_, tx)| tx)
    }

    /// Every transaction that was signed for it.
    pub(crate) fn all_txids(&self) -> impl Iterator<Item = Txid> + '_ {
        let signed = self.generations.iter().flat_map(|generation| &generation.transactions);
        signed.chain(&self.reclaims).map(Transaction::compute_txid)
    }

    /// The transactions that are to be in the mempool or in the chain now.
    pub(crate) fn active(&self) -> Vec<Transaction> {
        match (&self.state, self.reclaims.last()) {
            (JobState::Planned | JobState::Abandoned(_), _) => Vec::new(),
            (JobState::Reclaiming | JobState::Reclaimed(_), Some(reclaim)) => {
                self.commit_of(reclaim).into_iter().chain([reclaim]).cloned().collect()
            }
            _ => self.current().map(|generation| generation.transactions.clone()).unwrap_or_default(),
        }
    }
}

/// Transactions as hexadecimal text: what a person can take out of the journal and send by hand.
mod raw {
    use bitcoin::Transaction;
    use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(transactions: &[Transaction], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(transactions.iter().map(serialize_hex))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Transaction>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| deserialize_hex(text).map_err(D::Error::custom)).collect()
    }
}

/// Bytes as hexadecimal text.
mod hex {
    use bitcoin::hex::{DisplayHex, FromHex};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(|bytes| bytes.to_lower_hex_string()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| Vec::from_hex(&text).map_err(D::Error::custom)).transpose()
    }
}
