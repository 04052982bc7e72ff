//! Goal: on every small history the map shows what the plain model shows.
//! Method: all histories of three replicas with up to four operations, with every operation's datagrams
//! delivered to each other replica at any later point, in any order, or never.
//!
//! Replicas share nothing, so a history is one sequence of local steps per replica, and two global
//! orders with the same sequences are one history. A datagram is therefore taken in right before the
//! next write of its receiver, or after the receiver's last write. All orders of all subsets are tried
//! at both places, and every state on the way is compared with the model. At the end of every history
//! the replicas pull from each other, with the datagrams not taken in by then arriving after that.

#![allow(clippy::unwrap_used)]

mod common;
mod model;

use std::collections::BTreeSet;
use std::ops::Add;
use std::thread;
use std::time::Duration;

use brickwork_core::map::{Context, Dot, Map};
use brickwork_core::{Instant, NodeId, hrw};
use common::maps::{NOW, deliver, drain, replica, settle};
use model::{Events, History};

/// What an operation sent, and what of its key its writer reflected then.
#[derive(Clone)]
struct Post {
    key: usize,
    writer: usize,
    gives: Events,
    /// The datagram for each replica.
    bytes: Vec<Vec<u8>>,
}

#[derive(Clone, Copy)]
struct Write {
    key: usize,
    put: bool,
    /// Which of the contexts that were read here; `None` for the present one.
    context: Option<usize>,
}

#[derive(Clone, Copy)]
enum Step {
    Take(usize),
    Write(Write),
}

/// A real replica with what it must reflect of each key, and the contexts read after every step.
struct Replica {
    map: Map,
    now: Instant,
    reflects: Vec<Events>,
    contexts: Vec<Vec<(Context, Events)>>,
}

#[derive(Default, Clone, Copy, PartialEq, Debug)]
struct Count {
    histories: u64,
    states: u64,
    /// The states of histories in which every operation is an ordinary insert.
    of_inserts: u64,
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            histories: self.histories + other.histories,
            states: self.states + other.states,
            of_inserts: self.of_inserts + other.of_inserts,
        }
    }
}

struct Explorer {
    keys: Vec<Vec<u8>>,
    replicas: usize,
    /// The only writer of the first operation, to divide the work.
    first: Option<usize>,
    history: History,
    posts: Vec<Post>,
    steps: Vec<Vec<Step>>,
    inserts_only: bool,
    count: Count,
}

impl Explorer {
    fn new(keys: &[&[u8]], replicas: usize) -> Self {
        Self {
            keys: keys.iter().map(|key| key.to_vec()).collect(),
            replicas,
            first: None,
            history: History::default(),
            posts: Vec::new(),
            steps: vec![Vec::new(); replicas],
            inserts_only: true,
            count: Count::default(),
        }
    }

    /// Tries every way to go on with `left` operations.
    fn explore(&mut self, left: usize) {
        if left == 0 {
            return self.finish();
        }
        for who in 0..self.replicas {
            if self.posts.is_empty() && self.first.is_some_and(|first| first != who) {
                continue;
            }
            for order in ordered_subsets(&self.pending(who)) {
                let before = self.steps[who].len();
                self.steps[who].extend(order.iter().copied().map(Step::Take));
                let replica = self.replay(who);
                if !order.is_empty() {
                    self.check(&replica);
                }
                for write in self.writes(&replica) {
                    self.try_write(who, write, left);
                }
                self.steps[who].truncate(before);
            }
        }
    }

    fn try_write(&mut self, who: usize, write: Write, left: usize) {
        let (history, inserts_only) = (self.history.clone(), self.inserts_only);
        let mut replica = self.replay(who);
        self.inserts_only &= write.put && write.context.is_none();
        self.write(who, &mut replica, write);
        self.check(&replica);
        self.steps[who].push(Step::Write(write));
        self.explore(left - 1);
        self.steps[who].pop();
        self.posts.pop();
        (self.history, self.inserts_only) = (history, inserts_only);
    }

    /// The operations of others that `who` has not taken in.
    fn pending(&self, who: usize) -> Vec<usize> {
        let taken = |post: usize| {
            self.steps[who].iter().any(|step| matches!(step, Step::Take(taken) if *taken == post))
        };
        (0..self.posts.len())
            .filter(|&post| self.posts[post].writer != who && !taken(post))
            .collect()
    }

