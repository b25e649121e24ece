#!/usr/bin/env bash
# Runs what takes too long for CI, one after another, and prints a table of what was done.
#
#   scripts/night.sh [WHAT...]   everything unless some are named:
#     soak    2,000 reorganisations under four followers
#     crash   the whole crash matrix
#     fuzz    every decoder, FUZZ_SECONDS (600) each; needs nightly Rust and cargo-fuzz
#     bench   the measurements of benches/
#
# One that fails does not keep the others from running; the exit code is 1 then. Logs are in $NIGHT_LOGS (a new folder
# below the temporary one).
set -uo pipefail
cd "$(dirname "$0")/.."

soak() { scripts/soak.sh; }
crash() { scripts/crash_matrix.sh; }
fuzz() { scripts/fuzz.sh all "${FUZZ_SECONDS:-600}"; }
bench() { scripts/bench.sh; }

all=(soak crash fuzz bench)
chosen=("$@")
[ $# -gt 0 ] || chosen=("${all[@]}")
for what in "${chosen[@]}"; do
    case " ${all[*]} " in
        *" $what "*) ;;
        *) echo "night.sh: there is no $what; there are: ${all[*]}" >&2; exit 2 ;;
    esac
done

logs=${NIGHT_LOGS:-$(mktemp -d)}
mkdir -p "$logs"
failed=0
table=''
for what in "${chosen[@]}"; do
    printf '== %s, log in %s\n' "$what" "$logs/$what.log" >&2
    SECONDS=0
    if "$what" >"$logs/$what.log" 2>&1; then end=passed; else end=FAILED; failed=1; fi
    table+=$(printf '| %s | %s | %d min %02d s | %s |' \
        "$what" "$end" $((SECONDS / 60)) $((SECONDS % 60)) "$(tail -n 1 "$logs/$what.log")")$'\n'
done
printf '| what | end | time | last words |\n|---|---|---:|---|\n%s' "$table"
exit $failed
