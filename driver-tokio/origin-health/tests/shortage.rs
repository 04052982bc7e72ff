//! A node that runs out of descriptors does not hold its origins for down.

#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use support::{DEADLINE, Node, wait_for};
use tempfile::TempDir;

mod support;

/// An origin that answers every request well, on a port of the system's choice.
fn healthy_origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A node that ends may hang up in the middle.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    url
}

/// Asks on a connection that is open already: a node without descriptors takes no new one.
fn ask(stream: &mut BufReader<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).expect("the request is taken");
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        assert_ne!(stream.read_line(&mut line).expect("a header"), 0, "the connection stays open");
        if let Some(told) = line.strip_prefix("content-length: ") {
            length = told.trim_end().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the body");
    String::from_utf8(body).expect("text")
}

fn outcome(stream: &mut BufReader<TcpStream>, kind: &str) -> u64 {
    let metrics = ask(stream, "/metrics");
    let series = format!("origin_health_checks_total{{outcome=\"{kind}\"}} ");
    let count = metrics.lines().find_map(|line| line.strip_prefix(&series));
    count.expect("this series").parse().expect("a number")
}

/// Sets the soft limit of open descriptors; the hard one stays, so that it can be raised again.
fn limit(node: &Node, descriptors: u32) {
    let limited = Command::new("prlimit")
        .args(["--pid", &node.pid().to_string(), &format!("--nofile={descriptors}:")])
        .status();
    assert!(limited.expect("prlimit of util-linux").success());
}

#[test]
fn a_node_without_descriptors_keeps_its_word() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("origins.toml");
    let list = format!(
        "[[origin]]\nname = \"well\"\nurl = \"{}\"\ninterval = \"50ms\"\n\
         unhealthy_threshold = 1\n\
         [[origin]]\nname = \"named\"\nurl = \"{}\"\ninterval = \"50ms\"\n\
         unhealthy_threshold = 1\n",
        healthy_origin(),
        healthy_origin().replace("127.0.0.1", "localhost"),
    );
    std::fs::write(&path, list).expect("a file");
    let node = Node::start("lone", &path, &[]);
    let all_up = || node.statuses().iter().all(|row| row["state"] == "up");
    wait_for("healthy origins", || all_up().then_some(()));
    let stream = TcpStream::connect(node.http).expect("the node listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut stream = BufReader::new(stream);
    let failed =
        |stream: &mut _| ["dns", "connect", "tls", "protocol"].map(|kind| outcome(stream, kind));
    let before = failed(&mut stream);

    limit(&node, 3);
    wait_for("many checks that are not made", || {
        (outcome(&mut stream, "local") > 20).then_some(())
    });
    assert_eq!(failed(&mut stream), before);
    let statuses = ask(&mut stream, "/status.json");
    assert_eq!(statuses.matches("\"state\":\"up\"").count(), 2, "{statuses}");
    let told = node.error_line();
    assert!(told.contains("cannot check") && told.contains("Too many open files"), "{told}");

    limit(&node, 1024);
    let made = outcome(&mut stream, "ok");
    wait_for("checks again", || (outcome(&mut stream, "ok") > made).then_some(()));
    assert!(all_up(), "and it takes connections again");
}
