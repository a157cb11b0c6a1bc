//! gRPC's framing, by hand: a message is handed on as the bytes that came, and every limit holds before memory is taken.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Buf as _, Bytes, BytesMut};
use fault::Fault;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body as _, Frame};
use tokio::time::Instant;
use tonic::Status;

use crate::admission::{Admission, Hold};
use crate::inflate::{Packing, unpack};
use crate::refusal;
use crate::sender::Sender;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Whether a message is compressed, and its length.
const PREFIX: usize = 5;
const RESERVE: usize = 256 << 10;
/// How long a message that has begun may take for [`LEAST`] bytes, or for its end. Between two messages a stream may be silent
/// for as long as it likes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Three kilobytes a second: less is no link, but a hold on the room that others need.
const LEAST: usize = 64 << 10;
/// As good as for ever, for messages of streams that have not begun.
const UNTIL_THERE_IS_ROOM: Duration = Duration::from_secs(3600);

/// What a message may be.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Bytes as it travels.
    pub message: usize,
    /// Bytes when it is unpacked.
    pub unpacked: usize,
}

impl Sizes {
    /// Bytes of the largest message while it is read, with what comes behind it in the same piece.
    #[must_use]
    pub fn while_read(&self) -> usize {
        self.message.saturating_add(PREFIX + RESERVE)
    }
}

/// One message, with the room that it takes.
pub struct Message {
    pub bytes: Bytes,
    pub hold: Hold,
}

/// The messages of a request.
pub struct Frames {
    body: Body,
    buffer: BytesMut,
    packing: Packing,
    sizes: Sizes,
    admission: Admission,
    sender: Sender,
    /// How long a message waits for room.
    patience: Duration,
    /// Bytes of a message that was given up, still to come and to be dropped.
    skip: usize,
    /// The last message failed in a way that leaves the next one readable.
    can_go_on: bool,
}

impl Frames {
    /// Begins to read a request's body.
    ///
    /// # Errors
    /// The request is not gRPC, or packed in a way that we do not know.
    pub fn new(request: Request<Body>, sizes: Sizes, admission: Admission, sender: Sender) -> Result<Self, Fault> {
        let (head, body) = request.into_parts();
        let packing = packing(&head.headers, "grpc-encoding")?;
        Ok(Self {
            body,
            buffer: BytesMut::new(),
            packing,
            sizes,
            admission,
            sender,
            patience: Duration::ZERO,
            skip: 0,
            can_go_on: true,
        })
    }

