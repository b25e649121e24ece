#!/usr/bin/env bash
# The whole story on one machine: a sequencer that refuses Alice, and how Bitcoin makes it execute her
# transactions all the same; then without any sequencer; then through a reorganisation.
# Usage: scripts/demo.sh [--keep]     --keep leaves everything running and says what to try next
set -euo pipefail
cd "$(dirname "$0")/.."

keep=false
case "${1:-}" in
    "") ;;
    --keep) keep=true ;;
    *) echo "usage: scripts/demo.sh [--keep]" >&2; exit 2 ;;
esac

# ---- telling and checking -----------------------------------------------------------------------
bold=""; plain=""
if [ -t 1 ]; then bold=$'\e[1m'; plain=$'\e[0m'; fi
chapter() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
tell() { printf '   %s\n' "$*"; }
fail() { printf '\nThe story went wrong: %s\n' "$*" >&2; exit 1; }
# field NAME: the first value of that name in JSON on stdin.
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p" | head -n 1; }
same() { [ "$2" = "$3" ] || fail "$1: $2 is not $3"; }
# until SECONDS WHAT COMMAND...: waits until the command succeeds.
until_true() {
    local limit=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $limit ] || fail "waited too long for $what"
        sleep 0.1
    done
}

# ---- setting up ---------------------------------------------------------------------------------
chapter "Getting ready (only the first time takes long)"
BITCOIND=$(scripts/bitcoind.sh)
export BITCOIND
cargo build --quiet --locked -p sortie-cli
sortie=${CARGO_TARGET_DIR:-target}/debug/sortie
dir=$(mktemp -d "${TMPDIR:-/tmp}/sortie-demo.XXXXXX")
export SORTIE_DATA_DIR=$dir/data SORTIE_NETWORK=regtest
sequencer_pid=""

