//! `sortie verify`: what a file shows to somebody who holds these anchors.
//!
//! Guarantees that no socket is opened and nothing is written: the answer follows from the file, the
//! manifest and the anchors alone.

mod anchor;
mod report;

pub use anchor::Anchor;
use report::Report;

use crate::config::Settings;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use sortie::proof::{Anchors, File, FileError, MAX_FILE, Verdict, judge};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const EXAMPLE: &str = "\
An anchor is something that you know yourself: from your own node, or from somebody whom you trust.
  bitcoin:HEIGHT:HASH                     a Bitcoin block
  bitcoin-header:HEIGHT:HEX               a Bitcoin block, by its header of 80 bytes
  l2:HASH                                 an L2 block that you have derived (see `sortie follow`)
  sequencers:HANDOVERS:THRESHOLD:KEY,...  the sequencers after that many handovers
The manifest's start block and sequencers are anchors already.

Examples:
  sortie verify forced.json --manifest rollup.toml --anchor bitcoin:850123:0000...1f2e
  sortie verify evidence.json --manifest rollup.toml --json | jq -r .verdict

Exit codes: 0 proven; 1 refuted, or it needs an anchor or a node (--json tells which); 2 not a file.";

/// Judge a proof or evidence file, offline
///
/// Says what the file shows and what that rests on: the manifest and the anchors that you give, nothing else. The
/// verdict is proven, refuted (with the reason), needs_anchor (the file hangs on something that you did not give) or
/// needs_node (no file can show it, a node can tell). Of Bitcoin headers it says how many there are and how much work
/// is behind them, where work counts: on signets and regtest it does not, and the item's own block has to be an anchor.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLE)]
pub struct Verify {
    /// The file; `-` reads it from stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Something that you know yourself, in one of the forms below; may be repeated
    #[arg(long, value_name = "ANCHOR")]
    anchor: Vec<Anchor>,
}

/// Runs the command.
pub fn run(command: &Verify, settings: &Settings, out: &Output) -> Result<(), Failure> {
    let mut anchors = Anchors::new(settings.manifest()?);
    for anchor in &command.anchor {
        anchor.add_to(&mut anchors).map_err(|error| Failure::usage(format_args!("--anchor {anchor}: {error}")))?;
    }
    let file = read_file(&command.file)?;
    let verdict = judge(&file, &anchors);
    out.print(&Report::new(&file, &verdict))?;
    match &verdict {
        Verdict::Proven(_) => Ok(()),
        Verdict::NeedsAnchor(needed) => {
            let option = Anchor::wanted(needed);
            Err(Failure::failed(format_args!("{verdict} If you know it, add --anchor {option}")))
        }
        Verdict::Refuted(_) | Verdict::NeedsNode(_) => Err(Failure::failed(&verdict)),
    }
}

/// A file, or stdin.
pub fn read_file(path: &Path) -> Result<File, Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::usage(format_args!("{}: {error}", path.display()));
    let source: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(std::fs::File::open(path).map_err(|error| bad(&error))?),
    };
    let mut bytes = Vec::new();
    // One more than a file may have: enough to see that it is too long.
    source.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(|error| bad(&error))?;
    File::from_json(&bytes).map_err(|error| match &error {
        FileError::Json(json) if json.is_syntax() || json.is_eof() => {
            bad(&"it is not JSON; give a file that `sortie prove` wrote")
        }
        _ => bad(&error),
    })
}
