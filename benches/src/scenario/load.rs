//! From a file to a scenario, or to what is wrong with it and where.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::budget::{Budget, Needs};
use super::file::{Crash, Loss, Scenario, Writes};
use super::value::{Pick, Time};

/// Most nodes: what the settings of the core allow.
const MAX_NODES: usize = 16_384;
/// Keys carry a number that tells them apart.
const MIN_KEY: usize = 8;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFile {
    file: PathBuf,
    /// Number and text of the line.
    line: Option<(usize, String)>,
    text: String,
}

impl fmt::Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.line {
            Some((number, line)) => write!(f, "{file}:{number}: {}\n    {line}", self.text),
            None => write!(f, "{file}: {}", self.text),
        }
    }
}

impl std::error::Error for BadFile {}

/// Something that each value for itself does not show.
#[derive(Debug)]
struct Problem {
    span: Range<usize>,
    text: String,
}

type Check = Result<(), Problem>;

impl Scenario {
    /// Reads a file and checks its full and its small form.
    ///
    /// # Errors
    ///
    /// [`BadFile`] says where it is wrong and what is allowed there.
    pub fn read(file: &Path) -> Result<Self, BadFile> {
        let text = std::fs::read_to_string(file).map_err(|error| BadFile {
            file: file.into(),
            line: None,
            text: error.to_string(),
        })?;
        Self::parse(file, &text)
    }

