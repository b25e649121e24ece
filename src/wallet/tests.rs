mod job;
mod payments;

use super::*;
use crate::chain::{Answer, ChainError, Mempool, MempoolEntry, RelayFacts, Verdict};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, FeeRate};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// A node that remembers what it was given, and refuses or fails on demand.
#[derive(Default)]
pub(crate) struct FakeNode {
    pub has: RefCell<BTreeSet<Txid>>,
    pub tested: RefCell<u32>,
    pub refuse: RefCell<Option<&'static str>>,
    /// Finds nothing wrong with a transaction until it is sent.
    pub passes_tests: bool,
    /// Fails after having taken the transactions: the answer is lost.
    pub lose_answers: RefCell<bool>,
    /// Nothing gets through to it.
    pub is_away: bool,
    pub version: Option<u32>,
    /// What somebody has spent.
    pub spent: RefCell<BTreeSet<OutPoint>>,
    pub data_carrier: Option<u32>,
}

impl FakeNode {
    fn away() -> Self {
        Self { is_away: true, ..Self::default() }
    }

    fn judge(&self, package: &[Transaction], refuse: Option<&str>) -> Vec<Verdict> {
        let answer = || match refuse {
            Some(words) => Answer::Refused(words.into()),
            None => Answer::Accepted,
        };
        package.iter().map(|tx| Verdict { txid: tx.compute_txid(), answer: answer() }).collect()
    }
}

impl Mempool for FakeNode {
    fn relay(&self) -> Result<RelayFacts, ChainError> {
        let version = self.version.unwrap_or(310_000);
        let floor = FeeRate::from_sat_per_kwu(25);
        let (packages, data_carrier) = (version >= 280_000, self.data_carrier);
        Ok(RelayFacts { version, floor, incremental: floor, packages, data_carrier })
    }

    fn test_accept(&self, package: &[Transaction], _: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        *self.tested.borrow_mut() += 1;
        Ok(self.judge(package, self.refuse.borrow().filter(|_| !self.passes_tests)))
    }

    fn submit(&self, package: &[Transaction], _: FeeRate) -> Result<Vec<Verdict>, ChainError> {
        if self.refuse.borrow().is_none() && !self.is_away {
            self.has.borrow_mut().extend(package.iter().map(Transaction::compute_txid));
        }
        if *self.lose_answers.borrow() || self.is_away {
            return Err(ChainError::Unreachable { url: "fake".into(), reason: "timed out".into() });
        }
        Ok(self.judge(package, *self.refuse.borrow()))
    }

    fn entry(&self, txid: &Txid) -> Result<Option<MempoolEntry>, ChainError> {
        let (fee, vsize) = (Amount::ZERO, 1);
        let entry = MempoolEntry { vsize, fee, ancestors_vsize: vsize, ancestors_fee: fee, descendants_fee: fee };
        Ok(self.has.borrow().contains(txid).then_some(entry))
    }

    fn transaction(&self, _: &Txid) -> Result<Option<Transaction>, ChainError> {
        Ok(None)
    }

    fn unspent(&self, _: &OutPoint) -> Result<Option<(TxOut, u32)>, ChainError> {
        Ok(None)
    }

    fn missing(&self, outpoints: &[OutPoint]) -> Result<Vec<OutPoint>, ChainError> {
        Ok(outpoints.iter().copied().filter(|outpoint| self.spent.borrow().contains(outpoint)).collect())
    }

    fn estimate(&self, _: u16) -> Result<Option<FeeRate>, ChainError> {
        Ok(None)
    }
}

/// A wallet with these coins, as unconfirmed change of coins that it had before.
pub(crate) fn funded(dir: &Path, sats: &[u64]) -> Wallet {
    let (mut wallet, _) = Wallet::create(dir, Network::Regtest, 0, None).expect("created");
    fund(&mut wallet, sats);
    wallet
}

fn fund(wallet: &mut Wallet, sats: &[u64]) {
    for (n, sat) in (1..).zip(sats) {
        change(wallet, n, *sat);
    }
    wallet.save().expect("saved");
}

