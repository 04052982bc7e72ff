//! How the program ends when it cannot go on.

use core::fmt;
use core::time::Duration;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// One line for stderr. What the user asked for cannot be done as asked: exit code 2.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    /// Says `what`; line breaks become spaces, so that a log holds one line per failure.
    pub(crate) fn new(what: impl fmt::Display) -> Self {
        let words = what.to_string();
        Self(words.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Prints the line and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        tell(&self.0);
        ExitCode::from(2)
    }
}

/// The failure of whoever has something to print and cannot.
pub(crate) fn no_stdout(error: io::Error) -> Failure {
    Failure::new(format!("cannot write to stdout: {error}"))
}

/// Tells a line on stderr. Whoever closed it does not want it, and must not end the program by that.
pub(crate) fn tell(what: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "origin-health: {what}");
}

/// How often one kind of trouble is told at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Tells of trouble that may come thousands of times a second, at most once a minute.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Tells a line on stderr, unless one was told within the last minute.
    pub(crate) fn tell(&self, what: impl fmt::Display) {
        if self.is_due() {
            tell(what);
        }
    }

    fn is_due(&self) -> bool {
        // A time is whole whatever happened to who wrote it.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= TELL_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn trouble_is_told_once_a_minute() {
        let seldom = Seldom::default();
        assert!(seldom.is_due());
        tokio::time::advance(TELL_EVERY - Duration::from_millis(1)).await;
        assert!(!seldom.is_due());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(seldom.is_due() && !seldom.is_due());
    }
}
