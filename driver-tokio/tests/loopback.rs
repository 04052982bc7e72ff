//! Real nodes on loopback sockets.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use brickwork_tokio::{BindError, Change, Config, Event, Handle, Options, Stopped, bind};
use tokio::time::timeout;

/// Far beyond what anything here takes; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

async fn start(name: &str, seed: Option<&Handle>) -> Handle {
    let mut options = Options::new(name, any_port()).config(Config::local());
    options.seeds.extend(seed.map(Handle::local_addr));
    bind(options).await.unwrap()
}

/// Waits until `done` holds, looking again after every event.
async fn until(
    handle: &Handle,
    done: impl Fn(&brickwork_tokio::Node) -> bool + Clone + Send + 'static,
) {
    let wait = async {
        let mut events = handle.events();
        loop {
            let done = done.clone();
            if handle.call(move |node, _| done(node)).await.unwrap() {
                return;
            }
            events.next().await.unwrap();
        }
    };
    timeout(PATIENCE, wait).await.expect("it never came about");
}

async fn until_members(handle: &Handle, count: usize) {
    until(handle, move |node| node.members().count() == count).await;
}

#[tokio::test]
async fn three_nodes_agree_and_notice_a_sudden_death() {
    let a = start("a", None).await;
    let b = start("b", Some(&a)).await;
    let c = start("c", Some(&a)).await;
    for handle in [&a, &b, &c] {
        until_members(handle, 3).await;
    }
    b.call(|node, now| node.insert(now, b"k", b"v")).await.unwrap().unwrap();
    for handle in [&a, &c] {
        until(handle, |node| node.get(b"k") == Some(b"v")).await;
    }
    let victim = b.call(|node, _| node.id()).await.unwrap();
    b.abort();
    for handle in [&a, &c] {
        until_members(handle, 2).await;
        let owner = handle.call(|node, _| node.owner(b"k")).await.unwrap();
        assert_ne!(owner, Some(victim));
    }
}

