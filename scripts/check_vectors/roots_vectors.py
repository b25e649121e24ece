"""Maker and checker of roots.json: lists with their roots, claims about lists with proofs good and bad, queue leaves.

{"cases": [{"name", "leaves": [HEX], "root",
            "inclusion": [{"index", "proof": [HEX]}],        of the entry at index
            "consistency": [{"old", "proof": [HEX]}]}],      from the first `old` entries to all of them
 "inclusion": [{"name", "leaf": HEX, "index", "size", "root", "proof": [HEX], "holds": bool}],
 "consistency": [{"name", "old", "old_root", "new", "new_root", "proof": [HEX], "holds": bool}],
 "queue_leaves": [{"name", "height", "block_hash", "transaction_index", "txid", "from_output": bool,
                   "index", "position", "tx": HEX, "leaf": HEX}]}      hashes in internal byte order
"""

from . import derive, merkle
from .vector_files import same, write_sections
from .wire import U64_MAX, sha256

unhex = bytes.fromhex

LADDER = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65]
BAD_SIZES = [1, 2, 3, 7, 8, 9, 33]
U32_MAX = 0xFFFFFFFF


# --- checking ---------------------------------------------------------------------------------


def checks(vectors):
    for section, check in (
        ("cases", _check_tree), ("inclusion", _check_inclusion), ("consistency", _check_consistency), ("queue_leaves", _check_queue_leaf),
    ):  # fmt: skip
        for case in vectors[section]:
            yield section + "/" + case["name"], check, case


def _check_tree(case):
    leaves, root = [unhex(leaf) for leaf in case["leaves"]], unhex(case["root"])
    same("root", merkle.mth(leaves).hex(), case["root"])
    for shown in case["inclusion"]:
        index, proof = shown["index"], [unhex(h) for h in shown["proof"]]
        same("inclusion proof of %d" % index, proof, merkle.inclusion_proof(leaves, index))
        assert merkle.verify_inclusion(leaves[index], index, len(leaves), proof, root)
    for shown in case["consistency"]:
        old, proof = shown["old"], [unhex(h) for h in shown["proof"]]
        same("consistency proof from %d" % old, proof, merkle.consistency_proof(leaves, old))
        assert merkle.verify_consistency(old, len(leaves), merkle.mth(leaves[:old]), root, proof)


def inclusion_holds(claim):
    proof = [unhex(h) for h in claim["proof"]]
    return merkle.verify_inclusion(unhex(claim["leaf"]), claim["index"], claim["size"], proof, unhex(claim["root"]))


def consistency_holds(claim):
    proof = [unhex(h) for h in claim["proof"]]
    return merkle.verify_consistency(claim["old"], claim["new"], unhex(claim["old_root"]), unhex(claim["new_root"]), proof)


def _check_inclusion(case):
    same("the claim", inclusion_holds(case), case["holds"])


def _check_consistency(case):
    same("the claim", consistency_holds(case), case["holds"])


def read_item(case):
    return derive.Item(
        case["height"], unhex(case["block_hash"]), case["transaction_index"], unhex(case["txid"]),
        int(case["from_output"]), case["index"], case["position"], unhex(case["tx"]),
    )  # fmt: skip


def _check_queue_leaf(case):
    same("leaf", derive.queue_leaf(read_item(case)).hex(), case["leaf"])


# --- making -----------------------------------------------------------------------------------


def write(path):
    write_sections(path, {
        "cases": [_tree("%d entries" % size, _entries(size)) for size in LADDER] + [_tree("a queue", _queue())],
        "inclusion": list(_inclusion_claims()), "consistency": list(_consistency_claims()), "queue_leaves": list(_queue_leaves()),
    })  # fmt: skip


def _entries(size):
    """Different byte strings of 0 to 4 bytes and, so that a node can be taken for one, of 65."""
    return [bytes([i]) * (65 if i % 10 == 9 else i % 5) for i in range(size)]


def _hex(hashes):
    return [h.hex() for h in hashes]


