"""Bitcoin blocks from their network bytes, and what of them the protocol reads (PROTOCOL.md, sections 0, 3 and 4)."""

from collections import namedtuple

from . import envelope
from .wire import Malformed, Reader, sha256d, u32, varint

Block = namedtuple("Block", "hash previous merkle_root time transactions")
UNSPENT_INDEX = 0xFFFFFFFF
NO_OUTPOINT = bytes(32) + u32(UNSPENT_INDEX)
COMMITMENT_HEAD = bytes.fromhex("6a24aa21a9ed")
COMMITMENT_LEN = 38

# Witnesses and outpoints (36 bytes) per input, scripts per output; stripped_len: bytes without the witnesses.
Transaction = namedtuple("Transaction", "txid wtxid stripped_len outpoints witnesses scripts")
Found = namedtuple("Found", "transaction_index txid from_output index payload")


def _element(reader):
    return reader.take(reader.varint())


def _transaction(reader):
    start = reader.at
    version = reader.take(4)
    segwit = reader.data[reader.at : reader.at + 2] == b"\x00\x01"
    if segwit:
        reader.take(2)
    body = reader.at
    inputs = reader.varint()
    if not inputs:
        raise Malformed("transaction without inputs")
    outpoints = []
    for _ in range(inputs):
        outpoints.append(reader.take(36))
        _element(reader)
        reader.take(4)
    scripts = []
    for _ in range(reader.varint()):
        reader.take(8)
        scripts.append(_element(reader))
    stripped = reader.data[body : reader.at]
    witnesses = [[] for _ in range(inputs)]
    if segwit:
        witnesses = [[_element(reader) for _ in range(reader.varint())] for _ in range(inputs)]
        if not any(witnesses):
            raise Malformed("superfluous witness")
    locktime = reader.take(4)
    whole = reader.data[start : reader.at]
    raw = version + stripped + locktime if segwit else whole
    return Transaction(sha256d(raw), sha256d(whole), len(raw), outpoints, witnesses, scripts)


def parse_transaction(raw):
    reader = Reader(raw)
    transaction = _transaction(reader)
    reader.end()
    return transaction


def parse_block(raw):
    reader = Reader(raw)
    header = reader.take(80)
    transactions = [_transaction(reader) for _ in range(reader.varint())]
    reader.end()
    return Block(sha256d(header), header[4:36], header[36:68], int.from_bytes(header[68:72], "little"), transactions)


def read_block(raw):
    """A block that is what its header commits to. Malformed means undecided (section 6.3), never empty."""
    block = parse_block(raw)
    txids = [t.txid for t in block.transactions]
    if not txids or merkle_root(txids) != block.merkle_root or len(set(txids)) < len(txids):
        raise Malformed("not the header's transactions")
    coinbase = block.transactions[0]
    if coinbase.outpoints != [NO_OUTPOINT]:
        raise Malformed("no coinbase")
    commitment = witness_commitment(coinbase)
    if commitment is None:
        if any(any(t.witnesses) for t in block.transactions):
            raise Malformed("a witness that nothing commits to")
        return block
    if [len(e) for e in coinbase.witnesses[0]] != [32]:
        raise Malformed("no reserved value")
    root = merkle_root([bytes(32)] + [t.wtxid for t in block.transactions[1:]])
    if sha256d(root + coinbase.witnesses[0][0]) != commitment:
        raise Malformed("not the coinbase's witnesses")
    return block


def witness_commitment(coinbase):
    """The 32 bytes of the last output that commits to witnesses (BIP141), or None."""
    scripts = [s for s in coinbase.scripts if s.startswith(COMMITMENT_HEAD) and len(s) >= COMMITMENT_LEN]
    return scripts[-1][len(COMMITMENT_HEAD) : COMMITMENT_LEN] if scripts else None


def merkle_root(txids):
    level = list(txids)
    while len(level) > 1:
        level += level[-1:] if len(level) % 2 else []
        level = [sha256d(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def envelopes(block, namespace):
    """Every sound payload of the namespace in protocol order; the coinbase carries nothing."""
    for number, transaction in enumerate(block.transactions):
        if number == 0:
            continue
        for index, witness in enumerate(transaction.witnesses):
            result, payload = envelope.decode_witness(witness, namespace)
            if result == envelope.VALID:
                yield Found(number, transaction.txid, 0, index, payload)
        for index, script in enumerate(transaction.scripts):
            result, payload = envelope.decode_output_script(script, namespace)
            if result == envelope.VALID:
                yield Found(number, transaction.txid, 1, index, payload)


def median_time(times):
    """Bitcoin Core's mediantime: of a block and up to ten ancestors, element floor(n / 2) when sorted."""
    return sorted(times)[len(times) // 2]


# --- building, for examples and self-tests ------------------------------------------------------

REGTEST_BITS = 0x207FFFFF


def build_transaction(outputs, witness=None, previous=bytes(32), index=0, script_sig=b""):
    """One input, outputs of 0 sat; with its witness when there is one."""
    body = varint(1) + previous + u32(index) + varint(len(script_sig)) + script_sig + u32(0xFFFFFFFD)
    body += varint(len(outputs)) + b"".join(bytes(8) + varint(len(s)) + s for s in outputs)
    if witness is None:
        return u32(2) + body + u32(0)
    stack = varint(len(witness)) + b"".join(varint(len(e)) + e for e in witness)
    return u32(2) + b"\x00\x01" + body + stack + u32(0)


def _coinbase(height, transactions, outputs):
    """BIP34 height, BIP141 commitment in the last output."""
    reserved = bytes(32)
    witness_root = merkle_root([bytes(32)] + [sha256d(t) for t in transactions])
    commitment = COMMITMENT_HEAD + sha256d(witness_root + reserved)
    number = height.to_bytes((height.bit_length() + 8) // 8, "little")
    script_sig = varint(len(number)) + number + b"\x00"
    return build_transaction([b"\x51", *outputs, commitment], [reserved], bytes(32), UNSPENT_INDEX, script_sig)


def build_block(height, previous, time, transactions, coinbase_outputs=()):
    """A block with its coinbase and regtest's proof of work. Its transactions spend coins that do not exist."""
    whole = [_coinbase(height, transactions, coinbase_outputs), *transactions]
    root = merkle_root([parse_transaction(t).txid for t in whole])
    nonce = 0
    while True:
        header = u32(0x20000000) + previous + root + u32(time) + u32(REGTEST_BITS) + u32(nonce)
        if sha256d(header)[31] < 0x80:
            return header + varint(len(whole)) + b"".join(whole)
        nonce += 1
