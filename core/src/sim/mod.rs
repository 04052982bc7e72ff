//! Deterministic simulation: clusters under virtual time on a network with faults.
//!
//! [`Sim`] is a world of places with nodes, a network between them and a clock. Every run is a pure
//! function of its seed and of what is asked of it, so whatever it finds can be seen again. [`Checked`]
//! wraps a node, or a lone brick, and asserts the core's promises on every call. [`Network`] is what lies
//! below: virtual time and the faults, for programs of your own.
//!
//! A [`Plan`] is a whole run as data: faults and writes by the clock, then calm. [`Plan::swarm`] makes one
//! from a seed, [`Plan::run`] judges it by every oracle after every step, and [`Plan::shrink`] finds the few
//! steps of a failing one that are enough.
//!
//! ```
//! use brickwork_core::sim::Plan;
//!
//! let report = Plan::swarm(7).run().expect("every oracle holds");
//! assert_eq!(report.trace, Plan::swarm(7).run().unwrap().trace);
//! ```
//!
//! # Testing an embedding of your own
//!
//! [`Network`] is what [`Sim`] stands on, without the nodes: virtual time, sockets, clocks and the same
//! faults, for programs that it knows nothing of. Write your program as the core is written, with its
//! inputs and the time as arguments, and let the test be the loop around it. Here a program counts the
//! members on a display; `examples/own_embedding.rs` is a longer one, a scheduler with a protocol of its
//! own:
//!
//! ```
//! use core::time::Duration;
//!
//! use brickwork_core::sim::{Checked, Condition, Fault, Happening, Links, Network, Nodes};
//! use brickwork_core::{Config, Event, Identity, Instant};
//!
//! /// The program. In production its node is a `Node`.
//! struct Display {
//!     node: Checked,
//!     shows: usize,
//! }
//!
//! impl Display {
//!     fn turn(&mut self, now: Instant, what: Happening) {
//!         match what {
//!             Happening::Datagram { from, mut bytes, .. } => {
//!                 let _ = self.node.handle_packet(now, from, &mut bytes); // counted by the node
//!             }
//!             Happening::Timer => self.node.handle_timeout(now),
//!             _ => {}
//!         }
//!         while let Some(event) = self.node.poll_event() {
//!             match event {
//!                 Event::Joined { .. } => self.shows += 1,
//!                 Event::Failed { .. } | Event::Left { .. } => self.shows -= 1,
//!                 Event::Missed { .. } => self.shows = self.node.node().members().count(),
//!                 _ => {}
//!             }
//!         }
//!     }
//! }
//!
//! /// The loop around the programs, as a real one is between a socket and a clock.
//! fn run(net: &mut Network, displays: &mut [Display], time: Duration) {
//!     let end = net.now() + time;
//!     while let Some(input) = net.next(end) {
//!         let (place, display) = (input.place, &mut displays[input.place]);
//!         display.turn(input.now, input.what);
//!         net.serve(place, &mut display.node);
//!     }
//! }
//!
//! let mut net = Network::new(7);
//! let mut displays = Vec::new();
//! for place in 0..4_u8 {
//!     let addr = ([10, 0, 0, 1 + place], 7946).into();
//!     let place = net.bind(addr);
//!     let identity = Identity::new(format!("display-{place}"), addr);
//!     let entropy = [place as u8; 32];
//!     let mut node = Checked::new(net.clock(place), identity, Config::local(), entropy)?;
//!     node.join(net.clock(place), &[net.addr(0)]);
//!     net.serve(place, &mut node);
//!     displays.push(Display { node, shows: 1 });
//! }
//! run(&mut net, &mut displays, Duration::from_secs(5));
//!
//! let side = Links::around(&Nodes::one(3));
//! let cut = net.begin(Fault::Link(side, Condition::Cut));
//! run(&mut net, &mut displays, Duration::from_secs(20));
//! let shown: Vec<_> = displays.iter().map(|display| display.shows).collect();
//! assert_eq!(shown, [3, 3, 3, 1]);
//!
//! net.end(cut);
//! run(&mut net, &mut displays, Duration::from_secs(20));
//! assert!(displays.iter().all(|display| display.shows == 4));
//! # Ok::<(), brickwork_core::ConfigError>(())
//! ```
//!
//! - *What the network does*: everything below under loss, copies, delay, partitions, clocks and damage, and
//!   of nodes whatever comes from outside: pauses, slowness, deafness, sockets, floods, replays, spoofed
//!   sources. Each place is what [`Fault`] calls a node. Datagrams need not be the core's.
//! - *What the test does*: deaths, leaves and moves, with [`Network::close`], [`Network::open`] and
//!   [`Network::move_to`], because only the test knows what of a program survives its death.
//!   [`Network::begin`] says so if it is asked for them.
//! - *What to assert*: the promises of your program, after the faults are over and at every step that is to
//!   be safe. [`Expect`] tells whether a datagram may be refused, and [`Checked`] asserts those of the core.
//!
//! A failing seed is a test of its own: the same seed and the same calls give the same inputs. Faults that
//! begin with [`Network::begin_with`] keep their luck when others are left out, so that a failing run can be
//! made shorter.
//!
//! # What goes wrong
//!
//! [`Fault::CLASSES`] are what plans draw from, [`Plan::SCALES`] and [`Plan::CLASSES`] what they have besides,
//! and [`Plan::EFFECTS`] what faults must have led to in a campaign. It must also have met the steps between
//! the states of members of [`Plan::STEPS`], moved [`Plan::COUNTERS`], and come through [`Plan::BRANCHES`].
//!
//! - *Loss*: even, in bursts, one way, by size, by kind of frame, of the first packets of a link.
//! - *Copies*: duplicates up to ten minutes late, and recorded datagrams that arrive again, in later lives of
//!   either end too.
//! - *Delay*: constant, even, exponential, Pareto, with stalls, other ones there and back, and clogs that
//!   let go all at once. Datagrams overtake each other freely.
//! - *Partitions*: between two sides, around one node, one way, rings, bridges, partial meshes, flapping
//!   ones. Sources that change as behind a NAT, for a while or for ever.
//! - *Nodes*: paused, slow, deaf, mute, with late timers, with sockets that block or hold little, with events
//!   that nobody takes.
//! - *Clocks*: too fast, too slow, leaping up to a year, stepping back, beginning anywhere, and wall clocks
//!   that are behind at the next start.
//! - *Deaths*: any time, in the middle of a join, of a leave or of a train of datagrams; of all within one
//!   probe period, or one after the other; for ever; with another address afterwards.
//! - *Damage*: flipped bits, cuts, extensions, splices, bursts of them, and lies under a right checksum.
//! - *Settings*: from one node to 32, and as many as [`Plan::swarm_of`] is asked for; others at each node;
//!   the smallest datagrams; two clusters that meet.
//! - *Adversaries* without a key: noise, replays, joins and pings under the addresses of others; and with one:
//!   see [`Betrayal`].
//!
//! What is not there waits for what it would test. Stale and cloned state wait for state that can be
//! restored; other versions, weights and keys in one cluster for those; more members, keys or marks of
//! removal than there is room for, wait for quotas: [`Config`](crate::Config) bounds them, and who is refused
//! does not agree. The classes of [`Fault::BEYOND`] can be asked for, and say what they wait for.

// A simulation tells what it finds by panicking: that is what its callers are for.
#![allow(clippy::missing_panics_doc)]
// Virtual places and dice are far below any limit of these types.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

mod adversary;
mod befall;
mod checked;
mod clock;
mod damage;
mod draw;
mod fault;
mod forge;
mod inputs;
mod insider;
mod judge;
mod lives;
mod machine;
mod net;
mod network;
mod outputs;
mod plan;
mod run;
mod setting;
mod shrink;
mod trouble;
mod turn;
mod view;
mod world;

pub use adversary::Exchange;
pub use checked::Checked;
pub use fault::{Betrayal, Condition, Damage, Delay, Fault, Links, Moment, Nodes, Trouble};
pub use judge::Violation;
pub use machine::Machine;
pub use net::{Expect, Traffic};
pub use network::{Happening, Input, Network};
pub use plan::{Act, Plan, Report, Step};
pub use shrink::Shrunk;
pub use world::{End, Life, Sim};
