//! A feed and its watchers, on a node of its own.

use core::time::Duration;

use brickwork_core::Config;
use brickwork_tokio::Options;
use serde_json::Value;

use super::*;
use crate::check::Reason;
use crate::health::Status;

/// Longer than anything here takes on a loaded machine; it only bounds how long a failure takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// One row in a message, so that a few origins make many messages.
const LIMITS: Limits = Limits {
    tick: Duration::from_millis(1),
    refresh: Duration::from_secs(3600),
    rows: 1,
    backlog: 2,
    watchers: 2,
};

const ORIGINS: usize = 10;

fn origin(number: usize) -> Origin {
    Origin {
        name: format!("origin-{number}"),
        url: reqwest::Url::parse("http://127.0.0.1:1/").expect("a URL"),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        healthy_threshold: 1,
        unhealthy_threshold: 1,
        expected_status: 200,
    }
}

async fn feed(limits: Limits) -> Feed {
    let options = Options::new("a", ([127, 0, 0, 1], 0).into()).config(Config::local());
    let source = Source {
        handle: brickwork_tokio::bind(options).await.expect("a port"),
        name: "a".to_owned(),
        cluster: "tested".to_owned(),
        origins: (0..ORIGINS).map(origin).collect(),
        clock: WallClock::start(),
    };
    let feed = Feed::start(source, limits).await.expect("a running node");
    // From here on nothing is told but what a test changes.
    wait_for("the first look", &feed, |counts| counts.owned == ORIGINS).await;
    feed
}

async fn wait_for(what: &str, feed: &Feed, met: impl FnMut(&Counts) -> bool) {
    let mut counts = feed.counts.clone();
    let waited = tokio::time::timeout(DEADLINE, counts.wait_for(met)).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for {what}")).expect("a running feed");
}

async fn write(feed: &Feed, number: usize, state: State) {
    let status = Status {
        state,
        since_ms: 1000,
        latency_us: 1500,
        reason: (state == State::Down).then_some(Reason::Status(503)),
        checker: "b".to_owned(),
        written_us: 2_000_000,
    };
    let written = feed.source.handle.call(move |node, now| {
        let key = format!("origin-{number}");
        node.insert(now, key.as_bytes(), &status.encode()).map(drop)
    });
    written.await.expect("a running node").expect("room for it");
}

/// The next message, which must come.
async fn next(watcher: &mut Watcher) -> (Kind, Value) {
    let next = tokio::time::timeout(DEADLINE, watcher.next()).await;
    let message = next.expect("a message in time").expect("a running node");
    (message.kind, serde_json::from_str(&message.json).expect("JSON"))
}

/// Reads from `snapshot` to the last origin, and returns the rows.
async fn read_all(watcher: &mut Watcher) -> Vec<Value> {
    let (kind, snapshot) = next(watcher).await;
    assert_eq!(kind, Kind::Snapshot);
    assert_eq!((&snapshot["node"], &snapshot["cluster"]), (&"a".into(), &"tested".into()));
    assert_eq!(snapshot["origins"], ORIGINS);
    let (kind, roll) = next(watcher).await;
    assert_eq!((kind, &roll["members"][0]["name"]), (Kind::Members, &"a".into()));
    let mut rows = Vec::new();
    while rows.len() < ORIGINS {
        let (kind, told) = next(watcher).await;
        assert_eq!(kind, Kind::Origins);
        rows.extend(told.as_array().expect("rows").iter().cloned());
    }
    rows
}

#[tokio::test]
async fn a_watcher_gets_everything_and_then_what_changes() {
    let feed = feed(LIMITS).await;
    let mut watcher = feed.watch().expect("a seat");
    let rows = read_all(&mut watcher).await;
    let names: Vec<_> = rows.iter().map(|row| row[1].clone()).collect();
    assert_eq!(names, (0..ORIGINS).map(|number| format!("origin-{number}")).collect::<Vec<_>>());
    assert!(rows.iter().all(|row| row[3] == "unknown" && row[4] == "a"));
    write(&feed, 7, State::Down).await;
    let (kind, told) = next(&mut watcher).await;
    let row = serde_json::json!([[
        7,
        "origin-7",
        "http://127.0.0.1:1/",
        "down",
        "a",
        "b",
        1000,
        2000,
        1.5,
        "status 503",
        1
    ]]);
    assert_eq!((kind, told), (Kind::Origins, row), "this one and no other");
    let counts = feed.counts();
    assert_eq!((counts.up, counts.down, counts.unknown), (0, 1, ORIGINS - 1));
}

#[tokio::test]
async fn a_slow_watcher_starts_over() {
    let feed = feed(LIMITS).await;
    let mut watcher = feed.watch().expect("a seat");
    read_all(&mut watcher).await;
    for number in 0..ORIGINS {
        write(&feed, number, State::Up).await;
    }
    wait_for("all changes to be told", &feed, |counts| counts.up == ORIGINS).await;
    let rows = read_all(&mut watcher).await;
    assert!(rows.iter().all(|row| row[3] == "up"), "{rows:?}");
    write(&feed, 0, State::Down).await;
    let (_, told) = next(&mut watcher).await;
    assert_eq!((&told[0][0], &told[0][3]), (&0.into(), &"down".into()), "and follows again");
}

#[tokio::test]
async fn seats_are_limited_and_given_back() {
    let feed = feed(LIMITS).await;
    let first = feed.watch().expect("a seat");
    let _second = feed.watch().expect("a seat");
    assert_eq!(feed.watch().expect_err("no seat is left"), Refused::Full);
    assert_eq!(feed.watchers(), 2);
    drop(first);
    assert!(feed.watch().is_ok());
}

#[tokio::test]
async fn a_watcher_ends_with_the_node() {
    let feed = feed(LIMITS).await;
    let mut watcher = feed.watch().expect("a seat");
    read_all(&mut watcher).await;
    feed.source.handle.abort();
    let end = tokio::time::timeout(DEADLINE, watcher.next()).await;
    assert_eq!(end.expect("an end in time"), None);
    // The feed notices a moment after its node, and then refuses.
    assert!(feed.counts.clone().wait_for(|_| false).await.is_err());
    drop(watcher);
    assert_eq!(feed.watch().expect_err("nothing to watch"), Refused::Ended);
}
