//! What the chain and the node make of a publication: reorganisations, refusals, packages, two processes.

use crate::support::money::{Cli, Purse, in_mempool, near, payload, rate};
use crate::support::nodes::{Altered, NoPackages, Overtaken, Silent, TakesFirst};
use crate::support::{Window, World};
use anyhow::{Context, Result};
use bitcoin::{Amount, Network};
use regtest::Bitcoind;
use serde_json::{Value, json};
use sortie::chain::{Answer, Credentials, Mempool, RpcNode};
use sortie::envelope::Carrier;
use sortie::publish::{
    Backup, CarrierChoice, FINAL_DEPTH, Job, JobId, JobState, NotRelayed, Outcome, PublishError, Request, broadcast,
    events, job, jobs, prepare, publish, publish_telling, resume,
};
use sortie::wallet::{Caps, Mnemonic, Search, Wallet, WalletError};
use tempfile::TempDir;

const WINDOW: Window = Window { window: 30, max_lag: 20 };

fn kinds(purse: &Purse, job: JobId) -> Result<Vec<&'static str>> {
    kinds_of(&purse.wallet, job)
}

fn kinds_of(wallet: &Wallet, job: JobId) -> Result<Vec<&'static str>> {
    Ok(events(wallet, job)?.into_iter().map(|recorded| recorded.event.kind()).collect())
}

/// A wallet with a coin of 1,000,000 sat, and a node of its own that can be started anew.
struct Lone {
    dir: TempDir,
    node: Bitcoind,
    rpc: RpcNode,
    wallet: Wallet,
    words: Mnemonic,
}

/// What a node starts with that forgets its mempool when it is stopped.
const FORGETS: &str = "-persistmempool=0";

impl Lone {
    fn new(argument: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (node, rpc) = Self::start(&dir, argument)?;
        let (mut wallet, words) = Wallet::create(&dir.path().join("wallet"), Network::Regtest, 0, None)?;
        node.fund_and_mine(&wallet.address()?, Amount::from_sat(1_000_000))?;
        wallet.sync(&rpc)?;
        Ok(Self { dir, node, rpc, wallet, words })
    }

    fn start(dir: &TempDir, argument: &str) -> Result<(Bitcoind, RpcNode)> {
        let node = Bitcoind::options().datadir(dir.path().join("node")).arg(argument).start()?;
        let rpc = RpcNode::connect(&node.rpc_url(), Credentials::Cookie(node.cookie()), Network::Regtest)?;
        Ok((node, rpc))
    }

    fn restarted(self, argument: &str) -> Result<Self> {
        let Self { dir, node, wallet, words, .. } = self;
        node.stop()?;
        let (node, rpc) = Self::start(&dir, argument)?;
        Ok(Self { dir, node, rpc, wallet, words })
    }
}

#[test]
fn a_reorganisation_undoes_commit_and_reveal_and_they_confirm_again() -> Result<()> {
    let world = World::new(WINDOW)?;
    for carrier in [Carrier::OpReturn, Carrier::Taproot] {
        let mut purse = Purse::new(&world, &format!("{carrier:?}"), &[1_000_000])?;
        let done = purse.publish(&payload(&world, 200)?, carrier, 2)?;
        world.bitcoind.mine(1)?;
        let first = purse.job(done.job)?.state.confirmed().context("confirmed")?;
        assert_eq!((first.height, first.hash), (world.bitcoind.height()?, world.bitcoind.tip()?));

        // Two empty blocks instead; the node has forgotten the transactions, too.
        world.bitcoind.reorg(1)?;
        assert_eq!(purse.job(done.job)?.state, JobState::RevealSent);
        let resumed = resume(&mut purse.wallet, &purse.rpc)?;
        assert!(matches!(resumed[0].outcome, Outcome::InPlace), "{resumed:?}");
        world.bitcoind.mine(1)?;
        let second = purse.job(done.job)?.state.confirmed().context("confirmed again")?;
        assert_eq!(second.height, first.height + 2);
        assert_eq!(purse.spent()?, done.fee);
        let log = kinds(&purse, done.job)?;
        assert_eq!(log[log.len() - 3..], ["confirmed", "undone", "confirmed"], "{log:?}");
    }
    Ok(())
}

