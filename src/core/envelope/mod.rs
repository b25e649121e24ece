//! Payloads and the two ways to carry them in a Bitcoin transaction (specification, section 3).
//!
//! Guarantees: [`encode`](op_return_script) has one result for a payload, and decoding accepts that
//! result only, so that a payload on Bitcoin has one form. Decoders are total and linear: whatever the
//! bytes are, the answer is [`Decoded`]. What stands in an envelope is not judged here.

mod op_return;
mod raw_block;
mod search;
mod taproot;

pub use op_return::op_return_script;
pub use search::{BadBlock, Found, ScannedBlock, check_block, scan_block, scan_transaction};
pub use taproot::leaf_script;

use crate::codec::{Malformed, Reader, Write};
use crate::primitives::Namespace;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What every envelope begins with: three bytes of `SHA256("sortie/envelope")` and the version, 1.
pub const MAGIC: [u8; 4] = [0x58, 0x25, 0x97, 0x01];

/// Shortest payload, in bytes.
pub const MIN_PAYLOAD: usize = 10;

/// Longest payload, in bytes. What Bitcoin nodes relay may be less.
pub const MAX_PAYLOAD: usize = 400_000;

/// Bytes in front of a payload's body: magic, namespace, kind.
pub const HEADER_LEN: usize = 9;

/// Shortest transaction that may share an envelope, in bytes.
pub const MIN_SHARED_TX: usize = 64;

/// Where in a Bitcoin transaction a payload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// In an input's witness, as a Taproot leaf script.
    Taproot,
    /// In an output script, behind OP_RETURN.
    OpReturn,
}

/// Why a candidate is not an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// The output script does not begin with OP_RETURN.
    #[error("the script does not begin with OP_RETURN")]
    NotOpReturn,
    /// Something else than one push follows OP_RETURN.
    #[error("OP_RETURN is not followed by exactly one push")]
    NotOnePush,
    /// A push runs past the end of the script.
    #[error("a push runs past the end of the script")]
    TruncatedPush,
    /// A push has a shorter form.
    #[error("a push is not in its shortest form")]
    NonMinimalPush,
    /// The control block's length is not 33 + 32k with k in 0..=128.
    #[error("the control block's length is not 33 + 32k, k <= 128")]
    ControlBlockSize,
    /// The control block does not begin with c0 or c1.
    #[error("the leaf version is not c0")]
    LeafVersion,
    /// The payload is not cut as the specification cuts it.
    #[error("the payload is not cut into chunks of 255 bytes")]
    BadChunking,
    /// Pushes are not followed by their drops.
    #[error("a push is not followed by its drop")]
    MissingDrop,
    /// The script does not end in `<32 bytes> OP_CHECKSIG` right after the chunks.
    #[error("the script does not end in <key> OP_CHECKSIG")]
    BadKeySuffix,
    /// The payload does not begin with the magic bytes.
    #[error("the payload does not begin with the magic bytes")]
    NotAtStart,
    /// The payload has less than [`MIN_PAYLOAD`] bytes.
    #[error("the payload is shorter than 10 bytes")]
    TooShort,
    /// The payload has more than [`MAX_PAYLOAD`] bytes.
    #[error("the payload is longer than 400,000 bytes")]
    TooLong,
    /// A list of transactions that is empty, cut, or has one shorter than [`MIN_SHARED_TX`] bytes.
    #[error("the list of transactions is malformed")]
    TxsMalformed,
    /// Another encoding of a payload than the one that the specification gives.
    #[error("the script is not the canonical encoding of its payload")]
    NotCanonical,
}

/// A total decoder's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// Nothing here looks like an envelope.
    Absent,
    /// A candidate that is not an envelope.
    Invalid(Namespace, Flaw),
    /// An envelope.
    Valid(T),
}

/// What a payload holds, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// 0x01: one L2 transaction.
    Tx(Vec<u8>),
    /// 0x02: several L2 transactions, in order.
    Txs(Vec<Vec<u8>>),
    /// 0x10: a sequencer's batch, not looked into yet.
    Batch(Vec<u8>),
    /// 0x11: a handover to another sequencer set, not looked into yet.
    Handover(Vec<u8>),
    /// Any other kind: shown by tools, ignored by derivation.
    Unsupported(u8, Vec<u8>),
}

impl Body {
    /// The kind's byte.
    pub fn kind(&self) -> u8 {
        match self {
            Body::Tx(_) => 0x01,
            Body::Txs(_) => 0x02,
            Body::Batch(_) => 0x10,
            Body::Handover(_) => 0x11,
            Body::Unsupported(kind, _) => *kind,
        }
    }

