//! Counts what the current thread allocates.

// A global allocator cannot be had without unsafe code; this one only counts.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static SIZES: [Cell<i64>; CLASSES] = const { [const { Cell::new(0) }; CLASSES] };
}

/// Classes of sizes: each holds allocations of up to twice as much as the one before.
pub const CLASSES: usize = 32;

fn note_size(bytes: usize, sign: i64) {
    let class = bytes.next_power_of_two().trailing_zeros() as usize;
    let _ = SIZES.try_with(|sizes| {
        if let Some(cell) = sizes.get(class) {
            cell.set(cell.get() + sign * signed(bytes));
        }
    });
}

fn note(count: u64, bytes: i64) {
    // A thread that ends may free after its counters are gone.
    let _ = COUNT.try_with(|cell| cell.set(cell.get() + count));
    let _ = LIVE.try_with(|cell| cell.set(cell.get() + bytes));
}

const fn signed(bytes: usize) -> i64 {
    bytes as i64
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, signed(layout.size()));
        note_size(layout.size(), 1);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(0, -signed(layout.size()));
        note_size(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        note(1, signed(new) - signed(layout.size()));
        note_size(layout.size(), -1);
        note_size(new, 1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, new) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread has allocated, reallocation included.
#[must_use]
pub fn count() -> u64 {
    COUNT.with(Cell::get)
}

/// Bytes that this thread asked for and did not give back, as requested: without the allocator's own.
#[must_use]
pub fn live_bytes() -> i64 {
    LIVE.with(Cell::get)
}

/// The same by the size of the allocation: of class `n` are those of up to 2^n bytes and more than half of it.
#[must_use]
pub fn live_by_size() -> [i64; CLASSES] {
    SIZES.with(|sizes| core::array::from_fn(|class| sizes[class].get()))
}
