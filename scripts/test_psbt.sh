#!/usr/bin/env bash
# Sends a PSBT through another implementation and back: embit, in a virtual environment made here.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${XDG_CACHE_HOME:-$HOME/.cache}/sortie/embit-0.8.0
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv.new"
    if ! "$venv.new/bin/pip" install --quiet embit==0.8.0; then
        echo "skipped: embit 0.8.0 cannot be had from PyPI" >&2
        exit 0
    fi
    rm -rf "$venv" && mv "$venv.new" "$venv"
fi
BITCOIND=${BITCOIND:-$(scripts/bitcoind.sh)}
export BITCOIND
SORTIE_PSBT_SIGNER="$venv/bin/python" cargo test --locked -p sortie-cli --test flows -- money_psbt --include-ignored "$@"
