//! How to test a program of your own: jobs for a cluster without a leader.
//!
//! A worker embeds a [`Node`](brickwork_core::Node) and adds a protocol of its own on the same socket:
//! a client asks any worker for a job, the worker puts it into the map and says that it has it, the
//! owner of the job's key runs it and puts the result into the map. The program is a state machine like
//! the core: [`Worker::turn`] is all that a real loop would call between its socket and its clock.
//!
//! The test runs workers and a client on a [`Network`]: virtual time, loss, a partition, a clock that is
//! fast, a socket that holds little and a worker that stands still, all from a seed. Its invariant is the
//! program's own: whatever was acknowledged is done when the faults are over, and all workers tell the same
//! results. In your program this file would be in `tests/`, with `brickwork-core = { features = ["sim"] }`
//! among the `dev-dependencies`, and `Worker` would name its node `Node` and be generic, or have the alias
//! below under `cfg(test)`.
//!
//! `cargo run -p brickwork-core --example own_embedding -- 7` runs one seed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::sim::{
    Checked, Condition, Fault, Happening, Input, Links, Network, Nodes, Trouble,
};
use brickwork_core::{Config, ConfigError, Event, Identity, Instant, NodeId};

/// In production a `brickwork_core::Node`; here one whose promises are asserted.
type Node = Checked;

/// Datagrams of this program begin with these bytes, those of the core with another.
const REQUEST: u8 = b'?';
const ACCEPTED: u8 = b'!';

/// The program: a node, and what it does with it.
struct Worker {
    node: Node,
    /// Jobs that ran here.
    ran: usize,
}

impl Worker {
    fn new(
        now: Instant,
        name: &str,
        addr: SocketAddr,
        seeds: &[SocketAddr],
    ) -> Result<Self, ConfigError> {
        let entropy = [name.as_bytes()[name.len() - 1]; 32]; // from the system in production
        let mut node = Node::new(now, Identity::new(name, addr), Config::local(), entropy)?;
        node.join(now, seeds);
        Ok(Self { node, ran: 0 })
    }

    /// Takes an input and returns what to answer, to whom. What the node owes is polled by the loop.
    fn turn(&mut self, now: Instant, what: Happening) -> Option<(SocketAddr, Vec<u8>)> {
        let mut answer = None;
        match what {
            Happening::Datagram { from, bytes, .. } if bytes.first() == Some(&REQUEST) => {
                // A full map takes nothing: no answer, and the client asks somebody else.
                let taken = self.node.insert(now, &key(b"job/", &bytes[1..]), b"").is_ok();
                answer = taken.then(|| (from, [&[ACCEPTED], &bytes[1..]].concat()));
            }
            Happening::Datagram { from, mut bytes, .. } => {
                let _ = self.node.handle_packet(now, from, &mut bytes); // counted by the node
            }
            Happening::Timer => self.node.handle_timeout(now),
            // The loop polls after every input anyway.
            Happening::Writable | _ => {}
        }
        let mut news = answer.is_some();
        while let Some(event) = self.node.poll_event() {
            // Whatever changes jobs or owners can make this worker the one that must run.
            news |= !matches!(event, Event::Suspected { .. } | Event::Recovered { .. });
        }
        if news {
            self.work(now);
        }
        answer
    }

    /// Runs what this worker owns and nobody has done.
    fn work(&mut self, now: Instant) {
        let node = self.node.node();
        let jobs = node.iter().filter_map(|(key, _)| key.strip_prefix(b"job/"));
        let mine = jobs.filter(|job| {
            node.owner(job) == Some(node.id()) && node.get(&key(b"done/", job)).is_none()
        });
        let mine: Vec<_> = mine.map(<[u8]>::to_vec).collect();
        for job in mine {
            let result: Vec<u8> = job.iter().rev().copied().collect();
            if self.node.insert(now, &key(b"done/", &job), &result).is_ok() {
                self.ran += 1;
            }
        }
    }

    /// What there is of jobs with this prefix, in the order of their names.
    fn list(&self, prefix: &[u8]) -> BTreeSet<(Vec<u8>, Vec<u8>)> {
        let all = self.node.node().iter();
        all.filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_vec(), value.to_vec())))
            .collect()
    }

    fn owner(&self, job: &[u8]) -> Option<NodeId> {
        self.node.node().owner(job)
    }
}

fn key(prefix: &[u8], job: &[u8]) -> Vec<u8> {
    [prefix, job].concat()
}

/// Asks for jobs, one worker after the other, until somebody has each.
#[derive(Default)]
struct Client {
    waiting: Vec<Vec<u8>>,
    accepted: Vec<Vec<u8>>,
    tries: usize,
}

impl Client {
    const RETRY: Duration = Duration::from_millis(100);

