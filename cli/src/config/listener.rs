//! Who listens on a port of this machine.
//!
//! bitcoind's cookie goes to its usual port unasked. Where bitcoind runs elsewhere or not at all, any user of the
//! machine can listen there and would be handed it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// State of a socket that listens, in Linux's tables.
const LISTENS: &str = "0A";

/// The first user, by number, who listens on `port` and is neither root, nor we, nor the owner of `cookie`.
///
/// `None` also where the system does not tell (it is not Linux).
pub fn stranger(port: u16, cookie: &Path) -> Option<u32> {
    let owner = |path: &Path| fs::metadata(path).ok().map(|file| file.uid());
    let trusted = [Some(0), owner(Path::new("/proc/self")), owner(cookie)];
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let users: Vec<_> = tables.iter().flat_map(|table| listeners(table, port)).collect();
    users.into_iter().find(|user| !trusted.contains(&Some(*user)))
}

/// Users of the sockets that listen on a port.
fn listeners(table: &str, port: u16) -> impl Iterator<Item = u32> {
    let ending = format!(":{port:04X}");
    table.lines().filter_map(move |line| {
        let columns: Vec<_> = line.split_ascii_whitespace().collect();
        let is_ours = columns.get(1)?.ends_with(&ending) && *columns.get(3)? == LISTENS;
        is_ours.then(|| columns.get(7)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_read_from_linuxs_table() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:208C 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 34134 1
   1: 0100007F:208C 0100007F:C3A2 01 00000000:00000000 00:00000000 00000000  1002        0 34135 1
   2: 00000000:208D 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1003        0 34136 1";
        assert_eq!(listeners(table, 8332).collect::<Vec<_>>(), [1001]);
        assert_eq!(listeners(table, 8333).collect::<Vec<_>>(), [1003]);
        assert_eq!(listeners(table, 8334).count(), 0);
    }

    #[test]
    fn our_own_listener_is_no_stranger() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        assert_eq!(stranger(port, Path::new("/nowhere")), None);
    }
}
