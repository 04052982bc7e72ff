//! One node's part in the cluster: it checks the origins that it owns, and writes what it finds
//! into the map.
//!
//! Who owns an origin follows from the live members alone, so there is nothing to agree on: on
//! every change of membership the agent asks its node anew, stops what it lost and starts what it
//! gained. Nobody else checks.
//!
//! A node that gains an origin first writes over the status it reads, having read every sibling of
//! it. From then on its own dot is the only one, so a late value of the owner before it cannot win
//! a read. State and `since` are carried over: the origin did not change, only its checker. Two
//! nodes whose views differ for a moment can both write: the rightful owner writes over the other
//! value at once if that is the one that is read, and else with its next write.
//!
//! A status is written when its state changes, and otherwise every [`REFRESH`] checks, so that
//! latency and the reason of the last failure are at most that old.

use alloc::sync::Arc;
use core::fmt;
use core::net::SocketAddr;

use brickwork_core::NodeId;
use brickwork_tokio::{Events, Handle, Stopped};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::task::Task;
use crate::check::Checker;
use crate::origins::Origin;
use crate::schedule::WallClock;
use crate::tally::Tally;

mod task;
#[cfg(test)]
mod tests;

/// An unchanged status is written again after this many checks.
pub(crate) const REFRESH: u32 = 10;

/// What an agent works with.
pub(crate) struct Setup {
    /// The node.
    pub(crate) handle: Handle,
    /// Its events, from the start.
    pub(crate) events: Events,
    /// The node's name, as it stands in statuses.
    pub(crate) name: String,
    /// The list of origins, the same on every node.
    pub(crate) origins: Arc<[Origin]>,
    /// Makes the checks.
    pub(crate) checker: Checker,
    /// Unix time.
    pub(crate) clock: WallClock,
    /// Whether this node starts a cluster. If not, it owns nothing until it has met another node:
    /// what is to be checked by the cluster that it is about to join is not checked twice.
    pub(crate) first: bool,
    /// Where to tell what happens, for an observer of the whole cluster.
    pub(crate) notices: Option<mpsc::UnboundedSender<Notice>>,
}

/// Something that an observer of the whole cluster wants to know at once.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    /// The node that tells.
    pub(crate) node: NodeId,
    /// When it happened.
    pub(crate) at: Instant,
    /// What.
    pub(crate) what: What,
}

/// What a [`Notice`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// The node holds this member for failed.
    Failed(NodeId),
    /// The node made its first check of an origin that it gained.
    Took(usize),
    /// The node wrote a status, which bears this stamp.
    Wrote(usize, u64),
    /// The node reads a status that another one wrote, with this stamp.
    Saw(usize, u64),
}

/// Why an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The node is gone.
    NodeGone,
    /// A live member bears this node's name.
    NameTaken {
        /// Where it lives.
        holder: SocketAddr,
    },
}

/// A running agent. Dropping it ends its checks at once.
#[derive(Debug)]
pub(crate) struct Agent {
    commands: mpsc::Sender<Command>,
    joined: watch::Receiver<bool>,
    tally: Arc<Tally>,
    task: JoinHandle<Ended>,
}

#[derive(Debug)]
enum Command {
    Pause(oneshot::Sender<()>),
    Owned(oneshot::Sender<Vec<usize>>),
}

impl Agent {
    /// Starts the agent of one node.
    pub(crate) async fn start(setup: Setup) -> Result<Self, Stopped> {
        let me = setup.handle.call(|node, _| Arc::clone(node.identity())).await?;
        let (commands, inbox) = mpsc::channel(4);
        let (joined, seen) = watch::channel(setup.first);
        let tally = Arc::new(Tally::default());
        let (task, findings) = Task::new(setup, &me, joined, Arc::clone(&tally));
        let task = tokio::spawn(task.run(inbox, findings));
        Ok(Self { commands, joined: seen, tally, task })
    }

    /// Whether the node has met another one, or started the cluster itself.
    pub(crate) fn joined(&self) -> watch::Receiver<bool> {
        self.joined.clone()
    }

    /// The checks that were completed.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// The origins that are checked here now, in order; none if the agent has ended.
    pub(crate) async fn owned(&self) -> Vec<usize> {
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Command::Owned(answer)).await.is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
    }

    /// Waits until the agent ends by itself.
    pub(crate) async fn ended(&mut self) -> Ended {
        // A panic of the task was printed where it happened.
        (&mut self.task).await.unwrap_or(Ended::NodeGone)
    }

    /// Ends all checks for good. The node goes on as a member; it should leave soon.
    pub(crate) async fn pause(&self) {
        let (done, paused) = oneshot::channel();
        // An agent that has ended makes no checks.
        if self.commands.send(Command::Pause(done)).await.is_ok() {
            let _ = paused.await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("name", &self.name).finish_non_exhaustive()
    }
}
