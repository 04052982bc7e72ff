//! A real node between two that answer every ping and say nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::swim::{Config, State, Swim};
use brickwork_core::{Event, Identity, Instant, NodeId};

use super::bytes::{self, CLUSTER, addr};
use super::{A, B, Belief, C};

/// How long a suspicion lasts here, whoever confirms it.
pub const SUSPICION: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// News ride on pings and acks alone, and suspicions last as long as a probe.
fn config() -> Config {
    let mut config = Config::lan();
    config.probe_interval = SUSPICION;
    (config.suspicion_min, config.suspicion_max_mult) = (1, 1);
    config.max_local_health = 0;
    (config.gossip_interval, config.reconnect_interval) = (DAY, DAY);
    config
}

pub struct Observer {
    pub swim: Swim,
    pub now: Instant,
    /// The live members as the events tell them: boot, and whether it is suspected.
    folded: BTreeMap<NodeId, (u64, bool)>,
    /// What it said last about the subject while time passed.
    pub told: Option<bytes::Told>,
}

impl Observer {
    /// The node called `me`, to which the others have introduced themselves.
    pub fn new(me: NodeId, others: &[NodeId]) -> Self {
        let now = Instant::from_nanos(1_000_000_000_000);
        let identity = Identity::new("n", addr(me)).with_id(me);
        let swim = Swim::new(now, identity, CLUSTER, config(), 1400, [7; 32]).unwrap();
        let folded = BTreeMap::from([(me, (1, false))]);
        let mut observer = Self { swim, now, folded, told: None };
        for &other in others {
            observer.meet(other, 1, 0);
        }
        observer
    }

    /// Somebody, in its boot `boot`, asks to be let in, and proves where it is. What it is answered is lost.
    pub fn meet(&mut self, other: NodeId, boot: u64, incarnation: u32) {
        let mut cookie = 0;
        for _ in 0..2 {
            self.take(other, bytes::join(other, boot, incarnation, cookie));
            let answers = self.sent();
            cookie = answers.iter().find_map(|(_, bytes)| bytes::cookie(bytes)).unwrap_or(cookie);
        }
    }

    pub fn me(&self) -> NodeId {
        self.swim.me().id()
    }

    pub fn belief(&self) -> Option<Belief> {
        self.swim.member(A).map(Belief::of)
    }

    pub fn take(&mut self, from: NodeId, mut datagram: Vec<u8>) {
        self.swim.handle_packet(self.now, addr(from), &mut datagram).unwrap();
        self.fold();
    }

    /// Everything that it has to send now.
    pub fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut buf = [0; 1400];
        let mut sent = Vec::new();
        while let Some(one) = self.swim.poll_transmit(&mut buf) {
            sent.push((one.to, one.payload.to_vec()));
        }
        sent
    }

    /// When it wants to be called, counted from now.
    pub fn waits(&self) -> Option<Duration> {
        self.swim.poll_timeout().map(|due| due - self.now)
    }

    pub fn wake(&mut self) {
        self.swim.handle_timeout(self.now);
        self.fold();
    }

    /// Lets time pass between peers that answer every ping, in the boot that this node knows, but for one that is
    /// suspected: it would refute that, were it there.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.swim.poll_timeout().filter(|due| *due <= end) {
            self.now = due;
            self.wake();
            for (to, datagram) in self.sent() {
                self.told = bytes::told_of_subject(&datagram).or_else(|| self.told.take());
                self.answer_for(to, &datagram);
            }
        }
        self.now = end;
    }

    fn answer_for(&mut self, to: SocketAddr, datagram: &[u8]) {
        let asked = [A, B, C].into_iter().find(|id| addr(*id) == to).unwrap();
        let there = self.swim.member(asked).filter(|member| member.state() == State::Alive);
        let Some(member) = there else { return };
        if let Some(ack) = bytes::answer(asked, member.identity().boot_epoch(), datagram) {
            self.take(asked, ack);
        }
    }

    /// Takes all events; they must add up to the members and to who of them is suspected (OM10).
    fn fold(&mut self) {
        while let Some(event) = self.swim.poll_event() {
            let list = &mut self.folded;
            let fits = match &event {
                Event::Joined { identity } => {
                    list.insert(identity.id(), (identity.boot_epoch(), false)).is_none()
                }
                Event::Restarted { old_epoch, identity } => list
                    .insert(identity.id(), (identity.boot_epoch(), false))
                    .is_some_and(|(boot, _)| boot == *old_epoch),
                Event::Suspected { id, .. } => {
                    list.get_mut(id).is_some_and(|(_, suspect)| !core::mem::replace(suspect, true))
                }
                Event::Recovered { id } => {
                    list.get_mut(id).is_some_and(|(_, suspect)| core::mem::replace(suspect, false))
                }
                Event::Failed { id } => list.remove(id).is_some_and(|(_, suspect)| suspect),
                Event::Left { id } => list.remove(id).is_some(),
                _ => false,
            };
            assert!(fits, "OM10: {event:?} over {list:?}");
        }
        let live = self.swim.members().map(|member| {
            let suspect = member.state() == State::Suspect;
            (member.id(), (member.identity().boot_epoch(), suspect))
        });
        let live: BTreeMap<_, _> = live.collect();
        assert_eq!(self.folded, live, "OM10: the events do not add up to the list");
    }
}