    /// Messages wait for room instead of being refused at once.
    #[must_use]
    pub fn waiting_for_room(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Whether the message after one that failed can be read.
    #[must_use]
    pub fn can_go_on(&self) -> bool {
        self.can_go_on
    }

    /// The next message, or nothing at the end of the stream. Cancelling it loses nothing.
    ///
    /// # Errors
    /// It is too large, broken, stalls, or there is no room.
    pub async fn next(&mut self) -> Result<Option<Message>, Fault> {
        self.next_begun(None).await
    }

    /// The next message, which begins at the pace of `first`; without one, whenever it likes.
    async fn next_begun(&mut self, first: Option<&mut Pace>) -> Result<Option<Message>, Fault> {
        self.can_go_on = false;
        let mut hold = self.admission.begin();
        self.pass_over().await?;
        // Who holds no room yet may wait for it as long as it takes: others cannot wait for him.
        let patience = if self.patience.is_zero() { self.patience } else { UNTIL_THERE_IS_ROOM };
        hold.grow_within(self.buffer.len(), patience).await?;
        if self.buffer.is_empty() && !self.more(&mut hold, first, patience).await? {
            return Ok(None);
        }
        let mut pace = Pace::begin();
        while self.buffer.len() < PREFIX {
            self.piece(&mut hold, &mut pace).await?;
        }
        let compressed = match self.buffer[0] {
            0 => false,
            1 if self.packing != Packing::None => true,
            1 => return Err(malformed("it is marked as compressed, but there is no grpc-encoding header")),
            _ => return Err(malformed("its first byte is neither 0 nor 1")),
        };
        let length = u32::from_be_bytes([self.buffer[1], self.buffer[2], self.buffer[3], self.buffer[4]]) as usize;
        if length > self.sizes.message {
            return Err(self.give_up(length, refusal::too_large("message", self.sizes.message)));
        }
        // The length is the client's word: not all of it is believed at once.
        self.buffer.reserve((PREFIX + length).saturating_sub(self.buffer.len()).min(RESERVE));
        while self.buffer.len() < PREFIX + length {
            let more = match hold.unfinished(&self.sender, self.patience).await {
                Ok(()) => self.piece(&mut hold, &mut pace).await,
                Err(fault) => Err(fault),
            };
            if let Err(fault) = more {
                return Err(if fault.code() == "overloaded" { self.give_up(length, fault) } else { fault });
            }
        }
        hold.whole();
        self.buffer.advance(PREFIX);
        let bytes = self.buffer.split_to(length).freeze();
        self.can_go_on = true;
        hold.shrink(PREFIX + self.buffer.len());
        let packing = if compressed { self.packing } else { Packing::None };
        let bytes = unpack(bytes, packing, self.sizes.unpacked, &mut hold).await?;
        Ok(Some(Message { bytes, hold }))
    }

    /// Forgets a message whose beginning is in the buffer.
    fn give_up(&mut self, length: usize, fault: Fault) -> Fault {
        let here = self.buffer.len().min(PREFIX + length);
        self.buffer.advance(here);
        self.skip = PREFIX + length - here;
        self.can_go_on = true;
        fault
    }

    /// Reads and drops the rest of a message that was given up.
    async fn pass_over(&mut self) -> Result<(), Fault> {
        let mut pace = Pace::begin();
        while self.skip > 0 {
            let Some(piece) = next_piece(&mut self.body, Some(&mut pace)).await? else {
                return Err(malformed("it ends within a message"));
            };
            let dropped = piece.len().min(self.skip);
            self.skip -= dropped;
            self.buffer.extend_from_slice(&piece[dropped..]);
        }
        Ok(())
    }

    /// The one message of a unary call.
    ///
    /// # Errors
    /// As [`Frames::next`]; also when there is none, or more than one.
    pub async fn only(&mut self) -> Result<Message, Fault> {
        let message = self.next_begun(Some(&mut Pace::begin())).await?.ok_or_else(|| malformed("it has no message"))?;
        let (mut beside, mut pace) = (self.admission.begin(), Pace::begin());
        if !self.buffer.is_empty() || self.more(&mut beside, Some(&mut pace), self.patience).await? {
            return Err(malformed("it has more than one message"));
        }
        Ok(message)
    }

    async fn piece(&mut self, hold: &mut Hold, pace: &mut Pace) -> Result<(), Fault> {
        if self.more(hold, Some(pace), self.patience).await? {
            Ok(())
        } else {
            Err(malformed("it ends within a message"))
        }
    }

    /// Reads the next piece of the body; false at its end. A piece for which there is no room is kept all the same: it is
    /// what is here already.
    async fn more(&mut self, hold: &mut Hold, mut pace: Option<&mut Pace>, patience: Duration) -> Result<bool, Fault> {
        let piece = next_piece(&mut self.body, pace.as_deref_mut()).await?;
        let Some(piece) = piece else { return Ok(false) };
        let length = piece.len();
        // A piece that nothing precedes is taken over without a copy.
        if self.buffer.is_empty() {
            self.buffer = BytesMut::from(piece);
        } else {
            self.buffer.extend_from_slice(&piece);
        }
        if patience.is_zero() {
            hold.grow(length)?;
        } else {
            let begun = Instant::now();
            hold.grow_within(length, patience).await?;
            // What was waited for is our doing.
            pace.into_iter().for_each(|pace| pace.until += begun.elapsed());
        }
        Ok(true)
    }
}

/// How fast a message has to come.
struct Pace {
    /// Until then `missing` more bytes must be here, or the end.
    until: Instant,
    missing: usize,
}

impl Pace {
    fn begin() -> Self {
        Self { until: Instant::now() + PATIENCE, missing: LEAST }
    }

