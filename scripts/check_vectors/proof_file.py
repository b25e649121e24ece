"""Proof files as JSON: the formats of PROTOCOL.md, section 8.5. What is read here has a verdict; what is not has none."""

import json
import re
from collections import namedtuple

from . import bitcoin
from .derive import Leaf
from .wire import Malformed

MAX_FILE = 33_554_432
VERSION = 1

File = namedtuple("File", "type rollup_id proof")
Headers = namedtuple("Headers", "first_height raw")
Item = namedtuple("Item", "headers height place inclusion")
Inclusion = namedtuple("Inclusion", "transaction index branch coinbase coinbase_branch")
Place = namedtuple("Place", "txid from_output index position")
ProvenLeaf = namedtuple("ProvenLeaf", "index leaf proof")
LeafRange = namedtuple("LeafRange", "leaves proof")
Origin = namedtuple("Origin", "height hash")
Block = namedtuple("Block", "number parent origin timestamp forced_end queue_size queue_root txs_root")
State = namedtuple("State", "block state_root")
Receipt = namedtuple("Receipt", "tx_hash first_number last_number")
Signature = namedtuple("Signature", "index signature")
Signed = namedtuple("Signed", "statement handovers signatures")
Queue = namedtuple("Queue", "size root")
Included = namedtuple("Included", "item block")
Consistency = namedtuple("Consistency", "old new proof old_block new_block")
Censored = namedtuple("Censored", "block parent case")
NotExecuted = namedtuple("NotExecuted", "item")
LeftOut = namedtuple("LeftOut", "item before after")
Replaced = namedtuple("Replaced", "item leaf")
FalseHeader = namedtuple("FalseHeader", "origin")
OutOfOrder = namedtuple("OutOfOrder", "first second")
Equivocation = namedtuple("Equivocation", "first second child_origin")
ConflictingState = namedtuple("ConflictingState", "first second")
BrokenReceipt = namedtuple("BrokenReceipt", "receipt parent blocks")
ReceiptBlock = namedtuple("ReceiptBlock", "header own_txs forced")


class Unreadable(Exception):
    """Not a file. The argument is json, type, version or too_long."""


class _Object(dict):
    """twice: the names that stand in it more than once."""


class _OtherNumber:
    """A number with a sign, a fraction or an exponent, or one of more digits than any field has."""


def _pairs(pairs):
    out = _Object(pairs)
    out.twice = set()
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        out.twice = {name for name in out if names.count(name) > 1}
    return out


def _integer(text):
    return int(text) if text.isdigit() and len(text) <= 20 else _OtherNumber()


def _no_json(_text):
    raise ValueError("no JSON")


def _demand(condition):
    if not condition:
        raise Unreadable("json")


# --- values: each reader takes what json gave and returns the value, or raises --------------------


def _number(bits):
    def read(value):
        _demand(type(value) is int and value < 1 << bits)
        return value

    return read


U8, U32, U64 = _number(8), _number(32), _number(64)
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")
_PLACE = re.compile(r"([0-9a-fA-F]{64}):(in|out):(0|[1-9][0-9]{0,9})(?::(0|[1-9][0-9]{0,9}))?")


def _hex(value):
    _demand(isinstance(value, str) and _HEX.fullmatch(value))
    return bytes.fromhex(value)


def _hash(value):
    out = _hex(value)
    _demand(len(out) == 32)
    return out


def _reversed_hash(value):
    return _hash(value)[::-1]


def _header(value):
    out = _hex(value)
    _demand(len(out) == 80)
    return out


def _signature(value):
    out = _hex(value)
    _demand(len(out) == 64)
    return out


def _transaction(value):
    try:
        return bitcoin.parse_transaction(_hex(value))
    except Malformed:
        raise Unreadable("json") from None


def read_place(value):
    match = isinstance(value, str) and _PLACE.fullmatch(value)
    _demand(match)
    txid, side, index, position = match.groups()
    return Place(bytes.fromhex(txid)[::-1], int(side == "out"), U32(int(index)), U32(int(position or "0")))


def _list(read):
    def read_all(value):
        _demand(isinstance(value, list))
        return [read(v) for v in value]

    return read_all


def _object(make, **fields):
    """An object with these fields and no others. One written (reader, None) may be left out or null."""

    def read(value):
        _demand(isinstance(value, _Object) and not value.twice and set(value) <= set(fields))
        out = {}
        for name, field in fields.items():
            if isinstance(field, tuple):
                out[name] = None if value.get(name) is None else field[0](value[name])
            else:
                _demand(name in value)
                out[name] = field(value[name])
        return make(**out)

    return read


