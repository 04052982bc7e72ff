//! What is left of keys that come and go, and of nodes that start again and again without their state.
//!
//! Four bare maps in virtual time. Two write fresh keys and remove them soon after, while the fourth is down; then the
//! third starts again, over and over, each life with a write and a removal of its own. At the end nothing of all that is
//! of any use, so the heap should be what it was before. What is compared is taken after a hundredth of the churn, for
//! buffers that grow once and are kept; the heap of the maps with nothing but what stays is printed beside it. If it has
//! grown by more than a twentieth the program fails.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use brickwork_bench::alloc;
use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Instant, NodeId};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

/// Measures what is left of keys that came and went, and of lives that are over.
#[derive(Debug, Clone, Parser)]
struct Args {
    /// Keys that are written and removed again.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(100_000..=1_000_000_000))]
    keys: u64,
    /// Starts without state. A hundredth of them should be about as many as lives are kept one by one.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10_000..=10_000_000))]
    restarts: u64,
    /// Keys that stay, with values of 32 bytes.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    stay: u64,
    /// Virtual minutes for which one is down while keys come and go.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    down: u64,
}

const NODES: u64 = 4;
/// Writes, and as many removals, between two looks at the clock.
const BATCH: u64 = 1_000;
/// How many batches a key lives.
const LIFE: usize = 5;
/// How long a node is up before it starts again.
const UPTIME: Duration = Duration::from_secs(1);
/// What is waited for at most until nothing is left to forget.
const PATIENCE: Duration = Duration::from_secs(600);
/// A gossip interval of the LAN profile.
const GOSSIP: Duration = Duration::from_millis(200);

fn addr(id: u64) -> SocketAddr {
    ([10, 0, 0, 1], id as u16).into()
}

fn map(id: u64, epoch: u64) -> Map {
    let mut entropy = [id as u8; 32];
    entropy[..8].copy_from_slice(&epoch.to_le_bytes());
    let mut config = Config::lan();
    // Events are taken at once.
    config.max_events = 64;
    let life = ReplicaId::new(NodeId(id), epoch);
    Map::new(Instant::ZERO, life, "churn", config, 1_400, entropy).expect("a sound configuration")
}

struct World {
    maps: Vec<Map>,
    epochs: [u64; NODES as usize],
    /// Which are up.
    up: [bool; NODES as usize],
    now: Instant,
    written: u64,
    /// How long a write of a new life took to arrive, beyond the first half second.
    longest: Duration,
}

impl World {
    fn new(stay: u64) -> Self {
        let maps = (1..=NODES).map(|id| map(id, 1)).collect();
        let all = [true; NODES as usize];
        let epochs = [1; NODES as usize];
        let mut world =
            Self { maps, epochs, up: all, now: Instant::ZERO, written: 0, longest: Duration::ZERO };
        for at in 0..world.maps.len() {
            world.meet(at);
        }
        for number in 0..stay {
            let key = format!("stays-{number:015}");
            let writer = number as usize % world.maps.len();
            world.maps[writer]
                .insert(world.now, key.as_bytes(), &[7; 32])
                .expect("far from limits");
            if number % BATCH == 0 {
                world.run(Duration::from_millis(10));
            }
        }
        world
    }

    /// Makes a node a peer of all others that are up, and those its peers.
    fn meet(&mut self, at: usize) {
        for other in (0..self.maps.len()).filter(|other| *other != at && self.up[*other]) {
            for (one, two) in [(at, other), (other, at)] {
                let id = two as u64 + 1;
                self.maps[one].peer_up(self.now, NodeId(id), self.epochs[two], addr(id));
            }
        }
    }

    fn lose(&mut self, at: usize) {
        self.up[at] = false;
        for other in (0..self.maps.len()).filter(|other| *other != at) {
            self.maps[other].peer_down(self.now, NodeId(at as u64 + 1));
            self.maps[at].peer_down(self.now, NodeId(other as u64 + 1));
        }
    }

