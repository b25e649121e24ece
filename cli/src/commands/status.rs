//! `sortie status`: from whatever somebody has in hand to where it stands and what to do next.

mod next;

use super::life::{Life, Stage, Teller, tip};
use super::wallet::open_to_look;
use crate::config::{Settings, WalletName};
use crate::failure::Failure;
use crate::follower::Reader;
use crate::input::{hex, hex_argument};
use crate::output::{Output, field};
use bitcoin::hashes::Hash;
use bitcoin::hex::FromHex;
use bitcoin::{Transaction, Txid};
use clap::Args;
use serde::Serialize;
use sortie::chain::Mempool;
use sortie::envelope::{Body, Carrier, Payload, scan_transaction};
use sortie::node::QueuedItem;
use sortie::primitives::{BlockRef, Hash32, sha256};
use sortie::publish::{self, Job, JobId, Payer};
use sortie::queue::{Item, Place, items_of};
use sortie::scanner::MempoolWatch;
use sortie::wallet::Wallet;
use std::fmt;
use std::str::FromStr;

const EXAMPLE: &str = "\
Examples:
  sortie status 3                  by job, as `sortie force` and `sortie jobs` number them
  sortie status 5f1e...c2          by a Bitcoin transaction: reveal, commit, one that was replaced
  sortie status 5f1e...c2          or by SHA256 of the L2 transaction
  sortie status 5f1e...c2:out:0    by place on Bitcoin
  sortie status @tx.hex            by the L2 transaction itself
  sortie status 3 --json | jq -r .state";

/// Tell how far a forced transaction has come, and what to do next
///
/// mempool -> confirmed(n) -> queued(index, due height) -> executed(L2 block, ok or no-op). It joins the queue in the
/// block that mines it, and is executed at the latest when Bitcoin reaches the due height: a sequencing window of blocks
/// later. One line for each L2 transaction that is meant.
///
/// Looks in the rollup's queue and among what was executed; then in the wallet's journal, if there is a wallet; then in
/// the mempool. Exit code 1, and a line that says where it was looked for, if nothing is known.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLE)]
pub struct Status {
    /// A job's number; TXID of a Bitcoin transaction; TXID:in:INDEX[:POSITION] or TXID:out:INDEX[:POSITION]; SHA256 of the L2
    /// transaction, or the transaction itself in hexadecimal (`-` reads stdin, `@FILE` a file)
    #[arg(value_name = "JOB|TXID|PLACE|HASH|HEX")]
    what: What,
    #[command(flatten)]
    wallet: WalletName,
}

/// What a status is asked for.
#[derive(Clone, Debug)]
enum What {
    Job(JobId),
    Place(Place),
    /// 64 digits: a transaction id, which is shown reversed, or a hash, which is not.
    Hash {
        txid: Txid,
        tx_hash: Hash32,
    },
    /// The L2 transaction, wherever it is.
    Tx(String),
}

impl What {
    fn hash(bytes: [u8; 32]) -> Self {
        let mut reversed = bytes;
        reversed.reverse();
        Self::Hash { txid: Txid::from_byte_array(reversed), tx_hash: Hash32(bytes) }
    }

    fn read(&self) -> Result<Self, Failure> {
        Ok(match self {
            Self::Tx(argument) => Self::hash(sha256(&hex_argument(argument)?).0),
            other => other.clone(),
        })
    }
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" || text.starts_with('@') {
            return Ok(Self::Tx(text.into()));
        }
        if text.contains(':') {
            return text.parse().map(Self::Place).map_err(|error: sortie::queue::BadPlace| error.to_string());
        }
        if let Ok(number) = text.parse() {
            return Ok(Self::Job(JobId(number)));
        }
        match <[u8; 32]>::from_hex(text) {
            Ok(bytes) => Ok(Self::hash(bytes)),
            Err(_) if text.len() > 64 && hex(text).is_ok() => Ok(Self::Tx(text.into())),
            Err(_) => {
                Err("expected a job's number, 64 hexadecimal digits of a transaction, a place such as TXID:in:0, \
                           or the L2 transaction: in hexadecimal, as @FILE, or - for stdin"
                    .into())
            }
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(id) => write!(f, "job {id}"),
            Self::Place(place) => place.fmt(f),
            Self::Hash { tx_hash, .. } => tx_hash.fmt(f),
            Self::Tx(argument) => argument.fmt(f),
        }
    }
}

