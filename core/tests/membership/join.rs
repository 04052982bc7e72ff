//! Contested names and late answers in the join handshake.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use crate::common::{Net, addr, frame_of, name};
use brickwork_core::swim::{self, Swim};
use brickwork_core::{Config, Event, Identity, Instant, NodeId};

const SECOND: Duration = Duration::from_secs(1);
const JOIN: u8 = 0x08;
const COOKIE: u8 = 0x09;
const CONFLICT: u8 = 0x0a;
const BOOT_TOO_OLD: u8 = 0x0b;

/// The first datagram to `place` that carries a frame of this tag, as recorded by the tap.
fn answer(net: &mut Net, place: usize, tag: u8) -> Vec<u8> {
    let recorded = net.tap.take().unwrap();
    let wanted = recorded
        .into_iter()
        .find(|(_, to, bytes)| *to == addr(place) && frame_of(bytes, tag).is_some());
    wanted.expect("it was answered").2
}

fn hand_in(net: &mut Net, place: usize, from: usize, mut bytes: Vec<u8>) {
    net.with(place, |node, now| node.handle_packet(now, addr(from), &mut bytes)).unwrap().unwrap();
}

fn conflicts(net: &Net, place: usize) -> usize {
    net.events[place].iter().filter(|event| matches!(event, Event::Conflict { .. })).count()
}

/// Goal: a CONFLICT that was meant for an earlier boot does not keep the next one out.
/// Method: the holder of the name dies, the newcomer is started again, and the old answer comes late.
#[test]
fn a_conflict_told_to_an_earlier_boot_is_void() {
    let mut net = Net::cluster(1, Config::local(), 3);
    net.tap = Some(Vec::new());
    net.start_as(3, &name(1), &[0]);
    net.run(5 * SECOND);
    assert_eq!(conflicts(&net, 3), 1, "the holder was there");
    let late = answer(&mut net, 3, CONFLICT);
    net.crash(1);
    net.start_as(3, &name(1), &[0]);
    hand_in(&mut net, 3, 0, late);
    let agreed = net.run_until(30 * SECOND, |net| net.differences(&[]).is_empty());
    assert!(agreed, "{:?}", net.differences(&[]));
    assert_eq!(conflicts(&net, 3), 0);
    assert_eq!(net.node(0).member(net.node(3).id()).unwrap().addr(), addr(3));
}

/// Goal: a node that is told of another cluster while it has members of its own asks there at once, and does not
/// ask those whom it has. Method: what it sends in the moment that it is told.
#[test]
fn a_node_with_members_asks_new_seeds_at_once() {
    let mut net = Net::cluster(8, Config::local(), 3);
    net.tap = Some(Vec::new());
    let seeds = [0, 1, 7, 8, 9].map(addr);
    net.with(0, |node, now| node.join(now, &seeds)).unwrap();
    let sent = net.tap.take().unwrap();
    let asked =
        |place| sent.iter().filter(|(from, to, _)| *from == 0 && *to == addr(place)).count();
    assert_eq!([0, 7, 8, 9].map(asked), [0, 1, 1, 1], "{sent:?}");
    let joins = sent.iter().filter(|(_, _, bytes)| frame_of(bytes, JOIN).is_some());
    assert_eq!(joins.count(), 3, "{sent:?}");
}

/// Goal: a BOOT_TOO_OLD that was meant for an earlier boot does not give the next one that boot's epoch.
/// Method: two starts with the clock set back; the second hears the answer to the first.
#[test]
fn an_epoch_told_to_an_earlier_boot_is_void() {
    let mut net = Net::cluster(2, Config::local(), 3);
    net.crash(2);
    net.rewind_epochs(500);
    net.tap = Some(Vec::new());
    net.start(2, &[0]);
    net.run(5 * SECOND);
    let late = answer(&mut net, 2, BOOT_TOO_OLD);
    let adopted = net.node(2).identity().boot_epoch();
    net.crash(2);
    net.start(2, &[0]);
    let own = net.node(2).identity().boot_epoch();
    assert!(own < adopted, "the clock is still behind");
    hand_in(&mut net, 2, 0, late);
    assert_eq!(net.node(2).identity().boot_epoch(), own);
    let agreed = net.run_until(30 * SECOND, |net| net.differences(&[]).is_empty());
    assert!(agreed, "{:?}", net.differences(&[]));
    assert!(net.node(2).identity().boot_epoch() > adopted, "no two boots share an epoch");
}

