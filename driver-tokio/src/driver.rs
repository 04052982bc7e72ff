//! The task: socket, timer and commands around one node.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use brickwork_core::{Event, Node};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{broadcast, mpsc, watch};
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
}

pub(crate) fn spawn(
    socket: UdpSocket,
    local: SocketAddr,
    node: Node,
    clock: Clock,
    max_datagram: usize,
    ingress: Option<Ingress>,
) -> Handle {
    let (commands_in, commands) = mpsc::channel(MAX_COMMANDS);
    let (events, first) = broadcast::channel(MAX_EVENTS);
    let (left_in, left) = watch::channel(None);
    let counters = Arc::new(Counters::default());
    let weak = events.downgrade();
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
    };
    let task = tokio::spawn(driver.run()).abort_handle();
    let first = Arc::new(Mutex::new(Some(first)));
    Handle { local, commands: commands_in, events: weak, first, left, counters, task }
}

impl Driver {
    async fn run(mut self) {
        loop {
            self.send();
            if self.publish() {
                return;
            }
            // Re-armed on every turn, also when a timer is armed already.
            let deadline = self.node.poll_timeout().and_then(|at| self.clock.to_tokio(at));
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
            tokio::select! {
                // An error here is met again, and counted, by the receive below.
                _ = self.socket.ready(interest) => {}
                command = self.commands.recv() => match command {
                    Some(command) => command(&mut self.node, self.clock.now()),
                    None => return,
                },
                () = due => {}
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
            let Ok(command) = self.commands.try_recv() else { return false };
            command(&mut self.node, self.clock.now());
        }
        true
    }

    /// Sends until the node owes nothing or the socket blocks.
    fn send(&mut self) {
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
