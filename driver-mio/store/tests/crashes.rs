//! Goal: nothing that was said to be durable is lost, and no name of a write is given twice, whatever the disk does.
//!
//! Method: a disk in memory that crashes, fills up and fails when the seed says so, and a node that is started from
//! it again and again; what it knows is compared with what it was told to keep.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, ErrorKind, Read};
use std::sync::{Arc, Mutex};

use brickwork_core::map::Dot;
use brickwork_core::{Config, Identity, Instant, Node};
use brickwork_store::{Disk, Recovery, Store, StoreError};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestRng};

/// A file, and how much of it survives a crash for certain.
#[derive(Debug, Clone, Default)]
struct Contents {
    bytes: Vec<u8>,
    synced: usize,
}

/// What the disk is to do wrong.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// Bytes that are left, if the disk may fill up.
    room: Option<usize>,
    /// Operations until one fails.
    fails_after: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Contents>,
    current: Option<usize>,
    new: Option<usize>,
    aside: Option<usize>,
    faults: Faults,
}

#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<State>>);

impl State {
    /// Whether this operation fails.
    fn fails(&mut self) -> io::Result<()> {
        let Some(after) = &mut self.faults.fails_after else { return Ok(()) };
        if *after == 0 {
            self.faults.fails_after = None;
            return Err(io::Error::other("planted"));
        }
        *after -= 1;
        Ok(())
    }
}

impl Memory {
    /// Loses what was not durable, but for some bytes of it.
    fn crash(&self, kept: impl Fn(usize) -> usize) {
        let mut state = self.0.lock().unwrap();
        state.faults = Faults::default();
        if let Some(current) = state.current {
            let file = &mut state.files[current];
            let len = file.synced + kept(file.bytes.len() - file.synced + 1);
            file.bytes.truncate(len);
            file.synced = len;
        }
    }
}

impl Disk for Memory {
    type File = usize;

    fn read(&self) -> io::Result<Option<Box<dyn Read>>> {
        let mut state = self.0.lock().unwrap();
        state.fails()?;
        let file = state.current.map(|current| state.files[current].bytes.clone());
        Ok(file.map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn Read>))
    }

    fn create(&mut self) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        state.fails()?;
        state.files.push(Contents::default());
        state.new = Some(state.files.len() - 1);
        Ok(state.files.len() - 1)
    }

    fn append(&mut self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let failed = state.fails();
        let fits = state.faults.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        // Some of it may be there even so.
        state.files[*file].bytes.extend(&bytes[..fits]);
        if let Some(room) = &mut state.faults.room {
            *room -= fits;
        }
        failed?;
        if fits < bytes.len() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&mut self, file: &mut usize, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.fails()?;
        let file = &mut state.files[*file];
        file.bytes.truncate(usize::try_from(len).unwrap());
        file.synced = file.synced.min(file.bytes.len());
        Ok(())
    }

    fn sync(&mut self, file: &mut usize) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.fails()?;
        let file = &mut state.files[*file];
        file.synced = file.bytes.len();
        Ok(())
    }

    fn replace(&mut self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let failed = state.fails();
        let done = failed.is_ok() || state.files.len().is_multiple_of(2);
        if done {
            let new = state.new.take().unwrap();
            assert_eq!(state.files[new].synced, state.files[new].bytes.len(), "not durable yet");
            state.current = Some(new);
        }
        failed
    }

    fn discard(&mut self) {
        let mut state = self.0.lock().unwrap();
        if let (Some(new), Some(room)) = (state.new, state.faults.room) {
            state.faults.room = Some(room + state.files[new].bytes.len());
        }
        state.new = None;
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.fails()?;
        state.aside = state.current.take();
        Ok(())
    }
}

fn node(boot: u64, compact_from: usize) -> Node {
    let identity = Identity::new("a", ([127, 0, 0, 1], 7_000).into()).with_boot_epoch(boot);
    let mut config = Config::local();
    config.map.compact_log_from = compact_from;
    let mut entropy = [7; 32];
    entropy[..8].copy_from_slice(&boot.to_le_bytes());
    Node::new(Instant::ZERO, identity, config, entropy).unwrap()
}

/// What the application knows of its own writes.
#[derive(Debug, Default)]
struct Ledger {
    /// Of each key, the value that was said to be durable last, and those written since.
    keys: BTreeMap<u8, Vec<Option<u64>>>,
    /// Names that may have left the node.
    left: BTreeSet<Dot>,
    durable: Vec<Dot>,
    /// Names that were given in this life and are not durable.
    open: Vec<Dot>,
    writes: u64,
}

