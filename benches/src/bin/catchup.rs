//! How long a new node takes until it has all that another one knows, over loopback through each driver, next to the
//! core without sockets and to the same bytes through bare sockets.
//!
//! The giver has forgotten its logs, as any has that runs for a while. So what is measured is a full sync with all
//! that belongs to it: the join, the pull, the units, and their adoption. Giver and taker share the machine.
//!
//! With loss the giver is a bare loop around the core that drops some of what it is sent and of what it sends. Bytes are
//! those of datagrams on their way to the taker, whether they arrive or not.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Clock};

use brickwork_core::{Config, Identity, Instant, Node};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use mio::{Events, Poll, Token};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Measures how long a new node takes until it has all entries of another.
#[derive(Debug, Clone, Parser)]
struct Args {
    /// Entries of the giver, with keys of 16 bytes and values of 32.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    entries: u32,
    /// Turns of each kind; the median is printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// Datagrams that are lost each way, in percent.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=50))]
    loss: u8,
}

/// Through what the entries go.
const NAMES: [&str; 3] = ["core alone", "tokio", "mio"];

/// What a newcomer needed.
#[derive(Debug, Clone, Copy)]
struct Taken {
    time: Duration,
    datagrams: u64,
    /// On their way to it.
    bytes: u64,
}

/// Bytes of a key and its value.
const ENTRY: u64 = 16 + 32;
/// Bytes that a replica asks for at a time, and those of a datagram.
const WINDOW: usize = 64 * 1024;
const DATAGRAM: usize = 1_400;
/// How often those who wait look.
const MOMENT: Duration = Duration::from_millis(1);

fn main() {
    let args = Args::parse();
    if args.loss > 0 {
        with_loss(&args);
        return;
    }
    let by_tokio = Giver::start(args.entries, give_by_tokio);
    let by_mio = Giver::start(args.entries, give_by_mio);
    let mut turns: [Vec<Taken>; 3] = Default::default();
    let mut bare = Vec::new();
    for round in 0..=args.rounds {
        let name = format!("taker-{round}");
        let taken = [
            core_alone(args.entries),
            take_by_tokio(&name, by_tokio.addr, args.entries),
            take_by_mio(&name, by_mio.addr, args.entries),
        ];
        let through_sockets = bare_sockets(taken[1].bytes);
        // The first round warms up.
        if round > 0 {
            bare.push(through_sockets);
            turns.iter_mut().zip(taken).for_each(|(turns, taken)| turns.push(taken));
        }
    }
    by_tokio.stop();
    by_mio.stop();
    println!("{} entries, medians of {} turns:\n", args.entries, args.rounds);
    println!("{}", render(args.entries, &NAMES, &turns, median(bare)));
}

/// The same through the drivers, from a giver behind a bad network.
fn with_loss(args: &Args) {
    let loss = args.loss;
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let giver = Giver::start(args.entries, move |entries, ready, stop| {
        give_with_loss(entries, loss, ready, stop, &counted);
    });
    let mut turns: [Vec<Taken>; 2] = Default::default();
    let mut bare = Vec::new();
    for round in 0..=args.rounds {
        let counting = |take: &dyn Fn() -> Taken| {
            let before = sent.load(Ordering::Relaxed);
            let taken = take();
            Taken { bytes: sent.load(Ordering::Relaxed) - before, ..taken }
        };
        let taken = [
            counting(&|| take_by_tokio(&format!("tokio-{round}"), giver.addr, args.entries)),
            counting(&|| take_by_mio(&format!("mio-{round}"), giver.addr, args.entries)),
        ];
        let through_sockets = bare_sockets(taken[0].bytes);
        if round > 0 {
            bare.push(through_sockets);
            turns.iter_mut().zip(taken).for_each(|(turns, taken)| turns.push(taken));
        }
    }
    giver.stop();
    let Args { entries, rounds, loss } = args;
    println!("{entries} entries, {loss} % lost each way, medians of {rounds} turns:\n");
    println!("{}", render(*entries, &NAMES[1..], &turns, median(bare)));
}

fn median<T: Ord + Copy>(mut of: Vec<T>) -> T {
    of.sort_unstable();
    of[of.len() / 2]
}

fn render(entries: u32, names: &[&str], turns: &[Vec<Taken>], bare: Duration) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "through",
        "time",
        "longest",
        "datagrams",
        "MB",
        "to keys and values",
        "to bare sockets",
    ]);
    let millis = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
    for (name, turns) in names.iter().zip(turns) {
        let times: Vec<Duration> = turns.iter().map(|taken| taken.time).collect();
        let longest = times.iter().max().copied().unwrap_or_default();
        let time = median(times);
        let datagrams = median(turns.iter().map(|taken| taken.datagrams).collect());
        let bytes = median(turns.iter().map(|taken| taken.bytes).collect()) as f64;
        table.add_row([
            (*name).to_owned(),
            millis(time),
            millis(longest),
            datagrams.to_string(),
            format!("{:.1}", bytes / 1e6),
            format!("{:.3}", bytes / (u64::from(entries) * ENTRY) as f64),
            format!("{:.2}", time.as_secs_f64() / bare.as_secs_f64()),
        ]);
    }
    table.add_row(["bare sockets", &millis(bare), "", "", "", "", "1.00"]);
    for column in 1..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn config() -> Config {
    let mut config = Config::lan();
    config.cluster = "catchup".to_owned();
    config.map.collect_interval = Duration::from_secs(1);
    config
}

