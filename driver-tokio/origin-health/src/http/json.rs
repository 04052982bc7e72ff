//! The answers in JSON.

use alloc::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::Answers;
use crate::origins::Origin;
use crate::reading::{Reading, Roll};

/// `GET /status.json`.
#[derive(Debug, Serialize)]
pub(super) struct Statuses {
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

/// `GET /members.json`.
#[derive(Debug, Serialize)]
pub(super) struct Members {
    node: String,
    #[serde(flatten)]
    roll: Roll,
}

/// `GET /health`.
#[derive(Debug, Serialize)]
pub(super) struct Healthy {
    joined: bool,
}

pub(super) async fn health(State(answers): State<Answers>) -> (StatusCode, Json<Healthy>) {
    let joined = *answers.joined.borrow();
    let code = if joined { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Healthy { joined }))
}

pub(super) async fn members(State(answers): State<Answers>) -> Result<Json<Members>, StatusCode> {
    let source = answers.feed.source();
    // The node is gone: the process is about to end.
    let roll = source.read_roll().await.map_err(|_stopped| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(Members { node: source.name.clone(), roll }))
}

pub(super) async fn statuses(State(answers): State<Answers>) -> Result<Json<Statuses>, StatusCode> {
    let source = answers.feed.source();
    let origins = Arc::clone(&source.origins);
    let read = source.handle.call(move |node, _| {
        let numbered = origins.iter().enumerate();
        numbered.map(|(number, origin)| Reading::new(node, number, origin)).collect::<Vec<_>>()
    });
    let read = read.await.map_err(|_stopped| StatusCode::SERVICE_UNAVAILABLE)?;
    let origins = source.origins.iter().zip(read).map(|(origin, read)| answer(origin, &read));
    Ok(Json(Statuses { node: source.name.clone(), origins: origins.collect() }))
}

fn answer(origin: &Origin, read: &Reading) -> OriginAnswer {
    let status = read.status.as_ref();
    OriginAnswer {
        name: origin.name.clone(),
        url: origin.url.to_string(),
        state: read.state().as_str(),
        since: status.map(|status| status.since_ms),
        latency_ms: status.map(|status| f64::from(status.latency_us) / 1000.0),
        reason: status.and_then(|status| status.reason).map(|reason| reason.to_string()),
        checker: status.map(|status| status.checker.clone()),
        owner: read.owner.as_ref().map(|owner| owner.name().to_owned()),
    }
}
