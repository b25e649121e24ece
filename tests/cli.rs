//! The command line as a user meets it: exit codes, one line for each error, and a round trip on a node.

use crate::support::money::Cli;
use crate::support::{Window, World, said};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn sortie(data_dir: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sortie"));
    command.arg("--data-dir").arg(data_dir).args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SORTIE_") {
            command.env_remove(name);
        }
    }
    Ok(command.current_dir(data_dir).output()?)
}

#[test]
fn bad_input_gets_one_line_and_its_exit_code() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("broken.toml"), "name = 'x'\nnetwork = 'regtest'\n")?;
    fs::write(dir.path().join("sortie.toml"), "network = 'regtest'\n")?;
    fs::write(dir.path().join("unknown.toml"), "networc = 'regtest'\n")?;
    let unreachable = ["--bitcoin-url", "http://127.0.0.1:1", "--bitcoin-user", "u"];
    let txid = "ab".repeat(32);
    let table: [(&str, i32, Vec<&str>); 15] = [
        ("no such command", 2, vec!["fly"]),
        ("no manifest", 2, vec!["rollup", "show"]),
        ("a manifest that is not there", 2, vec!["rollup", "show", "nowhere.toml"]),
        ("a manifest with fields missing", 2, vec!["--manifest", "broken.toml", "queue", "root"]),
        ("a settings key that nobody knows", 2, vec!["--config", "unknown.toml", "wallet", "balance"]),
        ("odd hexadecimal", 2, vec!["envelope", "decode", "abc"]),
        ("not hexadecimal", 2, vec!["envelope", "decode", "zz"]),
        ("not a transaction", 2, vec!["envelope", "decode", "00"]),
        ("a txid, not a transaction", 2, vec!["envelope", "decode", &txid]),
        ("not a job", 2, vec!["bump", "abc"]),
        ("not a place", 2, vec!["status", "here"]),
        ("a network that is not served", 2, vec!["--network", "testnet3", "wallet", "balance"]),
        ("a wallet that is not there", 2, vec!["wallet", "address"]),
        ("a node's URL without a scheme", 2, vec!["--bitcoin-url", "127.0.0.1", "wallet", "create"]),
        ("no Bitcoin node", 3, [&unreachable[..], &["wallet", "create"]].concat()),
    ];
    for (what, code, arguments) in table {
        let output = Command::new(env!("CARGO_BIN_EXE_sortie"))
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(&arguments)
            .env("SORTIE_BITCOIN_PASSWORD", "secret-password")
            .env("SORTIE_PATIENCE", "0")
            .current_dir(dir.path())
            .output()?;
        let said = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(code), "{what}: {said}");
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{what}: {said}");
        assert_eq!(said.lines().count(), 1, "{what}: {said}");
        assert!(!said.contains("panicked") && !said.contains("secret-password"), "{what}: {said}");
    }
    Ok(())
}

#[test]
fn what_encode_makes_decode_reads() -> Result<()> {
    let world = World::new(Window { window: 6, max_lag: 3 })?;
    let manifest = world.path("rollup.toml");
    fs::write(&manifest, world.manifest.to_toml())?;
    let manifest = manifest.display().to_string();
    let txs = [vec![7; 64].to_lower_hex_string(), vec![8; 100].to_lower_hex_string()];
    let mut arguments = vec!["envelope", "encode", "--carrier", "op-return", "--manifest", &manifest, "--kind", "txs"];
    arguments.extend(txs.iter().map(String::as_str));
    let made: Value = serde_json::from_slice(&sortie(world.dir.path(), &arguments)?.stdout)?;
    let script = made["script"].as_str().context("a script")?;

    let transaction = bitcoin::Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![bitcoin::TxIn::default()],
        output: vec![bitcoin::TxOut {
            value: bitcoin::Amount::ZERO,
            script_pubkey: bitcoin::ScriptBuf::from_hex(script)?,
        }],
    };
    let raw = bitcoin::consensus::encode::serialize_hex(&transaction);
    let output = sortie(world.dir.path(), &["envelope", "decode", &raw])?;
    let read: Value = serde_json::from_slice(&output.stdout)?;
    let place = format!("{}:out:0", transaction.compute_txid());
    let namespace = world.manifest.rollup_id().namespace().to_string();
    let expected = serde_json::json!({
        "place": place, "carrier": "op-return", "namespace": namespace, "kind": "txs", "items": txs
    });
    assert_eq!(read, expected);
    Ok(())
}

