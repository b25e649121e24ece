//! What is wrong with a signed block, compared with Bitcoin: the cases (a) to (e) of the specification.
//!
//! A liar shows the root of its queue, not the leaves. The small lies are guessed and proven: items left out
//! in a row, two neighbours swapped, one repeated, one with another content. Leaves that the liar has shown to
//! somebody prove larger ones. What is neither guessed nor shown becomes a file that needs a node.

use super::{EvidenceError, Prover, ShownBlocks};
use crate::follower::QueuedItem;
use crate::merkle::{CompactRange, Tree, TreeHead, leaf_hash, verify_inclusion};
use crate::primitives::{Hash32, L2Number, sha256};
use crate::proof::{
    Censored, CensoredCase, ItemProof, Proof, ProvenLeaf, QueueLeaf, Raw, RawBytes, Refutation, Signed, SoftHeader,
    Verdict, judge,
};

/// Items among which lies are looked for; the work grows with the square.
const MAX_GUESSED: u64 = 1_000;

/// Finds the first fault of the signed block under a number, as evidence; `shown` are leaves of its queue that the
/// sequencer showed to somebody.
///
/// # Errors
/// [`EvidenceError`]; among them [`EvidenceError::Innocent`], if nothing is wrong.
pub fn find_censored(
    prover: &Prover,
    blocks: &ShownBlocks,
    mut shown: Vec<ProvenLeaf>,
    number: L2Number,
) -> Result<Censored, EvidenceError> {
    let (block, own_txs) = blocks.signed(number)?;
    let parent = blocks.parent(prover, number, &block.statement)?;
    let queue = block.statement.queue();
    if let Some(other) = shown.iter().find(|leaf| !stands_in(leaf, &queue)) {
        return Err(EvidenceError::ForeignLeaf { place: other.leaf.place, number });
    }
    shown.sort_unstable_by_key(|leaf| leaf.index);
    shown.dedup();
    Case { prover, block, own_txs, parent, shown, tree: prover.tree(prover.size())? }.find(number)
}

fn stands_in(leaf: &ProvenLeaf, queue: &TreeHead) -> bool {
    verify_inclusion(&leaf_hash(&leaf.leaf.bytes()), leaf.index, queue, &leaf.proof)
}

/// A signed block, its parent, and Bitcoin's queue up to the tip.
struct Case<'a> {
    prover: &'a Prover,
    block: Signed<SoftHeader>,
    own_txs: Vec<RawBytes>,
    parent: SoftHeader,
    /// Leaves of the block's queue, by index.
    shown: Vec<ProvenLeaf>,
    tree: Tree,
}

/// A queue that hashes to the liar's root, and the first index at which it is not Bitcoin's.
struct Lie {
    tree: Tree,
    /// Of each of the liar's leaves from `shared` on, its index in Bitcoin's queue.
    order: Vec<u64>,
    shared: u64,
    at: u64,
}

/// What stands in the queue in place of an item.
enum Around {
    /// Another leaf at the item's place.
    At(ProvenLeaf),
    /// Nothing between these two neighbours, or at this end.
    Between(Option<ProvenLeaf>, Option<ProvenLeaf>),
}

