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
        self.shared.counts().calm = Some(Calm { since: Instant::now(), owners });
    }

    /// The set of nodes is about to change, or the run is over: requests count only in the total.
    pub(crate) fn end_calm(&self) {
        let listening = self.listening();
        let interval = self.shared.plan.interval;
        let mut counts = self.shared.counts();
        if let Some(calm) = counts.calm.take() {
            let intervals = calm.since.elapsed().as_secs_f64() / interval.as_secs_f64();
            counts.calm_intervals += intervals * listening as f64;
        }
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
        let mut counts = self.counts();
        counts.requests += 1;
        let owned = counts.calm.as_ref().map(|calm| calm.owners[number].as_bytes() == checker);
        if let Some(by_owner) = owned {
            counts.calm_requests += 1;
            counts.by_non_owner += u64::from(!by_owner);
        }
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

    #[tokio::test]
    async fn each_origin_does_what_the_plan_says_and_counts_who_asks() {
        let plan = Plan::new(3, 20);
        let servers = Servers::start(plan.clone()).await.expect("free ports");
        let text = servers.list().expect("addresses");
        let list = parse(std::path::Path::new("demo"), &text).expect("a good list");
        let checker = Checker::new("owner").expect("a client");
        let owners: Vec<Arc<str>> = (0..20)
            .map(|number| if number < 10 { "owner".into() } else { "other".into() })
            .collect();
        servers.begin_calm(owners.into());
        for (number, origin) in list.iter().enumerate() {
            let before = servers.start_time().elapsed();
            let outcome = checker.check(origin).await;
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
