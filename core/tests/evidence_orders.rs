//! Goal: whatever order evidence about a member comes in, a node believes the greatest of what it may
//! admit, step by step, and two that talk to each other afterwards believe the same.
//! Method: A is the subject, B and C are real nodes. All orders of all subsets of some evidence, as real
//! datagrams, judged by a plain model and by rules on the states and events alone.
//!
//! What no order changes, of the same evidence:
//! - the boot epoch, and the incarnation unless the subject left in that boot;
//! - the whole belief, if no accusation came before the numbers that it accuses, no leave before its
//!   boot, and no verdict fell: then it is the join of all evidence in the order of evidence.
//!
//! What the order does change: an accusation of numbers that are not known yet counts against those that
//! are, and a leave of a boot that is not known yet cannot be proven. Both are told again, until known.

#![allow(clippy::unwrap_used)]

mod evidence;

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use brickwork_core::swim::State;
use brickwork_core::{Instant, NodeId};
use evidence::bytes::{self, addr, told_of_subject};
use evidence::model::{Anyhow, Model};
use evidence::observer::{Observer, SUSPICION};
use evidence::{A, B, Belief, C, Evidence, GONE, Item, by_subject, told};

const fn alive(boot: u64, incarnation: u32) -> Evidence {
    Evidence::Alive { boot, incarnation }
}

const fn suspect(boot: u64, incarnation: u32, by: &'static [NodeId]) -> Evidence {
    Evidence::Accused { boot, incarnation, dead: false, by }
}

const fn dead(boot: u64, incarnation: u32, by: &'static [NodeId]) -> Evidence {
    Evidence::Accused { boot, incarnation, dead: true, by }
}

const fn left(boot: u64) -> Evidence {
    Evidence::Left { boot, proven: true }
}

const FORGED: Evidence = Evidence::Left { boot: 1, proven: false };
/// Longer than a suspicion, and than looking for a member that others alone suspect, by less than a stall.
const VERDICT: Duration = SUSPICION.saturating_mul(3).saturating_add(Duration::from_millis(1));

/// Everything: each state at each incarnation, a leave, a restart, and what may follow that.
const ALL: [Item; 16] = [
    by_subject(alive(1, 0)),
    by_subject(alive(1, 1)),
    told(alive(1, 2)),
    told(suspect(1, 0, &[C])),
    told(suspect(1, 1, &[GONE])),
    told(suspect(1, 2, &[C, GONE])),
    told(dead(1, 0, &[GONE])),
    told(dead(1, 1, &[C])),
    told(dead(1, 2, &[C])),
    by_subject(left(1)),
    told(FORGED),
    told(alive(2, 0)),
    told(suspect(2, 0, &[C])),
    by_subject(alive(2, 1)),
    told(left(2)),
    told(Evidence::Time),
];

/// How a boot goes on and ends.
const ONE_BOOT: [Item; 9] = [
    by_subject(alive(1, 1)),
    told(alive(1, 2)),
    told(suspect(1, 0, &[C])),
    told(suspect(1, 1, &[GONE])),
    told(dead(1, 1, &[C, GONE])),
    told(suspect(1, 2, &[GONE])),
    told(left(1)),
    told(FORGED),
    told(Evidence::Time),
];

/// A restart in the middle of it.
const TWO_BOOTS: [Item; 9] = [
    told(alive(1, 1)),
    by_subject(left(1)),
    by_subject(alive(2, 0)),
    told(alive(2, 1)),
    told(suspect(1, 1, &[C])),
    told(suspect(2, 0, &[C])),
    told(dead(2, 1, &[GONE])),
    told(left(2)),
    told(Evidence::Time),
];

#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Count {
    orders: u64,
    /// Distinct prefixes of orders, each a state of the real node that was judged.
    states: u64,
    /// Those of them whose whole belief did not depend on the order.
    in_time: u64,
    /// Orders after which the node was heard to tell exactly what it believes.
    told: u64,
}

impl Count {
    fn add(self, other: Self) -> Self {
        Self {
            orders: self.orders + other.orders,
            states: self.states + other.states,
            in_time: self.in_time + other.in_time,
            told: self.told + other.told,
        }
    }
}

/// An exploration under way.
struct Orders<'i> {
    items: &'i [Item],
    /// Whether B knows the subject from the beginning.
    known: bool,
    /// Every datagram arrives twice.
    twice: bool,
    count: Count,
}

