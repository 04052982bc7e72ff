//! What a node knows, read from its own copy in one go.

use alloc::sync::Arc;

use brickwork_core::{Identity, Node, swim};
use serde::Serialize;

use crate::health::{State, Status};
use crate::origins::Origin;

/// One origin, as the node knows it at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// Its place in the list.
    pub(crate) number: usize,
    /// Who checks it now, in this node's view.
    pub(crate) owner: Option<Arc<Identity>>,
    /// What its checker wrote; none until somebody did.
    pub(crate) status: Option<Status>,
    /// How many concurrent values the map holds for it: more than one until somebody who has seen
    /// all of them writes.
    pub(crate) siblings: usize,
}

impl Reading {
    /// Reads the origin at `number` of the list.
    pub(crate) fn new(node: &Node, number: usize, origin: &Origin) -> Self {
        let key = origin.name.as_bytes();
        // Owners are chosen among the live members, so the owner is in the table.
        let owner = node.owner(key).and_then(|id| node.member(id));
        Self {
            number,
            owner: owner.map(|member| Arc::clone(member.identity())),
            status: node.get(key).and_then(Status::decode),
            siblings: node.siblings(key).count(),
        }
    }

    /// Up, down, or not known.
    pub(crate) fn state(&self) -> State {
        self.status.as_ref().map_or(State::Unknown, |status| status.state)
    }
}

/// One member, as the node sees it.
#[derive(Debug, Serialize)]
pub(crate) struct MemberRow {
    id: String,
    name: String,
    addr: String,
    state: &'static str,
    /// Smoothed round-trip time; null until it is measured.
    rtt_ms: Option<f64>,
}

/// Everybody whom the node knows, in the order of names.
#[derive(Debug, Serialize)]
pub(crate) struct Roll {
    members: Vec<MemberRow>,
    /// Those that failed or left and are still remembered.
    former: Vec<MemberRow>,
}

impl Roll {
    /// Reads the member list. The rows come unsorted; see [`Roll::sort`].
    pub(crate) fn read(node: &Node) -> Self {
        Self {
            members: node.members().map(MemberRow::new).collect(),
            former: node.former_members().map(MemberRow::new).collect(),
        }
    }

    /// Puts the rows in order: work that the node need not wait for.
    #[must_use]
    pub(crate) fn sort(mut self) -> Self {
        for rows in [&mut self.members, &mut self.former] {
            rows.sort_by(|a, b| a.name.cmp(&b.name));
        }
        self
    }
}

impl MemberRow {
    fn new(member: &swim::Member) -> Self {
        Self {
            id: member.id().to_string(),
            name: member.name().to_owned(),
            addr: member.addr().to_string(),
            state: match member.state() {
                swim::State::Alive => "alive",
                swim::State::Suspect => "suspect",
                swim::State::Dead => "dead",
                swim::State::Left => "left",
            },
            rtt_ms: member.rtt().map(|rtt| rtt.as_micros() as f64 / 1000.0),
        }
    }
}
