//! The origins of the demo as real HTTP servers on loopback, which count who asks them.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use alloc::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use super::plan::{Behaviour, Plan};
use crate::check::CHECKER_HEADER;

/// Origins are told apart by their paths, spread over at most this many ports.
const MAX_LISTENERS: usize = 16;

/// All origins, serving until dropped.
#[derive(Debug)]
pub(crate) struct Servers {
    addresses: Vec<SocketAddr>,
    /// Bound and never listened on: connecting to it is refused, and nobody else can take the port.
    closed: TcpSocket,
    shared: Arc<Shared>,
    _listeners: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    start: Instant,
    counts: Mutex<Counts>,
}

/// What the servers counted.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    /// Requests in all.
    pub(crate) requests: u64,
    /// Requests that came while the set of live nodes and everyone's view of it stood still.
    pub(crate) calm_requests: u64,
    /// Of those, requests by a node that does not own the origin.
    pub(crate) by_non_owner: u64,
    /// Requests that calm times owed: their length in intervals, summed over the origins that
    /// listen.
    pub(crate) calm_intervals: f64,
    calm: Option<Calm>,
}

#[derive(Debug, Clone)]
struct Calm {
    since: Instant,
    /// The name of each origin's owner.
    owners: Arc<[Arc<str>]>,
}

impl Counts {
    pub(super) fn begin_calm(&mut self, at: Instant, owners: Arc<[Arc<str>]>) {
        self.calm = Some(Calm { since: at, owners });
    }

    /// Ends a calm time, if there is one, of origins of which `listening` can count, each checked once
    /// per `interval`.
    pub(super) fn end_calm(&mut self, at: Instant, interval: Duration, listening: usize) {
        if let Some(calm) = self.calm.take() {
            let length = at.saturating_duration_since(calm.since);
            let intervals = length.as_secs_f64() / interval.as_secs_f64();
            self.calm_intervals += intervals * listening as f64;
        }
    }

    /// The node called `checker` asks an origin.
    pub(super) fn request(&mut self, number: usize, checker: &[u8]) {
        self.requests += 1;
        let owned = self.calm.as_ref().map(|calm| calm.owners[number].as_bytes() == checker);
        if let Some(by_owner) = owned {
            self.calm_requests += 1;
            self.by_non_owner += u64::from(!by_owner);
        }
    }

    /// What calm times show, unless they are together shorter than an interval, which is no
    /// measurement: checks per origin and interval, and checks by a node that is not the owner.
    pub(super) fn measured(&self, listening: usize) -> Option<(f64, u64)> {
        let enough = self.calm_intervals >= listening as f64;
        enough.then(|| (self.calm_requests as f64 / self.calm_intervals, self.by_non_owner))
    }
}

impl Servers {
    /// Binds and serves everything in `plan`.
    ///
    /// # Errors
    ///
    /// If loopback has no free port.
    pub(crate) async fn start(plan: Plan) -> io::Result<Self> {
        let closed = TcpSocket::new_v4()?;
        closed.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let count = plan.behaviours.len().min(MAX_LISTENERS);
        let shared = Arc::new(Shared { plan, start: Instant::now(), counts: Mutex::default() });
        let app =
            Router::new().route("/origin/{number}", get(answer)).with_state(Arc::clone(&shared));
        let mut addresses = Vec::with_capacity(count);
        let mut listeners = JoinSet::new();
        for _ in 0..count {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            addresses.push(listener.local_addr()?);
            let app = app.clone();
            listeners.spawn(async move {
                // Serving ends only with the task: accept errors are retried inside.
                let _ = axum::serve(listener, app).await;
            });
        }
        Ok(Self { addresses, closed, shared, _listeners: listeners })
    }

    /// The list of these origins, for the nodes to read.
    ///
    /// # Errors
    ///
    /// If the closed port has no address.
    pub(crate) fn list(&self) -> io::Result<String> {
        let closed = self.closed.local_addr()?;
        let plan = &self.shared.plan;
        Ok(plan.list(|number| match plan.listens(number) {
            true => self.addresses[number % self.addresses.len()],
            false => closed,
        }))
    }

    /// When the plan's time began.
    pub(crate) fn start_time(&self) -> Instant {
        self.shared.start
    }

    /// From now on every request must come from its origin's owner, by name.
    pub(crate) fn begin_calm(&self, owners: Arc<[Arc<str>]>) {
        self.shared.counts().begin_calm(Instant::now(), owners);
    }

    /// The set of nodes is about to change, or the run is over: requests count only in the total.
    pub(crate) fn end_calm(&self) {
        let (listening, interval) = (self.listening(), self.shared.plan.interval);
        self.shared.counts().end_calm(Instant::now(), interval, listening);
    }

    /// How many origins have a server that can count.
    pub(crate) fn listening(&self) -> usize {
        let plan = &self.shared.plan;
        (0..plan.behaviours.len()).filter(|&number| plan.listens(number)).count()
    }

