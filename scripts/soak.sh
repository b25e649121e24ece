#!/usr/bin/env bash
# Reorganises a bitcoind at random while four followers read it, each by a way of its own, and checks that all end
# with one root; prints what was done and how long it took.
#
#   scripts/soak.sh [REORGS]       2,000 unless told; SORTIE_SOAK_SEED=N draws other ones
#
# Files go to memory where there is /dev/shm: a soak is about chains, and tests/money_crash.rs about disks.
set -euo pipefail
cd "$(dirname "$0")/.."

BITCOIND=${BITCOIND:-$(scripts/bitcoind.sh)}
export BITCOIND
[ -n "${TMPDIR:-}" ] || [ ! -w /dev/shm ] || export TMPDIR=/dev/shm
export SORTIE_SOAK_REORGS=${1:-2000}
cargo test --release --locked -p sortie-cli --test flows -- soak --nocapture | grep reorganisations
