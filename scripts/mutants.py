#!/usr/bin/env python3
"""Mutation testing of rooms, for `scripts/mutants.sh`: all mutants in one build, switched on one at a time.

Writes every mutant of each src/ROOM into a copy of the sources, behind `crate::mutant::of(SITE)`; drops those that do
not compile; runs each test once to see which sites it reaches; then runs, for each mutant of the shard, the tests that
reach it until one fails: first those that noticed another mutant of the same function, then the quickest. The mutants
are those of cargo-mutants: a function's value by its type, operators, match guards and arms.
"""

import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tree_sitter
import tree_sitter_rust

BINARY = {
    "==": ["!="], "!=": ["=="], "&&": ["||"], "||": ["&&"], "<": ["==", ">", "<="], ">": ["==", "<", ">="],
    "<=": [">"], ">=": ["<"], "+": ["-", "*"], "-": ["+", "/"], "*": ["+", "/"], "/": ["%", "*"], "%": ["/", "+"],
    "<<": [">>"], ">>": ["<<"], "&": ["|", "^"], "|": ["&", "^"], "^": ["|", "&"],
    "+=": ["-=", "*="], "-=": ["+=", "/="], "*=": ["+=", "/="], "|=": ["&="], "&=": ["|="], "^=": ["|="],
}
NUMBER = re.compile(r"[iu](8|16|32|64|128|size)$")
# Not mutated: what has to be constant, tests, and what the parser does not look into.
SKIPPED = {"const_item", "static_item", "attribute_item", "macro_invocation", "macro_definition", "array_type",
           "enum_item", "const_block"}
# One form for the search of what does not compile and for the tests: dependencies are built once.
BUILD = ["cargo", "test", "--no-run", "--locked", "--workspace", "--message-format=json"]
JOBS = int(os.environ.get("MUTANT_JOBS", "2"))
SWITCH = """//! Which mutant is on, and which sites are reached.
use std::{collections::BTreeSet, env, fs, io::Write, sync::{LazyLock, Mutex}};
static ON: LazyLock<u32> = LazyLock::new(|| env::var("MUTANT").ok().and_then(|n| n.parse().ok()).unwrap_or(0));
static TRACE: LazyLock<Option<Mutex<(fs::File, BTreeSet<u32>)>>> = LazyLock::new(|| {
    let file = fs::OpenOptions::new().create(true).append(true).open(env::var_os("MUTANT_TRACE")?).ok()?;
    Some(Mutex::new((file, BTreeSet::new())))
});
pub(crate) fn of(site: u32) -> u32 {
    if let Some(Ok(mut trace)) = TRACE.as_ref().map(Mutex::lock) {
        if trace.1.insert(site) {
            let _ = trace.0.write_all(format!("{site}\\n").as_bytes());
        }
    }
    *ON
}
"""


def split(text):
    """The parts of a list of types, at its commas."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "<([") - (letter in ">)]" and text[at - 1] != "-")
        if letter == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def values(kind):
    """What stands for a function's value, by its type."""
    outer, _, inner = kind.partition("<")
    outer, inner = outer.split("::")[-1], split(inner.rstrip(">") if inner.count("<") == 0 else inner[:-1])
    if kind == "()":
        return ["()"]
    if kind == "bool":
        return ["true", "false"]
    if NUMBER.match(kind):
        return ["0", "1"]
    if kind == "String":
        return ["String::new()", '"xyzzy".into()']
    if re.fullmatch(r"&('\w+ )?str", kind):
        return ['""', '"xyzzy"']
    if kind.startswith("&") or kind == "!" or "dyn " in kind:
        return []
    if kind.startswith("impl "):
        return ["std::iter::empty()"] if "Iterator" in kind else []
    if kind.startswith("("):
        parts = [values(part)[:1] for part in split(kind[1:-1])]
        return [f"({', '.join(part)})" for part in itertools.product(*parts)]
    if outer == "Option" and inner:
        return ["None", *(f"Some({value})" for value in values(inner[0]))]
    if outer == "Result" and inner:
        return [f"Ok({value})" for value in values(inner[0])]
    if outer == "Vec" and inner:
        return ["vec![]", *(f"vec![{value}]" for value in values(inner[0]))]
    return ["Default::default()"]