    /// All different effects that a write there can have, each by the oldest context that has it.
    fn writes(&self, replica: &Replica) -> Vec<Write> {
        let mut writes = Vec::new();
        for key in 0..self.keys.len() {
            let live = self.history.value(&replica.reflects[key]);
            let mut effects = BTreeSet::from([live.clone()]);
            let mut both = |context| {
                writes.push(Write { key, put: true, context });
                if !live.is_empty() {
                    writes.push(Write { key, put: false, context });
                }
            };
            both(None);
            for (at, (_, read)) in replica.contexts[key].iter().enumerate() {
                let common = read.iter().filter(|dot| live.contains(*dot));
                if effects.insert(common.collect::<Events>()) {
                    both(Some(at));
                }
            }
        }
        writes
    }

    /// The replica after its steps so far, which were checked before.
    fn replay(&self, who: usize) -> Replica {
        let others: Vec<u64> = (0..self.replicas).filter(|&at| at != who).map(id).collect();
        let mut map = replica(id(who), &others);
        drain(&mut map);
        let start = (Context::default(), Events::new());
        let mut replica = Replica {
            map,
            now: NOW,
            reflects: vec![Events::new(); self.keys.len()],
            contexts: vec![vec![start]; self.keys.len()],
        };
        let mut own = self.posts.iter().enumerate().filter(|(_, post)| post.writer == who);
        for &step in &self.steps[who] {
            match step {
                Step::Take(post) => self.take(&mut replica, who, post),
                Step::Write(write) => {
                    let (operation, post) = own.next().unwrap();
                    self.call(&mut replica, write, &value_of(operation));
                    drain(&mut replica.map);
                    replica.reflects[write.key].clone_from(&post.gives);
                }
            }
            self.read(&mut replica);
        }
        replica
    }

    /// Delivers the datagram of an operation; what it is answered with is lost.
    fn take(&self, replica: &mut Replica, who: usize, post: usize) {
        let post = &self.posts[post];
        replica.now += Duration::from_secs(1);
        deliver(&mut replica.map, replica.now, id(post.writer), &post.bytes[who]);
        drain(&mut replica.map);
        replica.reflects[post.key].extend(&post.gives);
    }

    fn read(&self, replica: &mut Replica) {
        for (key, contexts) in replica.contexts.iter_mut().enumerate() {
            let dots = replica.map.siblings(&self.keys[key]).map(|sibling| sibling.dot);
            contexts.push((replica.map.context(&self.keys[key]), dots.collect()));
        }
    }

    /// Writes for the first time: in the model too, and keeps what is sent.
    fn write(&mut self, who: usize, replica: &mut Replica, write: Write) {
        let value = value_of(self.posts.len());
        let told = self.call(replica, write, &value);
        let dot = Dot::new(replica.map.replica(), replica.map.stats().writes);
        assert!(told.is_none_or(|told| told == dot), "own dots are consecutive");
        let read = write.context.map(|at| replica.contexts[write.key][at].1.clone());
        let (key, seen) = (&self.keys[write.key], &replica.reflects[write.key]);
        let value = write.put.then_some(&value[..]);
        let after = self.history.write(dot, key, value, seen, read.as_ref()).unwrap();
        replica.reflects[write.key].clone_from(&after);
        let mut bytes = vec![Vec::new(); self.replicas];
        for (to, datagram) in drain(&mut replica.map) {
            bytes[place(to)] = datagram;
        }
        self.posts.push(Post { key: write.key, writer: who, gives: after, bytes });
    }

    fn call(&self, replica: &mut Replica, write: Write, value: &[u8]) -> Option<Dot> {
        replica.now += Duration::from_secs(1);
        let (map, now, key) = (&mut replica.map, replica.now, &self.keys[write.key]);
        match (write.context, write.put) {
            (None, true) => Some(map.insert(now, key, value).unwrap()),
            (None, false) => {
                assert!(map.remove(now, key).unwrap(), "there was a value");
                None
            }
            (Some(at), put) => {
                let context = &replica.contexts[write.key][at].0;
                let dot = map.resolve(now, key, context, put.then_some(value)).unwrap();
                Some(dot.expect("there was a sibling, or a value to write"))
            }
        }
    }

