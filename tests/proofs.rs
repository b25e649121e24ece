//! Proofs and evidence: made on a node with `sortie prove`, judged by `sortie verify` without one.

use crate::support::{FollowerRig, Operator, Person, Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::FeeRate;
use bitcoin::hex::DisplayHex;
use serde_json::{Value, json};
use sortie::api::wire::TxStatus;
use sortie::batch::{encode_handover, handover_message};
use sortie::envelope::{Body, Carrier};
use sortie::l2::L2Header;
use sortie::manifest::SequencerSet;
use sortie::merkle::{Tree, TreeHead, leaf_hash, merkle_root};
use sortie::primitives::{BlockRef, Hash32, sha256};
use sortie::proof::SignedBlock;
use sortie::proof::{
    Equivocation, File, Included, Proof, ProvenLeaf, QueueLeaf, Receipt, Signed, SignedBy, SoftHeader, SoftState,
};
use sortie::publish::{Request, publish};
use sortie::queue::Item;
use sortie::wallet::Wallet;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};

const WINDOW: Window = Window { window: 8, max_lag: 4 };

/// What is changed in a file, how, and why it is refuted then.
type Alteration<'a> = (&'a str, &'a dyn Fn(&mut Value), &'a str);

/// Someone with a node, and someone without, who gets files from the first.
struct Users {
    world: World,
    manifest: String,
}

/// How a command ended: its exit code, its answer if there is one, its error.
struct Answer {
    code: Option<i32>,
    json: Value,
    error: String,
}

impl Answer {
    fn of(output: &Output) -> Self {
        let said = String::from_utf8_lossy(&output.stderr);
        let mut errors = said
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["error"].as_str().map(str::to_owned));
        let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        Self { code: output.status.code(), json, error: errors.next().unwrap_or_default() }
    }

    fn verdict(&self) -> (Option<i32>, &str) {
        (self.code, self.json["verdict"].as_str().unwrap_or_default())
    }
}

impl Users {
    fn new(window: Window) -> Result<Self> {
        let world = World::new(window)?;
        let manifest = world.path("rollup.toml");
        fs::write(&manifest, world.manifest.to_toml())?;
        Ok(Self { manifest: manifest.display().to_string(), world })
    }

    fn command(&self, data_dir: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sortie"));
        command.args(["--json", "--manifest", &self.manifest, "--data-dir"]).arg(self.world.path(data_dir));
        command.args(arguments).current_dir(self.world.dir.path());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SORTIE_")) {
            command.env_remove(name);
        }
        command
    }

    /// `sortie prove ... --out FILE --force`.
    fn prove(&self, arguments: &[&str], file: &str) -> Result<Answer> {
        let mut command = self.command("data", &["prove"]);
        command.args(arguments).args(["--out", file, "--force"]);
        command.args(["--bitcoin-url", &self.world.bitcoind.rpc_url()]);
        command.arg("--bitcoin-cookie").arg(self.world.bitcoind.cookie());
        Ok(Answer::of(&command.output()?))
    }

    /// A proof that has to succeed.
    fn proven(&self, arguments: &[&str], file: &str) -> Result<Answer> {
        let made = self.prove(arguments, file)?;
        ensure!(made.verdict() == (Some(0), "proven"), "{arguments:?}: {} {}", made.json, made.error);
        Ok(made)
    }

    /// `sortie verify`, where no Bitcoin node can be reached.
    fn verify(&self, file: &str, anchors: &[&str]) -> Result<Answer> {
        let mut command = self.command("nobody", &["verify", file, "--bitcoin-url", "http://127.0.0.1:1"]);
        command.args(anchors.iter().flat_map(|anchor| ["--anchor", anchor]));
        Ok(Answer::of(&command.output()?))
    }

    fn read(&self, file: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.world.path(file))?)?)
    }

    fn write(&self, file: &str, value: &Value) -> Result<()> {
        Ok(fs::write(self.world.path(file), value.to_string())?)
    }

    fn sign<T: sortie::proof::Statement>(&self, statement: T) -> Signed<T> {
        self.sign_as(statement, 0, &self.world.sequencer_key)
    }

    fn sign_as<T: sortie::proof::Statement>(&self, statement: T, handovers: u32, signer: &Person) -> Signed<T> {
        Signed::by(statement, &self.world.manifest.rollup_id(), handovers, 0, &signer.keypair)
    }

    /// What a sequencer answers that has signed this header.
    fn signed_answer(&self, header: L2Header, own_txs: &[Vec<u8>]) -> Value {
        self.signed_answer_as(header, own_txs, 0, &self.world.sequencer_key)
    }

    fn signed_answer_as(&self, header: L2Header, own_txs: &[Vec<u8>], handovers: u32, signer: &Person) -> Value {
        let block = header.hash(&self.world.manifest.rollup_id());
        let state = self.sign_as(SoftState { block, state_root: Hash32([1; 32]) }, handovers, signer);
        let signed = SignedBlock { header: self.sign_as(SoftHeader(header), handovers, signer), state };
        answer(header, block, own_txs, Some(&signed))
    }

    /// Hands the rollup over to somebody, on Bitcoin.
    fn hand_over(&self, wallet: &mut Wallet, seq: u32, from: &Person, to: &Person) -> Result<()> {
        let set = SequencerSet::new(vec![to.keypair.x_only_public_key().0], 1)?;
        let mut body = encode_handover(seq, &set);
        let by = SignedBy::sign(0, &from.keypair, handover_message(&self.world.manifest.rollup_id(), &body));
        body.push(by.index);
        body.extend(by.signature.serialize());
        let rpc = self.world.rpc()?;
        wallet.sync(&rpc)?;
        let request = Request::at(FeeRate::from_sat_per_vb(2).context("a rate")?);
        publish(wallet, &rpc, &self.world.payload(Body::Handover(body))?, &request)?;
        self.world.bitcoind.mine(1)?;
        Ok(())
    }
}

