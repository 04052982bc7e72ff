//! Sound datagrams with hostile frames reach a live node.
//!
//! Header, checksum and the lengths of frames are right by construction, so that every mutation
//! of the input reaches the decoders of the frames and what they feed.

use crate::input::Input;
use crate::net::addr;
use crate::packet::mend;
use crate::scene::{MEMBERS, SCENE, id};
use crate::victim::Victim;

const MAX_OPS: usize = 64;
const MAX_FRAMES: usize = 16;
/// A frame length in the input from here on takes another byte: 0xf0 is 0, 0xff is 3,840 more.
const LONG: u8 = 0xf0;

/// Delivers datagrams whose frames the input describes to a node that knows their senders.
///
/// # Panics
///
/// If the node breaks a promise.
pub fn frames(data: &[u8]) {
    let mut input = Input::new(data);
    let mut victim = Victim::new();
    for _ in 0..MAX_OPS {
        let Some(op) = input.next() else { break };
        match op % 4 {
            0 => victim.wait(&mut input),
            1 if op % 16 == 1 => victim.wish(&mut input),
            _ => {
                let place = 1 + usize::from(op >> 2) % (MEMBERS + 1);
                let mut datagram = compose(place, &mut input);
                victim.deliver(addr(place), &mut datagram);
            }
        }
        if op & 0x80 == 0 {
            victim.collect();
        }
    }
    victim.finish();
}

/// A datagram from the node at `place`.
fn compose(place: usize, input: &mut Input<'_>) -> Vec<u8> {
    // The cluster's part of the header is that of any datagram.
    let mut bytes = SCENE.recorded[0].1[..8].to_vec();
    bytes.extend(id(place).0.to_le_bytes());
    // The first boot, mostly: the high half of the byte counts on from there.
    let shape = input.byte();
    bytes.extend(u64::from(1 + (shape >> 4)).to_le_bytes());
    for _ in 0..1 + usize::from(shape & 0xf) % MAX_FRAMES {
        let Some(tag) = input.next() else { break };
        let len = match input.byte() {
            short @ 0..LONG => usize::from(short),
            long => usize::from(long - LONG) << 8 | usize::from(input.byte()),
        };
        let body = input.take(len);
        bytes.push(tag);
        match u8::try_from(body.len()) {
            Ok(len @ 0..0x80) => bytes.push(len),
            _ => {
                let [low, high] = u16::try_from(body.len()).unwrap_or(0).to_le_bytes();
                bytes.extend([low | 0x80, high << 1 | low >> 7]);
            }
        }
        bytes.extend(body);
    }
    bytes.extend([0; 4]);
    mend(&mut bytes);
    bytes
}

/// An input that delivers these frames from the node at `place` and lets some time pass.
pub(crate) fn encode(place: usize, frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let op = u8::try_from(place - 1).unwrap_or(0) << 2 | 2;
    let mut input = vec![op, u8::try_from(frames.len().clamp(1, MAX_FRAMES) - 1).unwrap_or(0)];
    for (tag, body) in frames.iter().take(MAX_FRAMES) {
        input.push(*tag);
        match u8::try_from(body.len()) {
            Ok(len @ 0..LONG) => input.push(len),
            _ => {
                let [low, high] = u16::try_from(body.len()).unwrap_or(0).to_le_bytes();
                input.extend([LONG | high, low]);
            }
        }
        input.extend(body);
    }
    input.extend([0, 0, 100]);
    input
}
