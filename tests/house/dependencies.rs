//! What a build brings along, held against `deny.toml`: `cargo deny` reads the same lists where it is installed.

use super::sources::repository;
use anyhow::{Result, ensure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

#[derive(Deserialize)]
struct Lists {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
struct Skip {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
}

/// Every package of the lock file that some target of ours can reach.
fn packages() -> Result<Vec<Package>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(repository())
        .output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice::<Metadata>(&output.stdout)?.packages)
}

fn lists() -> Result<Lists> {
    Ok(toml::from_str(&std::fs::read_to_string(repository().join("deny.toml"))?)?)
}

/// Packages of which no alternative of their licence is on the list.
pub fn unlicensed() -> Result<Vec<String>> {
    let allowed = lists()?.licenses.allow;
    let fits = |expression: &str| {
        expression
            .replace(['(', ')'], "")
            .replace('/', " OR ")
            .split(" OR ")
            .any(|choice| choice.split(" AND ").all(|name| allowed.contains(name.trim())))
    };
    let refused = packages()?.into_iter().filter(|package| !package.license.as_deref().is_some_and(fits));
    Ok(refused
        .map(|package| format!("{} {}: {}", package.name, package.version, package.license.unwrap_or_default()))
        .collect())
}

/// Packages in several versions without a reason on the list, and reasons for packages that are there once.
pub fn duplicates() -> Result<Vec<String>> {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages()? {
        versions.entry(package.name).or_default().insert(package.version);
    }
    let mut reasons = BTreeMap::new();
    for skip in lists()?.bans.skip {
        ensure!(!skip.reason.is_empty(), "deny.toml: {} is skipped without a reason", skip.name);
        reasons.insert(skip.name, skip.reason);
    }
    let several = |name: &String| versions.get(name).is_some_and(|versions| versions.len() > 1);
    let unexplained = versions.iter().filter(|(name, _)| several(name) && !reasons.contains_key(*name));
    let mut found: Vec<_> = unexplained.map(|(name, versions)| format!("{name} in versions {versions:?}")).collect();
    found.extend(reasons.keys().filter(|name| !several(name)).map(|name| format!("{name} is skipped for nothing")));
    Ok(found)
}
