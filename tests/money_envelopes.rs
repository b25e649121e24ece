//! What comes to an envelope, whoever was to pay for it: nothing of it is out of reach.

use crate::support::money::{Cli, Purse, payload, rate};
use crate::support::{Window, World};
use anyhow::Result;
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Amount};
use regtest::Bitcoind;
use sortie::envelope::Carrier;
use sortie::publish::{
    Caps, CarrierChoice, Job, JobId, JobState, PublishError, Reclaimed, Request, anywhere, job, psbt, reclaim,
};

const WINDOW: Window = Window { window: 30, max_lag: 20 };
const PAID: Amount = Amount::from_sat(250_000);

fn drafted(world: &World, purse: &mut Purse, carrier: Carrier) -> Result<Job> {
    let request = Request { carrier: CarrierChoice::Only(carrier), ..Request::at(rate(2)) };
    Ok(psbt::draft(&mut purse.wallet, &purse.rpc, &payload(world, 150)?, &request)?.0)
}

/// What a sweep of the job brings back, its fee included.
fn swept(purse: &mut Purse, id: JobId) -> Result<Amount> {
    purse.wallet.sync(&purse.rpc)?;
    match reclaim(&mut purse.wallet, &purse.rpc, id, rate(2), &Caps::default())? {
        Reclaimed::Sweeping { fee, amount, .. } => Ok(fee + amount),
        Reclaimed::Freed => Ok(Amount::ZERO),
    }
}

#[test]
fn what_is_paid_to_an_envelope_that_waits_for_signatures_comes_back() -> Result<()> {
    let world = World::new(WINDOW)?;
    for (name, mined) in [("mined", true), ("waiting", false)] {
        let mut purse = Purse::new(&world, name, &[500_000])?;
        let drafted = drafted(&world, &mut purse, Carrier::Taproot)?;
        let address = anywhere::address(&purse.wallet, &drafted)?;
        match mined {
            true => world.bitcoind.fund_and_mine(&address, PAID)?,
            false => world.bitcoind.fund(&address, PAID)?,
        };
        assert_eq!(swept(&mut purse, drafted.id)?, PAID);
        world.bitcoind.mine(1)?;
        let done = purse.job(drafted.id)?;
        assert!(matches!(done.state, JobState::Reclaimed(_)), "{:?}", done.state);
        let fee = world.fees_of(&done.reclaims)?;
        assert_eq!(purse.wallet.balance().total(), purse.before + PAID - fee, "to the satoshi");
    }
    Ok(())
}

#[test]
fn what_is_paid_to_the_envelope_of_a_commit_comes_back_with_it_or_after_it() -> Result<()> {
    let world = World::new(WINDOW)?;
    for (name, is_late) in [("with", false), ("after", true)] {
        let mut purse = Purse::new(&world, name, &[500_000])?;
        let id = purse.publish(&payload(&world, 300)?, Carrier::Taproot, 2)?.job;
        let published = job(&purse.wallet, id)?;
        let locked = published.commit().expect("a commit").output[0].value;
        let address = anywhere::address(&purse.wallet, &published)?;
        if is_late {
            world.bitcoind.mine(1)?;
            assert!(matches!(purse.job(id)?.state, JobState::Confirmed(_)));
        }
        world.bitcoind.fund(&address, PAID)?;
        assert_eq!(swept(&mut purse, id)?, if is_late { PAID } else { PAID + locked });
        world.bitcoind.mine(1)?;
        let done = purse.job(id)?;
        match is_late {
            true => assert!(matches!(done.state, JobState::Confirmed(_)), "{:?}", done.state),
            false => assert!(matches!(done.state, JobState::Reclaimed(_)), "{:?}", done.state),
        }
        let mined: Vec<_> = done.generations.last().into_iter().flat_map(|last| last.transactions.clone()).collect();
        let own = if is_late { mined.as_slice() } else { &mined[..1] };
        let fees = world.fees_of(own)? + world.fees_of(&done.reclaims)? + world.fees_of(&done.sweeps)?;
        assert_eq!(purse.wallet.balance().total(), purse.before + PAID - fees, "to the satoshi");
    }
    Ok(())
}

#[test]
fn a_payload_waits_for_one_payer_at_a_time() -> Result<()> {
    let world = World::new(WINDOW)?;
    let refund: Address = Bitcoind::anyone_address();
    for carrier in [Carrier::OpReturn, Carrier::Taproot] {
        let mut purse = Purse::new(&world, &format!("{carrier:?}"), &[500_000])?;
        let drafted = drafted(&world, &mut purse, carrier)?;
        let payload = payload(&world, 150)?;
        let asked = anywhere::ask(&mut purse.wallet, &purse.rpc, &payload, rate(2), &Caps::default(), &refund);
        assert!(matches!(asked, Err(PublishError::WaitsForSignatures(id)) if id == drafted.id), "{asked:?}");
    }

    let cli = Cli::new(&world)?;
    drop(Purse::new(&world, &Cli::wallet_dir("default"), &[500_000])?);
    let to = refund.to_string();
    for (tx, carrier) in [([7; 150], "op-return"), ([8; 150], "taproot")] {
        let [tx, out] = [tx.to_lower_hex_string(), format!("{carrier}.psbt")];
        cli.run(&["force", &tx, "--unchecked", "--fee-rate", "2", "--carrier", carrier, "--psbt", &out])?;
        let (code, error) =
            cli.fails(&["force", &tx, "--unchecked", "--pay-from-anywhere", "--refund", &to, "--fee-rate", "2"])?;
        assert!(code == 2 && error.contains("waits for its signatures"), "{code}: {error}");
        cli.run(&["reclaim", if carrier == "taproot" { "2" } else { "1" }, "--fee-rate", "2"])?;
    }
    let tx = [9; 150].to_lower_hex_string();
    let anywhere = ["force", &tx, "--unchecked", "--pay-from-anywhere", "--refund", &to, "--fee-rate", "2", "--no-wait"];
    assert_eq!(cli.run(&anywhere)?["state"], "unpaid");
    let (code, error) = cli.fails(&["force", &tx, "--unchecked", "--fee-rate", "2", "--psbt", "other.psbt"])?;
    assert!(code == 2 && error.contains("waits for a payment") && !error.contains("forced already"), "{code}: {error}");
    Ok(())
}