    /// Carries all that is sent, without loss, until nothing is.
    fn carry(&mut self) {
        let mut buf = [0; 1_400];
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for at in 0..self.maps.len() {
                while let Some(sent) = self.maps[at].poll_transmit(&mut buf) {
                    let (to, len) = (usize::from(sent.to.port()) - 1, sent.payload.len());
                    if self.up[to] && self.up[at] {
                        quiet = false;
                        let from = addr(at as u64 + 1);
                        let taken = self.maps[to].handle_packet(self.now, from, &mut buf[..len]);
                        taken.expect("a sound datagram");
                    }
                }
                while self.maps[at].poll_event().is_some() {}
            }
        }
    }

    /// Lets so much time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.carry();
            let living = self.maps.iter().zip(self.up).filter(|(_, up)| *up);
            let due = living.filter_map(|(map, _)| map.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due < end) else { break };
            self.now = due.max(self.now);
            let (now, up) = (self.now, self.up);
            self.maps.iter_mut().zip(up).filter(|(_, up)| *up).for_each(|(map, _)| {
                map.handle_timeout(now);
            });
        }
        self.now = end;
    }

    /// Writes and removes fresh keys.
    fn churn(&mut self, keys: u64, time: Duration, bar: &ProgressBar) {
        let batches = keys / BATCH;
        let pause = time / u32::try_from(batches).expect("fewer keys");
        let mut old = VecDeque::new();
        for batch in 0..batches + LIFE as u64 {
            if batch < batches {
                old.push_back(self.written);
                for number in self.written..self.written + BATCH {
                    let key = format!("churn-{number:015}");
                    let writer = (number % 2) as usize;
                    let done = self.maps[writer].insert(self.now, key.as_bytes(), &[7; 32]);
                    done.expect("far from limits");
                }
                self.written += BATCH;
                bar.inc(BATCH);
            }
            let first = old.front().copied();
            if let Some(first) = first.filter(|_| old.len() > LIFE || batch >= batches) {
                old.pop_front();
                for number in first..first + BATCH {
                    let key = format!("churn-{number:015}");
                    // The other one removes it.
                    let remover = ((number + 1) % 2) as usize;
                    let removed = self.maps[remover].remove(self.now, key.as_bytes());
                    assert_eq!(removed, Ok(true), "a write has not arrived");
                }
            }
            self.run(pause);
        }
    }

    /// Starts the third node again, that often.
    fn restart(&mut self, times: u64, bar: &ProgressBar) {
        const AT: usize = 2;
        for _ in 0..times {
            self.lose(AT);
            self.run(Duration::from_millis(10));
            self.epochs[AT] += 1;
            self.maps[AT] = map(AT as u64 + 1, self.epochs[AT]);
            self.up[AT] = true;
            self.meet(AT);
            self.run(UPTIME / 2);
            let now = self.now;
            let done = self.maps[AT].insert(now, b"state of the third", &[7; 32]);
            done.expect("far from limits");
            let key = format!("life-{}", self.epochs[AT]);
            self.maps[AT].insert(now, key.as_bytes(), &[7; 32]).expect("far from limits");
            self.run(UPTIME / 2);
            // A new life may wait for seals.
            let written = self.now;
            while self.maps[0].get(key.as_bytes()).is_none() && self.now < written + PATIENCE {
                self.run(GOSSIP);
            }
            self.longest = self.longest.max(self.now - written);
            assert_eq!(self.maps[0].remove(self.now, key.as_bytes()), Ok(true));
            bar.inc(1);
        }
    }

    /// Waits until nothing is left to forget. Returns how long that took.
    fn settle(&mut self) -> Duration {
        let start = self.now;
        let left = |map: &Map| map.metadata() != (0, 0);
        while self.maps.iter().any(left) && self.now < start + PATIENCE {
            self.run(GOSSIP);
        }
        let took = self.now - start;
        // What is kept for the next news is given back when none came.
        self.run(Duration::from_secs(60));
        took
    }
}

