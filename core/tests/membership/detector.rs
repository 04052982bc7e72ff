//! The failure detector to the letter: which datagram leaves when, with every peer played by the test.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::addr;
use crate::common::bare::*;
use brickwork_core::swim::Config;

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

/// Settings under which nothing is probed by the schedule for hours.
fn quiet() -> Config {
    let mut config = Config::lan();
    config.probe_interval = Duration::from_secs(24 * 3600);
    config
}

/// Settings under which no suspicion ends while a test lasts.
fn patient() -> Config {
    let mut config = Config::lan();
    config.suspicion_min = 1_000;
    // Nothing but probes.
    config.hold_out = Duration::ZERO;
    config
}

/// Goal: a silent member is asked again every three round trips, within the configured bounds.
/// Method: it answers one probe after a while, and not the next.
#[test]
fn a_probe_is_repeated_every_three_round_trips() {
    for (rtt, gap) in [(None, 100), (Some(10), 50), (Some(20), 60), (Some(30), 90), (Some(50), 100)]
    {
        let mut bare = Bare::among(Config::lan(), [1]);
        let mut probe = bare.next_probe(1);
        if let Some(rtt) = rtt {
            bare.run(millis(rtt));
            bare.tell(1, &ack(probe.seq(PING)));
            let next = bare.next_probe(1);
            assert_eq!(next.at - probe.at, SECOND, "the schedule goes on");
            probe = next;
        }
        let again = times(&bare.run(millis(999)), PING, 1, probe.at);
        let expected: Vec<_> = (1..).map(|n| n * gap).take_while(|at| *at < 1000).collect();
        assert_eq!(again, expected, "after a round trip of {rtt:?}");
    }
}

/// Goal: the first member is probed within one interval, and then one member in each.
/// Method: members that answer at once, for a while.
#[test]
fn one_member_is_probed_per_interval() {
    let mut bare = Bare::among(Config::lan(), 1..=3);
    bare.answering = vec![1, 2, 3];
    let start = bare.now;
    let first = bare.next(|sent| sent.frame(PING).is_some()).at;
    assert!(first - start < SECOND);
    let sent = bare.run(SECOND * 30);
    let pings = sent.iter().filter(|sent| sent.frame(PING).is_some());
    let at: Vec<_> = pings.map(|sent| (sent.at - first).as_millis()).collect();
    assert_eq!(at, (1..=30).map(|n| n * 1000).collect::<Vec<_>>());
    assert_eq!((bare.swim.stats().probes, bare.swim.stats().probes_failed), (31, 0));
}

/// Goal: round trips are smoothed by an eighth, and measured of the ping that was answered, however many there were.
/// Method: answers to the first ping that take their time, longer than it takes to send another; one to the second.
#[test]
fn round_trips_are_smoothed() {
    let mut bare = Bare::among(Config::lan(), [1]);
    for (rtt, smoothed) in [(0, 1), (16_001, 2_001), (8_000, 2_751), (120_000, 17_408)] {
        let probe = bare.next_probe(1);
        bare.run(Duration::from_micros(rtt));
        bare.tell(1, &ack(probe.seq(PING)));
        let rtt = bare.swim.member(id(1)).unwrap().rtt();
        assert_eq!(rtt, Some(Duration::from_micros(smoothed)));
    }
    let first = bare.next_probe(1);
    let again = bare.next(|sent| sent.is(PING, 1));
    assert_eq!(again.seq(PING), first.seq(PING) + 1);
    bare.run(millis(1));
    bare.tell(1, &ack(again.seq(PING)));
    let rtt = bare.swim.member(id(1)).unwrap().rtt();
    assert_eq!(rtt, Some(Duration::from_micros(17_408 - 17_408 / 8 + 1_000 / 8)));
    assert_eq!(bare.swim.stats().probes, 5);
}