class Mutants:
    """The mutants of some rooms. A mutant: (number, file, line, function, what it does)."""

    def __init__(self, root, rooms):
        self.root, self.mutants, self.dropped = root, {}, set()
        parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_rust.language()))
        files = [file for room in rooms for file in sorted(root.glob(f"src/{room}/**/*.rs"))]
        self.files = {f: f.read_bytes() for f in files if "tests" not in f.relative_to(root).with_suffix("").parts}
        self.trees = {f: parser.parse(source).root_node for f, source in self.files.items()}
        self.write()

    def write(self):
        """Writes all files anew, with the mutants that are left."""
        self.next = 1
        for self.file, self.source in self.files.items():
            self.function = ""
            self.file.write_text(self.render(self.trees[self.file]))

    def raw(self, node):
        return self.source[node.start_byte:node.end_byte].decode()

    def choice(self, node, default, alternatives, form=None):
        """An expression that is `default` unless one of its mutants is on; each is (code, description)."""
        site, arms = self.next, []
        for code, what in alternatives:
            number, self.next = self.next, self.next + 1
            name = str(self.file.relative_to(self.root))
            self.mutants[number] = (number, name, node.start_point[0] + 1, self.function, what, site)
            if number not in self.dropped:
                arms.append((number, f"/*{{{number}*/{code}/*{number}}}*/"))
        if not arms:
            return default
        if form:
            return form(site, arms, default)
        arms = "".join(f"{number} => {code}, " for number, code in arms)
        return f"(match crate::mutant::of({site}) {{ {arms}_ => {default} }})"

    def children(self, node):
        text, at = "", node.start_byte
        skip = False
        for child in node.children:
            text += self.source[at:child.start_byte].decode()
            text += self.raw(child) if skip else self.render(child)
            skip = child.type == "attribute_item" and (skip or "test" in self.raw(child))
            at = child.end_byte
        return text + self.source[at:node.end_byte].decode()

    def render(self, node):
        special = getattr(self, node.type, None)
        if node.type in SKIPPED or not node.is_named:
            return self.raw(node)
        return special(node) if special else self.children(node)

    def function_item(self, node):
        modifiers = next((self.raw(c) for c in node.children if c.type == "function_modifiers"), "")
        if "const" in modifiers.split():
            return self.raw(node)
        outer, self.function = self.function, self.raw(node.child_by_field_name("name"))
        body, kind = node.child_by_field_name("body"), node.child_by_field_name("return_type")
        alternatives = [(f"return {value}", f"body `{value}`") for value in values(self.raw(kind) if kind else "()")]

        def form(site, arms, default):
            arms = "".join(f"{number} => {code}, " for number, code in arms)
            return f"{{ match crate::mutant::of({site}) {{ {arms}_ => {{}} }} {default[1:]}"

        if body.named_child_count:
            # The numbers of the body's value come first.
            before = self.next
            self.next += len(alternatives)
            default = self.children(body)
            after, self.next = self.next, before
            text = self.choice(node, default, alternatives, form)
            self.next = after
        else:
            text = self.raw(body)
        head = self.source[node.start_byte:body.start_byte].decode()
        self.function = outer
        return head + text

    def binary_expression(self, node):
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        operator = self.raw(node.child_by_field_name("operator"))
        default = f"{self.render(left)} {operator} {self.render(right)}"
        # A chain of conditions that bind; a range that the parser takes for an operand.
        if "let " in self.raw(node) and operator in ("&&", "||") or self.raw(left).endswith(".."):
            return self.children(node)
        alternatives = [(f"({self.raw(left)}) {other} ({self.raw(right)})", f"`{operator}` as `{other}`")
                        for other in BINARY.get(operator, [])]
        return self.choice(node, default, alternatives)

    compound_assignment_expr = binary_expression

    def unary_expression(self, node):
        sign, of = node.children
        if self.raw(sign) not in "!-" or of.type == "integer_literal":
            return self.children(node)
        return self.choice(node, self.raw(sign) + self.render(of), [(self.raw(of), f"without `{self.raw(sign)}`")])

    def match_block(self, node):
        arms = [child for child in node.named_children if child.type == "match_arm"]
        self.has_rest = any(self.raw(arm.child_by_field_name("pattern")) == "_" for arm in arms)
        return self.children(node)

    def match_arm(self, node):
        has_rest, pattern = self.has_rest, node.child_by_field_name("pattern")
        guard = pattern.child_by_field_name("condition")
        value = node.child_by_field_name("value")
        rest = self.source[pattern.end_byte:value.start_byte].decode()
        end = self.source[value.end_byte:node.end_byte].decode()
        if guard and "let " not in self.raw(guard):
            head = self.source[pattern.start_byte:guard.start_byte].decode()
            guard = self.choice(guard, self.render(guard), [("true", "guard `true`"), ("false", "guard `false`")])
            head += guard
        elif has_rest and not guard and self.raw(pattern) != "_":
            guard = self.choice(node, "true", [("false", f"without the arm `{self.raw(pattern)}`")])
            head = f"{self.raw(pattern)} if {guard}" if guard != "true" else self.raw(pattern)
        else:
            head = self.raw(pattern)
        text = head + rest + self.render(value) + end
        self.has_rest = has_rest
        return text

    def drop_what_fails(self, check):
        """Leaves out whatever does not compile."""
        while True:
            self.write()
            output = subprocess.run(check, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            if output.returncode == 0:
                return
            dropped = set()
            for line in output.stdout.splitlines():
                message = json.loads(line).get("message")
                if not isinstance(message, dict) or message["level"] != "error":
                    continue
                for span in message["spans"]:
                    if span["is_primary"]:
                        dropped |= self.around(self.root / span["file_name"], span["byte_start"])
            dropped -= self.dropped
            if not dropped:
                sys.exit("\n".join(json.loads(line)["message"]["rendered"] for line in output.stdout.splitlines()
                                   if json.loads(line).get("reason") == "compiler-message"))
            self.dropped |= dropped
            print(f"{len(self.dropped)} do not compile", flush=True)

    def around(self, file, at):
        """The mutant at a place of a file, or all of the smallest choice that it is in."""
        if file not in self.files:
            return set()
        text = file.read_bytes().decode()
        at = len(file.read_bytes()[:at].decode())
        for found in re.finditer(r"/\*\{(\d+)\*/", text):
            end = text.find(f"/*{found[1]}}}*/", found.end())
            if found.start() <= at <= end:
                return {int(found[1])}
        before = [int(found[1]) for found in re.finditer(r"mutant::of\((\d+)\)", text[:at])]
        left = [n for n in before if any(m[5] == n for k, m in self.mutants.items() if k not in self.dropped)]
        return {k for k, m in self.mutants.items() if left and m[5] == left[-1] and k not in self.dropped}


def run(test, programs, seconds, **env):
    """Whether a test succeeds; None if it takes longer."""
    path, folder = programs[test[0]]
    with tempfile.TemporaryDirectory(prefix="mutant", ignore_cleanup_errors=True) as temporary:
        env = {**os.environ, **env, "CARGO_MANIFEST_DIR": folder, "TMPDIR": temporary}
        process = subprocess.Popen([path, test[1], "--exact"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env=env, start_new_session=True, cwd=folder)
        try:
            return process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def build(root):
    """The programs of tests by name, and where each is run."""
    built = subprocess.run(BUILD, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    programs = {}
    for message in map(json.loads, built.stdout.splitlines()):
        # The command has the library's name, and unit tests of its own.
        if message.get("executable") and message["profile"]["test"] and "bin" not in message["target"]["kind"]:
            programs[message["target"]["name"]] = (message["executable"], str(Path(message["manifest_path"]).parent))
    return programs


def measure(root, programs, rooms, filters):
    """Each test alone, without a mutant: how long it takes, which sites it reaches. The quickest first."""
    tests = set()
    for program, prefix in [*(("sortie", f"{room}::") for room in rooms), *(("flows", prefix) for prefix in filters)]:
        command = [programs[program][0], prefix, "--list", "--format", "terse"]
        listed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        names = [line.removesuffix(": test") for line in listed if line.startswith(prefix) and line.endswith(": test")]
        tests |= {(program, name) for name in names}

    def once(test):
        with tempfile.NamedTemporaryFile() as trace:
            start = time.monotonic()
            if not run(test, programs, 60, MUTANT="0", MUTANT_TRACE=trace.name):
                print(f"left out, it fails without a mutant or takes a minute: {test[1]}", flush=True)
                return None
            return time.monotonic() - start, *test, sorted(set(map(int, Path(trace.name).read_text().split())))

    with ThreadPoolExecutor(JOBS) as pool:
        return sorted(filter(None, pool.map(once, sorted(tests))))


class Judge:
    """Tries mutants, several at a time, and remembers which tests noticed what."""

    def __init__(self, tests, programs, budget):
        self.tests, self.programs, self.budget = tests, programs, budget
        self.noticed, self.lock = Counter(), threading.Lock()

    def judge(self, mutant):
        """What becomes of a mutant, and the test that decided."""
        function, spent, outcome, by = mutant[1] + mutant[3], 0.0, "not reached", None
        reach = [test for test in self.tests if mutant[5] in test[3]]
        with self.lock:
            reach.sort(key=lambda test: (-self.noticed[function, test[2]], test[0]))
        for seconds, program, name, _ in reach:
            if spent and spent + seconds > self.budget:
                continue
            spent += seconds
            limit = 4 * seconds + 20
            passed = run((program, name), self.programs, limit, MUTANT=str(mutant[0]))
            # Where the test ends without the mutant, on the same machine at the same hour, the mutant held it up.
            if passed is None and run((program, name), self.programs, limit, MUTANT="0") is None:
                continue
            outcome = {True: "survived", False: "noticed", None: "timed out"}[passed]
            if outcome != "survived":
                by = name
                with self.lock:
                    self.noticed[function, name] += 1
                break
        return outcome, by


def draw(mutants, rooms, shards):
    """The mutants of each room's shard, the rooms in turn, and how many there are."""
    drawn, counts = [], {}
    for room, shard in zip(rooms, shards):
        n, of = map(int, shard.split("/"))
        of_room = [mutant for mutant in mutants.mutants.values() if mutant[1].startswith(f"src/{room}/")]
        of_shard = of_room[n % of::of]
        drawn.extend((at / len(of_shard), room, mutant) for at, mutant in enumerate(of_shard))
        counts[room] = {"there are": len(of_room), "drawn": len(of_shard)}
        counts[room] |= dict.fromkeys(["do not compile", "noticed", "timed out", "survived", "not reached"], 0)
    return sorted(drawn), counts


def main():
    root, filters = Path(sys.argv[1]).resolve(), sys.argv[4:]
    rooms, shards = sys.argv[2].split(","), sys.argv[3].split(",")
    shards = shards if len(shards) == len(rooms) else shards * len(rooms)
    known, sources = root / f"{sys.argv[2]}.json", hashlib.sha256()
    for file in sorted(file for part in ["src", "tests", "cli", "regtest"] for file in root.glob(f"{part}/**/*.*")):
        sources.update(file.read_bytes())
    before = json.loads(known.read_text()) if known.exists() else {}
    before = before if before.get("sources") == sources.hexdigest() else {"sources": sources.hexdigest()}

    (root / "src/mutant.rs").write_text(SWITCH)
    lib = root / "src/lib.rs"
    lib.write_text(lib.read_text() + '#[cfg(feature = "node")]\nmod mutant;\n')
    mutants = Mutants(root, rooms)
    if "dropped" not in before:
        mutants.drop_what_fails(BUILD)
        before["dropped"] = sorted(mutants.dropped)
        known.write_text(json.dumps(before))
    mutants.dropped = set(before["dropped"])
    mutants.write()
    programs = build(root)
    if "tests" not in before:
        before["tests"] = measure(root, programs, rooms, filters)
        known.write_text(json.dumps(before))
    tests = before["tests"]
    print(f"{len(tests)} tests, {sum(test[0] for test in tests):.0f} s", flush=True)

    drawn, counts = draw(mutants, rooms, shards)
    judge = Judge(tests, programs, float(os.environ.get("MUTANT_SECONDS", "60")))
    # A line for each mutant that was tried, for a run that goes on after it was stopped.
    tried, lock = root / f"{sys.argv[2]}.{sources.hexdigest()[:8]}.outcomes", threading.Lock()
    lines = tried.read_text().splitlines() if tried.exists() else []
    outcomes = {number: (outcome, by) for number, outcome, by in map(json.loads, lines)}

    def one(entry):
        _, room, mutant = entry
        number, outcome, by = str(mutant[0]), "do not compile", None
        if mutant[0] not in mutants.dropped:
            outcome, by = outcomes.get(number) or judge.judge(mutant)
        with lock:
            counts[room][outcome] += 1
            if outcome != "do not compile" and number not in outcomes:
                by_name = f" ({by})" if by else ""
                print(f"{outcome}: {number} {mutant[1]}:{mutant[2]} {mutant[3]}: {mutant[4]}{by_name}", flush=True)
                with tried.open("a") as file:
                    file.write(json.dumps([number, outcome, by]) + "\n")

    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(one, drawn))
    for room, shard in zip(rooms, shards):
        print(f"{room} {shard}: " + ", ".join(f"{what} {count}" for what, count in counts[room].items()))


if __name__ == "__main__":
    main()