/// Unconfirmed change of a coin that the wallet had before.
fn change(wallet: &mut Wallet, n: u8, sat: u64) {
    let from = OutPoint::new(Txid::from_byte_array([n; 32]), 0);
    let output = TxOut { value: Amount::from_sat(sat), script_pubkey: wallet.next_change() };
    let mut spent = TxUpdate::default();
    spent.txouts.insert(from, output.clone());
    wallet.learn(spent);
    let mut tx = transaction(vec![key_spend(from)], vec![output.clone()]);
    wallet.sign(&mut tx, &[output]).expect("signed");
    wallet.note(&[tx]);
}

fn rate() -> FeeRate {
    FeeRate::from_sat_per_kwu(250)
}

#[test]
fn what_create_wrote_opens_again_with_the_same_addresses() {
    let dir = tempfile::tempdir().expect("dir");
    let (mut wallet, words) = Wallet::create(dir.path(), Network::Regtest, 7, None).expect("created");
    let address = wallet.address().expect("address");
    drop(wallet);
    let mut wallet = Wallet::open(dir.path(), Network::Regtest).expect("opened");
    assert_eq!(wallet.address().expect("address"), address);
    assert_eq!((wallet.birthday(), wallet.is_locked()), (7, false));
    assert!(!format!("{wallet:?}").contains(&words.words()));
}

#[test]
fn a_wallet_is_neither_overwritten_nor_opened_twice_nor_on_another_network() {
    let dir = tempfile::tempdir().expect("dir");
    assert!(matches!(Wallet::open(dir.path(), Network::Regtest), Err(WalletError::Missing { .. })));
    let (wallet, _) = Wallet::create(dir.path(), Network::Regtest, 0, None).expect("created");
    assert!(matches!(Wallet::open(dir.path(), Network::Regtest), Err(WalletError::InUse { .. })));
    drop(wallet);
    assert!(matches!(Wallet::create(dir.path(), Network::Regtest, 0, None), Err(WalletError::Exists { .. })));
    assert!(matches!(Wallet::open(dir.path(), Network::Bitcoin), Err(WalletError::WrongNetwork { .. })));
}

#[test]
fn a_locked_wallet_shows_all_and_signs_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let passphrase = |text: &str| Passphrase::new(text.into()).expect("not empty");
    let (mut wallet, words) =
        Wallet::create(dir.path(), Network::Regtest, 0, Some(&passphrase("first"))).expect("created");
    let address = wallet.address().expect("address");
    fund(&mut wallet, &[50_000]);
    drop(wallet);
    let open = || Wallet::open(dir.path(), Network::Regtest).expect("opened");
    let mut wallet = open();
    assert!(wallet.is_locked());
    assert_eq!(
        (wallet.address().expect("address"), wallet.balance().total()),
        (address.clone(), Amount::from_sat(50_000))
    );
    let amount = Amount::from_sat(10_000);
    let error = wallet.send(&FakeNode::default(), &address, amount, rate(), &Caps::default()).expect_err("locked");
    assert!(matches!(error, WalletError::Locked { .. }), "{error}");
    assert!(matches!(wallet.change_passphrase(None, None), Err(WalletError::Locked { .. })));
    assert!(matches!(wallet.unlock(&passphrase("second")), Err(WalletError::WrongPassphrase { .. })));

    let mut wallet = open();
    wallet.change_passphrase(Some(&passphrase("first")), Some(&passphrase("second"))).expect("changed");
    let mut wallet = wallet.unlock(&passphrase("second")).expect("unlocked");
    wallet.send(&FakeNode::default(), &address, amount, rate(), &Caps::default()).expect("signed");
    // Closed for a while, it is free for others, and unlocked when it is opened again.
    let mut closed = wallet.close();
    let other = open();
    assert!(other.is_locked());
    assert!(matches!(closed.open(), Err(WalletError::InUse { .. })));
    drop(other);
    let wallet = closed.open().expect("opened");
    assert!(!wallet.is_locked() && !format!("{wallet:?}{closed:?}").contains(&words.words()));
    for file in std::fs::read_dir(dir.path()).expect("folder") {
        let bytes = std::fs::read(file.expect("file").path()).expect("read");
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(&words.words()) && !text.contains("tprv"), "a secret is on the disk");
    }
}

