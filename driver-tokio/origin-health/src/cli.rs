//! The command line.

use core::net::SocketAddr;
use core::time::Duration;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::failure::Failure;

/// The longest name of a node in bytes.
const MAX_NODE_NAME: usize = 64;

/// A cluster that health-checks origin servers: each origin is checked by one node, and every node
/// answers for all.
///
/// Without a subcommand it shows itself: a whole cluster and its origins in one process.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) demo: DemoArgs,
}

/// What to run instead of the demo.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one real node.
    Node(NodeArgs),
}

/// The demo: nodes that share nothing but UDP on loopback, and origins that misbehave on purpose.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// How many nodes start.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) nodes: u16,
    /// How many origins they check.
    #[arg(long, value_name = "M", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) demo_origins: u32,
    /// How many seconds it runs.
    #[arg(long = "for", value_name = "S", default_value = "30", value_parser = seconds)]
    pub(crate) duration: Duration,
    /// After how many seconds one node dies without a word [default: a third of the run].
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) kill_at: Option<Duration>,
    /// After how many seconds a new node joins [default: two thirds of the run].
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) join_at: Option<Duration>,
    /// How many percent of all datagrams are lost.
    #[arg(long, value_name = "PCT", default_value = "0", value_parser = percent)]
    pub(crate) loss: f64,
    /// Decides which origins misbehave and when, who dies, and what is lost [default: random,
    /// printed].
    #[arg(long, value_name = "K")]
    pub(crate) seed: Option<u64>,
    /// Print nothing but the closing JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// One real node.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeArgs {
    /// The node's name, unique in the cluster.
    #[arg(long, value_name = "N", value_parser = node_name)]
    pub(crate) name: String,
    /// The UDP address of this node, as the others reach it; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) bind: SocketAddr,
    /// UDP addresses of nodes already there. None: this node is the first.
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    pub(crate) join: Vec<SocketAddr>,
    /// The list of origins, the same on every node.
    #[arg(long, value_name = "FILE")]
    pub(crate) origins: PathBuf,
    /// Where this node answers over HTTP; port 0 picks a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) http: SocketAddr,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Run the demo or a node.
    Run(Box<Cli>),
    /// Print this text (help, version) and stop.
    Show(String),
}

/// Reads the arguments of the process.
///
/// # Errors
///
/// One line that says what is wrong with them.
pub(crate) fn read() -> Result<Wish, Failure> {
    match Cli::try_parse() {
        Ok(cli) => Ok(Wish::Run(Box::new(cli))),
        Err(error) if error.use_stderr() => {
            // The first paragraph is the fault; what follows is advice that does not fit one line.
            let rendered = error.render().to_string();
            let fault = rendered.split("\n\n").next().unwrap_or_default();
            Err(Failure::new(fault.trim_start_matches("error: ")))
        }
        Err(error) => Ok(Wish::Show(error.render().to_string())),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let in_range = (0.0..=7.0 * 86_400.0).contains(&seconds);
    if !in_range {
        return Err("must be from 0 to 604800 seconds".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=100.0).contains(&percent) {
        Ok(percent)
    } else {
        Err("must be from 0 to 100".to_owned())
    }
}

/// A node's name stands in an HTTP header of every check and in log lines, so it is visible ASCII.
fn node_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_NODE_NAME {
        return Err(format!("must have 1 to {MAX_NODE_NAME} characters"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be visible ASCII without spaces".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_arguments_it_is_the_demo() {
        let cli = Cli::try_parse_from(["origin-health"]).expect("no arguments are fine");
        assert!(cli.command.is_none());
        assert_eq!((cli.demo.nodes, cli.demo.demo_origins), (5, 40));
        assert_eq!(cli.demo.duration, Duration::from_secs(30));
    }

    #[test]
    fn numbers_have_ranges() {
        for (flag, value) in [
            ("--loss", "101"),
            ("--loss", "nan"),
            ("--for", "-1"),
            ("--for", "inf"),
            ("--nodes", "0"),
            ("--demo-origins", "0"),
        ] {
            let arg = format!("{flag}={value}");
            assert!(Cli::try_parse_from(["origin-health", &arg]).is_err(), "{arg}");
        }
    }

    #[test]
    fn a_node_takes_several_seeds() {
        let line = "origin-health node --name a --bind 127.0.0.1:0 --join 127.0.0.1:1 127.0.0.1:2 --origins o.toml";
        let cli = Cli::try_parse_from(line.split(' ')).expect("a good line");
        let Some(Command::Node(node)) = cli.command else { panic!("a node") };
        assert_eq!(node.join.len(), 2);
        assert_eq!(node.http, SocketAddr::from(([127, 0, 0, 1], 0)));
    }
}
