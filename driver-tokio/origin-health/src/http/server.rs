//! Accepts connections and bounds what they can hold: how many there are, how long one may take to
//! ask, and how long it may refuse to take its answer. Without these bounds idle clients would take
//! every descriptor of the node, and its checks would have none.

use alloc::sync::Arc;
use core::pin::pin;
use core::time::Duration;
use std::io;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::patience::Patient;
use crate::failure::Seldom;

/// What bounds the connections of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most connections at a time; others wait in the queue of the system.
    pub(crate) connections: usize,
    /// How long a client may take to ask, from the start or from its last answer.
    pub(crate) ask_within: Duration,
    /// How long a client may take nothing of what waits for it.
    pub(crate) take_within: Duration,
}

impl Limits {
    /// Those of a real node with this many descriptors: a quarter of them, so that checks keep
    /// theirs.
    pub(crate) fn node(descriptors: usize) -> Self {
        Self {
            connections: (descriptors / 4).clamp(1, 512),
            ask_within: Duration::from_secs(10),
            take_within: Duration::from_secs(60),
        }
    }
}

/// How long to wait when no connection can be accepted for want of descriptors or memory. The one
/// that waits is still there at once, so trying again without a pause would only heat the machine.
const RETRY_ACCEPT: Duration = Duration::from_millis(500);

/// Serves until `stop`, then completes the answers that were begun.
pub(super) async fn serve(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let seats = Arc::new(Semaphore::new(limits.connections));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.ask_within);
    let service = TowerToHyperService::new(app);
    let open = GracefulShutdown::new();
    let seldom = Seldom::default();
    let mut stop = pin!(stop);
    loop {
        let (stream, seat) = tokio::select! {
            accepted = accept(&listener, &seats, &seldom) => accepted,
            () = &mut stop => break,
        };
        give_up_after(&stream, limits.take_within);
        let stream = Patient::new(stream, limits.take_within);
        let connection = http.serve_connection(TokioIo::new(stream), service.clone());
        let connection = open.watch(connection);
        tokio::spawn(async move {
            // What a client does wrong is its own affair.
            let _ = connection.await;
            drop(seat);
        });
    }
    drop(listener);
    open.shutdown().await;
}

/// The next connection, once there is a seat for it.
async fn accept(
    listener: &TcpListener,
    seats: &Arc<Semaphore>,
    seldom: &Seldom,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(seat) = Arc::clone(seats).acquire_owned().await else {
            // Nobody closes the semaphore.
            return core::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, seat),
            Err(error) if GONE.contains(&error.kind()) => {}
            Err(error) => {
                seldom.tell(format_args!("cannot accept HTTP connections: {error}"));
                tokio::time::sleep(RETRY_ACCEPT).await;
            }
        }
    }
}

/// Clients that went away while they waited.
const GONE: [io::ErrorKind; 3] = [
    io::ErrorKind::ConnectionAborted,
    io::ErrorKind::ConnectionRefused,
    io::ErrorKind::ConnectionReset,
];

/// Lets the system end a connection whose peer has acknowledged nothing for this long: a suspended
/// machine leaves room in the buffer here for hours, so that no write ever has to wait.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn give_up_after(stream: &TcpStream, limit: Duration) {
    // Best effort: without it the system's own limit holds, a quarter of an hour.
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(limit));
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn give_up_after(_: &TcpStream, _: Duration) {}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;

    /// Longer than anything here takes on a loaded machine.
    const LONG: Duration = Duration::from_secs(60);

    async fn ask(stream: &mut TcpStream) -> String {
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.expect("the request is taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn a_connection_above_the_cap_waits_until_another_one_closes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let limits = Limits { connections: 2, ask_within: LONG, take_within: LONG };
        let (stop, stopped) = oneshot::channel::<()>();
        let app = Router::new().route("/", get(async || "here"));
        let stopped = async { drop(stopped.await) };
        let server = tokio::spawn(serve(listener, app, limits, stopped));
        let connect = async || TcpStream::connect(address).await.expect("room in the queue");
        let (first, mut second) = (connect().await, connect().await);
        let mut third = connect().await;
        // The second has its seat once it is answered; it keeps it by staying open.
        second.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it is taken");
        let mut answer = Vec::new();
        while !answer.ends_with(b"here") {
            answer.push(second.read_u8().await.expect("an answer"));
        }
        let mut third = tokio::spawn(async move { ask(&mut third).await });
        // Far more than an answer takes; where it takes longer, this shows nothing and fails nothing.
        let early = tokio::time::timeout(Duration::from_millis(200), &mut third).await;
        assert!(early.is_err(), "there is no seat for it");
        drop(first);
        assert!(third.await.expect("no panic").ends_with("here"));
        drop(stop);
        server.await.expect("idle connections do not keep a server from stopping");
        assert_eq!(second.read(&mut [0]).await.expect("an orderly end"), 0);
    }

    #[tokio::test]
    async fn who_does_not_ask_is_sent_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let limits =
            Limits { connections: 1, ask_within: Duration::from_millis(50), take_within: LONG };
        let app = Router::new().route("/", get(async || "here"));
        let server = tokio::spawn(serve(listener, app, limits, core::future::pending()));
        for begun in [&b""[..], b"GET / HT"] {
            let mut idle = TcpStream::connect(address).await.expect("room in the queue");
            idle.write_all(begun).await.expect("it is taken");
            // The seat is the only one, so both ends are seen: the close, and the seat given back.
            assert!(idle.read_to_end(&mut Vec::new()).await.is_ok());
        }
        let mut next = TcpStream::connect(address).await.expect("room in the queue");
        assert!(ask(&mut next).await.ends_with("here"));
        server.abort();
    }
}