    /// The same of a text that stands for the file.
    ///
    /// # Errors
    ///
    /// As [`Scenario::read`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, BadFile> {
        let bad = |span: Option<Range<usize>>, problem: String| BadFile {
            file: file.into(),
            line: span.map(|span| line_at(text, span.start)),
            text: problem,
        };
        let scenario: Self = toml::from_str(text)
            .map_err(|error| bad(error.span(), error.message().trim().to_owned()))?;
        for form in [scenario.clone(), scenario.clone().quick()] {
            form.check().map_err(|problem| bad(Some(problem.span), problem.text))?;
        }
        Ok(scenario)
    }

    /// Takes so many nodes instead of what the file says.
    ///
    /// # Errors
    ///
    /// What in the file does not go with that.
    pub fn resize(&mut self, nodes: usize) -> Result<(), String> {
        self.nodes = Spanned::new(self.nodes.span(), nodes);
        self.check().map_err(|problem| problem.text)
    }

    fn check(&self) -> Check {
        let nodes = *self.nodes.get_ref();
        between("nodes", &self.nodes, 2, MAX_NODES)?;
        between("seeds", &self.seeds, 1, 10_000)?;
        positive("duration", &self.duration)?;
        for loss in &self.loss {
            if let Some(burst) = &loss.burst {
                between("burst", burst, 1, 1_000)?;
            }
            picks(loss.nodes.as_ref(), nodes)?;
            check_loss(loss)?;
            self.span(loss.begin.as_ref(), loss.end.as_ref())?;
        }
        for split in &self.split {
            picks(Some(&split.nodes), nodes)?;
            self.span(split.begin.as_ref(), split.end.as_ref())?;
        }
        for slow in &self.slow {
            picks(Some(&slow.nodes), nodes)?;
            self.span(slow.begin.as_ref(), slow.end.as_ref())?;
        }
        for pause in &self.pause {
            picks(Some(&pause.nodes), nodes)?;
            positive("still", &pause.still)?;
            positive("run", &pause.run)?;
            self.span(pause.begin.as_ref(), pause.end.as_ref())?;
        }
        for crash in &self.crash {
            picks(Some(&crash.nodes), nodes)?;
            self.span(crash.begin.as_ref(), crash.end.as_ref())?;
            self.check_return(crash)?;
        }
        for leave in &self.leave {
            picks(Some(&leave.nodes), nodes)?;
            self.span(leave.begin.as_ref(), leave.end.as_ref())?;
        }
        if let Some(writes) = &self.writes {
            self.check_writes(writes)?;
        }
        self.check_budget(&self.budget)
    }

    /// Begin before end, and both within the duration.
    fn span(&self, begin: Option<&Spanned<Time>>, end: Option<&Spanned<Time>>) -> Check {
        let duration = self.duration.get_ref().0;
        let from = time(begin);
        if let Some(begin) = begin {
            before("begin", begin, duration, "the duration of the run")?;
        }
        if let Some(end) = end {
            before("end", end, duration + Duration::from_nanos(1), "the duration of the run")?;
            if end.get_ref().0 <= from {
                return fail(end, format!("end: it must be later than begin, {}", told(from)));
            }
        }
        Ok(())
    }

    fn check_return(&self, crash: &Crash) -> Check {
        let Some(back) = &crash.back_after else { return Ok(()) };
        let last = time(crash.end.as_ref().or(crash.begin.as_ref()));
        let rest = self.duration.get_ref().0.saturating_sub(last);
        before("back_after", back, rest, "what is left of the run after the last crash")
    }

    fn check_writes(&self, writes: &Writes) -> Check {
        if !self.map {
            return fail(&writes.rate, "writes: `map = false` leaves nobody to write to".into());
        }
        let rate = *writes.rate.get_ref();
        if !(rate > 0.0 && rate <= 1e6) {
            return fail(&writes.rate, format!("rate: {rate} is not above 0 and at most 1000000"));
        }
        let map = self.profile.config().map;
        between("key_bytes", &writes.key_bytes, MIN_KEY, map.max_key)?;
        between("value_bytes", &writes.value_bytes, 0, map.max_value)?;
        if let Some(keys) = &writes.keys {
            between("keys", keys, 1, map.max_keys)?;
        } else if writes.preload {
            return fail(&writes.rate, "preload: it needs `keys`, the number of them".into());
        }
        self.span(writes.begin.as_ref(), writes.end.as_ref())?;
        let end = self.last_write(writes);
        if end <= time(writes.begin.as_ref()) {
            let text = "writes: no time for them is left before `grace` at the end of the run";
            return fail(&writes.rate, text.into());
        }
        self.check_room(writes)?;
        let Some(lifetime) = &writes.lifetime else { return Ok(()) };
        if writes.keys.is_some() {
            return fail(lifetime, "lifetime: only fresh keys have one; leave out `keys`".into());
        }
        let rest = self.duration.get_ref().0 - end;
        before("lifetime", lifetime, rest, "what is left of the run after the last write")
    }

    /// Every map must hold all that is written: a write that a full one refuses would look like a fault
    /// of the core. A `lifetime` saves no room for sure: keys that were removed stay as marks, and their
    /// values where no removal arrives.
    fn check_room(&self, writes: &Writes) -> Check {
        let map = self.profile.config().map;
        let time = self.last_write(writes) - time(writes.begin.as_ref());
        // At most 30 days of a million per second, so that nothing overflows.
        let count = (time.as_secs_f64() * *writes.rate.get_ref()).ceil() as u64;
        let (span, key, keys) = match &writes.keys {
            Some(keys) if writes.preload => (keys.span(), "keys", *keys.get_ref() as u64),
            Some(keys) => (keys.span(), "keys", count.min(*keys.get_ref() as u64)),
            None => (writes.rate.span(), "rate", count),
        };
        let each = (writes.key_bytes.get_ref() + writes.value_bytes.get_ref()) as u64;
        let text = if keys > map.max_keys as u64 {
            format!("{key}: {keys} fresh keys are too many: a map holds at most {}", map.max_keys)
        } else if keys * each > map.max_bytes as u64 {
            format!(
                "{key}: {keys} keys of {each} bytes with their values are too many: a map holds at \
                 most {} bytes",
                map.max_bytes
            )
        } else {
            return Ok(());
        };
        Err(Problem { span, text })
    }

    /// When writes end, at the latest.
    pub(super) fn last_write(&self, writes: &Writes) -> Duration {
        let rest = self.duration.get_ref().0.saturating_sub(self.grace.0);
        writes.end.as_ref().map_or(rest, |end| end.get_ref().0)
    }

    fn check_budget(&self, budget: &Budget) -> Check {
        for line in budget.lines() {
            let Some(limit) = &line.limit else { continue };
            if !(*limit.get_ref() >= 0.0 && limit.get_ref().is_finite()) {
                return fail(limit, format!("{}: it must be 0 or more", line.key));
            }
            let missing = match line.needs {
                Needs::Nothing => None,
                Needs::Crash => self.crash.is_empty().then_some("`[[crash]]`"),
                Needs::Faulty => {
                    let faulty = self.loss.iter().any(|loss| loss.nodes.is_some());
                    (!faulty).then_some("`[[loss]]` with `nodes`")
                }
                Needs::Leave => self.leave.is_empty().then_some("`[[leave]]`"),
                Needs::End => self.never_ends().then_some("trouble that ends before the run does"),
                Needs::Idle => self.first_trouble().is_none_or(|at| at.is_zero()).then_some(
                    "trouble whose `begin` is above 0, so that there is an idle time before it",
                ),
                Needs::Writes => self.writes.is_none().then_some("`[writes]`"),
                Needs::Lifetime => {
                    let lifetime = self.writes.as_ref().and_then(|all| all.lifetime.as_ref());
                    lifetime.is_none().then_some("`[writes]` with a `lifetime`")
                }
            };
            if let Some(missing) = missing {
                return fail(limit, format!("{}: it needs {missing} in the file", line.key));
            }
        }
        Ok(())
    }

    fn never_ends(&self) -> bool {
        let ends = self.loss.iter().filter_map(|one| one.end.as_ref());
        let ends = ends.chain(self.split.iter().filter_map(|one| one.end.as_ref()));
        let ends = ends.chain(self.slow.iter().filter_map(|one| one.end.as_ref()));
        let mut ends = ends.chain(self.pause.iter().filter_map(|one| one.end.as_ref()));
        let returns = self.crash.iter().any(|crash| crash.back_after.is_some());
        !returns && !ends.any(|end| end.get_ref().0 < self.duration.get_ref().0)
    }

    /// When the first trouble begins, if there is any.
    pub(super) fn first_trouble(&self) -> Option<Duration> {
        let begins = self.loss.iter().map(|one| one.begin.as_ref());
        let begins = begins.chain(self.split.iter().map(|one| one.begin.as_ref()));
        let begins = begins.chain(self.slow.iter().map(|one| one.begin.as_ref()));
        let begins = begins.chain(self.pause.iter().map(|one| one.begin.as_ref()));
        let begins = begins.chain(self.crash.iter().map(|one| one.begin.as_ref()));
        let begins = begins.chain(self.leave.iter().map(|one| one.begin.as_ref()));
        begins.map(time).min()
    }
}

