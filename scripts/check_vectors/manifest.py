"""Sequencer sets and manifests (PROTOCOL.md, section 2)."""

import unicodedata
from collections import namedtuple

from . import bip340
from .wire import U64_MAX, Malformed, Reader, tagged, u8, u16, u32, varint

OPAQUE, LEDGER, EVM = 0, 1, 2

SequencerSet = namedtuple("SequencerSet", "keys threshold")
Manifest = namedtuple(
    "Manifest",
    "name network start_height start_hash sequencing_window max_lag max_forced_per_block "
    "sequencers executor parameters predecessor",
)


def read_set(reader):
    n = reader.varint()
    if not 1 <= n <= 64:
        raise Malformed("set of %d keys" % n)
    keys = [reader.take(32) for _ in range(n)]
    if any(bip340.lift_x(key) is None for key in keys):
        raise Malformed("key is not a point")
    if any(a >= b for a, b in zip(keys, keys[1:])):
        raise Malformed("keys do not ascend strictly")
    threshold = reader.u8()
    if not 1 <= threshold <= n:
        raise Malformed("threshold %d of %d" % (threshold, n))
    return SequencerSet(tuple(keys), threshold)


def encode_set(sequencers):
    return varint(len(sequencers.keys)) + b"".join(sequencers.keys) + u8(sequencers.threshold)


def _check(condition, what):
    if not condition:
        raise Malformed(what)


def _name(raw):
    _check(1 <= len(raw) <= 32, "name of %d bytes" % len(raw))
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("name is not UTF-8") from None
    _check(not any(unicodedata.category(c) == "Cc" for c in name), "control character in the name")
    return name


def read_parameters(binary):
    """(forced_cost_per_byte, fee account, {account: balance})."""
    reader = Reader(binary)
    cost, fee_account = reader.u32(), reader.take(32)
    accounts, last = {}, None
    for _ in range(reader.varint()):
        account = reader.take(32)
        if last is not None and account <= last:
            raise Malformed("accounts do not ascend strictly")
        accounts[account] = reader.u64()
        last = account
    reader.end()
    if sum(accounts.values()) > U64_MAX:
        raise Malformed("balances do not fit 64 bits")
    return cost, fee_account, accounts


def _check_parameters(executor, parameters):
    if executor == OPAQUE:
        _check(not parameters, "the opaque executor has no parameters")
    if executor == LEDGER:
        cost, _, _ = read_parameters(parameters)
        _check(cost >= 1, "forced_cost_per_byte")


def decode(binary):
    reader = Reader(binary)
    _check(reader.u8() == 1, "version")
    name = _name(reader.take(reader.varint()))
    network, start_height, start_hash = reader.take(4), reader.u32(), reader.take(32)
    window, lag, forced = reader.u16(), reader.u16(), reader.u16()
    _check(start_height < 2**31, "start_height")
    _check(window >= 2, "sequencing_window")
    _check(1 <= lag <= window, "max_lag")
    _check(forced >= 1, "max_forced_per_block")
    sequencers = read_set(reader)
    executor = reader.u8()
    _check(executor <= EVM, "executor kind")
    parameters = reader.take(reader.varint())
    _check_parameters(executor, parameters)
    flag = reader.u8()
    _check(flag <= 1, "predecessor flag")
    predecessor = (reader.take(32), reader.u32()) if flag else None
    reader.end()
    return Manifest(name, network, start_height, start_hash, window, lag, forced, sequencers, executor, parameters, predecessor)


def encode(m):
    name = m.name.encode("utf-8")
    tail = b"\x00" if m.predecessor is None else b"\x01" + m.predecessor[0] + u32(m.predecessor[1])
    return (
        u8(1) + varint(len(name)) + name + m.network + u32(m.start_height) + m.start_hash
        + u16(m.sequencing_window) + u16(m.max_lag) + u16(m.max_forced_per_block)
        + encode_set(m.sequencers) + u8(m.executor) + varint(len(m.parameters)) + m.parameters + tail
    )  # fmt: skip


def rollup_id(binary):
    return tagged("sortie/rollup", binary)
