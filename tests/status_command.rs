//! `sortie status`: whatever somebody has in hand leads to where the thing stands and what to do next.

use crate::support::money::{Cli, payload, rate};
use crate::support::{Window, World};
use anyhow::{Context, Result};
use bitcoin::hex::DisplayHex;
use regtest::Bitcoind;
use serde_json::Value;
use sortie::primitives::sha256;
use sortie::publish::{Request, prepare};
use std::fs;

const WINDOW: Window = Window { window: 6, max_lag: 3 };

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

#[test]
fn whatever_is_in_hand_finds_it_at_every_stage_with_its_due_height_and_what_to_do_next() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    drop(world.wallet(&Cli::wallet_dir("default"), 1)?);
    drop(world.wallet(&Cli::wallet_dir("other"), 0)?);
    let txs = [0, 1].map(|nonce| world.transfer(&world.alice, &world.bob, 1, nonce));
    let [first, second] = txs.each_ref().map(|tx| tx.to_lower_hex_string());
    fs::write(world.path("second"), &second)?;
    let forced = cli.run(&["force", &first, &second, "--carrier", "taproot"])?;
    let [commit, reveal] = [text(&forced["txids"][0])?, text(&forced["txids"][1])?];
    let hash = sha256(&txs[1]).to_string();
    let both = ["1", commit, reveal];
    let one = [&hash, "@second", &second, &format!("{reveal}:in:0:1")];

    let tip = u64::from(world.bitcoind.height()?);
    let all_say = |what: &[&str], places: &[&str], state: &str, next: &str| -> Result<()> {
        for hand in what {
            let found = cli.lines(&["status", hand])?;
            let shown: Vec<_> = found.iter().map(|life| text(&life["place"])).collect::<Result<_>>()?;
            assert_eq!(shown, places, "{hand}");
            for life in &found {
                let due = life.get("due_height").or(life.get("earliest_due_height"));
                assert_eq!((text(&life["state"])?, due), (state, Some(&(tip + 7).into())), "{hand}: {life}");
                assert!(text(&life["next"])?.contains(next), "{hand}: {life}");
            }
        }
        Ok(())
    };
    let places = [0, 1].map(|n| text(&forced["items"][n]["place"]).map(str::to_owned));
    let [zeroth, place] = &places.into_iter().collect::<Result<Vec<_>>>()?[..] else { panic!("two places") };
    all_say(&both, &[zeroth, place], "mempool", "`sortie bump 1 ")?;
    all_say(&one, &[place], "mempool", "`sortie bump 1 ")?;
    // Whoever has another journal finds it in the mempool.
    for hand in [commit, reveal, &hash] {
        let found = cli.lines(&["status", hand, "--wallet", "other"])?;
        assert!(found.iter().all(|life| life["state"] == "mempool" && life.get("job").is_none()), "{found:?}");
        assert_eq!(found.len(), if hand == hash { 1 } else { 2 });
    }
    let people = String::from_utf8(cli.for_people(&["status", "1"]).output()?.stdout)?;
    assert_eq!((people.matches("due at").count(), people.matches("\nnext  ").count()), (2, 1), "{people}");

    let bumped = cli.run(&["bump", "1", "--fee-rate", "5"])?;
    let moved = text(&bumped["place"])?.to_owned();
    let second = format!("{moved}:1");
    all_say(&both, &[&moved, &second], "mempool", "`sortie bump 1 ")?;
    all_say(&one, &[&second], "mempool", "`sortie bump 1 ")?;
    world.bitcoind.mine(1)?;
    all_say(&both, &[&moved, &second], "queued", &format!("at Bitcoin block {} at the latest, in 6 blocks", tip + 7))?;
    all_say(&one, &[&second], "queued", "nothing")?;
    world.bitcoind.mine(6)?;
    all_say(&both, &[&moved, &second], "executed", "nothing: it is executed, for good at")?;
    all_say(&one, &[&second], "executed", "nothing")?;
    world.bitcoind.mine(6)?;
    all_say(&["1"], &[&moved, &second], "executed", "nothing: it is executed for good")?;

    let (code, error) = cli.fails(&["force", "@second"])?;
    assert!(code == 4 && error.contains("needs no forcing") && error.contains("--again"), "{error}");
    cli.run(&["force", "@second", "--again"])?;
    world.bitcoind.mine(7)?;
    let status = cli.run(&["status", "2"])?;
    assert_eq!((&status["outcome"], &status["reason"]), (&"no-op".into(), &"bad_nonce".into()));
    assert!(text(&status["next"])?.contains("nothing: the same transaction was executed in L2 block"), "{status}");

    for (hand, words) in [
        ("7", vec!["no job 7", "the journal of the wallet default", "`sortie jobs`"]),
        (&"ab".repeat(32), vec!["queue", "executed", "mempool", "the journal of the wallet default"]),
        (&format!("{reveal}:in:1"), vec![reveal, "queue", "mempool", "the wallet default"]),
        (&format!("{reveal}:in:0:2"), vec![reveal, "queue", "mempool", "the wallet default"]),
    ] {
        let (code, error) = cli.fails(&["status", hand])?;
        assert_eq!(code, 1, "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let (_, error) = cli.fails(&["status", "7", "--wallet", "other"])?;
    assert!(error.contains("`sortie jobs --wallet other`"), "{error}");
    Ok(())
}

#[test]
fn a_job_of_which_bitcoin_has_nothing_is_told_from_the_journal() -> Result<()> {
    let world = World::new(WINDOW)?;
    let cli = Cli::new(&world)?;
    let unknown = "ab".repeat(32);
    let (code, error) = cli.fails(&["status", &unknown])?;
    assert!(code == 1 && error.contains("there is no wallet default"), "{error}");
    let (code, error) = cli.fails(&["status", "1"])?;
    assert!(code == 2 && error.contains("sortie wallet create"), "{error}");

    let mut wallet = world.wallet(&Cli::wallet_dir("default"), 1)?;
    let job = prepare(&mut wallet, &world.rpc()?, &payload(&world, 150)?, &Request::at(rate(2)))?;
    let (code, error) = cli.fails(&["status", "1"])?;
    assert!(code == 1 && error.contains("in use by another process"), "{error}");
    let (code, error) = cli.fails(&["status", &unknown])?;
    assert!(code == 1 && error.contains("was not looked at: the wallet in"), "{error}");
    drop(wallet);
    for hand in ["1", &job.txids()[0].to_string(), &job.payload_hash.to_string()] {
        let status = cli.run(&["status", hand])?;
        assert_eq!((&status["state"], &status["job"]), (&"signed".into(), &1.into()), "{hand}");
        assert!(text(&status["next"])?.contains("`sortie resume` sends"), "{status}");
    }
    cli.run(&["reclaim", "1"])?;
    let status = cli.run(&["status", "1"])?;
    assert_eq!(status["state"], "abandoned", "{status}");
    assert!(text(&status["next"])?.contains("`sortie force`"), "{status}");

    let tx = world.transfer(&world.alice, &world.bob, 1, 0).to_lower_hex_string();
    let refund = Bitcoind::anyone_address().to_string();
    cli.run(&["force", &tx, "--pay-from-anywhere", "--refund", &refund, "--no-wait"])?;
    let status = cli.run(&["status", &tx])?;
    assert_eq!((&status["state"], &status["job"]), (&"planned".into(), &2.into()));
    assert!(text(&status["next"])?.contains("pay for it: `sortie resume` shows"), "{status}");
    Ok(())
}
