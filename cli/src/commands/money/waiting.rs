//! Waiting for Bitcoin with the wallet closed: meanwhile other commands may look at what waits, bump it, take it back.

use super::PAUSE;
use crate::bitcoin::Bitcoin;
use crate::failure::Failure;
use crate::mend::Mended;
use crate::outage::Outage;
use crate::output::Output;
use sortie::publish::{self, JobId, Publication, PublishError};
use sortie::queue::Place;
use sortie::wallet::{Closed, Wallet, WalletError};
use std::thread::sleep;

/// The wallet again, up to date, when no other command has it.
pub fn reopened(mut closed: Closed, node: &Bitcoin, outage: &mut Outage, out: &Output) -> Result<Wallet, Failure> {
    let mut told = false;
    loop {
        match closed.open() {
            Err(error @ WalletError::InUse { .. }) => {
                if !told {
                    out.note(format_args!("{error}; waiting for that"));
                    told = true;
                }
                sleep(PAUSE);
            }
            opened => {
                let mut wallet = opened?;
                let Err(error) = wallet.sync(node) else {
                    outage.ends(out);
                    return Ok(wallet);
                };
                closed = wallet.close();
                outage.survive(error.into(), out)?;
            }
        }
    }
}

/// A publication whose place is followed: a bump moves it, and whatever spends its coins ends it.
pub struct Awaited {
    closed: Closed,
    node: Bitcoin,
    job: JobId,
    place: Place,
    /// What is waited for beside it.
    pub outage: Outage,
}

impl Awaited {
    pub fn new(wallet: Wallet, node: Bitcoin, publication: &Publication) -> Result<Self, Failure> {
        let job = publish::job(&wallet, publication.job)?;
        let place = job.place().unwrap_or(publication.place);
        Ok(Self { closed: wallet.close(), node, job: job.id, place, outage: Outage::default() })
    }

    /// Where it stands, as far as is known.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Looks where it stands now, and sends again what is missing of it. `false`: it could not be looked at yet, and
    /// what was known holds.
    ///
    /// # Errors
    /// It was given up or taken back.
    pub fn look(&mut self, out: &Output) -> Result<bool, Failure> {
        let mut wallet = match self.closed.open() {
            Err(WalletError::InUse { .. }) => return Ok(false),
            opened => opened?,
        };
        let looked = self.look_into(&mut wallet, out);
        self.closed = wallet.close();
        match looked {
            Err(failure) => self.outage.survive(failure, out).map(|()| false),
            Ok(()) => {
                self.outage.ends(out);
                Ok(true)
            }
        }
    }

    fn look_into(&mut self, wallet: &mut Wallet, out: &Output) -> Result<(), Failure> {
        wallet.sync(&self.node)?;
        let sent = publish::go_on(wallet, &self.node, publish::job(wallet, self.job)?);
        let job = publish::job(wallet, self.job)?;
        match sent {
            _ if !job.state.is_publishing() => {
                return Err(Failure::failed(format_args!("job {} is {}: it is not forced", job.id, job.state)));
            }
            // Others, or later blocks, may mend that.
            Err(error @ (PublishError::Stuck { .. } | PublishError::Unpaid { .. } | PublishError::FeeCap(_))) => {
                out.warn(Mended(&error));
            }
            sent => drop(sent?),
        }
        if let Some(place) = job.place().filter(|place| *place != self.place) {
            out.note(format_args!("the place has changed: from now on it is `sortie status {place}`"));
            self.place = place;
        }
        Ok(())
    }
}
