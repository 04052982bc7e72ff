//! Nodes that keep their map on disk.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use brickwork_tokio::{
    BindError, Config, Dot, Handle, NodeId, Options, Recovery, StoreError, bind,
};
use tokio::time::timeout;

/// Far beyond what anything here takes; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the child process of a test finds its file and its seed.
const CHILD: &str = "BRICKWORK_STORE_CHILD";
/// How often it is killed.
const KILLS: &str = "BRICKWORK_KILLS";

fn options(name: &str) -> Options {
    let mut config = Config::local();
    // So that some kills hit a compaction.
    config.map.compact_log_from = 4_000;
    Options::new(name, ([127, 0, 0, 1], 0).into()).config(config)
}

async fn start(name: &str, path: &Path, seed: Option<&Handle>) -> Handle {
    let mut options = options(name).store(path);
    options.seeds.extend(seed.map(Handle::local_addr));
    // The one before may take a moment to close its file.
    for _ in 0..100 {
        match bind(options_of(&options)).await {
            Ok(handle) => return handle,
            Err(BindError::Store(StoreError::InUse(_))) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the store stays in use");
}

fn options_of(options: &Options) -> Options {
    let mut again = Options::new(options.name.clone(), options.bind).config(options.config.clone());
    (again.store, again.seeds) = (options.store.clone(), options.seeds.clone());
    again
}

async fn insert(handle: &Handle, key: &'static [u8], value: &'static [u8]) -> Dot {
    handle.call(move |node, now| node.insert(now, key, value)).await.unwrap().unwrap()
}

async fn until_read(handle: &Handle, key: &'static [u8], value: &'static [u8]) {
    let mut changes = handle.changes(key);
    let wait = async {
        while handle.call(move |node, _| node.get(key) != Some(value)).await.unwrap() {
            changes.next().await.unwrap();
        }
    };
    timeout(PATIENCE, wait).await.expect("it never came");
}

#[tokio::test]
async fn a_node_goes_on_after_a_sudden_death() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.log");
    let other = bind(options("b")).await.unwrap();
    assert_eq!(other.recovery(), None);
    let first = start("a", &path, Some(&other)).await;
    assert_eq!(first.recovery(), Some(Recovery::New));
    let dot = insert(&first, b"mine", b"1").await;
    assert_eq!(timeout(PATIENCE, first.wait_until_durable(dot)).await.unwrap(), Ok(true));
    let of_other = insert(&other, b"its", b"2").await;
    assert_eq!(other.wait_until_durable(of_other).await, Ok(false), "it has no store");
    assert_eq!(first.wait_until_durable(of_other).await, Ok(false), "not its own");
    until_read(&other, b"mine", b"1").await;
    first.abort();

    let again = start("a", &path, Some(&other)).await;
    assert_eq!(again.recovery(), Some(Recovery::Resumed));
    let (life, read) = again
        .call(|node, _| (node.map().replica(), node.get(b"mine").map(<[u8]>::to_vec)))
        .await
        .unwrap();
    assert_eq!((life, read), (dot.replica, Some(b"1".to_vec())));
    assert_eq!(insert(&again, b"more", b"3").await, Dot::new(dot.replica, dot.counter + 1));
    until_read(&other, b"more", b"3").await;
    until_read(&again, b"its", b"2").await;
    assert!(again.store_error().is_none());
}

#[tokio::test]
async fn a_store_that_is_in_use_or_cannot_be_written_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.log");
    let _first = start("a", &path, None).await;
    let error = bind(options("a").store(&path)).await.unwrap_err();
    assert!(matches!(error, BindError::Store(StoreError::InUse(_))), "{error}");
    let missing = folder.path().join("no").join("map.log");
    let error = bind(options("c").store(&missing)).await.unwrap_err();
    assert!(matches!(error, BindError::Store(StoreError::Disk(_))), "{error}");
}

/// Goal: who writes without a pause is heard nevertheless. Method: closures that write and come one after the other.
#[tokio::test]
async fn writes_without_a_pause_are_told_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let other = bind(options("b")).await.unwrap();
    let busy = start("a", &folder.path().join("map.log"), Some(&other)).await;
    busy.wait_for_members(2).await.unwrap();
    let writer = tokio::spawn(async move {
        for n in 0_u64.. {
            let write = move |node: &mut brickwork_tokio::Node, now| {
                node.insert(now, b"key", &n.to_be_bytes()).map(drop)
            };
            if busy.call(write).await.is_err() {
                return;
            }
        }
    });
    let mut changes = other.changes(b"key");
    for _ in 0..20 {
        timeout(PATIENCE, changes.next()).await.expect("nothing is told").unwrap();
    }
    writer.abort();
}

/// What the child says: that it started, what it knows, and what it made durable.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Started { resumed: bool, epoch: u64 },
    Knows { key: u8, value: u64 },
    Durable { counter: u64, key: u8, value: u64 },
}

