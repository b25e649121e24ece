//! A rollup on a bitcoind regtest: what every flow starts from.

pub mod disk;
pub mod front;
pub mod hostile_paper;
pub mod money;
pub mod nodes;

use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::{Keypair, Secp256k1, SecretKey};
use bitcoin::{Amount, FeeRate, Network};
use regtest::Bitcoind;
use sortie::api::wire::TxStatus;
use sortie::chain::{Credentials, RpcNode};
use sortie::envelope::{Body, Carrier, Payload};
use sortie::executor::ledger::{Holding, Transfer, holding};
use sortie::follower::{DataDir, DerivedBlock, Follower, QueuedItem};
use sortie::manifest::Manifest;
use sortie::primitives::BtcHeight;
use sortie::publish::{CarrierChoice, Publication, RateTerms, Request, publish};
use sortie::sequencer::{Done, Policy, Sequencer, SequencerStore, Submit, Watermark};
use sortie::wallet::Wallet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// What a command said on stderr.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Nobody is asked for a rate on regtest, and nothing estimates one.
pub const RATE: RateTerms = RateTerms { network: Network::Regtest, explicit: None, fallback: None, target_blocks: 2 };

/// Satoshis that Alice and Bob have on L2 at genesis.
pub const GENESIS_BALANCE: u64 = 1_000_000;

/// Someone with an L2 account.
pub struct Person {
    pub keypair: Keypair,
}

impl Person {
    pub fn new(seed: u8) -> Self {
        let secret = SecretKey::from_slice(&[seed; 32]).expect("a small number is a valid key");
        Self { keypair: Keypair::from_secret_key(&Secp256k1::new(), &secret) }
    }

    pub fn account(&self) -> [u8; 32] {
        self.keypair.x_only_public_key().0.serialize()
    }
}

/// A bitcoind, a rollup on it, and the people who use it.
pub struct World {
    pub bitcoind: Bitcoind,
    pub dir: TempDir,
    pub window: Window,
    pub manifest: Manifest,
    pub alice: Person,
    pub bob: Person,
    pub sequencer_key: Person,
}

/// Length of the window, and how far own transactions may lag.
#[derive(Clone, Copy)]
pub struct Window {
    pub window: u16,
    pub max_lag: u16,
}

impl World {
    /// A fresh chain with a ledger rollup that starts at its tip.
    pub fn new(window: Window) -> Result<Self> {
        Self::on(Bitcoind::start()?, window)
    }

    /// The same on a node that was started already.
    pub fn on(bitcoind: Bitcoind, window: Window) -> Result<Self> {
        bitcoind.mine(120)?;
        let (alice, bob, sequencer_key) = (Person::new(0xa1), Person::new(0xb0), Person::new(0x5e));
        let manifest = manifest(&bitcoind, &window, [&alice, &bob], &sequencer_key)?;
        Ok(Self { bitcoind, dir: tempfile::tempdir()?, window, manifest, alice, bob, sequencer_key })
    }

