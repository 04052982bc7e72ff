//! How many packets a node answers over loopback, and what one costs: raw loop, the loop of the core's
//! docs, tokio and mio, in turns in one run.
//!
//! A client keeps a window of pings in flight to a server thread and counts the acks. Client and server
//! share the machine, so the rate says little on few cores; the server's CPU time per packet, read from
//! the clock of its thread, is what differs.

mod client;
mod core_only;
mod servers;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use brickwork_bench::table;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};

use client::Load;
use servers::{Kind, Server, Usage};

/// Measures packets per second, bytes per second, allocations and CPU per packet of a node over
/// loopback UDP, behind each driver and next to a raw echo loop.
#[derive(Debug, Clone, Parser)]
struct Args {
    /// Pings of one turn.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pings: u64,
    /// Turns of each server; the median is printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// Pings in flight; more than 64 long ones overflow the usual receive buffer.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=64))]
    window: u64,
}

/// Sizes of a ping in bytes; 0 is a ping without padding.
const SIZES: [usize; 2] = [0, 1_200];

/// One turn of one server.
#[derive(Debug, Clone, Copy)]
struct Turn {
    load: Load,
    usage: Usage,
}

fn main() {
    let args = Args::parse();
    println!("{}", core_only::pairs(args.rounds.into(), args.pings));
    for size in SIZES {
        let mut turns: Vec<(Kind, Vec<Turn>)> = Kind::ALL.map(|kind| (kind, Vec::new())).into();
        for round in 0..=args.rounds {
            for (kind, turns) in &mut turns {
                let turn = take_turn(*kind, size, &args);
                // The first round warms up.
                if round > 0 {
                    turns.push(turn);
                }
            }
        }
        println!("\nPings of {} bytes:\n\n{}", client::ping(size).len(), render(&turns));
    }
}

fn take_turn(kind: Kind, size: usize, args: &Args) -> Turn {
    let stop = Arc::new(AtomicBool::new(false));
    let server = Server::start(kind, Arc::clone(&stop));
    let load = client::load(server.addr(), size, args.pings, args.window);
    Turn { load, usage: server.stop(&stop) }
}

fn render(turns: &[(Kind, Vec<Turn>)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "server",
        "packets/s",
        "bytes/s",
        "rate to raw",
        "CPU per packet",
        "CPU to raw",
        "allocations per packet",
        "lost",
    ]);
    let median = |turns: &[Turn], of: fn(&Turn) -> f64| {
        let mut values: Vec<f64> = turns.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let rate = |turn: &Turn| turn.load.packets() as f64 / turn.load.took.as_secs_f64();
    // The server's thread was busy with the first round trips too.
    let cpu = |turn: &Turn| nanos(turn.usage.cpu) / turn.load.handled() as f64;
    let raw = (median(&turns[0].1, rate), median(&turns[0].1, cpu));
    for (kind, turns) in turns {
        let bytes = |turn: &Turn| turn.load.bytes as f64 / turn.load.took.as_secs_f64();
        let allocations = |turn: &Turn| turn.usage.allocations as f64 / turn.load.packets() as f64;
        table.add_row([
            kind.name().to_owned(),
            format!("{:.0} k", median(turns, rate) / 1e3),
            format!("{:.1} MB", median(turns, bytes) / 1e6),
            format!("{:.2}", median(turns, rate) / raw.0),
            table::time(median(turns, cpu)),
            format!("{:.2}", median(turns, cpu) / raw.1),
            format!("{:.4}", median(turns, allocations)),
            format!("{}", turns.iter().map(|turn| turn.load.lost).sum::<u64>()),
        ]);
    }
    for column in 1..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}
