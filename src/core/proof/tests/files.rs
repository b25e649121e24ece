//! Files as text: one form, read within bounds, and never a panic.

use super::*;
use proptest::prelude::*;
use serde_json::json;

pub(super) fn error_name(error: &FileError) -> &'static str {
    match error {
        FileError::TooLong(_) => "too_long",
        FileError::Json(_) => "json",
        FileError::Type(_) => "type",
        FileError::Version(_) => "version",
    }
}

/// One good file of each type.
fn samples() -> Vec<Case> {
    let mut samples: Vec<Case> = Vec::new();
    for case in vectors::all_cases() {
        let is_new = |known: &Case| known.file["type"] != case.file["type"];
        if case.verdict.starts_with("proven") && samples.iter().all(is_new) {
            samples.push(case);
        }
    }
    assert_eq!(samples.len(), 7, "a file of every type");
    samples
}

/// Every object in a file, by its path.
fn objects(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| objects(field, format!("{path}/{name}"), found));
            found.push(path);
        }
        Value::Array(entries) => {
            entries.iter().enumerate().for_each(|(at, entry)| objects(entry, format!("{path}/{at}"), found));
        }
        _ => {}
    }
}

pub(super) fn cases() -> Vec<Case> {
    let world = World::example();
    let good = samples().swap_remove(0);
    let changed = |name: &str, error: &str, change: &dyn Fn(&mut Value)| {
        let mut file = good.file.clone();
        change(&mut file);
        let verdict = format!("unreadable/{error}");
        Case { name: format!("file: {name}"), anchors: world.anchors(), file, verdict }
    };
    vec![
        changed("another version", "version", &|file| file["version"] = json!(2)),
        changed("version 0", "version", &|file| file["version"] = json!(0)),
        changed("a version in words", "json", &|file| file["version"] = json!("1")),
        changed("another version with fields that are not known", "version", &|file| {
            file["version"] = json!(2);
            file["proof"] = json!({ "new": true });
        }),
        changed("another type", "type", &|file| file["type"] = json!("forged")),
        changed("no type", "json", &|file| drop(file.as_object_mut().unwrap().remove("type"))),
        changed("no version", "json", &|file| drop(file.as_object_mut().unwrap().remove("version"))),
        changed("no rollup", "json", &|file| drop(file.as_object_mut().unwrap().remove("rollup_id"))),
        changed("a rollup id of 31 bytes", "json", &|file| file["rollup_id"] = json!("00".repeat(31))),
        changed("another type's fields", "json", &|file| file["type"] = json!("included")),
        changed("a negative height", "json", &|file| file["proof"]["height"] = json!(-1)),
        changed("a height past 32 bits", "json", &|file| file["proof"]["height"] = json!(1u64 << 32)),
        changed("a height as a fraction", "json", &|file| file["proof"]["height"] = json!(101.0)),
        changed("a header of 79 bytes", "json", &|file| file["proof"]["headers"]["raw"][0] = json!("00".repeat(79))),
        changed("a header of 81 bytes", "json", &|file| file["proof"]["headers"]["raw"][0] = json!("00".repeat(81))),
        changed("half a byte", "json", &|file| file["proof"]["inclusion"]["coinbase"] = json!("0")),
        changed("a transaction with a byte behind it", "json", &|file| {
            let raw = file["proof"]["inclusion"]["transaction"].as_str().unwrap();
            file["proof"]["inclusion"]["transaction"] = json!(format!("{raw}00"));
        }),
        changed("a place without an index", "json", &|file| file["proof"]["place"] = json!("00".repeat(32) + ":in")),
        changed("a list in place of the file", "json", &|file| *file = json!([file.clone()])),
    ]
}

#[test]
fn what_is_not_a_file_of_this_version_is_not_judged() {
    check(&cases());
}

#[test]
fn a_field_too_many_or_too_few_is_refused_wherever_it_stands() {
    for Case { file, .. } in samples() {
        let mut paths = Vec::new();
        objects(&file, String::new(), &mut paths);
        for path in &paths {
            let mut more = file.clone();
            more.pointer_mut(path).unwrap()["note"] = json!(1);
            let more = File::from_json(more.to_string().as_bytes());
            assert!(matches!(more, Err(FileError::Json(_))), "{} with {path}/note", file["type"]);
            let names: Vec<_> = file.pointer(path).unwrap().as_object().unwrap().keys().cloned().collect();
            for name in names.iter().filter(|name| !["old_block", "new_block"].contains(&name.as_str())) {
                let mut less = file.clone();
                less.pointer_mut(path).unwrap().as_object_mut().unwrap().remove(name);
                let less = File::from_json(less.to_string().as_bytes());
                assert!(matches!(less, Err(FileError::Json(_))), "{} without {path}/{name}", file["type"]);
            }
        }
    }
}

#[test]
fn a_file_is_read_as_it_was_written_in_any_order_of_fields() {
    for Case { file, name, .. } in vectors::all_cases() {
        let Ok(read) = File::from_json(file.to_string().as_bytes()) else { continue };
        let text = read.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), file, "{name}");
        assert_eq!(File::from_json(text.as_bytes()).unwrap(), read, "{name}");
        let proof = serde_json::to_string(&file["proof"]).unwrap();
        let backwards = format!(
            r#"{{"proof": {proof}, "rollup_id": {}, "version": 1, "type": {}}}"#,
            file["rollup_id"], file["type"]
        );
        assert_eq!(File::from_json(backwards.as_bytes()).unwrap(), read, "{name}");
    }
}