impl Case<'_> {
    fn find(self, number: L2Number) -> Result<Censored, EvidenceError> {
        let header = self.block.statement;
        if let Some(item) = self.not_executed()? {
            return Ok(self.with(CensoredCase::NotExecuted { item }));
        }
        // Whether the header contradicts its parent is for the judge to say.
        let origin = if header.origin == self.parent.origin { None } else { self.prover.header(&header.origin)? };
        let false_header = self.with(CensoredCase::FalseHeader { origin: origin.map(Raw) });
        let verdict = self.judge(&false_header)?;
        match &verdict {
            Verdict::Proven(_) => return Ok(false_header),
            Verdict::NeedsNode(_) | Verdict::Refuted(Refutation::TrueHeader) => {}
            Verdict::NeedsAnchor(_) | Verdict::Refuted(_) => {
                return Err(EvidenceError::Unjudged { number, verdict: Box::new(verdict) });
            }
        }
        match self.prover.view.store().bitcoin_block(header.origin.height)? {
            Some((hash, size, root)) if hash == header.origin.hash => {
                let truth = TreeHead { size, root };
                if truth == header.queue() {
                    return Err(EvidenceError::Innocent { number, origin: header.origin });
                }
                self.false_queue(truth).map(|case| self.with(case))
            }
            _ if matches!(verdict, Verdict::NeedsNode(_)) => Ok(false_header),
            _ => Err(EvidenceError::OriginGone { number, origin: header.origin }),
        }
    }

    fn with(&self, case: CensoredCase) -> Censored {
        Censored { block: self.block.clone(), parent: self.parent, case }
    }

    fn judge(&self, proof: &Censored) -> Result<Verdict, EvidenceError> {
        let file = self.prover.file(Proof::Censored(proof.clone()));
        Ok(judge(&file, &self.prover.anchors()?))
    }

    /// (a) The first item that the block had room for and left.
    fn not_executed(&self) -> Result<Option<ProvenLeaf>, EvidenceError> {
        let header = &self.block.statement;
        let max = self.prover.view.manifest().max_forced_per_block.into();
        let due = self.parent.forced_end.saturating_add(max).min(header.queue_size);
        if header.forced_end >= due || self.tree.head(header.queue_size) != Some(header.queue()) {
            return Ok(None);
        }
        self.leaf(&self.tree, header.queue_size, header.forced_end, header.forced_end).map(Some)
    }

    /// (b), (c), (e) The queue is not Bitcoin's at the origin.
    fn false_queue(&self, truth: TreeHead) -> Result<CensoredCase, EvidenceError> {
        let queue = self.block.statement.queue();
        if queue.size < truth.size && self.tree.head(queue.size) == Some(queue) {
            return self.left_out(&self.tree, queue.size, queue.size, None);
        }
        if let Some(case) = self.by_shown(truth)? {
            return Ok(case);
        }
        if let Some(lie) = self.guess(truth, queue)? {
            return self.show(&lie, queue);
        }
        match self.guess_content(truth, queue)? {
            Some(case) => Ok(case),
            None => {
                let last = truth.size.checked_sub(1).ok_or(EvidenceError::EmptyQueue)?;
                let item = self.item_proof(last)?;
                Ok(CensoredCase::LeftOut { item, before: None, after: None })
            }
        }
    }

    fn show(&self, lie: &Lie, queue: TreeHead) -> Result<CensoredCase, EvidenceError> {
        let Lie { tree, order, shared, at } = lie;
        let of = |index: u64| match index.checked_sub(*shared) {
            None => Some(index),
            Some(after) => usize::try_from(after).ok().and_then(|after| order.get(after).copied()),
        };
        match of(*at) {
            // The item stands nowhere: those after it have moved up.
            Some(there) if there > *at && of(*at + 1) != Some(*at) => self.left_out(tree, queue.size, *at, Some(there)),
            None => self.left_out(tree, queue.size, *at, None),
            Some(there) => {
                // Swapped with the next, or the one before once more.
                let first = if there < *at { *at - 1 } else { *at };
                let leaf = |index: u64| self.leaf(tree, queue.size, index, of(index).ok_or(EvidenceError::Changed)?);
                Ok(CensoredCase::OutOfOrder { first: leaf(first)?, second: leaf(first + 1)? })
            }
        }
    }

    /// (b), (c), (e) What the leaves that somebody was shown are enough for.
    fn by_shown(&self, truth: TreeHead) -> Result<Option<CensoredCase>, EvidenceError> {
        for pair in self.shown.windows(2) {
            if let [first, second] = pair
                && first.index + 1 == second.index
                && first.leaf.order() >= second.leaf.order()
            {
                return Ok(Some(CensoredCase::OutOfOrder { first: first.clone(), second: second.clone() }));
            }
        }
        let (mut index, mut found) = (0, None);
        self.prover.each_item(0..truth.size, |queued| {
            found = found.take().or_else(|| Some((index, self.around(&QueueLeaf::from(&queued.item))?)));
            index += 1;
        })?;
        let Some((missing, around)) = found else { return Ok(None) };
        let item = self.item_proof(missing)?;
        Ok(Some(match around {
            Around::At(leaf) => CensoredCase::Replaced { item, leaf },
            Around::Between(before, after) => CensoredCase::LeftOut { item, before, after },
        }))
    }

    /// The shown leaves that say that an item is not in the queue.
    fn around(&self, item: &QueueLeaf) -> Option<Around> {
        let (before, from) = self.shown.split_at(self.shown.partition_point(|leaf| leaf.leaf.order() < item.order()));
        let is_last = |leaf: &ProvenLeaf| leaf.index + 1 == self.block.statement.queue_size;
        let is_enclosed = match (before.last(), from.first()) {
            (_, Some(at)) if at.leaf.order() == item.order() => {
                return (at.leaf != *item).then(|| Around::At(at.clone()));
            }
            (None, None) => false,
            (Some(before), None) => is_last(before),
            (None, Some(after)) => after.index == 0,
            (Some(before), Some(after)) => before.index + 1 == after.index,
        };
        is_enclosed.then(|| Around::Between(before.last().cloned(), from.first().cloned()))
    }

    /// (c) Looks for one item that stands in the queue with the content of another, or of the block's own.
    fn guess_content(&self, truth: TreeHead, queue: TreeHead) -> Result<Option<CensoredCase>, EvidenceError> {
        let shared = self.shared(truth);
        if queue.size != truth.size || truth.size - shared > MAX_GUESSED {
            return Ok(None);
        }
        let mut items = Vec::new();
        self.prover.each_item(shared..truth.size, |queued| items.push(QueueLeaf::from(&queued.item)))?;
        let own = self.own_txs.iter().take(MAX_GUESSED as usize).map(|RawBytes(tx)| sha256(tx));
        let contents: Vec<_> = items.iter().map(|item| item.tx_hash).chain(own).chain([Hash32([0; 32])]).collect();
        for (index, item) in (shared..).zip(&items) {
            let proof = self.tree.inclusion(index, queue.size).ok_or(EvidenceError::Changed)?;
            let mut leaf = ProvenLeaf { index, leaf: *item, proof };
            for content in &contents {
                leaf.leaf.tx_hash = *content;
                if stands_in(&leaf, &queue) {
                    return Ok(Some(CensoredCase::Replaced { item: self.item_proof(index)?, leaf }));
                }
            }
        }
        Ok(None)
    }

    /// How many items of Bitcoin's queue the parent has: among those behind them is the lie.
    fn shared(&self, truth: TreeHead) -> u64 {
        let known = self.parent.queue();
        if self.tree.head(known.size) == Some(known) { known.size.min(truth.size) } else { 0 }
    }

    /// The item `missing`, whose place in the liar's queue is between the leaves at `missing - 1` and `missing`; at
    /// the latter stands the item `after`, if any.
    fn left_out(
        &self,
        tree: &Tree,
        size: u64,
        missing: u64,
        after: Option<u64>,
    ) -> Result<CensoredCase, EvidenceError> {
        let before = missing.checked_sub(1).map(|before| self.leaf(tree, size, before, before)).transpose()?;
        let after = after.map(|item| self.leaf(tree, size, missing, item)).transpose()?;
        Ok(CensoredCase::LeftOut { item: self.item_proof(missing)?, before, after })
    }

    /// Bitcoin's item `item` as the leaf at `index` of a queue.
    fn leaf(&self, tree: &Tree, size: u64, index: u64, item: u64) -> Result<ProvenLeaf, EvidenceError> {
        ProvenLeaf::make(tree, size, index, &self.prover.item(item)?.item).ok_or(EvidenceError::Changed)
    }

    fn item_proof(&self, index: u64) -> Result<ItemProof, EvidenceError> {
        let item = self.prover.item(index)?.item;
        self.prover.item_proof(&item, item.block.height..=self.block.statement.origin.height)
    }

    /// Looks for a small lie among the items that are new since the parent.
    fn guess(&self, truth: TreeHead, queue: TreeHead) -> Result<Option<Lie>, EvidenceError> {
        let shared = self.shared(truth);
        let (new, claimed) = (truth.size - shared, queue.size.checked_sub(shared));
        let Some(claimed) = claimed.filter(|claimed| new <= MAX_GUESSED && *claimed <= new + 1) else {
            return Ok(None);
        };
        let mut prefix = CompactRange::default();
        self.prover.each_item(0..shared, |queued| prefix.push(&queued.item.leaf()))?;
        let mut leaves = Vec::new();
        self.prover.each_item(shared..truth.size, |queued: &QueuedItem| leaves.push(queued.item.leaf()))?;
        let hashes_to_root = |order: &[usize]| {
            let mut range = prefix.clone();
            order.iter().filter_map(|at| leaves.get(*at)).for_each(|leaf| range.push(leaf));
            range.size() == queue.size && range.root() == queue.root
        };
        let Some(order) = orders(leaves.len(), claimed).find(|order| hashes_to_root(order)) else { return Ok(None) };
        let at = (0..).zip(&order).find(|(index, at)| index != *at).map_or(order.len(), |(index, _)| index);
        let mut tree = self.prover.tree(shared)?;
        order.iter().filter_map(|at| leaves.get(*at)).for_each(|leaf| tree.push(leaf));
        let order = order.into_iter().map(|at| shared + at as u64).collect();
        Ok(Some(Lie { tree, order, shared, at: shared + at as u64 }))
    }
}

