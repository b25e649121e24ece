"""Writes and checks tests/vectors/envelope.json: sound cases, lists, and a table of hostile scripts."""

import hashlib

from . import envelope as env
from . import vector_files
from .wire import varint

NS = bytes.fromhex("a1b2c3d4")
OTHER_NS = bytes.fromhex("0badf00d")
KEY = bytes.fromhex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
SIZES = (10, 11, 75, 76, 80, 254, 255, 256, 257, 508, 509, 510, 511, 512, 765, 766, 1000, 1021, 65535, 65536, 100000, 395000, 399999, 400000)
SHOWN_SCRIPT = 4096  # scripts up to this many bytes stand in the file in full


def sized_payload(size, namespace=NS):
    """Needle, kind 01, then body byte i = (7 i + 3) mod 256."""
    return env.make_payload(namespace, env.TX, bytes((i * 7 + 3) & 0xFF for i in range(size - 9)))


# --- writing ----------------------------------------------------------------------------------


def build():
    return {
        "about": "Written by scripts/check_vectors.py --write-envelope. Hex strings. "
        "hostile: decode the output script, the leaf script (under a sound control block) or the witness; "
        "'namespace', where given, is the only one that counts; 'payload' instead of 'script' means: lay this payload out "
        "(for taproot with 'key') as an encoder without a size limit would.",
        "cases": list(_cases()),
        "txs": list(_lists()),
        "hostile": _Hostile().build(),
    }


def _script_entry(script):
    entry = {"length": len(script), "sha256": hashlib.sha256(script).hexdigest()}
    if len(script) <= SHOWN_SCRIPT:
        entry = {"script": script.hex(), **entry}
    return entry


def _case(name, payload, key, shown):
    return {
        "name": name,
        "namespace": payload[4:8].hex(),
        "kind": payload[8],
        "payload": shown,
        "payload_sha256": hashlib.sha256(payload).hexdigest(),
        "key": key.hex(),
        "op_return": _script_entry(env.encode_op_return(payload)),
        "taproot_leaf": _script_entry(env.encode_taproot_leaf(payload, key)),
    }


def _cases():
    for size in SIZES:
        yield _case("size_%d" % size, sized_payload(size), KEY, {"size": size})
    plain = [
        ("key_of_zeros", NS, env.TX, b"\x00", bytes(32)),
        ("key_of_opcodes", NS, env.TX, b"hello", bytes([0xAC, 0x75, 0x6D, 0x20] * 8)),
        ("key_contains_the_needle", NS, env.TX, b"hello", bytes(12) + env.NEEDLE_HEAD + NS + bytes(12)),
        ("body_contains_the_needle", NS, env.TX, env.NEEDLE_HEAD + NS + b"\x01again", KEY),
        ("body_contains_another_needle", NS, env.TX, env.NEEDLE_HEAD + OTHER_NS + b"\x01again", KEY),
        ("body_of_push_opcodes", NS, env.TX, bytes(range(0x4C, 0x4F)) * 10, KEY),
        ("body_needle_torn_between_chunks", NS, env.TX, bytes(255 - 9 - 3) + env.NEEDLE_HEAD + NS + bytes(20), KEY),
        ("kind_batch", NS, env.BATCH, bytes(200), KEY),
        ("kind_handover", NS, env.HANDOVER, bytes(150), KEY),
        ("kind_batch_of_one_byte", NS, env.BATCH, b"\x00", KEY),
        ("kind_unsupported_00", NS, 0x00, b"\x00", KEY),
        ("kind_unsupported_03", NS, 0x03, b"anything", KEY),
        ("kind_unsupported_ff", NS, 0xFF, b"anything", KEY),
        ("namespace_of_zeros", bytes(4), env.TX, b"hello", KEY),
        ("namespace_like_the_magic", env.NEEDLE_HEAD, env.TX, b"hello", KEY),
    ]
    for name, namespace, kind, body, key in plain:
        payload = env.make_payload(namespace, kind, body)
        yield _case(name, payload, key, payload.hex())