#[tokio::test]
async fn a_leave_is_acknowledged_and_ends_the_task() {
    let a = start("a", None).await;
    let b = start("b", Some(&a)).await;
    until_members(&a, 2).await;
    let mut events = a.events();
    let report = timeout(PATIENCE, b.leave()).await.unwrap().unwrap();
    assert_eq!(report.acknowledged, 1);
    let left = async { while !matches!(events.next().await, Some(Event::Left { .. })) {} };
    timeout(PATIENCE, left).await.unwrap();
    // Whoever asks after the end is told, and a second leave has the same report.
    assert_eq!(b.call(|node, _| node.id()).await, Err(Stopped));
    assert_eq!(b.leave().await, Ok(report));
    let mut rest = b.events();
    let drained = async { while rest.next().await.is_some() {} };
    timeout(PATIENCE, drained).await.expect("the events end with the task");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_receiver_misses_nothing_since_the_start() {
    let a = start("a", None).await;
    let b = start("b", Some(&a)).await;
    until_members_by_calls(&a, 2).await;
    let joined = async {
        let mut events = a.events();
        while !matches!(events.next().await, Some(Event::Joined { .. })) {}
    };
    timeout(PATIENCE, joined).await.expect("an event that came before anybody listened");
    drop(b);
}

/// Waits without subscribing to events.
async fn until_members_by_calls(handle: &Handle, count: usize) {
    let wait = async {
        while handle.call(|node, _| node.members().count()).await.unwrap() != count {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
}

#[tokio::test]
async fn members_can_be_waited_for_and_changes_followed_by_prefix() {
    let a = start("a", None).await;
    let waiting = tokio::spawn({
        let a = a.clone();
        async move { a.wait_for_members(2).await }
    });
    let b = start("b", Some(&a)).await;
    timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    timeout(PATIENCE, b.wait_for_members(2)).await.unwrap().unwrap();
    let mut changes = b.changes(b"up/");
    let writer = a.call(|node, _| node.id()).await.unwrap();
    for key in [&b"down/1"[..], b"up/1", b"other", b"up/2"] {
        a.call(|node, now| node.insert(now, key, b"v")).await.unwrap().unwrap();
        if key.starts_with(b"up/") {
            let change = timeout(PATIENCE, changes.next()).await.unwrap().unwrap();
            let Change::Key { key: changed, new: Some(new), .. } = change else {
                panic!("{change:?}")
            };
            assert_eq!((&*changed, new.replica.node), (key, writer));
        }
    }
    a.call(|node, now| node.remove(now, b"up/2")).await.unwrap().unwrap();
    let change = timeout(PATIENCE, changes.next()).await.unwrap().unwrap();
    assert!(matches!(change, Change::Key { key, new: None, .. } if &*key == b"up/2"));
    // A wait for what never comes ends with the task.
    let waiting = tokio::spawn({
        let a = a.clone();
        async move { a.wait_for_members(3).await }
    });
    a.abort();
    assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap(), Err(Stopped));
    drop(b);
}

#[tokio::test]
async fn a_lone_node_leaves_at_once() {
    let a = start("a", None).await;
    assert_eq!(timeout(PATIENCE, a.leave()).await.unwrap().unwrap().acknowledged, 0);
}

#[tokio::test]
async fn the_end_of_the_task_fails_every_waiter() {
    let a = start("a", None).await;
    let mut events = a.events();
    let clone = a.clone();
    let waiter = tokio::spawn(async move { events.next().await });
    let caller = tokio::spawn(async move {
        loop {
            if clone.call(|node, _| node.id()).await == Err(Stopped) {
                return;
            }
        }
    });
    a.abort();
    timeout(PATIENCE, caller).await.unwrap().unwrap();
    assert_eq!(timeout(PATIENCE, waiter).await.unwrap().unwrap(), None);
    assert_eq!(a.leave().await, Err(Stopped));
}

#[tokio::test]
async fn dropping_the_last_handle_frees_the_port() {
    let a = start("a", None).await;
    let addr = a.local_addr();
    let mut events = a.events();
    drop(a);
    assert_eq!(timeout(PATIENCE, events.next()).await.unwrap(), None);
    let again = bind(Options::new("a", addr)).await.unwrap();
    assert_eq!(again.local_addr(), addr);
}

#[tokio::test]
async fn a_port_in_use_and_bad_settings_are_errors() {
    let a = start("a", None).await;
    let taken = bind(Options::new("b", a.local_addr())).await;
    assert!(matches!(taken, Err(BindError::Socket(addr, _)) if addr == a.local_addr()));
    let unspecified = bind(Options::new("b", ([0, 0, 0, 0], 0).into())).await;
    assert!(matches!(unspecified, Err(BindError::Config(_))));
    let mut advertised = Options::new("b", ([0, 0, 0, 0], 0).into());
    advertised.advertise = Some(([10, 0, 0, 1], 7000).into());
    let node = bind(advertised).await.unwrap();
    let told = node.call(|node, _| node.identity().addr()).await.unwrap();
    assert_eq!(told, ([10, 0, 0, 1], 7000).into());
}

#[tokio::test]
async fn the_ingress_hook_sees_everything_and_can_cut_a_node_off() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let a = start("a", None).await;
    let mut options = Options::new("b", any_port()).config(Config::local()).seed(a.local_addr());
    options.ingress = Some(Box::new(move |_, packet| {
        assert!(!packet.is_empty());
        counter.fetch_add(1, Ordering::Relaxed);
        false
    }));
    let b = bind(options).await.unwrap();
    let answered = async {
        while seen.load(Ordering::Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, answered).await.unwrap();
    assert_eq!(b.call(|node, _| node.members().count()).await.unwrap(), 1);
    assert!(b.driver_stats().dropped_by_ingress >= 3);
}

/// A socket that is never drained must not keep the other tasks of its thread waiting.
#[tokio::test]
async fn a_flood_leaves_turns_to_other_tasks() {
    const FLOOD: usize = 20_000;
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let mut options = Options::new("a", any_port());
    options.ingress = Some(Box::new(move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    }));
    let a = bind(options).await.unwrap();
    let (to, watch) = (a.local_addr(), Arc::clone(&seen));
    let flood = std::thread::spawn(move || {
        let socket = std::net::UdpSocket::bind(any_port()).unwrap();
        while watch.load(Ordering::Relaxed) < FLOOD {
            // A full buffer at the receiver loses datagrams; that is what a flood does.
            let _ = socket.send_to(&[0; 64], to);
        }
    });
    let mut turns = 0;
    while seen.load(Ordering::Relaxed) < FLOOD {
        turns += 1;
        tokio::task::yield_now().await;
    }
    flood.join().unwrap();
    assert!(turns >= FLOOD / 1024, "{turns} turns during {FLOOD} datagrams");
}

/// Datagrams to a closed port come back as errors on the socket; the node goes on.
#[tokio::test]
async fn errors_on_the_socket_are_survived() {
    let a = start("a", None).await;
    let b = start("b", Some(&a)).await;
    until_members(&a, 2).await;
    b.abort();
    until_members(&a, 1).await;
    let c = start("c", Some(&a)).await;
    until_members(&a, 2).await;
    until_members(&c, 2).await;
}
