#!/usr/bin/env python3
"""Signs the inputs of a PSBT with a BIP 39 mnemonic, by embit: another implementation than Sortie's.

Usage: sign_psbt.py IN OUT < WORDS
"""

import sys

from embit import bip32, bip39
from embit.psbt import PSBT


def main() -> None:
    source, target = sys.argv[1:]
    words = " ".join(sys.stdin.read().split())
    with open(source, encoding="ascii") as file:
        psbt = PSBT.from_string(file.read().strip())
    root = bip32.HDKey.from_seed(bip39.mnemonic_to_seed(words))
    signed = psbt.sign_with(root)
    if signed != len(psbt.inputs):
        sys.exit(f"signed {signed} of {len(psbt.inputs)} inputs")
    with open(target, "w", encoding="ascii") as file:
        file.write(psbt.to_string())


if __name__ == "__main__":
    main()
