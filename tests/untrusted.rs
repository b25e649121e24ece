//! What the command is handed by people whom nobody knows: folders, words, names.

use crate::support::{Person, said};
use anyhow::{Context, Result, ensure};
use bitcoin::Network;
use bitcoin::hex::DisplayHex;
use serde_json::{Value, json};
use sortie::l2::L2Header;
use sortie::manifest::Manifest;
use sortie::merkle::merkle_root;
use sortie::primitives::{BlockRef, Hash32, RollupId, sha256};
use sortie::proof::{Receipt, Signed, SoftHeader, SoftState};
use sortie::wallet::Wallet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
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

/// A server, and what it was asked: the first line of each request, and its `Authorization`.
pub struct Double {
    pub url: String,
    requests: Receiver<String>,
}

impl Double {
    /// One that answers every request in the same way.
    pub fn new(status: u16, answer: Value) -> Result<Self> {
        Self::by(move |_| (status, answer.clone()))
    }

    /// One that answers by a request's first line.
    pub fn by(answer: impl Fn(&str) -> (u16, Value) + Send + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let (told, requests) = channel();
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

fn serve(mut stream: &TcpStream, answer: &impl Fn(&str) -> (u16, Value), told: &Sender<String>) -> Result<()> {
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
    let (status, body) = answer(&request);
    told.send(request)?;
    let (head, body) = (format!("HTTP/1.1 {status} x\r\nContent-Type: application/json"), body.to_string());
    Ok(write!(stream, "{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())?)
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
        ("a manifest's name", 13, vec!["rollup", "show", "evil.toml"]),
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

/// What a sequencer answers for one transaction: of itself, and its blocks from number 7 on.
struct Words {
    tx: Value,
    blocks: Vec<Value>,
}

/// A sequencer of the machine's rollup, or whoever says so.
struct Speaker {
    rollup_id: RollupId,
    signer: Person,
    tx: Vec<u8>,
}

impl Speaker {
    /// Block 7, or one above a parent, as it is shown.
    fn block(&self, parent: Option<&Value>, own_txs: &[&[u8]], is_signed: bool) -> Result<Value> {
        let parent: Option<SoftHeader> =
            parent.map(|parent| parent["header"].clone()).map(serde_json::from_value).transpose()?;
        let header = L2Header {
            number: parent.map_or(7, |parent| parent.number + 1),
            parent: parent.map_or(Hash32([1; 32]), |parent| parent.hash(&self.rollup_id)),
            origin: BlockRef { height: 6, hash: bitcoin::hashes::Hash::from_byte_array([2; 32]) },
            timestamp: 5,
            forced_end: 0,
            queue_size: 0,
            queue_root: merkle_root::<&[u8]>([]),
            txs_root: merkle_root(own_txs),
        };
        let hash = header.hash(&self.rollup_id);
        let state = SoftState { block: hash, state_root: Hash32([3; 32]) };
        let signed = is_signed.then(|| {
            let key = &self.signer.keypair;
            json!({ "header": Signed::by(SoftHeader(header), &self.rollup_id, 0, 0, key),
                "state": Signed::by(state, &self.rollup_id, 0, 0, key) })
        });
        let own_txs: Vec<_> = own_txs.iter().map(|tx| tx.to_lower_hex_string()).collect();
        Ok(json!({ "hash": hash, "header": SoftHeader(header), "own_txs": own_txs, "signed": signed }))
    }

    fn receipt(&self, tx: &[u8], numbers: [u64; 2], signer: &Person) -> Result<Value> {
        let [first_number, last_number] = numbers;
        let receipt = Receipt { tx_hash: sha256(tx), first_number, last_number };
        Ok(serde_json::to_value(Signed::by(receipt, &self.rollup_id, 0, 0, &signer.keypair))?)
    }

    /// Says that the transaction is in the first of these blocks.
    fn includes(&self, receipt: Value, blocks: Vec<Value>) -> Words {
        let block = blocks.first().map_or(json!(Hash32([4; 32])), |block| block["hash"].clone());
        let tx = json!({ "tx_hash": sha256(&self.tx), "status": "included", "number": 7, "block": block, "receipt": receipt });
        Words { tx, blocks }
    }

    fn double(&self, words: Words) -> Result<Double> {
        let rollup_id = self.rollup_id;
        Double::by(move |request| {
            let number = |request: &str| request.split(['/', ' ']).find_map(|part| part.parse::<usize>().ok());
            match request {
                status if status.contains("/v1/status") => {
                    let head = json!({ "number": 7, "hash": Hash32([4; 32]), "state_root": Hash32([3; 32]),
                        "origin_height": 6, "timestamp": 5 });
                    (200, json!({ "rollup_id": rollup_id, "unsafe": head }))
                }
                block if block.contains("/v1/block/") => {
                    match number(block).and_then(|number| words.blocks.get(number.checked_sub(7)?)) {
                        Some(block) => (200, block.clone()),
                        None => (404, json!({ "error": "no such block" })),
                    }
                }
                _ => (202, words.tx.clone()),
            }
        })
    }
}

#[test]
fn send_believes_what_is_signed_and_keeps_it() -> Result<()> {
    let machine = Machine::new()?;
    let manifest = Manifest::from_toml(&manifest("mine"))?;
    let (rollup_id, tx) = (manifest.rollup_id(), b"a transaction".to_vec());
    let honest = Speaker { rollup_id, signer: Person::new(1), tx: tx.clone() };
    let other = Speaker { rollup_id, signer: Person::new(2), tx: tx.clone() };
    let (signed, unsigned) = (honest.block(None, &[b"first", &tx], true)?, honest.block(None, &[&tx], false)?);
    let above = honest.block(Some(&unsigned), &[], true)?;
    let elsewhere = honest.block(None, &[b"another"], true)?;
    let mut mixed = elsewhere.clone();
    mixed["own_txs"] = signed["own_txs"].clone();
    let good = honest.receipt(&tx, [7, 71], &honest.signer)?;
    let mut forged = good.clone();
    forged["signatures"][0]["signature"] = json!("11".repeat(64));
    let mut retired = good.clone();
    retired["handovers"] = json!(1);
    let mut other_hash = honest.includes(good.clone(), Vec::new());
    other_hash.tx["tx_hash"] = json!(Hash32::default());
    let nothing = || Ok::<_, anyhow::Error>(Value::Null);
    let table = [
        ("its word alone", 5, honest.includes(nothing()?, vec![])),
        ("a forged receipt", 5, honest.includes(forged, vec![])),
        ("a receipt by another key", 5, honest.includes(honest.receipt(&tx, [7, 71], &other.signer)?, vec![])),
        ("a receipt of another set", 5, honest.includes(retired, vec![])),
        (
            "a receipt for another transaction",
            5,
            honest.includes(honest.receipt(b"x", [7, 71], &honest.signer)?, vec![]),
        ),
        ("a receipt for other blocks", 5, honest.includes(honest.receipt(&tx, [8, 71], &honest.signer)?, vec![])),
        ("a receipt without end", 5, honest.includes(honest.receipt(&tx, [7, u64::MAX], &honest.signer)?, vec![])),
        ("a signed block without it", 5, honest.includes(nothing()?, vec![elsewhere])),
        ("a signed block with another's transactions", 5, honest.includes(nothing()?, vec![mixed])),
        ("a block that another signed", 5, honest.includes(nothing()?, vec![other.block(None, &[&tx], true)?])),
        ("a block that nobody signed", 5, honest.includes(nothing()?, vec![unsigned.clone()])),
        ("another transaction's hash", 1, other_hash),
        ("a receipt", 0, honest.includes(good, vec![])),
        ("a signed block", 0, honest.includes(nothing()?, vec![signed])),
        ("a signed block above it", 0, honest.includes(nothing()?, vec![unsigned, above])),
    ];
    for (what, code, words) in table {
        let double = honest.double(words)?;
        let hex = tx.to_lower_hex_string();
        let send = ["--manifest", "rollup.toml", "--json", "send", &hex, "--timeout", "0", "--sequencer", &double.url];
        let sent = machine.run(&send)?;
        assert_eq!(sent.status.code(), Some(code), "{what}: {}", said(&sent));
        if code == 0 {
            let answer: Value = serde_json::from_slice(&sent.stdout)?;
            let kept = fs::read_to_string(answer["kept"].as_str().context("a file")?)?;
            assert!(kept.contains("signature"), "{what}: {kept}");
            assert_eq!((&answer["number"], &answer["status"]), (&json!(7), &json!("included")));
        } else if code == 5 {
            assert!(said(&sent).contains("claims") && said(&sent).contains("unsigned"), "{what}: {}", said(&sent));
        }
    }
    // The evidence against it begins with what was kept; the rest is Bitcoin's, which is not here.
    let prove = |hash: &str| {
        let arguments =
            ["--manifest", "rollup.toml", "--bitcoin-url", "http://127.0.0.1:1", "prove", "broken-receipt", hash];
        machine.run(&[&arguments[..], &["--sequencer", "http://127.0.0.1:1"]].concat())
    };
    assert_eq!(prove(&sha256(&tx).to_string())?.status.code(), Some(3));
    assert_eq!(prove(&Hash32::default().to_string())?.status.code(), Some(2));
    Ok(())
}
