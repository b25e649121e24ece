#!/usr/bin/env python3
"""Checks tests/vectors/*.json with an implementation written from docs/PROTOCOL.md alone.

    python3 scripts/check_vectors.py                   check every file, one line each
    python3 scripts/check_vectors.py FILE...           check these files
    python3 scripts/check_vectors.py --write-envelope  (re)write tests/vectors/envelope.json
    python3 scripts/check_vectors.py --write-roots     (re)write tests/vectors/roots.json
    python3 scripts/check_vectors.py --generated [N] [--seed S]
                                                       N (100,000) cases made and answered by the Rust; needs cargo
    python3 scripts/check_vectors.py --self-test       tests of this implementation, and that the examples in
                                                       docs/PROTOCOL.md are what it computes
    python3 scripts/check_vectors.py --write-examples  (re)write the appendix of docs/PROTOCOL.md

Python 3.9 or later, standard library only. The package beside this file does the work.
"""

import sys

sys.dont_write_bytecode = True

from check_vectors.command import main  # noqa: E402  (the package of the same name, not this file)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
