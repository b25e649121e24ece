//! What the command is handed by people whom nobody knows: folders, words, names.

use crate::support::{Person, said};
use anyhow::{Context, Result, ensure};
use bitcoin::Network;
use bitcoin::hex::DisplayHex;
use serde_json::{Value, json};
use sortie::wallet::Wallet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use tempfile::TempDir;

/// Clears the screen, writes the clipboard, hides what follows, forges a line, turns the text round.
const EVIL: &str = "\u{1b}]52;c;cm0=\u{7}\u{1b}[2J\u{9b}8m\r\nerror: all is well\u{85}\u{2028}\u{202e}\u{200b}\u{7f}";

fn is_hidden(c: char) -> bool {
    c.is_control() && c != '\n' || matches!(c, '\u{200b}' | '\u{2028}' | '\u{202e}')
}

/// A server that answers every request in the same way, and tells of each: its first line, and its `Authorization`.
pub struct Double {
    pub url: String,
    requests: Receiver<String>,
}

impl Double {
    pub fn new(status: u16, answer: Value) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let (told, requests) = channel();
        let body = answer.to_string();
        let head = format!("HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nConnection: close\r\n");
        let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who asks may hang up at any time.
                let _ = serve(&stream, &answer, &told);
            }
        });
        Ok(Self { url, requests })
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.try_iter().collect()
    }
}

fn serve(mut stream: &std::net::TcpStream, answer: &str, told: &Sender<String>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse()?,
            "authorization" => request.push_str(value),
            _ => {}
        }
    }
    reader.take(length).read_to_end(&mut Vec::new())?;
    told.send(request)?;
    Ok(stream.write_all(answer.as_bytes())?)
}

/// A person's machine: a home with a wallet, a cookie of a node, and an archive that was unpacked.
struct Machine(TempDir);

impl Machine {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::create_dir_all(dir.path().join("archive"))?;
        fs::create_dir_all(dir.path().join(".config/sortie"))?;
        fs::create_dir_all(dir.path().join(".bitcoin/regtest"))?;
        fs::write(dir.path().join(".bitcoin/regtest/.cookie"), "__cookie__:secret")?;
        fs::write(dir.path().join("archive/rollup.toml"), manifest("mine"))?;
        let machine = Self(dir);
        for data in ["data/sortie", "archive/theirs"] {
            drop(Wallet::create(&machine.path(data).join("regtest/wallets/default"), Network::Regtest, 1, None)?);
        }
        Ok(machine)
    }

    fn path(&self, name: impl AsRef<Path>) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sortie"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SORTIE_")) {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(self.path("archive")).env("HOME", self.0.path());
        command.env("XDG_DATA_HOME", self.path("data")).env("XDG_CONFIG_HOME", self.path(".config"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments).output()?)
    }

    fn folder_says(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.path("archive/sortie.toml"), text)?)
    }
}

fn manifest(name: &str) -> String {
    let key = Person::new(1).account().to_lower_hex_string();
    format!(
        "name = '{name}'\nnetwork = 'regtest'\nstart_height = 5\nstart_hash = '{:064}'\n\
         [sequencers]\nkeys = ['{key}']\n\
         [executor]\nkind = 'ledger'\nforced_cost_per_byte = 1\nfee_account = '{key}'\n",
        0
    )
}

#[test]
fn a_folder_chooses_neither_the_wallet_nor_the_node() -> Result<()> {
    let machine = Machine::new()?;
    let theirs = Double::new(500, json!({}))?;
    let names = "network = 'regtest'\nmanifest = 'rollup.toml'\n";
    machine.folder_says(names)?;
    let dead = ["--bitcoin-url", "http://127.0.0.1:1", "wallet", "address"];
    let honest = machine.run(&dead)?;
    ensure!(honest.status.success(), "{}", said(&honest));
    for setting in ["data_dir = 'theirs'".into(), format!("bitcoin_url = '{}'", theirs.url)] {
        machine.folder_says(&format!("{names}{setting}\n"))?;
        for command in [&dead[..], &["follow", "--once"], &["status", "1"]] {
            let refused = machine.run(command)?;
            assert_eq!(refused.status.code(), Some(4), "{setting} {command:?}: {}", said(&refused));
            assert!(said(&refused).contains(".config/sortie/sortie.toml"), "{}", said(&refused));
            assert_eq!(said(&refused).lines().count(), 1);
        }
    }
    assert_eq!(theirs.requests(), [""; 0], "whoever made the folder heard nothing");
    // The same file is heard where it is the user's own, who is told.
    machine.folder_says(names)?;
    fs::write(machine.path(".config/sortie/sortie.toml"), format!("bitcoin_url = '{}'\n", theirs.url))?;
    let answer = machine.run(&["wallet", "address"])?;
    assert!(answer.status.success() && said(&answer).contains(&format!("bitcoin_url {} (", theirs.url)));
    assert!(theirs.requests().iter().any(|request| request.contains("Basic ")), "{}", said(&answer));
    Ok(())
}

