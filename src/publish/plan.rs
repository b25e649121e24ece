//! The transactions that carry a payload, before they are signed.
//!
//! A plan has placeholders where signatures go, of their final size: its sizes and fees are those of
//! the signed transactions. Two shapes:
//!
//! * OP_RETURN: one transaction, the payload in output 0 with 0 sat, then change.
//! * Taproot: a commit that locks whole coins in one output (no change), and a reveal that shows the
//!   payload and returns the rest to the wallet. Internal key and leaf key are one key of the seed.
//!
//! Where packages are relayed, the commit pays the least that every node takes and the reveal pays for
//! both; the sum is the same. A commit spends the coins that [`select`] chooses: the smallest one that
//! suffices. Where it would lock more of them than a limit ([`LOCK_AT_MOST`]) beyond what both transactions
//! need, it gets a second output that returns the rest to the wallet at once. Then its first output holds
//! what both need, and what a bump to [`SPARE_RATES`] times the rate would take from the reveal's change, but
//! no more than the limit. [`CarrierCost::locked`] says how much that is.

use super::{PublishError, Request};
use crate::chain::RelayFacts;
use crate::envelope::{Carrier, leaf_script, op_return_script};
use crate::wallet::{
    Coin, Draft, SIGNATURE_LEN, Shortfall, Wallet, fee_for, key_spend, pay, select, transaction, unsigned, vsize,
};
use bitcoin::taproot::{LeafVersion, TaprootBuilder, TaprootSpendInfo};
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, TapNodeHash, Transaction, TxIn, TxOut, Weight, Witness};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The heaviest transaction that nodes relay.
pub const MAX_STANDARD_WEIGHT: Weight = Weight::from_wu(400_000);

/// What a commit may lock beyond what it and its reveal need, unless another limit is set: 1,000,000 sat.
pub const LOCK_AT_MOST: Amount = Amount::from_sat(1_000_000);

/// The multiple of the wanted rate that a reveal can be bumped to from its own change, if its commit has another.
const SPARE_RATES: u64 = 10;

/// What nodes before Core 29.1 ask of each transaction, even in a package: 1 sat/vB.
const STATIC_FLOOR: FeeRate = FeeRate::from_sat_per_kwu(250);

/// What nodes relay behind OP_RETURN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Bitcoin Core 30 and later: output scripts up to 100,000 bytes.
    Core30,
    /// Before that: output scripts up to 83 bytes.
    Legacy,
}

impl Profile {
    /// The profile of a Bitcoin Core version such as 310000.
    pub fn of_version(version: u32) -> Self {
        if version >= 300_000 { Self::Core30 } else { Self::Legacy }
    }

    /// Longest OP_RETURN output script, in bytes.
    pub fn op_return_limit(self) -> usize {
        match self {
            Self::Core30 => 100_000,
            Self::Legacy => 83,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Core30 => "core30",
            Self::Legacy => "legacy",
        })
    }
}

impl FromStr for Profile {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "core30" => Ok(Self::Core30),
            "legacy" => Ok(Self::Legacy),
            _ => Err("a policy profile is core30 or legacy"),
        }
    }
}

/// What decides how transactions are built and whether they travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What is relayed behind OP_RETURN.
    pub profile: Profile,
    /// What the node itself relays there, in bytes, if it says so.
    pub data_carrier: Option<u32>,
    /// The lowest rate that enters the node's mempool.
    pub floor: FeeRate,
    /// Whether a commit at the floor travels together with its reveal.
    pub packages: bool,
    /// What a commit may lock beyond what it and its reveal need; `None` is no limit.
    pub lock_at_most: Option<Amount>,
}

impl Policy {
    /// A node's policy, and what the request says.
    pub fn new(relay: RelayFacts, request: &Request) -> Self {
        Self {
            profile: request.profile.unwrap_or(Profile::of_version(relay.version)),
            data_carrier: relay.data_carrier,
            floor: relay.floor,
            packages: relay.packages,
            lock_at_most: request.lock_at_most,
        }
    }

