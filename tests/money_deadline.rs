//! What is to be mined by a height pays more as that height nears: on a real bitcoind, which mines without it.

use crate::support::money::{Cli, Purse, payload, rate};
use crate::support::nodes::{Alteration, Altered, Cut};
use crate::support::{Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Amount, FeeRate, Network, Txid};
use regtest::{Bitcoind, EsploraServer, Proc, wait_until};
use serde_json::Value;
use sortie::chain::{ChainError, Mempool, RpcNode};
use sortie::envelope::Carrier;
use sortie::publish::{
    Act, Bump, Caps, CarrierChoice, Held, JobId, JobState, PublishError, RateTerms, Request, anywhere, confirm_by,
    events, hold, job, prepare, psbt, publish,
};
use sortie::wallet::{Wallet, fee_for};
use std::collections::BTreeMap;
use std::time::Duration;

const WINDOW: Window = Window { window: 30, max_lag: 20 };
const TERMS: RateTerms = RateTerms { network: Network::Regtest, explicit: None, fallback: None, target_blocks: 1 };
const LONG: Duration = Duration::from_secs(60);

/// It has estimates, which a regtest node has not: sat/vB by blocks.
struct Estimates(BTreeMap<u16, u64>);

type Market<'a> = Altered<'a, Estimates>;

impl Alteration for Estimates {
    fn estimate(&self, _: &RpcNode, target: u16) -> Result<Option<FeeRate>, ChainError> {
        Ok(self.0.range(..=target).next_back().map(|(_, sat_per_vb)| rate(*sat_per_vb)))
    }
}

fn market<'a>(node: &'a RpcNode, rates: &[(u16, u64)]) -> Market<'a> {
    Altered(node, Estimates(rates.iter().copied().collect()))
}

/// One look at the chain's tip.
fn look(purse: &mut Purse, market: &Market<'_>, id: JobId, caps: &Caps) -> Result<Held> {
    purse.wallet.sync(market.0)?;
    Ok(hold(&mut purse.wallet, market, &[market], id, &TERMS, caps)?)
}

/// Fee and size of a job's transactions as the mempool has them.
fn in_pool(purse: &Purse, id: JobId) -> Result<(Amount, u64)> {
    purse.in_pool(&job(&purse.wallet, id)?.txids())
}

fn to_confirm_within(blocks: u32, carrier: Carrier, sat_per_vb: u64, world: &World) -> Result<Request> {
    let confirm_by = Some(world.bitcoind.height()? + blocks);
    Ok(Request { carrier: CarrierChoice::Only(carrier), confirm_by, ..Request::at(rate(sat_per_vb)) })
}

