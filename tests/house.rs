//! The floors of the house: who may import whom, how large files and functions are, how wide lines are,
//! and what a build brings along. `docs/ARCHITECTURE.md` has the table of imports that is kept here.

mod house {
    pub mod dependencies;
    pub mod imports;
    pub mod sources;
}

use anyhow::{Result, ensure};
use house::sources::{Source, library, repository, workspace};
use std::collections::{BTreeMap, BTreeSet};

const MOST_LINES: usize = 800;
const USUAL_LINES: usize = 400;
/// A function fits a screen or two; a longer one hides a second function.
const MOST_FUNCTION_LINES: usize = 100;
const WIDEST_DOC_LINE: usize = 120;
const MOST_README_LINES: usize = 130;

/// Type names that two rooms of the library still define. The list only shrinks: each goes when its room is rebuilt.
const SHARED_NAMES: &[&str] = &[
    "Budget", "Executor", "Fate", "History", "Included", "Key", "Limits", "Next", "Outcome", "Path", "Payment",
    "Place", "Policy", "Refusal", "Spent", "State", "Status", "Terms", "Verdict", "Waiting", "Written",
];

/// Files whose strings still name options or commands. The list only shrinks: advice moves to cli/src/mend.rs.
const ADVISING: &[&str] = &[
    "src/publish/bump.rs",
    "src/publish/deadline.rs",
    "src/publish/error.rs",
    "src/publish/fees.rs",
    "src/publish/reclaim.rs",
    "src/publish/recover.rs",
    "src/wallet/fee.rs",
];

#[test]
fn rooms_import_exactly_what_the_architecture_allows() -> Result<()> {
    let text = std::fs::read_to_string(repository().join("docs/ARCHITECTURE.md"))?;
    let allowed = house::imports::table(&text)?;
    let found = house::imports::found(&library()?)?;
    let rooms: BTreeSet<_> = allowed.keys().chain(found.keys()).collect();
    let none = BTreeSet::new();
    let mut complaints = Vec::new();
    for room in rooms {
        let (allowed, found) = (allowed.get(room).unwrap_or(&none), found.get(room).unwrap_or(&none));
        complaints.extend(found.difference(allowed).map(|other| format!("{room} imports {other}: not in the table")));
        complaints.extend(allowed.difference(found).map(|other| format!("{room} no longer imports {other}")));
    }
    ensure!(complaints.is_empty(), "docs/ARCHITECTURE.md, who may import whom:\n{}", complaints.join("\n"));
    Ok(())
}

