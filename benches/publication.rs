//! What a payload costs on Bitcoin in vbytes: as Sortie plans it, as ord would inscribe it, and the least
//! that any commit and reveal could take.
//!
//! One input, pay-to-Taproot everywhere. ord's shape (0.23): a commit with change; a reveal with `ord`, a
//! content type and pushes of 520 bytes between OP_FALSE OP_IF and OP_ENDIF, and an output for the inscription.
//! The least: a commit without change, and a reveal whose leaf is the payload's bytes and `<key> OP_CHECKSIG`,
//! without a single opcode or length around the payload.

mod support;

use bitcoin::blockdata::script::Builder;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_ENDIF, OP_IF};
use bitcoin::script::PushBytesBuf;
use bitcoin::{Amount, FeeRate, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use bitcoin::{absolute, transaction};
use sortie::chain::RelayFacts;
use sortie::envelope::{Body, Carrier, MIN_PAYLOAD, Payload};
use sortie::primitives::Namespace;
use sortie::publish::{Request, quote};
use sortie::wallet::Wallet;
use support::Table;

const SIZES: [usize; 12] = [32, 80, 110, 150, 200, 300, 500, 1_000, 3_000, 10_000, 30_000, 100_000];
/// Bytes of a short L2 transaction, many of which share an envelope.
const SHARED_TX: usize = 110;

fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let (wallet, _) = Wallet::create(dir.path(), Network::Regtest, 0, None).expect("a wallet");
    let floor = FeeRate::from_sat_per_kwu(25);
    let relay = RelayFacts { version: 310_000, floor, incremental: floor, packages: true, data_carrier: None };
    let request = Request::at(FeeRate::BROADCAST_MIN);
    let ours = |payload: &[u8]| {
        let costs = quote(&wallet, payload, &request, relay).expect("a quote");
        let vsize = |carrier| {
            let cost = costs.iter().find(|cost| cost.carrier == carrier).expect("both carriers are quoted");
            cost.relayed.is_ok().then_some(cost.vsize)
        };
        (vsize(Carrier::OpReturn), vsize(Carrier::Taproot))
    };

    let mut table = Table::new(&[
        "payload, bytes",
        "OP_RETURN",
        "Taproot",
        "the cheaper",
        "ord's shape",
        "the least",
        "cheaper / ord",
        "cheaper / least",
    ]);
    for size in SIZES {
        let payload = vec![0x5a; size.max(MIN_PAYLOAD)];
        let (op_return, taproot) = ours(&payload);
        let cheaper = [op_return, taproot].into_iter().flatten().min().expect("one is relayed");
        let (ord, least) = (ord(&payload), least(&payload));
        let show = |vsize: Option<u64>| vsize.map_or("not relayed".into(), |vsize| vsize.to_string());
        let ratio = |to: u64| format!("{:.2}", cheaper as f64 / to as f64);
        table.row(&[&size, &show(op_return), &show(taproot), &cheaper, &ord, &least, &ratio(ord), &ratio(least)]);
    }
    table.print();

    let shared = |count: usize| {
        let namespace = Namespace([7; 4]);
        let body = Body::Txs(vec![vec![0x5a; SHARED_TX]; count]);
        ours(&Payload { namespace, body }.encode().expect("a payload")).1.expect("Taproot is relayed")
    };
    let mut table = Table::new(&["transactions of 110 bytes in one envelope", "vbytes", "one more costs"]);
    for count in [2, 3, 10, 100, 1_000] {
        let (size, more) = (shared(count), shared(count + 1));
        table.row(&[&count, &size, &(more - size)]);
    }
    table.print();
}

fn ord(payload: &[u8]) -> u64 {
    let mut builder = Builder::new().push_slice([2; 32]).push_opcode(OP_CHECKSIG);
    builder = builder.push_slice([]).push_opcode(OP_IF).push_slice(b"ord").push_slice([1]);
    builder = builder.push_slice(b"application/octet-stream").push_slice([]);
    for chunk in payload.chunks(520) {
        builder = builder.push_slice(PushBytesBuf::try_from(chunk.to_vec()).expect("a short push"));
    }
    commit_and_reveal(2, builder.push_opcode(OP_ENDIF).as_script().to_bytes())
}

fn least(payload: &[u8]) -> u64 {
    let signed = Builder::new().push_slice([2; 32]).push_opcode(OP_CHECKSIG);
    commit_and_reveal(1, [payload, signed.as_bytes()].concat())
}

/// Virtual size of a commit with so many outputs and of the reveal of `leaf`.
fn commit_and_reveal(outputs: usize, leaf: Vec<u8>) -> u64 {
    let signature = vec![0; 64];
    let control = vec![0; 33];
    let commit = transaction(Witness::from_slice(std::slice::from_ref(&signature)), outputs);
    let reveal = transaction(Witness::from_slice(&[signature, leaf, control]), 1);
    commit.weight().to_vbytes_ceil() + reveal.weight().to_vbytes_ceil()
}

fn transaction(witness: Witness, outputs: usize) -> Transaction {
    let input =
        TxIn { previous_output: OutPoint::null(), script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness };
    let script_pubkey = ScriptBuf::from_bytes([&[0x51, 0x20][..], &[3; 32]].concat());
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![input],
        output: vec![TxOut { value: Amount::ZERO, script_pubkey }; outputs],
    }
}
