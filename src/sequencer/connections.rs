//! Connections to the HTTP interface: how many there are, and which of them gives way.
//!
//! Guarantees that a connection which stands still is closed, that there are never more than a limit, in all and
//! from one address, and that at a limit the one that has stood still longest gives way to a new one: whoever opens
//! connections to hold them keeps nobody else out. Files are left over for everything else that the process opens.

use super::limits::Limits;
use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tower_service::Service;

/// Room for one request's head, in bytes.
const HEAD_ROOM: usize = 16 * 1024;

/// Most files that a process asks the system for.
const MOST_FILES: u64 = 65_536;

/// Wait before the next connection is taken where the system has no more files.
const NO_FILES: Duration = Duration::from_millis(50);

/// What is known of an open connection.
struct Open {
    address: IpAddr,
    /// When a request last began or was answered.
    moved: Instant,
    is_answering: bool,
    /// Dropped, it closes the connection.
    _close: oneshot::Sender<()>,
}

/// The open connections, in the order in which they came.
struct Connections {
    limits: Limits,
    open: Mutex<(u64, BTreeMap<u64, Open>)>,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Open>)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in, and closes the one that gives way to it, if there are too many.
    fn admit(&self, address: IpAddr) -> (u64, oneshot::Receiver<()>) {
        let address = address.to_canonical();
        let mut open = self.lock();
        let from_there = open.1.values().filter(|other| other.address == address).count();
        if from_there >= self.limits.connections_per_address.max(1) {
            give_way(&mut open.1, |other| other.address == address);
        } else if open.1.len() >= self.limits.connections.max(1) {
            give_way(&mut open.1, |_| true);
        }
        let (close, closed) = oneshot::channel();
        let number = open.0;
        open.0 += 1;
        open.1.insert(number, Open { address, moved: Instant::now(), is_answering: false, _close: close });
        (number, closed)
    }

    fn moved(&self, number: u64, is_answering: bool) {
        if let Some(open) = self.lock().1.get_mut(&number) {
            (open.moved, open.is_answering) = (Instant::now(), is_answering);
        }
    }

    /// When it will have stood still too long, as it is now.
    fn deadline(&self, number: u64) -> Option<Instant> {
        let open = self.lock();
        let open = open.1.get(&number)?;
        let allowed = if open.is_answering { self.limits.request + self.limits.idle } else { self.limits.idle };
        Some(open.moved + allowed)
    }

    fn close(&self, number: u64) {
        self.lock().1.remove(&number);
    }

    /// Closes the one that has stood still longest.
    fn close_one(&self) {
        give_way(&mut self.lock().1, |_| true);
    }
}

/// Removes the one that has stood still longest; those that are being answered come last.
fn give_way(open: &mut BTreeMap<u64, Open>, concerns: impl Fn(&Open) -> bool) {
    let among = open.iter().filter(|(_, open)| concerns(open));
    let oldest = among.min_by_key(|(_, open)| (open.is_answering, open.moved)).map(|(number, _)| *number);
    if let Some(oldest) = oldest {
        open.remove(&oldest);
    }
}

/// Raises the limit of open files as far as the system lets it, and gives the connections that leave enough of them.
pub(super) fn within_files(limits: Limits) -> Limits {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(MOST_FILES).min(MOST_FILES);
    let raised = current.is_some_and(|current| current < wanted)
        && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok();
    let files = if raised { wanted } else { current.unwrap_or(MOST_FILES) };
    let left = usize::try_from(files.saturating_sub(limits.files_kept)).unwrap_or(usize::MAX).max(1);
    let connections = limits.connections.min(left);
    Limits { connections, connections_per_address: limits.connections_per_address.min(connections), ..limits }
}

