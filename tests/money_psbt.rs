//! This wallet's coins, signed elsewhere: what comes back, what the signer sends by itself, and another implementation
//! (`scripts/test_psbt.sh` brings it).

use crate::support::money::{Cli, Purse, Signer, in_mempool, payload, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::psbt::Psbt;
use bitcoin::{Transaction, Witness};
use sortie::envelope::Carrier;
use sortie::publish::{
    CarrierChoice, Job, JobId, JobState, Outcome, PublishError, Reclaimed, Request, psbt, publish, reclaim, resume,
};
use std::io::Write;
use std::process::{Command, Stdio};

const WINDOW: Window = Window { window: 30, max_lag: 20 };

#[test]
fn what_comes_back_is_checked_and_its_coins_are_reserved_until_then() -> Result<()> {
    let world = World::new(WINDOW)?;
    for carrier in [Carrier::OpReturn, Carrier::Taproot] {
        let mut purse = Purse::new(&world, &format!("{carrier:?}"), &[500_000])?;
        let request = Request { carrier: CarrierChoice::Only(carrier), ..Request::at(rate(2)) };
        let (drafted, unsigned) = psbt::draft(&mut purse.wallet, &purse.rpc, &payload(&world, 150)?, &request)?;
        assert_eq!(drafted.state, JobState::Planned);
        assert!(purse.wallet.coins()?.is_empty(), "reserved");
        assert_eq!(purse.wallet.reserved()?, [(drafted.id, bitcoin::Amount::from_sat(500_000))]);
        let again = psbt::draft(&mut purse.wallet, &purse.rpc, &payload(&world, 150)?, &request)?;
        assert_eq!((again.0.id, &again.1), (drafted.id, &unsigned));

        let error = publish(&mut purse.wallet, &purse.rpc, &payload(&world, 150)?, &request).expect_err("given away");
        assert!(matches!(error, PublishError::WaitsForSignatures(job) if job == drafted.id), "{error}");
        let error = psbt::finish(&mut purse.wallet, &purse.rpc, &unsigned).expect_err("not signed");
        assert!(matches!(&error, PublishError::ForeignPsbt(why) if why.contains("not signed")), "{error}");
        let mut forged = unsigned.clone();
        let signature = bitcoin::secp256k1::schnorr::Signature::from_slice(&[1; 64])?;
        let sighash_type = bitcoin::TapSighashType::Default;
        forged.inputs[0].tap_key_sig = Some(bitcoin::taproot::Signature { signature, sighash_type });
        let error = psbt::finish(&mut purse.wallet, &purse.rpc, &forged).expect_err("wrong signature");
        assert!(matches!(&error, PublishError::ForeignPsbt(why) if why.contains("wrong")), "{error}");
        let mut other = unsigned.unsigned_tx.clone();
        other.output[0].value += bitcoin::Amount::ONE_SAT;
        let error = psbt::finish(&mut purse.wallet, &purse.rpc, &Psbt::from_unsigned_tx(other)?).expect_err("another");
        assert!(matches!(error, PublishError::ForeignPsbt(_)), "{error}");

        let freed = reclaim(&mut purse.wallet, &purse.rpc, drafted.id, rate(2), &Default::default())?;
        assert_eq!(freed, Reclaimed::Freed);
        assert_eq!(purse.wallet.coins()?.len(), 1, "free again");
        assert!(purse.wallet.reserved()?.is_empty());
        assert!(world.bitcoind.mempool()?.is_empty());
    }
    Ok(())
}

/// A wallet whose coins this signer signs for.
fn watching(world: &World, name: &str) -> Result<(Purse, Signer)> {
    let signer = Signer::new(7)?;
    let descriptor = format!("tr({})", signer.account("86'/1'/0'")?);
    Ok((Purse::watching(world, name, &descriptor, &[500_000])?, signer))
}

fn drafted(world: &World, purse: &mut Purse, carrier: Carrier) -> Result<(Job, Psbt)> {
    let request = Request { carrier: CarrierChoice::Only(carrier), ..Request::at(rate(2)) };
    Ok(psbt::draft(&mut purse.wallet, &purse.rpc, &payload(world, 150)?, &request)?)
}

fn reclaimed(purse: &mut Purse, job: JobId) -> Result<Reclaimed, PublishError> {
    reclaim(&mut purse.wallet, &purse.rpc, job, rate(3), &Default::default())
}

/// What the signer's own button "Broadcast" sends.
fn finalized(psbt: &Psbt, signer: Signer) -> Result<Transaction> {
    let signed = signer.sign(psbt)?;
    let mut tx = signed.unsigned_tx.clone();
    for (input, by) in tx.input.iter_mut().zip(&signed.inputs) {
        input.witness = Witness::p2tr_key_spend(&by.tap_key_sig.context("a signature")?);
    }
    Ok(tx)
}

#[test]
fn what_the_signer_sends_by_itself_is_published_once() -> Result<()> {
    let world = World::new(WINDOW)?;
    for (n, carrier, mined, then) in [
        (0, Carrier::OpReturn, true, "resume"),
        (1, Carrier::OpReturn, false, "resume"),
        (2, Carrier::Taproot, true, "resume"),
        (3, Carrier::Taproot, false, "resume"),
        (4, Carrier::Taproot, true, "finish"),
    ] {
        let (mut purse, signer) = watching(&world, &format!("{carrier:?}{n}"))?;
        let (drafted, unsigned) = drafted(&world, &mut purse, carrier)?;
        let tx = finalized(&unsigned, signer)?;
        match mined {
            true => drop(world.bitcoind.mine_block_with(std::slice::from_ref(&tx))?),
            false => drop(world.bitcoind.send(&tx)?),
        }
        purse.wallet.sync(&purse.rpc)?;
        if carrier == Carrier::OpReturn {
            let error = reclaimed(&mut purse, drafted.id).expect_err("it is out");
            assert!(matches!(error, PublishError::NotReclaimable { .. }), "{error}");
        }
        match then {
            "resume" => drop(resume(&mut purse.wallet, &purse.rpc)?),
            _ => drop(psbt::finish(&mut purse.wallet, &purse.rpc, &signer.sign(&unsigned)?)?),
        }
        let place = purse.job(drafted.id)?.place().context("a place")?;
        assert!(in_mempool(&world, place.txid)? || carrier == Carrier::OpReturn && mined);
        world.bitcoind.mine(1)?;
        let done = purse.job(drafted.id)?;
        assert!(matches!(done.state, JobState::Confirmed(_)), "{n}: {:?}", done.state);
        let request = Request::at(rate(2));
        let error = psbt::draft(&mut purse.wallet, &purse.rpc, &payload(&world, 150)?, &request).expect_err("mined");
        assert!(error.to_string().contains("forced already") && error.to_string().contains("`--again`"), "{error}");
        assert_eq!(purse.spent()?, done.current().context("signed")?.fee);
        // What was taken over can be sent again.
        world.bitcoind.reorg(if mined { 2 } else { 1 })?;
        purse.wallet.sync(&purse.rpc)?;
        let resumed = resume(&mut purse.wallet, &purse.rpc)?;
        assert!(matches!(resumed[0].outcome, Outcome::InPlace | Outcome::Sent(_)), "{resumed:?}");
        world.bitcoind.mine(1)?;
        assert!(matches!(purse.job(drafted.id)?.state, JobState::Confirmed(_)));
        assert_eq!(world.follower(&format!("follower{n}"))?.items()?.len(), n + 1);
    }
    Ok(())
}

#[test]
fn a_commit_that_the_signer_sends_comes_back_whether_it_was_given_up_or_not() -> Result<()> {
    let world = World::new(WINDOW)?;
    for (name, given_up, mined) in
        [("chain", false, true), ("mempool", false, false), ("late", true, true), ("waiting", true, false)]
    {
        let (mut purse, signer) = watching(&world, name)?;
        let (drafted, unsigned) = drafted(&world, &mut purse, Carrier::Taproot)?;
        if given_up {
            assert_eq!(reclaimed(&mut purse, drafted.id)?, Reclaimed::Freed);
        }
        let commit = finalized(&unsigned, signer)?;
        match mined {
            true => drop(world.bitcoind.mine_block_with(std::slice::from_ref(&commit))?),
            false => drop(world.bitcoind.send(&commit)?),
        }
        purse.wallet.sync(&purse.rpc)?;
        if given_up {
            let resumed = resume(&mut purse.wallet, &purse.rpc)?;
            let held = commit.output[0].value;
            assert!(matches!(resumed[0].outcome, Outcome::Stranded(left) if left == held), "{resumed:?}");
        }
        let swept = reclaimed(&mut purse, drafted.id)?;
        let Reclaimed::Sweeping { txid, .. } = swept else { panic!("{swept:?}") };
        assert!(in_mempool(&world, txid)?);
        world.bitcoind.mine(1)?;
        let done = purse.job(drafted.id)?;
        assert!(matches!(done.state, JobState::Reclaimed(_)), "{:?}", done.state);
        assert_eq!(purse.spent()?, world.fees_of(&[commit, done.reclaims[0].clone()])?, "fees, and nothing else");
        assert!(world.follower(&format!("{name}-follower"))?.items()?.is_empty());
    }
    Ok(())
}

#[test]
fn the_same_transaction_of_two_jobs_is_finished_for_the_one_that_waits() -> Result<()> {
    let world = World::new(WINDOW)?;
    let (mut purse, signer) = watching(&world, "alice")?;
    let (first, unsigned) = drafted(&world, &mut purse, Carrier::OpReturn)?;
    let signed = signer.sign(&unsigned)?;
    assert_eq!(reclaimed(&mut purse, first.id)?, Reclaimed::Freed);
    let error = psbt::finish(&mut purse.wallet, &purse.rpc, &signed).expect_err("it was given up");
    assert!(matches!(&error, PublishError::ForeignPsbt(why) if why.contains("abandoned")), "{error}");
    let (second, again) = drafted(&world, &mut purse, Carrier::OpReturn)?;
    assert_ne!(first.id, second.id);
    assert_eq!(again.unsigned_tx, unsigned.unsigned_tx);

    for resumed in [false, true] {
        let done = psbt::finish(&mut purse.wallet, &purse.rpc, &signed)?;
        assert_eq!((done.job, done.resumed, &done.state), (second.id, resumed, &JobState::RevealSent));
        assert!(in_mempool(&world, done.txids[0])?);
    }
    world.bitcoind.mine(1)?;
    assert!(matches!(purse.job(second.id)?.state, JobState::Confirmed(_)));
    assert_eq!(world.follower("follower")?.items()?.len(), 1);
    Ok(())
}

#[test]
#[ignore = "needs embit: scripts/test_psbt.sh"]
fn another_implementation_signs_and_the_payload_is_published_once() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let python = std::env::var("SORTIE_PSBT_SIGNER").context("SORTIE_PSBT_SIGNER")?;
    let purse = Purse::new(&world, &Cli::wallet_dir("own"), &[300_000, 200_000])?;
    let words = purse.words.words();
    let [receive, change] = purse.wallet.descriptors().texts();
    drop(purse);
    let descriptors = ["--descriptor", &receive, "--change-descriptor", &change];
    cli.run(
        &[&["wallet", "create", "--wallet", "watching", "--gap", "200", "--watch-only"], &descriptors[..]].concat(),
    )?;
    for (name, carrier) in
        [("own", "op-return"), ("own", "taproot"), ("watching", "op-return"), ("watching", "taproot")]
    {
        let before = cli.run(&["wallet", "balance", "--wallet", name])?["total_sat"].as_u64().context("a balance")?;
        let tx = [name.as_bytes(), carrier.as_bytes(), &[7; 150]].concat().to_lower_hex_string();
        let [unsigned, signed] = ["out", "in"].map(|file| world.path(&format!("{name}-{carrier}-{file}.psbt")));
        let out = unsigned.display().to_string();
        let force =
            ["force", &tx, "--unchecked", "--wallet", name, "--carrier", carrier, "--fee-rate", "2", "--psbt", &out];
        let planned = cli.run(&force)?;
        assert_eq!(planned["state"], "planned");
        assert_eq!(cli.run(&force)?, planned, "and again, into the same file");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/sign_psbt.py");
        let mut signer = Command::new(&python).arg(script).arg(&unsigned).arg(&signed).stdin(Stdio::piped()).spawn()?;
        signer.stdin.take().context("stdin")?.write_all(words.as_bytes())?;
        ensure!(signer.wait()?.success(), "the signer failed");

        let finish = ["finish", &signed.display().to_string(), "--wallet", name];
        let done = cli.run(&finish)?;
        assert_eq!(cli.run(&finish)?["txids"], done["txids"], "the same command pays once");
        assert_eq!(done["fee_sat"], planned["fee_sat"]);
        world.bitcoind.mine(1)?;
        let balance = cli.run(&["wallet", "balance", "--wallet", name])?;
        let fee = done["fee_sat"].as_u64().context("a fee")?;
        assert_eq!(balance["total_sat"], before - fee, "to the satoshi");
        let story = cli.lines(&["jobs", "--wallet", name])?;
        let last = story.last().context("a job")?;
        assert_eq!((&last["state"], &last["payer"]), (&"confirmed".into(), &"psbt".into()));
    }
    assert_eq!(world.follower("follower")?.items()?.len(), 4);
    Ok(())
}