/// An answer of `GET /v1/block/NUMBER`.
fn answer(header: L2Header, hash: Hash32, own_txs: &[Vec<u8>], signed: Option<&SignedBlock>) -> Value {
    let own_txs: Vec<_> = own_txs.iter().map(|tx| tx.to_lower_hex_string()).collect();
    json!({ "hash": hash, "header": SoftHeader(header), "forced": { "start": 0, "end": header.forced_end },
        "own_txs": own_txs, "signed": signed })
}

/// A sequencer that says over HTTP whatever it is told to.
struct Mouth {
    url: String,
    answers: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Mouth {
    fn open() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let answers = Arc::new(Mutex::new(BTreeMap::new()));
        let said = Arc::clone(&answers);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that went away is no concern of the sequencer's.
                drop(speak(&stream, &said));
            }
        });
        Ok(Self { url, answers })
    }

    fn say(&self, path: &str, answer: Value) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), answer);
    }

    fn say_block(&self, number: u64, answer: Value) {
        self.say(&format!("/v1/block/{number}"), answer);
    }

    /// Everything that an operator answers about its blocks.
    fn repeat(&self, operator: &Operator) -> Result<Vec<Value>> {
        let head = operator.status().unsafe_head.number;
        self.say("/v1/status", json!({ "unsafe": { "number": head } }));
        let mut said = Vec::new();
        for number in 1..=head {
            let Some(stored) = operator.submit.block(number)? else { continue };
            let block = answer(stored.block.header, stored.block.hash, &stored.block.own_txs, stored.signed.as_ref());
            self.say_block(number, block.clone());
            said.push(block);
        }
        Ok(said)
    }
}

