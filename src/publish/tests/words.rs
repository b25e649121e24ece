use super::super::plan::check_weight;
use super::*;
use crate::wallet::OTHER_COINS;
use crate::wallet::transaction;
use bitcoin::{ScriptBuf, TxIn, TxOut};

#[test]
fn where_other_coins_are_gone_as_well_it_ends_after_so_many() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000; 10]);
    let node = FakeNode::default();
    *node.refuse.borrow_mut() = Some("bad-txns-inputs-missingorspent");
    let error = publish(&mut wallet, &node, &payload(60), &request(OP_RETURN)).expect_err("all are gone");
    assert!(matches!(error, PublishError::Refused { .. }), "{error}");
    let tried = jobs(&wallet).expect("jobs");
    assert_eq!(tried.len(), 1 + usize::try_from(OTHER_COINS).expect("few"));
    let coins: std::collections::BTreeSet<_> = tried.iter().flat_map(outputs_spent).collect();
    assert_eq!(coins.len(), tried.len(), "another coin each time");
    let coin = wallet.coins().expect("coins")[0].outpoint;
    let fixed = Request { fund_from: Some(coin), ..request(OP_RETURN) };
    publish(&mut wallet, &node, &payload(61), &fixed).expect_err("that coin is gone");
    assert_eq!(jobs(&wallet).expect("jobs").len(), tried.len() + 1, "no other coin than the one that was named");
}

fn outputs_spent(job: &Job) -> Vec<OutPoint> {
    let transactions = job.current().into_iter().flat_map(|current| &current.transactions);
    transactions.flat_map(|tx| &tx.input).map(|input| input.previous_output).collect()
}

#[test]
fn a_payload_that_is_not_relayed_comes_with_what_helps() {
    let too_long = |bytes, profile: Profile| {
        let limit = profile.op_return_limit();
        NotRelayed::OpReturnTooLong { bytes, limit, profile }
    };
    let heavy = NotRelayed::TooHeavy { weight: 400_001, limit: 400_000 };
    for (asked, why, hint) in [
        (CarrierChoice::Auto, too_long(84, Profile::Legacy), "no carrier is relayed"),
        (OP_RETURN, too_long(100_000, Profile::Legacy), "--profile core30"),
        (OP_RETURN, too_long(100_001, Profile::Legacy), "choose another carrier (--carrier taproot)"),
        (OP_RETURN, too_long(100_001, Profile::Core30), "choose another carrier (--carrier taproot)"),
        (TAPROOT, heavy, "choose another carrier"),
    ] {
        let said = PublishError::NotRelayed { asked, why }.to_string();
        assert!(said.contains(hint) && said.contains(&why.to_string()), "{said}");
        assert_eq!(said.contains("core30"), hint.contains("core30") || why.to_string().contains("core30"), "{said}");
        assert_eq!(said.contains("--carrier taproot"), hint.contains("--carrier taproot"), "{said}");
    }
}

#[test]
fn policy_profiles_are_read_as_they_are_shown_and_follow_the_version_of_the_node() {
    for (profile, name, limit) in [(Profile::Core30, "core30", 100_000), (Profile::Legacy, "legacy", 83)] {
        assert_eq!((profile.to_string().as_str(), profile.op_return_limit()), (name, limit));
        assert_eq!(name.parse(), Ok(profile));
    }
    assert!("core31".parse::<Profile>().is_err());
    let of = [299_999, 300_000, 310_000].map(Profile::of_version);
    assert_eq!(of, [Profile::Legacy, Profile::Core30, Profile::Core30]);
    let none = NotRelayed::NodeSays { bytes: 70, limit: 0 }.to_string();
    assert!(none.contains("the node relays none"), "{none}");
    assert!(NotRelayed::NodeSays { bytes: 70, limit: 42 }.to_string().contains("the node relays 42"));
}

#[test]
fn the_heaviest_transaction_that_nodes_relay_is_relayed() {
    let heavy = |bytes: usize| {
        let output = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(vec![0; bytes]) };
        transaction(vec![TxIn::default()], vec![output])
    };
    let limit = MAX_STANDARD_WEIGHT.to_wu();
    let bytes = 90_000 + usize::try_from((limit - heavy(90_000).weight().to_wu()) / 4).expect("short");
    assert_eq!((heavy(bytes).weight().to_wu(), check_weight(&heavy(bytes))), (limit, Ok(())));
    let weight = limit + 4;
    assert_eq!(check_weight(&heavy(bytes + 1)), Err(NotRelayed::TooHeavy { weight, limit }));
}

#[test]
fn a_publication_that_locks_coins_has_a_backup_line_and_another_has_none() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000, 200_000]);
    let node = FakeNode::default();
    let locking = publish(&mut wallet, &node, &payload(500), &request(TAPROOT)).expect("published");
    let other = publish(&mut wallet, &node, &payload(60), &request(OP_RETURN)).expect("published");
    let locking = job(&wallet, locking.job).expect("job");
    let backup = Backup::of(&locking).expect("a line");
    assert_eq!((Some(backup.key_index), Some(backup.merkle_root)), (locking.key_index, locking.merkle_root));
    assert_eq!(backup.to_string().parse(), Ok(backup));
    assert_eq!(Backup::of(&job(&wallet, other.job).expect("job")), None);
}