    /// Makes the rollup anew, with the tip as its start.
    pub fn start_here(&mut self) -> Result<()> {
        self.manifest = manifest(&self.bitcoind, &self.window, [&self.alice, &self.bob], &self.sequencer_key)?;
        Ok(())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn rpc(&self) -> Result<RpcNode> {
        let cookie = Credentials::Cookie(self.bitcoind.cookie());
        Ok(RpcNode::connect(&self.bitcoind.rpc_url(), cookie, Network::Regtest)?)
    }

    /// A wallet with this many confirmed coins of a million satoshis each.
    pub fn wallet(&self, name: &str, coins: u32) -> Result<Wallet> {
        let (mut wallet, _) = Wallet::create(&self.path(name), Network::Regtest, self.bitcoind.height()?, None)?;
        for _ in 0..coins {
            let address = wallet.address()?;
            self.bitcoind.fund_and_mine(&address, Amount::from_sat(1_000_000))?;
            wallet.sync(&self.rpc()?)?;
        }
        Ok(wallet)
    }

    /// Opens (or opens again) a follower of its own.
    pub fn follower(&self, name: &str) -> Result<FollowerRig> {
        let rpc = self.rpc()?;
        let node = Follower::open(&DataDir::new(self.path(name), self.manifest.clone()), &rpc)?;
        let mut follower = FollowerRig { node, rpc };
        follower.sync()?;
        Ok(follower)
    }

    /// Opens (or opens again) the sequencer with its files.
    pub fn sequencer(&self, denied: &[&Person]) -> Result<Operator> {
        self.sequencer_with(|policy| policy.denied = denied.iter().map(|person| person.account().to_vec()).collect())
    }

    /// The same with another policy.
    pub fn sequencer_with(&self, change: impl FnOnce(&mut Policy)) -> Result<Operator> {
        self.sequencer_on("", "sequencer.key", change)
    }

    /// The same on a machine of its own: with the files that begin with `data`, and a key file, which is made if it
    /// is not there as `sortie ledger key` would.
    pub fn sequencer_on(&self, data: &str, key_file: &str, change: impl FnOnce(&mut Policy)) -> Result<Operator> {
        let wallet_dir = format!("{data}sequencer-wallet");
        let wallet = if Wallet::exists(&self.path(&wallet_dir)) {
            Wallet::open(&self.path(&wallet_dir), Network::Regtest)?
        } else {
            self.wallet(&wallet_dir, 1)?
        };
        let rpc = self.rpc()?;
        let node =
            Follower::open(&DataDir::new(self.path(&format!("{data}sequencer-node")), self.manifest.clone()), &rpc)?;
        let store = SequencerStore::open(&self.path(&format!("{data}sequencer.sqlite")))?;
        let mut policy = Policy::new(self.sequencer_key.keypair, 1, Network::Regtest);
        change(&mut policy);
        let sequencer = Sequencer::new(policy, node, rpc, wallet, store, self.watermark(key_file)?)?;
        Ok(Operator { submit: sequencer.submit(), sequencer, now: 0 })
    }

    /// The watermark of the sequencer's key.
    pub fn watermark(&self, key_file: &str) -> Result<Watermark> {
        let (key_file, key) = (self.path(key_file), self.sequencer_key.keypair.x_only_public_key().0);
        if !key_file.exists() {
            std::fs::write(&key_file, "in memory")?;
            Watermark::create(&key_file, key)?;
        }
        Ok(Watermark::open(&key_file, key)?)
    }

    /// A signed transfer of `amount` with a fee of 1 satoshi.
    pub fn transfer(&self, from: &Person, to: &Person, amount: u64, nonce: u64) -> Vec<u8> {
        let transfer = Transfer { from: from.account(), to: to.account(), amount, fee: 1, nonce };
        transfer.sign(&Secp256k1::new(), &self.manifest.rollup_id(), &from.keypair)
    }

    /// A payload of this rollup.
    pub fn payload(&self, body: Body) -> Result<Vec<u8>> {
        Ok(Payload { namespace: self.manifest.rollup_id().namespace(), body }.encode()?)
    }

    /// Sends transactions to Bitcoin, in one envelope if there are several; mines nothing.
    pub fn force(&self, wallet: &mut Wallet, txs: &[Vec<u8>], carrier: Carrier) -> Result<Publication> {
        let body = match txs {
            [tx] => Body::Tx(tx.clone()),
            txs => Body::Txs(txs.to_vec()),
        };
        let rpc = self.rpc()?;
        wallet.sync(&rpc)?;
        let request = Request {
            carrier: CarrierChoice::Only(carrier),
            again: true,
            ..Request::at(FeeRate::from_sat_per_vb(2).context("a rate")?)
        };
        Ok(publish(wallet, &rpc, &self.payload(body)?, &request)?)
    }
}

fn manifest(bitcoind: &Bitcoind, window: &Window, people: [&Person; 2], sequencer: &Person) -> Result<Manifest> {
    let Window { window, max_lag } = window;
    let sequencer = sequencer.account().to_lower_hex_string();
    let accounts = people.map(|person| {
        let account = person.account().to_lower_hex_string();
        format!("[[executor.accounts]]\naccount = '{account}'\nbalance = {GENESIS_BALANCE}\n")
    });
    let toml = format!(
        "name = 'world'\nnetwork = 'regtest'\nstart_height = {}\nstart_hash = '{}'\n\
         sequencing_window = {window}\nmax_lag = {max_lag}\nmax_forced_per_block = 10\n\
         [sequencers]\nkeys = ['{sequencer}']\n\
         [executor]\nkind = 'ledger'\nforced_cost_per_byte = 1\nfee_account = '{sequencer}'\n{}",
        bitcoind.height()?,
        bitcoind.tip()?,
        accounts.concat(),
    );
    Ok(Manifest::from_toml(&toml)?)
}

/// A follower with its connection.
pub struct FollowerRig {
    pub node: Follower,
    pub rpc: RpcNode,
}

impl FollowerRig {
    pub fn sync(&mut self) -> Result<()> {
        Ok(self.node.sync(&self.rpc, |_| ())?)
    }

