//! Proof files: whatever the bytes, a verdict; and never one that convicts who kept the rules.

use super::input::Input;
use super::world::World;
use bitcoin::XOnlyPublicKey;
use serde_json::Value;
use sortie::proof::{Anchors, Fact, File, Level, Proven, QueueLeaf, RawBytes, Verdict, judge};
use std::sync::LazyLock;

/// Edits to one file.
const MAX_EDITS: usize = 6;

struct Scene {
    world: World,
    anchors: Anchors,
    guilty: Vec<XOnlyPublicKey>,
    files: Vec<Value>,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let world = World::example();
    let anchors = world.anchors();
    let guilty = world.guilty_keys();
    let files: Vec<_> = world.files().iter().map(|file| file.to_json().expect("a short file")).collect();
    for file in &files {
        let verdict = judge(&File::from_json(file.as_bytes()).expect("a file"), &anchors);
        assert!(matches!(verdict, Verdict::Proven(_)), "{verdict} by {file}");
    }
    let files = files.iter().map(|file| serde_json::from_str(file).expect("JSON")).collect();
    Scene { world, anchors, guilty, files }
});

/// The texts of one proven file of every kind.
pub fn examples() -> Vec<String> {
    SCENE.files.iter().map(Value::to_string).collect()
}

/// A file's text as it comes, or a proven file of any kind with some of its values changed.
pub fn proof(data: &[u8]) {
    let scene = &*SCENE;
    let mut input = Input::new(data);
    if input.byte() >= 0x20 {
        return check(scene, data);
    }
    let mut file = scene.files[input.below(scene.files.len())].clone();
    for _ in 0..MAX_EDITS {
        if input.is_empty() {
            break;
        }
        let donor = &scene.files[input.below(scene.files.len())];
        edit(&mut file, donor, &mut input);
    }
    check(scene, file.to_string().as_bytes());
}

fn check(scene: &Scene, text: &[u8]) {
    let Ok(file) = File::from_json(text) else { return };
    let again = file.to_json().expect("not longer than what was read");
    assert_eq!(File::from_json(again.as_bytes()).ok().as_ref(), Some(&file), "a second meaning");
    let verdict = judge(&file, &scene.anchors);
    serde_json::to_string(&verdict).expect("a verdict is plain data");
    let _ = verdict.to_string();
    if let Verdict::Proven(Proven { fact, .. }) = verdict {
        check_fact(scene, &fact);
    }
}

/// What is proven is true in the one world that there is.
fn check_fact(Scene { world, guilty, .. }: &Scene, fact: &Fact) {
    let is_item = |leaf: &QueueLeaf| world.items.iter().any(|item| QueueLeaf::from(item) == *leaf);
    let are_guilty = |signers: &[XOnlyPublicKey]| {
        assert!(!signers.is_empty() && signers.iter().all(|key| guilty.contains(key)), "an honest signer is convicted");
    };
    match fact {
        Fact::Forced { leaf, tx: RawBytes(tx), .. } => {
            let mut items = world.items.iter();
            assert!(items.any(|item| QueueLeaf::from(item) == *leaf && item.tx == *tx), "no such item");
        }
        Fact::Included { level: Level::Derived, index, leaf, .. } => {
            assert!(is_item(leaf), "no such item");
            assert_eq!(QueueLeaf::from(&world.items[*index as usize]), *leaf);
        }
        // What a threshold of liars claims need not be true.
        Fact::Included { level: Level::Claimed, .. } => {}
        Fact::Consistent { old, new, .. } => {
            if world.tree.head(new.size).as_ref() == Some(new) {
                assert_eq!(world.tree.head(old.size).as_ref(), Some(old), "not how the queue began");
            }
        }
        Fact::Censored { signers, item, .. } => {
            are_guilty(signers);
            assert!(item.as_ref().is_none_or(is_item), "no such item");
        }
        Fact::Equivocation { signers, .. }
        | Fact::ConflictingState { signers, .. }
        | Fact::BrokenReceipt { signers, .. } => are_guilty(signers),
    }
}

/// Changes one value somewhere in a file, perhaps to one of another file.
pub fn edit(value: &mut Value, donor: &Value, input: &mut Input<'_>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let at = input.below(fields.len());
            if let Some((name, value)) = fields.iter_mut().nth(at) {
                let donor = donor.get(name).unwrap_or(donor);
                edit(value, donor, input);
            }
        }
        Value::Array(values) if !values.is_empty() => {
            let at = input.below(values.len().min(256));
            match input.below(6) {
                0 => drop(values.remove(at)),
                1 => values.insert(at, values[at].clone()),
                2 => values.reverse(),
                _ => edit(&mut values[at], donor.get(at).unwrap_or(donor), input),
            }
        }
        Value::String(text) => {
            let at = input.below(256) % text.len().max(1);
            match input.below(4) {
                0 => *value = donor.clone(),
                1 => text.truncate(at & !1),
                _ if text.is_char_boundary(at + 1) && at < text.len() => {
                    text.replace_range(at..=at, ["0", "1", "7", "8", "f"][input.below(5)]);
                }
                _ => text.push_str("00"),
            }
        }
        Value::Number(number) => {
            let shift = input.below(64);
            let near = number.as_u64().unwrap_or_default().wrapping_add(u64::from(input.byte())).wrapping_sub(1);
            *value = if input.flip() { near.into() } else { (input.u64() >> shift).into() };
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => *value = donor.clone(),
    }
}