    /// Whether an OP_RETURN output of this length gets through the node, and through those behind it.
    fn check_op_return(&self, bytes: usize) -> Result<(), NotRelayed> {
        let own = self.data_carrier.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (profile, limit) = (self.profile, self.profile.op_return_limit());
        match own {
            Some(limit) if bytes > limit => Err(NotRelayed::NodeSays { bytes, limit }),
            _ if bytes > limit => Err(NotRelayed::OpReturnTooLong { bytes, limit, profile }),
            _ => Ok(()),
        }
    }
}

/// Why a transaction would not be relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotRelayed {
    /// The OP_RETURN output is too long.
    #[error("its OP_RETURN output has {bytes} bytes, and {profile} nodes relay {limit}")]
    OpReturnTooLong {
        /// Length of the output script.
        bytes: usize,
        /// Longest that is relayed.
        limit: usize,
        /// By which nodes.
        profile: Profile,
    },
    /// The node itself relays less.
    #[error("its OP_RETURN output has {bytes} bytes, and the node relays {} (its -datacarriersize)", at_most(*limit))]
    NodeSays {
        /// Length of the output script.
        bytes: usize,
        /// Longest that it relays.
        limit: usize,
    },
    /// The transaction is too heavy.
    #[error("its transaction has {weight} weight units, and nodes relay {limit}")]
    TooHeavy {
        /// Its weight.
        weight: u64,
        /// Heaviest that is relayed.
        limit: u64,
    },
}

/// So many bytes.
fn at_most(limit: usize) -> String {
    if limit == 0 { "none".into() } else { limit.to_string() }
}

/// What one carrier costs: the sizes and the fee that publishing would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarrierCost {
    /// Which carrier.
    pub carrier: Carrier,
    /// Virtual size of all its transactions.
    pub vsize: u64,
    /// Fee of all its transactions.
    pub fee: Amount,
    /// What the commit holds until the reveal confirms; it comes back less the reveal's fee.
    pub locked: Amount,
    /// Set if the wallet cannot pay: size and fee are then those with one coin that suffices.
    pub shortfall: Option<Shortfall>,
    /// Whether nodes relay it, or why not.
    pub relayed: Result<(), NotRelayed>,
}

/// Unsigned transactions of final size.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub carrier: Carrier,
    pub transactions: Vec<Transaction>,
    /// Coins that the first transaction spends, in order.
    pub coins: Vec<Coin>,
    pub fee: Amount,
    pub vsize: u64,
    pub change: Option<OutPoint>,
    pub locked: Amount,
    pub relayed: Result<(), NotRelayed>,
    /// What the reveal shows; nothing for OP_RETURN.
    pub envelope: Option<Envelope>,
}

/// What a plan is made from, beside the coins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub payload: &'a [u8],
    pub rate: FeeRate,
    pub policy: &'a Policy,
    /// Where change goes: of the last transaction, and of the commit.
    pub change: &'a [ScriptBuf; 2],
    /// An input that spends a coin of the wallet, of final size.
    pub input: &'a TxIn,
    pub must_spend: Option<&'a Coin>,
}

/// A payload's leaf, and the tree that an output commits to.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    /// Index of the reveal key.
    pub key_index: u32,
    pub leaf: ScriptBuf,
    tree: TaprootSpendInfo,
}

impl Envelope {
    pub fn of(wallet: &Wallet, payload: &[u8], key_index: u32) -> Result<Self, PublishError> {
        let key = wallet.reveal_key(key_index)?;
        let leaf = leaf_script(payload, &key);
        let tree = TaprootBuilder::new()
            .add_leaf(0, leaf.clone())
            .ok()
            .and_then(|builder| builder.finalize(wallet.secp(), key).ok())
            .ok_or(PublishError::Broken("a tree of one leaf cannot be built"))?;
        Ok(Self { key_index, leaf, tree })
    }