impl Ledger {
    fn write(&mut self, node: &mut Node, key: u8, put: bool) -> Result<(), TestCaseError> {
        self.writes += 1;
        let value = put.then_some(self.writes);
        let dot = match value {
            Some(value) => node.insert(Instant::ZERO, &[key], &value.to_be_bytes()).unwrap(),
            None if node.remove(Instant::ZERO, &[key]).unwrap() => {
                Dot::new(node.map().replica(), self.last(node) + 1)
            }
            None => return Ok(()),
        };
        prop_assert!(!self.left.contains(&dot), "{dot:?} was used before");
        self.keys.entry(key).or_insert_with(|| vec![None]).push(value);
        self.open.push(dot);
        Ok(())
    }

    /// The last own write of the life that goes on.
    fn last(&self, node: &Node) -> u64 {
        let life = node.map().replica();
        let own = self.open.iter().chain(&self.durable).filter(|dot| dot.replica == life);
        own.map(|dot| dot.counter).max().unwrap_or(0)
    }

    fn note_durable(&mut self, node: &Node) {
        if self.open.last().is_some_and(|last| node.map().is_durable(*last)) {
            self.durable.append(&mut self.open);
            self.left.extend(&self.durable);
            for values in self.keys.values_mut() {
                values.drain(..values.len() - 1);
            }
        }
    }

    /// The node was started again.
    fn check(&mut self, node: &Node) -> Result<(), TestCaseError> {
        for dot in &self.durable {
            prop_assert!(node.map().reflects(*dot), "{dot:?} is lost");
        }
        // What was not durable may be there or not.
        self.durable.extend(self.open.drain(..).filter(|dot| node.map().reflects(*dot)));
        for (key, values) in &mut self.keys {
            let read = node.get(&[*key]).map(|value| u64::from_be_bytes(value.try_into().unwrap()));
            prop_assert!(values.contains(&read), "{key} is {read:?} and not of {values:?}");
            *values = vec![read];
        }
        Ok(())
    }
}

/// Some lives of a node on one disk.
fn lives(rng: &mut TestRng) -> Result<(usize, usize, usize), TestCaseError> {
    let (disk, mut ledger) = (Memory::default(), Ledger::default());
    let (mut errors, mut compacted, mut lost) = (0, 0, 0);
    let below = |rng: &mut TestRng, n: usize| (rng.next_u64() % n as u64) as usize;
    let compact_from = [200, 2_000, 1 << 20][below(rng, 3)];
    let mut boot = 1;
    for life in 0..8 {
        let mut faults = Faults::default();
        match below(rng, 4) {
            0 => faults.room = Some(below(rng, 8_000)),
            1 => faults.fails_after = Some(below(rng, 60)),
            _ => {}
        }
        disk.0.lock().unwrap().faults = faults;
        let (mut node, mut store) = loop {
            boot += 1;
            let mut node = node(boot, compact_from);
            match Store::open_on(disk.clone(), Instant::ZERO, &mut node) {
                Ok((store, recovery)) => {
                    let first = recovery == Recovery::New && ledger.durable.is_empty();
                    prop_assert!(first || recovery == Recovery::Resumed, "{recovery:?} in {life}");
                    break (node, store);
                }
                Err(StoreError::Disk(_)) => {
                    errors += 1;
                    disk.crash(|_| 0);
                }
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        };
        ledger.check(&node)?;
        'life: for _ in 0..below(rng, 200) {
            for _ in 0..=below(rng, 3) {
                ledger.write(&mut node, (rng.next_u64() % 12) as u8, below(rng, 4) > 0)?;
            }
            while let Some(write) = node.poll_log() {
                let Ok(ticket) = store.write(write) else {
                    errors += 1;
                    break 'life;
                };
                node.log_synced(Instant::ZERO, ticket);
                ledger.note_durable(&node);
                compacted += usize::from(store.is_compacting());
                if below(rng, 3) == 0 && store.step().is_err() {
                    errors += 1;
                    break 'life;
                }
            }
            prop_assert!(ledger.open.is_empty(), "all is durable");
        }
        let luck = rng.next_u64();
        lost += ledger.open.len();
        disk.crash(|n| (luck % n as u64) as usize);
    }
    Ok((errors, compacted, lost))
}

#[test]
fn nothing_durable_is_lost_and_no_name_is_given_twice() {
    let cases =
        std::env::var("BRICKWORK_STORE_CASES").map_or(150_u64, |text| text.parse().unwrap());
    let mut met = (0, 0, 0);
    for case in 0..cases {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&case.to_le_bytes());
        let seen = lives(&mut TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        let seen = seen.unwrap_or_else(|said| panic!("case {case}: {said}"));
        met = (met.0 + seen.0, met.1 + seen.1, met.2 + seen.2);
    }
    println!("{cases} cases: {} errors, {} times compacting, {} writes lost", met.0, met.1, met.2);
    let few = usize::try_from(cases).unwrap() / 10;
    assert!(met.0 > few && met.1 > few && met.2 > few, "{met:?}");
}
