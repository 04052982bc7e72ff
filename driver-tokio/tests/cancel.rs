//! What dropping a future of the handle half-way does, method by method.

#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use brickwork_tokio::{Change, Config, Event, Handle, Options, Stopped, bind};
use tokio::task::coop::unconstrained;
use tokio::time::timeout;

/// Far beyond what anything here takes; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Commands that the handle queues before callers wait.
const QUEUE: usize = 1_024;
/// Events that a receiver may lag behind.
const LAG: usize = 16_384;

async fn start(name: &str, seed: Option<&Handle>) -> Handle {
    let mut options = Options::new(name, ([127, 0, 0, 1], 0).into()).config(Config::local());
    options.seeds.extend(seed.map(Handle::local_addr));
    bind(options).await.unwrap()
}

/// Polls a future once and drops it if it is not ready.
fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

async fn write(handle: &Handle, key: &'static [u8], value: usize) {
    let value = value.to_le_bytes();
    handle.call(move |node, now| node.insert(now, key, &value)).await.unwrap().unwrap();
}

/// A task held inside a closure until this is dropped.
struct Held(#[expect(dead_code, reason = "its end releases the task")] mpsc::Sender<()>);

/// Holds the task inside a closure, so that commands queue behind it.
async fn hold(handle: &Handle) -> Held {
    let (release, released) = mpsc::channel();
    let (inside, is_inside) = tokio::sync::oneshot::channel();
    let handle = handle.clone();
    tokio::spawn(async move {
        let wait = move |_: &mut _, _| {
            inside.send(()).unwrap();
            // Ends when the sender is dropped.
            let _ = released.recv();
        };
        handle.call(wait).await
    });
    is_inside.await.unwrap();
    Held(release)
}

/// Never polled: not run. Queued: run once. In front of a full queue: not run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_has_run_whole_or_not_at_all() {
    let a = start("a", None).await;
    let ran = Arc::new(AtomicUsize::new(0));
    let call = |step: usize| {
        let ran = Arc::clone(&ran);
        a.call(move |_, _| {
            ran.fetch_add(step, Ordering::Relaxed);
        })
    };
    drop(call(1_000_000));
    let held = hold(&a).await;
    for _ in 0..QUEUE {
        assert!(poll_once(unconstrained(call(1))).is_none(), "the task is held");
    }
    assert!(poll_once(unconstrained(call(1_000_000))).is_none(), "the queue is full");
    drop(held);
    // Commands run in order: this one is behind all of the others.
    a.call(|_, _| {}).await.unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), QUEUE);
}

#[tokio::test]
async fn a_dropped_wait_for_members_can_be_taken_up_again() {
    let a = start("a", None).await;
    assert!(poll_once(a.wait_for_members(2)).is_none());
    let b = start("b", Some(&a)).await;
    timeout(PATIENCE, a.wait_for_members(2)).await.unwrap().unwrap();
    timeout(PATIENCE, b.wait_for_members(2)).await.unwrap().unwrap();
    assert!(poll_once(a.wait_for_members(3)).is_none());
    a.abort();
    assert_eq!(timeout(PATIENCE, a.wait_for_members(3)).await.unwrap(), Err(Stopped));
}

#[tokio::test]
async fn a_dropped_leave_goes_on_and_its_report_is_kept() {
    let a = start("a", None).await;
    let b = start("b", Some(&a)).await;
    timeout(PATIENCE, a.wait_for_members(2)).await.unwrap().unwrap();
    let mut events = a.events();
    drop(b.leave());
    assert!(!b.is_stopped());
    assert!(poll_once(b.leave()).is_none());
    let left = async { while !matches!(events.next().await, Some(Event::Left { .. })) {} };
    timeout(PATIENCE, left).await.expect("the leave goes on");
    assert_eq!(timeout(PATIENCE, b.leave()).await.unwrap().unwrap().acknowledged, 1);
}

/// Futures dropped before, between and after the events: each event arrives once, in order.
#[tokio::test]
async fn a_dropped_next_loses_nothing() {
    const WRITES: usize = 300;
    let a = start("a", None).await;
    let (mut events, mut changes) = (a.events(), a.changes(b"k"));
    let (mut seen, mut changed) = (0, 0);
    for round in 0..WRITES {
        drop((events.next(), changes.next()));
        let event = poll_once(events.next()).flatten();
        seen += usize::from(matches!(event, Some(Event::Changed { .. })));
        changed += usize::from(poll_once(changes.next()).is_some());
        write(&a, b"k", round).await;
    }
    // Two writes in one turn, so that the streams are behind when the task ends.
    write(&a, b"k", WRITES).await;
    write(&a, b"other", WRITES).await;
    a.abort();
    while let Some(event) = timeout(PATIENCE, events.next()).await.unwrap() {
        seen += usize::from(matches!(event, Event::Changed { .. }));
    }
    while let Some(change) = timeout(PATIENCE, changes.next()).await.unwrap() {
        assert!(matches!(change, Change::Key { .. }), "{change:?}");
        changed += 1;
    }
    assert_eq!((seen, changed), (WRITES + 2, WRITES + 1));
}

/// A receiver that nobody reads holds nothing up, and what it missed is counted.
#[tokio::test]
async fn lag_is_explicit_and_adds_up() {
    const BATCH: usize = 512;
    let a = start("a", None).await;
    let (mut events, mut changes) = (a.events(), a.changes(b"k"));
    let writes = LAG + 3 * BATCH;
    for batch in 0..writes / BATCH {
        let insert = move |node: &mut brickwork_tokio::Node, now| {
            for value in 0..BATCH {
                node.insert(now, b"k", &(batch * BATCH + value).to_le_bytes()).unwrap();
            }
        };
        a.call(insert).await.unwrap();
    }
    a.abort();
    let Some(Event::Missed { events: missed }) = events.next().await else { panic!("no lag") };
    let mut received = 0;
    while timeout(PATIENCE, events.next()).await.unwrap().is_some() {
        received += 1;
    }
    assert_eq!((missed + received, received), (writes as u64, LAG as u64));
    let first = changes.next().await;
    assert!(matches!(first, Some(Change::Missed { events }) if events == missed), "{first:?}");
    assert!(matches!(changes.next().await, Some(Change::Key { .. })));
}

#[tokio::test]
async fn a_panic_in_a_closure_fails_every_waiter() {
    let a = start("a", None).await;
    let waiting = tokio::spawn({
        let a = a.clone();
        async move { a.wait_for_members(2).await }
    });
    let mut events = a.events();
    assert_eq!(a.call(|_, _| panic!("the closure's own mistake")).await, Err::<(), _>(Stopped));
    assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap(), Err(Stopped));
    assert_eq!(timeout(PATIENCE, events.next()).await.unwrap(), None);
    assert_eq!(a.leave().await, Err(Stopped));
}
