"""Tests of this implementation itself: known answers first, then promises, then the worked examples of the text."""

import copy
import re
import sys
import zlib

from . import bip340, bitcoin, derive, examples, ledger, manifest, merkle, vector_files
from . import envelope as env
from .wire import U64_MAX, Malformed, Reader, sha256, u8, u32, u64, varint

unhex = bytes.fromhex

# BIP340 test-vectors.csv: index, secret, key, aux, message, signature, valid
BIP340 = [
    (
        "0", "0000000000000000000000000000000000000000000000000000000000000003",
        "F9308A019258C31049344F85F89D5229B531C845836F99B08601F113BCE036F9",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "E907831F80848D1069A5371B402410364BDF1C5F8307B0084C55F1CE2DCA8215"
        "25F66A4A85EA8B71E482A74F382D2CE5EBEEE8FDB2172F477DF4900D310536C0", True,
    ),
    (
        "1", "B7E151628AED2A6ABF7158809CF4F3C762E7160F38B4DA56A784D9045190CFEF",
        "DFF1D77F2A671C5F36183726DB2341BE58FEAE1DA2DECED843240F7B502BA659",
        "0000000000000000000000000000000000000000000000000000000000000001",
        "243F6A8885A308D313198A2E03707344A4093822299F31D0082EFA98EC4E6C89",
        "6896BD60EEAE296DB48A229FF71DFE071BDE413E6D43F917DC8DCF8C78DE3341"
        "8906D11AC976ABCCB20B091292BFF4EA897EFCB639EA871CFA95F6DE339E4B0A", True,
    ),
    (
        "3 (r and message reduced mod p and n would fail)",
        "0B432B2677937381AEF05BB02A66ECD012773062CF3FA2549E44F58ED2401710",
        "25D1DFF95105F5253C4022F628A996AD3A0D95FBF21D468A1B33F8C160D8F517",
        "FF" * 32, "FF" * 32,
        "7EB0509757E246F19449885651611CB965ECC1A187DD51B64FDA1EDC9637D5EC"
        "97582B9CB13DB3933705B32BA982AF5AF25FD78881EBB32771FC5922EFC66EA3", True,
    ),
    (
        "4", None, "D69C3509BB99E412E68B0FE8544E72837DFA30746D8BE2AA65975F29D22DC7B9", None,
        "4DF3C3F68FCC83B27E9D42C90431A72499F17875C81A599B566C9889B9696703",
        "00000000000000000000003B78CE563F89A0ED9414F5AA28AD0D96D6795F9C63"
        "76AFB1548AF603B3EB45C9F8207DEE1060CB71C04E80F593060B07D28308D7F4", True,
    ),
    (
        "5 (key is not on the curve)", None,
        "EEFDEA4CDB677750A420FEE807EACF21EB9898AE79B9768766E4FAA04A2D4A34", None,
        "243F6A8885A308D313198A2E03707344A4093822299F31D0082EFA98EC4E6C89",
        "6CFF5C3BA86C69EA4B7376F31A9BCB4F74C1976089B2D9963DA2E5543E177769"
        "69E89B4C5564D00349106B8497785DD7D1D713A8AE82B32FA79D5F7FC407D39B", False,
    ),
    (
        "6 (R has an odd y)", None,
        "DFF1D77F2A671C5F36183726DB2341BE58FEAE1DA2DECED843240F7B502BA659", None,
        "243F6A8885A308D313198A2E03707344A4093822299F31D0082EFA98EC4E6C89",
        "FFF97BD5755EEEA420453A14355235D382F6472F8568A18B2F057A1460297556"
        "3CC27944640AC607CD107AE10923D9EF7A73C643E166BE5EBEAFA34B1AC553E2", False,
    ),
]  # fmt: skip


def bip340_official_vectors():
    for name, secret, key, aux, message, signature, valid in BIP340:
        if secret:
            assert bip340.public_key(unhex(secret)) == unhex(key), name
            assert bip340.sign(unhex(secret), unhex(message), unhex(aux)) == unhex(signature), name
        assert bip340.verify(unhex(key), unhex(message), unhex(signature)) == valid, name


