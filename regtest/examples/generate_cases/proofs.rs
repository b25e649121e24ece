//! Proof files: those of the vectors and of the fuzz targets' world, with a few of their values changed.

use super::fuzz::input::Input;
use super::fuzz::proofs::edit;
use super::fuzz::seeds::{Numbers, mutate};
use super::fuzz::world::World;
use super::{Case, hex, pick};
use anyhow::Result;
use bitcoin::block::Header;
use bitcoin::hex::FromHex;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sortie::manifest::{Manifest, SequencerSet};
use sortie::primitives::{BlockRef, Hash32};
use sortie::proof::{Anchors, File, FileError, Raw, Verdict, judge};

/// Anchors, and files that hang on them.
pub struct Scene {
    name: String,
    stated: Value,
    anchors: Anchors,
    files: Vec<Value>,
}

/// As vectors state anchors.
#[derive(Deserialize)]
struct Stated {
    manifest: String,
    #[serde(default)]
    bitcoin_blocks: Vec<BlockRef>,
    #[serde(default)]
    bitcoin_headers: Vec<(u32, Raw<Header>)>,
    #[serde(default)]
    l2_blocks: Vec<Hash32>,
    #[serde(default)]
    sequencers: Vec<(u32, String)>,
}

impl Stated {
    fn anchors(&self) -> Result<Anchors> {
        let mut anchors = Anchors::new(Manifest::decode(&Vec::from_hex(&self.manifest)?)?);
        for block in &self.bitcoin_blocks {
            anchors.add_bitcoin_block(*block)?;
        }
        for (height, Raw(header)) in &self.bitcoin_headers {
            anchors.add_bitcoin_header(*height, *header)?;
        }
        self.l2_blocks.iter().for_each(|hash| anchors.add_l2_block(*hash));
        for (handovers, set) in &self.sequencers {
            anchors.add_sequencers(*handovers, read_set(&Vec::from_hex(set)?)?)?;
        }
        Ok(anchors)
    }
}

/// Reads a set from its binary form: less than 253 keys, then the threshold.
fn read_set(bytes: &[u8]) -> Result<SequencerSet> {
    let keys = bytes[1..bytes.len() - 1].chunks(32).map(bitcoin::XOnlyPublicKey::from_slice);
    Ok(SequencerSet::new(keys.collect::<Result<_, _>>()?, bytes[bytes.len() - 1])?)
}

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<VectorCase>,
}

#[derive(Deserialize)]
struct VectorCase {
    anchors: Value,
    file: Value,
}

/// Every set of anchors that there is, with its files; those of the world first.
pub fn scenes(world: &World) -> Result<Vec<Scene>> {
    let text = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/proof.json"))?;
    let Vectors { cases } = serde_json::from_slice(&text)?;
    let files = world.files().iter().map(|file| Ok(serde_json::from_str(&file.to_json()?)?)).collect::<Result<_>>()?;
    let mut scenes = vec![scene(0, anchors_of(world)?, files)?];
    for VectorCase { anchors, file } in cases {
        match scenes.iter_mut().find(|scene| scene.stated == anchors) {
            Some(scene) => scene.files.push(file),
            None => scenes.push(scene(scenes.len(), anchors, vec![file])?),
        }
    }
    Ok(scenes)
}

fn scene(number: usize, stated: Value, files: Vec<Value>) -> Result<Scene> {
    let anchors = Stated::deserialize(&stated)?.anchors()?;
    Ok(Scene { name: format!("anchors {number}"), stated, anchors, files })
}

/// All that there is to know about a world.
fn anchors_of(world: &World) -> Result<Value> {
    let start = world.manifest.start.height;
    let headers: Vec<_> = (start + 1..).zip(&world.blocks).map(|(height, block)| (height, Raw(block.header))).collect();
    let mut set = Vec::new();
    SequencerSet::new(world.guilty_keys(), 1)?.write(&mut set);
    Ok(json!({
        "manifest": hex(world.manifest.encode()),
        "bitcoin_headers": headers,
        "l2_blocks": world.chain().iter().map(|block| block.hash).collect::<Vec<_>>(),
        "sequencers": [(1, hex(set))],
    }))
}

impl Scene {
    pub fn line(&self) -> Value {
        json!({ "scene": self.name, "anchors": self.stated })
    }

    /// The question what a file is worth to who holds these anchors.
    pub fn ask(&self, file: String) -> Case {
        let (result, signers) = answer(&file, &self.anchors);
        Case {
            input: json!({ "anchors": self.name, "file": file }),
            expected: json!({ "result": result, "signers": signers }),
        }
    }
}

