//! One loop, one thread: a node of a cluster, and TCP clients that read and write its map.
//!
//! ```text
//! cargo run -p brickwork-mio --example own_loop -- a 127.0.0.1:7000 127.0.0.1:8000
//! cargo run -p brickwork-mio --example own_loop -- b 127.0.0.1:7001 127.0.0.1:8001 127.0.0.1:7000
//! ```
//!
//! The arguments are a name, the node's address, the clients' address and seeds. The clients' protocol
//! is lines, for instance typed into `nc 127.0.0.1 8001`:
//!
//! ```text
//! SET origin-17 up     OK
//! GET origin-17        VALUE up, or NONE
//! MEMBERS              one line MEMBER name address per member, then END
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use brickwork_mio::{Driver, Options};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const NODE: Token = Token(0);
const LISTENER: Token = Token(1);
const FIRST_CLIENT: usize = 2;

/// Longest line, and most bytes of answers that a client may leave unread before it is read no further.
const MAX_BUFFERED: usize = 4_096;
/// Reads from one client in one turn of the loop: a client that never pauses must not keep the node, or
/// other clients, waiting.
const READS: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(name), Some(bind), Some(serve)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: own_loop NAME NODE-ADDRESS CLIENT-ADDRESS [SEED-ADDRESS…]".into());
    };
    let mut options = Options::new(name, address(&bind)?);
    options.seeds = args.map(|seed| address(&seed)).collect::<Result<_, _>>()?;

    let mut poll = Poll::new()?;
    let mut ready = Events::with_capacity(256);
    let mut driver = Driver::bind(options)?;
    driver.register(poll.registry(), NODE)?;
    let mut listener = TcpListener::bind(address(&serve)?)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("node at {}, clients at {}", driver.local_addr(), listener.local_addr()?);

    let mut clients: BTreeMap<Token, Client> = BTreeMap::new();
    let mut next_client = FIRST_CLIENT;
    // Clients that were not read to the end. They are not reported again, so the loop remembers them.
    let mut unfinished = BTreeSet::new();
    loop {
        let timeout = if unfinished.is_empty() { driver.timeout() } else { Some(Duration::ZERO) };
        match poll.poll(&mut ready, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        let event = ready.iter().find(|event| event.token() == NODE);
        driver.drive(poll.registry(), event)?;
        while let Some(event) = driver.poll_event() {
            println!("{event:?}");
        }
        if ready.iter().any(|event| event.token() == LISTENER) {
            accept(&poll, &listener, &mut clients, &mut next_client)?;
        }
        unfinished.extend(ready.iter().map(mio::event::Event::token));
        unfinished.retain(|token| {
            let Some(client) = clients.get_mut(token) else { return false };
            client.turn(&mut driver).unwrap_or_else(|_| {
                // Closing the stream takes it out of the poll.
                clients.remove(token);
                false
            })
        });
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

/// Takes in clients until none is left waiting.
fn accept(
    poll: &Poll,
    listener: &TcpListener,
    clients: &mut BTreeMap<Token, Client>,
    next: &mut usize,
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let token = Token(*next);
                *next += 1;
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut stream, token, interest)?;
                clients.insert(token, Client { stream, input: Vec::new(), output: Vec::new() });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // A client that went away again while it waited.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // No descriptor is left, most likely. Who waits is taken in when the next one knocks.
            Err(error) => {
                println!("accept: {error}");
                return Ok(());
            }
        }
    }
}

/// A connection: bytes that make no line yet, and answers that were not taken yet.
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Client {
    /// Reads, answers and writes until the socket blocks both ways, or blocks on writing with so many
    /// answers unread that reading has to wait for the next report, or has had its share. Returns
    /// whether there may be more to read. An error is the end.
    fn turn(&mut self, driver: &mut Driver) -> io::Result<bool> {
        let mut chunk = [0; 1_024];
        for _ in 0..READS {
            self.answer(driver);
            self.write()?;
            if self.output.len() >= MAX_BUFFERED {
                return Ok(false);
            }
            if self.input.len() >= MAX_BUFFERED {
                return Err(io::Error::new(ErrorKind::InvalidData, "a line too long"));
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.input.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Answers the whole lines among the input.
    fn answer(&mut self, driver: &mut Driver) {
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = line.trim_ascii();
            let (verb, rest) = split(line);
            match (verb, split(rest)) {
                (b"GET", (key, b"")) => match driver.node().get(key) {
                    Some(value) => self.say(&[b"VALUE ", value]),
                    None => self.say(&[b"NONE"]),
                },
                (b"SET", (key, value)) => {
                    match driver.with(|node, now| node.insert(now, key, value)) {
                        Ok(_) => self.say(&[b"OK"]),
                        Err(error) => self.say(&[b"ERROR ", error.to_string().as_bytes()]),
                    }
                }
                (b"MEMBERS", _) => {
                    for member in driver.node().members() {
                        let text = format!("MEMBER {} {}", member.name(), member.addr());
                        self.say(&[text.as_bytes()]);
                    }
                    self.say(&[b"END"]);
                }
                _ => self.say(&[b"ERROR GET key, SET key value or MEMBERS"]),
            }
        }
    }

    fn say(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.output.extend_from_slice(part));
        self.output.push(b'\n');
    }

    /// Writes until the socket blocks or nothing is left.
    fn write(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The first word, and what follows the space after it.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == b' ') {
        Some(at) => (&line[..at], line[at..].trim_ascii_start()),
        None => (line, b""),
    }
}
