//! The list of origins: a TOML file, read once at start.
//!
//! ```toml
//! [defaults]                  # optional; what an entry leaves out
//! interval = "10s"
//! timeout = "2s"
//!
//! [[origin]]
//! name = "shop"               # unique, 1 to 128 bytes
//! url = "https://shop.example/healthz"
//! unhealthy_threshold = 3     # failures in a row until it is down
//! healthy_threshold = 2       # successes in a row until it is up
//! expected_status = 204
//! ```
//!
//! Whatever is wrong with the file is found before anything is bound, and is told as `FILE:LINE:
//! reason`.

use alloc::collections::BTreeMap;
use core::fmt;
use core::ops::Range;
use core::time::Duration;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::Deserialize;
use toml::Spanned;

/// The largest list that is read. A file above it is refused by its size, before a byte of it is
/// read.
pub(crate) const MAX_FILE: u64 = 64 << 20;

/// The longest name of an origin in bytes: it is a key of the map, so it travels with every status.
pub(crate) const MAX_NAME: usize = 128;

/// The longest interval. It keeps times in nanoseconds far from the end of their range.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
const MIN_INTERVAL: Duration = Duration::from_millis(10);

const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_HEALTHY: u32 = 2;
const DEFAULT_UNHEALTHY: u32 = 3;
const DEFAULT_STATUS: u16 = 200;

/// One server to check, and what counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Unique in the list; the key of its status in the map.
    pub(crate) name: String,
    /// `http` or `https`, with a host.
    pub(crate) url: Url,
    /// Time from the start of one check to the start of the next; above zero.
    pub(crate) interval: Duration,
    /// How long one check may take; above zero and at most `interval`, so checks never overlap.
    pub(crate) timeout: Duration,
    /// Successes in a row until the origin is up; at least 1.
    pub(crate) healthy_threshold: u32,
    /// Failures in a row until the origin is down; at least 1.
    pub(crate) unhealthy_threshold: u32,
    /// The one status code that counts as success.
    pub(crate) expected_status: u16,
}

/// Why a list is refused, and where.
#[derive(Debug)]
pub(crate) struct OriginsError {
    file: PathBuf,
    /// Counted from 1. A fault of the file as a whole stands at line 1.
    line: usize,
    fault: Fault,
}

/// What is wrong with a list.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The file cannot be opened or read.
    Unreadable(io::Error),
    /// The file is larger than [`MAX_FILE`].
    TooLarge(u64),
    /// Not TOML, an unknown key, a missing key or a value of the wrong type, in the parser's words.
    Malformed(String),
    /// No origin at all.
    Empty,
    /// An empty name, one above [`MAX_NAME`], or one with control characters.
    BadName(&'static str),
    /// The name stands in the list already, at the line given.
    DuplicateName(String, usize),
    /// Not a URL.
    BadUrl(String),
    /// A URL with a scheme other than http and https.
    NotHttp(String),
    /// Not a duration.
    BadDuration(&'static str, String),
    /// A duration that must not be zero, by its key.
    Zero(&'static str),
    /// An interval above a day.
    IntervalTooLong,
    /// An interval so short that checks would be a flood.
    IntervalTooShort,
    /// A timeout above its interval, so that checks would overlap.
    TimeoutAboveInterval(Duration, Duration),
    /// A threshold of zero, by its key.
    ZeroThreshold(&'static str),
    /// A status code outside 100..=599.
    BadStatus(u16),
}

impl fmt::Display for OriginsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "cannot read the list of origins: {error}"),
            Self::TooLarge(bytes) => {
                write!(f, "the file has {bytes} bytes, the limit is {MAX_FILE}")
            }
            Self::Malformed(message) => f.write_str(message),
            Self::Empty => f.write_str("the list has no [[origin]]"),
            Self::BadName(why) => write!(f, "bad origin name: {why}"),
            Self::DuplicateName(name, first) => {
                write!(f, "duplicate origin name {name:?}, first at line {first}")
            }
            Self::BadUrl(why) => write!(f, "bad url: {why}"),
            Self::NotHttp(scheme) => write!(f, "url must be http or https, not {scheme:?}"),
            Self::BadDuration(key, why) => write!(f, "bad {key}: {why}"),
            Self::Zero(key) => write!(f, "{key} must be above zero"),
            Self::IntervalTooLong => f.write_str("interval must be at most a day"),
            Self::IntervalTooShort => f.write_str("interval must be at least 10 ms"),
            Self::TimeoutAboveInterval(timeout, interval) => write!(
                f,
                "timeout {} is above the interval {}",
                humantime::format_duration(*timeout),
                humantime::format_duration(*interval)
            ),
            Self::ZeroThreshold(key) => write!(f, "{key} must be at least 1"),
            Self::BadStatus(code) => write!(f, "expected_status {code} is not in 100..=599"),
        }
    }
}