    /// What has been counted so far.
    pub(crate) fn counts(&self) -> Counts {
        self.shared.counts().clone()
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // The counts are whole after every statement, so they outlive a panic elsewhere.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, number: usize, headers: &HeaderMap) {
        let checker = headers.get(CHECKER_HEADER).map_or(&b""[..], |value| value.as_bytes());
        self.counts().request(number, checker);
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    Path(number): Path<usize>,
    headers: HeaderMap,
) -> StatusCode {
    let Some(&behaviour) = shared.plan.behaviours.get(number) else {
        return StatusCode::NOT_FOUND;
    };
    shared.count(number, &headers);
    match behaviour {
        // Its URL names the closed port, so nobody comes here to ask.
        Behaviour::Refusing => StatusCode::NOT_FOUND,
        Behaviour::Healthy => StatusCode::OK,
        Behaviour::Slow => {
            tokio::time::sleep(shared.plan.timeout + Duration::from_millis(100)).await;
            StatusCode::OK
        }
        Behaviour::Flapping { .. } => match shared.plan.serves(number, shared.start.elapsed()) {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Checker, Reason};
    use crate::origins::parse;

    const INTERVAL: Duration = Duration::from_secs(2);

    /// An origin, and the name of the node that asks it.
    type Asked = (usize, &'static str);

    fn names(names: &[&str]) -> Arc<[Arc<str>]> {
        names.iter().map(|&name| name.into()).collect()
    }

    /// Ten intervals of calm over three origins of which `a` owns two and `b` one. In each interval
    /// every origin is asked by its owner, and then some by `others`.
    fn ten_intervals(counts: &mut Counts, since: Instant, others: &[Asked]) {
        counts.begin_calm(since, names(&["a", "b", "a"]));
        for _ in 0..10 {
            for (number, name) in [(0, "a"), (1, "b"), (2, "a")].iter().chain(others) {
                counts.request(*number, name.as_bytes());
            }
        }
        counts.end_calm(since + 10 * INTERVAL, INTERVAL, 3);
    }

    /// Goal: a check too many shows, whoever makes it. Method: fabricated requests over ten intervals,
    /// with the checks that ownership asks for and others on top.
    #[test]
    fn checks_beyond_those_of_the_owners_are_counted() {
        let cases: [(&[Asked], f64, u64); 5] = [
            (&[], 1.0, 0),
            (&[(0, "b")], 4.0 / 3.0, 10),
            (&[(1, "")], 4.0 / 3.0, 10), // a check without a name is nobody's
            (&[(2, "a")], 4.0 / 3.0, 0), // the owner itself, twice
            (&[(0, "b"), (0, "c"), (1, "a"), (1, "c"), (2, "b"), (2, "c")], 3.0, 60),
        ];
        for (others, rate, by_non_owner) in cases {
            let mut counts = Counts::default();
            ten_intervals(&mut counts, Instant::now(), others);
            assert_eq!(counts.measured(3), Some((rate, by_non_owner)), "{others:?}");
        }
    }

    #[test]
    fn only_calm_times_count_and_each_with_its_own_owners() {
        let (mut counts, start) = (Counts::default(), Instant::now());
        counts.request(0, b"c");
        assert_eq!(counts.measured(3), None, "nothing was calm yet");
        ten_intervals(&mut counts, start, &[]);
        counts.request(0, b"c");
        assert_eq!(counts.measured(3), Some((1.0, 0)), "what is not calm is not judged");
        // `a` is gone; whoever still checks in its name does what is the new owner's.
        let since = start + 20 * INTERVAL;
        counts.begin_calm(since, names(&["b", "b", "b"]));
        for (number, name) in [(0, "a"), (0, "b"), (1, "b"), (2, "b")] {
            counts.request(number, name.as_bytes());
        }
        counts.end_calm(since + INTERVAL, INTERVAL, 3);
        assert_eq!(counts.measured(3), Some((34.0 / 33.0, 1)));
        assert_eq!(counts.requests, 36);
    }

    #[test]
    fn less_than_an_interval_of_calm_is_no_measurement() {
        let (mut counts, start) = (Counts::default(), Instant::now());
        counts.begin_calm(start, names(&["a", "b", "a"]));
        counts.request(0, b"c");
        counts.end_calm(start + INTERVAL / 2, INTERVAL, 3);
        assert_eq!(counts.measured(3), None);
    }

    #[tokio::test]
    async fn each_origin_does_what_the_plan_says_and_counts_who_asks() {
        let plan = Plan::new(3, 20);
        let servers = Servers::start(plan.clone()).await.expect("free ports");
        let text = servers.list().expect("addresses");
        let list = parse(std::path::Path::new("demo"), &text).expect("a good list");
        let checker = Checker::new("owner", 1).expect("a client");
        let owners: Vec<Arc<str>> = (0..20)
            .map(|number| if number < 10 { "owner".into() } else { "other".into() })
            .collect();
        servers.begin_calm(owners.into());
        for (number, origin) in list.iter().enumerate() {
            let before = servers.start_time().elapsed();
            let outcome = checker.check(origin).await.expect("a check");
            let after = servers.start_time().elapsed();
            match plan.behaviours[number] {
                Behaviour::Healthy => assert_eq!(outcome.failure, None),
                Behaviour::Slow => assert_eq!(outcome.failure, Some(Reason::Timeout)),
                Behaviour::Refusing => assert_eq!(outcome.failure, Some(Reason::Connect)),
                Behaviour::Flapping { .. } => {
                    let steady = plan.since(number, after) <= before;
                    let up = plan.serves(number, before);
                    assert!(!steady || outcome.failure.is_none() == up);
                }
            }
        }
        servers.end_calm();
        let counts = servers.counts();
        let asked =
            |range: core::ops::Range<usize>| range.filter(|&n| plan.listens(n)).count() as u64;
        assert_eq!(counts.requests, asked(0..20));
        assert_eq!(counts.calm_requests, asked(0..20));
        assert_eq!(counts.by_non_owner, asked(10..20));
        assert!(counts.calm_intervals > 0.0);
    }
}
