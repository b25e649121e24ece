"""Payloads and their two carriers (PROTOCOL.md, section 3). The decoders are total."""

from collections import namedtuple

from .wire import Malformed, Reader, varint

MAGIC = bytes.fromhex("582597")
VERSION = 1
NEEDLE_HEAD = MAGIC + bytes([VERSION])
NEEDLE_LEN = 8
MIN_PAYLOAD = 10
MAX_PAYLOAD = 400_000
CHUNK = 255
MIN_LISTED_TX = 64

TX, TXS, BATCH, HANDOVER = 0x01, 0x02, 0x10, 0x11

OP_PUSHDATA1, OP_PUSHDATA2, OP_PUSHDATA4 = 0x4C, 0x4D, 0x4E
OP_RETURN, OP_2DROP, OP_DROP, OP_CHECKSIG = 0x6A, 0x6D, 0x75, 0xAC
ANNEX = 0x50

Payload = namedtuple("Payload", "namespace kind body raw")
Token = namedtuple("Token", "opcode data")  # data is None for an opcode that is not a push

ABSENT = "absent"
VALID = "valid"


class Flaw(Exception):
    """Why a candidate is not an envelope; the argument is the flaw's name."""


# --- encoding ---------------------------------------------------------------------------------


def make_payload(namespace, kind, body):
    return NEEDLE_HEAD + namespace + bytes([kind]) + body


def txs_body(items):
    return b"".join(varint(len(item)) + item for item in items)


def push(data):
    n = len(data)
    if n <= 75:
        return bytes([n]) + data
    if n <= 0xFF:
        return bytes([OP_PUSHDATA1, n]) + data
    if n <= 0xFFFF:
        return bytes([OP_PUSHDATA2]) + n.to_bytes(2, "little") + data
    return bytes([OP_PUSHDATA4]) + n.to_bytes(4, "little") + data


def chunk_lengths(size):
    """255 each and the rest last; a rest of one byte is made two by the chunk before it."""
    full, rest = divmod(size, CHUNK)
    lengths = [CHUNK] * full + ([rest] if rest else [])
    if rest == 1 and full:
        lengths[-2:] = [CHUNK - 1, 2]
    return lengths


def encode_op_return(payload):
    return bytes([OP_RETURN]) + push(payload)


def encode_taproot_leaf(payload, key):
    pushes, at = [], 0
    for n in chunk_lengths(len(payload)):
        pushes.append(push(payload[at : at + n]))
        at += n
    return drop_groups(pushes) + b"\x20" + key + bytes([OP_CHECKSIG])


def drop_groups(pushes):
    out = b""
    for i in range(0, len(pushes), 2):
        pair = pushes[i : i + 2]
        out += b"".join(pair) + bytes([OP_2DROP if len(pair) == 2 else OP_DROP])
    return out


# --- decoding ---------------------------------------------------------------------------------


def candidate_namespace(script):
    """The four bytes after the first 58259701 that has four bytes after it, or None."""
    at = script.find(NEEDLE_HEAD)
    if at < 0 or at + NEEDLE_LEN > len(script):
        return None  # a later occurrence would have even fewer bytes after it
    return script[at + len(NEEDLE_HEAD) : at + NEEDLE_LEN]


def decode_output_script(script, namespace=None):
    """(ABSENT, None), (VALID, Payload) or (flaw, None)."""
    return _decide(script, namespace, lambda: _decode_op_return(script))


def decode_leaf(script, namespace=None):
    """A leaf script on its own, its control block taken as good."""
    return _decide(script, namespace, lambda: _decode_taproot_leaf(script))


def decode_witness(witness, namespace=None):
    """One input's witness, the spent output not looked at."""
    stack = list(witness)
    if len(stack) >= 2 and stack[-1][:1] == bytes([ANNEX]):
        stack.pop()
    if len(stack) < 2:
        return ABSENT, None
    script, control = stack[-2], stack[-1]

    def decode():
        if not (33 <= len(control) <= 33 + 32 * 128 and (len(control) - 33) % 32 == 0):
            raise Flaw("control_block_size")
        if control[0] not in (0xC0, 0xC1):
            raise Flaw("leaf_version")
        return _decode_taproot_leaf(script)

    return _decide(script, namespace, decode)


