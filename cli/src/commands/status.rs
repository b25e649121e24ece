//! `sortie status`.

use super::life::{Life, Teller};
use crate::config::Settings;
use crate::failure::Failure;
use crate::follower::Reader;
use crate::output::Output;
use bitcoin::Txid;
use bitcoin::hashes::Hash;
use bitcoin::hex::FromHex;
use clap::Args;
use sortie::chain::Mempool;
use sortie::envelope::scan_transaction;
use sortie::node::QueuedItem;
use sortie::primitives::{BlockRef, Hash32};
use sortie::queue::{Place, items_of};
use std::str::FromStr;

const EXAMPLE: &str = "\
Examples:
  sortie status 5f1e...c2               by Bitcoin transaction, or by SHA256 of the L2 transaction
  sortie status 5f1e...c2:out:0         by place on Bitcoin
  sortie status 5f1e...c2:in:0 --json | jq -r .state";

/// Tell how far a forced transaction has come
///
/// mempool -> confirmed(n) -> queued(index, due height) -> executed(L2 block, ok or no-op). It joins the queue in the
/// block that confirms it, and is executed at the latest when Bitcoin reaches the due height. One line for each item
/// that is meant; a Bitcoin transaction that is not mined yet is looked up in the node's mempool.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLE)]
pub struct Status {
    /// TXID, TXID:in:INDEX[:POSITION], TXID:out:INDEX[:POSITION], or SHA256 of the L2 transaction
    #[arg(value_name = "TXID|PLACE|HASH")]
    what: What,
}

/// What a status is asked for.
#[derive(Clone, Copy, Debug)]
enum What {
    Place(Place),
    /// 64 digits: a transaction id, which is shown reversed, or a hash, which is not.
    Hash {
        txid: Txid,
        tx_hash: Hash32,
    },
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(':') {
            return text.parse().map(Self::Place).map_err(|error: sortie::queue::BadPlace| error.to_string());
        }
        match <[u8; 32]>::from_hex(text) {
            Ok(bytes) => {
                let mut reversed = bytes;
                reversed.reverse();
                Ok(Self::Hash { txid: Txid::from_byte_array(reversed), tx_hash: Hash32(bytes) })
            }
            Err(_) => {
                Err("expected 64 hexadecimal digits, or TXID:in:INDEX[:POSITION], or TXID:out:INDEX[:POSITION]".into())
            }
        }
    }
}

/// Runs the command.
pub fn run(status: &Status, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let reader = Reader::open(settings, out)?;
    let lives = known(&reader, settings, status.what)?;
    if lives.is_empty() {
        return Err(Failure::failed(
            "not known: neither in this rollup's queue nor executed nor in Bitcoin's mempool; it may have been replaced, or be of another rollup",
        ));
    }
    lives.iter().try_for_each(|life| out.print(life))
}

fn known(reader: &Reader, settings: &Settings, what: What) -> Result<Vec<Life>, Failure> {
    let store = reader.node().store();
    let teller = Teller::new(reader.node(), settings)?;
    let tell = |items: Vec<QueuedItem>| items.iter().map(|item| teller.forced(item)).collect::<Result<Vec<_>, _>>();
    let mut lives = match what {
        What::Place(place) => tell(store.item_at(&place)?.into_iter().collect())?,
        What::Hash { txid, tx_hash } => {
            let mut lives = tell(store.items_of_transaction(&txid)?)?;
            lives.extend(tell(store.items_with_hash(&tx_hash)?)?);
            for fate in store.own_txs_with_hash(&tx_hash)? {
                lives.push(teller.own(tx_hash, fate)?);
            }
            lives
        }
    };
    if lives.is_empty() {
        lives = waiting(reader, what)?;
    }
    Ok(lives)
}

/// The items that a transaction in the node's mempool carries.
fn waiting(reader: &Reader, what: What) -> Result<Vec<Life>, Failure> {
    let txid = match what {
        What::Place(place) => place.txid,
        What::Hash { txid, .. } => txid,
    };
    let manifest = reader.node().manifest();
    let source = reader.source()?;
    // With a transaction index the node also knows transactions of blocks that the follower has not read.
    let (true, Some(transaction)) = (source.is_waiting(&txid)?, source.transaction(&txid)?) else {
        return Ok(Vec::new());
    };
    let found = scan_transaction(&transaction, Some(manifest.rollup_id().namespace()));
    let nowhere = BlockRef { height: 0, hash: bitcoin::BlockHash::all_zeros() };
    let items = items_of(nowhere, &found).into_iter().filter(|item| match what {
        What::Place(place) => item.place == place,
        What::Hash { .. } => true,
    });
    Ok(items.map(|item| Teller::mempool(item.place, item.tx_hash())).collect())
}
