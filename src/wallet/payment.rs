//! Paying somebody: signed, written down, sent; and again until its answer is known.
//!
//! Guarantees: a payment is on disk before it leaves, and its coins with it; one whose answer was lost is
//! sent again with the same bytes, by whoever asks for the same payment and by
//! [`settle_payments`](Wallet::settle_payments). So is one that the node forgets before it is mined. Until somebody
//! [knows](Wallet::acknowledge) that it has left, asking for the same is no second payment. A payment that the node
//! refuses in the end gives its coins back; asked for once more, it spends one of them again, so that never both are
//! mined.

use super::{Caps, FINAL_DEPTH, Wallet, WalletError, outputs_of, pay, rate_of, unix_now, vsize};
use crate::chain::{Mempool, lacks_inputs, refusal};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Address, Amount, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeSet;

/// More than a transaction of ours pays.
const HIGHEST_RATE: FeeRate = FeeRate::from_sat_per_kwu(250_000);

/// How often other coins are chosen where a node says that those chosen are not there.
pub(crate) const OTHER_COINS: u32 = 3;

/// A payment that has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The transaction.
    pub txid: Txid,
    /// What it pays in fees.
    pub fee: Amount,
    /// Its virtual size.
    pub vsize: u64,
    /// Whether it was signed before: then nothing new was paid.
    pub resumed: bool,
    id: i64,
}

/// What became of a payment whose answer was not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Who gets it.
    pub to: ScriptBuf,
    /// How much.
    pub amount: Amount,
    /// The payment.
    pub payment: Payment,
    /// What became of it.
    pub outcome: PaymentOutcome,
}

/// How a payment's sending ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaymentOutcome {
    /// The node has it.
    Sent,
    /// The node refuses it, with these words; its coins are free again.
    Refused(String),
    /// The node had it, has forgotten it and refuses it for now, with these words; its coins stay spent.
    Stuck(String),
    /// Its coins were spent by another confirmed transaction.
    Lost,
}

impl PaymentOutcome {
    /// Its name; the journal knows all of them but `stuck`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Refused(_) => "refused",
            Self::Stuck(_) => "stuck",
            Self::Lost => "lost",
        }
    }
}

/// A payment that is written down, and perhaps not mined.
pub(crate) struct Pending {
    id: i64,
    /// Whether its answer is known: the node had it.
    has_left: bool,
    to: ScriptBuf,
    amount: Amount,
    fee: Amount,
    pub tx: Transaction,
}

/// Makes the tables if they are missing: a journal from before they were kept has no payments.
pub(crate) fn create_tables(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS sortie_payment (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at INTEGER NOT NULL,
            script BLOB NOT NULL,
            amount_sat INTEGER NOT NULL,
            fee_sat INTEGER NOT NULL,
            tx BLOB NOT NULL
        ) STRICT;
        CREATE TABLE IF NOT EXISTS sortie_payment_end (
            payment INTEGER PRIMARY KEY REFERENCES sortie_payment (id),
            at INTEGER NOT NULL,
            outcome TEXT NOT NULL CHECK (outcome IN ('sent', 'refused', 'lost'))
        ) STRICT;
        CREATE TABLE IF NOT EXISTS sortie_payment_known (
            payment INTEGER PRIMARY KEY REFERENCES sortie_payment (id)
        ) STRICT;
        CREATE TRIGGER IF NOT EXISTS sortie_payment_kept BEFORE UPDATE ON sortie_payment
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
        CREATE TRIGGER IF NOT EXISTS sortie_payment_stays BEFORE DELETE ON sortie_payment
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
        CREATE TRIGGER IF NOT EXISTS sortie_payment_end_kept BEFORE UPDATE ON sortie_payment_end
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
        CREATE TRIGGER IF NOT EXISTS sortie_payment_end_stays BEFORE DELETE ON sortie_payment_end
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;",
    )
}

