"""The command line: which files, which checker, one line per file."""

import argparse
import json
import pathlib
import sys
import time

from . import envelope_vectors, examples, generated, proof_vectors, roots_vectors, self_test, vector_files

ROOT = pathlib.Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "vectors"
PROTOCOL = ROOT / "docs" / "PROTOCOL.md"

CHECKERS = {
    "envelope": envelope_vectors.checks,
    "manifest": vector_files.manifest_checks,
    "ledger": vector_files.ledger_checks,
    "derivation": vector_files.derivation_checks,
    "proof": proof_vectors.checks,
    "roots": roots_vectors.checks,
}


def main(arguments):
    parser = argparse.ArgumentParser(prog="check_vectors.py")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write-envelope", action="store_true", help="(re)write tests/vectors/envelope.json")
    what.add_argument("--write-roots", action="store_true", help="(re)write tests/vectors/roots.json")
    what.add_argument("--self-test", action="store_true", help="test this implementation and the examples of PROTOCOL.md")
    what.add_argument("--write-examples", action="store_true", help="(re)write the appendix of PROTOCOL.md")
    what.add_argument(
        "--generated", type=int, nargs="?", const=generated.DEFAULT_COUNT, metavar="N",
        help="have cargo build the maker of cases and judge N of them (%d)" % generated.DEFAULT_COUNT,
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=generated.DEFAULT_SEED, help="other cases with --generated")
    parser.add_argument("files", nargs="*", type=pathlib.Path, metavar="FILE", help="files to check instead of all")
    chosen = parser.parse_args(arguments)
    if chosen.generated is not None:
        return generated.run(chosen.generated, chosen.seed)
    if chosen.self_test:
        return self_test.run(PROTOCOL)
    if chosen.write_examples:
        examples.write(PROTOCOL)
        return 0
    for write, chooses, name in ((envelope_vectors.write, chosen.write_envelope, "envelope"), (roots_vectors.write, chosen.write_roots, "roots")):
        if chooses:
            path = VECTORS / (name + ".json")
            write(path)
            return check([path])
    return check(chosen.files or sorted(VECTORS.glob("*.json")))


def check(paths):
    passed = failed = 0
    for path in paths:
        if path.stem not in CHECKERS:
            print("%-22s no checker for this file" % path.name)
            failed += 1
            continue
        started, good, bad = time.monotonic(), 0, []
        for name, function, case in CHECKERS[path.stem](json.loads(path.read_text(encoding="utf-8"))):
            try:
                function(case)
                good += 1
            except Exception as error:  # a crash on a vector is a failure of that vector
                bad.append("%s: %s: %s" % (name, type(error).__name__, error))
        print("%-22s %4d passed, %d failed  (%.1f s)" % (path.name, good, len(bad), time.monotonic() - started))
        for line in bad:
            print("    " + line)
        passed, failed = passed + good, failed + len(bad)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0
