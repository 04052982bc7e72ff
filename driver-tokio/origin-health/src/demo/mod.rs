//! The demo: a whole cluster in one process, its origins, an observer, and one death and one join
//! on the way.

use core::hash::BuildHasher;
use core::time::Duration;
use std::hash::RandomState;
use std::io::{self, Write as _};
use std::process::ExitCode;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use brickwork_core::{Config, NodeId};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use self::member::{Belief, Member, Recipe, Sample, Sent};
use self::monitor::{MAX_TAKEOVER, Monitor};
use self::plan::Plan;
use self::report::{Detection, Propagation, Report, ms};
use self::servers::Servers;
use self::view::{Picture, Row, View};
use crate::agent::Notice;
use crate::cli::DemoArgs;
use crate::failure::{self, Failure};
use crate::health::State;

mod member;
mod monitor;
mod plan;
mod report;
mod servers;
mod view;

/// How often all nodes are sampled, unless that would be more than [`MAX_SAMPLES_PER_SECOND`]
/// answers.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);
const MAX_SAMPLES_PER_SECOND: u64 = 128_000;

/// How often it is asked whether everyone has seen a change.
const SETTLE_EVERY: Duration = Duration::from_millis(100);

/// How long the nodes have at the end, without further checks, to bring the last statuses to each
/// other.
const MAX_CALM: Duration = Duration::from_secs(5);

/// Through how many nodes a newcomer joins.
const SEEDS: usize = 3;

