//! Every rule of the settings and of the identity, each broken alone.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::map::{self, Map, ReplicaId};
use brickwork_core::swim::{self, Swim};
use brickwork_core::{
    Config, ConfigError, Identity, Instant, MAX_DATAGRAM, MAX_META, MAX_NAME, MAX_ZONE,
    MIN_DATAGRAM, Node,
};

const ZERO: Duration = Duration::ZERO;
/// The shortest duration above a day.
const OVER_A_DAY: Duration = Duration::new(24 * 3600, 1);

fn addr() -> SocketAddr {
    ([10, 0, 0, 1], 7).into()
}

fn node(config: Config) -> Result<(), ConfigError> {
    Node::new(Instant::ZERO, Identity::new("a", addr()), config, [7; 32]).map(drop)
}

fn bare_swim(config: &Config) -> Result<(), ConfigError> {
    let (now, identity) = (Instant::ZERO, Identity::new("a", addr()));
    let Config { cluster, max_datagram, swim, .. } = config.clone();
    Swim::new(now, identity, &cluster, swim, max_datagram, [7; 32]).map(drop)
}

fn bare_map(config: &Config) -> Result<(), ConfigError> {
    let replica = ReplicaId::new(brickwork_core::NodeId(1), 1);
    let Config { cluster, max_datagram, map, .. } = config.clone();
    Map::new(Instant::ZERO, replica, &cluster, map, max_datagram, [7; 32]).map(drop)
}

/// What breaks a rule.
type Change<C> = fn(&mut C);
/// A rule's words, and the changes that each break it.
type Rule<C> = (&'static str, &'static [Change<C>]);

const NODE: &[Rule<Config>] = &[
    (
        "max_datagram must be from 512 to 65,000 bytes",
        &[|c| c.max_datagram = MIN_DATAGRAM - 1, |c| c.max_datagram = MAX_DATAGRAM + 1],
    ),
    ("max_events must be above zero", &[|c| c.max_events = 0]),
];

const SWIM: &[Rule<swim::Config>] = &[
    (
        "swim.probe_timeout must be shorter than swim.probe_interval",
        &[|c| c.probe_timeout = c.probe_interval, |c| c.probe_interval = ZERO],
    ),
    (
        "swim.retry_min must be at least a millisecond and at most swim.retry_max",
        &[
            |c| c.retry_min = Duration::from_micros(999),
            |c| c.retry_min = c.retry_max + Duration::from_nanos(1),
        ],
    ),
    (
        "swim.probe_timeout and swim.gossip_interval must be above zero",
        &[|c| c.probe_timeout = ZERO, |c| c.gossip_interval = ZERO],
    ),
    (
        "swim.join_retry must be above zero and at most swim.join_retry_max",
        &[|c| c.join_retry = ZERO, |c| c.join_retry = c.join_retry_max + Duration::from_nanos(1)],
    ),
    (
        "swim's intervals and timeouts are at most a day",
        &[
            |c| c.probe_interval = OVER_A_DAY,
            |c| c.retry_max = OVER_A_DAY,
            |c| c.gossip_interval = OVER_A_DAY,
            |c| c.join_retry_max = OVER_A_DAY,
            |c| c.reconnect_interval = OVER_A_DAY,
            |c| c.leave_timeout = OVER_A_DAY,
        ],
    ),
    (
        "swim.suspicion_min and suspicion_max_mult are at most 1,000, max_local_health 64",
        &[
            |c| c.suspicion_min = 1_001,
            |c| c.suspicion_max_mult = 1_001,
            |c| c.max_local_health = 65,
        ],
    ),
    (
        "swim.reconnect_interval and swim.leave_timeout must be above zero",
        &[|c| c.reconnect_interval = ZERO, |c| c.leave_timeout = ZERO],
    ),
    (
        "swim.indirect_probes and swim.suspicion_confirmations are at most 16",
        &[|c| c.indirect_probes = 17, |c| c.suspicion_confirmations = 17],
    ),
    (
        "swim.suspicion_min, suspicion_max_mult and retransmit_mult are at least 1",
        &[|c| c.suspicion_min = 0, |c| c.suspicion_max_mult = 0, |c| c.retransmit_mult = 0],
    ),
    (
        "swim.max_members must be from 2 to 1,048,576",
        &[|c| c.max_members = 1, |c| c.max_members = (1 << 20) + 1],
    ),
    ("swim.max_events must be above zero", &[|c| c.max_events = 0]),
    (
        "swim.gossip_nodes is at most 1,024, leave_acks at least 1",
        &[|c| c.gossip_nodes = 1_025, |c| c.leave_acks = 0],
    ),
    (
        "swim.tombstone_age must be at least a second",
        &[|c| c.tombstone_age = Duration::from_millis(999)],
    ),
];

