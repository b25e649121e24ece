//! The Taproot carrier: a leaf script of chunks and drops, then `<key> OP_CHECKSIG`.
//!
//! No OP_IF and no push over 255 bytes: such a leaf stays valid under the limits that BIP-110 proposed.

use super::{Decoded, Flaw, Payload, candidate, put_push, take_push};
use alloc::vec::Vec;
use bitcoin::{ScriptBuf, Witness, XOnlyPublicKey};

const OP_DROP: u8 = 0x75;
const OP_2DROP: u8 = 0x6d;
const OP_CHECKSIG: u8 = 0xac;
const PUSH_KEY: u8 = 0x20;
const SUFFIX_LEN: usize = 34;
const CHUNK: usize = 255;
const ANNEX: u8 = 0x50;
const CONTROL_BASE: usize = 33;
const CONTROL_NODE: usize = 32;
const CONTROL_MAX_NODES: usize = 128;

/// The leaf script that carries `payload` and that the owner of `key` may spend.
pub fn leaf_script(payload: &[u8], key: &XOnlyPublicKey) -> ScriptBuf {
    ScriptBuf::from_bytes(encode(payload, &key.serialize()))
}

pub(super) fn encode(payload: &[u8], key: &[u8; 32]) -> Vec<u8> {
    let mut script = Vec::with_capacity(payload.len() + payload.len() / 80 + 2 * SUFFIX_LEN);
    let mut chunks = chunks(payload);
    while let Some(first) = chunks.next() {
        put_push(&mut script, first);
        match chunks.next() {
            Some(second) => {
                put_push(&mut script, second);
                script.push(OP_2DROP);
            }
            None => script.push(OP_DROP),
        }
    }
    script.push(PUSH_KEY);
    script.extend_from_slice(key);
    script.push(OP_CHECKSIG);
    script
}

/// Chunks of 255 bytes, the last one shorter; a last one of 1 byte is given another by the one before.
fn chunks(mut payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let len = if payload.len() == CHUNK + 1 { CHUNK - 1 } else { payload.len().min(CHUNK) };
        let (chunk, rest) = payload.split_at(len);
        payload = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Reads an input's witness; the output that it spends is never looked at.
pub(super) fn decode(witness: &Witness) -> Decoded<Payload> {
    let mut len = witness.len();
    if len >= 2 && witness.last().is_some_and(|last| last.first() == Some(&ANNEX)) {
        len -= 1;
    }
    let (Some(leaf), Some(control)) =
        (len.checked_sub(2).and_then(|at| witness.nth(at)), len.checked_sub(1).and_then(|at| witness.nth(at)))
    else {
        return Decoded::Absent;
    };
    let Some(namespace) = candidate(leaf) else {
        return Decoded::Absent;
    };
    match check_control(control).and_then(|()| payload(leaf)) {
        Ok(payload) => Decoded::Valid(payload),
        Err(flaw) => Decoded::Invalid(namespace, flaw),
    }
}

fn check_control(control: &[u8]) -> Result<(), Flaw> {
    let nodes = control.len().checked_sub(CONTROL_BASE).ok_or(Flaw::ControlBlockSize)?;
    if nodes % CONTROL_NODE != 0 || nodes / CONTROL_NODE > CONTROL_MAX_NODES {
        return Err(Flaw::ControlBlockSize);
    }
    match control[0] {
        0xc0 | 0xc1 => Ok(()),
        _ => Err(Flaw::LeafVersion),
    }
}

fn payload(script: &[u8]) -> Result<Payload, Flaw> {
    let (groups, key) = split_key(script)?;
    let cut = take_chunks(groups)?;
    let data = cut.concat();
    if !chunks(&data).eq(cut) {
        return Err(Flaw::BadChunking);
    }
    let payload = Payload::decode(&data)?;
    if encode(&data, key) != script {
        return Err(Flaw::NotCanonical);
    }
    Ok(payload)
}

/// What stands in front of `<key> OP_CHECKSIG`, and the key; every push of the script is judged on the way.
fn split_key(script: &[u8]) -> Result<(&[u8], &[u8; 32]), Flaw> {
    let mut rest = script;
    let mut found = None;
    while let Some((_, after_opcode)) = rest.split_first() {
        if let Some(key) = key_suffix(rest) {
            found = Some((&script[..script.len() - rest.len()], key));
        }
        match take_push(&mut rest) {
            Some(push) => {
                push?;
            }
            None => rest = after_opcode,
        }
    }
    found.ok_or(Flaw::BadKeySuffix)
}

/// `(push push OP_2DROP)*` and at most one `push OP_DROP` after them: the pushes.
fn take_chunks(mut groups: &[u8]) -> Result<Vec<&[u8]>, Flaw> {
    let mut cut = Vec::new();
    while !groups.is_empty() {
        cut.push(take_push(&mut groups).ok_or(Flaw::MissingDrop)??);
        if groups == [OP_DROP] {
            break;
        }
        cut.push(take_push(&mut groups).ok_or(Flaw::MissingDrop)??);
        groups = groups.strip_prefix(&[OP_2DROP]).ok_or(Flaw::MissingDrop)?;
    }
    Ok(cut)
}

fn key_suffix(rest: &[u8]) -> Option<&[u8; 32]> {
    match rest {
        [PUSH_KEY, key @ .., OP_CHECKSIG] => key.try_into().ok(),
        _ => None,
    }
}