/// A file, as it is or changed in one place or a few.
pub fn proof(numbers: &mut Numbers, scenes: &[Scene]) -> Case {
    let mut at = numbers.below(scenes.iter().map(|scene| scene.files.len()).sum());
    let mut of = 0;
    while at >= scenes[of].files.len() {
        at -= scenes[of].files.len();
        of += 1;
    }
    let files = &scenes[of].files;
    let mut file = files[at].clone();
    for _ in 0..pick(numbers, &[0, 0, 0, 1, 1, 1, 1, 2, 3]) {
        let donor = numbers.below(files.len());
        change(numbers, &mut file, &files[donor]);
    }
    let mut text = file.to_string().into_bytes();
    match numbers.below(60) {
        0 => mutate(numbers, &mut text, &[]),
        1 => text = [&b"{\"version\":1,"[..], &text[1..]].concat(),
        2 => text.extend(b" "),
        _ => {}
    }
    scenes[of].ask(String::from_utf8_lossy(&text).into_owned())
}

fn change(numbers: &mut Numbers, file: &mut Value, donor: &Value) {
    match numbers.below(16) {
        0 => edit(file, donor, &mut Input::new(&numbers.bytes(24))),
        1 | 2 => {
            if let Some(fields) = any_object(numbers, file) {
                fields_changed(numbers, fields);
            }
        }
        _ => {
            if let (Some(proof), Some(donor)) = (file.get_mut("proof"), donor.get("proof")) {
                edit(proof, donor, &mut Input::new(&numbers.bytes(24)));
            }
        }
    }
}

/// An object somewhere in a file.
fn any_object<'a>(numbers: &mut Numbers, value: &'a mut Value) -> Option<&'a mut Map<String, Value>> {
    let is_inner =
        |value: &Value| value.is_object() || value.as_array().is_some_and(|list| list.iter().any(Value::is_object));
    let inner: Vec<_> = match &*value {
        Value::Object(fields) => {
            fields.iter().filter(|(_, value)| is_inner(value)).map(|(name, _)| name.clone()).collect()
        }
        _ => Vec::new(),
    };
    let here = numbers.below(4) == 0;
    match value {
        Value::Object(fields) => match inner.get(numbers.below(inner.len())) {
            Some(name) if !here => any_object(numbers, fields.get_mut(name)?),
            _ => Some(fields),
        },
        Value::Array(values) if !values.is_empty() => {
            let at = numbers.below(values.len());
            any_object(numbers, &mut values[at])
        }
        _ => None,
    }
}

/// A field less, one too many, or one of another form.
fn fields_changed(numbers: &mut Numbers, fields: &mut Map<String, Value>) {
    let names: Vec<_> = fields.keys().cloned().collect();
    let Some(name) = names.get(numbers.below(names.len())) else { return };
    let value = fields[name].clone();
    match numbers.below(6) {
        0 => drop(fields.remove(name)),
        1 => drop(fields.insert("more".into(), 1.into())),
        2 => drop(fields.insert(name.clone(), Value::Null)),
        3 => drop(fields.insert(name.clone(), json!([value]))),
        _ => {
            let other = match value {
                Value::String(text) => text.to_uppercase().into(),
                Value::Number(number) => json!(number.as_f64()),
                other => other,
            };
            fields.insert(name.clone(), other);
        }
    }
}

/// The verdict's name, and who signed if somebody is said to have.
fn answer(text: &str, anchors: &Anchors) -> (String, Value) {
    let verdict = match File::from_json(text.as_bytes()) {
        Ok(file) => judge(&file, anchors),
        Err(error) => {
            let what = match error {
                FileError::TooLong(_) => "too_long",
                FileError::Json(_) => "json",
                FileError::Type(_) => "type",
                FileError::Version(_) => "version",
            };
            return (format!("unreadable/{what}"), Value::Null);
        }
    };
    let shown = serde_json::to_value(&verdict).expect("a verdict is plain data");
    let detail = match verdict {
        Verdict::Proven(_) => "fact",
        Verdict::Refuted(_) => "reason",
        Verdict::NeedsAnchor(_) => "anchor",
        Verdict::NeedsNode(_) => "why",
    };
    let text = |field: &str| shown[field].as_str().expect("a name").to_string();
    let mut signers = shown.get("signers").cloned().unwrap_or_default();
    if let Some(signers) = signers.as_array_mut() {
        signers.sort_by_key(Value::to_string);
    }
    (format!("{}/{}", text("verdict"), text(detail)), signers)
}