const MAP: &[Rule<map::Config>] = &[
    (
        "map.max_key must be at most a quarter of max_datagram (and 4,000)",
        &[|c| c.max_key = 1_400 / 4 + 1, |c| c.max_key = usize::MAX],
    ),
    (
        "map.max_value must be at most 65,536",
        &[|c| c.max_value = 65_537, |c| c.max_value = usize::MAX],
    ),
    (
        "map.max_replicas must be from 1 to 65,535",
        &[|c| c.max_replicas = 0, |c| c.max_replicas = 65_536],
    ),
    (
        "map.max_keys must be from 1 to 2,147,483,648",
        &[|c| c.max_keys = 0, |c| c.max_keys = (1 << 31) + 1],
    ),
    (
        "map.max_gap_dots, max_peers and max_events must be above zero",
        &[|c| c.max_gap_dots = 0, |c| c.max_peers = 0, |c| c.max_events = 0],
    ),
    (
        "map.pull_interval and sync_interval must be above zero",
        &[|c| c.pull_interval = ZERO, |c| c.sync_interval = ZERO],
    ),
    (
        "map.pull_timeout_min must be above zero and at most map.pull_timeout",
        &[
            |c| c.pull_timeout_min = ZERO,
            |c| c.pull_timeout_min = c.pull_timeout + Duration::from_nanos(1),
        ],
    ),
    (
        "map's intervals and timeouts are at most a day",
        &[
            |c| c.push_interval = OVER_A_DAY,
            |c| c.pull_interval = OVER_A_DAY,
            |c| c.pull_timeout = OVER_A_DAY,
            |c| c.sync_interval = OVER_A_DAY,
        ],
    ),
    ("map.pull_budget must be at least max_datagram", &[|c| c.pull_budget = 1_399]),
    (
        "map.pull_rate must be at least map.pull_budget",
        &[|c| c.pull_rate = c.pull_budget - 1, |c| c.pull_budget = c.pull_rate + 1],
    ),
];