/// Runs the command.
pub fn run(status: &Status, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let what = status.what.read()?;
    let reader = Reader::open(settings, out)?;
    let search = Search { reader: &reader, teller: Teller::new(reader.node(), settings)?, what: &what };
    let mut found = search.queue()?;
    let mut journal = String::new();
    if found.is_empty() {
        match status.journal(&what, settings, out)? {
            Ok((jobs, name)) => {
                let meant = jobs.iter().filter(|job| is_meant(job, &what));
                found = meant.map(|job| search.job(job)).collect::<Result<Vec<_>, _>>()?.concat();
                journal = format!("nor in the journal of the wallet {name}");
            }
            Err(why) => journal = why,
        }
    }
    if found.is_empty() && !matches!(what, What::Job(_)) {
        found = search.mempool(out)?;
    }
    if found.is_empty() {
        return Err(search.unknown(&journal)?);
    }
    // What is to be done about several in the same way is said once.
    for n in 1..found.len() {
        found[n - 1].is_told = found[n - 1].next != found[n].next;
    }
    found.iter().try_for_each(|standing| out.print(standing))
}

impl Status {
    /// The wallet's jobs and its name; or why they were not looked at.
    fn journal(
        &self,
        what: &What,
        settings: &Settings,
        out: &Output,
    ) -> Result<Result<(Vec<Job>, String), String>, Failure> {
        let is_needed = self.wallet.wallet.is_some() || matches!(what, What::Job(_));
        let dir = settings.wallet_dir(settings.network()?, &self.wallet)?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_needed && !Wallet::exists(&dir) {
            return Ok(Err(format!("and there is no wallet {name}, whose journal might know it")));
        }
        match open_to_look(settings, &self.wallet, out) {
            Ok(wallet) => Ok(Ok((publish::jobs(&wallet)?, name))),
            Err(failure) if is_needed => Err(failure),
            Err(failure) => Ok(Err(format!("and the journal of the wallet {name} was not looked at: {failure}"))),
        }
    }
}

/// The L2 transactions of a job.
fn txs_of(job: &Job) -> Vec<Vec<u8>> {
    match Payload::decode(&job.payload).map(|payload| payload.body) {
        Ok(Body::Tx(tx)) => vec![tx],
        Ok(Body::Txs(txs)) => txs,
        _ => Vec::new(),
    }
}

fn is_meant(job: &Job, what: &What) -> bool {
    let carriers = || job.generations.iter().chain(&job.draft).filter_map(|generation| generation.carrier_tx());
    let signed = || {
        let generations = job.generations.iter().chain(&job.draft).flat_map(|generation| &generation.transactions);
        generations.chain(&job.reclaims).chain(&job.sweeps).map(Transaction::compute_txid)
    };
    // The payments to an address of ours are its commits.
    let payments = || carriers().flat_map(|tx| &tx.input).map(|input| input.previous_output.txid);
    match what {
        What::Job(id) => job.id == *id,
        What::Place(place) => {
            let is_ours = place.carrier == job.carrier && place.index == 0;
            is_ours && carriers().any(|tx| tx.compute_txid() == place.txid)
        }
        What::Hash { txid, tx_hash } => {
            signed().any(|signed| signed == *txid)
                || (job.payer == Payer::Anywhere && payments().any(|paid| paid == *txid))
                || job.payload_hash == *tx_hash
                || txs_of(job).iter().any(|tx| sha256(tx) == *tx_hash)
        }
        What::Tx(_) => false,
    }
}

