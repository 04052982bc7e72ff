//! Socket and timer around one node, turned by a loop that belongs to somebody else.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use brickwork_core::{Event, Identity, Instant, Node};
use brickwork_store::{Recovery, Store, StoreError, Writer};
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};

use crate::clock::{self, Clock};
use crate::{BindError, Ingress, Options};

/// Most datagrams that one call of [`Driver::drive`] takes in before timers, sending and the rest of
/// the application's loop get their turn.
pub const BUDGET: usize = 64;

/// What a call of [`Driver::drive`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Datagrams read from the socket, refused and dropped ones included.
    pub received: usize,
    /// Whether there may be more to read. [`Driver::timeout`] is then zero.
    pub more: bool,
}

/// What the socket did since the start; all errors are survived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverStats {
    /// Datagrams that the system refused to send: lost, as on the way.
    pub send_errors: u64,
    /// Errors met on receiving.
    pub receive_errors: u64,
    /// Datagrams that the ingress hook dropped.
    pub dropped_by_ingress: u64,
    /// Times that the socket did not take a datagram, which was then held and sent later.
    pub send_blocked: u64,
}

/// One node and its socket, for a [`mio::Poll`] of the application's own.
///
/// Dropping it is a sudden death to the others. To go gracefully, call [`Node::leave`] in
/// [`with`](Self::with) and keep turning the loop until [`Event::LeaveFinished`].
pub struct Driver {
    socket: UdpSocket,
    local: SocketAddr,
    node: Node,
    clock: Clock,
    ingress: Option<Ingress>,
    inbox: Vec<u8>,
    outbox: Outbox,
    registered: Option<Registered>,
    /// Whether the socket may have more to read. Only a read that would block takes it back: readiness
    /// is reported once.
    readable: bool,
    store: Option<Kept>,
    stats: DriverStats,
}

/// A store that is open.
struct Kept {
    writer: Writer,
    /// Where the thread that writes says that something is durable: the poll cannot wait for a channel.
    woken: UdpSocket,
    recovery: Recovery,
    /// Told by the next turn of the loop.
    failure: Option<StoreError>,
    failed: bool,
}

/// What the selector was told.
#[derive(Debug, Clone, Copy)]
struct Registered {
    token: Token,
    /// Whether writability was asked for.
    writable: bool,
}

/// The way out, and the one datagram that did not fit through.
struct Outbox {
    buf: Vec<u8>,
    /// Destination and length of the datagram in `buf` that the socket did not take yet.
    held: Option<(SocketAddr, usize)>,
}

/// Start and registration.
impl Driver {
    /// Opens the socket. Nothing is sent before the first call of [`drive`](Self::drive) or
    /// [`with`](Self::with).
    ///
    /// # Errors
    ///
    /// [`BindError`]; the socket is closed again.
    pub fn bind(options: Options) -> Result<Self, BindError> {
        let Options { name, bind, advertise, zone, weight, meta, seeds, config, store, ingress } =
            options;
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy).map_err(BindError::Entropy)?;
        let refused = |error| BindError::Socket(bind, error);
        let socket = UdpSocket::bind(bind).map_err(refused)?;
        let local = socket.local_addr().map_err(refused)?;
        let identity = Identity::new(name, advertise.unwrap_or(local))
            .with_boot_epoch(clock::boot_epoch())
            .with_zone(zone)
            .with_weight(weight)
            .with_meta(meta);
        let max_datagram = config.max_datagram;
        let clock = Clock::start();
        let mut node =
            Node::new(clock.now(), identity, config, entropy).map_err(BindError::Config)?;
        let store = store.map(|path| Kept::open(&path, clock.now(), &mut node)).transpose();
        let store = store.map_err(BindError::Store)?;
        if !seeds.is_empty() {
            node.join(clock.now(), &seeds);
        }
        Ok(Self {
            socket,
            local,
            node,
            clock,
            ingress,
            inbox: vec![0; 65_536],
            outbox: Outbox { buf: vec![0; max_datagram], held: None },
            registered: None,
            // What the node owes at the start is sent by the call that this asks for.
            readable: true,
            store,
            stats: DriverStats::default(),
        })
    }

    /// Registers the socket under `token`, which must be no other source's of the same poll.
    ///
    /// # Errors
    ///
    /// Those of [`Registry::register`], for instance if the driver is registered already.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let writable = self.outbox.held.is_some();
        registry.register(&mut self.socket, token, interest(writable))?;
        if let Some(kept) = &mut self.store {
            registry.register(&mut kept.woken, token, Interest::READABLE)?;
        }
        self.registered = Some(Registered { token, writable });
        // Readiness that another poll reported may not be reported again by this one.
        self.readable = true;
        Ok(())
    }

    /// Takes the socket out of the poll. The node goes on when it is registered again; until then the
    /// others may take it for dead.
    ///
    /// # Errors
    ///
    /// Those of [`Registry::deregister`].
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.socket)?;
        if let Some(kept) = &mut self.store {
            registry.deregister(&mut kept.woken)?;
        }
        self.registered = None;
        Ok(())
    }
}

