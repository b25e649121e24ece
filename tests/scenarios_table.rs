//! `docs/SCENARIOS.md` says which test keeps which scenario's promise; this keeps the document true.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const SCENARIOS: u32 = 52;
/// Where tests are.
const SOURCES: [&str; 4] = ["src", "cli/src", "regtest/src", "tests"];
/// Files that are there for scenarios: each of their tests has a place in the table.
const SCENARIO_FILES: [&str; 13] = [
    "src/core/derive/tests/branches.rs",
    "src/core/derive/tests/censorship.rs",
    "src/core/derive/tests/invalid.rs",
    "src/core/derive/tests/limits.rs",
    "src/core/derive/tests/order.rs",
    "src/core/derive/tests/outage.rs",
    "tests/hostile_sequencer.rs",
    "tests/hostile_source.rs",
    "tests/scenarios_flows.rs",
    "tests/scenarios_follower.rs",
    "tests/scenarios_service.rs",
    "regtest/src/hostile/tests.rs",
    "src/core/derive/tests/silence.rs",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// The names of the functions under `#[test]`, other attributes between them or not.
fn tests_of(source: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        marked |= line == "#[test]";
        if let Some((_, rest)) = line.split_once("fn ").filter(|_| marked && !line.starts_with("//")) {
            names.extend(rest.split('(').next().map(str::to_owned));
            marked = false;
        }
    }
    names
}

/// What stands between back quotes and could be the name of a test.
fn quoted(text: &str) -> BTreeSet<String> {
    let is_name = |text: &&str| {
        text.contains('_') && text.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    };
    text.split('`').skip(1).step_by(2).filter(is_name).map(str::to_owned).collect()
}

#[test]
fn every_scenario_has_a_test_that_exists_or_a_reason_why_not() -> Result<()> {
    let document = fs::read_to_string(repository().join("docs/SCENARIOS.md"))?;
    let mut rows = BTreeMap::new();
    let mut named = BTreeSet::new();
    for line in document.lines() {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells.first().and_then(|first| first.parse::<u32>().ok()) {
            Some(number) => {
                ensure!(cells.len() == 4, "row {number} has {} cells", cells.len());
                ensure!(rows.insert(number, (cells[2].to_owned(), cells[3].to_owned())).is_none(), "{number} twice");
                // The second cell has other people's names.
                named.extend(quoted(&cells[2..].concat()));
            }
            None => named.extend(quoted(line)),
        }
    }
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), (1..=SCENARIOS).collect::<Vec<_>>());
    for (number, (test, hostile)) in &rows {
        ensure!(!quoted(test).is_empty() || test.starts_with("does not apply: "), "{number}: neither test nor reason");
        ensure!(!quoted(hostile).is_empty() || hostile.starts_with("the same test"), "{number}: no hostile variant");
    }

    let mut files = Vec::new();
    for folder in SOURCES {
        rust_files(&repository().join(folder), &mut files)?;
    }
    let mut existing = BTreeSet::new();
    for file in files {
        existing.extend(tests_of(&fs::read_to_string(file)?));
    }
    let missing: Vec<_> = named.iter().filter(|name| !existing.contains(*name)).collect();
    assert!(missing.is_empty(), "named in docs/SCENARIOS.md, but no test: {missing:#?}");
    for file in SCENARIO_FILES {
        let tests = tests_of(&fs::read_to_string(repository().join(file))?);
        ensure!(!tests.is_empty(), "{file} has no test");
        let unnamed: Vec<_> = tests.iter().filter(|name| !named.contains(*name)).collect();
        assert!(unnamed.is_empty(), "tests in {file} that docs/SCENARIOS.md does not name: {unnamed:#?}");
    }
    Ok(())
}

#[test]
fn a_test_is_found_by_its_attribute_and_a_name_by_its_quotes() {
    let source = "#[test]\nfn one() {}\nfn helper() {}\n#[test]\n#[ignore = \"why\"]\nfn two() -> Result<()> {}\n// #[test] fn three() {}";
    assert_eq!(tests_of(source), ["one", "two"].map(str::to_owned).into());
    assert_eq!(
        quoted("`a_test`, not_this, `Nor This`, `src/no.rs`, `other_1`"),
        ["a_test", "other_1"].map(str::to_owned).into()
    );
}