#[test]
fn commands_of_money_say_whose_settings_hold() -> Result<()> {
    let machine = Machine::new()?;
    fs::write(
        machine.path(".config/sortie/sortie.toml"),
        "wallet = 'default'\nesplora_url = 'http://127.0.0.1:1/key'\n",
    )?;
    let answer = machine
        .command(&["--network", "regtest", "--json", "wallet", "address"])
        .env("SORTIE_DATA_DIR", machine.path("archive/theirs"))
        .output()?;
    let note = String::from_utf8(answer.stderr)?;
    let note: Value = serde_json::from_str(note.lines().next().context("a note")?)?;
    let own = machine.path(".config/sortie/sortie.toml").display().to_string();
    let theirs = machine.path("archive/theirs").display().to_string();
    let expected =
        format!("wallet default ({own}), data_dir {theirs} (SORTIE_DATA_DIR), esplora_url http://127.0.0.1:1 ({own})");
    assert_eq!(note["note"], expected);
    Ok(())
}

#[test]
fn a_secret_that_is_for_everybody_is_refused_with_the_cure() -> Result<()> {
    let machine = Machine::new()?;
    let (key, seed) = (machine.path("alice.key"), machine.path("data/sortie/signet/wallets/default/seed"));
    let shown = ["--network", "signet", "ledger", "key"];
    ensure!(machine.run(&[&shown[..], &["--out", &key.display().to_string()]].concat())?.status.success());
    drop(Wallet::create(seed.parent().context("a folder")?, Network::Signet, 1, None)?);
    let config = machine.path(".config/sortie/sortie.toml");
    let show = [&shown[..], &["--show"]].concat();
    let key_text = key.display().to_string();
    let commands = [
        (&key, [&show[..], &[&key_text]].concat()),
        (&seed, vec!["--network", "signet", "--esplora-url", "http://127.0.0.1:1", "wallet", "descriptors"]),
        (&config, vec!["--network", "signet", "ledger", "key", "--show", &key_text]),
    ];
    for (file, command) in commands {
        if *file == config {
            fs::write(&config, "bitcoin_user = 'u'\nbitcoin_password = 'p'\n")?;
        }
        fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
        let refused = machine.run(&command)?;
        assert_eq!(refused.status.code(), Some(4), "{command:?}: {}", said(&refused));
        let cure = said(&refused).rsplit_once("secret: ").context("a cure")?.1.trim().to_owned();
        assert!(Command::new("sh").args(["-c", &cure]).status()?.success());
        assert!(machine.run(&command)?.status.success(), "{command:?}: {cure}");
    }
    Ok(())
}

#[test]
fn no_words_from_outside_reach_the_terminal() -> Result<()> {
    let machine = Machine::new()?;
    let evil_node = Double::new(500, json!({ "result": null, "id": 0, "error": { "code": -1, "message": EVIL } }))?;
    let evil_sequencer = Double::new(403, json!({ "error": EVIL }))?;
    fs::write(machine.path("archive/evil.toml"), manifest("ra\u{202e}cni\u{200b}llor"))?;
    let node = ["--network", "regtest", "--bitcoin-user", "u", "--bitcoin-url", &evil_node.url];
    let here = ["--manifest", "rollup.toml"];
    let broken = format!("{EVIL}.toml");
    fs::write(machine.path("archive").join(&broken), EVIL)?;
    for (what, lines, command) in [
        ("a node's error", 1, [&node[..], &["wallet", "create", "--wallet", "new"]].concat()),
        ("a node's error, survived", 3, [&node[..], &["wallet", "address"]].concat()),
        ("a sequencer's refusal", 1, [&here[..], &["send", "00", "--sequencer", &evil_sequencer.url]].concat()),
        ("a manifest's name", 12, vec!["rollup", "show", "evil.toml"]),
        ("a file's name", 1, vec!["rollup", "show", &broken]),
        ("an argument", 1, vec!["--network", EVIL, "rollup", "show"]),
        ("an argument that nobody knows", 1, vec![EVIL]),
    ] {
        for json in [&[][..], &["--json"]] {
            let output = machine.command(&[json, &command].concat()).env("SORTIE_BITCOIN_PASSWORD", "p").output()?;
            let said = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
            assert!(!said.is_empty() && !said.contains(is_hidden), "{what}: {}", said.escape_debug());
            match json {
                [] => assert!(said.lines().count() <= lines, "{what}: {said}"),
                _ => drop(said.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?),
            }
            assert!(!said.lines().any(|line| line.starts_with("error: all is well")), "{what}: {said}");
        }
    }
    Ok(())
}