/// What goes with what in a loss.
fn check_loss(loss: &Loss) -> Check {
    if let Some(direction) = loss.direction.as_ref().filter(|_| loss.nodes.is_none()) {
        return fail(direction, "direction: it needs `nodes`, whose it is".into());
    }
    match (&loss.on, &loss.off) {
        (Some(on), Some(off)) => positive("on", on).and_then(|()| positive("off", off)),
        (Some(one), None) | (None, Some(one)) => fail(one, "on, off: they come together".into()),
        (None, None) => Ok(()),
    }
}

/// The time that is said, or the beginning.
pub(super) fn time(said: Option<&Spanned<Time>>) -> Duration {
    said.map_or(Duration::ZERO, |time| time.get_ref().0)
}

fn told(time: Duration) -> impl fmt::Display {
    humantime::format_duration(time)
}

fn fail<T>(at: &Spanned<T>, text: String) -> Check {
    Err(Problem { span: at.span(), text })
}

fn between<T: PartialOrd + fmt::Display>(
    key: &str,
    value: &Spanned<T>,
    least: T,
    most: T,
) -> Check {
    let it = value.get_ref();
    if *it >= least && *it <= most {
        return Ok(());
    }
    fail(value, format!("{key}: {it} is not from {least} to {most}"))
}

fn positive(key: &str, value: &Spanned<Time>) -> Check {
    if value.get_ref().0.is_zero() {
        return fail(value, format!("{key}: it must be above 0"));
    }
    Ok(())
}

fn before(key: &str, value: &Spanned<Time>, limit: Duration, what: &str) -> Check {
    let it = value.get_ref().0;
    if it < limit {
        return Ok(());
    }
    fail(value, format!("{key}: {} is not within {what}, {}", told(it), told(limit)))
}

fn picks(pick: Option<&Spanned<Pick>>, nodes: usize) -> Check {
    let Some(pick) = pick else { return Ok(()) };
    match pick.get_ref() {
        Pick::Count(count) if *count >= nodes => {
            fail(pick, format!("nodes: {count} of {nodes} are too many: at most {}", nodes - 1))
        }
        Pick::These(places) if places.iter().any(|&place| place >= nodes) => {
            fail(pick, format!("nodes: they are numbered from 0 to {}", nodes - 1))
        }
        Pick::Count(_) | Pick::Share(_) | Pick::These(_) => Ok(()),
    }
}

/// Number, from 1, and text of the line that has this byte.
fn line_at(text: &str, byte: usize) -> (usize, String) {
    let before = text.get(..byte).unwrap_or(text);
    let number = before.matches('\n').count();
    (number + 1, text.lines().nth(number).unwrap_or_default().trim().to_owned())
}
