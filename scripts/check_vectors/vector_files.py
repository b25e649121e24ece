"""Checkers of manifest.json, ledger.json and derivation.json, which the Rust side writes; and how files are written."""

import json

from . import bitcoin, derive, ledger, manifest
from .wire import Malformed

unhex = bytes.fromhex


def same(what, got, expected):
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
    same("re-encoded", manifest.encode(decoded).hex(), case["binary"])
    rollup_id = manifest.rollup_id(binary)
    same("rollup_id", rollup_id.hex(), case["rollup_id"])
    same("namespace", rollup_id[:4].hex(), case["namespace"])


def ledger_checks(vectors):
    for case in vectors["cases"]:
        yield case["name"], _check_ledger, case


def _check_ledger(case):
    machine = ledger.Ledger(unhex(case["rollup_id"]), unhex(case["parameters"]))
    same("genesis state root", machine.state_root().hex(), case["genesis_state_root"])
    for i, step in enumerate(case["steps"]):
        same("outcome of step %d" % i, machine.execute(unhex(step["tx"]), step["forced"]), step["outcome"])
        same("state root after step %d" % i, machine.state_root().hex(), step["state_root"])


def derivation_checks(vectors):
    for case in vectors["cases"]:
        yield case["name"], _check_derivation, case


def _check_derivation(case):
    binary = unhex(case["manifest"])
    decoded, rollup_id = manifest.decode(binary), manifest.rollup_id(binary)
    executor = ledger.start(decoded, rollup_id)
    start = derive.Chain(decoded, rollup_id, case["start_time"], case["ancestor_times"], executor)
    after = {decoded.start_hash: start}  # Bitcoin block hash -> the chain as it was after that block
    same("number of expectations", len(case["expect"]), len(case["blocks"]))
    for i, (entry, expect) in enumerate(zip(case["blocks"], case["expect"])):
        block = bitcoin.read_block(unhex(entry["raw"]))
        assert block.previous in after, "block %d does not connect" % i
        chain = after[block.previous].fork()
        chain.apply(block)
        after[block.hash] = chain
        _compare("block %d: " % i, chain, expect)


def seen_after(chain):
    """What there is after a Bitcoin block, and what came with it."""
    view = chain.view(chain.height())
    return {
        "height": chain.height(),
        "queue_size": view.queue_size,
        "queue_root": view.queue_root.hex(),
        "verdicts": chain.verdicts,
        "new_blocks": [h.hex() for h in chain.appended],
        "outcomes": chain.outcomes,
        "head_number": chain.head.number,
        "head_hash": derive.block_hash(chain.head).hex(),
        "state_root": chain.executor.state_root().hex() if chain.executor else None,
    }


def _compare(where, chain, expect):
    for key, value in seen_after(chain).items():
        same(where + key, value, expect[key])


def write_sections(path, sections):
    """An object whose fields are texts or lists, an entry of a list on a line."""
    lines = []
    for section, value in sections.items():
        if isinstance(value, str):
            lines.append("  %s: %s" % (json.dumps(section), json.dumps(value)))
        else:
            rows = ",\n".join("    " + json.dumps(row) for row in value)
            lines.append("  %s: [\n%s\n  ]" % (json.dumps(section), rows))
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