    /// The kind's name, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Body::Tx(_) => "tx",
            Body::Txs(_) => "txs",
            Body::Batch(_) => "batch",
            Body::Handover(_) => "handover",
            Body::Unsupported(..) => "unsupported",
        }
    }
}

/// A payload: a rollup's namespace and a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The rollup that it is for.
    pub namespace: Namespace,
    /// What it holds.
    pub body: Body,
}

impl Payload {
    /// The payload's bytes.
    ///
    /// # Errors
    /// The [`Flaw`] that a decoder would find, if these are no payload: too short, too long, a list with a
    /// short transaction or none.
    pub fn encode(&self) -> Result<Vec<u8>, Flaw> {
        let mut bytes = Vec::new();
        bytes.put(&MAGIC);
        bytes.put(&self.namespace.0);
        bytes.push(self.body.kind());
        match &self.body {
            Body::Txs(txs) => txs.iter().for_each(|tx| bytes.put_var_bytes(tx)),
            Body::Tx(body) | Body::Batch(body) | Body::Handover(body) | Body::Unsupported(_, body) => {
                bytes.put(body);
            }
        }
        Payload::decode(&bytes).map(|_| bytes)
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// The first [`Flaw`], if it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, Flaw> {
        if !bytes.starts_with(&MAGIC) {
            return Err(Flaw::NotAtStart);
        }
        if bytes.len() < MIN_PAYLOAD {
            return Err(Flaw::TooShort);
        }
        if bytes.len() > MAX_PAYLOAD {
            return Err(Flaw::TooLong);
        }
        let mut reader = Reader::new(&bytes[MAGIC.len()..]);
        let (Ok(namespace), Ok(kind)) = (reader.array(), reader.u8()) else {
            return Err(Flaw::TooShort);
        };
        let rest = reader.rest();
        let body = match kind {
            0x01 => Body::Tx(rest.to_vec()),
            0x02 => Body::Txs(decode_txs(reader).map_err(|Malformed| Flaw::TxsMalformed)?),
            0x10 => Body::Batch(rest.to_vec()),
            0x11 => Body::Handover(rest.to_vec()),
            _ => Body::Unsupported(kind, rest.to_vec()),
        };
        Ok(Self { namespace: Namespace(namespace), body })
    }
}

fn decode_txs(mut reader: Reader<'_>) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut txs = Vec::new();
    while !reader.is_empty() {
        let tx = reader.var_bytes()?;
        if tx.len() < MIN_SHARED_TX {
            return Err(Malformed);
        }
        txs.push(tx.to_vec());
    }
    Ok(txs)
}

/// The namespace of a candidate: the first place in `script` where magic bytes and a namespace stand.
fn candidate(script: &[u8]) -> Option<Namespace> {
    let at = memchr::memmem::find(script, &MAGIC)? + MAGIC.len();
    let namespace = script.get(at..at + size_of::<Namespace>())?;
    namespace.try_into().ok().map(Namespace)
}

/// Takes one push off the front of a script: its data, if its form is the shortest.
///
/// `None` if an opcode that pushes no data stands there; OP_0 is such a one.
fn take_push<'a>(script: &mut &'a [u8]) -> Option<Result<&'a [u8], Flaw>> {
    let mut reader = Reader::new(script);
    let opcode = reader.u8().ok()?;
    let (len, minimum) = match opcode {
        0x01..=0x4b => (Ok(usize::from(opcode)), 0),
        0x4c => (reader.u8().map(usize::from), 0x4c),
        0x4d => (reader.u16().map(usize::from), 0x100),
        0x4e => (reader.u32().map(|len| len as usize), 0x1_0000),
        _ => return None,
    };
    let Ok(data) = len.and_then(|len| reader.bytes(len)) else {
        return Some(Err(Flaw::TruncatedPush));
    };
    if data.len() < minimum {
        return Some(Err(Flaw::NonMinimalPush));
    }
    *script = reader.rest();
    Some(Ok(data))
}

/// Appends the shortest push of `data`; for payload data, which is never one small number.
fn put_push(script: &mut Vec<u8>, data: &[u8]) {
    let len = data.len().to_le_bytes();
    match data.len() {
        0..=0x4b => script.push(len[0]),
        0x4c..=0xff => script.put(&[0x4c, len[0]]),
        0x100..=0xffff => {
            script.push(0x4d);
            script.put(&len[..2]);
        }
        _ => {
            script.push(0x4e);
            script.put(&len[..4]);
        }
    }
    script.put(data);
}

#[cfg(test)]
pub(crate) mod tests;
