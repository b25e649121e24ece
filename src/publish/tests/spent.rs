use super::*;

#[test]
fn what_was_paid_since_a_time_is_the_sum_of_what_was_added_since_then() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000, 200_000]);
    let (node, payload) = (FakeNode::default(), payload(60));
    let prefix = &payload[..7];
    assert_eq!(fees_of(&wallet, 0, prefix).expect("read"), Spent::default());
    let done = publish(&mut wallet, &node, &payload, &request(OP_RETURN)).expect("published");
    let first = job(&wallet, done.job).expect("job");
    let spent = fees_of(&wallet, 0, prefix).expect("read");
    assert_eq!(spent.fee, first.current().expect("signed").fee);
    assert!(spent.first_at.is_some_and(|at| at >= first.created_at));
    bump(&mut wallet, &node, done.job, rate(1_000), &Caps::default()).expect("bumped");
    let raised = job(&wallet, done.job).expect("job").current().expect("signed").fee;
    assert!(raised > spent.fee);
    assert_eq!(fees_of(&wallet, 0, prefix).expect("read").fee, raised, "once, and what it costs more");
    assert_eq!(fees_of(&wallet, 0, b"another").expect("read"), Spent::default());
    assert_eq!(fees_of(&wallet, u64::MAX >> 1, prefix).expect("read"), Spent::default(), "all of it was before");
}

#[test]
fn what_the_node_has_is_not_given_up_as_absent_and_what_is_done_is_no_job_to_give_up() {
    let dir = tempfile::tempdir().expect("dir");
    let mut wallet = funded(dir.path(), &[100_000, 200_000]);
    let node = FakeNode::default();
    let done = publish(&mut wallet, &node, &payload(60), &request(OP_RETURN)).expect("published");
    assert!(!give_up_absent(&mut wallet, &node, done.job, "gone").expect("asked"), "the node has it");
    assert_eq!(job(&wallet, done.job).expect("job").state, JobState::RevealSent);
    let empty = FakeNode::default();
    assert!(give_up_absent(&mut wallet, &empty, done.job, "gone").expect("asked"));
    assert_eq!(job(&wallet, done.job).expect("job").state, JobState::Abandoned("gone".into()));
    assert!(!give_up_absent(&mut wallet, &empty, done.job, "twice").expect("asked"));
    assert_eq!(wallet.balance().total(), Amount::from_sat(300_000));
}
