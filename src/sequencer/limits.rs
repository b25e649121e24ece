//! What the sequencer lets itself be asked for: every limit in one place, and the limiter of rates.
//!
//! Guarantees that a client's allowance takes a fixed amount of memory, whatever clients there are.

use crate::primitives::{Hash32, sha256};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Longest transaction that is taken in, in bytes.
pub const MAX_TX_LEN: usize = 65_536;

/// Transactions that may wait at once.
pub const MAX_POOL: u64 = 10_000;

/// The sequencer's limits. None is part of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_per_address: usize,
    /// Files that connections leave to the wallet, the databases and the way to Bitcoin.
    pub files_kept: u64,
    /// How long a connection may stand still: no request begun, or an answer not taken.
    pub idle: Duration,
    /// How long a request may take, its body included.
    pub request: Duration,
    /// Time that requests under way are given when the server stops.
    pub farewell: Duration,
    /// Longest transaction, in bytes.
    pub tx_len: usize,
    /// Valid transactions of one sender.
    pub sender: Rate,
    /// Everything else from one address: what is no transaction.
    pub refused: Rate,
    /// Questions from one address.
    pub questions: Rate,
    /// Senders and addresses that are told apart.
    pub clients: usize,
    /// Transactions that may wait at once.
    pub pool: u64,
    /// Bytes of own transactions in one block; a block always fits a batch.
    pub block_bytes: usize,
    /// Bytes of plain data in one batch: its payload stays within what Bitcoin nodes relay.
    pub batch_bytes: usize,
    /// Bytes of own transactions that are promised and not derived: what a few batches hold.
    pub promised_bytes: usize,
    /// Soft blocks that are not derived.
    pub promised_blocks: u64,
    /// Nothing is promised while the oldest promise is within this part of `max_lag` of going stale.
    pub posting_margin: u32,
}

/// An allowance that fills again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many may come at once.
    pub burst: u32,
    /// How many a second, on average.
    pub per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_024,
            connections_per_address: 512,
            files_kept: 256,
            idle: Duration::from_secs(10),
            request: Duration::from_secs(10),
            farewell: Duration::from_secs(2),
            tx_len: MAX_TX_LEN,
            sender: Rate { burst: 500, per_second: 50 },
            refused: Rate { burst: 100, per_second: 10 },
            questions: Rate { burst: 2_000, per_second: 200 },
            clients: 20_000,
            pool: MAX_POOL,
            block_bytes: 100_000,
            batch_bytes: 380_000,
            promised_bytes: 4 * 380_000,
            promised_blocks: super::MAX_PROMISED_BLOCKS,
            posting_margin: 4,
        }
    }
}

/// Whose allowance is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// The signer of a transaction, hashed.
    Sender(Hash32),
    /// Where a request comes from.
    Address(IpAddr),
}

impl Client {
    /// By whatever the executor knows a sender by.
    pub(super) fn of_sender(sender: &[u8]) -> Self {
        Client::Sender(sha256(sender))
    }

    /// A network of IPv6 is one client: whoever has one has all of its addresses.
    pub(super) fn at(address: IpAddr) -> Self {
        Client::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 => v4,
        })
    }
}

/// One rate for many clients, each with an allowance of its own.
#[derive(Debug)]
pub(super) struct Limiter<K> {
    rate: Rate,
    most: usize,
    /// When each client's allowance is full again; one that is not here is full.
    full_at: HashMap<K, Duration>,
}

impl<K: Copy + Eq + Hash> Limiter<K> {
    pub(super) fn new(rate: Rate, most: usize) -> Self {
        Self { rate, most: most.max(1), full_at: HashMap::new() }
    }

    /// Takes one from a client's allowance; else tells how long it has to wait. `now` is of a clock that only goes on.
    pub(super) fn take(&mut self, client: K, now: Duration) -> Result<(), Duration> {
        let each = Duration::from_secs(1) / self.rate.per_second.max(1);
        let full_at = self.full_at.get(&client).copied().unwrap_or(now).max(now);
        let room = each * self.rate.burst.max(1);
        let after = full_at + each;
        if after > now + room {
            return Err(after - now - room);
        }
        if !self.full_at.contains_key(&client) && self.full_at.len() >= self.most {
            self.forget(now);
        }
        self.full_at.insert(client, after);
        Ok(())
    }

    /// Forgets whoever has a full allowance; if nobody has, all those who have used least of theirs.
    fn forget(&mut self, now: Duration) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= self.most {
            let mut times: Vec<Duration> = self.full_at.values().copied().collect();
            let middle = times.len() / 2;
            let median = *times.select_nth_unstable(middle).1;
            self.full_at.retain(|_, full_at| *full_at > median);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_client_has_an_allowance_of_its_own_that_fills_again() {
        let mut limiter = Limiter::new(Rate { burst: 3, per_second: 2 }, 10);
        let at = |tenths: u32| SECOND * 100 + SECOND * tenths / 10;
        for _ in 0..3 {
            assert_eq!(limiter.take('a', at(0)), Ok(()));
        }
        assert_eq!(limiter.take('a', at(0)), Err(SECOND / 2));
        assert_eq!(limiter.take('b', at(0)), Ok(()), "another client");
        assert_eq!(limiter.take('a', at(4)), Err(SECOND / 10));
        assert_eq!(limiter.take('a', at(5)), Ok(()));
        assert_eq!(limiter.take('a', at(5)), Err(SECOND / 2));
        for _ in 0..3 {
            assert_eq!(limiter.take('a', at(60)), Ok(()), "never more than its burst");
        }
        assert!(limiter.take('a', at(60)).is_err());
    }

    #[test]
    fn however_many_clients_come_memory_is_bounded_and_the_greedy_one_is_not_forgotten() {
        let mut limiter = Limiter::new(Rate { burst: 3, per_second: 1 }, 100);
        for _ in 0..3 {
            assert_eq!(limiter.take(0, SECOND), Ok(()));
        }
        for client in 1..10_000 {
            assert_eq!(limiter.take(client, SECOND), Ok(()));
            assert!(limiter.full_at.len() <= 100);
        }
        assert!(limiter.take(0, SECOND).is_err(), "it has used up more than the others");
    }

    #[test]
    fn a_network_is_one_client() {
        let at = |text: &str| Client::at(text.parse().expect("an address"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }
}