    pub fn merkle_root(&self) -> Option<TapNodeHash> {
        self.tree.merkle_root()
    }

    pub fn output_script(&self) -> ScriptBuf {
        ScriptBuf::new_p2tr_tweaked(self.tree.output_key())
    }

    /// The reveal's witness around `signature`.
    pub fn witness(&self, signature: &[u8]) -> Result<Witness, PublishError> {
        let control = self
            .tree
            .control_block(&(self.leaf.clone(), LeafVersion::TapScript))
            .ok_or(PublishError::Broken("the leaf is not in its own tree"))?;
        let control = control.serialize();
        Ok(Witness::from_slice(&[signature, self.leaf.as_bytes(), &control]))
    }
}

/// Plans an OP_RETURN publication.
pub(crate) fn op_return(coins: &[Coin], terms: &Terms<'_>) -> Result<Plan, Shortfall> {
    let script = op_return_script(terms.payload);
    let bytes = script.len();
    let output = TxOut { value: Amount::ZERO, script_pubkey: script };
    let Draft { tx, coins, fee, change } =
        pay(coins, terms.must_spend, &[output], &terms.change[0], terms.input, terms.rate)?;
    let relayed = terms.policy.check_op_return(bytes).and_then(|()| check_weight(&tx));
    Ok(Plan {
        carrier: Carrier::OpReturn,
        coins,
        fee,
        vsize: vsize(&tx),
        change: change.map(|vout| OutPoint::new(tx.compute_txid(), vout)),
        locked: Amount::ZERO,
        relayed,
        envelope: None,
        transactions: vec![tx],
    })
}

/// Plans a Taproot publication: commit and reveal.
pub(crate) fn taproot(
    envelope: &Envelope,
    coins: &[Coin],
    terms: &Terms<'_>,
) -> Result<Result<Plan, Shortfall>, PublishError> {
    let Terms { rate, policy, change: [change, rest_to], input, must_spend, .. } = *terms;
    let least = policy.floor.max(STATIC_FLOOR).min(rate);
    let commit_rate = if policy.packages { least } else { rate };
    let dust = change.minimal_non_dust();

    let reveal = |commit: OutPoint, value| -> Result<Transaction, PublishError> {
        let mut input = key_spend(commit);
        input.witness = envelope.witness(&[0; SIGNATURE_LEN])?;
        let output = TxOut { value, script_pubkey: change.clone() };
        Ok(transaction(vec![input], vec![output]))
    };
    let commit_output = |value| TxOut { value, script_pubkey: envelope.output_script() };
    let reveal_vsize = vsize(&reveal(OutPoint::null(), dust)?);
    // (commit's, reveal's): together at the wanted rate, and neither below what enters a mempool.
    let outputs = [commit_output(dust), TxOut { value: dust, script_pubkey: rest_to.clone() }];
    let commit_vsize =
        |inputs: usize, count: usize| vsize(&transaction(vec![input.clone(); inputs], outputs[..count].to_vec()));
    let fees = |inputs: usize, outputs: usize| {
        let commit_vsize = commit_vsize(inputs, outputs);
        let commit = fee_for(commit_rate, commit_vsize);
        let together = fee_for(rate, commit_vsize + reveal_vsize);
        (commit, (together - commit).max(fee_for(commit_rate, reveal_vsize)))
    };
    let needed = |inputs: usize, outputs: usize| {
        let (commit, reveal) = fees(inputs, outputs);
        commit + reveal + dust
    };
    let coins = match select(coins, must_spend, |n| needed(n, 1)) {
        Ok(coins) => coins,
        Err(shortfall) => return Ok(Err(shortfall)),
    };
    let inputs = coins.len();
    let total: Amount = coins.iter().map(|coin| coin.value).sum();
    // What a second output returns.
    let rest = policy.lock_at_most.filter(|limit| total - needed(inputs, 1) > *limit).and_then(|limit| {
        let size = commit_vsize(inputs, 2) + reveal_vsize;
        let raised = FeeRate::from_sat_per_kwu(rate.to_sat_per_kwu().saturating_mul(SPARE_RATES));
        let spare = limit.min(fee_for(raised, size) - fee_for(rate, size));
        total.checked_sub(needed(inputs, 2) + spare).filter(|rest| *rest >= dust)
    });
    let rest = rest.map(|value| TxOut { value, ..outputs[1].clone() });
    let (commit_fee, reveal_fee) = fees(inputs, 1 + rest.iter().len());
    let locked = total - commit_fee - rest.as_ref().map_or(Amount::ZERO, |rest| rest.value);
    let commit = unsigned(&coins, std::iter::once(commit_output(locked)).chain(rest).collect());
    let reveal = reveal(OutPoint::new(commit.compute_txid(), 0), locked - reveal_fee)?;
    Ok(Ok(Plan {
        carrier: Carrier::Taproot,
        coins,
        fee: commit_fee + reveal_fee,
        vsize: vsize(&commit) + reveal_vsize,
        change: Some(OutPoint::new(reveal.compute_txid(), 0)),
        locked,
        relayed: check_weight(&commit).and(check_weight(&reveal)),
        envelope: Some(envelope.clone()),
        transactions: vec![commit, reveal],
    }))
}