def _lists():
    items = {
        "one_of_64": [bytes(64)],
        "two": [bytes(range(64)), bytes(range(100, 200))],
        "same_bytes_twice": [b"\x07" * 70, b"\x07" * 70],
        "lengths_around_the_varint": [b"\x01" * 252, b"\x02" * 253, b"\x03" * 254],
        "ledger_sized_times_five": [bytes([i]) * 153 for i in range(5)],
        "item_holds_the_needle": [bytes(30) + env.NEEDLE_HEAD + NS + bytes(30), b"\x09" * 64],
    }
    for name, listed in items.items():
        payload = env.make_payload(NS, env.TXS, env.txs_body(listed))
        yield {"name": name, "namespace": NS.hex(), "items": [i.hex() for i in listed], "payload": payload.hex()}


class _Hostile:
    """Every case names the result it promises; build() asserts that the decoder agrees."""

    def __init__(self):
        self.cases = []
        self.hello = env.make_payload(NS, env.TX, b"hello")  # 14 bytes
        self.suffix = b"\x20" + KEY + b"\xac"
        self.leaf = env.encode_taproot_leaf(self.hello, KEY)
        self.control = b"\xc0" + KEY

    def op_return(self, name, result, script, **more):
        self.cases.append({"name": name, "carrier": "op-return", "script": script.hex(), **more, "result": result})

    def taproot(self, name, result, script, **more):
        self.cases.append({"name": name, "carrier": "taproot", "script": script.hex(), **more, "result": result})

    def witness(self, name, result, *elements):
        self.cases.append({"name": name, "carrier": "taproot", "witness": [e.hex() for e in elements], "result": result})

    def sized(self, name, result, carrier, size):
        case = {"name": name, "carrier": carrier, "payload": {"size": size}, "result": result}
        if carrier == "taproot":
            case["key"] = KEY.hex()
        self.cases.append(case)

    def build(self):
        self.op_return_pushes()
        self.op_return_not_candidates()
        self.taproot_structure()
        self.taproot_chunks()
        self.taproot_suffix()
        self.witnesses()
        self.payloads()
        names = [c["name"] for c in self.cases]
        assert len(set(names)) == len(names), "two hostile cases of one name"
        for case in self.cases:
            assert hostile_result(case) == case["result"], (case["name"], hostile_result(case))
        return self.cases

    # pushes

    def op_return_pushes(self):
        p, n = self.hello, len(self.hello)
        le2, le4 = n.to_bytes(2, "little"), n.to_bytes(4, "little")
        p80, p300 = sized_payload(80), sized_payload(300)
        add = self.op_return
        add("op_return_sound", "valid", b"\x6a" + bytes([n]) + p)
        add("op_return_pushdata1_for_14", "non_minimal_push", b"\x6a\x4c" + bytes([n]) + p)
        add("op_return_pushdata2_for_14", "non_minimal_push", b"\x6a\x4d" + le2 + p)
        add("op_return_pushdata4_for_14", "non_minimal_push", b"\x6a\x4e" + le4 + p)
        add("op_return_pushdata1_for_75", "non_minimal_push", b"\x6a\x4c\x4b" + sized_payload(75))
        add("op_return_pushdata2_for_80", "non_minimal_push", b"\x6a\x4d\x50\x00" + p80)
        add("op_return_pushdata2_for_255", "non_minimal_push", b"\x6a\x4d\xff\x00" + sized_payload(255))
        add("op_return_pushdata4_for_300", "non_minimal_push", b"\x6a\x4e\x2c\x01\x00\x00" + p300)
        add("op_return_two_pushes", "not_one_push", b"\x6a" + env.push(p) + env.push(b"more"))
        add("op_return_payload_in_second_push", "not_one_push", b"\x6a" + env.push(b"more") + env.push(p))
        add("op_return_runestone_like_prefix", "not_one_push", b"\x6a\x5d" + env.push(p))
        add("op_return_payload_split_over_two_pushes", "not_one_push", b"\x6a" + env.push(p80[:40]) + env.push(p80[40:]))
        add("op_return_trailing_byte", "not_one_push", b"\x6a" + env.push(p) + b"\x00")
        add("op_return_trailing_op_drop", "not_one_push", b"\x6a" + env.push(p) + b"\x75")
        add("op_return_op_0_before_the_push", "not_one_push", b"\x6a\x00" + env.push(p))
        add("op_return_no_push_opcode", "not_one_push", b"\x6a" + p)  # 58 is OP_8: not a push here
        add("op_return_truncated_direct", "truncated_push", b"\x6a" + bytes([n + 1]) + p)
        add("op_return_truncated_pushdata1", "truncated_push", b"\x6a\x4c\x51" + p80)
        add("op_return_truncated_pushdata2", "truncated_push", b"\x6a\x4d\x2d\x01" + p300)
        add("op_return_truncated_pushdata4_of_4_gib", "truncated_push", b"\x6a\x4e\xff\xff\xff\xff" + p)
        add("op_return_truncated_and_non_minimal", "truncated_push", b"\x6a\x4d" + (n + 1).to_bytes(2, "little") + p)
        add("op_return_after_op_true", "not_op_return", b"\x51\x6a" + env.push(p))
        add("op_return_missing", "not_op_return", env.push(p))
        add("op_return_twice", "not_one_push", b"\x6a\x6a" + env.push(p))
        add("needle_in_a_p2wsh_program", "not_op_return", b"\x00\x20" + env.NEEDLE_HEAD + NS + bytes(24))
        add("needle_in_a_p2tr_program", "not_op_return", b"\x51\x20" + bytes(24) + env.NEEDLE_HEAD + NS)
        add("needle_ends_a_p2tr_program_early", "absent", b"\x51\x20" + bytes(25) + env.NEEDLE_HEAD + NS[:3])
        add("taproot_leaf_as_output_script", "not_op_return", self.leaf)

    def op_return_not_candidates(self):
        add = self.op_return
        add("output_empty", "absent", b"")
        add("output_only_op_return", "absent", b"\x6a")
        add("output_p2wpkh", "absent", b"\x00\x14" + bytes(20))
        add("needle_of_version_0", "absent", b"\x6a" + env.push(b"\x58\x25\x97\x00" + NS + b"\x01hello"))
        add("needle_of_version_2", "absent", b"\x6a" + env.push(b"\x58\x25\x97\x02" + NS + b"\x01hello"))
        add("magic_reversed", "absent", b"\x6a" + env.push(b"\x97\x25\x58\x01" + NS + b"\x01hello"))
        add("magic_alone", "absent", b"\x6a" + env.push(env.NEEDLE_HEAD))
        add("needle_one_byte_short", "absent", b"\x6a" + env.push(env.NEEDLE_HEAD + NS[:3]))
        add("magic_split_by_a_push_opcode", "absent", b"\x6a" + env.push(env.NEEDLE_HEAD[:2]) + env.push(env.NEEDLE_HEAD[2:] + NS + b"\x01hello"))
        other = env.encode_op_return(env.make_payload(OTHER_NS, env.TX, b"hello"))
        add("other_namespace_no_filter", "valid", other)
        add("other_namespace_filtered", "absent", other, namespace=NS.hex())
        add("own_namespace_filtered", "valid", env.encode_op_return(self.hello), namespace=NS.hex())
        broken_other = b"\x6a\x4c" + bytes([14]) + env.make_payload(OTHER_NS, env.TX, b"hello")
        add("other_namespace_broken_is_absent_under_the_filter", "absent", broken_other, namespace=NS.hex())
        add("first_needle_decides_other_then_own", "absent", b"\x6a" + env.push(env.NEEDLE_HEAD + OTHER_NS + b"\x01") + env.push(self.hello), namespace=NS.hex())
        add("first_needle_decides_own_then_other", "not_one_push", b"\x6a" + env.push(self.hello) + env.push(env.NEEDLE_HEAD + OTHER_NS + b"\x01"), namespace=NS.hex())
        # 582597 01582597 01...: the first occurrence has the "namespace" 58259701
        add("overlapping_needles_read_from_the_first", "valid", b"\x6a" + env.push(env.NEEDLE_HEAD * 2 + NS + b"\x01hello"), namespace=env.NEEDLE_HEAD.hex())
        add("overlapping_needles_second_does_not_count", "absent", b"\x6a" + env.push(env.NEEDLE_HEAD * 2 + NS + b"\x01hello"), namespace=NS.hex())

    # leaf scripts

    def taproot_structure(self):
        p, add, suffix = env.push(self.hello), self.taproot, self.suffix
        big = sized_payload(400)
        a, b = env.push(big[:255]), env.push(big[255:])
        add("leaf_sound", "valid", self.leaf)
        add("leaf_empty", "absent", b"")
        add("leaf_two_chunks_sound", "valid", a + b + b"\x6d" + suffix)
        add("leaf_ord_envelope", "bad_key_suffix", b"\x20" + KEY + b"\xac\x00\x63\x03ord" + p + b"\x68")
        add("leaf_ord_envelope_key_last", "missing_drop", b"\x00\x63" + p + b"\x68" + suffix)
        add("leaf_op_if_around_sound_drops", "missing_drop", b"\x51\x63" + p + b"\x75\x68" + suffix)
        add("leaf_no_drop", "missing_drop", p + suffix)
        add("leaf_2drop_for_a_single_chunk", "missing_drop", p + b"\x6d" + suffix)
        add("leaf_two_single_drops_for_a_pair", "missing_drop", a + b"\x75" + b + b"\x75" + suffix)
        add("leaf_two_drops_after_the_pair", "missing_drop", a + b + b"\x75\x75" + suffix)
        add("leaf_drop_for_a_pair", "missing_drop", a + b + b"\x75" + suffix)
        add("leaf_2drop_before_the_second_push", "missing_drop", a + b"\x6d" + b + suffix)
        add("leaf_drop_before_the_push", "missing_drop", b"\x75" + p + suffix)
        add("leaf_two_drops", "missing_drop", p + b"\x75\x75" + suffix)
        add("leaf_nop_before", "missing_drop", b"\x61" + p + b"\x75" + suffix)
        add("leaf_nop_between", "missing_drop", p + b"\x61\x75" + suffix)
        add("leaf_op_0_push_before", "missing_drop", b"\x00\x75" + p + b"\x75" + suffix)
        add("leaf_three_pushes_3_drops", "missing_drop", a + b + p + b"\x6d\x75" + suffix)
        six = sized_payload(600)
        c = [env.push(six[i : i + 255]) for i in (0, 255, 510)]
        add("leaf_three_chunks_sound", "valid", c[0] + c[1] + b"\x6d" + c[2] + b"\x75" + suffix)
        add("leaf_three_chunks_single_first", "missing_drop", c[0] + b"\x75" + c[1] + c[2] + b"\x6d" + suffix)
        add("leaf_pushdata1_for_14", "non_minimal_push", b"\x4c" + p + b"\x75" + suffix)
        add("leaf_pushdata2_for_14", "non_minimal_push", b"\x4d\x0e\x00" + self.hello + b"\x75" + suffix)
        add("leaf_pushdata2_for_255", "non_minimal_push", b"\x4d\xff\x00" + big[:255] + b + b"\x6d" + suffix)
        add("leaf_pushdata4_for_255", "non_minimal_push", b"\x4e\xff\x00\x00\x00" + big[:255] + b + b"\x6d" + suffix)
        add("leaf_pushdata1_of_nothing", "non_minimal_push", p + b"\x4c\x00\x6d" + suffix)
        add("leaf_pushdata1_for_the_key", "non_minimal_push", p + b"\x75\x4c\x20" + KEY + b"\xac")
        add("leaf_truncated_in_the_key", "truncated_push", self.leaf[:-2])
        add("leaf_truncated_in_the_chunk", "truncated_push", self.leaf[:-1 - 33 - 2])
        add("leaf_truncated_in_the_length", "truncated_push", p + b"\x75\x4d\xff")
        add("leaf_push_swallows_the_rest", "truncated_push", b"\x4e\xff\xff\xff\xff" + self.hello + b"\x75" + suffix)
        add("leaf_op_return_script", "bad_key_suffix", env.encode_op_return(self.hello))

    def taproot_chunks(self):
        suffix = self.suffix

        def add(name, lengths, result="bad_chunking"):
            payload, at, pushes = sized_payload(sum(lengths)), 0, []
            for n in lengths:
                pushes.append(env.push(payload[at : at + n]))
                at += n
            self.taproot(name, result, env.drop_groups(pushes) + suffix)

        add("chunks_254_then_255", [254, 255])
        add("chunks_254_in_the_middle", [255, 254, 255])
        add("chunks_254_in_the_middle_of_a_rest", [255, 254, 100])
        add("chunks_255_and_1", [255, 1])
        add("chunks_254_and_2_sound", [254, 2], "valid")
        add("chunks_253_and_3", [253, 3])
        add("chunks_255_254_and_2_sound", [255, 254, 2], "valid")
        add("chunks_254_255_and_2", [254, 255, 2])
        add("chunks_254_and_3", [254, 3])
        add("chunks_256_in_one", [256])
        add("chunks_520_in_one", [520])
        add("chunks_255_in_two", [128, 127])
        add("chunks_14_in_14_tear_the_needle", [1] * 14, "absent")
        add("chunks_8_then_6", [8, 6])
        add("chunks_too_many_short", [100, 100, 55])

    def taproot_suffix(self):
        p, add = env.push(self.hello) + b"\x75", self.taproot
        add("key_missing", "bad_key_suffix", p)
        add("key_missing_op_true", "bad_key_suffix", p + b"\x51")
        add("key_missing_only_checksig", "bad_key_suffix", p + b"\xac")
        add("key_without_checksig", "bad_key_suffix", p + b"\x20" + KEY)
        add("key_with_checksigverify", "bad_key_suffix", p + b"\x20" + KEY + b"\xad")
        add("key_with_checksigadd", "bad_key_suffix", p + b"\x20" + KEY + b"\xba")
        add("key_of_33_bytes", "bad_key_suffix", p + b"\x21\x02" + KEY + b"\xac")
        add("key_of_31_bytes", "bad_key_suffix", p + b"\x1f" + KEY[1:] + b"\xac")
        add("key_first", "bad_key_suffix", self.suffix + p)
        add("key_with_checksigverify_first", "bad_key_suffix", b"\x20" + KEY + b"\xad" + p + b"\x51")
        add("key_twice", "missing_drop", p + self.suffix + self.suffix)
        add("extra_opcode_after", "bad_key_suffix", self.leaf + b"\x51")
        add("extra_op_success_after", "bad_key_suffix", self.leaf + b"\x50")
        add("needle_only_in_the_key", "not_at_start", b"\x20" + env.NEEDLE_HEAD + NS + bytes(24) + b"\xac")
        add("needle_only_in_the_key_after_data", "not_at_start", env.push(b"hello") + b"\x75\x20" + env.NEEDLE_HEAD + NS + bytes(24) + b"\xac")

    # witnesses

    def witnesses(self):
        add, leaf, control, sig = self.witness, self.leaf, self.control, bytes(64)
        annex = b"\x50" + b"note"
        add("witness_script_path", "valid", sig, leaf, control)
        add("witness_no_stack_argument", "valid", leaf, control)
        add("witness_control_c1", "valid", sig, leaf, b"\xc1" + KEY)
        add("witness_annex", "valid", sig, leaf, control, annex)
        add("witness_annex_of_one_byte", "valid", leaf, control, b"\x50")
        # only the last is an annex; the one before it reads as a control block
        add("witness_two_annexes", "leaf_version", sig, leaf, b"\x50" + bytes(32), b"\x50")
        add("witness_two_short_annexes", "control_block_size", sig, leaf, b"\x50", b"\x50")
        add("witness_empty", "absent")
        add("witness_of_one_element", "absent", leaf)
        add("witness_annex_only", "absent", b"\x50" + self.hello)
        add("witness_key_path_with_annex", "absent", sig, b"\x50" + self.hello)
        add("witness_leaf_then_annex", "absent", leaf, b"\x50")
        add("witness_annex_holds_the_leaf", "absent", sig, b"\x51", control, b"\x50" + leaf)
        add("witness_leaf_on_the_stack_below", "absent", leaf, b"\x51", control)
        add("witness_leaf_last", "absent", control, leaf)
        add("witness_payload_in_the_control_block", "absent", b"\x51", b"\xc0" + KEY + self.hello + bytes(18))
        add("witness_empty_control_block", "control_block_size", leaf, b"")
        add("witness_control_32", "control_block_size", sig, leaf, control[:32])
        add("witness_control_34", "control_block_size", sig, leaf, control + b"\x00")
        add("witness_control_64", "control_block_size", sig, leaf, control + bytes(31))
        add("witness_control_65", "valid", sig, leaf, control + bytes(32))
        add("witness_control_of_128_hashes", "valid", sig, leaf, control + bytes(32 * 128))
        add("witness_control_of_129_hashes", "control_block_size", sig, leaf, control + bytes(32 * 129))
        add("witness_leaf_version_c2", "leaf_version", sig, leaf, b"\xc2" + KEY)
        add("witness_leaf_version_be", "leaf_version", sig, leaf, b"\xbe" + KEY)
        add("witness_leaf_version_00", "leaf_version", sig, leaf, b"\x00" + KEY)
        add("witness_size_before_version", "control_block_size", sig, leaf, b"\xc2" + KEY + b"\x00")
        add("witness_control_before_script", "control_block_size", sig, leaf + b"\x51", control + b"\x00")
        add("witness_p2wsh_with_the_leaf_below_the_script", "control_block_size", leaf, b"\x51")

    # payloads

    def payloads(self):
        def both(name, result, payload):
            self.op_return("op_return_" + name, result, env.encode_op_return(payload))
            self.taproot("leaf_" + name, result, env.encode_taproot_leaf(payload, KEY))

        def listed(body):
            return env.make_payload(NS, env.TXS, body)

        head = env.NEEDLE_HEAD + NS
        both("byte_before_the_needle", "not_at_start", b"\x00" + self.hello)
        both("needle_at_the_end", "not_at_start", b"hello, world" + head)
        both("payload_of_8", "too_short", head)
        both("payload_of_9", "too_short", head + b"\x01")
        both("payload_of_9_txs_empty", "too_short", head + b"\x02")
        both("payload_of_9_unsupported_kind", "too_short", head + b"\x77")
        both("payload_of_10", "valid", head + b"\x01\x00")
        self.taproot("leaf_payload_is_only_the_magic", "too_short", env.encode_taproot_leaf(env.NEEDLE_HEAD, KEY))
        self.op_return("op_return_payload_of_8_in_pushdata1", "non_minimal_push", b"\x6a\x4c\x08" + head)
        ok = varint(64) + bytes(64)
        both("txs_sound", "valid", listed(ok))
        both("txs_item_of_63", "txs_malformed", listed(varint(63) + bytes(63)))
        both("txs_second_item_of_63", "txs_malformed", listed(ok + varint(63) + bytes(63)))
        both("txs_item_of_0", "txs_malformed", listed(b"\x00"))
        both("txs_truncated_item", "txs_malformed", listed(varint(65) + bytes(64)))
        both("txs_truncated_varint", "txs_malformed", listed(ok + b"\xfd\x40"))
        both("txs_varint_fd_for_64", "txs_malformed", listed(b"\xfd\x40\x00" + bytes(64)))
        both("txs_varint_fe_for_253", "txs_malformed", listed(b"\xfe\xfd\x00\x00\x00" + bytes(253)))
        both("txs_varint_ff_for_64", "txs_malformed", listed(b"\xff" + (64).to_bytes(8, "little") + bytes(64)))
        both("txs_length_of_u64_max", "txs_malformed", listed(b"\xff" * 9 + bytes(64)))
        both("txs_trailing_byte", "txs_malformed", listed(ok + b"\x00"))
        both("txs_trailing_garbage", "txs_malformed", listed(ok + b"\x40garbage"))
        both("unsupported_kind_is_not_looked_into", "valid", env.make_payload(NS, 0x42, b"\x00"))
        for carrier in ("op-return", "taproot"):
            name = carrier.replace("-", "_")
            self.sized(name + "_payload_of_400000", "valid", carrier, 400_000)
            self.sized(name + "_payload_of_400001", "too_long", carrier, 400_001)
            self.sized(name + "_payload_of_401000", "too_long", carrier, 401_000)