fn speak(mut stream: &TcpStream, answers: &Mutex<BTreeMap<String, Value>>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = request.split(' ').nth(1).context("a path")?;
    let answer = answers.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
    let (status, body) = match answer {
        Some(answer) => ("200 OK", answer.to_string()),
        None => ("404 Not Found", json!({ "error": "no such thing" }).to_string()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    Ok(stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes())?)
}

/// Two items in an input and one in an output, in one Bitcoin block, and blocks until they are executed.
fn forced_by_both_carriers(users: &Users) -> Result<Vec<Item>> {
    let world = &users.world;
    let mut wallet = world.wallet("alice", 3)?;
    let transfer = |nonce| world.transfer(&world.alice, &world.bob, 10, nonce);
    world.force(&mut wallet, &[transfer(0), transfer(1)], Carrier::Taproot)?;
    world.force(&mut wallet, &[transfer(2)], Carrier::OpReturn)?;
    world.bitcoind.mine(u32::from(WINDOW.window) + 1)?;
    let items = world.follower("follower")?.items()?;
    ensure!(items.len() == 3 && items.iter().all(|queued| queued.fate.is_some()), "{items:?}");
    Ok(items.into_iter().map(|queued| queued.item).collect())
}

#[test]
fn a_forced_item_is_proven_by_its_bitcoin_block_and_by_nothing_else() -> Result<()> {
    let users = Users::new(WINDOW)?;
    let items = forced_by_both_carriers(&users)?;
    let world = &users.world;
    for item in &items {
        let place = item.place.to_string();
        let made = users.proven(&["forced", &place], "forced.json")?;
        let BlockRef { height, hash } = item.block;
        let anchor = format!("bitcoin:{height}:{hash}");
        assert_eq!(made.json["anchors"], json!([anchor]));

        let known = users.verify("forced.json", &[&anchor])?;
        assert_eq!(known.verdict(), (Some(0), "proven"), "{}", known.error);
        assert_eq!((&known.json["what"], &known.json["leaf"]["place"]), (&json!("forced"), &json!(place)));
        assert_eq!(known.json["tx"], json!(item.tx.to_lower_hex_string()));
        let rests_on = json!([
            { "anchor": "manifest", "rollup_id": world.manifest.rollup_id() },
            { "anchor": "bitcoin", "height": height, "hash": hash }
        ]);
        assert_eq!(known.json["anchors"], rests_on);
        let header = bitcoin::consensus::encode::serialize_hex(&world.bitcoind.block(&hash)?.header);
        let known = users.verify("forced.json", &[&format!("bitcoin-header:{height}:{header}")])?;
        assert_eq!(known.verdict(), (Some(0), "proven"), "{}", known.error);

        let unknown = users.verify("forced.json", &[])?;
        assert_eq!(unknown.verdict(), (Some(1), "needs_anchor"));
        assert_eq!(unknown.json["option"], json!(format!("--anchor {anchor}")));
        // Work proves nothing on regtest: a later block says nothing about an earlier one.
        let later = format!("bitcoin:{}:{}", height + 2, world.bitcoind.block_hash(height + 2)?);
        assert_eq!(users.verify("forced.json", &[&later])?.verdict(), (Some(1), "needs_anchor"));
        let below = world.bitcoind.block_hash(height - 1)?;
        for (hash, reason) in [("0a".repeat(32), "other_branch"), (below.to_string(), "wrong_height")] {
            let wrong = users.verify("forced.json", &[&format!("bitcoin:{height}:{hash}")])?;
            assert_eq!((wrong.verdict(), &wrong.json["reason"]), ((Some(1), "refuted"), &json!(reason)));
        }

        let good = users.read("forced.json")?;
        let altered: [Alteration<'_>; 5] = [
            ("another rollup", &|file| file["rollup_id"] = json!("00".repeat(32)), "other_rollup"),
            ("another height", &|file| file["proof"]["headers"]["first_height"] = json!(height + 1), "not_in_headers"),
            (
                "another position",
                &|file| file["proof"]["place"] = json!(format!("{}:{}", place_without_position(item), 9)),
                "no_item",
            ),
            (
                "another transaction",
                &|file| {
                    let place = place.replace(&item.place.txid.to_string(), &format!("{:064x}", 7));
                    file["proof"]["place"] = json!(place);
                },
                "other_transaction",
            ),
            ("no branch", &|file| file["proof"]["inclusion"]["branch"] = json!([]), "unequal_branches"),
        ];
        for (what, alter, reason) in altered {
            let mut file = good.clone();
            alter(&mut file);
            users.write("altered.json", &file)?;
            let judged = users.verify("altered.json", &[&anchor])?;
            assert_eq!(
                (judged.verdict(), &judged.json["reason"]),
                ((Some(1), "refuted"), &json!(reason)),
                "{what}: {}",
                judged.error
            );
            assert!(judged.error.starts_with("refuted: "), "{what}: {}", judged.error);
        }
    }
    Ok(())
}

fn place_without_position(item: &Item) -> String {
    item.place.to_string().split(':').take(3).collect::<Vec<_>>().join(":")
}

#[test]
fn files_that_are_none_are_refused_and_files_that_are_there_not_overwritten() -> Result<()> {
    let users = Users::new(WINDOW)?;
    forced_by_both_carriers(&users)?;
    users.proven(&["consistent", "1", "3"], "file.json")?;
    let text = fs::read_to_string(users.world.path("file.json"))?;
    let table = [
        ("cut off", text[..text.len() / 2].to_owned()),
        ("empty", String::new()),
        ("another version", text.replace("\"version\": 1", "\"version\": 2")),
        ("an unknown type", text.replace("\"consistency\"", "\"inconsistency\"")),
        ("a field too many", text.replacen('{', "{\"more\": 1,", 1)),
    ];
    for (what, text) in table {
        fs::write(users.world.path("bad.json"), text)?;
        let judged = users.verify("bad.json", &[])?;
        assert_eq!(judged.verdict(), (Some(2), ""), "{what}: {}", judged.error);
    }
    assert_eq!(users.verify("nowhere.json", &[])?.code, Some(2));
    assert_eq!(users.verify("file.json", &["moon:7"])?.code, Some(2));
    let start = users.world.manifest.start;
    let contradiction = format!("bitcoin:{}:{}", start.height + 1, start.hash);
    assert_eq!(users.verify("file.json", &[&contradiction])?.code, Some(2));

    let mut again = users.command("data", &["prove", "consistent", "0", "3", "--out", "file.json"]);
    again.args(["--bitcoin-url", &users.world.bitcoind.rpc_url()]);
    again.arg("--bitcoin-cookie").arg(users.world.bitcoind.cookie());
    assert_eq!(Answer::of(&again.output()?).code, Some(4));
    assert_eq!(fs::read_to_string(users.world.path("file.json"))?, text);
    let left: Vec<_> = fs::read_dir(users.world.dir.path())?.flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".file.json")), "{left:?}");
    Ok(())
}