#[test]
fn commit_and_reveal_of_two_blocks_are_undone_and_sent_again_to_a_node_that_forgot_them() -> Result<()> {
    let mut lone = Lone::new(FORGETS)?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(3)) };
    let done = publish(&mut lone.wallet, &lone.rpc, &[7; 500], &request)?;
    for txid in &done.txids {
        lone.node.mine_block_with(std::slice::from_ref(txid))?;
    }
    lone.wallet.sync(&lone.rpc)?;
    assert!(matches!(job(&lone.wallet, done.job)?.state, JobState::Confirmed(_)));

    lone.node.reorg(2)?;
    lone = lone.restarted(FORGETS)?;
    assert!(lone.node.mempool()?.is_empty(), "it has forgotten them");
    lone.wallet.sync(&lone.rpc)?;
    assert_eq!(job(&lone.wallet, done.job)?.state, JobState::RevealSent);
    let resumed = resume(&mut lone.wallet, &lone.rpc)?;
    assert!(
        matches!(&resumed[0].outcome, Outcome::Sent(sent) if *sent == done.txids),
        "the same bytes, both: {resumed:?}"
    );
    lone.node.mine(1)?;
    lone.wallet.sync(&lone.rpc)?;
    assert!(matches!(job(&lone.wallet, done.job)?.state, JobState::Confirmed(_)));
    assert_eq!(lone.wallet.balance().total(), Amount::from_sat(1_000_000) - done.fee, "paid once");
    lone.node.stop()?;
    Ok(())
}

#[test]
fn a_job_is_final_after_so_many_blocks_and_not_one_earlier() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let done = purse.publish(&payload(&world, 200)?, Carrier::OpReturn, 2)?;
    world.bitcoind.mine(FINAL_DEPTH - 1)?;
    assert!(matches!(purse.job(done.job)?.state, JobState::Confirmed(_)));
    world.bitcoind.mine(1)?;
    assert!(matches!(purse.job(done.job)?.state, JobState::Final(_)));
    assert_eq!(kinds(&purse, done.job)?, ["planned", "signed", "reveal_sent", "confirmed", "final"]);
    Ok(())
}

#[test]
fn what_the_node_has_already_is_sent() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(2)) };
    let prepared = prepare(&mut purse.wallet, &purse.rpc, &payload(&world, 200)?, &request)?;
    // They came there by another way.
    for tx in &prepared.generations[0].transactions {
        world.bitcoind.send(tx)?;
    }
    let transactions = &prepared.generations[0].transactions;
    let (commit, reveal) = (&transactions[..1], &transactions[1..]);
    for known in [transactions, commit, reveal] {
        let tested = purse.rpc.test_accept(known, rate(100))?;
        let submitted = purse.rpc.submit(known, rate(100))?;
        assert_eq!(tested[0].answer, Answer::Known, "and the node looks at nothing behind it");
        assert!(tested.iter().all(|verdict| verdict.answer.is_ok()), "{tested:?}");
        assert!(submitted.iter().all(|verdict| verdict.answer.is_ok()), "{submitted:?}");
    }
    let sent = broadcast(&mut purse.wallet, &Altered(&purse.rpc, Overtaken), prepared.id)?;
    assert_eq!(sent.state, JobState::RevealSent);
    world.bitcoind.mine(1)?;
    // In the chain, and the wallet has not looked yet.
    let verdicts = purse.rpc.submit(&transactions[..1], rate(100))?;
    assert!(!verdicts.is_empty());
    let again = publish(&mut purse.wallet, &purse.rpc, &payload(&world, 200)?, &request)?;
    assert!(again.resumed);
    assert!(matches!(purse.job(prepared.id)?.state, JobState::Confirmed(_)));
    Ok(())
}

