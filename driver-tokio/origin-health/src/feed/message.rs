//! What a feed tells, ready to send.

use alloc::sync::Arc;

use serde::Serialize;

use super::{Feed, millis};
use crate::origins::Origin;
use crate::reading::{Reading, Roll};

/// One message: JSON without line breaks. Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// What it is.
    pub(crate) kind: Kind,
    /// The JSON.
    pub(crate) json: Arc<str>,
}

/// The kinds of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// About the node itself. Everything follows anew: what was told before is void.
    Snapshot,
    /// All members.
    Members,
    /// Some origins, each as a row of columns:
    /// `[number, name, url, state, owner, checker, since, written, latency_ms, reason, siblings]`,
    /// times in Unix milliseconds. Rows of objects would be twice as long, and there may be fifty
    /// thousand.
    Origins,
}

impl Kind {
    /// Its name in the stream.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Members => "members",
            Self::Origins => "origins",
        }
    }
}

#[derive(Serialize)]
struct Snapshot<'a> {
    node: &'a str,
    cluster: &'a str,
    version: &'static str,
    /// Unix time in milliseconds, here and below.
    started: u64,
    /// The node's own time, against which ages are told.
    now: u64,
    /// How many origins follow.
    origins: usize,
}

#[derive(Serialize)]
struct Row<'a>(
    usize,
    &'a str,
    &'a str,
    &'static str,
    Option<&'a str>,
    Option<&'a str>,
    Option<u64>,
    Option<u64>,
    Option<f64>,
    Option<String>,
    usize,
);

impl<'a> Row<'a> {
    fn new(origin: &'a Origin, reading: &'a Reading) -> Self {
        let status = reading.status.as_ref();
        Self(
            reading.number,
            &origin.name,
            origin.url.as_str(),
            reading.state().as_str(),
            reading.owner.as_ref().map(|owner| owner.name()),
            status.map(|status| status.checker.as_str()),
            status.map(|status| status.since_ms),
            status.map(|status| status.written_us / 1000),
            status.map(|status| f64::from(status.latency_us) / 1000.0),
            status.and_then(|status| status.reason).map(|reason| reason.to_string()),
            reading.siblings,
        )
    }
}

impl Message {
    /// The first message, and the first again after a watcher lost some.
    pub(super) fn snapshot(feed: &Feed) -> Self {
        let source = &feed.source;
        let snapshot = Snapshot {
            node: &source.name,
            cluster: &source.cluster,
            version: env!("CARGO_PKG_VERSION"),
            started: feed.started_ms,
            now: millis(source.clock.now()),
            origins: source.origins.len(),
        };
        Self::new(Kind::Snapshot, &snapshot)
    }

    pub(super) fn members(roll: &Roll) -> Self {
        Self::new(Kind::Members, roll)
    }

    pub(super) fn origins(list: &[Origin], readings: &[Reading]) -> Self {
        let row = |reading| -> Row<'_> {
            let reading: &Reading = reading;
            Row::new(&list[reading.number], reading)
        };
        Self::new(Kind::Origins, &readings.iter().map(row).collect::<Vec<_>>())
    }

    fn new(kind: Kind, content: &impl Serialize) -> Self {
        // Strings, numbers and sequences always have a JSON form.
        let json = serde_json::to_string(content).unwrap_or_default();
        Self { kind, json: json.into() }
    }
}

impl Default for Message {
    fn default() -> Self {
        Self { kind: Kind::Members, json: "".into() }
    }
}
