//! The demo as a script uses it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{run, wait_for};

mod support;

const FIELDS: [&str; 17] = [
    "bytes_sent",
    "checks",
    "checks_by_non_owner",
    "checks_per_origin_interval",
    "datagrams_sent",
    "detect_failure_ms",
    "false_failures",
    "members_agree",
    "nodes",
    "origins",
    "origins_without_owner",
    "owners_agree",
    "propagation_ms",
    "statuses_agree",
    "takeover_ms",
    "wrong_statuses",
    "wrong_while_unchecked",
];

/// Runs the demo and returns its exit code and closing object.
fn demo(args: &[&str]) -> (Option<i32>, Value, String) {
    let output = run(args);
    let text = String::from_utf8(output.stdout).expect("text");
    let last = text.lines().last().expect("a last line");
    let report: Value = serde_json::from_str(last).expect("an object");
    let fields: Vec<&str> =
        report.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(fields, FIELDS);
    (output.status.code(), report, text)
}

/// Starts the program, reads up to `lines` lines of its stdout, closes the pipe, and returns what was
/// read, the exit code, and stderr.
fn closed_after(lines: usize, args: &[&str]) -> (Vec<String>, Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_origin-health"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the built program");
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let read = stdout.lines().take(lines).map(|line| line.expect("text")).collect();
    let status = wait_for("the end", || child.try_wait().expect("a process"));
    let mut told = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut told).expect("text");
    (read, status.code(), told)
}

/// Goal: as in `| head -1`, the program ends by itself when nobody reads on: no panic, one line that
/// says so, and the exit code of what cannot be done. Method: the pipe is closed after its first line,
/// or, where there is none before the end, at once.
#[test]
fn a_closed_stdout_is_told_and_no_panic() {
    let small = ["--nodes", "1", "--demo-origins", "1", "--for", "1", "--seed", "1"];
    for (lines, more) in [(1, &[][..]), (0, &[]), (0, &["--json"])] {
        let (read, code, told) = closed_after(lines, &[&small[..], more].concat());
        assert_eq!(read.len(), lines);
        assert!(read.iter().all(|line| line.contains("1 nodes started")), "{read:?}");
        assert_eq!(code, Some(2), "{told}");
        let told: Vec<&str> = told.lines().collect();
        let last = "origin-health: cannot write to stdout: Broken pipe";
        assert!(matches!(told[..], [_, end] if end.starts_with(last)), "{told:?}");
    }
}

/// Goal: text that is asked for and cannot be printed is a failure like any other. Method: `/dev/full`,
/// which refuses at once, where closing a pipe would race with the program.
#[cfg(target_os = "linux")]
#[test]
fn help_that_cannot_be_printed_is_a_failure() {
    for arg in ["--help", "--version"] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
        let mut command = Command::new(env!("CARGO_BIN_EXE_origin-health"));
        let output = command.arg(arg).stdout(full).output().expect("the built program");
        let told = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.starts_with("origin-health: cannot write to stdout: "), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

/// Goal: a closed stderr ends nothing either, as in `2>&1 | head -1`. Method: both go to `/dev/full`, so
/// that neither the first nor the last line can be told.
#[cfg(target_os = "linux")]
#[test]
fn a_closed_stderr_leaves_the_exit_code_as_it_is() {
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("a device");
    let mut command = Command::new(env!("CARGO_BIN_EXE_origin-health"));
    command.args(["--nodes", "1", "--demo-origins", "1", "--for", "0"]);
    let status = command.stdout(full()).stderr(full()).status().expect("the built program");
    assert_eq!(status.code(), Some(2));
}

#[test]
fn nodes_that_hear_nothing_of_each_other_do_not_agree() {
    let (code, report, text) = demo(&[
        "--nodes",
        "3",
        "--demo-origins",
        "6",
        "--for",
        "3",
        "--loss",
        "100",
        "--seed",
        "1",
        "--json",
    ]);
    assert_eq!(code, Some(1));
    assert_eq!(report["members_agree"], false);
    assert_eq!(report["owners_agree"], false);
    assert_eq!(report["detect_failure_ms"]["last"], Value::Null);
    for unknown in ["checks_per_origin_interval", "checks_by_non_owner", "false_failures"] {
        assert_eq!(report[unknown], Value::Null, "there was no calm time: {unknown}");
    }
    assert_eq!(text.lines().count(), 1, "a script gets nothing else");
}

#[test]
fn a_cluster_goes_through_a_death_and_a_join() {
    let (code, report, text) = demo(&[
        "--nodes",
        "4",
        "--demo-origins",
        "24",
        "--for",
        "20",
        "--kill-at",
        "5",
        "--join-at",
        "14",
        "--seed",
        "2",
    ]);
    assert_eq!(code, Some(0), "{text}");
    for agree in ["members_agree", "owners_agree", "statuses_agree"] {
        assert_eq!(report[agree], true, "{agree}");
    }
    for none in ["wrong_statuses", "checks_by_non_owner", "origins_without_owner", "false_failures"]
    {
        assert_eq!(report[none], 0, "{none}: {text}");
    }
    let measured = [
        &report["takeover_ms"],
        &report["detect_failure_ms"]["first"],
        &report["detect_failure_ms"]["last"],
        &report["propagation_ms"]["p99"],
        &report["checks_per_origin_interval"],
    ];
    assert!(measured.iter().all(|value| value.is_f64()), "{report}");
    let rate = report["checks_per_origin_interval"].as_f64().expect("measured");
    assert!((0.95..=1.10).contains(&rate), "{rate}");
    assert!(text.contains("killed") && text.contains("a new node joins"), "it tells what happens");
}
