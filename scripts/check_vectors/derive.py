"""Queue, L2 blocks, batches, handovers and derivation (PROTOCOL.md, sections 4 to 6)."""

import zlib
from collections import namedtuple

from . import bip340, bitcoin, envelope, merkle
from .manifest import encode_set, read_set
from .wire import U64_MAX, Malformed, Reader, sha256, tagged, u8, u32, u64, varint

MAX_BLOCKS_PER_BATCH = 4096  # and of all batches accepted in one Bitcoin block
MAX_INFLATED = 4_194_304  # and of all batches accepted in one Bitcoin block
CODEC_PLAIN, CODEC_DEFLATE = 0, 1
FUTURE_LIMIT = 7200
SIGNATURE_LEN = 65

L2Block = namedtuple(
    "L2Block",
    "rollup_id number parent origin_height origin_hash timestamp forced_end queue_size queue_root txs_root",
)
Item = namedtuple("Item", "height block_hash transaction_index txid from_output index position tx")
Leaf = namedtuple("Leaf", Item._fields[:-1] + ("content",))
Batch = namedtuple("Batch", "first_number parent last_height last_hash codec data signatures signed")
Handover = namedtuple("Handover", "seq sequencers signatures signed")
BatchBlock = namedtuple("BatchBlock", "advance seconds txs")


class Drop(Exception):
    """The argument is the reason's name."""


# --- layouts ----------------------------------------------------------------------------------


def leaf_bytes(leaf):
    return (
        u32(leaf.height) + leaf.block_hash + u32(leaf.transaction_index) + leaf.txid
        + u8(leaf.from_output) + u32(leaf.index) + u32(leaf.position) + leaf.content
    )  # fmt: skip


def queue_leaf(item):
    return leaf_bytes(Leaf(*item[:-1], sha256(item.tx)))


def items_of(height, block, found):
    """What the envelopes found in a Bitcoin block add to the queue."""
    return [
        Item(height, block.hash, f.transaction_index, f.txid, f.from_output, f.index, position, tx)
        for f in found
        for position, tx in enumerate(envelope.transactions(f.payload))
    ]


def in_queue_order(leaf):
    """What items and leaves are sorted by."""
    return leaf.height, leaf.transaction_index, leaf.from_output, leaf.index, leaf.position


def block_hash(b):
    return tagged(
        "sortie/block",
        b.rollup_id + u64(b.number) + b.parent + u32(b.origin_height) + b.origin_hash + u64(b.timestamp)
        + u64(b.forced_end) + u64(b.queue_size) + b.queue_root + b.txs_root,
    )  # fmt: skip


def read_batch(body):
    """The fields before the data are read strictly; what follows the data is kept as it is."""
    reader = Reader(body)
    fields = reader.u64(), reader.take(32), reader.u32(), reader.take(32), reader.u8()
    data = reader.take(reader.varint())
    return Batch(*fields, data, body[reader.at :], body[: reader.at])


def read_handover(body):
    reader = Reader(body)
    seq, sequencers = reader.u32(), read_set(reader)
    return Handover(seq, sequencers, body[reader.at :], body[: reader.at])


def inflate(data):
    decoder = zlib.decompressobj(wbits=-15)
    try:
        out = decoder.decompress(data, MAX_INFLATED + 1)
    except zlib.error as error:
        raise Malformed("deflate: %s" % error) from None
    if not decoder.eof or decoder.unused_data or len(out) > MAX_INFLATED:
        raise Malformed("deflate: unfinished, followed by bytes, or too much")
    return out


def read_batch_blocks(data):
    reader = Reader(data)
    n = reader.varint()
    if not 1 <= n <= MAX_BLOCKS_PER_BATCH:
        raise Malformed("%d blocks" % n)
    blocks = []
    for _ in range(n):
        advance = reader.u8()
        if advance > 1:
            raise Malformed("origin advance %d" % advance)
        seconds, txs = reader.varint(), []
        for _ in range(reader.varint()):
            length = reader.varint()
            if not length:
                raise Malformed("empty transaction")
            txs.append(reader.take(length))
        blocks.append(BatchBlock(advance, seconds, txs))
    reader.end()
    return blocks


# --- writing, for examples and self-tests -------------------------------------------------------


def encode_batch_blocks(blocks):
    out = varint(len(blocks))
    for b in blocks:
        out += u8(b.advance) + varint(b.seconds) + varint(len(b.txs))
        out += b"".join(varint(len(tx)) + tx for tx in b.txs)
    return out