#[test]
fn an_executed_item_is_proven_by_its_block_and_the_queue_by_its_roots() -> Result<()> {
    let users = Users::new(WINDOW)?;
    let items = forced_by_both_carriers(&users)?;
    let follower = users.world.follower("follower")?;
    for item in &items {
        let made = users.proven(&["included", &item.place.to_string()], "included.json")?;
        let queued = follower.node.store().item_at(&item.place)?.context("the item")?;
        let number = queued.fate.context("executed")?.l2_number;
        let hash = follower.node.store().block(number)?.context("the block")?.head.hash;
        assert_eq!(made.json["anchors"], json!([format!("l2:{hash}")]));
        assert_eq!(users.verify("included.json", &[])?.verdict(), (Some(1), "needs_anchor"));
        let known = users.verify("included.json", &[&format!("l2:{hash}")])?;
        assert_eq!(known.verdict(), (Some(0), "proven"), "{}", known.error);
        assert_eq!((&known.json["level"], &known.json["index"]), (&json!("derived"), &json!(queued.index)));
        let mut altered = users.read("included.json")?;
        altered["proof"]["item"]["leaf"]["tx_hash"] = json!("07".repeat(32));
        users.write("altered.json", &altered)?;
        assert_eq!(users.verify("altered.json", &[&format!("l2:{hash}")])?.json["reason"], json!("inclusion_proof"));
    }
    let (parent, adopts) = adopting(&follower)?;
    let hash = |header: &L2Header| header.hash(&users.world.manifest.rollup_id());
    for (old, new) in [(0, 3), (1, 3), (2, 3), (3, 3)] {
        let sizes = [old.to_string(), new.to_string()];
        users.proven(&["consistent", &sizes[0], &sizes[1], "--roots-only"], "roots.json")?;
        let by_roots = users.verify("roots.json", &[])?;
        assert_eq!(by_roots.verdict(), (Some(0), "proven"), "{}", by_roots.error);
        assert_eq!((&by_roots.json["old_block"], &by_roots.json["new_block"]), (&Value::Null, &Value::Null));

        // Sizes 1 and 2 are no block's: the items came in one Bitcoin block, which is adopted whole.
        let old_block = match old {
            0 => follower.node.store().block(0)?.map(|block| block.head.header),
            3 => Some(adopts),
            _ => None,
        };
        let anchors: Vec<_> = old_block.iter().chain(&[adopts]).map(|header| format!("l2:{}", hash(header))).collect();
        let made = users.proven(&["consistent", &sizes[0], &sizes[1]], "consistent.json")?;
        let mut needed = anchors.clone();
        needed.dedup();
        assert_eq!(made.json["anchors"], json!(needed));
        let unknown = users.verify("consistent.json", &[])?;
        assert_eq!(unknown.verdict(), (Some(1), "needs_anchor"));
        assert_eq!(unknown.json["option"], json!(format!("--anchor {}", anchors[0])));
        let known = users.verify("consistent.json", &anchors.iter().map(String::as_str).collect::<Vec<_>>())?;
        assert_eq!(known.verdict(), (Some(0), "proven"), "{}", known.error);
        assert_eq!(known.json["new_block"], json!({ "number": adopts.number, "hash": hash(&adopts) }));
        let named = old_block.map(|header| json!({ "number": header.number, "hash": hash(&header) }));
        assert_eq!(known.json["old_block"], named.unwrap_or_default());
        let root = |size: usize| merkle_root(items[..size].iter().map(Item::leaf));
        assert_eq!(known.json["old"]["root"], json!(root(old)));
        assert_eq!(known.json["new"]["root"], json!(root(new)));
    }
    let mut altered = users.read("consistent.json")?;
    altered["proof"]["new_block"] = json!(SoftHeader(parent));
    users.write("altered.json", &altered)?;
    assert_eq!(users.verify("altered.json", &[&format!("l2:{}", hash(&adopts))])?.json["reason"], json!("other_queue"));
    altered["proof"]["old"]["root"] = json!("07".repeat(32));
    users.write("altered.json", &altered)?;
    assert_eq!(users.verify("altered.json", &[])?.json["reason"], json!("consistency_proof"));
    assert_eq!(users.prove(&["consistent", "3", "4"], "none.json")?.code, Some(1));
    assert_eq!(users.prove(&["consistent", "3", "2"], "none.json")?.code, Some(2));
    let nowhere = format!("{:064x}:in:0", 7);
    assert_eq!(users.prove(&["forced", &nowhere], "none.json")?.code, Some(1));
    assert!(!users.world.path("none.json").exists());
    Ok(())
}