/// The turn of the loop.
impl Driver {
    /// How long [`mio::Poll::poll`] may wait on behalf of this driver, in whole milliseconds, rounded
    /// up; `None` if for ever. Zero if [`drive`](Self::drive) has something to do right now, with or
    /// without an event.
    ///
    /// To be asked anew before every wait: any input may move it.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        if self.readable || self.must_ask_for_writability() {
            return Some(Duration::ZERO);
        }
        self.node.poll_timeout().map(|at| clock::round_up(at - self.clock.now()))
    }

    /// Does what there is to do: reads until the socket would block or the [`BUDGET`] is used up, then
    /// fires the timers that are due, then sends until the node owes nothing or the socket blocks.
    ///
    /// To be called in every turn of the loop, with the event that was reported for this driver or
    /// with `None`; an event with another's token counts as `None`. Without an event, with no timer
    /// due and no datagram held it makes no system call.
    ///
    /// # Errors
    ///
    /// Those of [`Registry::reregister`], with `registry` that of another poll for instance, and, once, a
    /// [`StoreError`], after which the map tells the others nothing new: stop then. What goes wrong with a datagram is
    /// counted in [`stats`](Self::stats) and survived.
    pub fn drive(
        &mut self,
        registry: &Registry,
        event: Option<&mio::event::Event>,
    ) -> io::Result<Progress> {
        let token = self.registered.map(|registered| registered.token);
        // The socket's pending error, too, is fetched by a read. Writing is tried in any case.
        self.readable |= event.is_some_and(|event| {
            Some(event.token()) == token && (event.is_readable() || event.is_error())
        });
        if let Some(kept) = self.store.as_ref().filter(|_| self.readable) {
            // Readiness is reported once, so all of it is taken.
            while kept.woken.recv(&mut self.inbox).is_ok() {}
        }
        self.send();
        let mut received = 0;
        // What has arrived is heard before any timer judges by its absence, whether reported or not.
        if self.readable || self.is_due(self.clock.now()) {
            received = self.receive();
            let now = self.clock.now();
            if self.is_due(now) {
                self.node.handle_timeout(now);
            }
            self.send_unless_blocked();
        }
        self.update_interest(registry)?;
        if let Some(error) = self.store.as_mut().and_then(|kept| kept.failure.take()) {
            return Err(io::Error::other(error));
        }
        Ok(Progress { received, more: self.readable })
    }

    /// Runs `wish` on the node and sends what it makes the node owe. It may queue events, which no wait
    /// ends for: take them with [`poll_event`](Self::poll_event) before the next one.
    ///
    /// With a store, wishes that write without a pause wait here for the disk every now and then, a second at most:
    /// nothing of the map is sent while a write is not durable.
    pub fn with<R>(&mut self, wish: impl FnOnce(&mut Node, Instant) -> R) -> R {
        if let Some(kept) = &mut self.store {
            kept.wait(self.clock, &mut self.node);
            self.send();
        }
        let result = wish(&mut self.node, self.clock.now());
        self.send();
        result
    }

    /// The next event of the node, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.node.poll_event()
    }
}

/// Views.
impl Driver {
    /// The node, for its views.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// The address that the node listens on.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What was found in the store at the start; `None` without a store.
    #[must_use]
    pub fn recovery(&self) -> Option<Recovery> {
        self.store.as_ref().map(|kept| kept.recovery)
    }

    /// Counters of the socket; those of the node are in [`Node::stats`].
    #[must_use]
    pub const fn stats(&self) -> DriverStats {
        self.stats
    }
}

impl Driver {
    fn is_due(&self, now: Instant) -> bool {
        self.node.poll_timeout().is_some_and(|at| at <= now)
    }

