//! A SOCKS5 proxy (RFC 1928) that writes down what it was asked for, as Tor's would see it.

use std::collections::BTreeMap;
use std::io::{Read, Write, copy};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail, ensure};

const VERSION: u8 = 5;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
const HOST_UNREACHABLE: u8 = 4;

/// Whom a client wanted to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A name that the client did not resolve, and a port.
    Name(String, u16),
    /// An address.
    Address(SocketAddr),
}

/// A SOCKS5 proxy on 127.0.0.1; it ends with this value.
pub struct SocksProxy {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    stopping: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    wanted: Vec<Wanted>,
    opened: Vec<SocketAddr>,
}

impl SocksProxy {
    /// A proxy that knows these names and no others, and reaches no address.
    ///
    /// # Errors
    /// No port.
    pub fn start(names: BTreeMap<String, SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (seen, stopping) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (saw, stop, names) = (Arc::clone(&seen), Arc::clone(&stopping), Arc::new(names));
        let server = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (saw, names) = (Arc::clone(&saw), Arc::clone(&names));
                // A client that goes away is its own business.
                thread::spawn(move || drop(serve(stream, &names, &saw)));
            }
        });
        Ok(Self { address, seen, stopping, server: Some(server) })
    }

    /// `socks5h://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("socks5h://{}", self.address)
    }

    /// Whom clients wanted to reach so far.
    pub fn wanted(&self) -> Vec<Wanted> {
        lock(&self.seen).wanted.clone()
    }

    /// This side's addresses of the connections that it made for them.
    pub fn opened(&self) -> Vec<SocketAddr> {
        lock(&self.seen).opened.clone()
    }
}

impl Drop for SocksProxy {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the server; it looks at the flag first.
        let woken = TcpStream::connect(self.address).is_ok();
        if let Some(server) = self.server.take().filter(|_| woken) {
            drop(server.join());
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut client: TcpStream, names: &BTreeMap<String, SocketAddr>, seen: &Mutex<Seen>) -> Result<()> {
    let wanted = greet(&mut client)?;
    lock(seen).wanted.push(wanted.clone());
    let target = match &wanted {
        Wanted::Name(name, _) => names.get(name),
        Wanted::Address(_) => None,
    };
    let Some(target) = target else {
        client.write_all(&[VERSION, HOST_UNREACHABLE, 0, IPV4, 0, 0, 0, 0, 0, 0])?;
        return Ok(());
    };
    let server = TcpStream::connect(target)?;
    lock(seen).opened.push(server.local_addr()?);
    client.write_all(&[VERSION, 0, 0, IPV4, 127, 0, 0, 1, 0, 0])?;
    let (mut up, mut down) = ((client.try_clone()?, server.try_clone()?), (server, client));
    let upwards = thread::spawn(move || {
        let copied = copy(&mut up.0, &mut up.1);
        drop(up.1.shutdown(Shutdown::Write));
        copied
    });
    let copied = copy(&mut down.0, &mut down.1);
    drop(down.1.shutdown(Shutdown::Both));
    drop(upwards.join());
    copied?;
    Ok(())
}

/// Method negotiation and request.
fn greet(client: &mut TcpStream) -> Result<Wanted> {
    let [version, methods] = bytes(client)?;
    ensure!(version == VERSION, "not SOCKS5");
    client.read_exact(&mut vec![0; usize::from(methods)])?;
    client.write_all(&[VERSION, 0])?;
    let [version, command, _, kind] = bytes(client)?;
    ensure!((version, command) == (VERSION, CONNECT), "not a connection");
    let ip: IpAddr = match kind {
        IPV4 => Ipv4Addr::from(bytes::<4>(client)?).into(),
        IPV6 => Ipv6Addr::from(bytes::<16>(client)?).into(),
        NAME => {
            let [length] = bytes(client)?;
            let mut name = vec![0; usize::from(length)];
            client.read_exact(&mut name)?;
            let name = String::from_utf8(name).context("a name")?;
            return Ok(Wanted::Name(name, u16::from_be_bytes(bytes(client)?)));
        }
        _ => bail!("no address"),
    };
    Ok(Wanted::Address(SocketAddr::new(ip, u16::from_be_bytes(bytes(client)?))))
}

fn bytes<const N: usize>(client: &mut TcpStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}
