//! Where a file goes.

use crate::commands::verify::Anchor;
use crate::failure::Failure;
use crate::output::{Output, field};
use clap::Args;
use serde::{Serialize, Serializer};
use sortie::durable::{self, Access};
use sortie::primitives::RollupId;
use sortie::proof::{Anchors, File, Proven, Verdict, judge};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A file, or stdout.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Write it to this file [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long, requires = "out")]
    force: bool,
}

/// What was written, and what a checker has to know to agree.
#[derive(Serialize)]
struct Written<'a> {
    file: &'a Path,
    what: &'static str,
    rollup_id: RollupId,
    #[serde(flatten)]
    told: Told,
}

#[derive(Serialize)]
struct Told {
    verdict: &'static str,
    message: String,
    /// Beside the manifest, in the form of `sortie verify --anchor`.
    anchors: Vec<String>,
}

/// The file itself, as an answer.
struct Document(String);

impl Told {
    /// `None` of a file that shows nothing.
    fn of(verdict: &Verdict, held: &Anchors) -> Option<Self> {
        let (name, anchors) = match verdict {
            Verdict::Proven(Proven { anchors, .. }) => ("proven", Anchor::beside_manifest(anchors, held)),
            Verdict::NeedsAnchor(needed) => ("needs_anchor", vec![Anchor::wanted(needed)]),
            Verdict::NeedsNode(_) => ("needs_node", Vec::new()),
            Verdict::Refuted(_) => return None,
        };
        Some(Self { verdict: name, message: verdict.to_string(), anchors })
    }

    fn who_checks(&self) -> String {
        match &self.anchors[..] {
            [] => "needs the manifest, and nothing else".into(),
            anchors => format!("has to know {}", anchors.join(", ")),
        }
    }
}

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        field(f, "file", self.file.display())?;
        field(f, "verdict", &self.told.message)?;
        field(f, "who checks it", self.told.who_checks())
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: serde_json::Value = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        value.serialize(serializer)
    }
}

impl Target {
    /// Refuses, before any work, to write over a file.
    pub fn check(&self) -> Result<(), Failure> {
        match &self.out {
            Some(path) if !self.force && path.exists() => Err(exists(path)),
            _ => Ok(()),
        }
    }

    /// Judges a file by what its maker knows, and writes it unless it shows nothing.
    pub fn finish(&self, file: File, anchors: &Anchors, out: &Output) -> Result<(), Failure> {
        let verdict = judge(&file, anchors);
        let Some(told) = Told::of(&verdict, anchors) else {
            return Err(Failure::failed(format_args!("nothing to show; the file would be {verdict}")));
        };
        let text = file.to_json().map_err(Failure::failed)?;
        let Some(path) = &self.out else {
            out.print(&Document(text))?;
            out.note(format_args!("{}; who checks it {}", told.message, told.who_checks()));
            return Ok(());
        };
        self.write(path, &text)?;
        out.print(&Written { file: path, what: file.proof.type_name(), rollup_id: file.rollup_id, told })
    }

    /// Writes the whole file or none of it.
    fn write(&self, path: &Path, text: &str) -> Result<(), Failure> {
        let write = if self.force { durable::replace } else { durable::write_new };
        write(path, text.as_bytes(), Access::Umask).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(path),
            ErrorKind::InvalidFilename => Failure::usage(format_args!("{} is no file", path.display())),
            _ => Failure::file(path, &error),
        })
    }
}

fn exists(path: &Path) -> Failure {
    Failure::refused(format_args!(
        "{} exists already and was not touched; choose another --out, or add --force",
        path.display()
    ))
}
