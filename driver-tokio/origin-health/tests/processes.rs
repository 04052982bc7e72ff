//! Goal: no origin goes unanswered while nodes die. Method: three real processes, each killed with
//! `kill -9` and started again in turn, while the survivors are asked for every origin all the
//! time.

extern crate alloc;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::net::SocketAddr;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use support::{Node, wait_for};
use tempfile::TempDir;

mod support;

const ORIGINS: usize = 24;
const NAMES: [&str; 3] = ["red", "green", "blue"];

/// Who has asked for each path since the record was last cleared.
type Askers = Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>;

/// A healthy origin for every path, which keeps a record.
struct Origins {
    addr: SocketAddr,
    askers: Askers,
}

impl Origins {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let askers = Askers::default();
        let record = Arc::clone(&askers);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let record = Arc::clone(&record);
                // A checker that dies in the middle of a request leaves half of one.
                std::thread::spawn(move || answer(stream, &record));
            }
        });
        Self { addr, askers }
    }

    fn clear(&self) {
        self.askers.lock().expect("no panic").clear();
    }

    fn asked_by_one_of(&self, path: &str, names: &[&str]) -> bool {
        let askers = self.askers.lock().expect("no panic");
        askers.get(path).is_some_and(|askers| names.iter().any(|&name| askers.contains(name)))
    }

    fn list(&self, dir: &TempDir) -> PathBuf {
        let mut text = String::from("[defaults]\ninterval = \"500ms\"\ntimeout = \"400ms\"\n");
        for number in 0..ORIGINS {
            let url = format!("http://{}/{number}", self.addr);
            text += &format!("[[origin]]\nname = \"origin-{number}\"\nurl = \"{url}\"\n");
        }
        let path = dir.path().join("origins.toml");
        std::fs::write(&path, text).expect("a file");
        path
    }
}

fn answer(mut stream: TcpStream, record: &Askers) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.trim_start_matches('/').to_owned();
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let asker = head.iter().find_map(|line| line.strip_prefix("x-origin-health-node: "))?;
    record.lock().expect("no panic").entry(path).or_default().insert(asker.to_owned());
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    stream.write_all(answer).ok()
}

/// The origins whose `field` is `name`, asked of `node`, which must know every origin to be up.
fn origins_of(node: &Node, field: &str, name: &str) -> BTreeSet<String> {
    let rows = node.statuses();
    assert_eq!(rows.len(), ORIGINS);
    let mut origins = BTreeSet::new();
    for row in rows {
        assert_eq!(row["state"], "up", "{} does not answer for an origin: {row}", node.name);
        if row[field] == name {
            origins.insert(row["name"].as_str().expect("a name").to_owned());
        }
    }
    origins
}

fn all_up(node: &Node) -> bool {
    node.statuses().iter().all(|row| row["state"] == "up")
}

/// Waits until everyone sees everyone, everything is up, and every origin's checker is its owner.
fn wait_for_calm(nodes: &[Node]) {
    wait_for("all members at every node", || {
        nodes.iter().all(|node| node.members().len() == nodes.len()).then_some(())
    });
    wait_for("every origin up at every node", || nodes.iter().all(all_up).then_some(()));
    wait_for("every origin checked by its owner", || {
        let settled = |name: &&str| {
            let owned = origins_of(&nodes[0], "owner", name);
            nodes.iter().all(|node| origins_of(node, "checker", name) == owned)
        };
        NAMES.iter().all(settled).then_some(())
    });
}

fn start(name: &str, list: &Path, others: &[Node]) -> Node {
    let seeds: Vec<SocketAddr> = others.iter().map(|node| node.bind).collect();
    Node::start(name, list, &seeds)
}

#[test]
fn survivors_answer_for_every_origin_while_each_node_is_killed_and_comes_back() {
    let dir = TempDir::new().expect("a directory");
    let origins = Origins::start();
    let list = origins.list(&dir);
    let mut nodes = Vec::new();
    for name in NAMES {
        let node = start(name, &list, &nodes);
        nodes.push(node);
    }
    wait_for_calm(&nodes);
    for victim in NAMES {
        let at = nodes.iter().position(|node| node.name == victim).expect("a live node");
        let orphans = origins_of(&nodes[0], "owner", victim);
        assert!(!orphans.is_empty(), "with {ORIGINS} origins everyone owns some");
        nodes.remove(at).kill();
        // What the victim asked last arrives before what the survivors ask for in its place.
        origins.clear();
        let survivors: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        wait_for("the victim's origins to be checked by others", || {
            let left = nodes.iter().map(|node| origins_of(node, "checker", victim).len());
            let told = left.sum::<usize>() == 0;
            let path = |name: &String| name.trim_start_matches("origin-").to_owned();
            let asked = orphans.iter().all(|name| origins.asked_by_one_of(&path(name), &survivors));
            (told && asked).then_some(())
        });
        for node in &nodes {
            assert!(!node.members().contains(&victim.to_owned()), "{} knows", node.name);
        }
        let back = start(victim, &list, &nodes);
        // The survivors go on to answer while the newcomer learns.
        wait_for("the victim to be back at the survivors", || {
            let owned = |node: &Node| origins_of(node, "checker", victim) == orphans;
            nodes.iter().all(owned).then_some(())
        });
        nodes.push(back);
        wait_for_calm(&nodes);
    }
    for node in &nodes {
        assert_eq!(node.error_lines(), [""; 0], "{} had nothing to complain about", node.name);
    }
}
