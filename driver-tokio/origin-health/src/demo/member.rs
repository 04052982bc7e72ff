//! One node of the demo: a node, its agent and its own copy of everything. What it shares with the
//! others is UDP.

use core::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use alloc::sync::Arc;

use brickwork_core::{Config, NodeId};
use brickwork_tokio::{Handle, Options};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::agent::{Agent, Notice, Setup};
use crate::check::{Checker, MAX_CHECKS};
use crate::failure::Failure;
use crate::health::{State, Status};
use crate::origins::{self, Origin};
use crate::schedule::WallClock;

/// What all nodes of a run are started with.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// The list of origins, as text: every node reads it for itself.
    pub(crate) list: String,
    /// Settings of the nodes.
    pub(crate) config: Config,
    /// Percent of the datagrams that do not arrive.
    pub(crate) loss: f64,
    /// Decides which.
    pub(crate) seed: u64,
    /// Where the observer listens.
    pub(crate) notices: mpsc::UnboundedSender<Notice>,
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: Arc<str>,
    pub(crate) id: NodeId,
    pub(crate) addr: SocketAddr,
    pub(crate) started: Instant,
    pub(crate) agent: Agent,
    handle: Handle,
    origins: Arc<[Origin]>,
}

/// What a node answers for all origins at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    /// Live members in its view, itself included.
    pub(crate) members: usize,
    /// How many origins it owns in its view.
    pub(crate) owns: usize,
    /// The state of each origin.
    pub(crate) states: Vec<State>,
}

/// What a node believes, in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Belief {
    /// Live members, in order.
    pub(crate) members: Vec<NodeId>,
    /// Who owns each origin.
    pub(crate) owners: Vec<Option<NodeId>>,
    /// The bytes of each origin's status.
    pub(crate) statuses: Vec<Option<Vec<u8>>>,
}

/// What a node has sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) bytes: u64,
    pub(crate) datagrams: u64,
}

impl Member {
    /// Starts the node `name`, which joins through `seeds`; without seeds it is the first.
    ///
    /// # Errors
    ///
    /// If it cannot be bound, or stops at once.
    pub(crate) async fn start(
        name: &str,
        seeds: &[SocketAddr],
        recipe: &Recipe,
    ) -> Result<Self, Failure> {
        let gone = |_stopped| Failure::new(format!("{name} stopped at its start"));
        let origins = origins::parse(Path::new("demo"), &recipe.list).map_err(Failure::new)?;
        let origins: Arc<[Origin]> = origins.into();
        let id = NodeId::from_name(name);
        let mut options = Options::new(name, (Ipv4Addr::LOCALHOST, 0).into());
        options.config = recipe.config.clone();
        options.seeds = seeds.to_vec();
        if recipe.loss > 0.0 {
            options.ingress = Some(lossy(recipe.loss, recipe.seed ^ id.0));
        }
        let handle = brickwork_tokio::bind(options).await.map_err(Failure::new)?;
        let setup = Setup {
            events: handle.events(),
            handle: handle.clone(),
            name: name.to_owned(),
            origins: Arc::clone(&origins),
            checker: Checker::new(name, MAX_CHECKS).map_err(Failure::new)?,
            clock: WallClock::start(),
            first: seeds.is_empty(),
            notices: Some(recipe.notices.clone()),
        };
        let agent = Agent::start(setup).await.map_err(gone)?;
        let (addr, started) = (handle.local_addr(), Instant::now());
        Ok(Self { name: name.into(), id, addr, started, agent, handle, origins })
    }

    /// Dies as a process does that is killed: no goodbye, and nothing of it runs on.
    pub(crate) fn kill(self) {
        self.handle.abort();
        drop(self.agent);
    }

    /// The answers of this node; none if it is gone.
    pub(crate) fn sample(&self) -> impl Future<Output = Option<Sample>> + Send + 'static {
        let (handle, origins) = (self.handle.clone(), Arc::clone(&self.origins));
        async move {
            let sample = handle.call(move |node, _| {
                let me = Some(node.id());
                let mut owns = 0;
                let state = |origin: &Origin| {
                    let key = origin.name.as_bytes();
                    owns += usize::from(node.owner(key) == me);
                    node.get(key)
                        .and_then(Status::decode)
                        .map_or(State::Unknown, |status| status.state)
                };
                let states = origins.iter().map(state).collect();
                let members = node.members().filter(|member| member.is_live()).count();
                Sample { at: Instant::now(), members, owns, states }
            });
            sample.await.ok()
        }
    }

    /// The live members in this node's view, in order; none if it is gone.
    pub(crate) async fn members(&self) -> Vec<NodeId> {
        let read = self.handle.call(|node, _| {
            let live = node.members().filter(|member| member.is_live());
            let mut ids: Vec<NodeId> = live.map(|member| member.id()).collect();
            ids.sort_unstable();
            ids
        });
        read.await.unwrap_or_default()
    }

    /// Everything this node believes; none if it is gone.
    pub(crate) async fn belief(&self) -> Option<Belief> {
        let members = self.members().await;
        let origins = Arc::clone(&self.origins);
        let read = self.handle.call(move |node, _| {
            let keys = || origins.iter().map(|origin| origin.name.as_bytes());
            let owners = keys().map(|key| node.owner(key)).collect();
            let statuses = keys().map(|key| node.get(key).map(<[u8]>::to_vec)).collect();
            Belief { members, owners, statuses }
        });
        read.await.ok()
    }

    /// What this node has sent since its start; none if it is gone.
    pub(crate) async fn sent(&self) -> Option<Sent> {
        let read = self.handle.call(|node, _| {
            let stats = node.stats();
            Sent { bytes: stats.bytes_sent, datagrams: stats.datagrams_sent }
        });
        read.await.ok()
    }
}

/// Says of each datagram that arrives whether the node gets to see it.
type Ingress = Box<dyn FnMut(SocketAddr, &[u8]) -> bool + Send>;

/// Drops `percent` of what arrives, the same ones for the same seed and arrivals.
fn lossy(percent: f64, seed: u64) -> Ingress {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let lost = (percent * 10_000.0) as u64;
    Box::new(move |_, _| rng.next_u64() % 1_000_000 >= lost)
}