#[test]
fn a_damaged_wallet_says_so_and_is_left_alone() {
    let dir = tempfile::tempdir().expect("dir");
    drop(Wallet::create(dir.path(), Network::Regtest, 0, None).expect("created"));
    let seed = dir.path().join("seed");
    let whole = std::fs::read_to_string(&seed).expect("seed");
    std::fs::write(&seed, "sortie seed 1\n").expect("written");
    let error = Wallet::open(dir.path(), Network::Regtest).expect_err("damaged");
    assert!(matches!(error, WalletError::Damaged { .. }));
    std::fs::write(&seed, whole).expect("written");
    std::fs::remove_file(dir.path().join("wallet.sqlite")).expect("removed");
    let error = Wallet::open(dir.path(), Network::Regtest).expect_err("damaged");
    assert!(matches!(error, WalletError::Damaged { .. }));
}

#[test]
fn a_journal_of_another_version_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().expect("dir");
    drop(Wallet::create(dir.path(), Network::Regtest, 0, None).expect("created"));
    let path = dir.path().join("wallet.sqlite");
    // What was written before versions were counted.
    let db = Connection::open(&path).expect("database");
    db.pragma_update(None, "user_version", 0).expect("set");
    drop(db);
    let before = std::fs::read(&path).expect("read");
    let error = Wallet::open(dir.path(), Network::Regtest).expect_err("another version");
    assert!(matches!(error, WalletError::JournalVersion { found: 0, expected: 2, .. }));
    assert!(error.to_string().contains("version 0"), "{error}");
    assert_eq!(std::fs::read(&path).expect("read"), before);
}

#[test]
fn a_payment_is_remembered_before_the_node_answers() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[50_000]);
    let to = wallet.address().expect("address");
    let node = FakeNode::default();
    *node.lose_answers.borrow_mut() = true;
    let amount = Amount::from_sat(10_000);
    // The answer is lost, the transaction is not: the node has it when it is asked.
    let payment = wallet.send(&node, &to, amount, rate(), &Caps::default()).expect("it left");
    assert_eq!(payment.fee, Amount::from_sat(154));
    drop(wallet);
    let wallet = Wallet::open(dir.path(), Network::Regtest).expect("opened");
    assert_eq!(wallet.balance().total(), Amount::from_sat(50_000 - 154));
    assert_eq!(wallet.coins().expect("coins").len(), 1, "only the change may be spent");
}

#[test]
fn a_refused_or_too_dear_payment_costs_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[50_000]);
    let before = wallet.coins().expect("coins");
    let to = wallet.address().expect("address");
    let node = FakeNode::default();
    let amount = Amount::from_sat(10_000);
    let caps = Caps { max_fee: Some(Amount::from_sat(153)), max_fee_rate: None };
    let error = wallet.send(&node, &to, amount, rate(), &caps).expect_err("too dear");
    assert!(matches!(error, WalletError::FeeCap(FeeCap::Total { .. })));
    assert_eq!(*node.tested.borrow(), 0);
    *node.refuse.borrow_mut() = Some("no");
    let error = wallet.send(&node, &to, amount, rate(), &Caps::default()).expect_err("refused");
    assert!(matches!(error, WalletError::Refused { .. }));
    assert_eq!(wallet.coins().expect("coins"), before);
    let dust = wallet.send(&node, &to, Amount::from_sat(329), rate(), &Caps::default());
    assert!(matches!(dust, Err(WalletError::Dust { .. })));
}