    /// Takes in what has arrived and returns how many datagrams that were. Afterwards `readable` says
    /// whether there may be more.
    fn receive(&mut self) -> usize {
        self.readable = true;
        let mut received = 0;
        for _ in 0..BUDGET {
            match self.socket.recv_from(&mut self.inbox) {
                Ok((len, from)) => {
                    received += 1;
                    let packet = &mut self.inbox[..len];
                    if let Some(ingress) = &mut self.ingress
                        && !ingress(from, packet)
                    {
                        self.stats.dropped_by_ingress += 1;
                        continue;
                    }
                    // A refused packet is counted by the node; there is nothing else to do about it.
                    let _ = self.node.handle_packet(self.clock.now(), from, packet);
                    self.send_unless_blocked();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Errors of earlier sends (ECONNREFUSED and the like) come back here: never fatal.
                Err(_) => self.stats.receive_errors += 1,
            }
        }
        received
    }

    /// Sends until the node owes nothing or the socket blocks.
    fn send(&mut self) {
        if let Some(kept) = &mut self.store {
            kept.turn(self.clock, &mut self.node);
        }
        let socket = &self.socket;
        self.outbox.flush(&mut self.node, &mut self.stats, |payload, to| {
            socket.send_to(payload, to).map(|_| ())
        });
    }

    /// As [`send`](Self::send), but leaves a socket alone that blocked in the same turn.
    fn send_unless_blocked(&mut self) {
        if self.outbox.held.is_none() {
            self.send();
        }
    }

    /// Whether a datagram waits for the socket, and the selector does not know.
    fn must_ask_for_writability(&self) -> bool {
        self.outbox.held.is_some() && self.registered.is_some_and(|known| !known.writable)
    }

    /// Asks for writability while a datagram is held, and only then. The selector looks at the socket
    /// when it is asked, so a socket that took heart in the meantime is reported at once.
    fn update_interest(&mut self, registry: &Registry) -> io::Result<()> {
        let writable = self.outbox.held.is_some();
        if let Some(known) = &mut self.registered
            && known.writable != writable
        {
            registry.reregister(&mut self.socket, known.token, interest(writable))?;
            known.writable = writable;
        }
        Ok(())
    }
}

impl Kept {
    fn open(path: &Path, now: Instant, node: &mut Node) -> Result<Self, StoreError> {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let woken = UdpSocket::bind(any_port)?;
        let waker = std::net::UdpSocket::bind(any_port)?;
        waker.connect(woken.local_addr()?)?;
        waker.set_nonblocking(true)?;
        // Nobody else's datagrams.
        woken.connect(waker.local_addr()?)?;
        let (store, recovery) = Store::open(path, now, node)?;
        // One that is lost for lack of room is not needed: there is one before it.
        let writer = Writer::spawn(store, move || drop(waker.send(&[1])))?;
        Ok(Self { writer, woken, recovery, failure: None, failed: false })
    }

    /// Takes note of what is durable, and has written what is to be.
    fn turn(&mut self, clock: Clock, node: &mut Node) {
        if !self.failed
            && let Err(error) = self.writer.turn(clock.now(), node)
        {
            (self.failure, self.failed) = (Some(error), true);
        }
    }

