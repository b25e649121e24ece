"""The worked examples of docs/PROTOCOL.md: one small rollup from its manifest to a block after silence.

`--write-examples` puts them into the appendix of docs/PROTOCOL.md; `--self-test` asserts that all stand there.
"""

from . import bip340, bitcoin, derive, ledger, manifest, merkle
from . import envelope as env

NAMES = ("sequencer 1", "sequencer 2", "sequencer 3")
START_HASH = bytes(range(32))
START_TIME = 1_700_000_000
SPACING = 600


def key(name):
    return bip340.public_key(bip340.example_secret(name))


class Example:
    """Runs the example and collects (label, value) pairs in reading order."""

    def __init__(self):
        self.sections = []
        self.section("A.1 Keys and manifest")
        self.rollup()
        self.section("A.2 Payloads and carriers")
        self.carriers()
        self.chain = derive.Chain(self.manifest, self.rollup_id, START_TIME, self.ancestors, ledger.start(self.manifest, self.rollup_id))
        self.genesis()
        self.block_101()
        self.block_102()
        self.block_103()
        self.silence()
        self.handover()

    def section(self, title):
        self.sections.append((title, []))

    def note(self, label, value):
        self.sections[-1][1].append((label, value.hex() if isinstance(value, bytes) else str(value)))

    # section 2 and 10: manifest

    def rollup(self):
        self.ancestors = [START_TIME - SPACING * i for i in range(10, 0, -1)]
        self.secrets = {key(n): bip340.example_secret(n) for n in NAMES}
        keys = tuple(sorted(self.secrets))
        parameters = ledger.encode_parameters(1, key("fees"), {key("alice"): 1_000_000, key("bob"): 500})
        self.manifest = manifest.Manifest(
            "example", bytes.fromhex("fabfb5da"), 100, START_HASH, 4, 2, 2,
            manifest.SequencerSet(keys, 2), manifest.LEDGER, parameters, None,
        )  # fmt: skip
        binary = manifest.encode(self.manifest)
        assert manifest.decode(binary) == self.manifest
        self.rollup_id = manifest.rollup_id(binary)
        self.ns = self.rollup_id[:4]
        for name in ("alice", "bob", "fees"):
            self.note("x-only key of " + name, key(name))
        for i, k in enumerate(keys):
            self.note("sequencer key %d" % i, k)
        self.note("ledger parameters", parameters)
        self.note("manifest", binary)
        self.note("rollup id", self.rollup_id)
        self.note("namespace", self.ns)

    def signers(self, *indexes):
        return {i: self.secrets[self.chain.sequencers.keys[i]] for i in indexes}

    # section 3: carriers

    def carriers(self):
        payload = env.make_payload(self.ns, env.TX, b"hello")
        self.note("payload hello", payload)
        self.note("op-return hello", env.encode_op_return(payload))
        self.note("taproot leaf hello", env.encode_taproot_leaf(payload, key("alice")))
        body = env.txs_body([b"\xaa" * 64, b"\xbb" * 65])
        self.note("txs payload", env.make_payload(self.ns, env.TXS, body))

    # sections 4 to 6

    def apply(self, *transactions):
        height = self.chain.height() + 1
        raw = bitcoin.build_block(height, self.chain.views[-1].hash, START_TIME + SPACING * (height - 100), transactions)
        block = bitcoin.parse_block(raw)
        self.chain.apply(block)
        self.note("bitcoin block %d" % height, raw)
        self.note("hash of bitcoin block %d" % height, block.hash)

    def note_heads(self, what):
        for i, h in enumerate(self.chain.appended):
            self.note("%s: L2 block hash %d" % (what, i), h)
        self.note("%s: outcomes" % what, " ".join(self.chain.outcomes) or "none")
        self.note("%s: state root" % what, self.chain.executor.state_root())

    def genesis(self):
        self.section("A.3 Genesis")
        self.note("MTH of nothing", merkle.mth([]))
        self.note("genesis: timestamp", self.chain.head.timestamp)
        self.note("genesis: L2 block hash", derive.block_hash(self.chain.head))
        self.note("genesis: state root", self.chain.executor.state_root())

    def transfer(self, amount, fee, nonce):
        return ledger.sign_transfer(self.rollup_id, bip340.example_secret("alice"), key("bob"), amount, fee, nonce)

    def block_101(self):
        self.section("A.4 Bitcoin block 101: a forced transfer in an OP_RETURN")
        tx = self.transfer(1000, 10, 0)
        self.note("101: forced transfer", tx)
        self.apply(bitcoin.build_transaction([env.encode_op_return(env.make_payload(self.ns, env.TX, tx))], previous=b"\x01" * 32))
        self.note("101: queue leaf", self.chain.leaves[0])
        self.note("101: queue root", self.chain.views[-1].queue_root)
        assert not self.chain.appended

    def reveal(self, payload, previous):
        leaf = env.encode_taproot_leaf(payload, key("alice"))
        return bitcoin.build_transaction([b"\x51"], [bytes(64), leaf, b"\xc0" + key("alice")], previous)

    def block_102(self):
        self.section("A.5 Bitcoin block 102: a batch in a taproot leaf")
        chain = self.chain
        own = self.transfer(2000, 20, 1)
        self.note("102: own transfer", own)
        # chain time at origin 101 is MTP(101); genesis' timestamp is MTP(100)
        blocks = [derive.BatchBlock(0, 60, []), derive.BatchBlock(1, 540, [own])]
        body = derive.encode_batch(self.rollup_id, 0, self.signers(0, 2), chain.head, 101, chain.view(101).hash, blocks)
        batch = derive.read_batch(body)
        self.note("102: batch data", batch.data)
        self.note("102: batch message", derive.batch_message(self.rollup_id, 0, batch.signed))
        self.note("102: batch body", body)
        self.apply(self.reveal(env.make_payload(self.ns, env.BATCH, body), b"\x02" * 32))
        assert chain.verdicts == ["accept"], chain.verdicts
        self.note_heads("102")

    def block_103(self):
        self.section("A.6 Bitcoin block 103: three items in one list")
        items = [self.transfer(3000, 30, 2), b"\xee" * 64, self.transfer(1, 1, 3)]
        self.note("103: list of items", env.txs_body(items))
        self.apply(self.reveal(env.make_payload(self.ns, env.TXS, env.txs_body(items)), b"\x03" * 32))
        self.note("103: queue root", self.chain.views[-1].queue_root)
        for leaf in self.chain.leaves[1:]:
            self.note("103: queue leaf", leaf)

    def silence(self):
        self.section("A.7 Bitcoin blocks 104 to 106: silence, then forced-only blocks")
        for _ in range(2):
            self.apply()
            assert not self.chain.appended
        self.apply()
        assert self.chain.head.forced_end == 4 and self.chain.head.origin_height == 104
        self.note_heads("106")
        self.note("106: timestamp", self.chain.head.timestamp)

    def handover(self):
        self.section("A.8 Bitcoin block 107: a handover")
        new = manifest.SequencerSet(self.manifest.sequencers.keys[1:2], 1)
        body = derive.encode_handover(self.rollup_id, self.signers(0, 1), 0, new)
        self.note("107: handover message", derive.handover_message(self.rollup_id, derive.read_handover(body).signed))
        self.note("107: handover body", body)
        self.apply(self.reveal(env.make_payload(self.ns, env.HANDOVER, body), b"\x04" * 32))
        assert self.chain.verdicts == ["accept"], self.chain.verdicts


BEGIN, END = "<!-- examples: begin -->\n", "<!-- examples: end -->\n"


def values():
    return [pair for _, pairs in Example().sections for pair in pairs]


def appendix():
    """The text between the two marks of PROTOCOL.md."""
    out = []
    for title, pairs in Example().sections:
        rows = "\n".join("%s\n    %s" % pair for pair in pairs)
        out.append("### %s\n\n```text\n%s\n```\n" % (title, rows))
    return "\n" + "\n".join(out) + "\n"


def write(path):
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    path.write_text(before + BEGIN + appendix() + END + after, encoding="utf-8")
