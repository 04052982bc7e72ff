//! foca 2: callbacks, no clock of its own, one `Vec` of members.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use foca::{Codec as _, Config, Foca, Header, Member, Message, NoCustomBroadcast, Notification};
use foca::{PostcardCodec, Runtime, State, Timer};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use crate::measure::{Entrant, Outcome};
use crate::swim::{ROWS, TELLER, UPDATES, kept};
use crate::wire::Paper;

type Id = SocketAddrV4;
type Node = Foca<Id, PostcardCodec, SmallRng, NoCustomBroadcast>;

/// Counts what is sent and keeps the timers, in the order in which they are due.
#[derive(Default)]
struct Shell {
    now: Duration,
    sent: usize,
    timers: BTreeMap<(Duration, Reverse<u64>), Timer<Id>>,
    serial: u64,
}

impl Runtime<Id> for &mut Shell {
    fn notify(&mut self, _: Notification<'_, Id>) {}

    fn send_to(&mut self, _: Id, data: &[u8]) {
        self.sent += data.len();
    }

    fn submit_after(&mut self, event: Timer<Id>, after: Duration) {
        self.serial += 1;
        // Of timers due at once the probe's end comes before the next probe, as it was asked for.
        self.timers.insert((self.now + after, Reverse(u64::MAX - self.serial)), event);
    }
}

fn id(member: Paper) -> Id {
    match member.addr() {
        SocketAddr::V4(addr) => addr,
        SocketAddr::V6(_) => unreachable!("papers live in v4"),
    }
}

fn alone(shell: &mut Shell) -> Node {
    let mut config = Config::new_lan(std::num::NonZeroU32::new(10_000).expect("not zero"));
    config.periodic_announce = None;
    config.periodic_gossip = None;
    let mut node = Foca::new(id(Paper(0)), config, SmallRng::seed_from_u64(7), PostcardCodec);
    let teller = [Member::alive(id(TELLER))].into_iter();
    node.apply_many(teller, false, shell).expect("a correct update");
    node
}

/// A node with `n` members, and nothing left to say.
fn among(n: u32, shell: &mut Shell) -> Node {
    let mut node = alone(shell);
    let members = (2..n).map(|member| Member::alive(id(Paper(member))));
    node.apply_many(members, false, shell).expect("correct updates");
    node
}

fn packet(message: Message<Id>, members: &[Member<Id>]) -> Vec<u8> {
    let header = Header { src: id(TELLER), src_incarnation: 0, dst: id(Paper(0)), message };
    let mut bytes = Vec::new();
    let mut codec = PostcardCodec;
    codec.encode_header(&header, &mut bytes).expect("it fits");
    bytes.extend_from_slice(&u16::try_from(members.len()).expect("a few").to_be_bytes());
    for member in members {
        codec.encode_member(member, &mut bytes).expect("it fits");
    }
    bytes
}

pub(super) fn ping(n: u32) -> Entrant {
    const BATCH: u64 = 100;
    let mut shell = Shell::default();
    let mut node = among(n, &mut shell);
    let ping = packet(Message::Ping(Default::default()), &[]);
    Entrant::new("foca", move |watch| {
        let before = shell.sent;
        watch.time(BATCH, || {
            for _ in 0..BATCH {
                node.handle_data(&ping, &mut shell).expect("a correct packet");
            }
        });
        assert!(shell.sent > before, "a ping is answered");
    })
}

pub(super) fn updates(n: u32) -> Entrant {
    const BATCH: u32 = 16;
    let mut shell = Shell::default();
    let mut node = among(n, &mut shell);
    let mut incarnation = 0;
    Entrant::new("foca", move |watch| {
        incarnation += 1;
        let packets: Vec<_> = (0..BATCH)
            .map(|at| {
                let members: Vec<_> = (0..UPDATES)
                    .map(|row| Paper(2 + (at * UPDATES + row) * 7 % (n - 2)))
                    .map(|member| Member::new(id(member), incarnation, State::Alive))
                    .collect();
                packet(Message::Gossip, &members)
            })
            .collect();
        watch.time(u64::from(BATCH), || {
            for packet in &packets {
                node.handle_data(packet, &mut shell).expect("a correct packet");
            }
        });
    })
}

pub(super) fn timeouts(n: u32) -> Entrant {
    Entrant::new("foca", move |watch| {
        let mut shell = Shell::default();
        let mut node = alone(&mut shell);
        let members = (2..n).map(|member| Member::alive(id(Paper(member))));
        node.apply_many(members, true, &mut shell).expect("correct updates");
        for _ in 0..200 {
            let ((due, _), timer) = shell.timers.pop_first().expect("somebody is probed");
            shell.now = due;
            watch.time(1, || node.handle_timer(timer, &mut shell)).expect("timers are in order");
        }
    })
}

pub(super) fn removals(n: u32) -> Entrant {
    const DEAD: u32 = 5_000;
    Entrant::new("foca", move |watch| {
        let mut shell = Shell::default();
        let mut node = among(n, &mut shell);
        let dead = (2..2 + DEAD).map(|member| Member::down(id(Paper(member))));
        node.apply_many(dead, true, &mut shell).expect("correct updates");
        let timers = std::mem::take(&mut shell.timers).into_values();
        let removals: Vec<_> =
            timers.filter(|timer| matches!(timer, Timer::RemoveDown(_))).collect();
        assert_eq!(removals.len(), DEAD as usize);
        watch.time(1, || {
            for timer in removals {
                node.handle_timer(timer, &mut shell).expect("a timer of its own");
            }
        });
    })
}

pub(super) fn fill(n: u32) -> Entrant {
    let packets: Vec<_> = (2..n)
        .step_by(ROWS as usize)
        .map(|first| {
            let rows = first..n.min(first + ROWS);
            let members: Vec<_> = rows.map(|member| Member::alive(id(Paper(member)))).collect();
            packet(Message::Gossip, &members)
        })
        .collect();
    Entrant::new("foca", move |watch| {
        let mut shell = Shell::default();
        let mut node = alone(&mut shell);
        watch.time(1, || {
            for packet in &packets {
                node.handle_data(packet, &mut shell).expect("a correct packet");
            }
        });
        assert_eq!(node.iter_members().count(), n as usize - 1);
    })
}

pub(super) fn heap(n: u32) -> Outcome {
    Outcome::counted("foca", (whole(n).median - whole(2).median) / f64::from(n - 2))
}

pub(super) fn whole(n: u32) -> Outcome {
    Outcome::counted("foca", kept(|| among(n, &mut Shell::default())))
}