impl Orders<'_> {
    /// Goes on with `left` more items; `new` of the order so far were not tried before.
    fn explore(&mut self, order: &mut Vec<usize>, left: usize, new: &mut usize) {
        if left == 0 {
            self.run(order, *new);
            *new = 0;
            return;
        }
        for next in 0..self.items.len() {
            if !order.contains(&next) {
                order.push(next);
                *new += 1;
                self.explore(order, left - 1, new);
                order.pop();
            }
        }
    }

    fn run(&mut self, order: &[usize], new: usize) {
        let introduced: &[NodeId] = if self.known { &[C, A] } else { &[C] };
        let mut observer = Observer::new(B, introduced);
        let (mut model, mut anyhow) = (Model::default(), Anyhow::new());
        if self.known {
            let first = by_subject(alive(1, 0));
            model.hear(first, C);
            anyhow.hear(first);
        }
        for (at, &next) in order.iter().enumerate() {
            let item = self.items[next];
            for _ in 0..1 + usize::from(self.twice) {
                let before = observer.belief();
                deliver(&mut observer, item, C);
                model.hear(item, C);
                anyhow.hear(item);
                let now = observer.belief();
                let about = || {
                    let order: Vec<_> = order[..=at].iter().map(|&at| self.items[at]).collect();
                    format!("from {before:?} to {now:?} by {order:#?}")
                };
                judge_step(before, now, item, &about);
                judge_order(now, &anyhow, &about);
                let wanted = model.belief();
                let same = match (now, wanted) {
                    (Some(now), Some(wanted)) => now.agrees(&wanted),
                    (now, wanted) => now.is_none() && wanted.is_none(),
                };
                assert!(same, "the model believes {wanted:?}: {}", about());
            }
            if at + new >= order.len() {
                self.count.states += 1;
                self.count.in_time += u64::from(anyhow.in_time);
            }
        }
        self.count.orders += 1;
        self.count.told += u64::from(listen(&mut observer, &model));
    }
}

/// Hands in what carries `item`. A boot of the subject's own that is not known yet asks to be let in.
fn deliver(observer: &mut Observer, item: Item, teller: NodeId) {
    if let Evidence::Alive { boot, incarnation } = item.what
        && item.by_subject
        && observer.belief().is_none_or(|known| known.boot < boot)
    {
        return observer.meet(A, boot, incarnation);
    }
    match bytes::of(item, teller) {
        Some(datagram) => observer.take(if item.by_subject { A } else { teller }, datagram),
        None => observer.wait(VERDICT),
    }
}

/// What holds of any step, whatever was heard before.
fn judge_step(
    before: Option<Belief>,
    now: Option<Belief>,
    item: Item,
    about: &impl Fn() -> String,
) {
    let Some(now) = now else {
        assert!(before.is_none(), "the subject is forgotten: {}", about());
        return;
    };
    let Some(old) = before else {
        let first = matches!(item.what, Evidence::Alive { .. }) && now.state == State::Alive;
        assert!(first, "met otherwise than alive: {}", about());
        return;
    };
    assert!(now.boot >= old.boot, "OM3: {}", about());
    let numbers = |belief: Belief| (belief.boot, belief.incarnation);
    if now.boot > old.boot {
        let restart = item.what == alive(now.boot, now.incarnation) && now.state == State::Alive;
        assert!(restart, "OM4: only the subject begins a boot: {}", about());
        return;
    }
    assert!(now.incarnation >= old.incarnation, "OM3: {}", about());
    let raised = numbers(now) > numbers(old);
    let own = item.what == alive(now.boot, now.incarnation);
    assert!(!raised || own, "OM4: only the subject raises its numbers: {}", about());
    let back = !old.is_live() && now.is_live();
    assert!(!back || (raised && old.state != State::Left), "OM5: {}", about());
    let legal = match (old.state, now.state) {
        (old, now) if old == now => true,
        (State::Alive, State::Suspect) => {
            matches!(item.what, Evidence::Accused { .. } | Evidence::Left { .. })
        }
        (State::Suspect, State::Dead) => item.what == Evidence::Time,
        (State::Suspect | State::Dead, State::Alive) => raised,
        (_, State::Left) => item.what == left(now.boot),
        _ => false,
    };
    assert!(legal, "OM7: {}", about());
}

