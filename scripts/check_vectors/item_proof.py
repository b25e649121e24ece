"""That a Bitcoin block holds an item: transactions, Merkle branches, coinbases (PROTOCOL.md, section 8.3)."""

from collections import namedtuple

from . import bitcoin_headers, envelope
from .bitcoin import NO_OUTPOINT, witness_commitment
from .derive import Item, queue_leaf
from .verdict import demand
from .wire import sha256d

MAX_BRANCH = 31

Shown = namedtuple("Shown", "item leaf headers")  # derive.Item, the bytes of its leaf, bitcoin_headers.Header of each


def check_item(proof, manifest, namespace, origin=None):
    """What an ITEM shows. origin: where the headers must end, as (height, hash)."""
    headers = [bitcoin_headers.read_header(raw) for raw in proof.headers.raw]
    first, last = proof.headers.first_height, proof.headers.first_height + len(headers) - 1
    demand(headers, "no_headers")
    demand(last < 1 << 32, "height_overflow")
    demand(bitcoin_headers.linked(headers), "unlinked")
    if origin:
        demand((last, headers[-1].hash) == tuple(origin), "other_origin")
    demand(first <= proof.height <= last, "not_in_headers")
    demand(proof.height > manifest.start_height, "not_above_start")
    demand(proof.place.txid == proof.inclusion.transaction.txid, "other_transaction")
    at = proof.height - first
    _check_inclusion(proof.inclusion, proof.headers.raw[at][36:68], not proof.place.from_output)
    tx = _transaction_at(proof.inclusion.transaction, proof.place, namespace)
    item = Item(proof.height, headers[at].hash, proof.inclusion.index, *proof.place, tx)
    return Shown(item, queue_leaf(item), headers)


def _check_inclusion(proof, txid_root, from_witness):
    transaction, coinbase = proof.transaction, proof.coinbase
    demand(transaction.stripped_len != 64 and coinbase.stripped_len != 64, "sixty_four_bytes")
    demand(coinbase.outpoints == [NO_OUTPOINT], "not_coinbase")
    demand(len(proof.branch) == len(proof.coinbase_branch), "unequal_branches")
    demand(len(proof.branch) <= MAX_BRANCH and proof.index >> len(proof.branch) == 0, "index_beyond_branch")
    demand(proof.index, "coinbase_carries_nothing")
    demand(_climb(coinbase.txid, 0, proof.coinbase_branch) == txid_root, "coinbase_not_in_block")
    commitment, reserved = witness_commitment(coinbase), coinbase.witnesses[0]
    if commitment is not None:
        demand(len(reserved) == 1 and len(reserved[0]) == 32, "coinbase_witness")
    if from_witness:
        demand(commitment is not None, "no_witness_commitment")
    else:
        demand(not any(transaction.witnesses), "unproven_witness")
    root = _climb(transaction.wtxid if from_witness else transaction.txid, proof.index, proof.branch)
    demand(root is not None, "repeated_node")
    demand(sha256d(root + reserved[0]) == commitment if from_witness else root == txid_root, "not_in_block")


def _climb(node, index, branch):
    """The root over a path, or None where a node stands right of its equal."""
    for level, other in enumerate(branch):
        if index >> level & 1:
            if node == other:
                return None
            node = sha256d(other + node)
        else:
            node = sha256d(node + other)
    return node


def _transaction_at(transaction, place, namespace):
    scripts = transaction.scripts if place.from_output else transaction.witnesses
    decode = envelope.decode_output_script if place.from_output else envelope.decode_witness
    demand(place.index < len(scripts), "no_envelope")
    result, payload = decode(scripts[place.index], namespace)
    demand(result != envelope.ABSENT, "no_envelope")
    demand(result == envelope.VALID, "flawed_envelope")
    listed = envelope.transactions(payload)
    demand(place.position < len(listed), "no_item")
    return listed[place.position]