def bip340_refuses_numbers_out_of_range():
    _, _, key, _, message, signature, _ = BIP340[1]
    r, s = unhex(signature)[:32], unhex(signature)[32:]
    for bad in (bip340.P.to_bytes(32, "big") + s, r + bip340.N.to_bytes(32, "big"), r + s[:-1], r + s + b"\0", r + bytes(32)):
        assert not bip340.verify(unhex(key), unhex(message), bad)
    assert bip340.lift_x(bip340.P.to_bytes(32, "big")) is None


def varints_have_one_form():
    for n in (0, 1, 0xFC, 0xFD, 0xFFFF, 0x10000, 0xFFFFFFFF, 0x100000000, U64_MAX):
        assert Reader(varint(n)).varint() == n
    for bad in ("fdfc00", "feffff0000", "ffffffffff00000000", "fd00", "fe000000", "ff", ""):
        try:
            Reader(unhex(bad)).varint()
        except Malformed:
            continue
        raise AssertionError(bad)


def merkle_proofs_verify_and_nothing_else_does():
    leaves = [bytes([i]) * (i % 5) for i in range(20)]
    for n in range(1, len(leaves) + 1):
        root = merkle.mth(leaves[:n])
        for i in range(n):
            proof = merkle.inclusion_proof(leaves[:n], i)
            assert merkle.verify_inclusion(leaves[i], i, n, proof, root)
            assert not merkle.verify_inclusion(leaves[i], i + 1, n, proof, root)
            assert not merkle.verify_inclusion(leaves[i], i, n, proof + [root], root)
        for m in range(n + 1):
            proof = merkle.consistency_proof(leaves[:n], m)
            old = merkle.mth(leaves[:m])
            assert merkle.verify_consistency(m, n, old, root, proof), (m, n)
            assert not merkle.verify_consistency(m, n, sha256(old), root, proof), (m, n)


def median_time_is_bitcoin_cores():
    assert bitcoin.median_time([5]) == 5
    assert bitcoin.median_time([1, 9]) == 9
    assert bitcoin.median_time([3, 1, 2, 9, 8, 7, 4, 6, 5, 11, 10]) == 6


# --- ledger -----------------------------------------------------------------------------------

ROLLUP = sha256(b"ledger self-test")
ALICE, BOB, FEES = (examples.key(n) for n in ("alice", "bob", "fees"))


def _ledger(cost=1, alice=1000, fees=FEES):
    return ledger.Ledger(ROLLUP, ledger.encode_parameters(cost, fees, {ALICE: alice}))


def _signed(amount, fee, nonce, to=BOB, who="alice"):
    return ledger.sign_transfer(ROLLUP, bip340.example_secret(who), to, amount, fee, nonce)


def every_ledger_failure_has_its_reason_and_changes_nothing():
    good = _signed(10, 1, 0)
    no_point = unhex(BIP340[4][2])
    cases = [
        ("malformed", b"\x00"),
        ("malformed", good + b"\x00"),
        ("malformed", good[:-1]),
        ("malformed", b"\x02" + good[1:]),
        ("bad_key", b"\x01" + no_point + good[33:]),
        ("bad_signature", good[:-1] + bytes([good[-1] ^ 1])),
        ("bad_signature", good[:80] + b"\x09" + good[81:]),
        ("bad_nonce", _signed(10, 1, 1)),
        ("bad_nonce", _signed(10, 1, U64_MAX)),
        ("insufficient_balance", _signed(1000, 1, 0)),
        ("insufficient_balance", _signed(U64_MAX, 1, 0)),
        ("insufficient_balance", _signed(U64_MAX, U64_MAX, 0)),
    ]
    for reason, tx in cases:
        for forced in (True, False):
            machine = _ledger()
            root = machine.state_root()
            got = machine.execute(tx, forced)
            assert (got, machine.state_root()) == (reason, root), (reason, got)
    assert _ledger(cost=0).execute(good, True) == "unpaid_cost"
    assert _ledger(cost=0).execute(good, False) == "ok"
    assert _ledger(cost=0).execute(b"\x00", True) == "malformed"


