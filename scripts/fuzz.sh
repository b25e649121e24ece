#!/usr/bin/env bash
# Fuzzes one decoder, or all of them one after another.
#
#   scripts/fuzz.sh [TARGET] [SECONDS]   60 seconds a target unless told; TARGET `all` or a file of fuzz/fuzz_targets
#   scripts/fuzz.sh --keep [TARGET]      copies into fuzz/corpus what reaches code that nothing there reaches yet
#
# Needs nightly Rust, cargo-fuzz and a C++ compiler. It begins from fuzz/corpus and tests/vectors, gathers in
# fuzz/grown (not under version control), and leaves an input that broke a promise in fuzz/artifacts.
# FUZZ_TARGET_DIR: where to build. What is found is replayed on stable by tests/corpus.rs once it lies in fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."

keep=no
if [ "${1:-}" = --keep ]; then
    keep=yes
    shift
fi
target=${1:-all}
seconds=${2:-60}
build=${FUZZ_TARGET_DIR:-fuzz/target}
# Small enough to lie in a repository and to be replayed by every test run.
longest=1024

fail() { printf '%s\n' "$*" >&2; exit 1; }

if cargo +nightly --version >/dev/null 2>&1; then
    toolchain=+nightly
else
    fail "libFuzzer's instrumentation needs nightly Rust: rustup toolchain install nightly --profile minimal"
fi
cargo fuzz --version >/dev/null 2>&1 || fail "cargo-fuzz is missing: cargo install cargo-fuzz --locked"
command -v c++ >/dev/null || fail "a C++ compiler is missing (Debian: apt-get install g++)"

targets=$(cd fuzz/fuzz_targets && basename -s .rs -- *.rs)
if [ "$target" != all ]; then
    [ -e "fuzz/fuzz_targets/$target.rs" ] || fail "no target $target; there are:" $targets
    targets=$target
fi

cargo run --quiet --manifest-path fuzz/Cargo.toml --example seeds --target-dir "$build/seeds" -- fuzz/grown

broken=
for name in $targets; do
    mkdir -p "fuzz/corpus/$name"
    run() { cargo $toolchain fuzz run --target-dir "$build" "$name" "$@"; }
    if [ $keep = yes ]; then
        run "fuzz/corpus/$name" "fuzz/grown/$name" -- -merge=1 -max_len=$longest 2>&1 | tail -n 2
        continue
    fi
    printf '\n== %s\n' "$name"
    log=fuzz/grown/$name.log
    run "fuzz/grown/$name" "fuzz/corpus/$name" -- -max_total_time="$seconds" -max_len=8192 -timeout=20 \
        -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 >"$log" 2>&1 || broken="$broken $name"
    grep -E '^error|^Error|panicked|^assertion| left:| right:|ERROR|SUMMARY|Test unit written|stat::(number_of|average|peak)' "$log" || true
done
[ -z "$broken" ] || fail "broken:$broken; logs in fuzz/grown, the inputs in fuzz/artifacts unless it did not build"
