//! Numbers that nobody means, and servers whose numbers cannot be: refused before anything is signed, and no panic.

use crate::support::money::{Cli, Purse, payload, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result, ensure};
use bitcoin::hex::DisplayHex;
use bitcoin::{Amount, FeeRate, Network};
use regtest::esplora::Fault;
use regtest::{Bitcoind, EsploraServer};
use sortie::chain::{Esplora, Mempool};
use sortie::envelope::Carrier;
use sortie::publish::{
    Bump, Caps, CarrierChoice, PublishError, RateTerms, Reclaimed, Request, bump, fee_rate, publish, quote, reclaim,
    resume,
};
use sortie::wallet::Wallet;

const TERMS: RateTerms = RateTerms { network: Network::Regtest, explicit: None, fallback: None, target_blocks: 1 };
const WINDOW: Window = Window { window: 30, max_lag: 20 };

#[test]
fn amounts_beyond_all_money_and_rates_beyond_any_node_are_refused_in_one_line() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    drop(Purse::new(&world, &Cli::wallet_dir("default"), &[500_000])?);
    let (to, all) = (Bitcoind::anyone_address().to_string(), u64::MAX.to_string());
    let tx = [7; 150].to_lower_hex_string();
    for arguments in [
        &["wallet", "send", "--to", &to, "--fee-rate", "2", "--amount", &all][..],
        &["force", &tx, "--unchecked", "--fee-rate", "2", "--max-fee", &all],
        &["force", &tx, "--unchecked", "--fee-rate", "200000", "--max-fee", "99999999999"],
    ] {
        let output = cli.command(arguments).output()?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let most = Amount::MAX_MONEY.to_sat().to_string();
    let (code, error) = cli.fails(&["wallet", "send", "--to", &to, "--fee-rate", "2", "--amount", &most])?;
    assert!(code == 1 && error.contains("500000 sat spendable"), "{error}");
    assert_eq!(cli.run(&["force", &tx, "--unchecked", "--fee-rate", "2", "--max-fee", &most])?["job"], 1);
    Ok(())
}

#[test]
fn a_rate_that_no_node_takes_leaves_no_job_behind() -> Result<()> {
    let world = World::new(WINDOW)?;
    let mut purse = Purse::new(&world, "alice", &[100_000_000])?;
    let request = |sat_per_vb| Request {
        carrier: CarrierChoice::Only(Carrier::Taproot),
        lock_at_most: None,
        ..Request::at(rate(sat_per_vb))
    };
    // Together they pay less than 1 BTC/kvB; the reveal alone pays more.
    let payload = payload(&world, 300)?;
    let refused = publish(&mut purse.wallet, &purse.rpc, &payload, &request(99_999)).expect_err("too high");
    assert!(matches!(refused, PublishError::Refused { .. }), "{refused}");
    assert_eq!(purse.wallet.coins()?.len(), 1, "free again");
    assert!(resume(&mut purse.wallet, &purse.rpc)?.is_empty());
    let absurd = Request { fee_rate: FeeRate::from_sat_per_kwu(u64::MAX), ..request(1) };
    let short = quote(&purse.wallet, &payload, &absurd, purse.rpc.relay()?).expect_err("all money is too little");
    let PublishError::Funds(short) = short else { panic!("{short}") };
    assert_eq!(short.available, Amount::from_sat(100_000_000), "what the wallet has");
    Ok(())
}

#[test]
fn a_server_that_claims_impossible_fees_is_no_panic() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    let (mut wallet, _) = Wallet::create(&world.path("wallet"), Network::Regtest, world.bitcoind.height()?, None)?;
    world.bitcoind.fund_and_mine(&wallet.address()?, Amount::from_sat(500_000))?;
    wallet.sync(&esplora)?;
    let request = Request { carrier: CarrierChoice::Only(Carrier::Taproot), ..Request::at(rate(2)) };
    let id = publish(&mut wallet, &esplora, &payload(&world, 300)?, &request)?.job;
    server.fail("/tx/", Fault::Fee(u64::MAX));
    let caps = Caps { max_fee: Some(Amount::from_sat(100_000)), max_fee_rate: None };
    bump(&mut wallet, &esplora, id, rate(5), &caps).expect_err("more than all money is to be replaced");
    reclaim(&mut wallet, &esplora, id, rate(5), &caps).expect_err("and here");
    server.heal();
    assert_eq!(bump(&mut wallet, &esplora, id, rate(5), &caps)?.how, Bump::Replaced);
    assert!(matches!(reclaim(&mut wallet, &esplora, id, rate(9), &caps)?, Reclaimed::Sweeping { .. }));
    Ok(())
}