#[test]
fn the_fee_rises_as_the_height_nears_and_once_a_block() -> Result<()> {
    let world = World::new(WINDOW)?;
    let rpc = world.rpc()?;
    let market = market(&rpc, &[(1, 40), (2, 20), (3, 5)]);
    for carrier in [Carrier::OpReturn, Carrier::Taproot] {
        let name = format!("{carrier:?}");
        let mut purse = Purse::new(&world, &name, &[1_000_000])?;
        let request = to_confirm_within(4, carrier, 5, &world)?;
        let id = publish(&mut purse.wallet, &purse.rpc, &payload(&world, 200)?, &request)?.job;
        let none = Caps::default();
        let held = look(&mut purse, &market, id, &none)?;
        assert!(matches!(held.act, Act::Waits), "nothing at the block at which it was planned: {held:?}");

        // (blocks that remain, what is paid then)
        for (remaining, sat_per_vb) in [(3, 5), (2, 20), (1, 40)] {
            world.bitcoind.mine_empty(1)?;
            let held = look(&mut purse, &market, id, &none)?;
            assert_eq!((held.remaining, held.pays), (remaining, rate(sat_per_vb)), "{name}: {held:?}");
            assert_eq!(matches!(held.act, Act::Bumped(_)), sat_per_vb > 5, "{held:?}");
            let (fee, vsize) = in_pool(&purse, id)?;
            assert_eq!(fee, fee_for(rate(sat_per_vb), vsize), "{name}: as the node has it");
            // Killed, and started again at the same block.
            drop(purse.wallet);
            purse.wallet = Wallet::open(&world.path(&name), Network::Regtest)?;
            assert!(matches!(look(&mut purse, &market, id, &none)?.act, Act::Waits));
            assert_eq!(in_pool(&purse, id)?, (fee, vsize));
        }
        // Late already: one step more with each block, though no estimate asks for it.
        for _ in 0..2 {
            let (before, _) = in_pool(&purse, id)?;
            world.bitcoind.mine_empty(1)?;
            let held = look(&mut purse, &market, id, &none)?;
            assert!(matches!(&held.act, Act::Bumped(bumped) if bumped.how == Bump::Replaced), "{held:?}");
            let (fee, vsize) = in_pool(&purse, id)?;
            let step = purse.rpc.relay()?.incremental;
            assert!(fee >= before + fee_for(step, vsize / 2) && fee < before + fee_for(step, 2 * vsize), "{fee}");
            assert_eq!(look(&mut purse, &market, id, &none)?.remaining, 0);
            assert_eq!(in_pool(&purse, id)?.0, fee, "once a block");
        }
        let (fee, _) = in_pool(&purse, id)?;
        world.bitcoind.mine(1)?;
        assert!(matches!(look(&mut purse, &market, id, &none)?.act, Act::Settled));
        assert!(matches!(job(&purse.wallet, id)?.state, JobState::Confirmed(_)));
        assert_eq!(purse.spent()?, fee, "to the satoshi");
    }
    assert_eq!(world.follower("follower")?.items()?.len(), 2, "each once");
    Ok(())
}

#[test]
fn the_caps_end_it_and_it_keeps_waiting() -> Result<()> {
    let world = World::new(WINDOW)?;
    let rpc = world.rpc()?;
    let market = market(&rpc, &[(1, 40), (2, 20), (3, 8)]);
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let request = to_confirm_within(4, Carrier::Taproot, 5, &world)?;
    let published = publish(&mut purse.wallet, &purse.rpc, &payload(&world, 200)?, &request)?;
    let caps = Caps { max_fee_rate: Some(rate(15)), max_fee: None };
    for (pays, stops) in [(8, false), (15, false), (15, true), (15, true)] {
        world.bitcoind.mine_empty(1)?;
        let held = look(&mut purse, &market, published.job, &caps)?;
        assert_eq!(held.pays, rate(pays), "{held:?}");
        assert_eq!(matches!(held.act, Act::Stopped(PublishError::FeeCap(_))), stops, "{held:?}");
    }
    // Not a satoshi more than the other cap, either.
    let (fee, _) = in_pool(&purse, published.job)?;
    let caps = Caps { max_fee: Some(fee + Amount::from_sat(100)), max_fee_rate: None };
    world.bitcoind.mine_empty(1)?;
    let held = look(&mut purse, &market, published.job, &caps)?;
    let now = in_pool(&purse, published.job)?.0;
    assert!(matches!(held.act, Act::Bumped(_)) && now > fee && now <= fee + Amount::from_sat(100), "{held:?}");
    let log = events(&purse.wallet, published.job)?.len();
    world.bitcoind.mine_empty(1)?;
    let held = look(&mut purse, &market, published.job, &caps)?;
    assert!(matches!(held.act, Act::Stopped(PublishError::FeeCap(_))), "{held:?}");
    assert_eq!(events(&purse.wallet, published.job)?.len(), log, "nothing was signed");
    Ok(())
}

#[test]
fn a_bump_that_was_written_down_and_not_sent_is_sent_and_not_raised_again() -> Result<()> {
    let world = World::new(WINDOW)?;
    let rpc = world.rpc()?;
    let market = market(&rpc, &[(1, 9)]);
    let mut purse = Purse::new(&world, "alice", &[1_000_000])?;
    let request = to_confirm_within(1, Carrier::Taproot, 9, &world)?;
    let id = publish(&mut purse.wallet, &purse.rpc, &payload(&world, 200)?, &request)?.job;
    world.bitcoind.mine_empty(1)?;
    purse.wallet.sync(&purse.rpc)?;
    let caps = Caps::default();
    let lost = hold(&mut purse.wallet, &Altered(&rpc, Cut), &[&market], id, &TERMS, &caps).expect_err("cut off");
    assert!(matches!(lost, PublishError::Unsent { .. }), "{lost}");
    drop(purse.wallet);
    purse.wallet = Wallet::open(&world.path("alice"), Network::Regtest)?;
    let signed = purse.job(id)?;
    assert_eq!(signed.generations.len(), 2);
    let held = look(&mut purse, &market, id, &caps)?;
    assert!(matches!(held.act, Act::Waits), "{held:?}");
    assert_eq!(job(&purse.wallet, id)?.generations.len(), 2);
    let (fee, _) = in_pool(&purse, id)?;
    assert_eq!(fee, signed.generations[1].fee);
    Ok(())
}

