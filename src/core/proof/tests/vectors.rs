//! `tests/vectors/proof.json`: files with anchors and verdicts, header chains, and signed messages.

use super::headers::HeaderCase;
use super::statements::StatementCase;
use super::*;
use alloc::collections::BTreeSet;
use bitcoin::CompactTarget;
use bitcoin::p2p::Magic;

#[derive(Serialize, Deserialize)]
struct Vectors {
    cases: Vec<Case>,
    headers: Vec<HeaderCase>,
    statements: Vec<StatementCase>,
}

/// Every file that the tests judge, but for those that are no files.
pub(super) fn all_cases() -> Vec<Case> {
    static CASES: std::sync::LazyLock<Vec<Case>> = std::sync::LazyLock::new(make_cases);
    CASES.clone()
}

fn make_cases() -> Vec<Case> {
    [
        forced::cases(),
        forced::envelope_cases(),
        forced::start_cases(),
        mainnet_cases(),
        transactions::cases(),
        included::cases(),
        consistency::cases(),
        censored::cases(),
        evidence::cases(),
        receipts::cases(),
    ]
    .concat()
}

/// On mainnet a block without work is refused even as an anchor.
fn mainnet_cases() -> Vec<Case> {
    let mut world = World::new(crate::manifest::tests::signers::Signers::new([1], 1), Magic::BITCOIN);
    let tx = world.carry(crate::envelope::Carrier::OpReturn, crate::envelope::Body::Tx(b"item".to_vec()));
    world.mine([tx]);
    let make = |name: &str, bits: u32, verdict: &str| {
        let mut proof = world.item(0, 101..=101);
        let Raw(header) = &mut proof.headers.raw[0];
        header.bits = CompactTarget::from_consensus(bits);
        let anchors = AnchorList { bitcoin_headers: vec![(101, Raw(*header))], ..world.anchors() };
        case(&format!("forced: {name}"), &anchors, &world, Proof::Forced(proof), verdict)
    };
    vec![
        make("on mainnet, as easy as regtest", 0x207f_ffff, "refuted/bits"),
        make("on mainnet, without its work", 0x1d00_ffff, "refuted/work"),
    ]
}

fn generate() -> Vectors {
    Vectors {
        cases: [all_cases(), files::cases()].concat(),
        headers: headers::cases(),
        statements: statements::cases(),
    }
}

#[test]
fn the_vectors_hold() {
    let generated = generate();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/proof.json");
    if std::env::var_os("SORTIE_WRITE_VECTORS").is_some() {
        let lines = |values: Vec<Value>| {
            let lines: Vec<_> = values.iter().map(|value| format!("    {value}")).collect();
            lines.join(",\n")
        };
        let values = |value: Value| value.as_array().unwrap().clone();
        let text = format!(
            "{{\n  \"cases\": [\n{}\n  ],\n  \"headers\": [\n{}\n  ],\n  \"statements\": [\n{}\n  ]\n}}\n",
            lines(values(serde_json::to_value(&generated.cases).unwrap())),
            lines(values(serde_json::to_value(&generated.headers).unwrap())),
            lines(values(serde_json::to_value(&generated.statements).unwrap())),
        );
        std::fs::write(path, text).unwrap();
    }
    let read: Vectors = crate::envelope::tests::vector_file::read("proof.json");
    check(&read.cases);
    read.headers.iter().for_each(HeaderCase::check);
    read.statements.iter().for_each(StatementCase::check);
    let names = |vectors: &Vectors| vectors.cases.iter().map(|case| case.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&read), names(&generated), "SORTIE_WRITE_VECTORS=1 writes them anew");
    assert_eq!(BTreeSet::from_iter(names(&read)).len(), read.cases.len(), "a name twice");
}

