//! What the tests that start the built program share: processes that do not outlive their test, and
//! a small HTTP client.

// Every test program compiles this for itself and uses a part of it.
#![allow(dead_code)]

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::Value;

/// Longer than anything here takes on a loaded machine. Tests wait for conditions, not for times;
/// this only bounds how long a failure takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// Runs the program to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_origin-health"))
        .args(args)
        .output()
        .expect("the built program")
}

/// Asks `probe` again and again until it gives something.
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        // Leaves the processor to those who are waited for.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A node in a process of its own, killed when dropped.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) bind: SocketAddr,
    pub(crate) http: SocketAddr,
    child: Child,
    errors: Receiver<String>,
}

impl Node {
    /// Starts a node on ports of the system's choice and waits for its line.
    pub(crate) fn start(name: &str, origins: &Path, join: &[SocketAddr]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_origin-health"));
        command.args(["node", "--name", name, "--bind", "127.0.0.1:0", "--origins"]).arg(origins);
        for seed in join {
            command.args(["--join", &seed.to_string()]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the built program");
        let errors = lines_of(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("text");
        let ready: Value = serde_json::from_str(&line).expect("a line of JSON");
        assert_eq!(ready["ready"], true);
        let addr = |field: &str| {
            ready[field].as_str().and_then(|text| text.parse().ok()).expect("an address")
        };
        Self { name: name.to_owned(), bind: addr("bind"), http: addr("http"), child, errors }
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a running process");
        self.child.wait().expect("its end");
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill").success());
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process ends by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let name = self.name.clone();
        wait_for(&format!("the end of {name}"), || self.child.try_wait().expect("a process"))
    }

    /// The next line on stderr.
    pub(crate) fn error_line(&self) -> String {
        self.errors.recv_timeout(DEADLINE).expect("a line on stderr")
    }

    /// What it has said on stderr and nobody has read yet.
    pub(crate) fn error_lines(&self) -> Vec<String> {
        self.errors.try_iter().collect()
    }

    /// `GET path`, as status code and JSON.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        get(self.http, path)
    }

    /// The rows of `/status.json`.
    pub(crate) fn statuses(&self) -> Vec<Value> {
        let (code, body) = self.get("/status.json");
        assert_eq!(code, 200);
        body["origins"].as_array().expect("rows").clone()
    }

    /// The names in `/members.json`.
    pub(crate) fn members(&self) -> Vec<String> {
        let (code, body) = self.get("/members.json");
        assert_eq!(code, 200);
        let rows = body["members"].as_array().expect("rows");
        rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

fn get(addr: SocketAddr, path: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(addr).expect("the node listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    (code, serde_json::from_str(body).expect("JSON"))
}
