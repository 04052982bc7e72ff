//! Bugs planted on purpose, to see that the oracles catch them.
//!
//! `sabotaged!("name")` is `false` and gone unless the crate is compiled with `--cfg sabotage`, which no
//! feature turns on and no release has. Then it is true while a test has planted the bug of that name on
//! the present thread. The names, and what must catch each, are in `tests/sabotage.rs`.

#[cfg(not(sabotage))]
macro_rules! sabotaged {
    ($name:literal) => {
        false
    };
}

#[cfg(sabotage)]
macro_rules! sabotaged {
    ($name:literal) => {
        $crate::sabotage::is($name)
    };
}

pub(crate) use sabotaged;

#[cfg(sabotage)]
std::thread_local! {
    static PLANTED: core::cell::Cell<Option<&'static str>> = const { core::cell::Cell::new(None) };
}

/// Plants the bug of that name on this thread, in the place of any other.
#[cfg(sabotage)]
pub fn plant(name: Option<&'static str>) {
    PLANTED.set(name);
}

#[cfg(sabotage)]
pub(crate) fn is(name: &str) -> bool {
    PLANTED.get() == Some(name)
}

/// A number that is another one each time: what no deterministic code may look at.
#[cfg(sabotage)]
pub(crate) fn tick() -> u8 {
    use core::sync::atomic::{AtomicU8, Ordering};
    static TICKS: AtomicU8 = AtomicU8::new(1);
    TICKS.fetch_add(1, Ordering::Relaxed)
}

#[cfg(not(sabotage))]
pub(crate) const fn tick() -> u8 {
    0
}