#[test]
fn files_and_functions_stay_small() -> Result<()> {
    let sources = workspace()?;
    let mut complaints = Vec::new();
    for source in &sources {
        let lines = source.text.lines().count();
        if lines > MOST_LINES {
            complaints.push(format!("{}: {lines} lines, at most {MOST_LINES}", source.path));
        }
        for (name, lines) in source.functions() {
            if lines > MOST_FUNCTION_LINES && !source.is_test() {
                complaints.push(format!("{}: {name} has {lines} lines, at most {MOST_FUNCTION_LINES}", source.path));
            }
        }
    }
    let long = sources.iter().filter(|source| source.text.lines().count() > USUAL_LINES).count();
    ensure!(long * 10 <= sources.len(), "{long} of {} files have more than {USUAL_LINES} lines", sources.len());
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

#[test]
fn documentation_lines_fit_the_width_of_the_code() -> Result<()> {
    let wide = |source: &Source| {
        let doc = |line: &str| line.trim_start().starts_with("//") && line.chars().count() > WIDEST_DOC_LINE;
        let lines = source.text.lines().enumerate().filter(|(_, line)| doc(line));
        lines.map(|(at, _)| format!("{}:{}", source.path, at + 1)).collect::<Vec<_>>()
    };
    let found: Vec<_> = workspace()?.iter().flat_map(wide).collect();
    ensure!(found.is_empty(), "comments wider than {WIDEST_DOC_LINE} columns: {}", found.join(", "));
    Ok(())
}

#[test]
fn a_type_has_a_name_of_its_own() -> Result<()> {
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in library()? {
        let Some(room) = source.room() else { continue };
        for name in source.types() {
            rooms.entry(name).or_default().insert(room.clone());
        }
    }
    rooms.retain(|_, rooms| rooms.len() > 1);
    let known: BTreeSet<_> = SHARED_NAMES.iter().map(|name| (*name).to_owned()).collect();
    let shared: BTreeSet<_> = rooms.keys().cloned().collect();
    let of = |name: &String| format!("{name} in {}", rooms[name].iter().cloned().collect::<Vec<_>>().join(", "));
    let mut complaints: Vec<_> = shared.difference(&known).map(of).collect();
    complaints.extend(known.difference(&shared).map(|name| format!("{name} is no longer shared")));
    ensure!(complaints.is_empty(), "type names defined in two rooms: {}", complaints.join("; "));
    Ok(())
}

/// Whether a text names an option or a command of this command line.
fn advises(text: &str) -> bool {
    let is_option = |at: usize| {
        let (before, after) = (text[..at].chars().next_back(), text[at + 2..].chars().next());
        !before.is_some_and(|c| c == '-' || c.is_alphanumeric()) && after.is_some_and(|c| c.is_ascii_lowercase())
    };
    text.contains("`sortie") || text.match_indices("--").any(|(at, _)| is_option(at))
}

#[test]
fn the_library_gives_facts_and_the_command_advice() -> Result<()> {
    let mut advising = BTreeMap::new();
    for source in library()? {
        let found = source.strings().into_iter().filter(|(_, text)| advises(text));
        let lines: Vec<_> = found.map(|(line, _)| line.to_string()).collect();
        if !lines.is_empty() {
            advising.insert(source.path.clone(), lines.join(", "));
        }
    }
    let known: BTreeSet<_> = ADVISING.iter().map(|path| (*path).to_owned()).collect();
    let unknown = advising.iter().filter(|(path, _)| !known.contains(*path));
    let mut complaints: Vec<_> = unknown.map(|(path, lines)| format!("{path}: lines {lines}")).collect();
    let cured = known.iter().filter(|path| !advising.contains_key(*path));
    complaints.extend(cured.map(|path| format!("{path} no longer gives advice")));
    ensure!(complaints.is_empty(), "advice belongs to cli/src/mend.rs: {}", complaints.join("; "));
    Ok(())
}

#[test]
fn advice_is_found_in_literals_macros_and_attributes_but_not_in_documentation_or_tests() -> Result<()> {
    const FILE: &str = r#"
        /// `sortie force --wallet X` calls it.
        #[derive(Debug, Error)]
        enum E {
            /// None.
            #[error("none; say --fee-rate")]
            A,
        }
        const HINT: &str = "run `sortie resume`";
        fn f() { let _ = format!("{}", vec!["or --again"].len()); }
        fn g() { ("-rpcallowip", "a -- b", "-----BEGIN", "sortie.toml", "SELECT 1 --"); }
        #[cfg(test)]
        mod tests { fn t() { let _ = "--json"; } }
    "#;
    let source = Source::parse("src/e.rs".into(), FILE.into())?;
    let found: Vec<_> = source.strings().into_iter().filter(|(_, text)| advises(text)).map(|(_, text)| text).collect();
    ensure!(found == ["none; say --fee-rate", "run `sortie resume`", "or --again"], "{found:?}");
    Ok(())
}

#[test]
fn every_licence_is_one_that_we_accept() -> Result<()> {
    let refused = house::dependencies::unlicensed()?;
    ensure!(refused.is_empty(), "deny.toml does not allow: {}", refused.join("; "));
    Ok(())
}

#[test]
fn a_package_comes_in_two_versions_only_for_a_reason() -> Result<()> {
    let found = house::dependencies::duplicates()?;
    ensure!(found.is_empty(), "deny.toml, bans.skip: {}", found.join("; "));
    Ok(())
}

#[test]
fn the_readme_can_be_read_at_once() -> Result<()> {
    let lines = std::fs::read_to_string(repository().join("README.md"))?.lines().count();
    ensure!(lines <= MOST_README_LINES, "README.md has {lines} lines, at most {MOST_README_LINES}");
    Ok(())
}