/// What does not depend on the order.
fn judge_order(now: Option<Belief>, anyhow: &Anyhow, about: &impl Fn() -> String) {
    let Some(now) = now else {
        assert_eq!(anyhow.numbers(), None, "unknown: {}", about());
        return;
    };
    let (boot, incarnation) = anyhow.numbers().unwrap();
    assert_eq!(now.boot, boot, "the boot depends on the order: {}", about());
    if now.state != State::Left {
        assert_eq!(now.incarnation, incarnation, "the order decides numbers: {}", about());
    }
    if anyhow.in_time {
        let wanted = anyhow.belief().unwrap();
        assert!(now.agrees(&wanted), "another order gives {wanted:?}: {}", about());
    }
}

/// Asks the node for its news. What it tells of the subject, or told last while time passed, if it has told that as often
/// as it tells anything, is what it believes, with the union of the accusers. Returns whether it was told now.
fn listen(observer: &mut Observer, model: &Model) -> bool {
    observer.take(C, bytes::ping(C, B));
    let sent = observer.sent();
    let rows = sent.iter().filter(|(to, _)| *to == addr(C));
    let now = rows.filter_map(|(_, datagram)| told_of_subject(datagram)).next();
    let is_now = now.is_some();
    let Some(belief) = observer.belief() else {
        assert!(!is_now, "a stranger is told of");
        return false;
    };
    let row = now.or_else(|| observer.told.take());
    let row = row.unwrap_or_else(|| panic!("{belief:?} is told to nobody"));
    let mut accusers = model.accusers();
    accusers.sort_unstable();
    let kind = belief.state as u8;
    let told = (row.kind, row.boot, row.incarnation, row.accusers);
    assert_eq!(told, (kind, belief.boot, belief.incarnation, accusers), "{belief:?} is told");
    is_now
}

/// All orders of `depth` of the items, and with them all of less, the work divided by the first.
fn explore(items: &[Item], known: bool, twice: bool, depth: usize) -> Count {
    let half = |odd: usize| {
        let mut orders = Orders { items, known, twice, count: Count::default() };
        for first in (odd..items.len()).step_by(2) {
            orders.explore(&mut vec![first], depth - 1, &mut 1);
        }
        orders.count
    };
    let count = thread::scope(|scope| {
        let halves = [0, 1].map(|odd| scope.spawn(move || half(odd)));
        halves.map(|half| half.join().unwrap()).into_iter().fold(Count::default(), Count::add)
    });
    println!("{} items, {depth} at a time: {count:?}", items.len());
    // Every ordered subset of one to `depth` items, once.
    let n = items.len();
    let sizes = (1..=depth).map(|size| (n - size + 1..=n).product::<usize>() as u64);
    assert_eq!(count.states, sizes.sum::<u64>(), "states are left out");
    count
}

/// The subject hears what is said about it: `due` says that it owes a refutation.
struct Subject {
    incarnation: u32,
    /// The highest that it is said to have, as far as that is believed.
    above: u32,
    refuted_at: Option<Instant>,
    due: bool,
}

/// How long a subject waits between two refutations.
const RETRY: Duration = Duration::from_millis(50);

impl Subject {
    fn raise(&mut self, now: Instant) {
        self.incarnation = self.incarnation.max(std::mem::take(&mut self.above)) + 1;
        (self.refuted_at, self.due) = (Some(now), false);
    }

    /// An accusation of numbers that it has outgrown needs no new ones; any other needs the next beyond it, once
    /// per retry.
    fn hear(&mut self, item: Item, now: Instant) {
        if let Evidence::Accused { boot: 1, incarnation, .. } = item.what
            && incarnation >= self.incarnation
        {
            self.above = self.above.max(incarnation.min(self.incarnation + 7));
            if self.refuted_at.is_none_or(|at| now - at >= RETRY) {
                self.raise(now);
            } else {
                self.due = true;
            }
        }
    }
}

/// What is said to the subject about itself, of this boot, of one to come, and by forgers.
const OF_ONESELF: [Item; 8] = [
    told(suspect(1, 0, &[C])),
    told(dead(1, 0, &[GONE])),
    told(suspect(1, 1, &[B])),
    told(dead(1, 2, &[C])),
    told(FORGED),
    told(alive(1, 2)),
    told(alive(2, 0)),
    told(suspect(2, 0, &[C])),
];