/// Runs the demo and prints its report.
///
/// # Errors
///
/// If loopback or the limits of the system do not allow a cluster of this size.
pub(crate) async fn run(args: DemoArgs) -> Result<ExitCode, Failure> {
    // Best effort: where the limit stays low, what needs more says so.
    let _ = rlimit::increase_nofile_limit(1 << 16);
    let view = View::new(args.json);
    let seed = args.seed.unwrap_or_else(|| RandomState::new().hash_one(0) >> 32);
    failure::tell(format_args!("seed {seed}"));
    let mut run = Run::start(args, seed, view).await?;
    run.play().await?;
    let report = run.end().await;
    let json = serde_json::to_string(&report).map_err(Failure::new)?;
    writeln!(io::stdout().lock(), "{json}").map_err(failure::no_stdout)?;
    Ok(if report.agrees() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A run under way.
struct Run {
    args: DemoArgs,
    plan: Arc<Plan>,
    servers: Servers,
    recipe: Recipe,
    notices: mpsc::UnboundedReceiver<Notice>,
    monitor: Monitor,
    view: View,
    members: Vec<Member>,
    rows: BTreeMap<Arc<str>, Row>,
    start: Instant,
    /// Since when all nodes see the same members, while that waits to count as calm.
    agreed_at: Option<Instant>,
    rng: Xoshiro256PlusPlus,
    /// What nodes did that are no more.
    past_checks: u64,
    past_sent: Sent,
}

impl Run {
    async fn start(args: DemoArgs, seed: u64, view: View) -> Result<Self, Failure> {
        let plan = Arc::new(Plan::new(seed, args.demo_origins as usize));
        let servers = Servers::start(Plan::clone(&plan)).await.map_err(Failure::new)?;
        // The settings of a real node: what is measured here is what a datacenter would see.
        let config = Config::lan();
        let (notify, notices) = mpsc::unbounded_channel();
        let list = servers.list().map_err(Failure::new)?;
        let gossip_interval = config.swim.gossip_interval;
        let recipe = Recipe { list, config, loss: args.loss, seed, notices: notify };
        let start = Instant::from_std(servers.start_time());
        let monitor = Monitor::new(Arc::clone(&plan), start, gossip_interval);
        let mut run = Self {
            plan,
            servers,
            recipe,
            notices,
            monitor,
            view,
            members: Vec::new(),
            rows: BTreeMap::new(),
            start,
            agreed_at: None,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            past_checks: 0,
            past_sent: Sent::default(),
            args,
        };
        for _ in 0..run.args.nodes {
            run.add().await?;
        }
        let nodes = run.members.len();
        run.say(format!("{nodes} nodes started for {} origins", run.args.demo_origins));
        run.start = Instant::now();
        Ok(run)
    }

    /// Starts one more node.
    async fn add(&mut self) -> Result<(), Failure> {
        let name = format!("node-{:02}", self.rows.len() + 1);
        let seeds: Vec<_> = self.members.iter().take(SEEDS).map(|member| member.addr).collect();
        self.servers.end_calm();
        let member = Member::start(&name, &seeds, &self.recipe).await?;
        self.monitor.joined(member.id, Arc::clone(&member.name), member.started);
        let unknown = self.plan.behaviours.len();
        let row = Row { name, members: Some(1), owns: 0, up: 0, down: 0, unknown };
        self.rows.insert(Arc::clone(&member.name), row);
        self.members.push(member);
        Ok(())
    }

    /// Kills one node, as `kill -9` would.
    async fn kill(&mut self) {
        let victim = plan::below(&mut self.rng, self.members.len() as u64) as usize;
        let victim = self.members.swap_remove(victim);
        let (id, name) = (victim.id, Arc::clone(&victim.name));
        let sent = victim.sent().await.unwrap_or_default();
        self.past_sent.bytes += sent.bytes;
        self.past_sent.datagrams += sent.datagrams;
        self.past_checks += victim.agent.tally().total();
        self.servers.end_calm();
        victim.kill();
        self.monitor.killed(id, Instant::now());
        if let Some(row) = self.rows.get_mut(&name) {
            row.members = None;
        }
        self.say(format!("{name} killed"));
    }

    /// Everything between the start and the end.
    async fn play(&mut self) -> Result<(), Failure> {
        let end = self.start + self.args.duration;
        let kill_at = self.start + self.args.kill_at.unwrap_or(self.args.duration / 3);
        let join_at = self.start + self.args.join_at.unwrap_or(self.args.duration * 2 / 3);
        // The last node is not killed: nobody would be left to notice.
        let mut kill_due = self.members.len() > 1 && kill_at < end;
        let mut join_due = join_at < end;
        let mut sampling = interval(self.sample_every());
        sampling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settling = interval(SETTLE_EVERY);
        settling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        loop {
            tokio::select! {
                Some(notice) = self.notices.recv() => self.monitor.notice(&notice),
                () = sleep_until(kill_at), if kill_due => {
                    kill_due = false;
                    self.kill().await;
                }
                () = sleep_until(join_at), if join_due => {
                    join_due = false;
                    self.add().await?;
                    self.say("a new node joins");
                }
                () = sleep_until(end) => return Ok(()),
                _ = &mut interrupt => return Ok(()),
                _ = sampling.tick() => self.sample().await,
                _ = settling.tick(), if !self.monitor.calm() => self.settle().await,
            }
        }
    }

    fn sample_every(&self) -> Duration {
        let answers = self.members.len() as u64 * self.plan.behaviours.len() as u64;
        SAMPLE_EVERY.max(Duration::from_millis(answers * 1000 / MAX_SAMPLES_PER_SECOND))
    }

    /// Holds every node's answers against the truth, and shows them.
    async fn sample(&mut self) {
        let mut asking = JoinSet::new();
        for (number, member) in self.members.iter().enumerate() {
            let sample = member.sample();
            asking.spawn(async move { (number, sample.await) });
        }
        let answers = asking.join_all().await;
        // What the nodes told before they were sampled belongs before the judgement.
        while let Ok(notice) = self.notices.try_recv() {
            self.monitor.notice(&notice);
        }
        for (number, sample) in answers {
            let Some(sample) = sample else { continue };
            let member = &self.members[number];
            self.monitor.judge(&member.name, member.started, &sample);
            if let Some(row) = self.rows.get_mut(&member.name) {
                fill(row, &sample);
            }
        }
        let live: u64 = self.members.iter().map(|member| member.agent.tally().total()).sum();
        self.view.show(&Picture {
            elapsed: self.start.elapsed(),
            duration: self.args.duration,
            checks: self.past_checks + live,
            wrong: self.monitor.wrong,
            rows: self.rows.values().cloned().collect(),
        });
    }

    /// Begins a time in which every check must come from its origin's owner: an interval after all
    /// nodes see the living, so that checks under way are over, and at the latest when there has been
    /// time enough. What the nodes then really check has no say in it.
    async fn settle(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.monitor.changed_at()) < MAX_TAKEOVER {
            let live = self.monitor.live();
            for member in &self.members {
                if member.members().await != live {
                    self.agreed_at = None;
                    return;
                }
            }
            let agreed_at = *self.agreed_at.get_or_insert(now);
            if now.duration_since(agreed_at) < self.plan.interval {
                return;
            }
            self.say("all nodes see the same members");
        }
        self.agreed_at = None;
        self.monitor.settled(now);
        self.servers.begin_calm(self.monitor.owner_names());
    }

    /// Stops the checks, waits for the nodes to agree, and sums up.
    async fn end(mut self) -> Report {
        self.servers.end_calm();
        while let Ok(notice) = self.notices.try_recv() {
            self.monitor.notice(&notice);
        }
        self.monitor.end(Instant::now());
        let mut checked = vec![false; self.plan.behaviours.len()];
        let mut checks = self.past_checks;
        for member in &self.members {
            for number in member.agent.owned().await {
                checked[number] = true;
            }
            member.agent.pause().await;
            checks += member.agent.tally().total();
        }
        let beliefs = self.agreement().await;
        let mut sent = self.past_sent;
        for member in &self.members {
            let now = member.sent().await.unwrap_or_default();
            sent.bytes += now.bytes;
            sent.datagrams += now.datagrams;
        }
        let calm = self.servers.counts().measured(self.servers.listening());
        let all = !beliefs.is_empty() && beliefs.len() == self.members.len();
        let (first, last) = self.monitor.detection();
        let live = self.monitor.live();
        let report = Report {
            nodes: usize::from(self.args.nodes),
            origins: self.plan.behaviours.len(),
            checks,
            members_agree: all && beliefs.iter().all(|belief| belief.members == live),
            owners_agree: all
                && beliefs.iter().all(|belief| owners_are(belief, self.monitor.owners())),
            statuses_agree: all
                && beliefs.windows(2).all(|pair| pair[0].statuses == pair[1].statuses),
            wrong_statuses: (self.monitor.sampled > 0).then_some(self.monitor.wrong),
            wrong_while_unchecked: (self.monitor.sampled > 0)
                .then_some(self.monitor.wrong_while_unchecked),
            checks_per_origin_interval: calm.map(|(rate, _)| rate),
            checks_by_non_owner: calm.map(|(_, by_non_owner)| by_non_owner),
            origins_without_owner: checked.iter().filter(|&&checked| !checked).count(),
            false_failures: self.monitor.has_settled().then_some(self.monitor.false_failures),
            detect_failure_ms: Detection { first: first.map(ms), last: last.map(ms) },
            takeover_ms: self.monitor.takeover().map(ms),
            propagation_ms: Propagation::of(self.monitor.propagation.clone()),
            bytes_sent: sent.bytes,
            datagrams_sent: sent.datagrams,
        };
        self.view.end(self.summary(&report));
        report
    }

    /// What every live node believes once they agree, or when their time for it is over.
    async fn agreement(&self) -> Vec<Belief> {
        let deadline = Instant::now() + MAX_CALM;
        let live = self.monitor.live();
        loop {
            let mut beliefs = Vec::with_capacity(self.members.len());
            for member in &self.members {
                beliefs.extend(member.belief().await);
            }
            let agreed = beliefs.len() == self.members.len()
                && beliefs.iter().all(|belief| *belief == beliefs[0])
                && beliefs[0].members == live;
            if agreed || Instant::now() >= deadline {
                return beliefs;
            }
            tokio::time::sleep(SETTLE_EVERY).await;
        }
    }

    fn summary(&self, report: &Report) -> String {
        let told = self.monitor.told.iter().map(|told| format!("wrong: {told}\n"));
        format!(
            "{}{report}\nsampled         {} answers, tolerance {:.2} s",
            told.collect::<String>(),
            self.monitor.sampled,
            self.monitor.tolerance().as_secs_f64(),
        )
    }

    fn say(&self, what: impl core::fmt::Display) {
        self.view.say(format!("{:6.1} s  {what}", self.start.elapsed().as_secs_f64()));
    }
}

fn fill(row: &mut Row, sample: &Sample) {
    let count = |wanted| sample.states.iter().filter(|&&state| state == wanted).count();
    row.members = Some(sample.members);
    row.owns = sample.owns;
    row.up = count(State::Up);
    row.down = count(State::Down);
    row.unknown = count(State::Unknown);
}

fn owners_are(belief: &Belief, truth: &[NodeId]) -> bool {
    belief.owners.iter().copied().eq(truth.iter().map(|&owner| Some(owner)))
}