/// The payments that were not refused, oldest first.
pub(super) fn signed(db: &Connection) -> Result<Vec<Pending>, WalletError> {
    let mut statement = db.prepare_cached(
        "SELECT id, outcome IS NOT NULL, script, amount_sat, fee_sat, tx FROM sortie_payment
         LEFT JOIN sortie_payment_end ON payment = id WHERE outcome IS NULL OR outcome = 'sent' ORDER BY id",
    )?;
    let rows = statement.query_map([], |row| {
        let sat = |column| row.get::<_, i64>(column).map(|sat| Amount::from_sat(sat.cast_unsigned()));
        let to = ScriptBuf::from_bytes(row.get(2)?);
        Ok((row.get::<_, i64>(0)?, row.get(1)?, to, sat(3)?, sat(4)?, row.get::<_, Vec<u8>>(5)?))
    })?;
    let read = |(id, has_left, to, amount, fee, tx): (i64, _, _, _, _, Vec<u8>)| {
        let tx = deserialize(&tx).map_err(|error| WalletError::Journal(format!("payment {id}: {error}")))?;
        Ok(Pending { id, has_left, to, amount, fee, tx })
    };
    rows.map(|row| read(row?)).collect()
}

/// The payments whose answer is not known, oldest first.
pub(crate) fn pending(db: &Connection) -> Result<Vec<Pending>, WalletError> {
    let mut signed = signed(db)?;
    signed.retain(|payment| !payment.has_left);
    Ok(signed)
}

/// A payment of `output` that has left, and of which nobody knows.
fn unknown(db: &Connection, output: &TxOut) -> Result<Option<(Payment, Transaction)>, WalletError> {
    let sql = "SELECT id, fee_sat, tx FROM sortie_payment JOIN sortie_payment_end ON payment = id
               WHERE script = ?1 AND amount_sat = ?2 AND outcome = 'sent'
               AND id NOT IN (SELECT payment FROM sortie_payment_known) ORDER BY id LIMIT 1";
    let of = params![output.script_pubkey.as_bytes(), output.value.to_sat().cast_signed()];
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?));
    let Some((id, fee, tx)) = db.query_row(sql, of, read).optional()? else { return Ok(None) };
    let tx: Transaction = deserialize(&tx).map_err(|error| WalletError::Journal(format!("payment {id}: {error}")))?;
    let fee = Amount::from_sat(fee.cast_unsigned());
    Ok(Some((Payment { txid: tx.compute_txid(), fee, vsize: vsize(&tx), resumed: true, id }, tx)))
}

/// The last payment of `output` that the node refused in the end.
fn refused(db: &Connection, output: &TxOut) -> Result<Option<Transaction>, WalletError> {
    let sql = "SELECT tx FROM sortie_payment JOIN sortie_payment_end ON payment = id
               WHERE script = ?1 AND amount_sat = ?2 AND outcome = 'refused' ORDER BY id DESC LIMIT 1";
    let of = params![output.script_pubkey.as_bytes(), output.value.to_sat().cast_signed()];
    let tx: Option<Vec<u8>> = db.query_row(sql, of, |row| row.get(0)).optional()?;
    Ok(tx.and_then(|tx| deserialize(&tx).ok()))
}