#[test]
fn a_servers_estimate_is_compared_with_what_its_blocks_paid() -> Result<()> {
    let world = World::new(WINDOW)?;
    let server = EsploraServer::start(&world.bitcoind)?;
    let esplora = Esplora::connect(&server.url(), Network::Regtest, None)?;
    let cli = Cli::new(&world)?;
    drop(Purse::new(&world, &Cli::wallet_dir("default"), &[5_000_000])?);
    let mut payer = Purse::new(&world, "payer", &[500_000])?;
    world.bitcoind.mine_empty(10)?;
    assert_eq!(esplora.recently_paid()?, None, "empty blocks tell nothing");
    let tx = [7; 150].to_lower_hex_string();
    let quote = ["quote", &tx, "--unchecked", "--esplora-url", &server.url()].map(str::to_owned);
    let quote: Vec<&str> = quote.iter().map(String::as_str).collect();
    server.set_fee_estimates(&[(1, 101.0)]);
    let (code, error) = cli.fails(&quote)?;
    assert!(code == 4 && error.contains("100 sat/vB") && error.contains("--fee-rate"), "{error}");
    cli.run(&[&quote[..], &["--fee-rate", "101"]].concat())?;
    server.set_fee_estimates(&[(1, 100.0)]);
    server.fail("/blocks", Fault::Status(502));
    assert_eq!(fee_rate(&[&esplora], &TERMS)?.rate, rate(100), "what cannot be compared is not lost");
    server.heal();

    payer.publish(&payload(&world, 150)?, Carrier::OpReturn, 11)?;
    world.bitcoind.mine(1)?;
    let paid = esplora.recently_paid()?.context("one block with fees")?;
    ensure!(paid > rate(4) && paid <= rate(11), "{paid:?} on average, with the coinbase's own weight");
    let beyond = paid.to_sat_per_kwu() as f64 / 250.0 * 10.0;
    server.set_fee_estimates(&[(1, beyond + 1.0)]);
    let (code, error) = cli.fails(&quote)?;
    assert!(code == 4 && error.contains("not believed"), "{error}");
    server.set_fee_estimates(&[(1, beyond)]);
    assert_eq!(cli.run(&quote)?["quotes"][0]["fee_rate_sat_vb"], beyond);
    Ok(())
}

#[test]
fn what_cannot_be_done_is_said_with_its_reason() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    drop(Purse::new(&world, &Cli::wallet_dir("default"), &[500_000])?);
    let (code, error) = cli.fails(&["quote", "--unchecked", &"aa".repeat(64), "bbbb"])?;
    assert!(code == 2 && error.contains("transaction 2 (argument 2) has 2 bytes") && error.contains("64"), "{error}");
    let output = cli.command(&["recover", "--tx", "aaaa", "--keys", "200000000"]).output()?;
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));

    // Another publication's file: nothing is reserved for what cannot be written.
    let [one, two] = [[7; 150], [8; 150]].map(|tx| tx.to_lower_hex_string());
    let psbt = |tx: &str| ["force", tx, "--unchecked", "--fee-rate", "2", "--psbt", "out.psbt"].map(str::to_owned);
    let run = |arguments: [String; 7]| cli.command(&arguments.each_ref().map(String::as_str)).output();
    assert!(run(psbt(&one))?.status.success());
    assert_eq!(run(psbt(&two))?.status.code(), Some(4));
    assert_eq!(cli.lines(&["jobs"])?.len(), 1);
    assert!(run(psbt(&one))?.status.success(), "and the same command again is the same");
    Ok(())
}

#[test]
fn a_damaged_wallet_is_told_from_a_wrong_passphrase_and_is_to_be_kept() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    for file in ["right", "wrong"] {
        std::fs::write(world.path(file), file)?;
    }
    cli.run(&["wallet", "create", "--passphrase-file", "right"])?;
    let dir = world.path(&Cli::wallet_dir("default"));
    let spend = |passphrase: &str| {
        let to = Bitcoind::anyone_address().to_string();
        let send =
            ["wallet", "send", "--to", &to, "--amount", "9999", "--fee-rate", "2", "--passphrase-file", passphrase];
        cli.fails(&send)
    };
    let (code, error) = spend("wrong")?;
    assert!(code == 2 && error.contains("this passphrase does not open"), "{error}");
    let seed = std::fs::read_to_string(dir.join("seed"))?;
    std::fs::write(dir.join("seed"), &seed[..seed.len() - 70])?;
    let (_, error) = spend("right")?;
    assert!(error.contains("seed file is cut") && error.contains("keep that folder"), "{error}");
    for (bytes, why) in [(&b""[..], "is empty"), (&[7; 5_000], "not a database")] {
        std::fs::write(dir.join("wallet.sqlite"), bytes)?;
        let (_, error) = cli.fails(&["jobs"])?;
        assert!(error.contains(why) && error.contains("keep that folder"), "{error}");
    }
    Ok(())
}
