//! Sending one message once, and what came of it.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::{HeaderMap, Request, RequestError, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;

use crate::connection::Connection;

/// How long one acknowledgement is waited for before the same message is sent again.
const ATTEMPT: Duration = Duration::from_secs(2);

/// What one attempt brought.
pub(crate) enum Attempt {
    /// The sequence in the stream.
    Acknowledged(u64),
    /// Not in the stream, since that has no room.
    Full(String),
    /// Not in the stream, as far as this attempt can say.
    Declined(String),
    NoAnswer,
    Refused(String),
}

/// Sends once, and waits for the answer until `deadline`, [`ATTEMPT`] at most.
pub(crate) async fn attempt(
    connection: &Connection,
    subject: &str,
    headers: &HeaderMap,
    payload: &Bytes,
    deadline: Instant,
) -> Attempt {
    // What is handed to a client without a connection is kept and sent later, perhaps after we said that it was not.
    if tokio::time::timeout_at(deadline, connection.connected()).await.is_err() {
        return Attempt::Declined("there is no connection".to_owned());
    }
    let mut loss = connection.watch();
    let request = Request::new().payload(payload.clone()).headers(headers.clone()).timeout(Some(ATTEMPT));
    tokio::select! {
        answer = tokio::time::timeout_at(deadline, connection.client.send_request(subject.to_owned(), request)) => {
            match answer {
                Ok(Ok(answer)) => read(&answer.payload),
                Ok(Err(error)) => classify(&error),
                Err(_) => Attempt::NoAnswer,
            }
        }
        // The answer died with the connection: ask again as soon as there is another.
        () = loss.happened() => Attempt::NoAnswer,
    }
}

fn classify(error: &RequestError) -> Attempt {
    match error.kind() {
        // Nobody listens on the subject: JetStream or the stream is not up (yet).
        RequestErrorKind::NoResponders => Attempt::Declined("there is no stream for the subject".to_owned()),
        RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => Attempt::Refused(error.to_string()),
        RequestErrorKind::TimedOut | RequestErrorKind::Other => Attempt::NoAnswer,
    }
}

/// JetStream's answer to a publish: an error, or the place in the stream (which may be the place it had before).
#[derive(Deserialize)]
struct Answer {
    error: Option<ApiError>,
    seq: Option<u64>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

fn read(answer: &[u8]) -> Attempt {
    match serde_json::from_slice(answer) {
        Ok(Answer { error: None, seq: Some(sequence) }) => Attempt::Acknowledged(sequence),
        // The one answer that no waiting changes; a full stream or a missing leader passes.
        Ok(Answer { error: Some(error), .. }) if error.err_code == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM.0 => {
            Attempt::Refused(error.description)
        }
        Ok(Answer { error: Some(error), .. })
            if error.err_code == ErrorCode::STREAM_STORE_FAILED.0 && error.description.contains("maximum bytes") =>
        {
            Attempt::Full(error.description)
        }
        Ok(Answer { error: Some(error), .. }) => Attempt::Declined(error.description),
        Ok(Answer { error: None, seq: None }) | Err(_) => Attempt::NoAnswer,
    }
}