#[test]
fn a_refusal_gives_the_job_up_and_frees_its_coins() -> Result<()> {
    // Its node relays less than those of its version do.
    let Lone { dir, node, rpc, mut wallet, words } = Lone::new("-datacarriersize=83")?;
    let coins = wallet.coins()?;
    let mut twin = Wallet::restore(&dir.path().join("twin"), Network::Regtest, words, None, near(&rpc))?;

    let by = |carrier| Request { carrier: CarrierChoice::Only(carrier), ..Request::at(rate(2)) };
    let error = publish(&mut wallet, &rpc, &[7; 200], &by(Carrier::OpReturn)).expect_err("too long for this node");
    assert!(matches!(&error, PublishError::NotRelayed { why: NotRelayed::NodeSays { limit: 83, .. }, .. }), "{error}");
    assert!(jobs(&wallet)?.is_empty(), "nothing was planned");
    let error = publish(&mut wallet, &Altered(&rpc, Silent), &[7; 200], &by(Carrier::OpReturn));
    let error = error.expect_err("too long for this node, which does not say so");
    assert!(error.to_string().ends_with("the way that is left is `--carrier taproot`"), "{error}");
    let PublishError::Refused { job: refused, reason, .. } = error else { panic!("{error}") };
    assert!(reason.contains("datacarrier"), "{reason}");
    assert_eq!(kinds_of(&wallet, refused)?, ["planned", "signed", "abandoned"]);
    assert!(node.mempool()?.is_empty());
    assert_eq!(wallet.coins()?, coins, "free again");
    assert!(resume(&mut wallet, &rpc)?.is_empty(), "nothing is unfinished");

    // The coin is already being spent elsewhere, at a higher rate, and this wallet has not looked.
    let taken = publish(&mut twin, &rpc, &[8; 200], &Request::at(rate(20)))?;
    let error = publish(&mut wallet, &rpc, &[7; 200], &by(Carrier::Taproot)).expect_err("spent");
    assert!(matches!(error, PublishError::Wallet(WalletError::SpentElsewhere { .. })), "{error}");
    assert_eq!(jobs(&wallet)?.len(), 1);
    node.mine(1)?;
    wallet.sync(&rpc)?;
    let done = publish(&mut wallet, &rpc, &[7; 200], &by(Carrier::Taproot))?;
    assert!(!done.resumed, "what was given up is no obstacle");
    node.mine(1)?;
    wallet.sync(&rpc)?;
    assert_eq!(wallet.balance().total(), Amount::from_sat(1_000_000) - taken.fee - done.fee);
    node.stop()?;
    Ok(())
}

#[test]
fn what_was_taken_in_part_is_not_given_up() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let rpc = world.rpc()?;
    // The package's rate is the commit's, too: it enters the mempool alone.
    let (node, payload) = (Altered(&rpc, TakesFirst), payload(&world, 200)?);
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(1)) };
    let mut told = None;
    let signed = |job: &Job| told = Backup::of(job);
    let error = publish_telling(&mut purse.wallet, &node, &payload, &request, signed).expect_err("refused in part");
    assert!(matches!(error, PublishError::Stuck { .. }), "{error}");
    assert_eq!(world.bitcoind.mempool()?.len(), 1, "the commit");
    let error = publish(&mut purse.wallet, &node, &payload, &request).expect_err("the same job");
    assert!(matches!(error, PublishError::Stuck { .. }), "{error}");
    let done = purse.publish(&payload, Carrier::Taproot, 1)?;
    assert!(done.resumed);
    assert_eq!(done.backup, told, "told before anything left");
    world.bitcoind.mine(1)?;
    assert!(matches!(purse.job(done.job)?.state, JobState::Confirmed(_)));
    assert_eq!(purse.spent()?, done.fee, "paid once");
    assert_eq!(world.follower("follower")?.items()?.len(), 1);
    Ok(())
}

