use super::*;

fn http(url: &str) -> Http {
    Http::new(url.parse().expect("a URL"), &Transport::new(Patience::none()), None)
}

#[test]
fn debug_shows_no_secret() {
    let password = Credentials::UserPassword { user: "u".into(), password: "hunter2".into() };
    assert!(!format!("{password:?}").contains("hunter2"));
    let node = RpcNode {
        url: "http://127.0.0.1:1".into(),
        credentials: password,
        secret: Mutex::new("u:hunter2".into()),
        network: Network::Regtest,
        version: 0,
        http: http("http://127.0.0.1:1"),
        transport: Transport::new(Patience::none()),
        answers: Mutex::default(),
    };
    assert!(!format!("{node:?}").contains("hunter2"));
}

#[test]
fn credentials_in_the_url_are_refused_without_repeating_them() {
    let login = Credentials::UserPassword { user: "u".into(), password: "p".into() };
    let error = RpcNode::connect("http://u:hunter2@127.0.0.1:1", login, Network::Regtest);
    let error = error.expect_err("credentials belong elsewhere");
    assert!(matches!(error, ChainError::Url { .. }));
    assert!(!error.to_string().contains("hunter2"));
}

#[test]
fn a_url_without_a_scheme_is_refused_with_its_shape_before_any_cookie_is_read() {
    let cookie = Credentials::Cookie("/nonexistent/.cookie".into());
    let error = RpcNode::connect("127.0.0.1", cookie, Network::Regtest).expect_err("no scheme");
    assert_eq!(
        error.to_string(),
        "the Bitcoin node's URL is not usable: its scheme is missing; it looks like http://127.0.0.1:8332"
    );
}

#[test]
fn nobody_listening_is_temporary_and_says_where() {
    let login = Credentials::UserPassword { user: "u".into(), password: "p".into() };
    let error = RpcNode::connect("http://127.0.0.1:1", login, Network::Regtest).expect_err("no node");
    assert!(error.is_temporary());
    assert_eq!(error.to_string(), "cannot reach bitcoind at http://127.0.0.1:1: connection refused");
}

#[test]
fn a_missing_cookie_names_the_file() {
    let cookie = Credentials::Cookie("/nonexistent/.cookie".into());
    let error = RpcNode::connect("http://127.0.0.1:1", cookie, Network::Regtest).expect_err("none");
    assert!(matches!(&error, ChainError::Cookie { path, .. } if path == "/nonexistent/.cookie"));
}

/// A node whose cookie is `u:new`: status and body of its answer to one request after another, as far as it is
/// authorised.
fn one_that_was_restarted(answers: &'static [(&'static str, &'static str)]) -> std::net::SocketAddr {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut answers = answers.iter();
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let (mut authorised, mut len) = (false, 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a line");
                let line = line.trim().to_lowercase();
                authorised |= line == format!("authorization: {}", basic("u:new")).to_lowercase();
                len = line.strip_prefix("content-length:").map_or(len, |len| len.trim().parse().expect("a length"));
                if line.is_empty() {
                    break;
                }
            }
            reader.read_exact(&mut vec![0; len]).expect("a body");
            let (status, body) = match authorised {
                true => *answers.next().expect("one more answer"),
                false => ("401 Unauthorized", ""),
            };
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            reader.get_mut().write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).expect("an answer");
        }
    });
    address
}

/// A connection to it, by a node of an old version.
fn connected(address: std::net::SocketAddr, credentials: Credentials, secret: &str) -> RpcNode {
    let url = format!("http://{address}");
    RpcNode {
        http: http(&url),
        url,
        credentials,
        secret: Mutex::new(secret.into()),
        network: Network::Regtest,
        version: 0,
        transport: Transport::new(Patience::none()),
        answers: Mutex::default(),
    }
}

#[test]
fn a_node_without_a_long_poll_is_asked_again_until_its_tip_is_another_one() {
    const A: &str = "0000000000000000000000000000000000000000000000000000000000000001";
    let address = one_that_was_restarted(&[
        (
            "200 OK",
            r#"{"result":{"chain":"regtest","blocks":7,"headers":7,"bestblockhash":"0000000000000000000000000000000000000000000000000000000000000001"}}"#,
        ),
        (
            "200 OK",
            r#"{"result":{"chain":"regtest","blocks":8,"headers":8,"bestblockhash":"0000000000000000000000000000000000000000000000000000000000000002"}}"#,
        ),
    ]);
    let login = Credentials::UserPassword { user: "u".into(), password: "new".into() };
    let node = connected(address, login, "u:new");
    let tip = node.wait_for_tip(&A.parse().expect("a hash"), CALL_LIMIT).expect("a tip");
    assert_eq!((tip.height, tip.hash.to_string()), (8, A.replace('1', "2")));
}

#[test]
fn what_is_no_answer_of_bitcoind_is_told_and_asked_again_only_if_it_may_pass() {
    const ANSWERS: [(&str, &str); 7] = [
        ("502 Bad Gateway", "<html>"),
        ("500 Internal Server Error", "<html>"),
        ("429 Too Many Requests", ""),
        ("403 Forbidden", ""),
        ("404 Not Found", "<html>"),
        ("200 OK", "hello"),
        ("302 Found\r\nLocation: http://127.0.0.1:1/", ""),
    ];
    let login = Credentials::UserPassword { user: "u".into(), password: "new".into() };
    let node = connected(one_that_was_restarted(&ANSWERS), login, "u:new");
    for ((status, _), (told, temporary)) in ANSWERS.into_iter().zip([
        ("HTTP status 502", true),
        ("HTTP status 500", true),
        ("HTTP status 429", true),
        ("HTTP status 403", false),
        ("HTTP status 404", false),
        ("something that is no JSON", true),
        ("HTTP status 302", false),
    ]) {
        let error = node.info().expect_err(status);
        assert!(error.to_string().contains(told), "{status}: {error}");
        assert_eq!(error.is_temporary(), temporary, "{status}");
    }
}

#[test]
fn a_cookie_that_was_rotated_is_read_again_for_blocks_and_headers_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let cookie = dir.path().join(".cookie");
    std::fs::write(&cookie, "u:new").expect("written");
    let address = one_that_was_restarted(&[
        ("200 OK", r#"{"result":"00fF10","error":null,"id":0}"#),
        ("200 OK", r#"[{"result":null,"error":{"code":-8,"message":"Block height out of range"},"id":0}]"#),
        ("200 OK", "[]"),
    ]);
    let node = connected(address, Credentials::Cookie(cookie), "u:old");
    let hash = genesis_block(Network::Regtest).block_hash();
    assert_eq!(node.block(&hash).expect("authorised"), [0x00, 0xff, 0x10]);
    "u:old".clone_into(&mut node.secret.lock().expect("no panic"));
    assert_eq!(node.headers(7, 1).expect("authorised"), []);

    "u:old".clone_into(&mut node.secret.lock().expect("no panic"));
    std::fs::write(dir.path().join(".cookie"), "u:older").expect("written");
    assert!(matches!(node.block(&hash), Err(ChainError::Auth { .. })));
}
