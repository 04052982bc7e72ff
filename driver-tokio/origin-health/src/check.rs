//! One check of one origin: a real HTTP request, and in one word why it failed.
//!
//! A check that fails for want of something on this machine says nothing about the origin. It is no
//! failed check but none at all: else one node without descriptors would tell the whole cluster that
//! healthy origins are down.

use core::error::Error;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io;
use std::net::UdpSocket;
use std::time::Instant;

use alloc::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::origins::Origin;

/// The header by which an origin can tell who checks it.
pub(crate) const CHECKER_HEADER: HeaderName = HeaderName::from_static("x-origin-health-node");

/// How much of a body is read. The rest is left unread and the connection closed: an origin with a
/// large page is healthy, and no origin can make its checker carry the page.
pub(crate) const MAX_BODY: usize = 64 << 10;

/// Most checks of one node at a time. An origin that hangs holds a descriptor for its whole timeout,
/// so without a bound a silent half of a datacenter would take them all.
pub(crate) const MAX_CHECKS: usize = 2048;

/// Why a check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reason {
    /// The host's name has no address.
    Dns,
    /// No TCP connection: refused, unreachable.
    Connect,
    /// The handshake failed: no TLS on the other side, or a certificate that is not trusted.
    Tls,
    /// No complete answer within the origin's timeout, wherever the time went.
    Timeout,
    /// An answer with this status instead of the expected one.
    Status(u16),
    /// Something that is not HTTP, or an answer that ended before its end.
    Protocol,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns => f.write_str("dns"),
            Self::Connect => f.write_str("connect"),
            Self::Tls => f.write_str("tls"),
            Self::Timeout => f.write_str("timeout"),
            Self::Status(code) => write!(f, "status {code}"),
            Self::Protocol => f.write_str("protocol"),
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// From the start of the check to its end, whatever the end was.
    pub(crate) latency: Duration,
    /// Why it failed; none if it succeeded.
    pub(crate) failure: Option<Reason>,
}

/// Why there was no check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unchecked {
    /// This machine lacks what a connection takes: descriptors, memory, ports. In its own words.
    Local(String),
    /// No seat became free within the origin's timeout: too many checks are under way.
    Late,
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(error) => f.write_str(error),
            Self::Late => f.write_str("too many checks are under way"),
        }
    }
}

/// Why an attempt gave no answer.
#[derive(Debug)]
enum Fault {
    Origin(Reason),
    Local(String),
}

/// Makes checks on behalf of one node.
///
/// Every check opens its own connection: name lookup, connect and handshake are part of what is
/// checked, and a kept connection would go on working after the origin stopped to accept new ones.
#[derive(Debug, Clone)]
pub(crate) struct Checker {
    client: reqwest::Client,
    seats: Arc<Semaphore>,
}

