//! `sortie envelope`: payloads and scripts, without any node.

use crate::config::Settings;
use crate::failure::Failure;
use crate::input::{hex_argument, xonly};
use crate::output::Output;
use bitcoin::consensus::encode::{self, deserialize};
use bitcoin::hashes::Hash;
use bitcoin::hex::DisplayHex;
use bitcoin::{Transaction, Txid, XOnlyPublicKey};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use sortie::envelope::{
    BadBlock, Body, Carrier, Flaw, Found, MIN_SHARED_TX, Payload, leaf_script, op_return_script, scan_block,
    scan_transaction,
};
use sortie::primitives::Namespace;
use sortie::queue::Place;

/// Make envelopes, and read them out of transactions and blocks
///
/// An envelope is what carries L2 transactions on Bitcoin: in an OP_RETURN output, or in a Taproot leaf script. Both
/// commands work without a node and always answer in JSON.
#[derive(Subcommand, Debug)]
pub enum Envelope {
    Encode(Encode),
    Decode(Decode),
}

const ENCODE_EXAMPLE: &str = "\
Example:
  sortie envelope encode --manifest rollup.toml --carrier op-return 0102aa
  {\"payload\":\"58259701...\",\"script\":\"6a0c58259701...\"}";

/// Make the payload and the script that carry L2 transactions
///
/// Prints {"payload":HEX,"script":HEX}. For op-return the script is the output's; for taproot it is the leaf script,
/// which the owner of --key may spend. HEX may also be `-` for stdin or `@FILE`.
#[derive(Args, Debug)]
#[command(after_long_help = ENCODE_EXAMPLE)]
pub struct Encode {
    /// How the payload is carried
    #[arg(long, value_enum)]
    carrier: CarrierName,
    /// For taproot: the x-only public key in the leaf
    #[arg(long, value_name = "XONLY", value_parser = xonly, required_if_eq("carrier", "taproot"))]
    key: Option<XOnlyPublicKey>,
    /// One L2 transaction, or a list of several in one envelope
    #[arg(long, value_enum, default_value = "tx")]
    kind: Kind,
    /// L2 transactions
    #[arg(required = true, value_name = "HEX")]
    txs: Vec<String>,
}

const DECODE_EXAMPLE: &str = "\
Examples:
  bitcoin-cli getrawtransaction $TXID | sortie envelope decode -
  bitcoin-cli getblock $HASH 0 | sortie envelope decode --block -";

/// Show every envelope and flawed candidate in a transaction or block
///
/// One JSON line each: place, carrier, namespace, kind (tx, txs, batch, handover, unsupported) with `body` or, for txs,
/// `items`; or `flaw`, if it is none. Without any, nothing is printed. With a manifest, only its namespace is shown.
#[derive(Args, Debug)]
#[command(after_long_help = DECODE_EXAMPLE)]
pub struct Decode {
    /// A raw transaction; `-` reads stdin, `@FILE` a file
    #[arg(value_name = "TXHEX", required_unless_present = "block")]
    transaction: Option<String>,
    /// A raw block instead
    #[arg(long, value_name = "HEX", conflicts_with = "transaction")]
    block: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CarrierName {
    OpReturn,
    Taproot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Tx,
    Txs,
}

#[derive(Serialize)]
struct Encoded {
    payload: String,
    script: String,
}

#[derive(Serialize)]
struct Candidate {
    place: Place,
    carrier: Carrier,
    namespace: Namespace,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flaw: Option<Flaw>,
}

impl From<&Found> for Candidate {
    fn from(found: &Found) -> Self {
        let (body, items) = match found.payload.as_ref().map(|payload| &payload.body) {
            Ok(Body::Txs(txs)) => (None, Some(txs.iter().map(|tx| tx.to_lower_hex_string()).collect())),
            Ok(Body::Tx(body) | Body::Batch(body) | Body::Handover(body) | Body::Unsupported(_, body)) => {
                (Some(body.to_lower_hex_string()), None)
            }
            Err(_) => (None, None),
        };
        Self {
            place: found.place(0),
            carrier: found.carrier,
            namespace: found.namespace,
            kind: found.payload.as_ref().ok().map(|payload| payload.body.name()),
            body,
            items,
            flaw: found.payload.as_ref().err().copied(),
        }
    }
}

/// Runs a command.
pub fn run(command: Envelope, settings: &Settings, out: &Output) -> Result<(), Failure> {
    match command {
        Envelope::Encode(encode) => out.json_line(&encode.run(settings)?),
        Envelope::Decode(decode) => {
            decode.run(settings)?.iter().try_for_each(|found| out.json_line(&Candidate::from(found)))
        }
    }
}

impl Encode {
    fn run(self, settings: &Settings) -> Result<Encoded, Failure> {
        let namespace = settings.manifest()?.rollup_id().namespace();
        let mut txs = self.txs.iter().map(|hex| hex_argument(hex)).collect::<Result<Vec<_>, _>>()?;
        let body = match (self.kind, txs.len()) {
            (Kind::Tx, 1) => Body::Tx(txs.remove(0)),
            (Kind::Tx, n) => {
                return Err(Failure::usage(format_args!("{n} transactions in one envelope need --kind txs")));
            }
            (Kind::Txs, _) => Body::Txs(txs),
        };
        if let Body::Txs(txs) = &body
            && let Some(short) = txs.iter().position(|tx| tx.len() < MIN_SHARED_TX)
        {
            let (number, len) = (short + 1, txs[short].len());
            let message = format!(
                "transaction {number} has {len} bytes; one that shares an envelope has {MIN_SHARED_TX} or more"
            );
            return Err(Failure::usage(message));
        }
        let payload = Payload { namespace, body }.encode().map_err(Failure::usage)?;
        let script = match (self.carrier, self.key) {
            (CarrierName::OpReturn, None) => op_return_script(&payload),
            (CarrierName::OpReturn, Some(_)) => {
                return Err(Failure::usage("--key is for --carrier taproot; an OP_RETURN output belongs to nobody"));
            }
            (CarrierName::Taproot, Some(key)) => leaf_script(&payload, &key),
            (CarrierName::Taproot, None) => return Err(Failure::usage("--carrier taproot needs --key XONLY")),
        };
        Ok(Encoded { payload: payload.to_lower_hex_string(), script: script.to_hex_string() })
    }
}

impl Decode {
    fn run(self, settings: &Settings) -> Result<Vec<Found>, Failure> {
        let namespace = settings.optional_manifest()?.map(|manifest| manifest.rollup_id().namespace());
        if let Some(block) = self.block {
            let raw = hex_argument(&block)?;
            return Ok(scan_block(&raw, namespace).map_err(bad_block)?.found);
        }
        let raw = hex_argument(&self.transaction.unwrap_or_default())?;
        if raw.len() == Txid::LEN {
            return Err(Failure::usage(
                "that is a txid; give the raw transaction, as `bitcoin-cli getrawtransaction TXID` prints it",
            ));
        }
        let transaction: Transaction = deserialize(&raw)
            .map_err(|error| Failure::usage(format_args!("not a raw Bitcoin transaction: {}", words(&error))))?;
        Ok(scan_transaction(&transaction, namespace))
    }
}

fn bad_block(error: BadBlock) -> Failure {
    match error {
        BadBlock::Encoding(error) => Failure::usage(format_args!("not a raw Bitcoin block: {}", words(&error))),
        error => Failure::usage(error),
    }
}

/// The decoder's own words, but for the one case where they tell nothing.
fn words(error: &encode::Error) -> String {
    match error {
        encode::Error::Io(_) => "it ends too early".into(),
        error => error.to_string(),
    }
}