impl Wallet {
    /// Pays `amount` to `to`. Sync first.
    ///
    /// An equal payment whose answer was lost, or of which nobody [knows](Self::acknowledge) yet, stands for it.
    ///
    /// # Errors
    /// [`WalletError::FeeCap`] before anything is signed; [`WalletError::Refused`] if the node does
    /// not take it: then nothing left. [`WalletError::Unsent`]: calling again is safe.
    pub fn send(
        &mut self,
        node: &impl Mempool,
        to: &Address,
        amount: Amount,
        rate: FeeRate,
        caps: &Caps,
    ) -> Result<Payment, WalletError> {
        let output = TxOut { value: amount, script_pubkey: to.script_pubkey() };
        let limit = output.script_pubkey.minimal_non_dust();
        if amount < limit {
            return Err(WalletError::Dust { amount, limit });
        }
        for payment in pending(self.db())? {
            self.settle(node, payment)?;
        }
        // Their change may pay for this one; whether that succeeds, this one's test will tell.
        let _ = self.send_forgotten(node);
        if let Some((payment, tx)) = unknown(self.db(), &output)?
            && !self.is_lost(&tx, &self.buried())
        {
            return Ok(payment);
        }
        let mut asked = 0;
        let (tx, fee) = loop {
            let change = self.next_change();
            let refused = refused(self.db(), &output)?;
            let instead_of = refused.and_then(|tx| self.coin(tx.input.first()?.previous_output).ok());
            let outputs = std::slice::from_ref(&output);
            let draft = pay(&self.coins()?, instead_of.as_ref(), outputs, &change, &self.input(), rate);
            let draft = draft.map_err(|shortfall| self.short(shortfall))?;
            let coins: Vec<OutPoint> = draft.coins.iter().map(|coin| coin.outpoint).collect();
            if !self.are_there(node, &coins)? {
                continue;
            }
            let vsize = vsize(&draft.tx);
            caps.check(draft.fee, vsize)?;
            let mut tx = draft.tx;
            self.sign(&mut tx, &outputs_of(&draft.coins))?;
            match refusal(node.test_accept(std::slice::from_ref(&tx), rate_of(draft.fee, vsize))?) {
                None => break (tx, draft.fee),
                // Nothing has left yet: other coins may pay.
                Some((_, reason)) if lacks_inputs(&reason) && asked < OTHER_COINS => {
                    self.set_aside(node, &coins)?;
                    asked += 1;
                }
                Some((_, reason)) => return Err(WalletError::Refused { txid: tx.compute_txid(), reason }),
            }
        };
        let txid = tx.compute_txid();
        self.note(std::slice::from_ref(&tx));
        let (to, raw) = (output.script_pubkey, serialize(&tx));
        let id = self.save_with(|db| {
            let sat = |amount: Amount| amount.to_sat().cast_signed();
            db.execute(
                "INSERT INTO sortie_payment (at, script, amount_sat, fee_sat, tx) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![unix_now().cast_signed(), to.as_bytes(), sat(amount), sat(fee), raw],
            )?;
            Ok(db.last_insert_rowid())
        })?;
        let settled = self.settle(node, Pending { id, has_left: false, to, amount, fee, tx })?;
        match settled.outcome {
            PaymentOutcome::Refused(reason) => Err(WalletError::Refused { txid, reason }),
            _ => Ok(Payment { resumed: false, ..settled.payment }),
        }
    }

    /// Whoever asked for a payment knows that it has left: to ask for the same again is to ask for another one.
    pub fn acknowledge(&mut self, payment: &Payment) -> Result<(), WalletError> {
        self.save_with(|db| {
            db.execute("INSERT OR IGNORE INTO sortie_payment_known VALUES (?1)", [payment.id])?;
            Ok(())
        })
    }

    /// The payments that are to be in the mempool: those whose answer is not known, and those that wait for a block.
    pub(crate) fn waiting_payments(&self) -> Result<Vec<Pending>, WalletError> {
        let waiting: BTreeSet<Txid> = self.unconfirmed().iter().map(|tx| tx.compute_txid()).collect();
        let mut payments = signed(self.db())?;
        payments.retain(|payment| !payment.has_left || waiting.contains(&payment.tx.compute_txid()));
        Ok(payments)
    }

    /// Sends the payments again whose answer was lost, or which the node has forgotten, and tells of those whose coins
    /// another mined transaction has spent. Sync first.
    ///
    /// # Errors
    /// [`WalletError::Unsent`] if the answer is lost again.
    pub fn settle_payments(&mut self, node: &impl Mempool) -> Result<Vec<Settled>, WalletError> {
        let mut settled = Vec::new();
        for payment in pending(self.db())? {
            settled.push(self.settle(node, payment)?);
        }
        settled.extend(self.send_forgotten(node)?);
        Ok(settled)
    }

