//! Promises of the kit itself, on a Bitcoin in memory.

use super::*;
use anyhow::{Result, ensure};
use bitcoin::p2p::Magic;
use bitcoin::secp256k1::{Keypair, Secp256k1, SecretKey};
use sortie::chain::BlockSource;
use sortie::derive::Verdict;
use sortie::envelope::{Body, Carrier};
use sortie::manifest::{ExecutorKind, ExecutorSpec, Fields, Manifest, SequencerSet};

const START: u32 = 15;

/// Window, lag, items in a block, keys, threshold.
type Rules = (u16, u16, u16, u8, u8);

fn keys(count: u8) -> Vec<Keypair> {
    let secret = |n| SecretKey::from_slice(&[n; 32]).expect("a small number is a secret key");
    (1..=count).map(|n| Keypair::from_secret_key(&Secp256k1::new(), &secret(n))).collect()
}

fn rollup(bitcoin: &PaperBitcoin, rules: Rules) -> Result<HostileSequencer> {
    let (sequencing_window, max_lag, max_forced_per_block, count, threshold) = rules;
    let mut public: Vec<_> = keys(count).iter().map(|keypair| keypair.x_only_public_key().0).collect();
    public.sort_unstable_by_key(|key| key.serialize());
    let manifest = Manifest::new(Fields {
        name: "kit".into(),
        network: Magic::REGTEST,
        start: bitcoin.tip()?,
        sequencing_window,
        max_lag,
        max_forced_per_block,
        sequencers: SequencerSet::new(public, threshold)?,
        executor: ExecutorSpec { kind: ExecutorKind::Opaque, parameters: Vec::new() },
        predecessor: None,
    })?;
    HostileSequencer::new(manifest, keys(count), bitcoin)
}

#[test]
fn every_act_meets_its_verdict_whatever_the_rules_are() -> Result<()> {
    for rules in [(2, 1, 1, 1, 1), (3, 3, 1, 2, 2), (6, 2, 2, 3, 2), (12, 6, 100, 5, 1), (36, 18, 1000, 7, 7)] {
        let bitcoin = PaperBitcoin::new(START);
        let mut hostile = rollup(&bitcoin, rules)?;
        for act in Act::ALL.iter().chain(Act::ALL) {
            hostile.perform(*act, &bitcoin, &bitcoin)?;
        }
        let longest = hostile.observer().check_guarantee()?;
        ensure!(longest > 0, "nothing was forced");
        // A newcomer sees the same.
        let late = Observer::new(hostile.observer().manifest().clone(), &bitcoin)?;
        assert_eq!(late.head(), hostile.observer().head());
        assert_eq!(late.derivation(), hostile.observer().derivation());
    }
    Ok(())
}

#[test]
fn two_signed_batches_for_one_parent_are_seen_and_a_forged_one_accuses_nobody() -> Result<()> {
    let bitcoin = PaperBitcoin::new(START);
    let mut hostile = rollup(&bitcoin, (12, 6, 2, 3, 2))?;
    for act in [Act::Behave, Act::Replay, Act::Deny, Act::Forge, Act::Outsider, Act::Unsigned] {
        hostile.perform(act, &bitcoin, &bitcoin)?;
    }
    assert_eq!(hostile.observer().equivocations(), []);
    // A stranger who copies everything but the signatures.
    let signed = hostile.draft().block(false, &[b"signed"]);
    let mut forged = hostile.draft().block(false, &[b"forged"]);
    forged.signers.iter_mut().for_each(|signer| signer.keypair = keys(9)[8]);
    let post = Post {
        envelopes: [&signed, &forged]
            .map(|draft| Envelope { carrier: Carrier::Taproot, payload: draft.payload() })
            .into(),
        verdicts: vec![Verdict::Accept, Verdict::Drop(sortie::derive::DropReason::Replay)],
    };
    hostile.mine(&post, &bitcoin, &bitcoin)?;
    assert_eq!(hostile.observer().equivocations(), []);
    hostile.perform(Act::Equivocate, &bitcoin, &bitcoin)?;
    let seen = hostile.observer().equivocations();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].0.verdict, seen[0].0.parent), (Verdict::Accept, seen[0].1.parent));
    Ok(())
}

#[test]
fn an_act_that_must_wait_says_so() -> Result<()> {
    let bitcoin = PaperBitcoin::new(START);
    let mut hostile = rollup(&bitcoin, (12, 6, 2, 1, 1))?;
    assert_eq!((hostile.must_wait(Act::Stale), hostile.must_wait(Act::TimeLow)), (6, 1));
    assert!(hostile.prepare(Act::Stale).is_err());
    bitcoin.mine_empty(6);
    hostile.follow(&bitcoin)?;
    assert_eq!(hostile.must_wait(Act::Stale), 0);
    assert_eq!(hostile.prepare(Act::Stale)?.envelopes.len(), 1);
    Ok(())
}