# --- checking ---------------------------------------------------------------------------------


def hostile_script(case):
    if "payload" in case:
        payload = sized_payload(case["payload"]["size"])
        if case["carrier"] == "op-return":
            return env.encode_op_return(payload)
        return env.encode_taproot_leaf(payload, bytes.fromhex(case["key"]))
    return bytes.fromhex(case["script"])


def hostile_result(case):
    namespace = bytes.fromhex(case["namespace"]) if "namespace" in case else None
    if "witness" in case:
        return env.decode_witness([bytes.fromhex(e) for e in case["witness"]], namespace)[0]
    decode = env.decode_output_script if case["carrier"] == "op-return" else env.decode_leaf
    return decode(hostile_script(case), namespace)[0]


def _check_script(entry, script):
    assert len(script) == entry["length"], "length"
    assert hashlib.sha256(script).hexdigest() == entry["sha256"], "sha256"
    assert entry.get("script", script.hex()) == script.hex(), "script"


def _check_case(case):
    namespace, key = bytes.fromhex(case["namespace"]), bytes.fromhex(case["key"])
    shown = case["payload"]
    payload = sized_payload(shown["size"], namespace) if isinstance(shown, dict) else bytes.fromhex(shown)
    assert hashlib.sha256(payload).hexdigest() == case["payload_sha256"], "payload"
    op_return, leaf = env.encode_op_return(payload), env.encode_taproot_leaf(payload, key)
    _check_script(case["op_return"], op_return)
    _check_script(case["taproot_leaf"], leaf)
    for result, decoded in (
        env.decode_output_script(op_return),
        env.decode_leaf(leaf),
        env.decode_witness([leaf, b"\xc0" + bytes(32)], namespace),
    ):
        assert result == env.VALID, result
        assert decoded == (namespace, case["kind"], payload[9:], payload), "decoded payload"


def _check_list(case):
    items = [bytes.fromhex(i) for i in case["items"]]
    payload = env.make_payload(bytes.fromhex(case["namespace"]), env.TXS, env.txs_body(items))
    assert case["payload"] == payload.hex(), "payload"
    result, decoded = env.decode_output_script(env.encode_op_return(payload))
    assert result == env.VALID and env.transactions(decoded) == items, "items"


def _check_hostile(case):
    got = hostile_result(case)
    assert got == case["result"], "is %s, expected %s" % (got, case["result"])


def checks(vectors):
    """(name, function, case) for every case of the file."""
    for section, check in (("cases", _check_case), ("txs", _check_list), ("hostile", _check_hostile)):
        for case in vectors[section]:
            yield section + "/" + case["name"], check, case


def write(path):
    vector_files.write_sections(path, build())