/// Goal: a cookie proves the address of the boot that it was given to, and of no other.
/// Method: the second boot repeats the cookie of the first, is sent its own, and gets in with that.
#[test]
fn a_cookie_given_to_an_earlier_boot_only_costs_a_round() {
    let boot = |name: &str, port: usize, boot_epoch| {
        let identity = Identity::new(name, addr(port)).with_boot_epoch(boot_epoch);
        let seed = [u8::try_from(boot_epoch).unwrap(); 32];
        Swim::new(Instant::ZERO, identity, "test", swim::Config::lan(), 1400, seed).unwrap()
    };
    let sent = |swim: &mut Swim| {
        let mut buf = [0; 1400];
        swim.poll_transmit(&mut buf).map(|sent| sent.payload.to_vec())
    };
    let now = Instant::ZERO;
    let (mut seed, mut first, mut second) = (boot("seed", 0, 1), boot("b", 1, 2), boot("b", 1, 3));
    let ask = |seed: &mut Swim, mut join: Vec<u8>| {
        seed.handle_packet(now, addr(1), &mut join).unwrap();
        sent(seed).expect("an answer")
    };
    first.join(now, &[addr(0)]);
    let join = sent(&mut first).unwrap();
    let mut late = ask(&mut seed, join);
    assert!(frame_of(&late, COOKIE).is_some());

    // Whoever never asked takes no cookie at all.
    second.handle_packet(now, addr(0), &mut late.clone()).unwrap();
    assert_eq!(sent(&mut second), None);
    second.join(now, &[addr(0)]);
    sent(&mut second).unwrap(); // lost
    second.handle_packet(now, addr(0), &mut late).unwrap();
    let join = sent(&mut second).unwrap();
    let mut own = ask(&mut seed, join);
    assert_eq!(seed.members().count(), 1, "the cookie of another boot proves nothing");
    assert_ne!(frame_of(&own, COOKIE).unwrap(), frame_of(&late, COOKIE).unwrap());
    second.handle_packet(now, addr(0), &mut own).unwrap();
    let join = sent(&mut second).unwrap();
    let mut welcome = ask(&mut seed, join);
    second.handle_packet(now, addr(0), &mut welcome).unwrap();
    assert_eq!((seed.members().count(), second.members().count()), (2, 2));
    assert_eq!(seed.member(NodeId::from_name("b")).unwrap().identity().boot_epoch(), 3);
}

/// Goal: two nodes of one name and one boot epoch are a conflict; none takes the other's place.
/// Method: the holder answers the challenge at its own address, and the newcomer, whose identity may
/// even claim to be the newer version of that boot, is told.
#[test]
fn one_name_and_one_boot_epoch_at_two_addresses_is_a_conflict() {
    for (seed, newer) in [(0, false), (2, false), (0, true), (2, true)] {
        let mut net = Net::cluster(3, Config::local(), 3);
        let holder = net.node(1).identity().clone();
        net.rewind_epochs(2);
        net.start_as(3, &name(1), &[seed]);
        assert_eq!(net.node(3).identity().boot_epoch(), holder.boot_epoch());
        if newer {
            net.with(3, |node, now| node.set_meta(now, b"newer".to_vec())).unwrap().unwrap();
        }
        let before = [0, 1, 2].map(|place| net.events[place].len());
        net.run(10 * SECOND);
        let told = Event::Conflict { id: holder.id(), holder: holder.addr(), newcomer: addr(3) };
        assert_eq!(net.events[3].as_slice(), core::slice::from_ref(&told), "by way of {seed}");
        assert_eq!(net.node(3).members().count(), 1);
        for (place, before) in before.into_iter().enumerate() {
            assert_eq!(net.node(place).members().count(), 3);
            let member = net.node(place).member(holder.id()).unwrap();
            assert_eq!(**member.identity(), *holder, "at {place}, by way of {seed}");
            let expected = if place == seed { core::slice::from_ref(&told) } else { &[] };
            assert_eq!(&net.events[place][before..], expected, "at {place}");
        }
    }
}

