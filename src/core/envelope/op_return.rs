//! The OP_RETURN carrier: `6a` and one minimal push of the payload.

use super::{Decoded, Flaw, Payload, candidate, put_push, take_push};
use alloc::vec::Vec;
use bitcoin::ScriptBuf;

const OP_RETURN: u8 = 0x6a;

/// The output script that carries `payload`.
pub fn op_return_script(payload: &[u8]) -> ScriptBuf {
    let mut script = Vec::with_capacity(payload.len() + 6);
    script.push(OP_RETURN);
    put_push(&mut script, payload);
    ScriptBuf::from_bytes(script)
}

/// Reads an output script.
pub(super) fn decode(script: &[u8]) -> Decoded<Payload> {
    let Some(namespace) = candidate(script) else {
        return Decoded::Absent;
    };
    match payload(script) {
        Ok(payload) => Decoded::Valid(payload),
        Err(flaw) => Decoded::Invalid(namespace, flaw),
    }
}

fn payload(script: &[u8]) -> Result<Payload, Flaw> {
    let mut rest = script.strip_prefix(&[OP_RETURN]).ok_or(Flaw::NotOpReturn)?;
    let data = take_push(&mut rest).ok_or(Flaw::NotOnePush)??;
    if !rest.is_empty() {
        return Err(Flaw::NotOnePush);
    }
    let payload = Payload::decode(data)?;
    if op_return_script(data).as_bytes() != script {
        return Err(Flaw::NotCanonical);
    }
    Ok(payload)
}
