"""Cases that the Rust side makes and answers (regtest/examples/generate_cases), answered here a second time."""

import collections
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

from . import answers, bip340

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEFAULT_COUNT = 100_000
DEFAULT_SEED = 1
SHOWN_DIFFERENCES = 20  # of each worker

Tally = collections.namedtuple("Tally", "cases accepted signed results")  # counters by kind; results by (kind, result)


def run(count, seed):
    started = time.monotonic()
    try:
        generator = _build()
    except (OSError, subprocess.CalledProcessError) as error:
        print("no generated cases: %s" % error, file=sys.stderr)
        return 1
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [(generator, count, seed, part, workers) for part in range(workers)]
    total, differences = _tally(), []
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        for tally, found in pool.map(_part, parts):
            for ours, theirs in zip(total, tally):
                ours.update(theirs)
            differences += found
    print("%d generated cases, seed %d  (%.0f s)" % (sum(total.cases.values()), seed, time.monotonic() - started))
    missing = _table(total)
    for line in differences:
        print("    " + line)
    if sum(total.cases.values()) != count:
        print("expected %d cases" % count)
        return 1
    # Of a few cases only, some results are left to chance.
    return 1 if differences or (missing and count >= DEFAULT_COUNT) else 0


def _build():
    """Where the generator is, once cargo has built it: as the tests are, so that nothing is built twice."""
    command = ["cargo", "build", "--workspace", "--locked", "--example", "generate_cases", "--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    messages = map(json.loads, built.stdout.splitlines())
    return next(m["executable"] for m in messages if m.get("target", {}).get("name") == "generate_cases" and m.get("executable"))


def _tally():
    return Tally(*(collections.Counter() for _ in Tally._fields))


def _part(arguments):
    """The share of one process: its tally, and what differs."""
    generator, *numbers = arguments
    tally, differences, scenes = _tally(), [], answers.Scenes()
    signatures = _count_signatures()
    with subprocess.Popen([generator, *map(str, numbers)], stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            case = json.loads(line)
            if "scene" in case:
                scenes.add(case)
                continue
            before = signatures[0]
            difference = _check(case, scenes, tally)
            tally.signed[case["kind"]] += signatures[0] > before
            if difference and len(differences) < SHOWN_DIFFERENCES:
                differences.append("%s, case %d: %s" % (case["kind"], case["number"], difference))
    if process.returncode:
        differences.append("the generator ended with %d" % process.returncode)
    return tally, differences


def _count_signatures():
    """A list with the number of signatures checked from now on."""
    count, verify = [0], bip340.verify

    def counted(*arguments):
        count[0] += 1
        return verify(*arguments)

    bip340.verify = counted
    return count


def _check(case, scenes, tally):
    """None, or how the answers differ."""
    kind, expected = case["kind"], case["expected"]
    tally.cases[kind] += 1
    try:
        got, results = answers.KINDS[kind].answer(case["input"], scenes)
    except Exception as error:  # a crash on a case is a failure of that case
        return "%s: %s" % (type(error).__name__, error)
    tally.accepted[kind] += any(map(answers.is_accepted, results))
    for result in results:
        tally.results[kind, result] += 1
    if got == expected:
        return None
    fields = sorted(k for k in {*got, *expected} if got.get(k) != expected.get(k))
    shown = ", ".join("%s is %s, expected %s" % (k, _short(got.get(k)), _short(expected.get(k))) for k in fields)
    return "%s, of %s" % (shown, _short(case["input"]))


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 400 else text[:400] + "…"


def _table(total):
    """Prints it; gives the results that no case had."""
    print("%-15s %7s %8s %7s %8s" % ("kind", "cases", "accepted", "signed", "results"))
    missing = []
    for name, kind in answers.KINDS.items():
        seen = {result for k, result in total.results if k == name}
        missing += ["%s: %s" % (name, result) for result in sorted(kind.results - seen)]
        print("%-15s %7d %8d %7d %8d" % (name, total.cases[name], total.accepted[name], total.signed[name], len(seen)))
    sums = [sum(counter.values()) for counter in (total.cases, total.accepted, total.signed)]
    print("%-15s %7d %8d %7d" % ("all", *sums))
    for result in missing:
        print("never: " + result, file=sys.stderr)
    return missing
