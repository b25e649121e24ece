//! Batches and handovers: what a sequencer set signs and posts to Bitcoin (specification, section 6).
//!
//! Only the encoding and the signatures are here; whether a batch or handover counts is decided by
//! `derive`. Decoding is linear and its output bounded by [`MAX_DATA`].

use crate::codec::{Malformed, Reader, Write};
use crate::manifest::{SequencerSet, SetError, read_block_ref};
use crate::primitives::{BlockRef, Hash32, L2Number, RollupId, tagged_hash};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// Most blocks in one batch.
pub const MAX_BLOCKS: u64 = 4096;

/// Most bytes of data after decompression.
pub const MAX_DATA: usize = 4_194_304;

const CODEC_PLAIN: u8 = 0;
const CODEC_DEFLATE: u8 = 1;
const DEFLATE_LEVEL: u8 = 9;

/// A block as a batch states it: everything else follows from its parent and the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchBlock {
    /// Whether the origin is the one after the parent's.
    pub advances: bool,
    /// Timestamp minus the parent's, seconds.
    pub seconds: u64,
    /// The block's own transactions, each of 1 byte or more.
    pub txs: Vec<Vec<u8>>,
}

/// The fields of a batch in front of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchTerms {
    /// Number of the first block.
    pub first_number: L2Number,
    /// Hash of the block before the first.
    pub parent: Hash32,
    /// Origin of the last block.
    pub last_origin: BlockRef,
}

/// A batch's body, borrowed, with its data still encoded.
#[derive(Clone, Debug)]
pub struct BatchBody<'a> {
    /// The fields in front of the data.
    pub terms: BatchTerms,
    /// How the data is encoded.
    pub codec: u8,
    /// The encoded blocks.
    pub data: &'a [u8],
    signed: &'a [u8],
    signatures: &'a [u8],
}

/// Data in a codec that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCodec;

impl<'a> BatchBody<'a> {
    /// Reads a batch's body up to its data.
    ///
    /// # Errors
    /// If it ends early, or a number is not in its one form.
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let terms = BatchTerms {
            first_number: reader.u64()?,
            parent: Hash32(reader.array()?),
            last_origin: read_block_ref(&mut reader)?,
        };
        let codec = reader.u8()?;
        let data = reader.var_bytes()?;
        let signatures = reader.rest();
        Ok(Self { terms, codec, data, signed: &body[..body.len() - signatures.len()], signatures })
    }

    /// Whether the codec is one of this version's.
    pub fn check_codec(&self) -> Result<(), UnknownCodec> {
        matches!(self.codec, CODEC_PLAIN | CODEC_DEFLATE).then_some(()).ok_or(UnknownCodec)
    }

    /// What the set in force must have signed.
    pub fn message(&self, rollup_id: &RollupId, handovers: u32) -> Hash32 {
        batch_message(rollup_id, handovers, self.signed)
    }

    /// The signatures, as [`SequencerSet::verify`] reads them.
    pub fn signatures(&self) -> &'a [u8] {
        self.signatures
    }

    /// Decodes the data, and tells its length; to be called once the signatures are known to be good.
    pub(crate) fn blocks(&self) -> Result<(Vec<BatchBlock>, usize), Malformed> {
        match self.codec {
            CODEC_PLAIN => Ok((decode_blocks(self.data)?, self.data.len())),
            CODEC_DEFLATE => {
                let data = inflate(self.data).ok_or(Malformed)?;
                Ok((decode_blocks(&data)?, data.len()))
            }
            _ => Err(Malformed),
        }
    }
}

/// A batch's body in front of its signatures, with the shorter of the two codecs; plain if they are as long.
///
/// Every transaction must have 1 byte or more, and there must be 1..=[`MAX_BLOCKS`] blocks.
pub fn encode_batch(terms: &BatchTerms, blocks: &[BatchBlock]) -> Vec<u8> {
    let plain = encode_blocks(blocks);
    let deflated = compress_to_vec(&plain, DEFLATE_LEVEL);
    let (codec, data) = if deflated.len() < plain.len() { (CODEC_DEFLATE, deflated) } else { (CODEC_PLAIN, plain) };
    encode_batch_data(terms, codec, &data)
}

/// A batch's body in front of its signatures, with data as given.
pub fn encode_batch_data(terms: &BatchTerms, codec: u8, data: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put(&terms.first_number.to_le_bytes());
    body.put(terms.parent.as_ref());
    body.put(&terms.last_origin.height.to_le_bytes());
    body.put(terms.last_origin.hash.as_ref());
    body.push(codec);
    body.put_var_bytes(data);
    body
}

/// What the set in force signs under a batch's body.
pub fn batch_message(rollup_id: &RollupId, handovers: u32, body: &[u8]) -> Hash32 {
    tagged_hash("sortie/batch", &[rollup_id.as_ref(), &handovers.to_le_bytes(), body])
}

/// The blocks' plain encoding (codec 0).
pub fn encode_blocks(blocks: &[BatchBlock]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_varint(blocks.len() as u64);
    for block in blocks {
        bytes.push(block.advances.into());
        bytes.put_varint(block.seconds);
        bytes.put_varint(block.txs.len() as u64);
        block.txs.iter().for_each(|tx| bytes.put_var_bytes(tx));
    }
    bytes
}

fn decode_blocks(data: &[u8]) -> Result<Vec<BatchBlock>, Malformed> {
    let mut reader = Reader::new(data);
    let count = reader.varint()?;
    if !(1..=MAX_BLOCKS).contains(&count) {
        return Err(Malformed);
    }
    let blocks = (0..count).map(|_| read_block(&mut reader)).collect::<Result<_, _>>()?;
    if reader.is_empty() { Ok(blocks) } else { Err(Malformed) }
}

