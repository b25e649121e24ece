//! `sortie status`: from whatever somebody has in hand to where it stands and what to do next.

mod next;

use super::wallet::open_to_look;
use crate::config::{Settings, WalletName};
use crate::failure::Failure;
use crate::follower::Reader;
use crate::input::{hex, hex_argument};
use crate::output::{Output, field};
use bitcoin::hashes::Hash;
use bitcoin::hex::FromHex;
use bitcoin::{Amount, Transaction, Txid};
use clap::Args;
use serde::Serialize;
use sortie::chain::Mempool;
use sortie::envelope::{Body, Carrier, Payload, scan_transaction};
use sortie::follower::{Lifecycle, Lifecycles, QueuedItem, TxStage};
use sortie::primitives::{BlockRef, Hash32, sha256};
use sortie::publish::{self, Job, JobId, Payer, PublishError};
use sortie::queue::{Item, Place, items_of};
use sortie::scanner::MempoolWatch;
use sortie::wallet::Wallet;
use std::collections::BTreeMap;
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
/// block that mines it, and is executed at the latest when Bitcoin reaches the due height: a sequencing window of
/// blocks later. One line for each L2 transaction that is meant.
///
/// Looks in the rollup's queue and among what was executed; then in the wallet's journal, if there is a wallet; then in
/// the mempool. Exit code 1, and a line that says where it was looked for, if nothing is known.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLE)]
pub struct Status {
    /// A job's number; TXID of a Bitcoin transaction; TXID:in:INDEX[:POSITION] or TXID:out:INDEX[:POSITION]; SHA256 of
    /// the L2 transaction, or the transaction itself in hexadecimal (`-` reads stdin, `@FILE` a file)
    #[arg(value_name = "JOB|TXID|PLACE|HASH|HEX")]
    typed: Typed,
    #[command(flatten)]
    wallet: WalletName,
}

/// What a status is asked for, as it is typed.
#[derive(Clone, Debug)]
enum Typed {
    What(What),
    /// The L2 transaction, wherever it is.
    Tx(String),
}

/// What a status is asked for.
#[derive(Clone, Copy, Debug)]
enum What {
    Job(JobId),
    Place(Place),
    /// 64 digits: a transaction id, which is shown reversed, or a hash, which is not.
    Hash {
        txid: Txid,
        tx_hash: Hash32,
    },
}

impl What {
    fn hash(bytes: [u8; 32]) -> Self {
        let mut reversed = bytes;
        reversed.reverse();
        Self::Hash { txid: Txid::from_byte_array(reversed), tx_hash: Hash32(bytes) }
    }
}

impl Typed {
    fn read(&self) -> Result<What, Failure> {
        match self {
            Self::What(what) => Ok(*what),
            Self::Tx(argument) => Ok(What::hash(sha256(&hex_argument(argument)?).0)),
        }
    }
}

impl FromStr for Typed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" || text.starts_with('@') {
            return Ok(Self::Tx(text.into()));
        }
        if text.contains(':') {
            let place = text.parse().map_err(|error: sortie::queue::BadPlace| error.to_string())?;
            return Ok(Self::What(What::Place(place)));
        }
        if let Ok(number) = text.parse() {
            return Ok(Self::What(What::Job(JobId(number))));
        }
        match <[u8; 32]>::from_hex(text) {
            Ok(bytes) => Ok(Self::What(What::hash(bytes))),
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
        }
    }
}

/// Runs the command.
pub fn run(status: &Status, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let what = status.typed.read()?;
    let reader = Reader::open(settings, out)?;
    let search = Search { reader: &reader, lifecycles: settings.lifecycles(reader.view())?, what };
    let mut found = search.queue()?;
    if found.is_empty() {
        let journal = status.journal(what, settings, out)?;
        let meant = journal.jobs.iter().filter(|job| is_meant(job, what));
        found = meant.map(|job| search.job(job, &journal)).collect::<Result<Vec<_>, _>>()?.concat();
        if found.is_empty() {
            found = search.mempool(out)?;
        }
        if found.is_empty() {
            return Err(search.unknown(&journal)?);
        }
    }
    // What is to be done about several in the same way is said once.
    for n in 1..found.len() {
        found[n - 1].is_told = found[n - 1].next != found[n].next;
    }
    found.iter().try_for_each(|standing| out.print(standing))
}

/// A wallet's jobs.
#[derive(Default)]
struct Journal {
    /// The wallet's name.
    wallet: String,
    jobs: Vec<Job>,
    /// What is at the envelopes of jobs that are closed.
    stranded: BTreeMap<JobId, Amount>,
    /// Set if they could not be looked at.
    why_not: Option<String>,
}