/// Where one thing is looked for.
struct Search<'a> {
    reader: &'a Reader,
    teller: Teller<'a>,
    what: &'a What,
}

impl Search<'_> {
    fn standing(&self, life: Life, job: Option<&Job>) -> Result<Standing, Failure> {
        let node = self.reader.node();
        let tip = tip(node)?;
        let is_waiting = life.state == Stage::Mempool;
        let earliest_due_height = u64::from(tip) + 1 + u64::from(node.manifest().sequencing_window);
        Ok(Standing {
            next: next::of_life(&life, job, tip, &self.teller),
            stands: Stands::Item(life),
            job: job.map(|job| job.id),
            earliest_due_height: is_waiting.then_some(earliest_due_height),
            is_told: true,
        })
    }

    fn forced(&self, items: &[QueuedItem], job: Option<&Job>) -> Result<Vec<Standing>, Failure> {
        items.iter().map(|item| self.standing(self.teller.forced(item)?, job)).collect()
    }

    /// In the queue, and among what sequencers took.
    fn queue(&self) -> Result<Vec<Standing>, Failure> {
        let store = self.reader.node().store();
        match self.what {
            What::Place(place) => self.forced(store.item_at(place)?.as_slice(), None),
            What::Hash { txid, tx_hash } => {
                let mut found = self.forced(&store.items_of_transaction(txid)?, None)?;
                found.extend(self.forced(&store.items_with_hash(tx_hash)?, None)?);
                for fate in store.own_txs_with_hash(tx_hash)? {
                    found.push(self.standing(self.teller.own(*tx_hash, fate)?, None)?);
                }
                Ok(found)
            }
            What::Job(_) | What::Tx(_) => Ok(Vec::new()),
        }
    }

    /// One job: its items in the queue, whichever of its transactions was mined; else in the mempool; else as the
    /// journal has it.
    fn job(&self, job: &Job) -> Result<Vec<Standing>, Failure> {
        let node = self.reader.node();
        for txid in
            job.generations.iter().filter_map(|generation| generation.carrier_tx()).map(Transaction::compute_txid)
        {
            let items = node.store().items_of_transaction(&txid)?;
            let meant: Vec<_> = items
                .into_iter()
                .filter(|item| self.is_asked_for(item.item.place.position, &item.item.tx, job))
                .collect();
            if !meant.is_empty() {
                return self.forced(&meant, Some(job));
            }
        }
        let is_ours = Payload::decode(&job.payload)
            .is_ok_and(|payload| payload.namespace == node.manifest().rollup_id().namespace());
        if let Some(place) = job.place().filter(|_| is_ours && job.state.is_publishing() && !job.generations.is_empty())
            && self.reader.source()?.is_waiting(&place.txid)?
        {
            let txs = txs_of(job);
            let meant = (0..).zip(&txs).filter(|(position, tx)| self.is_asked_for(*position, tx, job));
            let lives = meant.map(|(position, tx)| Teller::mempool(Place { position, ..place }, sha256(tx)));
            let found = lives.map(|life| self.standing(life, Some(job))).collect::<Result<Vec<_>, _>>()?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(vec![Standing {
            next: next::of_job(job, is_ours),
            stands: Stands::Job(Waiting { state: job.state.name(), place: job.place(), words: job.state.to_string() }),
            job: Some(job.id),
            earliest_due_height: None,
            is_told: true,
        }])
    }

    /// Whether this transaction of a job is meant: all of them are, unless one is named.
    fn is_asked_for(&self, position: u32, tx: &[u8], job: &Job) -> bool {
        match self.what {
            What::Place(place) => place.position == position,
            What::Hash { tx_hash, .. } if txs_of(job).iter().any(|tx| sha256(tx) == *tx_hash) => sha256(tx) == *tx_hash,
            _ => true,
        }
    }

    /// In the mempool: by the Bitcoin transaction; on a node also by the commit it spends, and by what it carries.
    fn mempool(&self, out: &Output) -> Result<Vec<Standing>, Failure> {
        let namespace = self.reader.node().manifest().rollup_id().namespace();
        let source = self.reader.source()?;
        let (txid, tx_hash) = match self.what {
            What::Place(place) => (place.txid, None),
            What::Hash { txid, tx_hash } => (*txid, Some(*tx_hash)),
            What::Job(_) | What::Tx(_) => return Ok(Vec::new()),
        };
        let mut items: Vec<Item> = Vec::new();
        // With a transaction index the node also knows transactions of blocks that the follower has not read.
        if let (true, Some(transaction)) = (source.is_waiting(&txid)?, source.transaction(&txid)?) {
            let nowhere = BlockRef { height: 0, hash: bitcoin::BlockHash::all_zeros() };
            items = items_of(nowhere, &scan_transaction(&transaction, Some(namespace)));
            if let What::Place(place) = self.what {
                items.retain(|item| item.place == *place);
            }
        }
        if let (true, Some(tx_hash), Some(node)) = (items.is_empty(), tx_hash, source.node()) {
            out.note("looking through the node's mempool");
            for unconfirmed in MempoolWatch::new(namespace).look(node)? {
                let spends = |tx: Transaction| tx.input.iter().any(|input| input.previous_output.txid == txid);
                let reveals = node.transaction(&unconfirmed.txid)?.is_some_and(spends);
                items.extend(
                    unconfirmed.items.into_iter().filter(|item| {
                        item.tx_hash() == tx_hash || (reveals && item.place.carrier == Carrier::Taproot)
                    }),
                );
            }
        }
        items.iter().map(|item| self.standing(Teller::mempool(item.place, item.tx_hash()), None)).collect()
    }

    /// That nothing is known, and where it was looked for.
    fn unknown(&self, journal: &str) -> Result<Failure, Failure> {
        let Self { reader, what, .. } = self;
        if matches!(what, What::Job(_)) {
            return Ok(Failure::failed(format_args!(
                "there is no {what} {}; `sortie jobs` lists them",
                journal.replacen("nor ", "", 1)
            )));
        }
        let height = tip(reader.node())?;
        let mempool = match reader.source()?.node() {
            Some(_) => "the node's mempool",
            None => "the server's mempool, which is searched by Bitcoin transaction only,",
        };
        Ok(Failure::failed(format_args!(
            "nothing is known of {what}: it is neither in this rollup's queue nor executed up to Bitcoin block {height}, nor in {mempool} {journal}; it may have been replaced, or be of another rollup"
        )))
    }
}

/// Where something stands, and what to do next.
#[derive(Clone, Serialize)]
struct Standing {
    #[serde(flatten)]
    stands: Stands,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<JobId>,
    /// Of what waits in the mempool: its due height, if the next block has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    earliest_due_height: Option<u64>,
    next: String,
    #[serde(skip)]
    is_told: bool,
}

#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Stands {
    /// An L2 transaction that Bitcoin or its mempool has.
    Item(Life),
    /// A job of which they have nothing.
    Job(Waiting),
}

#[derive(Clone, Serialize)]
struct Waiting {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<Place>,
    #[serde(skip)]
    words: String,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.stands, self.job) {
            (Stands::Item(life), None) => write!(f, "{life}")?,
            (Stands::Item(life), Some(job)) => write!(f, "job {job}  {life}")?,
            (Stands::Job(waiting), job) => write!(f, "job {}  {}", job.unwrap_or(JobId(0)), waiting.words)?,
        }
        if let Some(due) = self.earliest_due_height {
            write!(f, " -> due at {due} if the next block has it")?;
        }
        writeln!(f)?;
        match self.is_told {
            true => field(f, "next", &self.next),
            false => Ok(()),
        }
    }
}