def ledger_transfers_move_money():
    machine = _ledger()
    assert machine.execute(_signed(10, 1, 0), True) == "ok"
    assert machine.accounts == {ALICE: (989, 1), BOB: (10, 0), FEES: (1, 0)}
    assert machine.execute(_signed(10, 1, 0), True) == "bad_nonce"
    assert machine.execute(_signed(989, 0, 1, to=ALICE), False) == "ok"
    assert machine.accounts[ALICE] == (989, 2)
    assert machine.execute(_signed(5, 3, 2, to=FEES), False) == "ok"
    assert machine.accounts[FEES] == (9, 0)
    assert machine.execute(_signed(981, 0, 3), False) == "ok"
    assert machine.accounts[ALICE] == (0, 4)
    own = _ledger(fees=ALICE)
    assert own.execute(_signed(7, 100, 0, to=ALICE), False) == "ok" and own.accounts == {ALICE: (1000, 1)}


def empty_accounts_leave_no_trace_in_the_state_root():
    machine = ledger.Ledger(ROLLUP, ledger.encode_parameters(1, FEES, {ALICE: 0}))
    assert machine.state_root() == merkle.mth([])
    assert machine.execute(_signed(0, 0, 0), False) == "ok"
    assert machine.state_root() == merkle.mth([ALICE + u64(0) + u64(1)])


# --- derivation -------------------------------------------------------------------------------

START = sha256(b"derivation self-test")
TIME = 1_700_000_000


class Run:
    """A one-key rollup over made-up Bitcoin blocks ten minutes apart."""

    def __init__(self, window=6, lag=3, forced=2, keys=("sequencer 1",), threshold=1):
        secrets = {examples.key(k): bip340.example_secret(k) for k in keys}
        self.secrets = dict(enumerate(secrets[k] for k in sorted(secrets)))
        sequencers = manifest.SequencerSet(tuple(sorted(secrets)), threshold)
        m = manifest.Manifest("t", bytes(4), 100, START, window, lag, forced, sequencers, manifest.OPAQUE, b"", None)
        self.rollup_id = manifest.rollup_id(manifest.encode(m))
        self.chain = derive.Chain(m, self.rollup_id, TIME, [], ledger.Opaque(self.rollup_id, b""))

    def mine(self, *payloads, time=None):
        """One Bitcoin block, each (kind, body) in an output of its own transaction; returns the verdicts."""
        txs = [
            bitcoin.build_transaction([env.encode_op_return(env.make_payload(self.rollup_id[:4], kind, body))], previous=sha256(u32(i)))
            for i, (kind, body) in enumerate(payloads)
        ]
        height = self.chain.height() + 1
        when = TIME + 600 * (height - 100) if time is None else time
        raw = bitcoin.build_block(height, self.chain.views[-1].hash, when, txs)
        self.chain.apply(bitcoin.parse_block(raw))
        return self.chain.verdicts

    def until(self, height):
        while self.chain.height() < height:
            assert self.mine() == []

    def batch(self, blocks, last=None, secrets=None, **changes):
        """A sound batch on the head, or one with some field changed before it is signed."""
        chain = self.chain
        last = chain.head.origin_height + sum(b.advance for b in blocks) if last is None else last
        fields = {
            "first": u64(chain.head.number + 1), "parent": derive.block_hash(chain.head), "last": u32(last),
            "hash": chain.view(last).hash if 100 <= last <= chain.height() else bytes(32), "codec": u8(0),
            "data": derive.encode_batch_blocks(blocks), "handovers": chain.handovers, "id": self.rollup_id, "tail": b"",
        }  # fmt: skip
        fields.update(changes)
        data = fields["data"]
        signed = b"".join(fields[k] for k in ("first", "parent", "last", "hash", "codec")) + varint(len(data)) + data
        message = derive.batch_message(fields["id"], fields["handovers"], signed)
        return env.BATCH, signed + derive.sign_all(self.secrets if secrets is None else secrets, message) + fields["tail"]


