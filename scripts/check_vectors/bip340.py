"""BIP340 Schnorr signatures on secp256k1, for checking only: not constant-time, never for real keys."""

import functools

from .wire import sha256, tagged

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)

# Points are Jacobian (x, y, z) with z = 0 for infinity.
INFINITY = (1, 1, 0)


def _double(a):
    x, y, z = a
    if z == 0:
        return INFINITY
    yy = y * y % P
    s = 4 * x * yy % P
    m = 3 * x * x % P
    x3 = (m * m - 2 * s) % P
    return x3, (m * (s - x3) - 8 * yy * yy) % P, 2 * y * z % P


def _add(a, b):
    if a[2] == 0:
        return b
    if b[2] == 0:
        return a
    z1z1, z2z2 = a[2] * a[2] % P, b[2] * b[2] % P
    u1, u2 = a[0] * z2z2 % P, b[0] * z1z1 % P
    s1, s2 = a[1] * b[2] * z2z2 % P, b[1] * a[2] * z1z1 % P
    h, r = (u2 - u1) % P, (s2 - s1) % P
    if h == 0:
        return _double(a) if r == 0 else INFINITY
    hh = h * h % P
    hhh, v = h * hh % P, u1 * hh % P
    x3 = (r * r - hhh - 2 * v) % P
    return x3, (r * (v - x3) - s1 * hhh) % P, h * a[2] * b[2] % P


def _affine(a):
    """(x, y), or None for infinity."""
    if a[2] == 0:
        return None
    inverse = pow(a[2], -1, P)
    square = inverse * inverse % P
    return a[0] * square % P, a[1] * square * inverse % P


def _combine(k1, p1, k2, p2):
    """k1 * p1 + k2 * p2."""
    table = {(1, 0): p1, (0, 1): p2, (1, 1): _add(p1, p2)}
    out = INFINITY
    for bit in range(255, -1, -1):
        out = _double(out)
        pair = (k1 >> bit & 1, k2 >> bit & 1)
        if pair != (0, 0):
            out = _add(out, table[pair])
    return out


_G = (G[0], G[1], 1)


@functools.lru_cache(maxsize=4096)
def lift_x(key):
    """The point with this x and an even y, or None."""
    x = int.from_bytes(key, "big")
    if x >= P:
        return None
    c = (x * x * x + 7) % P
    y = pow(c, (P + 1) // 4, P)
    if y * y % P != c:
        return None
    return (x, y if y % 2 == 0 else P - y)


def _number(data):
    return int.from_bytes(data, "big")


def verify(key, message, signature):
    point = lift_x(key)
    if point is None or len(signature) != 64:
        return False
    r, s = _number(signature[:32]), _number(signature[32:])
    if r >= P or s >= N:
        return False
    e = _number(tagged("BIP0340/challenge", signature[:32] + key + message)) % N
    got = _affine(_combine(s, _G, N - e, (point[0], point[1], 1)))
    return got is not None and got[1] % 2 == 0 and got[0] == r


def _secret(secret):
    d = _number(secret)
    assert 0 < d < N, "secret key out of range"
    point = _affine(_combine(d, _G, 0, _G))
    return (d if point[1] % 2 == 0 else N - d), point[0].to_bytes(32, "big")


def public_key(secret):
    return _secret(secret)[1]


def sign(secret, message, aux=bytes(32)):
    d, key = _secret(secret)
    mask = tagged("BIP0340/aux", aux)
    t = bytes(a ^ b for a, b in zip(d.to_bytes(32, "big"), mask))
    k = _number(tagged("BIP0340/nonce", t + key + message)) % N
    assert k, "nonce is zero"
    point = _affine(_combine(k, _G, 0, _G))
    if point[1] % 2:
        k = N - k
    r = point[0].to_bytes(32, "big")
    e = _number(tagged("BIP0340/challenge", r + key + message)) % N
    signature = r + ((k + e * d) % N).to_bytes(32, "big")
    assert verify(key, message, signature)
    return signature


def example_secret(name):
    """Secret keys of the worked examples: SHA-256 of a name. Anyone knows them."""
    return sha256(b"sortie example key: " + name.encode())
