//! A wallet of public descriptors: it plans, watches and publishes, and its coins are signed for elsewhere.

use crate::support::money::{Cli, Purse, Signer, near, payload, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result, anyhow, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::psbt::{Psbt, PsbtSighashType};
use bitcoin::sighash::{EcdsaSighashType, TapSighashType};
use bitcoin::{Address, Amount, Network, Txid, Witness};
use regtest::{Bitcoind, EsploraServer};
use sortie::chain::{Esplora, Mempool};
use sortie::envelope::Carrier;
use sortie::publish::{CarrierChoice, JobState, PublishError, Request, psbt};
use sortie::wallet::{Descriptors, Passphrase, Wallet};
use std::io::Write;
use std::process::Stdio;

const WINDOW: Window = Window { window: 30, max_lag: 20 };

/// Each kind of descriptor with those who have to sign.
fn kinds() -> Result<Vec<(&'static str, String, Vec<Signer>)>> {
    let all = (1..=3).map(Signer::new).collect::<Result<Vec<_>>>()?;
    let keys = |path| all.iter().map(|signer| signer.account(path)).collect::<Result<Vec<_>>>();
    let (single, shared) = (keys("86'/1'/0'")?, keys("48'/1'/0'/2'")?);
    Ok(vec![
        ("tr", format!("tr({})", single[0]), vec![all[0]]),
        ("wpkh", format!("wpkh({})", all[0].account("84'/1'/0'")?), vec![all[0]]),
        ("multi", format!("wsh(sortedmulti(2,{}))", shared.join(",")), vec![all[2], all[0]]),
    ])
}

fn signed(psbt: &Psbt, signers: &[Signer]) -> Result<Psbt> {
    signers.iter().try_fold(psbt.clone(), |psbt, signer| signer.sign(&psbt))
}

fn balance(cli: &Cli<'_>, name: &str) -> Result<u64> {
    cli.run(&["wallet", "balance", "--wallet", name])?["total_sat"].as_u64().context("a balance")
}

#[test]
fn both_carriers_are_forced_from_each_kind_of_descriptor_and_change_comes_back() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    for (name, descriptor, signers) in kinds()? {
        let made = cli.run(&[
            "wallet",
            "create",
            "--wallet",
            name,
            "--watch-only",
            "--descriptor",
            &descriptor,
            "--gap",
            "200",
        ])?;
        ensure!(made["watch_only"] == true && made["words"].is_string(), "{made}");
        let shown = cli.run(&["wallet", "descriptors", "--wallet", name])?;
        let texts = ["receive", "change"].map(|field| shown[field].as_str().unwrap_or_default().to_owned());
        let expected = Descriptors::parse(&descriptor, None, Network::Regtest)?;
        assert_eq!(texts, expected.texts());

        let address = cli.run(&["wallet", "address", "--wallet", name])?;
        let address = address["address"].as_str().context("an address")?.parse::<Address<_>>()?.assume_checked();
        let (first, second) = (300_000, 200_000);
        world.bitcoind.fund_and_mine(&address, Amount::from_sat(first))?;
        let address = cli.run(&["wallet", "address", "--wallet", name])?;
        let address = address["address"].as_str().context("an address")?.parse::<Address<_>>()?.assume_checked();
        world.bitcoind.fund_and_mine(&address, Amount::from_sat(second))?;
        let mut before = balance(&cli, name)?;
        assert_eq!(before, first + second);

        for carrier in ["op-return", "taproot"] {
            let tx = [name.as_bytes(), carrier.as_bytes(), &[7; 150]].concat().to_lower_hex_string();
            // Little is locked: the commit has change, too.
            let common = ["--unchecked", "--wallet", name, "--fee-rate", "3", "--lock-at-most", "9000"];
            let quote = cli.run(&[&["quote", &tx], &common[..]].concat())?;
            let force = [&["force", &tx, "--carrier", carrier], &common[..]].concat();
            let (code, error) = cli.fails(&force)?;
            assert!(code == 2 && error.contains("--psbt") && !error.contains('\n'), "{error}");

            let [out, back] = ["out", "in"].map(|file| world.path(&format!("{name}-{carrier}-{file}.psbt")));
            std::fs::write(&back, &tx)?;
            let (code, error) = cli.fails(&[&force[..], &["--psbt", &back.display().to_string()]].concat())?;
            assert!(code == 4 && error.contains("exists already and was not touched"), "{error}");
            assert_eq!(std::fs::read_to_string(&back)?, tx);
            let planned = cli.run(&[&force[..], &["--psbt", &out.display().to_string()]].concat())?;
            let quoted = quote["quotes"][0]["carriers"].as_array().context("carriers")?;
            let quoted = quoted.iter().find(|cost| cost["carrier"] == carrier).context("this carrier")?;
            assert_eq!(quoted["fee_sat"], planned["fee_sat"]);
            let psbt: Psbt = std::fs::read_to_string(&out)?.parse()?;
            std::fs::remove_file(&out)?;
            std::fs::write(&back, signed(&psbt, &signers)?.to_string())?;
            let done = cli.run(&["finish", &back.display().to_string(), "--wallet", name])?;
            assert_eq!(done["fee_sat"], planned["fee_sat"]);

            // What was planned is what the signatures weigh: a byte less where the signer ground for it.
            let fee = done["fee_sat"].as_u64().context("a fee")?;
            let mut vsize = 0;
            for txid in done["txids"].as_array().context("transactions")? {
                let txid: Txid = txid.as_str().context("a transaction")?.parse()?;
                vsize += world.rpc()?.transaction(&txid)?.context("in the mempool")?.vsize() as u64;
            }
            let planned_vsize = quoted["vsize_vb"].as_u64().context("a size")?;
            assert!((planned_vsize - 2..=planned_vsize).contains(&vsize), "{name}: {vsize}, planned {planned_vsize}");
            assert!(name != "tr" || vsize == planned_vsize);
            assert!((vsize * 3..=planned_vsize * 3).contains(&fee), "{name}: {fee} sat for {vsize} vB");

            if carrier == "op-return" {
                let job = done["job"].to_string();
                let (code, error) = cli.fails(&["bump", &job, "--wallet", name, "--fee-rate", "20"])?;
                assert!(code == 2 && error.contains("by spending its change there"), "{error}");
            } else {
                assert_eq!(psbt.unsigned_tx.output.len(), 2);
            }
            world.bitcoind.mine(1)?;
            let after = balance(&cli, name)?;
            assert_eq!(after, before - fee, "{name} {carrier}: to the satoshi");
            before = after;
        }
        let jobs = cli.lines(&["jobs", "--wallet", name])?;
        assert!(jobs.iter().all(|job| job["state"] == "confirmed" && job["payer"] == "psbt"), "{jobs:?}");

        // Its coins pay for nothing without their signers.
        let to = address.to_string();
        let (code, error) = cli.fails(&["wallet", "send", "--wallet", name, "--to", &to, "--amount", "1000"])?;
        assert!(code == 2 && error.contains("keys are elsewhere"), "{error}");
    }
    assert_eq!(world.follower("follower")?.items()?.len(), 6);
    Ok(())
}

