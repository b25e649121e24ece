#!/usr/bin/env bash
# Checks everything, the cheapest first. Needs Rust; the rest it finds or makes.
#
#   scripts/test.sh [TIER...]   every tier unless some are named:
#     house   formatting, the floors that tests/house.rs keeps, clippy, documentation
#     core    the core without std; the vectors, by the independent implementation in Python
#     unit    the tests beside the code, and the examples in its documentation
#     flows   tests on real bitcoinds, a sample of the crash matrix, another wallet's PSBT
#
# At the end it prints the minutes of each tier, and what was skipped and why. What takes longer is in night.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*" >&2; }

skipped=()
skip() { skipped+=("$tier: $*"); say "skipped: $*"; }

have() { command -v "$1" >/dev/null; }

# The same packages and features for clippy and for tests, so that cargo builds each once.
run_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --locked "$@"
    else
        cargo test --workspace --locked "$@"
    fi
}

house() {
    say "formatting"
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo fmt --all --check
    say "the floors of the house"
    run_tests --test house
    say "clippy"
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
    cargo clippy --workspace --all-targets --locked -- -D warnings
    say "each feature by itself"
    for features in "" node wallet sequencer crash-points; do
        cargo clippy -p sortie --no-default-features --features "$features" --locked -- -D warnings
    done
    cargo clippy -p sortie-cli --no-default-features --bin sortie --locked -- -D warnings
    say "documentation"
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
}

core() {
    say "the core without std, and what it depends on"
    scripts/check_core.sh
    if have python3; then
        say "the vectors, by the independent implementation in Python"
        python3 scripts/check_vectors.py --self-test
        python3 scripts/check_vectors.py
        python3 scripts/check_vectors.py --generated 100000 --seed 1
    else
        skip "the vectors in Python: there is no python3"
    fi
}

unit() {
    say "tests beside the code"
    run_tests --lib --bins --examples --test corpus
    say "examples in the documentation"
    cargo test --workspace --doc --locked
}

flows() {
    say "bitcoind"
    BITCOIND=$(scripts/bitcoind.sh)
    export BITCOIND
    "$BITCOIND" -version | head -n 1
    say "flows"
    run_tests --test flows
    say "what is behind the feature parquet"
    cargo clippy -p sortie-cli --features parquet --bin sortie --test flows --locked -- -D warnings
    cargo test -p sortie-cli --features parquet --bin sortie --test flows --locked -- parquet exported
    say "a sample of the crash matrix"
    scripts/crash_matrix.sh --sample
    if have python3; then
        say "a PSBT, signed by embit"
        scripts/test_psbt.sh || { [ $? = 77 ] && skip "a PSBT signed by embit: PyPI does not give it"; }
    else
        skip "a PSBT signed by embit: there is no python3"
    fi
    say "scripts/bitcoind.sh"
    scripts/test_bitcoind.sh
}

tiers=("$@")
[ $# -gt 0 ] || tiers=(house core unit flows)
for tier in "${tiers[@]}"; do
    case $tier in
        house | core | unit | flows) ;;
        *) echo "test.sh: no tier $tier; there are: house core unit flows" >&2; exit 2 ;;
    esac
done

minutes=''
finish() {
    local code=$?
    printf '\n| tier | minutes |\n|---|---:|\n%s' "$minutes" >&2
    [ $code = 0 ] || printf '%s failed\n' "$tier" >&2
    for reason in ${skipped[@]+"${skipped[@]}"}; do printf 'skipped, and so not checked: %s\n' "$reason" >&2; done
    exit $code
}
trap finish EXIT

for tier in "${tiers[@]}"; do
    SECONDS=0
    "$tier"
    minutes+=$(printf '| %s | %d:%02d |' "$tier" $((SECONDS / 60)) $((SECONDS % 60)))$'\n'
done
say "all of this passed: ${tiers[*]}"