#[test]
fn what_others_paid_for_is_held_and_what_is_signed_elsewhere_is_not() -> Result<()> {
    let world = World::new(WINDOW)?;
    let rpc = world.rpc()?;
    let market = market(&rpc, &[(1, 30), (2, 4)]);
    let mut purse = Purse::new(&world, "alice", &[200_000, 300_000])?;
    let refund = Bitcoind::anyone_address();
    let caps = Caps::default();
    let asked = anywhere::ask(&mut purse.wallet, &purse.rpc, &payload(&world, 300)?, rate(4), &caps, &refund, false)?;
    let height = world.bitcoind.height()? + 3;
    confirm_by(&mut purse.wallet, asked.id, height)?;
    let paid = anywhere::payment(&purse.wallet, &purse.rpc, &asked)?.missing + Amount::from_sat(20_000);
    world.bitcoind.fund_and_mine(&anywhere::address(&purse.wallet, &asked)?, paid)?;
    purse.wallet.sync(&purse.rpc)?;
    anywhere::reveal(&mut purse.wallet, &purse.rpc, asked.id)?;
    world.bitcoind.mine_empty(1)?;
    let held = look(&mut purse, &market, asked.id, &caps)?;
    assert_eq!((held.remaining, held.pays), (1, rate(30)), "{held:?}");
    let (fee, vsize) = in_pool(&purse, asked.id)?;
    assert_eq!(fee, fee_for(rate(30), vsize));
    world.bitcoind.mine(1)?;
    assert!(matches!(look(&mut purse, &market, asked.id, &caps)?.act, Act::Settled));

    let request = Request { carrier: CarrierChoice::Only(Carrier::OpReturn), ..Request::at(rate(2)) };
    let (drafted, _) = psbt::draft(&mut purse.wallet, &purse.rpc, &payload(&world, 50)?, &request)?;
    let error = confirm_by(&mut purse.wallet, drafted.id, height + 9).expect_err("not signed");
    assert!(error.to_string().contains("waits for its signatures"), "{error}");
    // A reorganisation of nothing but time: what has no height is left alone.
    let plain = prepare(&mut purse.wallet, &purse.rpc, &payload(&world, 60)?, &request)?;
    world.bitcoind.mine_empty(1)?;
    assert!(matches!(look(&mut purse, &market, plain.id, &caps)?.act, Act::Settled));
    Ok(())
}

/// The next line that is wanted of a command that waits.
fn line(process: &mut Proc, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let parsed = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_default();
    Ok(parsed(&process.wait_line(what, LONG, |line| wanted(&parsed(line)))?))
}

fn is_bump(line: &Value) -> bool {
    line["event"] == "bumped"
}

