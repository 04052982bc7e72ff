//! What a node answers over HTTP, from its own copy alone: it answers the same way while it is cut
//! off from all others.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use std::io;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use brickwork_core::NodeId;
use brickwork_core::swim;
use brickwork_tokio::Handle;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::health::Status;
use crate::origins::Origin;

/// What the answers are made of.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    /// The node.
    pub(crate) handle: Handle,
    /// The node's name.
    pub(crate) name: String,
    /// The list of origins.
    pub(crate) origins: Arc<[Origin]>,
    /// Whether the node is part of a cluster.
    pub(crate) joined: watch::Receiver<bool>,
}

/// `GET /status.json`.
#[derive(Debug, Serialize)]
struct Statuses {
    node: String,
    origins: Vec<OriginAnswer>,
}

/// One origin, as this node knows it.
#[derive(Debug, Serialize)]
struct OriginAnswer {
    name: String,
    url: String,
    state: &'static str,
    /// Unix time in milliseconds; null until the origin has a status.
    since: Option<u64>,
    latency_ms: Option<f64>,
    /// Why the last check failed; null if it did not.
    reason: Option<String>,
    /// Who wrote the status.
    checker: Option<String>,
    /// Who checks the origin now, in this node's view.
    owner: Option<String>,
}

/// One row of `GET /members.json`.
#[derive(Debug, Serialize)]
struct MemberAnswer {
    id: String,
    name: String,
    addr: String,
    state: &'static str,
}

/// `GET /members.json`.
#[derive(Debug, Serialize)]
struct Members {
    node: String,
    members: Vec<MemberAnswer>,
    /// Those that failed or left and are still remembered.
    former: Vec<MemberAnswer>,
}

/// `GET /health`.
#[derive(Debug, Serialize)]
struct Healthy {
    joined: bool,
}

/// Answers on `listener` until dropped.
///
/// # Errors
///
/// If the listener breaks.
pub(crate) async fn serve(listener: TcpListener, answers: Answers) -> io::Result<()> {
    let app = Router::new()
        .route("/status.json", get(statuses))
        .route("/members.json", get(members))
        .route("/health", get(health))
        .with_state(answers);
    axum::serve(listener, app).await
}

async fn health(State(answers): State<Answers>) -> (StatusCode, Json<Healthy>) {
    let joined = *answers.joined.borrow();
    let code = if joined { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Healthy { joined }))
}

async fn members(State(answers): State<Answers>) -> Result<Json<Members>, StatusCode> {
    let rows = answers.handle.call(|node, _| {
        let row = |member: &swim::Member| MemberAnswer {
            id: member.id().to_string(),
            name: member.name().to_owned(),
            addr: member.addr().to_string(),
            state: match member.state() {
                swim::State::Alive => "alive",
                swim::State::Suspect => "suspect",
                swim::State::Dead => "dead",
                swim::State::Left => "left",
            },
        };
        let live = node.members().map(row).collect::<Vec<_>>();
        (live, node.former_members().map(row).collect::<Vec<_>>())
    });
    // The node is gone: the process is about to end.
    let (mut members, mut former) =
        rows.await.map_err(|_stopped| StatusCode::SERVICE_UNAVAILABLE)?;
    for rows in [&mut members, &mut former] {
        rows.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(Json(Members { node: answers.name, members, former }))
}

async fn statuses(State(answers): State<Answers>) -> Result<Json<Statuses>, StatusCode> {
    let origins = Arc::clone(&answers.origins);
    let read = answers.handle.call(move |node, _| {
        let names: BTreeMap<NodeId, String> =
            node.members().map(|member| (member.id(), member.name().to_owned())).collect();
        let read = |origin: &Origin| {
            let key = origin.name.as_bytes();
            (node.get(key).and_then(Status::decode), node.owner(key))
        };
        (names, origins.iter().map(read).collect::<Vec<_>>())
    });
    let (names, read) = read.await.map_err(|_stopped| StatusCode::SERVICE_UNAVAILABLE)?;
    let answer = |(origin, (status, owner)): (&Origin, (Option<Status>, Option<NodeId>))| {
        let owner = owner.map(|id| names.get(&id).cloned().unwrap_or_else(|| id.to_string()));
        let (name, url) = (origin.name.clone(), origin.url.to_string());
        match status {
            Some(status) => OriginAnswer {
                name,
                url,
                state: status.state.as_str(),
                since: Some(status.since_ms),
                latency_ms: Some(f64::from(status.latency_us) / 1000.0),
                reason: status.reason.map(|reason| reason.to_string()),
                checker: Some(status.checker),
                owner,
            },
            None => OriginAnswer {
                name,
                url,
                state: "unknown",
                since: None,
                latency_ms: None,
                reason: None,
                checker: None,
                owner,
            },
        }
    };
    let origins = answers.origins.iter().zip(read).map(answer).collect();
    Ok(Json(Statuses { node: answers.name, origins }))
}
