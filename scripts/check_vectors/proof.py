"""Judging proof files and evidence (PROTOCOL.md, sections 7 and 8)."""

from . import bip340, bitcoin_headers, merkle
from . import proof_file as pf
from .derive import L2Block, block_hash, in_queue_order, leaf_bytes
from .item_proof import check_item
from .verdict import NeedsAnchor, NeedsNode, Verdict, demand
from .wire import sha256, tagged, u32, u64


class Anchors:
    """What the checker already has."""

    def __init__(self, manifest, rollup_id):
        self.manifest, self.rollup_id = manifest, rollup_id
        self.hash_at, self.height_of, self.headers = {}, {}, {}  # Bitcoin blocks
        self.l2_blocks = set()
        self.sequencers = {0: manifest.sequencers}
        self.add_bitcoin_block(manifest.start_height, manifest.start_hash)

    def add_bitcoin_block(self, height, block_hash):
        self.hash_at[height], self.height_of[block_hash] = block_hash, height

    def add_bitcoin_header(self, height, raw):
        self.headers[height] = bitcoin_headers.read_header(raw)
        self.add_bitcoin_block(height, self.headers[height].hash)

    def header_of(self, origin):
        """The bitcoin_headers.Header of a block, or None where no anchor is that block, by height and hash."""
        header = self.headers.get(origin.height)
        return header if header and header.hash == origin.hash else None


# --- messages ---------------------------------------------------------------------------------


def receipt_message(rollup_id, handovers, receipt):
    body = rollup_id + u32(handovers) + receipt.tx_hash + u64(receipt.first_number) + u64(receipt.last_number)
    return tagged("sortie/receipt", body)


def header_message(handovers, l2_hash):
    return tagged("sortie/header", u32(handovers) + l2_hash)


def state_message(handovers, state):
    return tagged("sortie/state", u32(handovers) + state.block + state.state_root)


# --- judging ----------------------------------------------------------------------------------


def judge(file, anchors):
    """('proven/...', particulars) or (another verdict, None). Particulars: a bitcoin_headers.Standing, keys, or None."""
    try:
        demand(file.rollup_id == anchors.rollup_id, "other_rollup")
        fact, particulars = getattr(_Judge(anchors), file.type)(file.proof)
        return "proven/" + fact, particulars
    except Verdict as verdict:
        return verdict.name(), None