#[test]
fn a_double_spend_in_the_chain_ends_the_job() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(2)) };
    // Two journals with one seed: the second does not know what the first does.
    let (words, birthday) = (purse.words.clone(), purse.wallet.birthday());
    let mut other = Wallet::restore(&world.path("other"), Network::Regtest, words, None, near(&purse.rpc))?;
    assert!(birthday <= other.birthday());
    other.sync(&purse.rpc)?;
    let prepared = prepare(&mut purse.wallet, &purse.rpc, &payload(&world, 200)?, &request)?;
    let taken = publish(&mut other, &purse.rpc, &payload(&world, 201)?, &Request::at(rate(20)))?;
    let refused = broadcast(&mut purse.wallet, &purse.rpc, prepared.id).expect_err("its coin is spent");
    assert!(matches!(refused, PublishError::Stuck { .. }), "{refused}");
    // Until that is buried, a reorganisation may make it valid again.
    for blocks in [1, 4] {
        world.bitcoind.mine(blocks)?;
        purse.wallet.sync(&purse.rpc)?;
        let resumed = resume(&mut purse.wallet, &purse.rpc)?;
        assert!(matches!(resumed[0].outcome, Outcome::Failed(PublishError::Stuck { .. })), "{resumed:?}");
        assert_eq!(job(&purse.wallet, prepared.id)?.state, JobState::Signed);
    }
    world.bitcoind.mine(1)?;
    purse.wallet.sync(&purse.rpc)?;
    let resumed = resume(&mut purse.wallet, &purse.rpc)?;
    assert!(matches!(resumed[0].outcome, Outcome::Failed(PublishError::Lost { .. })), "{resumed:?}");
    assert!(matches!(job(&purse.wallet, prepared.id)?.state, JobState::Abandoned(_)));
    assert_eq!(purse.spent()?, taken.fee, "the other's payment, and nothing else");
    Ok(())
}

#[test]
fn without_package_relay_the_commit_pays_enough_and_leaves_alone() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let rpc = world.rpc()?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(5)) };
    let done = publish(&mut purse.wallet, &Altered(&rpc, NoPackages), &payload(&world, 500)?, &request)?;
    let commit = purse.rpc.entry(&done.txids[0])?.context("the commit")?;
    assert_eq!(commit.fee, sortie::wallet::fee_for(rate(5), commit.vsize), "it needs nobody's help");
    assert!(in_mempool(&world, done.txids[1])?);
    assert_eq!(kinds(&purse, done.job)?, ["planned", "signed", "commit_sent", "reveal_sent"]);
    world.bitcoind.mine(1)?;
    assert_eq!(purse.spent()?, done.fee);
    Ok(())
}

#[test]
fn a_floor_above_the_commits_rate_counts_for_the_package() -> Result<()> {
    let mut lone = Lone::new(FORGETS)?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(8)) };
    let prepared = prepare(&mut lone.wallet, &lone.rpc, &[7; 500], &request)?;

    // Since it was signed, the floor has risen above the commit's 1 sat/vB.
    lone = lone.restarted("-minrelaytxfee=0.00005")?;
    assert_eq!(lone.rpc.relay()?.floor, rate(5));
    let tested = lone.rpc.test_accept(&prepared.generations[0].transactions, rate(1_000))?;
    assert!(!tested[0].answer.is_ok(), "the commit alone is below the floor: {tested:?}");
    let sent = broadcast(&mut lone.wallet, &lone.rpc, prepared.id)?;
    assert_eq!(sent.state, JobState::RevealSent);
    assert_eq!(lone.node.mempool()?.len(), 2, "the package's rate counts");

    // Where not even the package's rate suffices, it is refused, and said so.
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(2)) };
    let error = publish(&mut lone.wallet, &lone.rpc, &[8; 500], &request).expect_err("below the floor");
    assert!(matches!(error, PublishError::BelowFloor { .. }), "{error}");
    assert_eq!(jobs(&lone.wallet)?.len(), 1);
    lone.node.stop()?;
    Ok(())
}

#[test]
fn two_processes_on_one_wallet_the_second_is_told_so() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let wallet = world.wallet(&Cli::wallet_dir("default"), 1)?;
    let tx = "00".repeat(40);
    for arguments in
        [&["force", tx.as_str(), "--unchecked"][..], &["jobs"], &["bump", "1", "--fee-rate", "9"], &["resume"]]
    {
        let (code, error) = cli.fails(arguments)?;
        assert_eq!(code, 1, "{error}");
        assert!(error.contains("in use by another process"), "{error}");
    }
    assert!(world.bitcoind.mempool()?.is_empty());
    drop(wallet);
    cli.run(&["force", &tx, "--unchecked"])?;
    Ok(())
}