/// The name that a reason has in vectors; a new reason does not compile until it is here.
fn refutations() -> Vec<Refutation> {
    use Refutation::*;
    let height = 0;
    let flaw = crate::envelope::Flaw::TooShort;
    let all = vec![
        OtherRollup,
        NoHeaders,
        HeightOverflow,
        Unlinked { height },
        NotInHeaders,
        WrongHeight { height },
        OtherBranch { height },
        Bits { height },
        Work { height },
        TimeWarp { height },
        NotAboveStart,
        OtherTransaction,
        SixtyFourBytes,
        NotCoinbase,
        UnequalBranches,
        IndexBeyondBranch,
        CoinbaseCarriesNothing,
        CoinbaseNotInBlock,
        RepeatedNode,
        NotInBlock,
        UnprovenWitness,
        NoWitnessCommitment,
        CoinbaseWitness,
        NoEnvelope,
        FlawedEnvelope { flaw },
        NoItem,
        InclusionProof,
        NotExecuted,
        Shrunk,
        ConsistencyProof,
        OtherQueue,
        Unsigned,
        Signer,
        BadSignature,
        BelowThreshold,
        OtherSigners,
        OtherPlace,
        OtherParent,
        OtherBitcoinHeader,
        Executed,
        NoRoom,
        OtherOrigin,
        NotEnclosed,
        SameLeaf,
        TrueHeader,
        NotNeighbours,
        InOrder,
        SameBlock,
        UnrelatedOrigins,
        SameState,
        EmptyReceipt,
        NotCovered,
        OtherOwnTransactions,
        OtherForcedSection,
        ReceiptKept,
    ];
    all.iter().for_each(|reason| match reason {
        OtherRollup
        | NoHeaders
        | HeightOverflow
        | Unlinked { .. }
        | NotInHeaders
        | WrongHeight { .. }
        | OtherBranch { .. }
        | Bits { .. }
        | Work { .. }
        | TimeWarp { .. }
        | NotAboveStart
        | OtherTransaction
        | SixtyFourBytes
        | NotCoinbase
        | UnequalBranches
        | IndexBeyondBranch
        | CoinbaseCarriesNothing
        | CoinbaseNotInBlock
        | RepeatedNode
        | NotInBlock
        | UnprovenWitness
        | NoWitnessCommitment
        | CoinbaseWitness
        | NoEnvelope
        | FlawedEnvelope { .. }
        | NoItem
        | InclusionProof
        | NotExecuted
        | Shrunk
        | ConsistencyProof
        | OtherQueue
        | Unsigned
        | Signer
        | BadSignature
        | BelowThreshold
        | OtherSigners
        | OtherPlace
        | OtherParent
        | OtherBitcoinHeader
        | Executed
        | NoRoom
        | OtherOrigin
        | NotEnclosed
        | SameLeaf
        | TrueHeader
        | NotNeighbours
        | InOrder
        | SameBlock
        | UnrelatedOrigins
        | SameState
        | EmptyReceipt
        | NotCovered
        | OtherOwnTransactions
        | OtherForcedSection
        | ReceiptKept => {}
    });
    all
}

#[test]
fn every_answer_has_a_vector() {
    let generated = generate();
    let mut seen: BTreeSet<String> = generated.cases.into_iter().map(|case| case.verdict).collect();
    seen.extend(generated.headers.into_iter().map(|case| case.judge().0));
    for reason in refutations() {
        let name = verdict_name(&Verdict::Refuted(reason));
        assert!(seen.remove(&name), "{name} ({reason}) has no vector");
    }
    let rest = [
        "needs_anchor/bitcoin",
        "needs_anchor/bitcoin_header",
        "needs_anchor/l2_block",
        "needs_anchor/sequencers",
        "needs_node/leaves_withheld",
        "needs_node/origin_withheld",
        "ok",
        "proven/broken_receipt",
        "proven/censored",
        "proven/conflicting_state",
        "proven/consistent",
        "proven/equivocation",
        "proven/forced",
        "proven/included",
        "unreadable/json",
        "unreadable/type",
        "unreadable/version",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), rest);
}

#[test]
fn every_verdict_is_told_in_words() {
    let mut facts = BTreeSet::new();
    for case in generate().cases {
        let Ok(file) = File::from_json(case.file.to_string().as_bytes()) else { continue };
        let verdict = judge(&file, &case.anchors.anchors());
        let said = verdict.to_string();
        let (kind, words) = said.split_once(": ").unwrap();
        let expected = match verdict {
            Verdict::Proven(_) => "proven",
            Verdict::Refuted(_) => "refuted",
            Verdict::NeedsAnchor(_) => "an anchor is missing",
            Verdict::NeedsNode(_) => "needs a node",
        };
        assert_eq!(kind, expected, "{said}");
        assert!(words.contains(' '), "{said}");
        if kind == "proven" {
            facts.insert(String::from(words));
        }
    }
    assert_eq!(facts.len(), 8, "an included item is claimed or derived, the other facts are one each: {facts:?}");
}