def _signed(statement):
    signature = _object(Signature, index=U8, signature=_signature)
    return _object(Signed, statement=statement, handovers=U32, signatures=_list(signature))


def _one_of(**cases):
    def read(value):
        _demand(isinstance(value, _Object) and not value.twice and len(value) == 1)
        ((name, inner),) = value.items()
        _demand(name in cases)
        return cases[name](inner)

    return read


def _make_leaf(height, block_hash, tx_index, place, tx_hash):
    return Leaf(height, block_hash, tx_index, *place, tx_hash)


_INCLUSION = _object(
    Inclusion, transaction=_transaction, index=U32, branch=_list(_reversed_hash), coinbase=_transaction,
    coinbase_branch=_list(_reversed_hash),
)  # fmt: skip
_HEADERS = _object(Headers, first_height=U32, raw=_list(_header))
_ITEM = _object(Item, headers=_HEADERS, height=U32, place=read_place, inclusion=_INCLUSION)
_QUEUE_LEAF = _object(_make_leaf, height=U32, block_hash=_reversed_hash, tx_index=U32, place=read_place, tx_hash=_hash)
_LEAF = _object(ProvenLeaf, index=U64, leaf=_QUEUE_LEAF, proof=_list(_hash))
_LEAVES = _object(LeafRange, leaves=_list(_QUEUE_LEAF), proof=_list(_hash))
_BLOCK = _object(
    Block, number=U64, parent=_hash, origin=_object(Origin, height=U32, hash=_reversed_hash), timestamp=U64, forced_end=U64,
    queue_size=U64, queue_root=_hash, txs_root=_hash,
)  # fmt: skip
_SIGNED_BLOCK = _signed(_BLOCK)
_SIGNED_STATE = _signed(_object(State, block=_hash, state_root=_hash))
_SIGNED_RECEIPT = _signed(_object(Receipt, tx_hash=_hash, first_number=U64, last_number=U64))
_RECEIPT_BLOCK = _object(ReceiptBlock, header=_SIGNED_BLOCK, own_txs=_list(_hex), forced=_LEAVES)
_QUEUE = _object(Queue, size=U64, root=_hash)
_CASE = _one_of(
    not_executed=_object(NotExecuted, item=_LEAF),
    left_out=_object(LeftOut, item=_ITEM, before=(_LEAF, None), after=(_LEAF, None)),
    replaced=_object(Replaced, item=_ITEM, leaf=_LEAF),
    false_header=_object(FalseHeader, origin=(_header, None)),
    out_of_order=_object(OutOfOrder, first=_LEAF, second=_LEAF),
)

PROOFS = {
    "forced": _ITEM,
    "included": _object(Included, item=_LEAF, block=_SIGNED_BLOCK),
    "consistency": _object(
        Consistency, old=_QUEUE, new=_QUEUE, proof=_list(_hash), old_block=(_BLOCK, None), new_block=(_BLOCK, None)
    ),
    "censored": _object(Censored, block=_SIGNED_BLOCK, parent=_BLOCK, case=_CASE),
    "equivocation": _object(Equivocation, first=_SIGNED_BLOCK, second=_SIGNED_BLOCK, child_origin=(_header, None)),
    "conflicting_state": _object(ConflictingState, first=_SIGNED_STATE, second=_SIGNED_STATE),
    "broken_receipt": _object(BrokenReceipt, receipt=_SIGNED_RECEIPT, parent=_BLOCK, blocks=_list(_RECEIPT_BLOCK)),
}


def read(text):
    """A File out of its bytes."""
    if len(text) > MAX_FILE:
        raise Unreadable("too_long")
    try:
        value = json.loads(
            text.decode("utf-8"), object_pairs_hook=_pairs, parse_int=_integer, parse_float=lambda _: _OtherNumber(),
            parse_constant=_no_json,
        )  # fmt: skip
    except (ValueError, RecursionError):
        raise Unreadable("json") from None
    _demand(isinstance(value, _Object) and not value.twice & {"type", "version"})
    _demand(isinstance(value.get("type"), str) and type(value.get("version")) is int)
    if value["version"] != VERSION:
        raise Unreadable("version")
    if value["type"] not in PROOFS:
        raise Unreadable("type")
    _demand(not value.twice and set(value) == {"type", "version", "rollup_id", "proof"})
    return File(value["type"], _hash(value["rollup_id"]), PROOFS[value["type"]](value["proof"]))
