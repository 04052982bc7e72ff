//! What a node answers over HTTP, from its own copy alone: it answers the same way while it is cut
//! off from all others.

use alloc::sync::Arc;
use std::io;

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::feed::Feed;
use crate::tally::Tally;

mod events;
mod exposition;
mod json;
mod metrics;
mod patience;
mod policy;
mod server;

pub(crate) use self::server::Limits;

/// The status page: one document that loads nothing else.
const PAGE: &str = include_str!("http/page.html");

/// What the answers are made of.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    /// Whether the node is part of a cluster.
    pub(crate) joined: watch::Receiver<bool>,
    /// The node, and what changes.
    pub(crate) feed: Feed,
    /// The checks of this node.
    pub(crate) tally: Arc<Tally>,
}

/// Answers on `listener`, within `limits`, until `stop` is over and every answer that was begun is complete. Streams
/// of events are complete when the node is gone.
///
/// # Errors
///
/// If the page has no policy.
pub(crate) async fn serve(
    listener: TcpListener,
    answers: Answers,
    limits: Limits,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let policy = HeaderValue::from_str(&policy::of(PAGE)).map_err(io::Error::other)?;
    let page = move || core::future::ready(page(policy.clone()));
    let app = Router::new()
        .route("/", get(page))
        .route("/events", get(events::events))
        .route("/status.json", get(json::statuses))
        .route("/members.json", get(json::members))
        .route("/health", get(json::health))
        .route("/metrics", get(metrics::metrics))
        .layer(map_response(harden))
        .with_state(answers);
    server::serve(listener, app, limits, stop).await;
    Ok(())
}

fn page(policy: HeaderValue) -> Response {
    ([(CONTENT_SECURITY_POLICY, policy)], Html(PAGE)).into_response()
}

/// Every answer is about this moment, and is what it says it is.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