    /// Waits if the map has been waiting for the disk for too long.
    fn wait(&mut self, clock: Clock, node: &mut Node) {
        while let Some(pause) = self.writer.pause(clock.now())
            && !self.failed
        {
            match self.writer.wait(pause) {
                Ok(Some(ticket)) => node.log_synced(clock.now(), ticket),
                Ok(None) => {}
                Err(error) => (self.failure, self.failed) = (Some(error), true),
            }
            self.turn(clock, node);
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("local", &self.local)
            .field("registered", &self.registered)
            .field("held", &self.outbox.held)
            .field("readable", &self.readable)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Outbox {
    /// Hands the held datagram, then what `node` owes, to `send` until that would block.
    fn flush(
        &mut self,
        node: &mut Node,
        stats: &mut DriverStats,
        mut send: impl FnMut(&[u8], SocketAddr) -> io::Result<()>,
    ) {
        loop {
            let (to, len) = match self.held.take() {
                Some(held) => held,
                None => match node.poll_transmit(&mut self.buf) {
                    Some(transmit) => (transmit.to, transmit.payload.len()),
                    None => return,
                },
            };
            match send(&self.buf[..len], to) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    stats.send_blocked += 1;
                    self.held = Some((to, len));
                    return;
                }
                // Nothing was sent, and nothing stands in the way of trying again.
                Err(error) if error.kind() == ErrorKind::Interrupted => self.held = Some((to, len)),
                // No buffers, no route, a message too long for the path: as if lost on the way.
                Err(_) => stats.send_errors += 1,
            }
        }
    }
}

fn interest(writable: bool) -> Interest {
    if writable { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use brickwork_core::Config;
    use mio::{Events, Poll};

    /// Far beyond what anything here takes; only a hang meets it.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn addr(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    /// A node that owes one datagram to each of its seeds.
    fn knocking(seeds: &[SocketAddr]) -> Node {
        let identity = Identity::new("a", addr(1));
        let mut node = Node::new(Instant::ZERO, identity, Config::local(), [7; 32]).unwrap();
        node.join(Instant::ZERO, seeds);
        node
    }

    fn outbox() -> Outbox {
        Outbox { buf: vec![0; 1_400], held: None }
    }

    #[test]
    fn a_blocked_datagram_is_held_and_sent_first_unchanged() {
        let mut node = knocking(&[addr(2), addr(3)]);
        let (mut outbox, mut stats) = (outbox(), DriverStats::default());
        let mut refused = Vec::new();
        let blocked = || Err(io::Error::from(ErrorKind::WouldBlock));
        for _ in 0..2 {
            outbox.flush(&mut node, &mut stats, |payload, to| {
                refused.push((to, payload.to_vec()));
                blocked()
            });
        }
        assert_eq!(refused.len(), 2, "one attempt per turn");
        assert_eq!(refused[0], refused[1], "the same datagram");
        assert_eq!(stats.send_blocked, 2);

        let mut sent = Vec::new();
        outbox.flush(&mut node, &mut stats, |payload, to| {
            sent.push((to, payload.to_vec()));
            Ok(())
        });
        assert_eq!(sent[0], refused[0]);
        let mut targets: Vec<_> = sent.iter().map(|(to, _)| *to).collect();
        targets.sort_unstable();
        assert_eq!(targets, [addr(2), addr(3)], "nothing lost, nothing twice");
        assert!(outbox.held.is_none());
    }

    #[test]
    fn errors_lose_one_datagram_each_and_an_interruption_none() {
        let mut node = knocking(&[addr(2), addr(3), addr(4)]);
        let (mut outbox, mut stats) = (outbox(), DriverStats::default());
        let mut answers = [
            Err(ErrorKind::HostUnreachable),
            Err(ErrorKind::Interrupted),
            Ok(()),
            Err(ErrorKind::ConnectionRefused),
        ]
        .into_iter();
        outbox.flush(&mut node, &mut stats, |_, _| answers.next().unwrap().map_err(Into::into));
        assert_eq!(answers.next(), None, "every datagram was tried");
        assert_eq!(stats, DriverStats { send_errors: 2, ..DriverStats::default() });
    }

    #[test]
    fn writability_is_asked_for_only_while_a_datagram_is_held() {
        let peer = std::net::UdpSocket::bind(addr(0)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut driver = Driver::bind(Options::new("a", addr(0)).config(Config::local())).unwrap();
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(8);
        driver.register(poll.registry(), Token(3)).unwrap();
        driver.drive(poll.registry(), None).unwrap();
        assert_ne!(driver.timeout(), Some(Duration::ZERO), "nothing to do");

        // As a wish leaves it when the socket blocks.
        driver.outbox.buf[..4].copy_from_slice(b"held");
        driver.outbox.held = Some((peer.local_addr().unwrap(), 4));
        assert_eq!(driver.timeout(), Some(Duration::ZERO), "the selector must be asked first");
        driver.update_interest(poll.registry()).unwrap();
        assert_ne!(driver.timeout(), Some(Duration::ZERO));

        // A loopback socket is writable: asking is answered by an event.
        poll.poll(&mut events, Some(PATIENCE)).unwrap();
        let event = events.iter().find(|event| event.is_writable()).expect("writable");
        driver.drive(poll.registry(), Some(event)).unwrap();
        let mut buf = [0; 16];
        assert_eq!(peer.recv(&mut buf).unwrap(), 4);
        assert_eq!(&buf[..4], b"held");
        assert!(driver.outbox.held.is_none());
        assert!(driver.registered.is_some_and(|known| !known.writable));
    }
}
