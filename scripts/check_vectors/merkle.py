"""The Merkle tree of RFC 6962 with its proofs (generation: RFC 6962 2.1; verification: RFC 9162 2.1.3.2, 2.1.4.2)."""

from .wire import sha256


def leaf_hash(data):
    return sha256(b"\x00" + data)


def node_hash(left, right):
    return sha256(b"\x01" + left + right)


def _split(n):
    """The largest power of two below n."""
    return 1 << ((n - 1).bit_length() - 1)


def _tree(hashes):
    n = len(hashes)
    if n == 1:
        return hashes[0]
    k = _split(n)
    return node_hash(_tree(hashes[:k]), _tree(hashes[k:]))


def mth(leaves):
    """MTH(list); of the empty list SHA-256 of the empty string."""
    return _tree([leaf_hash(x) for x in leaves]) if leaves else sha256(b"")


def inclusion_proof(leaves, index):
    n = len(leaves)
    if n == 1:
        return []
    k = _split(n)
    if index < k:
        return inclusion_proof(leaves[:k], index) + [mth(leaves[k:])]
    return inclusion_proof(leaves[k:], index - k) + [mth(leaves[:k])]


def consistency_proof(leaves, old):
    """That the tree of the first `old` leaves is a prefix of the tree of all; empty for 0 and for all."""
    return [] if old in (0, len(leaves)) else _subproof(leaves, old, True)


def _subproof(leaves, m, whole):
    n = len(leaves)
    if m == n:
        return [] if whole else [mth(leaves)]
    k = _split(n)
    if m <= k:
        return _subproof(leaves[:k], m, whole) + [mth(leaves[k:])]
    return _subproof(leaves[k:], m - k, False) + [mth(leaves[:k])]


def verify_inclusion(leaf, index, size, proof, root):
    if index >= size:
        return False
    fn, sn, r = index, size - 1, leaf_hash(leaf)
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def verify_consistency(old, new, old_root, new_root, proof):
    if old > new or old == 0 and old_root != sha256(b""):
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == old_root and sr == new_root


def range_proof(leaves, begin, end):
    """The roots over what lies outside of entries begin to end - 1, left to right; empty for no entries."""
    return _outside([leaf_hash(x) for x in leaves], 0, begin, end) if begin < end else []


def _outside(hashes, x, begin, end):
    y = x + len(hashes)
    if y <= begin or end <= x:
        return [_tree(hashes)]
    if begin <= x and y <= end:
        return []
    k = _split(len(hashes))
    return _outside(hashes[:k], x, begin, end) + _outside(hashes[k:], x + k, begin, end)


def verify_range(leaves, begin, size, proof, root):
    """Whether these are the entries from `begin` on of a list of this size and root."""
    end, entries, roots = begin + len(leaves), iter(leaves), iter(proof)
    if not leaves:
        return not proof

    def over(x, y):
        if y <= begin or end <= x:
            return next(roots, b"")  # no node hashes to the root over a missing one
        if y == x + 1:
            return leaf_hash(next(entries))
        k = _split(y - x)
        return node_hash(over(x, x + k), over(x + k, y))

    return end <= size and over(0, size) == root and next(roots, None) is None