#[test]
fn the_command_raises_the_fee_goes_on_after_a_kill_and_says_once_that_the_cap_is_reached() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    drop(Purse::new(&world, &Cli::wallet_dir("default"), &[1_000_000])?);
    // The node has no estimates, nor what recent blocks paid; it is asked first, and the server then.
    world.bitcoind.mine(6)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    server.set_fee_estimates(&[(1, 30.0), (2, 12.0), (3, 6.0)]);
    let url = server.url();
    let tx = world.transfer(&world.alice, &world.bob, 7, 0).to_lower_hex_string();
    let before = world.bitcoind.height()?;
    let force = [
        "force",
        &tx,
        "--broadcast-url",
        &url,
        "--target",
        "3",
        "--deadline-bump",
        "--max-fee-rate",
        "20",
        "--explain",
    ];
    let mut waiting = Proc::spawn(&mut cli.command(&force))?;
    let forced = line(&mut waiting, "its word", |line| line["state"] == "mempool")?;
    assert_eq!(forced["quote"]["fee_rate_sat_vb"], 6.0);
    waiting.wait_line("its word", LONG, |line| line.contains("stopping is safe"))?;
    world.bitcoind.mine_empty(1)?;
    let raised = line(&mut waiting, "its word", is_bump)?;
    assert_eq!((&raised["fee_rate_sat_vb"], &raised["remaining_blocks"]), (&12.0.into(), &2.into()));
    assert_eq!(raised["confirm_by"], before + 3);
    assert_eq!(raised["place_before"], forced["place"]);
    let told = wait_until("the wallet to be free", LONG, || Ok(cli.run(&["jobs"]).ok()))?;
    assert_eq!((&told["place"], &told["confirm_by"]), (&raised["place"], &(before + 3).into()), "others may look");
    waiting.kill9()?;

    // A new process, with the caps of the first one.
    let resume = ["resume", "--deadline-bump", "--broadcast-url", &url, "--explain"];
    let mut waiting = Proc::spawn(&mut cli.command(&resume))?;
    line(&mut waiting, "its word", |line| line["outcome"] == "in_place")?;
    world.bitcoind.mine_empty(1)?;
    let capped = line(&mut waiting, "its word", is_bump)?;
    assert_eq!((&capped["fee_rate_sat_vb"], &capped["remaining_blocks"]), (&20.0.into(), &1.into()));
    world.bitcoind.mine_empty(1)?;
    let is_cap = |line: &str| line.contains("stays at 20 sat/vB") && line.contains("--max-fee-rate");
    waiting.wait_line("its word", LONG, is_cap)?;
    world.bitcoind.mine_empty(1)?;
    let explained = |line: &Value| line["note"].as_str().is_some_and(|note| note.contains("0 blocks remain"));
    line(&mut waiting, "its word", explained)?;
    let place = capped["place"].as_str().context("a place")?;
    let carrier: Txid = place.split(':').next().context("a txid")?.parse()?;
    ensure!(world.bitcoind.mempool()?.contains(&carrier));
    world.bitcoind.mine(1)?;
    let done = line(&mut waiting, "its word", |line| line["state"].is_string())?;
    assert_eq!((&done["state"], &done["place"]), (&"confirmed".into(), &capped["place"]));
    assert_eq!(waiting.stderr().iter().filter(|line| is_cap(line)).count(), 1, "told once");
    ensure!(waiting.wait_exit(LONG)?.success(), "{:?}", waiting.stderr());

    // Mined in the next block it would be due later than that.
    let tx = world.transfer(&world.alice, &world.bob, 7, 1).to_lower_hex_string();
    let tip = world.bitcoind.height()?;
    let too_early = (tip + u32::from(WINDOW.window)).to_string();
    let (code, error) = cli.fails(&["force", &tx, "--deadline-bump", "--due-by", &too_early])?;
    assert!(code == 2 && error.contains("--due-by"), "{error}");
    let (code, error) = cli.fails(&["force", &tx, "--deadline-bump", "--due-by", "999999999"])?;
    assert!(code == 2 && error.contains("1008 blocks"), "{error}");
    let due = (tip + u32::from(WINDOW.window) + 2).to_string();
    let mut waiting =
        Proc::spawn(&mut cli.command(&["force", &tx, "--broadcast-url", &url, "--deadline-bump", "--due-by", &due]))?;
    let forced = line(&mut waiting, "its word", |line| line["state"] == "mempool")?;
    world.bitcoind.mine_empty(1)?;
    let raised = line(&mut waiting, "its word", is_bump)?;
    assert_eq!((&raised["confirm_by"], &raised["remaining_blocks"]), (&(tip + 2).into(), &1.into()));
    world.bitcoind.mine(1)?;
    let mined = line(&mut waiting, "its word", |line| line["due_height"].is_u64() && line["state"] != "mempool")?;
    assert_eq!(mined["due_height"].to_string(), due, "as was asked for");
    assert_ne!(mined["place"], forced["place"]);
    ensure!(waiting.wait_exit(LONG)?.success(), "{:?}", waiting.stderr());
    Ok(())
}

