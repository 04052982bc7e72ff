//! How the program ends when it cannot go on.

use core::fmt;
use std::process::ExitCode;

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
        eprintln!("origin-health: {}", self.0);
        ExitCode::from(2)
    }
}
