//! What happens at the node, as streams.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use brickwork_core::map::Dot;
use brickwork_core::{Event, Key};
use futures_core::Stream;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

/// The events of a node, in order: a [`Stream`] with an own [`next`](Self::next).
///
/// Lag is explicit and costs the node nothing: a receiver that falls behind by more than 16,384 events is
/// given [`Event::Missed`] in the place of the oldest ones, and resyncs from the node's members and map.
/// The stream ends with the task, after the last event.
///
/// ```
/// use brickwork_tokio::{Config, Event, Options, bind};
/// use tokio_stream::StreamExt as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let any_port = ([127, 0, 0, 1], 0).into();
/// let a = bind(Options::new("a", any_port).config(Config::local())).await?;
/// let joined = a.events().filter(|event| matches!(event, Event::Joined { .. }));
/// let b = bind(Options::new("b", any_port).config(Config::local()).seed(a.local_addr())).await?;
/// assert_eq!(joined.take(1).collect::<Vec<_>>().await.len(), 1);
/// # drop(b);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Events {
    receiver: BroadcastStream<Event>,
}

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self { receiver: BroadcastStream::new(receiver) }
    }

    /// The next event; `None` when the task is over.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let next = ready!(Pin::new(&mut self.receiver).poll_next(cx));
        Poll::Ready(next.map(|received| match received {
            Ok(event) => event,
            Err(BroadcastStreamRecvError::Lagged(events)) => Event::Missed { events },
        }))
    }
}

/// One step of [`Changes`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The value read for a key is another one, or gone.
    Key {
        /// The key.
        key: Key,
        /// The write whose value was read before; `None` if there was no value.
        old: Option<Dot>,
        /// The write whose value is read now, and in its `replica` who wrote it; `None` if there is no value.
        new: Option<Dot>,
    },
    /// Up to this many changes were lost to a slow receiver: the map is the truth to resume from.
    Missed {
        /// How many events, changes of other keys among them.
        events: u64,
    },
}

/// The changes of the keys with one prefix, in order: a [`Stream`] with an own [`next`](Self::next).
///
/// Lag is as explicit as in [`Events`], by [`Change::Missed`].
#[derive(Debug)]
pub struct Changes {
    events: Events,
    prefix: Vec<u8>,
}

impl Changes {
    pub(crate) const fn new(events: Events, prefix: Vec<u8>) -> Self {
        Self { events, prefix }
    }

    /// The next change; `None` when the task is over.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no change.
    pub async fn next(&mut self) -> Option<Change> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Changes {
    type Item = Change;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        loop {
            match ready!(Pin::new(&mut self.events).poll_next(cx)) {
                Some(Event::Changed { key, old, new }) if key.starts_with(&self.prefix) => {
                    return Poll::Ready(Some(Change::Key { key, old, new }));
                }
                Some(Event::Missed { events }) => {
                    return Poll::Ready(Some(Change::Missed { events }));
                }
                None => return Poll::Ready(None),
                // The others are about other keys, or not about keys.
                Some(Event::Changed { .. } | _) => {}
            }
        }
    }
}