    fn came(&mut self, bytes: usize) {
        match self.missing.checked_sub(bytes) {
            Some(missing) if missing > 0 => self.missing = missing,
            _ => *self = Self::begin(),
        }
    }
}

/// The whole of an HTTP body of `sender`, at most `limit` bytes.
///
/// # Errors
/// It is too large, too slow, or there is no room.
pub async fn whole(mut body: Body, limit: usize, sender: &Sender, hold: &mut Hold) -> Result<Bytes, Fault> {
    let mut pace = Pace::begin();
    let Some(first) = next_piece(&mut body, Some(&mut pace)).await? else { return Ok(Bytes::new()) };
    let check = |length: usize| if length > limit { Err(refusal::too_large("message", limit)) } else { Ok(()) };
    check(first.len())?;
    hold.grow(first.len())?;
    let mut all: Option<BytesMut> = None;
    if !body.is_end_stream() {
        hold.unfinished(sender, Duration::ZERO).await?;
    }
    while let Some(piece) = next_piece(&mut body, Some(&mut pace)).await? {
        let all = all.get_or_insert_with(|| BytesMut::from(&first[..]));
        check(all.len() + piece.len())?;
        hold.grow(piece.len())?;
        all.extend_from_slice(&piece);
    }
    hold.whole();
    Ok(all.map_or(first, BytesMut::freeze))
}

/// The next piece that is not empty.
async fn next_piece(body: &mut Body, mut pace: Option<&mut Pace>) -> Result<Option<Bytes>, Fault> {
    loop {
        let frame = match &pace {
            Some(pace) => tokio::time::timeout_at(pace.until, body.frame())
                .await
                .map_err(|_| interrupted("the rest of the message did not come in time"))?,
            None => body.frame().await,
        };
        match frame {
            None => return Ok(None),
            // It stalled, or the client is gone: that may pass.
            Some(Err(_)) => return Err(interrupted("the message broke off or stalled")),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) if !piece.is_empty() => {
                    pace.iter_mut().for_each(|pace| pace.came(piece.len()));
                    return Ok(Some(piece));
                }
                _ => {}
            },
        }
    }
}

/// How a message says that it is packed.
///
/// # Errors
/// In a way that we do not know.
pub fn packing(headers: &HeaderMap, name: &str) -> Result<Packing, Fault> {
    let Some(value) = headers.get(name) else { return Ok(Packing::None) };
    value.to_str().ok().and_then(Packing::named).ok_or_else(|| {
        Fault::invalid("encoding_unknown", format!("{name} must be one of identity, gzip, deflate and zstd"))
    })
}

/// What came was well so far. Clients drop what was called invalid, and a stall passes.
fn interrupted(what: &str) -> Fault {
    Fault::new(fault::Kind::Unavailable, "message_interrupted", format!("{what}; send it again"))
        .retry_after(Duration::from_secs(1))
}

fn malformed(what: &str) -> Fault {
    Fault::invalid("message_malformed", format!("the request is not well-formed: {what}"))
}

/// Whether the request claims to be gRPC.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.to_ascii_lowercase();
    kind == "application/grpc" || kind.starts_with("application/grpc+proto") || kind.starts_with("application/grpc;")
}

/// A message with its frame around it.
#[must_use]
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.extend_from_slice(&[0]);
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(message);
    framed.freeze()
}

/// The trailers that end an answer well.
#[must_use]
pub fn trailers(status: Option<Status>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    match status {
        None => {
            trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        }
        Some(status) => {
            // Only a message that is no header text could fail, and tonic encodes those.
            if status.add_header(&mut trailers).is_err() {
                trailers.insert(GRPC_STATUS, HeaderValue::from_static("14"));
            }
        }
    }
    trailers
}

