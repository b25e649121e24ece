#!/usr/bin/env bash
# Runs the benches of the core and prints their tables; criterion's own report goes to target/criterion.
#
#   scripts/bench.sh [BENCH...]    derivation, memory, worst_block, ... (benches/); all of them unless told
#
# Every figure that matters is a ratio to a reference of the same run: seconds depend on the machine and on what else it does.
# BENCH_TARGET_DIR: where to build.
set -euo pipefail
cd "$(dirname "$0")/.."

build=${BENCH_TARGET_DIR:-target}
# benches/scan needs a bitcoind: cargo bench -p sortie-regtest --bench scan
benches=${*:-$(cd benches && basename -s .rs -- *.rs | grep -vx scan)}
# Most of them need neither node nor wallet, and build in a minute.
run() { # BENCH [OPTION...]
    local features=()
    [ "$1" = publication ] && features=(--features wallet)
    cargo bench --quiet -p sortie --no-default-features ${features[@]+"${features[@]}"} --target-dir "$build" --bench "$@"
}

for bench in $benches; do run "$bench" --no-run; done
start=$SECONDS
for bench in $benches; do
    log=$build/bench-$bench.log
    run "$bench" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
    printf '\n'
    grep '^|' "$log"
done
printf '\n%s seconds; logs: %s/bench-*.log\n' $((SECONDS - start)) "$build"
