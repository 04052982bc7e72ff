//! What a node answers over HTTP beside JSON: the page, the stream that feeds it, and the metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use support::{DEADLINE, Node, wait_for};
use tempfile::TempDir;

mod support;

/// A lone node with one origin that refuses connections.
fn node(dir: &TempDir) -> Node {
    let path = dir.path().join("origins.toml");
    let list = "[[origin]]\nname = \"shut\"\nurl = \"http://127.0.0.1:1/\"\n\
                interval = \"300ms\"\nunhealthy_threshold = 2\n";
    std::fs::write(&path, list).expect("a file");
    Node::start("lone", &path, &[])
}

/// Sends a request and reads the head of the answer: the code, the headers, and the rest.
fn ask(node: &Node, request: &str) -> (u16, BTreeMap<String, String>, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(node.http).expect("the node listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let request = format!("{request} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", node.http);
    stream.write_all(request.as_bytes()).expect("the request is taken");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a status line");
    let code = line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    (code, headers, reader)
}

fn text(node: &Node, request: &str) -> (u16, BTreeMap<String, String>, String) {
    let (code, headers, mut reader) = ask(node, request);
    let mut body = String::new();
    reader.read_to_string(&mut body).expect("text");
    (code, headers, body)
}

/// The next event of a stream: its name and its data. None at the end of the stream.
fn next_event(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let mut name = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).expect("the stream does not break") == 0 {
            return None;
        }
        // What is neither of these is a size of HTTP's chunks, a comment, or the time to retry.
        if let Some(told) = line.strip_prefix("event: ") {
            name = Some(told.trim_end().to_owned());
        } else if let Some(data) = line.strip_prefix("data: ") {
            let data = serde_json::from_str(data).expect("JSON");
            return Some((name.take().expect("a name before the data"), data));
        }
    }
}

