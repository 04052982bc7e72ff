//! `origin-health node`: one real node.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{self, Write as _};
use std::process::ExitCode;

use alloc::sync::Arc;

use brickwork_core::Config;
use brickwork_tokio::{BindError, Options};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::agent::{Agent, Ended, Setup};
use crate::check::{Checker, MAX_CHECKS};
use crate::cli::NodeArgs;
use crate::failure::{self, Failure};
use crate::feed::{Feed, Limits, Source};
use crate::http::{self, Answers};
use crate::origins::{self, Origin};
use crate::schedule::WallClock;

/// How often a node that nobody answers says so.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// How long a stopped node waits for clients to take the rest of their answers.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The line that tells a script where the node is reached.
#[derive(Serialize)]
struct Ready {
    ready: bool,
    bind: String,
    http: String,
}

/// Runs one node until SIGTERM or Ctrl-C.
///
/// # Errors
///
/// If the list of origins is bad, an address cannot be bound, or a live member bears the name.
pub(crate) async fn run(args: NodeArgs) -> Result<ExitCode, Failure> {
    let list: Arc<[Origin]> = origins::load(&args.origins).map_err(Failure::new)?.into();
    check_seeds(&args)?;
    let descriptors = descriptors();
    // Half of them, so that checks leave room for the rest.
    let checks = (descriptors / 2).clamp(1, MAX_CHECKS);
    // Signals are caught before the node can be seen, so that a stop never finds it half started.
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::new)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::new)?;
    let listener = TcpListener::bind(args.http)
        .await
        .map_err(|error| Failure::new(format!("cannot bind HTTP to {}: {error}", args.http)))?;
    let http_addr = listener.local_addr().map_err(Failure::new)?;
    let mut options = Options::new(args.name.clone(), args.bind);
    options.config = Config::lan();
    options.seeds = args.join.clone();
    let cluster = options.config.cluster.clone();
    let handle =
        brickwork_tokio::bind(options).await.map_err(|error| refusal(args.bind, &error))?;
    let bound = handle.local_addr();
    let clock = WallClock::start();
    let setup = Setup {
        handle: handle.clone(),
        events: handle.events(),
        name: args.name.clone(),
        origins: Arc::clone(&list),
        checker: Checker::new(&args.name, checks).map_err(Failure::new)?,
        clock,
        // A node that is told of none but itself is the first one.
        first: args.join.iter().all(|&seed| seed == bound),
        notices: None,
    };
    let stopped = |_stopped| Failure::new("the node stopped");
    let mut agent = Agent::start(setup).await.map_err(stopped)?;
    let (name, handle_of_feed) = (args.name.clone(), handle.clone());
    let source = Source { handle: handle_of_feed, name, cluster, origins: list, clock };
    let feed = Feed::start(source, Limits::NODE).await.map_err(stopped)?;
    let answers = Answers { feed, joined: agent.joined(), tally: agent.tally() };
    let server = Server::start(listener, answers, http::Limits::node(descriptors));
    let complaints = tokio::spawn(complain(agent.joined(), args.clone()));
    ready(bound.to_string(), http_addr.to_string()).map_err(Failure::new)?;

    let ended = tokio::select! {
        ended = agent.ended() => Some(ended),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    complaints.abort();
    let result = match ended {
        None => {
            // First no more checks, then no more member: the next owner starts as soon as it hears
            // of the leave.
            agent.pause().await;
            // Nobody left to tell is no failure.
            let _ = handle.leave().await;
            Ok(ExitCode::SUCCESS)
        }
        Some(Ended::NameTaken { holder }) => Err(Failure::new(format!(
            "the name {:?} is taken by a live member at {holder}",
            args.name
        ))),
        Some(Ended::NodeGone) => Err(Failure::new("the node stopped")),
    };
    // Streams of events end with the node, and the server with its streams.
    handle.abort();
    server.stop().await;
    result
}

/// How many descriptors this process may open, after asking for more. Best effort: the usual limit
/// is too low for thousands of origins, but what needs less works with it.
fn descriptors() -> usize {
    let limit = rlimit::increase_nofile_limit(1 << 16).unwrap_or(1024);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// The HTTP server of a node.
struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    fn start(listener: TcpListener, answers: Answers, limits: http::Limits) -> Self {
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // That the other end is dropped is as good a sign.
            let _ = stopped.await;
        };
        Self { stop, task: tokio::spawn(http::serve(listener, answers, limits, stopped)) }
    }

    /// Completes the answers that were begun, as far as their clients take them.
    async fn stop(mut self) {
        drop(self.stop);
        // A client that does not read must not keep the process alive.
        if tokio::time::timeout(CLOSE_WITHIN, &mut self.task).await.is_err() {
            self.task.abort();
            failure::tell("closed connections whose clients do not read");
        }
    }
}

/// A seed that can never answer is a mistake, not something to wait for.
fn check_seeds(args: &NodeArgs) -> Result<(), Failure> {
    for seed in &args.join {
        let why = if seed.port() == 0 {
            "it has no port"
        } else if seed.ip().is_unspecified() || seed.ip().is_multicast() {
            "it is nobody's address"
        } else if seed.is_ipv4() != args.bind.is_ipv4() {
            "its family is not that of --bind"
        } else {
            continue;
        };
        return Err(Failure::new(format!("--join {seed}: {why}")));
    }
    Ok(())
}

fn refusal(bind: SocketAddr, error: &BindError) -> Failure {
    if let BindError::Config(refused) = error {
        Failure::new(format!("--bind {bind}: {refused}"))
    } else {
        Failure::new(error)
    }
}

fn ready(bind: String, http: String) -> io::Result<()> {
    let line = serde_json::to_string(&Ready { ready: true, bind, http })?;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Says every [`COMPLAIN_EVERY`] that no seed has answered, until one has.
async fn complain(mut joined: watch::Receiver<bool>, args: NodeArgs) {
    let seeds: Vec<String> = args.join.iter().map(ToString::to_string).collect();
    let seeds = seeds.join(", ");
    loop {
        let answered = joined.wait_for(|&joined| joined);
        if tokio::time::timeout(COMPLAIN_EVERY, answered).await.is_ok() {
            return;
        }
        failure::tell(format_args!("no answer from {seeds} yet, still trying to join"));
    }
}