#[test]
fn a_fee_cap_refuses_before_anything_is_signed_and_a_dry_wallet_says_what_is_missing() -> Result<()> {
    let world = World::new(Window { window: 6, max_lag: 3 })?;
    fs::write(world.path("rollup.toml"), world.manifest.to_toml())?;
    drop(world.wallet("data/regtest/wallets/default", 1)?);
    let (url, cookie) = (world.bitcoind.rpc_url(), world.bitcoind.cookie().display().to_string());
    let data = world.path("data");
    let manifest = world.path("rollup.toml").display().to_string();
    let common = ["--manifest", manifest.as_str(), "--bitcoin-url", url.as_str(), "--bitcoin-cookie", cookie.as_str()];
    let tx = world.transfer(&world.alice, &world.bob, 1, 0).to_lower_hex_string();
    let run = |arguments: &[&str]| sortie(&data, &[&common[..], arguments].concat());

    let capped = run(&["force", &tx, "--max-fee", "10"])?;
    assert_eq!(capped.status.code(), Some(4), "{}", String::from_utf8_lossy(&capped.stderr));
    assert!(world.bitcoind.mempool()?.is_empty());

    let told = |arguments: &[&str]| -> Result<String> {
        Ok(String::from_utf8(run(&[&["quote", &tx], arguments].concat())?.stderr)?)
    };
    for above in [["--max-fee", "10"], ["--fee-rate", "5000"]] {
        assert_eq!(told(&above)?.matches("`sortie force` refuses that").count(), 1, "{above:?}");
    }
    assert_eq!(told(&["--fee-rate", "2"])?, "");
    assert_eq!(told(&["--explain"])?.matches("1 sat/vB on regtest").count(), 1, "not once for each target");

    let created = run(&["wallet", "create", "--wallet", "dry"])?;
    ensure!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let dry = run(&["force", &tx, "--wallet", "dry"])?;
    assert_eq!(dry.status.code(), Some(1));
    assert_eq!(String::from_utf8(dry.stderr)?.lines().filter(|line| line.starts_with("error: ")).count(), 1);

    let forced = run(&["--json", "force", &tx])?;
    ensure!(forced.status.success(), "{}", String::from_utf8_lossy(&forced.stderr));
    let forced: Value = serde_json::from_slice(&forced.stdout)?;
    let place = forced["place"].as_str().context("a place")?;
    world.bitcoind.mine(7)?;
    let status: Value = serde_json::from_slice(&run(&["--json", "status", place])?.stdout)?;
    assert_eq!((&status["state"], &status["outcome"]), (&"executed".into(), &"ok".into()), "{status}");
    Ok(())
}

