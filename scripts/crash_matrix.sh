#!/usr/bin/env bash
# Kills `sortie` at every write of the wallet's database and every question to the node or server, on
# either side of it, runs the same command again until it is done, and counts: published once, no satoshi lost but fees.
# `--sample` tries every ninth point only. Prints a table.
set -euo pipefail
cd "$(dirname "$0")/.."

BITCOIND=${BITCOIND:-$(scripts/bitcoind.sh)}
export BITCOIND
[ "${1:-}" = "--sample" ] || export SORTIE_CRASH_MATRIX=all

table=$(mktemp)
trap 'rm -f "$table"' EXIT
cargo test --locked -p sortie-cli --features crash-points --test flows -- money_crash --nocapture | tee "$table"
printf '\n| act, carrier | points killed at | restarts | right afterwards | lost, sat | fees, sat |\n|---|---:|---:|---:|---:|---:|\n'
grep -o '^| .*' "$table"