def block(advance=0, seconds=0, *txs):
    return derive.BatchBlock(advance, seconds, list(txs))


def every_batch_drop_reason():
    run = Run(keys=("a", "b", "c"), threshold=2, lag=4)
    run.until(104)
    both, chain = {0: run.secrets[0], 2: run.secrets[2]}, run.chain
    sound = [block(), block(1, 600, b"own")]
    cut = run.batch(sound, secrets=both)[1]
    high = chain.view(104).time + 600 + derive.FUTURE_LIMIT - chain.head.timestamp
    over = u64(U64_MAX)
    cases = [
        ("Malformed", (env.BATCH, b"\x00")),
        ("Malformed", (env.BATCH, cut[:84])),
        ("Malformed", (env.BATCH, cut[:77] + b"\xfd\x05\x00" + cut[78:])),
        ("Malformed", (env.BATCH, cut[:77] + b"\xff" * 9)),
        ("Replay", run.batch(sound, first=u64(0))),
        ("WrongNumber", run.batch(sound, first=u64(2))),
        ("WrongNumber", run.batch(sound, first=over)),
        ("WrongParent", run.batch(sound, parent=bytes(32))),
        ("UnknownCodec", run.batch(sound, codec=u8(2))),
        ("SignatureCount", run.batch(sound, secrets={})),
        ("SignatureCount", run.batch(sound, secrets={0: run.secrets[0]})),
        ("SignatureCount", run.batch(sound)),
        ("SignatureCount", run.batch(sound, secrets=both, tail=b"\x00")),
        ("Signer", run.batch(sound, secrets={0: run.secrets[0], 3: run.secrets[2]})),
        ("Signer", (env.BATCH, cut[:-130] + cut[-65:] + cut[-130:-65])),
        ("Signer", (env.BATCH, cut[:-65] + cut[-130:-65])),
        ("BadSignature", run.batch(sound, secrets={0: run.secrets[0], 1: run.secrets[2]})),
        ("BadSignature", run.batch(sound, secrets=both, handovers=1)),
        ("BadSignature", run.batch(sound, secrets=both, id=bytes(32))),
        ("MalformedData", run.batch([], secrets=both, data=b"")),
        ("MalformedData", run.batch([], secrets=both)),
        ("MalformedData", run.batch([block()] * 4097, secrets=both)),
        ("MalformedData", run.batch([], secrets=both, data=b"\x01\x02\x00\x00")),
        ("MalformedData", run.batch([block(0, 0, b"")], secrets=both)),
        ("MalformedData", run.batch([], secrets=both, data=b"\x01\x00\x00\x00\x00")),
        ("MalformedData", run.batch([block(0, U64_MAX)], secrets=both)),
        ("MalformedData", run.batch([], secrets=both, codec=u8(1), data=b"")),
        ("OriginMismatch", run.batch(sound, secrets=both, last=102)),
        ("OriginNotBelow", run.batch([block(1)] * 5, secrets=both)),
        ("OriginWrongBranch", run.batch(sound, secrets=both, hash=bytes(32))),
        ("TimestampHigh", run.batch([block(1, 0), block(1, high + 1)], secrets=both)),
        ("TimestampLow", run.batch([block(0, 0), block(1, 0)], secrets=both)),
        ("StaleOrigin", run.batch([block(0, 0, b"stale"), block(1, high)], secrets=both)),
    ]
    for reason, payload in cases:
        assert run.mine(payload) == [reason], (reason, chain.verdicts)
        run.chain.__dict__.update(_rewound(run, 104))
    assert run.mine((env.BATCH, cut)) == ["accept"]
    assert run.chain.head.number == 2 and run.chain.head.timestamp == TIME + 600