/// Reads and checks the list in `file`.
///
/// # Errors
///
/// The first fault found, with its line.
pub(crate) fn load(file: &Path) -> Result<Vec<Origin>, OriginsError> {
    let refuse = |(line, fault)| OriginsError { file: file.to_path_buf(), line, fault };
    let text = read(file).map_err(refuse)?;
    parse(file, &text)
}

/// The text of the file, or what is wrong with it and at which line.
fn read(file: &Path) -> Result<String, (usize, Fault)> {
    let bytes = read_bytes(file).map_err(|fault| (1, fault))?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count();
        (line, Fault::Malformed(format!("not UTF-8 at byte {good}")))
    })
}

fn read_bytes(file: &Path) -> Result<Vec<u8>, Fault> {
    let mut opened = File::open(file).map_err(Fault::Unreadable)?;
    let size = opened.metadata().map_err(Fault::Unreadable)?.len();
    if size > MAX_FILE {
        return Err(Fault::TooLarge(size));
    }
    // The size can lie (a pipe) or grow; reading stops past the limit all the same.
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    opened.by_ref().take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(Fault::Unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Fault::TooLarge(bytes.len() as u64));
    }
    Ok(bytes)
}

/// Checks the list in `text`; `file` only names it in errors.
///
/// # Errors
///
/// The first fault found, with its line.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Vec<Origin>, OriginsError> {
    let lines = Lines::new(text);
    let refuse = |offset: usize, fault| OriginsError {
        file: file.to_path_buf(),
        line: lines.at(offset),
        fault,
    };
    let list: List = toml::from_str(text).map_err(|error| {
        refuse(
            error.span().map_or(0, |span| span.start),
            Fault::Malformed(one_line(error.message())),
        )
    })?;
    if list.origin.is_empty() {
        return Err(refuse(0, Fault::Empty));
    }
    let mut origins = Vec::with_capacity(list.origin.len());
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for entry in list.origin {
        let span = entry.span();
        let named = entry.get_ref().name.span().start;
        let origin = check_entry(entry.into_inner(), &span, &list.defaults)
            .map_err(|(offset, fault)| refuse(offset, fault))?;
        if let Some(first) = names.insert(origin.name.clone(), lines.at(named)) {
            return Err(refuse(named, Fault::DuplicateName(origin.name, first)));
        }
        origins.push(origin);
    }
    Ok(origins)
}

/// The parser's message without its line breaks, so that an error stays one line.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    defaults: Settings,
    #[serde(default)]
    origin: Vec<Spanned<Entry>>,
}

/// What `[defaults]` may hold.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Settings {
    interval: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    healthy_threshold: Option<Spanned<u32>>,
    unhealthy_threshold: Option<Spanned<u32>>,
    expected_status: Option<Spanned<u16>>,
}

/// What `[[origin]]` may hold. The settings stand here again, because `deny_unknown_fields` and
/// `flatten` exclude each other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    url: Spanned<String>,
    interval: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    healthy_threshold: Option<Spanned<u32>>,
    unhealthy_threshold: Option<Spanned<u32>>,
    expected_status: Option<Spanned<u16>>,
}

/// A fault and the byte where it stands.
type At = (usize, Fault);