    fn turn(&mut self, net: &mut Network, place: usize, workers: usize, input: Input) {
        if let Happening::Datagram { bytes, .. } = &input.what
            && let Some((&ACCEPTED, job)) = bytes.split_first()
            && let Some(at) = self.waiting.iter().position(|waiting| waiting == job)
        {
            self.accepted.push(self.waiting.remove(at));
        }
        if input.what == Happening::Timer {
            for job in &self.waiting {
                self.tries += 1;
                let worker = net.addr(self.tries % workers);
                net.send(place, worker, &[&[REQUEST], &job[..]].concat());
            }
            net.arm(place, Some(input.now + Self::RETRY));
        }
    }
}

/// The world of a test: workers at the first places, a client at the last.
struct World {
    net: Network,
    workers: Vec<Worker>,
    client: Client,
}

const WORKERS: usize = 5;

impl World {
    fn new(seed: u64) -> Result<Self, ConfigError> {
        let mut net = Network::new(seed);
        let addr = |place: usize| SocketAddr::from(([10, 0, 0, 1], 7_000 + place as u16));
        let mut workers = Vec::new();
        for place in 0..WORKERS {
            let place = net.bind(addr(place));
            let name = format!("worker-{place}");
            let mut worker = Worker::new(net.clock(place), &name, addr(place), &[addr(0)])?;
            net.serve(place, &mut worker.node);
            workers.push(worker);
        }
        let client = net.bind(addr(WORKERS));
        net.arm(client, Some(net.clock(client)));
        Ok(Self { net, workers, client: Client::default() })
    }

    /// The loop around the programs: what a real one does with a socket and a clock.
    fn run(&mut self, time: Duration) {
        let end = self.net.now() + time;
        while let Some(input) = self.net.next(end) {
            let place = input.place;
            let Some(worker) = self.workers.get_mut(place) else {
                self.client.turn(&mut self.net, place, WORKERS, input);
                continue;
            };
            if let Some((to, answer)) = worker.turn(input.now, input.what) {
                self.net.send(place, to, &answer);
            }
            self.net.serve(place, &mut worker.node);
        }
    }

    fn ask(&mut self, job: usize) {
        self.client.waiting.push(format!("{job}").into_bytes());
    }
}

/// Two seconds to meet, trouble, and then time to agree.
fn story(seed: u64) -> Result<World, ConfigError> {
    let mut world = World::new(seed)?;
    world.run(Duration::from_secs(2));
    let second = Duration::from_secs(1);
    let everywhere = Links::all();
    world.net.begin(Fault::Link(everywhere.clone(), Condition::Loss(100)));
    world.net.begin(Fault::Link(everywhere, Condition::Duplicate { permille: 50, within: second }));
    for job in 0..60 {
        match job {
            10 => {
                let fast = Fault::Node(Nodes::one(2), Trouble::ClockRate(50_000));
                let small = Fault::Node(Nodes::one(0), Trouble::SmallOutbox(2));
                for fault in [fast, small] {
                    world.net.begin(fault);
                }
            }
            // The client and three workers on one side, two workers on the other, for 20 seconds.
            20 => {
                let side = Links::around(&Nodes::Only(vec![3, 4]));
                world.net.begin(Fault::Link(side, Condition::Cut));
            }
            // A worker that owns jobs stands still, and is alone when it goes on.
            30 => drop(world.net.begin(Fault::Node(Nodes::one(1), Trouble::Pause))),
            40 => world.net.calm(),
            _ => {}
        }
        world.ask(job);
        world.run(second);
    }
    world.run(Duration::from_secs(30));
    Ok(world)
}

/// What this program promises its users.
fn judge(world: &World) {
    assert_eq!(world.client.waiting, Vec::<Vec<u8>>::new(), "every job is taken by somebody");
    let first = world.workers[0].list(b"done/");
    for job in &world.client.accepted {
        let result: Vec<u8> = job.iter().rev().copied().collect();
        assert!(first.contains(&(job.clone(), result)), "{job:?} is accepted and not done");
    }
    for worker in &world.workers {
        assert_eq!(worker.list(b"done/"), first, "all tell the same results");
        for job in &world.client.accepted {
            assert_eq!(worker.owner(job), world.workers[0].owner(job), "all know whom to ask");
        }
    }
    let ran: usize = world.workers.iter().map(|worker| worker.ran).sum();
    assert!(ran >= world.client.accepted.len(), "nothing is done without being run");
}

fn main() -> Result<(), ConfigError> {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let world = story(seed)?;
    judge(&world);
    let ran: Vec<_> = world.workers.iter().map(|worker| worker.ran).collect();
    println!("seed {seed}: {} jobs, run by the workers {ran:?} times", world.client.accepted.len());
    println!("{:?}", world.net.traffic());
    Ok(())
}

#[test]
fn every_accepted_job_is_done_and_all_agree() {
    for seed in 0..10 {
        println!("seed {seed}");
        judge(&story(seed).expect("the settings are good"));
    }
}