fn localhost() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn fill(node: &mut Node, now: Instant, entries: u32) {
    for number in 0..entries {
        let (key, mut value) = (format!("origin-{number:09}"), [0; 32]);
        value[..4].copy_from_slice(&number.to_le_bytes());
        node.insert(now, key.as_bytes(), &value).expect("far from every limit");
        while node.poll_event().is_some() {}
    }
}

fn is_settled(node: &Node) -> bool {
    node.map().metadata() == (0, 0)
}

fn taken(node: &Node, since: Clock, entries: u32) -> Option<Taken> {
    let stats = node.stats();
    (node.map().len() == entries as usize).then(|| Taken {
        time: since.elapsed(),
        datagrams: stats.datagrams_sent + stats.datagrams_received,
        bytes: stats.bytes_received,
    })
}

/// A node with entries, on a thread of its own.
struct Giver {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Giver {
    /// Starts it, and waits until it has forgotten its logs.
    fn start(
        entries: u32,
        give: impl FnOnce(u32, &Sender<SocketAddr>, &AtomicBool) + Send + 'static,
    ) -> Self {
        let (ready, is_ready) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || give(entries, &ready, &stopped));
        Self { addr: is_ready.recv().expect("the giver starts"), stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the giver ends");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("the system allows it")
}

fn give_by_tokio(entries: u32, ready: &Sender<SocketAddr>, stop: &AtomicBool) {
    runtime().block_on(async {
        let options = brickwork_tokio::Options::new("giver", localhost()).config(config());
        let handle = brickwork_tokio::bind(options).await.expect("a free port");
        handle.call(move |node, now| fill(node, now, entries)).await.expect("it runs");
        while !handle.call(|node, _| is_settled(node)).await.expect("it runs") {
            tokio::time::sleep(MOMENT * 100).await;
        }
        ready.send(handle.local_addr()).expect("somebody waits");
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(MOMENT * 10).await;
        }
    });
}

fn take_by_tokio(name: &str, seed: SocketAddr, entries: u32) -> Taken {
    runtime().block_on(async {
        let since = Clock::now();
        let options = brickwork_tokio::Options::new(name, localhost()).config(config()).seed(seed);
        let handle = brickwork_tokio::bind(options).await.expect("a free port");
        loop {
            let looked = handle.call(move |node, _| taken(node, since, entries)).await;
            if let Some(taken) = looked.expect("it runs") {
                let _ = handle.leave().await;
                return taken;
            }
            tokio::time::sleep(MOMENT).await;
        }
    })
}

/// Drives a node behind the mio driver until `done` says so.
fn drive<R>(
    options: brickwork_mio::Options,
    mut done: impl FnMut(&mut brickwork_mio::Driver) -> Option<R>,
) -> R {
    let mut driver = brickwork_mio::Driver::bind(options).expect("a free port");
    let mut poll = Poll::new().expect("the system allows it");
    let mut ready = Events::with_capacity(16);
    driver.register(poll.registry(), Token(0)).expect("a new source");
    loop {
        if let Some(result) = done(&mut driver) {
            return result;
        }
        let wait = driver.timeout().map_or(MOMENT * 10, |timeout| timeout.min(MOMENT * 10));
        match poll.poll(&mut ready, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled.expect("a poll of its own"),
        }
        driver.drive(poll.registry(), ready.iter().next()).expect("its own registry");
        while driver.poll_event().is_some() {}
    }
}

fn give_by_mio(entries: u32, ready: &Sender<SocketAddr>, stop: &AtomicBool) {
    let options = brickwork_mio::Options::new("giver", localhost()).config(config());
    let (mut filled, mut settled) = (false, false);
    drive(options, |driver| {
        if !filled {
            driver.with(|node, now| fill(node, now, entries));
            filled = true;
        } else if !settled && driver.with(|node, _| is_settled(node)) {
            ready.send(driver.local_addr()).expect("somebody waits");
            settled = true;
        }
        stop.load(Ordering::Relaxed).then_some(())
    });
}

fn take_by_mio(name: &str, seed: SocketAddr, entries: u32) -> Taken {
    let since = Clock::now();
    let options = brickwork_mio::Options::new(name, localhost()).config(config()).seed(seed);
    let mut got = None;
    drive(options, |driver| {
        driver.with(|node, now| {
            if got.is_none() {
                got = taken(node, since, entries);
                if got.is_some() {
                    node.leave(now);
                }
            }
        });
        // Who is out of the cluster waits for nothing. Whoever just vanished would be waited for in the turns after this one.
        got.filter(|_| driver.with(|node, _| node.poll_timeout().is_none()))
    })
}

/// A node of the core and a socket, between which so many percent are lost.
fn give_with_loss(
    entries: u32,
    loss: u8,
    ready: &Sender<SocketAddr>,
    stop: &AtomicBool,
    bytes: &AtomicU64,
) {
    let socket = UdpSocket::bind(localhost()).expect("a free port");
    let here = socket.local_addr().expect("bound");
    let begun = Clock::now();
    let now = || Instant::ZERO + begun.elapsed();
    let identity = Identity::new("giver", here);
    let mut node = Node::new(now(), identity, config(), [7; 32]).expect("accepted");
    fill(&mut node, now(), entries);
    let (mut settled, mut buf) = (false, [0; DATAGRAM]);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
    let mut is_lost = || rng.next_u64() % 100 < u64::from(loss);
    while !stop.load(Ordering::Relaxed) {
        node.handle_timeout(now());
        while let Some(sent) = node.poll_transmit(&mut buf) {
            bytes.fetch_add(sent.payload.len() as u64, Ordering::Relaxed);
            if !is_lost() {
                // A full buffer loses more.
                let _ = socket.send_to(sent.payload, sent.to);
            }
        }
        while node.poll_event().is_some() {}
        if !settled && is_settled(&node) {
            ready.send(here).expect("somebody waits");
            settled = true;
        }
        let wait = node.poll_timeout().map_or(MOMENT, |due| due.since(now()));
        let wait = wait.clamp(Duration::from_micros(50), MOMENT * 10);
        socket.set_read_timeout(Some(wait)).expect("not zero");
        if let Ok((len, from)) = socket.recv_from(&mut buf)
            && !is_lost()
        {
            // What is refused is counted there.
            let _ = node.handle_packet(now(), from, &mut buf[..len]);
        }
    }
}

/// Two nodes on one thread, under virtual time.
fn core_alone(entries: u32) -> Taken {
    let addr = |number: u16| SocketAddr::from(([10, 0, 0, 1], number));
    let node = |number: u16| {
        let identity = Identity::new(format!("node-{number}"), addr(number));
        Node::new(Instant::ZERO, identity, config(), [7; 32]).expect("accepted")
    };
    let mut nodes = [node(1), node(2)];
    let mut now = Instant::ZERO;
    fill(&mut nodes[0], now, entries);
    while !is_settled(&nodes[0]) {
        now = nodes[0].poll_timeout().expect("it waits to forget").max(now);
        nodes[0].handle_timeout(now);
    }
    let (since, mut buf) = (Clock::now(), [0; DATAGRAM]);
    nodes[1].join(now, &[addr(1)]);
    loop {
        let mut quiet = true;
        for from in [0, 1] {
            while let Some(sent) = nodes[from].poll_transmit(&mut buf) {
                let len = sent.payload.len();
                let source = addr(from as u16 + 1);
                nodes[1 - from].handle_packet(now, source, &mut buf[..len]).expect("correct");
                quiet = false;
            }
            while nodes[from].poll_event().is_some() {}
        }
        if let Some(taken) = taken(&nodes[1], since, entries) {
            return taken;
        }
        if quiet {
            now = nodes.iter().filter_map(Node::poll_timeout).min().expect("each probes").max(now);
            nodes.iter_mut().for_each(|node| node.handle_timeout(now));
        }
    }
}

/// So many bytes in datagrams, asked for by the window, between two threads that do nothing else.
fn bare_sockets(bytes: u64) -> Duration {
    let bind = || {
        let socket = UdpSocket::bind(localhost()).expect("a free port");
        socket.set_read_timeout(Some(MOMENT * 100)).expect("not zero");
        socket
    };
    let (giver, taker) = (bind(), bind());
    let to = giver.local_addr().expect("bound");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        let mut buf = [0; DATAGRAM];
        while !stopped.load(Ordering::Relaxed) {
            let Ok((_, from)) = giver.recv_from(&mut buf) else { continue };
            for _ in 0..WINDOW / DATAGRAM {
                let _ = giver.send_to(&buf, from);
            }
        }
    });
    let (since, mut got, mut buf) = (Clock::now(), 0_u64, [0; DATAGRAM]);
    while got < bytes {
        taker.send_to(&[0], to).expect("loopback");
        for _ in 0..WINDOW / DATAGRAM {
            // What overflowed a buffer is asked for again.
            let Ok((len, _)) = taker.recv_from(&mut buf) else { break };
            got += len as u64;
        }
    }
    let took = since.elapsed();
    stop.store(true, Ordering::Relaxed);
    thread.join().expect("it ends");
    took
}