def _rewound(run, height):
    """Forgets the Bitcoin block above `height`; sound as long as it added no item, L2 block or handover."""
    chain = run.chain
    assert chain.height() == height + 1 and not chain.appended and not chain.pending
    return {"times": chain.times[:-1], "views": chain.views[:-1]}


def drop_checks_go_check_by_check_over_all_blocks():
    run = Run()
    run.until(104)
    low_then_high = [block(1, 0), block(0, 600_000)]
    assert run.mine(run.batch(low_then_high)) == ["TimestampHigh"]
    stale_then_low = [block(0, 0, b"stale"), block(1, 0)]
    assert run.mine(run.batch(stale_then_low)) == ["TimestampLow"]


def timestamp_and_lag_limits_are_exact():
    for seconds, verdict in ((600 * 5 + 7200, "accept"), (600 * 5 + 7201, "TimestampHigh")):
        run = Run()
        run.until(104)  # judged at 105; genesis has the start block's time
        assert run.mine(run.batch([block(0, seconds)])) == [verdict]
    for height, verdict in ((102, "accept"), (103, "StaleOrigin")):
        run = Run()  # own transactions at origin 100, judged one block above `height`
        run.until(height)
        assert run.mine(run.batch([block(0, 0, b"own")])) == [verdict], height
        run = Run()  # the same without own transactions
        run.until(height)
        assert run.mine(run.batch([block()])) == ["accept"]


def batches_of_one_bitcoin_block_build_on_each_other():
    run = Run()
    run.until(102)
    first = run.batch([block()])
    ahead = run.chain.fork()
    ahead.head = ahead._build(ahead.head, 100, ahead.head.timestamp, [])
    run.chain, here = ahead, run.chain
    second = run.batch([block(1, 600)])
    run.chain = here
    assert run.mine(second, first, first, second, second) == ["WrongNumber", "accept", "Replay", "accept", "Replay"]


def handovers_take_force_at_the_next_bitcoin_block():
    run = Run()
    old, new = run.secrets, {0: bip340.example_secret("next")}
    new_set = manifest.SequencerSet((bip340.public_key(new[0]),), 1)

    def handover(seq, secrets=old):
        return env.HANDOVER, derive.encode_handover(run.rollup_id, secrets, seq, new_set)

    run.until(101)
    verdicts = run.mine(
        (env.HANDOVER, b"\x00"), handover(1), (env.HANDOVER, handover(0)[1] + b"\x00"), (env.HANDOVER, handover(0)[1][:-65] + b"\x01" + bytes(64)),
        handover(0, new), handover(0), handover(0), handover(1), run.batch([block()]),
    )  # fmt: skip
    assert verdicts == [
        "Malformed", "WrongSeq", "SignatureCount", "Signer", "BadSignature", "accept", "HandoverPending", "WrongSeq", "accept",
    ], verdicts  # fmt: skip
    late = run.batch([block()])  # signed by the old set, under the old count
    assert run.mine(late) == ["BadSignature"]
    assert run.chain.handovers == 1
    assert run.mine(run.batch([block()], secrets=new), handover(1, new)) == ["accept", "accept"]


def silence_is_ended_by_forced_only_blocks():
    run = Run(window=6, lag=3, forced=2)
    item = (env.TX, b"forced")
    assert run.mine(item, item, item) == []  # height 101, due at 107
    for height in range(102, 107):
        run.mine()
        assert not run.chain.appended, height
    run.mine()  # 107: 100 + 1 + 6 <= 107
    origins = 107 - 3
    assert run.chain.head.origin_height == origins and run.chain.head.forced_end == 3
    assert len(run.chain.appended) == 5  # 101, 101 again for the third item, 102, 103, 104
    assert run.chain.outcomes == ["ok"] * 3
    run.mine()
    assert not run.chain.appended  # the head stands still until 104 + 1 + 6
    run.until(110)
    assert run.chain.head.origin_height == origins
    run.mine()
    assert run.chain.head.origin_height == 111 - 3