#[test]
fn a_publication_that_others_pay_for_is_held_from_its_payment_on() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    drop(Purse::new(&world, &Cli::wallet_dir("default"), &[])?);
    world.bitcoind.mine(6)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    server.set_fee_estimates(&[(1, 9.0), (2, 3.0)]);
    let (url, refund) = (server.url(), Bitcoind::anyone_address().to_string());
    let tx = world.transfer(&world.alice, &world.bob, 7, 0).to_lower_hex_string();
    let due = (world.bitcoind.height()? + u32::from(WINDOW.window) + 2).to_string();
    let command = [
        "force",
        &tx,
        "--broadcast-url",
        &url,
        "--pay-from-anywhere",
        "--refund",
        &refund,
        "--deadline-bump",
        "--due-by",
        &due,
    ];
    let mut waiting = Proc::spawn(&mut cli.command(&command))?;
    let asked = line(&mut waiting, "its word", |line| line["state"] == "unpaid")?;
    let address: Address<_> = asked["address"].as_str().context("an address")?.parse()?;
    let amount = Amount::from_sat(asked["amount_sat"].as_u64().context("an amount")? + 20_000);
    // Paid so late that the height cannot be kept: then as soon as can be.
    world.bitcoind.mine_empty(2)?;
    world.bitcoind.fund_and_mine(&address.assume_checked(), amount)?;
    let revealed = line(&mut waiting, "its word", |line| line["state"] == "mempool")?;
    waiting.wait_line("its word", LONG, |line| line.contains("--due-by"))?;
    world.bitcoind.mine_empty(1)?;
    let raised = line(&mut waiting, "its word", is_bump)?;
    assert_eq!((&raised["place_before"], &raised["fee_rate_sat_vb"]), (&revealed["place"], &9.0.into()));
    world.bitcoind.mine(1)?;
    ensure!(waiting.wait_exit(LONG)?.success(), "{:?}", waiting.stderr());
    Ok(())
}

#[test]
fn every_source_of_fee_rates_is_asked_in_order_until_one_knows() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    drop(Purse::new(&world, &Cli::wallet_dir("default"), &[1_000_000])?);
    let [dead, empty, knows] = [
        EsploraServer::start(&world.bitcoind)?,
        EsploraServer::start(&world.bitcoind)?,
        EsploraServer::start(&world.bitcoind)?,
    ];
    dead.fail("/fee-estimates", regtest::esplora::Fault::Status(502));
    knows.set_fee_estimates(&[(6, 7.0)]);
    let urls = [&dead, &empty, &knows].map(EsploraServer::url);
    let told = |arguments: &[&str]| -> Result<(Value, Vec<String>)> {
        let quote = [&["quote", "0a0a0a0a0a0a0a0a0a0a0a0a", "--unchecked", "--explain"], arguments].concat();
        let output = cli.command(&quote).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let notes = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
        Ok((serde_json::from_slice(&output.stdout)?, notes))
    };
    for first in ["--broadcast-url", "--esplora-url"] {
        // With a node it is asked first; the servers follow in the order in which they are named.
        let arguments: Vec<&str> = urls.iter().flat_map(|url| [first, url]).collect();
        let (quoted, notes) = told(&arguments)?;
        let last = &quoted["quotes"][3];
        assert_eq!((&last["fee_rate_sat_vb"], &last["rate_source"]), (&7.0.into(), &"estimate".into()), "{first}");
        let mut names = vec!["bitcoind".to_owned()];
        names.retain(|_| first == "--broadcast-url");
        names.extend(urls.iter().cloned());
        let said: Vec<&String> = notes.iter().take(names.len()).collect();
        for (name, note) in names.iter().zip(said) {
            assert!(note.contains(name.as_str()), "{first}: {notes:?}");
        }
    }
    let (quoted, _) = told(&["--broadcast-url", &urls[1], "--fallback-fee-rate", "3"])?;
    assert_eq!(quoted["quotes"][0]["rate_source"], "fallback", "the user's word comes last");
    Ok(())
}
