//! A disk that forgets, at a power cut, what was not flushed to it (`disk.c`).

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs to its end.
    Runs,
    /// It is killed in place of this flush, counted from 1.
    DiesAt(usize),
    /// Its flushes of files, of folders or of both do nothing.
    Skips(&'static str),
}

/// What a power cut leaves of that which was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unflushed {
    /// Nothing.
    Lost,
    /// Some folders' entries, some files' lengths, some sectors: which, this number says.
    Torn(u64),
}

/// An entry of a folder.
#[derive(Clone, Debug)]
struct Entry {
    is_folder: bool,
    inode: u64,
    name: String,
}

/// A folder on such a disk.
pub struct Disk {
    folder: PathBuf,
    /// What is durable, as `disk.c` writes it.
    records: TempDir,
    /// The library that is preloaded.
    library: PathBuf,
}

impl Disk {
    /// Takes over a folder. `None` where this cannot be: it needs Linux.
    pub fn of(folder: &Path) -> Result<Option<Self>> {
        if !cfg!(target_os = "linux") {
            eprintln!("skipped: a power cut is only played on Linux");
            return Ok(None);
        }
        // Beside the folder: its files are linked from there.
        let records = tempfile::tempdir_in(folder.parent().context("no folder above")?)?;
        let library = records.path().join("disk.so");
        let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support/disk.c");
        let mut compile = Command::new(&compiler);
        compile.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
        let compiled = compile.args(["-ldl", "-pthread"]).output().with_context(|| format!("{compiler:?}"))?;
        ensure!(compiled.status.success(), "{}", super::said(&compiled));
        Ok(Some(Self { folder: fs::canonicalize(folder)?, records, library }))
    }

    /// Has a command write to this disk, on which all that is in the folder now is flushed.
    pub fn under<'a>(&self, command: &'a mut Command, fate: Fate) -> Result<&'a mut Command> {
        self.flush_all()?;
        command
            .env("LD_PRELOAD", &self.library)
            .env("FORGETFUL_DISK", self.records.path())
            .env("FORGETFUL_FOLDER", &self.folder);
        Ok(match fate {
            Fate::Runs => command,
            Fate::DiesAt(flush) => command.env("FORGETFUL_AT", flush.to_string()),
            Fate::Skips(what) => command.env("FORGETFUL_SKIPS", what),
        })
    }

    /// The power goes, and comes back. No process may have the folder open.
    pub fn cut(&self, unflushed: Unflushed) -> Result<()> {
        let (before, after) = (self.records.path().join("before"), self.records.path().join("after"));
        let inode = fs::metadata(&self.folder)?.ino();
        Cut { disk: self, had: inodes(&self.folder)?, unflushed }.rebuild(inode, Path::new(""), &after)?;
        fs::rename(&self.folder, &before)?;
        fs::rename(&after, &self.folder)?;
        Ok(fs::remove_dir_all(&before)?)
    }

    /// Records all that is in the folder as durable.
    fn flush_all(&self) -> Result<()> {
        for kind in ["files", "folders", "kept"] {
            let place = self.records.path().join(kind);
            if place.exists() {
                fs::remove_dir_all(&place)?;
            }
            fs::create_dir(place)?;
        }
        for (inode, path) in inodes(&self.folder)? {
            if path.is_dir() {
                let lines = entries(&path)?.into_iter().map(|Entry { is_folder, inode, name }| {
                    format!("{} {inode} {name}\n", if is_folder { "folder" } else { "file" })
                });
                fs::write(self.record("folders", inode), lines.collect::<String>())?;
            } else {
                fs::copy(&path, self.record("files", inode))?;
                fs::hard_link(&path, self.record("kept", inode))?;
            }
        }
        Ok(())
    }

    fn record(&self, kind: &str, inode: u64) -> PathBuf {
        self.records.path().join(kind).join(inode.to_string())
    }
}

/// What is rebuilt after a power cut.
struct Cut<'a> {
    disk: &'a Disk,
    /// Where the program had each inode.
    had: BTreeMap<u64, PathBuf>,
    unflushed: Unflushed,
}

impl Cut<'_> {
    /// Rebuilds what is left of a folder whose path below the disk's is `name`.
    fn rebuild(&self, inode: u64, name: &Path, into: &Path) -> Result<()> {
        fs::create_dir(into.join(name))?;
        for entry in self.entries(inode, name)? {
            let name = name.join(&entry.name);
            if entry.is_folder {
                self.rebuild(entry.inode, &name, into)?;
            } else {
                let path = into.join(&name);
                fs::write(&path, self.bytes(entry.inode, &name)?)?;
                let had = self.had(entry.inode).context("a file that nobody has")?;
                fs::set_permissions(&path, fs::metadata(had)?.permissions())?;
            }
        }
        Ok(())
    }

    fn entries(&self, inode: u64, name: &Path) -> Result<Vec<Entry>> {
        if let Some(path) = self.had.get(&inode).filter(|_| self.is_written(name, None)) {
            return entries(path);
        }
        let lines = fs::read_to_string(self.disk.record("folders", inode)).unwrap_or_default();
        let entry = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let is_folder = words.next()? == "folder";
            Some(Entry { is_folder, inode: words.next()?.parse().ok()?, name: words.next()?.to_owned() })
        };
        lines.lines().map(|line| entry(line).context("a damaged record")).collect()
    }

    /// What is left of a file: its length is the old or the new one, and so is each sector.
    fn bytes(&self, inode: u64, name: &Path) -> Result<Vec<u8>> {
        let mut left = fs::read(self.disk.record("files", inode)).unwrap_or_default();
        if self.unflushed == Unflushed::Lost {
            return Ok(left);
        }
        let new = self.had(inode).map(fs::read).transpose()?.unwrap_or_default();
        if self.is_written(name, None) {
            left.resize(new.len(), 0);
        }
        for (n, (left, new)) in left.chunks_mut(SECTOR).zip(new.chunks(SECTOR)).enumerate() {
            let both = left.len().min(new.len());
            if self.is_written(name, Some(n)) {
                left[..both].copy_from_slice(&new[..both]);
            }
        }
        Ok(left)
    }

    /// A file as the program had it, also one that has lost its name.
    fn had(&self, inode: u64) -> Option<PathBuf> {
        let kept = self.disk.record("kept", inode);
        self.had.get(&inode).cloned().or_else(|| kept.exists().then_some(kept))
    }

    /// Whether the disk had come to write this before it was told to.
    fn is_written(&self, name: &Path, sector: Option<usize>) -> bool {
        let Unflushed::Torn(seed) = self.unflushed else { return false };
        let mut hasher = DefaultHasher::new();
        (seed, name, sector).hash(&mut hasher);
        hasher.finish() & 1 == 1
    }
}

/// Where each inode is, of a folder and all below it.
fn inodes(folder: &Path) -> Result<BTreeMap<u64, PathBuf>> {
    let mut found = BTreeMap::from([(fs::metadata(folder)?.ino(), folder.to_owned())]);
    for entry in entries(folder)? {
        let path = folder.join(&entry.name);
        if entry.is_folder {
            found.extend(inodes(&path)?);
        } else {
            found.insert(entry.inode, path);
        }
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        let name = entry.file_name().into_string().ok().context("a name in UTF-8")?;
        found.push(Entry { is_folder, inode: entry.metadata()?.ino(), name });
    }
    Ok(found)
}
