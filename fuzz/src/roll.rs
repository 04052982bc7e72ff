//! The member list as the events tell it, held against the views.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use brickwork_core::swim::{Member, Swim};
use brickwork_core::{Event, Instant, NodeId};

/// How long the configurations of all targets remember who left.
const TOMBSTONE_AGE: Duration = Duration::from_secs(24 * 3600);

/// The live members with their boot epochs, folded from events alone.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    live: BTreeMap<NodeId, u64>,
    /// Boots that said goodbye, and when that was heard.
    left: BTreeMap<(NodeId, u64), Instant>,
    /// The latest time seen; clocks step back.
    latest: Instant,
    /// Events are missing, and only the views know the members.
    lost: bool,
    /// This node's own leave is over.
    pub(crate) finished: bool,
    max_members: usize,
}

impl Roll {
    /// The roll of a node that knows only itself.
    pub(crate) fn new(me: &Member, max_members: usize) -> Self {
        let live = BTreeMap::from([(me.id(), me.identity().boot_epoch())]);
        Self { live, max_members, ..Self::default() }
    }

    /// Goes on from what the views say now.
    pub(crate) fn resume(&mut self, swim: &Swim) {
        self.lost = true;
        self.check(swim);
    }

    pub(crate) fn apply(&mut self, now: Instant, event: &Event) {
        self.latest = self.latest.max(now);
        match event {
            Event::Missed { .. } => self.lost = true,
            Event::LeaveFinished { .. } => self.finished = true,
            // What comes after a gap cannot be held against what was before it.
            _ if self.lost => {}
            Event::Joined { identity } => {
                let (id, boot) = (identity.id(), identity.boot_epoch());
                if let Some(&at) = self.left.get(&(id, boot)) {
                    let age = self.latest - at;
                    assert!(age >= TOMBSTONE_AGE, "boot {boot} of {id} left and is back");
                }
                assert!(self.live.insert(id, boot).is_none(), "{id} joined twice");
            }
            Event::Restarted { old_epoch, identity } => {
                let old = self.live.insert(identity.id(), identity.boot_epoch());
                assert_eq!(old, Some(*old_epoch), "restart of {}", identity.id());
                assert!(
                    identity.boot_epoch() > *old_epoch,
                    "{} restarted as of old",
                    identity.id()
                );
            }
            Event::Updated { identity } => {
                let boot = self.live.get(&identity.id());
                assert_eq!(boot, Some(&identity.boot_epoch()), "update of {}", identity.id());
            }
            Event::Failed { id } => assert!(self.live.remove(id).is_some(), "{id} gone twice"),
            Event::Left { id } => {
                let boot = self.live.remove(id);
                let boot = boot.unwrap_or_else(|| panic!("{id} left without having been there"));
                self.left.insert((*id, boot), self.latest);
            }
            Event::Suspected { id, .. } | Event::Recovered { id } => {
                assert!(self.live.contains_key(id), "{id} is doubted and not there");
            }
            Event::Isolated => {
                assert!(self.live.len() <= 1, "isolated among {} others", self.live.len() - 1);
            }
            Event::Conflict { .. }
            | Event::HeldOut { .. }
            | Event::Rejoined
            | Event::Changed { .. }
            | Event::Diverged { .. }
            | Event::Gained { .. }
            | Event::Lost { .. }
            | Event::WrittenAnew { .. }
            | Event::Full => {}
            unknown => panic!("{unknown:?} is not on the roll"),
        }
    }

    /// After all events: what they add up to is what the views say, within the limits.
    pub(crate) fn check(&mut self, swim: &Swim) {
        let me = swim.me();
        if me.is_live() {
            // A clock that stepped back makes a node take another epoch without telling itself.
            self.live.insert(me.id(), me.identity().boot_epoch());
        } else {
            self.live.remove(&me.id());
        }
        let views = || swim.members().map(|member| (member.id(), member.identity().boot_epoch()));
        if std::mem::take(&mut self.lost) {
            self.live = views().collect();
            self.left.clear();
        }
        assert_eq!(swim.len(), self.live.len(), "events and members differ in number");
        for (id, boot) in views() {
            assert_eq!(self.live.get(&id), Some(&boot), "events and members differ about {id}");
        }
        let former = swim.former_members().count();
        assert!(swim.len() + former <= self.max_members, "{former} former members are too many");
        let live = swim.former_members().find(|member| self.live.contains_key(&member.id()));
        assert!(live.is_none(), "{live:?} is live and gone");
    }

    /// The ids on the roll.
    pub(crate) fn ids(&self) -> BTreeSet<NodeId> {
        self.live.keys().copied().collect()
    }
}