#[test]
fn an_honest_sequencer_is_taken_at_its_word_and_never_convicted() -> Result<()> {
    let users = Users::new(Window { window: 30, max_lag: 20 })?;
    let world = &users.world;
    let mut wallet = world.wallet("alice", 1)?;
    let mut operator = world.sequencer(&[])?;
    let mouth = Mouth::open()?;
    let tx = world.transfer(&world.bob, &world.alice, 5, 0);
    operator.send(&tx)?;
    operator.tick()?;
    let forced = world.force(&mut wallet, &[world.transfer(&world.alice, &world.bob, 10, 0)], Carrier::OpReturn)?;
    world.bitcoind.mine(1)?;
    operator.tick()?;
    let before = mouth.repeat(&operator)?;

    let place = forced.place.to_string();
    let made = users.proven(&["included", &place, "--sequencer", &mouth.url], "claimed.json")?;
    assert_eq!(made.json["anchors"], json!([]));
    let known = users.verify("claimed.json", &[])?;
    assert_eq!((known.verdict(), &known.json["level"]), ((Some(0), "proven"), &json!("claimed")), "{}", known.error);
    assert_eq!(users.prove(&["included", &place], "derived.json")?.code, Some(1), "no block is derived");

    for number in 1..=before.len() {
        let nothing = users.prove(&["censored", &number.to_string(), "--sequencer", &mouth.url], "censored.json")?;
        assert_eq!(nothing.code, Some(1));
        assert!(nothing.error.contains("nothing is wrong"), "{}", nothing.error);
    }
    let Some(status @ TxStatus::Included { .. }) = operator.submit.status(&sha256(&tx))? else {
        anyhow::bail!("not included")
    };
    users.write("receipt.json", &json!(status))?;
    let kept = users.prove(&["broken-receipt", "receipt.json", "--sequencer", &mouth.url], "broken.json")?;
    assert_eq!(kept.code, Some(1));
    assert!(kept.error.contains("is kept"), "{}", kept.error);

    // Bitcoin goes from A to B and back to A: what was signed on one branch is signed anew on the other.
    let reorg = world.bitcoind.reorg(1)?;
    operator.tick()?;
    let after = mouth.repeat(&operator)?;
    let place_of = |block: &Value| (block["header"]["number"].clone(), block["header"]["parent"].clone());
    let is_signed = |block: &&Value| !block["signed"].is_null();
    let pairs = before.iter().filter(is_signed).flat_map(|one| {
        let others = after.iter().filter(is_signed).filter(|other| place_of(one) == place_of(other));
        others.filter(|other| one["hash"] != other["hash"]).map(move |other| (one, other))
    });
    let pairs: Vec<_> = pairs.collect();
    ensure!(!pairs.is_empty(), "nothing was signed anew");
    for (one, other) in pairs {
        users.write("first.json", one)?;
        users.write("second.json", other)?;
        let refused = users.prove(&["equivocation", "first.json", "second.json"], "equivocation.json")?;
        assert_eq!(refused.code, Some(1));
        assert!(refused.error.contains("after a reorg this is no fault"), "{}", refused.error);
        let header = |block: &Value| serde_json::from_value::<Signed<SoftHeader>>(block["signed"]["header"].clone());
        let proof = Equivocation { first: header(one)?, second: header(other)?, child_origin: None };
        let file = File { rollup_id: world.manifest.rollup_id(), proof: Proof::Equivocation(proof) };
        fs::write(world.path("by-hand.json"), file.to_json()?)?;
        let judged = users.verify("by-hand.json", &[])?;
        assert_eq!((judged.verdict(), &judged.json["reason"]), ((Some(1), "refuted"), &json!("unrelated_origins")));
    }
    world.bitcoind.flip_back(&reorg)?;
    operator.tick()?;
    for block in mouth.repeat(&operator)? {
        let number = block["header"]["number"].to_string();
        let nothing = users.prove(&["censored", &number, "--sequencer", &mouth.url], "censored.json")?;
        assert_eq!(nothing.code, Some(1), "{}", nothing.json);
    }
    assert!(!world.path("censored.json").exists() && !world.path("equivocation.json").exists());
    Ok(())
}

/// A derived block that adopts all three items at once, and its parent.
fn adopting(follower: &FollowerRig) -> Result<(L2Header, L2Header)> {
    let headers: Vec<_> = follower.node.store().blocks_from(0)?.iter().map(|block| block.head.header).collect();
    let pair = headers.windows(2).find(|pair| pair[1].queue_size == 3).context("a block that adopts the items")?;
    ensure!(pair[0].queue_size == 0, "{pair:?}");
    Ok((pair[0], pair[1]))
}

