//! A model sequencer: it builds blocks by the rules that everyone derives by, and can be made to err.

use super::*;
use crate::batch::{
    BatchBlock, BatchTerms, batch_message, encode_batch_data, encode_blocks, encode_handover, handover_message,
};
use crate::manifest::SIGNATURE_ENTRY_LEN;
use crate::manifest::tests::signers::Signers;
use crate::primitives::RollupId;
use miniz_oxide::deflate::compress_to_vec;

pub(super) type Entry = [u8; SIGNATURE_ENTRY_LEN];

/// A batch in the making. Every field may be changed to make it wrong; [`body`](Self::body) signs what is
/// there then.
#[derive(Clone)]
pub(super) struct Draft {
    pub terms: BatchTerms,
    pub blocks: Vec<BatchBlock>,
    pub codec: u8,
    /// What is made of the plain encoding of the blocks; else the codec decides.
    pub data: Option<fn(Vec<u8>) -> Vec<u8>>,
    pub signers: Signers,
    /// Which of them sign, by index.
    pub by: Vec<u8>,
    pub rollup_id: RollupId,
    pub handovers: u32,
    /// Changes what was signed after it was signed.
    pub tamper: Option<fn(&mut Vec<u8>)>,
    /// Changes to the signatures, in order.
    pub entries: Vec<fn(&mut Vec<Entry>)>,
    /// What stands after the signatures.
    pub tail: Vec<u8>,
    /// Where the whole body is cut.
    pub len: usize,
    /// The header time of the Bitcoin block that will carry it.
    pub carrier_time: u32,
    derivation: Derivation,
    start: L2Head,
    /// What the blocks are, if nothing was made wrong.
    model: Vec<L2Block>,
    /// The same of the batches before this one.
    before: Vec<L2Block>,
}

impl Draft {
    pub fn new(derivation: &Derivation, manifest: &Manifest, signers: &Signers, carrier_time: u32) -> Self {
        let start = derivation.head();
        Self {
            terms: BatchTerms {
                first_number: start.header.number + 1,
                parent: start.hash,
                last_origin: start.header.origin,
            },
            blocks: Vec::new(),
            codec: 0,
            data: None,
            signers: signers.clone(),
            by: (0..signers.set().threshold()).collect(),
            rollup_id: manifest.rollup_id(),
            handovers: derivation.handovers(),
            tamper: None,
            entries: Vec::new(),
            tail: Vec::new(),
            len: usize::MAX,
            carrier_time,
            derivation: derivation.clone(),
            start,
            model: Vec::new(),
            before: Vec::new(),
        }
    }

    /// A batch on top of this one, without blocks yet.
    pub fn next(&self) -> Self {
        let start = self.head();
        let terms =
            BatchTerms { first_number: start.header.number + 1, parent: start.hash, last_origin: start.header.origin };
        Self { terms, start, blocks: Vec::new(), model: Vec::new(), before: self.chain(), ..self.clone() }
    }

    /// The blocks of the batches before this one, and its own.
    pub fn chain(&self) -> Vec<L2Block> {
        [&self.before[..], &self.model].concat()
    }

    /// The last block's, or the one that the batch goes on from.
    pub fn head(&self) -> L2Head {
        self.model.last().map_or(self.start, L2Block::head)
    }

    /// The blocks that an accepted batch appends.
    pub fn expected(&self) -> &[L2Block] {
        &self.model
    }

    /// The number that its first block must have.
    pub fn number(&self) -> u64 {
        self.start.header.number + 1
    }

    /// The height of the Bitcoin block that will carry it.
    pub fn carrier_height(&self) -> BtcHeight {
        self.derivation.tip().block.height + 1
    }

    fn next_origin(&self, advances: bool) -> Origin {
        let height = self.head().header.origin.height + u32::from(advances);
        *self.derivation.origin(height).expect("an origin below the carrier")
    }