def sign_all(secrets, message):
    """secrets: {index in the set: secret key}."""
    return b"".join(u8(i) + bip340.sign(secret, message) for i, secret in sorted(secrets.items()))


def batch_message(rollup_id, handovers, signed):
    return tagged("sortie/batch", rollup_id + u32(handovers) + signed)


def handover_message(rollup_id, signed):
    return tagged("sortie/handover", rollup_id + signed)


def encode_batch(rollup_id, handovers, secrets, parent, last_height, last_hash, blocks, codec=CODEC_PLAIN):
    data = encode_batch_blocks(blocks)
    if codec == CODEC_DEFLATE:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = packer.compress(data) + packer.flush()
    signed = u64(parent.number + 1) + block_hash(parent) + u32(last_height) + last_hash + u8(codec) + varint(len(data)) + data
    return signed + sign_all(secrets, batch_message(rollup_id, handovers, signed))


def encode_handover(rollup_id, secrets, seq, sequencers):
    signed = u32(seq) + encode_set(sequencers)
    return signed + sign_all(secrets, handover_message(rollup_id, signed))


# --- the chain --------------------------------------------------------------------------------

BitcoinView = namedtuple("BitcoinView", "hash time median_time queue_size queue_root")


class Chain:
    """Everything that derivation knows after one Bitcoin block. `fork` it before `apply`: apply changes it."""

    def __init__(self, manifest, rollup_id, start_time, ancestor_times, executor=None):
        self.manifest, self.rollup_id = manifest, rollup_id
        self.times = list(ancestor_times) + [start_time]
        empty = merkle.mth([])
        view = BitcoinView(manifest.start_hash, start_time, self._median_time(), 0, empty)
        self.views = [view]  # from the start block up
        self.items, self.leaves = [], []
        self.head = L2Block(rollup_id, 0, bytes(32), manifest.start_height, manifest.start_hash, view.median_time, 0, 0, empty, empty)
        self.sequencers, self.handovers, self.pending = manifest.sequencers, 0, None
        self.executor = executor
        self.verdicts, self.appended, self.outcomes = [], [], []  # of the last Bitcoin block

    def fork(self):
        other = Chain.__new__(Chain)
        other.__dict__.update(self.__dict__)
        for name in ("times", "views", "items", "leaves"):
            setattr(other, name, list(getattr(self, name)))
        if self.executor:
            other.executor = self.executor.fork()
        return other

    def _median_time(self):
        return bitcoin.median_time(self.times[-11:])

    def height(self):
        return self.manifest.start_height + len(self.views) - 1

    def view(self, height):
        return self.views[height - self.manifest.start_height]

    def queue_size(self, height):
        """Items at heights up to this one; 0 for heights at or below the start."""
        return self.view(height).queue_size if height > self.manifest.start_height else 0

    # one Bitcoin block

    def apply(self, block):
        if self.pending:
            self.sequencers, self.pending = self.pending, None
            self.handovers += 1
        c = self.height() + 1
        found = list(bitcoin.envelopes(block, self.rollup_id[:4]))
        joining = items_of(c, block, found)
        self.items += joining
        self.leaves += map(queue_leaf, joining)
        self.times.append(block.time)
        root = merkle.mth(self.leaves) if len(self.leaves) != self.views[-1].queue_size else self.views[-1].queue_root
        self.views.append(BitcoinView(block.hash, block.time, self._median_time(), len(self.leaves), root))

        self.verdicts, self.appended, self.outcomes = [], [], []
        self.budget = MAX_BLOCKS_PER_BATCH, MAX_INFLATED
        judges = {envelope.BATCH: self._batch, envelope.HANDOVER: self._handover}
        for f in found:
            if f.payload.kind in judges:
                try:
                    judges[f.payload.kind](f.payload.body, c)
                    self.verdicts.append("accept")
                except Drop as drop:
                    self.verdicts.append(drop.args[0])
        self._forced_only(c)

    def _lower_bound(self, parent, origin_height):
        return max(parent.timestamp, self.view(origin_height).median_time)

    def _build(self, parent, origin_height, timestamp, txs):
        """The one function of the forced section, for batches and for forced-only blocks."""
        view = self.view(origin_height)
        forced_end = min(parent.forced_end + self.manifest.max_forced_per_block, view.queue_size)
        return L2Block(
            self.rollup_id, parent.number + 1, block_hash(parent), origin_height, view.hash, timestamp,
            forced_end, view.queue_size, view.queue_root, merkle.mth(txs),
        )  # fmt: skip

    def _append(self, block, txs):
        forced = self.items[self.head.forced_end : block.forced_end]
        if self.executor:
            self.outcomes += [self.executor.execute(item.tx, True) for item in forced]
            self.outcomes += [self.executor.execute(tx, False) for tx in txs]
        self.head = block
        self.appended.append(block_hash(block))

    # batches and handovers

    def _signatures(self, raw, message):
        n, threshold = len(self.sequencers.keys), self.sequencers.threshold
        if len(raw) != SIGNATURE_LEN * threshold:
            raise Drop("SignatureCount")
        entries = [raw[i : i + SIGNATURE_LEN] for i in range(0, len(raw), SIGNATURE_LEN)]
        indexes = [e[0] for e in entries]
        if any(i >= n for i in indexes) or any(a >= b for a, b in zip(indexes, indexes[1:])):
            raise Drop("Signer")
        if not all(bip340.verify(self.sequencers.keys[e[0]], message, e[1:]) for e in entries):
            raise Drop("BadSignature")

    def _batch(self, body, c):
        try:
            batch = read_batch(body)
        except Malformed:
            raise Drop("Malformed") from None
        head = self.head
        if batch.first_number <= head.number:
            raise Drop("Replay")
        if batch.first_number != head.number + 1:
            raise Drop("WrongNumber")
        if batch.parent != block_hash(head):
            raise Drop("WrongParent")
        if batch.codec not in (CODEC_PLAIN, CODEC_DEFLATE):
            raise Drop("UnknownCodec")
        self._signatures(batch.signatures, batch_message(self.rollup_id, self.handovers, batch.signed))
        steps, size = self._steps(batch)
        blocks_left, bytes_left = self.budget[0] - len(steps), self.budget[1] - size
        if blocks_left < 0 or bytes_left < 0:
            raise Drop("OverBudget")
        last = steps[-1][0]
        if batch.last_height != last:
            raise Drop("OriginMismatch")
        if not last < c:
            raise Drop("OriginNotBelow")
        if batch.last_hash != self.view(last).hash:
            raise Drop("OriginWrongBranch")
        self._timely(steps, c)
        self.budget = blocks_left, bytes_left
        for origin, timestamp, txs in steps:
            self._append(self._build(self.head, origin, timestamp, txs), txs)

    def _steps(self, batch):
        """(origin height, timestamp, own transactions) of each block, and the length of the decoded data."""
        try:
            data = inflate(batch.data) if batch.codec == CODEC_DEFLATE else batch.data
            described = read_batch_blocks(data)
            origin, timestamp, steps = self.head.origin_height, self.head.timestamp, []
            for b in described:
                origin += b.advance
                timestamp += b.seconds
                steps.append((origin, timestamp, b.txs))
            if timestamp > U64_MAX or batch.first_number + len(steps) - 1 > U64_MAX:
                raise Malformed("overflow")
        except Malformed:
            raise Drop("MalformedData") from None
        return steps, len(data)

    def _timely(self, steps, c):
        latest = self.view(c).time + FUTURE_LIMIT
        before, bounded = self.head.timestamp, []
        for origin, timestamp, txs in steps:
            bounded.append((max(before, self.view(origin).median_time), timestamp))
            before = timestamp
        if any(timestamp > max(bound, latest) for bound, timestamp in bounded):
            raise Drop("TimestampHigh")
        if any(timestamp < bound for bound, timestamp in bounded):
            raise Drop("TimestampLow")
        if any(txs and c - origin > self.manifest.max_lag for origin, _, txs in steps):
            raise Drop("StaleOrigin")

    def _handover(self, body, c):
        try:
            handover = read_handover(body)
        except Malformed:
            raise Drop("Malformed") from None
        if handover.seq != self.handovers:
            raise Drop("WrongSeq")
        if self.pending:
            raise Drop("HandoverPending")
        self._signatures(handover.signatures, handover_message(self.rollup_id, handover.signed))
        self.pending = handover.sequencers

    # step 2

    def due(self, c):
        return self.queue_size(c - self.manifest.sequencing_window)

    def _forced_only(self, c):
        window = self.manifest.sequencing_window
        if self.head.origin_height + 1 + window <= c or self.head.forced_end < self.due(c):
            while not (
                self.head.origin_height >= c - window // 2
                and self.head.forced_end == self.queue_size(self.head.origin_height)
            ):
                backlog = self.head.forced_end < self.queue_size(self.head.origin_height)
                origin = self.head.origin_height + (0 if backlog else 1)
                bound = self._lower_bound(self.head, origin)
                self._append(self._build(self.head, origin, bound, []), [])
        assert self.head.forced_end >= self.due(c), "invariant: what is due has been executed"