def _decide(script, namespace, decode):
    found = candidate_namespace(script)
    if found is None or (namespace is not None and found != namespace):
        return ABSENT, None
    try:
        return VALID, decode()
    except Flaw as flaw:
        return flaw.args[0], None


def _tokens(script):
    """Opcodes and pushes from left to right. Only 01..4e are pushes: 00, 4f and 51..60 are opcodes."""
    at = 0
    while at < len(script):
        opcode = script[at]
        at += 1
        if not 0x01 <= opcode <= OP_PUSHDATA4:
            yield Token(opcode, None)
            continue
        n = opcode
        if opcode >= OP_PUSHDATA1:
            width = {OP_PUSHDATA1: 1, OP_PUSHDATA2: 2, OP_PUSHDATA4: 4}[opcode]
            if at + width > len(script):
                raise Flaw("truncated_push")
            n = int.from_bytes(script[at : at + width], "little")
            at += width
        if at + n > len(script):
            raise Flaw("truncated_push")
        least = {OP_PUSHDATA1: 76, OP_PUSHDATA2: 0x100, OP_PUSHDATA4: 0x10000}.get(opcode, 1)
        if n < least:
            raise Flaw("non_minimal_push")
        yield Token(opcode, script[at : at + n])
        at += n


def _decode_op_return(script):
    if script[0] != OP_RETURN:
        raise Flaw("not_op_return")
    first = next(_tokens(script[1:]))
    if first.data is None or len(script) != 1 + len(push(first.data)):
        raise Flaw("not_one_push")
    payload = check_payload(first.data)
    if encode_op_return(first.data) != script:
        raise Flaw("not_canonical")
    return payload


def _decode_taproot_leaf(script):
    tokens = list(_tokens(script))
    key, checksig = ([None] * 2 + tokens)[-2:]
    if key is None or key.opcode != 0x20 or checksig.opcode != OP_CHECKSIG:
        raise Flaw("bad_key_suffix")
    chunks = _chunks(tokens[:-2])
    payload = b"".join(chunks)
    if [len(c) for c in chunks] != chunk_lengths(len(payload)):
        raise Flaw("bad_chunking")
    decoded = check_payload(payload)
    if encode_taproot_leaf(payload, key.data) != script:
        raise Flaw("not_canonical")
    return decoded


def _chunks(tokens):
    """(push push 2DROP)* and at most one final (push DROP)."""
    chunks, at = [], 0
    while at < len(tokens):
        shape = [None if t.data is not None else t.opcode for t in tokens[at : at + 3]]
        if shape == [None, None, OP_2DROP]:
            chunks += [tokens[at].data, tokens[at + 1].data]
            at += 3
        elif shape == [None, OP_DROP]:  # at most three tokens: two means these are the last
            chunks.append(tokens[at].data)
            at += 2
        else:
            raise Flaw("missing_drop")
    return chunks


def check_payload(payload):
    if payload[:4] != NEEDLE_HEAD:
        raise Flaw("not_at_start")
    if len(payload) < MIN_PAYLOAD:
        raise Flaw("too_short")
    if len(payload) > MAX_PAYLOAD:
        raise Flaw("too_long")
    decoded = Payload(payload[4:8], payload[8], payload[9:], payload)
    if decoded.kind == TXS:
        try:
            transactions(decoded)
        except Malformed:
            raise Flaw("txs_malformed") from None
    return decoded


def transactions(payload):
    """The L2 transactions that a payload carries, in order; nothing for other kinds."""
    if payload.kind == TX:
        return [payload.body]
    if payload.kind != TXS:
        return []
    reader, items = Reader(payload.body), []
    while reader.left():
        n = reader.varint()
        if n < MIN_LISTED_TX:
            raise Malformed("listed transaction of %d bytes" % n)
        items.append(reader.take(n))
    if not items:
        raise Malformed("empty list")
    return items
