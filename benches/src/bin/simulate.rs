//! Runs scenario files on the simulator, and prints what they came to.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use brickwork_bench::scenario::page::{self, Pair};
use brickwork_bench::scenario::report::Report;
use brickwork_bench::scenario::{Profile, Scenario, plot};
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Runs scenarios on the deterministic simulator: everything but the speed follows from file and seed.
#[derive(Debug, Parser)]
struct Args {
    /// Scenario files; benches/README.md explains how to write one.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How many seeds, from 0; without it, as many as the file says.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: Option<u64>,
    /// Just this seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// So many nodes instead of what the file says.
    #[arg(long)]
    nodes: Option<usize>,
    /// By the rules of HashiCorp memberlist instead of the profile of the file.
    #[arg(long)]
    memberlist: bool,
    /// The small form of each scenario, with the budget of that.
    #[arg(long)]
    quick: bool,
    /// One JSON document instead of tables.
    #[arg(long)]
    json: bool,
    /// Fail if a budget is missed.
    #[arg(long)]
    strict: bool,
    /// Draw plots as SVG into this directory.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Write a page into this directory that sets all next to the rules of memberlist.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["plots", "memberlist", "seed", "json", "strict"])]
    page: Option<PathBuf>,
}

/// Something that was asked for is wrong.
const REFUSED: u8 = 2;
/// A node broke a promise of the core.
const BROKEN: u8 = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    let scenarios = match read(&args) {
        Ok(scenarios) => scenarios,
        Err(text) => {
            eprintln!("error: {text}");
            return REFUSED.into();
        }
    };
    // Before anything runs: a run may take long.
    for folder in args.plots.iter().chain(&args.page) {
        if let Err(error) = std::fs::create_dir_all(folder) {
            eprintln!("error: {}: {error}", folder.display());
            return REFUSED.into();
        }
    }
    if let Some(folder) = &args.page {
        return write_page(&args, scenarios, folder);
    }
    let mut undrawn = false;
    let mut reports = Vec::new();
    let names = plot::names(&args.files, &options(&args));
    for ((file, scenario), name) in args.files.iter().zip(scenarios).zip(names) {
        let report = run(&args, file.display().to_string(), scenario);
        if !args.json {
            println!("{}", report.render());
        }
        if let Some(folder) = &args.plots {
            match plot::draw(&report, folder, &name) {
                Ok(files) => eprintln!("drawn: {}", files.join(", ")),
                // The figures are worth more than the plots, so it goes on.
                Err(error) => {
                    eprintln!("error: --plots: {}: {error}", folder.display());
                    undrawn = true;
                }
            }
        }
        let broken = report.broken.is_some();
        reports.push(report);
        // What is still to be run would be measured on a core that is known to be wrong.
        if broken {
            break;
        }
    }
    if args.json {
        let reports: Vec<_> = reports.iter().map(Report::json).collect();
        println!("{:#}", serde_json::json!({ "version": 1, "scenarios": reports }));
    }
    if reports.iter().any(|report| report.broken.is_some()) {
        return BROKEN.into();
    }
    if undrawn {
        return REFUSED.into();
    }
    let missed = reports.iter().any(|report| !report.is_met());
    if args.strict && missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs all by both, and writes the page.
fn write_page(args: &Args, scenarios: Vec<Scenario>, folder: &Path) -> ExitCode {
    let (options, mut pairs) = (options(args), Vec::new());
    let names = plot::names(&args.files, &options);
    for ((file, scenario), name) in args.files.iter().zip(scenarios).zip(names) {
        let seeds = args.seeds.unwrap_or_else(|| *scenario.seeds.get_ref());
        let pair = Pair::run(name, &file.display().to_string(), &scenario, &options, seeds);
        if let Some(command) = pair.broken() {
            eprintln!("a promise is broken; to see it again: {command}");
            return BROKEN.into();
        }
        eprintln!("done: {}", file.display());
        pairs.push(pair);
    }
    let files: Vec<_> = args.files.iter().map(|file| file.display().to_string()).collect();
    let seeds = args.seeds.map_or(String::new(), |seeds| format!(" --seeds {seeds}"));
    let command = format!(
        "cargo run --release -p brickwork-bench --bin simulate -- --page {}{seeds}{options} {}",
        folder.display(),
        files.join(" ")
    );
    match page::write(&pairs, folder, &command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: --page: {}: {error}", folder.display());
            REFUSED.into()
        }
    }
}

/// All files in the form that is asked for, or what is wrong with one.
fn read(args: &Args) -> Result<Vec<Scenario>, String> {
    let mut scenarios = Vec::new();
    for file in &args.files {
        let mut scenario = Scenario::read(file).map_err(|error| error.to_string())?;
        if args.quick {
            // The full form would take hours where seconds are expected, and has another budget.
            if scenario.quick.is_none() {
                return Err(format!("--quick: {} has no [quick], its small form", file.display()));
            }
            scenario = scenario.quick();
        }
        if args.memberlist {
            scenario.profile = Profile::MemberlistLan;
        }
        if let Some(nodes) = args.nodes {
            scenario.resize(nodes).map_err(|text| format!("--nodes: {text}"))?;
        }
        scenarios.push(scenario);
    }
    Ok(scenarios)
}

/// What, besides file and seed, decides what a run does.
fn options(args: &Args) -> String {
    let nodes = args.nodes.map_or(String::new(), |nodes| format!(" --nodes {nodes}"));
    let quick = if args.quick { " --quick" } else { "" };
    format!("{nodes}{quick}{}", if args.memberlist { " --memberlist" } else { "" })
}

/// Runs a scenario with each seed.
fn run(args: &Args, file: String, scenario: Scenario) -> Report {
    let seeds = match args.seed {
        // Inclusive, since the greatest seed has none after it.
        Some(seed) => seed..=seed,
        None => 0..=args.seeds.unwrap_or_else(|| *scenario.seeds.get_ref()) - 1,
    };
    let duration = scenario.duration.get_ref().0;
    let bar = bar(&file, duration, seeds.end() - seeds.start() + 1);
    let mut done = Duration::ZERO;
    let report = Report::gather(file, scenario, options(args), seeds, |scenario, seed| {
        bar.set_message(format!("seed {seed}"));
        let outcome = scenario.run(seed, |passed| bar.set_position((done + passed).as_secs()));
        done += duration;
        outcome
    });
    bar.finish_and_clear();
    if let Some(seed) = report.broken {
        eprintln!("to see it again: {}", report.command(seed));
    }
    report
}

/// A bar on a terminal, and nothing elsewhere.
fn bar(file: &str, duration: Duration, seeds: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let whole = duration.as_secs() * seeds;
    let bar = ProgressBar::with_draw_target(Some(whole), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} s {msg} ({eta})");
    bar.with_style(style.expect("it is a correct one")).with_prefix(file.to_owned())
}
