//! A ledger's parameters, as the manifest holds them (specification, section 10).

use crate::codec::{Malformed, Reader, Write};
use alloc::vec::Vec;

/// What a manifest says to the ledger executor. An account is an x-only public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerParameters {
    /// Cost units that one byte of a forced item pays for; a transfer costs 1.
    pub forced_cost_per_byte: u32,
    /// Where fees go.
    pub fee_account: [u8; 32],
    /// Balances at genesis, by strictly ascending account; their sum fits 64 bits.
    pub accounts: Vec<([u8; 32], u64)>,
}

impl LedgerParameters {
    /// Reads `forced_cost_per_byte u32 | fee account [32] | varint n | n x (account [32] | balance u64)`.
    ///
    /// `None` if the bytes are no such thing, accounts are not ascending or the sum does not fit 64 bits.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::read(bytes).ok().filter(Self::is_valid)
    }

    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let forced_cost_per_byte = reader.u32()?;
        let fee_account = reader.array()?;
        let count = reader.varint()?;
        let mut accounts = Vec::new();
        for _ in 0..count {
            accounts.push((reader.array()?, reader.u64()?));
        }
        if reader.is_empty() { Ok(Self { forced_cost_per_byte, fee_account, accounts }) } else { Err(Malformed) }
    }

    fn is_valid(&self) -> bool {
        self.accounts.is_sorted_by(|(a, _), (b, _)| a < b)
            && self.accounts.iter().try_fold(0u64, |sum, (_, balance)| sum.checked_add(*balance)).is_some()
    }

    /// The bytes that [`decode`](Self::decode) reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.forced_cost_per_byte.to_le_bytes().to_vec();
        bytes.put(&self.fee_account);
        bytes.put_varint(self.accounts.len() as u64);
        for (account, balance) in &self.accounts {
            bytes.put(account);
            bytes.put(&balance.to_le_bytes());
        }
        bytes
    }
}
