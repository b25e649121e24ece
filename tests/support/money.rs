//! What the flows of the money path share: a purse whose satoshis are counted, and the command.

use super::World;
use anyhow::{Context, Result, anyhow, ensure};
use bitcoin::bip32::{DerivationPath, Xpriv, Xpub};
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, FeeRate, Network, OutPoint, Transaction, Txid};
use serde_json::Value;
use sortie::chain::{Mempool, RpcNode};
use sortie::envelope::Carrier;
use sortie::publish::{CarrierChoice, Job, JobId, Publication, Request, job, publish};
use sortie::wallet::{Descriptors, Mnemonic, Search, Wallet};
use std::process::{Command, Output};

pub fn rate(sat_per_vb: u64) -> FeeRate {
    FeeRate::from_sat_per_vb(sat_per_vb).expect("a small number")
}

/// The first hundreds of addresses on a node: few wallets of tests have used more, and to search for all takes seconds.
pub fn near(rpc: &RpcNode) -> Search<'_> {
    Search { gap: Some(200), ..rpc.into() }
}

/// A payload that nobody has published before.
pub fn payload(world: &World, length: usize) -> Result<Vec<u8>> {
    let tx = (0..length).map(|n| (n * 7 + 3) as u8).collect();
    world.payload(sortie::envelope::Body::Tx(tx))
}

/// A master key that never comes near the wallet whose coins it signs for.
#[derive(Clone, Copy)]
pub struct Signer(pub Xpriv);

impl Signer {
    pub fn new(seed: u8) -> Result<Self> {
        Ok(Self(Xpriv::new_master(Network::Regtest, &[seed; 32])?))
    }

    /// The public key of an account as descriptors write it, for receive and change addresses.
    pub fn account(&self, path: &str) -> Result<String> {
        let secp = Secp256k1::new();
        let account = self.0.derive_priv(&secp, &path.parse::<DerivationPath>()?)?;
        Ok(format!("[{}/{path}]{}/<0;1>/*", self.0.fingerprint(&secp), Xpub::from_priv(&secp, &account)))
    }

    /// The PSBT with the signatures that this key can add.
    pub fn sign(&self, psbt: &Psbt) -> Result<Psbt> {
        let mut psbt = psbt.clone();
        psbt.sign(&self.0, &Secp256k1::new()).map_err(|(_, errors)| anyhow!("{errors:?}"))?;
        Ok(psbt)
    }
}

/// A wallet, its node, and what it had at first.
pub struct Purse {
    pub wallet: Wallet,
    pub words: Mnemonic,
    pub rpc: RpcNode,
    pub before: Amount,
}

impl Purse {
    /// A wallet with confirmed coins of these values.
    pub fn new(world: &World, name: &str, sats: &[u64]) -> Result<Self> {
        let made = Wallet::create(&world.path(name), Network::Regtest, world.bitcoind.height()?, None)?;
        Self::fill(world, made, sats)
    }

    /// A wallet that watches confirmed coins of these values.
    pub fn watching(world: &World, name: &str, descriptor: &str, sats: &[u64]) -> Result<Self> {
        let descriptors = Descriptors::parse(descriptor, None, Network::Regtest)?;
        let made =
            Wallet::watch_only(&world.path(name), Network::Regtest, &descriptors, None, None, near(&world.rpc()?))?;
        Self::fill(world, made, sats)
    }

    fn fill(world: &World, (mut wallet, words): (Wallet, Mnemonic), sats: &[u64]) -> Result<Self> {
        let rpc = world.rpc()?;
        for sat in sats {
            let address = wallet.address()?;
            world.bitcoind.fund_and_mine(&address, Amount::from_sat(*sat))?;
            wallet.sync(&rpc)?;
        }
        let before = wallet.balance().total();
        Ok(Self { wallet, words, rpc, before })
    }

    pub fn publish(&mut self, payload: &[u8], carrier: Carrier, sat_per_vb: u64) -> Result<Publication> {
        self.wallet.sync(&self.rpc)?;
        let request = Request { carrier: CarrierChoice::Only(carrier), ..Request::at(rate(sat_per_vb)) };
        Ok(publish(&mut self.wallet, &self.rpc, payload, &request)?)
    }