    pub fn safe(&mut self) -> Result<DerivedBlock> {
        self.sync()?;
        Ok(self.node.heads(1)?.safe)
    }

    pub fn items(&mut self) -> Result<Vec<QueuedItem>> {
        self.sync()?;
        let size = self.node.derivation().tip().queue_size;
        Ok(self.node.store().items(0..size)?)
    }

    pub fn holding(&self, person: &Person) -> Holding {
        holding(self.node.state(), &person.account())
    }

    pub fn height(&self) -> BtcHeight {
        self.node.derivation().tip().block.height
    }
}

/// A sequencer whose clock the test turns.
pub struct Operator {
    pub sequencer: Sequencer,
    pub submit: Submit,
    pub now: u64,
}

impl Operator {
    /// One second of the sequencer's life.
    pub fn tick(&mut self) -> Result<Vec<Done>> {
        self.now += 1;
        let mut done = Vec::new();
        self.sequencer.tick(self.now, |what| done.push(what))?;
        Ok(done)
    }

    /// Ticks, and fails if a batch could not be posted.
    pub fn tick_well(&mut self) -> Result<Vec<Done>> {
        let done = self.tick()?;
        let failed = done.iter().find(|done| matches!(done, Done::PostingFailed(_)));
        ensure!(failed.is_none(), "{failed:?}");
        Ok(done)
    }

    /// What `POST /v1/tx` does.
    pub fn send(&self, tx: &[u8]) -> Result<TxStatus> {
        self.submit.submit(tx).map_err(|refusal| anyhow::anyhow!("{refusal}"))
    }

    pub fn status(&self) -> sortie::sequencer::Status {
        self.sequencer.status().read().expect("no tick panicked").clone()
    }
}

impl World {
    /// The command with this rollup, on its node.
    pub fn sortie(&self, arguments: &[&str]) -> Result<Command> {
        self.sortie_on(&self.bitcoind.rpc_url(), &self.bitcoind.cookie(), arguments)
    }

    /// The command with this rollup, on another node.
    pub fn sortie_on(&self, url: &str, cookie: &Path, arguments: &[&str]) -> Result<Command> {
        let manifest = self.path("rollup.toml");
        std::fs::write(&manifest, self.manifest.to_toml())?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_sortie"));
        // What is out of order here stays so.
        command.env("SORTIE_DATA_DIR", self.path("data")).env("SORTIE_PATIENCE", "0");
        command.args(["--network", "regtest", "--bitcoin-url", url, "--manifest"]);
        command.arg(&manifest).arg("--bitcoin-cookie").arg(cookie);
        command.args(arguments).current_dir(self.dir.path());
        Ok(command)
    }
}