/// Goal: helpers are asked of a member that is far away when its answer might have come, and no later than half way through the
/// probe. Method: a member with each round trip that then falls silent.
#[test]
fn helpers_wait_for_who_is_far_away() {
    for (rtt, asked) in [(1, 300), (100, 300), (200, 400), (249, 498), (270, 500)] {
        let mut bare = Bare::among(patient(), [1, 2]);
        bare.answering = vec![2];
        let probe = bare.next_probe(1);
        bare.run(millis(rtt));
        bare.tell(1, &ack(probe.seq(PING)));
        let probe = bare.next_probe(1);
        let sent = bare.run_to(probe.at + SECOND);
        assert_eq!(times(&sent, PING_REQ, 2, probe.at)[0], asked, "{rtt} ms");
    }
}

/// A node among five, with member 5 suspect, in the moment of its first probe, of member 1.
fn probing() -> (Bare, Sent) {
    let mut config = patient();
    config.indirect_probes = 16;
    let mut bare = Bare::among(config, [1]);
    let probe = bare.next_probe(1);
    (2..=5).for_each(|place| bare.meet(place));
    bare.tell(2, &frame(UPDATES, &accused(SUSPECT, 5, 0, &[2])));
    (bare, probe)
}

/// Goal: from the probe timeout on, all who are alive are asked to help, with each repetition, unless they said
/// that they hear nothing either. Method: one of the helpers says so; another one speaks of some other probe.
#[test]
fn helpers_are_asked_until_they_answer() {
    let (mut bare, probe) = probing();
    let requests = bare.run_to(probe.at + millis(300));
    let requests: Vec<_> =
        requests.iter().filter(|sent| sent.frame(PING_REQ).is_some()).cloned().collect();
    assert!(requests.iter().all(|sent| sent.at == probe.at + millis(300)));
    assert_eq!(places(&requests, PING_REQ), [2, 3, 4]);
    let seq = probe.seq(PING);
    for sent in requests {
        let wanted = ping_req(seq, id(1), 700);
        assert_eq!(sent.frame(PING_REQ), Some(&wanted[2..]));
    }
    bare.tell(2, &frame(NACK, &varint(seq)));
    bare.tell(3, &frame(NACK, &varint(seq + 1)));
    bare.tell(5, &frame(NACK, &varint(seq))); // was not asked
    let again = bare.run(millis(100));
    assert_eq!(places(&again, PING_REQ), [3, 4]);
    let wanted = ping_req(seq, id(1), 600);
    assert!(again.iter().filter_map(|sent| sent.frame(PING_REQ)).all(|sent| *sent == wanted[2..]));
}

/// Goal: who fails to reach a member blames itself, unless a helper was heard.
/// Method: the same probe, with one refusal or none; of refusals, only those of helpers count.
#[test]
fn a_failed_probe_is_held_against_oneself_unless_a_helper_was_heard() {
    for (nacks, health) in [(&[][..], 1), (&[(2, 0)], 0), (&[(2, 1)], 1), (&[(5, 0), (1, 0)], 1)] {
        let (mut bare, probe) = probing();
        bare.run_to(probe.at + millis(400));
        for &(place, off) in nacks {
            bare.tell(place, &frame(NACK, &varint(probe.seq(PING) + off)));
        }
        bare.run_to(probe.at + (SECOND - NANO));
        assert!(!bare.suspected(1), "not before the deadline");
        bare.run(NANO);
        assert!(bare.suspected(1));
        assert_eq!(bare.swim.local_health(), health, "after {nacks:?}");
        assert_eq!((bare.swim.stats().probes_failed, bare.swim.stats().probes_void), (1, 0));
    }
}