fn check_entry(entry: Entry, span: &Range<usize>, defaults: &Settings) -> Result<Origin, At> {
    let url = check_url(&entry.url)?;
    let name = check_name(entry.name)?;
    let stated = entry.interval.as_ref().or(defaults.interval.as_ref());
    let interval = match stated {
        Some(text) => duration("interval", text)?,
        None => DEFAULT_INTERVAL,
    };
    let interval_at = stated.map_or(span.start, |text| text.span().start);
    if interval > MAX_INTERVAL {
        return Err((interval_at, Fault::IntervalTooLong));
    }
    if interval < MIN_INTERVAL {
        return Err((interval_at, Fault::IntervalTooShort));
    }
    let timeout = match entry.timeout.as_ref().or(defaults.timeout.as_ref()) {
        Some(text) => {
            let timeout = duration("timeout", text)?;
            if timeout > interval {
                let at = entry.timeout.as_ref().map_or(span.start, |text| text.span().start);
                return Err((at, Fault::TimeoutAboveInterval(timeout, interval)));
            }
            timeout
        }
        // Nobody asked for this timeout, so it must not be what makes a short interval an error.
        None => DEFAULT_TIMEOUT.min(interval),
    };
    Ok(Origin {
        name,
        url,
        interval,
        timeout,
        healthy_threshold: threshold(
            "healthy_threshold",
            entry.healthy_threshold.as_ref().or(defaults.healthy_threshold.as_ref()),
            DEFAULT_HEALTHY,
        )?,
        unhealthy_threshold: threshold(
            "unhealthy_threshold",
            entry.unhealthy_threshold.as_ref().or(defaults.unhealthy_threshold.as_ref()),
            DEFAULT_UNHEALTHY,
        )?,
        expected_status: expected_status(
            entry.expected_status.as_ref().or(defaults.expected_status.as_ref()),
        )?,
    })
}

fn check_name(name: Spanned<String>) -> Result<String, At> {
    let at = name.span().start;
    let name = name.into_inner();
    if name.is_empty() {
        return Err((at, Fault::BadName("it is empty")));
    }
    if name.len() > MAX_NAME {
        return Err((at, Fault::BadName("it is longer than 128 bytes")));
    }
    if name.chars().any(char::is_control) {
        return Err((at, Fault::BadName("it has control characters")));
    }
    Ok(name)
}

fn check_url(url: &Spanned<String>) -> Result<Url, At> {
    let at = url.span().start;
    let parsed =
        Url::parse(url.get_ref()).map_err(|error| (at, Fault::BadUrl(error.to_string())))?;
    let scheme = parsed.scheme();
    if scheme != "http" && scheme != "https" {
        return Err((at, Fault::NotHttp(scheme.to_owned())));
    }
    let refuse = |why: &str| Err((at, Fault::BadUrl(why.to_owned())));
    // The parser mends `http:shop` and `http:///shop` into a host; whoever wrote that meant a path.
    let rest = url.get_ref().trim_start().get(scheme.len()..).unwrap_or_default();
    if rest.strip_prefix("://").is_none_or(|host| host.starts_with('/')) {
        return refuse("it must have a host after ://");
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        // The list and the answers are there for everyone to read.
        return refuse("it must not hold a user name or password");
    }
    if parsed.port() == Some(0) {
        return refuse("port 0 is nobody's");
    }
    Ok(parsed)
}

fn duration(key: &'static str, text: &Spanned<String>) -> Result<Duration, At> {
    let at = text.span().start;
    let parsed = humantime::parse_duration(text.get_ref())
        .map_err(|error| (at, Fault::BadDuration(key, one_line(&error.to_string()))))?;
    if parsed.is_zero() {
        return Err((at, Fault::Zero(key)));
    }
    Ok(parsed)
}

fn threshold(key: &'static str, stated: Option<&Spanned<u32>>, default: u32) -> Result<u32, At> {
    match stated {
        Some(value) if *value.get_ref() == 0 => {
            Err((value.span().start, Fault::ZeroThreshold(key)))
        }
        Some(value) => Ok(*value.get_ref()),
        None => Ok(default),
    }
}

fn expected_status(stated: Option<&Spanned<u16>>) -> Result<u16, At> {
    match stated {
        Some(value) if !(100..=599).contains(value.get_ref()) => {
            Err((value.span().start, Fault::BadStatus(*value.get_ref())))
        }
        Some(value) => Ok(*value.get_ref()),
        None => Ok(DEFAULT_STATUS),
    }
}

