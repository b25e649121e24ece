#!/usr/bin/env bash
# Sends a PSBT through another implementation and back: embit, in a virtual environment made here. Exit code 77: not
# tested, since embit could not be had.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${XDG_CACHE_HOME:-$HOME/.cache}/sortie/embit-0.8.0
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv.new"
    if ! "$venv.new/bin/pip" install --quiet embit==0.8.0; then
        echo "test_psbt.sh: PyPI does not give embit 0.8.0" >&2
        exit 77
    fi
    rm -rf "$venv" && mv "$venv.new" "$venv"
fi
BITCOIND=${BITCOIND:-$(scripts/bitcoind.sh)}
export BITCOIND
SORTIE_PSBT_SIGNER="$venv/bin/python" cargo test --locked -p sortie-cli --test flows -- money_psbt --include-ignored "$@"
