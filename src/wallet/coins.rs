//! Which coins pay, and transactions whose size is known before they are signed.
//!
//! Selection is deterministic: confirmed coins before unconfirmed change, and last the change that a bump
//! would be paid from; the smallest single coin that suffices, else the largest first. So a quote and the
//! transaction that follows agree, and an envelope's commit locks as little as one coin allows.

use super::seed::Branch;
use super::{fee_for, vsize};
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, FeeRate, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use std::collections::BTreeSet;
use thiserror::Error;

/// Bytes of a BIP340 signature with the default sighash type.
pub(crate) const SIGNATURE_LEN: usize = 64;

/// A coin of the wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coin {
    /// Which output.
    pub outpoint: OutPoint,
    /// How much.
    pub value: Amount,
    /// Blocks on top of and including its own; 0 while unconfirmed.
    pub confirmations: u32,
    /// Whether it can be spent now: a coinbase's after 100 blocks.
    pub(crate) is_mature: bool,
    /// Whether an unconfirmed publication would be bumped from it: spent, that one can no longer be replaced.
    pub for_bump: bool,
    pub(crate) script_pubkey: ScriptBuf,
    /// What takes the place of its input's witness until it is signed.
    pub(crate) placeholder: Witness,
    pub(crate) branch: Branch,
}

impl Coin {
    /// A coin that nobody has, to know what something would cost.
    pub(crate) fn ample() -> Self {
        // The size of a P2TR script is all that matters of it.
        let script_pubkey = ScriptBuf::from_bytes([&[0x51, 0x20][..], &[0; 32]].concat());
        Self {
            outpoint: OutPoint::null(),
            value: Amount::MAX_MONEY,
            confirmations: 1,
            is_mature: true,
            for_bump: false,
            script_pubkey,
            placeholder: Witness::from_slice(&[[0; SIGNATURE_LEN]]),
            branch: Branch::Receive,
        }
    }

    fn input(&self) -> TxIn {
        TxIn { witness: self.placeholder.clone(), ..key_spend(self.outpoint) }
    }

    pub(crate) fn output(&self) -> TxOut {
        TxOut { value: self.value, script_pubkey: self.script_pubkey.clone() }
    }
}

/// The wallet's spendable coins do not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "not enough coins: {} sat needed, {} sat spendable; pay the wallet (sortie wallet address), wait for confirmations, or free what a job reserves (sortie wallet balance tells)", needed.to_sat(), available.to_sat()
)]
pub struct Shortfall {
    /// What the transaction costs with the coins at hand.
    pub needed: Amount,
    /// What those coins hold.
    pub available: Amount,
}

/// A transaction with placeholder signatures of the final size.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub tx: Transaction,
    /// In the order of the inputs.
    pub coins: Vec<Coin>,
    pub fee: Amount,
    /// Index of the change output.
    pub change: Option<u32>,
}

/// A transaction that spends `coins` into `outputs`, with placeholder signatures.
pub(crate) fn unsigned(coins: &[Coin], outputs: Vec<TxOut>) -> Transaction {
    transaction(coins.iter().map(Coin::input).collect(), outputs)
}

/// The outputs that coins are, in order.
pub(crate) fn outputs_of(coins: &[Coin]) -> Vec<TxOut> {
    coins.iter().map(Coin::output).collect()
}

/// The outputs that a transaction spends.
pub(crate) fn inputs_of(tx: &Transaction) -> BTreeSet<OutPoint> {
    tx.input.iter().map(|input| input.previous_output).collect()
}

pub(crate) fn transaction(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    // No lock time: a journaled transaction must be valid again at once after a reorganisation.
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// A replaceable input with a placeholder for the signature of a Taproot key spend.
pub(crate) fn key_spend(previous_output: OutPoint) -> TxIn {
    TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(&[[0; SIGNATURE_LEN]]),
    }
}

