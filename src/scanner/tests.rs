//! Headers, from one source and from two.

#[path = "../core/proof/tests/headers/mainnet/blocks.rs"]
mod mainnet;

use super::*;
use bitcoin::CompactTarget;
use bitcoin::block::Version;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Headers from a height on, and how often somebody asked for several of them.
struct Chain {
    first: BtcHeight,
    is_own: bool,
    headers: Vec<Header>,
    asked: AtomicUsize,
}

impl Chain {
    /// Goes on from the first `shared` headers of another one, with blocks that only this branch has.
    fn branch(from: &[Header], len: u32, branch: u32) -> Self {
        let mut headers = from.to_vec();
        for nonce in 0..len {
            headers.push(Header {
                version: Version::ONE,
                prev_blockhash: headers.last().map_or_else(BlockHash::all_zeros, Header::block_hash),
                merkle_root: bitcoin::TxMerkleNode::all_zeros(),
                time: branch,
                bits: CompactTarget::from_consensus(0x207f_ffff),
                nonce,
            });
        }
        Self { first: 0, is_own: false, headers, asked: AtomicUsize::new(0) }
    }

    fn at(&self, height: BtcHeight) -> BlockRef {
        BlockRef { height, hash: self.headers[(height - self.first) as usize].block_hash() }
    }

    fn find(&self, hash: &BlockHash) -> Option<usize> {
        self.headers.iter().position(|header| header.block_hash() == *hash)
    }
}

impl BlockSource for Chain {
    fn is_own(&self) -> bool {
        self.is_own
    }

    fn tip(&self) -> Result<BlockRef, ChainError> {
        Ok(self.at(self.first + self.headers.len() as u32 - 1))
    }

    fn block_hash(&self, height: BtcHeight) -> Result<Option<BlockHash>, ChainError> {
        Ok(self.headers.get(height as usize).map(Header::block_hash))
    }

    fn header(&self, hash: &BlockHash) -> Result<Header, ChainError> {
        let at = self.find(hash).ok_or_else(|| ChainError::NotFound(hash.to_string()))?;
        Ok(self.headers[at])
    }

    fn headers(&self, first: BtcHeight, count: u32) -> Result<Vec<Header>, ChainError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let skipped = first.checked_sub(self.first).map_or(usize::MAX, |skipped| skipped as usize);
        Ok(self.headers.iter().skip(skipped).take(count as usize).copied().collect())
    }

    fn block(&self, hash: &BlockHash) -> Result<Vec<u8>, ChainError> {
        Err(ChainError::NotFound(hash.to_string()))
    }

    fn wait_for_tip(&self, _: &BlockHash, _: Duration) -> Result<BlockRef, ChainError> {
        self.tip()
    }
}

/// A reader of headers alone, which shows them from where it was told to.
struct Headers(Chain, Option<usize>);

impl BlockReader for Headers {
    fn name(&self) -> String {
        "headers".into()
    }

    fn lanes(&self) -> usize {
        1
    }

    fn read_block(&self, hash: &BlockHash, _: &mut Vec<u8>) -> Result<(), ChainError> {
        Err(ChainError::NotFound(hash.to_string()))
    }

    fn headers_from(&self, hash: &BlockHash, count: u32) -> Result<Vec<Header>, ChainError> {
        let from = self.1.or_else(|| self.0.find(hash)).unwrap_or(usize::MAX);
        Ok(self.0.headers.iter().skip(from).take(count as usize).copied().collect())
    }
}

#[test]
fn a_reader_s_headers_are_taken_only_if_the_chain_s_own_source_names_the_last_of_them() {
    let chain = Chain::branch(&[], 60, 1);
    let copy = |len: usize| Chain::branch(&chain.headers[..len], 0, 0);
    let parent = chain.at(20);
    let mut unlinked = copy(60);
    unlinked.headers[40].nonce = 99;
    let readers = [
        ("all of them", Headers(copy(60), None), 39, 0),
        ("fewer", Headers(copy(31), None), 10, 0),
        ("another branch", Headers(Chain::branch(&chain.headers[..25], 35, 2), None), 39, 1),
        ("from elsewhere on", Headers(copy(60), Some(3)), 39, 1),
        ("nothing above", Headers(copy(21), None), 39, 1),
        ("nothing", Headers(copy(5), None), 39, 1),
    ];
    for (name, reader, len, asked) in readers {
        chain.asked.store(0, Ordering::SeqCst);
        let readers: [Box<dyn BlockReader>; 1] = [Box::new(reader)];
        let scanner = Scanner::from(&chain).readers(&readers);
        let above =
            scanner.headers_above(Magic::REGTEST, parent, |_| Ok::<_, ScanError>(None), MAX_HEADERS).expect(name);
        let expected: Vec<_> = (21..21 + len).map(|height| chain.at(height)).collect();
        assert_eq!(above.iter().map(|block| block.at).collect::<Vec<_>>(), expected, "{name}");
        assert_eq!(chain.asked.load(Ordering::SeqCst), asked, "{name}");
    }
    // Between a first and a last that are true.
    let readers: [Box<dyn BlockReader>; 1] = [Box::new(Headers(unlinked, None))];
    let refused = Scanner::from(&chain).readers(&readers).headers_above(
        Magic::REGTEST,
        parent,
        |_| Ok::<_, ScanError>(None),
        MAX_HEADERS,
    );
    assert!(matches!(refused, Err(ScanError::BadHeaders(Refutation::Unlinked { height: 41 }))), "{refused:?}");
}