/// What there is at some time.
struct State {
    heap: i64,
    by_size: [i64; alloc::CLASSES],
    keys: usize,
    metadata: usize,
}

fn look(world: &World, without: i64) -> State {
    let metadata = world.maps.iter().map(|map| map.metadata().0 + map.metadata().1).sum();
    let keys = world.maps.iter().map(Map::len).max().unwrap_or(0);
    let (heap, by_size) = (alloc::live_bytes() - without, alloc::live_by_size());
    State { heap, by_size, keys, metadata }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let style = ProgressStyle::with_template("{msg:>10} {bar:40} {pos}/{len} {eta}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(args.keys + args.keys / 100).with_style(style.clone());
    let bar = bar.with_message("keys");
    let restarts = ProgressBar::new(args.restarts + args.restarts / 100).with_style(style);
    let restarts = restarts.with_message("restarts");
    let without = alloc::live_bytes();
    let mut world = World::new(args.stay);
    world.settle();
    let nothing = look(&world, without);
    let down = Duration::from_secs(args.down * 60);
    world.churn(args.keys / 100, down / 100, &bar);
    world.restart(args.restarts / 100, &restarts);
    world.settle();
    let before = look(&world, without);
    world.lose(3);
    world.churn(args.keys, down, &bar);
    world.up[3] = true;
    world.meet(3);
    bar.finish();
    let after_keys = world.settle();
    let keys = look(&world, without);
    world.restart(args.restarts, &restarts);
    restarts.finish();
    let after_restarts = world.settle();
    let all = look(&world, without);
    let digest = world.maps[0].digest();
    assert!(world.maps.iter().all(|map| map.digest() == digest), "the maps differ");
    let waited = [None, None, Some(after_keys), Some(after_restarts)];
    let states = [nothing, before, keys, all];
    println!("{}", render(&args, &states, waited));
    println!("\n{}", profile(&states));
    let retired: Vec<u64> = world.maps.iter().map(|map| map.stats().retired).collect();
    println!("\nlives retired, by map: {retired:?}; a round of gossip is {GOSSIP:?}");
    println!("the slowest write of a new life took {:?} and at most half a second", world.longest);
    let grown = |state: &State| state.heap as f64 > states[1].heap as f64 * 1.05;
    let left = |state: &State| state.metadata > 0 || state.keys != states[1].keys;
    if states[2..].iter().any(|state| grown(state) || left(state)) {
        println!("something of what came and went is left");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn render(args: &Args, states: &[State; 4], waited: [Option<Duration>; 4]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "when",
        "keys",
        "marks and records",
        "heap of four maps",
        "to before",
        "forgotten after",
    ]);
    let names = [
        "only what stays".to_owned(),
        "before: a hundredth of the churn".to_owned(),
        format!("{} keys came and went, one was down for {} min", args.keys, args.down),
        format!("{} restarts with new epochs", args.restarts),
    ];
    let before = states[1].heap as f64;
    for ((name, state), waited) in names.into_iter().zip(states).zip(waited) {
        table.add_row([
            name,
            state.keys.to_string(),
            state.metadata.to_string(),
            format!("{:.1} kB", state.heap as f64 / 1e3),
            format!("{:.3}", state.heap as f64 / before),
            waited.map_or(String::new(), |time| format!("{:.1} s", time.as_secs_f64())),
        ]);
    }
    for column in 1..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Of which sizes the allocations are that make the difference, those of the program itself among them.
fn profile(states: &[State; 4]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "allocations of up to",
        "what stays",
        "before",
        "after the keys",
        "after the restarts",
    ]);
    for class in 0..alloc::CLASSES {
        let kilobytes = |state: &State| format!("{:.1} kB", state.by_size[class] as f64 / 1e3);
        if states.iter().any(|state| state.by_size[class] >= 10_000) {
            let size = format!("{} B", 1_u64 << class);
            table.add_row([vec![size], states.iter().map(kilobytes).collect()].concat());
        }
    }
    table.to_string()
}
