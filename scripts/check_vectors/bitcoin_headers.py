"""Chains of Bitcoin headers against anchors (PROTOCOL.md, section 8.2)."""

from collections import namedtuple

from .verdict import NeedsAnchor, Refuted
from .wire import sha256d

REGTEST_BITS = 0x207FFFFF
TIME_WARP = 600

# What headers must show. period: headers of one difficulty; spacing: seconds between two.
Rules = namedtuple("Rules", "limit period spacing testnet4")
MAINNET = Rules(0x1D00FFFF, 2016, 600, False)
TESTNET4 = MAINNET._replace(testnet4=True)
NO_WORK = {"regtest", "signet"}  # rules under which work proves nothing
RULES = {
    "mainnet": MAINNET,
    "testnet4": TESTNET4,
    "easy_mainnet": Rules(0x2007FFFF, 4, 1, False),
    "easy_testnet4": Rules(0x2007FFFF, 4, 1, True),
}
BY_MAGIC = {"f9beb4d9": "mainnet", "1c163f28": "testnet4", "fabfb5da": "regtest"}

Header = namedtuple("Header", "hash parent time bits")
# anchor: its height. bits: how many nBits are exact, bounded, unchecked; with the work None where work proves nothing.
Standing = namedtuple("Standing", "anchor depth work bits")


def rules_of(magic):
    return BY_MAGIC.get(magic.hex(), "signet")


def read_header(raw):
    return Header(sha256d(raw), raw[4:36], int.from_bytes(raw[68:72], "little"), int.from_bytes(raw[72:76], "little"))


def target_of(bits):
    """Bitcoin Core's SetCompact; None for a target that is not positive or does not fit 256 bits."""
    size, word = bits >> 24, bits & 0x7FFFFF
    target = word >> 8 * (3 - size) if size <= 3 else word << 8 * (size - 3)
    negative = word and bits & 0x800000
    return None if negative or not target or target >= 1 << 256 else target


def compact_of(target):
    """Bitcoin Core's GetCompact."""
    size = (target.bit_length() + 7) // 8
    word = target << 8 * (3 - size) if size <= 3 else target >> 8 * (size - 3)
    if word & 0x800000:
        word, size = word >> 8, size + 1
    return size << 24 | word


def linked(headers):
    return all(b.parent == a.hash for a, b in zip(headers, headers[1:]))


def stands(rules, first_height, headers, height, anchors):
    """How the block at a height of these linked headers hangs on an anchor. anchors: see proof.Anchors."""
    last = first_height + len(headers) - 1
    chain = {first_height + i: h.hash for i, h in enumerate(headers)}
    if first_height:
        chain[first_height - 1] = headers[0].parent
    for at in sorted(chain):
        if anchors.height_of.get(chain[at], at) != at:
            raise Refuted("wrong_height")
        if anchors.hash_at.get(at, chain[at]) != chain[at]:
            raise Refuted("other_branch")
    touched = sorted(at for at in chain if at in anchors.hash_at)
    above, below = [at for at in touched if at >= height], [at for at in touched if at < height]
    if not touched:
        raise NeedsAnchor("bitcoin")
    anchor = above[0] if above else below[-1]

    if rules in NO_WORK:
        if rules == "regtest" and any(h.bits != REGTEST_BITS for h in headers):
            raise Refuted("bits")
        if anchor != height:
            raise NeedsAnchor("bitcoin")
        return Standing(anchor, touched[-1] - height + 1, None, None)

    known = dict(anchors.headers)
    known.update((first_height + i, h) for i, h in enumerate(headers))
    if anchor < height and anchor not in known:
        raise NeedsAnchor("bitcoin_header")
    bits = _difficulty(RULES[rules], first_height, headers, known)
    work = sum((1 << 256) // (target_of(h.bits) + 1) for h in headers[height - first_height :])
    return Standing(anchor, last - height + 1, work, bits)


def _difficulty(rules, first_height, headers, known):
    """Checks every header; known: the headers of this chain that there are, by height. Gives Standing.bits."""
    counts = {"exact": 0, "bounded": 0, "unchecked": 0}
    seen = {}  # known headers up to the one that is looked at: what comes later proves nothing for it
    for height, header in sorted(known.items()):
        if height >= first_height and height < first_height + len(headers):
            counts[_check_header(rules, height, header, seen)] += 1
        seen[height] = header
    return [counts["exact"], counts["bounded"], counts["unchecked"]]


def _check_header(rules, height, header, seen):
    target, limit = target_of(header.bits), target_of(rules.limit)
    if target is None or target > limit:
        raise Refuted("bits")
    if int.from_bytes(header.hash, "little") > target:
        raise Refuted("work")
    parent, first_of_period = seen.get(height - 1), height % rules.period == 0
    if parent is None:
        return "unchecked"
    if first_of_period:
        if rules.testnet4 and header.time < parent.time - TIME_WARP:
            raise Refuted("time_warp")
        return _check_retarget(rules, height, header, parent, seen)
    if not rules.testnet4:
        demanded = parent.bits
    elif header.time > parent.time + 2 * rules.spacing:
        demanded = rules.limit
    else:
        demanded = _period_bits(rules, height - height % rules.period, seen)
    if demanded is None:
        return "unchecked"
    if header.bits != demanded:
        raise Refuted("bits")
    return "exact"


def _period_bits(rules, start, seen):
    """On testnet4, the nBits of the period that begins at this height, as far as they were seen."""
    if start in seen:
        return seen[start].bits
    others = (seen[at].bits for at in range(start, start + rules.period) if at in seen)
    return next((bits for bits in others if bits != rules.limit), None)


def _check_retarget(rules, height, header, parent, seen):
    first = seen.get(height - rules.period)
    bits = _period_bits(rules, height - rules.period, seen) if rules.testnet4 else parent.bits
    if bits is None:
        return "unchecked"
    limit, timespan = target_of(rules.limit), rules.period * rules.spacing

    def after(seconds):
        seconds = min(max(seconds, timespan // 4), timespan * 4)
        return compact_of(min(target_of(bits) * seconds // timespan, limit))

    if first is not None:
        if header.bits != after(parent.time - first.time):
            raise Refuted("bits")
        return "exact"
    if not target_of(after(0)) <= target_of(header.bits) <= target_of(after(timespan * 4)):
        raise Refuted("bits")
    return "bounded"
