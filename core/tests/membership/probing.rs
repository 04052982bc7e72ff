//! Probes: whom they ask for help, and what they measure.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use brickwork_core::sim::{Condition, Delay, Fault, Links, Nodes, Sim};
use brickwork_core::{Config, Event};

const MINUTE: Duration = Duration::from_secs(60);

fn start(sim: &mut Sim, nodes: usize) {
    (0..nodes).for_each(|place| sim.start(place, &[0]));
    assert!(sim.run_until(MINUTE, |sim| sim.differences().is_empty()));
    (0..nodes).for_each(|place| drop(sim.events(place)));
}

/// Goal: two members that hear everybody but each other suspect nobody: others ask for them (SWIM section 3.1).
/// Method: the link between two of five is cut, both ways, for two minutes.
#[test]
fn who_is_cut_off_from_one_alone_is_reached_by_way_of_others() {
    let mut sim = Sim::new(3, Config::local());
    start(&mut sim, 5);
    for (from, to) in [(0, 1), (1, 0)] {
        let links = Links::one_way(Nodes::one(from), Nodes::one(to));
        sim.begin(Fault::Link(links, Condition::Cut));
    }
    sim.run(2 * MINUTE);
    for place in 0..5 {
        let events = sim.events(place);
        let worry =
            |event: &&Event| matches!(event, Event::Suspected { .. } | Event::Failed { .. });
        assert_eq!(events.iter().filter(worry).count(), 0, "at {place}: {events:?}");
    }
}

/// Goal: round trips are told as they are. Method: links that take five milliseconds each way.
#[test]
fn the_round_trip_of_a_member_is_measured() {
    let mut sim = Sim::with_delay(4, Config::lan(), Delay::Constant(Duration::from_millis(5)));
    start(&mut sim, 3);
    sim.run(MINUTE);
    for place in 0..3 {
        for other in (0..3).filter(|other| *other != place) {
            let member = sim.node(place).unwrap().member(sim.id(other)).unwrap();
            assert_eq!(member.rtt(), Some(Duration::from_millis(10)), "of {other} at {place}");
        }
    }
}
