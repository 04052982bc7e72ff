//! Nodes under mio and nodes under tokio are one cluster.
//!
//! Goal: members, owners and map agree whichever driver a node runs on, also after one has died.
//! Method: every node is asked, after each of its turns, whether it has arrived at the state that
//! follows from the names alone.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use brickwork_core::hrw::{View, key_hash};
use brickwork_mio::{Config, Driver, Node, NodeId, Options};
use brickwork_tokio::Handle;
use mio::{Events, Poll, Token, Waker};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Far beyond what anything here takes; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

const NODE: Token = Token(0);
const COMMANDS: Token = Token(1);

/// The key that the node called `name` writes in the given round.
fn key(name: &str, round: u8) -> Vec<u8> {
    format!("{name}/{round}").into_bytes()
}

/// What all nodes must arrive at.
#[derive(Clone)]
struct Expected {
    members: Vec<NodeId>,
    map: Vec<Vec<u8>>,
}

impl Expected {
    fn new(live: &[&str], map: &[Vec<u8>]) -> Self {
        let mut members: Vec<_> = live.iter().map(|name| NodeId::from_name(name)).collect();
        members.sort_unstable();
        let mut map = map.to_vec();
        map.sort_unstable();
        Self { members, map }
    }

    /// Every value is its own key.
    fn is_met(&self, node: &Node) -> bool {
        let mut members: Vec<_> = node.members().map(brickwork_mio::Member::id).collect();
        members.sort_unstable();
        let mut map: Vec<_> = node.iter().collect();
        map.sort_unstable();
        let view: View = self.members.iter().copied().collect();
        members == self.members
            && map.iter().all(|(key, value)| key == value)
            && map.iter().map(|(key, _)| *key).eq(self.map.iter().map(Vec::as_slice))
            && (0..64_u32).all(|n| {
                let key = n.to_le_bytes();
                node.owner(&key) == view.owner(key_hash(&key))
            })
    }
}

enum Command {
    Insert(Vec<u8>),
    Await(Expected, oneshot::Sender<()>),
    Die,
}

/// A node in a thread with a poll of its own.
struct MioNode {
    local: SocketAddr,
    commands: mpsc::Sender<Command>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl MioNode {
    fn start(name: &str, seeds: &[SocketAddr]) -> Self {
        let mut options = Options::new(name, ([127, 0, 0, 1], 0).into()).config(Config::local());
        options.seeds.extend(seeds);
        let driver = Driver::bind(options).unwrap();
        let local = driver.local_addr();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), COMMANDS).unwrap());
        let (commands, inbox) = mpsc::channel();
        let thread = Some(std::thread::spawn(move || run(driver, poll, &inbox)));
        Self { local, commands, waker, thread }
    }

    fn tell(&self, command: Command) {
        self.commands.send(command).unwrap();
        self.waker.wake().unwrap();
    }
}

impl Drop for MioNode {
    fn drop(&mut self) {
        // The thread may be over because of a panic, which the join then shows.
        let _ = self.commands.send(Command::Die);
        let _ = self.waker.wake();
        let over = self.thread.take().unwrap().join();
        assert!(over.is_ok() || std::thread::panicking());
    }
}

/// The loop of one thread. Dropping the driver at its end is the sudden death.
fn run(mut driver: Driver, mut poll: Poll, inbox: &mpsc::Receiver<Command>) {
    let mut ready = Events::with_capacity(16);
    let mut waiting: Vec<(Expected, oneshot::Sender<()>)> = Vec::new();
    driver.register(poll.registry(), NODE).unwrap();
    loop {
        poll.poll(&mut ready, driver.timeout()).unwrap();
        let event = ready.iter().find(|event| event.token() == NODE);
        driver.drive(poll.registry(), event).unwrap();
        while driver.poll_event().is_some() {}
        for command in inbox.try_iter() {
            match command {
                Command::Insert(key) => {
                    driver.with(|node, now| node.insert(now, &key, &key)).unwrap();
                }
                Command::Await(expected, reply) => waiting.push((expected, reply)),
                Command::Die => return,
            }
        }
        for (_, reply) in waiting.extract_if(.., |(expected, _)| expected.is_met(driver.node())) {
            let _ = reply.send(());
        }
    }
}

/// A member of the cluster, whatever drives it.
enum Peer {
    Mio(MioNode),
    Tokio(Handle),
}

impl Peer {
    async fn start(name: &str, seeds: &[SocketAddr]) -> Self {
        if name.starts_with("mio") {
            return Self::Mio(MioNode::start(name, seeds));
        }
        let any_port = ([127, 0, 0, 1], 0).into();
        let mut options = brickwork_tokio::Options::new(name, any_port).config(Config::local());
        options.seeds.extend(seeds);
        Self::Tokio(brickwork_tokio::bind(options).await.unwrap())
    }

    fn local_addr(&self) -> SocketAddr {
        match self {
            Self::Mio(node) => node.local,
            Self::Tokio(handle) => handle.local_addr(),
        }
    }

    async fn insert(&self, key: Vec<u8>) {
        match self {
            Self::Mio(node) => node.tell(Command::Insert(key)),
            Self::Tokio(handle) => {
                handle.call(move |node, now| node.insert(now, &key, &key)).await.unwrap().unwrap();
            }
        }
    }

    async fn until(&self, expected: &Expected) {
        let wait = async {
            match self {
                Self::Mio(node) => {
                    let (reply, done) = oneshot::channel();
                    node.tell(Command::Await(expected.clone(), reply));
                    done.await.unwrap();
                }
                Self::Tokio(handle) => {
                    let mut events = handle.events();
                    loop {
                        let expected = expected.clone();
                        if handle.call(move |node, _| expected.is_met(node)).await.unwrap() {
                            return;
                        }
                        events.next().await.unwrap();
                    }
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("it never came about");
    }
}

const NAMES: [&str; 4] = ["mio-1", "tokio-1", "mio-2", "tokio-2"];

async fn survive_the_death_of(victim: &str) {
    let mut peers: Vec<(&str, Peer)> = Vec::new();
    for name in NAMES {
        // Everyone knocks at the node before it, so mio admits tokio and the other way round.
        let seeds: Vec<_> = peers.last().map(|(_, peer)| peer.local_addr()).into_iter().collect();
        peers.push((name, Peer::start(name, &seeds).await));
    }
    let mut keys = Vec::new();
    for (name, peer) in &peers {
        keys.push(key(name, 1));
        peer.insert(key(name, 1)).await;
    }
    let all = Expected::new(&NAMES, &keys);
    for (_, peer) in &peers {
        peer.until(&all).await;
    }

    let index = peers.iter().position(|(name, _)| *name == victim).unwrap();
    match peers.remove(index).1 {
        Peer::Mio(node) => drop(node),
        Peer::Tokio(handle) => handle.abort(),
    }
    for (name, peer) in &peers {
        keys.push(key(name, 2));
        peer.insert(key(name, 2)).await;
    }
    let live: Vec<_> = peers.iter().map(|(name, _)| *name).collect();
    let rest = Expected::new(&live, &keys);
    for (_, peer) in &peers {
        peer.until(&rest).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_mixed_cluster_survives_a_mio_node() {
    survive_the_death_of("mio-1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_mixed_cluster_survives_a_tokio_node() {
    survive_the_death_of("tokio-1").await;
}