    /// The job as the chain shows it now.
    pub fn job(&mut self, id: JobId) -> Result<Job> {
        self.wallet.sync(&self.rpc)?;
        Ok(job(&self.wallet, id)?)
    }

    /// Fee and size of transactions as the mempool has them.
    pub fn in_pool(&self, txids: &[Txid]) -> Result<(Amount, u64)> {
        let mut sum = (Amount::ZERO, 0);
        for txid in txids {
            let entry = self.rpc.entry(txid)?.with_context(|| format!("{txid} is not in the mempool"))?;
            sum = (sum.0 + entry.fee, sum.1 + entry.vsize);
        }
        Ok(sum)
    }

    /// What is missing from what the wallet had at first.
    pub fn spent(&mut self) -> Result<Amount> {
        self.wallet.sync(&self.rpc)?;
        self.before.checked_sub(self.wallet.balance().total()).context("it became richer")
    }
}

/// A transaction as the mempool has it.
pub fn in_mempool(world: &World, txid: Txid) -> Result<bool> {
    Ok(world.bitcoind.mempool()?.contains(&txid))
}

impl World {
    /// What mined transactions pay: inputs less outputs.
    pub fn fees_of(&self, transactions: &[Transaction]) -> Result<Amount> {
        let mut fees = Amount::ZERO;
        for tx in transactions {
            for input in &tx.input {
                fees += self.value_of(input.previous_output)?;
            }
            fees -= tx.output.iter().map(|output| output.value).sum();
        }
        Ok(fees)
    }

    fn value_of(&self, outpoint: OutPoint) -> Result<Amount> {
        let mut height = self.bitcoind.height()?;
        loop {
            let block = self.bitcoind.block(&self.bitcoind.block_hash(height)?)?;
            if let Some(tx) = block.txdata.iter().find(|tx| tx.compute_txid() == outpoint.txid) {
                return Ok(tx.output[outpoint.vout as usize].value);
            }
            height = height.checked_sub(1).context("an output from nowhere")?;
        }
    }
}

/// The command `sortie` in a world.
pub struct Cli<'a> {
    world: &'a World,
    manifest: String,
}

impl<'a> Cli<'a> {
    pub fn new(world: &'a World) -> Result<Self> {
        let manifest = world.path("rollup.toml");
        std::fs::write(&manifest, world.manifest.to_toml())?;
        Ok(Self { world, manifest: manifest.display().to_string() })
    }

    /// Where a wallet's folder is.
    pub fn wallet_dir(name: &str) -> String {
        format!("data/regtest/wallets/{name}")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.for_people(arguments);
        command.arg("--json");
        command
    }

    /// The command as people use it.
    pub fn for_people(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sortie"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SORTIE_")) {
            command.env_remove(name);
        }
        // What is out of order here stays so.
        command.env("SORTIE_PATIENCE", "0");
        command
            .args(["--network", "regtest", "--manifest", &self.manifest])
            .arg("--data-dir")
            .arg(self.world.path("data"))
            .args(["--bitcoin-url", &self.world.bitcoind.rpc_url()])
            .arg("--bitcoin-cookie")
            .arg(self.world.bitcoind.cookie())
            .args(arguments)
            .current_dir(self.world.dir.path());
        command
    }

    /// Its answers, one JSON object a line.
    pub fn lines(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let output = self.command(arguments).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        answers(&output)
    }

    /// Its first answer.
    pub fn run(&self, arguments: &[&str]) -> Result<Value> {
        self.lines(arguments)?.into_iter().next().with_context(|| format!("{arguments:?}: no answer"))
    }

    /// Exit code and error line of a command that must fail.
    pub fn fails(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let output = self.command(arguments).output()?;
        ensure!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = said.lines().rfind(|line| line.contains("\"error\"")).context("no error line")?;
        let error = serde_json::from_str::<Value>(line)?["error"].as_str().context("an error")?.to_owned();
        Ok((output.status.code().context("a code")?, error))
    }
}

pub fn answers(output: &Output) -> Result<Vec<Value>> {
    let lines = std::str::from_utf8(&output.stdout)?.lines();
    Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
}
