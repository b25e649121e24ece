#!/usr/bin/env bash
# The core (envelope, queue, derivation, executors, proofs) builds without std and depends on nothing
# but the crates listed here.
set -euo pipefail
cd "$(dirname "$0")/.."

allowed="adler2 arrayvec base58ck bech32 bitcoin bitcoin-io bitcoin-units bitcoin_hashes cobs hex-conservative hex_lit
itoa memchr miniz_oxide postcard secp256k1 secp256k1-sys serde serde_core serde_json sortie-core thiserror zmij"

cargo clippy -p sortie-core --lib --locked -- -D warnings
found=$(cargo tree -p sortie-core --edges normal,no-proc-macro --prefix none --locked |
    cut -d' ' -f1 | sort -u)
for crate in $found; do
    case " $(echo $allowed) " in
        *" $crate "*) ;;
        *) echo "the core must not depend on $crate (scripts/check_core.sh has the list)" >&2; exit 1 ;;
    esac
done
echo "the core's dependencies are those allowed: $(echo $found)"