#[test]
fn what_a_block_commits_to_is_found_below_it_and_nothing_else_is_believed() {
    let mut chain = Chain::branch(&[], 2_100, 1);
    let block = chain.at(2_050);
    let found = Scanner::from(&chain).ancestor(40, block).expect("an ancestor");
    assert_eq!((found, chain.asked.load(Ordering::SeqCst)), (chain.headers[40], 3));
    assert_eq!(Scanner::from(&chain).ancestor(2_050, block).expect("itself"), chain.headers[2_050]);

    let other = Chain::branch(&chain.headers[..2_000], 100, 2);
    let refused = Scanner::from(&other).ancestor(40, block);
    assert!(matches!(refused, Err(ScanError::OtherBlock { expected, .. }) if expected == block.hash), "{refused:?}");
    chain.headers[40].time = 7;
    let refused = Scanner::from(&chain).ancestor(40, block);
    assert!(matches!(refused, Err(ScanError::OtherBlock { .. })), "{refused:?}");
}

#[test]
fn the_header_that_a_period_began_with_is_asked_for_where_it_decides() {
    use bitcoin::consensus::encode::deserialize_hex;
    use mainnet::{FIRST, HEADERS, PERIOD};
    let mut headers: Vec<Header> = HEADERS.iter().map(|hex| deserialize_hex(hex).expect("a header")).collect();
    headers.push(deserialize_hex(PERIOD.1).expect("a header"));
    let began = headers[8].block_hash();
    // The period ends with the fourth of the headers. What `header` finds at the end is in no reach of `headers`.
    let ask = |is_own, parent, known: Option<BlockHash>, len: u32| {
        let chain = Chain { first: FIRST, is_own, headers: headers.clone(), asked: AtomicUsize::new(0) };
        let known = |height| {
            assert_eq!(height, if parent < FIRST + 4 { PERIOD.0 } else { FIRST + 4 });
            Ok::<_, ScanError>(known)
        };
        let above = Scanner::from(&chain).headers_above(Magic::BITCOIN, chain.at(parent), known, len);
        (above.map(|above| above.len()).ok(), chain.asked.load(Ordering::SeqCst))
    };
    let (before, after) = (FIRST + 1, FIRST + 4);
    assert_eq!(ask(true, before, Some(began), 6), (Some(6), 1), "it is known");
    assert_eq!(ask(true, before, None, 6), (None, 2), "an own source does not show it");
    assert_eq!(ask(true, before, None, 3), (None, 2), "the last of them begins the next period");
    assert_eq!(ask(true, before, None, 2), (Some(2), 1), "the period does not end");
    assert_eq!(ask(false, before, None, 6), (Some(6), 1), "others are not asked thousands of times");
    assert_eq!(ask(true, after, None, 3), (Some(3), 1), "a period's first block");
}

#[test]
fn a_block_without_an_envelope_is_not_kept() {
    let chain = Chain::branch(&[], 1, 1);
    let block = NextBlock { at: chain.at(0), header: chain.headers[0] };
    let mut scanned = Scanned { block, len: 1_000, found: Vec::new(), refused: Vec::new() };
    assert_eq!(scanned.weight(), 0);
    scanned.found.push(Found {
        tx_index: 0,
        txid: bitcoin::Txid::all_zeros(),
        carrier: crate::envelope::Carrier::OpReturn,
        index: 0,
        namespace: Namespace([0; 4]),
        payload: Err(crate::envelope::Flaw::NotOpReturn),
    });
    assert_eq!(scanned.weight(), 1_000);
}
