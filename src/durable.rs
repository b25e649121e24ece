//! Files and folders that a power cut does not take back.
//!
//! Guarantees that whatever a function here has done is on the disk when it returns, names in folders included, and
//! that a file is there whole or not at all. Only Unix can flush folders: elsewhere the file system has to be trusted
//! with the names.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

/// Who may read what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its owner alone: it holds a secret.
    Owner,
    /// Everybody whom the user's umask lets.
    Umask,
}

/// Makes a folder, and the missing ones above it.
pub fn make_folder(path: &Path, access: Access) -> io::Result<()> {
    // Nothing is put into a folder before its name is flushed.
    if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    if access == Access::Owner {
        builder.mode(0o700);
    }
    builder.create(path)?;
    // Also those that were there: a process that was killed may have made them, and flushed none.
    for above in fs::canonicalize(path)?.ancestors().skip(1) {
        match flush_folder(above) {
            // No folder that we made.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            flushed => flushed?,
        }
    }
    Ok(())
}

/// Writes a file that must not exist.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`]; the file is not touched.
pub fn write_new(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let part = write_part(path, bytes, access)?;
    let placed = match fs::hard_link(&part, path) {
        // Some file systems have no links; there, two who write at once can meet.
        Err(error) if error.kind() != ErrorKind::AlreadyExists && !path.exists() => fs::rename(&part, path),
        placed => placed,
    };
    // After a rename it is gone already.
    let _ = fs::remove_file(&part);
    placed.and_then(|()| flush_name(path))
}

/// Writes a file in the place of another, if there is one.
pub fn replace(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let part = write_part(path, bytes, access)?;
    settle(&part, path).inspect_err(|_| drop(fs::remove_file(&part)))
}

/// Gives a finished file its name, also if the name is another file's.
pub fn settle(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    fs::rename(from, to)?;
    flush_name(to)
}

/// Flushes a file that another process may have written and not flushed.
pub fn flush(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    flush_name(path)
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| flush_name(path)),
    }
}

/// Writes and flushes the file that is to get the name `path`, beside it.
fn write_part(path: &Path, bytes: &[u8], access: Access) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(ErrorKind::InvalidFilename)?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let part = path.with_file_name(hidden);
    // One with this process's number is of a process that was killed. Opened as new, it is nobody's link to elsewhere.
    let _ = fs::remove_file(&part);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if access == Access::Owner {
        options.mode(0o600);
    }
    let mut file = options.open(&part)?;
    match file.write_all(bytes).and_then(|()| file.sync_all()) {
        Ok(()) => Ok(part),
        Err(error) => {
            let _ = fs::remove_file(&part);
            Err(error)
        }
    }
}

fn flush_name(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => flush_folder(Path::new(".")),
        Some(folder) => flush_folder(folder),
        None => Ok(()),
    }
}

#[cfg(unix)]
fn flush_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // A file system that does not do this for folders.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        flushed => flushed,
    }
}

#[cfg(not(unix))]
fn flush_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in a folder.
    fn names(folder: &Path) -> Vec<OsString> {
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect()
    }

    #[test]
    fn a_new_file_takes_nobodys_place_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("key");
        let left = dir.path().join(format!(".key.{}", std::process::id()));
        fs::write(&left, "of a process that was killed").expect("written");
        write_new(&path, b"first", Access::Owner).expect("written");
        let refused = write_new(&path, b"second", Access::Owner).expect_err("it is there");
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("there"), b"first");
        replace(&path, b"second", Access::Owner).expect("replaced");
        assert_eq!(fs::read(&path).expect("there"), b"second");
        assert_eq!(names(dir.path()), ["key"]);
        remove(&path).expect("removed");
        remove(&path).expect("gone already");
        assert!(names(dir.path()).is_empty());
        assert!(write_new(&dir.path().join(".."), b"", Access::Umask).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let folder = dir.path().join("above/wallet");
        make_folder(&folder, Access::Owner).expect("made");
        make_folder(&folder, Access::Owner).expect("there already");
        assert_eq!((mode(&folder), mode(&dir.path().join("above"))), (0o700, 0o700));
        let secret = folder.join("key");
        write_new(&secret, b"secret", Access::Owner).expect("written");
        assert_eq!(mode(&secret), 0o600);
        replace(&secret, b"secret", Access::Owner).expect("written");
        assert_eq!(mode(&secret), 0o600);
    }
}
