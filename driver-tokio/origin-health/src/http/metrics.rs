//! `GET /metrics`: the counters of the node, its socket and its checks, for Prometheus. No label
//! takes its values from origins or members, so the number of series is fixed.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use brickwork_core::{Node, Refused, Stats, swim};
use brickwork_tokio::DriverStats;

use super::Answers;
use super::exposition::{self, Exposition, Kind};
use crate::feed::Counts;
use crate::tally::{BOUNDS, KINDS, Tally, UNCHECKED};

pub(super) async fn metrics(State(answers): State<Answers>) -> Response {
    let handle = &answers.feed.source().handle;
    let read = handle.call(|node, _| Seen::read(node));
    // The node is gone: the process is about to end.
    let Ok(seen) = read.await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let mut text = Exposition::default();
    about(&mut text, &answers);
    datagrams(&mut text, &seen.stats, handle.driver_stats());
    membership(&mut text, &seen, &answers.feed.counts());
    map(&mut text, &seen);
    origins(&mut text, &answers.feed.counts());
    checks(&mut text, &answers.tally);
    ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text.finish()).into_response()
}

/// What is read of a node in one visit.
struct Seen {
    stats: Stats,
    /// Alive, suspect, dead, left.
    members: [usize; 4],
    local_health: u32,
    map_keys: usize,
    map_bytes: usize,
}

impl Seen {
    fn read(node: &Node) -> Self {
        let mut members = [0; 4];
        for member in node.members().chain(node.former_members()) {
            let state = match member.state() {
                swim::State::Alive => 0,
                swim::State::Suspect => 1,
                swim::State::Dead => 2,
                swim::State::Left => 3,
            };
            members[state] += 1;
        }
        Self {
            stats: node.stats(),
            members,
            local_health: node.swim().local_health(),
            map_keys: node.map().len(),
            map_bytes: node.map().bytes(),
        }
    }
}

fn about(text: &mut Exposition, answers: &Answers) {
    let version = env!("CARGO_PKG_VERSION");
    text.family(
        "origin_health_build_info",
        Kind::Gauge,
        "Always 1; the version is in the label.",
        [(&[("version", version)][..], 1)],
    );
    text.single(
        "origin_health_start_time_seconds",
        Kind::Gauge,
        "When the node started, in Unix time.",
        answers.feed.started_ms() as f64 / 1000.0,
    );
    text.single(
        "origin_health_joined",
        Kind::Gauge,
        "1 if the node is part of a cluster, otherwise 0.",
        u8::from(*answers.joined.borrow()),
    );
    text.single(
        "origin_health_event_streams",
        Kind::Gauge,
        "Open streams of events.",
        answers.feed.watchers(),
    );
    text.single(
        "origin_health_events_missed_total",
        Kind::Counter,
        "Events of the node that came faster than they were followed.",
        answers.feed.counts().missed,
    );
}

fn datagrams(text: &mut Exposition, stats: &Stats, socket: DriverStats) {
    let counters = [
        ("brickwork_datagrams_sent_total", "Datagrams sent.", stats.datagrams_sent),
        ("brickwork_sent_bytes_total", "Payload of the datagrams sent.", stats.bytes_sent),
        (
            "brickwork_datagrams_received_total",
            "Datagrams received and applied.",
            stats.datagrams_received,
        ),
        (
            "brickwork_received_bytes_total",
            "Payload of all datagrams that arrived, refused ones included.",
            stats.bytes_received,
        ),
    ];
    for (name, help, value) in counters {
        text.single(name, Kind::Counter, help, value);
    }
    text.labelled(
        "brickwork_datagrams_refused_total",
        Kind::Counter,
        "Datagrams refused, by cause.",
        "cause",
        refused(&stats.refused),
    );
    text.labelled(
        "brickwork_socket_errors_total",
        Kind::Counter,
        "Errors of the UDP socket, by operation.",
        "operation",
        [("send", socket.send_errors), ("receive", socket.receive_errors)],
    );
}

