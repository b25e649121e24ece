//! `sortie force --pay-from-anywhere`: whoever pays an address, from any wallet, pays for the publication.

use super::waiting::reopened;
use crate::bitcoin::Bitcoin;
use crate::config::Settings;
use crate::failure::Failure;
use crate::input::{address, address_on};
use crate::mend::Mended;
use crate::outage::Outage;
use crate::output::{Output, field};
use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, Denomination};
use clap::Args;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde::Serialize;
use sortie::publish::anywhere::{self, Payment};
use sortie::publish::{self, Backup, Job, JobId, JobState, Payer, Publication, PublishError};
use sortie::wallet::Wallet;
use std::fmt;
use std::thread::sleep;

/// Paying from another wallet.
#[derive(Args, Debug)]
pub struct Anywhere {
    /// Show an address that anybody can pay, from any wallet; reveal as soon as it is paid
    #[arg(long, requires = "refund")]
    pay_from_anywhere: bool,
    /// The Bitcoin address that the rest of such a payment goes to
    #[arg(long, value_name = "ADDRESS", value_parser = address, requires = "pay_from_anywhere")]
    refund: Option<Address<NetworkUnchecked>>,
    /// Show the address and return; `sortie resume` reveals later
    #[arg(long, requires = "pay_from_anywhere", conflicts_with_all = ["wait", "deadline_bump"])]
    no_wait: bool,
    #[command(flatten)]
    code: ShowCode,
}

/// Whether to draw what a phone's wallet scans.
#[derive(Args, Clone, Copy, Debug)]
pub struct ShowCode {
    /// Show the QR code also where the output is not a terminal
    #[arg(long)]
    qr: bool,
}

impl Anywhere {
    /// Whether others are to pay.
    pub fn is_wanted(&self) -> bool {
        self.pay_from_anywhere
    }

    /// The refund address, if others are to pay.
    pub fn refund(&self, settings: &Settings) -> Result<Option<Address>, Failure> {
        let refund = self.refund.clone().filter(|_| self.pay_from_anywhere);
        refund.map(|refund| address_on(settings.network()?, refund)).transpose()
    }
}

/// Asks for a job's payment, waits for it and reveals. `None`: it is not to be waited for.
///
/// While it waits, the wallet is closed: other commands can look at the job, or take it back.
pub fn published(
    mut wallet: Wallet,
    node: &Bitcoin,
    id: JobId,
    how: &Anywhere,
    out: &Output,
) -> Result<(Wallet, Option<Publication>), Failure> {
    let (mut told, mut stopped, mut outage) = (None, None, Outage::default());
    loop {
        let job = publish::job(&wallet, id)?;
        if !job.state.is_publishing() {
            return Err(Failure::failed(format_args!("job {id} is {}: it is not forced", job.state)));
        }
        match paid(&mut wallet, node, &job) {
            Ok(Paid::Revealed(publication)) => return Ok((wallet, Some(publication))),
            Ok(Paid::Missing(payment)) => {
                if told != Some(payment) {
                    out.print(&PaymentReport::new(&wallet, &job, payment, how.code, out)?)?;
                    if told.is_none() && !how.no_wait {
                        out.note("waiting for the payment; Ctrl-C loses nothing, `sortie resume` goes on");
                    }
                    told = Some(payment);
                }
            }
            Err(error) if how.no_wait || told.is_none() => return Err(error.into()),
            // More may be paid, or caps raised by another command.
            Err(error @ (PublishError::FeeCap(_) | PublishError::Stuck { .. })) => {
                let why = Mended(&error).to_string();
                if stopped.as_ref() != Some(&why) {
                    out.warn(format_args!("{why}; waiting on, stopped it goes on with `sortie resume`"));
                    stopped = Some(why);
                }
            }
            Err(error) => outage.survive(error.into(), out)?,
        }
        if how.no_wait {
            return Ok((wallet, None));
        }
        let closed = wallet.close();
        sleep(node.look());
        wallet = reopened(closed, node, &mut outage, out)?;
    }
}

/// What has come of a job that is to be paid for.
enum Paid {
    Revealed(Publication),
    Missing(Payment),
}

fn paid(wallet: &mut Wallet, node: &Bitcoin, job: &Job) -> Result<Paid, PublishError> {
    // Otherwise it is signed, or this wallet pays for it.
    if job.payer != Payer::Anywhere || job.state != JobState::Planned {
        return Ok(Paid::Revealed(publish::go_on(wallet, node, job.clone())?));
    }
    let payment = anywhere::payment(wallet, node, job)?;
    if payment.missing > Amount::ZERO {
        return Ok(Paid::Missing(payment));
    }
    Ok(Paid::Revealed(Publication::new(&anywhere::reveal(wallet, node, job.id)?, false)?))
}

/// What is to be paid, and where.
#[derive(Serialize)]
pub struct PaymentReport {
    state: &'static str,
    job: JobId,
    address: Address<NetworkUnchecked>,
    amount_sat: u64,
    received_sat: u64,
    uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund: Option<Address<NetworkUnchecked>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
    /// Transactions of a large mempool in which the payment may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_looked_at: Option<usize>,
    #[serde(skip)]
    code: Option<String>,
}

impl PaymentReport {
    pub fn new(wallet: &Wallet, job: &Job, payment: Payment, code: ShowCode, out: &Output) -> Result<Self, Failure> {
        let address = anywhere::address(wallet, job)?;
        let amount = payment.missing.to_string_in(Denomination::Bitcoin);
        let code = match code.qr || out.is_on_terminal() {
            // Upper case makes a smaller code.
            true => Some(QrCode::new(format!("{}?amount={amount}", address.to_qr_uri())).map_err(Failure::failed)?),
            false => None,
        };
        // Most terminals have light letters on a dark ground: what is drawn is light.
        let drawn =
            |code: QrCode| code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
        Ok(Self {
            state: "unpaid",
            job: job.id,
            uri: format!("bitcoin:{address}?amount={amount}"),
            address: address.into_unchecked(),
            amount_sat: payment.missing.to_sat(),
            received_sat: payment.received.to_sat(),
            refund: anywhere::refund_address(wallet, job).map(Address::into_unchecked),
            backup: Backup::of(job).map(|backup| backup.to_string()),
            not_looked_at: Some(wallet.unseen_in_mempool()).filter(|unseen| *unseen > 0),
            code: code.map(drawn),
        })
    }
}

impl fmt::Display for PaymentReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(code) = &self.code {
            writeln!(f, "{code}")?;
        }
        match self.received_sat {
            0 => field(f, "pay", format_args!("{} sat, or more", self.amount_sat))?,
            received => field(f, "pay", format_args!("{} sat more; {received} sat arrived", self.amount_sat))?,
        }
        field(f, "to", self.address.clone().assume_checked())?;
        field(f, "URI", &self.uri)?;
        if let Some(refund) = &self.refund {
            field(f, "refund", format_args!("the rest goes to {}", refund.clone().assume_checked()))?;
        }
        if let Some(backup) = &self.backup {
            field(f, "backup", backup)?;
        }
        if let Some(unseen) = self.not_looked_at {
            field(
                f,
                "not seen",
                format_args!(
                    "{unseen} transactions of the mempool; a payment among them is seen once it is mined, or by a `--wait`"
                ),
            )?;
        }
        field(f, "job", format_args!("{}; `sortie resume` reveals it once it is paid", self.job))
    }
}