#[test]
fn a_wallet_whose_words_nobody_could_read_is_not_made() -> Result<()> {
    let world = World::new(Window { window: 6, max_lag: 3 })?;
    let command = |arguments: &[&str], stdout: Stdio| -> Result<Output> {
        let mut command = world.sortie(arguments)?;
        Ok(command.stdout(stdout).stderr(Stdio::piped()).spawn()?.wait_with_output()?)
    };
    let create = ["--json", "wallet", "create"];
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let full = fs::OpenOptions::new().write(true).open("/dev/full")?;
    for nowhere in [Stdio::from(full), Stdio::from(writer)] {
        let failed = command(&create, nowhere)?;
        assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
        assert!(said(&failed).contains("no wallet was made"), "{}", said(&failed));
        assert_eq!(command(&["wallet", "address"], Stdio::null())?.status.code(), Some(2), "nobody can pay to it");
    }
    let made = command(&create, Stdio::piped())?;
    let words = serde_json::from_slice::<Value>(&made.stdout)?["words"].clone();
    assert_eq!(words.as_str().context("words")?.split(' ').count(), 12);
    // Nor does any other command succeed without its answer.
    for command_line in [&["wallet", "address"][..], &["rollup", "show"], &["wallet", "--help"], &["--version"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full")?;
        assert_eq!(command(command_line, full.into())?.status.code(), Some(1), "{command_line:?}");
    }
    let key = world.alice.keypair.x_only_public_key().0.to_string();
    for (most, warns) in [("63", true), ("64", false)] {
        let out = world.path(most).display().to_string();
        let new = ["rollup", "new", "--name", "n", "--sequencer", &key, "--max-forced-per-block", most, "--out", &out];
        let new = command(&new, Stdio::piped())?;
        assert!(new.status.success() && said(&new).contains("stranger") == warns, "{}", said(&new));
    }
    Ok(())
}

#[test]
fn an_encrypted_wallet_pays_with_its_passphrase_only_and_shows_its_words_once() -> Result<()> {
    let world = World::new(Window { window: 6, max_lag: 3 })?;
    let dir = world.dir.path();
    fs::write(dir.join("first"), "correct horse\n")?;
    fs::write(dir.join("second"), "battery staple\n")?;
    for secret in ["first", "second"] {
        fs::set_permissions(dir.join(secret), fs::Permissions::from_mode(0o600))?;
    }
    let [url, cookie] = [world.bitcoind.rpc_url(), world.bitcoind.cookie().display().to_string()];
    let run = |passphrase: Option<&str>, arguments: &[&str]| -> Result<Output> {
        let node = ["--network", "regtest", "--bitcoin-url", &url, "--bitcoin-cookie", &cookie, "--json"];
        let passphrase = passphrase.map_or(vec![], |file| vec!["--passphrase-file", file]);
        sortie(dir, &[&node[..], &passphrase, arguments].concat())
    };
    let made: Value = serde_json::from_slice(&run(Some("first"), &["wallet", "create"])?.stdout)?;
    let words = made["words"].as_str().context("words, once")?.to_owned();
    let address: Value = serde_json::from_slice(&run(None, &["wallet", "address"])?.stdout)?;
    let address: bitcoin::Address<_> = address["address"].as_str().context("an address")?.parse()?;
    world.bitcoind.fund_and_mine(&address.clone().assume_checked(), bitcoin::Amount::from_sat(50_000))?;

    let balance = run(None, &["wallet", "balance"])?;
    let held: Value = serde_json::from_slice(&balance.stdout)?;
    assert_eq!(held["spendable_sat"], 50_000, "looking needs no passphrase");
    let to = address.assume_checked().to_string();
    let pay = ["wallet", "send", "--to", &to, "--amount", "1000", "--fee-rate", "1"];
    let [locked, wrong] = [run(None, &pay)?, run(Some("second"), &pay)?];
    let change = ["wallet", "passphrase", "--new-passphrase-file", "second"];
    let [not_changed, changed] = [run(Some("second"), &change)?, run(Some("first"), &change)?];
    let [old, new] = [run(Some("first"), &pay)?, run(Some("second"), &pay)?];
    for (refused, with) in [
        (&locked, "--passphrase-file"),
        (&wrong, "does not open"),
        (&not_changed, "does not open"),
        (&old, "does not open"),
    ] {
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(with) && said.lines().count() == 1, "{said}");
    }
    assert!(changed.status.success() && new.status.success(), "{}", String::from_utf8_lossy(&new.stderr));
    for output in [balance, locked, wrong, not_changed, changed, old, new] {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!([&words, "correct horse", "battery staple"].iter().all(|secret| !said.contains(secret)), "{said}");
    }
    Ok(())
}

#[test]
fn what_people_read_of_a_publication_is_labelled_once_and_as_of_now() -> Result<()> {
    let world = World::new(Window { window: 6, max_lag: 3 })?;
    let cli = Cli::new(&world)?;
    drop(world.wallet(&Cli::wallet_dir("default"), 1)?);
    let tx = world.transfer(&world.alice, &world.bob, 1, 0).to_lower_hex_string();
    let told = |arguments: &[&str]| -> Result<[String; 2]> {
        let output = cli.for_people(arguments).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", said(&output));
        Ok([String::from_utf8(output.stdout.clone())?, said(&output)])
    };
    let rows = |text: &str, label: &str| text.lines().filter(|line| line.split("  ").next() == Some(label)).count();

    let [forced, notes] = told(&["force", &tx, "--profile", "legacy", "--explain"])?;
    assert!(forced.contains("op-return         285 sat for 285 vB; not relayed: its OP_RETURN output"), "{forced}");
    assert_eq!((rows(&forced, "commit"), rows(&forced, "reveal"), rows(&forced, "transaction")), (1, 1, 0), "{forced}");
    assert!(notes.contains("sat/vB on regtest"), "{notes}");
    // What is paid for needs no rate.
    let [again, notes] = told(&["force", &tx, "--explain"])?;
    assert!(again.contains("nothing new was paid") && again.contains("in the mempool"), "{again}");
    assert!(!notes.contains("sat/vB"), "{notes}");
    world.bitcoind.mine(1)?;
    let due = world.bitcoind.height()? + 6;
    let [queued, _] = told(&["force", &tx])?;
    assert!(queued.contains(&format!("and queued: executed at {due} at the latest\n")), "{queued}");
    world.bitcoind.mine(6)?;
    let [executed, _] = told(&["force", &tx])?;
    assert!(executed.contains("which has passed") && !executed.contains("queued"), "{executed}");
    let [story, _] = told(&["jobs", "1"])?;
    assert_eq!(story.matches(" UTC  ").count(), 5, "{story}");
    assert_eq!((rows(&story, "commit"), rows(&story, "reveal")), (1, 1), "{story}");
    Ok(())
}