#[test]
fn jobs_tells_the_story_and_bump_the_new_place() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    drop(world.wallet(&Cli::wallet_dir("default"), 1)?);
    let tx = "07".repeat(300);
    let forced = cli.run(&["force", &tx, "--unchecked", "--fee-rate", "2", "--carrier", "taproot"])?;
    let bumped = cli.run(&["bump", "1", "--fee-rate", "10"])?;
    assert_eq!((&bumped["how"], &bumped["replaced"]), (&"replaced".into(), &forced["txids"][1]));
    assert_eq!(bumped["place_before"], forced["place"]);
    let (code, error) = cli.fails(&["bump", "1", "--fee-rate", "50", "--max-fee", "5000"])?;
    assert!(code == 4 && error.contains("--max-fee"), "{error}");
    // The same `force` once more: the same job, at its new place, and nothing paid.
    let again = cli.run(&["force", &tx, "--unchecked", "--fee-rate", "2", "--carrier", "taproot"])?;
    assert_eq!((&again["resumed"], &again["place"]), (&true.into(), &bumped["place"]));
    assert!(again["quote"].is_null(), "no plan where nothing is paid: {again}");
    world.bitcoind.mine(1)?;
    let nowhere = ["jobs", "--esplora-url", "http://127.0.0.1:1"];
    let old = cli.command(&nowhere).output()?;
    let said = String::from_utf8(old.stderr)?;
    assert!(said.contains("as of block") && said.contains("could not be asked"), "{said}");
    assert_eq!(serde_json::from_slice::<Value>(&old.stdout)?["state"], "reveal_sent");
    let list = cli.lines(&["jobs"])?;
    assert_eq!(list.len(), 1);
    assert_eq!((&list[0]["state"], &list[0]["place"]), (&"confirmed".into(), &bumped["place"]));
    assert_eq!(list[0]["fee_sat"], bumped["fee_sat"]);
    let story = cli.lines(&["jobs", "1"])?;
    let kinds: Vec<_> = story[1..].iter().filter_map(|event| event["kind"].as_str()).collect();
    assert_eq!(kinds, ["planned", "signed", "commit_sent", "reveal_sent", "signed", "reveal_sent", "confirmed"]);
    let shown = String::from_utf8(cli.for_people(&["jobs", "1"]).output()?.stdout)?;
    for label in ["commit", "reveal"] {
        assert!(shown.lines().any(|line| line.starts_with(&format!("{label}  "))), "{shown}");
    }
    assert!(shown.contains("paid by this wallet") && shown.lines().all(|line| line == line.trim_end()), "{shown}");
    let (code, error) = cli.fails(&["jobs", "2"])?;
    assert!(code == 2 && error.contains("no job 2"), "{error}");
    assert!(
        !job(&Wallet::open(&world.path(&Cli::wallet_dir("default")), Network::Regtest)?, sortie::publish::JobId(1))?
            .generations
            .is_empty()
    );
    Ok(())
}

#[test]
fn what_a_publication_is_paid_from_is_sent_again_with_it() -> Result<()> {
    let mut lone = Lone::new(FORGETS)?;
    let first =
        lone.wallet.send(&lone.rpc, &Bitcoind::anyone_address(), Amount::from_sat(9_000), rate(2), &Caps::default())?;
    let second =
        lone.wallet.send(&lone.rpc, &Bitcoind::anyone_address(), Amount::from_sat(9_001), rate(2), &Caps::default())?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(3)) };
    let done = publish(&mut lone.wallet, &lone.rpc, &[7; 500], &request)?;
    assert_eq!(lone.node.mempool()?.len(), 4);

    lone = lone.restarted(FORGETS)?;
    assert!(lone.node.mempool()?.is_empty(), "it has forgotten them");
    lone.wallet.sync(&lone.rpc)?;
    let resumed = resume(&mut lone.wallet, &lone.rpc)?;
    let all = [vec![first.txid, second.txid], done.txids].concat();
    assert!(matches!(&resumed[0].outcome, Outcome::Sent(sent) if *sent == all), "{resumed:?}");
    assert_eq!(lone.node.mempool()?.len(), 4);
    lone.node.mine(1)?;
    lone.wallet.sync(&lone.rpc)?;
    assert!(matches!(job(&lone.wallet, done.job)?.state, JobState::Confirmed(_)));
    lone.node.stop()?;
    Ok(())
}

