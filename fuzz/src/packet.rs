//! Hostile datagrams, damaged on every level, reach a live node.

use std::net::SocketAddr;

use crate::input::Input;
use crate::net::addr;
use crate::scene::{MEMBERS, SCENE};
use crate::victim::Victim;

const MAX_OPS: usize = 64;
/// Longest datagram handed in, above what the node sends itself.
const MAX_LEN: u16 = 2_048;
const CHECKSUM: usize = 4;

/// Delivers the datagrams that the input describes to a node in the middle of a small cluster.
///
/// # Panics
///
/// If the node breaks a promise.
pub fn packet(data: &[u8]) {
    let mut input = Input::new(data);
    let mut victim = Victim::new();
    for _ in 0..MAX_OPS {
        let Some(op) = input.next() else { break };
        match op % 8 {
            0 => victim.wait(&mut input),
            1 => victim.wish(&mut input),
            kind => {
                let (from, mut bytes) = datagram(kind, &mut input);
                victim.deliver(from, &mut bytes);
            }
        }
        // Who does not collect is told later what is missing.
        if op & 0x80 == 0 {
            victim.collect();
        }
    }
    victim.finish();
}

/// An input that delivers the recorded datagram `number` and lets some time pass.
pub(crate) fn encode(number: usize) -> Vec<u8> {
    vec![4, u8::try_from(number).unwrap_or(u8::MAX), 0, 0, 100]
}

fn datagram(kind: u8, input: &mut Input<'_>) -> (SocketAddr, Vec<u8>) {
    if kind < 4 {
        let from = addr(1 + input.below(MEMBERS + 1));
        let len = usize::from(input.u16() % MAX_LEN);
        let mut bytes = input.take(len).to_vec();
        if kind == 3 {
            mend(&mut bytes);
        }
        return (from, bytes);
    }
    let number = input.below(256) % SCENE.recorded.len();
    let (mut from, mut bytes) = SCENE.recorded[number].clone();
    match kind {
        4 => {}
        5 => {
            damage(&mut bytes, input);
            mend(&mut bytes);
        }
        6 => {
            let keep = usize::from(input.u16()) % bytes.len();
            bytes.truncate(keep);
            bytes.extend([0; CHECKSUM]);
            mend(&mut bytes);
        }
        _ => {
            from = addr(1 + input.below(MEMBERS + 1));
            damage(&mut bytes, input);
        }
    }
    (from, bytes)
}

/// Changes a few bytes: sets them, or cuts them out, or puts more in.
fn damage(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..=input.below(8) {
        let at = usize::from(input.u16()) % bytes.len().max(1);
        match input.below(4) {
            0 | 1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= input.byte();
                }
            }
            2 => {
                let end = (at + input.below(64)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            _ => {
                let len = input.below(32);
                let more = input.take(len);
                let at = at.min(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
        }
    }
}

/// Makes the checksum good again.
pub(crate) fn mend(bytes: &mut [u8]) {
    if let Some((covered, trailer)) = bytes.split_last_chunk_mut::<CHECKSUM>() {
        *trailer = crc32fast::hash(covered).to_le_bytes();
    }
}