impl Checker {
    /// A checker that tells the origins it is `node`, and makes at most `seats` checks at a time.
    ///
    /// # Errors
    ///
    /// If `node` cannot stand in a header, or the TLS library refuses its own defaults.
    pub(crate) fn new(node: &str, seats: usize) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Self::with_lookup(node, seats, Lookup)
    }

    fn with_lookup(
        node: &str,
        seats: usize,
        lookup: impl Resolve + 'static,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut headers = HeaderMap::new();
        headers.insert(CHECKER_HEADER, HeaderValue::from_str(node)?);
        let client = reqwest::Client::builder()
            .user_agent(concat!("origin-health/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            // A proxy from the environment would answer in the origin's place.
            .no_proxy()
            .pool_max_idle_per_host(0)
            .dns_resolver(lookup)
            .tls_backend_preconfigured(tls()?)
            .build()?;
        Ok(Self { client, seats: Arc::new(Semaphore::new(seats)) })
    }

    /// Checks `origin` once. Waiting for a seat is not part of the check, neither of its timeout
    /// nor of its latency.
    ///
    /// # Errors
    ///
    /// If there was no check, for a cause that has nothing to do with the origin.
    pub(crate) async fn check(&self, origin: &Origin) -> Result<Outcome, Unchecked> {
        let seat = tokio::time::timeout(origin.timeout, self.seats.acquire());
        let Ok(Ok(_seat)) = seat.await else { return Err(Unchecked::Late) };
        let start = Instant::now();
        let request = tokio::time::timeout(origin.timeout, self.request(origin));
        let failure = match request.await {
            Ok(Ok(())) => None,
            Ok(Err(Fault::Origin(reason))) => Some(reason),
            Ok(Err(Fault::Local(error))) => return Err(Unchecked::Local(error)),
            Err(_elapsed) => Some(Reason::Timeout),
        };
        Ok(Outcome { latency: start.elapsed(), failure })
    }

    async fn request(&self, origin: &Origin) -> Result<(), Fault> {
        let request = self.client.get(origin.url.clone());
        let mut response = request.send().await.map_err(|error| fault(origin, &error))?;
        let status = response.status().as_u16();
        if status != origin.expected_status {
            return Err(Fault::Origin(Reason::Status(status)));
        }
        let mut read = 0;
        while read < MAX_BODY {
            match response.chunk().await.map_err(|error| fault(origin, &error))? {
                Some(chunk) => read += chunk.len(),
                None => break,
            }
        }
        Ok(())
    }
}

/// The roots are compiled in, so a check means the same on every machine, one without a certificate
/// store included.
fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// The system's name lookup, with an error that can be told from all others.
struct Lookup;

/// A name without an address.
#[derive(Debug)]
struct LookupError(io::Error);

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "name lookup failed: {}", self.0)
    }
}

impl Error for LookupError {}

/// A name all of whose addresses are of a kind that this machine has no way to.
#[derive(Debug)]
struct NoWay;

impl fmt::Display for NoWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no address that this machine has a way to")
    }
}

impl Error for NoWay {}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is replaced by that of the URL.
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await;
            let addresses = addresses.map_err(|error| LookupError(unless_short(error)))?;
            // The client tells the error of the last address alone. That of one without a way would
            // hide that the others refuse.
            let addresses: Vec<_> = addresses.filter(|address| has_way(address.ip())).collect();
            if addresses.is_empty() {
                return Err(NoWay.into());
            }
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

/// The error of a lookup, or what this machine lacks: the system's lookup reports a missing
/// descriptor as a name that is not there.
fn unless_short(error: io::Error) -> io::Error {
    match UdpSocket::bind(("127.0.0.1", 0)) {
        Err(short) if is_shortage(&short) => short,
        Ok(_) | Err(_) => error,
    }
}

/// Whether this machine has an address of its own from which it can send there. Connecting a
/// datagram socket asks just that, and sends nothing.
fn has_way(to: IpAddr) -> bool {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    // The port is never reached; 0 is refused by some systems.
    let tried = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(SocketAddr::new(to, 9)));
    // Any other error shows up again, and is judged, when the check connects.
    !tried.is_err_and(|error| NO_WAY.contains(&error.raw_os_error().unwrap_or(0)))
}

/// Errors that stand for a missing address of one's own, or a missing protocol.
const NO_WAY: [i32; 3] = [libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT, libc::ENETUNREACH];

/// Errors of a machine that is out of something, whatever it talks to.
const SHORTAGES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];

fn is_shortage(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| SHORTAGES.contains(&code))
}

/// Whether an error of a socket is about this machine and not about `origin`.
fn is_local(origin: &Origin, error: &io::Error) -> bool {
    if error.raw_os_error() != Some(libc::EADDRNOTAVAIL) {
        return is_shortage(error);
    }
    // No port is left towards the origin, unless its address is of a kind that this machine has none
    // of. A name was looked up to addresses of the right kind.
    let host = origin.url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse();
    address.map_or(true, has_way)
}

