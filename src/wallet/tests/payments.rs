use super::*;
use crate::wallet::OTHER_COINS;

#[test]
fn where_other_coins_are_gone_as_well_a_payment_ends_after_so_many() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[50_000; 10]);
    let to = wallet.address().expect("address");
    let node = FakeNode { refuse: RefCell::new(Some("bad-txns-inputs-missingorspent")), ..FakeNode::default() };
    let error = wallet.send(&node, &to, Amount::from_sat(10_000), rate(), &Caps::default()).expect_err("all are gone");
    assert!(matches!(error, WalletError::Refused { .. }), "{error}");
    assert_eq!(*node.tested.borrow(), 1 + OTHER_COINS);
    let left = 10 - usize::try_from(OTHER_COINS).expect("few");
    assert_eq!(wallet.coins().expect("coins").len(), left, "those of before are set aside");
}

#[test]
fn what_the_node_refuses_when_it_is_sent_is_no_payment_and_another_one_stands_in_its_place() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[50_000]);
    let to = wallet.address().expect("address");
    let (amount, caps) = (Amount::from_sat(10_000), Caps::default());
    let node = FakeNode { refuse: RefCell::new(Some("min fee")), passes_tests: true, ..FakeNode::default() };
    let error = wallet.send(&node, &to, amount, rate(), &caps).expect_err("refused");
    assert!(matches!(&error, WalletError::Refused { reason, .. } if reason == "min fee"), "{error}");
    assert_eq!(wallet.balance().total(), Amount::from_sat(50_000));
    let paid = wallet.send(&FakeNode::default(), &to, amount, rate(), &caps).expect("paid");
    assert!(!paid.resumed);
}

#[test]
fn a_payment_is_waited_for_until_it_is_acknowledged_or_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[50_000, 60_000]);
    let to = wallet.address().expect("address");
    let waiting = |wallet: &Wallet| -> Vec<Txid> {
        let waiting = wallet.waiting_payments().expect("read");
        waiting.iter().map(|payment| payment.tx.compute_txid()).collect()
    };
    assert!(waiting(&wallet).is_empty());
    let (amount, caps) = (Amount::from_sat(10_000), Caps::default());
    let away = FakeNode::away();
    let error = wallet.send(&away, &to, amount, rate(), &caps).expect_err("away");
    let WalletError::Unsent { txid, .. } = error else { panic!("{error}") };
    assert_eq!(waiting(&wallet), [txid], "its answer is not known");
    let node = FakeNode::default();
    wallet.settle_payments(&node).expect("settled");
    assert_eq!(waiting(&wallet), [txid], "it waits for a block");
    let refusing = FakeNode { refuse: RefCell::new(Some("no")), ..FakeNode::default() };
    wallet.send(&refusing, &to, amount + amount, rate(), &caps).expect_err("refused");
    assert_eq!(waiting(&wallet), [txid], "the refused one is not waited for");
}

#[test]
fn what_was_never_shown_is_coins_as_well_as_transactions() {
    let output = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() };
    let coin = store::Unshown { outputs: vec![(OutPoint::null(), output)], ..Default::default() };
    let block_id = bdk_wallet::chain::BlockId { height: 1, hash: bitcoin::BlockHash::all_zeros() };
    let anchor = bdk_wallet::chain::ConfirmationBlockTime { block_id, confirmation_time: 0 };
    let mined = store::Unshown { anchors: vec![(anchor, Txid::all_zeros())], ..Default::default() };
    assert!(store::Unshown::default().is_empty() && !coin.is_empty() && !mined.is_empty());
}