impl Said {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<u64> = line.split(' ').skip(1).map_while(|word| word.parse().ok()).collect();
        match (line.split(' ').next()?, words.as_slice()) {
            ("started", &[resumed, epoch]) => Some(Self::Started { resumed: resumed > 0, epoch }),
            ("knows", &[key, value]) => Some(Self::Knows { key: key as u8, value }),
            ("durable", &[counter, key, value]) => {
                Some(Self::Durable { counter, key: key as u8, value })
            }
            _ => None,
        }
    }
}

/// No test of its own: what the one below starts and kills. Writes growing numbers until then.
#[test]
fn child() {
    let Ok(setting) = std::env::var(CHILD) else { return };
    let (seed, path) = setting.split_once(' ').unwrap();
    let seed: SocketAddr = seed.parse().unwrap();
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{line}").and_then(|()| out.flush()).is_ok()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let node = bind(options("a").store(path).seed(seed)).await.unwrap();
        let known = node.call(|node, _| {
            let known: Vec<(u8, u64)> = node
                .iter()
                .map(|(key, value)| (key[0], u64::from_be_bytes(value.try_into().unwrap())))
                .collect();
            (node.map().replica().epoch, known)
        });
        let (epoch, known) = known.await.unwrap();
        let resumed = u8::from(node.recovery() == Some(Recovery::Resumed));
        say(format!("started {resumed} {epoch}"));
        let next = known.iter().map(|(_, value)| *value).max().unwrap_or(0) + 1;
        for (key, value) in known {
            say(format!("knows {key} {value}"));
        }
        say("started".into());
        let writers = (0..4_u64).map(|writer| {
            let node = node.clone();
            async move {
                for round in 0.. {
                    let value = next + round * 4 + writer;
                    let key = (value % 32) as u8;
                    let write =
                        node.call(move |node, now| node.insert(now, &[key], &value.to_be_bytes()));
                    let dot = write.await.unwrap().unwrap();
                    assert_eq!(node.wait_until_durable(dot).await, Ok(true));
                    say(format!("durable {} {key} {value}", dot.counter));
                }
            }
        });
        let tasks: Vec<_> = writers.map(tokio::spawn).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn spawn(path: &Path, seed: SocketAddr) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{seed} {}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

/// Goal: a process that is killed at any moment loses nothing that it said was durable, and uses no name twice.
/// Method: `kill -9` after a random number of writes, again and again, with a peer that remembers every name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment() {
    let kills: u64 = std::env::var(KILLS).map_or(200, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.log");
    let peer = bind(options("b")).await.unwrap();
    let (mut durable, mut names) = (BTreeMap::<u8, u64>::new(), BTreeMap::<u64, u64>::new());
    let (mut epoch, mut seen) = (None, 0);
    for kill in 0..kills {
        let (mut child, out) = spawn(&path, peer.local_addr());
        // Writes between the start and the kill, and a moment that is no write's.
        let (most, nap) = (kill * 7_919 % 40, Duration::from_micros(kill * 104_729 % 3_000));
        let (mut writes, mut known, before) = (0, BTreeMap::new(), durable.clone());
        let mut started = 0;
        for line in out.lines() {
            let line = line.unwrap();
            started += u32::from(line == "started");
            match Said::parse(&line) {
                Some(Said::Started { resumed, epoch: of }) => {
                    assert_eq!(resumed, kill > 0, "kill {kill}");
                    assert_eq!(*epoch.get_or_insert(of), of, "kill {kill}: another replica");
                }
                Some(Said::Knows { key, value }) => drop(known.insert(key, value)),
                Some(Said::Durable { counter, key, value }) => {
                    writes += 1;
                    let before = names.insert(counter, value);
                    assert!(before.is_none_or(|before| before == value), "{counter} is two writes");
                    durable.entry(key).and_modify(|last| *last = value.max(*last)).or_insert(value);
                }
                None => {}
            }
            if started > 0 && writes >= most {
                break;
            }
        }
        assert!(started > 0, "kill {kill}: it did not start");
        for (key, value) in before {
            let found = known.get(&key).copied().unwrap_or(0);
            assert!(found >= value, "kill {kill}: {key} is {found} and was {value}");
        }
        std::thread::sleep(nap);
        child.kill().unwrap();
        child.wait().unwrap();
        seen += remember(&peer, &mut names).await;
    }
    println!("{kills} kills, {} names, {seen} looked up at the peer", names.len());
    assert!(names.len() as u64 > kills && seen > 0);
}

/// Compares the names that the peer knows with those that were given before.
async fn remember(peer: &Handle, names: &mut BTreeMap<u64, u64>) -> usize {
    let child = NodeId::from_name("a");
    let heard = peer.call(move |node, _| {
        let mut heard = Vec::new();
        for key in 0..32_u8 {
            for sibling in node.siblings(&[key]).filter(|it| it.dot.replica.node == child) {
                let value = u64::from_be_bytes(sibling.value.try_into().unwrap());
                heard.push((sibling.dot.counter, value));
            }
        }
        heard
    });
    let heard = heard.await.unwrap();
    for (counter, value) in &heard {
        let before = names.insert(*counter, *value);
        assert!(before.is_none_or(|before| before == *value), "{counter} is two writes");
    }
    heard.len()
}
