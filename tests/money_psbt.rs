//! This wallet's coins, signed by another implementation (`scripts/test_psbt.sh` brings it).

mod support;

use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::psbt::Psbt;
use sortie::envelope::Carrier;
use sortie::publish::{CarrierChoice, JobState, PublishError, Reclaimed, Request, psbt, reclaim};
use std::io::Write;
use std::process::{Command, Stdio};
use support::money::{Cli, Purse, payload, rate};
use support::{Window, World};

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
        let again = psbt::draft(&mut purse.wallet, &purse.rpc, &payload(&world, 150)?, &request)?;
        assert_eq!((again.0.id, &again.1), (drafted.id, &unsigned));

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
        assert!(world.bitcoind.mempool()?.is_empty());
    }
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
    cli.run(&[&["wallet", "create", "--wallet", "watching", "--watch-only"], &descriptors[..]].concat())?;
    for (name, carrier) in
        [("own", "op-return"), ("own", "taproot"), ("watching", "op-return"), ("watching", "taproot")]
    {
        let before = cli.run(&["wallet", "balance", "--wallet", name])?["total_sat"].as_u64().context("a balance")?;
        let tx = [name.as_bytes(), carrier.as_bytes(), &[7; 150]].concat().to_lower_hex_string();
        let (unsigned, signed) = (world.path("out.psbt"), world.path("in.psbt"));
        let out = unsigned.display().to_string();
        let force =
            ["force", &tx, "--unchecked", "--wallet", name, "--carrier", carrier, "--fee-rate", "2", "--psbt", &out];
        let planned = cli.run(&force)?;
        assert_eq!(planned["state"], "planned");
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
