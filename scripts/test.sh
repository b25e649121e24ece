#!/usr/bin/env bash
# Formatting, clippy, docs and every test, on a real bitcoind. Needs Rust; the rest it finds or makes.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*" >&2; }

say "bitcoind"
BITCOIND=$(scripts/bitcoind.sh)
export BITCOIND
"$BITCOIND" -version | head -n 1

say "formatting"
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo fmt --all --check

say "clippy"
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
cargo clippy --workspace --all-targets --locked -- -D warnings

say "the core without std, and what it depends on"
scripts/check_core.sh

say "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

say "tests"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked
else
    cargo test --workspace --all-targets --locked
fi
cargo test --workspace --doc --locked

say "what is behind the feature parquet"
cargo clippy -p sortie-cli --features parquet --bin sortie --test flows --locked -- -D warnings
cargo test -p sortie-cli --features parquet --bin sortie --test flows --locked -- parquet exported

say "a sample of the crash matrix"
scripts/crash_matrix.sh --sample

say "a PSBT, signed by embit"
if command -v python3 >/dev/null; then
    scripts/test_psbt.sh
else
    echo "skipped: no python3" >&2
fi

say "the vectors, by the independent implementation in Python"
if command -v python3 >/dev/null; then
    python3 scripts/check_vectors.py --self-test
    python3 scripts/check_vectors.py
    python3 scripts/check_vectors.py --generated 100000 --seed 1
else
    echo "skipped: no python3" >&2
fi

say "scripts/bitcoind.sh"
scripts/test_bitcoind.sh

say "everything passed"