/// The ways to tell `claimed` items of `true_len` by one small lie.
fn orders(true_len: usize, claimed: u64) -> Box<dyn Iterator<Item = Vec<usize>>> {
    let claimed = usize::try_from(claimed).unwrap_or(usize::MAX);
    match true_len.checked_sub(claimed) {
        Some(0) => Box::new((1..true_len).map(move |second| {
            let mut order: Vec<_> = (0..true_len).collect();
            order.swap(second - 1, second);
            order
        })),
        Some(missing) => {
            Box::new((0..=claimed).map(move |first| (0..first).chain(first + missing..true_len).collect()))
        }
        None => Box::new((0..true_len).map(move |again| (0..=again).chain(again..true_len).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_small_lie_at_a_time() {
        let all = |claimed| orders(3, claimed).collect::<Vec<_>>();
        assert_eq!(all(2), [vec![1, 2], vec![0, 2], vec![0, 1]]);
        assert_eq!(all(1), [vec![2], vec![0]]);
        assert_eq!(all(0), [Vec::<usize>::new()]);
        assert_eq!(all(3), [vec![1, 0, 2], vec![0, 2, 1]]);
        assert_eq!(all(4), [vec![0, 0, 1, 2], vec![0, 1, 1, 2], vec![0, 1, 2, 2]]);
        assert_eq!(orders(0, 0).count() + orders(0, 1).count(), 0);
    }
}