/// Goal: the name of a dead holder is not lost to a newcomer that happens to have its boot epoch.
/// Method: the holder does not answer the challenge; the newcomer takes the next epoch and gets in.
#[test]
fn a_newcomer_with_the_boot_epoch_of_a_dead_holder_gets_the_next() {
    for pause in [Duration::ZERO, 30 * SECOND] {
        let mut net = Net::cluster(4, Config::local(), 3);
        let holder = net.node(1).identity().clone();
        net.crash(1);
        net.run(pause);
        net.rewind_epochs(2);
        net.start_as(3, &name(1), &[0]);
        assert_eq!(net.node(3).identity().boot_epoch(), holder.boot_epoch());
        let there = |net: &Net, place: usize| {
            let member = net.node(place).member(holder.id()).map(|member| &**member.identity());
            member.map(|new| (new.addr(), new.boot_epoch()))
        };
        let next = Some((addr(3), holder.boot_epoch() + 1));
        let agreed = net.run_until(30 * SECOND, |net| {
            [0, 2].iter().all(|&place| there(net, place) == next) && net.differences(&[]).is_empty()
        });
        assert!(agreed, "after {pause:?}: {:?} {:?}", net.differences(&[]), there(&net, 0));
        assert_eq!(conflicts(&net, 3), 0);
    }
}

/// Goal: a node that moves to another address needs not wait until its old place counts as failed.
/// Method: it starts elsewhere at once; the old place leaves the challenge unanswered, and the name
/// changes hands as a restart, without a death in between.
#[test]
fn a_node_that_starts_elsewhere_is_let_in_when_its_old_place_is_silent() {
    for seed in 5..15 {
        let mut net = Net::cluster(seed, Config::lan(), 3);
        let id = net.node(1).id();
        net.crash(1);
        net.start_as(3, &name(1), &[0]);
        let agreed = net.run_until(30 * SECOND, |net| net.differences(&[]).is_empty());
        assert!(agreed, "{:?}", net.differences(&[]));
        let (mut restarted, mut failed) = (0, 0);
        for event in &net.events[0] {
            restarted += usize::from(matches!(event, Event::Restarted { .. }));
            failed += usize::from(*event == Event::Failed { id });
        }
        assert_eq!((restarted, failed), (1, 0), "seed {seed}");
        assert_eq!(net.node(0).member(id).unwrap().addr(), addr(3));
    }
}

/// Goal: where two clusters meet that each have a node of the same name, the newer of the two stays, and one of them does. Method: one
/// node of each hears of the other, in many orders of what is on its way.
#[test]
fn of_two_that_bear_a_name_in_clusters_that_meet_one_stays() {
    for seed in 0..100 {
        let mut net = Net::new(seed, Config::lan());
        for side in [0, 1] {
            for place in [0, 1, 2] {
                net.start(2 * place + side, &[side]);
            }
        }
        net.start_as(6, "twin", &[0]);
        net.start_as(7, "twin", &[1]);
        net.run(SECOND * 10);
        net.with(4, |node, now| node.join(now, &[addr(3)]));
        net.run(SECOND * 30);
        assert_eq!((conflicts(&net, 6), conflicts(&net, 7)), (1, 0), "seed {seed}");
        for place in [0, 1, 2, 3, 4, 5, 7] {
            let twin = net.node(place).member(NodeId::from_name("twin"));
            assert_eq!(twin.map(|twin| twin.addr()), Some(addr(7)), "seed {seed}, place {place}");
            assert_eq!(net.node(place).members().count(), 7, "seed {seed}, place {place}");
        }
    }
}
