//! Rendezvous hashing by `hrw-hash` and `rendezvous_hash`. Both sort all nodes, whatever is asked for.

use crate::measure::Entrant;

/// H1: the owner of a key.
#[must_use]
pub fn owner(n: u32) -> Vec<Entrant> {
    #[cfg(feature = "peers")]
    return vec![hrw_hash(n), rendezvous_hash(n)];
    #[cfg(not(feature = "peers"))]
    {
        let _ = n;
        Vec::new()
    }
}

#[cfg(feature = "peers")]
fn names(n: u32) -> impl Iterator<Item = String> {
    (0..n).map(|node| format!("cache-{node:06}"))
}

#[cfg(feature = "peers")]
fn hrw_hash(n: u32) -> Entrant {
    use hrw_hash::{HrwNode, HrwNodes};

    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Node(String);
    impl HrwNode for Node {}

    let (nodes, keys) = (HrwNodes::new(names(n).map(Node)), crate::hrw::keys());
    Entrant::new("hrw-hash", move |watch| {
        watch.time(keys.len() as u64, || {
            for key in &keys {
                std::hint::black_box(nodes.sorted(std::hint::black_box(key)).next());
            }
        });
    })
}

#[cfg(feature = "peers")]
fn rendezvous_hash(n: u32) -> Entrant {
    let mut nodes = rendezvous_hash::RendezvousNodes::default();
    names(n).for_each(|name| {
        nodes.insert(rendezvous_hash::IdNode::new(name));
    });
    let keys = crate::hrw::keys();
    Entrant::new("rendezvous_hash", move |watch| {
        watch.time(keys.len() as u64, || {
            for key in &keys {
                std::hint::black_box(nodes.calc_candidates(std::hint::black_box(key)).next());
            }
        });
    })
}
