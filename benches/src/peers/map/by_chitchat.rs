//! chitchat 0.13: each node writes a map of its own that the others copy; strings only. Its deltas
//! cannot be had without its server, so it takes part in the local rows.

use std::collections::HashSet;
use std::time::Duration;

use chitchat::{Chitchat, ChitchatConfig, ChitchatId, FailureDetectorConfig, ProtocolVersion};
use tokio::sync::watch;

use crate::map::{KEY, SHORT_KEY, key, overhead, value};
use crate::measure::{Entrant, Outcome};

fn node() -> Chitchat {
    let addr = ([127, 0, 0, 1], 7280).into();
    let config = ChitchatConfig {
        chitchat_id: ChitchatId::new("cache-000000", 1, addr),
        cluster_id: "bench".to_owned(),
        gossip_interval: Duration::from_secs(1),
        listen_addr: addr,
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig::default(),
        marked_for_deletion_grace_period: Duration::from_secs(3_600),
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: ProtocolVersion::V0,
    };
    Chitchat::with_chitchat_id_and_seeds(config, watch::channel(HashSet::new()).1, Vec::new())
}

fn write<const LEN: usize>(node: &mut Chitchat, at: u32) {
    // The value's bytes are below 0x80 for the numbers in use or the letter U.
    let value = value(at & 0x7f, 0);
    let text = |bytes| std::str::from_utf8(bytes).expect("ASCII");
    node.self_node_state().set(text(&key::<LEN>(at)), text(&value));
}

pub(super) fn insertion(n: u32) -> Entrant {
    Entrant::new("chitchat", move |watch| {
        let mut node = node();
        watch.time(u64::from(n), || {
            for at in 0..n {
                write::<KEY>(&mut node, at);
            }
        });
    })
}

pub(super) fn heap(n: u32) -> Outcome {
    let filled = || {
        let mut node = node();
        (0..n).for_each(|at| write::<SHORT_KEY>(&mut node, at));
        node
    };
    Outcome::counted("chitchat", overhead(n, filled))
}
