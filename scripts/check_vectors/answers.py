"""What this implementation answers to each kind of generated case, and the results that the text has names for."""

from collections import namedtuple

from . import bitcoin, derive, ledger, manifest, merkle, proof_file, proof_vectors, roots_vectors
from . import envelope as env
from .vector_files import seen_after
from .wire import Malformed, sha256

unhex = bytes.fromhex

# answer: (input, Scenes) -> (what must be as expected, names of results). results: every one that cases must reach.
Kind = namedtuple("Kind", "answer results")

PAYLOAD_FLAWS = {"not_at_start", "too_short", "too_long", "txs_malformed"}
PUSH_FLAWS = {"truncated_push", "non_minimal_push"}
BATCH = {
    "accept", "Malformed", "Replay", "WrongNumber", "WrongParent", "UnknownCodec", "SignatureCount", "Signer", "BadSignature",
    "MalformedData", "OverBudget", "OriginMismatch", "OriginNotBelow", "OriginWrongBranch", "TimestampHigh", "TimestampLow",
    "StaleOrigin",
}  # fmt: skip
HANDOVER = {"accept", "Malformed", "WrongSeq", "HandoverPending", "SignatureCount", "Signer", "BadSignature"}
NO_OPS = {"malformed", "unpaid_cost", "bad_key", "bad_signature", "bad_nonce", "insufficient_balance"}
PROOF = {
    "proven": "forced included consistent censored equivocation conflicting_state broken_receipt",
    "needs_anchor": "bitcoin bitcoin_header l2_block sequencers",
    "needs_node": "leaves_withheld origin_withheld",
    "unreadable": "json type version",
    "refuted": "other_rollup unsigned signer bad_signature no_headers height_overflow unlinked other_origin not_in_headers "
    "not_above_start other_transaction sixty_four_bytes not_coinbase unequal_branches index_beyond_branch "
    "coinbase_carries_nothing coinbase_not_in_block coinbase_witness unproven_witness no_witness_commitment repeated_node "
    "not_in_block no_envelope flawed_envelope no_item wrong_height other_branch bits work inclusion_proof not_executed "
    "below_threshold shrunk consistency_proof other_queue other_parent executed no_room not_enclosed other_place same_leaf "
    "true_header other_bitcoin_header not_neighbours in_order same_block other_signers unrelated_origins same_state "
    "empty_receipt not_covered other_own_transactions other_forced_section receipt_kept",
}
# Out of reach of any case: `not_canonical` and `overflow` cannot happen (3.5, 10.2); `time_warp` needs headers with
# testnet4's work, which proof.json has in its easier form alone; nothing here is so large as to be `too_long` a file.


def is_accepted(result):
    return result in ("ok", "valid", "accept", "holds") or result.startswith("proven/")


class Scenes:
    """What cases refer to by name: chains up to a Bitcoin block, and anchors."""

    def __init__(self):
        self.chains, self.anchors = {}, {}

    def add(self, line):
        if "anchors" in line:
            self.anchors[line["scene"]] = proof_vectors.read_anchors(line["anchors"])
        else:
            after = _start(line)
            for raw in line["blocks"]:
                _mine(after, raw)
            self.chains[line["scene"]] = after


# --- one function for each kind -----------------------------------------------------------------


def _place(asked, _scenes):
    try:
        place = proof_file.read_place(asked["text"])
    except proof_file.Unreadable:
        return _alone("bad")
    shown = "%s:%s:%d" % (place.txid[::-1].hex(), "out" if place.from_output else "in", place.index)
    return _alone("ok", shown=shown + (":%d" % place.position if place.position else ""))


def _alone(result, **more):
    """An answer with one result."""
    return {"result": result, **more}, [result]


def _envelope(result, payload):
    if result != env.VALID:
        return _alone(result)
    return _alone(result, payload=sha256(payload.raw).hex(), txs=[tx.hex() for tx in env.transactions(payload)])


def _namespace(asked):
    return unhex(asked["namespace"]) if asked["namespace"] else None


def _output_script(asked, _scenes):
    return _envelope(*env.decode_output_script(unhex(asked["script"]), _namespace(asked)))


def _witness(asked, _scenes):
    return _envelope(*env.decode_witness([unhex(e) for e in asked["witness"]], _namespace(asked)))


def _bitcoin_block(asked, _scenes):
    try:
        block = bitcoin.read_block(unhex(asked["raw"]))
    except Malformed:
        return _alone("undecided")
    leaves = [derive.queue_leaf(i) for i in derive.items_of(asked["height"], block, bitcoin.envelopes(block, _namespace(asked)))]
    return _alone("ok", hash=block.hash.hex(), leaves=[leaf.hex() for leaf in leaves], queue_root=merkle.mth(leaves).hex())


def _manifest(asked, _scenes):
    binary = unhex(asked["binary"])
    try:
        decoded = manifest.decode(binary)
    except Malformed:
        return _alone("malformed")
    assert manifest.encode(decoded) == binary, "a second encoding"
    return _alone("ok", rollup_id=manifest.rollup_id(binary).hex())


