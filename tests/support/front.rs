//! What may stand in front of a node: a server that answers in its place now and then, with or without TLS.

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The authority that signed the certificate of [`Front::over_tls`].
pub const AUTHORITY: &str = include_str!("../tls/authority.pem");

/// Answers a request, given as it came, in the node's place.
pub type Instead = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

/// A server in front of a node. It ends with the test's process.
pub struct Front {
    pub address: SocketAddr,
    /// Answers that were not the node's.
    pub given: Arc<AtomicUsize>,
}

impl Front {
    pub fn new(node: SocketAddr, instead: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Result<Self> {
        Self::start(node, None, Arc::new(instead))
    }

    /// Its certificate, for 127.0.0.1 and localhost, is signed by [`AUTHORITY`] until the year 2126.
    pub fn over_tls(node: SocketAddr) -> Result<Self> {
        let chain = CertificateDer::from_pem_slice(include_bytes!("../tls/node.pem"))?;
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("../tls/node.key"))?;
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![chain], key)?;
        Self::start(node, Some(Arc::new(config)), Arc::new(|_: &str| None))
    }

    fn start(node: SocketAddr, tls: Option<Arc<ServerConfig>>, instead: Arc<Instead>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, given) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&given);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (tls, instead, given) = (tls.clone(), Arc::clone(&instead), Arc::clone(&counted));
                std::thread::spawn(move || match tls {
                    None => drop(answer(stream, node, &*instead, &given)),
                    Some(config) => {
                        if let Ok(connection) = ServerConnection::new(config) {
                            drop(answer(StreamOwned::new(connection, stream), node, &*instead, &given));
                        }
                    }
                });
            }
        });
        Ok(Self { address, given })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// One request, and the end of the connection.
fn answer(mut stream: impl Read + Write, node: SocketAddr, instead: &Instead, given: &AtomicUsize) -> Result<()> {
    let request = read_request(&mut stream)?;
    let answer = match instead(&request) {
        Some(answer) => {
            given.fetch_add(1, Ordering::SeqCst);
            answer
        }
        None => {
            let (start, rest) = request.split_once("\r\n").context("a head")?;
            let mut upstream = TcpStream::connect(node)?;
            write!(upstream, "{start}\r\nConnection: close\r\n{rest}")?;
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer)?;
            answer
        }
    };
    stream.write_all(&answer)?;
    Ok(stream.flush()?)
}

fn read_request(stream: &mut impl Read) -> Result<String> {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return Ok(text.into_owned());
            }
        }
        let read = stream.read(&mut buffer)?;
        anyhow::ensure!(read > 0, "half a request");
        request.extend_from_slice(&buffer[..read]);
    }
}

/// An answer over HTTP.
pub fn http(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}
