//! The binaries run: every row has figures, and the drivers answer every ping.

#![allow(clippy::unwrap_used)]

use std::process::Command;

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The cells of the rows of all tables.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--"));
    rows.map(|line| line.split('|').map(str::trim).collect())
}

#[test]
fn compare_measures_every_row() {
    let text = run(env!("CARGO_BIN_EXE_compare"), &["--quick"]);
    let ids: Vec<_> = rows(&text).skip(1).map(|row| row[1].to_owned()).collect();
    for id in ["P1", "P2", "P3", "P4", "P5", "P6", "H1", "H2", "C1", "C2", "C3", "C4"] {
        assert!(ids.iter().any(|row| row == id), "{id} is missing in\n{text}");
    }
    for row in rows(&text).skip(1).filter(|row| row[3] == "brickwork") {
        assert!(["met", "missed"].contains(&row[10]), "{row:?}");
    }
}

#[test]
fn compare_measures_the_rows_asked_for() {
    let text = run(env!("CARGO_BIN_EXE_compare"), &["--quick", "H"]);
    assert!(rows(&text).skip(1).all(|row| ["", "H1", "H2"].contains(&row[1])), "{text}");
    for (id, count) in [("H1", 4), ("H2", 2)] {
        assert_eq!(rows(&text).filter(|row| row[1] == id).count(), count);
    }
}

#[test]
fn throughput_measures_every_driver() {
    let args = ["--pings", "200", "--rounds", "1", "--window", "4"];
    let text = run(env!("CARGO_BIN_EXE_throughput"), &args);
    for server in ["raw echo", "std loop", "tokio", "mio"] {
        let rows: Vec<_> = rows(&text).filter(|row| row[1] == server).collect();
        assert_eq!(rows.len(), 2, "{server} in\n{text}");
        assert!(rows.iter().all(|row| !row.contains(&"NaN") && row[2] != "0 k"), "{text}");
    }
}

#[test]
fn catchup_takes_all_through_every_driver() {
    let text = run(env!("CARGO_BIN_EXE_catchup"), &["--entries", "500", "--rounds", "1"]);
    for through in ["core alone", "tokio", "mio", "bare sockets"] {
        assert_eq!(rows(&text).filter(|row| row[1] == through).count(), 1, "{through} in\n{text}");
    }
    let datagrams = |row: Vec<&str>| row[3].parse::<u64>().ok();
    assert!(rows(&text).filter_map(datagrams).all(|sent| sent > 20), "{text}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for args in [&["Z"][..], &["--rounds", "0"], &["--quick", "h1"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_compare")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    for args in [["--pings", "0"], ["--window", "0"], ["--window", "65"], ["--rounds", "0"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_throughput")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