/// Goal: each rule refuses what breaks it, in its own words, at every door that takes the setting.
/// Method: from a good preset, one change at a time; all misses are told together.
#[test]
fn every_rule_refuses_what_breaks_it() {
    let mut missed = Vec::new();
    let mut check =
        |rule: &'static str, change: usize, door: &str, got: Result<(), ConfigError>| {
            if got != Err(ConfigError::Refused(rule)) {
                missed.push(format!("change {change} of {rule:?} at {door}: {got:?}"));
            }
        };
    for preset in [Config::lan(), Config::local()] {
        for (rule, changes) in NODE {
            for (number, change) in changes.iter().enumerate() {
                let mut config = preset.clone();
                change(&mut config);
                if rule.starts_with("max_datagram") {
                    check(rule, number, "Swim", bare_swim(&config));
                    check(rule, number, "Map", bare_map(&config));
                }
                check(rule, number, "Node", node(config));
            }
        }
        for (rule, changes) in SWIM {
            for (number, change) in changes.iter().enumerate() {
                let mut config = preset.clone();
                change(&mut config.swim);
                check(rule, number, "Swim", bare_swim(&config));
                check(rule, number, "Node", node(config));
            }
        }
        for (rule, changes) in MAP {
            for (number, change) in changes.iter().enumerate() {
                let mut config = preset.clone();
                change(&mut config.map);
                check(rule, number, "Map", bare_map(&config));
                check(rule, number, "Node", node(config));
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

/// A key of more than 4,000 bytes leaves too little of a frame to what comes with it, whatever the datagram holds.
#[test]
fn a_key_must_leave_room_in_the_longest_frame_too() {
    let mut config = Config::lan();
    config.max_datagram = MAX_DATAGRAM;
    config.map.pull_budget = MAX_DATAGRAM;
    config.map.max_key = 4_000;
    assert_eq!(node(config.clone()), Ok(()));
    config.map.max_key += 1;
    assert!(matches!(node(config), Err(ConfigError::Refused(rule)) if rule.contains("4,000")));
}

#[test]
fn presets_and_the_bounds_themselves_are_good() {
    assert_eq!(Config::default(), Config::lan());
    for preset in [Config::lan(), Config::local()] {
        assert_eq!(node(preset.clone()), Ok(()));
        let mut most = preset.clone();
        most.swim.indirect_probes = 16;
        most.swim.suspicion_confirmations = 16;
        (most.swim.suspicion_min, most.swim.suspicion_max_mult) = (1_000, 1_000);
        (most.swim.max_local_health, most.swim.max_members) = (64, 1 << 20);
        most.swim.retry_min = most.swim.retry_max;
        most.swim.gossip_nodes = 1_024;
        most.swim.join_retry = most.swim.join_retry_max;
        (most.map.max_key, most.map.max_value) = (1_400 / 4, 65_536);
        (most.map.max_replicas, most.map.max_keys) = (65_535, 1 << 31);
        most.map.pull_timeout_min = most.map.pull_timeout;
        most.map.pull_budget = most.max_datagram;
        most.map.pull_rate = most.map.pull_budget;
        assert_eq!(node(most), Ok(()));
        let mut least = preset;
        least.max_datagram = MIN_DATAGRAM;
        (least.map.max_key, least.map.max_value) = (MIN_DATAGRAM / 4, 0);
        (least.max_events, least.swim.max_events, least.map.max_events) = (1, 1, 1);
        (least.swim.retry_min, least.swim.leave_acks) = (Duration::from_millis(1), 1);
        least.swim.tombstone_age = Duration::from_secs(1);
        (least.swim.indirect_probes, least.swim.suspicion_confirmations) = (0, 0);
        (least.swim.max_local_health, least.swim.max_members) = (0, 2);
        (least.map.max_replicas, least.map.max_keys, least.map.max_bytes) = (1, 1, 0);
        (least.map.max_gap_dots, least.map.max_peers) = (1, 1);
        least.map.push_interval = ZERO;
        assert_eq!(node(least), Ok(()));
    }
}

/// Goal: an identity that no row has room for, or that nobody can answer, is refused at the start.
/// Method: each part one byte too long or of a kind that is nobody's, and each at its longest.
#[test]
fn an_identity_is_refused_for_the_part_that_is_wrong() {
    let with =
        |identity: Identity| Node::new(Instant::ZERO, identity, Config::lan(), [7; 32]).map(drop);
    let a = || Identity::new("a", addr());
    let too_long = |what, max| Err(ConfigError::TooLong { what, len: max + 1, max });
    let text = |len| "x".repeat(len);
    assert_eq!(with(Identity::new(text(MAX_NAME + 1), addr())), too_long("name", MAX_NAME));
    assert_eq!(with(a().with_zone(text(MAX_ZONE + 1))), too_long("zone", MAX_ZONE));
    assert_eq!(with(a().with_meta([0; MAX_META + 1])), too_long("metadata", MAX_META));
    for nobody in ["10.0.0.1:0", "0.0.0.0:7", "[::]:7", "224.0.0.1:7", "[ff02::1]:7"] {
        let refused = with(a().with_addr(nobody.parse().unwrap()));
        assert_eq!(refused, Err(ConfigError::BadAddress), "{nobody}");
    }
    let longest = Identity::new(text(MAX_NAME), addr());
    assert_eq!(with(longest.with_zone(text(MAX_ZONE)).with_meta([0; MAX_META])), Ok(()));
    let mut node =
        Node::new(Instant::ZERO, Identity::new("a", addr()), Config::lan(), [7; 32]).unwrap();
    assert_eq!(node.set_meta(Instant::ZERO, vec![0; MAX_META + 1]), too_long("metadata", MAX_META));
    assert!(node.identity().meta().is_empty(), "a refused wish changes nothing");
}