/// Finds the line of a byte. A list of many origins asks once per entry, so the line starts are
/// kept.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        Self(breaks.map(|(at, _)| at).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|&line_break| line_break < offset) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        parse(Path::new("list.toml"), text).expect_err("the list is bad").to_string()
    }

    #[test]
    fn entries_take_what_they_leave_out_from_the_defaults() {
        let text = r#"
            [defaults]
            interval = "1s"
            expected_status = 204

            [[origin]]
            name = "a"
            url = "http://127.0.0.1:8080/a"

            [[origin]]
            name = "b"
            url = "https://b.example/"
            interval = "500ms"
            timeout = "100ms"
            healthy_threshold = 1
            unhealthy_threshold = 5
            expected_status = 200
        "#;
        let list = parse(Path::new("list.toml"), text).expect("the list is good");
        assert_eq!(list[0].interval, Duration::from_secs(1));
        assert_eq!(list[0].timeout, Duration::from_secs(1), "the built-in timeout gives way");
        assert_eq!(list[0].expected_status, 204);
        assert_eq!(list[0].unhealthy_threshold, DEFAULT_UNHEALTHY);
        assert_eq!(list[1].timeout, Duration::from_millis(100));
        assert_eq!((list[1].healthy_threshold, list[1].unhealthy_threshold), (1, 5));
    }

    #[test]
    fn every_fault_names_its_line() {
        let entry = "[[origin]]\nname = \"a\"\nurl = \"http://a/\"\n";
        let cases = [
            ("", "list.toml:1: the list has no [[origin]]"),
            ("[[origin]]\nname = 1\n", "list.toml:2: invalid type: integer `1`, expected a string"),
            ("[[origin]\n", "list.toml:1: "),
            (
                "[[origin]]\nname = \"\"\nurl = \"http://a/\"\n",
                "list.toml:2: bad origin name: it is empty",
            ),
            (
                "[[origin]]\nname = \"a\"\nurl = \"ftp://a/\"\n",
                "list.toml:3: url must be http or https, not \"ftp\"",
            ),
            (
                "[[origin]]\nname = \"a\"\nurl = \"a\"\n",
                "list.toml:3: bad url: relative URL without a base",
            ),
        ];
        for (text, told) in cases {
            assert!(fault(text).starts_with(told), "{text:?} told {:?}", fault(text));
        }
        let added = [
            ("colour = 1\n", "list.toml:4: unknown field `colour`"),
            (entry, "list.toml:5: duplicate origin name \"a\", first at line 2"),
            ("interval = \"0s\"\n", "list.toml:4: interval must be above zero"),
            ("interval = \"2days\"\n", "list.toml:4: interval must be at most a day"),
            ("timeout = \"0s\"\n", "list.toml:4: timeout must be above zero"),
            ("interval = \"soon\"\n", "list.toml:4: bad interval: "),
            (
                "interval = \"1s\"\ntimeout = \"2s\"\n",
                "list.toml:5: timeout 2s is above the interval 1s",
            ),
            ("healthy_threshold = 0\n", "list.toml:4: healthy_threshold must be at least 1"),
            (
                "unhealthy_threshold = -1\n",
                "list.toml:4: invalid value: integer `-1`, expected u32",
            ),
            ("expected_status = 20\n", "list.toml:4: expected_status 20 is not in 100..=599"),
        ];
        for (more, told) in added {
            let text = format!("{entry}{more}");
            assert!(fault(&text).starts_with(told), "{text:?} told {:?}", fault(&text));
            assert!(!fault(&text).contains('\n'), "one line");
        }
    }

    #[test]
    fn a_name_has_a_limit() {
        let text =
            |len| format!("[[origin]]\nname = \"{}\"\nurl = \"http://a/\"\n", "n".repeat(len));
        assert!(parse(Path::new("l"), &text(MAX_NAME)).is_ok());
        assert!(fault(&text(MAX_NAME + 1)).starts_with("list.toml:2: bad origin name"));
    }
}