#[test]
fn a_withheld_batch_is_good_until_the_chain_went_on_without_it() -> Result<()> {
    let bitcoin = PaperBitcoin::new(START);
    for silence in [0, 1, 13] {
        let mut hostile = rollup(&bitcoin, (6, 3, 2, 1, 1))?;
        bitcoin.mine_empty(1);
        hostile.follow(&bitcoin)?;
        hostile.perform(Act::Withhold, &bitcoin, &bitcoin)?;
        bitcoin.mine_empty(silence);
        hostile.follow(&bitcoin)?;
        let post = hostile.prepare(Act::Release)?;
        let dropped = Verdict::Drop(sortie::derive::DropReason::Replay);
        assert_eq!(post.verdicts, [if silence > 6 { dropped } else { Verdict::Accept }]);
        hostile.mine(&post, &bitcoin, &bitcoin)?;
    }
    Ok(())
}

#[test]
fn a_handover_by_the_set_takes_the_old_keys_out_of_force() -> Result<()> {
    let bitcoin = PaperBitcoin::new(START);
    let mut hostile = rollup(&bitcoin, (6, 3, 2, 3, 2))?;
    let old = hostile.draft().block(false, &[b"too late"]);
    let to = SequencerSet::new(vec![keys(1)[0].x_only_public_key().0], 1)?;
    let handover = Envelope { carrier: Carrier::OpReturn, payload: hostile.handover(&to) };
    hostile.mine(&Post { envelopes: vec![handover], verdicts: vec![Verdict::Accept] }, &bitcoin, &bitcoin)?;
    let old = Envelope { carrier: Carrier::Taproot, payload: old.payload() };
    let verdicts = vec![Verdict::Drop(sortie::derive::DropReason::SignatureCount)];
    hostile.mine(&Post { envelopes: vec![old], verdicts }, &bitcoin, &bitcoin)?;
    hostile.perform(Act::Behave, &bitcoin, &bitcoin)?;
    Ok(())
}

#[test]
fn an_observer_follows_branches_and_refuses_what_is_not_the_block() -> Result<()> {
    let bitcoin = PaperBitcoin::new(START);
    let mut hostile = rollup(&bitcoin, (6, 3, 2, 1, 1))?;
    let manifest = hostile.observer().manifest().clone();
    hostile.perform(Act::Behave, &bitcoin, &bitcoin)?;
    let (head, tip) = (hostile.observer().head(), bitcoin.tip()?.hash);
    bitcoin.reorg(1, vec![Vec::new(); 2]);
    hostile.follow(&bitcoin)?;
    assert_eq!(hostile.observer().head().header.number, 0);
    bitcoin.show(&tip)?;
    hostile.follow(&bitcoin)?;
    assert_eq!(hostile.observer().head(), head);

    for alteration in Alteration::ALL {
        let source = HostileSource::new(bitcoin.clone());
        source.give(Fault::Altered(START + 1, *alteration));
        let observed = Observer::new(manifest.clone(), &source);
        assert!(observed.is_err(), "{alteration:?} is not seen");
    }
    Ok(())
}

#[test]
fn a_source_without_faults_is_the_source_and_one_with_faults_can_be_healed() -> Result<()> {
    let bitcoin = PaperBitcoin::new(START);
    bitcoin.mine_envelopes(&[Envelope {
        carrier: Carrier::OpReturn,
        payload: rollup(&bitcoin, (6, 3, 2, 1, 1))?.payload(Body::Tx(b"forced".to_vec())),
    }])?;
    let source = HostileSource::new(bitcoin.clone());
    let all = |source: &HostileSource<'_, PaperBitcoin>| -> Result<_> {
        let mut seen = Vec::new();
        for height in 0..=START + 2 {
            let Some(hash) = source.block_hash(height)? else { continue };
            seen.push((source.header(&hash)?, source.block(&hash)?));
        }
        Ok((source.tip()?, seen))
    };
    let honest = all(&source)?;
    assert_eq!(honest.1.len() as u32, START + 2);
    let faults = [
        Fault::TimeOut,
        Fault::TimeOutAt(7),
        Fault::WarmingUp,
        Fault::Gap(START),
        Fault::Lost(START + 1),
        Fault::Pruned(3),
        Fault::Behind(1),
        Fault::Altered(START + 1, Alteration::Output),
        Fault::OtherBlock(START + 1),
        Fault::OtherHeader(START),
    ];
    for fault in faults {
        source.heal();
        source.give(fault);
        assert!(all(&source).ok().is_none_or(|seen| seen != honest), "{fault:?} changes nothing");
        source.heal();
        assert_eq!(all(&source)?, honest, "{fault:?}");
    }
    Ok(())
}