/// Goal: an answer counts for the probe that it answers, in the boot that was asked, and no other.
/// Method: answers that are off by one thing each do not prevent the verdict; the right ones do.
#[test]
fn only_the_answer_to_the_probe_ends_it() {
    let relayed = |seq: u64, boot: u64| {
        frame(RELAYED_ACK, &[varint(seq), boot.to_le_bytes().to_vec()].concat())
    };
    let boot_two = |bare: &mut Bare, frames: &[u8]| bare.tell_as(1, 2, addr(1), frames);
    type Answer<'a> = &'a dyn Fn(&mut Bare, u64);
    let answers: [(&str, bool, Answer<'_>); 11] = [
        ("none", false, &|_, _| ()),
        ("an answer", true, &|bare, seq| bare.tell(1, &ack(seq))),
        ("to its fifth ping", true, &|bare, seq| bare.tell(1, &ack(seq + 4))),
        ("to one that did not leave", false, &|bare, seq| bare.tell(1, &ack(seq + 6))),
        ("of another probe", false, &|bare, seq| bare.tell(1, &ack(seq + NUMBERS))),
        ("of another member", false, &|bare, seq| bare.tell(2, &ack(seq))),
        ("of another boot", false, &|bare, seq| boot_two(bare, &ack(seq))),
        ("by way of a helper", true, &|bare, seq| bare.tell(2, &relayed(seq, 1))),
        ("of another probe, by a helper", false, &|bare, seq| bare.tell(2, &relayed(seq + 1, 1))),
        ("of another boot, by a helper", false, &|bare, seq| bare.tell(2, &relayed(seq, 2))),
        ("by who was not asked", false, &|bare, seq| bare.tell(5, &relayed(seq, 1))),
    ];
    for (what, ends, answer) in answers {
        let (mut bare, probe) = probing();
        bare.run_to(probe.at + millis(500));
        answer(&mut bare, probe.seq(PING));
        let sent = bare.run_to(probe.at + SECOND);
        assert_eq!(bare.suspected(1), !ends, "{what}");
        let after = times(&sent, PING, 1, probe.at).into_iter().filter(|at| *at > 500).count();
        assert_eq!(after, if ends { 0 } else { 4 }, "{what}");
    }
}

/// Goal: an accuser has a few others look at once, but not when there is evidence enough.
/// Method: a failed probe of a member that so many others accuse already.
#[test]
fn others_are_asked_to_verify_while_evidence_is_scarce() {
    for others in 0..=4 {
        let mut bare = Bare::among(patient(), [1]);
        let probe = bare.next_probe(1);
        (2..=9).for_each(|place| bare.meet(place));
        let accusers = [2, 3, 4, 5];
        if others > 0 {
            bare.tell(2, &frame(UPDATES, &accused(SUSPECT, 1, 0, &accusers[..others])));
        }
        let sent = bare.run_to(probe.at + SECOND);
        let asked = places(&sent, VERIFY);
        assert_eq!(asked.len(), if others < 3 { 3 } else { 0 }, "beside {others} accusers");
        assert!(!asked.contains(&1), "the suspect is not asked");
        let body = sent.iter().find_map(|sent| sent.frame(VERIFY));
        assert!(body.is_none_or(|body| *body == id(1).0.to_le_bytes()));
    }
}

/// When the probes after `first` began, in milliseconds after it.
fn probes(sent: &[Sent], first: &Sent) -> Vec<u128> {
    let mut last = first.seq(PING);
    let pings = sent.iter().filter(|sent| sent.frame(PING).is_some());
    let began = pings.filter(|sent| {
        let begins = sent.seq(PING) >= last + NUMBERS;
        last = if begins { sent.seq(PING) } else { last };
        begins
    });
    began.map(|sent| (sent.at - first.at).as_millis()).collect()
}

/// Goal: a node that fails to reach others takes more time for each probe and its parts, up to a bound, and less
/// again when it succeeds. Method: a member that answers nothing for long, and then everything, and one that only
/// helps.
#[test]
fn probes_take_longer_while_they_fail() {
    let mut config = patient();
    config.max_local_health = 4;
    let mut bare = Bare::among(config, [1]);
    let first = bare.next_probe(1);
    let mut sent = bare.run_to(first.at + SECOND * 30);
    assert_eq!(bare.swim.local_health(), 4);
    bare.meet(2);
    sent.extend(bare.run_to(first.at + SECOND * 34));
    assert_eq!(times(&sent, PING_REQ, 2, first.at)[0], 31_500, "five times 300 ms");
    bare.answering = vec![1, 2];
    sent.extend(bare.run_to(first.at + SECOND * 50));
    let failing = [1, 3, 6, 10, 15, 20, 25, 30];
    let better = [35, 39, 42, 44, 45, 46, 47, 48, 49, 50];
    let expected: Vec<_> = failing.into_iter().chain(better).map(|at| at * 1000).collect();
    assert_eq!(probes(&sent, &first), expected);
    assert_eq!(bare.swim.local_health(), 0);
}

/// Goal: who was stopped for longer than a probe may take blames itself and nobody else.
/// Method: the deadline of a probe is met as late as is no stall, and a moment later.
#[test]
fn a_verdict_that_comes_too_late_is_void() {
    for (late, void) in [(0, false), (1, true)] {
        let mut bare = Bare::among(patient(), [1]);
        let probe = bare.next_probe(1);
        bare.run_to(probe.at + millis(950));
        bare.now = probe.at + millis(1300) + Duration::from_nanos(late);
        bare.swim.handle_timeout(bare.now);
        assert_eq!(bare.suspected(1), !void);
        let (stats, failed) = (bare.swim.stats(), u64::from(!void));
        assert_eq!((stats.probes_failed, stats.probes_void), (failed, 1 - failed));
        assert_eq!(bare.swim.local_health(), 1, "either way");
    }
}

/// Goal: a member that was never asked is not suspected. Method: nothing is collected while the probe lasts.
#[test]
fn a_probe_whose_ping_never_left_is_void() {
    let mut bare = Bare::among(patient(), [1]);
    bare.sent();
    while bare.swim.stats().probes_void == 0 {
        bare.now = bare.swim.poll_timeout().unwrap();
        bare.swim.handle_timeout(bare.now);
    }
    assert!(!bare.suspected(1));
    assert_eq!((bare.swim.stats().probes_failed, bare.swim.local_health()), (0, 1));
}

/// Goal: pings that wait for the socket do not pile up, and round trips are of when they left at the latest. Method: nothing
/// is collected for half a second.
#[test]
fn one_ping_of_a_probe_waits_for_the_socket() {
    let mut bare = Bare::among(patient(), [1]);
    bare.next_probe(1);
    bare.sent();
    let end = bare.now + millis(500);
    while let Some(due) = bare.swim.poll_timeout().filter(|due| *due <= end) {
        bare.now = due;
        bare.swim.handle_timeout(due);
    }
    bare.now = end;
    let sent = bare.sent();
    let pings: Vec<_> = sent.iter().flat_map(|sent| sent.frames(PING)).collect();
    assert_eq!(pings.len(), 1, "{pings:?}");
    bare.tell(1, &ack(sent[0].seq(PING)));
    let rtt = bare.swim.member(id(1)).unwrap().rtt().unwrap();
    assert!(rtt <= patient().retry_max, "{rtt:?}");
    // Each that leaves has its own number again.
    let probe = bare.next_probe(1);
    let again = bare.next(|sent| sent.is(PING, 1));
    assert_eq!(again.seq(PING), probe.seq(PING) + 1);
}

/// Goal: after a stall a node listens for an interval before it holds anybody failed.
/// Method: a suspicion runs out as late as is no stall, and a moment later.
#[test]
fn no_suspicion_runs_out_right_after_a_stall() {
    for (late, stalled) in [(0, false), (1, true)] {
        let mut bare = Bare::among(Config::lan(), 1..=5);
        bare.answering = (1..=5).collect();
        // As many as make the wait the shortest, so that there is no need to look first.
        (2..=5).for_each(|by| bare.tell(by, &frame(UPDATES, &accused(SUSPECT, 1, 0, &[by]))));
        let end = bare.now + SECOND;
        bare.run(SECOND - NANO);
        bare.now = end + millis(300) + Duration::from_nanos(late);
        bare.swim.handle_timeout(bare.now);
        let live = |bare: &Bare| bare.swim.member(id(1)).unwrap().is_live();
        assert_eq!(live(&bare), stalled);
        if stalled {
            let judged = bare.now + SECOND;
            bare.run(SECOND - NANO);
            assert!(live(&bare));
            bare.run_to(judged);
            assert!(!live(&bare));
        }
    }
}

/// A node that member 1 asked to ping member 2 within half a second, and its ping.
fn relaying() -> (Bare, Sent) {
    let mut bare = Bare::among(quiet(), 1..=3);
    bare.sent();
    bare.tell(1, &ping_req(7, id(2), 500));
    let ping = bare.next_probe(2);
    (bare, ping)
}

/// Goal: a helper asks the member again until the asker's time is over, and tells the asker after four fifths of
/// it that it heard nothing. Method: a member that is silent, and an asker that repeats itself.
#[test]
fn a_helper_that_hears_nothing_says_so_in_time() {
    let (mut bare, ping) = relaying();
    let mut sent = bare.run_to(ping.at + millis(350));
    bare.tell(1, &ping_req(7, id(2), 150));
    sent.extend(bare.run_to(ping.at + millis(450)));
    assert_eq!(times(&sent, PING, 2, ping.at), [100, 200, 300, 400]);
    assert_eq!(times(&sent, NACK, 1, ping.at), [400]);
    assert!(sent.iter().filter(|sent| sent.is(NACK, 1)).all(|sent| sent.seq(NACK) == 7));
    bare.tell(1, &ping_req(7, id(2), 50));
    let again = bare.sent();
    assert_eq!((times(&again, NACK, 1, ping.at), places(&again, PING)), (vec![450], vec![]));
    bare.tell(3, &ping_req(7, id(2), 50));
    bare.tell(1, &ping_req(8, id(2), 50));
    let others = bare.sent();
    assert_eq!(places(&others, PING), [2], "both in one datagram");
    let end = bare.run(SECOND);
    assert_eq!(times(&end, PING, 2, ping.at), [], "all of it is over");
    assert_eq!(
        (times(&end, NACK, 1, ping.at), times(&end, NACK, 3, ping.at)),
        (vec![490], vec![490])
    );
    bare.tell(1, &ping_req(7, id(2), 500));
    assert_eq!(places(&bare.sent(), PING), [2], "a new request");
}

/// Goal: a helper passes the answer on, once, and again if it is asked again. Method: answers to another ping, of
/// another member and of another boot first.
#[test]
fn a_helper_passes_the_answer_on() {
    let (mut bare, ping) = relaying();
    let seq = ping.seq(PING);
    bare.run(millis(20));
    bare.tell(2, &ack(seq + 1));
    bare.tell(3, &ack(seq));
    bare.tell_as(2, 2, addr(2), &ack(seq));
    assert_eq!(places(&bare.sent(), RELAYED_ACK), []);
    bare.tell(2, &ack(seq));
    let passed = [varint(7), 1_u64.to_le_bytes().to_vec()].concat();
    let told = |sent: &[Sent]| {
        let to_asker = sent.iter().filter(|sent| sent.to == addr(1));
        to_asker.filter(|sent| sent.frame(RELAYED_ACK) == Some(&passed)).count()
    };
    assert_eq!(told(&bare.sent()), 1);
    bare.tell(2, &ack(seq));
    assert_eq!(told(&bare.sent()), 0, "a second copy");
    bare.tell(1, &ping_req(7, id(2), 400));
    assert_eq!(told(&bare.sent()), 1, "the first may be lost");
    let rest = bare.run(SECOND);
    assert_eq!((places(&rest, PING), places(&rest, NACK)), (vec![], vec![]));
    bare.tell(1, &ping_req(7, id(2), 400));
    let sent = bare.sent();
    assert_eq!((told(&sent), places(&sent, PING)), (0, vec![2]), "the asker's time was over");
}

/// Goal: requests that cannot be met are refused at once, and strangers' not heard. Method: one for each reason.
#[test]
fn a_helper_refuses_at_once_what_it_cannot_do() {
    let (mut bare, _) = relaying();
    bare.tell(3, &frame(UPDATES, &accused(SUSPECT, 3, 0, &[3])));
    for (target, refused) in [(0, true), (1, true), (9, true), (2, false), (3, false)] {
        bare.tell(1, &ping_req(8 + target, id(target as usize), 500));
        let sent = bare.sent();
        let expected = if refused { (vec![1], vec![]) } else { (vec![], vec![target as usize]) };
        assert_eq!((places(&sent, NACK), places(&sent, PING)), expected, "for {target}");
    }
    bare.tell(9, &ping_req(99, id(2), 500));
    assert!(bare.sent().is_empty());
}

/// Goal: an asker that claims to have hours is helped for sixteen intervals. Method: the longest time that a request
/// can name.
#[test]
fn a_helper_does_not_help_for_ever() {
    let mut bare = Bare::among(patient(), 1..=2);
    bare.answering = vec![1];
    bare.sent();
    let start = bare.now;
    bare.tell(1, &ping_req(7, id(2), 65_535));
    let sent = bare.run(SECOND * 70);
    assert_eq!(times(&sent, NACK, 1, start), [12_800]);
}

/// Goal: whoever asks for more help than anybody needs gets no more of it, leaves some for others, and is told that it is
/// not the target that is silent. Method: a hundred requests at once of each of a dozen members.
#[test]
fn a_helper_helps_with_so_much_at_a_time() {
    let mut bare = Bare::among(quiet(), 1..=13);
    bare.sent();
    let mut total = 0;
    for asker in 1..=12 {
        let (mut helped, mut nacks) = (0, 0);
        for seq in 0..100 {
            bare.tell(asker, &ping_req(seq, id(13), 500));
            let sent = bare.sent();
            helped += places(&sent, PING).len();
            nacks += places(&sent, NACK).len();
        }
        assert_eq!(helped, if asker <= 8 { 8 } else { 0 });
        assert_eq!(nacks, 100 - helped);
        total += helped;
    }
    assert_eq!(total, 64);
}

/// Goal: what a node hears late because it stood still itself is no round trip. Method: the answer to a ping after an hour.
#[test]
fn a_late_answer_tells_no_round_trip() {
    let mut bare = Bare::among(Config::lan(), 1..=3);
    bare.answering = vec![2, 3];
    let probe = bare.next_probe(1);
    bare.now += SECOND * 3_600;
    bare.tell(1, &ack(probe.seq(PING)));
    assert_eq!(bare.swim.member(id(1)).unwrap().rtt(), None);
}

/// Goal: accusations that are made up do not make a node look after others ever more seldom. Method: one accuses it every five
/// seconds for ten minutes, while all answer; as many probes as without that, but for a few.
#[test]
fn made_up_accusations_do_not_slow_probes_down() {
    let probes = |disturbed: bool| {
        let mut bare = Bare::among(Config::lan(), 1..=9);
        bare.answering = (1..=9).collect();
        for _ in 0..120 {
            if disturbed {
                let incarnation = bare.swim.me().incarnation();
                let row = accused(SUSPECT, 0, incarnation, &[1]);
                bare.tell(1, &frame(UPDATES, &row));
            }
            bare.run(SECOND * 5);
        }
        (bare.swim.stats().probes, bare.swim.stats().refutations)
    };
    let ((quiet, _), (disturbed, refutations)) = (probes(false), probes(true));
    assert_eq!(refutations, 120);
    assert!(disturbed >= quiet * 9 / 10, "{disturbed} of {quiet}");
}

/// Goal: nobody helps a boot that is over, or asks one. Method: the asker, the member, or somebody else starts anew
/// while the help is under way.
#[test]
fn help_ends_with_the_boots_that_it_is_for() {
    for (restarts, goes_on) in [(1, false), (2, false), (3, true)] {
        let (mut bare, ping) = relaying();
        bare.meet_as(restarts, &alive(restarts, 2, 0));
        let sent = bare.run(SECOND);
        let expected = if goes_on { &[100, 200, 300, 400][..] } else { &[] };
        assert_eq!(times(&sent, PING, 2, ping.at), expected, "after a restart of {restarts}");
        assert_eq!(places(&sent, NACK).len(), usize::from(goes_on));
    }
}

fn verify(place: usize) -> Vec<u8> {
    frame(VERIFY, &id(place).0.to_le_bytes())
}

/// Goal: who is asked to look at members does so before it goes on with its own schedule, up to eight at a time.
/// Method: nine are named by a member, among thirty, while a probe is under way.
#[test]
fn members_to_verify_go_first() {
    let mut bare = Bare::among(patient(), [1]);
    let probe = bare.next_probe(1);
    (2..=30).for_each(|place| bare.meet(place));
    bare.answering = (2..=30).collect();
    bare.tell(2, &frame(UPDATES, &accused(SUSPECT, 20, 0, &[2])));
    for place in [0, 1, 3, 20, 4, 5, 3, 4, 6, 7, 8, 9, 10] {
        bare.tell(2, &verify(place));
        assert_eq!(places(&bare.sent(), PING), [], "one probe at a time");
    }
    bare.tell(99, &verify(11));
    bare.tell(1, &ack(probe.seq(PING)));
    let sent = bare.run_to(probe.at + SECOND * 12);
    let named = BTreeSet::from([20, 3, 4, 5, 6, 7, 8, 9]);
    let probed = places(&sent[..], PING);
    assert!(named.iter().all(|place| probed.contains(place)), "{probed:?}");
    let mut first: Vec<_> = sent.iter().filter(|sent| sent.frame(PING).is_some()).collect();
    first.truncate(8);
    let first: BTreeSet<_> = first.iter().map(|sent| usize::from(sent.to.port()) - 1000).collect();
    assert_eq!(first, named);
}

/// Goal: nobody looks at a member for a stranger, or at what it has looked at itself, or at those who are gone.
/// Method: requests that change nothing, beside one that does.
#[test]
fn only_a_member_has_another_looked_at_and_only_a_live_one() {
    let begin = || {
        let mut bare = Bare::among(quiet(), 1..=2);
        bare.sent();
        bare
    };
    let probes = |bare: &mut Bare| places(&bare.sent(), PING);
    let mut bare = begin();
    bare.tell(1, &verify(2));
    assert_eq!(probes(&mut bare), [2], "at once");
    bare.tell(1, &verify(2));
    assert_eq!(probes(&mut bare), [], "it is under way");
    let mut bare = begin();
    bare.tell(9, &verify(2));
    bare.tell(1, &verify(0));
    bare.tell(1, &verify(9));
    assert_eq!(probes(&mut bare), []);
    bare.swim.leave(bare.now);
    bare.tell(1, &verify(2));
    assert_eq!(probes(&mut bare), [], "it is about to go");

    let mut bare = Bare::among(patient(), [1]);
    let probe = bare.next_probe(1);
    bare.meet(2);
    bare.run_to(probe.at + SECOND);
    assert!(bare.suspected(1));
    bare.answering = vec![2];
    let next = bare.next(|sent| sent.frame(PING).is_some());
    let judged = if next.is(PING, 1) { bare.next_probe(2) } else { next };
    bare.tell(2, &verify(1));
    assert_eq!(places(&bare.sent(), PING), [], "it has judged for itself: {judged:?}");
}

/// Goal: a ping is answered where it came from, and a stranger learns that it is one. Method: pings of a member from
/// its address and from another one, of nobody known, and for somebody else.
#[test]
fn pings_are_answered_where_they_came_from() {
    let ping =
        |target: usize| frame(PING, &[varint(300), id(target).0.to_le_bytes().to_vec()].concat());
    let mut bare = Bare::among(quiet(), 1..=2);
    bare.sent();
    for (place, from, stranger) in [(1, 1, false), (1, 8, false), (9, 9, true)] {
        bare.tell_as(place, 1, addr(from), &ping(0));
        let sent = bare.sent();
        assert_eq!(places(&sent, ACK), [from]);
        assert_eq!(sent[0].seq(ACK), 300);
        assert_eq!(places(&sent, STRANGER).len(), usize::from(stranger));
        // Digests ride along for members at their own address.
        assert_eq!(places(&sent, TABLE_DIGEST).len(), usize::from(from == 1));
    }
    assert_eq!(bare.swim.stats().misaddressed, 0);
    for n in 1..=2 {
        bare.tell(1, &ping(2));
        assert_eq!(places(&bare.sent(), ACK), []);
        assert_eq!(bare.swim.stats().misaddressed, n);
    }
}