#[test]
fn what_others_pay_to_our_change_addresses_is_not_spent_before_it_is_mined() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let sent = purse.wallet.send(
        &purse.rpc,
        &Bitcoind::anyone_address(),
        Amount::from_sat(9_000),
        rate(2),
        &Caps::default(),
    )?;
    let change = purse.rpc.transaction(&sent.txid)?.context("it waits")?.output[1].clone();
    purse.wallet.sync(&purse.rpc)?;
    assert_eq!(purse.wallet.coins()?.len(), 1, "our own change is spent at once");
    world.bitcoind.mine(1)?;
    let address = bitcoin::Address::from_script(&change.script_pubkey, Network::Regtest)?;
    let paid = world.bitcoind.fund(&address, Amount::from_sat(700_000))?;
    purse.wallet.sync(&purse.rpc)?;
    assert!(purse.wallet.coins()?.iter().all(|coin| coin.outpoint != paid), "who sent it may take it back");
    world.bitcoind.mine(1)?;
    purse.wallet.sync(&purse.rpc)?;
    assert!(purse.wallet.coins()?.iter().any(|coin| coin.outpoint == paid));
    Ok(())
}

/// Pays to addresses of a wallet far beyond those that were handed out.
fn paid_far_out(world: &World, wallet: &Wallet, indices: &[u32]) -> Result<Amount> {
    let paid = Amount::from_sat(50_000);
    let [_, descriptor] = wallet.descriptors().texts();
    for index in indices {
        let found = world.bitcoind.call("deriveaddresses", &[json!(descriptor), json!([index, index])])?;
        let address = found[0].as_str().context("an address")?.parse::<bitcoin::Address<_>>()?.assume_checked();
        world.bitcoind.fund_and_mine(&address, paid)?;
    }
    Ok(paid * indices.len() as u64)
}

#[test]
fn coins_far_beyond_the_first_addresses_are_restored() -> Result<()> {
    let world = World::new(WINDOW)?;
    // The only coin after so many batches; and one that shows that there may be more of them.
    for (name, indices) in [("only", &[1_300][..]), ("more", &[600, 1_300])] {
        let purse = Purse::new(&world, name, &[])?;
        let paid = paid_far_out(&world, &purse.wallet, indices)?;
        let words = purse.words.clone();
        let restored = world.path(&format!("{name}-restored"));
        let search = Search { gap: Some(1_300), ..Search::from(&purse.rpc) };
        let mut restored = Wallet::restore(&restored, Network::Regtest, words, None, search)?;
        assert_eq!(restored.balance().confirmed, paid, "{name}");
        let sent = restored.send(&purse.rpc, &Bitcoind::anyone_address(), paid / 2, rate(2), &Caps::default())?;
        assert!(in_mempool(&world, sent.txid)?);
    }
    Ok(())
}

#[test]
fn without_a_coin_recover_asks_from_where_to_search() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let lost = Purse::new(&world, "lost", &[500_000])?;
    let mut wallet = lost.wallet;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(2)) };
    let prepared = prepare(&mut wallet, &lost.rpc, &payload(&world, 200)?, &request)?;
    let commit = prepared.commit().context("a commit")?.clone();
    let since = world.bitcoind.height()?;
    world.bitcoind.mine_block_with(std::slice::from_ref(&commit))?;
    world.bitcoind.mine_empty(20)?;
    drop(wallet);
    let dir = world.path(&Cli::wallet_dir("default"));
    drop(Wallet::restore(&dir, Network::Regtest, lost.words, None, near(&lost.rpc))?);
    let (code, error) = cli.fails(&["recover"])?;
    assert!(code == 2 && error.contains("--since"), "{error}");
    let suspects = cli.lines(&["recover", "--since", &since.to_string()])?;
    let outpoint = bitcoin::OutPoint::new(commit.compute_txid(), 0).to_string();
    assert!(suspects.iter().any(|suspect| suspect["outpoint"] == outpoint.as_str()), "{suspects:?}");
    Ok(())
}
