use crate::follower::*;
use rusqlite::{Error, ffi};

fn failure(code: i32) -> FollowerError {
    FollowerError::Store(Error::SqliteFailure(ffi::Error::new(code), None))
}

#[test]
fn a_full_disk_passes_a_damaged_file_is_derived_anew_and_nothing_else_helps() {
    for (code, is_full, is_damaged) in [
        (ffi::SQLITE_FULL, true, false),
        (ffi::SQLITE_IOERR_WRITE, true, false),
        (ffi::SQLITE_NOTADB, false, true),
        (ffi::SQLITE_CORRUPT, false, true),
        (ffi::SQLITE_CONSTRAINT, false, true),
        (ffi::SQLITE_READONLY, false, false),
    ] {
        let error = failure(code);
        assert_eq!(error.to_string().ends_with("; make room on its disk"), is_full, "{error}");
        assert_eq!((error.is_temporary(), error.needs_rebuild()), (is_full, is_damaged), "{error}");
    }
    assert!(FollowerError::Missing { height: 2, tip: 1 }.is_temporary());
    let deep = FollowerError::ReorgTooDeep { height: 1 };
    assert!(!deep.is_temporary() && deep.needs_rebuild());
}
