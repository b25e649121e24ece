//! Blocks that are not what their header names.

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, Script, ScriptBuf, TxMerkleNode, Witness};
use sortie::envelope::MAGIC;

/// Length of a block's header, in bytes.
const HEADER_LEN: usize = 80;

/// What is done to a block's bytes. Its header stays, but for [`MerkleRoot`](Self::MerkleRoot), and so does
/// the hash by which it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// The last transaction's first output pays another amount.
    Output,
    /// The last byte of each envelope in an output is another: other transactions are forced.
    Envelope,
    /// Every envelope in an output loses its magic bytes: nothing seems to be forced.
    HiddenOutputs,
    /// Every envelope in a witness loses its magic bytes.
    HiddenWitnesses,
    /// Each witness, but the coinbase's, has one more element.
    Witness,
    /// No transaction has a witness: what a node serves that keeps none.
    NoWitnesses,
    /// The last transaction is not there.
    LeftOut,
    /// Only the coinbase is there.
    Emptied,
    /// The last transaction is there twice.
    Twice,
    /// The last two transactions have changed places.
    Swapped,
    /// The block ends behind its coinbase.
    Cut,
    /// The last byte is missing.
    LastByte,
    /// A byte follows.
    Trailing,
    /// The header alone.
    HeaderOnly,
    /// No byte at all.
    Nothing,
    /// The header names another Merkle root: another block.
    MerkleRoot,
}

impl Alteration {
    /// Every alteration.
    pub const ALL: &[Self] = &[
        Self::Output,
        Self::Envelope,
        Self::HiddenOutputs,
        Self::HiddenWitnesses,
        Self::Witness,
        Self::NoWitnesses,
        Self::LeftOut,
        Self::Emptied,
        Self::Twice,
        Self::Swapped,
        Self::Cut,
        Self::LastByte,
        Self::Trailing,
        Self::HeaderOnly,
        Self::Nothing,
        Self::MerkleRoot,
    ];
}

/// The altered bytes of a block; bytes that are no block stay as they are.
pub(super) fn alter(raw: Vec<u8>, alteration: Alteration) -> Vec<u8> {
    let Ok(mut block) = deserialize::<Block>(&raw) else { return raw };
    match alteration {
        Alteration::Cut => return behind_the_coinbase(&raw, &block),
        Alteration::LastByte => return raw[..raw.len() - 1].to_vec(),
        Alteration::Trailing => return [&raw[..], &[0]].concat(),
        Alteration::HeaderOnly => return raw[..HEADER_LEN].to_vec(),
        Alteration::Nothing => return Vec::new(),
        Alteration::Output => {
            if let Some(output) = block.txdata.last_mut().and_then(|tx| tx.output.first_mut()) {
                output.value += Amount::ONE_SAT;
            }
        }
        Alteration::Envelope => change_outputs(&mut block, |script| {
            if let Some(last) = script.last_mut() {
                *last ^= 1;
            }
        }),
        Alteration::HiddenOutputs => change_outputs(&mut block, |script| hide(script)),
        Alteration::HiddenWitnesses => change_witnesses(&mut block, |elements| {
            elements.iter_mut().for_each(|element| hide(element));
        }),
        Alteration::Witness => change_witnesses(&mut block, |elements| elements.push(vec![1])),
        Alteration::NoWitnesses => {
            block.txdata.iter_mut().flat_map(|tx| &mut tx.input).for_each(|input| input.witness.clear());
        }
        Alteration::LeftOut => drop(block.txdata.pop()),
        Alteration::Emptied => block.txdata.truncate(1),
        Alteration::Twice => block.txdata.extend(block.txdata.last().cloned()),
        Alteration::Swapped => {
            let last = block.txdata.len() - 1;
            block.txdata.swap(last, last.saturating_sub(1));
        }
        Alteration::MerkleRoot => block.header.merkle_root = TxMerkleNode::from_byte_array([7; 32]),
    }
    serialize(&block)
}

fn behind_the_coinbase(raw: &[u8], block: &Block) -> Vec<u8> {
    let coinbase = block.txdata.first().map_or(0, |tx| tx.total_size());
    // The count of transactions is one byte below 253 of them.
    let count = if block.txdata.len() < 253 { 1 } else { 3 };
    raw[..HEADER_LEN + count + coinbase].to_vec()
}

/// Overwrites every occurrence of the magic bytes.
fn hide(bytes: &mut [u8]) {
    let found: Vec<_> = bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC).collect();
    let places: Vec<_> = found.into_iter().map(|(at, _)| at).collect();
    for at in places {
        bytes[at] ^= 0xff;
    }
}

fn holds_magic(script: &Script) -> bool {
    script.as_bytes().windows(MAGIC.len()).any(|window| window == MAGIC)
}

fn change_outputs(block: &mut Block, change: impl Fn(&mut Vec<u8>)) {
    let outputs = block.txdata.iter_mut().skip(1).flat_map(|tx| &mut tx.output);
    for output in outputs.filter(|output| holds_magic(&output.script_pubkey)) {
        let mut script = output.script_pubkey.to_bytes();
        change(&mut script);
        output.script_pubkey = ScriptBuf::from_bytes(script);
    }
}

fn change_witnesses(block: &mut Block, change: impl Fn(&mut Vec<Vec<u8>>)) {
    for input in block.txdata.iter_mut().skip(1).flat_map(|tx| &mut tx.input) {
        if !input.witness.is_empty() {
            let mut elements = input.witness.to_vec();
            change(&mut elements);
            input.witness = Witness::from_slice(&elements);
        }
    }
}
