//! The task: socket, timer and commands around one node.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};

use brickwork_core::{Event, Instant, Node};
use brickwork_store::{Recovery, StoreError, Writer};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::time::sleep_until;

use crate::Ingress;
use crate::clock::Clock;
use crate::handle::{Command, Counters, Handle, LeaveReport};

/// Commands that wait before callers do.
const MAX_COMMANDS: usize = 1_024;
/// Events that a slow receiver may lag behind.
const MAX_EVENTS: usize = 16_384;
/// Datagrams taken in, and commands run, before the timer and the sender get their turn.
const BUDGET: usize = 256;

/// A store that is open.
pub(crate) struct Kept {
    pub(crate) writer: Writer,
    /// Notified when something is durable.
    pub(crate) wake: Arc<Notify>,
    pub(crate) recovery: Recovery,
}

/// What the task owns.
struct Driver {
    socket: UdpSocket,
    node: Node,
    clock: Clock,
    commands: mpsc::Receiver<Command>,
    events: broadcast::Sender<Event>,
    left: watch::Sender<Option<LeaveReport>>,
    counters: Arc<Counters>,
    ingress: Option<Ingress>,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// The one datagram in `outbox` that the socket did not take yet.
    held: Option<(SocketAddr, usize)>,
    store: Option<Kept>,
    /// Changes when more is durable than before.
    durable: watch::Sender<()>,
    failure: Arc<OnceLock<StoreError>>,
}

pub(crate) fn spawn(
    socket: UdpSocket,
    local: SocketAddr,
    node: Node,
    clock: Clock,
    max_datagram: usize,
    ingress: Option<Ingress>,
    store: Option<Kept>,
) -> Handle {
    let (commands_in, commands) = mpsc::channel(MAX_COMMANDS);
    let (events, first) = broadcast::channel(MAX_EVENTS);
    let (left_in, left) = watch::channel(None);
    let counters = Arc::new(Counters::default());
    let weak = events.downgrade();
    let recovery = store.as_ref().map(|kept| kept.recovery);
    let (durable_in, durable) = watch::channel(());
    let failure = Arc::new(OnceLock::new());
    let driver = Driver {
        socket,
        node,
        clock,
        commands,
        events,
        left: left_in,
        counters: Arc::clone(&counters),
        ingress,
        inbox: vec![0; 65_536],
        outbox: vec![0; max_datagram],
        held: None,
        store,
        durable: durable_in,
        failure: Arc::clone(&failure),
    };
    let task = tokio::spawn(driver.run()).abort_handle();
    let first = Arc::new(Mutex::new(Some(first)));
    let commands = commands_in;
    Handle {
        local,
        commands,
        events: weak,
        first,
        left,
        counters,
        recovery,
        durable,
        failure,
        task,
    }
}

impl Driver {
    async fn run(mut self) {
        loop {
            self.send();
            if self.publish() || self.failure.get().is_some() {
                return;
            }
            // Re-armed on every turn, also when a timer is armed already.
            let pause = self.pause();
            let deadline = self.node.poll_timeout().into_iter().chain(pause).min();
            let deadline = deadline.and_then(|at| self.clock.to_tokio(at));
            let due = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let interest = match self.held {
                Some(_) => Interest::READABLE | Interest::WRITABLE,
                None => Interest::READABLE,
            };
            let wake = self.store.as_ref().map(|kept| Arc::clone(&kept.wake));
            tokio::select! {
                // An error here is met again, and counted, by the receive below.
                _ = self.socket.ready(interest) => {}
                command = self.commands.recv(), if pause.is_none() => match command {
                    Some(command) => command(&mut self.node, self.clock.now()),
                    None => return,
                },
                () = due => {}
                () = woken(wake.as_deref()) => {}
            }
            // What is known to have arrived is heard before any timer judges by its absence. After a
            // stall there may be more; the node then sees that its timers are late, and holds back.
            let busy = self.receive() | self.run_commands();
            let now = self.clock.now();
            if self.node.poll_timeout().is_some_and(|at| at <= now) {
                self.node.handle_timeout(now);
            }
            if busy {
                // A socket that is never drained would keep the other tasks of this thread waiting.
                self.send();
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes in what has arrived. Returns whether there may be more.
    fn receive(&mut self) -> bool {
        for _ in 0..BUDGET {
            match self.socket.try_recv_from(&mut self.inbox) {
                Ok((len, from)) => {
                    let packet = &mut self.inbox[..len];
                    if let Some(ingress) = &mut self.ingress
                        && !ingress(from, packet)
                    {
                        self.counters.dropped_by_ingress.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    // A refused packet is counted by the node; there is nothing else to do about it.
                    let _ = self.node.handle_packet(self.clock.now(), from, packet);
                    self.send();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // Errors of earlier sends (ECONNREFUSED and the like) come back here: never fatal.
                Err(_) => {
                    self.counters.receive_errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        true
    }

    /// Runs the commands that wait. Returns whether there may be more.
    fn run_commands(&mut self) -> bool {
        for _ in 0..BUDGET {
            if self.pause().is_some() {
                return false;
            }
            let Ok(command) = self.commands.try_recv() else { return false };
            command(&mut self.node, self.clock.now());
        }
        true
    }

    /// Until when commands wait for the disk.
    fn pause(&self) -> Option<Instant> {
        let kept = self.store.as_ref()?;
        let now = self.clock.now();
        kept.writer.pause(now).map(|pause| now + pause)
    }

    /// Takes note of what is durable, and has written what is to be.
    fn keep(&mut self) {
        let Some(kept) = &mut self.store else { return };
        match kept.writer.turn(self.clock.now(), &mut self.node) {
            Ok(false) => {}
            Ok(true) => drop(self.durable.send(())),
            // Once only: the task ends.
            Err(error) => drop(self.failure.set(error)),
        }
    }

    /// Sends until the node owes nothing or the socket blocks.
    fn send(&mut self) {
        self.keep();
        loop {
            let (to, len) = match self.held.take() {
                Some(held) => held,
                None => match self.node.poll_transmit(&mut self.outbox) {
                    Some(transmit) => (transmit.to, transmit.payload.len()),
                    None => return,
                },
            };
            match self.socket.try_send_to(&self.outbox[..len], to) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.held = Some((to, len));
                    return;
                }
                Err(_) => {
                    self.counters.send_errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Hands out events. Returns whether the node has left.
    fn publish(&mut self) -> bool {
        let mut finished = false;
        while let Some(event) = self.node.poll_event() {
            if let Event::LeaveFinished { acknowledged } = event {
                finished = true;
                self.left.send_replace(Some(LeaveReport { acknowledged }));
            }
            // Nobody listening is fine.
            let _ = self.events.send(event);
        }
        finished
    }
}

/// Until the store has something to tell.
async fn woken(wake: Option<&Notify>) {
    match wake {
        Some(wake) => wake.notified().await,
        None => std::future::pending().await,
    }
}