/// One order of what is said of the subject to itself, with a pause before the items of `pauses`.
fn accuse_to_its_face(order: &[usize], pauses: u32) -> u32 {
    let mut subject = Observer::new(A, &[B, C]);
    let mut model = Subject { incarnation: 0, above: 0, refuted_at: None, due: false };
    for (at, &next) in order.iter().enumerate() {
        if pauses >> at & 1 == 1 {
            pause(&mut subject, &mut model);
        }
        let (item, teller) = (OF_ONESELF[next], [B, C][next % 2]);
        let before = model.incarnation;
        deliver(&mut subject, item, teller);
        model.hear(item, subject.now);
        judge_oneself(&subject, &model, order);
        let answers: Vec<_> = subject.sent().into_iter().filter(|s| s.0 == addr(teller)).collect();
        if let Evidence::Accused { boot: 1, incarnation, .. } = item.what
            && (incarnation < before || model.incarnation > before)
        {
            let answer = answers.iter().find_map(|(_, datagram)| told_of_subject(datagram));
            let told = answer.map(|row| (row.kind, row.boot, row.incarnation));
            assert_eq!(told, Some((0, 1, model.incarnation)), "OM6: the accuser is not told");
            assert!(model.incarnation > incarnation, "OM6: {incarnation} stands");
        }
    }
    pause(&mut subject, &mut model);
    judge_oneself(&subject, &model, order);
    model.incarnation
}

fn pause(subject: &mut Observer, model: &mut Subject) {
    subject.wait(RETRY);
    if model.due {
        // It was due in the middle of the pause, a retry after the last.
        let at = model.refuted_at.unwrap() + RETRY;
        model.raise(at);
    }
}

fn judge_oneself(subject: &Observer, model: &Subject, order: &[usize]) {
    let now = subject.belief().unwrap();
    let wanted = Belief { boot: 1, incarnation: model.incarnation, state: State::Alive };
    assert_eq!(now, wanted, "OM4, OM6, OM7: of itself after {order:?}");
}

/// All orders of so many numbers.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    let Some(last) = n.checked_sub(1) else { return vec![Vec::new()] };
    let shorter = permutations(last);
    let longer = shorter.iter().flat_map(|order| {
        (0..n).map(|at| {
            let mut order = order.clone();
            order.insert(at, last);
            order
        })
    });
    longer.collect()
}

/// B and C talk, while the subject answers pings in the boot that it has come to, unless it has left or is suspected:
/// it refutes nothing, and who suspects it will hold it dead.
fn talk(b: &mut Observer, c: &mut Observer, heard: &[Item]) {
    let boots = heard
        .iter()
        .map(|item| if let Evidence::Alive { boot, .. } = item.what { boot } else { 1 });
    let boot = boots.max().unwrap_or(1);
    let answers = !heard.iter().any(|item| item.what == left(boot));
    let mut left = 8 * SUSPICION;
    let mut datagrams = 0;
    loop {
        loop {
            assert!(datagrams < 1_000, "a storm of answers to answers: {heard:#?}");
            let [sent, back] = [b.sent(), c.sent()];
            if sent.is_empty() && back.is_empty() {
                break;
            }
            datagrams += sent.len() + back.len();
            carry(b, c, sent, answers.then_some(boot));
            carry(c, b, back, answers.then_some(boot));
        }
        let Some(wait) = b.waits().into_iter().chain(c.waits()).min().filter(|wait| *wait <= left)
        else {
            return;
        };
        left -= wait;
        for one in [&mut *b, &mut *c] {
            one.now += wait;
            if one.waits() == Some(Duration::ZERO) {
                one.wake();
            }
        }
    }
}

fn carry(
    from: &mut Observer,
    to: &mut Observer,
    sent: Vec<(SocketAddr, Vec<u8>)>,
    boot: Option<u64>,
) {
    for (addressee, datagram) in sent {
        if addressee == addr(to.me()) {
            to.take(from.me(), datagram);
        } else if from.belief().is_some_and(|belief| belief.state != State::Suspect)
            && let Some(ack) = boot.and_then(|boot| bytes::answer(A, boot, &datagram))
        {
            from.take(A, ack);
        }
    }
}