    /// All operations are done: every replica takes in what is left, in every order.
    fn finish(&mut self) {
        self.count.histories += 1;
        for who in 0..self.replicas {
            let mut before = Vec::new();
            for order in permutations(&self.pending(who)) {
                let same = order.iter().zip(&before).take_while(|(a, b)| a == b).count();
                let mut replica = self.replay(who);
                for (at, &post) in order.iter().enumerate() {
                    self.take(&mut replica, who, post);
                    // The states before were met in the order before.
                    if at >= same {
                        self.check(&replica);
                    }
                }
                before = order;
            }
        }
        self.exchange();
    }

    /// Pulls make all equal; what arrives after that changes nothing.
    fn exchange(&self) {
        let replicas: Vec<Replica> = (0..self.replicas).map(|who| self.replay(who)).collect();
        let start = replicas.iter().map(|replica| replica.now).max().unwrap();
        let mut maps: Vec<Map> = replicas.into_iter().map(|replica| replica.map).collect();
        maps.iter_mut().for_each(|map| map.handle_timeout(start + Duration::from_secs(9)));
        let now = settle(&mut maps, start + Duration::from_secs(9));
        let digest = maps[0].digest();
        for (who, map) in maps.iter_mut().enumerate() {
            for post in self.posts.iter().filter(|post| post.writer != who) {
                deliver(map, now, id(post.writer), &post.bytes[who]);
                drain(map);
            }
            assert_eq!(map.digest(), digest, "all replicas are equal, and stay so");
            assert_eq!(map.stats().diverged, 0);
            for key in &self.keys {
                let all: Events = self.history.of_key(key).iter().copied().collect();
                check_key(&self.history, map, key, &all);
            }
        }
    }

    fn check(&mut self, replica: &Replica) {
        self.count.states += 1;
        self.count.of_inserts += u64::from(self.inserts_only);
        for (key, reflected) in self.keys.iter().zip(&replica.reflects) {
            check_key(&self.history, &replica.map, key, reflected);
        }
    }
}

/// I1 and I2 of the proof, for one key of one replica, and the value that is read. What is reflected is the
/// union of what the operations taken in gave, so it is closed (I3) because each of them is.
fn check_key(history: &History, map: &Map, key: &[u8], reflected: &Events) {
    let value = history.value(reflected);
    let shown: Events = map.siblings(key).map(|sibling| sibling.dot).collect();
    assert_eq!(shown, value, "I1: siblings are the value of {reflected:?}\n{history:#?}");
    for sibling in map.siblings(key) {
        assert_eq!(Some(sibling.value), history[sibling.dot].value.as_deref());
    }
    let read = history.winner(&value).and_then(|dot| history[dot].value.as_deref());
    assert_eq!(map.get(key), read, "the winner among {value:?}");
    let mut claimed = Events::new();
    for &dot in history.of_key(key).iter().filter(|dot| map.reflects(**dot)) {
        assert!(reflected.contains(dot), "I2: {dot:?} is claimed, and not reflected");
        history.add_closed(&mut claimed, dot);
    }
    assert_eq!(&claimed, reflected, "everything reflected follows from what is claimed");
}

fn id(place: usize) -> u64 {
    place as u64 + 1
}

/// The value that the n-th operation writes, counting from zero.
fn value_of(operation: usize) -> Vec<u8> {
    vec![b'a' + u8::try_from(operation).unwrap()]
}

fn place(id: u64) -> usize {
    usize::try_from(id).unwrap() - 1
}

/// All orders of all of `items`, those with a common beginning next to each other.
fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    let mut all = ordered_subsets(items);
    all.retain(|order| order.len() == items.len());
    all
}

/// All orders of all subsets of `items`.
fn ordered_subsets(items: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for (at, &first) in items.iter().enumerate() {
        let mut rest = items.to_vec();
        rest.remove(at);
        for mut order in ordered_subsets(&rest) {
            order.insert(0, first);
            all.push(order);
        }
    }
    all
}

