//! The demo as a script uses it.

use serde_json::Value;
use support::run;

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