def a_flood_cannot_hide_an_item_behind_a_live_sequencer():
    run = Run(window=4, lag=4, forced=1)
    run.mine(*[(env.TX, b"%d" % i) for i in range(5)])  # due at 105
    run.until(104)
    assert run.mine(run.batch([block(1, 600)])) == ["accept"]  # one block with one item, then the rest is derived
    assert run.chain.head.forced_end == 5
    assert [b for b in run.chain.appended] and run.chain.head.origin_height == 105 - 2


def inflate_takes_exactly_one_stream():
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = packer.compress(bytes(1000)) + packer.flush()
    assert derive.inflate(stream) == bytes(1000)
    for bad in (b"", stream[:-1], stream + b"\x00", zlib.compress(b"x"), b"\x07"):
        try:
            derive.inflate(bad)
        except Malformed:
            continue
        raise AssertionError(bad)
    for size, good in ((derive.MAX_INFLATED, True), (derive.MAX_INFLATED + 1, False)):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        try:
            derive.inflate(packer.compress(bytes(size)) + packer.flush())
            assert good
        except Malformed:
            assert not good


# --- the checkers themselves ------------------------------------------------------------------


def _example_case():
    """The worked example as a case of derivation.json, ending with a reorg back to block 101 and 102 again."""
    example = examples.Example()
    notes = dict(pair for _, pairs in example.sections for pair in pairs)
    raws = [notes["bitcoin block %d" % h] for h in range(101, 108)]
    chain = derive.Chain(
        example.manifest, example.rollup_id, examples.START_TIME, example.ancestors, ledger.start(example.manifest, example.rollup_id)
    )
    expect = []
    for raw in raws:
        chain.apply(bitcoin.parse_block(unhex(raw)))
        expect.append(vector_files.seen_after(chain))
    assert chain.head == example.chain.head
    return {
        "name": "example", "manifest": notes["manifest"], "ancestor_times": example.ancestors, "start_time": examples.START_TIME,
        "blocks": [{"raw": r} for r in raws + raws[1:3]], "expect": expect + expect[1:3],
    }  # fmt: skip


def _refuses(check, case):
    try:
        check(case)
    except (AssertionError, Malformed):
        return True
    return False


def derivation_checker_follows_reorgs_and_compares_everything():
    case = _example_case()
    vector_files._check_derivation(case)
    for i, key, value in (
        (0, "queue_root", "00" * 32), (1, "verdicts", []), (1, "state_root", "00" * 32), (5, "new_blocks", []), (7, "height", 108), (8, "head_number", 6),
    ):  # fmt: skip
        changed = copy.deepcopy(case)
        changed["expect"][i][key] = value
        assert _refuses(vector_files._check_derivation, changed), (i, key)