/// Drafts a payment of `outputs` at `rate`, change last, with inputs of the size of `input`.
///
/// Without a coin that leaves change above dust, the rest (below the cost of change) goes to the fee.
pub(crate) fn pay(
    coins: &[Coin],
    must_spend: Option<&Coin>,
    outputs: &[TxOut],
    change: &Script,
    input: &TxIn,
    rate: FeeRate,
) -> Result<Draft, Shortfall> {
    // More than all money is short of any coins, too.
    let paid = outputs.iter().try_fold(Amount::ZERO, |sum, output| sum.checked_add(output.value));
    let paid = paid.unwrap_or(Amount::MAX_MONEY).min(Amount::MAX_MONEY);
    let dust = change.minimal_non_dust();
    let mut with_change = outputs.to_vec();
    with_change.push(TxOut { value: dust, script_pubkey: change.to_owned() });

    let cost = |outputs: &[TxOut], inputs: usize| {
        let tx = transaction(vec![input.clone(); inputs], outputs.to_vec());
        fee_for(rate, vsize(&tx))
    };
    let selected = select(coins, must_spend, |n| paid + cost(&with_change, n) + dust);
    if let Ok(coins) = selected {
        let total: Amount = coins.iter().map(|coin| coin.value).sum();
        let fee = cost(&with_change, coins.len());
        if let Some(output) = with_change.last_mut() {
            output.value = total - paid - fee;
        }
        let change = u32::try_from(outputs.len()).ok();
        return Ok(Draft { tx: unsigned(&coins, with_change), coins, fee, change });
    }
    let coins = select(coins, must_spend, |n| paid + cost(outputs, n))?;
    let total: Amount = coins.iter().map(|coin| coin.value).sum();
    let tx = unsigned(&coins, outputs.to_vec());
    Ok(Draft { tx, coins, fee: total - paid, change: None })
}

/// Chooses coins whose sum reaches `need(number of coins)`.
pub(crate) fn select(
    coins: &[Coin],
    must_spend: Option<&Coin>,
    need: impl Fn(usize) -> Amount,
) -> Result<Vec<Coin>, Shortfall> {
    let mut pool: Vec<&Coin> =
        coins.iter().filter(|coin| must_spend.is_none_or(|m| m.outpoint != coin.outpoint)).collect();
    pool.sort_by_key(|coin| (std::cmp::Reverse(coin.value), coin.outpoint));
    let only =
        |allowed: fn(&Coin) -> bool| -> Vec<&Coin> { pool.iter().copied().filter(|coin| allowed(coin)).collect() };
    select_from(&only(|coin| coin.confirmations > 0), must_spend, &need)
        .or_else(|_| select_from(&only(|coin| !coin.for_bump), must_spend, &need))
        .or_else(|_| select_from(&pool, must_spend, &need))
}

