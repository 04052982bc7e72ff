//! Takeover and what follows it, between real nodes on loopback.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use brickwork_core::{Config, hrw};
use brickwork_tokio::Options;

use super::*;
use crate::check::Reason;
use crate::health::{State, Status};

/// Longer than anything here takes on a loaded machine; it only bounds how long a failure takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node without an agent. While `cut` stands it hears nothing.
async fn node(name: &str, seeds: &[SocketAddr], cut: &Arc<AtomicBool>) -> Handle {
    let mut options = Options::new(name, ([127, 0, 0, 1], 0).into()).config(Config::local());
    options.seeds = seeds.to_vec();
    let cut = Arc::clone(cut);
    options.ingress = Some(Box::new(move |_, _| !cut.load(Ordering::Relaxed)));
    brickwork_tokio::bind(options).await.expect("a port")
}

/// An origin that `outranks` comes before `other` for, and that is not due for a check during a
/// test.
fn origin(outranks: &str, other: &str) -> Origin {
    let score =
        |key: &str, node| hrw::score(hrw::key_hash(key.as_bytes()), NodeId::from_name(node));
    let name = (0..)
        .map(|number| format!("origin-{number}"))
        .find(|name| score(name, outranks) > score(name, other))
        .expect("one of many");
    Origin {
        name,
        url: reqwest::Url::parse("http://127.0.0.1:1/").expect("a URL"),
        interval: Duration::from_secs(24 * 60 * 60),
        timeout: Duration::from_secs(1),
        healthy_threshold: 1,
        unhealthy_threshold: 1,
        expected_status: 200,
    }
}

async fn agent(handle: &Handle, name: &str, origin: &Origin, first: bool) -> Agent {
    agent_with(handle, Checker::new(name, 1).expect("a client"), name, origin, first).await
}

async fn agent_with(
    handle: &Handle,
    checker: Checker,
    name: &str,
    origin: &Origin,
    first: bool,
) -> Agent {
    let setup = Setup {
        handle: handle.clone(),
        events: handle.events(),
        name: name.to_owned(),
        origins: [origin.clone()].into(),
        checker,
        clock: WallClock::start(),
        first,
        notices: None,
    };
    Agent::start(setup).await.expect("a running node")
}

fn status(checker: &str, state: State, since_ms: u64) -> Status {
    let reason = (state == State::Down).then_some(Reason::Connect);
    Status { state, since_ms, latency_us: 7, reason, checker: checker.to_owned(), written_us: 1 }
}

async fn write(handle: &Handle, origin: &Origin, status: &Status) {
    let (key, value) = (origin.name.clone(), status.encode());
    let written = handle.call(move |node, now| node.insert(now, key.as_bytes(), &value).map(drop));
    written.await.expect("a running node").expect("room for it");
}

/// All siblings, each with its writer.
async fn siblings(handle: &Handle, origin: &Origin) -> Vec<(NodeId, Status)> {
    let key = origin.name.clone();
    let read = handle.call(move |node, _| {
        let siblings = node.siblings(key.as_bytes());
        let read = siblings.map(|sibling| {
            (sibling.dot.replica.node, Status::decode(sibling.value).expect("a status"))
        });
        read.collect()
    });
    read.await.expect("a running node")
}

async fn members(handle: &Handle) -> usize {
    handle.call(|node, _| node.members().count()).await.expect("a running node")
}