    /// Sends the payments again that had left and that the node has forgotten, oldest first.
    fn send_forgotten(&self, node: &impl Mempool) -> Result<Vec<Settled>, WalletError> {
        let (confirmed, buried) = (self.confirmed(), self.buried());
        let mut open = signed(self.db())?;
        open.retain(|payment| {
            let is_mined = confirmed.contains_key(&payment.tx.compute_txid());
            let is_over =
                self.is_conflicted(&payment.tx, &buried) || self.is_gone_for(&payment.tx, FINAL_DEPTH, &confirmed);
            payment.has_left && !is_mined && !is_over
        });
        open.into_iter().filter_map(|payment| self.send_again(node, payment).transpose()).collect()
    }

    /// Sends a payment again that had left, if the node has forgotten it, and whatever it hangs on.
    fn send_again(&self, node: &impl Mempool, payment: Pending) -> Result<Option<Settled>, WalletError> {
        let Pending { id, to, amount, fee, tx, .. } = payment;
        let (txid, vsize) = (tx.compute_txid(), vsize(&tx));
        let unsent = |source| WalletError::Unsent { txid, source };
        let confirmed = self.confirmed();
        let outcome = if self.is_lost(&tx, &confirmed) {
            PaymentOutcome::Lost
        } else if (!self.is_current(&txid) && !self.hangs(&txid)) || node.is_waiting(&txid).map_err(unsent)? {
            return Ok(None);
        } else {
            for parent in self.hangs_on(std::slice::from_ref(&tx), &confirmed) {
                if !node.is_waiting(&parent.compute_txid()).map_err(unsent)? {
                    node.submit(&[parent], HIGHEST_RATE).map_err(unsent)?;
                }
            }
            let refused = refusal(node.submit(&[tx], rate_of(fee, vsize)).map_err(unsent)?);
            refused.map_or(PaymentOutcome::Sent, |(_, reason)| PaymentOutcome::Stuck(reason))
        };
        Ok(Some(Settled { to, amount, payment: Payment { txid, fee, vsize, resumed: true, id }, outcome }))
    }

    /// Sends a payment that is written down, and writes down what came of it.
    fn settle(&mut self, node: &impl Mempool, pending: Pending) -> Result<Settled, WalletError> {
        let Pending { id, to, amount, fee, tx, .. } = pending;
        let (txid, vsize) = (tx.compute_txid(), vsize(&tx));
        let unsent = |source| WalletError::Unsent { txid, source };
        let confirmed = self.confirmed();
        let outcome = if confirmed.contains_key(&txid) || node.is_waiting(&txid).map_err(unsent)? {
            PaymentOutcome::Sent
        } else if self.is_lost(&tx, &confirmed) {
            PaymentOutcome::Lost
        } else {
            match node.submit(&[tx], rate_of(fee, vsize)) {
                Ok(verdicts) => {
                    refusal(verdicts).map_or(PaymentOutcome::Sent, |(_, reason)| PaymentOutcome::Refused(reason))
                }
                // The answer was lost, perhaps not the transaction.
                Err(_) if matches!(node.is_waiting(&txid), Ok(true)) => PaymentOutcome::Sent,
                Err(source) => return Err(unsent(source)),
            }
        };
        if outcome != PaymentOutcome::Sent {
            self.forget(&[txid]);
        }
        self.save_with(|db| {
            let ended = params![id, unix_now().cast_signed(), outcome.name()];
            Ok(db.execute("INSERT INTO sortie_payment_end VALUES (?1, ?2, ?3)", ended)?)
        })?;
        Ok(Settled { to, amount, payment: Payment { txid, fee, vsize, resumed: true, id }, outcome })
    }
}