#[test]
fn an_unrevealed_commit_comes_back_to_the_descriptors_by_reclaim_and_by_words_and_backup() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let (_, descriptor, signers) = kinds()?.remove(1);
    let [receive, change] = Descriptors::parse(&descriptor, None, Network::Regtest)?.texts();
    let watch = ["--watch-only", "--descriptor", &receive, "--change-descriptor", &change, "--gap", "200"];
    let made = cli.run(&[&["wallet", "create", "--wallet", "here"], &watch[..]].concat())?;
    let address = cli.run(&["wallet", "address", "--wallet", "here"])?;
    let address = address["address"].as_str().context("an address")?.parse::<Address<_>>()?.assume_checked();
    world.bitcoind.fund_and_mine(&address, Amount::from_sat(400_000))?;
    let out = world.path("out.psbt").display().to_string();
    let publish = |tx: &str| -> Result<serde_json::Value> {
        let force = ["force", tx, "--unchecked", "--wallet", "here", "--carrier", "taproot", "--fee-rate", "2"];
        cli.run(&[&force[..], &["--psbt", &out]].concat())?;
        let psbt: Psbt = std::fs::read_to_string(&out)?.parse()?;
        std::fs::write(&out, signed(&psbt, &signers)?.to_string())?;
        let done = cli.run(&["finish", &out, "--wallet", "here"])?;
        std::fs::remove_file(&out)?;
        Ok(done)
    };

    let done = publish(&"11".repeat(200))?;
    let bumped = cli.run(&["bump", "1", "--wallet", "here", "--fee-rate", "5"])?;
    assert_eq!(bumped["how"], "replaced", "the reveal's own change needs no other signature");
    let swept = cli.run(&["reclaim", "1", "--wallet", "here", "--fee-rate", "9"])?;
    world.bitcoind.mine(1)?;
    let commit: Txid = done["txids"][0].as_str().context("a commit")?.parse()?;
    let block = world.bitcoind.block(&world.bitcoind.tip()?)?;
    let fees = world.fees_of(&block.txdata[1..])?.to_sat();
    assert_eq!(block.txdata[1].compute_txid(), commit);
    assert_eq!(balance(&cli, "here")?, 400_000 - fees, "{swept}");
    assert_eq!(cli.run(&["jobs", "--wallet", "here"])?["state"], "reclaimed");

    // The commit is mined, and the machine is lost: words, backup line and descriptors are left.
    let before = balance(&cli, "here")?;
    let done = publish(&"22".repeat(200))?;
    let commit: Txid = done["txids"][0].as_str().context("a commit")?.parse()?;
    let commit = world.rpc()?.transaction(&commit)?.context("in the mempool")?;
    world.bitcoind.mine_block_with(std::slice::from_ref(&commit))?;
    let restore = ["wallet", "restore", "--wallet", "there"];
    let mut restore = cli.command(&[&restore[..], &watch[..]].concat());
    let mut restore = restore.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    restore.stdin.take().context("stdin")?.write_all(made["words"].as_str().context("words")?.as_bytes())?;
    ensure!(restore.wait()?.success(), "not restored");
    let line = done["backup"].as_str().context("a backup line")?;
    cli.run(&["recover", "--wallet", "there", "--backup", line, "--reclaim", "--fee-rate", "40"])?;
    world.bitcoind.mine(1)?;
    let sweep = world.bitcoind.block(&world.bitcoind.tip()?)?.txdata[1..].to_vec();
    let fees = world.fees_of(&[vec![commit], sweep].concat())?.to_sat();
    assert_eq!(balance(&cli, "there")?, before - fees, "to the satoshi, and to the descriptors");
    assert_eq!(balance(&cli, "here")?, before - fees);
    Ok(())
}