#[test]
fn what_a_hostile_sequencer_signs_becomes_a_file_that_convicts_it() -> Result<()> {
    let users = Users::new(WINDOW)?;
    let items = forced_by_both_carriers(&users)?;
    let (_, honest) = adopting(&users.world.follower("follower")?)?;
    let mouth = Mouth::open()?;
    let number = honest.number.to_string();
    let queue = |order: &[usize]| merkle_root(order.iter().map(|at| items[*at].leaf()));
    let lie = |change: &dyn Fn(&mut L2Header)| {
        let mut header = honest;
        change(&mut header);
        header
    };
    let with_queue = |order: &[usize]| {
        let (size, root) = (order.len() as u64, queue(order));
        lie(&|header| (header.queue_size, header.queue_root, header.forced_end) = (size, root, size))
    };
    let start = users.world.manifest.start;
    let with_content = |at: usize, tx_hash: Hash32| {
        let mut leaves: Vec<_> = items.iter().map(QueueLeaf::from).collect();
        leaves[at].tx_hash = tx_hash;
        lie(&|header| header.queue_root = merkle_root(leaves.iter().map(QueueLeaf::bytes)))
    };
    let own = [b"sold twice".to_vec()];
    let table: [(&str, L2Header, Option<usize>); 14] = [
        ("not_executed", lie(&|header| header.forced_end = 0), Some(0)),
        ("not_executed", lie(&|header| header.forced_end = 2), Some(2)),
        ("false_forced_end", lie(&|header| header.forced_end = 4), None),
        ("false_origin", lie(&|header| header.origin = start), None),
        ("left_out", with_queue(&[1, 2]), Some(0)),
        ("left_out", with_queue(&[0, 2]), Some(1)),
        ("left_out", with_queue(&[0, 1]), Some(2)),
        ("left_out", with_queue(&[2]), Some(0)),
        ("left_out", with_queue(&[]), Some(0)),
        ("out_of_order", with_queue(&[0, 2, 1]), None),
        ("out_of_order", with_queue(&[0, 1, 1, 2]), None),
        ("replaced", with_content(2, items[0].tx_hash()), Some(2)),
        ("replaced", with_content(0, sha256(&own[0])), Some(0)),
        ("replaced", with_content(1, Hash32([0; 32])), Some(1)),
    ];
    for (case, header, wronged) in table {
        mouth.say_block(honest.number, users.signed_answer(header, &own));
        users.proven(&["censored", &number, "--sequencer", &mouth.url], "censored.json")?;
        let judged = users.verify("censored.json", &[])?;
        assert_eq!((judged.verdict(), &judged.json["case"]), ((Some(0), "proven"), &json!(case)), "{}", judged.error);
        let place = wronged.map(|at| json!(items[at].place)).unwrap_or_default();
        assert_eq!(judged.json["item"]["place"], place, "{case}");
        assert_eq!(judged.json["signers"], json!([users.world.manifest.sequencers.keys()[0]]));

        // The same from a saved answer, when the sequencer has taken it back.
        users.write("saved.json", &users.signed_answer(header, &own))?;
        users.proven(&["censored", &number, "--blocks", "saved.json"], "saved-censored.json")?;
        let mut altered = users.read("censored.json")?;
        altered["proof"]["block"]["statement"]["timestamp"] = json!(7);
        users.write("altered.json", &altered)?;
        assert_eq!(users.verify("altered.json", &[])?.json["reason"], json!("bad_signature"), "{case}");
    }

    // More lies in one queue than can be guessed: what it has shown to somebody is enough.
    let foreign = QueueLeaf { tx_index: 9_999, tx_hash: Hash32([9; 32]), ..QueueLeaf::from(&items[2]) };
    let forged = QueueLeaf { tx_hash: Hash32([8; 32]), ..QueueLeaf::from(&items[0]) };
    let true_leaves: Vec<_> = items.iter().map(QueueLeaf::from).collect();
    type Told<'a> = (&'a str, &'a [QueueLeaf], &'a [u64], Option<usize>);
    let table: [Told<'_>; 6] = [
        ("replaced", &[forged, foreign], &[0], Some(0)),
        ("left_out", &[true_leaves[0], foreign, foreign], &[0, 1], Some(1)),
        ("left_out", &[foreign, true_leaves[0]], &[0], Some(0)),
        ("left_out", &[foreign, forged, true_leaves[1]], &[2], Some(2)),
        ("out_of_order", &[forged, foreign, foreign], &[1, 2], None),
        ("out_of_order", &[foreign, forged], &[1, 0], None),
    ];
    for (case, leaves, shown, wronged) in table {
        let tree: Tree = leaves.iter().map(|leaf| leaf_hash(&leaf.bytes())).collect();
        let TreeHead { size, root } = tree.head(leaves.len() as u64).context("its root")?;
        let header = lie(&|header| (header.queue_size, header.queue_root, header.forced_end) = (size, root, size));
        mouth.say_block(honest.number, users.signed_answer(header, &[]));
        let mut arguments = vec!["censored".to_owned(), number.clone(), "--sequencer".into(), mouth.url.clone()];
        let guessed = users.prove(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), "withheld.json")?;
        assert_eq!(guessed.verdict(), (Some(0), "needs_node"), "{case}: {}", guessed.error);
        for index in shown {
            let proof = tree.inclusion(*index, size).context("a leaf of it")?;
            let item = ProvenLeaf { index: *index, leaf: leaves[*index as usize], proof };
            let proof = Proof::Included(Included { item, block: users.sign(SoftHeader(header)) });
            let file = File { rollup_id: users.world.manifest.rollup_id(), proof };
            fs::write(users.world.path(&format!("shown-{index}.json")), file.to_json()?)?;
            arguments
                .extend(["--shown".to_owned(), users.world.path(&format!("shown-{index}.json")).display().to_string()]);
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        users.proven(&arguments, "censored.json")?;
        let judged = users.verify("censored.json", &[])?;
        assert_eq!((judged.verdict(), &judged.json["case"]), ((Some(0), "proven"), &json!(case)), "{}", judged.error);
        let place = wronged.map(|at| json!(items[at].place)).unwrap_or_default();
        assert_eq!(judged.json["item"]["place"], place, "{case}");
        mouth.say_block(honest.number, users.signed_answer(honest, &[]));
        let other = users.prove(&arguments, "nothing.json")?;
        assert!(other.code == Some(2) && other.error.contains("does not stand in block"), "{}", other.error);
    }

    // A queue of which nothing is known but the root.
    let withheld = lie(&|header| header.queue_root = Hash32([7; 32]));
    mouth.say_block(honest.number, users.signed_answer(withheld, &[]));
    let made = users.prove(&["censored", &number, "--sequencer", &mouth.url], "withheld.json")?;
    assert_eq!(made.verdict(), (Some(0), "needs_node"), "{}", made.error);
    let judged = users.verify("withheld.json", &[])?;
    assert_eq!((judged.verdict(), &judged.json["reason"]), ((Some(1), "needs_node"), &json!("leaves_withheld")));

    // Nothing to hold against it: an honest block, one that it did not sign, one that somebody else signed.
    let mut unsigned = users.signed_answer(honest, &[]);
    unsigned["signed"] = Value::Null;
    let mut forged = users.signed_answer(lie(&|header| header.forced_end = 0), &[]);
    forged["signed"]["header"]["signatures"] =
        users.signed_answer(honest, &[])["signed"]["header"]["signatures"].clone();
    for (said, reason) in [
        (users.signed_answer(honest, &[]), "nothing is wrong"),
        (unsigned, "is not signed"),
        (forged, "a signature is not valid"),
    ] {
        mouth.say_block(honest.number, said);
        let nothing = users.prove(&["censored", &number, "--sequencer", &mouth.url], "nothing.json")?;
        assert_eq!(nothing.code, Some(1), "{}", nothing.json);
        assert!(nothing.error.contains(reason), "{}", nothing.error);
    }
    assert!(!users.world.path("nothing.json").exists());
    Ok(())
}