fn refused(refused: &Refused) -> [(&'static str, u64); 10] {
    [
        ("truncated", refused.truncated),
        ("bad_magic", refused.bad_magic),
        ("unsupported_version", refused.unsupported_version),
        ("sealed", refused.sealed),
        ("wrong_cluster", refused.wrong_cluster),
        ("bad_checksum", refused.bad_checksum),
        ("unknown_frame", refused.unknown_frame),
        ("malformed", refused.malformed),
        ("limit_exceeded", refused.limit_exceeded),
        ("own_packet", refused.own_packet),
    ]
}

/// What suspicions and failures rested on.
fn causes(text: &mut Exposition, stats: &swim::Stats) {
    text.labelled(
        "brickwork_suspicions_by_cause_total",
        Kind::Counter,
        "Suspicions by what they began with.",
        "cause",
        [("probe", stats.suspicions_by_probe), ("word", stats.suspicions_by_word)],
    );
    text.labelled(
        "brickwork_failures_by_cause_total",
        Kind::Counter,
        "Failures by what they rested on: a probe of this node, accusers enough, or verdicts of others.",
        "cause",
        [
            ("probe", stats.failures_by_probe),
            ("word", stats.failures_by_word),
            ("verdicts", stats.failures_by_verdicts),
        ],
    );
    let counters = [
        ("brickwork_looks_total", "Suspects probed because too little was told.", stats.looks),
        (
            "brickwork_returns_total",
            "Members that came back in the boot in which they were held failed.",
            stats.returns,
        ),
        ("brickwork_warnings_total", "Members told that others accuse them.", stats.warnings),
        (
            "brickwork_jumps_cut_total",
            "Rows by which others would raise numbers by more than they may.",
            stats.jumps_cut,
        ),
        (
            "brickwork_claims_total",
            "Members asked whether they live where others tell.",
            stats.claims,
        ),
        (
            "brickwork_claims_dropped_total",
            "Members that did not answer where others tell they live.",
            stats.claims_dropped,
        ),
        (
            "brickwork_assays_total",
            "Members measured, because they needed many tries or others found them poor.",
            stats.assays,
        ),
        (
            "brickwork_held_out_total",
            "Members held out because they answer far worse than others.",
            stats.held_out,
        ),
        (
            "brickwork_holds_lifted_total",
            "Holds that ended early, because others found the member well.",
            stats.holds_lifted,
        ),
        (
            "brickwork_returns_refused_total",
            "Words of members held out that they are there.",
            stats.returns_refused,
        ),
    ];
    for (name, help, value) in counters {
        text.single(name, Kind::Counter, help, value);
    }
}

fn membership(text: &mut Exposition, seen: &Seen, counts: &Counts) {
    let [alive, suspect, dead, left] = seen.members;
    text.labelled(
        "brickwork_members",
        Kind::Gauge,
        "Members by state, this node among the alive; dead and left ones while remembered.",
        "state",
        [("alive", alive), ("suspect", suspect), ("dead", dead), ("left", left)],
    );
    text.single(
        "brickwork_local_health",
        Kind::Gauge,
        "How much this node distrusts its own view; 0 is healthy.",
        seen.local_health,
    );
    let stats = &seen.stats.swim;
    let counters = [
        ("brickwork_probes_total", "Probes started.", stats.probes),
        ("brickwork_probes_failed_total", "Probes that nobody answered.", stats.probes_failed),
        (
            "brickwork_probes_void_total",
            "Probes without a verdict because this node was stalled.",
            stats.probes_void,
        ),
        ("brickwork_suspicions_total", "Suspicions heard of.", counts.suspected),
        (
            "brickwork_suspicions_refuted_total",
            "Suspicions that turned out wrong.",
            counts.recovered,
        ),
        ("brickwork_failures_total", "Members confirmed failed.", counts.failed),
        ("brickwork_leaves_total", "Members that left gracefully.", counts.left),
        (
            "brickwork_refutations_total",
            "Accusations against this node that it refuted.",
            stats.refutations,
        ),
        (
            "brickwork_members_refused_total",
            "Members refused because the table was full.",
            stats.members_refused,
        ),
    ];
    for (name, help, value) in counters {
        text.single(name, Kind::Counter, help, value);
    }
    causes(text, stats);
    text.labelled(
        "brickwork_frames_misaddressed_total",
        Kind::Counter,
        "Frames for somebody else, or of a boot that is over, by the part that skipped them.",
        "part",
        [("membership", stats.misaddressed), ("map", seen.stats.map.misaddressed)],
    );
}

fn map(text: &mut Exposition, seen: &Seen) {
    text.single("brickwork_map_keys", Kind::Gauge, "Keys that have a value.", seen.map_keys);
    text.single(
        "brickwork_map_bytes",
        Kind::Gauge,
        "Bytes of keys and values, concurrent values included.",
        seen.map_bytes,
    );
    let stats = &seen.stats.map;
    let counters = [
        ("brickwork_map_writes_total", "Writes and removals of this node.", stats.writes),
        ("brickwork_map_dots_received_total", "Writes learned from peers.", stats.dots_received),
        (
            "brickwork_map_dots_overwritten_total",
            "Those that came without their keys, overwritten since.",
            stats.dots_overwritten,
        ),
        (
            "brickwork_map_windows_forgotten_total",
            "How often such writes were forgotten because nobody told the rest.",
            stats.windows_forgotten,
        ),
        (
            "brickwork_map_dots_refused_total",
            "Writes not taken in for lack of room ahead of a gap.",
            stats.dots_refused,
        ),
        ("brickwork_map_pulls_total", "Pulls sent.", stats.pulls_sent),
        ("brickwork_map_pulls_timed_out_total", "Pulls without an answer.", stats.pulls_timed_out),
        (
            "brickwork_map_chunks_refused_total",
            "Chunks refused because the map is full.",
            stats.chunks_refused,
        ),
        (
            "brickwork_map_stragglers_total",
            "Peers that nothing is kept for any more, for they took nothing in.",
            stats.stragglers,
        ),
        (
            "brickwork_map_chunks_forged_total",
            "Chunks refused because they tell of writes that this node never made.",
            stats.chunks_forged,
        ),
        (
            "brickwork_map_lives_lost_total",
            "Times that the disk was found to have lost writes of this node.",
            stats.lives_lost,
        ),
        (
            "brickwork_map_entries_oversize_total",
            "Entries not sent because they fit no datagram.",
            stats.oversize,
        ),
        (
            "brickwork_map_peers_diverged_total",
            "Peers with an equal context and unequal content.",
            stats.diverged,
        ),
    ];
    for (name, help, value) in counters {
        text.single(name, Kind::Counter, help, value);
    }
}

fn origins(text: &mut Exposition, counts: &Counts) {
    text.labelled(
        "origin_health_origins",
        Kind::Gauge,
        "Origins of the list by state.",
        "state",
        [("up", counts.up), ("down", counts.down), ("unknown", counts.unknown)],
    );
    text.single(
        "origin_health_origins_owned",
        Kind::Gauge,
        "Origins that this node owns in its own view.",
        counts.owned,
    );
    text.single(
        "origin_health_origins_contested",
        Kind::Gauge,
        "Origins with concurrent values, as of the last change of each.",
        counts.contested,
    );
}

fn checks(text: &mut Exposition, tally: &Tally) {
    text.labelled(
        "origin_health_checks_total",
        Kind::Counter,
        "Checks of this node, by outcome; local and late ones were not made.",
        "outcome",
        KINDS.into_iter().zip(tally.kinds()).chain(UNCHECKED.into_iter().zip(tally.unchecked())),
    );
    text.histogram(
        "origin_health_check_duration_seconds",
        "How long the checks of this node took.",
        &BOUNDS,
        &tally.buckets(),
        tally.spent(),
    );
}