#[test]
fn others_may_pay_for_it_and_no_sequencer_is_paid_from_it() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let (_, descriptor, _) = kinds()?.remove(2);
    cli.run(&["wallet", "create", "--watch-only", "--descriptor", &descriptor, "--gap", "200"])?;
    let (tx, refund) = ("33".repeat(100), Bitcoind::anyone_address().to_string());
    let force = ["force", &tx, "--unchecked", "--pay-from-anywhere", "--refund", &refund, "--no-wait"];
    let asked = cli.run(&force)?;
    let address = asked["address"].as_str().context("an address")?.parse::<Address<_>>()?.assume_checked();
    world.bitcoind.fund(&address, Amount::from_sat(asked["amount_sat"].as_u64().context("an amount")?))?;
    assert_eq!(cli.run(&force)?["state"], "mempool", "its own seed reveals");
    world.bitcoind.mine(1)?;
    assert_eq!(world.follower("follower")?.items()?.len(), 1);

    std::fs::write(world.path("sequencer.key"), world.sequencer_key.keypair.secret_bytes().to_lower_hex_string())?;
    let (code, error) = cli.fails(&["sequencer", "--key", "sequencer.key", "--listen", "127.0.0.1:0"])?;
    assert!(code == 2 && error.contains("keys are elsewhere"), "{error}");
    Ok(())
}