#[test]
fn whoever_ruled_at_the_time_is_convicted_by_the_set_of_the_time() -> Result<()> {
    let users = Users::new(WINDOW)?;
    let world = &users.world;
    let mut wallet = world.wallet("operator", 3)?;
    let (second, third) = (Person::new(0x5f), Person::new(0x60));
    users.hand_over(&mut wallet, 0, &world.sequencer_key, &second)?;
    let items = forced_by_both_carriers(&users)?;
    users.hand_over(&mut wallet, 1, &second, &third)?;
    world.bitcoind.mine(1)?;
    let (_, honest) = adopting(&users.world.follower("follower")?)?;
    let number = honest.number.to_string();
    let mut lie = honest;
    lie.forced_end = 0;
    let mouth = Mouth::open()?;
    for (handovers, signer) in [(0, &world.sequencer_key), (1, &second), (2, &third)] {
        mouth.say_block(honest.number, users.signed_answer_as(lie, &[], handovers, signer));
        let made = users.proven(&["censored", &number, "--sequencer", &mouth.url], "censored.json")?;
        let key = signer.keypair.x_only_public_key().0;
        let anchors = match handovers {
            0 => vec![],
            _ => vec![format!("sequencers:{handovers}:1:{key}")],
        };
        assert_eq!(made.json["anchors"], json!(anchors));
        let known = users.verify("censored.json", &anchors.iter().map(String::as_str).collect::<Vec<_>>())?;
        assert_eq!(known.verdict(), (Some(0), "proven"), "{}", known.error);
        assert_eq!((&known.json["signers"], &known.json["item"]["place"]), (&json!([key]), &json!(items[0].place)));
        let Some(anchor) = anchors.first() else { continue };
        let unknown = users.verify("censored.json", &[])?;
        assert_eq!((unknown.verdict(), &unknown.json["anchor"]), ((Some(1), "needs_anchor"), &json!("sequencers")));
        let other = anchor.replace(&key.to_string(), &world.sequencer_key.keypair.x_only_public_key().0.to_string());
        let other = users.verify("censored.json", &[&other])?;
        assert_eq!((other.verdict(), &other.json["reason"]), ((Some(1), "refuted"), &json!("bad_signature")));

        // Signed for another number than its set's: nobody's signature.
        mouth.say_block(honest.number, users.signed_answer_as(lie, &[], handovers - 1, signer));
        let nothing = users.prove(&["censored", &number, "--sequencer", &mouth.url], "nothing.json")?;
        assert!(nothing.code == Some(1) && nothing.error.contains("not valid"), "{}", nothing.error);
    }
    Ok(())
}