/// A unary answer.
#[must_use]
pub fn answer(message: &[u8]) -> Response {
    let frames = [Ok::<_, std::convert::Infallible>(Frame::data(frame(message))), Ok(Frame::trailers(trailers(None)))];
    streaming(futures::stream::iter(frames))
}

/// An answer whose frames come one by one.
pub fn streaming<S, E>(frames: S) -> Response
where
    S: futures::Stream<Item = Result<Frame<Bytes>, E>> + Send + 'static,
    E: Into<axum::BoxError> + 'static,
{
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}

/// An answer that says why there is no other.
#[must_use]
pub fn refuse(fault: Fault) -> Response {
    let accept = fault.code() == "encoding_unknown";
    let status = if accept { Status::unimplemented(fault.detail()) } else { refusal::status(fault) };
    let mut response: Response = status.into_http();
    if accept {
        let known = HeaderValue::from_static("identity,gzip,deflate,zstd");
        response.headers_mut().insert("grpc-accept-encoding", known);
    }
    response
}

/// What a caller gets who does not speak gRPC at all.
#[must_use]
pub fn not_grpc() -> Response {
    let text = "this port speaks gRPC (HTTP/2, content-type application/grpc); OTLP over HTTP has a port of its own, 4318 unless it was set otherwise\n";
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use telemetry::metrics::Gauge;

    use super::*;

    type Never = std::convert::Infallible;

    const SIZES: Sizes = Sizes { message: 32 << 20, unpacked: 32 << 20 };

    fn sender() -> Sender {
        Sender::at("acme", std::net::Ipv4Addr::LOCALHOST.into())
    }

    fn admission() -> Admission {
        Admission::new(64 << 20, SIZES.message, Gauge::default())
    }

    /// A body that claims to be a message of `length` bytes, and brings `piece` bytes each `pause`.
    fn dribbling(length: u32, piece: usize, pause: Duration) -> Body {
        let mut beginning = vec![0];
        beginning.extend(length.to_be_bytes());
        let begun = futures::stream::iter([Ok::<_, Never>(Frame::data(Bytes::from(beginning)))]);
        let rest = futures::stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((Ok(Frame::data(Bytes::from(vec![0; piece]))), ()))
        });
        Body::new(StreamBody::new(begun.chain(rest)))
    }

    async fn message(body: Body, patience: Duration) -> Result<usize, Fault> {
        let mut frames = Frames::new(Request::new(body), SIZES, admission(), sender())?.waiting_for_room(patience);
        Ok(frames.next().await?.map_or(0, |message| message.bytes.len()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_of_one_message_does_not_wait_for_it_for_ever() {
        let silent = Body::new(StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Never>>()));
        let mut frames = Frames::new(Request::new(silent), SIZES, admission(), sender()).unwrap();
        let fault = frames.only().await.map(|_| ()).unwrap_err();
        assert!(fault.is_retryable());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_slow_comes_and_one_that_only_holds_its_room_ends() {
        for patience in [Duration::ZERO, Duration::from_secs(60)] {
            let slow = dribbling(1 << 20, 8 << 10, Duration::from_secs(2));
            assert_eq!(message(slow, patience).await.unwrap(), 1 << 20);
            let begun = Instant::now();
            let fault = message(dribbling(1 << 20, 1, Duration::from_secs(1)), patience).await.unwrap_err();
            assert_eq!((fault.code(), fault.is_retryable(), begun.elapsed()), ("message_interrupted", true, PATIENCE));
        }
        let body = dribbling(0, 1, Duration::from_secs(1));
        let fault = whole(body, SIZES.message, &sender(), &mut admission().begin()).await.unwrap_err();
        assert_eq!(fault.code(), "message_interrupted");
    }
}