/// Serves connections until `stop` is ready; then lets requests under way end for as long as farewell takes.
pub(super) async fn serve_all(listener: TcpListener, router: Router, limits: Limits, stop: impl Future<Output = ()>) {
    let farewell = limits.farewell;
    let connections = Arc::new(Connections { limits, open: Mutex::new((0, BTreeMap::new())) });
    let (stopping, stopped) = watch::channel(());
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let (number, closed) = connections.admit(address.ip());
                let (connections, router, stopped) = (Arc::clone(&connections), router.clone(), stopped.clone());
                tokio::spawn(async move {
                    let connection = Connection { connections: &connections, number, address };
                    connection.serve(stream, router, closed, stopped).await;
                    connections.close(number);
                });
            }
            // Gone again before it was taken.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            // No file is left for it.
            Err(_) => {
                connections.close_one();
                sleep(NO_FILES).await;
            }
        }
    }
    drop(listener);
    drop(stopped);
    let _ = stopping.send(());
    // Ready once no connection is left.
    let _ = tokio::time::timeout(farewell, stopping.closed()).await;
}

/// A connection that is served.
#[derive(Clone, Copy)]
struct Connection<'a> {
    connections: &'a Arc<Connections>,
    number: u64,
    address: SocketAddr,
}

impl Connection<'_> {
    async fn serve(
        self,
        stream: TcpStream,
        router: Router,
        mut closed: oneshot::Receiver<()>,
        mut stopped: watch::Receiver<()>,
    ) {
        let (connections, number, address) = (Arc::clone(self.connections), self.number, self.address);
        let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (connections, mut router) = (Arc::clone(&connections), router.clone());
            connections.moved(number, true);
            async move {
                let mut request: Request = request.map(axum::body::Body::new);
                request.extensions_mut().insert(ConnectInfo(address));
                let response = router.call(request).await;
                connections.moved(number, false);
                response as Result<_, Infallible>
            }
        });
        let connection = http1::Builder::new().max_buf_size(HEAD_ROOM).serve_connection(TokioIo::new(stream), answer);
        let mut connection = pin!(connection);
        let mut is_stopping = false;
        loop {
            let Some(deadline) = self.connections.deadline(self.number) else { return };
            tokio::select! {
                // Ended, by whichever side.
                _ = &mut connection => return,
                _ = &mut closed => return,
                _ = stopped.changed(), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = sleep_until(deadline) => {
                    if self.connections.deadline(self.number).is_none_or(|deadline| deadline <= Instant::now()) {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(connections: usize, connections_per_address: usize) -> Connections {
        let limits = Limits { connections, connections_per_address, ..Limits::default() };
        Connections { limits, open: Mutex::new((0, BTreeMap::new())) }
    }

    #[test]
    fn at_a_limit_the_one_that_has_stood_still_longest_gives_way() {
        let connections = connections(4, 2);
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let (first, mut first_closed) = connections.admit(address(1));
        let (_, mut second_closed) = connections.admit(address(1));
        connections.moved(first, true);
        connections.moved(first, false);
        let third = connections.admit(address(1));
        assert!(second_closed.try_recv() == Err(oneshot::error::TryRecvError::Closed), "it had not moved");
        assert!(first_closed.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        let (busy, mut busy_closed) = connections.admit(address(2));
        connections.moved(busy, true);
        let others = [3, 4, 5].map(|last| connections.admit(address(last)));
        assert_eq!(connections.lock().1.len(), 4);
        assert!(busy_closed.try_recv() == Err(oneshot::error::TryRecvError::Empty), "it is being answered");
        drop((third, others));
    }

    #[test]
    fn a_connection_may_stand_still_longer_while_it_is_answered_and_is_gone_once_it_is_closed() {
        let connections = connections(4, 2);
        let (number, _closed) = connections.admit(IpAddr::from([192, 0, 2, 1]));
        let Limits { idle, request, .. } = connections.limits;
        for (is_answering, allowed) in [(false, idle), (true, request + idle)] {
            connections.moved(number, is_answering);
            let moved = connections.lock().1[&number].moved;
            assert_eq!(connections.deadline(number), Some(moved + allowed));
        }
        connections.close(number);
        assert!(connections.deadline(number).is_none() && connections.lock().1.is_empty());
    }
}