pub(super) fn check_weight(tx: &Transaction) -> Result<(), NotRelayed> {
    let (weight, limit) = (tx.weight().to_wu(), MAX_STANDARD_WEIGHT.to_wu());
    if weight > limit { Err(NotRelayed::TooHeavy { weight, limit }) } else { Ok(()) }
}

/// Both carriers' plans, or what they would cost with a coin that suffices.
pub(crate) fn both(
    wallet: &Wallet,
    payload: &[u8],
    request: &Request,
    relay: RelayFacts,
) -> Result<[(CarrierCost, Option<Plan>); 2], PublishError> {
    let envelope = Envelope::of(wallet, payload, wallet.next_key_index()?)?;
    let (coins, change, input) = (wallet.coins()?, wallet.next_changes(), wallet.input());
    let must_spend = request.fund_from.map(|outpoint| wallet.coin(outpoint)).transpose()?;
    let policy = Policy::new(relay, request);
    let (rate, must_spend) = (request.fee_rate, must_spend.as_ref());
    let terms = Terms { payload, rate, policy: &policy, change: &change, input: &input, must_spend };

    // What all money could not pay is short of the wallet's coins, too.
    let ample = Coin { placeholder: input.witness.clone(), ..Coin::ample() };
    let unlimited = Policy { lock_at_most: None, ..policy };
    let alone = Terms { must_spend: Some(&ample), policy: &unlimited, ..terms };
    let op_return = match op_return(&coins, &terms) {
        Ok(plan) => planned(plan),
        Err(shortfall) => supposed(op_return(&[], &alone).map_err(|_| shortfall)?, shortfall),
    };
    let taproot = match taproot(&envelope, &coins, &terms)? {
        Ok(plan) => planned(plan),
        Err(shortfall) => supposed(taproot(&envelope, &[], &alone)?.map_err(|_| shortfall)?, shortfall),
    };
    Ok([op_return, taproot])
}

fn planned(plan: Plan) -> (CarrierCost, Option<Plan>) {
    let cost = CarrierCost {
        carrier: plan.carrier,
        vsize: plan.vsize,
        fee: plan.fee,
        locked: plan.locked,
        shortfall: None,
        relayed: plan.relayed,
    };
    (cost, Some(plan))
}

fn supposed(plan: Plan, shortfall: Shortfall) -> (CarrierCost, Option<Plan>) {
    let (mut cost, _) = planned(plan);
    cost.shortfall = Some(shortfall);
    cost.locked = match cost.carrier {
        Carrier::OpReturn => Amount::ZERO,
        Carrier::Taproot => shortfall.needed,
    };
    (cost, None)
}
