"""Checkers of manifest.json, ledger.json, derivation.json and roots.json, which the Rust side writes."""

from . import bitcoin, derive, ledger, manifest, merkle
from .wire import Malformed

unhex = bytes.fromhex


def _same(what, got, expected):
    assert got == expected, "%s is %s, expected %s" % (what, got, expected)


def manifest_checks(vectors):
    for case in vectors["cases"]:
        yield case["name"], _check_manifest, case


def _check_manifest(case):
    binary = unhex(case["binary"])
    if case.get("error"):
        try:
            ledger.start(manifest.decode(binary), bytes(32))
        except Malformed:
            return
        raise AssertionError("accepted")
    decoded = manifest.decode(binary)
    _same("re-encoded", manifest.encode(decoded).hex(), case["binary"])
    rollup_id = manifest.rollup_id(binary)
    _same("rollup_id", rollup_id.hex(), case["rollup_id"])
    _same("namespace", rollup_id[:4].hex(), case["namespace"])


def ledger_checks(vectors):
    for case in vectors["cases"]:
        yield case["name"], _check_ledger, case


def _check_ledger(case):
    machine = ledger.Ledger(unhex(case["rollup_id"]), unhex(case["parameters"]))
    _same("genesis state root", machine.state_root().hex(), case["genesis_state_root"])
    for i, step in enumerate(case["steps"]):
        _same("outcome of step %d" % i, machine.execute(unhex(step["tx"]), step["forced"]), step["outcome"])
        _same("state root after step %d" % i, machine.state_root().hex(), step["state_root"])


def derivation_checks(vectors):
    for case in vectors["cases"]:
        yield case["name"], _check_derivation, case


def _check_derivation(case):
    binary = unhex(case["manifest"])
    decoded, rollup_id = manifest.decode(binary), manifest.rollup_id(binary)
    executor = ledger.start(decoded, rollup_id)
    start = derive.Chain(decoded, rollup_id, case["start_time"], case["ancestor_times"], executor)
    after = {decoded.start_hash: start}  # Bitcoin block hash -> the chain as it was after that block
    _same("number of expectations", len(case["expect"]), len(case["blocks"]))
    for i, (entry, expect) in enumerate(zip(case["blocks"], case["expect"])):
        block = bitcoin.parse_block(unhex(entry["raw"]))
        assert block.previous in after, "block %d does not connect" % i
        chain = after[block.previous].fork()
        chain.apply(block)
        after[block.hash] = chain
        _compare("block %d: " % i, chain, expect)


def _compare(where, chain, expect):
    view = chain.view(chain.height())
    got = {
        "height": chain.height(),
        "queue_size": view.queue_size,
        "queue_root": view.queue_root.hex(),
        "verdicts": chain.verdicts,
        "new_blocks": [h.hex() for h in chain.appended],
        "head_number": chain.head.number,
        "head_hash": derive.block_hash(chain.head).hex(),
    }
    for key, value in got.items():
        _same(where + key, value, expect[key])
    if expect["state_root"] is not None:
        _same(where + "state_root", chain.executor.state_root().hex(), expect["state_root"])
    if "outcomes" in expect:
        _same(where + "outcomes", chain.outcomes, expect["outcomes"])


def roots_checks(vectors):
    """cases: a list of leaves, its root, and proofs in it. queue_leaves: places and the bytes of their leaves.

    {"cases": [{"name", "leaves": [HEX], "root",
                "inclusion": [{"index", "size", "proof": [HEX]}],      in the tree of the first `size` leaves
                "consistency": [{"old", "new", "proof": [HEX]}]}],
     "queue_leaves": [{"name", "height", "block_hash", "transaction_index", "txid", "from_output": bool,
                       "index", "position", "tx": HEX, "leaf": HEX}]}     hashes in internal byte order
    """
    for case in vectors.get("cases", []):
        yield "cases/" + case["name"], _check_tree, case
    for case in vectors.get("queue_leaves", []):
        yield "queue_leaves/" + case["name"], _check_queue_leaf, case


def _check_tree(case):
    leaves = [unhex(leaf) for leaf in case["leaves"]]
    _same("root", merkle.mth(leaves).hex(), case["root"])
    for p in case.get("inclusion", []):
        known, proof = leaves[: p["size"]], [unhex(h) for h in p["proof"]]
        _same("inclusion proof of %(index)d in %(size)d" % p, proof, merkle.inclusion_proof(known, p["index"]))
        assert merkle.verify_inclusion(known[p["index"]], p["index"], p["size"], proof, merkle.mth(known))
    for p in case.get("consistency", []):
        proof = [unhex(h) for h in p["proof"]]
        _same("consistency proof %(old)d to %(new)d" % p, proof, merkle.consistency_proof(leaves[: p["new"]], p["old"]))
        roots = merkle.mth(leaves[: p["old"]]), merkle.mth(leaves[: p["new"]])
        assert merkle.verify_consistency(p["old"], p["new"], *roots, proof)


def _check_queue_leaf(case):
    item = derive.Item(
        case["height"], unhex(case["block_hash"]), case["transaction_index"], unhex(case["txid"]),
        int(case["from_output"]), case["index"], case["position"], unhex(case["tx"]),
    )  # fmt: skip
    _same("leaf", derive.queue_leaf(item).hex(), case["leaf"])
