#!/usr/bin/env bash
# Mutation testing of rooms that are not in the core: `scripts/mutants.sh ROOM[,ROOM...] SHARD[,SHARD...]`, such as
# `scanner 0/4` or `follower,wallet 0/1,0/3`. Works in a copy of what is committed, $MUTANTS (target/mutants), and keeps it:
# another shard has little to build, and a run that was stopped goes on. $MUTANT_JOBS (2) tests run at a time, and no
# more of them try a mutant once they would take $MUTANT_SECONDS (60) together. See docs/MUTATION.md.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
[ $# -eq 2 ] || usage
flows=
for room in ${1//,/ }; do
    case $room in
        scanner) flows+=" queue_command:: sources:: hostile_source:: block_files:: follow_command:: node_troubles::" ;;
        follower) flows+=" follow_command:: status_command:: queue_command:: hostile_source:: scenarios_ node_troubles::" ;;
        publish | wallet) flows+=" money_ esplora forced:: made_up:: many_in_one:: cli:: untrusted::" ;;
        sequencer) flows+=" sequencer evidence scenarios_ hostile_sequencer:: power_cut:: proofs::" ;;
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
git archive HEAD | tar -xm -C "$copy"
if [ ! -x "$copy/venv/bin/python" ]; then
    python3 -m venv "$copy/venv"
    "$copy/venv/bin/pip" install --quiet tree-sitter==0.26.1 tree-sitter-rust==0.24.2
fi
export CARGO_TARGET_DIR=$copy/target
# shellcheck disable=SC2086 # prefixes of tests
exec nice "$copy/venv/bin/python" scripts/mutants.py "$copy" "$1" "$2" $flows