/// How many states the histories of inserts have, by combinatorics alone: `pending[r]` operations were
/// not yet taken in at r, and each of the `left` ones may follow any ordered choice of them.
fn states_of_inserts(left: usize, pending: [u64; 3], keys: u64) -> u64 {
    let ordered = |n: u64, k: u64| (n - k + 1..=n).product::<u64>();
    if left == 0 {
        return pending.iter().map(|&n| (1..=n).map(|k| ordered(n, k)).sum::<u64>()).sum();
    }
    let mut states = 0;
    for who in 0..3 {
        for taken in 0..=pending[who] {
            let mut next = pending.map(|n| n + 1);
            next[who] = pending[who] - taken;
            let write = 1 + states_of_inserts(left - 1, next, keys);
            states += ordered(pending[who], taken) * (u64::from(taken > 0) + keys * write);
        }
    }
    states
}

/// All histories of so many operations, the work divided by the writer of the first.
fn explore(keys: &[&[u8]], operations: usize) -> Count {
    let third = |first| {
        let mut explorer = Explorer::new(keys, 3);
        explorer.first = Some(first);
        explorer.explore(operations);
        explorer.count
    };
    let count = thread::scope(|scope| {
        let parts = [0, 1, 2].map(|first| scope.spawn(move || third(first)));
        parts.map(|part| part.join().unwrap()).into_iter().fold(Count::default(), Count::add)
    });
    println!("{} keys, {operations} operations: {count:?}", keys.len());
    assert_eq!(count.of_inserts, states_of_inserts(operations, [0; 3], keys.len() as u64));
    count
}

// The totals below are those of all kinds of operations; what of them is inserts alone is computed
// above. They change only if the set of histories does.

#[test]
fn one_key_up_to_three_operations() {
    let count = [1, 2, 3].map(|operations| explore(&[b"k"], operations));
    assert_eq!(count.map(|count| count.histories), [3, 42, 1299]);
    assert_eq!(count.map(|count| count.states), [9, 303, 19_368]);
}

#[test]
fn one_key_four_operations() {
    let count = explore(&[b"k"], 4);
    assert_eq!((count.histories, count.states), (86_445, 2_327_433));
}

#[test]
fn two_keys_up_to_three_operations() {
    let count = [1, 2, 3].map(|operations| explore(&[b"k", b"l"], operations));
    assert_eq!(count.map(|count| count.histories), [6, 114, 4974]);
    assert_eq!(count.map(|count| count.states), [18, 816, 73_902]);
}

/// The counterexample to "one record per key": r1 by S1; r2 by S2, which has seen r1; r3 by S3, which
/// has seen neither; scores S1 > S3 > S2. Every order ends with r2 and r3, of which r3 is read.
#[test]
fn r1_r2_r3_in_all_orders() {
    let scores = |key: &[u8]| [1, 2, 3].map(|id| hrw::score(hrw::key_hash(key), NodeId(id)));
    let falls = |key: &Vec<u8>| matches!(scores(key), [s1, s2, s3] if s1 > s3 && s3 > s2);
    let key = (0..=u8::MAX).map(|byte| vec![byte]).find(falls).unwrap();
    let mut explorer = Explorer::new(&[&key], 4);
    let insert = Write { key: 0, put: true, context: None };
    for (who, takes) in [(0, None), (1, Some(0)), (2, None)] {
        explorer.steps[who].extend(takes.map(Step::Take));
        let mut replica = explorer.replay(who);
        explorer.write(who, &mut replica, insert);
        explorer.steps[who].push(Step::Write(insert));
    }
    explorer.finish();
    // An observer has 3 + 6 + 6 states, S1 and S3 have 2 + 2, S2 has one.
    assert_eq!(explorer.count.states, 15 + 4 + 4 + 1);
    explorer.steps[3] = vec![Step::Take(0), Step::Take(2), Step::Take(1)];
    let observer = explorer.replay(3);
    let shown: Vec<&[u8]> = observer.map.siblings(&key).map(|sibling| sibling.value).collect();
    assert_eq!((shown, observer.map.get(&key)), (vec![&b"b"[..], b"c"], Some(&b"c"[..])));
}
