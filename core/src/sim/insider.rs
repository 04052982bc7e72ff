//! An adversary inside: a member whose place sends what an honest one would not.

use core::net::SocketAddr;
use core::time::Duration;

use super::adversary::stranger;
use super::fault::{Betrayal, Trouble};
use super::forge::{self, Claim};
use super::net::{Expect, Luck};
use super::network::What;
use super::world::Sim;
use crate::NodeId;
use crate::hash::mix2;
use crate::swim::Member;

/// How long a datagram of an insider is under way: no condition of a link delays it.
const QUICK: Duration = Duration::from_millis(1);

impl Sim {
    /// The node at `place` sends the next of its lies to one of the others.
    pub(super) fn betray(&mut self, place: usize, how: Betrayal, count: u64, mut luck: Luck) {
        let mut some = || luck.below(self.places.len() as u64) as usize;
        let (to, about) = (some(), some());
        let Some(node) = self.node(place) else { return };
        let Some(target) = self.node(to).filter(|_| to != place && to != about) else { return };
        let subject = node.member(self.id(about)).filter(|_| about != place);
        let claim = match how {
            Betrayal::Suspect | Betrayal::Dead => subject.map(|member| Claim::Accused {
                of: member.identity(),
                dead: how == Betrayal::Dead,
                by: luck.next(),
            }),
            Betrayal::Findings => subject.map(|member| Claim::Found {
                of: member.identity(),
                by: luck.next(),
                millis: luck.below(10_000),
            }),
            Betrayal::Alive => subject.map(|member| Claim::Alive {
                of: member.identity(),
                incarnation: member.incarnation() + 1 + luck.below(1_000) as u32,
                version: 1,
                addr: member.addr(),
            }),
            Betrayal::Address => subject.map(|member| Claim::Alive {
                of: member.identity(),
                incarnation: member.incarnation(),
                // Further than a member goes by itself, and not so far that the member is asked.
                version: 8,
                addr: stranger(luck.next()),
            }),
            Betrayal::Members => {
                Some(Claim::Phantom { number: luck.next(), addr: stranger(luck.next()) })
            }
            Betrayal::Keys => Some(Claim::Dot {
                to: receiver(
                    target.swim().me(),
                    self.places[to].lives.last().map(|life| life.started_as),
                ),
                // Replicas that never were, with several writes each, as there is room for few; but not more
                // than a digest has runs for, as those of them that do not arrive are nobody's for ever.
                of: (NodeId(mix2(node.id().0, count / 16)), 1),
                counter: count % 16 + 1,
            }),
            Betrayal::Context => subject.map(|member| Claim::Dot {
                to: receiver(
                    target.swim().me(),
                    self.places[to].lives.last().map(|life| life.started_as),
                ),
                of: (member.id(), member.identity().boot_epoch()),
                counter: 1 + luck.below(64),
            }),
            Betrayal::Silence | Betrayal::Trains => None,
        };
        let Some(claim) = claim else { return };
        let sender = (node.id(), node.identity().boot_epoch());
        let bytes = forge::datagram(&self.config.cluster, sender, |w| claim.write(w));
        *self.net.met.entry("betrayed").or_default() += 1;
        let from = self.net.spots[place].source();
        let what = What::Arrive { place: to, from, expect: Expect::Whole, bytes };
        self.net.push(self.net.now + QUICK, what);
    }

    /// Whether an insider keeps back what its node owes.
    pub(super) fn kept_back(&self, place: usize, to: SocketAddr, bytes: &[u8]) -> bool {
        let spot = &self.net.spots[place];
        let does =
            |how| spot.has(|trouble| matches!(trouble, Trouble::Insider(of, _) if *of == how));
        let shunned = |to: usize| mix2(place as u64, to as u64).is_multiple_of(2);
        (does(Betrayal::Silence) && self.net.by_addr.get(&to).is_some_and(|&to| shunned(to)))
            || (does(Betrayal::Trains) && forge::ends_a_train(bytes))
    }
}

/// Node, boot epoch and replica epoch that a chunk to a node must name.
fn receiver(node: &Member, replica: Option<u64>) -> (NodeId, u64, u64) {
    let boot = node.identity().boot_epoch();
    (node.id(), boot, replica.unwrap_or(boot))
}