fn select_from(
    largest_first: &[&Coin],
    must_spend: Option<&Coin>,
    need: &impl Fn(usize) -> Amount,
) -> Result<Vec<Coin>, Shortfall> {
    let mut chosen: Vec<Coin> = must_spend.into_iter().cloned().collect();
    let mut sum: Amount = chosen.iter().map(|coin| coin.value).sum();
    if !chosen.is_empty() && sum >= need(chosen.len()) {
        return Ok(chosen);
    }
    let wanted = need(chosen.len() + 1);
    if let Some(coin) = largest_first.iter().rev().find(|coin| sum + coin.value >= wanted) {
        chosen.push((*coin).clone());
        return Ok(chosen);
    }
    for coin in largest_first {
        chosen.push((*coin).clone());
        sum += coin.value;
        if sum >= need(chosen.len()) {
            return Ok(chosen);
        }
    }
    Err(Shortfall { needed: need(chosen.len().max(1)), available: sum })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;
    use bitcoin::{Txid, WPubkeyHash};

    fn coin(n: u8, sat: u64, confirmations: u32) -> Coin {
        Coin {
            outpoint: OutPoint::new(Txid::from_byte_array([n; 32]), 0),
            value: Amount::from_sat(sat),
            confirmations,
            is_mature: true,
            for_bump: false,
            script_pubkey: change(),
            placeholder: key_spend(OutPoint::null()).witness,
            branch: Branch::Receive,
        }
    }

    /// A script of P2TR's size.
    fn change() -> ScriptBuf {
        let mut script = vec![0x51, 0x20];
        script.extend([7; 32]);
        ScriptBuf::from_bytes(script)
    }

    fn sats(coins: &[Coin]) -> Vec<u64> {
        coins.iter().map(|coin| coin.value.to_sat()).collect()
    }

    #[test]
    fn coins_are_chosen_by_a_stated_rule() {
        let coins = [coin(1, 500, 1), coin(2, 9_000, 1), coin(3, 800, 1), coin(4, 600, 0)];
        let need = |each: u64| move |n: usize| Amount::from_sat(each + n as u64);
        let chosen = |amount| select(&coins, None, need(amount)).map(|c| sats(&c));
        assert_eq!(chosen(400), Ok(vec![500]), "the smallest that suffices");
        assert_eq!(chosen(550), Ok(vec![800]), "confirmed before unconfirmed");
        assert_eq!(chosen(8_999), Ok(vec![9_000]));
        assert_eq!(chosen(9_500), Ok(vec![9_000, 800]), "else the largest first");
        assert_eq!(chosen(10_500), Ok(vec![9_000, 800, 600, 500]), "unconfirmed as a last resort");
        let kept = Coin { for_bump: true, ..coin(5, 700, 0) };
        let with_kept = [coins.as_slice(), &[kept]].concat();
        let chosen_with = |amount| select(&with_kept, None, need(amount)).map(|c| sats(&c));
        assert_eq!(chosen_with(10_500), Ok(vec![9_000, 800, 600, 500]), "what a bump needs is not touched");
        assert_eq!(chosen_with(11_000), Ok(vec![9_000, 800, 700, 600]), "unless nothing else suffices");
        let short = Shortfall { needed: Amount::from_sat(20_004), available: Amount::from_sat(10_900) };
        assert_eq!(chosen(20_000), Err(short));
    }

    #[test]
    fn a_coin_that_must_be_spent_is_spent_first_and_once() {
        let coins = [coin(1, 500, 1), coin(2, 9_000, 1)];
        let must = coin(9, 1_000, 0);
        let need = |amount: u64| move |_: usize| Amount::from_sat(amount);
        let chosen = |coins: &[Coin], must, amount| select(coins, Some(must), need(amount)).map(|c| sats(&c));
        assert_eq!(chosen(&coins, &must, 900), Ok(vec![1_000]));
        assert_eq!(chosen(&coins, &must, 1_400), Ok(vec![1_000, 500]));
        assert_eq!(chosen(&coins, &coins[0], 600), Ok(vec![500, 9_000]));
    }

    #[test]
    fn more_than_all_money_is_a_shortfall() {
        let outputs = [u64::MAX, 1].map(|sat| TxOut { value: Amount::from_sat(sat), script_pubkey: change() });
        let rate = FeeRate::from_sat_per_kwu(250);
        let short = pay(&[coin(1, 500, 1)], None, &outputs, &change(), &key_spend(OutPoint::null()), rate);
        assert_eq!(short.expect_err("too much").available, Amount::from_sat(500));
    }

    #[test]
    fn change_below_dust_goes_to_the_fee() {
        let outputs = [TxOut {
            value: Amount::from_sat(10_000),
            script_pubkey: ScriptBuf::new_p2wpkh(&WPubkeyHash::all_zeros()),
        }];
        let rate = FeeRate::from_sat_per_kwu(250);
        // 1 in, p2wpkh and p2tr out: 142 vbytes; without change 99.
        let draft =
            pay(&[coin(1, 10_472, 1)], None, &outputs, &change(), &key_spend(OutPoint::null()), rate).expect("enough");
        assert_eq!((draft.fee.to_sat(), draft.change), (142, Some(1)));
        assert_eq!(draft.tx.output[1].value.to_sat(), 330);
        let draft =
            pay(&[coin(1, 10_471, 1)], None, &outputs, &change(), &key_spend(OutPoint::null()), rate).expect("enough");
        assert_eq!((draft.fee.to_sat(), draft.change, draft.tx.output.len()), (471, None, 1));
        let draft =
            pay(&[coin(1, 10_099, 1)], None, &outputs, &change(), &key_spend(OutPoint::null()), rate).expect("enough");
        assert_eq!((draft.fee.to_sat(), vsize(&draft.tx)), (99, 99));
        pay(&[coin(1, 10_098, 1)], None, &outputs, &change(), &key_spend(OutPoint::null()), rate)
            .expect_err("one short");
    }
}
