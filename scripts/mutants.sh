#!/usr/bin/env bash
# Mutation testing of rooms that are not in the core: `scripts/mutants.sh ROOM[,ROOM...] SHARD`, such as `scanner 0/4`.
# Works in a copy of what is committed, $MUTANTS (target/mutants), which it keeps: another shard has little to build.
# $MUTANT_SECONDS (60): when these are over, no further test tries a mutant. See docs/MUTATION.md.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
[ $# -eq 2 ] || usage
flows=
for room in ${1//,/ }; do
    case $room in
        scanner) flows+=" queue_command:: sources:: hostile_source:: block_files:: follow_command:: node_troubles::" ;;
        node) flows+=" follow_command:: status_command:: queue_command:: hostile_source:: scenarios_follower:: forced::" ;;
        publish | wallet) flows+=" money_ esplora forced::" ;;
        sequencer) flows+=" sequencer evidence:: scenarios_service:: hostile_sequencer:: power_cut::" ;;
        *) usage ;;
    esac
done
flows=$(tr ' ' '\n' <<<"$flows" | sort -u)

BITCOIND=${BITCOIND:-$(scripts/bitcoind.sh)}
export BITCOIND
copy=${MUTANTS:-target/mutants}
mkdir -p "$copy"
copy=$(cd "$copy" && pwd)
rm -rf "$copy/src"
git archive HEAD | tar -x -C "$copy"
if [ ! -x "$copy/venv/bin/python" ]; then
    python3 -m venv "$copy/venv"
    "$copy/venv/bin/pip" install --quiet tree-sitter==0.26.1 tree-sitter-rust==0.24.2
fi
export CARGO_TARGET_DIR=$copy/target
# shellcheck disable=SC2086 # prefixes of tests
exec nice -n 19 "$copy/venv/bin/python" scripts/mutants.py "$copy" "$1" "$2" $flows