#[test]
fn two_stories_and_a_broken_promise_convict_their_signer() -> Result<()> {
    let users = Users::new(WINDOW)?;
    let items = forced_by_both_carriers(&users)?;
    let (parent, header) = adopting(&users.world.follower("follower")?)?;
    let world = &users.world;
    let prove_pair = |what: &str, first: &Value, second: &Value| -> Result<Answer> {
        users.write("first.json", first)?;
        users.write("second.json", second)?;
        users.prove(&[what, "first.json", "second.json"], "evidence.json")
    };
    let convicted = |what: &str| -> Result<Value> {
        let judged = users.verify("evidence.json", &[])?;
        assert_eq!((judged.verdict(), &judged.json["what"]), ((Some(0), "proven"), &json!(what)), "{}", judged.error);
        assert_eq!(judged.json["signers"], json!([world.manifest.sequencers.keys()[0]]));
        Ok(judged.json)
    };
    let first = users.signed_answer(header, &[]);

    // At one Bitcoin block; at a block and its child; not at two that are further apart.
    let second = |change: &dyn Fn(&mut L2Header)| {
        let mut header = header;
        change(&mut header);
        users.signed_answer(header, &[])
    };
    assert_eq!(prove_pair("equivocation", &first, &second(&|header| header.timestamp += 1))?.code, Some(0));
    convicted("equivocation")?;
    let above = |n: u32| -> Result<BlockRef> {
        let height = header.origin.height + n;
        Ok(BlockRef { height, hash: world.bitcoind.block_hash(height)? })
    };
    let (child, grandchild) = (above(1)?, above(2)?);
    assert_eq!(prove_pair("equivocation", &second(&|header| header.origin = child), &first)?.code, Some(0));
    convicted("equivocation")?;
    let unrelated = prove_pair("equivocation", &first, &second(&|header| header.origin = grandchild))?;
    assert!(unrelated.code == Some(1) && unrelated.error.contains("no fault"), "{}", unrelated.error);
    assert_eq!(prove_pair("equivocation", &first, &first)?.code, Some(1));

    let mut other_state = first.clone();
    let state = SoftState { block: header.hash(&world.manifest.rollup_id()), state_root: Hash32([2; 32]) };
    other_state["signed"]["state"] = json!(users.sign(state));
    assert_eq!(prove_pair("conflicting-state", &first, &other_state)?.code, Some(0));
    assert_eq!(convicted("conflicting_state")?["state_roots"], json!([Hash32([1; 32]), Hash32([2; 32])]));
    assert_eq!(prove_pair("conflicting-state", &first, &first)?.code, Some(1));

    // Promised in two blocks: own transactions in the first, a forced section in the second.
    let own = [b"another".to_vec()];
    let mut before = parent;
    before.number = header.number;
    before.txs_root = merkle_root(&own);
    before.parent = parent.hash(&world.manifest.rollup_id());
    let mut last = header;
    (last.number, last.parent) = (before.number + 1, before.hash(&world.manifest.rollup_id()));
    let mouth = Mouth::open()?;
    mouth.say_block(before.number, users.signed_answer(before, &own));
    mouth.say_block(last.number, users.signed_answer(last, &[]));
    let promise = |tx_hash, last_number| -> Result<Answer> {
        let receipt = users.sign(Receipt { tx_hash, first_number: before.number, last_number });
        let said = json!({ "status": "included", "number": before.number, "block": tx_hash, "receipt": receipt });
        users.write("receipt.json", &said)?;
        users.prove(&["broken-receipt", "receipt.json", "--sequencer", &mouth.url], "evidence.json")
    };
    let broken = promise(sha256(b"promised"), last.number)?;
    assert_eq!(broken.verdict(), (Some(0), "proven"), "{}", broken.error);
    let facts = convicted("broken_receipt")?;
    assert_eq!(facts["receipt"]["tx_hash"], json!(sha256(b"promised")));
    for kept in [sha256(&own[0]), items[0].tx_hash(), items[2].tx_hash()] {
        let kept = promise(kept, last.number)?;
        assert!(kept.code == Some(1) && kept.error.contains("is kept"), "{}", kept.error);
    }
    let early = promise(sha256(b"promised"), last.number + 1)?;
    assert!(early.code == Some(1) && early.error.contains("not broken as far as can be seen"), "{}", early.error);
    Ok(())
}
