//! What comes to an envelope, whoever was to pay for it: nothing of it is out of reach.

use crate::support::money::{Cli, Purse, near, payload, rate};
use crate::support::nodes::{Altered, Exaggerating};
use crate::support::{Window, World};
use anyhow::{Context, Result};
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Amount, Network};
use regtest::Bitcoind;
use serde_json::Value;
use sortie::envelope::{Body, Carrier};
use sortie::publish::{
    Backup, Caps, CarrierChoice, Job, JobId, JobState, PublishError, Reclaimed, Request, anywhere, job, prepare, psbt,
    reclaim,
};
use sortie::wallet::{Wallet, fee_for};

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
        let asked = anywhere::ask(&mut purse.wallet, &purse.rpc, &payload, rate(2), &Caps::default(), &refund, false);
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
    let anywhere =
        ["force", &tx, "--unchecked", "--pay-from-anywhere", "--refund", &to, "--fee-rate", "2", "--no-wait"];
    assert_eq!(cli.run(&anywhere)?["state"], "unpaid");
    let (code, error) = cli.fails(&["force", &tx, "--unchecked", "--fee-rate", "2", "--psbt", "other.psbt"])?;
    assert!(code == 2 && error.contains("waits for a payment") && !error.contains("forced already"), "{code}: {error}");
    Ok(())
}

/// A job that others pay for, its address, and what is asked for.
fn asked(world: &World, purse: &mut Purse, caps: &Caps) -> Result<(Job, Address, Amount)> {
    let (payload, refund) = (payload(world, 100)?, Bitcoind::anyone_address());
    let job = anywhere::ask(&mut purse.wallet, &purse.rpc, &payload, rate(5), caps, &refund, false)?;
    let address = anywhere::address(&purse.wallet, &job)?;
    let missing = anywhere::payment(&purse.wallet, &purse.rpc, &job)?.missing;
    Ok((job, address, missing))
}

fn sats(answer: &Value, key: &str) -> Result<Amount> {
    Ok(Amount::from_sat(answer[key].as_u64().with_context(|| format!("{key} in {answer}"))?))
}

fn address(answer: &Value) -> Result<Address> {
    Ok(answer["address"].as_str().context("an address")?.parse::<Address<_>>()?.assume_checked())
}

#[test]
fn a_refund_address_is_corrected_until_something_is_signed() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let mut purse = Purse::new(&world, &Cli::wallet_dir("default"), &[])?;
    let [first, second] = [Bitcoind::anyone_address(), purse.wallet.address()?].map(|address| address.to_string());
    drop(purse);
    let tx = [7; 100].to_lower_hex_string();
    let force = |refund: &str, more: &[&str]| -> Vec<String> {
        let words = ["force", &tx, "--unchecked", "--pay-from-anywhere", "--no-wait", "--refund", refund];
        words.iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    let run = |arguments: &[String]| cli.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let fails = |arguments: &[String]| cli.fails(&arguments.iter().map(String::as_str).collect::<Vec<_>>());

    let asked = run(&force(&first, &["--fee-rate", "2"]))?;
    assert_eq!((&asked["job"], &asked["refund"]), (&1.into(), &first.as_str().into()));
    let corrected = run(&force(&second, &["--fee-rate", "5", "--max-fee", "99999"]))?;
    assert_eq!((&corrected["job"], &corrected["address"]), (&1.into(), &asked["address"]));
    assert_eq!(corrected["refund"], second.as_str());
    assert!(sats(&corrected, "amount_sat")? > sats(&asked, "amount_sat")?, "at the new rate");
    assert_eq!(cli.run(&["jobs"])?["refund"], second.as_str());
    let story = cli.lines(&["jobs", "1"])?;
    let amended = story.iter().find(|event| event["kind"] == "amended").context("an event")?;
    assert_eq!((&amended["refund"], &amended["max_fee_sat"]), (&second.as_str().into(), &99_999.into()));
    let (code, error) = fails(&force(&second, &["--fee-rate", "5", "--carrier", "op-return"]))?;
    assert!(code == 2 && error.contains("Taproot"), "{error}");
    let (code, error) = fails(&force(&second, &["--fee-rate", "6", "--max-fee", "9"]))?;
    assert!(code == 4 && error.contains("--max-fee"), "{error}");
    assert_eq!(run(&force(&second, &[]))?, corrected, "what was refused changed nothing");
    let again = run(&force(&first, &["--fee-rate", "2", "--again"]))?;
    assert_eq!((&again["job"], &again["refund"]), (&2.into(), &first.as_str().into()));

    world.bitcoind.fund(&address(&corrected)?, sats(&corrected, "amount_sat")? + PAID)?;
    cli.lines(&["resume"])?;
    let place = cli.lines(&["jobs"])?[0]["place"].as_str().context("a place")?.to_owned();
    let txid = place.split(':').next().context("a txid")?.parse()?;
    let reveal = sortie::chain::Mempool::transaction(&world.rpc()?, &txid)?.context("it waits")?;
    assert_eq!(Address::from_script(&reveal.output[0].script_pubkey, Network::Regtest)?.to_string(), second);
    Ok(())
}