def manifest_and_ledger_checkers_compare_everything():
    notes = dict(examples.values())
    binary = notes["manifest"]
    sound = {"name": "m", "binary": binary, "rollup_id": notes["rollup id"], "namespace": notes["namespace"]}
    vector_files._check_manifest(sound)
    assert _refuses(vector_files._check_manifest, {"name": "m", "binary": binary, "error": True})
    assert _refuses(vector_files._check_manifest, {**sound, "rollup_id": "00" * 32})
    raw = unhex(binary)
    at = raw.index(unhex("040002000200"))  # window, lag, forced
    keys = at + 7
    broken = [
        raw[:-1], raw + b"\x00", b"\x02" + raw[1:], raw[:1] + b"\xfd\x07\x00" + raw[2:], raw[:2] + b"\x00" + raw[3:], raw[:2] + b"\xff" + raw[3:],
        raw[:1] + b"\x00" + raw[9:], raw[:at] + unhex("010001000200") + raw[at + 6 :], raw[:at] + unhex("040005000200") + raw[at + 6 :],
        raw[:at] + unhex("040000000200") + raw[at + 6 :], raw[:at] + unhex("040002000000") + raw[at + 6 :],
        raw[:keys] + raw[keys + 32 : keys + 64] + raw[keys : keys + 32] + raw[keys + 64 :], raw[:keys] + raw[keys : keys + 32] * 2 + raw[keys + 64 :],
        raw[:keys] + bytes(32) + raw[keys + 32 :], raw[: keys + 96] + b"\x00" + raw[keys + 97 :], raw[: keys + 96] + b"\x04" + raw[keys + 97 :],
        raw[: keys + 97] + b"\x03" + raw[keys + 98 :], raw[:-1] + b"\x02", raw[:-1] + b"\x01",
    ]  # fmt: skip
    for number, bad in enumerate(broken):
        vector_files._check_manifest({"name": str(number), "binary": bad.hex(), "error": True})
    good = vector_files._check_manifest
    assert _refuses(good, {"name": "m", "binary": (raw[:-1] + b"\x01" + bytes(36)).hex(), "error": True})  # a sound predecessor

    step = {"tx": notes["101: forced transfer"], "forced": True, "outcome": "ok", "state_root": None}
    machine = ledger.Ledger(unhex(notes["rollup id"]), unhex(notes["ledger parameters"]))
    machine.execute(unhex(step["tx"]), True)
    step["state_root"] = machine.state_root().hex()
    case = {
        "name": "l", "rollup_id": notes["rollup id"], "parameters": notes["ledger parameters"],
        "genesis_state_root": notes["genesis: state root"], "steps": [step],
    }  # fmt: skip
    vector_files._check_ledger(case)
    assert _refuses(vector_files._check_ledger, {**case, "steps": [{**step, "outcome": "bad_nonce"}]})
    assert _refuses(vector_files._check_ledger, {**case, "genesis_state_root": "00" * 32})


TESTS = [
    bip340_official_vectors,
    bip340_refuses_numbers_out_of_range,
    varints_have_one_form,
    merkle_proofs_verify_and_nothing_else_does,
    median_time_is_bitcoin_cores,
    every_ledger_failure_has_its_reason_and_changes_nothing,
    ledger_transfers_move_money,
    empty_accounts_leave_no_trace_in_the_state_root,
    every_batch_drop_reason,
    drop_checks_go_check_by_check_over_all_blocks,
    timestamp_and_lag_limits_are_exact,
    batches_of_one_bitcoin_block_build_on_each_other,
    handovers_take_force_at_the_next_bitcoin_block,
    silence_is_ended_by_forced_only_blocks,
    a_flood_cannot_hide_an_item_behind_a_live_sequencer,
    inflate_takes_exactly_one_stream,
    derivation_checker_follows_reorgs_and_compares_everything,
    manifest_and_ledger_checkers_compare_everything,
]


OTHER_HEX = ("f9beb4d9", "1c163f28", "0a03cf40")  # networks' magics that the example does not use


# --- the text ---------------------------------------------------------------------------------


def the_text_shows_the_worked_examples(text):
    """Every example value stands in PROTOCOL.md, and every long hex string of PROTOCOL.md is part of one."""
    values = examples.values()
    everything = " ".join(value for _, value in values)
    for label, value in values:
        assert value in text, "not in PROTOCOL.md: " + label
    for run in re.findall(r"\b(?:[0-9a-f]{2}){4,}\b", text):
        assert run in everything or run in OTHER_HEX, "stale hex in PROTOCOL.md: " + run


def run(protocol):
    failed = 0
    tests = [(t.__name__, t, ()) for t in TESTS]
    tests.append(("the_text_shows_the_worked_examples", the_text_shows_the_worked_examples, (protocol.read_text(encoding="utf-8"),)))
    for name, test, arguments in tests:
        try:
            test(*arguments)
            print("ok   " + name)
        except Exception as error:
            failed += 1
            print("FAIL %s: %s: %s" % (name, type(error).__name__, error), file=sys.stderr)
    print("%d passed, %d failed" % (len(tests) - failed, failed))
    return 1 if failed else 0