#[test]
fn too_long_a_file_is_not_even_parsed() {
    let spaces = vec![b' '; MAX_FILE + 1];
    assert!(matches!(File::from_json(&spaces), Err(FileError::TooLong(len)) if len == MAX_FILE + 1));
    assert!(matches!(File::from_json(&spaces[1..]), Err(FileError::Json(_))));
    assert!(matches!(File::from_json(&b"[".repeat(100_000)), Err(FileError::Json(_))), "a deep nesting");
}

#[test]
fn a_file_that_nobody_could_read_is_not_written() {
    use crate::proof::file::within_limit;
    assert!(within_limit(" ".repeat(MAX_FILE)).is_ok());
    assert!(matches!(within_limit(" ".repeat(MAX_FILE + 1)), Err(FileError::TooLong(_))));
}

#[test]
fn duplicate_fields_are_refused() {
    let Case { file, .. } = samples().swap_remove(0);
    let text = file.to_string();
    for (field, twice) in
        [("\"version\":1", "\"version\":1,\"version\":1"), ("\"place\":", "\"place\":\"\",\"place\":")]
    {
        let changed = text.replacen(field, twice, 1);
        assert_ne!(changed, text);
        assert!(matches!(File::from_json(changed.as_bytes()), Err(FileError::Json(_))), "{field}");
    }
}

#[test]
fn anchors_that_contradict_each_other_are_refused() {
    let world = World::example();
    let (a, b) = (world.origin(101).block, world.origin(102).block);
    let other_set = crate::manifest::tests::signers::Signers::new([9], 1).set();
    let mut anchors = Anchors::new(world.manifest.clone());
    assert_eq!(anchors.add_bitcoin_block(a), Ok(()));
    assert_eq!(anchors.add_bitcoin_block(a), Ok(()));
    let moved = BlockRef { height: 102, ..a };
    let replaced = BlockRef { hash: b.hash, ..a };
    let other_start = BlockRef { hash: b.hash, ..world.manifest.start };
    for block in [moved, replaced, other_start] {
        assert_eq!(anchors.add_bitcoin_block(block), Err(ConflictingAnchors::Bitcoin(block)));
    }
    assert_eq!(anchors.add_bitcoin_block(b), Ok(()), "a refused anchor leaves nothing behind");
    assert_eq!(anchors.add_bitcoin_header(101, world.block(101).header), Ok(()));
    assert_eq!(anchors.add_bitcoin_block(a), Ok(()));
    assert_eq!(anchors.bitcoin_header(101), Some(&world.block(101).header));
    assert!(anchors.add_bitcoin_header(101, world.block(102).header).is_err());
    assert_eq!(anchors.add_sequencers(0, world.signers.set()), Ok(()));
    assert_eq!(anchors.add_sequencers(0, other_set.clone()), Err(ConflictingAnchors::Sequencers { handovers: 0 }));
    assert_eq!(anchors.add_sequencers(1, other_set.clone()), Ok(()));
    assert_eq!(anchors.sequencers(1), Some(&other_set));
}

/// Numbers and hex strings of a file, which a hostile writer chooses.
fn leaves(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, field)| leaves(field, format!("{path}/{name}"), found)),
        Value::Array(entries) => {
            entries.iter().enumerate().for_each(|(at, entry)| leaves(entry, format!("{path}/{at}"), found));
            found.push(path);
        }
        _ => found.push(path),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn no_file_makes_the_judge_panic(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u64>()), 1..4),
    ) {
        static CASES: std::sync::LazyLock<Vec<Case>> = std::sync::LazyLock::new(vectors::all_cases);
        let Case { mut file, anchors, .. } = which.get(&CASES).clone();
        for (place, at, number) in changes {
            let mut paths = Vec::new();
            leaves(&file["proof"], "/proof".into(), &mut paths);
            let Some(field) = file.pointer_mut(&paths[place.index(paths.len())]) else { continue };
            match field {
                Value::Number(old) => {
                    let old = old.as_u64().unwrap_or_default();
                    let numbers = [0, 1, old.wrapping_add(1), old.wrapping_sub(1), u64::from(u32::MAX), u64::MAX, number];
                    *field = json!(at.get(&numbers));
                }
                Value::String(text) if text.len() > 1 => {
                    let at = at.index(text.len());
                    text.replace_range(at..=at, &format!("{:x}", number % 16));
                }
                Value::Array(entries) if !entries.is_empty() => {
                    let entry = entries[at.index(entries.len())].clone();
                    if number % 2 == 0 { entries.push(entry) } else { drop(entries.remove(at.index(entries.len()))) }
                }
                _ => {}
            }
        }
        if let Ok(file) = File::from_json(file.to_string().as_bytes()) {
            let _ = std::format!("{}", judge(&file, &anchors.anchors()));
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        static TEXTS: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| {
            samples().into_iter().map(|case| case.file.to_string()).collect()
        });
        let mut bytes = which.get(&TEXTS).clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = File::from_json(&bytes);
        let _ = File::from_json(&bytes[..cut.index(bytes.len())]);
    }
}