#[test]
fn what_is_signed_keeps_its_refund_address() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let mut purse = Purse::new(&world, &Cli::wallet_dir("default"), &[])?;
    let other = purse.wallet.address()?.to_string();
    drop(purse);
    let (tx, first) = ([7; 100].to_lower_hex_string(), Bitcoind::anyone_address().to_string());
    let force = ["force", &tx, "--unchecked", "--pay-from-anywhere", "--fee-rate", "2", "--no-wait", "--refund"];
    let asked = cli.run(&[&force[..], &[&first]].concat())?;
    world.bitcoind.fund(&address(&asked)?, sats(&asked, "amount_sat")?)?;
    assert_eq!(cli.run(&[&force[..], &[&first]].concat())?["state"], "mempool");
    let (code, error) = cli.fails(&[&force[..], &[&other]].concat())?;
    assert!(code == 2 && error.contains(&first), "{error}");
    Ok(())
}

#[test]
fn caps_that_parts_exceed_are_kept_with_fewer_parts_or_raised() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let mut purse = Purse::new(&world, "fewer", &[])?;
    // What is asked for is the fee of one input, and the least that can come back.
    let dust = Bitcoind::anyone_address().script_pubkey().minimal_non_dust();
    let (_, _, missing) = asked(&world, &mut purse, &Caps::default())?;
    let caps = Caps { max_fee: Some(missing - dust), max_fee_rate: None };
    let mut purse = Purse::new(&world, "capped", &[])?;
    let (one, to, _) = asked(&world, &mut purse, &caps)?;
    world.bitcoind.fund_and_mine(&to, Amount::from_sat(900))?;
    world.bitcoind.fund_and_mine(&to, missing)?;
    purse.wallet.sync(&purse.rpc)?;
    let revealed = anywhere::reveal(&mut purse.wallet, &purse.rpc, one.id)?;
    assert_eq!(revealed.current().context("signed")?.transactions[0].input.len(), 1);

    let mut purse = Purse::new(&world, &Cli::wallet_dir("default"), &[])?;
    let (two, to, _) = asked(&world, &mut purse, &caps)?;
    for _ in 0..2 {
        world.bitcoind.fund_and_mine(&to, missing - Amount::from_sat(50))?;
    }
    purse.wallet.sync(&purse.rpc)?;
    let capped = anywhere::reveal(&mut purse.wallet, &purse.rpc, two.id).expect_err("two inputs");
    assert!(matches!(capped, PublishError::FeeCap(_)), "{capped}");
    drop(purse);
    assert_eq!(cli.run(&["resume", "--max-fee", "5000"])?["job"], 1);
    assert_eq!(cli.run(&["jobs"])?["state"], "reveal_sent");
    Ok(())
}