#[test]
fn a_payment_whose_answer_was_lost_is_sent_again_and_not_paid_twice() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[50_000, 60_000]);
    let to = wallet.address().expect("address");
    let amount = Amount::from_sat(10_000);
    let caps = Caps::default();
    let error = wallet.send(&FakeNode::away(), &to, amount, rate(), &caps).expect_err("away");
    let WalletError::Unsent { txid, .. } = error else { panic!("{error}") };
    let left = wallet.coins().expect("coins");
    assert_eq!(left.len(), 1, "neither its coin nor its change can be spent");
    drop(wallet);

    let mut wallet = Wallet::open(dir.path(), Network::Regtest).expect("opened");
    let node = FakeNode::default();
    // Another payment is another one; on its way the first is settled, too.
    let other = wallet.send(&node, &to, amount + amount, rate(), &caps).expect("sent");
    assert!(!other.resumed && other.txid != txid);
    assert!(node.has.borrow().contains(&txid), "the same bytes");
    assert!(wallet.settle_payments(&node).expect("settled").is_empty());
    let same = wallet.send(&node, &to, amount, rate(), &caps).expect("sent");
    assert_eq!((same.txid, same.resumed), (txid, true), "nobody knew of it");
    wallet.acknowledge(&same).expect("known");
    let more = wallet.send(&node, &to, amount, rate(), &caps).expect("sent");
    assert!(!more.resumed && more.txid != txid, "now another one is meant");
    wallet.acknowledge(&more).expect("known");

    let error = wallet.send(&FakeNode::away(), &to, amount, rate(), &caps).expect_err("away");
    let WalletError::Unsent { txid, .. } = error else { panic!("{error}") };
    let again = wallet.send(&node, &to, amount, rate(), &caps).expect("sent");
    assert_eq!((again.txid, again.resumed), (txid, true), "asked for once more, it is that one");
}

#[test]
fn a_payment_that_was_refused_in_the_end_and_the_one_in_its_place_are_never_both_mined() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[20_000]);
    let to = wallet.address().expect("address");
    let (amount, caps) = (Amount::from_sat(10_000), Caps::default());
    wallet.send(&FakeNode::away(), &to, amount, rate(), &caps).expect_err("away");
    let words = "mempool min fee not met";
    let refusing = FakeNode { refuse: RefCell::new(Some(words)), ..FakeNode::default() };
    let settled = wallet.settle_payments(&refusing).expect("settled");
    assert_eq!(settled[0].outcome, PaymentOutcome::Refused(words.into()));
    let spent = |wallet: &Wallet, txid| wallet.bdk.tx_graph().get_tx(txid).expect("known").input[0].previous_output;
    let coin = spent(&wallet, settled[0].payment.txid);

    // A coin that would be chosen otherwise: it is smaller, and suffices.
    change(&mut wallet, 99, 15_000);
    let paid = wallet.send(&FakeNode::default(), &to, amount, rate(), &caps).expect("sent");
    assert!(!paid.resumed && paid.txid != settled[0].payment.txid);
    assert_eq!(spent(&wallet, paid.txid), coin);
    wallet.acknowledge(&paid).expect("known");
    let next = wallet.send(&FakeNode::default(), &to, amount, rate(), &caps).expect("sent");
    assert_ne!(spent(&wallet, next.txid), coin);
}