/// Finds the cause in the chain of errors. The client nests them differently from case to case, so
/// every link is looked at.
fn fault(origin: &Origin, error: &reqwest::Error) -> Fault {
    let mut hung_up = false;
    let mut link: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = link {
        if let Some(LookupError(error)) = cause.downcast_ref() {
            return match is_shortage(error) {
                true => Fault::Local(error.to_string()),
                false => Fault::Origin(Reason::Dns),
            };
        }
        if cause.is::<rustls::Error>() {
            return Fault::Origin(Reason::Tls);
        }
        let io = cause.downcast_ref::<io::Error>();
        if let Some(io) = io.filter(|io| is_local(origin, io)) {
            return Fault::Local(io.to_string());
        }
        hung_up |= io.is_some_and(|io| HUNG_UP.contains(&io.kind()));
        // An I/O error's `source` is that of the error inside it: the inside itself would be
        // skipped.
        link = match io.and_then(io::Error::get_ref) {
            Some(inside) => Some(inside),
            None => cause.source(),
        };
    }
    Fault::Origin(if error.is_timeout() {
        Reason::Timeout
    } else if !error.is_connect() {
        Reason::Protocol
    } else if hung_up {
        Reason::Tls
    } else {
        Reason::Connect
    })
}

/// How a peer ends a handshake without a word. A plain connect never ends in these.
const HUNG_UP: [io::ErrorKind; 3] =
    [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn origin(url: &str, timeout: Duration) -> Origin {
        Origin {
            name: "tested".to_owned(),
            url: reqwest::Url::parse(url).expect("a URL"),
            interval: Duration::from_secs(60),
            timeout,
            healthy_threshold: 1,
            unhealthy_threshold: 1,
            expected_status: 200,
        }
    }

    async fn failure(checker: &Checker, origin: &Origin) -> Option<Reason> {
        checker.check(origin).await.expect("a check").failure
    }

    async fn read_request(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let byte = stream.read_u8().await.expect("a whole request");
            bytes.push(byte);
        }
        String::from_utf8(bytes).expect("text")
    }

    /// Answers one connection with `answer`, then closes; returns what a check says and the request
    /// it made.
    async fn check_against(scheme: &str, answer: &[u8]) -> (Outcome, Option<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("{scheme}://{}/health", listener.local_addr().expect("an address"));
        let checker = Checker::new("node-1", 1).expect("a client");
        let origin = origin(&url, Duration::from_secs(30));
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let request = match scheme {
                "http" => Some(read_request(&mut stream).await),
                _ => None,
            };
            // The checker may hang up first: it reads no more than it needs.
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
            // Reading to the end keeps the close orderly; a reset would take the answer with it.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            request
        };
        let (outcome, request) = tokio::join!(checker.check(&origin), serve);
        (outcome.expect("a check"), request)
    }

    #[tokio::test]
    async fn the_expected_status_is_success_and_names_the_checker() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let (outcome, request) = check_against("http", answer).await;
        assert_eq!(outcome.failure, None);
        assert!(outcome.latency > Duration::ZERO);
        let request = request.expect("a request");
        assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("x-origin-health-node: node-1\r\n"), "{request}");
    }

    #[tokio::test]
    async fn another_status_is_told() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(check_against("http", answer).await.0.failure, Some(Reason::Status(503)));
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let answer = b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(check_against("http", answer).await.0.failure, Some(Reason::Status(302)));
    }

    #[tokio::test]
    async fn a_body_above_the_cap_is_cut_and_no_fault() {
        let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n".to_vec();
        answer.resize(answer.len() + 2 * MAX_BODY, b'x');
        assert_eq!(check_against("http", &answer).await.0.failure, None);
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_a_protocol_fault() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
        assert_eq!(check_against("http", answer).await.0.failure, Some(Reason::Protocol));
    }

    #[tokio::test]
    async fn garbage_is_a_protocol_fault() {
        let (outcome, _) = check_against("http", b"SSH-2.0-nonsense\r\n\r\n").await;
        assert_eq!(outcome.failure, Some(Reason::Protocol));
    }

    #[tokio::test]
    async fn a_server_without_tls_is_a_tls_fault() {
        let (outcome, _) = check_against("https", b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        assert_eq!(outcome.failure, Some(Reason::Tls));
    }

    #[tokio::test]
    async fn hanging_up_in_the_handshake_is_a_tls_fault() {
        assert_eq!(check_against("https", b"").await.0.failure, Some(Reason::Tls));
    }

    #[tokio::test]
    async fn a_closed_port_is_a_connect_fault() {
        // Bound and never listened on: connections are refused, and nobody else can take the port.
        let held = tokio::net::TcpSocket::new_v4().expect("a socket");
        held.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let address = held.local_addr().expect("an address");
        let checker = Checker::new("node-1", 1).expect("a client");
        for scheme in ["http", "https"] {
            let origin = origin(&format!("{scheme}://{address}/"), Duration::from_secs(30));
            assert_eq!(failure(&checker, &origin).await, Some(Reason::Connect), "{scheme}");
        }
    }

    #[tokio::test]
    async fn a_name_without_address_is_a_dns_fault() {
        let checker = Checker::new("node-1", 1).expect("a client");
        let origin = origin("http://origin.invalid/", Duration::from_secs(60));
        assert_eq!(failure(&checker, &origin).await, Some(Reason::Dns));
    }

    #[tokio::test]
    async fn silence_is_a_timeout() {
        // The listener's queue completes the connection; nobody ever answers on it.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let checker = Checker::new("node-1", 1).expect("a client");
        let origin = origin(&url, Duration::from_millis(50));
        assert_eq!(failure(&checker, &origin).await, Some(Reason::Timeout));
    }

    /// A lookup that fails with this error of the system.
    struct Broken(i32);

    impl Resolve for Broken {
        fn resolve(&self, _: Name) -> Resolving {
            let error = LookupError(io::Error::from_raw_os_error(self.0));
            Box::pin(core::future::ready(Err(error.into())))
        }
    }

    #[tokio::test]
    async fn a_shortage_on_this_machine_is_no_check() {
        let origin = origin("http://origin.invalid/", Duration::from_secs(60));
        for code in SHORTAGES {
            let checker = Checker::with_lookup("node-1", 1, Broken(code)).expect("a client");
            let told = io::Error::from_raw_os_error(code).to_string();
            assert_eq!(checker.check(&origin).await, Err(Unchecked::Local(told)));
        }
        let checker = Checker::with_lookup("node-1", 1, Broken(libc::EIO)).expect("a client");
        assert_eq!(failure(&checker, &origin).await, Some(Reason::Dns));
    }

    #[test]
    fn errors_about_the_origin_are_told_from_those_about_this_machine() {
        let origin = origin("http://127.0.0.1:1/", Duration::from_secs(60));
        let local = |code| is_local(&origin, &io::Error::from_raw_os_error(code));
        assert!(SHORTAGES.into_iter().all(local));
        assert!(local(libc::EADDRNOTAVAIL), "loopback is there, so the ports are used up");
        for code in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ETIMEDOUT] {
            assert!(!local(code), "{code}");
        }
    }

    #[tokio::test]
    async fn a_check_without_a_seat_is_late() {
        let checker = Checker::new("node-1", 1).expect("a client");
        let origin = origin("http://127.0.0.1:1/", Duration::from_millis(50));
        let seat = checker.seats.acquire().await.expect("a seat");
        assert_eq!(checker.check(&origin).await, Err(Unchecked::Late));
        drop(seat);
        assert!(checker.check(&origin).await.is_ok());
        assert_eq!(checker.seats.available_permits(), 1, "it is given back");
    }
}