class _Judge:
    """A method for every type of file: what it proves, or a Verdict that is raised."""

    def __init__(self, anchors):
        self.anchors, self.manifest, self.rollup_id = anchors, anchors.manifest, anchors.rollup_id

    def forced(self, proof):
        shown = check_item(proof, self.manifest, self.rollup_id[:4])
        rules = bitcoin_headers.rules_of(self.manifest.network)
        return "forced", bitcoin_headers.stands(rules, proof.headers.first_height, shown.headers, proof.height, self.anchors)

    def included(self, proof):
        block = proof.block.statement
        self._in_queue(proof.item, block)
        demand(proof.item.index < block.forced_end, "not_executed")
        if self._hash(block) in self.anchors.l2_blocks:
            return "included", None
        if not proof.block.signatures:
            raise NeedsAnchor("l2_block")
        signers = self._header_signers(proof.block)
        demand(len(signers) >= self.anchors.sequencers[proof.block.handovers].threshold, "below_threshold")
        return "included", signers

    def consistency(self, proof):
        demand(proof.old.size <= proof.new.size, "shrunk")
        demand(merkle.verify_consistency(proof.old.size, proof.new.size, proof.old.root, proof.new.root, proof.proof), "consistency_proof")
        for block, queue in ((proof.old_block, proof.old), (proof.new_block, proof.new)):
            if block is not None:
                demand((block.queue_size, block.queue_root) == tuple(queue), "other_queue")
                if self._hash(block) not in self.anchors.l2_blocks:
                    raise NeedsAnchor("l2_block")
        return "consistent", None

    def censored(self, proof):
        block = proof.block.statement
        demand(self._hash(proof.parent) == block.parent, "other_parent")
        signers = self._header_signers(proof.block)
        cases = {
            pf.NotExecuted: self._not_executed,
            pf.LeftOut: self._left_out,
            pf.Replaced: self._replaced,
            pf.FalseHeader: self._false_header,
            pf.OutOfOrder: self._out_of_order,
        }
        cases[type(proof.case)](proof.case, block, proof.parent)
        return "censored", signers

    def equivocation(self, proof):
        one, two = proof.first.statement, proof.second.statement
        demand((one.number, one.parent) == (two.number, two.parent), "other_place")
        demand(self._hash(one) != self._hash(two), "same_block")
        signers = [self._header_signers(proof.first), self._header_signers(proof.second)]
        common = self._common(signers)
        if one.origin.hash != two.origin.hash:
            self._parent_and_child(*sorted((one.origin, two.origin)), proof.child_origin)
        return "equivocation", common

    def conflicting_state(self, proof):
        one, two = proof.first.statement, proof.second.statement
        demand(one.block == two.block, "other_place")
        demand(one.state_root != two.state_root, "same_state")
        signers = [self._signers(s, state_message(s.handovers, s.statement)) for s in (proof.first, proof.second)]
        return "conflicting_state", self._common(signers)

    def broken_receipt(self, proof):
        receipt = proof.receipt.statement
        demand(0 < receipt.first_number <= receipt.last_number, "empty_receipt")
        headers = [b.header.statement for b in proof.blocks]
        numbers = [h.number for h in headers]
        covered = len(numbers) == receipt.last_number - receipt.first_number + 1
        demand(covered and all(n == receipt.first_number + i for i, n in enumerate(numbers)), "not_covered")
        for parent, shown in zip([proof.parent] + headers, proof.blocks):
            self._without_receipt(receipt, parent, shown)
        signers = [self._signers(proof.receipt, receipt_message(self.rollup_id, proof.receipt.handovers, receipt))]
        signers += [self._header_signers(b.header) for b in proof.blocks]
        return "broken_receipt", self._common(signers)

    # parts

    def _hash(self, block):
        origin = block.origin
        return block_hash(L2Block(
            self.rollup_id, block.number, block.parent, origin.height, origin.hash, block.timestamp, block.forced_end,
            block.queue_size, block.queue_root, block.txs_root,
        ))  # fmt: skip

    def _signers(self, signed, message):
        """The keys that signed, every one of them checked."""
        sequencers = self.anchors.sequencers.get(signed.handovers)
        if sequencers is None:
            raise NeedsAnchor("sequencers")
        demand(signed.signatures, "unsigned")
        indexes = [s.index for s in signed.signatures]
        demand(all(a < b for a, b in zip(indexes, indexes[1:])), "signer")
        for index, signature in signed.signatures:
            demand(index < len(sequencers.keys), "signer")
            demand(bip340.verify(sequencers.keys[index], message, signature), "bad_signature")
        return [sequencers.keys[index] for index in indexes]

    def _header_signers(self, signed):
        return self._signers(signed, header_message(signed.handovers, self._hash(signed.statement)))

    def _common(self, signers):
        common = set.intersection(*map(set, signers))
        demand(common, "other_signers")
        return sorted(common)

    def _in_queue(self, proven, block):
        leaf = leaf_bytes(proven.leaf)
        demand(merkle.verify_inclusion(leaf, proven.index, block.queue_size, proven.proof, block.queue_root), "inclusion_proof")

    # censored

    def _not_executed(self, case, block, parent):
        self._in_queue(case.item, block)
        demand(case.item.index >= block.forced_end, "executed")
        demand(case.item.index < parent.forced_end + self.manifest.max_forced_per_block, "no_room")

    def _left_out(self, case, block, _parent):
        place = in_queue_order(check_item(case.item, self.manifest, self.rollup_id[:4], block.origin).item)
        leaves = [leaf for leaf in (case.before, case.after) if leaf is not None]
        for leaf in leaves:
            self._in_queue(leaf, block)
        if not leaves and block.queue_size:
            raise NeedsNode("leaves_withheld")
        # Without a leaf on one side the queue ends there.
        before = case.before.index if case.before else -1
        after = case.after.index if case.after else block.queue_size
        demand(after == before + 1, "not_enclosed")
        demand(not case.before or in_queue_order(case.before.leaf) < place, "not_enclosed")
        demand(not case.after or place < in_queue_order(case.after.leaf), "not_enclosed")

    def _replaced(self, case, block, _parent):
        shown = check_item(case.item, self.manifest, self.rollup_id[:4], block.origin)
        self._in_queue(case.leaf, block)
        demand(in_queue_order(case.leaf.leaf) == in_queue_order(shown.item), "other_place")
        demand(leaf_bytes(case.leaf.leaf) != shown.leaf, "same_leaf")

    def _false_header(self, case, block, parent):
        if block.forced_end != min(parent.forced_end + self.manifest.max_forced_per_block, block.queue_size):
            return
        if block.number != parent.number + 1:
            return
        demand(block.origin != parent.origin, "true_header")
        if block.origin.height != parent.origin.height + 1 or block.origin.hash == parent.origin.hash:
            return
        header = self._header_of(block.origin, case.origin)
        if header is None:
            raise NeedsNode("origin_withheld")
        demand(header.parent != parent.origin.hash, "true_header")

    def _out_of_order(self, case, block, _parent):
        self._in_queue(case.first, block)
        self._in_queue(case.second, block)
        demand(case.second.index == case.first.index + 1, "not_neighbours")
        demand(in_queue_order(case.first.leaf) >= in_queue_order(case.second.leaf), "in_order")

    # Bitcoin headers that a file may leave out

    def _header_of(self, origin, raw):
        """The origin's Bitcoin header: the file's, else an anchor's, else None."""
        if raw is None:
            return self.anchors.header_of(origin)
        header = bitcoin_headers.read_header(raw)
        demand(header.hash == origin.hash, "other_bitcoin_header")
        return header

    def _parent_and_child(self, lower, higher, raw):
        demand(higher.height == lower.height + 1, "unrelated_origins")
        header = self._header_of(higher, raw)
        if header is None and all(self.anchors.hash_at.get(o.height) == o.hash for o in (lower, higher)):
            return
        if header is None:
            raise NeedsAnchor("bitcoin_header")
        demand(header.parent == lower.hash, "unrelated_origins")

    # broken_receipt

    def _without_receipt(self, receipt, parent, shown):
        header = shown.header.statement
        demand(header.parent == self._hash(parent), "other_parent")
        demand(merkle.mth(shown.own_txs) == header.txs_root, "other_own_transactions")
        begin, leaves = parent.forced_end, [leaf_bytes(leaf) for leaf in shown.forced.leaves]
        demand(len(leaves) == max(header.forced_end - begin, 0), "other_forced_section")
        queue = header.queue_size, shown.forced.proof, header.queue_root
        demand(merkle.verify_range(leaves, begin, *queue), "inclusion_proof")
        own = any(sha256(tx) == receipt.tx_hash for tx in shown.own_txs)
        demand(not own and all(leaf.content != receipt.tx_hash for leaf in shown.forced.leaves), "receipt_kept")