#[test]
fn a_wallet_that_bdk_stored_opens_with_its_coins_and_goes_on_from_there() {
    let dir = tempfile::tempdir().expect("dir");
    let words = "depend hint salon time subject page place public swap shoe effort hurdle";
    std::fs::write(dir.path().join("seed"), format!("sortie seed 1\nnetwork regtest\nbirthday 3\nwords {words}\n"))
        .expect("written");
    let db = Connection::open(dir.path().join("wallet.sqlite")).expect("database");
    db.execute_batch(include_str!("tests/version_0_1.sql")).expect("filled");
    drop(db);
    let open = || Wallet::open(dir.path(), Network::Regtest).expect("opened");
    let mut wallet = open();
    // Nobody has shown that they are mined; one of them was forgotten already.
    let store::Unshown { anchors, .. } = store::unshown(wallet.db()).expect("read");
    assert_eq!((wallet.synced_to().height, anchors.len(), wallet.balance().total()), (3, 1, Amount::ZERO));
    let (anchor, txid) = anchors[0];
    let mut shown = TxUpdate::default();
    shown.anchors.insert((anchor, txid));
    wallet.learn(shown);
    assert_eq!(wallet.balance().confirmed.to_sat(), 50_000);
    let address = wallet.address().expect("address").to_string();
    assert_eq!(address, "bcrt1puylsr9cdk6e8hd2ewwy0ymtyz8y5h9rzksggzsudun5749gs7axq4jnrvz");
    fund(&mut wallet, &[20_000]);
    drop(wallet);
    let wallet = open();
    assert_eq!(wallet.balance().total().to_sat(), 70_000);
    assert!(store::unshown(wallet.db()).expect("read").anchors.is_empty());
}

#[test]
fn every_store_is_on_a_sqlite_that_keeps_what_it_has_committed() {
    // 3.7.0 to 3.51.2 could lose a transaction when the write-ahead log was begun anew.
    assert!(rusqlite::version_number() > 3_051_002, "{}", rusqlite::version());
    let dir = tempfile::tempdir().expect("dir");
    let (wallet, _) = Wallet::create(dir.path(), Network::Regtest, 0, None).expect("created");
    let stored = crate::database::open(&dir.path().join("store.sqlite"), 1, "").expect("made");
    for db in [wallet.db(), &stored] {
        let version: String = db.query_row("SELECT sqlite_version()", [], |row| row.get(0)).expect("asked");
        assert_eq!(version, rusqlite::version());
    }
    let packages = include_str!("../../Cargo.lock").lines().filter(|line| *line == "name = \"libsqlite3-sys\"");
    assert_eq!(packages.count(), 1);
}

#[test]
fn a_coin_that_is_gone_is_left_out_and_where_nothing_else_is_left_that_is_said() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[50_000, 90_000]);
    let to = wallet.address().expect("address");
    let coins = wallet.coins().expect("coins");
    let coin = |sat| coins.iter().find(|coin| coin.value.to_sat() == sat).expect("there").outpoint;
    // What pays them is in the mempool; what spends one of them, too.
    let node = FakeNode::default();
    node.has.borrow_mut().extend(coins.iter().map(|coin| coin.outpoint.txid));
    node.spent.borrow_mut().insert(coin(50_000));
    let (amount, caps) = (Amount::from_sat(10_000), Caps::default());
    let paid = wallet.send(&node, &to, amount, rate(), &caps).expect("paid");
    let spent = &wallet.bdk.tx_graph().get_tx(paid.txid).expect("known").input;
    assert_eq!(spent.iter().map(|input| input.previous_output).collect::<Vec<_>>(), [coin(90_000)]);
    assert_eq!(wallet.coins().expect("coins").iter().filter(|left| left.outpoint == coin(50_000)).count(), 0);

    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[50_000]);
    let coin = wallet.coins().expect("coins")[0].outpoint;
    let node = FakeNode::default();
    node.spent.borrow_mut().insert(coin);
    // Forgotten with what pays it, it is there again once that is sent again.
    assert!(wallet.are_there(&node, &[coin]).expect("asked"));
    node.has.borrow_mut().insert(coin.txid);
    let error = wallet.send(&node, &to, amount, rate(), &caps).expect_err("spent");
    assert!(matches!(error, WalletError::SpentElsewhere { spent, .. } if spent.to_sat() == 50_000), "{error}");
}

#[test]
fn what_the_wallet_knows_is_worked_out_once_however_many_ask() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[50_000]);
    let first = wallet.view();
    wallet.confirmed();
    wallet.coins().expect("coins");
    assert!(Arc::ptr_eq(&first, &wallet.view()));
    change(&mut wallet, 9, 1_000);
    assert!(!Arc::ptr_eq(&first, &wallet.view()), "it has learnt something");
}