impl Journal {
    /// The job that forces again what this one was to.
    fn instead_of(&self, job: &Job) -> Option<JobId> {
        let is_instead = |other: &&Job| other.payload_hash == job.payload_hash && other.state.is_publishing();
        self.jobs.iter().find(is_instead).map(|other| other.id)
    }
}

impl Status {
    fn journal(&self, what: What, settings: &Settings, out: &Output) -> Result<Journal, Failure> {
        let is_needed = self.wallet.wallet.is_some() || matches!(what, What::Job(_));
        let dir = settings.wallet_dir(settings.network()?, &self.wallet)?;
        let wallet = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_needed && !Wallet::exists(&dir) {
            let why_not = Some(format!("there is no wallet {wallet}, whose journal might know it"));
            return Ok(Journal { wallet, why_not, ..Journal::default() });
        }
        match open_to_look(settings, &self.wallet, out) {
            Ok(opened) => {
                let jobs = publish::jobs(&opened)?;
                let stranded = jobs.iter().map(|job| Ok((job.id, publish::stranded(&opened, job)?)));
                let stranded = stranded.collect::<Result<_, PublishError>>()?;
                Ok(Journal { wallet, jobs, stranded, why_not: None })
            }
            Err(failure) if is_needed => Err(failure),
            Err(failure) => {
                let why_not = Some(format!("the journal of the wallet {wallet} was not looked at: {failure}"));
                Ok(Journal { wallet, why_not, ..Journal::default() })
            }
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

fn is_meant(job: &Job, what: What) -> bool {
    let carriers = || job.generations.iter().chain(&job.draft).filter_map(|generation| generation.carrier_tx());
    let signed = || {
        let generations = job.generations.iter().chain(&job.draft).flat_map(|generation| &generation.transactions);
        generations.chain(&job.reclaims).chain(&job.sweeps).map(Transaction::compute_txid)
    };
    // The payments to an address of ours are its commits.
    let payments = || carriers().flat_map(|tx| &tx.input).map(|input| input.previous_output.txid);
    match what {
        What::Job(id) => job.id == id,
        What::Place(place) => {
            let is_there = place.index == 0 && (place.position as usize) < txs_of(job).len();
            is_there && place.carrier == job.carrier && carriers().any(|tx| tx.compute_txid() == place.txid)
        }
        What::Hash { txid, tx_hash } => {
            signed().any(|signed| signed == txid)
                || (job.payer == Payer::Anywhere && payments().any(|paid| paid == txid))
                || job.payload_hash == tx_hash
                || txs_of(job).iter().any(|tx| sha256(tx) == tx_hash)
        }
    }
}

/// Where one thing is looked for.
struct Search<'a> {
    reader: &'a Reader,
    lifecycles: Lifecycles<'a>,
    what: What,
}

impl Search<'_> {
    fn standing(&self, life: Lifecycle, job: Option<&Job>) -> Result<Standing, Failure> {
        let view = self.reader.view();
        let tip = view.tip_height()?;
        let is_waiting = life.stage == TxStage::Mempool;
        let earliest_due_height = u64::from(tip) + 1 + u64::from(view.manifest().sequencing_window);
        Ok(Standing {
            next: next::of_life(&life, job, tip, &self.lifecycles)?,
            stands: Stands::Item(life),
            job: job.map(|job| job.id),
            earliest_due_height: is_waiting.then_some(earliest_due_height),
            is_told: true,
        })
    }

    fn forced(&self, items: &[QueuedItem], job: Option<&Job>) -> Result<Vec<Standing>, Failure> {
        items.iter().map(|item| self.standing(self.lifecycles.forced(item)?, job)).collect()
    }

    /// In the queue, and among what sequencers took.
    fn queue(&self) -> Result<Vec<Standing>, Failure> {
        let store = self.reader.view().store();
        match self.what {
            What::Job(_) => Ok(Vec::new()),
            What::Place(place) => self.forced(store.item_at(&place)?.as_slice(), None),
            What::Hash { txid, tx_hash } => {
                let mut found = self.forced(&store.items_of_transaction(&txid)?, None)?;
                for life in self.lifecycles.of_hash(&tx_hash)? {
                    found.push(self.standing(life, None)?);
                }
                Ok(found)
            }
        }
    }

    /// One job: its items in the queue, whichever of its transactions was mined; else in the mempool; else as the
    /// journal has it.
    fn job(&self, job: &Job, journal: &Journal) -> Result<Vec<Standing>, Failure> {
        let view = self.reader.view();
        let hashes: Vec<Hash32> = txs_of(job).iter().map(|tx| sha256(tx)).collect();
        // All of them, unless one is named.
        let is_asked_for = |position: u32, hash: Hash32| match self.what {
            What::Job(_) => true,
            What::Place(place) => place.position == position,
            What::Hash { tx_hash, .. } => tx_hash == hash || !hashes.contains(&tx_hash),
        };
        for generation in &job.generations {
            let Some(carrier) = generation.carrier_tx() else { continue };
            let mut items = view.store().items_of_transaction(&carrier.compute_txid())?;
            items.retain(|item| is_asked_for(item.item.place.position, item.item.tx_hash()));
            if !items.is_empty() {
                return self.forced(&items, Some(job));
            }
        }
        let is_ours = Payload::decode(&job.payload)
            .is_ok_and(|payload| payload.namespace == view.manifest().rollup_id().namespace());
        let is_sent = is_ours && !hashes.is_empty() && !job.generations.is_empty() && job.state.is_publishing();
        if let Some(place) = job.place().filter(|_| is_sent)
            && self.reader.source()?.is_waiting(&place.txid)?
        {
            let meant = (0..).zip(&hashes).filter(|(position, hash)| is_asked_for(*position, **hash));
            let lives = meant.map(|(position, hash)| Lifecycles::in_mempool(Place { position, ..place }, *hash));
            return lives.map(|life| self.standing(life, Some(job))).collect();
        }
        let stranded = journal.stranded.get(&job.id).copied().unwrap_or(Amount::ZERO);
        Ok(vec![Standing {
            next: match stranded {
                Amount::ZERO => next::of_job(job, journal.instead_of(job), is_ours, !hashes.is_empty()),
                held => {
                    format!("its envelope holds {} sat: `sortie reclaim {}` brings them back", held.to_sat(), job.id)
                }
            },
            stands: Stands::Job(Waiting { state: job.state.name(), place: job.place(), words: job.state.to_string() }),
            job: Some(job.id),
            earliest_due_height: None,
            is_told: true,
        }])
    }

    /// In the mempool: by the Bitcoin transaction; on a node also by the commit it spends, and by what it carries.
    fn mempool(&self, out: &Output) -> Result<Vec<Standing>, Failure> {
        let namespace = self.reader.view().manifest().rollup_id().namespace();
        let source = self.reader.source()?;
        let (txid, tx_hash) = match self.what {
            What::Job(_) => return Ok(Vec::new()),
            What::Place(place) => (place.txid, None),
            What::Hash { txid, tx_hash } => (txid, Some(tx_hash)),
        };
        let mut items: Vec<Item> = Vec::new();
        // With a transaction index the node also knows transactions of blocks that the follower has not read.
        if let (true, Some(transaction)) = (source.is_waiting(&txid)?, source.transaction(&txid)?) {
            let nowhere = BlockRef { height: 0, hash: bitcoin::BlockHash::all_zeros() };
            items = items_of(nowhere, &scan_transaction(&transaction, Some(namespace)));
            if let What::Place(place) = self.what {
                items.retain(|item| item.place == place);
            }
        }
        if let (true, Some(tx_hash), Some(node)) = (items.is_empty(), tx_hash, source.node()) {
            out.note("looking through the node's mempool");
            for unconfirmed in MempoolWatch::new(namespace).look(node, || true)? {
                let spends = |tx: Transaction| tx.input.iter().any(|input| input.previous_output.txid == txid);
                let reveals = node.transaction(&unconfirmed.txid)?.is_some_and(spends);
                items.extend(
                    unconfirmed.items.into_iter().filter(|item| {
                        item.tx_hash() == tx_hash || (reveals && item.place.carrier == Carrier::Taproot)
                    }),
                );
            }
        }
        items.iter().map(|item| self.standing(Lifecycles::in_mempool(item.place, item.tx_hash()), None)).collect()
    }

    /// That nothing is known, and where it was looked for.
    fn unknown(&self, journal: &Journal) -> Result<Failure, Failure> {
        let Self { reader, what, .. } = self;
        let wallet = &journal.wallet;
        if matches!(what, What::Job(_)) {
            return Ok(Failure::failed(format_args!(
                "there is no {what} in the journal of the wallet {wallet}; `sortie jobs` lists them"
            )));
        }
        let height = reader.view().tip_height()?;
        let mempool = match reader.source()?.node() {
            Some(_) => "the node's mempool",
            None => "the server's mempool, which is searched by Bitcoin transaction only",
        };
        let journal = match &journal.why_not {
            None => format!(", nor in the journal of the wallet {wallet}"),
            Some(why_not) => format!("; {why_not}"),
        };
        Ok(Failure::failed(format_args!(
            "nothing is known of {what}: it is neither in this rollup's queue nor executed up to Bitcoin block {height}, nor in {mempool}{journal}; it may have been replaced, or be of another rollup"
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
    Item(Lifecycle),
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