/// Asks again and again until the answer is yes.
async fn wait_for(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !probe().await {
            // Leaves the processor to the nodes.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let answered = tokio::time::timeout(DEADLINE, asking).await;
    assert!(answered.is_ok(), "waited in vain for {what}");
}

/// The old owner is cut off, writes a late status that knows nothing of the takeover, comes back
/// with it and leaves. Its value outranks that of the new owner, so the new owner must write over
/// all that it reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeover() {
    let origin = origin("old", "new");
    let cut = Arc::new(AtomicBool::new(false));
    let old = node("old", &[], &cut).await;
    let new = node("new", &[old.local_addr()], &cut).await;
    let me = NodeId::from_name("new");
    let agent = agent(&new, "new", &origin, false).await;
    wait_for("two members", async || members(&old).await == 2 && members(&new).await == 2).await;
    assert_eq!(agent.owned().await, [0; 0], "it is outranked");
    write(&old, &origin, &status("old", State::Down, 1000)).await;
    wait_for("the first status", async || !siblings(&new, &origin).await.is_empty()).await;

    cut.store(true, Ordering::Relaxed);
    wait_for("the takeover", async || agent.owned().await == [0]).await;
    let carried = siblings(&new, &origin).await;
    assert_eq!(carried.len(), 1, "it superseded what it read");
    assert_eq!(carried[0].0, me);
    assert_eq!((carried[0].1.state, carried[0].1.since_ms), (State::Down, 1000));
    assert_eq!(carried[0].1.checker, "new");

    write(&old, &origin, &status("old", State::Up, 2000)).await;
    cut.store(false, Ordering::Relaxed);
    wait_for("both values", async || siblings(&new, &origin).await.len() == 2).await;
    old.leave().await.expect("a running node");
    wait_for("one value again", async || {
        let left = siblings(&new, &origin).await;
        left.len() == 1 && left[0].0 == me
    })
    .await;
    let (_, last) = siblings(&new, &origin).await.remove(0);
    assert_eq!((last.state, last.since_ms), (State::Up, 2000), "what was read, under its own name");
    assert_eq!(last.checker, "new");
    assert_eq!(agent.owned().await, [0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_writes_over_what_others_write() {
    let origin = origin("owner", "other");
    let open = Arc::new(AtomicBool::new(false));
    let owner = node("owner", &[], &open).await;
    write(&owner, &origin, &status("owner", State::Up, 1000)).await;
    let agent = agent(&owner, "owner", &origin, true).await;
    wait_for("the assignment", async || agent.owned().await == [0]).await;
    let other = node("other", &[owner.local_addr()], &open).await;
    wait_for("the status", async || !siblings(&other, &origin).await.is_empty()).await;
    write(&other, &origin, &status("other", State::Down, 2000)).await;
    let me = NodeId::from_name("owner");
    for handle in [&owner, &other] {
        wait_for("the owner's word", async || {
            let read = siblings(handle, &origin).await;
            read.len() == 1 && read[0].0 == me && read[0].1.state == State::Up
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_met_nobody_checks_nothing() {
    let origin = origin("alone", "seed");
    let open = Arc::new(AtomicBool::new(false));
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let alone = node("alone", &[silent.local_addr().expect("an address")], &open).await;
    let agent = agent(&alone, "alone", &origin, false).await;
    assert_eq!(agent.owned().await, [0; 0]);
    assert!(!*agent.joined().borrow());
    let second = node("second", &[alone.local_addr()], &open).await;
    let mut joined = agent.joined();
    tokio::time::timeout(DEADLINE, joined.wait_for(|&joined| joined))
        .await
        .expect("it meets a node")
        .expect("a running agent");
    second.abort();
    wait_for("the assignment", async || agent.owned().await == [0]).await;
}

/// A node that lacks what a check takes knows nothing about its origins, so it neither counts
/// against them nor writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_are_not_made_change_nothing() {
    let beat = Duration::from_millis(2);
    let origin = Origin { interval: beat, timeout: beat, ..origin("alone", "other") };
    let alone = node("alone", &[], &Arc::new(AtomicBool::new(false))).await;
    write(&alone, &origin, &status("before", State::Up, 1000)).await;
    // Nothing listens at the origin, so any check that is made brings it down.
    let checker = Checker::new("alone", 0).expect("a client");
    let agent = agent_with(&alone, checker, "alone", &origin, true).await;
    let late = || agent.tally().unchecked()[1];
    // More than it takes to write an unchanged status again.
    wait_for("checks without a seat", async || late() > u64::from(2 * REFRESH)).await;
    let (_, read) = siblings(&alone, &origin).await.remove(0);
    assert_eq!((read.state, read.since_ms, read.reason), (State::Up, 1000, None));
    assert_eq!(agent.tally().total(), 0);
    let written = alone.call(|node, _| node.stats().map.writes).await.expect("a running node");
    assert_eq!(written, 2, "the test's, and the takeover");
}
