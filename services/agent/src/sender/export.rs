//! One export over gRPC. The request goes as the bytes that were spooled: they were encoded once, and reading them into
//! objects for every attempt would cost more than all the rest.

use bytes::{BufMut as _, Bytes};
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::signal::Signal;

/// What a gateway left out of a request that it took.
#[derive(Debug)]
pub struct Partial {
    pub rejected: u64,
    pub message: String,
}

impl Partial {
    /// A server may send an empty one where it should send none.
    fn of(rejected: i64, message: String) -> Option<Self> {
        let rejected = u64::try_from(rejected).unwrap_or(0);
        (rejected > 0 || !message.is_empty()).then_some(Self { rejected, message })
    }
}

pub async fn export(signal: Signal, channel: Channel, request: Request<Bytes>) -> Result<Option<Partial>, Status> {
    let path = PathAndQuery::from_static(match signal {
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    });
    let mut grpc =
        Grpc::new(channel).send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let answer = grpc.unary(request, path, Raw).await?.into_inner();
    let damaged = |error: prost::DecodeError| Status::internal(format!("the answer cannot be read: {error}"));
    Ok(match signal {
        Signal::Metrics => ExportMetricsServiceResponse::decode(answer)
            .map_err(damaged)?
            .partial_success
            .and_then(|partial| Partial::of(partial.rejected_data_points, partial.error_message)),
        Signal::Logs => ExportLogsServiceResponse::decode(answer)
            .map_err(damaged)?
            .partial_success
            .and_then(|partial| Partial::of(partial.rejected_log_records, partial.error_message)),
    })
}

/// Bytes in, bytes out.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        use bytes::Buf as _;
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
