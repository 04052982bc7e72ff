//! A cluster that health-checks origin servers.
//!
//! Every node knows the list of origins and the live members. Rendezvous hashing names the one node
//! that checks an origin; it writes what it finds into a replicated map, and every node answers for
//! every origin from its own copy.

extern crate alloc;

mod agent;
mod check;
mod cli;
mod demo;
mod failure;
mod feed;
mod health;
mod http;
mod node;
mod origins;
mod reading;
mod schedule;
mod tally;

use std::io::{self, Write as _};
use std::process::ExitCode;

use self::cli::{Command, Wish};
use self::failure::Failure;

fn main() -> ExitCode {
    run().unwrap_or_else(|failure| failure.report())
}

fn run() -> Result<ExitCode, Failure> {
    let cli = match cli::read()? {
        Wish::Run(cli) => cli,
        Wish::Show(text) => {
            write!(io::stdout().lock(), "{text}").map_err(failure::no_stdout)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        match cli.command {
            Some(Command::Node(args)) => node::run(args).await,
            None => demo::run(cli.demo).await,
        }
    })
}
