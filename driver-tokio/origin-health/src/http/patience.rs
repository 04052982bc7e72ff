//! A stream that gives up on a peer that takes nothing.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io::{self, IoSlice};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Breaks off when a write has waited for `limit` without a byte taken. Silence while there is
/// nothing to write is no fault.
pub(super) struct Patient<S> {
    stream: S,
    limit: Duration,
    /// The end of patience, while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, waiting: None }
    }

    /// Passes on what came of a write, or an error when it has waited for too long.
    fn bound<T>(
        &mut self,
        cx: &mut Context<'_>,
        tried: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            self.waiting = None;
            return tried;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bound(cx, tried)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.bound(cx, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has nothing to flush; what waits, waits in a write.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.bound(cx, tried)
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{Instant, advance};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (near, _far) = duplex(8);
        let mut near = Patient::new(near, LIMIT);
        near.write_all(b"all fits").await.expect("room");
        advance(10 * LIMIT).await;
        let start = Instant::now();
        let error = near.write_all(b"!").await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= LIMIT, "silence before the write does not count");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_is_borne_with() {
        let (near, mut far) = duplex(1);
        let mut near = Patient::new(near, LIMIT);
        let read = async {
            for _ in 0..5 {
                sleep(LIMIT - Duration::from_secs(1)).await;
                far.read_u8().await.expect("a byte");
            }
        };
        let (written, ()) = tokio::join!(near.write_all(b"bytes"), read);
        written.expect("every byte is progress");
    }

    /// A watcher of a feed sits in the connection's answer, so its seat ends with the connection.
    #[tokio::test(start_paused = true)]
    async fn an_endless_answer_ends_with_patience() {
        let (near, mut far) = duplex(64);
        let seat = Arc::new(());
        let held = Arc::clone(&seat);
        let answer = futures_util::stream::unfold(held, async |held| {
            Some((Ok::<_, core::convert::Infallible>("tick\n"), held))
        });
        let body = std::sync::Mutex::new(Some(axum::body::Body::from_stream(answer)));
        let service = hyper::service::service_fn(move |_| {
            let body = body.lock().ok().and_then(|mut body| body.take()).unwrap_or_default();
            core::future::ready(Ok::<_, core::convert::Infallible>(axum::http::Response::new(body)))
        });
        let io = hyper_util::rt::TokioIo::new(Patient::new(near, LIMIT));
        let served = tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .header_read_timeout(None)
                .serve_connection(io, service),
        );
        far.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it is taken");
        far.read_u8().await.expect("the answer begins");
        assert!(served.await.expect("no panic").is_err(), "the connection is broken off");
        assert_eq!(Arc::strong_count(&seat), 1, "and the seat is free");
    }
}
