//! `GET /events`: what the page is fed with, as server-sent events.
//!
//! A stream begins with `snapshot`, `members` and as many `origins` as it takes to tell all of them;
//! from then on only what changes is told. A second `snapshot` makes everything before it void: the
//! client was slower than the changes.

use core::convert::Infallible;
use core::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{HeaderName, RETRY_AFTER};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;

use super::Answers;
use crate::feed::{Kind, Message, Refused, Watcher};

/// How long a client waits before it connects anew.
const RETRY: Duration = Duration::from_secs(2);

/// A comment is sent after this much silence, so that proxies and clients can tell silence from a
/// connection that is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Asks proxies of a common kind to pass every event on at once.
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

pub(super) async fn events(State(answers): State<Answers>) -> Response {
    match answers.feed.watch() {
        Ok(watcher) => {
            let events = unfold(watcher, async |mut watcher: Watcher| {
                let message = watcher.next().await?;
                Some((Ok::<_, Infallible>(event(&message)), watcher))
            });
            let events = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
            ([UNBUFFERED], events).into_response()
        }
        Err(Refused::Full) => {
            let later = [(RETRY_AFTER, "10")];
            (StatusCode::SERVICE_UNAVAILABLE, later, "too many streams\n").into_response()
        }
        Err(Refused::Ended) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

fn event(message: &Message) -> Event {
    let event = Event::default().event(message.kind.as_str()).data(&*message.json);
    match message.kind {
        Kind::Snapshot => event.retry(RETRY),
        Kind::Members | Kind::Origins => event,
    }
}
