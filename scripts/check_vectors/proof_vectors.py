"""Checker of proof.json, which the Rust side writes: files with anchors and verdicts, header chains, messages."""

import json

from . import bitcoin_headers, manifest, proof, proof_file
from .verdict import Verdict
from .wire import Reader

unhex = bytes.fromhex


def checks(vectors):
    for case in vectors["cases"]:
        yield "cases/" + case["name"], _check_case, case
    for case in vectors["headers"]:
        yield "headers/" + case["name"], _check_headers, case
    for case in vectors["statements"]:
        yield "statements/%(kind)s after %(handovers)d handovers" % case, _check_statement, case


def read_anchors(stated):
    binary = unhex(stated["manifest"])
    anchors = proof.Anchors(manifest.decode(binary), manifest.rollup_id(binary))
    _add_bitcoin(anchors, stated.get("bitcoin_blocks", []), stated.get("bitcoin_headers", []))
    anchors.l2_blocks.update(map(unhex, stated.get("l2_blocks", [])))
    for handovers, binary_set in stated.get("sequencers", []):
        reader = Reader(unhex(binary_set))
        anchors.sequencers[handovers] = manifest.read_set(reader)
        reader.end()
    return anchors


def _add_bitcoin(anchors, blocks, headers):
    for block in blocks:
        anchors.add_bitcoin_block(block["height"], unhex(block["hash"])[::-1])
    for height, raw in headers:
        anchors.add_bitcoin_header(height, unhex(raw))


def judge_text(text, anchors):
    """The verdict's name, and what proof.judge tells besides."""
    try:
        return proof.judge(proof_file.read(text), anchors)
    except proof_file.Unreadable as error:
        return "unreadable/" + error.args[0], None


def _check_case(case):
    verdict, _ = judge_text(json.dumps(case["file"]).encode(), read_anchors(case["anchors"]))
    assert verdict == case["verdict"], "%s, expected %s" % (verdict, case["verdict"])


class _Blocks(proof.Anchors):
    """Bitcoin anchors without a rollup."""

    def __init__(self):
        self.hash_at, self.height_of, self.headers = {}, {}, {}


def _check_headers(case):
    anchors = _Blocks()
    _add_bitcoin(anchors, case.get("anchors", []), case.get("anchor_headers", []))
    headers = [bitcoin_headers.read_header(unhex(raw)) for raw in case["headers"]["raw"]]
    assert bitcoin_headers.linked(headers), "headers are not linked"
    first, shown = case["headers"]["first_height"], None
    try:
        standing, result = bitcoin_headers.stands(case["rules"], first, headers, case["height"], anchors), "ok"
        shown = as_shown(standing)
    except Verdict as verdict:
        result = verdict.name()
    assert result == case["result"], "%s, expected %s" % (result, case["result"])
    assert shown == case.get("shown"), "%s, expected %s" % (shown, case.get("shown"))


def as_shown(standing):
    work = None if standing.work is None else "%064x" % standing.work
    return {"anchor": standing.anchor, "bits": standing.bits, "depth": standing.depth, "work": work}


def _check_statement(case):
    handovers = case["handovers"]
    if case["kind"] == "receipt":
        receipt = proof_file.Receipt(unhex(case["tx_hash"]), case["first_number"], case["last_number"])
        got = proof.receipt_message(unhex(case["rollup_id"]), handovers, receipt)
    elif case["kind"] == "header":
        got = proof.header_message(handovers, unhex(case["block"]))
    else:
        got = proof.state_message(handovers, proof_file.State(unhex(case["block"]), unhex(case["state_root"])))
    assert got.hex() == case["message"], "%s, expected %s" % (got.hex(), case["message"])
