//! Stores on a real file system.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use brickwork_core::{Config, Identity, Instant, Node};
use brickwork_store::{Recovery, Store, StoreError, Writer};

const NOW: Instant = Instant::ZERO;

fn node(name: &str, cluster: &str, boot: u64) -> Node {
    let identity = Identity::new(name, ([127, 0, 0, 1], 7_000).into()).with_boot_epoch(boot);
    let mut config = Config::local();
    config.cluster = cluster.into();
    Node::new(NOW, identity, config, [boot as u8; 32]).unwrap()
}

fn open(path: &Path, boot: u64) -> (Node, Store, Recovery) {
    let mut node = node("a", "test", boot);
    let (store, recovery) = Store::open(path, NOW, &mut node).unwrap();
    (node, store, recovery)
}

fn write(node: &mut Node, store: &mut Store) -> Result<(), StoreError> {
    while let Some(write) = node.poll_log() {
        let ticket = store.write(write)?;
        node.log_synced(NOW, ticket);
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// A file with a snapshot and five records.
fn written(path: &Path) -> Vec<u8> {
    let (mut node, mut store, _) = open(path, 1);
    for n in 0..5_u8 {
        node.insert(NOW, &[n], &[n; 20]).unwrap();
        write(&mut node, &mut store).unwrap();
    }
    fs::read(path).unwrap()
}

/// Goal: a flip of any byte is damage, and damage makes another replica, which knows what came before it.
#[test]
fn a_flip_of_any_byte_makes_another_replica() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.log");
    let sound = written(&path);
    let mut known = Vec::new();
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, &damaged).unwrap();
        let (mut node, mut store, recovery) = open(&path, 2);
        assert!(matches!(recovery, Recovery::Damaged { .. }), "byte {at}: {recovery:?}");
        assert_eq!(node.map().replica().epoch, 2);
        known.push(node.map().len());
        assert_eq!(fs::read(beside(&path, ".damaged")).unwrap(), damaged);
        let dot = node.insert(NOW, b"on", b"it goes").unwrap();
        assert_eq!((dot.replica.epoch, dot.counter), (2, 1));
        write(&mut node, &mut store).unwrap();
        let len = node.map().len();
        drop((node, store));
        let (again, _, recovery) = open(&path, 3);
        let now = (recovery, again.map().replica().epoch, again.map().len());
        assert_eq!(now, (Recovery::Resumed, 2, len));
    }
    assert!(known.is_sorted());
    assert_eq!((known[0], known.last().copied()), (0, Some(4)));
}

/// Goal: a file that a crash cut short is sound, as far as it goes. What cuts it within the snapshot is no crash.
#[test]
fn a_file_that_was_cut_short_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.log");
    let (mut node, mut store, _) = open(&path, 1);
    let snapshot = fs::read(&path).unwrap().len();
    node.insert(NOW, b"a", b"1").unwrap();
    write(&mut node, &mut store).unwrap();
    let first = fs::read(&path).unwrap().len();
    node.insert(NOW, b"b", b"2").unwrap();
    write(&mut node, &mut store).unwrap();
    drop((node, store));
    let sound = fs::read(&path).unwrap();
    for len in 0..=sound.len() {
        fs::write(&path, &sound[..len]).unwrap();
        let (node, _, recovery) = open(&path, 2);
        let found = (recovery, node.map().replica().epoch, node.map().len());
        match len {
            len if len < snapshot => assert!(matches!(found, (Recovery::Damaged { .. }, 2, 0))),
            len if len < first => assert_eq!(found, (Recovery::Resumed, 1, 0)),
            len if len < sound.len() => assert_eq!(found, (Recovery::Resumed, 1, 1)),
            _ => assert_eq!(found, (Recovery::Resumed, 1, 2)),
        }
    }
}

#[test]
fn what_is_not_for_this_node_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.log");
    let sound = written(&path);
    for mut other in [node("b", "test", 2), node("a", "another", 2)] {
        let error = Store::open(&path, NOW, &mut other).unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), sound);
    }
    let missing = folder.path().join("no").join("map.log");
    let error = Store::open(&missing, NOW, &mut node("a", "test", 2)).unwrap_err();
    assert!(matches!(error, StoreError::Disk(_)), "{error}");
}

#[test]
fn two_cannot_have_a_store_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.log");
    let (_node, store, _) = open(&path, 1);
    let error = Store::open(&path, NOW, &mut node("a", "test", 2)).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    drop(store);
    open(&path, 2);
}

/// A file system of 512 KiB, if this may mount one.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
            .arg(folder.path())
            .output();
        mount.is_ok_and(|done| done.status.success()).then(|| Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

/// Goal: a full disk is an error, and the file is what it was. Method: a small file system, filled by a log that is
/// never compacted, and by another file when it is to be compacted.
#[test]
fn a_full_disk_is_an_error_and_the_file_is_intact() {
    let Some(small) = Small::mount() else {
        println!("skipped: nothing can be mounted here");
        return;
    };
    let path = small.0.path().join("map.log");
    let (mut node, mut store, _) = open(&path, 1);
    let mut durable = 0;
    let error = loop {
        node.insert(NOW, b"key", &[durable as u8; 10_000]).unwrap();
        match write(&mut node, &mut store) {
            Ok(()) => durable += 1,
            Err(error) => break error,
        }
    };
    assert!(durable > 10 && error.to_string().contains("space"), "{error} after {durable}");
    node.insert(NOW, b"key", b"more").unwrap();
    assert!(write(&mut node, &mut store).is_err(), "nothing is written after an error");
    drop((node, store));
    // There is no room for a new file either.
    let before = fs::read(&path).unwrap();
    let error = Store::open(&path, NOW, &mut self::node("a", "test", 2)).err();
    if let Some(error) = error {
        assert!(matches!(error, StoreError::Disk(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("map.log");
    fs::write(&copy, &before).unwrap();
    let (node, _, recovery) = open(&copy, 3);
    assert_eq!(recovery, Recovery::Resumed);
    assert_eq!(node.get(b"key"), Some(&[(durable - 1) as u8; 10_000][..]));
}

/// Goal: the thread does what the store does. Method: many writes with a log that is compacted all the time.
#[test]
fn a_writer_writes_in_the_background() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.log");
    let mut config = Config::local();
    (config.cluster, config.map.compact_log_from) = ("test".into(), 2_000);
    let identity = Identity::new("a", ([127, 0, 0, 1], 7_000).into());
    let mut node = Node::new(NOW, identity, config, [7; 32]).unwrap();
    let (store, _) = Store::open(&path, NOW, &mut node).unwrap();
    let (wake, woken) = std::sync::mpsc::channel();
    let mut writer = Writer::spawn(store, move || wake.send(()).unwrap()).unwrap();
    for n in 0..500_u32 {
        let dot = node.insert(NOW, &[n as u8 % 20], &n.to_be_bytes()).unwrap();
        let mut submitted = 0;
        while let Some(write) = node.poll_log() {
            writer.submit(write);
            submitted += 1;
        }
        for _ in 0..submitted {
            woken.recv_timeout(Duration::from_secs(60)).unwrap();
            let ticket = writer.poll().unwrap().expect("it was woken for that");
            node.log_synced(NOW, ticket);
        }
        assert!(node.map().is_durable(dot));
    }
    assert_eq!((writer.in_flight(), writer.poll().unwrap()), (0, None));
    drop(writer);
    let digest = node.map().digest();
    let (again, _, recovery) = open(&path, 2);
    assert_eq!((recovery, again.map().digest()), (Recovery::Resumed, digest));
    assert!(fs::metadata(&path).unwrap().len() < 10_000, "it was compacted");
}