#[test]
fn the_page_stands_alone_and_nothing_else_is_there() {
    let dir = TempDir::new().expect("a directory");
    let node = node(&dir);
    let (code, headers, body) = text(&node, "GET /");
    assert_eq!((code, headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    assert!(body.starts_with("<!doctype html>"));
    let policy = &headers["content-security-policy"];
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(policy.contains("connect-src 'self'") && !policy.contains("unsafe"), "{policy}");
    for path in ["/", "/status.json", "/members.json", "/health", "/metrics", "/nothing"] {
        let (_, headers, _) = text(&node, &format!("GET {path}"));
        assert_eq!(headers["cache-control"], "no-store", "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
    }
    assert_eq!(text(&node, "GET /nothing").0, 404);
    for path in ["/", "/events", "/status.json", "/metrics"] {
        let (code, headers, _) = text(&node, &format!("POST {path}"));
        assert_eq!((code, headers["allow"].as_str()), (405, "GET,HEAD"), "{path}");
    }
}

#[test]
fn a_stream_tells_everything_then_changes_and_ends_with_the_node() {
    let dir = TempDir::new().expect("a directory");
    let mut node = node(&dir);
    let (code, headers, mut stream) = ask(&node, "GET /events");
    assert_eq!((code, headers["content-type"].as_str()), (200, "text/event-stream"));
    assert_eq!(headers["cache-control"], "no-store");
    let mut events = core::iter::from_fn(|| next_event(&mut stream));
    let (name, snapshot) = events.next().expect("a snapshot");
    assert_eq!((name.as_str(), &snapshot["node"]), ("snapshot", &"lone".into()));
    assert_eq!(events.next().expect("members").0, "members");
    let (name, rows) = events.next().expect("origins");
    assert_eq!((name.as_str(), &rows[0][1]), ("origins", &"shut".into()));
    let down = |(name, rows): &(String, Value)| name == "origins" && rows[0][3] == "down";
    assert!(down(&("origins".to_owned(), rows)) || events.any(|event| down(&event)));
    node.terminate();
    // What the stop itself changes may still be told; then the stream ends.
    events.for_each(drop);
    assert!(node.ended().success());
}

/// One that never reads does not keep the node from stopping.
#[test]
fn a_deaf_client_is_not_waited_for() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("origins.toml");
    // Longer than what the systems on both sides buffer for a connection: 16 MB.
    let (rows, filler) = (20_000, "x".repeat(800));
    let origin = |number| {
        format!("[[origin]]\nname = \"o{number}\"\nurl = \"http://127.0.0.1:1/{filler}\"\n")
    };
    let list = (0..rows).map(origin).collect::<String>();
    std::fs::write(&path, format!("[defaults]\ninterval = \"24h\"\n{list}")).expect("a file");
    let mut node = Node::start("lone", &path, &[]);
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    deaf.set_recv_buffer_size(4096).expect("a small buffer");
    deaf.connect(&node.http.into()).expect("the node listens");
    let mut deaf = TcpStream::from(deaf);
    deaf.write_all(b"GET /events HTTP/1.1\r\nhost: node\r\n\r\n").expect("the request is taken");
    wait_for("the deaf one's seat", || {
        let (_, _, body) = text(&node, "GET /metrics");
        (parse(&body)["origin_health_event_streams"] == 1.0).then_some(())
    });
    // One that reads gets all of it, twice: by then the other has filled every buffer.
    for _ in 0..2 {
        let (_, _, mut stream) = ask(&node, "GET /events");
        let mut told = 0;
        while told < rows {
            let (name, data) = next_event(&mut stream).expect("all origins");
            told += if name == "origins" { data.as_array().expect("rows").len() } else { 0 };
        }
    }
    node.terminate();
    assert!(node.ended().success());
    assert!(node.error_line().contains("clients do not read"), "the bound was reached");
    drop(deaf);
}

#[test]
fn streams_are_limited() {
    let dir = TempDir::new().expect("a directory");
    let node = node(&dir);
    let mut streams: Vec<_> = (0..64).map(|_| ask(&node, "GET /events")).collect();
    assert!(streams.iter().all(|(code, ..)| *code == 200));
    let (code, headers, _) = text(&node, "GET /events");
    assert_eq!((code, headers["retry-after"].as_str()), (503, "10"));
    streams.clear();
    wait_for("a closed stream to make room", || (ask(&node, "GET /events").0 == 200).then_some(()));
}

#[test]
fn metrics_are_well_formed() {
    let dir = TempDir::new().expect("a directory");
    let node = node(&dir);
    let counted = "origin_health_checks_total{outcome=\"connect\"}";
    let samples = wait_for("a check", || {
        let (code, headers, body) = text(&node, "GET /metrics");
        assert_eq!(
            (code, headers["content-type"].as_str()),
            (200, "text/plain; version=0.0.4; charset=utf-8",)
        );
        let samples = parse(&body);
        (samples[counted] > 0.0 && samples["origin_health_origins{state=\"down\"}"] == 1.0)
            .then_some(samples)
    });
    assert_eq!(samples["brickwork_members{state=\"alive\"}"], 1.0);
    assert_eq!(samples["brickwork_map_keys"], 1.0);
    assert!(samples["brickwork_map_bytes"] > 4.0);
    assert_eq!(samples["origin_health_origins_owned"], 1.0);
    assert_eq!(samples["origin_health_joined"], 1.0);
    assert_eq!(samples["brickwork_datagrams_refused_total{cause=\"truncated\"}"], 0.0);
    let name = "origin_health_check_duration_seconds";
    assert_eq!(
        samples[&format!("{name}_bucket{{le=\"+Inf\"}}")],
        samples[&format!("{name}_count")]
    );
}

/// Reads the text format, and refuses what is not well formed: a family begins with its help and
/// its type and stands together, a sample belongs to its family and is there once.
fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'));
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    let (mut family, mut kind) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().expect("a name").to_owned();
            assert!(families.insert(family.clone()), "{family} is there twice");
            kind.clear();
        } else if let Some(told) = line.strip_prefix("# TYPE ") {
            let (name, told) = told.split_once(' ').expect("a type");
            assert_eq!((name, kind.as_str()), (family.as_str(), ""), "one type, after the help");
            assert!(["counter", "gauge", "histogram"].contains(&told), "{line}");
            assert_eq!(told == "counter", name.ends_with("_total"), "{line}");
            kind = told.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert!(labels.ends_with('}'), "{line}");
            let suffix = name.strip_prefix(family.as_str()).expect("a sample of its family");
            let parts: &[&str] =
                if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(!kind.is_empty() && parts.contains(&suffix), "{line}");
            let value = value.parse().expect("a number");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} is there twice");
        }
    }
    samples
}