fn read_block(reader: &mut Reader<'_>) -> Result<BatchBlock, Malformed> {
    let advances = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(Malformed),
    };
    let seconds = reader.varint()?;
    let count = reader.varint()?;
    let mut txs = Vec::new();
    for _ in 0..count {
        match reader.var_bytes()? {
            [] => return Err(Malformed),
            tx => txs.push(tx.to_vec()),
        }
    }
    Ok(BatchBlock { advances, seconds, txs })
}

/// One raw DEFLATE stream that uses all input and gives [`MAX_DATA`] bytes or less.
fn inflate(data: &[u8]) -> Option<Vec<u8>> {
    let mut state = Box::<DecompressorOxide>::default();
    // One byte more than allowed: a stream that ends exactly at the limit is told from one that goes on.
    let mut output = vec![0; data.len().saturating_mul(4).clamp(1, MAX_DATA + 1)];
    let (mut read, mut written) = (0, 0);
    loop {
        let (status, used, made) =
            decompress(&mut state, &data[read..], &mut output, written, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF);
        read += used;
        written += made;
        match status {
            TINFLStatus::Done if read == data.len() && written <= MAX_DATA => {
                output.truncate(written);
                return Some(output);
            }
            TINFLStatus::HasMoreOutput if output.len() <= MAX_DATA => {
                let len = output.len().saturating_mul(2).min(MAX_DATA + 1);
                output.resize(len, 0);
            }
            _ => return None,
        }
    }
}

/// A handover's body, read.
#[derive(Clone, Debug)]
pub struct HandoverBody<'a> {
    /// Handovers in force when it was made.
    pub seq: u32,
    /// The next set.
    pub set: SequencerSet,
    signed: &'a [u8],
    signatures: &'a [u8],
}

impl<'a> HandoverBody<'a> {
    /// Reads a handover's body.
    ///
    /// # Errors
    /// If it ends early, or a number is not in its one form.
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let seq = reader.u32()?;
        let set = SequencerSet::read(&mut reader)?.map_err(|_: SetError| Malformed)?;
        let signatures = reader.rest();
        Ok(Self { seq, set, signed: &body[..body.len() - signatures.len()], signatures })
    }

    /// What the set in force must have signed.
    pub fn message(&self, rollup_id: &RollupId) -> Hash32 {
        handover_message(rollup_id, self.signed)
    }

    /// The signatures, as [`SequencerSet::verify`] reads them.
    pub fn signatures(&self) -> &'a [u8] {
        self.signatures
    }
}

/// A handover's body in front of its signatures.
pub fn encode_handover(seq: u32, set: &SequencerSet) -> Vec<u8> {
    let mut body = seq.to_le_bytes().to_vec();
    set.write(&mut body);
    body
}

/// What the set in force signs under a handover's body.
pub fn handover_message(rollup_id: &RollupId, body: &[u8]) -> Hash32 {
    tagged_hash("sortie/handover", &[rollup_id.as_ref(), body])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deflate_must_use_all_input_and_stay_within_the_limit() {
        let exact = compress_to_vec(&vec![7; MAX_DATA], 6);
        assert_eq!(inflate(&exact).map(|data| data.len()), Some(MAX_DATA));
        assert_eq!(inflate(&compress_to_vec(&vec![7; MAX_DATA + 1], 6)), None);

        let stream = compress_to_vec(b"some data, some data", 6);
        assert_eq!(inflate(&stream).as_deref(), Some(&b"some data, some data"[..]));
        assert_eq!(inflate(&[&stream[..], &[0]].concat()), None, "a byte after the stream");
        assert_eq!(inflate(&stream[..stream.len() - 1]), None, "cut");
        assert_eq!(inflate(&[]), None);
    }

    #[test]
    fn a_batch_is_encoded_by_the_shorter_codec() {
        let last_origin = BlockRef { height: 9, hash: bitcoin::hashes::Hash::from_byte_array([3; 32]) };
        let terms = BatchTerms { first_number: 7, parent: Hash32([2; 32]), last_origin };
        let mut met = [false; 3];
        for len in 1..64 {
            let blocks = vec![BatchBlock { advances: true, seconds: 600, txs: vec![vec![9; len]] }];
            let body = encode_batch(&terms, &blocks);
            let read = BatchBody::decode(&body).unwrap();
            assert_eq!((read.terms, read.signatures()), (terms, &[][..]));
            let plain = encode_blocks(&blocks);
            assert_eq!(read.blocks(), Ok((blocks, plain.len())));
            let order = compress_to_vec(&plain, DEFLATE_LEVEL).len().cmp(&plain.len());
            assert_eq!(read.codec, if order.is_lt() { CODEC_DEFLATE } else { CODEC_PLAIN }, "{len}");
            met[(order as i8 + 1) as usize] = true;
        }
        assert_eq!(met, [true; 3], "shorter, as long, longer");
    }

    #[test]
    fn hostile_data_is_malformed() {
        let good = encode_blocks(&[BatchBlock { advances: true, seconds: 9, txs: vec![vec![1, 2]] }]);
        assert!(decode_blocks(&good).is_ok());
        let hostile: [(&str, &[u8]); 6] = [
            ("no block", &[0]),
            ("4097 blocks", &[0xfd, 0x01, 0x10]),
            ("an advance of 2", &[1, 2, 0, 0]),
            ("an empty transaction", &[1, 0, 0, 1, 0]),
            ("something after the end", &[1, 0, 0, 0, 0]),
            ("a count beyond the data", &[1, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x7f]),
        ];
        for (name, data) in hostile {
            assert_eq!(decode_blocks(data), Err(Malformed), "{name}");
        }
    }
}