def _ledger(asked, _scenes):
    machine = ledger.Ledger(unhex(asked["rollup_id"]), unhex(asked["parameters"]))
    got = {"genesis_state_root": machine.state_root().hex(), "outcomes": [], "state_roots": []}
    for step in asked["steps"]:
        got["outcomes"].append(machine.execute(unhex(step["tx"]), step["forced"]))
        got["state_roots"].append(machine.state_root().hex())
    return got, got["outcomes"]


def _list(asked, _scenes):
    leaves, index, old = [unhex(leaf) for leaf in asked["leaves"]], asked["index"], asked["old"]
    inclusion = [h.hex() for h in merkle.inclusion_proof(leaves, index)] if leaves else None
    consistency = [h.hex() for h in merkle.consistency_proof(leaves, old)]
    part = [h.hex() for h in merkle.range_proof(leaves, *asked["range"])]
    return _alone("ok", root=merkle.mth(leaves).hex(), inclusion=inclusion, consistency=consistency, range=part)


def _range(asked, _scenes):
    leaves, proof = [unhex(leaf) for leaf in asked["leaves"]], [unhex(h) for h in asked["proof"]]
    return _alone("holds" if merkle.verify_range(leaves, asked["begin"], asked["size"], proof, unhex(asked["root"])) else "fails")


def _inclusion(asked, _scenes):
    return _alone("holds" if roots_vectors.inclusion_holds(asked) else "fails")


def _consistency(asked, _scenes):
    return _alone("holds" if roots_vectors.consistency_holds(asked) else "fails")


def _queue_leaf(asked, _scenes):
    return _alone("ok", leaf=derive.queue_leaf(roots_vectors.read_item(asked)).hex())


def _l2_block(asked, _scenes):
    header = derive.L2Block(
        unhex(asked["rollup_id"]), asked["number"], unhex(asked["parent"]), asked["origin_height"], unhex(asked["origin_hash"]),
        asked["timestamp"], asked["forced_end"], asked["queue_size"], unhex(asked["queue_root"]),
        merkle.mth([unhex(tx) for tx in asked["txs"]]),
    )  # fmt: skip
    return _alone("ok", hash=derive.block_hash(header).hex())


def _start(asked):
    """{Bitcoin block hash: the chain as it was after it}, with the start block alone."""
    binary = unhex(asked["manifest"])
    decoded, rollup_id = manifest.decode(binary), manifest.rollup_id(binary)
    executor = ledger.start(decoded, rollup_id)
    return {decoded.start_hash: derive.Chain(decoded, rollup_id, asked["start_time"], asked["ancestor_times"], executor)}


def _mine(after, raw):
    block = bitcoin.read_block(unhex(raw))
    chain = after[block.previous].fork()
    chain.apply(block)
    after[block.hash] = chain
    return chain


def _chain(asked, after):
    chains = [_mine(after, raw) for raw in asked["blocks"]]
    return {"blocks": [seen_after(chain) for chain in chains]}, chains


def _judged(asked, scenes):
    answer, chains = _chain(asked, dict(scenes.chains[asked["scene"]]))
    return answer, [verdict for chain in chains for verdict in chain.verdicts]


def _derivation(asked, _scenes):
    answer, chains = _chain(asked, _start(asked))
    return answer, [result for chain in chains for result in chain.verdicts + chain.outcomes]


def _proof(asked, scenes):
    verdict, shown = proof_vectors.judge_text(asked["file"].encode(), scenes.anchors[asked["anchors"]])
    signers = sorted(key.hex() for key in shown) if isinstance(shown, list) and not verdict.endswith("included") else None
    return _alone(verdict, signers=signers)


KINDS = {
    "place": Kind(_place, {"ok", "bad"}),
    "output_script": Kind(_output_script, {"absent", "valid", "not_op_return", "not_one_push"} | PUSH_FLAWS | PAYLOAD_FLAWS),
    "witness": Kind(
        _witness,
        {"absent", "valid", "control_block_size", "leaf_version", "bad_key_suffix", "missing_drop", "bad_chunking"} | PUSH_FLAWS
        | PAYLOAD_FLAWS,
    ),  # fmt: skip
    "bitcoin_block": Kind(_bitcoin_block, {"ok", "undecided"}),
    "manifest": Kind(_manifest, {"ok", "malformed"}),
    "ledger": Kind(_ledger, {"ok"} | NO_OPS),
    "list": Kind(_list, {"ok"}),
    "inclusion": Kind(_inclusion, {"holds", "fails"}),
    "consistency": Kind(_consistency, {"holds", "fails"}),
    "range": Kind(_range, {"holds", "fails"}),
    "queue_leaf": Kind(_queue_leaf, {"ok"}),
    "l2_block": Kind(_l2_block, {"ok"}),
    "batch": Kind(_judged, BATCH),
    "handover": Kind(_judged, HANDOVER),
    "derivation": Kind(_derivation, {"accept", "Malformed", "ok"}),
    "proof": Kind(_proof, {"%s/%s" % (verdict, name) for verdict, names in PROOF.items() for name in names.split()}),
}