#[test]
fn a_coinbase_that_pays_is_left_until_it_can_be_spent() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[])?;
    let (asked, to, missing) = asked(&world, &mut purse, &Caps::default())?;
    world.bitcoind.mine_to(&to, 1)?;
    world.bitcoind.fund(&to, missing)?;
    purse.wallet.sync(&purse.rpc)?;
    anywhere::reveal(&mut purse.wallet, &purse.rpc, asked.id)?;
    world.bitcoind.mine(1)?;
    assert!(matches!(purse.job(asked.id)?.state, JobState::Confirmed(_)));
    let early = reclaim(&mut purse.wallet, &purse.rpc, asked.id, rate(2), &Caps::default()).expect_err("immature");
    assert!(matches!(early, PublishError::NotReclaimable { .. }), "{early}");
    world.bitcoind.mine(100)?;
    assert!(swept(&mut purse, asked.id)? >= Amount::from_btc(12.5)?);
    Ok(())
}

#[test]
fn a_payment_that_pays_too_little_is_helped_within_a_bound_and_the_caps() -> Result<()> {
    let world = World::new(WINDOW)?;
    for (name, max_fee) in [("bound", None), ("cap", Some(Amount::from_sat(1_000)))] {
        let mut purse = Purse::new(&world, name, &[])?;
        let (asked, to, missing) = asked(&world, &mut purse, &Caps { max_fee, max_fee_rate: None })?;
        world.bitcoind.fund(&to, missing + PAID + PAID)?;
        purse.wallet.sync(&purse.rpc)?;
        // A heavy transaction that paid little, says the node.
        let rpc = world.rpc()?;
        let revealed = anywhere::reveal(&mut purse.wallet, &Altered(&rpc, Exaggerating), asked.id)?;
        let signed = revealed.current().context("signed")?;
        let alone = fee_for(rate(5), signed.vsize);
        assert_eq!(signed.fee, max_fee.unwrap_or(alone * 3));
        assert!(max_fee.is_none_or(|cap| cap > alone));
    }
    Ok(())
}

#[test]
fn what_was_found_by_its_backup_line_is_revealed_once_its_payload_is_known() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let tx = vec![9; 200];
    let mut lost = Purse::new(&world, "lost", &[500_000])?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(2)) };
    let prepared = prepare(&mut lost.wallet, &lost.rpc, &world.payload(Body::Tx(tx.clone()))?, &request)?;
    world.bitcoind.mine_block_with(&[prepared.commit().context("a commit")?.clone()])?;
    drop(Wallet::restore(
        &world.path(&Cli::wallet_dir("default")),
        Network::Regtest,
        lost.words,
        None,
        near(&world.rpc()?),
    )?);

    let line = Backup::of(&prepared).context("a backup line")?.to_string();
    let (code, error) = cli.fails(&["recover", "--backup", &line, "--reclaim", "--fee-rate", "3", "--max-fee", "9"])?;
    assert!(code == 4 && error.contains("--max-fee"), "{error}");
    let resumed = cli.command(&["resume"]).output()?;
    let said = String::from_utf8(resumed.stderr)?;
    assert!(said.contains("--tx HEX") && said.contains("sortie reclaim 1"), "{said}");
    let tx = tx.to_lower_hex_string();
    let recover = ["recover", "--backup", &line, "--tx", &tx, "--fee-rate", "3"];
    assert_eq!(cli.run(&recover)?["outcome"], "revealed");
    let forced = cli.run(&["force", &tx, "--unchecked"])?;
    assert_eq!((&forced["job"], &forced["resumed"]), (&1.into(), &true.into()), "and is not paid for again");
    world.bitcoind.mine(1)?;
    assert_eq!(cli.run(&["jobs"])?["state"], "confirmed");
    Ok(())
}
