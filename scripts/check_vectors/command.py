"""The command line: which files, which checker, one line per file."""

import json
import pathlib
import sys
import time

from . import envelope_vectors, examples, proof_vectors, roots_vectors, self_test, vector_files

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
    if arguments == ["--write-envelope"]:
        envelope_vectors.write(VECTORS / "envelope.json")
        return check([VECTORS / "envelope.json"])
    if arguments == ["--write-roots"]:
        roots_vectors.write(VECTORS / "roots.json")
        return check([VECTORS / "roots.json"])
    if arguments == ["--self-test"]:
        return self_test.run(PROTOCOL)
    if arguments == ["--write-examples"]:
        examples.write(PROTOCOL)
        return 0
    if any(a.startswith("-") for a in arguments):
        print(
            "usage: check_vectors.py [--write-envelope | --write-roots | --self-test | --write-examples | FILE...]", file=sys.stderr
        )
        return 2
    paths = [pathlib.Path(a) for a in arguments] or sorted(VECTORS.glob("*.json"))
    return check(paths)


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
