//! How the program ends when it cannot go on.

use core::fmt;
use std::io::{self, Write as _};
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
