//! A rollup whose executor this library does not have, followed with the rollup team's own. On a Bitcoin in memory.

use crate::support::hostile_paper::{START, manifest};
use anyhow::{Context, Result};
use regtest::hostile::{Envelope, Miner, PaperBitcoin};
use sortie::chain::BlockSource;
use sortie::envelope::{Body, Carrier, Payload};
use sortie::executor::{Executor, NoOpReason, Route, State};
use sortie::follower::{DataDir, Follower, FollowerError};
use sortie::manifest::{ExecutorKind, ExecutorSpec, Fields, Manifest};
use sortie::primitives::{Hash32, sha256};
use std::sync::Arc;

/// Keeps the last forced transaction, and takes none that begins with 0.
struct LastForced;

const LAST: &[u8] = b"last";

impl Executor for LastForced {
    fn genesis(&self) -> State {
        State::default()
    }

    fn check_static(&self, tx: &[u8]) -> Result<(), NoOpReason> {
        if tx.first() == Some(&0) { Err(NoOpReason::Malformed) } else { Ok(()) }
    }

    fn run(&self, state: &mut State, tx: &[u8], route: Route) -> Result<(), NoOpReason> {
        if route == Route::Forced {
            state.set(LAST, Some(tx.into()));
        }
        self.check_static(tx)
    }

    fn state_root(&self, state: &State) -> Hash32 {
        sha256(state.get(LAST).unwrap_or_default())
    }
}

/// A rollup that names the evm executor, with a window of 6 Bitcoin blocks.
fn evm(bitcoin: &PaperBitcoin) -> Result<Manifest> {
    let fields = Fields::clone(&*manifest(bitcoin.tip()?)?);
    let executor = ExecutorSpec { kind: ExecutorKind::Evm, parameters: vec![1] };
    Ok(Manifest::new(Fields { executor, ..fields })?)
}

#[test]
fn a_rollup_is_followed_with_an_executor_that_the_library_does_not_have() -> Result<()> {
    let bitcoin = PaperBitcoin::new(START);
    let manifest = evm(&bitcoin)?;
    for tx in [&b"first"[..], b"kept", b"\0refused"] {
        let payload = Payload { namespace: manifest.rollup_id().namespace(), body: Body::Tx(tx.to_vec()) };
        bitcoin.mine_envelopes(&[Envelope { carrier: Carrier::OpReturn, payload: payload.encode()? }])?;
    }
    let folder = tempfile::tempdir()?;
    let dir = DataDir::new(folder.path(), manifest);
    assert!(matches!(Follower::open(&dir, &bitcoin), Err(FollowerError::Executor(_))));

    for _ in ["begun", "opened again"] {
        let lock = dir.lock()?.context("nobody else has it")?;
        let mut follower = lock.open_with(Arc::new(LastForced), &bitcoin)?;
        bitcoin.mine_empty(20);
        follower.sync(&bitcoin, |_| ())?;
        assert_eq!(follower.state().get(LAST), Some(&b"kept"[..]), "what had no effect left none");
        assert_eq!(follower.heads(6)?.safe.state_root, sha256(b"kept"));
    }
    Ok(())
}
