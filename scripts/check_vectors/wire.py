"""Bytes in and out: fixed-width little-endian integers, CompactSize, hashes (PROTOCOL.md, section 0)."""

import hashlib

U64_MAX = (1 << 64) - 1


class Malformed(Exception):
    """The bytes do not follow the layout. Carries a reason for people."""


def sha256(data):
    return hashlib.sha256(data).digest()


def sha256d(data):
    return sha256(sha256(data))


def tagged(tag, data):
    """BIP340 tagged hash."""
    t = sha256(tag.encode("ascii"))
    return sha256(t + t + data)


def u8(n):
    return n.to_bytes(1, "little")


def u16(n):
    return n.to_bytes(2, "little")


def u32(n):
    return n.to_bytes(4, "little")


def u64(n):
    return n.to_bytes(8, "little")


def varint(n):
    """CompactSize in its only accepted, shortest form."""
    if n < 0xFD:
        return u8(n)
    if n <= 0xFFFF:
        return b"\xfd" + u16(n)
    if n <= 0xFFFFFFFF:
        return b"\xfe" + u32(n)
    return b"\xff" + u64(n)


class Reader:
    """Reads a byte string from left to right; every short read raises Malformed."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def left(self):
        return len(self.data) - self.at

    def take(self, n):
        if n > self.left():
            raise Malformed("wants %d bytes at offset %d, has %d" % (n, self.at, self.left()))
        self.at += n
        return self.data[self.at - n : self.at]

    def uint(self, size):
        return int.from_bytes(self.take(size), "little")

    def u8(self):
        return self.uint(1)

    def u16(self):
        return self.uint(2)

    def u32(self):
        return self.uint(4)

    def u64(self):
        return self.uint(8)

    def varint(self):
        first = self.u8()
        if first < 0xFD:
            return first
        size, least = {0xFD: (2, 0xFD), 0xFE: (4, 0x10000), 0xFF: (8, 0x100000000)}[first]
        n = self.uint(size)
        if n < least:
            raise Malformed("varint is not minimal")
        return n

    def end(self):
        if self.left():
            raise Malformed("%d bytes after the end" % self.left())
