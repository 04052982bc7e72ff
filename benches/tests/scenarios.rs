//! Scenario files and the binary that runs them.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use brickwork_bench::scenario::Scenario;
use brickwork_bench::scenario::report::Report;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn committed() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn simulate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulate")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file of this test's own, removed at its end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("brickwork-{}-{name}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn arg(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The smallest that does something, with more lines where they are wanted.
fn small(more: &str) -> String {
    format!(
        "description = \"small\"\nprofile = \"local\"\nnodes = 5\nduration = \"20s\"\nsettle = \"1s\"\n{more}"
    )
}

#[test]
fn every_committed_file_can_be_read_and_has_a_small_form() {
    assert!(committed().len() >= 10);
    for file in committed() {
        let scenario = Scenario::read(&file).unwrap_or_else(|error| panic!("{error}"));
        assert!(scenario.quick.is_some(), "{} has no [quick]", file.display());
        assert!(*scenario.quick().nodes.get_ref() <= 200, "{} is not small", file.display());
    }
}

/// All at once, as CI runs them: the budgets of the small forms hold, and the document has its shape.
#[test]
fn small_forms_keep_their_budgets() {
    let files = committed();
    let mut args: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    args.extend(["--quick", "--strict", "--json"]);
    let output = simulate(&args);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let scenarios = json["scenarios"].as_array().unwrap();
    let missed: Vec<_> = scenarios
        .iter()
        .flat_map(|scenario| scenario["runs"].as_array().unwrap())
        .filter(|run| run["met"] != true)
        .map(|run| format!("{} {}", run["repeat"], run["budget"]))
        .collect();
    assert!(missed.is_empty() && output.status.success(), "{missed:#?}");

    assert_eq!(json["version"], 1);
    assert_eq!(scenarios.len(), files.len());
    for (scenario, file) in scenarios.iter().zip(&files) {
        assert_eq!(scenario["file"], file.to_str().unwrap());
        assert_eq!(scenario["options"], "--quick");
        assert!(scenario["broken"].is_null());
        assert!(scenario["description"].is_string() && scenario["nodes"].is_u64());
        let run = &scenario["runs"][0];
        assert_eq!(run["seed"], 0);
        assert!(run["trace"].as_str().unwrap().starts_with("0x"));
        assert!(run["repeat"].as_str().unwrap().contains("--seed 0 --quick"));
        assert!(run["figures"]["bytes_per_second"].as_f64().unwrap() > 0.0);
        let seconds = scenario["virtual_seconds"].as_f64().unwrap();
        let samples = run["samples"].as_array().unwrap();
        assert_eq!(samples.len() as f64, seconds.floor(), "one a second");
        assert!(samples.iter().all(|sample| sample["agreement"].as_f64().unwrap() <= 1.0));
        let budget = run["budget"].as_array().unwrap();
        assert!(!budget.is_empty(), "{} asserts nothing", file.display());
        for verdict in budget {
            assert!(verdict["key"].is_string() && verdict["limit"].is_number());
            assert!(verdict["value"].is_number() && verdict["met"].is_boolean());
        }
    }
}

#[test]
fn a_seed_gives_the_same_trace_and_figures_again() {
    let more = "[[loss]]\nshare = \"20%\"\n[[crash]]\nnodes = 2\nbegin = \"3s\"\nback_after = \"5s\"\n\
                [writes]\nrate = 20\nkeys = 10\nkey_bytes = 8\nvalue_bytes = 8\n";
    let scenario = Scenario::parse(Path::new("again"), &small(more)).unwrap();
    let [first, again, other] = [7, 7, 8].map(|seed| scenario.run(seed, |_| ()));
    let told = |outcome: &brickwork_bench::scenario::Outcome| {
        // Not the heap: what it is depends on how the allocator's vectors grew before.
        let mut figures = serde_json::to_value(&outcome.figures).unwrap();
        figures.as_object_mut().unwrap().retain(|key, _| !key.starts_with("heap"));
        (outcome.trace, figures, outcome.samples.clone())
    };
    assert_eq!(told(&first), told(&again));
    assert_ne!(first.trace, other.trace);
    assert_eq!(first.figures.crashes, 2);
    assert!(first.figures.writes > 100, "{}", first.figures.writes);
}

#[test]
fn the_truth_is_what_detection_and_healing_are_measured_against() {
    let more = "[[crash]]\nnodes = [3]\nbegin = \"2s\"\n[[split]]\nnodes = [1, 2]\nbegin = \"8s\"\nend = \"12s\"\n";
    let scenario = Scenario::parse(Path::new("truth"), &small(more)).unwrap();
    let figures = scenario.run(1, |_| ()).figures;
    assert_eq!((figures.crashes, figures.undetected, figures.false_deaths), (1, 0, 0));
    let (first, all) = (figures.detection_first_p50.unwrap(), figures.detection_all_max.unwrap());
    assert!(figures.suspected_first_p50.unwrap() <= first && first <= all && all < 6.0);
    let heal = figures.heal.unwrap();
    assert!(heal > 0.0 && heal < 8.0, "{heal}");
}

#[test]
fn who_leaves_is_told_from_who_fails() {
    let leaves = "[[leave]]\nnodes = [3, 4]\nbegin = \"2s\"\nend = \"6s\"\n[budget]\nleft_all_p999 = \"1s\"\n";
    let scenario = Scenario::parse(Path::new("leave"), &small(leaves)).unwrap();
    let outcome = scenario.run(1, |_| ());
    let figures = &outcome.figures;
    assert_eq!((figures.leaves, figures.crashes, figures.left_as_failed), (2, 0, 0));
    assert!(figures.left_all_p999.unwrap() < 1.0 && outcome.is_met(), "{figures:?}");
    // Who leaves counts as a member no longer: one for 18 s and one for 16 of 20.
    assert!((figures.member_hours * 3_600.0 - (100.0 - 18.0 - 16.0)).abs() < 0.01);
    // Nobody is there to tell: they die unheard, and the others take it for that.
    let split = "[[split]]\nnodes = [3]\nbegin = \"1s\"\n[[leave]]\nnodes = [3]\nbegin = \"1s\"\n";
    let scenario = Scenario::parse(Path::new("alone"), &small(split)).unwrap();
    let figures = scenario.run(1, |_| ()).figures;
    assert_eq!((figures.leaves, figures.left_as_failed), (1, 4));
    assert_eq!(figures.left_all_p999, Some(f64::INFINITY));
}

#[test]
fn a_node_is_back_when_no_crash_keeps_it_down() {
    let back = "[[crash]]\nnodes = [3]\nbegin = \"2s\"\nback_after = \"4s\"\n";
    let later = "[[crash]]\nnodes = [3]\nbegin = \"4s\"\nback_after = \"10s\"\n";
    let for_good = "[[crash]]\nnodes = [3]\nbegin = \"4s\"\n";
    let at_once = for_good.replace('4', "2");
    // How many seconds of the run it is down for.
    for (crashes, down) in [
        (back.to_owned(), 4.0),
        (format!("{back}{later}"), 12.0),
        (format!("{back}{for_good}"), 18.0),
        (format!("{at_once}{back}"), 18.0),
    ] {
        let scenario = Scenario::parse(Path::new("down"), &small(&crashes)).unwrap();
        let figures = scenario.run(1, |_| ()).figures;
        let up = figures.member_hours * 3_600.0;
        assert!((up - (100.0 - down)).abs() < 0.01, "{up} s up with\n{crashes}");
        assert_eq!(figures.crashes, 1);
    }
}

#[test]
fn who_is_never_detected_counts_as_endless() {
    let more =
        "[[crash]]\nnodes = 1\nbegin = \"19900ms\"\n[budget]\ndetection_all_p99 = \"1min\"\n";
    let file = File::new("endless", &small(more));
    let output = simulate(&[file.arg(), "--strict"]);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(out.contains("never") && out.contains("MISSED"), "{out}");
    let json: Value = serde_json::from_slice(&simulate(&[file.arg(), "--json"]).stdout).unwrap();
    let verdict = &json["scenarios"][0]["runs"][0]["budget"][0];
    assert!(verdict["value"].is_null() && verdict["met"] == false, "{verdict}");
}

#[test]
fn a_budget_that_cannot_be_kept_fails_only_if_that_is_asked_for() {
    let file = File::new("impossible", &small("[budget]\nbytes_per_second = 1\n"));
    let strict = simulate(&[file.arg(), "--strict", "--seed", "3"]);
    let out = text(&strict.stdout);
    assert_eq!(strict.status.code(), Some(1), "{out}");
    assert!(out.contains("MISSED"), "{out}");
    let again = format!("simulate -- {} --seed 3", file.arg());
    assert!(out.contains(&again), "{out}");
    let lenient = simulate(&[file.arg(), "--seed", "3"]);
    assert!(lenient.status.success() && text(&lenient.stdout).contains("MISSED"));
}

#[test]
fn the_greatest_seed_is_run_too() {
    let file = File::new("greatest", &small("[budget]\nbytes_per_second = 1\n"));
    let output = simulate(&[file.arg(), "--strict", "--seed", &u64::MAX.to_string()]);
    let out = text(&output.stdout);
    assert!(out.contains("seed 18446744073709551615, trace 0x"), "{out}");
    assert_eq!(output.status.code(), Some(1), "{out}");
}

#[test]
fn several_seeds_show_the_median_and_the_worst() {
    let file = File::new("seeds", &small("[budget]\nbytes_per_second = 100_000\n"));
    let output = simulate(&[file.arg(), "--seeds", "3"]);
    let out = text(&output.stdout);
    assert!(out.contains("median") && out.contains("worst"), "{out}");
    assert_eq!(out.matches("trace 0x").count(), 3, "{out}");
    assert!(out.contains("| met"), "{out}");
}

#[test]
fn what_was_measured_before_a_broken_promise_is_told() {
    let scenario = Scenario::parse(Path::new("broken.toml"), &small("")).unwrap();
    let report =
        Report::gather("broken.toml".into(), scenario, String::new(), 4..=9, |it, seed| {
            assert!(seed < 5, "a promise is broken");
            it.run(seed, |_| ())
        });
    assert_eq!((report.outcomes.len(), report.broken, report.is_met()), (1, Some(5), false));
    let (told, json) = (report.render(), report.json());
    assert!(told.contains("seed 4, trace 0x") && told.contains("seed 5: BROKEN"), "{told}");
    assert_eq!((json["runs"][0]["seed"].as_u64(), json["met"].as_bool()), (Some(4), Some(false)));
    assert_eq!(json["broken"]["seed"], 5);
    assert!(json["broken"]["repeat"].as_str().unwrap().ends_with("broken.toml --seed 5"), "{json}");
}

#[test]
fn plots_are_drawn_of_what_there_is() {
    let file = File::new("plots", &small("[[crash]]\nnodes = 1\nbegin = \"5s\"\n"));
    let folder = std::env::temp_dir().join(format!("brickwork-plots-{}", std::process::id()));
    let output = simulate(&[file.arg(), "--plots", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stem = file.0.file_stem().unwrap().to_str().unwrap();
    for name in ["detection", "convergence", "bytes"] {
        let svg = std::fs::read_to_string(folder.join(format!("{stem}-{name}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("polyline"), "{name}");
    }
    let output = simulate(&[file.arg(), "--nodes", "4", "--plots", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(folder.join(format!("{stem}-nodes-4-bytes.svg")).exists());
    std::fs::remove_dir_all(folder).unwrap();
}

/// Goal: the page has the figures of both, the verdict on brickwork's, and plots with a line of each. Method: a crash, of which the
/// first must be heard sooner by brickwork; the same page again.
#[test]
fn a_page_sets_both_next_to_each_other() {
    let crash = "[[crash]]\nnodes = [3]\nbegin = \"5s\"\n[budget]\ndetection_all_p99 = \"10s\"\n";
    let file =
        File::new("page", &small(crash).replace("\"local\"", "\"lan\"").replace("20s", "40s"));
    let folder = std::env::temp_dir().join(format!("brickwork-page-{}", std::process::id()));
    let mut pages = Vec::new();
    for _ in 0..2 {
        let output = simulate(&[file.arg(), "--page", folder.to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        pages.push(std::fs::read_to_string(folder.join("README.md")).unwrap());
    }
    let page = &pages[0];
    assert_eq!(page, &pages[1]);
    let row = page.lines().find(|line| line.starts_with("| declared by all, p99")).unwrap();
    let cells: Vec<_> = row.split('|').map(str::trim).collect();
    let seconds = |cell: &str| cell.strip_suffix(" s").unwrap().parse::<f64>().unwrap();
    assert!(seconds(cells[2]) < seconds(cells[3]), "{row}");
    assert_eq!(cells[4..6], ["<= 10.00 s", "met"]);
    let plots: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("![")).collect();
    assert_eq!(plots.len(), 3, "{plots:?}");
    for plot in plots {
        let name = plot.split(['(', ')']).nth(1).unwrap();
        let svg = std::fs::read_to_string(folder.join(name)).unwrap();
        assert!(svg.contains("brickwork") && svg.contains("memberlist"), "{name}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// By the rules of memberlist too, what is printed repeats the run.
#[test]
fn what_repeats_a_run_names_its_rules() {
    let file = File::new("rules", &small(""));
    let output = simulate(&[file.arg(), "--memberlist", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let repeat = json["scenarios"][0]["runs"][0]["repeat"].as_str().unwrap();
    assert!(repeat.ends_with("--seed 0 --memberlist"), "{repeat}");
}

#[test]
fn figures_are_told_even_if_plots_cannot_be_drawn() {
    let file = File::new("undrawn", &small(""));
    let folder = std::env::temp_dir().join(format!("brickwork-undrawn-{}", std::process::id()));
    // A folder stands where a plot should.
    let stem = file.0.file_stem().unwrap().to_str().unwrap();
    std::fs::create_dir_all(folder.join(format!("{stem}-bytes.svg"))).unwrap();
    let output = simulate(&[file.arg(), "--json", "--plots", folder.to_str().unwrap()]);
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["scenarios"].as_array().unwrap().len(), 1);
}

#[test]
fn a_bad_file_is_refused_with_its_name_line_and_key() {
    // What is wrong, and the number and the words that must be told.
    let cases = [
        ("nodez = 3", 6, vec!["nodez", "expected one of", "nodes"]),
        ("[[crash]]\nnodes = 1\nbeginn = \"1s\"", 8, vec!["beginn", "begin"]),
        ("[[crash]]\nbegin = \"1s\"", 6, vec!["nodes", "missing"]),
        ("grace = 5", 6, vec!["grace", "a time with its unit"]),
        ("grace = \"5 parsecs\"", 6, vec!["grace", "5 parsecs", "no time"]),
        ("seeds = 0", 6, vec!["seeds", "from 1 to 10000"]),
        ("[[loss]]\nshare = \"120%\"", 7, vec!["share", "0%", "100%"]),
        ("[[loss]]\nshare = \"1%\"\nburst = 0", 8, vec!["burst", "from 1 to 1000"]),
        ("[[split]]\nnodes = 5", 7, vec!["nodes", "at most 4"]),
        ("[[split]]\nnodes = [5]", 7, vec!["nodes", "from 0 to 4"]),
        ("[[split]]\nnodes = 1\nbegin = \"20s\"", 8, vec!["begin", "20s"]),
        ("[[split]]\nnodes = 1\nbegin = \"3s\"\nend = \"3s\"", 9, vec!["end", "later than begin"]),
        ("[[slow]]\nnodes = 1\nper_input = -1", 8, vec!["per_input", "a time"]),
        ("[[pause]]\nnodes = 1\nstill = \"0s\"\nrun = \"1s\"", 8, vec!["still", "above 0"]),
        ("[[crash]]\nnodes = 1\nback_after = \"30s\"", 8, vec!["back_after", "20s"]),
        ("[writes]\nrate = 0\nkey_bytes = 8\nvalue_bytes = 8", 7, vec!["rate", "above 0"]),
        (
            "[writes]\nrate = 1\nkey_bytes = 7\nvalue_bytes = 8",
            8,
            vec!["key_bytes", "from 8 to 256"],
        ),
        (
            "[writes]\nrate = 1\nkeys = 3_000_000\nkey_bytes = 256\nvalue_bytes = 512\npreload = true",
            8,
            vec!["keys", "3000000 keys of 768 bytes", "at most 1073741824 bytes"],
        ),
        (
            "[writes]\nrate = 1e6\nkey_bytes = 8\nvalue_bytes = 8\nlifetime = \"1s\"",
            7,
            vec!["rate", "10000000 fresh keys", "at most 4194304"],
        ),
        (
            "[writes]\nrate = 2e5\nkey_bytes = 256\nvalue_bytes = 512",
            7,
            vec!["rate", "2000000 keys of 768 bytes", "at most 1073741824 bytes"],
        ),
        ("[budget]\nbytes = 3", 7, vec!["bytes", "bytes_per_second"]),
        ("[budget]\nbytes_per_second = -3", 7, vec!["bytes_per_second", "0 or more"]),
        ("[budget]\nheal = \"3s\"", 7, vec!["heal", "trouble that ends"]),
        ("[budget]\ntimes_idle = 3", 7, vec!["times_idle", "begin"]),
        ("[budget]\ndetection_all_p99 = \"3s\"", 7, vec!["detection_all_p99", "[[crash]]"]),
        ("[budget]\nleft_all_p999 = \"3s\"", 7, vec!["left_all_p999", "[[leave]]"]),
        ("[[leave]]\nnodes = 9", 7, vec!["nodes", "too many"]),
        ("[budget]\nkeys_left = 0", 7, vec!["keys_left", "lifetime"]),
        ("[quick]\nnodes = 1", 7, vec!["nodes", "from 2 to"]),
        ("[quick.budget]\nvisibility_p99 = \"1s\"", 7, vec!["visibility_p99", "[writes]"]),
        ("profile = \"wan\"", 6, vec!["profile"]),
        ("= 3", 6, vec!["key"]),
    ];
    for (more, line, words) in cases {
        let error = Scenario::parse(Path::new("some.toml"), &small(more)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("some.toml:{line}: ")), "{more:?} gives\n{error}");
        for word in words {
            assert!(error.contains(word), "no {word:?} for {more:?} in\n{error}");
        }
    }
}

#[test]
fn keys_that_fit_are_no_matter_of_how_often_they_are_written() {
    let writes = "[writes]\nrate = 1e6\nkey_bytes = 256\nvalue_bytes = 512\n";
    Scenario::parse(Path::new("few"), &small(&format!("{writes}keys = 1_000_000"))).unwrap();
    let seldom = writes.replace("1e6", "1");
    Scenario::parse(Path::new("seldom"), &small(&format!("{seldom}keys = 3_000_000"))).unwrap();
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_runs() {
    let (good, bad) = (File::new("good", &small("")), File::new("bad", &small("nodes = 3\n")));
    for args in [
        &[][..],
        &[good.arg(), bad.arg()],
        &["no-such-file.toml"],
        &[good.arg(), "--seeds", "0"],
        &[good.arg(), "--seed", "1", "--seeds", "2"],
        &[good.arg(), "--nodes", "1"],
        &[good.arg(), "--quick"],
        // A file is no folder.
        &[good.arg(), "--plots", good.arg()],
    ] {
        let output = simulate(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    let output = simulate(&[good.arg(), "--quick"]);
    assert!(text(&output.stderr).contains("no [quick]"), "{}", text(&output.stderr));
    let output = simulate(&["no-such-file.toml"]);
    assert!(text(&output.stderr).contains("no-such-file.toml"), "{}", text(&output.stderr));
}
