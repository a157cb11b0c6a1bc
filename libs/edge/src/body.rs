//! The body of a request: may it pause, and was it read to its end?

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use bytes::Bytes;
use http::{Request, Version, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

/// Nothing more of a body came in time. The client may send the request again.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request did not go on for {0:?}")]
pub struct Stalled(pub Duration);

/// A body that may not pause for ever and tells its connection when it was left unread.
pub(crate) struct Watched {
    inner: Incoming,
    pause: Option<Duration>,
    waiting: Option<Pin<Box<Sleep>>>,
    ended: bool,
    unread: Option<Arc<AtomicBool>>,
}

impl Watched {
    /// Watches the body of `request`; `unread` becomes true when it is dropped before its end.
    pub(crate) fn of(request: Request<Incoming>, pause: Duration, unread: &Arc<AtomicBool>) -> Request<Self> {
        let is_grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        // HTTP/2 ends a stream alone.
        let unread = (request.version() < Version::HTTP_2).then(|| Arc::clone(unread));
        request.map(|inner| Self { inner, pause: (!is_grpc).then_some(pause), waiting: None, ended: false, unread })
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(frame) => {
                this.waiting = None;
                this.ended |= !matches!(frame, Some(Ok(_)));
                Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
            }
            Poll::Pending => {
                let Some(pause) = this.pause else { return Poll::Pending };
                let waiting = this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
                ready!(waiting.as_mut().poll(context));
                Poll::Ready(Some(Err(Stalled(pause).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(unread) = &self.unread
            && !self.ended
            && !self.inner.is_end_stream()
        {
            unread.store(true, Ordering::Relaxed);
        }
    }
}