cleanup() {
    local status=$?
    trap - EXIT
    if $keep && [ $status -eq 0 ]; then exit 0; fi
    [ -z "$sequencer_pid" ] || kill -9 "$sequencer_pid" 2>/dev/null || true
    "$sortie" regtest down >/dev/null 2>&1 || true
    if [ $status -eq 0 ]; then
        rm -rf "$dir"
    else
        echo "What was written is in $dir" >&2
    fi
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

json() { "$sortie" --json --quiet "$@"; }
mine() { "$sortie" regtest mine "$1" >/dev/null; }
height() { json regtest info | field height; }
# The follower's heads: the last line that it prints.
heads() { json follow --once | tail -n 1; }
SECONDS=0

chapter "1. A Bitcoin node, a rollup, and the people on it"
"$sortie" regtest up >/dev/null
mine 120
node=$(json regtest info)
SORTIE_BITCOIN_URL=$(field url <<<"$node")
SORTIE_BITCOIN_COOKIE=$(field cookie <<<"$node")
export SORTIE_BITCOIN_URL SORTIE_BITCOIN_COOKIE
tell "bitcoind ($("$BITCOIND" -version | head -n 1 | sed 's/.*version //')) runs on regtest at height $(height)"
for who in alice bob sequencer; do
    "$sortie" ledger key --out "$dir/$who.key" >/dev/null
done
alice=$("$sortie" ledger key --show "$dir/alice.key")
bob=$("$sortie" ledger key --show "$dir/bob.key")
operator=$("$sortie" ledger key --show "$dir/sequencer.key")
for who in alice sequencer; do
    "$sortie" wallet create --wallet $who >/dev/null 2>&1
    address=$(json wallet address --wallet $who | field address)
    "$sortie" regtest fund "$address" 1000000 >/dev/null
done
mine 1
export SORTIE_MANIFEST=$dir/rollup.toml
"$sortie" -q rollup new --name demo --sequencer "$operator" --window 12 --max-lag 6 --executor ledger \
    --account "$alice=500000" --account "$bob=500000" --fee-account "$operator" --out "$SORTIE_MANIFEST" >/dev/null
rollup_id=$(json rollup show | field rollup_id)
tell "rollup ${rollup_id:0:16}... starts at Bitcoin block $(height); window 12 blocks"
tell "Alice ${alice:0:8}... and Bob ${bob:0:8}... have 500000 sat each on L2"

transfer() { # FROM TO AMOUNT NONCE
    "$sortie" ledger transfer --key "$dir/$1.key" --to "$2" --amount "$3" --fee 10 --nonce "$4"
}
gone() { ! kill -0 "$1" 2>/dev/null; }
start_sequencer() {
    "$sortie" --json sequencer --key "$dir/sequencer.key" --wallet sequencer --listen 127.0.0.1:0 "$@" \
        >"$dir/sequencer.log" 2>"$dir/sequencer.err" &
    sequencer_pid=$!
    disown
    until_true 20 "the sequencer" grep -q '"event":"started"' "$dir/sequencer.log"
    url=$(field url <"$dir/sequencer.log")
}

chapter "2. A sequencer that refuses Alice"
start_sequencer --deny "$alice"
tell "$url takes transactions, but none of Alice's"
tell "Bob:   $("$sortie" send "$(transfer bob "$alice" 1000 0)" --sequencer "$url")"
first=$(transfer alice "$bob" 25000 0)
if refusal=$("$sortie" send "$first" --sequencer "$url" 2>&1); then
    fail "the sequencer took Alice's transaction"
fi
tell "Alice: $refusal"

chapter "3. Alice forces it: she writes the signed transaction into Bitcoin"
"$sortie" quote "$first" --wallet alice | sed 's/^/   /'
forced=$(json force "$first" --wallet alice)
place=$(field place <<<"$forced")
tell "sent as $place, $(field carrier <<<"$forced"), for $(field fee_sat <<<"$forced") sat"
mine 1
status=$(json status "$place")
queued_at=$(field height <<<"$status")
due=$(field due_height <<<"$status")
tell "mined in block $queued_at; item $(field index <<<"$status") of the queue, due at $due"

chapter "4. The sequencer that denies her has to execute it"
executed() { [ "$(json status "$place" | field state)" = executed ]; }
posted() { [ "$(grep -c '"event":"posted"' "$dir/sequencer.log")" -gt "$1" ]; }
# Mines a block each time a batch waits for one, until the item is executed.
executed_by_the_sequencer() {
    local batches=$1
    until executed; do
        until_true 30 "a batch" posted "$batches"
        batches=$((batches + 1))
        mine 1
    done
}
batches=$(grep -c '"event":"posted"' "$dir/sequencer.log")
executed_by_the_sequencer "$batches"
status=$(json status "$place")
same "outcome of Alice's transaction" "$(field outcome <<<"$status")" ok
derived_at=$(field derived_at <<<"$status")
[ "$derived_at" -lt "$due" ] || fail "executed at $derived_at, no earlier than without a sequencer"
tell "executed (ok) in L2 block $(field l2_number <<<"$status"), by a batch in Bitcoin block $derived_at, $((due - derived_at)) before it was due"

# Whoever has read only Bitcoin, from the rollup's start, with nothing else to go by.
bare_follower() {
    rm -rf "$dir/bare"
    SORTIE_DATA_DIR=$dir/bare json follow --once
}
# The state root after L2 block N, as the sequencer promised it and as a bare follower derives it.
promised() { grep '"event":"block"' "$dir/sequencer.log" | grep "\"number\":$1," | tail -n 1 | field state_root; }
derived() { bare_follower | sed -n "s/.*{\"number\":$1,[^}]*\"state_root\":\"\([0-9a-f]*\)\".*/\1/p" | tail -n 1; }
l2_number=$(field l2_number <<<"$status")
root=$(promised "$l2_number")
same "state root after L2 block $l2_number, promised and derived" "$root" "$(derived "$l2_number")"
tell "a follower that read only Bitcoin has the same state root, ${root:0:16}..."

chapter "5. The sequencer dies, and Alice forces another"
kill -9 "$sequencer_pid"
until_true 10 "the sequencer's end" gone "$sequencer_pid"
sequencer_pid=""
tell "the sequencer is killed with SIGKILL at Bitcoin height $(height)"
second=$(transfer alice "$bob" 30000 1)
forced=$(json force "$second" --wallet alice --carrier taproot)
place=$(field place <<<"$forced")
mine 1
status=$(json status "$place")
due=$(field due_height <<<"$status")
tell "sent as $place and mined in block $(field height <<<"$status"), due at $due"
while [ "$(height)" -lt "$due" ] && ! executed; do mine 1; done
executed || fail "at its due height $due the item is not executed"
status=$(json status "$place")
same "outcome without a sequencer" "$(field outcome <<<"$status")" ok
tell "no sequencer, no batch: executed (ok) in L2 block $(field l2_number <<<"$status"),"
tell "which every follower derives on seeing Bitcoin block $(field derived_at <<<"$status")"
balance=$(json ledger account "$alice" | field balance_sat)
same "Alice's balance" "$balance" $((500000 + 1000 - 25000 - 10 - 30000 - 10))
tell "Alice has $balance sat on L2, Bob $(json ledger account "$bob" | field balance_sat) sat"

chapter "6. The sequencer comes back, and Bitcoin reorganises"
start_sequencer --deny "$alice"
third=$(transfer alice "$bob" 40000 2)
place=$(json force "$third" --wallet alice | field place)
mine 1
gone=$(json status "$place" | field height)
"$sortie" regtest reorg 1 >/dev/null
same "where the forced transaction is after the reorganisation" "$(json status "$place" | field state)" mempool
tell "Alice's third was in block $gone; that block is gone, the transaction waits in the mempool again"
mine 1
again=$(json status "$place" | field height)
[ "$again" != "$gone" ] || fail "the item did not move"
tell "mined again in block $again: the same place, another due height"
executed_by_the_sequencer 0
status=$(json status "$place")
same "outcome after the reorganisation" "$(field outcome <<<"$status")" ok
l2_number=$(field l2_number <<<"$status")
followed=$(heads)
bare=$(bare_follower | tail -n 1)
same "heads of the follower that saw the reorganisation and of one that did not" "$followed" "$bare"
root=$(promised "$l2_number")
same "state root after L2 block $l2_number, promised and derived" "$root" "$(derived "$l2_number")"
tell "sequencer, follower and a follower that starts now agree: L2 block $l2_number, state root ${root:0:16}..."

chapter "Done in $SECONDS s."
if $keep; then
    cat <<EOF
   Everything still runs. In your shell:
     export SORTIE_DATA_DIR=$SORTIE_DATA_DIR SORTIE_NETWORK=regtest SORTIE_MANIFEST=$SORTIE_MANIFEST
     export SORTIE_SEQUENCER=$url PATH=\$PATH:$(cd "$(dirname "$sortie")" && pwd)
   Then try:
     sortie follow                                   watch the chain being derived (Ctrl-C ends it)
     sortie queue list                               everything that was forced
     sortie ledger transfer --key $dir/bob.key --to $alice --amount 7
     sortie send HEX                                 that transaction, through the sequencer
     sortie force HEX --wallet alice                 or through Bitcoin
     sortie regtest mine 1; sortie regtest reorg 2
   To end it:
     kill $sequencer_pid; sortie regtest down; rm -r $dir
EOF
fi