    /// Adds a block at its lower bound.
    pub fn block<T: AsRef<[u8]>>(self, advances: bool, txs: &[T]) -> Self {
        let timestamp = self.head().header.child_lower_bound(&self.next_origin(advances));
        self.block_at(advances, timestamp, txs)
    }

    /// Adds a block with a timestamp, which must not be below its parent's.
    pub fn block_at<T: AsRef<[u8]>>(mut self, advances: bool, timestamp: u64, txs: &[T]) -> Self {
        let txs: Vec<_> = txs.iter().map(|tx| tx.as_ref().to_vec()).collect();
        let (head, origin) = (self.head(), self.next_origin(advances));
        let block = self.derivation.rules().child(&head, &origin, timestamp, txs.clone()).unwrap();
        self.blocks.push(BatchBlock { advances, seconds: timestamp - head.header.timestamp, txs });
        self.terms.last_origin = origin.block;
        self.model.push(block);
        self
    }

    /// Adds blocks without own transactions until the origin has this height.
    pub fn adopt(mut self, height: BtcHeight) -> Self {
        while self.head().header.origin.height < height {
            self = self.block::<&[u8]>(true, &[]);
        }
        self
    }

    /// Adds blocks without own transactions at the same origin until its items are executed.
    pub fn drain(mut self) -> Self {
        while self.head().header.forced_end < self.next_origin(false).queue_size {
            self = self.block::<&[u8]>(false, &[]);
        }
        self
    }

    /// The last block's timestamp, as the blocks state it now.
    pub fn last_timestamp(&self) -> u64 {
        self.blocks.iter().fold(self.start.header.timestamp, |time, block| time.wrapping_add(block.seconds))
    }

    fn data(&self) -> Vec<u8> {
        let plain = encode_blocks(&self.blocks);
        match (self.data, self.codec) {
            (Some(make), _) => make(plain),
            (None, 1) => compress_to_vec(&plain, 6),
            (None, _) => plain,
        }
    }

    pub fn body(&self) -> Vec<u8> {
        let mut body = encode_batch_data(&self.terms, self.codec, &self.data());
        let message = batch_message(&self.rollup_id, self.handovers, &body);
        let mut entries: Vec<_> = self.by.iter().map(|index| self.signers.entry(*index, message)).collect();
        self.entries.iter().for_each(|change| change(&mut entries));
        if let Some(tamper) = self.tamper {
            tamper(&mut body);
        }
        body.extend(entries.concat());
        body.extend(&self.tail);
        body.truncate(self.len);
        body
    }
}

/// A stored DEFLATE block of `plain`, not the last one, and the blocks behind it.
pub(super) fn stored_then(plain: &[u8], blocks: &[u8]) -> Vec<u8> {
    let len = u16::try_from(plain.len()).unwrap();
    [&[0][..], &len.to_le_bytes(), &(!len).to_le_bytes(), plain, blocks].concat()
}

/// A handover in the making.
#[derive(Clone)]
pub(super) struct HandoverDraft {
    pub seq: u32,
    /// The new set's bytes.
    pub set: Vec<u8>,
    pub signers: Signers,
    pub rollup_id: RollupId,
    pub entries: Vec<fn(&mut Vec<Entry>)>,
    pub tail: Vec<u8>,
    pub len: usize,
}

impl HandoverDraft {
    pub fn new(rig: &Rig, to: &Signers) -> Self {
        // Behind the sequence number.
        let set = encode_handover(0, &to.set()).split_off(4);
        Self {
            seq: rig.derivation.handovers(),
            set,
            signers: rig.signers.clone(),
            rollup_id: rig.manifest.rollup_id(),
            entries: Vec::new(),
            tail: Vec::new(),
            len: usize::MAX,
        }
    }

    pub fn body(&self) -> Vec<u8> {
        let mut body = [&self.seq.to_le_bytes()[..], &self.set].concat();
        let mut entries = self.signers.sign(handover_message(&self.rollup_id, &body));
        self.entries.iter().for_each(|change| change(&mut entries));
        body.extend(entries.concat());
        body.extend(&self.tail);
        body.truncate(self.len);
        body
    }
}