#[test]
fn what_signers_give_back_is_checked_for_each_kind() -> Result<()> {
    let world = World::new(WINDOW)?;
    let rpc = world.rpc()?;
    for (name, descriptor, signers) in kinds()? {
        let Purse { mut wallet, .. } = Purse::watching(&world, name, &descriptor, &[100_000])?;
        let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(2)) };
        let (drafted, unsigned) = psbt::draft(&mut wallet, &rpc, &payload(&world, 150)?, &request)?;
        assert!(wallet.coins()?.is_empty(), "reserved");
        let refused = |wallet: &mut Wallet, psbt: &Psbt| match psbt::finish(wallet, &rpc, psbt) {
            Err(PublishError::ForeignPsbt(why)) => Ok(why),
            other => Err(anyhow!("{name}: {other:?}")),
        };
        assert!(refused(&mut wallet, &unsigned)?.contains("not signed"), "{name}");
        if let [first, _] = signers.as_slice() {
            let half = signed(&unsigned, std::slice::from_ref(first))?;
            assert!(refused(&mut wallet, &half)?.contains("not by enough"), "{name}");
        }
        // Signed in a way that lets others change the outputs.
        let mut loose = unsigned.clone();
        loose.inputs[0].sighash_type = Some(match name {
            "tr" => PsbtSighashType::from(TapSighashType::None),
            _ => PsbtSighashType::from(EcdsaSighashType::None),
        });
        let loose = signed(&loose, &signers)?;
        assert!(refused(&mut wallet, &loose)?.contains("whole transaction"), "{name}");
        // Signatures of another transaction.
        let mut other = unsigned.clone();
        other.unsigned_tx.output[0].value -= Amount::ONE_SAT;
        let other = Psbt { unsigned_tx: unsigned.unsigned_tx.clone(), ..signed(&other, &signers)? };
        assert!(refused(&mut wallet, &other)?.contains("wrong"), "{name}");

        let mut garbage = unsigned.clone();
        garbage.inputs[0].final_script_witness = Some(Witness::from_slice(&[[1; 64]]));
        assert!(refused(&mut wallet, &garbage)?.contains("wrong"), "{name}");

        // Some signers finish what they sign.
        let mut whole = signed(&unsigned, &signers)?;
        let input = &mut whole.inputs[0];
        input.final_script_witness = match name {
            "tr" => input.tap_key_sig.take().map(|signature| Witness::p2tr_key_spend(&signature)),
            "wpkh" => input.partial_sigs.pop_first().map(|(key, signature)| Witness::p2wpkh(&signature, &key.inner)),
            _ => None,
        };
        let done = psbt::finish(&mut wallet, &rpc, &whole)?;
        assert_eq!((done.job, done.state), (drafted.id, JobState::RevealSent));
    }
    Ok(())
}

#[test]
fn coins_that_were_there_before_are_found_over_a_node_and_over_a_server() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut own = Purse::new(&world, "own", &[250_000, 350_000])?;
    own.publish(&payload(&world, 120)?, Carrier::Taproot, 2)?;
    world.bitcoind.mine(1)?;
    own.wallet.sync(&own.rpc)?;
    let descriptors = own.wallet.descriptors();
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    let (node, _) =
        Wallet::watch_only(&world.path("node"), Network::Regtest, &descriptors, None, None, near(&world.rpc()?))?;
    let (server, _) = Wallet::watch_only(&world.path("server"), Network::Regtest, &descriptors, None, None, &esplora)?;
    for mut watching in [node, server] {
        assert_eq!(watching.balance(), own.wallet.balance());
        assert_eq!(watching.address()?, own.wallet.address()?);
        assert_eq!(watching.descriptors(), descriptors);
    }
    Ok(())
}

#[cfg(unix)]
#[test]
fn its_files_are_for_their_owner_and_its_words_are_encrypted_and_shown_nowhere() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(WINDOW)?;
    let dir = world.path("watching");
    let passphrase = Passphrase::new("correct horse".into())?;
    let (_, descriptor, _) = kinds()?.remove(2);
    let descriptors = Descriptors::parse(&descriptor, None, Network::Regtest)?;
    let rpc = world.rpc()?;
    let made = Wallet::watch_only(&dir, Network::Regtest, &descriptors, None, Some(&passphrase), near(&rpc))?;
    let (wallet, words) = (made.0, made.1.words());
    let shown = format!("{wallet:?} {:?} {passphrase:?}", made.1);
    let secrets = [words.as_str(), "correct horse", "tprv", "xprv"];
    assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
    drop(wallet);
    let mode = |path: &std::path::Path| Ok::<_, anyhow::Error>(std::fs::metadata(path)?.permissions().mode() & 0o777);
    assert_eq!(mode(&dir)?, 0o700);
    for file in std::fs::read_dir(&dir)? {
        let path = file?.path();
        assert_eq!(mode(&path)?, 0o600, "{}", path.display());
        let bytes = std::fs::read(&path)?;
        let text = String::from_utf8_lossy(&bytes);
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{}", path.display());
    }
    let wallet = Wallet::open(&dir, Network::Regtest)?;
    assert!(wallet.is_locked() && wallet.is_watch_only());
    assert!(!wallet.unlock(&passphrase)?.is_locked());
    Ok(())
}

#[test]
fn private_descriptors_are_refused_and_stored_nowhere() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let secret = Signer::new(1)?.0.to_string();
    for descriptor in [format!("tr({secret}/<0;1>/*)"), format!("tr({secret}/<0;1>/*"), secret.clone()] {
        let create = ["wallet", "create", "--watch-only", "--descriptor", &descriptor, "--gap", "200"];
        let (code, error) = cli.fails(&create)?;
        assert!(code == 2 && !error.contains(&secret[4..]) && error.contains("descriptor"), "{error}");
    }
    assert!(!world.path(&Cli::wallet_dir("default")).exists());
    Ok(())
}
