use crate::follower::*;
use rusqlite::{Error, ffi};

fn failure(code: i32) -> FollowerError {
    FollowerError::Store(Error::SqliteFailure(ffi::Error::new(code), None))
}

#[test]
fn an_error_of_the_database_comes_with_its_cure_and_only_a_full_disk_passes() {
    for (code, cure) in [
        (ffi::SQLITE_FULL, Some("; make room on its disk")),
        (ffi::SQLITE_IOERR_WRITE, Some("; make room on its disk")),
        (ffi::SQLITE_NOTADB, Some(REBUILD)),
        (ffi::SQLITE_CORRUPT, Some(REBUILD)),
        (ffi::SQLITE_CONSTRAINT, Some(REBUILD)),
        (ffi::SQLITE_READONLY, None),
    ] {
        let error = failure(code);
        let said = error.to_string();
        assert_eq!(said.contains(';'), cure.is_some(), "{said}");
        assert!(said.ends_with(cure.unwrap_or_default()), "{said}");
        assert_eq!(error.is_temporary(), cure.is_some_and(|cure| cure.contains("room")), "{said}");
    }
    assert!(FollowerError::Missing { height: 2, tip: 1 }.is_temporary());
    assert!(!FollowerError::ReorgTooDeep { height: 1 }.is_temporary());
}
