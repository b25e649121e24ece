//! Reading and writing the specification's integers and byte strings.
//!
//! Guarantees that what [`Reader`] accepts has one encoding only (CompactSize in minimal form), that it
//! never reads past the end, and that it allocates nothing that the input does not already hold.

use alloc::vec::Vec;

/// The input ended early, or a CompactSize was not in minimal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A cursor over borrowed bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether every byte was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// A CompactSize in minimal form.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let (value, minimum) = match self.u8()? {
            0xfd => (u64::from(self.u16()?), 0xfd),
            0xfe => (u64::from(self.u32()?), 0x1_0000),
            0xff => (self.u64()?, 0x1_0000_0000),
            small => (u64::from(small), 0),
        };
        if value < minimum { Err(Malformed) } else { Ok(value) }
    }

    /// A byte string behind its CompactSize length.
    pub fn var_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.varint()?;
        self.bytes(usize::try_from(len).map_err(|_| Malformed)?)
    }
}

/// Appends the specification's encodings to a byte string.
pub trait Write {
    /// Appends a CompactSize in minimal form.
    fn put_varint(&mut self, value: u64);
    /// Appends a CompactSize length and the bytes.
    fn put_var_bytes(&mut self, bytes: &[u8]);
    /// Appends the bytes as they are.
    fn put(&mut self, bytes: &[u8]);
}

impl Write for Vec<u8> {
    fn put_varint(&mut self, value: u64) {
        let bytes = value.to_le_bytes();
        match value {
            0..=0xfc => self.put(&bytes[..1]),
            0xfd..=0xffff => {
                self.push(0xfd);
                self.put(&bytes[..2]);
            }
            0x1_0000..=0xffff_ffff => {
                self.push(0xfe);
                self.put(&bytes[..4]);
            }
            _ => {
                self.push(0xff);
                self.put(&bytes);
            }
        }
    }

    fn put_var_bytes(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.put(bytes);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_has_one_encoding() {
        for value in [0, 1, 0xfc, 0xfd, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.is_empty());
        }
        let longer_than_needed: [&[u8]; 4] =
            [&[0xfd, 0xfc, 0], &[0xfe, 0xff, 0xff, 0, 0], &[0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], &[0xfd, 0xfd]];
        for bytes in longer_than_needed {
            assert_eq!(Reader::new(bytes).varint(), Err(Malformed), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_length_beyond_the_input_is_refused_without_allocating() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Reader::new(&bytes).var_bytes(), Err(Malformed));
    }
}
