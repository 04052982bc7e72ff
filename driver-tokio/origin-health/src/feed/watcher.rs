//! One who watches a feed.

use alloc::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use super::{Feed, Message};

/// Why nobody more can watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There are as many watchers as are allowed.
    Full,
    /// The node is gone.
    Ended,
}

/// Gives everything, then what changes, at the pace of whoever asks.
///
/// It holds nothing of what it gives: rows are read when they are asked for. One that asks so
/// slowly that messages are lost to it is given everything anew.
#[derive(Debug)]
pub(crate) struct Watcher {
    feed: Feed,
    messages: broadcast::Receiver<Message>,
    step: Step,
    _seat: OwnedSemaphorePermit,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Snapshot,
    Members,
    /// The origins from this one on.
    Origins(usize),
    Changes,
}

impl Watcher {
    pub(super) fn new(feed: &Feed) -> Result<Self, Refused> {
        let seat = Arc::clone(&feed.seats).try_acquire_owned().map_err(|_none| Refused::Full)?;
        let messages = feed.messages.upgrade().ok_or(Refused::Ended)?.subscribe();
        Ok(Self { feed: feed.clone(), messages, step: Step::Snapshot, _seat: seat })
    }

    /// The next message; none when the node is gone.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        match self.step {
            Step::Snapshot => {
                self.step = Step::Members;
                Some(Message::snapshot(&self.feed))
            }
            Step::Members => {
                self.step = Step::Origins(0);
                let roll = self.feed.source.read_roll().await.ok()?;
                Some(Message::members(&roll))
            }
            Step::Origins(from) => {
                let source = &self.feed.source;
                let to = source.origins.len().min(from + self.feed.limits.rows);
                // A message that waits may be older than the rows read here. What changed in
                // between is in a later message, so the watcher is behind for a tick at most.
                let rows = source.read((from..to).collect()).await.ok()?;
                let all = to == source.origins.len();
                self.step = if all { Step::Changes } else { Step::Origins(to) };
                Some(Message::origins(&source.origins, &rows))
            }
            Step::Changes => match self.messages.recv().await {
                Ok(message) => Some(message),
                Err(RecvError::Lagged(_)) => {
                    // What is still in the channel is older than what is read from now on.
                    self.messages = self.messages.resubscribe();
                    self.step = Step::Members;
                    Some(Message::snapshot(&self.feed))
                }
                Err(RecvError::Closed) => None,
            },
        }
    }
}