/// B and C hear evidence each on its own, and talk. Returns whether the subject is then a member. If their
/// `news` are lost as often as they are told, what is left is to compare tables and to correct each other;
/// that is about who is a member, and incarnations may go on to differ until somebody accuses.
fn agree(at_b: &[usize], at_c: &[usize], news: bool) -> bool {
    let mut both = [Observer::new(B, &[C, A]), Observer::new(C, &[B, A])];
    let mut heard = Vec::new();
    for (one, order) in both.iter_mut().zip([at_b, at_c]) {
        let (me, other) = (one.me(), if one.me() == B { C } else { B });
        for &next in order {
            deliver(one, TWO_BOOTS[next], other);
            heard.push(TWO_BOOTS[next]);
        }
        if !news {
            for _ in 0..8 {
                one.take(other, bytes::ping(other, me));
                one.sent();
            }
        }
    }
    let [b, c] = &mut both;
    let before = [b.belief(), c.belief()].map(Option::unwrap);
    talk(b, c, &heard);
    let after = [b.belief(), c.belief()].map(Option::unwrap);
    let about = || format!("news {news}: {before:?} to {after:?} by {heard:#?}");
    let numbers = |belief: Belief| (belief.boot, belief.incarnation);
    for (before, after) in before.into_iter().zip(after) {
        assert!(numbers(after) >= numbers(before), "OM3: {}", about());
    }
    assert_eq!(after[0].is_live(), after[1].is_live(), "two views: {}", about());
    if after[0].is_live() {
        assert_eq!(after[0].boot, after[1].boot, "two boots: {}", about());
        let best = before.map(numbers).into_iter().max().unwrap();
        assert!(!news || after.map(numbers) == [best; 2], "news are lost: {}", about());
    }
    after[0].is_live()
}

/// All ordered subsets of up to `most` of `n` numbers.
fn ordered_subsets(n: usize, most: usize) -> Vec<Vec<usize>> {
    let mut found = vec![Vec::new()];
    let mut longest = found.clone();
    for _ in 0..most {
        let longer = longest.iter().flat_map(|order: &Vec<usize>| {
            let others = (0..n).filter(|next| !order.contains(next));
            others.map(|next| [&order[..], &[next]].concat())
        });
        longest = longer.collect();
        found.extend_from_slice(&longest);
    }
    found
}

#[test]
fn everything_five_at_a_time() {
    let count = explore(&ALL, true, false, 5);
    assert_eq!((count.orders, count.states), (524_160, 571_456));
    // Some have told it as often as they tell anything before they are asked.
    assert!(count.in_time > 50_000 && count.told > 500_000, "{count:?}");
}

#[test]
fn everything_about_a_stranger_four_at_a_time() {
    let count = explore(&ALL, false, false, 4);
    assert!(count.in_time > 5_000 && count.told > 30_000, "{count:?}");
}

#[test]
fn everything_twice_three_at_a_time() {
    explore(&ALL, true, true, 3);
}

#[test]
fn one_boot_in_all_orders() {
    let count = explore(&ONE_BOOT, true, false, ONE_BOOT.len());
    assert_eq!((count.orders, count.states), (362_880, 986_409));
}

#[test]
fn two_boots_in_all_orders() {
    let count = explore(&TWO_BOOTS, true, false, TWO_BOOTS.len());
    assert_eq!((count.orders, count.states), (362_880, 986_409));
}

#[test]
fn the_subject_refutes_in_all_orders() {
    let orders = permutations(OF_ONESELF.len());
    assert_eq!(orders.len(), 40_320);
    let mut ends = [0; 5];
    for order in &orders {
        // At once; and with a pause wherever bits of the order's own say so.
        let pauses = order.iter().fold(0, |bits, &item| bits << 1 ^ u32::try_from(item).unwrap());
        for pauses in [0, pauses, u32::MAX] {
            ends[accuse_to_its_face(order, pauses) as usize] += 1;
        }
    }
    // One above the highest that it was accused at, whatever the order.
    assert_eq!(ends, [0, 0, 0, 3 * 40_320, 0]);
}

#[test]
fn two_that_talk_agree() {
    let (of_b, of_c) = (ordered_subsets(TWO_BOOTS.len(), 3), ordered_subsets(TWO_BOOTS.len(), 2));
    let half = &|odd: usize| {
        let mut count = [0; 2];
        for at_b in of_b.iter().skip(odd).step_by(2) {
            for at_c in &of_c {
                for news in [true, false] {
                    count[usize::from(agree(at_b, at_c, news))] += 1;
                }
            }
        }
        count
    };
    let count = thread::scope(|scope| {
        let halves = [0, 1].map(|odd| scope.spawn(move || half(odd)));
        halves.map(|half| half.join().unwrap())
    });
    let [gone, live] = [0, 1].map(|end| count[0][end] + count[1][end]);
    println!("{gone} pairs ended without the subject, {live} with it");
    assert_eq!(gone + live, 2 * (1 + 9 + 72 + 504) * (1 + 9 + 72));
    assert!(gone > 1_000 && live > 1_000);
}