def _some(size):
    return sorted({i for i in (0, 1, 2, size // 2 - 1, size // 2, size // 2 + 1, size - 2, size - 1) if 0 <= i < size})


def _tree(name, leaves):
    size = len(leaves)
    return {
        "name": name, "leaves": _hex(leaves), "root": merkle.mth(leaves).hex(),
        "inclusion": [{"index": i, "proof": _hex(merkle.inclusion_proof(leaves, i))} for i in _some(size)],
        "consistency": [{"old": n, "proof": _hex(merkle.consistency_proof(leaves, n))} for n in LADDER if n <= size],
    }  # fmt: skip


def _changed(proof):
    """(name, proof) for everything that is not the proof."""
    yield "a node too many", proof + [sha256(b"")]
    for at in {0, len(proof) - 1} if proof else ():
        yield "node %d left out" % at, proof[:at] + proof[at + 1 :]
        yield "node %d changed" % at, proof[:at] + [sha256(proof[at])] + proof[at + 1 :]
    if len(proof) > 1:
        yield "nodes in another order", proof[::-1]


def _inclusion(name, leaf, index, size, root, proof):
    claim = {"name": name, "leaf": leaf.hex(), "index": index, "size": size, "root": root.hex(), "proof": _hex(proof)}
    return {**claim, "holds": inclusion_holds(claim)}


def _inclusion_claims():
    for size in BAD_SIZES:
        leaves = _entries(size)
        root = merkle.mth(leaves)
        for index in _some(size):
            leaf, proof, name = leaves[index], merkle.inclusion_proof(leaves, index), "%d of %d" % (index, size)
            yield _inclusion(name, leaf, index, size, root, proof)
            for what, bad in _changed(proof):
                yield _inclusion("%s: %s" % (name, what), leaf, index, size, root, bad)
            yield _inclusion(name + ": another entry", leaf + b"\x00", index, size, root, proof)
            yield _inclusion(name + ": another root", leaf, index, size, sha256(root), proof)
            for other in {index ^ 1, index + 1, size, U64_MAX} - {index}:
                yield _inclusion("%s: as %d" % (name, other), leaf, other, size, root, proof)
            for other in {size - 1, size + 1, 2 * size, U64_MAX} - {size}:
                yield _inclusion("%s: of %d" % (name, other), leaf, index, other, root, proof)
    two = _entries(2)
    node = merkle.leaf_hash(two[0]) + merkle.leaf_hash(two[1])
    yield _inclusion("a node as an entry", node, 0, 1, merkle.mth(two), [])
    yield _inclusion("an entry of nothing", b"", 0, 0, merkle.mth([]), [])
    deep = [sha256(bytes([i])) for i in range(64)]
    yield _inclusion("the last of 2^64 - 1", b"", U64_MAX - 1, U64_MAX, _above(b"", U64_MAX - 1, U64_MAX, deep), deep[:63])


def _above(leaf, index, size, path):
    """The root that a path of enough nodes leads to."""
    first, count = merkle.leaf_hash(leaf), 0
    while size > 1:
        if index & 1 or index + 1 < size:
            first = merkle.node_hash(path[count], first) if index & 1 else merkle.node_hash(first, path[count])
            count += 1
        index, size = index >> 1, size + 1 >> 1
    return first


def _consistency(name, old, old_root, new, new_root, proof):
    claim = {
        "name": name, "old": old, "old_root": old_root.hex(), "new": new, "new_root": new_root.hex(), "proof": _hex(proof),
    }  # fmt: skip
    return {**claim, "holds": consistency_holds(claim)}


def _consistency_claims():
    other = sha256(b"another root")
    for new in [0, *BAD_SIZES]:
        leaves = _entries(new)
        for old in sorted({0, 1, new // 2, max(new - 1, 0), new} & set(range(new + 1))):
            name, roots = "%d to %d" % (old, new), (merkle.mth(leaves[:old]), merkle.mth(leaves))
            proof = merkle.consistency_proof(leaves, old)
            yield _consistency(name, old, roots[0], new, roots[1], proof)
            for what, bad in _changed(proof):
                yield _consistency("%s: %s" % (name, what), old, roots[0], new, roots[1], bad)
            yield _consistency(name + ": another old root", old, other, new, roots[1], proof)
            yield _consistency(name + ": another new root", old, roots[0], new, other, proof)
            yield _consistency(name + ": both roots others", old, other, new, other, proof)
            yield _consistency(name + ": one older", old + 1, roots[0], new, roots[1], proof)
            yield _consistency(name + ": one newer", old, roots[0], new + 1, roots[1], proof)
            if old != new:
                yield _consistency(name + ": backwards", new, roots[1], old, roots[0], proof)
    for old in (1, 1 << 63, U64_MAX - 1, U64_MAX):
        yield _consistency("%d to 2^64 - 1: made up" % old, old, other, U64_MAX, other, [other] * 64)


def _queue_leaves():
    block, txid = sha256(b"block"), sha256(b"transaction")
    rows = [
        ("an input", 101, 1, False, 0, 0, b"forced"), ("an output", 101, 1, True, 0, 0, b"forced"),
        ("further in", 102, 7, False, 3, 2, b"x" * 64), ("greatest numbers", U32_MAX, U32_MAX, True, U32_MAX, U32_MAX, b""),
    ]  # fmt: skip
    for name, height, transaction_index, from_output, index, position, tx in rows:
        case = {
            "name": name, "height": height, "block_hash": block.hex(), "transaction_index": transaction_index, "txid": txid.hex(),
            "from_output": from_output, "index": index, "position": position, "tx": tx.hex(),
        }  # fmt: skip
        yield {**case, "leaf": derive.queue_leaf(read_item(case)).hex()}


def _queue():
    return [unhex(case["leaf"]) for case in _queue_leaves()]
